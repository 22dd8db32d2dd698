// Misbehaviour of a registered phone: a good packet, the bad ones, silence, a good packet again;
// and what became of any misbehaviour.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "ue/packet.h"
#include "ue/phone.h"

namespace gmgate::ue {

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
                if (recorded_) send_esp(set, *recorded_);
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
                send_esp(set, esp);
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

}  // namespace gmgate::ue
