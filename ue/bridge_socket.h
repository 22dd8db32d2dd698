#pragma once
// The UDP socket between a bridge and its application. One thread, that of the loop.

#include <functional>
#include <memory>
#include <string_view>

#include "base/event_loop.h"
#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace gmgate::ue {

class BridgeSocket {
  public:
    using Receive = std::function<void(const Endpoint& from, std::string_view datagram)>;

    // The error names the address and why it cannot be had.
    static Result<std::unique_ptr<BridgeSocket>> open(EventLoop& loop, const Endpoint& self,
                                                      Receive receive);
    ~BridgeSocket();
    BridgeSocket(const BridgeSocket&) = delete;
    BridgeSocket& operator=(const BridgeSocket&) = delete;

    // What the kernel does not take at once is lost, as UDP may be.
    void send(const Endpoint& to, std::string_view datagram);

  private:
    BridgeSocket(EventLoop& loop, UniqueFd fd, Receive receive);
    void on_readable();

    EventLoop& loop_;
    UniqueFd fd_;
    Receive receive_;
};

}  // namespace gmgate::ue
