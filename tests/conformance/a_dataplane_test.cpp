// A, C1: the packet layer's share, packets through the DPDK fast path. The other opinion is an ESP
// of the tests' own on OpenSSL.

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/conformance/share.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using conformance::share;
using test::Octets;
using test::Phone;
using test::plain_frame;

constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};

std::size_t l3_payload(const Octets& frame) {
    return frame[12] == 0x86 ? 54 : 34;
}

class A1_packets : public test::FastPathTest {};
class A2_packets : public test::FastPathTest {};
class A3_packets : public test::FastPathTest {};
class A6_packets : public test::FastPathTest {};
class A9_packets : public test::FastPathTest {};
class C1_packets : public test::FastPathTest {};

TEST_F(A1_packets, TransportModeWithAntiReplayAndWithoutDummies) {
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        install(phone);
        // Outbound: the IP header stays, ESP follows it, what was behind it is inside.
        const Octets plain = plain_frame(phone.down(false), 300);
        const auto out = outbound({plain});
        ASSERT_EQ(out.to_wire.size(), 1U);
        const Octets& wire = out.to_wire[0];
        EXPECT_EQ(wire[v6 ? 20 : 23], 50);
        const std::size_t addresses = v6 ? 22 : 26;
        EXPECT_TRUE(std::equal(wire.begin() + static_cast<std::ptrdiff_t>(addresses),
                               wire.begin() + static_cast<std::ptrdiff_t>(l3_payload(wire)),
                               plain.begin() + static_cast<std::ptrdiff_t>(addresses)));
        EXPECT_EQ(phone.esp.unprotect(wire), plain);
        // Inbound: each packet once, whatever the order.
        for (const std::uint32_t sequence : {5U, 3U, 40U, 4U}) {
            EXPECT_EQ(inbound({phone.esp_up(sequence, 100)}).to_host.size(), 1U);
            EXPECT_TRUE(inbound({phone.esp_up(sequence, 100)}).to_host.empty());
            EXPECT_EQ(dropped(DropReason::replay), 1U);
        }
    }
    // Next header 59: a dummy packet, authentic, and dropped.
    const Phone phone(2, sha1, false, random_);
    install(phone);
    Octets frame = plain_frame(phone.up(false), 0);
    frame.resize(34);
    frame[23] = 50;
    const Octets esp = phone.esp.seal(phone.numbers.spi_ps, 1, phone.esp.pad(Octets(20), 59));
    frame.insert(frame.end(), esp.begin(), esp.end());
    store_be16(&frame[16], static_cast<std::uint16_t>(frame.size() - 14));
    test::set_ipv4_checksum(frame);
    EXPECT_TRUE(inbound({frame}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::dummy), 1U);
}

TEST_F(A2_packets, FourSasBetweenTheAgreedPortsForUdpAndTcp) {
    share("packet layer");
    const Phone phone(0, sha1, false, random_);
    install(phone);
    std::uint32_t sequence = 0;
    for (const bool tcp : {false, true}) {
        for (const bool to_ps : {false, true}) {
            EXPECT_EQ(inbound({phone.esp_up(++sequence, 50, tcp, to_ps)}).to_host.size(), 1U);
        }
        for (const bool to_uc : {false, true}) {
            const auto out = outbound({plain_frame(phone.down(tcp, to_uc), 50)});
            ASSERT_EQ(out.to_wire.size(), 1U);
            EXPECT_EQ(load_be32(&out.to_wire[0][34]),
                      to_uc ? phone.numbers.spi_uc : phone.numbers.spi_us);
        }
    }
}

TEST_F(A3_packets, OnlyTheAddressPairThePortsUdpAndTcp) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    const sa::SaNumbers& n = phone.numbers;
    std::uint32_t sequence = 0;
    const auto send = [&](std::uint16_t from, std::uint16_t to, std::uint8_t protocol,
                          unsigned change_address = 0) {
        Octets inner(20);
        store_be16(&inner[0], from);
        store_be16(&inner[2], to);
        Octets frame = plain_frame(phone.up(false), 0);
        frame.resize(34);
        frame[23] = 50;
        if (change_address != 0) frame[change_address] ^= 1U;
        const Octets esp = phone.esp.seal(n.spi_ps, ++sequence, phone.esp.pad(inner, protocol));
        frame.insert(frame.end(), esp.begin(), esp.end());
        store_be16(&frame[16], static_cast<std::uint16_t>(frame.size() - 14));
        test::set_ipv4_checksum(frame);
        return inbound({frame}).to_host.size();
    };
    EXPECT_EQ(send(n.port_uc, n.port_ps, 17), 1U);
    EXPECT_EQ(send(n.port_uc, n.port_ps, 6), 1U);
    EXPECT_EQ(send(n.port_uc, n.port_ps, 1), 0U);    // ICMP
    EXPECT_EQ(send(n.port_uc, n.port_ps, 132), 0U);  // SCTP
    EXPECT_EQ(send(n.port_us, n.port_ps, 17), 0U);
    EXPECT_EQ(send(n.port_uc, n.port_pc, 17), 0U);
    EXPECT_EQ(send(n.port_us, n.port_pc, 17), 0U);  // of the set, but not of this SA
    EXPECT_EQ(send(n.port_uc, 5060, 17), 0U);
    EXPECT_EQ(send(n.port_uc, n.port_ps, 17, 29), 0U);  // another source address
    EXPECT_EQ(send(n.port_uc, n.port_ps, 17), 1U);
}

TEST_F(A6_packets, CleartextForAProtectedPortIsDiscarded) {
    share("packet layer");
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        for (const bool installed : {false, true}) {
            if (installed) install(phone);
            for (const bool tcp : {false, true}) {
                for (const bool to_ps : {false, true}) {
                    EXPECT_TRUE(inbound({plain_frame(phone.up(tcp, to_ps), 10)}).to_host.empty());
                    EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 1U);
                }
            }
        }
        test::Flow unprotected = phone.up(false);
        unprotected.destination_port = 5060;
        EXPECT_EQ(inbound({plain_frame(unprotected, 10)}).to_host.size(), 1U);
    }
}

TEST_F(A6_packets, NothingLeavesAProtectedPortInClear) {
    share("packet layer");
    // No set: the host's packet from a protected port has no SA, and is not sent.
    const Phone phone(0, sha1, false, random_);
    for (const bool tcp : {false, true}) {
        for (const bool to_uc : {false, true}) {
            EXPECT_TRUE(outbound({plain_frame(phone.down(tcp, to_uc), 10)}).to_wire.empty());
        }
    }
}

TEST_F(A9_packets, EverySuiteBothWaysBothFamiliesUdpAndTcp) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            SCOPED_TRACE(sa::to_string(suite) + (v6 ? " IPv6" : " IPv4"));
            const Phone phone(n++, suite, v6, random_);
            install(phone);
            std::uint32_t sequence = 0;
            for (const bool tcp : {false, true}) {
                for (const std::size_t size : {0U, 1U, 13U, 700U, 1200U}) {
                    const auto in = inbound({phone.esp_up(++sequence, size, tcp)});
                    ASSERT_EQ(in.to_host.size(), 1U);
                    EXPECT_EQ(in.to_host[0], plain_frame(phone.up(tcp), size));
                    const Octets plain = plain_frame(phone.down(tcp), size);
                    const auto out = outbound({plain});
                    ASSERT_EQ(out.to_wire.size(), 1U);
                    EXPECT_EQ(phone.esp.unprotect(out.to_wire[0]), plain);
                }
            }
        }
    }
}

TEST_F(C1_packets, AForgedPacketIsDroppedThereAndTheSetLivesOn) {
    share("packet layer");
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        const Phone phone(n, suite, false, random_);
        const Phone wrong_key(n++, suite, false, random_);  // the same numbers
        const SetHandle handle = install(phone);
        for (std::uint32_t sequence = 1; sequence <= 20; ++sequence) {
            EXPECT_TRUE(inbound({wrong_key.esp_up(sequence, 200)}).to_host.empty());
            EXPECT_EQ(dropped(DropReason::integrity), 1U);
        }
        EXPECT_EQ(table_.counters(handle).integrity_failures, 20U);
        EXPECT_EQ(inbound({phone.esp_up(1, 200)}).to_host.size(), 1U);  // the window was not moved
        (void)events();
    }
}

}  // namespace
}  // namespace gmgate::dataplane
