#include "sa/lifecycle.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace gmgate::sa {
namespace {

constexpr std::array all_states{State::reserved,    State::installing, State::registration,
                                State::established, State::draining,   State::removed};

TEST(Lifecycle, EveryPairHasARowWithItsRule) {
    for (const State s : all_states) {
        for (std::size_t e = 0; e < event_count; ++e) {
            const Transition& t = transition(s, static_cast<Event>(e));
            ASSERT_FALSE(t.spec.empty()) << name(s) << " × " << name(static_cast<Event>(e));
            // An id of SPEC: a letter and a number.
            EXPECT_TRUE(std::string("ABCDEFNS").find(t.spec[0]) != std::string::npos &&
                        t.spec.size() >= 2);
            if (t.verdict == Verdict::illegal || t.verdict == Verdict::stay) {
                EXPECT_EQ(t.actions, no_action);
            }
            if (t.verdict == Verdict::stay) {
                EXPECT_EQ(t.next, s);
            }
        }
    }
}

TEST(Lifecycle, NamesAreThereAndDifferent) {
    std::set<std::string_view> names;
    for (const State s : all_states) EXPECT_TRUE(names.insert(name(s)).second);
    for (std::size_t e = 0; e < event_count; ++e) {
        EXPECT_TRUE(names.insert(name(static_cast<Event>(e))).second);
        EXPECT_FALSE(name(static_cast<Event>(e)).empty());
    }
    EXPECT_EQ(name(Event::restored_draining), "restored_draining");
    EXPECT_EQ(name(Event::deregistered), "deregistered");
}

TEST(Lifecycle, EveryWayOutReleasesEverything) {
    int exits = 0;
    for (const State s : all_states) {
        for (std::size_t e = 0; e < event_count; ++e) {
            const Transition& t = transition(s, static_cast<Event>(e));
            if (t.verdict != Verdict::move || t.next != State::removed) continue;
            ++exits;
            SCOPED_TRACE(std::string(name(s)) + " × " + std::string(name(static_cast<Event>(e))));
            for (const Action a : {release_spis, release_ports, wipe_keys, stop_timer})
                EXPECT_TRUE(t.actions & a);
            EXPECT_EQ((t.actions & remove_backend) != 0, in_backend(s));
            EXPECT_EQ((t.actions & publish) != 0, in_backend(s));
            EXPECT_FALSE(t.actions & (start_reg_await | start_lifetime | start_drain | install));
        }
    }
    EXPECT_GT(exits, 50);
}

TEST(Lifecycle, EveryLiveStateHasATimerAndAWayOut) {
    // Entering a state starts a timer; the timer's event leads out: nothing can stay for ever.
    for (const State s : all_states) {
        for (std::size_t e = 0; e < event_count; ++e) {
            const Transition& t = transition(s, static_cast<Event>(e));
            if (t.verdict != Verdict::move || !in_backend(t.next)) continue;
            EXPECT_TRUE(t.actions & (start_reg_await | start_lifetime | start_drain))
                << name(s) << " × " << name(static_cast<Event>(e));
        }
    }
    for (const State s : {State::reserved, State::installing, State::registration}) {
        EXPECT_EQ(transition(s, Event::reg_await_timeout).next, State::removed);
        EXPECT_EQ(transition(s, Event::reg_await_timeout).verdict, Verdict::move);
    }
    for (const State s : {State::established, State::draining}) {
        EXPECT_EQ(transition(s, Event::lifetime_expired).verdict, Verdict::move);
        EXPECT_EQ(transition(s, Event::lifetime_expired).next, State::removed);
    }
    EXPECT_EQ(transition(State::draining, Event::drain_timeout).next, State::removed);
    // And whatever the state, the gateway can end it.
    for (const State s : all_states) {
        if (s == State::removed) continue;
        for (const Event e :
             {Event::shutdown, Event::operator_removed, Event::backend_lost, Event::deregistered}) {
            EXPECT_EQ(transition(s, e).verdict, Verdict::move);
            EXPECT_EQ(transition(s, e).next, State::removed);
        }
    }
}

TEST(Lifecycle, AFailureNeverTouchesAnOldSet) {  // C8, C9, D6
    for (const Event e : {Event::auth_rejected, Event::network_auth_failure, Event::sync_failure,
                          Event::consistency_failure, Event::first_packet_refused,
                          Event::core_failure, Event::superseded, Event::aborted,
                          Event::integrity_failure, Event::wrong_user, Event::sm1_accepted}) {
        for (const State s : {State::established, State::draining}) {
            EXPECT_EQ(transition(s, e).verdict, Verdict::stay) << name(e);
        }
    }
}

TEST(Lifecycle, AForgedPacketEndsNothing) {  // C1
    for (const State s : all_states) {
        if (s != State::removed) {
            EXPECT_EQ(transition(s, Event::integrity_failure).verdict, Verdict::stay);
        }
    }
}

TEST(Lifecycle, OnlyAuthenticationEstablishes) {
    for (const State s : all_states) {
        for (std::size_t e = 0; e < event_count; ++e) {
            const Transition& t = transition(s, static_cast<Event>(e));
            if (t.verdict != Verdict::move || t.next != State::established ||
                s == State::established)
                continue;
            EXPECT_TRUE(
                (s == State::registration && static_cast<Event>(e) == Event::auth_ok) ||
                (s == State::installing && static_cast<Event>(e) == Event::restored_established))
                << name(s) << " × " << name(static_cast<Event>(e));
        }
    }
}

TEST(Lifecycle, NothingHappensAfterTheEnd) {
    for (std::size_t e = 0; e < event_count; ++e) {
        EXPECT_EQ(transition(State::removed, static_cast<Event>(e)).verdict, Verdict::illegal);
    }
}

}  // namespace
}  // namespace gmgate::sa
