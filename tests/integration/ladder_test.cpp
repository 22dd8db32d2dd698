// `gmctl trace` over two phones: a call from one to the other, as the gateway recorded it, in one
// picture.

#include <fmt/format.h>

#include <map>

#include "control/cli/ladder.h"
#include "control/ops/protocol.h"
#include "control/ops/registration_view.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

// A home network that does no more than to pass on what comes for a phone and what answers it.
struct Call {
    explicit Call(sip::Transport of_bob = sip::Transport::udp)
        : alice(w.phone("alice", "10.2.0.1")), bob(w.phone("bob", "10.2.0.2", of_bob)) {
        EXPECT_TRUE(alice.register_once());
        EXPECT_TRUE(bob.register_once());
        w.home.silent = true;
        w.home.inbox.clear();
    }
    static std::string without_first(std::string text, std::string_view header) {
        const auto at = text.find(header);
        EXPECT_NE(at, std::string::npos) << header << " in\n" << text;
        if (at != std::string::npos) text.erase(at, text.find("\r\n", at) + 2 - at);
        return text;
    }
    void to_gateway(const std::string& text) {
        Wire wire;
        wire.to = Wire::To::gateway_core;
        wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
        wire.message.text = text;
        w.queue.push_back(std::move(wire));
        w.run();
    }
    // What the home got last goes on: a request to that phone, a response back.
    void pass_on(const Phone* to = nullptr) {
        std::string text = w.home.inbox.back().message.text;
        if (to == nullptr) return to_gateway(without_first(text, "Via:"));
        if (text.find("\r\nRoute:") != std::string::npos) text = without_first(text, "Route:");
        const auto end_of_line = text.find("\r\n") + 2;
        text.insert(end_of_line, "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" +
                                     w.random.token(8) + "\r\nRoute: " + w.home.paths[to->impi] +
                                     "\r\n");
        const auto uri = text.find(' ') + 1;
        text.replace(uri, text.find(' ', uri) - uri, to->contact());
        to_gateway(text);
    }
    // A request of alice in the call, up to bob.
    void asks(std::string_view method) {
        alice.send_on(alice.current(),
                      alice.request(method, "sip:bob@home.example",
                                    "From: <sip:alice@home.example>;tag=a\r\nTo: "
                                    "<sip:bob@home.example>" +
                                        std::string(method == "INVITE" ? "" : ";tag=ue") + "\r\n"));
        auto& sent = w.queue.back().message.text;
        const auto at = sent.find("Call-ID: ");
        sent.replace(at, sent.find('\r', at) - at, "Call-ID: the-call");
        w.run();
        pass_on(&bob);
        EXPECT_EQ(bob.last().message.method(), method);
        heard[std::string(method)] = bob.last();
    }
    void answers(std::string_view method, int status) {
        bob.answer(heard.at(std::string(method)), status);
        w.run();
        pass_on();
        EXPECT_EQ(alice.last_status(), status);
    }
    [[nodiscard]] std::vector<cli::LadderStep> steps() const {
        const ops::GatewayView view(*w.gateway, *w.sets, w.clock);
        std::vector<cli::LadderStep> out;
        for (const auto& s : view.steps(std::vector{alice.impi, bob.impi}))
            out.push_back(cli::ladder_step(ops::to_json(s)));
        return out;
    }
    World w;
    Phone& alice;
    Phone& bob;
    std::map<std::string, Wire> heard;  // by bob, by method
};

std::size_t lines_with(const std::string& text, std::string_view a, std::string_view b = "") {
    std::size_t n = 0;
    std::size_t at = 0;
    while (at < text.size()) {
        const auto end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at);
        n += line.find(a) != std::string::npos && line.find(b) != std::string::npos;
        at = end + 1;
    }
    return n;
}

TEST(LadderOfTwo, ACallIsOneLineAMessage) {
    Call c(sip::Transport::tcp);
    c.asks("INVITE");
    c.w.advance(3ms);
    c.answers("INVITE", 180);
    c.asks("PRACK");
    c.answers("PRACK", 200);
    c.w.advance(2s);
    c.answers("INVITE", 200);
    c.asks("ACK");
    c.w.advance(60s);
    {
        std::vector<ops::CallRow> rows;
        const ops::GatewayCalls calls(*c.w.gateway);
        EXPECT_EQ(calls.scan(0, 100, [&](const ops::CallRow& r) { rows.push_back(r); }), 0U);
        ASSERT_EQ(rows.size(), 2U) << "one a phone";
        EXPECT_EQ(rows[0].call, rows[1].call);
        if (rows[0].impi == c.bob.impi) std::swap(rows[0], rows[1]);  // no order is promised
        EXPECT_EQ(rows[0].state, "confirmed");
        EXPECT_EQ(rows[0].peer, "sip:bob@home.example");
        EXPECT_EQ(rows[1].impi, c.bob.impi);
        EXPECT_EQ(rows[1].peer, "sip:alice@home.example");
        EXPECT_GE(rows[0].idle, 60s);
    }
    c.asks("BYE");
    c.answers("BYE", 200);

    const auto all = c.steps();
    const auto call = cli::shared_steps(all);
    EXPECT_LT(call.size(), all.size()) << "the registrations are each one's own";
    const std::vector<std::string> impis{c.alice.impi, c.bob.impi};
    const std::string picture = cli::render_ladders(impis, call, {});
    const auto spi = [](std::uint32_t n) { return fmt::format("{:08x}", n); };
    const sa::SaNumbers a = c.alice.current().numbers;
    const sa::SaNumbers b = c.bob.current().numbers;
    // A request of alice's on her inbound SA to the P-CSCF, on bob's outbound one from it; back the
    // same way. Four arrows in one line, each with its label.
    for (const std::string_view method : {"INVITE", "PRACK", "ACK", "BYE"}) {
        const std::string m(method);
        EXPECT_EQ(lines_with(picture, "- " + m + " udp " + spi(a.spi_ps) + " -",
                             "- " + m + " tcp " + spi(b.spi_us) + " -"),
                  1U)
            << picture;
    }
    EXPECT_EQ(lines_with(picture, "- 180 INVITE udp " + spi(a.spi_us) + " -",
                         "- 180 INVITE tcp " + spi(b.spi_pc) + " -"),
              1U)
        << picture;
    EXPECT_EQ(lines_with(picture, "200 BYE udp", "200 BYE tcp"), 1U) << picture;
    EXPECT_EQ(lines_with(picture, "PRACK", ">|"), 1U);
    EXPECT_LT(picture.find("180 INVITE"), picture.find("PRACK"));
    EXPECT_LT(picture.find("PRACK"), picture.find("200 INVITE"));
    EXPECT_LT(picture.find("200 INVITE"), picture.find("- ACK udp"));
    EXPECT_LT(picture.find("- ACK udp"), picture.find("BYE"));
    // Heads, date, title, 8 messages.
    EXPECT_EQ(std::ranges::count(picture, '\n'), 2 + 1 + 1 + 8) << picture;
    for (std::size_t at = 0; at < picture.size();) {
        const auto end = picture.find('\n', at);
        EXPECT_LE(end - at, 100U) << picture;
        at = end + 1;
    }
    // Everything, the registrations too, in the order of time.
    const std::string whole = cli::render_ladders(impis, all, {});
    EXPECT_EQ(lines_with(whole, "SM1 REGISTER udp clear"), 1U) << whole;
    EXPECT_EQ(lines_with(whole, "SM12 200"), 2U) << whole;
    EXPECT_EQ(lines_with(whole, "SA set established"), 2U) << whole;
    EXPECT_EQ(lines_with(whole, "* SA set established " + spi(b.spi_ps)), 1U) << whole;
    // Also where there is less room, and for more phones.
    for (const std::size_t width : {80U, 90U, 100U}) {
        for (const std::size_t phones : {2U, 3U, 4U}) {
            std::vector<std::string> who = impis;
            while (who.size() < phones) who.push_back("another-phone-of-this-lab@home.example");
            const std::string p = cli::render_ladders(who, all, {width, false, false});
            EXPECT_EQ(lines_with(p, "BYE", spi(a.spi_ps)), 1U) << p;
            for (std::size_t at = 0; at < p.size();) {
                const auto end = p.find('\n', at);
                EXPECT_LE(end - at, width) << p;
                at = end + 1;
            }
        }
    }
}

// Two calls at once do not run into one line, and each hop stays in its place.
TEST(LadderOfTwo, OtherMessagesBetweenBreakALine) {
    std::vector<cli::LadderStep> steps;
    const auto add = [&](std::size_t phone, cli::Lane from, cli::Lane to, std::string call) {
        cli::LadderStep s;
        s.time_us = 1'000'000 + static_cast<std::int64_t>(steps.size());
        s.from = from;
        s.to = to;
        s.text = "MESSAGE";
        s.call = std::move(call);
        s.phone = phone;
        steps.push_back(s);
    };
    using cli::Lane;
    add(0, Lane::ue, Lane::gateway, "1");
    add(1, Lane::ue, Lane::gateway, "2");
    add(0, Lane::gateway, Lane::core, "1");
    add(1, Lane::gateway, Lane::core, "2");
    add(0, Lane::core, Lane::gateway, "2");
    add(0, Lane::gateway, Lane::ue, "2");
    const std::string p = cli::render_ladders({"a@x", "b@x"}, steps, {});
    EXPECT_EQ(std::ranges::count(p, '\n'), 2 + 1 + 1 + 4) << p;
    EXPECT_EQ(cli::shared_steps(steps).size(), 4U) << "call 2 alone";
}

}  // namespace
}  // namespace gmgate::test
