#pragma once
// Two agents and the wire between them, in virtual time.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "control/sip/message.h"
#include "ue/agent.h"

namespace gmgate::ue::test {

class Pair;

// One end: an agent, what it was told, and what it sent.
class End final : public AgentHost {
  public:
    End(Pair& pair, TimerWheel& wheel, std::string name, const char* address);

    [[nodiscard]] std::optional<Flow> flow() const override {
        if (!registered) return std::nullopt;
        Flow f;
        f.set = 1;
        f.contact = *Endpoint::parse(address);
        f.tcp = tcp;
        f.identity = {name, "ims.example"};
        f.route = "<sip:orig@scscf.ims.example;lr>";
        f.verify = "Security-Verify: ipsec-3gpp;alg=hmac-sha-1-96\r\n";
        return f;
    }
    bool send_request(std::uint32_t, bool over_tcp, std::string_view bytes) override {
        last_tcp = over_tcp;
        return put(bytes);
    }
    bool send_response(const ReplyPath&, std::string_view bytes) override { return put(bytes); }
    void narrate(std::string_view) const override {}
    void call_event(Call& call, CallEvent event) override {
        events.emplace_back(ue::name(event));
        facts = call.facts();
        if (on_event) on_event(call, event);
    }
    void message_came(std::string_view from, std::string_view text) override {
        messages.emplace_back(from, text);
    }
    void registration_news(const RegistrationNews& n) override { news.push_back(n); }
    bool put(std::string_view bytes);

    [[nodiscard]] std::size_t sent_count(std::string_view start) const {
        return static_cast<std::size_t>(std::ranges::count_if(
            sent, [&](const std::string& s) { return s.starts_with(start); }));
    }
    [[nodiscard]] std::string last_sent(std::string_view start) const {
        for (auto i = sent.rbegin(); i != sent.rend(); ++i) {
            if (i->starts_with(start)) return *i;
        }
        return {};
    }
    // Of all events, with commas.
    [[nodiscard]] std::string heard() const {
        std::string out;
        for (const auto& e : events) out += (out.empty() ? "" : ",") + e;
        return out;
    }

    Pair& pair;
    std::string name, address;
    bool registered = true, tcp = false, last_tcp = false;
    CallOptions options;
    sip::RegProfile reg_profile = sip::RegProfile::rfc3680;
    CallStatistics stats;
    PhoneTimes times;
    std::uint64_t retransmissions = 0;
    SeededRandom random;
    std::vector<std::string> sent, events;
    std::vector<std::pair<std::string, std::string>> messages;
    std::vector<RegistrationNews> news;
    Call::Facts facts;
    std::function<void(Call&, CallEvent)> on_event;
    Agent agent;
};

class Pair {
  public:
    // False: lost on the way.
    std::function<bool(const End& from, std::string_view bytes)> pass;
    bool deliver = true;  // false: what is sent goes nowhere, the test plays the other end

    void run(Duration time) {
        const TimePoint end = clock.now() + time;
        while (clock.now() < end) {
            Duration step = std::chrono::milliseconds(1);
            if (queue_.empty())
                step = std::clamp(wheel.until_next(), step, std::max(step, end - clock.now()));
            clock.advance(step);
            while (!queue_.empty() && queue_.front().due <= clock.now()) {
                auto item = std::move(queue_.front());
                queue_.pop_front();
                give(*item.to, item.bytes);
            }
            wheel.advance();
        }
    }
    // As if it had come from the network. False: the agent left it to the phone.
    bool give(End& to, const std::string& bytes) {
        sip::Message m;
        if (m.parse(bytes) != sip::ParseStatus::ok) return false;
        return m.is_request() ? to.agent.on_request(m, ReplyPath{}) : to.agent.on_response(m);
    }
    void put(const End& from, std::string bytes) {
        if (!deliver || (pass && !pass(from, bytes))) return;
        // A proxy on the way stays in the dialog.
        if (bytes.starts_with("INVITE")) {
            const auto at = bytes.find("Max-Forwards");
            bytes.insert(at, "Record-Route: <sip:one@10.21.0.1:6100;lr>, <sip:two@core;lr>\r\n");
        }
        queue_.push_back(
            {clock.now() + std::chrono::milliseconds(10), &from == &a ? &b : &a, std::move(bytes)});
    }

    ManualClock clock;
    TimerWheel wheel{clock};
    End a{*this, wheel, "001010000000001", "10.20.0.1:40001"};
    End b{*this, wheel, "001010000000002", "10.20.0.2:40002"};
    const std::string b_uri = "sip:001010000000002@ims.example";

  private:
    struct Due {
        TimePoint due;
        End* to;
        std::string bytes;
    };
    std::deque<Due> queue_;
};

inline End::End(Pair& p, TimerWheel& wheel, std::string n, const char* at)
    : pair(p),
      name(std::move(n)),
      address(at),
      random(std::hash<std::string>{}(name)),
      agent(AgentContext{wheel, random, times, options, reg_profile, stats, retransmissions},
            *this) {}

inline bool End::put(std::string_view bytes) {
    sent.emplace_back(bytes);
    pair.put(*this, std::string(bytes));
    return registered;
}

}  // namespace gmgate::ue::test
