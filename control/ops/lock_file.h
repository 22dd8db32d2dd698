#pragma once
// One gmgated per socket: a lock the kernel drops when the process dies, however it dies.

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace gmgate::ops {

class LockFile {
  public:
    // Creates `path` if need be, locks it, writes the process id into it. conflict: another process
    // holds it; the text names its id. The file stays when the lock goes: removing it would let two
    // processes lock two files of one name.
    [[nodiscard]] static Result<LockFile> take(const std::string& path);
    LockFile(LockFile&&) = default;
    LockFile& operator=(LockFile&&) = default;
    ~LockFile();

  private:
    explicit LockFile(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace gmgate::ops
