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
#include "tests/unit/home/phone_support.h"

namespace gmgate::home {
namespace {

using sip::HeaderId;
using test::Phone;
using test::Reply;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using namespace std::chrono_literals;

class FakeTransport final : public sip::TransportLayer {
  public:
    struct Sent {
        sip::Flow flow;
        std::string bytes;
    };
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        if (!accept) return false;
        sent.push_back({flow, std::string(bytes.data(), bytes.size())});
        return true;
    }
    void close(sip::ConnectionId) override {}
    bool accept = true;
    std::vector<Sent> sent;
};

Endpoint endpoint(std::string_view text) {
    return *Endpoint::parse(text);
}

struct ServerTest : testing::Test {
    ServerTest() {
        EXPECT_TRUE(
            hss.add(*SubscriberRule::parse("100:001010000000001", test::seed, test::realm)));
        RegistrarConfig c;
        c.realm = test::realm;
        c.server_name = "sip:scscf.ims.example";
        c.service_route = {"sip:orig@192.0.2.9:5060;lr"};
        registrar = std::make_unique<Registrar>(c, cx, wheel, random);
        ServerConfig s;
        s.listen = {endpoint("192.0.2.9:5060"), endpoint("[2001:db8::9]:5060")};
        server = std::make_unique<Server>(s, *registrar, wheel, random);
        server->attach(transport);
        pcscf.local = endpoint("192.0.2.9:5060");
        pcscf.remote = endpoint("192.0.2.1:5070");
    }
    void deliver(const std::string& text, const sip::Flow& from) {
        auto copy = text;
        server->on_message(from, copy);
    }
    void deliver(const std::string& text) { deliver(text, pcscf); }
    // The one message that was sent since the last call.
    std::unique_ptr<Reply> sent() {
        EXPECT_EQ(transport.sent.size(), 1U);
        if (transport.sent.empty()) return std::make_unique<Reply>("SIP/2.0 999 Nothing\r\n\r\n");
        flow = transport.sent.back().flow;
        auto out = std::make_unique<Reply>(transport.sent.back().bytes);
        transport.sent.clear();
        EXPECT_EQ(out->message.status(), sip::ParseStatus::ok) << out->bytes;
        return out;
    }
    void enroll(Phone& p, const std::string& path) {
        auto r = p.initial();
        r.branch += p.impi;
        r.call_id = p.impi;
        deliver(r.text());
        const auto challenge = sent();
        ASSERT_EQ(challenge->status(), 401);
        auto answer = p.answer(*challenge);
        answer.path = path;
        answer.branch += p.impi;
        answer.call_id = p.impi;
        deliver(answer.text());
        ASSERT_EQ(sent()->status(), 200);
    }
    std::string request(std::string_view method, std::string_view uri, std::string_view extra = {},
                        std::string_view body = {}, unsigned max_forwards = 69) {
        ++branch;
        return fmt::format(
            "{} {} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKr{}\r\nMax-Forwards: "
            "{}\r\n"
            "From: <{}>;tag=a\r\nTo: <{}>\r\nCall-ID: c{}\r\nCSeq: 1 {}\r\n{}Content-Length: "
            "{}\r\n\r\n{}",
            method, uri, branch, max_forwards, a.impu, uri, branch, method, extra, body.size(),
            body);
    }
    // As the gateway forwards a request of phone `p`.
    std::string from_phone(const Phone& p, std::string_view uri, std::string_view body = "hello") {
        return request("MESSAGE", uri,
                       fmt::format("Route: <sip:orig@192.0.2.9:5060;lr>\r\nP-Asserted-Identity: "
                                   "<{}>\r\nContent-Type: text/plain\r\n",
                                   p.impu),
                       body);
    }
    static std::string response_to(const Reply& forwarded, int status) {
        std::string out;
        sip::ResponseOptions options;
        options.to_tag = "b";
        EXPECT_TRUE(sip::build_response(forwarded.message, status, options, out));
        return out;
    }
    void advance(Duration by) {
        // In steps: retransmission timers restart from the time they fire.
        for (Duration done{}; done < by; done += 100ms) {
            clock.advance(100ms);
            wheel.advance();
        }
    }

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{7};
    LocalHss hss{random};
    CxLog cx{hss, log::Level::debug};
    std::unique_ptr<Registrar> registrar;
    FakeTransport transport;
    std::unique_ptr<Server> server;
    sip::Flow pcscf, flow;
    Phone a{0}, b{1};
    unsigned branch = 0;
};

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
    deliver(request("PUBLISH", b.impu));
    const auto reply = sent();
    EXPECT_EQ(reply->status(), 405);
    EXPECT_EQ(reply->header(HeaderId::allow), "REGISTER, SUBSCRIBE, MESSAGE, OPTIONS");
    deliver(request("CANCEL", b.impu));
    EXPECT_EQ(sent()->status(), 481);
    deliver(request("OPTIONS", b.impu, {}, {}, 0));
    EXPECT_EQ(sent()->status(), 483);
    deliver(request("MESSAGE", "mailto:x@y"));
    EXPECT_EQ(sent()->status(), 416);
    EXPECT_EQ(server->counters().rejected, 4U);
    EXPECT_EQ(server->counters().routed, 0U);
}

TEST_F(ServerTest, InviteIsRefusedAndItsAckAbsorbed) {
    const auto invite = request("INVITE", b.impu, "Contact: <sip:a@192.0.2.1>\r\n");
    deliver(invite);
    const auto reply = sent();
    EXPECT_EQ(reply->status(), 405);
    auto ack = invite;
    ack.replace(0, 6, "ACK");
    ack.replace(ack.find("1 INVITE"), 8, "1 ACK");
    ack.replace(ack.find("To: <" + b.impu + ">"), b.impu.size() + 6,
                "To: <" + b.impu + ">;tag=" + std::string(sip::to(reply->message)->tag()));
    deliver(ack);
    advance(2s);
    EXPECT_TRUE(transport.sent.empty());  // no retransmission of the 405 after its ACK
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
    server->on_framing_error(pcscf, "no Content-Length");
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
