#pragma once
// What the home network's SIP server counts.

#include <cstdint>

namespace gmgate::home {

struct ServerCounters {
    std::uint64_t requests = 0;         // fresh ones, of any method
    std::uint64_t garbage = 0;          // not SIP, or not answerable
    std::uint64_t refused = 0;          // a table is full
    std::uint64_t answered_here = 0;    // MESSAGE, OPTIONS to the domain or a service
    std::uint64_t routed = 0;           // to a phone, each fork once
    std::uint64_t routed_answers = 0;   // final answers that came
    std::uint64_t routed_failures = 0;  // no answer, or no connection
    std::uint64_t forked = 0;           // to more than one phone
    std::uint64_t cancelled = 0;        // INVITEs, by the caller
    std::uint64_t acks = 0;             // of 2xx, passed on
    std::uint64_t not_registered = 0;   // 480, 404
    std::uint64_t forbidden = 0;        // 403: originated by nobody registered
    std::uint64_t rejected = 0;         // 400, 405, 416, 481, 482, 483, 489
    std::uint64_t originated = 0;       // by command
    std::uint64_t stray_responses = 0;
};

}  // namespace gmgate::home
