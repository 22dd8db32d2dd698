#pragma once
// Numbers, ages and tables as people read them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::cli {

// How wide and how colourful the output may be.
struct Style {
    std::size_t width = 0;  // columns; 0: no limit (a file or a pipe)
    bool colour = false;
    bool unicode = false;
};

enum class Colour : unsigned char { red, green, yellow, faint, bold };
[[nodiscard]] std::string paint(const Style& style, Colour colour, std::string_view text);

[[nodiscard]] std::string count_text(std::uint64_t n);      // 1,234,567
[[nodiscard]] std::string bytes_text(std::uint64_t n);      // 512 B, 1.5 kB, 20 MB
[[nodiscard]] std::string age_text(double seconds);         // 0s, 2m13s, 3h05m, 4d02h
[[nodiscard]] std::string short_time_text(double seconds);  // 85us, 1.2ms, 3.4s
[[nodiscard]] std::string spi_text(std::uint64_t spi);      // 0x04000001
[[nodiscard]] std::string rate_text(double per_second);     // 0/s, 12.5/s, 3,200/s

// Columns a terminal uses for `text` (UTF-8; every code point counts one).
[[nodiscard]] std::size_t columns_of(std::string_view text);
// `text` cut to `width` columns, the last one "…" or "~" when something is missing. Control
// characters become '?': names come from the network.
[[nodiscard]] std::string fit(std::string_view text, std::size_t width, const Style& style);
[[nodiscard]] std::string clean(std::string_view text);
// Lines of at most `width` columns, broken at blanks.
[[nodiscard]] std::vector<std::string> wrap(std::string_view text, std::size_t width);

struct Column {
    std::string title;
    bool right = false;     // numbers
    std::size_t least = 0;  // may be cut down to this width; 0: never cut
    unsigned priority = 0;  // of what does not fit, the highest number goes first; 0: never goes
};

// Rows may come in pages: widths are decided by the first, so that a long list appears at once.
class Table {
  public:
    Table(std::vector<Column> columns, Style style) : columns_(std::move(columns)), style_(style) {}
    void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    // What was added since the last call; with the title line the first time. Empty if nothing was
    // added.
    [[nodiscard]] std::string render();

  private:
    void decide_widths();

    std::vector<Column> columns_;
    Style style_;
    std::vector<std::vector<std::string>> rows_;
    std::vector<std::size_t> widths_;  // 0: column left out
    bool begun_ = false;
};

}  // namespace gmgate::cli
