#pragma once
// The failed registrations of all users: the latest of each reason for `gmctl reg failures`, and
// one log line for each, bounded.
//
// Nothing here holds more of a stranger's message than the private identity it names, cut and
// escaped, so no key can get in (S1). One thread (the control thread).

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/timer_wheel.h"
#include "control/registration/limiter.h"
#include "control/registration/reasons.h"

namespace gmgate::registration {

// One failed registration.
struct FailureRecord {
    TimePoint time{};
    std::uint64_t number = 0;  // counts all failures since the start, from 1
    Reason reason = Reason::ok;
    std::uint16_t status = 0;  // what was answered; 0: nothing
    IpAddress source;
    std::uint16_t source_port = 0;  // 0: not known
    std::array<char, 80> impi{};    // cut; zero-filled; "" if it was not known

    [[nodiscard]] std::string_view impi_text() const;
    // Is this the record of that private identity, as far as it was kept?
    [[nodiscard]] bool is_of(std::string_view whole_impi) const;
};

// A ring of fixed size for each reason, allocated with the first of its kind: a flood of one reason
// does not push out the others.
class FailureLog {
  public:
    // `per_reason` records are kept of each reason, at least 1.
    explicit FailureLog(std::size_t per_reason);
    void add(TimePoint time, Reason reason, std::uint16_t status, const Endpoint& source,
             std::string_view impi);
    // One more, of which nothing is kept.
    void count_only(Reason reason) { ++rings_[static_cast<std::size_t>(reason)].more; }

    // Newest first, at most `limit`; of one reason, and of one user, if asked for.
    [[nodiscard]] std::vector<FailureRecord> latest(std::size_t limit,
                                                    std::optional<Reason> reason = std::nullopt,
                                                    std::string_view impi = {}) const;
    struct Total {
        std::uint64_t count = 0;  // since the start
        FailureRecord last;
    };
    // What failed for this reason; nullopt: nothing did.
    [[nodiscard]] std::optional<Total> total(Reason reason) const;
    // Records added since the start.
    [[nodiscard]] std::uint64_t count() const { return next_; }

  private:
    struct Ring {
        std::vector<FailureRecord> records;
        std::uint64_t next = 0;
        std::uint64_t more = 0;
    };
    std::size_t per_reason_;
    std::array<Ring, reason_count> rings_;
    std::uint64_t next_ = 0;
};

// A stranger's text for people: at most `longest` octets of it, what is not printable ASCII, and
// quotes and backslashes, as \x.., so that it can neither end a line nor look like another one.
[[nodiscard]] std::string printable(std::string_view text, std::size_t longest = 80);

// One log line for each failed registration: what, who, what to do. At most `burst` at once and
// then `rate` a second of one reason, and ten times that of all together; what was left out is
// counted, and told in one line at the end of each period.
class FailureReporter {
  public:
    static constexpr double rate = 0.5;
    static constexpr double burst = 10;
    static constexpr Duration period = std::chrono::seconds(10);

    explicit FailureReporter(TimerWheel& timers);
    // `remark`: what more is known, without a full stop; empty: nothing.
    void report(const FailureRecord& failure, std::string_view whole_impi,
                std::string_view remark = {});
    // One more that gets no line of its own.
    void count_only(Reason reason);
    // Tells of those now, if there are any: the gateway stops, and the period will not end.
    void tell();
    [[nodiscard]] std::uint64_t suppressed() const { return suppressed_in_all_; }

  private:
    void on_period_over();

    TimerWheel& timers_;
    std::vector<TokenBucket> of_reason_;
    TokenBucket of_all_;
    std::array<std::uint64_t, reason_count> suppressed_{};
    std::uint64_t suppressed_in_all_ = 0;
    Timer timer_;
};

}  // namespace gmgate::registration
