// What the core sees of a phone, and what it may do, in each mode of interconnection
// (docs/operating/interconnection.md).

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

using registration::Interconnect;

World::Options options(Interconnect mode) {
    World::Options o;
    o.policy.interconnect = mode;
    return o;
}

std::vector<sip::Via> vias_of(const sip::Message& m) {
    std::vector<sip::Via> vias;
    for (const sip::Value& v : m.values(HeaderId::via)) {
        const auto via = sip::parse_via(v.text);
        EXPECT_TRUE(via) << v.text;
        if (via) vias.push_back(*via);
    }
    return vias;
}

TEST(Interconnect, PathModeKeepsThePhonesVia) {
    World w(options(Interconnect::path));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const std::string text = w.home.inbox.front().message.text;
    sip::Message m;
    ASSERT_EQ(m.parse(std::string_view(text)), sip::ParseStatus::ok);
    const auto vias = vias_of(m);
    ASSERT_EQ(vias.size(), 2U);
    EXPECT_EQ(vias[0].host, "192.0.2.1");
    EXPECT_EQ(vias[1].host, "10.2.0.1");
    EXPECT_EQ(w.home.inbox.front().message.header("Require"), "path");
    EXPECT_FALSE(w.home.inbox.front().message.contains(";ob>"));
}

TEST(Interconnect, ViaModeShowsOneViaAndGivesThePhoneItsOwn) {
    World w(options(Interconnect::via));
    Phone& p = w.phone();
    RegisterOptions o;
    o.rport = true;
    o.branch = "z9hG4bKphone1";
    ASSERT_TRUE(p.challenged(false, o));
    // The answer under SM6 is the phone's again, as it asked for it (RFC 3581).
    const std::string sm6 = p.last().message.header("Via");
    EXPECT_EQ(sm6.find(','), std::string::npos) << sm6;
    EXPECT_NE(sm6.find("10.2.0.1"), std::string::npos) << sm6;
    EXPECT_NE(sm6.find("branch=z9hG4bKphone1"), std::string::npos) << sm6;
    EXPECT_NE(sm6.find("received=10.2.0.1"), std::string::npos) << sm6;
    EXPECT_NE(sm6.find("rport=5060"), std::string::npos) << sm6;
    ASSERT_TRUE(p.answered());
    for (const Wire& wire : w.sent_to(Wire::To::home)) {
        if (wire.message.method() != "REGISTER") continue;
        sip::Message m;
        ASSERT_EQ(m.parse(std::string_view(wire.message.text)), sip::ParseStatus::ok);
        const auto vias = vias_of(m);
        ASSERT_EQ(vias.size(), 1U) << wire.message.text;
        EXPECT_EQ(vias[0].host, "192.0.2.1");
        EXPECT_EQ(vias[0].port, 5060);
        EXPECT_TRUE(vias[0].rport_present);
        EXPECT_TRUE(wire.message.header("Path").ends_with("@pcscf.visited.example:5060;lr;ob>"));
        EXPECT_EQ(wire.message.header("Require"), "");
        EXPECT_NE(wire.message.header("Supported").find("path"), std::string::npos);
        EXPECT_FALSE(wire.message.contains("SIP/2.0/UDP 10.2.0.1"));
    }
}

TEST(Interconnect, ViaModeBothWaysOfARequest) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w(options(Interconnect::via));
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        sip::Message m;
        const std::string text = w.home.inbox.back().message.text;
        ASSERT_EQ(m.parse(std::string_view(text)), sip::ParseStatus::ok);
        ASSERT_EQ(m.method(), "MESSAGE");
        ASSERT_EQ(vias_of(m).size(), 1U);
        EXPECT_EQ(vias_of(m)[0].host, "192.0.2.1");
        ASSERT_EQ(p.last_status(), 200);
        const std::string via = p.last().message.header("Via");
        EXPECT_EQ(via.find(','), std::string::npos);
        EXPECT_NE(via.find("10.2.0.1:7777"), std::string::npos) << via;
        w.expect_no_leak(1);
    }
}

// A core that stored nothing but the flow of our Via: the Contact in the Request-URI says whom.
TEST(Interconnect, ViaModeFindsThePhoneByItsContact) {
    for (const auto mode : {Interconnect::via, Interconnect::path}) {
        World w(options(mode));
        Phone& p = w.phone();
        Phone& other = w.phone("bob", "10.2.0.2");
        ASSERT_TRUE(p.register_once());
        ASSERT_TRUE(other.register_once());
        const auto heard = p.inbox.size();
        const auto others = other.inbox.size();
        w.home.request("MESSAGE", "<sip:192.0.2.1:5060;lr>", p.contact());
        w.run();
        EXPECT_EQ(other.inbox.size(), others);
        if (mode == Interconnect::path) {
            EXPECT_EQ(p.inbox.size(), heard);
            EXPECT_EQ(w.home.inbox.back().message.status(), 404);
            continue;
        }
        ASSERT_EQ(p.inbox.size(), heard + 1);
        EXPECT_EQ(p.last().message.uri(), p.contact());
        EXPECT_EQ(p.last().set, w.set_of(p.current()));
        p.answer(p.last(), 200);
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 200);

        // By the token as in the other mode, and never to a phone that is gone.
        w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
        w.run();
        EXPECT_EQ(p.last().message.method(), "MESSAGE");
        p.answer(p.last(), 200);
        w.run();
        ASSERT_TRUE(p.deregister());
        w.advance(60s);
        const auto after = p.inbox.size();
        w.home.request("MESSAGE", "<sip:192.0.2.1:5060;lr>", p.contact());
        w.run();
        EXPECT_EQ(p.inbox.size(), after);
        EXPECT_EQ(w.home.inbox.back().message.status(), 404);
    }
}

// E3: a Contact that names another phone's address leads to nobody.
TEST(Interconnect, ViaModeTellsPhonesOfOneContactApart) {
    World w(options(Interconnect::via));
    Phone& p = w.phone();
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(p.register_once());
    const std::string hers = "sip:mallory@10.2.0.1:" + std::to_string(p.port_us);
    RegisterOptions o;
    o.contact = "<" + hers + ">";
    ASSERT_TRUE(mallory.challenged(false, o));
    ASSERT_TRUE(mallory.answered(o));
    const auto heard = p.inbox.size();
    const auto hears = mallory.inbox.size();
    w.home.request("MESSAGE", "<sip:192.0.2.1:5060;lr>", hers);
    w.run();
    EXPECT_EQ(p.inbox.size(), heard);
    EXPECT_EQ(mallory.inbox.size(), hears);
    EXPECT_EQ(w.home.inbox.back().message.status(), 404);
    w.home.request("MESSAGE", "<sip:192.0.2.1:5060;lr>", p.contact());
    w.run();
    EXPECT_EQ(p.inbox.size(), heard + 1);
}

// An INVITE: its 100 and ACK are ours, its CANCEL and the ACK of its 200 carry one Via, too.
TEST(Interconnect, ViaModeInvite) {
    World w(options(Interconnect::via));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example"));
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_NE(p.last().message.header("Via").find("10.2.0.1"), std::string::npos);
    for (const Wire& wire : w.sent_to(Wire::To::home))
        EXPECT_EQ(wire.message.header("Via").find("10.2.0.1"), std::string::npos);
}

}  // namespace
}  // namespace gmgate::test
