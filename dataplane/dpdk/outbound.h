#pragma once
// From the host to the wire: what an outbound SA covers is put into ESP, what leaves a protected
// port without one ends here.

#include <array>
#include <cstdint>

#include "dataplane/core/classifier.h"
#include "dataplane/dpdk/iv_source.h"
#include "dataplane/dpdk/worker_context.h"

namespace gmgate::dataplane {

// Stages as inbound: classify and hash; candidates of the flow; SA and encapsulation; cryptography
// by suite.
class OutboundPath {
  public:
    OutboundPath(WorkerContext& context, Random& random);
    void run(rte_mbuf* const* packets, std::uint16_t count, OutboundResult& result);

  private:
    struct Item {
        rte_mbuf* m;
        PacketView view;
        FlowKey key;
        std::uint64_t hash;
    };

    void classify_one(rte_mbuf* m, OutboundResult& result);
    void encapsulate(Item& item, OutboundResult& result);
    void encapsulate_in_udp(Item& item, OutboundSa& sa);
    // `added` octets more behind the first `kept`, and `tail` behind `end`. Returns the new start.
    [[nodiscard]] static std::uint8_t* grow(rte_mbuf* m, std::uint32_t end, std::uint32_t added,
                                            std::uint32_t tail, std::uint32_t kept);
    // Header, IV and trailer around the payload at `esp` + head(), and the job.
    void seal(Item& item, OutboundSa& sa, std::uint8_t* esp, std::uint32_t payload,
              std::uint8_t next_header);
    void fix_transport_checksum(const Item& item) const;
    void pass(rte_mbuf* m, OutboundResult& result);

    WorkerContext& context_;
    DropList drops_;
    IvSource ivs_;
    std::uint16_t outer_identification_;
    std::uint32_t item_count_ = 0;
    std::array<Item, max_burst> items_;
    std::array<std::uint16_t, sa::all_suites.size()> job_counts_{};
    std::array<std::array<CryptoJob, max_burst>, sa::all_suites.size()> jobs_;
};

}  // namespace gmgate::dataplane
