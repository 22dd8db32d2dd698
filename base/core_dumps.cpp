#include "base/core_dumps.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace gmgate {

bool limit_core_dumps() {
    const rlimit none{0, 0};
    return ::setrlimit(RLIMIT_CORE, &none) == 0;
}

bool forbid_dumps() {
    return ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && ::prctl(PR_GET_DUMPABLE) == 0;
}

}  // namespace gmgate
