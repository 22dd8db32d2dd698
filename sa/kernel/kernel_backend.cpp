#include "sa/kernel/kernel_backend.h"

#include <fmt/core.h>
#include <linux/xfrm.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "sa/kernel/backend_impl.h"
#include "sa/kernel/errors.h"
#include "sa/kernel/host.h"
#include "sa/kernel/suites.h"

namespace gmgate::kernel {

namespace {

constexpr const char* area = "kernel";

std::array<Flow, 2> flows_of(const IpAddress& ue, const IpAddress& ours, const sa::SaNumbers& n) {
    return {{{ours, ue, n.port_ps, n.port_uc}, {ours, ue, n.port_pc, n.port_us}}};
}

// Where a phone behind a NAT is thought to be: the first authentic packet tells.
Endpoint outer_of(const sa::SetParams& p) {
    return {p.nat->outer.address, p.nat->outer.port != 0 ? p.nat->outer.port : nat_port};
}

// What a NIC says that cannot take this state.
bool is_offload_refusal(int error) {
    return error == EINVAL || error == EOPNOTSUPP || error == ENOSPC || error == EBUSY ||
           error == ENODEV;
}

}  // namespace

KernelBackend::Impl::Impl(const KernelOptions& o, const Clock& c,
                          std::unique_ptr<Channel> request_channel,
                          std::unique_ptr<Channel> event_channel)
    : options(o),
      clock(c),
      requests(std::move(request_channel)),
      events(std::move(event_channel)),
      event_buffer(receive_buffer_octets) {}

KernelBackend::Impl::~Impl() {
    std::vector<StateId> all(staying.begin(), staying.end());
    all.reserve(all.size() + states.size());
    for (const auto& [id, set] : states) all.push_back(id);
    delete_states(all, "at the end");
    std::vector<Policy> of_sets;
    for (const auto& [id, e] : sets)
        std::ranges::move(e.own_policies(options), std::back_inserter(of_sets));
    delete_policies(of_sets);
    delete_policies(policies);
}

// What all states of ours have in common.
void KernelBackend::Impl::dress(State& state, std::size_t position, bool with_offload) const {
    state.reqid = options.reqid;
    state.replay_window = options.replay_window;
    if (options.mark != 0) state.set_mark = options.mark;
    state.offload.reset();
    if (with_offload) {
        std::uint8_t flags = is_inbound(position) ? XFRM_OFFLOAD_INBOUND : 0;
        if (offload == Offload::packet) flags |= XFRM_OFFLOAD_PACKET;
        state.offload = OffloadDevice{device, flags};
    }
}

std::optional<Outcome> KernelBackend::Impl::try_add(std::span<const State> wanted) {
    Encoder& batch = requests.begin();
    for (const State& s : wanted) batch.add_state(s);
    std::vector<Outcome> outcomes;
    for (const Outcome& o : requests.run()) outcomes.push_back(o);
    const auto failed =
        std::ranges::find_if(outcomes, [](const Outcome& o) { return o.error != 0; });
    if (failed == outcomes.end()) return std::nullopt;

    // All or nothing (C12). A state whose answer is lost may be ours or, if the answer was "it
    // exists", somebody else's: it is looked at before it goes.
    std::vector<StateId> installed;
    std::vector<StateId> doubtful;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (outcomes[i].error == 0) installed.push_back(wanted[i].id);
        if (outcomes[i].unknown) doubtful.push_back(wanted[i].id);
    }
    query(
        doubtful,
        [&](std::size_t i, const State& s) {
            if (s.reqid == options.reqid) installed.push_back(doubtful[i]);
        },
        [](std::size_t) {});
    delete_states(installed, "of a set that failed half way");
    return *failed;
}

Result<void> KernelBackend::Impl::add(std::span<State> wanted, sa::Suite suite,
                                      std::string_view what) {
    // No NIC takes a state with encapsulation.
    const bool with_offload =
        offload != Offload::none && offloaded[sa::suite_index(suite)] && !wanted[0].encapsulation;
    for (std::size_t i = 0; i < wanted.size(); ++i) dress(wanted[i], i, with_offload);
    auto refused = try_add(wanted);
    // With `packet` the policies are in the NIC, and they do not find a state outside of it.
    const bool may_fall_back = offload == Offload::crypto && options.offload_fallback;
    if (refused && with_offload && may_fall_back && is_offload_refusal(refused->error)) {
        counters.offload_fallbacks.add();
        if (!offload_warned) {
            log::warn(area, "{} no longer takes SAs ({}): the CPU does ESP for those that follow",
                      options.device, to_error("offload", *refused).text);
            offload_warned = true;
        }
        for (std::size_t i = 0; i < wanted.size(); ++i) dress(wanted[i], i, false);
        refused = try_add(wanted);
    }
    if (!refused) return {};
    return std::unexpected(to_error(what, *refused, suite, wanted[0].selector.v6));
}

void KernelBackend::Impl::delete_states(std::span<const StateId> ids, const char* why) {
    while (!ids.empty()) {
        const auto part = ids.first(std::min(ids.size(), Requests::largest_batch));
        ids = ids.subspan(part.size());
        std::vector<StateId> again(part.begin(), part.end());
        for (int tries = 0; tries < 2 && !again.empty(); ++tries) {
            Encoder& batch = requests.begin();
            for (const StateId& id : again) batch.delete_state(id);
            const auto outcomes = requests.run();
            std::vector<StateId> lost_ones;
            for (std::size_t i = 0; i < outcomes.size(); ++i) {
                const Outcome& o = outcomes[i];
                if (o.unknown && tries == 0) {
                    lost_ones.push_back(again[i]);
                } else if (o.error != 0 && o.error != ESRCH) {
                    staying.push_back(again[i]);
                    if (why == nullptr) continue;
                    log::error(area, "state {} spi {:#x} {} stays in the kernel: {}",
                               again[i].destination.to_string(), again[i].spi, why,
                               to_error("removal", o).text);
                }
            }
            again = std::move(lost_ones);
        }
    }
}

void KernelBackend::Impl::retry_deletions() {
    if (staying.empty()) return;
    constexpr std::size_t at_a_time = 1024;  // whatever ails the kernel, phones wait
    const auto end =
        staying.begin() + static_cast<std::ptrdiff_t>(std::min(staying.size(), at_a_time));
    std::vector<StateId> ids(staying.begin(), end);
    staying.erase(staying.begin(), end);
    // One that was removed after all, its answer lost, may be another set's by now, or somebody
    // else's.
    std::erase_if(ids, [&](const StateId& id) { return states.contains(id); });
    std::vector<bool> known(ids.size());
    std::vector<StateId> ours;
    query(
        ids,
        [&](std::size_t i, const State& s) {
            known[i] = true;
            if (s.reqid == options.reqid) ours.push_back(ids[i]);
        },
        [&](std::size_t i) { known[i] = true; });
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (!known[i]) staying.push_back(ids[i]);
    delete_states(ours, nullptr);
    if (staying.empty()) log::info(area, "all states of removed sets are gone from the kernel");
}

// All four are there, left by an earlier run, and exactly as wanted: they go on as they are.
bool KernelBackend::Impl::adopt(std::span<const State> wanted) {
    std::vector<StateId> there;
    std::size_t equal = 0;
    for (const State& s : wanted) {
        const auto it = leftovers.find(s.id);
        if (it == leftovers.end()) continue;
        there.push_back(s.id);
        if (it->second == fingerprint(s)) ++equal;
    }
    for (const StateId& id : there) leftovers.erase(id);
    if (equal == wanted.size()) {
        counters.adopted.add();
        return true;
    }
    if (!there.empty()) {
        delete_states(there, "of an earlier run");
        counters.reconciled.add(there.size());
    }
    return false;
}

void KernelBackend::Impl::keep(const sa::SetParams& p) {
    Entry e;
    e.ue = p.ue;
    e.ours = p.ours;
    e.numbers = p.numbers;
    if (p.nat) {
        e.nat = std::make_unique<NatPath>();
        e.nat->outer = outer_of(p);
        e.nat->suite = p.suite;
        e.nat->keys = make_secret<sa::SetKeys>();
        e.nat->keys->ck = p.ck->copy();
        e.nat->keys->ik = p.ik->copy();
    }
    e.place = static_cast<std::uint32_t>(order.size());
    order.push_back(p.id);
    fresh.push_back(p.id);
    for (const StateId& id : e.ids()) states.emplace(id, p.id);
    for (const Flow& f : flows_of(p.ue, p.ours, p.numbers)) flows.insert(f);
    sets.emplace(p.id, std::move(e));
}

void KernelBackend::Impl::forget(sa::SetId id) {
    const auto it = sets.find(id);
    if (it == sets.end()) return;
    const Entry& e = it->second;
    for (const StateId& s : e.ids()) states.erase(s);
    for (const Flow& f : flows_of(e.ue, e.ours, e.numbers)) flows.erase(f);
    if (e.missing) --missing_sets;
    const sa::SetId last = order.back();
    order[e.place] = last;
    sets.find(last)->second.place = e.place;
    order.pop_back();
    sets.erase(it);
}

KernelBackend::KernelBackend(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KernelBackend::~KernelBackend() = default;

Result<std::unique_ptr<KernelBackend>> KernelBackend::create(const KernelOptions& options,
                                                             const Clock& clock) {
    if (!options.interface.empty()) {
        if (auto r = check_host(options); !r) return std::unexpected(r.error());
    }
    auto requests = open_requests();
    if (!requests) return std::unexpected(requests.error());
    auto events = open_events();
    if (!events) return std::unexpected(events.error());
    return create_on(options, clock, std::move(*requests), std::move(*events));
}

sa::NatLabels KernelBackend::nat_labels() const {
    return impl_->nat_sockets.empty() ? sa::NatLabels::none : sa::NatLabels::own;
}

Result<std::unique_ptr<KernelBackend>> KernelBackend::create_on(const KernelOptions& options,
                                                                const Clock& clock,
                                                                std::unique_ptr<Channel> requests,
                                                                std::unique_ptr<Channel> events) {
    auto impl = std::make_unique<Impl>(options, clock, std::move(requests), std::move(events));
    if (auto r = impl->start(); !r) return std::unexpected(r.error());
    return std::make_unique<KernelBackend>(std::move(impl));
}

std::size_t KernelBackend::finish_reconciliation() {
    Impl& i = *impl_;
    std::vector<StateId> ids;
    for (const auto& [id, print] : i.leftovers) ids.push_back(id);
    i.leftovers.clear();
    i.delete_states(ids, "of an earlier run");
    i.counters.reconciled.add(ids.size());
    if (!ids.empty()) log::info(area, "removed {} states an earlier run had left", ids.size());
    return ids.size();
}

Result<void> KernelBackend::install(const sa::SetParams& p) {
    Impl& i = *impl_;
    const auto refuse = [&](ErrorKind kind, std::string text) {
        i.counters.install_failed.add();
        return fail(kind, std::move(text));
    };
    if (!sa::is_valid(p.suite) || p.ck == nullptr || p.ik == nullptr)
        return refuse(ErrorKind::unsupported, "no such algorithm pair");
    if (p.nat && i.nat_sockets.empty())
        return refuse(ErrorKind::unsupported, "UDP encapsulation is switched off (security.nat)");
    if (p.nat && (p.ue.is_v6() || p.nat->outer.address.is_v6() ||
                  p.nat->outer.address.is_unspecified() || p.nat->inner != p.ue))
        return refuse(ErrorKind::invalid, "UDP encapsulation is for IPv4 only");
    if (p.ue.is_v6() != p.ours.is_v6())
        return refuse(ErrorKind::invalid, "the two addresses of a set are of one family");
    // No policy of ours covers another address or port: cleartext would pass beside the SA (A6).
    if (std::ranges::find(i.options.addresses, p.ours) == i.options.addresses.end())
        return refuse(ErrorKind::invalid, fmt::format("{} of the SA set is not one of gm.addresses",
                                                      p.ours.to_string()));
    for (const sa::Port port : {p.numbers.port_ps, p.numbers.port_pc}) {
        if (!i.options.port_ps.contains(port) && !i.options.port_pc.contains(port))
            return refuse(ErrorKind::invalid,
                          fmt::format("port {} of the SA set is not a protected one (gm.port_ps, "
                                      "gm.port_pc)",
                                      port));
    }
    if (i.sets.size() + i.staying.size() / states_per_set >= i.options.max_sets) {
        return refuse(
            ErrorKind::exhausted,
            fmt::format("all {} SA sets are in use; raise kernel.max_sets", i.options.max_sets));
    }
    if (i.sets.contains(p.id)) return refuse(ErrorKind::conflict, "the set is installed already");
    std::optional<Endpoint> outer;
    if (p.nat) outer = outer_of(p);
    for (const StateId& id :
         state_ids(p.ue, p.ours, p.numbers, outer ? &outer->address : nullptr)) {
        if (i.states.contains(id))
            return refuse(ErrorKind::conflict,
                          fmt::format("SPI {:#x} to {} is in use by another set", id.spi,
                                      id.destination.to_string()));
    }
    for (const Flow& f : flows_of(p.ue, p.ours, p.numbers)) {
        if (i.flows.contains(f))
            return refuse(ErrorKind::conflict,
                          fmt::format("port {} to {} port {} is another set's", f.our_port,
                                      f.ue.to_string(), f.ue_port));
    }
    const SuiteKeys keys(p.suite, *p.ck, *p.ik);
    auto wanted = set_states(p.ue, p.ours, p.numbers, p.out_sequence, outer ? &*outer : nullptr);
    for (std::size_t n = 0; n < wanted.size(); ++n) {
        i.dress(wanted[n], n, false);
        keys.fill(wanted[n]);
    }
    if (!i.leftovers.empty() && i.adopt(wanted)) {
        i.keep(p);
        return {};
    }
    const std::string what = fmt::format("the kernel refused an SA of {} with {}", p.ue.to_string(),
                                         sa::to_string(p.suite));
    if (auto r = i.add(wanted, p.suite, what); !r)
        return refuse(r.error().kind, std::move(r.error().text));
    if (outer) {
        const auto policies = nat_policies(i.options, p.ue, p.ours, p.numbers, outer->address);
        if (auto r = i.put_policies(policies); !r) {
            i.delete_policies(policies);
            std::vector<StateId> made;
            for (const State& s : wanted) made.push_back(s.id);
            i.delete_states(made, "of a set that failed half way");
            return refuse(r.error().kind, std::move(r.error().text));
        }
    }
    i.counters.installed.add();
    i.keep(p);
    return {};
}

void KernelBackend::remove(sa::SetId id) {
    remove(std::span<const sa::SetId>(&id, 1));
}

void KernelBackend::remove(std::span<const sa::SetId> ids) {
    Impl& i = *impl_;
    std::vector<StateId> gone;
    std::vector<Policy> policies;
    for (const sa::SetId id : ids) {
        const auto it = i.sets.find(id);
        if (it == i.sets.end()) continue;
        for (const StateId& s : it->second.ids()) gone.push_back(s);
        std::ranges::move(it->second.own_policies(i.options), std::back_inserter(policies));
        i.forget(id);
        i.counters.removed.add();
    }
    i.delete_policies(policies);
    i.delete_states(gone, "of a removed set");
}

std::uint32_t KernelBackend::owner_of(const IpAddress& /*ue*/, const IpAddress& /*ours*/) const {
    return 0;
}
std::size_t KernelBackend::capacity() const {
    return impl_->options.max_sets;
}
std::size_t KernelBackend::installed() const {
    return impl_->sets.size();
}
Offload KernelBackend::offload() const {
    return impl_->offload;
}
std::size_t KernelBackend::leftovers() const {
    return impl_->leftovers.size();
}

}  // namespace gmgate::kernel
