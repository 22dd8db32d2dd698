#include "dataplane/dpdk/interface.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "base/log.h"
#include "dataplane/dpdk/taken_record.h"

namespace gmgate::dataplane {
namespace {

constexpr const char* need_admin = "run as root, or give the program CAP_NET_ADMIN and CAP_NET_RAW";

std::unexpected<Error> system_error(const std::string& what, int error) {
    if (error == EPERM || error == EACCES)
        return fail(ErrorKind::denied, what + ": permission denied; " + need_admin);
    if (error == ENODEV) return fail(ErrorKind::not_found, what + ": no such interface");
    if (error == EEXIST) return fail(ErrorKind::conflict, what + ": exists already");
    return fail(ErrorKind::io, what + ": " + std::strerror(error));
}

UniqueFd control_socket() {
    return UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

ifreq request_for(const std::string& name) {
    ifreq r{};
    std::strncpy(r.ifr_name, name.c_str(), IFNAMSIZ - 1);
    return r;
}

// One rtnetlink request with attributes, sent and acknowledged.
class NetlinkRequest {
  public:
    NetlinkRequest(std::uint16_t type, std::uint16_t flags, const void* body, std::size_t size) {
        nlmsghdr h{};
        h.nlmsg_type = type;
        h.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
        append(&h, sizeof(h));
        append(body, size);
    }
    void add(std::uint16_t type, const void* data, std::size_t size) {
        rtattr a{};
        a.rta_type = type;
        a.rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
        append(&a, sizeof(a));
        append(data, size);
    }
    void add_text(std::uint16_t type, const char* text) { add(type, text, std::strlen(text) + 1); }
    std::size_t begin_nested(std::uint16_t type) {
        const std::size_t at = bytes_.size();
        rtattr a{};
        a.rta_type = type;
        append(&a, sizeof(a));
        return at;
    }
    void end_nested(std::size_t at) {
        const auto size = static_cast<std::uint16_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at + offsetof(rtattr, rta_len), &size, sizeof(size));
    }
    // 0 or an errno value.
    int execute() {
        const auto size = static_cast<std::uint32_t>(bytes_.size());
        std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof(size));
        const UniqueFd s(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
        if (!s.valid()) return errno;
        if (::send(s.get(), bytes_.data(), bytes_.size(), 0) < 0) return errno;
        alignas(nlmsghdr) std::array<char, 4096> answer{};
        const ssize_t n = ::recv(s.get(), answer.data(), answer.size(), 0);
        if (n < 0) return errno;
        nlmsghdr h{};
        if (static_cast<std::size_t>(n) < sizeof(h) + sizeof(int)) return EPROTO;
        std::memcpy(&h, answer.data(), sizeof(h));
        if (h.nlmsg_type != NLMSG_ERROR) return EPROTO;
        int code = 0;
        std::memcpy(&code, answer.data() + NLMSG_HDRLEN, sizeof(code));
        return -code;
    }

  private:
    void append(const void* data, std::size_t size) {
        const auto* p = static_cast<const std::uint8_t*>(data);
        bytes_.insert(bytes_.end(), p, p + size);
        while (bytes_.size() % NLMSG_ALIGNTO != 0) bytes_.push_back(0);
    }
    std::vector<std::uint8_t> bytes_;
};

bool is_link_local_v6(const sockaddr* address) {
    if (address->sa_family != AF_INET6) return false;
    sockaddr_in6 a{};
    std::memcpy(&a, address, sizeof(a));
    return IN6_IS_ADDR_LINKLOCAL(&a.sin6_addr);
}

// BPF: "r0 = 2 (drop); exit".
constexpr int bpf_tcx_ingress =
    46;  // enum bpf_attach_type of Linux 6.6; Debian 12's headers are older
constexpr std::uint32_t filter_priority = 1;
constexpr const char* filter_name = "gmgate-drop";

int bpf_call(int command, bpf_attr& attributes) {
    return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
}

UniqueFd load_drop_program() {
    std::array<bpf_insn, 2> code{};
    code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
    code[0].imm = 2;  // TC_ACT_SHOT, TCX_DROP
    code[1].code = BPF_JMP | BPF_EXIT;
    static constexpr const char* license = "Apache-2.0";
    bpf_attr a{};
    a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
    a.insn_cnt = static_cast<std::uint32_t>(code.size());
    a.insns = reinterpret_cast<std::uintptr_t>(code.data());
    a.license = reinterpret_cast<std::uintptr_t>(license);
    std::strncpy(a.prog_name, "gmgate_drop", sizeof(a.prog_name) - 1);
    return UniqueFd(bpf_call(BPF_PROG_LOAD, a));
}

tcmsg clsact_filter(int index) {
    tcmsg m{};
    m.tcm_family = AF_UNSPEC;
    m.tcm_ifindex = index;
    m.tcm_handle = 1;
    m.tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS);
    m.tcm_info = TC_H_MAKE(filter_priority << 16U, htons(ETH_P_ALL));
    return m;
}
tcmsg clsact_qdisc(int index) {
    tcmsg m{};
    m.tcm_family = AF_UNSPEC;
    m.tcm_ifindex = index;
    m.tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
    m.tcm_parent = TC_H_CLSACT;
    return m;
}

}  // namespace

Result<InterfaceInfo> interface_info(const std::string& name) {
    if (name.empty() || name.size() >= IFNAMSIZ) {
        return fail(ErrorKind::not_found,
                    "'" + name + "' is not an interface name (1 to 15 octets)");
    }
    const UniqueFd s = control_socket();
    if (!s.valid()) return system_error("cannot open a socket", errno);
    InterfaceInfo info;
    ifreq r = request_for(name);
    if (::ioctl(s.get(), SIOCGIFINDEX, &r) != 0) return system_error("interface " + name, errno);
    info.index = r.ifr_ifindex;
    if (::ioctl(s.get(), SIOCGIFFLAGS, &r) != 0) return system_error("interface " + name, errno);
    info.flags = static_cast<std::uint16_t>(r.ifr_flags);
    // Asked of the driver: IFF_RUNNING follows it with up to a second's delay.
    ethtool_value link{};
    link.cmd = ETHTOOL_GLINK;
    ifreq question = request_for(name);
    question.ifr_data = reinterpret_cast<char*>(&link);
    const bool linked = ::ioctl(s.get(), SIOCETHTOOL, &question) == 0
                            ? link.data != 0
                            : (info.flags & IFF_RUNNING) != 0;
    info.carrier = (info.flags & IFF_UP) != 0 && linked;
    if (::ioctl(s.get(), SIOCGIFMTU, &r) != 0) return system_error("interface " + name, errno);
    info.mtu = static_cast<unsigned>(r.ifr_mtu);
    if (::ioctl(s.get(), SIOCGIFHWADDR, &r) != 0) return system_error("interface " + name, errno);
    info.ethernet = r.ifr_hwaddr.sa_family == ARPHRD_ETHER;
    std::memcpy(info.mac.data(), r.ifr_hwaddr.sa_data, info.mac.size());
    return info;
}

std::vector<std::string> interface_names() {
    std::vector<std::string> names;
    struct if_nameindex* all = ::if_nameindex();
    for (struct if_nameindex* i = all; i != nullptr && i->if_index != 0; ++i)
        names.emplace_back(i->if_name);
    if (all != nullptr) ::if_freenameindex(all);
    return names;
}

std::string interface_list() {
    std::string text;
    for (const std::string& n : interface_names()) text += (text.empty() ? "" : ", ") + n;
    return text.empty() ? "none" : text;
}

std::vector<std::string> interface_addresses(const std::string& name) {
    std::vector<std::string> found;
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return found;
    for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
        if (a->ifa_addr == nullptr || name != a->ifa_name) continue;
        sockaddr_storage storage{};
        if (a->ifa_addr->sa_family == AF_INET) {
            std::memcpy(&storage, a->ifa_addr, sizeof(sockaddr_in));
        } else if (a->ifa_addr->sa_family == AF_INET6 && !is_link_local_v6(a->ifa_addr)) {
            std::memcpy(&storage, a->ifa_addr, sizeof(sockaddr_in6));
        } else {
            continue;
        }
        found.push_back(Endpoint::from_sockaddr(storage).address.to_string());
    }
    ::freeifaddrs(all);
    return found;
}

Result<void> change_flags(const std::string& name, unsigned on, unsigned off) {
    const UniqueFd s = control_socket();
    ifreq r = request_for(name);
    if (::ioctl(s.get(), SIOCGIFFLAGS, &r) != 0) return system_error("flags of " + name, errno);
    const unsigned before = static_cast<std::uint16_t>(r.ifr_flags);
    const unsigned after = (before | on) & ~off;
    if (after == before) return {};
    r.ifr_flags = static_cast<short>(after);
    if (::ioctl(s.get(), SIOCSIFFLAGS, &r) != 0)
        return system_error("cannot change flags of " + name, errno);
    return {};
}

Result<void> set_mtu(const std::string& name, unsigned mtu) {
    const UniqueFd s = control_socket();
    ifreq r = request_for(name);
    r.ifr_mtu = static_cast<int>(mtu);
    if (::ioctl(s.get(), SIOCSIFMTU, &r) != 0) {
        return system_error("cannot set the MTU of " + name + " to " + std::to_string(mtu), errno);
    }
    return {};
}

Result<void> set_mac(const std::string& name, const MacAddress& mac) {
    const UniqueFd s = control_socket();
    ifreq r = request_for(name);
    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(r.ifr_hwaddr.sa_data, mac.data(), mac.size());
    if (::ioctl(s.get(), SIOCSIFHWADDR, &r) != 0)
        return system_error("cannot set the MAC address of " + name, errno);
    return {};
}

Result<void> add_address(const std::string& name, const IpAddress& address, unsigned prefix) {
    auto info = interface_info(name);
    if (!info) return std::unexpected(info.error());
    ifaddrmsg m{};
    m.ifa_family = address.is_v6() ? AF_INET6 : AF_INET;
    m.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
    m.ifa_scope = RT_SCOPE_UNIVERSE;
    m.ifa_index = static_cast<std::uint32_t>(info->index);
    NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
    request.add(IFA_LOCAL, address.octets().data(), address.octets().size());
    request.add(IFA_ADDRESS, address.octets().data(), address.octets().size());
    if (address.is_v6()) {
        const std::uint32_t flags = IFA_F_NODAD;
        request.add(IFA_FLAGS, &flags, sizeof(flags));
    }
    const int error = request.execute();
    if (error != 0) {
        return system_error("cannot set address " + address.to_string() + "/" +
                                std::to_string(prefix) + " on " + name,
                            error);
    }
    return {};
}

Result<void> add_route(const std::string& name, const IpAddress& to, unsigned prefix,
                       const IpAddress& via) {
    auto info = interface_info(name);
    if (!info) return std::unexpected(info.error());
    rtmsg m{};
    m.rtm_family = to.is_v6() ? AF_INET6 : AF_INET;
    m.rtm_dst_len = static_cast<std::uint8_t>(prefix);
    m.rtm_table = RT_TABLE_MAIN;
    m.rtm_protocol = RTPROT_STATIC;
    m.rtm_scope = RT_SCOPE_UNIVERSE;
    m.rtm_type = RTN_UNICAST;
    NetlinkRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
    const auto index = static_cast<std::uint32_t>(info->index);
    if (prefix != 0) request.add(RTA_DST, to.octets().data(), to.octets().size());
    request.add(RTA_GATEWAY, via.octets().data(), via.octets().size());
    request.add(RTA_OIF, &index, sizeof(index));
    if (const int error = request.execute(); error != 0) {
        const std::string what = "cannot set the route to " + to.to_string() + "/" +
                                 std::to_string(prefix) + " via " + via.to_string() + " on " + name;
        if (error == ENETUNREACH || error == EINVAL) {
            return fail(ErrorKind::invalid,
                        what +
                            ": is the router inside a network of gm.addresses, and no bit of the "
                            "destination beyond its length set?");
        }
        return system_error(what, error);
    }
    return {};
}

Result<std::string> read_sysctl(const std::string& family, const std::string& name,
                                const std::string& key) {
    std::ifstream in("/proc/sys/net/" + family + "/conf/" + name + "/" + key);
    std::string value;
    if (!std::getline(in, value))
        return fail(ErrorKind::not_found, "no sysctl net." + family + ".conf." + name + "." + key);
    return value;
}

Result<void> write_sysctl(const std::string& family, const std::string& name,
                          const std::string& key, const std::string& value) {
    const std::string path = "/proc/sys/net/" + family + "/conf/" + name + "/" + key;
    const UniqueFd f(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!f.valid() || ::write(f.get(), value.data(), value.size()) < 0) {
        return system_error("cannot write " + path, errno);
    }
    return {};
}

Result<IngressDrop> IngressDrop::attach(int interface_index) {
    IngressDrop drop;
    drop.program_ = load_drop_program();
    if (!drop.program_.valid())
        return system_error("cannot load the BPF program that keeps cleartext out", errno);

    bpf_attr a{};
    a.link_create.prog_fd = static_cast<std::uint32_t>(drop.program_.get());
    a.link_create.target_ifindex = static_cast<std::uint32_t>(interface_index);
    a.link_create.attach_type = bpf_tcx_ingress;
    drop.link_.reset(bpf_call(BPF_LINK_CREATE, a));
    if (drop.link_.valid()) return drop;

    const tcmsg q = clsact_qdisc(interface_index);
    NetlinkRequest qdisc(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &q, sizeof(q));
    qdisc.add_text(TCA_KIND, "clsact");
    int error = qdisc.execute();
    if (error != 0 && error != EEXIST) return system_error("cannot add a clsact qdisc", error);
    drop.own_qdisc_ = error == 0;
    const tcmsg f = clsact_filter(interface_index);
    NetlinkRequest filter(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, &f, sizeof(f));
    filter.add_text(TCA_KIND, "bpf");
    const std::size_t options = filter.begin_nested(TCA_OPTIONS);
    const auto fd = static_cast<std::uint32_t>(drop.program_.get());
    const std::uint32_t flags = TCA_BPF_FLAG_ACT_DIRECT;
    filter.add(TCA_BPF_FD, &fd, sizeof(fd));
    filter.add_text(TCA_BPF_NAME, filter_name);
    filter.add(TCA_BPF_FLAGS, &flags, sizeof(flags));
    filter.end_nested(options);
    error = filter.execute();
    drop.clsact_index_ = interface_index;
    if (error != 0) return system_error("cannot add the filter that keeps cleartext out", error);
    return drop;
}

IngressDrop::IngressDrop(IngressDrop&& other) noexcept
    : program_(std::move(other.program_)),
      link_(std::move(other.link_)),
      clsact_index_(std::exchange(other.clsact_index_, 0)),
      own_qdisc_(other.own_qdisc_) {}

IngressDrop::~IngressDrop() {
    if (clsact_index_ == 0) return;
    // Errors: the interface may be gone, and the filter with it.
    if (own_qdisc_) {
        const tcmsg q = clsact_qdisc(clsact_index_);
        (void)NetlinkRequest(RTM_DELQDISC, 0, &q, sizeof(q)).execute();
    } else {
        const tcmsg f = clsact_filter(clsact_index_);
        (void)NetlinkRequest(RTM_DELTFILTER, 0, &f, sizeof(f)).execute();
    }
}

void TakenInterface::set_and_remember(const char* family, const char* key, const char* value) {
    const auto old = read_sysctl(family, name_, key);
    if (!old || *old == value) return;
    if (const auto done = write_sysctl(family, name_, key, value); !done) {
        log::warn("dataplane", "{}", done.error().text);
        return;
    }
    sysctls_.push_back({family, key, *old});
}

// Receive merging makes frames longer than the wire's MTU of several packets: ESP must come as it
// was sent.
void TakenInterface::feature_off(std::uint32_t get, std::uint32_t set, std::uint32_t mask) {
    const UniqueFd s = control_socket();
    ethtool_value v{};
    v.cmd = get;
    ifreq r = request_for(name_);
    r.ifr_data = reinterpret_cast<char*>(&v);
    if (::ioctl(s.get(), SIOCETHTOOL, &r) != 0 || (v.data & mask) == 0) return;
    const std::uint32_t old = v.data;
    v.cmd = set;
    v.data = old & ~mask;
    if (::ioctl(s.get(), SIOCETHTOOL, &r) == 0) features_.push_back({set, old});
}

Result<std::unique_ptr<TakenInterface>> TakenInterface::take(const std::string& name) {
    auto info = interface_info(name);
    if (!info) {
        if (info.error().kind != ErrorKind::not_found) return std::unexpected(info.error());
        return fail(ErrorKind::not_found,
                    "there is no interface " + name + "; there are: " + interface_list());
    }
    if (!info->ethernet) return fail(ErrorKind::invalid, name + " is not an Ethernet interface");

    // The abstract socket's name belongs to this network namespace and goes with the process,
    // however it ends.
    std::unique_ptr<TakenInterface> taken(new TakenInterface());
    taken->name_ = name;
    taken->info_ = *info;
    taken->lock_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un lock{};
    lock.sun_family = AF_UNIX;
    const std::string lock_name = "gmgate.gm." + name;
    std::memcpy(lock.sun_path + 1, lock_name.data(), lock_name.size());
    const auto lock_size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + lock_name.size());
    if (::bind(taken->lock_.get(), reinterpret_cast<const sockaddr*>(&lock), lock_size) != 0) {
        if (errno == EADDRINUSE) {
            return fail(ErrorKind::conflict,
                        "another copy of gmgated has taken interface " + name +
                            "; stop it, or give this one another gm.interface");
        }
        return system_error("cannot lock interface " + name, errno);
    }
    if (taken->read_record()) {
        log::info("dataplane", "{}: putting back what a run that was killed had changed", name);
        taken->put_back();
        info = interface_info(name);
        if (!info) return std::unexpected(info.error());
    }
    if (const auto addresses = interface_addresses(name); !addresses.empty()) {
        std::string list;
        for (const std::string& a : addresses) list += (list.empty() ? "" : ", ") + a;
        return fail(ErrorKind::conflict, "interface " + name + " still has " + list +
                                             "; gmgated answers there itself: 'ip addr flush dev " +
                                             name + "' and list the address under gm.addresses");
    }

    auto drop = IngressDrop::attach(info->index);
    if (drop) {
        taken->drop_ = std::make_unique<IngressDrop>(std::move(*drop));
    } else if (drop.error().kind == ErrorKind::denied) {
        return fail(ErrorKind::denied,
                    "cannot take interface " + name +
                        " from the host: permission denied; "
                        "run as root, or give the program CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF");
    } else {
        log::warn("dataplane",
                  "{}: {}; strict rp_filter and disable_ipv6 alone keep cleartext from the host",
                  name, drop.error().text);
    }
    // Second line of defence, and silence: the host has no business on this wire.
    taken->set_and_remember("ipv6", "disable_ipv6", "1");
    taken->set_and_remember("ipv4", "rp_filter", "1");
    taken->set_and_remember("ipv4", "arp_ignore", "8");
    taken->set_and_remember("ipv4", "forwarding", "0");
    taken->set_and_remember("ipv4", "accept_redirects", "0");
    taken->feature_off(ETHTOOL_GGRO, ETHTOOL_SGRO, 1);
    taken->feature_off(ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_LRO);
    const unsigned wanted = IFF_UP | IFF_NOARP | IFF_ALLMULTI;
    if (const auto done = change_flags(name, wanted, 0); !done)
        return std::unexpected(done.error());
    taken->flags_on_ = wanted & ~info->flags;
    taken->recorded_ = true;
    taken->write_record();
    return taken;
}

TakenInterface::~TakenInterface() {
    if (interface_info(name_)) put_back();  // else deleted under us: nothing to give back
    std::error_code ignored;
    if (recorded_) std::filesystem::remove(record_path(), ignored);
}

void TakenInterface::put_back() {
    // First the flags, last the guard: at no moment does the host answer for what it should not.
    if (flags_on_ != 0) (void)change_flags(name_, 0, flags_on_);
    const UniqueFd s = control_socket();
    for (const OldFeature& f : features_) {
        ethtool_value v{};
        v.cmd = f.set;
        v.data = f.value;
        ifreq r = request_for(name_);
        r.ifr_data = reinterpret_cast<char*>(&v);
        (void)::ioctl(s.get(), SIOCETHTOOL, &r);
    }
    for (auto old = sysctls_.rbegin(); old != sysctls_.rend(); ++old) {
        (void)write_sysctl(old->family, name_, old->key, old->value);
    }
    flags_on_ = 0;
    features_.clear();
    sysctls_.clear();
}

std::string TakenInterface::record_path() const {
    struct stat network{};
    (void)::stat("/proc/self/ns/net", &network);
    return "/run/gmgate/taken-" + std::to_string(network.st_ino) + "-" + name_;
}

void TakenInterface::write_record() const {
    std::error_code ignored;
    std::filesystem::create_directories("/run/gmgate", ignored);
    TakenRecord r;
    r.index = info_.index;
    r.mac = info_.mac;
    r.flags = flags_on_;
    for (const OldSysctl& o : sysctls_) r.sysctls.push_back({o.family, o.key, o.value});
    for (const OldFeature& f : features_) r.features.push_back({f.set, f.value});
    if (const auto done = r.write(record_path()); !done)
        log::debug("dataplane", "{}", done.error().text);
}

// True if a dead run left a record of this very interface; what it says is then ours to put back.
bool TakenInterface::read_record() {
    const auto r = TakenRecord::read(record_path());
    if (!r || r->index != info_.index || r->mac != info_.mac) return false;
    for (const auto& o : r->sysctls) sysctls_.push_back({o.family, o.key, o.value});
    for (const auto& f : r->features) features_.push_back({f.set, f.value});
    flags_on_ = r->flags;
    return true;
}

}  // namespace gmgate::dataplane
