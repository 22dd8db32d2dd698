// The real SA database and gateway behind the operator's views.
#include <gmock/gmock.h>

#include <set>

#include "control/cli/ladder.h"
#include "control/ops/protocol.h"
#include "control/ops/registration_view.h"
#include "control/ops/sa_view.h"
#include "tests/support/gateway_world.h"

namespace gmgate::ops {
namespace {

using test::Phone;
using test::World;

class ViewsTest : public testing::Test {
  protected:
    std::vector<SaRow> sas(const Query& query, bool detail = false, std::size_t budget = 2) {
        std::vector<SaRow> out;
        Cursor cursor = 0;
        std::size_t turns = 0;
        do {
            std::size_t seen = 0;
            cursor = sa_view.scan(query, cursor, budget, detail, [&](const SaRow& row) {
                ++seen;
                if (matches(query, row)) out.push_back(row);
            });
            EXPECT_LE(seen, std::max<std::size_t>(budget, sa::max_sets_per_user));
        } while (cursor != 0 && ++turns < 1000);
        EXPECT_LT(turns, 1000U);
        return out;
    }
    std::vector<RegistrationRow> registrations(const Query& query) {
        std::vector<RegistrationRow> out;
        Cursor cursor = 0;
        do {
            cursor = view.scan(query, cursor, 2, [&](const RegistrationRow& row) {
                if (matches(query, row)) out.push_back(row);
            });
        } while (cursor != 0);
        return out;
    }
    World world;
    SaDatabaseView sa_view{*world.sets, world.backend};
    GatewayView view{*world.gateway, *world.sets, world.clock};
};

TEST_F(ViewsTest, SasOfRegisteredPhones) {
    std::vector<Phone*> phones;
    for (int i = 1; i <= 9; ++i) {
        phones.push_back(&world.phone("user" + std::to_string(i), "10.2.0." + std::to_string(i)));
        ASSERT_TRUE(phones.back()->register_once());
    }
    const auto all = sas({});
    ASSERT_EQ(all.size(), 9U);
    std::set<sa::SetId> ids;
    for (const SaRow& row : all) ids.insert(row.id);
    EXPECT_EQ(ids.size(), 9U);

    Query by_impi;
    by_impi.impi = phones[3]->impi;
    const auto one = sas(by_impi, true);
    ASSERT_EQ(one.size(), 1U);
    EXPECT_EQ(one[0].ue, phones[3]->address);
    EXPECT_EQ(one[0].state, "established");
    EXPECT_EQ(one[0].numbers, phones[3]->current().numbers);
    ASSERT_FALSE(one[0].impus.empty());
    EXPECT_EQ(one[0].expires_in, std::chrono::seconds(3630));  // B5

    Query by_ip;
    by_ip.ip = phones[5]->address;
    ASSERT_EQ(sas(by_ip).size(), 1U);
    EXPECT_EQ(sas(by_ip)[0].impi, phones[5]->impi);
    for (const sa::Spi ours : {one[0].numbers.spi_ps, one[0].numbers.spi_pc}) {
        Query by_spi;
        by_spi.spi = ours;
        ASSERT_EQ(sas(by_spi).size(), 1U);
        EXPECT_EQ(sas(by_spi)[0].id, one[0].id);
    }
    // All phones of this test chose the same SPI.
    Query by_their_spi;
    by_their_spi.spi = phones[0]->current().numbers.spi_uc;
    EXPECT_GE(sas(by_their_spi).size(), 1U);
    Query nobody;
    nobody.impi = "nobody";
    EXPECT_TRUE(sas(nobody).empty());
}

TEST_F(ViewsTest, CountersComeFromTheBackend) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.register_once());
    Query q;
    q.impi = phone.impi;
    sa::SetStats stats;
    stats.in_packets = 77;
    stats.replays = 3;
    world.backend.set_stats(sas(q)[0].id, stats);
    EXPECT_EQ(sas(q, true)[0].stats.in_packets, 77U);
    EXPECT_EQ(sas(q, true)[0].stats.replays, 3U);
    EXPECT_EQ(sas(q, false)[0].stats.in_packets, 0U);
}

TEST_F(ViewsTest, CountsByState) {
    ASSERT_TRUE(world.phone("a", "10.2.0.1").register_once());
    Phone& waiting = world.phone("b", "10.2.0.2");
    waiting.send_sm1();
    world.run();
    std::map<std::string, std::size_t> counts;
    for (const auto& [state, n] : sa_view.count()) counts[state] = n;
    EXPECT_EQ(counts["established"], 1U);
    EXPECT_EQ(counts["registration"], 1U);
    EXPECT_EQ(counts["draining"], 0U);
    EXPECT_EQ(view.registered(), 1U);
    EXPECT_EQ(view.pending(), 1U);
}

TEST_F(ViewsTest, Registrations) {
    std::vector<Phone*> phones;
    for (int i = 1; i <= 5; ++i) {
        phones.push_back(&world.phone("user" + std::to_string(i), "10.2.0." + std::to_string(i)));
        ASSERT_TRUE(phones.back()->register_once());
    }
    EXPECT_EQ(registrations({}).size(), 5U);
    Query q;
    q.impi = phones[1]->impi;
    const auto one = registrations(q);
    ASSERT_EQ(one.size(), 1U);
    EXPECT_EQ(one[0].state, "registered");
    EXPECT_EQ(one[0].ue, phones[1]->address);
    EXPECT_EQ(one[0].sets.size(), 1U);
    EXPECT_FALSE(one[0].service_route.empty());
    EXPECT_THAT(view.states(), testing::Contains(one[0].state));
    Query by_spi;
    by_spi.spi = phones[4]->current().numbers.spi_ps;
    ASSERT_EQ(registrations(by_spi).size(), 1U);
    EXPECT_EQ(registrations(by_spi)[0].impi, phones[4]->impi);
}

std::vector<std::string> names_of(const std::vector<TraceStep>& steps) {
    std::vector<std::string> out;
    for (const TraceStep& s : steps) {
        if (!s.name.empty()) out.push_back(s.name);
    }
    return out;
}

TEST_F(ViewsTest, TraceOfAGoodRegistration) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.register_once());
    const auto steps = view.steps(phone.impi);
    EXPECT_THAT(names_of(steps),
                testing::ElementsAre("SM1", "SM2", "SM5", "SM6", "SM7", "SM8", "SM11", "SM12"));
    for (const TraceStep& s : steps) {
        EXPECT_FALSE(s.failed) << s.text << ' ' << s.reason;
        // Which SA: clear until SM6, the new set from SM7 on.
        if (s.name == "SM1" || s.name == "SM6") {
            EXPECT_FALSE(s.spi.has_value()) << s.name;
        }
        if (s.name == "SM7") {
            EXPECT_EQ(s.spi, phone.current().numbers.spi_ps);
        }
        if (s.name == "SM12") {
            EXPECT_EQ(s.spi,
                      phone.current()
                          .numbers.spi_us);  // a response goes to port_us, which Via names (A2)
        }
    }
    EXPECT_TRUE(view.steps("nobody").empty());
}

TEST_F(ViewsTest, TraceOfAFailureNamesTheReason) {
    Phone& phone = world.phone();
    world.home.final_status = 403;
    phone.send_sm1();
    world.run();
    ASSERT_EQ(phone.last_status(), 401);
    phone.take_challenge(phone.last().message);
    phone.send_sm7();
    world.run();
    const auto steps = view.steps(phone.impi);
    const auto broken =
        std::find_if(steps.begin(), steps.end(), [](const TraceStep& s) { return s.failed; });
    ASSERT_NE(broken, steps.end());
    EXPECT_THAT(broken->reason, testing::HasSubstr("authentication_failed"));
    std::vector<cli::LadderStep> ladder;
    for (const TraceStep& s : steps) ladder.push_back(cli::ladder_step(to_json(s)));
    EXPECT_THAT(cli::render_ladder(phone.impi, ladder, {100, false, false}),
                testing::HasSubstr("\nBroke after SM"));
}

TEST_F(ViewsTest, FailuresAreRememberedByReasonAndUser) {
    EXPECT_TRUE(view.failure_totals().empty());
    test::RegisterOptions without;
    without.security_client = false;
    Phone& bob = world.phone("bob", "10.2.0.2");
    Phone& carol = world.phone("carol", "10.2.0.3");
    for (Phone* p : {&bob, &carol}) {
        p->send_sm1(without);
        world.run();
    }
    const auto totals = view.failure_totals();
    ASSERT_EQ(totals.size(), 1U);
    EXPECT_EQ(totals[0].count, 2U);
    EXPECT_EQ(totals[0].last.reason, "sec_agree_missing");
    EXPECT_EQ(totals[0].last.rule, "C6");
    EXPECT_EQ(totals[0].last.status, 421U);
    EXPECT_THAT(totals[0].last.source, testing::StartsWith("10.2.0.3:"));
    EXPECT_EQ(totals[0].last.impi, carol.impi);
    EXPECT_EQ(view.latest_failures(10, {}, {}).size(), 2U);
    EXPECT_EQ(view.latest_failures(1, "sec_agree_missing", {}).size(), 1U);
    EXPECT_EQ(view.latest_failures(10, {}, bob.impi).size(), 1U);
    EXPECT_TRUE(view.latest_failures(10, "authentication_failed", {}).empty());
    EXPECT_TRUE(view.is_reason("sec_agree_missing"));
    EXPECT_FALSE(view.is_reason("nonsense"));
}

TEST_F(ViewsTest, TraceSaysWhetherTheOldSetOrTheNewCarriedAMessage) {
    world.home.integrity_yes_is_enough = false;
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.register_once());
    ASSERT_TRUE(phone.reregister());
    std::vector<std::string> told;
    for (const TraceStep& s : view.steps(phone.impi))
        if (s.name == "SM1" || s.name == "SM7") told.push_back(s.name + " " + s.set);
    EXPECT_THAT(told, testing::ElementsAre("SM1 ", "SM7 new", "SM1 old", "SM7 new"));
}

// How one registration of the drawn ones broke, in order.
std::vector<std::string> breaks_of(const std::string& drawn) {
    std::vector<std::string> out;
    for (std::size_t at = 0; (at = drawn.find("Broke after ", at)) != std::string::npos; ++at)
        out.push_back(drawn.substr(at, drawn.find(':', drawn.find(": ", at) + 2) - at));
    return out;
}

class LadderTest : public ViewsTest {
  protected:
    std::string drawn(const std::string& impi) {
        std::vector<cli::LadderStep> ladder;
        for (const TraceStep& s : view.steps(impi)) ladder.push_back(cli::ladder_step(to_json(s)));
        return cli::render_ladder(impi, ladder, {100, false, false});
    }
};

// B3: told while the next attempt is under way already, and yet no fault of that one.
TEST_F(LadderTest, ASupersededAttemptEndsItsOwnLadder) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.challenged());
    phone.next_ports();
    ASSERT_TRUE(phone.register_once());
    EXPECT_THAT(names_of(view.steps(phone.impi)),
                testing::ElementsAre("SM1", "SM2", "SM5", "SM6", "SM1", "SM2", "SM5", "SM6", "SM7",
                                     "SM8", "SM11", "SM12"));
    const std::string text = drawn(phone.impi);
    EXPECT_THAT(breaks_of(text), testing::ElementsAre("Broke after SM6 401 REGISTER: superseded"))
        << text;
    const std::size_t second = text.find("SM1 ", text.find("SM1 ") + 1);
    EXPECT_LT(text.find("SA set removed"), second) << text;
    EXPECT_LT(text.find("Broke after"), second) << text;
}

// The same while the newer one waits for the core: it ends by its own time-out.
TEST_F(LadderTest, AnAttemptThatEndsLateIsToldInItsOwnLadder) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.challenged());
    world.home.silent = true;
    phone.next_ports();
    phone.send_sm1();
    world.advance(std::chrono::seconds(300));
    EXPECT_THAT(breaks_of(drawn(phone.impi)),
                testing::ElementsAre("Broke after SM6 401 REGISTER: authentication_timeout",
                                     "Broke after SM6 504 REGISTER: core_timeout"))
        << drawn(phone.impi);
}

// C10: the answer to SM8 is not the one to SM2, whatever its status.
TEST_F(LadderTest, ASecondChallengeIsNoSm5) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.challenged());
    world.home.challenge_again = true;
    phone.send_sm7();
    world.run();
    EXPECT_THAT(names_of(view.steps(phone.impi)),
                testing::ElementsAre("SM1", "SM2", "SM5", "SM6", "SM7", "SM8", "SM11", "SM12"));
    EXPECT_THAT(breaks_of(drawn(phone.impi)),
                testing::ElementsAre("Broke after SM12 504 REGISTER: challenged_again"));
}

// C4: the REGISTER with auts ends one registration and begins the next: it is drawn in both.
TEST_F(LadderTest, TheReportOfASynchronisationFailureIsInTheLadderItEnds) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.challenged());
    phone.refuse_challenge(false, "AAAAAAAAAAAAAAAAAAAAAAAA");
    world.run();
    ASSERT_EQ(phone.last_status(), 401);
    EXPECT_THAT(breaks_of(drawn(phone.impi)),
                testing::ElementsAre("Broke after REGISTER: synchronisation_failure"))
        << drawn(phone.impi);
    EXPECT_THAT(names_of(view.steps(phone.impi)),
                testing::ElementsAre("SM1", "SM2", "SM5", "SM6", "SM1", "SM2", "SM5", "SM6"));
}

TEST_F(ViewsTest, HealthOfTheCore) {
    const TimePoint now = world.clock.now();
    registration::CoreHealth core;
    EXPECT_TRUE(core_health(core, now).ok);
    EXPECT_EQ(core_health(core, now).text, "nothing was asked of it yet");

    core.failures = core.failures_since = 2;
    core.silent_since = now - std::chrono::seconds(30);
    core.last_failure = registration::Reason::core_timeout;
    EXPECT_FALSE(core_health(core, now).ok);
    EXPECT_THAT(core_health(core, now).text,
                testing::StartsWith("unreachable for 30 s (core_timeout, 2 REGISTERs failed, never "
                                    "an answer): "));
    core.answers = 5;
    core.last_answer = now - std::chrono::seconds(40);
    EXPECT_THAT(core_health(core, now).text, testing::HasSubstr("last answer 40 s ago"));

    core.failures_since = 0;
    EXPECT_TRUE(core_health(core, now).ok);
    EXPECT_EQ(core_health(core, now).text,
              "reachable, last answer 40 s ago, 2 failures since the start");
    core.errors_since = 3;
    core.last_error = 503;
    EXPECT_FALSE(core_health(core, now).ok);
    EXPECT_THAT(core_health(core, now).text,
                testing::HasSubstr("last 3 answers to REGISTER were errors (latest 503)"));
}

TEST_F(ViewsTest, DropsHaveReasonAndMeaning) {
    EXPECT_TRUE(view.drops().empty());
    Phone& phone = world.phone();
    test::RegisterOptions without;
    without.security_client = false;
    phone.send_sm1(without);
    world.run();
    const auto drops = view.drops();
    ASSERT_FALSE(drops.empty());
    EXPECT_EQ(drops[0].layer, "sip");
    EXPECT_EQ(drops[0].reason, "sec_agree_missing");
    EXPECT_THAT(drops[0].help, testing::EndsWith("[C6]"));
    EXPECT_EQ(drops[0].count, 1U);
}

// S1: whatever the operator can ask for, no key is in it.
TEST_F(ViewsTest, NothingShownHoldsAKey) {
    Phone& phone = world.phone();
    ASSERT_TRUE(phone.register_once());
    std::string shown;
    for (const SaRow& row : sas({}, true)) shown += to_json(row, true).dump();
    for (const RegistrationRow& row : registrations({})) shown += to_json(row).dump();
    for (const TraceStep& step : view.steps(phone.impi)) shown += to_json(step).dump();
    const Phone::Security& s = phone.current();
    for (const std::string& secret :
         {to_hex(s.ck), to_hex(s.ik), to_base64(s.ck), to_base64(s.ik), s.nonce}) {
        ASSERT_FALSE(secret.empty());
        EXPECT_EQ(shown.find(secret), std::string::npos);
    }
}

}  // namespace
}  // namespace gmgate::ops
