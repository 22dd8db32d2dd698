#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <string>

namespace gmgate::log {

namespace {
std::atomic<Level> threshold{Level::info};

spdlog::level::level_enum to_spdlog(Level level) {
    switch (level) {
        case Level::debug:
            return spdlog::level::debug;
        case Level::info:
            return spdlog::level::info;
        case Level::warn:
            return spdlog::level::warn;
        case Level::error:
            return spdlog::level::err;
        case Level::off:
            break;
    }
    return spdlog::level::off;
}

std::shared_ptr<spdlog::logger>& sink() {
    static std::shared_ptr<spdlog::logger> logger = [] {
        auto l = spdlog::stderr_color_mt("gmgate");
        l->set_level(spdlog::level::debug);
        l->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-7l%$ %v");
        l->flush_on(spdlog::level::info);
        return l;
    }();
    return logger;
}
}  // namespace

void configure(Level level, bool time) {
    threshold.store(level, std::memory_order_relaxed);
    if (!time) sink()->set_pattern("%^%-7l%$ %v");
}

bool enabled(Level level) {
    return level >= threshold.load(std::memory_order_relaxed) && level != Level::off;
}

void write(Level level, std::string_view area, std::string_view text) {
    constexpr std::size_t longest = 2048;
    std::string line;
    line.reserve(area.size() + 2 + text.size());
    line.append(area).append(": ").append(text.substr(0, longest));
    for (char& c : line) {
        const auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u == 0x7F) c = '?';
    }
    if (text.size() > longest) line += "…";
    sink()->log(to_spdlog(level), line);
}

bool parse_level(std::string_view text, Level& level) {
    if (text == "debug")
        level = Level::debug;
    else if (text == "info")
        level = Level::info;
    else if (text == "warn")
        level = Level::warn;
    else if (text == "error")
        level = Level::error;
    else if (text == "off")
        level = Level::off;
    else
        return false;
    return true;
}

}  // namespace gmgate::log
