// C1–C5: what goes wrong with the authentication itself, over the whole gateway, with phones that
// have cards and gmhome's S-CSCF and HSS. TS 33.203 clauses 6.1.2, 6.1.3, 7.3.1.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

using Flag = home::LocalHss::Flag;

std::vector<std::string_view> security_headers() {
    return {"Security-Server", "Security-Client", "Security-Verify"};
}

void expect_no_security_parameter(const Sip& m) {
    for (const std::string_view name : security_headers()) EXPECT_FALSE(m.has(name)) << name;
    EXPECT_FALSE(m.has("WWW-Authenticate"));
    EXPECT_FALSE(m.contains("sec-agree"));
}

// ---- C1 ----

TEST(C1, SipNeverSeesSm7AndTheSetDiesByTimeOutOnly) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        const auto at_home = c.w.home.inbox.size();
        const auto heard = c.p.inbox.size();
        c.p.wrong_ik = true;
        for (int i = 0; i < 5; ++i) c.p.send_sm7();
        c.w.run();
        EXPECT_EQ(c.w.forged_dropped, 5U);
        EXPECT_EQ(c.w.home.inbox.size(), at_home);
        EXPECT_EQ(c.p.inbox.size(), heard);
        c.w.advance(239s);
        EXPECT_TRUE(c.w.backend.has(c.fresh)) << "a forged packet ends nothing";
        EXPECT_EQ(c.w.gateway->pending(), 1U);
        c.w.advance(2s);
        EXPECT_FALSE(c.w.backend.has(c.fresh)) << "the time-out does";
        c.p.wrong_ik = false;
        c.expect_as_before();
    }
}

TEST(C1, TheTruePhoneCompletesWhatForgedPacketsTried) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.p.wrong_ik = true;
        c.p.send_sm7();
        c.w.run();
        c.p.wrong_ik = false;
        c.p.send_sm7();
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 200);
    }
}

TEST(C1, TheOperatorSeesIt) {
    Procedure c(false);
    c.p.wrong_ik = true;
    c.p.send_sm7();
    c.w.run();
    bool traced = false;
    for (const auto& r : c.w.gateway->trace().of_user(c.p.impi))
        traced = traced || r.reason == Reason::integrity_failure;
    EXPECT_TRUE(traced);
}

// ---- C2 ----

TEST(C2, WrongResponseAfterSm1InClear) {
    Procedure c(false);
    c.p.send_wrong_sm7();
    c.w.run();
    EXPECT_EQ(c.p.last_status(), 403);
    EXPECT_TRUE(c.p.last().esp);
    EXPECT_EQ(c.p.last().set, c.fresh) << "the 403 travels on the new SAs";
    expect_no_security_parameter(c.p.last().message);
    EXPECT_EQ(c.w.gateway->failures().latest(1).at(0).reason, Reason::authentication_failed);
    // A 403 that was lost is repeated on them.
    const auto heard = c.p.inbox.size();
    c.p.send_on(*c.p.pending, c.p.last_sm7);
    c.w.run();
    ASSERT_EQ(c.p.inbox.size(), heard + 1);
    EXPECT_EQ(c.p.last_status(), 403);
    // They carry nothing else, and afterwards they are deleted on our side.
    const auto at_home = c.w.home.inbox.size();
    c.p.send_on(*c.p.pending, c.p.register_text({}, &*c.p.pending));
    c.w.run();
    EXPECT_EQ(c.w.home.inbox.size(), at_home);
    c.w.advance(33s);
    EXPECT_FALSE(c.w.backend.has(c.fresh));
    c.expect_as_before();
    c.w.nothing_left();
}

TEST(C2, WrongResponseAfterProtectedSm1) {
    Procedure c(true);
    c.p.send_wrong_sm7();
    c.w.run();
    EXPECT_EQ(c.p.last_status(), 403);
    EXPECT_EQ(c.p.last().set, c.old) << "D6";
    EXPECT_FALSE(c.w.backend.has(c.fresh)) << "deleted";
    c.expect_as_before();
}

// Over TCP the old set's connection carries it; if that is gone, the new one does.
TEST(C2, OverTcp) {
    for (const bool closed : {false, true}) {
        World w(with_gmhome());
        Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
        ASSERT_TRUE(p.register_once());
        const auto old = w.set_of(p.current());
        ASSERT_TRUE(p.challenged(true));
        const auto fresh = w.set_of(*p.pending);
        if (closed) w.gm_net.closed.insert(p.connections[p.current().numbers.port_uc]);
        p.send_wrong_sm7();
        w.run();
        EXPECT_EQ(p.last_status(), 403);
        EXPECT_EQ(p.last().set, old) << "if need be on a new connection (D6)";
        w.advance(40s);
        EXPECT_FALSE(w.backend.has(fresh));
        EXPECT_TRUE(w.backend.has(old));
        w.expect_no_leak(1);
    }
}

// ---- C3 ----

// The card refuses AUTN's MAC: the home network is none of it.
void wrong_network(Phone& p) {
    ue::CardKeys keys;
    p.card.emplace(std::move(keys));
}

TEST(C3, NetworkAuthenticationFailure) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        c.w.advance(300s);  // that challenge is none of this test's
        wrong_network(c.p);
        c.w.network->cx.clear();
        ASSERT_TRUE(c.p.challenged(registered));
        ASSERT_TRUE(c.p.pending->mac_failure) << "the card finds out";
        const auto fresh = c.w.set_of(*c.p.pending);
        ASSERT_NE(fresh, 0U);
        std::optional<bool> there;
        c.w.lose = [&](const Wire& wire) {
            if (wire.to == Wire::To::home) there = c.w.backend.has(fresh);
            return false;
        };
        c.p.refuse_challenge(registered);
        c.w.run();
        ASSERT_TRUE(there) << "it is forwarded";
        EXPECT_FALSE(*there) << "and the new SAs went on receipt, before that";
        EXPECT_EQ(c.p.last_status(), 403);
        EXPECT_EQ(c.p.last().esp, registered) << "it travels as SM1 did";
        EXPECT_EQ(c.p.last().set, c.old);
        expect_no_security_parameter(c.p.last().message);
        const auto& sm8 = c.w.home.inbox.back().message;
        EXPECT_TRUE(sm8.header("Authorization").find("response=\"\"") != std::string::npos)
            << "the cause reaches the S-CSCF";
        EXPECT_EQ(c.w.gateway->failures().latest(1).at(0).reason,
                  Reason::network_authentication_failed);
        c.expect_as_before();
    }
}

// SM1 in clear although there are SAs (D1): the report may come on an SA or in clear.
TEST(C3, TheReportMayComeOnAnOldSaWhenSm1WasInClear) {
    for (const bool report_protected : {false, true}) {
        World w(with_gmhome());
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        const auto old = w.set_of(p.current());
        p.next_ports();
        ASSERT_TRUE(p.challenged(false));
        const auto fresh = w.set_of(*p.pending);
        p.refuse_challenge(report_protected);
        w.run();
        EXPECT_FALSE(w.backend.has(fresh));
        EXPECT_EQ(p.last_status(), 403);
        EXPECT_EQ(p.last().esp, report_protected);
        EXPECT_TRUE(w.backend.has(old));
        w.expect_served(p);
        w.expect_no_leak(1);
    }
}

// With or without the security agreement in it: an empty response needs no new SAs.
TEST(C3, TheReportNeedsNoSecurityClient) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        RegisterOptions bare;
        bare.security_client = false;
        bare.require = false;
        c.p.refuse_challenge(registered, {}, bare);
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 403);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        c.expect_as_before();
    }
}

// What began on an SA is reported on one: with integrity alone whoever listens has read the nonce,
// and an address is easily forged. In clear nothing about this user is even passed on meanwhile.
TEST(C3, WhatBeganOnAnSaIsNotReportedInClear) {
    for (const bool out_of_sync : {false, true}) {
        Procedure c(true);
        const auto at_home = c.w.home.inbox.size();
        c.p.refuse_challenge(
            false, out_of_sync ? to_base64(std::array<std::uint8_t, 14>{}) : std::string{});
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 503);
        EXPECT_FALSE(c.p.last().esp);
        EXPECT_EQ(c.w.home.inbox.size(), at_home);
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        c.expect_completes();
    }
}

TEST(C3, AStrangerCannotVoidAChallenge) {
    Procedure c(false);
    Phone& stranger = c.w.phone("mallory", "10.2.0.66");
    const std::string nonce = c.p.pending->nonce;
    c.w.network->silent = true;
    // From her address, with a guess; from his own, with the true one (SM6 in clear can be read).
    RegisterOptions o;
    o.authorization = c.p.answer_to("guessed", "");
    c.p.send_clear(c.p.register_text(o, nullptr));
    o.authorization = c.p.answer_to(nonce, "");
    o.impu = c.p.impu;
    stranger.send_clear(stranger.register_text(o, nullptr));
    c.w.run();
    EXPECT_TRUE(c.w.backend.has(c.fresh));
    c.w.network->silent = false;
}

// ---- C4 ----

TEST(C4, TheSecondRoundCompletesOnFreshVectors) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        // The network's sequence number is behind: the card was used elsewhere.
        const std::string first_nonce = c.p.pending->nonce;
        const auto first_numbers = c.p.pending->numbers;
        const auto aka = ue::parse_aka_nonce(first_nonce);
        ASSERT_TRUE(aka);
        const auto refused = c.p.card->refuse_as_stale(aka->rand, aka->autn, 1U << 20U);
        const auto* stale = std::get_if<ue::AkaSyncFailure>(&refused);
        ASSERT_NE(stale, nullptr);
        std::optional<bool> there;
        c.w.lose = [&](const Wire& wire) {
            if (wire.to == Wire::To::home && !there) there = c.w.backend.has(c.fresh);
            return false;
        };
        c.w.network->cx.clear();
        c.p.refuse_challenge(registered, to_base64(stale->auts));
        c.w.run();
        ASSERT_TRUE(there);
        EXPECT_FALSE(*there) << "the new SAs went on receipt";
        // CM1: Av-Req with RAND and AUTS.
        ASSERT_FALSE(c.w.network->cx.empty());
        EXPECT_EQ(c.w.network->cx.front().operation, Cx::Operation::av_request);
        EXPECT_TRUE(c.w.network->cx.front().resynchronisation);
        EXPECT_TRUE(c.w.network->puts().empty()) << "synchronisation is no failed authentication";

        ASSERT_EQ(c.p.last_status(), 401) << "challenged again";
        EXPECT_EQ(c.p.last().esp, registered);
        EXPECT_EQ(c.p.last().set, c.old);
        c.p.take_challenge(c.p.last().message);
        EXPECT_TRUE(c.p.pending->res) << "the card takes this one";
        EXPECT_NE(c.p.pending->nonce, first_nonce);
        EXPECT_NE(c.p.pending->numbers.spi_pc, first_numbers.spi_pc);
        EXPECT_NE(c.p.pending->numbers.spi_ps, first_numbers.spi_ps);
        c.expect_completes();
    }
}

// AUTS that does not verify: the S-CSCF refuses, and nothing stays.
TEST(C4, AutsThatDoesNotVerify) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.p.refuse_challenge(registered, to_base64(std::array<std::uint8_t, 14>{}));
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 403);
        EXPECT_EQ(c.p.last().set, c.old);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        c.expect_as_before();
    }
}

// A new challenge needs new SAs, so a report with auts and no security agreement is refused as an
// SM1 without it; the sets of the challenge are gone all the same.
TEST(C4, WithoutSecurityClientThereIsNoSecondRound) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        RegisterOptions bare;
        bare.security_client = false;
        c.p.refuse_challenge(registered, to_base64(std::array<std::uint8_t, 14>{}), bare);
        c.w.run();
        EXPECT_EQ(c.p.last_status(), 421);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        c.expect_as_before();
    }
}

// ---- C5 ----

TEST(C5, EverythingOfTheProcedureGoesAtRegAwaitAuth) {
    for (const bool registered : {false, true}) {
        SCOPED_TRACE(registered);
        Procedure c(registered);
        c.w.advance(240s - 50ms);
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.gateway->pending(), 1U);
        c.w.advance(100ms);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.books(), c.before) << "in the very moment, not later";
        EXPECT_EQ(c.w.gateway->failures().latest(1).at(0).reason, Reason::authentication_timeout);
        if (!registered) {
            EXPECT_FALSE(c.w.gateway->find(c.p.impi)) << "nobody remembers the phone";
            c.w.nothing_left();
        }
        // SM7 comes too late: the packet layer has no SA for it.
        const auto at_home = c.w.home.inbox.size();
        c.p.send_sm7();
        c.w.run();
        EXPECT_EQ(c.w.home.inbox.size(), at_home);
        c.expect_as_before();
        // And it may begin again, with the same ports (in clear) or on its set.
        EXPECT_TRUE(c.registers());
    }
}

TEST(C5, TheTimeIsConfigurable) {
    auto options = with_gmhome();
    options.database.timers.reg_await_auth = 60s;
    Procedure c(false, options);
    c.w.advance(59s);
    EXPECT_EQ(c.w.backend.installed(), 1U);
    c.w.advance(1100ms);
    EXPECT_EQ(c.w.books(), Books{});
}

TEST(C5, ItRunsFromSm6OnAndSm7DoesNotStretchIt) {
    Procedure c(false);
    c.w.advance(230s);
    c.w.network->silent = true;
    c.p.send_sm7();
    c.w.advance(11s);
    EXPECT_FALSE(c.w.backend.has(c.fresh));
    c.w.nothing_left();
}

// No reply to SM7: the phone begins anew, under an SA of an earlier success if it has one.
TEST(C5, NoReplyToSm7) {
    for (const bool registered : {false, true}) {
        Procedure c(registered);
        c.w.lose = [](const Wire& wire) { return wire.to == Wire::To::ue; };
        c.w.network->silent = true;
        c.p.send_sm7();
        c.w.advance(33s);
        c.w.lose = nullptr;
        c.w.network->silent = false;
        if (registered) {
            EXPECT_TRUE(c.p.reregister());
        } else {
            c.p.next_ports();
            EXPECT_TRUE(c.p.register_once());
        }
        EXPECT_FALSE(c.w.backend.has(c.fresh)) << "B3";
        c.w.expect_served(c.p);
        c.w.expect_no_leak(1);
    }
}

}  // namespace
}  // namespace gmgate::test
