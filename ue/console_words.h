#pragma once
// Words of a console's line.

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace gmgate::ue {

inline std::string_view take_word(std::string_view& rest) {
    rest = trim(rest);
    const auto end = std::min(rest.find_first_of(" \t"), rest.size());
    const auto word = rest.substr(0, end);
    rest.remove_prefix(end);
    rest = trim(rest);
    return word;
}

inline std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t v = 0;
    const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return v;
}

// "key=value": the value.
inline std::optional<std::string_view> value_of(std::string_view word, std::string_view key) {
    if (word.size() <= key.size() || !word.starts_with(key) || word[key.size()] != '=')
        return std::nullopt;
    return word.substr(key.size() + 1);
}

}  // namespace gmgate::ue
