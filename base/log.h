#pragma once
// Log lines for operators: `log::warn("registration", "{}: {}", impi, reason)`. Any thread. Never
// on the fast path. Never a key (S1).
//
// The text is formatted with fmt; the sink is spdlog, kept out of this header because it is slow to
// compile.

#include <fmt/core.h>

#include <string_view>
#include <utility>

namespace gmgate::log {

enum class Level : unsigned char { debug, info, warn, error, off };

// To stderr; with `time` each line begins with the wall clock. Call once, before threads start.
void configure(Level level, bool time);
[[nodiscard]] bool enabled(Level level);
// One line: control characters in `text` are replaced by '?', so a stranger's message cannot forge
// lines. Cut at 2 KiB.
void write(Level level, std::string_view area, std::string_view text);
// "debug", "info", "warn", "error", "off"; false if it is none of them.
bool parse_level(std::string_view text, Level& level);

template <class... Args>
void at(Level level, std::string_view area, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(level)) write(level, area, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void debug(std::string_view area, fmt::format_string<Args...> format, Args&&... args) {
    at(Level::debug, area, format, std::forward<Args>(args)...);
}
template <class... Args>
void info(std::string_view area, fmt::format_string<Args...> format, Args&&... args) {
    at(Level::info, area, format, std::forward<Args>(args)...);
}
template <class... Args>
void warn(std::string_view area, fmt::format_string<Args...> format, Args&&... args) {
    at(Level::warn, area, format, std::forward<Args>(args)...);
}
template <class... Args>
void error(std::string_view area, fmt::format_string<Args...> format, Args&&... args) {
    at(Level::error, area, format, std::forward<Args>(args)...);
}

}  // namespace gmgate::log
