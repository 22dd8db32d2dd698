#pragma once
// The gateway that the benchmarks of the control plane run: no limit that has a test of its own.

#include "control/registration/policy.h"
#include "sa/database.h"

namespace gmgate::bench {

inline sa::DatabaseConfig database_config() {
    sa::DatabaseConfig config;
    config.ports.port_ps = {6100, 6101, 6102, 6103};
    config.ports.pc_first = 6200;
    config.ports.pc_last = 6231;
    return config;
}

inline registration::Policy gateway_policy() {
    registration::Policy policy;
    policy.name = "pcscf.visited.example";
    policy.visited_network = "visited.example";
    policy.gm_addresses = {*IpAddress::parse("10.1.0.1")};
    policy.core = {*Endpoint::parse("192.0.2.1:5060")};
    policy.next_hops = {{sip::Transport::udp, *Endpoint::parse("192.0.2.9:5060")}};
    policy.limits.register_rate_total = policy.limits.register_burst_total = 1e12;
    return policy;
}

}  // namespace gmgate::bench
