// Core → UE (E3).
#include "control/registration/proxy.h"

#include "control/registration/edits.h"
#include "control/registration/identity.h"
#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

using sip::HeaderId;

void Proxy::on_core_request(const Arrival& arrival, const sip::Message& request) {
    if (request.is_method("CANCEL")) return on_cancel(ctx_.core, arrival, request);
    std::optional<std::uint64_t> user_id;
    bool target_is_us = false;
    if (const auto route = sip::first_route(request, HeaderId::route);
        route && ctx_.is_our_core_host(route->uri)) {
        user_id = ctx_.tokens.open(route->uri.user);
    }
    if (const auto uri = sip::parse_uri(request.request_uri());
        uri && ctx_.is_our_core_host(*uri)) {
        if (!user_id) user_id = ctx_.tokens.open(uri->user);
        target_is_us = true;
        if (!user_id && request.is_method("OPTIONS") && uri->user.empty()) {
            return ctx_.answer(ctx_.core, arrival, request, 200, Reason::ok);  // "are you alive?"
        }
        // For us alone, and we do not know what it is (RFC 3261 21.5.2). What is for a phone goes
        // on whatever it is called.
        if (!user_id && uri->user.empty() && known_method(request.method()) == "OTHER")
            return ctx_.answer(ctx_.core, arrival, request, 501, Reason::unknown_flow);
    }
    // RFC 3261 16.3: only what goes on.
    if (const auto rejection = sip::check_routable(request)) {
        const Reason why = rejection->code == 483 ? Reason::too_many_hops : Reason::unsupported_uri;
        return ctx_.answer(ctx_.core, arrival, request, rejection->code, why);
    }
    if (!user_id && ctx_.policy.interconnect == Interconnect::via) {
        // The core took our Via for the flow and knows no Path: the Contact tells the phone.
        if (const auto uri = sip::parse_uri(request.request_uri()))
            user_id = registrations_.user_at(uri->host, uri->port);
        // A Contact says what its phone likes. Who is there must have said that it is his: else a
        // call goes to another phone than the one that named his address (E3).
        const sa::User* there = user_id ? ctx_.sets.find_user(*user_id) : nullptr;
        const auto asked = sip::parse_uri(request.request_uri());
        const auto contact = there ? sip::parse_uri(there->contact()) : std::nullopt;
        if (!asked || !contact || !same_uri(*asked, *contact)) user_id.reset();
    }
    if (!user_id) return ctx_.answer(ctx_.core, arrival, request, 404, Reason::unknown_flow);
    if (is_stranger(*user_id)) return on_request_in_call(arrival, request, *user_id);
    const sa::User* user = ctx_.sets.find_user(*user_id);
    const Registration* registration = user == nullptr ? nullptr : registrations_.find(user->id);
    const sa::SaSet* set = registration == nullptr ? nullptr : ctx_.sets.outbound(*user);
    // Who leaves is told so, and ends its dialogs; nothing new begins on SAs that are about to go
    // (D4).
    const bool ended = set != nullptr && registration->bindings.empty() && !in_dialog(request) &&
                       !request.is_method("NOTIFY");
    if (set == nullptr || ended) {
        return ctx_.answer(ctx_.core, arrival, request, 480, Reason::not_registered,
                           user == nullptr ? std::string_view{} : user->impi());
    }
    const std::string impi(user->impi());
    // Its sessions have ended with its registration, and it was told. In a call between two phones
    // that leave at once each would hear it twice.
    if (registration->bindings.empty() && request.is_method("BYE") &&
        dialogs_.find(name_of(request, false, user->id)) == nullptr)
        return ctx_.answer(ctx_.core, arrival, request, 481, Reason::unknown_transaction, impi);
    const std::uint64_t mark = loop_mark(request, false, user->id);
    if (has_looped(request, mark))
        return ctx_.answer(ctx_.core, arrival, request, 482, Reason::loop_detected, impi);
    const Carrier carrier = Carrier::of(*set);
    const IpAddress ours = set->ours;
    const IpAddress ue = set->ue;

    // As it registered, or as its Contact says; in a dialog that of the dialog.
    auto named = wanted_transport(request.request_uri());
    if (!named) named = wanted_transport(user->contact());
    sip::Transport transport = named.value_or(registration->transport);
    if (!in_dialog(request) && request.is_method("INVITE") && !has_room_for_call(user->id)) {
        return ctx_.answer(ctx_.core, arrival, request, 503, Reason::dialog_limit, impi,
                           {{"Retry-After", "10"}});
    }
    const auto branch = ctx_.gm.transactions->new_branch(sip::TransactionLayer::Party::known, mark);
    Exchange* e = branch.id == 0 || arrival.transaction == 0
                      ? nullptr
                      : open(arrival, request, false, user->id);
    if (branch.id == 0 || (e == nullptr && arrival.transaction != 0)) {
        if (branch.id != 0) ctx_.gm.transactions->abandon(branch.id);
        return ctx_.answer(ctx_.core, arrival, request, 503, Reason::transaction_limit, impi,
                           {{"Retry-After", "10"}});
    }
    const std::uint64_t trace_user = registration->trace_user;
    ctx_.note(trace_user, request.method(), 0, {Entity::core, Entity::pcscf});
    if (e != nullptr) {
        e->trace_user = trace_user;
        e->carrier = carrier;
        if (e->invite) e->identity = called_identity(request, *user);
    }
    if (in_dialog(request)) follow(request, false, user->id, e);

    // A strict router before us put our route where the target belongs, and the target last (RFC
    // 3261 16.4); a request by the Path alone is for the phone's contact.
    std::string new_target;
    if (target_is_us) {
        new_target = user->contact();
        std::string_view last;
        for (const sip::Value& value : request.values(HeaderId::route)) last = value.text;
        const auto name = last.empty() ? std::nullopt : sip::parse_name_addr(last);
        if (name && !ctx_.is_our_core_host(name->uri) && !is_ue_side_route(name->uri))
            new_target = name->uri.text;
    }
    const FlowTokens::Text token = ctx_.tokens.make(user->id);
    const std::string ue_side = ue_side_uri(ours, carrier.numbers.port_ps);
    const auto changes = [&](sip::Edit& edit) {
        if (!new_target.empty()) edit.replace_request_uri({new_target});
        if (makes_dialog(request.method())) {
            edit.push_header(
                HeaderId::record_route,
                {ue_side, ", <sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>"});
        }
    };
    forward_to_ue(arrival, request, e, branch,
                  {request_path(transport, ours, ue, carrier.numbers),
                   ours.to_uri_host() + ":" + std::to_string(carrier.numbers.port_ps), true},
                  {trace_user, impi, carrier}, changes);
}

// TS 24.229 5.2.6.4: P-Called-Party-ID says for whom it is; the To is what somebody dialled.
std::uint32_t Proxy::called_identity(const sip::Message& request, const sa::User& user) const {
    for (const HeaderId id : {HeaderId::p_called_party_id, HeaderId::to}) {
        const auto identity = identity_of(request, id);
        if (identity && user.has_impu(*identity)) return identity_mark(*identity);
    }
    return identity_mark(user.impu_count() > 0 ? user.impu(0) : std::string_view{});
}

void Proxy::forward_to_ue(const Arrival& arrival, const sip::Message& request, Exchange* e,
                          const sip::TransactionLayer::Branch& branch, WayToUe way,
                          const Traced& traced, const Changes& changes) {
    const auto edited = [&] {
        sip::Edit edit(request);
        edit.stamp_top_via(arrival.flow.remote);
        edit.push_via({"SIP/2.0/", sip::name(way.flow.transport), " ", way.sent_by,
                       ";branch=", branch.view()});
        edit.set_max_forwards(hops_left(request));
        strip_to_ue(edit);
        // Behind us there is only the UE: no route is left to follow.
        edit.remove_all(HeaderId::route);
        edit.remove_all(HeaderId::path);
        if (wants_privacy(request)) edit.remove_all(HeaderId::p_asserted_identity);
        changes(edit);
        edit.ensure_content_length();
        return static_cast<bool>(edit.apply(ctx_.scratch));
    };
    const sip::Transport smaller = way.flow.transport;
    bool possible = edited();
    // What counts is what leaves: Via, Record-Route and the phone's own address come on top.
    if (possible && way.takes_streams && way.flow.transport == sip::Transport::udp &&
        ctx_.scratch.size() > udp_limit) {
        way.flow.transport = sip::Transport::tcp;
        possible = edited();
        if (e != nullptr) e->chose_tcp_for_size = true;
    }
    if (!possible) {
        ctx_.gm.transactions->abandon(branch.id);
        if (e != nullptr) {
            e->server = 0;
            close(e->id);
        }
        return ctx_.answer(ctx_.core, arrival, request, 400, Reason::malformed, traced.impi);
    }
    if (e == nullptr) {  // an ACK of a 2xx
        ctx_.gm.transactions->abandon(branch.id);
        if (!ctx_.gm.transport->send(way.flow, ctx_.scratch) && way.flow.transport != smaller) {
            way.flow.transport = smaller;
            if (edited()) ctx_.gm.transport->send(way.flow, ctx_.scratch);
        }
        ctx_.note(
            traced.user, request.method(), 0,
            {Entity::pcscf, Entity::ue, Step::none, traced.carrier.set,
             outbound_spi(way.flow, traced.carrier.numbers), Reason::ok, 0, way.flow.transport});
        return;
    }
    launch(arrival, request, *e, branch, way.flow);
}

}  // namespace gmgate::registration
