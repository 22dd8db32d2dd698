// Phones against a scripted P-CSCF, in virtual time.
#include "ue/phone.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/ue/scripted_pcscf.h"
#include "ue/agent.h"

namespace gmgate::ue {
namespace {

using test::Lab;

std::string tally(const Tally& t) {
    std::string out;
    for (const auto& [text, n] : t.counts()) out += fmt::format("{} ({}); ", text, n);
    return out;
}

LoadOptions one() {
    return {};
}

TEST(Phone, RegistersTalksReregistersAndLeaves) {
    for (const bool tcp : {false, true}) {
        for (const bool v6 : {false, true}) {
            Lab lab;
            lab.context.messages = 2;
            LoadOptions o = one();
            o.tcp_share = tcp ? 1 : 0;
            o.ipv6_share = v6 ? 1 : 0;
            o.reregister_once = true;
            lab.start(o);
            ASSERT_TRUE(lab.finish());
            const auto& s = lab.statistics;
            EXPECT_TRUE(lab.load().good()) << tally(s.failures);
            EXPECT_EQ(s.registered, 1U);
            EXPECT_EQ(s.reregistrations, 1U);
            EXPECT_EQ(s.deregistered, 1U);
            EXPECT_EQ(s.messages_sent, 2U);
            EXPECT_EQ(s.messages_answered, 2U);
            EXPECT_EQ(s.violations.total(), 0U) << tally(s.violations);
            EXPECT_EQ(s.retransmissions, 0U);
            EXPECT_EQ(lab.pcscf.forged + lab.pcscf.replayed, 0U);
            EXPECT_EQ(lab.pcscf.users.begin()->second.registrations, 3U);
            EXPECT_FALSE(lab.pcscf.users.begin()->second.registered);
            EXPECT_EQ(tcp ? s.tcp : s.udp, 1U);
            EXPECT_EQ(v6 ? s.ipv6 : s.ipv4, 1U);
        }
    }
}

TEST(Phone, EverySuiteAndStyle) {
    for (const Style style : all_styles) {
        Lab lab;
        LoadOptions o = one();
        o.phones = 32;
        o.one_suite_each = true;
        o.styles = {style};
        o.tcp_share = 0.5;
        o.ipv6_share = 0.5;
        lab.start(o);
        ASSERT_TRUE(lab.finish()) << name(style);
        EXPECT_TRUE(lab.load().good()) << name(style) << ": " << tally(lab.statistics.failures);
        EXPECT_EQ(lab.statistics.violations.total(), 0U) << tally(lab.statistics.violations);
        for (std::size_t i = 0; i < sa::all_suites.size(); ++i)
            EXPECT_EQ(lab.statistics.suites[i], 4U) << sa::to_string(sa::all_suites[i]);
        EXPECT_EQ(lab.statistics.tcp, 16U);
        EXPECT_EQ(lab.statistics.ipv6, 16U);
    }
}

// N1: ESP in UDP, if the P-CSCF finds a NAT.
TEST(Phone, BehindANat) {
    for (const Style style : all_styles) {
        for (const bool tcp : {false, true}) {
            Lab lab;
            lab.pcscf.script.nat = true;
            lab.context.nat = true;
            lab.context.messages = 2;
            LoadOptions o = one();
            o.styles = {style};
            o.tcp_share = tcp ? 1 : 0;
            o.reregister_once = true;
            lab.start(o);
            ASSERT_TRUE(lab.finish());
            const auto& s = lab.statistics;
            EXPECT_TRUE(lab.load().good()) << name(style) << tally(s.failures);
            EXPECT_EQ(s.reregistrations, 1U);
            EXPECT_EQ(s.messages_answered, 2U);
            EXPECT_EQ(s.violations.total(), 0U) << tally(s.violations);
            EXPECT_EQ(lab.pcscf.forged + lab.pcscf.replayed + lab.pcscf.unknown, 0U);
        }
    }
}

TEST(Phone, KeepsANatsMappingOpen) {
    for (const bool nat : {false, true}) {
        Lab lab;
        lab.pcscf.script.nat = nat;
        lab.context.nat = true;
        LoadOptions o = one();
        o.hold = std::chrono::seconds(65);
        lab.start(o);
        ASSERT_TRUE(lab.finish(std::chrono::seconds(200)));
        EXPECT_TRUE(lab.load().good()) << tally(lab.statistics.failures);
        EXPECT_EQ(lab.pcscf.keepalives, nat ? 3U : 0U) << "one in twenty seconds";
    }
}

TEST(Phone, SurvivesLoss) {
    for (const unsigned every : {3U, 4U, 5U, 7U}) {
        Lab lab;
        lab.pcscf.script.drop_every = every;
        lab.context.messages = 2;
        LoadOptions o = one();
        o.phones = 8;
        o.tcp_share = 0.5;
        // SM1 over TCP is the kernel's: its line in the lab loses nothing.
        lab.start(o);
        ASSERT_TRUE(lab.finish(std::chrono::seconds(900)));
        EXPECT_EQ(lab.statistics.registered, 8U) << tally(lab.statistics.failures);
        EXPECT_GT(lab.statistics.retransmissions, 0U);
    }
}

TEST(Phone, NobodyAnswers) {
    Lab lab;
    lab.pcscf.script.silent = true;
    lab.start(one());
    ASSERT_TRUE(lab.finish());
    EXPECT_FALSE(lab.load().good());
    EXPECT_EQ(lab.statistics.failed, 1U);
    EXPECT_EQ(tally(lab.statistics.failures), "no answer to SM1 (1); ");
    // RFC 3261 17.1.2.2: T1 doubling to T2, within 64·T1: at 0, .5, 1.5, 3.5, 7.5, 11.5, … 31.5 s.
    EXPECT_EQ(lab.pcscf.requests.size(), 11U);
}

TEST(Phone, AnswersTheNetworkOverUdpAndTcp) {
    for (const bool tcp : {false, true}) {
        for (const bool back : {false, true}) {
            Lab lab;
            lab.pcscf.script.rport_to_client_port = back;
            LoadOptions o = one();
            o.hold = Duration(-1);
            lab.start(o);
            lab.run(std::chrono::seconds(1));
            ASSERT_EQ(lab.statistics.registered, 1U);
            const auto ue = lab.load().phone(0).plan().address;
            const auto& n = lab.load().phone(0).current_set()->numbers;
            const std::string text = fmt::format(
                "OPTIONS sip:u@{0}:{1} SIP/2.0\r\nVia: SIP/2.0/{2} "
                "10.21.0.1:{3};branch=z9hG4bK1{4}\r\nMax-Forwards: 70\r\n"
                "From: <sip:n@x>;tag=1\r\nTo: <sip:u@x>\r\nCall-ID: q\r\nCSeq: 1 "
                "OPTIONS\r\nContent-Length: 0\r\n\r\n",
                ue.to_string(), n.port_us, tcp ? "TCP" : "UDP", n.port_ps, back ? ";rport" : "");
            lab.pcscf.send_request(ue, text, tcp);
            lab.run(std::chrono::seconds(1));
            ASSERT_EQ(lab.pcscf.responses.size(), 1U);
            EXPECT_NE(lab.pcscf.responses[0].find("SIP/2.0 200"), std::string::npos);
            EXPECT_EQ(lab.statistics.network_requests, 1U);
            lab.load().interrupt();
            EXPECT_TRUE(lab.finish());
            EXPECT_EQ(lab.statistics.deregistered, 1U);
        }
    }
}

TEST(Phone, AnswersLargeRequestsAndManyOnOneConnection) {
    Lab lab;
    LoadOptions o = one();
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::seconds(1));
    const auto ue = lab.load().phone(0).plan().address;
    std::string stream;
    for (int i = 0; i < 20; ++i) {
        const std::string body(4000, 'b');
        stream += fmt::format(
            "MESSAGE sip:u SIP/2.0\r\nVia: SIP/2.0/TCP "
            "10.21.0.1:6100;branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n"
            "From: <sip:n@x>;tag=1\r\nTo: <sip:u@x>\r\nCall-ID: q\r\nCSeq: {} "
            "MESSAGE\r\nContent-Type: text/plain\r\n"
            "Content-Length: {}\r\n\r\n{}",
            i, i + 1, body.size(), body);
    }
    lab.pcscf.send_request(ue, stream, true);
    lab.run(std::chrono::seconds(2));
    EXPECT_EQ(lab.pcscf.responses.size(), 20U);
}

TEST(Phone, PeriodicReregistration) {
    Lab lab;
    lab.context.reregister = std::chrono::seconds(10);
    LoadOptions o = one();
    o.hold = std::chrono::seconds(65);
    lab.start(o);
    ASSERT_TRUE(lab.finish());
    EXPECT_EQ(lab.statistics.reregistrations, 6U);
    EXPECT_EQ(lab.statistics.violations.total(), 0U) << tally(lab.statistics.violations);
    EXPECT_TRUE(lab.load().good());
}

// F3: asked to register, during a REGISTER that began before, and shortly before one.
TEST(Phone, ObeysReauthenticationWhateverItIsDoing) {
    for (const bool during : {true, false}) {
        Lab lab;
        LoadOptions o = one();
        o.hold = Duration(-1);
        lab.start(o);
        lab.run(std::chrono::seconds(1));
        ASSERT_EQ(lab.statistics.registered, 1U);
        Phone& phone = lab.load().phone(0);
        const auto ue = phone.plan().address;
        const auto& n = phone.current_set()->numbers;
        const std::string refer = fmt::format(
            "REFER sip:u@{0}:{1} SIP/2.0\r\nVia: SIP/2.0/UDP 10.21.0.1:{2};branch=z9hG4bK1\r\n"
            "Max-Forwards: 70\r\nFrom: <sip:n@x>;tag=1\r\nTo: <sip:u@x>\r\nCall-ID: q\r\n"
            "CSeq: 1 REFER\r\nRefer-To: <sip:ims.example;method=REGISTER>\r\n"
            "Content-Length: 0\r\n\r\n",
            ue.to_string(), n.port_us, n.port_ps);
        if (during) phone.reregister();
        lab.pcscf.send_request(ue, refer, false);
        if (!during) {
            lab.run(std::chrono::milliseconds(100));
            phone.reregister();
        }
        lab.run(std::chrono::seconds(10));
        ASSERT_EQ(lab.pcscf.responses.size(), 1U);
        EXPECT_NE(lab.pcscf.responses[0].find("SIP/2.0 202"), std::string::npos);
        EXPECT_EQ(lab.statistics.reregistrations, during ? 2U : 1U);
    }
}

// What is said of a registration is said of no later one.
TEST(Phone, ANewRegistrationOutlivesTheEndOfTheOneBefore) {
    Lab lab;
    LoadOptions o = one();
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::seconds(1));
    ASSERT_EQ(lab.statistics.registered, 1U);
    Phone& phone = lab.load().phone(0);
    phone.reregister();
    RegistrationNews news;
    news.gone = true;
    phone.agent().host().registration_news(news);
    lab.run(std::chrono::seconds(10));
    EXPECT_EQ(lab.statistics.reregistrations, 1U);
    EXPECT_EQ(lab.statistics.ended_by_network, 0U);
    EXPECT_TRUE(phone.registered());
}

// It waits for an answer to deregister when the network says that it is deregistered already: the
// SAs are the network's to remove, and it does not come back.
TEST(Phone, WhoIsLeavingWhenTheNetworkEndsItsRegistrationIsGone) {
    Lab lab;
    lab.context.messages = 1;
    lab.context.message_interval = std::chrono::seconds(5);
    LoadOptions o = one();
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::seconds(1));
    ASSERT_EQ(lab.statistics.registered, 1U);
    lab.pcscf.script.silent = true;
    lab.run(std::chrono::seconds(5));
    ASSERT_EQ(lab.statistics.messages_sent, 1U);
    Phone& phone = lab.load().phone(0);
    phone.deregister();
    RegistrationNews news;
    news.gone = news.may_return = true;
    phone.agent().host().registration_news(news);
    lab.pcscf.script.silent = false;
    const auto registers = [&] {
        return std::ranges::count_if(lab.pcscf.requests,
                                     [](const auto& r) { return r.starts_with("REGISTER"); });
    };
    const auto before = registers();
    lab.run(std::chrono::seconds(60));
    EXPECT_EQ(lab.statistics.messages_answered, 1U);
    EXPECT_EQ(lab.statistics.ended_by_network, 1U);
    EXPECT_EQ(registers(), before);
    EXPECT_EQ(lab.statistics.deregistered, 0U);
}

TEST(Phone, DeregistrationWithoutChallenge) {
    Lab lab;
    lab.pcscf.script.challenge_deregistration = false;
    lab.start(one());
    ASSERT_TRUE(lab.finish());
    EXPECT_EQ(lab.statistics.deregistered, 1U);
    EXPECT_EQ(lab.statistics.unchallenged, 1U);
    EXPECT_TRUE(lab.load().good());
}

TEST(Phone, AFailedReregistrationLeavesItRegistered) {
    Lab lab;
    LoadOptions o = one();
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::seconds(1));
    const SaSet* before = lab.load().phone(0).current_set();
    lab.pcscf.script.silent = true;
    lab.load().phone(0).reregister();
    lab.run(std::chrono::seconds(40));
    EXPECT_TRUE(lab.load().phone(0).registered());
    EXPECT_EQ(lab.load().phone(0).current_set(), before);
    EXPECT_EQ(lab.statistics.reregistrations_failed, 1U);
    lab.pcscf.script.silent = false;
    lab.load().phone(0).reregister();
    lab.run(std::chrono::seconds(1));
    EXPECT_EQ(lab.statistics.reregistrations, 1U);
}

// Each with the right P-CSCF.
class Misbehaves : public ::testing::TestWithParam<Misbehaviour> {};

TEST_P(Misbehaves, ARightNetworkGivesTheExpectedOutcome) {
    for (const bool tcp : {false, true}) {
        for (const Style style : {Style::plain, Style::google}) {
            Lab lab;
            LoadOptions o = one();
            o.tcp_share = tcp ? 1 : 0;
            o.styles = {style};
            o.misbehave = {{GetParam(), 1, 0}};
            lab.start(o);
            ASSERT_TRUE(lab.finish());
            const auto& r = lab.statistics.misbehaved[static_cast<std::size_t>(GetParam())];
            EXPECT_EQ(r.phones, 1U);
            EXPECT_EQ(r.as_expected, 1U) << tally(r.seen);
            EXPECT_TRUE(lab.load().good());
            EXPECT_EQ(lab.statistics.failed, 0U);
            EXPECT_EQ(lab.statistics.violations.total(), 0U) << tally(lab.statistics.violations);
        }
    }
}
INSTANTIATE_TEST_SUITE_P(All, Misbehaves, ::testing::ValuesIn([] {
                             std::vector<Misbehaviour> v;
                             for (const auto& m : misbehaviours()) {
                                 if (m.kind != Misbehaviour::none) v.push_back(m.kind);
                             }
                             return v;
                         }()),
                         [](const auto& p) {
                             std::string n(gmgate::ue::info(p.param).name);
                             std::ranges::replace(n, '-', '_');
                             return n;
                         });

TEST(Misbehaviours, WrongIkNeverReachesSip) {
    for (const auto suite : sa::all_suites) {
        Lab lab;
        LoadOptions o = one();
        o.suites = {suite};
        o.misbehave = {{Misbehaviour::wrong_ik, 1, 0}};
        lab.start(o);
        ASSERT_TRUE(lab.finish());
        EXPECT_EQ(lab.pcscf.requests.size(), 1U) << "SM1 only";
        EXPECT_GT(lab.pcscf.forged, 0U) << sa::to_string(suite);
    }
}

// The same, and a network that does what it must not: the phones notice.
struct Wrong {
    Misbehaviour kind;
    void (*break_it)(test::ScriptedPcscf::Script&);
};
TEST(Misbehaviours, AWrongNetworkIsFoundOut) {
    using Script = test::ScriptedPcscf::Script;
    for (const Wrong& w :
         {Wrong{Misbehaviour::replay, [](Script& s) { s.accept_replays = true; }},
          Wrong{Misbehaviour::forged_esp, [](Script& s) { s.answer_forged = true; }},
          Wrong{Misbehaviour::clear_on_protected,
                [](Script& s) { s.accept_clear_on_protected = true; }},
          Wrong{Misbehaviour::wrong_res, [](Script& s) { s.refuse_sm7 = 500; }},
          Wrong{Misbehaviour::silent_after_sm6, [](Script& s) { s.silent = true; }}}) {
        Lab lab;
        LoadOptions o = one();
        o.misbehave = {{w.kind, 1, 0}};
        w.break_it(lab.pcscf.script);
        lab.start(o);
        ASSERT_TRUE(lab.finish());
        const auto& r = lab.statistics.misbehaved[static_cast<std::size_t>(w.kind)];
        EXPECT_EQ(r.phones, 1U) << info(w.kind).name;
        EXPECT_EQ(r.as_expected, 0U) << info(w.kind).name << ": " << tally(r.seen);
        EXPECT_FALSE(lab.load().good());
    }
}

TEST(Rules, BreachesAreSeen) {
    using Script = test::ScriptedPcscf::Script;
    const auto violations = [](void (*break_it)(Script&)) {
        Lab lab;
        break_it(lab.pcscf.script);
        LoadOptions o = one();
        o.reregister_once = true;
        lab.start(o);
        EXPECT_TRUE(lab.finish());
        return tally(lab.statistics.violations);
    };
    EXPECT_NE(violations([](Script& s) { s.leak_keys = true; }).find("B2"), std::string::npos);
    EXPECT_NE(violations([](Script& s) { s.answer_clear = true; }).find("came in clear"),
              std::string::npos);
    EXPECT_NE(
        violations([](Script& s) { s.accept_without_aka = true; }).find("without a challenge"),
        std::string::npos);
    EXPECT_NE(violations([](Script& s) { s.change_port_ps = true; }).find("A5: port_ps"),
              std::string::npos);
    EXPECT_NE(violations([](Script& s) { s.keep_port_pc = true; }).find("A5: port_pc"),
              std::string::npos);
    EXPECT_EQ(violations([](Script&) {}), "");
}

TEST(Phone, RefusesWhatItCannotUse) {
    using Script = test::ScriptedPcscf::Script;
    const auto failure = [](void (*break_it)(Script&)) {
        Lab lab;
        break_it(lab.pcscf.script);
        lab.start(one());
        EXPECT_TRUE(lab.finish());
        EXPECT_EQ(lab.statistics.failed, 1U);
        return tally(lab.statistics.failures);
    };
    EXPECT_NE(failure([](Script& s) { s.algorithm = "MD5"; }).find("AKAv1-MD5"), std::string::npos);
    EXPECT_NE(failure([](Script& s) { s.security_server = "digest"; }).find("C7"),
              std::string::npos);
    EXPECT_NE(failure([](Script& s) {
                  s.security_server = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=99999999999";
              }).find("spi-c"),
              std::string::npos);
    EXPECT_NE(failure([](Script& s) { s.refuse_sm7 = 503; }).find("503"), std::string::npos);
}

// TS 33.203 7.3.1.4: no reply to SM7, so it starts again; in clear if it never succeeded.
TEST(Phone, BeginsAgainWhenSm7IsNotAnswered) {
    for (const bool tcp : {false, true}) {
        Lab lab;
        lab.pcscf.script.lose_sm7 = 1;
        LoadOptions o = one();
        o.tcp_share = tcp ? 1 : 0;
        o.hold = Duration(-1);
        lab.start(o);
        lab.run(std::chrono::seconds(60));
        EXPECT_EQ(lab.statistics.registered, 1U) << tally(lab.statistics.failures);
        EXPECT_EQ(lab.statistics.restarts, 1U);
        EXPECT_EQ(std::ranges::count(lab.pcscf.request_spis, 0U), 2) << "SM1 twice, both in clear";

        // Once registered: under the SAs of the earlier success, which stay.
        const Spi old = lab.load().phone(0).current_set()->numbers.spi_ps;
        lab.pcscf.script.lose_sm7 = 1;
        lab.pcscf.request_spis.clear();
        lab.load().phone(0).reregister();
        lab.run(std::chrono::seconds(60));
        EXPECT_EQ(lab.statistics.reregistrations, 1U) << tally(lab.statistics.failures);
        EXPECT_EQ(lab.statistics.restarts, 2U);
        EXPECT_EQ(std::ranges::count(lab.pcscf.request_spis, 0U), 0) << "nothing in clear";
        EXPECT_EQ(std::ranges::count(lab.pcscf.request_spis, old), 2)
            << "SM1 twice, on the old SAs";
        EXPECT_EQ(lab.statistics.violations.total(), 0U) << tally(lab.statistics.violations);
    }
}

TEST(Phone, GivesUpBeginningAgain) {
    Lab lab;
    lab.pcscf.script.lose_sm7 = 100;
    lab.start(one());
    ASSERT_TRUE(lab.finish());
    EXPECT_EQ(lab.statistics.restarts, lab.context.restarts);
    EXPECT_EQ(tally(lab.statistics.failures), "no answer to SM7 (1); ");
}

// What gmue --console does, line by line.
struct Told final : ScriptObserver {
    std::vector<StepResult> steps;
    std::vector<std::pair<int, std::uint32_t>> parked;
    std::vector<std::pair<std::string, std::uint32_t>> requests;
    void step_done(const StepResult& r) override { steps.push_back(r); }
    void parked_answer(int status, std::uint32_t set) override { parked.emplace_back(status, set); }
    void request_came(std::string_view method, std::uint32_t set, bool) override {
        requests.emplace_back(method, set);
    }
};

TEST(Script, OneStepAtATime) {
    for (const bool tcp : {false, true}) {
        Lab lab;
        LoadOptions o = one();
        o.phones = 2;  // the second one is the script's
        o.tcp_share = tcp ? 1 : 0;
        o.max_in_flight = 1;
        o.hold = Duration(-1);
        lab.start(o);
        Told told;
        Phone& p = lab.load().phone(1);
        p.follow_script(told);
        const auto settle = [&] { lab.run(std::chrono::seconds(40)); };
        const auto last = [&] {
            EXPECT_FALSE(told.steps.empty());
            return told.steps.empty() ? StepResult{} : told.steps.back();
        };
        settle();
        ASSERT_EQ(last().outcome, "registered");
        const std::uint32_t first = p.current_set()->serial;

        p.scripted_register({.misbehaviour = Misbehaviour::wrong_res});
        settle();
        EXPECT_EQ(last().outcome, "refused");
        EXPECT_EQ(last().status, 403);
        EXPECT_EQ(last().set, first) << "D6: on the old set";
        EXPECT_EQ(p.current_set()->serial, first);
        std::string states;
        p.each_set([&](const SaSet& s, std::string_view state) {
            states += fmt::format("{} {}; ", s.serial - first, state);
        });
        EXPECT_EQ(states, "1 gone; 0 current; ") << "the new SAs are deleted, the old ones not";

        ASSERT_TRUE(p.scripted_request(0, "OPTIONS", {}, false));
        settle();
        EXPECT_EQ(last().outcome, "answered");

        p.scripted_register({.hold = true});
        settle();
        EXPECT_EQ(last().outcome, "challenged");
        EXPECT_EQ(p.current_set()->serial, first);
        ASSERT_TRUE(p.answer_challenge());
        EXPECT_FALSE(p.answer_challenge());
        settle();
        EXPECT_EQ(last().outcome, "registered");
        EXPECT_EQ(p.current_set()->serial, first + 2);

        // Both sets carry requests; the answer comes as the request went.
        for (const std::uint32_t serial : {first, first + 2}) {
            ASSERT_TRUE(p.scripted_request(serial, "MESSAGE", {}, true));
            settle();
            ASSERT_FALSE(told.parked.empty());
            EXPECT_EQ(told.parked.back(), (std::pair{200, serial}));
        }
        EXPECT_FALSE(p.scripted_request(first + 1, "OPTIONS", {}, false)) << "it is gone";
        EXPECT_TRUE(p.probe(first + 1, 1, false));
        EXPECT_FALSE(p.probe(first + 7, 1, false));
        const auto forged = lab.pcscf.forged;
        EXPECT_TRUE(p.probe(first + 2, 3, true));
        settle();
        EXPECT_EQ(lab.pcscf.forged, forged + 3);

        p.scripted_register({.in_clear = true, .hold = true});
        settle();
        lab.pcscf.script.lose_sm7 = 1;
        ASSERT_TRUE(p.answer_challenge());
        lab.run(std::chrono::seconds(70));
        EXPECT_EQ(last().outcome, "registered");
        EXPECT_EQ(last().restarts, 1U);

        p.scripted_deregister();
        settle();
        EXPECT_EQ(last().outcome, "deregistered");
        EXPECT_EQ(p.current_set(), nullptr);
        p.scripted_register({});
        settle();
        EXPECT_EQ(last().outcome, "registered");
        EXPECT_EQ(lab.statistics.violations.total(), 0U) << tally(lab.statistics.violations);
    }
}

// Answers without qop, with auth-int only: the digest still agrees.
TEST(Phone, EveryQop) {
    for (const char* qop : {"", "auth", "auth-int", "auth,auth-int"}) {
        for (const Style style : {Style::plain, Style::samsung}) {
            Lab lab;
            lab.pcscf.script.qop = qop;
            LoadOptions o = one();
            o.styles = {style};
            lab.start(o);
            ASSERT_TRUE(lab.finish());
            EXPECT_EQ(lab.statistics.registered, 1U) << qop;
        }
    }
}

TEST(Phone, GarbageFromTheNetworkDoesNothing) {
    Lab lab;
    LoadOptions o = one();
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::seconds(1));
    Phone& p = lab.load().phone(0);
    SeededRandom r(4);
    for (int i = 0; i < 3000; ++i) {
        Bytes b(r.below(200));
        r.fill(b);
        if (b.size() >= 8 && i % 3 == 0) store_be32(b.data(), p.current_set()->numbers.spi_uc);
        p.receive_esp(lab.pcscf.v4.address, b);
        p.receive_udp(lab.pcscf.v4, as_text(b));
    }
    EXPECT_EQ(lab.statistics.esp_received, 1U) << "SM12, and nothing since";
    p.send_request("OPTIONS");
    lab.run(std::chrono::seconds(1));
    EXPECT_EQ(lab.statistics.messages_answered, 1U);
}

}  // namespace
}  // namespace gmgate::ue
