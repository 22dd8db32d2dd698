#pragma once
// Internet checksums (RFC 1071, 1624, 8200 8.1).

#include <cstddef>
#include <cstdint>
#include <span>

namespace gmgate::dataplane {

// Sum of 16-bit words, folded to 16 bits, not complemented; an odd last octet counts as if a zero
// followed.
[[nodiscard]] std::uint16_t ones_sum(std::span<const std::uint8_t> bytes, std::uint32_t start = 0);

// Checksum field (big-endian value) of an IPv4 header whose checksum field counts as zero.
[[nodiscard]] std::uint16_t ipv4_header_checksum(std::span<const std::uint8_t> header);

// RFC 1624: the checksum after one 16-bit word of what it covers changed. A wrong checksum stays
// wrong.
[[nodiscard]] inline std::uint16_t checksum_update(std::uint16_t checksum, std::uint16_t old_word,
                                                   std::uint16_t new_word) {
    std::uint32_t sum = static_cast<std::uint16_t>(~checksum) +
                        static_cast<std::uint32_t>(static_cast<std::uint16_t>(~old_word)) +
                        new_word;
    sum = (sum & 0xFFFFU) + (sum >> 16U);
    sum = (sum & 0xFFFFU) + (sum >> 16U);
    return static_cast<std::uint16_t>(~sum);
}

// Checksum of a UDP (protocol 17) or TCP (6) segment with its pseudo header; the segment's checksum
// field must be zero. Addresses: 4 or 16 octets each. UDP's 0 is already turned into 0xFFFF.
[[nodiscard]] std::uint16_t transport_checksum(std::span<const std::uint8_t> source,
                                               std::span<const std::uint8_t> destination,
                                               std::uint8_t protocol,
                                               std::span<const std::uint8_t> segment);

}  // namespace gmgate::dataplane
