#include "home/subscribers.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <unordered_map>

#include "base/bytes.h"
#include "base/secret.h"
#include "base/secret_text.h"
#include "home/identity.h"

namespace gmgate::home {

namespace {

constexpr std::size_t max_file = 512UL * 1024 * 1024;
constexpr std::size_t max_impus = 16;
constexpr std::size_t max_sets = 8;
constexpr std::array<std::string_view, 13> columns = {
    "impi", "imsi",   "k",      "opc",           "op",  "amf", "sqn", "impus",
    "sets", "shared", "barred", "service_route", "name"};

bool is_list(std::string_view key) {
    return key == "impus" || key == "sets" || key == "shared" || key == "service_route";
}

// One subscriber as written, before it is checked; lists already taken apart. Holds keys as text:
// wiped when it goes.
struct Row {
    int line = 0;
    std::map<std::string, std::vector<std::string>, std::less<>> fields;

    Row() = default;
    Row(const Row&) = delete;
    Row& operator=(const Row&) = delete;
    Row(Row&&) = default;
    Row& operator=(Row&&) = default;
    ~Row() {
        for (auto& [key, values] : fields) {
            for (auto& v : values) wipe({reinterpret_cast<std::uint8_t*>(v.data()), v.size()});
        }
    }
    [[nodiscard]] bool has(std::string_view key) const { return fields.contains(key); }
    // The only value; empty if there is none.
    [[nodiscard]] std::string_view one(std::string_view key) const {
        const auto it = fields.find(key);
        return it == fields.end() || it->second.empty() ? std::string_view{}
                                                        : std::string_view(it->second.front());
    }
};

std::vector<std::string> words(std::string_view text) {
    std::vector<std::string> out;
    while (!(text = trim(text)).empty()) {
        const auto end = std::min(text.find_first_of(" \t"), text.size());
        out.emplace_back(text.substr(0, end));
        text.remove_prefix(end);
    }
    return out;
}

class Reader {
  public:
    Reader(const std::string& path, std::string_view realm, std::string_view word)
        : path_(path), realm_(realm), word_(word) {}

    // `word` is what the format calls a field: "key" or "column".
    [[nodiscard]] std::unexpected<Error> complain(int line, std::string_view key,
                                                  std::string_view what) const {
        return fail(ErrorKind::invalid,
                    fmt::format("{}:{}: {} '{}': {}", path_, line, word_, key, what));
    }

    Result<Subscriber> make(const Row& row) {
        Subscriber s;
        if (auto done = identities(row, s); !done) return std::unexpected(done.error());
        if (auto done = unique(row, s); !done) return std::unexpected(done.error());
        if (auto done = keys(row, s); !done) return std::unexpected(done.error());
        if (row.has("amf") && !from_hex(row.one("amf"), s.amf)) {
            return complain(row.line, "amf", "not an AMF: give 4 hex digits, e.g. 8000");
        }
        if (row.has("sqn")) {
            Sqn48 sqn{};
            if (!from_hex(row.one("sqn"), sqn)) {
                return complain(row.line, "sqn",
                                "not a sequence number: give 12 hex digits, e.g. 000000000020");
            }
            s.sqn = Sqn(sqn);
        }
        if (row.has("barred")) {
            const auto v = row.one("barred");
            if (!iequals(v, "true") && !iequals(v, "false"))
                return complain(row.line, "barred", "write true or false");
            s.barred = iequals(v, "true");
        }
        if (const auto it = row.fields.find("service_route"); it != row.fields.end()) {
            for (const auto& uri : it->second) {
                if (!canonical_impu(uri)) {
                    return complain(
                        row.line, "service_route",
                        fmt::format("'{}' is not a SIP URI: write e.g. sip:orig@scscf.example;lr",
                                    uri));
                }
                s.service_route.push_back(uri);
            }
        }
        return s;
    }

  private:
    Result<void> identities(const Row& row, Subscriber& s) const {
        const bool by_imsi = row.has("imsi");
        if (by_imsi == row.has("impi")) {
            return complain(row.line, by_imsi ? "imsi" : "impi",
                            by_imsi ? "give impi or imsi, not both"
                                    : "missing: give impi (user@realm) or imsi (digits)");
        }
        if (by_imsi) {
            const auto imsi = row.one("imsi");
            if (imsi.empty() || imsi.size() > 15 ||
                imsi.find_first_not_of("0123456789") != std::string_view::npos) {
                return complain(
                    row.line, "imsi",
                    fmt::format(
                        "'{}' is not an IMSI: give up to 15 digits (quoted in YAML, or leading "
                        "zeros are lost)",
                        imsi));
            }
            s.impi = fmt::format("{}@{}", imsi, realm_);
            s.impus = {fmt::format("sip:{}@{}", imsi, realm_), fmt::format("tel:+{}", imsi)};
        } else {
            s.impi = row.one("impi");
            const auto at = s.impi.find('@');
            if (at == 0 || at == std::string::npos || at + 1 == s.impi.size() ||
                s.impi.find_first_of(" \"\\<>,;") != std::string::npos) {
                return complain(
                    row.line, "impi",
                    fmt::format("'{}' is not a private identity: write user@realm, without sip:",
                                s.impi));
            }
            const auto by_rule = canonical_impu("sip:" + s.impi);
            if (!by_rule)
                return complain(row.line, "impi",
                                fmt::format("'{}' makes no SIP URI: give impus", s.impi));
            s.impus = {*by_rule};
        }
        if (row.has("impus") && row.has("sets"))
            return complain(row.line, "sets", "give impus (one set) or sets, not both");
        if (const auto it = row.fields.find("impus"); it != row.fields.end()) {
            if (auto done = impus(row.line, "impus", it->second, s); !done) return done;
        }
        if (const auto it = row.fields.find("sets"); it != row.fields.end()) {
            if (auto done = sets(row.line, it->second, s); !done) return done;
        }
        const auto it = row.fields.find("shared");
        if (it == row.fields.end()) return {};
        for (const auto& text : it->second) {
            auto impu = canonical_impu(text);
            if (!impu || std::ranges::find(s.impus, *impu) == s.impus.end()) {
                return complain(row.line, "shared",
                                fmt::format("'{}' is none of its own identities", text));
            }
            if (*impu == s.set(s.set_of(*impu)).front()) {
                return complain(row.line, "shared",
                                fmt::format("'{}' comes first and stands for the registration: "
                                            "begin the set with an identity of its own",
                                            text));
            }
            s.shared.push_back(std::move(*impu));
        }
        return {};
    }

    // `texts`: a set each, its identities separated by blanks.
    Result<void> sets(int line, const std::vector<std::string>& texts, Subscriber& s) const {
        std::vector<std::string> all;
        s.further_sets.clear();
        for (const auto& text : texts) {
            const auto set = words(text);
            if (set.empty()) return complain(line, "sets", "a set needs an identity");
            if (!all.empty()) s.further_sets.push_back(all.size());
            all.insert(all.end(), set.begin(), set.end());
        }
        if (texts.size() > max_sets)
            return complain(line, "sets", fmt::format("give 1 to {} sets", max_sets));
        return impus(line, "sets", all, s);
    }

    Result<void> impus(int line, std::string_view key, const std::vector<std::string>& texts,
                       Subscriber& s) const {
        if (texts.empty() || texts.size() > max_impus) {
            return complain(line, key, fmt::format("give 1 to {} public identities", max_impus));
        }
        s.impus.clear();
        for (const auto& text : texts) {
            auto impu = canonical_impu(text);
            if (!impu) {
                return complain(
                    line, key,
                    fmt::format(
                        "'{}' is not a public identity: write sip:user@domain or tel:+number",
                        text));
            }
            if (std::ranges::find(s.impus, *impu) != s.impus.end()) {
                return complain(line, key, fmt::format("'{}' stands there twice", text));
            }
            s.impus.push_back(std::move(*impu));
        }
        return {};
    }

    Result<void> unique(const Row& row, const Subscriber& s) {
        const auto taken = [&](std::string_view key, const std::string& identity) -> Result<void> {
            const auto [it, fresh] = lines_.try_emplace(identity, row.line);
            if (fresh) return {};
            return complain(
                row.line, key,
                fmt::format(
                    "'{}' belongs to the subscriber of line {}: one subscriber per identity",
                    identity, it->second));
        };
        if (auto ok = taken(row.has("imsi") ? "imsi" : "impi", s.impi); !ok) return ok;
        for (const auto& impu : s.impus) {
            // What both share is for the HSS to judge, which knows both.
            if (std::ranges::find(s.shared, impu) != s.shared.end()) continue;
            if (auto ok = taken("impus", impu); !ok) return ok;
        }
        return {};
    }

    Result<void> keys(const Row& row, Subscriber& s) {
        constexpr std::string_view want = "32 hex digits";
        if (!row.has("k"))
            return complain(row.line, "k", fmt::format("missing: give the key K as {}", want));
        if (!from_hex(row.one("k"), s.k.writable())) {
            return complain(row.line, "k", fmt::format("not a key: give K as {}", want));
        }
        if (row.has("opc") == row.has("op")) {
            return complain(row.line, "opc",
                            row.has("opc") ? "give opc or op, not both"
                                           : "missing: give opc, or op, as 32 hex digits");
        }
        Secret<16> op;
        const std::string_view key = row.has("opc") ? "opc" : "op";
        if (!from_hex(row.one(key), op.writable())) {
            return complain(
                row.line, key,
                fmt::format("not a key: give {} as {}", key == "op" ? "OP" : "OPc", want));
        }
        s.opc = key == "op" ? milenage_.derive_opc(s.k, op) : std::move(op);
        return {};
    }

    const std::string& path_;
    std::string realm_;
    std::string_view word_;
    Milenage milenage_;
    std::unordered_map<std::string, int> lines_;  // where each identity was given
};

std::optional<std::string> unknown_column(std::string_view key) {
    if (std::ranges::find(columns, key) != columns.end()) return std::nullopt;
    return fmt::format("unknown; known are {}", fmt::join(columns, ", "));
}

// No quoting: none of the columns can hold a comma.
std::vector<std::string_view> cells(std::string_view line) {
    std::vector<std::string_view> out;
    for (;;) {
        const auto comma = line.find(',');
        out.push_back(trim(line.substr(0, comma)));
        if (comma == std::string_view::npos) return out;
        line.remove_prefix(comma + 1);
    }
}

Result<std::vector<Subscriber>> read_csv(std::string_view text, Reader& reader,
                                         const std::string& path) {
    std::vector<Subscriber> out;
    std::vector<std::string> head;
    int number = 0;
    while (!text.empty()) {
        ++number;
        const auto end = std::min(text.find('\n'), text.size());
        auto line = trim(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.ends_with('\r')) line = trim(line.substr(0, line.size() - 1));
        if (line.empty() || line.starts_with('#')) continue;
        const auto parts = cells(line);
        if (head.empty()) {
            for (const auto cell : parts) {
                head.push_back(to_lower(cell));
                if (auto bad = unknown_column(head.back()))
                    return reader.complain(number, head.back(), *bad);
                if (std::count(head.begin(), head.end(), head.back()) > 1) {
                    return reader.complain(number, head.back(), "stands in the first line twice");
                }
            }
            continue;
        }
        if (parts.size() != head.size()) {
            return fail(ErrorKind::invalid,
                        fmt::format("{}:{}: {} columns where the first line names {}: separate by "
                                    "commas, leave a column "
                                    "empty for its default",
                                    path, number, parts.size(), head.size()));
        }
        Row row;
        row.line = number;
        for (std::size_t i = 0; i < parts.size(); ++i) {
            if (parts[i].empty()) continue;
            auto& values = row.fields[head[i]];
            if (head[i] == "sets") {
                for (auto rest = parts[i];;) {
                    const auto bar = rest.find('|');
                    values.emplace_back(trim(rest.substr(0, bar)));
                    if (bar == std::string_view::npos) break;
                    rest.remove_prefix(bar + 1);
                }
            } else if (is_list(head[i])) {
                values = words(parts[i]);
            } else {
                values.emplace_back(parts[i]);
            }
        }
        auto s = reader.make(row);
        if (!s) return std::unexpected(s.error());
        out.push_back(std::move(*s));
    }
    if (head.empty()) {
        return fail(
            ErrorKind::invalid,
            fmt::format("{}:1: no columns: the first line names them, e.g. imsi,k,opc", path));
    }
    return out;
}

// A set in YAML, as the other format writes it.
std::optional<std::string> one_set(const YAML::Node& node) {
    if (!node.IsSequence()) return std::nullopt;
    std::string out;
    for (const auto& v : node) {
        if (!v.IsScalar()) return std::nullopt;
        out += (out.empty() ? "" : " ") + v.Scalar();
    }
    return out;
}

Result<std::vector<Subscriber>> read_yaml(const std::string& text, Reader& reader,
                                          const std::string& path) {
    YAML::Node root;
    try {
        root = YAML::Load(text);
    } catch (const YAML::ParserException& e) {
        return fail(ErrorKind::invalid,
                    fmt::format("{}:{}: not YAML: {}", path, e.mark.line + 1, e.msg));
    }
    const auto at = [](const YAML::Node& n) { return n.Mark().line + 1; };
    if (!root.IsMap() || !root["subscribers"] || !root["subscribers"].IsSequence()) {
        return fail(
            ErrorKind::invalid,
            fmt::format(
                "{}:1: key 'subscribers': missing: write 'subscribers:' and a list under it",
                path));
    }
    for (const auto& item : root) {
        const auto key = item.first.IsScalar() ? item.first.Scalar() : std::string("?");
        if (key != "subscribers")
            return reader.complain(at(item.first), key, "unknown; known is subscribers");
    }
    std::vector<Subscriber> out;
    for (const auto& node : root["subscribers"]) {
        if (!node.IsMap()) {
            return fail(ErrorKind::invalid,
                        fmt::format("{}:{}: not a subscriber: write '- impi: …', 'k: …', 'opc: …'",
                                    path, at(node)));
        }
        Row row;
        row.line = at(node);
        for (const auto& item : node) {
            if (!item.first.IsScalar())
                return reader.complain(at(item.first), "?", "a key is a word");
            const auto key = item.first.Scalar();
            if (auto bad = unknown_column(key)) return reader.complain(at(item.first), key, *bad);
            if (row.has(key)) return reader.complain(at(item.first), key, "stands there twice");
            auto& values = row.fields[key];
            if (item.second.IsScalar()) {
                values.push_back(item.second.Scalar());
            } else if (item.second.IsSequence() && is_list(key)) {
                for (const auto& v : item.second) {
                    if (key == "sets") {
                        auto set = one_set(v);
                        if (!set)
                            return reader.complain(at(v), key, "write a list of lists of URIs");
                        values.push_back(std::move(*set));
                        continue;
                    }
                    if (!v.IsScalar()) return reader.complain(at(v), key, "write a list of URIs");
                    values.push_back(v.Scalar());
                }
            } else {
                return reader.complain(at(item.first), key, "write one value");
            }
        }
        auto s = reader.make(row);
        if (!s) return std::unexpected(s.error());
        out.push_back(std::move(*s));
    }
    return out;
}

}  // namespace

std::span<const std::string> Subscriber::set(std::size_t index) const {
    const std::size_t begin = index == 0 ? 0 : further_sets[index - 1];
    const std::size_t end = index < further_sets.size() ? further_sets[index] : impus.size();
    return std::span(impus).subspan(begin, end - begin);
}

std::size_t Subscriber::set_of(std::string_view impu) const {
    const auto at = static_cast<std::size_t>(std::ranges::find(impus, impu) - impus.begin());
    return static_cast<std::size_t>(std::ranges::upper_bound(further_sets, at) -
                                    further_sets.begin());
}

Result<std::vector<Subscriber>> load_subscribers(const std::string& path, std::string_view realm) {
    const auto text = read_keys(path, max_file);
    if (!text && text.error().kind == ErrorKind::exhausted) {
        return fail(ErrorKind::invalid,
                    fmt::format("{}: larger than 512 MB: generate subscribers instead", path));
    }
    if (!text) {
        return fail(ErrorKind::io,
                    fmt::format("{}: cannot read the subscribers: {}", path, text.error().text));
    }
    const bool csv = to_lower(path).ends_with(".csv");
    Reader reader(path, realm, csv ? "column" : "key");
    std::string for_yaml(csv ? std::string_view{} : std::string_view(*text));
    auto result = csv ? read_csv(*text, reader, path) : read_yaml(for_yaml, reader, path);
    // What yaml-cpp itself copied is beyond our reach: gmhome writes no core dumps for that reason.
    wipe({reinterpret_cast<std::uint8_t*>(for_yaml.data()), for_yaml.size()});
    wipe_stack();
    if (result && result->empty()) {
        return fail(ErrorKind::invalid,
                    fmt::format("{}:1: no subscribers in it: add one, or use --generate", path));
    }
    return result;
}

}  // namespace gmgate::home
