#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using test::Octets;
using test::Phone;
using test::plain_frame;

constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
constexpr sa::Suite gcm{sa::Integrity::null, sa::Encryption::aes_gcm};

class Inbound : public test::FastPathTest {};

std::size_t l4_of(const Octets& frame) {
    return frame[12] == 0x86 ? 54 : 34;
}

TEST_F(Inbound, EverySuiteFamilyAndProtocolArrivesAsItWasSent) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            const Phone phone(n++, suite, v6, random_);
            const SetHandle handle = install(phone);
            std::uint32_t sequence = 0;
            std::uint64_t octets = 0;
            for (const bool tcp : {false, true}) {
                for (const bool to_ps : {true, false}) {
                    for (const std::size_t data : {0U, 1U, 2U, 3U, 700U, 1200U, 3000U}) {
                        const Octets plain = plain_frame(phone.up(tcp, to_ps), data);
                        ASSERT_TRUE(test::is_sound(plain));
                        const Octets wire = phone.esp_up(++sequence, data, tcp, to_ps);
                        octets += wire.size() - l4_of(wire);
                        const auto r = inbound({wire});
                        ASSERT_EQ(r.to_host.size(), 1U)
                            << sa::to_string(suite) << (v6 ? " v6 " : " v4 ") << data;
                        ASSERT_EQ(to_hex(r.to_host[0]), to_hex(plain));
                    }
                }
            }
            const SetCounters c = table_.counters(handle);
            EXPECT_EQ(c.in_packets, 28U);
            EXPECT_EQ(c.in_bytes, octets);
            EXPECT_EQ(c.last_use, 1000U);
            EXPECT_EQ(c.integrity_failures + c.replays, 0U);
        }
    }
    EXPECT_EQ(path_->counters().in_authentic.get(), 28U * n);
    EXPECT_EQ(path_->counters().in_received.get(), 28U * n);
}

// Who copies a packet off the wire and sends it again first, its IP header damaged, must not use up
// its sequence number: the host would refuse the copy, and we the phone's own.
TEST_F(Inbound, ADamagedOuterHeaderDoesNotReachTheReplayWindow) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    const Octets good = phone.esp_up(1, 40);
    Octets damaged = good;
    damaged[24] ^= 1U;  // checksum
    EXPECT_TRUE(inbound({damaged}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::outer_header), 1U);
    damaged = good;
    damaged[22] ^= 1U;  // time to live, the checksum as it was
    EXPECT_TRUE(inbound({damaged}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::outer_header), 1U);
    EXPECT_EQ(inbound({good}).to_host.size(), 1U);
}

TEST_F(Inbound, ABurstOfAllSuitesKeepsTheOrderOfEachSa) {
    std::vector<Phone> phones;
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        phones.emplace_back(n, suite, n % 2 == 1, random_);
        install(phones.back());
        ++n;
    }
    std::vector<Octets> burst;
    for (std::uint32_t s = 1; s <= 8; ++s) {
        for (const Phone& p : phones) burst.push_back(p.esp_up(s, 10 * s));
    }
    ASSERT_EQ(burst.size(), max_burst);
    const auto r = inbound(burst);
    ASSERT_EQ(r.to_host.size(), max_burst);
    for (const Phone& p : phones) {
        std::vector<Octets> expected, got;
        for (std::uint32_t s = 1; s <= 8; ++s) expected.push_back(plain_frame(p.up(false), 10 * s));
        std::copy_if(r.to_host.begin(), r.to_host.end(), std::back_inserter(got),
                     [&](const Octets& f) {
                         return std::find(expected.begin(), expected.end(), f) != expected.end();
                     });
        EXPECT_EQ(got, expected);
    }
}

TEST_F(Inbound, VlanOptionsAndLinkPadding) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    Octets wire = phone.esp_up(1, 4);
    wire.resize(wire.size() + 9, 0xCC);  // padding of the link is not the packet's
    auto r = inbound({wire});
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(r.to_host[0], plain_frame(phone.up(false), 4));

    wire = phone.esp_up(2, 4);
    Octets plain = plain_frame(phone.up(false), 4);
    for (Octets* f : {&wire, &plain}) f->insert(f->begin() + 12, {0x81, 0x00, 0x00, 0x07});
    r = inbound({wire});
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(r.to_host[0], plain);

    // IPv4 options: NOPs, and the checksum over them.
    wire = phone.esp_up(3, 4);
    wire.insert(wire.begin() + 34, {1, 1, 1, 1});
    wire[14] = 0x46;
    store_be16(&wire[16], static_cast<std::uint16_t>(wire.size() - 14));
    store_be16(&wire[24], 0);
    std::uint32_t sum = 0;
    for (std::size_t i = 14; i < 38; i += 2) sum += load_be16(&wire[i]);
    sum = (sum & 0xFFFFU) + (sum >> 16U);
    store_be16(&wire[24], static_cast<std::uint16_t>(~((sum & 0xFFFFU) + (sum >> 16U))));
    r = inbound({wire});
    ASSERT_EQ(r.to_host.size(), 1U);
    const Octets& got = r.to_host[0];
    EXPECT_EQ(load_be16(&got[16]), got.size() - 14);
    sum = 0;
    for (std::size_t i = 14; i < 38; i += 2) sum += load_be16(&got[i]);
    EXPECT_EQ((sum & 0xFFFFU) + (sum >> 16U), 0xFFFFU);
    EXPECT_EQ(Octets(got.begin() + 38, got.end()), Octets(plain.begin() + 38, plain.end()));
}

TEST_F(Inbound, Ipv6DestinationOptionsStayInFront) {
    const Phone phone(0, gcm, true, random_);
    install(phone);
    Octets wire = phone.esp_up(1, 30);
    Octets plain = plain_frame(phone.up(false), 30);
    for (Octets* f : {&wire, &plain}) {
        const std::uint8_t next = (*f)[20];
        (*f)[20] = 60;
        f->insert(f->begin() + 54, {next, 0, 1, 4, 0, 0, 0, 0});
        store_be16(&(*f)[18], static_cast<std::uint16_t>(f->size() - 54));
    }
    const auto r = inbound({wire});
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(to_hex(r.to_host[0]), to_hex(plain));
}

TEST_F(Inbound, ReplaysAreDroppedAlsoWithinOneBurst) {
    const Phone phone(0, sha1, false, random_);
    const SetHandle handle = install(phone);
    const Octets first = phone.esp_up(100, 20);
    EXPECT_EQ(inbound({first, first, first}).to_host.size(), 1U);
    EXPECT_EQ(dropped(DropReason::replay), 2U);
    EXPECT_TRUE(inbound({first}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay), 1U);
    EXPECT_EQ(table_.counters(handle).replays, 3U);
    EXPECT_TRUE(inbound({phone.esp_up(36, 20)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay_too_old), 1U);
    EXPECT_EQ(inbound({phone.esp_up(37, 20)}).to_host.size(), 1U);
    EXPECT_TRUE(inbound({phone.esp_up(0, 20)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay_too_old), 1U);
}

template <unsigned Bits>
class WindowTest : public test::FastPathTest {
  protected:
    WindowTest() : FastPathTest({.capacity = 8, .replay_bits = Bits, .huge_pages = false}) {}
    void duplicates_at_every_position() {
        const Phone phone(0, sha1, false, random_);
        install(phone);
        const std::uint32_t highest = 2 * Bits + 5;
        for (std::uint32_t s = 1; s <= highest; ++s)
            ASSERT_EQ(inbound({phone.esp_up(s, 0)}).to_host.size(), 1U);
        for (std::uint32_t behind = 0; behind < Bits; ++behind) {
            ASSERT_TRUE(inbound({phone.esp_up(highest - behind, 0)}).to_host.empty()) << behind;
            ASSERT_EQ(dropped(DropReason::replay), 1U) << behind;
        }
        ASSERT_TRUE(inbound({phone.esp_up(highest - Bits, 0)}).to_host.empty());
        ASSERT_EQ(dropped(DropReason::replay_too_old), 1U);
    }
};
using Window64 = WindowTest<64>;
using Window128 = WindowTest<128>;
using Window256 = WindowTest<256>;
using Window1024 = WindowTest<1024>;
TEST_F(Window64, DuplicatesAtEveryPosition) {
    duplicates_at_every_position();
}
TEST_F(Window128, DuplicatesAtEveryPosition) {
    duplicates_at_every_position();
}
TEST_F(Window256, DuplicatesAtEveryPosition) {
    duplicates_at_every_position();
}
TEST_F(Window1024, DuplicatesAtEveryPosition) {
    duplicates_at_every_position();
}

TEST_F(Inbound, ForgedPacketsMoveNothing) {
    for (std::uint32_t n = 0; n < sa::all_suites.size(); ++n) {
        const Phone phone(n, sa::all_suites[n], false, random_);
        const SetHandle handle = install(phone);
        ASSERT_EQ(inbound({phone.esp_up(1, 64)}).to_host.size(), 1U);
        (void)events();
        // Far ahead: would it count, everything after it would be too old.
        Octets forged = phone.esp_up(0x7FFFFFFF, 64);
        forged.back() ^= 1U;
        EXPECT_TRUE(inbound({forged}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::integrity), 1U);
        EXPECT_EQ(table_.counters(handle).integrity_failures, 1U);
        // Another key, same numbers.
        const Phone stranger(n, sa::all_suites[n], false, random_);
        EXPECT_TRUE(inbound({stranger.esp_up(2, 64)}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::integrity), 1U);
        EXPECT_EQ(inbound({phone.esp_up(2, 64)}).to_host.size(), 1U);
        EXPECT_EQ(table_.counters(handle).in_packets, 2U);
    }
}

TEST_F(Inbound, TruncatedAtEachLengthIsDroppedAndCounted) {
    for (const bool v6 : {false, true}) {
        std::uint32_t n = v6 ? 20 : 0;
        for (const sa::Suite suite : sa::all_suites) {
            const Phone phone(n++, suite, v6, random_);
            install(phone);
            const Octets good = phone.esp_up(1, 40);
            const std::size_t l4 = l4_of(good);
            for (std::size_t size = l4; size < good.size(); ++size) {
                // The IP header says so too: what a sender can make.
                Octets cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
                if (v6) {
                    store_be16(&cut[18], static_cast<std::uint16_t>(size - 54));
                } else {
                    store_be16(&cut[16], static_cast<std::uint16_t>(size - 14));
                }
                ASSERT_TRUE(inbound({cut}).to_host.empty()) << sa::to_string(suite) << " " << size;
            }
            // And cut on the way: the lengths do not fit.
            for (std::size_t size = 15; size < good.size(); ++size) {
                (void)inbound(
                    {Octets(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))});
            }
            const auto r = inbound({good});
            ASSERT_EQ(r.to_host.size(), 1U);
        }
    }
    const WorkerCounters& c = path_->counters();
    EXPECT_GT(c.dropped(DropReason::esp_runt), 0U);
    EXPECT_GT(c.dropped(DropReason::esp_alignment), 0U);
    EXPECT_GT(c.dropped(DropReason::integrity), 0U);
    EXPECT_GT(c.dropped(DropReason::malformed_ip), 0U);
    std::uint64_t drops = 0;
    for (const auto& d : c.drops) drops += d.get();
    EXPECT_EQ(c.in_received.get(), c.in_authentic.get() + c.in_other.get() + drops);
    EXPECT_EQ(c.in_authentic.get(), 2 * sa::all_suites.size());
}

TEST_F(Inbound, RuntAndMisalignedEsp) {
    const Phone phone(0, gcm, false, random_);
    install(phone);
    const auto raw = [&](std::size_t esp_octets) {
        Octets f = phone.esp_up(1, 40);
        f.resize(34 + esp_octets);
        store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
        test::set_ipv4_checksum(f);
        return f;
    };
    (void)inbound({raw(0), raw(7), raw(8), raw(35)});
    EXPECT_EQ(dropped(DropReason::esp_runt), 4U);
    (void)inbound({raw(37), raw(38), raw(39)});
    EXPECT_EQ(dropped(DropReason::esp_alignment), 3U);
    (void)inbound({raw(36), raw(40)});
    EXPECT_EQ(dropped(DropReason::integrity), 2U);
}

TEST_F(Inbound, UnknownAndStaleSpis) {
    const Phone phone(3, sha1, false, random_);
    const SetHandle handle = install(phone);
    Octets wire = phone.esp_up(1, 20);
    for (const std::uint32_t spi : {0U, 1U, 255U, sa::SpiLayout::make(2, 0, 6),
                                    sa::SpiLayout::make(1, 1, 6), sa::SpiLayout::make(1, 0, 8),
                                    sa::SpiLayout::make(1, 0, sa::SpiLayout::max_slots - 1), ~0U}) {
        store_be32(&wire[34], spi);
        const auto r = inbound({wire});
        EXPECT_TRUE(r.to_host.empty());
        EXPECT_TRUE(r.to_worker.empty());
        EXPECT_EQ(dropped(DropReason::unknown_spi), 1U) << spi;
    }
    table_.unpublish(handle);
    EXPECT_TRUE(inbound({phone.esp_up(1, 20)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
    table_.reclaim(handle);
    // The slot's next tenant: packets of the last one do not reach it.
    const Phone next(3, sha1, false, random_, 0, 2);
    install(next);
    EXPECT_TRUE(inbound({phone.esp_up(1, 20)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
    EXPECT_EQ(inbound({next.esp_up(1, 20)}).to_host.size(), 1U);
}

TEST_F(Inbound, EspForAnotherHostPasses) {
    const Phone phone(0, sha1, false, random_);
    Octets wire = phone.esp_up(1, 20);
    wire[33] = 99;
    const auto r = inbound({wire});
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(r.to_host[0], wire);
}

TEST_F(Inbound, WrongAddressesAndReflection) {
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        install(phone);
        Octets wire = phone.esp_up(1, 20);
        const std::size_t source = v6 ? 37 : 29;
        wire[source] ^= 0x40U;
        EXPECT_TRUE(inbound({wire}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::wrong_address), 1U);
        wire = phone.esp_up(1, 20);
        wire[v6 ? 53 : 33] ^= 0x40U;
        EXPECT_TRUE(inbound({wire}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::wrong_address), 1U);

        // Our own packet sent back, as it was and with the addresses turned round (the key is the
        // same both ways, A2).
        const auto sent = outbound({plain_frame(phone.down(false), 20)}).to_wire;
        ASSERT_EQ(sent.size(), 1U);
        Octets back = sent[0];
        (void)inbound({back});
        const std::ptrdiff_t at = v6 ? 22 : 26;
        const std::ptrdiff_t size = v6 ? 16 : 4;
        std::swap_ranges(back.begin() + at, back.begin() + at + size, back.begin() + at + size);
        const auto r = inbound({back});
        EXPECT_TRUE(r.to_host.empty());
        EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
        // Even with an SPI of ours written in: the ICV covers it.
        store_be32(&back[l4_of(back)], phone.numbers.spi_ps);
        EXPECT_TRUE(inbound({back}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::integrity), 1U);
    }
    // An IPv6 packet on an IPv4 SA.
    const Phone four(5, sha1, false, random_);
    const Phone six(6, sha1, true, random_);
    install(four);
    Octets wire = six.esp_up(1, 20);
    store_be32(&wire[54], four.numbers.spi_ps);
    EXPECT_TRUE(inbound({wire}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::wrong_address), 1U);
}

TEST_F(Inbound, TrailerAndSelectorsAfterTheIcv) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    std::uint32_t sequence = 0;
    const auto with = [&](const Octets& cleartext) {
        Octets f = plain_frame(phone.up(false), 0);
        f.resize(34);
        f[23] = 50;
        const Octets esp = phone.esp.seal(phone.numbers.spi_ps, ++sequence, cleartext);
        f.insert(f.end(), esp.begin(), esp.end());
        store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
        test::set_ipv4_checksum(f);
        return f;
    };
    const auto udp = [](std::uint16_t from, std::uint16_t to, std::size_t size = 20) {
        Octets u(size);
        if (size >= 4) {
            store_be16(&u[0], from);
            store_be16(&u[2], to);
        }
        return u;
    };
    const std::uint16_t uc = phone.numbers.port_uc;
    const std::uint16_t us = phone.numbers.port_us;
    const std::uint16_t pc = phone.numbers.port_pc;
    const std::uint16_t ps = phone.numbers.port_ps;

    Octets clear = phone.esp.pad(udp(uc, ps), 17);
    clear[clear.size() - 2] = static_cast<std::uint8_t>(clear.size() - 1);
    (void)inbound({with(clear)});
    EXPECT_EQ(dropped(DropReason::bad_padding), 1U);
    clear[clear.size() - 2] = 255;
    (void)inbound({with(clear)});
    EXPECT_EQ(dropped(DropReason::bad_padding), 1U);

    (void)inbound({with(phone.esp.pad(Octets(20), 59))});
    EXPECT_EQ(dropped(DropReason::dummy), 1U);
    for (const int next : {0, 1, 4, 41, 50, 58, 132, 255}) {
        (void)inbound({with(phone.esp.pad(udp(uc, ps), static_cast<std::uint8_t>(next)))});
        EXPECT_EQ(dropped(DropReason::next_header), 1U) << next;
    }
    const std::vector<std::pair<std::uint16_t, std::uint16_t>> wrong{{us, pc}, {us, ps},   {uc, pc},
                                                                     {ps, uc}, {uc, 5060}, {1, ps}};
    for (const auto& [from, to] : wrong) {
        (void)inbound({with(phone.esp.pad(udp(from, to), 17))});
        EXPECT_EQ(dropped(DropReason::selector), 1U) << from << " " << to;
    }
    (void)inbound({with(phone.esp.pad(udp(uc, ps, 7), 17)), with(phone.esp.pad(udp(uc, ps, 19), 6)),
                   with(phone.esp.pad(udp(uc, ps, 0), 17))});
    EXPECT_EQ(dropped(DropReason::selector), 3U);
    EXPECT_EQ(
        inbound({with(phone.esp.pad(udp(uc, ps, 8), 17)), with(phone.esp.pad(udp(uc, ps, 20), 6))})
            .to_host.size(),
        2U);
    // Padding longer than needed is allowed (RFC 4303 2.4).
    Octets padded = udp(uc, ps, 20);
    for (int i = 1; i <= 14; ++i) padded.push_back(static_cast<std::uint8_t>(i));
    padded.insert(padded.end(), {14, 17});
    const auto r = inbound({with(padded)});
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(r.to_host[0].size(), 34U + 20);
}

TEST_F(Inbound, CleartextForProtectedPortsIsDroppedAndTheRestPasses) {
    const Phone phone(0, sha1, false, random_);
    const Phone phone6(1, sha1, true, random_);
    for (const Phone* p : {&phone, &phone6}) {
        for (const bool tcp : {false, true}) {
            for (const bool to_ps : {false, true}) {
                EXPECT_TRUE(inbound({plain_frame(p->up(tcp, to_ps), 10)}).to_host.empty());
                EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 1U);
            }
            // Unprotected port; NAT-traversal port; protected port of another host.
            test::Flow other = p->up(tcp);
            for (const std::uint16_t port :
                 {std::uint16_t{5060}, std::uint16_t{4500}, std::uint16_t{443}}) {
                other.destination_port = port;
                const Octets plain = plain_frame(other, 10);
                const auto r = inbound({plain});
                ASSERT_EQ(r.to_host.size(), 1U);
                EXPECT_EQ(r.to_host[0], plain);
            }
            other = p->up(tcp);
            other.destination.back() ^= 0x80U;
            EXPECT_EQ(inbound({plain_frame(other, 10)}).to_host.size(), 1U);
        }
    }
    Octets arp(42);
    store_be16(&arp[12], 0x0806);
    EXPECT_EQ(inbound({arp, Octets(14), Octets(5)}).to_host.size(), 3U);
    EXPECT_EQ(dropped(DropReason::unknown_spi), 0U);
}

// The host's stack takes tags of VLAN 0 off one by one and delivers what it finds.
TEST_F(Inbound, CleartextDoesNotHideBehindPriorityTags) {
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        Octets frame = plain_frame(phone.up(false), 10);
        for (unsigned tags = 1; tags <= 4; ++tags) {
            frame.insert(frame.begin() + 12,
                         {static_cast<std::uint8_t>(tags % 2 == 0 ? 0x88 : 0x81),
                          static_cast<std::uint8_t>(tags % 2 == 0 ? 0xA8 : 0x00), 0, 0});
            EXPECT_TRUE(inbound({frame}).to_host.empty()) << tags;
            EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 1U) << tags;
        }
    }
}

// The host would take them: Linux accepts a packet for any of its addresses on any interface.
TEST_F(Inbound, StrangersDoNotReachTheCoresSide) {
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        test::Flow flow = phone.up(false);
        const IpAddress core = test::core_address(v6);
        flow.destination.assign(core.octets().begin(), core.octets().end());
        flow.destination_port = 5060;
        for (const bool tcp : {false, true}) {
            flow.tcp = tcp;
            EXPECT_TRUE(inbound({plain_frame(flow, 10)}).to_host.empty());
            EXPECT_EQ(dropped(DropReason::not_for_gm), 1U);
        }
        // A fragment of it too, which the host would make whole.
        Octets first = plain_frame(flow, 16);
        if (v6) {
            first[20] = 44;
        } else {
            first[20] |= 0x20;
        }
        EXPECT_TRUE(inbound({first}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::not_for_gm), 1U);
        flow.destination.back() ^= 3U;
        EXPECT_EQ(inbound({plain_frame(flow, 10)}).to_host.size(), 1U);
    }
}

// No honest router can quote what never leaves in clear; the host would believe it (A6).
TEST_F(Inbound, IcmpErrorsAboutProtectedPortsAreForged) {
    for (const bool v6 : {false, true}) {
        const Phone phone(v6 ? 1 : 0, sha1, v6, random_);
        const std::size_t ip = v6 ? 40 : 20;
        const auto icmp = [&](const Octets& about, std::uint8_t type) {
            Octets f = plain_frame(phone.up(false), 0);
            f.resize(14 + ip);
            f[14 + (v6 ? 6U : 9U)] = v6 ? 58 : 1;
            f.insert(f.end(), {type, 4, 0, 0, 0, 0, 5, 0});
            f.insert(f.end(), about.begin() + 14, about.end());
            store_be16(&f[v6 ? 18 : 16], static_cast<std::uint16_t>(f.size() - 14 - (v6 ? ip : 0)));
            return f;
        };
        const auto error = static_cast<std::uint8_t>(v6 ? 2 : 3);
        for (const bool tcp : {false, true}) {
            EXPECT_TRUE(inbound({icmp(plain_frame(phone.down(tcp), 30), error)}).to_host.empty());
            EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 1U);
        }
        test::Flow flow = phone.down(false);
        flow.source_port = 5060;
        EXPECT_EQ(inbound({icmp(plain_frame(flow, 30), error)}).to_host.size(), 1U);
        EXPECT_EQ(inbound({icmp(plain_frame(phone.down(false), 30),
                                static_cast<std::uint8_t>(v6 ? 128 : 8))})
                      .to_host.size(),
                  1U)
            << "an echo quotes nothing";
    }
    EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 0U);
}

TEST_F(Inbound, FragmentsToUsAreHandedOut) {
    const Phone phone(0, sha1, false, random_);
    const Phone phone6(1, sha1, true, random_);
    install(phone);
    Octets f = phone.esp_up(1, 100);
    store_be16(&f[20], 0x2000);
    auto r = inbound({f});
    EXPECT_TRUE(r.to_host.empty());
    ASSERT_EQ(r.fragments.size(), 1U);
    EXPECT_EQ(r.fragments[0], f);
    f[33] = 77;  // to another host
    EXPECT_EQ(inbound({f}).to_host.size(), 1U);
    Octets six = plain_frame(phone6.up(false), 64);
    six[20] = 44;
    r = inbound({six});
    EXPECT_EQ(r.fragments.size(), 1U);
}

TEST_F(Inbound, MalformedHeaders) {
    const Phone phone(0, sha1, false, random_);
    const Phone phone6(1, sha1, true, random_);
    Octets f = plain_frame(phone.up(false), 10);
    f[14] = 0x44;
    (void)inbound({f});
    EXPECT_EQ(dropped(DropReason::malformed_ip), 1U);
    f = plain_frame(phone.up(false), 0);
    f.resize(40);
    store_be16(&f[16], 26);
    (void)inbound({f});
    EXPECT_EQ(dropped(DropReason::malformed_transport), 1U);
    f = plain_frame(phone6.up(false), 10);
    f[20] = 60;
    f[54] = 60;
    f[55] = 255;
    (void)inbound({f});
    EXPECT_EQ(dropped(DropReason::extension_headers), 1U);
}

TEST_F(Inbound, SegmentsAreJoinedWhereTheyFit) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    const Octets whole = phone.esp_up(1, 1000);
    rte_mbuf* head = test::make_mbuf(Octets(whole.begin(), whole.begin() + 500));
    rte_mbuf* tail = test::make_mbuf(Octets(whole.begin() + 500, whole.end()));
    ASSERT_EQ(rte_pktmbuf_chain(head, tail), 0);
    const auto r = inbound_mbuf(head);
    ASSERT_EQ(r.to_host.size(), 1U);
    EXPECT_EQ(r.to_host[0], plain_frame(phone.up(false), 1000));

    // No room in the first one.
    head = test::make_mbuf(Octets(4000));
    tail = test::make_mbuf(Octets(500));
    ASSERT_EQ(rte_pktmbuf_chain(head, tail), 0);
    (void)inbound_mbuf(head);
    EXPECT_EQ(dropped(DropReason::not_linear), 1U);

    // Someone else holds the buffer: it must not be written to.
    rte_mbuf* shared = test::make_mbuf(phone.esp_up(2, 100));
    rte_mbuf_refcnt_update(shared, 1);
    (void)inbound_mbuf(shared);
    EXPECT_EQ(dropped(DropReason::not_linear), 1U);
    EXPECT_EQ(test::contents(shared), phone.esp_up(2, 100));
    rte_pktmbuf_free(shared);
}

TEST_F(Inbound, EventsOncePerSetAndSecond) {
    const Phone phone(0, sha1, false, random_);
    const SetHandle handle = install(phone);
    (void)inbound({phone.esp_up(1, 10), phone.esp_up(2, 10)});
    auto all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::first_authentic_packet);
    EXPECT_EQ(all[0].spi, phone.numbers.spi_ps);
    EXPECT_EQ(table_.resolve(all[0]), phone.id);

    Octets forged = phone.esp_up(3, 10);
    forged.back() ^= 1U;
    for (const std::uint32_t now : {5U, 5U, 6U, 6U, 6U}) (void)inbound({forged, forged}, now);
    all = events();
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::integrity_failure);
    EXPECT_EQ(dropped(DropReason::integrity), 10U);

    (void)inbound({phone.esp_up(0xFFF00000U, 10), phone.esp_up(0xFFF00001U, 10)});
    all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_FALSE(all[0].outbound);

    table_.unpublish(handle);
    EXPECT_FALSE(table_.resolve(all[0]).has_value());
    table_.reclaim(handle);
    EXPECT_FALSE(table_.resolve(all[0]).has_value());
    const Phone next(0, sha1, false, random_, 0, 2);
    install(next);
    EXPECT_FALSE(table_.resolve(all[0]).has_value()) << "an event of the slot's last tenant";
}

TEST_F(Inbound, AFullEventRingLosesNoEventForGood) {
    std::vector<Phone> phones;
    const Phone phone(0, sha1, false, random_);
    install(phone);
    for (std::size_t i = 0; i < EventRing::size; ++i) ASSERT_TRUE(path_->events().push({}));
    (void)inbound({phone.esp_up(1, 10)});
    EXPECT_EQ(path_->counters().events_lost.get(), 1U);
    (void)events();
    (void)inbound({phone.esp_up(2, 10)});
    ASSERT_EQ(events().size(), 1U);
}

TEST_F(Inbound, RestoredSequencesAreSeen) {
    const Phone phone(0, sha1, false, random_);
    install(phone, {.in_ps = 500, .in_pc = 0, .out_uc = 77, .out_us = 0});
    EXPECT_TRUE(inbound({phone.esp_up(500, 10)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay), 1U);
    EXPECT_TRUE(inbound({phone.esp_up(450, 10)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay), 1U);
    EXPECT_EQ(inbound({phone.esp_up(501, 10)}).to_host.size(), 1U);
    EXPECT_EQ(inbound({phone.esp_up(1, 10, false, false)}).to_host.size(), 1U);
    const auto sent = outbound({plain_frame(phone.down(false), 10)}).to_wire;
    ASSERT_EQ(sent.size(), 1U);
    EXPECT_EQ(load_be32(&sent[0][38]), 78U);
}

class TwoWorkers : public test::FastPathTest {
  protected:
    TwoWorkers() : FastPathTest({.capacity = 8, .workers = 2, .huge_pages = false}) {}
};

TEST_F(TwoWorkers, AnSaOfAnotherWorkerIsHandedOver) {
    const Phone mine(0, sha1, false, random_, 0);
    const Phone others(1, sha1, false, random_, 1);
    install(mine);
    install(others);
    const Octets wire = others.esp_up(1, 10);
    auto r = inbound({wire, mine.esp_up(1, 10)});
    EXPECT_EQ(r.to_host.size(), 1U);
    ASSERT_EQ(r.to_worker.size(), 1U);
    EXPECT_EQ(r.to_worker[0].first, 1U);
    EXPECT_EQ(r.to_worker[0].second, wire);
    const Octets plain = plain_frame(others.down(false), 10);
    const auto out = outbound({plain});
    EXPECT_TRUE(out.to_wire.empty());
    ASSERT_EQ(out.to_worker.size(), 1U);
    EXPECT_EQ(out.to_worker[0].first, 1U);
    EXPECT_EQ(out.to_worker[0].second, plain);
    // An SPI that only names worker 1 stays here: nobody can load it with forged ones.
    Octets forged = wire;
    store_be32(&forged[34], sa::SpiLayout::make(9, 1, 2));
    r = inbound({forged});
    EXPECT_TRUE(r.to_worker.empty());
    EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
    // Nor can who has seen an SPI, from another address: a full ring would cost others' packets.
    forged = wire;
    forged[29] ^= 1U;
    r = inbound({forged});
    EXPECT_TRUE(r.to_worker.empty());
    EXPECT_EQ(dropped(DropReason::wrong_address), 1U);

    make_path(1);
    EXPECT_EQ(inbound({wire}).to_host.size(), 1U);
    EXPECT_EQ(outbound({plain}).to_wire.size(), 1U);
}

}  // namespace
}  // namespace gmgate::dataplane
