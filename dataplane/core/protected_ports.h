#pragma once
// Which of our ports carry ESP only (A6): one bit a port, 8 KiB.

#include <array>
#include <cstdint>

namespace gmgate::dataplane {

// Filled before the workers start, read by them afterwards.
class ProtectedPorts {
  public:
    void add(std::uint16_t port) { words_[port >> 6U] |= std::uint64_t{1} << (port & 63U); }
    // Both ends included; first <= last.
    void add_range(std::uint16_t first, std::uint16_t last) {
        for (std::uint32_t p = first; p <= last; ++p) add(static_cast<std::uint16_t>(p));
    }
    [[nodiscard]] bool contains(std::uint16_t port) const {
        return ((words_[port >> 6U] >> (port & 63U)) & 1U) != 0;
    }

  private:
    std::array<std::uint64_t, 1024> words_{};
};

}  // namespace gmgate::dataplane
