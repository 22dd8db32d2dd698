#include "sa/algorithms/key_expansion.h"

#include <gtest/gtest.h>

#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/bytes.h"

namespace gmgate::sa {
namespace {

AkaKey key(const std::string& hex) {
    AkaKey k;
    EXPECT_TRUE(from_hex(hex, k.writable()));
    return k;
}

nlohmann::json known_answers() {
    std::ifstream in(GMGATE_TEST_DATA "/sa/annex_i.json");
    return nlohmann::json::parse(in).at("sets");
}

TEST(KeyExpansion, KnownAnswersOfAnnexI) {
    const auto sets = known_answers();
    ASSERT_EQ(sets.size(), 10U);
    for (const auto& set : sets) {
        SCOPED_TRACE(set.at("name").get<std::string>());
        const AkaKey ck = key(set.at("ck"));
        const AkaKey ik = key(set.at("ik"));
        const auto integrity = [&](Integrity i, Encryption e) {
            return to_hex(expand_keys({i, e}, ck, ik).integrity());
        };
        const auto encryption = [&](Integrity i, Encryption e) {
            return to_hex(expand_keys({i, e}, ck, ik).encryption());
        };
        const auto salt = [&](Integrity i, Encryption e) {
            return to_hex(expand_keys({i, e}, ck, ik).salt.reveal());
        };

        for (const Encryption e :
             {Encryption::null, Encryption::aes_cbc, Encryption::des_ede3_cbc}) {
            EXPECT_EQ(integrity(Integrity::hmac_md5_96, e),
                      set.at("hmac_md5_96").get<std::string>());
            EXPECT_EQ(integrity(Integrity::hmac_sha_1_96, e),
                      set.at("hmac_sha_1_96").get<std::string>());
        }
        EXPECT_EQ(integrity(Integrity::aes_gmac, Encryption::null),
                  set.at("aes_gmac_key").get<std::string>());
        EXPECT_EQ(salt(Integrity::aes_gmac, Encryption::null),
                  set.at("aes_gmac_salt").get<std::string>());
        EXPECT_EQ(encryption(Integrity::null, Encryption::aes_gcm),
                  set.at("aes_gcm_key").get<std::string>());
        EXPECT_EQ(salt(Integrity::null, Encryption::aes_gcm),
                  set.at("aes_gcm_salt").get<std::string>());
        for (const Integrity i : {Integrity::hmac_md5_96, Integrity::hmac_sha_1_96}) {
            EXPECT_EQ(encryption(i, Encryption::aes_cbc), set.at("aes_cbc").get<std::string>());
            EXPECT_EQ(encryption(i, Encryption::des_ede3_cbc),
                      set.at("des_ede3_cbc_parity").get<std::string>());
        }
        // The raw form is the same key but for the parity bits.
        const auto raw = *from_hex(set.at("des_ede3_cbc_raw").get<std::string>());
        const EspKeys keys =
            expand_keys({Integrity::hmac_sha_1_96, Encryption::des_ede3_cbc}, ck, ik);
        ASSERT_EQ(keys.encryption().size(), raw.size());
        for (std::size_t n = 0; n < raw.size(); ++n) {
            EXPECT_EQ(keys.encryption()[n] & 0xFEU, raw[n] & 0xFEU);
            EXPECT_EQ(std::popcount(static_cast<unsigned>(keys.encryption()[n])) % 2, 1);
        }
    }
}

TEST(KeyExpansion, WhatASuiteDoesNotUseStaysEmpty) {
    const AkaKey ck = key("000102030405060708090a0b0c0d0e0f");
    const AkaKey ik = key("101112131415161718191a1b1c1d1e1f");
    for (const Suite suite : all_suites) {
        SCOPED_TRACE(to_string(suite));
        const EspKeys k = expand_keys(suite, ck, ik);
        EXPECT_EQ(k.integrity().empty(), suite.integrity == Integrity::null);
        EXPECT_EQ(k.encryption().empty(), suite.encryption == Encryption::null);
        const bool salted =
            suite.encryption == Encryption::aes_gcm || suite.integrity == Integrity::aes_gmac;
        EXPECT_EQ(to_hex(k.salt.reveal()) == "00000000", !salted);
    }
}

}  // namespace
}  // namespace gmgate::sa
