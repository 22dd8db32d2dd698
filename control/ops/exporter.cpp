#include "control/ops/exporter.h"

#include <dirent.h>
#include <fmt/core.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace gmgate::ops {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily family(std::string name, std::string help, MetricType type, double value,
                    std::vector<ClientMetric::Label> labels = {}) {
    MetricFamily f;
    f.name = std::move(name);
    f.help = std::move(help);
    f.type = type;
    ClientMetric m;
    m.label = std::move(labels);
    if (type == MetricType::Counter)
        m.counter.value = value;
    else
        m.gauge.value = value;
    f.metric.push_back(std::move(m));
    return f;
}

// The series every process exports under the same names, so that ready-made dashboards find them.
// Seconds since 1970; 0: not known.
double time_of_boot() {
    std::ifstream file("/proc/stat");
    double time = 0;
    for (std::string word; file >> word;) {
        if (word == "btime" && file >> time) return time;
    }
    return 0;
}

void add_process_metrics(std::vector<MetricFamily>& out) {
    rusage usage{};
    if (::getrusage(RUSAGE_SELF, &usage) == 0) {
        const auto seconds = [](const timeval& t) {
            return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
        };
        out.push_back(family("process_cpu_seconds_total", "Processor time used, user and system.",
                             MetricType::Counter,
                             seconds(usage.ru_utime) + seconds(usage.ru_stime)));
    }
    const auto page = static_cast<double>(::sysconf(_SC_PAGESIZE));
    std::ifstream statm("/proc/self/statm");
    double total = 0;
    double resident = 0;
    if (statm >> total >> resident) {
        out.push_back(family("process_virtual_memory_bytes", "Virtual memory.", MetricType::Gauge,
                             total * page));
        out.push_back(family("process_resident_memory_bytes", "Resident memory.", MetricType::Gauge,
                             resident * page));
    }
    // Field 22 of stat counts clock ticks since boot; the name in field 2 may hold blanks, so count
    // from its ')'.
    std::ifstream stat("/proc/self/stat");
    std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
    // Once: the kernel reckons it from today's clock, and a clock that was set is no restart.
    static const double boot_time = time_of_boot();
    const std::size_t name_end = text.rfind(')');
    if (name_end != std::string::npos && boot_time > 0) {
        std::size_t at = name_end + 1;
        for (int field = 3; field <= 22 && at != std::string::npos; ++field)
            at = text.find(' ', at + (field > 3 ? 1 : 0));
        if (at != std::string::npos) {
            const double ticks = std::strtod(text.c_str() + at, nullptr);
            out.push_back(family("process_start_time_seconds",
                                 "Start of the process, seconds since 1970.", MetricType::Gauge,
                                 boot_time + ticks / static_cast<double>(::sysconf(_SC_CLK_TCK))));
        }
    }
    if (DIR* dir = ::opendir("/proc/self/fd"); dir != nullptr) {
        double open = -3;  // ".", ".." and the directory's own
        while (::readdir(dir) != nullptr) ++open;
        ::closedir(dir);
        out.push_back(
            family("process_open_fds", "Open file descriptors.", MetricType::Gauge, open));
    }
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        out.push_back(family("process_max_fds", "Most file descriptors the process may open.",
                             MetricType::Gauge, static_cast<double>(limit.rlim_cur)));
    }
}

class RegistryCollectable final : public prometheus::Collectable {
  public:
    RegistryCollectable(const metrics::Registry& registry, std::string version)
        : registry_(registry), version_(std::move(version)) {}

    [[nodiscard]] std::vector<MetricFamily> Collect() const override {
        std::vector<MetricFamily> out;
        std::map<std::string, std::size_t>
            position;  // one family a name, whatever the order of registration
        for (const metrics::Sample& s : registry_.collect()) {
            const auto [it, fresh] = position.emplace(s.name, out.size());
            if (fresh) {
                MetricFamily f;
                f.name = s.name;
                f.help = s.help;
                f.type = s.kind == metrics::Kind::counter ? MetricType::Counter
                         : s.kind == metrics::Kind::gauge ? MetricType::Gauge
                                                          : MetricType::Histogram;
                out.push_back(std::move(f));
            }
            out[it->second].metric.push_back(metric_of(s));
        }
        out.push_back(family("gmgate_build_info", "Always 1; the version is in the label.",
                             MetricType::Gauge, 1, {{"version", version_}}));
        add_process_metrics(out);
        return out;
    }

  private:
    static ClientMetric metric_of(const metrics::Sample& s) {
        ClientMetric m;
        for (const auto& [name, value] : s.labels) m.label.push_back({name, value});
        switch (s.kind) {
            case metrics::Kind::counter:
                m.counter.value = s.value;
                break;
            case metrics::Kind::gauge:
                m.gauge.value = s.value;
                break;
            case metrics::Kind::histogram:
                if (s.histogram == nullptr) break;
                const std::vector<double>& bounds = s.histogram->bounds();
                // One reading for buckets and count, so that the last bucket is the count.
                const std::vector<std::uint64_t> counts = s.histogram->counts();
                std::uint64_t total = 0;
                for (std::size_t i = 0; i < counts.size(); ++i) {
                    total += counts[i];
                    m.histogram.bucket.push_back(
                        {total,
                         i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity()});
                }
                m.histogram.sample_count = total;
                m.histogram.sample_sum = s.histogram->sum();
                break;
        }
        return m;
    }

    const metrics::Registry& registry_;
    std::string version_;
};

}  // namespace

struct MetricsExporter::Impl {
    // The exposer holds it weakly.
    std::shared_ptr<RegistryCollectable> collectable;
    std::unique_ptr<prometheus::Exposer> exposer;
};

MetricsExporter::MetricsExporter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsExporter::~MetricsExporter() = default;

Result<std::unique_ptr<MetricsExporter>> MetricsExporter::serve(const Endpoint& address,
                                                                const metrics::Registry& registry,
                                                                const std::string& version) {
    auto impl = std::make_unique<Impl>();
    impl->collectable = std::make_shared<RegistryCollectable>(registry, version);
    try {
        impl->exposer = std::make_unique<prometheus::Exposer>(address.to_string(), 2);
        impl->exposer->RegisterCollectable(impl->collectable);
    } catch (const std::exception&) {
        // The library says only "null context": the cause is nearly always one of these two.
        return fail(
            ErrorKind::io,
            fmt::format(
                "ops.metrics: cannot listen on {}: is the port in use, or the address not of this "
                "machine? choose another, or write off",
                address.to_string()));
    }
    return std::unique_ptr<MetricsExporter>(new MetricsExporter(std::move(impl)));
}

std::string metrics_text(const metrics::Registry& registry, const std::string& version) {
    return prometheus::TextSerializer().Serialize(RegistryCollectable(registry, version).Collect());
}

}  // namespace gmgate::ops
