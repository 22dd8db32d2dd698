#include "dataplane/core/checksum.h"

#include <cstring>

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

std::uint16_t fold(std::uint64_t sum) {
    while ((sum >> 16U) != 0) sum = (sum & 0xFFFFU) + (sum >> 16U);
    return static_cast<std::uint16_t>(sum);
}

}  // namespace

std::uint16_t ones_sum(std::span<const std::uint8_t> bytes, std::uint32_t start) {
    // In the machine's order first (RFC 1071 2B: the sum does not care), eight octets at a time.
    std::uint64_t sum = 0;
    const std::uint8_t* p = bytes.data();
    std::size_t left = bytes.size();
    while (left >= 8) {
        std::uint64_t v = 0;
        std::memcpy(&v, p, 8);
        sum += (v & 0xFFFFFFFFU) + (v >> 32U);
        p += 8;
        left -= 8;
    }
    while (left >= 2) {
        std::uint16_t v = 0;
        std::memcpy(&v, p, 2);
        sum += v;
        p += 2;
        left -= 2;
    }
    if (left != 0) sum += *p;  // little-endian: the zero is the high octet
    return fold(std::uint64_t{__builtin_bswap16(fold(sum))} + start);
}

std::uint16_t ipv4_header_checksum(std::span<const std::uint8_t> header) {
    const std::uint16_t present = load_be16(header.data() + 10);
    // Taking a word out of a one's complement sum is adding its complement.
    return static_cast<std::uint16_t>(~ones_sum(header, static_cast<std::uint16_t>(~present)));
}

std::uint16_t transport_checksum(std::span<const std::uint8_t> source,
                                 std::span<const std::uint8_t> destination, std::uint8_t protocol,
                                 std::span<const std::uint8_t> segment) {
    std::uint32_t start = ones_sum(source);
    start += ones_sum(destination);
    start += protocol;
    start += static_cast<std::uint32_t>(segment.size() >> 16U) +
             static_cast<std::uint32_t>(segment.size() & 0xFFFFU);
    const auto checksum = static_cast<std::uint16_t>(~ones_sum(segment, start));
    return checksum == 0 && protocol == 17 ? std::uint16_t{0xFFFF} : checksum;
}

}  // namespace gmgate::dataplane
