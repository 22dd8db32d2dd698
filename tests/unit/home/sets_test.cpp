// Several implicit registration sets of one private identity: each registers, is told of, is
// re-authenticated and ends by itself (SPEC F1, TS 23.228 5.2.1a).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "control/sip/reginfo.h"
#include "tests/unit/home/server_support.h"

namespace gmgate::home {
namespace {

using sip::HeaderId;
using test::Phone;
using test::Reply;
using test::ServerTest;
using namespace std::chrono_literals;

constexpr auto path = "<sip:token@192.0.2.1:5081;lr>";
const std::string work = "sip:work@ims.example", desk = "tel:+4930123";
const std::string home = "sip:home@ims.example", garden = "sip:garden@ims.example";

struct Sets : ServerTest {
    static Subscriber subscriber(std::vector<std::string> impus, std::vector<std::size_t> further) {
        const auto rule = SubscriberRule::parse("100:001010000000001", test::seed, test::realm);
        Subscriber s;
        s.impi = "two@ims.example";
        s.impus = std::move(impus);
        s.further_sets = std::move(further);
        s.k = rule->k(60);
        s.opc = rule->opc(60);
        return s;
    }
    Sets() {
        p.impi = "two@ims.example";
        EXPECT_TRUE(hss.add(subscriber({work, desk, home, garden}, {2})));
        p.impu = work;
        enroll(p, path);
        // enroll() sends each REGISTER with the Call-ID and branch of its own.
        p.impu = home;
        enroll(p, path);
    }
    // It registers that identity's set anew, by a challenge; what else is sent stays.
    void authenticate(const std::string& impu) {
        p.impu = impu;
        auto r = p.initial();
        r.branch += p.impi;
        r.call_id = p.impi;
        transport.sent.clear();
        deliver(r.text());
        ASSERT_EQ(transport.sent.size(), 1U);
        const Reply challenge(transport.sent.front().bytes);
        ASSERT_EQ(challenge.status(), 401);
        transport.sent.clear();
        auto answer = p.answer(challenge);
        answer.path = path;
        answer.branch += p.impi;
        answer.call_id = p.impi;
        deliver(answer.text());
        ASSERT_FALSE(transport.sent.empty());
        EXPECT_EQ(Reply(transport.sent.front().bytes).status(), 200);
    }
    void reload(std::vector<std::string> impus, std::vector<std::size_t> further) {
        std::vector<Subscriber> list;
        list.push_back(subscriber(std::move(impus), std::move(further)));
        ASSERT_TRUE(hss.reload(std::move(list), server->from_hss()));
    }
    LocalHss::Flag flag(const std::string& impu) { return hss.view(p.impi, impu)->flag; }
    // An unprotected REGISTER of that identity: its challenge.
    std::unique_ptr<Reply> challenge(const std::string& impu) {
        p.impu = impu;
        auto r = p.initial();
        r.branch += p.impi + impu.substr(4, 1);
        transport.sent.clear();
        deliver(r.text());
        auto out = sent();
        EXPECT_EQ(out->status(), 401);
        return out;
    }
    // A subscription of the phone, whose first NOTIFY is answered.
    void subscribe(sip::RegProfile profile) {
        deliver(request("SUBSCRIBE", work,
                        fmt::format("Event: {}\r\nExpires: 600\r\nP-Asserted-Identity: "
                                    "<{}>\r\nContact: <{}>\r\n",
                                    sip::event_package(profile), work, p.contact_uri)));
        (void)info(profile);
    }
    // The one NOTIFY there is, answered.
    sip::RegInfo info(sip::RegProfile profile) {
        sip::RegInfo out;
        std::string bytes;
        unsigned notifies = 0;
        for (const auto& s : transport.sent) {
            if (!s.bytes.starts_with("NOTIFY")) continue;
            ++notifies;
            bytes = s.bytes;
        }
        transport.sent.clear();
        EXPECT_EQ(notifies, 1U);
        if (notifies == 0) return out;
        const Reply notify(bytes);
        state = notify.header(HeaderId::subscription_state);
        body = notify.message.body();
        const auto parsed = sip::parse_reginfo(profile, body);
        EXPECT_TRUE(parsed) << body;
        if (parsed) out = *parsed;
        deliver(response_to(notify, 200));
        transport.sent.clear();
        return out;
    }
    static const sip::RegEntry* entry(const sip::RegInfo& info, const std::string& aor) {
        const auto found = std::ranges::find(info.entries, aor, &sip::RegEntry::aor);
        return found == info.entries.end() ? nullptr : &*found;
    }
    Phone p{60};
    std::string body, state;
};

struct BothForms : Sets, testing::WithParamInterface<sip::RegProfile> {};
INSTANTIATE_TEST_SUITE_P(, BothForms,
                         testing::Values(sip::RegProfile::rfc3680, sip::RegProfile::seed),
                         [](const auto& form) { return std::string(sip::name(form.param)); });

TEST_P(BothForms, F1_TheBodyTellsWhoCoversWhomAndTheStateOfTheOtherSet) {
    const auto profile = GetParam();
    subscribe(profile);
    ASSERT_TRUE(server->reauthenticate({home}));
    const auto told = info(profile);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    ASSERT_TRUE(entry(told, work) && entry(told, desk) && entry(told, home) && entry(told, garden));
    EXPECT_TRUE(entry(told, home)->reauthenticate);
    EXPECT_EQ(entry(told, home)->covered_by, "");
    EXPECT_TRUE(entry(told, garden)->reauthenticate);
    EXPECT_EQ(entry(told, garden)->covered_by, home) << "automatically by";
    for (const auto& other : {work, desk}) {
        EXPECT_FALSE(entry(told, other)->reauthenticate) << other;
        EXPECT_EQ(entry(told, other)->covered_by, "") << other;
        EXPECT_EQ(entry(told, other)->state, sip::RegState::active) << other;
    }
    EXPECT_FALSE(registrar->find(work)->shortened);
    EXPECT_TRUE(registrar->find(garden)->shortened);
}

TEST_F(Sets, F1_OfBothSetsInOneNotify) {
    subscribe(sip::RegProfile::rfc3680);
    ASSERT_TRUE(server->reauthenticate({desk, home}));
    auto told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    EXPECT_EQ(entry(told, desk)->covered_by, "");
    EXPECT_EQ(entry(told, work)->covered_by, desk);
    EXPECT_EQ(entry(told, home)->covered_by, "");
    EXPECT_EQ(entry(told, garden)->covered_by, home);
    // One set obeys: the other one is still awaited, and is told so.
    authenticate(work);
    EXPECT_EQ(server->reauthentication().under_way(), 1U);
    told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    EXPECT_FALSE(entry(told, work)->reauthenticate);
    EXPECT_TRUE(entry(told, home)->reauthenticate);
    EXPECT_EQ(entry(told, garden)->covered_by, home);
    // It never does: it is deregistered, and the first one is not.
    advance(400s);
    EXPECT_NE(registrar->find(work), nullptr);
    EXPECT_EQ(registrar->find(home), nullptr);
    EXPECT_EQ(server->reauthentication().counters().deregistered, 1U);
}

TEST_F(Sets, EachRegistersAndEndsByItself) {
    EXPECT_EQ(registrar->registered(), 1U) << "one private identity";
    EXPECT_EQ(*registrar->find(desk)->impus, (std::vector<std::string>{work, desk}));
    EXPECT_EQ(*registrar->find(garden)->impus, (std::vector<std::string>{home, garden}));
    subscribe(sip::RegProfile::rfc3680);
    ASSERT_TRUE(registrar->deregister(garden));
    const auto told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    EXPECT_EQ(entry(told, home)->state, sip::RegState::terminated);
    EXPECT_EQ(entry(told, work)->state, sip::RegState::active);
    EXPECT_THAT(state, testing::StartsWith("active")) << "the subscription goes on";
    EXPECT_EQ(registrar->find(home), nullptr);
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(hss.view(p.impi)->flag, LocalHss::Flag::registered);
    ASSERT_TRUE(registrar->deregister(work));
    (void)info(sip::RegProfile::rfc3680);
    EXPECT_THAT(state, testing::StartsWith("terminated"));
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(hss.view(p.impi)->flag, LocalHss::Flag::not_registered);
    EXPECT_EQ(hss.view(p.impi)->server_name, "");
}

TEST_F(Sets, C9_AFailureOfOneLeavesTheOther) {
    ASSERT_TRUE(registrar->deregister(home));
    p.impu = home;
    auto r = p.initial();
    r.branch += "fails";
    deliver(r.text());
    const auto challenge = sent();
    auto wrong = p.answer(*challenge, true);
    wrong.branch += "fails";
    deliver(wrong.text());
    EXPECT_EQ(sent()->status(), 403);
    EXPECT_NE(registrar->find(work), nullptr);
    EXPECT_EQ(flag(work), LocalHss::Flag::registered);
    EXPECT_EQ(flag(home), LocalHss::Flag::not_registered);
    EXPECT_NE(hss.view(p.impi)->server_name, "");
}

TEST_F(Sets, C9_C10_AChallengeVoidedByAnotherSetLeavesNothingPending) {
    ASSERT_TRUE(registrar->deregister(home));
    ASSERT_TRUE(registrar->deregister(work));
    (void)challenge(work);
    EXPECT_EQ(flag(work), LocalHss::Flag::authentication_pending);
    const auto second = challenge(home);
    EXPECT_EQ(flag(work), LocalHss::Flag::not_registered);
    EXPECT_EQ(flag(home), LocalHss::Flag::authentication_pending);
    advance(241s);
    EXPECT_EQ(flag(home), LocalHss::Flag::not_registered);
    EXPECT_EQ(hss.view(p.impi)->server_name, "");
    // Withdrawn while it is challenged.
    (void)challenge(work);
    registrar->withdraw(p.impi);
    EXPECT_EQ(flag(work), LocalHss::Flag::not_registered);
    EXPECT_EQ(hss.view(p.impi)->server_name, "");
}

TEST_F(Sets, C9_AChallengeOfOneSetVoidsNothingThatIsRegistered) {
    ASSERT_TRUE(registrar->deregister(home));
    (void)challenge(work);  // it registers anew
    const auto other = challenge(home);
    EXPECT_EQ(flag(work), LocalHss::Flag::registered);
    EXPECT_EQ(flag(home), LocalHss::Flag::authentication_pending);
    auto answer = p.answer(*other);
    answer.branch += "right";
    deliver(answer.text());
    EXPECT_EQ(flag(work), LocalHss::Flag::registered);
    EXPECT_EQ(flag(home), LocalHss::Flag::registered);
}

TEST_F(Sets, AnEndThatWaitsIsToldThoughMoreHasChangedSince) {
    subscribe(sip::RegProfile::rfc3680);
    ASSERT_TRUE(registrar->shorten({work}, 300s));
    const Reply first(transport.sent.back().bytes);  // not answered yet
    ASSERT_TRUE(first.message.is_method("NOTIFY"));
    ASSERT_TRUE(registrar->deregister(home));
    ASSERT_TRUE(registrar->shorten({work}, 200s));
    transport.sent.clear();
    deliver(response_to(first, 200));
    const auto told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    EXPECT_EQ(entry(told, home)->state, sip::RegState::terminated);
    EXPECT_EQ(entry(told, garden)->state, sip::RegState::terminated);
    EXPECT_EQ(entry(told, work)->state, sip::RegState::active);
}

TEST_F(Sets, AReloadKeepsTheStateOfEachSetWhereverItStands) {
    ASSERT_TRUE(registrar->deregister(home));
    reload({home, garden, work, desk}, {2});
    EXPECT_EQ(flag(work), LocalHss::Flag::registered);
    EXPECT_EQ(flag(home), LocalHss::Flag::not_registered);
    p.impu = home;
    enroll(p, path);
    reload({work, desk}, {});
    EXPECT_EQ(registrar->find(home), nullptr);
    ASSERT_TRUE(registrar->deregister(work));
    EXPECT_EQ(hss.view(p.impi)->flag, LocalHss::Flag::not_registered) << "nothing stays behind";
    EXPECT_EQ(hss.view(p.impi)->server_name, "");
    reload({work, desk, home}, {2});
    EXPECT_EQ(flag(home), LocalHss::Flag::not_registered);
}

TEST_F(Sets, SetsThatBecomeOneAreOne) {
    subscribe(sip::RegProfile::rfc3680);
    reload({work, desk, home, garden}, {});
    const auto told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    for (const auto& e : told.entries) EXPECT_EQ(e.state, sip::RegState::active) << e.aor;
    EXPECT_EQ(registrar->default_identities(p.impi), std::vector<std::string>{work});
    EXPECT_EQ(registrar->find(garden)->default_impu, work);
    EXPECT_EQ(hss.view(p.impi)->flag, LocalHss::Flag::registered);
    ASSERT_TRUE(registrar->deregister(garden));
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(registrar->find(home), nullptr);
}

TEST_F(Sets, AnIdentityThatMovesIsNeverToldAsGone) {
    subscribe(sip::RegProfile::rfc3680);
    reload({work, garden, home, desk}, {2});
    const auto told = info(sip::RegProfile::rfc3680);
    ASSERT_EQ(told.entries.size(), 4U) << body;
    for (const auto& e : told.entries) EXPECT_EQ(e.state, sip::RegState::active) << e.aor;
    reload({work, desk, garden}, {});  // the other set ends, of which desk had been
    EXPECT_EQ(registrar->find(desk)->default_impu, work);
    EXPECT_EQ(registrar->find(home), nullptr);
}

// ---- asked for by set (F1, F3) ----

constexpr auto other_path = "<sip:other@192.0.2.77:5083;lr>";

TEST_F(Sets, F3_TheReferGoesToTheSetThatIsAwaited) {
    enroll(p, other_path);  // home, by another P-CSCF
    ASSERT_TRUE(server->reauthenticate({garden}));
    auto refer = sent();
    ASSERT_TRUE(refer->message.is_method("REFER"));
    EXPECT_EQ(refer->header(HeaderId::route), other_path);
    EXPECT_EQ(refer->header(HeaderId::to), "<" + home + ">");
    // The other set is asked for as well while that is under way.
    ASSERT_TRUE(server->reauthenticate({work, home}));
    refer = sent();
    ASSERT_TRUE(refer->message.is_method("REFER"));
    EXPECT_EQ(refer->header(HeaderId::route), path);
    EXPECT_EQ(refer->header(HeaderId::to), "<" + work + ">");
    EXPECT_TRUE(registrar->find(work)->shortened);
    const auto again = server->reauthenticate({work, home});
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().kind, ErrorKind::conflict);
}

TEST_F(Sets, F3_ASetThatRegistersHoldsTheOtherUpOnceOnly) {
    subscribe(sip::RegProfile::rfc3680);
    ASSERT_TRUE(server->reauthenticate({work, home}));
    (void)info(sip::RegProfile::rfc3680);
    advance(50s);
    (void)challenge(home);  // and never answers it
    advance(60s);
    EXPECT_EQ(server->reauthentication().counters().refers, 0U);
    transport.sent.clear();
    advance(15s);
    EXPECT_EQ(server->reauthentication().counters().refers, 1U);
    ASSERT_FALSE(transport.sent.empty());
    EXPECT_EQ(Reply(transport.sent.front().bytes).header(HeaderId::to), "<" + work + ">");
}

TEST_F(Sets, ThePcscfOfEachSetMaySubscribe) {
    enroll(p, other_path);
    for (const auto& [name, status] :
         {std::pair("sip:192.0.2.77:5083", 200), std::pair("sip:192.0.2.1:5081", 200),
          std::pair("sip:192.0.2.78:5083", 403)}) {
        transport.sent.clear();
        deliver(request("SUBSCRIBE", work,
                        fmt::format("Event: reg\r\nExpires: 600\r\nP-Asserted-Identity: "
                                    "<{}>\r\nContact: <{}>\r\n",
                                    name, name)));
        ASSERT_FALSE(transport.sent.empty());
        EXPECT_EQ(Reply(transport.sent.front().bytes).status(), status) << name;
    }
}

}  // namespace
}  // namespace gmgate::home
