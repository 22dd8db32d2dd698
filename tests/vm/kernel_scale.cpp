// The kernel backend with many phones on the real kernel: all sets installed, counted, asked about,
// removed; policies do not grow. Run in a network namespace of its own, with the gateway's address
// on an interface (tests/vm/kernel_test).
//   kernel_scale PHONES ADDRESS

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sa/kernel/kernel_backend.h"

namespace {

using namespace gmgate;

int failures = 0;

void expect_equal(std::string_view text, std::size_t wanted, std::size_t got) {
    const bool good = wanted == got;
    fmt::print("{}{}: {}{}\n", good ? "ok      " : "FAILED  ", text, got,
               good ? "" : fmt::format(", expected {}", wanted));
    std::fflush(stdout);
    failures += good ? 0 : 1;
}

// What iproute2 reads from the kernel: an opinion of its own.
std::size_t count(const char* command) {
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command, "r"), ::pclose);
    unsigned long n = 0;
    return pipe && std::fscanf(pipe.get(), "%lu", &n) == 1 ? n : ~std::size_t{0};
}
std::size_t states() {
    return count("ip xfrm state count | sed 's/[^0-9]*\\([0-9]*\\).*/\\1/'");
}
std::size_t policies() {
    return count("ip xfrm policy | grep -c '^src'");
}

int run(std::uint32_t phones, const IpAddress& ours) {
    const SystemClock clock;
    kernel::KernelOptions o;
    o.addresses = {ours};
    o.port_ps = {6100, 6100};
    o.port_pc = {6200, 6201};
    o.suites.assign(sa::all_suites.begin(), sa::all_suites.end());
    o.max_sets = phones;
    auto backend = kernel::KernelBackend::create(o, clock);
    if (!backend) {
        fmt::print("FAILED  the backend does not start: {}\n", backend.error().text);
        return 1;
    }
    (*backend)->finish_reconciliation();
    const std::size_t policies_idle = policies();

    const sa::AkaKey ck(std::array<std::uint8_t, 16>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    const sa::AkaKey ik(std::array<std::uint8_t, 16>{9, 8, 7, 6, 5, 4, 3, 2, 1});
    std::vector<sa::SetId> ids;
    std::string first_error;
    for (std::uint32_t i = 0; i < phones; ++i) {
        sa::SetParams p;
        p.id = i + 1;
        p.ue = IpAddress::v4(std::array<std::uint8_t, 4>{10, 20, static_cast<std::uint8_t>(i >> 8U),
                                                         static_cast<std::uint8_t>(i & 0xFFU)});
        p.ours = ours;
        p.numbers = {0x10000 + 4 * i,
                     0x10001 + 4 * i,
                     0x10002 + 4 * i,
                     0x10003 + 4 * i,
                     20000,
                     20001,
                     6200,
                     6100};
        p.suite = sa::all_suites[i % sa::all_suites.size()];
        p.ck = &ck;
        p.ik = &ik;
        if (auto r = (*backend)->install(p); r) {
            ids.push_back(p.id);
        } else if (first_error.empty()) {
            first_error = " (" + r.error().text + ")";
        }
    }
    expect_equal("sets installed" + first_error, phones, ids.size());
    expect_equal("the backend counts them", phones, (*backend)->installed());
    expect_equal("states the kernel counts", std::size_t{4} * phones, states());
    expect_equal("policies do not grow with phones", policies_idle, policies());

    std::vector<sa::SetStats> stats(ids.size());
    (*backend)->stats(ids, stats);
    std::size_t used = 0;
    for (const auto& s : stats) used += s.in_packets + s.out_packets;
    expect_equal("packets on them", 0, used);

    (*backend)->remove(ids);
    expect_equal("states after the removal", 0, states());
    expect_equal("sets the backend counts then", 0, (*backend)->installed());
    backend->reset();
    expect_equal("policies without the backend", 0, policies());
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const auto ours = argc == 3 ? IpAddress::parse(argv[2]) : std::nullopt;
    const unsigned long phones = argc == 3 ? std::strtoul(argv[1], nullptr, 10) : 0;
    if (!ours || phones == 0 || phones > 65000) {
        fmt::print(stderr, "kernel_scale PHONES ADDRESS\n");
        return 2;
    }
    return run(static_cast<std::uint32_t>(phones), *ours);
}
