#include "ue/packet.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/unit/ue/test_data.h"

namespace gmgate::ue {
namespace {

const Endpoint a4 = *Endpoint::parse("10.20.0.1:40001");
const Endpoint b4 = *Endpoint::parse("10.21.0.1:6100");
const Endpoint a6 = *Endpoint::parse("[fd00:20::1]:40001");
const Endpoint b6 = *Endpoint::parse("[fd00:21::1]:6100");

TEST(Udp, RoundTripAndChecksum) {
    for (const auto& [a, b] : {std::pair{a4, b4}, std::pair{a6, b6}}) {
        for (const std::size_t n : {0U, 1U, 2U, 3U, 1400U}) {
            Bytes payload(n, 0x55);
            Bytes out;
            build_udp(a, b, payload, out);
            const auto v = read_udp(a.address, b.address, out);
            ASSERT_TRUE(v);
            EXPECT_EQ(v->from_port, 40001);
            EXPECT_EQ(v->to_port, 6100);
            EXPECT_EQ(v->payload.size(), n);
            for (std::size_t i = 0; i < out.size(); ++i) {
                Bytes bad = out;
                bad[i] ^= 0x10;
                EXPECT_FALSE(read_udp(a.address, b.address, bad)) << i;
            }
            EXPECT_FALSE(read_udp(a.address, a.address, out))
                << "the addresses are part of the checksum";
        }
    }
}

TEST(Udp, KnownChecksum) {
    // The inner datagram of annex_i.json has a zero checksum: fine over IPv4, not over IPv6 (RFC
    // 8200 8.1).
    const Bytes udp = test::hex(test::load("annex_i.json")["udp"]);
    EXPECT_TRUE(read_udp(a4.address, b4.address, udp));
    EXPECT_FALSE(read_udp(a6.address, b6.address, udp));
    // RFC 1071's own numbers: 0001 f203 f4f5 f6f7 sums to ddf2, complement 220d; taken as a segment
    // between zero addresses with the protocol and length taken out of it.
    const Bytes data = test::hex("0001f203f4f5f6f7");
    const auto zero = IpAddress::v4(std::array<std::uint8_t, 4>{});
    std::uint32_t sum = 0xFFFFU - transport_checksum(zero, zero, 0, data);
    sum += 0xFFFFU - 8U;  // minus the length, in ones' complement
    while (sum > 0xFFFFU) sum = (sum & 0xFFFFU) + (sum >> 16U);
    EXPECT_EQ(sum, 0xDDF2U);
}

TEST(TcpHeader, RoundTripAndOptions) {
    TcpSegment s;
    s.from_port = 40001;
    s.to_port = 6100;
    s.sequence = 0x01020304;
    s.acknowledgment = 0x05060708;
    s.flags = tcp_flag::syn | tcp_flag::ack;
    s.window = 4321;
    s.mss = 1360;
    Bytes out;
    build_tcp(a4.address, b4.address, s, out);
    auto v = read_tcp(a4.address, b4.address, out);
    ASSERT_TRUE(v);
    EXPECT_EQ(v->sequence, s.sequence);
    EXPECT_EQ(v->acknowledgment, s.acknowledgment);
    EXPECT_EQ(v->flags, s.flags);
    EXPECT_EQ(v->window, s.window);
    EXPECT_EQ(v->mss, 1360);
    EXPECT_TRUE(v->payload.empty());
    for (std::size_t n = 0; n < out.size(); ++n)
        EXPECT_FALSE(read_tcp(a4.address, b4.address, std::span(out).first(n)));
}

TEST(TcpHeader, OptionsThatLieAreHarmless) {
    SeededRandom random(3);
    unsigned read = 0, refused = 0;
    for (int round = 0; round < 2000; ++round) {
        Bytes b(20 + random.below(60));
        random.fill(b);
        store_be16(&b[16], 0);
        store_be16(&b[16], transport_checksum(a4.address, b4.address, 6, b));
        const auto s = read_tcp(a4.address, b4.address, b);
        const std::size_t header = static_cast<std::size_t>(b[12] >> 4U) * 4;
        // A header that is too short or longer than the packet is none.
        EXPECT_TRUE(!s || (header >= 20 && header <= b.size())) << header << ' ' << b.size();
        if (!s) {
            ++refused;
            continue;
        }
        EXPECT_EQ(s->payload.size(), b.size() - header);
        ++read;
    }
    EXPECT_GT(read, 300U);
    EXPECT_GT(refused, 300U);
}

TEST(Ip, FragmentsMakeTheWhole) {
    for (const auto& [a, b] : {std::pair{a4, b4}, std::pair{a6, b6}}) {
        const std::size_t header = a.address.is_v6() ? 40 : 20;
        Bytes payload(4001);
        SeededRandom(1).fill(payload);
        std::vector<Bytes> packets;
        build_ip(a.address, b.address, 50, payload, 1500, 77, packets);
        ASSERT_EQ(packets.size(), 3U);
        Bytes whole(payload.size());
        std::size_t total = 0;
        for (std::size_t i = 0; i < packets.size(); ++i) {
            const Bytes& p = packets[i];
            EXPECT_LE(p.size(), 1500U);
            std::size_t offset = 0;
            bool more = false;
            std::size_t start = header;
            if (a.address.is_v6()) {
                EXPECT_EQ(p[6], 44);
                EXPECT_EQ(p[40], 50);
                offset = load_be16(&p[42]) & 0xFFF8U;
                more = (load_be16(&p[42]) & 1U) != 0;
                start += 8;
                EXPECT_EQ(load_be16(&p[4]), p.size() - 40);
            } else {
                offset = (load_be16(&p[6]) & 0x1FFFU) * 8U;
                more = (load_be16(&p[6]) & 0x2000U) != 0;
                EXPECT_EQ(load_be16(&p[2]), p.size());
                EXPECT_FALSE(read_ipv4(p)) << "fragments are the kernel's";
            }
            EXPECT_EQ(more, i + 1 < packets.size());
            std::copy(p.begin() + static_cast<std::ptrdiff_t>(start), p.end(),
                      whole.begin() + static_cast<std::ptrdiff_t>(offset));
            total += p.size() - start;
        }
        EXPECT_EQ(total, payload.size());
        EXPECT_EQ(whole, payload);
    }
}

TEST(Ip, ReadBack) {
    std::vector<Bytes> packets;
    const Bytes payload(100, 3);
    build_ip(a4.address, b4.address, 50, payload, 1500, 1, packets);
    ASSERT_EQ(packets.size(), 1U);
    auto v = read_ipv4(packets[0]);
    ASSERT_TRUE(v);
    EXPECT_EQ(v->from, a4.address);
    EXPECT_EQ(v->to, b4.address);
    EXPECT_EQ(v->protocol, 50);
    EXPECT_EQ(v->payload.size(), 100U);
    for (std::size_t n = 0; n < 20; ++n) EXPECT_FALSE(read_ipv4(std::span(packets[0]).first(n)));
}

}  // namespace
}  // namespace gmgate::ue
