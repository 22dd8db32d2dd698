#include "dataplane/dpdk/eal.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "base/log.h"

namespace gmgate::dataplane {
namespace {

std::mutex last_error_mutex;
std::string last_error_text;

ssize_t take_log(void* /*cookie*/, const char* text, std::size_t size) {
    std::string_view line(text, size);
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    if (line.empty()) return static_cast<ssize_t>(size);
    const int level = rte_log_cur_msg_loglevel();
    if (level > 0 && level <= static_cast<int>(RTE_LOG_ERR)) {
        {
            const std::lock_guard lock(last_error_mutex);
            last_error_text = line;
        }
        log::write(log::Level::warn, "dpdk", line);
    } else if (log::enabled(log::Level::debug)) {
        log::write(log::Level::debug, "dpdk", line);
    }
    return static_cast<ssize_t>(size);
}

void redirect_log() {
    cookie_io_functions_t functions{};
    functions.write = take_log;
    std::FILE* stream = ::fopencookie(nullptr, "w", functions);
    if (stream == nullptr) return;
    std::setvbuf(stream, nullptr, _IOLBF, 1024);
    rte_openlog_stream(stream);
}

bool process_lives(pid_t pid) {
    return ::kill(pid, 0) == 0 || errno != ESRCH;
}

}  // namespace

std::string last_dpdk_error() {
    const std::lock_guard lock(last_error_mutex);
    return last_error_text;
}

std::string dpdk_runtime_root() {
    if (::getuid() == 0) return "/var/run/dpdk";
    const char* xdg = std::getenv("XDG_RUNTIME_DIR");
    return std::string(xdg != nullptr ? xdg : "/tmp") + "/dpdk";
}

std::size_t remove_stale_runtime_dirs(const std::string& root, const std::string& prefix) {
    namespace fs = std::filesystem;
    std::size_t removed = 0;
    std::error_code error;
    const std::string start = prefix + "-";
    for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
        const std::string name = it->path().filename().string();
        if (!name.starts_with(start)) continue;
        const std::string_view digits = std::string_view(name).substr(start.size());
        pid_t pid = 0;
        const auto [rest, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), pid);
        if (bad != std::errc{} || rest != digits.data() + digits.size() || pid <= 0) continue;
        if (pid != ::getpid() && process_lives(pid)) continue;
        std::error_code failed;
        fs::remove_all(it->path(), failed);
        if (!failed) ++removed;
    }
    return removed;
}

Result<std::unique_ptr<Eal>> Eal::start(const EalOptions& options) {
    cpu_set_t before;
    CPU_ZERO(&before);
    if (::sched_getaffinity(0, sizeof(before), &before) != 0) {
        return fail(ErrorKind::io,
                    std::string("cannot read the CPU affinity: ") + std::strerror(errno));
    }
    int cpu = 0;
    while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &before)) ++cpu;

    redirect_log();
    remove_stale_runtime_dirs(dpdk_runtime_root(), options.runtime_prefix);
    // Process ids repeat in other pid namespaces: the prefix is ours, and no file is shared with
    // another process.
    const std::string prefix = options.runtime_prefix + "-" + std::to_string(::getpid());
    std::vector<std::string> arguments{"gmgate",
                                       "--lcores=0@" + std::to_string(cpu),
                                       "--file-prefix=" + prefix,
                                       "--iova-mode=va",
                                       "--no-telemetry",
                                       "--no-shconf",
                                       "--log-level=warning",
                                       "-m",
                                       std::to_string(options.memory_mb)};
    if (options.hugepages) {
        arguments.emplace_back("--huge-unlink=always");
    } else {
        arguments.emplace_back("--no-huge");
    }
    if (!options.pci) arguments.emplace_back("--no-pci");
    for (const std::string& device : options.devices) {
        arguments.emplace_back("-a");
        arguments.push_back(device);
    }
    // EAL moves the pointers about (getopt): the strings stay ours.
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& a : arguments) pointers.push_back(a.data());
    pointers.push_back(nullptr);

    const int done = rte_eal_init(static_cast<int>(arguments.size()), pointers.data());
    const int reason = rte_errno;
    ::sched_setaffinity(0, sizeof(before), &before);  // EAL pinned us to one CPU
    if (done < 0) {
        const std::string said = last_dpdk_error();
        std::string text = "DPDK did not start";
        if (reason == EALREADY) {
            text += ": it runs in this process already";
        } else if (reason == EACCES) {
            text +=
                ": permission denied; run as root, or give the program CAP_NET_ADMIN, CAP_NET_RAW, "
                "CAP_IPC_LOCK";
        } else if (options.hugepages) {
            text +=
                ": " + (said.empty() ? std::string(rte_strerror(reason)) : said) +
                "; are there hugepages (sysctl vm.nr_hugepages)? 'hugepages: false' runs without";
        } else {
            text += ": " + (said.empty() ? std::string(rte_strerror(reason)) : said) +
                    "; is there memory for " + std::to_string(options.memory_mb) +
                    " MiB (dpdk.memory_mb)?";
        }
        return fail(reason == EACCES ? ErrorKind::denied : ErrorKind::io, text);
    }
    std::unique_ptr<Eal> eal(new Eal());
    const char* dir = rte_eal_get_runtime_dir();
    if (dir != nullptr) eal->runtime_dir_ = dir;
    return eal;
}

Eal::~Eal() {
    rte_eal_cleanup();
    // Only a folder that bears our prefix.
    if (runtime_dir_.ends_with("-" + std::to_string(::getpid()))) {
        std::error_code ignored;
        std::filesystem::remove_all(runtime_dir_, ignored);
    }
}

}  // namespace gmgate::dataplane
