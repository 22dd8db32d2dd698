// Indexes, lookups, paging, metrics.

#include <algorithm>

#include "sa/database.h"

namespace gmgate::sa {

namespace {

// A page looks at no more than so many positions besides those it visits.
constexpr std::uint32_t page_scan = 4096;

bool matches(const SaSet& set, const User& user, const SetFilter& f) {
    if (f.state && set.state != *f.state) return false;
    if (f.ue && set.ue != *f.ue) return false;
    if (f.spi) {
        const SaNumbers& n = set.numbers;
        if (*f.spi != n.spi_uc && *f.spi != n.spi_us && *f.spi != n.spi_pc && *f.spi != n.spi_ps)
            return false;
    }
    if (f.impi && user.impi() != *f.impi) return false;
    return !f.impu || user.has_impu(*f.impu);
}

}  // namespace

SaSet* SaDatabase::live(SetId id) const {
    SaSet* set = sets_.find(id);
    return set == nullptr || set->state == State::removed ? nullptr : set;
}

const SaSet* SaDatabase::find(SetId id) const {
    return live(id);
}

std::uint64_t SaDatabase::tuple_hash(const IpAddress& ue, Port ue_port, Port our_port) const {
    return hash_(ue, ue_port, our_port);
}

// No our_port is 0, so these hashes are of other keys than the tuples'.
std::uint64_t SaDatabase::client_hash(const IpAddress& ue, Port port_uc) const {
    return hash_(ue, port_uc, 0);
}

std::uint64_t SaDatabase::hash_of_ue(const IpAddress& ue) const {
    return hash_(ue, 0, 0);
}

const SaSet* SaDatabase::find_by_tuple(const IpAddress& ue, Port ue_port, Port our_port) const {
    const SaSet* found = nullptr;
    by_tuple_.find(tuple_hash(ue, ue_port, our_port), [&](std::uint32_t position) {
        const SaSet* s = sets_.at(position);
        const SaNumbers& n = s->numbers;
        if (s->ue != ue || !((n.port_uc == ue_port && n.port_ps == our_port) ||
                             (n.port_us == ue_port && n.port_pc == our_port))) {
            return false;
        }
        found = s;
        return true;
    });
    return found;
}

const SaSet* SaDatabase::find_by_client(const IpAddress& ue, Port port_uc) const {
    const SaSet* found = nullptr;
    by_client_.find(client_hash(ue, port_uc), [&](std::uint32_t position) {
        const SaSet* s = sets_.at(position);
        if (s->ue != ue || s->numbers.port_uc != port_uc) return false;
        found = s;
        return true;
    });
    return found;
}

const SaSet* SaDatabase::find_by_spi(Spi ours) const {
    if (!spis_.holds(ours)) return nullptr;
    const std::uint32_t position = by_slot_[spis_.index(ours)];
    return position == 0 ? nullptr : sets_.at(position - 1);
}

Endpoint SaDatabase::nat_endpoint(SetId id) const {
    const SaSet* set = find(id);
    if (set == nullptr || !set->nat || !in_backend(set->state)) return {};
    SetStats stats;
    backend_.stats(std::span(&id, 1), std::span(&stats, 1));
    return stats.nat_endpoint;
}

const User* SaDatabase::find_user(UserId id) const {
    return users_.find(id);
}

const User* SaDatabase::find_by_impi(std::string_view impi) const {
    const User* found = nullptr;
    by_impi_.find(hash_(impi), [&](std::uint32_t position) {
        const User* u = users_.at(position);
        if (u->impi() != impi) return false;
        found = u;
        return true;
    });
    return found;
}

const User* SaDatabase::find_by_impu(std::string_view impu) const {
    const User* found = nullptr;
    by_impu_.each(
        hash_(impu), [&](std::uint32_t position) { return users_.at(position)->has_impu(impu); },
        [&](std::uint32_t position) {
            found = users_.at(position);
            return true;
        });
    return found;
}

void SaDatabase::find_by_impu(std::string_view impu,
                              const std::function<void(const User&)>& visit) const {
    by_impu_.each(
        hash_(impu), [&](std::uint32_t position) { return users_.at(position)->has_impu(impu); },
        [&](std::uint32_t position) {
            visit(*users_.at(position));
            return false;
        });
}

const SaSet* SaDatabase::newest(const User& user, State state) const {
    const SaSet* best = nullptr;
    for (const SetId id : user.sets) {
        const SaSet* s = find(id);
        if (s != nullptr && s->state == state &&
            (best == nullptr || s->id >> 24U > best->id >> 24U))
            best = s;
    }
    return best;
}

const SaSet* SaDatabase::outbound(const User& user) const {
    const SaSet* current = newest(user, State::established);
    if (current == nullptr) return newest(user, State::draining);
    if (current->used) return current;
    const SaSet* old = find(current->sm1_set);
    if (old != nullptr && old->state == State::established &&
        old->lifetime_end - clock().now() > config_.timers.near_end) {
        return old;
    }
    return current;
}

const SaSet* SaDatabase::registration_set(const User& user) const {
    for (const SetId id : user.sets) {
        const SaSet* s = find(id);
        if (s != nullptr && (s->state == State::registration || s->state == State::installing ||
                             s->state == State::reserved)) {
            return s;
        }
    }
    return nullptr;
}

void SaDatabase::index_set(SaSet& set) {
    const std::uint32_t position = Pool<SaSet>::position(set.id);
    const SaNumbers& n = set.numbers;
    by_tuple_.insert(tuple_hash(set.ue, n.port_uc, n.port_ps), position);
    by_tuple_.insert(tuple_hash(set.ue, n.port_us, n.port_pc), position);
    by_client_.insert(client_hash(set.ue, n.port_uc), position);
    if (own_labels()) by_server_.insert(client_hash(set.ue, n.port_us), position);
    by_slot_[spis_.index(n.spi_pc)] = position + 1;
    by_slot_[spis_.index(n.spi_ps)] = position + 1;
}

void SaDatabase::unindex_set(const SaSet& set) {
    const std::uint32_t position = Pool<SaSet>::position(set.id);
    const SaNumbers& n = set.numbers;
    by_tuple_.erase(tuple_hash(set.ue, n.port_uc, n.port_ps), position);
    by_tuple_.erase(tuple_hash(set.ue, n.port_us, n.port_pc), position);
    by_client_.erase(client_hash(set.ue, n.port_uc), position);
    if (own_labels()) by_server_.erase(client_hash(set.ue, n.port_us), position);
    by_slot_[spis_.index(n.spi_pc)] = 0;
    by_slot_[spis_.index(n.spi_ps)] = 0;
}

void SaDatabase::index_impus(const User& user) {
    for (std::size_t i = 0; i < user.impu_count(); ++i) {
        const std::string_view impu = user.impu(i);
        by_impu_.insert(hash_(impu), Pool<User>::position(user.id), [&](std::uint32_t position) {
            return users_.at(position)->has_impu(impu);
        });
    }
}

void SaDatabase::unindex_impus(const User& user) {
    for (std::size_t i = 0; i < user.impu_count(); ++i) {
        const std::string_view impu = user.impu(i);
        by_impu_.erase(hash_(impu), Pool<User>::position(user.id),
                       [&](std::uint32_t position) { return users_.at(position)->has_impu(impu); });
    }
}

PageResult SaDatabase::page(std::uint32_t cursor, std::size_t limit, const SetFilter& filter,
                            const std::function<void(const SaSet&, const User&)>& visit) const {
    PageResult r;
    if (filter.impi) {  // at most three sets: one page, whatever the limit
        r.done = true;
        const User* user = find_by_impi(*filter.impi);
        if (user == nullptr) return r;
        const auto ids = user->sets;
        for (const SetId id : ids) {
            const SaSet* set = find(id);
            if (set == nullptr) continue;
            const User& owner = *find_user(set->user);
            if (!matches(*set, owner, filter)) continue;
            ++r.visited;
            visit(*set, owner);
        }
        return r;
    }
    std::uint32_t scanned = 0;
    for (r.next = cursor; r.next < sets_.end() && r.visited < limit && scanned < page_scan;) {
        const SaSet* set = sets_.at(r.next++);
        ++scanned;
        if (set == nullptr || set->state == State::removed) continue;
        const User& user = *find_user(set->user);
        if (!matches(*set, user, filter)) continue;
        ++r.visited;
        visit(*set, user);
    }
    r.done = r.next >= sets_.end();
    return r;
}

PageResult SaDatabase::page_users(std::uint32_t cursor, std::size_t limit,
                                  const std::function<void(const User&)>& visit) const {
    PageResult r;
    std::uint32_t scanned = 0;
    for (r.next = cursor; r.next < users_.end() && r.visited < limit && scanned < page_scan;) {
        const User* user = users_.at(r.next++);
        ++scanned;
        if (user == nullptr) continue;
        ++r.visited;
        visit(*user);
    }
    r.done = r.next >= users_.end();
    return r;
}

std::size_t SaDatabase::table_octets() const {
    return sets_.octets() + users_.octets() + by_tuple_.octets() + by_client_.octets() +
           by_server_.octets() + by_impi_.octets() + by_impu_.octets() +
           by_slot_.capacity() * sizeof(std::uint32_t) + spis_.octets();
}

void SaDatabase::register_metrics(metrics::Registry& registry) const {
    using metrics::Kind;
    for (const State s :
         {State::reserved, State::registration, State::established, State::draining}) {
        registry.function(
            "gmgate_sa_sets", "SA sets held, by lifecycle state.", Kind::gauge,
            {{"state", std::string(name(s))}}, [this, s] {
                return static_cast<double>(stats_.sets[static_cast<std::size_t>(s)].value());
            });
    }
    registry.function("gmgate_sa_users", "Private identities that hold at least one SA set.",
                      Kind::gauge, {},
                      [this] { return static_cast<double>(stats_.users.value()); });
    for (std::size_t e = 0; e < event_count; ++e) {
        bool removes = false;
        for (const auto& row : lifecycle) {
            removes = removes || (row[e].verdict == Verdict::move && row[e].next == State::removed);
        }
        if (!removes) continue;
        registry.function("gmgate_sa_sets_removed_total",
                          "SA sets removed, by the event that removed them.", Kind::counter,
                          {{"reason", std::string(name(static_cast<Event>(e)))}},
                          [this, e] { return static_cast<double>(stats_.removed[e].value()); });
    }
    const auto counter = [&registry](const char* metric, const char* help,
                                     const metrics::Counter& c) {
        registry.function(metric, help, Kind::counter, {},
                          [&c] { return static_cast<double>(c.value()); });
    };
    counter("gmgate_sa_sets_reserved_total", "SA sets for which numbers were reserved.",
            stats_.reserved);
    counter("gmgate_sa_sets_established_total", "SA sets whose authentication succeeded.",
            stats_.established);
    counter("gmgate_sa_reserve_refused_total", "SA sets refused: limit, conflict or bad numbers.",
            stats_.reserve_refused);
    counter("gmgate_sa_install_failed_total", "SA sets the packet layer did not take.",
            stats_.install_failed);
    counter("gmgate_sa_illegal_events_total", "Events the lifecycle forbids in the set's state.",
            stats_.illegal_events);
}

}  // namespace gmgate::sa
