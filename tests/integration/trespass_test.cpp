// A phone never reaches another's SAs, or speaks in another's name, by anything it can write: one
// test for each way there is (A4, B7, C8, E2, E3), over UDP and over TCP.

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

class Trespass : public testing::TestWithParam<sip::Transport> {
  protected:
    Trespass()
        : alice(w.phone("alice", "10.2.0.1", GetParam())),
          mallory(w.phone("mallory", "10.2.0.2", GetParam())) {
        w.home.integrity_yes_is_enough = false;
        mallory.spi_uc = 9001;
        mallory.spi_us = 9003;
        EXPECT_TRUE(alice.register_once());
        EXPECT_TRUE(mallory.register_once());
        heard = alice.inbox.size();
    }
    // Nothing reached her, nothing of hers has changed, and she is served as before.
    void expect_alice_untouched() {
        EXPECT_EQ(alice.inbox.size(), heard) << alice.last().message.text;
        EXPECT_EQ(w.backend.sets().size(), w.sets->set_count());
        alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        ASSERT_EQ(alice.last_status(), 200);
        const Sip at_home = w.home.inbox.back().message;
        EXPECT_EQ(at_home.header("P-Asserted-Identity"), "<sip:alice@home.example>");
        w.home.request("MESSAGE", w.home.paths[alice.impi], alice.contact());
        w.run();
        EXPECT_EQ(alice.last().message.method(), "MESSAGE");
        EXPECT_EQ(alice.last().flow.remote.address, alice.address);
        // No open transaction is left behind.
        alice.answer(alice.last(), 200);
        w.run();
        w.expect_no_leak(2);
    }
    // What mallory sends on her SA; true: something of it reached the home.
    bool send(const std::string& text) {
        const auto before = w.home.inbox.size();
        mallory.send_on(mallory.current(), text);
        w.run();
        return w.home.inbox.size() > before;
    }
    [[nodiscard]] const Sip& at_home() const { return w.home.inbox.back().message; }
    void expect_asserted_as_mallory() {
        const std::string asserted = at_home().header("P-Asserted-Identity");
        EXPECT_EQ(asserted, "<sip:mallory@home.example>");
        EXPECT_FALSE(at_home().has("P-Preferred-Identity"));
    }

    World w;
    Phone& alice;
    Phone& mallory;
    std::size_t heard = 0;
};

INSTANTIATE_TEST_SUITE_P(Over, Trespass, testing::Values(sip::Transport::udp, sip::Transport::tcp),
                         [](const auto& i) { return std::string(sip::name(i.param)); });

TEST_P(Trespass, SecurityVerify) {
    ASSERT_TRUE(mallory.challenged(true));
    RegisterOptions o;
    o.verify = alice.current().server;
    mallory.send_sm7(o);
    const auto at = w.home.inbox.size();
    w.run();
    EXPECT_EQ(mallory.last_status(), 403);
    EXPECT_EQ(w.home.inbox.size(), at) << "forwarded nevertheless";
    EXPECT_EQ(w.drops(Reason::verify_mismatch), 1U);
    w.advance(60s);
    expect_alice_untouched();
}

TEST_P(Trespass, SecurityClient) {
    // Her numbers from another address: sets of mallory's address, which carry mallory's packets.
    const auto hers = alice.current().numbers;
    mallory.port_uc = hers.port_uc;
    mallory.port_us = hers.port_us;
    mallory.spi_uc = hers.spi_uc;
    mallory.spi_us = hers.spi_us;
    RegisterOptions o;
    mallory.last_sm1 = mallory.register_text(o, nullptr);
    mallory.send_clear(mallory.last_sm1);
    w.run();
    if (mallory.last_status() == 401) {
        mallory.take_challenge(mallory.last().message);
        const auto& n = mallory.pending->numbers;
        EXPECT_TRUE(n.spi_ps != hers.spi_ps && n.spi_pc != hers.spi_pc);
        for (const auto& [id, s] : w.backend.sets()) {
            EXPECT_TRUE(s.numbers != n || s.ue == mallory.address);
        }
    }
    w.advance(300s);
    expect_alice_untouched();
}

TEST_P(Trespass, SecurityClientWithOurOwnSpis) {
    // A4: the SPIs we gave alice, as mallory's: what we would send there comes back to nobody.
    const auto hers = alice.current().numbers;
    mallory.next_ports();
    mallory.spi_uc = hers.spi_ps;
    mallory.spi_us = hers.spi_pc;
    mallory.send_sm1();
    w.run();
    w.advance(300s);
    expect_alice_untouched();
}

TEST_P(Trespass, Via) {
    const std::string own = "10.2.0.2:" + std::to_string(mallory.port_us);
    const std::string hers = "10.2.0.1:" + std::to_string(alice.current().numbers.port_us);
    for (const std::string& host :
         {hers, own + ";maddr=10.2.0.1", own + ";received=10.2.0.1",
          own + ";rport=" + std::to_string(alice.current().numbers.port_uc) + ";received=10.2.0.1",
          std::string("pcscf.visited.example:5060")}) {
        std::string text = mallory.request("OPTIONS", "sip:bob@home.example");
        const auto at = text.find(own);
        ASSERT_NE(at, std::string::npos);
        text.replace(at, own.size(), host);
        send(text);
        EXPECT_EQ(alice.inbox.size(), heard) << "an answer of mallory's went to her: " << host;
    }
    // A REGISTER with her address is refused outright (B6).
    RegisterOptions o;
    o.via_host = "10.2.0.1";
    mallory.send_protected_sm1(o);
    w.run();
    EXPECT_EQ(w.drops(Reason::via_mismatch), 1U);
    EXPECT_EQ(alice.inbox.size(), heard);
    expect_alice_untouched();
}

TEST_P(Trespass, Contact) {
    const std::string hers = alice.contact();
    mallory.next_ports();
    std::string text = mallory.register_text({}, &mallory.current());
    const auto at = text.find(mallory.contact());
    ASSERT_NE(at, std::string::npos);
    text.replace(at, mallory.contact().size(), hers);
    w.home.integrity_yes_is_enough = true;
    ASSERT_TRUE(send(text));
    ASSERT_EQ(mallory.last_status(), 200);
    w.home.integrity_yes_is_enough = false;
    // Whoever calls mallory reaches mallory, on her own SAs.
    const auto before = mallory.inbox.size();
    w.home.request("MESSAGE", w.home.paths[mallory.impi], hers);
    w.run();
    ASSERT_EQ(mallory.inbox.size(), before + 1);
    EXPECT_EQ(mallory.last().message.method(), "MESSAGE");
    EXPECT_EQ(mallory.last().flow.remote.address, mallory.address);
    mallory.answer(mallory.last(), 200);
    w.run();
    expect_alice_untouched();
}

TEST_P(Trespass, FlowToken) {
    const std::string path = w.home.paths[alice.impi];
    const std::string uri = path.substr(1, path.find('>') - 1);
    // As a Route of her own, before and after others, in and out of a dialog, and as the target.
    for (const std::string& headers :
         {"Route: " + path + "\r\n",
          "Route: " + path + "\r\nRoute: " + w.home.service_route + "\r\n",
          "To: <sip:alice@home.example>;tag=x\r\nRoute: " + path + "\r\n", "Path: " + path + "\r\n",
          "Record-Route: " + path + "\r\n"}) {
        if (send(mallory.request("MESSAGE", "sip:alice@home.example", headers))) {
            expect_asserted_as_mallory();
        }
        EXPECT_EQ(alice.inbox.size(), heard) << headers;
    }
    for (const std::string& target : {uri, alice.contact()}) {
        if (send(mallory.request("MESSAGE", target))) expect_asserted_as_mallory();
        EXPECT_EQ(alice.inbox.size(), heard) << target;
        EXPECT_EQ(w.home.inbox.back().flow.remote.address, ip("192.0.2.9"));
    }
    // In her REGISTER: the token we put there is mallory's own.
    w.home.integrity_yes_is_enough = true;
    RegisterOptions o;
    o.extra = "Path: " + path + "\r\n";
    mallory.send_protected_sm1(o);
    w.run();
    EXPECT_EQ(at_home().method(), "REGISTER");
    EXPECT_FALSE(at_home().contains(uri)) << at_home().text;
    w.home.integrity_yes_is_enough = false;
    // Guessed or altered ones lead nowhere, even from the core.
    for (std::size_t i = 0; i < 8; ++i) {
        std::string altered = path;
        char& c = altered[6 + i];
        c = c == 'A' ? 'B' : 'A';
        w.home.request("MESSAGE", altered, "sip:alice@home.example");
        w.run();
        EXPECT_EQ(alice.inbox.size(), heard) << altered;
    }
    expect_alice_untouched();
}

TEST_P(Trespass, IdentityHeaders) {
    const auto wrong = [&] { return w.drops(Reason::wrong_sa); };
    const std::string to_bob = "sip:bob@home.example";
    // Refused: it claims to be her.
    std::uint64_t n = 0;
    for (const std::string& headers :
         {std::string("From: <sip:alice@home.example>;tag=2\r\n"),
          std::string("P-Preferred-Identity: <sip:alice@home.example>\r\n"),
          std::string("Authorization: Digest username=\"alice@home.example\",nonce=\"\"\r\n"),
          std::string("Proxy-Authorization: Digest username=\"alice@home.example\"\r\n")}) {
        EXPECT_FALSE(send(mallory.request("MESSAGE", to_bob, headers))) << headers;
        EXPECT_EQ(wrong(), ++n) << headers;
    }
    // Passed on without what is not mallory's to say.
    for (const std::string& headers :
         {std::string("P-Asserted-Identity: <sip:alice@home.example>\r\n"),
          std::string("P-Asserted-Identity: <sip:alice@home.example>, <sip:alice@home.example>\r\n"
                      "P-Asserted-Identity: <sip:alice@home.example>\r\n"),
          std::string("P-Preferred-Identity: <sip:mallory@home.example>\r\nP-Preferred-Identity: "
                      "<sip:alice@home.example>\r\n"),
          std::string("P-Preferred-Identity: <sip:mallory@home.example>, "
                      "<sip:alice@home.example>\r\n"),
          std::string("To: <sip:alice@home.example>\r\n"),
          std::string(
              "From: <sip:alice@home.example>;tag=2\r\nTo: <sip:bob@home.example>;tag=x\r\n"),
          std::string("Remote-Party-ID: <sip:alice@home.example>\r\n")}) {
        if (send(mallory.request("MESSAGE", to_bob, headers))) expect_asserted_as_mallory();
    }
    // Two of what there may be one of.
    for (const std::string& headers :
         {std::string("From: <sip:mallory@home.example>;tag=2\r\nFrom: "
                      "<sip:alice@home.example>;tag=2\r\n"),
          std::string("From: <sip:mallory@home.example>;tag=2\r\nf: "
                      "<sip:alice@home.example>;tag=2\r\n"),
          std::string("Authorization: Digest username=\"mallory@home.example\"\r\nAuthorization: "
                      "Digest username=\"alice@home.example\"\r\n")}) {
        if (send(mallory.request("MESSAGE", to_bob, headers))) {
            expect_asserted_as_mallory();
            EXPECT_FALSE(at_home().header("Authorization").find("alice") != std::string::npos)
                << headers;
            EXPECT_EQ(at_home().header("From").find("alice"), std::string::npos) << headers;
        }
    }
    EXPECT_EQ(alice.inbox.size(), heard);
    expect_alice_untouched();
}

TEST_P(Trespass, RegisterInAnothersName) {
    RegisterOptions name;
    name.impi = alice.impi;
    const auto at = w.home.inbox.size();
    mallory.send_protected_sm1(name);
    w.run();
    EXPECT_EQ(w.home.inbox.size(), at);
    EXPECT_EQ(w.drops(Reason::wrong_sa), 1U);
    // To deregister her: her IMPU with mallory's name is the home's to refuse, and is never "yes"
    // in hers.
    w.home.fixed_status = 403;
    RegisterOptions to;
    to.impu = alice.impu;
    to.expires = 0;
    mallory.send_protected_sm1(to);
    w.run();
    w.home.fixed_status = 0;
    EXPECT_EQ(mallory.last_status(), 403);
    EXPECT_EQ(at_home().header("Authorization").find("alice"), std::string::npos);
    // In SM7, on a new set of mallory's.
    ASSERT_TRUE(mallory.challenged(true));
    RegisterOptions sm7;
    sm7.authorization = mallory.answer_to(mallory.pending->nonce, Aka::res(mallory.pending->nonce));
    const auto user = sm7.authorization->find("mallory@");
    sm7.authorization->replace(user, 7, "alice");
    const auto before = w.home.inbox.size();
    mallory.send_sm7(sm7);
    w.run();
    EXPECT_EQ(w.home.inbox.size(), before);
    EXPECT_EQ(w.drops(Reason::wrong_sa), 2U);
    w.advance(300s);
    expect_alice_untouched();
}

// S2: on the core's side too, who speaks is asked first.
TEST(CoreSide, StrangersThereAreNotHeard) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone();
    const auto from = [&](std::string_view source, const std::string& text) {
        std::string bytes = text;
        w.gateway->core().on_message({sip::Transport::udp, ep("192.0.2.1:5060"), ep(source), 0},
                                     bytes);
        w.run();
        EXPECT_EQ(bytes.find(std::string(32, 'a')), std::string::npos) << "keys left behind (S1)";
    };
    // A challenge with keys of its own, by who knows even the branch.
    w.home.silent = true;
    alice.send_sm1();
    w.run();
    const Wire sm2 = w.home.inbox.back();
    w.home.reply(sm2, 401,
                 "WWW-Authenticate: Digest realm=\"h\",nonce=\"bm9uY2U=\",ck=\"" +
                     std::string(32, 'a') + "\",ik=\"" + std::string(32, 'b') + "\"\r\n");
    const std::string forged = w.queue.back().message.text;
    w.queue.clear();
    from("192.0.2.66:5060", forged);
    EXPECT_TRUE(alice.inbox.empty());
    EXPECT_EQ(w.backend.installed(), 0U);
    EXPECT_EQ(w.drops(Reason::untrusted_source), 1U);
    w.home.silent = false;
    w.advance(40s);
    alice.next_ports();
    ASSERT_TRUE(alice.register_once());
    const auto heard = alice.inbox.size();
    const std::string text = w.home.request("MESSAGE", w.home.paths[alice.impi], alice.contact());
    w.queue.clear();
    from("192.0.2.66:5060", text);
    from("192.0.2.66:5060", "rubbish\r\n\r\n");
    EXPECT_EQ(alice.inbox.size(), heard);
    EXPECT_EQ(w.drops(Reason::untrusted_source), 3U);
    from("192.0.2.9:4711", text);
    EXPECT_EQ(alice.inbox.size(), heard + 1);
    w.expect_no_leak(1);
}

TEST(CoreSide, TheHostsOfServiceRoutesAreTrustedUnlessListed) {
    for (const bool listed : {false, true}) {
        World::Options o;
        o.policy.trust_service_routes = !listed;
        if (listed) o.policy.trusted = {{ip("198.51.100.0"), 24}};
        World w(o);
        w.home.service_route = "<sip:orig@203.0.113.5:6060;lr>";
        Phone& alice = w.phone();
        EXPECT_FALSE(w.gateway->trusts(ip("203.0.113.5")));
        ASSERT_TRUE(alice.register_once());
        EXPECT_EQ(w.gateway->trusts(ip("203.0.113.5")), !listed);
        EXPECT_EQ(w.gateway->trusts(ip("198.51.100.7")), listed);
        EXPECT_TRUE(w.gateway->trusts(ip("192.0.2.9")));
        EXPECT_FALSE(w.gateway->trusts(ip("203.0.113.6")));
        EXPECT_FALSE(w.gateway->trusts(ip("10.2.0.1")));
    }
}

}  // namespace
}  // namespace gmgate::test
