#pragma once
// Phones that call each other: dialogs as a phone keeps them (RFC 3261 12.1).

#include <string>
#include <string_view>
#include <vector>

#include "tests/support/conformance_world.h"

namespace gmgate::test {

// Requests of that method a phone was sent, oldest first.
inline std::vector<Wire> requests(const Phone& p, std::string_view method) {
    std::vector<Wire> found;
    for (const Wire& w : p.inbox) {
        if (w.message.is_request() && w.message.method() == method) found.push_back(w);
    }
    return found;
}
// Answers to that method, oldest first.
inline std::vector<Sip> answers(const Phone& p, std::string_view method) {
    std::vector<Sip> found;
    for (const Wire& w : p.inbox) {
        if (!w.message.is_request() && w.message.header("CSeq").ends_with(method))
            found.push_back(w.message);
    }
    return found;
}

inline std::string route_values(const Sip& m, bool reversed) {
    std::string out;
    sip::Message parsed;
    EXPECT_EQ(parsed.parse(std::string_view(m.text)), sip::ParseStatus::ok);
    for (const sip::Value& v : parsed.values(HeaderId::record_route)) {
        const std::string value(v.text);
        if (out.empty())
            out = value;
        else
            out = reversed ? value + ", " + out : out + ", " + value;
    }
    return out;
}

// One end of a dialog.
struct Dialog {
    Phone* phone = nullptr;
    std::string call_id, local, remote, target, route;
    unsigned cseq = 0;

    // Of a caller, by an answer to its request.
    static Dialog of_caller(Phone& p, const Sip& answer) {
        const std::string contact = answer.header("Contact");
        return {&p,
                answer.header("Call-ID"),
                answer.header("From"),
                answer.header("To"),
                contact.substr(1, contact.find('>') - 1),
                route_values(answer, true),
                static_cast<unsigned>(std::stoul(answer.header("CSeq")))};
    }
    // Of a callee that answers with the tag "ue" (Phone::answer).
    static Dialog of_callee(Phone& p, const Sip& invite) {
        const std::string contact = invite.header("Contact");
        return {&p,
                invite.header("Call-ID"),
                invite.header("To") + ";tag=ue",
                invite.header("From"),
                contact.substr(1, contact.find('>') - 1),
                route_values(invite, false),
                0};
    }
    [[nodiscard]] std::string request(std::string_view method, std::string_view headers = {},
                                      unsigned number = 0) {
        if (number == 0) number = ++cseq;
        return std::string(method) + " " + target + " SIP/2.0\r\nVia: SIP/2.0/" +
               std::string(sip::name(phone->transport)) + " " + phone->address.to_uri_host() + ":" +
               std::to_string(phone->port_us) + ";branch=z9hG4bK" + phone->world.random.token(8) +
               "\r\nMax-Forwards: 70\r\nRoute: " + route + "\r\nFrom: " + local +
               "\r\nTo: " + remote + "\r\nCall-ID: " + call_id +
               "\r\nCSeq: " + std::to_string(number) + " " + std::string(method) + "\r\n" +
               std::string(headers) + "Content-Length: 0\r\n\r\n";
    }
    void send(std::string_view method, std::string_view headers = {}) {
        phone->send_on(phone->current(), request(method, headers));
        phone->world.run();
    }
    // The ACK of a 2xx to the request with that number.
    void ack(unsigned number) {
        phone->send_on(phone->current(), request("ACK", {}, number));
        phone->world.run();
    }
};

// alice calls bob, through the gateway and gmhome.
struct Calls {
    explicit Calls(World::Options options = with_gmhome(), std::string_view alice_at = "10.2.0.1",
                   std::string_view bob_at = "10.2.0.2",
                   sip::Transport transport = sip::Transport::udp)
        : w(std::move(options)),
          alice(w.phone("alice", alice_at, transport)),
          bob(w.phone("bob", bob_at, transport)) {
        EXPECT_TRUE(alice.register_once());
        EXPECT_TRUE(bob.register_once());
        w.advance(10ms);
    }
    // The INVITE as bob gets it.
    Wire invite(std::string_view uri = {}, std::string_view headers = {}) {
        sent = alice.request("INVITE", uri.empty() ? std::string_view(bob.impu) : uri,
                             "Contact: <" + alice.contact() + ">\r\n" + std::string(headers));
        alice.send_on(alice.current(), sent);
        w.run();
        const auto got = requests(bob, "INVITE");
        EXPECT_FALSE(got.empty());
        return got.empty() ? Wire{} : got.back();
    }
    void bob_answers(const Wire& asked, int status) {
        bob.answer(asked, status, "Contact: <" + bob.contact() + ">\r\n");
        w.run();
    }
    // A confirmed call; the ends' dialogs are set.
    void connect() {
        const Wire asked = invite();
        bob_answers(asked, 180);
        bob_answers(asked, 200);
        caller = Dialog::of_caller(alice, answers(alice, "INVITE").back());
        callee = Dialog::of_callee(bob, asked.message);
        caller.ack(caller.cseq);
        EXPECT_EQ(requests(bob, "ACK").size(), 1U);
    }
    [[nodiscard]] const home::Server& server() const { return *w.network->server; }

    World w;
    Phone& alice;
    Phone& bob;
    std::string sent;
    Dialog caller, callee;
};

}  // namespace gmgate::test
