// C and D: error cases, re-registration and lifetimes, as far as the SA library alone shows them.

#include <gtest/gtest.h>

#include "tests/conformance/share.h"
#include "tests/support/sa_fixture.h"

namespace gmgate {
namespace {

using conformance::share;
using namespace std::chrono_literals;
using namespace gmgate::sa;
using test::SaFixture;

struct ReRegistration : SaFixture {
    SetId old = register_ue(request("alice@home"));
    SetId fresh = [this] {
        auto r = request("alice@home");
        r.sm1_set = old;
        return challenge(r);
    }();
};

TEST(C1, ForgedPacketsNeverEndASet) {
    share("sa");
    ReRegistration f;
    for (const SetId id : {f.old, f.fresh}) {
        for (int i = 0; i < 50; ++i) f.backend.emit({BackendEventKind::integrity_failure, id, 0});
    }
    f.db->poll_backend();
    EXPECT_EQ(f.state(f.fresh), State::registration);
    EXPECT_EQ(f.state(f.old), State::established);
}

TEST(C5, NoSm7LeavesNothingOfTheProcedureAndEverythingElse) {
    share("sa");
    ReRegistration f;
    f.advance(240s);
    EXPECT_EQ(f.db->find(f.fresh), nullptr);
    EXPECT_EQ(f.state(f.old), State::established);
    EXPECT_EQ(f.db->spis().held(), 2U);
    EXPECT_EQ(f.backend.installed(), 1U);
    EXPECT_EQ(f.wheel.size(), 1U);
}

TEST(C9, AFailedAuthenticationNeverTouchesAnOldSet) {
    share("sa");
    for (const Event e :
         {Event::auth_rejected, Event::network_auth_failure, Event::sync_failure,
          Event::consistency_failure, Event::first_packet_refused, Event::aborted}) {
        SCOPED_TRACE(name(e));
        ReRegistration f;
        EXPECT_TRUE(f.db->apply(f.fresh, e));
        EXPECT_FALSE(f.backend.has(f.fresh));
        EXPECT_EQ(f.state(f.old), State::established);
        EXPECT_TRUE(f.db->find_by_impi("alice@home")->registered());
        EXPECT_EQ(f.db->outbound(*f.db->find_by_impi("alice@home"))->id, f.old);
    }
}

TEST(C12, AnInstallThatFailsIsUndone) {
    share("sa");
    SaFixture f;
    const SetId old = f.register_ue(f.request("alice@home"));
    f.backend.fail_install(ErrorKind::exhausted);
    auto r = f.request("alice@home");
    r.sm1_set = old;
    const auto id = f.db->reserve(r);
    ASSERT_TRUE(id);
    EXPECT_FALSE(f.db->install(*id));
    EXPECT_EQ(f.db->find(*id), nullptr);
    EXPECT_EQ(f.db->spis().held(), 2U);
    EXPECT_EQ(f.db->stats().install_failed.value(), 1U);
    EXPECT_EQ(f.state(old), State::established);
}

TEST(D1, Sm1InClearRemovesAllOldSetsAtSm12) {
    share("sa");
    ReRegistration f;
    ASSERT_TRUE(f.establish(f.fresh));
    const SetId c = f.challenge(f.request("alice@home"));
    EXPECT_EQ(f.state(f.old), State::established);
    EXPECT_EQ(f.state(f.fresh), State::established);
    ASSERT_TRUE(f.establish(c));
    EXPECT_EQ(f.backend.installed(), 1U);
    EXPECT_TRUE(f.backend.has(c));
}

TEST(D2, TheSetSm1CameOnStaysUntilTrafficHasMoved) {
    share("sa");
    ReRegistration f;
    ASSERT_TRUE(f.establish(f.fresh));
    const User& u = *f.db->find_by_impi("alice@home");
    EXPECT_EQ(f.db->outbound(u)->id, f.old);
    f.db->note_use(f.fresh);
    EXPECT_EQ(f.db->outbound(u)->id, f.fresh);
    EXPECT_EQ(f.state(f.old), State::draining);
    f.advance(32s);
    EXPECT_EQ(f.db->find(f.old), nullptr);
    EXPECT_EQ(f.state(f.fresh), State::established);
}

TEST(D2, OtherOldSetsGoAtSm12) {
    share("sa");
    ReRegistration f;
    ASSERT_TRUE(f.establish(f.fresh));
    auto r = f.request("alice@home");
    r.sm1_set = f.fresh;
    const SetId c = f.register_ue(r);
    EXPECT_EQ(f.db->find(f.old), nullptr);
    EXPECT_EQ(f.state(f.fresh), State::established);
    EXPECT_EQ(f.state(c), State::established);
}

TEST(D3, WithoutAChallengeTheLifetimeGrowsAndNoSaIsMade) {
    share("sa");
    SaFixture f;
    const SetId a = f.register_ue(f.request("alice@home"), 600s);
    f.clock.advance(300s);
    EstablishRequest e;
    const std::array<std::string_view, 1> impus{"sip:alice@home"};
    e.impus = impus;
    e.granted = 600s;
    ASSERT_TRUE(f.db->refresh(a, e));
    EXPECT_EQ(f.db->find(a)->lifetime_end, f.clock.now() + 630s);
    EXPECT_EQ(f.backend.install_calls(), 1U);
}

TEST(D4, DeregistrationRemovesAllSasAfterTheLastMessage) {
    share("sa");
    ReRegistration f;
    ASSERT_TRUE(f.establish(f.fresh));
    ASSERT_TRUE(f.db->deregister(f.db->find(f.old)->user, true));
    EXPECT_EQ(f.backend.installed(), 2U);  // the 200 still leaves on one of them
    f.advance(32s);
    f.expect_empty();
}

TEST(D5, ANewAddressReplacesTheSetsOfTheOldOneAtSm12) {
    share("sa");
    SaFixture f;
    const SetId a = f.register_ue(f.request("alice@home", "10.0.0.1"));
    const SetId b = f.challenge(f.request("alice@home", "10.0.0.2"));
    EXPECT_EQ(f.state(a), State::established);
    ASSERT_TRUE(f.establish(b));
    EXPECT_EQ(f.db->find(a), nullptr);
    EXPECT_EQ(f.state(b), State::established);
}

TEST(D7, ASetIsRetiredBeforeItsSequenceNumbersWrap) {
    share("sa");
    SaFixture f;
    const SetId a = f.register_ue(f.request("alice@home"));
    f.backend.emit({BackendEventKind::sequence_near_end, a, 0});
    f.db->poll_backend();
    EXPECT_EQ(f.state(a), State::draining);
    f.advance(32s);
    f.expect_empty();
}

TEST(S3, StrangersCannotPushUsersOutNorHoldStateWithoutLimit) {
    share("sa");
    DatabaseConfig config;
    config.limits.max_registration_sets = 8;
    SaFixture f(config);
    const SetId alice = f.register_ue(f.request("alice@home"));
    int taken = 0;
    for (int i = 0; i < 1000; ++i) {
        const auto id = f.db->reserve(
            f.request("stranger" + std::to_string(i), "10.0.0." + std::to_string(2 + i % 200)));
        if (!id) continue;
        ++taken;
        ASSERT_TRUE(f.db->install(*id));
    }
    EXPECT_EQ(taken, 8);
    EXPECT_EQ(f.db->user_count(), 9U);
    EXPECT_EQ(f.state(alice), State::established);
    auto r = f.request("alice@home");
    r.sm1_set = alice;
    EXPECT_TRUE(f.db->reserve(r));  // and she can still re-register
    f.advance(241s);
    EXPECT_EQ(f.db->user_count(), 1U);  // all of it has gone by time-out
}

}  // namespace
}  // namespace gmgate
