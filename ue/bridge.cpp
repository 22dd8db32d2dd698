#include "ue/bridge.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "base/bytes.h"
#include "control/sip/build.h"
#include "control/sip/values.h"
#include "ue/agent.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t most_transactions = 50'000;
constexpr std::size_t most_dialogs = 50'000;
constexpr Duration transaction_age = std::chrono::seconds(200);  // rings three minutes at most
constexpr Duration dialog_age = std::chrono::minutes(30);
constexpr std::size_t largest_datagram = 1300;

using Out = std::back_insert_iterator<std::string>;

void write_body(std::string& out, const sip::Message& m) {
    fmt::format_to(Out(out), "Content-Length: {}\r\n\r\n{}", m.body().size(), m.body());
}

}  // namespace

Bridge::Bridge(const TimerWheel& timers, AgentHost& phone, BridgeStatistics& statistics,
               Options options, Send send, std::function<void()> ready)
    : timers_(timers),
      phone_(phone),
      statistics_(statistics),
      options_(std::move(options)),
      send_(std::move(send)),
      ready_(std::move(ready)),
      app_(options_.app),
      asked_(most_transactions, transaction_age),
      asking_(most_transactions, transaction_age),
      dialogs_(most_dialogs, dialog_age) {}

void Bridge::phone_registered() {
    if (!std::exchange(announced_, true) && ready_) ready_();
}

void Bridge::drop(std::string_view why) {
    statistics_.dropped.add(why);
}

bool Bridge::is_self(const sip::Uri& uri) const {
    return uri.host == options_.self.address.to_uri_host() &&
           (uri.port == 0 ? 5060 : uri.port) == options_.self.port;
}

// The same for a request and what belongs to its transaction: what comes again, CANCEL, ACK of a
// refusal.
std::string Bridge::branch_for(char side, const sip::Message& m, const sip::Via& via) {
    const auto cseq = sip::cseq(m);
    const std::string all = fmt::format("{}|{}:{}|{}|{}", via.branch, via.host, via.port,
                                        sip::call_id(m), cseq ? cseq->number : 0);
    return fmt::format("z9hG4bK{}{:016x}{:04x}", side, std::hash<std::string>{}(all),
                       all.size() & 0xFFFFU);
}

std::string Bridge::contact_line(const sip::Message& m, const Flow& flow) {
    const auto value = m.first_value(sip::HeaderId::contact);
    if (!value) return {};
    const auto c = sip::parse_contact(*value);
    if (!c || c->star) return fmt::format("Contact: {}\r\n", one_line(*value));
    return fmt::format("Contact: <sip:{}@{}:{}>{}\r\n", flow.identity.imsi,
                       flow.contact.address.to_uri_host(), flow.contact.port,
                       one_line(c->address.params));
}

// Who the peer of a dialog is, for programs that do not keep it.
void Bridge::learn(const sip::Message& m, bool from_network) {
    if (!from_network) return;
    const std::string id(sip::call_id(m));
    const auto cseq = sip::cseq(m);
    if (!cseq || id.empty()) return;
    const bool makes = cseq->method == "INVITE" || cseq->method == "SUBSCRIBE";
    const auto now = timers_.now();
    Dialog* known = dialogs_.find(id, now);
    if (m.is_request()) {
        const auto to = sip::to(m);
        if (known != nullptr && to && !to->tag().empty()) {
            if (makes || cseq->method == "UPDATE") known->refresh_target(m);
            return;
        }
        Dialog d;
        if (makes && d.take_request(m) && !dialogs_.put(id, std::move(d), now))
            drop("too many dialogs");
        return;
    }
    if (m.status_code() <= 100 || m.status_code() >= 300 || !makes) return;
    Dialog d;
    if (!d.take_answer(m)) return;
    // The route set is that of the first answer; a re-INVITE changes the target only.
    if (known != nullptr && known->remote_tag == d.remote_tag &&
        !m.has(sip::HeaderId::record_route))
        known->target = d.target;
    else if (!dialogs_.put(id, std::move(d), now))
        drop("too many dialogs");
}

// ---- from the program ----

void Bridge::from_application(const Endpoint& from, std::string_view datagram) {
    sip::Message m;
    const auto status = m.parse(datagram);
    if (status == sip::ParseStatus::empty) return;
    if (status != sip::ParseStatus::ok) {
        drop("from the application: " + std::string(sip::text(status)));
        return;
    }
    if (!options_.app) app_ = from;
    if (m.is_request()) {
        app_request(m, from);
    } else {
        app_response(m);
    }
}

void Bridge::refuse(const sip::Message& m, const Endpoint& to, int code, std::string_view reason) {
    drop(reason);
    if (m.is_method("ACK")) return;
    sip::ResponseOptions o;
    o.reason = reason;
    o.to_tag = "bridge";
    std::string out;
    if (sip::build_response(m, code, o, out)) send_(to, out);
}

void Bridge::app_request(const sip::Message& m, const Endpoint& from) {
    const auto via = sip::top_via(m);
    if (const auto fault = sip::check_request(m); fault || !via)
        return refuse(m, from, fault ? fault->code : 400, fault ? fault->reason : "no Via");
    if (m.is_method("REGISTER"))
        return refuse(m, from, 403, "The phone of the bridge registers by itself");
    const auto flow = phone_.flow();
    if (!flow) return refuse(m, from, 503, "The phone of the bridge is not registered");
    const auto now = timers_.now();
    const std::string branch = branch_for('a', m, *via);
    const Asked* invite = asked_.find(branch, now);
    const auto to = sip::to(m);
    const bool hop_by_hop = (m.is_method("ACK") || m.is_method("CANCEL")) && invite != nullptr;
    const bool in_dialog = to && !to->tag().empty() && !hop_by_hop;

    std::string uri(m.request_uri());
    std::string route;
    bool own_route = false;
    for (const auto& r : m.values(sip::HeaderId::route)) {
        const auto parsed = sip::parse_name_addr(r.text);
        if (parsed && is_self(parsed->uri)) continue;
        own_route = true;
        route += (route.empty() ? "" : ", ") + one_line(r.text);
    }
    const auto parsed_uri = sip::parse_uri(uri);
    const bool to_self = parsed_uri && is_self(*parsed_uri);
    if (hop_by_hop) {
        uri = invite->uri;
        route = flow->route;
    } else if (in_dialog) {
        const Dialog* d = dialogs_.find(std::string(sip::call_id(m)), now);
        if (d != nullptr && !own_route) {
            auto next = d->next();
            // A program that keeps no routes may not keep the Contact either.
            uri = std::move(next.uri);
            route = std::move(next.route);
        } else if (d != nullptr && to_self) {
            uri = d->target;
        }
    } else {
        if (to_self)
            uri = parsed_uri->user.empty()
                      ? "sip:" + options_.realm
                      : fmt::format("sip:{}@{}", parsed_uri->user, options_.realm);
        route = flow->route;
    }

    std::string lines;
    std::string vias;
    for (const auto& h : m.headers()) {
        switch (h.id) {
            case sip::HeaderId::via:
                vias += m.line(h);
                break;
            case sip::HeaderId::route:
            case sip::HeaderId::contact:
            case sip::HeaderId::content_length:
            case sip::HeaderId::security_verify:
            case sip::HeaderId::security_client:
                break;
            case sip::HeaderId::p_preferred_identity:
                if (in_dialog || hop_by_hop) break;
                [[fallthrough]];
            default:
                lines += m.line(h);
        }
    }
    if (!m.is_method("ACK") && !asked_.put(branch, {std::move(vias), uri, from}, now))
        return refuse(m, from, 503, "The bridge has too many transactions");
    const bool initial = !in_dialog && !hop_by_hop;
    if (initial && !m.has(sip::HeaderId::p_preferred_identity))
        fmt::format_to(Out(lines), "P-Preferred-Identity: <{}>\r\n", flow->identity.impu());
    lines += contact_line(m, *flow);
    if (!route.empty()) fmt::format_to(Out(lines), "Route: {}\r\n", route);
    if (!m.is_method("ACK") && !m.is_method("CANCEL") && !flow->verify.empty()) {
        if (!m.has_token(sip::HeaderId::require, "sec-agree")) lines += "Require: sec-agree\r\n";
        if (!m.has_token(sip::HeaderId::proxy_require, "sec-agree"))
            lines += "Proxy-Require: sec-agree\r\n";
        lines += flow->verify;
    }
    const auto build = [&](bool tcp) {
        std::string out = fmt::format(
            "{} {} SIP/2.0\r\nVia: SIP/2.0/{} {}:{};branch={}\r\n", m.method(), uri,
            tcp ? "TCP" : "UDP", flow->contact.address.to_uri_host(), flow->contact.port, branch);
        out += lines;
        write_body(out, m);
        return out;
    };
    bool tcp = flow->tcp;
    std::string out = build(tcp);
    if (!tcp && out.size() > largest_datagram) out = build(tcp = true);
    ++statistics_.requests_out;
    phone_.send_request(flow->set, tcp, out);
}

void Bridge::app_response(const sip::Message& m) {
    const auto via = sip::top_via(m);
    const auto flow = phone_.flow();
    if (sip::check_response(m) || !via) return drop("a malformed response of the application");
    const ReplyPath* path = asking_.find(std::string(via->branch), timers_.now());
    if (path == nullptr) return drop("a response of the application to nothing");
    if (!flow) return drop("the phone is not registered");
    const bool establishes = m.status_code() < 300;
    std::string out(m.bytes().substr(0, m.start_line_size()));
    bool first = true;
    for (const auto& v : m.values(sip::HeaderId::via)) {
        // Ours is the top one.
        if (!std::exchange(first, false)) fmt::format_to(Out(out), "Via: {}\r\n", one_line(v.text));
    }
    for (const auto& h : m.headers()) {
        if (h.id == sip::HeaderId::via || h.id == sip::HeaderId::content_length ||
            (h.id == sip::HeaderId::contact && establishes))
            continue;
        out += m.line(h);
    }
    if (establishes) out += contact_line(m, *flow);
    const auto cseq = sip::cseq(m);
    if (establishes && m.status_code() > 100 && !m.has(sip::HeaderId::record_route) && cseq &&
        (cseq->method == "INVITE" || cseq->method == "SUBSCRIBE")) {
        // A program that keeps no routes does not copy them either (RFC 3261 12.1.1).
        const Dialog* d = dialogs_.find(std::string(sip::call_id(m)), timers_.now());
        if (d != nullptr && !d->routes.empty())
            fmt::format_to(Out(out), "Record-Route: {}\r\n", d->routes);
    }
    write_body(out, m);
    ++statistics_.responses_out;
    phone_.send_response(*path, out);
}

// ---- from the network ----

bool Bridge::phone_request(const sip::Message& m, const ReplyPath& path) {
    const auto via = sip::top_via(m);
    if (!via || sip::check_request(m)) return false;
    if (!app_) {
        drop("a request came, and no application is known yet");
        sip::ResponseOptions o;
        o.to_tag = "bridge";
        std::string out;
        if (!m.is_method("ACK") && sip::build_response(m, 480, o, out))
            phone_.send_response(path, out);
        return true;
    }
    learn(m, true);
    const std::string branch = branch_for('n', m, *via);
    if (!m.is_method("ACK") && !asking_.put(branch, path, timers_.now())) {
        drop("too many transactions");
        return true;
    }
    std::string out(m.bytes().substr(0, m.start_line_size()));
    fmt::format_to(Out(out), "Via: SIP/2.0/UDP {}:{};branch={}\r\n",
                   options_.self.address.to_uri_host(), options_.self.port, branch);
    for (const auto& h : m.headers()) {
        if (h.id != sip::HeaderId::content_length) out += m.line(h);
    }
    write_body(out, m);
    ++statistics_.requests_in;
    send_(*app_, out);
    return true;
}

bool Bridge::phone_response(const sip::Message& m) {
    const auto via = sip::top_via(m);
    if (!via) return false;
    const Asked* asked = asked_.find(std::string(via->branch), timers_.now());
    if (asked == nullptr) return false;
    learn(m, true);
    std::string out(m.bytes().substr(0, m.start_line_size()));
    out += asked->vias;
    for (const auto& h : m.headers()) {
        if (h.id != sip::HeaderId::via && h.id != sip::HeaderId::content_length) out += m.line(h);
    }
    write_body(out, m);
    ++statistics_.responses_in;
    send_(asked->from, out);
    return true;
}

}  // namespace gmgate::ue
