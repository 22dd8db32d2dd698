#include "control/dns/parse.h"

#include <algorithm>
#include <optional>

#include "base/bytes.h"

namespace gmgate::dns {
namespace {

constexpr std::size_t most_records = 32;
constexpr std::size_t most_links = 8;  // CNAMEs behind one another
constexpr std::uint32_t longest_ttl = 86'400;
constexpr std::uint16_t type_a = 1;
constexpr std::uint16_t type_cname = 5;
constexpr std::uint16_t type_aaaa = 28;
constexpr std::uint16_t type_srv = 33;
constexpr std::uint16_t type_naptr = 35;
constexpr std::uint16_t class_in = 1;

class Reader {
  public:
    explicit Reader(std::span<const std::uint8_t> message) : m_(message) {}

    bool ok = true;
    std::size_t at = 0;

    std::uint8_t u8() {
        if (at >= m_.size()) return lost();
        return m_[at++];
    }
    std::uint16_t u16() {
        const auto high = u8();
        const auto low = u8();
        return static_cast<std::uint16_t>(high << 8U | low);
    }
    std::uint32_t u32() {
        const std::uint32_t high = u16();
        return high << 16U | u16();
    }
    // Compressed or not; each pointer must lead back, so it ends.
    std::string name() {
        std::string out;
        std::size_t from = at;
        std::size_t bound = at;
        bool jumped = false;
        for (;;) {
            if (from >= m_.size()) return lost_name();
            const std::uint8_t length = m_[from];
            if ((length & 0xC0U) == 0xC0U) {
                if (from + 1 >= m_.size()) return lost_name();
                const std::size_t to = (length & 0x3FU) << 8U | m_[from + 1];
                if (!jumped) at = from + 2;
                jumped = true;
                if (to >= bound) return lost_name();
                bound = from = to;
                continue;
            }
            if (length > 63) return lost_name();
            ++from;
            if (length == 0) {
                if (!jumped) at = from;
                return out;
            }
            if (from + length > m_.size() || out.size() + length > 254) return lost_name();
            if (!out.empty()) out += '.';
            for (std::size_t i = 0; i < length; ++i)
                out += ascii_lower(static_cast<char>(m_[from + i]));
            from += length;
        }
    }
    std::string text() {
        const std::size_t length = u8();
        if (!ok || length > m_.size() - at) {
            ok = false;
            return {};
        }
        std::string out(reinterpret_cast<const char*>(m_.data() + at), length);
        at += length;
        return out;
    }
    [[nodiscard]] std::span<const std::uint8_t> bytes(std::size_t from, std::size_t n) const {
        return m_.subspan(from, n);
    }
    [[nodiscard]] std::size_t left() const { return m_.size() - at; }

  private:
    std::uint8_t lost() {
        ok = false;
        return 0;
    }
    std::string lost_name() {
        ok = false;
        return {};
    }
    std::span<const std::uint8_t> m_;
};

struct Record {
    std::string owner;
    std::uint16_t type = 0;
    std::uint32_t ttl = 0;
    std::size_t at = 0;
    std::size_t length = 0;
};

void take(const Record& r, std::span<const std::uint8_t> message, Answer& answer) {
    Reader in(message);
    in.at = r.at;
    switch (r.type) {
        case type_a:
            if (r.length == 4)
                answer.addresses.push_back(IpAddress::v4(in.bytes(r.at, 4).first<4>()));
            return;
        case type_aaaa:
            if (r.length == 16)
                answer.addresses.push_back(IpAddress::v6(in.bytes(r.at, 16).first<16>()));
            return;
        case type_srv: {
            Srv s;
            s.priority = in.u16();
            s.weight = in.u16();
            s.port = in.u16();
            s.target = in.name();
            // "." says that the service is not there (RFC 2782).
            if (in.ok && s.port != 0 && is_name(s.target)) answer.srv.push_back(std::move(s));
            return;
        }
        case type_naptr: {
            Naptr n;
            n.order = in.u16();
            n.preference = in.u16();
            n.flags = in.text();
            n.service = in.text();
            (void)in.text();  // regexp: not used by SIP (RFC 3263 4.1)
            n.replacement = in.name();
            if (in.ok && is_name(n.replacement)) answer.naptr.push_back(std::move(n));
            return;
        }
        default:
            return;
    }
}

}  // namespace

std::uint16_t number_of(Type type) {
    switch (type) {
        case Type::a:
            return type_a;
        case Type::aaaa:
            return type_aaaa;
        case Type::srv:
            return type_srv;
        case Type::naptr:
            break;
    }
    return type_naptr;
}

bool is_name(std::string_view text) {
    return !text.empty() && text.size() <= 253 && text.front() != '.' &&
           text.find("..") == std::string_view::npos && std::ranges::all_of(text, [](char c) {
               const char l = ascii_lower(c);
               return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                      c == '.';
           });
}

Answer parse(std::span<const std::uint8_t> message, std::string_view name, Type type) {
    Answer answer;
    Reader in(message);
    in.at = 2;
    const std::uint16_t flags = in.u16();
    const std::size_t questions = in.u16();
    const std::size_t answers = in.u16();
    in.at = 12;
    if (!in.ok || (flags & 0x8000U) == 0 || questions > 1) return answer;
    const unsigned code = flags & 0x0FU;
    if (code != 0 && code != 3) return answer;
    for (std::size_t i = 0; i < questions; ++i) {
        (void)in.name();
        (void)in.u32();
    }
    std::vector<Record> records;
    for (std::size_t i = 0; i < answers && in.ok && records.size() < 4 * most_records; ++i) {
        Record r;
        r.owner = in.name();
        r.type = in.u16();
        const std::uint16_t of_class = in.u16();
        r.ttl = in.u32();
        r.length = in.u16();
        r.at = in.at;
        if (!in.ok || r.length > in.left()) return answer;
        in.at += r.length;
        if (of_class == class_in) records.push_back(std::move(r));
    }
    if (!in.ok) return answer;

    std::string wanted;
    for (const char c : name) wanted += ascii_lower(c);
    if (wanted.ends_with('.')) wanted.pop_back();
    std::uint32_t ttl = longest_ttl;
    for (std::size_t link = 0; link <= most_links; ++link) {
        std::optional<std::string> alias;
        std::size_t taken = 0;
        for (const Record& r : records) {
            if (r.owner != wanted) continue;
            if (r.type == number_of(type) && taken < most_records) {
                take(r, message, answer);
                ++taken;
            } else if (r.type == type_cname && !alias) {
                Reader target(message);
                target.at = r.at;
                alias = target.name();
                if (!target.ok) return Answer{};
            } else {
                continue;
            }
            ttl = std::min(ttl, (r.ttl & 0x80000000U) != 0 ? 0U : r.ttl);  // RFC 2181 8
        }
        if (taken > 0 || !alias) break;
        wanted = *alias;
    }
    const bool any = !answer.addresses.empty() || !answer.srv.empty() || !answer.naptr.empty();
    answer.outcome = any ? Answer::Outcome::found : Answer::Outcome::none;
    answer.ttl = std::chrono::seconds(any ? ttl : std::min<std::uint32_t>(ttl, 60));
    return answer;
}

}  // namespace gmgate::dns
