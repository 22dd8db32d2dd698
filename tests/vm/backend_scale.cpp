// The backends kernel and screen with many phones on the real kernel: all sets installed, counted,
// listed SPI by SPI, asked about, removed; policies do not grow. Run in a network namespace of its
// own, with the gateway's address on an interface, or with an interface for the fast path to take
// (tests/vm/suites.sh).
//   backend_scale PHONES ADDRESS [INTERFACE]      with INTERFACE: screen

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "dataplane/core/screen_backend.h"
#include "dataplane/dpdk/dpdk_backend.h"
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
using Pipe = std::unique_ptr<FILE, int (*)(FILE*)>;
std::size_t count(const char* command) {
    const Pipe pipe(::popen(command, "r"), ::pclose);
    unsigned long n = 0;
    return pipe && std::fscanf(pipe.get(), "%lu", &n) == 1 ? n : ~std::size_t{0};
}
std::size_t states() {
    return count("ip xfrm state count | sed 's/[^0-9]*\\([0-9]*\\).*/\\1/'");
}
std::size_t policies() {
    return count("ip xfrm policy | grep -c '^src'");
}

// Destination and SPI of every state there is, and the packets it has seen.
struct Listed {
    std::string destination;
    std::uint32_t spi = 0;
    unsigned long packets = 0;
    auto operator<=>(const Listed&) const = default;
};
std::vector<Listed> listed() {
    const Pipe pipe(::popen("ip -s xfrm state list", "r"), ::pclose);
    std::vector<Listed> out;
    std::array<char, 256> line{};
    std::array<char, 64> word{};
    while (pipe && std::fgets(line.data(), line.size(), pipe.get()) != nullptr) {
        unsigned spi = 0;
        unsigned long packets = 0;
        if (std::sscanf(line.data(), "src %*s dst %63s", word.data()) == 1) {
            out.emplace_back().destination = word.data();
        } else if (!out.empty() && std::sscanf(line.data(), " proto esp spi 0x%x", &spi) == 1) {
            out.back().spi = spi;
        } else if (!out.empty() &&
                   std::sscanf(line.data(), " %*u(bytes), %lu(packets)", &packets) == 1) {
            out.back().packets += packets;
        }
    }
    std::ranges::sort(out);
    return out;
}

// What is under test, put together as gmgated does it (control/app/packet_layer.cpp).
struct Layers {
    std::unique_ptr<kernel::KernelBackend> kernel;
    std::unique_ptr<dataplane::DpdkBackend> front;  // screen
    std::unique_ptr<dataplane::ScreenBackend> both;

    sa::Backend& backend() const { return both ? static_cast<sa::Backend&>(*both) : *kernel; }
};

Result<Layers> start(std::uint32_t phones, const IpAddress& ours, const std::string& interface,
                     const Clock& clock) {
    Layers layers;
    kernel::KernelOptions o;
    o.addresses = {ours};
    o.port_ps = {6100, 6100};
    o.port_pc = {6200, 6201};
    o.suites.assign(sa::all_suites.begin(), sa::all_suites.end());
    o.max_sets = phones;
    auto kernel = kernel::KernelBackend::create(o, clock);
    if (!kernel) return std::unexpected(kernel.error());
    layers.kernel = std::move(*kernel);
    layers.kernel->finish_reconciliation();
    if (interface.empty()) return layers;

    dataplane::DpdkOptions d;
    d.gm_interface = interface;
    d.addresses = {{ours, 32}};
    d.port_ps = {6100, 6100};
    d.port_pc = {6200, 6201};
    d.max_sets = phones;
    d.memory_mb = 256;
    d.verify_only = true;
    auto front = dataplane::DpdkBackend::create(d, clock);
    if (!front) return std::unexpected(front.error());
    layers.front = std::move(*front);
    auto both = dataplane::ScreenBackend::create(*layers.front, *layers.kernel);
    if (!both) return std::unexpected(both.error());
    layers.both = std::move(*both);
    return layers;
}

int run(std::uint32_t phones, const IpAddress& ours, const std::string& interface) {
    const SystemClock clock;
    auto layers = start(phones, ours, interface, clock);
    if (!layers) {
        fmt::print("FAILED  the backend does not start: {}\n", layers.error().text);
        return 1;
    }
    sa::Backend& backend = layers->backend();
    const std::size_t policies_idle = policies();

    const sa::AkaKey ck(std::array<std::uint8_t, 16>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    const sa::AkaKey ik(std::array<std::uint8_t, 16>{9, 8, 7, 6, 5, 4, 3, 2, 1});
    std::vector<sa::SetId> ids;
    std::vector<Listed> wanted;
    std::string first_error;
    for (std::uint32_t i = 0; i < phones; ++i) {
        sa::SetParams p;
        p.id = i + 1;
        p.ue = IpAddress::v4(std::array<std::uint8_t, 4>{10, 20, static_cast<std::uint8_t>(i >> 8U),
                                                         static_cast<std::uint8_t>(i & 0xFFU)});
        p.ours = ours;
        p.numbers = {0x10000 + 2 * i,
                     0x10001 + 2 * i,
                     sa::SpiLayout::make(1, 0, 2 * i),
                     sa::SpiLayout::make(1, 0, 2 * i + 1),
                     20000,
                     20001,
                     6200,
                     6100};
        p.suite = sa::all_suites[i % sa::all_suites.size()];
        p.ck = &ck;
        p.ik = &ik;
        if (auto r = backend.install(p); r) {
            ids.push_back(p.id);
            for (const auto spi : {p.numbers.spi_ps, p.numbers.spi_pc})
                wanted.push_back({ours.to_string(), spi});
            for (const auto spi : {p.numbers.spi_uc, p.numbers.spi_us})
                wanted.push_back({p.ue.to_string(), spi});
        } else if (first_error.empty()) {
            first_error = " (" + r.error().text + ")";
        }
    }
    expect_equal("sets installed" + first_error, phones, ids.size());
    expect_equal("the backend counts them", phones, backend.installed());
    expect_equal("states the kernel counts", std::size_t{4} * phones, states());
    expect_equal("policies do not grow with phones", policies_idle, policies());

    // Set by set: the same addresses and SPIs, and no packets, in the kernel's list as here.
    std::ranges::sort(wanted);
    const std::vector<Listed> found = listed();
    std::vector<Listed> common;
    std::ranges::set_intersection(wanted, found, std::back_inserter(common));
    expect_equal("states 'ip -s xfrm state' lists", wanted.size(), found.size());
    expect_equal("of them those of our sets", wanted.size(), common.size());

    std::vector<sa::SetStats> stats(ids.size());
    backend.stats(ids, stats);
    std::size_t used = 0;
    for (const auto& s : stats) used += s.in_packets + s.out_packets;
    expect_equal("packets on them", 0, used);

    backend.remove(ids);
    expect_equal("states after the removal", 0, states());
    expect_equal("sets the backend counts then", 0, backend.installed());
    // A packet's way back to front.
    layers->both.reset();
    layers->front.reset();
    layers->kernel.reset();
    expect_equal("policies without the backend", 0, policies());
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const bool understood = argc == 3 || argc == 4;
    const auto ours = understood ? IpAddress::parse(argv[2]) : std::nullopt;
    const unsigned long phones = understood ? std::strtoul(argv[1], nullptr, 10) : 0;
    if (!ours || phones == 0 || phones > 65000) {
        fmt::print(stderr, "backend_scale PHONES ADDRESS [INTERFACE]\n");
        return 2;
    }
    return run(static_cast<std::uint32_t>(phones), *ours, argc == 4 ? argv[3] : "");
}
