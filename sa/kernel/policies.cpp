#include "sa/kernel/policies.h"

#include <fmt/core.h>

#include <algorithm>

namespace gmgate::kernel {

namespace {

bool is_ours(const Policy& p, std::uint32_t reqid) {
    return p.main_type && !p.on_socket && p.templates == 1 && p.reqid == reqid;
}

// Same key in the kernel's table: one would replace the other.
bool same_place(const Policy& a, const Policy& b) {
    return a.direction == b.direction && a.selector == b.selector && a.conditional == b.conditional;
}

bool prefixes_overlap(const IpAddress& a, unsigned a_bits, const IpAddress& b, unsigned b_bits) {
    const unsigned bits = std::min(a_bits, b_bits);
    const auto x = a.octets();
    const auto y = b.octets();
    for (unsigned i = 0; i < bits && i / 8 < x.size(); ++i) {
        if (((x[i / 8] ^ y[i / 8]) & (0x80U >> (i % 8))) != 0) return false;
    }
    return true;
}

bool ports_overlap(sa::Port a, sa::Port a_mask, sa::Port b, sa::Port b_mask) {
    return ((a ^ b) & a_mask & b_mask) == 0;
}

Policy base(const KernelOptions& options, const IpAddress& address, Direction direction) {
    Policy p;
    p.selector.v6 = address.is_v6();
    // The unspecified address of the right family, so that a decoded one is equal.
    const std::array<std::uint8_t, 16> none{};
    const IpAddress any = address.is_v6()
                              ? IpAddress::v6(none)
                              : IpAddress::v4(std::span<const std::uint8_t, 4>(none.data(), 4));
    p.selector.source = any;
    p.selector.destination = any;
    p.direction = direction;
    p.priority = policy_priority;
    p.reqid = options.reqid;
    return p;
}

void to_port(Policy& p, const IpAddress& address, const PortBlock& block) {
    p.selector.destination = address;
    p.selector.destination_prefix = address.is_v6() ? 128 : 32;
    p.selector.destination_port = block.first;
    p.selector.destination_mask = block.mask;
}

void from_port(Policy& p, const IpAddress& address, const PortBlock& block) {
    p.selector.source = address;
    p.selector.source_prefix = address.is_v6() ? 128 : 32;
    p.selector.source_port = block.first;
    p.selector.source_mask = block.mask;
}

std::string side(const IpAddress& address, unsigned prefix, sa::Port port, sa::Port mask) {
    std::string out = prefix == 0 ? "any" : fmt::format("{}/{}", address.to_string(), prefix);
    if (mask == 0xFFFF)
        out += fmt::format(" port {}", port);
    else if (mask != 0)
        out += fmt::format(" port {}/{:#x}", port, mask);
    return out;
}

}  // namespace

std::vector<PortBlock> port_blocks(sa::Port first, sa::Port last) {
    std::vector<PortBlock> out;
    std::uint32_t at = first;
    while (at <= last) {
        std::uint32_t size = 1;
        while ((at & (2 * size - 1)) == 0 && at + 2 * size - 1 <= last && size < 0x8000U) size *= 2;
        out.push_back({static_cast<sa::Port>(at), static_cast<sa::Port>(~(size - 1) & 0xFFFFU)});
        at += size;
    }
    return out;
}

std::vector<Policy> wanted_policies(const KernelOptions& options,
                                    const std::optional<OffloadDevice>& offload) {
    std::vector<Policy> out;
    for (const IpAddress& address : options.addresses) {
        for (const auto& range : {options.port_ps, options.port_pc}) {
            for (const PortBlock& block : port_blocks(range.first, range.last)) {
                Policy in = base(options, address, Direction::in);
                to_port(in, address, block);
                Policy out_policy = base(options, address, Direction::out);
                from_port(out_policy, address, block);
                in.offload = out_policy.offload = offload;
                Policy forward_to = base(options, address, Direction::forward);
                to_port(forward_to, address, block);
                Policy forward_from = base(options, address, Direction::forward);
                from_port(forward_from, address, block);
                forward_to.block = forward_from.block = true;
                for (const Policy& p : {in, out_policy, forward_to, forward_from}) {
                    if (std::ranges::none_of(out,
                                             [&](const Policy& q) { return same_place(p, q); }))
                        out.push_back(p);
                }
            }
        }
    }
    return out;
}

std::vector<Policy> nat_policies(const KernelOptions& options, const IpAddress& ue,
                                 const IpAddress& ours, const sa::SaNumbers& numbers,
                                 const IpAddress& outer) {
    std::vector<Policy> out;
    const auto states = set_states(ue, ours, numbers, 0);
    for (std::size_t i = 0; i < states.size(); ++i) {
        Policy p = base(options, ours, is_inbound(i) ? Direction::in : Direction::out);
        const IpAddress any = p.selector.source;
        p.selector = states[i].selector;
        p.priority = nat_policy_priority;
        p.tunnel = is_inbound(i) ? Tunnel{any, ours} : Tunnel{ours, outer};
        out.push_back(p);
    }
    return out;
}

bool overlap(const Selector& a, const Selector& b) {
    return a.v6 == b.v6 && prefixes_overlap(a.source, a.source_prefix, b.source, b.source_prefix) &&
           prefixes_overlap(a.destination, a.destination_prefix, b.destination,
                            b.destination_prefix) &&
           ports_overlap(a.source_port, a.source_mask, b.source_port, b.source_mask) &&
           ports_overlap(a.destination_port, a.destination_mask, b.destination_port,
                         b.destination_mask) &&
           (a.protocol == 0 || b.protocol == 0 || a.protocol == b.protocol) &&
           (a.interface == 0 || b.interface == 0 || a.interface == b.interface);
}

std::vector<Policy> stale_policies(std::span<const Policy> wanted, std::span<const Policy> found,
                                   std::uint32_t reqid) {
    std::vector<Policy> out;
    for (const Policy& f : found) {
        if (is_ours(f, reqid) && !f.conditional &&
            std::ranges::none_of(wanted, [&](const Policy& w) { return same_place(w, f); })) {
            out.push_back(f);
        }
    }
    return out;
}

std::optional<std::string> conflict(std::span<const Policy> wanted, std::span<const Policy> found,
                                    std::uint32_t reqid) {
    for (const Policy& f : found) {
        if (is_ours(f, reqid) || !f.main_type || f.on_socket || f.elsewhere) continue;
        for (const Policy& w : wanted) {
            if (f.direction != w.direction) continue;
            if (same_place(f, w) || (f.priority <= w.priority && overlap(f.selector, w.selector))) {
                return fmt::format(
                    "another program's policy covers our protected ports and comes first: {}; "
                    "remove it ('ip xfrm policy'), or give it a priority above {}",
                    to_string(f), policy_priority);
            }
        }
    }
    return std::nullopt;
}

std::string to_string(const Policy& p) {
    const Selector& s = p.selector;
    const char* direction = p.direction == Direction::in    ? "in"
                            : p.direction == Direction::out ? "out"
                                                            : "fwd";
    return fmt::format(
        "{} -> {}, {}, priority {}, reqid {}",
        side(s.source, s.source_prefix, s.source_port, s.source_mask),
        side(s.destination, s.destination_prefix, s.destination_port, s.destination_mask),
        direction, p.priority, p.reqid);
}

}  // namespace gmgate::kernel
