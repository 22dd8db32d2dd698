#pragma once
// Keys never reach a core dump (S1). Pages that hold keys are left out of it besides
// (base/secret.h). Both calls are for this process, and fail on no Linux we run on.

namespace gmgate {

// RLIMIT_CORE 0, for good: the kernel writes no file. First thing of all. It does not bind a
// handler that core_pattern pipes the dump to.
[[nodiscard]] bool limit_core_dumps();

// PR_SET_DUMPABLE 0: no dump whoever asks and wherever it goes, and no tracing or /proc/PID/mem for
// processes of the same user. Before the first key; after what opens its own /proc files without
// root's rights (DPDK's start).
[[nodiscard]] bool forbid_dumps();

}  // namespace gmgate
