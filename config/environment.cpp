#include <fmt/core.h>
#include <fmt/format.h>
#include <grp.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <linux/if_arp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/unique_fd.h"
#include "config/config.h"
#include "config/problems.h"

namespace gmgate::config {

namespace {

// Frames of the packet socket's ring have 8 KiB, headers included.
constexpr unsigned interface_mtu_limit = 8000;

bool group_exists(const std::string& name) {
    if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos) return true;
    group entry{};
    group* found = nullptr;
    std::vector<char> buffer(16384);
    while (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) == ERANGE &&
           buffer.size() < (1U << 20U)) {
        buffer.resize(buffer.size() * 2);
    }
    return found != nullptr;
}

// /proc/meminfo knows the default size of huge pages only.
unsigned long count_free_huge_mb() {
    unsigned long kb = 0;
    std::error_code ignored;
    for (const auto& size :
         std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", ignored)) {
        unsigned long page_kb = 0;
        unsigned long pages = 0;
        const std::string name = size.path().filename();  // hugepages-2048kB
        if (std::sscanf(name.c_str(), "hugepages-%lukB", &page_kb) != 1) continue;
        if (std::ifstream(size.path() / "free_hugepages") >> pages) kb += pages * page_kb;
    }
    return kb / 1024;
}

// Asked of the kernel, which knows of non-local binding and local routes, too. Doubt is yes.
bool bindable(const IpAddress& address) {
    const UniqueFd fd(::socket(address.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return true;
    sockaddr_storage to{};
    const socklen_t length = Endpoint{address, 0}.to_sockaddr(to);
    return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), length) == 0 ||
           errno != EADDRNOTAVAIL;
}

std::vector<IpAddress> interface_addresses(const std::string& interface) {
    std::vector<IpAddress> found;
    ifaddrs* head = nullptr;
    if (::getifaddrs(&head) != 0) return found;
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> all(head, &::freeifaddrs);
    for (const ifaddrs* a = all.get(); a != nullptr; a = a->ifa_next) {
        if (a->ifa_addr == nullptr || interface != a->ifa_name) continue;
        sockaddr_storage storage{};
        if (a->ifa_addr->sa_family == AF_INET) {
            std::memcpy(&storage, a->ifa_addr, sizeof(sockaddr_in));
        } else if (a->ifa_addr->sa_family == AF_INET6) {
            std::memcpy(&storage, a->ifa_addr, sizeof(sockaddr_in6));
            const auto* address = reinterpret_cast<const sockaddr_in6*>(&storage);
            if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;
        } else {
            continue;
        }
        found.push_back(Endpoint::from_sockaddr(storage).address);
    }
    return found;
}

// The number in a file of an interface's folder; nullopt: it is not there.
std::optional<unsigned> number_in(const std::string& path) {
    unsigned value = 0;
    if (std::ifstream file(path); file >> value) return value;
    return std::nullopt;
}

// What the fast path asks of the interface it takes.
std::vector<std::pair<std::string, std::string>> unfit_to_take(const Config& config,
                                                               const Environment& environment) {
    std::vector<std::pair<std::string, std::string>> out;
    const std::string& name = config.gm.interface;
    const std::string folder = environment.interfaces + "/" + name;
    if (const auto type = number_in(folder + "/type"); type && *type != ARPHRD_ETHER) {
        out.emplace_back("gm.interface",
                         fmt::format("{} is no Ethernet interface, and the fast path needs one; "
                                     "give one, such as a veth, or choose backend: kernel",
                                     name));
    }
    if (environment.addresses_on) {
        std::string list;
        for (const IpAddress& a : environment.addresses_on(name))
            list += (list.empty() ? "" : ", ") + a.to_string();
        if (!list.empty()) {
            out.emplace_back("gm.interface",
                             fmt::format("{} still has {}; gmgated answers there itself: 'ip addr "
                                         "flush dev {}', and list the address under gm.addresses",
                                         name, list, name));
        }
    }
    const auto mtu = number_in(folder + "/mtu");
    if (config.gm.mtu > interface_mtu_limit) {
        out.emplace_back("gm.mtu", fmt::format("{} is more than the {} an interface of the host "
                                               "can carry here; more takes a NIC under dpdk.device",
                                               config.gm.mtu, interface_mtu_limit));
    } else if (mtu && *mtu < config.gm.mtu) {
        out.emplace_back("gm.mtu",
                         fmt::format("{} has an MTU of {}, and {} is asked for; write less, or "
                                     "raise the interface's (ip link set {} mtu {})",
                                     name, *mtu, config.gm.mtu, name, config.gm.mtu));
    }
    return out;
}

}  // namespace

Environment Environment::of_this_process() {
    Environment e;
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
    if (::syscall(SYS_capget, &header, data.data()) == 0) {
        const auto has = [&](unsigned cap) {
            return (data[cap / 32].effective & (1U << (cap % 32))) != 0;
        };
        e.net_admin = has(CAP_NET_ADMIN);
        e.net_raw = has(CAP_NET_RAW);
        e.bpf = has(CAP_BPF) || has(CAP_SYS_ADMIN);
    }
    std::ifstream memory("/proc/meminfo");
    std::string name;
    while (memory >> name) {
        unsigned long number = 0;
        if (name == "HugePages_Free:") {
            memory >> e.free_huge_pages;
        } else if (name == "MemTotal:" && memory >> number) {
            e.memory_mb = number / 1024;
        }
        memory.ignore(256, '\n');
    }
    e.free_huge_mb = count_free_huge_mb();
    e.can_bind = bindable;
    e.addresses_on = interface_addresses;
    return e;
}

std::vector<std::string> check_environment(const Config& config) {
    return check_environment(config, Environment::of_this_process());
}

std::vector<std::string> check_environment(const Config& config, const Environment& environment) {
    std::vector<std::string> out;
    const auto add = [&](const std::string& key, const std::string& what) {
        out.push_back(config.source.at(key) + what);
    };

    // With a device of its own the fast path needs no interface of the host.
    const bool dpdk = config.uses_dpdk();
    if (config.dpdk.device.empty() || !dpdk) {
        std::vector<std::string> names;
        std::error_code error;
        for (auto it = std::filesystem::directory_iterator(environment.interfaces, error);
             !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
            names.push_back(it->path().filename().string());
        }
        std::sort(names.begin(), names.end());
        const auto must_exist = [&](const std::string& key, const std::string& name) {
            if (std::find(names.begin(), names.end(), name) != names.end()) return true;
            const std::string all = fmt::format("{}", fmt::join(names, ", "));
            add(key, fmt::format("this machine has no interface '{}'; it has {}", name,
                                 all.empty() ? "none" : printable(all, 200)));
            return false;
        };
        if (must_exist("gm.interface", config.gm.interface)) {
            if (dpdk) {
                for (const auto& [key, what] : unfit_to_take(config, environment)) add(key, what);
            } else if (environment.addresses_on) {
                const auto present = environment.addresses_on(config.gm.interface);
                for (const Prefix& p : config.gm.addresses) {
                    if (std::ranges::find(present, p.address) != present.end()) continue;
                    add("gm.addresses",
                        fmt::format("{} is not on {}; with backend: kernel the host's own "
                                    "addresses are used: 'ip address add {}/{} dev {}', or correct "
                                    "gm.addresses",
                                    p.address.to_string(), config.gm.interface,
                                    p.address.to_string(), p.length, config.gm.interface));
                }
            }
        }
        if (config.backend == Backend::kernel && config.kernel.offload != Offload::none &&
            !config.kernel.device.empty()) {
            must_exist("kernel.device", config.kernel.device);
        }
    }
    if (dpdk && config.dpdk.hugepages && environment.free_huge_pages == 0) {
        add("dpdk.hugepages",
            "no huge pages are free; reserve some (sysctl vm.nr_hugepages=256) or write false");
    }
    if (dpdk) {
        // Asked now, not after seconds of the packet library's trying. Without huge pages only what
        // cannot be at all: how much is free changes while we look.
        const unsigned long most =
            config.dpdk.hugepages ? environment.free_huge_mb : environment.memory_mb;
        if (most != 0 && config.dpdk.memory_mb > most) {
            add("dpdk.memory_mb",
                fmt::format("{} MB of packet memory are asked for, and this machine has {} MB{}",
                            config.dpdk.memory_mb, most,
                            config.dpdk.hugepages ? " in free huge pages; write less, or reserve "
                                                    "more (sysctl vm.nr_hugepages)"
                                                  : "; write less"));
        }
    }
    // Where we listen must be ours. gm.addresses come up with the fast path; an IPv6 address may
    // be still on its way (duplicate address detection), and is bound to nevertheless.
    const auto must_be_ours = [&](const std::string& key, const Endpoint& endpoint) {
        const IpAddress& address = endpoint.address;
        if (!environment.can_bind || address.is_v6() ||
            std::ranges::any_of(config.gm.addresses,
                                [&](const auto& a) { return a.address == address; }) ||
            environment.can_bind(address))
            return;
        add(key, fmt::format("{} is no address of this machine; give one that 'ip addr' shows, or "
                             "add it to an interface",
                             address.to_string()));
    };
    for (const Endpoint& endpoint : config.core.listen) must_be_ours("core.listen", endpoint);
    if (config.ops.metrics) must_be_ours("ops.metrics", *config.ops.metrics);
    if (!config.ops.group.empty() && !group_exists(config.ops.group)) {
        add("ops.group", fmt::format("this machine has no group '{}'; create it (groupadd --system "
                                     "{}) or leave the key out",
                                     printable(config.ops.group), printable(config.ops.group)));
    }
    std::vector<std::string_view> lacking;
    if (!environment.net_admin) lacking.emplace_back("CAP_NET_ADMIN");
    if (!environment.net_raw) lacking.emplace_back("CAP_NET_RAW");
    if (dpdk && !environment.bpf) lacking.emplace_back("CAP_BPF");
    if (!lacking.empty()) {
        add("backend", fmt::format("no permission for the packet layer: {} missing; run gmgated as "
                                   "root or by its systemd unit",
                                   fmt::join(lacking, ", ")));
    }
    return out;
}

}  // namespace gmgate::config
