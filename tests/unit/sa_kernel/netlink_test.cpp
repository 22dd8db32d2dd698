// This machine's own kernel: what works whether or not it has ESP.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "sa/kernel/backend_impl.h"
#include "sa/kernel/host.h"
#include "sa/kernel/policies.h"

namespace gmgate::kernel {
namespace {

class NetlinkTest : public testing::Test {
  protected:
    // A network namespace of its own for this thread: nothing of the machine is touched.
    void SetUp() override {
        if (::unshare(CLONE_NEWNET) != 0)
            GTEST_SKIP() << "needs root: it makes a network namespace of its own";
        auto r = open_requests();
        if (!r && r.error().kind == ErrorKind::unsupported) GTEST_SKIP() << r.error().text;
        ASSERT_TRUE(r) << r.error().text;
        requests = std::make_unique<Requests>(std::move(*r));
        options.addresses = {*IpAddress::parse("10.21.0.1"), *IpAddress::parse("fd00:21::1")};
        options.port_ps = {6100, 6103};
        options.port_pc = {6200, 6231};
    }
    std::vector<Policy> policies() {
        std::vector<Policy> out;
        requests->begin().dump_policies();
        const Outcome o = requests->dump([&] { out.clear(); },
                                         [&](const MessageView& m) {
                                             const auto p = parse_policy(m.payload);
                                             ASSERT_TRUE(p);
                                             out.push_back(*p);
                                         });
        EXPECT_EQ(o.error, 0) << o.text;
        return out;
    }

    std::unique_ptr<Requests> requests;
    KernelOptions options;
    SystemClock clock;
};

TEST_F(NetlinkTest, TheKernelTakesOurPoliciesAndGivesThemBack) {
    const auto wanted = wanted_policies(options, std::nullopt);
    for (int round = 0; round < 2; ++round) {  // the second time they replace themselves
        Encoder& batch = requests->begin();
        for (const Policy& p : wanted) batch.put_policy(p);
        ASSERT_TRUE(batch.ok());
        for (const Outcome& o : requests->run()) EXPECT_EQ(o.error, 0) << o.text;
    }
    auto found = policies();
    EXPECT_EQ(found.size(), wanted.size());
    for (const Policy& w : wanted) {
        const auto same = [&](Policy f) {
            f.index = 0;
            f.templates = 0;
            return f == w;
        };
        EXPECT_EQ(std::ranges::count_if(found, same), 1) << to_string(w);
    }
    EXPECT_FALSE(conflict(wanted, found, options.reqid));
    EXPECT_TRUE(stale_policies(wanted, found, options.reqid).empty());
    Encoder& batch = requests->begin();
    for (const Policy& p : wanted) batch.delete_policy(p);
    for (const Outcome& o : requests->run()) EXPECT_EQ(o.error, 0) << o.text;
    EXPECT_TRUE(policies().empty());
    requests->begin().delete_policy(wanted[0]);
    EXPECT_EQ(requests->run()[0].error, ENOENT);
}

TEST_F(NetlinkTest, StatesThatAreNotThere) {
    Encoder& batch = requests->begin();
    const StateId id{*IpAddress::parse("192.0.2.1"), 0x4000001};
    batch.get_state(id);
    batch.delete_state(id);
    for (const Outcome& o : requests->run()) EXPECT_EQ(o.error, ESRCH);
    requests->begin().dump_states();
    unsigned count = 0;
    EXPECT_EQ(requests->dump([] {}, [&](const MessageView&) { ++count; }).error, 0);
    EXPECT_EQ(count, 0U);
}

// Where the kernel has ESP the whole backend starts; where not it says so in one line.
TEST_F(NetlinkTest, BackendStartsOrSaysWhatIsMissing) {
    options.suites = {{sa::Integrity::hmac_sha_1_96, sa::Encryption::null}};
    const auto b = KernelBackend::create(options, clock);
    if (b) {
        EXPECT_TRUE((*b)->health().ok) << (*b)->health().text;
        EXPECT_FALSE(policies().empty());
    } else {
        EXPECT_EQ(b.error().kind, ErrorKind::unsupported);
        EXPECT_THAT(b.error().text, testing::HasSubstr("modprobe -a esp4"));
        EXPECT_THAT(b.error().text, testing::Not(testing::HasSubstr("\n")));
        EXPECT_TRUE(policies().empty());
    }
}

TEST_F(NetlinkTest, HostMustGiveInterfaceAndAddress) {
    options.interface = "no-such-if";
    EXPECT_THAT(KernelBackend::create(options, clock).error().text,
                testing::HasSubstr("gm.interface"));
    options.interface = "lo";
    EXPECT_THAT(KernelBackend::create(options, clock).error().text,
                testing::HasSubstr("10.21.0.1 is not on lo"));
}

// An alias (lo:gm) is a label of the address; the interface is the one before the colon.
TEST_F(NetlinkTest, AddressUnderALabelIsOnTheInterface) {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, "lo:gm", sizeof request.ifr_name - 1);
    sockaddr_storage address{};
    const socklen_t length = Endpoint{options.addresses[0], 0}.to_sockaddr(address);
    std::memcpy(&request.ifr_addr, &address, length);
    ASSERT_EQ(::ioctl(fd.get(), SIOCSIFADDR, &request), 0) << std::strerror(errno);
    options.interface = "lo";
    options.addresses.resize(1);
    options.proc_sys = "/nowhere";
    const auto there = check_host(options);
    EXPECT_TRUE(there) << there.error().text;
}

}  // namespace
}  // namespace gmgate::kernel
