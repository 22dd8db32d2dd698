// B3, B4: a challenge and what an unfinished procedure left, and SM7, over the whole gateway.
// TS 33.203 clause 7.4.1a.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

// However the two SM1 came: the SAs of the first go when the second is challenged, not before, and
// those of earlier successes stay.
TEST(B3, TheLeftOversGoWithTheNextChallenge) {
    for (const bool registered : {false, true}) {
        for (const bool first_on_the_set : {false, true}) {
            for (const bool second_on_the_set : {false, true}) {
                if (!registered && (first_on_the_set || second_on_the_set)) continue;
                SCOPED_TRACE(std::string(registered ? "registered" : "new") +
                             (first_on_the_set ? ", first on the set" : ", first in clear") +
                             (second_on_the_set ? ", second on the set" : ", second in clear"));
                World w(with_gmhome());
                Phone& p = w.phone();
                sa::SetId old = 0;
                if (registered) {
                    ASSERT_TRUE(p.register_once());
                    old = w.set_of(p.current());
                }
                p.next_ports();
                ASSERT_TRUE(p.challenged(first_on_the_set));
                const auto first = w.set_of(*p.pending);
                // In clear anybody could come in between: the phone on its set is waited for (S3).
                if (first_on_the_set && !second_on_the_set) w.advance(33s);
                std::optional<bool> at_sm2;
                w.lose = [&](const Wire& wire) {
                    if (wire.to == Wire::To::home) at_sm2 = w.backend.has(first);
                    return false;
                };
                p.next_ports();
                ASSERT_TRUE(p.challenged(second_on_the_set));
                ASSERT_TRUE(at_sm2);
                EXPECT_TRUE(*at_sm2) << "SM1 alone removes nothing";
                EXPECT_FALSE(w.backend.has(first));
                const auto second = w.set_of(*p.pending);
                EXPECT_NE(second, 0U);
                EXPECT_EQ(w.backend.has(old), registered);
                EXPECT_EQ(w.backend.installed(), registered ? 2U : 1U);
                EXPECT_EQ(w.gateway->pending(), 1U);
                p.send_sm7();
                w.run();
                EXPECT_EQ(p.last_status(), 200);
                p.accept();
                EXPECT_TRUE(w.backend.has(second));
                w.expect_served(p);
                w.expect_no_leak(1);
            }
        }
    }
}

TEST(B3, AlsoWhenThePhoneMovedInBetween) {
    for (const std::string_view to : {"10.2.0.77", "2001:db8:2::77"}) {
        World w(with_gmhome());
        Phone& p = w.phone();
        ASSERT_TRUE(p.challenged());
        const auto first = w.set_of(*p.pending);
        p.address = ip(to);
        ASSERT_TRUE(p.challenged());
        EXPECT_FALSE(w.backend.has(first));
        EXPECT_EQ(w.backend.installed(), 1U);
        p.send_sm7();
        w.run();
        EXPECT_EQ(p.last_status(), 200);
        p.accept();
        w.expect_served(p);
        w.expect_no_leak(1);
    }
}

// ---- B4 ----

// One answer is on its way to the S-CSCF, where a second would find no challenge and be a failure.
TEST(B4, OneSm7IsUnderWayAtATime) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.w.network->on_cx.hold = true;
        c.p.send_sm7();
        c.w.run();
        const auto at_home = c.w.home.inbox.size();
        RegisterOptions again;
        again.authorization = c.p.right_answer();
        again.verify = c.p.pending->server;
        c.p.send_on(*c.p.pending, c.p.register_text(again, &*c.p.pending));
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 500);
        EXPECT_TRUE(c.p.last().message.has("Retry-After"));
        EXPECT_EQ(c.w.home.inbox.size(), at_home);
        while (c.w.network->on_cx.step()) c.w.run();
        EXPECT_EQ(c.p.last_status(), 200) << "the first completes";
        EXPECT_EQ(c.p.last().set, c.fresh);
    }
}

// ---- B3 ----

// What is no challenge removes nothing: the first procedure can still complete.
TEST(B3, WhatIsNotChallengedRemovesNothing) {
    const std::vector<std::pair<std::string_view, std::function<void(World&, Phone&)>>> cases{
        {"refused here (C6)",
         [](World& w, Phone& p) {
             RegisterOptions o;
             o.client = "digest";
             p.send_clear(p.register_text(o, nullptr));
             w.run();
             EXPECT_EQ(p.last_status(), 494);
         }},
        {"an SM7 that is forged (C1)",
         [](World& w, Phone& p) {
             p.wrong_ik = true;
             p.send_sm7();
             w.run();
             p.wrong_ik = false;
         }},
        {"a stranger who names it, and is refused by the home network",
         [](World& w, Phone& p) {
             Phone& stranger = w.phone("mallory", "10.2.0.66");
             RegisterOptions o;
             o.impi = p.impi;
             o.impu = "sip:nobody@home.example";
             stranger.send_sm1(o);
             w.run();
             EXPECT_EQ(stranger.last_status(), 403);
         }},
    };
    for (const auto& [name, meanwhile] : cases) {
        SCOPED_TRACE(name);
        Procedure c(false);
        meanwhile(c.w, c.p);
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        if (name.starts_with("a stranger")) continue;  // at the S-CSCF the challenge is void (C10)
        c.p.send_sm7();
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 200);
    }
}

TEST(B3, OtherUsersAreNotTouched) {
    World w(with_gmhome());
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& bob = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(alice.challenged());
    const auto hers = w.set_of(*alice.pending);
    for (int i = 0; i < 3; ++i) {
        bob.next_ports();
        ASSERT_TRUE(bob.challenged());
    }
    EXPECT_TRUE(w.backend.has(hers));
    EXPECT_EQ(w.backend.installed(), 2U);
    alice.send_sm7();
    w.run();
    EXPECT_EQ(alice.last_status(), 200);
}

}  // namespace
}  // namespace gmgate::test
