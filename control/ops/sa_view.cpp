#include "control/ops/sa_view.h"

#include <algorithm>

namespace gmgate::ops {

SaRow SaDatabaseView::row_of(const sa::SaSet& set, const sa::User& user, bool detail) const {
    const TimePoint now = database_.clock().now();
    SaRow row;
    row.id = set.id;
    row.state = std::string(sa::name(set.state));
    row.impi = std::string(user.impi());
    if (detail) {
        for (std::size_t i = 0; i < user.impu_count(); ++i) row.impus.emplace_back(user.impu(i));
    }
    row.ue = set.ue;
    row.ours = set.ours;
    row.numbers = set.numbers;
    row.nat = set.nat;
    row.suite = set.suite;
    row.age = std::max(now - set.created, Duration{});
    // reg-await-auth, lifetime or drain: whichever ends the set.
    if (set.timer.active()) row.expires_in = std::max(set.timer.deadline() - now, Duration{});
    return row;
}

Cursor SaDatabaseView::scan(const Query& query, Cursor cursor, std::size_t budget, bool detail,
                            const std::function<void(const SaRow&)>& visit) const {
    std::vector<SaRow> rows;
    Cursor next = 0;
    const sa::SaSet* by_spi = query.spi ? database_.find_by_spi(*query.spi) : nullptr;
    if (by_spi != nullptr && cursor == 0) {
        // One of ours: unique, no scan. A UE's SPI of the same number elsewhere is not meant.
        if (const sa::User* user = database_.find_user(by_spi->user))
            rows.push_back(row_of(*by_spi, *user, detail));
    } else if (query.impi && cursor == 0) {
        if (const sa::User* user = database_.find_by_impi(*query.impi)) {
            for (const sa::SetId id : user->sets) {
                if (const sa::SaSet* set = id != 0 ? database_.find(id) : nullptr)
                    rows.push_back(row_of(*set, *user, detail));
            }
        }
    } else {
        sa::SetFilter filter;
        filter.ue = query.ip;
        filter.spi = query.spi;
        const sa::PageResult page =
            database_.page(static_cast<std::uint32_t>(cursor), budget, filter,
                           [&](const sa::SaSet& set, const sa::User& user) {
                               rows.push_back(row_of(set, user, detail));
                           });
        next = page.done ? 0 : page.next;
    }
    if (detail && !rows.empty()) {
        std::vector<sa::SetId> ids;
        for (const SaRow& row : rows) ids.push_back(row.id);
        std::vector<sa::SetStats> stats(ids.size());
        backend_.stats(ids, stats);
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i].stats = stats[i];
    }
    for (const SaRow& row : rows) visit(row);
    return next;
}

std::vector<std::pair<std::string, std::size_t>> SaDatabaseView::count() const {
    std::vector<std::pair<std::string, std::size_t>> out;
    for (std::size_t i = 0; i < sa::state_count; ++i) {
        const auto state = static_cast<sa::State>(i);
        // What is removed is not there.
        if (state == sa::State::removed) continue;
        const std::int64_t n = database_.stats().sets[i].value();
        out.emplace_back(std::string(sa::name(state)),
                         static_cast<std::size_t>(std::max<std::int64_t>(n, 0)));
    }
    return out;
}

}  // namespace gmgate::ops
