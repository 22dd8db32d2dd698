#pragma once
// Lines and arrows, in plain characters or drawn.

#include <cstddef>
#include <cstdint>
#include <string>

#include "control/cli/text.h"

namespace gmgate::cli {

struct Glyphs {
    const char* lane;
    const char* line;
    const char* right;
    const char* left;
    const char* event;
    const char* broken;
    [[nodiscard]] static const Glyphs& of(const Style& style);
};

[[nodiscard]] std::string repeat(const char* glyph, std::size_t n);
// "2026-11-22 08:15:00.123 UTC"
[[nodiscard]] std::string utc(std::int64_t time_us);
// In the middle of `width` columns; longer text as it is.
[[nodiscard]] std::string centred(const std::string& text, std::size_t width);
// "- text -->" or "<-- text -", `width` (at least 6) columns wide whatever the text.
[[nodiscard]] std::string arrow(const std::string& text, std::size_t width, bool to_right,
                                const Style& style);

}  // namespace gmgate::cli
