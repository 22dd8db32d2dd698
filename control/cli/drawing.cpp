#include "control/cli/drawing.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace gmgate::cli {

const Glyphs& Glyphs::of(const Style& style) {
    static constexpr Glyphs plain{"|", "-", ">", "<", "*", "x"};
    static constexpr Glyphs drawn{"│", "─", "▶", "◀", "●", "✗"};
    return style.unicode ? drawn : plain;
}

std::string repeat(const char* glyph, std::size_t n) {
    std::string out;
    for (std::size_t i = 0; i < n; ++i) out += glyph;
    return out;
}

std::string utc(std::int64_t time_us) {
    const std::time_t seconds = static_cast<std::time_t>(time_us / 1000000);
    std::tm tm{};
    if (time_us < 0 || ::gmtime_r(&seconds, &tm) == nullptr) return "?";
    std::array<char, 40> text{};
    const std::size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &tm);
    return fmt::format("{}.{:03} UTC", std::string_view(text.data(), n), time_us / 1000 % 1000);
}

std::string centred(const std::string& text, std::size_t width) {
    const std::size_t used = std::min(columns_of(text), width);
    const std::size_t before = (width - used) / 2;
    return std::string(before, ' ') + text + std::string(width - used - before, ' ');
}

std::string arrow(const std::string& text, std::size_t width, bool to_right, const Style& style) {
    const Glyphs& g = Glyphs::of(style);
    // One stroke and the head are kept whatever the text.
    const std::string label = " " + fit(text, width - 5, style) + " ";
    const std::size_t strokes = width - 1 - columns_of(label);
    if (to_right) return repeat(g.line, 1) + label + repeat(g.line, strokes - 1) + g.right;
    return g.left + repeat(g.line, strokes - 1) + label + repeat(g.line, 1);
}

}  // namespace gmgate::cli
