#include "dataplane/dpdk/fast_path.h"

#include <stdexcept>
#include <utility>

#include "dataplane/dpdk/inbound.h"
#include "dataplane/dpdk/outbound.h"
#include "dataplane/dpdk/worker_context.h"

namespace gmgate::dataplane {

FastPath::FastPath(const FastPathConfig& config, SaTable& table,
                   std::unique_ptr<CryptoEngine> engine, Random& random)
    : context_(std::make_unique<WorkerContext>(config, table, std::move(engine))),
      inbound_(std::make_unique<InboundPath>(*context_)),
      outbound_(std::make_unique<OutboundPath>(*context_, random)) {
    if (config.worker >= table.workers())
        throw std::invalid_argument("fast path: no such worker in the SA table");
}

FastPath::~FastPath() = default;

void FastPath::inbound(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t now,
                       InboundResult& result) {
    inbound_->run(packets, count, now, result);
}

void FastPath::inner_whole(rte_mbuf* packet, sa::Spi spi, InboundResult& result) {
    inbound_->inner_whole(packet, spi, result);
}

void FastPath::outbound(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t /*now*/,
                        OutboundResult& result) {
    outbound_->run(packets, count, result);
}

const WorkerCounters& FastPath::counters() const {
    return context_->counters;
}

EventRing& FastPath::events() {
    return context_->events;
}

}  // namespace gmgate::dataplane
