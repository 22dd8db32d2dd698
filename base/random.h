#pragma once
// Randomness is injected too.

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace gmgate {

class Random {
  public:
    virtual ~Random() = default;
    virtual void fill(std::span<std::uint8_t> out) = 0;

    std::uint64_t u64() {
        std::array<std::uint8_t, 8> b{};
        fill(b);
        std::uint64_t v = 0;
        std::memcpy(&v, b.data(), 8);
        return v;
    }
    std::uint32_t u32() { return static_cast<std::uint32_t>(u64()); }
    // Uniform enough in [0, bound) for bounds far below 2^64; bound > 0.
    std::uint64_t below(std::uint64_t bound) { return u64() % bound; }
    // `octets` random octets as lower-case hex: tags, branches, Call-IDs.
    std::string token(std::size_t octets);
};

// getrandom(2), buffered (64 octets at a time would be a system call a tag): one instance per
// thread.
class SystemRandom final : public Random {
  public:
    ~SystemRandom() override;
    void fill(std::span<std::uint8_t> out) override;

  private:
    std::array<std::uint8_t, 1024> pool_{};
    std::size_t used_ = sizeof(pool_);
};

// xoshiro256**: the same seed, the same run. Tests and load generators only.
class SeededRandom final : public Random {
  public:
    explicit SeededRandom(std::uint64_t seed);
    void fill(std::span<std::uint8_t> out) override;

  private:
    std::uint64_t next();
    std::array<std::uint64_t, 4> state_{};
};

}  // namespace gmgate
