#include "dataplane/core/classifier.h"

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

constexpr std::uint16_t ethertype_ipv4 = 0x0800;
constexpr std::uint16_t ethertype_ipv6 = 0x86DD;
constexpr std::uint16_t ethertype_vlan = 0x8100;
constexpr std::uint16_t ethertype_qinq = 0x88A8;
constexpr std::uint32_t ethernet_size = 14;
constexpr std::uint32_t vlan_size = 4;
constexpr std::uint32_t ipv6_size = 40;
constexpr std::uint8_t protocol_icmp = 1;
constexpr std::uint8_t protocol_icmpv6 = 58;

bool is_skipped(std::uint8_t next_header) {
    return next_header == 0 || next_header == 43 || next_header == 60;
}
constexpr std::uint8_t header_fragment = 44;
constexpr std::uint8_t header_authentication = 51;

void classify_transport(std::span<const std::uint8_t> frame, PacketView& view) {
    const std::uint32_t size = view.end - view.l4;
    const std::uint8_t* at = frame.data() + view.l4;
    switch (view.protocol) {
        case protocol_esp:
            view.kind = PacketKind::esp;
            // Less than SPI and sequence number: the caller could not look an SA up.
            if (size < 8) view.kind = PacketKind::malformed_transport;
            return;
        case protocol_udp:
        case protocol_tcp:
            if (size < (view.protocol == protocol_udp ? 8U : 20U)) {
                view.kind = PacketKind::malformed_transport;
                return;
            }
            view.kind = view.protocol == protocol_udp ? PacketKind::udp : PacketKind::tcp;
            view.source_port = load_be16(at);
            view.destination_port = load_be16(at + 2);
            return;
        case protocol_icmp:
        case protocol_icmpv6:
            view.kind = (view.protocol == protocol_icmpv6) == view.v6 && size >= 8
                            ? PacketKind::icmp
                            : PacketKind::other;
            return;
        default:
            view.kind = PacketKind::other;
            return;
    }
}

void classify_ipv4(std::span<const std::uint8_t> frame, PacketView& view) {
    const std::uint8_t* ip = frame.data() + view.l3;
    const auto available = static_cast<std::uint32_t>(frame.size()) - view.l3;
    view.kind = PacketKind::malformed_ip;
    if (available < 20 || (ip[0] >> 4U) != 4) return;
    const std::uint32_t header = (ip[0] & 0x0FU) * 4U;
    const std::uint32_t total = load_be16(ip + 2);
    if (header < 20 || total < header || total > available) return;
    view.ip = true;
    view.end = view.l3 + total;
    view.l4 = static_cast<std::uint16_t>(view.l3 + header);
    view.next_header_at = static_cast<std::uint16_t>(view.l3 + 9);
    view.protocol = ip[9];
    // More fragments, or an offset.
    if ((load_be16(ip + 6) & 0x3FFFU) != 0) {
        view.kind = PacketKind::fragment;
        return;
    }
    classify_transport(frame, view);
}

void classify_ipv6(std::span<const std::uint8_t> frame, PacketView& view) {
    const std::uint8_t* ip = frame.data() + view.l3;
    const auto available = static_cast<std::uint32_t>(frame.size()) - view.l3;
    view.kind = PacketKind::malformed_ip;
    if (available < ipv6_size || (ip[0] >> 4U) != 6) return;
    const std::uint32_t payload = load_be16(ip + 4);
    if (payload > available - ipv6_size) return;
    view.ip = true;
    view.v6 = true;
    view.end = view.l3 + ipv6_size + payload;
    std::uint32_t at = view.l3 + ipv6_size;
    std::uint32_t named_at = view.l3 + 6U;
    std::uint8_t next = ip[6];
    for (unsigned n = 0; is_skipped(next); ++n) {
        if (n == max_extension_headers || view.end - at < 8) {
            view.kind = PacketKind::extension_headers;
            return;
        }
        const std::uint32_t size = (frame[at + 1] + 1U) * 8U;
        if (size > view.end - at) {
            view.kind = PacketKind::extension_headers;
            return;
        }
        next = frame[at];
        named_at = at;
        at += size;
    }
    view.l4 = static_cast<std::uint16_t>(at);
    view.next_header_at = static_cast<std::uint16_t>(named_at);
    view.protocol = next;
    if (next == header_fragment) {
        view.kind = PacketKind::fragment;
        return;
    }
    classify_transport(frame, view);
}

}  // namespace

PacketView classify(std::span<const std::uint8_t> frame) {
    PacketView view;
    if (frame.size() < ethernet_size) return view;
    std::uint16_t ethertype = load_be16(frame.data() + 12);
    view.l3 = ethernet_size;
    // All of them: the host's stack takes off any number of tags with VLAN 0 and delivers what lies
    // beneath (A6).
    while (ethertype == ethertype_vlan || ethertype == ethertype_qinq) {
        if (frame.size() < view.l3 + vlan_size) return view;
        ethertype = load_be16(frame.data() + view.l3 + 2);
        view.l3 = static_cast<std::uint16_t>(view.l3 + vlan_size);
    }
    if (ethertype == ethertype_ipv4) {
        classify_ipv4(frame, view);
    } else if (ethertype == ethertype_ipv6) {
        classify_ipv6(frame, view);
    }
    return view;
}

std::optional<QuotedFlow> quoted_flow(std::span<const std::uint8_t> frame, const PacketView& view) {
    const std::uint8_t type = frame[view.l4];
    const bool error = view.v6 ? (type >= 1 && type <= 4)
                               : (type == 3 || type == 4 || type == 5 || type == 11 || type == 12);
    if (!error) return std::nullopt;
    const std::uint32_t inner = view.l4 + 8U;
    const std::uint32_t size = view.end - inner;
    std::uint32_t transport = 0;
    std::uint8_t protocol = 0;
    QuotedFlow quoted;
    // Read as the host's stack reads it, which looks at the ports whatever fragment offset stands
    // there, and behind any number of extension headers.
    if (!view.v6) {
        if (size < 20 || (frame[inner] >> 4U) != 4) return std::nullopt;
        transport = (frame[inner] & 0x0FU) * 4U;
        if (transport < 20) return std::nullopt;
        protocol = frame[inner + 9];
        quoted.source_at = inner + 12;
        quoted.destination_at = inner + 16;
    } else {
        if (size < ipv6_size || (frame[inner] >> 4U) != 6) return std::nullopt;
        transport = ipv6_size;
        protocol = frame[inner + 6];
        while (is_skipped(protocol) || protocol == header_fragment ||
               protocol == header_authentication) {
            if (size < transport + 8) return std::nullopt;
            const std::uint8_t* header = &frame[inner + transport];
            if (protocol == header_fragment) {
                transport += 8;
            } else if (protocol == header_authentication) {
                transport += (header[1] + 2U) * 4U;
            } else {
                transport += (header[1] + 1U) * 8U;
            }
            protocol = header[0];
        }
        quoted.source_at = inner + 8;
        quoted.destination_at = inner + 24;
        quoted.v6 = true;
    }
    if ((protocol != protocol_udp && protocol != protocol_tcp) || size < transport + 4)
        return std::nullopt;
    quoted.source_port = load_be16(&frame[inner + transport]);
    quoted.destination_port = load_be16(&frame[inner + transport + 2]);
    return quoted;
}

}  // namespace gmgate::dataplane
