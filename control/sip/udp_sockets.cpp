#include "control/sip/udp_sockets.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/secret.h"

namespace gmgate::sip {

namespace {
constexpr std::size_t max_queued_bytes = 256UL * 1024;
// Rounds of one socket before the others get their turn.
constexpr int rounds_per_turn = 4;

std::string remedy(int error, const Endpoint& local) {
    switch (error) {
        case EADDRINUSE:
            return fmt::format("{}: the address is in use; is another copy running? (ss -lnup)",
                               local.to_string());
        case EADDRNOTAVAIL:
            return fmt::format("{}: the address is not one of this host's (ip address)",
                               local.to_string());
        case EACCES:
            return fmt::format("{}: no permission; run as root or grant CAP_NET_BIND_SERVICE",
                               local.to_string());
        default:
            return fmt::format("{}: {}", local.to_string(), std::strerror(error));
    }
}
}  // namespace

Result<UniqueFd> bound_socket(int type, const Endpoint& local, const std::string& device) {
    UniqueFd fd(::socket(local.address.is_v6() ? AF_INET6 : AF_INET,
                         type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid())
        return fail(ErrorKind::io,
                    fmt::format("socket for {}: {}", local.to_string(), std::strerror(errno)));
    const int on = 1;
    if (local.address.is_v6()) {
        (void)setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        // The address may have come up a moment ago and still be in duplicate address detection.
        (void)setsockopt(fd.get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
    }
    if (type == SOCK_STREAM) (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!device.empty() && setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                                      static_cast<socklen_t>(device.size())) != 0) {
        return fail(ErrorKind::io, fmt::format("{}: cannot bind to device {}: {}",
                                               local.to_string(), device, std::strerror(errno)));
    }
    sockaddr_storage sa{};
    const socklen_t length = local.to_sockaddr(sa);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&sa), length) != 0)
        return fail(ErrorKind::io, remedy(errno, local));
    return fd;
}

UdpSockets::UdpSockets(EventLoop& loop, MessageSink& sink, Counters counters)
    : loop_(loop), sink_(sink), counters_(counters), received_(batch * datagram) {
    queue_.reserve(batch);
    queued_bytes_.reserve(max_queued_bytes);
}

UdpSockets::~UdpSockets() {
    flush();
    for (auto& [local, socket] : sockets_) loop_.unwatch(socket->fd.get());
}

Result<void> UdpSockets::add(const Endpoint& local, const std::string& device, int receive_buffer) {
    auto fd = bound_socket(SOCK_DGRAM, local, device);
    if (!fd) return std::unexpected(fd.error());
    // FORCE needs CAP_NET_ADMIN; without it the kernel's rmem_max holds.
    if (setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) !=
        0) {
        (void)setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    auto socket = std::make_unique<Socket>(Socket{std::move(*fd), local});
    const Socket& s = *socket;
    loop_.watch(s.fd.get(), EventLoop::readable, [this, &s](unsigned) { read(s); });
    sockets_[local] = std::move(socket);
    return {};
}

void UdpSockets::read(const Socket& socket) {
    std::array<mmsghdr, batch> headers{};
    std::array<iovec, batch> vectors{};
    std::array<sockaddr_storage, batch> from;
    auto* area = reinterpret_cast<char*>(received_.bytes().data());
    for (int round = 0; round < rounds_per_turn; ++round) {
        for (std::size_t i = 0; i < batch; ++i) {
            vectors[i] = {area + i * datagram, datagram};
            headers[i] = {};
            headers[i].msg_hdr.msg_name = &from[i];
            headers[i].msg_hdr.msg_namelen = sizeof from[i];
            headers[i].msg_hdr.msg_iov = &vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        // EAGAIN, or a pending error that an ICMP message left: both mean there is nothing to read
        // now.
        const int n = recvmmsg(socket.fd.get(), headers.data(), batch, MSG_DONTWAIT, nullptr);
        if (n <= 0) return;
        counters_.received.add(static_cast<std::uint64_t>(n));
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
            if ((headers[i].msg_hdr.msg_flags & MSG_TRUNC) != 0) {
                counters_.truncated.add();
                continue;
            }
            if (headers[i].msg_len == 0) continue;
            const Flow flow{Transport::udp, socket.local, Endpoint::from_sockaddr(from[i]), 0};
            sink_.on_message(flow, {area + i * datagram, headers[i].msg_len});
        }
        if (static_cast<std::size_t>(n) < batch) return;
    }
}

bool UdpSockets::send(const Flow& flow, std::span<const char> bytes) {
    const auto it = sockets_.find(flow.local);
    if (it == sockets_.end() || bytes.empty() || bytes.size() > 65507) return false;
    if (queue_.size() == batch || queued_bytes_.size() + bytes.size() > max_queued_bytes) flush();
    Queued& q = queue_.emplace_back();
    q.socket = it->second.get();
    q.to_length = flow.remote.to_sockaddr(q.to);
    q.offset = queued_bytes_.size();
    q.length = bytes.size();
    queued_bytes_.insert(queued_bytes_.end(), bytes.begin(), bytes.end());
    return true;
}

void UdpSockets::flush() {
    std::array<mmsghdr, batch> headers{};
    std::array<iovec, batch> vectors{};
    std::size_t at = 0;
    while (at < queue_.size()) {
        // A run of datagrams of one socket goes out in one call.
        const Socket* socket = queue_[at].socket;
        std::size_t n = 0;
        while (at + n < queue_.size() && n < batch && queue_[at + n].socket == socket) {
            Queued& q = queue_[at + n];
            vectors[n] = {queued_bytes_.data() + q.offset, q.length};
            headers[n] = {};
            headers[n].msg_hdr.msg_name = &q.to;
            headers[n].msg_hdr.msg_namelen = q.to_length;
            headers[n].msg_hdr.msg_iov = &vectors[n];
            headers[n].msg_hdr.msg_iovlen = 1;
            ++n;
        }
        const int sent =
            sendmmsg(socket->fd.get(), headers.data(), static_cast<unsigned>(n), MSG_DONTWAIT);
        if (sent > 0) {
            counters_.sent.add(static_cast<std::uint64_t>(sent));
            at += static_cast<std::size_t>(sent);
        } else {
            // The first of the run cannot go (queue full, no route, an ICMP error left on the
            // socket): UDP may lose it.
            if (errno == ECONNREFUSED) {
                // The pending error was of an earlier datagram and is now cleared: try once more.
                const auto once = sendmmsg(socket->fd.get(), headers.data(), 1, MSG_DONTWAIT);
                (once == 1 ? counters_.sent : counters_.send_dropped).add();
            } else {
                counters_.send_dropped.add();
                log::debug("transport", "UDP {} -> {}: {}", socket->local.to_string(),
                           Endpoint::from_sockaddr(queue_[at].to).to_string(),
                           std::strerror(errno));
            }
            ++at;
        }
    }
    queue_.clear();
    // A home network's challenges hold ck and ik (S1).
    wipe({reinterpret_cast<std::uint8_t*>(queued_bytes_.data()), queued_bytes_.size()});
    queued_bytes_.clear();
}

}  // namespace gmgate::sip
