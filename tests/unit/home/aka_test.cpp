#include "home/aka.h"

#include <gtest/gtest.h>

#include "tests/unit/home/aka_support.h"

namespace gmgate::home {
namespace {

using test::key;
using test::octets;

// TS 35.208 set 1.
constexpr auto k_hex = "465b5ce8b199b49faa5f0a2ee238a6bc";
constexpr auto opc_hex = "cd63cb71954a9f4e48a5994e37a02baf";
constexpr auto rand_hex = "23553cbe9637a89d218ae64dae47bf35";

struct Aka : testing::Test {
    Aka() { milenage.set_key(key(k_hex), key(opc_hex)); }
    Milenage milenage;
    Rand rand = octets<16>(rand_hex);
};

TEST_F(Aka, VectorOfThePublishedNumbers) {
    const auto v = make_vector(milenage, rand, Sqn(octets<6>("ff9bb4d0b607")), octets<2>("b9b9"));
    // SQN ⊕ AK = ff9bb4d0b607 ⊕ aa689c648370; AMF; MAC-A.
    EXPECT_EQ(to_hex(v.autn), "55f328b43577b9b94a9ffac354dfafb3");
    EXPECT_EQ(to_hex(v.xres.reveal()), "a54211d5e3ba50bf");
    EXPECT_EQ(to_hex(v.ck.reveal()), "b40ba9a3c58b2a05bbf0d987b21bf8cb");
    EXPECT_EQ(to_hex(v.ik.reveal()), "f769bcd751044604127672711c6d3441");
    EXPECT_EQ(make_nonce(v),
              to_base64(*from_hex(std::string(rand_hex) + "55f328b43577b9b94a9ffac354dfafb3")));
    EXPECT_EQ(make_nonce(v).size(), 44U);
}

TEST_F(Aka, SqnCountsSeqAndIndTogether) {
    const Sqn zero;
    const auto one = zero.next();
    ASSERT_TRUE(one);
    EXPECT_EQ(one->seq(), 1U);
    EXPECT_EQ(one->ind(), 1U);
    EXPECT_EQ(one->value(), 33U);
    Sqn s;
    for (int i = 0; i < 32; ++i) s = *s.next();
    EXPECT_EQ(s.seq(), 32U);
    EXPECT_EQ(s.ind(), 0U);  // the array of a USIM is used round robin
    EXPECT_EQ(Sqn(s.octets()), s);
    EXPECT_EQ(to_hex(Sqn(0x0123456789ABULL).octets()), "0123456789ab");
}

TEST_F(Aka, SqnEndsInsteadOfWrapping) {
    EXPECT_FALSE(Sqn(Sqn::max).next());
    const Sqn last((((Sqn::max >> Sqn::ind_bits) - 1) << Sqn::ind_bits) | 31U);
    const auto next = last.next();
    ASSERT_TRUE(next);
    EXPECT_EQ(next->seq(), Sqn::max >> Sqn::ind_bits);
    EXPECT_FALSE(next->next());
}

TEST_F(Aka, AutsGivesSqnMs) {
    const Sqn sqn_ms(0x00000000ABCDULL);
    EXPECT_EQ(verify_auts(milenage, rand, test::make_auts(milenage, rand, sqn_ms)), sqn_ms);
}

TEST_F(Aka, AutsOfPublishedNumbers) {
    // Set 1 of TS 35.208 gives AK* = 451e8beca43b. AUTS for SQN_MS = 0: AK* itself, and f1* over
    // AMF 0000.
    auto auts = test::make_auts(milenage, rand, Sqn(0));
    EXPECT_EQ(to_hex(std::span(auts).first(6)), "451e8beca43b");
}

TEST_F(Aka, EveryAlteredOctetOfAutsIsRefused) {
    const auto good = test::make_auts(milenage, rand, Sqn(77));
    for (std::size_t i = 0; i < good.size(); ++i) {
        auto bad = good;
        bad[i] = static_cast<std::uint8_t>(bad[i] ^ 1U);
        EXPECT_FALSE(verify_auts(milenage, rand, bad)) << i;
    }
    auto other = rand;
    other[0] = static_cast<std::uint8_t>(other[0] ^ 1U);
    EXPECT_FALSE(verify_auts(milenage, other, good));
}

// ---- Digest ----

struct Known {
    std::string user, realm, nonce, uri, response, qop, nc, cnonce;
    Secret<8> res;
    DigestAnswer answer() const { return {user, realm, nonce, uri, response, qop, nc, cnonce}; }
};

std::vector<Known> known_answers() {
    std::vector<Known> out;
    for (const auto& j : test::data("akav1_md5.json")) {
        Known k;
        k.user = j.at("user");
        k.realm = j.at("realm");
        k.nonce = j.at("nonce");
        k.uri = j.at("uri");
        k.response = j.at("response");
        k.qop = j.value("qop", "");
        k.nc = j.value("nc", "");
        k.cnonce = j.value("cnonce", "");
        EXPECT_TRUE(from_hex(j.at("res").get<std::string>(), k.res.writable()));
        out.push_back(std::move(k));
    }
    return out;
}

TEST(Digest, KnownAnswers) {
    DigestCalculator digest;
    const auto all = known_answers();
    ASSERT_GE(all.size(), 3U);
    for (const auto& k : all) {
        const auto ha1 = digest.ha1(k.user, k.realm, k.res);
        EXPECT_TRUE(digest.verify(ha1, k.answer(), "REGISTER", "")) << k.user << ' ' << k.qop;
    }
}

TEST(Digest, UpperCaseResponseIsTheSame) {
    DigestCalculator digest;
    auto k = std::move(known_answers()[0]);
    const auto ha1 = digest.ha1(k.user, k.realm, k.res);
    for (auto& c : k.response) c = static_cast<char>(std::toupper(c));
    EXPECT_TRUE(digest.verify(ha1, k.answer(), "REGISTER", ""));
}

TEST(Digest, AnyChangeIsRefused) {
    DigestCalculator digest;
    for (const auto& k : known_answers()) {
        const auto ha1 = digest.ha1(k.user, k.realm, k.res);
        const auto good = k.answer();
        const auto refused = [&](DigestAnswer a) { return !digest.verify(ha1, a, "REGISTER", ""); };
        auto a = good;
        a.uri = "sip:elsewhere";
        EXPECT_TRUE(refused(a));
        a = good;
        a.nonce = "AAAA";
        EXPECT_TRUE(refused(a));
        if (!k.qop.empty()) {
            a = good;
            a.nc = "00000002";
            EXPECT_TRUE(refused(a));
            a = good;
            a.cnonce = "";
            EXPECT_TRUE(refused(a));
            a = good;
            a.nc = "";
            EXPECT_TRUE(refused(a));
        }
        a = good;
        a.qop = "auth-conf";
        EXPECT_TRUE(refused(a));
        a = good;
        a.response = good.response.substr(0, 31);
        EXPECT_TRUE(refused(a));
        a.response = "";
        EXPECT_TRUE(refused(a));
        a.response = "zz000000000000000000000000000000";
        EXPECT_TRUE(refused(a));
        EXPECT_FALSE(digest.verify(ha1, good, "INVITE", ""));
        Secret<8> wrong = k.res.copy();
        wrong.writable()[7] = static_cast<std::uint8_t>(wrong.writable()[7] ^ 1U);
        EXPECT_FALSE(digest.verify(digest.ha1(k.user, k.realm, wrong), good, "REGISTER", ""));
        EXPECT_FALSE(digest.verify(digest.ha1("other", k.realm, k.res), good, "REGISTER", ""));
    }
}

TEST(Digest, BodyCountsForAuthIntOnly) {
    DigestCalculator digest;
    for (const auto& k : known_answers()) {
        const auto ha1 = digest.ha1(k.user, k.realm, k.res);
        EXPECT_EQ(digest.verify(ha1, k.answer(), "REGISTER", "body"), k.qop != "auth-int") << k.qop;
    }
}

}  // namespace
}  // namespace gmgate::home
