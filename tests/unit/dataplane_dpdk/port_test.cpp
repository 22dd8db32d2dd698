// The port on a packet socket, in a network namespace of its own. A NIC that stops sending while it
// holds packets cannot be made here (each virtual interface lets go of them at once): what keeps
// the driver from waiting for one is looked at instead.
#include "dataplane/dpdk/port.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>

#include <thread>

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

}  // namespace
}  // namespace gmgate::dataplane::test
