#pragma once
// Small helpers over mbufs.

#include <rte_mbuf.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/ip.h"

namespace gmgate::dataplane {

[[nodiscard]] inline std::uint8_t* frame_of(rte_mbuf* m) {
    return rte_pktmbuf_mtod(m, std::uint8_t*);
}
[[nodiscard]] inline std::span<const std::uint8_t> frame_bytes(rte_mbuf* m) {
    return {frame_of(m), m->data_len};
}

// One segment of our own to write in: joins segments where the first has room. false: it cannot be
// had.
[[nodiscard]] inline bool make_linear(rte_mbuf* m) {
    if (rte_mbuf_refcnt_read(m) != 1 || !RTE_MBUF_DIRECT(m)) return false;
    return m->nb_segs == 1 || rte_pktmbuf_linearize(m) == 0;
}

// An address as the tables hold it, from a packet.
[[nodiscard]] inline std::array<std::uint8_t, 16> load_address(const std::uint8_t* at, bool v6) {
    std::array<std::uint8_t, 16> a{};
    std::memcpy(a.data(), at, v6 ? 16 : 4);
    return a;
}

// The IPv4 address in one of those.
[[nodiscard]] inline std::array<std::uint8_t, 4> first_four(
    const std::array<std::uint8_t, 16>& address) {
    return {address[0], address[1], address[2], address[3]};
}

[[nodiscard]] inline bool address_equals(const std::uint8_t* at,
                                         const std::array<std::uint8_t, 16>& address, bool v6) {
    if (v6) return std::memcmp(at, address.data(), 16) == 0;
    return std::memcmp(at, address.data(), 4) == 0;
}

// Our Gm addresses, by family.
class OurAddresses {
  public:
    explicit OurAddresses(const std::vector<IpAddress>& addresses) {
        for (const IpAddress& a : addresses) (a.is_v6() ? v6_ : v4_).push_back(a.raw());
    }
    [[nodiscard]] bool contains(const std::uint8_t* at, bool v6) const {
        for (const auto& a : v6 ? v6_ : v4_) {
            if (address_equals(at, a, v6)) return true;
        }
        return false;
    }

  private:
    std::vector<std::array<std::uint8_t, 16>> v4_;
    std::vector<std::array<std::uint8_t, 16>> v6_;
};

}  // namespace gmgate::dataplane
