// Each mistake of an operator: one line, with the file, the line, the key and what to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/yaml_tree.h"

namespace gmgate::config {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

std::vector<std::string> mistakes(const std::string& text) {
    const Result<Config> c = load_string(text, "gmgated.yaml");
    if (c.has_value()) return {};
    EXPECT_EQ(c.error().kind, ErrorKind::invalid);
    EXPECT_FALSE(c.error().text.ends_with('\n'));
    return lines_of(c.error().text);
}

// A right file with the section `name` replaced; the section's first line is line 1, so `body`'s
// first line is line 2.
std::string with(const std::string& name, const std::string& body) {
    std::string out = name + ":\n" + body + "\n";
    if (name != "gateway") out += "gateway: {name: pcscf.example}\n";
    if (name != "gm") out += "gm: {interface: eth1, addresses: [10.20.255.1/16]}\n";
    if (name != "core") out += "core: {listen: [10.30.0.1:5060], next_hop: 10.30.0.2:5060}\n";
    return out;
}

struct Case {
    const char* name;
    const char* section;
    const char* body;
    const char* expected;
};

class ConfigMistake : public testing::TestWithParam<Case> {};

TEST_P(ConfigMistake, IsOneLine) {
    const std::vector<std::string> found = mistakes(with(GetParam().section, GetParam().body));
    EXPECT_THAT(found, ElementsAre(GetParam().expected));
}

#define GM "  interface: eth1\n  addresses: [10.20.255.1/16]\n"
#define CORE "  listen: [10.30.0.1:5060]\n"

INSTANTIATE_TEST_SUITE_P(
    All, ConfigMistake,
    testing::Values(
        Case{"ProtectedPort5060", "gm", GM "  port_ps: 5060\n  unprotected_port: 5070",
             "gmgated.yaml:4: gm.port_ps: 5060 is not allowed as a protected port (A5); choose "
             "1024-65535 without 5060 and 5061"},
        Case{"ProtectedRangeHolds5061", "gm", GM "  port_pc: 5061-5065",
             "gmgated.yaml:4: gm.port_pc: 5061-5065 holds 5061, which is not allowed as a "
             "protected port (A5); choose 1024-65535 "
             "without 5060 and 5061"},
        Case{"UnknownKeyNear", "gm", GM "  port_sp: 6100",
             "gmgated.yaml:4: gm.port_sp: unknown key; did you mean port_ps?"},
        Case{"UnknownKeyFar", "log", "  colour: red",
             "gmgated.yaml:2: log.colour: unknown key; log has level, time"},
        Case{"EmergencyNumber", "security", "  emergency_numbers: [one-one-two]",
             "gmgated.yaml:2: security.emergency_numbers: 'one-one-two' is not a number as it is "
             "dialled; write digits, such as 112"},
        Case{"EmergencyInClearNowhere", "security", "  emergency_unregistered: forward",
             "gmgated.yaml:2: security.emergency_unregistered: forward needs core.e_cscf, the "
             "address of the E-CSCF; write it, or choose refuse"},
        Case{"EmergencyNowhere", "security", "  emergency: forward",
             "gmgated.yaml:2: security.emergency: forward needs core.e_cscf, the address of the "
             "E-CSCF; write it, or choose alternative or refuse"},
        Case{"EmergencyOfAnotherFamily", "core",
             CORE "  next_hop: 10.30.0.2\n  e_cscf: \"[fd00::1]\"",
             "gmgated.yaml:4: core.e_cscf: [fd00::1]:5060 is no host that core.listen can reach; "
             "give an address of its family"},
        Case{"RingsTooShort", "timers", "  timer_c: 3m",
             "gmgated.yaml:2: timers.timer_c: 3m is out of range; write 181s to 1h"},
        Case{"DuplicateKey", "log", "  level: info\n  time: true\n  level: warn",
             "gmgated.yaml:4: log.level: this key stands already on line 2; keep one of them"},
        Case{"WrongTypeList", "gm", GM "  mtu: [1500]",
             "gmgated.yaml:4: gm.mtu: this is a list; write a whole number from 1280 to 9000 "
             "octets"},
        Case{"WrongTypeEmpty", "gateway",
             "  name:", "gmgated.yaml:2: gateway.name: this is empty; write a text"},
        Case{"WrongTypeText", "gm", GM "  mtu: large",
             "gmgated.yaml:4: gm.mtu: 'large' is not a whole number; write a whole number from "
             "1280 to 9000 octets"},
        Case{
            "SectionIsValue", "log", "  info",
            "gmgated.yaml:2: log: this is a value, not a section; put its keys below it, indented"},
        Case{"NotBoolean", "log", "  time: perhaps",
             "gmgated.yaml:2: log.time: 'perhaps' is neither true nor false"},
        Case{"OutOfRange", "gm", GM "  mtu: 100",
             "gmgated.yaml:4: gm.mtu: 100 is out of range; write a whole number from 1280 to 9000 "
             "octets"},
        Case{"Negative", "limits", "  pending: -1",
             "gmgated.yaml:2: limits.pending: '-1' is not a whole number; write a whole number "
             "from 1 to 2000000"},
        Case{"TooManyDigits", "limits", "  pending: 99999999999999999999999999",
             "gmgated.yaml:2: limits.pending: 99999999999999999999999999 is out of range; write a "
             "whole number from 1 to 2000000"},
        Case{"BadAddress", "gm", "  interface: eth1\n  addresses: [10.20.300.1/16]",
             "gmgated.yaml:3: gm.addresses: '10.20.300.1/16' is not an address with its prefix "
             "length; write 10.20.255.1/16 or "
             "fd00:20::1/64"},
        Case{"AddressWithoutLength", "gm", "  interface: eth1\n  addresses: 10.20.255.1",
             "gmgated.yaml:3: gm.addresses: '10.20.255.1' is not an address with its prefix "
             "length; write 10.20.255.1/16 or "
             "fd00:20::1/64"},
        Case{"MulticastAddress", "gm", "  interface: eth1\n  addresses: [224.0.0.1/4]",
             "gmgated.yaml:3: gm.addresses: 224.0.0.1/4 cannot be the address of an interface; "
             "write a unicast address"},
        Case{"TwoOfAFamily", "gm", "  interface: eth1\n  addresses: [10.0.0.1/8, 11.0.0.1/8]",
             "gmgated.yaml:3: gm.addresses: 11.0.0.1/8 is the second IPv4 address; give one of a "
             "kind"},
        Case{"BadRoute", "gm", GM "  routes: [10.64.0.0/10]",
             "gmgated.yaml:4: gm.routes: '10.64.0.0/10' is not a route; write \"10.20.0.0/16 via "
             "10.21.0.2\" or \"default via "
             "10.21.0.2\""},
        Case{"EmptyList", "gm", "  interface: eth1\n  addresses: []",
             "gmgated.yaml:3: gm.addresses: the list is empty; give at least one"},
        Case{"InterfaceName", "gm", "  interface: 'eth 1'\n  addresses: [10.0.0.1/8]",
             "gmgated.yaml:2: gm.interface: 'eth 1' cannot be an interface's name; at most 15 "
             "characters, no blank, no '/'"},
        Case{"TapIsInterface", "gm", GM "  tap: eth1",
             "gmgated.yaml:4: gm.tap: 'eth1' is gm.interface already; gmgated makes this one "
             "itself, choose another name"},
        Case{"RouteWithoutRouter", "gm", GM "  routes: [10.64.0.0/10]",
             "gmgated.yaml:4: gm.routes: '10.64.0.0/10' is not a route; write \"10.20.0.0/16 via "
             "10.21.0.2\" or \"default via "
             "10.21.0.2\""},
        Case{"RouteOfTwoFamilies", "gm", GM "  routes: ['10.64.0.0/10 via fd00::1']",
             "gmgated.yaml:4: gm.routes: '10.64.0.0/10 via fd00::1' is not a route; write "
             "\"10.20.0.0/16 via 10.21.0.2\" or "
             "\"default via 10.21.0.2\""},
        Case{"RouteTwice", "gm", GM "  routes: [default via 10.20.0.1, 0.0.0.0/0 via 10.20.0.1]",
             "gmgated.yaml:4: gm.routes: 0.0.0.0/0 via 10.20.0.1 is there twice; write it once"},
        Case{"RouterElsewhere", "gm", GM "  routes: [10.64.0.0/10 via 10.21.0.2]",
             "gmgated.yaml:4: gm.routes: the router 10.21.0.2 is in no network of gm.addresses; "
             "name one that is, or widen a prefix there"},
        Case{"RouterOfTheOtherFamily", "gm", GM "  routes: ['::/0 via fd00::1']",
             "gmgated.yaml:4: gm.routes: the router fd00::1 is in no network of gm.addresses; "
             "name one that is, or widen a prefix there"},
        Case{"RangesOverlap", "gm", GM "  port_ps: 6100-6200\n  port_pc: 6200-6231",
             "gmgated.yaml:5: gm.port_pc: port_ps 6100-6200 and port_pc 6200-6231 overlap; a port "
             "has one of the two uses, keep them "
             "apart"},
        Case{"OverlapWithDefault", "gm", GM "  port_ps: 6200",
             "gmgated.yaml:4: gm.port_ps: port_ps 6200 and port_pc 6200-6231 overlap; a port has "
             "one of the two uses, keep them "
             "apart"},
        Case{"UnprotectedOverlaps", "gm", GM "  unprotected_port: 6101",
             "gmgated.yaml:4: gm.unprotected_port: port_ps 6100-6103 overlaps unprotected_port "
             "6101; cleartext must have a port of "
             "its own (A6)"},
        Case{"RangeBackwards", "gm", GM "  port_ps: 6103-6100",
             "gmgated.yaml:4: gm.port_ps: 6103-6100 runs backwards; write 6100-6103"},
        Case{"NotAPort", "gm", GM "  port_ps: sips",
             "gmgated.yaml:4: gm.port_ps: 'sips' is neither a port nor a range; write one such as "
             "6100-6103"},
        Case{"PortTooLarge", "gm", GM "  port_ps: 6100-70000",
             "gmgated.yaml:4: gm.port_ps: 6100-70000 is out of range; choose 1024-65535 without "
             "5060 and 5061"},
        Case{"OneClientPort", "gm", GM "  port_pc: 6200",
             "gmgated.yaml:4: gm.port_pc: one port is not enough: port_pc changes at each "
             "re-registration (A5); give a range such as "
             "6200-6231"},
        Case{"UnknownAlgorithm", "security", "  suites: [hmac-sha1-96/null]",
             "gmgated.yaml:2: security.suites: unknown algorithm pair 'hmac-sha1-96/null'; did you "
             "mean hmac-sha-1-96/null? one of "
             "null/aes-gcm, aes-gmac/null, hmac-sha-1-96/aes-cbc, hmac-sha-1-96/null, "
             "hmac-md5-96/aes-cbc, hmac-md5-96/null, "
             "hmac-sha-1-96/des-ede3-cbc, hmac-md5-96/des-ede3-cbc"},
        Case{"SuiteTwice", "security", "  suites: [null/aes-gcm, NULL/AES-GCM]",
             "gmgated.yaml:2: security.suites: null/aes-gcm stands there twice; the order is the "
             "preference, keep one"},
        Case{"BadChoice", "security", "  missing_ealg: refuze",
             "gmgated.yaml:2: security.missing_ealg: 'refuze' is not one of assume_null, refuse; "
             "did you mean refuse?"},
        Case{"NatWithTheScreen", "security", "  nat: on\nbackend: screen",
             "gmgated.yaml:2: security.nat: UDP encapsulation takes backend: dpdk or kernel; write "
             "one, or security.nat: off, and phones behind a NAT are refused"},
        Case{"PortOfTheEncapsulation", "gm", GM "  port_pc: 4400-4600\nsecurity:\n  nat: on",
             "gmgated.yaml:4: gm.port_pc: port 4500 is taken by UDP encapsulation; choose others, "
             "or write security.nat: off"},
        Case{"UnknownBackend", "dpdk", "  workers: 1\nbackend: ebpf",
             "gmgated.yaml:3: backend: 'ebpf' is not one of dpdk, kernel, screen"},
        Case{"KernelReqid", "kernel", "  reqid: 0",
             "gmgated.yaml:2: kernel.reqid: 0 is out of range; write a whole number from 1 to "
             "4294967295"},
        Case{"KernelReplayWindow", "kernel", "  replay_window: 100",
             "gmgated.yaml:2: kernel.replay_window: 100 is not a multiple of 32; write 128"},
        Case{"KernelOffload", "kernel", "  offload: full",
             "gmgated.yaml:2: kernel.offload: 'full' is not one of none, crypto, packet"},
        Case{"KernelDevice", "kernel", "  device: 0000:3b:00.0",
             "gmgated.yaml:2: kernel.device: '0000:3b:00.0' cannot be an interface's name; write "
             "one as 'ip link' shows it"},
        Case{"TooManyPhonesForTheKernel", "kernel", "  max_sets: 1000\nbackend: kernel",
             "gmgated.yaml:2: kernel.max_sets: 100000 phones do not fit into kernel.max_sets 1000; "
             "each needs one set, and a second one while it re-registers"},
        Case{"ScreenWiderThanTheKernel", "kernel", "  replay_window: 96\nbackend: screen",
             "gmgated.yaml:2: kernel.replay_window: the kernel's window of 96 packets is narrower "
             "than the screen's of 128 (dpdk.replay_window), so the kernel would drop what the "
             "screen lets through; make it 128 or more"},
        Case{"ScreenWiderThanTheKernelsDefault", "dpdk", "  replay_window: 1024\nbackend: screen",
             "gmgated.yaml:2: dpdk.replay_window: the kernel's window of 128 packets is narrower "
             "than the screen's of 1024 (dpdk.replay_window), so the kernel would drop what the "
             "screen lets through; give kernel.replay_window 1024 or more"},
        Case{"ScreenWithOffload", "kernel", "  offload: crypto\nbackend: screen",
             "gmgated.yaml:2: kernel.offload: with backend: screen the NIC is DPDK's, so the "
             "kernel cannot have it do ESP; write none"},
        Case{"TooManyPhonesBehindTheScreen", "kernel", "  max_sets: 1000\nbackend: screen",
             "gmgated.yaml:2: kernel.max_sets: 100000 phones do not fit into kernel.max_sets 1000; "
             "each needs one set, and a second one while it re-registers"},
        Case{"TooManyPhonesForTheScreen", "dpdk", "  max_sets: 1000\nbackend: screen",
             "gmgated.yaml:2: dpdk.max_sets: 100000 phones do not fit into dpdk.max_sets 1000; "
             "each needs one set, and a second one while it re-registers"},
        Case{"DurationWithoutUnit", "timers", "  reg_await_auth: 240",
             "gmgated.yaml:2: timers.reg_await_auth: '240' is not a duration; write a number with "
             "its unit: 500ms, 240s, 2m or 1h"},
        Case{"DurationRange", "timers", "  t1: 1h",
             "gmgated.yaml:2: timers.t1: 1h is out of range; write 50ms to 10s"},
        Case{"DurationOfT1Elsewhere", "timers", "  reg_await_auth: 64*T1",
             "gmgated.yaml:2: timers.reg_await_auth: '64*T1' is not a duration; write a number "
             "with its unit: 500ms, 240s, 2m or 1h"},
        Case{"BadRate", "limits", "  register_rate_total: fast",
             "gmgated.yaml:2: limits.register_rate_total: 'fast' is not a rate; write a number a "
             "second from 0.1 to 10000000, such as "
             "5 or 0.5/s"},
        Case{"ReplayWindow", "dpdk", "  replay_window: 100",
             "gmgated.yaml:2: dpdk.replay_window: 100 is not a multiple of 64; write 128"},
        Case{"TooManyPhones", "limits", "  registrations: 200000",
             "gmgated.yaml:2: limits.registrations: 200000 phones do not fit into dpdk.max_sets "
             "131072; each needs one set, and a "
             "second one while it re-registers"},
        Case{"NextHopIsOurs", "core", CORE "  next_hop: 10.30.0.1:5060",
             "gmgated.yaml:3: core.next_hop: 10.30.0.1:5060 is our own address (core.listen); "
             "requests would run in a circle, write "
             "the home network's"},
        Case{"NextHopFamily", "core", CORE "  next_hop: '[fd00::2]:5060'",
             "gmgated.yaml:3: core.next_hop: [fd00::2]:5060 is IPv6, but core.listen has no "
             "address of that kind; add one there"},
        Case{"NextHopName", "core", CORE "  next_hop: scscf_1.example",
             "gmgated.yaml:3: core.next_hop: 'scscf_1.example' is neither an address nor a domain; "
             "write 10.30.0.2:5060, [fd00:30::2]:5060 or ims.home.example"},
        Case{"NextHopTwice", "core", CORE "  next_hop: [10.30.0.2, '10.30.0.2:5060']",
             "gmgated.yaml:3: core.next_hop: 10.30.0.2:5060 stands there twice"},
        Case{"NextHopMixed", "core", CORE "  next_hop: [10.30.0.2, ims.example]",
             "gmgated.yaml:3: core.next_hop: the domain ims.example stands beside addresses; give "
             "either one domain or a list of addresses"},
        Case{"NextHopTwoDomains", "core", CORE "  next_hop: [a.example, b.example]",
             "gmgated.yaml:3: core.next_hop: b.example is the second domain; give one"},
        Case{"DnsServer", "core", CORE "  next_hop: ims.example\n  dns_servers: [ns.example]",
             "gmgated.yaml:4: core.dns_servers: 'ns.example' is not the address of a DNS server; "
             "write 10.30.0.53, 10.30.0.53:5353, or system"},
        Case{"CoreOnGmPort", "core", "  listen: 10.20.255.1:5060\n  next_hop: 10.30.0.2",
             "gmgated.yaml:2: core.listen: 10.20.255.1:5060 is a port of the Gm side already "
             "(gm.addresses with its ports); choose "
             "another"},
        Case{"BadHost", "gateway", "  name: pcscf_1.example",
             "gmgated.yaml:2: gateway.name: 'pcscf_1.example' is neither a host name nor an "
             "address; write one such as "
             "pcscf.visited.example"},
        Case{"SocketRelative", "ops", "  socket: gmgated.sock",
             "gmgated.yaml:2: ops.socket: 'gmgated.sock' is not a whole path; write one such as "
             "/run/gmgate/gmgated.sock"},
        Case{"BadMetrics", "ops", "  metrics: everywhere",
             "gmgated.yaml:2: ops.metrics: 'everywhere' is not an address with a port; write "
             "127.0.0.1:9464, or off"},
        Case{"MissingName", "gateway", "  visited_network: visited.example",
             "gmgated.yaml:1: gateway.name: missing; write the host of our SIP URIs, such as "
             "pcscf.visited.example"},
        Case{"MissingInterface", "gm", "  addresses: [10.20.255.1/16]",
             "gmgated.yaml:1: gm.interface: missing; name the network interface the phones are "
             "behind, as 'ip link' shows it"},
        Case{"MissingNextHop", "core", "  listen: [10.30.0.1:5060]",
             "gmgated.yaml:1: core.next_hop: missing; give the address of the I-CSCF or S-CSCF, "
             "such as 10.30.0.2:5060"},
        Case{"Alias", "log", "  level: &a info\n  time: *a",
             "gmgated.yaml:2: anchors (&name) are not used here; remove it"},
        Case{"Tab", "log", "\tlevel: info",
             "gmgated.yaml:2: a tab indents this line; YAML wants blanks"}),
    [](const testing::TestParamInfo<Case>& one) { return one.param.name; });

TEST(ConfigMistakes, AllAreReportedInOneRunInTheirOrder) {
    const std::vector<std::string> found = mistakes(
        "gateway:\n  nmae: a\ngm:\n  interface: eth1\n  addresses: [nowhere]\n  port_ps: "
        "5060-5061\nlog:\n  level: loud\n");
    ASSERT_EQ(found.size(), 8U);
    EXPECT_THAT(found[0], StartsWith("gmgated.yaml:1: gateway.name: missing"));
    EXPECT_THAT(found[1],
                StartsWith("gmgated.yaml:2: gateway.nmae: unknown key; did you mean name?"));
    EXPECT_THAT(found[2], StartsWith("gmgated.yaml:5: gm.addresses: 'nowhere'"));
    EXPECT_THAT(found[3], StartsWith("gmgated.yaml:6: gm.port_ps: 5060-5061 holds 5060"));
    EXPECT_THAT(
        found[4],
        StartsWith("gmgated.yaml:6: gm.port_ps: port_ps 5060-5061 overlaps unprotected_port 5060"));
    EXPECT_THAT(found[5], StartsWith("gmgated.yaml:8: log.level: 'loud'"));
    // A section that is not there has no line.
    EXPECT_THAT(found[6], StartsWith("gmgated.yaml: core.listen: missing"));
    EXPECT_THAT(found[7], StartsWith("gmgated.yaml: core.next_hop: missing"));
}

TEST(ConfigMistakes, DuplicateSection) {
    const std::vector<std::string> found =
        mistakes(with("log", "  level: info\nlog:\n  level: warn"));
    ASSERT_FALSE(found.empty());
    EXPECT_EQ(found[0], "gmgated.yaml:3: log: this key stands already on line 1; keep one of them");
}

TEST(ConfigMistakes, SyntaxErrorHasItsLine) {
    const std::vector<std::string> found = mistakes("gateway:\n  name: [a\ngm: x\n");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_THAT(found[0], StartsWith("gmgated.yaml:"));
    EXPECT_THAT(found[0], HasSubstr("this is not YAML: "));
    EXPECT_THAT(found[0], Not(StartsWith("gmgated.yaml: ")));
}

TEST(ConfigMistakes, EmptyFileSaysWhatIsMissing) {
    for (const char* empty : {"", "\n\n", "# nothing\n", "---\n"}) {
        const std::vector<std::string> found = mistakes(empty);
        ASSERT_EQ(found.size(), 5U) << '"' << empty << '"';
        EXPECT_THAT(found[0], StartsWith("gmgated.yaml: gateway.name: missing"));
    }
}

TEST(ConfigMistakes, ListInPlaceOfSections) {
    EXPECT_EQ(mistakes("- a\n- b\n")[0],
              "gmgated.yaml:1: the file holds a list, not sections; begin with 'gateway:'");
}

TEST(ConfigMistakes, SecondDocument) {
    EXPECT_THAT(mistakes(with("log", "  level: info") + "---\na: b\n").at(0),
                HasSubstr("a second document"));
}

TEST(ConfigMistakes, TooLarge) {
    const std::string text = "gateway: {name: a}\n" + std::string(10U << 20U, '#');
    const std::vector<std::string> found = mistakes(text);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_THAT(found[0], HasSubstr("more than a configuration has (limit 1048576)"));
}

TEST(ConfigMistakes, DeepNesting) {
    const std::vector<std::string> flow = mistakes("gm: " + std::string(100000, '['));
    ASSERT_EQ(flow.size(), 1U);
    EXPECT_THAT(flow[0], HasSubstr("gmgated.yaml:1: "));
    std::string block;
    for (int i = 0; i < 300; ++i) block += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
    EXPECT_THAT(mistakes(block).at(0), EndsWith("nested too deeply for a configuration"));
}

// Each level doubles the one below: a reader that expands aliases would need 2^30 nodes.
TEST(ConfigMistakes, AliasBomb) {
    std::string text = "a0: &a0 [x]\n";
    for (int i = 1; i < 30; ++i) {
        const std::string p = std::to_string(i - 1);
        text +=
            "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + p + ", *a" + p + "]\n";
    }
    EXPECT_THAT(mistakes(text),
                ElementsAre("gmgated.yaml:1: anchors (&name) are not used here; remove it"));
}

TEST(ConfigMistakes, BinaryFile) {
    EXPECT_THAT(mistakes(std::string("gateway:\n\0\x01", 11)).at(0),
                StartsWith("gmgated.yaml:2: octet 0x00 does not belong in a text file"));
}

TEST(ConfigMistakes, ManyAreCutShortAndQuotedTextIsCleaned) {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "k" + std::to_string(i) + ": 1\n";
    const std::vector<std::string> found = mistakes(text);
    ASSERT_EQ(found.size(), 51U);
    EXPECT_THAT(found.back(), HasSubstr("more mistakes; mend these first"));
    // A value cannot forge a second line.
    const std::vector<std::string> one = mistakes(with("log", "  level: \"a\\nb: c\\e[31m\""));
    ASSERT_EQ(one.size(), 1U);
    EXPECT_THAT(one[0], HasSubstr("'a?b: c?[31m'"));
}

class ConfigFile : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = testing::TempDir() + "gmgate-config-XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        dir_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(dir_); }
    std::string dir_;
};

TEST_F(ConfigFile, Missing) {
    const Result<Config> c = load(dir_ + "/none.yaml");
    ASSERT_FALSE(c.has_value());
    EXPECT_EQ(c.error().kind, ErrorKind::io);
    EXPECT_EQ(
        c.error().text,
        dir_ +
            "/none.yaml: cannot be read: No such file or directory; give the path of the file; "
            "config/gmgated.yaml is an example");
}

TEST_F(ConfigFile, IsADirectory) {
    const Result<Config> c = load(dir_);
    ASSERT_FALSE(c.has_value());
    EXPECT_EQ(c.error().text, dir_ + ": cannot be read: Is a directory; is it a file?");
}

TEST_F(ConfigFile, NoPermission) {
    const std::string path = dir_ + "/secret.yaml";
    std::ofstream(path) << "a: b\n";
    ::chmod(path.c_str(), 0);
    // Root may read every file: look as nobody.
    const bool root = ::geteuid() == 0;
    if (root) {
        ::chmod(dir_.c_str(), 0755);
        ASSERT_EQ(::seteuid(65534), 0);
    }
    const Result<Config> c = load(path);
    if (root) {
        ASSERT_EQ(::seteuid(0), 0);
    }
    ASSERT_FALSE(c.has_value());
    EXPECT_THAT(c.error().text, EndsWith("Permission denied; run as a user who may read it"));
}

// Endless, and no file: the limit ends it.
TEST_F(ConfigFile, Device) {
    const Result<Config> c = load("/dev/zero");
    ASSERT_FALSE(c.has_value());
    EXPECT_THAT(c.error().text, HasSubstr("more than a configuration has"));
}

class ConfigEnvironment : public ConfigFile {
  protected:
    Config config_of(const std::string& text) {
        Result<Config> c = load_string(text, "gmgated.yaml");
        EXPECT_TRUE(c.has_value()) << c.error().text;
        return *c;
    }
    Environment good() {
        std::filesystem::create_directory(dir_ + "/lo");
        std::filesystem::create_directory(dir_ + "/eth1");
        return {dir_, true, true, true, 100};
    }
};

TEST_F(ConfigEnvironment, AllThere) {
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  hugepages: true")), good()),
                testing::IsEmpty());
}

TEST_F(ConfigEnvironment, InterfaceAbsent) {
    EXPECT_THAT(
        check_environment(config_of(with("gm", "  interface: eth9\n  addresses: [10.0.0.1/8]")),
                          good()),
        ElementsAre(
            "gmgated.yaml:2: gm.interface: this machine has no interface 'eth9'; it has eth1, lo"));
}

// Each of these would end the start after the file has been found right.
TEST_F(ConfigEnvironment, TheFastPathsInterface) {
    Environment e = good();
    std::ofstream(dir_ + "/eth1/type") << "65534\n";
    std::ofstream(dir_ + "/eth1/mtu") << "1400\n";
    e.addresses_on = [](const std::string& name) {
        return name == "eth1"
                   ? std::vector{*IpAddress::parse("192.0.2.1"), *IpAddress::parse("2001:db8::1")}
                   : std::vector<IpAddress>{};
    };
    EXPECT_THAT(
        check_environment(config_of(with("dpdk", "  workers: 1")), e),
        testing::UnorderedElementsAre(
            testing::HasSubstr("gm.interface: eth1 is no Ethernet interface"),
            testing::HasSubstr("gm.interface: eth1 still has 192.0.2.1, 2001:db8::1; gmgated "
                               "answers there itself: 'ip addr flush dev eth1'"),
            testing::HasSubstr("gm.mtu: eth1 has an MTU of 1400, and 1500 is asked for")));
    std::ofstream(dir_ + "/eth1/type") << "1\n";
    std::ofstream(dir_ + "/eth1/mtu") << "9000\n";
    e.addresses_on = [](const std::string&) { return std::vector<IpAddress>{}; };
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  workers: 1")), e), testing::IsEmpty());
    const auto jumbo =
        config_of(with("gm", "  interface: eth1\n  addresses: [10.0.0.1/8]\n  mtu: 9000"));
    EXPECT_THAT(
        check_environment(jumbo, e),
        ElementsAre("gmgated.yaml:4: gm.mtu: 9000 is more than the 8000 an interface of the "
                    "host can carry here; more takes a NIC under dpdk.device"));
}

TEST_F(ConfigEnvironment, TheKernelUsesTheHostsAddresses) {
    Environment e = good();
    e.addresses_on = [](const std::string&) { return std::vector{*IpAddress::parse("10.0.0.2")}; };
    const auto config =
        config_of(with("gm", "  interface: eth1\n  addresses: [10.0.0.1/8]\nbackend: kernel"));
    EXPECT_THAT(check_environment(config, e),
                ElementsAre("gmgated.yaml:3: gm.addresses: 10.0.0.1 is not on eth1; with backend: "
                            "kernel the host's own addresses are used: 'ip address add 10.0.0.1/8 "
                            "dev eth1', or correct gm.addresses"));
    e.addresses_on = [](const std::string&) { return std::vector{*IpAddress::parse("10.0.0.1")}; };
    EXPECT_THAT(check_environment(config, e), testing::IsEmpty());
}

TEST_F(ConfigEnvironment, DeviceNeedsNoInterface) {
    EXPECT_THAT(
        check_environment(config_of("gateway: {name: a}\ngm: {addresses: [10.0.0.1/8]}\n"
                                    "core: {listen: [10.30.0.1:5060], next_hop: 10.30.0.2:5060}\n"
                                    "dpdk: {device: '0000:3b:00.0'}\n"),
                          good()),
        testing::IsEmpty());
}

TEST_F(ConfigEnvironment, NoPermission) {
    Environment e = good();
    e.net_admin = e.net_raw = e.bpf = false;
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  workers: 1\nbackend: dpdk")), e),
                ElementsAre("gmgated.yaml:3: backend: no permission for the packet layer: "
                            "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF missing; "
                            "run gmgated as root or by its systemd unit"));
}

TEST_F(ConfigEnvironment, KernelNeedsItsInterfaceAndNoBpf) {
    Environment e = good();
    e.bpf = false;
    const std::string kernel = "  offload: crypto\n  device: eth7\nbackend: kernel";
    EXPECT_THAT(check_environment(config_of(with("kernel", kernel)), e),
                ElementsAre("gmgated.yaml:3: kernel.device: this machine has no interface 'eth7'; "
                            "it has eth1, lo"));
    // The fast path's device is no way in for the kernel.
    EXPECT_THAT(check_environment(config_of(with("gm",
                                                 "  interface: eth9\n  addresses: "
                                                 "[10.0.0.1/8]\nbackend: kernel\n"
                                                 "dpdk: {device: '0000:3b:00.0'}")),
                                  e),
                ElementsAre("gmgated.yaml:2: gm.interface: this machine has no interface 'eth9'; "
                            "it has eth1, lo"));
}

TEST_F(ConfigEnvironment, NoHugePages) {
    Environment e = good();
    e.free_huge_pages = 0;
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  hugepages: true")), e),
                ElementsAre("gmgated.yaml:2: dpdk.hugepages: no huge pages are free; reserve some "
                            "(sysctl vm.nr_hugepages=256) or write "
                            "false"));
}

TEST_F(ConfigEnvironment, PacketMemoryBeyondTheMachine) {
    Environment e = good();
    e.free_huge_mb = 256;
    e.memory_mb = 2000;
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  memory_mb: 2000")), e),
                testing::IsEmpty());
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  memory_mb: 2001")), e),
                ElementsAre("gmgated.yaml:2: dpdk.memory_mb: 2001 MB of packet memory are asked "
                            "for, and this machine has 2000 MB; write less"));
    EXPECT_THAT(
        check_environment(config_of(with("dpdk", "  memory_mb: 257\n  hugepages: true")), e),
        ElementsAre("gmgated.yaml:2: dpdk.memory_mb: 257 MB of packet memory are asked for, "
                    "and this machine has 256 MB in free huge pages; write less, or "
                    "reserve more (sysctl vm.nr_hugepages)"));
    // The kernel's IPsec takes none.
    EXPECT_THAT(check_environment(config_of(with("dpdk", "  memory_mb: 2001\nbackend: kernel")), e),
                testing::Each(Not(HasSubstr("memory_mb"))));
}

TEST_F(ConfigEnvironment, ListensOnOurAddressesOnly) {
    Environment e = good();
    std::vector<std::string> asked;
    e.can_bind = [&](const IpAddress& a) {
        asked.push_back(a.to_string());
        return a.to_string() != "10.30.0.1";
    };
    const auto text = [](const std::string& listen, const std::string& metrics) {
        return "gateway: {name: a}\ngm: {interface: eth1, addresses: [10.0.0.1/8]}\ncore: {listen: "
               "[" +
               listen + "], next_hop: 10.30.0.2:5060}\nops: {metrics: '" + metrics + "'}\n";
    };
    EXPECT_THAT(
        check_environment(config_of(text("10.30.0.1:5060", "127.0.0.1:9464")), e),
        ElementsAre("gmgated.yaml:3: core.listen: 10.30.0.1 is no address of this machine; give "
                    "one that 'ip addr' shows, or add it to an interface"));
    EXPECT_THAT(check_environment(config_of(text("10.31.0.1:5060", "10.30.0.1:9464")), e),
                ElementsAre(HasSubstr("ops.metrics: 10.30.0.1 is no address of this machine")));
    asked.clear();
    // Brought up by the fast path, and IPv6 that may be still on its way: not asked.
    EXPECT_THAT(
        check_environment(
            config_of(text("10.0.0.1:5080, '[2001:db8::1]:5060'", "[2001:db8::1]:9464")), e),
        testing::IsEmpty());
    EXPECT_THAT(asked, testing::IsEmpty());
}

// The real machine: what is no address of it is told from what is.
TEST_F(ConfigEnvironment, TheKernelIsAskedForAddresses) {
    const Environment e = Environment::of_this_process();
    ASSERT_TRUE(e.can_bind);
    EXPECT_TRUE(e.can_bind(*IpAddress::parse("127.0.0.1")));
    EXPECT_TRUE(e.can_bind(*IpAddress::parse("0.0.0.0")));
    std::ifstream nonlocal("/proc/sys/net/ipv4/ip_nonlocal_bind");
    int on = 0;
    nonlocal >> on;
    EXPECT_EQ(e.can_bind(*IpAddress::parse("192.0.2.77")), on != 0);
    EXPECT_GT(e.memory_mb, 0U);
}

TEST_F(ConfigEnvironment, UnknownGroup) {
    EXPECT_THAT(check_environment(config_of(with("ops", "  group: no-such-group")), good()),
                ElementsAre("gmgated.yaml:2: ops.group: this machine has no group 'no-such-group'; "
                            "create it (groupadd --system "
                            "no-such-group) or leave the key out"));
}

TEST_F(ConfigEnvironment, OfThisProcessIsReadable) {
    // Whatever the rights of the test are, the loopback interface is there.
    Config c = config_of(with("log", "  level: info"));
    c.gm.interface = "lo";
    for (const std::string& line : check_environment(c))
        EXPECT_THAT(line, Not(HasSubstr("has no interface")));
}

}  // namespace
}  // namespace gmgate::config
