#pragma once
// One outbound SA as its worker sees it: two cache lines.

#include <array>
#include <cstdint>

#include "dataplane/core/relaxed.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "sa/types.h"

namespace gmgate::dataplane {

// The control thread writes while no entry of the OutboundTable leads here; the owner worker alone
// writes what is Relaxed.
struct alignas(64) OutboundSa {
    enum Flag : std::uint8_t {
        sequence_reported = 1,
        encapsulated = 2,  // behind a NAT: its set has a NatPath
        to_port_us = 4,    // of that: the UE's server port
    };

    sa::Spi spi = 0;        // the UE's
    std::uint32_t set = 0;  // index of the set; in a free record the next free one
    std::array<std::uint8_t, 16> ue{};
    std::array<std::uint8_t, 16> ours{};
    std::uint16_t ue_port = 0;
    std::uint16_t our_port = 0;
    std::uint8_t suite = 0;
    std::uint8_t v6 = 0;
    std::uint8_t flags = 0;
    std::uint8_t owner = 0;           // worker
    Relaxed<std::uint32_t> sequence;  // last one sent
    std::uint32_t schedule = 0;       // index in the schedule slab of its size
    Relaxed<std::uint64_t> bytes;
    // -- second line
    std::array<std::uint8_t, small_key_size> small_key{};
    // XORed with the sequence number: the AES-GCM/GMAC IV. Random a set, with one bit that differs
    // between its two outbound SAs: they share one key, with each other and with the UE's own
    // packets (A2), so no IV may meet another.
    std::uint64_t iv_base = 0;
    std::uint32_t first_sequence = 0;  // where it began: 0, or what an earlier run had sent
    std::array<std::uint8_t, 12> spare{};
};
static_assert(sizeof(OutboundSa) == 128);

}  // namespace gmgate::dataplane
