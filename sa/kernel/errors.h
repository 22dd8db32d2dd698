#pragma once
// The kernel's refusals in our words.

#include <string_view>

#include "base/result.h"
#include "sa/algorithms/suite.h"
#include "sa/kernel/requests.h"

namespace gmgate::kernel {

// "what: the kernel's words (or strerror); the remedy". exhausted: ENOMEM, ENOBUFS, ENOSPC;
// conflict: EEXIST; not_found: ESRCH; denied: EPERM; unsupported: EPROTONOSUPPORT, ENOSYS, ENOENT,
// EOPNOTSUPP; io: everything else.
[[nodiscard]] Error to_error(std::string_view what, const Outcome& outcome);
// The same for a state of this suite and family: names the modules that bring what is missing.
[[nodiscard]] Error to_error(std::string_view what, const Outcome& outcome, sa::Suite suite,
                             bool v6);

}  // namespace gmgate::kernel
