#pragma once
// How requests of phones look to the core, by the operator's mode of interconnection (E1; contract
// in docs/operating/interconnection.md). path: RFC 3327, the phone's Via below ours. via: the
// phone's Vias stay with us, so that the bottom Via is ours, and come back in the answer.

#include <string>
#include <string_view>

#include "control/registration/context.h"
#include "control/sip/edit.h"

namespace gmgate::registration {

// Our Via on a request of a phone at `source` that leaves on `flow`.
void put_our_via(sip::Edit& edit, const Context& context, const Endpoint& source,
                 const sip::Flow& flow, std::string_view branch);

// The Vias of the core's answer to it become those the phone expects. `head`, `source`: of its
// request, as head_of() keeps it.
void take_our_via(sip::Edit& edit, const Context& context, std::string_view head,
                  const Endpoint& source);

// Path, and the option tag that tells of it.
void put_path(sip::Edit& edit, const Context& context, std::string_view token);

}  // namespace gmgate::registration
