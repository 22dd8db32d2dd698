#include "ue/traffic.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "ue/agent.h"

namespace gmgate::ue {

namespace {

constexpr std::uint32_t no_pair = std::numeric_limits<std::uint32_t>::max();

}  // namespace

Traffic::Traffic(PhoneContext& context, const TrafficOptions& options)
    : context_(context), options_(options) {
    timer_.bind<&Traffic::on_tick>(this);
}

void Traffic::start(std::vector<Phone*> phones, std::function<void()> on_over) {
    on_over_ = std::move(on_over);
    first_number_ = phones.empty() ? 0 : phones.front()->plan().number;
    pair_of_.assign(phones.size(), no_pair);
    for (std::size_t i = 0; i + 1 < phones.size(); i += 2) {
        if (!phones[i]->registered() || !phones[i + 1]->registered()) continue;
        const auto pair = static_cast<std::uint32_t>(pairs_.size());
        pairs_.push_back({phones[i], phones[i + 1]});
        pair_of_[i] = pair_of_[i + 1] = pair;
        idle_.push_back(pair);
    }
    began_ = last_ = context_.timers.now();
    ends_ = pairs_.empty() ? began_ : began_ + options_.duration;
    context_.timers.start(timer_, Duration{0});
}

void Traffic::on_tick() {
    const TimePoint now = context_.timers.now();
    const double elapsed = std::chrono::duration<double>(std::min(now, ends_) - began_).count();
    const auto due = [&](double rate) {
        return rate > 0 ? static_cast<std::uint64_t>(elapsed * rate) + 1 : 0;
    };
    if (now < ends_) {
        auto calls = due(options_.calls_per_second);
        if (options_.calls > 0) calls = std::min(calls, options_.calls);
        for (; calls_ < calls; ++calls_) place();
        const auto messages = due(options_.messages_per_second);
        for (; messages_ < messages; ++messages_) send_message();
    }
    const bool all_placed = now >= ends_ || (options_.messages_per_second <= 0 &&
                                             options_.calls > 0 && calls_ >= options_.calls);
    if (all_placed && waiting_ == 0 && idle_.size() == pairs_.size()) {
        // From the loop, not from inside a call.
        if (on_over_) std::exchange(on_over_, {})();
        return;
    }
    context_.timers.start(timer_, tick);
}

void Traffic::place() {
    if (idle_.empty()) {
        ++skipped_;
        return;
    }
    const std::uint32_t i = idle_.front();
    idle_.pop_front();
    const Pair& pair = pairs_[i];
    const auto call = pair.caller->agent().call(pair.called->identity().impu(), options_.call_time);
    last_ = context_.timers.now();
    if (call) return;
    idle_.push_back(i);
    context_.statistics.calls.failures.add("not begun: " + call.error().text);
}

void Traffic::send_message() {
    const auto n = messages_ / 2;
    const Pair& pair = pairs_[n % pairs_.size()];
    Phone* from = pair.caller;
    Phone* to = pair.called;
    if (messages_ % 2 != 0) std::swap(from, to);
    const auto sent = from->agent().message(to->identity().impu(), "gmue says hello",
                                            [this](int, std::string_view) {
                                                --waiting_;
                                                last_ = context_.timers.now();
                                            });
    if (sent) {
        ++waiting_;
    } else {
        ++skipped_;
    }
}

void Traffic::on_call(Phone& phone, Call& call, CallEvent event) {
    if (!call.facts().outgoing) return;
    const std::size_t i = phone.plan().number - first_number_;
    if (i >= pair_of_.size() || pair_of_[i] == no_pair) return;
    last_ = context_.timers.now();
    if (event == CallEvent::answered && options_.hold) call.hold();
    if (event == CallEvent::held) call.resume();
    if (event != CallEvent::ended) return;
    last_call_ = call.facts();
    idle_.push_back(pair_of_[i]);
}

}  // namespace gmgate::ue
