#pragma once
// Counters, gauges and histograms that cost one relaxed atomic add. The registry knows names, help
// and labels; the exporter (control/ops) reads it and speaks Prometheus. Names follow Prometheus
// conventions: gmgate_…_total, _seconds, _bytes.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace gmgate::metrics {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
  public:
    void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

class Gauge {
  public:
    void set(std::int64_t v) { value_.store(v, std::memory_order_relaxed); }
    void add(std::int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
    [[nodiscard]] std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::int64_t> value_{0};
};

// Upper bounds in seconds; the last bucket is +Inf.
class Histogram {
  public:
    explicit Histogram(std::vector<double> bounds);
    void observe(double seconds);
    [[nodiscard]] const std::vector<double>& bounds() const { return bounds_; }
    // bounds().size() + 1 counts, not cumulative.
    [[nodiscard]] std::vector<std::uint64_t> counts() const;
    [[nodiscard]] double sum() const;
    [[nodiscard]] std::uint64_t count() const;

  private:
    std::vector<double> bounds_;
    std::deque<std::atomic<std::uint64_t>> counts_;
    std::atomic<std::uint64_t> nanoseconds_{0};
};

enum class Kind : unsigned char { counter, gauge, histogram };

// One exported time series at the moment of reading.
struct Sample {
    std::string name;
    std::string help;
    Kind kind = Kind::counter;
    Labels labels;
    double value = 0;                      // counter, gauge
    const Histogram* histogram = nullptr;  // histogram
};

// Registration at start-up and reading are locked; what it hands out lives as long as the registry
// and is lock-free.
class Registry {
  public:
    // The same name and labels give the same object.
    Counter& counter(std::string name, std::string help, Labels labels = {});
    Gauge& gauge(std::string name, std::string help, Labels labels = {});
    Histogram& histogram(std::string name, std::string help, std::vector<double> bounds,
                         Labels labels = {});
    // Values kept elsewhere (per-worker counters of the fast path): `read` is called at each
    // scrape, on the scraper's thread.
    void function(std::string name, std::string help, Kind kind, Labels labels,
                  std::function<double()> read);

    // Series of one name that are read together: `read` is called once a scrape, and gives a value
    // for each of `labels`, in their order (missing ones are 0).
    void functions(const std::string& name, const std::string& help, Kind kind,
                   const std::vector<Labels>& labels, std::function<std::vector<double>()> read);

    [[nodiscard]] std::vector<Sample> collect() const;

  private:
    struct Entry {
        std::string name;
        std::string help;
        Kind kind;
        Labels labels;
        Counter* counter = nullptr;
        Gauge* gauge = nullptr;
        Histogram* histogram = nullptr;
        std::function<double()> read;
    };
    Entry* find(const std::string& name, const Labels& labels);
    void add(Entry entry);

    mutable std::mutex mutex_;
    std::deque<Entry> entries_;
    std::unordered_multimap<std::size_t, Entry*> index_;  // by name and labels
    std::deque<Counter> counters_;
    std::deque<Gauge> gauges_;
    std::deque<Histogram> histograms_;
};

}  // namespace gmgate::metrics
