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
      rate_(static_cast<double>(most_) / 10, static_cast<double>(most_)),
      by_name_(16, SeededStringHash{SeededHash(random)}),
      at_source_(random) {}

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

Reason EmergencyCalls::may_begin(const sip::Flow& flow, TimePoint now) {
    // Who may have invented its address gets half, so that a flood of these leaves room.
    const bool shows = flow.transport == sip::Transport::tcp;
    if (calls_.size() >= most_ || (!shows && unproven_ >= (most_ + 1) / 2) ||
        at_source_.of(source_of(flow.remote.address)) >= most_per_source_ || !rate_.take(now))
        return Reason::emergency_limit;
    return Reason::ok;
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
    at_source_.add(call->source);
    unproven_ += call->proven ? 0U : 1U;
    by_name_.emplace(call->name, call->user);
    return calls_.emplace(call->user, std::move(call)).first->second.get();
}

void EmergencyCalls::remove(sa::UserId user) {
    const auto it = calls_.find(user);
    if (it == calls_.end()) return;
    unproven_ -= it->second->proven ? 0U : 1U;
    at_source_.remove(it->second->source);
    by_name_.erase(it->second->name);
    calls_.erase(it);
}

void EmergencyCalls::heard(EmergencyCall& call, const sip::Flow& flow) {
    if (!std::exchange(call.proven, true)) --unproven_;
    if (flow.transport == sip::Transport::udp) return;
    call.from = flow;
    call.way = flow;
}

void EmergencyCalls::connection_closed(const sip::Flow& flow) {
    if (flow.connection == 0 || !has_any(flow.remote.address)) return;
    for (const auto& [user, call] : calls_) {
        if (call->from.connection == flow.connection) call->from.connection = 0;
        if (call->way.connection == flow.connection) call->way.connection = 0;
    }
}

}  // namespace gmgate::registration
