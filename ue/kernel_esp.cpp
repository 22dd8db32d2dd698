#include "ue/kernel_esp.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "ue/socket_stream.h"

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

namespace gmgate::ue {

namespace {

constexpr std::uint32_t reqid_base = 0x55450000;  // "UE": not the gateway's range
constexpr std::uint32_t slices = 16;
constexpr std::uint32_t reqids_per_slice = 0x1000;
constexpr std::size_t max_datagram = 65536;
constexpr int backlog = 8;

bool turn_on(int fd, int level, int option) {
    const int one = 1;
    return ::setsockopt(fd, level, option, &one, sizeof one) == 0;
}

// Valid: the slice is ours as long as this lives.
UniqueFd hold_slice(std::uint32_t slice) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const std::string text = fmt::format("gmgate/gmue-esp-kernel/{}", slice);
    std::ranges::copy(text, name.sun_path + 1);  // abstract: it begins with a zero octet
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
    if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0)
        return UniqueFd{};
    return fd;
}

Result<UniqueFd> bound_socket(int type, const Endpoint& at) {
    const bool v6 = at.address.is_v6();
    UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage s{};
    const socklen_t n = at.to_sockaddr(s);
    if (fd.valid()) {
        turn_on(fd.get(), SOL_SOCKET, SO_REUSEADDR);
        turn_on(fd.get(), v6 ? static_cast<int>(IPPROTO_IPV6) : static_cast<int>(IPPROTO_IP),
                v6 ? IPV6_FREEBIND : IP_FREEBIND);
        if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&s), n) == 0) return fd;
    }
    return fail(ErrorKind::io, fmt::format("{} {}: {}", type == SOCK_STREAM ? "TCP" : "UDP",
                                           at.to_string(), std::strerror(errno)));
}

}  // namespace

class KernelEsp::Set final : public HostSet {
  public:
    Set(KernelEsp& owner, const XfrmSet& xfrm, HostSetHandler& handler)
        : owner_(owner), xfrm_(xfrm), handler_(handler) {}
    ~Set() override {
        for (const auto& fd : udp_) {
            if (fd.valid()) owner_.loop_.unwatch(fd.get());
        }
        if (listening_) owner_.unlisten(at(false), peer(false), *this);
        owner_.xfrm_.remove(xfrm_);
    }
    Set(const Set&) = delete;
    Set& operator=(const Set&) = delete;

    Result<void> open() {
        for (const bool client : {true, false}) {
            auto fd = bound_socket(SOCK_DGRAM, at(client));
            if (!fd) return std::unexpected(fd.error());
            sockaddr_storage s{};
            const socklen_t n = peer(client).to_sockaddr(s);
            if (::connect(fd->get(), reinterpret_cast<sockaddr*>(&s), n) != 0)
                return fail(ErrorKind::io, fmt::format("UDP to {}: {}", peer(client).to_string(),
                                                       std::strerror(errno)));
            UniqueFd& mine = udp_[client ? 0 : 1];
            mine = std::move(*fd);
            owner_.loop_.watch(mine.get(), EventLoop::readable,
                               [this, client](unsigned) { receive(client); });
        }
        if (auto r = owner_.listen(at(false), peer(false), *this); !r) return r;
        listening_ = true;
        return {};
    }

    void send(bool from_client_port, std::string_view payload) override {
        // What the kernel does not take is lost, as on a real radio link; SIP sends it again.
        (void)::send(udp_[from_client_port ? 0 : 1].get(), payload.data(), payload.size(), 0);
    }

    std::unique_ptr<HostStream> connect(ClearStreamHandler& handler) override {
        auto s = std::make_unique<SocketStream>(owner_.loop_, &handler);
        s->vanish_at_end();
        s->connect(at(true), peer(true));
        return s;
    }

    void accepted(UniqueFd fd) {
        auto s = std::make_unique<SocketStream>(owner_.loop_, nullptr);
        s->vanish_at_end();
        s->adopt(std::move(fd), at(false), peer(false));
        handler_.host_accepted(std::move(s));
    }

  private:
    // xfrm_.sas: port_uc → port_ps, port_us → port_pc, and the ways back.
    [[nodiscard]] const Endpoint& at(bool client) const { return xfrm_.sas[client ? 0 : 1].from; }
    [[nodiscard]] const Endpoint& peer(bool client) const { return xfrm_.sas[client ? 0 : 1].to; }

    void receive(bool client) {
        static thread_local std::array<char, max_datagram> buffer;
        const ssize_t n =
            ::recv(udp_[client ? 0 : 1].get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        // An error here is an old ICMP answer: said by being read.
        if (n >= 0)
            handler_.host_datagram(client, peer(client),
                                   {buffer.data(), static_cast<std::size_t>(n)});
    }

    KernelEsp& owner_;
    XfrmSet xfrm_;
    HostSetHandler& handler_;
    std::array<UniqueFd, 2> udp_;  // port_uc, port_us
    bool listening_ = false;
};

KernelEsp::KernelEsp(EventLoop& loop, Xfrm xfrm, Slice slice)
    : loop_(loop), xfrm_(std::move(xfrm)), slice_(std::move(slice)) {}

Result<std::unique_ptr<KernelEsp>> KernelEsp::open(EventLoop& loop) {
    auto x = Xfrm::open();
    if (!x) return std::unexpected(x.error());
    std::size_t removed = 0;
    auto slice = sweep(*x, removed);
    if (!slice) return std::unexpected(slice.error());
    if (!*slice)
        return fail(
            ErrorKind::exhausted,
            fmt::format("{} gmues with kernel ESP run in this network namespace already", slices));
    return std::unique_ptr<KernelEsp>(new KernelEsp(loop, std::move(*x), std::move(**slice)));
}

Result<std::size_t> KernelEsp::remove_leavings() {
    auto x = Xfrm::open();
    if (!x) return std::unexpected(x.error());
    std::size_t removed = 0;
    if (auto slice = sweep(*x, removed); !slice) return std::unexpected(slice.error());
    return removed;
}

Result<std::optional<KernelEsp::Slice>> KernelEsp::sweep(Xfrm& xfrm, std::size_t& removed) {
    std::optional<Slice> mine;
    for (std::uint32_t i = 0; i < slices; ++i) {
        auto held = hold_slice(i);
        if (!held.valid()) continue;  // a running gmue's
        const std::uint32_t first = reqid_base + i * reqids_per_slice;
        auto swept = xfrm.remove_all(first, reqids_per_slice);
        if (!swept) return std::unexpected(swept.error());
        removed += *swept;
        if (!mine) mine = Slice{first, std::move(held)};
    }
    return mine;
}

std::uint32_t KernelEsp::next_reqid() {
    return slice_.first_reqid + reqids_used_++ % reqids_per_slice;
}

Result<void> KernelEsp::probe(const IpAddress& ue, const IpAddress& pcscf,
                              std::span<const sa::Suite> suites) {
    const sa::AkaKey ck;
    const sa::AkaKey ik(std::array<std::uint8_t, 16>{1});
    for (const sa::Suite suite : suites) {
        XfrmSet set;
        set.suite = suite;
        set.reqid = next_reqid();
        // Ports no phone uses (choose_numbers(): 10000 and up) and SPIs of this probe only.
        for (std::uint16_t i = 0; i < 4; ++i) {
            const bool out = i < 2;
            const Endpoint a{ue, static_cast<std::uint16_t>(1 + i % 2)};
            const Endpoint b{pcscf, static_cast<std::uint16_t>(1 + i % 2)};
            set.sas[i] = {out ? a : b, out ? b : a, 0xFFFC0000U + (set.reqid & 0xFFFFU) * 4 + i,
                          out};
        }
        auto keys = sa::expand_keys(suite, ck, ik);
        // All-zero keys would be refused as weak.
        std::uint8_t octet = 1;
        for (auto& b : keys.encryption_storage.writable())
            b = octet = static_cast<std::uint8_t>(octet * 7 + 3);
        if (auto r = xfrm_.install(set, keys); !r) return r;
        xfrm_.remove(set);
    }
    return {};
}

Result<std::unique_ptr<HostSet>> KernelEsp::install(const IpAddress& ue, const IpAddress& pcscf,
                                                    const SaNumbers& n, sa::Suite suite,
                                                    const sa::EspKeys& keys,
                                                    HostSetHandler& handler) {
    XfrmSet x;
    x.suite = suite;
    x.reqid = next_reqid();
    x.sas = {{{{ue, n.port_uc}, {pcscf, n.port_ps}, n.spi_ps, true},
              {{ue, n.port_us}, {pcscf, n.port_pc}, n.spi_pc, true},
              {{pcscf, n.port_ps}, {ue, n.port_uc}, n.spi_uc, false},
              {{pcscf, n.port_pc}, {ue, n.port_us}, n.spi_us, false}}};
    if (auto r = xfrm_.install(x, keys); !r) return std::unexpected(r.error());
    auto set = std::make_unique<Set>(*this, x, handler);
    if (auto r = set->open(); !r) return std::unexpected(r.error());
    return set;
}

Result<void> KernelEsp::listen(const Endpoint& at, const Endpoint& peer, Set& set) {
    auto it = listeners_.find(at);
    if (it == listeners_.end()) {
        auto fd = bound_socket(SOCK_STREAM, at);
        if (!fd) return std::unexpected(fd.error());
        if (::listen(fd->get(), backlog) != 0)
            return fail(ErrorKind::io,
                        fmt::format("TCP {}: {}", at.to_string(), std::strerror(errno)));
        it = listeners_.emplace(at, Listener{std::move(*fd), {}}).first;
        loop_.watch(it->second.fd.get(), EventLoop::readable, [this, at](unsigned) { accept(at); });
    }
    it->second.sets[peer] = &set;
    return {};
}

void KernelEsp::unlisten(const Endpoint& at, const Endpoint& peer, const Set& set) {
    const auto it = listeners_.find(at);
    if (it == listeners_.end()) return;
    const auto mine = it->second.sets.find(peer);
    if (mine != it->second.sets.end() && mine->second == &set) it->second.sets.erase(mine);
    if (!it->second.sets.empty()) return;
    loop_.unwatch(it->second.fd.get());
    listeners_.erase(it);
}

void KernelEsp::accept(const Endpoint& at) {
    const auto it = listeners_.find(at);
    if (it == listeners_.end()) return;
    sockaddr_storage s{};
    socklen_t n = sizeof s;
    UniqueFd fd(::accept4(it->second.fd.get(), reinterpret_cast<sockaddr*>(&s), &n,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    const auto set = it->second.sets.find(Endpoint::from_sockaddr(s));
    if (set != it->second.sets.end()) set->second->accepted(std::move(fd));
}

}  // namespace gmgate::ue
