#include "ue/esp.h"

#include <gtest/gtest.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <set>

#include "tests/unit/ue/test_data.h"

namespace gmgate::ue {
namespace {

using test::hex;
using test::key;

class EspSuites : public ::testing::TestWithParam<sa::Suite> {
  protected:
    EspCrypto crypto_;
    SeededRandom random_{7};
    sa::EspKeys keys_ = sa::expand_keys(GetParam(), key("000102030405060708090a0b0c0d0e0f"),
                                        key("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));

    Bytes seal(std::span<const std::uint8_t> payload, std::uint32_t sequence = 1) {
        EspCrypto::Packet p;
        p.spi = 0x12345678;
        p.sequence = sequence;
        p.payload = payload;
        Bytes out;
        crypto_.seal(GetParam(), keys_, p, random_, out);
        return out;
    }
};

TEST(EspKnownAnswers, AnnexI) {
    const auto data = test::load("annex_i.json");
    const Bytes udp = hex(data["udp"]);
    EspCrypto crypto;
    std::size_t packets = 0;
    for (const auto& set : data["sets"]) {
        for (const auto& v : set["esp_packets"]) {
            const auto suite =
                sa::parse_suite(v["alg"].get<std::string>() + "/" + v["ealg"].get<std::string>());
            ASSERT_TRUE(suite) << v["alg"] << v["ealg"];
            const sa::EspKeys keys = sa::expand_keys(*suite, key(set["ck"]), key(set["ik"]));
            Bytes iv(sa::iv_size(*suite));
            for (std::size_t i = 0; i < iv.size(); ++i) iv[i] = static_cast<std::uint8_t>(i);
            EspCrypto::Packet p;
            p.spi = 0x65;
            p.sequence = 1;
            p.payload = udp;
            Bytes out;
            crypto.seal_with_iv(*suite, keys, p, iv, out);
            EXPECT_EQ(to_hex(out), v["esp"].get<std::string>()) << sa::to_string(*suite);
            const Bytes expected = hex(v["esp"]);
            const auto opened = crypto.open(*suite, keys, expected);
            ASSERT_TRUE(opened) << sa::to_string(*suite);
            EXPECT_EQ(opened->next_header, 17);
            EXPECT_EQ(to_hex(opened->payload), to_hex(udp));
            ++packets;
        }
    }
    EXPECT_GE(packets, 8U);
}

TEST_P(EspSuites, RoundTripOfEveryLength) {
    for (std::size_t n = 0; n < 130; ++n) {
        Bytes payload(n);
        random_.fill(payload);
        const Bytes packet = seal(payload, static_cast<std::uint32_t>(n + 1));
        EXPECT_EQ((packet.size() - 8 - sa::iv_size(GetParam()) - sa::icv_size(GetParam())) %
                      sa::block_size(GetParam()),
                  0U);
        const auto opened = crypto_.open(GetParam(), keys_, packet);
        ASSERT_TRUE(opened) << n;
        EXPECT_EQ(to_hex(opened->payload), to_hex(payload));
    }
}

TEST_P(EspSuites, EveryBitIsProtected) {
    const Bytes payload(40, 0x41);
    const Bytes good = seal(payload);
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        Bytes bad = good;
        bad[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
        const auto opened = crypto_.open(GetParam(), keys_, bad);
        ASSERT_FALSE(opened) << "bit " << bit;
        EXPECT_EQ(opened.error(), EspError::icv);
    }
}

TEST_P(EspSuites, ShortPacketsAreRefused) {
    const Bytes good = seal(Bytes(40, 0x41));
    for (std::size_t n = 0; n < good.size(); ++n) {
        EXPECT_FALSE(crypto_.open(GetParam(), keys_, std::span(good).first(n))) << n;
    }
}

TEST_P(EspSuites, AnotherKeyDoesNotOpen) {
    const auto other = sa::expand_keys(GetParam(), key("100102030405060708090a0b0c0d0e0f"),
                                       key("00f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    EXPECT_FALSE(crypto_.open(GetParam(), other, seal(Bytes(40, 0x41))));
}

// One key serves four SAs and both directions: with GCM and GMAC a nonce that comes twice gives the
// key away.
TEST_P(EspSuites, NoIvComesTwice) {
    if (sa::iv_size(GetParam()) == 0) return;
    std::set<std::string> seen;
    for (const std::uint32_t spi : {0x100U, 0x101U, 0x102U, 0x103U}) {
        for (std::uint32_t sequence = 1; sequence < 50; ++sequence) {
            EspCrypto::Packet p;
            p.spi = spi;
            p.sequence = sequence;
            Bytes out;
            crypto_.seal(GetParam(), keys_, p, random_, out);
            EXPECT_TRUE(
                seen.insert(to_hex(std::span(out).subspan(8, sa::iv_size(GetParam())))).second);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, EspSuites, ::testing::ValuesIn(sa::all_suites),
                         [](const auto& param) {
                             std::string n = sa::to_string(param.param);
                             std::ranges::replace_if(
                                 n, [](char c) { return c == '-' || c == '/'; }, '_');
                             return n;
                         });

// Authentic, but the trailer lies: only someone with the keys can send it, and it is refused all
// the same.
TEST(EspTrailer, PaddingThatLiesIsRefused) {
    EspCrypto crypto;
    const sa::Suite suite{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
    const auto keys = sa::expand_keys(suite, key("000102030405060708090a0b0c0d0e0f"),
                                      key("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    const auto packet = [&](const char* text) {
        Bytes out = hex(std::string("0000020000000001") + text);
        std::array<std::uint8_t, 20> mac{};
        unsigned n = 0;
        HMAC(EVP_sha1(), keys.integrity().data(), 20, out.data(), out.size(), mac.data(), &n);
        out.insert(out.end(), mac.begin(), mac.begin() + 12);
        return out;
    };
    const Bytes honest = packet("aabbccdd01020211");
    const auto good = crypto.open(suite, keys, honest);
    ASSERT_TRUE(good);
    EXPECT_EQ(to_hex(good->payload), "aabbccdd");
    for (const char* text :
         {"aabbccdd00000211", "aabbccdd01030211", "aabbccdd0102ff11", "aabbccdd01020711"}) {
        const auto opened = crypto.open(suite, keys, packet(text));
        ASSERT_FALSE(opened) << text;
        EXPECT_EQ(opened.error(), EspError::padding) << text;
    }
    EXPECT_EQ(crypto.open(suite, keys, packet("aabbcc0011")).error(), EspError::alignment);
}

TEST(ReplayWindow, EveryPositionOnce) {
    ReplayWindow w;
    EXPECT_FALSE(w.fresh(0)) << "RFC 4303: the first is 1";
    for (std::uint32_t s = 1; s <= 64; ++s) {
        EXPECT_TRUE(w.fresh(s));
        w.mark(s);
    }
    for (std::uint32_t s = 1; s <= 64; ++s) EXPECT_FALSE(w.fresh(s)) << s;
    w.mark(65);
    EXPECT_FALSE(w.fresh(1)) << "left the window";
}

TEST(ReplayWindow, HolesCanBeFilledOnce) {
    ReplayWindow w;
    w.mark(1000);
    for (std::uint32_t back = 1; back < 64; ++back) {
        EXPECT_TRUE(w.fresh(1000 - back)) << back;
        w.mark(1000 - back);
        EXPECT_FALSE(w.fresh(1000 - back)) << back;
    }
    EXPECT_FALSE(w.fresh(1000 - 64));
    EXPECT_FALSE(w.fresh(1000));
}

TEST(ReplayWindow, JumpsForgetNothingTheyShouldNot) {
    ReplayWindow w;
    w.mark(10);
    w.mark(10 + 63);
    EXPECT_FALSE(w.fresh(10));
    w.mark(10 + 64);
    EXPECT_FALSE(w.fresh(10));
    w.mark(0xFFFFFFFF);
    EXPECT_FALSE(w.fresh(0xFFFFFFFF));
    EXPECT_TRUE(w.fresh(0xFFFFFFFE));
    EXPECT_FALSE(w.fresh(10 + 64));
}

}  // namespace
}  // namespace gmgate::ue
