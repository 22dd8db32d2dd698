#pragma once
// Calls and messages between pairs of a fleet's phones, at a rate: phone 1 calls phone 2, phone 3
// calls phone 4, and so on; messages go both ways.

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "base/timer_wheel.h"
#include "ue/phone.h"

namespace gmgate::ue {

struct TrafficOptions {
    double calls_per_second = 0;
    double messages_per_second = 0;
    Duration duration = std::chrono::seconds(10);   // nothing new is begun after it
    Duration call_time = std::chrono::seconds(10);  // from answer to BYE
    bool hold = false;                              // each call is held and resumed once
    std::uint64_t calls = 0;                        // at most; 0: what the rate makes of the time
    [[nodiscard]] bool any() const { return calls_per_second > 0 || messages_per_second > 0; }
};

class Traffic {
  public:
    Traffic(PhoneContext& context, const TrafficOptions& options);

    // `phones` in order; those that are not registered are left out with their partner. `on_over`:
    // what was begun has ended.
    void start(std::vector<Phone*> phones, std::function<void()> on_over);
    void finish_early() { ends_ = context_.timers.now(); }
    void on_call(Phone& phone, Call& call, CallEvent event);

    // From the first to the last that was begun or ended.
    [[nodiscard]] Duration took() const { return last_ - began_; }
    // Due, but each pair had a call already (messages: too many unanswered).
    [[nodiscard]] std::uint64_t skipped() const { return skipped_; }
    [[nodiscard]] std::size_t pairs() const { return pairs_.size(); }
    [[nodiscard]] const Call::Facts& last_call() const { return last_call_; }

  private:
    struct Pair {
        Phone* caller;
        Phone* called;
    };
    void on_tick();
    void place();
    void send_message();

    static constexpr Duration tick = std::chrono::milliseconds(5);

    PhoneContext& context_;
    TrafficOptions options_;
    std::vector<Pair> pairs_;
    std::vector<std::uint32_t> pair_of_;  // by number in the fleet
    std::deque<std::uint32_t> idle_;      // pairs without a call
    std::function<void()> on_over_;
    Timer timer_;
    TimePoint began_{}, ends_{}, last_{};
    std::uint64_t calls_ = 0, messages_ = 0;  // that were due
    std::uint64_t waiting_ = 0;               // messages without an answer
    std::uint64_t skipped_ = 0;
    std::uint32_t first_number_ = 0;
    Call::Facts last_call_;
};

}  // namespace gmgate::ue
