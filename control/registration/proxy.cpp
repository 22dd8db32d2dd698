#include "control/registration/proxy.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

using sip::HeaderId;

std::string_view Proxy::Exchange::method_name() const {
    return {method.data(), ::strnlen(method.data(), method.size())};
}

Proxy::Proxy(Context& context, const Registrations& registrations)
    : ctx_(context),
      registrations_(registrations),
      loop_hash_(context.random),
      calls_(context.policy, context.timers, context.random,
             [this](sa::UserId call) { forget_call(call); }),
      dialogs_(context.random, context.policy.limits.dialogs,
               context.policy.limits.dialogs_per_user,
               context.policy.limits.emergency_calls * most_forks),
      bye_to_core_(context, Entity::core),
      bye_to_ue_(context, Entity::ue),
      invites_(16, SeededStringHash{SeededHash(context.random)}),
      cancels_(16, SeededStringHash{SeededHash(context.random)}) {
    idle_timer_.bind<&Proxy::on_idle_timer>(this);
    release_timer_.bind<&Proxy::on_release_timer>(this);
}

Proxy::~Proxy() = default;

Proxy::Exchange* Proxy::open(const Arrival& arrival, const sip::Message& request, bool from_ue,
                             sa::UserId user) {
    EmergencyCall* call = is_stranger(user) ? calls_.find(user) : nullptr;
    if (call == nullptr && exchanges_.size() - strangers_ >= ctx_.policy.limits.proxied)
        return nullptr;
    const bool invite = request.is_method("INVITE");
    {
        OfUser& mine = users_[user];
        if (from_ue) {
            // One phone must not use up what all share (S2); an exchange may hold whole messages.
            const std::size_t most =
                is_stranger(user) ? most_in_call : ctx_.policy.limits.proxied_per_user;
            if (mine.requests >= most) return nullptr;
            ++mine.requests;
        }
    }
    Exchange& e = exchanges_.emplace(*this);
    if (is_stranger(user)) ++strangers_;
    if (call != nullptr) ++call->exchanges;
    e.from_ue = from_ue;
    e.invite = invite;
    e.user = user;
    if (invite || !from_ue) {
        OfUser& mine = users_[user];
        e.listed = true;
        e.invite_place = mine.invites.size();
        mine.invites.push_back(e.id);
        if (invite || subscribes(request.method()))
            e.call = call_of(sip::call_id(request), sip::from_tag(request));
        if (invite && !in_dialog(request)) {
            e.reserves = true;
            ++mine.reserved;
            if (!is_stranger(user)) ++reserved_;
        }
    }
    const auto method = known_method(request.method());
    std::memcpy(e.method.data(), method.data(), std::min(method.size(), e.method.size()));
    e.server = arrival.transaction;
    e.reply = arrival.reply;
    e.source = arrival.flow.remote;
    e.carrier = arrival.carrier;
    e.head = head_of(request);
    ctx_.metrics.set_proxied(exchanges_.size());
    return &e;
}

void Proxy::unreserve(Exchange& e) {
    if (!std::exchange(e.reserves, false)) return;
    if (!is_stranger(e.user)) --reserved_;
    const auto mine = users_.find(e.user);
    if (mine != users_.end()) --mine->second.reserved;
}

void Proxy::unlist(Exchange& e) {
    if (!std::exchange(e.listed, false)) return;
    const auto mine = users_.find(e.user);
    if (mine == users_.end()) return;
    auto& list = mine->second.invites;
    list[e.invite_place] = list.back();
    if (Exchange* moved = exchanges_.find(list[e.invite_place]))
        moved->invite_place = e.invite_place;
    list.pop_back();
}

void Proxy::close(SlotId id) {
    Exchange* e = exchanges_.find(id);
    if (e == nullptr) return;
    if (!e->key.empty()) invites_.erase(e->key);
    if (!e->cancel_branch.empty()) cancels_.erase(e->cancel_branch);
    if (e->client != 0) outer(*e).transactions->abandon(e->client);
    if (e->server != 0) inner(*e).transactions->forget(e->server);
    unlist(*e);
    unreserve(*e);
    if (const auto mine = users_.find(e->user); mine != users_.end()) {
        if (e->from_ue) --mine->second.requests;
        if (mine->second.empty()) users_.erase(mine);
    }
    if (e->invite) {
        dialogs_.remove_early(e->user, id);
        dialogs_changed();
    }
    const sa::UserId user = e->user;
    exchanges_.erase(id);
    ctx_.metrics.set_proxied(exchanges_.size());
    if (!is_stranger(user)) return;
    --strangers_;
    if (EmergencyCall* call = calls_.find(user)) --call->exchanges;
    settle_call(user);
}

void Proxy::launch(const Arrival& arrival, const sip::Message& request, Exchange& e,
                   const sip::TransactionLayer::Branch& branch, const sip::Flow& flow) {
    e.sent_to = flow;
    if (e.invite || e.chose_tcp_for_size) e.sent = ctx_.scratch;
    if (outer(e).transactions->send_request(branch, flow, request.method(), ctx_.scratch, *this,
                                            e.id)) {
        e.client = branch.id;
    } else if (!send_again_over_udp(e)) {
        const Reason why = e.from_ue ? Reason::core_unreachable : Reason::ue_unreachable;
        Side& side = inner(e);
        const int status = e.from_ue ? 504 : 480;
        // Whoever said it is done with the dialog.
        if (e.dialog != 0 && e.method_name() == "BYE") drop_dialog(e.dialog);
        e.server = 0;
        close(e.id);
        return ctx_.answer(side, arrival, request, status, why);
    }
    note(e, 0, !e.from_ue, e.from_ue ? nullptr : &e.sent_to, Reason::ok);
    if (Dialog* d = e.dialog == 0 ? nullptr : dialogs_.find(e.dialog);
        d != nullptr && e.method_name() == "BYE")
        d->ending = true;
    if (!e.invite) return;
    e.key = cancel_key(request, inner(e), e.from_ue ? e.user : 0);
    invites_[e.key] = e.id;
    // RFC 3261 16.2: stops the sender's retransmissions at once.
    ctx_.answer(inner(e), arrival, request, 100, Reason::ok);
}

void Proxy::note(const Exchange& e, int status, bool to_ue, const sip::Flow* gm_flow,
                 Reason reason) {
    const Entity far = to_ue ? Entity::ue : Entity::core;
    sa::Spi spi = 0;
    if (gm_flow != nullptr) {
        spi = to_ue ? outbound_spi(*gm_flow, e.carrier.numbers)
                    : inbound_spi(*gm_flow, e.carrier.numbers);
    }
    // gm_flow with to_ue false: it came from the UE.
    const Entity from = gm_flow != nullptr && !to_ue ? Entity::ue : Entity::pcscf;
    const Entity to = gm_flow != nullptr && !to_ue ? Entity::pcscf : far;
    ctx_.note(e.trace_user, e.method_name(), status,
              {from, to, Step::none, gm_flow ? e.carrier.set : 0, spi, reason, 0,
               gm_flow ? std::optional(gm_flow->transport) : std::nullopt});
}

std::string Proxy::ue_side_uri(const IpAddress& ours, sa::Port port_ps) const {
    return "<sip:" + ours.to_uri_host() + ":" + std::to_string(port_ps) + ";lr>";
}

bool Proxy::may_move(std::uint64_t context) const {
    const Exchange* e = exchanges_.find(context);
    // What nobody waits for any more goes nowhere else, what may go over UDP goes there first.
    return e != nullptr && e->may_move && !e->cancelled && !e->released && !e->chose_tcp_for_size;
}

void Proxy::on_moved(sip::ClientTransactionId /*id*/, std::uint64_t context, const sip::Flow& flow,
                     std::string_view request) {
    Exchange* e = exchanges_.find(context);
    if (e == nullptr) return;
    e->sent_to = flow;
    if (!e->sent.empty()) e->sent = request;
    // Of the new one nothing has been heard: no CANCEL may go there yet (RFC 3261 9.1).
    e->provisional = false;
    e->cancel_interval = {};
    e->timer.stop();
}

std::uint64_t Proxy::loop_mark(const sip::Message& request, bool from_ue, sa::UserId user) const {
    std::string text;
    text.reserve(512);
    text += from_ue ? 'u' : 'c';
    const auto add = [&text](std::string_view part) {
        text += '\n';
        text += part;
    };
    add(std::to_string(user));
    add(request.request_uri());
    for (const sip::Value& value : request.values(HeaderId::route)) add(value.text);
    add("");
    add(sip::from_tag(request));
    add(sip::to_tag(request));
    add(sip::call_id(request));
    if (const auto number = sip::cseq(request)) add(std::to_string(number->number));
    return loop_hash_(text);
}

bool Proxy::has_looped(const sip::Message& request, std::uint64_t mark) {
    for (const sip::Value& value : request.values(HeaderId::via)) {
        if (!sip::TransactionLayer::may_hold_loop_mark(value.text)) continue;
        const auto via = sip::parse_via(value.text);
        if (via && sip::TransactionLayer::loop_mark_of(via->branch) == mark) return true;
    }
    return false;
}

}  // namespace gmgate::registration
