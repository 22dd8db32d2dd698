// Calls between phones that gmhome routes, the gateway between: INVITE, what follows in the dialog,
// CANCEL, forks' best answer, and what is left behind.

#include <gmock/gmock.h>

#include "tests/support/home_calls.h"
#include "tests/support/reg_event.h"

namespace gmgate::test {
namespace {

TEST(HomeCalls, FromInviteToBye) {
    Calls c;
    const Wire asked = c.invite();
    EXPECT_TRUE(asked.esp);
    EXPECT_EQ(asked.message.uri(), c.bob.contact());
    EXPECT_EQ(asked.message.header("P-Called-Party-ID"), "<" + c.bob.impu + ">");
    EXPECT_EQ(asked.message.header("P-Asserted-Identity"), "<" + c.alice.impu + ">");
    EXPECT_THAT(
        asked.message.text,
        testing::ContainsRegex("Record-Route: <sip:dialog-[0-9a-f]{32}@192\\.0\\.2\\.9:5060;lr>"));
    EXPECT_EQ(answers(c.alice, "INVITE").at(0).status(), 100);
    c.bob_answers(asked, 180);
    EXPECT_EQ(c.alice.last_status(), 180);
    EXPECT_EQ(c.server().sessions().size(), 1U) << "an early dialog";
    EXPECT_EQ(c.server().sessions().counters().begun, 0U);
    // PRACK and UPDATE in the early dialog (RFC 3262, 3311).
    Dialog early = Dialog::of_caller(c.alice, answers(c.alice, "INVITE").back());
    for (const auto* method : {"PRACK", "UPDATE"}) {
        early.send(method, "RAck: 1 1 INVITE\r\nContact: <" + c.alice.contact() + ">\r\n");
        ASSERT_EQ(requests(c.bob, method).size(), 1U);
        EXPECT_FALSE(c.bob.last().message.has("Route"));
        c.bob.answer(c.bob.last(), 200);
        c.w.run();
        EXPECT_EQ(answers(c.alice, method).back().status(), 200);
    }
    c.bob_answers(asked, 200);
    EXPECT_EQ(c.alice.last_status(), 200);
    c.caller = Dialog::of_caller(c.alice, c.alice.last().message);
    c.caller.cseq = early.cseq;
    c.callee = Dialog::of_callee(c.bob, asked.message);
    c.caller.ack(static_cast<unsigned>(std::stoul(asked.message.header("CSeq"))));
    ASSERT_EQ(requests(c.bob, "ACK").size(), 1U);
    EXPECT_EQ(c.server().sessions().counters().begun, 1U);
    // Hold from the callee, something from the caller.
    c.callee.send("INVITE", "Contact: <" + c.bob.contact() + ">\r\n");
    ASSERT_EQ(requests(c.alice, "INVITE").size(), 1U);
    EXPECT_EQ(c.alice.last().message.uri(), c.alice.contact());
    c.alice.answer(c.alice.last(), 200, "Contact: <" + c.alice.contact() + ">\r\n");
    c.w.run();
    c.callee.ack(c.callee.cseq);
    EXPECT_EQ(requests(c.alice, "ACK").size(), 1U);
    c.caller.send("INFO");
    ASSERT_EQ(requests(c.bob, "INFO").size(), 1U);
    c.bob.answer(c.bob.last(), 200);
    c.w.run();
    c.callee.send("BYE");
    ASSERT_EQ(requests(c.alice, "BYE").size(), 1U);
    c.alice.answer(c.alice.last(), 200);
    c.w.run();
    EXPECT_EQ(answers(c.bob, "BYE").back().status(), 200);
    EXPECT_EQ(c.server().sessions().size(), 0U);
    EXPECT_EQ(c.server().sessions().counters().ended, 1U);
    c.w.advance(40s);
    EXPECT_EQ(c.server().proxy().size(), 0U);
    EXPECT_EQ(c.server().proxy().index_entries(), 0U);
    EXPECT_EQ(c.server().transactions(), 0U);
    EXPECT_EQ(c.server().counters().garbage, 0U);
}

TEST(HomeCalls, ByTelephoneNumber) {
    Calls c;
    const Wire asked = c.invite("tel:+1-555-1001");
    EXPECT_EQ(asked.message.header("P-Called-Party-ID"), "<tel:+1-555-1001>");
    c.bob_answers(asked, 486);
    EXPECT_EQ(c.alice.last_status(), 486);
    c.bob_answers(c.invite("sip:+15551001@home.example;user=phone"), 486);
    EXPECT_EQ(c.alice.last_status(), 486);
    EXPECT_EQ(c.server().sessions().size(), 0U);
}

TEST(HomeCalls, OverTcpAndAcrossFamilies) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        Calls c(with_gmhome(), "10.2.0.1", "2001:db8:2::2", transport);
        c.connect();
        c.callee.send("BYE");
        ASSERT_EQ(requests(c.alice, "BYE").size(), 1U);
    }
}

TEST(HomeCalls, SubscriptionsReferralsAndMessagesBetweenPhones) {
    Calls c;
    c.alice.send_on(c.alice.current(),
                    c.alice.request("SUBSCRIBE", c.bob.impu,
                                    "Event: presence\r\nExpires: 600\r\nContact: <" +
                                        c.alice.contact() + ">\r\n"));
    c.w.run();
    ASSERT_EQ(requests(c.bob, "SUBSCRIBE").size(), 1U);
    const Sip asked = c.bob.last().message;
    EXPECT_TRUE(asked.contains("@192.0.2.9:5060;lr>") && asked.contains("<sip:dialog-"));
    c.bob_answers(c.bob.last(), 200);
    EXPECT_EQ(c.alice.last_status(), 200);
    Dialog notifier = Dialog::of_callee(c.bob, asked);
    notifier.send("NOTIFY", "Event: presence\r\nSubscription-State: active\r\n");
    ASSERT_EQ(requests(c.alice, "NOTIFY").size(), 1U);
    c.alice.answer(c.alice.last(), 200);
    c.w.run();
    EXPECT_EQ(answers(c.bob, "NOTIFY").back().status(), 200);
    for (const auto* method : {"REFER", "MESSAGE", "OPTIONS"}) {
        c.bob.send_on(c.bob.current(), c.bob.request(method, c.alice.impu,
                                                     "r: <sip:carol@home.example>\r\nContact: <" +
                                                         c.bob.contact() + ">\r\n"));
        c.w.run();
        ASSERT_EQ(requests(c.alice, method).size(), 1U);
        c.alice.answer(c.alice.last(), 202);
        c.w.run();
        EXPECT_EQ(answers(c.bob, method).back().status(), 202);
    }
    EXPECT_EQ(c.server().sessions().size(), 0U) << "no calls";
    c.w.advance(40s);
    EXPECT_EQ(c.server().proxy().size(), 0U);
}

TEST(HomeCalls, TheCallerCancels) {
    Calls c;
    const Wire asked = c.invite();
    c.bob_answers(asked, 180);
    std::string cancel = c.sent.substr(0, c.sent.find("Contact: "));
    cancel.replace(0, 6, "CANCEL");
    cancel.replace(cancel.find(" INVITE\r\n"), 9, " CANCEL\r\n");
    c.alice.send_on(c.alice.current(), cancel + "Content-Length: 0\r\n\r\n");
    c.w.run();
    EXPECT_EQ(answers(c.alice, "CANCEL").back().status(), 200);
    ASSERT_EQ(requests(c.bob, "CANCEL").size(), 1U);
    c.bob.answer(asked, 487);
    c.w.run();
    EXPECT_EQ(answers(c.alice, "INVITE").back().status(), 487);
    EXPECT_EQ(requests(c.bob, "ACK").size(), 1U);
    EXPECT_EQ(c.server().sessions().size(), 0U);
    EXPECT_EQ(c.server().counters().cancelled, 1U);
    c.w.advance(40s);
    EXPECT_EQ(requests(c.bob, "CANCEL").size(), 1U);
    EXPECT_EQ(c.server().proxy().size(), 0U);
}

TEST(HomeCalls, NobodyAnswersOrNobodyIsThere) {
    Calls c;
    (void)c.invite();
    c.w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::ue && wire.flow.remote.address == c.bob.address;
    };
    c.w.advance(33s);
    EXPECT_EQ(answers(c.alice, "INVITE").back().status(), 408);
    c.w.lose = {};
    (void)c.w.phone("carol", "10.2.0.3");  // known, and not registered
    for (const auto& [uri, status] :
         std::vector<std::pair<std::string, int>>{{"sip:carol@home.example", 480},
                                                  {"sip:nobody@home.example", 404},
                                                  {"tel:+15559999", 404}}) {
        c.alice.send_on(c.alice.current(),
                        c.alice.request("INVITE", uri, "Contact: <" + c.alice.contact() + ">\r\n"));
        c.w.run();
        EXPECT_EQ(c.alice.last_status(), status) << uri;
    }
    c.w.advance(40s);
    EXPECT_EQ(c.server().proxy().size(), 0U);
    EXPECT_EQ(c.server().proxy().index_entries(), 0U);
}

TEST(HomeCalls, TheNetworkEndsTheCallsOfWhomItDeregisters) {
    for (const bool callee_goes : {true, false}) {
        Calls c;
        c.connect();
        Phone& goes = callee_goes ? c.bob : c.alice;
        Phone& stays = callee_goes ? c.alice : c.bob;
        subscribe(goes);
        goes.answer(goes.last(), 200);
        c.w.run();
        ASSERT_TRUE(c.w.network->registrar->deregister(goes.impu));
        c.w.run();
        for (Phone* p : {&goes, &stays}) {
            const auto byes = requests(*p, "BYE");
            ASSERT_EQ(byes.size(), 1U) << p->impu;
            const Sip& bye = byes[0].message;
            const Dialog& own = p == &c.alice ? c.caller : c.callee;
            EXPECT_EQ(bye.uri(), p->contact());
            EXPECT_EQ(bye.header("Call-ID"), own.call_id);
            EXPECT_EQ(bye.header("From"), own.remote);
            EXPECT_EQ(bye.header("To"), own.local);
            EXPECT_TRUE(bye.header("Reason").starts_with("SIP;cause=480")) << bye.text;
            EXPECT_TRUE(byes[0].esp);
        }
        // alice has used her number for the INVITE, bob none.
        EXPECT_EQ(requests(c.bob, "BYE")[0].message.header("CSeq"),
                  std::to_string(c.caller.cseq + 1) + " BYE");
        EXPECT_EQ(requests(c.alice, "BYE")[0].message.header("CSeq"), "1 BYE");
        EXPECT_EQ(goes.last().message.method(), "NOTIFY") << "behind the BYE";
        goes.answer(requests(goes, "BYE")[0], 481);
        goes.answer(goes.last(), 200);
        stays.answer(requests(stays, "BYE")[0], 200);
        c.w.run();
        EXPECT_EQ(c.server().sessions().size(), 0U);
        EXPECT_EQ(c.server().sessions().counters().released, 1U);
        EXPECT_EQ(c.server().sessions().counters().byes, 2U);
        c.w.advance(40s);
        EXPECT_EQ(c.server().transactions(), 0U);
    }
}

TEST(HomeCalls, WhatRingsIsCancelledWhenTheUserGoes) {
    for (const bool callee_goes : {true, false}) {
        Calls c;
        const Wire asked = c.invite();
        c.bob_answers(asked, 180);
        ASSERT_TRUE(c.w.network->registrar->deregister(callee_goes ? c.bob.impu : c.alice.impu));
        c.w.run();
        ASSERT_EQ(requests(c.bob, "CANCEL").size(), 1U);
        c.bob.answer(asked, 487);
        c.w.run();
        EXPECT_EQ(answers(c.alice, "INVITE").back().status(), 487);
        EXPECT_EQ(c.server().sessions().size(), 0U);
        EXPECT_EQ(c.server().proxy().index_entries(), 0U);
    }
}

// ---- several phones for one identity ----

struct Family {
    Family() : w(with_gmhome()), alice(w.phone("alice", "10.2.0.1")) {
        w.shared = {"sip:family@home.example"};
        for (int i = 0; i < 2; ++i) {
            children[i] = &w.phone("child" + std::to_string(i), "10.2.0.1" + std::to_string(i));
            EXPECT_TRUE(children[i]->register_once());
        }
        EXPECT_TRUE(alice.register_once());
        w.advance(10ms);
    }
    World w;
    Phone& alice;
    std::array<Phone*, 2> children{};
};

TEST(HomeCalls, EveryPhoneOfTheIdentityRingsAndOneGetsTheCall) {
    Family f;
    f.alice.send_on(f.alice.current(), f.alice.request("INVITE", "sip:family@home.example",
                                                       "Contact: <" + f.alice.contact() + ">\r\n"));
    f.w.run();
    for (Phone* p : f.children) {
        ASSERT_EQ(requests(*p, "INVITE").size(), 1U) << p->impu;
        p->answer(p->last(), 180, "Contact: <" + p->contact() + ">\r\n");
        f.w.run();
    }
    Phone& quick = *f.children[1];
    Phone& slow = *f.children[0];
    quick.answer(requests(quick, "INVITE")[0], 200, "Contact: <" + quick.contact() + ">\r\n");
    f.w.run();
    EXPECT_EQ(answers(f.alice, "INVITE").back().status(), 200);
    ASSERT_EQ(requests(slow, "CANCEL").size(), 1U);
    EXPECT_TRUE(requests(quick, "CANCEL").empty());
    slow.answer(requests(slow, "INVITE")[0], 487);
    f.w.run();
    EXPECT_EQ(answers(f.alice, "INVITE").back().status(), 200) << "the 487 stays at home";
    EXPECT_EQ(f.w.network->server->sessions().size(), 1U);
    Dialog caller = Dialog::of_caller(f.alice, answers(f.alice, "INVITE").back());
    caller.ack(caller.cseq);
    EXPECT_EQ(requests(quick, "ACK").size(), 1U);
    caller.send("BYE");
    ASSERT_EQ(requests(quick, "BYE").size(), 1U);
}

// ---- what makes the network act ----

TEST(HomeCalls, TheHssWithdrawsAUserInACall) {
    auto options = with_gmhome();
    options.policy.reg_event = sip::RegProfile::rfc3680;  // the gateway is told, too
    Calls c(options);
    c.connect();
    auto& hss = c.w.network->hss;
    ASSERT_TRUE(hss.reload({}, c.w.network->server->from_hss()));
    c.w.run();
    EXPECT_EQ(c.w.network->registrar->registered(), 0U);
    for (Phone* p : {&c.alice, &c.bob}) EXPECT_GE(requests(*p, "BYE").size(), 1U) << p->impu;
    EXPECT_EQ(c.server().sessions().counters().released, 1U);
    for (Phone* p : {&c.alice, &c.bob}) {
        for (const Wire& bye : requests(*p, "BYE")) p->answer(bye, 200);
    }
    c.w.run();
    EXPECT_EQ(c.server().sessions().size(), 0U);
    c.w.nothing_left();
}

TEST(HomeCalls, ACallSurvivesAReauthenticationThatIsObeyed) {
    Calls c;
    c.connect();
    subscribe(c.bob);
    c.bob.answer(c.bob.last(), 200);
    c.w.run();
    ASSERT_TRUE(c.w.network->server->reauthenticate({c.bob.impu}));
    c.w.run();
    c.bob.answer(c.bob.last(), 200);
    c.w.run();
    ASSERT_TRUE(renew(c.bob));
    c.w.advance(120s);
    EXPECT_EQ(c.server().sessions().size(), 1U);
    EXPECT_TRUE(requests(c.bob, "BYE").empty());
    c.caller.send("INFO");
    ASSERT_EQ(requests(c.bob, "INFO").size(), 1U);
    EXPECT_TRUE(requests(c.bob, "INFO")[0].esp);
}

TEST(HomeCalls, WhatIsAnsweredTooLateEndsAtOnce) {
    Calls c;
    const Wire asked = c.invite();
    c.bob_answers(asked, 180);
    c.w.lose = [](const Wire& wire) { return wire.message.method() == "CANCEL"; };
    ASSERT_TRUE(c.w.network->registrar->deregister(c.alice.impu));
    c.w.run();
    c.w.lose = {};
    c.bob_answers(asked, 200);
    EXPECT_EQ(answers(c.alice, "INVITE").back().status(), 200);
    EXPECT_EQ(c.server().sessions().counters().released, 1U);
    EXPECT_GE(requests(c.bob, "BYE").size(), 1U);
    EXPECT_GE(requests(c.alice, "BYE").size(), 1U);
}

}  // namespace
}  // namespace gmgate::test
