#pragma once
// The TCP half of SocketTransport: listeners, connections by id and by endpoints, framing, limits,
// time-outs.

#include <array>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/secret_text.h"
#include "base/unique_fd.h"
#include "control/sip/framer.h"
#include "control/sip/socket_transport.h"
#include "control/sip/transport.h"

namespace gmgate::sip {

class TcpConnections {
  public:
    struct Counters {
        metrics::Counter& received;
        metrics::Counter& sent;
        metrics::Counter& accepted;
        metrics::Counter& connected;
        metrics::Counter& refused;  // over a limit
        metrics::Counter& framing_errors;
        metrics::Counter& timeouts;
        metrics::Counter& overflows;  // the peer does not read
        metrics::Gauge& open;
    };

    TcpConnections(EventLoop& loop, MessageSink& sink, const SocketTransportOptions& options,
                   Counters counters);
    ~TcpConnections();
    TcpConnections(const TcpConnections&) = delete;
    TcpConnections& operator=(const TcpConnections&) = delete;

    Result<void> listen(const Endpoint& local);
    bool send(const Flow& flow, std::span<const char> bytes);
    void close(ConnectionId id);
    void cut(const Endpoint& local, const Endpoint& remote);
    [[nodiscard]] std::size_t size() const { return connections_.size(); }

  private:
    enum class State : std::uint8_t { connecting, open, closing };
    struct Connection {
        Flow flow;
        UniqueFd fd;
        State state = State::open;
        bool established = false;
        bool heard = false;    // one whole message came in
        bool waiting = false;  // the timer runs for the end of a message
        StreamFramer framer;
        WipedText out;  // not yet written; a home network sends ck and ik (S1)
        Timer timer;
        TcpConnections* owner = nullptr;
    };
    struct Listener {
        UniqueFd fd;
        Endpoint local;
    };
    struct Pair {
        Endpoint local;
        Endpoint remote;
        bool operator==(const Pair&) const = default;
    };
    struct PairHash {
        std::size_t operator()(const Pair& p) const {
            return std::hash<Endpoint>{}(p.local) * 31 + std::hash<Endpoint>{}(p.remote);
        }
    };

    void accept_all(const Listener& listener);
    [[nodiscard]] IpAddress source_of(const Flow& flow) const;
    [[nodiscard]] bool is_unprotected(const Flow& flow) const;
    [[nodiscard]] bool may_connect(const Flow& flow) const;
    Connection* connect(const Flow& flow);
    Connection& adopt(UniqueFd fd, const Flow& flow, State state);
    void ready(ConnectionId id, unsigned what);
    bool read(Connection& c);
    bool write(Connection& c);
    void leave_nothing(const Connection& c) const;
    void update_interest(Connection& c);
    void arm(Connection& c);
    void drop(ConnectionId id, bool tell);
    void on_timeout(Connection& c);

    EventLoop& loop_;
    MessageSink& sink_;
    SocketTransportOptions options_;
    Counters counters_;
    ConnectionId next_id_ = 1;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::unordered_map<ConnectionId, std::unique_ptr<Connection>> connections_;
    std::unordered_map<Pair, ConnectionId, PairHash> by_pair_;
    // Strangers', and those on SAs: who shares a phone's address must not take the phone's share.
    std::array<std::unordered_map<IpAddress, std::size_t>, 2> per_source_;
    std::size_t unprotected_ = 0;  // connections at options_.unprotected_port
    std::vector<char> read_buffer_;
};

}  // namespace gmgate::sip
