#include "dataplane/core/checksum.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

// RFC 1071, word by word, as one would write it on paper.
std::uint16_t slow_sum(const std::vector<std::uint8_t>& bytes, std::uint32_t start) {
    std::uint64_t sum = start;
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
        sum += static_cast<std::uint64_t>(bytes[i]) << 8U;
        if (i + 1 < bytes.size()) sum += bytes[i + 1];
    }
    while (sum > 0xFFFF) sum = (sum & 0xFFFFU) + (sum >> 16U);
    return static_cast<std::uint16_t>(sum);
}

TEST(Checksum, Rfc1071Example) {
    const std::vector<std::uint8_t> bytes{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    EXPECT_EQ(ones_sum(bytes), 0xddf2);
}

TEST(Checksum, AgreesWithTheSlowSumAtAllLengths) {
    std::mt19937 random(1);
    for (std::size_t size = 0; size < 300; ++size) {
        std::vector<std::uint8_t> bytes(size);
        for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
        const std::uint32_t start = static_cast<std::uint32_t>(random()) & 0x3FFFFU;
        ASSERT_EQ(ones_sum(bytes, start), slow_sum(bytes, start)) << size;
    }
    // The largest sums there are.
    EXPECT_EQ(ones_sum(std::vector<std::uint8_t>(65535, 0xFF), 0xFFFFFFFF),
              slow_sum(std::vector<std::uint8_t>(65535, 0xFF), 0xFFFFFFFF));
}

TEST(Checksum, Ipv4Header) {
    auto header = *from_hex("45000073000040004011b861c0a80001c0a800c7");
    EXPECT_EQ(ipv4_header_checksum(header), 0xb861);
    header[10] = 0x12;
    header[11] = 0x34;
    EXPECT_EQ(ipv4_header_checksum(header), 0xb861) << "what stands in the field must not matter";
}

TEST(Checksum, IncrementalUpdateIsTheFullOne) {
    std::mt19937 random(2);
    for (int n = 0; n < 20000; ++n) {
        std::vector<std::uint8_t> header(20);
        for (auto& b : header) b = static_cast<std::uint8_t>(random());
        header[0] = 0x45;
        store_be16(&header[10], ipv4_header_checksum(header));
        const std::uint16_t old_word = load_be16(&header[2]);
        const auto new_word = static_cast<std::uint16_t>(random());
        const std::uint16_t updated = checksum_update(load_be16(&header[10]), old_word, new_word);
        store_be16(&header[2], new_word);
        store_be16(&header[10], updated);
        ASSERT_EQ(ones_sum(header), 0xFFFF);
        // And a wrong one stays wrong.
        store_be16(&header[10], static_cast<std::uint16_t>(updated ^ 0x0100U));
        store_be16(&header[10], checksum_update(load_be16(&header[10]), new_word, old_word));
        store_be16(&header[2], old_word);
        ASSERT_NE(ones_sum(header), 0xFFFF);
    }
}

TEST(Checksum, TransportOverBothFamilies) {
    std::mt19937 random(3);
    for (const std::size_t address : {4U, 16U}) {
        for (const std::uint8_t protocol : {std::uint8_t{6}, std::uint8_t{17}}) {
            for (std::size_t size = 20; size < 80; ++size) {
                std::vector<std::uint8_t> source(address), destination(address), segment(size);
                for (auto* v : {&source, &destination, &segment}) {
                    for (auto& b : *v) b = static_cast<std::uint8_t>(random());
                }
                std::uint8_t* field = &segment[protocol == 17 ? 6 : 16];
                store_be16(field, 0);
                store_be16(field, transport_checksum(source, destination, protocol, segment));
                std::vector<std::uint8_t> all = source;
                all.insert(all.end(), destination.begin(), destination.end());
                const auto length = static_cast<std::uint16_t>(size);
                all.insert(all.end(), {0, protocol, static_cast<std::uint8_t>(length >> 8U),
                                       static_cast<std::uint8_t>(length)});
                all.insert(all.end(), segment.begin(), segment.end());
                ASSERT_EQ(slow_sum(all, 0), 0xFFFF) << size;
            }
        }
    }
}

TEST(Checksum, UdpNeverSaysZero) {
    // A segment whose sum is all ones: its checksum would be 0, which in UDP means "none".
    std::vector<std::uint8_t> source(4), destination(4), segment(8);
    segment[0] = 0xFF;
    segment[1] = static_cast<std::uint8_t>(0xFF - 17 - 8);
    EXPECT_EQ(transport_checksum(source, destination, 17, segment), 0xFFFF);
    segment[1] = static_cast<std::uint8_t>(0xFF - 6 - 8);
    EXPECT_EQ(transport_checksum(source, destination, 6, segment), 0);
}

}  // namespace
}  // namespace gmgate::dataplane
