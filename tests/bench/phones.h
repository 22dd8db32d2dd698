#pragma once
// Registered phones before a gateway whose packet layer and sockets are empty shells. Only the time
// inside the gateway counts: messages of phones and home are made outside of it.

#include <malloc.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/registration/gateway.h"
#include "control/secagree/mechanism.h"
#include "control/sip/build.h"
#include "control/sip/message.h"
#include "control/sip/values.h"
#include "sa/database.h"
#include "tests/bench/gateway.h"
#include "tests/bench/register_messages.h"

namespace gmgate::bench {

class EmptyBackend final : public sa::Backend {
  public:
    [[nodiscard]] Result<void> install(const sa::SetParams& /*params*/) override {
        ++installed_;
        return {};
    }
    void remove(sa::SetId /*id*/) override { --installed_; }
    void remove(std::span<const sa::SetId> ids) override { installed_ -= ids.size(); }
    void stats(std::span<const sa::SetId> /*ids*/,
               std::span<sa::SetStats> /*stats*/) const override {}
    [[nodiscard]] int event_fd() const override { return -1; }
    void drain_events(const std::function<void(const sa::BackendEvent&)>& /*handle*/) override {}
    [[nodiscard]] std::uint32_t owner_of(const IpAddress& /*ue*/,
                                         const IpAddress& /*ours*/) const override {
        return 0;
    }
    [[nodiscard]] std::size_t capacity() const override { return 300'000; }
    [[nodiscard]] std::size_t installed() const override { return installed_; }

  private:
    std::size_t installed_ = 0;
};

class Capture final : public sip::TransportLayer {
  public:
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        last.assign(bytes.data(), bytes.size());
        last_flow = flow;
        ++count;
        return true;
    }
    void close(sip::ConnectionId /*connection*/) override {}
    std::string last;
    sip::Flow last_flow;
    std::size_t count = 0;
};

[[noreturn]] inline void stop(const char* what, const std::string& message) {
    std::fprintf(stderr, "bench: %s\n%s\n", what, message.c_str());
    std::abort();
}

// The thread's own CPU time: other work on the machine does not count. Reading it costs about
// 0.2 µs, which is not taken off.
inline std::chrono::nanoseconds cpu() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

// What the heap has given out, large pieces included. Not what is only kept for later use.
inline std::size_t held() {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

// `Time`: SystemClock, or ManualClock where transactions are to end at the bench's word.
template <class Time = SystemClock>
struct Phones {
    explicit Phones(const std::function<void(registration::Policy&)>& alter = {}) {
        sets = std::move(*sa::SaDatabase::create(database_config(), backend, timers, random));
        registration::Policy policy = gateway_policy();
        policy.limits.transactions = 2'000'000;
        policy.limits.registrations = 1'000'000;
        policy.limits.message_rate_per_user = policy.limits.message_burst_per_user = 1e12;
        if (alter) alter(policy);
        gateway = std::make_unique<registration::Gateway>(policy, *sets, timers, random, registry);
        gateway->attach(gm, core);
    }

    void into(sip::MessageSink& sink, const sip::Flow& flow, std::string& text) {
        const auto start = cpu();
        sink.on_message(flow, text);
        took = cpu() - start;
        spent += took;
    }
    void from_gm(const sip::Flow& flow, std::string text) { into(gateway->gm(), flow, text); }
    void from_core(std::string text) { into(gateway->core(), core_flow, text); }

    struct Phone {
        std::uint16_t port_ps = 0;
        std::uint16_t port_pc = 0;
        std::string path;
    };
    // SM1 to SM12 of phone `n`, of which nothing is kept here. `step`: told the time of SM1, SM5,
    // SM7 and SM11.
    Phone introduce(std::uint32_t n,
                    const std::function<void(std::size_t, std::chrono::nanoseconds)>& step = {}) {
        const sip::Flow clear{sip::Transport::udp, *Endpoint::parse("10.1.0.1:5060"),
                              Endpoint{phone_address(n), 5060}, 0};
        const std::string nonce = to_base64(as_bytes("nonce" + std::to_string(n)));
        const auto done = [&](std::size_t which) {
            if (step) step(which, took);
        };
        from_gm(clear, register_text(n, false, "", ""));
        done(0);
        from_core(challenge_answer(core.last, nonce));
        done(1);
        sip::Message sm6;
        if (sm6.parse(std::string_view(gm.last)) != sip::ParseStatus::ok ||
            sm6.status_code() != 401) {
            stop("SM6 expected", gm.last);
        }
        const std::string server(*sm6.value(sip::HeaderId::security_server));
        secagree::MechanismList list;
        list.add(server);
        Phone p;
        p.port_ps = list.mechanisms().front().port_s;
        p.port_pc = list.mechanisms().front().port_c;
        from_gm(on_sa_of(n, p), register_text(n, true, nonce, server));
        done(2);
        sip::Message sm8;
        if (sm8.parse(std::string_view(core.last)) != sip::ParseStatus::ok || !sm8.is_request()) {
            stop("SM8 expected", core.last);
        }
        p.path = sm8.value(sip::HeaderId::path).value_or("");
        const std::string contact(sm8.value(sip::HeaderId::contact).value_or(""));
        from_core(home_answer(core.last, 200,
                              "Service-Route: <sip:orig@192.0.2.9:6060;lr>\r\nP-Associated-URI: <" +
                                  impu(n) + ">, <tel:+1" + std::to_string(5'550'000'000U + n) +
                                  ">\r\nContact: " + contact + ";expires=600000\r\n"));
        done(3);
        if (!gm.last.starts_with("SIP/2.0 200 ")) stop("SM12 expected", gm.last);
        return p;
    }
    // The next phone, from 0: it is kept, and can talk.
    void enroll(std::uint32_t n) { phones.push_back(introduce(n)); }
    // Requests of the phone.
    static sip::Flow on_sa_of(std::uint32_t n, const Phone& phone) {
        return {sip::Transport::udp, Endpoint{*IpAddress::parse("10.1.0.1"), phone.port_ps},
                Endpoint{phone_address(n), 7000}, 0};
    }
    [[nodiscard]] sip::Flow on_sa(std::uint32_t n) const { return on_sa_of(n, phones.at(n)); }
    // Its answers.
    [[nodiscard]] sip::Flow answers_on_sa(std::uint32_t n) const {
        return {sip::Transport::udp, Endpoint{*IpAddress::parse("10.1.0.1"), phones.at(n).port_pc},
                Endpoint{phone_address(n), 7777}, 0};
    }
    static std::string user(std::uint32_t n) {
        return "00101" + std::to_string(1'000'000'000U + n);
    }
    static std::string impu(std::uint32_t n) {
        return "sip:" + user(n) + "@ims.mnc001.mcc001.3gppnetwork.org";
    }
    static std::string contact(std::uint32_t n) {
        return "sip:" + user(n) + "@" + phone_address(n).to_string() + ":7777";
    }

    std::vector<Phone> phones;  // in the order in which they enrolled, from 0
    std::chrono::nanoseconds spent{};
    std::chrono::nanoseconds took{};  // of the latest message
    const sip::Flow core_flow{sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                              *Endpoint::parse("192.0.2.9:5060"), 0};
    Time clock;
    TimerWheel timers{clock};
    SeededRandom random{1};
    metrics::Registry registry;
    EmptyBackend backend;
    std::unique_ptr<sa::SaDatabase> sets;
    std::unique_ptr<registration::Gateway> gateway;
    Capture gm;
    Capture core;
};

}  // namespace gmgate::bench
