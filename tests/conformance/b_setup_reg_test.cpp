// The rules as the SIP side keeps them: the whole gateway in virtual time, with scripted phones and
// a scripted S-CSCF.

#include "tests/conformance/share.h"
#include "tests/support/emergency_call.h"

namespace gmgate::test {
namespace {

std::string hex_spi(sa::Spi spi) {
    return std::to_string(spi);
}

// Up to the challenge.
void challenge(World& w, Phone& p, RegisterOptions o = {}) {
    p.send_sm1(std::move(o));
    w.run();
    ASSERT_EQ(p.last_status(), 401);
    p.take_challenge(p.last().message);
}

// ---- A ----

TEST(A2, ResponsesTravelFromOurClientPortToTheServerPortOfTheUe) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(p.last().flow.local.port, p.current().numbers.port_pc);
    EXPECT_EQ(p.last().flow.remote.port, p.port_us);
}

TEST(A2, AUeThatAsksForRportIsAnsweredBetweenTheOtherPorts) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    RegisterOptions o;
    o.rport = true;
    p.send_sm7(o);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
    EXPECT_EQ(p.last().flow.local.port, p.pending->numbers.port_ps);
    EXPECT_EQ(p.last().flow.remote.port, p.pending->numbers.port_uc);
    EXPECT_TRUE(p.last().message.header("Via").find("rport=" + std::to_string(p.port_uc)) !=
                std::string::npos);
}

TEST(A2, ResponsesOverTcpStayOnTheirConnection) {
    World w;
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(p.last().flow.connection, p.connections[p.port_uc]);
}

TEST(A6, InClearOnlyRegisterIsTaken) {
    for (const bool drop : {false, true}) {
        World::Options options;
        options.policy.unprotected_other =
            drop ? registration::UnprotectedOther::drop : registration::UnprotectedOther::reject;
        World w(options);
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        const auto at_home = w.home.inbox.size();
        const auto heard = p.inbox.size();
        for (const std::string_view method :
             {"MESSAGE", "INVITE", "OPTIONS", "SUBSCRIBE", "BYE", "FOO"}) {
            p.send_clear(p.request(method, "sip:bob@home.example"));
            w.run();
        }
        EXPECT_EQ(w.home.inbox.size(), at_home);
        EXPECT_EQ(w.drops(Reason::unprotected_request), 6U);
        EXPECT_EQ(p.inbox.size(), heard + (drop ? 0U : 6U));
        if (!drop) {
            EXPECT_EQ(p.last_status(), 403);
        }
        p.send_clear(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.1.0.1;branch=z9hG4bK1\r\nFrom: "
            "<sip:a@b>;tag=1\r\nTo: "
            "<sip:a@b>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n");
        w.run();
        EXPECT_EQ(w.drops(Reason::stray_response), 1U);
    }
}

TEST(A6, AnEmergencyCallInClearIfPolicyAllows) {
    World refusing;
    Phone& refused = refusing.phone();
    EXPECT_FALSE(ClearCall(refusing, refused).reached());
    EXPECT_EQ(refused.last_status(), 403);

    World w(emergencies_in_clear());
    Phone& p = w.phone();
    ClearCall call(w, p, "P-Asserted-Identity: <sip:bob@home.example>\r\n");
    ASSERT_TRUE(call.reached());
    EXPECT_FALSE(call.invite.message.has("P-Asserted-Identity")) << "as from nobody";
    call.establish();
    EXPECT_EQ(p.last_status(), 200);
    // Its requests come from where it came from; nobody else's, and nothing else, is taken.
    Phone& other = w.phone("mallory", "10.2.0.66");
    const auto before = w.home.inbox.size();
    other.send_clear(call.request("BYE"));
    w.run();
    EXPECT_EQ(other.last_status(), 403);
    p.send_clear(call.head("MESSAGE", "sip:bob@home.example", 9) +
                 "To: <sip:bob@home.example>\r\n" + ClearCall::end());
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.home.inbox.size(), before);
    call.hang_up();
    EXPECT_EQ(p.last_status(), 200);
    w.nothing_left();
}

TEST(A6, WhatReachesAProtectedPortWithoutASetIsDiscarded) {
    World w;
    Phone& p = w.phone();
    // As if the packet layer had let it pass.
    sip::Flow flow{sip::Transport::udp, ep("10.1.0.1:6100"), Endpoint{p.address, 7000}, 0};
    std::string text = p.register_text({}, nullptr);
    w.gateway->gm().on_message(flow, text);
    w.run();
    EXPECT_EQ(w.drops(Reason::no_sa), 1U);
    EXPECT_TRUE(p.inbox.empty());
    EXPECT_TRUE(w.home.inbox.empty());
}

TEST(A7, EveryLegalFormOfTheSecurityLinesIsTaken) {
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.client =
        "IPSEC-3GPP ; PORT-S = 7777 ;alg=HMAC-SHA-1-96;port-c=7000; "
        "spi-s=0000005002;spi-c=5001;foo=\"bar,baz\",\r\n"
        " digest;q=0.2\r\nSecurity-Client: "
        "ipsec-3gpp;alg=hmac-md5-96;spi-c=5001;spi-s=5002;port-c=7000;port-s=7777";
    challenge(w, p, o);
    // The phone's own order of parameters, its own number format, its own blanks: by meaning it is
    // the same (C8).
    std::string verify;
    secagree::MechanismList list;
    list.add(p.pending->server);
    unsigned q = 999;
    for (const auto& m : list.mechanisms()) {
        char spi[11];
        std::snprintf(spi, sizeof(spi), "%010u", m.spi_c);
        verify += std::string(verify.empty() ? "" : ",\r\n  ") +
                  "ipsec-3gpp; port-s=" + std::to_string(m.port_s) +
                  " ;port-c=" + std::to_string(m.port_c) + ";spi-s=" + std::to_string(m.spi_s) +
                  ";spi-c = " + spi + ";ealg=" + std::string(sa::name(m.suite.encryption)) +
                  ";ALG=" + std::string(sa::name(m.suite.integrity)) + ";prot=esp;mod=trans;q=0." +
                  std::to_string(q--);
    }
    RegisterOptions second = o;
    second.verify = verify;
    p.send_sm7(second);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
}

TEST(A8, OurOrderDecidesAndOurWholeListIsSent) {
    World w;
    Phone& p = w.phone();
    // The phone prefers MD5; of what it offers, SHA-1 with AES-CBC stands first on our list.
    RegisterOptions o;
    const std::string n = ";spi-c=5001;spi-s=5002;port-c=7000;port-s=7777";
    o.client = "ipsec-3gpp;q=1.0;alg=hmac-md5-96" + n + ", ipsec-3gpp;q=0.1;alg=hmac-sha-1-96" + n +
               ", ipsec-3gpp;q=0.5;alg=hmac-sha-1-96;ealg=aes-cbc" + n;
    challenge(w, p, o);
    ASSERT_EQ(w.backend.sets().size(), 1U);
    const sa::Suite want{sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc};
    EXPECT_EQ(w.backend.sets().begin()->second.suite, want);
    secagree::MechanismList sent;
    sent.add(p.pending->server);
    ASSERT_EQ(sent.mechanisms().size(), w.options.policy.suites.size());
    for (std::size_t i = 0; i < sent.mechanisms().size(); ++i) {
        EXPECT_EQ(sent.mechanisms()[i].suite, w.options.policy.suites[i]);
        if (i > 0) {
            EXPECT_LT(sent.mechanisms()[i].q, sent.mechanisms()[i - 1].q);
        }
    }
}

TEST(A8, EverySuiteCanBeAgreed) {
    for (const sa::Suite suite : sa::all_suites) {
        World::Options options;
        options.policy.suites = {suite};
        World w(options);
        Phone& p = w.phone();
        p.offer = "ipsec-3gpp;alg=" + std::string(sa::name(suite.integrity)) +
                  ";ealg=" + std::string(sa::name(suite.encryption));
        EXPECT_TRUE(p.register_once()) << sa::to_string(suite);
        EXPECT_EQ(w.backend.sets().begin()->second.suite, suite);
    }
}

TEST(A8, MissingEncryptionIsNullOrRefusedByPolicy) {
    for (const bool refuse : {false, true}) {
        World::Options options;
        options.policy.missing_ealg =
            refuse ? registration::MissingEalg::refuse : registration::MissingEalg::null;
        World w(options);
        Phone& p = w.phone();
        p.offer = "ipsec-3gpp;alg=hmac-sha-1-96";
        p.send_sm1();
        w.run();
        EXPECT_EQ(p.last_status(), refuse ? 494 : 401);
    }
}

std::string indicator(const Wire& at_home) {
    const std::string value = at_home.message.header("Authorization");
    const auto c = sip::parse_digest_credentials(value);
    return c && c->integrity_protected ? std::string(*c->integrity_protected) : "none";
}

TEST(A11, TheIndicatorIsOursAndTrue) {
    World w;
    Phone& p = w.phone();
    // The phone's own word does not count.
    RegisterOptions liar;
    liar.authorization = "Digest username=\"" + p.impi +
                         "\",realm=\"home.example\",nonce=\"\",uri=\"sip:home.example\",response="
                         "\"\",integrity-protected=\"yes\"";
    challenge(w, p, liar);
    EXPECT_EQ(indicator(w.home.inbox[0]), "no") << "SM2 of an SM1 in clear";
    EXPECT_FALSE(w.home.inbox[0].message.contains("\"yes\""));
    p.send_sm7();
    w.run();
    EXPECT_EQ(indicator(w.home.inbox[1]), "yes")
        << "SM8: the answer to the challenge that made this set";
    p.accept();
    p.send_protected_sm1();
    w.run();
    EXPECT_EQ(indicator(w.home.inbox[2]), "yes") << "no answer in it, on the latest successful set";
}

TEST(A11, AnAnswerToAnotherChallengeIsNotVouchedFor) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    challenge(w, p);
    RegisterOptions o;
    o.authorization = p.answer_to("bm9uY2U=", Aka::res("bm9uY2U="));
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(indicator(w.home.inbox[1]), "no");
}

TEST(A11, AnOlderSetIsNotTheLatest) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.reregister());
    const auto before = w.home.inbox.size();
    p.next_ports();
    p.send_on(p.sets[0], p.register_text({}, &p.sets[0]));
    w.run();
    ASSERT_GT(w.home.inbox.size(), before);
    EXPECT_EQ(indicator(w.home.inbox[before]), "no");
}

// ---- B ----

TEST(B1, SecAgreeIsRequired) {
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.require = false;
    p.send_sm1(o);
    w.run();
    EXPECT_EQ(p.last_status(), 421);
    EXPECT_TRUE(w.home.inbox.empty());
}

TEST(B1, TheSecurityLineIsKeptWithSourceAndIdentities) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    const sa::SaSet* set = w.sets->find(w.backend.sets().begin()->first);
    ASSERT_NE(set, nullptr);
    EXPECT_EQ(set->ue, p.address);
    EXPECT_EQ(set->numbers.spi_uc, p.spi_uc);
    EXPECT_EQ(set->numbers.spi_us, p.spi_us);
    EXPECT_EQ(set->numbers.port_uc, p.port_uc);
    EXPECT_EQ(set->numbers.port_us, p.port_us);
    EXPECT_EQ(w.gateway->find(p.impi)->impus, std::vector<std::string>{p.impu});
}

TEST(B2, KeysAreTakenOutAndTheSasAreLiveBeforeSm6Leaves) {
    World w;
    Phone& p = w.phone();
    bool live = false;
    w.lose = [&](const Wire& wire) {
        if (wire.to == Wire::To::ue && wire.message.status() == 401)
            live = w.backend.installed() == 1;
        return false;
    };
    challenge(w, p);
    EXPECT_TRUE(live);
    const Sip& sm6 = p.last().message;
    const std::string value = sm6.header("WWW-Authenticate");
    const auto c = sip::parse_digest_challenge(value);
    ASSERT_TRUE(c);
    EXPECT_FALSE(c->ck || c->ik);
    EXPECT_TRUE(c->nonce && c->qop && c->realm) << "the rest of the challenge is untouched";
    const auto& installed = w.backend.sets().begin()->second;
    EXPECT_TRUE(std::ranges::equal(installed.ck.reveal(), Aka::key(p.pending->nonce, 1)));
    EXPECT_TRUE(std::ranges::equal(installed.ik.reveal(), Aka::key(p.pending->nonce, 2)));
    EXPECT_TRUE(sm6.contains("spi-c=" + hex_spi(installed.numbers.spi_pc)));
    EXPECT_FALSE(p.last().esp);
}

TEST(B2, Sm6OfAProtectedSm1TravelsOnTheOldSet) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto old = w.backend.sets().begin()->first;
    p.send_protected_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 401);
    EXPECT_TRUE(p.last().esp);
    EXPECT_EQ(p.last().set, old);
}

TEST(B3, AChallengeRemovesWhatAnUnfinishedProcedureLeft) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    const auto first = w.backend.sets().begin()->first;
    p.next_ports();
    challenge(w, p);
    EXPECT_EQ(w.backend.installed(), 1U);
    EXPECT_FALSE(w.backend.has(first));
    EXPECT_EQ(w.gateway->pending(), 1U);
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
}

TEST(B4, Sm8CarriesNothingOfTheSecurityAgreement) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (const Wire& wire : w.home.inbox) {
        for (const std::string_view name :
             {"Security-Client", "Security-Verify", "Security-Server", "Proxy-Require"}) {
            EXPECT_FALSE(wire.message.has(name)) << name;
        }
        EXPECT_FALSE(wire.message.contains("sec-agree"));
        EXPECT_EQ(wire.message.header("Supported"), "path");
    }
}

TEST(B4, Sm7InClearIsNoSm7) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    const auto at_home = w.home.inbox.size();
    RegisterOptions o;
    o.authorization = p.answer_to(p.pending->nonce, Aka::res(p.pending->nonce));
    o.verify = p.pending->server;
    p.send_clear(p.register_text(o, nullptr));
    w.run();
    for (std::size_t i = at_home; i < w.home.inbox.size(); ++i)
        EXPECT_EQ(indicator(w.home.inbox[i]), "no");
    EXPECT_EQ(w.gateway->registered(), 0U);
    EXPECT_NE(p.last_status(), 200);
}

TEST(B5, Sm12TravelsOnTheNewSetAndIsStored) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_TRUE(p.last().esp);
    EXPECT_FALSE(p.last().message.has("Security-Server"));
    EXPECT_FALSE(p.last().message.has("P-Charging-Vector"));
    const auto view = w.gateway->find(p.impi);
    ASSERT_TRUE(view);
    EXPECT_EQ(view->state, "registered");
    EXPECT_EQ(view->impus, (std::vector<std::string>{"sip:alice@home.example", "tel:+15550100"}));
    EXPECT_EQ(view->service_route, std::vector<std::string>{w.home.service_route});
    EXPECT_EQ(view->contact, p.contact());
    const sa::SaSet* set = w.sets->find(w.backend.sets().begin()->first);
    EXPECT_EQ(set->lifetime_end - w.clock.now(), 3600s + 30s);
}

TEST(B6, TheAddressInViaIsTheSource) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    RegisterOptions o;
    o.via_host = "10.2.0.99";
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_TRUE(p.last().message.has("Warning"));
    EXPECT_EQ(w.home.inbox.size(), 1U);
    w.expect_no_leak(0);
}

TEST(B6, ASymbolicNameIsComparedByItsAddress) {
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.via_host = "phone.example";
    challenge(w, p, o);
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().message.header("Via").find("received=10.2.0.1") != std::string::npos);
}

TEST(B6, PortUcMayNotBeInTheTable) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_sm1();  // the same port_uc
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.drops(Reason::port_in_use), 1U);
    EXPECT_EQ(w.gateway->registered(), 1U);
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 200) << "existing SAs untouched";
}

TEST(B7, AMessageOnTheWrongSaIsNeverAnswered) {
    World w;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    const auto at_home = w.home.inbox.size();
    const auto heard = mallory.inbox.size();
    RegisterOptions o;
    o.impi = alice.impi;
    o.impu = alice.impu;
    mallory.send_protected_sm1(o);
    w.advance(35s);
    EXPECT_EQ(w.home.inbox.size(), at_home);
    EXPECT_EQ(mallory.inbox.size(), heard);
    EXPECT_EQ(w.drops(Reason::wrong_sa), 1U);
    EXPECT_EQ(w.gateway->registered(), 2U);
}

TEST(B7, Sm7OfAnotherUserIsNeverAnswered) {
    World w;
    Phone& p = w.phone();
    challenge(w, p);
    const auto heard = p.inbox.size();
    RegisterOptions o;
    o.authorization = "Digest username=\"bob@home.example\",realm=\"home.example\",nonce=\"" +
                      p.pending->nonce + "\",uri=\"sip:home.example\",response=\"1\"";
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.inbox.size(), heard);
    EXPECT_EQ(w.drops(Reason::wrong_sa), 1U);
    // The procedure goes on.
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
}

// ---- E, N, S ----

TEST(E1, WhatTheCoreReceives) {
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.extra =
        "Path: <sip:evil.example;lr>\r\nP-Asserted-Identity: <sip:x@y>\r\nP-Visited-Network-ID: "
        "lies\r\n"
        "Route: <sip:10.1.0.1:5060;lr>\r\nP-Charging-Vector: icid-value=lies\r\nX-Own: kept\r\n";
    p.send_sm1(o);
    w.run();
    const Sip& m = w.home.inbox.at(0).message;
    const std::string path = m.header("Path");
    EXPECT_TRUE(path.starts_with("<sip:") && path.ends_with("@pcscf.visited.example:5060;lr>"))
        << path;
    EXPECT_EQ(path.find("evil"), std::string::npos);
    EXPECT_EQ(m.header("Require"), "path");
    EXPECT_EQ(m.header("P-Visited-Network-ID"), "\"visited.example\"");
    EXPECT_TRUE(m.header("P-Charging-Vector").starts_with("icid-value=\""));
    EXPECT_FALSE(m.contains("lies"));
    EXPECT_FALSE(m.has("P-Asserted-Identity"));
    EXPECT_FALSE(m.has("Route"));
    EXPECT_EQ(m.header("X-Own"), "kept");
    EXPECT_EQ(m.header("Max-Forwards"), "69");
    EXPECT_TRUE(m.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK"));
}

TEST(E1, FlowTokensCannotBeMadeByOthers) {
    World w;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& bob = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(bob.register_once());
    EXPECT_NE(w.home.paths[alice.impi], w.home.paths[bob.impi]);
    // Bob's number with Alice's tag.
    std::string mixed = w.home.paths[alice.impi];
    const auto user = mixed.find("sip:") + 4;
    mixed.replace(user, 16, w.home.paths[bob.impi].substr(user, 16));
    const auto heard = bob.inbox.size();
    w.home.request("MESSAGE", mixed, bob.contact());
    w.run();
    EXPECT_EQ(bob.inbox.size(), heard);
    EXPECT_EQ(w.home.inbox.back().message.status(), 404);
}

TEST(N1, BehindANatWithoutEncapsulation) {
    conformance::share("control");
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.via_host = "192.168.1.2";
    p.send_sm1(o);
    w.run();
    // The answer goes where the request came from.
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.drops(Reason::nat_unsupported), 1U);
    EXPECT_TRUE(w.home.inbox.empty());
}

TEST(S1, NoTraceHoldsAKeyOrANonce) {
    conformance::share("control");
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto records = w.gateway->trace().of_user(p.impi);
    ASSERT_GE(records.size(), 8U);
    std::vector<std::string> ladder;
    for (const auto& r : records) {
        if (r.step != registration::Step::none && r.step < registration::Step::set_installed) {
            ladder.emplace_back(registration::name(r.step));
        }
        EXPECT_EQ(r.summary().find(p.current().nonce), std::string::npos);
    }
    EXPECT_EQ(ladder,
              (std::vector<std::string>{"SM1", "SM2", "SM5", "SM6", "SM7", "SM8", "SM11", "SM12"}));
    const auto sm = [&](std::string_view name) {
        return *std::ranges::find_if(
            records, [&](const auto& r) { return registration::name(r.step) == name; });
    };
    EXPECT_EQ(sm("SM1").spi, 0U);
    EXPECT_EQ(sm("SM6").spi, 0U);
    EXPECT_EQ(sm("SM7").spi, p.current().numbers.spi_ps);
    EXPECT_EQ(sm("SM12").spi, p.current().numbers.spi_us);
}

TEST(S3, AFloodOfStrangersKeepsNobodyFromRenewing) {
    World::Options options;
    options.policy.limits.pending = 20;
    options.policy.limits.pending_per_source = 5;
    options.policy.limits.register_rate_total = 1000;
    World w(options);
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    ASSERT_TRUE(alice.register_once());
    for (int i = 0; i < 100; ++i) {
        Phone& stranger = w.phone("s" + std::to_string(i), "10.3.0." + std::to_string(i + 1));
        stranger.send_sm1();
    }
    w.run();
    EXPECT_EQ(w.gateway->pending(), 20U);
    EXPECT_EQ(w.drops(Reason::pending_limit), 80U);
    EXPECT_TRUE(alice.reregister()) << "on its SAs a registered user is not held up";
    Phone& greedy = w.phone("greedy", "10.4.0.1");
    w.advance(250s);
    EXPECT_EQ(w.gateway->pending(), 0U);
    for (int i = 0; i < 10; ++i) {
        greedy.impi = "g" + std::to_string(i) + "@home.example";
        greedy.next_ports();
        greedy.send_sm1();
    }
    w.run();
    EXPECT_EQ(w.gateway->pending(), 5U);
    EXPECT_EQ(w.drops(Reason::pending_source_limit), 5U);
}

TEST(S3, UnprotectedRegistersAreRateLimited) {
    World::Options options;
    options.policy.limits.register_rate_per_source = 5;
    options.policy.limits.register_burst_per_source = 10;
    World w(options);
    w.home.silent = true;
    Phone& p = w.phone();
    for (int i = 0; i < 100; ++i) p.send_sm1();
    w.run();
    EXPECT_EQ(w.drops(Reason::rate_source), 90U);
    Phone& other = w.phone("bob", "10.2.0.2");
    other.send_sm1();
    w.run();
    EXPECT_EQ(w.drops(Reason::rate_source), 90U) << "others are not hit";
}

}  // namespace
}  // namespace gmgate::test
