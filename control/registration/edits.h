#pragma once
// The changes every message gets that crosses from one side to the other (B4, E1–E3).

#include "control/sip/edit.h"
#include "control/sip/message.h"

namespace gmgate::registration {

// From a UE to the core: the security agreement and what a UE may not say.
void strip_from_ue(sip::Edit& edit);
// From the core to a UE: charging, what is between the core and us, and every ck and ik.
void strip_to_ue(sip::Edit& edit);

// Overwrites every ck and ik in WWW-Authenticate and its kin within `bytes`, which `message` points
// into (B2, S1).
void wipe_keys(const sip::Message& message, std::span<char> bytes);

}  // namespace gmgate::registration
