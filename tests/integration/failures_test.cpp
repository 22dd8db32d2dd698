// What goes wrong (SPEC C, D6): who is told what on which SA, what goes, and what must stay.

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

// After a failed re-authentication the old set must work as before (C9, D6).
void expect_still_registered(World& w, Phone& p) {
    EXPECT_EQ(w.gateway->registered(), 1U);
    p.pending.reset();
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
}

TEST(C1, WrongIkDiesByTimeOutOnly) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    p.wrong_ik = true;
    p.send_sm7();
    w.run();
    EXPECT_EQ(w.forged_dropped, 1U);
    EXPECT_EQ(w.home.inbox.size(), 1U) << "SIP never saw it";
    EXPECT_EQ(w.gateway->pending(), 1U);
    EXPECT_EQ(w.backend.installed(), 1U) << "a forged packet does not end the procedure";
    bool traced = false;
    for (const auto& r : w.gateway->trace().of_user(p.impi))
        traced |= r.reason == Reason::integrity_failure;
    EXPECT_TRUE(traced);
    // The true phone can still complete it.
    p.wrong_ik = false;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.expect_no_leak(1);
}

TEST(C2, WrongResponseAfterClearSm1) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    RegisterOptions o;
    o.authorization = p.answer_to(p.pending->nonce, "0000");
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_TRUE(p.last().esp) << "the 403 travels on the new SAs";
    EXPECT_EQ(w.gateway->failures().latest(1).at(0).reason, Reason::authentication_failed);
    w.expect_no_leak(0);
}

TEST(C2, WrongResponseAfterProtectedSm1) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto old = w.backend.sets().begin()->first;
    p.send_protected_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 401);
    p.take_challenge(p.last().message);
    RegisterOptions o;
    o.authorization = p.answer_to(p.pending->nonce, "0000");
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(p.last().set, old) << "D6";
    EXPECT_EQ(w.backend.installed(), 1U);
    EXPECT_TRUE(w.backend.has(old));
    expect_still_registered(w, p);
    w.expect_no_leak(1);
}

TEST(C3, NetworkAuthenticationFailure) {
    for (const bool protected_sm1 : {false, true}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& p = w.phone();
        if (protected_sm1) {
            ASSERT_TRUE(p.register_once());
            p.send_protected_sm1();
        } else {
            p.send_sm1();
        }
        w.run();
        ASSERT_EQ(p.last_status(), 401);
        p.take_challenge(p.last().message);
        RegisterOptions o;
        o.authorization = p.answer_to(p.pending->nonce, "");
        const std::string report = p.register_text(o, protected_sm1 ? &p.current() : nullptr);
        protected_sm1 ? p.send_on(p.current(), report) : p.send_clear(report);
        bool gone_on_receipt = false;
        w.lose = [&](const Wire& wire) {
            if (wire.to == Wire::To::home)
                gone_on_receipt = w.backend.installed() == (protected_sm1 ? 1U : 0U);
            return false;
        };
        w.run();
        EXPECT_TRUE(gone_on_receipt) << "the new SAs go before the REGISTER is forwarded";
        EXPECT_EQ(p.last_status(), 403);
        EXPECT_EQ(p.last().esp, protected_sm1) << "as SM1 came";
        EXPECT_FALSE(p.last().message.has("Security-Server"));
        if (protected_sm1) expect_still_registered(w, p);
        w.expect_no_leak(protected_sm1 ? 1 : 0);
    }
}

TEST(C3, AStrangerCannotVoidAChallenge) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    RegisterOptions o;
    o.authorization = p.answer_to("guessed", "");
    p.send_clear(p.register_text(o, nullptr));
    w.home.silent = true;
    w.run();
    EXPECT_EQ(w.backend.installed(), 1U) << "only who knows the nonce can";
    w.home.silent = false;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.expect_no_leak(1);
}

TEST(C4, SynchronisationFailureThenSuccess) {
    for (const bool protected_sm1 : {false, true}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& p = w.phone();
        if (protected_sm1) {
            ASSERT_TRUE(p.register_once());
            p.send_protected_sm1();
        } else {
            p.send_sm1();
        }
        w.run();
        p.take_challenge(p.last().message);
        const auto first = p.pending->numbers;
        RegisterOptions o;
        o.authorization = p.answer_to(p.pending->nonce, "", ",auts=\"AAAAAAAAAAAAAAAAAAA=\"");
        const std::string report = p.register_text(o, protected_sm1 ? &p.current() : nullptr);
        protected_sm1 ? p.send_on(p.current(), report) : p.send_clear(report);
        w.run();
        ASSERT_EQ(p.last_status(), 401) << "challenged again";
        EXPECT_EQ(p.last().esp, protected_sm1);
        p.take_challenge(p.last().message);
        EXPECT_NE(p.pending->numbers, first);
        p.send_sm7();
        w.run();
        EXPECT_EQ(p.last_status(), 200);
        p.accept();
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        w.expect_no_leak(1);
    }
}

TEST(C5, NoSm7) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    w.advance(239s);
    EXPECT_EQ(w.backend.installed(), 1U);
    EXPECT_EQ(w.gateway->pending(), 1U);
    w.advance(2s);
    EXPECT_EQ(w.backend.installed(), 0U) << "reg-await-auth: 240 s";
    EXPECT_EQ(w.gateway->pending(), 0U);
    EXPECT_EQ(w.gateway->failures().latest(1).at(0).reason, Reason::authentication_timeout);
    w.expect_no_leak(0);
}

TEST(C5, NoSm7KeepsTheRegisteredUser) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_protected_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 401);
    w.advance(250s);
    EXPECT_EQ(w.backend.installed(), 1U);
    expect_still_registered(w, p);
    w.expect_no_leak(1);
}

TEST(C6, Refusals) {
    World w;
    Phone& p = w.phone();
    RegisterOptions none;
    none.security_client = false;
    p.send_sm1(none);
    w.run();
    EXPECT_EQ(p.last_status(), 421);
    EXPECT_EQ(p.last().message.header("Require"), "sec-agree");

    RegisterOptions unknown;
    unknown.client = "ipsec-3gpp;alg=rot13;spi-c=1000;spi-s=1001;port-c=7001;port-s=7002, digest";
    p.send_sm1(unknown);
    w.run();
    EXPECT_EQ(p.last_status(), 494);
    EXPECT_TRUE(p.last().message.header("Security-Server").find("hmac-sha-1-96") !=
                std::string::npos);

    RegisterOptions broken;
    broken.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=abc;spi-s=1001;port-c=7001;port-s=7002";
    p.send_sm1(broken);
    w.run();
    EXPECT_EQ(p.last_status(), 400);

    RegisterOptions anonymous;
    anonymous.authorization = "";
    p.send_sm1(anonymous);
    w.run();
    EXPECT_EQ(p.last_status(), 403);

    EXPECT_TRUE(w.home.inbox.empty()) << "nothing is forwarded";
    EXPECT_EQ(w.sets->set_count(), 0U) << "nothing is allocated";
    EXPECT_EQ(w.gateway->pending(), 0U);
    w.expect_no_leak(0);
}

struct Altered {
    std::string_view name;
    std::function<void(Phone&, RegisterOptions&)> alter;
    Reason reason;
};

TEST(C8, Sm7MustMatch) {
    const std::vector<Altered> cases{
        {"no Security-Verify", [](Phone&, RegisterOptions& o) { o.verify = ""; },
         Reason::verify_missing},
        {"weaker list",
         [](Phone& p, RegisterOptions& o) {
             o.verify = p.pending->server.substr(0, p.pending->server.find(','));
         },
         Reason::verify_mismatch},
        {"other SPI",
         [](Phone& p, RegisterOptions& o) {
             o.verify = p.pending->server;
             const std::string from = "spi-c=" + std::to_string(p.pending->numbers.spi_pc);
             for (auto at = o.verify->find(from); at != std::string::npos;
                  at = o.verify->find(from, at + 1)) {
                 o.verify->replace(at, from.size(), "spi-c=4711");
             }
         },
         Reason::verify_mismatch},
        {"no Security-Client", [](Phone&, RegisterOptions& o) { o.security_client = false; },
         Reason::client_missing},
        {"other Security-Client",
         [](Phone& p, RegisterOptions& o) {
             o.client = "ipsec-3gpp;alg=hmac-md5-96;ealg=null;spi-c=" + std::to_string(p.spi_uc) +
                        ";spi-s=" + std::to_string(p.spi_us) +
                        ";port-c=" + std::to_string(p.port_uc) +
                        ";port-s=" + std::to_string(p.port_us);
         },
         Reason::client_mismatch},
        {"other To", [](Phone&, RegisterOptions& o) { o.impu = "sip:mallory@home.example"; },
         Reason::identity_mismatch},
    };
    for (const auto& c : cases) {
        SCOPED_TRACE(c.name);
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        p.send_protected_sm1();
        w.run();
        ASSERT_EQ(p.last_status(), 401);
        p.take_challenge(p.last().message);
        const auto at_home = w.home.inbox.size();
        RegisterOptions o;
        c.alter(p, o);
        p.send_sm7(o);
        w.run();
        EXPECT_EQ(p.last_status() / 100, 4);
        EXPECT_TRUE(p.last().esp);
        EXPECT_EQ(w.home.inbox.size(), at_home) << "nothing is forwarded";
        EXPECT_EQ(w.drops(c.reason), 1U);
        // The right one comes too late.
        p.send_sm7();
        w.run();
        EXPECT_EQ(w.home.inbox.size(), at_home);
        w.advance(40s);
        EXPECT_EQ(w.backend.installed(), 1U) << "the new SAs are gone, the old ones are not";
        expect_still_registered(w, p);
        w.expect_no_leak(1);
    }
}

TEST(C8, SilentByPolicy) {
    World::Options options;
    options.policy.consistency_failure = registration::ConsistencyFailure::silent;
    World w(options);
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    RegisterOptions o;
    o.verify = "";
    const auto heard = p.inbox.size();
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.inbox.size(), heard);
    EXPECT_EQ(w.backend.installed(), 0U);
    w.expect_no_leak(0);
}

TEST(C11, SilentCore) {
    World w;
    Phone& p = w.phone();
    w.home.silent = true;
    p.send_sm1();
    w.advance(33s);
    EXPECT_EQ(p.last_status(), 504);
    EXPECT_FALSE(p.last().esp);
    EXPECT_EQ(w.gateway->pending(), 0U);
    EXPECT_GT(w.home.inbox.size(), 5U) << "retransmitted over UDP";
    w.expect_no_leak(0);
}

TEST(C11, SilentCoreAtSm8) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    w.home.silent = true;
    p.send_sm7();
    w.advance(33s);
    EXPECT_EQ(p.last_status(), 504);
    EXPECT_TRUE(p.last().esp);
    EXPECT_EQ(w.backend.installed(), 1U) << "the SAs obey C5";
    // The core is back in time.
    w.home.silent = false;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.expect_no_leak(1);
}

TEST(C11, CoreErrors) {
    for (const int status : {500, 503, 504, 404}) {
        SCOPED_TRACE(status);
        World w;
        Phone& p = w.phone();
        w.home.fixed_status = status;
        p.send_sm1();
        w.run();
        EXPECT_EQ(p.last_status(), status);
        w.expect_no_leak(0);
    }
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    w.home.fixed_status = 503;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 503);
    EXPECT_EQ(w.backend.installed(), 1U);
    w.expect_no_leak(0);
}

TEST(C11, CoreCannotBeReached) {
    World w;
    Phone& p = w.phone();
    w.core_net.refuse = true;
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 504);
    w.expect_no_leak(0);
}

TEST(C11, ChallengeWithoutKeysOrWithoutChallenge) {
    World w;
    Phone& p = w.phone();
    w.home.omit_keys = true;
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    w.home.omit_keys = false;
    w.home.accept_without_challenge = true;
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500) << "nobody authenticated this phone";
    EXPECT_EQ(w.gateway->registered(), 0U);
    w.expect_no_leak(0);
}

TEST(C11, ChallengedAgainAtSm8) {
    World w;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    p.take_challenge(p.last().message);
    w.home.challenge_again = true;
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 504);
    w.home.challenge_again = false;
    // The phone begins again, with the same ports.
    ASSERT_TRUE(p.register_once());
    w.expect_no_leak(1);
}

TEST(C12, InstallFails) {
    World w;
    Phone& p = w.phone();
    w.backend.fail_install(ErrorKind::io);
    p.send_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    EXPECT_FALSE(p.last().message.has("Security-Server"));
    EXPECT_EQ(w.drops(Reason::install_failed), 1U);
    EXPECT_EQ(w.backend.installed(), 0U);
    ASSERT_TRUE(p.register_once()) << "and the next attempt is as good as new";
    w.expect_no_leak(1);
}

TEST(C12, InstallFailsWhileRegistered) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.backend.fail_install(ErrorKind::exhausted);
    p.send_protected_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    EXPECT_TRUE(p.last().esp) << "as SM1 came";
    expect_still_registered(w, p);
    w.expect_no_leak(1);
}

TEST(D3, RenewedWithoutChallenge) {
    World w;
    w.home.grant = 600;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(500s);
    p.send_protected_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.backend.installed(), 1U) << "no new SAs";
    w.advance(500s);
    EXPECT_EQ(w.gateway->registered(), 1U) << "the life time grew";
    w.advance(200s);
    w.expect_no_leak(0);
}

TEST(D5, NewAddress) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto old = w.backend.sets().begin()->first;
    p.address = ip("10.2.0.77");
    p.next_ports();
    p.send_sm1();
    w.run();
    EXPECT_TRUE(w.backend.has(old)) << "not before SM12";
    p.take_challenge(p.last().message);
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_FALSE(w.backend.has(old));
    w.expect_no_leak(1);
}

TEST(D4, DeregisteredAfterAChallenge) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    RegisterOptions o;
    o.expires = 0;
    p.send_protected_sm1(o);
    w.run();
    p.take_challenge(p.last().message);
    p.send_sm7(o);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
    p.accept();
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 403) << "no longer registered";
    w.expect_no_leak(0);
}

TEST(D4, OneIdentityOfTwo) {
    World w;
    w.home.associated = "<sip:%U@home.example>";
    w.home.integrity_yes_is_enough = true;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.associated = "<sip:work@home.example>";
    RegisterOptions work;
    work.impu = "sip:work@home.example";
    p.send_protected_sm1(work);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->impus.size(), 2U);
    work.expires = 0;
    p.send_protected_sm1(work);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->impus, std::vector<std::string>{"sip:alice@home.example"});
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    w.expect_no_leak(1);
}

}  // namespace
}  // namespace gmgate::test
