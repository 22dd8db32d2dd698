// E2–E4, E6, N1, S1, S2, B7: what of them the whole gateway shows in virtual time. Each is a share;
// the wire and the packet layer have theirs.

#include "tests/conformance/share.h"
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

TEST(E2, RouteIdentityAndSecurityHeaders) {
    share("control");
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
    share("control");
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

// ---- E3 ----

TEST(E3, OnlyByTheFlowTokenAndOnTheLiveSet) {
    share("control");
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
    share("control");
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), {}, std::string(2000, 'x'));
    w.run();
    EXPECT_EQ(p.last().flow.transport, sip::Transport::tcp);
    EXPECT_EQ(p.last().set, w.set_of(p.current()));
}

// ---- E4 ----

TEST(E4, AnswersOfTheRfc) {
    share("control");
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
    const std::string invite =
        p.request("CANCEL", "sip:bob@home.example", "Contact: <" + p.contact() + ">\r\n");
    p.send_on(p.current(), invite);
    w.run();
    EXPECT_EQ(p.last_status(), 481);
    w.expect_no_leak(1);
}

TEST(E4, RetransmissionsAreAbsorbedAndSilenceIs408) {
    share("control");
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
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.advance(33s);
    EXPECT_EQ(w.home.inbox.back().message.status(), 408);
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
