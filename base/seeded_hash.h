#pragma once
// Keyed hash (SipHash-2-4) for tables whose keys strangers choose (addresses, ports, identities):
// without the key they cannot make them collide.

#include <cstdint>
#include <span>
#include <string_view>

#include "base/ip.h"
#include "base/random.h"

namespace gmgate {

class SeededHash {
  public:
    explicit SeededHash(Random& random) : k0_(random.u64()), k1_(random.u64()) {}
    SeededHash(std::uint64_t k0, std::uint64_t k1) : k0_(k0), k1_(k1) {}

    [[nodiscard]] std::uint64_t operator()(std::span<const std::uint8_t> octets) const;
    [[nodiscard]] std::uint64_t operator()(std::string_view text) const;
    [[nodiscard]] std::uint64_t operator()(const IpAddress& ip, std::uint16_t a,
                                           std::uint16_t b) const;

  private:
    std::uint64_t k0_;
    std::uint64_t k1_;
};

// For unordered_map<std::string, T, SeededStringHash, std::equal_to<>> with lookup by string_view.
struct SeededStringHash {
    using is_transparent = void;
    SeededHash hash;
    std::size_t operator()(std::string_view text) const { return hash(text); }
};

}  // namespace gmgate
