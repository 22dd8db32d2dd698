#include "ue/security_agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/bytes.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t max_mechanisms = 64;
constexpr std::size_t max_parameters = 32;

std::string_view trim_all(std::string_view s) {
    constexpr std::string_view blank = " \t\r\n";
    const auto a = s.find_first_not_of(blank);
    if (a == std::string_view::npos) return {};
    return s.substr(a, s.find_last_not_of(blank) - a + 1);
}

template <class T>
bool number(std::string_view text, T& out) {
    std::uint64_t v = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (text.empty() || ec != std::errc{} || end != text.data() + text.size() ||
        v > static_cast<T>(-1))
        return false;
    out = static_cast<T>(v);
    return true;
}

// qvalue of RFC 3261: 0 to 1 with up to three decimals.
bool q_value(std::string_view text, std::uint16_t& out) {
    if (text.empty() || (text[0] != '0' && text[0] != '1')) return false;
    unsigned v = text[0] == '1' ? 1000 : 0;
    if (text.size() > 1) {
        if (text[1] != '.' || text.size() > 5) return false;
        unsigned scale = 100;
        for (const char c : text.substr(2)) {
            if (c < '0' || c > '9') return false;
            v += static_cast<unsigned>(c - '0') * scale;
            scale /= 10;
        }
    }
    if (v > 1000) return false;
    out = static_cast<std::uint16_t>(v);
    return true;
}

// Without quotes, should a server write them.
std::string unquote(std::string_view v) {
    if (v.size() >= 2 && v.front() == '"' && v.back() == '"')
        return std::string(v.substr(1, v.size() - 2));
    return std::string(v);
}

Result<Mechanism> parse_one(std::string_view text) {
    Mechanism m;
    // A fold is a blank; other control characters have no business here (and would end up in our
    // Security-Verify).
    if (std::ranges::any_of(text, [](char c) {
            return static_cast<unsigned char>(c) < ' ' && c != '\t' && c != '\r' && c != '\n';
        })) {
        return fail(ErrorKind::invalid, "Security-Server: a control character");
    }
    std::string unfolded(text);
    std::ranges::replace_if(
        unfolded, [](char c) { return c == '\r' || c == '\n' || c == '\t'; }, ' ');
    text = unfolded;
    std::size_t semicolon = text.find(';');
    m.name = to_lower(trim_all(text.substr(0, semicolon)));
    if (m.name.empty())
        return fail(ErrorKind::invalid, "Security-Server: a mechanism without a name");
    std::string_view alg, ealg = "null", prot = "esp", mod = "trans";
    while (semicolon != std::string_view::npos) {
        text = text.substr(semicolon + 1);
        semicolon = text.find(';');
        const std::string_view part = trim_all(text.substr(0, semicolon));
        if (part.empty()) continue;
        const auto eq = part.find('=');
        if (m.parameters.size() == max_parameters) {
            return fail(ErrorKind::invalid,
                        "Security-Server: more than 32 parameters in a mechanism");
        }
        m.parameters.emplace_back(
            to_lower(trim_all(part.substr(0, eq))),
            eq == std::string_view::npos ? "" : unquote(trim_all(part.substr(eq + 1))));
    }
    for (const auto& [key, value] : m.parameters) {
        bool good = true;
        if (key == "alg")
            alg = value;
        else if (key == "ealg")
            ealg = value;
        else if (key == "prot")
            prot = value;
        else if (key == "mod")
            mod = value;
        else if (key == "q")
            good = q_value(value, m.q);
        else if (key == "spi-c")
            good = number(value, m.spi_c);
        else if (key == "spi-s")
            good = number(value, m.spi_s);
        else if (key == "port-c")
            good = number(value, m.port_c);
        else if (key == "port-s")
            good = number(value, m.port_s);
        if (!good) return fail(ErrorKind::invalid, "Security-Server: bad value of " + key);
    }
    const auto i = sa::parse_integrity(alg);
    const auto e = sa::parse_encryption(ealg);
    m.encapsulated = iequals(mod, "UDP-enc-tun");
    if (m.name == "ipsec-3gpp" && i && e && iequals(prot, "esp") &&
        (m.encapsulated || iequals(mod, "trans")) && sa::is_valid({*i, *e}) && m.spi_c > 255 &&
        m.spi_s > 255 && m.port_c != 0 && m.port_s != 0) {
        m.suite = sa::Suite{*i, *e};
    }
    return m;
}

// Parameters in the order the style writes them; what it does not know goes last, unchanged.
std::span<const std::string_view> verify_order(Style style) {
    static constexpr std::array<std::string_view, 9> qualcomm{
        "alg", "prot", "mod", "ealg", "spi-c", "spi-s", "port-c", "port-s", "q"};
    static constexpr std::array<std::string_view, 9> mediatek{
        "prot", "mod", "spi-c", "spi-s", "port-c", "port-s", "ealg", "alg", "q"};
    static constexpr std::array<std::string_view, 9> google{
        "q", "alg", "prot", "mod", "ealg", "spi-c", "spi-s", "port-c", "port-s"};
    static constexpr std::array<std::string_view, 9> samsung{
        "prot", "mod", "spi-c", "spi-s", "port-c", "port-s", "alg", "ealg", "q"};
    switch (style) {
        case Style::qualcomm:
            return qualcomm;
        case Style::mediatek:
            return mediatek;
        case Style::google:
            return google;
        case Style::samsung:
            return samsung;
        case Style::plain:
            break;
    }
    return {};
}

}  // namespace

std::string_view name(Style style) {
    switch (style) {
        case Style::plain:
            return "plain";
        case Style::samsung:
            return "samsung";
        case Style::qualcomm:
            return "qualcomm";
        case Style::mediatek:
            return "mediatek";
        case Style::google:
            return "google";
    }
    return "plain";
}

std::optional<Style> parse_style(std::string_view text) {
    for (const Style s : all_styles) {
        if (iequals(text, name(s))) return s;
    }
    return std::nullopt;
}

std::string security_client(Style style, std::span<const sa::Suite> suites, Spi spi_c, Spi spi_s,
                            Port port_c, Port port_s, bool nat) {
    std::string out;
    bool first = true;
    const auto write = [&](sa::Suite s, bool encapsulated) {
        const auto alg = sa::name(s.integrity);
        const auto ealg = sa::name(s.encryption);
        const std::string_view mod = encapsulated ? "UDP-enc-tun" : "trans";
        if (first || style == Style::google) out += "Security-Client: ";
        switch (style) {
            case Style::plain:
            case Style::qualcomm:
                out += fmt::format(
                    "{}ipsec-3gpp; alg={}; ealg={}; {}spi-c={}; spi-s={}; port-c={}; port-s={}",
                    first                      ? ""
                    : style == Style::qualcomm ? ","
                                               : ", ",
                    alg, ealg, encapsulated ? "mod=UDP-enc-tun; " : "", spi_c, spi_s, port_c,
                    port_s);
                break;
            case Style::samsung:
                out += fmt::format(
                    "{}ipsec-3gpp;prot=esp;mod={};spi-c={};spi-s={};port-c={};port-s={};alg={};"
                    "ealg={}",
                    first ? "" : ", ", mod, spi_c, spi_s, port_c, port_s, alg, ealg);
                break;
            case Style::mediatek:
                out += fmt::format(
                    "{}ipsec-3gpp;prot=esp;mod={};spi-c={};spi-s={};port-c={};port-s={};ealg={};"
                    "alg={}",
                    first ? "" : ", ", mod, spi_c, spi_s, port_c, port_s, ealg, alg);
                break;
            case Style::google:
                out += fmt::format(
                    "ipsec-3gpp;alg={};prot=esp;mod={};ealg={};spi-c={:010};spi-s={:010};port-c="
                    "{};port-s={}\r\n",
                    alg, mod, ealg, spi_c, spi_s, port_c, port_s);
                break;
        }
        first = false;
    };
    for (const sa::Suite s : suites) write(s, false);
    if (nat) {
        for (const sa::Suite s : suites) write(s, true);
    }
    if (!first && style != Style::google) out += "\r\n";
    return out;
}

Result<std::vector<Mechanism>> parse_security_server(std::span<const std::string_view> values) {
    std::vector<Mechanism> list;
    for (const std::string_view v : values) {
        if (trim_all(v).empty()) continue;
        if (list.size() == max_mechanisms) {
            return fail(ErrorKind::invalid, "Security-Server: more than 64 mechanisms");
        }
        auto m = parse_one(v);
        if (!m) return std::unexpected(m.error());
        list.push_back(std::move(*m));
    }
    return list;
}

const Mechanism* choose(std::span<const Mechanism> offered, std::span<const sa::Suite> supported,
                        bool nat) {
    const Mechanism* best = nullptr;
    for (const Mechanism& m : offered) {
        if (!m.suite || std::ranges::find(supported, *m.suite) == supported.end()) continue;
        if (m.encapsulated && !nat) continue;
        if (best == nullptr || m.q > best->q) best = &m;
    }
    return best;
}

std::string security_verify(Style style, std::span<const Mechanism> offered) {
    std::string out;
    const bool one_line_each = style == Style::google;
    const std::string_view separator =
        style == Style::plain || style == Style::qualcomm ? "; " : ";";
    const auto order = verify_order(style);
    bool first = true;
    for (const Mechanism& m : offered) {
        if (first || one_line_each) {
            out += "Security-Verify: ";
        } else {
            out += style == Style::qualcomm ? "," : ", ";
        }
        first = false;
        out += m.name;
        const auto write = [&](const std::pair<std::string, std::string>& p) {
            out += separator;
            out += p.first;
            if (p.second.empty()) return;
            out += '=';
            const bool stand_in = static_cast<unsigned char>(p.second[0]) < ' ';
            if (style == Style::google && !stand_in && (p.first == "spi-c" || p.first == "spi-s")) {
                out += fmt::format("{:0>10}", p.second);
            } else {
                out += p.second;
            }
        };
        for (const std::string_view key : order) {
            for (const auto& p : m.parameters) {
                if (p.first == key) write(p);
            }
        }
        for (const auto& p : m.parameters) {
            if (std::ranges::find(order, p.first) == order.end()) write(p);
        }
        if (one_line_each) out += "\r\n";
    }
    if (!first && !one_line_each) out += "\r\n";
    return out;
}

std::string verify_template(Style style, std::span<const Mechanism> offered,
                            const Mechanism& chosen) {
    std::vector<Mechanism> list(offered.begin(), offered.end());
    for (Mechanism& m : list) {
        for (auto& [key, value] : m.parameters) {
            if (key == "spi-c" && m.spi_c == chosen.spi_c) value = "\x01";
            if (key == "spi-s" && m.spi_s == chosen.spi_s) value = "\x02";
            if (key == "port-c" && m.port_c == chosen.port_c) value = "\x03";
            if (key == "port-s" && m.port_s == chosen.port_s) value = "\x04";
        }
    }
    return security_verify(style, list);
}

std::string expand_verify(Style style, std::string_view text, const SaNumbers& numbers) {
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    const auto spi = [&](Spi v) {
        out += style == Style::google ? fmt::format("{:010}", v) : fmt::format("{}", v);
    };
    for (const char c : text) {
        switch (c) {
            case 1:
                spi(numbers.spi_pc);
                break;
            case 2:
                spi(numbers.spi_ps);
                break;
            case 3:
                out += std::to_string(numbers.port_pc);
                break;
            case 4:
                out += std::to_string(numbers.port_ps);
                break;
            default:
                out += c;
        }
    }
    return out;
}

}  // namespace gmgate::ue
