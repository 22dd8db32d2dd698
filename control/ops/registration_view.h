#pragma once
// Registrations, their traces, and the control plane's drops as the operator's API sees them.

#include "base/clock.h"
#include "control/ops/views.h"
#include "control/registration/gateway.h"

namespace gmgate::sa {
class SaDatabase;
}

namespace gmgate::ops {

// All three references outlive the view. Control thread.
class GatewayView final : public RegistrationView, public TraceView, public FailureView {
  public:
    GatewayView(const registration::Gateway& gateway, const sa::SaDatabase& database,
                const Clock& clock)
        : gateway_(gateway), database_(database), clock_(clock) {}

    Cursor scan(const Query& query, Cursor cursor, std::size_t budget,
                const std::function<void(const RegistrationRow&)>& visit) const override;
    [[nodiscard]] std::vector<std::string> states() const override;
    [[nodiscard]] std::size_t registered() const override { return gateway_.registered(); }
    [[nodiscard]] std::size_t pending() const override { return gateway_.pending(); }
    [[nodiscard]] std::vector<TraceStep> steps(std::string_view impi) const override;
    [[nodiscard]] std::vector<TraceStep> steps(
        const std::vector<std::string>& impis) const override;

    [[nodiscard]] std::vector<FailureTotal> failure_totals() const override;
    [[nodiscard]] std::vector<FailureRow> latest_failures(
        std::size_t limit, const std::optional<std::string>& reason,
        const std::optional<std::string>& impi) const override;
    [[nodiscard]] bool is_reason(std::string_view word) const override;

    // Refused and discarded messages by reason, zeros left out. For Views::drops.
    [[nodiscard]] std::vector<DropCount> drops() const;

  private:
    struct NumberedStep {
        std::uint64_t number;  // in the order in which they happened
        TraceStep step;
    };
    [[nodiscard]] std::vector<NumberedStep> ladders(std::string_view impi) const;
    // The steps of one registration; begun: its SM1 is known.
    void add_ladder(const std::vector<const registration::NumberedRecord*>& ladder, bool begun,
                    std::vector<NumberedStep>& out) const;
    [[nodiscard]] FailureRow failure_row(const registration::FailureRecord& r) const;

    const registration::Gateway& gateway_;
    const sa::SaDatabase& database_;
    const Clock& clock_;
};

// Sessions, as the proxy knows them. The gateway outlives the view. Control thread.
class GatewayCalls final : public CallView {
  public:
    explicit GatewayCalls(const registration::Gateway& gateway) : gateway_(gateway) {}
    Cursor scan(Cursor cursor, std::size_t budget,
                const std::function<void(const CallRow&)>& visit) const override;

  private:
    const registration::Gateway& gateway_;
};

// The component "core" of the health: what became of the REGISTERs sent to the home network.
[[nodiscard]] HealthItem core_health(const registration::CoreHealth& core, TimePoint now);

}  // namespace gmgate::ops
