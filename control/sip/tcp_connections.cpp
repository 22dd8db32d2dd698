#include "control/sip/tcp_connections.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/secret.h"
#include "control/sip/udp_sockets.h"

namespace gmgate::sip {

namespace {
constexpr int backlog = 1024;
constexpr std::size_t read_size = 64UL * 1024;
constexpr std::size_t feed_size = 16UL * 1024;
constexpr int accepts_per_turn = 64;
constexpr int reads_per_turn = 4;

struct WipeAtEnd {
    std::span<const char> bytes;
    ~WipeAtEnd() {
        wipe({reinterpret_cast<std::uint8_t*>(const_cast<char*>(bytes.data())), bytes.size()});
    }
};
}  // namespace

TcpConnections::TcpConnections(EventLoop& loop, MessageSink& sink,
                               const SocketTransportOptions& options, Counters counters)
    : loop_(loop), sink_(sink), options_(options), counters_(counters), read_buffer_(read_size) {}

TcpConnections::~TcpConnections() {
    for (const auto& l : listeners_) loop_.unwatch(l->fd.get());
    for (auto& [id, c] : connections_) {
        loop_.unwatch(c->fd.get());
        leave_nothing(*c);
    }
    wipe({reinterpret_cast<std::uint8_t*>(read_buffer_.data()), read_buffer_.size()});
}

// On an SA nothing may stay behind with the kernel: it would be sent when the SA is gone (A6), and
// a pair of ports in TIME_WAIT would keep us from reaching the phone between the same ports again.
void TcpConnections::leave_nothing(const Connection& c) const {
    if (options_.unprotected_port == 0 || is_unprotected(c.flow)) return;
    const linger cut{.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(c.fd.get(), SOL_SOCKET, SO_LINGER, &cut, sizeof cut);
}

Result<void> TcpConnections::listen(const Endpoint& local) {
    auto fd = bound_socket(SOCK_STREAM, local, options_.device);
    if (!fd) return std::unexpected(fd.error());
    if (::listen(fd->get(), backlog) != 0) {
        return fail(ErrorKind::io, fmt::format("{}: {}; is another copy running? (ss -ltnp)",
                                               local.to_string(), std::strerror(errno)));
    }
    auto listener = std::make_unique<Listener>(Listener{std::move(*fd), local});
    const Listener& l = *listener;
    listeners_.push_back(std::move(listener));
    loop_.watch(l.fd.get(), EventLoop::readable, [this, &l](unsigned) { accept_all(l); });
    return {};
}

void TcpConnections::accept_all(const Listener& listener) {
    for (int i = 0; i < accepts_per_turn; ++i) {
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        UniqueFd fd(accept4(listener.fd.get(), reinterpret_cast<sockaddr*>(&from), &length,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd.valid()) {
            if (errno == EMFILE || errno == ENFILE)
                log::warn("transport", "TCP {}: out of file descriptors; raise LimitNOFILE",
                          listener.local.to_string());
            return;
        }
        const Flow flow{Transport::tcp, listener.local, Endpoint::from_sockaddr(from), 0};
        if (!may_connect(flow)) {
            counters_.refused.add();
            continue;  // closed
        }
        counters_.accepted.add();
        Connection& c = adopt(std::move(fd), flow, State::open);
        c.established = true;
        arm(c);
    }
}

IpAddress TcpConnections::source_of(const Flow& flow) const {
    const IpAddress& a = flow.remote.address;
    return a.is_v6() ? a.network(options_.ipv6_source_prefix) : a;
}

bool TcpConnections::is_unprotected(const Flow& flow) const {
    return options_.unprotected_port != 0 && flow.local.port == options_.unprotected_port;
}

bool TcpConnections::may_connect(const Flow& flow) const {
    if (options_.accept && !options_.accept(flow.remote.address)) return false;
    if (connections_.size() >= options_.max_connections) return false;
    // Whoever comes to another port has an SA: strangers leave half of the places to those.
    if (is_unprotected(flow) && unprotected_ >= (options_.max_connections + 1) / 2) return false;
    const auto& sources = per_source_[is_unprotected(flow) ? 0 : 1];
    const auto source = sources.find(source_of(flow));
    return source == sources.end() || source->second < options_.max_connections_per_source;
}

TcpConnections::Connection& TcpConnections::adopt(UniqueFd fd, const Flow& flow, State state) {
    const int on = 1;
    (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // A phone that sleeps acknowledges nothing: the kernel would try for a quarter of an hour.
    const auto patience = static_cast<unsigned>(
        std::chrono::duration_cast<std::chrono::milliseconds>(options_.unacknowledged_timeout)
            .count());
    (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    auto connection = std::make_unique<Connection>();
    Connection& c = *connection;
    c.flow = flow;
    c.flow.connection = next_id_++;
    c.fd = std::move(fd);
    c.state = state;
    c.owner = this;
    if (state == State::connecting) c.framer = StreamFramer(StreamFramer::Side::client);
    c.timer.bind(
        [](void* p) {
            auto* x = static_cast<Connection*>(p);
            x->owner->on_timeout(*x);
        },
        &c);
    connections_[c.flow.connection] = std::move(connection);
    by_pair_[{c.flow.local, c.flow.remote}] = c.flow.connection;
    ++per_source_[is_unprotected(flow) ? 0 : 1][source_of(flow)];
    if (is_unprotected(flow)) ++unprotected_;
    counters_.open.set(static_cast<std::int64_t>(connections_.size()));
    const unsigned interest =
        state == State::connecting ? EventLoop::writable : EventLoop::readable;
    loop_.watch(c.fd.get(), interest,
                [this, id = c.flow.connection](unsigned what) { ready(id, what); });
    return c;
}

TcpConnections::Connection* TcpConnections::connect(const Flow& flow) {
    if (connections_.size() >= options_.max_connections) {
        counters_.refused.add();
        return nullptr;
    }
    auto fd = bound_socket(SOCK_STREAM, flow.local, options_.device);
    if (!fd) {
        log::debug("transport", "TCP {} -> {}: {}", flow.local.to_string(), flow.remote.to_string(),
                   fd.error().text);
        return nullptr;
    }
    sockaddr_storage sa{};
    const socklen_t length = flow.remote.to_sockaddr(sa);
    if (::connect(fd->get(), reinterpret_cast<const sockaddr*>(&sa), length) != 0 &&
        errno != EINPROGRESS) {
        log::debug("transport", "TCP {} -> {}: {}", flow.local.to_string(), flow.remote.to_string(),
                   std::strerror(errno));
        return nullptr;
    }
    Connection& c = adopt(std::move(*fd), flow, State::connecting);
    arm(c);
    return &c;
}

void TcpConnections::arm(Connection& c) {
    if (c.state == State::closing) return;  // close() has set its time
    Duration after =
        is_unprotected(c.flow) ? options_.unprotected_idle_timeout : options_.idle_timeout;
    if (c.state == State::connecting) {
        after = options_.connect_timeout;
    } else if ((c.established && !c.heard) || c.framer.pending() != 0) {
        // Silent since it was accepted, or in the middle of a message: slow senders hold no
        // connection for long, so its octets one by one gain it no time.
        if (c.waiting) return;
        c.waiting = true;
        after = options_.first_message_timeout;
    } else {
        c.waiting = false;
    }
    loop_.timers().start(c.timer, after);
}

void TcpConnections::on_timeout(Connection& c) {
    if (c.state == State::open && !c.waiting && is_unprotected(c.flow) && options_.in_use &&
        options_.in_use(c.flow))
        return arm(c);
    counters_.timeouts.add();
    drop(c.flow.connection, true);
}

bool TcpConnections::send(const Flow& flow, std::span<const char> bytes) {
    Connection* c = nullptr;
    if (flow.connection != 0) {
        const auto it = connections_.find(flow.connection);
        if (it == connections_.end()) return false;
        c = it->second.get();
    } else {
        // Port 0: any of ours to that peer will do, so the latest is used again.
        const auto it = by_pair_.find({flow.local, flow.remote});
        if (it != by_pair_.end()) c = connections_.at(it->second).get();
        if (c != nullptr && flow.local.port == 0 && c->state == State::closing) c = nullptr;
        if (c == nullptr) c = connect(flow);
        if (c == nullptr) return false;
    }
    if (c->state == State::closing) return false;
    if (c->out.size() + bytes.size() > options_.max_queued_bytes) {
        counters_.overflows.add();
        const ConnectionId id = c->flow.connection;
        loop_.post([this, id] { drop(id, true); });  // not from inside the caller's send
        return false;
    }
    c->out.append(bytes.data(), bytes.size());
    counters_.sent.add();
    if (c->state == State::open) {
        if (!write(*c)) {
            const ConnectionId id = c->flow.connection;
            loop_.post([this, id] { drop(id, true); });
            return false;
        }
        update_interest(*c);
    }
    return true;
}

void TcpConnections::close(ConnectionId id) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    Connection& c = *it->second;
    if (c.out.empty()) {
        drop(id, false);
    } else {
        c.state = State::closing;
        loop_.timers().start(c.timer, options_.connect_timeout);
        update_interest(c);
    }
}

void TcpConnections::cut(const Endpoint& local, const Endpoint& remote) {
    const auto it = by_pair_.find({local, remote});
    if (it == by_pair_.end()) return;
    loop_.post([this, id = it->second] { drop(id, true); });  // not from inside the caller
}

void TcpConnections::update_interest(Connection& c) {
    unsigned interest = c.state == State::closing ? 0U : static_cast<unsigned>(EventLoop::readable);
    if (!c.out.empty() || c.state == State::connecting) interest |= EventLoop::writable;
    loop_.change(c.fd.get(), interest);
}

bool TcpConnections::write(Connection& c) {
    while (!c.out.empty()) {
        const ssize_t n = ::send(c.fd.get(), c.out.data(), c.out.size(), MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        const std::size_t left = c.out.size() - static_cast<std::size_t>(n);
        std::memmove(c.out.data(), c.out.data() + n, left);
        wipe({reinterpret_cast<std::uint8_t*>(c.out.data()) + left, static_cast<std::size_t>(n)});
        c.out.resize(left);
    }
    return true;
}

bool TcpConnections::read(Connection& c) {
    const ConnectionId id = c.flow.connection;
    for (int i = 0; i < reads_per_turn; ++i) {
        const ssize_t n = ::recv(c.fd.get(), read_buffer_.data(), read_buffer_.size(), 0);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        if (n == 0) return false;
        std::span<const char> rest(read_buffer_.data(), static_cast<std::size_t>(n));
        // The framer's copy is wiped by who reads it; this one may hold ck and ik, too (S1).
        const WipeAtEnd wiped{rest};
        while (!rest.empty()) {
            // In pieces, so that the framer's buffer stays within one message of the largest size.
            const auto piece = rest.first(std::min(rest.size(), feed_size));
            rest = rest.subspan(piece.size());
            c.framer.feed(piece);
            for (bool more = true; more;) {
                const Frame frame = c.framer.next();
                switch (frame.kind) {
                    case FrameKind::none:
                        more = false;
                        break;
                    case FrameKind::ping:                                    // RFC 5626 4.4.1
                        if (c.out.size() + 2 > options_.max_queued_bytes) {  // pings, reads no pong
                            counters_.overflows.add();
                            return false;
                        }
                        c.out.append("\r\n");
                        if (c.state == State::open && !write(c)) return false;
                        break;
                    case FrameKind::pong:
                        break;
                    case FrameKind::message:
                        c.heard = true;
                        c.waiting = false;
                        counters_.received.add();
                        // The framer's own buffer, handed on as writable: a receiver wipes keys
                        // where they lie.
                        sink_.on_message(
                            c.flow, {const_cast<char*>(frame.bytes.data()), frame.bytes.size()});
                        if (!connections_.contains(id)) return true;  // the sink closed it
                        if (c.state == State::closing) return true;
                        break;
                    case FrameKind::error:
                        counters_.framing_errors.add();
                        sink_.on_framing_error(
                            c.flow, frame.status,
                            {const_cast<char*>(frame.bytes.data()), frame.bytes.size()});
                        return false;
                }
            }
        }
        if (static_cast<std::size_t>(n) < read_buffer_.size()) return true;
    }
    return true;
}

void TcpConnections::ready(ConnectionId id, unsigned what) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    Connection& c = *it->second;
    if (c.state == State::connecting) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0) {
            log::debug("transport", "TCP {} -> {}: {}", c.flow.local.to_string(),
                       c.flow.remote.to_string(), std::strerror(error));
            drop(id, true);
            return;
        }
        c.state = State::open;
        c.established = true;
        c.heard = true;  // we opened it: the peer need not speak first
        counters_.connected.add();
    }
    if ((what & EventLoop::writable) != 0 && !write(c)) {
        drop(id, true);
        return;
    }
    if (c.state == State::closing) {
        if (c.out.empty()) drop(id, false);
        return;
    }
    if ((what & EventLoop::readable) != 0 && !read(c)) {
        drop(id, true);
        return;
    }
    const auto still = connections_.find(id);  // the sink may have closed it
    if (still == connections_.end()) return;
    arm(*still->second);
    update_interest(*still->second);
}

void TcpConnections::drop(ConnectionId id, bool tell) {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    const std::unique_ptr<Connection> c = std::move(it->second);
    connections_.erase(it);
    const auto pair = by_pair_.find({c->flow.local, c->flow.remote});
    if (pair != by_pair_.end() && pair->second == id) by_pair_.erase(pair);
    auto& sources = per_source_[is_unprotected(c->flow) ? 0 : 1];
    const auto source = sources.find(source_of(c->flow));
    if (source != sources.end() && --source->second == 0) sources.erase(source);
    if (is_unprotected(c->flow)) --unprotected_;
    counters_.open.set(static_cast<std::int64_t>(connections_.size()));
    c->timer.stop();
    loop_.unwatch(c->fd.get());
    // Before anybody is told: who hears of it may connect again between the same endpoints.
    leave_nothing(*c);
    c->fd.reset();
    if (tell) sink_.on_connection_closed(c->flow, c->established);
}

}  // namespace gmgate::sip
