#pragma once
// A registration::Gateway in virtual time: the real SA database over a FakeBackend, a network that
// carries ESP the way a packet layer does (a set must be installed, and with the phone's keys),
// scripted phones, and either a scripted S-CSCF or gmhome's own (home_network.h).

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "control/registration/gateway.h"
#include "control/secagree/mechanism.h"
#include "control/sip/build.h"
#include "control/sip/message.h"
#include "control/sip/values.h"
#include "sa/database.h"
#include "tests/support/fake_backend.h"
#include "tests/support/home_network.h"
#include "ue/digest.h"

namespace gmgate::test {

using namespace std::chrono_literals;
using registration::Reason;
using sip::HeaderId;

inline IpAddress ip(std::string_view text) {
    return *IpAddress::parse(text);
}
inline Endpoint ep(std::string_view text) {
    return *Endpoint::parse(text);
}

// What AKA would compute, made from the nonce so that phone and home agree.
struct Aka {
    static std::array<std::uint8_t, 16> key(std::string_view nonce, std::uint64_t which) {
        std::array<std::uint8_t, 16> k{};
        for (std::uint64_t i = 0; i < 2; ++i) {
            const std::uint64_t v = SeededHash(which, i)(nonce);
            std::memcpy(k.data() + 8 * i, &v, 8);
        }
        return k;
    }
    static std::string ck(std::string_view nonce) { return to_hex(key(nonce, 1)); }
    static std::string ik(std::string_view nonce) { return to_hex(key(nonce, 2)); }
    static std::string res(std::string_view nonce) { return to_hex(key(nonce, 3)); }
};

// A message as text, taken apart on demand.
struct Sip {
    std::string text;
    [[nodiscard]] bool is_request() const { return !text.starts_with("SIP/2.0 "); }
    [[nodiscard]] int status() const { return is_request() ? 0 : std::stoi(text.substr(8, 3)); }
    [[nodiscard]] std::string method() const { return text.substr(0, text.find(' ')); }
    [[nodiscard]] std::string uri() const {
        const auto a = text.find(' ') + 1;
        return text.substr(a, text.find(' ', a) - a);
    }
    // Values of all lines of that name, joined by ", ".
    [[nodiscard]] std::string header(std::string_view name) const {
        sip::Message m;
        if (m.parse(std::string_view(text)) != sip::ParseStatus::ok) return "unparsable";
        std::string out;
        for (const auto& h : m.headers()) {
            if (!iequals(m.name(h), name)) continue;
            if (!out.empty()) out += ", ";
            out += m.value(h);
        }
        return out;
    }
    [[nodiscard]] bool has(std::string_view name) const {
        sip::Message m;
        return m.parse(std::string_view(text)) == sip::ParseStatus::ok && m.find(name) != nullptr;
    }
    [[nodiscard]] bool contains(std::string_view what) const {
        return text.find(what) != std::string::npos;
    }
};

struct Wire {
    enum class To : std::uint8_t { gateway_gm, ue, gateway_core, home } to{};
    sip::Flow flow;  // as the gateway sees it
    Sip message;
    bool esp = false;   // carried by an SA
    sa::SetId set = 0;  // which
    bool lost = false;
};

class World;

// How a REGISTER differs from the ordinary one.
struct RegisterOptions {
    bool security_client = true;
    bool require = true;
    std::optional<std::string> client;         // other Security-Client
    std::optional<std::string> verify;         // Security-Verify; empty text: no header
    std::optional<std::string> authorization;  // whole value; empty text: no header
    std::string impi, impu;                    // others than the phone's own
    std::string via_host;
    bool rport = false;
    unsigned expires = 3600;
    std::optional<std::string> contact;  // whole value, "*"
    std::string contact_params;
    std::string extra;   // header lines with CRLF
    std::string branch;  // fixed
};

// The phone: everything it says is said by the test.
class Phone {
  public:
    Phone(World& world, std::string user, IpAddress address,
          sip::Transport transport = sip::Transport::udp);

    struct Security {
        sa::SaNumbers numbers;
        std::array<std::uint8_t, 16> ck{};
        std::array<std::uint8_t, 16> ik{};
        std::string server;  // Security-Server as received
        std::string nonce;
        // What the card said: exactly one of these is set. Without a card always `res`.
        std::optional<std::string> res;  // octets
        std::string auts;                // base64 (C4)
        bool mac_failure = false;        // C3
    };
    std::string register_text(const RegisterOptions& o, const Security* on);
    void send_clear(const std::string& text);
    // Through the SA from port_uc to port_ps.
    void send_on(const Security& s, const std::string& text);

    void send_sm1(RegisterOptions o = {}) {
        last_sm1 = register_text(o, nullptr);
        send_clear(last_sm1);
    }
    // A REGISTER with Security-Client for new SAs on the current set.
    void send_protected_sm1(RegisterOptions o = {}) {
        next_ports();
        last_sm1 = register_text(o, &current());
        send_on(current(), last_sm1);
    }
    void send_sm7(RegisterOptions o = {}) {
        if (!o.authorization) o.authorization = right_answer();
        if (!o.verify) o.verify = pending->server;
        last_sm7 = register_text(o, &*pending);
        send_on(*pending, last_sm7);
    }
    // SM7 with the new keys and the wrong RES (C2).
    void send_wrong_sm7() {
        RegisterOptions o;
        o.authorization = wrong_answer();
        send_sm7(std::move(o));
    }
    // SM1 to SM6; true: challenged, and the challenge taken. `on_the_set`: SM1 is protected (D2).
    bool challenged(bool on_the_set = false, RegisterOptions o = {});
    // C3, C4: the challenge is refused, on the current set or in clear. Without `auts` the response
    // is empty and there is none.
    void refuse_challenge(bool on_the_set, std::string_view auts = {}, RegisterOptions o = {});
    // SM7 to SM12 of the challenge taken; true: 200, and the new set is the current one.
    bool answered(RegisterOptions o = {});
    // The whole procedure from SM1 to SM12; true: 200.
    bool register_once();
    bool reregister();
    bool deregister();
    // Any other request on the current set.
    std::string request(std::string_view method, std::string_view uri,
                        std::string_view headers = {}, std::string_view body = {});
    void answer(const Wire& asked, int status, std::string_view headers = {});

    [[nodiscard]] std::string answer_to(std::string_view nonce, std::string_view response,
                                        std::string_view extra = {}) const;
    // The answer to the pending challenge, and one that is wrong.
    [[nodiscard]] std::string right_answer() const;
    [[nodiscard]] std::string wrong_answer() const;
    [[nodiscard]] std::string security_client() const;
    void next_ports() {
        ++port_uc;
        spi_uc += 2;
        spi_us += 2;
    }
    void take_challenge(const Sip& m);  // 401 → pending
    void accept() {                     // 200 → the pending set is in use
        sets.push_back(*pending);
        pending.reset();
    }
    [[nodiscard]] Security& current() { return sets.back(); }
    [[nodiscard]] const Wire& last() const { return inbox.back(); }
    [[nodiscard]] int last_status() const {
        return inbox.empty() ? -1 : inbox.back().message.status();
    }
    [[nodiscard]] std::string contact() const;
    void receive(const Wire& wire);

    World& world;
    std::string impi, impu;
    IpAddress address;
    sip::Transport transport;
    std::uint16_t port = 5060;  // unprotected; of the NAT, if there is one
    // Behind a NAT (N1): the phone's own address, while `address` is the NAT's.
    std::optional<IpAddress> inner;
    sa::Port port_uc = 7000;
    sa::Port port_us = 7777;
    sa::Spi first_spi = 5001;  // where a test gives phones ranges of their own
    sa::Spi spi_uc = 5001;
    sa::Spi spi_us = 5002;
    std::string offer;             // other mechanisms; empty: hmac-sha-1-96 with null and aes-cbc
    std::optional<ue::Usim> card;  // with gmhome's home network
    std::optional<Security> pending;
    std::vector<Security> sets;
    std::vector<Wire> inbox;
    std::string last_sm1, last_sm7;
    unsigned cseq = 0;
    bool wrong_ik = false;
    sip::ConnectionId clear_connection = 0;
    std::map<sa::Port, sip::ConnectionId> connections;  // by port_uc
};

// The S-CSCF: answers by itself unless told to be silent or otherwise.
class Home {
  public:
    explicit Home(World& w) : world(w) {}
    void receive(const Wire& wire);
    void reply(const Wire& asked, int status, std::string_view headers = {},
               std::string_view body = {});
    // To a user, by the Path it registered.
    std::string request(std::string_view method, const std::string& path, std::string_view uri,
                        std::string_view headers = {}, std::string_view body = {});

    World& world;
    bool silent = false;
    int fixed_status = 0;  // answer everything so
    int final_status = 0;  // answer SM8 so
    bool accept_without_challenge = false;
    bool omit_keys = false;
    bool challenge_again = false;
    bool integrity_yes_is_enough = true;  // a REGISTER with it and no answer is accepted (D3)
    std::string service_route = "<sip:orig@192.0.2.9:6060;lr>";
    std::string associated = "<sip:%U@home.example>, <tel:+15550100>";
    unsigned grant = 3600;
    std::vector<Wire> inbox;
    std::map<std::string, Wire> replies;        // by request: what a server transaction does
    std::map<std::string, std::string> nonces;  // by IMPI: the challenge that counts (C10)
    std::map<std::string, std::string> paths;   // by IMPI, at 200
    unsigned counter = 0;
};

// Stands still until told; its wall clock can be set by somebody in the middle of everything.
class WallClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override { return now_.now(); }
    [[nodiscard]] std::chrono::system_clock::time_point wall() const override {
        return now_.wall() + std::chrono::duration_cast<std::chrono::system_clock::duration>(off_);
    }
    void advance(Duration by) { now_.advance(by); }
    void jump_wall(Duration by) { off_ += by; }

  private:
    ManualClock now_;
    Duration off_{};
};

// What the gateway holds, everywhere it can hold something.
struct Books {
    std::size_t installed = 0;  // SA sets in the packet layer
    std::size_t sets = 0;
    std::size_t users = 0;
    std::size_t spis = 0;
    std::size_t timers = 0;
    std::size_t registered = 0;
    std::size_t pending = 0;
    std::size_t proxied = 0;
    std::size_t transactions = 0;
    std::size_t indexed = 0;  // Gateway::index_entries
    bool operator==(const Books&) const = default;
    friend void PrintTo(const Books& b, std::ostream* out) {
        *out << "installed " << b.installed << ", sets " << b.sets << ", users " << b.users
             << ", SPIs " << b.spis << ", timers " << b.timers << ", registered " << b.registered
             << ", pending " << b.pending << ", proxied " << b.proxied << ", transactions "
             << b.transactions << ", index entries " << b.indexed;
    }
};

class World {
  public:
    struct Options {
        registration::Policy policy;
        sa::DatabaseConfig database;
        std::size_t capacity = 256;
        std::optional<home::RegistrarConfig> gmhome;  // its home network instead of the script
        Options() {
            policy.name = "pcscf.visited.example";
            policy.visited_network = "visited.example";
            policy.gm_addresses = {ip("10.1.0.1"), ip("2001:db8:1::1")};
            policy.core = {ep("192.0.2.1:5060")};
            policy.next_hops = {{sip::Transport::udp, ep("192.0.2.9:5060")}};
            database.ports.port_ps = {6100, 6101};
            database.ports.pc_first = 6200;
            database.ports.pc_last = 6231;
        }
    };

    explicit World(Options o = Options())
        : timers(clock),
          backend(o.capacity),
          home(*this),
          gm_net(*this, true),
          core_net(*this, false) {
        options = o;
        auto made = sa::SaDatabase::create(o.database, backend, timers, random);
        EXPECT_TRUE(made) << (made ? "" : made.error().text);
        sets = std::move(*made);
        gateway =
            std::make_unique<registration::Gateway>(o.policy, *sets, timers, random, registry);
        gateway->attach(gm_net, core_net);
        if (!o.gmhome) return;
        home.service_route = "<" + std::string(HomeNetwork::service_route) + ">";
        network = std::make_unique<HomeNetwork>(
            clock, random,
            [this](const sip::Flow& flow, std::string text) {
                Wire w;
                w.to = Wire::To::gateway_core;
                w.flow = {flow.transport, flow.remote, flow.local, flow.connection};
                w.message.text = std::move(text);
                queue.push_back(std::move(w));
            },
            *o.gmhome);
    }

    // With gmhome's home network every user is enrolled with a card of its own.
    Phone& phone(const std::string& user = "alice", std::string_view address = "10.2.0.1",
                 sip::Transport transport = sip::Transport::udp) {
        phones.push_back(std::make_unique<Phone>(*this, user, ip(address), transport));
        if (network) phones.back()->card.emplace(network->enroll(user, random, shared));
        return *phones.back();
    }
    static IpAddress gm_address(const IpAddress& ue) {
        return ue.is_v6() ? ip("2001:db8:1::1") : ip("10.1.0.1");
    }

    // Delivers all that is under way, at this moment.
    void run() {
        for (int guard = 0; guard < 10'000 && !queue.empty(); ++guard) {
            Wire wire = std::move(queue.front());
            queue.pop_front();
            deliver(wire);
        }
        EXPECT_TRUE(queue.empty()) << "messages go round in circles";
    }
    void advance(Duration by) {
        const TimePoint end = clock.now() + by;
        run();
        while (clock.now() < end) {
            Duration next = timers.until_next();
            if (network) next = std::min(next, network->timers.until_next());
            clock.advance(std::min<Duration>(std::max<Duration>(next, 1ms), end - clock.now()));
            timers.advance();
            if (network) network->timers.advance();
            run();
        }
    }

    [[nodiscard]] Books books() const {
        return {backend.installed(),     sets->set_count(),  sets->user_count(),
                sets->spis().held(),     timers.size(),      gateway->registered(),
                gateway->pending(),      gateway->proxied(), gateway->transactions(),
                gateway->index_entries()};
    }
    // The same once every transaction has run out, which takes 64·T1 and a little; shorter than
    // reg-await-auth.
    Books settled() {
        advance(40s);
        return books();
    }
    // Nothing at all is held (C5, S3).
    void nothing_left() { EXPECT_EQ(settled(), Books{}); }
    // A registered phone is served on the set it uses, both ways.
    void expect_served(Phone& p, std::size_t registered = 1) {
        EXPECT_EQ(gateway->registered(), registered);
        p.pending.reset();
        p.send_on(p.current(), p.request("MESSAGE", "sip:echo@home.example"));
        run();
        EXPECT_EQ(p.last_status(), 200);
        EXPECT_TRUE(p.last().esp);
    }
    // The set between these numbers; 0: it is not installed.
    [[nodiscard]] sa::SetId set_of(const Phone::Security& s) const {
        for (const auto& [id, set] : backend.sets()) {
            if (set.numbers == s.numbers) return id;
        }
        return 0;
    }

    // Messages that crossed the wire, lost ones too.
    [[nodiscard]] std::vector<Wire> sent_to(Wire::To to) const {
        std::vector<Wire> found;
        for (const Wire& w : log) {
            if (w.to == to) found.push_back(w);
        }
        return found;
    }
    [[nodiscard]] std::uint64_t drops(Reason reason) const { return gateway->drops(reason); }

    // After everything has timed out nothing may be left but what is registered (S3, C5, C11).
    void expect_no_leak(std::size_t live_sets = 0) {
        advance(600s);
        EXPECT_EQ(gateway->pending(), 0U);
        EXPECT_EQ(gateway->proxied(), 0U);
        EXPECT_EQ(gateway->transactions(), 0U);
        EXPECT_LE(gateway->index_entries(), gateway->registered());
        EXPECT_EQ(backend.installed(), live_sets);
        EXPECT_EQ(sets->set_count(), live_sets);
        EXPECT_EQ(sets->spis().held(), 2 * live_sets);
        EXPECT_EQ(timers.size(), live_sets) << "one life time a set, and nothing else";
        if (live_sets == 0) {
            EXPECT_EQ(sets->user_count(), 0U);
            EXPECT_EQ(gateway->registered(), 0U);
        }
        EXPECT_EQ(clear_on_protected, 0U) << "a message left a protected port without an SA (A6)";
    }

    class Net final : public sip::TransportLayer {
      public:
        Net(World& w, bool gm) : world(w), is_gm(gm) {}
        bool send(const sip::Flow& flow, std::span<const char> bytes) override {
            if (refuse || closed.contains(flow.connection)) return false;
            Wire wire;
            wire.to = is_gm ? Wire::To::ue : Wire::To::home;
            wire.flow = flow;
            wire.message.text.assign(bytes.data(), bytes.size());
            if (is_gm && flow.transport == sip::Transport::tcp && flow.connection == 0) {
                auto& id = opened[{flow.local, flow.remote}];
                if (id == 0) id = ++world.next_connection;
                wire.flow.connection = id;
            }
            world.queue.push_back(std::move(wire));
            return true;
        }
        void close(sip::ConnectionId connection) override { closed.insert(connection); }
        void cut(const Endpoint& local, const Endpoint& remote) override {
            cuts.insert({local, remote});
        }
        World& world;
        bool is_gm;
        bool refuse = false;
        std::set<sip::ConnectionId> closed;  // connections that take nothing any more
        std::set<std::pair<Endpoint, Endpoint>> cuts;
        std::map<std::pair<Endpoint, Endpoint>, sip::ConnectionId> opened;
    };

    WallClock clock;
    TimerWheel timers;
    SeededRandom random{42};
    metrics::Registry registry;
    FakeBackend backend;
    std::unique_ptr<sa::SaDatabase> sets;
    std::unique_ptr<registration::Gateway> gateway;
    Options options;
    Home home;  // with `network` it only listens
    Net gm_net;
    Net core_net;
    std::unique_ptr<HomeNetwork> network;
    std::vector<std::string> shared;  // identities that every phone made from now on has, too
    std::vector<std::string> keys;    // every ck and ik the core sent, as hex
    std::vector<std::unique_ptr<Phone>> phones;
    std::deque<Wire> queue;
    std::vector<Wire> log;
    std::function<bool(const Wire&)> lose;  // true: this one is lost
    std::size_t clear_on_protected = 0;
    std::size_t forged_dropped = 0;
    sip::ConnectionId next_connection = 0;

  private:
    // The set that carries packets between these ports, if it is installed.
    const FakeBackend::Installed* carrying(const sip::Flow& f, sa::SetId& id) const {
        for (const auto& [set_id, s] : backend.sets()) {
            if (s.ue != f.remote.address || s.ours != f.local.address) continue;
            const auto& n = s.numbers;
            if ((f.local.port == n.port_ps && f.remote.port == n.port_uc) ||
                (f.local.port == n.port_pc && f.remote.port == n.port_us)) {
                id = set_id;
                return &s;
            }
        }
        return nullptr;
    }
    // Behind a NAT: the inner address and the SPI lead to the phone, or in clear its port.
    [[nodiscard]] bool beyond_nat(const Phone& p, const Wire& wire) const {
        if (!p.inner) return true;
        const FakeBackend::Installed* set = wire.set == 0 ? nullptr : backend.set(wire.set);
        if (set == nullptr) return wire.flow.remote.port == p.port;
        return set->nat && set->nat->inner == *p.inner && set->numbers.spi_uc >= p.first_spi &&
               set->numbers.spi_uc <= p.spi_uc;
    }
    [[nodiscard]] bool is_protected(const sip::Flow& f) const {
        return sets->ports().is_port_ps(f.local.port) || sets->ports().is_port_pc(f.local.port);
    }
    void deliver(Wire& wire) {
        const bool gm = wire.to == Wire::To::ue || wire.to == Wire::To::gateway_gm;
        bool forged = false;
        if (gm && is_protected(wire.flow)) {
            const auto* installed = carrying(wire.flow, wire.set);
            if (wire.to == Wire::To::ue) {
                if (installed == nullptr) {
                    ++clear_on_protected;
                    return;
                }
            } else if (installed == nullptr) {
                wire.lost = true;  // the packet layer has no SA for it
            } else {
                forged = !wire.esp;
            }
            wire.esp = installed != nullptr;
        }
        if (lose && lose(wire)) wire.lost = true;
        if (forged) {
            ++forged_dropped;
            wire.lost = true;
            backend.emit({sa::BackendEventKind::integrity_failure, wire.set, 0});
            sets->poll_backend();
        }
        log.push_back(wire);
        if (wire.lost) return;
        std::string bytes = wire.message.text;
        switch (wire.to) {
            case Wire::To::gateway_gm:
                gateway->gm().on_message(wire.flow, bytes);
                break;
            case Wire::To::gateway_core: {
                for (const std::string_view name : {",ck=\"", ",ik=\""}) {
                    const auto at = bytes.find(name);
                    if (at != std::string::npos) keys.push_back(bytes.substr(at + 5, 32));
                }
                gateway->core().on_message(wire.flow, bytes);
                // What the gateway leaves in the buffer must hold no key (B2).
                for (const std::string& key : keys)
                    EXPECT_EQ(bytes.find(key), std::string::npos)
                        << "a key left in the receive buffer";
                break;
            }
            case Wire::To::ue: {
                for (const std::string& key : keys)
                    EXPECT_FALSE(wire.message.contains(key)) << "a key reached a phone";
                for (auto& p : phones) {
                    if (p->address == wire.flow.remote.address && beyond_nat(*p, wire))
                        p->receive(wire);
                }
                break;
            }
            case Wire::To::home:
                if (network) {
                    home.inbox.push_back(wire);
                    network->receive({wire.flow.transport, wire.flow.remote, wire.flow.local,
                                      wire.flow.connection},
                                     std::move(bytes));
                } else {
                    home.receive(wire);
                }
                break;
        }
    }
};

// ---- Phone ----

inline Phone::Phone(World& w, std::string user, IpAddress a, sip::Transport t)
    : world(w),
      impi(user + "@home.example"),
      impu("sip:" + user + "@home.example"),
      address(a),
      transport(t) {}

inline std::string Phone::contact() const {
    return "sip:" + impi.substr(0, impi.find('@')) + "@" + inner.value_or(address).to_uri_host() +
           ":" + std::to_string(port_us) +
           (transport == sip::Transport::tcp ? ";transport=tcp" : "");
}

inline std::string Phone::security_client() const {
    const std::string numbers =
        ";prot=esp;mod=" + std::string(inner ? "UDP-enc-tun" : "trans") +
        ";spi-c=" + std::to_string(spi_uc) + ";spi-s=" + std::to_string(spi_us) +
        ";port-c=" + std::to_string(port_uc) + ";port-s=" + std::to_string(port_us);
    if (!offer.empty()) return offer + numbers;
    return "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null" + numbers +
           ", ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc" + numbers;
}

inline std::string Phone::answer_to(std::string_view nonce, std::string_view response,
                                    std::string_view extra) const {
    return "Digest username=\"" + impi + "\",realm=\"home.example\",nonce=\"" + std::string(nonce) +
           "\",uri=\"sip:home.example\",response=\"" + std::string(response) +
           "\",algorithm=AKAv1-MD5" + std::string(extra);
}

inline std::string Phone::register_text(const RegisterOptions& o, const Security* on) {
    const std::string who = o.impu.empty() ? impu : o.impu;
    const std::string host =
        o.via_host.empty() ? inner.value_or(address).to_uri_host() : o.via_host;
    const std::uint16_t via_port = on != nullptr ? on->numbers.port_us : port;
    std::string t =
        "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/" + std::string(sip::name(transport)) +
        " " + host + ":" + std::to_string(via_port) +
        ";branch=" + (o.branch.empty() ? "z9hG4bK" + world.random.token(8) : o.branch) +
        (o.rport ? ";rport" : "") + "\r\nMax-Forwards: 70\r\nFrom: <" + who + ">;tag=1\r\nTo: <" +
        who + ">\r\nCall-ID: " + impi + "\r\nCSeq: " + std::to_string(++cseq) +
        " REGISTER\r\nContact: " + o.contact.value_or("<" + contact() + ">" + o.contact_params) +
        "\r\nExpires: " + std::to_string(o.expires) + "\r\n";
    if (!o.authorization) {
        t += "Authorization: Digest username=\"" + (o.impi.empty() ? impi : o.impi) +
             "\",realm=\"home.example\",nonce=\"\",uri=\"sip:home.example\",response=\"\"\r\n";
    } else if (!o.authorization->empty()) {
        t += "Authorization: " + *o.authorization + "\r\n";
    }
    if (o.require) t += "Require: sec-agree\r\nProxy-Require: sec-agree\r\n";
    t += "Supported: path, sec-agree\r\n";
    if (o.security_client)
        t += "Security-Client: " + (o.client ? *o.client : security_client()) + "\r\n";
    if (o.verify && !o.verify->empty()) t += "Security-Verify: " + *o.verify + "\r\n";
    t += o.extra + "Content-Length: 0\r\n\r\n";
    return t;
}

inline void Phone::send_clear(const std::string& text) {
    Wire w;
    w.to = Wire::To::gateway_gm;
    if (transport == sip::Transport::tcp && clear_connection == 0)
        clear_connection = ++world.next_connection;
    w.flow = {transport, Endpoint{World::gm_address(address), 5060}, Endpoint{address, port},
              transport == sip::Transport::tcp ? clear_connection : 0};
    w.message.text = text;
    world.queue.push_back(std::move(w));
}

inline void Phone::send_on(const Security& s, const std::string& text) {
    Wire w;
    w.to = Wire::To::gateway_gm;
    sip::ConnectionId connection = 0;
    if (transport == sip::Transport::tcp) {
        auto& id = connections[s.numbers.port_uc];
        if (id == 0) id = ++world.next_connection;
        connection = id;
    }
    w.flow = {transport, Endpoint{World::gm_address(address), s.numbers.port_ps},
              Endpoint{address, s.numbers.port_uc}, connection};
    w.message.text = text;
    // The packet layer takes it only if the keys are those of the installed set, and behind a NAT
    // puts the port in place by which the gateway knows the phone.
    for (const auto& [id, set] : world.backend.sets()) {
        const bool same = inner ? set.nat && set.nat->inner == *inner &&
                                      set.nat->port_uc == s.numbers.port_uc &&
                                      set.numbers.spi_ps == s.numbers.spi_ps
                                : set.numbers == s.numbers;
        if (same) w.flow.remote.port = set.numbers.port_uc;
        if (set.ue == address && same && !wrong_ik) {
            w.esp = std::ranges::equal(set.ck.reveal(), s.ck) &&
                    std::ranges::equal(set.ik.reveal(), s.ik);
        }
    }
    world.queue.push_back(std::move(w));
}

inline void Phone::take_challenge(const Sip& m) {
    Security s;
    s.server = m.header("Security-Server");
    const std::string value = m.header("WWW-Authenticate");
    const auto challenge = sip::parse_digest_challenge(value);
    ASSERT_TRUE(challenge && challenge->nonce) << m.text;
    s.nonce = *challenge->nonce;
    if (card) {
        const auto aka = ue::parse_aka_nonce(s.nonce);
        ASSERT_TRUE(aka) << m.text;
        const auto outcome = card->authenticate(aka->rand, aka->autn);
        if (const auto* ok = std::get_if<ue::AkaSuccess>(&outcome)) {
            std::ranges::copy(ok->ck.reveal(), s.ck.begin());
            std::ranges::copy(ok->ik.reveal(), s.ik.begin());
            const auto res = ok->res.reveal();
            s.res = std::string(res.begin(), res.end());
        } else if (const auto* stale = std::get_if<ue::AkaSyncFailure>(&outcome)) {
            s.auts = to_base64(stale->auts);
        } else {
            s.mac_failure = true;
        }
    } else {
        s.ck = Aka::key(s.nonce, 1);
        s.ik = Aka::key(s.nonce, 2);
        s.res = Aka::res(s.nonce);
    }
    secagree::MechanismList list;
    list.add(s.server);
    ASSERT_FALSE(list.mechanisms().empty()) << m.text;
    const auto& first = list.mechanisms().front();
    s.numbers = {spi_uc,  spi_us,  first.spi_c,  first.spi_s,
                 port_uc, port_us, first.port_c, first.port_s};
    pending = s;
}

inline void Phone::receive(const Wire& wire) {
    inbox.push_back(wire);
}

inline std::string Phone::right_answer() const {
    if (!card) return answer_to(pending->nonce, *pending->res);
    const std::string& res = *pending->res;
    return answer_to(
        pending->nonce,
        ue::aka_digest({.user = impi,
                        .realm = HomeNetwork::realm,
                        .nonce = pending->nonce,
                        .method = "REGISTER",
                        .uri = "sip:home.example",
                        .qop = "auth",
                        .nc = "00000001",
                        .cnonce = "0a4f113b",
                        .body = {}},
                       {reinterpret_cast<const std::uint8_t*>(res.data()), res.size()}),
        ",qop=auth,nc=00000001,cnonce=\"0a4f113b\"");
}

inline std::string Phone::wrong_answer() const {
    return answer_to(pending->nonce, "00000000000000000000000000000000",
                     card ? ",qop=auth,nc=00000001,cnonce=\"0a4f113b\"" : "");
}

inline bool Phone::challenged(bool on_the_set, RegisterOptions o) {
    on_the_set ? send_protected_sm1(std::move(o)) : send_sm1(std::move(o));
    world.run();
    if (last_status() != 401) return false;
    take_challenge(last().message);
    return true;
}

inline void Phone::refuse_challenge(bool on_the_set, std::string_view auts, RegisterOptions o) {
    o.authorization =
        answer_to(pending->nonce, "", auts.empty() ? "" : ",auts=\"" + std::string(auts) + "\"");
    const std::string report = register_text(o, on_the_set ? &current() : nullptr);
    on_the_set ? send_on(current(), report) : send_clear(report);
}

inline bool Phone::answered(RegisterOptions o) {
    send_sm7(std::move(o));
    world.run();
    if (last_status() != 200) return false;
    accept();
    return true;
}

inline bool Phone::register_once() {
    return challenged() && answered();
}

inline bool Phone::reregister() {
    return challenged(true) && answered();
}

inline bool Phone::deregister() {
    RegisterOptions o;
    o.expires = 0;
    send_protected_sm1(o);
    world.run();
    return last_status() == 200;
}

inline std::string Phone::request(std::string_view method, std::string_view uri,
                                  std::string_view headers, std::string_view body) {
    const auto& s = current();
    std::string t = std::string(method) + " " + std::string(uri) + " SIP/2.0\r\nVia: SIP/2.0/" +
                    std::string(sip::name(transport)) + " " + address.to_uri_host() + ":" +
                    std::to_string(port_us) + ";branch=z9hG4bK" + world.random.token(8) +
                    "\r\nMax-Forwards: 70\r\n";
    if (headers.find("From:") == std::string_view::npos) t += "From: <" + impu + ">;tag=2\r\n";
    if (headers.find("To:") == std::string_view::npos) t += "To: <" + std::string(uri) + ">\r\n";
    if (headers.find("Route:") == std::string_view::npos) {
        t += "Route: <sip:" + World::gm_address(address).to_uri_host() + ":" +
             std::to_string(s.numbers.port_ps) + ";lr>, " + world.home.service_route + "\r\n";
    }
    ++cseq;
    t += "Call-ID: c" + std::to_string(cseq) + "@ue\r\nCSeq: " + std::to_string(cseq) + " " +
         std::string(method) + "\r\n" + std::string(headers) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
    return t;
}

inline void Phone::answer(const Wire& asked, int status, std::string_view headers) {
    sip::Message m;
    ASSERT_EQ(m.parse(std::string_view(asked.message.text)), sip::ParseStatus::ok);
    std::string out;
    sip::ResponseOptions o;
    o.to_tag = "ue";
    o.copy_record_route = true;
    ASSERT_TRUE(sip::build_response(m, status, o, out));
    out.insert(out.find("Content-Length"), headers);
    if (asked.flow.transport == sip::Transport::tcp) {
        Wire w;
        w.to = Wire::To::gateway_gm;
        w.flow = asked.flow;
        w.esp = true;
        w.message.text = out;
        world.queue.push_back(std::move(w));
    } else {
        send_on(current(), out);
    }
}

// ---- Home ----

inline void Home::reply(const Wire& asked, int status, std::string_view headers,
                        std::string_view body) {
    sip::Message m;
    ASSERT_EQ(m.parse(std::string_view(asked.message.text)), sip::ParseStatus::ok);
    std::string out;
    sip::ResponseOptions o;
    o.to_tag = "home";
    o.copy_record_route = true;
    o.body = body;
    if (!body.empty()) o.content_type = "text/plain";
    ASSERT_TRUE(sip::build_response(m, status, o, out));
    out.insert(out.find("Content-Length"), headers);
    Wire w;
    w.to = Wire::To::gateway_core;
    w.flow = asked.flow;
    if (w.flow.local.port == 0) w.flow.local.port = 5060;
    w.message.text = out;
    replies[asked.message.text] = w;
    world.queue.push_back(std::move(w));
}

inline void Home::receive(const Wire& wire) {
    inbox.push_back(wire);
    const Sip& m = wire.message;
    if (const auto known = replies.find(m.text);
        known != replies.end() && !silent && m.is_request()) {
        world.queue.push_back(known->second);  // a retransmission
        return;
    }
    if (silent || !m.is_request() || m.method() == "ACK") return;
    if (fixed_status != 0) return reply(wire, fixed_status);
    if (m.method() != "REGISTER")
        return reply(wire, 200, "P-Charging-Vector: icid-value=secret\r\n");

    const std::string value = m.header("Authorization");
    const auto c = sip::parse_digest_credentials(value);
    if (!c || !c->username) return reply(wire, 400);
    const std::string impi(*c->username);
    const bool integrity = c->integrity_protected && *c->integrity_protected == "yes";
    const bool answered = c->response && !c->response->empty();
    const bool resync = c->auts && !c->auts->empty();
    const bool empty_answer =
        c->response && c->response->empty() && c->nonce && !c->nonce->empty() && !resync;
    const auto known = nonces.find(impi);
    if (empty_answer && known != nonces.end() && known->second == *c->nonce)
        return reply(wire, 403);  // C3
    const bool right =
        answered && integrity && known != nonces.end() && c->nonce && known->second == *c->nonce;
    if (right && *c->response != Aka::res(known->second))
        return reply(wire, final_status != 0 ? final_status : 403);
    const bool accept = (right && !challenge_again) || accept_without_challenge ||
                        (!answered && integrity && integrity_yes_is_enough && !resync);
    if (!accept) {
        const std::string nonce = to_base64(as_bytes("nonce-" + std::to_string(++counter)));
        nonces[impi] = nonce;
        std::string headers = "WWW-Authenticate: Digest realm=\"home.example\",nonce=\"" + nonce +
                              "\",algorithm=AKAv1-MD5,qop=\"auth\"";
        if (!omit_keys) headers += ",ck=\"" + Aka::ck(nonce) + "\",ik=\"" + Aka::ik(nonce) + "\"";
        return reply(wire, 401, headers + "\r\n");
    }
    if (final_status != 0) return reply(wire, final_status);
    paths[impi] = m.header("Path");
    const std::string user = impi.substr(0, impi.find('@'));
    std::string associated_now = associated;
    for (auto at = associated_now.find("%U"); at != std::string::npos;
         at = associated_now.find("%U")) {
        associated_now.replace(at, 2, user);
    }
    const std::string asked = m.header("Expires");
    const unsigned seconds =
        asked == "0" ? 0 : std::min<unsigned>(grant, static_cast<unsigned>(std::stoul(asked)));
    std::string contact = m.header("Contact");
    contact = contact.substr(0, contact.find('>') + 1);
    reply(wire, 200,
          "Path: " + m.header("Path") + "\r\nService-Route: " + service_route +
              "\r\nP-Associated-URI: " + associated_now + "\r\nContact: " + contact + ";expires=" +
              std::to_string(seconds) + "\r\nP-Charging-Vector: icid-value=secret\r\n");
}

inline std::string Home::request(std::string_view method, const std::string& path,
                                 std::string_view uri, std::string_view headers,
                                 std::string_view body) {
    std::string t = std::string(method) + " " + std::string(uri) +
                    " SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" +
                    world.random.token(8) + "\r\nMax-Forwards: 60\r\nRoute: " + path +
                    "\r\nFrom: <sip:bob@home.example>;tag=b\r\n";
    if (headers.find("To:") == std::string_view::npos) t += "To: <" + std::string(uri) + ">\r\n";
    t += "Call-ID: h" + std::to_string(++counter) + "@home\r\nCSeq: 1 " + std::string(method) +
         "\r\nP-Asserted-Identity: <sip:bob@home.example>\r\nP-Charging-Vector: "
         "icid-value=secret\r\n" +
         std::string(headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
    Wire w;
    w.to = Wire::To::gateway_core;
    w.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
    w.message.text = t;
    world.queue.push_back(std::move(w));
    return t;
}

}  // namespace gmgate::test
