// The control plane's cost of one whole registration: SM1, SM5, SM7 and SM11 in, SM2, SM6, SM8 and
// SM12 out. Only the time inside the gateway counts (parse, checks, SA database, transactions,
// edits, traces); the packet layer and the sockets are empty shells, and the phone's and the
// S-CSCF's messages are made outside the measured time.

#include <benchmark/benchmark.h>

#include <array>
#include <chrono>
#include <cstdio>

#include "tests/bench/gateway.h"
#include "tests/bench/phones.h"

namespace gmgate {
namespace {

std::size_t resident() {
    std::size_t pages = 0;
    if (FILE* f = std::fopen("/proc/self/statm", "r")) {
        std::size_t all = 0;
        if (std::fscanf(f, "%zu %zu", &all, &pages) != 2) pages = 0;
        std::fclose(f);
    }
    return pages * 4096;
}

void registration_sm1_to_sm12(benchmark::State& state) {
    bench::Phones<> world;
    std::array<std::chrono::nanoseconds, 4> steps{};  // SM1, SM5, SM7, SM11
    std::uint32_t n = 0;
    for (auto _ : state) {
        world.spent = {};
        world.introduce(
            n++, [&](std::size_t step, std::chrono::nanoseconds took) { steps.at(step) += took; });
        state.SetIterationTime(std::chrono::duration<double>(world.spent).count());
        world.timers.advance(64);
    }
    state.counters["registered"] = static_cast<double>(world.gateway->registered());
    constexpr std::array names{"us_SM1", "us_SM5", "us_SM7", "us_SM11"};
    for (std::size_t i = 0; i < names.size(); ++i) {
        state.counters[names[i]] = std::chrono::duration<double, std::micro>(steps[i]).count() / n;
    }
}
BENCHMARK(registration_sm1_to_sm12)
    ->UseManualTime()
    ->Iterations(bench::rounds(100'000))
    ->Unit(benchmark::kMicrosecond);

// What 100,000 registered phones hold, once their transactions have ended. Without the packet
// layer's share.
void memory_per_phone(benchmark::State& state) {
    for (auto _ : state) {
        const std::size_t before =
            resident();  // run alone (--benchmark_filter): freed memory of others would hide it
        bench::Phones<> world;
        constexpr std::uint32_t phones = 100'000;
        for (std::uint32_t n = 0; n < phones; ++n) {
            world.introduce(n);
            world.timers.advance(64);
        }
        state.counters["octets_with_transactions"] =
            static_cast<double>(resident() - before) / phones;
        state.counters["registered"] = static_cast<double>(world.gateway->registered());
    }
}
BENCHMARK(memory_per_phone)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace gmgate

BENCHMARK_MAIN();
