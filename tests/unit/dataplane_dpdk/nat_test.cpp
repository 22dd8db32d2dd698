// ESP in UDP for phones behind a NAT (N1): both directions, and where the phone is.

#include "tests/unit/dataplane_dpdk/nat_frames.h"

#include "dataplane/core/udp_encapsulation.h"
#include "dataplane/dpdk/fragment.h"
#include "dataplane/dpdk/port.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane::test {
namespace {

Endpoint at(std::string_view text) {
    return *Endpoint::parse(text);
}

BufferPools& pools() {
    static const auto made = BufferPools::create("inner", 1, 24);
    if (!made) throw std::runtime_error(made.error().text);
    return **made;
}

class Nat : public FastPathTest {
  protected:
    static constexpr std::uint16_t own_uc = 7000;
    static constexpr std::uint16_t own_us = 7777;

    void SetUp() override {
        nat_ = true;
        FastPathTest::SetUp();
    }
    SetHandle install_behind_nat(const Phone& phone) {
        sa::SetParams params = phone.params();
        params.nat = sa::NatTraversal{inner_, own_uc, own_us};
        const auto handle = table_.publish(params);
        EXPECT_TRUE(handle.has_value()) << (handle ? "" : handle.error().text);
        return handle ? *handle : SetHandle{};
    }
    [[nodiscard]] Flow own_up(const Phone& phone, bool tcp, bool to_ps) const {
        Flow flow = phone.up(tcp, to_ps);
        flow.source = octets_of(inner_);
        flow.source_port = to_ps ? own_uc : own_us;
        return flow;
    }
    [[nodiscard]] static Octets sealed(const Phone& phone, std::uint32_t sequence, Octets packet,
                                       std::uint8_t next_header = protocol_ipv4,
                                       bool to_ps = true) {
        return phone.esp.seal_payload(to_ps ? phone.numbers.spi_ps : phone.numbers.spi_pc, sequence,
                                      packet, next_header);
    }
    // A packet of the phone, as it leaves its NAT.
    [[nodiscard]] Octets up(const Phone& phone, std::uint32_t sequence, const Endpoint& source,
                            std::size_t data = 100, bool tcp = false, bool to_ps = true) const {
        return in_udp(
            sealed(phone, sequence, as_packet(plain_frame(own_up(phone, tcp, to_ps), data)),
                   protocol_ipv4, to_ps),
            source, phone.ours);
    }
    [[nodiscard]] Endpoint endpoint(SetHandle set) const {
        const std::uint64_t e = table_.counters(set).nat_endpoint;
        std::array<std::uint8_t, 4> a{};
        store_be32(a.data(), static_cast<std::uint32_t>(e >> 16U));
        return {IpAddress::v4(a), static_cast<std::uint16_t>(e)};
    }
    void heard_from(const Phone& phone, std::uint32_t sequence, const Endpoint& source) {
        EXPECT_EQ(inbound({up(phone, sequence, source)}).to_host.size(), 1U);
    }

    IpAddress inner_ = *IpAddress::parse("192.168.1.2");
    sa::Suite plain_{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
};

TEST_F(Nat, TheHostSeesTheLabel) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        const Phone phone(n++, suite, false, random_);
        install_behind_nat(phone);
        std::uint32_t sequence = 0;
        for (const bool tcp : {false, true}) {
            for (const bool to_ps : {false, true}) {
                const std::size_t data = 100 + n;
                const In in =
                    inbound({up(phone, ++sequence, at("203.0.113.7:4501"), data, tcp, to_ps)});
                ASSERT_EQ(in.to_host.size(), 1U) << sa::to_string(suite);
                EXPECT_TRUE(is_sound(in.to_host[0]));
                EXPECT_EQ(as_packet(in.to_host[0]),
                          as_packet(plain_frame(phone.up(tcp, to_ps), data)));
            }
        }
    }
}

TEST_F(Nat, NothingIsSentBeforeThePhoneIsHeard) {
    const Phone phone(0, plain_, false, random_);
    const SetHandle set = install_behind_nat(phone);
    EXPECT_EQ(endpoint(set).port, 0);
    EXPECT_TRUE(outbound({plain_frame(phone.down(false), 50)}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_endpoint), 1U);
    EXPECT_EQ(table_.counters(set).out_packets, 0U) << "a sequence number was used up";
    // A keep-alive proves nothing.
    EXPECT_TRUE(inbound({in_udp({0xFF}, at("203.0.113.7:4501"), phone.ours)}).to_host.empty());
    EXPECT_EQ(path_->counters().in_keepalives.get(), 1U);
    EXPECT_EQ(endpoint(set).port, 0);
    EXPECT_EQ(dropped(DropReason::integrity), 0U);
}

TEST_F(Nat, AnswersGoToTheEndpoint) {
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        const Phone phone(n++, suite, false, random_);
        const SetHandle set = install_behind_nat(phone);
        const Endpoint nat{phone.ue, 40123};
        heard_from(phone, 1, nat);
        EXPECT_EQ(endpoint(set), nat);
        for (const bool tcp : {false, true}) {
            for (const bool to_uc : {false, true}) {
                Octets plain = plain_frame(phone.down(tcp, to_uc), 333);
                plain[15] = 0xB8;  // EF
                set_ipv4_checksum(plain);
                const Out out = outbound({plain});
                ASSERT_EQ(out.to_wire.size(), 1U);
                const Octets& frame = out.to_wire[0];
                EXPECT_TRUE(std::equal(frame.begin(), frame.begin() + 14, plain.begin()))
                    << "the host knows the way to the label";
                const PacketView view = classify(frame);
                ASSERT_EQ(view.kind, PacketKind::udp);
                EXPECT_EQ(view.source_port, 4500);
                EXPECT_EQ(view.destination_port, 40123);
                EXPECT_EQ(view.end, frame.size());
                EXPECT_EQ(load_be16(&frame[38]), frame.size() - 34);
                EXPECT_EQ(load_be16(&frame[40]), 0) << "UDP checksum";
                EXPECT_EQ(frame[15], 0xB8) << "DSCP";
                EXPECT_EQ(load_be16(&frame[20]) & 0x4000, 0) << "DF";
                Octets again = frame;
                set_ipv4_checksum(again);
                EXPECT_EQ(again, frame) << "header checksum";
                EXPECT_EQ(load_be32(&frame[42]),
                          to_uc ? phone.numbers.spi_uc : phone.numbers.spi_us);

                auto inside = phone.esp.open(out_of_udp(frame));
                ASSERT_TRUE(inside);
                EXPECT_EQ(inside->back(), protocol_ipv4);
                inside->resize(inside->size() - 2U - (*inside)[inside->size() - 2]);
                const Octets packet = as_frame(*inside);
                EXPECT_TRUE(is_sound(packet));
                Flow own = phone.down(tcp, to_uc);
                own.destination = octets_of(inner_);
                own.destination_port = to_uc ? own_uc : own_us;
                Octets expected = plain_frame(own, 333);
                expected[15] = 0xB8;
                set_ipv4_checksum(expected);
                EXPECT_EQ(as_packet(packet), as_packet(expected));
            }
        }
    }
}

TEST_F(Nat, OnlyWhatIsAuthenticAndNewMovesTheEndpoint) {
    const Phone phone(0, plain_, false, random_);
    const SetHandle set = install_behind_nat(phone);
    const Endpoint home = at("203.0.113.7:40123");
    const Endpoint thief = at("198.51.100.66:4500");
    const Endpoint moved = at("203.0.113.7:51000");

    Octets forged = up(phone, 5, thief);
    forged.back() ^= 1U;
    EXPECT_TRUE(inbound({forged}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::integrity), 1U);
    EXPECT_EQ(endpoint(set).port, 0);

    heard_from(phone, 5, home);
    EXPECT_EQ(endpoint(set), home);
    forged = up(phone, 6, thief);
    forged.back() ^= 1U;
    EXPECT_TRUE(inbound({forged}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::integrity), 1U);
    EXPECT_EQ(endpoint(set), home) << "forged";
    EXPECT_TRUE(inbound({up(phone, 5, thief)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::replay), 1U);
    EXPECT_EQ(endpoint(set), home) << "replayed";
    // Delayed, and from where the phone once was: taken, but it is no news.
    heard_from(phone, 3, thief);
    EXPECT_EQ(endpoint(set), home) << "overtaken";
    EXPECT_EQ(path_->counters().nat_moved.get(), 0U);

    heard_from(phone, 6, moved);
    EXPECT_EQ(endpoint(set), moved);
    EXPECT_EQ(path_->counters().nat_moved.get(), 1U);
    // The SA of the other direction counts for itself, the endpoint is the set's: soon after a move
    // it may be a packet from before, later it is news.
    constexpr std::uint32_t then = 1000;
    constexpr std::uint32_t settled = then + NatPath::settling;
    EXPECT_EQ(inbound({up(phone, 1, home, 100, false, false)}, then).to_host.size(), 1U);
    EXPECT_EQ(inbound({up(phone, 2, home, 100, false, false)}, settled - 1).to_host.size(), 1U);
    EXPECT_EQ(endpoint(set), moved) << "delayed, on the other SA";
    EXPECT_EQ(inbound({up(phone, 3, home, 100, false, false)}, settled).to_host.size(), 1U);
    EXPECT_EQ(endpoint(set), home);
    // In one burst the newest counts.
    EXPECT_EQ(inbound({up(phone, 8, moved), up(phone, 7, thief)}, settled + NatPath::settling)
                  .to_host.size(),
              2U);
    EXPECT_EQ(endpoint(set), moved);
}

TEST_F(Nat, AnotherAddressIsReachedTheWayBack) {
    const Phone phone(0, plain_, false, random_);
    const SetHandle set = install_behind_nat(phone);
    Octets frame = up(phone, 1, at("198.51.100.9:4500"));
    const Octets mac{2, 0, 0, 0x11, 0x22, 0x33};
    std::copy(mac.begin(), mac.end(), frame.begin() + 6);
    EXPECT_EQ(inbound({frame}).to_host.size(), 1U);
    EXPECT_EQ(endpoint(set), at("198.51.100.9:4500"));
    const Out out = outbound({plain_frame(phone.down(false), 50)});
    ASSERT_EQ(out.to_wire.size(), 1U);
    EXPECT_TRUE(std::equal(mac.begin(), mac.end(), out.to_wire[0].begin()));
    // Nobody can be written to at such a source.
    std::uint32_t sequence = 1;
    for (const char* nowhere : {"0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1",
                                "10.0.0.1:1", "198.51.100.10:0"}) {
        heard_from(phone, ++sequence, at(nowhere));
        EXPECT_EQ(endpoint(set), at("198.51.100.9:4500")) << nowhere;
    }
}

TEST_F(Nat, ModesAreNotMixed) {
    const Phone behind(0, plain_, false, random_);
    const Phone direct(1, plain_, false, random_);
    install_behind_nat(behind);
    install(direct);
    const Octets bare =
        behind.esp.protect(plain_frame(behind.up(false), 40), behind.numbers.spi_ps, 1);
    EXPECT_TRUE(inbound({bare}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::encapsulation), 1U);
    const Octets esp = sealed(direct, 1, as_packet(plain_frame(direct.up(false), 40)));
    EXPECT_TRUE(inbound({in_udp(esp, {direct.ue, 4500}, direct.ours)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::encapsulation), 1U);
    // The ordinary one is as ever.
    EXPECT_EQ(inbound({direct.esp_up(1, 40)}).to_host.size(), 1U);
}

TEST_F(Nat, WhatElseComesToThePort) {
    const Phone phone(0, plain_, false, random_);
    install_behind_nat(phone);
    const Endpoint from = at("203.0.113.7:40123");
    const auto refused = [&](const Octets& frame, DropReason reason) {
        EXPECT_TRUE(inbound({frame}).to_host.empty());
        EXPECT_EQ(dropped(reason), 1U) << name(reason);
    };
    refused(in_udp({0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, from, phone.ours),
            DropReason::not_esp_in_udp);
    refused(in_udp({}, from, phone.ours), DropReason::not_esp_in_udp);
    refused(in_udp({0xFE}, from, phone.ours), DropReason::not_esp_in_udp);
    refused(in_udp({0xFF, 0xFF}, from, phone.ours), DropReason::not_esp_in_udp);
    refused(in_udp({1, 2, 3, 4, 5, 6, 7}, from, phone.ours), DropReason::not_esp_in_udp);
    refused(in_udp({1, 2, 3, 4, 5, 6, 7, 8}, from, phone.ours), DropReason::unknown_spi);
    for (const std::uint16_t length : {std::uint16_t{7}, std::uint16_t{200}}) {
        Octets frame = up(phone, 1, from, 10);
        store_be16(&frame[38], length);
        refused(frame, DropReason::malformed_transport);
    }
    Octets damaged = up(phone, 1, from);
    damaged[24] ^= 1U;
    refused(damaged, DropReason::outer_header);
    // Not ours: the host routes it, or not.
    EXPECT_EQ(inbound({in_udp({0xFF}, from, *IpAddress::parse("10.9.9.9"))}).to_host.size(), 1U);
    const Octets v6 = plain_frame({.v6 = true,
                                   .source = octets_of(*IpAddress::parse("2001:db8:1::7")),
                                   .destination = octets_of(our_address(true)),
                                   .source_port = 4500,
                                   .destination_port = 4500},
                                  20);
    refused(v6, DropReason::not_esp_in_udp);
    // Switched off: the host's own affair.
    nat_ = false;
    make_path();
    EXPECT_EQ(inbound({in_udp({0xFF}, from, phone.ours), up(phone, 1, from), v6}).to_host.size(),
              3U);
}

TEST_F(Nat, InsideIsWhatItsSaAllows) {
    const Phone phone(0, plain_, false, random_);
    install_behind_nat(phone);
    const Endpoint from = at("203.0.113.7:40123");
    std::uint32_t sequence = 0;
    const auto refused = [&](const Octets& packet, DropReason reason, std::uint8_t next = 4) {
        const Octets frame = in_udp(sealed(phone, ++sequence, packet, next), from, phone.ours);
        EXPECT_TRUE(inbound({frame}).to_host.empty());
        EXPECT_EQ(dropped(reason), 1U) << name(reason) << " " << sequence;
    };
    const Octets good = plain_frame(own_up(phone, false, true), 40);
    const auto changed = [&](std::size_t offset, std::uint8_t value) {
        Octets frame = good;
        frame[offset] = value;
        set_ipv4_checksum(frame);
        return as_packet(frame);
    };
    refused(changed(14, 0x46), DropReason::inner_header);  // options
    refused(changed(14, 0x65), DropReason::inner_header);  // version 6
    refused(changed(17, 19), DropReason::inner_header);    // shorter than its header
    refused(changed(17, 200), DropReason::inner_header);   // longer than what there is
    refused(changed(29, 3), DropReason::inner_header);     // another source
    refused(changed(33, 2), DropReason::inner_header);     // another destination
    refused(changed(23, 1), DropReason::next_header);      // ICMP
    refused(changed(34, 99), DropReason::selector);        // another port
    refused(changed(36, 99), DropReason::selector);        // to another port
    refused(changed(17, 27), DropReason::selector);        // no whole UDP header
    Octets damaged = as_packet(good);
    damaged[10] ^= 1U;
    refused(damaged, DropReason::inner_header);
    refused({0x45}, DropReason::inner_header);
    refused(as_packet(good), DropReason::next_header, 41);
    refused(as_packet(good), DropReason::dummy, 59);
    refused(as_packet(plain_frame(phone.up(false), 40)), DropReason::inner_header);  // the label
    refused(Octets(good.begin() + 34, good.end()), DropReason::next_header, 17);  // transport mode
    // Padding behind the packet is no part of it (RFC 4303 2.7).
    Octets padded = as_packet(good);
    padded.resize(padded.size() + 64);
    const In in = inbound({in_udp(sealed(phone, ++sequence, padded), from, phone.ours)});
    ASSERT_EQ(in.to_host.size(), 1U);
    EXPECT_EQ(as_packet(in.to_host[0]), as_packet(plain_frame(phone.up(false), 40)));
}

// E6: a packet the phone cut before its tunnel. Its parts are authentic one by one; nobody else's
// may get among them.
TEST_F(Nat, FragmentsInsideAreMadeWholeBySa) {
    const Phone phone(0, plain_, false, random_);
    const Phone other(1, plain_, false, random_);
    const SetHandle set = install_behind_nat(phone);
    install_behind_nat(other);
    PortCounters counters;
    Reassembler reassembler({.datagrams = 16}, pools().large(), 9, counters);
    const Endpoint from = at("203.0.113.7:40123");
    std::uint32_t sequence = 0;
    const TimePoint now{};
    std::vector<Octets> to_host;
    const auto take = [&](const Phone& who, const Octets& packet, bool to_ps = true) {
        const Octets esp = sealed(who, ++sequence, packet, protocol_ipv4, to_ps);
        rte_mbuf* m = make_mbuf(in_udp(esp, from, who.ours));
        InboundResult result;
        path_->inbound(&m, 1, 1000, result);
        const auto& list = result.inner_fragments;
        for (std::uint16_t i = 0; i < list.packets.count; ++i) {
            rte_mbuf* whole = reassembler.add(list.packets.packets[i], now, list.spis[i]);
            if (whole != nullptr) path_->inner_whole(whole, list.spis[i], result);
        }
        for (rte_mbuf* h : result.to_host.all()) {
            to_host.push_back(contents(h));
            rte_pktmbuf_free(h);
        }
        return std::size_t{list.packets.count};
    };
    const auto cut = [&](const Octets& frame) {  // at 1,200 octets of IP
        rte_mbuf* m = make_mbuf(frame);
        std::array<rte_mbuf*, 8> pieces;
        const auto n = fragment_frame(m, 1200, pools().large(), 77, pieces);
        rte_pktmbuf_free(m);
        std::vector<Octets> out;
        for (std::uint16_t i = 0; i < n; ++i) {
            out.push_back(as_packet(contents(pieces[i])));
            rte_pktmbuf_free(pieces[i]);
        }
        return out;
    };
    const auto pieces = cut(plain_frame(own_up(phone, false, true), 4000));
    ASSERT_EQ(pieces.size(), 4U);
    for (const std::size_t i : {2, 0, 3, 1}) {
        EXPECT_TRUE(to_host.empty());
        EXPECT_EQ(take(phone, pieces[i]), 1U);
    }
    ASSERT_EQ(to_host.size(), 1U);
    EXPECT_TRUE(is_sound(to_host[0]));
    Octets expected = plain_frame(phone.up(false), 4000);
    store_be16(&expected[18], 77);
    set_ipv4_checksum(expected);
    EXPECT_EQ(as_packet(to_host[0]), as_packet(expected));

    // The same address and identification on another's SA, and on the other SA of the same phone.
    to_host.clear();
    for (const std::size_t i : {0, 1, 2}) EXPECT_EQ(take(phone, pieces[i]), 1U);
    EXPECT_EQ(take(other, pieces[3]), 1U);
    EXPECT_EQ(take(phone, pieces[3], false), 1U);
    EXPECT_TRUE(to_host.empty()) << "parts of different SAs met";
    EXPECT_EQ(take(phone, pieces[3]), 1U);
    EXPECT_EQ(to_host.size(), 1U);

    // Whole, it must be what its SA allows (A3).
    Flow elsewhere = own_up(phone, false, true);
    elsewhere.destination_port = 99;
    for (const Octets& piece : cut(plain_frame(elsewhere, 2000))) EXPECT_EQ(take(phone, piece), 1U);
    EXPECT_EQ(dropped(DropReason::selector), 1U);
    // And each part the phone's.
    Flow foreign = own_up(phone, false, true);
    foreign.source[3] ^= 1U;
    EXPECT_EQ(take(phone, cut(plain_frame(foreign, 2000))[0]), 0U);
    EXPECT_EQ(dropped(DropReason::inner_header), 1U);
    // Its SA went before the last part came.
    const auto late = cut(plain_frame(own_up(phone, false, true), 2000));
    EXPECT_EQ(take(phone, late[0]), 1U);
    const Octets last = in_udp(sealed(phone, ++sequence, late[1]), from, phone.ours);
    rte_mbuf* m = make_mbuf(last);
    InboundResult result;
    path_->inbound(&m, 1, 1000, result);
    ASSERT_EQ(result.inner_fragments.packets.count, 1);
    table_.unpublish(set);
    rte_mbuf* whole = reassembler.add(result.inner_fragments.packets.packets[0], now,
                                      result.inner_fragments.spis[0]);
    ASSERT_NE(whole, nullptr);
    path_->inner_whole(whole, result.inner_fragments.spis[0], result);
    EXPECT_EQ(result.to_host.count, 0);
    EXPECT_EQ(dropped(DropReason::unknown_spi), 1U);
}

TEST_F(Nat, ChecksumsStayWhatTheyAre) {
    const Phone phone(0, plain_, false, random_);
    install_behind_nat(phone);
    Octets frame = plain_frame(own_up(phone, false, true), 40);
    store_be16(&frame[40], 0);  // UDP without a checksum
    const In in =
        inbound({in_udp(sealed(phone, 1, as_packet(frame)), at("203.0.113.7:1"), phone.ours)});
    ASSERT_EQ(in.to_host.size(), 1U);
    EXPECT_EQ(load_be16(&in.to_host[0][40]), 0);
    frame = plain_frame(own_up(phone, false, true), 40);
    frame[41] ^= 1U;  // a wrong one
    const In wrong =
        inbound({in_udp(sealed(phone, 2, as_packet(frame)), at("203.0.113.7:1"), phone.ours)});
    ASSERT_EQ(wrong.to_host.size(), 1U);
    EXPECT_FALSE(is_sound(wrong.to_host[0]));
}

TEST_F(Nat, CongestionOutsideIsToldInside) {
    const Phone phone(0, plain_, false, random_);
    install_behind_nat(phone);
    std::uint32_t sequence = 0;
    for (const auto& [inner, outer, seen] :
         {std::array{0, 3, 0}, std::array{1, 3, 3}, std::array{2, 3, 3}, std::array{2, 1, 2}}) {
        Octets frame = plain_frame(own_up(phone, true, true), 40);
        frame[15] = static_cast<std::uint8_t>(inner);
        set_ipv4_checksum(frame);
        Octets carrier =
            in_udp(sealed(phone, ++sequence, as_packet(frame)), at("203.0.113.7:1"), phone.ours);
        carrier[15] = static_cast<std::uint8_t>(outer);
        set_ipv4_checksum(carrier);
        const In in = inbound({carrier});
        ASSERT_EQ(in.to_host.size(), 1U);
        EXPECT_EQ(in.to_host[0][15], seen);
        EXPECT_TRUE(is_sound(in.to_host[0]));
    }
}

TEST_F(Nat, AnotherWorkersGoesToIt) {
    SaTable two({.capacity = 64, .workers = 2, .huge_pages = false}, make_engine(engine_), random_);
    const Phone phone(0, plain_, false, random_, 1);
    sa::SetParams params = phone.params();
    params.nat = sa::NatTraversal{inner_, own_uc, own_us};
    ASSERT_TRUE(two.publish(params));
    FastPathConfig config;
    config.our_addresses = {our_address(false)};
    config.nat = true;
    FastPath other(config, two, make_engine(engine_), random_);
    const Octets frame = up(phone, 1, at("203.0.113.7:40123"));
    rte_mbuf* m = make_mbuf(frame);
    InboundResult result;
    other.inbound(&m, 1, 1000, result);
    ASSERT_EQ(result.to_worker.packets.count, 1);
    EXPECT_EQ(contents(result.to_worker.packets.packets[0]), frame);
    rte_pktmbuf_free(m);
}

TEST_F(Nat, NotForIpv6AndNotForTheScreen) {
    const Phone v6(0, plain_, true, random_);
    sa::SetParams params = v6.params();
    params.nat = sa::NatTraversal{*IpAddress::parse("fd00::2"), own_uc, own_us};
    EXPECT_EQ(table_.publish(params).error().kind, ErrorKind::unsupported);
    SaTable screen({.capacity = 4, .huge_pages = false, .inbound_only = true}, make_engine(engine_),
                   random_);
    const Phone v4(1, plain_, false, random_);
    params = v4.params();
    params.nat = sa::NatTraversal{inner_, own_uc, own_us};
    EXPECT_EQ(screen.publish(params).error().kind, ErrorKind::unsupported);
    EXPECT_EQ(screen.installed(), 0U);
}

// The endpoint of a set that is gone is not the next one's.
TEST_F(Nat, ARecycledPlaceRemembersNothing) {
    SaTable one({.capacity = 1, .huge_pages = false}, make_engine(engine_), random_);
    const Phone phone(0, plain_, false, random_);
    sa::SetParams params = phone.params();
    params.nat = sa::NatTraversal{inner_, own_uc, own_us};
    const auto first = one.publish(params);
    ASSERT_TRUE(first);
    one.nat_path(first->index).endpoint.set(NatPath::pack(0x01020304, 5));
    EXPECT_NE(one.counters(*first).nat_endpoint, 0U);
    one.unpublish(*first);
    one.reclaim(*first);
    const auto second = one.publish(params);
    ASSERT_TRUE(second);
    EXPECT_EQ(one.counters(*second).nat_endpoint, 0U);
}

}  // namespace
}  // namespace gmgate::dataplane::test
