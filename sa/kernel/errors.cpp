#include "sa/kernel/errors.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "sa/kernel/suites.h"

namespace gmgate::kernel {

namespace {

ErrorKind kind_of(int error) {
    switch (error) {
        case ENOMEM:
        case ENOBUFS:
        case ENOSPC:
            return ErrorKind::exhausted;
        case EEXIST:
            return ErrorKind::conflict;
        case ESRCH:
            return ErrorKind::not_found;
        case EPERM:
        case EACCES:
            return ErrorKind::denied;
        case EPROTONOSUPPORT:
        case ENOSYS:
        case ENOENT:
        case EOPNOTSUPP:
            return ErrorKind::unsupported;
        default:
            return ErrorKind::io;
    }
}

std::string_view remedy(int error) {
    switch (error) {
        case ENOMEM:
        case ENOBUFS:
        case ENOSPC:
            return "; the kernel is out of memory or its NIC out of SA entries: fewer phones "
                   "(limits.registrations), or more memory";
        case EEXIST:
            return "; another program or another of the phone's sets holds this SPI or policy: see "
                   "'ip xfrm state' and 'ip xfrm policy'";
        case EPERM:
        case EACCES:
            return "; CAP_NET_ADMIN is missing: run gmgated as root or by its systemd unit";
        default:
            return "";
    }
}

std::string words(const Outcome& outcome) {
    return outcome.text.empty()
               ? std::string(std::strerror(outcome.error))
               : fmt::format("{} ({})", outcome.text, std::strerror(outcome.error));
}

}  // namespace

Error to_error(std::string_view what, const Outcome& outcome) {
    return {kind_of(outcome.error),
            fmt::format("{}: {}{}", what, words(outcome), remedy(outcome.error))};
}

Error to_error(std::string_view what, const Outcome& outcome, sa::Suite suite, bool v6) {
    Error e = to_error(what, outcome);
    if (e.kind == ErrorKind::unsupported) {
        e.text += fmt::format(
            "; run 'modprobe -a {}', use a kernel with CONFIG_INET{}_ESP and these algorithms, or "
            "choose backend: dpdk",
            modules(suite, v6), v6 ? "6" : "");
    }
    return e;
}

}  // namespace gmgate::kernel
