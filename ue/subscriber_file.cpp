#include "ue/subscriber_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/secret_text.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t max_file = 512UL * 1024 * 1024;

std::vector<std::string_view> columns(std::string_view line) {
    std::vector<std::string_view> out;
    for (;;) {
        const auto comma = line.find(',');
        std::string_view cell = trim(line.substr(0, comma));
        if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"')
            cell = cell.substr(1, cell.size() - 2);
        out.push_back(cell);
        if (comma == std::string_view::npos) return out;
        line.remove_prefix(comma + 1);
    }
}

}  // namespace

Result<SubscriberFile> SubscriberFile::load(const std::string& path) {
    const auto text = read_keys(path, max_file);
    if (!text) {
        return fail(ErrorKind::io,
                    fmt::format("--subscribers {}: cannot be read: {}", path, text.error().text));
    }
    auto file = parse(*text, path);
    wipe_stack();
    return file;
}

Result<SubscriberFile> SubscriberFile::parse(std::string_view text, const std::string& path) {
    SubscriberFile file;
    std::size_t line_number = 0;
    constexpr std::size_t absent = static_cast<std::size_t>(-1);
    std::size_t imsi = absent, k = absent, opc = absent, op = absent;
    const auto at = [&](std::string_view what) {
        return fail(ErrorKind::invalid, fmt::format("{}:{}: {}", path, line_number, what));
    };
    while (!text.empty()) {
        const auto end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        ++line_number;
        if (trim(line).empty() || trim(line).front() == '#') continue;
        const auto cells = columns(line);
        if (imsi == absent) {
            for (std::size_t i = 0; i < cells.size(); ++i) {
                if (iequals(cells[i], "imsi")) imsi = i;
                if (iequals(cells[i], "k")) k = i;
                if (iequals(cells[i], "opc")) opc = i;
                if (iequals(cells[i], "op")) op = i;
            }
            if (imsi == absent || k == absent || (opc == absent && op == absent)) {
                return at("the first line must name the columns: imsi, k, and opc or op");
            }
            continue;
        }
        const auto cell = [&](std::size_t i) {
            return i < cells.size() ? cells[i] : std::string_view{};
        };
        const std::string_view id = cell(imsi);
        if (id.empty() || id.size() > 15 ||
            !std::ranges::all_of(id, [](char c) { return c >= '0' && c <= '9'; })) {
            return at("column imsi: 1 to 15 digits");
        }
        auto card = make_secret<CardKeys>();
        if (!from_hex(cell(k), card->k.writable())) return at("column k: 32 hex digits");
        if (!cell(opc).empty() && opc != absent) {
            if (!from_hex(cell(opc), card->opc.writable())) return at("column opc: 32 hex digits");
        } else {
            Secret<16> plain;
            if (op == absent || !from_hex(cell(op), plain.writable()))
                return at("column op: 32 hex digits");
            card->opc = opc_of(card->k, plain);
        }
        if (!file.cards_.emplace(std::string(id), std::move(card)).second)
            return at(fmt::format("IMSI {} twice", id));
    }
    if (file.cards_.empty()) return at("no subscribers");
    return file;
}

const CardKeys* SubscriberFile::find(std::string_view imsi) const {
    const auto it = cards_.find(imsi);
    return it == cards_.end() ? nullptr : it->second.get();
}

}  // namespace gmgate::ue
