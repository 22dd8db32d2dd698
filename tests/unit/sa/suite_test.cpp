#include "sa/algorithms/suite.h"

#include <gtest/gtest.h>

#include <set>

namespace gmgate::sa {
namespace {

TEST(Suite, NamesAndParsersAgree) {
    for (const Integrity i :
         {Integrity::null, Integrity::hmac_md5_96, Integrity::hmac_sha_1_96, Integrity::aes_gmac}) {
        EXPECT_EQ(parse_integrity(name(i)), i);
    }
    for (const Encryption e :
         {Encryption::null, Encryption::aes_cbc, Encryption::des_ede3_cbc, Encryption::aes_gcm}) {
        EXPECT_EQ(parse_encryption(name(e)), e);
    }
    EXPECT_EQ(name(Integrity::hmac_sha_1_96), "hmac-sha-1-96");
    EXPECT_EQ(name(Integrity::hmac_md5_96), "hmac-md5-96");
    EXPECT_EQ(name(Integrity::aes_gmac), "aes-gmac");
    EXPECT_EQ(name(Encryption::des_ede3_cbc), "des-ede3-cbc");
    EXPECT_EQ(name(Encryption::aes_gcm), "aes-gcm");
    EXPECT_EQ(parse_integrity("HMAC-SHA-1-96"), Integrity::hmac_sha_1_96);
    for (const char* bad : {"", "hmac-sha1-96", "sha1", "aes-gcm", " null", "null "}) {
        EXPECT_FALSE(parse_integrity(bad)) << bad;
    }
    EXPECT_FALSE(parse_encryption("aes-gmac"));
}

TEST(Suite, ExactlyTheListedPairsAreValid) {
    std::set<std::size_t> indexes;
    int valid = 0;
    for (int i = 0; i < 4; ++i) {
        for (int e = 0; e < 4; ++e) {
            const Suite s{static_cast<Integrity>(i), static_cast<Encryption>(e)};
            if (!is_valid(s)) continue;
            ++valid;
            indexes.insert(suite_index(s));
            EXPECT_EQ(all_suites[suite_index(s)], s);
            EXPECT_EQ(parse_suite(to_string(s)), s);
            // null integrity only with aes-gcm, aes-gmac only without encryption (A9)
            EXPECT_EQ(s.integrity == Integrity::null, s.encryption == Encryption::aes_gcm);
            if (s.integrity == Integrity::aes_gmac) {
                EXPECT_EQ(s.encryption, Encryption::null);
            }
        }
    }
    EXPECT_EQ(valid, 8);
    EXPECT_EQ(indexes.size(), 8U);
}

TEST(Suite, ParsesConfigurationText) {
    EXPECT_EQ(parse_suite(" hmac-md5-96 / AES-CBC "),
              (Suite{Integrity::hmac_md5_96, Encryption::aes_cbc}));
    for (const char* bad : {"", "/", "null/null", "aes-gmac/aes-cbc", "hmac-md5-96",
                            "hmac-md5-96/aes-gcm", "hmac-md5-96/null/x"}) {
        EXPECT_FALSE(parse_suite(bad)) << bad;
    }
}

TEST(Suite, EspGeometry) {
    const auto check = [](const char* text, std::size_t icv, std::size_t iv, std::size_t block) {
        const Suite s = *parse_suite(text);
        EXPECT_EQ(icv_size(s), icv) << text;
        EXPECT_EQ(iv_size(s), iv) << text;
        EXPECT_EQ(block_size(s), block) << text;
    };
    check("hmac-sha-1-96/null", 12, 0, 4);
    check("hmac-md5-96/null", 12, 0, 4);
    check("hmac-sha-1-96/aes-cbc", 12, 16, 16);
    check("hmac-md5-96/des-ede3-cbc", 12, 8, 8);
    check("null/aes-gcm", 16, 8, 4);
    check("aes-gmac/null", 16, 8, 4);
}

}  // namespace
}  // namespace gmgate::sa
