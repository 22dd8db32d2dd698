#pragma once
// Why something did not go well: one fixed catalogue, so that log line, metric label, trace and CLI
// use the same word.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gmgate::registration {

enum class Reason : std::uint8_t {
    ok,
    // What the message itself is.
    malformed,
    unsupported_version,
    unsupported_uri,
    bad_extension,
    too_many_hops,
    loop_detected,
    unknown_transaction,
    // SM1 (B1, C6, N1, B6).
    no_authorization,
    sec_agree_missing,
    security_client_malformed,
    no_common_algorithm,
    nat_unsupported,
    via_mismatch,
    port_in_use,
    // Limits (S3) and resources (C12).
    rate_source,
    rate_total,
    rate_name,
    rate_user,
    pending_limit,
    gave_way,
    pending_source_limit,
    pending_user_limit,
    registration_limit,
    no_spi_or_port,
    install_failed,
    transaction_limit,
    dialog_limit,
    emergency_limit,
    // The challenge and the core (B2, C10, C11).
    challenge_without_keys,
    challenged_again,
    core_unreachable,
    core_timeout,
    core_error,
    core_rejected,
    // Authentication (C1–C5).
    integrity_failure,
    authentication_failed,
    network_authentication_failed,
    synchronisation_failure,
    authentication_timeout,
    superseded,
    // SM7's consistency (B4, C8).
    verify_missing,
    verify_mismatch,
    client_missing,
    client_mismatch,
    identity_mismatch,
    // Which SA carried a message (A6, B7).
    wrong_sa,
    no_sa,
    unprotected_request,
    stray_response,
    untrusted_source,
    // Requests of registered users (E2, E3).
    route_mismatch,
    unknown_flow,
    emergency_call,
    not_registered,
    ue_unreachable,
    ue_timeout,
    // Why a registration or a set ended (D).
    deregistered_by_ue,
    deregistered_by_network,
    expired,
    address_changed,
    sequence_near_end,
    shutdown,
    count_,  // not a reason
};

inline constexpr std::size_t reason_count = static_cast<std::size_t>(Reason::count_);

// What a reason is said of.
enum class Scope : std::uint8_t {
    success,       // `ok`
    registration,  // a registration can fail with it: metric, log line, trace, list of failures
    message,       // a message was refused or discarded; no registration ends by it
    event,         // told in the trace: a packet was dropped, a registration or a set ended
};

// Who has to do something, and so how loudly a failed registration is logged.
enum class Blame : std::uint8_t {
    nobody,    // the ordinary course of things, or a stranger
    phone,     // the phone, its SIM or its settings: logged as info
    operator_  // the gateway, its configuration, the core: logged as a warning
};

struct ReasonInfo {
    std::string_view name;     // the word: lower case, underscores
    std::string_view rule;     // id of the rule, "C8"; "" for ok
    std::string_view meaning;  // one sentence
    std::string_view remedy;   // what an operator can do, or that nothing need be done; "" for ok
    Scope scope = Scope::message;
    Blame blame = Blame::nobody;
};

[[nodiscard]] const ReasonInfo& info(Reason reason);
[[nodiscard]] inline std::string_view name(Reason reason) {
    return info(reason).name;
}
// The reason of that word; nullopt: there is none.
[[nodiscard]] std::optional<Reason> reason_of(std::string_view word);
// Every reason in order, `ok` first.
[[nodiscard]] const std::array<ReasonInfo, reason_count>& catalogue();

}  // namespace gmgate::registration
