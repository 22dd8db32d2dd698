#include <gtest/gtest.h>

#include <set>

#include "base/bytes.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using test::Octets;
using test::Phone;
using test::plain_frame;

constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};

class Outbound : public test::FastPathTest {
  protected:
    static std::uint32_t spi_of(const Octets& f) { return load_be32(&f[f[12] == 0x86 ? 54 : 34]); }
    static std::uint32_t sequence_of(const Octets& f) {
        return load_be32(&f[f[12] == 0x86 ? 58 : 38]);
    }
};

TEST_F(Outbound, EverySuiteFamilyAndProtocolIsWhatTheUeExpects) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            const Phone phone(n++, suite, v6, random_);
            const SetHandle handle = install(phone);
            std::uint32_t sequence[2] = {0, 0};
            std::uint64_t octets = 0;
            for (const bool tcp : {false, true}) {
                for (const bool to_uc : {true, false}) {
                    for (const std::size_t data : {0U, 1U, 2U, 3U, 15U, 16U, 700U, 1200U, 3000U}) {
                        const Octets plain = plain_frame(phone.down(tcp, to_uc), data);
                        const auto r = outbound({plain});
                        ASSERT_EQ(r.to_wire.size(), 1U);
                        const Octets& wire = r.to_wire[0];
                        octets += wire.size() - (v6 ? 54 : 34);
                        EXPECT_EQ(spi_of(wire),
                                  to_uc ? phone.numbers.spi_uc : phone.numbers.spi_us);
                        EXPECT_EQ(sequence_of(wire), ++sequence[to_uc ? 0 : 1]);
                        if (v6) {
                            EXPECT_EQ(load_be16(&wire[18]), wire.size() - 54);
                        } else {
                            EXPECT_EQ(load_be16(&wire[16]), wire.size() - 14);
                        }
                        const auto back = phone.esp.unprotect(wire);
                        ASSERT_TRUE(back.has_value())
                            << sa::to_string(suite) << (v6 ? " v6 " : " v4 ") << data;
                        ASSERT_EQ(to_hex(*back), to_hex(plain));
                    }
                }
            }
            const SetCounters c = table_.counters(handle);
            EXPECT_EQ(c.out_packets, 36U);
            EXPECT_EQ(c.out_bytes, octets);
            EXPECT_EQ(c.highest_out_sequence, 18U);
        }
    }
    EXPECT_EQ(path_->counters().out_protected.get(), 36U * n);
}

TEST_F(Outbound, Ipv4HeaderChecksumIsRight) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    Octets plain = plain_frame(phone.down(false), 33);
    store_be16(&plain[24], 0xBEEF);  // a host that leaves it to the NIC
    const auto wire = outbound({plain}).to_wire;
    ASSERT_EQ(wire.size(), 1U);
    std::uint32_t sum = 0;
    for (std::size_t i = 14; i < 34; i += 2) sum += load_be16(&wire[0][i]);
    EXPECT_EQ((sum & 0xFFFFU) + (sum >> 16U), 0xFFFFU);
}

TEST_F(Outbound, TheWholeWayThereAndBackThroughBothPaths) {
    // Our own two halves agree: what one encapsulates, the other takes when the roles are turned
    // round.
    for (std::uint32_t n = 0; n < sa::all_suites.size(); ++n) {
        const Phone phone(n, sa::all_suites[n], n % 2 == 0, random_);
        install(phone);
        std::vector<Octets> burst;
        for (std::size_t i = 0; i < max_burst; ++i)
            burst.push_back(plain_frame(phone.down(i % 2 == 0), i * 13));
        const auto wire = outbound(burst).to_wire;
        ASSERT_EQ(wire.size(), burst.size());
        for (std::size_t i = 0; i < wire.size(); ++i)
            ASSERT_EQ(phone.esp.unprotect(wire[i]), burst[i]);
    }
}

TEST_F(Outbound, IvsNeverRepeatWithinASet) {
    for (std::uint32_t n = 0; n < sa::all_suites.size(); ++n) {
        const sa::Suite suite = sa::all_suites[n];
        const std::size_t size = sa::iv_size(suite);
        if (size == 0) continue;
        const Phone phone(n, suite, false, random_);
        install(phone);
        std::set<Octets> ivs;
        for (int round = 0; round < 8; ++round) {
            std::vector<Octets> burst;
            for (std::size_t i = 0; i < max_burst; ++i)
                burst.push_back(plain_frame(phone.down(false, i % 2 == 0), 10));
            for (const Octets& f : outbound(burst).to_wire) {
                EXPECT_TRUE(ivs.insert(Octets(f.begin() + 42,
                                              f.begin() + 42 + static_cast<std::ptrdiff_t>(size)))
                                .second)
                    << sa::to_string(suite)
                    << ": both outbound SAs share one key, so an IV must not come twice";
            }
        }
        EXPECT_EQ(ivs.size(), 8U * max_burst);
    }
}

TEST_F(Outbound, ChecksumsTheHostLeftToTheNic) {
    for (const bool v6 : {false, true}) {
        for (const bool tcp : {false, true}) {
            const Phone phone((v6 ? 2U : 0U) + (tcp ? 1U : 0U), sha1, v6, random_);
            install(phone);
            const Octets good = plain_frame(phone.down(tcp), 101);
            Octets unfinished = good;
            store_be16(&unfinished[(v6 ? 54U : 34U) + (tcp ? 16U : 6U)], 0x1234);
            auto wire = outbound({unfinished}).to_wire;
            ASSERT_EQ(wire.size(), 1U);
            EXPECT_EQ(phone.esp.unprotect(wire[0]), unfinished)
                << "nobody asked: nothing is touched";
            wire = outbound({unfinished}, tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM)
                       .to_wire;
            ASSERT_EQ(wire.size(), 1U);
            EXPECT_EQ(phone.esp.unprotect(wire[0]), good);
            make_path(0, true);
            wire = outbound({unfinished}).to_wire;
            ASSERT_EQ(wire.size(), 1U);
            EXPECT_EQ(phone.esp.unprotect(wire[0]), good);
            make_path();
        }
    }
}

TEST_F(Outbound, OffloadRequestsDoNotReachTheWire) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    rte_mbuf* m = test::make_mbuf(plain_frame(phone.down(false), 10));
    m->ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    OutboundResult result;
    path_->outbound(&m, 1, 1, result);
    ASSERT_EQ(result.to_wire.count, 1);
    EXPECT_EQ(m->ol_flags & (RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM), 0U);
    rte_pktmbuf_free(m);
}

TEST_F(Outbound, FromAProtectedPortWithoutAnSaIsDropped) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    // Every field of the flow counts.
    for (int field = 0; field < 4; ++field) {
        test::Flow flow = phone.down(false);
        if (field == 0) flow.destination_port ^= 1U;
        if (field == 1) flow.source_port = test::first_port_pc + 1;
        if (field == 2) flow.destination.back() ^= 1U;
        if (field == 3) flow.destination_port = phone.numbers.port_us;
        EXPECT_TRUE(outbound({plain_frame(flow, 10)}).to_wire.empty()) << field;
        EXPECT_EQ(dropped(DropReason::outbound_no_sa), 1U) << field;
    }
    test::Flow flow = phone.down(false);
    flow.source_port = 5060;
    const Octets clear = plain_frame(flow, 10);
    const auto r = outbound({clear});
    ASSERT_EQ(r.to_wire.size(), 1U);
    EXPECT_EQ(r.to_wire[0], clear);
    // Another address of the host is not Gm.
    flow = phone.down(false);
    flow.source.back() = 200;
    EXPECT_EQ(outbound({plain_frame(flow, 10)}).to_wire.size(), 1U);
    Octets arp(42);
    store_be16(&arp[12], 0x0806);
    EXPECT_EQ(outbound({arp}).to_wire.size(), 1U);
}

TEST_F(Outbound, RemovedSetsSendNothing) {
    const Phone phone(0, sha1, true, random_);
    const SetHandle handle = install(phone);
    ASSERT_EQ(outbound({plain_frame(phone.down(true), 10)}).to_wire.size(), 1U);
    table_.unpublish(handle);
    EXPECT_TRUE(
        outbound({plain_frame(phone.down(true), 10), plain_frame(phone.down(true, false), 10)})
            .to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_sa), 2U);
    table_.reclaim(handle);
    EXPECT_TRUE(outbound({plain_frame(phone.down(true), 10)}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_sa), 1U);
}

TEST_F(Outbound, SequenceNumbersEndAndNeverWrap) {
    const Phone phone(0, sha1, false, random_);
    install(phone, {.in_ps = 0, .in_pc = 0, .out_uc = 0xFFFFFFFDU, .out_us = 0xFFEFFFFDU});
    const Octets plain = plain_frame(phone.down(false), 10);
    auto wire = outbound({plain, plain, plain, plain}).to_wire;
    ASSERT_EQ(wire.size(), 2U);
    EXPECT_EQ(sequence_of(wire[0]), 0xFFFFFFFEU);
    EXPECT_EQ(sequence_of(wire[1]), 0xFFFFFFFFU);
    EXPECT_EQ(dropped(DropReason::outbound_sequence_exhausted), 2U);
    auto all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_TRUE(all[0].outbound);
    EXPECT_EQ(table_.resolve(all[0]), phone.id);
    // The other SA comes near a little later.
    const Octets other = plain_frame(phone.down(false, false), 10);
    ASSERT_EQ(outbound({other}).to_wire.size(), 1U);
    EXPECT_TRUE(events().empty());
    ASSERT_EQ(outbound({other, other}).to_wire.size(), 2U);
    all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].spi, phone.numbers.spi_us);
}

TEST_F(Outbound, NoRoomInTheBuffer) {
    const Phone phone(0, {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc}, false, random_);
    install(phone);
    // Tail: data room is 4096.
    EXPECT_TRUE(outbound({plain_frame(phone.down(false), 4096 - 42)}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_room), 1U);
    // Head.
    rte_mbuf* m = rte_pktmbuf_alloc(test::pool());
    m->data_off = 23;
    const Octets plain = plain_frame(phone.down(false), 50);
    std::copy(plain.begin(), plain.end(),
              rte_pktmbuf_append(m, static_cast<std::uint16_t>(plain.size())));
    EXPECT_TRUE(outbound_mbuf(m).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_room), 1U);
    const auto wire = outbound({plain}).to_wire;
    ASSERT_EQ(wire.size(), 1U);
    EXPECT_EQ(sequence_of(wire[0]), 1U) << "a packet that was dropped takes no sequence number";
}

TEST_F(Outbound, FragmentsOfTheHostAreHandedOut) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    Octets f = plain_frame(phone.down(false), 100);
    store_be16(&f[20], 0x2000);
    const auto r = outbound({f});
    EXPECT_TRUE(r.to_wire.empty());
    ASSERT_EQ(r.fragments.size(), 1U);
    f[29] = 9;  // from another address of the host
    EXPECT_EQ(outbound({f}).to_wire.size(), 1U);
}

TEST_F(Outbound, IcmpErrorsDoNotQuoteWhatCameProtected) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    const auto icmp = [&](const Octets& about, std::uint8_t type) {
        Octets f = plain_frame(phone.down(false), 0);
        f.resize(34);
        f[23] = 1;
        f.insert(f.end(), {type, 3, 0, 0, 0, 0, 0, 0});
        f.insert(f.end(), about.begin() + 14, about.end());
        store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
        return f;
    };
    EXPECT_TRUE(outbound({icmp(plain_frame(phone.up(false), 30), 3)}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_icmp_quote), 1U);
    EXPECT_EQ(outbound({icmp(plain_frame(phone.up(false), 30), 8)}).to_wire.size(), 1U)
        << "an echo quotes nothing";
    test::Flow flow = phone.up(false);
    flow.destination_port = 5060;
    EXPECT_EQ(outbound({icmp(plain_frame(flow, 30), 3)}).to_wire.size(), 1U);
}

TEST_F(Outbound, MalformedPacketsOfTheHost) {
    const Phone phone(0, sha1, false, random_);
    const Phone phone6(1, sha1, true, random_);
    Octets f = plain_frame(phone.down(false), 10);
    f[14] = 0x44;
    (void)outbound({f});
    EXPECT_EQ(dropped(DropReason::malformed_ip), 1U);
    f = plain_frame(phone.down(false), 0);
    f.resize(40);
    store_be16(&f[16], 26);
    (void)outbound({f});
    EXPECT_EQ(dropped(DropReason::malformed_transport), 1U);
    f = plain_frame(phone6.down(false), 10);
    f[20] = 0;
    f[55] = 200;
    (void)outbound({f});
    EXPECT_EQ(dropped(DropReason::extension_headers), 1U);
    rte_mbuf* shared = test::make_mbuf(plain_frame(phone.down(false), 10));
    rte_mbuf_refcnt_update(shared, 1);
    (void)outbound_mbuf(shared);
    EXPECT_EQ(dropped(DropReason::not_linear), 1U);
    rte_pktmbuf_free(shared);
}

}  // namespace
}  // namespace gmgate::dataplane
