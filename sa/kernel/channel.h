#pragma once
// The way to the kernel and back: what a netlink socket does, so that tests can stand in for it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"

namespace gmgate::kernel {

class Channel {
  public:
    virtual ~Channel() = default;

    // One or more whole messages. 0, or errno.
    [[nodiscard]] virtual int send(std::span<const std::uint8_t> messages) = 0;
    struct Received {
        std::size_t size = 0;  // 0 without an error: nothing is there
        int error = 0;         // errno; ENOBUFS: messages were lost
    };
    // One datagram of whole messages.
    [[nodiscard]] virtual Received receive(std::span<std::uint8_t> buffer) = 0;
    // For poll(); -1: none.
    [[nodiscard]] virtual int fd() const = 0;
};

// NETLINK_XFRM through libmnl. unsupported: the kernel has no XFRM over netlink; denied: no
// permission; io.
// For requests: receive() waits up to a second for an answer the kernel owes us.
[[nodiscard]] Result<std::unique_ptr<Channel>> open_requests();
// Joined to the EXPIRE, ACQUIRE and POLICY groups; never waits.
[[nodiscard]] Result<std::unique_ptr<Channel>> open_events();

}  // namespace gmgate::kernel
