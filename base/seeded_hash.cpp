#include "base/seeded_hash.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/bytes.h"

namespace gmgate {

namespace {

// The SipHash state and its one round.
struct Sip {
    std::uint64_t v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v2 += v3;
        v1 = std::rotl(v1, 13) ^ v0;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 = std::rotl(v0, 32);
        v2 += v1;
        v0 += v3;
        v1 = std::rotl(v1, 17) ^ v2;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 = std::rotl(v2, 32);
    }
    void absorb(std::uint64_t word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }
};

}  // namespace

std::uint64_t SeededHash::operator()(std::span<const std::uint8_t> bytes) const {
    static_assert(std::endian::native == std::endian::little,
                  "words are taken as they lie in memory");
    Sip sip{k0_ ^ 0x736F6D6570736575ULL, k1_ ^ 0x646F72616E646F6DULL, k0_ ^ 0x6C7967656E657261ULL,
            k1_ ^ 0x7465646279746573ULL};
    std::size_t at = 0;
    for (; at + 8 <= bytes.size(); at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + at, 8);
        sip.absorb(word);
    }
    std::uint64_t last = 0;
    if (at < bytes.size()) std::memcpy(&last, bytes.data() + at, bytes.size() - at);
    sip.absorb(last | (static_cast<std::uint64_t>(bytes.size() & 0xFFU) << 56U));
    sip.v2 ^= 0xFF;
    for (int i = 0; i < 4; ++i) sip.round();
    return sip.v0 ^ sip.v1 ^ sip.v2 ^ sip.v3;
}

std::uint64_t SeededHash::operator()(std::string_view text) const {
    return (*this)(as_bytes(text));
}

std::uint64_t SeededHash::operator()(const IpAddress& ip, std::uint16_t a, std::uint16_t b) const {
    std::array<std::uint8_t, 21> key{};
    std::memcpy(key.data(), ip.raw().data(), 16);
    std::memcpy(&key[16], &a, 2);
    std::memcpy(&key[18], &b, 2);
    key[20] = ip.is_v6() ? 1 : 0;
    return (*this)(std::span<const std::uint8_t>(key));
}

}  // namespace gmgate
