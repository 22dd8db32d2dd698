// Emergency calls in clear of phones that are not registered (A6, S3; TS 24.229 5.2.10.2).

#include "tests/support/emergency_call.h"

namespace gmgate::test {
namespace {

std::size_t at_core(const World& w) {
    return w.home.inbox.size();
}

TEST(EmergencyInClear, RefusedUnlessPolicyAllows) {
    World w;
    Phone& p = w.phone();
    const ClearCall call(w, p);
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(at_core(w), 0U);
    EXPECT_EQ(w.drops(Reason::unprotected_request), 1U);
    w.nothing_left();
}

TEST(EmergencyInClear, GoesToTheECscfAsFromNobody) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p,
                   "Route: <sip:10.1.0.1;lr>, <sip:192.0.2.9:6060;lr>\r\n"
                   "P-Asserted-Identity: <sip:bob@home.example>\r\n"
                   "P-Preferred-Identity: <sip:bob@home.example>\r\n"
                   "Authorization: Digest username=\"bob@home.example\",realm=\"x\",nonce=\"\","
                   "uri=\"sip:x\",response=\"\",integrity-protected=\"yes\"\r\n"
                   "P-Access-Network-Info: 3GPP-NR;network-provided\r\n"
                   "P-Charging-Vector: icid-value=mine\r\n"
                   "Security-Verify: ipsec-3gpp;alg=null\r\nRequire: sec-agree\r\n"
                   "Proxy-Require: sec-agree\r\n");
    ASSERT_TRUE(call.reached());
    EXPECT_EQ(p.last_status(), 100);
    const Wire& sent = call.invite;
    EXPECT_EQ(sent.flow.remote, ep(e_cscf));
    EXPECT_EQ(sent.message.uri(), "urn:service:sos");
    EXPECT_EQ(sent.message.header("Route"), "<sip:192.0.2.30:5070;lr>");
    for (const std::string_view gone :
         {"P-Asserted-Identity", "P-Preferred-Identity", "Authorization", "P-Access-Network-Info",
          "Security-Verify", "Require", "Proxy-Require"})
        EXPECT_FALSE(sent.message.has(gone)) << gone;
    EXPECT_TRUE(sent.message.header("P-Charging-Vector").starts_with("icid-value=\""));
    const std::string route = sent.message.header("Record-Route");
    EXPECT_TRUE(route.ends_with(", <sip:10.1.0.1:5060;lr>")) << route;
    EXPECT_NE(route.find("@pcscf.visited.example:5060;lr>"), std::string::npos) << route;
    EXPECT_EQ(sent.message.header("Max-Forwards"), "69");

    call.answer(183);
    EXPECT_EQ(p.last_status(), 183);
    EXPECT_FALSE(p.last().message.has("P-Charging-Vector"));
    call.say("PRACK");
    ASSERT_EQ(w.home.inbox.back().message.method(), "PRACK");
    EXPECT_EQ(w.home.inbox.back().message.header("Route"), e_cscf_hop);
    EXPECT_EQ(w.home.inbox.back().message.uri(), psap);
    w.home.reply(w.home.inbox.back(), 200);
    w.run();
    EXPECT_EQ(p.last_status(), 200);

    // The far end speaks, too: to where the call came from, whatever the Contact was.
    call.far_says("UPDATE", 1);
    ASSERT_EQ(p.last().message.method(), "UPDATE");
    EXPECT_EQ(p.last().flow.remote, (Endpoint{p.address, p.port}));
    EXPECT_EQ(p.last().flow.local, ep("10.1.0.1:5060"));
    EXPECT_FALSE(p.last().message.has("Route"));
    call.phone_answers(200);
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_FALSE(w.home.inbox.back().message.has("P-Asserted-Identity"));

    call.answer(200);
    call.say("ACK");
    EXPECT_EQ(w.home.inbox.back().message.method(), "ACK");
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    w.advance(60s);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U) << "it was acknowledged";
    call.hang_up();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, TheFarEndHangsUp) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.establish();
    call.far_says("BYE", 1);
    ASSERT_EQ(p.last().message.method(), "BYE");
    call.phone_answers(200);
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, IsCancelled) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    Phone& other = w.phone("mallory", "10.2.0.66");
    ClearCall call(w, p);
    call.answer(180);
    other.send_clear(call.cancel());
    w.run();
    EXPECT_EQ(other.last_status(), 403) << "somebody else's";
    EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U);
    p.send_clear(call.cancel());
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "CANCEL");
    EXPECT_EQ(w.home.inbox.back().flow.remote, ep(e_cscf));
    w.home.reply(call.invite, 487);
    w.run();
    EXPECT_EQ(p.last_status(), 487);
    // Its ACK ends with us, and is no unprotected request.
    const auto before = at_core(w);
    p.send_clear(
        replace_once(replace_once(with_header(call.text, "CSeq", "1 ACK"), "INVITE urn", "ACK urn"),
                     "To: <urn:service:sos>", "To: <urn:service:sos>;tag=home"));
    w.run();
    EXPECT_EQ(at_core(w), before);
    EXPECT_EQ(w.drops(Reason::unprotected_request), 1U) << "mallory's";
    w.advance(2s);
    EXPECT_EQ(count_of(p.inbox, "487"), 1U) << "acknowledged";
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, WhatComesAgainIsAbsorbed) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    p.send_clear(call.text);
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "INVITE"), 1U);
    call.establish();
    const std::string bye = call.request("BYE");
    p.send_clear(bye);
    w.run();
    w.home.reply(*latest(w.home.inbox, "BYE"), 200);
    w.run();
    // The call is over, but its 200 was lost on the way to the phone.
    const auto answers = count_of(p.inbox, "200");
    p.send_clear(bye);
    w.run();
    EXPECT_EQ(count_of(p.inbox, "200"), answers + 1);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, NothingElseComesInClear) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    for (const std::string_view method : {"MESSAGE", "OPTIONS", "SUBSCRIBE", "REFER", "BYE"}) {
        ClearCall(w, p, {}, method);
        EXPECT_EQ(p.last_status(), 403) << method;
    }
    // Numbers that are dialled are for those who are registered; and no To tag makes a dialog.
    const ClearCall model(w, p);
    ASSERT_TRUE(model.reached());
    w.advance(1s);
    const auto before = at_core(w);
    Phone& q = w.phone("bob", "10.2.0.2");
    for (const std::string& text :
         {replace_once(model.text, "INVITE urn:service:sos", "INVITE tel:112"),
          replace_once(model.text, "INVITE urn:service:sos", "INVITE sip:bob@home.example"),
          replace_once(model.text, "To: <urn:service:sos>", "To: <urn:service:sos>;tag=psap")}) {
        q.send_clear(text);
        w.run();
        EXPECT_EQ(q.last_status(), 403) << text;
    }
    EXPECT_EQ(at_core(w), before);
    w.expect_no_leak(0);
}

// Knowing all of a call does not help who is not where it came from.
TEST(EmergencyInClear, NobodyElseSpeaksInIt) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    Phone& other = w.phone("mallory", "10.2.0.66");
    ClearCall call(w, p);
    call.establish();
    for (const std::string_view method : {"BYE", "UPDATE", "INVITE", "INFO"}) {
        const auto before = at_core(w);
        other.send_clear(call.request(method));
        w.run();
        EXPECT_EQ(other.last_status(), 403) << method;
        // The same address, another port: somebody else behind its NAT.
        p.port = 5099;
        p.send_clear(call.request(method));
        w.run();
        EXPECT_EQ(p.last_status(), 403) << method;
        p.port = 5060;
        EXPECT_EQ(at_core(w), before) << method;
    }
    // Nor does an answer of somebody else's count.
    call.far_says("UPDATE", 1);
    ASSERT_EQ(p.last().message.method(), "UPDATE");
    sip::Message m;
    const std::string asked = p.last().message.text;
    ASSERT_EQ(m.parse(std::string_view(asked)), sip::ParseStatus::ok);
    std::string forged;
    ASSERT_TRUE(sip::build_response(m, 200, {}, forged));
    const auto before = at_core(w);
    other.send_clear(forged);
    w.run();
    EXPECT_EQ(at_core(w), before);
    EXPECT_EQ(w.drops(Reason::stray_response), 1U);
    call.phone_answers(200);
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    call.hang_up();
    w.expect_no_leak(0);
}

// In an open call the stranger reaches the E-CSCF and nobody else, and only as calls are made.
TEST(EmergencyInClear, ACallLeadsNowhereElse) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.establish();
    call.say("INFO", "sip:bob@home.example",
             "Route: <sip:192.0.2.9:6060;lr>, <sip:10.9.9.9;lr>\r\n"
             "P-Asserted-Identity: <sip:bob@home.example>\r\n");
    const Wire sent = w.home.inbox.back();
    ASSERT_EQ(sent.message.method(), "INFO");
    EXPECT_EQ(sent.flow.remote, ep(e_cscf));
    EXPECT_EQ(sent.message.uri(), psap);
    EXPECT_EQ(sent.message.header("Route"), e_cscf_hop);
    EXPECT_FALSE(sent.message.has("P-Asserted-Identity"));
    const auto before = at_core(w);
    for (const std::string_view method : {"MESSAGE", "REFER", "SUBSCRIBE", "OPTIONS", "PUBLISH"}) {
        call.say(method);
        EXPECT_EQ(p.last_status(), 403) << method;
    }
    EXPECT_EQ(at_core(w), before);
    w.home.reply(sent, 200);
    w.run();
    // What is to reach the phone names this call, in its dialog.
    call.far_says("BYE", 1, "somebody");
    EXPECT_EQ(w.home.inbox.back().message.status(), 481);
    call.hang_up();
    w.expect_no_leak(0);
}

// A protected port takes none (A6): the gateway itself, were the packet layer to let it pass.
TEST(EmergencyInClear, NotOnAProtectedPort) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.establish();
    const auto before = at_core(w);
    for (std::string text : {call.text, call.request("BYE")}) {
        const sip::Flow flow{sip::Transport::udp, ep("10.1.0.1:6100"), {p.address, p.port}, 0};
        w.gateway->gm().on_message(flow, text);
        w.run();
    }
    EXPECT_EQ(at_core(w), before);
    EXPECT_EQ(w.drops(Reason::no_sa), 2U);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    call.hang_up();
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, OneThatNobodyAcknowledgesIsEnded) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.answer(200);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    w.advance(33s);
    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->flow.remote, ep(e_cscf));
    EXPECT_EQ(bye->message.uri(), psap);
    EXPECT_EQ(bye->message.header("Route"), e_cscf_hop);
    EXPECT_EQ(bye->message.header("CSeq"), "2 BYE");
    w.home.reply(*bye, 200);
    EXPECT_EQ(p.last().message.method(), "BYE") << "and it is told";
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, OneInWhichNobodySpeaksIsForgotten) {
    World::Options o = emergencies_in_clear();
    o.policy.emergency_idle = 600s;
    World w(o);
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.establish();
    w.advance(500s);
    call.say("INFO");
    w.home.reply(w.home.inbox.back(), 200);
    w.advance(500s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    w.advance(200s);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U);
    call.say("BYE");
    EXPECT_EQ(p.last_status(), 403);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, OneThatRingsForeverIsCancelled) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    call.answer(180);
    w.advance(186s);
    EXPECT_EQ(w.home.inbox.back().message.method(), "CANCEL");
    w.advance(40s);
    EXPECT_EQ(p.last_status(), 487);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, AnECscfThatIsSilentIsToldOf) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    const ClearCall call(w, p);
    w.advance(33s);
    EXPECT_EQ(p.last_status(), 504);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, OverTcpTheConnectionIsTheCall) {
    World w(emergencies_in_clear());
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    p.port = 40'001;
    ClearCall call(w, p);
    call.establish();
    EXPECT_EQ(p.last().flow.connection, p.clear_connection);
    // Another connection, while this one stands: somebody else at that address.
    const auto own = p.clear_connection;
    const auto before = at_core(w);
    p.clear_connection = ++w.next_connection;
    p.port = 40'002;
    call.say("BYE");
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(at_core(w), before);
    // It is lost: we open none, and the phone comes back on another.
    w.gateway->gm().on_connection_closed(
        {sip::Transport::tcp, ep("10.1.0.1:5060"), {p.address, 40'001}, own}, true);
    call.far_says("UPDATE", 1);
    EXPECT_EQ(w.home.inbox.back().message.status(), 480);
    Phone& other = w.phone("mallory", "10.2.0.66", sip::Transport::tcp);
    other.send_clear(call.request("BYE"));
    w.run();
    EXPECT_EQ(other.last_status(), 403);
    call.say("INFO");
    ASSERT_EQ(w.home.inbox.back().message.method(), "INFO");
    w.home.reply(w.home.inbox.back(), 200);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    call.far_says("UPDATE", 2);
    EXPECT_EQ(p.last().message.method(), "UPDATE");
    EXPECT_EQ(p.last().flow.connection, p.clear_connection);
    call.phone_answers(200);
    call.hang_up();
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, ForksAreOneCall) {
    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p);
    for (int i = 0; i < 20; ++i) call.answer(183, "fork" + std::to_string(i));
    EXPECT_LE(w.gateway->dialogs(), 8U);
    call.answer(200);
    EXPECT_EQ(p.last_status(), 200);
    call.say("ACK");
    w.advance(40s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    call.hang_up();
    w.expect_no_leak(0);
}

void lose_connection(World& w, const Phone& p) {
    w.gateway->gm().on_connection_closed(
        {sip::Transport::tcp, ep("10.1.0.1:5060"), {p.address, p.port}, p.clear_connection}, true);
}

// Nobody says a word for long while they talk: the connection is needed all the same.
TEST(EmergencyInClear, ItsConnectionIsNeededWhileItRuns) {
    World w(emergencies_in_clear());
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ClearCall call(w, p);
    call.establish();
    sip::Flow flow{sip::Transport::tcp, ep("10.1.0.1:5060"), {p.address, p.port}, 0};
    EXPECT_FALSE(w.gateway->carries_call(flow));
    flow.connection = p.clear_connection;
    EXPECT_TRUE(w.gateway->carries_call(flow));
    flow.remote.address = ip("10.2.0.2");
    EXPECT_FALSE(w.gateway->carries_call(flow));
    flow.remote.address = p.address;
    call.hang_up();
    w.advance(40s);
    EXPECT_FALSE(w.gateway->carries_call(flow));
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, TheFarEndHangsUpOnALostConnection) {
    World w(emergencies_in_clear());
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ClearCall call(w, p);
    call.establish();
    lose_connection(w, p);
    call.far_says("BYE", 1);
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

TEST(EmergencyInClear, OneWithoutAConnectionIsNotKeptForLong) {
    World w(emergencies_in_clear());
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ClearCall call(w, p);
    call.establish();
    lose_connection(w, p);
    w.advance(100s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    // Back in time, it stays.
    p.clear_connection = ++w.next_connection;
    call.say("ACK");
    w.advance(200s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    lose_connection(w, p);
    w.advance(121s);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U) << "they may still talk";
    w.expect_no_leak(0);
}

// The phone calls again: what it lost stands in nobody's way.
TEST(EmergencyInClear, LostOnesGiveWayToTheirSource) {
    World w(emergencies_in_clear());
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ClearCall first(w, p);
    first.establish();
    ClearCall second(w, p);
    second.establish();
    EXPECT_FALSE(ClearCall(w, p).reached());
    lose_connection(w, p);
    p.clear_connection = ++w.next_connection;
    ClearCall third(w, p);
    ASSERT_TRUE(third.reached());
    w.advance(50ms);
    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->flow.remote, ep(e_cscf));
    EXPECT_EQ(bye->message.header("Call-ID"), first.call_id) << "the oldest";
    w.home.reply(*bye, 200);
    third.establish();
    w.advance(125s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    third.hang_up();
    w.expect_no_leak(0);
}

// S3: what others begin in its name takes nothing from who shows that its address is its own.
TEST(EmergencyInClear, ForgedOnesDenyNobodyACallByTcp) {
    World w(emergencies_in_clear());
    Phone& forged = w.phone();
    for (int i = 0; i < 40; ++i) {
        const ClearCall call(w, forged);
        w.advance(300ms);
    }
    EXPECT_EQ(w.drops(Reason::emergency_limit), 38U);
    Phone& real = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    for (int i = 0; i < 2; ++i) {
        ClearCall call(w, real);
        ASSERT_TRUE(call.reached());
        call.establish();
    }
    EXPECT_FALSE(ClearCall(w, real).reached());
}

// Of those that may be invented the oldest gives way, not the one that comes.
TEST(EmergencyInClear, TheOldestUnprovenOneGivesWay) {
    World::Options o = emergencies_in_clear();
    o.policy.limits.emergency_calls = 4;
    World w(o);
    ClearCall first(w, w.phone("a", "10.2.0.1"));
    first.answer(180);
    ClearCall proven(w, w.phone("b", "10.2.0.2"));
    proven.establish();
    w.advance(10s);
    ClearCall third(w, w.phone("c", "10.2.0.3"));
    ASSERT_TRUE(third.reached());
    w.advance(10s);
    EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U) << "there was room";
    ClearCall fourth(w, w.phone("d", "10.2.0.4"));
    ASSERT_TRUE(fourth.reached());
    w.advance(50ms);
    const Wire* cancel = latest(w.home.inbox, "CANCEL");
    ASSERT_NE(cancel, nullptr);
    EXPECT_EQ(cancel->message.header("Call-ID"), first.call_id);
    EXPECT_EQ(first.p.last_status(), 503);
    w.home.reply(first.invite, 487);
    w.run();
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    proven.hang_up();
    w.expect_no_leak(0);
}

// It comes in clear, as everything in such a call.
TEST(EmergencyInClear, AnAnswerToCancelEndsItsRepetition) {
    for (const bool forged : {false, true}) {
        World w(emergencies_in_clear());
        Phone& p = w.phone();
        Phone& other = w.phone("mallory", "10.2.0.66");
        const ClearCall others(w, other);  // so that answers from there are looked at
        ClearCall call(w, p);
        call.establish();
        const std::string invite = call.from_far("INVITE", 1);
        const auto say = [&](const std::string& text) {
            Wire wire;
            wire.to = Wire::To::gateway_core;
            wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep(e_cscf), 0};
            wire.message.text = text;
            w.queue.push_back(std::move(wire));
            w.run();
        };
        say(invite);
        ASSERT_EQ(p.last().message.method(), "INVITE");
        const Wire asked = p.last();
        call.phone_answers(180);
        say(replace_once(replace_once(invite, "INVITE sip:", "CANCEL sip:"), "1 INVITE",
                         "1 CANCEL"));
        ASSERT_EQ(p.last().message.method(), "CANCEL");
        sip::Message m;
        const std::string cancel = p.last().message.text;
        ASSERT_EQ(m.parse(std::string_view(cancel)), sip::ParseStatus::ok);
        std::string ok;
        ASSERT_TRUE(sip::build_response(m, 200, {}, ok));
        (forged ? other : p).send_clear(ok);
        w.run();
        w.advance(10s);
        if (forged) {
            EXPECT_GT(count_of(p.inbox, "CANCEL"), 3U);
        } else {
            EXPECT_EQ(count_of(p.inbox, "CANCEL"), 1U);
        }
    }
}

}  // namespace
}  // namespace gmgate::test
