#pragma once
// Calls through a World, step by step: what phone and core say in them is in the tests' hands.

#include <string>
#include <string_view>

#include "tests/support/gateway_world.h"

namespace gmgate::test {

inline constexpr std::string_view far_target = "sip:bob@192.0.2.77:5062";
inline constexpr std::string_view core_hop = "<sip:scscf@192.0.2.9:6060;lr>";

inline std::string replace_once(std::string text, std::string_view from, std::string_view to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in\n" << text;
    if (at != std::string::npos) text.replace(at, from.size(), to);
    return text;
}

// The value of that header, the header's line changed.
inline std::string with_header(const std::string& text, std::string_view name,
                               std::string_view value) {
    const std::string start = "\r\n" + std::string(name) + ": ";
    const auto at = text.find(start);
    EXPECT_NE(at, std::string::npos) << name << " in\n" << text;
    const auto end = text.find("\r\n", at + 2);
    return text.substr(0, at + start.size()) + std::string(value) + text.substr(end);
}

// From the core's own address: a message it made up.
inline void from_core(World& w, std::string text) {
    Wire wire;
    wire.to = Wire::To::gateway_core;
    wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
    wire.message.text = std::move(text);
    w.queue.push_back(std::move(wire));
}

// The latest message of that method (or status, as a number's text) there.
inline const Wire* latest(const std::vector<Wire>& inbox, std::string_view what) {
    for (auto i = inbox.rbegin(); i != inbox.rend(); ++i) {
        const std::string is =
            i->message.is_request() ? i->message.method() : std::to_string(i->message.status());
        if (is == what) return &*i;
    }
    return nullptr;
}
inline std::size_t count_of(const std::vector<Wire>& inbox, std::string_view what) {
    std::size_t n = 0;
    for (const Wire& wire : inbox) {
        n += (wire.message.is_request() ? wire.message.method()
                                        : std::to_string(wire.message.status())) == what
                 ? 1U
                 : 0U;
    }
    return n;
}

// A call of the phone's. The core's proxy records its own route, and the far end answers behind it.
struct OutgoingCall {
    OutgoingCall(World& world, Phone& phone, std::string_view headers = {}) : w(world), p(phone) {
        w.home.silent = true;
        text = p.request("INVITE", "sip:bob@home.example",
                         "Contact: <" + p.contact() + ">\r\n" + std::string(headers), "v=0");
        cseq = p.cseq;
        p.send_on(p.current(), text);
        w.run();
        const Wire* found = latest(w.home.inbox, "INVITE");
        EXPECT_NE(found, nullptr);
        if (found != nullptr) invite = *found;
        call_id = invite.message.header("Call-ID");
    }
    void answer(int status, std::string_view tag = "home", std::string_view headers = {},
                std::string_view contact = far_target) {
        w.home.reply(invite, status,
                     "Contact: <" + std::string(contact) + ">\r\n" + std::string(headers));
        std::string& out = w.queue.back().message.text;
        out = replace_once(out, ";tag=home", ";tag=" + std::string(tag));
        out = replace_once(out, "Record-Route: ", "Record-Route: " + std::string(core_hop) + ", ");
        w.run();
    }
    // In the dialog with that tag, from the phone: its routes from the bottom of the answer's
    // Record-Route up.
    std::string request(std::string_view method, std::string_view tag = "home",
                        std::string_view headers = {}) {
        const std::string ours = invite.message.header("Record-Route");
        const auto comma = ours.find(", ");
        std::string t =
            p.request(method, far_target,
                      "To: <sip:bob@home.example>;tag=" + std::string(tag) +
                          "\r\nRoute: " + ours.substr(comma + 2) + ", " + ours.substr(0, comma) +
                          ", " + std::string(core_hop) + "\r\n" + std::string(headers));
        t = with_header(t, "Call-ID", call_id);
        const bool ack = method == "ACK";
        if (!ack) last_cseq = ++next_cseq + cseq;
        t = with_header(t, "CSeq",
                        std::to_string(ack ? cseq : last_cseq) + " " + std::string(method));
        return t;
    }
    void say(std::string_view method, std::string_view tag = "home",
             std::string_view headers = {}) {
        p.send_on(p.current(), request(method, tag, headers));
        w.run();
    }
    // From the far end, in the dialog with that tag.
    std::string from_far(std::string_view method, unsigned number, std::string_view tag = "home",
                         std::string_view headers = {}) const {
        return std::string(method) + " " + p.contact() +
               " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" + w.random.token(8) +
               "\r\nMax-Forwards: 60\r\nRoute: " + invite.message.header("Record-Route") +
               "\r\nFrom: <sip:bob@home.example>;tag=" + std::string(tag) +
               "\r\nTo: " + invite.message.header("From") + "\r\nCall-ID: " + call_id +
               "\r\nCSeq: " + std::to_string(number) + " " + std::string(method) + "\r\n" +
               std::string(headers) + "Content-Length: 0\r\n\r\n";
    }
    void establish() {
        answer(180);
        answer(200);
        say("ACK");
        w.home.silent = false;
    }

    World& w;
    Phone& p;
    std::string text, call_id;
    Wire invite;  // as the core got it
    unsigned cseq = 0, next_cseq = 0, last_cseq = 0;
};

// A call to the phone.
struct IncomingCall {
    IncomingCall(World& world, Phone& phone) : w(world), p(phone) {
        text = w.home.request("INVITE", w.home.paths[p.impi], p.contact(),
                              "Contact: <" + std::string(far_target) +
                                  ">\r\nRecord-Route: " + std::string(core_hop) + "\r\n",
                              "v=0");
        w.run();
        EXPECT_EQ(p.last().message.method(), "INVITE");
        invite = p.last();
        call_id = invite.message.header("Call-ID");
    }
    void answer(int status, std::string_view tag = "ue") {
        p.answer(invite, status, "Contact: <" + p.contact() + ">\r\n");
        std::string& out = w.queue.back().message.text;
        out = replace_once(out, ";tag=ue", ";tag=" + std::string(tag));
        w.run();
    }
    std::string from_far(std::string_view method, unsigned number, std::string_view tag = "ue",
                         std::string_view headers = {}) const {
        const std::string routes = invite.message.header("Record-Route");
        // Ours, without what lies behind us: <ue side>, <core side>, core …
        const auto first = routes.find(", ");
        const auto second = routes.find(", ", first + 2);
        return std::string(method) + " " + p.contact() +
               " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" + w.random.token(8) +
               "\r\nMax-Forwards: 60\r\nRoute: " + routes.substr(first + 2, second - first - 2) +
               ", " + routes.substr(0, first) + "\r\nFrom: " + invite.message.header("From") +
               "\r\nTo: " + invite.message.header("To") + ";tag=" + std::string(tag) +
               "\r\nCall-ID: " + call_id + "\r\nCSeq: " + std::to_string(number) + " " +
               std::string(method) + "\r\n" + std::string(headers) + "Content-Length: 0\r\n\r\n";
    }
    void far_says(std::string_view method, unsigned number, std::string_view tag = "ue") {
        from_core(w, from_far(method, number, tag));
        w.run();
    }
    void establish() {
        answer(180);
        answer(200);
        far_says("ACK", 1);
    }

    World& w;
    Phone& p;
    std::string text, call_id;
    Wire invite;  // as the phone got it
};

}  // namespace gmgate::test
