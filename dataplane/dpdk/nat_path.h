#pragma once
// Where a UE behind a NAT is, and what it calls itself (N1): one cache line a set, which sets
// without a NAT never touch.

#include <array>
#include <cstdint>

#include "dataplane/core/relaxed.h"

namespace gmgate::dataplane {

// The control thread writes while the set is not published; the owner worker alone writes
// what is learnt, the control thread reads what is Relaxed.
struct alignas(64) NatPath {
    std::array<std::uint8_t, 4> inner{};
    std::uint16_t port_uc = 0;  // the UE's own; in the SAs stand those we know it by
    std::uint16_t port_us = 0;
    // Learnt from authentic packets: IPv4 address << 16 | port; 0: nothing yet. One word, so that
    // nobody reads half of it.
    Relaxed<std::uint64_t> endpoint;
    Relaxed<std::uint64_t> link;  // Ethernet address its packets come from, in the low 48 bits
    // The owner worker's own: the second in which the endpoint changed last, and by which SA.
    std::uint32_t moved_at = 0;
    bool moved_by_us = false;  // what came from port_us

    // Seconds for which the other SA cannot change it again.
    static constexpr std::uint32_t settling = 5;

    static std::uint64_t pack(std::uint32_t address, std::uint16_t port) {
        return (std::uint64_t{address} << 16U) | port;
    }
};

}  // namespace gmgate::dataplane
