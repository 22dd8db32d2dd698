// Emergency calls of phones that are not registered, in clear (A6; TS 24.229 5.2.10.2): to the
// E-CSCF, as from nobody. What runs in such a call is an Exchange and a Dialog like any other, of a
// number that stands in a user's place.

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "control/registration/edits.h"
#include "control/registration/interconnect.h"
#include "control/registration/proxy.h"
#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

// What belongs into a call; the rest has no place in one of somebody nobody knows.
bool is_of_call(const sip::Message& request) {
    constexpr std::array<std::string_view, 6> methods{"INVITE", "ACK", "PRACK",
                                                      "UPDATE", "BYE", "INFO"};
    return std::ranges::any_of(methods, [&](std::string_view m) { return request.is_method(m); });
}

// Nobody is asserted, and nothing that names somebody goes on as if a network had said it.
void make_anonymous(sip::Edit& edit) {
    strip_from_ue(edit);
    for (const HeaderId id :
         {HeaderId::p_preferred_identity, HeaderId::authorization, HeaderId::proxy_authorization})
        edit.remove_all(id);
}

}  // namespace

bool Proxy::takes_in_clear(const sip::Flow& flow, const sip::Message& request) const {
    if (ctx_.policy.emergency_unregistered == EmergencyUnregistered::refuse) return false;
    return EmergencyCalls::begins(request) || calls_.find(flow, request) != nullptr ||
           ctx_.gm.transactions->knows(flow, request);
}

bool Proxy::takes_answers_in_clear(const sip::Flow& flow) const {
    return calls_.has_any(flow.remote.address);
}

void Proxy::on_connection_closed(const sip::Flow& flow) {
    calls_.connection_closed(flow);
}

void Proxy::on_clear_request(const Arrival& arrival, const sip::Message& request) {
    EmergencyCall* call = calls_.find(arrival.flow, request);
    Arrival of_call{arrival.flow, arrival.reply, arrival.carrier, arrival.transaction};
    if (call != nullptr) of_call.carrier.user = call->user;
    if (request.is_method("CANCEL")) return on_cancel(ctx_.gm, of_call, request);
    if (const auto rejection = sip::check_routable(request)) {
        const Reason why = rejection->code == 483 ? Reason::too_many_hops : Reason::unsupported_uri;
        return ctx_.answer(ctx_.gm, arrival, request, rejection->code, why);
    }
    if (!in_dialog(request)) return begin_call(of_call, request);
    go_on_in_call(of_call, request, call);
}

Proxy::Exchange* Proxy::open_in_call(const Arrival& arrival, const sip::Message& request,
                                     bool from_ue, EmergencyCall& call,
                                     sip::TransactionLayer::Branch& branch) {
    Side& out = from_ue ? ctx_.core : ctx_.gm;
    const std::uint64_t mark = loop_mark(request, from_ue, call.user);
    branch = out.transactions->new_branch(sip::TransactionLayer::Party::stranger, mark);
    if (branch.id != 0 && arrival.transaction == 0) return nullptr;
    Exchange* e = branch.id == 0 ? nullptr : open(arrival, request, from_ue, call.user);
    if (e == nullptr) {
        if (branch.id != 0) out.transactions->abandon(std::exchange(branch.id, 0));
        ctx_.answer(from_ue ? ctx_.gm : ctx_.core, arrival, request, 503, Reason::transaction_limit,
                    {}, {{"Retry-After", "10"}});
        return nullptr;
    }
    e->trace_user = call.trace_user;
    return e;
}

void Proxy::begin_call(const Arrival& arrival, const sip::Message& request) {
    if (!EmergencyCalls::begins(request))
        return ctx_.answer(ctx_.gm, arrival, request, 403, Reason::unprotected_request);
    const auto e_cscf = ctx_.flow_to(emergency_route());
    if (!e_cscf) return ctx_.answer(ctx_.gm, arrival, request, 503, Reason::core_unreachable);
    // RFC 3261 8.2.2.2: it came by two ways, or again under another branch.
    if (arrival.carrier.user != 0)
        return ctx_.answer(ctx_.gm, arrival, request, 482, Reason::loop_detected);
    const bool nat = is_nat_ && is_nat_(calls_.source_of(arrival.flow.remote.address));
    const auto place = calls_.may_begin(arrival.flow, nat, ctx_.now());
    if (place.why != Reason::ok) {
        ctx_.shed(place.why, arrival.flow.remote);
        return ctx_.answer(ctx_.gm, arrival, request, 503, Reason::ok, {}, {{"Retry-After", "10"}});
    }
    if (place.gives_way != 0) give_way(place.gives_way);
    EmergencyCall* call = calls_.add(arrival.flow, arrival.reply, request);
    if (call == nullptr) return ctx_.answer(ctx_.gm, arrival, request, 482, Reason::loop_detected);
    const sa::UserId user = call->user;
    call->core = *e_cscf;
    call->trace_user = ctx_.trace_user({}, arrival.flow.remote);
    sip::TransactionLayer::Branch branch;
    Exchange* e = open_in_call(arrival, request, true, *call, branch);
    if (e == nullptr) return settle_call(user);
    ctx_.note(call->trace_user, request.method(), 0, {Entity::ue, Entity::pcscf});
    ctx_.metrics.emergency_call_begun();
    ctx_.metrics.set_emergency_calls(calls_.size());
    ++calls_untold_;
    if (call_told_ == TimePoint{} || ctx_.now() - call_told_ >= std::chrono::seconds(1)) {
        call_told_ = ctx_.now();
        log::info("emergency", "{} call(s) of phones that are not registered; the latest from {}",
                  std::exchange(calls_untold_, 0), arrival.flow.remote.to_string());
    }

    const FlowTokens::Text token = ctx_.tokens.make(user);
    const std::string ue_side = ue_side_uri(arrival.flow.local.address, arrival.flow.local.port);
    const std::uint64_t icid = ctx_.random.u64();
    const auto changes = [&](sip::Edit& edit) {
        make_anonymous(edit);
        edit.set_header(HeaderId::route, {emergency_route()});
        edit.push_header(
            HeaderId::record_route,
            {"<sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>, ", ue_side});
        edit.append_header(
            "P-Charging-Vector",
            {"icid-value=\"", to_hex({reinterpret_cast<const std::uint8_t*>(&icid), sizeof(icid)}),
             "\";icid-generated-at=", ctx_.generator});
    };
    forward_to_core(arrival, request, e, branch, *e_cscf, {e->trace_user}, changes);
}

void Proxy::go_on_in_call(const Arrival& arrival, const sip::Message& request,
                          EmergencyCall* call) {
    Dialog* dialog = call == nullptr ? nullptr : dialogs_.find(name_of(request, true, call->user));
    if (dialog == nullptr)
        return ctx_.answer(ctx_.gm, arrival, request, 481, Reason::unknown_transaction);
    if (!is_of_call(request))
        return ctx_.answer(ctx_.gm, arrival, request, 403, Reason::unprotected_request);
    // It knows the tag of the far end, so it has heard its answer.
    calls_.heard(*call, arrival.flow);
    if (request.is_method("ACK")) call->acked = true;
    // What the core said of its side counts, whatever stands in Route and Request-URI: a stranger
    // must not reach anybody else by it.
    const auto way = way_to_core(*dialog);
    if (!way) return ctx_.answer(ctx_.gm, arrival, request, 481, Reason::unknown_transaction);
    const std::uint64_t trace_user = call->trace_user;
    const sa::UserId user = call->user;
    sip::TransactionLayer::Branch branch;
    Exchange* e = open_in_call(arrival, request, true, *call, branch);
    if (branch.id == 0) return;
    ctx_.note(trace_user, request.method(), 0, {Entity::ue, Entity::pcscf});
    follow(request, true, user, e);
    const FlowTokens::Text token = ctx_.tokens.make(user);
    const std::string ue_side = ue_side_uri(arrival.flow.local.address, arrival.flow.local.port);
    const auto changes = [&](sip::Edit& edit) {
        make_anonymous(edit);
        edit.replace_request_uri({way->target});
        if (way->route.empty()) {
            edit.remove_all(HeaderId::route);
        } else {
            edit.set_header(HeaderId::route, {way->route});
        }
        if (makes_dialog(request.method())) {
            edit.push_header(
                HeaderId::record_route,
                {"<sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>, ", ue_side});
        }
    };
    forward_to_core(arrival, request, e, branch, way->flow, {trace_user}, changes);
}

void Proxy::on_request_in_call(const Arrival& arrival, const sip::Message& request,
                               sa::UserId user) {
    EmergencyCall* call = calls_.find(user);
    const Dialog* dialog = call == nullptr ? nullptr : dialogs_.find(name_of(request, false, user));
    if (dialog == nullptr)
        return ctx_.answer(ctx_.core, arrival, request, 481, Reason::unknown_transaction);
    if (!call->reachable()) {
        // The far end is done with it, and nobody is left to be told.
        if (const SlotId id = dialog->id; request.is_method("BYE")) {
            ctx_.answer(ctx_.core, arrival, request, 200, Reason::ok);
            return drop_dialog(id);
        }
        return ctx_.answer(ctx_.core, arrival, request, 480, Reason::ue_unreachable);
    }
    const std::string target(dialog->ue_target());
    const std::uint64_t trace_user = call->trace_user;
    const WayToUe way{call->way, sent_by_in_clear(*call)};
    sip::TransactionLayer::Branch branch;
    Exchange* e = open_in_call(arrival, request, false, *call, branch);
    if (branch.id == 0) return;
    ctx_.note(trace_user, request.method(), 0, {Entity::core, Entity::pcscf});
    follow(request, false, user, e);
    const FlowTokens::Text token = ctx_.tokens.make(user);
    const std::string ue_side = ue_side_uri(way.flow.local.address, ctx_.policy.gm_port);
    const auto changes = [&](sip::Edit& edit) {
        if (!target.empty()) edit.replace_request_uri({target});
        if (makes_dialog(request.method())) {
            edit.push_header(
                HeaderId::record_route,
                {ue_side, ", <sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>"});
        }
    };
    forward_to_ue(arrival, request, e, branch, way, {trace_user}, changes);
}

std::string Proxy::sent_by_in_clear(const EmergencyCall& call) const {
    return call.way.local.address.to_uri_host() + ":" + std::to_string(ctx_.policy.gm_port);
}

void Proxy::settle_call(sa::UserId user) {
    const EmergencyCall* call = is_stranger(user) ? calls_.find(user) : nullptr;
    if (call == nullptr || call->exchanges > 0 || dialogs_.of_user(user) > 0) return;
    calls_.remove(user);
    ctx_.metrics.set_emergency_calls(calls_.size());
}

void Proxy::give_way(sa::UserId user) {
    EmergencyCall* call = calls_.find(user);
    if (call == nullptr) return;
    ctx_.shed(Reason::emergency_limit, call->from.remote);
    calls_.uncount(*call);
    release(user, Reason::emergency_limit);
    settle_call(user);
}

void Proxy::forget_call(sa::UserId user) {
    dialogs_.remove_all(user);
    dialogs_changed();
    release(user, Reason::expired);  // what still rings
    settle_call(user);
}

}  // namespace gmgate::registration
