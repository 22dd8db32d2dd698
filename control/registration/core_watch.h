#pragma once
// Does the home network answer? Told from what happens to the REGISTERs we send it, never by a
// probe of its own. One thread (the control thread).

#include <cstdint>

#include "base/clock.h"
#include "control/registration/reasons.h"

namespace gmgate::registration {

struct CoreHealth {
    std::uint64_t answers = 0;         // responses of any kind, since the start
    std::uint64_t failures = 0;        // REGISTERs that could not be sent or were not answered
    std::uint64_t failures_since = 0;  // of those, since the last answer
    std::uint64_t errors_since = 0;    // final 5xx, 6xx since the last other answer to a REGISTER
    TimePoint last_answer{};           // meaningful if answers > 0
    TimePoint silent_since{};          // first failure since the last answer
    std::uint16_t last_error = 0;      // status of the latest final 5xx, 6xx
    Reason last_failure = Reason::ok;  // core_unreachable or core_timeout

    // The latest thing heard of the core is that it is silent.
    [[nodiscard]] bool unreachable() const { return failures_since > 0; }
};

class CoreWatch {
  public:
    // Any response of the core, also a provisional one.
    void answered(TimePoint now) {
        ++health_.answers;
        health_.last_answer = now;
        health_.failures_since = 0;
    }
    // A final response to a REGISTER (after answered()).
    void register_answered(int status) {
        if (status < 500) {
            health_.errors_since = 0;
            return;
        }
        ++health_.errors_since;
        health_.last_error = static_cast<std::uint16_t>(status);
    }
    void register_failed(TimePoint now, Reason why) {
        if (health_.failures_since == 0) health_.silent_since = now;
        ++health_.failures;
        ++health_.failures_since;
        health_.last_failure = why;
    }
    [[nodiscard]] const CoreHealth& health() const { return health_; }

  private:
    CoreHealth health_;
};

}  // namespace gmgate::registration
