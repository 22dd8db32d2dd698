// SM1 to SM12 in the good case: IPv4 and IPv6, UDP and TCP, first and repeated (SPEC B, D).

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

struct Way {
    std::string_view address;
    sip::Transport transport;
    std::string_view name;
};

class Register : public testing::TestWithParam<Way> {};

TEST_P(Register, FromSm1ToSm12) {
    World w;
    Phone& p = w.phone("alice", GetParam().address, GetParam().transport);
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(w.gateway->registered(), 1U);
    EXPECT_EQ(w.gateway->pending(), 0U);
    EXPECT_EQ(w.backend.installed(), 1U);
    const auto to_ue = w.sent_to(Wire::To::ue);
    ASSERT_EQ(to_ue.size(), 2U);
    EXPECT_FALSE(to_ue[0].esp) << "SM6 answers an SM1 in clear in clear";
    EXPECT_TRUE(to_ue[1].esp) << "SM12 travels on the new SAs";
    w.expect_no_leak(1);
    w.advance(3600s);
    w.expect_no_leak(0);
}

TEST_P(Register, AgainOnTheOldSet) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone("alice", GetParam().address, GetParam().transport);
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.reregister());
    const auto to_ue = w.sent_to(Wire::To::ue);
    ASSERT_EQ(to_ue.size(), 4U);
    EXPECT_EQ(to_ue[2].set, to_ue[1].set) << "SM6 under the old set";
    EXPECT_NE(to_ue[3].set, to_ue[2].set) << "SM12 on the new one";
    EXPECT_EQ(w.backend.installed(), 2U) << "D2: the old set is kept until the new one is used";
    EXPECT_EQ(p.sets[0].numbers.port_ps, p.sets[1].numbers.port_ps);
    EXPECT_NE(p.sets[0].numbers.port_pc, p.sets[1].numbers.port_pc);
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    w.advance(40s);
    EXPECT_EQ(w.backend.installed(), 1U) << "D2: then it goes";
    w.expect_no_leak(1);
}

TEST_P(Register, AgainInClear) {
    World w;
    Phone& p = w.phone("alice", GetParam().address, GetParam().transport);
    ASSERT_TRUE(p.register_once());
    const auto old = w.backend.sets().begin()->first;
    p.next_ports();
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(w.backend.installed(), 1U);
    EXPECT_FALSE(w.backend.has(old)) << "D1: the old set is gone after SM12";
    w.expect_no_leak(1);
}

TEST_P(Register, MessageBothWays) {
    World w;
    Phone& p = w.phone("alice", GetParam().address, GetParam().transport);
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example",
                                     "Content-Type: text/plain\r\n", "hello"));
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(w.home.inbox.back().message.contains("\r\n\r\nhello"));

    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact(), "Content-Type: text/plain\r\n",
                   "hi");
    w.run();
    const Wire asked = p.last();
    ASSERT_EQ(asked.message.method(), "MESSAGE");
    EXPECT_TRUE(asked.esp);
    EXPECT_EQ(asked.flow.transport, GetParam().transport);
    EXPECT_EQ(asked.flow.remote.port, p.port_us);
    EXPECT_EQ(asked.flow.local.port, p.current().numbers.port_pc);
    p.answer(asked, 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.expect_no_leak(1);
}

TEST_P(Register, DeregisterOnTheSet) {
    World w;
    Phone& p = w.phone("alice", GetParam().address, GetParam().transport);
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.deregister());
    EXPECT_TRUE(p.last().esp) << "D4: the 200 leaves under the SAs";
    EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
    w.advance(40s);
    EXPECT_EQ(w.gateway->registered(), 0U);
    w.expect_no_leak(0);
}

INSTANTIATE_TEST_SUITE_P(Ways, Register,
                         testing::Values(Way{"10.2.0.1", sip::Transport::udp, "v4udp"},
                                         Way{"10.2.0.1", sip::Transport::tcp, "v4tcp"},
                                         Way{"2001:db8:2::1", sip::Transport::udp, "v6udp"},
                                         Way{"2001:db8:2::1", sip::Transport::tcp, "v6tcp"}),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace gmgate::test
