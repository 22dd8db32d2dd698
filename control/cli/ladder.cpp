#include "control/cli/ladder.h"

#include <fmt/core.h>

#include <algorithm>

#include "control/cli/drawing.h"

namespace gmgate::cli {

namespace {

// time | UE |---gap---| P-CSCF |---gap---| core | SA
class Canvas {
  public:
    explicit Canvas(const Style& style) : style_(style), g_(Glyphs::of(style)) {
        const std::size_t width =
            style.width == 0 ? 80 : std::clamp<std::size_t>(style.width, 72, 100);
        gap_ = (width - time_width - sa_width - 3) / 2;
        right_edge_ = width;
    }

    void title() {
        const std::string head = std::string(time_width - 1, ' ') + centred("UE", 3) +
                                 centred("", gap_ - 3) + centred("P-CSCF", 7) +
                                 centred("", gap_ - 5) + "core";
        out_ += paint(style_, Colour::bold, head) + '\n';
    }
    void blank_row(const std::string& note) {
        put(fmt::format("{:{}}", "", time_width) + g_.lane + std::string(gap_, ' ') + g_.lane +
            std::string(gap_, ' ') + g_.lane + (note.empty() ? "" : "  " + note));
    }
    void message(const LadderStep& s, const std::string& time) {
        const bool first_gap = s.from == Lane::ue || s.to == Lane::ue;
        const bool to_right = s.from < s.to;
        const std::string label = s.name.empty() ? s.text : s.name + " " + s.text;
        std::string row = time + g_.lane;
        if (s.from != Lane::gateway && s.to != Lane::gateway) {
            row += arrow(label, 2 * gap_ + 1, to_right) + g_.lane;
        } else {
            row += first_gap ? arrow(label, gap_, to_right) : std::string(gap_, ' ');
            row += g_.lane;
            row += first_gap ? std::string(gap_, ' ') : arrow(label, gap_, to_right);
            row += g_.lane;
        }
        if (first_gap)
            row += s.spi ? (s.set.empty() ? "  SA " : " " + s.set + " ") + spi_text(*s.spi)
                         : "  " + paint(style_, Colour::yellow, "clear");
        if (s.failed) row += " " + paint(style_, Colour::red, g_.broken);
        put(row);
    }
    void event(const LadderStep& s, const std::string& time) {
        const std::string mark = s.failed ? paint(style_, Colour::red, g_.broken)
                                          : paint(style_, Colour::green, g_.event);
        const std::string label = s.name.empty() ? s.text : s.name + " " + s.text;
        std::string text = fit(label, right_edge_ - time_width - gap_ - 3, style_);
        // The core's lane goes on behind a short text.
        if (columns_of(text) + 2 <= gap_)
            text += std::string(gap_ - 1 - columns_of(text), ' ') + g_.lane;
        put(time + g_.lane + std::string(gap_, ' ') + mark + " " + text);
    }
    void reason(const std::string& text, bool failed) {
        const std::size_t room = right_edge_ - time_width - 4;
        for (const std::string& line : wrap(text, room)) {
            put(std::string(time_width, ' ') + g_.lane + "   " +
                (failed ? paint(style_, Colour::red, line) : line));
        }
    }
    void line(const std::string& text) { put(text); }
    [[nodiscard]] std::size_t width() const { return right_edge_; }
    [[nodiscard]] std::string take() { return std::move(out_); }

    static constexpr std::size_t time_width = 10;
    static constexpr std::size_t sa_width = 15;  // "  SA 0x04000001", " new 0x04000001"

  private:
    [[nodiscard]] std::string arrow(const std::string& label, std::size_t width,
                                    bool to_right) const {
        return cli::arrow(label, width, to_right, style_);
    }
    void put(std::string row) {
        while (!row.empty() && row.back() == ' ') row.pop_back();
        out_ += row + '\n';
    }

    Style style_;
    const Glyphs& g_;
    std::size_t gap_ = 0;
    std::size_t right_edge_ = 0;
    std::string out_;
};

}  // namespace

LadderStep ladder_step(const nlohmann::json& step) {
    LadderStep s;
    if (!step.is_object()) return s;
    const auto text = [&](const char* key) {
        const auto it = step.find(key);
        return it != step.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    const auto lane = [&](const char* key) {
        const std::string word = text(key);
        return word == "ue" ? Lane::ue : word == "core" ? Lane::core : Lane::gateway;
    };
    if (const auto t = step.find("time_us"); t != step.end() && t->is_number_integer())
        s.time_us = t->get<std::int64_t>();
    s.from = lane("from");
    s.to = lane("to");
    s.name = text("name");
    s.text = text("text");
    s.reason = text("reason");
    s.set = text("set");
    s.transport = text("transport");
    s.call = text("call");
    if (const auto phone = step.find("phone"); phone != step.end() && phone->is_number_unsigned())
        s.phone = phone->get<std::size_t>();
    if (const auto spi = step.find("spi"); spi != step.end() && spi->is_number_unsigned())
        s.spi = spi->get<std::uint32_t>();
    if (const auto failed = step.find("failed"); failed != step.end() && failed->is_boolean())
        s.failed = failed->get<bool>();
    return s;
}

std::string render_ladder(const std::string& impi, const std::vector<LadderStep>& steps,
                          const Style& style) {
    Canvas canvas(style);
    canvas.line(paint(style, Colour::bold, fit(impi, canvas.width(), style)));
    std::int64_t start = 0;
    bool begun = false;
    const LadderStep* last_message = nullptr;
    const LadderStep* broken_at =
        nullptr;  // the message before the first failure of this registration
    const LadderStep* failure = nullptr;
    std::string explained;
    const auto summary = [&] {
        if (failure == nullptr) return;
        std::string where = "nothing was sent yet";
        if (broken_at != nullptr)
            where =
                broken_at->name.empty() ? broken_at->text : broken_at->name + " " + broken_at->text;
        canvas.line("");
        for (const std::string& row :
             wrap(fmt::format("Broke after {}: {}", where,
                              failure->reason.empty() ? failure->text : failure->reason),
                  canvas.width())) {
            canvas.line(paint(style, Colour::red, row));
        }
    };
    for (const LadderStep& s : steps) {
        // Each registration counts its own time.
        if (!begun || s.name == "SM1") {
            if (begun) {
                summary();
                canvas.line("");
            }
            broken_at = failure = last_message = nullptr;
            explained.clear();
            begun = true;
            start = s.time_us;
            canvas.line(utc(s.time_us));
            canvas.title();
        }
        const double after =
            static_cast<double>(std::max<std::int64_t>(s.time_us - start, 0)) / 1e6;
        const std::string time =
            fmt::format("{:>{}} ", short_time_text(after), Canvas::time_width - 1);
        if (s.from == s.to) {
            canvas.event(s, time);
        } else {
            canvas.message(s, time);
            last_message = &s;
        }
        // What repeats itself (a phone that sends again) is explained once.
        if (!s.reason.empty() && s.reason != explained) canvas.reason(s.reason, s.failed);
        if (!s.reason.empty()) explained = s.reason;
        if (s.failed && failure == nullptr) {
            failure = &s;
            broken_at = last_message;
        }
    }
    summary();
    return canvas.take();
}

}  // namespace gmgate::cli
