#pragma once
// The lifecycle of an SA set as data: one table, state × event → next state and actions, with the
// SPEC id of the rule.
//
// SaDatabase executes it; nobody else changes a state. Every way out releases everything (checked
// when this header compiles and by tests/unit/sa).

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gmgate::sa {

enum class State : std::uint8_t {
    reserved,      // numbers taken at SM5, nothing in the packet layer yet
    installing,    // the packet layer is asked to take the four SAs
    registration,  // live, the authentication is not complete: "registration SAs"
    established,   // of a completed authentication; the only set, or an old one that still carries
                   // traffic
    draining,      // switched away from: pending transactions finish on it
    removed,       // everything released; the object is about to go
};
inline constexpr std::size_t state_count = 6;

// What can happen to a set. The event that removes a set is also the reason given to observers.
enum class Event : std::uint8_t {
    // the procedure, SM1 to SM12
    sm1_accepted,          // B1: a new REGISTER of the same user passed C6
    challenge,             // B2: SM5 is there, install
    install_ok,            // B2: live in both directions
    install_failed,        // C12
    sm6_sent,              // B2: the challenge is on its way: reg-await-auth runs from here
    sm7_ok,                // B4: SM7 passed its checks
    auth_ok,               // B5: 200 for SM7
    auth_rejected,         // C2: the S-CSCF refused the response (403)
    network_auth_failure,  // C3: REGISTER with an empty response and no auts
    sync_failure,          // C4: REGISTER with auts
    consistency_failure,   // C8: Security-Verify or Security-Client does not match
    first_packet_refused,  // B6: address check of the first protected REGISTER failed
    core_failure,          // C11: the core is unreachable, slow or answers 5xx
    reg_await_timeout,     // C5
    superseded,            // B3: a newer challenge of the same user
    aborted,               // C11, C12: we gave the procedure up before SM6 left
    integrity_failure,     // C1: forged packet; a set never dies of it
    wrong_user,            // B7: a message on a set that is not its user's
    // later life
    in_use,                // D2: a message other than SM7 came on the new inbound SA
    switched_away,         // D2: outbound moved to a newer set
    refreshed,             // D3: 200 to a re-REGISTER without a challenge
    drained,               // D2: no transaction is pending on it any more
    drain_timeout,         // D2: 64·T1 after the switch
    lifetime_expired,      // B5
    replaced_unprotected,  // D1: SM12 of a registration whose SM1 came in clear
    replaced_protected,    // D2: SM12 of a registration whose SM1 came on another old set
    address_changed,       // D5: SM12 of a registration from a new address
    deregistering,         // D4: all IMPUs gone; the 200 or NOTIFY still has to leave on it
    deregistered,          // D4: and has left
    sequence_near_end,     // D7
    // from outside
    backend_lost,           // the packet layer lost the set (its worker or device died)
    operator_removed,       // by hand
    shutdown,               // the gateway ends
    restored_registration,  // from a snapshot, after install
    restored_established,
    restored_draining,
};
inline constexpr std::size_t event_count = 36;

// What has to be done on a transition. Bits.
enum Action : std::uint16_t {
    no_action = 0,
    install = 1U << 0U,         // ask the backend for all four SAs
    remove_backend = 1U << 1U,  // take them out of the packet layer
    release_spis = 1U << 2U,    // into quarantine
    release_ports = 1U << 3U,   // the tuples (UE IP, UE port, our port)
    wipe_keys = 1U << 4U,
    stop_timer = 1U << 5U,
    start_reg_await = 1U << 6U,  // Timers::reg_await_auth
    start_lifetime = 1U << 7U,   // until lifetime_end
    start_drain = 1U << 8U,      // Timers::drain, never beyond lifetime_end
    publish = 1U << 9U,          // a change event for replication
};
using Actions = std::uint16_t;

// The four that every exit must do, and the one more if the packet layer holds the set.
inline constexpr Actions release_all = release_spis | release_ports | wipe_keys | stop_timer;

enum class Verdict : std::uint8_t {
    move,     // next state and actions apply
    stay,     // legal, and by the rule nothing happens
    illegal,  // a fault of the caller: refused and counted
};

struct Transition {
    Verdict verdict = Verdict::illegal;
    State next = State::removed;
    Actions actions = no_action;
    std::string_view spec;  // the SPEC id behind it
};

[[nodiscard]] std::string_view name(State state);
[[nodiscard]] std::string_view name(Event event);

// Does the packet layer hold the set in this state?
[[nodiscard]] constexpr bool in_backend(State s) {
    return s == State::registration || s == State::established || s == State::draining;
}

namespace detail {

struct Cell {
    Verdict verdict;
    State next;
    Actions actions;
};

// One event: its cells for reserved, installing, registration, established, draining.
struct Row {
    Event event;
    std::string_view spec;
    std::array<Cell, state_count - 1> cells;
};

// Short names, so that the table reads as a table.
inline constexpr Cell bad{Verdict::illegal, State::removed, no_action};
inline constexpr Cell stay{Verdict::stay, State::removed, no_action};
inline constexpr Cell drop{Verdict::move, State::removed,
                           release_all};  // never in the packet layer
inline constexpr Cell gone{Verdict::move, State::removed, release_all | remove_backend | publish};
inline constexpr Cell inst{Verdict::move, State::installing, install};
inline constexpr Cell live{Verdict::move, State::registration, start_reg_await | publish};
inline constexpr Cell wait{Verdict::move, State::registration, start_reg_await};
inline constexpr Cell estb{Verdict::move, State::established, start_lifetime | publish};
inline constexpr Cell dran{Verdict::move, State::draining, start_drain | publish};

// clang-format off
inline constexpr std::array<Row, event_count> rows{{
    //                                       reserved inst. regist. estab. draining
    {Event::sm1_accepted,           "B1",  {stay, stay, stay, stay, stay}},
    {Event::challenge,              "B2",  {inst, bad,  bad,  bad,  bad}},
    {Event::install_ok,             "B2",  {bad,  live, bad,  bad,  bad}},
    {Event::install_failed,         "C12", {bad,  drop, bad,  bad,  bad}},
    {Event::sm6_sent,               "B2",  {bad,  bad,  wait, bad,  bad}},
    {Event::sm7_ok,                 "B4",  {bad,  bad,  stay, bad,  bad}},
    {Event::auth_ok,                "B5",  {bad,  bad,  estb, bad,  bad}},
    // Failures end what is not complete and never touch an old set (C8, C9, D6).
    {Event::auth_rejected,          "C2",  {drop, drop, gone, stay, stay}},
    {Event::network_auth_failure,   "C3",  {drop, drop, gone, stay, stay}},
    {Event::sync_failure,           "C4",  {drop, drop, gone, stay, stay}},
    {Event::consistency_failure,    "C8",  {drop, drop, gone, stay, stay}},
    {Event::first_packet_refused,   "B6",  {drop, drop, gone, stay, stay}},
    {Event::core_failure,           "C11", {stay, stay, stay, stay, stay}},
    {Event::reg_await_timeout,      "C5",  {drop, drop, gone, bad,  bad}},
    {Event::superseded,             "B3",  {drop, drop, gone, stay, stay}},
    {Event::aborted,                "C12", {drop, drop, gone, stay, stay}},
    {Event::integrity_failure,      "C1",  {stay, stay, stay, stay, stay}},
    {Event::wrong_user,             "B7",  {stay, stay, stay, stay, stay}},
    {Event::in_use,                 "D2",  {bad,  bad,  bad,  stay, stay}},
    {Event::switched_away,          "D2",  {bad,  bad,  bad,  dran, stay}},
    {Event::refreshed,              "D3",  {bad,  bad,  bad,  estb, stay}},
    {Event::drained,                "D2",  {bad,  bad,  bad,  bad,  gone}},
    {Event::drain_timeout,          "D2",  {bad,  bad,  bad,  bad,  gone}},
    {Event::lifetime_expired,       "B5",  {bad,  bad,  bad,  gone, gone}},
    {Event::replaced_unprotected,   "D1",  {drop, drop, gone, gone, gone}},
    {Event::replaced_protected,     "D2",  {drop, drop, gone, gone, gone}},
    {Event::address_changed,        "D5",  {drop, drop, gone, gone, gone}},
    {Event::deregistering,          "D4",  {drop, drop, gone, dran, stay}},
    {Event::deregistered,           "D4",  {drop, drop, gone, gone, gone}},
    {Event::sequence_near_end,      "D7",  {stay, stay, gone, dran, stay}},
    {Event::backend_lost,           "C12", {drop, drop, gone, gone, gone}},
    {Event::operator_removed,       "D4",  {drop, drop, gone, gone, gone}},
    {Event::shutdown,               "S1",  {drop, drop, gone, gone, gone}},
    {Event::restored_registration,  "B2",  {bad,  live, bad,  bad,  bad}},
    {Event::restored_established,   "B5",  {bad,  estb, bad,  bad,  bad}},
    {Event::restored_draining,      "D2",  {bad,  dran, bad,  bad,  bad}},
}};
// clang-format on

consteval std::array<std::array<Transition, event_count>, state_count> build() {
    std::array<std::array<Transition, event_count>, state_count> table{};
    for (const Row& row : rows) {
        const auto e = static_cast<std::size_t>(row.event);
        for (std::size_t s = 0; s < row.cells.size(); ++s) {
            const Cell& c = row.cells[s];
            table[s][e] =
                Transition{c.verdict, c.verdict == Verdict::stay ? static_cast<State>(s) : c.next,
                           c.actions, row.spec};
        }
        // Nothing happens to what is removed.
        table[static_cast<std::size_t>(State::removed)][e] =
            Transition{Verdict::illegal, State::removed, no_action, row.spec};
    }
    return table;
}

}  // namespace detail

inline constexpr auto lifecycle = detail::build();

[[nodiscard]] constexpr const Transition& transition(State state, Event event) {
    return lifecycle[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
}

namespace detail {
consteval bool every_row_in_its_place() {
    for (std::size_t e = 0; e < event_count; ++e) {
        if (rows[e].event != static_cast<Event>(e)) return false;
    }
    return true;
}
consteval bool every_exit_releases_everything() {
    for (std::size_t s = 0; s < state_count; ++s) {
        for (const Transition& t : lifecycle[s]) {
            if (t.verdict != Verdict::move || t.next != State::removed) continue;
            if ((t.actions & release_all) != release_all) return false;
            if (((t.actions & remove_backend) != 0) != in_backend(static_cast<State>(s)))
                return false;
        }
    }
    return true;
}
}  // namespace detail
static_assert(detail::every_row_in_its_place());
static_assert(detail::every_exit_releases_everything());

}  // namespace gmgate::sa
