#pragma once
// ESP in UDP (RFC 3948) in tunnel mode, for UEs behind a NAT (N1): what comes to port 4500, the
// packet inside, and the two headers outside. IPv4 only (docs/decisions/0021).

#include <array>
#include <cstdint>
#include <expected>
#include <span>

#include "dataplane/core/classifier.h"
#include "dataplane/core/drop_reason.h"

namespace gmgate::dataplane {

inline constexpr std::uint16_t encapsulation_port = 4500;  // ours, both ways
inline constexpr std::uint8_t protocol_ipv4 = 4;           // next header of tunnel mode
inline constexpr std::uint32_t udp_header_size = 8;
inline constexpr std::uint32_t inner_header_size = 20;       // without options
inline constexpr std::uint32_t outer_headers_size = 20 + 8;  // IPv4 without options, UDP
// What tunnel mode in UDP adds to a packet beside ESP's own octets: the two headers outside.
inline constexpr std::uint32_t encapsulation_overhead = outer_headers_size;

enum class Encapsulated : std::uint8_t {
    esp,        // the view then begins at the SPI and ends with the datagram
    keepalive,  // one octet 0xFF
    other,      // IKE (four zero octets), too short to be ESP, or IPv6
    malformed,  // UDP's length does not fit the packet
};
// What a datagram to port 4500 is. `view.kind` must be udp; `esp` moves `view.l4` and `view.end`.
[[nodiscard]] Encapsulated look_into(std::span<const std::uint8_t> frame, PacketView& view);

// One side of a flow: an address and a port (host order).
struct Ipv4Endpoint {
    std::array<std::uint8_t, 4> address{};
    std::uint16_t port = 0;
    bool operator==(const Ipv4Endpoint&) const = default;
};

// The length of the IP packet that begins `payload` (padding for secrecy may follow it), if it is
// one a phone may send here (A3): from `ue` to `ours`, UDP or TCP, whole, header sound and without
// options. Otherwise why not.
[[nodiscard]] std::expected<std::uint32_t, DropReason> inner_length(
    std::span<const std::uint8_t> payload, const Ipv4Endpoint& ue, const Ipv4Endpoint& ours);

// The same for a fragment of such a packet, whose ports are to be looked at when it is whole.
[[nodiscard]] std::expected<std::uint32_t, DropReason> inner_fragment_length(
    std::span<const std::uint8_t> payload, const Ipv4Endpoint& ue, const Ipv4Endpoint& ours);
// Is the IPv4 packet at `payload` a fragment? No other of its properties is looked at.
[[nodiscard]] bool is_fragment(std::span<const std::uint8_t> payload);

// Put another source or destination into an IPv4 packet without options that holds a whole UDP or
// TCP header, and correct its checksums: a wrong one stays wrong, an absent one (UDP) absent.
void translate_source(std::uint8_t* ip, const Ipv4Endpoint& to);
void translate_destination(std::uint8_t* ip, const Ipv4Endpoint& to);

// RFC 6040: congestion the outside has met is told to who can hear of it. Corrects the checksum.
void take_over_congestion(std::uint8_t outer_tos, std::uint8_t* inner_ip);

// IPv4 and UDP headers, outer_headers_size octets, for a datagram of `length` octets altogether.
// May be fragmented on its way (DF is not set); the UDP checksum is zero (RFC 3948 2.1).
void write_outer_headers(std::uint8_t* at, std::uint32_t length, std::uint8_t tos,
                         std::uint16_t identification, const std::array<std::uint8_t, 4>& ours,
                         const Ipv4Endpoint& to);

// An address UDP may come from: not "this network", loopback, multicast or broadcast.
[[nodiscard]] bool is_unicast(std::uint32_t ipv4);

}  // namespace gmgate::dataplane
