#include "control/cli/views.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "control/ops/reasons.h"

namespace gmgate::cli {

using nlohmann::json;

namespace {

// The gateway may be newer or older than this tool: what is missing is empty, never an exception.
std::string text(const json& o, const char* key) {
    const auto it = o.is_object() ? o.find(key) : o.end();
    return it != o.end() && it->is_string() ? it->get<std::string>() : std::string();
}
double number(const json& o, const char* key) {
    const auto it = o.is_object() ? o.find(key) : o.end();
    return it != o.end() && it->is_number() ? it->get<double>() : 0;
}
std::uint64_t whole(const json& o, const char* key) {
    const auto it = o.is_object() ? o.find(key) : o.end();
    return it != o.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}
bool is_true(const json& o, const char* key) {
    const auto it = o.is_object() ? o.find(key) : o.end();
    return it != o.end() && it->is_boolean() && it->get<bool>();
}
const json& list(const json& o, const char* key) {
    static const json none = json::array();
    const auto it = o.is_object() ? o.find(key) : o.end();
    return it != o.end() && it->is_array() ? *it : none;
}
std::string left(const json& o) {
    return o.is_object() && o.contains("expires_in_seconds")
               ? age_text(number(o, "expires_in_seconds"))
               : "-";
}
std::string suite(const json& o) {
    return text(o, "integrity") + "/" + text(o, "encryption");
}

// Name and value, one below the other.
class Card {
  public:
    explicit Card(const Style& style) : style_(style) {}
    void put(const std::string& name, const std::string& value) {
        if (value.empty()) return;
        constexpr std::size_t indent = 18;
        // A value may be as long as the network likes: whole, on lines that fit.
        const std::size_t room = style_.width > indent + 20 ? style_.width - indent : 0;
        std::vector<std::string> lines =
            room == 0 ? std::vector<std::string>{clean(value)} : wrap(value, room);
        for (std::size_t i = 0; i < lines.size(); ++i) {
            out_ += fmt::format("  {:<{}}{}\n", i == 0 ? name : "", indent - 2, lines[i]);
        }
    }
    void title(const std::string& value) {
        out_ += paint(style_, Colour::bold, clean(value)) + '\n';
    }
    [[nodiscard]] std::string take() { return std::move(out_); }

  private:
    Style style_;
    std::string out_;
};

std::string joined(const json& texts) {
    std::vector<std::string> all;
    for (const json& t : texts) {
        if (t.is_string()) all.push_back(t.get<std::string>());
    }
    return fmt::format("{}", fmt::join(all, ", "));
}

// A word of what is said of a NAT (N1); empty: there is none.
std::string nat_text(const json& row, const char* key) {
    const auto nat = row.find("nat");
    return nat == row.end() || !nat->is_object() || !nat->contains(key) ? std::string()
                                                                        : text(*nat, key);
}

// name{label="value"}: one series, as Prometheus writes it.
std::string series(const json& sample) {
    std::string out = text(sample, "name");
    const auto labels = sample.find("labels");
    if (labels == sample.end() || !labels->is_object() || labels->empty()) return out;
    std::vector<std::string> pairs;
    for (const auto& [key, value] : labels->items()) {
        pairs.push_back(fmt::format("{}=\"{}\"", key,
                                    value.is_string() ? value.get<std::string>() : value.dump()));
    }
    return fmt::format("{}{{{}}}", out, fmt::join(pairs, ","));
}

std::string value_text(const std::string& name, double v) {
    if (name.ends_with("_bytes") || name.ends_with("_bytes_total"))
        return bytes_text(static_cast<std::uint64_t>(std::max(v, 0.0)));
    if (name.ends_with("_seconds") || name.ends_with("_seconds_total")) return short_time_text(v);
    if (v >= 0 && v < 1e18 && v == std::floor(v)) return count_text(static_cast<std::uint64_t>(v));
    return fmt::format("{:.3g}", v);
}

// Upper bound of the bucket that holds the quantile.
std::string quantile(const json& sample, double q) {
    const json& counts = list(sample, "counts");
    const json& bounds = list(sample, "bounds");
    const double total = number(sample, "count");
    double sum = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        sum += counts[i].is_number() ? counts[i].get<double>() : 0;
        if (sum < q * total || total == 0) continue;
        if (i < bounds.size() && bounds[i].is_number())
            return "<" + short_time_text(bounds[i].get<double>());
        return bounds.empty() ? "?" : ">" + short_time_text(bounds.back().get<double>());
    }
    return "?";
}

}  // namespace

Table sa_table(const Style& style) {
    return Table({{"IMPI", false, 24, 0},
                  {"UE", false, 0, 0},
                  {"STATE", false, 0, 1},
                  {"SUITE", false, 17, 2},
                  {"SPI-PS", false, 0, 0},
                  {"SPI-PC", false, 0, 5},
                  {"SPI-UC", false, 0, 6},
                  {"SPI-US", false, 0, 7},
                  {"AGE", true, 0, 4},
                  {"LEFT", true, 0, 3}},
                 style);
}

void add_sa(Table& table, const json& r) {
    const std::string inner = nat_text(r, "inner");
    table.add({text(r, "impi"), inner.empty() ? text(r, "ue") : text(r, "ue") + " (" + inner + ")",
               text(r, "state"), suite(r), spi_text(whole(r, "spi_ps")),
               spi_text(whole(r, "spi_pc")), spi_text(whole(r, "spi_uc")),
               spi_text(whole(r, "spi_us")), age_text(number(r, "age_seconds")), left(r)});
}

std::string sa_card(const json& r, const Style& style) {
    Card card(style);
    card.title(fmt::format("SA set {}: {}", whole(r, "id"), text(r, "state")));
    card.put("IMPI", text(r, "impi"));
    card.put("IMPUs", joined(list(r, "impus")));
    card.put("suite", suite(r));
    card.put("UE / ours", text(r, "ue") + " / " + text(r, "ours"));
    if (const std::string inner = nat_text(r, "inner"); !inner.empty()) {
        const std::string endpoint = nat_text(r, "endpoint");
        card.put("behind a NAT",
                 fmt::format("itself {}, UDP {}", inner,
                             endpoint.empty() ? "from nowhere yet" : "from " + endpoint));
    }
    const std::string arrow = style.unicode ? "→" : "->";
    card.put("in, requests", fmt::format("UE {} {} ours {}   SPI {} (ps)", whole(r, "port_uc"),
                                         arrow, whole(r, "port_ps"), spi_text(whole(r, "spi_ps"))));
    card.put("in, answers", fmt::format("UE {} {} ours {}   SPI {} (pc)", whole(r, "port_us"),
                                        arrow, whole(r, "port_pc"), spi_text(whole(r, "spi_pc"))));
    card.put("out, requests",
             fmt::format("ours {} {} UE {}   SPI {} (us)", whole(r, "port_pc"), arrow,
                         whole(r, "port_us"), spi_text(whole(r, "spi_us"))));
    card.put("out, answers", fmt::format("ours {} {} UE {}   SPI {} (uc)", whole(r, "port_ps"),
                                         arrow, whole(r, "port_uc"), spi_text(whole(r, "spi_uc"))));
    card.put("age / left", age_text(number(r, "age_seconds")) + " / " + left(r));
    if (r.is_object() && r.contains("in_packets")) {
        card.put("received", fmt::format("{} packets, {}", count_text(whole(r, "in_packets")),
                                         bytes_text(whole(r, "in_bytes"))));
        card.put("sent",
                 fmt::format("{} packets, {}; highest sequence number {}",
                             count_text(whole(r, "out_packets")), bytes_text(whole(r, "out_bytes")),
                             count_text(whole(r, "highest_out_sequence"))));
        card.put("refused", fmt::format("{} integrity failures, {} replays",
                                        count_text(whole(r, "integrity_failures")),
                                        count_text(whole(r, "replays"))));
    }
    return card.take();
}

Table registration_table(const Style& style) {
    return Table({{"IMPI", false, 14, 0},
                  {"STATE", false, 0, 0},
                  {"UE", false, 0, 0},
                  {"VIA", false, 0, 4},
                  {"SETS", true, 0, 3},
                  {"AGE", true, 0, 2},
                  {"LEFT", true, 0, 1},
                  {"IMPU", false, 16, 5}},
                 style);
}

void add_registration(Table& table, const json& r) {
    const json& impus = list(r, "impus");
    std::string impu = !impus.empty() && impus[0].is_string() ? impus[0].get<std::string>() : "-";
    if (impus.size() > 1) impu += fmt::format(" (+{})", impus.size() - 1);
    table.add({text(r, "impi"), text(r, "state"), text(r, "ue"), text(r, "transport"),
               std::to_string(list(r, "sets").size()), age_text(number(r, "age_seconds")), left(r),
               impu});
}

Table call_table(const Style& style) {
    return Table({{"IMPI", false, 14, 0},
                  {"WITH", false, 16, 0},
                  {"STATE", false, 0, 1},
                  {"IDLE", true, 0, 2},
                  {"CALL", false, 0, 3}},
                 style);
}

void add_call(Table& table, const json& r) {
    table.add({text(r, "impi"), text(r, "peer"), text(r, "state"),
               age_text(number(r, "idle_seconds")), text(r, "call")});
}

std::string registration_card(const json& r, const Style& style) {
    Card card(style);
    card.title(fmt::format("{}: {}", text(r, "impi"), text(r, "state")));
    for (const json& impu : list(r, "impus")) {
        if (impu.is_string()) card.put("IMPU", impu.get<std::string>());
    }
    card.put("UE", fmt::format("{} over {}", text(r, "ue"), text(r, "transport")));
    card.put("contact", text(r, "contact"));
    for (const json& route : list(r, "service_route")) {
        if (route.is_string()) card.put("service route", route.get<std::string>());
    }
    std::vector<std::string> sets;
    for (const json& id : list(r, "sets")) sets.push_back(id.dump());
    card.put("SA sets", fmt::format("{}", fmt::join(sets, ", ")));
    card.put("age / left", age_text(number(r, "age_seconds")) + " / " + left(r));
    if (r.is_object() && r.contains("reg_event")) card.put("reg event", text(r, "reg_event"));
    if (r.is_object() && r.contains("last_failure")) {
        const json& f = r["last_failure"];
        card.put("last failure",
                 fmt::format("{} ago from {}: {}: {} {}", age_text(number(f, "age_seconds")),
                             text(f, "source"), text(f, "reason"), text(f, "meaning"),
                             text(f, "remedy")));
    }
    return card.take();
}

namespace {
std::string answer_of(const json& failure) {
    const std::uint64_t status = whole(failure, "status");
    return status == 0 ? "-" : std::to_string(status);
}
std::string impi_of(const json& failure) {
    const std::string impi = text(failure, "impi");
    return impi.empty() ? "-" : impi;
}
}  // namespace

std::string reasons_view(const json& result, const Style& style) {
    Table table({{"COUNT", true, 0, 0},
                 {"REASON", false, 0, 0},
                 {"LAST", true, 0, 0},
                 {"ANSWER", true, 0, 3},
                 {"LATEST IMPI", false, 16, 1},
                 {"FROM", false, 12, 2}},
                style);
    for (const json& r : list(result, "reasons")) {
        table.add({count_text(whole(r, "count")), text(r, "reason"),
                   age_text(number(r, "age_seconds")) + " ago", answer_of(r), impi_of(r),
                   text(r, "source")});
    }
    const std::string out = table.render();
    if (out.empty()) return "No registration has failed.\n";
    return out +
           paint(style, Colour::faint,
                 "gmctl explain REASON: what to do; gmctl trace IMPI (or address): its ladder") +
           '\n';
}

std::string failures_view(const json& result, const Style& style) {
    Table table({{"AGO", true, 0, 0},
                 {"REASON", false, 0, 0},
                 {"ANSWER", true, 0, 3},
                 {"IMPI", false, 16, 1},
                 {"FROM", false, 12, 2}},
                style);
    for (const json& f : list(result, "failures")) {
        table.add({age_text(number(f, "age_seconds")), text(f, "reason"), answer_of(f), impi_of(f),
                   text(f, "source")});
    }
    const std::string out = table.render();
    return out.empty() ? "No failed registration is like that.\n" : out;
}

std::string explanation(const std::string& word, const Style& style) {
    const auto reason = ops::reason_of(word);
    if (!reason || *reason == ops::Reason::ok) return {};
    const ops::ReasonInfo& why = ops::info(*reason);
    Card card(style);
    card.title(std::string(why.name));
    card.put("rule", std::string(why.rule));
    card.put("meaning", std::string(why.meaning));
    card.put("what to do", std::string(why.remedy));
    switch (why.scope) {
        case ops::Scope::registration:
            card.put("counted in",
                     fmt::format("gmgate_registrations_total{{reason=\"{}\"}}", word));
            card.put("see also", fmt::format("gmctl reg failures --reason {}", word));
            break;
        case ops::Scope::message:
            card.put("counted in",
                     fmt::format("gmgate_registration_drops_total{{reason=\"{}\"}}", word));
            card.put("see also", "gmctl drops");
            break;
        case ops::Scope::event:
        case ops::Scope::success:
            card.put("see also", "gmctl trace IMPI");
            break;
    }
    return card.take();
}

std::string catalogue_view(const Style& style) {
    Table table({{"REASON", false, 0, 0}, {"RULE", false, 0, 2}, {"MEANING", false, 20, 1}}, style);
    for (const ops::ReasonInfo& why : ops::catalogue()) {
        if (why.scope == ops::Scope::success) continue;
        table.add({std::string(why.name), std::string(why.rule), std::string(why.meaning)});
    }
    return table.render();
}

std::string counts_view(const json& result, const Style& style) {
    Table table({{"STATE", false, 0, 0}, {"COUNT", true, 0, 0}}, style);
    for (const json& s : list(result, "states"))
        table.add({text(s, "state"), count_text(whole(s, "count"))});
    if (result.is_object() && result.contains("total"))
        table.add({"total", count_text(whole(result, "total"))});
    if (result.is_object() && result.contains("registered")) {
        table.add({"registered", count_text(whole(result, "registered"))});
        table.add({"authenticating now", count_text(whole(result, "pending"))});
    }
    return table.render();
}

std::string health_view(const json& result, const Style& style) {
    std::size_t widest = 0;
    for (const json& c : list(result, "components"))
        widest = std::max(widest, columns_of(text(c, "component")));
    std::string out;
    for (const json& c : list(result, "components")) {
        const bool ok = is_true(c, "ok");
        out += fmt::format(
            "{}  {:<{}}  {}\n",
            ok ? paint(style, Colour::green, "ok      ") : paint(style, Colour::red, "degraded"),
            clean(text(c, "component")), widest, clean(text(c, "text")));
    }
    const bool ok = is_true(result, "ok");
    out += ok ? paint(style, Colour::green, "gmgated is in good health") + '\n'
              : paint(style, Colour::red, "gmgated runs, but not as it should: see above") + '\n';
    return out;
}

std::string drops_view(const json& result, const Style& style) {
    std::vector<json> rows(list(result, "drops").begin(), list(result, "drops").end());
    std::sort(rows.begin(), rows.end(), [](const json& a, const json& b) {
        return whole(a, "count") != whole(b, "count") ? whole(a, "count") > whole(b, "count")
                                                      : text(a, "reason") < text(b, "reason");
    });
    Table table({{"COUNT", true, 0, 0},
                 {"LAYER", false, 0, 2},
                 {"REASON", false, 0, 0},
                 {"MEANING", false, 20, 1}},
                style);
    std::size_t zeros = 0;
    for (const json& r : rows) {
        if (whole(r, "count") == 0) {
            ++zeros;
            continue;
        }
        table.add(
            {count_text(whole(r, "count")), text(r, "layer"), text(r, "reason"), text(r, "help")});
    }
    std::string out = table.render();
    if (out.empty()) out = "Nothing has been dropped.\n";
    if (zeros > 0 && zeros < rows.size()) {
        out += paint(style, Colour::faint,
                     fmt::format("{} other reasons have never occurred.", zeros)) +
               '\n';
    }
    return out;
}

std::string stats_view(const json& result, const json* earlier, bool all, const Style& style) {
    std::map<std::string, const json*> before;
    double seconds = 0;
    if (earlier != nullptr) {
        for (const json& m : list(*earlier, "metrics")) before[series(m)] = &m;
        seconds = number(result, "uptime_seconds") - number(*earlier, "uptime_seconds");
    }
    // A series is told by its labels, so it is never cut; its meaning goes when there is no room.
    std::vector<Column> columns{{"SERIES", false, 0, 0}, {"VALUE", true, 0, 0}};
    std::vector<Column> latency_columns{{"LATENCY", false, 0, 0},
                                        {"COUNT", true, 0, 0},
                                        {"MEAN", true, 0, 0},
                                        {"P50", true, 0, 0},
                                        {"P99", true, 0, 0}};
    if (earlier != nullptr) {
        columns.push_back({"RATE", true, 0, 0});
        latency_columns.push_back({"RATE", true, 0, 0});
    }
    columns.push_back({"MEANING", false, 16, 1});
    latency_columns.push_back({"MEANING", false, 16, 1});
    Table table(columns, style);
    Table latencies(latency_columns, style);
    std::vector<std::pair<std::string, const json*>> sorted;
    for (const json& m : list(result, "metrics")) sorted.emplace_back(series(m), &m);
    std::sort(sorted.begin(), sorted.end());
    std::size_t zeros = 0;
    for (const auto& [key, m] : sorted) {
        const bool histogram = text(*m, "kind") == "histogram";
        const char* field = histogram ? "count" : "value";
        const std::string name = text(*m, "name");
        const double value = number(*m, field);
        if (value == 0 && !all) {
            ++zeros;
            continue;
        }
        std::vector<std::string> cells{key};
        if (histogram) {
            cells.push_back(count_text(static_cast<std::uint64_t>(std::max(value, 0.0))));
            cells.push_back(value > 0 ? short_time_text(number(*m, "sum") / value) : "-");
            cells.push_back(value > 0 ? quantile(*m, 0.5) : "-");
            cells.push_back(value > 0 ? quantile(*m, 0.99) : "-");
        } else {
            cells.push_back(value_text(name, value));
        }
        if (earlier != nullptr) {
            const auto it = before.find(key);
            std::string rate = "-";
            if (it != before.end() && seconds > 0 && text(*m, "kind") != "gauge") {
                const double per_second = (value - number(*it->second, field)) / seconds;
                // Seconds a second: a share.
                rate = name.ends_with("_seconds_total") ? fmt::format("{:.1f}%", per_second * 100)
                                                        : rate_text(per_second);
            }
            cells.push_back(rate);
        }
        cells.push_back(text(*m, "help"));
        (histogram ? latencies : table).add(std::move(cells));
    }
    std::string out = table.render();
    const std::string times = latencies.render();
    if (!times.empty()) out += (out.empty() ? "" : "\n") + times;
    if (zeros > 0)
        out += paint(style, Colour::faint,
                     fmt::format("{} series are zero; --all shows them.", zeros)) +
               '\n';
    return out;
}

std::string version_view(const json& result, const std::string& own_version) {
    return fmt::format("gmctl    {}\ngmgated  {}, API {}, backend {}, process {}, up {}\n",
                       own_version, clean(text(result, "version")), whole(result, "api"),
                       clean(text(result, "backend")), whole(result, "pid"),
                       age_text(number(result, "uptime_seconds")));
}

}  // namespace gmgate::cli
