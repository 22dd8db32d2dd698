#pragma once
// The catalogue of reasons (docs/reasons.md), for the API's clients: `gmctl explain` works without
// a gateway, too. Any thread.

#include "control/registration/reasons.h"

namespace gmgate::ops {

using registration::catalogue;
using registration::info;
using registration::Reason;
using registration::reason_of;
using registration::ReasonInfo;
using registration::Scope;

}  // namespace gmgate::ops
