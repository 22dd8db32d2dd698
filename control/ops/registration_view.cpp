#include "control/ops/registration_view.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <vector>

#include "sa/database.h"

namespace gmgate::ops {

namespace {

RegistrationRow row_of(const registration::RegistrationView& v) {
    RegistrationRow row;
    row.impi = v.impi;
    row.impus = v.impus;
    row.state = v.state;
    row.ue = v.ue.address;
    row.transport = v.transport == sip::Transport::tcp ? "tcp" : "udp";
    row.contact = v.contact;
    row.service_route = v.service_route;
    row.sets = v.sets;
    row.age = v.age;
    row.expires_in = v.expires_in;
    row.reg_event = v.reg_event;
    return row;
}

Party party_of(registration::Entity e) {
    switch (e) {
        case registration::Entity::ue:
            return Party::ue;
        case registration::Entity::pcscf:
            return Party::gateway;
        case registration::Entity::core:
            return Party::core;
    }
    return Party::gateway;
}

}  // namespace

Cursor GatewayView::scan(const Query& query, Cursor cursor, std::size_t budget,
                         const std::function<void(const RegistrationRow&)>& visit) const {
    const auto has_spi = [&](const registration::RegistrationView& v) {
        return std::any_of(v.sets.begin(), v.sets.end(), [&](sa::SetId id) {
            const sa::SaSet* set = database_.find(id);
            if (set == nullptr) return false;
            const sa::SaNumbers& n = set->numbers;
            return *query.spi == n.spi_uc || *query.spi == n.spi_us || *query.spi == n.spi_pc ||
                   *query.spi == n.spi_ps;
        });
    };
    const auto take = [&](const registration::RegistrationView& v) {
        if (!query.spi || has_spi(v)) visit(row_of(v));
    };
    if (query.impi) {
        if (const auto v = gateway_.find(*query.impi)) take(*v);
        return 0;
    }
    return gateway_.scan(cursor, budget, take);
}

std::vector<std::string> GatewayView::states() const {
    return {"registered", "authenticating", "reauthenticating", "leaving"};
}

std::vector<TraceStep> GatewayView::steps(std::string_view impi) const {
    std::vector<TraceStep> out;
    for (NumberedStep& s : ladders(impi)) out.push_back(std::move(s.step));
    return out;
}

std::vector<TraceStep> GatewayView::steps(const std::vector<std::string>& impis) const {
    std::vector<NumberedStep> all;
    for (std::size_t phone = 0; phone < impis.size(); ++phone) {
        for (NumberedStep& s : ladders(impis[phone])) {
            s.step.phone = phone;
            all.push_back(std::move(s));
        }
    }
    std::ranges::stable_sort(all, {}, &NumberedStep::number);
    std::vector<TraceStep> out;
    out.reserve(all.size());
    for (NumberedStep& s : all) out.push_back(std::move(s.step));
    return out;
}

std::vector<GatewayView::NumberedStep> GatewayView::ladders(std::string_view impi) const {
    std::vector<NumberedStep> out;
    // One ladder after the other: how an attempt ended is told at its own end, also if the next one
    // had begun. The first is what happened before the oldest SM1 that is remembered.
    const auto records = gateway_.trace().of_user(impi);
    std::vector<std::vector<const registration::NumberedRecord*>> found(1);
    std::unordered_map<std::uint64_t, std::size_t> by_attempt;
    for (const registration::NumberedRecord& r : records) {
        if (r.step == registration::Step::sm1) {
            if (r.attempt != 0) by_attempt[r.attempt] = found.size();
            found.emplace_back();
        }
        const auto own = by_attempt.find(r.attempt);
        found[own == by_attempt.end() ? found.size() - 1 : own->second].push_back(&r);
    }
    for (const auto& ladder : found) add_ladder(ladder, &ladder != &found.front(), out);
    return out;
}

void GatewayView::add_ladder(const std::vector<const registration::NumberedRecord*>& ladder,
                             bool begun, std::vector<NumberedStep>& out) const {
    const auto wall = clock_.wall();
    const TimePoint now = clock_.now();
    sa::SetId fresh = 0;  // the new set of this registration
    for (const registration::NumberedRecord* record : ladder) {
        const registration::NumberedRecord& r = *record;
        TraceStep s;
        s.time =
            wall - std::chrono::duration_cast<std::chrono::system_clock::duration>(now - r.time);
        const bool message = r.step < registration::Step::set_installed;
        if (r.step == registration::Step::set_installed) fresh = r.set;
        if (r.set != 0 && r.set == fresh)
            s.set = "new";
        else if (r.set != 0 && begun)
            s.set = "old";
        s.from = message ? party_of(r.from) : Party::gateway;
        s.to = message ? party_of(r.to) : Party::gateway;
        if (message) {
            s.name = std::string(registration::name(r.step));
            s.text = r.status != 0 ? fmt::format("{} {}", r.status, r.method_name())
                                   : std::string(r.method_name());
            if (r.spi != 0) s.spi = r.spi;
            if (r.over != registration::TraceRecord::Over::unknown)
                s.transport = r.over == registration::TraceRecord::Over::tcp ? "tcp" : "udp";
            if (r.call != 0) s.call = fmt::format("{:08x}", static_cast<std::uint32_t>(r.call));
        } else {
            s.text = std::string(registration::name(r.step));
            if (r.spi != 0)
                s.text += fmt::format(", {}SA 0x{:08x}", s.set.empty() ? "" : s.set + " ", r.spi);
        }
        if (r.reason != registration::Reason::ok) {
            const registration::ReasonInfo& why = registration::info(r.reason);
            s.word = std::string(why.name);
            s.reason = fmt::format("{}: {}", why.name, why.meaning);
            if (!why.remedy.empty()) s.reason += fmt::format(" {}", why.remedy);
        }
        // What ends as it should is told with its reason too, and is no failure.
        s.failed = r.step == registration::Step::procedure_ended ||
                   (r.reason != registration::Reason::ok &&
                    registration::info(r.reason).blame != registration::Blame::nobody);
        out.push_back({r.number, std::move(s)});
    }
}

FailureRow GatewayView::failure_row(const registration::FailureRecord& r) const {
    const registration::ReasonInfo& why = registration::info(r.reason);
    FailureRow row;
    row.age = clock_.now() - r.time;
    row.time =
        clock_.wall() - std::chrono::duration_cast<std::chrono::system_clock::duration>(row.age);
    row.reason = std::string(why.name);
    row.rule = std::string(why.rule);
    row.meaning = std::string(why.meaning);
    row.remedy = std::string(why.remedy);
    row.status = r.status;
    row.source =
        r.source_port == 0 ? r.source.to_string() : Endpoint{r.source, r.source_port}.to_string();
    row.impi = registration::printable(r.impi_text());
    return row;
}

std::vector<FailureTotal> GatewayView::failure_totals() const {
    std::vector<std::pair<std::uint64_t, FailureTotal>> found;
    for (std::size_t i = 0; i < registration::reason_count; ++i) {
        const auto total = gateway_.failures().total(static_cast<registration::Reason>(i));
        if (total)
            found.emplace_back(total->last.number,
                               FailureTotal{total->count, failure_row(total->last)});
    }
    std::ranges::sort(found, std::greater{}, [](const auto& f) { return f.first; });
    std::vector<FailureTotal> out;
    out.reserve(found.size());
    for (auto& [number, total] : found) out.push_back(std::move(total));
    return out;
}

std::vector<FailureRow> GatewayView::latest_failures(std::size_t limit,
                                                     const std::optional<std::string>& reason,
                                                     const std::optional<std::string>& impi) const {
    std::optional<registration::Reason> wanted;
    if (reason) {
        wanted = registration::reason_of(*reason);
        if (!wanted) return {};
    }
    std::vector<FailureRow> out;
    for (const auto& r : gateway_.failures().latest(limit, wanted, impi.value_or("")))
        out.push_back(failure_row(r));
    return out;
}

bool GatewayView::is_reason(std::string_view word) const {
    return registration::reason_of(word).has_value();
}

std::vector<DropCount> GatewayView::drops() const {
    std::vector<DropCount> out;
    for (std::size_t i = 0; i < registration::reason_count; ++i) {
        const auto reason = static_cast<registration::Reason>(i);
        const std::uint64_t n = gateway_.drops(reason);
        if (n == 0) continue;
        const registration::ReasonInfo& why = registration::info(reason);
        out.push_back(
            {"sip", std::string(why.name), fmt::format("{} [{}]", why.meaning, why.rule), n});
    }
    return out;
}

Cursor GatewayCalls::scan(Cursor cursor, std::size_t budget,
                          const std::function<void(const CallRow&)>& visit) const {
    return gateway_.scan_sessions(cursor, budget, [&](const registration::SessionView& v) {
        visit({v.impi, v.peer, fmt::format("{:08x}", static_cast<std::uint32_t>(v.call)),
               v.early ? "early" : "confirmed", v.idle});
    });
}

HealthItem core_health(const registration::CoreHealth& core, TimePoint now) {
    const auto ago = [now](TimePoint then) {
        return std::chrono::duration_cast<std::chrono::seconds>(now - then).count();
    };
    if (core.unreachable()) {
        const auto& why = registration::info(core.last_failure);
        return {"core", false,
                fmt::format("unreachable for {} s ({}, {} REGISTERs failed, {}): {}",
                            ago(core.silent_since), why.name, core.failures_since,
                            core.answers == 0
                                ? std::string("never an answer")
                                : fmt::format("last answer {} s ago", ago(core.last_answer)),
                            why.remedy)};
    }
    if (core.answers == 0) return {"core", true, "nothing was asked of it yet"};
    // One or two may be about one subscriber.
    if (core.errors_since > 2) {
        return {"core", false,
                fmt::format(
                    "reachable, but its last {} answers to REGISTER were errors (latest {}): {}",
                    core.errors_since, core.last_error,
                    registration::info(registration::Reason::core_error).remedy)};
    }
    return {"core", true,
            fmt::format("reachable, last answer {} s ago, {} failures since the start",
                        ago(core.last_answer), core.failures)};
}

}  // namespace gmgate::ops
