// E2–E4, E6, N1, S1, S2, B7: what of them the whole gateway shows in virtual time. Each is a share;
// the wire and the packet layer have theirs.

#include "tests/conformance/share.h"
#include "tests/support/calls.h"
#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

using conformance::share;

// ---- B7 ----

// The user of a REGISTER is in From, To and username; on an SA all must be its user's.
TEST(B7, TheFromOfAProtectedRegisterIsTheUsers) {
    for (const bool second : {false, true}) {
        World w(with_gmhome());
        Phone& alice = w.phone("alice", "10.2.0.1");
        Phone& mallory = w.phone("mallory", "10.2.0.2");
        ASSERT_TRUE(alice.register_once());
        ASSERT_TRUE(mallory.register_once());
        if (second) {
            ASSERT_TRUE(mallory.challenged(true));
        }
        const auto at_home = w.home.inbox.size();
        const auto heard = mallory.inbox.size();
        RegisterOptions o;
        if (second) {
            o.authorization = mallory.right_answer();
            o.verify = mallory.pending->server;
        }
        const auto* on = second ? &*mallory.pending : &mallory.current();
        std::string text = mallory.register_text(o, on);
        const std::string from = "From: <" + mallory.impu + ">";
        ASSERT_NE(text.find(from), std::string::npos);
        text.replace(text.find(from), from.size(), "From: <" + alice.impu + ">");
        mallory.send_on(*on, text);
        w.advance(33s);
        EXPECT_EQ(w.home.inbox.size(), at_home);
        EXPECT_EQ(mallory.inbox.size(), heard) << "never answered";
        EXPECT_EQ(w.drops(Reason::wrong_sa), 1U);
        w.expect_served(alice, 2);
        w.expect_served(mallory, 2);
    }
}

// ---- E2 ----

// Against gmhome: its Service-Route and its list of the user's identities.
TEST(E2, RouteIdentityAndSecurityHeaders) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("MESSAGE", "sip:echo@home.example",
                                     "P-Asserted-Identity: <sip:president@home.example>\r\n"
                                     "P-Preferred-Identity: <tel:+15551000>\r\n"
                                     "Route: <sip:192.0.2.66;lr>\r\nSecurity-Verify: " +
                                         p.current().server +
                                         "\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\n"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    const Sip& m = w.home.inbox.back().message;
    EXPECT_EQ(m.header("P-Asserted-Identity"), "<tel:+15551000>") << "one of its own";
    EXPECT_EQ(m.header("Route"), w.home.service_route) << "replaced";
    for (const std::string_view name : {"Security-Verify", "Security-Client", "Require",
                                        "Proxy-Require", "P-Preferred-Identity"}) {
        EXPECT_FALSE(m.has(name)) << name;
    }
}

TEST(E2, AnotherRouteIsRefusedByPolicy) {
    auto options = with_gmhome();
    options.policy.service_route_mismatch = registration::ServiceRouteMismatch::reject;
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto at_home = w.home.inbox.size();
    p.send_on(p.current(),
              p.request("MESSAGE", "sip:echo@home.example", "Route: <sip:192.0.2.66;lr>\r\n"));
    w.run();
    EXPECT_EQ(p.last_status(), 400);
    EXPECT_EQ(w.home.inbox.size(), at_home);
}

// What the user may not assert: the identity of another, one the network barred, and what only
// networks say. In its answers as in its requests.
TEST(E2, NothingIsAssertedThatIsNotTheUsers) {
    World w;
    w.home.associated = "<sip:real@home.example>";
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (const std::string& preferred : {p.impu, std::string("sip:bob@home.example")}) {
        p.send_on(p.current(),
                  p.request("MESSAGE", "sip:bob@home.example",
                            "P-Preferred-Identity: <" + preferred +
                                ">\r\nP-Charging-Vector: icid-value=1\r\nP-Access-Network-Info: "
                                "3GPP-E-UTRAN;network-provided\r\nP-Served-User: <sip:x@y>\r\n"));
        w.run();
        const Sip& m = latest(w.home.inbox, "MESSAGE")->message;
        EXPECT_EQ(m.header("P-Asserted-Identity"), "<sip:real@home.example>");
        EXPECT_FALSE(m.contains("icid-value=1\r\n"));
        EXPECT_FALSE(m.has("P-Access-Network-Info"));
        EXPECT_FALSE(m.has("P-Served-User"));
    }
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    p.answer(p.last(), 200, "P-Asserted-Identity: <sip:evil@home.example>\r\n");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.header("P-Asserted-Identity"), "<sip:real@home.example>");
    w.expect_no_leak(1);
}

// Our protected port on the phone's side stands in Record-Route, and routes in the dialog are
// loose: the Service-Route is asked for no more, the dialog's own way is taken.
TEST(E2, RecordRouteAndLooseRoutingInDialogs) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    const std::string routes = call.invite.message.header("Record-Route");
    EXPECT_TRUE(routes.ends_with(
        ";lr>, <sip:10.1.0.1:" + std::to_string(p.current().numbers.port_ps) + ";lr>"))
        << routes;
    call.establish();
    call.say("INFO");
    const Wire* info = latest(w.home.inbox, "INFO");
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(info->message.header("Route"), core_hop);
    EXPECT_EQ(info->message.uri(), far_target);
    call.say("BYE");
    w.expect_no_leak(1);
}

// ---- E3 ----

TEST(E3, OnlyByTheFlowTokenAndOnTheLiveSet) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w;
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
        w.run();
        ASSERT_EQ(p.last().message.method(), "MESSAGE");
        EXPECT_EQ(p.last().set, w.set_of(p.current()));
        EXPECT_EQ(p.last().flow.transport, transport);
        EXPECT_FALSE(p.last().message.has("P-Charging-Vector"));
        p.answer(p.last(), 200);
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 200);
        const auto heard = p.inbox.size();
        w.home.request("MESSAGE", "<sip:192.0.2.1:5060;lr>", p.contact());
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 404);
        EXPECT_EQ(p.inbox.size(), heard);
    }
}

TEST(E3, BeyondThirteenHundredOctetsOverTcp) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), {}, std::string(2000, 'x'));
    w.run();
    EXPECT_EQ(p.last().flow.transport, sip::Transport::tcp);
    EXPECT_EQ(p.last().set, w.set_of(p.current()));
}

// The set of the moment, also in a dialog older than it, and none once there is none.
TEST(E3, ByTheDialogOnWhateverSetIsLive) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.establish();
        ASSERT_TRUE(p.reregister());
        call.say("INFO");
        from_core(w, call.from_far("INFO", 1));
        w.run();
        ASSERT_EQ(p.last().message.method(), "INFO");
        EXPECT_EQ(p.last().set, w.set_of(p.current()));
        EXPECT_EQ(p.last().flow.transport, transport);
        p.answer(p.last(), 200);
        w.run();
        ASSERT_TRUE(w.gateway->deregister(p.impi));
        w.advance(40s);
        const auto heard = p.inbox.size();
        from_core(w, call.from_far("INFO", 2));
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 480);
        EXPECT_EQ(p.inbox.size(), heard);
        w.expect_no_leak(0);
    }
}

// ---- E4 ----

TEST(E4, AnswersOfTheRfc) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto ask = [&](std::string_view from, std::string_view to) {
        std::string text = p.request("MESSAGE", "sip:echo@home.example");
        text.replace(text.find(from), from.size(), to);
        p.send_on(p.current(), text);
        w.run();
        return p.last_status();
    };
    EXPECT_EQ(ask("Max-Forwards: 70", "Max-Forwards: 0"), 483);
    EXPECT_EQ(ask("Max-Forwards: 70", "Max-Forwards: 70\r\nProxy-Require: warp-drive"), 420);
    EXPECT_EQ(ask("MESSAGE sip:echo@home.example", "MESSAGE http://home.example/"), 416);
    EXPECT_EQ(ask("SIP/2.0\r\n", "SIP/3.0\r\n"), 505);
    EXPECT_EQ(ask(" MESSAGE\r\n", " OPTIONS\r\n"), 400) << "CSeq names another method";
    const std::string cancel =
        p.request("CANCEL", "sip:bob@home.example", "Contact: <" + p.contact() + ">\r\n");
    p.send_on(p.current(), cancel);
    w.run();
    EXPECT_EQ(p.last_status(), 481);
    w.expect_no_leak(1);
}

TEST(E4, RetransmissionsAreAbsorbedAndSilenceEnds) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto at_home = w.home.inbox.size();
    const std::string text = p.request("MESSAGE", "sip:bob@home.example");
    for (int i = 0; i < 3; ++i) {
        p.send_on(p.current(), text);
        w.run();
    }
    EXPECT_EQ(w.home.inbox.size(), at_home + 1);
    EXPECT_EQ(p.last_status(), 200);
    // RFC 4320: a 408 is for INVITE alone.
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.advance(33s);
    EXPECT_EQ(w.home.inbox.size(), at_home + 1);
    EXPECT_GT(count_of(p.inbox, "MESSAGE"), 5U) << "asked again and again";
    w.home.request("INVITE", w.home.paths[p.impi], p.contact());
    w.advance(33s);
    EXPECT_EQ(w.home.inbox.back().message.status(), 408);
    w.expect_no_leak(1);
}

// A loop is one, a spiral is none.
TEST(E4, LoopsAreFound) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    std::string mine = p.request("MESSAGE", "sip:bob@home.example");
    p.send_on(p.current(), mine);
    w.run();
    const Wire* gone = latest(w.home.inbox, "MESSAGE");
    ASSERT_NE(gone, nullptr);
    const std::string vias = gone->message.header("Via");
    const auto at_home = w.home.inbox.size();
    for (const bool moved : {true, false}) {
        std::string again =
            replace_once(mine, "branch=z9hG4bK", moved ? "branch=z9hG4bKa" : "branch=z9hG4bKb");
        if (moved)
            again = replace_once(again, "sip:bob@home.example SIP", "sip:carl@x.example SIP");
        again = replace_once(again, "Max-Forwards",
                             "Via: " + vias.substr(0, vias.find(',')) + "\r\nMax-Forwards");
        p.send_on(p.current(), again);
        w.run();
        EXPECT_EQ(p.last_status(), moved ? 200 : 482);
        EXPECT_EQ(w.home.inbox.size(), at_home + 1);
    }
    w.expect_no_leak(1);
}

// A call as clauses 9, 13, 16 and 17 have it: 100 at once, forked answers, each ACK its way, CANCEL
// hop by hop, the ACK of a refusal kept, timer C.
TEST(E4, CallsForkCancelAndEnd) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall forked(w, p);
    EXPECT_EQ(p.last_status(), 100);
    forked.answer(180, "one");
    forked.answer(180, "two");
    forked.answer(200, "one");
    forked.answer(200, "two");
    EXPECT_EQ(count_of(p.inbox, "200"), 3U) << "with REGISTER's";
    for (const std::string_view tag : {"one", "two"}) {
        forked.say("ACK", tag);
        EXPECT_EQ(latest(w.home.inbox, "ACK")->message.header("To"),
                  "<sip:bob@home.example>;tag=" + std::string(tag));
    }
    w.home.silent = false;
    forked.say("BYE", "one");
    forked.say("BYE", "two");

    OutgoingCall cancelled(w, p);
    std::string cancel = replace_once(cancelled.text, "INVITE ", "CANCEL ");
    p.send_on(p.current(), replace_once(cancel, " INVITE\r\n", " CANCEL\r\n"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U) << "not before a first answer";
    cancelled.answer(180);
    ASSERT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
    w.home.reply(*latest(w.home.inbox, "CANCEL"), 200);
    w.home.reply(cancelled.invite, 487);
    w.run();
    EXPECT_EQ(p.last_status(), 487);
    const auto acks = count_of(w.home.inbox, "ACK");
    std::string ack = replace_once(cancelled.text, "INVITE ", "ACK ");
    p.send_on(p.current(), replace_once(ack, " INVITE\r\n", " ACK\r\n"));
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), acks) << "hop by hop";

    OutgoingCall ringing(w, p);
    ringing.answer(180);
    w.advance(190s);
    EXPECT_GE(count_of(w.home.inbox, "CANCEL"), 2U) << "timer C";
    w.home.reply(ringing.invite, 487);
    w.run();
    EXPECT_EQ(p.last_status(), 487);
    w.home.silent = false;
    w.expect_no_leak(1);
}

// Strict routers before and behind us (16.4, 16.6 step 6).
TEST(E4, StrictRouters) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    const std::string routes = call.invite.message.header("Record-Route");
    const auto comma = routes.find(", ");
    const std::string core_side = routes.substr(0, comma);
    std::string text = call.from_far("INFO", 1);
    text = replace_once(text, "INFO " + p.contact() + " ",
                        "INFO " + core_side.substr(1, core_side.size() - 2) + " ");
    text = with_header(text, "Route", routes.substr(comma + 2) + ", <" + p.contact() + ">");
    from_core(w, text);
    w.run();
    ASSERT_EQ(p.last().message.method(), "INFO");
    EXPECT_EQ(p.last().message.uri(), p.contact());
    p.answer(p.last(), 200);
    w.run();
    p.send_on(p.current(), with_header(call.request("INFO"), "Route",
                                       "<sip:strict@192.0.2.9:6060>, <sip:next.example;lr>"));
    w.run();
    const Wire* info = latest(w.home.inbox, "INFO");
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(info->message.uri(), "sip:strict@192.0.2.9:6060");
    EXPECT_EQ(info->message.header("Route"),
              "<sip:next.example;lr>, <" + std::string(far_target) + ">");
    call.say("BYE");
    w.expect_no_leak(1);
}

// ---- E6 ----

TEST(E6, BothFamiliesBothTransports) {
    share("control");
    for (const std::string_view address : {"10.2.0.1", "2001:db8:2::1"}) {
        for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
            World w(with_gmhome());
            Phone& p = w.phone("alice", address, transport);
            ASSERT_TRUE(p.register_once());
            ASSERT_TRUE(p.reregister());
            w.expect_served(p);
            p.send_on(p.current(),
                      p.request("MESSAGE", "sip:echo@home.example", {}, std::string(4096, 'x')));
            w.run();
            EXPECT_EQ(p.last_status(), 200) << "4 KB";
            EXPECT_TRUE(w.home.inbox.back().message.contains(std::string(4096, 'x')));
            w.expect_no_leak(1);
        }
    }
}

// ---- S1 ----

// CK, IK and RES of every challenge: in no message to a phone (checked by the world for each), no
// trace, no failure list, no view, no log line.
TEST(S1, NoKeyInAnythingAPersonCanRead) {
    share("control");
    testing::internal::CaptureStderr();
    Procedure c(true);
    RegisterOptions o;
    o.verify = "";
    c.p.send_sm7(o);
    c.w.run();
    ASSERT_TRUE(c.p.challenged(true));
    o = {};
    o.authorization = c.p.wrong_answer();
    c.p.send_sm7(o);
    c.w.run();
    ASSERT_TRUE(c.p.reregister());
    const std::string log = testing::internal::GetCapturedStderr();
    ASSERT_GE(c.w.keys.size(), 6U);
    std::string text = log;
    for (const auto& r : c.w.gateway->trace().of_user(c.p.impi)) text += r.summary() + "\n";
    for (const auto& f : c.w.gateway->failures().latest(100))
        text += std::string(name(f.reason)) + "\n";
    ASSERT_FALSE(text.empty());
    for (const std::string& key : c.w.keys) EXPECT_EQ(text.find(key), std::string::npos);
}

// ---- S2 ----

// Every prefix and every single damaged octet of the messages of a registration, from the phone's
// side in clear and on its SA, and from the core: no crash, nothing kept.
TEST(S2, DamagedMessagesFromEverySide) {
    share("control");
    World::Options options = with_gmhome();
    options.policy.limits.register_rate_per_source = 1e9;
    options.policy.limits.register_burst_per_source = 1e9;
    options.policy.limits.register_rate_total = 1e9;
    options.policy.limits.register_burst_total = 1e9;
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const Books before = w.settled();
    std::vector<Wire> seen;
    for (const Wire& wire : w.log) {
        if (wire.to == Wire::To::gateway_gm || wire.to == Wire::To::gateway_core)
            seen.push_back(wire);
    }
    ASSERT_GE(seen.size(), 4U);
    w.network->silent = true;
    SeededRandom dice(7);
    const auto deliver = [&](const Wire& like, std::string text) {
        (like.to == Wire::To::gateway_gm ? w.gateway->gm() : w.gateway->core())
            .on_message(like.flow, text);
        w.queue.clear();
    };
    testing::internal::CaptureStderr();
    for (const Wire& wire : seen) {
        const std::string& text = wire.message.text;
        for (std::size_t n = 0; n < text.size(); n += 1 + dice.below(7))
            deliver(wire, text.substr(0, n));
        for (int i = 0; i < 300; ++i) {
            std::string damaged = text;
            damaged[dice.below(damaged.size())] = static_cast<char>(dice.below(256));
            deliver(wire, damaged);
        }
    }
    (void)testing::internal::GetCapturedStderr();
    w.network->silent = false;
    w.advance(300s);
    EXPECT_EQ(w.settled(), before);
    w.expect_served(p);
}

}  // namespace
}  // namespace gmgate::test
