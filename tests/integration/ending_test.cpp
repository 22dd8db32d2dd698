// Registrations that end by somebody else's will: the network's (D4), or because the gateway stops.

#include <algorithm>

#include "base/log.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

using registration::Step;

// The reason the user's ladder gives for the end of its registration; ok: it has not ended.
Reason registration_ended_by(const World& w, const std::string& impi) {
    for (const auto& r : w.gateway->trace().of_user(impi)) {
        if (r.step == Step::registration_ended) return r.reason;
    }
    return Reason::ok;
}

// Its REGISTER was challenged, and what comes of that outlives the SAs it was sent on.
void expect_challenged_anew(Phone& p) {
    ASSERT_EQ(p.last_status(), 401);
    p.take_challenge(p.last().message);
    p.send_sm7();
    p.world.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    p.world.advance(40s);
    p.world.expect_served(p);
    p.world.expect_no_leak(1);
}

TEST(Ending, AtTheStopWhoWaitsIsAnsweredAndEveryEndHasItsReason) {
    World w;
    Phone& registered = w.phone("registered", "10.2.0.1");
    Phone& challenged = w.phone("challenged", "10.2.0.2");
    Phone& answered = w.phone("answered", "10.2.0.3");
    Phone& fresh = w.phone("fresh", "10.2.0.4");
    ASSERT_TRUE(registered.register_once());
    ASSERT_TRUE(challenged.challenged());
    ASSERT_TRUE(answered.challenged());
    w.home.silent = true;
    answered.send_sm7();
    fresh.send_sm1();
    w.run();
    ASSERT_EQ(w.gateway->pending(), 3U);
    const auto heard = challenged.inbox.size();

    w.gateway->shut_down();
    w.run();
    EXPECT_EQ(w.gateway->pending(), 0U);
    EXPECT_EQ(w.gateway->failures().latest(10, Reason::shutdown, {}).size(), 3U);
    EXPECT_EQ(fresh.last_status(), 503);
    EXPECT_FALSE(fresh.last().esp);
    EXPECT_TRUE(fresh.last().message.has("Retry-After"));
    EXPECT_EQ(answered.last_status(), 503);
    EXPECT_TRUE(answered.last().esp) << "SM7 came on the new SAs, and so does the answer";
    EXPECT_EQ(challenged.inbox.size(), heard) << "asked nothing that is open";

    w.sets->remove_all(sa::Event::shutdown);
    EXPECT_EQ(registration_ended_by(w, registered.impi), Reason::shutdown);
    EXPECT_EQ(w.backend.installed(), 0U);
    w.home.silent = false;
    w.nothing_left();
}

// The SAs of a user who leaves live on for its last messages only, so a REGISTER on them is not
// passed on as the word of a registered user (A11): it is challenged, and gets new SAs.
TEST(Ending, WhoComesBackOnTheOldSasIsChallenged) {
    for (const bool by_network : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        if (by_network) {
            ASSERT_TRUE(w.gateway->deregister(p.impi));
        } else {
            ASSERT_TRUE(p.deregister());
        }
        p.send_protected_sm1();
        w.run();
        SCOPED_TRACE(by_network ? "by the network" : "by the phone");
        expect_challenged_anew(p);
    }
}

// The core's 200 crosses the deregistration: there are no SAs left that could carry what it grants.
TEST(Ending, A200ThatComesTooLateRegistersNobody) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    p.send_protected_sm1();
    w.run();
    const Wire asked = w.home.inbox.back();
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.home.reply(asked, 200, "Contact: <" + p.contact() + ">;expires=3600\r\n");
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
    EXPECT_EQ(w.gateway->failures().latest(1, Reason::deregistered_by_network, p.impi).size(), 1U);
    w.advance(33s);
    w.nothing_left();
}

// The same for a phone that repeats its last nonce and response, as many do: they are of the set it
// comes on, but nobody is registered on that set any more.
TEST(Ending, WhoComesBackWithItsLastAnswerIsChallengedToo) {
    for (const bool by_network : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        RegisterOptions again;
        again.authorization = p.answer_to(p.current().nonce, *p.current().res);
        p.send_protected_sm1(again);
        w.run();
        ASSERT_TRUE(w.home.inbox.back().message.header("Authorization").contains("=\"yes\""))
            << "while it is registered";
        ASSERT_EQ(p.last_status(), 200);
        if (by_network) {
            ASSERT_TRUE(w.gateway->deregister(p.impi));
        } else {
            ASSERT_TRUE(p.deregister());
        }
        p.send_protected_sm1(again);
        w.run();
        EXPECT_TRUE(w.home.inbox.back().message.header("Authorization").contains("=\"no\""));
        SCOPED_TRACE(by_network ? "by the network" : "by the phone");
        expect_challenged_anew(p);
    }
}

// The NOTIFY that tells a phone so still reaches it while it leaves (D4). Nothing new does, nor a
// BYE: the gateway has ended its calls itself.
TEST(Ending, NewRequestsDoNotReachWhoLeaves) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const std::string path = w.home.paths[p.impi];
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    for (const std::string_view method : {"INVITE", "MESSAGE", "OPTIONS"}) {
        const auto heard = p.inbox.size();
        w.home.request(method, path, p.contact());
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 480) << method;
        EXPECT_EQ(p.inbox.size(), heard) << method;
    }
    EXPECT_EQ(w.drops(Reason::not_registered), 3U);
    const auto heard = p.inbox.size();
    w.home.request("BYE", path, p.contact(), "To: <sip:alice@home.example>;tag=2\r\n");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 481);
    EXPECT_EQ(p.inbox.size(), heard);
    w.home.request("NOTIFY", path, p.contact());
    w.run();
    ASSERT_EQ(p.last().message.method(), "NOTIFY");
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.advance(33s);
    w.nothing_left();
}

// D7: the one set came near its last sequence number, and the phone did not register anew while it
// drained.
TEST(Ending, ARegistrationThatEndsWithTheLastSequenceNumberSaysSo) {
    for (const bool renewed_before : {false, true}) {
        World w;
        Phone& p = w.phone();
        w.home.integrity_yes_is_enough = false;
        ASSERT_TRUE(p.register_once());
        ASSERT_TRUE(!renewed_before || p.reregister());
        for (const auto& s : p.sets) {
            w.backend.emit(
                {sa::BackendEventKind::sequence_near_end, w.set_of(s), s.numbers.spi_ps});
        }
        w.sets->poll_backend();
        w.run();
        EXPECT_EQ(registration_ended_by(w, p.impi), Reason::ok) << "its SAs drain";
        w.advance(33s);
        EXPECT_EQ(registration_ended_by(w, p.impi), Reason::sequence_near_end);
        w.nothing_left();
    }
}

// SM7 is at the core when the registration ends: the new SAs go at once, the old ones live on for
// the last messages (D4), and the failure is one of them (D6).
TEST(Ending, AnSm7ThatWaitsIsAnsweredOnTheOldSas) {
    World w;
    Phone& p = w.phone();
    w.home.integrity_yes_is_enough = false;
    ASSERT_TRUE(p.register_once());
    const sa::SetId old = w.set_of(p.current());
    ASSERT_TRUE(p.challenged(true));
    w.home.silent = true;
    p.send_sm7();
    w.run();
    const Wire asked = w.home.inbox.back();
    const auto heard = p.inbox.size();
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.run();
    ASSERT_EQ(p.inbox.size(), heard + 1);
    EXPECT_EQ(p.last_status(), 500);
    EXPECT_TRUE(p.last().esp);
    EXPECT_EQ(p.last().set, old);
    EXPECT_EQ(w.gateway->failures().latest(1, Reason::deregistered_by_network, p.impi).size(), 1U);
    w.home.reply(asked, 200);
    w.run();
    EXPECT_EQ(p.inbox.size(), heard + 1) << "answered once";
    w.home.silent = false;
    w.advance(33s);
    w.nothing_left();
}

TEST(Ending, AtTheStopTheLogSaysHowManyItDoesNotName) {
    World w;
    w.home.silent = true;
    for (int i = 0; i < 12; ++i) {
        w.phone("u" + std::to_string(i), "10.2.0." + std::to_string(i + 1)).send_sm1();
    }
    w.run();
    ASSERT_EQ(w.gateway->pending(), 12U);
    log::configure(log::Level::info, false);
    testing::internal::CaptureStderr();
    w.gateway->shut_down();
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("too many: 2 shutdown;"), std::string::npos) << log;
    w.run();
    w.home.silent = false;
    w.nothing_left();
}

}  // namespace
}  // namespace gmgate::test
