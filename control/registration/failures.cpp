#include "control/registration/failures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace gmgate::registration {

namespace {

log::Level level_of(Reason reason) {
    return info(reason).blame == Blame::operator_ ? log::Level::warn : log::Level::info;
}

}  // namespace

std::string_view FailureRecord::impi_text() const {
    return {impi.data(), ::strnlen(impi.data(), impi.size())};
}

bool FailureRecord::is_of(std::string_view whole_impi) const {
    return !whole_impi.empty() && impi_text() == whole_impi.substr(0, impi.size());
}

FailureLog::FailureLog(std::size_t per_reason)
    : per_reason_(std::max<std::size_t>(per_reason, 1)) {}

void FailureLog::add(TimePoint time, Reason reason, std::uint16_t status, const Endpoint& source,
                     std::string_view impi) {
    Ring& ring = rings_[static_cast<std::size_t>(reason)];
    if (ring.records.empty()) ring.records.resize(per_reason_);
    FailureRecord& r = ring.records[ring.next % ring.records.size()];
    ++ring.next;
    r = FailureRecord{time, ++next_, reason, status, source.address, source.port, {}};
    std::ranges::copy(impi.substr(0, r.impi.size()), r.impi.begin());
}

std::vector<FailureRecord> FailureLog::latest(std::size_t limit, std::optional<Reason> reason,
                                              std::string_view impi) const {
    std::vector<FailureRecord> found;
    for (std::size_t i = 0; i < reason_count; ++i) {
        if (reason && static_cast<std::size_t>(*reason) != i) continue;
        const Ring& ring = rings_[i];
        const std::uint64_t kept = std::min<std::uint64_t>(ring.next, ring.records.size());
        std::size_t taken = 0;
        for (std::uint64_t k = ring.next; k > ring.next - kept && taken < limit; --k) {
            const FailureRecord& r = ring.records[(k - 1) % ring.records.size()];
            if (!impi.empty() && !r.is_of(impi)) continue;
            found.push_back(r);
            ++taken;
        }
    }
    std::ranges::sort(found, std::greater{}, &FailureRecord::number);
    if (found.size() > limit) found.resize(limit);
    return found;
}

std::optional<FailureLog::Total> FailureLog::total(Reason reason) const {
    const Ring& ring = rings_[static_cast<std::size_t>(reason)];
    if (ring.next == 0) return std::nullopt;
    return Total{ring.next + ring.more, ring.records[(ring.next - 1) % ring.records.size()]};
}

std::string printable(std::string_view text, std::size_t longest) {
    std::string out;
    const bool cut = text.size() > longest;
    for (const char c : text.substr(0, longest)) {
        const auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u > 0x7E || c == '"' || c == '\\') {
            fmt::format_to(std::back_inserter(out), "\\x{:02x}", u);
        } else {
            out += c;
        }
    }
    if (cut) out += "...";
    return out;
}

FailureReporter::FailureReporter(TimerWheel& timers)
    : timers_(timers),
      of_reason_(reason_count, TokenBucket(rate, burst)),
      of_all_(10 * rate, 10 * burst) {
    timer_.bind<&FailureReporter::on_period_over>(this);
}

void FailureReporter::report(const FailureRecord& failure, std::string_view whole_impi,
                             std::string_view remark) {
    if (!log::enabled(level_of(failure.reason))) return;
    const auto i = static_cast<std::size_t>(failure.reason);
    const TimePoint now = timers_.now();
    // The reason's own share first: one that floods must not use up that of the others.
    if (!of_reason_[i].take(now) || !of_all_.take(now)) {
        return count_only(failure.reason);
    }
    const ReasonInfo& why = info(failure.reason);
    const std::string who = whole_impi.empty() ? std::string("a phone without an identity")
                                               : "\"" + printable(whole_impi) + "\"";
    log::at(level_of(failure.reason), "registration", "failed: {} [{}]: {} from {}, {}: {}{} {}",
            why.name, why.rule, who,
            failure.source_port == 0 ? failure.source.to_string()
                                     : Endpoint{failure.source, failure.source_port}.to_string(),
            failure.status == 0 ? std::string("not answered")
                                : fmt::format("answered {}", failure.status),
            why.meaning,
            remark.empty() ? std::string() : fmt::format(" ({})", printable(remark, 256)),
            why.remedy);
}

void FailureReporter::count_only(Reason reason) {
    if (!log::enabled(level_of(reason))) return;
    ++suppressed_[static_cast<std::size_t>(reason)];
    ++suppressed_in_all_;
    if (!timer_.active()) timers_.start(timer_, period);
}

void FailureReporter::tell() {
    if (!timer_.active()) return;
    timer_.stop();
    on_period_over();
}

void FailureReporter::on_period_over() {
    std::string what;
    log::Level level = log::Level::info;
    for (std::size_t i = 0; i < reason_count; ++i) {
        if (suppressed_[i] == 0) continue;
        const auto reason = static_cast<Reason>(i);
        fmt::format_to(std::back_inserter(what), "{}{} {}", what.empty() ? "" : ", ",
                       suppressed_[i], name(reason));
        level = std::max(level, level_of(reason));
        suppressed_[i] = 0;
    }
    log::at(level, "registration",
            "not logged in the last {} s, there were too many: {}; 'gmctl reg failures' lists the "
            "latest",
            std::chrono::duration_cast<std::chrono::seconds>(period).count(), what);
}

}  // namespace gmgate::registration
