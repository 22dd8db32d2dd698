#include "control/registration/paths.h"

namespace gmgate::registration {
namespace {

constexpr std::uint16_t default_port = 5060;

}  // namespace

sip::Flow reply_path(const sip::Flow& request, const sip::Via& via) {
    sip::Flow reply = request;
    if (request.transport == sip::Transport::tcp) return reply;
    reply.connection = 0;
    if (!via.rport_present) reply.remote.port = via.port != 0 ? via.port : default_port;
    return reply;
}

sip::Flow reply_path_in_clear(const sip::Flow& request, const sip::Via& via) {
    sip::Flow reply = reply_path(request, via);
    if (check_via(via, request.remote.address) == ViaCheck::different)
        reply.remote.port = request.remote.port;
    return reply;
}

sip::Flow reply_path(const sip::Flow& request, const sip::Via& via, const sa::SaNumbers& numbers,
                     const std::optional<sa::NatTraversal>& nat) {
    sip::Flow reply = request;
    if (request.transport == sip::Transport::tcp) return reply;
    reply.connection = 0;
    const bool from_client_port = request.remote.port == numbers.port_uc;
    const sa::Port port_uc = nat ? nat->port_uc : numbers.port_uc;
    const bool back_to_source = via.rport_present || via.port == port_uc;
    if (from_client_port && !back_to_source) {
        reply.local.port = numbers.port_pc;
        reply.remote.port = numbers.port_us;
    }
    return reply;
}

sip::Flow request_path(sip::Transport transport, const IpAddress& ours, const IpAddress& ue,
                       const sa::SaNumbers& numbers) {
    return sip::Flow{transport, Endpoint{ours, numbers.port_pc}, Endpoint{ue, numbers.port_us}, 0};
}

sa::Spi inbound_spi(const sip::Flow& flow, const sa::SaNumbers& n) {
    if (flow.local.port == n.port_ps && flow.remote.port == n.port_uc) return n.spi_ps;
    if (flow.local.port == n.port_pc && flow.remote.port == n.port_us) return n.spi_pc;
    return 0;
}

sa::Spi outbound_spi(const sip::Flow& flow, const sa::SaNumbers& n) {
    if (flow.local.port == n.port_ps && flow.remote.port == n.port_uc) return n.spi_uc;
    if (flow.local.port == n.port_pc && flow.remote.port == n.port_us) return n.spi_us;
    return 0;
}

ViaCheck check_via(const sip::Via& via, const IpAddress& source) {
    const auto address = IpAddress::parse(via.host);
    if (!address) return ViaCheck::unresolved;
    return *address == source ? ViaCheck::same : ViaCheck::different;
}

ViaCheck check_via(const sip::Via& via, const IpAddress& source,
                   const std::optional<IpAddress>& inner) {
    const ViaCheck seen = check_via(via, source);
    return seen == ViaCheck::different && inner ? check_via(via, *inner) : seen;
}

}  // namespace gmgate::registration
