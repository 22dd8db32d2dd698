#include "sa/database.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/support/sa_fixture.h"

namespace gmgate::sa {
namespace {

using namespace std::chrono_literals;
using test::SaFixture;

struct DatabaseTest : testing::Test, SaFixture {
    DatabaseTest() = default;
};

// --- construction
// ---------------------------------------------------------------------------------------------------

TEST(DatabaseCreate, RefusesImpossibleConfigurations) {
    ManualClock clock;
    TimerWheel wheel(clock);
    SeededRandom random(1);
    test::FakeBackend backend(8);
    const auto refused = [&](auto&& change) {
        DatabaseConfig c;
        change(c);
        const auto r = SaDatabase::create(c, backend, wheel, random);
        return !r && r.error().kind == ErrorKind::invalid && !r.error().text.empty();
    };
    EXPECT_FALSE(refused([](DatabaseConfig&) {}));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.ports.port_ps = {5060}; }));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.limits.max_sets = 9; }));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.first_spi_slot = 16; }));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.spi_slots = 17; }));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.timers.reg_await_auth = 0s; }));
    EXPECT_TRUE(refused([](DatabaseConfig& c) { c.timers.drain = -1s; }));
    test::FakeBackend nothing(0);
    EXPECT_FALSE(SaDatabase::create({}, nothing, wheel, random));
}

// --- the good case
// --------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, ARegistrationFromSm5ToSm12) {
    const auto r = request("alice@home.example");
    const auto reserved = db->reserve(r);
    ASSERT_TRUE(reserved);
    const SetId id = *reserved;
    const SaSet* s = db->find(id);
    ASSERT_NE(s, nullptr);
    EXPECT_EQ(s->state, State::reserved);
    EXPECT_EQ(s->numbers.spi_uc, r.spi_uc);
    EXPECT_EQ(s->numbers.port_us, r.port_us);
    EXPECT_EQ(s->numbers.port_ps, 5062);
    EXPECT_GE(s->numbers.port_pc, 5100);
    EXPECT_LE(s->numbers.port_pc, 5115);
    EXPECT_EQ(backend.installed(), 0U);

    ASSERT_TRUE(db->install(id));
    EXPECT_EQ(state(id), State::registration);
    ASSERT_TRUE(backend.has(id));
    EXPECT_EQ(backend.set(id)->numbers, s->numbers);
    EXPECT_EQ(backend.set(id)->ue, r.ue);
    EXPECT_EQ(backend.set(id)->ours, r.ours);
    EXPECT_TRUE(backend.set(id)->ck == ck);
    EXPECT_TRUE(backend.set(id)->ik == ik);

    EXPECT_TRUE(db->apply(id, Event::sm6_sent));
    EXPECT_TRUE(db->apply(id, Event::sm7_ok));
    ASSERT_TRUE(
        establish(id, 1h, {"sip:alice@home.example", "tel:+4912345", "sip:alice@home.example"}));
    EXPECT_EQ(state(id), State::established);
    EXPECT_EQ(db->find(id)->lifetime_end, clock.now() + 1h + 30s);
    EXPECT_EQ(db->find(id)->established_at, clock.now());

    const User* u = db->find_by_impi("alice@home.example");
    ASSERT_NE(u, nullptr);
    EXPECT_TRUE(u->registered());
    EXPECT_EQ(u->expires, clock.now() + 1h);
    EXPECT_EQ(u->impu_count(), 2U);  // each once
    EXPECT_EQ(u->impu(0), "sip:alice@home.example");
    EXPECT_EQ(u->impu(1), "tel:+4912345");
    EXPECT_EQ(u->service_route(), "<sip:orig@scscf.home.example;lr>");
    EXPECT_EQ(u->p_associated_uri(), "<sip:alice@home.example>");
    EXPECT_EQ(u->contact(), "<sip:alice@10.0.0.1:6100>");
    EXPECT_EQ(db->outbound(*u), db->find(id));
    EXPECT_EQ(db->stats().established.value(), 1U);

    EXPECT_TRUE(db->deregister(u->id, false));
    expect_empty();
}

TEST_F(DatabaseTest, EveryLookupFindsTheSetAndOnlyIt) {
    const SetId a = register_ue(request("alice@home", "10.0.0.1"));
    const SetId b = register_ue(request("bob@home", "2001:db8::7"));
    const SaNumbers n = db->find(a)->numbers;
    const IpAddress ue = ip("10.0.0.1");
    EXPECT_EQ(db->find_by_tuple(ue, n.port_uc, n.port_ps)->id, a);
    EXPECT_EQ(db->find_by_tuple(ue, n.port_us, n.port_pc)->id, a);
    EXPECT_EQ(db->find_by_tuple(ue, n.port_uc, n.port_pc), nullptr);
    EXPECT_EQ(db->find_by_tuple(ue, n.port_us, n.port_ps), nullptr);
    EXPECT_EQ(db->find_by_tuple(ip("10.0.0.2"), n.port_uc, n.port_ps), nullptr);
    EXPECT_EQ(db->find_by_spi(n.spi_pc)->id, a);
    EXPECT_EQ(db->find_by_spi(n.spi_ps)->id, a);
    EXPECT_EQ(db->find_by_spi(n.spi_uc), nullptr);
    EXPECT_EQ(db->find_by_spi(0), nullptr);
    EXPECT_EQ(db->find_by_spi(0xFFFFFFFF), nullptr);
    EXPECT_EQ(db->find_by_impi("alice@home")->id, db->find(a)->user);
    EXPECT_EQ(db->find_by_impi("bob@home")->id, db->find(b)->user);
    EXPECT_EQ(db->find_by_impi("carol@home"), nullptr);
    EXPECT_EQ(db->find_user(db->find(a)->user)->impi(), "alice@home");
    EXPECT_EQ(db->find_by_impu("sip:nobody@home"), nullptr);
    // Both registered the same IMPU: a shared identity.
    std::set<std::string> who;
    db->find_by_impu("sip:alice@home.example",
                     [&](const User& u) { who.insert(std::string(u.impi())); });
    EXPECT_EQ(who, (std::set<std::string>{"alice@home", "bob@home"}));

    db->remove_user(db->find(a)->user, Event::operator_removed);
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(db->find_by_tuple(ue, n.port_uc, n.port_ps), nullptr);
    EXPECT_EQ(db->find_by_spi(n.spi_pc), nullptr);
    EXPECT_EQ(db->find_by_impi("alice@home"), nullptr);
    EXPECT_EQ(db->find_by_impu("sip:alice@home.example")->impi(), "bob@home");
}

TEST_F(DatabaseTest, SpisNeverRepeatAndDifferFromTheUes) {  // A4
    std::set<Spi> seen;
    for (int i = 0; i < 20; ++i) {
        auto r = request("user" + std::to_string(i), "10.0.1." + std::to_string(i + 1));
        // A UE that guesses what we would take next.
        r.spi_uc = SpiLayout::make(1, 0, static_cast<std::uint32_t>(2 * i));
        r.spi_us = SpiLayout::make(1, 0, static_cast<std::uint32_t>(2 * i + 1));
        const SetId id = challenge(r);
        const SaNumbers& n = db->find(id)->numbers;
        for (const Spi spi : {n.spi_pc, n.spi_ps}) {
            EXPECT_GT(spi, 255U);
            EXPECT_NE(spi, n.spi_uc);
            EXPECT_NE(spi, n.spi_us);
            EXPECT_TRUE(seen.insert(spi).second);
        }
    }
}

TEST_F(DatabaseTest, TheOwnerWorkerStandsInTheSpi) {
    backend.set_owner(5);
    const SetId id = challenge(request("alice@home"));
    EXPECT_EQ(SpiLayout::owner(db->find(id)->numbers.spi_pc), 5U);
    EXPECT_EQ(SpiLayout::owner(db->find(id)->numbers.spi_ps), 5U);
}

// --- refusals
// -------------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, ImpossibleNumbersOfAUeAreRefused) {
    const auto good = request("alice@home");
    const auto kind = [&](auto&& change) {
        auto r = good;
        change(r);
        const auto checked = db->check_ue(r.impi, r.ue, r.spi_uc, r.spi_us, r.port_uc, r.port_us);
        const auto reserved = db->reserve(r);
        EXPECT_FALSE(reserved);
        EXPECT_FALSE(checked);
        return reserved ? ErrorKind::io : reserved.error().kind;
    };
    EXPECT_EQ(kind([](auto& r) { r.spi_uc = 255; }), ErrorKind::invalid);
    EXPECT_EQ(kind([](auto& r) { r.spi_us = 0; }), ErrorKind::invalid);
    EXPECT_EQ(kind([](auto& r) { r.spi_us = r.spi_uc; }), ErrorKind::invalid);
    EXPECT_EQ(kind([](auto& r) { r.port_uc = 5060; }), ErrorKind::invalid);
    EXPECT_EQ(kind([](auto& r) { r.port_us = 5061; }), ErrorKind::invalid);
    EXPECT_EQ(kind([](auto& r) { r.port_us = 0; }), ErrorKind::invalid);

    auto r = good;
    r.suite = Suite{Integrity::null, Encryption::null};
    EXPECT_EQ(db->reserve(r).error().kind, ErrorKind::unsupported);
    r = good;
    r.impi = "";
    EXPECT_EQ(db->reserve(r).error().kind, ErrorKind::invalid);
    r = good;
    r.ck = nullptr;
    EXPECT_EQ(db->reserve(r).error().kind, ErrorKind::invalid);
    r = good;
    r.sm1_set = 12345;
    EXPECT_EQ(db->reserve(r).error().kind, ErrorKind::not_found);
    EXPECT_EQ(db->stats().reserve_refused.value(), 10U);
    expect_empty();
}

TEST_F(DatabaseTest, AClientPortInUseIsRefused) {  // B6
    const auto alice = request("alice@home");
    const SetId a = register_ue(alice);
    auto bob = request("bob@home");
    bob.port_uc = alice.port_uc;  // the same address
    EXPECT_EQ(db->check_ue(bob.impi, bob.ue, bob.spi_uc, bob.spi_us, bob.port_uc, bob.port_us)
                  .error()
                  .kind,
              ErrorKind::conflict);
    EXPECT_EQ(db->reserve(bob).error().kind, ErrorKind::conflict);
    EXPECT_EQ(db->user_count(), 1U);
    EXPECT_EQ(state(a), State::established);
    // The same port at another address is another phone's.
    bob.ue = ip("10.0.0.2");
    EXPECT_TRUE(db->check_ue(bob.impi, bob.ue, bob.spi_uc, bob.spi_us, bob.port_uc, bob.port_us));
    EXPECT_TRUE(db->reserve(bob));
    // Nor may the phone itself use it again while its set lives (its port_uc must change, A5).
    EXPECT_EQ(db->reserve(alice).error().kind, ErrorKind::conflict);
    EXPECT_EQ(state(a), State::established);
}

// Said at SM1, not only when the challenge is there: the draining set still receives on it.
TEST_F(DatabaseTest, TheClientPortOfADrainingSetIsInUse) {  // B6, A5
    const auto first = request("alice@home");
    const SetId a = register_ue(first);
    auto again = request("alice@home");
    again.sm1_set = a;
    const SetId b = register_ue(again);
    db->note_use(b);
    ASSERT_EQ(state(a), State::draining);
    const auto next = request("alice@home");
    const auto r =
        db->check_ue(next.impi, next.ue, next.spi_uc, next.spi_us, first.port_uc, next.port_us);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().kind, ErrorKind::conflict);
}

TEST_F(DatabaseTest, AReturningUeMayUseThePortOfItsUnfinishedAttempt) {  // B3
    const auto r = request("alice@home");
    const SetId first = challenge(r);
    EXPECT_TRUE(db->check_ue(r.impi, r.ue, r.spi_uc, r.spi_us, r.port_uc, r.port_us));
    EXPECT_EQ(
        db->check_ue("mallory@home", r.ue, r.spi_uc, r.spi_us, r.port_uc, r.port_us).error().kind,
        ErrorKind::conflict);
    const SetId second = challenge(r);
    EXPECT_EQ(db->find(first), nullptr);
    EXPECT_EQ(state(second), State::registration);
    EXPECT_EQ(backend.installed(), 1U);
}

TEST(DatabaseLimits, SetsAndIncompleteOnes) {  // S3
    DatabaseConfig config;
    config.limits.max_sets = 6;
    config.limits.max_registration_sets = 3;
    SaFixture f(config, 16);
    std::vector<SetId> established;
    for (int i = 0; i < 4; ++i) {
        established.push_back(f.register_ue(f.request("user" + std::to_string(i))));
    }
    // Strangers: two more fit the total.
    EXPECT_TRUE(f.db->reserve(f.request("s1")));
    EXPECT_TRUE(f.db->reserve(f.request("s2")));
    EXPECT_EQ(f.db->reserve(f.request("s3")).error().kind, ErrorKind::exhausted);
    for (const SetId id : established) EXPECT_EQ(f.state(id), State::established);
    f.db->remove_all(Event::operator_removed);
    f.clock.advance(61s);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(f.db->reserve(f.request("s" + std::to_string(i))));
    EXPECT_EQ(f.db->reserve(f.request("s3")).error().kind, ErrorKind::exhausted);
    EXPECT_EQ(f.db->user_count(), 3U);
}

TEST(DatabaseLimits, AFloodOfStrangersDoesNotKeepAUserFromReRegistering) {  // S3
    DatabaseConfig config;
    config.limits.max_registration_sets = 2;
    SaFixture f(config);
    const SetId x = f.register_ue(f.request("alice@home"));
    EXPECT_TRUE(f.db->reserve(f.request("s1")));
    EXPECT_TRUE(f.db->reserve(f.request("s2")));
    EXPECT_FALSE(f.db->reserve(f.request("s3")));
    auto r = f.request("alice@home");
    r.sm1_set = x;
    EXPECT_TRUE(f.db->reserve(r));
}

TEST(DatabaseLimits, SpisInQuarantineAreAnErrorNotACrash) {
    DatabaseConfig config;
    SaFixture f(config, 2);
    const SetId a = f.register_ue(f.request("a"));
    f.register_ue(f.request("b"));
    f.db->remove_user(f.db->find(a)->user, Event::operator_removed);
    const auto none = f.db->reserve(f.request("c"));
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().kind, ErrorKind::exhausted);
    EXPECT_EQ(f.db->user_count(), 1U);
    f.clock.advance(60s);
    EXPECT_TRUE(f.db->reserve(f.request("c")));
}

TEST(DatabaseLimits, PortsOfOneAddressRunOut) {
    DatabaseConfig config;
    config.ports.pc_first = 5100;
    config.ports.pc_last = 5102;
    SaFixture f(config);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(f.db->reserve(f.request("u" + std::to_string(i))));
    const auto none = f.db->reserve(f.request("u3"));  // the same port_us behind the same address
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().kind, ErrorKind::exhausted);
    EXPECT_EQ(f.db->user_count(), 3U);
    EXPECT_EQ(f.db->spis().held(), 6U);
    auto other = f.request("u3");
    other.port_us = 6101;
    EXPECT_TRUE(f.db->reserve(other));
}

TEST_F(DatabaseTest, TextsHaveLimits) {
    const SetId id = challenge(request("alice@home"));
    EstablishRequest e;
    e.granted = 1h;
    EXPECT_EQ(db->establish(id, e).error().kind, ErrorKind::invalid);  // no IMPU
    std::vector<std::string> names;
    std::vector<std::string_view> impus;
    for (int i = 0; i < 65; ++i) names.push_back("sip:u" + std::to_string(i));
    for (const auto& n : names) impus.push_back(n);
    e.impus = impus;
    EXPECT_EQ(db->establish(id, e).error().kind, ErrorKind::exhausted);
    impus.resize(64);
    e.impus = impus;
    const std::string route(9000, 'x');
    e.service_route = route;
    EXPECT_EQ(db->establish(id, e).error().kind, ErrorKind::exhausted);
    // Nothing was changed by the refusals.
    EXPECT_EQ(state(id), State::registration);
    EXPECT_EQ(db->find_by_impu("sip:u0"), nullptr);
    e.service_route = "";
    EXPECT_TRUE(db->establish(id, e));
    EXPECT_EQ(db->find_by_impu("sip:u63")->impi(), "alice@home");
}

// --- failures
// -------------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, InstallFailureLeavesNothing) {  // C12
    backend.fail_install(ErrorKind::exhausted);
    const auto id = db->reserve(request("alice@home"));
    ASSERT_TRUE(id);
    const auto r = db->install(*id);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().kind, ErrorKind::exhausted);
    ASSERT_EQ(recorder.removed.size(), 1U);
    EXPECT_EQ(recorder.removed[0].reason, Event::install_failed);
    EXPECT_EQ(recorder.removed[0].impi, "alice@home");
    EXPECT_EQ(db->stats().install_failed.value(), 1U);
    EXPECT_TRUE(recorder.changes.empty());  // it never was live: nobody needs to hear
    expect_empty();
}

TEST_F(DatabaseTest, RegistrationSetsDieOfEveryFailureAndOldOnesOfNone) {
    for (const Event e :
         {Event::auth_rejected, Event::network_auth_failure, Event::sync_failure,
          Event::consistency_failure, Event::first_packet_refused, Event::aborted}) {
        SCOPED_TRACE(name(e));
        const SetId old = register_ue(request("alice@home"));
        auto r = request("alice@home");
        r.sm1_set = old;
        const SetId fresh = challenge(r);
        EXPECT_TRUE(db->apply(fresh, e));
        EXPECT_EQ(db->find(fresh), nullptr);
        EXPECT_FALSE(backend.has(fresh));
        EXPECT_EQ(recorder.removed.back().reason, e);
        EXPECT_EQ(state(old), State::established);
        EXPECT_TRUE(backend.has(old));
        EXPECT_TRUE(db->find_by_impi("alice@home")->registered());
        EXPECT_TRUE(db->apply(old, e));  // legal on an old set, and nothing happens
        EXPECT_EQ(state(old), State::established);
        db->remove_all(Event::operator_removed);
        expect_empty();
        clock.advance(61s);
    }
}

TEST_F(DatabaseTest, RegAwaitAuthEndsAnUnfinishedProcedure) {  // C5
    const SetId old = register_ue(request("alice@home"), 24h);
    auto r = request("alice@home");
    r.sm1_set = old;
    const SetId fresh = challenge(r);
    advance(240s - 2ms);
    EXPECT_EQ(state(fresh), State::registration);
    advance(1ms);
    EXPECT_EQ(db->find(fresh), nullptr);
    EXPECT_FALSE(backend.has(fresh));
    EXPECT_EQ(recorder.removed.back().reason, Event::reg_await_timeout);
    EXPECT_EQ(state(old), State::established);
}

TEST_F(DatabaseTest, EvenAForgottenReservationEnds) {
    ASSERT_TRUE(db->reserve(request("alice@home")));
    EXPECT_EQ(db->user_count(), 1U);
    advance(241s);
    expect_empty();
}

TEST_F(DatabaseTest, RegAwaitAuthRunsFromSm6) {  // B2
    const auto id = db->reserve(request("alice@home"));
    clock.advance(100s);
    ASSERT_TRUE(db->install(*id));
    clock.advance(100s);
    ASSERT_TRUE(db->apply(*id, Event::sm6_sent));
    advance(239s);
    EXPECT_EQ(state(*id), State::registration);
    advance(1s);
    EXPECT_EQ(db->find(*id), nullptr);
}

TEST_F(DatabaseTest, AForgedPacketEndsNothing) {  // C1
    const SetId id = challenge(request("alice@home"));
    for (int i = 0; i < 100; ++i)
        backend.emit({BackendEventKind::integrity_failure, id, db->find(id)->numbers.spi_ps});
    backend.emit({BackendEventKind::integrity_failure, 999, 1});  // of a set long gone
    db->poll_backend();
    EXPECT_EQ(state(id), State::registration);
    EXPECT_EQ(recorder.events.size(), 100U);
    ASSERT_TRUE(establish(id));
    EXPECT_EQ(state(id), State::established);
}

TEST_F(DatabaseTest, IllegalEventsAreRefusedCountedAndChangeNothing) {
    const SetId id = challenge(request("alice@home"));
    const auto r = db->apply(id, Event::drained);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().kind, ErrorKind::conflict);
    EXPECT_FALSE(db->install(id));
    EXPECT_EQ(db->stats().illegal_events.value(), 2U);
    EXPECT_EQ(state(id), State::registration);
    ASSERT_TRUE(establish(id));
    EXPECT_EQ(establish(id).error().kind, ErrorKind::conflict);
    EXPECT_EQ(db->apply(4711, Event::drained).error().kind, ErrorKind::not_found);
    EXPECT_EQ(db->establish(4711, {}).error().kind, ErrorKind::not_found);
    EXPECT_EQ(db->deregister(4711, true).error().kind, ErrorKind::not_found);
}

// --- re-registration
// ------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, UnprotectedReRegistrationRemovesAllOldSets) {  // D1
    const SetId a = register_ue(request("alice@home"));
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    EXPECT_EQ(state(a), State::established);
    const std::size_t calls = backend.remove_calls();
    const SetId c = challenge(request("alice@home"));
    EXPECT_EQ(state(a), State::established);  // nothing goes before SM12
    EXPECT_EQ(state(b), State::established);
    ASSERT_TRUE(establish(c));
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(db->find(b), nullptr);
    EXPECT_EQ(state(c), State::established);
    EXPECT_EQ(backend.installed(), 1U);
    EXPECT_EQ(backend.remove_calls(), calls + 1);  // one grace period for both
    EXPECT_EQ(recorder.removed.back().reason, Event::replaced_unprotected);
}

TEST_F(DatabaseTest, ProtectedReRegistrationKeepsTheSetItCameOn) {  // D2
    const SetId a = register_ue(request("alice@home"));
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    r = request("alice@home");
    r.sm1_set = b;
    const SetId c = register_ue(r);
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(recorder.removed.back().reason, Event::replaced_protected);
    EXPECT_EQ(state(b), State::established);
    EXPECT_EQ(state(c), State::established);
    const User& u = *db->find_by_impi("alice@home");
    // Outbound stays on the old set until the new one is used…
    EXPECT_EQ(db->outbound(u)->id, b);
    db->note_use(c);
    EXPECT_EQ(db->outbound(u)->id, c);
    EXPECT_EQ(state(b), State::draining);
    // …and the old one goes at the latest 64·T1 later.
    advance(32s - 2ms);
    EXPECT_EQ(state(b), State::draining);
    advance(1ms);
    EXPECT_EQ(db->find(b), nullptr);
    EXPECT_EQ(recorder.removed.back().reason, Event::drain_timeout);
    EXPECT_EQ(state(c), State::established);
}

TEST_F(DatabaseTest, ADrainingSetThatReachesItsLifetimeSaysSo) {  // B5, D2
    const SetId a = register_ue(request("alice@home"), 1s);       // and 30 s more
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    db->note_use(b);
    ASSERT_EQ(state(a), State::draining);
    advance(31s);
    EXPECT_EQ(db->find(a), nullptr);
    ASSERT_EQ(recorder.removed.size(), 1U);
    EXPECT_EQ(recorder.removed[0].reason, Event::lifetime_expired);
    EXPECT_EQ(state(b), State::established);
}

TEST_F(DatabaseTest, ADrainedSetGoesAtOnce) {  // D2
    const SetId a = register_ue(request("alice@home"));
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    db->note_use(b);
    EXPECT_TRUE(db->apply(a, Event::drained));
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(backend.installed(), 1U);
}

TEST_F(DatabaseTest, UseOfTheOldSetDoesNotDrainTheNewOne) {
    const SetId a = register_ue(request("alice@home"));
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    db->note_use(a);
    db->note_use(a);
    EXPECT_EQ(state(b), State::established);
    EXPECT_EQ(state(a), State::established);
    EXPECT_EQ(db->outbound(*db->find_by_impi("alice@home"))->id, a);
    db->note_use(0);
    db->note_use(b);
    EXPECT_EQ(state(a), State::draining);
    db->note_use(a);  // a late message on it changes nothing
    EXPECT_EQ(state(a), State::draining);
    EXPECT_EQ(db->stats().illegal_events.value(), 0U);
}

TEST_F(DatabaseTest, OutboundMovesWhenTheOldSetIsNearItsEnd) {  // D2
    const SetId a = register_ue(request("alice@home"), 60s);
    clock.advance(50s);
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r, 1h);
    const User& u = *db->find_by_impi("alice@home");
    EXPECT_EQ(db->outbound(u)->id, a);
    advance(31s);  // a ends at 90 s
    EXPECT_EQ(db->outbound(u)->id, b);
    advance(10s);
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(recorder.removed.back().reason, Event::lifetime_expired);
    EXPECT_EQ(db->outbound(u)->id, b);
}

TEST_F(DatabaseTest, LifetimesNeverShrink) {  // B5, D3
    const SetId a = register_ue(request("alice@home"), 2h);
    const TimePoint end = db->find(a)->lifetime_end;
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r, 60s);
    EXPECT_EQ(db->find(b)->lifetime_end, end);  // the later of both
    EXPECT_EQ(db->find_by_impi("alice@home")->expires, clock.now() + 60s);

    EstablishRequest e;
    const std::array<std::string_view, 1> impus{"sip:alice@home"};
    e.impus = impus;
    e.granted = 60s;
    ASSERT_TRUE(db->refresh(b, e));
    EXPECT_EQ(db->find(b)->lifetime_end, end);
    e.granted = 3h;
    ASSERT_TRUE(db->refresh(b, e));
    EXPECT_EQ(db->find(b)->lifetime_end, clock.now() + 3h + 30s);
    EXPECT_EQ(db->find(a)->lifetime_end, end);
    advance(2h + 30s);
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(state(b), State::established);
    advance(1h);
    expect_empty();
}

TEST_F(DatabaseTest, ARefreshThatComesOnADrainingSetExtendsTheOneInUse) {  // D3
    const SetId a = register_ue(request("alice@home"), 60s);
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r, 60s);
    db->note_use(b);
    EstablishRequest e;
    const std::array<std::string_view, 1> impus{"sip:alice@home"};
    e.impus = impus;
    e.granted = 1h;
    ASSERT_TRUE(db->refresh(a, e));
    EXPECT_EQ(db->find(b)->lifetime_end, clock.now() + 1h + 30s);
    EXPECT_EQ(state(a), State::draining);
    advance(33s);
    EXPECT_EQ(db->find(a), nullptr);
}

TEST_F(DatabaseTest, SillyExpiriesAreHarmless) {
    const SetId a = register_ue(request("alice@home"), std::chrono::seconds(-5));
    EXPECT_EQ(db->find(a)->lifetime_end, clock.now() + 30s);
    const SetId b = register_ue(request("bob@home"), std::chrono::hours(24 * 365 * 250));
    EXPECT_GT(db->find(b)->lifetime_end, clock.now());
    advance(31s);
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(state(b), State::established);
}

TEST_F(DatabaseTest, ANewAddressReplacesTheOldOnesAtSm12) {  // D5
    const SetId a = register_ue(request("alice@home", "10.0.0.1"));
    const SetId b = challenge(request("alice@home", "10.0.0.2"));
    EXPECT_EQ(state(a), State::established);
    ASSERT_TRUE(establish(b));
    EXPECT_EQ(db->find(a), nullptr);
    EXPECT_EQ(recorder.removed.back().reason, Event::address_changed);
    EXPECT_EQ(state(b), State::established);
}

TEST_F(DatabaseTest, ServerPortStaysClientPortChanges) {  // A5
    SetId x = 0;
    Port ps = 0;
    std::set<Port> last_pcs;
    for (int i = 0; i < 40; ++i) {
        auto r = request("alice@home");
        r.sm1_set = x;
        const SetId id = register_ue(r);
        const SaNumbers n = db->find(id)->numbers;
        if (x != 0) {
            EXPECT_EQ(n.port_ps, ps);
            EXPECT_NE(n.port_pc, db->find(x)->numbers.port_pc);
        }
        ps = n.port_ps;
        last_pcs.insert(n.port_pc);
        x = id;
        db->note_use(id);
        advance(40s);
    }
    EXPECT_EQ(last_pcs.size(), 16U);
}

TEST_F(DatabaseTest, FailedAttemptsDoNotUseUpThePorts) {
    // Only an authenticated re-registration moves port_pc on; a thousand failures in between leave
    // room for the good one.
    const SetId x = register_ue(request("alice@home"));
    for (int i = 0; i < 100; ++i) {
        auto r = request("alice@home");
        r.sm1_set = x;
        const SetId id = challenge(r);
        EXPECT_NE(db->find(id)->numbers.port_pc, db->find(x)->numbers.port_pc);
        EXPECT_TRUE(db->apply(id, Event::auth_rejected));
        clock.advance(10s);
    }
    EXPECT_EQ(db->spis().held(), 2U);
}

TEST_F(DatabaseTest, TwoUsersBehindOneAddressNeverShareATuple) {  // A5
    std::set<std::tuple<Port, Port>> tuples;
    for (int i = 0; i < 16; ++i) {
        const SetId id = register_ue(request("user" + std::to_string(i)));
        const SaNumbers n = db->find(id)->numbers;
        EXPECT_TRUE(tuples.insert({n.port_uc, n.port_ps}).second);
        EXPECT_TRUE(tuples.insert({n.port_us, n.port_pc}).second);
    }
}

// N1: what is still on its way to one phone must not find another subscriber's with the same ports.
TEST(DatabaseLabels, ALabelIsNotSoonAnothers) {
    SaFixture f({}, 1000);
    auto& db = f.db;
    std::set<Port> known;
    for (int i = 0; i < 200; ++i) {
        auto r = f.request("user" + std::to_string(i), "203.0.113.7");
        r.port_uc = 7000;
        r.port_us = 7777;
        r.nat_inner = SaFixture::ip("192.168.1.2");
        const SetId id = f.register_ue(r);
        ASSERT_NE(id, 0U);
        const SaNumbers n = db->find(id)->numbers;
        EXPECT_EQ(db->find(id)->nat, (NatTraversal{SaFixture::ip("192.168.1.2"), 7000, 7777}));
        EXPECT_NE(n.port_uc, n.port_us);
        known.insert(n.port_uc);
        known.insert(n.port_us);
        db->remove_user(db->find(id)->user, Event::operator_removed);
        // Not even who names it himself gets it.
        auto direct = f.request("thief", "203.0.113.7");
        direct.port_uc = n.port_uc;
        EXPECT_EQ(db->reserve(direct).error().kind, ErrorKind::conflict);
        direct.port_uc = 30000;
        direct.port_us = n.port_us;
        EXPECT_EQ(db->reserve(direct).error().kind, ErrorKind::exhausted);
        if (i != 199) continue;
        f.advance(61s);
        EXPECT_TRUE(db->reserve(direct));
    }
    EXPECT_EQ(known.size(), 400U) << "drawn again while they rested";
}

// N1 with the packet layer that knows a phone by its own address and ports.
TEST(DatabaseLabels, OwnOnesAreThePhonesAndAreNotSharedOrSoonAnothers) {
    SaFixture f({}, 1000);
    auto& db = f.db;
    f.backend.set_nat_labels(NatLabels::own);
    auto r = f.request("alice@home", "203.0.113.7");
    r.port_uc = 7000;
    r.port_us = 7777;
    r.nat_inner = SaFixture::ip("192.168.1.2");
    const SetId first = f.register_ue(r);
    ASSERT_NE(first, 0U);
    const SaSet* set = db->find(first);
    EXPECT_EQ(set->ue, SaFixture::ip("192.168.1.2"));
    EXPECT_EQ(set->numbers.port_uc, 7000);
    EXPECT_EQ(set->numbers.port_us, 7777);
    EXPECT_EQ(set->nat->outer, (Endpoint{SaFixture::ip("203.0.113.7"), 0}));

    // The same address behind another NAT: other ports, or not at all.
    auto other = f.request("bob@home", "203.0.113.8");
    other.port_uc = 7000;
    other.port_us = 7777;
    other.nat_inner = r.nat_inner;
    EXPECT_EQ(
        db->check_ue("bob@home", other.ue, other.spi_uc, other.spi_us, 7000, 7777, other.nat_inner)
            .error()
            .kind,
        ErrorKind::conflict);
    EXPECT_EQ(db->reserve(other).error().kind, ErrorKind::conflict);
    other.port_uc = 7002;  // calls to that port_us are alice's
    EXPECT_EQ(
        db->check_ue("bob@home", other.ue, other.spi_uc, other.spi_us, 7002, 7777, other.nat_inner)
            .error()
            .kind,
        ErrorKind::conflict);
    EXPECT_EQ(db->reserve(other).error().kind, ErrorKind::conflict);
    other.port_us = 7778;
    ASSERT_NE(f.register_ue(other), 0U);

    // Renewed on its SA: from where that SA's packets come now.
    SetStats stats;
    stats.nat_endpoint = {SaFixture::ip("203.0.113.9"), 40123};
    f.backend.set_stats(first, stats);
    auto again = f.request("alice@home", "192.168.1.2");
    again.port_uc = 7001;
    again.port_us = 7777;
    again.nat_inner = r.nat_inner;
    again.sm1_set = first;
    const SetId second = f.register_ue(again);
    ASSERT_NE(second, 0U);
    EXPECT_EQ(db->find(second)->nat->outer, stats.nat_endpoint);

    // Gone: the ports rest for others, the user itself may have them again.
    db->remove_user(db->find_by_impi("alice@home")->id, Event::shutdown);
    auto carol = f.request("carol@home", "203.0.113.8");
    carol.port_uc = 7001;
    carol.port_us = 7779;
    carol.nat_inner = r.nat_inner;
    EXPECT_EQ(db->reserve(carol).error().kind, ErrorKind::conflict);
    auto back = f.request("alice@home", "203.0.113.7");
    back.port_uc = 7001;
    back.port_us = 7777;
    back.nat_inner = r.nat_inner;
    EXPECT_NE(f.register_ue(back), 0U);
}

// N1: with the phone's own labels anybody may name anybody's address, in clear.
TEST(DatabaseLabels, WhoMerelyNamesAnAddressKeepsNobodyFromIt) {
    SaFixture f({}, 1000);
    auto& db = f.db;
    f.backend.set_nat_labels(NatLabels::own);
    const auto inner = SaFixture::ip("192.168.1.2");
    const auto named = [&](const std::string& impi, Port port_uc, Port port_us) {
        auto r = f.request(impi, "203.0.113.66");
        r.port_uc = port_uc;
        r.port_us = port_us;
        r.nat_inner = inner;
        return r;
    };
    const SetId victims = f.register_ue(named("victim@home", 7000, 7777));

    // The ports of its next registration, and again under another name: none of them rests.
    const SetId first = f.challenge(named("eve@home", 7001, 7780));
    const SetId second = f.challenge(named("eve@home", 7002, 7780));
    EXPECT_EQ(f.state(first), State::removed);
    const auto free_at_once = named("carol@home", 7001, 7781);
    EXPECT_TRUE(db->check_ue("carol@home", free_at_once.ue, free_at_once.spi_uc,
                             free_at_once.spi_us, 7001, 7781, inner));
    const SetId carols = f.challenge(free_at_once);
    ASSERT_NE(carols, 0U);
    // Of two that merely name it, the first has it.
    EXPECT_EQ(db->reserve(named("mallory@home", 7001, 7782)).error().kind, ErrorKind::conflict);
    EXPECT_EQ(db->reserve(named("mallory@home", 7003, 7781)).error().kind, ErrorKind::conflict);
    EXPECT_EQ(f.state(carols), State::registration);

    // Whose it is by an authenticated set renews with these very ports.
    auto renewal = named("victim@home", 7002, 7780);
    renewal.ue = inner;
    renewal.sm1_set = victims;
    EXPECT_TRUE(
        db->check_ue("victim@home", inner, renewal.spi_uc, renewal.spi_us, 7002, 7780, inner));
    ASSERT_NE(f.register_ue(renewal), 0U);
    EXPECT_EQ(f.state(second), State::removed);

    // And who comes from the very address, without a NAT, has it at once.
    auto direct = f.request("dave@home", "192.168.1.2");
    direct.port_uc = 7001;
    direct.port_us = 7799;
    EXPECT_TRUE(db->check_ue("dave@home", inner, direct.spi_uc, direct.spi_us, 7001, 7799));
    ASSERT_NE(f.register_ue(direct), 0U);
    EXPECT_EQ(f.state(carols), State::removed);

    // What rests of an established one rests for those behind a NAT.
    ASSERT_NE(f.register_ue(named("gone@home", 7100, 7101)), 0U);
    db->remove_user(db->find_by_impi("gone@home")->id, Event::operator_removed);
    EXPECT_EQ(db->reserve(named("erin@home", 7100, 7102)).error().kind, ErrorKind::conflict);
    EXPECT_EQ(db->reserve(named("erin@home", 7102, 7101)).error().kind, ErrorKind::conflict);
    auto there = f.request("frank@home", "192.168.1.2");
    there.port_uc = 7100;
    there.port_us = 7101;
    EXPECT_NE(f.register_ue(there), 0U);
}

TEST(LabelRestTest, RestsAndIsBounded) {
    ManualClock clock;
    LabelRest rest(clock, 32s, 3);
    rest.add(1);
    clock.advance(31s);
    EXPECT_TRUE(rest.holds(1));
    rest.add(2);
    clock.advance(1s);
    EXPECT_FALSE(rest.holds(1));
    EXPECT_TRUE(rest.holds(2));
    for (std::uint64_t key = 3; key < 1000; ++key) rest.add(key);
    EXPECT_EQ(rest.size(), 3U);
    EXPECT_TRUE(rest.holds(999));
    EXPECT_FALSE(rest.holds(2));
}

TEST_F(DatabaseTest, AtMostOneRegistrationSetAndThreeSetsAUser) {  // B3, B6
    SetId x = register_ue(request("alice@home"));
    for (int i = 0; i < 10; ++i) {
        auto r = request("alice@home");
        r.sm1_set = x;
        const SetId id = challenge(r);
        const User& u = *db->find_by_impi("alice@home");
        EXPECT_LE(u.set_count(), max_sets_per_user);
        EXPECT_EQ(db->registration_set(u)->id, id);
        EXPECT_EQ(backend.installed(), u.set_count());
        if (i % 3 != 0) {
            ASSERT_TRUE(establish(id));
            x = id;
            EXPECT_EQ(db->registration_set(u), nullptr);
        }
    }
}

// --- deregistration, end
// --------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, DeregistrationLetsTheLastMessageOut) {  // D4
    const SetId a = register_ue(request("alice@home"));
    auto r = request("alice@home");
    r.sm1_set = a;
    const SetId b = register_ue(r);
    r = request("alice@home");
    r.sm1_set = b;
    const SetId c = challenge(r);
    const UserId user = db->find(b)->user;
    ASSERT_TRUE(db->deregister(user, true));
    EXPECT_EQ(db->find(c), nullptr);
    EXPECT_EQ(state(b), State::draining);
    ASSERT_NE(db->find_user(user), nullptr);
    EXPECT_FALSE(db->find_user(user)->registered());
    EXPECT_EQ(db->find_user(user)->impi(), "alice@home");
    EXPECT_EQ(db->find_by_impu("sip:alice@home.example"), nullptr);
    EXPECT_EQ(db->outbound(*db->find_user(user))->id, b);  // the NOTIFY still finds its way
    advance(33s);
    expect_empty();
    EXPECT_EQ(recorder.changes.back().kind, ChangeKind::user_removed);
}

TEST_F(DatabaseTest, SequenceNumbersNearTheirEndRetireASet) {  // D7
    const SetId a = register_ue(request("alice@home"));
    backend.emit({BackendEventKind::sequence_near_end, a, 0});
    backend.emit({BackendEventKind::sequence_near_end, a, 0});
    db->poll_backend();
    EXPECT_EQ(state(a), State::draining);
    advance(33s);
    expect_empty();
}

TEST_F(DatabaseTest, TheDatabaseTakesItsSetsOutOfThePacketLayer) {
    register_ue(request("alice@home"));
    challenge(request("bob@home"));
    ASSERT_TRUE(db->reserve(request("carol@home")));
    db.reset();
    EXPECT_EQ(backend.installed(), 0U);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(DatabaseTest, ManyTimeoutsShareGracePeriods) {
    for (int i = 0; i < 30; ++i)
        challenge(request("u" + std::to_string(i), "10.0.0." + std::to_string(1 + i)));
    EXPECT_EQ(backend.installed(), 30U);
    const std::size_t installed = backend.installed();
    const std::size_t calls = backend.remove_calls();
    advance(241s);
    EXPECT_EQ(backend.installed(), 0U);
    EXPECT_EQ(backend.removed_sets(), installed);
    EXPECT_LE(backend.remove_calls() - calls, 2U);
    expect_empty();
}

// One grace period must not have to wipe any number of them.
TEST(DatabaseTimeouts, ARemovalTakesSixtyFourAtMost) {
    SaFixture f({}, 512);
    for (int i = 0; i < 200; ++i)
        f.challenge(f.request("u" + std::to_string(i), "10.0.0." + std::to_string(1 + i)));
    ASSERT_EQ(f.backend.installed(), 200U);
    f.advance(241s);
    EXPECT_EQ(f.backend.removed_sets(), 200U);
    EXPECT_EQ(f.backend.largest_removal(), 64U);
    EXPECT_LE(f.backend.remove_calls(), 5U);
    f.expect_empty();
}

// --- observers
// ------------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, StateChangesAreTold) {
    const SetId id = register_ue(request("alice@home"));
    using T = std::tuple<SetId, State, State>;
    EXPECT_EQ(recorder.states, (std::vector<T>{{id, State::reserved, State::installing},
                                               {id, State::installing, State::registration},
                                               {id, State::registration, State::established}}));
    EXPECT_EQ(recorder.changes.back().version, db->version());
    for (std::size_t i = 0; i < recorder.changes.size(); ++i)
        EXPECT_EQ(recorder.changes[i].version, i + 1);
}

// An observer that starts the next attempt from inside the removal of the last, and one that ends
// everything.
class Meddler : public SetObserver {
  public:
    explicit Meddler(SaFixture& f) : fixture(f) {}
    void on_set_removed(const SaSet& set, const User& user, Event) override {
        EXPECT_EQ(fixture.db->find(set.id), nullptr);
        EXPECT_EQ(fixture.db->apply(set.id, Event::drained).error().kind, ErrorKind::not_found);
        if (again-- > 0) {
            const std::string impi(user.impi());
            fixture.challenge(fixture.request(impi));
        }
    }
    void on_set_state(const SaSet& set, State) override {
        if (kill_at && set.state == *kill_at) {
            EXPECT_TRUE(fixture.db->apply(set.id, Event::operator_removed));
        }
    }
    SaFixture& fixture;
    int again = 0;
    std::optional<State> kill_at;
};

TEST_F(DatabaseTest, AnObserverMayStartAnewFromInsideARemoval) {
    Meddler m(*this);
    m.again = 2;
    db->add_observer(m);
    const SetId a = challenge(request("alice@home"));
    EXPECT_TRUE(db->apply(a, Event::sync_failure));
    EXPECT_EQ(db->set_count(), 1U);
    EXPECT_EQ(db->user_count(), 1U);
    EXPECT_EQ(backend.installed(), 1U);
    db->remove_all(Event::shutdown);
    db->remove_all(Event::shutdown);
    m.again = 0;
    expect_empty();
}

TEST_F(DatabaseTest, AnObserverMayEndASetInTheMiddleOfItsChange) {
    for (const State s :
         {State::installing, State::registration, State::established, State::draining}) {
        SCOPED_TRACE(name(s));
        Meddler m(*this);
        SaFixture f;
        Meddler meddler(f);
        meddler.kill_at = s;
        f.db->add_observer(meddler);
        const auto id = f.db->reserve(f.request("alice@home"));
        ASSERT_TRUE(id);
        (void)f.db->install(*id);
        (void)f.establish(*id);
        (void)f.db->apply(*id, Event::switched_away);
        f.expect_empty();
    }
}

// --- paging
// ---------------------------------------------------------------------------------------------------------

struct PagingTest : testing::Test, SaFixture {
    PagingTest() : SaFixture({}, 1000) {}
    std::vector<SetId> fill(int n) {
        std::vector<SetId> ids;
        for (int i = 0; i < n; ++i) {
            ids.push_back(register_ue(
                request("u" + std::to_string(i), "10.0." + std::to_string(i / 8) + ".1")));
        }
        return ids;
    }
};

TEST_F(PagingTest, VisitsEachOnceWhateverComesAndGoes) {
    const auto ids = fill(300);
    std::map<SetId, int> seen;
    std::set<SetId> gone;
    std::uint32_t cursor = 0;
    int page = 0;
    for (;;) {
        const auto r = db->page(cursor, 7, {}, [&](const SaSet& s, const User& u) {
            EXPECT_EQ(s.user, u.id);
            ++seen[s.id];
        });
        EXPECT_LE(r.visited, 7U);
        if (r.done) break;
        cursor = r.next;
        // Between two pages sets go, before and behind the cursor.
        for (const std::size_t i : {static_cast<std::size_t>(page) * 3,
                                    ids.size() - 1 - static_cast<std::size_t>(page)}) {
            if (i < ids.size() && db->find(ids[i]) != nullptr) {
                EXPECT_TRUE(db->apply(ids[i], Event::operator_removed));
                gone.insert(ids[i]);
            }
        }
        ++page;
    }
    for (const auto& [id, count] : seen) EXPECT_EQ(count, 1);
    for (const SetId id : ids) {
        if (!gone.contains(id)) {
            EXPECT_EQ(seen[id], 1);
        }
    }
}

TEST_F(PagingTest, FiltersByEachKey) {
    const auto ids = fill(100);
    challenge(request("u5", "10.0.0.1"));
    const auto list = [&](const SetFilter& f) {
        std::vector<SetId> out;
        std::uint32_t cursor = 0;
        for (;;) {
            const auto r =
                db->page(cursor, 10, f, [&](const SaSet& s, const User&) { out.push_back(s.id); });
            if (r.done) return out;
            cursor = r.next;
        }
    };
    EXPECT_EQ(list({}).size(), 101U);
    EXPECT_EQ(list({.impi = "u7"}), std::vector<SetId>{ids[7]});
    EXPECT_EQ(list({.impi = "u5"}).size(), 2U);
    EXPECT_EQ((list({.impi = "u5", .state = State::registration}).size()), 1U);
    EXPECT_TRUE(list({.impi = "nobody"}).empty());
    EXPECT_EQ(list({.ue = ip("10.0.1.1")}).size(), 8U);
    EXPECT_EQ(list({.spi = db->find(ids[33])->numbers.spi_us}), std::vector<SetId>{ids[33]});
    EXPECT_EQ(list({.spi = db->find(ids[34])->numbers.spi_pc}), std::vector<SetId>{ids[34]});
    EXPECT_EQ(list({.state = State::registration}).size(), 1U);
    EXPECT_EQ(list({.impu = "sip:alice@home.example"}).size(), 101U);
    EXPECT_TRUE(list({.impu = "sip:x"}).empty());
}

TEST_F(PagingTest, VisitMayRemoveWhatItSees) {
    fill(50);
    std::uint32_t cursor = 0;
    for (;;) {
        const auto r = db->page(cursor, 5, {}, [&](const SaSet& s, const User&) {
            const SetId id = s.id;
            EXPECT_TRUE(db->apply(id, Event::operator_removed));
        });
        if (r.done) break;
        cursor = r.next;
    }
    expect_empty();
}

TEST_F(PagingTest, UsersArePagedToo) {
    fill(50);
    std::set<std::string> seen;
    std::uint32_t cursor = 0;
    for (;;) {
        const auto r = db->page_users(cursor, 8, [&](const User& u) {
            EXPECT_TRUE(seen.insert(std::string(u.impi())).second);
        });
        if (r.done) break;
        cursor = r.next;
    }
    EXPECT_EQ(seen.size(), 50U);
    EXPECT_TRUE(db->page_users(12345, 8, [](const User&) { FAIL(); }).done);
    EXPECT_TRUE(db->page(12345, 8, {}, [](const SaSet&, const User&) { FAIL(); }).done);
}

// --- metrics, size
// --------------------------------------------------------------------------------------------------

TEST_F(DatabaseTest, MetricsFollow) {
    metrics::Registry registry;
    db->register_metrics(registry);
    const SetId a = register_ue(request("alice@home"));
    challenge(request("bob@home"));
    (void)db->apply(a, Event::operator_removed);
    std::map<std::string, double> values;
    for (const auto& s : registry.collect()) {
        values[s.name + (s.labels.empty() ? "" : "/" + s.labels[0].second)] += s.value;
    }
    EXPECT_EQ(values.at("gmgate_sa_sets/established"), 0);
    EXPECT_EQ(values.at("gmgate_sa_sets/registration"), 1);
    EXPECT_EQ(values.at("gmgate_sa_users"), 1);
    EXPECT_EQ(values.at("gmgate_sa_sets_removed_total/operator_removed"), 1);
    EXPECT_EQ(values.at("gmgate_sa_sets_reserved_total"), 2);
    EXPECT_EQ(values.at("gmgate_sa_sets_established_total"), 1);
    EXPECT_FALSE(values.contains("gmgate_sa_sets_removed_total/sm7_ok"));
}

TEST(DatabaseMemory, ARegisteredPhoneCostsWellBelowOneKibibyte) {
    constexpr std::size_t phones = 20000;
    SaFixture f({}, phones + 100);
    for (std::size_t i = 0; i < phones; ++i) {
        const std::string impi =
            "26201000" + std::to_string(1000000 + i) + "@ims.mnc001.mcc262.3gppnetwork.org";
        auto r = f.request(impi);
        const std::array<std::uint8_t, 4> octets{10, 1, static_cast<std::uint8_t>(i >> 8U),
                                                 static_cast<std::uint8_t>(i)};
        r.ue = IpAddress::v4(octets);
        f.register_ue(r);
    }
    ASSERT_EQ(f.db->set_count(), phones);
    const User& u = *f.db->find_by_impi("262010001000000@ims.mnc001.mcc262.3gppnetwork.org");
    const std::size_t each = f.db->table_octets() / phones + u.texts.octets() + sizeof(SetKeys);
    RecordProperty("octets_per_phone", static_cast<int>(each));
    std::printf(
        "[ memory   ] %zu octets a registered phone: set %zu, user %zu, texts %zu, keys %zu\n",
        each, sizeof(SaSet), sizeof(User), u.texts.octets(), sizeof(SetKeys));
    EXPECT_LT(each, 900U);
}

}  // namespace
}  // namespace gmgate::sa
