#include "dataplane/dpdk/host_port.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gmgate::dataplane {
namespace {

constexpr int max_segments = 16;

}  // namespace

Result<std::unique_ptr<HostPort>> HostPort::open(const Options& options, rte_mempool* pool) {
    if (options.name.empty() || options.name.size() >= IFNAMSIZ) {
        return fail(ErrorKind::invalid, "TAP name '" + options.name + "' must have 1 to 15 octets");
    }
    std::unique_ptr<HostPort> port(new HostPort());
    port->name_ = options.name;
    port->pool_ = pool;
    for (unsigned q = 0; q < options.queues; ++q) {
        UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
        if (!fd.valid()) {
            return fail(
                errno == EACCES || errno == EPERM ? ErrorKind::denied : ErrorKind::not_found,
                std::string("cannot open /dev/net/tun: ") + std::strerror(errno) +
                    "; the kernel needs its TUN/TAP driver ('modprobe tun'), and a container the "
                    "device");
        }
        ifreq r{};
        std::strncpy(r.ifr_name, options.name.c_str(), IFNAMSIZ - 1);
        // The first queue must make the interface: an existing one belongs to someone else.
        const int exclusive = q == 0 ? IFF_TUN_EXCL : 0;
        const int many = options.queues > 1 ? IFF_MULTI_QUEUE : 0;
        r.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | many | exclusive);
        if (::ioctl(fd.get(), TUNSETIFF, &r) != 0) {
            const int error = errno;
            if (error == EBUSY || error == EEXIST || error == EINVAL) {
                if (interface_info(options.name)) {
                    return fail(
                        ErrorKind::conflict,
                        "interface " + options.name +
                            " exists already: another copy of gmgated runs, or delete it with "
                            "'ip link del " +
                            options.name + "', or choose another gm.tap");
                }
            }
            if (error == EPERM) {
                return fail(
                    ErrorKind::denied,
                    "cannot make TAP " + options.name +
                        ": permission denied; run as root, or give the program CAP_NET_ADMIN");
            }
            return fail(ErrorKind::io,
                        "cannot make TAP " + options.name + ": " + std::strerror(error));
        }
        // No offload: whole checksums, no segments beyond the MTU.
        (void)::ioctl(fd.get(), TUNSETOFFLOAD, 0U);
        port->queues_.push_back(std::move(fd));
    }
    if (auto done = set_mac(options.name, options.mac); !done) return std::unexpected(done.error());
    if (auto done = set_mtu(options.name, options.mtu); !done) return std::unexpected(done.error());
    bool v6 = false;
    for (const Address& a : options.addresses) v6 = v6 || a.address.is_v6();
    // No router solicitations into the phones' network, and no addresses by what a phone
    // advertises.
    (void)write_sysctl("ipv6", options.name, "accept_ra", "0");
    (void)write_sysctl("ipv6", options.name, "disable_ipv6", v6 ? "0" : "1");
    // No redirects: a phone must not tell the host where to send its packets. Without forwarding
    // IPv4 obeys them if either the interface or "all" allows it, so "all" goes too; other
    // interfaces keep what their own value says.
    (void)write_sysctl("ipv6", options.name, "accept_redirects", "0");
    (void)write_sysctl("ipv4", options.name, "accept_redirects", "0");
    if (const auto all = read_sysctl("ipv4", "all", "accept_redirects"); all && *all != "0")
        port->redirects_before_ = write_sysctl("ipv4", "all", "accept_redirects", "0") ? *all : "";
    if (auto done = change_flags(options.name, IFF_UP, 0); !done)
        return std::unexpected(done.error());
    for (const Address& a : options.addresses) {
        if (auto done = add_address(options.name, a.address, a.prefix); !done)
            return std::unexpected(done.error());
    }
    for (const Route& r : options.routes) {
        if (auto done = add_route(options.name, r.to, r.prefix, r.via); !done)
            return std::unexpected(done.error());
    }
    return port;
}

HostPort::~HostPort() {
    if (!redirects_before_.empty())
        (void)write_sysctl("ipv4", "all", "accept_redirects", redirects_before_);
}

std::uint16_t HostPort::receive(unsigned queue, rte_mbuf** out, std::uint16_t max) {
    const int fd = queues_[queue].get();
    std::uint16_t count = 0;
    while (count < max) {
        rte_mbuf* m = rte_pktmbuf_alloc(pool_);
        if (m == nullptr) break;
        const ssize_t n = ::read(fd, rte_pktmbuf_mtod(m, void*), rte_pktmbuf_tailroom(m));
        if (n <= 0) {
            rte_pktmbuf_free(m);
            break;
        }
        m->data_len = static_cast<std::uint16_t>(n);
        m->pkt_len = static_cast<std::uint32_t>(n);
        out[count++] = m;
    }
    return count;
}

std::uint16_t HostPort::send(unsigned queue, rte_mbuf** frames, std::uint16_t count) {
    const int fd = queues_[queue].get();
    std::uint16_t sent = 0;
    for (std::uint16_t i = 0; i < count; ++i) {
        rte_mbuf* m = frames[i];
        ssize_t n = -1;
        if (m->nb_segs == 1) {
            n = ::write(fd, rte_pktmbuf_mtod(m, const void*), m->data_len);
        } else if (m->nb_segs <= max_segments) {
            std::array<iovec, max_segments> parts{};
            int used = 0;
            for (rte_mbuf* s = m; s != nullptr; s = s->next) {
                parts[static_cast<std::size_t>(used++)] = {rte_pktmbuf_mtod(s, void*), s->data_len};
            }
            n = ::writev(fd, parts.data(), used);
        }
        if (n > 0) ++sent;
        rte_pktmbuf_free(m);
    }
    return sent;
}

int HostPort::wait_fd(unsigned queue) const {
    return queues_[queue].get();
}

bool HostPort::revive(unsigned /*queue*/) {
    // An error on a TAP descriptor means that the interface was deleted; a link that is only down
    // reports none.
    return false;
}

}  // namespace gmgate::dataplane
