#pragma once
// Time is injected: nothing in gmgate reads a clock it was not given.

#include <chrono>
#include <cstdint>

namespace gmgate {

// Monotonic: jumps of the wall clock change nothing (issue: timers exact and cheap).
struct Monotonic {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<Monotonic, duration>;
    static constexpr bool is_steady = true;
};
using TimePoint = Monotonic::time_point;
using Duration = Monotonic::duration;

// Any thread may read it.
class Clock {
  public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual TimePoint now() const = 0;
    // For people only (logs, Date headers, the CLI): never for a decision.
    [[nodiscard]] virtual std::chrono::system_clock::time_point wall() const = 0;
};

class SystemClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override {
        return TimePoint(std::chrono::duration_cast<Duration>(
            std::chrono::steady_clock::now().time_since_epoch()));
    }
    [[nodiscard]] std::chrono::system_clock::time_point wall() const override {
        return std::chrono::system_clock::now();
    }
};

// For tests: stands still until told.
class ManualClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override { return now_; }
    [[nodiscard]] std::chrono::system_clock::time_point wall() const override {
        return std::chrono::system_clock::time_point(
            std::chrono::duration_cast<std::chrono::system_clock::duration>(
                now_.time_since_epoch()));
    }
    void advance(Duration by) { now_ += by; }
    void set(TimePoint t) { now_ = t; }

  private:
    TimePoint now_{std::chrono::hours(1)};
};

}  // namespace gmgate
