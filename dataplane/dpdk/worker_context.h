#pragma once
// What both directions of a worker share.

#include <memory>
#include <utility>

#include "base/random.h"
#include "dataplane/core/esp.h"
#include "dataplane/core/event_ring.h"
#include "dataplane/dpdk/counters.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "dataplane/dpdk/fast_path.h"
#include "dataplane/dpdk/packet.h"
#include "dataplane/dpdk/sa_table.h"

namespace gmgate::dataplane {

// An SA whose sequence numbers come this near to 2^32 is reported once (D7).
inline constexpr std::uint32_t sequence_near_end = ~std::uint32_t{0} - (std::uint32_t{1} << 20U);

struct WorkerContext {
    WorkerContext(const FastPathConfig& c, SaTable& t, std::unique_ptr<CryptoEngine> e)
        : config(c),
          ours(c.our_addresses),
          elsewhere(c.other_addresses),
          table(t),
          engine(std::move(e)),
          geometry(esp_geometries()) {}

    // false: the ring is full; the caller tries again with a later packet.
    bool report(const FastPathEvent& event) {
        if (events.push(event)) return true;
        counters.events_lost.add();
        return false;
    }

    const FastPathConfig config;
    const OurAddresses ours;
    const OurAddresses elsewhere;
    SaTable& table;
    const std::unique_ptr<CryptoEngine> engine;
    const EspGeometries geometry;
    WorkerCounters counters;
    EventRing events;
};

// Packets of a burst that are thrown away, freed together.
class DropList {
  public:
    explicit DropList(WorkerCounters& counters) : counters_(counters) {}
    void clear() { packets_.count = 0; }
    void add(rte_mbuf* m, DropReason reason) {
        counters_.drop(reason);
        packets_.push(m);
    }
    // Thrown away, but no drop: it had done what it came for.
    void add_uncounted(rte_mbuf* m) { packets_.push(m); }
    void free_all() {
        if (packets_.count != 0) rte_pktmbuf_free_bulk(packets_.data(), packets_.count);
    }

  private:
    WorkerCounters& counters_;
    PacketList packets_;
};

}  // namespace gmgate::dataplane
