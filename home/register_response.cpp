#include "home/register_response.h"

#include <array>
#include <charconv>
#include <cstddef>

#include "base/bytes.h"
#include "base/secret.h"
#include "control/sip/values.h"

namespace gmgate::home {

namespace {

// Room for everything a 401 adds to what it copies, so that no buffer with keys in it is ever left
// behind by a reallocation.
constexpr std::size_t challenge_room = 1024;

void append_hex(std::string& out, std::span<const std::uint8_t> bytes) {
    static constexpr std::string_view digits = "0123456789abcdef";
    for (const auto b : bytes) {
        out += digits[b >> 4U];
        out += digits[b & 15U];
    }
}

void wipe_text(std::string& text) {
    wipe({reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
    text.clear();
}

void append_addresses(std::string& out, std::span<const std::string> uris) {
    for (const auto& uri : uris) {
        if (!out.empty()) out += ", ";
        out += '<';
        out += uri;
        out += '>';
    }
}

}  // namespace

RegisterResponder::RegisterResponder(std::string realm, std::string qop,
                                     std::string charging_function)
    : realm_(std::move(realm)),
      qop_(std::move(qop)),
      charging_function_(std::move(charging_function)) {
    challenge_.reserve(challenge_room + realm_.size() + qop_.size());
}

void RegisterResponder::wipe_buffers() {
    wipe_text(challenge_);
    wipe_text(out_);
}

std::string_view RegisterResponder::build(const To& to, int code, std::string_view reason,
                                          std::span<const sip::HeaderField> headers) {
    sip::ResponseOptions options;
    options.reason = reason;
    options.to_tag = to.tag;
    options.source = to.source;
    options.headers = headers;
    if (!sip::build_response(to.request, code, options, out_)) out_.clear();
    return out_;
}

std::string_view RegisterResponder::challenge(const To& to, std::string_view nonce,
                                              const AuthVector& vector) {
    auto& c = challenge_;
    wipe_text(c);
    c += "Digest realm=\"";
    c += realm_;
    c += "\",nonce=\"";
    c += nonce;
    c += "\",algorithm=AKAv1-MD5";
    if (!qop_.empty()) {
        c += ",qop=\"";
        c += qop_;
        c += '"';
    }
    c += ",ck=\"";
    append_hex(c, vector.ck.reveal());
    c += "\",ik=\"";
    append_hex(c, vector.ik.reveal());
    c += '"';
    out_.reserve(to.request.head().size() + c.capacity());
    const std::array headers = {sip::HeaderField{"WWW-Authenticate", c}};
    return build(to, 401, {}, headers);
}

std::string_view RegisterResponder::accept(const To& to, const Accepted& accepted) {
    std::array<sip::HeaderField, 6> headers{};
    std::size_t n = 0;
    const auto add = [&](std::string_view name, std::string_view value) {
        if (!value.empty()) headers[n++] = {name, value};
    };
    contact_.clear();
    if (!accepted.contact.empty()) {
        contact_ += '<';
        contact_ += accepted.contact;
        contact_ += '>';
        sip::ParamReader params(accepted.contact_params);
        while (const auto p = params.next()) {
            if (iequals(p->name, "expires")) continue;
            contact_ += ';';
            contact_ += p->whole;
        }
        std::array<char, 10> digits{};
        const auto end =
            std::to_chars(digits.data(), digits.data() + digits.size(), accepted.expires).ptr;
        contact_ += ";expires=";
        contact_.append(digits.data(), end);
    }
    add("Contact", contact_);
    add("Path", accepted.path);
    service_route_.clear();
    append_addresses(service_route_, accepted.service_route);
    add("Service-Route", service_route_);
    associated_.clear();
    append_addresses(associated_, accepted.impus);
    add("P-Associated-URI", associated_);
    std::string charging;
    if (!charging_function_.empty()) charging = "ccf=" + charging_function_;
    add("P-Charging-Function-Addresses", charging);
    return build(to, 200, {}, std::span(headers).first(n));
}

std::string_view RegisterResponder::refuse(const To& to, const Refusal& refusal) {
    const std::array headers = {sip::HeaderField{refusal.header_name, refusal.header_value}};
    return build(to, refusal.code, refusal.reason,
                 std::span(headers).first(refusal.header_name.empty() ? 0 : 1));
}

}  // namespace gmgate::home
