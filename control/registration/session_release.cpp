// Sessions ended in the place of a user whose registration or SAs are gone (TS 24.229 5.2.8.1).

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

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
    if (why == Reason::ue_timeout) return 408;
    return left(why) ? 480 : 503;
}

std::string_view cause_for(Reason why) {
    if (why == Reason::ue_timeout) return "SIP;cause=408;text=\"Not acknowledged\"";
    if (why == Reason::emergency_limit) return "SIP;cause=503;text=\"Too many calls\"";
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

void Proxy::release_identities(sa::UserId user, std::span<const std::string> gone, Reason why) {
    std::vector<std::uint32_t> marks;
    for (const std::string& identity : gone) marks.push_back(identity_mark(identity));
    const auto doomed = [&marks](const auto& x) {
        return std::ranges::find(marks, x.identity) != marks.end();
    };
    dialogs_.end_if(user, why, doomed);
    if (const auto mine = users_.find(user); mine != users_.end()) {
        for (const SlotId id : mine->second.invites) {
            Exchange* e = exchanges_.find(id);
            // One in a dialog ends with the dialog.
            if (e == nullptr || !e->invite || e->dialog != 0 || e->ended != Reason::ok ||
                !doomed(*e))
                continue;
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
        if (e == nullptr || e->answered || e->released) continue;
        e->invite ? release_invite(*e) : release_request(*e);
    }
    if (ended_at_ == ended_invites_.size()) {
        ended_invites_ = {};
        ended_at_ = 0;
    }
    for (; budget > 0; --budget) {
        const Dialog* d = dialogs_.next_ended();
        if (d == nullptr) break;
        // The phone first: its SAs may be about to go. Where one end has said it the other hears it
        // from there.
        if (!d->ending) {
            say_to_ue(*d, "BYE", d->core_cseq + 1);
            say_to_core(*d, "BYE", d->ue_cseq + 1);
        }
        ctx_.metrics.session_released();
        const sa::UserId user = d->user;
        dialogs_.remove(d->id);
        settle_call(user);
    }
    dialogs_changed();
    start_release_timer();
}

void Proxy::release_request(Exchange& e) {
    const sa::User* user = ctx_.sets.find_user(e.user);
    if (user != nullptr && ctx_.sets.outbound(*user) != nullptr) {
        e.ended = Reason::ok;  // what tells the phone that it is gone still gets there (D4)
        return;
    }
    // RFC 4320 forbids a 408 here, and one that waits for timer F would come when nobody wants it.
    // A 480 at once lets the core try elsewhere.
    ctx_.refuse(Reason::ue_unreachable, 480, e.source, {});
    ctx_.answer_later(inner(e), e.server, e.head, e.source, 480, {{"Reason", cause_for(e.ended)}});
    ctx_.note(e.trace_user, e.method_name(), 480,
              {Entity::pcscf, Entity::core, Step::none, 0, 0, Reason::ue_unreachable});
    e.server = 0;
    close(e.id);
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

std::optional<Proxy::WayToCore> Proxy::way_to_core(const Dialog& dialog) const {
    WayToCore way{std::string(dialog.core_target()), std::string(dialog.core_route()),
                  ctx_.core_flow()};
    if (const EmergencyCall* call = is_stranger(dialog.user) ? calls_.find(dialog.user) : nullptr)
        way.flow = call->core;
    const std::string last = "<" + way.target + ">";
    std::string first = last;
    if (!way.route.empty()) {
        sip::ValueSplitter hops(dialog.core_route());
        first = hops.next().value_or(std::string_view{});
        const auto hop = sip::parse_name_addr(first);
        if (hop && !hop->uri.param("lr")) {
            std::string rest;
            while (const auto next = hops.next()) rest.append(*next).append(", ");
            if (!way.target.empty()) rest.append(last).append(", ");
            if (!rest.empty()) rest.resize(rest.size() - 2);
            way.route = std::move(rest);
            way.target = hop->uri.text;
        }
    }
    if (way.target.empty()) return std::nullopt;
    if (const auto wanted = ctx_.flow_to(first); wanted && ctx_.trusts(wanted->remote.address))
        way.flow = *wanted;
    return way;
}

bool Proxy::say_to_core(const Dialog& dialog, std::string_view method, std::uint32_t number) {
    const auto way = way_to_core(dialog);
    if (!way) return false;
    const std::uint16_t port =
        way->flow.local.port == 0 ? ctx_.core_local.port : way->flow.local.port;
    return say({.side = ctx_.core,
                .answers = bye_to_core_,
                .flow = way->flow,
                .sent_by = way->flow.local.address.to_uri_host() + ":" + std::to_string(port),
                .target = way->target,
                .route = way->route,
                .from = dialog.ue_party(),
                .to = dialog.core_party()},
               dialog, method, number);
}

bool Proxy::say_to_ue(const Dialog& dialog, std::string_view method, std::uint32_t number) {
    std::string target(dialog.ue_target());
    WayToUe way;
    Carrier carrier;
    if (is_stranger(dialog.user)) {
        const EmergencyCall* call = calls_.find(dialog.user);
        if (call == nullptr || !call->reachable()) return false;
        way = {call->way, sent_by_in_clear(*call)};
    } else {
        const sa::User* user = ctx_.sets.find_user(dialog.user);
        const sa::SaSet* set = user == nullptr ? nullptr : ctx_.sets.outbound(*user);
        if (set == nullptr) return false;
        if (target.empty()) target = user->contact();
        const Registration* registration = registrations_.find(dialog.user);
        const sip::Transport transport = wanted_transport(target).value_or(
            registration == nullptr ? sip::Transport::udp : registration->transport);
        carrier = Carrier::of(*set);
        way = {request_path(transport, set->ours, set->ue, carrier.numbers),
               set->ours.to_uri_host() + ":" + std::to_string(carrier.numbers.port_ps)};
    }
    if (target.empty()) return false;
    return say({.side = ctx_.gm,
                .answers = bye_to_ue_,
                .flow = way.flow,
                .sent_by = way.sent_by,
                .target = target,
                .route = {},
                .from = dialog.core_party(),
                .to = dialog.ue_party(),
                .carrier = carrier},
               dialog, method, number);
}

bool Proxy::say(const Words& words, const Dialog& dialog, std::string_view method,
                std::uint32_t number) {
    const auto party = is_stranger(dialog.user) ? sip::TransactionLayer::Party::stranger
                                                : sip::TransactionLayer::Party::known;
    auto& transactions = *words.side.transactions;
    const auto branch = transactions.new_branch(party);
    if (branch.id == 0) {
        ctx_.refuse(Reason::transaction_limit, 0, words.flow.remote, {});
        return false;
    }
    sip::RequestBuilder b(method, words.target);
    b.header("Via", {"SIP/2.0/", sip::name(words.flow.transport), " ", words.sent_by,
                     ";branch=", branch.view()})
        .header("Max-Forwards", "70");
    if (!words.route.empty()) b.header("Route", words.route);
    b.header("From", words.from)
        .header("To", words.to)
        .header("Call-ID", dialog.call_id())
        .header("CSeq", {std::to_string(number), " ", method});
    const bool bye = method == "BYE";
    if (bye) b.header("Reason", cause_for(dialog.ended));
    const auto message = b.finish();
    if (!message || !bye) {
        transactions.abandon(branch.id);
        if (!message || !words.side.transport->send(words.flow, *message)) return false;
    } else if (!transactions.send_request(branch, words.flow, method, *message, words.answers,
                                          dialog.trace_user)) {
        return false;
    }
    const bool to_ue = &words.side == &ctx_.gm;
    ctx_.note(dialog.trace_user, method, 0,
              {Entity::pcscf, to_ue ? Entity::ue : Entity::core, Step::none, words.carrier.set,
               to_ue ? outbound_spi(words.flow, words.carrier.numbers) : 0, dialog.ended});
    return true;
}

}  // namespace gmgate::registration
