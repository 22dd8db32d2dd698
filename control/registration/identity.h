#pragma once
// Public identities as they are stored and compared: one spelling each.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/sip/message.h"
#include "control/sip/values.h"

namespace gmgate::registration {

// "sip:user@host[:port]" with the host in lower case, or "tel:" and the digits; no display name, no
// parameters. Appends to `out`; false: not a sip, sips or tel identity (nothing appended).
bool normalise_identity(const sip::Uri& uri, std::string& out);
[[nodiscard]] std::optional<std::string> normalised_identity(const sip::Uri& uri);
// Of a header with one name-addr (To, From), or of a list's first value.
[[nodiscard]] std::optional<std::string> identity_of(const sip::Message& message, sip::HeaderId id);

// All identities of P-Associated-URI, in order; unreadable ones are left out; at most `limit`.
[[nodiscard]] std::vector<std::string> associated_uris(const sip::Message& message,
                                                       std::size_t limit);

// The values of all lines of a header, joined by ", ".
[[nodiscard]] std::string joined_values(const sip::Message& message, sip::HeaderId id);

// Two route URIs name the same hop: identity, lr, transport and maddr agree; other parameters do
// not matter.
[[nodiscard]] bool same_uri(const sip::Uri& a, const sip::Uri& b);

}  // namespace gmgate::registration
