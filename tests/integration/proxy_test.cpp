// Requests of registered users, both ways (E2, E3), and what is not let through.

#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

TEST(Proxy, WhatTheCoreSees) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(),
              p.request("MESSAGE", "sip:bob@home.example",
                        "P-Asserted-Identity: <sip:president@home.example>\r\nSecurity-Verify: " +
                            p.current().server +
                            "\r\nRequire: sec-agree\r\nProxy-Require: "
                            "sec-agree\r\nP-Charging-Vector: icid-value=1\r\n"));
    w.run();
    const Sip& m = w.home.inbox.back().message;
    EXPECT_EQ(m.method(), "MESSAGE");
    EXPECT_EQ(m.header("P-Asserted-Identity"), "<sip:alice@home.example>");
    EXPECT_FALSE(m.has("Security-Verify"));
    EXPECT_FALSE(m.has("Require"));
    EXPECT_FALSE(m.has("Proxy-Require"));
    EXPECT_EQ(m.header("Route"), w.home.service_route);
    EXPECT_EQ(m.header("Max-Forwards"), "69");
    EXPECT_FALSE(m.contains("icid-value=1\r\n"));
    EXPECT_TRUE(m.has("P-Charging-Vector"));
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_FALSE(p.last().message.has("P-Charging-Vector"));
    w.expect_no_leak(1);
}

TEST(Proxy, PreferredIdentity) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example",
                                     "P-Preferred-Identity: <tel:+15550100>\r\n"));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.header("P-Asserted-Identity"), "<tel:+15550100>");
    EXPECT_FALSE(w.home.inbox.back().message.has("P-Preferred-Identity"));
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example",
                                     "P-Preferred-Identity: <sip:other@x.example>\r\n"));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.header("P-Asserted-Identity"),
              "<sip:alice@home.example>");
    w.expect_no_leak(1);
}

TEST(Proxy, RouteMustBeTheServiceRoute) {
    for (const bool reject : {false, true}) {
        World::Options options;
        options.policy.service_route_mismatch = reject
                                                    ? registration::ServiceRouteMismatch::reject
                                                    : registration::ServiceRouteMismatch::replace;
        World w(options);
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        const auto at_home = w.home.inbox.size();
        p.send_on(p.current(),
                  p.request("MESSAGE", "sip:bob@home.example", "Route: <sip:192.0.2.66;lr>\r\n"));
        w.run();
        if (reject) {
            EXPECT_EQ(p.last_status(), 400);
            EXPECT_EQ(w.home.inbox.size(), at_home);
        } else {
            EXPECT_EQ(w.home.inbox.back().message.header("Route"), w.home.service_route);
        }
        // Our address with its own flow token is our route; with another's it is one like any.
        Phone& other = w.phone("bob", "10.2.0.2");
        ASSERT_TRUE(other.register_once());
        for (const Phone* whose : {&p, &other}) {
            const auto before = w.home.inbox.size();
            const std::string& path = w.home.paths[whose->impi];
            const std::string ours = path.substr(0, path.find('@')) + "@192.0.2.1:5060;lr>";
            p.send_on(p.current(),
                      p.request("MESSAGE", "sip:bob@home.example",
                                "Route: " + ours + ", " + w.home.service_route + "\r\n"));
            w.run();
            const bool taken = whose == &p || !reject;
            EXPECT_EQ(p.last_status(), taken ? 200 : 400);
            ASSERT_EQ(w.home.inbox.size(), before + (taken ? 1 : 0));
            EXPECT_FALSE(w.home.inbox.back().message.header("Route").contains("192.0.2.1"));
        }
        w.expect_no_leak(2);
    }
}

TEST(Proxy, AForeignIdentityIsDiscarded) {
    World w;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    const auto at_home = w.home.inbox.size();
    const auto heard = mallory.inbox.size();
    mallory.send_on(mallory.current(), mallory.request("MESSAGE", "sip:bob@home.example",
                                                       "From: <sip:alice@home.example>;tag=1\r\n"));
    mallory.send_on(mallory.current(),
                    mallory.request("MESSAGE", "sip:bob@home.example",
                                    "P-Preferred-Identity: <sip:alice@home.example>\r\n"));
    w.advance(40s);
    EXPECT_EQ(w.home.inbox.size(), at_home);
    EXPECT_EQ(mallory.inbox.size(), heard) << "B7: never answered";
    EXPECT_EQ(w.drops(Reason::wrong_sa), 2U);
    w.expect_no_leak(2);
}

TEST(Proxy, ToTheUe) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), "Privacy: id\r\n", "hi");
    w.run();
    const Wire asked = p.last();
    EXPECT_EQ(asked.message.method(), "MESSAGE");
    EXPECT_FALSE(asked.message.has("Route"));
    EXPECT_FALSE(asked.message.has("P-Charging-Vector"));
    EXPECT_FALSE(asked.message.has("P-Asserted-Identity")) << "Privacy: id";
    EXPECT_EQ(asked.message.header("Max-Forwards"), "59");
    const std::string via = asked.message.header("Via");
    EXPECT_TRUE(
        via.starts_with("SIP/2.0/UDP 10.1.0.1:" + std::to_string(p.current().numbers.port_ps)))
        << via;
    p.answer(asked, 202, "P-Asserted-Identity: <sip:evil@home.example>\r\n");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 202);
    EXPECT_EQ(w.home.inbox.back().message.header("P-Asserted-Identity"),
              "<sip:alice@home.example>");
    w.expect_no_leak(1);
}

// A Request-URI has no brackets around it: what follows its host is the URI's own, not the
// header's.
TEST(Proxy, TheTargetOfADialogSaysWhichTransport) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example",
                                     "Contact: <" + p.contact() + ">\r\n", "v=0"));
    w.run();
    const std::string routes = w.home.inbox.back().message.header("Record-Route");
    ASSERT_EQ(p.last_status(), 200);
    const auto comma = routes.find(", ");
    const std::string dialog =
        "To: <sip:bob@home.example>;tag=home\r\nRoute: " + routes.substr(comma + 2) + ", " +
        routes.substr(0, comma) + "\r\n";
    const std::string call_id = latest(w.home.inbox, "INVITE")->message.header("Call-ID");
    p.send_on(p.current(), with_header(p.request("ACK", "sip:192.0.2.9:5060;transport=TCP", dialog),
                                       "Call-ID", call_id));
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "ACK");
    EXPECT_EQ(w.home.inbox.back().flow.transport, sip::Transport::tcp);
    EXPECT_TRUE(w.home.inbox.back().message.header("Via").starts_with("SIP/2.0/TCP "));
    p.send_on(p.current(),
              with_header(p.request("INFO", "sip:192.0.2.9:5060", dialog), "Call-ID", call_id));
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "INFO");
    EXPECT_EQ(w.home.inbox.back().flow.transport, sip::Transport::udp);
}

TEST(Proxy, ALargeRequestGoesOverTcpAndBackToUdp) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), {}, std::string(2000, 'x'));
    w.run();
    const Wire asked = p.last();
    EXPECT_EQ(asked.flow.transport, sip::Transport::tcp);
    // The phone takes no TCP: the connection fails.
    sip::Flow failed = asked.flow;
    w.gateway->gm().on_connection_closed(failed, false);
    w.run();
    if (p.last().flow.transport == sip::Transport::tcp) w.advance(1s);
    EXPECT_EQ(p.last().flow.transport, sip::Transport::udp);
    EXPECT_TRUE(p.last().message.contains(std::string(2000, 'x')));
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.expect_no_leak(1);
}

TEST(Proxy, ALargeInviteGoesBackToUdpAndItsCancelWithIt) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const std::string text =
        w.home.request("INVITE", w.home.paths[p.impi], p.contact(),
                       "Contact: <sip:bob@192.0.2.77:5062>\r\n", std::string(2000, 'x'));
    w.run();
    ASSERT_EQ(p.last().flow.transport, sip::Transport::tcp);
    w.gateway->gm().on_connection_closed(p.last().flow, false);
    w.advance(100ms);
    const Wire invite = p.last();
    ASSERT_EQ(invite.message.method(), "INVITE");
    ASSERT_EQ(invite.flow.transport, sip::Transport::udp);
    const std::string via = invite.message.header("Via");
    EXPECT_TRUE(via.starts_with("SIP/2.0/UDP ")) << via;
    p.answer(invite, 180);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 180);
    std::string cancel = replace_once(text, "INVITE ", "CANCEL ");
    from_core(w, replace_once(cancel, " INVITE\r\n", " CANCEL\r\n"));
    w.run();
    const Wire* cancelled = latest(p.inbox, "CANCEL");
    ASSERT_NE(cancelled, nullptr);
    EXPECT_EQ(cancelled->flow.transport, sip::Transport::udp);
    EXPECT_EQ(cancelled->message.header("Via"), via.substr(0, via.find(',')));
    p.answer(*cancelled, 200);
    p.answer(invite, 487);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 487);
    w.expect_no_leak(1);
}

// RFC 3261 18.1.1, towards the core.
TEST(Proxy, ALargeRequestToTheCoreGoesOverTcpAndBackToUdp) {
    for (const bool via_mode : {false, true}) {
        World::Options options;
        if (via_mode) options.policy.interconnect = registration::Interconnect::via;
        World w(options);
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        for (const std::string_view method : {"MESSAGE", "INVITE"}) {
            for (const bool fails : {false, true}) {
                w.home.silent = true;
                p.send_on(p.current(),
                          p.request(method, "sip:bob@home.example",
                                    "Contact: <" + p.contact() + ">\r\n", std::string(2000, 'x')));
                w.run();
                Wire asked = w.home.inbox.back();
                ASSERT_EQ(asked.message.method(), method);
                ASSERT_EQ(asked.flow.transport, sip::Transport::tcp);
                EXPECT_TRUE(asked.message.header("Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060;"));
                if (fails) {
                    w.gateway->core().on_connection_closed(asked.flow, false);
                    w.run();
                    asked = w.home.inbox.back();
                    ASSERT_EQ(asked.message.method(), method);
                    ASSERT_EQ(asked.flow.transport, sip::Transport::udp);
                    EXPECT_EQ(asked.flow.remote, ep("192.0.2.9:6060"));
                    EXPECT_TRUE(
                        asked.message.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5060;"));
                    EXPECT_EQ(asked.message.header("Via").find("TCP"), std::string::npos);
                }
                w.home.reply(asked, 486);
                w.run();
                EXPECT_EQ(p.last_status(), 486) << method << fails;
            }
        }
        w.home.silent = false;
        w.expect_no_leak(1);
    }
}

// The header lines of that name, whole.
std::string lines_of(const Sip& m, std::string_view name) {
    std::string out;
    for (std::size_t at = 0; (at = m.text.find(std::string("\r\n") + std::string(name) + ":",
                                               at)) != std::string::npos;) {
        const std::size_t end = m.text.find("\r\n", at + 2) + 2;
        out += m.text.substr(at + 2, end - at - 2);
        at = end - 2;
    }
    return out;
}

// E4, RFC 3261 16.3: what came back as it was is a loop, what was routed anew meanwhile is a spiral
// and goes on; to a phone and from one.
TEST(Proxy, ARequestThatComesBackUnchangedIsALoop) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const std::string asked =
        w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), {}, "hi");
    w.run();
    const std::string ours = lines_of(p.last().message, "Via");
    ASSERT_NE(ours.find("z9hG4bKg"), std::string::npos) << ours;
    p.answer(p.last(), 200);
    w.run();
    const auto heard = p.inbox.size();
    // Somebody behind the phone, or the phone, sent it back to the core, which knows only one way.
    const auto back = [&](std::string text, const char* branch) {
        const std::size_t via = text.find("Via:");
        text.replace(text.find("branch=", via) + 7, 8, branch);
        text.insert(text.find("\r\n", via) + 2, ours);
        Wire again;
        again.to = Wire::To::gateway_core;
        again.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
        again.message.text = text;
        w.queue.push_back(again);
        w.run();
    };
    back(asked, "z9hG4bKx");
    EXPECT_EQ(p.inbox.size(), heard);
    EXPECT_EQ(w.home.inbox.back().message.status(), 482);
    EXPECT_EQ(w.drops(Reason::loop_detected), 1U);
    // A spiral: the core found another target.
    std::string elsewhere = asked;
    elsewhere.replace(elsewhere.find(p.contact()), p.contact().size(), p.contact() + ";line=2");
    back(elsewhere, "z9hG4bKz");
    ASSERT_EQ(p.inbox.size(), heard + 1);
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.drops(Reason::loop_detected), 1U);

    // From the phone: its own request, with the Via it left us with.
    std::string mine = p.request("MESSAGE", "sip:bob@home.example");
    p.send_on(p.current(), mine);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    const auto sent = std::ranges::find_if(w.home.inbox.rbegin(), w.home.inbox.rend(),
                                           [](const Wire& x) { return x.message.is_request(); });
    const std::string gone = lines_of(sent->message, "Via");
    const auto at_home = w.home.inbox.size();
    mine.replace(mine.find("branch=") + 7, 8, "z9hG4bKy");
    mine.insert(mine.find("\r\n", mine.find("Via:")) + 2, gone);
    p.send_on(p.current(), mine);
    w.run();
    EXPECT_EQ(p.last_status(), 482);
    EXPECT_EQ(w.home.inbox.size(), at_home);
    w.expect_no_leak(1);
}

TEST(Proxy, UnknownFlowAndSilentUe) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    std::string forged = w.home.paths[p.impi];
    forged[forged.find('@') - 1] = forged[forged.find('@') - 1] == '0' ? '1' : '0';
    const auto heard = p.inbox.size();
    w.home.request("MESSAGE", forged, p.contact());
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 404);
    EXPECT_EQ(p.inbox.size(), heard);
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.advance(33s);
    EXPECT_EQ(w.home.inbox.back().message.status(), 404) << "RFC 4320: no 408 to a MESSAGE";
    EXPECT_EQ(w.drops(Reason::ue_timeout), 1U);
    EXPECT_GT(p.inbox.size(), heard + 5) << "retransmitted";
    w.home.request("OPTIONS", "<sip:192.0.2.1;lr>", "sip:192.0.2.1");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.expect_no_leak(1);
}

// RFC 3261 18.1.1: the request as it leaves decides, with what we put in.
TEST(Proxy, ADatagramToThePhoneHasAtMost1300Octets) {
    for (const std::string_view method : {"INVITE", "MESSAGE", "NOTIFY"}) {
        World::Options options;
        options.policy.limits.dialogs_per_user = 1000;
        World w(options);
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        std::size_t largest = 0;
        std::size_t smallest = 10'000;
        for (std::size_t body = 300; body < 1100; body += 10) {
            w.home.request(method, w.home.paths[p.impi], p.contact(),
                           "Content-Type: text/plain\r\n", std::string(body, 'x'));
            w.run();
            ASSERT_EQ(p.last().message.method(), method);
            const bool udp = p.last().flow.transport == sip::Transport::udp;
            const std::size_t size = p.last().message.text.size();
            EXPECT_EQ(
                p.last().message.header("Via").starts_with(udp ? "SIP/2.0/UDP " : "SIP/2.0/TCP "),
                true);
            if (udp) {
                largest = std::max(largest, size);
            } else {
                smallest = std::min(smallest, size);
            }
        }
        EXPECT_LE(largest, 1300U) << method;
        EXPECT_GT(largest, 1280U) << method;
        EXPECT_GT(smallest, 1300U) << method << ": no larger, no need for TCP";
        EXPECT_LT(smallest, 1320U) << method;
    }
}

TEST(Proxy, NotRegistered) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const std::string path = w.home.paths[p.impi];
    ASSERT_TRUE(p.deregister());
    w.home.request("MESSAGE", path, p.contact());
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 480) << "its SAs live, but nothing new begins";
    EXPECT_EQ(count_of(p.inbox, "MESSAGE"), 0U);
    w.advance(60s);
    w.home.request("MESSAGE", path, p.contact());
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 480);
    w.expect_no_leak(0);
}

TEST(Proxy, ACallUpAndDown) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example",
                                     "Contact: <" + p.contact() + ">\r\n", "v=0"));
    w.run();
    const Wire invite = w.home.inbox.back();
    EXPECT_EQ(p.last_status(), 200);
    ASSERT_GE(p.inbox.size(), 3U);
    EXPECT_EQ(p.inbox[p.inbox.size() - 2].message.status(), 100);
    const std::string routes = invite.message.header("Record-Route");
    EXPECT_TRUE(routes.find(";lr>, <sip:10.1.0.1:" + std::to_string(p.current().numbers.port_ps)) !=
                std::string::npos);
    const auto comma = routes.find(", ");
    const std::string core_route = routes.substr(0, comma);
    const std::string ue_route = routes.substr(comma + 2);
    // In the dialog: routes of the dialog, target the other end.
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    const std::string dialog =
        "To: <sip:bob@home.example>;tag=home\r\nRoute: " + ue_route + ", " + core_route + "\r\n";
    p.send_on(p.current(), with_header(p.request("ACK", "sip:192.0.2.9:5060", dialog), "Call-ID",
                                       invite.message.header("Call-ID")));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.method(), "ACK");
    EXPECT_FALSE(w.home.inbox.back().message.has("Route"));
    // The other side ends the call.
    std::string bye = w.home.request("BYE", core_route + ", " + ue_route, p.contact(),
                                     "To: <sip:alice@home.example>;tag=2\r\n");
    bye = replace_once(bye, "tag=b", "tag=home");
    w.queue.back().message.text = with_header(bye, "Call-ID", invite.message.header("Call-ID"));
    w.run();
    ASSERT_EQ(p.last().message.method(), "BYE");
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.expect_no_leak(1);
}

TEST(Proxy, ACallIsCancelled) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    const std::string invite =
        p.request("INVITE", "sip:bob@home.example", "Contact: <" + p.contact() + ">\r\n");
    p.send_on(p.current(), invite);
    w.run();
    const Wire at_home = w.home.inbox.back();
    w.home.reply(at_home, 180);
    w.run();
    EXPECT_EQ(p.last_status(), 180);
    std::string cancel = invite;
    cancel.replace(0, 6, "CANCEL");
    cancel.replace(cancel.find(" INVITE\r\n"), 9, " CANCEL\r\n");
    p.send_on(p.current(), cancel);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.home.inbox.back().message.method(), "CANCEL");
    EXPECT_EQ(w.home.inbox.back().message.header("Via"),
              at_home.message.header("Via").substr(0, at_home.message.header("Via").find(',')));
    w.home.reply(at_home, 487);
    w.run();
    EXPECT_EQ(p.last_status(), 487);
    EXPECT_EQ(w.home.inbox.back().message.method(), "ACK");
    std::string ack = invite;
    ack.replace(0, 6, "ACK");
    ack.replace(ack.find(" INVITE\r\n"), 9, " ACK\r\n");
    p.send_on(p.current(), ack);
    w.expect_no_leak(1);
}

TEST(Proxy, CoreSilentTo504) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.advance(33s);
    EXPECT_EQ(p.last_status(), 504);
    w.expect_no_leak(1);
}

TEST(Proxy, BadExtensionAndTooManyHops) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(),
              p.request("MESSAGE", "sip:bob@home.example", "Proxy-Require: warp-drive\r\n"));
    w.run();
    EXPECT_EQ(p.last_status(), 420);
    EXPECT_EQ(p.last().message.header("Unsupported"), "warp-drive");
    std::string text = p.request("MESSAGE", "sip:bob@home.example");
    text.replace(text.find("Max-Forwards: 70"), 16, "Max-Forwards: 0");
    p.send_on(p.current(), text);
    w.run();
    EXPECT_EQ(p.last_status(), 483);
    w.expect_no_leak(1);
}

// RFC 3261 16.3: what is for us goes no further; 16.6 step 3: who counted nothing gets the most.
TEST(Proxy, MaxForwardsIsOfWhatIsForwarded) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto ask = [&](std::string_view method, const std::string& path, const std::string& uri,
                         std::string_view hops) {
        const std::string text = w.home.request(method, path, uri);
        w.queue.pop_back();
        from_core(w, replace_once(text, "Max-Forwards: 60\r\n", hops));
        w.run();
    };
    ask("OPTIONS", "<sip:192.0.2.1;lr>", "sip:192.0.2.1", "Max-Forwards: 0\r\n");
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    const std::string path = w.home.paths[p.impi];
    ask("OPTIONS", path, p.contact(), "Max-Forwards: 0\r\n");
    EXPECT_EQ(w.home.inbox.back().message.status(), 483);
    ask("MESSAGE", path, p.contact(), "");
    ASSERT_EQ(p.last().message.method(), "MESSAGE");
    EXPECT_EQ(p.last().message.header("Max-Forwards"), "70");
    p.answer(p.last(), 200);
    w.run();
    p.send_on(p.current(), replace_once(p.request("MESSAGE", "sip:bob@home.example"),
                                        "Max-Forwards: 70\r\n", ""));
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.header("Max-Forwards"), "70");
    w.expect_no_leak(1);
}

// E3: a Contact may name the other transport than that of the REGISTER.
TEST(Proxy, TheContactSaysWhichTransport) {
    using sip::Transport;
    const struct {
        Transport registered;
        std::string_view contact, target;
        Transport goes;
    } cases[] = {
        {Transport::tcp, "", "", Transport::tcp},
        {Transport::udp, "", "", Transport::udp},
        {Transport::tcp, ";transport=udp", "", Transport::udp},
        {Transport::udp, ";transport=TCP", "", Transport::tcp},
        {Transport::tcp, ";transport=UDP", ";transport=tcp", Transport::tcp},
        {Transport::udp, ";transport=tcp", ";transport=udp", Transport::udp},
        {Transport::tcp, ";transport=sctp", "", Transport::tcp},
    };
    for (const auto& c : cases) {
        World w;
        Phone& p = w.phone("alice", "10.2.0.1", c.registered);
        RegisterOptions o;
        const std::string bare = p.contact().substr(0, p.contact().find(";transport"));
        o.contact = "<" + bare + std::string(c.contact) + ">";
        ASSERT_TRUE(p.challenged(false, o));
        p.send_sm7(o);
        w.run();
        ASSERT_EQ(p.last_status(), 200);
        p.accept();
        w.home.request("MESSAGE", w.home.paths[p.impi], bare + std::string(c.target));
        w.run();
        ASSERT_EQ(p.last().message.method(), "MESSAGE");
        EXPECT_EQ(p.last().flow.transport, c.goes) << c.contact << " " << c.target;
    }
}

}  // namespace
}  // namespace gmgate::test
