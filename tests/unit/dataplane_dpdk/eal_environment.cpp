#include "tests/unit/dataplane_dpdk/eal_environment.h"

#include <rte_errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/support/eal.h"

namespace gmgate::dataplane::test {

void start_eal() {
    static const bool started = [] {
        gmgate::test::start_eal("unit", 64);
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
