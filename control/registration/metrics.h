#pragma once
// The control plane's counters (issue: everything an operator needs to see), by Prometheus
// conventions.

#include <array>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "base/metrics.h"
#include "control/registration/reasons.h"

namespace gmgate::registration {

class GatewayMetrics {
  public:
    explicit GatewayMetrics(metrics::Registry& registry);

    enum class Side : std::uint8_t { gm_clear, gm_protected, core };
    void request(Side side, std::string_view method);
    void response(Side side, int status);
    // A registration ended; Reason::ok is success. Others than those a registration can end with
    // are not counted.
    void procedure_ended(Reason reason);
    // A message was refused or discarded.
    void drop(Reason reason);
    void challenged(Duration sm1_to_sm6);
    void answered(Duration sm7_to_sm12);
    void set_pending(std::size_t n) { pending_.set(static_cast<std::int64_t>(n)); }
    void set_registered(std::size_t n) { registered_.set(static_cast<std::int64_t>(n)); }
    void set_proxied(std::size_t n) { proxied_.set(static_cast<std::int64_t>(n)); }
    void set_dialogs(std::size_t n) { dialogs_.set(static_cast<std::int64_t>(n)); }
    void emergency_call_begun() { emergency_calls_begun_.add(); }
    void set_emergency_calls(std::size_t n) { emergency_calls_.set(static_cast<std::int64_t>(n)); }
    // A session or an INVITE was ended in a user's place.
    void session_released() { sessions_released_.add(); }
    void set_core_reachable(bool yes) { core_reachable_.set(yes ? 1 : 0); }
    [[nodiscard]] std::uint64_t drops(Reason reason) const {
        const auto* c = drops_[static_cast<std::size_t>(reason)];
        return c == nullptr ? 0 : c->value();
    }

  private:
    static constexpr std::size_t methods = 15;
    std::array<std::array<metrics::Counter*, methods>, 3> requests_{};
    std::array<std::array<metrics::Counter*, 7>, 3> responses_{};
    // nullptr: it is never said of one (Scope).
    std::array<metrics::Counter*, reason_count> ended_{};
    std::array<metrics::Counter*, reason_count> drops_{};
    metrics::Histogram& challenge_seconds_;
    metrics::Histogram& answer_seconds_;
    metrics::Gauge& pending_;
    metrics::Gauge& registered_;
    metrics::Gauge& proxied_;
    metrics::Gauge& dialogs_;
    metrics::Gauge& emergency_calls_;
    metrics::Counter& emergency_calls_begun_;
    metrics::Counter& sessions_released_;
    metrics::Gauge& core_reachable_;
};

}  // namespace gmgate::registration
