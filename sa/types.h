#pragma once
// The vocabulary of SA sets (A1–A4).

#include <cstdint>

#include "base/ip.h"
#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"

namespace gmgate::sa {

using Spi = std::uint32_t;   // host order; 0–255 are never ours (A4)
using Port = std::uint16_t;  // host order

// Names one SA set for the life of the process; never used twice; 0: none.
using SetId = std::uint64_t;

// Our inbound SPIs are chosen so that they index the fast path's table without a hash:
// generation (6 bits, 1–63) | owner worker (4 bits) | slot (22 bits). A stale generation is a drop.
struct SpiLayout {
    static constexpr unsigned slot_bits = 22;
    static constexpr unsigned owner_bits = 4;
    static constexpr unsigned generation_bits = 6;
    static constexpr std::uint32_t max_slots = 1U << slot_bits;
    static constexpr std::uint32_t max_owners = 1U << owner_bits;
    static constexpr std::uint32_t max_generation = (1U << generation_bits) - 1;

    static constexpr Spi make(std::uint32_t generation, std::uint32_t owner, std::uint32_t slot) {
        return (generation << (owner_bits + slot_bits)) | (owner << slot_bits) | slot;
    }
    static constexpr std::uint32_t slot(Spi spi) { return spi & (max_slots - 1); }
    static constexpr std::uint32_t owner(Spi spi) { return (spi >> slot_bits) & (max_owners - 1); }
    static constexpr std::uint32_t generation(Spi spi) { return spi >> (owner_bits + slot_bits); }
};

// The numbers of the four SAs of a set (A2), named as in TS 33.203 7.1.
struct SaNumbers {
    Spi spi_uc = 0;  // UE: inbound at its port_uc    (ours: outbound, from port_ps)
    Spi spi_us = 0;  // UE: inbound at its port_us    (ours: outbound, from port_pc)
    Spi spi_pc = 0;  // ours: inbound at port_pc
    Spi spi_ps = 0;  // ours: inbound at port_ps
    Port port_uc = 0;
    Port port_us = 0;
    Port port_pc = 0;
    Port port_ps = 0;
    bool operator==(const SaNumbers&) const = default;
};

// The UE is behind a NAT (N1, TS 33.203 Annex M): its ESP comes in UDP, in tunnel mode. Its set's
// `ue` and the UE's ports in SaNumbers are those under which we know it: with NatLabels::drawn the
// source of SM1 and two ports of our own, with NatLabels::own what the UE itself calls them, which
// is what stands here and inside the tunnel (docs/decisions/0021).
struct NatTraversal {
    IpAddress inner;  // IPv4
    Port port_uc = 0;
    Port port_us = 0;
    // NatLabels::own: where it was when the set was reserved, the source of SM1, or, if that came
    // on an SA, where that SA's packets came from. Port 0: not known.
    Endpoint outer{};
    bool operator==(const NatTraversal&) const = default;
};

}  // namespace gmgate::sa
