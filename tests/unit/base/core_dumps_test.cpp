#include "base/core_dumps.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

namespace gmgate {
namespace {

// In a process of its own, in a folder of its own; its status as of wait(2).
int in_child(const std::function<void()>& what) {
    const auto folder = std::filesystem::path(testing::TempDir()) /
                        ("gmgate-core-dumps-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    const pid_t child = ::fork();
    if (child == 0) {
        if (::chdir(folder.c_str()) == 0) what();
        ::_exit(99);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    std::filesystem::remove_all(folder);
    return status;
}

// As an operator may from outside, or a unit's LimitCORE=.
void raise_limit() {
    const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
    (void)::setrlimit(RLIMIT_CORE, &all);
}

void crash() {
    ::signal(SIGABRT, SIG_DFL);
    ::raise(SIGABRT);
}

TEST(CoreDumps, BothSwitchesAreOff) {
    const int status = in_child([] {
        bool off = limit_core_dumps() && forbid_dumps();
        rlimit limit{1, 1};
        off = off && ::getrlimit(RLIMIT_CORE, &limit) == 0;
        off = off && limit.rlim_cur == 0 && limit.rlim_max == 0;
        ::_exit(off && ::prctl(PR_GET_DUMPABLE) == 0 ? 0 : 1);
    });
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(CoreDumps, ACrashLeavesNone) {
    const int free = in_child([] {
        raise_limit();
        crash();
    });
    ASSERT_TRUE(WIFSIGNALED(free));
    if (!WCOREDUMP(free)) GTEST_SKIP() << "this machine writes no core dumps, so none is missed";
    const int limited = in_child([] {
        raise_limit();
        if (limit_core_dumps()) crash();
    });
    EXPECT_TRUE(WIFSIGNALED(limited));
    EXPECT_FALSE(WCOREDUMP(limited));
    const int forbidden = in_child([] {
        raise_limit();
        if (forbid_dumps()) crash();
    });
    EXPECT_TRUE(WIFSIGNALED(forbidden));
    EXPECT_FALSE(WCOREDUMP(forbidden));
}

}  // namespace
}  // namespace gmgate
