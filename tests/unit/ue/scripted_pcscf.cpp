#include "tests/unit/ue/scripted_pcscf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "control/sip/build.h"
#include "control/sip/values.h"
#include "ue/digest.h"
#include "ue/security_agreement.h"

namespace gmgate::ue::test {

namespace {
constexpr Duration flight = std::chrono::milliseconds(1);
const Bytes seed = from_hex("00112233445566778899aabbccddeeff").value();
}  // namespace

struct ScriptedPcscf::Set::Link final : TcpOwner {
    ScriptedPcscf& p;
    User& user;
    Set& set;
    bool at_ps;
    TcpConnection tcp;
    sip::StreamFramer framer;

    Link(ScriptedPcscf& owner, User& u, Set& s, bool ps)
        : p(owner),
          user(u),
          set(s),
          at_ps(ps),
          tcp(owner.wheel_, *this,
              {ps ? s.n.port_ps : s.n.port_pc, ps ? s.n.port_uc : s.n.port_us, 1300,
               owner.random_.u32()}) {}
    void tcp_output(TcpConnection&, const TcpSegment& s) override {
        Bytes b;
        build_tcp(p.self(user.address).address, user.address, s, b);
        p.send_protected(user, set, at_ps, protocol_tcp, b);
    }
    void tcp_established(TcpConnection&) override {}
    void tcp_data(TcpConnection&, std::string_view d) override {
        framer.feed(d);
        for (;;) {
            const auto f = framer.next();
            if (f.kind != sip::FrameKind::message) return;
            p.on_sip(std::string(f.bytes), {user.address, at_ps ? set.n.port_uc : set.n.port_us},
                     {p.self(user.address).address, at_ps ? set.n.port_ps : set.n.port_pc}, &set,
                     [this](const std::string& out) { tcp.send(out); });
        }
    }
    void tcp_closed(TcpConnection& c, bool reset) override {
        if (!reset) c.close();
    }
};

struct ScriptedPcscf::Stream final : ClearStream {
    ScriptedPcscf& p;
    Endpoint from, to;
    ClearStreamHandler* handler;
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
    sip::StreamFramer framer;

    Stream(ScriptedPcscf& owner, const IpAddress& f, const Endpoint& t, ClearStreamHandler& h)
        : p(owner), from{f, 33333}, to(t), handler(&h) {}
    ~Stream() override { *alive = false; }
    void send(std::string_view data) override {
        p.later([this, a = alive, text = std::string(data)] {
            if (!*a) return;
            framer.feed(text);
            for (;;) {
                const auto f = framer.next();
                if (f.kind != sip::FrameKind::message) return;
                p.on_sip(std::string(f.bytes), from, to, nullptr,
                         [this, a](const std::string& out) {
                             p.later([this, a, out] {
                                 if (*a) handler->stream_data(out);
                             });
                         });
            }
        });
    }
    [[nodiscard]] std::uint16_t local_port() const override { return from.port; }
};

ScriptedPcscf::Set::Set() = default;
ScriptedPcscf::Set::~Set() = default;
ScriptedPcscf::~ScriptedPcscf() = default;

void ScriptedPcscf::later(std::function<void()> what) {
    queue_.push_back({wheel_.now() + flight, std::move(what)});
}

void ScriptedPcscf::deliver() {
    std::vector<Due> due;
    std::erase_if(queue_, [&](Due& d) {
        if (d.at > wheel_.now()) return false;
        due.push_back(std::move(d));
        return true;
    });
    for (auto& d : due) d.what();
}

std::unique_ptr<ClearStream> ScriptedPcscf::connect_tcp(const IpAddress& from, const Endpoint& to,
                                                        ClearStreamHandler& h) {
    return std::make_unique<Stream>(*this, from, to, h);
}

void ScriptedPcscf::send_udp(const Endpoint& from, const Endpoint& to, std::string_view payload) {
    if (lost()) return;
    if (to.port != 5060 && !script.accept_clear_on_protected) {
        ++clear_dropped;
        return;
    }
    later([this, from, to, text = std::string(payload)] {
        on_sip(text, from, to, nullptr, [this, from, to](const std::string& out) {
            if (lost()) return;
            later([this, from, to, out] { phones->on_udp(to, from.address, out); });
        });
    });
}

void ScriptedPcscf::send_in_udp(const IpAddress& from, const IpAddress& to,
                                std::span<const std::uint8_t> payload) {
    if (payload.size() == 1 && payload[0] == 0xFF) {
        ++keepalives;
        return;
    }
    receive_esp(from, to, payload, true);
}

void ScriptedPcscf::send_esp(const IpAddress& from, const IpAddress& to,
                             std::span<const std::uint8_t> esp) {
    receive_esp(from, to, esp, false);
}

void ScriptedPcscf::receive_esp(const IpAddress& from, const IpAddress& to,
                                std::span<const std::uint8_t> esp, bool in_udp) {
    if (lost()) return;
    if (in_udp != script.nat) {
        ++unknown;
        return;
    }
    later([this, from, to, packet = Bytes(esp.begin(), esp.end())] {
        auto it = users.find(from);
        Set* set = nullptr;
        const std::uint32_t spi = load_be32(packet.data());
        if (it != users.end()) {
            for (auto& s : it->second.sets) {
                if (s->n.spi_ps == spi || s->n.spi_pc == spi) set = s.get();
            }
        }
        if (set == nullptr) {
            ++unknown;
            return;
        }
        User& user = it->second;
        const bool at_ps = set->n.spi_ps == spi;
        ReplayWindow& w = at_ps ? set->in_ps : set->in_pc;
        const std::uint32_t sequence = load_be32(packet.data() + 4);
        if (!w.fresh(sequence) && !script.accept_replays) {
            ++replayed;
            return;
        }
        Bytes copy = packet;
        auto opened = crypto_.open(set->suite, *set->keys, copy);
        if (!opened && script.answer_forged) {
            copy.back() ^= 0x01;  // undoes what the forger did
            opened = crypto_.open(set->suite, *set->keys, copy);
        }
        if (!opened) {
            ++forged;
            return;
        }
        w.mark(sequence);
        auto inner = opened->payload;
        auto protocol = opened->next_header;
        if (script.nat) {
            const auto packet_inside = read_ipv4(inner);
            if (protocol != 4 || !packet_inside || packet_inside->from != from ||
                packet_inside->to != to) {
                ++unknown;
                return;
            }
            inner = packet_inside->payload;
            protocol = packet_inside->protocol;
        }
        if (protocol == protocol_tcp) {
            const auto s = read_tcp(from, to, inner);
            if (s) receive_tcp(user, *set, at_ps, *s);
            return;
        }
        const auto udp = read_udp(from, to, inner);
        if (!udp || udp->to_port != (at_ps ? set->n.port_ps : set->n.port_pc)) return;
        on_sip(std::string(as_text(udp->payload)), {from, udp->from_port}, {to, udp->to_port}, set,
               nullptr);
    });
}

void ScriptedPcscf::receive_tcp(User& user, Set& set, bool at_ps, const TcpSegment& s) {
    auto& link = at_ps ? set.server : set.client;
    if (at_ps && (s.flags & tcp_flag::syn) != 0 && (!link || link->tcp.done())) {
        link = std::make_unique<Set::Link>(*this, user, set, true);
        link->tcp.accept(s);
        return;
    }
    if (link) link->tcp.receive(s);
}

void ScriptedPcscf::send_protected(User& user, Set& set, bool to_client_port, std::uint8_t protocol,
                                   std::span<const std::uint8_t> inner) {
    EspCrypto::Packet p;
    p.spi = to_client_port ? set.n.spi_uc : set.n.spi_us;
    p.sequence = ++(to_client_port ? set.sent_uc : set.sent_us);
    p.next_header = protocol;
    p.payload = inner;
    std::vector<Bytes> tunnel;
    if (script.nat) {
        build_ip(self(user.address).address, user.address, protocol, inner, 65535, 1, tunnel);
        p.next_header = 4;
        p.payload = tunnel.front();
    }
    Bytes esp;
    crypto_.seal(set.suite, *set.keys, p, random_, esp);
    if (lost()) return;
    later([this, to = user.address, esp] {
        const IpAddress us = self(to).address;
        script.nat ? phones->on_in_udp(us, to, esp) : phones->on_esp(us, to, esp);
    });
}

void ScriptedPcscf::send_sip(User& user, Set& set, bool tcp, const std::string& text) {
    if (tcp) {
        if (!set.client || set.client->tcp.done()) {
            set.client = std::make_unique<Set::Link>(*this, user, set, false);
            set.client->tcp.connect();
        }
        set.client->tcp.send(text);
        return;
    }
    const bool back = script.rport_to_client_port;
    Bytes inner;
    build_udp({self(user.address).address, back ? set.n.port_ps : set.n.port_pc},
              {user.address, back ? set.n.port_uc : set.n.port_us}, as_bytes(text), inner);
    send_protected(user, set, back, protocol_udp, inner);
}

void ScriptedPcscf::send_request(const IpAddress& ue, const std::string& message, bool tcp) {
    User& u = users.at(ue);
    send_sip(u, *u.sets.back(), tcp, message);
}

void ScriptedPcscf::on_sip(const std::string& text, const Endpoint& from, const Endpoint& to,
                           Set* set, const std::function<void(std::string)>& reply) {
    sip::Message m;
    if (m.parse(text) != sip::ParseStatus::ok) {
        ADD_FAILURE() << "a phone sent what is not SIP:\n" << text;
        return;
    }
    if (!m.is_request()) {
        responses.push_back(text);
        return;
    }
    requests.push_back(text);
    request_spis.push_back(set == nullptr ? 0 : set->n.spi_ps);
    if (script.silent) return;
    User& user = users[from.address];
    user.address = from.address;
    Set* answer_on = set;
    std::string answer;
    const auto via = sip::top_via(m);
    const std::string branch(via ? via->branch : "");
    if (lost_.contains(branch)) return;
    if (set != nullptr && !set->established && script.lose_sm7 > 0) {
        --script.lose_sm7;
        lost_.insert(branch);
        return;
    }
    if (const auto known = answered_.find(branch); known != answered_.end()) {
        // A retransmission gets the same answer the same way (RFC 3261 17.2.2).
        answer = known->second.first;
        answer_on = known->second.second;
    } else if (m.is_method("REGISTER")) {
        answer = handle_register(m, user, set, answer_on);
    } else {
        sip::ResponseOptions o;
        o.to_tag = "pcscf";
        EXPECT_TRUE(sip::build_response(m, 200, o, answer));
    }
    (void)to;
    if (answer.empty()) return;
    answered_[branch] = {answer, answer_on};
    if (set != nullptr && script.answer_clear && m.is_method("REGISTER")) {
        later([this, from, answer] { phones->on_udp(self(from.address), from.address, answer); });
    } else if (reply && answer_on == set) {
        reply(answer);
    } else if (answer_on != nullptr) {
        send_sip(user, *answer_on, false, answer);
    }
}

// SM6, with a new set. `carrier`: what SM1 came on.
std::string ScriptedPcscf::challenge(const sip::Message& m, User& user, Set* carrier) {
    std::erase_if(user.sets, [](const auto& s) { return !s->established; });  // B3
    const auto to = sip::to(m);
    const std::string imsi(to->uri.user);
    user.impu = fmt::format("sip:{}@{}", imsi, realm);
    std::vector<std::string_view> offered;
    auto set = std::make_unique<Set>();
    for (const auto& v : m.values(sip::HeaderId::security_client)) {
        offered.push_back(v.text);
        set->offered += std::string(v.text) + "\n";
    }
    const auto list = parse_security_server(offered);
    if (!list) {
        sip::ResponseOptions o;
        o.to_tag = "p";
        std::string answer;
        EXPECT_TRUE(sip::build_response(m, 400, o, answer));
        return answer;
    }
    const Mechanism* chosen = nullptr;
    for (const auto s : sa::all_suites) {
        for (const auto& o : *list) {
            if (chosen == nullptr && o.suite == s) chosen = &o;
        }
    }
    std::string answer;
    if (chosen == nullptr) {
        sip::ResponseOptions o;
        o.to_tag = "p";
        EXPECT_TRUE(sip::build_response(m, offered.empty() ? 421 : 494, o, answer));
        return answer;
    }
    set->suite = *chosen->suite;
    set->n.spi_uc = chosen->spi_c;
    set->n.spi_us = chosen->spi_s;
    set->n.port_uc = chosen->port_c;
    set->n.port_us = chosen->port_s;
    set->n.spi_pc = next_spi_++;
    set->n.spi_ps = next_spi_++;
    set->n.port_pc = script.keep_port_pc ? Port{6200} : next_pc_++;
    if (user.port_ps == 0 || script.change_port_ps)
        user.port_ps = static_cast<Port>(6100 + random_.below(90));
    set->n.port_ps = user.port_ps;
    if (carrier != nullptr) {
        EXPECT_EQ(set->n.port_us, carrier->n.port_us) << "A5";
        EXPECT_NE(set->n.port_uc, carrier->n.port_uc) << "A5";
    }

    // AKA
    const CardKeys card = keys_by_rule(seed, imsi);
    Rand rand{};
    random_.fill(rand);
    user.sqn += 32;
    auto f = milenage::f2345(card, rand);
    Autn autn{};
    for (std::size_t i = 0; i < 6; ++i) {
        autn[i] = static_cast<std::uint8_t>(static_cast<std::uint8_t>(user.sqn >> (8 * (5 - i))) ^
                                            f.ak[i]);
    }
    const auto mac = milenage::f1(card, rand, user.sqn, {0, 0}).mac_a;
    std::copy(mac.begin(), mac.end(), autn.begin() + 8);
    Bytes both(rand.begin(), rand.end());
    both.insert(both.end(), autn.begin(), autn.end());
    set->keys = make_secret<sa::EspKeys>(sa::expand_keys(set->suite, f.ck, f.ik));
    set->res = std::move(f.res);
    set->xres_nonce = to_base64(both);

    std::string server;
    unsigned q = 900;
    for (const auto s : sa::all_suites) {
        const std::string one =
            fmt::format("ipsec-3gpp;q=0.{};alg={};ealg={};spi-c={};spi-s={};port-c={};port-s={}", q,
                        sa::name(s.integrity), sa::name(s.encryption), set->n.spi_pc, set->n.spi_ps,
                        set->n.port_pc, set->n.port_ps) +
            (script.nat ? ";mod=UDP-enc-tun" : "");
        server += (server.empty() ? "" : ", ") + one;
        q -= 50;
    }
    set->verify = server;
    if (!script.security_server.empty()) server = script.security_server;
    const std::string www = fmt::format(
        R"(Digest realm="{}", nonce="{}", algorithm={}, qop="{}"{})", realm, set->xres_nonce,
        script.algorithm, script.qop, script.leak_keys ? R"(, ck="00", ik="00")" : "");
    const std::array<sip::HeaderField, 2> headers{
        {{"WWW-Authenticate", www}, {"Security-Server", server}}};
    sip::ResponseOptions o;
    o.to_tag = "p";
    o.headers = headers;
    EXPECT_TRUE(sip::build_response(m, 401, o, answer));
    user.sets.push_back(std::move(set));
    return answer;
}

std::string ScriptedPcscf::handle_register(const sip::Message& m, User& user, Set* set,
                                           Set*& answer_on) {
    const auto respond = [&](int code, std::span<const sip::HeaderField> headers = {}) {
        sip::ResponseOptions o;
        o.to_tag = "p";
        o.headers = headers;
        std::string out;
        EXPECT_TRUE(sip::build_response(m, code, o, out));
        return out;
    };
    const auto value = m.value(sip::HeaderId::authorization);
    const auto c = value ? sip::parse_digest_credentials(*value) : std::nullopt;
    EXPECT_TRUE(c && c->username && c->uri && c->realm && c->nonce && c->response);
    if (!c) return {};
    EXPECT_EQ(c->realm, std::string(realm));
    const bool deregister = sip::expires(m) == 0U;
    // B6: Via against the source; a client port that is in use.
    const auto via = sip::top_via(m);
    if (!via || IpAddress::parse(via->host) != user.address) return respond(403);
    for (const auto& v : m.values(sip::HeaderId::security_client)) {
        const std::array<std::string_view, 1> one{v.text};
        const auto list = parse_security_server(one);
        if (!list) break;
        for (const auto& x : *list) {
            for (const auto& s : user.sets) {
                if (s->established && s->n.port_uc == x.port_c) return respond(403);
            }
        }
    }

    if (c->auts && !c->auts->empty()) {  // C4
        std::erase_if(user.sets, [](const auto& s) { return !s->established; });
        const std::string imsi(sip::to(m)->uri.user);
        const CardKeys card = keys_by_rule(seed, imsi);
        const auto aka = parse_aka_nonce(*c->nonce);
        const auto auts = from_base64(*c->auts);
        EXPECT_TRUE(aka && auts && auts->size() == 14);
        const auto ak = milenage::f5_star(card, aka->rand);
        Sqn sqn = 0;
        for (std::size_t i = 0; i < 6; ++i)
            sqn = sqn << 8U | static_cast<std::uint8_t>((*auts)[i] ^ ak[i]);
        const auto mac_s = milenage::f1(card, aka->rand, sqn, {0, 0}).mac_s;
        EXPECT_TRUE(std::equal(mac_s.begin(), mac_s.end(), auts->begin() + 6))
            << "AUTS of another card";
        user.sqn = sqn;
        return challenge(m, user, set);
    }
    if (!c->nonce->empty() && c->response->empty()) {  // C3
        std::erase_if(user.sets, [](const auto& s) { return !s->established; });
        return respond(403);
    }
    if (c->response->empty()) {
        if (script.accept_without_aka) return respond(200);
        if (set != nullptr && deregister && !script.challenge_deregistration) {
            user.registered = false;
            return respond(200);
        }
        return challenge(m, user, set);
    }

    // SM7
    EXPECT_NE(set, nullptr) << "SM7 in clear";
    if (set == nullptr) return {};
    EXPECT_FALSE(set->established);
    std::string client;
    for (const auto& v : m.values(sip::HeaderId::security_client))
        client += std::string(v.text) + "\n";
    std::vector<std::string_view> sent, back;
    for (const auto& v : m.values(sip::HeaderId::security_verify)) back.push_back(v.text);
    sip::ValueSplitter split(set->verify);
    while (const auto v = split.next()) sent.push_back(*v);
    const auto a = parse_security_server(sent);
    const auto b = parse_security_server(back);
    bool same = a && b && a->size() == b->size();
    for (std::size_t i = 0; same && i < a->size(); ++i) {
        const auto &x = (*a)[i], &y = (*b)[i];
        same = x.suite == y.suite && x.q == y.q && x.spi_c == y.spi_c && x.spi_s == y.spi_s &&
               x.port_c == y.port_c && x.port_s == y.port_s;
    }
    const auto remove = [&] {
        for (auto& s : user.sets) {
            if (s.get() == set) set->established = false;
        }
    };
    if (script.security_server.empty() && (!same || client != set->offered)) {  // C8
        remove();
        return respond(400);
    }
    if (script.refuse_sm7 != 0) return respond(script.refuse_sm7);
    DigestInput d;
    d.user = *c->username;
    d.realm = *c->realm;
    d.nonce = set->xres_nonce;
    d.method = "REGISTER";
    d.uri = *c->uri;
    if (c->qop) {
        d.qop = *c->qop;
        d.nc = c->nc.value_or("");
        d.cnonce = c->cnonce.value_or("");
    }
    if (aka_digest(d, set->res.reveal()) != *c->response) {  // C2
        // Protected by an older set: refused on that one (D6).
        for (auto& s : user.sets) {
            if (s->established) answer_on = s.get();
        }
        return respond(403);
    }
    set->established = true;
    ++user.registrations;
    user.registered = !deregister;
    const std::array<sip::HeaderField, 4> headers{{{"Service-Route", "<sip:orig@scscf.example;lr>"},
                                                   {"P-Associated-URI", user.impu},
                                                   {"Expires", deregister ? "0" : "3600"},
                                                   {"Path", "<sip:x@pcscf.example;lr>"}}};
    return respond(200, headers);
}

// ---- Lab ----

Lab::Lab()
    : context{.timers = wheel,
              .random = random,
              .network = pcscf,
              .crypto = crypto,
              .statistics = statistics} {
    context.card = [](std::string_view imsi) { return keys_by_rule(seed, imsi); };
    context.realm = std::string(realm);
    context.pcscf4 = pcscf.v4;
    context.pcscf6 = pcscf.v6;
    context.message_interval = std::chrono::milliseconds(100);
}

Lab::~Lab() {
    pcscf.users.clear();
    load_.reset();
}

void Lab::start(LoadOptions options) {
    if (!options.net4) options.net4 = AddressPlan::parse("10.20.0.0/16").value();
    if (!options.net6) options.net6 = AddressPlan::parse("fd00:20::/64").value();
    if (options.suites.empty()) options.suites.assign(sa::all_suites.begin(), sa::all_suites.end());
    auto load = Load::make(context, options);
    ASSERT_TRUE(load) << load.error().text;
    load_ = std::move(*load);
    pcscf.phones = load_.get();
    load_->start([this] { over = true; });
}

void Lab::run(Duration time) {
    const TimePoint end = clock.now() + time;
    while (clock.now() < end) {
        clock.advance(std::chrono::milliseconds(1));
        wheel.advance();
        context.collect();
        pcscf.deliver();
        context.collect();
    }
}

bool Lab::finish(Duration limit) {
    const TimePoint end = clock.now() + limit;
    while (!over && clock.now() < end) run(std::chrono::milliseconds(50));
    return over;
}

}  // namespace gmgate::ue::test
