// gmue --bridge: what a program's plain SIP becomes on its way through a phone, and back.
#include "ue/bridge.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <vector>

#include "control/sip/message.h"

namespace gmgate::ue {
namespace {

using sip::HeaderId;

constexpr auto program = "127.0.0.1:7100";

struct Host final : AgentHost {
    [[nodiscard]] std::optional<Flow> flow() const override {
        if (!registered) return std::nullopt;
        Flow f;
        f.set = 7;
        f.contact = *Endpoint::parse("10.20.0.1:40001");
        f.identity = {"001010000000001", "ims.example"};
        f.route = "<sip:orig@scscf.ims.example;lr>";
        f.verify = "Security-Verify: ipsec-3gpp;alg=hmac-sha-1-96\r\n";
        return f;
    }
    bool send_request(std::uint32_t, bool over_tcp, std::string_view bytes) override {
        tcp = over_tcp;
        requests.emplace_back(bytes);
        return true;
    }
    bool send_response(const ReplyPath& path, std::string_view bytes) override {
        reply_set = path.set;
        responses.emplace_back(bytes);
        return true;
    }
    void narrate(std::string_view) const override {}
    void call_event(Call&, CallEvent) override {}
    void message_came(std::string_view, std::string_view) override {}
    void registration_news(const RegistrationNews&) override {}
    bool registered = true, tcp = false;
    std::uint32_t reply_set = 0;
    std::vector<std::string> requests, responses;
};

struct Bridged : testing::Test {
    explicit Bridged(bool knows_program = true)
        : bridge(
              wheel, host, statistics,
              {*Endpoint::parse("127.0.0.1:7000"),
               knows_program ? Endpoint::parse(program) : std::nullopt, "ims.example"},
              [this](const Endpoint& to, std::string_view datagram) {
                  sent_to = to.to_string();
                  sent.emplace_back(datagram);
              },
              [this] { ++ready; }) {}
    static sip::Message parsed(const std::string& text) {
        sip::Message m;
        EXPECT_EQ(m.parse(std::string_view(text)), sip::ParseStatus::ok) << text;
        return m;
    }
    static std::string value(const std::string& text, HeaderId id) {
        return std::string(parsed(text).value(id).value_or(""));
    }
    void from_program(const std::string& text) {
        bridge.from_application(*Endpoint::parse(program), text);
    }
    bool request(const std::string& text) {
        ReplyPath path;
        path.set = 9;
        return bridge.phone_request(parsed(text), path);
    }
    bool response(const std::string& text) { return bridge.phone_response(parsed(text)); }
    static std::string ask(std::string_view method, std::string_view uri,
                           std::string_view more = {}, std::string_view to_tag = {},
                           unsigned cseq = 1, std::string_view branch = "z9hG4bKapp") {
        return fmt::format(
            "{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:7100;branch={6}\r\nMax-Forwards: 70\r\n"
            "From: <sip:me@127.0.0.1>;tag=app\r\nTo: <sip:you@127.0.0.1>{3}\r\nCall-ID: one\r\n"
            "CSeq: {4} {0}\r\n{2}Content-Length: {5}\r\n\r\n",
            method, uri, more, to_tag, cseq, 0, branch);
    }
    // The network's answer to the last request that went out.
    std::string answer(int status, std::string_view more = {}) {
        const auto& out = host.requests.back();
        return fmt::format(
            "SIP/2.0 {} X\r\nVia: {}\r\nFrom: {}\r\nTo: <sip:you@x>;tag=net\r\nCall-ID: one\r\n"
            "CSeq: {}\r\n{}Content-Length: 0\r\n\r\n",
            status, value(out, HeaderId::via), value(out, HeaderId::from),
            value(out, HeaderId::cseq), more);
    }
    ManualClock clock;
    TimerWheel wheel{clock};
    Host host;
    BridgeStatistics statistics;
    unsigned ready = 0;
    std::string sent_to;
    std::vector<std::string> sent;
    Bridge bridge;
};

TEST_F(Bridged, ARequestGoesOutAsThePhonesOwn) {
    from_program(ask("INVITE", "sip:you@127.0.0.1:7000",
                     "Contact: <sip:me@127.0.0.1:7100>\r\nRoute: <sip:127.0.0.1:7000;lr>\r\n"
                     "Security-Verify: forged\r\n"));
    ASSERT_EQ(host.requests.size(), 1U);
    const std::string out = host.requests[0];
    EXPECT_TRUE(out.starts_with("INVITE sip:you@ims.example SIP/2.0\r\n")) << out;
    EXPECT_TRUE(value(out, HeaderId::via).starts_with("SIP/2.0/UDP 10.20.0.1:40001;branch="));
    EXPECT_EQ(parsed(out).count(HeaderId::via), 1U) << "the program's stays here";
    EXPECT_EQ(value(out, HeaderId::contact), "<sip:001010000000001@10.20.0.1:40001>");
    EXPECT_EQ(value(out, HeaderId::route), "<sip:orig@scscf.ims.example;lr>");
    EXPECT_EQ(value(out, HeaderId::p_preferred_identity), "<sip:001010000000001@ims.example>");
    EXPECT_EQ(value(out, HeaderId::security_verify), "ipsec-3gpp;alg=hmac-sha-1-96");
    EXPECT_EQ(value(out, HeaderId::require), "sec-agree");
    EXPECT_FALSE(host.tcp);
    // The answer finds the program, under the program's Via.
    EXPECT_TRUE(response(answer(180)));
    ASSERT_EQ(sent.size(), 1U);
    EXPECT_EQ(sent_to, program);
    EXPECT_EQ(value(sent[0], HeaderId::via), "SIP/2.0/UDP 127.0.0.1:7100;branch=z9hG4bKapp");
    // CANCEL belongs to the same transaction: branch, target and route of the INVITE.
    from_program(ask("CANCEL", "sip:you@127.0.0.1:7000"));
    ASSERT_EQ(host.requests.size(), 2U);
    EXPECT_TRUE(host.requests[1].starts_with("CANCEL sip:you@ims.example SIP/2.0\r\n"));
    EXPECT_EQ(value(host.requests[1], HeaderId::via), value(out, HeaderId::via));
    EXPECT_EQ(value(host.requests[1], HeaderId::security_verify), "");
    EXPECT_EQ(statistics.dropped.total(), 0U);
}

TEST_F(Bridged, AProgramThatKeepsNoRoutesCanHangUp) {
    from_program(ask("INVITE", "sip:you@127.0.0.1:7000"));
    EXPECT_TRUE(response(answer(200,
                                "Record-Route: <sip:a@10.21.0.1:6100;lr>, <sip:b@core;lr>\r\n"
                                "Contact: <sip:you@10.20.0.2:40002>\r\n")));
    from_program(ask("BYE", "sip:you@127.0.0.1:7000", {}, ";tag=net", 2, "z9hG4bKbye"));
    const std::string& bye = host.requests.back();
    EXPECT_TRUE(bye.starts_with("BYE sip:you@10.20.0.2:40002 SIP/2.0\r\n")) << bye;
    EXPECT_EQ(value(bye, HeaderId::route), "<sip:b@core;lr>, <sip:a@10.21.0.1:6100;lr>");
    EXPECT_EQ(value(bye, HeaderId::p_preferred_identity), "") << "within a dialog";
}

TEST_F(Bridged, ARequestOfTheNetworkAndItsAnswer) {
    const std::string invite =
        "INVITE sip:001010000000001@10.20.0.1:40001 SIP/2.0\r\nVia: SIP/2.0/UDP "
        "10.21.0.1:6100;branch=z9hG4bKnet\r\nVia: SIP/2.0/UDP 10.30.0.2;branch=z9hG4bKcore\r\n"
        "Max-Forwards: 68\r\nRecord-Route: <sip:a@10.21.0.1:6100;lr>\r\nFrom: <sip:y@x>;tag=net\r\n"
        "To: <sip:me@x>\r\nCall-ID: two\r\nCSeq: 1 INVITE\r\nContact: <sip:y@10.20.0.2>\r\n"
        "Content-Length: 0\r\n\r\n";
    EXPECT_TRUE(request(invite));
    ASSERT_EQ(sent.size(), 1U);
    EXPECT_EQ(parsed(sent[0]).count(HeaderId::via), 3U);
    const std::string ours = value(sent[0], HeaderId::via);
    EXPECT_TRUE(ours.starts_with("SIP/2.0/UDP 127.0.0.1:7000;branch=")) << ours;
    // The program copies no Record-Route: the bridge does.
    from_program("SIP/2.0 200 OK\r\nVia: " + ours +
                 "\r\nVia: SIP/2.0/UDP 10.21.0.1:6100;branch=z9hG4bKnet\r\n"
                 "Via: SIP/2.0/UDP 10.30.0.2;branch=z9hG4bKcore\r\nFrom: <sip:y@x>;tag=net\r\n"
                 "To: <sip:me@x>;tag=app\r\nCall-ID: two\r\nCSeq: 1 INVITE\r\n"
                 "Contact: <sip:me@127.0.0.1:7100>\r\nContent-Length: 0\r\n\r\n");
    ASSERT_EQ(host.responses.size(), 1U);
    EXPECT_EQ(host.reply_set, 9U) << "the way the request came";
    const std::string& answered = host.responses[0];
    EXPECT_EQ(parsed(answered).count(HeaderId::via), 2U);
    EXPECT_EQ(value(answered, HeaderId::via), "SIP/2.0/UDP 10.21.0.1:6100;branch=z9hG4bKnet");
    EXPECT_EQ(value(answered, HeaderId::contact), "<sip:001010000000001@10.20.0.1:40001>");
    EXPECT_EQ(value(answered, HeaderId::record_route), "<sip:a@10.21.0.1:6100;lr>");
    from_program(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:7000;branch=z9hG4bKnone\r\n"
        "From: <sip:y@x>;tag=net\r\nTo: <sip:me@x>;tag=app\r\nCall-ID: three\r\n"
        "CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(host.responses.size(), 1U);
    EXPECT_EQ(statistics.dropped.total(), 1U) << "an answer to nothing";
}

TEST_F(Bridged, WhatCannotGoIsAnsweredAndCounted) {
    from_program(ask("REGISTER", "sip:127.0.0.1:7000"));
    ASSERT_EQ(sent.size(), 1U);
    EXPECT_TRUE(sent[0].starts_with("SIP/2.0 403 ")) << sent[0];
    host.registered = false;
    from_program(ask("MESSAGE", "sip:you@127.0.0.1:7000", {}, {}, 1, "z9hG4bKm"));
    ASSERT_EQ(sent.size(), 2U);
    EXPECT_TRUE(sent[1].starts_with("SIP/2.0 503 ")) << sent[1];
    from_program("nonsense\r\n\r\n");
    from_program("\r\n\r\n");  // a keep-alive: nothing
    EXPECT_EQ(sent.size(), 2U);
    EXPECT_TRUE(host.requests.empty());
    EXPECT_EQ(statistics.dropped.total(), 3U);
    EXPECT_FALSE(
        response("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.20.0.1;branch=z9hG4bKx\r\n"
                 "From: <sip:a@x>;tag=a\r\nTo: <sip:b@x>;tag=b\r\nCall-ID: z\r\n"
                 "CSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"))
        << "the phone's own";
}

struct NobodyYet : Bridged {
    NobodyYet() : Bridged(false) {}
};

TEST_F(NobodyYet, TheProgramIsWhereItLastSentFrom) {
    const std::string options =
        "OPTIONS sip:001010000000001@10.20.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP "
        "10.21.0.1;branch=z9hG4bKo\r\nMax-Forwards: 68\r\nFrom: <sip:y@x>;tag=n\r\nTo: <sip:me@x>"
        "\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    EXPECT_TRUE(request(options));
    ASSERT_EQ(host.responses.size(), 1U);
    EXPECT_TRUE(host.responses[0].starts_with("SIP/2.0 480 "));
    from_program(ask("MESSAGE", "sip:you@127.0.0.1:7000"));
    EXPECT_TRUE(request(options));
    ASSERT_EQ(sent.size(), 1U);
    EXPECT_EQ(sent_to, program);
    bridge.phone_registered();
    bridge.phone_registered();
    EXPECT_EQ(ready, 1U);
}

}  // namespace
}  // namespace gmgate::ue
