// A5, A11: what the whole gateway shows of the ports and of the integrity indicator, through every
// way a registration can go. TS 33.203 clauses 6.1.1, 7.1; TS 24.229 clause 5.2.2.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

home::RegistrarConfig unchallenged() {
    auto c = HomeNetwork::default_config();
    c.rechallenge = 0;
    return c;
}

// ---- A5 ----

// An address at which a phone that comes for the first time gets another port_ps than `port`.
IpAddress elsewhere(World& w, sa::Port port) {
    for (int i = 1; i < 100; ++i) {
        Phone& scout = w.phone("scout" + std::to_string(i), "10.2.9." + std::to_string(i));
        if (!scout.challenged()) break;
        if (scout.pending->numbers.port_ps != port) return scout.address;
    }
    ADD_FAILURE() << "every address gets the same port_ps";
    return {};
}

TEST(A5, PortPsStaysUntilAllIdentitiesAreDeregistered) {
    World w;
    w.home.integrity_yes_is_enough = false;
    w.home.associated = "<sip:%U@home.example>";
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const sa::Port ps = p.current().numbers.port_ps;
    const IpAddress other = elsewhere(w, ps);
    const auto renewed = [&](std::string_view how) {
        EXPECT_EQ(p.last_status(), 200) << how;
        EXPECT_EQ(p.current().numbers.port_ps, ps) << how;
    };
    ASSERT_TRUE(p.reregister());
    renewed("on the set");
    p.next_ports();
    ASSERT_TRUE(p.register_once());
    renewed("SM1 in clear");
    RegisterOptions wrong;
    ASSERT_TRUE(p.challenged(true));
    EXPECT_EQ(p.pending->numbers.port_ps, ps);
    wrong.authorization = p.wrong_answer();
    p.send_sm7(wrong);
    w.run();
    ASSERT_EQ(p.last_status(), 403);
    ASSERT_TRUE(p.reregister());
    renewed("after a failure");
    // One identity of two is deregistered: not all of them.
    w.home.integrity_yes_is_enough = true;
    w.home.associated = "<sip:work@home.example>";
    RegisterOptions work;
    work.impu = "sip:work@home.example";
    p.send_protected_sm1(work);
    w.run();
    work.expires = 0;
    p.send_protected_sm1(work);
    w.run();
    ASSERT_EQ(w.gateway->find(p.impi)->impus, std::vector<std::string>{p.impu});
    w.home.integrity_yes_is_enough = false;
    w.home.associated = "<sip:%U@home.example>";
    ASSERT_TRUE(p.reregister());
    renewed("after one identity of two left");
    const IpAddress home = p.address;
    p.address = other;
    p.next_ports();
    ASSERT_TRUE(p.register_once());
    renewed("at another address");
    // All of them: the next registration is a first one.
    w.home.integrity_yes_is_enough = true;
    ASSERT_TRUE(p.deregister());
    w.advance(40s);
    ASSERT_FALSE(w.gateway->find(p.impi));
    p.next_ports();
    ASSERT_TRUE(p.register_once());
    EXPECT_NE(p.current().numbers.port_ps, ps);
    EXPECT_NE(home, other);
}

TEST(A5, PortPcChangesAtEachAuthenticationAndOnlyThen) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (int i = 0; i < 40; ++i) {
        const sa::Port before = p.current().numbers.port_pc;
        if (i % 4 == 3) {
            p.next_ports();
            ASSERT_TRUE(p.register_once());  // SM1 in clear
        } else {
            ASSERT_TRUE(p.reregister());
        }
        EXPECT_NE(p.current().numbers.port_pc, before);
        w.expect_served(p);
        w.advance(33s);
    }
    w.network->registrar->rechallenge(p.impu, false);
    const auto installed = w.backend.sets().begin()->second.numbers;
    p.send_protected_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.backend.sets().begin()->second.numbers, installed) << "nobody was authenticated";
}

TEST(A5, NoMechanismOffersAnUnprotectedPort) {
    World w(with_gmhome());
    for (int i = 0; i < 50; ++i) {
        Phone& p = w.phone("u" + std::to_string(i), "10.2.3." + std::to_string(i + 1));
        ASSERT_TRUE(p.challenged());
        secagree::MechanismList list;
        list.add(p.pending->server);
        for (const auto& m : list.mechanisms()) {
            for (const sa::Port port : {m.port_c, m.port_s}) {
                EXPECT_NE(port, 5060);
                EXPECT_NE(port, 5061);
            }
            EXPECT_NE(m.port_c, m.port_s);
        }
    }
}

// What TS 33.203 asks of the UE: a port_uc that did not change is that of a live set, and refused
// on it.
TEST(A5, PortUcMustChange) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto old = w.set_of(p.current());
    const Books before = w.settled();
    p.last_sm1 = p.register_text({}, &p.current());
    p.send_on(p.current(), p.last_sm1);
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(p.last().set, old);
    EXPECT_EQ(w.drops(Reason::port_in_use), 1U);
    EXPECT_EQ(w.settled(), before);
    w.expect_served(p);
}

// And one whose port_us changed all the same is served there, on the new set, and nowhere else.
TEST(A5, APortUsThatChangedIsThatOfTheNewSetOnly) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto old = w.set_of(p.current());
    p.port_us = 7788;
    ASSERT_TRUE(p.reregister());
    EXPECT_EQ(w.backend.set(old)->numbers.port_us, 7777);
    EXPECT_NE(p.sets[0].numbers.port_pc, p.sets[1].numbers.port_pc)
        << "also where the pair of ports would be free";
    w.expect_served(p);
    EXPECT_EQ(p.last().flow.remote.port, 7788);
    w.expect_no_leak(1);
}

// ---- A11 ----

// What the S-CSCF read in the REGISTER that reached it last.
std::string indicator(const World& w) {
    const std::string value = w.home.inbox.back().message.header("Authorization");
    const auto c = sip::parse_digest_credentials(value);
    return c && c->integrity_protected ? std::string(*c->integrity_protected) : "none";
}
// It is there, once.
std::size_t indicators(const World& w) {
    const std::string value = w.home.inbox.back().message.header("Authorization");
    std::size_t n = 0;
    for (std::size_t at = 0; at + 19 <= value.size(); ++at)
        n += iequals(std::string_view(value).substr(at, 19), "integrity-protected") ? 1 : 0;
    return n;
}

TEST(A11, WhateverTheUeWroteIsReplaced) {
    for (const std::string_view lie :
         {"integrity-protected=\"yes\"", "integrity-protected=yes", "INTEGRITY-PROTECTED=\"YES\"",
          "integrity-protected = \"yes\"", "integrity-protected=\"auth-done\"",
          "integrity-protected=\"ip-assoc-yes\"", "integrity-protected=\"tls-yes\""}) {
        for (const bool first : {false, true}) {
            SCOPED_TRACE(std::string(lie) + (first ? ", first" : ", last"));
            World w;
            Phone& p = w.phone();
            const auto lying = [&](const std::string& honest) {
                const std::string rest = honest.substr(std::string("Digest ").size());
                return first ? "Digest " + std::string(lie) + "," + rest
                             : honest + "," + std::string(lie);
            };
            RegisterOptions o;
            o.authorization = lying(p.answer_to("", ""));
            ASSERT_TRUE(p.challenged(false, o));
            EXPECT_EQ(indicator(w), "no");
            EXPECT_EQ(indicators(w), 1U);
            RegisterOptions answer;
            answer.authorization = lying(p.right_answer());
            p.send_sm7(answer);
            w.run();
            ASSERT_EQ(p.last_status(), 200);
            EXPECT_EQ(indicator(w), "yes");
            EXPECT_EQ(indicators(w), 1U);
        }
    }
}

// Which of two would count at the S-CSCF nobody knows: it does not get them.
TEST(A11, TwoOfThemAreRefused) {
    World w;
    Phone& p = w.phone();
    for (const std::string_view first : {"yes", "no"}) {
        RegisterOptions o;
        o.authorization = p.answer_to("", "") + ",integrity-protected=\"" + std::string(first) +
                          "\", integrity-protected=\"yes\"";
        p.send_sm1(o);
        w.run();
        EXPECT_EQ(p.last_status(), 400);
    }
    EXPECT_TRUE(w.home.inbox.empty());
    w.nothing_left();
}

// An answer is vouched for on the set its own challenge made, and on no other.
TEST(A11, TheAnswerOnAnotherSetThanItsOwn) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.challenged(true));
    // On the set of the latest success: it carries an answer, and not that set's.
    RegisterOptions o;
    o.authorization = p.right_answer();
    o.verify = p.current().server;
    p.next_ports();
    const auto at_home = w.home.inbox.size();
    p.send_on(p.current(), p.register_text(o, &p.current()));
    w.run();
    ASSERT_GT(w.home.inbox.size(), at_home);
    EXPECT_EQ(indicator(w), "no");
    EXPECT_NE(p.last_status(), 200);
}

// Which set is the latest successful one: none before SM12, the new one from SM12 on, also while
// outbound messages still go on the old one (D2).
TEST(A11, TheLatestSuccessfulSetIsThatOfTheLastSm12) {
    World w(with_gmhome(unchallenged()));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.network->registrar->rechallenge(p.impu, true);
    ASSERT_TRUE(p.challenged(true));
    EXPECT_EQ(indicator(w), "yes") << "SM2, no answer in it, on the set of the latest success";
    const auto ask_on = [&](std::size_t set) {
        p.next_ports();
        p.send_on(p.sets[set], p.register_text({}, &p.sets[set]));
        w.run();
        return indicator(w);
    };
    const auto kept = *p.pending;
    p.send_sm7();
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(indicator(w), "yes");
    p.pending = kept;
    p.accept();
    EXPECT_EQ(ask_on(0), "no") << "the older one, which still carries what goes out";
    EXPECT_EQ(ask_on(1), "yes");
    EXPECT_EQ(ask_on(0), "no");
}

// A report of failure carries no answer: the set it came on decides, and in clear there is none.
TEST(A11, AReportOfFailure) {
    for (const bool registered : {false, true}) {
        for (const bool out_of_sync : {false, true}) {
            SCOPED_TRACE(std::string(registered ? "registered" : "new") +
                         (out_of_sync ? ", auts" : ""));
            Procedure c(registered);
            c.p.refuse_challenge(registered, out_of_sync ? to_base64(std::array<std::uint8_t, 14>{})
                                                         : std::string{});
            c.w.run();
            EXPECT_EQ(indicator(c.w), registered ? "yes" : "no");
            EXPECT_EQ(indicators(c.w), 1U);
        }
    }
}

// SM1 in clear of a phone that has SAs: the sets it has vouch for nothing.
TEST(A11, InClearNothingIsVouchedFor) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.next_ports();
    ASSERT_TRUE(p.challenged(false));
    EXPECT_EQ(indicator(w), "no");
}

}  // namespace
}  // namespace gmgate::test
