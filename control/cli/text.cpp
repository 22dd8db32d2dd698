#include "control/cli/text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace gmgate::cli {

std::string paint(const Style& style, Colour colour, std::string_view text) {
    if (!style.colour) return std::string(text);
    std::string_view code;
    switch (colour) {
        case Colour::red:
            code = "31";
            break;
        case Colour::green:
            code = "32";
            break;
        case Colour::yellow:
            code = "33";
            break;
        case Colour::faint:
            code = "2";
            break;
        case Colour::bold:
            code = "1";
            break;
    }
    return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string count_text(std::uint64_t n) {
    std::string digits = std::to_string(n);
    for (std::size_t i = digits.size(); i > 3;) {
        i -= 3;
        digits.insert(i, 1, ',');
    }
    return digits;
}

std::string bytes_text(std::uint64_t n) {
    if (n < 1000) return fmt::format("{} B", n);
    double v = static_cast<double>(n);
    const char* unit = "B";
    for (const char* next : {"kB", "MB", "GB", "TB", "PB", "EB"}) {
        // 999.96 would be printed as 1000.0.
        if (v < 999.5) break;
        v /= 1000;
        unit = next;
    }
    return v < 9.95 ? fmt::format("{:.1f} {}", v, unit) : fmt::format("{:.0f} {}", v, unit);
}

std::string age_text(double seconds) {
    if (!(seconds > 0)) return "0s";
    const auto s = static_cast<std::uint64_t>(seconds);
    if (s < 60) return fmt::format("{}s", s);
    if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
    if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
    return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::string short_time_text(double seconds) {
    if (seconds < 1e-3) return fmt::format("{:.0f}us", seconds * 1e6);
    if (seconds < 1) return fmt::format("{:.1f}ms", seconds * 1e3);
    if (seconds < 100) return fmt::format("{:.1f}s", seconds);
    return age_text(seconds);
}

std::string spi_text(std::uint64_t spi) {
    return fmt::format("0x{:08x}", spi);
}

std::string rate_text(double r) {
    if (!std::isfinite(r) || r < 0.05) return "0/s";
    if (r < 100) return fmt::format("{:.1f}/s", r);
    return count_text(static_cast<std::uint64_t>(std::llround(r))) + "/s";
}

std::size_t columns_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    }));
}

std::string clean(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    }
    return out;
}

std::string fit(std::string_view text, std::size_t width, const Style& style) {
    std::string out = clean(text);
    if (columns_of(out) <= width) return out;
    std::size_t end = 0;
    for (std::size_t n = 0; end < out.size(); ++end) {
        if ((static_cast<unsigned char>(out[end]) & 0xC0U) == 0x80U) continue;
        if (n + 1 >= width) break;
        ++n;
    }
    out.resize(end);
    if (width > 0) out += style.unicode ? "…" : "~";
    return out;
}

std::vector<std::string> wrap(std::string_view text, std::size_t width) {
    std::vector<std::string> out;
    std::string line;
    while (!text.empty()) {
        const std::size_t start = text.find_first_not_of(' ');
        if (start == std::string_view::npos) break;
        text.remove_prefix(start);
        std::string_view word = text.substr(0, text.find(' '));
        text.remove_prefix(word.size());
        if (!line.empty() && columns_of(line) + 1 + columns_of(word) > width) {
            out.push_back(std::move(line));
            line.clear();
        }
        if (!line.empty()) line += ' ';
        line += clean(word);
    }
    if (!line.empty()) out.push_back(std::move(line));
    return out;
}

void Table::decide_widths() {
    constexpr std::size_t gap = 2;
    widths_.clear();
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t w = columns_of(columns_[i].title);
        for (const auto& row : rows_) w = std::max(w, columns_of(clean(row[i])));
        widths_.push_back(w);
    }
    if (style_.width == 0) return;
    const auto total = [&] {
        std::size_t sum = 0;
        for (const std::size_t w : widths_) sum += w == 0 ? 0 : w + gap;
        return sum < gap ? 0 : sum - gap;
    };
    // First the columns that may be shortened give way, the widest before the others; then whole
    // columns go.
    for (;;) {
        while (total() > style_.width) {
            std::size_t widest = columns_.size();
            for (std::size_t i = 0; i < columns_.size(); ++i) {
                if (columns_[i].least == 0 || widths_[i] <= columns_[i].least) continue;
                if (widest == columns_.size() || widths_[i] > widths_[widest]) widest = i;
            }
            if (widest == columns_.size()) break;
            --widths_[widest];
        }
        if (total() <= style_.width) return;
        std::size_t victim = columns_.size();
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (widths_[i] == 0 || columns_[i].priority == 0) continue;
            if (victim == columns_.size() || columns_[i].priority > columns_[victim].priority)
                victim = i;
        }
        if (victim == columns_.size()) return;
        widths_[victim] = 0;
        // Room is free again: let the shortened ones grow back.
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (columns_[i].least == 0 || widths_[i] == 0) continue;
            std::size_t w = columns_of(columns_[i].title);
            for (const auto& row : rows_) w = std::max(w, columns_of(clean(row[i])));
            widths_[i] = w;
        }
    }
}

std::string Table::render() {
    if (rows_.empty()) return {};
    std::string out;
    const auto put = [&](const std::vector<std::string>& cells, bool title) {
        std::string line;
        std::size_t pending = 0;  // blanks owed: none at the end of a line
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (widths_[i] == 0) continue;
            // Without a limit nothing is cut, also on later pages.
            const std::string cell =
                style_.width == 0 ? clean(cells[i]) : fit(cells[i], widths_[i], style_);
            const std::size_t used = columns_of(cell);
            const std::size_t pad = widths_[i] > used ? widths_[i] - used : 0;
            if (columns_[i].right) {
                line += std::string(pending + pad, ' ') + cell;
                pending = 2;
            } else {
                line += std::string(pending, ' ') + cell;
                pending = pad + 2;
            }
        }
        out += title ? paint(style_, Colour::bold, line) : line;
        out += '\n';
    };
    if (!begun_) {
        begun_ = true;
        decide_widths();
        std::vector<std::string> titles;
        for (const Column& c : columns_) titles.push_back(c.title);
        put(titles, true);
    }
    for (const auto& row : rows_) put(row, false);
    rows_.clear();
    return out;
}

}  // namespace gmgate::cli
