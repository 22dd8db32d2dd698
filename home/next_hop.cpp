#include "home/next_hop.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "control/sip/message.h"

namespace gmgate::home {

namespace {
constexpr std::uint16_t default_port = 5060;
}

Result<sip::Flow> flow_to(const sip::Uri& uri, std::span<const Endpoint> listen) {
    const auto address = IpAddress::parse(uri.host);
    if (!address) {
        return fail(ErrorKind::unsupported,
                    fmt::format("next hop '{}' is not an IP address", uri.text));
    }
    sip::Flow flow;
    flow.remote = {*address, uri.port != 0 ? uri.port : default_port};
    // As the URI says. A message beyond 1300 octets stays on UDP too: this is the core's own
    // network.
    if (const auto transport = uri.param("transport");
        transport && iequals(transport->value, "tcp")) {
        flow.transport = sip::Transport::tcp;
    }
    const auto local = std::ranges::find_if(
        listen, [&](const Endpoint& e) { return e.address.is_v6() == address->is_v6(); });
    if (local == listen.end()) {
        return fail(
            ErrorKind::unsupported,
            fmt::format("we do not listen on the address family of {}", flow.remote.to_string()));
    }
    flow.local = *local;
    return flow;
}

Result<sip::Flow> next_hop(std::string_view route, std::string_view target,
                           std::span<const Endpoint> listen) {
    if (!route.empty()) {
        sip::ValueSplitter values(route);
        if (const auto first = values.next()) {
            if (const auto hop = sip::parse_name_addr(*first)) return flow_to(hop->uri, listen);
        }
    }
    const auto uri = sip::parse_uri(target);
    if (!uri)
        return fail(ErrorKind::unsupported, fmt::format("next hop '{}' is not a URI", target));
    return flow_to(*uri, listen);
}

std::string via_for(const sip::Flow& flow, std::string_view branch) {
    return fmt::format("SIP/2.0/{} {};branch={}", sip::name(flow.transport), flow.local.to_string(),
                       branch);
}

sip::Flow sent_on(sip::Flow flow) {
    if (flow.transport == sip::Transport::tcp) flow.local.port = 0;
    return flow;
}

}  // namespace gmgate::home
