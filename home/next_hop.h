#pragma once
// Where a request of the home network's own goes, and what stands in its Via.

#include <span>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "control/sip/transport.h"
#include "control/sip/values.h"

namespace gmgate::home {

// The flow to the host a URI names; over TCP if its transport parameter says so. `listen`: our
// endpoints; the request comes from the first of the right family. unsupported: a host that is no
// address, or of a family we do not listen on.
[[nodiscard]] Result<sip::Flow> flow_to(const sip::Uri& uri, std::span<const Endpoint> listen);
// The same of the first value of `route`, or of `target` without one: the next hop of RFC 3261
// 12.2.1.1 for loose routers.
[[nodiscard]] Result<sip::Flow> next_hop(std::string_view route, std::string_view target,
                                         std::span<const Endpoint> listen);

[[nodiscard]] std::string via_for(const sip::Flow& flow, std::string_view branch);

// The flow as it is sent on: a TCP connection comes from any port of ours.
[[nodiscard]] sip::Flow sent_on(sip::Flow flow);

}  // namespace gmgate::home
