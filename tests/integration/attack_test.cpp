// What another registered phone, a stranger or a core that answers nonsense may not do (S2, S3).

#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

TEST(Attack, ASecondAuthorizationNamesNobody) {
    World w;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    const auto at_home = w.home.inbox.size();
    RegisterOptions o;
    o.impu = alice.impu;
    o.extra = "Authorization: Digest username=\"" + alice.impi +
              "\",realm=\"home.example\",nonce=\"\",uri=\"sip:home.example\",response=\"\"\r\n";
    mallory.send_protected_sm1(o);
    w.run();
    EXPECT_EQ(mallory.last_status(), 400);
    EXPECT_EQ(w.home.inbox.size(), at_home) << "it may not carry our \"yes\" (A11)";
    w.expect_no_leak(2);
}

TEST(Attack, AToTagOpensNoWayPastTheServiceRoute) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const struct {
        const char* uri;
        const char* route;
    } cases[] = {
        {"sip:bob@home.example", "Route: <sip:192.0.2.66:7000;lr>\r\n"},
        {"sip:bob@home.example", "Route: <sip:127.0.0.1:22;lr;transport=tcp>\r\n"},
        {"sip:bob@home.example", "Route: <sip:192.0.2.1:5060;lr>\r\n"},
        {"sip:192.0.2.66:7000", "Route: <sip:10.1.0.1:5060;lr>\r\n"},
        {"sip:192.0.2.9:3868", "Route: <sip:10.1.0.1:5060;lr>\r\n"},
    };
    const auto foreign = w.drops(Reason::wrong_sa);
    for (const auto& c : cases) {
        p.send_on(p.current(),
                  p.request("MESSAGE", c.uri,
                            "To: <sip:bob@home.example>;tag=none\r\n" + std::string(c.route)));
        w.run();
        const Wire& sent = w.home.inbox.back();
        ASSERT_EQ(sent.message.method(), "MESSAGE");
        EXPECT_EQ(sent.flow.remote, ep("192.0.2.9:6060")) << c.uri << " " << c.route;
        EXPECT_EQ(sent.flow.transport, sip::Transport::udp);
        EXPECT_EQ(sent.message.header("Route"), w.home.service_route) << "a request like any";
        // What makes sense in a dialog alone goes nowhere.
        const auto at_home = w.home.inbox.size();
        for (const char* method : {"INVITE", "UPDATE", "PRACK", "INFO", "NOTIFY"}) {
            p.send_on(p.current(),
                      p.request(method, c.uri,
                                "To: <sip:bob@home.example>;tag=none\r\n" + std::string(c.route)));
            w.run();
            EXPECT_EQ(p.last_status(), 481) << method;
        }
        const auto stray = w.drops(Reason::unknown_transaction);
        p.send_on(p.current(),
                  p.request("ACK", c.uri,
                            "To: <sip:bob@home.example>;tag=none\r\n" + std::string(c.route)));
        w.run();
        EXPECT_EQ(w.drops(Reason::unknown_transaction), stray + 1);
        EXPECT_EQ(w.home.inbox.size(), at_home);
        // What makes a dialog is made by the rules of a new one.
        for (const char* method : {"SUBSCRIBE", "REFER"}) {
            p.send_on(p.current(),
                      p.request(method, c.uri,
                                "To: <sip:bob@home.example>;tag=none\r\n" + std::string(c.route)));
            w.run();
            const Wire& made = w.home.inbox.back();
            ASSERT_EQ(made.message.method(), method);
            EXPECT_EQ(made.flow.remote, ep("192.0.2.9:6060"));
            EXPECT_EQ(made.message.header("Route"), w.home.service_route);
            EXPECT_TRUE(made.message.contains("P-Charging-Vector"));
            EXPECT_EQ(w.drops(Reason::wrong_sa), foreign);
        }
        // A BYE may end what we have forgotten: the way its home goes.
        p.send_on(p.current(),
                  p.request("BYE", c.uri,
                            "To: <sip:bob@home.example>;tag=none\r\n" + std::string(c.route)));
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.header("Route"), w.home.service_route);
    }
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    // In a dialog the hops of its home stay where they are.
    OutgoingCall call(w, p);
    call.establish();
    p.send_on(p.current(), with_header(p.request("MESSAGE", "sip:192.0.2.9:5060",
                                                 "To: <sip:bob@home.example>;tag=home\r\nRoute: "
                                                 "<sip:10.1.0.1:5060;lr>\r\n"),
                                       "Call-ID", call.call_id));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.method(), "MESSAGE");
    EXPECT_EQ(w.home.inbox.back().flow.remote, ep("192.0.2.9:5060"));
    call.say("BYE");
    w.expect_no_leak(1);
}

// B7: nor does it hide whose name is in From.
TEST(Attack, AToTagHidesNoForeignIdentity) {
    for (const char* method : {"SUBSCRIBE", "REFER", "MESSAGE"}) {
        World w;
        Phone& alice = w.phone("alice", "10.2.0.1");
        Phone& mallory = w.phone("mallory", "10.2.0.2");
        ASSERT_TRUE(alice.register_once());
        ASSERT_TRUE(mallory.register_once());
        const auto at_home = w.home.inbox.size();
        mallory.send_on(mallory.current(),
                        mallory.request(method, "sip:bob@home.example",
                                        "From: <" + alice.impu +
                                            ">;tag=2\r\nTo: <sip:bob@home.example>;tag=none\r\n"));
        w.run();
        EXPECT_EQ(w.home.inbox.size(), at_home) << method;
        EXPECT_EQ(w.drops(Reason::wrong_sa), 1U) << method;
        w.expect_no_leak(2);
    }
}

TEST(Attack, AnAnswerOnAnotherUsersSetLeavesNothing) {
    for (const char* method : {"MESSAGE", "INVITE"}) {
        for (const int status : {200, 486}) {
            World w;
            // One phone with two users.
            Phone& one = w.phone("alice", "10.2.0.1");
            Phone& two = w.phone("mallory", "10.2.0.1");
            ASSERT_TRUE(one.register_once());
            two.port_uc = 8000;
            two.port_us = 8777;
            two.spi_uc = 9001;
            two.spi_us = 9002;
            ASSERT_TRUE(two.register_once());
            w.home.request(method, w.home.paths[one.impi], one.contact());
            w.run();
            const Wire asked = one.last();
            ASSERT_EQ(asked.message.method(), method);
            two.answer(asked, status);
            w.run();
            EXPECT_EQ(w.drops(Reason::stray_response), 1U);
            EXPECT_EQ(w.home.inbox.back().message.status(), 480);
            w.expect_no_leak(2);
        }
    }
}

TEST(Attack, WhoKnowsTheBranchCannotHideACallFromItsCancel) {
    World w;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    w.home.silent = true;
    const std::string invite =
        alice.request("INVITE", "sip:bob@home.example", "Contact: <" + alice.contact() + ">\r\n");
    alice.send_on(alice.current(), invite);
    w.run();
    const Wire at_home = w.home.inbox.back();
    w.home.reply(at_home, 180);
    w.run();
    // The same Via, seen by the one who was called.
    std::string same = mallory.request("INVITE", "sip:bob@home.example",
                                       "Contact: <" + mallory.contact() + ">\r\n");
    const auto via = [](const std::string& t) {
        const auto at = t.find("Via: ");
        return std::pair(at, t.find("\r\n", at) - at);
    };
    const auto [a, n] = via(invite);
    const auto [b, m] = via(same);
    same.replace(b, m, invite.substr(a, n));
    mallory.send_on(mallory.current(), same);
    w.run();
    std::string cancel = invite;
    cancel.replace(0, 6, "CANCEL");
    cancel.replace(cancel.find(" INVITE\r\n"), 9, " CANCEL\r\n");
    alice.send_on(alice.current(), cancel);
    w.run();
    EXPECT_EQ(alice.last_status(), 200);
    EXPECT_EQ(w.home.inbox.back().message.method(), "CANCEL");
    w.expect_no_leak(2);
}

TEST(Attack, OnePhoneHasFewRegistrationsUnderWay) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    w.home.silent = true;
    for (int i = 0; i < 50; ++i) mallory.send_protected_sm1();
    w.run();
    EXPECT_EQ(w.gateway->pending(), w.options.policy.limits.pending_per_user);
    EXPECT_EQ(w.drops(Reason::pending_user_limit), 50 - w.gateway->pending());
    EXPECT_EQ(mallory.last_status(), 500);
    alice.send_protected_sm1();
    w.run();
    EXPECT_EQ(w.gateway->pending(), w.options.policy.limits.pending_per_user + 1);
    w.advance(60s);
    EXPECT_EQ(w.gateway->pending(), 0U);
    w.home.silent = false;
    EXPECT_TRUE(mallory.reregister()) << "what was counted is given back";
    w.advance(60s);
    EXPECT_TRUE(mallory.reregister());
    mallory.send_on(mallory.current(), mallory.request("MESSAGE", "sip:bob@home.example"));
    w.expect_no_leak(2);
}

TEST(Attack, OnePhoneHasFewRequestsUnderWay) {
    World::Options options;
    options.policy.limits.dialogs_per_user = 1000;
    World w(options);
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    w.home.silent = true;
    const std::size_t limit = w.options.policy.limits.proxied_per_user;
    for (std::size_t i = 0; i < limit + 20; ++i) {
        mallory.send_on(mallory.current(),
                        mallory.request(i % 2 == 0 ? "MESSAGE" : "INVITE", "sip:bob@home.example"));
    }
    w.run();
    EXPECT_EQ(w.gateway->proxied(), limit);
    EXPECT_EQ(w.drops(Reason::transaction_limit), 20U);
    EXPECT_EQ(mallory.last_status(), 503);
    alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(w.gateway->proxied(), limit + 1);
    w.advance(100s);
    EXPECT_EQ(w.gateway->proxied(), 0U);
    w.home.silent = false;
    mallory.send_on(mallory.current(), mallory.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(mallory.last_status(), 200) << "what was counted is given back";
    w.expect_no_leak(2);
}

TEST(Attack, IntegrityProtectedOfTheUeGoesInEveryRequest) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example",
                                     "Authorization: Digest username=\"" + p.impi +
                                         "\",nonce=\"\",integrity-protected=\"yes\"\r\n"));
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "MESSAGE");
    EXPECT_FALSE(w.home.inbox.back().message.contains("integrity-protected"));
    w.expect_no_leak(1);
}

// A11: whoever answers no challenge has not answered ours.
TEST(Attack, AnAnswerToNoChallengeIsNotVouchedFor) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.challenged());
    RegisterOptions o;
    o.authorization = "Digest username=\"" + p.impi +
                      "\",realm=\"home.example\",uri=\"sip:home.example\",response=\"" +
                      Aka::res(p.pending->nonce) + "\"";
    p.send_sm7(o);
    w.run();
    EXPECT_FALSE(w.home.inbox.back().message.contains("integrity-protected=\"yes\""));
    EXPECT_NE(p.last_status(), 200);
    w.expect_no_leak(0);
}

TEST(Attack, KeysWhereNobodyExpectsThem) {
    World w;
    w.home.silent = true;
    Phone& p = w.phone();
    p.send_sm1();
    w.run();
    const Wire sm2 = w.home.inbox.back();
    const std::string nonce = "bm9uY2U=";
    w.home.nonces[p.impi] = nonce;  // the world now looks for its keys, everywhere
    const std::string keys = "WWW-Authenticate: Digest realm=\"h\",nonce=\"" + nonce + "\",ck=\"" +
                             Aka::ck(nonce) + "\",ik=\"" + Aka::ik(nonce) + "\"\r\n";
    w.home.reply(sm2, 183, keys);
    // Cannot be taken apart: no CSeq.
    w.home.reply(sm2, 401, keys);
    std::string& broken = w.queue.back().message.text;
    const auto at = broken.find("CSeq:");
    broken.erase(at, broken.find("\r\n", at) + 2 - at);
    w.run();
    w.home.reply(sm2, 401, keys + keys);  // two of them
    w.run();
    EXPECT_EQ(p.last_status(), 401);
    w.home.reply(sm2, 200, keys);  // and once more
    w.run();
    w.home.silent = false;
    w.expect_no_leak(0);
}

// B3, C10: a stranger who knows a name can make the core challenge it, which voids the challenge
// under way; nothing that is established feels it.
TEST(Attack, AStrangersSm1HarmsNoRegistration) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    RegisterOptions o;
    o.impi = alice.impi;
    o.impu = alice.impu;
    for (int i = 0; i < 5; ++i) {
        mallory.send_sm1(o);
        w.run();
    }
    EXPECT_EQ(w.gateway->pending(), 1U);
    const auto heard = alice.inbox.size();
    w.home.request("MESSAGE", w.home.paths[alice.impi], alice.contact());
    w.run();
    ASSERT_EQ(alice.inbox.size(), heard + 1);
    EXPECT_EQ(alice.last().message.method(), "MESSAGE");
    EXPECT_EQ(alice.last().flow.remote.port, alice.current().numbers.port_us);
    // Her own renewal takes the stranger's place.
    EXPECT_TRUE(alice.reregister());
    alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
    w.advance(300s);
    EXPECT_EQ(w.gateway->registered(), 1U);
    w.expect_no_leak(1);
}

TEST(Attack, AStrangersSm1DoesNotVoidARenewal) {
    for (const bool at_the_core : {false, true}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& alice = w.phone("alice", "10.2.0.1");
        Phone& mallory = w.phone("mallory", "10.2.0.2");
        ASSERT_TRUE(alice.register_once());
        RegisterOptions o;
        o.impi = alice.impi;
        o.impu = alice.impu;
        alice.send_protected_sm1();
        if (!at_the_core) w.run();
        mallory.send_sm1(o);
        w.run();
        EXPECT_EQ(mallory.last_status(), 503);
        EXPECT_EQ(w.drops(Reason::pending_user_limit), 1U);
        ASSERT_EQ(alice.last_status(), 401);
        alice.take_challenge(alice.last().message);
        mallory.send_sm1(o);
        EXPECT_TRUE(alice.answered());
        alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
        w.expect_no_leak(1);
    }
}

// A stranger's SM1 was at the core before the phone's; its challenge comes after the phone's, or
// when the phone's answer is on its way: it voids neither (S3). The same for a first registration
// whose SM7 has come: the phone has shown its keys, the stranger has not.
TEST(Attack, AStrangersLateChallengeDoesNotVoidWhoHasShownItsKeys) {
    for (const bool renewal : {true, false}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& alice = w.phone("alice", "10.2.0.1");
        Phone& mallory = w.phone("mallory", "10.2.0.2");
        if (renewal) {
            ASSERT_TRUE(alice.register_once());
        }
        RegisterOptions o;
        o.impi = alice.impi;
        o.impu = alice.impu;
        w.home.silent = true;
        mallory.send_sm1(o);
        w.run();
        const Wire strangers = w.home.inbox.back();
        w.home.silent = false;
        ASSERT_TRUE(alice.challenged(renewal));
        const std::string challenge =
            "WWW-Authenticate: Digest realm=\"home.example\",nonce=\"b2xk\",ck=\"" +
            Aka::ck("b2xk") + "\",ik=\"" + Aka::ik("b2xk") + "\"\r\n";
        if (renewal) {
            w.home.reply(strangers, 401, challenge);
            w.run();
            alice.send_sm7();
            w.run();
        } else {
            w.home.silent = true;
            alice.send_sm7();
            w.run();
            const Wire sm8 = w.home.inbox.back();
            w.home.reply(strangers, 401, challenge);
            w.run();
            mallory.send_sm1(o);  // and another now
            w.run();
            EXPECT_EQ(w.home.inbox.back().message.text, sm8.message.text) << "it stops at us";
            w.home.silent = false;
            w.home.receive(sm8);
            w.run();
        }
        EXPECT_EQ(mallory.last_status(), 503);
        EXPECT_EQ(mallory.last().message.header("Retry-After"), "32");
        EXPECT_EQ(alice.last_status(), 200);
        alice.accept();
        alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
        w.expect_no_leak(1);
    }
}

// With integrity alone a challenge under an SA can be read: knowing its nonce is not enough to void
// it from the phone's address in clear.
TEST(Attack, AReportInClearDoesNotVoidARenewal) {
    for (const char* auts : {"", ",auts=\"AAAAAAAAAAAAAAAAAAA=\""}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& alice = w.phone("alice", "10.2.0.1");
        ASSERT_TRUE(alice.register_once());
        ASSERT_TRUE(alice.challenged(true));
        RegisterOptions o;
        o.authorization = alice.answer_to(alice.pending->nonce, "", auts);
        alice.send_clear(alice.register_text(o, nullptr));
        w.run();
        EXPECT_EQ(w.backend.installed(), 2U);
        EXPECT_TRUE(alice.answered());
        alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
        w.expect_no_leak(1);
    }
}

// A request on a set that is replaced before its answer comes: the answer has no way any more, and
// does not leave in clear (A6).
TEST(Attack, ALateAnswerDoesNotLeaveWithoutItsSa) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone();
    ASSERT_TRUE(alice.register_once());
    w.home.silent = true;
    alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    w.home.silent = false;
    alice.next_ports();
    ASSERT_TRUE(alice.register_once()) << "in clear: the old set goes at once (D1)";
    const auto dropped = w.drops(Reason::ue_unreachable);
    w.advance(40s);
    EXPECT_EQ(w.clear_on_protected, 0U);
    EXPECT_GT(w.drops(Reason::ue_unreachable), dropped);
    w.expect_no_leak(1);
}

// A phone that lost its SAs in the middle of a renewal is not shut out.
TEST(Attack, WhoLostItsSetsRegistersInClearSoon) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone();
    ASSERT_TRUE(alice.register_once());
    alice.send_protected_sm1();
    w.run();
    ASSERT_EQ(alice.last_status(), 401);
    w.advance(33s);
    alice.next_ports();
    EXPECT_TRUE(alice.register_once());
    w.expect_no_leak(1);
}

}  // namespace
}  // namespace gmgate::test
