// The control plane's cost of one whole registration: SM1, SM5, SM7 and SM11 in, SM2, SM6, SM8 and
// SM12 out. Only the time inside the gateway counts (parse, checks, SA database, transactions,
// edits, traces); the packet layer and the sockets are empty shells, and the phone's and the
// S-CSCF's messages are made outside the measured time.

#include <benchmark/benchmark.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/timer_wheel.h"
#include "control/registration/gateway.h"
#include "control/secagree/mechanism.h"
#include "control/sip/build.h"
#include "control/sip/values.h"
#include "sa/database.h"
#include "tests/bench/gateway.h"
#include "tests/bench/phones.h"
#include "tests/bench/register_messages.h"

namespace gmgate {
namespace {

using bench::Capture;
using bench::EmptyBackend;
using bench::stop;

struct Bench {
    Bench() {
        sets =
            std::move(*sa::SaDatabase::create(bench::database_config(), backend, timers, random));
        registration::Policy policy = bench::gateway_policy();
        policy.limits.transactions = 2'000'000;
        policy.limits.registrations = 1'000'000;
        gateway = std::make_unique<registration::Gateway>(policy, *sets, timers, random, registry);
        gateway->attach(gm, core);
    }

    // The thread's own CPU time: other work on the machine does not count. Reading it costs about
    // 0.2 µs, which is not taken off.
    static std::chrono::nanoseconds cpu() {
        timespec t{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
    }
    std::chrono::nanoseconds spent{};
    std::array<std::chrono::nanoseconds, 4> step{};  // SM1, SM5, SM7, SM11

    void into(sip::MessageSink& sink, const sip::Flow& flow, std::string& text, std::size_t which) {
        const auto start = cpu();
        sink.on_message(flow, text);
        const auto took = cpu() - start;
        spent += took;
        step[which] += took;
    }

    void once(std::uint32_t n) {
        const sip::Flow clear{sip::Transport::udp, *Endpoint::parse("10.1.0.1:5060"),
                              Endpoint{bench::phone_address(n), 5060}, 0};
        const std::string nonce = to_base64(as_bytes("nonce" + std::to_string(n)));
        std::string sm1 = bench::register_text(n, false, "", "");
        into(gateway->gm(), clear, sm1, 0);
        std::string sm5 = bench::challenge_answer(core.last, nonce);
        const sip::Flow from_core{sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                                  *Endpoint::parse("192.0.2.9:5060"), 0};
        into(gateway->core(), from_core, sm5, 1);
        sip::Message sm6;
        if (sm6.parse(std::string_view(gm.last)) != sip::ParseStatus::ok ||
            sm6.status_code() != 401) {
            stop("SM6 expected", gm.last);
        }
        const std::string server(*sm6.value(sip::HeaderId::security_server));
        secagree::MechanismList list;
        list.add(server);
        std::string sm7 = bench::register_text(n, true, nonce, server);
        const sip::Flow on_sa{sip::Transport::udp,
                              Endpoint{clear.local.address, list.mechanisms().front().port_s},
                              Endpoint{clear.remote.address, 7000}, 0};
        into(gateway->gm(), on_sa, sm7, 2);
        sip::Message sm8;
        if (sm8.parse(std::string_view(core.last)) != sip::ParseStatus::ok || !sm8.is_request()) {
            stop("SM8 expected", core.last);
        }
        const std::string contact(sm8.value(sip::HeaderId::contact).value_or(""));
        std::string sm11 = bench::home_answer(
            core.last, 200,
            "Service-Route: <sip:orig@scscf.ims.mnc001.mcc001.3gppnetwork.org:6060;lr>\r\n"
            "P-Associated-URI: <sip:00101" +
                std::to_string(1'000'000'000U + n) +
                "@ims.mnc001.mcc001.3gppnetwork.org>, <tel:+1" +
                std::to_string(5'550'000'000U + n) + ">\r\nContact: " + contact +
                ";expires=600000\r\n");
        into(gateway->core(), from_core, sm11, 3);
        if (!gm.last.starts_with("SIP/2.0 200 ")) stop("SM12 expected", gm.last);
    }

    SystemClock clock;
    TimerWheel timers{clock};
    SeededRandom random{1};
    metrics::Registry registry;
    EmptyBackend backend;
    std::unique_ptr<sa::SaDatabase> sets;
    std::unique_ptr<registration::Gateway> gateway;
    Capture gm;
    Capture core;
};

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
    Bench bench;
    std::uint32_t n = 0;
    for (auto _ : state) {
        bench.spent = {};
        bench.once(n++);
        state.SetIterationTime(std::chrono::duration<double>(bench.spent).count());
        bench.timers.advance(64);
    }
    state.counters["registered"] = static_cast<double>(bench.gateway->registered());
    constexpr std::array names{"us_SM1", "us_SM5", "us_SM7", "us_SM11"};
    for (std::size_t i = 0; i < names.size(); ++i) {
        state.counters[names[i]] =
            std::chrono::duration<double, std::micro>(bench.step[i]).count() / n;
    }
}
BENCHMARK(registration_sm1_to_sm12)
    ->UseManualTime()
    ->Iterations(100'000)
    ->Unit(benchmark::kMicrosecond);

// What 100,000 registered phones hold, once their transactions have ended. Without the packet
// layer's share.
void memory_per_phone(benchmark::State& state) {
    for (auto _ : state) {
        const std::size_t before =
            resident();  // run alone (--benchmark_filter): freed memory of others would hide it
        Bench bench;
        constexpr std::uint32_t phones = 100'000;
        for (std::uint32_t n = 0; n < phones; ++n) {
            bench.once(n);
            bench.timers.advance(64);
        }
        state.counters["octets_with_transactions"] =
            static_cast<double>(resident() - before) / phones;
        state.counters["registered"] = static_cast<double>(bench.gateway->registered());
    }
}
BENCHMARK(memory_per_phone)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace gmgate

BENCHMARK_MAIN();
