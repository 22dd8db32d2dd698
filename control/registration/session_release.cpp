// Sessions ended in the place of a user whose registration or SAs are gone (TS 24.229 5.2.8.1).

#include <chrono>
#include <string>
#include <utility>

#include "control/registration/proxy.h"
#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

namespace {

// So many dialogs and INVITEs at a time: ten thousand users that go at once take ten thousand times
// two BYEs, and the loop has other work. 32,000 in ten seconds, well within the drain time (D4).
constexpr std::size_t batch = 32;
constexpr Duration pause = std::chrono::milliseconds(10);

// The user left, or was made to; else its SAs went under it.
bool left(Reason why) {
    return why == Reason::deregistered_by_ue || why == Reason::deregistered_by_network ||
           why == Reason::expired;
}

int status_for(Reason why) {
    return left(why) ? 480 : 503;
}

std::string_view cause_for(Reason why) {
    return left(why) ? "SIP;cause=480;text=\"Registration ended\""
                     : "SIP;cause=503;text=\"Security associations lost\"";
}

}  // namespace

void Proxy::ByeUser::on_response(sip::ClientTransactionId /*id*/, std::uint64_t trace_user,
                                 const sip::Flow& /*flow*/, const sip::Message& response,
                                 std::span<char> /*bytes*/) {
    ctx_.note(trace_user, "BYE", response.status_code(), {far_, Entity::pcscf});
}

void Proxy::ByeUser::on_failure(sip::ClientTransactionId /*id*/, std::uint64_t /*trace_user*/,
                                sip::ClientFailure /*failure*/) {
    // It is gone, or its SAs are: nobody is waited for.
}

void Proxy::release(sa::UserId user, Reason why) {
    dialogs_.end(user, why);
    if (const auto mine = users_.find(user); mine != users_.end()) {
        for (const SlotId id : mine->second.invites) {
            Exchange* e = exchanges_.find(id);
            if (e == nullptr || e->ended != Reason::ok) continue;
            e->ended = why;
            ended_invites_.push_back(id);
        }
    }
    start_release_timer();
}

void Proxy::start_release_timer() {
    if (release_timer_.active()) return;
    if (dialogs_.next_ended() == nullptr && ended_at_ == ended_invites_.size()) return;
    ctx_.timers.start(release_timer_, pause);
}

void Proxy::on_release_timer() {
    std::size_t budget = batch;
    for (; budget > 0 && ended_at_ < ended_invites_.size(); --budget) {
        Exchange* e = exchanges_.find(ended_invites_[ended_at_++]);
        if (e != nullptr && !e->answered && !e->released) release_invite(*e);
    }
    if (ended_at_ == ended_invites_.size()) {
        ended_invites_ = {};
        ended_at_ = 0;
    }
    for (; budget > 0; --budget) {
        const Dialog* d = dialogs_.next_ended();
        if (d == nullptr) break;
        // The phone first: its SAs may be about to go.
        say_to_ue(*d, "BYE", d->core_cseq + 1);
        say_to_core(*d, "BYE", d->ue_cseq + 1);
        ctx_.metrics.session_released();
        dialogs_.remove(d->id);
    }
    dialogs_changed();
    start_release_timer();
}

void Proxy::release_invite(Exchange& e) {
    e.released = true;
    e.cancelled = true;
    e.timer.stop();
    unlist(e);
    unreserve(e);
    const int status = status_for(e.ended);
    const sa::User* user = ctx_.sets.find_user(e.user);
    ctx_.answer_later(inner(e), e.server, e.head, e.source, status,
                      {{"Reason", cause_for(e.ended)}});
    ctx_.note(e.trace_user, e.method_name(), status,
              {Entity::pcscf, e.from_ue ? Entity::ue : Entity::core, Step::none, 0, 0, e.ended});
    ctx_.metrics.session_released();
    e.server = 0;
    if (!e.from_ue && (user == nullptr || ctx_.sets.outbound(*user) == nullptr)) return close(e.id);
    // RFC 3261 9.1: not before a first answer. Without one the INVITE times out, or is answered.
    if (e.provisional) send_cancel(e);
}

void Proxy::on_released_response(Exchange& e, const sip::Message& response) {
    const int status = response.status_code();
    if (status < 200) {
        e.provisional = true;
        if (e.cancel_interval == Duration{}) send_cancel(e);
        return;
    }
    e.answered = true;
    if (!e.invite || status >= 300) {
        e.client = 0;
        return close(e.id);
    }
    // It crossed the CANCEL: a dialog nobody wants. It is taken, and ended.
    if (Dialog* d = track(e, response)) {
        if (e.from_ue) {
            say_to_core(*d, "ACK", d->ue_cseq);
        } else {
            say_to_ue(*d, "ACK", d->core_cseq);
        }
        dialogs_.end(*d, e.ended);
        start_release_timer();
    }
    ctx_.timers.start(e.timer, ctx_.policy.t1 * 64);
}

void Proxy::shut_down() {
    while (ended_at_ < ended_invites_.size() || dialogs_.next_ended() != nullptr)
        on_release_timer();
    release_timer_.stop();
    idle_timer_.stop();
    for (std::size_t i = 0; i < exchanges_.slots(); ++i) {
        Exchange* e = exchanges_.at(i);
        if (e == nullptr) continue;
        if (!e->answered && e->server != 0) {
            ctx_.answer_later(inner(*e), e->server, e->head, e->source, 503,
                              {{"Retry-After", "10"}});
            ctx_.note(e->trace_user, e->method_name(), 503,
                      {Entity::pcscf, e->from_ue ? Entity::ue : Entity::core, Step::none, 0, 0,
                       Reason::shutdown});
            e->server = 0;
        }
        if (e->invite && !e->answered && e->provisional) send_cancel(*e);
        close(e->id);
    }
}

bool Proxy::say_to_core(const Dialog& dialog, std::string_view method, std::uint32_t number) {
    // The route set as in 12.2.1.1: a first hop without lr is a strict router.
    std::vector<std::string_view> route;
    if (!dialog.core_route().empty()) {
        sip::ValueSplitter splitter(dialog.core_route());
        while (const auto hop = splitter.next()) route.push_back(*hop);
    }
    std::string_view target = dialog.core_target();
    const std::string last = "<" + std::string(target) + ">";
    const std::string first(route.empty() ? std::string_view(last) : route.front());
    if (!route.empty()) {
        const auto hop = sip::parse_name_addr(first);
        if (hop && !hop->uri.param("lr")) {
            route.erase(route.begin());
            if (!target.empty()) route.push_back(last);
            target = hop->uri.text;
        }
    }
    if (target.empty()) return false;
    sip::Flow flow = ctx_.core_flow();
    if (const auto wanted = ctx_.flow_to(first); wanted && ctx_.trusts(wanted->remote.address))
        flow = *wanted;
    const auto branch = ctx_.core.transactions->new_branch();
    if (branch.id == 0) {
        ctx_.refuse(Reason::transaction_limit, 0, flow.remote, {});
        return false;
    }
    const std::uint16_t port = flow.local.port == 0 ? ctx_.core_local.port : flow.local.port;
    sip::RequestBuilder b(method, target);
    b.header("Via", {"SIP/2.0/", sip::name(flow.transport), " ", flow.local.address.to_uri_host(),
                     ":", std::to_string(port), ";branch=", branch.view()});
    b.header("Max-Forwards", "70");
    for (const std::string_view hop : route) b.header("Route", hop);
    b.header("From", dialog.ue_party())
        .header("To", dialog.core_party())
        .header("Call-ID", dialog.call_id())
        .header("CSeq", {std::to_string(number), " ", method});
    const bool bye = method == "BYE";
    if (bye) b.header("Reason", cause_for(dialog.ended));
    const auto message = b.finish();
    if (!message || !bye) {
        ctx_.core.transactions->abandon(branch.id);
        if (!message || !ctx_.core.transport->send(flow, *message)) return false;
    } else if (!ctx_.core.transactions->send_request(branch, flow, method, *message, bye_to_core_,
                                                     dialog.trace_user)) {
        return false;
    }
    ctx_.note(dialog.trace_user, method, 0,
              {Entity::pcscf, Entity::core, Step::none, 0, 0, dialog.ended});
    return true;
}

bool Proxy::say_to_ue(const Dialog& dialog, std::string_view method, std::uint32_t number) {
    const sa::User* user = ctx_.sets.find_user(dialog.user);
    const sa::SaSet* set = user == nullptr ? nullptr : ctx_.sets.outbound(*user);
    if (set == nullptr) return false;
    const std::string target(dialog.ue_target().empty() ? user->contact() : dialog.ue_target());
    if (target.empty()) return false;
    const Registration* registration = registrations_.find(dialog.user);
    sip::Transport transport =
        registration == nullptr ? sip::Transport::udp : registration->transport;
    if (wants_tcp(target)) transport = sip::Transport::tcp;
    const Carrier carrier = Carrier::of(*set);
    const sip::Flow flow = request_path(transport, set->ours, set->ue, carrier.numbers);
    const auto branch = ctx_.gm.transactions->new_branch();
    if (branch.id == 0) {
        ctx_.refuse(Reason::transaction_limit, 0, flow.remote, {});
        return false;
    }
    sip::RequestBuilder b(method, target);
    b.header("Via", {"SIP/2.0/", sip::name(transport), " ", set->ours.to_uri_host(), ":",
                     std::to_string(carrier.numbers.port_ps), ";branch=", branch.view()})
        .header("Max-Forwards", "70")
        .header("From", dialog.core_party())
        .header("To", dialog.ue_party())
        .header("Call-ID", dialog.call_id())
        .header("CSeq", {std::to_string(number), " ", method});
    const bool bye = method == "BYE";
    if (bye) b.header("Reason", cause_for(dialog.ended));
    const auto message = b.finish();
    if (!message || !bye) {
        ctx_.gm.transactions->abandon(branch.id);
        if (!message || !ctx_.gm.transport->send(flow, *message)) return false;
    } else if (!ctx_.gm.transactions->send_request(branch, flow, method, *message, bye_to_ue_,
                                                   dialog.trace_user)) {
        return false;
    }
    ctx_.note(dialog.trace_user, method, 0,
              {Entity::pcscf, Entity::ue, Step::none, carrier.set,
               outbound_spi(flow, carrier.numbers), dialog.ended});
    return true;
}

}  // namespace gmgate::registration
