#include "home/local_hss.h"

#include <gtest/gtest.h>

#include "home/cx_log.h"
#include "tests/unit/home/aka_support.h"

namespace gmgate::home {
namespace {

constexpr auto realm = "ims.mnc001.mcc001.3gppnetwork.org";
constexpr auto scscf = "sip:scscf.example";
constexpr auto listed_impi = "alice@home.example";
constexpr auto listed_impu = "sip:alice@home.example";
constexpr auto generated_impi = "001010000000007@ims.mnc001.mcc001.3gppnetwork.org";
constexpr auto generated_impu = "sip:001010000000007@ims.mnc001.mcc001.3gppnetwork.org";
const Bytes seed = *from_hex("00112233445566778899aabbccddeeff");

Subscriber alice() {
    Subscriber s;
    s.impi = listed_impi;
    s.impus = {listed_impu, "tel:+4930123"};
    s.k = test::key("465b5ce8b199b49faa5f0a2ee238a6bc");
    s.opc = test::key("cd63cb71954a9f4e48a5994e37a02baf");
    s.amf = {0x80, 0x00};
    s.sqn = Sqn(64);
    return s;
}

struct LocalHssTest : testing::Test {
    LocalHssTest() {
        EXPECT_TRUE(hss.add(alice()));
        EXPECT_TRUE(hss.add(*SubscriberRule::parse("100", seed, realm)));
    }
    CxResult query(std::string_view impi, std::string_view impu) {
        auto out = CxResult::unreachable;
        hss.query(impi, impu, [&](CxResult r, const UserStatus& s) {
            out = r;
            status = s;
        });
        return out;
    }
    CxResult vectors(std::string_view impi, std::string_view impu, unsigned count = 1,
                     const Resynchronisation* resync = nullptr) {
        auto out = CxResult::unreachable;
        hss.av_request({impi, impu, scscf, count, resync},
                       [&](CxResult r, std::vector<AuthVector> v) {
                           out = r;
                           got = std::move(v);
                       });
        return out;
    }
    CxResult put(std::string_view impi, std::string_view impu, ServerAssignment a) {
        auto out = CxResult::unreachable;
        hss.put({impi, impu, scscf, a}, [&](CxResult r) { out = r; });
        return out;
    }
    CxResult pull(std::string_view impi, std::string_view impu) {
        auto out = CxResult::unreachable;
        hss.pull(impi, impu, [&](CxResult r, const Profile& p) {
            out = r;
            profile = p;
        });
        return out;
    }

    SeededRandom random{1};
    LocalHss hss{random};
    UserStatus status;
    std::vector<AuthVector> got;
    Profile profile;
};

TEST_F(LocalHssTest, KnowsWhoIsWho) {
    EXPECT_EQ(hss.subscribers(), 101U);
    EXPECT_EQ(query(listed_impi, listed_impu), CxResult::success);
    EXPECT_TRUE(status.server_name.empty());
    EXPECT_EQ(query(generated_impi, generated_impu), CxResult::success);
    EXPECT_EQ(query(generated_impi, "tel:+001010000000007"), CxResult::success);
    EXPECT_EQ(query("bob@home.example", listed_impu), CxResult::user_unknown);
    EXPECT_EQ(query(listed_impi, "sip:bob@home.example"), CxResult::user_unknown);
    EXPECT_EQ(query(listed_impi, generated_impu), CxResult::identities_dont_match);
    EXPECT_EQ(query(generated_impi, "sip:001010000000008@ims.mnc001.mcc001.3gppnetwork.org"),
              CxResult::identities_dont_match);
    // One beyond the range, a digit too many, another domain.
    EXPECT_EQ(query("001010000000101@ims.mnc001.mcc001.3gppnetwork.org", generated_impu),
              CxResult::user_unknown);
    EXPECT_EQ(query("0001010000000007@ims.mnc001.mcc001.3gppnetwork.org", generated_impu),
              CxResult::user_unknown);
    EXPECT_EQ(query("001010000000007@elsewhere", generated_impu), CxResult::user_unknown);
    EXPECT_EQ(query("", generated_impu), CxResult::success);
    EXPECT_EQ(query("", ""), CxResult::user_unknown);
}

TEST_F(LocalHssTest, BarredMayNotRegister) {
    auto s = alice();
    s.impi = "mallory@home.example";
    s.impus = {"sip:mallory@home.example"};
    s.barred = true;
    ASSERT_TRUE(hss.add(std::move(s)));
    EXPECT_EQ(query("mallory@home.example", "sip:mallory@home.example"),
              CxResult::authorization_rejected);
    EXPECT_EQ(vectors("mallory@home.example", "sip:mallory@home.example"),
              CxResult::authorization_rejected);
    EXPECT_TRUE(got.empty());
}

TEST_F(LocalHssTest, VectorsCountUpAndVerify) {
    ASSERT_EQ(vectors(listed_impi, listed_impu, 3), CxResult::success);
    ASSERT_EQ(got.size(), 3U);
    Milenage usim;
    const auto s = alice();
    usim.set_key(s.k, s.opc);
    Sqn last = s.sqn;
    for (const auto& v : got) {
        const auto sqn = test::sqn_of(usim, v.rand, v.autn);
        EXPECT_EQ(sqn, *last.next());
        last = sqn;
        const auto mac = usim.f1(v.rand, sqn.octets(), s.amf).mac_a;
        EXPECT_EQ(to_hex(mac), to_hex(std::span(v.autn).subspan(8)));
        EXPECT_EQ(to_hex(std::span(v.autn).subspan(6, 2)), "8000");
        const auto keys = usim.f2345(v.rand);
        EXPECT_EQ(v.xres, keys.res);
        EXPECT_EQ(v.ck, keys.ck);
        EXPECT_EQ(v.ik, keys.ik);
    }
    EXPECT_NE(got[0].rand, got[1].rand);
    EXPECT_EQ(hss.view(listed_impi)->sqn, last);
    EXPECT_EQ(vectors(listed_impi, listed_impu, 1000), CxResult::success);
    EXPECT_EQ(got.size(), 5U);  // never more, whatever is asked
}

TEST_F(LocalHssTest, GeneratedVectorsUseTheDerivedKeys) {
    ASSERT_EQ(vectors(generated_impi, generated_impu), CxResult::success);
    const auto rule = SubscriberRule::parse("100", seed, realm);
    Milenage usim;
    usim.set_key(rule->k(6), rule->opc(6));
    const auto& v = got.front();
    const auto sqn = test::sqn_of(usim, v.rand, v.autn);
    EXPECT_EQ(sqn.seq(), 1U);
    EXPECT_EQ(to_hex(usim.f1(v.rand, sqn.octets(), Amf{}).mac_a),
              to_hex(std::span(v.autn).subspan(8)));
}

TEST_F(LocalHssTest, ResynchronisationTakesTheUsimsNumber) {
    ASSERT_EQ(vectors(listed_impi, listed_impu), CxResult::success);
    Milenage usim;
    const auto s = alice();
    usim.set_key(s.k, s.opc);
    const Sqn sqn_ms(100'000);
    const Resynchronisation r{got[0].rand, test::make_auts(usim, got[0].rand, sqn_ms)};
    ASSERT_EQ(vectors(listed_impi, listed_impu, 1, &r), CxResult::success);
    EXPECT_EQ(test::sqn_of(usim, got[0].rand, got[0].autn), *sqn_ms.next());
}

TEST_F(LocalHssTest, ResynchronisationKeepsANumberThatIsAheadAlready) {
    auto ahead = alice();
    ahead.impi = "b@home.example";
    ahead.impus = {"sip:b@home.example"};
    ahead.sqn = Sqn(200'000);
    ASSERT_TRUE(hss.add(std::move(ahead)));
    ASSERT_EQ(vectors("b@home.example", ""), CxResult::success);
    Milenage usim;
    const auto s = alice();
    usim.set_key(s.k, s.opc);
    const Resynchronisation r{got[0].rand, test::make_auts(usim, got[0].rand, Sqn(100'000))};
    const auto before = hss.view("b@home.example")->sqn;
    ASSERT_EQ(vectors("b@home.example", "", 1, &r), CxResult::success);
    EXPECT_EQ(hss.view("b@home.example")->sqn, *before.next());
}

TEST_F(LocalHssTest, ResynchronisationBringsBackANumberTooFarAhead) {
    // TS 33.102 C.2.1: a USIM refuses a jump of 2^28; only its own number ends that.
    auto far = alice();
    far.impi = "c@home.example";
    far.impus = {"sip:c@home.example"};
    far.sqn = Sqn((1ULL << 30U) << Sqn::ind_bits);
    ASSERT_TRUE(hss.add(std::move(far)));
    ASSERT_EQ(vectors("c@home.example", ""), CxResult::success);
    Milenage usim;
    const auto s = alice();
    usim.set_key(s.k, s.opc);
    const Sqn sqn_ms(5U << Sqn::ind_bits);
    const Resynchronisation r{got[0].rand, test::make_auts(usim, got[0].rand, sqn_ms)};
    ASSERT_EQ(vectors("c@home.example", "", 1, &r), CxResult::success);
    EXPECT_EQ(hss.view("c@home.example")->sqn, *sqn_ms.next());
}

TEST_F(LocalHssTest, ForgedAutsChangesNothing) {
    ASSERT_EQ(vectors(listed_impi, listed_impu), CxResult::success);
    const auto before = hss.view(listed_impi)->sqn;
    Milenage usim;
    const auto s = alice();
    usim.set_key(s.k, s.opc);
    auto auts = test::make_auts(usim, got[0].rand, Sqn(100'000));
    auts[13] = static_cast<std::uint8_t>(auts[13] ^ 1U);
    const Resynchronisation r{got[0].rand, auts};
    EXPECT_EQ(vectors(listed_impi, listed_impu, 1, &r), CxResult::synchronisation_failed);
    EXPECT_TRUE(got.empty());
    EXPECT_EQ(hss.view(listed_impi)->sqn, before);
}

TEST_F(LocalHssTest, UsedUpSqnIsAnErrorNotAWrap) {
    auto s = alice();
    s.impi = "d@home.example";
    s.impus = {"sip:d@home.example"};
    s.sqn = Sqn(Sqn::max);
    ASSERT_TRUE(hss.add(std::move(s)));
    EXPECT_EQ(vectors("d@home.example", ""), CxResult::unable_to_comply);
}

TEST_F(LocalHssTest, FlagsAndServerName) {
    using Flag = LocalHss::Flag;
    const auto flag = [&] { return hss.view(generated_impi)->flag; };
    EXPECT_EQ(flag(), Flag::not_registered);
    ASSERT_EQ(vectors(generated_impi, generated_impu), CxResult::success);
    EXPECT_EQ(flag(), Flag::authentication_pending);
    EXPECT_EQ(hss.view(generated_impi)->server_name, scscf);

    EXPECT_EQ(put(generated_impi, generated_impu, ServerAssignment::re_registration),
              CxResult::identity_not_registered);
    EXPECT_EQ(put(generated_impi, generated_impu, ServerAssignment::registration),
              CxResult::success);
    EXPECT_EQ(flag(), Flag::registered);
    ASSERT_EQ(query(generated_impi, generated_impu), CxResult::success);
    EXPECT_TRUE(status.registered);
    EXPECT_EQ(status.server_name, scscf);
    // Another challenge leaves a registered user registered.
    ASSERT_EQ(vectors(generated_impi, generated_impu), CxResult::success);
    EXPECT_EQ(flag(), Flag::registered);
    EXPECT_EQ(put(generated_impi, generated_impu, ServerAssignment::re_registration),
              CxResult::success);

    for (const auto ending :
         {ServerAssignment::user_deregistration, ServerAssignment::timeout_deregistration,
          ServerAssignment::administrative_deregistration, ServerAssignment::authentication_failure,
          ServerAssignment::authentication_timeout}) {
        ASSERT_EQ(put(generated_impi, generated_impu, ServerAssignment::registration),
                  CxResult::success);
        ASSERT_EQ(put(generated_impi, generated_impu, ending), CxResult::success);
        EXPECT_EQ(flag(), Flag::not_registered) << name(ending);
        EXPECT_TRUE(hss.view(generated_impi)->server_name.empty()) << name(ending);
    }
    EXPECT_EQ(put("x@y", "sip:x@y", ServerAssignment::registration), CxResult::user_unknown);
}

TEST_F(LocalHssTest, PullGivesTheImplicitSet) {
    ASSERT_EQ(pull(listed_impi, listed_impu), CxResult::success);
    EXPECT_EQ(profile.implicit_set, (std::vector<std::string>{listed_impu, "tel:+4930123"}));
    ASSERT_EQ(pull("", "tel:+001010000000007"), CxResult::success);
    EXPECT_EQ(profile.implicit_set,
              (std::vector<std::string>{generated_impu, "tel:+001010000000007"}));
    EXPECT_EQ(pull("", "sip:nobody@home.example"), CxResult::user_unknown);
}

TEST_F(LocalHssTest, AnIdentityBelongsToOneSubscriber) {
    auto again = hss.add(alice());
    ASSERT_FALSE(again);
    EXPECT_NE(again.error().text.find(listed_impi), std::string::npos);
    auto s = alice();
    s.impi = "other@home.example";
    auto impu = hss.add(std::move(s));
    ASSERT_FALSE(impu);
    EXPECT_NE(impu.error().text.find(listed_impu), std::string::npos);
    EXPECT_FALSE(hss.view("other@home.example"));
    auto in_range = alice();
    in_range.impi = generated_impi;
    in_range.impus = {"sip:z@home.example"};
    EXPECT_FALSE(hss.add(std::move(in_range)));
    EXPECT_FALSE(hss.add(*SubscriberRule::parse("10:900000000000000", seed, realm)));

    LocalHss other(random);
    auto listed = alice();
    listed.impus = {generated_impu};
    ASSERT_TRUE(other.add(std::move(listed)));
    const auto clash = other.add(*SubscriberRule::parse("100", seed, realm));
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().text.find(generated_impu), std::string::npos);
}

TEST_F(LocalHssTest, CxLogCountsAndPassesOn) {
    CxLog cx(hss, log::Level::debug);
    unsigned answers = 0;
    cx.query(listed_impi, listed_impu,
             [&](CxResult r, const UserStatus&) { answers += r == CxResult::success; });
    cx.query("nobody", "",
             [&](CxResult r, const UserStatus&) { answers += r == CxResult::user_unknown; });
    cx.av_request({listed_impi, listed_impu, scscf, 2, nullptr},
                  [&](CxResult, std::vector<AuthVector> v) { answers += v.size() == 2; });
    cx.put({listed_impi, listed_impu, scscf, ServerAssignment::authentication_timeout},
           [&](CxResult) { ++answers; });
    cx.pull("", listed_impu,
            [&](CxResult, const Profile& p) { answers += p.implicit_set.size() == 2; });
    EXPECT_EQ(answers, 5U);
    const auto& c = cx.counters();
    const auto at = [](const auto& a, auto e) { return a[static_cast<std::size_t>(e)]; };
    EXPECT_EQ(at(c.query, CxResult::success), 1U);
    EXPECT_EQ(at(c.query, CxResult::user_unknown), 1U);
    EXPECT_EQ(at(c.av_request, CxResult::success), 1U);
    EXPECT_EQ(at(c.put, CxResult::success), 1U);
    EXPECT_EQ(at(c.put_by_assignment, ServerAssignment::authentication_timeout), 1U);
    EXPECT_EQ(at(c.put_by_assignment, ServerAssignment::registration), 0U);
    EXPECT_EQ(at(c.pull, CxResult::success), 1U);
    EXPECT_EQ(c.resynchronisations, 0U);
}

// C9: the pair CM1, CM2 marks the user, CM3, CM4 clear what it marked.
TEST_F(LocalHssTest, C9_CxLogTellsTheFlagBeforeAndAfter) {
    CxLog cx(hss, log::Level::debug);
    cx.av_request({listed_impi, listed_impu, scscf, 1, nullptr}, [](auto, const auto&) {});
    EXPECT_TRUE(cx.lines().empty());  // not asked to remember

    cx.remember();
    cx.look_with([this](std::string_view impi) {
        const auto held = hss.view(impi);
        if (!held) return std::string("unknown");
        return std::string(LocalHss::name(held->flag)) +
               (held->server_name.empty() ? "" : " at " + held->server_name);
    });
    cx.put({listed_impi, listed_impu, scscf, ServerAssignment::authentication_timeout},
           [](CxResult) {});
    cx.av_request({listed_impi, listed_impu, scscf, 1, nullptr}, [](auto, const auto&) {});
    cx.put({listed_impi, listed_impu, scscf, ServerAssignment::registration}, [](CxResult) {});
    ASSERT_EQ(cx.lines().size(), 3U);
    const auto told = [&](std::size_t i) {
        const std::string& text = cx.lines()[i].text;
        return text.substr(text.find("Cx "));  // behind the wall clock
    };
    EXPECT_EQ(told(0),
              "Cx Put impi=alice@home.example impu=sip:alice@home.example AUTHENTICATION_TIMEOUT → "
              "ok [CM3 Put \"clear S-CSCF name\", CM4 Put-Resp]; flag authentication_pending at "
              "sip:scscf.example → not_registered");
    EXPECT_EQ(told(1),
              "Cx Av-Req impi=alice@home.example impu=sip:alice@home.example → ok, vectors: 1 "
              "[CM1 Av-Req, CM2 Av-Req-Resp]; flag not_registered → authentication_pending at "
              "sip:scscf.example");
    EXPECT_EQ(told(2),
              "Cx Put impi=alice@home.example impu=sip:alice@home.example REGISTRATION → ok "
              "[CM3 Put, CM4 Put-Resp]; flag authentication_pending at sip:scscf.example → "
              "registered at sip:scscf.example");
}

TEST_F(LocalHssTest, CxLinesAreBoundedAndHostileNamesStayOnOneLine) {
    CxLog cx(hss, log::Level::debug);
    cx.remember();
    for (std::size_t i = 0; i < CxLog::remembered + 5; ++i)
        cx.query("nobody", "", [](CxResult, const UserStatus&) {});
    EXPECT_EQ(cx.lines().size(), CxLog::remembered);
    const std::string evil = "e\n\x1b[31m\xff \\";
    cx.query(evil, "", [](CxResult, const UserStatus&) {});
    EXPECT_EQ(cx.lines().back().impi,
              "e\\x0a\\x1b[31m\\xff\\x20\\x5c");  // as it is read, it is found
    EXPECT_NE(cx.lines().back().text.find("impi=e\\x0a\\x1b[31m\\xff\\x20\\x5c impu= "),
              std::string::npos)
        << cx.lines().back().text;
    const std::string endless(60'000, 'x');
    cx.query(endless, endless, [](CxResult, const UserStatus&) {});
    EXPECT_EQ(cx.lines().back().impi, std::string(256, 'x') + "…");
    EXPECT_LT(cx.lines().back().text.size(), 700U);
}

}  // namespace
}  // namespace gmgate::home
