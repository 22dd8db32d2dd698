#include <gtest/gtest.h>

#include <map>

#include "tests/support/sa_fixture.h"

namespace gmgate::sa {
namespace {

using namespace std::chrono_literals;
using test::SaFixture;

// A database with everything in it: established, old and new, draining, unfinished, reserved only.
struct Source : SaFixture {
    Source() : SaFixture({}, 200) {
        alice = register_ue(request("alice@home", "10.0.0.1"));
        auto r = request("alice@home", "10.0.0.1");
        r.sm1_set = alice;
        alice_new = register_ue(r, std::chrono::hours(2));
        bob = register_ue(request("bob@home", "2001:db8::b"));
        r = request("bob@home", "2001:db8::b");
        r.sm1_set = bob;
        r.suite = Suite{Integrity::null, Encryption::aes_gcm};
        bob_new = register_ue(r);
        db->note_use(bob_new);  // bob drains
        r = request("carol@home", "10.0.0.3");
        r.nat_inner = *IpAddress::parse("192.168.1.2");  // N1
        carol = challenge(r);
        EXPECT_TRUE(db->find(carol)->nat);
        EXPECT_TRUE(db->reserve(request("dave@home", "10.0.0.4")));
        SetStats stats;
        stats.highest_out_sequence = 4242;
        backend.set_stats(alice, stats);
    }
    SetId alice, alice_new, bob, bob_new, carol;
};

TEST(Snapshot, EverythingLiveComesBackAsItWas) {
    Source from;
    from.clock.advance(5s);
    const SecretBytes bytes = from.db->serialize();

    SaFixture to({}, 200);
    to.clock.advance(12345s);  // another process, another origin of time
    const auto report = to.db->restore(bytes, 2s);
    ASSERT_TRUE(report) << report.error().text;
    EXPECT_EQ(report->users, 2U);
    EXPECT_EQ(report->sets, 4U);
    EXPECT_EQ(report->expired, 0U);
    // Behind a NAT: a recorded packet would say where she is (0021).
    EXPECT_EQ(report->refused, 1U);
    EXPECT_EQ(to.db->find(from.carol), nullptr);
    EXPECT_EQ(to.db->find_by_impi("carol@home"), nullptr);
    EXPECT_FALSE(to.backend.has(from.carol));

    for (const SetId id : {from.alice, from.alice_new, from.bob, from.bob_new}) {
        const SaSet* a = from.db->find(id);
        const SaSet* b = to.db->find(id);
        ASSERT_NE(b, nullptr);
        EXPECT_EQ(a->state, b->state);
        EXPECT_EQ(a->numbers, b->numbers);
        EXPECT_EQ(a->ue, b->ue);
        EXPECT_EQ(a->ours, b->ours);
        EXPECT_FALSE(b->nat);
        EXPECT_EQ(a->suite, b->suite);
        EXPECT_EQ(a->sm1_set, b->sm1_set);
        EXPECT_EQ(a->used, b->used);
        EXPECT_EQ(a->user, b->user);
        EXPECT_TRUE(a->keys->ck == b->keys->ck);
        EXPECT_TRUE(a->keys->ik == b->keys->ik);
        EXPECT_TRUE(to.backend.has(id));
        EXPECT_EQ(to.db->find_by_spi(a->numbers.spi_pc), b);
        EXPECT_EQ(to.db->find_by_tuple(a->ue, a->numbers.port_uc, a->numbers.port_ps), b);
        EXPECT_EQ(b->timer.deadline() - to.clock.now() + 2s,
                  a->timer.deadline() - from.clock.now());
        if (a->lifetime_end != TimePoint::max()) {
            EXPECT_EQ(b->lifetime_end - to.clock.now() + 2s, a->lifetime_end - from.clock.now());
        }
    }
    EXPECT_EQ(to.backend.set(from.alice)->out_sequence, 4242U);
    EXPECT_EQ(to.backend.set(from.bob)->out_sequence, 0U);
    const User& u = *to.db->find_by_impi("alice@home");
    EXPECT_EQ(u.service_route(), "<sip:orig@scscf.home.example;lr>");
    EXPECT_EQ(u.impu(0), "sip:alice@home.example");
    EXPECT_TRUE(u.registered());
    EXPECT_EQ(to.db->outbound(u)->id, from.alice);
    EXPECT_NE(to.db->find_by_impu("sip:alice@home.example"), nullptr);
    EXPECT_EQ(to.db->find_by_impi("dave@home"), nullptr);  // only reserved: starts again

    // Life goes on: the next set takes other numbers, keeps port_ps, changes port_pc.
    auto r = to.request("alice@home", "10.0.0.1");
    r.port_uc = 30000;
    r.sm1_set = from.alice_new;
    const SetId next = to.register_ue(r);
    EXPECT_EQ(to.db->find(next)->numbers.port_ps, to.db->find(from.alice_new)->numbers.port_ps);
    EXPECT_NE(to.db->find(next)->numbers.port_pc, to.db->find(from.alice_new)->numbers.port_pc);
    EXPECT_GT(next, from.bob_new);
    to.db->remove_all(Event::shutdown);
    to.expect_empty();
}

TEST(Snapshot, WhatIsOverIsLeftOut) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    SaFixture to({}, 200);
    const auto report = to.db->restore(bytes, 300s);  // reg-await-auth and the drain are over
    ASSERT_TRUE(report);
    EXPECT_EQ(report->expired, 2U);
    EXPECT_EQ(report->sets, 3U);
    EXPECT_EQ(to.db->find(from.carol), nullptr);
    EXPECT_EQ(to.db->find(from.bob), nullptr);
    SaFixture late({}, 200);
    const auto none = late.db->restore(bytes, std::chrono::hours(24 * 365));
    ASSERT_TRUE(none);
    EXPECT_EQ(none->sets, 0U);
    late.expect_empty();
}

TEST(Snapshot, OnlyIntoAnEmptyDatabase) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    EXPECT_EQ(from.db->restore(bytes, 0s).error().kind, ErrorKind::conflict);
}

TEST(Snapshot, AnEmptyDatabaseHasAnEmptySnapshot) {
    SaFixture from;
    SaFixture to;
    const auto report = to.db->restore(from.db->serialize(), 0s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->sets, 0U);
    to.expect_empty();
}

TEST(Snapshot, WhatThePacketLayerRefusesIsCountedAndLeavesNothing) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    SaFixture to({}, 200);
    to.backend.fail_install(ErrorKind::io, 1000);
    const auto report = to.db->restore(bytes, 0s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->refused, 5U);
    EXPECT_EQ(report->sets, 0U);
    EXPECT_EQ(report->users, 0U);
    to.expect_empty();
}

TEST(Snapshot, AnotherPortConfigurationRefusesTheOldPorts) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    DatabaseConfig config;
    config.ports.port_ps = {7000};
    SaFixture to(config, 200);
    const auto report = to.db->restore(bytes, 0s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->refused, 5U);
    to.expect_empty();
}

TEST(Snapshot, ASmallerTableTakesWhatFits) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    SaFixture to({}, 3);
    const auto report = to.db->restore(bytes, 0s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->sets + report->refused, 5U);
    EXPECT_LE(report->sets, 3U);
    EXPECT_EQ(to.backend.installed(), report->sets);
    to.db->remove_all(Event::shutdown);
    to.expect_empty();
}

TEST(Snapshot, EveryTruncationIsRefused) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    SaFixture to({}, 200);
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        const auto r = to.db->restore(std::span(bytes).first(n), 0s);
        ASSERT_FALSE(r) << n;
        ASSERT_EQ(r.error().kind, ErrorKind::invalid);
    }
    SecretBytes longer = bytes;
    longer.push_back(0);
    EXPECT_FALSE(to.db->restore(longer, 0s));
    to.expect_empty();
}

TEST(Snapshot, AnotherVersionIsNamed) {
    Source from;
    SecretBytes bytes = from.db->serialize();
    bytes[5] = 2;
    SaFixture to;
    const auto r = to.db->restore(bytes, 0s);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().text.find("version 2"), std::string::npos);
}

TEST(Snapshot, DamageNeverCrashesNorLeaks) {
    Source from;
    const SecretBytes bytes = from.db->serialize();
    SeededRandom random(99);
    int taken = 0;
    for (int i = 0; i < 3000; ++i) {
        SecretBytes damaged = bytes;
        const auto flips = 1 + random.below(4);
        for (std::uint64_t k = 0; k < flips; ++k) {
            damaged[random.below(damaged.size())] = static_cast<std::uint8_t>(random.u32());
        }
        SaFixture to({}, 200);
        const auto r = to.db->restore(damaged, std::chrono::seconds(random.below(10)));
        taken += r.has_value() ? 1 : 0;
        EXPECT_EQ(to.backend.installed(), to.db->set_count());
        EXPECT_EQ(to.db->spis().held(), 2 * to.db->set_count());
        to.advance(10s);
        to.db->remove_all(Event::shutdown);
        to.expect_empty();
    }
    EXPECT_GT(taken, 0);  // a changed key octet cannot be seen
}

TEST(Snapshot, TensOfThousandsOfSets) {
    constexpr std::size_t n = 20000;
    SaFixture from({}, n);
    for (std::size_t i = 0; i < n; ++i) {
        auto r = from.request("user" + std::to_string(i));
        r.ue = IpAddress::v4(std::array<std::uint8_t, 4>{10, 7, static_cast<std::uint8_t>(i >> 8U),
                                                         static_cast<std::uint8_t>(i)});
        from.register_ue(r);
    }
    // Positions in an order that is not the users'.
    for (std::size_t i = 0; i < n; i += 2) {
        from.db->remove_user(from.db->find_by_impi("user" + std::to_string(i))->id,
                             Event::operator_removed);
    }
    from.clock.advance(61s);
    for (std::size_t i = 0; i < n; i += 2) {
        auto r = from.request("new" + std::to_string(i));
        r.ue = IpAddress::v4(std::array<std::uint8_t, 4>{10, 8, static_cast<std::uint8_t>(i >> 8U),
                                                         static_cast<std::uint8_t>(i)});
        from.register_ue(r);
    }
    const SecretBytes bytes = from.db->serialize();
    SaFixture to({}, n);
    const auto report = to.db->restore(bytes, 0s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->sets, n);
}

}  // namespace
}  // namespace gmgate::sa
