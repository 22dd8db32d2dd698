#pragma once
// Public user identities in one spelling, so that they can be keys of tables.

#include <optional>
#include <string>
#include <string_view>

namespace gmgate::home {

// The canonical form of a public user identity (TS 23.003 13.4): scheme and host in lower case, no
// port, parameters or headers; of a tel URI the digits without visual separators (RFC 3966). Takes
// a bare URI, no angle brackets. nullopt: neither sip, sips nor tel, or without a host or digits.
[[nodiscard]] std::optional<std::string> canonical_impu(std::string_view uri);

// user@host of a sip IMPU: the IMPI that TS 24.229 5.1.1.1A derives where none was given. Empty for
// a tel URI.
[[nodiscard]] std::string_view derived_impi(std::string_view canonical_impu);

}  // namespace gmgate::home
