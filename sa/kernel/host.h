#pragma once
// What the host itself must give: our addresses on the interface, and the kernel's own switches.

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sa/kernel/kernel_backend.h"

namespace gmgate::kernel {

// not_found: the interface, or one of options.addresses on it; conflict: net.ipv4.conf (or ipv6)
// switches policies or transforms off there, so cleartext would pass (A6). `proc_sys`: "/proc/sys".
[[nodiscard]] Result<void> check_host(const KernelOptions& options, const std::string& proc_sys);

// not_found: no such interface.
[[nodiscard]] Result<std::int32_t> interface_index(const std::string& name);

}  // namespace gmgate::kernel
