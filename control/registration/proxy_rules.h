#pragma once
// What the proxy asks of a request, whichever way it goes.

#include <cstddef>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "control/sip/message.h"
#include "control/sip/transport.h"
#include "control/sip/values.h"

namespace gmgate::registration {

// RFC 3261 18.1.1: a larger request goes over TCP.
constexpr std::size_t udp_limit = 1300;

// A called phone, or who forks to many, makes no more of one call (S2).
constexpr std::size_t most_forks = 8;
// Requests of the phone under way in one emergency call in clear.
constexpr std::size_t most_in_call = 8;

// A request that may make a dialog, so our place in its route is recorded.
[[nodiscard]] inline bool makes_dialog(std::string_view method) {
    return method == "INVITE" || method == "SUBSCRIBE" || method == "REFER" || method == "NOTIFY";
}

[[nodiscard]] inline bool in_dialog(const sip::Message& request) {
    return !sip::to_tag(request).empty();
}

// A request that makes a subscription, or goes on with one (RFC 6665, RFC 3515).
[[nodiscard]] inline bool subscribes(std::string_view method) {
    return method == "SUBSCRIBE" || method == "REFER";
}

// A request that makes no sense but in its dialog. Not BYE: it ends what we may have forgotten.
[[nodiscard]] inline bool needs_dialog(const sip::Message& request) {
    return in_dialog(request) &&
           (request.is_method("INVITE") || request.is_method("UPDATE") ||
            request.is_method("PRACK") || request.is_method("INFO") || request.is_method("NOTIFY"));
}

// The transport a URI names; nullopt: none, or one we have not.
[[nodiscard]] inline std::optional<sip::Transport> wanted_transport(std::string_view uri_text) {
    const auto uri = sip::parse_uri(uri_text);
    const auto transport = uri ? uri->param("transport") : std::nullopt;
    if (!transport) return std::nullopt;
    if (iequals(transport->value, "tcp")) return sip::Transport::tcp;
    if (iequals(transport->value, "udp")) return sip::Transport::udp;
    return std::nullopt;
}

}  // namespace gmgate::registration
