#pragma once
// DPDK for tests: ordinary memory, no device, no files left behind; root is not needed.

#include <rte_mbuf.h>

#include <cstdint>
#include <vector>

namespace gmgate::dataplane::test {

// Started once per process, at the first call; ends the process with a clear line if DPDK refuses.
void start_eal();

// Buffers of 4 KiB data room. The tests count what is out: a packet must be in a list or back here.
rte_mempool* pool();
// One buffer with these octets behind the usual headroom.
rte_mbuf* make_mbuf(const std::vector<std::uint8_t>& frame);
std::vector<std::uint8_t> contents(const rte_mbuf* m);
unsigned buffers_out();

}  // namespace gmgate::dataplane::test
