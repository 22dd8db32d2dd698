// E6 through both layers: SIP of 4 KB over UDP, in ESP cut into IP fragments, from the phone
// through the fast path to the gateway, and the gateway's answer of 4 KB back the same way.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "dataplane/dpdk/fragment.h"
#include "dataplane/dpdk/port.h"
#include "tests/support/conformance_world.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using test::Octets;

constexpr std::size_t mtu = 1500;
constexpr std::size_t udp_header = 8;

BufferPools& pools() {
    test::start_eal();
    static const auto made = BufferPools::create("conformance", 1, 24);
    if (!made) throw std::runtime_error(made.error().text);
    return **made;
}

std::size_t l4_of(const Octets& frame) {
    return frame[12] == 0x86 ? 54 : 34;
}

// The frame that carries `text` on that flow, its UDP checksum right.
Octets frame_of(const test::Flow& flow, const std::string& text) {
    Octets f = test::plain_frame(flow, text.size());
    const std::size_t l4 = l4_of(f);
    std::ranges::copy(text, f.begin() + static_cast<std::ptrdiff_t>(l4 + udp_header));
    f[l4 + 6] = f[l4 + 7] = 0;
    std::uint32_t sum = 17 + static_cast<std::uint32_t>(f.size() - l4);
    const std::size_t addresses = flow.v6 ? 22 : 26;
    const auto add = [&](std::size_t from, std::size_t to) {
        for (std::size_t i = from; i < to; ++i) sum += (i - from) % 2 == 0 ? f[i] * 256U : f[i];
    };
    add(addresses, l4);
    add(l4, f.size());
    while (sum > 0xFFFF) sum = (sum & 0xFFFFU) + (sum >> 16U);
    f[l4 + 6] = static_cast<std::uint8_t>(~sum >> 8U);
    f[l4 + 7] = static_cast<std::uint8_t>(~sum);
    EXPECT_TRUE(test::is_sound(f));
    return f;
}

std::string text_of(const Octets& frame) {
    return {frame.begin() + static_cast<std::ptrdiff_t>(l4_of(frame) + udp_header), frame.end()};
}

rte_mbuf* buffer_of(const Octets& frame) {
    rte_mbuf* m = rte_pktmbuf_alloc(pools().large());
    char* at = rte_pktmbuf_append(m, static_cast<std::uint16_t>(frame.size()));
    std::ranges::copy(frame, at);
    return m;
}

Octets octets_of(rte_mbuf* m) {
    const auto* at = rte_pktmbuf_mtod(m, const std::uint8_t*);
    Octets out(at, at + rte_pktmbuf_data_len(m));
    rte_pktmbuf_free(m);
    return out;
}

class E6_packets : public test::FastPathTest {
  protected:
    // Cut to the wire's MTU, its fragments in another order, and made whole again.
    Octets over_the_wire(const Octets& frame) {
        rte_mbuf* whole = buffer_of(frame);
        std::array<rte_mbuf*, 16> pieces{};
        const auto n = fragment_frame(whole, mtu, pools().for_size(mtu + 18), ++id_, pieces);
        rte_pktmbuf_free(whole);
        EXPECT_GE(n, 3U) << "more than two fragments";
        rte_mbuf* again = nullptr;
        for (std::uint16_t i = n; i-- > 0;) {
            EXPECT_LE(rte_pktmbuf_data_len(pieces[i]), mtu + 14);
            rte_mbuf* m = reassembler_.add(pieces[i], TimePoint{std::chrono::hours(1)});
            EXPECT_EQ(m != nullptr, i == 0) << "whole with the last that comes";
            if (m != nullptr) again = m;
        }
        return again == nullptr ? Octets{} : octets_of(again);
    }

    PortCounters counters_;
    Reassembler reassembler_{{.datagrams = 16}, pools().large(), 9, counters_};
    std::uint32_t id_ = 0;
};

TEST_F(E6_packets, FourKilobytesOfSipInFragmentsBothWays) {
    for (const bool v6 : {false, true}) {
        gmgate::test::World w;
        auto& phone = w.phone("alice", v6 ? "2001:db8:2::1" : "10.2.0.1");
        ASSERT_TRUE(phone.register_once());
        const test::Phone set(v6 ? 3 : 2, {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc},
                              v6, random_);
        install(set);

        // The phone's request, as its ESP, in fragments.
        const std::string body(4096, 'u');
        const std::string request = phone.request("MESSAGE", "sip:echo@home.example", {}, body);
        const Octets esp = set.esp.protect(frame_of(set.up(false), request), set.numbers.spi_ps, 1);
        const auto in = inbound_mbuf(buffer_of(over_the_wire(esp)));
        ASSERT_EQ(in.to_host.size(), 1U);
        EXPECT_TRUE(test::is_sound(in.to_host[0]));
        const std::string arrived = text_of(in.to_host[0]);
        EXPECT_EQ(arrived, request);
        w.home.silent = true;
        phone.send_on(phone.current(), arrived);
        w.run();
        ASSERT_TRUE(w.home.inbox.back().message.contains(body)) << "the core has all of it";

        // The core's answer of 4 KB goes over UDP to where the request came from.
        const std::string back(4096, 'd');
        w.home.reply(w.home.inbox.back(), 200, {}, back);
        w.run();
        ASSERT_EQ(phone.last_status(), 200);
        ASSERT_EQ(phone.last().flow.transport, sip::Transport::udp);
        const std::string& answer = phone.last().message.text;
        ASSERT_NE(answer.find(back), std::string::npos);
        const Octets plain = frame_of(set.down(false), answer);
        const auto out = outbound_mbuf(buffer_of(plain));
        ASSERT_EQ(out.to_wire.size(), 1U);
        const Octets wire = over_the_wire(out.to_wire[0]);
        ASSERT_FALSE(wire.empty());
        const auto got = set.esp.unprotect(wire);
        ASSERT_TRUE(got && got->size() == plain.size());
        EXPECT_TRUE(test::is_sound(*got));
        // Fragments have an identification of their own; addresses, ports and SIP are as they were.
        const std::ptrdiff_t addresses = v6 ? 22 : 26;
        EXPECT_TRUE(std::equal(got->begin() + addresses, got->end(), plain.begin() + addresses));
    }
}

}  // namespace
}  // namespace gmgate::dataplane
