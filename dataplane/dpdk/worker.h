#pragma once
// One thread of the fast path: takes packets of its queues of both ports and of the other workers,
// passes them through reassembly and FastPath, sends them on.

#include <rte_rcu_qsbr.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "base/clock.h"
#include "base/ip.h"
#include "dataplane/dpdk/fast_path.h"
#include "dataplane/dpdk/fragment.h"
#include "dataplane/dpdk/handover.h"
#include "dataplane/dpdk/port.h"
#include "dataplane/dpdk/stats.h"

namespace gmgate::dataplane {

// Which worker owns the packets of an address pair, in either direction.
[[nodiscard]] unsigned owner_of_pair(const IpAddress& a, const IpAddress& b, unsigned workers);
// The same for the addresses of a frame; 0 if it has none.
[[nodiscard]] unsigned owner_of_frame(const rte_mbuf* frame, unsigned workers);

class Worker {
  public:
    struct Config {
        unsigned number = 0;
        bool sleep = true;            // adaptive idling
        std::optional<unsigned> cpu;  // pin to it
        std::uint16_t wire_mtu = 1500;
        std::size_t incomplete_datagrams = 256;
        std::uint64_t seed = 0;  // of the reassembly tables and the ids of fragments
    };
    // What all workers share; outlives them.
    struct Shared {
        Port& wire;
        Port& host;
        BufferPools& pools;
        HandOver& handover;
        rte_rcu_qsbr* rcu;
        const Clock& clock;
        int event_fd = -1;  // eventfd to write to when the event ring got something; -1: none
        std::atomic<bool>* events_pending =
            nullptr;  // set before event_fd is written, so that it is written once
        // The grace period's token the control thread waits for: each worker writes event_fd once
        // when it has passed a round since.
        std::atomic<std::uint64_t>* quiescence_wanted = nullptr;
    };

    Worker(const Config& config, const Shared& shared, std::unique_ptr<FastPath> fast_path);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // The thread. start() returns when it runs.
    void start();
    void stop();

    // One round without a thread (tests). True if there was anything to do.
    bool round();

    // Any thread.
    [[nodiscard]] const PortCounters& counters() const { return counters_; }
    [[nodiscard]] FastPath& fast_path() { return *fast_path_; }
    [[nodiscard]] const FastPath& fast_path() const { return *fast_path_; }
    [[nodiscard]] bool asleep() const { return asleep_.load(std::memory_order_relaxed); }
    // The workers' second of a point in time, never 0; and back.
    [[nodiscard]] static std::uint32_t second_of(TimePoint t);
    [[nodiscard]] static TimePoint time_of(std::uint32_t second);

  private:
    void run();
    void sleep();
    void tell_quiescence(bool offline);
    void from_wire(rte_mbuf** frames, std::uint16_t count, bool reassembled = false);
    void from_host(rte_mbuf** frames, std::uint16_t count, bool reassembled = false);
    bool from_workers();
    void fragments(std::span<rte_mbuf* const> frames, Reassembler& reassembler, HandOverKind kind);
    void made_whole(rte_mbuf* frame, Reassembler& reassembler, HandOverKind kind);
    void hand_over(rte_mbuf* frame, unsigned to, HandOverKind kind);
    void to_wire(PacketList& list);
    void flush_wire();
    void ring_doorbells();

    Config config_;
    Shared shared_;
    std::unique_ptr<FastPath> fast_path_;
    PortCounters counters_;
    Reassembler inbound_fragments_;
    Reassembler outbound_fragments_;
    Reassembler inner_fragments_;  // out of tunnels (N1)
    InboundResult inbound_;
    OutboundResult outbound_;
    // Datagrams made whole during a round: they go through the fast path when its results are ours
    // again.
    PacketList whole_inbound_;
    PacketList whole_outbound_;
    PacketList wire_;  // fragments on their way out
    std::uint32_t fragment_id_;
    std::array<bool, sa::SpiLayout::max_owners> rang_{};
    TimePoint now_{};
    TimePoint next_expiry_{};
    std::array<int, 2> descriptors_{-1, -1};  // of our queues, to sleep on; -1: none, or dead
    unsigned idle_sleeps_ = 0;
    std::uint64_t told_ = 0;  // the last quiescence_wanted that was answered
    std::atomic<bool> asleep_{false};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace gmgate::dataplane
