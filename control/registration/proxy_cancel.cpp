// CANCEL (RFC 3261 9, 16.10).
#include "control/registration/proxy.h"

#include <algorithm>

#include "base/bytes.h"
#include "control/registration/identity.h"

namespace gmgate::registration {

using sip::HeaderId;

void Proxy::Exchange::on_timer() {
    if (answered) {
        // A 2xx that nobody acknowledged: whoever called does not hear what is sent to its address.
        const EmergencyCall* in_clear = is_stranger(user) ? proxy.calls_.find(user) : nullptr;
        if (in_clear != nullptr && from_ue && !in_clear->acked)
            proxy.release(user, Reason::ue_timeout);
        return proxy.close(id);
    }
    if (!cancelled) return proxy.on_timer_c(*this);
    if (proxy.ctx_.now() >= cancel_end) {
        // Nobody answers the CANCEL: the INVITE counts as unanswered (RFC 3261 9.1).
        answered = true;
        if (client != 0) proxy.outer(*this).transactions->abandon(client);
        client = 0;
        proxy.ctx_.answer_later(proxy.inner(*this), server, head, source, 487);
        server = 0;
        return proxy.close(id);
    }
    proxy.send_cancel(*this);
}

std::string Proxy::cancel_key(const sip::Message& request, const Side& side,
                              sa::UserId user) const {
    const auto via = sip::top_via(request);
    if (!via) return {};
    std::string key = &side == &ctx_.gm ? "u" : "c";
    // Another phone that knows the branch (it was called) must not meet this one.
    key += std::to_string(user);
    key += '|';
    key += via->branch;
    key += '|';
    key += to_lower(via->host);
    key += ':';
    key += std::to_string(via->port);
    return key;
}

void Proxy::on_cancel(Side& side, const Arrival& arrival, const sip::Message& request) {
    const auto found = invites_.find(cancel_key(request, side, arrival.carrier.user));
    Exchange* e = found == invites_.end() ? nullptr : exchanges_.find(found->second);
    if (e == nullptr || (e->from_ue && e->user != arrival.carrier.user)) {
        return ctx_.answer(side, arrival, request, 481, Reason::unknown_transaction);
    }
    const Entity from = e->from_ue ? Entity::ue : Entity::core;
    ctx_.note(e->trace_user, "CANCEL", 0,
              {from, Entity::pcscf, Step::none, arrival.carrier.set,
               e->from_ue ? inbound_spi(arrival.flow, arrival.carrier.numbers) : 0});
    ctx_.answer(side, arrival, request, 200, Reason::ok);
    ctx_.note(e->trace_user, "CANCEL", 200,
              {Entity::pcscf, from, Step::none, arrival.carrier.set,
               e->from_ue ? outbound_spi(arrival.reply, arrival.carrier.numbers) : 0, Reason::ok, 0,
               arrival.reply.transport});
    if (e->answered || e->cancelled) return;
    e->cancelled = true;
    e->cancel_reason = joined_values(request, HeaderId::reason);
    e->timer.stop();  // timer C
    if (e->provisional) send_cancel(*e);
}

// RFC 3261 16.8: it rings, and nobody has said a word for too long.
void Proxy::on_timer_c(Exchange& e) {
    e.cancelled = true;
    ctx_.refuse(e.from_ue ? Reason::core_timeout : Reason::ue_timeout, 0, e.source, {});
    send_cancel(e);
}

void Proxy::send_cancel(Exchange& e) {
    sip::Message sent;
    if (sent.parse(e.sent) != sip::ParseStatus::ok) return;
    const auto number = sip::cseq(sent);
    const auto via = sent.first_value(HeaderId::via);
    if (!number || !via) return;
    std::string cancel = "CANCEL ";
    cancel += sent.request_uri();
    cancel += " SIP/2.0\r\nVia: ";
    cancel += *via;
    cancel += "\r\nMax-Forwards: 70\r\n";
    for (const HeaderId id : {HeaderId::from, HeaderId::to, HeaderId::call_id}) {
        if (const auto* h = sent.first(id)) cancel += sent.line(*h);
    }
    for (const auto* h = sent.first(HeaderId::route); h != nullptr; h = sent.next(*h))
        cancel += sent.line(*h);
    if (!e.cancel_reason.empty()) cancel += "Reason: " + e.cancel_reason + "\r\n";
    cancel += "CSeq: " + std::to_string(number->number) + " CANCEL\r\nContent-Length: 0\r\n\r\n";
    outer(e).transport->send(e.sent_to, cancel);
    const bool first = e.cancel_interval == Duration{};
    if (first) {  // not each time it is sent again
        ctx_.note(e.trace_user, "CANCEL", 0,
                  {Entity::pcscf, e.from_ue ? Entity::core : Entity::ue, Step::none,
                   e.from_ue ? 0 : e.carrier.set,
                   e.from_ue ? 0 : outbound_spi(e.sent_to, e.carrier.numbers), e.ended, 0,
                   e.sent_to.transport});
    }
    // Its own retransmission: there is no transaction with this branch for it. Over a stream, or
    // answered, it only waits for the INVITE's own answer (RFC 3261 17.1.2.2, 9.1).
    if (first) {
        e.cancel_end = ctx_.now() + ctx_.policy.t1 * 64;
        e.cancel_branch = sip::top_via(sent).value_or(sip::Via{}).branch;
        cancels_[e.cancel_branch] = e.id;
    }
    e.cancel_interval =
        first ? ctx_.policy.t1 : std::min<Duration>(e.cancel_interval * 2, std::chrono::seconds(4));
    const TimePoint next =
        e.sent_to.transport == sip::Transport::udp ? ctx_.now() + e.cancel_interval : e.cancel_end;
    ctx_.timers.start_at(e.timer, std::min(next, e.cancel_end));
}

void Proxy::on_cancel_answer(const sip::Message& response, const sip::Flow& flow,
                             const Carrier* from_phone) {
    const auto via = sip::top_via(response);
    if (!via || response.status_code() < 200) return;
    const auto found = cancels_.find(via->branch);
    Exchange* e = found == cancels_.end() ? nullptr : exchanges_.find(found->second);
    if (e == nullptr || e->answered || e->from_ue != (from_phone == nullptr)) return;
    // Who knows the branch need not be whom we asked.
    if (from_phone != nullptr) {
        const EmergencyCall* call = is_stranger(e->user) ? calls_.find(e->user) : nullptr;
        const bool right = is_stranger(e->user)
                               ? call != nullptr && !from_phone->is_protected() && call->hears(flow)
                               : from_phone->user == e->user;
        if (!right) return;
    }
    ctx_.timers.start_at(e->timer, e->cancel_end);
}

}  // namespace gmgate::registration
