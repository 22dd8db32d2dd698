#include "tests/unit/dataplane_dpdk/eal_environment.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace gmgate::dataplane::test {

void start_eal() {
    static const bool started = [] {
        // Without root the runtime folder is taken from here.
        if (getuid() != 0 && getenv("XDG_RUNTIME_DIR") == nullptr)
            setenv("XDG_RUNTIME_DIR", "/tmp", 1);
        std::string prefix = "--file-prefix=gmgate-unit-" + std::to_string(getpid());
        std::array<std::string, 9> words{
            "unit", "--no-huge",   "--no-pci",       "-m",
            "64",   "--no-shconf", "--no-telemetry", "--log-level=critical",
            prefix};
        std::array<char*, 10> argv{};
        for (std::size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
        if (rte_eal_init(static_cast<int>(words.size()), argv.data()) < 0) {
            std::fprintf(stderr, "DPDK does not start: %s\n", rte_strerror(rte_errno));
            std::exit(EXIT_FAILURE);
        }
        // DPDK leaves its runtime folder behind.
        std::atexit([] {
            std::error_code ignored;
            std::filesystem::remove_all(rte_eal_get_runtime_dir(), ignored);
        });
        return true;
    }();
    (void)started;
}

rte_mempool* pool() {
    start_eal();
    static rte_mempool* const made = [] {
        rte_mempool* p =
            rte_pktmbuf_pool_create("unit", 1023, 0, 0, RTE_PKTMBUF_HEADROOM + 4096, SOCKET_ID_ANY);
        if (p == nullptr) {
            std::fprintf(stderr, "DPDK has no memory for the tests' buffers: %s\n",
                         rte_strerror(rte_errno));
            std::exit(EXIT_FAILURE);
        }
        return p;
    }();
    return made;
}

rte_mbuf* make_mbuf(const std::vector<std::uint8_t>& frame) {
    rte_mbuf* m = rte_pktmbuf_alloc(pool());
    if (m == nullptr) std::abort();
    char* at = rte_pktmbuf_append(m, static_cast<std::uint16_t>(frame.size()));
    if (at == nullptr) std::abort();
    std::copy(frame.begin(), frame.end(), at);
    return m;
}

std::vector<std::uint8_t> contents(const rte_mbuf* m) {
    const auto* at = rte_pktmbuf_mtod(m, const std::uint8_t*);
    return {at, at + m->data_len};
}

unsigned buffers_out() {
    return rte_mempool_in_use_count(pool());
}

}  // namespace gmgate::dataplane::test
