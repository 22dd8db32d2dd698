#pragma once
// The UDP half of SocketTransport: sockets by local endpoint, receive and send in batches.

#include <sys/socket.h>

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/secret.h"
#include "base/unique_fd.h"
#include "control/sip/transport.h"

namespace gmgate::sip {

// Creates a bound socket; the error names endpoint and remedy. `type`: SOCK_DGRAM or SOCK_STREAM.
Result<UniqueFd> bound_socket(int type, const Endpoint& local, const std::string& device);

class UdpSockets {
  public:
    struct Counters {
        metrics::Counter& received;
        metrics::Counter& sent;
        metrics::Counter& truncated;
        metrics::Counter& send_dropped;
    };

    UdpSockets(EventLoop& loop, MessageSink& sink, Counters counters);
    ~UdpSockets();
    UdpSockets(const UdpSockets&) = delete;
    UdpSockets& operator=(const UdpSockets&) = delete;

    Result<void> add(const Endpoint& local, const std::string& device, int receive_buffer);
    bool send(const Flow& flow, std::span<const char> bytes);
    // Sends what is queued. Called by itself at the end of each round of the loop.
    void flush();

  private:
    static constexpr std::size_t batch = 32;
    static constexpr std::size_t datagram = 65536;

    struct Socket {
        UniqueFd fd;
        Endpoint local;
    };
    struct Queued {
        const Socket* socket;
        sockaddr_storage to;
        socklen_t to_length;
        std::size_t offset;
        std::size_t length;
    };

    void read(const Socket& socket);

    EventLoop& loop_;
    MessageSink& sink_;
    Counters counters_;
    std::unordered_map<Endpoint, std::unique_ptr<Socket>> sockets_;
    SecretPages received_;  // a 401 from the core holds ck and ik: never in a core dump
    std::vector<Queued> queue_;
    std::vector<char> queued_bytes_;
};

}  // namespace gmgate::sip
