// What is too large for UDP towards the core (RFC 3261 18.1.1) where nobody tells of its failure,
// or the phone waits: REGISTER and ACK. What a message is refused for by its size or method (E4),
// and CANCEL in the trace.

#include <optional>
#include <tuple>
#include <vector>

#include "control/registration/trace.h"
#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

std::string filler() {
    return "X-Filler: " + std::string(1300, 'x') + "\r\n";
}

TEST(LargeRequests, ARegisterGoesOverTcpAndBackToUdp) {
    for (const bool fails : {false, true}) {
        World w;
        Phone& p = w.phone();
        RegisterOptions o;
        o.extra = filler();
        if (fails) w.home.silent = true;
        p.send_sm1(o);
        w.run();
        ASSERT_FALSE(w.home.inbox.empty());
        const Wire sm2 = w.home.inbox.front();
        EXPECT_EQ(sm2.flow.transport, sip::Transport::tcp);
        EXPECT_EQ(sm2.flow.remote, ep("192.0.2.9:5060"));
        EXPECT_TRUE(sm2.message.header("Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060;"));
        if (fails) {
            w.home.silent = false;
            w.gateway->core().on_connection_closed(sm2.flow, false);
            w.run();
            ASSERT_EQ(w.home.inbox.size(), 2U);
            const Wire again = w.home.inbox.back();
            EXPECT_EQ(again.flow.transport, sip::Transport::udp);
            EXPECT_TRUE(again.message.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5060;"));
            EXPECT_NE(again.message.header("Via"), sm2.message.header("Via"));
        }
        ASSERT_EQ(p.last_status(), 401) << fails;
        p.take_challenge(p.last().message);
        ASSERT_TRUE(p.answered(o));
        EXPECT_EQ(w.home.inbox.back().flow.transport,
                  fails ? sip::Transport::udp : sip::Transport::tcp)
            << "where TCP failed a moment ago it is not tried at once";
        w.expect_no_leak(1);
    }
}

TEST(LargeRequests, ASmallRegisterStaysOnUdp) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (const Wire& wire : w.home.inbox)
        EXPECT_EQ(wire.flow.transport, sip::Transport::udp) << wire.message.text.size();
}

TEST(LargeRequests, ARegisterThatTcpDoesNotTakeAtAll) {
    World w;
    Phone& p = w.phone();
    RegisterOptions o;
    o.extra = filler();
    w.home.silent = true;
    p.send_sm1(o);
    w.run();
    w.gateway->core().on_connection_closed(w.home.inbox.back().flow, false);
    w.advance(33s);
    EXPECT_EQ(p.last_status(), 504) << "nor UDP: the phone is told";
    w.expect_no_leak(0);
}

TEST(LargeRequests, AnAckGoesOverTcpAndBackToUdp) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(200);
    const std::string ack = call.request("ACK", "home", filler());
    p.send_on(p.current(), ack);
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "ACK");
    const Wire first = w.home.inbox.back();
    EXPECT_EQ(first.flow.transport, sip::Transport::tcp);
    EXPECT_TRUE(first.message.header("Via").starts_with("SIP/2.0/TCP "));
    // Nobody there: the 2xx comes again, and its ACK takes the other way.
    w.gateway->core().on_connection_closed(first.flow, false);
    call.answer(200);
    p.send_on(p.current(), ack);
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "ACK");
    EXPECT_EQ(w.home.inbox.back().flow.transport, sip::Transport::udp);
    // After a while TCP is tried again.
    w.advance(61s);
    p.send_on(p.current(), ack);
    w.run();
    EXPECT_EQ(w.home.inbox.back().flow.transport, sip::Transport::tcp);
    // Refused at once: over UDP at once.
    call.say("BYE");
    w.home.reply(*latest(w.home.inbox, "BYE"), 200);
    w.home.silent = false;
    w.expect_no_leak(1);
}

TEST(Refused, ByItsSize) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto before = w.home.inbox.size();
    p.send_on(p.current(), replace_once(p.request("MESSAGE", "sip:bob@home.example"),
                                        "Content-Length: 0", "Content-Length: 70000"));
    w.run();
    EXPECT_EQ(p.last_status(), 413);
    p.send_on(p.current(),
              replace_once(p.request("MESSAGE", "sip:bob@home.example"), "MESSAGE sip:bob@",
                           "MESSAGE sip:" + std::string(20'000, 'b') + "@"));
    w.run();
    EXPECT_EQ(p.last_status(), 414);
    EXPECT_EQ(w.home.inbox.size(), before);
    EXPECT_EQ(w.drops(Reason::malformed), 2U);
    w.expect_served(p);
}

TEST(Refused, AnUnknownMethodForUsAlone) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    from_core(
        w,
        "FOO sip:192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:192.0.2.1>\r\nCall-ID: 1\r\n"
        "CSeq: 1 FOO\r\nContent-Length: 0\r\n\r\n");
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 501);
    // Any other goes on: it is for whom it is for to know it.
    p.send_on(p.current(), p.request("FOO", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.expect_no_leak(1);
}

TEST(Trace, HasTheCancel) {
    for (const bool from_phone : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        std::optional<OutgoingCall> out;
        std::optional<IncomingCall> in;
        if (from_phone) {
            out.emplace(w, p).answer(180);
            const auto via = out->text.find("Via: ");
            p.send_on(p.current(),
                      with_header("CANCEL sip:bob@home.example SIP/2.0\r\n" +
                                      out->text.substr(via, out->text.find("Contact: ") - via) +
                                      "Content-Length: 0\r\n\r\n",
                                  "CSeq", std::to_string(out->cseq) + " CANCEL"));
        } else {
            in.emplace(w, p).answer(180);
            const auto via = in->text.find("Via: ");
            from_core(w, with_header("CANCEL " + p.contact() + " SIP/2.0\r\n" +
                                         in->text.substr(via, in->text.find("P-Asserted") - via) +
                                         "Content-Length: 0\r\n\r\n",
                                     "CSeq", "1 CANCEL"));
        }
        w.run();
        using registration::Entity;
        std::vector<std::tuple<Entity, Entity, int>> seen;
        for (const registration::TraceRecord& r : w.gateway->trace().latest(1000)) {
            if (std::string_view(r.method.data()).starts_with("CANCEL"))
                seen.emplace_back(r.from, r.to, r.status);
        }
        const Entity here = from_phone ? Entity::ue : Entity::core;
        const Entity there = from_phone ? Entity::core : Entity::ue;
        EXPECT_EQ(seen, (std::vector<std::tuple<Entity, Entity, int>>{{here, Entity::pcscf, 0},
                                                                      {Entity::pcscf, here, 200},
                                                                      {Entity::pcscf, there, 0}}))
            << from_phone;
        w.advance(1s);
        if (from_phone)
            w.home.reply(out->invite, 487);
        else
            p.answer(in->invite, 487);
        w.run();
    }
}

}  // namespace
}  // namespace gmgate::test
