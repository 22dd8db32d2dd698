#include "control/ops/lock_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace gmgate::ops {

Result<LockFile> LockFile::take(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd.valid()) {
        return fail(errno == EACCES || errno == EPERM ? ErrorKind::denied : ErrorKind::io,
                    fmt::format("{}: cannot be opened: {}; does the directory exist, and may this "
                                "user write there?",
                                path, std::strerror(errno)));
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return fail(ErrorKind::io,
                        fmt::format("{}: cannot be locked: {}", path, std::strerror(errno)));
        std::array<char, 32> text{};
        const ssize_t n = ::pread(fd.get(), text.data(), text.size(), 0);
        std::string_view pid(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
        pid = pid.substr(0, pid.find_first_not_of("0123456789"));
        return fail(ErrorKind::conflict,
                    fmt::format("gmgated runs already{}: it holds {}; stop it first, or give this "
                                "one an ops.socket of its own",
                                pid.empty() ? "" : fmt::format(" (process {})", pid), path));
    }
    const std::string pid = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
        return fail(ErrorKind::io,
                    fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
    }
    return LockFile(std::move(fd));
}

LockFile::~LockFile() {
    // Whoever reads it next shall not be told of a process that is gone.
    if (fd_.valid() && ::ftruncate(fd_.get(), 0) != 0) {
    }
}

}  // namespace gmgate::ops
