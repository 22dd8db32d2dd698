// The port on a packet socket, in a network namespace of its own. A NIC that stops sending while it
// holds packets cannot be made here (each virtual interface lets go of them at once): what keeps
// the driver from waiting for one is looked at instead.
#include "dataplane/dpdk/port.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <thread>

#include "base/log.h"
#include "tests/unit/dataplane_dpdk/eal_environment.h"

namespace gmgate::dataplane::test {
namespace {

TEST(AfPacket, TheSocketIsWritableWhateverTheRingHolds) {
    start_eal();
    auto pools = BufferPools::create("port", 1, 24);
    ASSERT_TRUE(pools) << pools.error().text;
    bool alone = false;
    int buffer = 0;
    std::string said;
    std::thread([&] {
        if (::unshare(CLONE_NEWNET) != 0) return;
        alone = true;
        auto port = EthPort::open_af_packet("lo", 1, 1, (*pools)->large());
        if (!port) {
            said = port.error().text;
            return;
        }
        socklen_t size = sizeof(buffer);
        if (::getsockopt((*port)->wait_fd(0), SOL_SOCKET, SO_SNDBUF, &buffer, &size) != 0)
            said = "the driver's socket is not known";
    }).join();
    if (!alone) GTEST_SKIP() << "needs root for a network namespace";
    ASSERT_EQ(said, "");
    // Writable: less than half of it is under way. 2048 frames of 8 KiB and the kernel's own.
    EXPECT_GT(buffer / 2, 2048 * (8192 + 1280));
}

// As in a user namespace, whose capabilities do not count for it. The thread lacks the right in its
// own namespace too, so the driver's start may be refused afterwards.
TEST(AfPacket, ASmallerSendBufferIsNoReasonNotToStartAndTold) {
    start_eal();
    auto pools = BufferPools::create("small", 1, 24);
    ASSERT_TRUE(pools) << pools.error().text;
    bool alone = false;
    std::string said;
    log::configure(log::Level::warn, false);
    testing::internal::CaptureStderr();
    std::thread([&] {
        if (::unshare(CLONE_NEWNET) != 0) return;
        // Of this thread alone.
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        std::array<__user_cap_data_struct, 2> rights{};
        if (::syscall(SYS_capget, &header, rights.data()) != 0) return;
        rights[0].effective &= ~(1U << CAP_NET_ADMIN);
        if (::syscall(SYS_capset, &header, rights.data()) != 0) return;
        alone = true;
        const auto port = EthPort::open_af_packet("lo", 1, 1, (*pools)->large());
        if (!port) said = port.error().text;
    }).join();
    const std::string logged = testing::internal::GetCapturedStderr();
    if (!alone) GTEST_SKIP() << "needs root for a network namespace";
    EXPECT_EQ(said.find("send buffer"), std::string::npos) << said;
    std::size_t largest = 0;
    std::ifstream("/proc/sys/net/core/wmem_max") >> largest;
    const bool enough = largest >= 2UL * 2048 * (8192 + 2048);
    EXPECT_EQ(logged.find("can hold up a worker") == std::string::npos, enough) << logged;
}

}  // namespace
}  // namespace gmgate::dataplane::test
