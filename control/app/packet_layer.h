#pragma once
// The packet layer the configuration chooses, with what differs between backends behind one face.

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "config/config.h"
#include "control/ops/views.h"
#include "sa/backend.h"

namespace gmgate::app {

// Control thread, except where said.
class PacketLayer {
  public:
    virtual ~PacketLayer() = default;

    [[nodiscard]] virtual sa::Backend& backend() = 0;
    // What the sockets of the Gm side are bound to, so that nothing from elsewhere reaches them.
    [[nodiscard]] virtual std::string device() const = 0;
    // The database is as it will be: restored, or empty.
    virtual void ready() {}
    // What the sockets have sent is on the wire when it returns, as far as can be told; waits at
    // most 50 ms.
    virtual void let_out() {}
    // As in the configuration: "dpdk".
    [[nodiscard]] virtual std::string name() const = 0;
    // "dpdk, 1 worker(s), crypto ipsec-mb", for the log.
    [[nodiscard]] virtual std::string description() const = 0;
    // Which key makes room for more sets.
    [[nodiscard]] virtual std::string capacity_key() const = 0;
    virtual void register_metrics(metrics::Registry& registry) const = 0;
    [[nodiscard]] virtual std::vector<ops::DropCount> drops() const = 0;  // any thread
    // One item a layer.
    [[nodiscard]] virtual std::vector<ops::HealthItem> health() const = 0;
};

// Starts it. Errors as of the backend's own create().
[[nodiscard]] Result<std::unique_ptr<PacketLayer>> start_packet_layer(const config::Config& config,
                                                                      const Clock& clock);

}  // namespace gmgate::app
