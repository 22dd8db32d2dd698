#include "control/registration/proxy.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.h"
#include "control/registration/edits.h"
#include "control/registration/identity.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

constexpr std::size_t udp_limit = 1300;  // RFC 3261 18.1.1: a larger request goes over TCP

bool makes_dialog(std::string_view method) {
    return method == "INVITE" || method == "SUBSCRIBE" || method == "REFER" || method == "NOTIFY";
}

bool in_dialog(const sip::Message& request) {
    const auto to = sip::to(request);
    return to && !to->tag().empty();
}

bool wants_tcp(std::string_view uri_text) {
    const auto uri = sip::parse_uri(uri_text);
    if (!uri) return false;
    const auto transport = uri->param("transport");
    return transport && iequals(transport->value, "tcp");
}

}  // namespace

std::string_view Proxy::Exchange::method_name() const {
    return {method.data(), ::strnlen(method.data(), method.size())};
}

void Proxy::Exchange::on_timer() {
    if (answered) return proxy.close(id);
    const Duration limit = proxy.ctx_.policy.t1 * 64;
    if (cancel_waited >= limit) {
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

Proxy::Proxy(Context& context, const Registrations& registrations)
    : ctx_(context),
      registrations_(registrations),
      loop_hash_(context.random),
      invites_(16, SeededStringHash{SeededHash(context.random)}) {}

Proxy::~Proxy() = default;

Proxy::Exchange* Proxy::open(const Arrival& arrival, const sip::Message& request, bool from_ue) {
    if (exchanges_.size() >= ctx_.policy.limits.proxied) return nullptr;
    if (from_ue) {
        // One phone must not use up what all share (S2); an exchange may hold whole messages.
        const auto count = from_user_.find(arrival.carrier.user);
        if (count != from_user_.end() && count->second >= ctx_.policy.limits.proxied_per_user)
            return nullptr;
        ++from_user_[arrival.carrier.user];
    }
    Exchange& e = exchanges_.emplace(*this);
    e.from_ue = from_ue;
    e.invite = request.is_method("INVITE");
    const auto method = known_method(request.method());
    std::memcpy(e.method.data(), method.data(), std::min(method.size(), e.method.size()));
    e.server = arrival.transaction;
    e.reply = arrival.reply;
    e.source = arrival.flow.remote;
    e.carrier = arrival.carrier;
    e.user = arrival.carrier.user;
    e.head = head_of(request);
    ctx_.metrics.set_proxied(exchanges_.size());
    return &e;
}

void Proxy::close(SlotId id) {
    Exchange* e = exchanges_.find(id);
    if (e == nullptr) return;
    if (!e->key.empty()) invites_.erase(e->key);
    if (e->client != 0) outer(*e).transactions->abandon(e->client);
    if (e->server != 0) inner(*e).transactions->forget(e->server);
    if (e->from_ue) {
        const auto count = from_user_.find(e->user);
        if (count != from_user_.end() && --count->second == 0) from_user_.erase(count);
    }
    exchanges_.erase(id);
    ctx_.metrics.set_proxied(exchanges_.size());
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
              {from, to, Step::none, gm_flow ? e.carrier.set : 0, spi, reason});
}

bool Proxy::is_ue_side_route(const sip::Uri& uri) const {
    const auto address = IpAddress::parse(uri.host);
    const bool host = address ? std::ranges::find(ctx_.policy.gm_addresses, *address) !=
                                    ctx_.policy.gm_addresses.end()
                              : !ctx_.policy.name.empty() && iequals(uri.host, ctx_.policy.name);
    if (!host) return false;
    const std::uint16_t port = uri.port == 0 ? 5060 : uri.port;
    return port == ctx_.policy.gm_port || ctx_.sets.ports().is_port_ps(port) ||
           ctx_.sets.ports().is_port_pc(port);
}

std::string Proxy::ue_side_uri(const IpAddress& ours, sa::Port port_ps) const {
    return "<sip:" + ours.to_uri_host() + ":" + std::to_string(port_ps) + ";lr>";
}

std::optional<sip::Flow> Proxy::flow_to(std::string_view route_value) const {
    const auto name = sip::parse_name_addr(route_value);
    if (!name) return std::nullopt;
    const auto& uri = name->uri;
    const auto address = IpAddress::parse(uri.host);
    if (!address || address->is_unspecified()) return std::nullopt;
    const auto local = std::ranges::find_if(
        ctx_.policy.core, [&](const Endpoint& e) { return e.address.is_v6() == address->is_v6(); });
    if (local == ctx_.policy.core.end()) return std::nullopt;
    sip::Flow flow;
    flow.transport = wants_tcp(uri.text) ? sip::Transport::tcp : sip::Transport::udp;
    flow.local = *local;
    if (flow.transport == sip::Transport::tcp) flow.local.port = 0;
    flow.remote = Endpoint{*address, uri.port == 0 ? std::uint16_t{5060} : uri.port};
    return flow;
}

std::uint64_t Proxy::loop_mark(const sip::Message& request, bool from_ue, sa::UserId user) const {
    std::string text(from_ue ? "u" : "c");
    const auto add = [&text](std::string_view part) {
        text += '\n';
        text += part;
    };
    add(std::to_string(user));
    add(request.request_uri());
    for (const sip::Value& value : request.values(HeaderId::route)) add(value.text);
    add("");
    if (const auto from = sip::from(request)) add(from->tag());
    if (const auto to = sip::to(request)) add(to->tag());
    add(sip::call_id(request));
    if (const auto number = sip::cseq(request)) add(std::to_string(number->number));
    return loop_hash_(text);
}

bool Proxy::has_looped(const sip::Message& request, std::uint64_t mark) {
    for (const sip::Value& value : request.values(HeaderId::via)) {
        const auto via = sip::parse_via(value.text);
        if (via && sip::TransactionLayer::loop_mark_of(via->branch) == mark) return true;
    }
    return false;
}

bool Proxy::claims_other_user(const sip::Message& request, const sa::User& user) const {
    for (const HeaderId id : {HeaderId::authorization, HeaderId::proxy_authorization}) {
        // Each of them: who reads the message may take another than the first.
        for (const auto* h = request.first(id); h != nullptr; h = request.next(*h)) {
            const auto credentials = sip::parse_digest_credentials(request.value(*h));
            if (credentials && credentials->username && *credentials->username != user.impi())
                return true;
        }
    }
    const auto other = [&](HeaderId id) {
        const auto identity = identity_of(request, id);
        return identity && !user.has_impu(*identity) &&
               ctx_.sets.find_by_impu(*identity) != nullptr;
    };
    if (other(HeaderId::p_preferred_identity)) return true;
    // In a dialog the From of a callee may be the identity the caller dialled.
    return !in_dialog(request) && other(HeaderId::from);
}

std::string Proxy::asserted_identity(const sip::Message& message, const sa::User& user) const {
    const auto preferred = identity_of(message, HeaderId::p_preferred_identity);
    if (preferred && user.has_impu(*preferred)) return "<" + *preferred + ">";
    return "<" + std::string(user.impu(0)) + ">";
}

// ---- UE → core (E2) ----

void Proxy::on_ue_request(const Arrival& arrival, const sip::Message& request) {
    const sa::User* user = ctx_.sets.find_user(arrival.carrier.user);
    if (user == nullptr) return ctx_.discard(ctx_.gm, arrival, Reason::no_sa);
    const std::string impi(user->impi());
    if (claims_other_user(request, *user)) {
        (void)ctx_.sets.apply(arrival.carrier.set, sa::Event::wrong_user);
        ctx_.note(ctx_.trace.user_of(impi), request.method(), 0,
                  {Entity::ue, Entity::pcscf, Step::none, arrival.carrier.set,
                   inbound_spi(arrival.flow, arrival.carrier.numbers), Reason::wrong_sa});
        return ctx_.discard(ctx_.gm, arrival, Reason::wrong_sa, impi);
    }
    const Registration* registration = registrations_.find(user->id);
    if (arrival.carrier.state == sa::State::registration || registration == nullptr ||
        registration->bindings.empty()) {
        return ctx_.answer(ctx_.gm, arrival, request, 403, Reason::not_registered, impi);
    }
    ctx_.sets.note_use(arrival.carrier.set);
    user = ctx_.sets.find_user(arrival.carrier.user);
    if (user == nullptr) return ctx_.discard(ctx_.gm, arrival, Reason::no_sa, impi);
    if (request.is_method("CANCEL")) return on_cancel(ctx_.gm, arrival, request);
    if (const auto rejection = sip::check_routable(request)) {
        const Reason why = rejection->code == 483 ? Reason::too_many_hops : Reason::unsupported_uri;
        return ctx_.answer(ctx_.gm, arrival, request, rejection->code, why, impi);
    }
    const std::uint64_t mark = loop_mark(request, true, user->id);
    if (has_looped(request, mark))
        return ctx_.answer(ctx_.gm, arrival, request, 482, Reason::loop_detected, impi);

    // Our own routes at the front go; what is left is the way the UE wants it to take.
    std::array<std::string_view, 16> rest{};
    std::size_t rest_count = 0;
    const char* last_of_ours = nullptr;
    bool leading = true;
    for (const sip::Value& value : request.values(HeaderId::route)) {
        const auto name = sip::parse_name_addr(value.text);
        if (!name) return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::malformed, impi);
        if (leading &&
            (is_ue_side_route(name->uri) ||
             (ctx_.is_our_core_host(name->uri) && ctx_.tokens.open(name->uri.user) == user->id))) {
            last_of_ours = value.text.data();
            continue;
        }
        leading = false;
        if (rest_count == rest.size())
            return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::route_mismatch, impi);
        rest[rest_count++] = value.text;
    }

    const bool dialog = in_dialog(request);
    const std::string service_route(user->service_route());
    bool replace_route = false;
    if (!dialog) {
        std::size_t matched = 0;
        bool same = true;
        sip::ValueSplitter splitter(service_route);
        for (auto v = service_route.empty() ? std::nullopt : splitter.next(); v;
             v = splitter.next()) {
            const auto want = sip::parse_name_addr(*v);
            const auto have =
                matched < rest_count ? sip::parse_name_addr(rest[matched]) : std::nullopt;
            same = same && want && have && same_uri(want->uri, have->uri);
            ++matched;
        }
        same = same && matched == rest_count;
        if (!same) {
            if (ctx_.policy.service_route_mismatch == ServiceRouteMismatch::reject) {
                return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::route_mismatch, impi);
            }
            replace_route = true;
        }
    }
    // Next hop: the S-CSCF. A To tag alone proves no dialog, so what the UE writes into Route or
    // the target never makes us send anywhere but to the hops its home gave us (E2); the S-CSCF
    // routes on from there.
    sip::Flow flow = ctx_.core_flow();
    std::optional<sip::Flow> wanted;
    if (dialog) wanted = flow_to(rest_count > 0 ? rest[0] : request.request_uri());
    const bool to_next_hop = wanted && wanted->remote == flow.remote;
    bool first = true;
    bool to_service_route = false;
    sip::ValueSplitter hops(service_route);
    for (auto v = service_route.empty() ? std::nullopt : hops.next(); v; v = hops.next()) {
        const auto hop = flow_to(*v);
        if (first && hop) flow = *hop;
        first = false;
        to_service_route = to_service_route || (wanted && hop && wanted->remote == hop->remote);
    }
    if (to_next_hop || to_service_route) flow = *wanted;

    const auto branch =
        ctx_.core.transactions->new_branch(sip::TransactionLayer::Party::known, mark);
    Exchange* e =
        branch.id == 0 || arrival.transaction == 0 ? nullptr : open(arrival, request, true);
    if (branch.id == 0 || (e == nullptr && arrival.transaction != 0)) {
        if (branch.id != 0) ctx_.core.transactions->abandon(branch.id);
        return ctx_.answer(ctx_.gm, arrival, request, 503, Reason::transaction_limit, impi,
                           {{"Retry-After", "10"}});
    }
    const std::uint64_t trace_user = registration->trace_user;
    ctx_.note(trace_user, request.method(), 0,
              {Entity::ue, Entity::pcscf, Step::none, arrival.carrier.set,
               inbound_spi(arrival.flow, arrival.carrier.numbers), Reason::ok});
    if (e != nullptr) e->trace_user = trace_user;

    const std::string transport_text = "SIP/2.0/" + std::string(sip::name(flow.transport)) + " ";
    const std::string via_host =
        flow.local.address.to_uri_host() + ":" +
        std::to_string(flow.local.port == 0 ? ctx_.core_local.port : flow.local.port);
    const FlowTokens::Text token = ctx_.tokens.make(user->id);
    const std::string ue_side =
        ue_side_uri(arrival.flow.local.address, arrival.carrier.numbers.port_ps);

    sip::Edit edit(request);
    edit.stamp_top_via(arrival.flow.remote);
    edit.push_via({transport_text, via_host, ";branch=", branch.view()});
    edit.set_max_forwards(sip::max_forwards(request).value_or(70) - 1U);
    strip_from_ue(edit);
    edit.remove_all(HeaderId::p_preferred_identity);
    for (const HeaderId id : {HeaderId::authorization, HeaderId::proxy_authorization})
        edit.remove_auth_params(id, {"integrity-protected"});  // A11
    edit.append_header("P-Asserted-Identity", {asserted_identity(request, *user)});
    if (replace_route) {
        if (service_route.empty()) {
            edit.remove_all(HeaderId::route);
        } else {
            edit.set_header(HeaderId::route, {service_route});
        }
    } else if (last_of_ours != nullptr) {
        edit.remove_values(HeaderId::route, [last_of_ours](const sip::Value& v) {
            return v.text.data() <= last_of_ours;
        });
    }
    if (makes_dialog(request.method())) {
        edit.push_header(
            HeaderId::record_route,
            {"<sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>, ", ue_side});
    }
    if (!dialog) {
        const std::uint64_t icid = ctx_.random.u64();
        edit.append_header(
            "P-Charging-Vector",
            {"icid-value=\"", to_hex({reinterpret_cast<const std::uint8_t*>(&icid), sizeof(icid)}),
             "\";icid-generated-at=", ctx_.generator});
    }
    if (flow.transport == sip::Transport::tcp) edit.ensure_content_length();
    if (!edit.apply(ctx_.scratch)) {
        ctx_.core.transactions->abandon(branch.id);
        if (e != nullptr) {
            e->server = 0;
            close(e->id);
        }
        return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::malformed, impi);
    }
    if (e == nullptr) {  // an ACK of a 2xx
        ctx_.core.transactions->abandon(branch.id);
        ctx_.core.transport->send(flow, ctx_.scratch);
        ctx_.note(trace_user, request.method(), 0, {Entity::pcscf, Entity::core});
        return;
    }
    launch(arrival, request, *e, branch, flow);
}

void Proxy::launch(const Arrival& arrival, const sip::Message& request, Exchange& e,
                   const sip::TransactionLayer::Branch& branch, const sip::Flow& flow) {
    e.sent_to = flow;
    if (e.invite || e.chose_tcp_for_size) e.sent = ctx_.scratch;
    if (!outer(e).transactions->send_request(branch, flow, request.method(), ctx_.scratch, *this,
                                             e.id)) {
        const Reason why = e.from_ue ? Reason::core_unreachable : Reason::ue_unreachable;
        Side& side = inner(e);
        const int status = e.from_ue ? 504 : 480;
        e.server = 0;
        close(e.id);
        return ctx_.answer(side, arrival, request, status, why);
    }
    e.client = branch.id;
    note(e, 0, !e.from_ue, e.from_ue ? nullptr : &flow, Reason::ok);
    if (!e.invite) return;
    e.key = cancel_key(request, inner(e), e.from_ue ? e.user : 0);
    invites_[e.key] = e.id;
    // RFC 3261 16.2: stops the sender's retransmissions at once.
    ctx_.answer(inner(e), arrival, request, 100, Reason::ok);
}

// ---- core → UE (E3) ----

void Proxy::on_core_request(const Arrival& arrival, const sip::Message& request) {
    if (request.is_method("CANCEL")) return on_cancel(ctx_.core, arrival, request);
    if (const auto rejection = sip::check_routable(request)) {
        const Reason why = rejection->code == 483 ? Reason::too_many_hops : Reason::unsupported_uri;
        return ctx_.answer(ctx_.core, arrival, request, rejection->code, why);
    }
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
    }
    if (!user_id) return ctx_.answer(ctx_.core, arrival, request, 404, Reason::unknown_flow);
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
    const std::uint64_t mark = loop_mark(request, false, user->id);
    if (has_looped(request, mark))
        return ctx_.answer(ctx_.core, arrival, request, 482, Reason::loop_detected, impi);
    const Carrier carrier = Carrier::of(*set);
    const IpAddress ours = set->ours;
    const IpAddress ue = set->ue;

    sip::Transport transport = registration->transport;
    if (wants_tcp(user->contact()) || wants_tcp(request.request_uri()))
        transport = sip::Transport::tcp;
    const auto branch = ctx_.gm.transactions->new_branch(sip::TransactionLayer::Party::known, mark);
    Exchange* e =
        branch.id == 0 || arrival.transaction == 0 ? nullptr : open(arrival, request, false);
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
        e->user = user->id;
    }

    const FlowTokens::Text token = ctx_.tokens.make(user->id);
    const std::string ue_side = ue_side_uri(ours, carrier.numbers.port_ps);
    const auto edited = [&](sip::Transport over) {
        const std::string via = "SIP/2.0/" + std::string(sip::name(over)) + " " +
                                ours.to_uri_host() + ":" + std::to_string(carrier.numbers.port_ps) +
                                ";branch=";
        sip::Edit edit(request);
        edit.stamp_top_via(arrival.flow.remote);
        edit.push_via({via, branch.view()});
        edit.set_max_forwards(sip::max_forwards(request).value_or(70) - 1U);
        strip_to_ue(edit);
        // Behind us there is only the UE: no route is left to follow.
        edit.remove_all(HeaderId::route);
        edit.remove_all(HeaderId::path);
        if (request.has(HeaderId::privacy) && request.has_token(HeaderId::privacy, "id")) {
            edit.remove_all(HeaderId::p_asserted_identity);
        }
        if (target_is_us && !user->contact().empty()) edit.replace_request_uri({user->contact()});
        if (makes_dialog(request.method())) {
            edit.push_header(
                HeaderId::record_route,
                {ue_side, ", <sip:", {token.data(), token.size()}, "@", ctx_.core_host, ";lr>"});
        }
        edit.ensure_content_length();
        return static_cast<bool>(edit.apply(ctx_.scratch));
    };
    bool possible = edited(transport);
    // What counts is what leaves: Via, Record-Route and the phone's own address come on top.
    if (possible && transport == sip::Transport::udp && ctx_.scratch.size() > udp_limit) {
        transport = sip::Transport::tcp;
        possible = edited(transport);
        if (e != nullptr) e->chose_tcp_for_size = !e->invite;
    }
    if (!possible) {
        ctx_.gm.transactions->abandon(branch.id);
        if (e != nullptr) {
            e->server = 0;
            close(e->id);
        }
        return ctx_.answer(ctx_.core, arrival, request, 400, Reason::malformed, impi);
    }
    const sip::Flow flow = request_path(transport, ours, ue, carrier.numbers);
    if (e == nullptr) {  // an ACK of a 2xx
        ctx_.gm.transactions->abandon(branch.id);
        ctx_.gm.transport->send(flow, ctx_.scratch);
        ctx_.note(trace_user, request.method(), 0,
                  {Entity::pcscf, Entity::ue, Step::none, carrier.set,
                   outbound_spi(flow, carrier.numbers), Reason::ok});
        return;
    }
    launch(arrival, request, *e, branch, flow);
}

// ---- responses, both ways ----

void Proxy::on_response(sip::ClientTransactionId /*id*/, std::uint64_t context,
                        const sip::Flow& flow, const sip::Message& response,
                        std::span<char> bytes) {
    wipe_keys(response, bytes);
    Exchange* e = exchanges_.find(context);
    if (e == nullptr) return;
    const int status = response.status_code();
    const sa::User* user = ctx_.sets.find_user(e->user);
    if (!e->from_ue) {
        // B7: the response must come on an SA of the very user the request went to.
        const sa::SaSet* set =
            ctx_.sets.find_by_tuple(flow.remote.address, flow.remote.port, flow.local.port);
        if (set == nullptr || set->user != e->user) {
            ctx_.refuse(Reason::stray_response, 0, flow.remote, {});
            if (status < 200 || e->answered) return;
            // It has ended the client transaction, so nothing else would ever end this.
            ctx_.answer_later(inner(*e), e->server, e->head, e->source, 480);
            e->server = 0;
            return close(e->id);
        }
        e->carrier = Carrier::of(*set);
        ctx_.sets.note_use(set->id);
        user = ctx_.sets.find_user(e->user);
        note(*e, status, false, &flow, Reason::ok);
    } else {
        ctx_.core_answered();
        ctx_.note(e->trace_user, e->method_name(), status, {Entity::core, Entity::pcscf});
    }
    if (status < 200) {
        e->provisional = true;
        if (e->cancelled && e->cancel_interval == Duration{}) send_cancel(*e);
        if (status == 100) return;  // hop by hop
    } else {
        e->answered = true;
        e->timer.stop();
        if (!(e->invite && status < 300)) e->client = 0;
    }

    sip::Edit edit(response);
    edit.remove_first_value(HeaderId::via);
    if (e->from_ue) {
        strip_to_ue(edit);
        if (e->reply.transport == sip::Transport::tcp) edit.ensure_content_length();
    } else {
        strip_from_ue(edit);
        edit.remove_all(HeaderId::p_preferred_identity);
        if (user != nullptr && user->impu_count() > 0) {
            edit.append_header("P-Asserted-Identity", {asserted_identity(response, *user)});
        }
        edit.ensure_content_length();
    }
    const bool edited = static_cast<bool>(edit.apply(ctx_.scratch));
    if (e->server != 0) {
        if (edited) {
            inner(*e).transactions->respond(e->server, status, ctx_.scratch);
        } else if (status >= 200) {
            ctx_.answer_later(inner(*e), e->server, e->head, e->source, 500);
        }
    }
    if (e->from_ue) {
        note(*e, status, true, &e->reply, Reason::ok);
    } else {
        ctx_.note(e->trace_user, e->method_name(), status, {Entity::pcscf, Entity::core});
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

void Proxy::on_failure(sip::ClientTransactionId /*id*/, std::uint64_t context,
                       sip::ClientFailure failure) {
    Exchange* e = exchanges_.find(context);
    if (e == nullptr) return;
    e->client = 0;
    if (e->answered) return close(e->id);
    if (e->chose_tcp_for_size && failure == sip::ClientFailure::transport) {
        // RFC 3261 18.1.1: it went over TCP for its size alone, and the phone takes no TCP.
        e->chose_tcp_for_size = false;
        sip::Message sent;
        const bool readable = sent.parse(e->sent) == sip::ParseStatus::ok;
        const auto first = readable ? sip::top_via(sent) : std::nullopt;
        const auto branch = ctx_.gm.transactions->new_branch(
            sip::TransactionLayer::Party::known,
            first ? sip::TransactionLayer::loop_mark_of(first->branch) : std::nullopt);
        if (branch.id != 0 && readable) {
            sip::Edit edit(sent);
            const std::string via = "SIP/2.0/UDP " + e->sent_to.local.address.to_uri_host() + ":" +
                                    std::to_string(e->carrier.numbers.port_ps) + ";branch=";
            edit.remove_first_value(HeaderId::via);
            std::string without;
            std::string again;
            sip::Message second;
            if (edit.apply(without) && second.parse(without) == sip::ParseStatus::ok) {
                sip::Edit push(second);
                push.push_via({via, branch.view()});
                e->sent_to.transport = sip::Transport::udp;
                e->sent_to.connection = 0;
                if (push.apply(again) &&
                    ctx_.gm.transactions->send_request(branch, e->sent_to, e->method_name(), again,
                                                       *this, e->id)) {
                    e->client = branch.id;
                    return note(*e, 0, true, &e->sent_to, Reason::ok);
                }
            }
        }
        if (branch.id != 0) ctx_.gm.transactions->abandon(branch.id);
    }
    const bool timeout = failure == sip::ClientFailure::timeout;
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

// ---- CANCEL (RFC 3261 9, 16.10) ----

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
    ctx_.answer(side, arrival, request, 200, Reason::ok);
    if (e->answered || e->cancelled) return;
    e->cancelled = true;
    if (e->provisional) send_cancel(*e);
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
    cancel += "CSeq: " + std::to_string(number->number) + " CANCEL\r\nContent-Length: 0\r\n\r\n";
    outer(e).transport->send(e.sent_to, cancel);
    // Its own retransmission: there is no transaction with this branch for it.
    if (e.cancel_interval == Duration{}) {
        e.cancel_interval = ctx_.policy.t1;
    } else {
        e.cancel_interval = std::min<Duration>(e.cancel_interval * 2, std::chrono::seconds(4));
    }
    e.cancel_waited += e.cancel_interval;
    ctx_.timers.start(e.timer, e.cancel_interval);
}

}  // namespace gmgate::registration
