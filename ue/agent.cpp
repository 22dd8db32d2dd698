#include "ue/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/bytes.h"
#include "control/sip/values.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t largest_datagram = 1300;  // RFC 3261 18.1.1

class Depth {
  public:
    explicit Depth(unsigned& depth) : depth_(depth) { ++depth_; }
    ~Depth() { --depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

  private:
    unsigned& depth_;
};

}  // namespace

std::string_view name(CallEvent event) {
    switch (event) {
        case CallEvent::incoming:
            return "incoming";
        case CallEvent::ringing:
            return "ringing";
        case CallEvent::answered:
            return "answered";
        case CallEvent::held:
            return "held";
        case CallEvent::resumed:
            return "resumed";
        case CallEvent::not_changed:
            return "not-changed";
        case CallEvent::peer_held:
            return "peer-held";
        case CallEvent::peer_resumed:
            return "peer-resumed";
        case CallEvent::ended:
            return "ended";
    }
    return "";
}

bool understands(std::string_view tag) {
    for (const std::string_view known : {"100rel", "precondition", "sec-agree", "path"}) {
        if (iequals(tag, known)) return true;
    }
    return false;
}

Agent::Agent(const AgentContext& context, AgentHost& host) : context_(context), host_(host) {}

Agent::~Agent() {
    subscription_.reset();
    calls_.clear();
}

void Agent::sweep() {
    if (depth_ > 0) return;
    std::erase_if(calls_, [](const auto& c) { return c->over(); });
    std::erase_if(clients_, [](const Client& c) { return c.transaction->removable(); });
    std::erase_if(servers_, [](const auto& s) { return s->over(); });
}

void Agent::bad_input(std::string_view what) {
    context_.statistics.bad_input.add(what);
    host_.narrate(fmt::format("  !!  {}", what));
}

std::string Agent::new_call_id() const {
    return context_.random.token(12);
}

Call* Agent::live_call() {
    for (const auto& c : calls_) {
        if (!c->over()) return c.get();
    }
    return nullptr;
}

Result<Call*> Agent::call(std::string_view to, Duration talk) {
    if (live_call() != nullptr)
        return fail(ErrorKind::conflict, "there is a call already: bye, then call");
    if (calls_.size() >= max_calls) return fail(ErrorKind::exhausted, "too many calls at once");
    const auto uri = sip::parse_uri(to);
    if (!uri || to.find_first_of(" \t<>\"") != std::string_view::npos)
        return fail(ErrorKind::invalid, fmt::format("'{}' is no SIP or tel URI", to));
    auto call = std::make_unique<Call>(*this, true);
    Call* placed = call.get();
    calls_.push_back(std::move(call));
    if (!placed->start(to, talk)) {
        calls_.pop_back();
        return fail(ErrorKind::conflict, "the phone is not registered");
    }
    return placed;
}

Result<void> Agent::message(std::string_view to, std::string_view text, MessageDone done) {
    const auto uri = sip::parse_uri(to);
    if (!uri || to.find_first_of(" \t<>\"") != std::string_view::npos)
        return fail(ErrorKind::invalid, fmt::format("'{}' is no SIP or tel URI", to));
    if (text.size() > max_message)
        return fail(ErrorKind::invalid, fmt::format("more than {} octets of text", max_message));
    const auto flow = host_.flow();
    if (!flow || leaving_) return fail(ErrorKind::conflict, "the phone is not registered");
    Outgoing o;
    o.method = "MESSAGE";
    o.uri = o.to_uri = to;
    o.from_uri = flow->identity.impu();
    o.from_tag = new_tag();
    o.call_id = new_call_id();
    o.content_type = "text/plain";
    o.body = text;
    const TimePoint sent = context_.timers.now();
    auto* t = send(
        o,
        [this, sent, done = std::move(done)](const sip::Message* m) {
            auto& stats = context_.statistics;
            const int code = m == nullptr ? 0 : m->status_code();
            if (m != nullptr && code < 200) return;
            if (code >= 200 && code < 300) {
                ++stats.messages_answered;
                stats.message.add(context_.timers.now() - sent);
            } else {
                stats.message_failures.add(m == nullptr
                                               ? std::string("no answer to MESSAGE")
                                               : fmt::format("{} {}", code, one_line(m->reason())));
            }
            if (done) done(code, m == nullptr ? std::string_view("no answer") : m->reason());
        },
        this);
    if (t == nullptr) return fail(ErrorKind::exhausted, "too many transactions are under way");
    ++context_.statistics.messages_sent;
    return {};
}

Result<void> Agent::subscribe(std::uint32_t expires, MessageDone done) {
    if (!subscription_) subscription_ = std::make_unique<Subscription>(*this);
    if (subscription_->begin(expires, std::move(done))) return {};
    return fail(ErrorKind::conflict, "not registered, or subscribed already");
}

Result<void> Agent::unsubscribe(MessageDone done) {
    if (subscription_ && subscription_->end(std::move(done))) return {};
    return fail(ErrorKind::conflict, "there is no subscription");
}

void Agent::hang_up() {
    const Depth depth(depth_);
    for (std::size_t i = 0; i < calls_.size(); ++i) {
        if (!calls_[i]->over()) calls_[i]->hang_up();
    }
}

void Agent::registration_over(std::string_view why) {
    const Depth depth(depth_);
    // Whoever is told may ask for the next thing at once: there is no way for it any more.
    leaving_ = true;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
        if (!calls_[i]->over()) calls_[i]->drop(why);
    }
    if (subscription_) subscription_->drop();
    // Calls and subscriptions have forgotten theirs; who sent a MESSAGE waits still.
    for (std::size_t i = 0; i < clients_.size(); ++i) clients_[i].transaction->give_up();
    leaving_ = false;
}

void Agent::forget(const void* owner) {
    for (auto& c : clients_) {
        if (c.owner == owner) c.transaction->forget();
    }
}

// ---- sending ----

std::string Agent::build(const Outgoing& o, const Flow& flow, bool tcp,
                         std::string_view branch) const {
    RequestFrame f;
    f.style = flow.style;
    f.method = o.method;
    f.uri = o.uri;
    f.tcp = tcp;
    f.via = flow.contact;
    f.branch = branch;
    f.call_id = o.call_id;
    f.from_tag = o.from_tag;
    f.from_uri = o.from_uri;
    f.to_uri = o.to_uri;
    f.to_tag = o.to_tag;
    f.cseq = o.cseq;
    RequestContent c;
    c.route = o.in_dialog ? std::string_view(o.route) : std::string_view(flow.route);
    // RFC 3329 2.3.1, RFC 3261 20.29: neither ACK nor CANCEL asks for an agreement.
    if (o.method != "ACK") c.security_verify = flow.verify;
    c.prefers_identity = !o.in_dialog;
    c.content_type = o.content_type;
    c.body = o.body;
    std::string extra;
    if (o.contact) {
        extra = fmt::format(
            "Contact: <sip:{}@{}:{}>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi."
            "mmtel\"\r\nAllow: {}\r\n",
            flow.identity.imsi, flow.contact.address.to_uri_host(), flow.contact.port, agent_allow);
    }
    extra += o.extra;
    c.extra = extra;
    return build_request(flow.identity, f, c);
}

ClientTransaction* Agent::send(const Outgoing& o, ClientTransaction::Handler handler,
                               const void* owner) {
    if (depth_ == 0)
        std::erase_if(clients_, [](const Client& c) { return c.transaction->removable(); });
    const auto flow = host_.flow();
    if (!flow || leaving_) return nullptr;
    if (clients_.size() >= max_transactions) {
        bad_input("too many transactions of the phone's are under way");
        return nullptr;
    }
    ClientTransaction::Request r;
    r.branch = "z9hG4bK" + context_.random.token(8);
    r.method = o.method;
    r.cseq = o.cseq;
    r.set = flow->set;
    r.tcp = flow->tcp;
    r.bytes = build(o, *flow, r.tcp, r.branch);
    if (!r.tcp && r.bytes.size() > largest_datagram) {
        r.tcp = true;
        r.bytes = build(o, *flow, true, r.branch);
    }
    return send_as_is(std::move(r), std::move(handler), owner);
}

ClientTransaction* Agent::send_as_is(ClientTransaction::Request request,
                                     ClientTransaction::Handler handler, const void* owner) {
    auto t = std::make_unique<ClientTransaction>(context_.timers, context_.times, host_,
                                                 context_.retransmissions, std::move(request),
                                                 std::move(handler));
    auto* raw = t.get();
    clients_.push_back({std::move(t), owner});
    raw->start();
    return raw;
}

ClientTransaction* Agent::send_in(Dialog& d, std::string_view method, std::string extra,
                                  std::string_view sdp, ClientTransaction::Handler handler,
                                  const void* owner) {
    Outgoing o;
    auto next = d.next();
    o.method = method;
    o.uri = std::move(next.uri);
    o.route = std::move(next.route);
    o.from_uri = d.local_uri;
    o.from_tag = d.local_tag;
    o.to_uri = d.remote_uri;
    o.to_tag = d.remote_tag;
    o.call_id = d.call_id;
    o.cseq = ++d.local_cseq;
    o.in_dialog = true;
    o.contact = method == "INVITE" || method == "UPDATE" || method == "SUBSCRIBE";
    o.extra = std::move(extra);
    if (!sdp.empty()) {
        o.content_type = "application/sdp";
        o.body = sdp;
    }
    return send(o, std::move(handler), owner);
}

SentRequest Agent::acknowledge(const Dialog& d, std::uint32_t cseq) {
    SentRequest out;
    const auto flow = host_.flow();
    if (!flow) return out;
    Outgoing o;
    auto next = d.next();
    o.method = "ACK";
    o.uri = std::move(next.uri);
    o.route = std::move(next.route);
    o.from_uri = d.local_uri;
    o.from_tag = d.local_tag;
    o.to_uri = d.remote_uri;
    o.to_tag = d.remote_tag;
    o.call_id = d.call_id;
    o.cseq = cseq;
    o.in_dialog = true;
    const std::string branch = "z9hG4bK" + context_.random.token(8);
    out.set = flow->set;
    out.tcp = flow->tcp;
    out.bytes = build(o, *flow, out.tcp, branch);
    if (!out.tcp && out.bytes.size() > largest_datagram) {
        out.tcp = true;
        out.bytes = build(o, *flow, true, branch);
    }
    resend(out);
    return out;
}

void Agent::respond(ServerTransaction& t, int code, std::span<const sip::HeaderField> headers,
                    std::string_view to_tag, std::string_view sdp) {
    sip::Message m;
    if (t.final() || m.parse(t.request()) != sip::ParseStatus::ok) return;
    std::vector<sip::HeaderField> all;
    std::string contact;
    const bool invite = t.is_invite();
    const bool establishes = code > 100 && code < 300;
    if (const auto flow = host_.flow();
        flow && establishes && (invite || m.is_method("UPDATE") || m.is_method("SUBSCRIBE"))) {
        contact = fmt::format("<sip:{}@{}:{}>", flow->identity.imsi,
                              flow->contact.address.to_uri_host(), flow->contact.port);
        all.push_back({"Contact", contact});
    }
    if ((invite && establishes) || code == 405 || m.is_method("OPTIONS"))
        all.push_back({"Allow", agent_allow});
    if (invite && establishes) all.push_back({"Supported", "100rel, precondition"});
    all.insert(all.end(), headers.begin(), headers.end());
    sip::ResponseOptions o;
    o.to_tag = to_tag;
    o.copy_record_route = establishes;
    o.headers = all;
    if (!sdp.empty()) {
        o.content_type = "application/sdp";
        o.body = sdp;
    }
    std::string out;
    if (!sip::build_response(m, code, o, out)) {
        bad_input("a request that cannot be answered");
        return;
    }
    t.respond(code, std::move(out));
}

void Agent::answer(const sip::Message& m, const ReplyPath& path, int code,
                   std::span<const sip::HeaderField> headers) {
    if (const auto t = open(m, path)) respond(*t, code, headers, new_tag(), {});
}

// ---- receiving ----

bool Agent::on_response(const sip::Message& m) {
    sweep();
    const Depth depth(depth_);
    const auto via = sip::top_via(m);
    const auto cseq = sip::cseq(m);
    if (!via || !cseq) return false;
    for (auto& c : clients_) {
        if (!c.transaction->matches(*via, *cseq)) continue;
        // What it calls may add transactions: `c` may move.
        auto* t = c.transaction.get();
        const bool late_success = t->answered() && m.status_code() >= 200 && m.status_code() < 300;
        if (late_success && cseq->method == "INVITE") break;
        t->on_response(m);
        return true;
    }
    // A 2xx again, or one of another branch of a fork.
    if (cseq->method != "INVITE" || m.status_code() < 200 || m.status_code() >= 300) return false;
    Call* call = call_of(m, false);
    if (call == nullptr) return false;
    call->on_late_answer(m);
    return true;
}

Call* Agent::call_of(const sip::Message& m, bool request) {
    const auto from = sip::from(m);
    const auto to = sip::to(m);
    if (!from || !to) return nullptr;
    const auto ours = request ? to->tag() : from->tag();
    const auto theirs = request ? from->tag() : to->tag();
    for (const auto& c : calls_) {
        if (c->has(sip::call_id(m), ours, theirs)) return c.get();
    }
    return nullptr;
}

// nullptr: no room.
std::shared_ptr<ServerTransaction> Agent::open(const sip::Message& m, const ReplyPath& path) {
    const auto via = sip::top_via(m);
    if (!via) return nullptr;
    if (servers_.size() >= max_transactions) {
        // The oldest of those that only wait for their request to come again.
        const auto i = std::ranges::find_if(
            servers_, [](const auto& s) { return s->final() && !s->is_invite(); });
        if (i == servers_.end()) {
            bad_input("too many requests at once");
            return nullptr;
        }
        servers_.erase(i);
    }
    servers_.push_back(
        std::make_shared<ServerTransaction>(context_.timers, context_.times, host_, m, *via, path));
    return servers_.back();
}

bool Agent::on_request(const sip::Message& m, const ReplyPath& path) {
    sweep();
    const Depth depth(depth_);
    const auto via = sip::top_via(m);
    if (!via) return false;
    if (m.is_method("ACK")) {
        on_ack(m, *via);
        return true;
    }
    for (const auto& s : servers_) {
        if (!s->matches(*via, m.method())) continue;
        s->again();
        return true;
    }
    if (const auto fault = sip::check_request(m)) {
        bad_input(fmt::format("a {} that is malformed: {}", one_line(m.method()), fault->reason));
        if (m.answerable()) answer(m, path, fault->code);
        return true;
    }
    if (m.is_method("CANCEL")) {
        on_cancel(m, *via, path);
        return true;
    }
    const auto to = sip::to(m);
    if (to && !to->tag().empty()) {
        if (Call* call = call_of(m, true)) {
            if (const auto t = open(m, path)) call->on_request(m, t);
            return true;
        }
        if (m.is_method("NOTIFY") && subscription_ && subscription_->has(m)) {
            if (const auto t = open(m, path)) subscription_->on_notify(m, *t);
            return true;
        }
        for (const std::string_view method : {"NOTIFY", "OPTIONS", "REFER"}) {
            if (m.is_method(method)) return false;
        }
        answer(m, path, 481);
        return true;
    }
    if (m.is_method("INVITE")) {
        on_invite(m, path);
        return true;
    }
    if (m.is_method("MESSAGE")) {
        if (m.body().size() > max_message) {
            bad_input("a MESSAGE that is too long");
            answer(m, path, 413);
            return true;
        }
        ++context_.statistics.messages_received;
        answer(m, path, 200);
        const auto asserted = m.first_value(sip::HeaderId::p_asserted_identity);
        const auto who = asserted ? sip::parse_name_addr(*asserted) : sip::from(m);
        host_.message_came(who ? who->uri.text : std::string_view{}, m.body());
        return true;
    }
    for (const std::string_view method : {"BYE", "PRACK", "UPDATE"}) {
        if (!m.is_method(method)) continue;
        answer(m, path, 481);
        return true;
    }
    return false;
}

void Agent::on_ack(const sip::Message& m, const sip::Via& via) {
    for (const auto& s : servers_) {
        if (!s->is_invite() || s->code() < 300 || !s->matches(via, "ACK")) continue;
        s->acked();
        return;
    }
    if (Call* call = call_of(m, true)) {
        call->on_ack(m);
    } else {
        context_.statistics.bad_input.add("an ACK for nothing");
    }
}

void Agent::on_cancel(const sip::Message& m, const sip::Via& via, const ReplyPath& path) {
    for (std::size_t i = 0; i < servers_.size(); ++i) {
        const auto invite = servers_[i];
        if (!invite->is_invite() || !invite->matches(via, "INVITE")) continue;
        answer(m, path, 200);
        for (const auto& c : calls_) {
            if (c->is_answer_to(*invite)) {
                c->on_cancel();
                break;
            }
        }
        return;
    }
    answer(m, path, 481);
}

void Agent::on_invite(const sip::Message& m, const ReplyPath& path) {
    std::string unknown;
    for (const auto& tag : m.values(sip::HeaderId::require)) {
        if (!understands(tag.text)) unknown += (unknown.empty() ? "" : ", ") + one_line(tag.text);
    }
    if (!unknown.empty()) {
        const std::array<sip::HeaderField, 1> headers{{{"Unsupported", unknown}}};
        ++context_.statistics.declined;
        return answer(m, path, 420, headers);
    }
    if (!m.body().empty()) {
        const auto type = m.value(sip::HeaderId::content_type).value_or("");
        const std::array<sip::HeaderField, 1> headers{{{"Accept", "application/sdp"}}};
        if (!iequals(trim(type.substr(0, type.find(';'))), "application/sdp")) {
            ++context_.statistics.declined;
            return answer(m, path, 415, headers);
        }
        const auto media = read_sdp(m.body());
        if (!media || !media->audio) {
            bad_input(media ? "an offer without audio" : "an offer that is not SDP");
            ++context_.statistics.declined;
            return answer(m, path, media ? 488 : 400);
        }
    }
    const auto live = std::ranges::count_if(calls_, [](const auto& c) { return !c->over(); });
    if (static_cast<std::size_t>(live) >= std::min(context_.calls.at_once, max_calls)) {
        ++context_.statistics.declined;
        return answer(m, path, 486);
    }
    const auto t = open(m, path);
    if (!t) return;
    calls_.push_back(std::make_unique<Call>(*this, false));
    calls_.back()->take(t, m);
}

}  // namespace gmgate::ue
