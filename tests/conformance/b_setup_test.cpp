// B: set-up, as far as the SA library alone shows it.

#include <gtest/gtest.h>

#include "tests/conformance/share.h"
#include "tests/support/sa_fixture.h"

namespace gmgate {
namespace {

using conformance::share;
using namespace std::chrono_literals;
using namespace gmgate::sa;
using test::SaFixture;

TEST(B2, RegistrationSasAreLiveBeforeSm6AndEndAfter240Seconds) {
    share("sa");
    SaFixture f;
    const auto id = f.db->reserve(f.request("alice@home"));
    ASSERT_TRUE(id);
    EXPECT_FALSE(f.backend.has(*id));
    ASSERT_TRUE(f.db->install(*id));
    EXPECT_TRUE(f.backend.has(*id));  // SM6 is sent after this
    ASSERT_TRUE(f.db->apply(*id, Event::sm6_sent));
    f.advance(240s - 2ms);
    EXPECT_EQ(f.state(*id), State::registration);
    f.advance(2ms);
    f.expect_empty();
}

TEST(B2, AllFourOrNone) {
    share("sa");
    SaFixture f;
    f.backend.fail_install(ErrorKind::io);
    const auto id = f.db->reserve(f.request("alice@home"));
    ASSERT_TRUE(id);
    EXPECT_FALSE(f.db->install(*id));
    f.expect_empty();
}

TEST(B3, AChallengeReplacesTheUnfinishedProcedureAndNothingElse) {
    SaFixture f;
    const SetId old = f.register_ue(f.request("alice@home"));
    const SetId bob = f.challenge(f.request("bob@home"));
    auto r = f.request("alice@home");
    r.sm1_set = old;
    const SetId first = f.challenge(r);
    r = f.request("alice@home");
    r.sm1_set = old;
    const SetId second = f.challenge(r);
    EXPECT_EQ(f.db->find(first), nullptr);
    EXPECT_FALSE(f.backend.has(first));
    EXPECT_EQ(f.recorder.removed.back().reason, Event::superseded);
    EXPECT_EQ(f.state(second), State::registration);
    EXPECT_EQ(f.state(old), State::established);
    EXPECT_EQ(f.state(bob), State::registration);
}

TEST(B5, LifetimeIsGrantedPlusThirtySeconds) {
    share("sa");
    SaFixture f;
    const SetId id = f.register_ue(f.request("alice@home"), 600s);
    f.advance(630s - 2ms);
    EXPECT_EQ(f.state(id), State::established);
    f.advance(2ms);
    f.expect_empty();
}

TEST(B5, LifetimeIsTheLaterOfOldAndNewAndNeverDecreased) {
    share("sa");
    SaFixture f;
    const SetId a = f.register_ue(f.request("alice@home"), 3600s);
    const TimePoint old_end = f.db->find(a)->lifetime_end;
    f.advance(100s);
    auto r = f.request("alice@home");
    r.sm1_set = a;
    const SetId b = f.register_ue(r, 60s);
    EXPECT_EQ(f.db->find(b)->lifetime_end, old_end);
    // Also when the old set goes in the same moment (SM1 in clear).
    const SetId c = f.register_ue(f.request("alice@home"), 60s);
    EXPECT_EQ(f.db->find(c)->lifetime_end, old_end);
    const SetId d = f.register_ue(f.request("alice@home"), 7200s);
    EXPECT_EQ(f.db->find(d)->lifetime_end, f.clock.now() + 7230s);
}

TEST(B5, RoutesAndIdentitiesAreStoredWithTheSas) {
    share("sa");
    SaFixture f;
    const SetId id = f.challenge(f.request("alice@home"));
    ASSERT_TRUE(f.establish(id, 600s, {"sip:alice@home", "tel:+491"}));
    const User& u = *f.db->find_user(f.db->find(id)->user);
    EXPECT_EQ(u.service_route(), "<sip:orig@scscf.home.example;lr>");
    EXPECT_EQ(u.p_associated_uri(), "<sip:alice@home.example>");
    EXPECT_EQ(f.db->find_by_impu("tel:+491"), &u);
    EXPECT_EQ(f.db->find_by_impu("sip:alice@home"), &u);
}

TEST(B6, TheClientPortMayNotBeInTheTable) {
    share("sa");
    SaFixture f;
    const auto alice = f.request("alice@home");
    const SetId a = f.register_ue(alice);
    for (const char* impi : {"bob@home", "alice@home"}) {
        auto r = f.request(impi);
        r.port_uc = alice.port_uc;
        const auto refused = f.db->check_ue(r.impi, r.ue, r.spi_uc, r.spi_us, r.port_uc, r.port_us);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().kind, ErrorKind::conflict);
        EXPECT_FALSE(f.db->reserve(r));
    }
    EXPECT_EQ(f.state(a), State::established);
    EXPECT_EQ(f.backend.installed(), 1U);
}

TEST(B6, AtMostSixSasPerDirection) {
    share("sa");
    SaFixture f;
    SetId x = 0;
    for (int i = 0; i < 12; ++i) {
        auto r = f.request("alice@home");
        r.sm1_set = x;
        const SetId id = f.challenge(r);
        EXPECT_LE(f.backend.installed(), 3U);  // two SAs per direction each
        if (i % 4 != 3) {
            ASSERT_TRUE(f.establish(id));
            if (i % 2 == 0) f.db->note_use(id);
            x = id;
        }
        EXPECT_LE(f.backend.installed(), 3U);
    }
}

TEST(B7, TheSetIsFoundByAddressesAndPortsAndKnowsItsUser) {
    share("sa");
    SaFixture f;
    const SetId a = f.register_ue(f.request("alice@home"));
    const SetId b = f.register_ue(f.request("bob@home"));  // the same address
    for (const auto& [id, impi] : {std::pair{a, "alice@home"}, std::pair{b, "bob@home"}}) {
        const SaNumbers& n = f.db->find(id)->numbers;
        const SaSet* s = f.db->find_by_tuple(SaFixture::ip("10.0.0.1"), n.port_uc, n.port_ps);
        ASSERT_NE(s, nullptr);
        EXPECT_EQ(s->id, id);
        EXPECT_EQ(f.db->find_user(s->user)->impi(), impi);
    }
    // A message of another user on it changes nothing.
    EXPECT_TRUE(f.db->apply(a, Event::wrong_user));
    EXPECT_EQ(f.state(a), State::established);
}

}  // namespace
}  // namespace gmgate
