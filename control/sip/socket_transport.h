#pragma once
// The TransportLayer of real sockets: UDP in batches (recvmmsg, sendmmsg), TCP with framing, limits
// and time-outs.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/metrics.h"
#include "base/result.h"
#include "control/sip/transport.h"

namespace gmgate::sip {

struct SocketTransportOptions {
    // Sockets are bound to this device if not empty: packets that bypass the fast path find no
    // socket (A6).
    std::string device;
    // Bytes the kernel may queue per UDP socket; the kernel's limit applies.
    int receive_buffer = 4 << 20;
    std::size_t max_connections = 20'000;
    std::size_t max_connections_per_source = 64;
    // One source is an IPv4 address, or an IPv6 network of this length.
    unsigned ipv6_source_prefix = 128;
    // Connections to this port are strangers': at most half of all, and kept idle no longer than
    // below. 0: there is no such port.
    std::uint16_t unprotected_port = 0;
    Duration unprotected_idle_timeout = std::chrono::seconds(64);
    // Of those: somebody still needs this one, however silent it is, so it is kept for as long once
    // more. Asked when the time is over; must not call the transport. Empty: nobody does.
    std::function<bool(const Flow&)> in_use;
    // Whose connections are taken at all; empty: everybody's.
    std::function<bool(const IpAddress&)> accept;
    std::size_t max_queued_bytes =
        256UL * 1024;  // per connection; more: the peer does not read, it is closed
    Duration first_message_timeout =
        std::chrono::seconds(30);  // accepted and silent, or a message never completed
    Duration idle_timeout = std::chrono::hours(2);
    Duration connect_timeout = std::chrono::seconds(10);
    // What we sent and the peer's TCP does not acknowledge for so long ends the connection. With
    // connect_timeout less than 64·T1, so that a second connection can be tried in time.
    Duration unacknowledged_timeout = std::chrono::seconds(15);
};

// Loop's thread only. `sink` must outlive it.
class SocketTransport final : public TransportLayer {
  public:
    SocketTransport(EventLoop& loop, MessageSink& sink, SocketTransportOptions options,
                    metrics::Registry& registry, const std::string& side);
    ~SocketTransport() override;

    // Errors name the endpoint and the remedy (address in use, not local, no permission).
    Result<void> add_udp(const Endpoint& local);
    Result<void> add_tcp_listener(const Endpoint& local);

    bool send(const Flow& flow, std::span<const char> bytes) override;
    void close(ConnectionId connection) override;
    void cut(const Endpoint& local, const Endpoint& remote) override;
    // Hands the kernel the datagrams sent in this round of the loop. The loop does so at the end of
    // each round; for who sends when no round follows.
    void flush();

    [[nodiscard]] std::size_t connections() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::sip
