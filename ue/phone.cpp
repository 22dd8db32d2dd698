#include "ue/phone.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "control/sip/build.h"
#include "ue/digest.h"
#include "ue/packet.h"

namespace gmgate::ue {

namespace {

constexpr Sqn resync_ahead = Sqn{1} << 16U;  // how far the "sync-failure" phone claims to be ahead
constexpr unsigned max_challenges = 3;
constexpr std::size_t branch_octets = 8;

bool is_attack(Misbehaviour m) {
    return m == Misbehaviour::replay || m == Misbehaviour::forged_esp ||
           m == Misbehaviour::unknown_spi || m == Misbehaviour::clear_on_protected ||
           m == Misbehaviour::same_port_uc;
}

// After these SM7 a right gateway is silent, or need not answer.
bool expects_silence(Misbehaviour m) {
    return m == Misbehaviour::wrong_ik || m == Misbehaviour::altered_verify ||
           m == Misbehaviour::altered_client;
}

// Some packets below the gateways' mark of 2^32 - 2^20, so that the registration itself is not what
// passes it.
constexpr std::uint32_t near_sequence_end = 0xFFFFFFFFU - (1U << 20U) - 8;

std::string status_text(const sip::Message& m) {
    std::string out = fmt::format("{} {}", m.status_code(), m.reason());
    std::ranges::replace_if(out, [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
    return out;
}

}  // namespace

// ---- TcpLink: hands on to the phone ----

void OwnTcpLink::tcp_output(TcpConnection& c, const TcpSegment& segment) {
    const bool at_client_port = c.local_port() == set_.numbers.port_uc;
    Bytes bytes;
    build_tcp(set_.local, phone_.pcscf().address, segment, bytes);
    phone_.send_protected(set_, at_client_port, protocol_tcp, bytes);
}
void OwnTcpLink::tcp_established(TcpConnection&) {}
void OwnTcpLink::tcp_data(TcpConnection&, std::string_view data) {
    phone_.link_data(*this, set_, data);
}
void OwnTcpLink::tcp_closed(TcpConnection&, bool reset) {
    phone_.link_closed(*this, set_, reset);
}
void HostTcpLink::stream_data(std::string_view data) {
    phone_.link_data(*this, set_, data);
}
void HostTcpLink::stream_closed(std::string_view why) {
    phone_.link_closed(*this, set_, why != peer_closed);
}
void HostLink::host_datagram(bool at_client_port, const Endpoint& from, std::string_view payload) {
    phone_.host_datagram(set_, at_client_port, from, payload);
}
void HostLink::host_accepted(std::unique_ptr<HostStream> stream) {
    phone_.host_accepted(set_, std::move(stream));
}

// ---- life ----

Phone::Phone(PhoneContext& context, const PhonePlan& plan) : context_(context), plan_(plan) {
    retransmit_.bind<&Phone::on_retransmit>(this);
    deadline_.bind<&Phone::on_deadline>(this);
    periodic_.bind<&Phone::on_periodic>(this);
}

Phone::~Phone() = default;

void Phone::stop() {
    retransmit_.stop();
    deadline_.stop();
    periodic_.stop();
    transaction_.reset();
    close_clear_stream();
    discard(pending_);
    discard(old_);
    discard(current_);
    earlier_.reset();
    phase_ = Phase::over;
}

Identity Phone::identity() const {
    return {fmt::format("{:0{}}", plan_.imsi, plan_.imsi_digits), context_.realm};
}

std::string Phone::call_id() const {
    return fmt::format("{:016x}@{}", call_token_, plan_.address.to_string());
}

void Phone::start() {
    ++context_.statistics.started;
    call_token_ = context_.random.u64();
    cseq_ = static_cast<std::uint32_t>(context_.random.below(1000));
    begin(Purpose::initial);
}

void Phone::reregister() {
    restarts_ = 0;
    if (phase_ == Phase::registered) begin(Purpose::reregister);
}

void Phone::deregister() {
    if (!registered_ || phase_ == Phase::over) {
        finish();
        return;
    }
    restarts_ = 0;
    begin(Purpose::deregister);
}

// TS 33.203 7.3.1.4: nobody answered SM7, so the SAs of this attempt go and it starts again, under
// those of an earlier success if there are any.
void Phone::start_again() {
    ++restarts_;
    ++context_.statistics.restarts;
    say("      no answer to SM7: begins again");
    deaf_ = false;
    if (scripted_) scripted_->now.in_clear = false;
    discard(pending_);
    begin(purpose_);
}

void Phone::begin(Purpose purpose) {
    periodic_.stop();
    end_transaction();
    purpose_ = purpose;
    phase_ = Phase::sm1;
    challenges_ = 0;
    carrier_ = current_.get();
    earlier_.reset();
    // The SAs are bound to the address they were made for (D5).
    if (carrier_ != nullptr && carrier_->local != plan_.address) carrier_ = nullptr;
    if (scripted_ && scripted_->now.on != 0) carrier_ = set_of(scripted_->now.on, false);
    if (scripted_ && scripted_->now.in_clear) carrier_ = nullptr;
    sm1_sent_ = context_.timers.now();
    send_sm1(nullptr, "SM1");
}

// Our SPIs and ports for the SAs to come. port_us stays while the phone is registered, port_uc
// changes (A5).
void Phone::choose_numbers() {
    const auto taken = [&](Spi spi) {
        for (const auto* s : {current_.get(), old_.get(), pending_.get()}) {
            if (s != nullptr && (s->numbers.spi_uc == spi || s->numbers.spi_us == spi)) return true;
        }
        return false;
    };
    const auto spi = [&] {
        Spi v = 0;
        do v = context_.random.u32();
        while (v <= 255 || v == proposed_.spi_uc || taken(v));
        return v;
    };
    const auto port = [&] { return static_cast<Port>(10000 + context_.random.below(50000)); };
    const Port last_uc = proposed_.port_uc;
    if (current_) {
        proposed_.port_us = current_->numbers.port_us;
    } else {
        proposed_.port_us = port();
    }
    do proposed_.port_uc = port();
    while (proposed_.port_uc == last_uc || proposed_.port_uc == proposed_.port_us ||
           (current_ && proposed_.port_uc == current_->numbers.port_uc));
    if (misbehaves(Misbehaviour::same_port_uc) && current_ && !attacked_)
        proposed_.port_uc = current_->numbers.port_uc;
    proposed_.spi_uc = spi();
    proposed_.spi_us = spi();
}

std::uint16_t Phone::mss() const {
    // IP and TCP headers, and the worst of ESP: header 8, IV 16, padding 15 + 2, ICV 16.
    const std::size_t overhead = (plan_.address.is_v6() ? 40U : 20U) + 20U + 57U;
    return static_cast<std::uint16_t>(
        std::max<std::size_t>(536, context_.mtu - std::min(context_.mtu, overhead)));
}

// ---- what a person sees ----

void Phone::say(std::string_view line) const {
    if (context_.observer != nullptr) context_.observer->step(*this, line);
}

void Phone::violation(std::string_view what) {
    context_.statistics.violations.add(what);
    say(fmt::format("  !!  {}", what));
}

std::string Phone::route_text(const Arrival& a, bool sent) const {
    const Endpoint& from = sent ? a.to : a.from;
    const Endpoint& to = sent ? a.from : a.to;
    if (a.set == nullptr) {
        return fmt::format("clear {} {} → {}", a.tcp ? "TCP" : "UDP", from.to_string(),
                           to.to_string());
    }
    const auto& n = a.set->numbers;
    const bool client = a.to.port == n.port_uc;
    const Spi spi = sent ? (client ? n.spi_ps : n.spi_pc) : (client ? n.spi_uc : n.spi_us);
    return fmt::format("ESP 0x{:08x} {} {} → {}", spi, a.tcp ? "TCP" : "UDP", from.to_string(),
                       to.to_string());
}

// ---- sending ----

void Phone::send_protected(SaSet& set, bool from_client_port, std::uint8_t protocol,
                           std::span<const std::uint8_t> inner) {
    auto& n = set.numbers;
    std::uint32_t& last = from_client_port ? set.secret->sent_ps : set.secret->sent_pc;
    if (last == 0xFFFFFFFFU) {  // D7: never wrapped
        violation("an SA of the phone ran out of sequence numbers");
        return;
    }
    EspCrypto::Packet p;
    p.spi = from_client_port ? n.spi_ps : n.spi_pc;
    p.sequence = ++last;
    p.next_header = protocol;
    p.payload = inner;
    Bytes esp;
    context_.crypto.seal(set.suite, set.secret->keys, p, context_.random, esp);
    if (spoil_) {
        // The sequence number is not used up: it never was authentic.
        esp.back() ^= 0x01;
        --last;
    }
    ++context_.statistics.esp_sent;
    context_.network.send_esp(set.local, pcscf().address, esp);
    if (misbehaves(Misbehaviour::replay) && phase_ == Phase::registered) {
        recorded_ = std::make_unique<Bytes>(std::move(esp));
    }
}

void Phone::send_udp_protected(SaSet& set, bool from_client_port, std::string_view payload) {
    if (set.host) return set.host->send(from_client_port, payload);
    const auto& n = set.numbers;
    Bytes inner;
    build_udp({set.local, from_client_port ? n.port_uc : n.port_us},
              {pcscf().address, from_client_port ? n.port_ps : n.port_pc}, as_bytes(payload),
              inner);
    send_protected(set, from_client_port, protocol_udp, inner);
}

TcpLink& Phone::client_link(SaSet& set) {
    if (set.client && set.client->open()) return *set.client;
    if (set.client) {
        set.client->forget();
        context_.retired_links.push_back(std::move(set.client));
    }
    if (set.host) {
        set.client = std::make_unique<HostTcpLink>(*this, set, *set.host);
        return *set.client;
    }
    TcpConnection::Options o;
    o.local_port = set.numbers.port_uc;
    o.remote_port = set.numbers.port_ps;
    o.mss = mss();
    o.initial_sequence = context_.random.u32();
    auto link = std::make_unique<OwnTcpLink>(*this, set, context_.timers, o, false);
    link->connection.connect();
    set.client = std::move(link);
    return *set.client;
}

void Phone::send_transaction(RequestFrame frame,
                             const std::function<std::string(const RequestFrame&)>& build,
                             SaSet* set, bool tcp, const char* step) {
    end_transaction();
    auto t = std::make_unique<Transaction>();
    t->branch = "z9hG4bK" + context_.random.token(branch_octets);
    t->method = frame.method;
    t->cseq = ++cseq_;
    t->set = set;
    t->tcp = tcp;
    t->step = step;
    const std::string id = call_id();
    const std::string tag = fmt::format("{:08x}", static_cast<std::uint32_t>(call_token_ >> 32U));
    const bool protected_port = set != nullptr || (tcp && plan_.style == Style::qualcomm);
    frame.style = plan_.style;
    frame.tcp = tcp;
    frame.branch = t->branch;
    frame.call_id = id;
    frame.from_tag = tag;
    frame.cseq = t->cseq;
    frame.via = {plan_.address, protected_port ? proposed_.port_us : context_.clear_port};
    if (set != nullptr) frame.via = {set->local, set->numbers.port_us};
    if (misbehaves(Misbehaviour::wrong_via) && phase_ == Phase::sm7) {
        // An address of the same network that is somebody else's.
        const auto other = Endpoint::parse(
            plan_.address.is_v6() ? "[fd00:20::fffe]" : "10.20.255.254", frame.via.port);
        if (other) frame.via = *other;
    }
    t->bytes = build(frame);
    t->sent = context_.timers.now();
    t->interval = context_.times.t1;
    transaction_ = std::move(t);

    if (context_.observer != nullptr) {
        Arrival a;
        a.set = set;
        a.tcp = tcp;
        a.from = set != nullptr ? Endpoint{pcscf().address, set->numbers.port_ps} : pcscf();
        a.to = {set != nullptr ? set->local : plan_.address, set != nullptr ? set->numbers.port_uc
                                                             : tcp          ? std::uint16_t{0}
                                                                            : context_.clear_port};
        const std::string where = route_text(a, true);
        say(fmt::format("{:<4} → {:<24} {}", step, transaction_->method, where));
        context_.observer->message(*this, true, where, transaction_->bytes);
    }
    transmit(*transaction_);
    if (!tcp) context_.timers.start(retransmit_, transaction_->interval);
    context_.timers.start(deadline_, context_.times.transaction);
}

void Phone::transmit(const Transaction& t) {
    if (t.set != nullptr) {
        if (t.tcp) {
            client_link(*t.set).send(t.bytes);
        } else {
            send_udp_protected(*t.set, true, t.bytes);
        }
    } else if (t.tcp) {
        if (!stream_) {
            if (stream_framer_) {
                stream_framer_->clear();
            } else {
                stream_framer_ =
                    std::make_unique<sip::StreamFramer>(sip::StreamFramer::Side::client);
            }
            stream_ = context_.network.connect_tcp(plan_.address, pcscf(), *this);
        }
        stream_->send(t.bytes);
    } else {
        context_.network.send_udp({plan_.address, context_.clear_port}, pcscf(), t.bytes);
    }
}

void Phone::end_transaction() {
    retransmit_.stop();
    deadline_.stop();
    transaction_.reset();
}

void Phone::close_clear_stream() {
    if (stream_) context_.retired_streams.push_back(std::move(stream_));
    stream_.reset();
}

void Phone::discard(std::unique_ptr<SaSet>& set) {
    if (!set) return;
    if (transaction_ && transaction_->set == set.get()) end_transaction();
    if (carrier_ == set.get()) carrier_ = nullptr;
    if (set->client) set->client->forget();
    if (set->server) set->server->forget();
    if (scripted_) {
        auto& s = *scripted_;
        if (s.held && s.held->set == set.get()) s.held.reset();
        if (s.parked && s.parked->set == set.get()) s.parked.reset();
        constexpr std::size_t remembered = 32;
        if (s.gone.size() >= remembered) s.gone.erase(s.gone.begin());
        s.gone.push_back(std::move(set));
        set.reset();
        return;
    }
    context_.retired_sets.push_back(std::move(set));
    set.reset();
}

// ---- registration ----

void Phone::send_sm1(const Credentials* credentials, const char* step) {
    // A REGISTER that refuses a challenge is a new proposal as well: the SAs of the refused one are
    // gone (C3, C4).
    discard(pending_);
    choose_numbers();
    const Identity id = identity();
    const std::string registrar = "sip:" + context_.realm;
    const std::string impu = id.impu();
    std::string client;
    if (misbehaves(Misbehaviour::bad_proposal)) {
        client = fmt::format(
            "Security-Client: ipsec-3gpp; alg=hmac-tiger-96; ealg=null; spi-c={}; spi-s={}; "
            "port-c={}; port-s={}\r\n",
            proposed_.spi_uc, proposed_.spi_us, proposed_.port_uc, proposed_.port_us);
    } else if (misbehaves(Misbehaviour::malformed_client)) {
        client = "Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; spi-c=4294967296; spi-s=none\r\n";
    } else if (!misbehaves(Misbehaviour::no_security_client)) {
        client = security_client(plan_.style, *plan_.suites, proposed_.spi_uc, proposed_.spi_us,
                                 proposed_.port_uc, proposed_.port_us);
    }
    RegisterContent c;
    c.expires = purpose_ == Purpose::deregister ? 0 : expires();
    c.claims_integrity = misbehaves(Misbehaviour::claim_integrity);
    c.contact = {plan_.address, carrier_ != nullptr || plan_.style == Style::qualcomm
                                    ? proposed_.port_us
                                    : context_.clear_port};
    c.credentials = credentials;
    c.security_client = client;
    const std::string verify =
        carrier_ != nullptr ? expand_verify(plan_.style, *verify_, carrier_->numbers) : "";
    c.security_verify = verify;
    RequestFrame f;
    f.method = "REGISTER";
    f.uri = registrar;
    f.from_uri = impu;
    f.to_uri = impu;
    send_transaction(
        f, [&](const RequestFrame& full) { return build_register(id, full, c); }, carrier_,
        plan_.tcp, step);
}

// Rules the challenge must keep whatever else happens.
void Phone::check_challenge(const sip::Message& m) {
    if (const auto value = m.value(sip::HeaderId::www_authenticate)) {
        const auto c = sip::parse_digest_challenge(*value);
        if (c && (c->ck || c->ik)) violation("B2: CK or IK reached the phone");
    }
}

void Phone::on_challenge(const sip::Message& m) {
    auto& stats = context_.statistics;
    ++stats.challenges;
    if (challenges_ == 0 && purpose_ != Purpose::deregister)
        stats.sm1_sm6.add(context_.timers.now() - sm1_sent_);
    end_transaction();
    if (++challenges_ > max_challenges) return fail("challenged over and over");
    check_challenge(m);

    const auto value = m.value(sip::HeaderId::www_authenticate);
    const auto challenge = value ? sip::parse_digest_challenge(*value) : std::nullopt;
    if (!challenge || !challenge->nonce) return fail("SM6 without a Digest challenge");
    if (!challenge->algorithm || !iequals(*challenge->algorithm, "AKAv1-MD5")) {
        return fail("SM6 asks for another algorithm than AKAv1-MD5");
    }
    const auto aka = parse_aka_nonce(*challenge->nonce);
    if (!aka) return fail("SM6: " + aka.error().text);

    std::vector<std::string_view> texts;
    for (const auto& v : m.values(sip::HeaderId::security_server)) texts.push_back(v.text);
    auto offered = parse_security_server(texts);
    if (!offered) return fail(offered.error().text);
    const Mechanism* chosen = choose(*offered, *plan_.suites);
    if (misbehaves(Misbehaviour::refuse_proposal)) {
        say("      the phone does not accept the proposal and gives the registration up");
        if (end_step("abandoned", "the proposal is not acceptable to the phone")) return;
        return watch();
    }
    if (chosen == nullptr) return fail("SM6 offers no security mechanism the phone supports (C7)");

    Credentials credentials;
    credentials.nonce = *challenge->nonce;
    if (challenge->opaque) credentials.opaque = *challenge->opaque;

    Usim card(context_.card(identity().imsi), sqn_);
    if (misbehaves(Misbehaviour::mac_failure)) {
        say("      the phone refuses the network: its MAC is wrong, says the phone");
        keep_refused(*chosen, *aka);
        send_sm1(&credentials, "REG");
        return;
    }
    const bool refuse = misbehaves(Misbehaviour::sync_failure) && challenges_ == 1;
    AkaOutcome outcome = refuse ? card.refuse_as_stale(aka->rand, aka->autn, resync_ahead)
                                : card.authenticate(aka->rand, aka->autn);
    sqn_ = card.highest();
    if (std::holds_alternative<AkaMacFailure>(outcome)) {
        say("      the network's MAC is wrong: this network does not know our key");
        context_.statistics.violations.add("AUTN with a wrong MAC");
        send_sm1(&credentials, "REG");
        return;
    }
    if (const auto* stale = std::get_if<AkaSyncFailure>(&outcome)) {
        say("      the network's sequence number is not fresh: AUTS");
        keep_refused(*chosen, *aka);
        credentials.auts = to_base64(stale->auts);
        if (plan_.style == Style::google || plan_.style == Style::qualcomm) {
            // RFC 3310 3.4: the digest over an empty password; other phones leave the response
            // empty.
            const Identity id = identity();
            const std::string impi = id.impi();
            const std::string uri = "sip:" + context_.realm;
            DigestInput d;
            d.user = impi;
            d.realm = context_.realm;
            d.nonce = credentials.nonce;
            d.method = "REGISTER";
            d.uri = uri;
            credentials.response = aka_digest(d, {});
        }
        send_sm1(&credentials, "REG");
        return;
    }

    // A4, A5: what the P-CSCF chose.
    const auto& p = proposed_;
    for (const Spi spi : {chosen->spi_c, chosen->spi_s}) {
        if (spi == p.spi_uc || spi == p.spi_us)
            violation("A4: an SPI of the P-CSCF equals one of ours");
    }
    if (chosen->spi_c == chosen->spi_s) violation("A4: both SPIs of the P-CSCF are the same");
    for (const Port port : {chosen->port_c, chosen->port_s}) {
        if (port == 5060 || port == 5061) violation("A5: a protected port is 5060 or 5061");
    }
    if (current_ && chosen->port_s != current_->numbers.port_ps) violation("A5: port_ps changed");
    if (current_ && carrier_ != nullptr && chosen->port_c == current_->numbers.port_pc) {
        violation("A5: port_pc did not change");
    }

    std::span<const Mechanism> verified(*offered);
    if (misbehaves(Misbehaviour::altered_verify) && offered->size() > 1)
        verified = verified.subspan(1);  // bid down
    pending_verify_ = context_.texts.intern(verify_template(plan_.style, verified, *chosen));
    if (auto r = install(*chosen, std::get<AkaSuccess>(outcome)); !r) return fail(r.error().text);
    if (misbehaves(Misbehaviour::silent_after_sm6)) {
        say("      the phone falls silent");
        if (end_step("abandoned", "the phone falls silent")) return;
        return watch();
    }
    // Which protections of the answer the phone prefers is a matter of its make.
    const std::string_view qops = challenge->qop.value_or("");
    const bool has_int = qops.find("auth-int") != std::string_view::npos;
    bool has_auth = false;
    sip::ValueSplitter split(qops);
    while (const auto q = split.next()) has_auth = has_auth || trim(*q) == "auth";
    if (has_int && (plan_.style == Style::samsung || !has_auth)) {
        credentials.qop = "auth-int";
    } else if (has_auth) {
        credentials.qop = "auth";
    }
    auto taken = std::make_unique<Taken>(
        Taken{std::move(std::get<AkaSuccess>(outcome)), std::move(credentials)});
    if (misbehaves(Misbehaviour::stale_answer)) {
        if (!earlier_) {
            say("      the phone registers once more before it answers");
            earlier_ = std::move(taken);
            return send_sm1(nullptr, "SM1");
        }
        say("      the phone answers the earlier challenge");
        taken = std::move(earlier_);
    }
    if (scripted_ && scripted_->now.hold) {
        scripted_->taken = std::move(taken);
        phase_ = Phase::held;
        end_step("challenged", "");
        return;
    }
    send_sm7(taken->aka, std::move(taken->credentials));
}

void Phone::watch() {
    close_clear_stream();
    phase_ = Phase::watching;
    answers_seen_ = 0;
    context_.timers.start(deadline_, context_.times.silence);
}

Result<void> Phone::install(const Mechanism& mechanism, const AkaSuccess& aka) {
    discard(pending_);
    auto set = std::make_unique<SaSet>();
    set->serial = ++sets_made_;
    set->local = plan_.address;
    if (misbehaves(Misbehaviour::near_sequence_end))
        set->secret->sent_ps = set->secret->sent_pc = near_sequence_end;
    set->suite = *mechanism.suite;
    set->numbers = proposed_;
    set->numbers.spi_pc = mechanism.spi_c;
    set->numbers.spi_ps = mechanism.spi_s;
    set->numbers.port_pc = mechanism.port_c;
    set->numbers.port_ps = mechanism.port_s;
    Secret<16> ck = aka.ck.copy();
    Secret<16> ik = aka.ik.copy();
    if (misbehaves(Misbehaviour::wrong_ik)) {
        // CK as well: with AES-GCM it is CK that authenticates.
        for (auto& b : ik.writable()) b ^= 0x5A;
        for (auto& b : ck.writable()) b ^= 0x5A;
    }
    set->secret->keys = sa::expand_keys(set->suite, ck, ik);
    if (context_.host_esp != nullptr) {
        set->host_link = std::make_unique<HostLink>(*this, *set);
        auto host = context_.host_esp->install(plan_.address, pcscf().address, set->numbers,
                                               set->suite, set->secret->keys, *set->host_link);
        if (!host) return std::unexpected(host.error());
        set->host = std::move(*host);
    }
    if (context_.key_log != nullptr) context_.key_log->write(plan_.address, pcscf().address, *set);
    if (context_.observer != nullptr) {
        const auto& n = set->numbers;
        say(fmt::format("      four SAs, {}{}", sa::to_string(set->suite),
                        misbehaves(Misbehaviour::wrong_ik) ? ", with the wrong keys" : ""));
        const auto sa_line = [&](const char* label, Port ue, const char* arrow, const char* p_label,
                                 Port p, const char* spi_label, Spi spi) {
            say(fmt::format("        {} {:<5} {} {} {:<5}  {} 0x{:08x}", label, ue, arrow, p_label,
                            p, spi_label, spi));
        };
        sa_line("port_uc", n.port_uc, "→", "port_ps", n.port_ps, "spi_ps", n.spi_ps);
        sa_line("port_us", n.port_us, "→", "port_pc", n.port_pc, "spi_pc", n.spi_pc);
        sa_line("port_uc", n.port_uc, "←", "port_ps", n.port_ps, "spi_uc", n.spi_uc);
        sa_line("port_us", n.port_us, "←", "port_pc", n.port_pc, "spi_us", n.spi_us);
    }
    pending_ = std::move(set);
    return {};
}

// A phone under a script keeps what it could have made of a challenge it refuses: so that packets
// can show that the other side has nothing of it left.
void Phone::keep_refused(const Mechanism& chosen, const AkaChallenge& aka) {
    if (!scripted_) return;
    Usim card(context_.card(identity().imsi));
    const auto outcome = card.authenticate(aka.rand, aka.autn);
    // Only for probes: without it there are none.
    if (const auto* success = std::get_if<AkaSuccess>(&outcome)) (void)install(chosen, *success);
}

std::string Phone::verify_lines(bool altered) const {
    SaNumbers n = pending_->numbers;
    if (altered) n.spi_ps ^= 1U;
    return expand_verify(plan_.style, *pending_verify_, n);
}

void Phone::send_sm7(const AkaSuccess& aka, Credentials credentials) {
    const Identity id = identity();
    const std::string impi = id.impi();
    const std::string impu = id.impu();
    const std::string uri = "sip:" + context_.realm;
    Secret<8> res = aka.res.copy();
    if (misbehaves(Misbehaviour::wrong_res)) {
        for (auto& b : res.writable()) b ^= 0xFF;
    }
    if (!credentials.qop.empty()) credentials.cnonce = context_.random.token(16);
    DigestInput d;
    d.user = impi;
    d.realm = context_.realm;
    d.nonce = credentials.nonce;
    d.method = "REGISTER";
    d.uri = uri;
    d.qop = credentials.qop;
    d.nc = "00000001";
    d.cnonce = credentials.cnonce;
    credentials.response = aka_digest(d, res.reveal());

    const SaNumbers& p = proposed_;
    const std::string client =
        security_client(plan_.style, *plan_.suites,
                        misbehaves(Misbehaviour::altered_client) ? p.spi_uc ^ 1U : p.spi_uc,
                        p.spi_us, p.port_uc, p.port_us);
    const std::string verify = verify_lines(misbehaves(Misbehaviour::altered_verify));
    RegisterContent c;
    c.expires = purpose_ == Purpose::deregister ? 0 : expires();
    c.contact = {plan_.address, p.port_us};
    c.credentials = &credentials;
    c.security_client = client;
    c.security_verify = verify;
    RequestFrame f;
    f.method = "REGISTER";
    f.uri = uri;
    f.from_uri = impu;
    f.to_uri = impu;
    phase_ = Phase::sm7;
    close_clear_stream();
    send_transaction(
        f, [&](const RequestFrame& full) { return build_register(id, full, c); }, pending_.get(),
        plan_.tcp, "SM7");
    if (expects_silence(plan_.misbehaviour))
        context_.timers.start(deadline_, context_.times.silence);
}

void Phone::on_register_answer(const sip::Message& m, const Arrival& arrival) {
    const int code = m.status_code();
    if (phase_ == Phase::sm1 && code == 401) {
        on_challenge(m);
    } else if (code >= 200 && code < 300) {
        on_success(m);
    } else {
        on_refused(m, arrival);
    }
}

void Phone::on_success(const sip::Message& m) {
    auto& stats = context_.statistics;
    const bool challenged = phase_ == Phase::sm7;
    if (!challenged && carrier_ == nullptr) {
        // SM12 without AKA, in clear: a network that lets anybody in.
        violation("a REGISTER in clear was accepted without a challenge");
        return fail("accepted without authentication");
    }
    if (m.has(sip::HeaderId::security_server)) violation("B5: SM12 carries Security-Server");
    const TimePoint now = context_.timers.now();
    if (!challenged) {
        ++stats.unchallenged;
    } else if (purpose_ != Purpose::deregister) {
        stats.sm7_sm12.add(now - transaction_->sent);
        stats.whole.add(now - sm1_sent_);
    }
    end_transaction();

    if (purpose_ == Purpose::deregister) {
        ++stats.deregistered;
        registered_ = false;
        say("      deregistered");
        if (script_ != nullptr) {
            phase_ = Phase::idle;
            const std::string text = status_text(m);
            discard(pending_);
            discard(old_);
            discard(current_);
            end_step("deregistered", text);
            return;
        }
        finish();
        return;
    }
    granted_ = expires();
    if (const auto e = sip::expires(m)) granted_ = *e;
    const std::string host = plan_.address.to_uri_host();
    for (const auto& v : m.values(sip::HeaderId::contact)) {
        const auto c = sip::parse_contact(v.text);
        if (c && c->expires && iequals(c->address.uri.host, host)) granted_ = *c->expires;
    }
    std::string route;
    for (const auto& v : m.values(sip::HeaderId::service_route)) {
        if (!route.empty()) route += ", ";
        for (const char ch : v.text) route += static_cast<unsigned char>(ch) < ' ' ? ' ' : ch;
    }
    service_route_ = context_.texts.intern(route);

    if (challenged) {
        discard(old_);
        if (current_ && current_->client && current_->client->open()) {
            current_->client->close();
        }
        old_ = std::move(current_);
        current_ = std::move(pending_);
        verify_ = std::move(pending_verify_);
        if (carrier_ == nullptr) discard(old_);  // D1, D5
    }
    if (context_.observer != nullptr) {
        say(fmt::format("      registered for {} s; Service-Route: {}", granted_,
                        route.empty() ? "none" : route));
        for (const auto& v : m.values(sip::HeaderId::p_associated_uri))
            say(fmt::format("      P-Associated-URI: {}", v.text));
    }
    become_registered();
}

void Phone::become_registered() {
    auto& stats = context_.statistics;
    phase_ = Phase::registered;
    const bool first = !registered_;
    registered_ = true;
    if (first) {
        ++stats.registered;
        ++(plan_.tcp ? stats.tcp : stats.udp);
        ++(plan_.address.is_v6() ? stats.ipv6 : stats.ipv4);
        ++stats.suites[sa::suite_index(current_->suite)];
        messages_left_ = plan_.chatty ? static_cast<std::uint8_t>(std::min(context_.messages, 255U))
                                      : std::uint8_t{0};
        talking_ = messages_left_ > 0;
    } else if (purpose_ == Purpose::reregister) {
        ++stats.reregistrations;
    }
    if (end_step("registered", fmt::format("for {} s", granted_))) return;
    switch (first ? plan_.misbehaviour : Misbehaviour::none) {
        case Misbehaviour::none:
            break;
        case Misbehaviour::sync_failure:
            conclude(challenges_ == 2, fmt::format("registered after {} challenges", challenges_));
            break;
        case Misbehaviour::replay:
        case Misbehaviour::forged_esp:
        case Misbehaviour::unknown_spi:
        case Misbehaviour::clear_on_protected:
            attack();
            return;
        case Misbehaviour::claim_integrity:
        case Misbehaviour::near_sequence_end:
            conclude(challenges_ == 1, fmt::format("registered after {} challenges", challenges_));
            break;
        case Misbehaviour::same_port_uc:
            begin(Purpose::reregister);
            return;
        default:
            conclude(false, "registered");
            break;
    }
    if (context_.on_event) {
        context_.on_event(*this, first ? PhoneEvent::registered : PhoneEvent::reregistered);
    }
    next_errand();
}

void Phone::on_refused(const sip::Message& m, const Arrival& arrival) {
    const bool at_sm7 = phase_ == Phase::sm7;
    const int code = m.status_code();
    const std::string seen = fmt::format("{} to {}", status_text(m),
                                         at_sm7            ? "SM7"
                                         : challenges_ > 0 ? "the refused challenge"
                                                           : "SM1");
    const bool client_error = code >= 400 && code < 500;
    if (end_step("refused", seen)) return;
    end_transaction();
    switch (plan_.misbehaviour) {
        case Misbehaviour::wrong_res:
            return conclude(at_sm7 && code == 403, seen);
        case Misbehaviour::mac_failure:
            return conclude(!at_sm7 && challenges_ > 0 && code == 403 && arrival.set == carrier_,
                            seen);
        case Misbehaviour::altered_verify:
        case Misbehaviour::altered_client:
            return conclude(at_sm7 && client_error, seen);
        case Misbehaviour::wrong_via:
            return conclude(at_sm7 && code == 403, seen);
        case Misbehaviour::stale_answer:
            return conclude(at_sm7 && code >= 400, seen);
        case Misbehaviour::same_port_uc:
            return conclude(registered_ && client_error && arrival.set == carrier_, seen);
        case Misbehaviour::no_security_client:
        case Misbehaviour::bad_proposal:
        case Misbehaviour::malformed_client:
            return conclude(!at_sm7 && challenges_ == 0 && client_error, seen);
        default:
            break;
    }
    fail(seen);
}

void Phone::fail(std::string why) {
    say(fmt::format("      failed: {}", why));
    if (end_step("failed", why)) return;
    end_transaction();
    discard(pending_);
    if (is_attack(plan_.misbehaviour) && outcome_.empty()) return conclude(false, std::move(why));
    if (plan_.misbehaviour != Misbehaviour::none && !registered_)
        return conclude(false, std::move(why));
    if (registered_ && purpose_ == Purpose::reregister) {
        // C9 from the phone's side: what failed was the attempt; the SAs of the last success stand.
        ++context_.statistics.reregistrations_failed;
        context_.statistics.failures.add("re-registration: " + why);
        phase_ = Phase::registered;
        if (context_.on_event) context_.on_event(*this, PhoneEvent::reregistered);
        next_errand();
        return;
    }
    if (purpose_ == Purpose::deregister) {
        context_.statistics.failures.add("deregistration: " + why);
        outcome_ = std::move(why);
        finish();
        return;
    }
    ++context_.statistics.failed;
    context_.statistics.failures.add(why);
    outcome_ = std::move(why);
    stop();
    if (context_.on_event) context_.on_event(*this, PhoneEvent::failed);
}

void Phone::conclude(bool as_expected, std::string seen) {
    auto& r = context_.statistics.misbehaved[static_cast<std::size_t>(plan_.misbehaviour)];
    ++r.phones;
    if (as_expected) ++r.as_expected;
    r.seen.add(seen);
    say(fmt::format("      {}: {} — {}", info(plan_.misbehaviour).name, seen,
                    as_expected ? "as a right gateway does" : "NOT what a right gateway does"));
    outcome_ = std::move(seen);
    attacked_ = true;
    if (registered_) {
        discard(pending_);
        phase_ = Phase::registered;
        if (is_attack(plan_.misbehaviour)) {
            messages_left_ = 0;
            talking_ = false;
            if (context_.on_event) context_.on_event(*this, PhoneEvent::registered);
        }
        return;
    }
    finish();
}

void Phone::finish() {
    if (phase_ == Phase::over) return;
    stop();
    if (context_.on_event) context_.on_event(*this, PhoneEvent::finished);
}

// ---- requests of a registered phone ----

void Phone::send_request(std::string_view method) {
    if (!current_ || transaction_) return;
    send_request_on(*current_, method, {});
}

void Phone::send_request_on(SaSet& set, std::string_view method, std::string_view to) {
    const Identity id = identity();
    const std::string impu = id.impu();
    const std::string uri = !to.empty()           ? std::string(to)
                            : method == "MESSAGE" ? impu
                                                  : "sip:" + context_.realm;
    const std::string verify = expand_verify(plan_.style, *verify_, set.numbers);
    RequestContent c;
    c.route = *service_route_;
    c.security_verify = verify;
    if (method == "MESSAGE") {
        c.content_type = "text/plain";
        c.body = "gmue says hello";
    }
    RequestFrame f;
    f.method = method;
    f.uri = uri;
    f.from_uri = impu;
    f.to_uri = uri;
    ++context_.statistics.messages_sent;
    // Attacks are told apart by datagrams; TCP would answer for the packet layer.
    const bool tcp = plan_.tcp && !is_attack(plan_.misbehaviour);
    send_transaction(
        f, [&](const RequestFrame& full) { return build_request(id, full, c); }, &set, tcp, "REQ");
}

void Phone::on_request_answer(const sip::Message& m) {
    const bool good = m.status_code() < 300;
    auto& stats = context_.statistics;
    if (good) {
        ++stats.messages_answered;
        stats.message.add(context_.timers.now() - transaction_->sent);
    } else {
        stats.failures.add(fmt::format("{} to {}", status_text(m), transaction_->method));
    }
    if (end_step("answered", status_text(m))) return;
    end_transaction();
    if (is_attack(plan_.misbehaviour) && outcome_.empty()) {
        if (!good) return conclude(false, fmt::format("{} to OPTIONS", status_text(m)));
        if (!attacked_) return send_attack_packets();
        const std::string seen = answers_seen_ == 0 ? "no answer; good packets pass"
                                                    : fmt::format("{} answers", answers_seen_);
        return conclude(answers_seen_ == 0, seen);
    }
    next_errand();
}

// What a registered phone does next of its own accord: the next message, or wait for its
// re-registration.
void Phone::next_errand() {
    if (phase_ != Phase::registered || transaction_) return;
    if (messages_left_ > 0) {
        context_.timers.start(periodic_, context_.message_interval);
        return;
    }
    if (talking_) {
        talking_ = false;
        if (context_.on_event) context_.on_event(*this, PhoneEvent::talked);
        if (phase_ != Phase::registered || transaction_) return;
    }
    if (context_.reregister > Duration{0}) context_.timers.start(periodic_, context_.reregister);
}

// ---- misbehaviour of a registered phone: a good packet, the bad ones, silence, a good packet
// again ----

void Phone::attack() {
    send_request("OPTIONS");
}

void Phone::send_attack_packets() {
    constexpr unsigned copies = 5;
    attacked_ = true;
    answers_seen_ = 0;
    SaSet& set = *current_;
    const auto& n = set.numbers;
    const Identity id = identity();
    const std::string body = fmt::format(
        "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP "
        "{1}:{2};branch=z9hG4bKattack{3:x};rport\r\nMax-Forwards: 70\r\n"
        "From: <{4}>;tag=attack\r\nTo: <sip:{0}>\r\nCall-ID: attack{3:x}\r\nCSeq: 1 "
        "OPTIONS\r\nContent-Length: 0\r\n\r\n",
        context_.realm, plan_.address.to_uri_host(), n.port_us, call_token_, id.impu());
    say(fmt::format("      {}: {} packets", info(plan_.misbehaviour).name, copies));
    for (unsigned i = 0; i < copies; ++i) {
        switch (plan_.misbehaviour) {
            case Misbehaviour::replay:
                if (recorded_)
                    context_.network.send_esp(plan_.address, pcscf().address, *recorded_);
                break;
            case Misbehaviour::forged_esp:
            case Misbehaviour::unknown_spi: {
                Bytes inner;
                build_udp({plan_.address, n.port_uc}, {pcscf().address, n.port_ps}, as_bytes(body),
                          inner);
                EspCrypto::Packet p;
                p.spi = misbehaves(Misbehaviour::forged_esp) ? n.spi_ps
                                                             : context_.random.u32() | 0x100U;
                // Far ahead: a gateway that moves its window before the ICV is right drops all good
                // packets after this.
                p.sequence = set.secret->sent_ps + 1000 + i;
                p.payload = inner;
                Bytes esp;
                context_.crypto.seal(set.suite, set.secret->keys, p, context_.random, esp);
                if (misbehaves(Misbehaviour::forged_esp)) esp.back() ^= 0x01;
                context_.network.send_esp(plan_.address, pcscf().address, esp);
                break;
            }
            case Misbehaviour::clear_on_protected:
                context_.network.send_udp({plan_.address, context_.clear_port},
                                          {pcscf().address, i % 2 == 0 ? n.port_ps : n.port_pc},
                                          body);
                break;
            default:
                break;
        }
    }
    recorded_.reset();
    phase_ = Phase::watching;
    context_.timers.start(deadline_,
                          std::min<Duration>(context_.times.silence, std::chrono::seconds(1)));
}

void Phone::after_attack() {
    phase_ = Phase::registered;
    send_request("OPTIONS");
}

// ---- receiving ----

void Phone::receive_udp(const Endpoint& from, std::string_view payload) {
    if (deaf_) return;
    Arrival a;
    a.from = from;
    a.to = {plan_.address, context_.clear_port};
    on_message(payload, a);
}

void Phone::receive_esp(const IpAddress& from, std::span<const std::uint8_t> packet) {
    auto& stats = context_.statistics;
    if (packet.size() < 8) {
        ++stats.esp_bad;
        return;
    }
    if (deaf_) return;
    const Spi spi = load_be32(packet.data());
    SaSet* set = nullptr;
    for (SaSet* s : {current_.get(), pending_.get(), old_.get()}) {
        if (s != nullptr && (s->numbers.spi_uc == spi || s->numbers.spi_us == spi)) set = s;
    }
    // A phone under a script still hears what comes on SAs that are gone: nothing should.
    if (set == nullptr && scripted_) {
        for (const auto& s : scripted_->gone) {
            if (s->numbers.spi_uc == spi || s->numbers.spi_us == spi) set = s.get();
        }
    }
    if (set == nullptr) {
        ++stats.esp_unknown_spi;
        return;
    }
    if (from != pcscf().address) {
        ++stats.esp_selector;
        return;
    }
    const bool at_client_port = spi == set->numbers.spi_uc;
    ReplayWindow& window = at_client_port ? set->secret->in_uc : set->secret->in_us;
    const std::uint32_t sequence = load_be32(packet.data() + 4);
    if (!window.fresh(sequence)) {
        ++stats.esp_replayed;
        return;
    }
    const auto opened = context_.crypto.open(set->suite, set->secret->keys, packet);
    if (!opened) {
        ++stats.esp_bad;
        return;
    }
    window.mark(sequence);
    ++stats.esp_received;
    const auto& n = set->numbers;
    const Port expected_from = at_client_port ? n.port_ps : n.port_pc;
    const Port expected_to = at_client_port ? n.port_uc : n.port_us;
    if (opened->next_header == protocol_udp) {
        const auto udp = read_udp(from, set->local, opened->payload);
        if (!udp) {
            ++stats.esp_bad;
            return;
        }
        if (udp->from_port != expected_from || udp->to_port != expected_to) {
            ++stats.esp_selector;
            return;
        }
        Arrival a;
        a.set = set;
        a.from = {from, udp->from_port};
        a.to = {set->local, udp->to_port};
        on_message(as_text(udp->payload), a);
    } else if (opened->next_header == protocol_tcp) {
        const auto tcp = read_tcp(from, set->local, opened->payload);
        if (!tcp) {
            ++stats.esp_bad;
            return;
        }
        if (tcp->from_port != expected_from || tcp->to_port != expected_to) {
            ++stats.esp_selector;
            return;
        }
        receive_tcp(*set, at_client_port, *tcp);
    } else {
        ++stats.esp_selector;
    }
}

void Phone::receive_tcp(SaSet& set, bool at_client_port, const TcpSegment& s) {
    std::unique_ptr<TcpLink>& slot = at_client_port ? set.client : set.server;
    // Without a HostSet every link is our own.
    auto* link = static_cast<OwnTcpLink*>(slot.get());
    const bool syn = (s.flags & tcp_flag::syn) != 0 && (s.flags & tcp_flag::ack) == 0;
    if (!at_client_port && syn) {
        const bool repeated = link != nullptr && !link->connection.done() &&
                              link->connection.peer_initial() == s.sequence;
        if (!repeated) {
            if (link != nullptr) {
                link->forget();
                context_.retired_links.push_back(std::move(slot));
            }
            TcpConnection::Options o;
            o.local_port = s.to_port;
            o.remote_port = s.from_port;
            o.mss = mss();
            o.initial_sequence = context_.random.u32();
            auto fresh = std::make_unique<OwnTcpLink>(*this, set, context_.timers, o, true);
            link = fresh.get();
            slot = std::move(fresh);
            link->connection.accept(s);
            return;
        }
    }
    if (link != nullptr && link->connection.state() != TcpConnection::State::closed) {
        link->connection.receive(s);
        return;
    }
    if ((s.flags & tcp_flag::rst) != 0) return;
    TcpSegment reset;
    reset.from_port = s.to_port;
    reset.to_port = s.from_port;
    reset.flags = tcp_flag::rst;
    if ((s.flags & tcp_flag::ack) != 0) {
        reset.sequence = s.acknowledgment;
    } else {
        reset.flags |= tcp_flag::ack;
        reset.acknowledgment =
            s.sequence + static_cast<std::uint32_t>(s.payload.size()) + (syn ? 1U : 0U);
    }
    Bytes bytes;
    build_tcp(set.local, pcscf().address, reset, bytes);
    send_protected(set, at_client_port, protocol_tcp, bytes);
}

void Phone::host_datagram(SaSet& set, bool at_client_port, const Endpoint& from,
                          std::string_view payload) {
    if (deaf_) return;
    Arrival a;
    a.set = &set;
    a.from = from;
    a.to = {set.local, at_client_port ? set.numbers.port_uc : set.numbers.port_us};
    on_message(payload, a);
}

void Phone::host_accepted(SaSet& set, std::unique_ptr<HostStream> stream) {
    if (set.server) context_.retired_links.push_back(std::move(set.server));
    set.server = std::make_unique<HostTcpLink>(*this, set, std::move(stream));
}

void Phone::link_data(TcpLink& link, SaSet& set, std::string_view data) {
    link.framer.feed(data);
    Arrival a;
    a.set = &set;
    a.link = &link;
    a.tcp = true;
    a.from = {pcscf().address, link.remote_port()};
    a.to = {set.local, link.local_port()};
    drain(link.framer, a);
}

void Phone::drain(sip::StreamFramer& framer, const Arrival& arrival) {
    for (;;) {
        const sip::Frame f = framer.next();
        if (f.kind == sip::FrameKind::none) return;
        if (f.kind == sip::FrameKind::message) {
            on_message(f.bytes, arrival);
        } else if (f.kind == sip::FrameKind::ping) {
            if (arrival.link != nullptr) arrival.link->send("\r\n");
        } else if (f.kind == sip::FrameKind::error) {
            violation("a TCP stream that is not SIP");
            if (arrival.link != nullptr) arrival.link->abort();
            return;
        }
    }
}

void Phone::link_closed(TcpLink& link, SaSet& set, bool reset) {
    if (!reset) {
        link.close();
        return;
    }
    const bool ours =
        transaction_ && transaction_->tcp && transaction_->set == &set && set.client.get() == &link;
    if (!ours || !misbehaves(Misbehaviour::none))
        return;  // a misbehaving phone waits for its silence
    fail(fmt::format("the TCP connection for {} was reset or not accepted", transaction_->step));
}

void Phone::stream_data(std::string_view data) {
    stream_framer_->feed(data);
    Arrival a;
    a.tcp = true;
    a.from = pcscf();
    a.to = {plan_.address, stream_ ? stream_->local_port() : std::uint16_t{0}};
    drain(*stream_framer_, a);
}

void Phone::stream_closed(std::string_view why) {
    close_clear_stream();
    if (transaction_ && transaction_->tcp && transaction_->set == nullptr) {
        fail(fmt::format("the TCP connection for {} failed: {}", transaction_->step, why));
    }
}

void Phone::on_message(std::string_view bytes, const Arrival& arrival) {
    if (phase_ == Phase::over) return;
    sip::Message m;
    const auto status = m.parse(bytes, arrival.tcp ? sip::Framing::stream : sip::Framing::datagram);
    if (status == sip::ParseStatus::empty) return;
    if (status != sip::ParseStatus::ok) {
        violation(fmt::format("a message that is not SIP: {}", sip::text(status)));
        return;
    }
    if (m.is_request()) {
        on_request(m, arrival);
    } else {
        on_response(m, arrival);
    }
}

void Phone::on_response(const sip::Message& m, const Arrival& arrival) {
    const auto via = sip::top_via(m);
    const auto cseq = sip::cseq(m);
    if (scripted_ && scripted_->parked && via && via->branch == scripted_->parked->branch) {
        if (m.status_code() < 200) return;
        say(fmt::format("     ← {:<24} {}", status_text(m), route_text(arrival, false)));
        scripted_->parked.reset();
        script_->parked_answer(m.status_code(), arrival.set == nullptr ? 0 : arrival.set->serial);
        return;
    }
    if (!transaction_ || !via || !cseq || via->branch != transaction_->branch ||
        cseq->number != transaction_->cseq || cseq->method != transaction_->method) {
        ++context_.statistics.stray;
        if (phase_ == Phase::watching) ++answers_seen_;
        return;
    }
    if (m.status_code() < 200) {
        transaction_->interval = context_.times.t2;
        return;
    }
    if (context_.observer != nullptr) {
        const std::string where = route_text(arrival, false);
        const char* step = transaction_->step;
        const std::string_view label = step == std::string_view("SM7") ? "SM12"
                                       : step == std::string_view("SM1")
                                           ? (m.status_code() == 401 ? "SM6" : "SM12")
                                           : "";
        say(fmt::format("{:<4} ← {:<24} {}", label, status_text(m), where));
        context_.observer->message(*this, false, where, m.bytes());
    }
    // The answer travels as its request did; a refusal of a protected re-registration on the old
    // SAs (D6).
    SaSet* expected = transaction_->set;
    if (phase_ == Phase::sm7 && m.status_code() >= 300 && carrier_ != nullptr) expected = carrier_;
    if (arrival.set != expected) {
        if (arrival.set == nullptr) {
            violation(fmt::format("{} to {} came in clear", m.status_code(), transaction_->step));
            return;  // whoever sent it did not have to know a key
        }
        violation(fmt::format("{} to {} came on another set of SAs", m.status_code(),
                              transaction_->step));
    }
    if (scripted_) {
        scripted_->result.status = m.status_code();
        scripted_->result.set = arrival.set == nullptr ? 0 : arrival.set->serial;
        scripted_->result.step = transaction_->step;
    }
    if (transaction_->method == "REGISTER") {
        on_register_answer(m, arrival);
    } else {
        on_request_answer(m);
    }
}

void Phone::on_request(const sip::Message& m, const Arrival& arrival) {
    if (arrival.set == nullptr) {
        violation(fmt::format("a request in clear: {}", m.method()));
        return;
    }
    const std::string where = route_text(arrival, false);
    if (context_.observer != nullptr) {
        say(fmt::format("     ← {:<24} {}", m.method(), where));
        context_.observer->message(*this, false, where, m.bytes());
    }
    if (m.is_method("ACK")) return;
    int code = 405;
    for (const std::string_view method : {"OPTIONS", "MESSAGE", "NOTIFY", "INFO"}) {
        if (m.is_method(method)) code = 200;
    }
    if (m.is_method("BYE") || m.is_method("CANCEL")) code = 481;
    if (m.is_method("INVITE")) code = 486;
    sip::ResponseOptions options;
    const std::string tag = fmt::format("{:08x}", static_cast<std::uint32_t>(call_token_));
    options.to_tag = tag;
    const std::array<sip::HeaderField, 1> allow{{{"Allow", "OPTIONS, MESSAGE, NOTIFY, INFO"}}};
    if (code == 405 || m.is_method("OPTIONS")) options.headers = allow;
    const auto via = sip::top_via(m);
    std::string out;
    if (!via || !sip::build_response(m, code, options, out)) {
        violation("a request that cannot be answered");
        return;
    }
    ++context_.statistics.network_requests;
    if (script_ != nullptr) {
        script_->request_came(m.method(), arrival.set->serial, hold_answers_);
        if (hold_answers_) {
            scripted().held = HeldRequest{out, arrival.set, arrival.link, !via->rport_present};
            return;
        }
    }
    if (context_.observer != nullptr) {
        say(fmt::format("     → {:<24} {}", fmt::format("{} {}", code, sip::reason_phrase(code)),
                        route_text(arrival, true)));
        context_.observer->message(*this, true, route_text(arrival, true), out);
    }
    if (arrival.link != nullptr) {
        arrival.link->send(out);
        return;
    }
    // A2: to the Via's sent-by, which names port_ps, from our client port; with rport, back where
    // it came from.
    send_udp_protected(*arrival.set, !via->rport_present, out);
}

// ---- timers ----

void Phone::on_retransmit() {
    if (!transaction_) return;
    ++context_.statistics.retransmissions;
    transaction_->interval = std::min(transaction_->interval * 2, context_.times.t2);
    context_.timers.start(retransmit_, transaction_->interval);
    transmit(*transaction_);
}

void Phone::on_deadline() {
    if (phase_ == Phase::watching) {
        if (misbehaves(Misbehaviour::silent_after_sm6) ||
            misbehaves(Misbehaviour::refuse_proposal)) {
            discard(pending_);
            return conclude(answers_seen_ == 0,
                            answers_seen_ == 0 ? "no answer" : "something came");
        }
        return after_attack();
    }
    if (!transaction_) return;
    const std::string seen = fmt::format("no answer to {}", transaction_->method == "REGISTER"
                                                                ? std::string(transaction_->step)
                                                                : transaction_->method);
    const bool register_request = transaction_->method == "REGISTER";
    const bool sm7 = phase_ == Phase::sm7;
    if (scripted_) scripted_->result.step = transaction_->step;
    end_transaction();
    if (sm7 && !expects_silence(plan_.misbehaviour) && restarts_ < context_.restarts) {
        return start_again();
    }
    if (end_step("no answer", seen)) return;
    if (!register_request) {
        context_.statistics.failures.add(seen);
        if (is_attack(plan_.misbehaviour) && outcome_.empty()) {
            return conclude(false, attacked_ ? "good packets no longer pass" : seen);
        }
        next_errand();
        return;
    }
    if (sm7 && expects_silence(plan_.misbehaviour)) {
        discard(pending_);
        return conclude(true, seen);
    }
    fail(seen);
}

void Phone::on_periodic() {
    if (scripted_) return;
    if (phase_ != Phase::registered) return;
    if (messages_left_ > 0) {
        --messages_left_;
        send_request(messages_left_ % 2 == 0 ? "OPTIONS" : "MESSAGE");
        return;
    }
    reregister();
}

// ---- under a script ----

Phone::Scripted& Phone::scripted() {
    if (!scripted_) scripted_ = std::make_unique<Scripted>();
    return *scripted_;
}

std::uint32_t Phone::expires() const {
    return scripted_ && scripted_->now.expires != 0 ? scripted_->now.expires : context_.expires;
}

// Ends a step under a script: the SAs of an attempt that did not succeed go, those of the last
// success stay. False: there is no script.
bool Phone::end_step(std::string outcome, std::string text) {
    if (script_ == nullptr) return false;
    StepResult& r = scripted().result;
    r.outcome = std::move(outcome);
    r.text = std::move(text);
    r.challenges = challenges_;
    r.restarts = restarts_;
    end_transaction();
    if (phase_ != Phase::held && phase_ != Phase::idle) {
        close_clear_stream();
        discard(pending_);
        phase_ = registered_ ? Phase::registered : Phase::idle;
    }
    script_->step_done(r);
    return true;
}

void Phone::scripted_register(const ScriptedRegister& what) {
    Scripted& s = scripted();
    s.now = what;
    s.result = {};
    s.taken.reset();
    restarts_ = 0;
    plan_.misbehaviour = what.misbehaviour;
    if (!registered_) {
        call_token_ = context_.random.u64();
        cseq_ = static_cast<std::uint32_t>(context_.random.below(1000));
    }
    begin(registered_ ? Purpose::reregister : Purpose::initial);
}

void Phone::scripted_deregister() {
    Scripted& s = scripted();
    s.now = {};
    s.result = {};
    plan_.misbehaviour = Misbehaviour::none;
    deregister();
}

bool Phone::answer_challenge() {
    Scripted& s = scripted();
    if (phase_ != Phase::held || !s.taken) return false;
    s.result = {};
    const auto taken = std::move(s.taken);
    s.now.hold = false;
    send_sm7(taken->aka, std::move(taken->credentials));
    return true;
}

SaSet* Phone::set_of(std::uint32_t serial, bool gone_too) {
    if (serial == 0) return current_.get();
    for (SaSet* s : {current_.get(), old_.get(), pending_.get()}) {
        if (s != nullptr && s->serial == serial) return s;
    }
    if (gone_too && scripted_) {
        for (const auto& s : scripted_->gone) {
            if (s->serial == serial) return s.get();
        }
    }
    return nullptr;
}

void Phone::each_set(const std::function<void(const SaSet&, std::string_view state)>& visit) const {
    if (scripted_) {
        for (const auto& s : scripted_->gone) visit(*s, "gone");
    }
    if (old_) visit(*old_, "old");
    if (current_) visit(*current_, "current");
    if (pending_) visit(*pending_, "pending");
}

bool Phone::scripted_request(std::uint32_t serial, std::string_view method, std::string_view to,
                             bool parked) {
    SaSet* set = set_of(serial, false);
    if (set == nullptr || transaction_ || phase_ != Phase::registered) return false;
    scripted().result = {};
    plan_.misbehaviour = Misbehaviour::none;
    send_request_on(*set, method, to);
    if (parked) {
        // TCP keeps it; over UDP the network's answer is waited for without sending again.
        scripted().parked = std::move(transaction_);
        end_transaction();
    }
    return true;
}

bool Phone::probe(std::uint32_t serial, unsigned packets, bool forged) {
    SaSet* set = set_of(serial, true);
    if (set == nullptr) return false;
    const std::string body = fmt::format(
        "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1}:{2};branch=z9hG4bKprobe{3:x}\r\n"
        "Max-Forwards: 70\r\nFrom: <{4}>;tag=probe\r\nTo: <sip:{0}>\r\nCall-ID: probe{3:x}\r\n"
        "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        context_.realm, set->local.to_uri_host(), set->numbers.port_us, context_.random.u64(),
        identity().impu());
    spoil_ = forged;
    for (unsigned i = 0; i < packets; ++i) send_udp_protected(*set, true, body);
    spoil_ = false;
    return true;
}

bool Phone::answer_held() {
    auto held = std::exchange(scripted().held, std::nullopt);
    if (!held) return false;
    if (held->link != nullptr) {
        held->link->send(held->answer);
    } else {
        send_udp_protected(*held->set, held->from_client_port, held->answer);
    }
    return true;
}

}  // namespace gmgate::ue
