// The kernel backend against a kernel that keeps tables and fails where told.

#include "sa/kernel/decoder.h"
#include "sa/kernel/kernel_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "base/log.h"
#include "sa/kernel/host.h"
#include "tests/unit/sa_kernel/scripted_kernel.h"

namespace gmgate::kernel {
namespace {

using test::KernelTables;
using test::Octets;
using testing::HasSubstr;

sa::AkaKey key(std::uint8_t first) {
    sa::AkaKey k;
    std::uint8_t n = first;
    for (auto& o : k.writable()) o = n++;
    return k;
}

class KernelBackendTest : public testing::Test {
  protected:
    KernelBackendTest() {
        options.addresses = {*IpAddress::parse("10.21.0.1"), *IpAddress::parse("fd00:21::1")};
        options.port_ps = {6100, 6103};
        options.port_pc = {6200, 6206};
        options.suites.assign(sa::all_suites.begin(), sa::all_suites.end());
    }

    Result<std::unique_ptr<KernelBackend>> try_create() {
        return KernelBackend::create_on(options, clock,
                                        std::make_unique<test::ScriptedChannel>(kernel),
                                        std::make_unique<test::ScriptedEvents>(events));
    }
    std::unique_ptr<KernelBackend> create() {
        auto b = try_create();
        EXPECT_TRUE(b.has_value()) << (b ? "" : b.error().text);
        kernel.requests = 0;
        kernel.seen.clear();
        return b ? std::move(*b) : nullptr;
    }
    sa::SetParams params(sa::SetId id, std::string_view ue = "10.20.0.1") {
        const auto n = static_cast<std::uint32_t>(id);
        sa::SetParams p;
        p.id = id;
        p.ue = *IpAddress::parse(ue);
        p.ours = p.ue.is_v6() ? options.addresses[1] : options.addresses[0];
        p.numbers = {0x10000 + 2 * n,
                     0x10001 + 2 * n,
                     0x4000000 + 2 * n,
                     0x4000001 + 2 * n,
                     static_cast<sa::Port>(20000 + 2 * n),
                     static_cast<sa::Port>(20001 + 2 * n),
                     static_cast<sa::Port>(6200 + n % 7),
                     6100};
        p.suite = {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc};
        p.ck = &ck;
        p.ik = &ik;
        return p;
    }
    static KernelTables::StateKey at(const IpAddress& a, sa::Spi spi) {
        const auto o = a.octets();
        return {std::string(o.begin(), o.end()), spi};
    }
    void use(const sa::SetParams& p, std::uint64_t packets) {
        kernel.change(at(p.ours, p.numbers.spi_ps), [&](auto& i) {
            i.curlft.packets = packets;
            i.curlft.bytes = packets * 100;
        });
    }
    std::vector<sa::BackendEvent> drain(KernelBackend& b) {
        std::vector<sa::BackendEvent> out;
        b.drain_events([&](const sa::BackendEvent& e) { out.push_back(e); });
        return out;
    }
    std::vector<sa::BackendEvent> second(KernelBackend& b) {
        clock.advance(std::chrono::seconds(1));
        return drain(b);
    }

    ManualClock clock;
    KernelTables kernel;
    std::deque<std::variant<Octets, int>> events;
    KernelOptions options;
    sa::AkaKey ck = key(1);
    sa::AkaKey ik = key(101);
};

TEST_F(KernelBackendTest, PoliciesDoNotGrowWithPhonesAndGoAtTheEnd) {
    {
        auto b = create();
        // Blocks 6100/fffc, 6200/fffc, 6204/fffe, 6206; two addresses; in, out, two forward.
        EXPECT_EQ(kernel.policies.size(), 4U * 2U * 4U);
        for (sa::SetId id = 1; id <= 50; ++id)
            ASSERT_TRUE(b->install(params(id, "10.20.0." + std::to_string(id))));
        EXPECT_EQ(kernel.policies.size(), 32U);
        EXPECT_EQ(kernel.states.size(), 200U);
        EXPECT_EQ(b->installed(), 50U);
    }
    EXPECT_TRUE(kernel.policies.empty());
    EXPECT_TRUE(kernel.states.empty());
}

TEST_F(KernelBackendTest, InstallIsOneBatchOfFourExactStates) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    EXPECT_EQ(kernel.seen[XFRM_MSG_NEWSA], 4U);
    EXPECT_EQ(kernel.requests, 4U);
    const xfrm_usersa_info in = kernel.info(at(p.ours, p.numbers.spi_ps));
    EXPECT_EQ(ntohs(in.sel.sport), p.numbers.port_uc);
    EXPECT_EQ(ntohs(in.sel.dport), p.numbers.port_ps);
    EXPECT_EQ(in.sel.sport_mask, 0xFFFF);
    EXPECT_EQ(in.sel.prefixlen_s, 32);
    EXPECT_EQ(in.sel.family, AF_INET);
    EXPECT_EQ(in.sel.proto, 0);
    EXPECT_EQ(in.reqid, default_reqid);
    EXPECT_EQ(in.mode, XFRM_MODE_TRANSPORT);
    EXPECT_EQ(in.lft.soft_packet_limit, (1ULL << 32U) - (1U << 20U));
    EXPECT_EQ(in.lft.soft_byte_limit, XFRM_INF);
    const xfrm_usersa_info out = kernel.info(at(p.ue, p.numbers.spi_us));
    EXPECT_EQ(ntohs(out.sel.sport), p.numbers.port_pc);
    EXPECT_EQ(ntohs(out.sel.dport), p.numbers.port_us);
    EXPECT_EQ(out.lft.hard_packet_limit, (1ULL << 32U) - 1);
    b->remove(1);
    EXPECT_TRUE(kernel.states.empty());
    b->remove(1);  // nothing happens
}

TEST_F(KernelBackendTest, Ipv6) {
    auto b = create();
    const auto p = params(1, "fd00:20::7");
    ASSERT_TRUE(b->install(p));
    const xfrm_usersa_info in = kernel.info(at(p.ours, p.numbers.spi_pc));
    EXPECT_EQ(in.family, AF_INET6);
    EXPECT_EQ(in.sel.prefixlen_d, 128);
    auto mixed = params(2);
    mixed.ours = options.addresses[1];
    EXPECT_EQ(b->install(mixed).error().kind, ErrorKind::invalid);
}

TEST_F(KernelBackendTest, EachWayTheKernelRefusesLeavesNothing) {
    struct Case {
        int error;
        ErrorKind kind;
        const char* words;
    };
    for (const Case c : {Case{ESRCH, ErrorKind::not_found, "No such process"},
                         {EEXIST, ErrorKind::conflict, "ip xfrm state"},
                         {ENOBUFS, ErrorKind::exhausted, "out of memory"},
                         {ENOMEM, ErrorKind::exhausted, "out of memory"},
                         {EPERM, ErrorKind::denied, "CAP_NET_ADMIN"},
                         {EPROTONOSUPPORT, ErrorKind::unsupported, "modprobe -a esp4 authenc"},
                         {ENOSYS, ErrorKind::unsupported, "cbc echainiv"},
                         {EINVAL, ErrorKind::io, "Invalid argument"}}) {
        for (unsigned position = 0; position < 4; ++position) {
            auto b = create();
            kernel.refusal_text = "the words of the kernel";
            kernel.refuse = [&](std::uint16_t type, unsigned before) {
                return type == XFRM_MSG_NEWSA && before == position ? c.error : 0;
            };
            const auto r = b->install(params(1));
            ASSERT_FALSE(r) << c.error << " at " << position;
            EXPECT_EQ(r.error().kind, c.kind) << c.error;
            EXPECT_THAT(r.error().text, HasSubstr(c.words));
            EXPECT_THAT(r.error().text, HasSubstr("the words of the kernel"));
            EXPECT_THAT(r.error().text, HasSubstr("10.20.0.1"));
            EXPECT_TRUE(kernel.states.empty()) << c.error << " at " << position;
            EXPECT_EQ(b->installed(), 0U);
            kernel.refuse = nullptr;
            kernel.refusal_text.clear();
            EXPECT_TRUE(b->install(params(1)));  // as if nothing had been
        }
    }
}

// The answer to a state that is somebody else's is lost: that state stays, ours go.
TEST_F(KernelBackendTest, LostAnswersAreLookedInto) {
    auto b = create();
    const auto p = params(1);
    auto foreign = params(9);
    foreign.numbers.spi_us = p.numbers.spi_us;  // same (address, SPI) as our fourth
    ASSERT_TRUE(b->install(foreign));
    b->remove(9);
    Octets payload;
    xfrm_usersa_info other{};
    std::memcpy(&other.id.daddr, p.ue.octets().data(), 4);
    other.id.spi = htonl(p.numbers.spi_us);
    other.id.proto = 50;
    other.family = AF_INET;
    other.reqid = 4711;
    test::append(payload, other);
    kernel.states[at(p.ue, p.numbers.spi_us)] = payload;

    kernel.requests = 0;
    kernel.lose = {0, 3};
    const auto r = b->install(p);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("lost"));
    ASSERT_EQ(kernel.states.size(), 1U);
    EXPECT_EQ(kernel.info(at(p.ue, p.numbers.spi_us)).reqid, 4711U);
}

TEST_F(KernelBackendTest, SendFails) {
    auto b = create();
    kernel.send_error = ENOBUFS;
    const auto r = b->install(params(1));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().kind, ErrorKind::exhausted);
    EXPECT_TRUE(kernel.states.empty());
}

TEST_F(KernelBackendTest, ConflictsAndLimitsBeforeTheKernelIsAsked) {
    options.max_sets = 2;
    auto b = create();
    ASSERT_TRUE(b->install(params(1)));
    kernel.requests = 0;
    EXPECT_EQ(b->install(params(1)).error().kind, ErrorKind::conflict);
    auto spi = params(2);
    spi.numbers.spi_uc = params(1).numbers.spi_uc;  // the same phone gives an SPI twice
    EXPECT_EQ(b->install(spi).error().kind, ErrorKind::conflict);
    auto flow = params(2);
    flow.numbers.port_uc = params(1).numbers.port_uc;
    flow.numbers.port_ps = params(1).numbers.port_ps;
    EXPECT_EQ(b->install(flow).error().kind, ErrorKind::conflict);
    ASSERT_TRUE(b->install(params(2)));
    EXPECT_EQ(b->install(params(3)).error().kind, ErrorKind::exhausted);
    EXPECT_EQ(kernel.requests, 4U);
}

// No policy covers them: their cleartext would pass (A6).
TEST_F(KernelBackendTest, OtherPortsAndAddressesThanTheProtectedAreRefused) {
    auto b = create();
    const auto refused = [&](auto change, const char* words) {
        auto p = params(1);
        change(p);
        const auto r = b->install(p);
        ASSERT_FALSE(r) << words;
        EXPECT_EQ(r.error().kind, ErrorKind::invalid);
        EXPECT_THAT(r.error().text, HasSubstr(words));
    };
    refused([](auto& p) { p.numbers.port_ps = 6104; }, "port 6104");
    refused([](auto& p) { p.numbers.port_pc = 6207; }, "port 6207");
    refused([](auto& p) { p.numbers.port_pc = 6099; }, "port 6099");
    refused([](auto& p) { p.ours = *IpAddress::parse("10.21.0.2"); }, "10.21.0.2");
    EXPECT_EQ(kernel.requests, 0U);
    auto edge = params(1);
    edge.numbers.port_ps = 6103;
    edge.numbers.port_pc = 6206;
    EXPECT_TRUE(b->install(edge));
}

TEST_F(KernelBackendTest, ManyAreRemovedInBatches) {
    auto b = create();
    std::vector<sa::SetId> ids;
    for (sa::SetId id = 1; id <= 300; ++id) {
        ASSERT_TRUE(b->install(params(id, "10.20.1." + std::to_string(id % 250 + 1))));
        ids.push_back(id);
    }
    // Answers get lost: asked again.
    kernel.requests = 0;
    kernel.lose = {5, 200};
    b->remove(std::span<const sa::SetId>(ids).first(299));
    EXPECT_EQ(kernel.states.size(), 4U);
    EXPECT_EQ(b->installed(), 1U);
}

// A removed set's SAs do not live on because the kernel was short of memory for a moment.
TEST_F(KernelBackendTest, WhatCouldNotBeRemovedIsTriedAgain) {
    options.max_sets = 2;
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    kernel.refuse = [](std::uint16_t type, unsigned) {
        return type == XFRM_MSG_DELSA ? ENOMEM : 0;
    };
    b->remove(1);
    EXPECT_EQ(b->installed(), 0U);
    EXPECT_EQ(kernel.states.size(), 4U);
    EXPECT_THAT(b->health().text, HasSubstr("4 states of removed sets"));
    EXPECT_TRUE(second(*b).empty());
    EXPECT_EQ(kernel.states.size(), 4U);
    ASSERT_TRUE(b->install(params(2)));
    EXPECT_EQ(b->install(params(3)).error().kind, ErrorKind::exhausted);  // they count

    kernel.refuse = nullptr;
    EXPECT_TRUE(second(*b).empty());
    EXPECT_EQ(kernel.states.size(), 4U);  // those of set 2
    EXPECT_TRUE(b->health().ok) << b->health().text;
    EXPECT_TRUE(b->install(params(3)));
}

// More than are tried a second: those that waited longest come first.
TEST_F(KernelBackendTest, NoStateWaitsForEverToBeRemoved) {
    auto b = create();
    std::vector<sa::SetId> ids;
    for (sa::SetId id = 1; id <= 300; ++id) {
        ASSERT_TRUE(b->install(params(id, "10.20.1." + std::to_string(id % 250 + 1))));
        ids.push_back(id);
    }
    kernel.refuse = [](std::uint16_t type, unsigned) {
        return type == XFRM_MSG_DELSA ? ENOMEM : 0;
    };
    b->remove(ids);
    EXPECT_TRUE(second(*b).empty());  // 1024 in vain
    EXPECT_EQ(kernel.states.size(), 1200U);
    kernel.refuse = nullptr;
    EXPECT_TRUE(second(*b).empty());
    EXPECT_EQ(kernel.states.size(), 176U);
    const auto first = params(1, "10.20.1.2");
    EXPECT_FALSE(kernel.states.contains(at(first.ours, first.numbers.spi_ps)));
    const auto last = params(300, "10.20.1.51");
    EXPECT_FALSE(kernel.states.contains(at(last.ours, last.numbers.spi_ps)));
    EXPECT_TRUE(second(*b).empty());
    EXPECT_TRUE(kernel.states.empty());
    EXPECT_TRUE(b->health().ok) << b->health().text;
}

// A removal's answer is lost, and before the next try another program takes the (address, SPI).
TEST_F(KernelBackendTest, ATriedRemovalSparesAForeignState) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    kernel.requests = 0;
    kernel.lose = {2, 4};  // both times the first outbound state's
    b->remove(1);
    kernel.lose.clear();
    xfrm_usersa_info other{};
    std::memcpy(&other.id.daddr, p.ue.octets().data(), 4);
    other.id.spi = htonl(p.numbers.spi_uc);
    other.id.proto = 50;
    other.family = AF_INET;
    other.reqid = 4711;
    Octets payload;
    test::append(payload, other);
    kernel.states[at(p.ue, p.numbers.spi_uc)] = payload;
    EXPECT_FALSE(b->health().ok);

    // Nor is it given up when the answer to the question is lost as well.
    kernel.requests = 0;
    kernel.lose = {0, 1, 2};
    EXPECT_TRUE(second(*b).empty());
    kernel.lose.clear();
    EXPECT_FALSE(b->health().ok);
    EXPECT_TRUE(second(*b).empty());
    EXPECT_EQ(kernel.states.size(), 1U);
    EXPECT_TRUE(b->health().ok) << b->health().text;
}

// The answers that a state is gone are lost, and a phone takes its SPI again before the next try.
TEST_F(KernelBackendTest, ATriedRemovalSparesTheNextSet) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    kernel.requests = 0;
    kernel.lose = {2, 4};  // both times the first outbound state's
    b->remove(1);
    kernel.lose.clear();
    EXPECT_TRUE(kernel.states.empty());
    EXPECT_FALSE(b->health().ok);
    auto again = params(2);
    again.numbers.spi_uc = p.numbers.spi_uc;
    ASSERT_TRUE(b->install(again));
    EXPECT_TRUE(second(*b).empty());
    EXPECT_EQ(kernel.states.size(), 4U);
    EXPECT_TRUE(b->health().ok) << b->health().text;
}

TEST_F(KernelBackendTest, MissingSuiteIsNamedWithItsModules) {
    kernel.refusal_text = "Requested type not found";
    kernel.refuse = [](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_NEWSA && before == 4 ? EPROTONOSUPPORT : 0;  // third suite, IPv4
    };
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::unsupported);
    EXPECT_THAT(b.error().text, HasSubstr("hmac-sha-1-96/aes-cbc over IPv4"));
    EXPECT_THAT(b.error().text, HasSubstr("Requested type not found"));
    EXPECT_THAT(b.error().text, HasSubstr("modprobe -a esp4 authenc hmac sha1_generic"));
    EXPECT_THAT(b.error().text, HasSubstr("security.suites"));
    EXPECT_TRUE(kernel.states.empty());
    EXPECT_TRUE(kernel.policies.empty());
}

// Somebody else's state where the throw-away ones go: it is not ours to remove.
TEST_F(KernelBackendTest, AProbeLeavesAForeignStateInItsPlace) {
    std::vector<std::pair<KernelTables::StateKey, Octets>> probes;
    kernel.refuse = [&](std::uint16_t type, unsigned) {
        for (const auto& state : kernel.states)
            if (type == XFRM_MSG_DELSA) probes.push_back(state);
        return 0;
    };
    create().reset();
    ASSERT_EQ(probes.size(), 2 * options.suites.size());
    kernel.states.insert(probes.front());
    kernel.change(probes.front().first, [](auto& i) { i.reqid = 4711; });
    const auto foreign = kernel.states;
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::conflict);
    EXPECT_THAT(b.error().text, HasSubstr("ip xfrm state"));
    EXPECT_EQ(kernel.states, foreign);
    EXPECT_TRUE(kernel.policies.empty());
}

TEST_F(KernelBackendTest, NoPermission) {
    kernel.refuse = [](std::uint16_t, unsigned) { return EPERM; };
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::denied);
    EXPECT_THAT(b.error().text, HasSubstr("CAP_NET_ADMIN"));
}

TEST_F(KernelBackendTest, RefusedPolicyTakesTheOthersOut) {
    kernel.refuse = [](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_UPDPOLICY && before == 20 ? ENOMEM : 0;
    };
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::exhausted);
    EXPECT_TRUE(kernel.policies.empty());
}

TEST_F(KernelBackendTest, WrongOptions) {
    const auto refused = [&](auto change) {
        const KernelOptions before = options;
        change(options);
        const auto b = try_create();
        options = before;
        ASSERT_FALSE(b);
        EXPECT_EQ(b.error().kind, ErrorKind::invalid);
    };
    refused([](KernelOptions& o) { o.addresses.clear(); });
    refused([](KernelOptions& o) { o.port_ps = {100, 101}; });
    refused([](KernelOptions& o) { o.port_pc = {6206, 6200}; });
    refused([](KernelOptions& o) { o.reqid = 0; });
    refused([](KernelOptions& o) { o.replay_window = 100; });
    refused([](KernelOptions& o) { o.replay_window = 8192; });
    EXPECT_EQ(kernel.requests, 0U);
}

// --- an earlier run

TEST_F(KernelBackendTest, LeavingsThatAreKnownStayTheRestGoes) {
    const auto p = params(1);
    const auto q = params(2);
    {
        auto first = create();
        ASSERT_TRUE(first->install(p));
        ASSERT_TRUE(first->install(q));
        use(p, 77);
        auto states = kernel.states;
        auto policies = kernel.policies;
        first.reset();
        kernel.states = states;  // as after kill -9
        kernel.policies = policies;
    }
    auto b = create();
    EXPECT_EQ(b->leftovers(), 8U);
    EXPECT_EQ(kernel.policies.size(), 32U);
    ASSERT_TRUE(b->install(p));  // a snapshot brought it back
    EXPECT_EQ(kernel.seen[XFRM_MSG_NEWSA], 0U);
    EXPECT_EQ(b->finish_reconciliation(), 4U);
    EXPECT_EQ(kernel.states.size(), 4U);
    sa::SetStats s;
    const sa::SetId id = 1;
    b->stats(std::span(&id, 1), std::span(&s, 1));
    EXPECT_EQ(s.in_packets, 77U);  // it ran on
}

TEST_F(KernelBackendTest, LeavingsWithOtherKeysAreReplaced) {
    const auto p = params(1);
    auto first = create();
    ASSERT_TRUE(first->install(p));
    use(p, 5);
    const auto states = kernel.states;
    first.reset();
    kernel.states = states;
    auto b = create();
    ck = key(50);
    ASSERT_TRUE(b->install(p));
    EXPECT_EQ(kernel.seen[XFRM_MSG_NEWSA], 4U);
    EXPECT_EQ(kernel.states.size(), 4U);
    EXPECT_EQ(kernel.info(at(p.ours, p.numbers.spi_ps)).curlft.packets, 0U);
    EXPECT_EQ(b->finish_reconciliation(), 0U);
}

TEST_F(KernelBackendTest, ForeignStatesAndPoliciesAreNotTouched) {
    options.reqid = 4711;
    auto other = create();
    ASSERT_TRUE(other->install(params(1)));
    const auto states = kernel.states;
    auto policies = kernel.policies;
    other.reset();
    kernel.states = states;
    // A key daemon's: a tunnel over everything, far behind ours.
    policies.clear();
    xfrm_userpolicy_info info{};
    info.sel.family = AF_INET;
    info.priority = 375423;
    info.dir = XFRM_POLICY_OUT;
    Octets payload;
    test::append(payload, info);
    kernel.policies["foreign"] = payload;

    options.reqid = default_reqid;
    auto b = create();
    EXPECT_EQ(b->leftovers(), 0U);
    EXPECT_EQ(b->finish_reconciliation(), 0U);
    ASSERT_TRUE(b->install(params(2)));
    b.reset();
    EXPECT_EQ(kernel.states, states);
    EXPECT_EQ(kernel.policies.size(), 1U);
    EXPECT_TRUE(kernel.policies.contains("foreign"));
}

TEST_F(KernelBackendTest, ForeignPolicyThatComesFirstIsRefused) {
    xfrm_userpolicy_info info{};
    info.sel.family = AF_INET;
    info.sel.dport = htons(6101);
    info.sel.dport_mask = 0xFFFF;
    info.priority = 0;
    info.dir = XFRM_POLICY_IN;
    Octets payload;
    test::append(payload, info);
    kernel.policies["foreign"] = payload;
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::conflict);
    EXPECT_THAT(b.error().text, HasSubstr("any -> any port 6101, in, priority 0"));
    EXPECT_EQ(kernel.policies.size(), 1U);

    // For another port, or from another address, it is none of our business.
    info.sel.dport = htons(6104);
    std::memcpy(kernel.policies["foreign"].data(), &info, sizeof info);
    EXPECT_TRUE(try_create());
    info.sel.dport = htons(6101);
    info.sel.family = AF_INET6;
    info.dir = XFRM_POLICY_OUT;
    info.sel.prefixlen_s = 128;
    std::memcpy(kernel.policies["foreign"].data(), &info, sizeof info);
    EXPECT_TRUE(try_create());
}

// A mark of zero under a mask is what packets without a mark have: such a policy takes them all.
TEST_F(KernelBackendTest, ForeignPolicyForUnmarkedPacketsIsRefused) {
    xfrm_userpolicy_info info{};
    info.sel.family = AF_INET;
    info.sel.dport = htons(6101);
    info.sel.dport_mask = 0xFFFF;
    info.dir = XFRM_POLICY_IN;
    const auto put = [&](std::uint32_t value, std::uint32_t mask, std::uint32_t interface) {
        Octets payload;
        test::append(payload, info);
        test::append_attribute(payload, XFRMA_MARK, xfrm_mark{value, mask});
        if (interface != 0) test::append_attribute(payload, XFRMA_IF_ID, interface);
        kernel.policies["foreign"] = payload;
    };
    for (const std::uint32_t mask : {0xFFFFFFFFU, 0x10U, 0U}) {
        put(0, mask, 0);
        const auto b = try_create();
        ASSERT_FALSE(b) << mask;
        EXPECT_EQ(b.error().kind, ErrorKind::conflict);
    }
    put(0x10, 0xFF, 0);  // those with a mark
    EXPECT_TRUE(try_create());
    put(0, 0xFF, 7);  // those of an XFRM interface
    EXPECT_TRUE(try_create());

    // Later than ours, it comes to health and the log.
    auto b = create();
    EXPECT_TRUE(b->health().ok) << b->health().text;
    put(0, 0xFFFFFFFF, 0);
    EXPECT_THAT(b->health().text, HasSubstr("comes first"));
}

// The mark is part of a policy's place: at ours, with one, it neither is ours nor replaces it.
TEST_F(KernelBackendTest, MarkedPolicyAtOurSelectorStandsBesideOurs) {
    auto b = create();
    Octets payload = kernel.policies.begin()->second;
    test::append_attribute(payload, XFRMA_MARK, xfrm_mark{0, 0xFFFFFFFF});
    xfrm_userpolicy_info info{};
    std::memcpy(&info, payload.data(), sizeof info);
    info.priority = 375423;
    kernel.policies.erase(kernel.policies.begin());
    Octets foreign;
    test::append(foreign, info);
    test::append_attribute(foreign, XFRMA_MARK, xfrm_mark{0, 0xFFFFFFFF});
    kernel.policies["with our reqid"] = payload;
    kernel.policies["foreign"] = foreign;
    EXPECT_THAT(b->health().text, HasSubstr("is gone from the kernel"));
    clock.advance(std::chrono::seconds(10));
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_TRUE(b->health().ok) << b->health().text;  // behind ours, which is back
    b.reset();
    EXPECT_TRUE(try_create());
    EXPECT_TRUE(kernel.policies.contains("foreign"));
    EXPECT_TRUE(kernel.policies.contains("with our reqid"));
}

TEST_F(KernelBackendTest, ReqidOfAnotherProgramIsRefused) {
    auto first = create();
    ASSERT_TRUE(first->install(params(1)));
    const auto states = kernel.states;
    first.reset();
    kernel.states = states;
    kernel.change(kernel.states.begin()->first, [](auto& i) { i.mode = XFRM_MODE_TUNNEL; });
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::conflict);
    EXPECT_THAT(b.error().text, HasSubstr("kernel.reqid"));
    EXPECT_EQ(kernel.states.size(), 4U);
}

TEST_F(KernelBackendTest, DumpsInPiecesAndInterrupted) {
    auto first = create();
    for (sa::SetId id = 1; id <= 200; ++id)
        ASSERT_TRUE(first->install(params(id, "10.20.2." + std::to_string(id))));
    const auto states = kernel.states;
    first.reset();
    kernel.states = states;
    kernel.interrupted_dumps = 3;
    kernel.dump_messages = 11;
    auto b = create();
    EXPECT_EQ(b->leftovers(), 800U);
    EXPECT_EQ(b->finish_reconciliation(), 800U);
    EXPECT_TRUE(kernel.states.empty());
}

// --- counters and events

TEST_F(KernelBackendTest, CountersOfBothDirections) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    use(p, 10);
    kernel.change(at(p.ours, p.numbers.spi_pc), [](auto& i) {
        i.curlft.packets = 3;
        i.curlft.bytes = 30;
        i.stats.integrity_failed = 2;
        i.stats.replay = 4;
        i.stats.replay_window = 1;
    });
    kernel.change(at(p.ue, p.numbers.spi_uc), [](auto& i) { i.curlft.packets = 8; });
    const std::vector<sa::SetId> ids{1, 99};
    std::vector<sa::SetStats> s(2);
    s[1].in_packets = 5;
    b->stats(ids, s);
    EXPECT_EQ(s[0].in_packets, 13U);
    EXPECT_EQ(s[0].in_bytes, 1030U);
    EXPECT_EQ(s[0].out_packets, 8U);
    EXPECT_EQ(s[0].integrity_failures, 2U);
    EXPECT_EQ(s[0].replays, 5U);
    EXPECT_EQ(s[0].last_use, clock.now());
    EXPECT_EQ(s[1].in_packets, 0U);
}

// From 2048 sets on one dump; both ways tell the same.
TEST_F(KernelBackendTest, CountersOfManyByOneDump) {
    auto b = create();
    std::vector<sa::SetId> ids;
    for (sa::SetId id = 1; id <= 2100; ++id) {
        auto p =
            params(id, "10.20." + std::to_string(id / 200) + "." + std::to_string(id % 200 + 1));
        ASSERT_TRUE(b->install(p));
        use(p, id);
        ids.push_back(id);
    }
    kernel.seen.clear();
    std::vector<sa::SetStats> all(ids.size());
    b->stats(ids, all);
    EXPECT_EQ(kernel.seen[XFRM_MSG_GETSA], 1U);
    std::vector<sa::SetStats> some(100);
    b->stats(std::span<const sa::SetId>(ids).first(100), some);
    EXPECT_EQ(kernel.seen[XFRM_MSG_GETSA], 401U);
    for (std::size_t n = 0; n < ids.size(); ++n) EXPECT_EQ(all[n].in_packets, ids[n]);
    for (std::size_t n = 0; n < 100; ++n) EXPECT_EQ(some[n].in_packets, all[n].in_packets);
}

TEST_F(KernelBackendTest, FirstPacketIsToldOnce) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    EXPECT_TRUE(second(*b).empty());
    use(p, 1);
    EXPECT_TRUE(drain(*b).empty());  // the second is not over
    const auto told = second(*b);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].kind, sa::BackendEventKind::first_authentic_packet);
    EXPECT_EQ(told[0].set, 1U);
    EXPECT_EQ(told[0].spi, p.numbers.spi_ps);
    use(p, 2);
    EXPECT_TRUE(second(*b).empty());
}

TEST_F(KernelBackendTest, IntegrityFailuresOfFreshAndOfUsedSets) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    const auto fail_now = [&] {
        kernel.change(at(p.ours, p.numbers.spi_pc), [](auto& i) { ++i.stats.integrity_failed; });
    };
    fail_now();
    auto told = second(*b);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].kind, sa::BackendEventKind::integrity_failure);
    EXPECT_EQ(told[0].spi, p.numbers.spi_pc);
    EXPECT_TRUE(second(*b).empty());
    use(p, 1);
    EXPECT_EQ(second(*b).size(), 1U);  // the first packet
    fail_now();
    EXPECT_EQ(second(*b).size(), 1U);
}

TEST_F(KernelBackendTest, ExpiryIsToldOnceAndForeignOnesAreNot) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    const auto expire = [&](const KernelTables::StateKey& key, std::uint32_t reqid) {
        xfrm_user_expire e{};
        e.state = kernel.info(key);
        e.state.reqid = reqid;
        Octets payload;
        test::append(payload, e);
        events.emplace_back(test::message(XFRM_MSG_EXPIRE, 0, 0, payload));
    };
    expire(at(p.ue, p.numbers.spi_uc), 1);
    EXPECT_TRUE(drain(*b).empty());
    expire(at(p.ue, p.numbers.spi_uc), default_reqid);
    expire(at(p.ours, p.numbers.spi_ps), default_reqid);
    const auto told = drain(*b);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_EQ(told[0].spi, 0U);
}

TEST_F(KernelBackendTest, OverrunReadsTheTables) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    kernel.change(at(p.ours, p.numbers.spi_pc),
                  [](auto& i) { i.curlft.packets = (1ULL << 32U) - (1U << 20U); });
    events.emplace_back(ENOBUFS);
    const auto told = drain(*b);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_EQ(told[0].spi, p.numbers.spi_pc);
}

// Whoever floods us with events does not make us read the tables all the time.
TEST_F(KernelBackendTest, OverrunsReadTheTablesAtMostEachTenSeconds) {
    auto b = create();
    const auto p = params(1);
    ASSERT_TRUE(b->install(p));
    const auto overruns = [&](int seconds) {
        for (int n = 0; n < 10 * seconds; ++n) {
            events.emplace_back(ENOBUFS);
            EXPECT_TRUE(drain(*b).empty());
            clock.advance(std::chrono::milliseconds(100));
        }
    };
    unsigned dumps = 0;
    kernel.during_dump = [&] { ++dumps; };
    const auto policy_dumps = [&] { return kernel.seen[XFRM_MSG_GETPOLICY]; };
    overruns(1);
    EXPECT_EQ(dumps - policy_dumps(), 1U);  // at once
    overruns(8);
    EXPECT_EQ(dumps - policy_dumps(), 1U);
    // What was lost meanwhile is found, though nothing more is.
    kernel.change(at(p.ue, p.numbers.spi_uc),
                  [](auto& i) { i.curlft.packets = (1ULL << 32U) - (1U << 20U); });
    EXPECT_TRUE(drain(*b).empty());
    clock.advance(std::chrono::seconds(1));
    const auto told = drain(*b);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].kind, sa::BackendEventKind::sequence_near_end);
    EXPECT_EQ(dumps - policy_dumps(), 2U);
    clock.advance(std::chrono::seconds(30));
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_EQ(dumps - policy_dumps(), 2U);  // once is enough
}

// Another program's policy in the very place of ours: the log says whose it was.
TEST_F(KernelBackendTest, PolicyThatReplacedOursIsReplacedAndNamed) {
    auto b = create();
    const auto policies = kernel.policies;
    xfrm_userpolicy_info info{};
    std::memcpy(&info, kernel.policies.begin()->second.data(), sizeof info);
    Octets theirs;
    test::append(theirs, info);
    xfrm_user_tmpl with{};
    with.reqid = 4242;
    test::append_attribute(theirs, XFRMA_TMPL, with);
    kernel.policies.begin()->second = theirs;
    EXPECT_THAT(b->health().text, HasSubstr("reqid 4242"));
    log::configure(log::Level::error, false);
    testing::internal::CaptureStderr();
    events.emplace_back(test::message(XFRM_MSG_UPDPOLICY, 0, 0, theirs));
    EXPECT_TRUE(drain(*b).empty());
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, HasSubstr("replaced 1 of our policies"));
    EXPECT_THAT(said, HasSubstr("reqid 4242"));
    EXPECT_THAT(said, testing::Not(HasSubstr("removed")));
    EXPECT_EQ(kernel.policies, policies);  // ours win (A6)
    EXPECT_TRUE(b->health().ok) << b->health().text;
}

TEST_F(KernelBackendTest, RemovedPoliciesArePutBack) {
    auto b = create();
    const auto policies = kernel.policies;
    kernel.policies.erase(kernel.policies.begin(), std::next(kernel.policies.begin(), 5));
    EXPECT_FALSE(b->health().ok);
    events.emplace_back(test::message(XFRM_MSG_FLUSHPOLICY, 0, 0, {}));
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_EQ(kernel.policies, policies);
    EXPECT_TRUE(b->health().ok);
}

double bypassed(const KernelBackend& b) {
    metrics::Registry registry;
    b.register_metrics(registry);
    for (const auto& sample : registry.collect())
        if (sample.name == "gmgate_kernel_policies_bypassed") return sample.value;
    return -1;
}

// With and without the kernel's word about it: events get lost.
TEST_F(KernelBackendTest, ForeignPolicyThatComesFirstLaterIsTold) {
    auto b = create();
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_EQ(bypassed(*b), 0);
    xfrm_userpolicy_info info{};
    info.sel.family = AF_INET;
    info.sel.dport = htons(6101);
    info.sel.dport_mask = 0xFFFF;
    info.priority = 100;  // as ours
    info.dir = XFRM_POLICY_IN;
    Octets payload;
    test::append(payload, info);
    for (const bool event : {true, false}) {
        clock.advance(std::chrono::seconds(2));
        kernel.policies["foreign"] = payload;
        const auto there = kernel.policies;
        EXPECT_FALSE(b->health().ok);
        EXPECT_THAT(b->health().text, HasSubstr("any -> any port 6101, in, priority 100"));
        EXPECT_TRUE(drain(*b).empty());
        EXPECT_EQ(bypassed(*b), 0);  // nobody said so yet
        log::configure(log::Level::warn, false);
        testing::internal::CaptureStderr();
        if (event) events.emplace_back(test::message(XFRM_MSG_NEWPOLICY, 0, 0, payload));
        for (int n = 0; n < (event ? 30 : 60); ++n) {
            EXPECT_TRUE(drain(*b).empty());
            if (event) {
                EXPECT_EQ(bypassed(*b), 1);
            }
            clock.advance(std::chrono::milliseconds(200));
        }
        const std::string said = testing::internal::GetCapturedStderr();
        EXPECT_EQ(bypassed(*b), 1);
        EXPECT_THAT(said, HasSubstr("port 6101"));
        EXPECT_EQ(said.find('\n'), said.size() - 1) << said;  // once
        EXPECT_EQ(kernel.policies, there);                    // nothing is touched
        kernel.policies.erase("foreign");
        clock.advance(std::chrono::seconds(10));
        EXPECT_TRUE(drain(*b).empty());
        EXPECT_EQ(bypassed(*b), 0);
        EXPECT_TRUE(b->health().ok);
    }
}

// A key daemon's thousands are not a dump each.
TEST_F(KernelBackendTest, PoliciesAreReadAtMostOnceASecond) {
    auto b = create();
    for (int n = 0; n < 100; ++n) {
        events.emplace_back(test::message(XFRM_MSG_NEWPOLICY, 0, 0, {}));
        EXPECT_TRUE(drain(*b).empty());
        clock.advance(std::chrono::milliseconds(50));
    }
    EXPECT_EQ(kernel.seen[XFRM_MSG_GETPOLICY], 5U);
}

// The host's switches say nothing when they are thrown. The interface may come later (screen).
TEST_F(KernelBackendTest, SwitchesOfTheHostAreLookedAtAtStartAndLater) {
    const std::filesystem::path conf = std::filesystem::path(testing::TempDir()) /
                                       ("gmgate-switches-" + std::to_string(::getpid()));
    const auto set = [&](const std::string& key, int value) {
        std::filesystem::create_directories((conf / key).parent_path());
        std::ofstream(conf / key) << value << '\n';
    };
    options.proc_sys = conf;
    options.interface = "gm7";
    options.interface_comes_later = true;
    for (const std::string family : {"ipv4", "ipv6"}) {
        const std::string of = "net/" + family + "/conf/";
        for (const char* scope : {"all", "default"}) {
            EXPECT_TRUE(check_host(options));
            set(of + scope + "/disable_policy", 1);
            EXPECT_EQ(check_host(options).error().kind, ErrorKind::conflict);
            EXPECT_THAT(check_host(options).error().text,
                        HasSubstr(of + scope + "/disable_policy=0"));
            set(of + scope + "/disable_policy", 0);
        }
    }
    set("net/ipv4/conf/default/disable_xfrm", 1);
    EXPECT_FALSE(check_host(options));
    set("net/ipv4/conf/gm7/disable_xfrm", 0);  // it is there now, and has its own
    EXPECT_TRUE(check_host(options));

    auto b = create();
    EXPECT_TRUE(drain(*b).empty());
    set("net/ipv4/conf/gm7/disable_xfrm", 1);
    EXPECT_THAT(b->health().text, HasSubstr("gm7/disable_xfrm is 1"));
    clock.advance(std::chrono::seconds(10));
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_EQ(bypassed(*b), 1);
    set("net/ipv4/conf/gm7/disable_xfrm", 0);
    clock.advance(std::chrono::seconds(10));
    EXPECT_TRUE(drain(*b).empty());
    EXPECT_EQ(bypassed(*b), 0);
    std::filesystem::remove_all(conf);
}

TEST_F(KernelBackendTest, StatesRemovedByOthersShowInHealth) {
    auto b = create();
    ASSERT_TRUE(b->install(params(1)));
    kernel.states.clear();
    EXPECT_TRUE(second(*b).empty());
    EXPECT_FALSE(b->health().ok);
    EXPECT_THAT(b->health().text, HasSubstr("ip xfrm monitor"));
    ASSERT_TRUE(b->install(params(2)));  // the phone registers anew
    EXPECT_THAT(b->health().text, HasSubstr("of 1 sets"));
    b->remove(1);  // no complaint
    EXPECT_TRUE(b->health().ok) << b->health().text;
}

// N1: authentic packets say where a phone is, each of them if it likes; following it there costs a
// dozen requests to the kernel.
TEST_F(KernelBackendTest, APhoneBehindANatIsFollowedOnceASecond) {
    options.addresses = {*IpAddress::parse("127.77.0.1")};  // a socket is bound there
    options.nat = KernelOptions::Nat::if_possible;
    auto b = create();
    ASSERT_TRUE(b);
    if (b->nat_labels() == sa::NatLabels::none) GTEST_SKIP() << "no ESP in UDP in this kernel";
    clock.advance(std::chrono::seconds(5));
    auto p = params(1, "192.168.1.2");
    p.nat = sa::NatTraversal{p.ue, p.numbers.port_uc, p.numbers.port_us};
    p.nat->outer = *Endpoint::parse("203.0.113.1:0");
    ASSERT_TRUE(b->install(p));
    drain(*b);
    const auto came_from = [&](const Endpoint& now) {
        xfrm_user_mapping wire;
        std::memset(&wire, 0, sizeof wire);
        wire.id.family = AF_INET;
        wire.id.spi = htonl(p.numbers.spi_ps);
        std::memcpy(&wire.id.daddr.a4, p.ours.octets().data(), 4);
        wire.reqid = options.reqid;
        std::memcpy(&wire.new_saddr.a4, now.address.octets().data(), 4);
        wire.new_sport = htons(now.port);
        Octets payload(sizeof wire);
        std::memcpy(payload.data(), &wire, sizeof wire);
        events.emplace_back(test::message(XFRM_MSG_MAPPING, 0, 0, payload));
    };
    const auto is_at = [&](const Endpoint& there) {
        return kernel.states.size() == 4 &&
               kernel.states.contains(at(there.address, p.numbers.spi_uc)) &&
               kernel.states.contains(at(there.address, p.numbers.spi_us));
    };
    const Endpoint a = *Endpoint::parse("203.0.113.2:1001");
    const Endpoint c = *Endpoint::parse("203.0.113.3:1002");

    came_from(a);
    drain(*b);
    EXPECT_TRUE(is_at(a)) << "the first at once";
    kernel.requests = 0;
    for (int i = 0; i < 500; ++i) {
        came_from(c);
        came_from(a);
    }
    came_from(c);
    drain(*b);
    EXPECT_EQ(kernel.requests, 0U) << "none is followed so soon";
    EXPECT_TRUE(is_at(a));
    second(*b);
    EXPECT_TRUE(is_at(c)) << "the latest, without another packet";

    // Back where it is known to be: nothing waits any more.
    came_from(a);
    came_from(c);
    drain(*b);
    kernel.seen.clear();
    second(*b);
    EXPECT_TRUE(is_at(c));
    EXPECT_EQ(kernel.seen[XFRM_MSG_NEWSA], 0U);
    // One that waits and goes is forgotten.
    second(*b);
    came_from(a);
    drain(*b);
    came_from(c);
    drain(*b);
    b->remove(p.id);
    second(*b);
    EXPECT_TRUE(kernel.states.empty());
}

TEST_F(KernelBackendTest, RestoredSequenceNumberGoesOn) {
    auto b = create();
    auto p = params(1);
    p.out_sequence = 1000;
    ASSERT_TRUE(b->install(p));
    const auto out = kernel.info(at(p.ue, p.numbers.spi_uc));
    EXPECT_EQ(out.lft.hard_packet_limit, (1ULL << 32U) - 1 - 1000);
    sa::SetStats s;
    const sa::SetId id = 1;
    b->stats(std::span(&id, 1), std::span(&s, 1));
    EXPECT_EQ(s.highest_out_sequence, 1000U);
}

// --- the NIC

class OffloadTest : public KernelBackendTest {
  protected:
    OffloadTest() {
        options.offload = Offload::crypto;
        options.device = "lo";
    }
    static bool policy_carries(const Octets& payload) {
        const auto p = parse_policy(payload);
        return p && p->offload.has_value();
    }
    static bool carries(const Octets& payload) {
        return KernelTables::without(payload, XFRMA_OFFLOAD_DEV).size() != payload.size();
    }
};

TEST_F(OffloadTest, StatesCarryTheDevice) {
    auto b = create();
    EXPECT_EQ(b->offload(), Offload::crypto);
    ASSERT_TRUE(b->install(params(1)));
    for (const auto& [key, payload] : kernel.states) EXPECT_TRUE(carries(payload));
}

TEST_F(OffloadTest, DriverWithoutOffloadIsFoundThoughTheKernelTakesTheState) {
    kernel.strip_offload = true;
    auto b = create();
    EXPECT_EQ(b->offload(), Offload::none);
    ASSERT_TRUE(b->install(params(1)));
    options.offload_fallback = false;
    b.reset();
    const auto refused = try_create();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::unsupported);
    EXPECT_THAT(refused.error().text, HasSubstr("lo does not do offload crypto"));
}

TEST_F(OffloadTest, FullNicFallsBackPerSet) {
    auto b = create();
    kernel.refuse = [&](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_NEWSA && before == 2 ? ENOSPC : 0;
    };
    ASSERT_TRUE(b->install(params(1)));
    EXPECT_EQ(kernel.states.size(), 4U);
    for (const auto& [key, payload] : kernel.states) EXPECT_FALSE(carries(payload));
}

TEST_F(OffloadTest, PacketOffloadCoversThePolicies) {
    options.offload = Offload::packet;
    auto b = create();
    EXPECT_EQ(b->offload(), Offload::packet);
    b.reset();
    kernel.refuse = [&](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_UPDPOLICY && before == 0 ? EINVAL : 0;
    };
    kernel.seen.clear();
    auto without = try_create();
    ASSERT_TRUE(without);
    EXPECT_EQ((*without)->offload(), Offload::none);
    EXPECT_EQ(kernel.policies.size(), 32U);
}

// A policy in the NIC finds no state outside of it: packets of such a phone would never leave.
TEST_F(OffloadTest, PacketOffloadIsForAllSuitesOrNone) {
    options.offload = Offload::packet;
    const auto tried = static_cast<unsigned>(2 * options.suites.size());  // first without the NIC
    ASSERT_GE(options.suites.size(), 2U);
    kernel.refuse = [&](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_NEWSA && before == tried ? EOPNOTSUPP : 0;
    };
    const auto b = create();
    EXPECT_EQ(b->offload(), Offload::none);
    for (const auto& [key, payload] : kernel.policies) EXPECT_FALSE(policy_carries(payload));
    ASSERT_TRUE(b->install(params(1)));
    for (const auto& [key, payload] : kernel.states) EXPECT_FALSE(carries(payload));
}

TEST_F(OffloadTest, FullNicRefusesTheSetIfThePoliciesAreInIt) {
    options.offload = Offload::packet;
    const auto b = create();
    ASSERT_EQ(b->offload(), Offload::packet);
    kernel.seen.clear();
    kernel.refuse = [&](std::uint16_t type, unsigned before) {
        return type == XFRM_MSG_NEWSA && before == 2 ? ENOSPC : 0;
    };
    const auto refused = b->install(params(1));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::exhausted);
    EXPECT_TRUE(kernel.states.empty());
}

TEST_F(OffloadTest, NoSuchDevice) {
    options.device = "no-such-nic";
    const auto b = try_create();
    ASSERT_FALSE(b);
    EXPECT_EQ(b.error().kind, ErrorKind::not_found);
    EXPECT_THAT(b.error().text, HasSubstr("kernel.device"));
}

}  // namespace
}  // namespace gmgate::kernel
