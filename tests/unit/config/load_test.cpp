// The values a right file gives, and that the annotated example says the truth about the defaults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "config/config.h"
#include "config/section.h"

namespace gmgate::config {
namespace {

std::string source_file(const std::string& name) {
    return std::string(GMGATE_SOURCE_DIR) + "/" + name;
}

TEST(ConfigLoad, MinimalFileGivesDefaults) {
    const Result<Config> c = load(source_file("config/minimal.yaml"));
    ASSERT_TRUE(c.has_value()) << c.error().text;
    EXPECT_EQ(c->gateway.name, "pcscf.visited.example");
    EXPECT_EQ(c->gateway.visited_network, "pcscf.visited.example");
    EXPECT_EQ(c->gm.interface, "eth1");
    ASSERT_EQ(c->gm.addresses.size(), 1U);
    EXPECT_EQ(c->gm.addresses[0].to_string(), "10.20.255.1/16");
    EXPECT_EQ(c->core.next_hops.at(0).to_string(), "10.30.0.2:5060");
    EXPECT_EQ(c->timers.reg_await_auth, std::chrono::seconds(240));
    EXPECT_EQ(c->security.suites.size(), 6U);
    ASSERT_TRUE(c->ops.metrics.has_value());
    EXPECT_EQ(c->ops.metrics->to_string(), "127.0.0.1:9464");
}

// Every key of the example, set to what the program uses without it; the required ones aside.
TEST(ConfigLoad, AnnotatedExampleShowsTheDefaults) {
    const Result<Config> full = load(source_file("config/gmgated.yaml"));
    const Result<Config> least = load(source_file("config/minimal.yaml"));
    ASSERT_TRUE(full.has_value()) << full.error().text;
    ASSERT_TRUE(least.has_value()) << least.error().text;
    EXPECT_EQ(full->gm.tap, least->gm.tap);
    EXPECT_EQ(full->gm.unprotected_port, least->gm.unprotected_port);
    EXPECT_EQ(full->gm.port_ps, least->gm.port_ps);
    EXPECT_EQ(full->gm.port_pc, least->gm.port_pc);
    EXPECT_EQ(full->gm.mtu, least->gm.mtu);
    EXPECT_EQ(full->core.transport, least->core.transport);
    EXPECT_EQ(full->core.interconnect, least->core.interconnect);
    EXPECT_EQ(full->core.dns_servers, least->core.dns_servers);
    EXPECT_EQ(full->backend, least->backend);
    EXPECT_EQ(full->dpdk.workers, least->dpdk.workers);
    EXPECT_EQ(full->dpdk.memory_mb, least->dpdk.memory_mb);
    EXPECT_EQ(full->dpdk.hugepages, least->dpdk.hugepages);
    EXPECT_EQ(full->dpdk.idle, least->dpdk.idle);
    EXPECT_EQ(full->dpdk.crypto, least->dpdk.crypto);
    EXPECT_EQ(full->dpdk.max_sets, least->dpdk.max_sets);
    EXPECT_EQ(full->dpdk.replay_window, least->dpdk.replay_window);
    EXPECT_EQ(full->dpdk.device, least->dpdk.device);
    EXPECT_EQ(full->kernel.reqid, least->kernel.reqid);
    EXPECT_EQ(full->kernel.mark, least->kernel.mark);
    EXPECT_EQ(full->kernel.max_sets, least->kernel.max_sets);
    EXPECT_EQ(full->kernel.replay_window, least->kernel.replay_window);
    EXPECT_EQ(full->kernel.offload, least->kernel.offload);
    EXPECT_EQ(full->kernel.device, least->kernel.device);
    EXPECT_EQ(full->kernel.offload_fallback, least->kernel.offload_fallback);
    EXPECT_EQ(full->security.suites, least->security.suites);
    EXPECT_EQ(full->security.missing_ealg, least->security.missing_ealg);
    EXPECT_EQ(full->security.consistency_failure, least->security.consistency_failure);
    EXPECT_EQ(full->security.nat, least->security.nat);
    EXPECT_TRUE(full->nat());
    EXPECT_EQ(full->security.unprotected_other, least->security.unprotected_other);
    EXPECT_EQ(full->security.service_route_mismatch, least->security.service_route_mismatch);
    EXPECT_EQ(full->timers.reg_await_auth, least->timers.reg_await_auth);
    EXPECT_EQ(full->timers.t1, least->timers.t1);
    EXPECT_EQ(full->timers.lifetime_margin, least->timers.lifetime_margin);
    EXPECT_EQ(full->timers.drain, least->timers.drain);
    EXPECT_EQ(full->timers.near_end, least->timers.near_end);
    EXPECT_EQ(full->timers.spi_quarantine, least->timers.spi_quarantine);
    EXPECT_EQ(full->core.trusted, least->core.trusted);
    EXPECT_EQ(full->core.trust_service_routes, least->core.trust_service_routes);
    EXPECT_TRUE(least->core.trust_service_routes);
    EXPECT_EQ(full->limits.registrations, least->limits.registrations);
    EXPECT_EQ(full->limits.pending, least->limits.pending);
    EXPECT_EQ(full->limits.pending_per_source, least->limits.pending_per_source);
    EXPECT_EQ(full->limits.pending_grace, least->limits.pending_grace);
    EXPECT_EQ(full->limits.pending_per_user, least->limits.pending_per_user);
    EXPECT_EQ(full->limits.requests_per_user, least->limits.requests_per_user);
    EXPECT_EQ(full->limits.dialogs, least->limits.dialogs);
    EXPECT_EQ(full->limits.dialogs_per_user, least->limits.dialogs_per_user);
    EXPECT_EQ(full->timers.timer_c, least->timers.timer_c);
    EXPECT_EQ(full->security.emergency, least->security.emergency);
    EXPECT_EQ(full->security.emergency_numbers, least->security.emergency_numbers);
    EXPECT_EQ(full->security.emergency_unregistered, least->security.emergency_unregistered);
    EXPECT_EQ(full->limits.emergency_calls, least->limits.emergency_calls);
    EXPECT_EQ(full->limits.emergency_calls_per_source, least->limits.emergency_calls_per_source);
    EXPECT_EQ(full->core.e_cscf, least->core.e_cscf);
    EXPECT_EQ(full->timers.dialog_idle, least->timers.dialog_idle);
    EXPECT_EQ(full->limits.ipv6_source_prefix, least->limits.ipv6_source_prefix);
    EXPECT_EQ(full->limits.sources_per_nat, least->limits.sources_per_nat);
    EXPECT_EQ(full->limits.register_rate_per_source, least->limits.register_rate_per_source);
    EXPECT_EQ(full->limits.register_burst_per_source, least->limits.register_burst_per_source);
    EXPECT_EQ(full->limits.register_rate_total, least->limits.register_rate_total);
    EXPECT_EQ(full->limits.register_rate_per_user, least->limits.register_rate_per_user);
    EXPECT_EQ(full->limits.register_burst_per_user, least->limits.register_burst_per_user);
    EXPECT_EQ(full->limits.message_rate_per_user, least->limits.message_rate_per_user);
    EXPECT_EQ(full->limits.message_burst_per_user, least->limits.message_burst_per_user);
    EXPECT_EQ(full->limits.tcp_connections, least->limits.tcp_connections);
    EXPECT_EQ(full->limits.tcp_connections_per_source, least->limits.tcp_connections_per_source);
    EXPECT_EQ(full->limits.trace_records, least->limits.trace_records);
    EXPECT_EQ(full->ops.socket, least->ops.socket);
    EXPECT_EQ(full->ops.group, least->ops.group);
    EXPECT_EQ(full->ops.metrics, least->ops.metrics);
    EXPECT_EQ(full->log.level, least->log.level);
    EXPECT_EQ(full->log.time, least->log.time);
}

// A mistyped key lists all keys of its section: each of them stands in the example.
TEST(ConfigLoad, AnnotatedExampleHasEveryKey) {
    std::ifstream in(source_file("config/gmgated.yaml"));
    std::stringstream whole;
    whole << in.rdbuf();
    const Result<Config> full = load(source_file("config/gmgated.yaml"));
    ASSERT_TRUE(full.has_value()) << full.error().text;
    for (const char* section : {"gateway", "gm", "core", "dpdk", "kernel", "security", "timers",
                                "limits", "ops", "log"}) {
        const std::string marked = std::string("\n") + section + ":\n";
        std::string text = whole.str();
        const std::size_t at = text.find(marked);
        ASSERT_NE(at, std::string::npos) << section;
        text.insert(at + marked.size(), "  qqqqqqqqqqqqqqqqq: 1\n");
        const Result<Config> c = load_string(text, "f");
        ASSERT_FALSE(c.has_value());
        const std::string list = c.error().text.substr(c.error().text.find(" has ") + 5);
        std::stringstream names(list);
        for (std::string name; std::getline(names, name, ',');) {
            name.erase(0, name.find_first_not_of(' '));
            EXPECT_TRUE(full->source.lines.contains(std::string(section) + "." + name))
                << section << "." << name;
        }
    }
}

TEST(ConfigLoad, EveryValueIsTaken) {
    const Result<Config> c = load_string(R"(
gateway: {name: "fd00:30::1", visited_network: visited.example}
gm:
  interface: enp1s0f0
  tap: gm7
  addresses: [10.1.0.1/24, "fd00:20::ffff/64"]
  routes: [10.64.0.0/10 via 10.1.0.2, "default via fd00:20::1"]
  unprotected_port: 5070
  port_ps: 7000
  port_pc: 7100 - 7199
  mtu: 9000
core: {listen: [10.30.0.1, "[fd00:30::1]:5080"], next_hop: "[fd00:30::2]", transport: tcp, interconnect: via, e_cscf: 10.30.0.5, trusted: ["fd00:30::/64", 10.30.0.9]}
backend: dpdk
kernel: {reqid: 77, mark: 268435456, max_sets: 200000, replay_window: 4096, offload: packet, device: enp1s0f1,
         offload_fallback: no}
dpdk: {workers: 4, memory_mb: 2048, hugepages: yes, idle: poll, crypto: openssl, max_sets: 1000000, replay_window: 1024,
       device: "net_pcap0,iface=eth1"}
security:
  suites: [HMAC-SHA-1-96/null, hmac-md5-96/des-ede3-cbc]
  missing_ealg: refuse
  consistency_failure: silent
  nat: off
  unprotected_other: drop
  emergency: forward
  emergency_numbers: [999, "*112#"]
  emergency_unregistered: forward
  service_route_mismatch: reject
timers: {reg_await_auth: 4m, t1: 250ms, timer_c: 4m, dialog_idle: 1h, lifetime_margin: 0.5m, drain: 32*t1, near_end: 3s, spi_quarantine: 1h}
limits: {dialogs: 21, dialogs_per_user: 5, registrations: 7, pending: 8, pending_per_source: 1, sources_per_nat: 3, register_rate_per_source: 0.5, register_burst_per_source: 2,
         register_rate_total: 10/s, tcp_connections: 11, tcp_connections_per_source: 12, trace_records: 0}
ops: {socket: /tmp/x.sock, group: wheel, metrics: off}
log: {level: debug, time: false}
)",
                                         "f");
    ASSERT_TRUE(c.has_value()) << c.error().text;
    EXPECT_EQ(c->gateway.name, "[fd00:30::1]");
    EXPECT_EQ(c->core.e_cscf, *Endpoint::parse("10.30.0.5:5060"));
    EXPECT_EQ(c->security.emergency, Emergency::forward);
    EXPECT_EQ(c->security.emergency_unregistered, EmergencyUnregistered::forward);
    EXPECT_EQ(c->security.emergency_numbers, (std::vector<std::string>{"999", "*112#"}));
    EXPECT_EQ(c->timers.timer_c, std::chrono::minutes(4));
    EXPECT_EQ(c->timers.dialog_idle, std::chrono::hours(1));
    EXPECT_EQ(c->limits.dialogs, 21U);
    EXPECT_EQ(c->limits.dialogs_per_user, 5U);
    EXPECT_EQ(c->gateway.visited_network, "visited.example");
    EXPECT_EQ(c->gm.tap, "gm7");
    EXPECT_EQ(c->gm.addresses.at(1).to_string(), "fd00:20::ffff/64");
    ASSERT_EQ(c->gm.routes.size(), 2U);
    EXPECT_EQ(c->gm.routes[0].to_string(), "10.64.0.0/10 via 10.1.0.2");
    EXPECT_EQ(c->gm.routes[1].to_string(), "::/0 via fd00:20::1");
    EXPECT_EQ(c->gm.unprotected_port, 5070);
    EXPECT_EQ(c->gm.port_ps, (PortRange{7000, 7000}));
    EXPECT_EQ(c->gm.port_pc, (PortRange{7100, 7199}));
    EXPECT_EQ(c->gm.mtu, 9000);
    EXPECT_EQ(c->core.listen.at(0).to_string(), "10.30.0.1:5060");
    EXPECT_EQ(c->core.listen.at(1).to_string(), "[fd00:30::1]:5080");
    EXPECT_EQ(c->core.next_hops.at(0).to_string(), "[fd00:30::2]:5060");
    EXPECT_EQ(c->core.transport, Transport::tcp);
    EXPECT_EQ(c->core.interconnect, Interconnect::via);
    EXPECT_EQ(c->kernel.reqid, 77U);
    EXPECT_EQ(c->kernel.mark, 0x10000000U);
    EXPECT_EQ(c->kernel.max_sets, 200000U);
    EXPECT_EQ(c->kernel.replay_window, 4096U);
    EXPECT_EQ(c->kernel.offload, Offload::packet);
    EXPECT_EQ(c->kernel.device, "enp1s0f1");
    EXPECT_FALSE(c->kernel.offload_fallback);
    EXPECT_FALSE(c->core.trust_service_routes);
    ASSERT_EQ(c->core.trusted.size(), 2U);
    EXPECT_EQ(c->core.trusted[0].to_string(), "fd00:30::/64");
    EXPECT_EQ(c->core.trusted[1].to_string(), "10.30.0.9/32");
    EXPECT_EQ(c->dpdk.workers, 4U);
    EXPECT_TRUE(c->dpdk.hugepages);
    EXPECT_EQ(c->dpdk.idle, Idle::poll);
    EXPECT_EQ(c->dpdk.crypto, Crypto::openssl);
    EXPECT_EQ(c->dpdk.max_sets, 1000000U);
    EXPECT_EQ(c->dpdk.replay_window, 1024U);
    EXPECT_EQ(c->dpdk.device, "net_pcap0,iface=eth1");
    EXPECT_THAT(
        c->security.suites,
        testing::ElementsAre(sa::Suite{sa::Integrity::hmac_sha_1_96, sa::Encryption::null},
                             sa::Suite{sa::Integrity::hmac_md5_96, sa::Encryption::des_ede3_cbc}));
    EXPECT_EQ(c->security.missing_ealg, MissingEalg::refuse);
    EXPECT_EQ(c->security.consistency_failure, ConsistencyFailure::silent);
    EXPECT_EQ(c->security.nat, Nat::off);
    EXPECT_EQ(c->security.unprotected_other, UnprotectedOther::drop);
    EXPECT_EQ(c->security.service_route_mismatch, ServiceRouteMismatch::reject);
    EXPECT_EQ(c->timers.reg_await_auth, std::chrono::minutes(4));
    EXPECT_EQ(c->timers.t1, std::chrono::milliseconds(250));
    EXPECT_EQ(c->timers.lifetime_margin, std::chrono::seconds(30));
    EXPECT_EQ(c->timers.drain, std::chrono::seconds(8));
    EXPECT_EQ(c->timers.near_end, std::chrono::seconds(3));
    EXPECT_EQ(c->timers.spi_quarantine, std::chrono::hours(1));
    EXPECT_EQ(c->limits.sources_per_nat, 3U);
    EXPECT_EQ(c->limits.register_rate_per_source, 0.5);
    EXPECT_EQ(c->limits.register_rate_total, 10);
    EXPECT_EQ(c->limits.trace_records, 0U);
    EXPECT_EQ(c->ops.group, "wheel");
    EXPECT_FALSE(c->ops.metrics.has_value());
    EXPECT_EQ(c->log.level, log::Level::debug);
    EXPECT_FALSE(c->log.time);
}

// 64*T1 follows T1 when drain is left out.
TEST(ConfigLoad, DrainFollowsT1) {
    const std::string least =
        "gateway: {name: a}\ngm: {interface: e, addresses: [10.0.0.1/8]}\n"
        "core: {listen: [10.3.0.1], next_hop: 10.3.0.2}\n";
    const Result<Config> c = load_string(least + "timers: {t1: 1s}\n", "f");
    ASSERT_TRUE(c.has_value()) << c.error().text;
    EXPECT_EQ(c->timers.drain, std::chrono::seconds(64));
}

// auto: only where there can be a NAT, and it yields to a port range that was there before it.
TEST(ConfigLoad, NatByItself) {
    const auto nat = [](const std::string& gm, const std::string& more = "") {
        const Result<Config> c =
            load_string("gateway: {name: a}\ngm: {interface: e, " + gm +
                            "}\ncore: {listen: [10.3.0.1], next_hop: 10.3.0.2}\n" + more,
                        "f");
        EXPECT_TRUE(c.has_value()) << c.error().text;
        return c.has_value() && c->nat();
    };
    EXPECT_TRUE(nat("addresses: [10.0.0.1/8]"));
    EXPECT_TRUE(nat("addresses: ['2001:db8::1/64', 10.0.0.1/8]"));
    EXPECT_FALSE(nat("addresses: ['2001:db8::1/64']"));
    EXPECT_TRUE(nat("addresses: ['2001:db8::1/64']", "security: {nat: on}\n"));
    EXPECT_FALSE(nat("addresses: [10.0.0.1/8], port_pc: 4400-4600"));
    EXPECT_FALSE(nat("addresses: [10.0.0.1/8], port_ps: 4500-4501"));
    EXPECT_TRUE(nat("addresses: [10.0.0.1/8]", "backend: kernel\n"));
    EXPECT_FALSE(nat("addresses: [10.0.0.1/8]", "backend: screen\n"));
    EXPECT_FALSE(nat("addresses: [10.0.0.1/8]", "security: {nat: off}\n"));
}

TEST(ConfigLoad, Durations) {
    using namespace std::chrono;
    EXPECT_EQ(parse_duration("240s"), Duration(seconds(240)));
    EXPECT_EQ(parse_duration("1.5 s"), Duration(milliseconds(1500)));
    EXPECT_EQ(parse_duration("500ms"), Duration(milliseconds(500)));
    EXPECT_EQ(parse_duration("2m"), Duration(minutes(2)));
    EXPECT_EQ(parse_duration("2 min"), Duration(minutes(2)));
    EXPECT_EQ(parse_duration("64*T1", Duration(seconds(1))), Duration(seconds(64)));
    EXPECT_EQ(parse_duration("64 * t1", Duration(seconds(1))), Duration(seconds(64)));
    for (const char* wrong : {"", "s", "5", "-5s", "5 fortnights", "1e3s", "1.2.3s", "64*T1",
                              "99999999999999h", "nan s", "0x10s"}) {
        EXPECT_FALSE(parse_duration(wrong).has_value()) << wrong;
    }
}

// One address, several, or a domain with or without a port.
TEST(ConfigLoad, NextHops) {
    const auto core = [](const std::string& next_hop) {
        return load_string(
            "gateway: {name: p.example}\ngm: {interface: eth1, addresses: "
            "[10.20.255.1/16]}\ncore: {listen: [10.30.0.1], next_hop: " +
                next_hop + ", dns_servers: [10.30.0.53, \"10.30.0.54:5353\"]}\n",
            "f");
    };
    const auto list = core("[10.30.0.2, \"10.30.0.3:5080\"]");
    ASSERT_TRUE(list.has_value()) << list.error().text;
    ASSERT_EQ(list->core.next_hops.size(), 2U);
    EXPECT_EQ(list->core.next_hops[0].to_string(), "10.30.0.2:5060");
    EXPECT_EQ(list->core.next_hops[1].to_string(), "10.30.0.3:5080");
    EXPECT_TRUE(list->core.domain.empty());
    ASSERT_EQ(list->core.dns_servers.size(), 2U);
    EXPECT_EQ(list->core.dns_servers[0].to_string(), "10.30.0.53:53");
    EXPECT_EQ(list->core.dns_servers[1].to_string(), "10.30.0.54:5353");
    const auto domain = core("ims.home.example");
    ASSERT_TRUE(domain.has_value()) << domain.error().text;
    EXPECT_EQ(domain->core.domain, "ims.home.example");
    EXPECT_EQ(domain->core.domain_port, 0);
    EXPECT_TRUE(domain->core.next_hops.empty());
    const auto port = core("\"scscf.home.example:5080\"");
    ASSERT_TRUE(port.has_value()) << port.error().text;
    EXPECT_EQ(port->core.domain, "scscf.home.example");
    EXPECT_EQ(port->core.domain_port, 5080);
}

}  // namespace
}  // namespace gmgate::config
