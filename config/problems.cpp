#include "config/problems.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace gmgate::config {

namespace {
constexpr std::size_t most_shown = 50;
constexpr std::size_t most_kept = 10000;
}  // namespace

std::string printable(std::string_view text, std::size_t longest) {
    std::string out;
    for (const char c : text.substr(0, longest)) {
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
    }
    if (text.size() > longest) {
        // Not in the middle of a UTF-8 sequence.
        while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0U) == 0x80U)
            out.pop_back();
        if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0U) out.pop_back();
        out += "...";
    }
    return out;
}

void Problems::add(int line, std::string_view key, std::string_view what) {
    if (items_.size() >= most_kept) return;
    std::string text = printable(file_, 4096);
    if (line > 0) text += fmt::format(":{}", line);
    text += ": ";
    if (!key.empty()) text += printable(key, 120) + ": ";
    text += printable(what, 600);
    items_.push_back({line, std::move(text)});
}

std::string Problems::text() const {
    // By line, in the order found within one. What has no line comes last: it is usually the
    // consequence of what has one.
    std::vector<std::pair<int, const Item*>> order;
    order.reserve(items_.size());
    for (const Item& i : items_)
        order.emplace_back(i.line == 0 ? std::numeric_limits<int>::max() : i.line, &i);
    std::sort(order.begin(), order.end());
    std::string out;
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (i == most_shown) {
            out += fmt::format("\n{}: and {} more mistakes; mend these first",
                               printable(file_, 4096), order.size() - most_shown);
            break;
        }
        if (i > 0) out += '\n';
        out += order[i].second->text;
    }
    return out;
}

}  // namespace gmgate::config
