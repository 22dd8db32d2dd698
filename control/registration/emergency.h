#pragma once
// Which requests are emergency calls (RFC 5031; TS 24.229 5.2.10), and what a phone is told that
// shall make them another way.

#include <span>
#include <string>
#include <string_view>

namespace gmgate::registration {

// urn:service:sos and what is below it; or one of these numbers, as a tel URI or as the user of a
// SIP URI.
[[nodiscard]] bool is_emergency(std::string_view request_uri, std::span<const std::string> numbers);

// The body of a 380 (TS 24.229 7.6), and its type: an emergency call, by an emergency registration.
inline constexpr std::string_view alternative_service_type = "application/3gpp-ims+xml";
[[nodiscard]] std::string_view alternative_service();

}  // namespace gmgate::registration
