#pragma once
// The policies of the protected ports (A6): which ones we want, and whose stand in their way. Pure.
//
// For each of our addresses and each power-of-two block of protected ports:
//   in       to the port      allow what came through ESP with our reqid; cleartext is discarded
//   out      from the port    allow what one of our states takes; nothing leaves in clear
//   forward  to the port      block
//   forward  from the port    block: nobody behind us sends under our address, and into our states
// States carry the selectors, so the number of phones does not matter (docs/decisions). Only phones
// behind a NAT have policies of their own, since a tunnel's other end stands in the policy.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sa/kernel/kernel_backend.h"
#include "sa/kernel/message.h"
#include "sa/kernel/set_states.h"

namespace gmgate::kernel {

// Before (below) those of others that overlap: key daemons begin at some hundred thousand.
inline constexpr std::uint32_t policy_priority = 100;

struct PortBlock {
    sa::Port first = 0;
    sa::Port mask = 0;
    bool operator==(const PortBlock&) const = default;
};
// Aligned power-of-two blocks that cover first..last exactly; at most 30.
[[nodiscard]] std::vector<PortBlock> port_blocks(sa::Port first, sa::Port last);

// Those of one set behind a NAT (N1), before the others: tunnel mode, one for each of its four
// flows. Inbound from any outer address (its state knows better, and follows by itself), outbound
// to `outer`.
inline constexpr std::uint32_t nat_policy_priority = policy_priority - 1;
[[nodiscard]] std::vector<Policy> nat_policies(const KernelOptions& options, const IpAddress& ue,
                                               const IpAddress& ours, const sa::SaNumbers& numbers,
                                               const IpAddress& outer);

// All policies of the options, offload (packet) with `interface` if given.
[[nodiscard]] std::vector<Policy> wanted_policies(const KernelOptions& options,
                                                  const std::optional<OffloadDevice>& offload);

[[nodiscard]] bool overlap(const Selector& a, const Selector& b);

// What of the kernel's policies is an earlier run's and no longer wanted.
[[nodiscard]] std::vector<Policy> stale_policies(std::span<const Policy> wanted,
                                                 std::span<const Policy> found,
                                                 std::uint32_t reqid);
// The first foreign policy that would come before one of ours, or that ours would replace, in
// words; nullopt: none. Policies bound to an XFRM interface, or to a mark that packets without one
// do not have, take other packets.
[[nodiscard]] std::optional<std::string> conflict(std::span<const Policy> wanted,
                                                  std::span<const Policy> found,
                                                  std::uint32_t reqid);

// "10.0.0.1/32 port 6100/0xfffc -> any, in, priority 100", for log lines.
[[nodiscard]] std::string to_string(const Policy& policy);

}  // namespace gmgate::kernel
