#pragma once
// One inbound SA as its worker sees it: two cache lines.

#include <array>
#include <atomic>
#include <cstdint>

#include "dataplane/core/relaxed.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "sa/types.h"

namespace gmgate::dataplane {

// `spi` is the generation word: 0 while the slot is free or unpublished. The control thread writes
// the other fields only while it is 0 and no worker can still hold the slot; the owner worker alone
// writes the replay state, flags and counters, and reads what of them is not Relaxed.
struct alignas(64) InboundSa {
    enum Flag : std::uint8_t {
        first_reported = 1,
        sequence_reported = 2,
    };
    // Of `form`, which other workers read too.
    enum Form : std::uint8_t {
        ipv6 = 1,
        encapsulated = 2,  // behind a NAT: its set has a NatPath
        from_port_us = 4,  // of that: the UE's server port
    };

    std::atomic<sa::Spi> spi{0};
    std::uint32_t set = 0;  // index of the set + 1; 0: the slot is free (control thread)
    std::array<std::uint8_t, 16> ue{};  // IPv4: first 4 octets, the others zero
    std::array<std::uint8_t, 16> ours{};
    std::uint16_t ue_port = 0;
    std::uint16_t our_port = 0;
    std::uint8_t suite = 0;  // index in sa::all_suites
    std::uint8_t form = 0;
    std::uint8_t flags = 0;
    std::uint8_t failure_second = 0;  // low octet of the second of the last integrity_failure event
    Relaxed<std::uint32_t> highest;   // replay: highest authentic sequence number
    Relaxed<std::uint32_t> last_use;  // second of the last authentic packet; 0: none
    std::uint64_t window =
        0;  // replay: bit i = highest - i seen; wider windows lie in the table's side array
    // -- second line
    std::array<std::uint8_t, small_key_size> small_key{};
    Relaxed<std::uint64_t> bytes;
    Relaxed<std::uint32_t> packets;   // below 2^32: no ESN
    Relaxed<std::uint32_t> failures;  // saturates
    Relaxed<std::uint32_t> replays;   // saturates
    std::uint32_t schedule = 0;       // index in the schedule slab of its size
};
static_assert(sizeof(InboundSa) == 128);

}  // namespace gmgate::dataplane
