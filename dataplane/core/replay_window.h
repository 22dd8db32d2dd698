#pragma once
// Anti-replay (RFC 4303 3.4.3, A1), 32-bit sequence numbers. Checking and advancing are apart:
// check before the cryptography, advance only after the ICV has verified, so that a forged packet
// moves nothing.

#include <cstddef>
#include <cstdint>

namespace gmgate::dataplane {

enum class ReplayVerdict : std::uint8_t { fresh, seen, too_old };

// 64 packets in one word: bit i = (highest - i) was seen.
struct ReplayWindow64 {
    static constexpr std::uint32_t size = 64;

    [[nodiscard]] static ReplayVerdict check(std::uint32_t sequence, std::uint32_t highest,
                                             std::uint64_t window) {
        if (sequence > highest) return ReplayVerdict::fresh;
        const std::uint32_t behind = highest - sequence;
        if (behind >= size || sequence == 0) return ReplayVerdict::too_old;
        return ((window >> behind) & 1U) != 0 ? ReplayVerdict::seen : ReplayVerdict::fresh;
    }
    // `sequence` must be fresh.
    static void advance(std::uint32_t sequence, std::uint32_t& highest, std::uint64_t& window) {
        if (sequence > highest) {
            const std::uint32_t by = sequence - highest;
            window = by >= size ? 1 : (window << by) | 1U;
            highest = sequence;
        } else {
            window |= std::uint64_t{1} << (highest - sequence);
        }
    }
};

// bits = 64·n packets in a ring of n + 1 words: sequence s has bit s mod 64 of word (s / 64) mod (n
// + 1). Only whole words are ever cleared, so advancing costs no shifts; the one word more keeps
// the window exactly `bits` wide.
class WideReplayWindow {
  public:
    // Words a window of `bits` needs; bits a multiple of 64.
    [[nodiscard]] static constexpr std::size_t words_for(std::size_t bits) { return bits / 64 + 1; }

    // `words`: all zero at first; `count` = words_for(bits).
    WideReplayWindow(std::uint64_t* words, std::size_t count) : words_(words), count_(count) {}

    [[nodiscard]] ReplayVerdict check(std::uint32_t sequence, std::uint32_t highest) const {
        if (sequence > highest) return ReplayVerdict::fresh;
        if (sequence == 0 || highest - sequence >= (count_ - 1) * 64) return ReplayVerdict::too_old;
        return ((word(sequence) >> (sequence & 63U)) & 1U) != 0 ? ReplayVerdict::seen
                                                                : ReplayVerdict::fresh;
    }
    void advance(std::uint32_t sequence, std::uint32_t& highest) {
        if (sequence > highest) {
            const std::size_t blocks = (sequence >> 6U) - (highest >> 6U);
            for (std::size_t i = 1; i <= blocks && i <= count_; ++i)
                words_[((highest >> 6U) + i) % count_] = 0;
            highest = sequence;
        }
        word(sequence) |= std::uint64_t{1} << (sequence & 63U);
    }
    // As if every number up to `highest`, and none beyond, had been seen: after a restart.
    void fill(std::uint32_t highest) {
        for (std::size_t i = 0; i < count_; ++i) words_[i] = ~std::uint64_t{0};
        word(highest) >>= 63U - (highest & 63U);
    }

  private:
    [[nodiscard]] std::uint64_t& word(std::uint32_t sequence) const {
        return words_[(sequence >> 6U) % count_];
    }

    std::uint64_t* words_;
    std::size_t count_;
};

}  // namespace gmgate::dataplane
