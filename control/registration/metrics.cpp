#include "control/registration/metrics.h"

#include <chrono>
#include <string>
#include <vector>

namespace gmgate::registration {
namespace {

constexpr std::array<std::string_view, 15> method_names{
    "REGISTER", "INVITE",  "ACK",   "BYE",    "CANCEL", "OPTIONS", "MESSAGE", "SUBSCRIBE",
    "NOTIFY",   "PUBLISH", "PRACK", "UPDATE", "INFO",   "REFER",   "other"};
constexpr std::array<std::string_view, 3> side_names{"gm_clear", "gm_protected", "core"};

// Half a millisecond to the life of an unanswered transaction.
std::vector<double> bounds() {
    return {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 32};
}

double seconds(Duration d) {
    return std::chrono::duration<double>(d).count();
}

}  // namespace

GatewayMetrics::GatewayMetrics(metrics::Registry& registry)
    : challenge_seconds_(registry.histogram("gmgate_registration_challenge_seconds",
                                            "Time from SM1's arrival to SM6's departure.",
                                            bounds())),
      answer_seconds_(registry.histogram("gmgate_registration_answer_seconds",
                                         "Time from SM7's arrival to SM12's departure.", bounds())),
      pending_(
          registry.gauge("gmgate_registrations_pending", "Registration procedures under way.")),
      registered_(registry.gauge("gmgate_registered_users", "Users with a live registration.")),
      proxied_(registry.gauge("gmgate_proxied_requests_pending", "Proxied requests under way.")),
      dialogs_(registry.gauge("gmgate_dialogs", "Sessions (INVITE dialogs) that run through us.")),
      emergency_calls_(
          registry.gauge("gmgate_emergency_calls",
                         "Emergency calls of phones that are not registered, under way.")),
      emergency_calls_begun_(
          registry.counter("gmgate_emergency_calls_total",
                           "Emergency calls of phones that are not registered, sent on.")),
      sessions_released_(registry.counter(
          "gmgate_sessions_released_total",
          "Sessions and calls under way ended because the user's registration or SAs were gone.")),
      core_reachable_(registry.gauge("gmgate_core_reachable",
                                     "1: the home network answered last, or nothing was asked yet; "
                                     "0: the latest REGISTER to it was not answered.")) {
    core_reachable_.set(1);
    for (std::size_t side = 0; side < side_names.size(); ++side) {
        for (std::size_t m = 0; m < method_names.size(); ++m) {
            requests_[side][m] =
                &registry.counter("gmgate_sip_requests_total", "SIP requests received.",
                                  {{"side", std::string(side_names[side])},
                                   {"method", std::string(method_names[m])}});
        }
        for (std::size_t c = 1; c < 7; ++c) {
            responses_[side][c] = &registry.counter(
                "gmgate_sip_responses_total", "SIP responses received.",
                {{"side", std::string(side_names[side])}, {"class", std::to_string(c) + "xx"}});
        }
    }
    ended_[0] =
        &registry.counter("gmgate_registrations_total", "Registrations that ended, by reason.",
                          {{"result", "success"}, {"reason", "ok"}});
    // Every series exists from the start: rate() of one that appears with its first event misses
    // it.
    for (std::size_t i = 1; i < reason_count; ++i) {
        const std::string reason(name(static_cast<Reason>(i)));
        const Scope scope = info(static_cast<Reason>(i)).scope;
        if (scope == Scope::registration) {
            ended_[i] = &registry.counter("gmgate_registrations_total",
                                          "Registrations that ended, by reason.",
                                          {{"result", "failure"}, {"reason", reason}});
        }
        if (scope == Scope::event) continue;
        drops_[i] = &registry.counter("gmgate_registration_drops_total",
                                      "SIP messages refused or discarded.", {{"reason", reason}});
    }
}

void GatewayMetrics::request(Side side, std::string_view method) {
    std::size_t m = 0;
    while (m + 1 < method_names.size() && method_names[m] != method) ++m;
    requests_[static_cast<std::size_t>(side)][m]->add();
}

void GatewayMetrics::response(Side side, int status) {
    const auto c = static_cast<std::size_t>(status / 100);
    if (c >= 1 && c <= 6) responses_[static_cast<std::size_t>(side)][c]->add();
}

void GatewayMetrics::procedure_ended(Reason reason) {
    if (auto* counter = ended_[static_cast<std::size_t>(reason)]) counter->add();
}

void GatewayMetrics::drop(Reason reason) {
    if (auto* counter = drops_[static_cast<std::size_t>(reason)]) counter->add();
}

void GatewayMetrics::challenged(Duration d) {
    challenge_seconds_.observe(seconds(d));
}
void GatewayMetrics::answered(Duration d) {
    answer_seconds_.observe(seconds(d));
}

}  // namespace gmgate::registration
