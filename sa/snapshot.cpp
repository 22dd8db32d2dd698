// State leaves the process and comes back (DESIGN rule 10).
//
// Format, version 1: "GMSA", version (2), number of users (4), one record a user: id (8),
// registration time left (8, -1: not registered), port_ps, last port_pc (2 each), number of texts
// (2), texts, number of sets (1), one record a set; end mark (4). A set: id, sm1_set, tag (8 each),
// state, used (1 each), time of its timer left, lifetime left (8 each), age, age since established
// (8 each), addresses, the four SPIs, the four ports, integrity, encryption (1 each), CK, IK (16
// each), highest outbound sequence number (4), and behind a NAT the UE's own address, port_uc and
// port_us (2 each). Times in nanoseconds.
//
// Sets behind a NAT are written for a reader, but not restored: what the packet layer had received
// (replay windows) and learnt (the endpoint) is not in here, so a recorded packet would say where
// the phone is.

#include <algorithm>

#include "sa/database.h"
#include "sa/database_batch.h"
#include "sa/snapshot_codec.h"

namespace gmgate::sa {

namespace {

constexpr std::uint32_t magic = 0x474D5341;     // "GMSA"
constexpr std::uint32_t end_mark = 0x454E4421;  // "END!"
constexpr std::uint16_t format_version = 1;
constexpr std::int64_t never = -1;

// Far enough from the ends of the number that a sum of two cannot pass them.
bool plausible(Duration d) {
    return d.count() >= never && d.count() <= (std::int64_t{1} << 62U);
}

}  // namespace

struct SaDatabase::RestoredSet {
    SetId id = 0;
    SetId sm1_set = 0;
    std::uint64_t tag = 0;
    State state = State::established;
    bool used = false;
    Duration timer_left{};
    Duration lifetime_left{};  // `never`: not established
    Duration age{};
    Duration established_age{};
    IpAddress ue;
    IpAddress ours;
    SaNumbers numbers;
    std::optional<NatTraversal> nat;
    Suite suite;
    SecretPtr<SetKeys> keys;
    std::uint32_t out_sequence = 0;
};

struct SaDatabase::RestoredUser {
    UserId id = 0;
    Duration expires_left{};
    Port port_ps = 0;
    Port last_port_pc = 0;
    std::vector<std::string_view> texts;  // into the snapshot
    std::vector<RestoredSet> sets;
};

SecretBytes SaDatabase::serialize() const {
    std::vector<const User*> users;
    std::vector<SetId> ids;
    for (std::uint32_t i = 0; i < users_.end(); ++i) {
        const User* u = users_.at(i);
        if (u == nullptr) continue;
        const std::size_t before = ids.size();
        for (const SetId id : u->sets) {
            if (const SaSet* s = find(id); s != nullptr && in_backend(s->state)) ids.push_back(id);
        }
        if (ids.size() != before) users.push_back(u);
    }
    std::vector<SetStats> stats(ids.size());
    backend_.stats(ids, stats);

    const TimePoint now = clock().now();
    SnapshotWriter w;
    w.u32(magic);
    w.u16(format_version);
    w.u32(static_cast<std::uint32_t>(users.size()));
    std::size_t next = 0;  // of ids and stats, in the same order
    for (const User* u : users) {
        const std::size_t user_record = w.begin_record();
        w.u64(u->id);
        w.i64(u->registered() ? std::max<std::int64_t>(0, (u->expires - now).count()) : never);
        w.u16(u->port_ps);
        w.u16(u->last_port_pc);
        w.u16(static_cast<std::uint16_t>(u->texts.size()));
        for (std::size_t t = 0; t < u->texts.size(); ++t) w.text(u->texts[t]);
        const auto count = static_cast<std::uint8_t>(std::ranges::count_if(u->sets, [&](SetId id) {
            const SaSet* s = find(id);
            return s != nullptr && in_backend(s->state);
        }));
        w.u8(count);
        for (std::uint8_t i = 0; i < count; ++i, ++next) {
            const SaSet& s = *find(ids[next]);
            const std::size_t record = w.begin_record();
            w.u64(s.id);
            w.u64(s.sm1_set);
            w.u64(s.tag);
            w.u8(static_cast<std::uint8_t>(s.state));
            w.u8(s.used ? 1 : 0);
            w.i64(s.timer.active() ? std::max<std::int64_t>(0, (s.timer.deadline() - now).count())
                                   : 0);
            w.i64(s.lifetime_end == TimePoint::max()
                      ? never
                      : std::max<std::int64_t>(0, (s.lifetime_end - now).count()));
            w.i64((now - s.created).count());
            w.i64(s.established_at == TimePoint{} ? never : (now - s.established_at).count());
            w.ip(s.ue);
            w.ip(s.ours);
            for (const Spi spi :
                 {s.numbers.spi_uc, s.numbers.spi_us, s.numbers.spi_pc, s.numbers.spi_ps})
                w.u32(spi);
            for (const Port p :
                 {s.numbers.port_uc, s.numbers.port_us, s.numbers.port_pc, s.numbers.port_ps})
                w.u16(p);
            w.u8(static_cast<std::uint8_t>(s.suite.integrity));
            w.u8(static_cast<std::uint8_t>(s.suite.encryption));
            w.bytes(s.keys->ck.reveal());
            w.bytes(s.keys->ik.reveal());
            w.u32(std::max(s.out_sequence, stats[next].highest_out_sequence));
            if (s.nat) {
                w.ip(s.nat->inner);
                w.u16(s.nat->port_uc);
                w.u16(s.nat->port_us);
            }
            w.end_record(record);
        }
        w.end_record(user_record);
    }
    w.u32(end_mark);
    return w.take();
}

Result<RestoreReport> SaDatabase::restore(std::span<const std::uint8_t> snapshot,
                                          Duration elapsed) {
    if (users_.size() != 0 || sets_.size() != 0) {
        return fail(ErrorKind::conflict, "a snapshot is restored into an empty database only");
    }
    if (elapsed < Duration::zero()) elapsed = Duration::zero();
    SnapshotReader in(snapshot);
    if (in.u32() != magic)
        return fail(ErrorKind::invalid, "this is no snapshot of the SA database");
    if (const std::uint16_t v = in.u16(); v != format_version) {
        return fail(ErrorKind::invalid, "the snapshot has format version " + std::to_string(v) +
                                            "; known is " + std::to_string(format_version));
    }
    // Everything is read before anything is restored.
    const auto damaged = [] { return fail(ErrorKind::invalid, "the snapshot is damaged"); };
    std::vector<RestoredUser> users;
    const std::uint32_t user_count = in.u32();
    for (std::uint32_t i = 0; i < user_count; ++i) {
        SnapshotReader r = in.record();
        if (!in.ok()) return damaged();
        RestoredUser u;
        u.id = r.u64();
        u.expires_left = Duration(r.i64());
        u.port_ps = r.u16();
        u.last_port_pc = r.u16();
        const std::uint16_t texts = r.u16();
        r.require(texts >= 1 && texts <= PackedStrings::max_texts);
        for (std::uint16_t t = 0; t < texts && r.ok(); ++t) u.texts.push_back(r.text());
        const std::uint8_t sets = r.u8();
        r.require(sets <= max_sets_per_user);
        for (std::uint8_t n = 0; n < sets && r.ok(); ++n) {
            SnapshotReader q = r.record();
            RestoredSet s;
            s.id = q.u64();
            s.sm1_set = q.u64();
            s.tag = q.u64();
            const std::uint8_t state = q.u8();
            q.require(state < state_count && in_backend(static_cast<State>(state)));
            s.state = static_cast<State>(state);
            s.used = q.u8() != 0;
            s.timer_left = Duration(q.i64());
            s.lifetime_left = Duration(q.i64());
            s.age = Duration(q.i64());
            s.established_age = Duration(q.i64());
            s.ue = q.ip();
            s.ours = q.ip();
            for (Spi* spi :
                 {&s.numbers.spi_uc, &s.numbers.spi_us, &s.numbers.spi_pc, &s.numbers.spi_ps})
                *spi = q.u32();
            for (Port* p :
                 {&s.numbers.port_uc, &s.numbers.port_us, &s.numbers.port_pc, &s.numbers.port_ps})
                *p = q.u16();
            const std::uint8_t integrity = q.u8();
            const std::uint8_t encryption = q.u8();
            q.require(integrity <= static_cast<std::uint8_t>(Integrity::aes_gmac) &&
                      encryption <= static_cast<std::uint8_t>(Encryption::aes_gcm));
            s.suite = Suite{static_cast<Integrity>(integrity), static_cast<Encryption>(encryption)};
            s.keys = make_secret<SetKeys>();
            const auto ck = q.bytes(16);
            const auto ik = q.bytes(16);
            s.out_sequence = q.u32();
            if (q.ok() && q.left() != 0) {
                s.nat.emplace();
                s.nat->inner = q.ip();
                s.nat->port_uc = q.u16();
                s.nat->port_us = q.u16();
            }
            q.require(is_valid(s.suite) && s.id != 0 && plausible(s.timer_left) &&
                      plausible(s.lifetime_left) && plausible(s.age) &&
                      plausible(s.established_age));
            r.require(q.ok());
            if (!r.ok()) break;
            std::ranges::copy(ck, s.keys->ck.writable().begin());
            std::ranges::copy(ik, s.keys->ik.writable().begin());
            u.sets.push_back(std::move(s));
        }
        r.require(u.id != 0 && plausible(u.expires_left) &&
                  (u.texts.empty() || !u.texts[0].empty()));
        if (!r.ok()) return damaged();
        users.push_back(std::move(u));
    }
    if (in.u32() != end_mark || !in.ok() || in.left() != 0) return damaged();

    const Batch batch(*this);
    RestoreReport report;
    std::vector<std::pair<RestoredSet*, UserId>> sets;
    std::vector<UserId> owners;
    for (RestoredUser& u : users) {
        u.expires_left = u.expires_left.count() == never
                             ? Duration(never)
                             : std::max(Duration::zero(), u.expires_left - elapsed);
        std::erase_if(u.sets, [&](RestoredSet& s) {
            s.timer_left -= elapsed;
            if (s.lifetime_left.count() != never) s.lifetime_left -= elapsed;
            s.age += elapsed;
            if (s.established_age.count() != never) s.established_age += elapsed;
            const bool over =
                s.timer_left <= Duration::zero() ||
                (s.lifetime_left.count() != never && s.lifetime_left <= Duration::zero());
            report.expired += over ? 1U : 0U;
            report.refused += !over && s.nat ? 1U : 0U;
            return over || s.nat;
        });
        if (u.sets.empty()) continue;
        UserId id = 0;
        if (!restore_user(u, id)) {
            report.refused += u.sets.size();
            continue;
        }
        owners.push_back(id);
        for (RestoredSet& s : u.sets) sets.emplace_back(&s, id);
    }
    // In the order of their positions, in which the pool gives them back at once.
    std::ranges::sort(sets, {}, [](const auto& s) { return Pool<SaSet>::position(s.first->id); });
    for (auto& [set, owner] : sets) ++(restore_set(*set, owner) ? report.sets : report.refused);
    for (const UserId owner : owners) {
        drop_user_if_idle(owner);
        report.users += find_user(owner) != nullptr ? 1U : 0U;
    }
    return report;
}

bool SaDatabase::restore_user(const RestoredUser& from, UserId& id) {
    if (find_by_impi(from.texts[0]) != nullptr) return false;
    auto packed = PackedStrings::pack(from.texts);
    if (!packed) return false;
    const auto bound = static_cast<std::uint32_t>(
        std::min<std::size_t>(2 * config_.limits.max_sets, Pool<User>::max_objects));
    User* user = users_.create_as(from.id, bound);
    if (user == nullptr) {
        user = users_.create(id);  // it gets a new name; nothing but flow tokens knew the old one
        if (user == nullptr) return false;
    } else {
        id = from.id;
    }
    user->id = id;
    user->texts = std::move(*packed);
    if (from.expires_left.count() != never) user->expires = clock().now() + from.expires_left;
    user->port_ps = ports_.is_port_ps(from.port_ps) ? from.port_ps : Port{0};
    user->last_port_pc = from.last_port_pc;
    by_impi_.insert(hash_(user->impi()), Pool<User>::position(id));
    index_impus(*user);
    stats_.users.add(1);
    publish(ChangeKind::user_changed, 0, id);
    return true;
}

bool SaDatabase::restore_set(RestoredSet& from, UserId user_id) {
    User* user = users_.find(user_id);
    if (user == nullptr) return false;
    const auto place = std::ranges::find(user->sets, SetId{0});
    const SaNumbers& n = from.numbers;
    // What the configuration no longer offers cannot be kept.
    if (place == user->sets.end() || sets_.size() >= config_.limits.max_sets ||
        !ports_.is_port_ps(n.port_ps) || !ports_.is_port_pc(n.port_pc) ||
        find_by_client(from.ue, n.port_uc) != nullptr ||
        find_by_tuple(from.ue, n.port_us, n.port_pc) != nullptr) {
        return false;
    }
    if (!spis_.claim(n.spi_pc)) return false;
    if (!spis_.claim(n.spi_ps)) {
        spis_.release(n.spi_pc);
        return false;
    }
    const auto bound = static_cast<std::uint32_t>(
        std::min<std::size_t>(2 * config_.limits.max_sets, Pool<SaSet>::max_objects));
    SaSet* set = sets_.create_as(from.id, bound);
    if (set == nullptr) {
        spis_.release(n.spi_pc);
        spis_.release(n.spi_ps);
        return false;
    }
    const TimePoint now = clock().now();
    set->id = from.id;
    set->user = user_id;
    set->sm1_set = from.sm1_set;
    set->tag = from.tag;
    set->ue = from.ue;
    set->ours = from.ours;
    set->numbers = n;
    set->suite = from.suite;
    set->used = from.used;
    set->created = now - from.age;
    if (from.established_age.count() != never) set->established_at = now - from.established_age;
    if (from.lifetime_left.count() != never) set->lifetime_end = now + from.lifetime_left;
    set->keys = std::move(from.keys);
    set->out_sequence = from.out_sequence;
    set->database = this;
    set->timer.bind(&SaDatabase::on_timer, set);
    set->state = State::installing;
    *place = from.id;
    index_set(*set);
    stats_.sets[static_cast<std::size_t>(State::installing)].add(1);
    const Event event = from.state == State::registration  ? Event::restored_registration
                        : from.state == State::established ? Event::restored_established
                                                           : Event::restored_draining;
    const SetId id = from.id;
    if (!run_install(*set, event)) return false;
    if (SaSet* live_set = live(id)) timers_.start(live_set->timer, from.timer_left);
    return true;
}

}  // namespace gmgate::sa
