#pragma once
// /metrics for Prometheus: the registry's series and the process's own, served by prometheus-cpp on
// threads of its own.

#include <memory>
#include <string>

#include "base/ip.h"
#include "base/metrics.h"
#include "base/result.h"

namespace gmgate::ops {

class MetricsExporter {
  public:
    // Listens on `address`. io: the address cannot be had (in use, not ours); one line that says
    // so. `registry` outlives the exporter and is read on the exporter's threads.
    [[nodiscard]] static Result<std::unique_ptr<MetricsExporter>> serve(
        const Endpoint& address, const metrics::Registry& registry, const std::string& version);
    ~MetricsExporter();
    MetricsExporter(const MetricsExporter&) = delete;
    MetricsExporter& operator=(const MetricsExporter&) = delete;

  private:
    struct Impl;
    explicit MetricsExporter(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// The text a scrape returns, without a socket: for tests and for `promtool check metrics`.
[[nodiscard]] std::string metrics_text(const metrics::Registry& registry,
                                       const std::string& version);

}  // namespace gmgate::ops
