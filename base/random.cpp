#include "base/random.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>

#include "base/secret.h"

namespace gmgate {

std::string Random::token(std::size_t octets) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text(octets * 2, '0');
    std::array<std::uint8_t, 32> block{};
    for (std::size_t i = 0; i < octets; i += block.size()) {
        const std::size_t n = std::min(block.size(), octets - i);
        fill(std::span(block).first(n));
        for (std::size_t k = 0; k < n; ++k) {
            text[2 * (i + k)] = digits[block[k] >> 4U];
            text[2 * (i + k) + 1] = digits[block[k] & 15U];
        }
    }
    return text;
}

SystemRandom::~SystemRandom() {
    wipe(pool_);
}

void SystemRandom::fill(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        if (used_ == pool_.size()) {
            std::size_t have = 0;
            while (have < pool_.size()) {
                const ssize_t n = getrandom(pool_.data() + have, pool_.size() - have, 0);
                if (n < 0 && errno != EINTR)
                    std::abort();  // no randomness, no security: there is no way on
                if (n > 0) have += static_cast<std::size_t>(n);
            }
            used_ = 0;
        }
        const std::size_t n = std::min(out.size(), pool_.size() - used_);
        std::copy_n(pool_.begin() + static_cast<std::ptrdiff_t>(used_), n, out.begin());
        wipe(std::span(pool_).subspan(used_, n));
        used_ += n;
        out = out.subspan(n);
    }
}

SeededRandom::SeededRandom(std::uint64_t seed) {
    for (auto& s : state_) {  // splitmix64
        seed += 0x9E3779B97F4A7C15ULL;
        std::uint64_t z = seed;
        z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
        s = z ^ (z >> 31U);
    }
}

std::uint64_t SeededRandom::next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t t = state_[1] << 17U;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
}

void SeededRandom::fill(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        const std::uint64_t v = next();
        const std::size_t n = std::min<std::size_t>(8, out.size());
        std::memcpy(out.data(), &v, n);
        out = out.subspan(n);
    }
}

}  // namespace gmgate
