#pragma once
// The ESP fast path of one worker, both directions. No system call, no allocation, no log line, no
// exception after construction.

#include <rte_mbuf.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "dataplane/core/event_ring.h"
#include "dataplane/core/protected_ports.h"
#include "dataplane/dpdk/counters.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "dataplane/dpdk/sa_table.h"

namespace gmgate::dataplane {

inline constexpr std::uint16_t max_burst = 64;

struct PacketList {
    std::array<rte_mbuf*, max_burst> packets;
    std::uint16_t count = 0;

    void push(rte_mbuf* m) { packets[count++] = m; }
    [[nodiscard]] std::span<rte_mbuf* const> all() const { return {packets.data(), count}; }
    [[nodiscard]] rte_mbuf** data() { return packets.data(); }
};

// packets.packets[i] belongs to worker workers[i].
struct HandOverList {
    PacketList packets;
    std::array<std::uint8_t, max_burst> workers;
};

// Every packet of a burst is in exactly one list, or freed and counted under its drop reason. What
// is listed is the caller's.
// packets.packets[i] came under spis[i].
struct InnerFragmentList {
    PacketList packets;
    std::array<sa::Spi, max_burst> spis;
};

struct InboundResult {
    PacketList to_host;  // decapsulated (verify_only: authentic ESP), or untouched other traffic
    HandOverList to_worker;  // ESP whose SA another worker owns: give it to that worker's inbound()
    PacketList fragments;    // to our addresses: reassemble, then inbound() again, in one buffer
                             // segment if it fits
    // Out of tunnels (N1), authentic: reassemble, each SPI's for themselves, then inner_whole().
    InnerFragmentList inner_fragments;
};

struct OutboundResult {
    PacketList to_wire;  // encapsulated, or untouched other traffic
    HandOverList
        to_worker;  // another worker owns the outbound SA: give it to that worker's outbound()
    PacketList fragments;  // of the host, from our addresses: reassemble, then outbound() again
};

struct FastPathConfig {
    unsigned worker = 0;  // our number; < SaTable::workers()
    std::vector<IpAddress>
        our_addresses;  // the Gm addresses; the workers compare them in order, so few
    // Addresses of this host on other interfaces, the core's side above all: Linux would accept
    // packets for them from the TAP too, and a stranger's then pass for the core's.
    std::vector<IpAddress> other_addresses;
    ProtectedPorts protected_ports;
    // The screen in front of a host that does ESP itself. Inbound: authentic ESP is passed on as it
    // came, bit for bit, everything else is as ever. Outbound: nothing is sealed; the host's ESP
    // passes, cleartext from protected ports ends here (A6). The table may be inbound_only.
    bool verify_only = false;
    // ESP in UDP (N1): what comes to port 4500 of ours is taken, the host sees none of it.
    bool nat = false;
    // The link address of the host's port: ESP sent to another one is not for the host, whatever
    // its IP addresses. All zeros: not checked.
    std::array<std::uint8_t, 6> host_mac{};
    // The host leaves UDP/TCP checksums to its (virtual) NIC: compute them before encapsulation for
    // every packet. Packets flagged RTE_MBUF_F_TX_UDP_CKSUM / _TCP_CKSUM get theirs in any case.
    bool fill_checksums = false;
};

struct WorkerContext;
class InboundPath;
class OutboundPath;

// Not thread-safe: one a worker. Packets are Ethernet frames in direct mbufs with refcnt 1.
class FastPath {
  public:
    // Start-up: throws std::runtime_error (crypto library), std::bad_alloc.
    FastPath(const FastPathConfig& config, SaTable& table, std::unique_ptr<CryptoEngine> engine,
             Random& random);
    ~FastPath();
    FastPath(const FastPath&) = delete;
    FastPath& operator=(const FastPath&) = delete;

    // `count` <= max_burst; `now`: the caller's coarse second, not 0. `result` is cleared first.
    void inbound(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t now,
                 InboundResult& result);
    // A packet made whole of InboundResult::inner_fragments that came under `spi`: into
    // result.to_host, which is not cleared and has room, or freed and counted.
    void inner_whole(rte_mbuf* packet, sa::Spi spi, InboundResult& result);
    void outbound(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t now,
                  OutboundResult& result);

    // Any thread.
    [[nodiscard]] const WorkerCounters& counters() const;
    // The control thread alone pops.
    [[nodiscard]] EventRing& events();

  private:
    std::unique_ptr<WorkerContext> context_;
    std::unique_ptr<InboundPath> inbound_;
    std::unique_ptr<OutboundPath> outbound_;
};

}  // namespace gmgate::dataplane
