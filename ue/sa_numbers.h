#pragma once
// The SPIs and ports of the four SAs of a set (A2), named as in TS 33.203 7.1. The phone's own
// words: it shares nothing of sa/ but the algorithms.

#include <cstdint>

namespace gmgate::ue {

using Spi = std::uint32_t;   // host order; 0–255 are reserved
using Port = std::uint16_t;  // host order

struct SaNumbers {
    Spi spi_uc = 0;  // ours, inbound at port_uc
    Spi spi_us = 0;  // ours, inbound at port_us
    Spi spi_pc = 0;  // the P-CSCF's, inbound at port_pc
    Spi spi_ps = 0;  // the P-CSCF's, inbound at port_ps
    Port port_uc = 0;
    Port port_us = 0;
    Port port_pc = 0;
    Port port_ps = 0;
    bool operator==(const SaNumbers&) const = default;
};

}  // namespace gmgate::ue
