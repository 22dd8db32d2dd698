#include "ue/requests.h"

#include <fmt/format.h>

#include <iterator>

namespace gmgate::ue {

namespace {

using Out = std::back_insert_iterator<std::string>;

// Names as the style writes them: Qualcomm's are compact where the RFC has a short form.
struct Names {
    std::string_view via = "Via", from = "From", to = "To", call_id = "Call-ID",
                     contact = "Contact", supported = "Supported", content_type = "Content-Type",
                     content_length = "Content-Length";
};
const Names& names(Style style) {
    static constexpr Names full;
    static constexpr Names compact{"v", "f", "t", "i", "m", "k", "c", "l"};
    return style == Style::qualcomm ? compact : full;
}

void write_frame(std::string& out, const RequestFrame& f) {
    const Names& n = names(f.style);
    const bool rport = !f.tcp && (f.style == Style::samsung || f.style == Style::mediatek);
    fmt::format_to(Out(out), "{} {} SIP/2.0\r\n", f.method, f.uri);
    const auto via = [&] {
        fmt::format_to(Out(out), "{}: SIP/2.0/{} {}:{};branch={}{}\r\n", n.via,
                       f.tcp ? "TCP" : "UDP", f.via.address.to_uri_host(), f.via.port, f.branch,
                       rport ? ";rport" : "");
    };
    const bool via_first = f.style != Style::qualcomm && f.style != Style::samsung;
    if (via_first) via();
    fmt::format_to(Out(out), "{}: <{}>;tag={}\r\n{}: <{}>{}{}\r\n", n.from, f.from_uri, f.from_tag,
                   n.to, f.to_uri, f.to_tag.empty() ? "" : ";tag=", f.to_tag);
    if (f.style == Style::qualcomm) {
        fmt::format_to(Out(out), "CSeq: {} {}\r\n{}: {}\r\n", f.cseq, f.method, n.call_id,
                       f.call_id);
    } else {
        fmt::format_to(Out(out), "{}: {}\r\nCSeq: {} {}\r\n", n.call_id, f.call_id, f.cseq,
                       f.method);
    }
    if (!via_first) via();
    out += "Max-Forwards: 70\r\n";
}

std::string authorization(const Identity& id, Style style, const Credentials* c,
                          bool claims_integrity) {
    std::string out = "Authorization: Digest ";
    const std::string uri = "sip:" + id.realm;
    const std::string_view nonce = c != nullptr ? std::string_view(c->nonce) : "";
    const std::string_view response = c != nullptr ? std::string_view(c->response) : "";
    if (style == Style::qualcomm) {
        fmt::format_to(Out(out), R"(uri="{}",username="{}",response="{}",realm="{}",nonce="{}")",
                       uri, id.impi(), response, id.realm, nonce);
    } else {
        const std::string_view comma = style == Style::plain || style == Style::google ? ", " : ",";
        fmt::format_to(Out(out),
                       R"(username="{0}"{5}realm="{1}"{5}nonce="{2}"{5}uri="{3}"{5}response="{4}")",
                       id.impi(), id.realm, nonce, uri, response, comma);
    }
    if (c != nullptr || style == Style::samsung) out += ",algorithm=AKAv1-MD5";
    if (c != nullptr) {
        if (!c->qop.empty())
            fmt::format_to(Out(out), R"(,qop={},nc=00000001,cnonce="{}")", c->qop, c->cnonce);
        if (!c->opaque.empty()) fmt::format_to(Out(out), R"(,opaque="{}")", c->opaque);
        if (!c->auts.empty()) fmt::format_to(Out(out), R"(,auts="{}")", c->auts);
    }
    if (claims_integrity) out += ",integrity-protected=\"yes\"";
    out += "\r\n";
    return out;
}

void write_tail(std::string& out, Style style, std::string_view content_type,
                std::string_view body) {
    const Names& n = names(style);
    if (!body.empty()) fmt::format_to(Out(out), "{}: {}\r\n", n.content_type, content_type);
    fmt::format_to(Out(out), "{}: {}\r\n\r\n{}", n.content_length, body.size(), body);
}

std::string_view user_agent(Style style) {
    switch (style) {
        case Style::samsung:
            return "User-Agent: Samsung IMS 6.0\r\n";
        case Style::mediatek:
            return "User-Agent: VoLTE/WFC UA\r\n";
        case Style::google:
            return "User-Agent: gmue (google style)\r\n";
        case Style::plain:
            return "User-Agent: gmue\r\n";
        case Style::qualcomm:
            break;
    }
    return "";
}

constexpr std::string_view access_network =
    "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=001010001000000A\r\n";
constexpr std::string_view require = "Require: sec-agree\r\nProxy-Require: sec-agree\r\n";

}  // namespace

std::string Identity::imei() const {
    const std::string d =
        fmt::format("{:0>14}", imsi.size() > 14 ? imsi.substr(imsi.size() - 14) : imsi);
    return fmt::format("{}-{}-0", d.substr(0, 8), d.substr(8));
}

std::string build_register(const Identity& id, const RequestFrame& f, const RegisterContent& c) {
    std::string out;
    out.reserve(2048);
    write_frame(out, f);
    fmt::format_to(
        Out(out),
        "{}: <sip:{}@{}:{}>;+sip.instance=\"<urn:gsma:imei:{}>\";"
        "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip\r\n",
        names(f.style).contact, id.imsi, c.contact.address.to_uri_host(), c.contact.port,
        id.imei());
    fmt::format_to(Out(out), "Expires: {}\r\n", c.expires);
    out += authorization(id, f.style, c.credentials, c.claims_integrity);
    if (!c.security_client.empty() || !c.security_verify.empty()) {
        out += require;
        out += names(f.style).supported;
        out += ": path,sec-agree\r\n";
    } else {
        out += names(f.style).supported;
        out += ": path\r\n";
    }
    out += "Allow: INVITE,ACK,CANCEL,BYE,UPDATE,REFER,NOTIFY,MESSAGE,PRACK,OPTIONS\r\n";
    out += access_network;
    out += user_agent(f.style);
    out += c.security_client;
    out += c.security_verify;
    write_tail(out, f.style, {}, {});
    return out;
}

std::string build_request(const Identity& id, const RequestFrame& f, const RequestContent& c) {
    std::string out;
    out.reserve(1024);
    write_frame(out, f);
    if (!c.route.empty()) fmt::format_to(Out(out), "Route: {}\r\n", c.route);
    if (c.prefers_identity) fmt::format_to(Out(out), "P-Preferred-Identity: <{}>\r\n", id.impu());
    if (!c.security_verify.empty()) {
        out += require;
        out += c.security_verify;
    }
    out += c.extra;
    out += access_network;
    out += user_agent(f.style);
    write_tail(out, f.style, c.content_type, c.body);
    return out;
}

}  // namespace gmgate::ue
