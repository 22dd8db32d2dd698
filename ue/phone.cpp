// A phone's life, its transactions and its requests. Its registration is phone_registration.cpp,
// what lies between it and the network phone_wire.cpp, its attacks phone_attack.cpp, its steps
// under a script phone_script.cpp.
#include "ue/phone.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/sip/build.h"
#include "control/sip/reginfo.h"
#include "ue/agent.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t branch_octets = 8;

}  // namespace

// ---- life ----

Phone::Phone(PhoneContext& context, const PhonePlan& plan) : context_(context), plan_(plan) {
    retransmit_.bind<&Phone::on_retransmit>(this);
    deadline_.bind<&Phone::on_deadline>(this);
    periodic_.bind<&Phone::on_periodic>(this);
}

Phone::~Phone() = default;

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
    // A request under way has its answer first: next_errand() comes back to it.
    leaving_ = phase_ == Phase::registered && transaction_ && !scripted_;
    if (leaving_) return;
    restarts_ = 0;
    if (agent_) agent_->hang_up();
    begin(Purpose::deregister);
}

void Phone::stop() {
    retransmit_.stop();
    deadline_.stop();
    periodic_.stop();
    transaction_.reset();
    if (agent_) agent_->registration_over("the registration ended");
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
    leaving_ = false;
    purpose_ = purpose;
    obeying_ = reauthenticate_;
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

void Phone::finish() {
    if (phase_ == Phase::over) return;
    stop();
    if (context_.on_event) context_.on_event(*this, PhoneEvent::finished);
}

void Phone::discard(std::unique_ptr<SaSet>& set) {
    if (!set) return;
    if (transaction_ && transaction_->set == set.get()) {
        end_transaction();
        if (leaving_) context_.timers.start(periodic_, context_.times.t1);
    }
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

// ---- what a person sees ----

void Phone::say(std::string_view line) const {
    if (context_.observer != nullptr) context_.observer->step(*this, line);
}

void Phone::violation(std::string_view what) {
    context_.statistics.violations.add(what);
    say(fmt::format("  !!  {}", what));
}

std::string Phone::status_text(const sip::Message& m) {
    std::string out = fmt::format("{} {}", m.status_code(), m.reason());
    std::ranges::replace_if(out, [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
    return out;
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

// ---- transactions ----

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
    if (leaving_ && !told_gone_) return deregister();
    if (reauthenticate_ || told_gone_) {
        context_.timers.start(periodic_, context_.times.t1);
        return;
    }
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

// ---- receiving ----

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
        if (arrival.set != nullptr && agent_response(m, arrival)) return;
        ++context_.statistics.stray;
        if (script_ != nullptr)
            script_->stray_answer(m.status_code(), arrival.set == nullptr ? 0 : arrival.set->serial,
                                  sip::call_id(m));
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

// F1, F3: a NOTIFY of registration state that wants a re-authentication, or a REFER to REGISTER.
bool Phone::asks_for_register(const sip::Message& m) {
    if (m.is_method("REFER")) {
        const auto value = m.value(sip::HeaderId::refer_to);
        const auto target = value ? sip::parse_name_addr(*value) : std::nullopt;
        const auto method = target ? target->uri.param("method") : std::nullopt;
        return method && method->value == "REGISTER";
    }
    if (!m.is_method("NOTIFY")) return false;
    const auto profile =
        sip::reg_profile(m.value(sip::HeaderId::event).value_or(std::string_view{}));
    if (!profile) return false;
    const auto info = sip::parse_reginfo(*profile, m.body());
    return info && std::ranges::any_of(info->entries,
                                       [](const sip::RegEntry& e) { return e.reauthenticate; });
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
    if (!hold_answers_ && agent_request(m, arrival)) {
        if (script_ != nullptr) script_->request_came(m.method(), arrival.set->serial, false);
        return;
    }
    if (m.is_method("ACK")) return;
    int code = 405;
    for (const std::string_view method : {"OPTIONS", "MESSAGE", "NOTIFY", "INFO"}) {
        if (m.is_method(method)) code = 200;
    }
    const bool reauthenticate = asks_for_register(m);
    if (m.is_method("REFER")) code = reauthenticate ? 202 : 603;
    if (m.is_method("BYE") || m.is_method("CANCEL")) code = 481;
    if (m.is_method("INVITE")) code = 486;
    sip::ResponseOptions options;
    const std::string tag = fmt::format("{:08x}", static_cast<std::uint32_t>(call_token_));
    options.to_tag = tag;
    const std::array<sip::HeaderField, 1> allow{
        {{"Allow", "OPTIONS, MESSAGE, NOTIFY, INFO, REFER"}}};
    if (code == 405 || m.is_method("OPTIONS")) options.headers = allow;
    const auto via = sip::top_via(m);
    std::string out;
    if (!via || !sip::build_response(m, code, options, out)) {
        violation("a request that cannot be answered");
        return;
    }
    ++context_.statistics.network_requests;
    // F3: it obeys, once this is answered.
    // What it is doing now may have begun before; next_errand() comes to it then.
    if (reauthenticate) {
        reauthenticate_ = true;
        obeying_ = false;
        if (phase_ == Phase::registered) context_.timers.start(periodic_, context_.times.t1);
    }
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
    if (phase_ != Phase::registered) return;
    if (transaction_) return;  // next_errand() comes back to it
    if (told_gone_) {
        // Its SAs go with the registration: no deregistration could use them.
        if (leaving_) may_return_ = false;
        return leave_as_told();
    }
    if (leaving_) return deregister();
    if (scripted_) return;
    if (std::exchange(reauthenticate_, false)) return reregister();
    if (messages_left_ > 0) {
        --messages_left_;
        send_request(messages_left_ % 2 == 0 ? "OPTIONS" : "MESSAGE");
        return;
    }
    reregister();
}

}  // namespace gmgate::ue
