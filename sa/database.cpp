// Construction, the procedure SM1 to SM12, and what follows it.

#include "sa/database.h"

#include <fmt/core.h>

#include <algorithm>

#include "sa/database_batch.h"

namespace gmgate::sa {

namespace {

// The S-CSCF's number; 2^32 - 1 seconds is the most SIP can say.
Duration clamp_expiry(Duration granted) {
    return std::clamp(granted, Duration::zero(), Duration(std::chrono::seconds(0xFFFFFFFFLL)));
}

Result<void> check_numbers(Spi spi_uc, Spi spi_us, Port port_uc, Port port_us) {
    if (spi_uc <= 255 || spi_us <= 255)
        return fail(ErrorKind::invalid, "an SPI of the UE is in the reserved range 0-255");
    if (spi_uc == spi_us) return fail(ErrorKind::invalid, "both SPIs of the UE are the same");
    if (is_forbidden_protected_port(port_uc) || is_forbidden_protected_port(port_us)) {
        return fail(ErrorKind::invalid, "a protected port of the UE is 0, 5060 or 5061");
    }
    return {};
}

bool completed(const SaSet& s) {
    return s.state == State::established || s.state == State::draining;
}

}  // namespace

Result<std::unique_ptr<SaDatabase>> SaDatabase::create(DatabaseConfig config, Backend& backend,
                                                       TimerWheel& timers, Random& random) {
    auto ports = PortAllocator::create(config.ports);
    if (!ports) return std::unexpected(ports.error());

    const std::size_t capacity =
        std::min<std::size_t>(backend.capacity(), SpiLayout::max_slots / 2);
    if (capacity == 0) return fail(ErrorKind::invalid, "the packet layer can hold no SA set");
    if (config.first_spi_slot >= 2 * capacity) {
        return fail(ErrorKind::invalid, "the first SPI slot lies beyond the packet layer's table");
    }
    const std::size_t room = 2 * capacity - config.first_spi_slot;
    if (config.spi_slots == 0) config.spi_slots = static_cast<std::uint32_t>(room);
    if (config.spi_slots > room || config.spi_slots < 2) {
        return fail(ErrorKind::invalid,
                    fmt::format("{} SPI slots from {} do not fit the packet layer's {}",
                                config.spi_slots, config.first_spi_slot, 2 * capacity));
    }
    Limits& limits = config.limits;
    if (limits.max_sets == 0) limits.max_sets = config.spi_slots / 2;
    if (limits.max_sets > config.spi_slots / 2) {
        return fail(ErrorKind::invalid,
                    fmt::format("{} SA sets are more than the packet layer can hold ({})",
                                limits.max_sets, config.spi_slots / 2));
    }
    if (limits.max_registration_sets == 0)
        limits.max_registration_sets = std::max<std::size_t>(1, limits.max_sets / 2);
    limits.max_impus_per_user = std::min<std::size_t>(
        limits.max_impus_per_user, PackedStrings::max_texts - User::text_first_impu);
    const Timers& t = config.timers;
    if (t.reg_await_auth <= Duration::zero() || t.drain < Duration::zero() ||
        t.lifetime_grace < Duration::zero() || t.near_end < Duration::zero() ||
        t.spi_quarantine < Duration::zero() || t.label_quarantine < Duration::zero()) {
        return fail(ErrorKind::invalid,
                    "a time of the SA database is negative, or reg-await-auth is zero");
    }
    return std::unique_ptr<SaDatabase>(
        new SaDatabase(std::move(config), backend, timers, random, std::move(*ports)));
}

SaDatabase::SaDatabase(DatabaseConfig config, Backend& backend, TimerWheel& timers, Random& random,
                       PortAllocator ports)
    : config_(std::move(config)),
      backend_(backend),
      timers_(timers),
      random_(random),
      spis_(timers.clock(), SpiAllocator::Config{config_.first_spi_slot, config_.spi_slots,
                                                 config_.timers.spi_quarantine}),
      ports_(std::move(ports)),
      hash_(random),
      labels_(timers.clock(), config_.timers.label_quarantine, 2 * config_.limits.max_sets),
      by_slot_(spis_.capacity()) {
    flush_timer_.bind<&SaDatabase::on_flush_timer>(this);
}

SaDatabase::~SaDatabase() {
    observers_.clear();
    listeners_.clear();
    remove_all(Event::shutdown);
}

void SaDatabase::add_observer(SetObserver& observer) {
    observers_.push_back(&observer);
}
void SaDatabase::add_listener(ChangeListener& listener) {
    listeners_.push_back(&listener);
}

Result<void> SaDatabase::check_ue(std::string_view impi, const IpAddress& ue, Spi spi_uc,
                                  Spi spi_us, Port port_uc, Port port_us,
                                  const std::optional<IpAddress>& nat_inner) const {
    if (auto ok = check_numbers(spi_uc, spi_us, port_uc, port_us); !ok) return ok;
    if (!ports_in_use(impi, ue, port_uc, port_us, nat_inner)) return {};
    return fail(ErrorKind::conflict,
                fmt::format("the UE's protected client port {} is in use already at {}", port_uc,
                            ue.to_string()));
}

bool SaDatabase::gives_way(const SaSet& holder, std::string_view impi, bool behind_nat) const {
    if (!own_labels() || !holder.nat || holder.sm1_set != 0 || completed(holder)) return false;
    if (!behind_nat) return true;
    const User* user = find_by_impi(impi);
    return user != nullptr && std::ranges::any_of(user->sets, [&](SetId id) {
               const SaSet* s = find(id);
               return s != nullptr && completed(*s) && s->ue == holder.ue;
           });
}

bool SaDatabase::server_port_in_use(std::string_view impi, const IpAddress& ue,
                                    Port port_us) const {
    return by_server_.find(client_hash(ue, port_us), [&](std::uint32_t position) {
        const SaSet* s = sets_.at(position);
        if (s == nullptr || s->ue != ue || s->numbers.port_us != port_us) return false;
        const User* owner = find_user(s->user);
        return (owner == nullptr || owner->impi() != impi) && !gives_way(*s, impi, true);
    });
}

bool SaDatabase::ports_in_use(std::string_view impi, const IpAddress& ue, Port port_uc,
                              Port port_us, const std::optional<IpAddress>& nat_inner) const {
    const bool own = nat_inner && own_labels();
    if (own && server_port_in_use(impi, *nat_inner, port_us)) return true;
    if (nat_inner && !own) {
        // Others behind the same NAT count their ports for themselves.
        const User* user = find_by_impi(impi);
        return user != nullptr && std::ranges::any_of(user->sets, [&](SetId id) {
                   const SaSet* s = find(id);
                   return s != nullptr && completed(*s) && s->ue == ue && s->nat &&
                          s->nat->inner == *nat_inner && s->nat->port_uc == port_uc;
               });
    }
    const SaSet* holder = find_by_client(own ? *nat_inner : ue, port_uc);
    if (holder == nullptr || gives_way(*holder, impi, own)) return false;
    const User* owner = find_user(holder->user);
    // A set of an incomplete procedure will be replaced (B3).
    return completed(*holder) || owner == nullptr || owner->impi() != impi;
}

// At random, whatever the phone's own are: a label must not go from one subscriber to another
// behind the same NAT because their phones have the same fixed ports.
Port SaDatabase::draw_label_port(const IpAddress& ue, Port other) {
    constexpr std::uint32_t first = 1024;
    constexpr std::uint32_t ports = 65536 - first;
    constexpr unsigned tries = 64;
    for (unsigned i = 0; i < tries; ++i) {
        const auto port = static_cast<Port>(first + random_.below(ports));
        if (port != other && !is_forbidden_protected_port(port) &&
            find_by_client(ue, port) == nullptr && !labels_.holds(client_hash(ue, port))) {
            return port;
        }
    }
    return 0;
}

Endpoint SaDatabase::nat_outer(const ReserveRequest& r) const {
    const SaSet* old = r.sm1_set == 0 ? nullptr : find(r.sm1_set);
    if (old == nullptr || !old->nat) return {r.ue, 0};
    const Endpoint now = nat_endpoint(r.sm1_set);
    return now.port != 0 ? now : old->nat->outer;
}

// Whoever holds these ports, and gives way to this request, goes.
void SaDatabase::make_way(const ReserveRequest& r, bool behind_nat) {
    if (!own_labels()) return;
    std::vector<SetId> going;
    if (const SaSet* s = find_by_client(r.ue, r.port_uc);
        s != nullptr && gives_way(*s, r.impi, behind_nat)) {
        going.push_back(s->id);
    }
    by_server_.find(client_hash(r.ue, r.port_us), [&](std::uint32_t position) {
        const SaSet* s = sets_.at(position);
        if (s != nullptr && s->ue == r.ue && s->numbers.port_us == r.port_us &&
            gives_way(*s, r.impi, behind_nat)) {
            going.push_back(s->id);
        }
        return false;
    });
    for (const SetId id : going) {
        if (SaSet* s = live(id)) (void)apply_to(*s, Event::superseded);
    }
}

Result<SetId> SaDatabase::reserve(const ReserveRequest& asked) {
    ReserveRequest r = asked;
    std::optional<NatTraversal> nat;
    if (r.nat_inner) nat = NatTraversal{*r.nat_inner, r.port_uc, r.port_us};
    const bool own = nat && own_labels();
    if (own) {
        nat->outer = nat_outer(r);
        r.ue = *r.nat_inner;
        r.nat_inner.reset();
    }
    const Batch batch(*this);
    const auto refuse = [this](Error error) {
        stats_.reserve_refused.add();
        return std::unexpected<Error>(std::move(error));
    };
    if (r.impi.empty() || r.impi.size() > PackedStrings::max_octets || r.ck == nullptr ||
        r.ik == nullptr) {
        return refuse({ErrorKind::invalid, "a set needs a private identity and keys"});
    }
    if (!is_valid(r.suite)) return refuse({ErrorKind::unsupported, "no such pair of algorithms"});
    if (auto ok = check_numbers(r.spi_uc, r.spi_us, r.port_uc, r.port_us); !ok)
        return refuse(ok.error());
    if (r.sm1_set != 0) {
        const SaSet* old = find(r.sm1_set);
        const User* owner = old == nullptr ? nullptr : find_user(old->user);
        if (owner == nullptr || owner->impi() != r.impi ||
            (old->state != State::established && old->state != State::draining)) {
            return refuse({ErrorKind::not_found,
                           "the set SM1 came on is none of this user's completed ones"});
        }
    }

    // B3: the challenge voids what an earlier procedure left.
    if (const User* known = find_by_impi(r.impi)) apply_to_all(known->id, Event::superseded);
    make_way(r, own);

    bool in_use = false;
    if (r.nat_inner) {
        in_use = ports_in_use(r.impi, r.ue, r.port_uc, r.port_us, r.nat_inner);
    } else if (own) {
        in_use = find_by_client(r.ue, r.port_uc) != nullptr || rests(r.ue, r.port_uc, r.impi) ||
                 server_port_in_use(r.impi, r.ue, r.port_us) || rests(r.ue, r.port_us, r.impi);
    } else {
        in_use = find_by_client(r.ue, r.port_uc) != nullptr ||
                 (!own_labels() && rests(r.ue, r.port_uc, r.impi));
    }
    Port port_uc = r.port_uc;
    Port port_us = r.port_us;
    if (r.nat_inner && !in_use) {
        port_uc = draw_label_port(r.ue);
        port_us = draw_label_port(r.ue, port_uc);
    }
    if (in_use || port_uc == 0 || port_us == 0) {
        return refuse({ErrorKind::conflict,
                       fmt::format("the UE's protected client port {} is in use already at {}",
                                   r.port_uc, r.ue.to_string())});
    }
    if (sets_.size() >= config_.limits.max_sets)
        return refuse({ErrorKind::exhausted, "the limit of SA sets is reached"});
    // S3: strangers may hold only so many; a UE that comes on an SA of its own is none.
    if (r.sm1_set == 0 && incomplete() >= config_.limits.max_registration_sets) {
        return refuse({ErrorKind::exhausted, "the limit of incomplete registrations is reached"});
    }

    User* user = user_for(r.impi);
    if (user == nullptr) return refuse({ErrorKind::exhausted, "the limit of users is reached"});
    const auto refuse_user = [&](Error error) {
        drop_user_if_idle(user->id);
        return refuse(std::move(error));
    };
    const auto place = std::ranges::find(user->sets, SetId{0});
    if (place == user->sets.end()) {
        return refuse_user({ErrorKind::exhausted, "the user has six SAs per direction already"});
    }
    const std::uint64_t ue_hash = hash_of_ue(r.ue);
    // Labels that phones named themselves are nobody's else to keep from a phone that is there.
    const bool us_rests = !own_labels() && rests(r.ue, port_us, r.impi);
    const auto pc = ports_.port_pc(user->last_port_pc, ue_hash, [&](Port port) {
        return find_by_tuple(r.ue, port_us, port) != nullptr || us_rests;
    });
    if (!pc) return refuse_user(pc.error());
    const auto spis = spis_.allocate_pair(backend_.owner_of(r.ue, r.ours), r.spi_uc, r.spi_us);
    if (!spis) return refuse_user(spis.error());

    SetId id = 0;
    SaSet* set = sets_.create(id);
    if (set == nullptr) {
        spis_.release(spis->first);
        spis_.release(spis->second);
        return refuse_user({ErrorKind::exhausted, "the limit of SA sets is reached"});
    }
    if (user->port_ps == 0) user->port_ps = ports_.port_ps(ue_hash);
    set->id = id;
    set->user = user->id;
    set->sm1_set = r.sm1_set;
    set->tag = r.tag;
    set->ue = r.ue;
    set->ours = r.ours;
    set->numbers = SaNumbers{r.spi_uc, r.spi_us, spis->first, spis->second,
                             port_uc,  port_us,  *pc,         user->port_ps};
    set->nat = nat;
    set->suite = r.suite;
    set->created = clock().now();
    set->keys = make_secret<SetKeys>();
    set->keys->ck = r.ck->copy();
    set->keys->ik = r.ik->copy();
    set->database = this;
    set->timer.bind(&SaDatabase::on_timer, set);
    timers_.start(set->timer,
                  config_.timers.reg_await_auth);  // even a forgotten reservation ends (C5)
    *place = id;
    index_set(*set);
    stats_.sets[static_cast<std::size_t>(State::reserved)].add(1);
    stats_.reserved.add();
    return id;
}

Result<void> SaDatabase::install(SetId id) {
    return apply(id, Event::challenge);
}

Result<void> SaDatabase::establish(SetId id, const EstablishRequest& request) {
    const Batch batch(*this);
    SaSet* set = live(id);
    if (set == nullptr) return fail(ErrorKind::not_found, "no such SA set");
    if (set->state != State::registration)
        return apply_to(*set, Event::auth_ok);  // refuses, and counts it
    User& user = *users_.find(set->user);
    if (auto ok = store_texts(user, request); !ok) return ok;

    const TimePoint now = clock().now();
    const Duration granted = clamp_expiry(request.granted);
    set->lifetime_end = now + granted + config_.timers.lifetime_grace;
    for (const SetId other_id : user.sets) {
        const SaSet* other = find(other_id);
        if (other == nullptr || other == set) continue;
        if (other->state == State::established || other->state == State::draining) {
            set->lifetime_end =
                std::max(set->lifetime_end, other->lifetime_end);  // B5: never decreased
        }
    }
    set->established_at = now;
    user.expires = now + granted;
    user.last_port_pc = set->numbers.port_pc;
    const UserId user_id = user.id;
    const SetId kept = set->sm1_set;
    const IpAddress ue = set->ue;
    stats_.established.add();
    if (auto ok = apply_to(*set, Event::auth_ok); !ok) return ok;
    publish(ChangeKind::user_changed, 0, user_id);

    // What goes now: everything at another address (D5), everything if SM1 came in clear (D1), else
    // all but its set (D2).
    const User* still = find_user(user_id);
    if (still == nullptr) return {};
    const auto sets = still->sets;
    for (const SetId other_id : sets) {
        SaSet* other = live(other_id);
        if (other == nullptr || other_id == id) continue;
        if (other->ue != ue) {
            (void)apply_to(*other, Event::address_changed);
        } else if (kept == 0) {
            (void)apply_to(*other, Event::replaced_unprotected);
        } else if (other_id != kept) {
            (void)apply_to(*other, Event::replaced_protected);
        }
    }
    return {};
}

Result<void> SaDatabase::refresh(SetId id, const EstablishRequest& request) {
    const Batch batch(*this);
    SaSet* set = live(id);
    if (set == nullptr) return fail(ErrorKind::not_found, "no such SA set");
    User& user = *users_.find(set->user);
    // It came on a set that is being left: the set in use is the newer one.
    if (set->state == State::draining) {
        if (const SaSet* n = newest(user, State::established)) set = live(n->id);
    }
    if (transition(set->state, Event::refreshed).verdict == Verdict::illegal)
        return apply_to(*set, Event::refreshed);
    if (auto ok = store_texts(user, request); !ok) return ok;
    const TimePoint now = clock().now();
    const Duration granted = clamp_expiry(request.granted);
    user.expires = now + granted;
    set->lifetime_end = std::max(set->lifetime_end, now + granted + config_.timers.lifetime_grace);
    publish(ChangeKind::user_changed, 0, user.id);
    return apply_to(*set, Event::refreshed);
}

void SaDatabase::note_use(SetId id) {
    SaSet* set = live(id);
    if (set == nullptr || (set->used && set->state == State::established)) return;
    const Batch batch(*this);
    if (!apply_to(*set, Event::in_use) || set->state != State::established) return;
    set->used = true;
    const auto sets = users_.find(set->user)->sets;
    for (const SetId other_id : sets) {
        SaSet* other = live(other_id);
        // Ids count up (sa/pool.h): only what is older is left, never the set that is to come after
        // this one.
        if (other == nullptr || other_id >> 24U >= id >> 24U || other->state != State::established)
            continue;
        (void)apply_to(*other, Event::switched_away);
    }
}

Result<void> SaDatabase::deregister(UserId id, bool let_last_message_out) {
    const Batch batch(*this);
    User* user = users_.find(id);
    if (user == nullptr) return fail(ErrorKind::not_found, "no such user");
    unindex_impus(*user);
    const std::string impi(user->impi());
    const std::array<std::string_view, 1> only{impi};
    user->texts = std::move(*PackedStrings::pack(only));
    user->expires = TimePoint{};
    publish(ChangeKind::user_changed, 0, id);
    apply_to_all(id, let_last_message_out ? Event::deregistering : Event::deregistered);
    return {};
}

void SaDatabase::remove_user(UserId user, Event reason) {
    const Batch batch(*this);
    apply_to_all(user, reason);
}

void SaDatabase::remove_all(Event reason) {
    const Batch batch(*this);
    for (std::uint32_t i = 0; i < sets_.end(); ++i) {
        if (SaSet* set = sets_.at(i); set != nullptr && set->state != State::removed)
            (void)apply_to(*set, reason);
    }
}

User* SaDatabase::user_for(std::string_view impi) {
    if (const User* known = find_by_impi(impi)) return users_.find(known->id);
    const std::array<std::string_view, 1> texts{impi};
    auto packed = PackedStrings::pack(texts);
    if (!packed) return nullptr;
    UserId id = 0;
    User* user = users_.create(id);
    if (user == nullptr) return nullptr;
    user->id = id;
    user->texts = std::move(*packed);
    by_impi_.insert(hash_(impi), Pool<User>::position(id));
    stats_.users.add(1);
    return user;
}

void SaDatabase::drop_user_if_idle(UserId id) {
    User* user = users_.find(id);
    if (user == nullptr || user->set_count() != 0) return;
    const bool announced = user->announced;
    unindex_impus(*user);
    by_impi_.erase(hash_(user->impi()), Pool<User>::position(id));
    users_.destroy(id);
    stats_.users.add(-1);
    if (announced) publish(ChangeKind::user_removed, 0, id);
}

Result<void> SaDatabase::store_texts(User& user, const EstablishRequest& request) {
    if (request.impus.empty())
        return fail(ErrorKind::invalid, "a registration needs a public identity");
    if (request.impus.size() > config_.limits.max_impus_per_user) {
        return fail(ErrorKind::exhausted,
                    fmt::format("{} public identities are more than the limit of {}",
                                request.impus.size(), config_.limits.max_impus_per_user));
    }
    const std::string impi(user.impi());
    std::vector<std::string_view> texts{impi, request.service_route, request.p_associated_uri,
                                        request.contact};
    for (const std::string_view impu : request.impus) {  // each once, in the given order
        if (std::find(texts.begin() + User::text_first_impu, texts.end(), impu) == texts.end())
            texts.push_back(impu);
    }
    std::size_t octets = 0;
    for (const std::string_view t : texts) octets += t.size();
    if (octets > config_.limits.max_text_octets) {
        return fail(ErrorKind::exhausted,
                    fmt::format("{} octets of identities and routes are more than the limit of {}",
                                octets, config_.limits.max_text_octets));
    }
    auto packed = PackedStrings::pack(texts);
    if (!packed) return std::unexpected(packed.error());
    unindex_impus(user);
    user.texts = std::move(*packed);
    index_impus(user);
    return {};
}

}  // namespace gmgate::sa
