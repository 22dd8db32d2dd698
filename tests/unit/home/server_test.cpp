#include "home/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "control/sip/build.h"
#include "home/commands.h"
#include "home/cx_log.h"
#include "home/stats.h"
#include "tests/unit/home/server_support.h"

namespace gmgate::home {
namespace {

using sip::HeaderId;
using test::endpoint;
using test::Phone;
using test::Reply;
using test::ServerTest;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using namespace std::chrono_literals;

TEST_F(ServerTest, RegisterRetransmissionGetsTheSameAnswerAndCostsNoVector) {
    const auto text = a.initial().text();
    deliver(text);
    const auto first = sent();
    EXPECT_EQ(first->status(), 401);
    EXPECT_EQ(flow.remote, endpoint("192.0.2.1:5070"));
    deliver(text);
    EXPECT_EQ(sent()->bytes, first->bytes);
    EXPECT_EQ(registrar->counters().requests, 1U);
}

TEST_F(ServerTest, AnswersGoWhereTheViaSays) {
    auto nat = pcscf;
    nat.remote = endpoint("203.0.113.5:9999");
    deliver(request("OPTIONS", "sip:ims.example"), nat);
    EXPECT_EQ(sent()->status(), 200);
    EXPECT_EQ(flow.remote, endpoint("203.0.113.5:5070"));
    auto text = request("OPTIONS", "sip:ims.example");
    text.replace(text.find(";branch"), 7, ";rport;branch");
    deliver(text, nat);
    EXPECT_THAT(sent()->header(HeaderId::via), HasSubstr("rport=9999"));
    EXPECT_EQ(flow.remote, endpoint("203.0.113.5:9999"));
    auto tcp = pcscf;
    tcp.transport = sip::Transport::tcp;
    tcp.connection = 17;
    tcp.remote = endpoint("192.0.2.1:40000");
    deliver(request("OPTIONS", "sip:ims.example"), tcp);
    EXPECT_EQ(sent()->status(), 200);
    EXPECT_EQ(flow.connection, 17U);
    EXPECT_EQ(flow.remote, endpoint("192.0.2.1:40000"));
}

TEST_F(ServerTest, DomainAndServicesAnswerThemselves) {
    deliver(request("OPTIONS", "sip:ims.example"));
    const auto options = sent();
    EXPECT_EQ(options->status(), 200);
    EXPECT_EQ(options->header(HeaderId::allow), "REGISTER, SUBSCRIBE, MESSAGE, OPTIONS");
    deliver(request("OPTIONS", "sip:192.0.2.9"));
    EXPECT_EQ(sent()->status(), 200);
    deliver(request("MESSAGE", "sip:echo@ims.example", "Content-Type: text/plain\r\n", "x"));
    EXPECT_EQ(sent()->status(), 200);
    EXPECT_EQ(server->counters().answered_here, 3U);
    deliver(request("MESSAGE", "sip:echo@elsewhere.example", "Content-Type: text/plain\r\n", "x"));
    EXPECT_EQ(sent()->status(), 404);
}

TEST_F(ServerTest, MessageFromPhoneToPhoneAndItsAnswerBack) {
    enroll(a, "<sip:token-a@192.0.2.1:5070;lr>");
    enroll(b, "<sip:token-b@192.0.2.1:5072;lr>, <sip:second@192.0.2.7;lr>");
    for (const auto& target : {b.impu, b.tel}) {
        deliver(from_phone(a, target));
        const auto forwarded = sent();
        EXPECT_EQ(flow.remote, endpoint("192.0.2.1:5072"));
        EXPECT_EQ(flow.local, endpoint("192.0.2.9:5060"));
        EXPECT_EQ(flow.transport, sip::Transport::udp);
        const auto& m = forwarded->message;
        EXPECT_EQ(m.request_uri(), b.contact_uri);
        EXPECT_EQ(m.count(HeaderId::route), 1U);
        EXPECT_EQ(forwarded->header(HeaderId::route),
                  "<sip:token-b@192.0.2.1:5072;lr>, <sip:second@192.0.2.7;lr>");
        EXPECT_EQ(forwarded->header(HeaderId::max_forwards), "68");
        EXPECT_EQ(forwarded->header(HeaderId::p_called_party_id), "<" + target + ">");
        EXPECT_EQ(forwarded->header(HeaderId::p_asserted_identity), "<" + a.impu + ">");
        EXPECT_EQ(m.count(HeaderId::via), 2U);
        EXPECT_THAT(forwarded->header(HeaderId::via),
                    StartsWith("SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK"));
        EXPECT_EQ(m.body(), "hello");

        auto from_b = pcscf;
        from_b.remote = endpoint("192.0.2.1:5072");
        deliver(response_to(*forwarded, 200), from_b);
        const auto back = sent();
        EXPECT_EQ(back->status(), 200);
        EXPECT_EQ(back->message.count(HeaderId::via), 1U);
        EXPECT_THAT(back->header(HeaderId::via),
                    HasSubstr(fmt::format("branch=z9hG4bKr{}", branch)));
        EXPECT_EQ(flow.remote, endpoint("192.0.2.1:5070"));
        // The answer's retransmission is absorbed.
        deliver(response_to(*forwarded, 200), from_b);
        EXPECT_TRUE(transport.sent.empty());
    }
    // And the other way.
    deliver(from_phone(b, a.impu));
    EXPECT_EQ(sent()->message.request_uri(), a.contact_uri);
    EXPECT_EQ(server->counters().routed, 3U);
    EXPECT_EQ(server->counters().routed_answers, 2U);
}

TEST_F(ServerTest, OptionsToARegisteredPhoneIsRouted) {
    enroll(b, "<sip:token-b@192.0.2.1:5072;lr>");
    deliver(request("OPTIONS", b.impu));
    EXPECT_EQ(sent()->message.request_uri(), b.contact_uri);
}

TEST_F(ServerTest, TransportAndFamilyOfThePath) {
    enroll(b, "<sip:token@[2001:db8::1]:5072;transport=TCP;lr>");
    deliver(request("OPTIONS", b.impu));
    const auto forwarded = sent();
    EXPECT_EQ(flow.transport, sip::Transport::tcp);
    EXPECT_EQ(flow.remote, endpoint("[2001:db8::1]:5072"));
    EXPECT_EQ(flow.local, endpoint("[2001:db8::9]:0"));
    EXPECT_THAT(forwarded->header(HeaderId::via), StartsWith("SIP/2.0/TCP [2001:db8::9]:5060;"));
}

TEST_F(ServerTest, WithoutAPathTheContactIsTheNextHop) {
    enroll(b, "");
    deliver(from_phone(b, b.impu));
    const auto forwarded = sent();
    EXPECT_EQ(flow.remote, endpoint("10.0.0.2:5061"));
    EXPECT_FALSE(forwarded->message.has(HeaderId::route));
}

TEST_F(ServerTest, WhoIsNotThere) {
    enroll(a, "<sip:token-a@192.0.2.1:5070;lr>");
    deliver(from_phone(a, b.impu));
    EXPECT_EQ(sent()->status(), 480);
    deliver(from_phone(a, "sip:someone@elsewhere.example"));
    EXPECT_EQ(sent()->status(), 404);
    deliver(from_phone(a, "tel:+999"));
    EXPECT_EQ(sent()->status(), 404);
    deliver(from_phone(a, "sip:ims.example"));
    EXPECT_EQ(sent()->status(), 404);
    deliver(from_phone(b, a.impu));  // b is not registered
    EXPECT_EQ(sent()->status(), 403);
    deliver(request("MESSAGE", a.impu,
                    "Route: <sip:orig@scscf.ims.example;lr>\r\n"));  // nobody asserted
    EXPECT_EQ(sent()->status(), 403);
    EXPECT_EQ(server->counters().not_registered, 4U);
    EXPECT_EQ(server->counters().forbidden, 2U);
}

TEST_F(ServerTest, WhatIsRejected) {
    enroll(b, "<sip:token@192.0.2.1:5072;lr>");
    for (const auto* uri : {"sip:ims.example", "sip:echo@ims.example"}) {
        deliver(request("PUBLISH", uri));
        const auto reply = sent();
        EXPECT_EQ(reply->status(), 405);
        EXPECT_EQ(reply->header(HeaderId::allow), "REGISTER, SUBSCRIBE, MESSAGE, OPTIONS");
    }
    deliver(request("CANCEL", b.impu));
    EXPECT_EQ(sent()->status(), 481);
    deliver(request("OPTIONS", b.impu, {}, {}, 0));
    EXPECT_EQ(sent()->status(), 483);
    deliver(request("MESSAGE", "mailto:x@y"));
    EXPECT_EQ(sent()->status(), 416);
    deliver(request("NOTIFY", "sip:192.0.2.9:5060", "Event: reg\r\n"));
    EXPECT_EQ(sent()->status(), 481);
    EXPECT_EQ(server->counters().rejected, 6U);
    EXPECT_EQ(server->counters().routed, 0U);
}

TEST_F(ServerTest, ExtensionsThatAreNotKnown) {
    enroll(b, "<sip:token@192.0.2.1:5072;lr>");
    deliver(request("MESSAGE", b.impu, "Proxy-Require: warp, drive\r\n"));
    const auto refused = sent();
    EXPECT_EQ(refused->status(), 420);
    EXPECT_EQ(refused->header(HeaderId::unsupported), "warp, drive");
    for (const auto* uri : {"sip:ims.example", "sip:echo@ims.example"}) {
        deliver(request("OPTIONS", uri, "Require: warp\r\n"));
        const auto reply = sent();
        EXPECT_EQ(reply->status(), 420) << uri;
        EXPECT_EQ(reply->header(HeaderId::unsupported), "warp");
    }
    deliver(request("SUBSCRIBE", b.impu, "Event: reg\r\nRequire: warp\r\n"));
    EXPECT_EQ(sent()->status(), 420);
    EXPECT_EQ(server->counters().rejected, 4U);
    // Require is the phone's to judge; a CANCEL is never refused for it (RFC 3261 8.2.2.3).
    deliver(request("MESSAGE", b.impu, "Require: warp\r\n"));
    EXPECT_TRUE(sent()->message.is_request());
    deliver(request("CANCEL", b.impu, "Proxy-Require: warp\r\n"));
    EXPECT_EQ(sent()->status(), 481);
}

TEST_F(ServerTest, AnyMethodGoesToAPhone) {
    enroll(b, "<sip:token@192.0.2.1:5072;lr>");
    for (const auto* method : {"PUBLISH", "INFO", "REFER", "NOTIFY", "DANCE"}) {
        deliver(request(method, b.impu));
        EXPECT_EQ(sent()->message.request_uri(), b.contact_uri) << method;
    }
}

TEST_F(ServerTest, GarbageIsCountedNotAnswered) {
    deliver("\r\n\r\n");
    EXPECT_EQ(server->counters().garbage, 0U);
    deliver("hello");
    deliver("SIP/2.0 200 OK\r\n\r\n");
    deliver("OPTIONS sip:ims.example SIP/2.0\r\n\r\n");
    EXPECT_EQ(server->counters().garbage, 3U);
    deliver(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKunknown\r\nFrom: "
        "<sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"
        "Call-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(server->counters().stray_responses, 1U);
    EXPECT_TRUE(transport.sent.empty());
    // Broken, but answerable.
    auto broken = request("OPTIONS", "sip:ims.example");
    broken.replace(broken.find("Content-Length: 0"), 17, "Content-Length: x");
    deliver(broken);
    EXPECT_EQ(sent()->status(), 400);
    server->on_framing_error(pcscf, sip::ParseStatus::content_length_missing, {});
    EXPECT_EQ(server->counters().garbage, 4U);
}

TEST_F(ServerTest, APathThatIsNoAddressIs480) {
    enroll(b, "<sip:token@pcscf.example;lr>");
    deliver(request("OPTIONS", b.impu));
    EXPECT_EQ(sent()->status(), 480);
    EXPECT_EQ(server->counters().routed_failures, 1U);
}

TEST_F(ServerTest, APhoneThatDoesNotAnswerLeavesNothingBehind) {
    enroll(b, "<sip:token@192.0.2.1:5072;lr>");
    deliver(request("OPTIONS", b.impu));
    sent();
    advance(20s);
    EXPECT_GT(transport.sent.size(), 3U);  // retransmitted over UDP
    for (const auto& s : transport.sent) EXPECT_EQ(s.flow.remote, endpoint("192.0.2.1:5072"));
    transport.sent.clear();
    advance(60s);
    for (const auto& s : transport.sent)
        EXPECT_EQ(s.flow.remote, endpoint("192.0.2.1:5072"));  // RFC 4320: no 408
    EXPECT_EQ(server->counters().routed_failures, 1U);
    EXPECT_EQ(server->transactions(), 0U);
}

TEST_F(ServerTest, AConnectionThatFailsIs480) {
    enroll(b, "<sip:token@192.0.2.1:5072;transport=tcp;lr>");
    const auto text = request("OPTIONS", b.impu);
    transport.accept = false;
    deliver(text);
    transport.accept = true;
    deliver(text);  // the retransmission gets what could not be sent
    EXPECT_EQ(sent()->status(), 480);

    deliver(request("OPTIONS", b.impu));
    sent();
    server->on_connection_closed(flow, false);
    advance(100ms);
    EXPECT_EQ(sent()->status(), 480);
    EXPECT_EQ(server->counters().routed_failures, 2U);
}

TEST_F(ServerTest, ProvisionalAnswersPassHundredDoesNot) {
    enroll(b, "<sip:token@192.0.2.1:5072;lr>");
    deliver(request("OPTIONS", b.impu));
    const auto forwarded = sent();
    deliver(response_to(*forwarded, 100));
    EXPECT_TRUE(transport.sent.empty());
    deliver(response_to(*forwarded, 183));
    EXPECT_EQ(sent()->status(), 183);
    deliver(response_to(*forwarded, 486));
    EXPECT_EQ(sent()->status(), 486);
}

// ---- by command
// ------------------------------------------------------------------------------------------------------------

TEST_F(ServerTest, CommandMessage) {
    enroll(b, "<sip:token-b@192.0.2.1:5072;lr>");
    Commands commands(*server, *registrar, cx);
    std::string answer;
    const auto run = [&](std::string_view line) {
        answer.clear();
        commands.execute(line, [&](std::string text) { answer = std::move(text); });
    };
    run("message " + b.tel + "  good morning  ");
    EXPECT_TRUE(answer.empty());
    const auto message = sent();
    EXPECT_EQ(message->message.method(), "MESSAGE");
    EXPECT_EQ(message->message.request_uri(), b.contact_uri);
    EXPECT_EQ(message->header(HeaderId::route), "<sip:token-b@192.0.2.1:5072;lr>");
    EXPECT_EQ(message->header(HeaderId::p_asserted_identity), "<sip:ims.example>");
    EXPECT_EQ(message->message.body(), "good morning");
    EXPECT_FALSE(sip::check_request(message->message));
    deliver(response_to(*message, 180));
    EXPECT_TRUE(answer.empty());
    deliver(response_to(*message, 200));
    EXPECT_EQ(answer, "200 OK");
    EXPECT_TRUE(transport.sent.empty());

    run("options " + b.impu);
    const auto options = sent();
    EXPECT_EQ(options->message.method(), "OPTIONS");
    EXPECT_EQ(options->message.body(), "");
    advance(33s);
    transport.sent.clear();
    EXPECT_EQ(answer, "408 No Answer");

    transport.accept = false;
    run("options " + b.impu);
    EXPECT_THAT(answer, StartsWith("error: cannot send"));
    transport.accept = true;
    EXPECT_EQ(server->counters().originated, 3U);

    run("show " + b.tel);
    EXPECT_THAT(answer, StartsWith("ok\n"));
    EXPECT_THAT(answer, HasSubstr(b.contact_uri));
    EXPECT_THAT(answer, HasSubstr(b.impi));
    run("stats");
    EXPECT_EQ(nlohmann::json::parse(answer).at("registrar").at("registered"), 1);
    run("rechallenge " + b.impu + " often");
    EXPECT_THAT(answer, StartsWith("error: 'rechallenge' needs always or never"));
    run("rechallenge " + b.impu + " always");
    EXPECT_EQ(answer, "ok");
    run("deregister " + b.impu);
    EXPECT_EQ(answer, "ok");
    EXPECT_EQ(registrar->registered(), 0U);

    run("deregister " + b.impu);
    EXPECT_THAT(answer, StartsWith("error: "));
    run("message " + b.impu + " hi");
    EXPECT_THAT(answer, HasSubstr("not registered"));
    run("message " + b.impu);
    EXPECT_THAT(answer, HasSubstr("text"));
    run("options");
    EXPECT_THAT(answer, HasSubstr("identity"));
    run("dance");
    EXPECT_THAT(answer, HasSubstr("unknown command 'dance'"));
    run("");
    EXPECT_THAT(answer, StartsWith("error: "));
}

TEST_F(ServerTest, CommandCxTellsOfOneUserOrOfAll) {
    Commands commands(*server, *registrar, cx);
    std::string answer;
    const auto run = [&](std::string_view line) {
        commands.execute(line, [&](std::string text) { answer = std::move(text); });
    };
    run("cx");
    EXPECT_THAT(answer, StartsWith("error: Cx is not traced"));
    cx.remember();
    run("cx");
    EXPECT_EQ(answer, "ok");
    enroll(a, "<sip:token-a@192.0.2.1:5072;lr>");
    enroll(b, "<sip:token-b@192.0.2.1:5072;lr>");
    const auto lines = [&] { return std::ranges::count(answer, '\n'); };
    run("cx");
    EXPECT_EQ(lines(), 8);  // Query, Av-Req, Put, Pull of each
    run("cx " + b.impi);
    EXPECT_THAT(answer, StartsWith("ok\n"));
    EXPECT_EQ(lines(), 4);
    EXPECT_THAT(answer, HasSubstr("impi=" + b.impi));
    EXPECT_THAT(answer, Not(HasSubstr(a.impi)));
    run("cx nobody@ims.example");
    EXPECT_EQ(answer, "ok");
}

TEST_F(ServerTest, StatsHoldNoIdentityAndLeaveZeroesOut) {
    enroll(b, "<sip:token-b@192.0.2.1:5072;lr>");
    const auto stats = stats_json(*registrar, cx.counters(), *server);
    EXPECT_EQ(stats.at("registrar").at("registrations"), 1);
    EXPECT_EQ(stats.at("cx").at("put_by_assignment").at("REGISTRATION"), 1);
    EXPECT_EQ(stats.at("cx").at("av_request").at("ok"), 1);
    EXPECT_EQ(stats.at("server").at("requests"), 2);
    const auto text = stats_text(stats);
    EXPECT_THAT(text, HasSubstr("registrar registrations"));
    EXPECT_THAT(text, Not(HasSubstr("garbage")));
    EXPECT_THAT(text + stats.dump(), Not(HasSubstr("00101")));
}

}  // namespace
}  // namespace gmgate::home
