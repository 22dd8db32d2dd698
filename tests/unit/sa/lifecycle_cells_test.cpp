// Every state × every event, on a real set in a real database: what becomes of the set, its
// numbers, its timer, its keys, the packet layer and the replica.
//
// What must come out is written here by hand from the rules, state by state, and knows nothing of
// the table in sa/lifecycle.h. The switches have no default: a new event or state that nobody
// thought about does not compile.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tests/support/sa_fixture.h"

namespace gmgate::sa {
namespace {

using namespace std::chrono_literals;
using test::SaFixture;

// What the world sees of an event.
enum class Outcome : std::uint8_t {
    refused,    // a fault of the caller: an error value, a counter, and nothing else
    nothing,    // legal, and everything stays: state, numbers, timer, packet layer
    installed,  // live in the packet layer, waits for SM7: ends at reg-await-auth from now
    rewaits,    // still waits for SM7: reg-await-auth starts again
    completed,  // established: ends at its lifetime
    drains,     // ends at the drain time from now, or its lifetime if that is sooner
    quiet_end,  // gone; was never in the packet layer, no replica heard of it
    end,        // gone, also from the packet layer; replicas are told
    not_live,   // the packet layer refused: gone, no replica heard of it
};

struct Cell {
    Outcome outcome;
    std::string_view rule;
};

using enum Outcome;

// clang-format off
// SM5 has come, numbers are taken; no phone knows them yet.
constexpr Cell reserved(Event e) {
    switch (e) {
        case Event::sm1_accepted: return {nothing, "B3"};  // a challenge replaces, not an SM1
        case Event::challenge: return {installed, "B2"};
        case Event::install_ok: return {refused, "B2"};  // nothing was asked for
        case Event::install_failed: return {refused, "C12"};
        case Event::sm6_sent: return {refused, "B2"};  // SAs are live before SM6 leaves
        case Event::sm7_ok: return {refused, "B4"};
        case Event::auth_ok: return {refused, "B5"};
        case Event::auth_rejected: return {quiet_end, "C2"};
        case Event::network_auth_failure: return {quiet_end, "C3"};
        case Event::sync_failure: return {quiet_end, "C4"};
        case Event::consistency_failure: return {quiet_end, "C8"};
        case Event::first_packet_refused: return {quiet_end, "B6"};
        case Event::core_failure: return {nothing, "C11"};  // C5 ends it
        case Event::reg_await_timeout: return {quiet_end, "C5"};
        case Event::superseded: return {quiet_end, "B3"};
        case Event::aborted: return {quiet_end, "C12"};
        case Event::integrity_failure: return {nothing, "C1"};
        case Event::wrong_user: return {nothing, "B7"};
        case Event::in_use: return {refused, "D2"};  // no packet can have come on it
        case Event::switched_away: return {refused, "D2"};
        case Event::refreshed: return {refused, "D3"};
        case Event::drained: return {refused, "D2"};
        case Event::drain_timeout: return {refused, "D2"};
        case Event::lifetime_expired: return {refused, "B5"};  // it has none
        case Event::replaced_unprotected: return {quiet_end, "D1"};
        case Event::replaced_protected: return {quiet_end, "D2"};
        case Event::address_changed: return {quiet_end, "D5"};
        case Event::deregistering: return {quiet_end, "D4"};  // no last message leaves on it
        case Event::deregistered: return {quiet_end, "D4"};
        case Event::sequence_near_end: return {nothing, "D7"};  // no packet, no number
        case Event::backend_lost: return {quiet_end, "C12"};
        case Event::operator_removed: return {quiet_end, "S1"};
        case Event::shutdown: return {quiet_end, "S1"};
        case Event::restored_registration: return {refused, "B2"};
        case Event::restored_established: return {refused, "B5"};
        case Event::restored_draining: return {refused, "D2"};
    }
    std::unreachable();
}

// The packet layer is being asked; what comes now comes from within that call.
constexpr Cell installing(Event e) {
    switch (e) {
        case Event::sm1_accepted: return {nothing, "B3"};
        case Event::challenge: return {refused, "B2"};  // asked twice
        case Event::install_ok: return {installed, "B2"};
        case Event::install_failed: return {not_live, "C12"};
        case Event::sm6_sent: return {refused, "B2"};
        case Event::sm7_ok: return {refused, "B4"};
        case Event::auth_ok: return {refused, "B5"};
        case Event::auth_rejected: return {quiet_end, "C2"};
        case Event::network_auth_failure: return {quiet_end, "C3"};
        case Event::sync_failure: return {quiet_end, "C4"};
        case Event::consistency_failure: return {quiet_end, "C8"};
        case Event::first_packet_refused: return {quiet_end, "B6"};
        case Event::core_failure: return {nothing, "C11"};
        case Event::reg_await_timeout: return {quiet_end, "C5"};
        case Event::superseded: return {quiet_end, "B3"};
        case Event::aborted: return {quiet_end, "C12"};
        case Event::integrity_failure: return {nothing, "C1"};
        case Event::wrong_user: return {nothing, "B7"};
        case Event::in_use: return {refused, "D2"};
        case Event::switched_away: return {refused, "D2"};
        case Event::refreshed: return {refused, "D3"};
        case Event::drained: return {refused, "D2"};
        case Event::drain_timeout: return {refused, "D2"};
        case Event::lifetime_expired: return {refused, "B5"};
        case Event::replaced_unprotected: return {quiet_end, "D1"};
        case Event::replaced_protected: return {quiet_end, "D2"};
        case Event::address_changed: return {quiet_end, "D5"};
        case Event::deregistering: return {quiet_end, "D4"};
        case Event::deregistered: return {quiet_end, "D4"};
        case Event::sequence_near_end: return {nothing, "D7"};
        case Event::backend_lost: return {quiet_end, "C12"};
        case Event::operator_removed: return {quiet_end, "S1"};
        case Event::shutdown: return {quiet_end, "S1"};
        case Event::restored_registration: return {installed, "B2"};
        case Event::restored_established: return {completed, "B5"};
        case Event::restored_draining: return {drains, "D2"};
    }
    std::unreachable();
}

// Live, SM6 left or leaves; SM7 may come.
constexpr Cell registration(Event e) {
    switch (e) {
        case Event::sm1_accepted: return {nothing, "B3"};
        case Event::challenge: return {refused, "B2"};
        case Event::install_ok: return {refused, "B2"};
        case Event::install_failed: return {refused, "C12"};  // it is live: too late to say so
        case Event::sm6_sent: return {rewaits, "B2"};
        case Event::sm7_ok: return {nothing, "B4"};  // only the S-CSCF's 200 completes it
        case Event::auth_ok: return {completed, "B5"};
        case Event::auth_rejected: return {end, "C2"};
        case Event::network_auth_failure: return {end, "C3"};
        case Event::sync_failure: return {end, "C4"};
        case Event::consistency_failure: return {end, "C8"};
        case Event::first_packet_refused: return {end, "B6"};
        case Event::core_failure: return {nothing, "C11"};
        case Event::reg_await_timeout: return {end, "C5"};
        case Event::superseded: return {end, "B3"};
        case Event::aborted: return {end, "C12"};
        case Event::integrity_failure: return {nothing, "C1"};
        case Event::wrong_user: return {nothing, "B7"};
        case Event::in_use: return {refused, "D2"};  // a message other than SM7 is no use yet
        case Event::switched_away: return {refused, "D2"};
        case Event::refreshed: return {refused, "D3"};
        case Event::drained: return {refused, "D2"};
        case Event::drain_timeout: return {refused, "D2"};
        case Event::lifetime_expired: return {refused, "B5"};
        case Event::replaced_unprotected: return {end, "D1"};
        case Event::replaced_protected: return {end, "D2"};
        case Event::address_changed: return {end, "D5"};
        case Event::deregistering: return {end, "D4"};  // the last message leaves on an old one
        case Event::deregistered: return {end, "D4"};
        case Event::sequence_near_end: return {end, "D7"};  // 2^32 packets before SM7: an attack
        case Event::backend_lost: return {end, "C12"};
        case Event::operator_removed: return {end, "S1"};
        case Event::shutdown: return {end, "S1"};
        case Event::restored_registration: return {refused, "B2"};
        case Event::restored_established: return {refused, "B5"};
        case Event::restored_draining: return {refused, "D2"};
    }
    std::unreachable();
}

// An old set: no failure touches it (C9, D6).
constexpr Cell established(Event e) {
    switch (e) {
        case Event::sm1_accepted: return {nothing, "B3"};
        case Event::challenge: return {refused, "B2"};
        case Event::install_ok: return {refused, "B2"};
        case Event::install_failed: return {refused, "C12"};
        case Event::sm6_sent: return {refused, "B2"};
        case Event::sm7_ok: return {refused, "B4"};
        case Event::auth_ok: return {refused, "B5"};  // one authentication, one set
        case Event::auth_rejected: return {nothing, "C2"};
        case Event::network_auth_failure: return {nothing, "C3"};
        case Event::sync_failure: return {nothing, "C4"};
        case Event::consistency_failure: return {nothing, "C8"};
        case Event::first_packet_refused: return {nothing, "B6"};
        case Event::core_failure: return {nothing, "C11"};
        case Event::reg_await_timeout: return {refused, "C5"};  // it no longer waits
        case Event::superseded: return {nothing, "B3"};
        case Event::aborted: return {nothing, "C12"};
        case Event::integrity_failure: return {nothing, "C1"};
        case Event::wrong_user: return {nothing, "B7"};
        case Event::in_use: return {nothing, "D2"};  // the older ones drain, by events of theirs
        case Event::switched_away: return {drains, "D2"};
        case Event::refreshed: return {completed, "D3"};  // again, to its longer lifetime
        case Event::drained: return {refused, "D2"};
        case Event::drain_timeout: return {refused, "D2"};
        case Event::lifetime_expired: return {end, "B5"};
        case Event::replaced_unprotected: return {end, "D1"};
        case Event::replaced_protected: return {end, "D2"};
        case Event::address_changed: return {end, "D5"};
        case Event::deregistering: return {drains, "D4"};
        case Event::deregistered: return {end, "D4"};
        case Event::sequence_near_end: return {drains, "D7"};
        case Event::backend_lost: return {end, "C12"};
        case Event::operator_removed: return {end, "S1"};
        case Event::shutdown: return {end, "S1"};
        case Event::restored_registration: return {refused, "B2"};
        case Event::restored_established: return {refused, "B5"};
        case Event::restored_draining: return {refused, "D2"};
    }
    std::unreachable();
}

// Left, but what is pending finishes on it.
constexpr Cell draining(Event e) {
    switch (e) {
        case Event::sm1_accepted: return {nothing, "B3"};
        case Event::challenge: return {refused, "B2"};
        case Event::install_ok: return {refused, "B2"};
        case Event::install_failed: return {refused, "C12"};
        case Event::sm6_sent: return {refused, "B2"};
        case Event::sm7_ok: return {refused, "B4"};
        case Event::auth_ok: return {refused, "B5"};
        case Event::auth_rejected: return {nothing, "C2"};
        case Event::network_auth_failure: return {nothing, "C3"};
        case Event::sync_failure: return {nothing, "C4"};
        case Event::consistency_failure: return {nothing, "C8"};
        case Event::first_packet_refused: return {nothing, "B6"};
        case Event::core_failure: return {nothing, "C11"};
        case Event::reg_await_timeout: return {refused, "C5"};
        case Event::superseded: return {nothing, "B3"};
        case Event::aborted: return {nothing, "C12"};
        case Event::integrity_failure: return {nothing, "C1"};
        case Event::wrong_user: return {nothing, "B7"};
        case Event::in_use: return {nothing, "D2"};  // a late message does not bring it back
        case Event::switched_away: return {nothing, "D2"};
        case Event::refreshed: return {nothing, "D3"};  // the set in use is another
        case Event::drained: return {end, "D2"};
        case Event::drain_timeout: return {end, "D2"};
        case Event::lifetime_expired: return {end, "B5"};
        case Event::replaced_unprotected: return {end, "D1"};
        case Event::replaced_protected: return {end, "D2"};
        case Event::address_changed: return {end, "D5"};
        case Event::deregistering: return {nothing, "D4"};  // it drains already
        case Event::deregistered: return {end, "D4"};
        case Event::sequence_near_end: return {nothing, "D7"};
        case Event::backend_lost: return {end, "C12"};
        case Event::operator_removed: return {end, "S1"};
        case Event::shutdown: return {end, "S1"};
        case Event::restored_registration: return {refused, "B2"};
        case Event::restored_established: return {refused, "B5"};
        case Event::restored_draining: return {refused, "D2"};
    }
    std::unreachable();
}

// No number, no key, no place is left of it: whatever is said of it is a mistake.
constexpr Cell removed(Event e) {
    switch (e) {
        case Event::sm1_accepted:
        case Event::challenge:
        case Event::install_ok:
        case Event::install_failed:
        case Event::sm6_sent:
        case Event::sm7_ok:
        case Event::auth_ok:
        case Event::auth_rejected:
        case Event::network_auth_failure:
        case Event::sync_failure:
        case Event::consistency_failure:
        case Event::first_packet_refused:
        case Event::core_failure:
        case Event::reg_await_timeout:
        case Event::superseded:
        case Event::aborted:
        case Event::integrity_failure:
        case Event::wrong_user:
        case Event::in_use:
        case Event::switched_away:
        case Event::refreshed:
        case Event::drained:
        case Event::drain_timeout:
        case Event::lifetime_expired:
        case Event::replaced_unprotected:
        case Event::replaced_protected:
        case Event::address_changed:
        case Event::deregistering:
        case Event::deregistered:
        case Event::sequence_near_end:
        case Event::backend_lost:
        case Event::operator_removed:
        case Event::shutdown:
        case Event::restored_registration:
        case Event::restored_established:
        case Event::restored_draining: return {refused, "S3"};
    }
    std::unreachable();
}

constexpr Cell expected(State s, Event e) {
    switch (s) {
        case State::reserved: return reserved(e);
        case State::installing: return installing(e);
        case State::registration: return registration(e);
        case State::established: return established(e);
        case State::draining: return draining(e);
        case State::removed: return removed(e);
    }
    std::unreachable();
}

// clang-format on

constexpr Duration granted = 1h;
constexpr Duration granted_again = 2h;

// A database with a bystander of another user, and the set of one user that a cell is about.
struct Bench : SaFixture {
    // What one user's set looks like from outside.
    struct Look {
        State state{};
        std::optional<SaNumbers> numbers;
        TimePoint deadline{};
        bool in_backend = false;
        std::size_t backend_installed = 0;
        std::size_t spis_held = 0;
        std::size_t timers = 0;
        std::size_t installs = 0;
        std::size_t backend_removals = 0;
        std::int64_t illegal = 0;
        bool operator==(const Look&) const = default;
    };

    // Applies the event from within the change to `installing`: the only moment that state is seen.
    struct WhileInstalling : SetObserver {
        void on_set_state(const SaSet& s, State from) override {
            if (armed && s.state == State::installing && from == State::reserved) {
                armed = false;
                at(s.id);
            }
        }
        bool armed = false;
        std::function<void(SetId)> at;
    } while_installing;

    Bench() {
        bystander = register_ue(request("bob@home.example"));
        db->add_observer(while_installing);
    }

    [[nodiscard]] Look look() const {
        Look l;
        l.state = state(id);
        if (const SaSet* s = db->find(id)) {
            l.numbers = s->numbers;
            l.deadline = s->timer.deadline();
        }
        l.in_backend = backend.has(id);
        l.backend_installed = backend.installed();
        l.spis_held = db->spis().held();
        l.timers = wheel.size();
        l.installs = backend.install_calls();
        l.backend_removals = backend.removed_sets();
        l.illegal = static_cast<std::int64_t>(db->stats().illegal_events.value());
        return l;
    }
    [[nodiscard]] std::size_t told(ChangeKind kind, std::size_t from) const {
        return static_cast<std::size_t>(std::count_if(
            recorder.changes.begin() + static_cast<std::ptrdiff_t>(from), recorder.changes.end(),
            [&](const Change& c) { return c.kind == kind && c.set == id; }));
    }

    // False: this state cannot be rested in.
    void drive_to(State s) {
        const auto r = request("alice@home.example");
        switch (s) {
            case State::reserved:
            case State::installing: {
                const auto made = db->reserve(r);
                ASSERT_TRUE(made);
                id = *made;
                break;
            }
            case State::registration:
                id = challenge(r);
                break;
            case State::established:
                id = register_ue(r, granted);
                break;
            case State::draining:
                id = register_ue(r, granted);
                ASSERT_TRUE(db->apply(id, Event::switched_away));
                break;
            case State::removed:
                id = challenge(r);
                gone = db->find(id)->numbers;
                ASSERT_TRUE(db->apply(id, Event::aborted));
                break;
        }
        if (s != State::removed) gone = db->find(id)->numbers;
        address = r.ue;
    }

    // The database's own way to say it where there is one: SM12 brings a lifetime along.
    Result<void> say(State s, Event e) {
        if (e == Event::auth_ok && s == State::registration) return establish(id, granted);
        if (e == Event::refreshed && s == State::established) {
            EstablishRequest again;
            const std::array<std::string_view, 1> impus{"sip:alice@home.example"};
            again.impus = impus;
            again.granted = granted_again;
            return db->refresh(id, again);
        }
        if (e == Event::challenge && s == State::reserved) return db->install(id);
        return db->apply(id, e);
    }

    SetId id = 0;
    SetId bystander = 0;
    SaNumbers gone;  // the numbers of the set, kept for when it is not there
    IpAddress address;
};

// Nothing of the set can be found by anybody.
void expect_no_trace(Bench& b) {
    EXPECT_EQ(b.db->find(b.id), nullptr);
    EXPECT_EQ(b.db->find_by_spi(b.gone.spi_pc), nullptr);
    EXPECT_EQ(b.db->find_by_spi(b.gone.spi_ps), nullptr);
    EXPECT_FALSE(b.db->spis().holds(b.gone.spi_pc));
    EXPECT_FALSE(b.db->spis().holds(b.gone.spi_ps));
    EXPECT_EQ(b.db->find_by_tuple(b.address, b.gone.port_uc, b.gone.port_ps), nullptr);
    EXPECT_EQ(b.db->find_by_tuple(b.address, b.gone.port_us, b.gone.port_pc), nullptr);
    EXPECT_TRUE(b.db->check_ue("carol@home.example", b.address, 4711, 4712, b.gone.port_uc, 4713));
    EXPECT_FALSE(b.backend.has(b.id));
    EXPECT_EQ(b.db->find_by_impi("alice@home.example"), nullptr) << "it was her only set";
    EXPECT_EQ(b.db->set_count(), 1U);
    EXPECT_EQ(b.db->spis().held(), 2U);
    EXPECT_EQ(b.wheel.size(), 1U);
    EXPECT_EQ(b.backend.installed(), 1U);
}

void check(Bench& b, State s, Event e, const Result<void>& said, const Bench::Look& before,
           TimePoint now, std::size_t changes) {
    const Cell want = expected(s, e);
    const Bench::Look after = b.look();
    const Timers& times = b.db->config().timers;
    // The keys are compared where the set lives, and gone where it does not (Recorder looks at
    // them in on_set_removed).
    if (const SaSet* set = b.db->find(b.id)) {
        ASSERT_NE(set->keys, nullptr);
        EXPECT_TRUE(set->keys->ck == b.ck && set->keys->ik == b.ik);
        EXPECT_TRUE(set->timer.active()) << "nothing stays for ever";
        if (after.in_backend) {
            EXPECT_TRUE(b.backend.set(b.id)->ck == b.ck && b.backend.set(b.id)->ik == b.ik);
        }
        EXPECT_EQ(after.in_backend, in_backend(set->state));
    }
    const bool heard_of_end = want.outcome == end;
    EXPECT_EQ(b.told(ChangeKind::set_removed, changes), heard_of_end ? 1U : 0U);
    switch (want.outcome) {
        case refused: {
            EXPECT_FALSE(said);
            Bench::Look same = before;
            same.illegal = after.illegal;
            EXPECT_TRUE(after == same);
            // What is said of a set that is gone is not found; else it is a counted fault.
            EXPECT_EQ(after.illegal, before.illegal + (s == State::removed ? 0 : 1));
            if (!said) {
                EXPECT_EQ(said.error().kind,
                          s == State::removed ? ErrorKind::not_found : ErrorKind::conflict);
            }
            break;
        }
        case nothing:
            EXPECT_TRUE(said);
            EXPECT_TRUE(after == before);
            EXPECT_EQ(b.recorder.changes.size(), changes);
            break;
        case installed:
            EXPECT_TRUE(said);
            EXPECT_EQ(after.state, State::registration);
            EXPECT_TRUE(after.in_backend);
            EXPECT_EQ(after.installs, before.installs + 1);
            EXPECT_EQ(after.deadline, now + times.reg_await_auth);
            EXPECT_EQ(b.told(ChangeKind::set_changed, changes), 1U);
            break;
        case rewaits:
            EXPECT_TRUE(said);
            EXPECT_EQ(after.state, State::registration);
            EXPECT_GT(after.deadline, before.deadline) << "time had passed";
            EXPECT_EQ(after.deadline, now + times.reg_await_auth);
            break;
        case completed:
            EXPECT_TRUE(said);
            EXPECT_EQ(after.state, State::established);
            EXPECT_EQ(after.deadline, now + (e == Event::refreshed ? granted_again : granted) +
                                          times.lifetime_grace);
            EXPECT_EQ(after.deadline, b.db->find(b.id)->lifetime_end);
            EXPECT_GE(b.told(ChangeKind::set_changed, changes), 1U);
            break;
        case drains:
            EXPECT_TRUE(said);
            EXPECT_EQ(after.state, State::draining);
            EXPECT_EQ(after.deadline, now + times.drain);
            EXPECT_TRUE(after.in_backend);
            EXPECT_EQ(b.told(ChangeKind::set_changed, changes), 1U);
            break;
        case quiet_end:
        case end:
            EXPECT_TRUE(said);
            expect_no_trace(b);
            ASSERT_FALSE(b.recorder.removed.empty());
            EXPECT_EQ(b.recorder.removed.back().set, b.id);
            EXPECT_EQ(b.recorder.removed.back().reason, e);
            EXPECT_EQ(after.backend_removals,
                      before.backend_removals + (want.outcome == end ? 1 : 0));
            break;
        case not_live:
            EXPECT_FALSE(said);
            expect_no_trace(b);
            EXPECT_EQ(after.backend_removals, before.backend_removals);
            break;
    }
    if (after.numbers) {
        EXPECT_TRUE(*after.numbers == b.gone) << "numbers never change";
    }
    EXPECT_EQ(b.state(b.bystander), State::established);
    EXPECT_TRUE(b.backend.has(b.bystander));
}

// The states a set rests in.
void at_rest(State s, Event e) {
    Bench b;
    b.drive_to(s);
    b.advance(5s);  // so that a timer started anew differs from one that runs on
    const auto before = b.look();
    const auto changes = b.recorder.changes.size();
    const TimePoint now = b.clock.now();
    const auto said = b.say(s, e);
    check(b, s, e, said, before, now, changes);
    if (expected(s, e).outcome == installed && s == State::reserved) {
        // Through `installing`, never past it.
        const auto& seen = b.recorder.states;
        EXPECT_TRUE(std::ranges::find(seen, std::tuple{b.id, State::reserved, State::installing}) !=
                    seen.end());
    }
}

// The state that lasts as long as one call of the packet layer.
void while_installing(State s, Event e) {
    if (e == Event::restored_registration || e == Event::restored_established ||
        e == Event::restored_draining) {
        return;  // below: these come from a snapshot
    }
    Bench b;
    b.drive_to(s);
    b.advance(5s);
    const TimePoint now = b.clock.now();
    if (e == Event::install_ok || e == Event::install_failed) {
        // The database says these itself, when the packet layer has answered.
        if (e == Event::install_failed) b.backend.fail_install(ErrorKind::exhausted);
        const auto before = b.look();
        const auto changes = b.recorder.changes.size();
        const auto said = b.db->install(b.id);
        check(b, s, e, said, before, now, changes);
        if (e == Event::install_failed) {
            EXPECT_EQ(b.recorder.removed.back().reason, Event::install_failed);
        }
        return;
    }
    std::optional<Result<void>> said;
    Bench::Look before;
    Bench::Look after;
    std::size_t changes = 0;
    b.while_installing.armed = true;
    b.while_installing.at = [&](SetId id) {
        before = b.look();
        EXPECT_EQ(before.state, State::installing);
        changes = b.recorder.changes.size();
        said = b.db->apply(id, e);
        after = b.look();
    };
    const auto install = b.db->install(b.id);
    ASSERT_TRUE(said);
    const Outcome want = expected(s, e).outcome;
    if (want == quiet_end) {
        EXPECT_FALSE(install) << "who asked for it hears that it went";
        EXPECT_EQ(b.backend.install_calls(), before.installs) << "and nothing was installed";
        check(b, s, e, *said, before, now, changes);
        return;
    }
    // Then the packet layer is asked as if nothing had been.
    EXPECT_TRUE(install);
    EXPECT_EQ(b.state(b.id), State::registration);
    EXPECT_TRUE(b.backend.has(b.id));
    Bench::Look same = before;
    same.illegal = after.illegal;
    EXPECT_TRUE(after == same);
    EXPECT_EQ(static_cast<bool>(*said), want == nothing);
    EXPECT_EQ(after.illegal, before.illegal + (want == nothing ? 0 : 1));
}

void from_snapshot(State s, Event e) {
    State was = State::registration;
    if (e == Event::restored_established) was = State::established;
    if (e == Event::restored_draining) was = State::draining;
    SecretBytes snapshot;
    SetId id = 0;
    SaNumbers numbers;
    {
        Bench from;
        from.drive_to(was);
        snapshot = from.db->serialize();
        id = from.id;
        numbers = from.gone;
    }
    Bench b;
    b.db->remove_all(Event::shutdown);
    b.recorder.changes.clear();
    b.id = id;
    b.gone = numbers;
    const auto before = b.look();
    const TimePoint now = b.clock.now();
    const auto restored = b.db->restore(snapshot, 0s);
    ASSERT_TRUE(restored) << restored.error().text;
    const SaSet* bob = nullptr;
    if (const User* u = b.db->find_by_impi("bob@home.example")) bob = b.db->find(u->sets[0]);
    ASSERT_NE(bob, nullptr);
    b.bystander = bob->id;
    EXPECT_EQ(b.backend.install_calls(), before.installs + 2);
    check(
        b, s, e, {},
        [&] {
            Bench::Look l = before;
            l.installs = b.backend.install_calls() - 1;
            return l;
        }(),
        now, 0);
}

TEST(LifecycleCells, EveryStateTimesEveryEvent) {
    std::size_t cells = 0;
    std::size_t moves = 0;
    for (const State s : {State::reserved, State::installing, State::registration,
                          State::established, State::draining, State::removed}) {
        for (std::size_t i = 0; i < event_count; ++i) {
            const auto e = static_cast<Event>(i);
            const Cell want = expected(s, e);
            SCOPED_TRACE(std::string(name(s)) + " × " + std::string(name(e)) + " (" +
                         std::string(want.rule) + ")");
            ASSERT_GE(want.rule.size(), 2U);
            if (s != State::installing) {
                at_rest(s, e);
            } else if (e == Event::restored_registration || e == Event::restored_established ||
                       e == Event::restored_draining) {
                from_snapshot(s, e);
            } else {
                while_installing(s, e);
            }
            ++cells;
            moves += want.outcome != refused && want.outcome != nothing ? 1U : 0U;
        }
    }
    std::printf("[ cells    ] %zu states × events run, %zu of them change something\n", cells,
                moves);
    EXPECT_EQ(cells, state_count * event_count);
}

// And whatever happened, what is left ends by time alone.
TEST(LifecycleCells, AfterEveryCellTimeEndsEverything) {
    for (const State s : {State::reserved, State::registration, State::established, State::draining,
                          State::removed}) {
        for (std::size_t i = 0; i < event_count; ++i) {
            const auto e = static_cast<Event>(i);
            SCOPED_TRACE(std::string(name(s)) + " × " + std::string(name(e)));
            Bench b;
            b.drive_to(s);
            (void)b.say(s, e);
            b.db->remove_user(b.db->find(b.bystander)->user, Event::operator_removed);
            b.advance(3h);
            b.expect_empty();
        }
    }
}

}  // namespace
}  // namespace gmgate::sa
