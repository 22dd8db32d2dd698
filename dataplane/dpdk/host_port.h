#pragma once
// The port to the host stack: a TAP interface of our own, one queue per worker (docs/decisions: why
// not DPDK's net_tap).
//
// It is driven by read(2) and write(2) directly: its descriptors can be slept on, no signal is
// raised per packet, and with no offload asked for the kernel fills in every checksum before it
// hands us a packet.

#include <memory>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/unique_fd.h"
#include "dataplane/dpdk/port.h"

namespace gmgate::dataplane {

class HostPort final : public Port {
  public:
    struct Address {
        IpAddress address;
        unsigned prefix = 0;
    };
    struct Route {
        IpAddress to;
        unsigned prefix = 0;
        IpAddress via;
    };
    struct Options {
        std::string name;  // at most 15 octets; must not exist
        MacAddress mac{};
        unsigned mtu = 1440;
        unsigned queues = 1;
        std::vector<Address> addresses;
        std::vector<Route> routes;
    };
    // Up and with its addresses when it returns. The interface goes with the process, however it
    // ends. denied, conflict (exists), not_found (/dev/net/tun), io. `pool` holds what we read.
    [[nodiscard]] static Result<std::unique_ptr<HostPort>> open(const Options& options,
                                                                rte_mempool* pool);

    std::uint16_t receive(unsigned queue, rte_mbuf** out, std::uint16_t max) override;
    std::uint16_t send(unsigned queue, rte_mbuf** frames, std::uint16_t count) override;
    [[nodiscard]] int wait_fd(unsigned queue) const override;
    bool revive(unsigned queue) override;

    ~HostPort() override;
    [[nodiscard]] const std::string& name() const { return name_; }

  private:
    HostPort() = default;
    std::string name_;
    std::string redirects_before_;  // net.ipv4.conf.all.accept_redirects, if we changed it
    std::vector<UniqueFd> queues_;
    rte_mempool* pool_ = nullptr;
};

}  // namespace gmgate::dataplane
