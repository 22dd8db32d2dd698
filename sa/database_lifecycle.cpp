// The engine: executes the lifecycle table.

#include <algorithm>
#include <utility>

#include "sa/database.h"
#include "sa/database_batch.h"

namespace gmgate::sa {

namespace {
// So many removals of timed-out sets wait for one grace period at most.
constexpr std::size_t largest_removal = 64;
}  // namespace

Result<void> SaDatabase::apply(SetId id, Event event) {
    const Batch batch(*this);
    SaSet* set = live(id);
    if (set == nullptr) return fail(ErrorKind::not_found, "no such SA set");
    return apply_to(*set, event);
}

Result<void> SaDatabase::apply_to(SaSet& set, Event event) {
    const Transition& t = transition(set.state, event);
    if (t.verdict == Verdict::illegal) {
        stats_.illegal_events.add();
        return fail(ErrorKind::conflict, std::string(name(event)) + " is illegal in state " +
                                             std::string(name(set.state)));
    }
    if (t.verdict == Verdict::stay) return {};
    if (t.next == State::removed) {
        run_removal(set, t, event);
        return {};
    }

    const State from = set.state;
    set.state = t.next;
    stats_.sets[static_cast<std::size_t>(from)].add(-1);
    stats_.sets[static_cast<std::size_t>(t.next)].add(1);
    if ((t.actions & start_reg_await) != 0) timers_.start(set.timer, config_.timers.reg_await_auth);
    if ((t.actions & start_lifetime) != 0) timers_.start_at(set.timer, set.lifetime_end);
    if ((t.actions & start_drain) != 0) {
        timers_.start_at(set.timer,
                         std::min(set.lifetime_end, clock().now() + config_.timers.drain));
    }
    const SetId id = set.id;
    if ((t.actions & sa::publish) != 0) publish(ChangeKind::set_changed, id, set.user);
    if (from != t.next) {
        for (std::size_t i = 0; i < observers_.size(); ++i) {
            // An observer may have removed it.
            if (const SaSet* still = find(id); still != nullptr)
                observers_[i]->on_set_state(*still, from);
        }
    }
    if ((t.actions & sa::install) != 0) {
        SaSet* still = live(id);
        if (still == nullptr || still->state != State::installing) {
            return fail(ErrorKind::conflict, "the SA set went while it was to be installed");
        }
        return run_install(*still, Event::install_ok);
    }
    return {};
}

// B2, C12: all four SAs are live afterwards, or nothing of the set is left.
Result<void> SaDatabase::run_install(SaSet& set, Event on_success) {
    flush_removals();  // the packet layer may still hold a slot or selector we have given away
    auto installed = backend_.install(set.params());
    if (!installed) {
        stats_.install_failed.add();
        (void)apply_to(set, Event::install_failed);
        return installed;
    }
    return apply_to(set, on_success);
}

void SaDatabase::run_removal(SaSet& set, const Transition& t, Event reason) {
    const SetId id = set.id;
    const UserId user_id = set.user;
    stats_.sets[static_cast<std::size_t>(set.state)].add(-1);
    stats_.removed[static_cast<std::size_t>(reason)].add();
    set.state = State::removed;

    if ((t.actions & stop_timer) != 0) set.timer.stop();
    if ((t.actions & remove_backend) != 0) queue_removal(id);
    unindex_set(set);  // release_ports: the tuples are free
    // Labels not at once: somebody may still send to them. With one of the phone's own the user
    // may have it again at once; and who named one and did not prove who he is takes it from
    // nobody.
    const bool own = set.nat && set.nat->inner == set.ue;
    if (set.nat && (t.actions & remove_backend) != 0 &&
        (!own || set.established_at != TimePoint{})) {
        const User* user = own ? find_user(user_id) : nullptr;
        const std::uint64_t owner = user == nullptr ? 0 : hash_(user->impi());
        labels_.add(client_hash(set.ue, set.numbers.port_uc), owner);
        labels_.add(client_hash(set.ue, set.numbers.port_us), owner);
    }
    if ((t.actions & release_spis) != 0) {
        spis_.release(set.numbers.spi_pc);
        spis_.release(set.numbers.spi_ps);
    }
    if ((t.actions & wipe_keys) != 0) set.keys.reset();
    User& user = *users_.find(user_id);
    for (SetId& place : user.sets) {
        if (place == id) place = 0;
    }

    for (std::size_t i = 0; i < observers_.size(); ++i) {
        // An observer may start a new procedure of the same user: then the user stays, else it goes
        // below.
        observers_[i]->on_set_removed(set, *users_.find(user_id), reason);
        if (users_.find(user_id) == nullptr) break;
    }
    sets_.destroy(id);
    if ((t.actions & sa::publish) != 0) publish(ChangeKind::set_removed, id, user_id);
    drop_user_if_idle(user_id);
}

void SaDatabase::apply_to_all(UserId user, Event event) {
    const User* u = find_user(user);
    if (u == nullptr) return;
    const auto ids = u->sets;  // the user may go with its last set
    for (const SetId id : ids) {
        if (SaSet* set = live(id)) (void)apply_to(*set, event);
    }
}

void SaDatabase::on_timer(void* set) {
    auto& s = *static_cast<SaSet*>(set);
    s.database->on_timeout(s);
}

// Many sets time out in one round of the loop: their removals share a grace period, at the next
// tick.
void SaDatabase::on_timeout(SaSet& set) {
    ++batch_depth_;
    switch (set.state) {
        case State::established:
            (void)apply_to(set, Event::lifetime_expired);
            break;
        case State::draining:
            (void)apply_to(set, clock().now() >= set.lifetime_end ? Event::lifetime_expired
                                                                  : Event::drain_timeout);
            break;
        default:
            (void)apply_to(set, Event::reg_await_timeout);
            break;
    }
    --batch_depth_;
    if (removals_.size() >= largest_removal) {
        flush_removals();
    } else if (!removals_.empty() && !flush_timer_.active()) {
        timers_.start(flush_timer_, Duration::zero());
    }
}

void SaDatabase::queue_removal(SetId id) {
    removals_.push_back(id);
}

void SaDatabase::flush_removals() {
    flush_timer_.stop();
    if (removals_.empty()) return;
    std::vector<SetId> ids;
    std::swap(ids, removals_);
    backend_.remove(ids);
    if (removals_.empty()) {  // keep the memory
        ids.clear();
        std::swap(ids, removals_);
    }
}

void SaDatabase::poll_backend() {
    const Batch batch(*this);
    backend_.drain_events([this](const BackendEvent& event) {
        for (std::size_t i = 0; i < observers_.size(); ++i) {
            if (const SaSet* set = find(event.set)) observers_[i]->on_backend_event(*set, event);
        }
        SaSet* set = live(event.set);
        if (set == nullptr) return;  // it went while the event was on its way
        switch (event.kind) {
            case BackendEventKind::first_authentic_packet:
                break;
            case BackendEventKind::integrity_failure:
                (void)apply_to(*set, Event::integrity_failure);
                break;
            case BackendEventKind::sequence_near_end:
                (void)apply_to(*set, Event::sequence_near_end);
                break;
        }
    });
}

void SaDatabase::publish(ChangeKind kind, SetId set, UserId user) {
    if (User* u = users_.find(user)) u->announced = true;
    const Change change{++version_, kind, set, user};
    for (std::size_t i = 0; i < listeners_.size(); ++i) listeners_[i]->on_change(change);
}

std::size_t SaDatabase::incomplete() const {
    std::int64_t n = 0;
    for (const State s : {State::reserved, State::installing, State::registration}) {
        n += stats_.sets[static_cast<std::size_t>(s)].value();
    }
    return static_cast<std::size_t>(n);
}

}  // namespace gmgate::sa
