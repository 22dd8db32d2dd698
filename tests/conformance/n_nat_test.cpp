// N1: a NAT between phone and gateway, as the control plane sees it (TS 33.203 Annex M). What the
// packet layer does of it is in n_dataplane_test.cpp.

#include <gtest/gtest.h>

#include "tests/conformance/share.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

using namespace std::chrono_literals;
using registration::Reason;

// Behind the NAT at `address`, whose port `port` leads to the phone.
Phone& behind_nat(World& w, const std::string& user, std::string_view address,
                  std::string_view inner, std::uint16_t port, sa::Spi first_spi = 5001) {
    Phone& p = w.phone(user, address);
    p.inner = ip(inner);
    p.port = port;
    p.first_spi = p.spi_uc = first_spi;
    p.spi_us = first_spi + 1;
    return p;
}

const FakeBackend::Installed& installed(World& w, const Phone::Security& s) {
    for (const auto& [id, set] : w.backend.sets()) {
        if (set.numbers.spi_ps == s.numbers.spi_ps) return set;
    }
    throw std::runtime_error("the set is not installed");
}

TEST(N1, BehindANatWithEncapsulation) {
    conformance::share("control");
    World w;
    Phone& p = behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123);
    ASSERT_TRUE(p.challenged());
    // SM6 went to the NAT's port, though nobody asked by rport; Security-Server speaks of nothing
    // but encapsulation, and Via says what was seen.
    EXPECT_EQ(p.last().flow.remote, ep("203.0.113.7:40123"));
    secagree::MechanismList list;
    list.add(p.pending->server);
    EXPECT_EQ(list.mechanisms().size(), w.options.policy.suites.size());
    for (const auto& m : list.mechanisms()) EXPECT_EQ(m.mode, secagree::Mode::udp_enc_tun);
    EXPECT_TRUE(p.last().message.header("Via").contains("received=203.0.113.7"));

    ASSERT_TRUE(p.answered());
    const auto& set = installed(w, p.current());
    EXPECT_EQ(set.ue, ip("203.0.113.7"));
    EXPECT_EQ(set.nat, (sa::NatTraversal{ip("192.168.1.2"), 7000, 7777}));
    EXPECT_EQ(set.numbers.spi_ps, p.current().numbers.spi_ps);
    EXPECT_NE(set.numbers.port_uc, set.numbers.port_us);
    w.expect_served(p);
    // A request of the core's finds it, too.
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    EXPECT_EQ(p.last().message.text.substr(0, 8), "MESSAGE ");
    EXPECT_TRUE(p.last().esp);
}

TEST(N1, ReregistersOnItsSas) {
    conformance::share("control");
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123);
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.reregister());
    EXPECT_EQ(installed(w, p.current()).nat, (sa::NatTraversal{ip("192.168.1.2"), 7001, 7777}));
    w.expect_served(p);
    // Annex F: what is protected may name the public address instead.
    RegisterOptions o;
    o.via_host = "203.0.113.7";
    ASSERT_TRUE(p.challenged(true, o));
    ASSERT_TRUE(p.answered(o));
    EXPECT_EQ(installed(w, p.current()).nat->inner, ip("192.168.1.2"));
    // A third address is nobody's.
    o.via_host = "192.168.1.3";
    p.send_protected_sm1(o);
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.drops(Reason::via_mismatch), 1U);
    w.expect_served(p);
}

TEST(N1, TheSamePrivateAddressBehindTwoNats) {
    conformance::share("control");
    World w;
    Phone& alice = behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123);
    Phone& bob = behind_nat(w, "bob", "203.0.113.8", "192.168.1.2", 40123, 6001);
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(bob.register_once());
    w.expect_served(alice, 2);
    w.expect_served(bob, 2);
    // By the same Contact, to each its own.
    for (Phone* p : {&alice, &bob}) {
        const auto heard = p->inbox.size();
        w.home.request("MESSAGE", w.home.paths[p->impi], p->contact());
        w.run();
        EXPECT_EQ(p->inbox.size(), heard + 1) << p->impi;
    }
}

TEST(N1, TheSamePortsBehindOneNat) {
    conformance::share("control");
    World::Options options;
    options.database.ports.pc_last = 6203;  // fewer than phones
    World w(options);
    std::vector<Phone*> phones;
    std::set<std::pair<sa::Port, sa::Port>> known;
    for (unsigned i = 0; i < 8; ++i) {
        Phone& p = behind_nat(w, "u" + std::to_string(i), "203.0.113.7",
                              "192.168.1." + std::to_string(i + 2),
                              static_cast<std::uint16_t>(40000 + i), 5001 + 100 * i);
        ASSERT_TRUE(p.register_once()) << i;
        const auto& set = installed(w, p.current());
        EXPECT_EQ(set.nat->port_uc, 7000);
        EXPECT_EQ(set.nat->port_us, 7777);
        known.emplace(set.numbers.port_us, set.numbers.port_pc);
        known.emplace(set.numbers.port_uc, set.numbers.port_ps);
        phones.push_back(&p);
    }
    EXPECT_EQ(known.size(), 16U);
    for (Phone* p : phones) {
        w.expect_served(*p, phones.size());
        const auto heard = p->inbox.size();
        w.home.request("MESSAGE", w.home.paths[p->impi], p->contact());
        w.run();
        EXPECT_EQ(p->inbox.size(), heard + 1) << p->impi;
    }
    for (Phone* p : phones) ASSERT_TRUE(p->deregister());
    w.expect_no_leak();
}

// B6 as far as one phone is concerned: its own port_uc twice.
TEST(N1, AClientPortOfItsOwnTwice) {
    conformance::share("control");
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123);
    ASSERT_TRUE(p.register_once());
    --p.port_uc;
    p.send_protected_sm1();  // takes the next port, which is the old one
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.drops(Reason::port_in_use), 1U);
    w.expect_served(p);
}

// C8: mod belongs to what must come back.
TEST(N1, VerifyAndClientWithAnotherMode) {
    conformance::share("control");
    for (const bool verify : {true, false}) {
        World w;
        Phone& p = behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123);
        ASSERT_TRUE(p.challenged());
        const auto other = [](std::string text) {
            for (std::size_t at; (at = text.find("UDP-enc-tun")) != std::string::npos;)
                text.replace(at, 11, "trans");
            return text;
        };
        RegisterOptions o;
        if (verify) {
            o.verify = other(p.pending->server);
        } else {
            o.client = other(p.security_client());
        }
        p.send_sm7(o);
        w.run();
        EXPECT_EQ(p.last_status(), 403);
        EXPECT_EQ(w.drops(verify ? Reason::verify_mismatch : Reason::client_mismatch), 1U);
        w.nothing_left();
    }
}

TEST(N1, NotTakenWhereItCannotBe) {
    conformance::share("control");
    struct Case {
        const char* what;
        bool policy, backend;
        const char* address;
        const char* inner;
    };
    for (const Case& c : {Case{"switched off", false, true, "203.0.113.7", "192.168.1.2"},
                          Case{"backend", true, false, "203.0.113.7", "192.168.1.2"},
                          Case{"IPv6 inside", true, true, "203.0.113.7", "fd00::2"},
                          Case{"IPv6", true, true, "2001:db8:2::1", "fd00::2"},
                          Case{"no address", true, true, "203.0.113.7", "0.0.0.0"}}) {
        World::Options options;
        options.policy.nat = c.policy;
        World w(options);
        w.backend.set_nat(c.backend);
        Phone& p = behind_nat(w, "alice", c.address, c.inner, 40123);
        p.send_sm1();
        w.run();
        EXPECT_EQ(p.last_status(), 403) << c.what;
        EXPECT_EQ(w.drops(Reason::nat_unsupported), 1U) << c.what;
        EXPECT_TRUE(w.home.inbox.empty());
    }
}

// Both offered, no NAT: transport mode. Both offered behind one: encapsulation.
TEST(N1, BothModesOffered) {
    conformance::share("control");
    for (const bool nat : {false, true}) {
        World w;
        Phone& p = nat ? behind_nat(w, "alice", "203.0.113.7", "192.168.1.2", 40123) : w.phone();
        RegisterOptions o;
        std::string both = p.security_client();
        std::string other = both;
        const std::string from = nat ? "mod=UDP-enc-tun" : "mod=trans";
        const std::string to = nat ? "mod=trans" : "mod=UDP-enc-tun";
        for (std::size_t at; (at = other.find(from)) != std::string::npos;)
            other.replace(at, from.size(), to);
        o.client = other + ", " + both;
        ASSERT_TRUE(p.challenged(false, o));
        ASSERT_TRUE(p.answered(o));
        EXPECT_EQ(installed(w, p.current()).nat.has_value(), nat);
        w.expect_served(p);
    }
}

}  // namespace
}  // namespace gmgate::test
