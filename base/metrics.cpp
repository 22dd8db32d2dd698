#include "base/metrics.h"

#include <algorithm>
#include <memory>

namespace gmgate::metrics {

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double seconds) {
    const auto it = std::lower_bound(bounds_.begin(), bounds_.end(), seconds);
    counts_[static_cast<std::size_t>(it - bounds_.begin())].fetch_add(1, std::memory_order_relaxed);
    nanoseconds_.fetch_add(static_cast<std::uint64_t>(std::max(seconds, 0.0) * 1e9),
                           std::memory_order_relaxed);
}

std::vector<std::uint64_t> Histogram::counts() const {
    std::vector<std::uint64_t> out;
    out.reserve(counts_.size());
    for (const auto& c : counts_) out.push_back(c.load(std::memory_order_relaxed));
    return out;
}

double Histogram::sum() const {
    return static_cast<double>(nanoseconds_.load(std::memory_order_relaxed)) / 1e9;
}

std::uint64_t Histogram::count() const {
    std::uint64_t n = 0;
    for (const auto& c : counts_) n += c.load(std::memory_order_relaxed);
    return n;
}

namespace {
std::size_t hash_of(const std::string& name, const Labels& labels) {
    const std::hash<std::string> hash;
    std::size_t h = hash(name);
    for (const auto& [key, value] : labels) h = (h * 31 + hash(key)) * 31 + hash(value);
    return h;
}
}  // namespace

Registry::Entry* Registry::find(const std::string& name, const Labels& labels) {
    const auto [first, last] = index_.equal_range(hash_of(name, labels));
    for (auto it = first; it != last; ++it) {
        if (it->second->name == name && it->second->labels == labels) return it->second;
    }
    return nullptr;
}

void Registry::add(Entry entry) {
    Entry& e = entries_.emplace_back(std::move(entry));  // a deque: entries never move
    index_.emplace(hash_of(e.name, e.labels), &e);
}

Counter& Registry::counter(std::string name, std::string help, Labels labels) {
    const std::scoped_lock lock(mutex_);
    if (Entry* e = find(name, labels); e != nullptr && e->counter != nullptr) return *e->counter;
    Counter& c = counters_.emplace_back();
    add({std::move(name),
         std::move(help),
         Kind::counter,
         std::move(labels),
         &c,
         nullptr,
         nullptr,
         {}});
    return c;
}

Gauge& Registry::gauge(std::string name, std::string help, Labels labels) {
    const std::scoped_lock lock(mutex_);
    if (Entry* e = find(name, labels); e != nullptr && e->gauge != nullptr) return *e->gauge;
    Gauge& g = gauges_.emplace_back();
    add({std::move(name),
         std::move(help),
         Kind::gauge,
         std::move(labels),
         nullptr,
         &g,
         nullptr,
         {}});
    return g;
}

Histogram& Registry::histogram(std::string name, std::string help, std::vector<double> bounds,
                               Labels labels) {
    const std::scoped_lock lock(mutex_);
    if (Entry* e = find(name, labels); e != nullptr && e->histogram != nullptr)
        return *e->histogram;
    Histogram& h = histograms_.emplace_back(std::move(bounds));
    add({std::move(name),
         std::move(help),
         Kind::histogram,
         std::move(labels),
         nullptr,
         nullptr,
         &h,
         {}});
    return h;
}

void Registry::function(std::string name, std::string help, Kind kind, Labels labels,
                        std::function<double()> read) {
    const std::scoped_lock lock(mutex_);
    add({std::move(name), std::move(help), kind, std::move(labels), nullptr, nullptr, nullptr,
         std::move(read)});
}

void Registry::functions(const std::string& name, const std::string& help, Kind kind,
                         const std::vector<Labels>& labels,
                         std::function<std::vector<double>()> read) {
    // collect() reads the series in the order of registration, under one lock: the first reads for
    // all.
    struct Reading {
        std::function<std::vector<double>()> read;
        std::vector<double> values;
    };
    const auto reading = std::make_shared<Reading>(Reading{std::move(read), {}});
    for (std::size_t i = 0; i < labels.size(); ++i) {
        function(name, help, kind, labels[i], [reading, i] {
            if (i == 0) reading->values = reading->read();
            return i < reading->values.size() ? reading->values[i] : 0.0;
        });
    }
}

std::vector<Sample> Registry::collect() const {
    const std::scoped_lock lock(mutex_);
    std::vector<Sample> out;
    out.reserve(entries_.size());
    for (const Entry& e : entries_) {
        Sample s{e.name, e.help, e.kind, e.labels, 0, e.histogram};
        if (e.counter != nullptr)
            s.value = static_cast<double>(e.counter->value());
        else if (e.gauge != nullptr)
            s.value = static_cast<double>(e.gauge->value());
        else if (e.read)
            s.value = e.read();
        out.push_back(std::move(s));
    }
    return out;
}

}  // namespace gmgate::metrics
