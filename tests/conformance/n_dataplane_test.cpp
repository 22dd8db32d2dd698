// N1 from end to end: a phone behind a NAT whose every protected message is ESP in UDP, through the
// fast path and the control plane, both ways.

#include <gtest/gtest.h>

#include "tests/conformance/share.h"
#include "tests/support/gateway_world.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"
#include "tests/unit/dataplane_dpdk/nat_frames.h"

namespace gmgate::test {
namespace {

using dataplane::DropReason;
using dataplane::test::FastPathTest;
using dataplane::test::Octets;
namespace frames = dataplane::test;

World::Options options() {
    World::Options o;
    o.capacity = 64;
    o.policy.gm_addresses = {dataplane::test::our_address(false)};
    o.database.ports.port_ps = {dataplane::test::port_ps};
    o.database.ports.pc_first = dataplane::test::first_port_pc;
    o.database.ports.pc_last = dataplane::test::first_port_pc + 31;
    return o;
}

// Everything from the phone arrives as frames of its NAT.
class N1_packets : public FastPathTest {
  protected:
    void SetUp() override {
        nat_ = true;
        FastPathTest::SetUp();
        phone_.inner = ip("192.168.1.2");
        phone_.port = 40500;
        // SM1 and SM6 in clear, to the address the fast path knows.
        world_.lose = [this](const Wire& wire) {
            if (wire.to != Wire::To::ue) return false;
            if (wire.set == 0) return false;
            down_.push_back(wire);
            return true;  // it leaves through the fast path
        };
    }
    void say_in_clear(const std::string& text) {
        Wire w;
        w.to = Wire::To::gateway_gm;
        w.flow = {sip::Transport::udp, Endpoint{ours(), 5060},
                  Endpoint{phone_.address, phone_.port}, 0};
        w.message.text = text;
        world_.queue.push_back(w);
        world_.run();
    }
    static IpAddress ours() { return frames::our_address(false); }
    // What the database installed, in the fast path too.
    void follow() {
        for (const auto& [id, set] : world_.backend.sets()) {
            if (handles_.contains(id)) continue;
            sa::SetParams p;
            p.id = id;
            p.ue = set.ue;
            p.ours = set.ours;
            p.numbers = set.numbers;
            p.suite = set.suite;
            p.nat = set.nat;
            p.ck = &set.ck;
            p.ik = &set.ik;
            const auto handle = table_.publish(p);
            ASSERT_TRUE(handle) << handle.error().text;
            handles_[id] = *handle;
            set_ = id;
        }
    }
    const FakeBackend::Installed& set() { return *world_.backend.set(set_); }
    // Of the phone, from port_uc to port_ps.
    Octets up(const std::string& text, std::uint32_t sequence, const Endpoint& from) {
        const auto& n = set().numbers;
        Octets inner = frames::plain_frame({.source = frames::octets_of(set().nat->inner),
                                            .destination = frames::octets_of(ours()),
                                            .source_port = set().nat->port_uc,
                                            .destination_port = n.port_ps},
                                           text.size());
        std::copy(text.begin(), text.end(), inner.begin() + 42);
        store_be16(&inner[40], 0);
        const frames::ReferenceEsp esp(set().suite, set().ck, set().ik);
        return frames::in_udp(esp.seal_payload(n.spi_ps, sequence, frames::as_packet(inner), 4),
                              from, ours());
    }
    // As the host's socket would: address, ports and payload of what came through.
    bool deliver(const Octets& frame) {
        const In in = inbound({frame});
        if (in.to_host.empty()) return false;
        const Octets& f = in.to_host[0];
        const auto source = IpAddress::v4(std::span<const std::uint8_t, 4>(f.data() + 26, 4));
        std::string text(f.begin() + 42, f.end());
        const sip::Flow flow{sip::Transport::udp, Endpoint{ours(), load_be16(&f[36])},
                             Endpoint{source, load_be16(&f[34])}, 0};
        world_.gateway->gm().on_message(flow, text);
        world_.run();
        return true;
    }
    // What the gateway sent last, out through the fast path and opened by the phone. Empty: it
    // could not leave.
    struct Heard {
        Endpoint at;  // outside
        std::string text;
    };
    Heard heard() {
        if (down_.empty()) return {};
        const Wire wire = down_.back();
        down_.clear();
        const std::string& text = wire.message.text;
        Octets plain =
            frames::plain_frame({.source = frames::octets_of(wire.flow.local.address),
                                 .destination = frames::octets_of(wire.flow.remote.address),
                                 .source_port = wire.flow.local.port,
                                 .destination_port = wire.flow.remote.port},
                                text.size());
        std::copy(text.begin(), text.end(), plain.begin() + 42);
        store_be16(&plain[40], 0);
        const Out out = outbound({plain});
        if (out.to_wire.empty()) return {};
        const Octets& f = out.to_wire[0];
        EXPECT_EQ(load_be16(&f[34]), 4500);
        const frames::ReferenceEsp esp(set().suite, set().ck, set().ik);
        auto inside = esp.open(frames::out_of_udp(f));
        if (!inside) return {};
        EXPECT_EQ(inside->back(), 4);
        inside->resize(inside->size() - 2U - (*inside)[inside->size() - 2]);
        EXPECT_TRUE(
            std::equal(inside->begin() + 16, inside->begin() + 20, phone_.inner->octets().begin()));
        EXPECT_EQ(load_be16(inside->data() + 22), phone_.port_us);
        const auto to = IpAddress::v4(std::span<const std::uint8_t, 4>(f.data() + 30, 4));
        return {{to, load_be16(&f[36])}, std::string(inside->begin() + 28, inside->end())};
    }

    World world_{options()};
    Phone& phone_ = world_.phone("alice", "203.0.113.7");
    std::vector<Wire> down_;
    std::map<sa::SetId, dataplane::SetHandle> handles_;
    sa::SetId set_ = 0;
};

TEST_F(N1_packets, ARegistrationInUdpFromEndToEnd) {
    say_in_clear(phone_.register_text({}, nullptr));
    ASSERT_EQ(phone_.last_status(), 401);
    phone_.take_challenge(phone_.last().message);
    ASSERT_TRUE(phone_.pending);
    follow();
    ASSERT_TRUE(set().nat);

    const Endpoint nat = ep("203.0.113.7:41000");
    RegisterOptions o;
    o.authorization = phone_.right_answer();
    o.verify = phone_.pending->server;
    const std::string sm7 = phone_.register_text(o, &*phone_.pending);
    // Forged, from elsewhere: nothing comes of it.
    Octets forged = up(sm7, 1, ep("198.51.100.66:4500"));
    forged.back() ^= 1U;
    EXPECT_FALSE(deliver(forged));
    EXPECT_EQ(dropped(DropReason::integrity), 1U);
    ASSERT_TRUE(deliver(up(sm7, 1, nat)));
    Heard answer = heard();
    EXPECT_TRUE(answer.text.starts_with("SIP/2.0 200 ")) << answer.text;
    EXPECT_EQ(answer.at, nat);
    phone_.accept();
    EXPECT_EQ(world_.gateway->registered(), 1U);

    // Both ways afterwards; the NAT gives another port in between.
    world_.home.request("MESSAGE", world_.home.paths[phone_.impi], phone_.contact());
    world_.run();
    answer = heard();
    EXPECT_TRUE(answer.text.starts_with("MESSAGE "));
    EXPECT_EQ(answer.at, nat);
    const Endpoint moved = ep("203.0.113.7:42000");
    EXPECT_FALSE(deliver(up(sm7, 1, moved)));
    EXPECT_EQ(dropped(DropReason::replay), 1U);
    ASSERT_TRUE(deliver(up(phone_.request("MESSAGE", "sip:echo@home.example"), 2, moved)));
    answer = heard();
    EXPECT_TRUE(answer.text.starts_with("SIP/2.0 200 ")) << answer.text;
    EXPECT_EQ(answer.at, moved);
}

}  // namespace
}  // namespace gmgate::test
