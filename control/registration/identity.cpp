#include "control/registration/identity.h"

#include "base/bytes.h"

namespace gmgate::registration {
namespace {

void append_lower(std::string& out, std::string_view text) {
    const std::size_t at = out.size();
    out.append(text);
    for (std::size_t i = at; i < out.size(); ++i) out[i] = ascii_lower(out[i]);
}

}  // namespace

bool normalise_identity(const sip::Uri& uri, std::string& out) {
    switch (uri.scheme) {
        case sip::Scheme::sip:
        case sip::Scheme::sips:
            out += uri.scheme == sip::Scheme::sip ? "sip:" : "sips:";
            if (!uri.user.empty()) {
                out += uri.user;
                out += '@';
            }
            append_lower(out, uri.host);
            if (uri.port != 0) {
                out += ':';
                out += std::to_string(uri.port);
            }
            return true;
        case sip::Scheme::tel:
            out += "tel:";
            for (const char c : uri.user) {
                // Visual separators of RFC 3966 mean nothing.
                if (c != '-' && c != '.' && c != '(' && c != ')') out += ascii_lower(c);
            }
            return true;
        case sip::Scheme::urn:
        case sip::Scheme::other:
            return false;
    }
    return false;
}

std::optional<std::string> normalised_identity(const sip::Uri& uri) {
    std::string out;
    if (!normalise_identity(uri, out)) return std::nullopt;
    return out;
}

std::optional<std::string> identity_of(const sip::Message& message, sip::HeaderId id) {
    const auto value = sip::is_comma_list(id) ? message.first_value(id) : message.value(id);
    if (!value) return std::nullopt;
    const auto name = sip::parse_name_addr(*value);
    if (!name) return std::nullopt;
    return normalised_identity(name->uri);
}

std::vector<std::string> associated_uris(const sip::Message& message, std::size_t limit) {
    std::vector<std::string> found;
    for (const sip::Value& value : message.values(sip::HeaderId::p_associated_uri)) {
        if (found.size() >= limit) break;
        const auto name = sip::parse_name_addr(value.text);
        if (!name) continue;
        if (auto identity = normalised_identity(name->uri)) found.push_back(std::move(*identity));
    }
    return found;
}

std::string joined_values(const sip::Message& message, sip::HeaderId id) {
    std::string out;
    for (const sip::Value& value : message.values(id)) {
        if (value.text.empty()) continue;
        if (!out.empty()) out += ", ";
        // What is stored may be written into a header line.
        sip::append_on_one_line(out, value.text);
    }
    return out;
}

bool same_uri(const sip::Uri& a, const sip::Uri& b) {
    if (!sip::same_identity(a, b)) return false;
    for (const std::string_view name : {"transport", "lr", "maddr"}) {
        const auto pa = a.param(name);
        const auto pb = b.param(name);
        if (pa.has_value() != pb.has_value()) return false;
        if (pa && name != "lr" && !iequals(pa->value, pb->value)) return false;
    }
    return true;
}

}  // namespace gmgate::registration
