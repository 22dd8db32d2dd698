#pragma once
// The changes every message gets that crosses from one side to the other (B4, E1–E3).

#include <span>
#include <string>
#include <string_view>

#include "control/sip/edit.h"
#include "control/sip/message.h"
#include "control/sip/values.h"

namespace gmgate::registration {

// Max-Forwards of what is forwarded (RFC 3261 16.6 step 3).
[[nodiscard]] inline unsigned hops_left(const sip::Message& request) {
    const auto hops = sip::max_forwards(request);
    if (!hops) return 70;
    return *hops == 0 ? 0U : *hops - 1U;
}

// From a UE to the core: the security agreement and what a UE may not say. The table of headers
// stands in docs/operating/identity.md.
void strip_from_ue(sip::Edit& edit);
// Its sender asks that its asserted identity stays among those who trust each other (RFC 3325 9.3).
[[nodiscard]] bool wants_privacy(const sip::Message& message);

// From the core to a UE: charging, where the other end is, what is between the core and us, and
// every ck and ik.
void strip_to_ue(sip::Edit& edit);

// A request of ours that went over TCP for its size alone (RFC 3261 18.1.1), as it goes over UDP
// under another branch; empty: it cannot be made.
[[nodiscard]] std::string over_udp(const sip::Message& sent, std::string_view branch);

// Overwrites every ck and ik in WWW-Authenticate and its kin within `bytes`, which `message` points
// into (B2, S1).
void wipe_keys(const sip::Message& message, std::span<char> bytes);

}  // namespace gmgate::registration
