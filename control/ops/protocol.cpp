#include "control/ops/protocol.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "control/ops/api.h"

namespace gmgate::ops {

using nlohmann::json;

namespace {

constexpr std::array<std::string_view, operation_count> names{
    "version",      "health",      "stats",          "drops",    "sa.list",
    "sa.show",      "sa.count",    "reg.list",       "reg.show", "reg.count",
    "reg.failures", "reg.reasons", "reg.deregister", "trace",    "call.list"};

constexpr std::size_t longest_text = 1024;     // of an argument
constexpr std::uint64_t most_failures = 1000;  // of one answer
constexpr std::size_t most_traced = 4;         // phones in one picture

std::string line(const json& object) {
    return object.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

double seconds(Duration d) {
    // Milliseconds are enough for people and keep the lines short.
    return std::round(std::chrono::duration<double>(d).count() * 1000) / 1000;
}

std::optional<std::uint64_t> whole(const json& value) {
    if (value.is_number_unsigned()) return value.get<std::uint64_t>();
    return std::nullopt;
}

// A number, or text: "0x1234" or "4660".
std::optional<sa::Spi> spi_of(const json& value) {
    if (const auto n = whole(value); n && *n <= 0xFFFFFFFFULL) return static_cast<sa::Spi>(*n);
    if (!value.is_string()) return std::nullopt;
    std::string_view text = value.get_ref<const std::string&>();
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        text.remove_prefix(2);
        base = 16;
    }
    sa::Spi spi = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), spi, base);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return spi;
}

std::optional<std::string> text_of(const json& value) {
    if (!value.is_string()) return std::nullopt;
    const auto& text = value.get_ref<const std::string&>();
    if (text.empty() || text.size() > longest_text) return std::nullopt;
    return text;
}

// What went wrong with one argument; empty: nothing.
std::string take_argument(Request& r, const std::string& key, const json& value) {
    const bool of_sa = r.operation == Operation::sa_list || r.operation == Operation::sa_show;
    const bool of_registration =
        r.operation == Operation::reg_list || r.operation == Operation::reg_show;
    const bool of_calls = r.operation == Operation::call_list;
    const bool of_list =
        r.operation == Operation::sa_list || r.operation == Operation::reg_list || of_calls;
    const bool of_failures = r.operation == Operation::reg_failures;
    const bool of_deregister = r.operation == Operation::reg_deregister;
    if (key == "impi" && (of_sa || of_registration || of_failures || of_deregister || of_calls ||
                          r.operation == Operation::trace)) {
        r.query.impi = text_of(value);
        return r.query.impi ? "" : "impi must be a text of 1 to 1024 octets";
    }
    if (key == "impis" && r.operation == Operation::trace) {
        std::string mistake =
            fmt::format("impis must be a list of 1 to {} different texts", most_traced);
        if (!value.is_array() || value.empty() || value.size() > most_traced) return mistake;
        for (const json& one : value) {
            const auto impi = text_of(one);
            if (!impi ||
                std::find(r.query.impis.begin(), r.query.impis.end(), *impi) != r.query.impis.end())
                return mistake;
            r.query.impis.push_back(*impi);
        }
        return "";
    }
    if (key == "reason" && of_deregister) {
        r.why = text_of(value).value_or("");
        return !r.why.empty() ? "" : "reason must be a text of 1 to 1024 octets";
    }
    if (key == "reason" && of_failures) {
        r.query.reason = text_of(value);
        return r.query.reason ? "" : "reason must be a word of the catalogue";
    }
    if (key == "limit" && of_failures) {
        r.limit = whole(value);
        return r.limit && *r.limit > 0 && *r.limit <= most_failures
                   ? ""
                   : fmt::format("limit must be a number from 1 to {}", most_failures);
    }
    if (key == "ip" && (of_sa || of_registration)) {
        const auto text = text_of(value);
        r.query.ip = text ? IpAddress::parse(*text) : std::nullopt;
        return r.query.ip ? "" : "ip must be an IPv4 or IPv6 address";
    }
    if (key == "spi" && (of_sa || of_registration)) {
        r.query.spi = spi_of(value);
        return r.query.spi ? "" : "spi must be a number of 32 bits, 4660 or 0x1234";
    }
    if (key == "state" && (of_sa || of_registration)) {
        r.query.state = text_of(value);
        return r.query.state ? "" : "state must be a text";
    }
    if (key == "id" && r.operation == Operation::sa_show) {
        r.set = whole(value);
        return r.set ? "" : "id must be the number of an SA set";
    }
    if (key == "cursor" && of_list) {
        const auto n = whole(value);
        if (!n) return "cursor must be a number an earlier answer gave";
        r.cursor = *n;
        return "";
    }
    if (key == "limit" && of_list) {
        r.limit = whole(value);
        return r.limit && *r.limit > 0 ? "" : "limit must be a number of at least 1";
    }
    if (key == "detail" && r.operation == Operation::sa_list) {
        if (!value.is_boolean()) return "detail must be true or false";
        r.detail = value.get<bool>();
        return "";
    }
    return fmt::format("'{}' is not an argument of {}", key.substr(0, 64), name(r.operation));
}

std::unexpected<RequestError> wrong(json id, std::string code, std::string text) {
    return std::unexpected(RequestError{std::move(id), std::move(code), std::move(text)});
}

}  // namespace

std::string_view name(Operation operation) {
    return names[static_cast<std::size_t>(operation)];
}

std::expected<Request, RequestError> parse_request(std::string_view text) {
    const json object = json::parse(text, nullptr, false);
    if (object.is_discarded() || !object.is_object()) {
        return wrong(nullptr, "bad_request",
                     R"(a request is one JSON object a line: {"v":1,"id":1,"op":"version"})");
    }
    Request r;
    if (const auto id = object.find("id"); id != object.end()) {
        const bool short_text = id->is_string() && id->get_ref<const std::string&>().size() <= 64;
        if (!id->is_number_integer() && !short_text && !id->is_null()) {
            return wrong(nullptr, "bad_request",
                         "id must be a whole number or a text of at most 64 octets");
        }
        r.id = *id;
    }
    const auto version = object.find("v");
    if (version == object.end() || !version->is_number_integer()) {
        return wrong(r.id, "bad_request",
                     fmt::format("v, the version of the protocol, is missing; this is version {}",
                                 api_version));
    }
    if (*version != api_version) {
        return wrong(
            r.id, "unsupported_version",
            fmt::format(
                "this gateway speaks version {} of the protocol; use the gmctl that came with it",
                api_version));
    }
    const auto op = object.find("op");
    if (op == object.end() || !op->is_string())
        return wrong(r.id, "bad_request", "op, the operation, is missing");
    const auto& op_name = op->get_ref<const std::string&>();
    const auto known = std::find(names.begin(), names.end(), op_name);
    if (known == names.end()) {
        return wrong(r.id, "unknown_operation",
                     fmt::format("there is no operation '{}'", op_name.substr(0, 64)));
    }
    r.operation = static_cast<Operation>(known - names.begin());
    for (const auto& [key, value] : object.items()) {
        if (key != "v" && key != "id" && key != "op" && key != "args") {
            return wrong(r.id, "bad_request",
                         fmt::format("'{}' is not part of a request; arguments go into args",
                                     key.substr(0, 64)));
        }
    }
    if (const auto args = object.find("args"); args != object.end()) {
        if (!args->is_object()) return wrong(r.id, "bad_request", "args must be an object");
        for (const auto& [key, value] : args->items()) {
            const std::string mistake = take_argument(r, key, value);
            if (!mistake.empty()) return wrong(r.id, "bad_argument", mistake);
        }
    }
    if (r.operation == Operation::trace && r.query.impi.has_value() == !r.query.impis.empty())
        return wrong(r.id, "bad_argument", "trace needs impi, or impis");
    if (r.operation == Operation::reg_deregister && !r.query.impi)
        return wrong(r.id, "bad_argument", "reg.deregister needs impi");
    if (r.operation == Operation::sa_show && !r.set && !r.query.impi && !r.query.ip &&
        !r.query.spi) {
        return wrong(r.id, "bad_argument", "sa.show needs id, impi, ip or spi");
    }
    if (r.operation == Operation::reg_show && !r.query.impi && !r.query.ip && !r.query.spi) {
        return wrong(r.id, "bad_argument", "reg.show needs impi, ip or spi");
    }
    if (r.operation == Operation::sa_show) r.detail = true;
    return r;
}

std::string result_line(const json& id, json result) {
    return line(
        json{{"v", api_version}, {"id", id}, {"result", std::move(result)}, {"done", true}});
}
std::string rows_line(const json& id, json rows) {
    return line(json{{"v", api_version}, {"id", id}, {"rows", std::move(rows)}});
}
std::string end_line(const json& id, Cursor cursor) {
    json object{{"v", api_version}, {"id", id}, {"done", true}};
    if (cursor != 0) object["cursor"] = cursor;
    return line(object);
}
std::string error_line(const json& id, std::string_view code, std::string_view text) {
    return line(json{{"v", api_version},
                     {"id", id},
                     {"error", {{"code", code}, {"text", text}}},
                     {"done", true}});
}

json to_json(const SaRow& r, bool detail) {
    json o{{"id", r.id},
           {"state", r.state},
           {"impi", r.impi},
           {"ue", r.ue.to_string()},
           {"ours", r.ours.to_string()},
           {"integrity", sa::name(r.suite.integrity)},
           {"encryption", sa::name(r.suite.encryption)},
           {"spi_uc", r.numbers.spi_uc},
           {"spi_us", r.numbers.spi_us},
           {"spi_pc", r.numbers.spi_pc},
           {"spi_ps", r.numbers.spi_ps},
           {"port_uc", r.numbers.port_uc},
           {"port_us", r.numbers.port_us},
           {"port_pc", r.numbers.port_pc},
           {"port_ps", r.numbers.port_ps},
           {"age_seconds", seconds(r.age)}};
    if (r.expires_in) o["expires_in_seconds"] = seconds(*r.expires_in);
    if (r.nat) {
        json& nat = o["nat"];
        nat = {{"inner", r.nat->inner.to_string()},
               {"port_uc", r.nat->port_uc},
               {"port_us", r.nat->port_us}};
        if (detail && r.stats.nat_endpoint.port != 0)
            nat["endpoint"] = r.stats.nat_endpoint.to_string();
    }
    if (detail) {
        o["impus"] = r.impus;
        o["in_packets"] = r.stats.in_packets;
        o["in_bytes"] = r.stats.in_bytes;
        o["out_packets"] = r.stats.out_packets;
        o["out_bytes"] = r.stats.out_bytes;
        o["integrity_failures"] = r.stats.integrity_failures;
        o["replays"] = r.stats.replays;
        o["highest_out_sequence"] = r.stats.highest_out_sequence;
    }
    return o;
}

json to_json(const RegistrationRow& r) {
    json o{{"impi", r.impi},
           {"impus", r.impus},
           {"state", r.state},
           {"ue", r.ue.to_string()},
           {"transport", r.transport},
           {"contact", r.contact},
           {"service_route", r.service_route},
           {"sets", r.sets},
           {"age_seconds", seconds(r.age)}};
    if (r.expires_in) o["expires_in_seconds"] = seconds(*r.expires_in);
    if (!r.reg_event.empty()) o["reg_event"] = r.reg_event;
    return o;
}

json to_json(const CallRow& r) {
    return json{{"impi", r.impi},
                {"peer", r.peer},
                {"call", r.call},
                {"state", r.state},
                {"idle_seconds", seconds(r.idle)}};
}

json to_json(const TraceStep& s) {
    constexpr std::array<std::string_view, 3> parties{"ue", "gateway", "core"};
    json o{
        {"time_us",
         std::chrono::duration_cast<std::chrono::microseconds>(s.time.time_since_epoch()).count()},
        {"from", parties[static_cast<std::size_t>(s.from)]},
        {"to", parties[static_cast<std::size_t>(s.to)]},
        {"text", s.text}};
    if (!s.name.empty()) o["name"] = s.name;
    if (s.spi) o["spi"] = *s.spi;
    if (s.failed) o["failed"] = true;
    if (!s.set.empty()) o["set"] = s.set;
    if (!s.transport.empty()) o["transport"] = s.transport;
    if (!s.call.empty()) o["call"] = s.call;
    if (s.phone) o["phone"] = *s.phone;
    if (!s.reason.empty()) o["reason"] = s.reason;
    if (!s.word.empty()) o["word"] = s.word;
    return o;
}

json to_json(const FailureRow& r) {
    json o{
        {"time_us",
         std::chrono::duration_cast<std::chrono::microseconds>(r.time.time_since_epoch()).count()},
        {"age_seconds", seconds(r.age)},
        {"reason", r.reason},
        {"rule", r.rule},
        {"meaning", r.meaning},
        {"remedy", r.remedy},
        {"source", r.source}};
    if (r.status != 0) o["status"] = r.status;
    if (!r.impi.empty()) o["impi"] = r.impi;
    return o;
}

json to_json(const FailureTotal& t) {
    json o = to_json(t.last);
    o["count"] = t.count;
    return o;
}

json to_json(const metrics::Sample& s) {
    json o{{"name", s.name}, {"help", s.help}};
    json labels = json::object();
    for (const auto& [key, value] : s.labels) labels[key] = value;
    if (!labels.empty()) o["labels"] = std::move(labels);
    switch (s.kind) {
        case metrics::Kind::counter:
            o["kind"] = "counter";
            break;
        case metrics::Kind::gauge:
            o["kind"] = "gauge";
            break;
        case metrics::Kind::histogram:
            o["kind"] = "histogram";
            break;
    }
    if (s.kind != metrics::Kind::histogram) {
        // JSON has no infinity and no NaN.
        o["value"] = std::isfinite(s.value) ? json(s.value) : json(nullptr);
    } else if (s.histogram != nullptr) {
        // One reading for both, so that they agree.
        const std::vector<std::uint64_t> counts = s.histogram->counts();
        std::uint64_t total = 0;
        for (const std::uint64_t n : counts) total += n;
        o["count"] = total;
        o["sum"] = s.histogram->sum();
        o["bounds"] = s.histogram->bounds();
        o["counts"] = counts;
    }
    return o;
}

bool matches(const Query& q, const SaRow& r) {
    if (q.impi && *q.impi != r.impi) return false;
    if (q.ip && *q.ip != r.ue) return false;
    if (q.state && *q.state != r.state) return false;
    const sa::SaNumbers& n = r.numbers;
    return !q.spi || *q.spi == n.spi_uc || *q.spi == n.spi_us || *q.spi == n.spi_pc ||
           *q.spi == n.spi_ps;
}

bool matches(const Query& q, const RegistrationRow& r) {
    if (q.impi && *q.impi != r.impi) return false;
    if (q.ip && *q.ip != r.ue) return false;
    return !q.state || *q.state == r.state;  // the SPI is the view's business: the row has none
}

bool matches(const Query& q, const CallRow& r) {
    return !q.impi || *q.impi == r.impi;
}

}  // namespace gmgate::ops
