#pragma once
// Counters of one worker: it alone writes, any thread reads.

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/core/drop_reason.h"
#include "dataplane/core/relaxed.h"

namespace gmgate::dataplane {

struct alignas(64) WorkerCounters {
    std::array<Relaxed<std::uint64_t>, drop_reason_count> drops;

    // Inbound, in packets: what came, and where it went (received = the others + drops).
    Relaxed<std::uint64_t> in_received;
    Relaxed<std::uint64_t> in_authentic;  // decapsulated, or by the screen as it came: to the host
    Relaxed<std::uint64_t> in_authentic_bytes;  // ESP octets of them
    Relaxed<std::uint64_t> in_other;            // given to the host untouched
    Relaxed<std::uint64_t> in_fragments;        // handed out for reassembly
    Relaxed<std::uint64_t> in_handed_over;      // handed out for another worker
    Relaxed<std::uint64_t> in_keepalives;       // of phones behind a NAT (N1): freed
    // Not packets: a phone behind a NAT was found at another endpoint than before.
    Relaxed<std::uint64_t> nat_moved;

    Relaxed<std::uint64_t> out_received;
    Relaxed<std::uint64_t> out_protected;  // encapsulated
    Relaxed<std::uint64_t> out_protected_bytes;
    Relaxed<std::uint64_t> out_other;  // passed untouched
    Relaxed<std::uint64_t> out_fragments;
    Relaxed<std::uint64_t> out_handed_over;

    Relaxed<std::uint64_t>
        events_lost;  // the event ring was full; the event comes again with the next packet

    [[nodiscard]] std::uint64_t dropped(DropReason reason) const {
        return drops[static_cast<std::size_t>(reason)].get();
    }
    // The worker's thread only.
    void drop(DropReason reason) { drops[static_cast<std::size_t>(reason)].add(); }
};

}  // namespace gmgate::dataplane
