#pragma once
// HTTP Digest with AKAv1-MD5 (RFC 2617, RFC 3310): the phone's answer to a challenge.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace gmgate::ue {

struct DigestInput {
    std::string_view user;
    std::string_view realm;
    std::string_view nonce;
    std::string_view method;
    std::string_view uri;
    std::string_view qop;     // "", "auth" or "auth-int"
    std::string_view nc;      // "00000001"; with qop only
    std::string_view cnonce;  // with qop only
    std::string_view body;    // with auth-int only
};

// `password` is RES as octets; empty when the answer carries AUTS (RFC 3310 3.4). 32 lower-case hex
// digits.
[[nodiscard]] std::string aka_digest(const DigestInput& in, std::span<const std::uint8_t> password);

}  // namespace gmgate::ue
