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
inline std::string_view take(std::string_view& t, unsigned classes) {
    const char* p = t.data();
    const char* const end = p + t.size();
    while (p != end && is_class(*p, classes)) ++p;
    const auto n = static_cast<std::size_t>(p - t.data());
    const std::string_view taken(t.data(), n);
    t.remove_prefix(n);
    return taken;
}

// Behind the closing quote of *p == '"'; nullptr: none.
inline const char* quoted_end(const char* p, const char* end) {
    ++p;
    while (true) {
        p = find_any<'"', '\\', '"'>(p, end);
        if (p == end) return nullptr;
        if (*p == '"') return p + 1;
        if (end - p < 2) return nullptr;
        p += 2;
    }
}

// What ends an unquoted value.
template <char separator>
constexpr auto value_stops = [] {
    std::array<bool, 256> stops{};
    for (const char c : {separator, '"', ' ', '\t', '\r', '\n'})
        stops[static_cast<unsigned char>(c)] = true;
    return stops;
}();

// name [= value] at the front of `rest`; the value ends at a blank or `separator`. False: fault.
template <char separator>
inline bool take_param(std::string_view& rest, Param& out) {
    const char* const start = rest.data();
    const char* const end = start + rest.size();
    const char* p = start;
    while (p != end && is_class(*p, char_param)) ++p;
    if (p == start) return false;
    out.name = {start, static_cast<std::size_t>(p - start)};
    const char* stop = p;
    while (p != end && is_class(*p, char_lws)) ++p;
    if (p != end && *p == '=') {
        ++p;
        while (p != end && is_class(*p, char_lws)) ++p;
        out.has_value = true;
        const char* const value = p;
        if (p != end && *p == '"') {
            p = quoted_end(p, end);
            if (p == nullptr) return false;
            out.quoted = true;
            out.value = {value + 1, static_cast<std::size_t>(p - value - 2)};
        } else {
            constexpr auto& stops = value_stops<separator>;
            while (p != end && !stops[static_cast<unsigned char>(*p)]) ++p;
            out.value = {value, static_cast<std::size_t>(p - value)};
        }
        stop = p;
        while (p != end && is_class(*p, char_lws)) ++p;
    }
    out.whole = {start, static_cast<std::size_t>(stop - start)};
    rest = {p, static_cast<std::size_t>(end - p)};
    return p == end || *p == separator;
}

// ";a=b;c": each parameter to `use`. False: fault.
template <class Use>
inline bool walk_params(std::string_view rest, Use&& use) {
    while (true) {
        skip_lws(rest);
        if (rest.empty()) return true;
        if (rest.front() != ';') return false;
        rest.remove_prefix(1);
        skip_lws(rest);
        Param p;
        if (!take_param<';'>(rest, p)) return false;
        use(p);
    }
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

void append_on_one_line(std::string& out, std::string_view value) {
    const char* p = value.data();
    const char* const end = p + value.size();
    while (true) {
        const char* const stop = find_any<'\r', '\n', '\n'>(p, end);
        out.append(p, stop);
        if (stop == end) return;
        p = stop + 1;
    }
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
    if (!take_param<';'>(rest_, p)) {
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

namespace {

bool read_tel(std::string_view rest, Uri& uri) {
    const auto semicolon = rest.find(';');
    uri.user = rest.substr(0, semicolon);
    if (semicolon != std::string_view::npos) uri.params = rest.substr(semicolon);
    if (uri.user.empty()) return false;
    for (const char c : uri.user) {
        if (!is_class(c, char_hex) &&
            std::string_view("+*#-.()").find(c) == std::string_view::npos) {
            return false;
        }
    }
    return walk_params(uri.params, [](const Param&) {});
}

// The '@', the escapes and what no URI may hold, 16 octets at a time where SSE2 is there.
struct UriScan {
    const char* at = nullptr;  // the last one
    unsigned ats = 0;
    bool escapes = false;

    // False: an octet that is not of char_uri.
    bool run(const char* p, const char* end) {
#if defined(__SSE2__)
        const std::ptrdiff_t size = end - p;
        if (size >= 16) {
            for (; end - p >= 16; p += 16) {
                if (!block(p, 0xFFFFU)) return false;
            }
            // What is left, with octets in front of it that were looked at already.
            const auto left = static_cast<unsigned>(end - p);
            return left == 0 || block(end - 16, 0xFFFFU << (16 - left) & 0xFFFFU);
        }
#endif
        for (; p != end; ++p) {
            if (!is_class(*p, char_uri)) return false;
            if (*p == '@') {
                at = p;
                ++ats;
            }
            escapes = escapes || *p == '%';
        }
        return true;
    }

#if defined(__SSE2__)
  private:
    // `wanted`: of which of the 16 octets from `p` on.
    bool block(const char* p, unsigned wanted) {
        const __m128i octets = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const auto are = [octets](char c) { return _mm_cmpeq_epi8(octets, _mm_set1_epi8(c)); };
        // Signed: octets beyond ASCII are below zero.
        const __m128i bad =
            _mm_or_si128(_mm_or_si128(_mm_cmplt_epi8(octets, _mm_set1_epi8(0x21)), are(0x7F)),
                         _mm_or_si128(_mm_or_si128(are('<'), are('>')), are('"')));
        if ((static_cast<unsigned>(_mm_movemask_epi8(bad)) & wanted) != 0) return false;
        const unsigned signs = static_cast<unsigned>(_mm_movemask_epi8(are('@'))) & wanted;
        if (signs != 0) {
            at = p + std::bit_width(signs) - 1;
            ats += static_cast<unsigned>(std::popcount(signs));
        }
        escapes = escapes || (static_cast<unsigned>(_mm_movemask_epi8(are('%'))) & wanted) != 0;
        return true;
    }
#endif
};

// Fills `uri`, which is as new; the structures are large enough that copies through optionals show.
bool read_uri(std::string_view text, Uri& uri) {
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const char* colon = begin;
    while (colon != end && (is_class(*colon, char_host) || *colon == '+')) ++colon;
    if (colon == begin || colon == end || *colon != ':' || colon + 1 == end) return false;
    if (is_class(*begin, char_digit)) return false;
    // One look at all the rest: only what a URI may hold, and where the user part ends.
    UriScan scan;
    if (!scan.run(colon + 1, end)) return false;
    const char* const at = scan.at;
    const unsigned ats = scan.ats;
    const bool escapes = scan.escapes;
    uri.text = text;
    uri.scheme_text = {begin, static_cast<std::size_t>(colon - begin)};
    std::string_view rest(colon + 1, static_cast<std::size_t>(end - colon - 1));

    if (is_name(uri.scheme_text, "sip")) {
        uri.scheme = Scheme::sip;
    } else if (is_name(uri.scheme_text, "sips")) {
        uri.scheme = Scheme::sips;
    } else if (is_name(uri.scheme_text, "tel")) {
        uri.scheme = Scheme::tel;
        return read_tel(rest, uri);
    } else {
        uri.scheme = is_name(uri.scheme_text, "urn") ? Scheme::urn : Scheme::other;
        uri.user = rest;
        return true;
    }

    if (at != nullptr) {
        if (ats != 1) return false;  // '@' may stand nowhere else unescaped
        const std::string_view info(rest.data(), static_cast<std::size_t>(at - rest.data()));
        rest.remove_prefix(info.size() + 1);
        if (escapes && !good_escapes(info)) return false;
        if (!all_of_class(info, char_user)) return false;
        const std::size_t split = info.find(':');
        uri.user = info.substr(0, split);
        if (split != std::string_view::npos) uri.password = info.substr(split + 1);
        if (uri.user.empty()) return false;
    }
    if (!take_host_port(rest, false, uri.host, uri.port)) return false;
    if (!rest.empty() && rest.front() == ';') {
        const auto question = rest.find('?');
        uri.params = rest.substr(0, question);
        rest.remove_prefix(uri.params.size());
        if (!walk_params(uri.params, [](const Param&) {})) return false;
    }
    if (!rest.empty()) {
        if (rest.front() != '?' || rest.size() == 1) return false;
        uri.headers = rest.substr(1);
    }
    return true;
}

}  // namespace

std::optional<Uri> parse_uri(std::string_view text) {
    std::optional<Uri> uri(std::in_place);
    if (!read_uri(text, *uri)) uri.reset();
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

namespace {

// Shows each header parameter to `use`, so that a reader needs no second walk.
template <class Use>
bool read_name_addr(std::string_view value, NameAddr& out, Use&& use) {
    const auto rest = trim_lws(value);
    const char* p = rest.data();
    const char* const end = p + rest.size();
    std::string_view uri_text;
    bool quoted = false;
    if (p != end && *p == '"') {
        const char* const close = quoted_end(p, end);
        if (close == nullptr) return false;
        out.display = {p + 1, static_cast<std::size_t>(close - p - 2)};
        p = close;
        while (p != end && is_class(*p, char_lws)) ++p;
        if (p == end || *p != '<') return false;
        quoted = true;
    }
    // An angle bracket behind a ';' or a quote belongs to a parameter of a bare URI.
    const char* const mark = find_any<'<', ';', '"'>(p, end);
    const char* params = end;
    if (mark != end && *mark == '<') {
        if (!quoted) {
            out.display = trim_lws({p, static_cast<std::size_t>(mark - p)});
            for (const char c : out.display) {
                // token *(LWS token); octets beyond ASCII, which many phones write unquoted, do no
                // harm.
                if (!is_class(c, char_token | char_lws) && static_cast<unsigned char>(c) < 0x80) {
                    return false;
                }
            }
        }
        const char* const close = find_any<'>', '>', '>'>(mark, end);
        if (close == end) return false;
        uri_text = {mark + 1, static_cast<std::size_t>(close - mark - 1)};
        out.bracketed = true;
        params = close + 1;
        while (params != end && is_class(*params, char_lws)) ++params;
    } else {
        uri_text = trim_lws({p, static_cast<std::size_t>(mark - p)});
        if (uri_text.find_first_of("?,") != std::string_view::npos) return false;
        params = mark;
    }
    if (!read_uri(uri_text, out.uri)) return false;
    out.params = {params, static_cast<std::size_t>(end - params)};
    return walk_params(out.params, use);
}

}  // namespace

std::optional<NameAddr> parse_name_addr(std::string_view value) {
    std::optional<NameAddr> out(std::in_place);
    if (!read_name_addr(value, *out, [](const Param&) {})) out.reset();
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
    bool good = true;
    const bool walked = walk_params(rest, [&](const Param& p) {
        switch (p.name.size()) {
            case 5:
                if (is_name(p.name, "rport")) {
                    via.rport_present = true;
                    if (p.value.empty()) break;
                    const auto n = parse_number(p.value, 65535);
                    good = good && n.has_value();
                    via.rport = static_cast<std::uint16_t>(n.value_or(0));
                } else if (is_name(p.name, "maddr")) {
                    via.maddr = p.value;
                }
                break;
            case 6:
                if (is_name(p.name, "branch")) {
                    // Two branches: two elements could match two transactions.
                    good = good && !has_branch;
                    has_branch = true;
                    via.branch = p.value;
                }
                break;
            case 8:
                if (is_name(p.name, "received")) via.received = p.value;
                break;
            default:
                break;
        }
    });
    if (!walked || !good) return std::nullopt;
    return via;
}

// What a message remembers of its values. The bytes behind it do not change while it is read.
class ReadOnce {
  public:
    static std::optional<Via> top_via(const Message& m) {
        Message::Memo& memo = m.memo_;
        if (memo.via == Message::Read::not_yet) {
            const auto text = m.first_value(HeaderId::via);
            const auto via = text ? parse_via(*text) : std::nullopt;
            memo.via = via ? Message::Read::good : Message::Read::bad;
            if (!via) return std::nullopt;
            memo.rport_present = via->rport_present;
            memo.port = via->port;
            memo.rport = via->rport;
            memo.transport = part(m, via->transport);
            memo.host = part(m, via->host);
            memo.params = part(m, via->params);
            memo.branch = part(m, via->branch);
            memo.received = part(m, via->received);
            memo.maddr = part(m, via->maddr);
            return via;
        }
        if (memo.via == Message::Read::bad) return std::nullopt;
        Via via;
        via.transport = view(m, memo.transport);
        via.host = view(m, memo.host);
        via.port = memo.port;
        via.params = view(m, memo.params);
        via.branch = view(m, memo.branch);
        via.received = view(m, memo.received);
        via.maddr = view(m, memo.maddr);
        via.rport_present = memo.rport_present;
        via.rport = memo.rport;
        return via;
    }
    // nullopt: no such header, or malformed.
    static std::optional<std::string_view> from_tag(const Message& m) {
        return tag(m, HeaderId::from, m.memo_.from, m.memo_.from_tag);
    }
    static std::optional<std::string_view> to_tag(const Message& m) {
        return tag(m, HeaderId::to, m.memo_.to, m.memo_.to_tag);
    }

  private:
    static Message::Part part(const Message& m, std::string_view text) {
        if (text.data() == nullptr) return {0, 0};  // not there
        const auto begin = static_cast<std::uint16_t>(text.data() - m.bytes_.data());
        return {begin, static_cast<std::uint16_t>(begin + text.size())};
    }
    static std::string_view view(const Message& m, Message::Part part) {
        return m.view(part.begin, part.end);
    }
    static std::optional<std::string_view> tag(const Message& m, HeaderId id, Message::Read& read,
                                               Message::Part& where) {
        if (read == Message::Read::not_yet) {
            const auto value = m.value(id);
            NameAddr address;
            std::string_view tag;
            bool found = false;
            const bool good = value && read_name_addr(*value, address, [&](const Param& p) {
                                  if (found || !is_name(p.name, "tag")) return;
                                  found = true;
                                  tag = p.value;
                              });
            read = good ? Message::Read::good : Message::Read::bad;
            where = part(m, tag);
        }
        if (read == Message::Read::bad) return std::nullopt;
        return view(m, where);
    }
};

std::optional<Via> top_via(const Message& message) {
    return ReadOnce::top_via(message);
}
std::string_view from_tag(const Message& message) {
    return ReadOnce::from_tag(message).value_or(std::string_view{});
}
std::string_view to_tag(const Message& message) {
    return ReadOnce::to_tag(message).value_or(std::string_view{});
}

std::optional<Via> sent_by(const Message& message) {
    if (auto whole = top_via(message)) return whole;
    const auto v = message.first_value(HeaderId::via);
    if (!v) return std::nullopt;
    auto rest = trim_lws(*v);
    for (int slash = 0; slash < 2; ++slash) {  // SIP/version/
        if (rest.empty() || take(rest, char_token).empty()) return std::nullopt;
        skip_lws(rest);
        if (rest.empty() || rest.front() != '/') return std::nullopt;
        rest.remove_prefix(1);
        skip_lws(rest);
    }
    Via via;
    via.transport = take(rest, char_token);
    if (via.transport.empty() || rest.empty() || !is_class(rest.front(), char_lws))
        return std::nullopt;
    skip_lws(rest);
    if (!take_host_port(rest, true, via.host, via.port)) return std::nullopt;
    via.params = rest.substr(0, 0);
    return via;
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
    std::optional<Contact> contact(std::in_place);
    if (trim_lws(value) == "*") {
        contact->star = true;
        return contact;
    }
    bool good_q = true;
    bool has_expires = false;
    const bool read = read_name_addr(value, contact->address, [&](const Param& p) {
        if (p.name.size() == 7 && is_name(p.name, "expires") && !has_expires) {
            has_expires = true;
            contact->expires = parse_number(p.value);
        } else if (p.name.size() == 1 && is_name(p.name, "q")) {
            const auto q = parse_q(p.value);
            good_q = good_q && q.has_value();
            contact->q = q.value_or(0);
        }
    });
    if (!read || !good_q) contact.reset();
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
    if (!take_param<','>(rest_, p) || !p.has_value) {
        bad_ = true;
        return std::nullopt;
    }
    return p;
}

namespace {

// Runs over a Digest header; `slot` gives the place of a parameter by its name, nullptr for what is
// not wanted. False: another scheme, bad syntax, or one of them twice.
template <class Slot>
bool read_auth(std::string_view value, Slot&& slot) {
    auto rest = trim_lws(value);
    if (!is_name(take(rest, char_token), "digest")) return false;
    while (true) {
        skip_lws(rest);
        while (!rest.empty() && rest.front() == ',') {
            rest.remove_prefix(1);
            skip_lws(rest);
        }
        if (rest.empty()) return true;
        Param p;
        if (!take_param<','>(rest, p) || !p.has_value) return false;
        std::optional<std::string_view>* const where = slot(p.name);
        if (where == nullptr) continue;
        if (where->has_value()) return false;
        *where = p.value;
    }
}

using Where = std::optional<std::string_view>*;

}  // namespace

std::optional<DigestCredentials> parse_digest_credentials(std::string_view value) {
    std::optional<DigestCredentials> d(std::in_place);
    const bool read = read_auth(value, [&d = *d](std::string_view name) -> Where {
        switch (name.size()) {
            case 2:
                return is_name(name, "nc") ? &d.nc : nullptr;
            case 3:
                return is_name(name, "uri") ? &d.uri : is_name(name, "qop") ? &d.qop : nullptr;
            case 4:
                return is_name(name, "auts") ? &d.auts : nullptr;
            case 5:
                return is_name(name, "realm")   ? &d.realm
                       : is_name(name, "nonce") ? &d.nonce
                                                : nullptr;
            case 6:
                return is_name(name, "cnonce")   ? &d.cnonce
                       : is_name(name, "opaque") ? &d.opaque
                                                 : nullptr;
            case 8:
                return is_name(name, "username")   ? &d.username
                       : is_name(name, "response") ? &d.response
                                                   : nullptr;
            case 9:
                return is_name(name, "algorithm") ? &d.algorithm : nullptr;
            case 19:
                return is_name(name, "integrity-protected") ? &d.integrity_protected : nullptr;
            default:
                return nullptr;
        }
    });
    if (!read) d.reset();
    return d;
}

std::optional<DigestChallenge> parse_digest_challenge(std::string_view value) {
    std::optional<DigestChallenge> d(std::in_place);
    const bool read = read_auth(value, [&d = *d](std::string_view name) -> Where {
        switch (name.size()) {
            case 2:
                return is_name(name, "ck") ? &d.ck : is_name(name, "ik") ? &d.ik : nullptr;
            case 3:
                return is_name(name, "qop") ? &d.qop : nullptr;
            case 5:
                return is_name(name, "realm")   ? &d.realm
                       : is_name(name, "nonce") ? &d.nonce
                       : is_name(name, "stale") ? &d.stale
                                                : nullptr;
            case 6:
                return is_name(name, "opaque")   ? &d.opaque
                       : is_name(name, "domain") ? &d.domain
                                                 : nullptr;
            case 9:
                return is_name(name, "algorithm") ? &d.algorithm : nullptr;
            default:
                return nullptr;
        }
    });
    if (!read) d.reset();
    return d;
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
    if (!ReadOnce::from_tag(m)) return Rejection{400, "Malformed From"};
    if (!ReadOnce::to_tag(m)) return Rejection{400, "Malformed To"};
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
