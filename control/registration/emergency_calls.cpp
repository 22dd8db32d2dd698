#include "control/registration/emergency_calls.h"

#include <utility>

#include "control/registration/dialogs.h"
#include "control/registration/emergency.h"
#include "control/registration/proxy_rules.h"
#include "control/sip/values.h"

namespace gmgate::registration {

bool EmergencyCall::comes_from(const sip::Flow& flow) const {
    if (flow.transport != from.transport || flow.local != from.local) return false;
    if (flow.remote == from.remote && flow.connection == from.connection) return true;
    return flow.transport == sip::Transport::tcp && from.connection == 0 &&
           flow.remote.address == from.remote.address;
}

bool EmergencyCall::hears(const sip::Flow& flow) const {
    if (flow.transport != way.transport || flow.local != way.local) return false;
    return flow.transport == sip::Transport::tcp
               ? flow.connection == way.connection
               : flow.remote == way.remote || flow.remote == from.remote;
}

EmergencyCalls::EmergencyCalls(const Policy& policy, TimerWheel& timers, Random& random,
                               std::function<void(sa::UserId)> forgotten)
    : timers_(timers),
      idle_(policy.emergency_idle),
      forgotten_(std::move(forgotten)),
      most_(policy.limits.emergency_calls),
      most_per_source_(policy.limits.emergency_calls_per_source),
      ipv6_prefix_(policy.limits.ipv6_source_prefix),
      sources_per_nat_(policy.limits.sources_per_nat),
      rate_(static_cast<double>(most_) / 10, static_cast<double>(most_)),
      // Four times what may run there at once, then as many in ten seconds as may run.
      per_source_{RateTable(sources_remembered, static_cast<double>(most_per_source_) / 10,
                            static_cast<double>(most_per_source_) * 4, random),
                  RateTable(sources_remembered, static_cast<double>(most_per_source_) / 10,
                            static_cast<double>(most_per_source_) * 4, random)},
      by_name_(16, SeededStringHash{SeededHash(random)}),
      at_source_(16, CountBySource::Hash{SeededHash(random)}) {}

bool EmergencyCalls::begins(const sip::Message& request) {
    // The service URN alone: what is dialled means something to the network of who is registered.
    return request.is_method("INVITE") && !in_dialog(request) &&
           is_emergency(request.request_uri(), {});
}

std::string EmergencyCalls::name_of(const IpAddress& address, const sip::Message& request) {
    const auto from = sip::from(request);
    std::string name = address.to_string();
    name += '\n';
    name += sip::call_id(request);
    name += '\n';
    name += from ? from->tag() : std::string_view{};
    return name;
}

EmergencyCall* EmergencyCalls::find(const sip::Flow& flow, const sip::Message& request) const {
    if (!has_any(flow.remote.address)) return nullptr;
    const auto named = by_name_.find(name_of(flow.remote.address, request));
    EmergencyCall* call = named == by_name_.end() ? nullptr : find(named->second);
    return call != nullptr && call->comes_from(flow) ? call : nullptr;
}

EmergencyCall* EmergencyCalls::find(sa::UserId user) const {
    const auto it = calls_.find(user);
    return it == calls_.end() ? nullptr : it->second.get();
}

bool EmergencyCalls::runs_on(const sip::Flow& flow) const {
    const auto [first, last] = at_source_.equal_range(source_of(flow.remote.address));
    return flow.connection != 0 && std::any_of(first, last, [&](const auto& at) {
               return at.second->way.connection == flow.connection;
           });
}

EmergencyCalls::Place EmergencyCalls::may_begin(const sip::Flow& flow, bool nat, TimePoint now) {
    constexpr Place none{Reason::emergency_limit};
    const bool shows = flow.transport == sip::Transport::tcp;
    const IpAddress source = source_of(flow.remote.address);
    std::size_t all = 0;       // that count against this one: at the whole address,
    std::size_t here = 0;      // and of what is one source there
    sa::UserId gives_way = 0;  // without a connection, of the latter: the phone calls again
    const auto [first, last] = at_source_.equal_range(source);
    for (auto at = first; at != last; ++at) {
        const EmergencyCall& c = *at->second;
        // What anybody may have begun in its name is not held against who shows who he is.
        if (shows && !c.proven) continue;
        ++all;
        if (nat && c.from.remote.port != flow.remote.port) continue;
        ++here;
        if (shows && !c.reachable() && (gives_way == 0 || c.user < gives_way)) gives_way = c.user;
    }
    const std::size_t most = nat ? most_per_source_ * sources_per_nat_ : most_per_source_;
    if (here < most_per_source_ && all < most) {
        gives_way = 0;
    } else if (gives_way == 0) {
        return none;
    }
    // Who may have invented its address gets half, and the oldest of these gives way, so that a
    // flood of them leaves room, and does not hold it.
    if (gives_way == 0 && size() >= most_) {
        gives_way = !lost_.empty() ? *lost_.begin() : !unproven_.empty() ? *unproven_.begin() : 0;
        if (gives_way == 0) return none;
    }
    if (gives_way == 0 && !shows && unproven_.size() >= (most_ + 1) / 2)
        gives_way = *unproven_.begin();
    RateTable& of_source = per_source_[shows ? 1 : 0];
    if (!(nat ? of_source.take(flow.remote, now) : of_source.take(source, now)) ||
        !rate_.take(now, shows ? 0 : static_cast<double>(most_) / 2))
        return none;
    return {Reason::ok, gives_way};
}

EmergencyCall* EmergencyCalls::add(const sip::Flow& flow, const sip::Flow& way,
                                   const sip::Message& request) {
    std::string name = name_of(flow.remote.address, request);
    if (by_name_.contains(name)) return nullptr;
    auto call = std::make_unique<EmergencyCall>();
    call->user = stranger_bit | ++next_;
    call->source = source_of(flow.remote.address);
    call->from = flow;
    call->way = way;
    call->proven = flow.transport == sip::Transport::tcp;
    call->name = std::move(name);
    call->book = this;
    call->idle.bind(
        [](void* c) {
            const auto* idle = static_cast<EmergencyCall*>(c);
            idle->book->forgotten_(idle->user);
        },
        call.get());
    touch(*call);
    at_source_.emplace(call->source, call.get());
    if (!call->proven) unproven_.insert(call->user);
    by_name_.emplace(call->name, call->user);
    return calls_.emplace(call->user, std::move(call)).first->second.get();
}

void EmergencyCalls::uncount(EmergencyCall& call) {
    if (!std::exchange(call.counted, false)) return;
    unproven_.erase(call.user);
    lost_.erase(call.user);
    by_name_.erase(call.name);
    const auto [first, last] = at_source_.equal_range(call.source);
    const auto at = std::find_if(first, last, [&](const auto& a) { return a.second == &call; });
    if (at != last) at_source_.erase(at);
}

void EmergencyCalls::remove(sa::UserId user) {
    const auto it = calls_.find(user);
    if (it == calls_.end()) return;
    uncount(*it->second);
    calls_.erase(it);
}

void EmergencyCalls::heard(EmergencyCall& call, const sip::Flow& flow) {
    if (!std::exchange(call.proven, true)) unproven_.erase(call.user);
    if (flow.transport == sip::Transport::udp) return;
    call.from = flow;
    call.way = flow;
    if (lost_.erase(call.user) > 0) touch(call);
}

void EmergencyCalls::connection_closed(const sip::Flow& flow) {
    if (flow.connection == 0) return;
    const auto [first, last] = at_source_.equal_range(source_of(flow.remote.address));
    for (auto at = first; at != last; ++at) {
        EmergencyCall& call = *at->second;
        if (call.from.connection == flow.connection) call.from.connection = 0;
        if (call.way.connection != flow.connection) continue;
        call.way.connection = 0;
        lost_.insert(call.user);
        touch(call);
    }
}

}  // namespace gmgate::registration
