#include "ue/socket_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

namespace gmgate::ue {

namespace {

bool set(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

}  // namespace

SocketStream::~SocketStream() {
    *alive_ = false;
    stop();
    if (!fd_.valid() || !vanish_) return;
    if (!set(fd_.get(), IPPROTO_TCP, TCP_REPAIR, 1)) {
        const linger now{1, 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
}

void SocketStream::connect(const Endpoint& from, const Endpoint& to) {
    local_ = from;
    remote_ = to;
    fd_ = UniqueFd(::socket(to.address.is_v6() ? AF_INET6 : AF_INET,
                            SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd_.valid()) return fail_later(errno);
    set(fd_.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (from.port != 0) set(fd_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (from.address.is_v6()) {
        set(fd_.get(), IPPROTO_IPV6, IPV6_FREEBIND, 1);
    } else {
        set(fd_.get(), IPPROTO_IP, IP_FREEBIND, 1);
    }
    sockaddr_storage s{};
    socklen_t n = from.to_sockaddr(s);
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&s), n) != 0) return fail_later(errno);
    socklen_t size = sizeof s;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&s), &size);
    local_.port = Endpoint::from_sockaddr(s).port;
    n = to.to_sockaddr(s);
    if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&s), n) != 0 && errno != EINPROGRESS) {
        return fail_later(errno);
    }
    loop_.watch(fd_.get(), EventLoop::writable, [this](unsigned ready) { on_ready(ready); });
    watched_ = true;
}

void SocketStream::adopt(UniqueFd fd, const Endpoint& local, const Endpoint& remote) {
    fd_ = std::move(fd);
    local_ = local;
    remote_ = remote;
    connected_ = true;
    set(fd_.get(), IPPROTO_TCP, TCP_NODELAY, 1);
}

void SocketStream::start(ClearStreamHandler& handler) {
    handler_ = &handler;
    if (watched_ || over_ || !fd_.valid()) return;
    loop_.watch(fd_.get(), EventLoop::readable, [this](unsigned ready) { on_ready(ready); });
    watched_ = true;
}

void SocketStream::send(std::string_view data) {
    if (!open()) return;
    queue_.append(data);
    if (connected_) write();
}

void SocketStream::finish() {
    // Also after the peer's FIN: the port is free again only when both have been sent.
    if (finishing_ || !fd_.valid()) return;
    finishing_ = true;
    if (connected_) write();
}

void SocketStream::abort() {
    stop();
    over_ = true;
    const linger now{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fd_.reset();
}

void SocketStream::fail_later(int error) {
    over_ = true;
    loop_.post([this, alive = alive_, error] {
        if (*alive && handler_ != nullptr) handler_->stream_closed(std::strerror(error));
    });
}

void SocketStream::on_ready(unsigned ready) {
    if (!connected_) {
        int error = 0;
        socklen_t n = sizeof error;
        ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &n);
        if (error != 0) {
            stop();
            over_ = true;
            handler_->stream_closed(std::strerror(error));
            return;
        }
        connected_ = true;
        loop_.change(fd_.get(), EventLoop::readable);
        write();
        return;
    }
    if ((ready & EventLoop::writable) != 0) write();
    if ((ready & EventLoop::readable) == 0) return;
    std::array<char, 16384> buffer;
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (n > 0) {
        handler_->stream_data({buffer.data(), static_cast<std::size_t>(n)});
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        const int error = n == 0 ? 0 : errno;
        stop();
        over_ = true;
        handler_->stream_closed(error == 0 ? peer_closed : std::strerror(error));
    }
}

void SocketStream::write() {
    while (!queue_.empty()) {
        const ssize_t n = ::send(fd_.get(), queue_.data(), queue_.size(), MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN && watched_)
                loop_.change(fd_.get(), EventLoop::readable | EventLoop::writable);
            return;  // an error shows up as readable
        }
        queue_.erase(0, static_cast<std::size_t>(n));
    }
    if (finishing_) ::shutdown(fd_.get(), SHUT_WR);
    if (watched_) loop_.change(fd_.get(), EventLoop::readable);
}

void SocketStream::stop() {
    if (watched_) loop_.unwatch(fd_.get());
    watched_ = false;
}

}  // namespace gmgate::ue
