#pragma once
// The home network's SIP server with phones whose messages the test writes, and no network between.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/sip/build.h"
#include "home/cx_log.h"
#include "home/server.h"
#include "tests/unit/home/phone_support.h"

namespace gmgate::home::test {

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

inline Endpoint endpoint(std::string_view text) {
    return *Endpoint::parse(text);
}

struct ServerTest : testing::Test {
    ServerTest() {
        EXPECT_TRUE(hss.add(*SubscriberRule::parse("100:001010000000001", seed, realm)));
        RegistrarConfig c;
        c.realm = realm;
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
    // `params`: of its Contact.
    void enroll(Phone& p, const std::string& path, std::string_view params = {}) {
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
        answer.contact += params;
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

}  // namespace gmgate::home::test
