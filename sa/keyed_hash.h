#pragma once
// SipHash-2-4: the hash of tables whose keys strangers choose (addresses, ports, identities).

#include <cstdint>
#include <span>
#include <string_view>

#include "base/ip.h"
#include "base/random.h"

namespace gmgate::sa {

class KeyedHash {
  public:
    KeyedHash(std::uint64_t key0, std::uint64_t key1) : key0_(key0), key1_(key1) {}
    explicit KeyedHash(Random& random) : key0_(random.u64()), key1_(random.u64()) {}

    [[nodiscard]] std::uint64_t operator()(std::span<const std::uint8_t> bytes) const;
    [[nodiscard]] std::uint64_t operator()(std::string_view text) const;
    [[nodiscard]] std::uint64_t operator()(const IpAddress& ip, std::uint16_t a,
                                           std::uint16_t b) const;

  private:
    std::uint64_t key0_;
    std::uint64_t key1_;
};

}  // namespace gmgate::sa
