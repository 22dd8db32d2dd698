#include "sa/kernel/host.h"

#include <fmt/core.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>
#include <vector>

namespace gmgate::kernel {

namespace {

Result<std::vector<IpAddress>> addresses_of(const std::string& interface) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) {
        return fail(ErrorKind::io,
                    std::string("cannot list this host's addresses: ") + std::strerror(errno));
    }
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
    std::vector<IpAddress> out;
    for (const ifaddrs* a = list; a != nullptr; a = a->ifa_next) {
        if (a->ifa_addr == nullptr) continue;
        // The name may be a label of the address, an alias: eth0:gm.
        const std::string_view name = a->ifa_name;
        if (interface != name.substr(0, name.find(':'))) continue;
        const int family = a->ifa_addr->sa_family;
        if (family != AF_INET && family != AF_INET6) continue;
        sockaddr_storage storage{};
        std::memcpy(&storage, a->ifa_addr,
                    family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
        out.push_back(Endpoint::from_sockaddr(storage).address);
    }
    return out;
}

bool is_on(const std::string& path) {
    std::ifstream file(path);
    int value = 0;
    return file >> value && value != 0;
}

}  // namespace

Result<std::int32_t> interface_index(const std::string& name) {
    const unsigned index = ::if_nametoindex(name.c_str());
    if (index == 0) {
        return fail(ErrorKind::not_found,
                    fmt::format("this machine has no interface '{}'; see 'ip link'", name));
    }
    return static_cast<std::int32_t>(index);
}

Result<void> check_host(const KernelOptions& options) {
    if (!options.interface_comes_later) {
        if (auto index = interface_index(options.interface); !index)
            return fail(index.error().kind, "gm.interface: " + index.error().text);
        const auto present = addresses_of(options.interface);
        if (!present) return std::unexpected(present.error());
        for (const IpAddress& a : options.addresses) {
            if (std::ranges::find(*present, a) != present->end()) continue;
            return fail(
                ErrorKind::not_found,
                fmt::format("gm.addresses: {} is not on {}; with backend: kernel the "
                            "host's own addresses are used: 'ip address add {} dev {}' "
                            "with its prefix length, or correct gm.addresses",
                            a.to_string(), options.interface, a.to_string(), options.interface));
        }
    }
    if (auto off = switched_off(options)) return fail(ErrorKind::conflict, std::move(*off));
    return {};
}

std::optional<std::string> switched_off(const KernelOptions& options) {
    for (const bool v6 : {false, true}) {
        if (std::ranges::none_of(options.addresses,
                                 [&](const IpAddress& a) { return a.is_v6() == v6; }))
            continue;
        const std::string conf = fmt::format("net/{}/conf", v6 ? "ipv6" : "ipv4");
        const std::string ours = fmt::format("{}/{}", conf, options.interface);
        std::error_code ignored;
        const bool there = std::filesystem::exists(options.proc_sys + "/" + ours, ignored);
        for (const std::string& scope : {conf + "/all", there ? ours : conf + "/default"}) {
            for (const char* name : {"disable_policy", "disable_xfrm"}) {  // xfrm: IPv4's alone
                const std::string key = fmt::format("{}/{}", scope, name);
                if (!is_on(options.proc_sys + "/" + key)) continue;
                return fmt::format(
                    "{} is 1: packets for protected ports pass in clear; set it to 0 (sysctl -w "
                    "{}=0)",
                    key, key);
            }
        }
    }
    return std::nullopt;
}

}  // namespace gmgate::kernel
