// The ladder of several phones.

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "control/cli/drawing.h"
#include "control/cli/ladder.h"

namespace gmgate::cli {

namespace {

// Which lane is whose, and how wide the room between them is.
class Lanes {
  public:
    Lanes(std::size_t phones, std::size_t width) : phones_(phones) {
        const std::size_t n = count();
        const std::size_t room = width - time_width - n;
        gaps_.assign(n - 1, room / (n - 1));
        if (phones != 2) return;
        // What is on an SA carries its name; the core's side needs less.
        const std::size_t inner = std::clamp<std::size_t>((room - 48) / 2, 11, 15);
        gaps_ = {(room - 2 * inner) / 2, inner, inner, (room - 2 * inner) / 2};
    }
    [[nodiscard]] std::size_t count() const { return phones_ == 2 ? 5 : phones_ + 2; }
    [[nodiscard]] std::size_t of(std::size_t phone, Lane lane) const {
        phone = std::min(phone, phones_ - 1);
        if (phones_ != 2)
            return lane == Lane::ue ? phone : lane == Lane::gateway ? phones_ : phones_ + 1;
        const std::size_t from_left = lane == Lane::ue ? 0 : lane == Lane::gateway ? 1 : 2;
        return phone == 0 ? from_left : 4 - from_left;
    }
    [[nodiscard]] std::string title(std::size_t lane, const std::vector<std::string>& impis) const {
        if (lane == of(0, Lane::core)) return "core";
        for (std::size_t p = 0; p < phones_; ++p) {
            if (lane == of(p, Lane::ue)) return impis[p].substr(0, impis[p].find('@'));
        }
        return "P-CSCF";
    }
    [[nodiscard]] std::size_t gap(std::size_t lane) const { return gaps_[lane]; }
    // Columns strictly between two lanes.
    [[nodiscard]] std::size_t between(std::size_t left, std::size_t right) const {
        std::size_t n = right - left - 1;
        for (std::size_t i = left; i < right; ++i) n += gaps_[i];
        return n;
    }
    static constexpr std::size_t time_width = 8;

  private:
    std::size_t phones_;
    std::vector<std::size_t> gaps_;
};

struct Arrow {
    std::size_t from = 0;
    std::size_t to = 0;
    const LadderStep* step = nullptr;
};
// One line of the picture: a message on its way, as far as it came before anything else happened.
struct Row {
    std::vector<Arrow> arrows;
    const LadderStep* event = nullptr;
};

bool is_message(const LadderStep& s) {
    return s.from != s.to;
}

// The same message, one hop further.
bool goes_on(const Row& row, const LadderStep& s, const Arrow& a) {
    if (row.arrows.empty() || !is_message(s)) return false;
    const Arrow& last = row.arrows.back();
    return !s.call.empty() && s.call == last.step->call && s.text == last.step->text &&
           a.from == last.to && (a.to > a.from) == (last.to > last.from);
}

class Picture {
  public:
    Picture(const std::vector<std::string>& impis, const Style& style)
        : impis_(impis),
          style_(style),
          g_(Glyphs::of(style)),
          width_(style.width == 0 ? 100 : std::clamp<std::size_t>(style.width, 80, 100)),
          lanes_(impis.size(), width_) {}

    void head(std::int64_t start) {
        for (std::size_t p = 0; p < impis_.size(); ++p)
            put(paint(style_, Colour::bold, fit(impis_[p], width_, style_)));
        put(utc(start));
        std::string row(Lanes::time_width, ' ');
        for (std::size_t lane = 0; lane < lanes_.count(); ++lane) {
            // Centred on the lane, as far as the edges and the neighbours allow.
            const std::size_t at = column(lane);
            const std::size_t after = lanes_.gap(std::min(lane, lanes_.count() - 2));
            const std::size_t before = lane == 0 ? after : lanes_.gap(lane - 1) - 1;
            const std::string name =
                fit(lanes_.title(lane, impis_), std::min(before, after), style_);
            const std::size_t used = columns_of(name);
            std::size_t begin = at >= used / 2 ? at - used / 2 : 0;
            if (lane + 1 == lanes_.count()) begin = std::min(begin, width_ - used);
            begin = std::max(begin, row.size() == Lanes::time_width ? begin : row_columns(row) + 1);
            row += std::string(begin > row_columns(row) ? begin - row_columns(row) : 0, ' ') + name;
        }
        put(paint(style_, Colour::bold, row));
    }
    void messages(const Row& row, const std::string& time) {
        std::string out = time;
        std::map<std::size_t, const Arrow*> by_left;
        bool failed = false;
        for (const Arrow& a : row.arrows) {
            by_left[std::min(a.from, a.to)] = &a;
            failed = failed || a.step->failed;
        }
        for (std::size_t lane = 0; lane < lanes_.count();) {
            out += failed && lane == row.arrows.back().to ? paint(style_, Colour::red, g_.broken)
                                                          : g_.lane;
            const auto here = by_left.find(lane);
            if (here != by_left.end()) {
                const Arrow& a = *here->second;
                const std::size_t right = std::max(a.from, a.to);
                const std::size_t n = lanes_.between(lane, right);
                out += arrow(label(*a.step, n - 5), n, a.to > a.from, style_);
                lane = right;
            } else if (lane + 1 < lanes_.count()) {
                out += std::string(lanes_.gap(lane), ' ');
                ++lane;
            } else {
                break;
            }
        }
        put(out);
    }
    void event(const LadderStep& s, const std::string& time) {
        const std::size_t mine = lanes_.of(s.phone, Lane::gateway);
        std::string text = s.name.empty() ? s.text : s.name + " " + s.text;
        // SPIs are written as in the arrows.
        if (const auto at = text.find(", new SA 0x"); at != std::string::npos)
            text.replace(at, std::string_view(", new SA 0x").size(), " ");
        std::string out = time;
        for (std::size_t lane = 0; lane < mine; ++lane)
            out += g_.lane + std::string(lanes_.gap(lane), ' ');
        const std::size_t room = width_ - column(mine) - 3;
        const std::string mark = s.failed ? paint(style_, Colour::red, g_.broken)
                                          : paint(style_, Colour::green, g_.event);
        put(out + mark + " " + fit(text, room, style_));
    }
    void reason(const LadderStep& s) {
        for (const std::string& line : wrap(s.reason, width_ - Lanes::time_width - 4)) {
            put(std::string(Lanes::time_width, ' ') + g_.lane + "   " +
                (s.failed ? paint(style_, Colour::red, line) : line));
        }
    }
    [[nodiscard]] const Lanes& lanes() const { return lanes_; }
    [[nodiscard]] std::string take() { return std::move(out_); }

  private:
    [[nodiscard]] std::size_t column(std::size_t lane) const {
        return Lanes::time_width + (lane == 0 ? 0 : lanes_.between(0, lane) + 1);
    }
    static std::size_t row_columns(const std::string& row) { return columns_of(row); }
    // "INVITE", "200 INVITE"; of the standard's own messages "SM1 REGISTER", "SM6 401".
    static std::string what(const LadderStep& s) {
        if (s.name.empty()) return s.text;
        return s.name + " " + (is_response(s) ? status(s) : s.text);
    }
    static bool is_response(const LadderStep& s) {
        return !s.text.empty() && s.text.front() >= '1' && s.text.front() <= '6';
    }
    static std::string status(const LadderStep& s) { return s.text.substr(0, s.text.find(' ')); }
    // As much as fits: the SA comes before the transport and the method of a response.
    [[nodiscard]] std::string label(const LadderStep& s, std::size_t room) const {
        std::string whole = what(s);
        const std::string least = !is_response(s) ? whole : s.name.empty() ? status(s) : s.name;
        if (s.from != Lane::ue && s.to != Lane::ue) {
            if (columns_of(whole) <= room) return whole;
            return s.name.empty() || is_response(s) ? least : s.name;
        }
        const std::string over = s.transport.empty() ? "" : s.transport + " ";
        const std::string sa = s.spi ? fmt::format("{:08x}", *s.spi) : "clear";
        for (const std::string& text : {whole + " " + over + sa, whole + " " + sa,
                                        least + " " + over + sa, least + " " + sa}) {
            if (columns_of(text) <= room) return text;
        }
        return room > sa.size() + 4 ? fit(least, room - sa.size() - 1, style_) + " " + sa : least;
    }
    void put(std::string row) {
        while (!row.empty() && row.back() == ' ') row.pop_back();
        out_ += row + '\n';
    }

    const std::vector<std::string>& impis_;
    Style style_;
    const Glyphs& g_;
    std::size_t width_;
    Lanes lanes_;
    std::string out_;
};

}  // namespace

std::vector<LadderStep> shared_steps(std::vector<LadderStep> steps) {
    std::map<std::string, std::set<std::size_t>> phones;
    for (const LadderStep& s : steps) {
        if (!s.call.empty()) phones[s.call].insert(s.phone);
    }
    std::erase_if(steps, [&](const LadderStep& s) {
        return !is_message(s) || s.call.empty() || phones[s.call].size() < 2;
    });
    return steps;
}

std::string render_ladders(const std::vector<std::string>& impis,
                           const std::vector<LadderStep>& steps, const Style& style) {
    if (steps.empty() || impis.empty()) return {};
    Picture picture(impis, style);
    std::vector<Row> rows;
    for (const LadderStep& s : steps) {
        const Arrow a{picture.lanes().of(s.phone, s.from), picture.lanes().of(s.phone, s.to), &s};
        // A reason stands below its line, which ends there.
        const bool closed = !rows.empty() && !rows.back().arrows.empty() &&
                            !rows.back().arrows.back().step->reason.empty();
        if (!rows.empty() && !closed && goes_on(rows.back(), s, a)) {
            rows.back().arrows.push_back(a);
            continue;
        }
        Row& row = rows.emplace_back();
        is_message(s) ? row.arrows.push_back(a) : void(row.event = &s);
    }
    const std::int64_t start = steps.front().time_us;
    picture.head(start);
    std::string explained;
    for (const Row& row : rows) {
        const LadderStep& first = row.event != nullptr ? *row.event : *row.arrows.front().step;
        const LadderStep& last = row.event != nullptr ? *row.event : *row.arrows.back().step;
        const double after =
            static_cast<double>(std::max<std::int64_t>(first.time_us - start, 0)) / 1e6;
        const std::string time =
            fmt::format("{:>{}} ", short_time_text(after), Lanes::time_width - 1);
        row.event != nullptr ? picture.event(*row.event, time) : picture.messages(row, time);
        if (!last.reason.empty() && last.reason != explained) picture.reason(last);
        if (!last.reason.empty()) explained = last.reason;
    }
    return picture.take();
}

}  // namespace gmgate::cli
