// Responses and failures, both ways.
#include "control/registration/proxy.h"

#include <utility>

#include "control/registration/edits.h"
#include "control/registration/interconnect.h"

namespace gmgate::registration {

using sip::HeaderId;

void Proxy::on_response(sip::ClientTransactionId /*id*/, std::uint64_t context,
                        const sip::Flow& flow, const sip::Message& response,
                        std::span<char> bytes) {
    wipe_keys(response, bytes);
    Exchange* e = exchanges_.find(context);
    if (e == nullptr) return;
    const int status = response.status_code();
    const sa::User* user = ctx_.sets.find_user(e->user);
    if (!e->from_ue) {
        // B7: the response must come on an SA of the very user the request went to; in an emergency
        // call in clear, from where that came.
        const sa::SaSet* set =
            ctx_.sets.find_by_tuple(flow.remote.address, flow.remote.port, flow.local.port);
        const EmergencyCall* call = is_stranger(e->user) ? calls_.find(e->user) : nullptr;
        const bool right = call != nullptr ? set == nullptr && call->hears(flow)
                                           : set != nullptr && set->user == e->user;
        if (!right) {
            ctx_.refuse(Reason::stray_response, 0, flow.remote, {});
            if (status < 200 || e->answered) return;
            // It has ended the client transaction, so nothing else would ever end this.
            ctx_.answer_later(inner(*e), e->server, e->head, e->source, 480);
            e->server = 0;
            return close(e->id);
        }
        if (set != nullptr) {
            e->carrier = Carrier::of(*set);
            ctx_.sets.note_use(set->id);
            user = ctx_.sets.find_user(e->user);
        }
        note(*e, status, false, &flow, Reason::ok);
    } else {
        ctx_.core_answered();
        ctx_.note(e->trace_user, e->method_name(), status, {Entity::core, Entity::pcscf});
    }
    if (e->released) return on_released_response(*e, response);
    if (e->invite && status > 100 && status < 300) track(*e, response);
    if (status >= 200) {
        if (!e->invite || status >= 300) unlist(*e);
        unreserve(*e);
        followed(*e, response);
        if (status < 300) note_subscription(*e, response);
    }
    if (status < 200) {
        e->provisional = true;
        if (e->cancelled && e->cancel_interval == Duration{}) send_cancel(*e);
        // RFC 3261 16.7 step 2: a 100 says nothing of the called one.
        if (e->invite && !e->cancelled && (status > 100 || !e->timer.active()))
            ctx_.timers.start(e->timer, ctx_.policy.timer_c);
        if (status == 100) return;  // hop by hop
    } else {
        e->answered = true;
        e->timer.stop();
        if (!(e->invite && status < 300)) e->client = 0;
    }

    if (status == 408 && !e->invite) return close(e->id);  // RFC 4320: nobody wants to hear it
    sip::Edit edit(response);
    // RFC 3261 16.7 step 6: whoever reads it would take it as ours, and leave us alone for as long.
    const int told = status == 503 ? 500 : status;
    if (told != status) {
        edit.remove_all(HeaderId::retry_after);
    }
    if (e->from_ue) {
        take_our_via(edit, ctx_, e->head, e->source);
        strip_to_ue(edit);
        if (wants_privacy(response)) edit.remove_all(HeaderId::p_asserted_identity);
        if (e->reply.transport == sip::Transport::tcp) edit.ensure_content_length();
    } else {
        edit.remove_first_value(HeaderId::via);
        strip_from_ue(edit);
        edit.remove_all(HeaderId::p_preferred_identity);
        if (user != nullptr && user->impu_count() > 0) {
            edit.append_header("P-Asserted-Identity", {asserted_identity(response, *user)});
        }
        edit.ensure_content_length();
    }
    const bool edited = static_cast<bool>(edit.apply(ctx_.scratch));
    if (edited && told != status) {
        ctx_.scratch.replace(0, ctx_.scratch.find("\r\n"),
                             "SIP/2.0 500 " + std::string(sip::reason_phrase(told)));
    }
    if (e->server != 0) {
        if (edited) {
            inner(*e).transactions->respond(e->server, told, ctx_.scratch);
        } else if (status >= 200) {
            ctx_.answer_later(inner(*e), e->server, e->head, e->source, 500);
        }
    }
    if (e->from_ue) {
        note(*e, told, true, &e->reply, Reason::ok);
    } else {
        ctx_.note(e->trace_user, e->method_name(), told, {Entity::pcscf, Entity::core});
    }
    if (status < 200) return;
    if (e->invite && status < 300) {
        // The UE or the core repeats its 2xx until the ACK comes: they must find their way.
        ctx_.timers.start(e->timer, ctx_.policy.t1 * 64);
        return;
    }
    e->server = 0;
    close(e->id);
}

bool Proxy::send_again_over_udp(Exchange& e) {
    if (!std::exchange(e.chose_tcp_for_size, false) || e.provisional || e.cancelled || e.released)
        return false;
    sip::Message sent;
    if (sent.parse(e.sent) != sip::ParseStatus::ok) return false;
    const auto via = sip::top_via(sent);
    if (!via) return false;
    sip::Flow flow = e.sent_to;
    if (e.from_ue) {
        const auto known = ctx_.next_hops.flow_to(sip::Transport::udp, flow.remote);
        if (!known) return false;
        flow = *known;
    }
    flow.transport = sip::Transport::udp;
    flow.connection = 0;
    auto& transactions = *outer(e).transactions;
    const auto party = is_stranger(e.user) ? sip::TransactionLayer::Party::stranger
                                           : sip::TransactionLayer::Party::known;
    const auto branch =
        transactions.new_branch(party, sip::TransactionLayer::loop_mark_of(via->branch));
    if (branch.id == 0) return false;
    std::string again = over_udp(sent, branch.view());
    if (again.empty()) {
        transactions.abandon(branch.id);
        return false;
    }
    e.sent_to = flow;
    e.sent = std::move(again);  // its CANCEL carries the Via it has now
    if (!transactions.send_request(branch, flow, e.method_name(), e.sent, *this, e.id))
        return false;
    e.client = branch.id;
    return true;
}

void Proxy::on_failure(sip::ClientTransactionId /*id*/, std::uint64_t context,
                       sip::ClientFailure failure) {
    Exchange* e = exchanges_.find(context);
    if (e == nullptr) return;
    const Context::AtHand about(ctx_, e->head);
    e->client = 0;
    if (e->answered || e->released) return close(e->id);
    if (failure == sip::ClientFailure::transport && send_again_over_udp(*e))
        return note(*e, 0, !e->from_ue, e->from_ue ? nullptr : &e->sent_to, Reason::ok);
    if (e->dialog != 0 && e->method_name() == "BYE") drop_dialog(e->dialog);
    const bool timeout = failure == sip::ClientFailure::timeout;
    if (timeout && !e->from_ue && !e->invite) {
        // RFC 4320 4.2: a 408 would come when whoever asked has given up, and do harm to others.
        ctx_.refuse(Reason::ue_timeout, 0, e->source, {});
        ctx_.note(
            e->trace_user, e->method_name(), 0,
            {Entity::pcscf, Entity::pcscf, Step::none, e->carrier.set, 0, Reason::ue_timeout});
        return close(e->id);
    }
    Reason why = timeout ? Reason::ue_timeout : Reason::ue_unreachable;
    int status = timeout ? 408 : 480;
    if (e->from_ue) {
        why = timeout ? Reason::core_timeout : Reason::core_unreachable;
        status = 504;
    }
    const sa::User* user = ctx_.sets.find_user(e->user);
    ctx_.refuse(why, status, e->source, user == nullptr ? std::string_view{} : user->impi());
    ctx_.answer_later(inner(*e), e->server, e->head, e->source, status);
    if (e->from_ue) {
        note(*e, status, true, &e->reply, why);
    } else {
        ctx_.note(e->trace_user, e->method_name(), status,
                  {Entity::pcscf, Entity::core, Step::none, 0, 0, why});
    }
    e->server = 0;
    close(e->id);
}

}  // namespace gmgate::registration
