#pragma once
// A phone and its P-CSCF in one, as the registrar sees them: REGISTERs with Path and
// integrity-protected, and a USIM.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "control/sip/message.h"
#include "control/sip/values.h"
#include "home/local_hss.h"
#include "home/registrar.h"
#include "tests/unit/home/aka_support.h"

namespace gmgate::home::test {

inline constexpr auto realm = "ims.example";
inline const Bytes seed = *from_hex("00112233445566778899aabbccddeeff");

// A response, parsed.
struct Reply {
    explicit Reply(std::string_view text) : bytes(text) { message.parse(std::string_view(bytes)); }
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    [[nodiscard]] int status() const { return message.status_code(); }
    [[nodiscard]] std::string header(sip::HeaderId id) const {
        return std::string(message.value(id).value_or(""));
    }
    std::string bytes;
    sip::Message message;
};

struct Register {
    std::string impi, impu, integrity = "no", nonce, response, auts, extra_auth;
    bool with_response = true;  // response="" stands there even if empty
    std::string contact;        // whole value; empty: no Contact
    std::optional<unsigned> expires;
    std::string path = "<sip:token@192.0.2.1:5070;lr>";
    std::string extra;  // more header lines
    std::string call_id = "call-1";
    unsigned cseq = 1;
    std::string branch = "z9hG4bK1";

    [[nodiscard]] std::string text() const {
        std::string auth;
        if (!impi.empty()) {
            auth = fmt::format(
                "Authorization: Digest username=\"{}\",realm=\"{}\",uri=\"sip:{}\",nonce=\"{}\"",
                impi, realm, realm, nonce);
            if (with_response) auth += fmt::format(",response=\"{}\"", response);
            if (!auts.empty()) auth += fmt::format(",auts=\"{}\"", auts);
            if (!integrity.empty()) auth += fmt::format(",integrity-protected=\"{}\"", integrity);
            auth += extra_auth + "\r\n";
        }
        return fmt::format(
            "REGISTER sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5070;branch={}\r\n"
            "Via: SIP/2.0/UDP 10.0.0.1:5061;branch=z9hG4bKue\r\nMax-Forwards: 69\r\nFrom: "
            "<{}>;tag=f\r\n"
            "To: <{}>\r\nCall-ID: {}\r\nCSeq: {} REGISTER\r\n{}{}{}{}{}Content-Length: 0\r\n\r\n",
            realm, branch, impu, impu, call_id, cseq,
            contact.empty() ? std::string{} : "Contact: " + contact + "\r\n",
            expires ? fmt::format("Expires: {}\r\n", *expires) : std::string{},
            path.empty() ? std::string{} : "Require: path\r\nPath: " + path + "\r\n", auth, extra);
    }
};

class Phone {
  public:
    explicit Phone(std::uint64_t index = 0) {
        const auto rule = SubscriberRule::parse("100:001010000000001", seed, realm);
        impi = rule->impi(index);
        impu = rule->impus(index)[0];
        tel = rule->impus(index)[1];
        usim.set_key(rule->k(index), rule->opc(index));
        contact_uri = fmt::format("sip:{}@10.0.0.{}:5061", rule->imsi(index), index + 1);
    }

    Register initial() {
        Register r;
        r.impi = impi;
        r.impu = impu;
        r.contact = fmt::format("<{}>;+sip.instance=\"<urn:gsma:imei:1>\"", contact_uri);
        r.expires = 3600;
        r.cseq = ++cseq;
        r.branch = fmt::format("z9hG4bK{}", cseq);
        return r;
    }
    // SM7 for the challenge of `reply`. `wrong`: RES altered.
    Register answer(const Reply& reply, bool wrong = false, std::string_view qop = "auth") {
        read(reply);
        auto keys = usim.f2345(rand);
        if (wrong) keys.res.writable()[0] = static_cast<std::uint8_t>(keys.res.writable()[0] ^ 1U);
        auto r = initial();
        r.integrity = "yes";
        r.nonce = nonce;
        const std::string uri = std::string("sip:") + realm;
        DigestAnswer a{.username = impi,
                       .realm = realm,
                       .nonce = nonce,
                       .uri = uri,
                       .response = {},
                       .qop = qop,
                       .nc = {},
                       .cnonce = {}};
        if (!qop.empty()) {
            a.nc = "00000001";
            a.cnonce = "0a4f113b";
            r.extra_auth = fmt::format(",qop={},nc=00000001,cnonce=\"0a4f113b\"", qop);
        }
        const auto digits = *digest.response(digest.ha1(impi, realm, keys.res), a, "REGISTER", "");
        r.response = std::string(digits.begin(), digits.end());
        return r;
    }
    // C3: MAC wrong.
    Register mac_failure(const Reply& reply) {
        read(reply);
        auto r = initial();
        r.nonce = nonce;
        return r;
    }
    // C4: SQN out of range.
    Register sync_failure(const Reply& reply, Sqn sqn_ms) {
        read(reply);
        auto r = initial();
        r.nonce = nonce;
        r.auts = to_base64(make_auts(usim, rand, sqn_ms));
        return r;
    }
    void read(const Reply& reply) {
        const auto value = reply.message.value(sip::HeaderId::www_authenticate);
        ASSERT_TRUE(value) << reply.bytes;
        const auto c = sip::parse_digest_challenge(*value);
        ASSERT_TRUE(c) << *value;
        nonce = c->nonce.value();
        ck = c->ck.value();
        ik = c->ik.value();
        const auto bytes = from_base64(nonce);
        ASSERT_TRUE(bytes && bytes->size() == 32) << nonce;
        std::copy_n(bytes->begin(), 16, rand.begin());
        std::copy_n(bytes->begin() + 16, 16, autn.begin());
    }

    std::string impi, impu, tel, contact_uri;
    Milenage usim;
    DigestCalculator digest;
    unsigned cseq = 0;
    std::string nonce, ck, ik;
    Rand rand{};
    Autn autn{};
};

}  // namespace gmgate::home::test
