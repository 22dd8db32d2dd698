// C9–C11: the home network's side of a failure (gmhome's S-CSCF and HSS, Cx recorded), and what
// becomes of the phone when the core is slow, silent or broken. TS 33.203 clauses 6.1.2, 6.1.3;
// RFC 3261 17.1.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

using Flag = home::LocalHss::Flag;
using home::ServerAssignment;

// ---- C9 ----

struct Failing {
    std::string_view name;
    std::function<void(Procedure&)> fail;
    int status;  // the phone is told; 0: nothing
    ServerAssignment put;
};

std::vector<Failing> failing() {
    return {
        {"wrong response (C2)",
         [](Procedure& c) {
             c.p.send_wrong_sm7();
             c.w.run();
         },
         403, ServerAssignment::authentication_failure},
        {"network authentication failure (C3)",
         [](Procedure& c) {
             c.p.refuse_challenge(c.is_protected);
             c.w.run();
         },
         403, ServerAssignment::authentication_failure},
        {"synchronisation failure that is none (C4)",
         [](Procedure& c) {
             c.p.refuse_challenge(c.is_protected, to_base64(std::array<std::uint8_t, 14>{}));
             c.w.run();
         },
         403, ServerAssignment::authentication_failure},
        {"no answer (C5)", [](Procedure& c) { c.w.advance(241s); }, 401,
         ServerAssignment::authentication_timeout},
    };
}

TEST(C9, ClearsTheNameOnlyIfTheImpuIsNotRegistered) {
    for (const bool registered : {false, true}) {
        for (const Failing& f : failing()) {
            SCOPED_TRACE(std::string(f.name) + (registered ? ", registered" : ", new"));
            Procedure c(registered);
            HomeNetwork& n = *c.w.network;
            EXPECT_EQ(n.flag(c.p.impi),
                      registered ? Flag::registered : Flag::authentication_pending);
            EXPECT_EQ(n.assigned(c.p.impi), "sip:scscf.home.example");
            f.fail(c);
            EXPECT_EQ(c.p.last_status(), f.status);
            const auto puts = n.puts();
            if (registered) {
                EXPECT_TRUE(puts.empty()) << "the registration flag is not updated";
                EXPECT_EQ(n.flag(c.p.impi), Flag::registered);
                EXPECT_EQ(n.assigned(c.p.impi), "sip:scscf.home.example");
                EXPECT_NE(n.registrar->find(c.p.impu), nullptr)
                    << "a failed authentication never deregisters";
            } else {
                // CM3, CM4.
                ASSERT_EQ(puts.size(), 1U);
                EXPECT_EQ(puts[0].assignment, f.put);
                EXPECT_EQ(puts[0].impi, c.p.impi);
                EXPECT_EQ(puts[0].impu, c.p.impu);
                EXPECT_EQ(puts[0].flag_before, Flag::authentication_pending);
                EXPECT_EQ(puts[0].flag_after, Flag::not_registered);
                EXPECT_EQ(puts[0].server_before, "sip:scscf.home.example");
                EXPECT_EQ(puts[0].server_after, "") << "the S-CSCF name is cleared";
                EXPECT_EQ(puts[0].result, home::CxResult::success);
                EXPECT_EQ(n.registrar->find(c.p.impu), nullptr);
            }
            EXPECT_EQ(n.registrar->challenges_outstanding(), 0U);
            c.expect_as_before();
        }
    }
}

// Failure after failure: the registration lasts, at the home network and here, until it expires.
TEST(C9, AFailedAuthenticationNeverDeregisters) {
    Procedure c(true);
    for (int round = 0; round < 3; ++round) {
        for (const Failing& f : failing()) {
            SCOPED_TRACE(f.name);
            ASSERT_TRUE(c.p.challenged(true));
            f.fail(c);
            c.w.expect_served(c.p);
            EXPECT_NE(c.w.network->registrar->find(c.p.impu), nullptr);
            EXPECT_NE(c.w.network->registrar->find("tel:+15551000"), nullptr);
        }
    }
    EXPECT_TRUE(c.w.network->puts().empty());
    // A call reaches the phone.
    int status = 0;
    ASSERT_TRUE(c.w.network->server->originate("MESSAGE", "sip:x@home.example", c.p.impu, "hi",
                                               [&](int s, std::string_view) { status = s; }));
    c.w.run();
    ASSERT_EQ(c.p.last().message.method(), "MESSAGE");
    c.p.answer(c.p.last(), 200);
    c.w.run();
    EXPECT_EQ(status, 200);
}

TEST(C9, AnSm1ThatFailsInClearDoesNotDeregisterEither) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.network->cx.clear();
    p.next_ports();
    ASSERT_TRUE(p.challenged(false));
    p.send_wrong_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_TRUE(w.network->puts().empty());
    EXPECT_EQ(w.network->flag(p.impi), Flag::registered);
    w.expect_served(p);
}

// ---- C10 ----

TEST(C10, ANewChallengeVoidsTheEarlierOne) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        const auto first = *c.p.pending;
        const std::string first_answer = c.p.right_answer();
        if (!registered) c.p.next_ports();
        ASSERT_TRUE(c.p.challenged(registered));
        EXPECT_NE(c.p.pending->nonce, first.nonce);
        EXPECT_EQ(c.w.network->registrar->challenges_outstanding(), 1U);
        EXPECT_EQ(c.w.network->registrar->counters().challenges_voided, 1U);
        EXPECT_TRUE(c.w.network->puts().empty()) << "that was no failed authentication";
        // The answer to the first, on the first's SAs: they are gone (B3).
        const auto at_home = c.w.home.inbox.size();
        RegisterOptions late;
        late.authorization = first_answer;
        late.verify = first.server;
        c.p.send_on(first, c.p.register_text(late, &first));
        c.w.run();
        EXPECT_EQ(c.w.home.inbox.size(), at_home);
        // On the second's SAs it reaches the S-CSCF, without our word for it (A11), and is void.
        late.verify = c.p.pending->server;
        c.p.send_sm7(late);
        c.w.run();
        ASSERT_EQ(c.w.home.inbox.size(), at_home + 1);
        EXPECT_TRUE(c.w.home.inbox.back().message.contains("integrity-protected=\"no\""));
        EXPECT_NE(c.p.last_status(), 200);
        EXPECT_EQ(c.w.network->registrar->counters().registrations, registered ? 1U : 0U);
        c.w.advance(40s);
        c.p.pending.reset();
        if (registered) c.w.expect_served(c.p);
    }
}

TEST(C10, OnlyTheLastOfManyCounts) {
    Procedure c(false);
    for (int i = 0; i < 5; ++i) {
        c.p.next_ports();
        ASSERT_TRUE(c.p.challenged());
    }
    EXPECT_EQ(c.w.gateway->pending(), 1U);
    EXPECT_EQ(c.w.backend.installed(), 1U);
    c.expect_completes();
}

// What was voided and then found no successor is a failed authentication: the name does not stay.
TEST(C10, AVoidedChallengeWithoutASuccessorIsCleared) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.w.network->on_cx.fail_vectors = home::CxResult::unable_to_comply;
        c.send_sm1();
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 480);
        EXPECT_EQ(c.w.network->flag(c.p.impi),
                  registered ? Flag::registered : Flag::not_registered);
        EXPECT_EQ(c.w.network->registrar->challenges_outstanding(), 0U);
    }
}

// ---- C11 ----

TEST(C11, TheCoreIsSilentAtSm2) {
    for (const bool registered : {false, true}) {
        Beginning b(registered);
        World& w = b.w;
        Phone& p = b.p;
        const auto at_home = w.home.inbox.size();
        w.network->silent = true;
        b.send_sm1();
        w.advance(31s);
        EXPECT_EQ(w.gateway->pending(), 1U);
        w.advance(2s);
        EXPECT_EQ(p.last_status(), 504) << "timer F";
        EXPECT_EQ(p.last().esp, registered);
        EXPECT_GT(w.home.inbox.size(), at_home + 5) << "retransmitted over UDP";
        EXPECT_EQ(w.gateway->pending(), 0U);
        EXPECT_EQ(w.settled(), b.before);
        w.network->silent = false;
        EXPECT_TRUE(b.registers());
    }
}

TEST(C11, TheCoreIsSilentAtSm8) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        c.w.network->silent = true;
        c.p.send_sm7();
        c.w.advance(33s);
        EXPECT_EQ(c.p.last_status(), 504);
        EXPECT_EQ(c.p.last().set, registered ? c.old : c.fresh) << "D6";
        EXPECT_TRUE(c.w.backend.has(c.fresh)) << "the SAs obey C5";
        c.w.network->silent = false;
        c.w.advance(241s);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        c.expect_as_before();
    }
}

// SM8 was lost on the way and the core comes back: the same SAs still complete.
TEST(C11, TheCoreComesBackInTime) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.w.core_net.refuse = true;
        c.p.send_sm7();
        c.w.advance(33s);
        EXPECT_EQ(c.p.last_status(), 504);
        EXPECT_EQ(c.p.last().set, registered ? c.old : c.fresh) << "D6";
        c.w.core_net.refuse = false;
        c.expect_completes();
    }
}

TEST(C11, TheCoreCannotBeReached) {
    for (const bool registered : {false, true}) {
        Beginning b(registered);
        World& w = b.w;
        Phone& p = b.p;
        w.core_net.refuse = true;
        b.send_sm1();
        w.run();
        EXPECT_EQ(p.last_status(), 504) << "at once: there is nothing to wait for";
        EXPECT_EQ(p.last().esp, registered);
        EXPECT_EQ(w.settled(), b.before);
    }
}

TEST(C11, TheHssIsSilent) {
    for (const bool registered : {false, true}) {
        Beginning b(registered);
        World& w = b.w;
        Phone& p = b.p;
        w.network->on_cx.silent = true;
        b.send_sm1();
        w.advance(6s);
        EXPECT_EQ(p.last_status(), 504);
        EXPECT_EQ(w.network->registrar->procedures(), 0U);
        EXPECT_EQ(w.settled(), b.before);
        w.network->on_cx.silent = false;
        if (registered) w.expect_served(p);
        EXPECT_TRUE(b.registers());
    }
}

TEST(C11, TheHssIsSlow) {
    World w(with_gmhome());
    Phone& p = w.phone();
    w.network->on_cx.hold = true;
    p.send_sm1();
    w.advance(4s);
    EXPECT_TRUE(p.inbox.empty());
    while (w.network->on_cx.step()) w.run();
    EXPECT_EQ(p.last_status(), 401) << "slow, but in time";
    w.network->on_cx.hold = false;
    p.take_challenge(p.last().message);
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.expect_no_leak(1);
}

TEST(C11, TheHssAnswersWhenItIsTooLate) {
    World w(with_gmhome());
    Phone& p = w.phone();
    w.network->on_cx.hold = true;
    p.send_sm1();
    w.advance(6s);
    EXPECT_EQ(p.last_status(), 504);
    while (w.network->on_cx.step()) w.run();
    EXPECT_EQ(p.last_status(), 504) << "nothing more comes of it";
    EXPECT_EQ(w.backend.installed(), 0U);
    EXPECT_EQ(w.network->flag(p.impi), Flag::not_registered) << "C9";
    w.network->on_cx.hold = false;
    w.nothing_left();
    EXPECT_TRUE(p.register_once());
}

// Answers that come after our time-out: nobody waits, and their keys are wiped (checked for every
// message of the core, tests/support/gateway_world.h).
TEST(C11, AnswersAfterTheTimeOut) {
    for (const bool second : {false, true}) {
        World w(with_gmhome());
        Phone& p = w.phone();
        if (second) {
            ASSERT_TRUE(p.challenged());
        }
        std::vector<Wire> late;
        w.lose = [&](const Wire& wire) {
            if (wire.to != Wire::To::gateway_core) return false;
            late.push_back(wire);
            return true;
        };
        second ? p.send_sm7() : p.send_sm1();
        w.advance(33s);
        EXPECT_EQ(p.last_status(), 504);
        w.lose = nullptr;
        ASSERT_FALSE(late.empty());
        EXPECT_EQ(late[0].message.status(), second ? 200 : 401);
        const auto heard = p.inbox.size();
        w.queue.push_back(late[0]);
        w.run();
        EXPECT_EQ(p.inbox.size(), heard);
        EXPECT_GE(w.drops(Reason::unknown_transaction), 1U);
        EXPECT_EQ(w.gateway->registered(), 0U);
        EXPECT_EQ(w.backend.installed(), second ? 1U : 0U);
        w.advance(241s);
        w.nothing_left();
    }
}

// 5xx and other refusals, as they come, before and after the challenge (a scripted core).
TEST(C11, TheCoreAnswersWithAnError) {
    for (const int status : {400, 403, 404, 420, 480, 486, 500, 502, 503, 504, 513, 600, 603}) {
        for (const bool registered : {false, true}) {
            for (const bool second : {false, true}) {
                SCOPED_TRACE(std::to_string(status) + (registered ? " registered" : " new") +
                             (second ? " SM8" : " SM2"));
                Beginning b(registered, World::Options());
                World& w = b.w;
                Phone& p = b.p;
                w.home.integrity_yes_is_enough = false;
                if (second) {
                    ASSERT_TRUE(p.challenged(registered));
                    w.home.fixed_status = status;
                    p.send_sm7();
                } else {
                    w.home.fixed_status = status;
                    b.send_sm1();
                }
                w.run();
                EXPECT_EQ(p.last_status(), status);
                if (registered) {
                    EXPECT_EQ(p.last().set, b.old);
                } else {
                    EXPECT_EQ(p.last().esp, second);
                }
                const bool trouble = status == 480 || (status >= 500 && status < 600);
                w.advance(35s);
                EXPECT_EQ(w.backend.installed(), b.before.installed + (second && trouble ? 1U : 0U))
                    << "who is in trouble may be asked again on the same SAs; a refusal is final";
                w.home.fixed_status = 0;
                w.advance(241s);
                EXPECT_EQ(w.settled(), b.before);
                if (registered) w.expect_served(p);
            }
        }
    }
}

// 401 without keys, 200 without a challenge, a second challenge for an answer: nothing a phone
// could go on with.
TEST(C11, TheCoreAnswersNonsense) {
    World w;
    Phone& p = w.phone();
    w.home.omit_keys = true;
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    w.home.omit_keys = false;
    w.home.accept_without_challenge = true;
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500) << "nobody authenticated this phone";
    EXPECT_EQ(w.drops(Reason::challenge_without_keys), 2U);
    EXPECT_EQ(w.gateway->registered(), 0U);
    w.nothing_left();
    w.home.accept_without_challenge = false;
    ASSERT_TRUE(p.challenged());
    w.home.challenge_again = true;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 504);
    EXPECT_TRUE(p.last().esp);
    w.nothing_left();
    w.home.challenge_again = false;
    EXPECT_TRUE(p.register_once()) << "with the same ports";
    w.expect_no_leak(1);
}

// Wherever the core falls silent, in whatever order phones come: nothing stays.
TEST(C11, ManyPhonesAndASilentCore) {
    auto options = with_gmhome();
    options.policy.limits.pending_per_source = 100;
    World w(options);
    std::vector<Phone*> phones;
    for (int i = 0; i < 30; ++i) {
        phones.push_back(&w.phone("user" + std::to_string(i), "10.2.1." + std::to_string(i + 1)));
    }
    for (std::size_t i = 0; i < phones.size(); ++i) {
        if (i % 3 == 1) {
            ASSERT_TRUE(phones[i]->challenged());
        } else if (i % 3 == 2) {
            ASSERT_TRUE(phones[i]->register_once());
        }
    }
    w.network->silent = true;
    for (std::size_t i = 0; i < phones.size(); ++i) {
        if (i % 3 == 0) phones[i]->send_sm1();
        if (i % 3 == 1) phones[i]->send_sm7();
        if (i % 3 == 2) phones[i]->send_protected_sm1();
    }
    w.advance(300s);
    for (Phone* p : phones) EXPECT_EQ(p->last_status(), 504);
    EXPECT_EQ(w.gateway->registered(), 10U);
    w.expect_no_leak(10);
}

}  // namespace
}  // namespace gmgate::test
