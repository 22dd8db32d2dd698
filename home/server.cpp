#include "home/server.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/secret_text.h"
#include "control/sip/reginfo.h"
#include "control/sip/values.h"
#include "home/routing.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

constexpr std::string_view area = "home";
// What the domain and its services take; to phones everything goes.
constexpr std::string_view allowed = "REGISTER, SUBSCRIBE, MESSAGE, OPTIONS";
constexpr std::uint16_t default_port = 5060;
constexpr int too_many_hops = 483;

// RFC 3261 18.2.2: on the connection it came by; over UDP to the source address, at the port of the
// Via, or at the source port where rport asks for it (RFC 3581).
sip::Flow reply_flow(const sip::Flow& flow, const sip::Message& request) {
    auto reply = flow;
    if (flow.transport != sip::Transport::udp) return reply;
    const auto via = sip::top_via(request);
    if (via && !via->rport_present) reply.remote.port = via->port != 0 ? via->port : default_port;
    return reply;
}

// The identity a Request-URI names: of a telephone number written as a SIP URI of ours the tel URI
// (RFC 3261 19.1.6).
std::string called_identity(const sip::Uri& uri, const Domain& domain) {
    const auto user = uri.param("user");
    const bool number = user && iequals(user->value, "phone") && domain.is_ours(uri);
    if (!number) return std::string(uri.text);
    return "tel:" + std::string(uri.user.substr(0, uri.user.find(';')));
}

bool is_reg_event(const sip::Message& request) {
    const auto event = request.value(HeaderId::event);
    return event && sip::reg_profile(*event);
}

std::optional<sip::Rejection> check(const sip::Message& request) {
    if (request.status() != sip::ParseStatus::ok)
        return sip::Rejection{sip::response_code(request.status()), sip::text(request.status())};
    if (auto r = sip::check_request(request)) return r;
    const auto r = sip::check_routable(request);
    return r && r->code == too_many_hops ? std::nullopt : r;
}

// RFC 3261 16.3 step 3: of what goes on. What ends here needs no hop more.
bool out_of_hops(const sip::Message& request) {
    return sip::max_forwards(request) == std::uint8_t{0};
}

}  // namespace

Server::Server(ServerConfig config, Registrar& registrar, TimerWheel& timers, Random& random)
    : config_(std::move(config)),
      registrar_(registrar),
      timers_(timers),
      random_(random),
      domain_(registrar.config().realm, registrar.config().server_name, config_.listen),
      tokens_(random),
      responder_(random),
      reg_event_(config_.reg_event, registrar, domain_.listen(), timers, random),
      own_requests_(domain_, registrar, random, counters_),
      reauthentication_(
          config_.reauthentication, registrar, reg_event_,
          [this](std::string_view impi, std::string_view impu, Reauthentication::Done done) {
              return own_requests_.refer(impi, impu, std::move(done));
          },
          timers, random),
      from_hss_(registrar, reauthentication_),
      schedule_(
          config_.schedule,
          [this](std::string_view impu) { (void)reauthentication_.begin({std::string(impu)}); },
          timers, random),
      sessions_(config_.sessions, domain_, random),
      proxy_(
          {domain_, tokens_, responder_, sessions_, timers, random, counters_,
           config_.max_exchanges, config_.ring},
          [this](std::string_view impu) { return registrar_.find(impu) != nullptr; },
          [this](Proxy::Target& target) {
              bool there = false;
              registrar_.find_all(target.impu, [&](const Binding& b) {
                  if (b.impi != target.impi) return;
                  there = true;
                  target.contact = b.contact;
                  target.path = b.path;
              });
              return there;
          }) {
    registrar_.observe(this);
}

Server::~Server() {
    registrar_.observe(nullptr);
}

void Server::attach(sip::TransportLayer& transport) {
    transactions_ = std::make_unique<sip::TransactionLayer>(
        transport, timers_, random_, sip::TransactionTimers{},
        sip::TransactionLayer::Limits{.server = config_.max_transactions,
                                      .client = config_.max_transactions});
    responder_.attach(*transactions_);
    reg_event_.attach(*transactions_);
    own_requests_.attach(*transactions_);
    sessions_.attach(*transactions_);
    proxy_.attach(transport, *transactions_);
}

std::size_t Server::transactions() const {
    return transactions_ ? transactions_->server_count() + transactions_->client_count() : 0;
}

// ---- from the registrar ----

void Server::on_registration(const RegistrationChange& change) {
    if (change.over()) {
        // The calls first: with the NOTIFY the P-CSCF begins to close the way to the phone (F4).
        sessions_.release(change.impi, change.impus, "Not Registered Any More");
        proxy_.release(change.impi, change.impus);
    }
    schedule_.on_registration(change);
    reg_event_.on_registration(change);
}

// ---- from the transport ----

void Server::on_message(const sip::Flow& flow, std::span<char> bytes) {
    // A challenge is made from K below here, and the compiler's copies of it stay on the stack.
    const struct AtEnd {
        ~AtEnd() { wipe_stack(); }
    } wiped;
    sip::Message message;
    const auto status = message.parse(std::span<const char>(bytes));
    if (status == sip::ParseStatus::empty) return;  // keep-alive
    if (!message.is_request()) {
        if (status != sip::ParseStatus::ok || sip::check_response(message)) {
            ++counters_.garbage;
        } else if (transactions_->receive_response(flow, message, bytes) ==
                   sip::TransactionLayer::Match::unknown) {
            // A CANCEL has no transaction of its own here.
            const auto number = sip::cseq(message);
            if (!number || number->method != "CANCEL") ++counters_.stray_responses;
        }
        return;
    }
    if (!message.answerable()) {
        ++counters_.garbage;
        return;
    }
    using Arrival = sip::TransactionLayer::Arrival;
    const auto received = transactions_->receive_request(flow, reply_flow(flow, message), message);
    switch (received.arrival) {
        case Arrival::refused:
            ++counters_.refused;
            return;
        case Arrival::stateless:
            return on_ack(flow, message);
        case Arrival::fresh:
            ++counters_.requests;
            return handle(received.id, flow, message);
        case Arrival::retransmission:
        case Arrival::ack:
            return;
    }
}

void Server::on_framing_error(const sip::Flow& flow, sip::ParseStatus why,
                              std::span<char> /*held*/) {
    ++counters_.garbage;
    log::debug(area, "{}: {}", flow.remote.to_string(), sip::text(why));
}

void Server::on_connection_closed(const sip::Flow& flow, bool) {
    transactions_->connection_closed(flow);
}

// ---- requests ----

void Server::reject(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
                    int status, std::string_view reason) {
    ++counters_.rejected;
    responder_.answer(id, flow.remote, request, status, reason);
}

bool Server::refuse_extensions(sip::ServerTransactionId id, const sip::Flow& flow,
                               const sip::Message& request, HeaderId header) {
    const std::string tags = joined(request, header);
    if (tags.empty()) return false;
    ++counters_.rejected;
    responder_.answer(id, flow.remote, request, 420, {}, {{"Unsupported", tags}});
    return true;
}

bool Server::is_for_us(const sip::Uri& uri) const {
    const bool is_sip = uri.scheme == sip::Scheme::sip || uri.scheme == sip::Scheme::sips;
    return is_sip && domain_.is_ours(uri) &&
           (uri.user.empty() ||
            std::ranges::find(config_.services, uri.user) != config_.services.end());
}

// The ACK of a 2xx: end to end, so it is passed on or dropped.
void Server::on_ack(const sip::Flow& flow, const sip::Message& request) {
    if (check(request) || !in_dialog(request)) {
        ++counters_.garbage;
        return;
    }
    within_dialog(0, flow, request, read_routing(request, domain_, tokens_));
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
    if (const auto rejection = check(request))
        return reject(id, flow, request, rejection->code, rejection->reason);
    if (request.is_method("CANCEL")) return proxy_.cancel({id, flow}, request);
    // RFC 3261 16.3 step 5: we know no extension a proxy must take part in.
    if (refuse_extensions(id, flow, request, HeaderId::proxy_require)) return;
    if (request.is_method("SUBSCRIBE") && is_reg_event(request)) {
        if (refuse_extensions(id, flow, request, HeaderId::require)) return;
        return reg_event_.on_subscribe(id, flow.remote, request);
    }
    const auto routing = read_routing(request, domain_, tokens_);
    if (in_dialog(request)) return within_dialog(id, flow, request, routing);
    begin(id, flow, request, routing);
}

void Server::within_dialog(sip::ServerTransactionId id, const sip::Flow& flow,
                           const sip::Message& request, const Routing& routing) {
    const auto uri = sip::parse_uri(routing.request_uri);
    if (routing.routes.empty() && uri && is_for_us(*uri)) {
        if (id == 0) return;
        // Our only dialogs are subscriptions to registration state.
        if (request.is_method("SUBSCRIBE"))
            return reg_event_.on_subscribe(id, flow.remote, request);
        if (!request.is_method("MESSAGE") && !request.is_method("OPTIONS"))
            return reject(id, flow, request, 481);
        return serve(id, flow, request);
    }
    // A target in our domain is an identity, no address: a phone that remembers no Contact.
    const bool address = uri && !domain_.is_ours(*uri) && uri->scheme != sip::Scheme::tel;
    if (!routing.routes.empty() || address) {
        // Only what our Record-Route led here: a To tag alone makes nobody's dialog, and we are no
        // relay to any address.
        const bool passes = routing.recorded && !out_of_hops(request);
        if (passes) return proxy_.pass({id, flow}, request, routing);
        if (id != 0) return reject(id, flow, request, routing.recorded ? too_many_hops : 481);
        ++counters_.garbage;
        return;
    }
    if (id != 0) begin(id, flow, request, routing);
}

void Server::begin(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
                   const Routing& routing) {
    // A Route that names us is our Service-Route: the request was originated by a phone
    // (TS 24.229 5.4.3.2), whose asserted identity must be registered here.
    Proxy::Caller caller;
    if (routing.ours_first) {
        const auto asserted = request.first_value(HeaderId::p_asserted_identity);
        const auto who = asserted ? sip::parse_name_addr(*asserted) : std::nullopt;
        const auto value = request.first_value(HeaderId::contact);
        const auto contact = value ? sip::parse_contact(*value) : std::nullopt;
        const auto sender =
            who ? registrar_.find_sender(who->uri.text, contact && !contact->star
                                                            ? contact->address.uri.text
                                                            : std::string_view{})
                : std::nullopt;
        if (!sender) {
            ++counters_.forbidden;
            return responder_.answer(id, flow.remote, request, 403, "Originator Not Registered");
        }
        caller = {sender->impi, sender->default_impu};
    }
    const auto uri = sip::parse_uri(routing.request_uri);
    if (uri && is_for_us(*uri)) return serve(id, flow, request);

    const std::string identity = uri ? called_identity(*uri, domain_) : std::string{};
    std::vector<Proxy::Target> targets;
    registrar_.find_all(identity, [&](const Binding& b) {
        targets.push_back({std::string(b.impi), std::string(b.default_impu), std::string(b.contact),
                           std::string(b.path), b.q});
    });
    const bool oneself =
        std::ranges::any_of(targets, [&](const Proxy::Target& t) { return t.impi == caller.impi; });
    // One's own state is the network's to tell, and it tells of registrations only.
    if (request.is_method("SUBSCRIBE") && oneself)
        return reg_event_.on_subscribe(id, flow.remote, request);
    if (out_of_hops(request)) return reject(id, flow, request, too_many_hops);
    if (!targets.empty()) return proxy_.fork({id, flow}, request, caller, targets);
    not_there(id, flow, request, identity);
}

void Server::not_there(sip::ServerTransactionId id, const sip::Flow& flow,
                       const sip::Message& request, std::string_view identity) {
    ++counters_.not_registered;
    registrar_.locate(
        identity, [this, id, source = flow.remote, bytes = std::string(request.bytes()),
                   alive = std::weak_ptr(alive_)](CxResult result) {
            if (alive.expired() || !transactions_->alive(id)) return;
            sip::Message again;
            again.parse(bytes);
            // An HSS that fails tells nothing: the user may be there again soon.
            responder_.answer(id, source, again, result == CxResult::user_unknown ? 404 : 480);
        });
}

void Server::serve(sip::ServerTransactionId id, const sip::Flow& flow,
                   const sip::Message& request) {
    if (refuse_extensions(id, flow, request, HeaderId::require)) return;  // RFC 3261 8.2.2.3
    if (request.is_method("SUBSCRIBE")) return reg_event_.on_subscribe(id, flow.remote, request);
    if (request.is_method("NOTIFY")) return reject(id, flow, request, 481);  // we asked for none
    const auto uri = sip::parse_uri(request.request_uri());
    const bool domain = uri && uri->user.empty();
    if (request.is_method("OPTIONS") || (request.is_method("MESSAGE") && !domain)) {
        ++counters_.answered_here;
        return responder_.answer(id, flow.remote, request, 200, {}, {{"Allow", allowed}});
    }
    if (request.is_method("MESSAGE")) {
        ++counters_.not_registered;
        return responder_.answer(id, flow.remote, request, 404);
    }
    ++counters_.rejected;
    responder_.answer(id, flow.remote, request, 405, {}, {{"Allow", allowed}});
}

}  // namespace gmgate::home
