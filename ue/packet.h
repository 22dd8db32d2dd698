#pragma once
// IPv4, IPv6, UDP and TCP headers as octets: what the UE builds and reads itself because its
// packets travel inside ESP.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/ip.h"

namespace gmgate::ue {

inline constexpr std::size_t udp_header_size = 8;
inline constexpr std::size_t tcp_header_size = 20;

// The Internet checksum of `segment` (UDP or TCP, checksum field as it stands) with the
// pseudo-header of the two addresses. 0 when the field is already right. Both addresses of one
// family.
[[nodiscard]] std::uint16_t transport_checksum(const IpAddress& from, const IpAddress& to,
                                               std::uint8_t protocol,
                                               std::span<const std::uint8_t> segment);

// A UDP datagram, checksum filled in. Payload at most 65,507 octets.
void build_udp(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> payload,
               Bytes& out);

struct UdpView {
    std::uint16_t from_port = 0;
    std::uint16_t to_port = 0;
    std::span<const std::uint8_t> payload;
};
// nullopt: too short, wrong length, wrong checksum (a zero checksum is taken over IPv4 only).
[[nodiscard]] std::optional<UdpView> read_udp(const IpAddress& from, const IpAddress& to,
                                              std::span<const std::uint8_t> segment);

namespace tcp_flag {
inline constexpr std::uint8_t fin = 1;
inline constexpr std::uint8_t syn = 2;
inline constexpr std::uint8_t rst = 4;
inline constexpr std::uint8_t psh = 8;
inline constexpr std::uint8_t ack = 16;
}  // namespace tcp_flag

struct TcpSegment {
    std::uint16_t from_port = 0;
    std::uint16_t to_port = 0;
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgment = 0;
    std::uint8_t flags = 0;
    std::uint16_t window = 0;
    std::uint16_t mss = 0;  // the option; 0: absent. Built only with SYN.
    std::span<const std::uint8_t> payload;
};
void build_tcp(const IpAddress& from, const IpAddress& to, const TcpSegment& segment, Bytes& out);
[[nodiscard]] std::optional<TcpSegment> read_tcp(const IpAddress& from, const IpAddress& to,
                                                 std::span<const std::uint8_t> segment);

// Whole IP packets with `payload`, cut into fragments where `mtu` asks for it. `identification`
// names the datagram. Appends to `out`.
void build_ip(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
              std::span<const std::uint8_t> payload, std::size_t mtu, std::uint32_t identification,
              std::vector<Bytes>& out);

struct IpView {
    IpAddress from;
    IpAddress to;
    std::uint8_t protocol = 0;
    std::span<const std::uint8_t> payload;
};
// A whole IPv4 packet as a raw socket gives it. nullopt: not one, or a fragment.
[[nodiscard]] std::optional<IpView> read_ipv4(std::span<const std::uint8_t> packet);

}  // namespace gmgate::ue
