// UE → core (E2).
#include "control/registration/proxy.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "control/registration/edits.h"
#include "control/registration/emergency.h"
#include "control/registration/identity.h"
#include "control/registration/interconnect.h"
#include "control/registration/proxy_rules.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

constexpr std::size_t most_hops = 70;  // Max-Forwards takes it no further

std::string joined(const std::array<std::string_view, most_hops>& routes, std::size_t count) {
    std::string out;
    for (std::size_t i = 0; i < count; ++i) {
        if (i > 0) out += ", ";
        sip::append_on_one_line(out, routes[i]);
    }
    return out;
}

bool is_loose(const std::array<std::string_view, most_hops>& routes, std::size_t count) {
    const auto first = count == 0 ? std::nullopt : sip::parse_name_addr(routes[0]);
    return !first || first->uri.param("lr");
}

// RFC 3261 16.6 step 6: a next hop without lr wants its URI as the target, and the target as the
// last route. Changes the route, returns the Request-URI.
std::string route_strictly(std::string& route, std::string_view target) {
    if (route.empty()) return std::string(target);
    sip::ValueSplitter splitter(route);
    const auto first = splitter.next();
    const auto hop = first ? sip::parse_name_addr(*first) : std::nullopt;
    if (!hop || hop->uri.param("lr")) return std::string(target);
    const std::string moved(hop->uri.text);
    std::string rest;
    while (const auto next = splitter.next()) rest.append(*next).append(", ");
    route = rest.append("<").append(target).append(">");
    return moved;
}

}  // namespace

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

bool Proxy::claims_other_user(const sip::Message& request, const sa::User& user,
                              bool new_request) const {
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
    for (const sip::Value& value : request.values(HeaderId::p_preferred_identity)) {
        const auto name = sip::parse_name_addr(value.text);
        const auto identity = name ? normalised_identity(name->uri) : std::nullopt;
        if (identity && !user.has_impu(*identity) && ctx_.sets.find_by_impu(*identity) != nullptr)
            return true;
    }
    // In a dialog the From of a callee may be the identity the caller dialled.
    return new_request && other(HeaderId::from);
}

std::string Proxy::asserted_identity(const sip::Message& message, const sa::User& user) const {
    // RFC 3325 9.2 allows two, a SIP and a tel URI: the first that is the user's own. What the
    // network did not name in P-Associated-URI (barred) is none of them.
    for (const sip::Value& value : message.values(HeaderId::p_preferred_identity)) {
        const auto name = sip::parse_name_addr(value.text);
        const auto preferred = name ? normalised_identity(name->uri) : std::nullopt;
        if (preferred && user.has_impu(*preferred)) return "<" + *preferred + ">";
    }
    return "<" + std::string(user.impu(0)) + ">";
}

void Proxy::on_ue_request(const Arrival& arrival, const sip::Message& request) {
    const sa::User* user = ctx_.sets.find_user(arrival.carrier.user);
    if (user == nullptr) return ctx_.discard(ctx_.gm, arrival, Reason::no_sa);
    const std::string impi(user->impi());
    // A To tag alone proves no dialog (E2).
    const bool dialog = runs_in_dialog(request, user->id);
    const bool lost = !dialog && needs_dialog(request);
    // Outside calls nothing but its From says who asks.
    const bool asks =
        subscribes(request.method()) && dialogs_.find(name_of(request, true, user->id)) == nullptr;
    if (claims_other_user(request, *user, (!dialog || asks) && !lost)) {
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
    const auto is_ours = [&](const sip::Uri& uri) {
        return is_ue_side_route(uri) ||
               (ctx_.is_our_core_host(uri) && ctx_.tokens.open(uri.user) == user->id);
    };
    std::array<std::string_view, most_hops> rest{};
    std::size_t rest_count = 0;
    const char* last_of_ours = nullptr;
    bool leading = true;
    for (const sip::Value& value : request.values(HeaderId::route)) {
        const auto name = sip::parse_name_addr(value.text);
        if (!name) return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::malformed, impi);
        if (leading && is_ours(name->uri)) {
            last_of_ours = value.text.data();
            continue;
        }
        leading = false;
        if (rest_count == rest.size())
            return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::route_mismatch, impi);
        rest[rest_count++] = value.text;
    }
    // RFC 3261 16.4: a phone that routes strictly put our route where the target belongs, and the
    // target last.
    std::string_view target = request.request_uri();
    bool write_route = false;
    if (const auto uri = sip::parse_uri(target); uri && is_ours(*uri) && rest_count > 0) {
        target = sip::parse_name_addr(rest[--rest_count])->uri.text;
        write_route = true;
    }

    const bool emergency = asks_for_help(request, target, user->id);
    if (emergency && ctx_.policy.emergency != Emergency::forward)
        return refuse_emergency(arrival, request, *user);
    // We have forgotten it, it ended, or there never was one.
    if (lost) return ctx_.answer(ctx_.gm, arrival, request, 481, Reason::unknown_transaction, impi);
    if (!dialog && request.is_method("ACK"))
        return ctx_.discard(ctx_.gm, arrival, Reason::unknown_transaction, impi);
    const std::string service_route(user->service_route());
    bool replace_route = false;
    if (!dialog && !emergency) {
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
            // A BYE of a dialog we have forgotten ends it all the same: its home finds the way.
            const bool forgotten = in_dialog(request) && request.is_method("BYE");
            if (ctx_.policy.service_route_mismatch == ServiceRouteMismatch::reject && !forgotten) {
                return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::route_mismatch, impi);
            }
            replace_route = true;
        }
    }
    // Next hop: the S-CSCF. In a dialog too, what the UE writes into Route or the target never
    // makes us send anywhere but to the hops its home gave us (E2); the S-CSCF routes on from
    // there.
    sip::Flow flow = ctx_.core_flow();
    std::optional<sip::Flow> wanted;
    if (dialog) wanted = ctx_.flow_to(rest_count > 0 ? rest[0] : target);
    const bool to_next_hop = wanted && ctx_.next_hops.knows(wanted->remote);
    bool may_move = !dialog;
    bool first = true;
    bool to_service_route = false;
    sip::ValueSplitter hops(service_route);
    for (auto v = service_route.empty() ? std::nullopt : hops.next(); v; v = hops.next()) {
        const auto hop = ctx_.flow_to(*v);
        if (first && hop) {
            flow = *hop;
            may_move = false;
        }
        first = false;
        to_service_route = to_service_route || (wanted && hop && wanted->remote == hop->remote);
    }
    if (to_next_hop || to_service_route) flow = *wanted;
    // The E-CSCF takes the call, and stays in its dialog (TS 24.229 5.2.10).
    const auto e_cscf = ctx_.policy.e_cscf ? ctx_.flow_to(emergency_route()) : std::nullopt;
    if (e_cscf && (emergency || (wanted && wanted->remote == e_cscf->remote))) {
        flow = *e_cscf;
        may_move = false;
    }

    if (!dialog && !emergency && request.is_method("INVITE") && !has_room_for_call(user->id)) {
        return ctx_.answer(ctx_.gm, arrival, request, 503, Reason::dialog_limit, impi,
                           {{"Retry-After", "10"}});
    }
    const auto branch =
        ctx_.core.transactions->new_branch(sip::TransactionLayer::Party::known, mark);
    Exchange* e = branch.id == 0 || arrival.transaction == 0
                      ? nullptr
                      : open(arrival, request, true, user->id);
    if (branch.id == 0 || (e == nullptr && arrival.transaction != 0)) {
        if (branch.id != 0) ctx_.core.transactions->abandon(branch.id);
        return ctx_.answer(ctx_.gm, arrival, request, 503, Reason::transaction_limit, impi,
                           {{"Retry-After", "10"}});
    }
    const std::uint64_t trace_user = registration->trace_user;
    ctx_.note(trace_user, request.method(), 0,
              {Entity::ue, Entity::pcscf, Step::none, arrival.carrier.set,
               inbound_spi(arrival.flow, arrival.carrier.numbers), Reason::ok});
    if (e != nullptr) {
        e->trace_user = trace_user;
        e->may_move = may_move;
        if (e->invite) {
            // In brackets, as it is asserted.
            const std::string asserted = asserted_identity(request, *user);
            e->identity = identity_mark(std::string_view(asserted).substr(1, asserted.size() - 2));
        }
    }
    if (dialog) follow(request, true, user->id, e);

    const FlowTokens::Text token = ctx_.tokens.make(user->id);
    const std::string ue_side =
        ue_side_uri(arrival.flow.local.address, arrival.carrier.numbers.port_ps);

    const std::uint64_t icid = dialog ? 0 : ctx_.random.u64();
    const auto changes = [&](sip::Edit& edit) {
        strip_from_ue(edit);
        edit.remove_all(HeaderId::p_preferred_identity);
        for (const HeaderId id : {HeaderId::authorization, HeaderId::proxy_authorization})
            edit.remove_auth_params(id, {"integrity-protected"});  // A11
        edit.append_header("P-Asserted-Identity", {asserted_identity(request, *user)});
        if (emergency) {
            edit.set_header(HeaderId::route, {emergency_route()});
        } else if (write_route || replace_route || !is_loose(rest, rest_count)) {
            std::string route = replace_route ? service_route : joined(rest, rest_count);
            const std::string strict_target = route_strictly(route, target);
            if (route.empty()) {
                edit.remove_all(HeaderId::route);
            } else {
                edit.set_header(HeaderId::route, {route});
            }
            if (strict_target != request.request_uri()) edit.replace_request_uri({strict_target});
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
            edit.append_header(
                "P-Charging-Vector",
                {"icid-value=\"",
                 to_hex({reinterpret_cast<const std::uint8_t*>(&icid), sizeof(icid)}),
                 "\";icid-generated-at=", ctx_.generator});
        }
    };
    forward_to_core(arrival, request, e, branch, flow, {trace_user, impi}, changes);
}

void Proxy::forward_to_core(const Arrival& arrival, const sip::Message& request, Exchange* e,
                            const sip::TransactionLayer::Branch& branch, sip::Flow flow,
                            const Traced& traced, const Changes& changes) {
    const auto edited = [&] {
        sip::Edit edit(request);
        put_our_via(edit, ctx_, arrival.flow.remote, flow, branch.view());
        edit.set_max_forwards(hops_left(request));
        changes(edit);
        if (flow.transport == sip::Transport::tcp) edit.ensure_content_length();
        return static_cast<bool>(edit.apply(ctx_.scratch));
    };
    bool possible = edited();
    // What counts is what leaves. Of an ACK nobody tells us that it failed: the one for the next
    // 2xx finds out, where TCP does.
    const sip::Flow smaller = flow;
    if (possible && flow.transport == sip::Transport::udp && ctx_.scratch.size() > udp_limit) {
        const auto larger = e == nullptr ? ctx_.next_hops.stream_to(flow.remote)
                                         : ctx_.next_hops.flow_to(sip::Transport::tcp, flow.remote);
        if (larger) {
            flow = *larger;
            possible = edited();
            if (e != nullptr) e->chose_tcp_for_size = true;
        }
    }
    if (!possible) {
        ctx_.core.transactions->abandon(branch.id);
        if (e != nullptr) {
            e->server = 0;
            close(e->id);
        }
        return ctx_.answer(ctx_.gm, arrival, request, 400, Reason::malformed, traced.impi);
    }
    if (e == nullptr) {  // an ACK of a 2xx
        ctx_.core.transactions->abandon(branch.id);
        if (!ctx_.core.transport->send(flow, ctx_.scratch) && flow.transport != smaller.transport) {
            flow = smaller;
            if (edited()) ctx_.core.transport->send(flow, ctx_.scratch);
        }
        ctx_.note(traced.user, request.method(), 0, {Entity::pcscf, Entity::core});
        return;
    }
    launch(arrival, request, *e, branch, flow);
}

}  // namespace gmgate::registration
