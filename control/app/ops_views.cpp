#include "control/app/ops_views.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "control/sip/build.h"

namespace gmgate::app {

namespace {

std::optional<sa::State> parse_state(std::string_view text) {
    for (std::size_t i = 0; i < sa::state_count; ++i) {
        const auto state = static_cast<sa::State>(i);
        if (iequals(sa::name(state), text)) return state;
    }
    return std::nullopt;
}

std::optional<Duration> remaining(TimePoint end, TimePoint now) {
    if (end == TimePoint::max()) return std::nullopt;
    return std::max(end - now, Duration::zero());
}

ops::Party party(registration::Entity entity) {
    switch (entity) {
        case registration::Entity::ue: return ops::Party::ue;
        case registration::Entity::pcscf: return ops::Party::gateway;
        case registration::Entity::core: return ops::Party::core;
    }
    return ops::Party::gateway;
}

bool has_spi(const sa::SaDatabase& database, const std::vector<sa::SetId>& sets, sa::Spi spi) {
    return std::any_of(sets.begin(), sets.end(), [&](sa::SetId id) {
        const sa::SaSet* set = database.find(id);
        return set != nullptr && (set->numbers.spi_uc == spi || set->numbers.spi_us == spi ||
                                  set->numbers.spi_pc == spi || set->numbers.spi_ps == spi);
    });
}

}  // namespace

ops::Cursor DatabaseSaView::scan(const ops::Query& query, ops::Cursor cursor, std::size_t budget, bool detail,
                                 const std::function<void(const ops::SaRow&)>& visit) const {
    sa::SetFilter filter{query.impi, std::nullopt, query.ip, query.spi, std::nullopt};
    if (query.state) {
        filter.state = parse_state(*query.state);
        if (!filter.state) return 0;
    }
    const TimePoint now = database_.clock().now();
    const auto page = database_.page(
        static_cast<std::uint32_t>(cursor), budget, filter, [&](const sa::SaSet& set, const sa::User& user) {
            ops::SaRow row;
            row.id = set.id;
            row.state = sa::name(set.state);
            row.impi = user.impi();
            for (std::size_t i = 0; i < user.impu_count(); ++i) row.impus.emplace_back(user.impu(i));
            row.ue = set.ue;
            row.ours = set.ours;
            row.numbers = set.numbers;
            row.suite = set.suite;
            row.age = now - set.created;
            // Before SM12 the running time-out is reg-await-auth.
            row.expires_in = remaining(set.timer.active() ? set.timer.deadline() : set.lifetime_end, now);
            if (detail) {
                const std::array ids{set.id};
                std::array<sa::SetStats, 1> stats{};
                backend_.stats(ids, stats);
                row.stats = stats[0];
            }
            visit(row);
        });
    return page.done ? 0 : page.next;
}

std::vector<std::pair<std::string, std::size_t>> DatabaseSaView::count() const {
    std::vector<std::pair<std::string, std::size_t>> out;
    for (std::size_t i = 0; i < sa::state_count; ++i) {
        const auto state = static_cast<sa::State>(i);
        if (state == sa::State::removed) continue;
        out.emplace_back(sa::name(state), static_cast<std::size_t>(std::max<std::int64_t>(database_.stats().sets[i].value(), 0)));
    }
    return out;
}

ops::Cursor GatewayRegistrationView::scan(const ops::Query& query, ops::Cursor cursor, std::size_t budget,
                                          const std::function<void(const ops::RegistrationRow&)>& visit) const {
    const auto show = [&](const registration::RegistrationView& r) {
        if (query.impi && r.impi != *query.impi) return;
        if (query.ip && r.ue.address != *query.ip) return;
        if (query.state && !iequals(r.state, *query.state)) return;
        if (query.spi && !has_spi(database_, r.sets, *query.spi)) return;
        ops::RegistrationRow row;
        row.impi = r.impi;
        row.impus = r.impus;
        row.state = r.state;
        row.ue = r.ue.address;
        row.transport = to_lower(sip::name(r.transport));
        row.contact = r.contact;
        row.service_route = r.service_route;
        row.sets = r.sets;
        row.age = r.age;
        row.expires_in = r.expires_in;
        visit(row);
    };
    if (query.impi) {  // one lookup in place of a scan
        if (const auto one = gateway_.find(*query.impi)) show(*one);
        return 0;
    }
    return gateway_.scan(cursor, budget, show);
}

std::vector<std::pair<std::string, std::size_t>> GatewayRegistrationView::count() const {
    return {{"registered", gateway_.registered()}, {"authenticating", gateway_.pending()}};
}

std::vector<ops::TraceStep> GatewayTraceView::steps(std::string_view impi) const {
    const auto wall = clock_.wall();
    const TimePoint now = clock_.now();
    std::vector<ops::TraceStep> out;
    for (const auto& r : gateway_.trace().of_user(impi)) {
        ops::TraceStep step;
        step.time = wall - std::chrono::duration_cast<std::chrono::system_clock::duration>(now - r.time);
        step.from = party(r.from);
        step.to = party(r.to);
        const bool message = r.step < registration::Step::set_installed;
        if (message) {
            step.name = registration::name(r.step);
            if (r.status == 0) {
                step.text = r.method_name();
            } else {
                step.text = std::to_string(r.status) + " " + std::string(sip::reason_phrase(r.status));
            }
        } else {
            step.text = registration::name(r.step);
        }
        if (r.spi != 0) step.spi = r.spi;
        if (r.reason != registration::Reason::ok) {
            step.reason = registration::name(r.reason);
            step.failed = r.step != registration::Step::set_removed && r.step != registration::Step::registration_ended;
        }
        out.push_back(std::move(step));
    }
    return out;
}

}  // namespace gmgate::app
