#include "ue/bridge_socket.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gmgate::ue {

Result<std::unique_ptr<BridgeSocket>> BridgeSocket::open(EventLoop& loop, const Endpoint& self,
                                                         Receive receive) {
    UniqueFd fd(::socket(self.address.is_v6() ? AF_INET6 : AF_INET,
                         SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage storage{};
    const socklen_t size = self.to_sockaddr(storage);
    if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), size) != 0) {
        return fail(ErrorKind::io,
                    fmt::format("--bridge {}: {}", self.to_string(), std::strerror(errno)));
    }
    // Bursts of a load generator.
    const int buffer = 4 << 20;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    return std::unique_ptr<BridgeSocket>(new BridgeSocket(loop, std::move(fd), std::move(receive)));
}

BridgeSocket::BridgeSocket(EventLoop& loop, UniqueFd fd, Receive receive)
    : loop_(loop), fd_(std::move(fd)), receive_(std::move(receive)) {
    loop_.watch(fd_.get(), EventLoop::readable, [this](unsigned) { on_readable(); });
}

BridgeSocket::~BridgeSocket() {
    loop_.unwatch(fd_.get());
}

void BridgeSocket::on_readable() {
    std::array<char, 65536> data;
    constexpr int most_at_once = 64;
    for (int i = 0; i < most_at_once; ++i) {
        sockaddr_storage from{};
        socklen_t size = sizeof from;
        const ssize_t n = ::recvfrom(fd_.get(), data.data(), data.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
        // ECONNREFUSED: the application was not there for something sent earlier.
        if (n < 0 && (errno == EINTR || errno == ECONNREFUSED)) continue;
        if (n < 0) return;
        receive_(Endpoint::from_sockaddr(from), {data.data(), static_cast<std::size_t>(n)});
    }
}

void BridgeSocket::send(const Endpoint& to, std::string_view datagram) {
    sockaddr_storage storage{};
    const socklen_t size = to.to_sockaddr(storage);
    (void)::sendto(fd_.get(), datagram.data(), datagram.size(), 0,
                   reinterpret_cast<const sockaddr*>(&storage), size);
}

}  // namespace gmgate::ue
