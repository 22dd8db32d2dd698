#pragma once
// What a frame is, in one bounded pass: Ethernet, VLAN tags, IPv4 with options, IPv6 with extension
// headers.

#include <cstdint>
#include <optional>
#include <span>

namespace gmgate::dataplane {

inline constexpr std::uint8_t protocol_tcp = 6;
inline constexpr std::uint8_t protocol_udp = 17;
inline constexpr std::uint8_t protocol_esp = 50;
inline constexpr std::uint8_t protocol_none = 59;  // IPv6 no next header; dummy packet in ESP

enum class PacketKind : std::uint8_t {
    other,  // not IP, or IP with another protocol: offsets are valid if `ip` is true
    udp,
    tcp,
    esp,       // at least 8 octets of it
    icmp,      // ICMP or ICMPv6, at least 8 octets
    fragment,  // any fragment, the first included
    malformed_ip,
    extension_headers,
    malformed_transport,
};

// Offsets in octets from the frame's start.
struct PacketView {
    PacketKind kind = PacketKind::other;
    bool ip = false;  // l3, end, v6 and the addresses may be used
    bool v6 = false;
    std::uint8_t protocol = 0;
    std::uint16_t l3 = 0;              // IP header
    std::uint16_t l4 = 0;              // what follows IP header, options and extension headers
    std::uint16_t next_header_at = 0;  // the octet that names what stands at l4
    std::uint32_t end = 0;             // end of the IP packet: link padding begins here
    std::uint16_t source_port = 0;     // udp, tcp
    std::uint16_t destination_port = 0;

    [[nodiscard]] std::uint16_t source_at() const {
        return static_cast<std::uint16_t>(l3 + (v6 ? 8 : 12));
    }
    [[nodiscard]] std::uint16_t destination_at() const {
        return static_cast<std::uint16_t>(l3 + (v6 ? 24 : 16));
    }
};

// Extension headers skipped: hop-by-hop, routing, destination options; so many at most.
inline constexpr unsigned max_extension_headers = 8;

[[nodiscard]] PacketView classify(std::span<const std::uint8_t> frame);

// The UDP or TCP packet that an ICMP error quotes: where its addresses are in the frame, its ports.
struct QuotedFlow {
    std::uint32_t source_at = 0;
    std::uint32_t destination_at = 0;
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    bool v6 = false;
};
// `view.kind` must be icmp. nullopt: not an error, or it quotes nothing that has ports.
[[nodiscard]] std::optional<QuotedFlow> quoted_flow(std::span<const std::uint8_t> frame,
                                                    const PacketView& view);

}  // namespace gmgate::dataplane
