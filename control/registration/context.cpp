#include "control/registration/context.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "base/bytes.h"
#include "base/log.h"

namespace gmgate::registration {
namespace {

constexpr std::array<std::string_view, 14> known_methods{
    "REGISTER",  "INVITE", "ACK",     "BYE",   "CANCEL", "OPTIONS", "MESSAGE",
    "SUBSCRIBE", "NOTIFY", "PUBLISH", "PRACK", "UPDATE", "INFO",    "REFER"};

constexpr std::size_t tag_octets = 6;

}  // namespace

std::string_view known_method(std::string_view method) {
    return std::ranges::find(known_methods, method) != known_methods.end()
               ? method
               : std::string_view("OTHER");
}

Reason reason_of(sa::Event removed_by) {
    switch (removed_by) {
        case sa::Event::superseded:
            return Reason::superseded;
        case sa::Event::reg_await_timeout:
            return Reason::authentication_timeout;
        case sa::Event::lifetime_expired:
            return Reason::expired;
        case sa::Event::address_changed:
            return Reason::address_changed;
        // A set drains because a newer one replaced it, which then outlives it (B5, D2); because
        // its user leaves, whose registration has ended already (D4); or for its sequence numbers.
        // So a registration that ends with a drained set ends by D7.
        case sa::Event::drained:
        case sa::Event::drain_timeout:
        case sa::Event::sequence_near_end:
            return Reason::sequence_near_end;
        case sa::Event::shutdown:
            return Reason::shutdown;
        case sa::Event::backend_lost:
            return Reason::install_failed;
        default:
            return Reason::deregistered_by_network;
    }
}

std::string head_of(const sip::Message& request) {
    // build_response() copies exactly these lines.
    std::string head;
    head.reserve(640);
    head += request.method();
    head += " sip:x SIP/2.0\r\n";
    for (const auto* via = request.first(sip::HeaderId::via); via != nullptr;
         via = request.next(*via)) {
        head += request.line(*via);
    }
    for (const auto id :
         {sip::HeaderId::from, sip::HeaderId::to, sip::HeaderId::call_id, sip::HeaderId::cseq}) {
        if (const auto* h = request.first(id)) head += request.line(*h);
    }
    head += "\r\n";
    return head;
}

Context::Context(Policy p, sa::SaDatabase& s, TimerWheel& t, Random& r, metrics::Registry& registry)
    : policy(std::move(p)),
      sets(s),
      timers(t),
      random(r),
      metrics(registry),
      trace(policy.limits.trace_records, r.u64()),
      failures(policy.limits.failure_records),
      reporter(t),
      tokens(policy.flow_token_key ? *policy.flow_token_key : FlowTokens::draw(r)),
      next_hops({policy.core,
                 !policy.name.empty()  ? policy.name
                 : policy.core.empty() ? std::string()
                                       : policy.core.front().address.to_uri_host(),
                 policy.t1, std::chrono::seconds(20), std::chrono::seconds(10),
                 policy.timer_c + policy.t1 * 128},
                timers, random, registry) {
    if (policy.gm_addresses.empty()) throw std::invalid_argument("no address on Gm is given");
    if (policy.suites.empty()) throw std::invalid_argument("the list of algorithm pairs is empty");
    for (const sa::Suite suite : policy.suites) {
        if (!sa::is_valid(suite))
            throw std::invalid_argument("an algorithm pair is not valid: " + sa::to_string(suite));
    }
    if (policy.core.empty()) throw std::invalid_argument("no address of ours towards the core");
    next_hops.set(policy.next_hops);
    if (!policy.domain && policy.next_hops.empty())
        throw std::invalid_argument("no next hop towards the core is given");
    if (!policy.next_hops.empty() && next_hops.view().size() != policy.next_hops.size()) {
        throw std::invalid_argument(
            "no core address of ours has the family of one of the next hops, or one is given "
            "twice");
    }
    core_local = policy.core.front();
    for (const Endpoint& e : policy.core) {
        if (!policy.next_hops.empty() &&
            e.address.is_v6() == policy.next_hops.front().at.address.is_v6())
            core_local = e;
    }
    const std::string address =
        core_local.address.to_uri_host() + ":" + std::to_string(core_local.port);
    core_host = policy.name.empty() ? address : policy.name + ":" + std::to_string(core_local.port);
    generator = policy.name.empty() ? core_local.address.to_uri_host() : policy.name;
    if (policy.visited_network.empty()) policy.visited_network = generator;
    scratch.reserve(4096);
}

sip::Flow Context::core_flow(const std::optional<Endpoint>& stay) const {
    return next_hops.pick(stay).value_or(sip::Flow{sip::Transport::udp, core_local, Endpoint{}, 0});
}

namespace {

std::optional<sip::Transport> transport_of(const sip::Uri& uri) {
    const auto wanted = uri.param("transport");
    if (!wanted) return std::nullopt;
    return iequals(wanted->value, "tcp") ? sip::Transport::tcp : sip::Transport::udp;
}

}  // namespace

std::optional<sip::Flow> Context::flow_to(std::string_view route_value) const {
    // A route stands in brackets. A Request-URI does not, and read as a header's value it would
    // lose its parameters to the header (RFC 3261 20.10).
    std::optional<sip::Uri> bare;
    std::optional<sip::NameAddr> name;
    if (route_value.find('<') == std::string_view::npos) {
        bare = sip::parse_uri(route_value);
    } else {
        name = sip::parse_name_addr(route_value);
    }
    if (!bare && !name) return std::nullopt;
    const sip::Uri& uri = bare ? *bare : name->uri;
    if (uri.host.empty()) return std::nullopt;
    const auto transport = transport_of(uri);
    if (const auto address = IpAddress::parse(uri.host)) {
        return next_hops.flow_to(transport.value_or(sip::Transport::udp),
                                 {*address, uri.port == 0 ? std::uint16_t{5060} : uri.port});
    }
    if (hosts == nullptr) return std::nullopt;
    const auto target = hosts->find(uri.host, uri.port, transport);
    return target ? next_hops.flow_to(target->transport, target->at) : std::nullopt;
}

void Context::learn(const sip::Uri& hop) {
    if (hosts != nullptr) return hosts->learn(hop.host, hop.port, transport_of(hop));
    cannot_trust(hop.host);
}

void Context::resolve_with(dns::Resolver& resolver) {
    const auto has = [&](bool v6) {
        return std::ranges::any_of(policy.core,
                                   [v6](const Endpoint& e) { return e.address.is_v6() == v6; });
    };
    hosts = std::make_unique<dns::Hosts>(resolver, timers, random, has(false), has(true));
    if (!policy.domain) return;
    dns::Locator::Options options;
    options.name = policy.domain->name;
    options.port = policy.domain->port;
    options.transport = policy.domain->transport;
    options.v4 = has(false);
    options.v6 = has(true);
    domain = std::make_unique<dns::Locator>(
        std::move(options), resolver, timers, random, [this](const auto& targets) {
            std::vector<NextHop> found;
            for (const dns::Target& t : targets) {
                // Requests must not run in a circle, whatever the DNS says.
                const bool ours = std::ranges::find(policy.core, t.at) != policy.core.end();
                if (!ours) found.push_back({t.transport, t.at});
            }
            if (!found.empty()) next_hops.set(found);
        });
    domain->ask();
}

std::string Context::via_on(const sip::Flow& flow) const {
    const auto local = std::ranges::find_if(
        policy.core, [&](const Endpoint& e) { return e.address == flow.local.address; });
    const std::uint16_t port = local == policy.core.end() ? core_local.port : local->port;
    return "SIP/2.0/" + std::string(sip::name(flow.transport)) + " " +
           flow.local.address.to_uri_host() + ":" + std::to_string(port) + ";branch=";
}

bool Context::trusts(const IpAddress& peer) const {
    if (next_hops.trusts(peer) || hops_.contains(peer)) return true;
    // Only names of Service-Routes are looked up before a request of the core's is taken.
    if (policy.trust_service_routes && hosts != nullptr && hosts->contains(peer)) return true;
    if (policy.e_cscf && peer == policy.e_cscf->address) return true;
    return std::ranges::any_of(policy.trusted, [&](const Network& n) { return n.contains(peer); });
}

void Context::trust(const IpAddress& hop) {
    constexpr std::size_t most = 256;
    if (policy.trust_service_routes && hops_.size() < most) hops_.insert(hop);
}

void Context::cannot_trust(std::string_view host) {
    if (!policy.trust_service_routes || untrusted_told_) return;
    untrusted_told_ = true;
    log::warn("core",
              "Service-Route names the host \"{}\", not an address: requests from it are dropped "
              "(untrusted_source) unless core.trusted lists its address or network",
              printable(host));
}

bool Context::is_our_core_host(const sip::Uri& uri) const {
    if (!policy.name.empty() && iequals(uri.host, policy.name)) return true;
    const auto address = IpAddress::parse(uri.host);
    if (!address) return false;
    return std::ranges::any_of(policy.core, [&](const Endpoint& e) {
        return e.address == *address && (uri.port == e.port || (uri.port == 0 && e.port == 5060));
    });
}

void Context::refuse(Reason reason, int status, const Endpoint& source, std::string_view impi) {
    metrics.drop(reason);
    if (!log::enabled(log::Level::debug)) return;
    log::debug("registration", "refused: {} from {} impi \"{}\": {}", name(reason),
               source.to_string(), printable(impi),
               status == 0 ? std::string("not answered") : "answered " + std::to_string(status));
}

void Context::registration_failed(const Failed& failed) {
    metrics.procedure_ended(failed.reason);
    const auto status = static_cast<std::uint16_t>(failed.status);
    failures.add(now(), failed.reason, status, failed.source, failed.impi);
    FailureRecord record{now(),  failures.count(),      failed.reason,
                         status, failed.source.address, failed.source.port,
                         {}};
    reporter.report(record, failed.impi, failed.remark);
    note_event(trace_user(failed.impi, failed.source), Step::procedure_ended, failed.set, 0,
               failed.reason, failed.attempt);
}

void Context::core_answered() {
    core_watch.answered(now());
    metrics.set_core_reachable(true);
    if (!silence_told_) return;
    silence_told_ = false;
    log::info("core", "the home network answers again");
}

// A core that answers one and not the next must not fill the log (S2): told once, and again when it
// was told to be back and some time has passed.
void Context::core_failed(Reason why) {
    core_watch.register_failed(now(), why);
    metrics.set_core_reachable(false);
    constexpr auto pause = std::chrono::seconds(10);
    if (silence_told_ || (silence_told_at_ != TimePoint{} && now() - silence_told_at_ < pause))
        return;
    silence_told_ = true;
    silence_told_at_ = now();
    log::warn("core", "{}: {} does not answer REGISTER. {}", name(why), next_hops.names(),
              info(why).remedy);
}

void Context::registration_discarded(Reason reason, const Endpoint& source) {
    failures.add(now(), reason, 0, source, {});
    reporter.report({now(), failures.count(), reason, 0, source.address, source.port, {}}, {});
}

std::uint64_t Context::trace_user(std::string_view impi, const Endpoint& source) const {
    return trace.user_of(impi.empty() ? source.address.to_string() : std::string(impi));
}

void Context::shed(Reason reason, const Endpoint& source) {
    const bool failure = info(reason).scope == Scope::registration;
    TimePoint& listed = listed_[static_cast<std::size_t>(reason)];
    if (listed == TimePoint{} || now() - listed >= std::chrono::seconds(1)) {
        listed = now();
        refuse(reason, 0, source, {});
        if (failure) registration_discarded(reason, source);
        return;
    }
    metrics.drop(reason);
    if (!failure) return;
    failures.count_only(reason);
    reporter.count_only(reason);
}

void Context::answer(Side& side, const Arrival& arrival, const sip::Message& request, int code,
                     Reason reason, std::string_view impi,
                     std::initializer_list<sip::HeaderField> headers) {
    if (reason != Reason::ok) refuse(reason, code, arrival.flow.remote, impi);
    if (arrival.transaction == 0) return;
    const std::string tag = random.token(tag_octets);
    sip::ResponseOptions options;
    options.to_tag = tag;
    options.source = arrival.flow.remote;
    options.headers = {headers.begin(), headers.size()};
    if (!sip::build_response(request, code, options, scratch)) {
        side.transactions->forget(arrival.transaction);
        return;
    }
    side.transactions->respond(arrival.transaction, code, scratch);
    const bool on_gm = &side == &gm;
    if (impi.empty() && !(on_gm && request.is_method("REGISTER"))) return;
    note(trace_user(impi, arrival.flow.remote), request.method(), code,
         {Entity::pcscf, on_gm ? Entity::ue : Entity::core, Step::none, arrival.carrier.set,
          on_gm && arrival.carrier.is_protected()
              ? outbound_spi(arrival.reply, arrival.carrier.numbers)
              : 0,
          reason, 0, arrival.reply.transport});
}

bool Context::answer_later(Side& side, sip::ServerTransactionId id, std::string_view head,
                           const Endpoint& source, int code,
                           std::initializer_list<sip::HeaderField> headers, const sip::Flow* path) {
    sip::Message request;
    if (request.parse(head) != sip::ParseStatus::ok) return false;
    const std::string tag = random.token(tag_octets);
    sip::ResponseOptions options;
    options.to_tag = tag;
    options.source = source;
    options.headers = {headers.begin(), headers.size()};
    if (!sip::build_response(request, code, options, scratch)) return false;
    if (path != nullptr) return side.transactions->respond_via(id, *path, code, scratch);
    return side.transactions->respond(id, code, scratch);
}

void Context::discard(Side& side, const Arrival& arrival, Reason reason, std::string_view impi) {
    refuse(reason, 0, arrival.flow.remote, impi);
    if (arrival.transaction != 0) side.transactions->forget(arrival.transaction);
}

Context::AtHand::AtHand(Context& context, const sip::Message& message,
                        std::optional<sip::Transport> over)
    : context_(context), before_call_(context.call_), before_over_(context.over_) {
    const std::string_view id = sip::call_id(message);
    context.call_ = id.empty() ? 0 : context.trace.call_of(id);
    context.over_ = over;
}

Context::AtHand::AtHand(Context& context, std::string_view head)
    : context_(context), before_call_(context.call_), before_over_(context.over_) {
    sip::Message message;
    const bool readable = message.parse(head) == sip::ParseStatus::ok;
    const std::string_view id = readable ? sip::call_id(message) : std::string_view{};
    context.call_ = id.empty() ? 0 : context.trace.call_of(id);
    context.over_ = std::nullopt;
}

void Context::note(std::uint64_t user, std::string_view method, int status, const Noted& noted) {
    TraceRecord record;
    record.time = now();
    record.user = user;
    record.attempt = noted.attempt;
    record.set = noted.set;
    record.spi = noted.spi;
    record.status = static_cast<std::uint16_t>(status);
    record.from = noted.from;
    record.to = noted.to;
    record.step = noted.step;
    record.reason = noted.reason;
    record.call = call_;
    if (noted.from == Entity::ue || noted.to == Entity::ue) {
        const auto over = noted.over ? noted.over : over_;
        record.over = !over                          ? TraceRecord::Over::unknown
                      : *over == sip::Transport::tcp ? TraceRecord::Over::tcp
                                                     : TraceRecord::Over::udp;
    }
    const std::string_view known = known_method(method);
    std::memcpy(record.method.data(), known.data(), std::min(known.size(), record.method.size()));
    trace.add(record);
}

void Context::note_event(std::uint64_t user, Step step, sa::SetId set, sa::Spi spi, Reason reason,
                         std::uint64_t attempt) {
    TraceRecord record;
    record.time = now();
    record.user = user;
    record.attempt = attempt;
    record.set = set;
    record.spi = spi;
    record.from = Entity::pcscf;
    record.to = Entity::pcscf;
    record.step = step;
    record.reason = reason;
    trace.add(record);
}

}  // namespace gmgate::registration
