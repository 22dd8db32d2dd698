// What the backend learns from the kernel: counters, events, and what others changed.

#include <fmt/core.h>
#include <linux/xfrm.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "sa/kernel/backend_impl.h"
#include "sa/kernel/errors.h"
#include "sa/kernel/host.h"
#include "sa/kernel/policies.h"

namespace gmgate::kernel {

namespace {

constexpr const char* area = "kernel";
constexpr std::size_t sets_a_poll = 256;
constexpr std::size_t fresh_a_poll = 192;
constexpr std::size_t messages_a_drain = 1024;  // then the loop gets its turn
constexpr Duration poll_interval = std::chrono::seconds(1);
constexpr Duration tell_interval = std::chrono::seconds(10);
// Reading the policies: at once after a change, but not for each of a key daemon's thousands; and
// from time to time, since the host's switches tell nobody.
constexpr Duration least_guard_interval = std::chrono::seconds(1);
constexpr Duration guard_interval = std::chrono::seconds(10);
constexpr Duration least_resync_interval = std::chrono::seconds(10);  // it reads all states
// From so many on, and where they are a good part of all, one dump is cheaper than asking.
constexpr std::size_t worth_a_dump = 2048;

void add_up(sa::SetStats& total, const State& s, bool inbound) {
    if (inbound) {
        total.in_packets += s.packets;
        total.in_bytes += s.bytes;
        total.integrity_failures += s.integrity_failures;
        total.replays += s.replays;
    } else {
        total.out_packets += s.packets;
        total.out_bytes += s.bytes;
        total.highest_out_sequence = std::max(total.highest_out_sequence, s.out_sequence);
    }
}

// The kernel has one policy in a place: whoever puts one there takes away what was there.
bool replaces(const Policy& found, const Policy& ours) {
    return found.direction == ours.direction && found.selector == ours.selector &&
           found.main_type && !found.on_socket && !found.conditional;
}

}  // namespace

void KernelBackend::Impl::query(std::span<const StateId> ids,
                                const std::function<void(std::size_t, const State&)>& found,
                                const std::function<void(std::size_t)>& absent) const {
    for (std::size_t first = 0; first < ids.size(); first += Requests::largest_query) {
        const auto part = ids.subspan(first, std::min(ids.size() - first, Requests::largest_query));
        Encoder& batch = requests.begin();
        for (const StateId& id : part) batch.get_state(id);
        const auto outcomes = requests.run([&](std::size_t n, const MessageView& m) {
            if (const auto s = parse_state(m.payload)) found(first + n, *s);
        });
        for (std::size_t n = 0; n < outcomes.size(); ++n) {
            if (outcomes[n].error == ESRCH) absent(first + n);
        }
    }
}

// Kernels from 6.2 on say when a state was last used; with older ones the time at which the count
// was seen to have grown has to do.
void KernelBackend::Impl::note_use(Entry& e, const State& s, std::uint64_t in_packets) const {
    if (s.last_used != 0) {
        const auto ago = std::chrono::floor<std::chrono::seconds>(clock.wall()).time_since_epoch() -
                         std::chrono::seconds(s.last_used);
        e.last_use = std::max(e.last_use, clock.now() - std::max(Duration(ago), Duration::zero()));
    } else if (in_packets > e.in_packets) {
        e.last_use = clock.now();
    }
}

void KernelBackend::stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> out) const {
    const Impl& i = *impl_;
    std::ranges::fill(out, sa::SetStats{});
    if (ids.size() >= worth_a_dump && ids.size() * 4 >= i.sets.size())
        i.read_all(ids, out);
    else
        i.read_some(ids, out);
    for (std::size_t n = 0; n < ids.size(); ++n) {
        const auto it = i.sets.find(ids[n]);
        if (it == i.sets.end()) continue;
        it->second.in_packets = std::max(it->second.in_packets, out[n].in_packets);
        out[n].last_use = it->second.last_use;
        if (const NatPath* nat = it->second.nat.get()) {
            out[n].out_packets += nat->earlier_packets;
            out[n].out_bytes += nat->earlier_bytes;
            if (nat->learnt || out[n].in_packets != 0) out[n].nat_endpoint = nat->outer;
        }
    }
}

void KernelBackend::Impl::read_some(std::span<const sa::SetId> ids,
                                    std::span<sa::SetStats> out) const {
    std::vector<StateId> wanted;
    std::vector<std::size_t> index;  // of ids
    for (std::size_t n = 0; n < ids.size(); ++n) {
        const auto it = sets.find(ids[n]);
        if (it == sets.end()) continue;
        for (const StateId& s : it->second.ids()) {
            wanted.push_back(s);
            index.push_back(n);
        }
    }
    query(
        wanted,
        [&](std::size_t w, const State& s) {
            Entry& e = sets.find(ids[index[w]])->second;
            const bool inbound = is_inbound(w % states_per_set);
            add_up(out[index[w]], s, inbound);
            if (inbound) note_use(e, s, out[index[w]].in_packets);
        },
        [&](std::size_t w) { lost(sets.find(ids[index[w]])->second); });
}

void KernelBackend::Impl::read_all(std::span<const sa::SetId> ids,
                                   std::span<sa::SetStats> out) const {
    std::unordered_map<sa::SetId, std::size_t> index;
    for (std::size_t n = 0; n < ids.size(); ++n) index.emplace(ids[n], n);
    requests.begin().dump_states();
    const Outcome o = requests.dump(
        [&] { std::ranges::fill(out, sa::SetStats{}); },
        [&](const MessageView& m) {
            const auto s = m.type == XFRM_MSG_NEWSA ? parse_state(m.payload) : std::nullopt;
            if (!s || s->reqid != options.reqid) return;
            const auto owner = states.find(s->id);
            if (owner == states.end()) return;
            const auto place = index.find(owner->second);
            if (place == index.end()) return;
            Entry& e = sets.find(owner->second)->second;
            sa::SetStats& total = out[place->second];
            const bool inbound = s->id.destination == e.ours;
            add_up(total, *s, inbound);
            if (inbound) note_use(e, *s, total.in_packets);
        });
    if (o.error != 0) log::warn(area, "{}", to_error("cannot read the kernel's states", o).text);
}

int KernelBackend::event_fd() const {
    return impl_->epoll.get();
}

void KernelBackend::drain_events(const std::function<void(const sa::BackendEvent&)>& handle) {
    Impl& i = *impl_;
    std::vector<sa::BackendEvent> out;
    std::uint64_t ticks = 0;
    (void)!::read(i.timer.get(), &ticks, sizeof ticks);  // only wakes us: the clock decides
    i.read_events(out);
    const TimePoint now = i.clock.now();
    if (i.resync_wanted &&
        (i.resynced == TimePoint{} || now - i.resynced >= least_resync_interval)) {
        i.resync_wanted = false;
        i.resynced = now;
        i.resync(out);
    }
    if (now - i.guarded >= (i.policies_changed ? least_guard_interval : guard_interval)) i.guard();
    if (now >= i.next_poll) {
        i.next_poll = now + poll_interval;
        i.retry_deletions();
        i.read_nat_sockets();
        i.follow_waiting();
        i.poll_sets(out);
    }
    // Last: who is told may call us.
    for (const sa::BackendEvent& e : out) {
        if (i.sets.contains(e.set)) handle(e);
    }
}

void KernelBackend::Impl::read_events(std::vector<sa::BackendEvent>& out) {
    if (!events) return;
    bool overrun = false;
    for (std::size_t n = 0; n < messages_a_drain; ++n) {
        const Channel::Received r = events->receive(event_buffer.bytes());
        if (r.error == ENOBUFS) {
            overrun = true;
            continue;
        }
        if (r.size == 0) break;
        std::span<const std::uint8_t> octets = event_buffer.bytes().first(r.size);
        while (const auto m = next_message(octets)) on_message(*m, out);
        wipe(event_buffer.bytes().first(r.size));
    }
    if (overrun) {
        counters.overruns.add();
        resync_wanted = true;
        policies_changed = true;
    }
}

void KernelBackend::Impl::on_message(const MessageView& m, std::vector<sa::BackendEvent>& out) {
    switch (m.type) {
        case XFRM_MSG_EXPIRE: {
            const auto e = parse_expiry(m.payload);
            if (!e || e->state.reqid != options.reqid) return;
            const auto owner = states.find(e->state.id);
            if (owner == states.end()) return;
            Entry& entry = sets.find(owner->second)->second;
            if (entry.near_end) return;
            entry.near_end = true;
            counters.expired.add();
            const bool inbound = e->state.id.destination == entry.ours;
            out.push_back({sa::BackendEventKind::sequence_near_end, owner->second,
                           inbound ? e->state.id.spi : 0});
            return;
        }
        case XFRM_MSG_ACQUIRE: {
            const auto a = parse_acquire(m.payload);
            if (!a || a->reqid != options.reqid) return;
            counters.acquires.add();
            ++acquires_untold;
            if (acquire_told != TimePoint{} && clock.now() - acquire_told < tell_interval) return;
            log::warn(area,
                      "{} packets from protected ports had no SA and were not sent, the last from "
                      "port {} to {} port {}",
                      acquires_untold, a->packet.source_port, a->packet.destination.to_string(),
                      a->packet.destination_port);
            acquire_told = clock.now();
            acquires_untold = 0;
            return;
        }
        case XFRM_MSG_MAPPING:
            if (const auto mapping = parse_mapping(m.payload)) on_mapping(*mapping);
            return;
        case XFRM_MSG_NEWPOLICY:
        case XFRM_MSG_DELPOLICY:
        case XFRM_MSG_FLUSHPOLICY:
        case XFRM_MSG_UPDPOLICY:
        case XFRM_MSG_POLEXPIRE:
            policies_changed = true;
            return;
        default:
            return;
    }
}

Result<KernelBackend::Impl::Findings> KernelBackend::Impl::inspect() const {
    const auto found = read_policies();
    if (!found) return std::unexpected(found.error());
    Findings out;
    for (const Policy& p : policies) {
        if (std::ranges::none_of(*found, [&](const Policy& f) {
                return replaces(f, p) && f.reqid == p.reqid && f.block == p.block;
            })) {
            out.gone.push_back(p);
            std::ranges::copy_if(*found, std::back_inserter(out.instead),
                                 [&](const Policy& f) { return replaces(f, p); });
        }
    }
    out.bypass = conflict(policies, *found, options.reqid);
    if (!out.bypass && !options.interface.empty()) out.bypass = switched_off(options);
    return out;
}

// Whoever took our policies away opened the protected ports (A6): they are put back, also where
// another's are now. What comes before them is another's, and the operator's to remove.
void KernelBackend::Impl::guard() {
    guarded = clock.now();
    policies_changed = false;
    const auto found = inspect();
    if (!found) {
        log::error(area, "{}", found.error().text);
        return;
    }
    if (found->bypass && !bypass_told) log::warn(area, "{}", *found->bypass);
    if (!found->bypass && bypass_told)
        log::info(area, "nothing comes before our policies any more");
    bypass_told = found->bypass.has_value();
    counters.bypassed.set(bypass_told ? 1 : 0);
    if (found->gone.empty()) return;
    const std::size_t replaced = found->instead.size();
    if (replaced != 0) {
        log::error(area,
                   "another program replaced {} of our policies, such as by {}: ours take their "
                   "place again, theirs are lost; whoever has that reqid must leave the protected "
                   "ports alone",
                   replaced, to_string(found->instead.front()));
    }
    if (found->gone.size() > replaced) {
        log::error(area, "somebody removed {} of our policies, such as {}: they are put back",
                   found->gone.size() - replaced, to_string(found->gone.front()));
    }
    counters.policies_put.add(found->gone.size());
    if (auto r = put_policies(found->gone); !r) log::error(area, "{}", r.error().text);
    put_nat_policies();  // who took those took these too
}

void KernelBackend::Impl::lost(Entry& e) const {
    if (e.missing) return;
    e.missing = true;
    ++missing_sets;
    counters.missing.add();
    if (missing_told != TimePoint{} && clock.now() - missing_told < tell_interval) return;
    missing_told = clock.now();
    log::error(area,
               "somebody removed SAs of {} from the kernel ({} sets so far): such a phone must "
               "register anew",
               e.ue.to_string(), counters.missing.value());
}

void KernelBackend::Impl::poll_sets(std::vector<sa::BackendEvent>& out) {
    // Sets come faster than they are asked: those that are gone already must not pile up.
    if (fresh.size() > 2 * sets.size() + fresh_a_poll)
        std::erase_if(fresh, [&](sa::SetId id) { return !sets.contains(id); });
    std::vector<sa::SetId> ids;
    // Sets that wait for their first packet, the longest waiting first.
    const std::size_t waiting = std::min(fresh.size(), fresh_a_poll);
    for (std::size_t n = 0; n < waiting; ++n) {
        const sa::SetId id = fresh.front();
        fresh.pop_front();
        const auto it = sets.find(id);
        if (it == sets.end() || it->second.seen || it->second.missing) continue;
        ids.push_back(id);
        fresh.push_back(id);
    }
    const std::size_t others = std::min(sets_a_poll - ids.size(), order.size());
    for (std::size_t n = 0; n < others; ++n) {
        if (next >= order.size()) next = 0;
        const sa::SetId id = order[next++];
        if (sets.find(id)->second.seen) ids.push_back(id);
    }
    poll(ids, out);
}

void KernelBackend::Impl::poll(std::span<const sa::SetId> ids, std::vector<sa::BackendEvent>& out) {
    struct Seen {
        std::uint64_t packets = 0;
        std::uint64_t failures = 0;
        sa::Spi used = 0;
        sa::Spi failed = 0;
        sa::Spi ending = 0;
    };
    std::vector<StateId> wanted;
    std::vector<Seen> seen(ids.size());
    for (const sa::SetId id : ids) {
        const Entry& e = sets.find(id)->second;
        const auto four = e.ids();
        wanted.push_back(four[in_ps]);
        wanted.push_back(four[in_pc]);
    }
    query(
        wanted,
        [&](std::size_t w, const State& s) {
            Seen& t = seen[w / 2];
            t.packets += s.packets;
            t.failures += s.integrity_failures;
            if (s.packets != 0 && t.used == 0) t.used = s.id.spi;
            if (s.integrity_failures != 0) t.failed = s.id.spi;
            if (s.in_sequence >= sequence_near_end) t.ending = s.id.spi;
            note_use(sets.find(ids[w / 2])->second, s, t.packets);
        },
        [&](std::size_t w) { lost(sets.find(ids[w / 2])->second); });
    for (std::size_t n = 0; n < ids.size(); ++n) {
        Entry& e = sets.find(ids[n])->second;
        const Seen& t = seen[n];
        if (t.used != 0 && !e.seen) {
            e.seen = true;
            out.push_back({sa::BackendEventKind::first_authentic_packet, ids[n], t.used});
        }
        if (t.failures > e.failures &&
            (e.last_failure == TimePoint{} || clock.now() - e.last_failure >= poll_interval)) {
            e.failures = t.failures;
            e.last_failure = clock.now();
            out.push_back({sa::BackendEventKind::integrity_failure, ids[n], t.failed});
        }
        if (t.ending != 0 && !e.near_end) {
            e.near_end = true;
            counters.expired.add();
            out.push_back({sa::BackendEventKind::sequence_near_end, ids[n], t.ending});
        }
        e.in_packets = std::max(e.in_packets, t.packets);
    }
}

// An EXPIRE may be among what was lost.
void KernelBackend::Impl::resync(std::vector<sa::BackendEvent>& out) {
    log::warn(area,
              "the kernel's events came faster than they were read; its tables are read anew");
    std::unordered_map<sa::SetId, sa::Spi> ending;
    requests.begin().dump_states();
    const Outcome o = requests.dump(
        [&] { ending.clear(); },
        [&](const MessageView& m) {
            const auto s = m.type == XFRM_MSG_NEWSA ? parse_state(m.payload) : std::nullopt;
            if (!s || s->reqid != options.reqid) return;
            const auto owner = states.find(s->id);
            if (owner == states.end()) return;
            const bool inbound = s->id.destination == sets.find(owner->second)->second.ours;
            const std::uint32_t sequence = inbound ? s->in_sequence : s->out_sequence;
            if (sequence >= sequence_near_end || s->packets >= s->soft_packets)
                ending.emplace(owner->second, inbound ? s->id.spi : 0);
        });
    if (o.error != 0) log::warn(area, "{}", to_error("cannot read the kernel's states", o).text);
    for (const auto& [id, spi] : ending) {
        Entry& e = sets.find(id)->second;
        if (e.near_end) continue;
        e.near_end = true;
        counters.expired.add();
        out.push_back({sa::BackendEventKind::sequence_near_end, id, spi});
    }
}

sa::LayerHealth KernelBackend::health() const {
    const Impl& i = *impl_;
    const auto found = i.inspect();
    if (!found) return {false, found.error().text};
    if (!found->instead.empty()) {
        return {false, fmt::format("another program replaced our policy by {}: find out whose "
                                   "reqid that is; ours comes back by itself",
                                   to_string(found->instead.front()))};
    }
    if (!found->gone.empty()) {
        return {false, fmt::format("policy {} is gone from the kernel: restart gmgated",
                                   to_string(found->gone.front()))};
    }
    if (found->bypass) return {false, *found->bypass};
    if (!i.staying.empty()) {
        return {false, fmt::format("the kernel does not let go of {} states of removed sets; it is "
                                   "asked again each second",
                                   i.staying.size())};
    }
    // Until these phones have registered anew, or their time is over.
    if (i.missing_sets != 0) {
        return {false, fmt::format("somebody removed SAs of {} sets from the kernel; find out who "
                                   "('ip xfrm monitor')",
                                   i.missing_sets)};
    }
    return {true, "ok"};
}

}  // namespace gmgate::kernel
