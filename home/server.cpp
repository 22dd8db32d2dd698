#include "home/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/values.h"
#include "home/identity.h"
#include "home/next_hop.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

constexpr std::string_view area = "home";
constexpr std::string_view allowed = "REGISTER, SUBSCRIBE, MESSAGE, OPTIONS";
constexpr std::uint16_t default_port = 5060;
constexpr unsigned default_max_forwards = 70;
constexpr std::size_t tag_octets = 6;

// RFC 3261 18.2.2: on the connection it came by; over UDP to the source address, at the port of the
// Via, or at the source port where rport asks for it (RFC 3581).
sip::Flow reply_flow(const sip::Flow& flow, const sip::Message& request) {
    auto reply = flow;
    if (flow.transport != sip::Transport::udp) return reply;
    const auto via = sip::top_via(request);
    if (via && !via->rport_present) reply.remote.port = via->port != 0 ? via->port : default_port;
    return reply;
}

std::string_view host_of(std::string_view uri) {
    const auto parsed = sip::parse_uri(uri);
    return parsed ? parsed->host : std::string_view{};
}

}  // namespace

Server::Server(ServerConfig config, Registrar& registrar, TimerWheel& timers, Random& random)
    : config_(std::move(config)),
      registrar_(registrar),
      timers_(timers),
      random_(random),
      reg_event_(config_.reg_event, registrar, config_.listen, timers, random),
      reauthentication_(
          config_.reauthentication, registrar, reg_event_,
          [this](std::string_view impu, Reauthentication::Done done) {
              return refer(impu, std::move(done));
          },
          timers, random),
      scscf_host_(host_of(registrar.config().server_name)) {}

Server::~Server() = default;

void Server::attach(sip::TransportLayer& transport) {
    transport_ = &transport;
    transactions_ = std::make_unique<sip::TransactionLayer>(
        transport, timers_, random_, sip::TransactionTimers{},
        sip::TransactionLayer::Limits{.server = config_.max_transactions,
                                      .client = config_.max_transactions});
    reg_event_.attach(*transactions_);
}

std::size_t Server::transactions() const {
    return transactions_ ? transactions_->server_count() + transactions_->client_count() : 0;
}

// ---- from the transport
// ----------------------------------------------------------------------------------------------

void Server::on_message(const sip::Flow& flow, std::span<char> bytes) {
    sip::Message message;
    const auto status = message.parse(std::span<const char>(bytes));
    if (status == sip::ParseStatus::empty) return;  // keep-alive
    if (!message.is_request()) {
        if (status != sip::ParseStatus::ok || sip::check_response(message)) {
            ++counters_.garbage;
        } else if (transactions_->receive_response(flow, message, bytes) ==
                   sip::TransactionLayer::Match::unknown) {
            ++counters_.stray_responses;
        }
        return;
    }
    if (!message.answerable()) {
        ++counters_.garbage;
        return;
    }
    using Arrival = sip::TransactionLayer::Arrival;
    const auto received = transactions_->receive_request(flow, reply_flow(flow, message), message);
    if (received.arrival == Arrival::refused) ++counters_.refused;
    if (received.arrival != Arrival::fresh) return;
    ++counters_.requests;
    handle(received.id, flow, message);
}

void Server::on_framing_error(const sip::Flow& flow, std::string_view what) {
    ++counters_.garbage;
    log::debug(area, "{}: {}", flow.remote.to_string(), what);
}

void Server::on_connection_closed(const sip::Flow& flow, bool) {
    transactions_->connection_closed(flow);
}

void Server::handle(sip::ServerTransactionId id, const sip::Flow& flow,
                    const sip::Message& request) {
    if (request.is_method("REGISTER")) {
        registrar_.receive(
            request,
            [this, id](int status, std::string_view response) {
                transactions_->respond(id, status, response);
            },
            flow.remote);
        return;
    }
    const auto rejection = [&]() -> std::optional<sip::Rejection> {
        if (request.status() != sip::ParseStatus::ok) {
            return sip::Rejection{sip::response_code(request.status()),
                                  sip::text(request.status())};
        }
        if (auto r = sip::check_request(request)) return r;
        return sip::check_routable(request);
    }();
    if (rejection) {
        ++counters_.rejected;
        return answer(id, flow.remote, request, rejection->code, rejection->reason);
    }
    if (request.is_method("MESSAGE") || request.is_method("OPTIONS"))
        return route(id, flow, request);
    if (request.is_method("SUBSCRIBE")) return reg_event_.on_subscribe(id, flow.remote, request);
    ++counters_.rejected;
    // We let no INVITE in, so there is nothing to cancel.
    if (request.is_method("CANCEL")) return answer(id, flow.remote, request, 481);
    answer(id, flow.remote, request, 405, {}, true);
}

bool Server::is_ours(std::string_view host, std::uint16_t port) const {
    if (iequals(host, registrar_.config().realm) || iequals(host, scscf_host_)) return true;
    const auto address = IpAddress::parse(host);
    if (!address) return false;
    const Endpoint there{*address, port != 0 ? port : default_port};
    return std::ranges::find(config_.listen, there) != config_.listen.end();
}

void Server::route(sip::ServerTransactionId id, const sip::Flow& flow,
                   const sip::Message& request) {
    // A Route that names us is our Service-Route: the request was originated by a phone
    // (TS 24.229 5.4.3.2), whose asserted identity must be registered here.
    const auto top = sip::first_route(request, HeaderId::route);
    const bool from_phone = top && is_ours(top->uri.host, top->uri.port);
    if (from_phone) {
        const auto asserted = request.first_value(HeaderId::p_asserted_identity);
        const auto who = asserted ? sip::parse_name_addr(*asserted) : std::nullopt;
        if (!who || registrar_.find(who->uri.text) == nullptr) {
            ++counters_.forbidden;
            return answer(id, flow.remote, request, 403, "Originator Not Registered");
        }
    }

    const auto uri = sip::parse_uri(request.request_uri());
    const bool is_sip =
        uri && (uri->scheme == sip::Scheme::sip || uri->scheme == sip::Scheme::sips);
    const bool ours = is_sip && is_ours(uri->host, uri->port);
    if (ours && uri->user.empty() && request.is_method("OPTIONS")) {
        ++counters_.answered_here;
        return answer(id, flow.remote, request, 200, {}, true);
    }
    if (ours && std::ranges::find(config_.services, uri->user) != config_.services.end()) {
        ++counters_.answered_here;
        return answer(id, flow.remote, request, 200);
    }
    if (const auto* binding = registrar_.find(request.request_uri()); binding != nullptr) {
        return forward(id, flow, request, *binding, from_phone);
    }
    ++counters_.not_registered;
    answer(id, flow.remote, request, ours && !uri->user.empty() ? 480 : 404);
}

void Server::forward(sip::ServerTransactionId id, const sip::Flow& flow,
                     const sip::Message& request, const Binding& binding, bool strip_route) {
    const auto hop = next_hop(binding.path, binding.contact, config_.listen);
    if (!hop) {
        ++counters_.routed_failures;
        log::warn(area, "{} to {}: {}", request.method(), binding.default_impu, hop.error().text);
        return answer(id, flow.remote, request, 480);
    }
    const auto branch = transactions_->new_branch();
    if (branch.id == 0) {
        ++counters_.refused;
        return answer(id, flow.remote, request, 503);
    }
    sip::Edit edit(request);
    edit.stamp_top_via(flow.remote);
    edit.push_via({via_for(*hop, branch.view())});
    edit.set_max_forwards(sip::max_forwards(request).value_or(default_max_forwards + 1) - 1U);
    // TS 24.229 5.4.3.3: the Path is the route, the Contact the target, and the phone is told which
    // identity was called.
    if (binding.path.empty()) {
        if (strip_route) edit.remove_all(HeaderId::route);
    } else {
        edit.set_header(HeaderId::route, {binding.path});
    }
    edit.set_header(HeaderId::p_called_party_id, {"<", request.request_uri(), ">"});
    edit.replace_request_uri({binding.contact});
    edit.ensure_content_length();
    if (auto done = edit.apply(buffer_); !done) {
        transactions_->abandon(branch.id);
        ++counters_.rejected;
        return answer(id, flow.remote, request, 400, "Cannot Be Forwarded");
    }
    const auto context = ++next_context_;
    pending_.emplace(context, Pending{id, flow.remote, std::string(request.bytes()), {}});
    ++counters_.routed;
    if (!transactions_->send_request(branch, sent_on(*hop), request.method(), buffer_, *this,
                                     context)) {
        ++counters_.routed_failures;
        pending_.erase(context);
        answer(id, flow.remote, request, 480);
    }
}

void Server::answer(sip::ServerTransactionId id, const Endpoint& source,
                    const sip::Message& request, int status, std::string_view reason, bool allow) {
    const auto tag = random_.token(tag_octets);
    const std::array headers = {sip::HeaderField{"Allow", allowed}};
    sip::ResponseOptions options;
    options.reason = reason;
    options.to_tag = tag;
    options.source = source;
    options.headers = std::span(headers).first(allow ? 1 : 0);
    log::debug(area, "{} {}: {} {}", request.method(), request.request_uri(), status, reason);
    if (!sip::build_response(request, status, options, buffer_)) {
        ++counters_.garbage;
        transactions_->forget(id);
        return;
    }
    transactions_->respond(id, status, buffer_);
}

// ---- client transactions
// ---------------------------------------------------------------------------------------------

std::optional<Server::Pending> Server::take(std::uint64_t context) {
    const auto it = pending_.find(context);
    if (it == pending_.end()) return std::nullopt;
    std::optional<Pending> out(std::move(it->second));
    pending_.erase(it);
    return out;
}

void Server::on_response(sip::ClientTransactionId, std::uint64_t context, const sip::Flow&,
                         const sip::Message& response, std::span<char>) {
    const int status = response.status_code();
    const auto it = pending_.find(context);
    if (it == pending_.end()) return;
    const auto server = it->second.server;
    if (server == 0) {
        if (status < 200) return;
        auto pending = take(context);
        if (pending->done) pending->done(status, response.reason());
        return;
    }
    if (status == 100) return;  // hop by hop (RFC 3261 16.7 step 5)
    if (status >= 200) {
        ++counters_.routed_answers;
        pending_.erase(it);
    }
    sip::Edit edit(response);
    edit.remove_first_value(HeaderId::via);
    if (!edit.apply(buffer_)) {
        ++counters_.garbage;
        if (status >= 200) transactions_->forget(server);
        return;
    }
    transactions_->respond(server, status, buffer_);
}

void Server::on_failure(sip::ClientTransactionId, std::uint64_t context,
                        sip::ClientFailure failure) {
    auto pending = take(context);
    if (!pending) return;
    const bool timeout = failure == sip::ClientFailure::timeout;
    if (pending->server == 0) {
        if (pending->done)
            pending->done(timeout ? 408 : 503, timeout ? "No Answer" : "No Connection");
        return;
    }
    ++counters_.routed_failures;
    if (timeout) {
        // RFC 4320: a 408 to a non-INVITE would come when the sender has given up already.
        transactions_->forget(pending->server);
        return;
    }
    sip::Message request;
    request.parse(std::string_view(pending->request));
    answer(pending->server, pending->source, request, 480);
}

// ---- by command
// ------------------------------------------------------------------------------------------------------

Result<void> Server::originate(std::string_view method, std::string_view from, std::string_view to,
                               std::string_view text, Done done) {
    return send_to_phone(method, from, to, text, {}, std::move(done));
}

bool Server::refer(std::string_view impu, Reauthentication::Done done) {
    const std::string us = "sip:" + registrar_.config().realm;
    const std::string refer_to = "<" + us + ";method=REGISTER>";
    const std::string contact = "<sip:" + config_.listen.front().to_string() + ">";
    // No subscription to what comes of it: the REGISTER itself tells (RFC 4488).
    const std::array more = {
        sip::HeaderField{"Refer-To", refer_to}, sip::HeaderField{"Refer-Sub", "false"},
        sip::HeaderField{"Supported", "norefersub"}, sip::HeaderField{"Contact", contact}};
    const auto sent = send_to_phone(
        "REFER", us, impu, {}, more,
        [done = std::move(done)](int status, std::string_view) mutable { done(status < 300); });
    return sent.has_value();
}

Result<void> Server::send_to_phone(std::string_view method, std::string_view from,
                                   std::string_view to, std::string_view text,
                                   std::span<const sip::HeaderField> more, Done done) {
    const auto sender = canonical_impu(from);
    if (!sender)
        return fail(ErrorKind::invalid,
                    fmt::format("'{}' is not an identity: write sip:user@domain", from));
    const auto* binding = registrar_.find(to);
    if (binding == nullptr) {
        return fail(ErrorKind::not_found, fmt::format("'{}' is not registered", to));
    }
    const auto hop = next_hop(binding->path, binding->contact, config_.listen);
    if (!hop) return std::unexpected(hop.error());
    const auto branch = transactions_->new_branch();
    if (branch.id == 0)
        return fail(ErrorKind::exhausted, "the transaction table is full: try again later");

    sip::RequestBuilder request(method, binding->contact);
    request.header("Via", via_for(*hop, branch.view())).header("Max-Forwards", "70");
    if (!binding->path.empty()) request.header("Route", binding->path);
    request.header("From", {"<", *sender, ">;tag=", random_.token(tag_octets)})
        .header("To", {"<", binding->default_impu, ">"})
        .header("Call-ID", random_.token(12))
        .header("CSeq", {"1 ", method})
        .header("P-Asserted-Identity", {"<", *sender, ">"})
        .header("P-Called-Party-ID", {"<", binding->default_impu, ">"});
    for (const auto& h : more) request.header(h.name, h.value);
    if (!text.empty()) request.body("text/plain", text);
    auto bytes = request.finish();
    if (!bytes) {
        transactions_->abandon(branch.id);
        return std::unexpected(bytes.error());
    }
    const auto context = ++next_context_;
    pending_.emplace(context, Pending{0, {}, {}, std::move(done)});
    ++counters_.originated;
    if (!transactions_->send_request(branch, sent_on(*hop), method, *bytes, *this, context)) {
        pending_.erase(context);
        return fail(ErrorKind::io, fmt::format("cannot send to {}", hop->remote.to_string()));
    }
    return {};
}

}  // namespace gmgate::home
