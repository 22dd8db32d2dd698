#include "config/section.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/bytes.h"

namespace gmgate::config {

namespace {

std::string_view kind_name(YamlNode::Kind kind) {
    switch (kind) {
        case YamlNode::Kind::null:
            return "empty";
        case YamlNode::Kind::scalar:
            return "a value";
        case YamlNode::Kind::list:
            return "a list";
        case YamlNode::Kind::map:
            return "a section";
    }
    return "";
}

template <class T>
std::optional<T> parse_whole(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Digits and one point only: no exponent, no sign, no "nan".
std::optional<double> parse_decimal(std::string_view text) {
    if (text.empty() || text.size() > 15 ||
        text.find_first_not_of("0123456789.") != std::string_view::npos)
        return std::nullopt;
    return parse_whole<double>(text);
}

// Number of single-letter edits; swapped neighbours count as one.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
    std::iota(d[0].begin(), d[0].end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t change = ascii_lower(a[i - 1]) == ascii_lower(b[j - 1]) ? 0 : 1;
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[a.size()][b.size()];
}

}  // namespace

std::optional<std::string> nearest(std::string_view word, std::span<const std::string_view> names) {
    if (word.size() > 64) return std::nullopt;
    std::optional<std::string> best;
    std::size_t least = std::max<std::size_t>(2, word.size() / 3) + 1;
    for (const std::string_view name : names) {
        std::size_t d = distance(word, name);
        // A word left out or put in front: `ps` for `port_ps`.
        if (word.size() >= 2 && (name.ends_with(word) || name.starts_with(word)))
            d = std::min<std::size_t>(d, 2);
        if (d < least && d < name.size()) {
            least = d;
            best = std::string(name);
        }
    }
    return best;
}

std::optional<Duration> parse_duration(std::string_view text, std::optional<Duration> t1) {
    if (t1) {
        const std::size_t star = text.find('*');
        if (star != std::string_view::npos) {
            const std::optional<unsigned> factor =
                parse_whole<unsigned>(trim(text.substr(0, star)));
            if (!factor || *factor > 100000 || !iequals(trim(text.substr(star + 1)), "t1"))
                return std::nullopt;
            return *t1 * *factor;
        }
    }
    const std::size_t unit_at = text.find_first_not_of("0123456789.");
    if (unit_at == std::string_view::npos) return std::nullopt;
    const std::optional<double> amount = parse_decimal(text.substr(0, unit_at));
    const std::string_view unit = trim(text.substr(unit_at));
    double seconds = 0;
    if (unit == "ms")
        seconds = 1e-3;
    else if (unit == "s")
        seconds = 1;
    else if (unit == "m" || unit == "min")
        seconds = 60;
    else if (unit == "h")
        seconds = 3600;
    else
        return std::nullopt;
    if (!amount || *amount * seconds > 1e9) return std::nullopt;
    return std::chrono::duration_cast<Duration>(
        std::chrono::microseconds(std::llround(*amount * seconds * 1e6)));
}

std::string duration_text(Duration d) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
    if (ms % 3600000 == 0 && ms != 0) return fmt::format("{}h", ms / 3600000);
    if (ms % 1000 == 0) return fmt::format("{}s", ms / 1000);
    return fmt::format("{}ms", ms);
}

Section::Section(const YamlNode* node, std::string name, Problems& problems, Source& source)
    : node_(node), name_(std::move(name)), problems_(problems), source_(source) {
    if (node_ == nullptr) return;
    if (node_->kind == YamlNode::Kind::null) {
        node_ = nullptr;
        return;
    }
    if (node_->kind != YamlNode::Kind::map) {
        problems_.add(
            node_->line, name_,
            name_.empty()
                ? fmt::format("the file holds {}, not sections; begin with 'gateway:'",
                              kind_name(node_->kind))
                : fmt::format("this is {}, not a section; put its keys below it, indented",
                              kind_name(node_->kind)));
        node_ = nullptr;
        return;
    }
    for (const YamlNode& key : node_->keys) {
        if (key.kind != YamlNode::Kind::scalar) continue;
        // Linear over the earlier keys would be quadratic in a hostile file: the map of lines knows
        // them.
        const auto [at, fresh] = source_.lines.emplace(path(key.text), key.line);
        if (!fresh) {
            problems_.add(
                key.line, path(key.text),
                fmt::format("this key stands already on line {}; keep one of them", at->second));
        }
    }
}

std::string Section::path(std::string_view key) const {
    return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
}

const YamlNode* Section::find(std::string_view key) {
    known_.emplace(key);
    if (node_ == nullptr) return nullptr;
    for (std::size_t i = 0; i < node_->keys.size(); ++i) {
        const YamlNode& k = node_->keys[i];
        if (k.kind == YamlNode::Kind::scalar && k.text == key) return &node_->items[i];
    }
    return nullptr;
}

bool Section::has(std::string_view key) {
    return find(key) != nullptr;
}

void Section::wrong(std::string_view key, std::string_view what) {
    const auto it = source_.lines.find(path(key));
    problems_.add(it != source_.lines.end() ? it->second : 0, path(key), what);
}

void Section::missing(std::string_view key, std::string_view what) {
    if (has(key)) return;  // there, and wrong: reported already
    const auto it = source_.lines.find(name_);
    problems_.add(it != source_.lines.end() ? it->second : 0, path(key),
                  fmt::format("missing; {}", what));
}

const YamlNode* Section::scalar(std::string_view key, std::string_view wanted) {
    const YamlNode* value = find(key);
    if (value == nullptr) return nullptr;
    if (value->kind != YamlNode::Kind::scalar) {
        wrong(key, fmt::format("this is {}; write {}", kind_name(value->kind), wanted));
        return nullptr;
    }
    return value;
}

bool Section::text(std::string_view key, std::string& out) {
    const YamlNode* value = scalar(key, "a text");
    if (value == nullptr) return false;
    out = value->text;
    return true;
}

bool Section::boolean(std::string_view key, bool& out) {
    const YamlNode* value = scalar(key, "true or false");
    if (value == nullptr) return false;
    const std::string word = to_lower(value->text);
    if (word == "true" || word == "yes" || word == "on")
        out = true;
    else if (word == "false" || word == "no" || word == "off")
        out = false;
    else {
        wrong(key, fmt::format("'{}' is neither true nor false", printable(value->text)));
        return false;
    }
    return true;
}

bool Section::integer(std::string_view key, std::uint64_t& out, std::uint64_t least,
                      std::uint64_t most, std::string_view unit) {
    const std::string range =
        fmt::format("a whole number from {} to {}{}{}", least, most, unit.empty() ? "" : " ", unit);
    const YamlNode* value = scalar(key, range);
    if (value == nullptr) return false;
    const bool digits =
        !value->text.empty() && value->text.find_first_not_of("0123456789") == std::string::npos;
    const std::optional<std::uint64_t> number =
        digits ? parse_whole<std::uint64_t>(value->text) : std::nullopt;
    if (!number && !digits) {
        wrong(key,
              fmt::format("'{}' is not a whole number; write {}", printable(value->text), range));
        return false;
    }
    if (!number || *number < least || *number > most) {
        wrong(key, fmt::format("{} is out of range; write {}", printable(value->text), range));
        return false;
    }
    out = *number;
    return true;
}

bool Section::rate(std::string_view key, double& out, double least, double most) {
    const std::string range = fmt::format("a number a second from {} to {}", least, most);
    const YamlNode* value = scalar(key, range);
    if (value == nullptr) return false;
    std::string_view number_text = value->text;
    if (number_text.ends_with("/s"))
        number_text = trim(number_text.substr(0, number_text.size() - 2));
    const std::optional<double> number = parse_decimal(number_text);
    if (!number) {
        wrong(key, fmt::format("'{}' is not a rate; write {}, such as 5 or 0.5/s",
                               printable(value->text), range));
        return false;
    }
    if (*number < least || *number > most) {
        wrong(key, fmt::format("{} is out of range; write {}", printable(value->text), range));
        return false;
    }
    out = *number;
    return true;
}

bool Section::duration(std::string_view key, Duration& out, Duration least, Duration most,
                       std::optional<Duration> t1) {
    const std::string_view examples = t1 ? "500ms, 240s, 2m, 1h or 64*T1" : "500ms, 240s, 2m or 1h";
    const YamlNode* value = scalar(key, fmt::format("a duration such as {}", examples));
    if (value == nullptr) return false;
    const std::optional<Duration> d = parse_duration(value->text, t1);
    if (!d) {
        wrong(key, fmt::format("'{}' is not a duration; write a number with its unit: {}",
                               printable(value->text), examples));
        return false;
    }
    if (*d < least || *d > most) {
        wrong(key, fmt::format("{} is out of range; write {} to {}", printable(value->text),
                               duration_text(least), duration_text(most)));
        return false;
    }
    out = *d;
    return true;
}

bool Section::ports(std::string_view key, PortRange& out) {
    const YamlNode* value = scalar(key, "a port or a range, such as 6100-6103");
    if (value == nullptr) return false;
    const std::string_view whole = value->text;
    const std::size_t dash = whole.find('-');
    const auto first = parse_whole<std::uint32_t>(trim(whole.substr(0, dash)));
    const auto last = dash == std::string_view::npos
                          ? first
                          : parse_whole<std::uint32_t>(trim(whole.substr(dash + 1)));
    if (!first || !last) {
        wrong(key, fmt::format("'{}' is neither a port nor a range; write one such as 6100-6103",
                               printable(whole)));
        return false;
    }
    if (*first > 65535 || *last > 65535 || *first < 1024) {
        wrong(key, fmt::format("{} is out of range; choose 1024-65535 without 5060 and 5061",
                               printable(whole)));
        return false;
    }
    if (*first > *last) {
        wrong(key, fmt::format("{} runs backwards; write {}-{}", printable(whole), *last, *first));
        return false;
    }
    out = {static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
    return true;
}

bool Section::endpoint(std::string_view key, Endpoint& out, std::uint16_t default_port) {
    const YamlNode* value = scalar(key, "an address and a port, such as 10.30.0.2:5060");
    if (value == nullptr) return false;
    const std::optional<Endpoint> e = Endpoint::parse(value->text, default_port);
    if (!e || e->port == 0) {
        wrong(key,
              fmt::format(
                  "'{}' is not an address with a port; write 10.30.0.2:5060 or [fd00:30::2]:5060",
                  printable(value->text)));
        return false;
    }
    out = *e;
    return true;
}

bool Section::list(std::string_view key, const std::function<void(int, const std::string&)>& take) {
    const YamlNode* value = find(key);
    if (value == nullptr) return false;
    if (value->kind == YamlNode::Kind::scalar) {
        take(value->line, value->text);
        return true;
    }
    if (value->kind == YamlNode::Kind::map) {
        wrong(key, "this is a section; write a list: [a, b] or one '- a' a line");
        return false;
    }
    if (value->items.empty()) {
        wrong(key, "the list is empty; give at least one");
        return false;
    }
    for (const YamlNode& item : value->items) {
        if (item.kind == YamlNode::Kind::scalar)
            take(item.line, item.text);
        else
            problems_.add(
                item.line, path(key),
                fmt::format("an element of the list is {}; write a value", kind_name(item.kind)));
    }
    return true;
}

std::optional<std::size_t> Section::choose(std::string_view key,
                                           std::span<const std::string_view> names) {
    const std::string all = fmt::format("{}", fmt::join(names, ", "));
    const YamlNode* value = scalar(key, fmt::format("one of {}", all));
    if (value == nullptr) return std::nullopt;
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (value->text == names[i]) return i;
    }
    const std::optional<std::string> near = nearest(value->text, names);
    wrong(key, fmt::format("'{}' is not one of {}{}", printable(value->text), all,
                           near ? fmt::format("; did you mean {}?", *near) : ""));
    return std::nullopt;
}

Section Section::section(std::string_view key) {
    return {find(key), path(key), problems_, source_};
}

void Section::finish() {
    if (node_ == nullptr) return;
    std::vector<std::string_view> names(known_.begin(), known_.end());
    for (const YamlNode& key : node_->keys) {
        if (key.kind != YamlNode::Kind::scalar) {
            problems_.add(key.line, name_, "a key must be a word");
            continue;
        }
        if (known_.contains(key.text)) continue;
        // Not for the thousandth: such a file is no configuration.
        const std::optional<std::string> near =
            problems_.size() < 100 ? nearest(key.text, names) : std::nullopt;
        problems_.add(
            key.line, path(key.text),
            near ? fmt::format("unknown key; did you mean {}?", *near)
                 : fmt::format("unknown key; {} has {}", name_.empty() ? "the file" : name_,
                               fmt::join(names, ", ")));
    }
}

}  // namespace gmgate::config
