#include "tests/explore/world.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <tuple>

#include "base/log.h"
#include "base/seeded_hash.h"

namespace gmgate::explore {

namespace {

constexpr std::string_view op_names[] = {"SM1",
                                         "renew",
                                         "MESSAGE",
                                         "leave",
                                         "deliver",
                                         "lose",
                                         "duplicate",
                                         "call",
                                         "release answer",
                                         "lose answer",
                                         "wait 64·T1",
                                         "wait reg-await-auth",
                                         "wait lifetime",
                                         "attack: SM1 from his address",
                                         "attack: SM1 from its address",
                                         "attack: his SM1 on its port-c",
                                         "attack: copy of its SM1",
                                         "attack: copy of its ESP",
                                         "attack: its SM7 without ESP",
                                         "attack: its SM7 to the open port",
                                         "attack: refusal",
                                         "attack: auts",
                                         "attack: forged ESP",
                                         "attack: response",
                                         "attack: registers himself",
                                         "attack: REGISTER of its IMPI on his SA",
                                         "attack: MESSAGE in its name on his SA",
                                         "attack: answers its call on his SA",
                                         "attack: its numbers in his Security-Verify",
                                         "install refused"};
static_assert(std::size(op_names) == static_cast<std::size_t>(Op::refuse_install) + 1);

// One for all worlds: nothing is read from it, and a world is made a million times.
metrics::Registry& registry() {
    static metrics::Registry r;
    return r;
}

// By family.
const IpAddress shared_address[] = {*IpAddress::parse("10.2.0.1"), *IpAddress::parse("fd00:2::1")};
const IpAddress his_address[] = {*IpAddress::parse("10.2.0.66"), *IpAddress::parse("fd00:2::66")};
const IpAddress gm_address[] = {*IpAddress::parse("10.1.0.1"), *IpAddress::parse("fd00:1::1")};
constexpr std::uint32_t wrong_keys = 0x40000000;
constexpr std::size_t most_packets = 4;

// What follows `key` up to one of `ends`; empty: not there.
std::string_view after(std::string_view text, std::string_view key, std::string_view ends) {
    const auto at = text.find(key);
    if (at == std::string_view::npos) return {};
    const auto from = at + key.size();
    return text.substr(from, text.find_first_of(ends, from) - from);
}
std::string_view header(std::string_view text, std::string_view name) {
    return after(text, name, "\r");
}
std::uint32_t number(std::string_view text) {
    std::uint32_t v = 0;
    std::from_chars(text.data(), text.data() + text.size(), v);
    return v;
}
std::string_view branch_of(std::string_view text) {
    return after(text, ";branch=", ";\r,");
}
int status_of(std::string_view text) {
    return text.starts_with("SIP/2.0 ") ? static_cast<int>(number(text.substr(8, 3))) : 0;
}
std::string hex(const AkaOctets& k) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const std::uint8_t octet : k) {
        out += digits[octet >> 4U];
        out += digits[octet & 15U];
    }
    return out;
}
std::uint8_t user_of(std::string_view impi) {
    for (std::uint8_t u = 0; u < users; ++u) {
        if (impi == impis[u]) return u;
    }
    return users;
}
std::string nonce_text(std::uint32_t nonce) {
    return "n" + std::to_string(nonce);
}
std::uint32_t nonce_number(std::string_view text) {
    return text.starts_with('n') ? number(text.substr(1)) : 0;
}
std::string response_text(std::uint32_t nonce) {
    return "res" + std::to_string(nonce * 7 + 1);
}

}  // namespace

std::string_view name(Op op) {
    return op_names[static_cast<std::size_t>(op)];
}

std::string to_string(const Action& action) {
    std::string out(name(action.op));
    out += '(';
    out += std::to_string(action.a);
    if (action.b != 0) out += "," + std::to_string(action.b);
    return out + ")";
}

std::string to_string(const std::vector<Action>& actions) {
    std::string out;
    for (const Action& a : actions) out += (out.empty() ? "" : " → ") + to_string(a);
    return out;
}

const std::vector<Action>& all_actions() {
    static const std::vector<Action> actions = [] {
        std::vector<Action> list;
        const auto both = [&](Op op) {
            list.push_back({op, 0, 0});
            list.push_back({op, 1, 0});
        };
        for (const Op op : {Op::sm1, Op::renew, Op::message, Op::leave, Op::call}) both(op);
        for (std::uint8_t i = 0; i < most_packets; ++i) {
            for (std::uint8_t v = 0; v < 7; ++v) list.push_back({Op::deliver, i, v});
            list.push_back({Op::lose, i, 0});
            list.push_back({Op::duplicate, i, 0});
        }
        both(Op::release);
        both(Op::lose_answer);
        for (const Op op :
             {Op::attack_sm1, Op::attack_sm1_spoofed, Op::attack_squat, Op::attack_copy_sm1,
              Op::attack_copy_esp, Op::attack_open_esp, Op::attack_clear_sm7, Op::attack_report,
              Op::attack_resync, Op::attack_forge, Op::attack_names, Op::attack_claims,
              Op::attack_answer, Op::attack_verify}) {
            both(op);
        }
        for (const Op op : {Op::attack_response, Op::attack_register, Op::refuse_install,
                            Op::wait_transaction, Op::wait_await, Op::wait_life}) {
            list.push_back({op, 0, 0});
        }
        return list;
    }();
    return actions;
}

struct World::Net final : sip::TransportLayer {
    Net(World& w, bool gm) : world(w), is_gm(gm) {}
    bool send(const sip::Flow& flow, std::span<const char> bytes) override {
        world.from_gateway(is_gm, flow, std::string(bytes.data(), bytes.size()));
        return true;
    }
    void close(sip::ConnectionId /*connection*/) override {}
    World& world;
    bool is_gm;
};

World::World(std::size_t capacity, Access access)
    : access_(access),
      ours_(gm_address[access.v6 ? 1 : 0]),
      open_port_{ours_, 5060},
      timers_(clock_),
      layer_(capacity) {
    // What is refused is refused thousands of times a second.
    static const bool quiet = (log::configure(log::Level::off, false), true);
    (void)quiet;
    sa::DatabaseConfig config;
    config.timers.reg_await_auth = await_time;
    config.timers.drain = transaction_time;
    config.timers.lifetime_grace = grace_time;
    config.timers.near_end = near_end_time;
    config.timers.spi_quarantine = 50ms;
    config.ports.port_ps = {6100, 6101};
    config.ports.pc_first = 6200;
    config.ports.pc_last = 6207;
    auto made = sa::SaDatabase::create(config, layer_, timers_, random_);
    if (!made) {
        fault = made.error().text;
        return;
    }
    sets_ = std::move(*made);

    registration::Policy policy;
    policy.name = "pcscf.visited.example";
    policy.gm_addresses = {ours_};
    policy.core = {*Endpoint::parse("192.0.2.1:5060")};
    policy.next_hops = {{sip::Transport::udp, *Endpoint::parse("192.0.2.9:5060")}};
    policy.suites = {{sa::Integrity::hmac_sha_1_96, sa::Encryption::null}};
    policy.t1 = t1;
    // The limits have tests of their own; here nobody is slowed down.
    policy.limits.register_rate_per_source = policy.limits.register_burst_per_source = 1e9;
    policy.limits.register_rate_total = policy.limits.register_burst_total = 1e9;
    policy.limits.sources = 8;
    policy.limits.trace_records = 16;
    policy.limits.failure_records = 16;
    gateway_ =
        std::make_unique<registration::Gateway>(policy, *sets_, timers_, random_, registry());
    gm_ = std::make_unique<Net>(*this, true);
    core_ = std::make_unique<Net>(*this, false);
    gateway_->attach(*gm_, *core_);
    sets_->add_observer(*this);

    for (std::uint8_t u = 0; u < users; ++u) {
        Phone& p = phones_[u];
        p.address = (u == mallory ? his_address : shared_address)[access_.v6 ? 1 : 0];
        p.open_port = static_cast<std::uint16_t>(5060 + 10 * u);
        p.next.port_us = static_cast<sa::Port>(7900 + u);
        p.next.port_uc = static_cast<sa::Port>(7000 + 200 * u);
        p.next.spi_uc = 100'000U * (u + 1U);
        p.next.spi_us = p.next.spi_uc + 1;
    }
}

World::~World() = default;

void World::wrong(std::string what) {
    if (fault.empty()) fault = std::move(what);
}

// ---- the messages ----

std::string World::branch() {
    return "z9hG4bKx" + std::to_string(++branches_);
}

void World::next_numbers(Phone& phone, std::uint8_t user) {
    phone.next.port_uc = static_cast<sa::Port>(7000 + 200 * user +
                                               (phone.next.port_uc - 7000 - 200 * user + 1) % 190);
    phone.next.spi_uc += 2;
    phone.next.spi_us += 2;
}

std::string World::offer(const Numbers& n) {
    return "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;prot=esp;mod=trans;spi-c=" +
           std::to_string(n.spi_uc) + ";spi-s=" + std::to_string(n.spi_us) +
           ";port-c=" + std::to_string(n.port_uc) + ";port-s=" + std::to_string(n.port_us);
}

std::string World::register_text(const Register& r) {
    std::string t;
    t.reserve(1024);
    const std::string_view impi = impis[r.impi];
    t += "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/";
    t += via();
    t += r.via.to_uri_host();
    t += ':';
    t += std::to_string(r.via_port);
    t += ";branch=";
    t += r.branch;
    t += "\r\nMax-Forwards: 70\r\nFrom: <sip:";
    t += impi;
    t += ">;tag=1\r\nTo: <sip:";
    t += impi;
    t += ">\r\nCall-ID: ";
    t += impi;
    t += "\r\nCSeq: ";
    t += std::to_string(++cseq_);
    t += " REGISTER\r\nContact: <sip:u@";
    t += r.via.to_uri_host();
    t += ':';
    t += std::to_string(phones_[r.impi].next.port_us);
    t += ">\r\nExpires: ";
    t += std::to_string(r.expires);
    t += "\r\nAuthorization: Digest username=\"";
    t += impi;
    t += "\",realm=\"home.example\",nonce=\"";
    t += r.nonce;
    t += "\",uri=\"sip:home.example\",response=\"";
    t += r.response;
    t += '"';
    t += r.extra;
    t += "\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\nSecurity-Client: ";
    t += r.client;
    if (!r.verify.empty()) {
        t += "\r\nSecurity-Verify: ";
        t += r.verify;
    }
    t += "\r\nContent-Length: 0\r\n\r\n";
    return t;
}

std::string World::message_text(std::uint8_t from, const Phone& phone,
                                const std::string& branch_text, std::string_view claimed) {
    const std::string me = "sip:" + std::string(impis[from]);
    const std::string as = claimed.empty() ? me : "sip:" + std::string(claimed);
    ++cseq_;
    return "MESSAGE sip:carol@home.example SIP/2.0\r\nVia: SIP/2.0/" + std::string(via()) +
           phone.address.to_uri_host() + ":" + std::to_string(phone.next.port_us) +
           ";branch=" + branch_text + "\r\nMax-Forwards: 70\r\nRoute: <sip:192.0.2.9:5060;lr>\r\n" +
           "From: <" + as + ">;tag=2\r\nTo: <sip:carol@home.example>\r\nP-Preferred-Identity: <" +
           as + ">\r\nCall-ID: m" + std::to_string(cseq_) + "\r\nCSeq: " + std::to_string(cseq_) +
           " MESSAGE\r\nContent-Length: 0\r\n\r\n";
}

std::string World::ok_text(std::string_view request) {
    std::string t = "SIP/2.0 200 OK\r\n";
    for (const std::string_view h : {"Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "}) {
        std::string_view rest = request;
        for (auto at = rest.find("\r\n" + std::string(h)); at != std::string_view::npos;
             at = rest.find("\r\n" + std::string(h))) {
            rest.remove_prefix(at + 2);
            t += rest.substr(0, rest.find("\r\n") + 2);
        }
    }
    t += "Content-Length: 0\r\n\r\n";
    return t;
}

Packet World::clear(std::uint8_t user, std::uint8_t sender, Packet::Kind kind, Endpoint source,
                    std::string text) const {
    Packet p;
    p.kind = kind;
    p.user = user;
    p.sender = sender;
    p.attacked = sender == mallory;
    p.flow = {access_.tcp ? sip::Transport::tcp : sip::Transport::udp, open_port_, source, 0};
    p.text = std::move(text);
    return p;
}

Packet World::esp(std::uint8_t user, std::uint8_t sender, Packet::Kind kind, Agreement& on,
                  const IpAddress& source, std::string text, Sa sa) const {
    Packet p = clear(user, sender, kind, {}, std::move(text));
    const bool ps = sa == Sa::to_port_ps;
    p.flow.local = {ours_, ps ? on.numbers.port_ps : on.numbers.port_pc};
    p.flow.remote = {source, ps ? on.numbers.port_uc : on.numbers.port_us};
    p.keys = on.nonce;
    p.spi = ps ? on.numbers.spi_ps : on.numbers.spi_pc;
    p.sequence = ++on.sequence;
    return p;
}

// Onto the air: when and whether it arrives is the network's choice. The attacker reads along.
void World::send(Packet packet) {
    if (!packet.attacked && packet.to_gateway) {
        Phone& phone = phones_[packet.sender];
        if (packet.keys != 0) phone.last_esp = packet;
        if (packet.kind == Packet::Kind::sm7) phone.last_sm7 = packet;
        if (packet.kind == Packet::Kind::sm1) phone.last_sm1 = packet;
    }
    if (air_.size() >= most_packets) air_.pop_front();
    air_.push_back(std::move(packet));
}

// ---- towards the gateway ----

void World::arrive(Packet packet, Core core) {
    const auto& ports = sets_->ports();
    const auto port = packet.flow.local.port;
    const bool to_protected = ports.is_port_ps(port) || ports.is_port_pc(port);
    if (to_protected != (packet.keys != 0)) return;  // A6: the packet layer drops it
    std::uint32_t on = 0;
    if (to_protected) {
        sa::SetId id = 0;
        const auto verdict =
            layer_.receive(packet.spi, packet.keys, packet.sequence, packet.flow, id);
        if (verdict == PacketLayer::Verdict::forged) {
            cause_ = {Cause::Kind::packet, packet.sender, packet.attacked, packet.user,
                      packet.kind};
            layer_.emit({sa::BackendEventKind::integrity_failure, id, packet.spi});
            sets_->poll_backend();
            cause_ = {};
        }
        if (verdict != PacketLayer::Verdict::accepted) return;
        on = packet.keys;
        // The packet layer's own promise: it is what the whole rests on.
        if (ghosts_[id].user != packet.sender)
            wrong("the packet layer took a packet of one phone on the SA of another");
    }
    cause_ = {Cause::Kind::packet, packet.sender, packet.attacked, packet.user, packet.kind};
    if (access_.tcp) {
        // One connection between two ports of two hosts.
        packet.flow.connection = sip::ConnectionId{packet.flow.remote.port} << 17U |
                                 sip::ConnectionId{packet.flow.local.port} << 1U |
                                 (packet.flow.remote.address == phones_[0].address ? 1U : 0U);
    }
    // Of the request it makes, if it makes one.
    Request made;
    made.user = packet.user;
    made.sender = packet.sender;
    made.attacked = packet.attacked;
    made.source = packet.flow.remote.address;
    made.on = on;
    const auto first = requests_.size();
    if (listener != nullptr) listener->on_packet(packet, on);
    std::string bytes = packet.text;
    gateway_->gm().on_message(packet.flow, bytes);
    while (!to_home_.empty()) {
        std::string text = std::move(to_home_.front());
        to_home_.pop_front();
        Request r = made;
        r.branch = branch_of(text);
        r.sent = now();
        const std::string_view nonce = after(text, "nonce=\"", "\"");
        const std::string_view response = after(text, "response=\"", "\"");
        if (text.starts_with("REGISTER ")) {
            r.kind = response.empty() ? Request::Kind::sm2 : Request::Kind::sm8;
            r.user = user_of(after(text, "username=\"", "\""));
            r.leaving = header(text, "\r\nExpires: ") == "0";
        } else {
            r.kind = Request::Kind::message;
        }
        r.answers = nonce_number(nonce);
        r.text = std::move(text);
        if (r.kind == Request::Kind::sm8) {
            for (auto& [id, g] : ghosts_) {
                if (g.nonce == on && on != 0) g.shown_until = now() + transaction_time;
            }
        }
        if (listener != nullptr) listener->on_request(r);
        requests_.push_back(std::move(r));
    }
    if (listener != nullptr) listener->after_packet();
    cause_ = {};
    for (std::size_t i = first; i < requests_.size(); ++i) home_register(i, core);
}

void World::from_gateway(bool gm, const sip::Flow& flow, std::string text) {
    const int status = status_of(text);
    if (!gm) {
        if (status != 0) {
            if (status == 200) ++answered_calls_;
            return;
        }
        const std::string_view b = branch_of(text);
        for (const Request& r : requests_) {
            if (r.branch == b) return;  // a retransmission
        }
        for (const std::string& waiting : to_home_) {
            if (branch_of(waiting) == b) return;
        }
        // B7, A11: what we vouch for was said by the one who has the keys of that user.
        const std::string_view impi = after(text, "username=\"", "\"");
        const bool yes = text.find("integrity-protected=\"yes\"") != std::string::npos;
        if (yes && (cause_.kind != Cause::Kind::packet || user_of(impi) != cause_.sender))
            wrong("A11: integrity-protected=\"yes\" for a REGISTER that another made");
        const std::string_view asserted = after(text, "P-Asserted-Identity: <sip:", ">");
        if (!asserted.empty() && user_of(asserted) != cause_.sender)
            wrong("B7: the identity of one user asserted for another's message");
        if (text.find("Security-") != std::string::npos)
            wrong("B4: a security header went on to the core");
        to_home_.push_back(std::move(text));
        return;
    }
    Packet p;
    p.to_gateway = false;
    p.sender = users;
    p.attacked = cause_.attacked;
    p.flow = flow;
    const auto& ports = sets_->ports();
    if (ports.is_port_ps(flow.local.port) || ports.is_port_pc(flow.local.port)) {
        sa::SetId id = 0;
        const auto* set = layer_.outbound(flow, id);
        if (set == nullptr)
            return wrong("A6: a message left a protected port without an SA, " +
                         flow.local.to_string() + " to " + flow.remote.to_string() + ": " + text);
        Ghost& g = ghosts_[id];
        p.user = g.user;
        p.keys = g.nonce;
        if (status >= 300) g.shown_until = std::min(g.shown_until, now());
        if (g.user != mallory) {
            for (std::uint8_t u = 0; u < users; ++u) {
                if (u != g.user && text.find("sip:" + std::string(impis[u])) != std::string::npos)
                    wrong("B7: a message of " + std::string(impis[u]) + " left on an SA of " +
                          std::string(impis[g.user]));
            }
        }
    } else {
        p.user = users;
        for (std::uint8_t u = 0; u < users; ++u) {
            if (phones_[u].address == flow.remote.address &&
                phones_[u].open_port == flow.remote.port)
                p.user = u;
        }
        if (status == 0) wrong("A6: a request left in clear");
    }
    if (text.find("ck=\"") != std::string::npos || text.find("ik=\"") != std::string::npos)
        wrong("B2: a key reached Gm");
    if (status == 401) {
        const std::string_view to = after(text, "\r\nTo: <sip:", ">");
        if (const auto u = user_of(to); u < users)
            phones_[u].heard_nonce = nonce_number(after(text, "nonce=\"", "\""));
    }
    if (p.user == users || (p.user == mallory && p.keys == 0 && status != 401)) return;
    if (status == 0) {
        const std::string b(branch_of(text));
        if (std::ranges::find(called_, b) != called_.end()) return;  // a retransmission
        called_.push_back(b);
        phones_[p.user].heard_call = text;
        if (listener != nullptr) listener->on_call(b);
        p.kind = Packet::Kind::message;
    } else {
        p.kind = Packet::Kind::answer;
    }
    p.text = std::move(text);
    send(std::move(p));
}

// ---- the home ----

void World::answer(std::size_t request, int status, std::string_view headers, Core core,
                   std::uint32_t nonce) {
    const Request& r = requests_[request];
    std::string t = "SIP/2.0 " + std::to_string(status) + " X\r\n";
    std::string_view rest = r.text;
    while (!rest.empty()) {
        const auto end = rest.find("\r\n");
        const std::string_view line = rest.substr(0, end);
        if (line.empty()) break;
        if (line.starts_with("Via:") || line.starts_with("From:") || line.starts_with("Call-ID:") ||
            line.starts_with("CSeq:")) {
            t += line;
            t += "\r\n";
        } else if (line.starts_with("To:")) {
            t += line;
            t += ";tag=h\r\n";
        }
        rest.remove_prefix(end + 2);
    }
    t += headers;
    t += "Content-Length: 0\r\n\r\n";
    Kept kept{request, std::move(t), status, nonce};
    if (core == Core::keeps_back && kept_.size() < 2) {
        kept_.push_back(std::move(kept));
    } else {
        deliver_answer(kept);
    }
}

void World::home_register(std::size_t index, Core core) {
    if (core == Core::silent) return;
    Request& r = requests_[index];
    if (core == Core::fails) return answer(index, 503, {}, Core::answers, 0);
    if (r.kind == Request::Kind::message) return answer(index, 200, {}, core, 0);
    const std::string& text = r.text;
    if (r.user >= users) return answer(index, 403, {}, core, 0);
    const bool yes = text.find("integrity-protected=\"yes\"") != std::string::npos;
    const std::string_view response = after(text, "response=\"", "\"");
    const bool resync = text.find("auts=\"") != std::string::npos;
    std::uint32_t& current = home_.nonce[r.user];
    const auto accepted = [&](unsigned seconds) {
        home_.path[r.user] = header(text, "\r\nPath: ");
        answer(index, 200,
               "Path: " + home_.path[r.user] +
                   "\r\nService-Route: <sip:192.0.2.9:5060;lr>\r\nP-Associated-URI: <sip:" +
                   std::string(impis[r.user]) +
                   ">\r\nContact: " + std::string(header(text, "\r\nContact: ")) +
                   ";expires=" + std::to_string(seconds) + "\r\n",
               core, 0);
    };
    const auto seconds = static_cast<unsigned>(granted_time / 1s);
    if (!response.empty()) {
        if (!yes || r.answers != current || response != response_text(current))
            return answer(index, 403, {}, core, 0);
        current = 0;
        return accepted(r.leaving ? 0 : seconds);
    }
    if (r.answers != 0 && r.answers == current && !resync)
        return answer(index, 403, {}, core, 0);  // C3
    if (yes && r.leaving) return accepted(0);
    current = ++home_.challenges;  // C10
    answer(index, 401,
           "WWW-Authenticate: Digest realm=\"home.example\",nonce=\"" + nonce_text(current) +
               "\",algorithm=AKAv1-MD5,ck=\"" + hex(key_of(current, 0)) + "\",ik=\"" +
               hex(key_of(current, 1)) + "\"\r\n",
           core, current);
}

void World::deliver_answer(const Kept& kept) {
    Request& r = requests_[kept.request];
    cause_ = {Cause::Kind::answer, r.sender, r.attacked, r.user,
              r.kind == Request::Kind::sm8   ? Packet::Kind::sm7
              : r.kind == Request::Kind::sm2 ? Packet::Kind::sm1
                                             : Packet::Kind::message};
    if (listener != nullptr) listener->on_answer(r, kept.status, kept.nonce);
    std::string bytes = kept.text;
    gateway_->core().on_message({sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                                 *Endpoint::parse("192.0.2.9:5060"), 0},
                                bytes);
    if (kept.nonce != 0 && (bytes.find(hex(key_of(kept.nonce, 0))) != std::string::npos ||
                            bytes.find(hex(key_of(kept.nonce, 1))) != std::string::npos)) {
        wrong("B2: a key is left in the receive buffer");
    }
    if (r.open && r.kind == Request::Kind::sm2 && kept.status == 401 && r.on != 0) {
        for (auto& [id, g] : ghosts_) {
            if (g.nonce == kept.nonce) g.shown_until = r.sent + transaction_time;
        }
    }
    if (r.kind == Request::Kind::sm8) {
        for (auto& [id, g] : ghosts_) {
            if (g.nonce == r.on) g.shown_until = std::min(g.shown_until, now());
        }
    }
    r.open = false;
    cause_ = {};
    if (listener != nullptr) listener->after_packet();
    to_home_.clear();
}

// ---- the phones ----

void World::hear(const Packet& packet, Reaction reaction) {
    const std::uint8_t user = packet.user;
    Phone& phone = phones_[user];
    Agreement* on = nullptr;
    if (packet.keys != 0) {
        if (phone.pending && phone.pending->nonce == packet.keys) on = &*phone.pending;
        for (Agreement& a : phone.sets) {
            if (a.nonce == packet.keys) on = &a;
        }
        if (on == nullptr) return;  // not its keys
    }
    const int status = status_of(packet.text);
    const std::string b(branch_of(packet.text));
    if (status == 0) {
        // MESSAGE of the home: answered by its Via over UDP, where it came over TCP (A2).
        return send(esp(user, user, Packet::Kind::answer, *on, phone.address, ok_text(packet.text),
                        access_.tcp ? Sa::to_port_pc : Sa::to_port_ps));
    }
    if (status == 200 && phone.pending && b == phone.sm7_branch) {
        if (packet.keys != phone.pending->nonce)
            return wrong("B5: SM12 came on another SA than the new one");
        phone.sets.push_back(*phone.pending);
        if (phone.sets.size() > 3) phone.sets.erase(phone.sets.begin());
        phone.pending.reset();
        return;
    }
    if (status == 200 && b == phone.leave_branch) return phone.sets.clear();
    if (status == 200 && b == phone.message_branch) {
        ++answered_messages_;
        return;
    }
    if (status >= 400 && b == phone.sm7_branch) return phone.pending.reset();
    if (status != 401 || b != phone.sm1_branch || b.empty()) return;
    if ((packet.keys != 0) != phone.sm1_protected)
        return wrong("B2: SM6 did not travel as SM1 did");

    phone.sm1_branch.clear();
    Agreement a;
    a.nonce = nonce_number(after(packet.text, "nonce=\"", "\""));
    a.verify = header(packet.text, "\r\nSecurity-Server: ");
    a.offer = offer(phone.next);
    a.numbers = {phone.next.spi_uc,
                 phone.next.spi_us,
                 number(after(a.verify, "spi-c=", ";, ")),
                 number(after(a.verify, "spi-s=", ";, ")),
                 phone.next.port_uc,
                 phone.next.port_us,
                 static_cast<sa::Port>(number(after(a.verify, "port-c=", ";, "))),
                 static_cast<sa::Port>(number(after(a.verify, "port-s=", ";, ")))};
    for (const sa::Spi theirs : {a.numbers.spi_pc, a.numbers.spi_ps}) {
        if (theirs <= 255 || theirs == a.numbers.spi_uc || theirs == a.numbers.spi_us)
            wrong("A4: an SPI of ours is reserved or the UE's own");
    }
    const std::string nonce = nonce_text(a.nonce);
    if (reaction == Reaction::none) return;
    if (reaction == Reaction::resync || reaction == Reaction::reject) {
        next_numbers(phone, user);
        const std::string client = offer(phone.next);
        Register r;
        r.impi = user;
        r.via = phone.address;
        r.via_port = phone.sm1_protected ? phone.next.port_us : phone.open_port;
        r.nonce = nonce;
        r.client = client;
        if (reaction == Reaction::resync) r.extra = ",auts=\"AAAAAAAAAAAAAAAAAAA=\"";
        r.branch = phone.sm1_branch = branch();
        std::string text = register_text(r);
        if (phone.sm1_protected) {
            if (phone.sets.empty()) return;
            return send(esp(user, user, Packet::Kind::report, phone.sets.back(), phone.address,
                            std::move(text)));
        }
        return send(clear(user, user, Packet::Kind::report, {phone.address, phone.open_port},
                          std::move(text)));
    }
    std::string verify = a.verify;
    if (reaction == Reaction::wrong_verify) {
        const auto at = verify.find("spi-s=") + 6;
        verify[at] = verify[at] == '9' ? '8' : '9';
    }
    const std::string response =
        reaction == Reaction::wrong_response ? "guess" : response_text(a.nonce);
    Register r;
    r.impi = user;
    r.via = phone.address;
    r.via_port = a.numbers.port_us;
    r.nonce = nonce;
    r.response = response;
    r.client = a.offer;
    r.verify = verify;
    r.branch = phone.sm7_branch = branch();
    phone.pending = a;
    Packet p = esp(user, user, Packet::Kind::sm7, *phone.pending, phone.address, register_text(r));
    if (reaction == Reaction::wrong_ik) {
        p.keys |= wrong_keys;
        phone.pending.reset();
    }
    send(std::move(p));
}

// ---- steps ----

const sa::SaSet* World::newest_live(std::uint8_t user) const {
    const sa::User* u = sets_->find_by_impi(impis[user]);
    const sa::SaSet* best = nullptr;
    if (u == nullptr) return nullptr;
    for (const sa::SetId id : u->sets) {
        const sa::SaSet* s = sets_->find(id);
        if (s != nullptr && s->state == sa::State::established &&
            (best == nullptr || s->id >> 24U > best->id >> 24U))
            best = s;
    }
    return best;
}

bool World::phone_acts(const Action& action) {
    const std::uint8_t user = action.a;
    Phone& phone = phones_[user];
    if (air_.size() >= most_packets) return false;
    Register r;
    r.impi = user;
    r.via = phone.address;
    switch (action.op) {
        case Op::sm1: {
            next_numbers(phone, user);
            const std::string client = offer(phone.next);
            r.via_port = phone.open_port;
            r.client = client;
            r.branch = phone.sm1_branch = branch();
            phone.sm1_protected = false;
            send(clear(user, user, Packet::Kind::sm1, {phone.address, phone.open_port},
                       register_text(r)));
            return true;
        }
        case Op::renew:
        case Op::leave: {
            if (phone.sets.empty()) return false;
            const bool leaves = action.op == Op::leave;
            next_numbers(phone, user);
            const std::string client = offer(phone.next);
            r.via_port = phone.next.port_us;
            r.client = client;
            r.verify = phone.sets.back().verify;
            if (leaves) r.expires = 0;
            r.branch = branch();
            (leaves ? phone.leave_branch : phone.sm1_branch) = r.branch;
            if (!leaves) phone.sm1_protected = true;
            send(esp(user, user, leaves ? Packet::Kind::leave : Packet::Kind::renew,
                     phone.sets.back(), phone.address, register_text(r)));
            return true;
        }
        case Op::message:
            if (phone.sets.empty()) return false;
            phone.message_branch = branch();
            send(esp(user, user, Packet::Kind::message, phone.sets.back(), phone.address,
                     message_text(user, phone, phone.message_branch)));
            return true;
        case Op::call: {
            if (home_.path[user].empty()) return false;
            ++calls_;
            std::string text =
                "MESSAGE sip:u@" + phone.address.to_uri_host() + ":" +
                std::to_string(phone.next.port_us) +
                " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKh" +
                std::to_string(calls_) + "\r\nMax-Forwards: 60\r\nRoute: " + home_.path[user] +
                "\r\nFrom: <sip:carol@home.example>;tag=c\r\nTo: <sip:" + std::string(impis[user]) +
                ">\r\nCall-ID: h" + std::to_string(calls_) +
                "\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n";
            cause_ = {Cause::Kind::answer, users, false, user, Packet::Kind::message};
            gateway_->core().on_message({sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                                         *Endpoint::parse("192.0.2.9:5060"), 0},
                                        text);
            cause_ = {};
            return true;
        }
        default:
            return false;
    }
}

// As it should be: in order, nothing lost, everybody does what is right.
void World::deliver_all() {
    for (int guard = 0; guard < 16 && !air_.empty(); ++guard) {
        const Packet p = std::move(air_.front());
        air_.pop_front();
        if (p.to_gateway) {
            arrive(p, Core::answers);
        } else {
            hear(p, Reaction::proper);
        }
    }
}

// SM1 to SM12 of his own subscription, at once.
bool World::mallory_registers() {
    Phone& him = phones_[mallory];
    const auto others = std::exchange(air_, {});
    next_numbers(him, mallory);
    const std::string client = offer(him.next);
    Register r;
    r.impi = mallory;
    r.via = him.address;
    r.via_port = him.open_port;
    r.client = client;
    r.branch = him.sm1_branch = branch();
    him.sm1_protected = false;
    arrive(
        clear(mallory, mallory, Packet::Kind::sm1, {him.address, him.open_port}, register_text(r)),
        Core::answers);
    deliver_all();
    air_ = others;
    return true;
}

bool World::attack(const Action& action) {
    const std::uint8_t user = action.a;
    Phone& phone = phones_[user];
    Phone& him = phones_[mallory];
    Register r;
    r.impi = user;
    r.via = phone.address;
    r.via_port = phone.open_port;
    r.branch = branch();
    const Endpoint its{phone.address, phone.open_port};
    const Endpoint his{him.address, him.open_port};
    switch (action.op) {
        case Op::attack_sm1: {
            next_numbers(him, mallory);
            const std::string client = offer(him.next);
            r.via = him.address;
            r.via_port = him.open_port;
            r.client = client;
            arrive(clear(user, mallory, Packet::Kind::sm1, his, register_text(r)), Core::answers);
            return true;
        }
        case Op::attack_sm1_spoofed: {
            const std::string client = offer(phone.next);
            r.client = client;
            arrive(clear(user, mallory, Packet::Kind::sm1, its, register_text(r)), Core::answers);
            return true;
        }
        case Op::attack_squat: {
            Numbers squat = phone.next;
            ++squat.port_uc;
            const std::string client = offer(squat);
            r.impi = mallory;
            r.client = client;
            arrive(clear(mallory, mallory, Packet::Kind::sm1, its, register_text(r)),
                   Core::answers);
            return true;
        }
        case Op::attack_copy_sm1: {
            if (!phone.last_sm1) return false;
            Packet p = *phone.last_sm1;
            p.attacked = true;
            p.sender = mallory;
            arrive(std::move(p), Core::answers);
            return true;
        }
        case Op::attack_copy_esp:
            // If the first was lost this is the phone's own packet, late.
            if (!phone.last_esp) return false;
            arrive(*phone.last_esp, Core::answers);
            return true;
        case Op::attack_open_esp: {
            if (!phone.last_esp) return false;
            Packet p = *phone.last_esp;
            p.attacked = true;
            p.sender = mallory;
            p.keys = 0;
            arrive(std::move(p), Core::answers);
            return true;
        }
        case Op::attack_clear_sm7: {
            if (!phone.last_sm7) return false;
            Packet p = *phone.last_sm7;
            p.attacked = true;
            p.sender = mallory;
            p.keys = 0;
            p.flow.local = open_port_;
            arrive(std::move(p), Core::answers);
            return true;
        }
        case Op::attack_report:
        case Op::attack_resync: {
            if (phone.heard_nonce == 0) return false;
            const std::string client = offer(phone.next);
            const std::string nonce = nonce_text(phone.heard_nonce);
            r.client = client;
            r.nonce = nonce;
            if (action.op == Op::attack_resync) r.extra = ",auts=\"AAAAAAAAAAAAAAAAAAA=\"";
            arrive(clear(user, mallory, Packet::Kind::report, its, register_text(r)),
                   Core::answers);
            return true;
        }
        case Op::attack_forge: {
            const sa::User* u = sets_->find_by_impi(impis[user]);
            if (u == nullptr) return false;
            const auto ids = u->sets;
            for (const sa::SetId id : ids) {
                const sa::SaSet* s = sets_->find(id);
                if (s == nullptr) continue;
                const sa::SaNumbers n = s->numbers;
                Packet p = clear(user, mallory, Packet::Kind::other, {phone.address, n.port_uc},
                                 "MESSAGE sip:x SIP/2.0\r\n\r\n");
                p.flow.local.port = n.port_ps;
                p.keys = him.sets.empty() ? wrong_keys : him.sets.back().nonce;
                p.sequence = 0xFFFFFFFFU;
                p.spi = n.spi_ps;
                arrive(p, Core::answers);
                p.spi = n.spi_pc;
                arrive(p, Core::answers);
            }
            return true;
        }
        case Op::attack_response:
            arrive(clear(0, mallory, Packet::Kind::other, his,
                         "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx1\r\n"
                         "From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 "
                         "REGISTER\r\nContent-Length: 0\r\n\r\n"),
                   Core::answers);
            return true;
        case Op::attack_register:
            return mallory_registers();
        case Op::attack_names: {
            if (him.sets.empty()) return false;
            next_numbers(him, mallory);
            const std::string client = offer(him.next);
            r.via = him.address;
            r.via_port = him.next.port_us;
            r.client = client;
            r.verify = him.sets.back().verify;
            arrive(esp(user, mallory, Packet::Kind::renew, him.sets.back(), him.address,
                       register_text(r)),
                   Core::answers);
            return true;
        }
        case Op::attack_claims:
            if (him.sets.empty()) return false;
            arrive(esp(mallory, mallory, Packet::Kind::message, him.sets.back(), him.address,
                       message_text(mallory, him, r.branch, impis[user])),
                   Core::answers);
            return true;
        case Op::attack_answer:
            if (him.sets.empty() || phone.heard_call.empty()) return false;
            arrive(esp(user, mallory, Packet::Kind::answer, him.sets.back(), him.address,
                       ok_text(phone.heard_call), access_.tcp ? Sa::to_port_pc : Sa::to_port_ps),
                   Core::answers);
            return true;
        case Op::attack_verify: {
            // A renewal of his own whose SM7 carries the phone's numbers.
            const sa::SaSet* victim = newest_live(user);
            if (him.sets.empty() || victim == nullptr) return false;
            const sa::SaNumbers n = victim->numbers;
            const auto others = std::exchange(air_, {});
            next_numbers(him, mallory);
            const std::string client = offer(him.next);
            r.impi = mallory;
            r.via = him.address;
            r.via_port = him.next.port_us;
            r.client = client;
            r.verify = him.sets.back().verify;
            him.sm1_branch = r.branch;
            him.sm1_protected = true;
            arrive(esp(mallory, mallory, Packet::Kind::renew, him.sets.back(), him.address,
                       register_text(r)),
                   Core::answers);
            if (!air_.empty()) hear(Packet(air_.front()), Reaction::proper);
            if (him.pending && !air_.empty() && air_.back().kind == Packet::Kind::sm7) {
                Packet sm7 = air_.back();
                const std::string theirs =
                    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;prot=esp;"
                    "mod=trans;spi-c=" +
                    std::to_string(n.spi_pc) + ";spi-s=" + std::to_string(n.spi_ps) +
                    ";port-c=" + std::to_string(n.port_pc) + ";port-s=" + std::to_string(n.port_ps);
                const auto at = sm7.text.find("Security-Verify: ") + 17;
                sm7.text.replace(at, sm7.text.find("\r\n", at) - at, theirs);
                arrive(sm7, Core::answers);
                if (requests_.back().kind == Request::Kind::sm8 && requests_.back().open)
                    wrong("C8: SM7 with another's numbers went on");
                him.pending.reset();
            }
            air_ = others;
            return true;
        }
        default:
            return false;
    }
}

bool World::act(const Action& action) {
    // What the attacker may not change: the sets of completed registrations of the phones.
    const auto of_phones = [this] {
        std::vector<std::tuple<sa::SetId, sa::State, TimePoint, bool>> list;
        for (std::uint8_t u = 0; u < mallory; ++u) {
            const sa::User* user = sets_->find_by_impi(impis[u]);
            if (user == nullptr) continue;
            for (const sa::SetId id : user->sets) {
                const sa::SaSet* s = sets_->find(id);
                if (s != nullptr &&
                    (s->state == sa::State::established || s->state == sa::State::draining))
                    list.emplace_back(id, s->state, s->timer.deadline(), s->used);
            }
        }
        return list;
    };
    bool attacked = action.op >= Op::attack_sm1 && action.op <= Op::attack_verify &&
                    action.op != Op::attack_copy_esp;
    const std::size_t i = action.a;
    if (action.op == Op::deliver && i < air_.size()) attacked = air_[i].attacked;
    if (action.op == Op::release && i < kept_.size())
        attacked = requests_[kept_[i].request].attacked;
    const auto before = attacked ? of_phones() : decltype(of_phones()){};
    const std::size_t registered = gateway_->registered();

    bool done = false;
    switch (action.op) {
        case Op::sm1:
        case Op::renew:
        case Op::message:
        case Op::leave:
        case Op::call:
            done = phone_acts(action);
            break;
        case Op::deliver: {
            if (i >= air_.size()) return false;
            const bool up = air_[i].to_gateway;
            if (up && action.b > static_cast<std::uint8_t>(Core::fails)) return false;
            if (up && action.b != 0 && air_[i].kind == Packet::Kind::answer) return false;
            if (!up && action.b != 0 &&
                (status_of(air_[i].text) != 401 ||
                 branch_of(air_[i].text) != phones_[air_[i].user].sm1_branch)) {
                return false;
            }
            Packet p = std::move(air_[i]);
            air_.erase(air_.begin() + static_cast<std::ptrdiff_t>(i));
            if (up) {
                arrive(std::move(p), static_cast<Core>(action.b));
            } else {
                hear(p, static_cast<Reaction>(action.b));
            }
            done = true;
            break;
        }
        case Op::lose:
            if (i >= air_.size()) return false;
            air_.erase(air_.begin() + static_cast<std::ptrdiff_t>(i));
            done = true;
            break;
        case Op::duplicate: {
            if (i >= air_.size() || air_[i].copied || air_.size() >= most_packets) return false;
            air_[i].copied = true;
            Packet copy = air_[i];
            send(std::move(copy));
            done = true;
            break;
        }
        case Op::release: {
            if (i >= kept_.size()) return false;
            const Kept kept = std::move(kept_[i]);
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
            deliver_answer(kept);
            done = true;
            break;
        }
        case Op::lose_answer:
            if (i >= kept_.size()) return false;
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
            done = true;
            break;
        case Op::wait_transaction:
            pass(transaction_time + 10ms);
            done = true;
            break;
        case Op::wait_await:
            pass(await_time + 10ms);
            check_idle("after reg-await-auth");
            done = true;
            break;
        case Op::wait_life:
            pass(granted_time + grace_time + 10ms);
            check_idle("after a lifetime");
            done = true;
            break;
        case Op::refuse_install:
            layer_.fail_next_install(true);
            if (listener != nullptr) listener->on_install_fails();
            done = true;
            break;
        default:
            done = attack(action);
            break;
    }
    if (!done) return false;
    if (attacked && before != of_phones())
        wrong("S3: the attacker changed a set of a registered phone");
    if (attacked && action.op != Op::attack_register && action.op != Op::attack_verify &&
        gateway_->registered() < registered)
        wrong("S3: the attacker ended a registration");
    check();
    return true;
}

void World::pass(Duration by) {
    const TimePoint end = now() + by;
    cause_ = {Cause::Kind::time, users, false, users, Packet::Kind::other};
    while (now() < end) {
        clock_.advance(
            std::min<Duration>(std::max<Duration>(timers_.until_next(), 1ms), end - now()));
        timers_.advance();
    }
    // Sets that timed out in this very tick leave the packet layer together at the next.
    for (int ticks = 0; ticks < 4 && layer_.installed() > sets_->set_count(); ++ticks) {
        clock_.advance(1ms);
        timers_.advance();
    }
    // Nobody is asked anything new by time alone.
    for (const std::string& text : to_home_) wrong("time alone made a request: " + text);
    cause_ = {};
    for (Request& r : requests_) {
        if (now() - r.sent >= transaction_time) r.open = false;
    }
    // What the home has done with is forgotten when nobody waits for it any more.
    while (!requests_.empty() && kept_.empty() && !requests_.front().open &&
           now() - requests_.front().sent > 2 * transaction_time) {
        requests_.erase(requests_.begin());
    }
}

// ---- what must hold ----

std::uint32_t World::nonce_of(const sa::SaSet& set) const {
    if (set.keys == nullptr) return 0;
    const auto ck = set.keys->ck.reveal();
    std::uint32_t n = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        n |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(ck[i] ^ (i * 29U))) << (8 * i);
    }
    return n;
}

void World::on_set_state(const sa::SaSet& set, sa::State from) {
    const sa::User* user = sets_->find_user(set.user);
    const std::uint8_t u =
        user == nullptr ? static_cast<std::uint8_t>(users) : user_of(user->impi());
    Ghost& g = ghosts_[set.id];
    g.user = u;
    g.nonce = nonce_of(set);
    g.state = set.state;
    if (set.state == sa::State::established && from == sa::State::registration) {
        if (cause_.kind != Cause::Kind::answer || cause_.sender != u ||
            cause_.packet != Packet::Kind::sm7)
            wrong("B5: a set was established by something else than its user's SM7");
    }
    if (set.state == sa::State::draining && from == sa::State::established && cause_.sender != u) {
        wrong("D2: another's message made a set drain");
    }
}

void World::on_set_removed(const sa::SaSet& set, const sa::User& user, sa::Event reason) {
    if (set.keys != nullptr) wrong("S1: a set was removed with its keys");
    const std::uint8_t u = user_of(user.impi());
    const auto it = ghosts_.find(set.id);
    if (it == ghosts_.end()) return;  // never installed
    const Ghost g = it->second;
    ghosts_.erase(it);
    retired_.push_back(g.nonce);
    if (retired_.size() > 8) retired_.erase(retired_.begin());
    if (!checking_) return;
    const bool complete = g.state == sa::State::established || g.state == sa::State::draining;
    const bool by_time = cause_.kind == Cause::Kind::time;
    if (complete) {
        bool right = false;
        switch (reason) {
            case sa::Event::lifetime_expired:
            case sa::Event::drain_timeout:
            case sa::Event::drained:
                right = by_time;
                break;
            case sa::Event::replaced_unprotected:
            case sa::Event::replaced_protected:
            case sa::Event::address_changed:
                right = cause_.kind == Cause::Kind::answer && cause_.sender == u &&
                        cause_.packet == Packet::Kind::sm7;
                break;
            case sa::Event::deregistered:
                right = cause_.sender == u;
                break;
            default:
                break;
        }
        if (!right) wrong("C9: an old set was removed by " + std::string(sa::name(reason)));
    } else if (cause_.attacked && cause_.sender != u && now() < g.shown_until) {
        wrong("S3: the attacker voided a challenge whose user has shown its keys: " +
              std::string(sa::name(reason)));
    }
}

void World::check() {
    if (!checking_) return;
    std::size_t sets = 0;
    std::size_t live = 0;
    std::array<std::size_t, users> incomplete{};
    std::array<std::size_t, users> of_user{};
    std::array<sa::Spi, 64> spis{};
    std::size_t spi_count = 0;
    sets_->page(0, 64, {}, [&](const sa::SaSet& s, const sa::User& user) {
        ++sets;
        const auto u = user_of(user.impi());
        if (u >= users) return wrong("a set of nobody");
        ++of_user[u];
        if (s.keys == nullptr) wrong("a set without keys");
        if (!s.timer.active()) wrong("a set that nothing ends");
        if (s.timer.deadline() < now()) wrong("a set beyond its time");
        const auto& n = s.numbers;
        for (const sa::Spi spi : {n.spi_pc, n.spi_ps}) {
            for (std::size_t k = 0; k < spi_count; ++k) {
                if (spis[k] == spi) wrong("A4: one SPI twice");
            }
            spis[spi_count++] = spi;
            if (sets_->find_by_spi(spi) != &s) wrong("a set not found by its SPI");
        }
        if (sets_->find_by_tuple(s.ue, n.port_uc, n.port_ps) != &s ||
            sets_->find_by_tuple(s.ue, n.port_us, n.port_pc) != &s)
            wrong("B7: another set at the ports of this one");
        if (s.state != sa::State::established && s.state != sa::State::draining) ++incomplete[u];
        const auto held = layer_.sets().find(s.id);
        if ((held != layer_.sets().end()) != sa::in_backend(s.state))
            return wrong("the packet layer and the database differ about a set");
        if (held == layer_.sets().end()) return;
        ++live;
        const auto nonce = nonce_of(s);
        if (held->second.numbers != n || held->second.ue != s.ue ||
            held->second.ck != key_of(nonce, 0) || held->second.ik != key_of(nonce, 1))
            wrong("the packet layer holds other numbers or keys than the database");
    });
    if (sets_->set_count() != sets) wrong("leak: sets");
    if (sets_->spis().held() != 2 * sets) wrong("leak: SPIs");
    if (layer_.installed() != live) wrong("leak: SAs in the packet layer");
    if (ghosts_.size() != live) wrong("leak: a set went without a word");
    const std::size_t users_now =
        static_cast<std::size_t>(std::ranges::count_if(of_user, [](auto n) { return n > 0; }));
    if (sets_->user_count() != users_now) wrong("leak: users");
    if (gateway_->registered() > users_now) wrong("leak: registrations");
    for (std::size_t u = 0; u < users; ++u) {
        if (incomplete[u] > 1) wrong("B3: two registration sets of one IMPI");
        if (of_user[u] > sa::max_sets_per_user) wrong("B6: more than six SAs per direction");
    }
    // Each set has one timer; a transaction has two at most, an exchange and a procedure one.
    if (timers_.size() < sets || timers_.size() > sets + gateway_->pending() + gateway_->proxied() +
                                                      2 * gateway_->transactions() + 1)
        wrong("leak: timers");
}

void World::check_idle(std::string_view when) {
    const auto none = [&](std::size_t count, std::string_view what) {
        if (count == 0) return;
        wrong("leak: " + std::to_string(count) + " " + std::string(what) + " " + std::string(when));
    };
    none(gateway_->pending(), "procedures");
    none(gateway_->proxied(), "proxied requests");
    none(gateway_->transactions(), "transactions");
    if (gateway_->index_entries() > gateway_->registered())
        none(gateway_->index_entries(), "index entries");
    if (timers_.size() != sets_->set_count())
        wrong("leak: " + std::to_string(timers_.size()) + " timers for " +
              std::to_string(sets_->set_count()) + " sets " + std::string(when));
}

void World::finish() {
    const auto run = [this] {
        deliver_all();
        check();
    };
    const auto end_incomplete = [this] {
        air_.clear();
        kept_.clear();
        pass(await_time + 2 * transaction_time);
        air_.clear();
        check();
    };
    layer_.fail_next_install(false);
    end_incomplete();
    check_idle("after the last time-out");
    if (!fault.empty()) return;

    // S1: what is gone left no key.
    const sa::SecretBytes all = sets_->serialize();
    for (const std::uint32_t nonce : retired_) {
        for (const std::uint8_t which : {std::uint8_t{0}, std::uint8_t{1}}) {
            const auto key = key_of(nonce, which);
            if (!std::ranges::search(all, key).empty())
                wrong("S1: the database holds a key of a set that is gone");
            for (const auto& [id, s] : layer_.sets()) {
                if (s.ck == key || s.ik == key)
                    wrong("S1: the packet layer holds a key of a set that is gone");
            }
        }
    }
    // Whoever is registered, and knows it, is served.
    for (std::uint8_t u = 0; u < mallory; ++u) {
        Phone& phone = phones_[u];
        const sa::SaSet* set = newest_live(u);
        if (set == nullptr) continue;
        const auto nonce = nonce_of(*set);
        const auto known = std::ranges::find(phone.sets, nonce, &Agreement::nonce);
        if (known == phone.sets.end()) continue;
        const auto messages = answered_messages_;
        phone.message_branch = branch();
        send(esp(u, u, Packet::Kind::message, *known, phone.address,
                 message_text(u, phone, phone.message_branch)));
        run();
        if (answered_messages_ != messages + 1) wrong("a registered phone is not served");
        const auto calls = answered_calls_;
        phone_acts({Op::call, u, 0});
        run();
        if (answered_calls_ != calls + 1) wrong("a registered phone is not reached");
    }
    end_incomplete();
    // Nothing the attacker did lasts: everybody can register.
    for (std::uint8_t u = 0; u < mallory; ++u) {
        Phone& phone = phones_[u];
        const auto had = phone.sets.empty() ? 0U : phone.sets.back().nonce;
        phone_acts({Op::sm1, u, 0});
        run();
        if (phone.sets.empty() || phone.sets.back().nonce == had)
            wrong("a phone cannot register any more");
        const sa::SaSet* set = newest_live(u);
        if (set == nullptr || nonce_of(*set) != phone.sets.back().nonce)
            wrong("a registered phone has no set");
        const sa::User* user = sets_->find_by_impi(impis[u]);
        if (user != nullptr && user->set_count() != 1) wrong("D1: an old set stayed");
    }
    if (!fault.empty()) return;
    air_.clear();
    pass(granted_time + grace_time + 2 * transaction_time);
    air_.clear();
    check();
    check_idle("at the end");
    if (sets_->set_count() != 0 || layer_.installed() != 0 || gateway_->registered() != 0 ||
        sets_->user_count() != 0 || sets_->spis().held() != 0)
        wrong("time alone does not end everything");
}

std::vector<World::Seen> World::sets() const {
    std::vector<Seen> list;
    sets_->page(0, 64, {}, [&](const sa::SaSet& s, const sa::User& user) {
        list.push_back({user_of(user.impi()), nonce_of(s), s.state, s.timer.deadline()});
    });
    std::ranges::sort(list);
    return list;
}

// ---- the same or not ----

// Which set of the user a challenge made, by age; "-": none that lives.
std::string World::relation(std::uint8_t user, std::uint32_t nonce) const {
    const sa::User* u = user < users ? sets_->find_by_impi(impis[user]) : nullptr;
    if (u == nullptr || nonce == 0) return "-";
    std::size_t older = 0;
    sa::SetId found = 0;
    for (const sa::SetId id : u->sets) {
        const sa::SaSet* s = sets_->find(id);
        if (s != nullptr && nonce_of(*s) == nonce) found = id;
    }
    if (found == 0) return (nonce & wrong_keys) != 0 ? "w" : "-";
    for (const sa::SetId id : u->sets) {
        if (id != 0 && id >> 24U < found >> 24U) ++older;
    }
    return std::to_string(older);
}

std::string World::describe(const std::array<std::uint8_t, users>& order) const {
    std::array<std::uint8_t, users + 1> named{};
    for (std::uint8_t k = 0; k < users; ++k) named[order[k]] = k;
    named[users] = users;
    const auto left = [this](TimePoint t) { return t <= now() ? 0 : (t - now() + 99ms) / 100ms; };
    std::string out;
    out.reserve(400);
    for (const std::uint8_t u : order) {
        const Phone& phone = phones_[u];
        const sa::User* user = sets_->find_by_impi(impis[u]);
        out += user == nullptr ? '-' : user->registered() ? 'R' : 'r';
        if (user != nullptr) {
            auto ids = user->sets;
            std::ranges::sort(ids, {}, [](sa::SetId id) { return id >> 24U; });
            for (const sa::SetId id : ids) {
                const sa::SaSet* s = sets_->find(id);
                if (s == nullptr) continue;
                const Ghost& g = ghosts_.at(id);
                out += static_cast<char>('a' + static_cast<int>(s->state));
                out += s->used ? 'u' : 'n';
                out += s->ue == phones_[0].address ? 's' : 'h';
                out += std::to_string(left(s->timer.deadline()));
                out += g.shown_until > now() ? '!' : '.';
                const sa::SaSet* old = sets_->find(s->sm1_set);
                out += s->sm1_set == 0 ? "c" : old == nullptr ? "g" : relation(u, nonce_of(*old));
                // Does its phone have the keys?
                out += phone.pending && phone.pending->nonce == g.nonce ? 'p' : '-';
                const auto k = std::ranges::find(phone.sets, g.nonce, &Agreement::nonce);
                if (k != phone.sets.end()) out += std::to_string(phone.sets.end() - k);
            }
        }
        out += '|';
        out += phone.sm1_branch.empty() ? '-' : phone.sm1_protected ? 'P' : 'C';
        out += phone.pending ? 'p' : '-';
        out += phone.sets.empty() ? "-" : relation(u, phone.sets.back().nonce);
        out += relation(u, home_.nonce[u]);
        out += home_.nonce[u] == phone.heard_nonce ? '=' : '.';
        out += phone.last_sm7 ? relation(u, phone.last_sm7->keys) : "_";
        out += phone.last_sm1 ? '1' : '0';
        out += phone.heard_call.empty() ? '0' : '1';
        out += home_.path[u].empty() ? '0' : '1';
        out += '|';
        for (const Request& r : requests_) {
            if (r.user != u || !r.open) continue;
            out += static_cast<char>('2' + static_cast<int>(r.kind));
            out += std::to_string(left(r.sent + transaction_time));
            out += static_cast<char>('0' + named[r.sender]);
            out += relation(u, r.on);
        }
        out += ';';
    }
    std::vector<std::string> packets;
    for (const Packet& p : air_) {
        std::string s;
        s += p.to_gateway ? '>' : '<';
        s += static_cast<char>('a' + static_cast<int>(p.kind));
        s += static_cast<char>('0' + named[p.user]);
        s += static_cast<char>('0' + named[p.sender]);
        s += p.attacked ? 'x' : '.';
        s += p.copied ? '2' : '1';
        s += p.keys == 0 ? "c" : relation(p.user, p.keys);
        if (!p.to_gateway) {
            const Phone& phone = phones_[p.user];
            const std::string_view b = branch_of(p.text);
            s += std::to_string(status_of(p.text));
            s += b == phone.sm1_branch       ? 'a'
                 : b == phone.sm7_branch     ? 'b'
                 : b == phone.message_branch ? 'c'
                 : b == phone.leave_branch   ? 'd'
                                             : 'e';
        }
        packets.push_back(std::move(s));
    }
    for (const Kept& k : kept_) {
        const Request& r = requests_[k.request];
        packets.push_back("k" + std::to_string(k.status) + static_cast<char>('0' + named[r.user]) +
                          static_cast<char>('0' + named[r.sender]) + (r.open ? "o" : "c") +
                          static_cast<char>('2' + static_cast<int>(r.kind)) +
                          relation(r.user, r.on) +
                          (k.nonce != 0 && k.nonce == home_.nonce[r.user] ? "=" : "."));
    }
    std::ranges::sort(packets);
    for (const std::string& s : packets) out += s + ",";
    out += std::to_string(gateway_->pending()) + "/" + std::to_string(gateway_->proxied());
    return out;
}

std::array<std::uint64_t, 2> World::signature() const {
    const std::string text = std::min(describe({0, 1, 2}), describe({1, 0, 2}));
    return {SeededHash(1, 2)(text), SeededHash(3, 4)(text)};
}

}  // namespace gmgate::explore
