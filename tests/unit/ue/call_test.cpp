// Calls, one agent against the other and against messages written by hand, in virtual time.
#include "ue/call.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "control/sip/values.h"
#include "tests/unit/ue/agent_pair.h"

namespace gmgate::ue {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::End;
using test::Pair;

std::string header(const std::string& message, sip::HeaderId id) {
    sip::Message m;
    EXPECT_EQ(m.parse(message), sip::ParseStatus::ok) << message;
    return std::string(m.value(id).value_or(""));
}

TEST(Call, IsMadeTakenAndEnded) {
    for (const bool tcp : {false, true}) {
        Pair p;
        p.a.tcp = p.b.tcp = tcp;
        p.b.options.answer_after = seconds(2);
        ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(10)));
        p.run(seconds(1));
        EXPECT_EQ(p.a.heard(), "ringing");
        p.run(seconds(20));
        EXPECT_EQ(p.a.heard(), "ringing,answered,ended");
        EXPECT_EQ(p.b.heard(), "incoming,answered,ended");
        // 180 after one way there and back; 200 after the PRACK's round trip, or 2 s.
        EXPECT_NEAR(std::chrono::duration<double>(p.a.facts.ring).count(), 0.020, 0.003);
        EXPECT_NEAR(std::chrono::duration<double>(p.a.facts.setup).count(), 2.020, 0.005);
        EXPECT_NEAR(std::chrono::duration<double>(p.a.facts.talked).count(), 10.02, 0.005);
        EXPECT_TRUE(p.a.facts.completed);
        EXPECT_EQ(p.a.facts.status, 200);
        EXPECT_EQ(p.a.facts.reason, "hung up here");
        EXPECT_EQ(p.b.facts.reason, "hung up by the other end");
        EXPECT_EQ(p.b.facts.peer, "sip:001010000000001@ims.example");
        const auto& s = p.a.stats;
        EXPECT_EQ(s.placed, 1U);
        EXPECT_EQ(s.rang, 1U);
        EXPECT_EQ(s.answered, 1U);
        EXPECT_EQ(s.completed, 1U);
        EXPECT_EQ(p.b.stats.taken, 1U);
        EXPECT_EQ(p.a.retransmissions + p.b.retransmissions, 0U);
        EXPECT_EQ(s.failures.total() + s.bad_input.total() + p.b.stats.bad_input.total(), 0U);
        for (const char* request : {"INVITE", "PRACK", "ACK", "BYE"})
            EXPECT_EQ(p.a.sent_count(request), 1U) << request;
        EXPECT_EQ(p.b.sent_count("SIP/2.0 180"), 1U);
        EXPECT_EQ(p.b.sent_count("SIP/2.0 200"), 3U);
    }
}

TEST(Call, RequestsInTheDialogFollowItsRouteSet) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(1)));
    p.run(seconds(5));
    const std::string invite = p.a.last_sent("INVITE");
    EXPECT_EQ(header(invite, sip::HeaderId::route), "<sip:orig@scscf.ims.example;lr>");
    EXPECT_NE(header(invite, sip::HeaderId::p_preferred_identity), "");
    EXPECT_NE(header(invite, sip::HeaderId::security_verify), "");
    for (const char* request : {"PRACK", "ACK", "BYE"}) {
        const std::string text = p.a.last_sent(request);
        EXPECT_TRUE(text.starts_with(
            fmt::format("{} sip:001010000000002@10.20.0.2:40002 SIP/2.0\r\n", request)))
            << text;
        // The caller's is reversed (RFC 3261 12.1.2).
        EXPECT_EQ(header(text, sip::HeaderId::route),
                  "<sip:two@core;lr>, <sip:one@10.21.0.1:6100;lr>");
        EXPECT_EQ(header(text, sip::HeaderId::p_preferred_identity), "");
    }
    EXPECT_EQ(header(p.a.last_sent("ACK"), sip::HeaderId::proxy_require), "");
}

TEST(Call, TheOtherEndHangsUp) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(2));
    ASSERT_NE(p.b.agent.live_call(), nullptr);
    p.b.agent.live_call()->hang_up();
    p.run(seconds(2));
    EXPECT_EQ(p.a.facts.reason, "hung up by the other end");
    EXPECT_TRUE(p.a.facts.completed);
    EXPECT_EQ(p.a.stats.completed, 1U);
    // The route set of who was called is not reversed.
    EXPECT_EQ(header(p.b.last_sent("BYE"), sip::HeaderId::route),
              "<sip:one@10.21.0.1:6100;lr>, <sip:two@core;lr>");
    EXPECT_EQ(p.a.agent.live_call(), nullptr);
    EXPECT_EQ(p.b.agent.live_call(), nullptr);
}

TEST(Call, HoldAndResumeFromBothEnds) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    ASSERT_TRUE(p.a.agent.live_call()->hold());
    EXPECT_FALSE(p.a.agent.live_call()->resume()) << "a change is under way";
    p.run(seconds(1));
    EXPECT_NE(p.a.last_sent("INVITE").find("a=sendonly\r\n"), std::string::npos);
    EXPECT_NE(p.b.last_sent("SIP/2.0 200").find("a=recvonly\r\n"), std::string::npos);
    EXPECT_TRUE(p.a.facts.on_hold);
    EXPECT_TRUE(p.b.facts.peer_holds);
    // Both: nobody sends.
    ASSERT_TRUE(p.b.agent.live_call()->hold());
    p.run(seconds(1));
    EXPECT_NE(p.a.last_sent("SIP/2.0 200").find("a=inactive\r\n"), std::string::npos);
    ASSERT_TRUE(p.a.agent.live_call()->resume());
    p.run(seconds(1));
    EXPECT_NE(p.b.last_sent("SIP/2.0 200").find("a=sendonly\r\n"), std::string::npos);
    ASSERT_TRUE(p.b.agent.live_call()->resume());
    p.run(seconds(1));
    EXPECT_NE(p.a.last_sent("SIP/2.0 200").find("a=sendrecv\r\n"), std::string::npos);
    EXPECT_FALSE(p.a.facts.on_hold || p.b.facts.on_hold);
    EXPECT_EQ(p.a.heard(), "ringing,answered,held,peer-held,resumed,peer-resumed");
    EXPECT_EQ(p.a.stats.holds, 2U);
    p.a.agent.hang_up();
    p.run(seconds(1));
    EXPECT_TRUE(p.a.facts.completed);
}

// Over UDP a large re-INVITE goes by TCP and may be there before the ACK it follows.
TEST(Call, AChangeThatOvertakesTheAckIsTakenAsOne) {
    Pair p;
    p.pass = [](const End&, std::string_view bytes) { return !bytes.starts_with("ACK"); };
    p.a.on_event = [](Call& call, CallEvent event) {
        if (event == CallEvent::answered) call.hold();
        if (event == CallEvent::held) call.resume();
    };
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    EXPECT_EQ(p.a.heard(), "ringing,answered,held,resumed");
    EXPECT_EQ(p.b.heard(), "incoming,answered,peer-held,peer-resumed");
    EXPECT_EQ(p.b.sent_count("SIP/2.0 500"), 0U);
}

TEST(Call, TwoHoldsAtOnceAreBothDoneInTheEnd) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    ASSERT_TRUE(p.a.agent.live_call()->hold());
    ASSERT_TRUE(p.b.agent.live_call()->hold());
    p.run(seconds(1));
    EXPECT_EQ(p.a.sent_count("SIP/2.0 491") + p.b.sent_count("SIP/2.0 491"), 2U);
    p.run(seconds(10));
    EXPECT_TRUE(p.a.facts.on_hold);
    EXPECT_TRUE(p.b.facts.on_hold);
}

TEST(Call, AHoldThatWaitsForTheOthersChangeIsDoneInTheEnd) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    // The callee tries again first; without its ACK the caller may not.
    p.pass = [&](const End& from, std::string_view bytes) {
        return &from == &p.a || !bytes.starts_with("ACK");
    };
    ASSERT_TRUE(p.a.agent.live_call()->hold());
    ASSERT_TRUE(p.b.agent.live_call()->hold());
    p.run(milliseconds(100));
    EXPECT_EQ(p.a.sent_count("SIP/2.0 491") + p.b.sent_count("SIP/2.0 491"), 2U);
    p.run(seconds(5));
    EXPECT_TRUE(p.b.facts.on_hold);
    EXPECT_FALSE(p.a.facts.on_hold);
    p.pass = nullptr;
    p.run(seconds(10));
    EXPECT_TRUE(p.a.facts.on_hold);
    EXPECT_EQ(p.a.heard(), "ringing,answered,peer-held,held");
}

// The ACK of the 2xx is lost, and the change that follows at once is too.
TEST(Call, TheAckComesAgainWhileAChangeIsUnderWay) {
    Pair p;
    bool lossy = true;
    p.pass = [&](const End&, std::string_view bytes) {
        const bool change = bytes.starts_with("INVITE") && bytes.find("a=sendonly") != bytes.npos;
        if (bytes.starts_with("ACK") && std::exchange(lossy, false)) return false;
        return !change;
    };
    p.a.on_event = [](Call& call, CallEvent event) {
        if (event == CallEvent::answered) call.hold();
    };
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(3));
    EXPECT_EQ(p.a.sent_count("ACK"), 2U);
    EXPECT_EQ(p.b.heard(), "incoming,answered");
    p.pass = nullptr;
    p.run(seconds(10));
    EXPECT_EQ(p.a.heard(), "ringing,answered,held");
}

TEST(Call, IsGivenUpWhileItRings) {
    Pair p;
    p.b.options.answer_after = seconds(60);
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    p.a.agent.hang_up();
    p.run(seconds(1));
    EXPECT_EQ(p.a.sent_count("CANCEL"), 1U);
    EXPECT_EQ(p.b.sent_count("SIP/2.0 487"), 1U);
    EXPECT_EQ(p.a.facts.reason, "cancelled");
    EXPECT_EQ(p.b.facts.reason, "cancelled by the other end");
    EXPECT_EQ(p.a.stats.cancelled, 1U);
    EXPECT_EQ(p.a.sent_count("ACK"), 1U);
    // CANCEL and that ACK are hop by hop: the Via of the INVITE, the route of the INVITE.
    const std::string via = header(p.a.last_sent("INVITE"), sip::HeaderId::via);
    for (const char* request : {"CANCEL", "ACK"}) {
        EXPECT_EQ(header(p.a.last_sent(request), sip::HeaderId::via), via);
        EXPECT_EQ(header(p.a.last_sent(request), sip::HeaderId::route),
                  "<sip:orig@scscf.ims.example;lr>");
    }
    p.run(seconds(40));
    EXPECT_EQ(p.b.sent_count("SIP/2.0 487"), 1U) << "acknowledged";
}

TEST(Call, CancelWaitsForAProvisionalAnswer) {
    Pair p;
    p.deliver = false;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.a.agent.hang_up();
    p.run(seconds(1));
    EXPECT_EQ(p.a.sent_count("CANCEL"), 0U);
    std::string trying = p.a.sent[0];
    trying = fmt::format(
        "SIP/2.0 100 Trying\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n"
        "CSeq: {}\r\nContent-Length: 0\r\n\r\n",
        header(trying, sip::HeaderId::via), header(trying, sip::HeaderId::from),
        header(trying, sip::HeaderId::to), header(trying, sip::HeaderId::call_id),
        header(trying, sip::HeaderId::cseq));
    EXPECT_TRUE(p.give(p.a, trying));
    EXPECT_EQ(p.a.sent_count("CANCEL"), 1U);
    // Nobody answers the INVITE even so.
    p.run(seconds(70));
    EXPECT_EQ(p.a.facts.reason, "cancelled, and not answered");
}

TEST(Call, CancelAndAnswerCross) {
    Pair p;
    p.b.options.answer_after = milliseconds(100);
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    // The 200 leaves at 110 ms and is still on its way.
    p.run(milliseconds(115));
    p.a.agent.hang_up();
    p.run(seconds(3));
    EXPECT_EQ(p.a.sent_count("CANCEL"), 1U);
    EXPECT_EQ(p.a.sent_count("ACK"), 1U);
    EXPECT_EQ(p.a.sent_count("BYE"), 1U);
    EXPECT_EQ(p.b.facts.reason, "hung up by the other end");
    EXPECT_EQ(p.a.stats.answered, 0U);
    EXPECT_EQ(p.a.stats.completed, 0U);
}

TEST(Call, RefusalsAreSaidClearly) {
    for (const int code : {404, 480, 486, 603}) {
        Pair p;
        p.b.options.refuse = code;
        ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
        p.run(seconds(1));
        EXPECT_EQ(p.a.facts.status, code);
        EXPECT_EQ(p.a.facts.reason, fmt::format("{} {}", code, sip::reason_phrase(code)));
        EXPECT_EQ(p.a.heard(), "ended");
        EXPECT_EQ(p.a.stats.failures.total(), 1U);
        EXPECT_EQ(p.a.sent_count("ACK"), 1U);
        EXPECT_EQ(p.b.stats.declined, 1U);
    }
}

TEST(Call, SecondCallerHearsBusy) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    End c(p, p.wheel, "001010000000003", "10.20.0.3:40003");
    ASSERT_TRUE(c.agent.call(p.b_uri, Duration{0}));
    p.give(p.b, c.sent.at(0));
    EXPECT_EQ(p.b.sent_count("SIP/2.0 486"), 1U);
    EXPECT_NE(p.b.agent.live_call(), nullptr) << "the first call stands";
    EXPECT_FALSE(p.a.agent.call(p.b_uri, Duration{0})) << "one call at a time";
}

TEST(Call, SurvivesLossOnEachLeg) {
    std::uint64_t retransmissions = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        Pair p;
        SeededRandom r(seed);
        p.pass = [&](const End&, std::string_view) { return r.below(4) != 0; };
        ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(15)));
        p.run(seconds(100));
        EXPECT_TRUE(p.a.facts.completed) << seed << ": " << p.a.facts.reason;
        retransmissions += p.a.retransmissions + p.b.retransmissions;
        EXPECT_EQ(p.b.stats.taken, 1U);
        EXPECT_EQ(p.a.stats.bad_input.total() + p.b.stats.bad_input.total(), 0U);
    }
    EXPECT_GT(retransmissions, 40U);
}

TEST(Call, The200ComesAgainUntilItsAckAndThenItIsOver) {
    Pair p;
    p.pass = [](const End&, std::string_view bytes) { return !bytes.starts_with("ACK"); };
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(20));
    // RFC 3261 13.3.1.4: after T1, doubling to T2; each is acknowledged with the same ACK.
    EXPECT_GE(p.a.sent_count("ACK"), 6U);
    EXPECT_EQ(header(p.a.last_sent("ACK"), sip::HeaderId::via),
              header(p.a.sent[p.a.sent.size() - 2], sip::HeaderId::via));
    p.run(seconds(20));
    EXPECT_EQ(p.b.sent_count("BYE"), 1U);
    EXPECT_EQ(p.a.facts.reason, "hung up by the other end");
    EXPECT_EQ(p.b.stats.failures.counts().count("no ACK"), 1U);
}

TEST(Call, WithoutPrackTheInviteIsRefused) {
    Pair p;
    p.pass = [](const End&, std::string_view bytes) { return !bytes.starts_with("PRACK"); };
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(40));
    EXPECT_GE(p.b.sent_count("SIP/2.0 180"), 6U);
    EXPECT_EQ(p.a.facts.status, 504);
    EXPECT_EQ(p.a.stats.failures.counts().count("504 Server Time-out"), 1U);
    EXPECT_EQ(p.a.agent.live_call(), nullptr);
}

TEST(Call, ResourcesFirst) {
    Pair p;
    p.a.options.precondition = true;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(2)));
    p.run(seconds(6));
    EXPECT_TRUE(p.a.facts.completed) << p.a.facts.reason;
    EXPECT_NE(p.a.last_sent("INVITE").find("a=curr:qos local none\r\n"), std::string::npos);
    EXPECT_EQ(p.b.sent_count("SIP/2.0 183"), 1U);
    EXPECT_EQ(p.a.sent_count("PRACK"), 2U);  // of 183 and of 180
    EXPECT_EQ(p.a.sent_count("UPDATE"), 1U);
    EXPECT_NE(p.a.last_sent("UPDATE").find("a=curr:qos local sendrecv\r\n"), std::string::npos);
    // It does not ring before both ends have what they need.
    const auto at = [&](const End& e, std::string_view start) {
        return std::ranges::find_if(e.sent,
                                    [&](const std::string& s) { return s.starts_with(start); }) -
               e.sent.begin();
    };
    EXPECT_LT(at(p.b, "SIP/2.0 183"), at(p.b, "SIP/2.0 180"));
    EXPECT_NE(p.b.last_sent("SIP/2.0 180"), "");
}

TEST(Call, WithoutReliableAnswers) {
    Pair p;
    p.b.options.reliable = false;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(1)));
    p.run(seconds(5));
    EXPECT_TRUE(p.a.facts.completed);
    EXPECT_EQ(p.a.sent_count("PRACK"), 0U);
}

TEST(Call, EndsHereWhenTheRegistrationDoes) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(100)));
    p.run(seconds(1));
    const auto sent = p.a.sent.size();
    p.a.registered = false;
    p.a.agent.registration_over("the registration ended");
    EXPECT_EQ(p.a.facts.reason, "the registration ended");
    EXPECT_EQ(p.a.stats.dropped, 1U);
    p.run(seconds(200));
    EXPECT_EQ(p.a.sent.size(), sent) << "without a word";
    EXPECT_FALSE(p.a.agent.call(p.b_uri, Duration{0}));
}

TEST(Call, NobodyAnswers) {
    Pair p;
    p.deliver = false;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(40));
    // RFC 3261 17.1.1.2: at 0, .5, 1.5, 3.5, 7.5, 15.5, 31.5 s.
    EXPECT_EQ(p.a.sent_count("INVITE"), 7U);
    EXPECT_EQ(p.a.facts.reason, "no answer to INVITE");
    EXPECT_EQ(p.a.stats.failures.counts().count("no answer to INVITE"), 1U);
}

TEST(Call, TwoAnswersOfAForkGiveOneCall) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    ASSERT_EQ(p.a.stats.answered, 1U);
    const std::string invite = p.a.last_sent("INVITE");
    const std::string other = fmt::format(
        "SIP/2.0 200 OK\r\nVia: {}\r\nFrom: {}\r\nTo: <{}>;tag=second\r\nCall-ID: {}\r\n"
        "CSeq: {}\r\nContact: <sip:x@10.20.0.9:5060>\r\nContent-Length: 0\r\n\r\n",
        header(invite, sip::HeaderId::via), header(invite, sip::HeaderId::from), p.b_uri,
        header(invite, sip::HeaderId::call_id), header(invite, sip::HeaderId::cseq));
    p.deliver = false;
    EXPECT_TRUE(p.give(p.a, other));
    EXPECT_TRUE(p.give(p.a, other));
    EXPECT_EQ(p.a.sent_count("BYE sip:x@10.20.0.9:5060"), 1U);
    EXPECT_EQ(p.a.sent_count("ACK sip:x@10.20.0.9:5060"), 2U);
    EXPECT_EQ(p.a.stats.forked, 1U);
    EXPECT_EQ(p.a.agent.live_call()->state(), Call::State::established);
}

TEST(Call, LargeInvitesGoOverTcp) {
    Pair p;
    p.a.options.precondition = true;
    ASSERT_TRUE(p.a.agent.call("sip:" + std::string(600, '2') + "@ims.example", Duration{0}));
    EXPECT_TRUE(p.a.last_tcp);
    EXPECT_NE(header(p.a.sent[0], sip::HeaderId::via).find("SIP/2.0/TCP"), std::string::npos);
    ASSERT_TRUE(p.b.agent.message("sip:1@ims.example", "short", {}));
    EXPECT_FALSE(p.b.last_tcp);
}

TEST(Agent, Messages) {
    Pair p;
    int status = -1;
    ASSERT_TRUE(p.a.agent.message(p.b_uri, "how are you?",
                                  [&](int code, std::string_view) { status = code; }));
    p.run(seconds(1));
    EXPECT_EQ(status, 200);
    ASSERT_EQ(p.b.messages.size(), 1U);
    EXPECT_EQ(p.b.messages[0].first, "sip:001010000000001@ims.example");
    EXPECT_EQ(p.b.messages[0].second, "how are you?");
    // Its answer gets lost: it comes again and is one message all the same.
    bool lost = false;
    p.pass = [&](const End& from, std::string_view) {
        return &from == &p.a || std::exchange(lost, true);
    };
    ASSERT_TRUE(p.a.agent.message(p.b_uri, "again", {}));
    p.run(seconds(2));
    EXPECT_EQ(p.a.retransmissions, 1U);
    EXPECT_EQ(p.b.messages.size(), 2U);
    EXPECT_EQ(p.a.stats.messages_answered, 2U);
    // And nobody answers.
    p.deliver = false;
    ASSERT_TRUE(
        p.a.agent.message(p.b_uri, "x", [&](int code, std::string_view) { status = code; }));
    p.run(seconds(40));
    EXPECT_EQ(status, 0);
    EXPECT_EQ(p.a.stats.message_failures.total(), 1U);
    EXPECT_FALSE(p.a.agent.message("not a uri", "x", {}));
    EXPECT_FALSE(p.a.agent.message("sip:a@b>\r\nX: y", "x", {}));
}

TEST(Agent, WhoWaitsHearsThatTheRegistrationIsOver) {
    Pair p;
    p.deliver = false;
    std::vector<int> message, subscription;
    bool began = true;
    ASSERT_TRUE(p.a.agent.message(p.b_uri, "x", [&](int code, std::string_view) {
        message.push_back(code);
        began = p.a.agent.message(p.b_uri, "and another", {}).has_value();
    }));
    ASSERT_TRUE(p.a.agent.subscribe(
        600, [&](int code, std::string_view) { subscription.push_back(code); }));
    p.run(seconds(1));
    const auto sent = p.a.sent.size();
    p.a.agent.registration_over("x");
    EXPECT_EQ(message, std::vector<int>{0});
    EXPECT_EQ(subscription, std::vector<int>{0});
    EXPECT_FALSE(began) << "there is no way for it any more";
    p.run(seconds(60));
    EXPECT_EQ(p.a.sent.size(), sent);
    EXPECT_EQ(message.size() + subscription.size(), 2U) << "once";
    EXPECT_TRUE(p.a.agent.message(p.b_uri, "registered anew", {}));
}

// ---- messages nobody would send ----

std::string request(std::string_view method, std::string_view extra, std::string_view body = {},
                    std::string_view to_tag = {}) {
    static int n = 0;
    return fmt::format(
        "{0} sip:001010000000002@10.20.0.2:40002 SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 10.21.0.1:6100;branch=z9hG4bK{1}\r\nMax-Forwards: 60\r\n"
        "From: <sip:x@y>;tag=f\r\nTo: <sip:b@y>{2}\r\nCall-ID: hand{1}\r\nCSeq: 7 {0}\r\n{3}"
        "Content-Length: {4}\r\n\r\n{5}",
        method, ++n, to_tag.empty() ? "" : fmt::format(";tag={}", to_tag), extra, body.size(),
        body);
}

TEST(Agent, BadInputIsAnsweredAndCounted) {
    struct Case {
        std::string message;
        std::string answer;
        bool counted;
    };
    const std::string contact = "Contact: <sip:x@10.20.0.9>\r\n";
    const std::string sdp_type = contact + "Content-Type: application/sdp\r\n";
    const std::string good =
        "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nt=0 0\r\nm=audio 4 RTP/AVP 0\r\n";
    const std::vector<Case> cases{
        {request("INVITE", contact + "Require: gizmo, 100rel\r\n"), "SIP/2.0 420", false},
        {request("INVITE", contact + "Content-Type: text/plain\r\n", "hm"), "SIP/2.0 415", false},
        {request("INVITE", sdp_type, "hm"), "SIP/2.0 400", true},
        {request("INVITE", sdp_type, "v=0\r\nm=video 5 RTP/AVP 31\r\n"), "SIP/2.0 488", true},
        {request("INVITE", "Content-Type: application/sdp\r\n", good), "SIP/2.0 400", true},
        {request("INVITE", contact, {}, "nobody"), "SIP/2.0 481", false},
        {request("BYE", {}, {}, "nobody"), "SIP/2.0 481", false},
        {request("BYE", {}), "SIP/2.0 481", false},
        {request("PRACK", "RAck: 1 1 INVITE\r\n", {}, "nobody"), "SIP/2.0 481", false},
        {request("CANCEL", {}), "SIP/2.0 481", false},
        {request("MESSAGE", "Content-Type: text/plain\r\n", std::string(33'000, 'x')),
         "SIP/2.0 413", true},
        {request("MESSAGE", "From: <sip:z@y>;tag=2\r\n"), "SIP/2.0 400", true},
    };
    for (const auto& c : cases) {
        Pair p;
        p.deliver = false;
        EXPECT_TRUE(p.give(p.b, c.message)) << c.message;
        ASSERT_FALSE(p.b.sent.empty()) << c.message;
        EXPECT_TRUE(p.b.sent[0].starts_with(c.answer)) << c.message << "\n" << p.b.sent[0];
        EXPECT_EQ(p.b.stats.bad_input.total(), c.counted ? 1U : 0U) << c.message;
        EXPECT_EQ(p.b.agent.live_call(), nullptr);
    }
    Pair p;
    EXPECT_TRUE(p.give(p.b, request("ACK", {}, {}, "nobody")));
    EXPECT_TRUE(p.b.sent.empty());
    EXPECT_EQ(p.b.stats.bad_input.total(), 1U);
    EXPECT_FALSE(p.give(p.b, request("OPTIONS", {}))) << "the phone's to answer";
    EXPECT_FALSE(p.give(p.b, request("REFER", {})));
}

TEST(Agent, RequestsOutOfOrderAndPracksOfNothing) {
    Pair p;
    ASSERT_TRUE(p.a.agent.call(p.b_uri, Duration{0}));
    p.run(seconds(1));
    const std::string bye = p.a.last_sent("PRACK");
    // The PRACK once more under another branch: its CSeq is over.
    std::string stale = bye;
    stale.replace(stale.find("z9hG4bK"), 7, "z9hG4bKx");
    EXPECT_TRUE(p.give(p.b, stale));
    EXPECT_TRUE(p.b.sent.back().starts_with("SIP/2.0 500")) << p.b.sent.back();
    // A PRACK in order, of a provisional answer that never was.
    const auto cseq = header(p.a.last_sent("PRACK"), sip::HeaderId::cseq);
    std::string late = stale;
    late.replace(late.find("CSeq: " + cseq), 6 + cseq.size(), "CSeq: 90000 PRACK");
    late.replace(late.find("z9hG4bKx"), 8, "z9hG4bKy");
    EXPECT_TRUE(p.give(p.b, late));
    EXPECT_TRUE(p.b.sent.back().starts_with("SIP/2.0 481")) << p.b.sent.back();
    EXPECT_NE(p.b.agent.live_call(), nullptr);
}

TEST(Agent, TablesAreBounded) {
    Pair p;
    p.deliver = false;
    // Never answered, never acknowledged.
    for (int i = 0; i < 1000; ++i) {
        (void)p.a.agent.message(p.b_uri, "x", {});
        p.give(p.b, request("INVITE", "Contact: <sip:x@10.20.0.9>\r\n"));
    }
    EXPECT_EQ(p.a.sent_count("MESSAGE"), Agent::max_transactions);
    EXPECT_EQ(p.a.stats.messages_sent, Agent::max_transactions);
    EXPECT_GE(p.a.stats.bad_input.total(), 1000U - Agent::max_transactions);
    EXPECT_EQ(p.b.sent_count("SIP/2.0 486"), Agent::max_transactions - 1);
    // All of it goes by itself.
    p.run(seconds(80));
    ASSERT_TRUE(p.a.agent.message(p.b_uri, "x", {}));
    EXPECT_TRUE(p.give(p.b, request("MESSAGE", {})));
    EXPECT_TRUE(p.b.sent.back().starts_with("SIP/2.0 200"));
}

// Any bytes in any place of the messages of a call: no crash, and the call ends one way or the
// other.
TEST(Call, SurvivesSpoiltMessages) {
    std::uint64_t completed = 0, ended = 0, spoilt = 0;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Pair p;
        SeededRandom r(seed);
        p.b.options.answer_after = milliseconds(100);
        p.pass = [&](const End& from, std::string_view bytes) {
            if (r.below(8) != 0) return true;
            std::string text(bytes);
            for (int i = 0; i < 3; ++i)
                text[r.below(text.size())] = static_cast<char>(' ' + r.below(94));
            ++spoilt;
            p.give(&from == &p.a ? p.b : p.a, text);
            return false;
        };
        ASSERT_TRUE(p.a.agent.call(p.b_uri, seconds(1)));
        p.run(seconds(120));
        p.a.agent.hang_up();
        p.b.agent.hang_up();
        p.run(seconds(120));
        ended += p.a.agent.live_call() == nullptr && p.b.agent.live_call() == nullptr ? 1U : 0U;
        completed += p.a.facts.completed ? 1U : 0U;
    }
    EXPECT_EQ(ended, 200U);
    EXPECT_GT(spoilt, 200U);
    EXPECT_GT(completed, 100U);
}

}  // namespace
}  // namespace gmgate::ue
