#pragma once
// Keyed hash (SipHash-1-3) for tables whose keys strangers choose: without the key they cannot make
// them collide.

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/random.h"

namespace gmgate {

class SeededHash {
  public:
    explicit SeededHash(Random& random) : k0_(random.u64()), k1_(random.u64()) {}
    SeededHash(std::uint64_t k0, std::uint64_t k1) : k0_(k0), k1_(k1) {}

    [[nodiscard]] std::uint64_t operator()(std::string_view text) const {
        std::uint64_t v0 = 0x736F6D6570736575ULL ^ k0_;
        std::uint64_t v1 = 0x646F72616E646F6DULL ^ k1_;
        std::uint64_t v2 = 0x6C7967656E657261ULL ^ k0_;
        std::uint64_t v3 = 0x7465646279746573ULL ^ k1_;
        const auto round = [&] {
            v0 += v1;
            v1 = std::rotl(v1, 13) ^ v0;
            v0 = std::rotl(v0, 32);
            v2 += v3;
            v3 = std::rotl(v3, 16) ^ v2;
            v0 += v3;
            v3 = std::rotl(v3, 21) ^ v0;
            v2 += v1;
            v1 = std::rotl(v1, 17) ^ v2;
            v2 = std::rotl(v2, 32);
        };
        const char* p = text.data();
        std::size_t left = text.size();
        for (; left >= 8; left -= 8, p += 8) {
            std::uint64_t m = 0;
            std::memcpy(&m, p, 8);
            v3 ^= m;
            round();
            v0 ^= m;
        }
        std::uint64_t last = static_cast<std::uint64_t>(text.size()) << 56U;
        for (std::size_t i = 0; i < left; ++i) {
            last |= static_cast<std::uint64_t>(static_cast<unsigned char>(p[i])) << (8 * i);
        }
        v3 ^= last;
        round();
        v0 ^= last;
        v2 ^= 0xFF;
        round();
        round();
        round();
        return v0 ^ v1 ^ v2 ^ v3;
    }

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
