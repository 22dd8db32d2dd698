#pragma once
// Counters of a worker around the ESP fast path: ports, hand-over, fragments, idling. It alone
// writes, any thread reads.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/core/relaxed.h"

namespace gmgate::dataplane {

// name, help. Names do not repeat those of DropReason: both become values of one metric's label.
#define GMGATE_PORT_DROP_REASONS(X)                                                           \
    X(fragment_invalid,                                                                       \
      "IP fragment with impossible lengths, or of a datagram that exceeds what can be "       \
      "reassembled")                                                                          \
    X(fragment_overlap,                                                                       \
      "IP fragments of one datagram overlap or repeat: all of it is discarded (RFC 5722)")    \
    X(fragment_timeout, "IP fragments whose datagram did not become whole in time")           \
    X(fragment_evicted, "IP fragments given up for newer ones: the reassembly table is full") \
    X(no_buffer, "no packet buffer free")                                                     \
    X(hand_over_full, "the ring to the worker that owns the packet is full")                  \
    X(wire_refused, "the Gm port did not take the packet: queue full or link down")           \
    X(host_refused, "the TAP did not take the packet: interface down or its queue full")      \
    X(wire_too_big, "packet too big for the wire that cannot be fragmented")

enum class PortDropReason : std::uint8_t {
#define GMGATE_X(name, help) name,
    GMGATE_PORT_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
};

inline constexpr std::size_t port_drop_reason_count = 0
#define GMGATE_X(name, help) +1
    GMGATE_PORT_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
    ;

[[nodiscard]] std::string_view name(PortDropReason reason);
[[nodiscard]] std::string_view help(PortDropReason reason);

struct alignas(64) PortCounters {
    std::array<Relaxed<std::uint64_t>, port_drop_reason_count> drops;

    Relaxed<std::uint64_t> wire_received;  // packets
    Relaxed<std::uint64_t> wire_sent;
    Relaxed<std::uint64_t> host_received;
    Relaxed<std::uint64_t> host_sent;
    Relaxed<std::uint64_t> reassembled;  // datagrams made whole
    Relaxed<std::uint64_t> fragmented;   // fragments made for the wire

    Relaxed<std::uint64_t> rounds;       // of the worker's loop: its heartbeat
    Relaxed<std::uint64_t> busy_cycles;  // TSC cycles of rounds that had packets
    Relaxed<std::uint64_t> sleeps;
    Relaxed<std::uint64_t> woken;  // by another worker

    [[nodiscard]] std::uint64_t dropped(PortDropReason reason) const {
        return drops[static_cast<std::size_t>(reason)].get();
    }
    void drop(PortDropReason reason, std::uint64_t n = 1) {
        drops[static_cast<std::size_t>(reason)].add(n);
    }
};

}  // namespace gmgate::dataplane
