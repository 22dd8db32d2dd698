#include "dataplane/dpdk/port.h"

#include <linux/if_packet.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/log.h"
#include "dataplane/dpdk/eal.h"

namespace gmgate::dataplane {
namespace {

constexpr unsigned cache = 64;  // buffers a worker keeps at hand

// af_packet's rings, two of them per queue. A frame is 8 KiB because the driver always asks the
// kernel to reassemble IPv4 fragments (its fan-out has the "defrag" flag), and cuts off what does
// not fit. Their number is what the wire may bring while the worker does not run: 10 ms at 200,000
// packets a second.
constexpr unsigned ring_frame = 8192;
constexpr unsigned ring_block = 8 * ring_frame;
constexpr unsigned ring_frames = 2048;         // 32 MiB a queue
constexpr unsigned ring_frames_of_many = 512;  // with more than two queues
// When its send ring is full, the driver waits in poll(2) without a limit until the socket can be
// written. A NIC that has stopped sending would hold the worker there for ever. The kernel calls a
// socket writable while less than half its send buffer is under way, whatever the ring: with room
// for more than the ring holds (a frame counts what it carries and a kilobyte of the kernel's),
// poll returns at once, the driver sees the full ring, and what did not fit is dropped and counted.
constexpr int send_buffer = 2 * static_cast<int>(ring_frames * (ring_frame + 2048));

std::set<int> open_descriptors() {
    std::set<int> all;
    std::error_code error;
    for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
         it.increment(error)) {
        const std::string name = it->path().filename().string();
        int fd = -1;
        std::from_chars(name.data(), name.data() + name.size(), fd);
        if (fd >= 0) all.insert(fd);
    }
    return all;
}

// The driver does not tell its sockets; they are the packet sockets that appeared while it started,
// in the order of its queues.
std::vector<int> new_packet_sockets(const std::set<int>& before, int interface_index) {
    std::vector<int> found;
    for (const int fd : open_descriptors()) {
        if (before.contains(fd)) continue;
        sockaddr_ll address{};
        socklen_t size = sizeof(address);
        if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
        if (address.sll_family == AF_PACKET && address.sll_ifindex == interface_index)
            found.push_back(fd);
    }
    return found;
}

// The force asks for CAP_NET_ADMIN of the machine: in a user namespace nobody has that. The other
// way goes up to net.core.wmem_max. False: it is not large enough.
bool enlarge_send_buffer(int fd) {
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof(send_buffer)) == 0)
        return true;
    int granted = 0;
    socklen_t size = sizeof(granted);
    return ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer)) == 0 &&
           ::getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &granted, &size) == 0 &&
           granted / 2 >= send_buffer;  // the kernel keeps and tells twice of what was asked for
}

std::string reason(int code) {
    const std::string said = last_dpdk_error();
    return said.empty() ? std::string(rte_strerror(code < 0 ? -code : code)) : said;
}

}  // namespace

Result<std::unique_ptr<BufferPools>> BufferPools::create(const std::string& name, unsigned workers,
                                                         unsigned memory_mb) {
    // A buffer each for what rings, tables and caches can hold at most, within half the memory.
    const std::size_t half = std::size_t{memory_mb} * 1024 * 1024 / 2;
    // A worker's three tables of incomplete datagrams hold 768.
    const std::size_t wanted_large = 1024 + std::size_t{workers} * 1792;
    const std::size_t wanted_small = 4096 + std::size_t{workers} * 4096;
    const auto large =
        static_cast<unsigned>(std::min(wanted_large, half * 3 / 4 / (large_room + 512)));
    const auto small = static_cast<unsigned>(std::min(wanted_small, half / 4 / (small_room + 512)));
    std::unique_ptr<BufferPools> pools(new BufferPools());
    pools->small_ = rte_pktmbuf_pool_create((name + "_small").c_str(), small, cache, 0,
                                            small_room + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    if (pools->small_ != nullptr) {
        pools->large_ = rte_pktmbuf_pool_create((name + "_large").c_str(), large, cache, 0,
                                                large_room + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    }
    if (pools->large_ == nullptr) {
        return fail(ErrorKind::exhausted,
                    "no memory for packet buffers: " + std::string(rte_strerror(rte_errno)) +
                        "; raise dpdk.memory_mb (now " + std::to_string(memory_mb) + ")");
    }
    return pools;
}

BufferPools::~BufferPools() {
    rte_mempool_free(large_);
    rte_mempool_free(small_);
}

Result<std::unique_ptr<EthPort>> EthPort::open_af_packet(const std::string& interface,
                                                         int interface_index, unsigned workers,
                                                         rte_mempool* pool) {
    std::unique_ptr<EthPort> port(new EthPort());
    port->device_ = "net_af_packet_" + interface;
    const std::string arguments =
        "iface=" + interface + ",qpairs=" + std::to_string(workers) +
        ",blocksz=" + std::to_string(ring_block) + ",framesz=" + std::to_string(ring_frame) +
        ",framecnt=" + std::to_string(workers > 2 ? ring_frames_of_many : ring_frames) +
        ",qdisc_bypass=1";
    const std::set<int> before = open_descriptors();
    const int done = rte_vdev_init(port->device_.c_str(), arguments.c_str());
    if (done != 0) {
        return fail(ErrorKind::io,
                    "cannot open a packet socket on " + interface + ": " + reason(done) +
                        "; run as root, or give the program CAP_NET_RAW and CAP_IPC_LOCK");
    }
    port->hot_plugged_ = true;
    if (const int named = rte_eth_dev_get_port_by_name(port->device_.c_str(), &port->id_);
        named != 0) {
        return fail(ErrorKind::io,
                    "DPDK does not know the port of " + interface + ": " + reason(named));
    }
    port->sockets_ = new_packet_sockets(before, interface_index);
    bool enough = true;
    for (const int fd : port->sockets_) enough = enlarge_send_buffer(fd) && enough;
    if (!enough) {
        log::warn("dataplane",
                  "the send buffer of the packet socket on {} is smaller than its ring: a NIC that "
                  "stops sending can hold up a worker; give the program CAP_NET_ADMIN outside of "
                  "user namespaces, or set net.core.wmem_max to {} before the start",
                  interface, send_buffer);
    }
    if (port->sockets_.size() != workers) port->sockets_.clear();
    if (auto started = port->start(workers, pool); !started)
        return std::unexpected(started.error());
    return port;
}

Result<std::unique_ptr<EthPort>> EthPort::open_device(const std::string& device, unsigned workers,
                                                      rte_mempool* pool) {
    std::unique_ptr<EthPort> port(new EthPort());
    port->device_ = device.substr(0, device.find(','));
    if (device.starts_with("net_")) {
        const std::size_t comma = device.find(',');
        const std::string arguments =
            comma == std::string::npos ? std::string() : device.substr(comma + 1);
        if (const int done = rte_vdev_init(port->device_.c_str(), arguments.c_str()); done != 0) {
            return fail(ErrorKind::io, "cannot open DPDK device " + device + ": " + reason(done));
        }
        port->hot_plugged_ = true;
    }
    if (rte_eth_dev_get_port_by_name(port->device_.c_str(), &port->id_) != 0) {
        return fail(ErrorKind::not_found,
                    "DPDK has no port " + port->device_ +
                        "; is the device bound to vfio-pci, and its driver installed?");
    }
    if (auto started = port->start(workers, pool); !started)
        return std::unexpected(started.error());
    return port;
}

Result<void> EthPort::start(unsigned workers, rte_mempool* pool) {
    rte_eth_dev_info info{};
    if (const int done = rte_eth_dev_info_get(id_, &info); done != 0) {
        return fail(ErrorKind::io, device_ + ": " + reason(done));
    }
    workers_ = workers;
    receive_queues_ = std::min<unsigned>(workers, info.max_rx_queues);
    send_queues_ = std::min<unsigned>(workers, info.max_tx_queues);
    rte_eth_conf conf{};
    if (receive_queues_ > 1 && (info.flow_type_rss_offloads & RTE_ETH_RSS_IP) != 0) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf =
            info.flow_type_rss_offloads & (RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_IPV6);
    }
    conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    const auto rx = static_cast<std::uint16_t>(receive_queues_);
    const auto tx = static_cast<std::uint16_t>(send_queues_);
    std::uint16_t rx_descriptors = 512;
    std::uint16_t tx_descriptors = 512;
    int done = rte_eth_dev_configure(id_, rx, tx, &conf);
    if (done == 0) done = rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx_descriptors, &tx_descriptors);
    const int node = rte_eth_dev_socket_id(id_);
    for (std::uint16_t q = 0; q < rx && done == 0; ++q) {
        done = rte_eth_rx_queue_setup(id_, q, rx_descriptors, static_cast<unsigned>(node), nullptr,
                                      pool);
    }
    for (std::uint16_t q = 0; q < tx && done == 0; ++q) {
        done = rte_eth_tx_queue_setup(id_, q, tx_descriptors, static_cast<unsigned>(node), nullptr);
    }
    if (done == 0) done = rte_eth_dev_start(id_);
    if (done != 0)
        return fail(ErrorKind::io, "cannot start DPDK port " + device_ + ": " + reason(done));
    started_ = true;
    // Neighbour discovery comes by multicast; af_packet has no such switch, its interface is set by
    // TakenInterface.
    (void)rte_eth_allmulticast_enable(id_);
    if (send_queues_ < workers_) {
        for (unsigned q = 0; q < send_queues_; ++q)
            send_locks_.push_back(std::make_unique<std::atomic_flag>());
    }
    return {};
}

EthPort::~EthPort() {
    if (started_) (void)rte_eth_dev_stop(id_);
    if (hot_plugged_) {
        (void)rte_vdev_uninit(device_.c_str());
    } else if (started_) {
        (void)rte_eth_dev_close(id_);
    }
}

std::uint16_t EthPort::receive(unsigned queue, rte_mbuf** out, std::uint16_t max) {
    if (queue >= receive_queues_) return 0;
    return rte_eth_rx_burst(id_, static_cast<std::uint16_t>(queue), out, max);
}

std::uint16_t EthPort::send(unsigned queue, rte_mbuf** frames, std::uint16_t count) {
    const unsigned q = queue % send_queues_;
    if (!send_locks_.empty()) {
        while (send_locks_[q]->test_and_set(std::memory_order_acquire)) rte_pause();
    }
    std::uint16_t sent = 0;
    // A second try: the driver has just made room.
    for (unsigned attempt = 0; attempt < 2 && sent < count; ++attempt) {
        sent = static_cast<std::uint16_t>(
            sent + rte_eth_tx_burst(id_, static_cast<std::uint16_t>(q), frames + sent,
                                    static_cast<std::uint16_t>(count - sent)));
    }
    if (!send_locks_.empty()) send_locks_[q]->clear(std::memory_order_release);
    for (std::uint16_t i = sent; i < count; ++i) rte_pktmbuf_free(frames[i]);
    return sent;
}

int EthPort::wait_fd(unsigned queue) const {
    return queue < sockets_.size() ? sockets_[queue] : -1;
}

bool EthPort::revive(unsigned queue) {
    if (queue >= sockets_.size()) return false;
    // ENETDOWN while the link is down: reading the error clears it, else poll(2) would return at
    // once for ever.
    int error = 0;
    socklen_t size = sizeof(error);
    return ::getsockopt(sockets_[queue], SOL_SOCKET, SO_ERROR, &error, &size) == 0;
}

EthPort::Errors EthPort::errors() const {
    rte_eth_stats stats{};
    if (rte_eth_stats_get(id_, &stats) != 0) return {};
    // What found the ring full, the kernel tells and the driver does not; reading it sets it back
    // to zero.
    for (const int fd : sockets_) {
        tpacket_stats lost{};
        socklen_t size = sizeof(lost);
        if (::getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size) == 0)
            ring_full_.fetch_add(lost.tp_drops);
    }
    return {stats.ierrors + stats.imissed + stats.rx_nombuf + ring_full_.load(), stats.oerrors};
}

bool EthPort::link_up() const {
    rte_eth_link link{};
    return rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

MacAddress EthPort::mac() const {
    rte_ether_addr address{};
    MacAddress mac{};
    if (rte_eth_macaddr_get(id_, &address) == 0)
        std::memcpy(mac.data(), address.addr_bytes, mac.size());
    return mac;
}

}  // namespace gmgate::dataplane
