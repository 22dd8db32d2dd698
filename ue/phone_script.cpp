// A phone under a script: one step at a time (ue/script.h).
#include <fmt/format.h>

#include <utility>

#include "ue/phone.h"

namespace gmgate::ue {

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

bool Phone::send_raw(std::string_view octets) {
    if (!current_) return false;
    if (plan_.tcp) {
        client_link(*current_).send(octets);
    } else {
        send_udp_protected(*current_, true, octets);
    }
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
