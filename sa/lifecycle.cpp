#include "sa/lifecycle.h"

namespace gmgate::sa {

std::string_view name(State state) {
    static constexpr std::array<std::string_view, state_count> names{
        "reserved", "installing", "registration", "established", "draining", "removed"};
    return names[static_cast<std::size_t>(state)];
}

std::string_view name(Event event) {
    static constexpr std::array<std::string_view, event_count> names{
        "sm1_accepted",
        "challenge",
        "install_ok",
        "install_failed",
        "sm6_sent",
        "sm7_ok",
        "auth_ok",
        "auth_rejected",
        "network_auth_failure",
        "sync_failure",
        "consistency_failure",
        "first_packet_refused",
        "core_failure",
        "reg_await_timeout",
        "superseded",
        "aborted",
        "integrity_failure",
        "wrong_user",
        "in_use",
        "switched_away",
        "refreshed",
        "drained",
        "drain_timeout",
        "lifetime_expired",
        "replaced_unprotected",
        "replaced_protected",
        "address_changed",
        "deregistering",
        "deregistered",
        "sequence_near_end",
        "backend_lost",
        "operator_removed",
        "shutdown",
        "restored_registration",
        "restored_established",
        "restored_draining",
    };
    return names[static_cast<std::size_t>(event)];
}

}  // namespace gmgate::sa
