#pragma once
// Frames of ESP in UDP (RFC 3948), as a phone behind a NAT sends them, for tests.

#include <algorithm>

#include "base/bytes.h"
#include "base/ip.h"
#include "tests/unit/dataplane_dpdk/reference_esp.h"

namespace gmgate::dataplane::test {

inline Octets octets_of(const IpAddress& a) {
    return {a.octets().begin(), a.octets().end()};
}

// Ethernet, IPv4, UDP from `source` to port 4500 of `to`, around `payload`; no UDP checksum.
inline Octets in_udp(const Octets& payload, const Endpoint& source, const IpAddress& to) {
    Octets frame = plain_frame({.source = octets_of(source.address),
                                .destination = octets_of(to),
                                .source_port = source.port,
                                .destination_port = 4500},
                               payload.size());
    std::copy(payload.begin(), payload.end(), frame.begin() + 42);
    store_be16(&frame[40], 0);
    return frame;
}

// What is inside the frame of a datagram.
inline Octets out_of_udp(const Octets& frame) {
    return {frame.begin() + 42, frame.end()};
}

// An IP packet as a frame again, with an empty Ethernet header.
inline Octets as_frame(const Octets& packet) {
    Octets frame(14 + packet.size());
    frame[12] = 8;
    std::copy(packet.begin(), packet.end(), frame.begin() + 14);
    return frame;
}
inline Octets as_packet(const Octets& frame) {
    return {frame.begin() + 14, frame.end()};
}

}  // namespace gmgate::dataplane::test
