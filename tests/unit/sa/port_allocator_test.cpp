#include "sa/port_allocator.h"

#include <gtest/gtest.h>

#include <set>

namespace gmgate::sa {
namespace {

const auto nothing_taken = [](Port) { return false; };

TEST(PortAllocator, RefusesImpossibleConfigurations) {
    const auto refused = [](std::vector<Port> ps, Port first, Port last) {
        const auto r = PortAllocator::create({std::move(ps), first, last});
        return !r && r.error().kind == ErrorKind::invalid && !r.error().text.empty();
    };
    EXPECT_FALSE(refused({5062}, 5100, 5115));
    EXPECT_FALSE(refused({5062, 5063}, 5100, 5102));
    EXPECT_TRUE(refused({}, 5100, 5115));
    EXPECT_TRUE(refused({5060}, 5100, 5115));
    EXPECT_TRUE(refused({5062, 5061}, 5100, 5115));
    EXPECT_TRUE(refused({0}, 5100, 5115));
    EXPECT_TRUE(refused({5062, 5062}, 5100, 5115));
    EXPECT_TRUE(refused({5105}, 5100, 5115));
    EXPECT_TRUE(refused({5100}, 5100, 5115));
    EXPECT_TRUE(refused({5115}, 5100, 5115));
    EXPECT_TRUE(refused({6000}, 5050, 5070));  // holds 5060
    EXPECT_TRUE(refused({6000}, 5061, 5070));
    EXPECT_TRUE(refused({6000}, 0, 100));
    EXPECT_TRUE(refused({6000}, 5115, 5100));
    EXPECT_TRUE(refused({6000}, 5100, 5101));  // fewer than the sets of one UE
    EXPECT_FALSE(refused({6000}, 65533, 65535));
}

TEST(PortAllocator, ServerPortsAreSpreadByHash) {
    const auto a = *PortAllocator::create({{5062, 5063, 5064}, 5100, 5115});
    std::set<Port> seen;
    for (std::uint64_t h = 0; h < 30; ++h) {
        seen.insert(a.port_ps(h));
        EXPECT_EQ(a.port_ps(h), a.port_ps(h));
        EXPECT_TRUE(a.is_port_ps(a.port_ps(h)));
    }
    EXPECT_EQ(seen.size(), 3U);
    EXPECT_FALSE(a.is_port_ps(5100));
    EXPECT_TRUE(a.is_port_pc(5100));
    EXPECT_TRUE(a.is_port_pc(5115));
    EXPECT_FALSE(a.is_port_pc(5116));
}

TEST(PortAllocator, ClientPortChangesEachTimeAndGoesRound) {
    const auto a = *PortAllocator::create(
        {{5062}, 65533, 65535});  // the end of the range is the end of all ports
    Port previous = 0;
    std::set<Port> seen;
    for (int i = 0; i < 10; ++i) {
        const Port p = *a.port_pc(previous, 7, nothing_taken);
        EXPECT_NE(p, previous);
        EXPECT_TRUE(a.is_port_pc(p));
        seen.insert(p);
        previous = p;
    }
    EXPECT_EQ(seen.size(), 3U);
}

TEST(PortAllocator, TakenPortsArePassedOver) {
    const auto a = *PortAllocator::create({{5062}, 5100, 5103});
    EXPECT_EQ(*a.port_pc(5100, 0, [](Port p) { return p == 5101 || p == 5102; }), 5103);
    // Only the previous one is free: it may not be used again.
    const auto none = a.port_pc(5100, 0, [](Port p) { return p != 5100; });
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().kind, ErrorKind::exhausted);
    // No previous one: every port is tried.
    EXPECT_EQ(*a.port_pc(0, 1, [](Port p) { return p != 5100; }), 5100);
    EXPECT_FALSE(a.port_pc(0, 1, [](Port) { return true; }));
    // A previous one outside the range (the configuration changed): as if there were none.
    EXPECT_EQ(*a.port_pc(9999, 2, nothing_taken), 5102);
}

}  // namespace
}  // namespace gmgate::sa
