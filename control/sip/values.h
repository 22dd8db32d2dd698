#pragma once
// Typed header values. Everything is a view into the message's bytes; nothing allocates; malformed
// input gives nullopt. Pure functions, any thread.
//
// These are parsers of our own: libosip2's give each string its own heap cell and lowercase as they
// go; even with an arena behind its allocator hooks its Via, From, To, Contact and Authorization of
// one REGISTER cost more than our whole budget for the message (docs/decisions/0001,
// tests/bench/sip.cpp shows both). libosip2 is the judge in the tests.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "control/sip/message.h"

namespace gmgate::sip {

// Blanks of a value: SP, HTAB and the CR LF of a fold.
[[nodiscard]] constexpr bool is_lws(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}
[[nodiscard]] std::string_view trim_lws(std::string_view text);
// Behind `out`, without CR and LF: what a fold leaves is a blank, so it may be written into a
// header line.
void append_on_one_line(std::string& out, std::string_view value);

// Decimal digits only, leading zeros allowed; nullopt: anything else, or more than `max`.
[[nodiscard]] std::optional<std::uint32_t> parse_number(std::string_view text,
                                                        std::uint32_t max = 0xFFFFFFFFU);

// "0.5", "1", ".5": thousandths, 0-1000; nullopt: anything else.
[[nodiscard]] std::optional<std::uint16_t> parse_q(std::string_view text);

// Content of a quoted string (between the quotes) with the backslashes resolved.
[[nodiscard]] std::string unescape(std::string_view quoted_content);

// ---- parameters: ";a=b;c;d=\"e\"" ----
struct Param {
    std::string_view name;
    // Empty without '='; of a quoted string the content without its quotes, escapes kept.
    std::string_view value;
    std::string_view whole;  // as it stands, from name to end of value (quotes included)
    bool has_value = false;
    bool quoted = false;
};
// Walks parameters; blanks around ';' and '=' are allowed.
class ParamReader {
  public:
    explicit ParamReader(std::string_view params) : rest_(params) {}
    // nullopt: the end, or a fault (then bad() is true).
    std::optional<Param> next();
    [[nodiscard]] bool bad() const { return bad_; }

  private:
    std::string_view rest_;
    bool bad_ = false;
};
// The first parameter of that name (any case); nullopt: none before the end or the first fault.
[[nodiscard]] std::optional<Param> find_param(std::string_view params, std::string_view name);

// ---- URIs (RFC 3261 19.1, RFC 3966) ----
enum class Scheme : std::uint8_t { sip, sips, tel, urn, other };
struct Uri {
    Scheme scheme = Scheme::other;
    std::string_view text;  // all of it
    std::string_view scheme_text;
    std::string_view
        user;  // sip/sips: before the '@', without password; tel: the number; else all behind ':'
    std::string_view password;
    std::string_view host;     // IPv6 references with their brackets; empty unless sip/sips
    std::uint16_t port = 0;    // 0: none written
    std::string_view params;   // ";lr;transport=tcp" from the first ';', or empty
    std::string_view headers;  // behind '?', or empty

    [[nodiscard]] std::optional<Param> param(std::string_view name) const {
        return find_param(params, name);
    }
    // "user@host" as it stands (no scheme, port, parameters); host alone without user.
    [[nodiscard]] std::string address_of_record() const;
};
[[nodiscard]] std::optional<Uri> parse_uri(std::string_view text);
// Equality of the parts that name someone or something: scheme, user (escapes resolved, case kept),
// host (any case), port; tel: digits without separators. Parameters are not looked at.
[[nodiscard]] bool same_identity(const Uri& a, const Uri& b);

// ---- name-addr / addr-spec with parameters: From, To, Contact, Route, P-Asserted-Identity ----
struct NameAddr {
    std::string_view display;  // unquoted (escapes kept) or the tokens; may be empty
    Uri uri;
    std::string_view params;  // header parameters from the first ';' behind the URI
    bool bracketed = false;

    [[nodiscard]] std::optional<Param> param(std::string_view name) const {
        return find_param(params, name);
    }
    // Empty: no tag.
    [[nodiscard]] std::string_view tag() const;
};
// One value, not a list. Without angle brackets a ';' begins header parameters and '?' is an error
// (RFC 3261 20.10).
[[nodiscard]] std::optional<NameAddr> parse_name_addr(std::string_view value);

// ---- Via (one value) ----
struct Via {
    std::string_view transport;  // as written: UDP, tcp
    std::string_view host;       // IPv6 with brackets
    std::uint16_t port = 0;      // 0: none written
    std::string_view params;
    std::string_view branch;    // empty: none
    std::string_view received;  // empty: none
    std::string_view maddr;     // empty: none
    bool rport_present = false;
    std::uint16_t rport = 0;  // 0: without value

    // The branch names a transaction by RFC 3261 17 (cookie and something behind it).
    [[nodiscard]] bool has_rfc3261_branch() const;
    [[nodiscard]] bool is_transport(std::string_view t) const;
};
[[nodiscard]] std::optional<Via> parse_via(std::string_view value);
// Read but once a message, as the tags.
[[nodiscard]] std::optional<Via> top_via(const Message& message);
// The top Via as far as the answer to a faulty request needs it: host and port, also where the
// version is not ours (RFC 4475 3.1.2.16) or the parameters cannot be read (3.1.2.1), which are
// then left out. nullopt: not even that.
[[nodiscard]] std::optional<Via> sent_by(const Message& message);

// ---- CSeq, Max-Forwards, Expires … ----
struct CSeq {
    std::uint32_t number = 0;  // below 2^31 (RFC 3261 8.1.1.5)
    std::string_view method;
};
[[nodiscard]] std::optional<CSeq> parse_cseq(std::string_view value);
[[nodiscard]] std::optional<CSeq> cseq(const Message& message);
// Empty: none, or several words.
[[nodiscard]] std::string_view call_id(const Message& message);
[[nodiscard]] std::optional<NameAddr> from(const Message& message);
[[nodiscard]] std::optional<NameAddr> to(const Message& message);
// The tag of From and of To; empty: none, or the header is absent or malformed. Read but once a
// message: ask for them as often as you like.
[[nodiscard]] std::string_view from_tag(const Message& message);
[[nodiscard]] std::string_view to_tag(const Message& message);
// 0–255; nullopt: absent or malformed (tell by Message::has).
[[nodiscard]] std::optional<std::uint8_t> max_forwards(const Message& message);
// Seconds. Absent, malformed or beyond 2^32-1: nullopt, which the RFC wants treated as the default
// (RFC 4475 3.1.2.4).
[[nodiscard]] std::optional<std::uint32_t> expires(const Message& message);
// First value of Route, Service-Route, Path, Record-Route.
[[nodiscard]] std::optional<NameAddr> first_route(const Message& message, HeaderId id);

// ---- Contact ----
struct Contact {
    bool star = false;  // "Contact: *"
    NameAddr address;
    std::optional<std::uint32_t> expires;  // its own parameter
    std::uint16_t q = 1000;                // thousandths
};
[[nodiscard]] std::optional<Contact> parse_contact(std::string_view value);
// What a REGISTER asks for this contact: its own expires, else the Expires header, else `fallback`.
[[nodiscard]] std::uint32_t contact_expires(const Message& message, const Contact& contact,
                                            std::uint32_t fallback);

// ---- Digest (RFC 3310, 3261 22) ----
// Values are contents of quoted strings without quotes, escapes kept (unescape() them where that
// matters); nullopt: not there, which is not the same as there and empty (C3, C4).
struct DigestCredentials {
    std::optional<std::string_view> username, realm, nonce, uri, response, algorithm, auts, qop, nc,
        cnonce, opaque, integrity_protected;
};
// Walks 'Digest a="b", c=d' behind the scheme. Empty elements (",,") are passed over, as HTTP wants
// of readers.
class AuthParamReader {
  public:
    // `value`: the whole header value, scheme included.
    explicit AuthParamReader(std::string_view value);
    // nullopt: the end, or a fault (then bad() is true).
    std::optional<Param> next();
    [[nodiscard]] bool bad() const { return bad_; }

  private:
    std::string_view rest_;
    bool bad_ = false;
};
// nullopt: another scheme than Digest, bad syntax, or one of these parameters twice.
[[nodiscard]] std::optional<DigestCredentials> parse_digest_credentials(std::string_view value);

// ck and ik are key material in hex: move them to base/secret.h types, never log them (S1).
struct DigestChallenge {
    std::optional<std::string_view> realm, nonce, algorithm, qop, ck, ik, opaque, stale, domain;
};
[[nodiscard]] std::optional<DigestChallenge> parse_digest_challenge(std::string_view value);
// "Digest", "Basic"…: the first token of Authorization and its kin.
[[nodiscard]] std::string_view auth_scheme(std::string_view value);

// ---- is it a message one can work with? ----
struct Rejection {
    int code = 400;
    std::string_view reason;  // static text, good as Reason-Phrase
};
// RFC 3261 8.1.1, 16.3 step 1, RFC 4475: the mandatory headers are there, once, and well-formed;
// the CSeq method is the method. nullopt: fine. Call it after a parse() that returned ok; also
// tells the fault of one that did not.
[[nodiscard]] std::optional<Rejection> check_request(const Message& message);
// The same for a response; a response with a fault is dropped.
[[nodiscard]] std::optional<Rejection> check_response(const Message& message);
// RFC 3261 16.3 steps 2 and 3: 416 for a scheme we do not route, 483 for Max-Forwards 0.
[[nodiscard]] std::optional<Rejection> check_routable(const Message& request);

}  // namespace gmgate::sip
