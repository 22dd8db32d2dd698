#include "dataplane/core/classifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

using Frame = std::vector<std::uint8_t>;

Frame ethernet(std::uint16_t type, const Frame& payload, unsigned vlans = 0) {
    Frame f(12, 0x02);
    for (unsigned i = 0; i < vlans; ++i) f.insert(f.end(), {0x81, 0x00, 0x00, 0x05});
    f.insert(f.end(), {static_cast<std::uint8_t>(type >> 8U), static_cast<std::uint8_t>(type)});
    f.insert(f.end(), payload.begin(), payload.end());
    return f;
}

Frame ipv4(std::uint8_t protocol, const Frame& payload, std::size_t options = 0,
           std::uint16_t fragment = 0) {
    Frame ip(20 + options);
    ip[0] = static_cast<std::uint8_t>(0x40U | ((20 + options) / 4));
    store_be16(&ip[2], static_cast<std::uint16_t>(ip.size() + payload.size()));
    store_be16(&ip[6], fragment);
    ip[8] = 64;
    ip[9] = protocol;
    ip[12] = 10;
    ip[16] = 192;
    ip.insert(ip.end(), payload.begin(), payload.end());
    return ip;
}

Frame ipv6(std::uint8_t next, const Frame& payload) {
    Frame ip(40);
    ip[0] = 0x60;
    store_be16(&ip[4], static_cast<std::uint16_t>(payload.size()));
    ip[6] = next;
    ip[7] = 64;
    ip.insert(ip.end(), payload.begin(), payload.end());
    return ip;
}

Frame udp(std::uint16_t source, std::uint16_t destination, std::size_t data = 10) {
    Frame u(8 + data);
    store_be16(&u[0], source);
    store_be16(&u[2], destination);
    store_be16(&u[4], static_cast<std::uint16_t>(u.size()));
    return u;
}

Frame extension(std::uint8_t next, std::size_t units = 0) {
    Frame e(8 + 8 * units);
    e[0] = next;
    e[1] = static_cast<std::uint8_t>(units);
    return e;
}

Frame join(std::initializer_list<Frame> parts) {
    Frame all;
    for (const auto& p : parts) all.insert(all.end(), p.begin(), p.end());
    return all;
}

TEST(Classifier, UdpOverIpv4) {
    Frame f = ethernet(0x0800, ipv4(17, udp(1111, 2222)));
    f.resize(f.size() + 6);  // link padding
    const PacketView v = classify(f);
    EXPECT_EQ(v.kind, PacketKind::udp);
    EXPECT_TRUE(v.ip);
    EXPECT_FALSE(v.v6);
    EXPECT_EQ(v.l3, 14);
    EXPECT_EQ(v.l4, 34);
    EXPECT_EQ(v.end, 52U);
    EXPECT_EQ(v.source_port, 1111);
    EXPECT_EQ(v.destination_port, 2222);
    EXPECT_EQ(f[v.source_at()], 10);
    EXPECT_EQ(f[v.destination_at()], 192);
    EXPECT_EQ(f[v.next_header_at], 17);
}

TEST(Classifier, OneVlanTagAndIpv4Options) {
    for (std::size_t options = 0; options <= 40; options += 4) {
        const Frame f = ethernet(0x0800, ipv4(6, Frame(20), options), 1);
        const PacketView v = classify(f);
        EXPECT_EQ(v.kind, PacketKind::tcp);
        EXPECT_EQ(v.l3, 18);
        EXPECT_EQ(v.l4, 38 + options);
    }
    // The host strips priority tags however many there are: what hides behind them is a packet too.
    for (unsigned vlans = 2; vlans <= 5; ++vlans) {
        const PacketView v = classify(ethernet(0x0800, ipv4(17, udp(1, 2)), vlans));
        EXPECT_EQ(v.kind, PacketKind::udp) << vlans;
        EXPECT_EQ(v.l3, 14 + 4 * vlans);
        EXPECT_EQ(v.destination_port, 2);
    }
}

TEST(Classifier, Ipv6AndItsExtensionHeaders) {
    PacketView v = classify(ethernet(0x86DD, ipv6(17, udp(7, 8))));
    EXPECT_EQ(v.kind, PacketKind::udp);
    EXPECT_TRUE(v.v6);
    EXPECT_EQ(v.l4, 54);
    EXPECT_EQ(v.destination_port, 8);

    const Frame f = ethernet(
        0x86DD,
        ipv6(0, join({extension(43, 1), extension(60, 2), extension(50), Frame(16, 0xAA)})));
    v = classify(f);
    EXPECT_EQ(v.kind, PacketKind::esp);
    EXPECT_EQ(v.l4, 14 + 40 + 16 + 24 + 8);
    EXPECT_EQ(f[v.next_header_at], 50);
    EXPECT_EQ(v.end, f.size());
}

TEST(Classifier, CountsExtensionHeaders) {
    Frame chain;
    for (unsigned i = 0; i < max_extension_headers; ++i) {
        chain = join({extension(i == 0 ? std::uint8_t{17} : std::uint8_t{60}), chain});
    }
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(60, join({chain, udp(1, 2)})))).kind, PacketKind::udp);
    chain = join({extension(60), chain});
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(60, join({chain, udp(1, 2)})))).kind,
              PacketKind::extension_headers);
}

TEST(Classifier, TruncatedExtensionHeader) {
    Frame header = extension(17, 5);
    header.resize(16);
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(60, header))).kind, PacketKind::extension_headers);
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(60, Frame(7)))).kind, PacketKind::extension_headers);
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(0, Frame()))).kind, PacketKind::extension_headers);
}

// The header fits, what it promises does not follow.
TEST(Classifier, AnExtensionHeaderAtTheVeryEnd) {
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(60, extension(17)))).kind,
              PacketKind::malformed_transport);
}

TEST(Classifier, Fragments) {
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(17, udp(1, 2), 0, 0x2000))).kind,
              PacketKind::fragment);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(17, udp(1, 2), 0, 0x0001))).kind,
              PacketKind::fragment);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(50, Frame(), 0, 0x1FFF))).kind, PacketKind::fragment);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(17, udp(1, 2), 0, 0x4000))).kind, PacketKind::udp)
        << "do not fragment";
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(44, join({extension(17), udp(1, 2)})))).kind,
              PacketKind::fragment);
    EXPECT_EQ(
        classify(ethernet(0x86DD, ipv6(0, join({extension(44), extension(50), Frame(8)})))).kind,
        PacketKind::fragment);
}

TEST(Classifier, OtherTraffic) {
    EXPECT_EQ(classify(ethernet(0x0806, Frame(28))).kind, PacketKind::other);
    EXPECT_FALSE(classify(ethernet(0x0806, Frame(28))).ip);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(132, Frame(20)))).kind, PacketKind::other);
    EXPECT_TRUE(classify(ethernet(0x0800, ipv4(132, Frame(20)))).ip);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(1, Frame(8)))).kind, PacketKind::icmp);
    EXPECT_EQ(classify(ethernet(0x86DD, ipv6(58, Frame(8)))).kind, PacketKind::icmp);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(58, Frame(8)))).kind, PacketKind::other);
    EXPECT_EQ(classify(Frame()).kind, PacketKind::other);
    EXPECT_EQ(classify(Frame(13)).kind, PacketKind::other);
}

TEST(Classifier, LengthsThatLie) {
    const Frame good = ipv4(17, udp(1, 2));
    Frame ip = good;
    ip[0] = 0x44;
    EXPECT_EQ(classify(ethernet(0x0800, ip)).kind, PacketKind::malformed_ip) << "header of 16";
    ip = good;
    ip[0] = 0x65;
    EXPECT_EQ(classify(ethernet(0x0800, ip)).kind, PacketKind::malformed_ip) << "version 6 as IPv4";
    ip = good;
    store_be16(&ip[2], static_cast<std::uint16_t>(good.size() + 1));
    EXPECT_EQ(classify(ethernet(0x0800, ip)).kind, PacketKind::malformed_ip)
        << "longer than the frame";
    ip = good;
    store_be16(&ip[2], 19);
    EXPECT_EQ(classify(ethernet(0x0800, ip)).kind, PacketKind::malformed_ip)
        << "shorter than its header";
    ip = ipv6(17, udp(1, 2));
    store_be16(&ip[4], 19);
    EXPECT_EQ(classify(ethernet(0x86DD, ip)).kind, PacketKind::malformed_ip);
    ip = ipv6(17, udp(1, 2));
    ip[0] = 0x45;
    EXPECT_EQ(classify(ethernet(0x86DD, ip)).kind, PacketKind::malformed_ip);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(17, Frame(7)))).kind, PacketKind::malformed_transport);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(6, Frame(19)))).kind, PacketKind::malformed_transport);
    EXPECT_EQ(classify(ethernet(0x0800, ipv4(50, Frame(7)))).kind, PacketKind::malformed_transport);
}

TEST(Classifier, QuotedFlowOfAnIcmpError) {
    const Frame quoted = ipv4(17, udp(5, 6));
    Frame icmp(8);
    icmp[0] = 3;
    Frame f = ethernet(0x0800, ipv4(1, join({icmp, quoted})));
    PacketView v = classify(f);
    auto q = quoted_flow(f, v);
    ASSERT_TRUE(q);
    EXPECT_EQ(q->source_port, 5);
    EXPECT_EQ(q->destination_port, 6);
    EXPECT_EQ(f[q->source_at], 10);
    EXPECT_EQ(f[q->destination_at], 192);
    // The host takes the ports from there whatever offset the quote names.
    f = ethernet(0x0800, ipv4(1, join({icmp, ipv4(17, udp(5, 6), 0, 0x0003)})));
    EXPECT_TRUE(quoted_flow(f, classify(f)));
    icmp[0] = 8;  // echo
    f = ethernet(0x0800, ipv4(1, join({icmp, quoted})));
    EXPECT_FALSE(quoted_flow(f, classify(f)));

    Frame icmp6(8);
    icmp6[0] = 1;
    f = ethernet(0x86DD, ipv6(58, join({icmp6, ipv6(6, udp(7, 9))})));
    q = quoted_flow(f, classify(f));
    ASSERT_TRUE(q);
    EXPECT_EQ(q->source_port, 7);
    EXPECT_EQ(q->destination_port, 9);
    EXPECT_TRUE(q->v6);
    // Extension headers before the ports, as many as fit.
    Frame chain = join({extension(44), extension(17), udp(7, 9)});
    for (unsigned i = 0; i < 12; ++i) chain = join({extension(i == 0 ? 44 : 60, i % 3), chain});
    f = ethernet(0x86DD, ipv6(58, join({icmp6, ipv6(60, chain)})));
    q = quoted_flow(f, classify(f));
    ASSERT_TRUE(q);
    EXPECT_EQ(q->destination_port, 9);
}

// Every prefix of every shape, and random damage, in a buffer that ends where the frame ends (ASan
// sees an octet too far).
TEST(Classifier, NeverReadsBeyondTheFrame) {
    Frame icmp(8);
    icmp[0] = 3;
    const std::vector<Frame> shapes{
        ethernet(0x0800, ipv4(17, udp(1, 2))),
        ethernet(0x0800, ipv4(6, Frame(20), 40), 1),
        ethernet(0x0800, ipv4(50, Frame(40))),
        ethernet(0x86DD, ipv6(17, udp(1, 2))),
        ethernet(0x86DD,
                 ipv6(0, join({extension(43, 1), extension(60, 2), extension(50), Frame(16)}))),
        ethernet(0x0800, ipv4(1, join({icmp, ipv4(17, udp(5, 6))}))),
        ethernet(0x86DD, ipv6(58, join({icmp, ipv6(17, udp(5, 6))}))),
        ethernet(0x86DD, ipv6(58, join({icmp, ipv6(60, join({extension(44), extension(51),
                                                             extension(17, 2), udp(5, 6)}))}))),
        ethernet(0x0800, ipv4(17, udp(1, 2)), 3)};
    std::mt19937 random(4);
    for (const Frame& shape : shapes) {
        for (std::size_t size = 0; size <= shape.size(); ++size) {
            for (int damage = 0; damage < 50; ++damage) {
                const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[size + 1]);
                std::copy_n(shape.begin(), size, exact.get());
                for (int n = 0; n < damage % 5 && size != 0; ++n)
                    exact[random() % size] = static_cast<std::uint8_t>(random());
                const std::span<const std::uint8_t> frame(exact.get(), size);
                const PacketView v = classify(frame);
                if (v.ip) {
                    ASSERT_LE(v.end, size);
                    if (v.kind != PacketKind::extension_headers) {
                        ASSERT_LE(v.l4, v.end);
                    }
                }
                if (v.kind == PacketKind::icmp) {
                    if (const auto q = quoted_flow(frame, v)) {
                        ASSERT_LE(q->source_at + (q->v6 ? 16U : 4U), v.end);
                        ASSERT_LE(q->destination_at + (q->v6 ? 16U : 4U), v.end);
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace gmgate::dataplane
