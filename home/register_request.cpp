#include "home/register_request.h"

#include <optional>

#include "base/bytes.h"
#include "home/identity.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

std::unexpected<Refusal> refuse(int code, std::string reason, std::string header_name = {},
                                std::string header_value = {}) {
    return std::unexpected(
        Refusal{code, std::move(reason), std::move(header_name), std::move(header_value)});
}

// The option tags of Require we do not know (RFC 3261 8.2.2.3). Path is ours; sec-agree belongs to
// the hop before us, so a P-CSCF that lets it through is told (B4).
std::string unsupported_tags(const sip::Message& message) {
    std::string out;
    for (const auto& value : message.values(HeaderId::require)) {
        if (value.text.empty() || iequals(value.text, "path")) continue;
        if (!out.empty()) out += ", ";
        out += value.text;
    }
    return out;
}

std::expected<void, Refusal> read_contact(const sip::Message& message,
                                          std::uint32_t default_expires, RegisterRequest& r) {
    for (const auto& value : message.values(HeaderId::contact)) {
        if (r.has_contact) return refuse(400, "One Contact Per REGISTER");
        const auto contact = sip::parse_contact(value.text);
        if (!contact) return refuse(400, "Bad Contact");
        r.has_contact = true;
        r.all_contacts = contact->star;
        r.expires = sip::contact_expires(message, *contact, default_expires);
        if (contact->star) {
            if (r.expires != 0 || !message.has(HeaderId::expires))
                return refuse(400, "Contact * Without Expires 0");
            continue;
        }
        const auto scheme = contact->address.uri.scheme;
        if (scheme != sip::Scheme::sip && scheme != sip::Scheme::sips)
            return refuse(400, "Contact Is No SIP URI");
        r.contact_uri = contact->address.uri.text;
        r.contact_params = contact->address.params;
        // Who writes none, or nonsense, is as good as the best.
        const auto q = contact->address.param("q");
        r.q = (q ? sip::parse_q(q->value) : std::nullopt).value_or(r.q);
    }
    return {};
}

std::expected<void, Refusal> read_authorization(const sip::Message& message, RegisterRequest& r) {
    if (const auto value = message.value(HeaderId::authorization)) {
        const auto credentials = sip::parse_digest_credentials(*value);
        if (!credentials) return refuse(400, "Bad Authorization");
        r.credentials = *credentials;
    }
    if (r.credentials.username) {
        r.impi = sip::unescape(*r.credentials.username);
    } else {
        r.impi = derived_impi(r.impu);
    }
    if (const auto& protection = r.credentials.integrity_protected) {
        r.integrity = iequals(*protection, "yes") ? Integrity::yes : Integrity::no;
    }
    return {};
}

}  // namespace

std::string unfold(std::string_view value) {
    std::string out(value);
    for (auto& c : out) {
        if (c == '\r' || c == '\n' || c == '\t') c = ' ';
    }
    return out;
}

std::expected<RegisterRequest, Refusal> read_register(const sip::Message& message,
                                                      std::uint32_t default_expires) {
    if (message.status() != sip::ParseStatus::ok) {
        return refuse(sip::response_code(message.status()),
                      std::string(sip::text(message.status())));
    }
    if (const auto rejection = sip::check_request(message)) {
        return refuse(rejection->code, std::string(rejection->reason));
    }
    if (auto tags = unsupported_tags(message); !tags.empty())
        return refuse(420, "", "Unsupported", std::move(tags));

    RegisterRequest r;
    const auto to = sip::to(message);
    auto impu = to ? canonical_impu(to->uri.text) : std::nullopt;
    if (!impu) return refuse(400, "To Is No Public User Identity");
    r.impu = std::move(*impu);
    r.call_id = sip::call_id(message);
    if (const auto cseq = sip::cseq(message)) r.cseq = cseq->number;

    if (auto done = read_authorization(message, r); !done)
        return std::unexpected(std::move(done.error()));
    if (auto done = read_contact(message, default_expires, r); !done)
        return std::unexpected(std::move(done.error()));

    for (const sip::Header* h = message.first(HeaderId::path); h != nullptr; h = message.next(*h)) {
        if (!r.path.empty()) r.path += ", ";
        if (h->folded) {
            r.path += unfold(message.value(*h));
        } else {
            r.path += message.value(*h);
        }
    }
    return r;
}

}  // namespace gmgate::home
