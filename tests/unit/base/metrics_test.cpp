#include "base/metrics.h"

#include <gtest/gtest.h>

#include <thread>

namespace gmgate::metrics {
namespace {

TEST(Metrics, TheSameNameAndLabelsAreTheSameObject) {
    Registry r;
    Counter& a = r.counter("gmgate_x_total", "help", {{"k", "1"}});
    Counter& b = r.counter("gmgate_x_total", "help", {{"k", "2"}});
    EXPECT_NE(&a, &b);
    EXPECT_EQ(&a, &r.counter("gmgate_x_total", "help", {{"k", "1"}}));
    a.add();
    a.add(4);
    EXPECT_EQ(a.value(), 5U);
    EXPECT_EQ(b.value(), 0U);
    Gauge& g = r.gauge("gmgate_g", "help");
    EXPECT_EQ(&g, &r.gauge("gmgate_g", "help"));
    g.set(7);
    g.add(-9);
    EXPECT_EQ(g.value(), -2);
}

TEST(Metrics, CollectGivesEverything) {
    Registry r;
    r.counter("gmgate_a_total", "a").add(3);
    r.gauge("gmgate_b", "b").set(-4);
    Histogram& h = r.histogram("gmgate_c_seconds", "c", {0.1, 1.0});
    int reads = 0;
    r.function("gmgate_d", "d", Kind::gauge, {{"w", "0"}},
               [&reads] { return static_cast<double>(++reads); });
    h.observe(0.05);
    const auto samples = r.collect();
    ASSERT_EQ(samples.size(), 4U);
    EXPECT_EQ(samples[0].name, "gmgate_a_total");
    EXPECT_EQ(samples[0].value, 3);
    EXPECT_EQ(samples[1].kind, Kind::gauge);
    EXPECT_EQ(samples[1].value, -4);
    EXPECT_EQ(samples[2].histogram, &h);
    EXPECT_EQ(samples[3].value, 1);
    EXPECT_EQ(r.collect()[3].value, 2);
}

TEST(Metrics, SeriesReadTogetherAreReadOnceAScrape) {
    Registry r;
    int reads = 0;
    r.functions("gmgate_e_total", "e", Kind::counter, {{{"k", "x"}}, {{"k", "y"}}, {{"k", "z"}}},
                [&reads] {
                    ++reads;
                    return std::vector<double>{10.0 * reads, 10.0 * reads + 1};
                });
    EXPECT_EQ(reads, 0);
    for (int i = 1; i <= 2; ++i) {
        const auto samples = r.collect();
        EXPECT_EQ(reads, i);
        ASSERT_EQ(samples.size(), 3U);
        EXPECT_EQ(samples[0].value, 10.0 * i);
        EXPECT_EQ(samples[1].value, 10.0 * i + 1);
        EXPECT_EQ(samples[1].labels, (Labels{{"k", "y"}}));
        EXPECT_EQ(samples[2].value, 0) << "none was given";
    }
}

TEST(Metrics, HistogramBucketsAreUpperBoundsInclusive) {
    Histogram h({0.001, 0.01, 0.1});
    for (const double v : {0.0, 0.001, 0.0011, 0.01, 0.05, 0.2, 100.0, -1.0}) h.observe(v);
    EXPECT_EQ(h.counts(), (std::vector<std::uint64_t>{3, 2, 1, 2}));
    EXPECT_EQ(h.count(), 8U);
    EXPECT_NEAR(h.sum(), 0.001 + 0.0011 + 0.01 + 0.05 + 0.2 + 100.0, 1e-6);
}

TEST(Metrics, CountersAreExactAcrossThreads) {
    Registry r;
    Counter& c = r.counter("gmgate_x_total", "help");
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 10000; ++i) c.add();
        });
    }
    threads.clear();
    EXPECT_EQ(c.value(), 40000U);
}

}  // namespace
}  // namespace gmgate::metrics
