#pragma once
// Which way a message goes (A2; RFC 3261 18.2.2), and which SA that is.

#include <optional>

#include "control/sip/transport.h"
#include "control/sip/values.h"
#include "sa/types.h"

namespace gmgate::registration {

// Where the responses of a request that came in clear go: to the source, at the port Via asks for.
[[nodiscard]] sip::Flow reply_path(const sip::Flow& request, const sip::Via& via);
// The same for a phone's: at the source's port too if its address is another than Via's. Behind a
// NAT no other port leads to the phone, whether it asks by rport or not (N1).
[[nodiscard]] sip::Flow reply_path_in_clear(const sip::Flow& request, const sip::Via& via);

// The same on SAs: UDP from our port_pc to port_us, or from port_ps to port_uc for a UE that asks
// by rport; TCP: the same connection. Never anywhere else, whatever Via says: there is no SA for
// it. `nat`: Via has the UE's own ports, `numbers` those we know it by (N1).
[[nodiscard]] sip::Flow reply_path(const sip::Flow& request, const sip::Via& via,
                                   const sa::SaNumbers& numbers,
                                   const std::optional<sa::NatTraversal>& nat = {});

// A request of ours to the UE on that set: from port_pc to port_us.
[[nodiscard]] sip::Flow request_path(sip::Transport transport, const IpAddress& ours,
                                     const IpAddress& ue, const sa::SaNumbers& numbers);

// The SPI that carries a message between these ports; 0: none of the set's.
[[nodiscard]] sa::Spi inbound_spi(const sip::Flow& flow, const sa::SaNumbers& numbers);
[[nodiscard]] sa::Spi outbound_spi(const sip::Flow& flow, const sa::SaNumbers& numbers);

// The address Via names is the one the message came from. unresolved: a symbolic name (B6 resolves
// it first).
enum class ViaCheck : std::uint8_t { same, different, unresolved };
[[nodiscard]] ViaCheck check_via(const sip::Via& via, const IpAddress& source);
// On a set behind a NAT: Via names the UE's own address, or the NAT's (TS 24.229 Annexes K and F).
[[nodiscard]] ViaCheck check_via(const sip::Via& via, const IpAddress& source,
                                 const std::optional<IpAddress>& inner);

}  // namespace gmgate::registration
