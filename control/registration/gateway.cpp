#include "control/registration/gateway.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "control/regevent/subscriber.h"
#include "control/registration/context.h"
#include "control/registration/edits.h"
#include "control/registration/owed_answers.h"
#include "control/registration/proxy.h"
#include "control/registration/registrar.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

// Option tags a proxy here honours in Proxy-Require.
bool understood(std::string_view tag) {
    return iequals(tag, "sec-agree") || iequals(tag, "privacy");
}

std::string unsupported_tags(const sip::Message& request) {
    std::string tags;
    for (const sip::Value& value : request.values(HeaderId::proxy_require)) {
        if (value.text.empty() || understood(value.text)) continue;
        if (!tags.empty()) tags += ", ";
        tags += value.text;
    }
    return tags;
}

sip::Framing framing(const sip::Flow& flow) {
    return flow.transport == sip::Transport::tcp ? sip::Framing::stream : sip::Framing::datagram;
}

bool is_response(std::span<const char> bytes) {
    return bytes.size() > 8 && bytes[0] == 'S' && bytes[3] == '/';
}

// A6 from our own side: what would leave a protected port when its SA is gone (a late answer, a
// retransmission) does not leave at all. The packet layer would drop it too.
class GmTransport final : public sip::TransportLayer {
  public:
    GmTransport(Context& context, sip::TransportLayer& below)
        : ctx_(context),
          below_(below),
          owed_(context.timers, context.policy.t1 * 64,
                [this](const sip::Flow& flow) { end(flow); }) {
        close_timer_.bind<&GmTransport::close_answered>(this);
    }
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        const bool sent = send_stateless(flow, bytes);
        const bool final_response = is_response(bytes) && bytes[8] >= '2' && bytes[8] <= '6';
        if (flow.connection == 0 || !final_response) return sent;
        if (const auto closing = owed_.answered(flow.connection)) {
            // Not from here: the caller is in the middle of answering.
            closing_.push_back(*closing);
            if (!close_timer_.active()) ctx_.timers.start(close_timer_, Duration{});
        }
        return sent;
    }
    // An answer that is none of those owed.
    bool send_stateless(const sip::Flow& flow, std::span<const char> bytes) {
        const auto& ports = ctx_.sets.ports();
        const sa::SaSet* set = nullptr;
        if (ports.is_port_ps(flow.local.port) || ports.is_port_pc(flow.local.port)) {
            set = ctx_.sets.find_by_tuple(flow.remote.address, flow.remote.port, flow.local.port);
            if (set == nullptr || !sa::in_backend(set->state)) {
                ctx_.metrics.drop(Reason::ue_unreachable);
                return false;
            }
        }
        if (below_.send(flow, bytes)) return true;
        // The connection of the request is gone: another one, to the phone's server port from our
        // client port (RFC 3261 18.2.2; A2).
        if (set == nullptr || flow.connection == 0 || !is_response(bytes)) return false;
        return below_.send(request_path(sip::Transport::tcp, flow.local.address,
                                        flow.remote.address, set->numbers),
                           bytes);
    }
    void close(sip::ConnectionId connection) override {
        owed_.forget(connection);
        below_.close(connection);
    }
    // What is owed there is forgotten when the connection's end is told.
    void cut(const Endpoint& local, const Endpoint& remote) override { below_.cut(local, remote); }
    // A sender is shed. Over TCP nothing is sent again, and the phone would wait half a minute for
    // an answer: the end of its connection tells it, and makes room. What it asked before is
    // answered first. The last act: `flow` may be the connection's own.
    void hang_up(const sip::Flow& flow) {
        if (flow.transport == sip::Transport::tcp && owed_.hang_up(flow)) end(flow);
    }
    [[nodiscard]] OwedAnswers& owed() { return owed_; }

  private:
    void end(sip::Flow flow) {
        close(flow.connection);
        // What we asked there is not answered any more.
        ctx_.gm.transactions->connection_closed(flow);
    }
    void close_answered() {
        for (const sip::Flow& flow : std::exchange(closing_, {})) end(flow);
    }

    Context& ctx_;
    sip::TransportLayer& below_;
    OwedAnswers owed_;
    std::vector<sip::Flow> closing_;  // their last answer has left
    Timer close_timer_;
};

// Nothing is sent to a next hop that is not known, and no answer is lost with the connection of its
// request: it gets another one, to the address that asked (RFC 3261 18.2.2).
class CoreTransport final : public sip::TransportLayer {
  public:
    CoreTransport(Context& context, sip::TransportLayer& below) : ctx_(context), below_(below) {}
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        if (!is_response(bytes)) ctx_.next_hops.used(flow.remote.address);
        if (flow.remote.address.is_unspecified()) return false;
        if (below_.send(flow, bytes)) return true;
        if (flow.connection == 0 || !is_response(bytes)) return false;
        const auto another = way_back(bytes);
        return another && below_.send(*another, bytes);
    }
    void close(sip::ConnectionId connection) override { below_.close(connection); }
    void cut(const Endpoint& local, const Endpoint& remote) override { below_.cut(local, remote); }

  private:
    // To the top Via's received and port, if they speak to us at all.
    [[nodiscard]] std::optional<sip::Flow> way_back(std::span<const char> bytes) const {
        sip::Message response;
        if (response.parse(bytes) != sip::ParseStatus::ok) return std::nullopt;
        const auto via = sip::top_via(response);
        if (!via) return std::nullopt;
        const auto at = IpAddress::parse(via->received.empty() ? via->host : via->received);
        if (!at || !ctx_.trusts(*at)) return std::nullopt;
        const std::uint16_t port = via->port == 0 ? std::uint16_t{5060} : via->port;
        return ctx_.next_hops.flow_to(sip::Transport::tcp, {*at, port});
    }

    Context& ctx_;
    sip::TransportLayer& below_;
};

// What the subscriber to registration state asks of us (E5).
class RegEventHost final : public regevent::Host {
  public:
    RegEventHost(Context& context, Registrar& registrar) : ctx_(context), registrar_(registrar) {}
    std::string_view identity(regevent::UserId id) const override {
        const Registration* r = registrar_.registrations().find(id);
        const sa::User* user = r == nullptr ? nullptr : ctx_.sets.find_user(id);
        return user == nullptr || r->bindings.empty() ? std::string_view{} : user->impu(0);
    }
    // Only to hosts that may speak to us: a document of the core's sends us nowhere else (S2).
    sip::Flow flow_to(std::string_view uri) const override {
        sip::ValueSplitter values(uri);  // a route set: the first of it is next
        const auto first = uri.empty() ? std::nullopt : values.next();
        const auto flow = first ? ctx_.flow_to(*first) : std::nullopt;
        return flow && ctx_.trusts(flow->remote.address) ? *flow : ctx_.core_flow();
    }
    std::optional<Duration> on_reginfo(regevent::UserId id, const sip::RegInfo& info,
                                       bool ended) override {
        return registrar_.obey(id, info, ended);
    }
    std::optional<Duration> on_overdue(regevent::UserId id) override {
        return registrar_.overdue(id);
    }
    void note(regevent::UserId id, std::string_view method, int status, bool to_core) override {
        const Registration* r = registrar_.registrations().find(id);
        if (r == nullptr) return;
        const Entity from = to_core ? Entity::pcscf : Entity::core;
        ctx_.note(r->trace_user, method, status, {from, to_core ? Entity::core : Entity::pcscf});
    }

  private:
    Context& ctx_;
    Registrar& registrar_;
};

constexpr std::uint64_t procedures_phase = std::uint64_t{1} << 63U;

}  // namespace

struct Gateway::Impl {
    Impl(Policy policy, sa::SaDatabase& sets, TimerWheel& timers, Random& random,
         metrics::Registry& registry)
        : ctx(std::move(policy), sets, timers, random, registry),
          registrar(ctx),
          proxy(ctx, registrar.registrations()),
          reg_event_host(ctx, registrar),
          gm_sink(*this, true),
          core_sink(*this, false) {
        registrar.release_with(&proxy);
        proxy.nats_by([this](const IpAddress& source) { return registrar.is_nat(source); });
        if (!ctx.policy.reg_event) return;
        regevent::Options options;
        options.profile = *ctx.policy.reg_event;
        options.t1 = ctx.policy.t1;
        options.margin = ctx.sets.config().timers.lifetime_grace;
        options.address =
            ctx.core_local.address.to_uri_host() + ":" + std::to_string(ctx.core_local.port);
        options.name = ctx.core_host;
        reg_event.emplace(std::move(options), reg_event_host, timers, random, registry);
        registrar.watch_with(&*reg_event);
    }

    struct Sink final : sip::MessageSink {
        Sink(Impl& i, bool gm) : impl(i), is_gm(gm) {}
        void on_message(const sip::Flow& flow, std::span<char> bytes) override {
            is_gm ? impl.on_gm(flow, bytes) : impl.on_core(flow, bytes);
        }
        void on_framing_error(const sip::Flow& flow, sip::ParseStatus why,
                              std::span<char> held) override {
            log::debug("registration", "stream from {}: {}", flow.remote.to_string(),
                       sip::text(why));
            is_gm ? impl.on_broken_gm(flow, why, held) : impl.on_broken_core(flow, why, held);
        }
        void on_connection_closed(const sip::Flow& flow, bool was_established) override {
            if (is_gm) {
                impl.gm_transport->owed().forget(flow.connection);
                impl.proxy.on_connection_closed(flow);
            } else if (!was_established) {
                impl.ctx.next_hops.no_stream(flow.remote);
            }
            Side& side = is_gm ? impl.ctx.gm : impl.ctx.core;
            if (side.transactions) side.transactions->connection_closed(flow, was_established);
        }
        Impl& impl;
        bool is_gm;
    };

    void on_gm(const sip::Flow& flow, std::span<char> bytes);
    void on_core(const sip::Flow& flow, std::span<char> bytes);
    // What cannot be cut out of a stream: told what is wrong (RFC 4475 3.1.2.3, 3.3.9), if it was a
    // request so far and its sender may speak at all; the transport closes.
    void on_broken_gm(const sip::Flow& flow, sip::ParseStatus why, std::span<char> held);
    void on_broken_core(const sip::Flow& flow, sip::ParseStatus why, std::span<char> held);
    // S3: whether what came on Gm is looked at, and on which SA it came. Else it is counted.
    [[nodiscard]] std::optional<Carrier> admit(const sip::Flow& flow, std::span<char> bytes);
    // Without a transaction: what is not worth one.
    void answer_stateless(Side& side, const sip::Flow& reply, const Endpoint& source,
                          const sip::Message& request, int code, std::string_view reason,
                          std::initializer_list<sip::HeaderField> headers = {});
    // A registered phone sends faster than it may. Over UDP it will send again; over TCP it waits,
    // so it is told, and one that does not listen loses its connection.
    void shed_user(const sip::Flow& flow, const Carrier& carrier, std::span<char> bytes);
    // A fault of the message itself is answered if it can be; false: nothing was wrong.
    bool refuse_faulty(Side& side, const sip::Flow& flow, const Carrier& carrier,
                       const sip::Message& message, sip::ParseStatus status);
    // A CANCEL has no transaction of its own here: whoever sent it is told of its answer.
    void told_of_cancel(const sip::Message& response, const sip::Flow& flow,
                        const Carrier* from_phone) {
        const auto number = sip::cseq(response);
        if (number && number->method == "CANCEL")
            proxy.on_cancel_answer(response, flow, from_phone);
    }
    [[nodiscard]] static sip::Flow path_back(const sip::Flow& flow, const Carrier& carrier,
                                             const sip::Message& request, bool on_gm = true);
    [[nodiscard]] RegistrationView view_of(const Registration& registration,
                                           const sa::User& user) const;
    [[nodiscard]] RegistrationView view_of(const RegistrationProcedure& procedure) const;

    Context ctx;
    std::optional<GmTransport> gm_transport;
    std::optional<CoreTransport> core_transport;
    Registrar registrar;
    Proxy proxy;
    RegEventHost reg_event_host;
    std::optional<regevent::Subscriber> reg_event;
    Sink gm_sink;
    Sink core_sink;
};

sip::Flow Gateway::Impl::path_back(const sip::Flow& flow, const Carrier& carrier,
                                   const sip::Message& request, bool on_gm) {
    const auto via = sip::sent_by(request);
    if (!via) return flow;
    if (carrier.is_protected()) return reply_path(flow, *via, carrier.numbers, carrier.nat);
    return on_gm ? reply_path_in_clear(flow, *via) : reply_path(flow, *via);
}

void Gateway::Impl::answer_stateless(Side& side, const sip::Flow& reply, const Endpoint& source,
                                     const sip::Message& request, int code, std::string_view reason,
                                     std::initializer_list<sip::HeaderField> headers) {
    const std::string tag = ctx.random.token(6);
    sip::ResponseOptions options;
    options.reason = reason;
    options.to_tag = tag;
    options.source = source;
    options.headers = {headers.begin(), headers.size()};
    if (!sip::build_response(request, code, options, ctx.scratch)) return;
    if (&side == &ctx.gm)
        gm_transport->send_stateless(reply, ctx.scratch);
    else
        side.transport->send(reply, ctx.scratch);
}

bool Gateway::Impl::refuse_faulty(Side& side, const sip::Flow& flow, const Carrier& carrier,
                                  const sip::Message& message, sip::ParseStatus status) {
    int code = 0;
    std::string_view reason;
    if (status != sip::ParseStatus::ok) {
        code = sip::response_code(status);
        reason = {};
    } else if (message.is_request()) {
        const auto rejection = sip::check_request(message);
        if (!rejection) return false;
        code = rejection->code;
        reason = rejection->reason;
    } else {
        if (!sip::check_response(message)) return false;
    }
    const Reason why = code == 505 ? Reason::unsupported_version : Reason::malformed;
    const bool answer =
        code != 0 && message.answerable() && !message.is_method("ACK") && sip::sent_by(message);
    ctx.refuse(why, answer ? code : 0, flow.remote, {});
    if (answer)
        answer_stateless(side, path_back(flow, carrier, message, &side == &ctx.gm), flow.remote,
                         message, code, reason);
    if (&side == &ctx.gm && message.is_request() && message.is_method("REGISTER")) {
        answer ? ctx.registration_failed({why, code, flow.remote})
               : ctx.registration_discarded(why, flow.remote);
    }
    return true;
}

void Gateway::Impl::shed_user(const sip::Flow& flow, const Carrier& carrier,
                              std::span<char> bytes) {
    ctx.shed(Reason::rate_user, flow.remote);
    if (flow.transport != sip::Transport::tcp) return;
    if (!registrar.tell_user(carrier.user)) return gm_transport->hang_up(flow);
    sip::Message message;
    if (message.parse(std::string_view(bytes.data(), bytes.size()), framing(flow)) !=
            sip::ParseStatus::ok ||
        !message.is_request() || message.is_method("ACK") || !message.answerable())
        return;
    answer_stateless(ctx.gm, path_back(flow, carrier, message), flow.remote, message, 503, {},
                     {{"Retry-After", "5"}});
}

std::optional<Carrier> Gateway::Impl::admit(const sip::Flow& flow, std::span<char> bytes) {
    if (flow.connection != 0 && gm_transport->owed().is_hung_up(flow.connection))
        return std::nullopt;
    const auto& ports = ctx.sets.ports();
    if (ports.is_port_ps(flow.local.port) || ports.is_port_pc(flow.local.port)) {
        const sa::SaSet* set =
            ctx.sets.find_by_tuple(flow.remote.address, flow.remote.port, flow.local.port);
        if (set == nullptr || !sa::in_backend(set->state)) {
            ctx.refuse(Reason::no_sa, 0, flow.remote, {});
            return std::nullopt;
        }
        const Carrier carrier = Carrier::of(*set);
        if (registrar.admit_user(carrier.user)) return carrier;
        shed_user(flow, carrier, bytes);
        return std::nullopt;
    }
    if (const Reason why = registrar.admit(flow.remote, flow.transport); why != Reason::ok) {
        ctx.shed(why, flow.remote);
        gm_transport->hang_up(flow);
        return std::nullopt;
    }
    return Carrier{};
}

void Gateway::Impl::on_broken_gm(const sip::Flow& flow, sip::ParseStatus why,
                                 std::span<char> held) {
    const auto carrier = admit(flow, held);
    if (!carrier) return;
    sip::Message message;
    const auto status =
        message.parse(std::string_view(held.data(), held.size()), sip::Framing::stream_head);
    refuse_faulty(ctx.gm, flow, *carrier, message, status == sip::ParseStatus::ok ? why : status);
}

void Gateway::Impl::on_broken_core(const sip::Flow& flow, sip::ParseStatus why,
                                   std::span<char> held) {
    if (ctx.trusts(flow.remote.address)) {
        sip::Message message;
        const auto status =
            message.parse(std::string_view(held.data(), held.size()), sip::Framing::stream_head);
        refuse_faulty(ctx.core, flow, Carrier{}, message,
                      status == sip::ParseStatus::ok ? why : status);
    } else {
        ctx.shed(Reason::untrusted_source, flow.remote);
    }
    std::ranges::fill(held, '0');  // S1: it may have been a 401
}

void Gateway::Impl::on_gm(const sip::Flow& flow, std::span<char> bytes) {
    // Keep-alive (RFC 5626 3.5.1).
    if (bytes.size() <= 4 &&
        std::ranges::all_of(bytes, [](char c) { return c == '\r' || c == '\n'; }))
        return;
    const auto admitted = admit(flow, bytes);
    if (!admitted) return;
    const Carrier& carrier = *admitted;
    sip::Message message;
    const auto status = message.parse(std::string_view(bytes.data(), bytes.size()), framing(flow));
    if (status == sip::ParseStatus::empty) return;
    if (refuse_faulty(ctx.gm, flow, carrier, message, status)) return;
    const Context::AtHand at_hand(ctx, message, flow.transport);
    const auto side = carrier.is_protected() ? GatewayMetrics::Side::gm_protected
                                             : GatewayMetrics::Side::gm_clear;

    if (!message.is_request()) {
        ctx.metrics.response(side, message.status_code());
        // We ask nothing in clear but in an emergency call, so nothing else is answered in clear
        // (A6).
        const bool takes = carrier.is_protected() || proxy.takes_answers_in_clear(flow);
        if (takes) told_of_cancel(message, flow, &carrier);
        if (!takes || ctx.gm.transactions->receive_response(flow, message, bytes) ==
                          sip::TransactionLayer::Match::unknown) {
            ctx.refuse(Reason::stray_response, 0, flow.remote, {});
        }
        return;
    }
    ctx.metrics.request(side, message.method());
    const bool is_register = message.is_method("REGISTER");
    if (!carrier.is_protected() && !is_register && !proxy.takes_in_clear(flow, message)) {
        const bool answer =
            ctx.policy.unprotected_other == UnprotectedOther::reject && !message.is_method("ACK");
        ctx.refuse(Reason::unprotected_request, answer ? 403 : 0, flow.remote, {});
        if (answer) {
            answer_stateless(ctx.gm, path_back(flow, carrier, message), flow.remote, message, 403,
                             {});
        }
        return;
    }

    Arrival arrival{flow, path_back(flow, carrier, message), carrier, 0};
    const auto received =
        ctx.gm.transactions->receive_request(flow, arrival.reply, message, carrier.party());
    switch (received.arrival) {
        case sip::TransactionLayer::Arrival::fresh:
            break;
        case sip::TransactionLayer::Arrival::retransmission:
        case sip::TransactionLayer::Arrival::ack:
            return;
        case sip::TransactionLayer::Arrival::refused:
            if (is_register) ctx.registration_discarded(Reason::transaction_limit, flow.remote);
            ctx.refuse(Reason::transaction_limit, 0, flow.remote, {});
            return carrier.is_protected() ? void() : gm_transport->hang_up(flow);
        case sip::TransactionLayer::Arrival::stateless:
            carrier.is_protected() ? proxy.on_ue_request(arrival, message)
                                   : proxy.on_clear_request(arrival, message);
            return;
    }
    arrival.transaction = received.id;
    gm_transport->owed().asked(flow);
    if (const std::string tags = unsupported_tags(message);
        !tags.empty() && !message.is_method("CANCEL")) {  // RFC 3261 8.2.2.3
        if (is_register) {
            return registrar.refuse(arrival, message, 420, Reason::bad_extension,
                                    {{"Unsupported", tags}});
        }
        return ctx.answer(ctx.gm, arrival, message, 420, Reason::bad_extension, {},
                          {{"Unsupported", tags}});
    }
    if (!is_register) {
        return carrier.is_protected() ? proxy.on_ue_request(arrival, message)
                                      : proxy.on_clear_request(arrival, message);
    }
    if (const auto rejection = sip::check_routable(message)) {
        return registrar.refuse(
            arrival, message, rejection->code,
            rejection->code == 483 ? Reason::too_many_hops : Reason::unsupported_uri);
    }
    registrar.on_register(arrival, message);
}

void Gateway::Impl::on_core(const sip::Flow& flow, std::span<char> bytes) {
    if (!ctx.trusts(flow.remote.address)) {
        // It may be the core after all, by an address the operator forgot: with ck and ik (S1).
        std::ranges::fill(bytes, '0');
        return ctx.shed(Reason::untrusted_source, flow.remote);
    }
    sip::Message message;
    const auto status = message.parse(std::string_view(bytes.data(), bytes.size()), framing(flow));
    if (status == sip::ParseStatus::empty) return;
    const Carrier clear;
    if (refuse_faulty(ctx.core, flow, clear, message, status)) {
        // What cannot be taken apart may still hold ck and ik (S1).
        std::ranges::fill(bytes, '0');
        return;
    }
    const Context::AtHand at_hand(ctx, message);

    if (!message.is_request()) {
        ctx.metrics.response(GatewayMetrics::Side::core, message.status_code());
        told_of_cancel(message, flow, nullptr);
        const auto match = ctx.core.transactions->receive_response(flow, message, bytes);
        if (match == sip::TransactionLayer::Match::unknown)
            ctx.refuse(Reason::unknown_transaction, 0, flow.remote, {});
        // Whoever took a challenge took its keys out; but it may have come again, or twice over, or
        // hold them where they have no place (S1).
        const int code = message.status_code();
        if (code == 401 || code == 407)
            std::ranges::fill(bytes, '0');
        else if (match != sip::TransactionLayer::Match::delivered)
            wipe_keys(message, bytes);
        return;
    }
    ctx.metrics.request(GatewayMetrics::Side::core, message.method());
    Arrival arrival{flow, path_back(flow, clear, message, false), clear, 0};
    const auto received = ctx.core.transactions->receive_request(flow, arrival.reply, message);
    switch (received.arrival) {
        case sip::TransactionLayer::Arrival::fresh:
            break;
        case sip::TransactionLayer::Arrival::retransmission:
        case sip::TransactionLayer::Arrival::ack:
            return;
        case sip::TransactionLayer::Arrival::refused:
            return ctx.refuse(Reason::transaction_limit, 0, flow.remote, {});
        case sip::TransactionLayer::Arrival::stateless:
            break;  // an ACK: passed on or dropped
    }
    arrival.transaction = received.id;
    if (const std::string tags = unsupported_tags(message);
        !tags.empty() && arrival.transaction != 0 && !message.is_method("CANCEL")) {
        return ctx.answer(ctx.core, arrival, message, 420, Reason::bad_extension, {},
                          {{"Unsupported", tags}});
    }
    if (reg_event && arrival.transaction != 0 && message.is_method("NOTIFY")) {
        if (const auto verdict = reg_event->on_notify(message)) {
            const Reason why = verdict->status == 200   ? Reason::ok
                               : verdict->status == 481 ? Reason::unknown_transaction
                                                        : Reason::malformed;
            return ctx.answer(ctx.core, arrival, message, verdict->status, why);
        }
    }
    proxy.on_core_request(arrival, message);
}

RegistrationView Gateway::Impl::view_of(const Registration& registration,
                                        const sa::User& user) const {
    RegistrationView v;
    v.impi = user.impi();
    for (std::size_t i = 0; i < user.impu_count(); ++i) v.impus.emplace_back(user.impu(i));
    v.contact = user.contact();
    if (!user.service_route().empty()) {
        sip::ValueSplitter routes(user.service_route());
        while (const auto r = routes.next()) v.service_route.emplace_back(*r);
    }
    v.transport = registration.transport;
    v.age = ctx.now() - registration.since;
    for (const sa::SetId id : user.sets) {
        if (id != 0) v.sets.push_back(id);
    }
    std::ranges::sort(v.sets);
    if (const auto* set = ctx.sets.outbound(user)) v.ue = Endpoint{set->ue, set->numbers.port_us};
    v.state = registration.bindings.empty()                ? "leaving"
              : ctx.sets.registration_set(user) != nullptr ? "reauthenticating"
                                                           : "registered";
    if (!registration.bindings.empty()) {
        TimePoint end{};
        for (const Binding& b : registration.bindings) end = std::max(end, b.expires);
        v.expires_in = std::max(Duration{}, end - ctx.now());
    }
    if (reg_event) v.reg_event = reg_event->state(registration.subscription);
    return v;
}

RegistrationView Gateway::Impl::view_of(const RegistrationProcedure& procedure) const {
    RegistrationView v;
    v.impi = procedure.impi();
    v.impus.emplace_back(procedure.impu());
    v.state = "authenticating";
    v.ue = procedure.ue();
    v.transport = procedure.transport();
    v.contact = procedure.contact();
    if (procedure.set() != 0) v.sets.push_back(procedure.set());
    v.age = ctx.now() - procedure.started();
    return v;
}

Gateway::Gateway(Policy policy, sa::SaDatabase& sets, TimerWheel& timers, Random& random,
                 metrics::Registry& registry)
    : impl_(std::make_unique<Impl>(std::move(policy), sets, timers, random, registry)) {}

Gateway::~Gateway() = default;

sip::MessageSink& Gateway::gm() {
    return impl_->gm_sink;
}
sip::MessageSink& Gateway::core() {
    return impl_->core_sink;
}

void Gateway::attach(sip::TransportLayer& gm, sip::TransportLayer& core) {
    Context& ctx = impl_->ctx;
    sip::TransactionTimers times;
    times.t1 = ctx.policy.t1;
    times.t2 = ctx.policy.t1 * 8;
    times.t4 = ctx.policy.t1 * 10;
    times.proceeding = ctx.policy.timer_c + ctx.policy.t1 * 128;  // its CANCEL is given up by then
    const sip::TransactionLayer::Limits limits{ctx.policy.limits.transactions,
                                               ctx.policy.limits.transactions};
    sip::TransportLayer& guarded = impl_->gm_transport.emplace(ctx, gm);
    ctx.gm.transport = &guarded;
    sip::TransportLayer& outward = impl_->core_transport.emplace(ctx, core);
    ctx.core.transport = &outward;
    ctx.gm.transactions.emplace(guarded, ctx.timers, ctx.random, times, limits);
    ctx.core.transactions.emplace(outward, ctx.timers, ctx.random, times, limits);
    ctx.next_hops.attach(*ctx.core.transactions);
    if (impl_->reg_event) impl_->reg_event->attach(*ctx.core.transactions);
}

void Gateway::resolve_with(dns::Resolver& resolver) {
    impl_->ctx.resolve_with(resolver);
}

bool Gateway::deregister(std::string_view impi) {
    return impl_->registrar.deregister(impi);
}

void Gateway::shut_down() {
    impl_->registrar.shut_down();
    impl_->proxy.shut_down();
    impl_->ctx.reporter.tell();
}

std::uint64_t Gateway::scan(std::uint64_t cursor, std::size_t budget,
                            const std::function<void(const RegistrationView&)>& visit) const {
    const auto& registrations = impl_->registrar.registrations().slots();
    const auto& procedures = impl_->registrar.procedures();
    if ((cursor & procedures_phase) == 0) {
        for (; budget > 0 && cursor < registrations.slots(); ++cursor, --budget) {
            const Registration* r = registrations.at(cursor);
            const sa::User* user = r == nullptr ? nullptr : impl_->ctx.sets.find_user(r->user);
            if (user != nullptr) visit(impl_->view_of(*r, *user));
        }
        if (cursor < registrations.slots()) return cursor;
        cursor = procedures_phase;
    }
    std::uint64_t at = cursor & ~procedures_phase;
    for (; budget > 0 && at < procedures.slots(); ++at, --budget) {
        const RegistrationProcedure* p = procedures.at(at);
        if (p == nullptr) continue;
        const sa::User* user = impl_->ctx.sets.find_by_impi(p->impi());
        // A registered user is shown once, as "reauthenticating".
        if (user != nullptr && impl_->registrar.registrations().find(user->id) != nullptr) continue;
        visit(impl_->view_of(*p));
    }
    return at < procedures.slots() ? (at | procedures_phase) : 0;
}

std::optional<RegistrationView> Gateway::find(std::string_view impi) const {
    if (const sa::User* user = impl_->ctx.sets.find_by_impi(impi)) {
        if (const auto* r = impl_->registrar.registrations().find(user->id))
            return impl_->view_of(*r, *user);
    }
    const auto& procedures = impl_->registrar.procedures();
    for (std::size_t i = 0; i < procedures.slots(); ++i) {
        const RegistrationProcedure* p = procedures.at(i);
        if (p != nullptr && p->impi() == impi) return impl_->view_of(*p);
    }
    return std::nullopt;
}

std::uint64_t Gateway::scan_sessions(std::uint64_t cursor, std::size_t budget,
                                     const std::function<void(const SessionView&)>& visit) const {
    const auto& slots = impl_->proxy.dialogs().slots();
    for (; budget > 0 && cursor < slots.slots(); ++cursor, --budget) {
        const Dialog* d = slots.at(cursor);
        const sa::User* user = d == nullptr ? nullptr : impl_->ctx.sets.find_user(d->user);
        if (user == nullptr) continue;
        SessionView v;
        v.impi = user->impi();
        const auto peer = sip::parse_name_addr(d->core_party());
        v.peer = peer ? peer->uri.text : std::string_view{};
        v.call = impl_->ctx.trace.call_of(d->call_id());
        v.early = !d->confirmed();
        v.idle = impl_->ctx.now() - Dialogs::last_use(*d);
        visit(v);
    }
    return cursor < slots.slots() ? cursor : 0;
}

bool Gateway::trusts(const IpAddress& peer) const {
    return impl_->ctx.trusts(peer);
}
bool Gateway::carries_call(const sip::Flow& flow) const {
    return impl_->proxy.carries_call(flow);
}
std::size_t Gateway::registered() const {
    return impl_->registrar.registrations().size();
}
std::size_t Gateway::pending() const {
    return impl_->registrar.procedures().size();
}
std::size_t Gateway::proxied() const {
    return impl_->proxy.size();
}
std::size_t Gateway::dialogs() const {
    return impl_->proxy.dialogs().size();
}
std::size_t Gateway::dialog_octets() const {
    return impl_->proxy.dialogs().octets();
}
std::size_t Gateway::index_entries() const {
    return impl_->registrar.index_entries() + impl_->proxy.index_entries();
}
std::size_t Gateway::transactions() const {
    std::size_t n = 0;
    for (const Side* side : {&impl_->ctx.gm, &impl_->ctx.core}) {
        if (side->transactions)
            n += side->transactions->server_count() + side->transactions->client_count();
    }
    return n;
}
const TraceStore& Gateway::trace() const {
    return impl_->ctx.trace;
}
const FailureLog& Gateway::failures() const {
    return impl_->ctx.failures;
}
const CoreHealth& Gateway::core_health() const {
    return impl_->ctx.core_watch.health();
}
std::vector<NextHopView> Gateway::next_hops() const {
    return impl_->ctx.next_hops.view();
}
std::uint64_t Gateway::drops(Reason reason) const {
    return impl_->ctx.metrics.drops(reason);
}

}  // namespace gmgate::registration
