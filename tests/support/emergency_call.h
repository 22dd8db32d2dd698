#pragma once
// An emergency call in clear of a phone that is not registered, step by step.

#include <string>
#include <string_view>

#include "tests/support/calls.h"

namespace gmgate::test {

inline constexpr std::string_view e_cscf = "192.0.2.30:5070";
inline constexpr std::string_view e_cscf_hop = "<sip:ecscf@192.0.2.30:5070;lr>";
inline constexpr std::string_view psap = "sip:psap@192.0.2.99:5066";

inline World::Options emergencies_in_clear() {
    World::Options o;
    o.policy.emergency_unregistered = registration::EmergencyUnregistered::forward;
    o.policy.e_cscf = ep(e_cscf);
    return o;
}

struct ClearCall {
    ClearCall(World& world, Phone& phone, std::string_view headers = {},
              std::string_view method = "INVITE")
        : w(world), p(phone), tag(w.random.token(6)), call_id(w.random.token(8) + "@clear") {
        w.home.silent = true;
        text = head(method, "urn:service:sos", 1) +
               "To: <urn:service:sos>\r\nContact: <sip:anonymous@" + p.address.to_uri_host() + ":" +
               std::to_string(p.port) + ">\r\n" + std::string(headers) + end("v=0");
        const auto before = count_of(w.home.inbox, method);
        p.send_clear(text);
        w.run();
        if (count_of(w.home.inbox, method) > before) invite = *latest(w.home.inbox, method);
    }
    [[nodiscard]] bool reached() const { return !invite.message.text.empty(); }
    [[nodiscard]] std::string head(std::string_view method, std::string_view uri,
                                   unsigned number) const {
        return std::string(method) + " " + std::string(uri) + " SIP/2.0\r\nVia: SIP/2.0/" +
               std::string(sip::name(p.transport)) + " " + p.address.to_uri_host() + ":" +
               std::to_string(p.port) + ";branch=z9hG4bK" + w.random.token(8) +
               "\r\nMax-Forwards: 70\r\nFrom: <sip:anonymous@anonymous.invalid>;tag=" + tag +
               "\r\nCall-ID: " + call_id + "\r\nCSeq: " + std::to_string(number) + " " +
               std::string(method) + "\r\n";
    }
    [[nodiscard]] static std::string end(std::string_view body = {}) {
        return "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
    }
    void answer(int status, std::string_view far_tag = "psap") {
        w.home.reply(invite, status, "Contact: <" + std::string(psap) + ">\r\n");
        std::string& out = w.queue.back().message.text;
        out = replace_once(out, ";tag=home", ";tag=" + std::string(far_tag));
        out =
            replace_once(out, "Record-Route: ", "Record-Route: " + std::string(e_cscf_hop) + ", ");
        w.run();
    }
    // In the dialog; `elsewhere`: where the phone would like it to go instead.
    [[nodiscard]] std::string request(std::string_view method, std::string_view elsewhere = psap,
                                      std::string_view headers = {}) {
        const unsigned number = method == "ACK" ? 1 : ++cseq;
        return head(method, elsewhere, number) + "To: <urn:service:sos>;tag=psap\r\n" +
               std::string(headers) + end();
    }
    void say(std::string_view method, std::string_view elsewhere = psap,
             std::string_view headers = {}) {
        p.send_clear(request(method, elsewhere, headers));
        w.run();
    }
    [[nodiscard]] std::string cancel() const {
        const auto via = text.find("Via: ");
        std::string out = "CANCEL urn:service:sos SIP/2.0\r\n" +
                          text.substr(via, text.find("Contact: ") - via) + end();
        return with_header(out, "CSeq", "1 CANCEL");
    }
    // From the E-CSCF, in the dialog.
    [[nodiscard]] std::string from_far(std::string_view method, unsigned number,
                                       std::string_view far_tag = "psap") const {
        const std::string ours = invite.message.header("Record-Route");
        return std::string(method) + " sip:anonymous@" + p.address.to_uri_host() + ":" +
               std::to_string(p.port) +
               " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.30:5070;branch=z9hG4bK" + w.random.token(8) +
               "\r\nMax-Forwards: 60\r\nRoute: " + ours +
               "\r\nFrom: <urn:service:sos>;tag=" + std::string(far_tag) +
               "\r\nTo: " + invite.message.header("From") + "\r\nCall-ID: " + call_id +
               "\r\nCSeq: " + std::to_string(number) + " " + std::string(method) + "\r\n" + end();
    }
    void far_says(std::string_view method, unsigned number, std::string_view far_tag = "psap") {
        Wire wire;
        wire.to = Wire::To::gateway_core;
        wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep(e_cscf), 0};
        wire.message.text = from_far(method, number, far_tag);
        w.queue.push_back(std::move(wire));
        w.run();
    }
    // The phone answers what it was asked last, in clear.
    void phone_answers(int status) {
        sip::Message m;
        const std::string asked = p.last().message.text;
        ASSERT_EQ(m.parse(std::string_view(asked)), sip::ParseStatus::ok);
        std::string out;
        ASSERT_TRUE(sip::build_response(m, status, {}, out));
        p.send_clear(out);
        w.run();
    }
    void establish() {
        answer(180);
        answer(200);
        say("ACK");
    }
    void hang_up() {
        say("BYE");
        if (const Wire* bye = latest(w.home.inbox, "BYE")) w.home.reply(*bye, 200);
        w.run();
    }

    World& w;
    Phone& p;
    std::string tag, call_id, text;
    Wire invite;  // as the E-CSCF got it
    unsigned cseq = 1;
};

}  // namespace gmgate::test
