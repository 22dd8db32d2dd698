#include "home/registrar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "home/cx_log.h"
#include "tests/support/held_hss.h"
#include "tests/unit/home/phone_support.h"

namespace gmgate::home {
namespace {

using sip::HeaderId;
using test::Phone;
using test::Register;
using test::Reply;
using testing::HasSubstr;
using testing::Not;
using Flag = LocalHss::Flag;
using namespace std::chrono_literals;

struct RegistrarTest : testing::Test {
    static RegistrarConfig default_config() {
        RegistrarConfig c;
        c.realm = test::realm;
        c.server_name = "sip:scscf.ims.example";
        c.service_route = {"sip:orig@192.0.2.9:5060;lr"};
        return c;
    }
    explicit RegistrarTest(RegistrarConfig config = default_config())
        : registrar(std::make_unique<Registrar>(std::move(config), cx, wheel, random)) {
        EXPECT_TRUE(
            local.add(*SubscriberRule::parse("100:001010000000001", test::seed, test::realm)));
    }
    void configure(RegistrarConfig config) {
        registrar = std::make_unique<Registrar>(std::move(config), cx, wheel, random);
    }

    // The answer, or null if there is none yet.
    std::unique_ptr<Reply> send(const Register& r) { return send(r.text()); }
    std::unique_ptr<Reply> send(const std::string& text) {
        auto slot = std::make_shared<std::unique_ptr<Reply>>();
        registrar->receive(text, [slot, answers = 0](int status, std::string_view bytes) mutable {
            EXPECT_EQ(++answers, 1);
            *slot = std::make_unique<Reply>(bytes);
            EXPECT_EQ((*slot)->status(), status);
        });
        last = slot;
        return std::move(*slot);
    }
    void advance(Duration by) {
        clock.advance(by);
        wheel.advance();
    }
    // SM1…SM10; the 200.
    std::unique_ptr<Reply> register_fully(Phone& p) {
        const auto challenge = send(p.initial());
        EXPECT_EQ(challenge->status(), 401);
        auto done = send(p.answer(*challenge));
        EXPECT_EQ(done->status(), 200) << done->bytes;
        return done;
    }
    std::uint64_t puts(ServerAssignment a) const {
        return cx.counters().put_by_assignment[static_cast<std::size_t>(a)];
    }
    Flag flag(const Phone& p) const { return local.view(p.impi)->flag; }
    const RegistrarCounters& counters() const { return registrar->counters(); }

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{7};
    LocalHss local{random};
    gmgate::test::HeldHss hss{local};
    CxLog cx{hss, log::Level::debug};
    std::unique_ptr<Registrar> registrar;
    std::shared_ptr<std::unique_ptr<Reply>> last;
    Phone phone;
};

// ---- the good case
// -----------------------------------------------------------------------------------------------------

TEST_F(RegistrarTest, ChallengeCarriesNonceAndKeysForThePcscf) {
    const auto reply = send(phone.initial());
    ASSERT_EQ(reply->status(), 401);
    phone.read(*reply);
    const auto keys = phone.usim.f2345(phone.rand);
    EXPECT_EQ(phone.ck, to_hex(keys.ck.reveal()));
    EXPECT_EQ(phone.ik, to_hex(keys.ik.reveal()));
    const auto c = sip::parse_digest_challenge(*reply->message.value(HeaderId::www_authenticate));
    EXPECT_EQ(c->realm, test::realm);
    EXPECT_EQ(c->algorithm, "AKAv1-MD5");
    EXPECT_EQ(c->qop, "auth");
    // The whole Via stack, in order, and a To tag.
    EXPECT_EQ(reply->message.count(HeaderId::via), 2U);
    EXPECT_THAT(reply->header(HeaderId::via), HasSubstr("192.0.2.1:5070"));
    EXPECT_FALSE(sip::to(reply->message)->tag().empty());
    EXPECT_EQ(flag(phone), Flag::authentication_pending);
    EXPECT_EQ(registrar->challenges_outstanding(), 1U);
    EXPECT_EQ(registrar->registered(), 0U);
}

TEST_F(RegistrarTest, RightResponseRegisters) {
    const auto reply = register_fully(phone);
    EXPECT_EQ(reply->header(HeaderId::contact),
              "<" + phone.contact_uri + ">;+sip.instance=\"<urn:gsma:imei:1>\";expires=3600");
    EXPECT_EQ(reply->header(HeaderId::service_route), "<sip:orig@192.0.2.9:5060;lr>");
    EXPECT_EQ(reply->header(HeaderId::p_associated_uri),
              "<" + phone.impu + ">, <" + phone.tel + ">");
    EXPECT_EQ(reply->header(HeaderId::path), "<sip:token@192.0.2.1:5070;lr>");
    EXPECT_FALSE(reply->message.has(HeaderId::p_charging_function_addresses));
    EXPECT_THAT(reply->bytes, Not(HasSubstr("ck=")));
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_EQ(local.view(phone.impi)->server_name, "sip:scscf.ims.example");
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    EXPECT_EQ(counters().registrations, 1U);
    for (const auto& impu :
         {phone.impu, phone.tel, std::string("SIP:001010000000001@IMS.example;user=phone")}) {
        const auto* b = registrar->find(impu);
        ASSERT_NE(b, nullptr) << impu;
        EXPECT_EQ(b->impi, phone.impi);
        EXPECT_EQ(b->contact, phone.contact_uri);
        EXPECT_EQ(b->path, "<sip:token@192.0.2.1:5070;lr>");
        EXPECT_EQ(b->default_impu, phone.impu);
        EXPECT_EQ(b->expires, clock.now() + 3600s);
    }
    EXPECT_EQ(registrar->find("sip:nobody@ims.example"), nullptr);
    EXPECT_EQ(registrar->find("garbage"), nullptr);
}

TEST_F(RegistrarTest, QopAbsentAndAuthIntAreTakenToo) {
    for (const auto* qop : {"", "auth-int"}) {
        Phone p(qop[0] == 0 ? 1 : 2);
        const auto challenge = send(p.initial());
        EXPECT_EQ(send(p.answer(*challenge, false, qop))->status(), 200) << qop;
    }
}

TEST_F(RegistrarTest, ChargingFunctionAndQopAreConfigurable) {
    auto config = default_config();
    config.charging_function = "ccf.example";
    config.qop = "";
    configure(config);
    const auto challenge = send(phone.initial());
    EXPECT_THAT(challenge->bytes, Not(HasSubstr("qop")));
    const auto done = send(phone.answer(*challenge, false, ""));
    EXPECT_EQ(done->header(HeaderId::p_charging_function_addresses), "ccf=ccf.example");
}

TEST_F(RegistrarTest, SourceGoesIntoTheTopVia) {
    std::string text;
    registrar->receive(
        phone.initial().text(), [&](int, std::string_view b) { text = b; },
        Endpoint::parse("198.51.100.7:4000"));
    EXPECT_THAT(text, HasSubstr("received=198.51.100.7"));
}

TEST_F(RegistrarTest, SubscriberOfAFileWithItsOwnServiceRoute) {
    Subscriber s;
    s.impi = "alice@ims.example";
    s.impus = {"sip:alice@ims.example"};
    s.k = test::key("465b5ce8b199b49faa5f0a2ee238a6bc");
    s.opc = test::key("cd63cb71954a9f4e48a5994e37a02baf");
    s.service_route = {"sip:a@192.0.2.8;lr", "sip:b@192.0.2.9;lr"};
    ASSERT_TRUE(local.add(std::move(s)));
    phone.impi = "alice@ims.example";
    phone.impu = "sip:alice@ims.example";
    phone.usim.set_key(test::key("465b5ce8b199b49faa5f0a2ee238a6bc"),
                       test::key("cd63cb71954a9f4e48a5994e37a02baf"));
    const auto done = register_fully(phone);
    EXPECT_EQ(done->header(HeaderId::service_route), "<sip:a@192.0.2.8;lr>, <sip:b@192.0.2.9;lr>");
    EXPECT_EQ(done->header(HeaderId::p_associated_uri), "<sip:alice@ims.example>");
}

TEST_F(RegistrarTest, ImpiIsDerivedWhereThereIsNoAuthorization) {
    auto r = phone.initial();
    r.impi.clear();
    EXPECT_EQ(send(r)->status(), 401);
    r.impu = phone.tel;
    EXPECT_EQ(send(r)->status(), 403);
}

// ---- identities
// --------------------------------------------------------------------------------------------------------

TEST_F(RegistrarTest, UnknownAndMismatchedIdentitiesGet403AndLeaveNothing) {
    auto r = phone.initial();
    r.impi = "stranger@ims.example";
    EXPECT_EQ(send(r)->status(), 403);
    r = phone.initial();
    r.impu = "sip:stranger@ims.example";
    EXPECT_EQ(send(r)->status(), 403);
    r = phone.initial();
    r.impu = Phone(1).impu;
    EXPECT_EQ(send(r)->status(), 403);
    EXPECT_EQ(counters().forbidden, 3U);
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    EXPECT_EQ(registrar->procedures(), 0U);
    EXPECT_EQ(wheel.size(), 0U);
    EXPECT_EQ(cx.counters().av_request[static_cast<std::size_t>(CxResult::success)], 0U);
}

// ---- error cases of 6.1.2 and 6.1.3
// --------------------------------------------------------------------------------------

TEST_F(RegistrarTest, C2_WrongResponseOfAnUnregisteredUser) {
    const auto challenge = send(phone.initial());
    const auto reply = send(phone.answer(*challenge, true));
    EXPECT_EQ(reply->status(), 403);
    EXPECT_FALSE(reply->message.has(HeaderId::www_authenticate));
    EXPECT_EQ(counters().user_failures, 1U);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 1U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_TRUE(local.view(phone.impi)->server_name.empty());
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(RegistrarTest, C2_C9_WrongResponseOfARegisteredUserLeavesItRegistered) {
    register_fully(phone);
    const auto challenge = send(phone.initial());
    ASSERT_EQ(challenge->status(), 401);
    EXPECT_EQ(send(phone.answer(*challenge, true))->status(), 403);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 0U);
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_NE(registrar->find(phone.impu), nullptr);
}

TEST_F(RegistrarTest, C2_TheChallengeIsSpentByAWrongResponse) {
    const auto challenge = send(phone.initial());
    const auto right = phone.answer(*challenge);
    EXPECT_EQ(send(phone.answer(*challenge, true))->status(), 403);
    EXPECT_EQ(send(right)->status(), 401);  // not 200: a fresh challenge
}

TEST_F(RegistrarTest, C3_NetworkAuthenticationFailure) {
    const auto challenge = send(phone.initial());
    const auto reply = send(phone.mac_failure(*challenge));
    EXPECT_EQ(reply->status(), 403);
    EXPECT_FALSE(reply->message.has(HeaderId::www_authenticate));
    EXPECT_THAT(reply->bytes, Not(HasSubstr("nonce")));
    EXPECT_EQ(counters().network_failures, 1U);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 1U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
}

TEST_F(RegistrarTest, C3_C9_OfARegisteredUserLeavesItRegistered) {
    register_fully(phone);
    const auto challenge = send(phone.initial());
    auto failure = phone.mac_failure(*challenge);
    failure.integrity = "yes";  // on the old SA
    EXPECT_EQ(send(failure)->status(), 403);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 0U);
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_EQ(registrar->registered(), 1U);
}

TEST_F(RegistrarTest, C3_OnlyForTheOutstandingChallenge) {
    const auto challenge = send(phone.initial());
    auto forged = phone.mac_failure(*challenge);
    forged.nonce = to_base64(Bytes(32, 1));
    EXPECT_EQ(send(forged)->status(), 401);
    EXPECT_EQ(counters().network_failures, 0U);
}

TEST_F(RegistrarTest, C4_SynchronisationFailureCompletesInTheSecondRound) {
    const auto challenge = send(phone.initial());
    const Sqn sqn_ms(1'000'000);
    const auto second = send(phone.sync_failure(*challenge, sqn_ms));
    ASSERT_EQ(second->status(), 401);
    const auto first_nonce = phone.nonce;
    const auto answer = phone.answer(*second);
    EXPECT_NE(phone.nonce, first_nonce);
    EXPECT_EQ(test::sqn_of(phone.usim, phone.rand, phone.autn), *sqn_ms.next());
    EXPECT_EQ(send(answer)->status(), 200);
    EXPECT_EQ(counters().synchronisation_failures, 1U);
    EXPECT_EQ(counters().resynchronisations, 1U);
    EXPECT_EQ(cx.counters().resynchronisations, 1U);
    EXPECT_EQ(counters().challenges_voided, 0U);
}

TEST_F(RegistrarTest, C4_ForgedAutsGets403AndClearsThePendingUser) {
    const auto challenge = send(phone.initial());
    auto forged = phone.sync_failure(*challenge, Sqn(1'000'000));
    forged.auts = to_base64(Bytes(14, 0x55));
    EXPECT_EQ(send(forged)->status(), 403);
    EXPECT_EQ(counters().resynchronisations, 0U);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 1U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(local.view(phone.impi)->sqn.seq(), 1U);
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
}

TEST_F(RegistrarTest, C4_AutsOfWrongLengthIs400) {
    for (const auto* bad : {"AAAA", "****", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"}) {
        const auto challenge = send(phone.initial());
        auto broken = phone.sync_failure(*challenge, Sqn(1));
        broken.auts = bad;
        EXPECT_EQ(send(broken)->status(), 400) << bad;
    }
}

TEST_F(RegistrarTest, C4_AutsWithoutItsChallengeIsAnOrdinaryFirstRegister) {
    const auto challenge = send(phone.initial());
    const auto late = phone.sync_failure(*challenge, Sqn(1'000'000));
    advance(241s);
    EXPECT_EQ(send(late)->status(), 401);
    EXPECT_EQ(counters().synchronisation_failures, 0U);
}

TEST_F(RegistrarTest, C5_C9_ChallengeTimesOut) {
    send(phone.initial());
    advance(239s);
    EXPECT_EQ(registrar->challenges_outstanding(), 1U);
    EXPECT_EQ(flag(phone), Flag::authentication_pending);
    advance(2s);
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    EXPECT_EQ(counters().authentication_timeouts, 1U);
    EXPECT_EQ(puts(ServerAssignment::authentication_timeout), 1U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(RegistrarTest, C5_C9_TimeoutOfARegisteredUserLeavesItRegistered) {
    register_fully(phone);
    const auto challenge = send(phone.initial());
    ASSERT_EQ(challenge->status(), 401);
    advance(241s);
    EXPECT_EQ(counters().authentication_timeouts, 1U);
    EXPECT_EQ(puts(ServerAssignment::authentication_timeout), 0U);
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_NE(registrar->find(phone.tel), nullptr);
    // The late answer finds no challenge; protected and registered, it is a plain re-REGISTER.
    EXPECT_EQ(send(phone.answer(*challenge))->status(), 200);
    EXPECT_EQ(counters().unchallenged, 1U);
}

TEST_F(RegistrarTest, C5_AnswerAfterTheTimeoutIsChallengedAgain) {
    const auto challenge = send(phone.initial());
    advance(241s);
    EXPECT_EQ(send(phone.answer(*challenge))->status(), 401);
    EXPECT_EQ(registrar->registered(), 0U);
}

TEST_F(RegistrarTest, C10_ANewRegisterVoidsTheEarlierChallenge) {
    const auto first = send(phone.initial());
    const auto answer_to_first = phone.answer(*first);
    const auto second = send(phone.initial());
    ASSERT_EQ(second->status(), 401);
    EXPECT_EQ(counters().challenges_voided, 1U);
    EXPECT_EQ(registrar->challenges_outstanding(), 1U);
    const auto third = send(answer_to_first);
    EXPECT_EQ(third->status(), 401);  // not 200, and not a failure either
    EXPECT_EQ(counters().user_failures, 0U);
    EXPECT_EQ(send(phone.answer(*third))->status(), 200);
}

TEST_F(RegistrarTest, AReplayedAnswerIsOfNoUse) {
    const auto challenge = send(phone.initial());
    const auto answer = phone.answer(*challenge);
    EXPECT_EQ(send(answer)->status(), 200);
    auto replay = answer;
    replay.integrity = "no";
    EXPECT_EQ(send(replay)->status(), 401);
    EXPECT_EQ(counters().registrations, 1U);
}

TEST_F(RegistrarTest, A11_AnAnswerThatIsNotProtectedIsChallengedAgain) {
    for (const auto* integrity : {"no", "", "maybe"}) {
        const auto challenge = send(phone.initial());
        auto answer = phone.answer(*challenge);
        answer.integrity = integrity;
        EXPECT_EQ(send(answer)->status(), 401) << integrity;
    }
    EXPECT_EQ(registrar->registered(), 0U);
    auto config = default_config();
    config.allow_unprotected = true;
    configure(config);
    const auto challenge = send(phone.initial());
    auto answer = phone.answer(*challenge);
    answer.integrity = "";
    EXPECT_EQ(send(answer)->status(), 200);
}

// ---- re-registration, deregistration, expiry
// -----------------------------------------------------------------------------

TEST_F(RegistrarTest, D3_ProtectedReregistrationWithoutAChallenge) {
    register_fully(phone);
    advance(1800s);
    auto again = phone.initial();
    again.integrity = "yes";
    again.expires = 7200;
    const auto reply = send(again);
    ASSERT_EQ(reply->status(), 200);
    EXPECT_THAT(reply->header(HeaderId::contact), HasSubstr(";expires=7200"));
    EXPECT_EQ(reply->header(HeaderId::service_route), "<sip:orig@192.0.2.9:5060;lr>");
    EXPECT_EQ(counters().unchallenged, 1U);
    EXPECT_EQ(registrar->find(phone.impu)->expires, clock.now() + 7200s);
}

TEST_F(RegistrarTest, D3_OutOfOrderCSeqIsRefused) {
    register_fully(phone);
    auto old = phone.initial();
    old.integrity = "yes";
    old.cseq = 1;
    EXPECT_EQ(send(old)->status(), 500);
    old.call_id = "another";
    EXPECT_EQ(send(old)->status(), 200);
}

TEST_F(RegistrarTest, UnprotectedReregistrationIsChallengedAndReplacesTheContact) {
    register_fully(phone);
    phone.contact_uri = "sip:001010000000001@10.9.9.9:5061";  // D5: another address
    const auto reply = register_fully(phone);
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(registrar->find(phone.impu)->contact, phone.contact_uri);
    EXPECT_EQ(counters().registrations, 1U);
    EXPECT_EQ(counters().reregistrations, 1U);
    EXPECT_EQ(puts(ServerAssignment::re_registration), 1U);
}

TEST_F(RegistrarTest, RechallengeRatio) {
    auto config = default_config();
    config.rechallenge = 1;
    configure(config);
    register_fully(phone);
    auto again = phone.initial();
    again.integrity = "yes";
    const auto challenge = send(again);
    ASSERT_EQ(challenge->status(), 401);
    EXPECT_EQ(send(phone.answer(*challenge))->status(), 200);

    config.rechallenge = 0.5;
    configure(config);
    register_fully(phone);
    unsigned challenged = 0;
    for (int i = 0; i < 200; ++i) {
        again = phone.initial();
        again.integrity = "yes";
        challenged += send(again)->status() == 401;
    }
    EXPECT_GT(challenged, 60U);
    EXPECT_LT(challenged, 140U);
}

TEST_F(RegistrarTest, RechallengeOfOneUserByTheOperator) {
    const std::string impu = phone.impu;
    EXPECT_FALSE(registrar->rechallenge(impu, true));
    for (const double share : {0.0, 1.0}) {
        auto config = default_config();
        config.rechallenge = share;
        configure(config);
        register_fully(phone);
        for (const bool always : {true, false, true}) {
            EXPECT_TRUE(registrar->rechallenge(impu, always));
            auto again = phone.initial();
            again.integrity = "yes";
            EXPECT_EQ(send(again)->status(), always ? 401 : 200);
        }
    }
}

TEST_F(RegistrarTest, DeregistrationByTheUser) {
    register_fully(phone);
    auto leave = phone.initial();
    leave.integrity = "yes";
    leave.expires = 0;
    const auto reply = send(leave);
    EXPECT_EQ(reply->status(), 200);
    EXPECT_FALSE(reply->message.has(HeaderId::contact));
    EXPECT_FALSE(reply->message.has(HeaderId::service_route));
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(registrar->find(phone.impu), nullptr);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(puts(ServerAssignment::user_deregistration), 1U);
    EXPECT_EQ(counters().deregistrations, 1U);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(RegistrarTest, DeregistrationOfAllContacts) {
    register_fully(phone);
    auto leave = phone.initial();
    leave.integrity = "yes";
    leave.contact = "*";
    leave.expires = 0;
    EXPECT_EQ(send(leave)->status(), 200);
    EXPECT_EQ(registrar->registered(), 0U);
}

TEST_F(RegistrarTest, UnprotectedDeregistrationIsChallengedFirst) {
    register_fully(phone);
    auto leave = phone.initial();
    leave.expires = 0;
    const auto challenge = send(leave);
    ASSERT_EQ(challenge->status(), 401);
    EXPECT_EQ(registrar->registered(), 1U);
    auto answer = phone.answer(*challenge);
    answer.expires = 0;
    EXPECT_EQ(send(answer)->status(), 200);
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
}

TEST_F(RegistrarTest, DeregistrationOfAnotherContactChangesNothing) {
    register_fully(phone);
    auto leave = phone.initial();
    leave.integrity = "yes";
    leave.contact = "<sip:001010000000001@10.7.7.7:1>;expires=0";
    const auto reply = send(leave);
    EXPECT_EQ(reply->status(), 200);
    EXPECT_THAT(reply->header(HeaderId::contact), HasSubstr(phone.contact_uri));
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(puts(ServerAssignment::user_deregistration), 0U);
}

TEST_F(RegistrarTest, RegistrationExpires) {
    register_fully(phone);
    advance(3599s);
    EXPECT_EQ(registrar->registered(), 1U);
    advance(2s);
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(registrar->find(phone.impu), nullptr);
    EXPECT_EQ(puts(ServerAssignment::timeout_deregistration), 1U);
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(counters().expired, 1U);
}

TEST_F(RegistrarTest, ExpiryDuringAChallengeKeepsTheChallenge) {
    auto r = phone.initial();
    r.expires = 100;
    const auto challenge = send(r);
    auto answer = phone.answer(*challenge);
    answer.expires = 100;
    ASSERT_EQ(send(answer)->status(), 200);
    ASSERT_TRUE(registrar->rechallenge(phone.impu, true));
    advance(50s);
    const auto again = send(phone.initial());
    advance(60s);
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(registrar->challenges_outstanding(), 1U);
    EXPECT_EQ(send(phone.answer(*again))->status(), 200);
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(flag(phone), Flag::registered);
    // What the operator said of the registration that ended went with it.
    auto renewal = phone.initial();
    renewal.integrity = "yes";
    EXPECT_EQ(send(renewal)->status(), 200);
}

TEST_F(RegistrarTest, AdministrativeDeregistration) {
    register_fully(phone);
    EXPECT_TRUE(registrar->deregister(phone.tel));
    EXPECT_FALSE(registrar->deregister(phone.tel));
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(puts(ServerAssignment::administrative_deregistration), 1U);
}

TEST_F(RegistrarTest, FetchOfTheBinding) {
    register_fully(phone);
    advance(600s);
    auto fetch = phone.initial();
    fetch.integrity = "yes";
    fetch.contact.clear();
    fetch.expires.reset();
    const auto reply = send(fetch);
    EXPECT_EQ(reply->status(), 200);
    EXPECT_EQ(reply->header(HeaderId::contact), "<" + phone.contact_uri + ">;expires=3000");
    fetch.integrity = "no";
    EXPECT_EQ(send(fetch)->status(), 400);
}

TEST_F(RegistrarTest, ExpiresIsBounded) {
    auto r = phone.initial();
    r.expires = 59;
    const auto brief = send(r);
    EXPECT_EQ(brief->status(), 423);
    EXPECT_EQ(brief->header(HeaderId::min_expires), "60");
    EXPECT_EQ(counters().interval_too_brief, 1U);
    // Contact's own parameter wins; beyond the maximum is cut; none at all is the default.
    auto challenge = send(phone.initial());
    r = phone.answer(*challenge);
    r.contact = "<" + phone.contact_uri + ">;expires=4000000000";
    EXPECT_THAT(send(r)->header(HeaderId::contact), HasSubstr(";expires=600000"));
    Phone other(3);
    challenge = send(other.initial());
    r = other.answer(*challenge);
    r.expires.reset();
    EXPECT_THAT(send(r)->header(HeaderId::contact), HasSubstr(";expires=600000"));
}

// ---- bad input
// -----------------------------------------------------------------------------------------------------------

TEST_F(RegistrarTest, BadRequestsAreAnsweredAndLeaveNothing) {
    const auto status = [&](auto change) {
        auto r = phone.initial();
        change(r);
        return send(r)->status();
    };
    EXPECT_EQ(status([](Register& r) { r.contact.clear(); }), 400);
    EXPECT_EQ(status([](Register& r) { r.contact = "*"; }), 400);
    EXPECT_EQ(status([](Register& r) { r.contact = "<sip:a@b>, <sip:c@d>"; }), 400);
    EXPECT_EQ(status([](Register& r) { r.contact = "<mailto:a@b>"; }), 400);
    EXPECT_EQ(status([](Register& r) { r.contact = "<sip:"; }), 400);
    EXPECT_EQ(status([](Register& r) { r.impu = "mailto:x@y"; }), 400);
    EXPECT_EQ(status([](Register& r) { r.extra = "Authorization: Basic abc\r\n", r.impi.clear(); }),
              400);
    EXPECT_EQ(status([](Register& r) { r.extra_auth = ",nonce=\"twice\""; }), 400);
    EXPECT_GE(counters().malformed, 7U);
    EXPECT_EQ(wheel.size(), 0U);
    EXPECT_EQ(registrar->procedures(), 0U);
}

TEST_F(RegistrarTest, B4_SecAgreeThatWasNotStrippedIs420) {
    auto r = phone.initial();
    r.extra = "Require: sec-agree, x-new\r\n";
    const auto reply = send(r);
    EXPECT_EQ(reply->status(), 420);
    EXPECT_EQ(reply->header(HeaderId::unsupported), "sec-agree, x-new");
}

TEST_F(RegistrarTest, GarbageIsDroppedWithoutAnAnswer) {
    const auto never = [](int, std::string_view) { FAIL(); };
    EXPECT_FALSE(registrar->receive("", never));
    EXPECT_FALSE(registrar->receive("hello\r\n\r\n", never));
    EXPECT_FALSE(registrar->receive("SIP/2.0 200 OK\r\n\r\n", never));
    EXPECT_FALSE(registrar->receive(
        "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\r\n", never));
    registrar->receive("REGISTER sip:ims.example SIP/2.0\r\nCall-ID: x\r\n\r\n",
                       never);  // no Via: nowhere to answer
    EXPECT_EQ(counters().dropped, 5U);
    EXPECT_EQ(registrar->procedures(), 0U);
}

TEST_F(RegistrarTest, EveryTruncationOfARegisterIsHarmless) {
    const auto challenge = send(phone.initial());
    const auto whole = phone.answer(*challenge).text();
    for (std::size_t n = 0; n < whole.size(); ++n) {
        registrar->receive(whole.substr(0, n),
                           [](int status, std::string_view) { EXPECT_GE(status, 400); });
    }
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(registrar->procedures(), 0U);
}

TEST_F(RegistrarTest, FoldedPathIsKeptAsOneLine) {
    auto r = phone.initial();
    const auto challenge = send(r);
    r = phone.answer(*challenge);
    r.path = "<sip:a@192.0.2.1;lr>,\r\n <sip:b@192.0.2.2;lr>\r\nPath: <sip:c@192.0.2.3;lr>";
    const auto reply = send(r);
    ASSERT_EQ(reply->status(), 200);
    const std::string_view path = registrar->find(phone.impu)->path;
    EXPECT_EQ(path.find_first_of("\r\n"), std::string_view::npos);
    EXPECT_THAT(
        std::string(path),
        testing::MatchesRegex("<sip:a@192.0.2.1;lr>, *<sip:b@192.0.2.2;lr>, <sip:c@192.0.2.3;lr>"));
}

// ---- limits and a slow HSS
// -------------------------------------------------------------------------------------------------

TEST_F(RegistrarTest, UserTableIsBounded) {
    auto config = default_config();
    config.max_users = 2;
    configure(config);
    Phone a(0), b(1), c(2);
    register_fully(a);
    ASSERT_EQ(send(b.initial())->status(), 401);
    const auto reply = send(c.initial());
    EXPECT_EQ(reply->status(), 503);
    EXPECT_EQ(reply->header(HeaderId::retry_after), "60");
    EXPECT_EQ(counters().overload, 1U);
    EXPECT_EQ(registrar->registered(), 1U);  // nobody was evicted
    advance(241s);
    EXPECT_EQ(send(c.initial())->status(), 401);
}

TEST_F(RegistrarTest, SlowHssIsAnsweredInItsOwnTime) {
    hss.hold = true;
    EXPECT_EQ(send(phone.initial()), nullptr);
    EXPECT_EQ(registrar->procedures(), 1U);
    auto slot = last;
    ASSERT_TRUE(hss.step());  // Cx-Query
    EXPECT_EQ(*slot, nullptr);
    advance(4s);
    ASSERT_TRUE(hss.step());  // Cx-AV-Req
    ASSERT_NE(*slot, nullptr);
    EXPECT_EQ((*slot)->status(), 401);
    const auto challenge = std::move(*slot);
    send(phone.answer(*challenge));
    slot = last;
    while (hss.step()) {
    }
    ASSERT_NE(*slot, nullptr);
    EXPECT_EQ((*slot)->status(), 200);
    EXPECT_EQ(registrar->procedures(), 0U);
}

TEST_F(RegistrarTest, C11_HssThatDoesNotAnswerIs504AndLateAnswersAreIgnored) {
    hss.hold = true;
    send(phone.initial());
    auto slot = last;
    advance(5001ms);
    ASSERT_NE(*slot, nullptr);
    EXPECT_EQ((*slot)->status(), 504);
    EXPECT_EQ(counters().hss_failures, 1U);
    EXPECT_EQ(registrar->procedures(), 0U);
    while (hss.step()) {
    }
    EXPECT_EQ(registrar->challenges_outstanding(), 0U);
    EXPECT_EQ(wheel.size(), 0U);

    // The same while the registration is being written: no half-registered user stays behind.
    hss.hold = false;
    const auto challenge = send(phone.initial());
    hss.hold = true;
    send(phone.answer(*challenge));
    slot = last;
    advance(6s);
    EXPECT_EQ((*slot)->status(), 504);
    EXPECT_EQ(registrar->registered(), 0U);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(RegistrarTest, C9_C11_NothingIsLeftPendingAtAnHssThatAnswersTooLate) {
    // Its vectors come after our time-out: it has marked the user, and nobody will answer.
    hss.hold = true;
    send(phone.initial());
    ASSERT_TRUE(hss.step());  // Cx-Query
    advance(5001ms);
    EXPECT_EQ((*last)->status(), 504);
    while (hss.step()) {
    }
    EXPECT_EQ(flag(phone), Flag::not_registered);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 1U);

    // Its registration comes after it: at the HSS there must be none either, at Put and at Pull.
    for (const bool at_pull : {false, true}) {
        hss.hold = false;
        const auto challenge = send(phone.initial());
        ASSERT_EQ(challenge->status(), 401);
        hss.hold = true;
        send(phone.answer(*challenge));
        const auto slot = last;
        if (at_pull) hss.step();
        advance(5001ms);
        EXPECT_EQ((*slot)->status(), 504);
        while (hss.step()) {
        }
        EXPECT_EQ(flag(phone), Flag::not_registered);
        EXPECT_EQ(registrar->registered(), 0U);
    }
    EXPECT_EQ(puts(ServerAssignment::administrative_deregistration), 2U);

    // A Query that had no answer marked nobody; and who is registered stays so.
    const auto failures = puts(ServerAssignment::authentication_failure);
    send(phone.initial());
    advance(5001ms);
    while (hss.step()) {
    }
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), failures);
    hss.hold = false;
    register_fully(phone);
    hss.hold = true;
    send(phone.initial());
    ASSERT_TRUE(hss.step());
    advance(5001ms);
    while (hss.step()) {
    }
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), failures);
}

TEST_F(RegistrarTest, C9_AnEarlierProcedureThatFailsDoesNotUndoALaterRegistration) {
    hss.hold = true;
    send(phone.initial());
    const auto first = last;
    ASSERT_TRUE(hss.step());  // its query; the vectors stay away
    hss.hold = false;
    const auto challenge = send(phone.initial());
    ASSERT_EQ(challenge->status(), 401);
    advance(4s);
    hss.hold = true;
    send(phone.answer(*challenge));
    const auto second = last;
    std::swap(hss.waiting[0], hss.waiting[1]);
    ASSERT_TRUE(hss.step());  // Put; Pull waits
    ASSERT_EQ(flag(phone), Flag::registered);
    advance(1001ms);
    EXPECT_EQ((*first)->status(), 504);
    while (hss.step()) {
    }
    ASSERT_NE(*second, nullptr);
    EXPECT_EQ((*second)->status(), 200);
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(flag(phone), Flag::registered);
    EXPECT_EQ(puts(ServerAssignment::authentication_failure), 0U);
}

TEST_F(RegistrarTest, C9_NorDoesAWrongAnswerWhileItIsBeingWritten) {
    const auto challenge = send(phone.initial());
    hss.hold = true;
    send(phone.answer(*challenge));
    const auto slot = last;
    ASSERT_TRUE(hss.step());  // Put; Pull waits
    hss.hold = false;
    const auto other = send(phone.initial());
    ASSERT_EQ(other->status(), 401);
    EXPECT_EQ(send(phone.answer(*other, true))->status(), 403);
    while (hss.step()) {
    }
    EXPECT_EQ((*slot)->status(), 200);
    EXPECT_EQ(registrar->registered(), 1U);
    EXPECT_EQ(flag(phone), Flag::registered);
}

// Which set an identity is of shows when the one that is being written has its profile.
TEST_F(RegistrarTest, C9_AWrongAnswerForAnotherIdentityCountsForItsOwnSet) {
    const std::string work = "sip:work@ims.example", desk = "sip:desk@ims.example";
    const std::string home = "sip:home@ims.example";
    const auto rule = SubscriberRule::parse("100:001010000000001", test::seed, test::realm);
    Subscriber s;
    s.impi = "two@ims.example";
    s.impus = {work, desk, home};
    s.further_sets = {2};
    s.k = rule->k(60);
    s.opc = rule->opc(60);
    ASSERT_TRUE(local.add(std::move(s)));
    Phone p{60};
    p.impi = "two@ims.example";
    for (const auto& other : {home, desk}) {
        p.impu = work;
        const auto challenge = send(p.initial());
        ASSERT_EQ(challenge->status(), 401);
        hss.hold = true;
        send(p.answer(*challenge));
        const auto slot = last;
        ASSERT_TRUE(hss.step());  // Put; Pull waits
        hss.hold = false;
        p.impu = other;
        const auto second = send(p.initial());
        ASSERT_EQ(second->status(), 401);
        EXPECT_EQ(send(p.answer(*second, true))->status(), 403);
        while (hss.step()) {
        }
        EXPECT_EQ((*slot)->status(), 200);
        EXPECT_EQ(local.view(p.impi, work)->flag, Flag::registered) << other;
        EXPECT_EQ(local.view(p.impi, home)->flag, Flag::not_registered) << other;
        ASSERT_TRUE(registrar->deregister(work));
        EXPECT_EQ(flag(p), Flag::not_registered);
    }
}

TEST_F(RegistrarTest, C9_NoRoomForTheUserLeavesNothingPending) {
    auto config = default_config();
    config.max_users = 1;
    configure(config);
    ASSERT_EQ(send(Phone(0).initial())->status(), 401);
    EXPECT_EQ(send(Phone(1).initial())->status(), 503);
    EXPECT_EQ(flag(Phone(1)), Flag::not_registered);
    EXPECT_EQ(flag(Phone(0)), Flag::authentication_pending);
}

TEST_F(RegistrarTest, C11_HssErrors) {
    hss.fail_vectors = CxResult::unreachable;
    EXPECT_EQ(send(phone.initial())->status(), 504);
    hss.fail_vectors = CxResult::unable_to_comply;
    EXPECT_EQ(send(phone.initial())->status(), 480);
    hss.fail_vectors = CxResult::success;  // success without a vector
    EXPECT_EQ(send(phone.initial())->status(), 480);
    hss.fail_vectors = CxResult::authorization_rejected;
    EXPECT_EQ(send(phone.initial())->status(), 403);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(RegistrarTest, C10_VectorsThatOvertakeEachOther) {
    hss.hold = true;
    send(phone.initial());
    const auto first = last;
    send(phone.initial());
    const auto second = last;
    ASSERT_TRUE(hss.step());  // query of the first
    ASSERT_TRUE(hss.step());  // query of the second
    std::swap(hss.waiting[0], hss.waiting[1]);
    ASSERT_TRUE(hss.step());  // vectors of the second
    ASSERT_TRUE(hss.step());  // and, late, of the first
    EXPECT_EQ((*second)->status(), 401);
    EXPECT_EQ((*first)->status(), 480);
    hss.hold = false;
    EXPECT_EQ(send(phone.answer(**second))->status(), 200);
}

TEST_F(RegistrarTest, ProcedureTableIsBounded) {
    auto config = default_config();
    config.max_procedures = 3;
    configure(config);
    hss.hold = true;
    std::vector<std::shared_ptr<std::unique_ptr<Reply>>> slots;
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(send(Phone(i).initial()), nullptr);
        slots.push_back(last);
    }
    const auto refused = send(Phone(3).initial());
    ASSERT_NE(refused, nullptr);
    EXPECT_EQ(refused->status(), 503);
    EXPECT_EQ(refused->header(HeaderId::retry_after), "5");
    while (hss.step()) {
    }
    for (const auto& s : slots) EXPECT_EQ((*s)->status(), 401);
    hss.hold = false;
    EXPECT_EQ(send(Phone(3).initial())->status(), 401);
}

TEST_F(RegistrarTest, TheNextRegisterMayComeFromInsideTheAnswer) {
    int final_status = 0;
    registrar->receive(phone.initial().text(), [&](int, std::string_view bytes) {
        const Reply challenge(bytes);
        registrar->receive(phone.answer(challenge).text(),
                           [&](int status, std::string_view) { final_status = status; });
    });
    EXPECT_EQ(final_status, 200);
    EXPECT_EQ(registrar->procedures(), 0U);
}

TEST_F(RegistrarTest, ManyUsersComeAndGo) {
    for (unsigned round = 0; round < 3; ++round) {
        std::vector<std::unique_ptr<Phone>> phones;
        for (unsigned i = 0; i < 100; ++i) {
            phones.push_back(std::make_unique<Phone>(i));
            phones.back()->cseq = round * 10;
            register_fully(*phones.back());
        }
        EXPECT_EQ(registrar->registered(), 100U);
        advance(3601s);
        EXPECT_EQ(registrar->registered(), 0U);
        EXPECT_EQ(wheel.size(), 0U);
    }
    EXPECT_EQ(counters().registrations, 300U);
    EXPECT_EQ(counters().expired, 300U);
}

}  // namespace
}  // namespace gmgate::home
