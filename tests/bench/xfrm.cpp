// The kernel backend: what a set costs to encode, to read back, and, where the kernel has ESP, to
// install and remove. The encoder runs anywhere; the rest wants root and is skipped without ESP.

#include <benchmark/benchmark.h>
#include <sched.h>
#include <time.h>

#include <fstream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "sa/kernel/decoder.h"
#include "sa/kernel/encoder.h"
#include "sa/kernel/kernel_backend.h"
#include "sa/kernel/set_states.h"
#include "sa/kernel/suites.h"

namespace gmgate::kernel {
namespace {

IpAddress ue_of(std::uint32_t n) {
    const std::array<std::uint8_t, 4> octets{10, 20, static_cast<std::uint8_t>(n >> 8U),
                                             static_cast<std::uint8_t>(n)};
    return IpAddress::v4(octets);
}
const IpAddress ours = *IpAddress::parse("10.21.0.1");

sa::SaNumbers numbers_of(std::uint32_t n) {
    return {0x10000 + 2 * n,
            0x10001 + 2 * n,
            0x4000000 + 2 * n,
            0x4000001 + 2 * n,
            20000,
            20001,
            6200,
            6100};
}

// Key expansion, four states, four messages: all that an install computes before the system call.
void encode_set(benchmark::State& state) {
    const sa::Suite suite = sa::all_suites[static_cast<std::size_t>(state.range(0))];
    const sa::AkaKey key;
    const SecretPages buffer(8192);
    std::uint32_t n = 0;
    std::size_t octets = 0;
    for (auto _ : state) {
        const SuiteKeys keys(suite, key, key);
        auto four = set_states(ue_of(n), ours, numbers_of(n), 0);
        Encoder e(buffer.bytes(), n);
        for (State& s : four) {
            s.reqid = default_reqid;
            s.replay_window = 128;
            keys.fill(s);
            e.add_state(s);
        }
        octets = e.octets().size();
        benchmark::DoNotOptimize(octets);
        ++n;
    }
    state.SetLabel(sa::to_string(suite));
    state.SetItemsProcessed(state.iterations());
    state.counters["octets_per_set"] = static_cast<double>(octets);
}
BENCHMARK(encode_set)->DenseRange(0, 7);

void decode_state(benchmark::State& state) {
    const sa::AkaKey key;
    const SuiteKeys keys(sa::all_suites[2], key, key);
    State s = set_states(ue_of(1), ours, numbers_of(1), 0)[0];
    keys.fill(s);
    std::vector<std::uint8_t> buffer(2048);
    Encoder e(buffer, 1);
    e.add_state(s);
    for (auto _ : state) {
        auto octets = e.octets();
        const auto m = next_message(octets);
        benchmark::DoNotOptimize(parse_state(m->payload));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(decode_state);

std::uint64_t slab_octets() {
    std::ifstream file("/proc/meminfo");
    std::string name;
    std::uint64_t value = 0;
    while (file >> name >> value) {
        if (name == "Slab:") return value * 1024;
        file.ignore(64, '\n');
    }
    return 0;
}

// Sets in the kernel: installed one by one as registrations do, read by a dump, removed at once.
void kernel_sets(benchmark::State& state) {
    log::configure(log::Level::error, false);
    const sa::Suite suite = sa::all_suites[static_cast<std::size_t>(state.range(0))];
    const auto count = static_cast<std::uint32_t>(state.range(1));
    if (::unshare(CLONE_NEWNET) != 0) return state.SkipWithError("needs root");
    const SystemClock clock;
    KernelOptions options;
    options.addresses = {ours};
    options.port_ps = {6100, 6103};
    options.port_pc = {6200, 6231};
    options.suites = {suite};
    auto backend = KernelBackend::create(options, clock);
    if (!backend) return state.SkipWithError(backend.error().text.c_str());
    const sa::AkaKey key;
    std::vector<sa::SetId> ids;
    for (std::uint32_t n = 1; n <= count; ++n) ids.push_back(n);
    std::vector<sa::SetStats> stats(count);
    double install = 0;
    double read = 0;
    double remove = 0;
    double memory = 0;
    double install_cpu = 0;
    double remove_cpu = 0;
    // The kernel does its work within our calls, so this is all of it.
    const auto cpu = [] {
        timespec t{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
    };
    const auto seconds = [](auto from) {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
    };
    for (auto _ : state) {
        const std::uint64_t before = slab_octets();
        double cpu_before = cpu();
        auto from = std::chrono::steady_clock::now();
        for (std::uint32_t n = 1; n <= count; ++n) {
            sa::SetParams p;
            p.id = n;
            p.ue = ue_of(n);
            p.ours = ours;
            p.numbers = numbers_of(n);
            p.suite = suite;
            p.ck = &key;
            p.ik = &key;
            if (auto r = (*backend)->install(p); !r)
                return state.SkipWithError(r.error().text.c_str());
        }
        install += seconds(from);
        install_cpu += cpu() - cpu_before;
        memory = static_cast<double>(slab_octets()) - static_cast<double>(before);
        from = std::chrono::steady_clock::now();
        (*backend)->stats(ids, stats);
        read += seconds(from);
        cpu_before = cpu();
        from = std::chrono::steady_clock::now();
        (*backend)->remove(ids);
        remove += seconds(from);
        remove_cpu += cpu() - cpu_before;
    }
    const double sets = static_cast<double>(count) * static_cast<double>(state.iterations());
    state.SetLabel(sa::to_string(suite));
    state.counters["installs_per_s"] = sets / install;
    state.counters["stats_per_s"] = sets / read;
    state.counters["removes_per_s"] = sets / remove;
    state.counters["install_cpu_us"] = install_cpu / sets * 1e6;
    state.counters["remove_cpu_us"] = remove_cpu / sets * 1e6;
    state.counters["kernel_octets_per_set"] = memory / static_cast<double>(count);
}
BENCHMARK(kernel_sets)->ArgsProduct({{0, 3}, {2500}})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gmgate::kernel

BENCHMARK_MAIN();
