#pragma once
// Chooses our protected ports (A5). Keeps no state: what is taken is known to the SA database.

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "sa/types.h"

namespace gmgate::sa {

struct PortConfig {
    std::vector<Port> port_ps{5062};  // protected server ports; a UE keeps the one it got
    Port pc_first = 5100;             // protected client ports, both ends included
    Port pc_last = 5115;
};

class PortAllocator {
  public:
    // A UE has up to three sets at a time, each with a port_pc of its own.
    static constexpr unsigned min_client_ports = 3;

    // invalid: empty list or range, port 0, 5060 or 5061, a port twice, a port_ps inside the
    // port_pc range, a range of fewer than min_client_ports.
    [[nodiscard]] static Result<PortAllocator> create(PortConfig config);

    // Spreads UEs by their hash. The caller keeps it for the UE until all its IMPUs are
    // deregistered.
    [[nodiscard]] Port port_ps(std::uint64_t hash_of_ue) const;
    // The next after `previous` (0: none yet, then by hash), never `previous` itself while there is
    // another, and none for which `taken(port)`: a live set holds (UE IP, port_us, port).
    // exhausted: all are taken.
    [[nodiscard]] Result<Port> port_pc(Port previous, std::uint64_t hash_of_ue,
                                       const std::function<bool(Port)>& taken) const;

    [[nodiscard]] bool is_port_ps(Port port) const;
    [[nodiscard]] bool is_port_pc(Port port) const {
        return port >= config_.pc_first && port <= config_.pc_last;
    }
    [[nodiscard]] const PortConfig& config() const { return config_; }

  private:
    explicit PortAllocator(PortConfig config) : config_(std::move(config)) {}
    PortConfig config_;
};

// A port no side may protect (A5): 0, 5060, 5061.
[[nodiscard]] constexpr bool is_forbidden_protected_port(Port port) {
    return port == 0 || port == 5060 || port == 5061;
}

}  // namespace gmgate::sa
