#pragma once
// The gateway that the benchmarks of the control plane run: no limit that has a test of its own.

#include <cstdint>
#include <cstdlib>

#include "control/registration/policy.h"
#include "sa/database.h"

namespace gmgate::bench {

// How often: GMGATE_BENCH_ROUNDS where a few are enough, as under callgrind, which counts each
// instruction.
inline std::int64_t rounds(std::int64_t usual) {
    const char* wanted = std::getenv("GMGATE_BENCH_ROUNDS");
    const std::int64_t n = wanted == nullptr ? 0 : std::atoll(wanted);
    return n > 0 ? n : usual;
}

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
