// What RFC 3261 16 asks of a proxy, both ways: routes strict and loose, answers of a forked call,
// CANCEL and its races, timers, requests in dialogs, and the stop.

#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

// RFC 3261 16.4, 16.6 step 6.
TEST(ProxyRules, StrictRoutersOnBothSides) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    const std::string routes = call.invite.message.header("Record-Route");
    const auto comma = routes.find(", ");
    const std::string core_side = routes.substr(0, comma);
    const std::string ue_side = routes.substr(comma + 2);
    const auto bare = [](const std::string& route) { return route.substr(1, route.size() - 2); };

    // The core puts our URI where the target belongs.
    std::string text = call.from_far("INFO", 1);
    text = replace_once(text, "INFO " + p.contact() + " ", "INFO " + bare(core_side) + " ");
    text = with_header(text, "Route", ue_side + ", <" + p.contact() + ";line=3>");
    from_core(w, text);
    w.run();
    ASSERT_EQ(p.last().message.method(), "INFO");
    EXPECT_EQ(p.last().message.uri(), p.contact() + ";line=3");
    EXPECT_FALSE(p.last().message.has("Route"));
    p.answer(p.last(), 200);
    w.run();

    // So does the phone.
    text = call.request("INFO");
    text =
        replace_once(text, "INFO " + std::string(far_target) + " ", "INFO " + bare(ue_side) + " ");
    text = with_header(
        text, "Route",
        core_side + ", " + std::string(core_hop) + ", <" + std::string(far_target) + ">");
    p.send_on(p.current(), text);
    w.run();
    const Wire* at_home = latest(w.home.inbox, "INFO");
    ASSERT_NE(at_home, nullptr);
    EXPECT_EQ(at_home->message.uri(), far_target);
    EXPECT_EQ(at_home->message.header("Route"), core_hop);
    EXPECT_EQ(at_home->flow.remote, ep("192.0.2.9:6060"));

    // And the hop behind us.
    text = call.request("INFO");
    text = with_header(
        text, "Route",
        ue_side + ", " + core_side + ", <sip:strict@192.0.2.9:6060>, <sip:next.example;lr>");
    p.send_on(p.current(), text);
    w.run();
    at_home = latest(w.home.inbox, "INFO");
    EXPECT_EQ(at_home->message.uri(), "sip:strict@192.0.2.9:6060");
    EXPECT_EQ(at_home->message.header("Route"),
              "<sip:next.example;lr>, <" + std::string(far_target) + ">");
    EXPECT_EQ(at_home->flow.remote, ep("192.0.2.9:6060"));
    call.say("BYE");
    w.expect_no_leak(1);
}

TEST(ProxyRules, AByeOfOursGoesByAStrictRouterToo) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    w.home.reply(call.invite, 200, "Contact: <" + std::string(far_target) + ">\r\n");
    std::string& out = w.queue.back().message.text;
    out = replace_once(
        out, "Record-Route: ", "Record-Route: <sip:two.example;lr>, <sip:one@192.0.2.9:6060>, ");
    w.run();
    w.home.silent = false;
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(1s);
    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->message.uri(), "sip:one@192.0.2.9:6060");
    EXPECT_EQ(bye->message.header("Route"),
              "<sip:two.example;lr>, <" + std::string(far_target) + ">");
    w.expect_no_leak(0);
}

TEST(ProxyRules, AsManyRoutesAsHops) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    for (const int hops : {17, 60, 71}) {
        std::string routes = std::string(core_hop);
        for (int i = 1; i < hops; ++i) routes += ", <sip:h" + std::to_string(i) + ".example;lr>";
        const auto before = count_of(w.home.inbox, "INFO");
        p.send_on(p.current(), with_header(call.request("INFO"), "Route", routes));
        w.run();
        if (hops <= 70) {
            ASSERT_EQ(count_of(w.home.inbox, "INFO"), before + 1);
            EXPECT_EQ(latest(w.home.inbox, "INFO")->message.header("Route"), routes);
        } else {
            EXPECT_EQ(p.last_status(), 400);
            EXPECT_EQ(count_of(w.home.inbox, "INFO"), before);
        }
    }
    call.say("BYE");
    w.expect_no_leak(1);
}

TEST(ProxyRules, ARedirectPassesAsItIs) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    w.home.reply(call.invite, 302, "Contact: <sip:carol@elsewhere.example>;q=0.5\r\n");
    w.run();
    EXPECT_EQ(p.last_status(), 302);
    EXPECT_EQ(p.last().message.header("Contact"), "<sip:carol@elsewhere.example>;q=0.5");
    EXPECT_EQ(count_of(w.home.inbox, "INVITE"), 1U) << "not followed";
    w.expect_no_leak(1);
}

// Every 2xx of a forked call comes through, also again, and each ACK goes its own way.
TEST(ProxyRules, EachAnswerOfAForkedCallHasItsAck) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(180, "one");
    call.answer(183, "two");
    EXPECT_EQ(count_of(p.inbox, "180"), 1U);
    EXPECT_EQ(count_of(p.inbox, "183"), 1U);
    call.answer(200, "one");
    call.answer(200, "two");
    call.answer(200, "two");
    w.advance(10s);
    call.answer(200, "three");
    EXPECT_EQ(count_of(p.inbox, "200"), 5U) << "REGISTER's and four";
    for (const std::string_view tag : {"one", "two", "three"}) {
        call.say("ACK", tag);
        const Wire* ack = latest(w.home.inbox, "ACK");
        ASSERT_NE(ack, nullptr);
        EXPECT_EQ(ack->message.header("To"), "<sip:bob@home.example>;tag=" + std::string(tag));
        EXPECT_EQ(ack->message.uri(), far_target);
        EXPECT_EQ(ack->flow.remote, ep("192.0.2.9:6060"));
    }
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 3U);
    w.home.silent = false;
    for (const std::string_view tag : {"one", "two", "three"}) call.say("BYE", tag);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(1);
}

TEST(ProxyRules, EarlyMediaByReliableProvisionalAnswers) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p, "Supported: 100rel\r\nP-Early-Media: supported\r\n");
    EXPECT_EQ(call.invite.message.header("Supported"), "100rel");
    EXPECT_EQ(call.invite.message.header("P-Early-Media"), "supported");
    call.answer(183, "home", "Require: 100rel\r\nRSeq: 9021\r\nP-Early-Media: sendrecv\r\n");
    EXPECT_EQ(p.last().message.header("RSeq"), "9021");
    EXPECT_EQ(p.last().message.header("Require"), "100rel");
    EXPECT_EQ(p.last().message.header("P-Early-Media"), "sendrecv");
    EXPECT_TRUE(p.last().message.header("Record-Route").starts_with(core_hop));
    w.home.silent = false;
    call.say("PRACK", "home", "RAck: 9021 " + std::to_string(call.cseq) + " INVITE\r\n");
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(latest(w.home.inbox, "PRACK")->message.header("RAck"),
              "9021 " + std::to_string(call.cseq) + " INVITE");
    call.say("UPDATE", "home", "Contact: <" + p.contact() + ">\r\n");
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(latest(w.home.inbox, "UPDATE")->message.header("Route"), core_hop);
    from_core(w, call.from_far("UPDATE", 1, "home", "Contact: <sip:b@192.0.2.7>\r\n"));
    w.run();
    ASSERT_EQ(p.last().message.method(), "UPDATE");
    p.answer(p.last(), 200);
    w.run();
    call.answer(200);
    EXPECT_EQ(p.last_status(), 200);
    call.say("ACK");
    call.say("BYE");
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(1);
}

std::string cancel_of(const std::string& invite) {
    std::string cancel = replace_once(invite, "INVITE ", "CANCEL ");
    return replace_once(cancel, " INVITE\r\n", " CANCEL\r\n");
}

// RFC 3261 9.1: a CANCEL waits for the first answer; after a final one it does nothing.
TEST(ProxyRules, CancelsAndTheirRaces) {
    for (const bool early : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        if (!early) call.answer(200);
        const auto answers = count_of(p.inbox, "200");
        p.send_on(p.current(), replace_once(cancel_of(call.text), "Max-Forwards",
                                            "Proxy-Require: nothing-we-know\r\nMax-Forwards"));
        w.run();
        EXPECT_EQ(count_of(p.inbox, "200"), answers + 1) << "8.2.2.3: it has no extensions";
        EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U);
        if (early) {
            call.answer(180);
            EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
            w.home.reply(*latest(w.home.inbox, "CANCEL"), 200);
            w.home.reply(call.invite, 487);
            w.run();
            EXPECT_EQ(p.last_status(), 487);
        } else {
            w.advance(5s);
            EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U);
            call.say("ACK");
            w.home.silent = false;
            call.say("BYE");
        }
        EXPECT_EQ(w.gateway->dialogs(), 0U);
        w.expect_no_leak(1);
    }
    // To the phone.
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    IncomingCall call(w, p);
    from_core(w, cancel_of(call.text));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_EQ(count_of(p.inbox, "CANCEL"), 0U);
    call.answer(180);
    ASSERT_EQ(count_of(p.inbox, "CANCEL"), 1U);
    EXPECT_EQ(
        latest(p.inbox, "CANCEL")->message.header("Via"),
        call.invite.message.header("Via").substr(0, call.invite.message.header("Via").find(',')));
    p.answer(*latest(p.inbox, "CANCEL"), 200);
    call.answer(200);  // it crossed: the caller has both
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_TRUE(w.home.inbox.back().message.header("CSeq").ends_with("INVITE"));
    EXPECT_EQ(w.gateway->dialogs(), 1U) << "and ends the call by BYE";
    call.far_says("ACK", 1);
    call.far_says("BYE", 2);
    p.answer(p.last(), 200);
    w.expect_no_leak(1);
}

// What was cancelled goes to no other hop, and a CANCEL waits for an answer of the new one.
TEST(ProxyRules, ACancelledCallIsNotMoved) {
    for (const bool cancelled_first : {true, false}) {
        World::Options options;
        options.policy.next_hops = {{sip::Transport::udp, ep("192.0.2.9:5060")},
                                    {sip::Transport::udp, ep("192.0.2.10:5060")}};
        World w(options);
        w.home.service_route.clear();
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(
            w, p,
            "Route: <sip:10.1.0.1:" + std::to_string(p.current().numbers.port_ps) + ";lr>\r\n");
        ASSERT_EQ(call.invite.flow.remote, ep("192.0.2.9:5060"));
        call.answer(180);
        const auto cancel = [&] {
            p.send_on(p.current(), cancel_of(call.text));
            w.run();
        };
        if (cancelled_first) {
            cancel();
            EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
        }
        w.home.reply(call.invite, 503);
        w.run();
        if (cancelled_first) {
            EXPECT_EQ(count_of(w.home.inbox, "INVITE"), 1U);
            EXPECT_EQ(p.last_status(), 500);
        } else {
            const Wire moved = *latest(w.home.inbox, "INVITE");
            ASSERT_EQ(moved.flow.remote, ep("192.0.2.10:5060"));
            cancel();
            EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U);
            w.home.reply(moved, 180);
            w.run();
            ASSERT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
            EXPECT_EQ(latest(w.home.inbox, "CANCEL")->flow.remote, ep("192.0.2.10:5060"));
            w.home.reply(moved, 487);
            w.run();
            EXPECT_EQ(p.last_status(), 487);
        }
    }
}

// RFC 3261 16.8.
TEST(ProxyRules, A100DoesNotMoveTimerC) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(180);
    for (int i = 0; i < 20; ++i) {
        w.advance(10s);
        w.home.reply(call.invite, 100);
        w.run();
    }
    EXPECT_GE(count_of(w.home.inbox, "CANCEL"), 1U);
    w.home.reply(call.invite, 487);
    w.run();
    EXPECT_EQ(p.last_status(), 487);
}

TEST(ProxyRules, TimerCEndsACallThatRingsForEver) {
    for (const bool answered : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.answer(180);
        w.advance(170s);
        call.answer(183);
        w.advance(170s);
        EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 0U) << "each word counts";
        w.advance(20s);
        ASSERT_GE(count_of(w.home.inbox, "CANCEL"), 1U);
        if (answered) {
            w.home.reply(*latest(w.home.inbox, "CANCEL"), 200);
            w.home.reply(call.invite, 487);
            w.run();
        } else {
            w.advance(70s);
        }
        EXPECT_EQ(p.last_status(), 487);
        w.expect_no_leak(1);
    }
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    IncomingCall call(w, p);
    call.answer(180);
    w.advance(190s);
    ASSERT_GE(count_of(p.inbox, "CANCEL"), 1U);
    EXPECT_TRUE(latest(p.inbox, "CANCEL")->esp);
    call.answer(487);
    EXPECT_EQ(w.home.inbox.back().message.status(), 487);
    w.expect_no_leak(1);
}

// A final answer that is no 2xx is acknowledged hop by hop, again for each repetition.
TEST(ProxyRules, AckOfARefusalStaysOnItsHop) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    w.home.reply(call.invite, 486);
    w.run();
    EXPECT_EQ(p.last_status(), 486);
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 1U);
    w.home.reply(call.invite, 486);
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 2U);
    EXPECT_EQ(count_of(p.inbox, "486"), 1U);
    w.advance(600ms);
    EXPECT_EQ(count_of(p.inbox, "486"), 2U) << "ours, repeated until the phone's ACK";
    std::string ack = replace_once(call.text, "INVITE ", "ACK ");
    p.send_on(p.current(), replace_once(ack, " INVITE\r\n", " ACK\r\n"));
    w.advance(10s);
    EXPECT_EQ(count_of(p.inbox, "486"), 2U);
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 2U) << "the phone's goes no further";
    w.expect_no_leak(1);
}

// RFC 4320: who asked has given up by then; a 408 does harm.
TEST(ProxyRules, SilenceIs408ToAnInviteAlone) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    auto heard = w.home.inbox.size();
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.advance(70s);
    EXPECT_EQ(w.home.inbox.size(), heard);
    EXPECT_EQ(w.drops(Reason::ue_timeout), 1U);
    w.home.request("INVITE", w.home.paths[p.impi], p.contact());
    w.advance(33s);
    EXPECT_EQ(w.home.inbox.back().message.status(), 408);
    // And none of the core's is passed on.
    w.home.silent = true;
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    heard = p.inbox.size();
    w.home.reply(w.home.inbox.back(), 408);
    w.advance(40s);
    EXPECT_EQ(p.inbox.size(), heard);
    w.expect_no_leak(1);
}

// D2: the dialog outlives the SAs it began on.
TEST(ProxyRules, DialogsGoOnOnTheNextSas) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w;
        w.home.integrity_yes_is_enough = false;
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.establish();
        ASSERT_TRUE(p.reregister());
        call.say("INFO");
        EXPECT_EQ(p.last_status(), 200);
        EXPECT_EQ(p.last().set, w.set_of(p.current()));
        from_core(w, call.from_far("INFO", 1));
        w.run();
        ASSERT_EQ(p.last().message.method(), "INFO");
        EXPECT_EQ(p.last().set, w.set_of(p.current()));
        p.answer(p.last(), 200);
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 200);
        w.advance(60s);
        ASSERT_TRUE(w.gateway->deregister(p.impi));
        w.advance(1s);
        EXPECT_GE(count_of(p.inbox, "BYE"), 1U);
        EXPECT_EQ(count_of(w.home.inbox, "BYE"), 1U);
        w.expect_no_leak(0);
    }
}

// Dialogs of SUBSCRIBE and REFER; a NOTIFY may come before the answer that makes its dialog.
TEST(ProxyRules, SubscriptionsAndRefers) {
    for (const std::string_view method : {"SUBSCRIBE", "REFER"}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        w.home.silent = true;
        p.send_on(p.current(), p.request(method, "sip:bob@home.example",
                                         "Contact: <" + p.contact() + ">\r\nEvent: presence\r\n"));
        w.run();
        const Wire asked = w.home.inbox.back();
        ASSERT_EQ(asked.message.method(), method);
        const std::string routes = asked.message.header("Record-Route");
        ASSERT_NE(routes.find(";lr>, <sip:10.1.0.1:"), std::string::npos) << routes;
        std::string notify =
            "NOTIFY " + p.contact() +
            " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKn1\r\nMax-Forwards: "
            "60\r\nRoute: " +
            routes +
            "\r\nFrom: <sip:bob@home.example>;tag=n\r\nTo: " + asked.message.header("From") +
            "\r\nCall-ID: " + asked.message.header("Call-ID") +
            "\r\nCSeq: 1 NOTIFY\r\nEvent: presence\r\nSubscription-State: active\r\n"
            "Record-Route: " +
            std::string(core_hop) + "\r\nContact: <" + std::string(far_target) +
            ">\r\nContent-Length: 0\r\n\r\n";
        from_core(w, notify);
        w.run();
        const Wire heard = p.last();
        ASSERT_EQ(heard.message.method(), "NOTIFY");
        EXPECT_TRUE(heard.message.header("Record-Route").ends_with(core_hop));
        p.answer(heard, 200);
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 200);
        w.home.reply(asked, 202, "Contact: <" + std::string(far_target) + ">\r\n");
        w.run();
        EXPECT_EQ(p.last_status(), 202);
        EXPECT_EQ(w.gateway->dialogs(), 0U) << "no session";
        // In the dialog, by the routes of the dialog.
        w.home.silent = false;
        p.send_on(p.current(),
                  with_header(p.request(method, far_target,
                                        "To: <sip:bob@home.example>;tag=n\r\nEvent: presence\r\n"
                                        "Route: " +
                                            std::string(core_hop) + "\r\n"),
                              "Call-ID", asked.message.header("Call-ID")));
        w.run();
        EXPECT_EQ(p.last_status(), 200);
        EXPECT_EQ(w.home.inbox.back().message.header("Route"), core_hop);
        EXPECT_FALSE(w.home.inbox.back().message.contains("P-Charging-Vector"));
        w.expect_no_leak(1);
        // It goes with the registration.
        ASSERT_TRUE(p.deregister());
        w.advance(60s);
        w.expect_no_leak(0);
    }
}

// The phone is asked to tell: its NOTIFY may overtake its answer, and comes long after.
TEST(ProxyRules, APhoneNotifies) {
    for (const std::string_view method : {"SUBSCRIBE", "REFER"}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        w.home.request(method, w.home.paths[p.impi], p.contact(),
                       "Contact: <" + std::string(far_target) +
                           ">\r\nEvent: presence\r\nRecord-Route: " + std::string(core_hop) +
                           "\r\n");
        w.run();
        const Wire asked = p.last();
        ASSERT_EQ(asked.message.method(), method);
        const auto notify = [&](const std::string& call_id) {
            p.send_on(p.current(),
                      with_header(p.request("NOTIFY", far_target,
                                            "From: " + asked.message.header("To") +
                                                ";tag=ue\r\nTo: <sip:bob@home.example>;tag=b\r\n"
                                                "Event: presence\r\nSubscription-State: active\r\n"
                                                "Route: " +
                                                std::string(core_hop) + "\r\n"),
                                  "Call-ID", call_id));
            w.run();
            return p.last_status();
        };
        const std::string call_id = asked.message.header("Call-ID");
        EXPECT_EQ(notify(call_id), 200);
        EXPECT_EQ(w.home.inbox.back().message.header("Route"), core_hop);
        p.answer(asked, 202, "Contact: <" + p.contact() + ">\r\n");
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 202);
        w.advance(600s);
        EXPECT_EQ(notify(call_id), 200);
        const auto at_home = w.home.inbox.size();
        EXPECT_EQ(notify("another"), 481);
        EXPECT_EQ(w.home.inbox.size(), at_home);
        w.expect_no_leak(1);
    }
}

// Call-ID and From tag are the phone's own words: only the notifier's tag proves the dialog (E2).
TEST(ProxyRules, AnInventedToTagIsNoSubscription) {
    for (const std::string_view method : {"SUBSCRIBE", "REFER"}) {
        World w;
        Phone& p = w.phone();
        Phone& other = w.phone("bob", "10.2.0.2");
        ASSERT_TRUE(p.register_once());
        ASSERT_TRUE(other.register_once());
        p.send_on(p.current(), p.request("SUBSCRIBE", p.impu,
                                         "Contact: <" + p.contact() + ">\r\nEvent: reg\r\n"));
        w.run();
        ASSERT_EQ(p.last_status(), 200);
        const Wire asked = w.home.inbox.back();
        const auto ask = [&](std::string_view from, std::string_view tag) {
            const std::string own = asked.message.header("From");
            const std::string line =
                from.empty() ? own : "<" + std::string(from) + own.substr(own.find('>'));
            p.send_on(
                p.current(),
                with_header(
                    p.request(method, far_target,
                              "From: " + line + "\r\nTo: <" + p.impu + ">;tag=" + std::string(tag) +
                                  "\r\nEvent: reg\r\nRoute: " + std::string(core_hop) + "\r\n"),
                    "Call-ID", asked.message.header("Call-ID")));
            w.run();
            return w.home.inbox.back().message;
        };
        EXPECT_EQ(ask({}, "home").header("Route"), core_hop);
        const auto invented = ask({}, "abc");
        EXPECT_EQ(invented.header("Route"), w.home.service_route);
        EXPECT_TRUE(invented.contains("P-Charging-Vector"));
        // Nor is it a place to speak as somebody else.
        const auto at_home = w.home.inbox.size();
        (void)ask(other.impu, "home");
        EXPECT_EQ(w.home.inbox.size(), at_home);
        EXPECT_EQ(w.drops(Reason::wrong_sa), 1U);
    }
}

// S2: who may reach the phone takes none of its subscriptions from it.
TEST(ProxyRules, WhatThePhoneRefusesPushesNoSubscriptionOut) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto subscribe = [&](int status) {
        w.home.request("SUBSCRIBE", w.home.paths[p.impi], p.contact(),
                       "Contact: <" + std::string(far_target) + ">\r\nEvent: presence\r\n");
        w.run();
        const Wire asked = p.last();
        EXPECT_EQ(asked.message.method(), "SUBSCRIBE");
        p.answer(asked, status, "Contact: <" + p.contact() + ">\r\n");
        w.run();
        return asked;
    };
    const auto notify = [&](const Wire& asked) {
        p.send_on(p.current(),
                  with_header(p.request("NOTIFY", far_target,
                                        "From: " + asked.message.header("To") +
                                            ";tag=ue\r\nTo: <sip:bob@home.example>;tag=b\r\n"
                                            "Event: presence\r\n"),
                              "Call-ID", asked.message.header("Call-ID")));
        w.run();
        return p.last_status();
    };
    const Wire wanted = subscribe(200);
    for (int i = 0; i < 40; ++i) (void)subscribe(403);
    EXPECT_EQ(notify(wanted), 200);
    EXPECT_EQ(notify(subscribe(403)), 481);
    w.expect_no_leak(1);
}

// RFC 3261 13.2.2.4: an ACK may come when the dialog has ended, as long as its 2xx is repeated.
TEST(ProxyRules, AnAckBehindTheBye) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(200);
    const std::string ack = call.request("ACK");
    w.home.silent = false;
    call.say("BYE");
    ASSERT_EQ(w.gateway->dialogs(), 0U);
    p.send_on(p.current(), ack);
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 1U);
    w.advance(40s);
    p.send_on(p.current(), ack);
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), 1U) << "nobody waits for it any more";
    EXPECT_EQ(w.drops(Reason::unknown_transaction), 1U);

    // That of a re-INVITE too.
    OutgoingCall other(w, p);
    other.establish();
    w.advance(40s);  // the INVITE that made it is over
    w.home.silent = true;
    other.say("INVITE", "home", "Contact: <" + p.contact() + ">\r\n");
    w.home.reply(w.home.inbox.back(), 200, "Contact: <" + std::string(far_target) + ">\r\n");
    w.run();
    const std::string late =
        with_header(other.request("ACK"), "CSeq", std::to_string(other.last_cseq) + " ACK");
    from_core(w, other.from_far("BYE", 1));
    w.run();
    p.answer(p.last(), 200);
    w.run();
    ASSERT_EQ(w.gateway->dialogs(), 0U);
    const auto acks = count_of(w.home.inbox, "ACK");
    p.send_on(p.current(), late);
    w.run();
    EXPECT_EQ(count_of(w.home.inbox, "ACK"), acks + 1);
    w.home.silent = false;
    other.say("INFO");
    EXPECT_EQ(p.last_status(), 481) << "an ACK alone";
    w.expect_no_leak(1);
}

// RFC 3261 16.7 step 6: a 503 says that its sender takes nothing; passed on it would be ours.
TEST(ProxyRules, A503OfAnotherIsNotOurs) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    w.home.reply(w.home.inbox.back(), 503, "Retry-After: 600\r\nWarning: 399 x \"full\"\r\n");
    w.run();
    EXPECT_EQ(p.last_status(), 500);
    EXPECT_TRUE(p.last().message.text.starts_with("SIP/2.0 500 Server Internal Error\r\n"));
    EXPECT_EQ(p.last().message.header("Retry-After"), "");
    EXPECT_NE(p.last().message.header("Warning"), "");
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    p.answer(p.last(), 503, "Retry-After: 600\r\n");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 500);
    EXPECT_EQ(w.home.inbox.back().message.header("Retry-After"), "");
    w.expect_no_leak(1);
}

// RFC 3261 9.1, 17.1.2: sent again over UDP alone, until it is answered; its answer is nobody's
// drop. What the caller says of it (RFC 3326) goes along.
TEST(ProxyRules, ACancelIsATransaction) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w;
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        IncomingCall call(w, p);
        call.answer(180);
        from_core(w, with_header(cancel_of(call.text), "Max-Forwards",
                                 "70\r\nReason: SIP;cause=200;text=\"Call completed, elsewhere\","
                                 " Q.850;cause=16"));
        w.run();
        ASSERT_EQ(count_of(p.inbox, "CANCEL"), 1U);
        EXPECT_EQ(p.last().message.header("Reason"),
                  "SIP;cause=200;text=\"Call completed, elsewhere\", Q.850;cause=16");
        w.advance(10s);
        const bool udp = transport == sip::Transport::udp;
        const auto sent = count_of(p.inbox, "CANCEL");
        EXPECT_EQ(sent, udp ? 5U : 1U);
        p.answer(*latest(p.inbox, "CANCEL"), 200);
        w.run();
        w.advance(10s);
        EXPECT_EQ(count_of(p.inbox, "CANCEL"), sent) << "answered";
        for (const Reason r : {Reason::stray_response, Reason::unknown_transaction})
            EXPECT_EQ(w.drops(r), 0U);
        // The INVITE itself stays without an answer: given up, 64·T1 after the CANCEL.
        w.advance(13s);
        EXPECT_EQ(w.home.inbox.back().message.status(), 487);
        w.expect_no_leak(1);
    }
    // From the phone.
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(180);
    p.send_on(p.current(), cancel_of(call.text));
    w.run();
    const Wire cancel = *latest(w.home.inbox, "CANCEL");
    EXPECT_EQ(cancel.message.header("Reason"), "");
    w.home.reply(cancel, 200);
    w.advance(10s);
    EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
    w.home.reply(call.invite, 487);
    w.run();
    w.home.reply(cancel, 200);  // it overtakes nobody
    w.run();
    EXPECT_EQ(p.last_status(), 487);
    EXPECT_EQ(w.drops(Reason::unknown_transaction), 0U);
    w.expect_no_leak(1);
}

// At the stop nobody is left to wait for an answer.
TEST(ProxyRules, WhatIsUnderWayAtTheStopIsAnswered) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall running(w, p);
    running.establish();
    OutgoingCall call(w, p);
    call.answer(180);
    IncomingCall other(w, p);
    other.answer(180);
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    ASSERT_EQ(w.gateway->proxied(), 5U) << "with the call that waits for further answers";
    w.gateway->shut_down();
    w.run();
    EXPECT_EQ(w.gateway->proxied(), 0U);
    EXPECT_EQ(count_of(p.inbox, "503"), 2U);
    EXPECT_EQ(count_of(w.home.inbox, "503"), 2U);
    EXPECT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
    EXPECT_EQ(count_of(p.inbox, "CANCEL"), 1U);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U) << "sessions go on without us";
    EXPECT_EQ(count_of(p.inbox, "BYE"), 0U);
    // What comes late does no harm.
    call.answer(200);
    other.answer(200);
    w.advance(40s);
    EXPECT_EQ(w.gateway->proxied(), 0U);
}

}  // namespace
}  // namespace gmgate::test
