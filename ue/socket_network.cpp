#include "ue/socket_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>

#include "ue/esp.h"
#include "ue/packet.h"
#include "ue/socket_stream.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

namespace gmgate::ue {

namespace {

constexpr unsigned batch = 64;
constexpr std::size_t max_packet = 65536;
constexpr int buffer_size = 16 << 20;
// What waits for a full socket buffer; more than this is lost, as on a real radio link.
constexpr std::size_t max_queue = 1U << 16U;
constexpr std::size_t control_size = 64;
constexpr std::uint16_t encapsulation_port = 4500;

bool set(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

void big_buffers(int fd) {
    if (!set(fd, SOL_SOCKET, SO_RCVBUFFORCE, buffer_size))
        set(fd, SOL_SOCKET, SO_RCVBUF, buffer_size);
    if (!set(fd, SOL_SOCKET, SO_SNDBUFFORCE, buffer_size))
        set(fd, SOL_SOCKET, SO_SNDBUF, buffer_size);
}

// The address a datagram was sent to, from its control messages.
std::optional<IpAddress> destination(msghdr& h) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            in_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            std::array<std::uint8_t, 4> o{};
            std::memcpy(o.data(), &info.ipi_addr, 4);
            return IpAddress::v4(o);
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            std::array<std::uint8_t, 16> o{};
            std::memcpy(o.data(), &info.ipi6_addr, 16);
            return IpAddress::v6(o);
        }
    }
    return std::nullopt;
}

// One read of up to `batch` packets.
struct Receiver {
    std::vector<std::uint8_t> memory = std::vector<std::uint8_t>(batch * max_packet);
    std::array<mmsghdr, batch> messages{};
    std::array<iovec, batch> vectors{};
    std::array<sockaddr_storage, batch> names{};
    std::array<std::array<char, control_size>, batch> controls{};

    int read(int fd) {
        for (std::size_t i = 0; i < batch; ++i) {
            vectors[i] = {memory.data() + i * max_packet, max_packet};
            msghdr& h = messages[i].msg_hdr;
            h = {};
            h.msg_name = &names[i];
            h.msg_namelen = sizeof names[i];
            h.msg_iov = &vectors[i];
            h.msg_iovlen = 1;
            h.msg_control = controls[i].data();
            h.msg_controllen = control_size;
        }
        return ::recvmmsg(fd, messages.data(), batch, MSG_DONTWAIT, nullptr);
    }
    std::span<const std::uint8_t> packet(std::size_t i) const {
        return {memory.data() + i * max_packet, messages[i].msg_len};
    }
};
Receiver& receiver_memory() {
    static thread_local Receiver r;  // 4 MB, once a thread
    return r;
}

}  // namespace

struct SocketNetwork::Family {
    bool v6 = false;
    UniqueFd udp;
    UniqueFd esp;
    struct Datagram {
        IpAddress from;
        sockaddr_storage to{};
        socklen_t to_size = 0;
        std::string payload;
    };
    struct Raw {
        IpAddress to;
        Bytes packet;
    };
    std::deque<Datagram> udp_queue;
    std::deque<Raw> esp_queue;
    bool udp_blocked = false;
    bool esp_blocked = false;
};

SocketNetwork::SocketNetwork(EventLoop& loop, NetworkReceiver& receiver, const Options& options)
    : loop_(loop), receiver_(receiver), options_(options) {}

SocketNetwork::~SocketNetwork() {
    for (auto* f : {v4_.get(), v6_.get()}) {
        if (f == nullptr) continue;
        if (f->udp.valid()) loop_.unwatch(f->udp.get());
        if (f->esp.valid()) loop_.unwatch(f->esp.get());
    }
    if (in_udp_.valid()) loop_.unwatch(in_udp_.get());
}

Result<std::unique_ptr<SocketNetwork>> SocketNetwork::open(EventLoop& loop,
                                                           NetworkReceiver& receiver,
                                                           const Options& options) {
    std::unique_ptr<SocketNetwork> n(new SocketNetwork(loop, receiver, options));
    for (const bool v6 : {false, true}) {
        if (!(v6 ? options.v6 : options.v4)) continue;
        auto f = std::make_unique<Family>();
        f->v6 = v6;
        if (auto r = n->open_family(*f); !r) return std::unexpected(r.error());
        Family* raw = f.get();
        (v6 ? n->v6_ : n->v4_) = std::move(f);
        SocketNetwork* self = n.get();
        loop.watch(raw->udp.get(), EventLoop::readable, [self, raw](unsigned ready) {
            if ((ready & EventLoop::writable) != 0) self->flush_udp(*raw);
            if ((ready & EventLoop::readable) != 0) self->receive_udp(*raw);
        });
        if (!raw->esp.valid()) continue;
        loop.watch(raw->esp.get(), EventLoop::readable, [self, raw](unsigned ready) {
            if ((ready & EventLoop::writable) != 0) self->flush_esp(*raw);
            if ((ready & EventLoop::readable) != 0) self->receive_esp(*raw);
        });
    }
    if (options.nat) {
        if (auto r = n->open_encapsulation(); !r) return std::unexpected(r.error());
    }
    return n;
}

Result<void> SocketNetwork::open_encapsulation() {
    in_udp_ = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!in_udp_.valid())
        return fail(ErrorKind::io, fmt::format("UDP socket: {}", std::strerror(errno)));
    const int fd = in_udp_.get();
    set(fd, IPPROTO_IP, IP_PKTINFO, 1);
    set(fd, IPPROTO_IP, IP_FREEBIND, 1);
    // Too long packets are fragmented, here or on the way.
    set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
    set(fd, SOL_SOCKET, SO_NO_CHECK, 1);  // RFC 3948 2.1: the ICV is the checksum
    big_buffers(fd);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(encapsulation_port);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) {
        return fail(ErrorKind::io,
                    fmt::format("UDP port {}: {}; another gmue --nat or an IKE daemon here?",
                                encapsulation_port, std::strerror(errno)));
    }
    loop_.watch(fd, EventLoop::readable, [this](unsigned) { receive_in_udp(); });
    return {};
}

Result<void> SocketNetwork::open_family(Family& f) {
    const int domain = f.v6 ? AF_INET6 : AF_INET;
    const char* name = f.v6 ? "IPv6" : "IPv4";
    if (options_.own_esp) {
        f.esp = UniqueFd(::socket(domain, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_ESP));
        if (!f.esp.valid()) {
            if (errno == EPERM || errno == EACCES) {
                return fail(ErrorKind::denied,
                            "raw sockets for ESP need CAP_NET_RAW: run as root, or 'setcap "
                            "cap_net_raw,cap_net_admin+ep gmue'");
            }
            if (errno == EAFNOSUPPORT) {
                return fail(ErrorKind::io, fmt::format("this host has no {}: use --ipv6-share {}",
                                                       name, f.v6 ? 0 : 1));
            }
            return fail(ErrorKind::io,
                        fmt::format("raw {} socket for ESP: {}", name, std::strerror(errno)));
        }
        const bool header = f.v6 ? set(f.esp.get(), IPPROTO_IPV6, IPV6_HDRINCL, 1) &&
                                       set(f.esp.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                                 : set(f.esp.get(), IPPROTO_IP, IP_HDRINCL, 1);
        if (!header)
            return fail(ErrorKind::io,
                        fmt::format("raw {} socket: {}", name, std::strerror(errno)));
        big_buffers(f.esp.get());
    }

    f.udp = UniqueFd(::socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!f.udp.valid())
        return fail(ErrorKind::io, fmt::format("{} UDP socket: {}", name, std::strerror(errno)));
    if (f.v6) {
        set(f.udp.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
        set(f.udp.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        set(f.udp.get(), IPPROTO_IPV6, IPV6_FREEBIND, 1);
    } else {
        set(f.udp.get(), IPPROTO_IP, IP_PKTINFO, 1);
        set(f.udp.get(), IPPROTO_IP, IP_FREEBIND, 1);
    }
    big_buffers(f.udp.get());
    sockaddr_storage s{};
    socklen_t n = sizeof(sockaddr_in);
    if (f.v6) {
        auto* a = reinterpret_cast<sockaddr_in6*>(&s);
        a->sin6_family = AF_INET6;
        a->sin6_port = htons(options_.clear_port);
        n = sizeof(sockaddr_in6);
    } else {
        auto* a = reinterpret_cast<sockaddr_in*>(&s);
        a->sin_family = AF_INET;
        a->sin_port = htons(options_.clear_port);
    }
    if (::bind(f.udp.get(), reinterpret_cast<sockaddr*>(&s), n) != 0) {
        return fail(
            ErrorKind::io,
            fmt::format("UDP port {} ({}): {}; another gmue or SIP program here? see --clear-port",
                        options_.clear_port, name, std::strerror(errno)));
    }
    return {};
}

void SocketNetwork::note_error(int error, const char* what) {
    if (send_errors_++ == 0) {
        first_send_error_ = fmt::format("{}: {}", what, std::strerror(error));
        if (error == EMSGSIZE) first_send_error_ += " (the route's MTU is smaller than --mtu)";
    }
}

void SocketNetwork::send_udp(const Endpoint& from, const Endpoint& to, std::string_view payload) {
    Family* f = family(to.address.is_v6());
    if (f == nullptr || f->udp_queue.size() >= max_queue) return note_error(ENOBUFS, "UDP");
    auto& d = f->udp_queue.emplace_back();
    d.from = from.address;
    d.to_size = to.to_sockaddr(d.to);
    d.payload = payload;
}

void SocketNetwork::send_esp(const IpAddress& from, const IpAddress& to,
                             std::span<const std::uint8_t> esp) {
    Family* f = family(to.is_v6());
    if (f == nullptr || !f->esp.valid() || f->esp_queue.size() >= max_queue)
        return note_error(ENOBUFS, "ESP");
    pieces_.clear();
    build_ip(from, to, protocol_esp, esp, options_.mtu, ++identification_, pieces_);
    for (Bytes& p : pieces_) f->esp_queue.push_back({to, std::move(p)});
}

// At once, and lost when the socket's buffer is full: phones behind a NAT come in small numbers.
void SocketNetwork::send_in_udp(const IpAddress& from, const IpAddress& to,
                                std::span<const std::uint8_t> payload) {
    if (!in_udp_.valid() || from.is_v6() || to.is_v6()) return note_error(EAFNOSUPPORT, "UDP");
    sockaddr_storage name{};
    iovec vector{const_cast<std::uint8_t*>(payload.data()), payload.size()};
    alignas(cmsghdr) std::array<char, control_size> control{};
    msghdr h{};
    h.msg_name = &name;
    h.msg_namelen = Endpoint{to, encapsulation_port}.to_sockaddr(name);
    h.msg_iov = &vector;
    h.msg_iovlen = 1;
    h.msg_control = control.data();
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, from.octets().data(), 4);
    auto* c = reinterpret_cast<cmsghdr*>(control.data());
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(c), &info, sizeof info);
    h.msg_controllen = CMSG_SPACE(sizeof info);
    if (::sendmsg(in_udp_.get(), &h, 0) < 0) note_error(errno, "UDP port 4500");
}

void SocketNetwork::receive_in_udp() {
    Receiver& r = receiver_memory();
    const int n = r.read(in_udp_.get());
    for (int k = 0; k < n; ++k) {
        const auto i = static_cast<std::size_t>(k);
        const auto to = destination(r.messages[i].msg_hdr);
        const Endpoint from = Endpoint::from_sockaddr(r.names[i]);
        if (to && from.port == encapsulation_port)
            receiver_.on_in_udp(from.address, *to, r.packet(i));
    }
}

void SocketNetwork::flush() {
    for (auto* f : {v4_.get(), v6_.get()}) {
        if (f == nullptr) continue;
        if (!f->udp_blocked) flush_udp(*f);
        if (!f->esp_blocked) flush_esp(*f);
    }
}

void SocketNetwork::flush_udp(Family& f) {
    std::array<mmsghdr, batch> messages{};
    std::array<iovec, batch> vectors{};
    std::array<std::array<char, control_size>, batch> controls{};
    while (!f.udp_queue.empty()) {
        const auto n = static_cast<unsigned>(std::min<std::size_t>(batch, f.udp_queue.size()));
        for (unsigned i = 0; i < n; ++i) {
            auto& d = f.udp_queue[i];
            vectors[i] = {d.payload.data(), d.payload.size()};
            msghdr& h = messages[i].msg_hdr;
            h = {};
            h.msg_name = &d.to;
            h.msg_namelen = d.to_size;
            h.msg_iov = &vectors[i];
            h.msg_iovlen = 1;
            controls[i].fill(0);
            h.msg_control = controls[i].data();
            auto* c = reinterpret_cast<cmsghdr*>(controls[i].data());
            if (f.v6) {
                in6_pktinfo info{};
                std::memcpy(&info.ipi6_addr, d.from.octets().data(), 16);
                c->cmsg_level = IPPROTO_IPV6;
                c->cmsg_type = IPV6_PKTINFO;
                c->cmsg_len = CMSG_LEN(sizeof info);
                std::memcpy(CMSG_DATA(c), &info, sizeof info);
                h.msg_controllen = CMSG_SPACE(sizeof info);
            } else {
                in_pktinfo info{};
                std::memcpy(&info.ipi_spec_dst, d.from.octets().data(), 4);
                c->cmsg_level = IPPROTO_IP;
                c->cmsg_type = IP_PKTINFO;
                c->cmsg_len = CMSG_LEN(sizeof info);
                std::memcpy(CMSG_DATA(c), &info, sizeof info);
                h.msg_controllen = CMSG_SPACE(sizeof info);
            }
        }
        int sent = ::sendmmsg(f.udp.get(), messages.data(), n, 0);
        if (sent < 0) {
            if (errno == EAGAIN) {
                f.udp_blocked = true;
                loop_.change(f.udp.get(), EventLoop::readable | EventLoop::writable);
                return;
            }
            note_error(errno, "UDP");
            sent = 1;  // the first one is lost
        }
        f.udp_queue.erase(f.udp_queue.begin(), f.udp_queue.begin() + sent);
    }
    if (f.udp_blocked) {
        f.udp_blocked = false;
        loop_.change(f.udp.get(), EventLoop::readable);
    }
}

void SocketNetwork::flush_esp(Family& f) {
    std::array<mmsghdr, batch> messages{};
    std::array<iovec, batch> vectors{};
    std::array<sockaddr_storage, batch> names{};
    while (!f.esp_queue.empty()) {
        const auto n = static_cast<unsigned>(std::min<std::size_t>(batch, f.esp_queue.size()));
        for (unsigned i = 0; i < n; ++i) {
            auto& r = f.esp_queue[i];
            vectors[i] = {r.packet.data(), r.packet.size()};
            msghdr& h = messages[i].msg_hdr;
            h = {};
            h.msg_name = &names[i];
            h.msg_namelen = Endpoint{r.to, 0}.to_sockaddr(names[i]);
            h.msg_iov = &vectors[i];
            h.msg_iovlen = 1;
        }
        int sent = ::sendmmsg(f.esp.get(), messages.data(), n, 0);
        if (sent < 0) {
            if (errno == EAGAIN) {
                f.esp_blocked = true;
                loop_.change(f.esp.get(), EventLoop::readable | EventLoop::writable);
                return;
            }
            note_error(errno, "ESP");
            sent = 1;
        }
        f.esp_queue.erase(f.esp_queue.begin(), f.esp_queue.begin() + sent);
    }
    if (f.esp_blocked) {
        f.esp_blocked = false;
        loop_.change(f.esp.get(), EventLoop::readable);
    }
}

void SocketNetwork::receive_udp(Family& f) {
    Receiver& r = receiver_memory();
    const int n = r.read(f.udp.get());
    for (int k = 0; k < n; ++k) {
        const auto i = static_cast<std::size_t>(k);
        const auto to = destination(r.messages[i].msg_hdr);
        if (to) receiver_.on_udp(Endpoint::from_sockaddr(r.names[i]), *to, as_text(r.packet(i)));
    }
}

void SocketNetwork::receive_esp(Family& f) {
    Receiver& r = receiver_memory();
    const int n = r.read(f.esp.get());
    for (int k = 0; k < n; ++k) {
        const auto i = static_cast<std::size_t>(k);
        if (f.v6) {
            const auto to = destination(r.messages[i].msg_hdr);
            if (to) receiver_.on_esp(Endpoint::from_sockaddr(r.names[i]).address, *to, r.packet(i));
        } else if (const auto ip = read_ipv4(r.packet(i))) {
            receiver_.on_esp(ip->from, ip->to, ip->payload);
        }
    }
}

std::unique_ptr<ClearStream> SocketNetwork::connect_tcp(const IpAddress& from, const Endpoint& to,
                                                        ClearStreamHandler& handler) {
    auto s = std::make_unique<SocketStream>(loop_, &handler);
    s->connect({from, 0}, to);
    return s;
}

std::size_t route_mtu(const IpAddress& to) {
    const UniqueFd fd(::socket(to.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage s{};
    const socklen_t n = Endpoint{to, 5060}.to_sockaddr(s);
    if (!fd.valid() || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&s), n) != 0) return 0;
    int mtu = 0;
    socklen_t size = sizeof mtu;
    const int level = to.is_v6() ? static_cast<int>(IPPROTO_IPV6) : static_cast<int>(IPPROTO_IP);
    if (::getsockopt(fd.get(), level, to.is_v6() ? IPV6_MTU : IP_MTU, &mtu, &size) != 0 ||
        mtu < 576)
        return 0;
    return static_cast<std::size_t>(mtu);
}

bool is_local(const IpAddress& address) {
    // Asked of the routing table: bind() would refuse the IPv6 addresses of a "local" route that
    // stand on no interface.
    const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd.valid()) return false;
    struct Request {
        nlmsghdr header;
        rtmsg route;
        rtattr attribute;
        std::array<std::uint8_t, 16> address;
    } request{};
    const auto octets = address.octets();
    request.header.nlmsg_type = RTM_GETROUTE;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.route.rtm_family = static_cast<unsigned char>(address.is_v6() ? AF_INET6 : AF_INET);
    request.route.rtm_dst_len = static_cast<unsigned char>(octets.size() * 8);
    request.attribute.rta_type = RTA_DST;
    request.attribute.rta_len = static_cast<unsigned short>(RTA_LENGTH(octets.size()));
    std::copy(octets.begin(), octets.end(), request.address.begin());
    request.header.nlmsg_len =
        static_cast<std::uint32_t>(NLMSG_LENGTH(sizeof(rtmsg)) + request.attribute.rta_len);
    if (::send(fd.get(), &request, request.header.nlmsg_len, 0) < 0) return false;
    alignas(nlmsghdr) std::array<std::uint8_t, 2048> answer{};
    const ssize_t n = ::recv(fd.get(), answer.data(), answer.size(), 0);
    if (n < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(rtmsg)))) return false;
    nlmsghdr header{};
    std::memcpy(&header, answer.data(), sizeof header);
    if (header.nlmsg_type != RTM_NEWROUTE) return false;
    rtmsg route{};
    std::memcpy(&route, answer.data() + NLMSG_HDRLEN, sizeof route);
    return route.rtm_type == RTN_LOCAL;
}

}  // namespace gmgate::ue
