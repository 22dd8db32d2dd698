#pragma once
// A YAML document as a small tree that knows the line of everything and keeps duplicate keys, built
// from yaml-cpp's events. yaml-cpp's own Node drops duplicates and expands aliases; a configuration
// needs neither anchors nor depth, so both are refused, and a hostile file costs no more than its
// size.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"

namespace gmgate::config {

struct YamlNode {
    enum class Kind : std::uint8_t { null, scalar, list, map };
    Kind kind = Kind::null;
    int line = 0;                 // from 1
    std::string text;             // scalar
    std::vector<YamlNode> keys;   // map, in order, duplicates included; keys[i] belongs to items[i]
    std::vector<YamlNode> items;  // list, or the values of a map
};

inline constexpr std::size_t longest_document = 1U << 20U;  // octets
inline constexpr std::size_t deepest_nesting = 8;

// nullopt: not YAML, or refused; `problems` says why, with the line.
[[nodiscard]] std::optional<YamlNode> parse_yaml(std::string_view text, Problems& problems);

}  // namespace gmgate::config
