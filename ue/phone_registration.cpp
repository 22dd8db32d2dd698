// From SM1 to SM12, the phone's side.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/sip/values.h"
#include "ue/agent.h"
#include "ue/application.h"
#include "ue/digest.h"
#include "ue/phone.h"

namespace gmgate::ue {

namespace {

constexpr Sqn resync_ahead = Sqn{1} << 16U;  // how far the "sync-failure" phone claims to be ahead
constexpr unsigned max_challenges = 3;

// Some packets below the gateways' mark of 2^32 - 2^20, so that the registration itself is not what
// passes it.
constexpr std::uint32_t near_sequence_end = 0xFFFFFFFFU - (1U << 20U) - 8;

}  // namespace

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
                                 proposed_.port_uc, proposed_.port_us, context_.nat);
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
    const Mechanism* chosen = choose(*offered, *plan_.suites, context_.nat);
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
    set->encapsulated = mechanism.encapsulated;
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
        say(fmt::format("      four SAs, {}{}{}", sa::to_string(set->suite),
                        set->encapsulated ? ", in UDP" : "",
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
    if (pending_->encapsulated && !keepalive_) {
        keepalive_ = std::make_unique<Timer>();
        keepalive_->bind<&Phone::keep_nat_open>(this);
        context_.timers.start(*keepalive_, context_.keepalive);
    }
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
                        p.spi_us, p.port_uc, p.port_us, context_.nat);
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
        reauthenticate_ = false;
        say("      deregistered");
        if (agent_) agent_->registration_over("deregistered");
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
    // That was said of the registration before this one.
    if (first || challenges_ > 0) told_gone_ = false;
    if (obeying_ && challenges_ > 0) reauthenticate_ = false;
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
    if (application_ != nullptr) application_->phone_registered();
    if (first && context_.subscribe) {
        // Refused or not answered: it lives without, as most networks' phones do.
        (void)agent().subscribe(granted_, [this](int status, std::string_view reason) {
            if (status < 200 || status >= 300)
                context_.statistics.calls.failures.add(
                    fmt::format("{} {} to SUBSCRIBE", status, reason));
        });
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

}  // namespace gmgate::ue
