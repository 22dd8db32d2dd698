#pragma once
// What the host itself must give: our addresses on the interface, and the kernel's own switches.

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "sa/kernel/kernel_backend.h"

namespace gmgate::kernel {

// not_found: the interface, or one of options.addresses on it (neither is looked for if it is made
// later); conflict: switched_off().
[[nodiscard]] Result<void> check_host(const KernelOptions& options);

// A switch of the host (net.ipv4.conf.*.disable_policy, disable_xfrm; ipv6 likewise) that lets
// packets of options.interface pass beside our policies (A6), in words with the remedy; nullopt:
// none. An interface that is not there yet begins with those of `default`.
[[nodiscard]] std::optional<std::string> switched_off(const KernelOptions& options);

// not_found: no such interface.
[[nodiscard]] Result<std::int32_t> interface_index(const std::string& name);

}  // namespace gmgate::kernel
