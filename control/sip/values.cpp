#include "control/sip/values.h"

#include <array>
#include <cstring>

#include "base/bytes.h"
#include "control/sip/characters.h"

namespace gmgate::sip {
namespace {

void skip_lws(std::string_view& t) {
    while (!t.empty() && is_class(t.front(), char_lws)) t.remove_prefix(1);
}

// Cuts the longest run of `classes` off the front.
std::string_view take(std::string_view& t, unsigned classes) {
    std::size_t n = 0;
    while (n < t.size() && is_class(t[n], classes)) ++n;
    const auto taken = t.substr(0, n);
    t.remove_prefix(n);
    return taken;
}

// Offset behind the closing quote of text[0] == '"'; npos: none.
std::size_t quoted_end(std::string_view text) {
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            return i + 1;
        }
    }
    return std::string_view::npos;
}

// name [= value] at the front of `rest`; the value ends at a blank or `separator`. False: fault.
bool take_param(std::string_view& rest, char separator, Param& out) {
    const char* const start = rest.data();
    out.name = take(rest, char_param);
    if (out.name.empty()) return false;
    const char* stop = rest.data();
    skip_lws(rest);
    if (!rest.empty() && rest.front() == '=') {
        rest.remove_prefix(1);
        skip_lws(rest);
        out.has_value = true;
        if (!rest.empty() && rest.front() == '"') {
            const auto end = quoted_end(rest);
            if (end == std::string_view::npos) return false;
            out.quoted = true;
            out.value = rest.substr(1, end - 2);
            rest.remove_prefix(end);
        } else {
            std::size_t n = 0;
            while (n < rest.size() && rest[n] != separator && rest[n] != '"' &&
                   !is_class(rest[n], char_lws))
                ++n;
            out.value = rest.substr(0, n);
            rest.remove_prefix(n);
        }
        stop = rest.data();
        skip_lws(rest);
    }
    out.whole = {start, static_cast<std::size_t>(stop - start)};
    return rest.empty() || rest.front() == separator;
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char l = ascii_lower(c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool good_escapes(std::string_view t) {
    for (auto at = t.find('%'); at != std::string_view::npos; at = t.find('%', at + 1)) {
        if (at + 2 >= t.size() || hex_digit(t[at + 1]) < 0 || hex_digit(t[at + 2]) < 0)
            return false;
    }
    return true;
}

// One octet of an escaped user part.
int take_unescaped(std::string_view& t) {
    const char c = t.front();
    if (c == '%' && t.size() >= 3 && hex_digit(t[1]) >= 0 && hex_digit(t[2]) >= 0) {
        const int v = hex_digit(t[1]) * 16 + hex_digit(t[2]);
        t.remove_prefix(3);
        return v;
    }
    t.remove_prefix(1);
    return static_cast<unsigned char>(c);
}

bool same_user(std::string_view a, std::string_view b) {
    while (!a.empty() && !b.empty()) {
        if (take_unescaped(a) != take_unescaped(b)) return false;
    }
    return a.empty() && b.empty();
}

bool same_number(std::string_view a, std::string_view b) {
    const auto skip = [](std::string_view& t) {
        while (!t.empty() &&
               (t.front() == '-' || t.front() == '.' || t.front() == '(' || t.front() == ')')) {
            t.remove_prefix(1);
        }
    };
    while (true) {
        skip(a);
        skip(b);
        if (a.empty() || b.empty()) return a.empty() && b.empty();
        if (ascii_lower(a.front()) != ascii_lower(b.front())) return false;
        a.remove_prefix(1);
        b.remove_prefix(1);
    }
}

// host [":" port]; what stands behind it stays in `rest`. Blanks around the colon only where
// `blanks` says so (Via).
bool take_host_port(std::string_view& rest, bool blanks, std::string_view& host,
                    std::uint16_t& port) {
    if (!rest.empty() && rest.front() == '[') {
        const auto close = rest.find(']');
        if (close == std::string_view::npos || close < 3) return false;
        for (const char c : rest.substr(1, close - 1)) {
            if (!is_class(c, char_hex) && c != ':' && c != '.') return false;
        }
        host = rest.substr(0, close + 1);
        rest.remove_prefix(close + 1);
    } else {
        host = take(rest, char_host);
        if (host.empty()) return false;
    }
    auto ahead = rest;
    if (blanks) skip_lws(ahead);
    if (!ahead.empty() && ahead.front() == ':') {
        ahead.remove_prefix(1);
        if (blanks) skip_lws(ahead);
        const auto number = parse_number(take(ahead, char_digit), 65535);
        if (!number || *number == 0) return false;
        port = static_cast<std::uint16_t>(*number);
        rest = ahead;
    }
    return true;
}

std::optional<NameAddr> name_addr_of(const Message& message, HeaderId id) {
    const auto v = message.value(id);
    return v ? parse_name_addr(*v) : std::nullopt;
}

}  // namespace

std::string_view trim_lws(std::string_view t) {
    skip_lws(t);
    while (!t.empty() && is_class(t.back(), char_lws)) t.remove_suffix(1);
    return t;
}

std::optional<std::uint32_t> parse_number(std::string_view text, std::uint32_t max) {
    if (text.empty()) return std::nullopt;
    std::uint64_t n = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        n = n * 10 + static_cast<std::uint64_t>(c - '0');
        if (n > max) return std::nullopt;
    }
    return static_cast<std::uint32_t>(n);
}

std::string unescape(std::string_view content) {
    std::string out;
    out.reserve(content.size());
    for (std::size_t i = 0; i < content.size(); ++i) {
        if (content[i] == '\\' && i + 1 < content.size()) ++i;
        out.push_back(content[i]);
    }
    return out;
}

// ---- parameters ----

std::optional<Param> ParamReader::next() {
    if (bad_) return std::nullopt;
    skip_lws(rest_);
    if (rest_.empty()) return std::nullopt;
    Param p;
    if (rest_.front() != ';') {
        bad_ = true;
        return std::nullopt;
    }
    rest_.remove_prefix(1);
    skip_lws(rest_);
    if (!take_param(rest_, ';', p)) {
        bad_ = true;
        return std::nullopt;
    }
    return p;
}

std::optional<Param> find_param(std::string_view params, std::string_view name) {
    ParamReader reader(params);
    while (auto p = reader.next()) {
        if (p->name.size() == name.size() && iequals(p->name, name)) return p;
    }
    return std::nullopt;
}

// ---- URIs ----

std::optional<Uri> parse_uri(std::string_view text) {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 >= text.size())
        return std::nullopt;
    if (!all_of_class(text, char_uri)) return std::nullopt;
    Uri uri;
    uri.text = text;
    uri.scheme_text = text.substr(0, colon);
    if (is_class(text.front(), char_digit)) return std::nullopt;
    for (const char c : uri.scheme_text) {
        if (!is_class(c, char_host) && c != '+') return std::nullopt;
    }
    auto rest = text.substr(colon + 1);

    if (colon == 3 && iequals(uri.scheme_text, "sip")) {
        uri.scheme = Scheme::sip;
    } else if (colon == 4 && iequals(uri.scheme_text, "sips")) {
        uri.scheme = Scheme::sips;
    } else if (colon == 3 && iequals(uri.scheme_text, "tel")) {
        uri.scheme = Scheme::tel;
        const auto semicolon = rest.find(';');
        uri.user = rest.substr(0, semicolon);
        if (semicolon != std::string_view::npos) uri.params = rest.substr(semicolon);
        if (uri.user.empty()) return std::nullopt;
        for (const char c : uri.user) {
            if (!is_class(c, char_hex) &&
                std::string_view("+*#-.()").find(c) == std::string_view::npos) {
                return std::nullopt;
            }
        }
        return uri;
    } else {
        uri.scheme = colon == 3 && iequals(uri.scheme_text, "urn") ? Scheme::urn : Scheme::other;
        uri.user = rest;
        return uri;
    }

    if (const auto at = rest.find('@'); at != std::string_view::npos) {
        // '@' may stand nowhere else unescaped.
        auto info = rest.substr(0, at);
        rest.remove_prefix(at + 1);
        if (rest.find('@') != std::string_view::npos) return std::nullopt;
        if (!all_of_class(info, char_user) || !good_escapes(info)) return std::nullopt;
        const auto split = info.find(':');
        uri.user = info.substr(0, split);
        if (split != std::string_view::npos) uri.password = info.substr(split + 1);
        if (uri.user.empty()) return std::nullopt;
    }
    if (!take_host_port(rest, false, uri.host, uri.port)) return std::nullopt;
    if (!rest.empty() && rest.front() == ';') {
        const auto question = rest.find('?');
        uri.params = rest.substr(0, question);
        rest.remove_prefix(uri.params.size());
        ParamReader reader(uri.params);
        while (reader.next()) {
        }
        if (reader.bad()) return std::nullopt;
    }
    if (!rest.empty()) {
        if (rest.front() != '?' || rest.size() == 1) return std::nullopt;
        uri.headers = rest.substr(1);
    }
    return uri;
}

std::string Uri::address_of_record() const {
    std::string out(user);
    if (!host.empty()) {
        if (!out.empty()) out += '@';
        out += host;
    }
    return out;
}

bool same_identity(const Uri& a, const Uri& b) {
    if (a.scheme != b.scheme) return false;
    switch (a.scheme) {
        case Scheme::sip:
        case Scheme::sips:
            return a.port == b.port && iequals(a.host, b.host) && same_user(a.user, b.user);
        case Scheme::tel:
            return same_number(a.user, b.user);
        case Scheme::urn:
            return iequals(a.user, b.user);
        case Scheme::other:
            return iequals(a.scheme_text, b.scheme_text) && a.user == b.user;
    }
    return false;
}

// ---- name-addr ----

std::string_view NameAddr::tag() const {
    const auto p = find_param(params, "tag");
    return p ? p->value : std::string_view{};
}

std::optional<NameAddr> parse_name_addr(std::string_view value) {
    auto rest = trim_lws(value);
    NameAddr out;
    std::string_view uri_text;
    if (!rest.empty() && rest.front() == '"') {
        const auto end = quoted_end(rest);
        if (end == std::string_view::npos) return std::nullopt;
        out.display = rest.substr(1, end - 2);
        rest.remove_prefix(end);
        skip_lws(rest);
        if (rest.empty() || rest.front() != '<') return std::nullopt;
    }
    // An angle bracket behind a ';' or a quote belongs to a parameter of a bare URI.
    const auto mark = rest.find_first_of("<;\"");
    if (mark != std::string_view::npos && rest[mark] == '<') {
        if (mark != 0) {
            out.display = trim_lws(rest.substr(0, mark));
            for (const char c : out.display) {
                // token *(LWS token); octets beyond ASCII, which many phones write unquoted, do no
                // harm.
                if (!is_class(c, char_token | char_lws) && static_cast<unsigned char>(c) < 0x80)
                    return std::nullopt;
            }
        }
        const auto close = rest.find('>', mark);
        if (close == std::string_view::npos) return std::nullopt;
        uri_text = rest.substr(mark + 1, close - mark - 1);
        out.bracketed = true;
        out.params = rest.substr(close + 1);
    } else {
        uri_text = trim_lws(rest.substr(0, mark));
        if (uri_text.find_first_of("?,") != std::string_view::npos) return std::nullopt;
        if (mark != std::string_view::npos) out.params = rest.substr(mark);
    }
    const auto uri = parse_uri(uri_text);
    if (!uri) return std::nullopt;
    out.uri = *uri;
    skip_lws(out.params);
    ParamReader reader(out.params);
    while (reader.next()) {
    }
    if (reader.bad()) return std::nullopt;
    return out;
}

// ---- Via ----

bool Via::has_rfc3261_branch() const {
    return branch.size() > 7 && iequals(branch.substr(0, 7), "z9hG4bK");
}
bool Via::is_transport(std::string_view t) const {
    return iequals(transport, t);
}

std::optional<Via> parse_via(std::string_view value) {
    auto rest = trim_lws(value);
    Via via;
    // Nearly every Via begins so; the other way allows the blanks of the grammar.
    if (rest.starts_with("SIP/2.0/")) {
        rest.remove_prefix(8);
    } else {
        if (rest.size() < 3 || !iequals(rest.substr(0, 3), "SIP")) return std::nullopt;
        rest.remove_prefix(3);
        skip_lws(rest);
        if (rest.empty() || rest.front() != '/') return std::nullopt;
        rest.remove_prefix(1);
        skip_lws(rest);
        if (!rest.starts_with("2.0")) return std::nullopt;
        rest.remove_prefix(3);
        skip_lws(rest);
        if (rest.empty() || rest.front() != '/') return std::nullopt;
        rest.remove_prefix(1);
        skip_lws(rest);
    }
    via.transport = take(rest, char_token);
    if (via.transport.empty() || rest.empty() || !is_class(rest.front(), char_lws))
        return std::nullopt;
    skip_lws(rest);
    if (!take_host_port(rest, true, via.host, via.port)) return std::nullopt;
    skip_lws(rest);
    via.params = rest;

    bool has_branch = false;
    ParamReader reader(rest);
    while (const auto p = reader.next()) {
        switch (p->name.size()) {
            case 5:
                if (iequals(p->name, "rport")) {
                    via.rport_present = true;
                    if (!p->value.empty()) {
                        const auto n = parse_number(p->value, 65535);
                        if (!n) return std::nullopt;
                        via.rport = static_cast<std::uint16_t>(*n);
                    }
                } else if (iequals(p->name, "maddr")) {
                    via.maddr = p->value;
                }
                break;
            case 6:
                if (iequals(p->name, "branch")) {
                    // Two branches: two elements could match two transactions.
                    if (has_branch) return std::nullopt;
                    has_branch = true;
                    via.branch = p->value;
                }
                break;
            case 8:
                if (iequals(p->name, "received")) via.received = p->value;
                break;
            default:
                break;
        }
    }
    if (reader.bad()) return std::nullopt;
    return via;
}

std::optional<Via> top_via(const Message& message) {
    const auto v = message.first_value(HeaderId::via);
    return v ? parse_via(*v) : std::nullopt;
}

// ---- small ones ----

std::optional<CSeq> parse_cseq(std::string_view value) {
    auto rest = trim_lws(value);
    const auto number = parse_number(take(rest, char_digit), 0x7FFFFFFFU);
    if (!number || rest.empty() || !is_class(rest.front(), char_lws)) return std::nullopt;
    skip_lws(rest);
    if (rest.empty() || !all_of_class(rest, char_token)) return std::nullopt;
    return CSeq{*number, rest};
}

std::optional<CSeq> cseq(const Message& message) {
    const auto v = message.value(HeaderId::cseq);
    return v ? parse_cseq(*v) : std::nullopt;
}

std::string_view call_id(const Message& message) {
    const auto v = message.value(HeaderId::call_id);
    if (!v) return {};
    for (const char c : *v) {
        if (is_class(c, char_lws)) return {};
    }
    return *v;
}

std::optional<NameAddr> from(const Message& message) {
    return name_addr_of(message, HeaderId::from);
}
std::optional<NameAddr> to(const Message& message) {
    return name_addr_of(message, HeaderId::to);
}

std::optional<std::uint8_t> max_forwards(const Message& message) {
    const auto v = message.value(HeaderId::max_forwards);
    if (!v) return std::nullopt;
    const auto n = parse_number(*v, 255);
    return n ? std::optional(static_cast<std::uint8_t>(*n)) : std::nullopt;
}

std::optional<std::uint32_t> expires(const Message& message) {
    const auto v = message.value(HeaderId::expires);
    return v ? parse_number(*v) : std::nullopt;
}

std::optional<NameAddr> first_route(const Message& message, HeaderId id) {
    const auto v = message.first_value(id);
    return v ? parse_name_addr(*v) : std::nullopt;
}

// ---- Contact ----

std::optional<Contact> parse_contact(std::string_view value) {
    Contact contact;
    if (trim_lws(value) == "*") {
        contact.star = true;
        return contact;
    }
    const auto address = parse_name_addr(value);
    if (!address) return std::nullopt;
    contact.address = *address;
    if (const auto e = address->param("expires")) contact.expires = parse_number(e->value);
    if (const auto q = address->param("q")) {
        const auto parsed = parse_q(q->value);
        if (!parsed) return std::nullopt;
        contact.q = *parsed;
    }
    return contact;
}

std::optional<std::uint16_t> parse_q(std::string_view text) {
    const auto dot = text.find('.');
    const auto whole = text.substr(0, dot);
    const auto fraction = dot == std::string_view::npos ? std::string_view{} : text.substr(dot + 1);
    if (whole.size() > 1 || fraction.size() > 3 || (whole.empty() && fraction.empty()))
        return std::nullopt;
    if (!all_of_class(whole, char_digit) || !all_of_class(fraction, char_digit))
        return std::nullopt;
    unsigned q = whole.empty() ? 0 : static_cast<unsigned>(whole[0] - '0');
    for (std::size_t i = 0; i < 3; ++i) {
        q = q * 10 + (i < fraction.size() ? static_cast<unsigned>(fraction[i] - '0') : 0);
    }
    return q > 1000 ? std::nullopt : std::optional(static_cast<std::uint16_t>(q));
}

std::uint32_t contact_expires(const Message& message, const Contact& contact,
                              std::uint32_t fallback) {
    if (contact.expires) return *contact.expires;
    return expires(message).value_or(fallback);
}

// ---- Digest ----

std::string_view auth_scheme(std::string_view value) {
    auto rest = trim_lws(value);
    return take(rest, char_token);
}

AuthParamReader::AuthParamReader(std::string_view value) : rest_(trim_lws(value)) {
    take(rest_, char_token);
}

std::optional<Param> AuthParamReader::next() {
    if (bad_) return std::nullopt;
    skip_lws(rest_);
    while (!rest_.empty() && rest_.front() == ',') {
        rest_.remove_prefix(1);
        skip_lws(rest_);
    }
    if (rest_.empty()) return std::nullopt;
    Param p;
    if (!take_param(rest_, ',', p) || !p.has_value) {
        bad_ = true;
        return std::nullopt;
    }
    return p;
}

namespace {

struct Slot {
    std::string_view name;
    std::optional<std::string_view>* where;
};

bool read_auth(std::string_view value, std::span<const Slot> slots) {
    if (!iequals(auth_scheme(value), "Digest")) return false;
    AuthParamReader reader(value);
    while (const auto p = reader.next()) {
        for (const auto& slot : slots) {
            if (slot.name.size() != p->name.size() || !iequals(slot.name, p->name)) continue;
            if (slot.where->has_value()) return false;
            *slot.where = p->value;
            break;
        }
    }
    return !reader.bad();
}

}  // namespace

std::optional<DigestCredentials> parse_digest_credentials(std::string_view value) {
    DigestCredentials d;
    const std::array<Slot, 12> slots{{{"username", &d.username},
                                      {"realm", &d.realm},
                                      {"nonce", &d.nonce},
                                      {"uri", &d.uri},
                                      {"response", &d.response},
                                      {"algorithm", &d.algorithm},
                                      {"auts", &d.auts},
                                      {"qop", &d.qop},
                                      {"nc", &d.nc},
                                      {"cnonce", &d.cnonce},
                                      {"opaque", &d.opaque},
                                      {"integrity-protected", &d.integrity_protected}}};
    return read_auth(value, slots) ? std::optional(d) : std::nullopt;
}

std::optional<DigestChallenge> parse_digest_challenge(std::string_view value) {
    DigestChallenge d;
    const std::array<Slot, 9> slots{{{"realm", &d.realm},
                                     {"nonce", &d.nonce},
                                     {"algorithm", &d.algorithm},
                                     {"qop", &d.qop},
                                     {"ck", &d.ck},
                                     {"ik", &d.ik},
                                     {"opaque", &d.opaque},
                                     {"stale", &d.stale},
                                     {"domain", &d.domain}}};
    return read_auth(value, slots) ? std::optional(d) : std::nullopt;
}

// ---- whole messages ----

namespace {

constexpr std::array single_headers{HeaderId::to,
                                    HeaderId::from,
                                    HeaderId::call_id,
                                    HeaderId::cseq,
                                    HeaderId::max_forwards,
                                    HeaderId::expires,
                                    HeaderId::content_length,
                                    HeaderId::content_type,
                                    HeaderId::event,
                                    HeaderId::subscription_state};

// What requests and responses have in common; `sequence` is filled on the way.
std::optional<Rejection> check_common(const Message& m, std::optional<CSeq>& sequence) {
    if (m.status() != ParseStatus::ok) {
        const int code = response_code(m.status());
        return Rejection{code == 0 ? 400 : code, text(m.status())};
    }
    if (!m.has(HeaderId::via)) return Rejection{400, "Missing Via"};
    if (!m.has(HeaderId::from)) return Rejection{400, "Missing From"};
    if (!m.has(HeaderId::to)) return Rejection{400, "Missing To"};
    if (!m.has(HeaderId::call_id)) return Rejection{400, "Missing Call-ID"};
    if (!m.has(HeaderId::cseq)) return Rejection{400, "Missing CSeq"};
    for (const auto id : single_headers) {
        const auto* h = m.first(id);
        if (h != nullptr && h->next != Message::none) {
            return Rejection{400, "Header Field That May Stand Once Stands Twice"};
        }
    }
    sequence = cseq(m);
    if (!sequence) return Rejection{400, "Malformed CSeq"};
    if (call_id(m).empty()) return Rejection{400, "Malformed Call-ID"};
    if (!from(m)) return Rejection{400, "Malformed From"};
    if (!to(m)) return Rejection{400, "Malformed To"};
    if (!top_via(m)) return Rejection{400, "Malformed Via"};
    return std::nullopt;
}

}  // namespace

std::optional<Rejection> check_request(const Message& m) {
    std::optional<CSeq> sequence;
    if (const auto r = check_common(m, sequence)) return r;
    if (!m.is_request()) return Rejection{400, "Not A Request"};
    if (sequence->method != m.method()) return Rejection{400, "CSeq Method Is Not The Request's"};
    if (m.has(HeaderId::max_forwards) && !max_forwards(m))
        return Rejection{400, "Malformed Max-Forwards"};
    const auto uri = parse_uri(m.request_uri());
    if (!uri) return Rejection{400, "Malformed Request-URI"};
    if (!uri->headers.empty()) return Rejection{400, "Request-URI With Headers"};
    bool star = false;
    std::size_t contacts = 0;
    for (const auto& v : m.values(HeaderId::contact)) {
        const auto contact = parse_contact(v.text);
        if (!contact) return Rejection{400, "Malformed Contact"};
        star = star || contact->star;
        ++contacts;
    }
    if (star && (contacts != 1 || m.method() != "REGISTER"))
        return Rejection{400, "Contact * Beside Another"};
    return std::nullopt;
}

std::optional<Rejection> check_response(const Message& m) {
    std::optional<CSeq> sequence;
    if (const auto r = check_common(m, sequence)) return r;
    if (m.is_request()) return Rejection{400, "Not A Response"};
    return std::nullopt;
}

std::optional<Rejection> check_routable(const Message& m) {
    const auto uri = parse_uri(m.request_uri());
    if (!uri) return Rejection{400, "Malformed Request-URI"};
    if (uri->scheme == Scheme::other) return Rejection{416, "Unsupported URI Scheme"};
    if (max_forwards(m) == std::uint8_t{0}) return Rejection{483, "Too Many Hops"};
    return std::nullopt;
}

}  // namespace gmgate::sip
