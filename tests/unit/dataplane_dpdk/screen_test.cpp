// The screen: authentic ESP reaches the host bit for bit, what is forged, replayed or in clear does
// not, and of what the host sends ESP passes and cleartext of protected ports does not.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "dataplane/core/checksum.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using test::Octets;
using test::Phone;
using test::plain_frame;
using test::set_ipv4_checksum;

constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
constexpr sa::Suite gmac{sa::Integrity::aes_gmac, sa::Encryption::null};
constexpr sa::Suite gcm{sa::Integrity::null, sa::Encryption::aes_gcm};
constexpr sa::Suite cbc{sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc};

class Screen : public test::FastPathTest {
  protected:
    explicit Screen(EngineKind engine = best_engine())
        : FastPathTest({.capacity = 64, .huge_pages = false, .inbound_only = true}, engine) {}
    void SetUp() override {
        FastPathTest::SetUp();
        make_path(0, false, true);
    }
};

class ScreenOpenssl : public Screen {
  protected:
    ScreenOpenssl() : Screen(EngineKind::openssl) {}
};

TEST_F(Screen, AuthenticEspOfEverySuiteAndFamilyIsUntouched) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            const Phone phone(n++, suite, v6, random_);
            const SetHandle handle = install(phone);
            std::uint32_t sequence = 0;
            std::uint64_t octets = 0;
            for (const bool tcp : {false, true}) {
                for (const bool to_ps : {true, false}) {
                    for (const std::size_t data : {0U, 1U, 2U, 3U, 500U, 1300U, 3000U}) {
                        const Octets wire = phone.esp_up(++sequence, data, tcp, to_ps);
                        octets += wire.size() - (v6 ? 54 : 34);
                        const auto r = inbound({wire});
                        ASSERT_EQ(r.to_host.size(), 1U)
                            << sa::to_string(suite) << (v6 ? " v6 " : " v4 ") << data;
                        ASSERT_EQ(to_hex(r.to_host[0]), to_hex(wire));
                    }
                }
            }
            const SetCounters c = table_.counters(handle);
            EXPECT_EQ(c.in_packets, 28U);
            EXPECT_EQ(c.in_bytes, octets);
            EXPECT_EQ(c.last_use, 1000U);
            EXPECT_EQ(c.out_packets + c.out_bytes + c.highest_out_sequence, 0U);
        }
    }
    EXPECT_EQ(path_->counters().in_authentic.get(), 28U * n);
}

TEST_F(ScreenOpenssl, LeavesThemUntouchedToo) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        const Phone phone(n++, suite, false, random_);
        install(phone);
        for (std::uint32_t s = 1; s <= 4; ++s) {
            const Octets wire = phone.esp_up(s, s * s * s * 20U);
            Octets forged = wire;
            forged[60] ^= 1U;
            const auto r = inbound({forged, wire});
            ASSERT_EQ(r.to_host.size(), 1U) << sa::to_string(suite);
            ASSERT_EQ(to_hex(r.to_host[0]), to_hex(wire));
        }
    }
    EXPECT_EQ(dropped(DropReason::integrity), 4U * n);
}

TEST_F(Screen, ABurstOfAllSuitesKeepsTheOrderOfEachSa) {
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
    const auto r = inbound(burst);
    ASSERT_EQ(r.to_host.size(), burst.size());
    for (const Phone& p : phones) {
        std::vector<Octets> got;
        for (const Octets& f : r.to_host) {
            if (load_be32(&f[f[12] == 0x86 ? 54 : 34]) == p.numbers.spi_ps) got.push_back(f);
        }
        ASSERT_EQ(got.size(), 8U);
        for (std::uint32_t s = 1; s <= 8; ++s) EXPECT_EQ(got[s - 1], p.esp_up(s, 10 * s));
    }
}

TEST_F(Screen, ForgedIsDroppedAndMovesNothing) {
    for (std::uint32_t n = 0; n < sa::all_suites.size(); ++n) {
        const Phone phone(n, sa::all_suites[n], n % 2 == 1, random_);
        const SetHandle handle = install(phone);
        ASSERT_EQ(inbound({phone.esp_up(1, 64)}).to_host.size(), 1U);
        (void)events();
        Octets forged = phone.esp_up(0x7FFFFFFF, 64);
        forged.back() ^= 1U;
        EXPECT_TRUE(inbound({forged}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::integrity), 1U);
        const auto all = events();
        ASSERT_EQ(all.size(), 1U);
        EXPECT_EQ(all[0].kind, sa::BackendEventKind::integrity_failure);
        EXPECT_EQ(table_.counters(handle).integrity_failures, 1U);
        EXPECT_EQ(inbound({phone.esp_up(2, 64)}).to_host.size(), 1U);
    }
}

TEST_F(Screen, ReplayedIsDroppedAlsoWithinOneBurst) {
    for (const sa::Suite suite : {sha1, gmac, gcm, cbc}) {
        const Phone phone(static_cast<std::uint32_t>(sa::suite_index(suite)), suite, false,
                          random_);
        const SetHandle handle = install(phone);
        const Octets first = phone.esp_up(100, 20);
        EXPECT_EQ(inbound({first, first, first}).to_host.size(), 1U);
        EXPECT_EQ(dropped(DropReason::replay), 2U);
        EXPECT_TRUE(inbound({first}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::replay), 1U);
        EXPECT_TRUE(inbound({phone.esp_up(36, 20)}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::replay_too_old), 1U);
        EXPECT_EQ(table_.counters(handle).replays, 4U);
    }
}

TEST_F(Screen, EventsAndUnknownSpis) {
    const Phone phone(0, gcm, false, random_);
    const SetHandle handle = install(phone);
    (void)inbound({phone.esp_up(1, 10), phone.esp_up(2, 10)});
    auto all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::first_authentic_packet);
    EXPECT_EQ(table_.resolve(all[0]), phone.id);
    (void)inbound({phone.esp_up(0xFFF00000U, 10), phone.esp_up(0xFFF00001U, 10)});
    all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_EQ(table_.sequence_state(handle).in_ps, 0xFFF00001U);
    EXPECT_EQ(table_.sequence_state(handle).out_uc, 0U);

    table_.unpublish(handle);
    EXPECT_TRUE(inbound({phone.esp_up(0xFFF00002U, 10)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
    table_.reclaim(handle);
    const Phone next(0, gcm, false, random_, 0, 2);
    install(next);
    EXPECT_EQ(inbound({next.esp_up(1, 10)}).to_host.size(), 1U);
}

// As many sets as it says, over and over: nothing of the outbound side is used up.
TEST_F(Screen, TheTableHoldsItsCapacity) {
    for (int round = 0; round < 3; ++round) {
        std::vector<SetHandle> handles;
        for (std::uint32_t n = 0; n < 64; ++n)
            handles.push_back(
                install(Phone(n, sa::all_suites[n % sa::all_suites.size()], false, random_)));
        EXPECT_EQ(table_.installed(), 64U);
        const Phone more(64, sha1, false, random_);
        EXPECT_FALSE(table_.publish(more.params()));
        for (const SetHandle h : handles) {
            table_.unpublish(h);
            table_.reclaim(h);
        }
        EXPECT_EQ(table_.installed(), 0U);
    }
}

TEST_F(Screen, WhatIsInsideIsCheckedWhereItCanBeSeen) {
    for (const sa::Suite suite : {sha1, gmac}) {
        const Phone phone(static_cast<std::uint32_t>(sa::suite_index(suite)), suite, false,
                          random_);
        install(phone);
        std::uint32_t sequence = 0;
        const auto with = [&](const Octets& cleartext) {
            Octets f = plain_frame(phone.up(false), 0);
            f.resize(34);
            f[23] = 50;
            const Octets esp = phone.esp.seal(phone.numbers.spi_ps, ++sequence, cleartext);
            f.insert(f.end(), esp.begin(), esp.end());
            store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
            set_ipv4_checksum(f);
            return f;
        };
        const auto udp = [](std::uint16_t from, std::uint16_t to) {
            Octets u(20);
            store_be16(&u[0], from);
            store_be16(&u[2], to);
            return u;
        };
        const std::uint16_t uc = phone.numbers.port_uc;
        const std::uint16_t ps = phone.numbers.port_ps;
        Octets clear = phone.esp.pad(udp(uc, ps), 17);
        clear[clear.size() - 2] = 255;
        (void)inbound({with(clear)});
        EXPECT_EQ(dropped(DropReason::bad_padding), 1U);
        (void)inbound({with(phone.esp.pad(Octets(20), 59))});
        EXPECT_EQ(dropped(DropReason::dummy), 1U);
        (void)inbound({with(phone.esp.pad(udp(uc, ps), 41))});
        EXPECT_EQ(dropped(DropReason::next_header), 1U);
        (void)inbound({with(phone.esp.pad(udp(uc, 5060), 17)),
                       with(phone.esp.pad(udp(phone.numbers.port_us, ps), 17))});
        EXPECT_EQ(dropped(DropReason::selector), 2U);
        EXPECT_EQ(inbound({with(phone.esp.pad(udp(uc, ps), 17))}).to_host.size(), 1U);
    }
    // Under a cipher only XFRM can know.
    const Phone hidden(30, gcm, false, random_);
    install(hidden);
    test::Flow flow = hidden.up(false);
    flow.destination_port = 5060;
    const Octets wire = hidden.esp.protect(plain_frame(flow, 20), hidden.numbers.spi_ps, 1);
    EXPECT_EQ(inbound({wire}).to_host.size(), 1U);
}

// A copy that overtakes the phone's packet with a header the host will not take must leave the
// number to the phone's own.
TEST_F(Screen, AHeaderTheHostMayRefuseUsesNoSequenceNumberUp) {
    const Phone four(0, gcm, false, random_);
    const Phone six(1, sha1, true, random_);
    install(four);
    install(six);
    const Octets good4 = four.esp_up(1, 40);
    const Octets good6 = six.esp_up(1, 40);
    std::vector<Octets> damaged;
    Octets f = good4;
    f[24] ^= 1U;  // checksum
    damaged.push_back(f);
    f = good4;
    f[22] ^= 1U;  // time to live, the checksum as it was
    damaged.push_back(f);
    f = good4;  // options, which may be a source route; lengths and checksum are right
    f.insert(f.begin() + 34, {131, 3, 4, 0});
    f[14] = 0x46;
    store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
    set_ipv4_checksum(f, 24);
    damaged.push_back(f);
    f = good4;  // VLAN 7
    f.insert(f.begin() + 12, {0x81, 0x00, 0x00, 0x07});
    damaged.push_back(f);
    f = good6;  // a routing header
    f[20] = 43;
    f.insert(f.begin() + 54, {50, 0, 0, 1, 0, 0, 0, 0});
    store_be16(&f[18], static_cast<std::uint16_t>(f.size() - 54));
    damaged.push_back(f);
    for (const Octets& d : damaged) {
        EXPECT_TRUE(inbound({d}).to_host.empty());
        EXPECT_EQ(dropped(DropReason::outer_header), 1U) << to_hex(d);
    }
    f = good4;  // a priority alone, which the host takes off
    f.insert(f.begin() + 12, {0x81, 0x00, 0xA0, 0x00});
    EXPECT_EQ(inbound({f, good6}).to_host, (std::vector<Octets>{f, good6}));
    EXPECT_TRUE(inbound({good4}).to_host.empty()) << "the tagged one was the phone's";
    EXPECT_EQ(dropped(DropReason::replay), 1U);
}

TEST_F(Screen, EspForAnotherStationIsNotForTheHost) {
    const Phone phone(0, sha1, false, random_);
    install(phone);
    FastPathConfig config;
    config.our_addresses = {test::our_address(false)};
    config.verify_only = true;
    config.host_mac = {2, 0, 0, 0, 0, 9};
    path_ = std::make_unique<FastPath>(config, table_, make_engine(best_engine()), random_);
    Octets wire = phone.esp_up(1, 20);
    std::copy(config.host_mac.begin(), config.host_mac.end(), wire.begin());
    Octets other = wire;
    other[5] = 8;
    EXPECT_TRUE(inbound({other}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::outer_header), 1U);
    EXPECT_EQ(inbound({wire}).to_host.size(), 1U);
}

TEST_F(Screen, CleartextForProtectedPortsIsDroppedTheRestPasses) {
    for (const bool v6 : {false, true}) {
        const Phone p(v6 ? 1 : 0, sha1, v6, random_);
        install(p);
        for (const bool tcp : {false, true}) {
            for (const bool to_ps : {false, true}) {
                EXPECT_TRUE(inbound({plain_frame(p.up(tcp, to_ps), 10)}).to_host.empty());
                EXPECT_EQ(dropped(DropReason::cleartext_protected_port), 1U);
            }
            test::Flow other = p.up(tcp);
            other.destination_port = 5060;
            const Octets plain = plain_frame(other, 10);
            EXPECT_EQ(inbound({plain}).to_host, std::vector<Octets>{plain});
        }
        Octets fragment = p.esp_up(1, 100);
        if (v6) {
            fragment[20] = 44;
        } else {
            store_be16(&fragment[20], 0x2000);
        }
        EXPECT_EQ(inbound({fragment}).fragments.size(), 1U);
    }
}

TEST_F(Screen, OfTheHostEspPassesAndCleartextOfProtectedPortsDoesNot) {
    for (const bool v6 : {false, true}) {
        const Phone p(v6 ? 1 : 0, sha1, v6, random_);
        install(p);
        for (const bool tcp : {false, true}) {
            for (const bool to_uc : {false, true}) {
                const Octets plain = plain_frame(p.down(tcp, to_uc), 10);
                // Also where an SA would cover it: sealing is the host's, so it has not.
                EXPECT_TRUE(outbound({plain}).to_wire.empty());
                EXPECT_EQ(dropped(DropReason::outbound_no_sa), 1U);
                const Octets sealed =
                    p.esp.protect(plain, to_uc ? p.numbers.spi_uc : p.numbers.spi_us, 1);
                EXPECT_EQ(outbound({sealed}).to_wire, std::vector<Octets>{sealed});
            }
            test::Flow other = p.down(tcp);
            other.source_port = 5060;
            const Octets plain = plain_frame(other, 10);
            EXPECT_EQ(outbound({plain}).to_wire, std::vector<Octets>{plain});
        }
        Octets fragment = plain_frame(p.down(false), 64);
        if (v6) {
            fragment[20] = 44;
        } else {
            store_be16(&fragment[20], 0x2000);
        }
        const auto r = outbound({fragment});
        EXPECT_TRUE(r.to_wire.empty());
        EXPECT_EQ(r.fragments.size(), 1U) << "the ports of a fragment are not in it";
    }
    Octets arp(42);
    store_be16(&arp[12], 0x0806);
    EXPECT_EQ(outbound({arp}).to_wire, std::vector<Octets>{arp});
}

}  // namespace
}  // namespace gmgate::dataplane
