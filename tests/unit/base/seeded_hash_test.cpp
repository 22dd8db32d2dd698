#include "base/seeded_hash.h"

#include <gtest/gtest.h>

#include <map>
#include <string_view>
#include <vector>

namespace gmgate {
namespace {

TEST(SeededHash, KnownAnswersOfSipHash24) {
    // Key 00 01 … 0f, input 00 01 … (n-1): the vectors published with the algorithm.
    const SeededHash hash(0x0706050403020100ULL, 0x0F0E0D0C0B0A0908ULL);
    std::vector<std::uint8_t> in;
    const std::map<std::size_t, std::uint64_t> answers{{0, 0x726FDB47DD0E0E31ULL},
                                                       {1, 0x74F839C593DC67FDULL},
                                                       {8, 0x93F5F5799A932462ULL},
                                                       {15, 0xA129CA6149BE45E5ULL}};
    for (std::size_t n = 0; n <= 15; ++n) {
        if (answers.contains(n)) {
            EXPECT_EQ(hash(std::span<const std::uint8_t>(in)), answers.at(n)) << n;
        }
        in.push_back(static_cast<std::uint8_t>(n));
    }
}

TEST(SeededHash, TheKeyMatters) {
    const SeededHash a(1, 2);
    const SeededHash b(1, 3);
    EXPECT_NE(a(std::string_view("x")), b(std::string_view("x")));
    const auto ip = *IpAddress::parse("10.0.0.1");
    EXPECT_NE(a(ip, 1, 2), a(ip, 2, 1));
    EXPECT_NE(a(*IpAddress::parse("0.0.0.0"), 1, 2), a(*IpAddress::parse("::"), 1, 2));
}

}  // namespace
}  // namespace gmgate
