#pragma once
// What XFRM's netlink messages say, as plain values: the vocabulary of the encoder and the decoder.

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/ip.h"
#include "sa/types.h"

namespace gmgate::kernel {

// Which packets. A prefix of 0 takes any address; a mask of 0 any port.
struct Selector {
    bool v6 = false;
    IpAddress source;
    IpAddress destination;
    std::uint8_t source_prefix = 0;
    std::uint8_t destination_prefix = 0;
    sa::Port source_port = 0;
    sa::Port source_mask = 0;
    sa::Port destination_port = 0;
    sa::Port destination_mask = 0;
    std::uint8_t protocol = 0;  // 0: any
    std::int32_t interface = 0;
    bool operator==(const Selector&) const = default;
};

// One state, as the kernel finds it on input.
struct StateId {
    IpAddress destination;
    sa::Spi spi = 0;
    bool operator==(const StateId&) const = default;
};

// One algorithm of a state. Borrowed memory; `key` holds a secret.
struct Algorithm {
    std::string_view name;
    std::span<const std::uint8_t> key;
    std::uint32_t icv_bits = 0;  // truncation (auth), ICV (AEAD); 0: encryption alone
};

// RFC 3948; ports in host order.
struct Encapsulation {
    std::uint16_t type = 0;  // UDP_ENCAP_ESPINUDP: 2
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    bool operator==(const Encapsulation&) const = default;
};

struct OffloadDevice {
    std::int32_t interface = 0;
    std::uint8_t flags = 0;  // XFRM_OFFLOAD_INBOUND, XFRM_OFFLOAD_PACKET
    bool operator==(const OffloadDevice&) const = default;
};

inline constexpr std::uint8_t protocol_esp = 50;
inline constexpr std::uint64_t no_limit = ~std::uint64_t{0};

// One state: what is asked for, and, decoded, also what it has come to.
struct State {
    StateId id;
    IpAddress source;
    Selector selector;
    std::uint8_t protocol = protocol_esp;
    std::uint8_t mode = 0;  // XFRM_MODE_TRANSPORT
    std::uint32_t reqid = 0;
    std::optional<Algorithm> auth;
    std::optional<Algorithm> crypt;
    std::optional<Algorithm> aead;
    std::uint32_t replay_window = 0;  // packets
    std::uint32_t out_sequence = 0;   // the highest used
    std::uint64_t soft_packets = no_limit;
    std::uint64_t hard_packets = no_limit;
    std::optional<std::uint32_t> set_mark;
    std::optional<Encapsulation> encapsulation;
    std::optional<OffloadDevice> offload;
    // Decoded only.
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint32_t replays = 0;  // duplicates and packets left of the window
    std::uint32_t integrity_failures = 0;
    std::uint32_t in_sequence = 0;  // the highest taken
    std::uint64_t last_used = 0;    // wall clock, seconds; 0: the kernel does not say
};

enum class Direction : std::uint8_t { in, out, forward };  // XFRM_POLICY_IN, _OUT, _FWD

// The way of a tunnel's outer packets; an unspecified address: any.
struct Tunnel {
    IpAddress source;
    IpAddress destination;
    bool operator==(const Tunnel&) const = default;
};

// One policy with at most one template: ESP, `reqid`; transport mode with any address, or `tunnel`.
struct Policy {
    Selector selector;
    Direction direction = Direction::in;
    bool block = false;  // false: allow what the template demands
    std::uint32_t priority = 0;
    std::uint32_t reqid = 0;
    std::optional<Tunnel> tunnel;  // not decoded
    std::optional<OffloadDevice> offload;
    // Decoded only. `direction` of a socket's policy is none of the three: `on_socket`.
    bool on_socket = false;
    bool main_type = true;
    bool conditional = false;  // names a mark or an XFRM interface: part of its place
    bool elsewhere = false;    // takes only packets with a mark, or of an XFRM interface
    std::uint32_t index = 0;
    unsigned templates = 0;
    bool operator==(const Policy&) const = default;
};

}  // namespace gmgate::kernel
