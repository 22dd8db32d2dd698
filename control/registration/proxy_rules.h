#pragma once
// What the proxy asks of a request, whichever way it goes.

#include <cstddef>
#include <string_view>

#include "base/bytes.h"
#include "control/sip/message.h"
#include "control/sip/values.h"

namespace gmgate::registration {

// RFC 3261 18.1.1: a larger request goes over TCP.
constexpr std::size_t udp_limit = 1300;

// A request that may make a dialog, so our place in its route is recorded.
[[nodiscard]] inline bool makes_dialog(std::string_view method) {
    return method == "INVITE" || method == "SUBSCRIBE" || method == "REFER" || method == "NOTIFY";
}

[[nodiscard]] inline bool in_dialog(const sip::Message& request) {
    const auto to = sip::to(request);
    return to && !to->tag().empty();
}

[[nodiscard]] inline bool wants_tcp(std::string_view uri_text) {
    const auto uri = sip::parse_uri(uri_text);
    if (!uri) return false;
    const auto transport = uri->param("transport");
    return transport && iequals(transport->value, "tcp");
}

}  // namespace gmgate::registration
