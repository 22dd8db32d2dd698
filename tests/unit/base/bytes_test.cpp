#include "base/bytes.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace gmgate {
namespace {

TEST(Bytes, HexBothWays) {
    const Bytes b{0x00, 0x01, 0xAB, 0xFF};
    EXPECT_EQ(to_hex(b), "0001abff");
    EXPECT_EQ(from_hex("0001abff"), b);
    EXPECT_EQ(from_hex("0001ABFF"), b);
    EXPECT_EQ(from_hex(""), Bytes{});
    EXPECT_EQ(to_hex({}), "");
    for (const char* bad : {"0", "abc", "0g", "g0", " 00", "0x00", "00 "})
        EXPECT_FALSE(from_hex(bad)) << bad;
}

TEST(Bytes, HexIntoAFixedPlaceLeavesNothingOnError) {
    std::array<std::uint8_t, 2> out{7, 7};
    EXPECT_TRUE(from_hex("1234", out));
    EXPECT_EQ(out, (std::array<std::uint8_t, 2>{0x12, 0x34}));
    EXPECT_FALSE(from_hex("12", out));
    EXPECT_EQ(out, (std::array<std::uint8_t, 2>{0, 0}));
    out = {7, 7};
    EXPECT_FALSE(from_hex("12zz", out));  // a key read by half must not stay
    EXPECT_EQ(out, (std::array<std::uint8_t, 2>{0, 0}));
}

TEST(Bytes, Base64KnownAnswers) {  // RFC 4648 section 10
    const std::array<std::pair<const char*, const char*>, 7> cases{{{"", ""},
                                                                    {"f", "Zg=="},
                                                                    {"fo", "Zm8="},
                                                                    {"foo", "Zm9v"},
                                                                    {"foob", "Zm9vYg=="},
                                                                    {"fooba", "Zm9vYmE="},
                                                                    {"foobar", "Zm9vYmFy"}}};
    for (const auto& [plain, coded] : cases) {
        EXPECT_EQ(to_base64(as_bytes(plain)), coded);
        const auto back = from_base64(coded);
        ASSERT_TRUE(back) << coded;
        EXPECT_EQ(as_text(*back), plain);
    }
    for (const char* bad : {"Z", "Zg", "Zg=", "Zg!=", "Zm9v Zm9v", "\x80\x80\x80\x80"}) {
        EXPECT_FALSE(from_base64(bad)) << bad;
    }
}

TEST(Bytes, Base64RoundTrip) {
    SeededRandom random(1);
    for (std::size_t n = 0; n < 200; ++n) {
        Bytes b(n);
        random.fill(b);
        ASSERT_EQ(from_base64(to_base64(b)), b) << n;
    }
}

TEST(Bytes, BigEndianFields) {
    std::array<std::uint8_t, 4> b{};
    store_be32(b.data(), 0x12345678);
    EXPECT_EQ(b, (std::array<std::uint8_t, 4>{0x12, 0x34, 0x56, 0x78}));
    EXPECT_EQ(load_be32(b.data()), 0x12345678U);
    EXPECT_EQ(load_be16(b.data() + 1), 0x3456U);
    store_be32(b.data(), 0xFFFFFFFF);
    EXPECT_EQ(load_be32(b.data()), 0xFFFFFFFFU);
    store_be16(b.data(), 0xBEEF);
    EXPECT_EQ(load_be16(b.data()), 0xBEEF);
}

TEST(Bytes, TextHelpers) {
    EXPECT_TRUE(iequals("Sec-Agree", "SEC-agree"));
    EXPECT_FALSE(iequals("a", "ab"));
    EXPECT_FALSE(iequals("[", "{"));  // differ by the case bit, and are no letters
    EXPECT_FALSE(iequals("@", "`"));
    EXPECT_EQ(to_lower("AbC-1Z"), "abc-1z");
    EXPECT_EQ(trim(" \t a b\t "), "a b");
    EXPECT_EQ(trim(" \t"), "");
    EXPECT_EQ(trim(""), "");
    EXPECT_EQ(trim("\r\nx"), "\r\nx");
}

}  // namespace
}  // namespace gmgate
