#include "control/app/wiring.h"

#include <algorithm>
#include <utility>

namespace gmgate::app {

dataplane::DpdkOptions dpdk_options(const config::Config& c) {
    dataplane::DpdkOptions o;
    o.gm_interface = c.gm.interface;
    o.gm_device = c.dpdk.device;
    o.tap_name = c.gm.tap;
    for (const auto& a : c.gm.addresses) o.addresses.push_back({a.address, a.length});
    for (const auto& r : c.gm.routes) o.routes.push_back({r.to.address, r.to.length, r.via});
    for (const auto& endpoint : c.core.listen) o.other_addresses.push_back(endpoint.address);
    o.port_ps = {c.gm.port_ps.first, c.gm.port_ps.last};
    o.port_pc = {c.gm.port_pc.first, c.gm.port_pc.last};
    o.mtu = c.gm.mtu;
    o.nat = c.nat();
    o.workers = c.dpdk.workers;
    o.max_sets = c.dpdk.max_sets;
    o.verify_only = c.backend == config::Backend::screen;
    o.replay_window = c.dpdk.replay_window;
    o.memory_mb = c.dpdk.memory_mb;
    o.hugepages = c.dpdk.hugepages;
    o.idle = c.dpdk.idle == config::Idle::poll ? dataplane::IdlePolicy::poll
                                               : dataplane::IdlePolicy::adaptive;
    switch (c.dpdk.crypto) {
        case config::Crypto::automatic:
            o.crypto = dataplane::CryptoChoice::automatic;
            break;
        case config::Crypto::ipsec_mb:
            o.crypto = dataplane::CryptoChoice::ipsec_mb;
            break;
        case config::Crypto::openssl:
            o.crypto = dataplane::CryptoChoice::openssl;
            break;
    }
    return o;
}

kernel::KernelOptions kernel_options(const config::Config& c) {
    kernel::KernelOptions o;
    // Behind the screen its interface is the TAP, which the fast path makes and gives the
    // addresses.
    o.interface_comes_later = c.backend == config::Backend::screen;
    o.interface = o.interface_comes_later ? c.gm.tap : c.gm.interface;
    for (const auto& a : c.gm.addresses) o.addresses.push_back(a.address);
    o.port_ps = {c.gm.port_ps.first, c.gm.port_ps.last};
    o.port_pc = {c.gm.port_pc.first, c.gm.port_pc.last};
    o.suites = c.security.suites;
    o.reqid = c.kernel.reqid;
    o.mark = c.kernel.mark;
    o.max_sets = c.kernel.max_sets;
    o.replay_window = c.kernel.replay_window;
    switch (c.kernel.offload) {
        case config::Offload::none:
            o.offload = kernel::Offload::none;
            break;
        case config::Offload::crypto:
            o.offload = kernel::Offload::crypto;
            break;
        case config::Offload::packet:
            o.offload = kernel::Offload::packet;
            break;
    }
    if (c.nat())
        o.nat = c.security.nat == config::Nat::on ? kernel::KernelOptions::Nat::required
                                                  : kernel::KernelOptions::Nat::if_possible;
    o.device = c.kernel.device;
    o.offload_fallback = c.kernel.offload_fallback;
    return o;
}

sa::DatabaseConfig database_config(const config::Config& c) {
    sa::DatabaseConfig d;
    d.timers.reg_await_auth = c.timers.reg_await_auth;
    d.timers.drain = c.timers.drain;
    d.timers.lifetime_grace = c.timers.lifetime_margin;
    d.timers.spi_quarantine = c.timers.spi_quarantine;
    d.timers.label_quarantine = std::max<Duration>(c.timers.spi_quarantine, 64 * c.timers.t1);
    d.timers.near_end = c.timers.near_end;
    d.limits.max_sets = c.max_sets();
    d.limits.max_registration_sets = c.limits.pending;
    d.ports.port_ps.clear();
    for (unsigned p = c.gm.port_ps.first; p <= c.gm.port_ps.last; ++p) {
        d.ports.port_ps.push_back(static_cast<sa::Port>(p));
    }
    d.ports.pc_first = c.gm.port_pc.first;
    d.ports.pc_last = c.gm.port_pc.last;
    return d;
}

registration::Policy policy(const config::Config& c) {
    registration::Policy p;
    p.name = c.gateway.name;
    p.visited_network = c.gateway.visited_network;
    for (const auto& a : c.gm.addresses) p.gm_addresses.push_back(a.address);
    p.gm_port = c.gm.unprotected_port;
    p.core = c.core.listen;
    const auto transport =
        c.core.transport == config::Transport::tcp ? sip::Transport::tcp : sip::Transport::udp;
    for (const auto& hop : c.core.next_hops) p.next_hops.push_back({transport, hop});
    if (!c.core.domain.empty()) p.domain = {c.core.domain, c.core.domain_port, transport};
    p.interconnect = c.core.interconnect == config::Interconnect::via
                         ? registration::Interconnect::via
                         : registration::Interconnect::path;
    p.trust_service_routes = c.core.trust_service_routes;
    for (const auto& t : c.core.trusted) p.trusted.push_back({t.address, t.length});
    p.suites = c.security.suites;
    p.missing_ealg = c.security.missing_ealg == config::MissingEalg::refuse
                         ? registration::MissingEalg::refuse
                         : registration::MissingEalg::null;
    p.consistency_failure = c.security.consistency_failure == config::ConsistencyFailure::silent
                                ? registration::ConsistencyFailure::silent
                                : registration::ConsistencyFailure::reject;
    p.unprotected_other = c.security.unprotected_other == config::UnprotectedOther::drop
                              ? registration::UnprotectedOther::drop
                              : registration::UnprotectedOther::reject;
    p.service_route_mismatch =
        c.security.service_route_mismatch == config::ServiceRouteMismatch::reject
            ? registration::ServiceRouteMismatch::reject
            : registration::ServiceRouteMismatch::replace;
    switch (c.security.emergency) {
        case config::Emergency::refuse:
            p.emergency = registration::Emergency::refuse;
            break;
        case config::Emergency::alternative:
            p.emergency = registration::Emergency::alternative;
            break;
        case config::Emergency::forward:
            p.emergency = registration::Emergency::forward;
            break;
    }
    p.emergency_numbers = c.security.emergency_numbers;
    p.emergency_unregistered =
        c.security.emergency_unregistered == config::EmergencyUnregistered::forward
            ? registration::EmergencyUnregistered::forward
            : registration::EmergencyUnregistered::refuse;
    p.e_cscf = c.core.e_cscf;
    p.nat = c.nat();
    switch (c.core.reg_event) {
        case config::RegEvent::off:
            break;
        case config::RegEvent::rfc3680:
            p.reg_event = sip::RegProfile::rfc3680;
            break;
        case config::RegEvent::seed:
            p.reg_event = sip::RegProfile::seed;
            break;
    }
    p.t1 = c.timers.t1;
    p.timer_c = c.timers.timer_c;
    p.dialog_idle = c.timers.dialog_idle;
    p.limits.registrations = c.limits.registrations;
    p.limits.pending = c.limits.pending;
    p.limits.pending_per_source = c.limits.pending_per_source;
    p.limits.pending_grace = c.limits.pending_grace;
    p.limits.pending_per_user = c.limits.pending_per_user;
    p.limits.proxied_per_user = c.limits.requests_per_user;
    p.limits.dialogs = c.limits.dialogs;
    p.limits.dialogs_per_user = c.limits.dialogs_per_user;
    p.limits.emergency_calls = c.limits.emergency_calls;
    p.limits.emergency_calls_per_source = c.limits.emergency_calls_per_source;
    p.limits.ipv6_source_prefix = c.limits.ipv6_source_prefix;
    p.limits.sources_per_nat = c.limits.sources_per_nat;
    p.limits.register_rate_per_source = c.limits.register_rate_per_source;
    p.limits.register_burst_per_source = static_cast<double>(c.limits.register_burst_per_source);
    p.limits.register_rate_total = c.limits.register_rate_total;
    // Two seconds' worth; enough for the classes of Admission to tell apart.
    p.limits.register_burst_total = std::max(16.0, 2 * c.limits.register_rate_total);
    p.limits.register_rate_per_user = c.limits.register_rate_per_user;
    p.limits.register_burst_per_user = static_cast<double>(c.limits.register_burst_per_user);
    p.limits.message_rate_per_user = c.limits.message_rate_per_user;
    p.limits.message_burst_per_user = static_cast<double>(c.limits.message_burst_per_user);
    p.limits.transactions = registration::transactions_for(p.limits, p.t1);
    p.limits.trace_records = c.limits.trace_records;
    return p;
}

sip::SocketTransportOptions gm_transport(const config::Config& c, const std::string& device) {
    sip::SocketTransportOptions o;
    o.device = device;
    o.max_connections = c.limits.tcp_connections;
    o.max_connections_per_source = c.limits.tcp_connections_per_source;
    o.ipv6_source_prefix = c.limits.ipv6_source_prefix;
    o.unprotected_port = c.gm.unprotected_port;
    return o;
}

sip::SocketTransportOptions core_transport(const config::Config& c) {
    sip::SocketTransportOptions o;
    o.max_connections = c.limits.tcp_connections;
    o.max_connections_per_source = c.limits.tcp_connections;  // the core is one source
    return o;
}

Result<void> open_gm(sip::SocketTransport& transport, const config::Config& c) {
    for (const auto& a : c.gm.addresses) {
        const auto open = [&](std::uint16_t port, bool tcp) -> Result<void> {
            if (auto r = transport.add_udp({a.address, port}); !r) return r;
            if (tcp) return transport.add_tcp_listener({a.address, port});
            return {};
        };
        if (auto r = open(c.gm.unprotected_port, true); !r) return r;
        for (unsigned p = c.gm.port_ps.first; p <= c.gm.port_ps.last; ++p) {
            if (auto r = open(static_cast<std::uint16_t>(p), true); !r) return r;
        }
        // A2: we send from port_pc and take UDP responses there; nobody connects to it.
        for (unsigned p = c.gm.port_pc.first; p <= c.gm.port_pc.last; ++p) {
            if (auto r = open(static_cast<std::uint16_t>(p), false); !r) return r;
        }
    }
    return {};
}

Result<void> open_core(sip::SocketTransport& transport, const config::Config& c) {
    for (const auto& endpoint : c.core.listen) {
        auto r = transport.add_udp(endpoint);
        if (r) r = transport.add_tcp_listener(endpoint);
        if (!r) return fail(r.error().kind, "core.listen: " + r.error().text);
    }
    return {};
}

}  // namespace gmgate::app
