#include <arpa/inet.h>
#include <fmt/core.h>
#include <fmt/format.h>
#include <grp.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "config/config.h"
#include "config/problems.h"

namespace gmgate::config {

namespace {

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
        } else if (name == "MemAvailable:" && memory >> number) {
            e.available_memory_mb = number / 1024;
        } else if (name == "Hugepagesize:" && memory >> number && number > 0) {
            e.huge_page_kb = number;
        }
        memory.ignore(256, '\n');
    }
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) == 0) {
        for (const ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
            if (i->ifa_addr == nullptr) continue;
            std::array<char, INET6_ADDRSTRLEN> text{};
            const int family = i->ifa_addr->sa_family;
            const void* octets = nullptr;
            if (family == AF_INET) {
                octets = &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr;
            } else if (family == AF_INET6) {
                octets = &reinterpret_cast<const sockaddr_in6*>(i->ifa_addr)->sin6_addr;
            }
            if (octets == nullptr ||
                ::inet_ntop(family, octets, text.data(), text.size()) == nullptr)
                continue;
            if (const auto address = IpAddress::parse(text.data())) e.addresses.push_back(*address);
        }
        ::freeifaddrs(all);
    }
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
            if (std::find(names.begin(), names.end(), name) != names.end()) return;
            const std::string all = fmt::format("{}", fmt::join(names, ", "));
            add(key, fmt::format("this machine has no interface '{}'; it has {}", name,
                                 all.empty() ? "none" : printable(all, 200)));
        };
        must_exist("gm.interface", config.gm.interface);
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
        // Asked now, not after seconds of the packet library's trying.
        const unsigned long free_mb =
            config.dpdk.hugepages ? environment.free_huge_pages * environment.huge_page_kb / 1024
                                  : environment.available_memory_mb;
        if (free_mb != 0 && config.dpdk.memory_mb > free_mb) {
            add("dpdk.memory_mb",
                fmt::format(
                    "{} MB of packet memory are asked for, and this machine has {} MB {}; "
                    "write less{}",
                    config.dpdk.memory_mb, free_mb,
                    config.dpdk.hugepages ? "in free huge pages" : "available",
                    config.dpdk.hugepages ? ", or reserve more (sysctl vm.nr_hugepages)" : ""));
        }
    }
    // Where we listen must be ours; what the fast path brings up itself (gm.addresses) is not
    // asked.
    const auto is_ours = [&](const IpAddress& address) {
        if (environment.addresses.empty() || address.is_unspecified()) return true;
        if (std::ranges::find(environment.addresses, address) != environment.addresses.end())
            return true;
        if (!address.is_v6() && address.to_string().starts_with("127.")) return true;
        return std::ranges::any_of(config.gm.addresses,
                                   [&](const auto& a) { return a.address == address; });
    };
    const auto must_be_ours = [&](const std::string& key, const Endpoint& endpoint) {
        if (is_ours(endpoint.address)) return;
        add(key, fmt::format("{} is no address of this machine; give one that 'ip addr' shows, or "
                             "add it to an interface",
                             endpoint.address.to_string()));
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
