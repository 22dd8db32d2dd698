#include "ue/usim.h"

#include <gtest/gtest.h>
#include <openssl/hmac.h>

#include "tests/unit/ue/test_data.h"
#include "ue/digest.h"

namespace gmgate::ue {
namespace {

using test::fixed;
using test::key;

Sqn sqn_of(const std::string& text) {
    return std::stoull(text, nullptr, 16);
}

TEST(Milenage, AllSets) {
    const auto sets = test::load("milenage_sets.json")["sets"];
    ASSERT_GT(sets.size(), 10U);
    std::size_t checked = 0;
    for (const auto& s : sets) {
        CardKeys keys;
        keys.k = key(s["K"]);
        keys.opc = opc_of(keys.k, key(s["OP"]));
        EXPECT_EQ(to_hex(keys.opc.reveal()), s["ExpectedOPc"].get<std::string>());
        const auto rand = fixed<16>(s["RAND"]);
        const auto expect = [&](std::string_view a, const char* name, const char* other) {
            for (const char* n : {name, other}) {
                if (!s.contains(n)) continue;
                EXPECT_EQ(a, s[n].get<std::string>()) << n;
                ++checked;
            }
        };
        if (s.contains("SQN")) {
            const auto f1 = milenage::f1(keys, rand, sqn_of(s["SQN"]), fixed<2>(s["AMF"]));
            expect(to_hex(f1.mac_a), "f1", "ExpectedMACA");
            expect(to_hex(f1.mac_s), "f1Star", "ExpectedMACS");
        }
        const auto f = milenage::f2345(keys, rand);
        expect(to_hex(f.res.reveal()), "f2", "ExpectedRES");
        expect(to_hex(f.ck.reveal()), "f3", "ExpectedCK");
        expect(to_hex(f.ik.reveal()), "f4", "ExpectedIK");
        expect(to_hex(f.ak), "f5", "ExpectedAK");
        expect(to_hex(milenage::f5_star(keys, rand)), "f5Star", "ExpectedAKStar");
    }
    EXPECT_GT(checked, 60U);
}

// A network of its own: AUTN for a card.
struct Network {
    CardKeys keys = keys_by_rule(as_bytes("seed of the test"), "001010000000001");
    Rand rand{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

    [[nodiscard]] Autn autn(Sqn sqn) const {
        Autn a{};
        const auto f = milenage::f2345(keys, rand);
        for (std::size_t i = 0; i < 6; ++i) {
            a[i] = static_cast<std::uint8_t>(static_cast<std::uint8_t>(sqn >> (8 * (5 - i))) ^
                                             f.ak[i]);
        }
        a[6] = 0x80;
        const auto mac = milenage::f1(keys, rand, sqn, {0x80, 0}).mac_a;
        std::copy(mac.begin(), mac.end(), a.begin() + 8);
        return a;
    }
};

TEST(Usim, AcceptsFreshAndRefusesStale) {
    Network n;
    Usim card(n.keys.copy());
    EXPECT_TRUE(std::holds_alternative<AkaSuccess>(card.authenticate(n.rand, n.autn(1000))));
    EXPECT_EQ(card.highest(), 1000U);
    EXPECT_TRUE(std::holds_alternative<AkaSyncFailure>(card.authenticate(n.rand, n.autn(1000))));
    EXPECT_TRUE(std::holds_alternative<AkaSyncFailure>(card.authenticate(n.rand, n.autn(999))));
    EXPECT_TRUE(std::holds_alternative<AkaSuccess>(card.authenticate(n.rand, n.autn(1001))));
    EXPECT_TRUE(
        std::holds_alternative<AkaSyncFailure>(card.authenticate(n.rand, n.autn(Sqn{1} << 40U))))
        << "too far ahead (TS 33.102 C.2.1)";
}

TEST(Usim, RefusesAWrongMac) {
    Network n;
    Usim card(n.keys.copy());
    for (std::size_t i = 6; i < 16; ++i) {
        Autn a = n.autn(5);
        a[i] ^= 1;
        EXPECT_TRUE(std::holds_alternative<AkaMacFailure>(card.authenticate(n.rand, a))) << i;
        EXPECT_TRUE(std::holds_alternative<AkaMacFailure>(card.refuse_as_stale(n.rand, a, 10)))
            << i;
    }
    EXPECT_EQ(card.highest(), 0U);
}

TEST(Usim, AutsTellsItsSequenceNumber) {
    Network n;
    Usim card(n.keys.copy(), 0x123456789ABC);
    const auto outcome = card.authenticate(n.rand, n.autn(7));
    const auto* stale = std::get_if<AkaSyncFailure>(&outcome);
    ASSERT_NE(stale, nullptr);
    // As the HSS reads it (TS 33.102 6.3.5).
    const auto ak = milenage::f5_star(n.keys, n.rand);
    Sqn sqn = 0;
    for (std::size_t i = 0; i < 6; ++i)
        sqn = sqn << 8U | static_cast<std::uint8_t>(stale->auts[i] ^ ak[i]);
    EXPECT_EQ(sqn, 0x123456789ABCU);
    const auto mac_s = milenage::f1(n.keys, n.rand, sqn, {0, 0}).mac_s;
    EXPECT_TRUE(std::equal(mac_s.begin(), mac_s.end(), stale->auts.begin() + 6));
}

TEST(Usim, ClaimsToBeAheadAndThenAcceptsWhatIsFurther) {
    Network n;
    Usim card(n.keys.copy());
    EXPECT_TRUE(
        std::holds_alternative<AkaSyncFailure>(card.refuse_as_stale(n.rand, n.autn(64), 1000)));
    EXPECT_EQ(card.highest(), 1064U);
    EXPECT_TRUE(std::holds_alternative<AkaSuccess>(card.authenticate(n.rand, n.autn(1065))));
}

TEST(Usim, KeysByRule) {
    const Bytes seed = test::hex("00112233445566778899aabbccddeeff");
    const CardKeys keys = keys_by_rule(seed, "001010000000001");
    std::array<std::uint8_t, 32> mac{};
    unsigned size = 0;
    const std::string text = "gmgate-K001010000000001";
    HMAC(EVP_sha256(), seed.data(), 16, reinterpret_cast<const std::uint8_t*>(text.data()),
         text.size(), mac.data(), &size);
    EXPECT_EQ(to_hex(keys.k.reveal()), to_hex(std::span(mac).first(16)));
    EXPECT_FALSE(keys.k == keys.opc);
    EXPECT_FALSE(keys.k == keys_by_rule(seed, "001010000000002").k);
}

TEST(AkaNonce, Lengths) {
    EXPECT_FALSE(parse_aka_nonce("").has_value());
    EXPECT_FALSE(parse_aka_nonce("!!!!").has_value());
    EXPECT_FALSE(parse_aka_nonce(to_base64(Bytes(31, 1))).has_value());
    const auto c = parse_aka_nonce(to_base64(Bytes(40, 9)));
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(c->rand[15], 9);
    EXPECT_EQ(c->autn[15], 9);
}

TEST(AkaDigest, KnownAnswers) {
    const auto list = test::load("akav1_md5.json");
    ASSERT_GE(list.size(), 2U);
    for (const auto& v : list) {
        const std::string user = v["user"], realm = v["realm"], nonce = v["nonce"], uri = v["uri"],
                          qop = v["qop"], nc = v["nc"], cnonce = v["cnonce"];
        DigestInput in;
        in.user = user;
        in.realm = realm;
        in.nonce = nonce;
        in.method = "REGISTER";
        in.uri = uri;
        in.qop = qop;
        in.nc = nc;
        in.cnonce = cnonce;
        EXPECT_EQ(aka_digest(in, test::hex(v["res"])), v["response"].get<std::string>())
            << v["name"];
        Bytes wrong = test::hex(v["res"]);
        wrong[0] ^= 1;
        EXPECT_NE(aka_digest(in, wrong), v["response"].get<std::string>());
    }
}

TEST(AkaDigest, WithoutQopIsRfc2069) {
    DigestInput in;
    in.user = "u";
    in.realm = "r";
    in.nonce = "n";
    in.method = "REGISTER";
    in.uri = "sip:r";
    const std::string plain = aka_digest(in, as_bytes("p"));
    in.qop = "auth";
    in.nc = "00000001";
    in.cnonce = "c";
    EXPECT_NE(plain, aka_digest(in, as_bytes("p")));
    EXPECT_EQ(plain.size(), 32U);
}

}  // namespace
}  // namespace gmgate::ue
