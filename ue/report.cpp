#include "ue/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "sa/algorithms/suite.h"

namespace gmgate::ue {

namespace {

double ms(Duration d) {
    return std::chrono::duration<double, std::milli>(d).count();
}

nlohmann::ordered_json latency(const Latencies& l) {
    return {{"count", l.count()},
            {"p50", ms(l.percentile(0.5))},
            {"p95", ms(l.percentile(0.95))},
            {"p99", ms(l.percentile(0.99))},
            {"max", ms(l.max())}};
}

nlohmann::ordered_json tally(const Tally& t) {
    auto j = nlohmann::ordered_json::object();
    for (const auto& [text, n] : t.counts()) j[text] = n;
    return j;
}

nlohmann::ordered_json call_summary(const CallStatistics& c) {
    return {{"placed", c.placed},
            {"rang", c.rang},
            {"answered", c.answered},
            {"completed", c.completed},
            {"cancelled", c.cancelled},
            {"taken", c.taken},
            {"declined", c.declined},
            {"holds", c.holds},
            {"dropped", c.dropped},
            {"forked", c.forked},
            {"failures", tally(c.failures)},
            {"ring_ms", latency(c.ring)},
            {"setup_ms", latency(c.setup)},
            {"bye_ms", latency(c.bye)},
            {"messages_sent", c.messages_sent},
            {"messages_answered", c.messages_answered},
            {"messages_received", c.messages_received},
            {"message_failures", tally(c.message_failures)},
            {"message_ms", latency(c.message)},
            {"subscriptions", c.subscriptions},
            {"notifies", c.notifies},
            {"bad_input", tally(c.bad_input)}};
}

std::string latency_line(std::string_view label, const Latencies& l) {
    return fmt::format("  {:<14} p50 {:>8.2f}   p95 {:>8.2f}   p99 {:>8.2f}   max {:>8.2f} ms\n",
                       label, ms(l.percentile(0.5)), ms(l.percentile(0.95)), ms(l.percentile(0.99)),
                       ms(l.max()));
}

// What the network wrote may hold anything; on a terminal it may not.
std::string printable(std::string_view text) {
    std::string out(text);
    std::ranges::replace_if(
        out, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7F; }, '?');
    return out;
}

// What became of calls and messages between phones, and of what bridges carried.
std::string call_lines(const Load& load) {
    const CallStatistics& c = load.statistics().calls;
    std::string out;
    const auto to = std::back_inserter(out);
    if (load.options().traffic.calls == 1 && c.placed == 1) {
        const Call::Facts& f = load.traffic().last_call();
        if (f.completed) {
            fmt::format_to(to,
                           "  call to {}: rang after {:.1f} ms, set up in {:.1f} ms, talked {:.1f} "
                           "s, {}\n",
                           printable(f.peer), ms(f.ring), ms(f.setup), ms(f.talked) / 1000,
                           f.reason);
        } else {
            fmt::format_to(to, "  call to {} failed: {}\n", printable(f.peer), printable(f.reason));
        }
    } else if (c.placed > 0) {
        fmt::format_to(to, "  calls placed {}, answered {}, ended in order {}, cancelled {}\n",
                       c.placed, c.answered, c.completed, c.cancelled);
        if (c.setup.count() > 0) out += latency_line("call set-up", c.setup);
    } else if (c.taken + c.declined > 0) {
        fmt::format_to(to, "  calls taken {}, declined {}\n", c.taken, c.declined);
    }
    if (c.messages_sent + c.messages_received > 0) {
        fmt::format_to(to, "  messages sent {}, answered {}, received {}\n", c.messages_sent,
                       c.messages_answered, c.messages_received);
        if (c.message.count() > 0) out += latency_line("message", c.message);
    }
    if (load.traffic().skipped() > 0)
        fmt::format_to(to, "  calls and messages not begun, no pair was free: {}\n",
                       load.traffic().skipped());
    for (const auto& [text, n] : c.failures.counts())
        fmt::format_to(to, "  call failed: {} ({})\n", printable(text), n);
    for (const auto& [text, n] : c.message_failures.counts())
        fmt::format_to(to, "  message failed: {} ({})\n", printable(text), n);
    for (const auto& [text, n] : c.bad_input.counts())
        fmt::format_to(to, "  bad input: {} ({})\n", printable(text), n);
    const BridgeStatistics& b = load.statistics().bridge;
    if (b.requests_out + b.requests_in > 0)
        fmt::format_to(to, "  bridge: requests out {}, in {}; responses out {}, in {}\n",
                       b.requests_out, b.requests_in, b.responses_out, b.responses_in);
    for (const auto& [text, n] : b.dropped.counts())
        fmt::format_to(to, "  bridge dropped: {} ({})\n", printable(text), n);
    return out;
}

}  // namespace

std::string json_summary(const Load& load, double seconds, std::uint64_t send_errors) {
    const Statistics& s = load.statistics();
    nlohmann::ordered_json j;
    const double registering = std::chrono::duration<double>(load.registering_time()).count();
    j["ok"] = load.good();
    j["interrupted"] = load.interrupted();
    j["phones"] = load.size();
    j["started"] = s.started;
    j["registered"] = s.registered;
    j["failed"] = s.failed;
    j["deregistered"] = s.deregistered;
    j["ended_by_network"] = s.ended_by_network;
    j["failures"] = tally(s.failures);
    j["violations"] = tally(s.violations);
    j["seconds"] = seconds;
    j["registering_seconds"] = registering;
    j["registrations_per_second"] =
        registering > 0 ? static_cast<double>(s.registered) / registering : 0.0;
    j["latency_ms"] = {{"sm1_sm6", latency(s.sm1_sm6)},
                       {"sm7_sm12", latency(s.sm7_sm12)},
                       {"whole", latency(s.whole)},
                       {"message", latency(s.message)}};
    j["challenges"] = s.challenges;
    j["unchallenged"] = s.unchallenged;
    j["reregistrations"] = s.reregistrations;
    j["reregistrations_failed"] = s.reregistrations_failed;
    j["messages_sent"] = s.messages_sent;
    j["messages_answered"] = s.messages_answered;
    j["network_requests"] = s.network_requests;
    j["retransmissions"] = s.retransmissions;
    j["restarts"] = s.restarts;
    j["stray_messages"] = s.stray;
    j["registered_by"] = {{"udp", s.udp}, {"tcp", s.tcp}, {"ipv4", s.ipv4}, {"ipv6", s.ipv6}};
    auto suites = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < sa::all_suites.size(); ++i)
        suites[sa::to_string(sa::all_suites[i])] = s.suites[i];
    j["suites"] = suites;
    j["esp"] = {{"sent", s.esp_sent},
                {"received", s.esp_received},
                {"unknown_spi", s.esp_unknown_spi},
                {"bad", s.esp_bad},
                {"replayed", s.esp_replayed},
                {"selector", s.esp_selector},
                {"send_errors", send_errors}};
    j["calls"] = call_summary(s.calls);
    if (load.options().traffic.any()) {
        const double traffic = std::chrono::duration<double>(load.traffic().took()).count();
        j["traffic"] = {
            {"pairs", load.traffic().pairs()},
            {"seconds", traffic},
            {"skipped", load.traffic().skipped()},
            {"calls_per_second", traffic > 0 ? static_cast<double>(s.calls.placed) / traffic : 0.0},
            {"messages_per_second",
             traffic > 0 ? static_cast<double>(s.calls.messages_sent) / traffic : 0.0}};
    }
    const BridgeStatistics& b = s.bridge;
    j["bridge"] = {{"requests_out", b.requests_out},
                   {"responses_in", b.responses_in},
                   {"requests_in", b.requests_in},
                   {"responses_out", b.responses_out},
                   {"dropped", tally(b.dropped)}};
    auto misbehaved = nlohmann::ordered_json::object();
    for (const auto& m : misbehaviours()) {
        const auto& r = s.misbehaved[static_cast<std::size_t>(m.kind)];
        if (r.phones == 0) continue;
        misbehaved[std::string(m.name)] = {{"phones", r.phones},
                                           {"as_expected", r.as_expected},
                                           {"rule", m.rule},
                                           {"expected", m.expected},
                                           {"seen", tally(r.seen)}};
    }
    j["misbehaviour"] = misbehaved;
    return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string text_summary(const Load& load, double seconds, std::uint64_t send_errors) {
    const Statistics& s = load.statistics();
    std::string out;
    const auto to = std::back_inserter(out);
    const double registering = std::chrono::duration<double>(load.registering_time()).count();
    std::uint64_t misbehaving = 0;
    for (const auto& m : s.misbehaved) misbehaving += m.phones;
    fmt::format_to(to, "{} phones: {} registered, {} failed", load.size(), s.registered, s.failed);
    if (misbehaving > 0) fmt::format_to(to, ", {} misbehaved", misbehaving);
    if (s.started < load.size()) fmt::format_to(to, ", {} never started", load.size() - s.started);
    if (s.registered > 1 && registering > 0) {
        fmt::format_to(to, "; {:.0f} registrations/s",
                       static_cast<double>(s.registered) / registering);
    }
    fmt::format_to(to, "; {:.1f} s in all\n", seconds);
    if (s.sm1_sm6.count() > 0) out += latency_line("SM1 → SM6", s.sm1_sm6);
    if (s.sm7_sm12.count() > 0) out += latency_line("SM7 → SM12", s.sm7_sm12);
    if (s.whole.count() > 0) out += latency_line("registration", s.whole);
    if (s.message.count() > 0) out += latency_line("request", s.message);
    out += call_lines(load);
    if (s.registered > 1) {
        fmt::format_to(to, "  over UDP {}, TCP {}; IPv4 {}, IPv6 {}\n", s.udp, s.tcp, s.ipv4,
                       s.ipv6);
        std::string list;
        for (std::size_t i = 0; i < sa::all_suites.size(); ++i) {
            if (s.suites[i] == 0) continue;
            list += fmt::format("{}{} {}", list.empty() ? "" : ", ",
                                sa::to_string(sa::all_suites[i]), s.suites[i]);
        }
        fmt::format_to(to, "  {}\n", list);
    }
    if (s.reregistrations + s.reregistrations_failed > 0) {
        fmt::format_to(to, "  re-registered {}, in vain {}\n", s.reregistrations,
                       s.reregistrations_failed);
    }
    if (s.messages_sent > 0)
        fmt::format_to(to, "  requests sent {}, answered {}\n", s.messages_sent,
                       s.messages_answered);
    if (s.network_requests > 0)
        fmt::format_to(to, "  requests from the network, answered: {}\n", s.network_requests);
    if (s.retransmissions > 0) fmt::format_to(to, "  retransmissions {}\n", s.retransmissions);
    if (s.restarts > 0)
        fmt::format_to(to, "  registrations begun again, SM7 unanswered: {}\n", s.restarts);
    if (s.deregistered > 0) fmt::format_to(to, "  de-registered {}\n", s.deregistered);
    if (s.esp_bad + s.esp_replayed + s.esp_selector + s.esp_unknown_spi > 0) {
        fmt::format_to(
            to, "  ESP the phones refused: bad {}, replayed {}, wrong ports {}, unknown SPI {}\n",
            s.esp_bad, s.esp_replayed, s.esp_selector, s.esp_unknown_spi);
    }
    if (send_errors > 0)
        fmt::format_to(to, "  packets this host would not send: {}\n", send_errors);
    for (const auto& [text, n] : s.failures.counts())
        fmt::format_to(to, "  failure: {} ({})\n", printable(text), n);
    for (const auto& [text, n] : s.violations.counts())
        fmt::format_to(to, "  rule broken: {} ({})\n", printable(text), n);
    for (const auto& m : misbehaviours()) {
        const auto& r = s.misbehaved[static_cast<std::size_t>(m.kind)];
        if (r.phones == 0) continue;
        fmt::format_to(to, "  {} ({}): {} of {} saw what a right gateway does ({})\n", m.name,
                       m.rule, r.as_expected, r.phones, m.expected);
        for (const auto& [text, n] : r.seen.counts())
            fmt::format_to(to, "    seen: {} ({})\n", printable(text), n);
    }
    return out;
}

std::string progress_line(const Load& load, std::size_t width) {
    const Statistics& s = load.statistics();
    constexpr std::size_t bar = 24;
    const std::size_t all = std::max<std::size_t>(1, load.size());
    std::size_t done = load.settled();
    if (load.stage() == Load::Stage::deregistering) done = s.deregistered;
    if (load.stage() == Load::Stage::reregistering) done = s.reregistrations;
    done = std::min(done, all);
    const std::size_t full = done * bar / all;
    std::string line = fmt::format("[{}{}] {}/{} {}", std::string(full, '#'),
                                   std::string(bar - full, '.'), done, all, name(load.stage()));
    if (s.failed > 0) line += fmt::format(", {} failed", s.failed);
    if (s.sm1_sm6.count() > 0)
        line += fmt::format("  SM1-SM6 {:.1f} ms", ms(s.sm1_sm6.percentile(0.5)));
    if (s.sm7_sm12.count() > 0)
        line += fmt::format("  SM7-SM12 {:.1f} ms", ms(s.sm7_sm12.percentile(0.5)));
    if (line.size() > width) line.resize(width);
    return line;
}

Narrator::Narrator(std::FILE* out, bool colour, bool messages, bool several)
    : out_(out), colour_(colour), messages_(messages), several_(several) {}

void Narrator::step(const Phone& phone, std::string_view line) {
    const std::string text = printable(line);
    const std::string who = several_ ? fmt::format("[{}] ", phone.plan().number) : "";
    const bool alarm = text.find("!!") != std::string::npos ||
                       text.find("failed:") != std::string::npos ||
                       text.find("NOT what") != std::string::npos;
    if (colour_ && alarm) {
        fmt::print(out_, "{}\x1b[31m{}\x1b[0m\n", who, text);
    } else if (colour_ && text.find("  ") == 0) {
        fmt::print(out_, "{}\x1b[2m{}\x1b[0m\n", who, text);
    } else {
        fmt::print(out_, "{}{}\n", who, text);
    }
    std::fflush(out_);
}

void Narrator::message(const Phone&, bool sent, std::string_view, std::string_view text) {
    if (!messages_) return;
    while (!text.empty()) {
        const auto end = text.find("\r\n");
        fmt::print(out_, "    {} {}\n", sent ? '>' : '<', printable(text.substr(0, end)));
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 2);
    }
    std::fflush(out_);
}

}  // namespace gmgate::ue
