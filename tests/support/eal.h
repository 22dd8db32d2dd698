#pragma once
// Starts DPDK's EAL for a test or a benchmark: no NIC, no telemetry, no files left behind. What
// cannot start ends the program with one line. Main thread, once a process.

#include <rte_eal.h>
#include <rte_errno.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::test {

// `name` of the program, in the file prefix with its process id; `memory_mb` of ordinary pages, or
// of huge pages.
enum class EalPages : std::uint8_t { ordinary, huge };
inline void start_eal(std::string_view name, unsigned memory_mb,
                      EalPages pages = EalPages::ordinary) {
    // Without root the runtime folder is taken from here.
    if (getuid() != 0 && getenv("XDG_RUNTIME_DIR") == nullptr) setenv("XDG_RUNTIME_DIR", "/tmp", 1);
    std::vector<std::string> words{std::string(name),     "--no-pci", "--no-shconf",
                                   "--no-telemetry",      "-m",       std::to_string(memory_mb),
                                   "--log-level=critical"};
    if (pages == EalPages::huge) {
        words.emplace_back("--in-memory");
    } else {
        words.emplace_back("--no-huge");
        words.push_back("--file-prefix=gmgate-" + std::string(name) + "-" +
                        std::to_string(getpid()));
    }
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    if (rte_eal_init(static_cast<int>(argv.size()), argv.data()) < 0) {
        std::fprintf(stderr, "DPDK does not start: %s\n", rte_strerror(rte_errno));
        std::exit(EXIT_FAILURE);
    }
    // DPDK leaves its runtime folder behind.
    std::atexit([] {
        std::error_code ignored;
        std::filesystem::remove_all(rte_eal_get_runtime_dir(), ignored);
    });
}

}  // namespace gmgate::test
