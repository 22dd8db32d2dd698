#include "sa/kernel/channel.h"

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace gmgate::kernel {

namespace {

constexpr int receive_octets = 4 << 20;  // holds the answers to our largest batch many times over
constexpr int answer_wait_ms = 1000;

struct CloseSocket {
    void operator()(mnl_socket* s) const { mnl_socket_close(s); }
};
using Socket = std::unique_ptr<mnl_socket, CloseSocket>;

class MnlChannel final : public Channel {
  public:
    MnlChannel(Socket socket, int wait_ms) : socket_(std::move(socket)), wait_ms_(wait_ms) {}

    int send(std::span<const std::uint8_t> messages) override {
        return mnl_socket_sendto(socket_.get(), messages.data(), messages.size()) < 0 ? errno : 0;
    }

    Received receive(std::span<std::uint8_t> buffer) override {
        for (bool waited = false;; waited = true) {
            // MSG_TRUNC: the length of what was sent, also where it did not fit.
            const ssize_t n = ::recv(fd(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC);
            if (n >= 0) {
                const auto size = static_cast<std::size_t>(n);
                return size > buffer.size() ? Received{0, EMSGSIZE} : Received{size, 0};
            }
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return {0, errno};
            if (wait_ms_ == 0 || waited) return {};
            pollfd p{fd(), POLLIN, 0};
            (void)::poll(&p, 1, wait_ms_);
        }
    }

    int fd() const override { return mnl_socket_get_fd(socket_.get()); }

  private:
    Socket socket_;
    int wait_ms_;
};

Result<std::unique_ptr<Channel>> open(unsigned groups, int wait_ms) {
    Socket socket(mnl_socket_open2(NETLINK_XFRM, SOCK_CLOEXEC));
    if (!socket) {
        const int error = errno;
        if (error == EPROTONOSUPPORT || error == EAFNOSUPPORT) {
            return fail(ErrorKind::unsupported,
                        "this kernel has no XFRM over netlink (CONFIG_XFRM_USER); run 'modprobe "
                        "xfrm_user', or choose backend: dpdk");
        }
        return fail(ErrorKind::io,
                    std::string("no netlink socket for XFRM: ") + std::strerror(error));
    }
    const int fd = mnl_socket_get_fd(socket.get());
    // FORCE passes net.core.rmem_max, with CAP_NET_ADMIN; without, the plain one is as good as it
    // gets, and the missing capability is reported by what comes next.
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_octets, sizeof receive_octets) != 0) {
        (void)::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_octets, sizeof receive_octets);
    }
    // Reasons in words; and no copy of the request, which holds keys, in the answer. Kernels
    // without these two answer without them.
    int on = 1;
    (void)mnl_socket_setsockopt(socket.get(), NETLINK_EXT_ACK, &on, sizeof on);
    (void)mnl_socket_setsockopt(socket.get(), NETLINK_CAP_ACK, &on, sizeof on);
    if (mnl_socket_bind(socket.get(), groups, MNL_SOCKET_AUTOPID) != 0) {
        const int error = errno;
        if (error == EPERM) {
            return fail(ErrorKind::denied,
                        "no permission for XFRM: CAP_NET_ADMIN is missing; run gmgated as root or "
                        "by its systemd unit");
        }
        return fail(ErrorKind::io,
                    std::string("cannot bind the netlink socket: ") + std::strerror(error));
    }
    return std::make_unique<MnlChannel>(std::move(socket), wait_ms);
}

}  // namespace

Result<std::unique_ptr<Channel>> open_requests() {
    return open(0, answer_wait_ms);
}

Result<std::unique_ptr<Channel>> open_events() {
    constexpr unsigned mapping = 1U << (XFRMNLGRP_MAPPING - 1U);
    return open(XFRMGRP_EXPIRE | XFRMGRP_ACQUIRE | XFRMGRP_POLICY | mapping, 0);
}

}  // namespace gmgate::kernel
