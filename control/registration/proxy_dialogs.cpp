// The proxy's dialogs: made by answers to INVITE, followed through their requests, forgotten at the
// end (RFC 3261 12, 16).

#include <algorithm>
#include <string>
#include <vector>

#include "control/registration/emergency.h"
#include "control/registration/proxy.h"
#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

// A header's value on one line: it may be written into a message of ours.
std::string on_one_line(std::string_view value) {
    std::string out;
    sip::append_on_one_line(out, value);
    return out;
}

std::string party_of(const sip::Message& message, HeaderId id) {
    return on_one_line(message.value(id).value_or(std::string_view{}));
}

std::string target_of(const sip::Message& message) {
    const auto value = message.first_value(HeaderId::contact);
    const auto contact = value ? sip::parse_contact(*value) : std::nullopt;
    return contact && !contact->star ? on_one_line(contact->address.uri.text) : std::string{};
}

std::string joined(const std::vector<std::string_view>& values) {
    std::string out;
    for (const std::string_view v : values) {
        if (!out.empty()) out += ", ";
        sip::append_on_one_line(out, v);
    }
    return out;
}

// RFC 3261 8.1.1.5: less than 2^31. What we say next has the next one.
constexpr std::uint32_t highest_cseq = 0x7FFF'FFFE;

}  // namespace

bool Proxy::has_room_for_call(sa::UserId user) const {
    const auto mine = users_.find(user);
    const std::size_t reserved = mine == users_.end() ? 0 : mine->second.reserved;
    return reserved < ctx_.policy.limits.dialogs_per_user &&
           dialogs_.size() - dialogs_.of_strangers() + reserved_ < ctx_.policy.limits.dialogs;
}

bool Proxy::has_room_for_branch(const Exchange& e) const {
    const auto mine = users_.find(e.user);
    const std::size_t reserved = mine == users_.end() ? 0 : mine->second.reserved;
    return e.forks < most_forks && dialogs_.has_room(e.user, reserved + 1, reserved_ + 1);
}

std::uint64_t Proxy::call_of(std::string_view call_id, std::string_view caller) const {
    std::string text;
    text.reserve(call_id.size() + 1 + caller.size());
    text.append(call_id).append(1, '\n').append(caller);
    return loop_hash_(text);
}

bool Proxy::runs_in_dialog(const sip::Message& request, sa::UserId user) const {
    if (!in_dialog(request)) return false;
    const DialogName name = name_of(request, true, user);
    if (dialogs_.find(name) != nullptr) return true;
    const Registration* registration = registrations_.find(user);
    const bool asks = subscribes(request.method());
    const bool notifies = request.is_method("NOTIFY");
    if (registration != nullptr && (asks || notifies) &&
        (registration->dialogs.has(subscription_of(name.call_id, name.ue_tag, name.core_tag)) ||
         registration->dialogs.has(subscription_of(name.call_id, name.core_tag, name.ue_tag))))
        return true;
    const bool ack = request.is_method("ACK");
    const auto mine = users_.find(user);
    if (mine == users_.end()) return false;
    return std::ranges::any_of(mine->second.invites, [&](SlotId id) {
        const Exchange* e = exchanges_.find(id);
        // The phone's NOTIFY may overtake its answer to the SUBSCRIBE.
        if (e == nullptr || (e->invite ? asks : !notifies)) return false;
        return (ack || e->dialog == 0 || !e->invite) &&
               e->call == call_of(name.call_id, e->from_ue ? name.ue_tag : name.core_tag);
    });
}

bool Proxy::asks_for_help(const sip::Message& request, std::string_view target,
                          sa::UserId user) const {
    if (request.is_method("ACK") || !is_emergency(target, ctx_.policy.emergency_numbers))
        return false;
    const Dialog* d = in_dialog(request) ? dialogs_.find(name_of(request, true, user)) : nullptr;
    return d == nullptr || d->core_target() != target;
}

DialogName Proxy::name_of(const sip::Message& request, bool from_ue, sa::UserId user) {
    const std::string_view from = sip::from_tag(request);
    const std::string_view to = sip::to_tag(request);
    return {user, sip::call_id(request), from_ue ? from : to, from_ue ? to : from};
}

void Proxy::follow(const sip::Message& request, bool from_ue, sa::UserId user, Exchange* e) {
    if (dialogs_.size() == 0 || e == nullptr) return;  // an ACK brings nothing new
    Dialog* d = dialogs_.find(name_of(request, from_ue, user));
    if (d == nullptr) return;
    dialogs_.touch(*d, ctx_.now());
    if (is_stranger(user)) {
        if (EmergencyCall* call = calls_.find(user)) calls_.touch(*call);
    }
    if (const auto number = sip::cseq(request); number && number->number <= highest_cseq) {
        std::uint32_t& latest = from_ue ? d->ue_cseq : d->core_cseq;
        latest = std::max(latest, number->number);
    }
    e->dialog = d->id;
    if (e->invite || request.is_method("UPDATE")) e->target = target_of(request);
}

Dialog* Proxy::track(Exchange& e, const sip::Message& response) {
    const std::string_view called_tag = sip::to_tag(response);
    if (e.dialog != 0 || called_tag.empty()) return nullptr;  // made long ago
    sip::Message invite;
    if (invite.parse(e.sent) != sip::ParseStatus::ok || in_dialog(invite)) return nullptr;
    const bool confirms = response.status_code() >= 200;
    const std::string caller = party_of(invite, HeaderId::from);
    const std::string called = party_of(response, HeaderId::to);
    const std::string calling_target = target_of(invite);
    const std::string called_target = target_of(response);

    // The caller's route set is the answer's Record-Route from the bottom up, the called one's is
    // the request's from the top down (12.1); what is ours in it ends at us.
    std::vector<std::string_view> route;
    if (e.from_ue) {
        std::size_t beyond_us = 0;
        for (const sip::Value& v : response.values(HeaderId::record_route)) {
            const auto name = sip::parse_name_addr(v.text);
            if (name && ctx_.is_our_core_host(name->uri) &&
                ctx_.tokens.open(name->uri.user) == e.user)
                beyond_us = route.size();  // the lowest: a call may come back through us
            route.push_back(v.text);
        }
        route.resize(beyond_us);
        std::ranges::reverse(route);
    } else {
        for (const sip::Value& v : invite.values(HeaderId::record_route)) route.push_back(v.text);
        constexpr std::size_t ours = 2;
        route.erase(route.begin(),
                    route.begin() + static_cast<std::ptrdiff_t>(std::min(ours, route.size())));
    }
    const std::string core_route = joined(route);

    const DialogTexts texts{sip::call_id(response),
                            e.from_ue ? caller : called,
                            e.from_ue ? called : caller,
                            e.from_ue ? calling_target : called_target,
                            e.from_ue ? called_target : calling_target,
                            core_route};
    const DialogName name{e.user, texts.call_id, e.from_ue ? sip::from_tag(invite) : called_tag,
                          e.from_ue ? called_tag : sip::from_tag(invite)};
    const std::uint64_t tag = loop_hash_(called_tag);
    const bool again = std::ranges::find(e.confirmed, tag) != e.confirmed.end();
    Dialog* d = dialogs_.find(name);
    if (d != nullptr) {
        dialogs_.touch(*d, ctx_.now());
        dialogs_.retarget(*d, texts.ue_target, texts.core_target, texts.core_route);
    } else {
        // A repeated answer, and the dialog has ended: by BYE, or another took its place.
        if (again && !e.released) return nullptr;
        if (e.reserves) {
            unreserve(e);
            dialogs_.make_room(e.user);
        } else if (!e.released && !has_room_for_branch(e)) {
            if (!confirms || !dialogs_.remove_one_early(e.user, e.id)) {
                // One more branch of a forked call than there is room for: it goes on, unknown to
                // us.
                ctx_.refuse(Reason::dialog_limit, 0, e.sent_to.remote, {});
                return nullptr;
            }
            if (e.forks > 0) --e.forks;
        }
        d = dialogs_.add(e.user, e.id, texts, ctx_.now());
        if (d == nullptr) {
            ctx_.refuse(Reason::dialog_limit, 0, e.sent_to.remote, {});
            return nullptr;
        }
        if (!again) ++e.forks;
        d->trace_user = e.trace_user;
        d->identity = e.identity;
        if (const auto number = sip::cseq(invite); number && number->number <= highest_cseq)
            (e.from_ue ? d->ue_cseq : d->core_cseq) = number->number;
        dialogs_changed();
    }
    if (confirms && d->invite == e.id) {
        d->invite = 0;
        if (!again) e.confirmed.push_back(tag);
    }
    return d;
}

void Proxy::followed(Exchange& e, const sip::Message& response) {
    Dialog* d = e.dialog == 0 ? nullptr : dialogs_.find(e.dialog);
    if (d == nullptr) return;
    const int status = response.status_code();
    if (e.method_name() == "BYE") {
        // Whoever said it is done with the dialog (15.1.1), unless it must show who it is first.
        d->ending = false;
        if (status != 401 && status != 407) drop_dialog(d->id);
        return;
    }
    if (status >= 300 || e.target.empty()) return;
    const std::string answered = target_of(response);  // 12.2.1.2, RFC 3311
    dialogs_.retarget(*d, e.from_ue ? e.target : answered, e.from_ue ? answered : e.target);
}

std::uint64_t Proxy::subscription_of(std::string_view call_id, std::string_view subscriber,
                                     std::string_view notifier) const {
    std::string text;
    text.reserve(call_id.size() + subscriber.size() + notifier.size() + 2);
    text.append(call_id).append(1, '\n').append(subscriber).append(1, '\n').append(notifier);
    return loop_hash_(text);
}

void Proxy::note_subscription(const Exchange& e, const sip::Message& response) {
    const bool notifies = e.method_name() == "NOTIFY";
    if (!notifies && !subscribes(e.method_name())) return;
    Registration* registration = registrations_.find(e.user);
    if (registration == nullptr) return;
    sip::Message request;
    if (request.parse(e.head) != sip::ParseStatus::ok) return;
    // The notifier's tag is in it: nobody makes one up behind a Call-ID and a tag of its own.
    const auto subscriber = notifies ? sip::to_tag(request) : sip::from_tag(request);
    const auto notifier = notifies ? sip::from_tag(request) : sip::to_tag(response);
    if (subscriber.empty() || notifier.empty()) return;
    registration->dialogs.note(
        subscription_of(sip::call_id(request), subscriber, notifier),
        e.from_ue != notifies ? Subscriptions::Of::phone : Subscriptions::Of::core);
}

void Proxy::drop_dialog(SlotId id) {
    const Dialog* d = dialogs_.find(id);
    const sa::UserId user = d == nullptr ? 0 : d->user;
    dialogs_.remove(id);
    dialogs_changed();
    settle_call(user);
}

void Proxy::dialogs_changed() {
    ctx_.metrics.set_dialogs(dialogs_.size());
    const Dialog* oldest = dialogs_.oldest();
    if (oldest == nullptr) {
        idle_timer_.stop();
    } else if (!idle_timer_.active()) {
        ctx_.timers.start_at(idle_timer_, Dialogs::last_use(*oldest) + ctx_.policy.dialog_idle);
    }
}

void Proxy::on_idle_timer() {
    // Nobody has spoken in them for so long that both ends may have forgotten them: we do too, and
    // say nothing. A few at a time.
    for (int i = 0; i < 64; ++i) {
        const Dialog* oldest = dialogs_.oldest();
        if (oldest == nullptr || Dialogs::last_use(*oldest) + ctx_.policy.dialog_idle > ctx_.now())
            break;
        const sa::UserId user = oldest->user;
        dialogs_.remove(oldest->id);
        settle_call(user);
    }
    dialogs_changed();
}

}  // namespace gmgate::registration
