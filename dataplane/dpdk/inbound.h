#pragma once
// From the wire to the host: ESP is verified and taken off, cleartext for protected ports ends
// here.

#include <array>
#include <cstdint>

#include "dataplane/core/classifier.h"
#include "dataplane/core/replay_window.h"
#include "dataplane/dpdk/worker_context.h"

namespace gmgate::dataplane {

// Stages over a whole burst, so that the cache misses of one packet overlap those of the others:
// classify; look the SA up and check what needs no cryptography; cryptography by suite; replay,
// trailer, selectors, decapsulation.
class InboundPath {
  public:
    explicit InboundPath(WorkerContext& context);
    void run(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t now,
             InboundResult& result);
    // FastPath::inner_whole().
    void inner_whole(rte_mbuf* m, sa::Spi spi, InboundResult& result);

  private:
    // One ESP packet under way.
    struct Item {
        rte_mbuf* m;
        std::uint8_t* frame;
        InboundSa* sa;
        PacketView view;
        std::uint32_t spi;
        std::uint32_t sequence;
        bool encapsulated;  // in UDP; the view's l4 and end are those of the ESP inside
    };

    void classify_one(rte_mbuf* m, InboundResult& result);
    void take_esp(rte_mbuf* m, std::uint8_t* frame, const PacketView& view, bool encapsulated);
    void unwrap(rte_mbuf* m, std::uint8_t* frame, PacketView view);
    void admit(Item& item, InboundResult& result);
    void finish(const CryptoJob& job, const EspGeometry& geometry, std::uint32_t now,
                InboundResult& result);
    [[nodiscard]] bool host_would_take(const Item& item) const;
    void learn(const Item& item, std::uint32_t now);
    void finish_encapsulated(const CryptoJob& job, const EspGeometry& geometry,
                             InboundResult& result);
    void finish_screened(const CryptoJob& job, const EspGeometry& geometry, InboundResult& result);
    void fail_integrity(const Item& item, std::uint32_t now);
    [[nodiscard]] ReplayVerdict replay_check(InboundSa& sa, std::uint32_t sequence);
    void replay_advance(InboundSa& sa, std::uint32_t sequence);
    void drop_replay(const Item& item, ReplayVerdict verdict);

    WorkerContext& context_;
    DropList drops_;
    std::size_t replay_words_;
    std::uint32_t item_count_ = 0;
    std::array<Item, max_burst> items_;
    std::array<std::uint16_t, sa::all_suites.size()> job_counts_{};
    std::array<std::array<CryptoJob, max_burst>, sa::all_suites.size()> jobs_;
};

}  // namespace gmgate::dataplane
