#include "base/random.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace gmgate {
namespace {

TEST(Random, TheSameSeedTheSameRun) {
    SeededRandom a(5);
    SeededRandom b(5);
    SeededRandom c(6);
    bool differs = false;
    for (int i = 0; i < 100; ++i) {
        const auto x = a.u64();
        EXPECT_EQ(x, b.u64());
        differs = differs || x != c.u64();
    }
    EXPECT_TRUE(differs);
}

TEST(Random, TokensAreHexOfTheAskedLengthAndDoNotRepeat) {
    SystemRandom random;
    std::set<std::string> seen;
    for (int i = 0; i < 1000; ++i) {
        const std::string t = random.token(8);
        EXPECT_EQ(t.size(), 16U);
        EXPECT_EQ(t.find_first_not_of("0123456789abcdef"), std::string::npos);
        EXPECT_TRUE(seen.insert(t).second);
    }
    EXPECT_EQ(random.token(0), "");
    EXPECT_EQ(random.token(50).size(), 100U);
}

TEST(Random, FillCrossesThePoolsEdge) {
    SystemRandom random;
    std::vector<std::uint8_t> big(5000);
    random.fill(big);
    // Each kilobyte has content of its own: 1000 zero octets in a row would be a hole.
    for (std::size_t i = 0; i < 5; ++i) {
        bool content = false;
        for (std::size_t k = 0; k < 1000; ++k) content = content || big[i * 1000 + k] != 0;
        EXPECT_TRUE(content) << i;
    }
}

TEST(Random, BelowStaysBelow) {
    SeededRandom random(3);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) {
        const auto v = random.below(7);
        EXPECT_LT(v, 7U);
        seen.insert(v);
    }
    EXPECT_EQ(seen.size(), 7U);
}

}  // namespace
}  // namespace gmgate
