#include "sa/spi_allocator.h"

#include <gtest/gtest.h>

#include <set>
#include <unordered_map>
#include <vector>

#include "base/random.h"

namespace gmgate::sa {
namespace {

using namespace std::chrono_literals;

struct SpiAllocatorTest : testing::Test {
    ManualClock clock;
    SpiAllocator make(std::uint32_t slots, std::uint32_t first = 0) {
        return {clock, {.first_slot = first, .slots = slots, .quarantine = 60s}};
    }
};

TEST_F(SpiAllocatorTest, AllDifferentNeverReservedAndInLayout) {
    auto a = make(1000);
    std::set<Spi> seen;
    for (int i = 0; i < 1000; ++i) {
        const auto spi = a.allocate(static_cast<std::uint32_t>(i) % 16, 0, 0);
        ASSERT_TRUE(spi);
        EXPECT_GT(*spi, 255U);
        EXPECT_TRUE(seen.insert(*spi).second);
        EXPECT_LT(SpiLayout::slot(*spi), 1000U);
        EXPECT_EQ(SpiLayout::owner(*spi), static_cast<std::uint32_t>(i) % 16);
        EXPECT_GE(SpiLayout::generation(*spi), 1U);
        EXPECT_TRUE(a.holds(*spi));
    }
    EXPECT_EQ(a.held(), 1000U);
    const auto none = a.allocate(0, 0, 0);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().kind, ErrorKind::exhausted);
    EXPECT_EQ(a.held(), 1000U);
}

TEST_F(SpiAllocatorTest, NoTwoHeldSpisShareASlotWhateverTheirOwner) {
    auto a = make(64);
    std::set<std::uint32_t> slots;
    for (std::uint32_t i = 0; i < 64; ++i) slots.insert(SpiLayout::slot(*a.allocate(i % 3, 0, 0)));
    EXPECT_EQ(slots.size(), 64U);
}

TEST_F(SpiAllocatorTest, AReleasedSlotRestsForTheQuarantine) {
    auto a = make(2);
    const Spi first = *a.allocate(0, 0, 0);
    (void)*a.allocate(0, 0, 0);
    EXPECT_TRUE(a.release(first));
    EXPECT_FALSE(a.holds(first));
    EXPECT_FALSE(a.allocate(0, 0, 0));
    clock.advance(60s - 1ns);
    EXPECT_FALSE(a.allocate(0, 0, 0));
    clock.advance(1ns);
    const auto again = a.allocate(0, 0, 0);
    ASSERT_TRUE(again);
    EXPECT_EQ(SpiLayout::slot(*again), SpiLayout::slot(first));
    EXPECT_NE(*again, first);  // the next generation: an old packet finds no SA
    EXPECT_FALSE(a.release(first));
    EXPECT_TRUE(a.holds(*again));
}

TEST_F(SpiAllocatorTest, RestedSlotsComeBeforeFreshOnes) {
    auto a = make(1000);
    for (int i = 0; i < 100; ++i) {
        const auto [pc, ps] = *a.allocate_pair(0, 1, 2);
        EXPECT_LT(SpiLayout::slot(pc), 2U);
        EXPECT_LT(SpiLayout::slot(ps), 2U);
        a.release(pc);
        a.release(ps);
        clock.advance(60s);
    }
}

TEST_F(SpiAllocatorTest, GenerationsWrapWithoutZero) {
    auto a = make(1);
    std::set<Spi> seen;
    for (int i = 0; i < 130; ++i) {
        const Spi spi = *a.allocate(0, 0, 0);
        EXPECT_NE(SpiLayout::generation(spi), 0U);
        seen.insert(spi);
        a.release(spi);
        clock.advance(60s);
    }
    EXPECT_EQ(seen.size(), SpiLayout::max_generation);
}

TEST_F(SpiAllocatorTest, NeverEqualToWhatTheUeSent) {
    // The UE sends exactly what would come next, for both.
    for (std::uint32_t generation = 1; generation <= 3; ++generation) {
        auto a = make(2);
        const Spi uc = SpiLayout::make(generation, 0, 0);
        const Spi us = SpiLayout::make(1, 0, 0);
        const auto pair = a.allocate_pair(0, uc, us);
        ASSERT_TRUE(pair);
        for (const Spi ours : {pair->first, pair->second}) {
            EXPECT_NE(ours, uc);
            EXPECT_NE(ours, us);
        }
        EXPECT_NE(pair->first, pair->second);
    }
    auto b = make(2);
    const auto pair = b.allocate_pair(0, SpiLayout::make(1, 0, 0), SpiLayout::make(2, 0, 0));
    ASSERT_TRUE(pair);
    EXPECT_EQ(pair->first, SpiLayout::make(3, 0, 0));
}

TEST_F(SpiAllocatorTest, APairIsBothOrNone) {
    auto a = make(3);
    ASSERT_TRUE(a.allocate_pair(0, 0, 0));
    EXPECT_FALSE(a.allocate_pair(0, 0, 0));
    EXPECT_EQ(a.held(), 2U);
    // The one that was taken for a moment is free at once: it was never on the wire.
    EXPECT_TRUE(a.allocate(0, 0, 0));
}

TEST_F(SpiAllocatorTest, RefusesForeignAndStaleReleases) {
    auto a = make(4, 100);
    const Spi spi = *a.allocate(2, 0, 0);
    EXPECT_EQ(SpiLayout::slot(spi), 100U);
    EXPECT_EQ(a.index(spi), 0U);
    EXPECT_FALSE(a.release(0));
    EXPECT_FALSE(a.release(SpiLayout::make(1, 2, 99)));
    EXPECT_FALSE(a.release(SpiLayout::make(1, 2, 104)));
    EXPECT_FALSE(a.release(SpiLayout::make(1, 3, 100)));  // another owner
    EXPECT_FALSE(a.release(SpiLayout::make(2, 2, 100)));  // another generation
    EXPECT_FALSE(a.release(SpiLayout::make(1, 2, 101)));  // never taken
    EXPECT_EQ(a.held(), 1U);
    EXPECT_TRUE(a.release(spi));
    EXPECT_FALSE(a.release(spi));
    EXPECT_FALSE(a.allocate(SpiLayout::max_owners, 0, 0));
}

TEST_F(SpiAllocatorTest, ClaimTakesExactlyThat) {
    auto a = make(8);
    const Spi wanted = SpiLayout::make(17, 3, 5);
    ASSERT_TRUE(a.claim(wanted));
    EXPECT_TRUE(a.holds(wanted));
    EXPECT_EQ(a.claim(wanted).error().kind, ErrorKind::conflict);
    EXPECT_EQ(a.claim(SpiLayout::make(18, 3, 5)).error().kind, ErrorKind::conflict);
    EXPECT_EQ(a.claim(SpiLayout::make(1, 0, 8)).error().kind, ErrorKind::invalid);
    EXPECT_EQ(a.claim(SpiLayout::make(0, 0, 1)).error().kind, ErrorKind::invalid);
    // The other seven are all there, and none is the claimed slot.
    std::set<std::uint32_t> slots;
    for (int i = 0; i < 7; ++i) slots.insert(SpiLayout::slot(*a.allocate(0, 0, 0)));
    EXPECT_EQ(slots.size(), 7U);
    EXPECT_FALSE(slots.contains(5));
    EXPECT_FALSE(a.allocate(0, 0, 0));
    EXPECT_TRUE(a.release(wanted));
    clock.advance(60s);
    EXPECT_EQ(*a.allocate(3, 0, 0), SpiLayout::make(18, 3, 5));
}

// Random use against a plain model: what is held, and since when each slot rests.
TEST_F(SpiAllocatorTest, Model) {
    constexpr std::uint32_t slots = 40;
    SeededRandom random(11);
    auto a = make(slots);
    std::vector<Spi> held;
    std::unordered_map<std::uint32_t, TimePoint> resting;  // slot → until
    for (int step = 0; step < 50000; ++step) {
        switch (random.below(3)) {
            case 0: {
                const Spi avoid = held.empty() ? 5 : held[random.below(held.size())];
                const auto spi =
                    a.allocate(static_cast<std::uint32_t>(random.below(16)), avoid, avoid + 1);
                std::size_t rested = 0;
                for (const auto& [slot, until] : resting) rested += until <= clock.now() ? 1U : 0U;
                const bool possible = held.size() + resting.size() < slots || rested > 0;
                ASSERT_EQ(spi.has_value(), possible);
                if (!spi) break;
                ASSERT_NE(*spi, avoid);
                ASSERT_NE(*spi, avoid + 1);
                for (const Spi other : held)
                    ASSERT_NE(SpiLayout::slot(other), SpiLayout::slot(*spi));
                if (const auto it = resting.find(SpiLayout::slot(*spi)); it != resting.end()) {
                    ASSERT_LE(it->second, clock.now());
                    resting.erase(it);
                }
                held.push_back(*spi);
                break;
            }
            case 1: {
                if (held.empty()) break;
                const std::size_t i = random.below(held.size());
                ASSERT_TRUE(a.release(held[i]));
                resting[SpiLayout::slot(held[i])] = clock.now() + 60s;
                held[i] = held.back();
                held.pop_back();
                break;
            }
            default:
                clock.advance(std::chrono::milliseconds(random.below(5000)));
        }
        ASSERT_EQ(a.held(), held.size());
    }
    for (const Spi spi : held) ASSERT_TRUE(a.release(spi));
    EXPECT_EQ(a.held(), 0U);
}

}  // namespace
}  // namespace gmgate::sa
