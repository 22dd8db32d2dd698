#include "sa/port_allocator.h"

#include <fmt/core.h>

#include <algorithm>

namespace gmgate::sa {

Result<PortAllocator> PortAllocator::create(PortConfig config) {
    if (config.port_ps.empty())
        return fail(ErrorKind::invalid, "no protected server port is configured");
    if (config.pc_first > config.pc_last) {
        return fail(ErrorKind::invalid,
                    fmt::format("the range of protected client ports {}-{} is empty",
                                config.pc_first, config.pc_last));
    }
    if (config.pc_last - config.pc_first + 1 < static_cast<int>(min_client_ports)) {
        return fail(
            ErrorKind::invalid,
            fmt::format("the range of protected client ports {}-{} is too small: a UE needs {}",
                        config.pc_first, config.pc_last, min_client_ports));
    }
    for (std::size_t i = 0; i < config.port_ps.size(); ++i) {
        const Port port = config.port_ps[i];
        if (is_forbidden_protected_port(port)) {
            return fail(ErrorKind::invalid,
                        fmt::format("port {} cannot be a protected server port", port));
        }
        if (port >= config.pc_first && port <= config.pc_last) {
            return fail(
                ErrorKind::invalid,
                fmt::format("protected server port {} lies in the range of client ports {}-{}",
                            port, config.pc_first, config.pc_last));
        }
        if (std::find(config.port_ps.begin(),
                      config.port_ps.begin() + static_cast<std::ptrdiff_t>(i),
                      port) != config.port_ps.begin() + static_cast<std::ptrdiff_t>(i)) {
            return fail(ErrorKind::invalid,
                        fmt::format("protected server port {} is listed twice", port));
        }
    }
    for (const Port port : {Port{0}, Port{5060}, Port{5061}}) {
        if (port >= config.pc_first && port <= config.pc_last) {
            return fail(ErrorKind::invalid,
                        fmt::format("the range of protected client ports {}-{} holds port {}",
                                    config.pc_first, config.pc_last, port));
        }
    }
    return PortAllocator(std::move(config));
}

Port PortAllocator::port_ps(std::uint64_t hash_of_ue) const {
    return config_.port_ps[hash_of_ue % config_.port_ps.size()];
}

Result<Port> PortAllocator::port_pc(Port previous, std::uint64_t hash_of_ue,
                                    const std::function<bool(Port)>& taken) const {
    const std::uint32_t count = static_cast<std::uint32_t>(config_.pc_last - config_.pc_first) + 1;
    const bool known = is_port_pc(previous);
    // The one after the previous; the previous itself would come last and is left out unless it is
    // the only one.
    const std::uint32_t start = known ? static_cast<std::uint32_t>(previous - config_.pc_first) + 1
                                      : static_cast<std::uint32_t>(hash_of_ue % count);
    const std::uint32_t tries = known && count > 1 ? count - 1 : count;
    for (std::uint32_t i = 0; i < tries; ++i) {
        const auto port = static_cast<Port>(config_.pc_first + (start + i) % count);
        if (!taken(port)) return port;
    }
    return fail(ErrorKind::exhausted,
                fmt::format("no free protected client port in {}-{} for this UE address and port",
                            config_.pc_first, config_.pc_last));
}

bool PortAllocator::is_port_ps(Port port) const {
    return std::ranges::find(config_.port_ps, port) != config_.port_ps.end();
}

}  // namespace gmgate::sa
