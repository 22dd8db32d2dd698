#pragma once
// The SIP a phone writes, in the hand of its style.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "ue/security_agreement.h"

namespace gmgate::ue {

// Who the phone is: made from its IMSI on demand, not kept.
struct Identity {
    std::string imsi;
    std::string realm;
    [[nodiscard]] std::string impi() const { return imsi + '@' + realm; }
    [[nodiscard]] std::string impu() const { return "sip:" + imsi + '@' + realm; }
    [[nodiscard]] std::string imei() const;  // "35693803-564380-9"-like, from the IMSI's digits
};

struct RequestFrame {
    Style style = Style::plain;
    std::string_view method;
    std::string_view uri;
    bool tcp = false;
    Endpoint via;  // sent-by
    std::string_view branch;
    std::string_view call_id;
    std::string_view from_tag;
    std::string_view from_uri;
    std::string_view to_uri;
    std::string_view to_tag{};  // in a dialog
    std::uint32_t cseq = 1;
};

// Digest credentials of a REGISTER. Without a nonce: the first REGISTER's (RFC 3310,
// TS 24.229 5.1.1.2).
struct Credentials {
    std::string nonce;
    std::string response;
    std::string qop;
    std::string cnonce;
    std::string opaque;
    std::string auts;  // base64
};

struct RegisterContent {
    Endpoint contact;
    std::uint32_t expires = 600000;
    bool claims_integrity = false;  // integrity-protected="yes", which is not the phone's to say
    const Credentials* credentials = nullptr;  // nullptr: the empty ones
    std::string_view security_client;          // header lines, or empty
    std::string_view security_verify;          // header lines, or empty
};
[[nodiscard]] std::string build_register(const Identity& identity, const RequestFrame& frame,
                                         const RegisterContent& content);

struct RequestContent {
    std::string_view route;            // value of Route: the Service-Route; may be empty
    std::string_view security_verify;  // header lines
    std::string_view content_type;
    std::string_view body;
    bool prefers_identity = true;  // P-Preferred-Identity: outside dialogs
    std::string_view extra{};      // more header lines
};
// A request of a registered phone.
[[nodiscard]] std::string build_request(const Identity& identity, const RequestFrame& frame,
                                        const RequestContent& content);

}  // namespace gmgate::ue
