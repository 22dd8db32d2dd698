#include "home/identity.h"

#include "base/bytes.h"
#include "control/sip/values.h"

namespace gmgate::home {

namespace {
std::optional<std::string> canonical_tel(std::string_view number) {
    std::string out = "tel:";
    for (const char c : number) {
        if (c == '-' || c == '.' || c == '(' || c == ')') continue;
        const bool plus = c == '+' && out.size() == 4;
        if (!plus && !(c >= '0' && c <= '9')) return std::nullopt;
        out += c;
    }
    if (out.size() == 4 || out.back() == '+') return std::nullopt;
    return out;
}
}  // namespace

std::optional<std::string> canonical_impu(std::string_view text) {
    const auto uri = sip::parse_uri(text);
    if (!uri) return std::nullopt;
    if (uri->scheme == sip::Scheme::tel) return canonical_tel(uri->user);
    if (uri->scheme != sip::Scheme::sip && uri->scheme != sip::Scheme::sips) return std::nullopt;
    std::string out;
    out.reserve(uri->scheme_text.size() + uri->user.size() + uri->host.size() + 2);
    out += uri->scheme == sip::Scheme::sip ? "sip:" : "sips:";
    if (!uri->user.empty()) {
        out += uri->user;
        out += '@';
    }
    for (const char c : uri->host) out += ascii_lower(c);
    return out;
}

std::string_view derived_impi(std::string_view canonical_impu) {
    if (canonical_impu.starts_with("tel:")) return {};
    const auto rest = canonical_impu.substr(canonical_impu.find(':') + 1);
    return rest.find('@') == std::string_view::npos ? std::string_view{} : rest;
}

}  // namespace gmgate::home
