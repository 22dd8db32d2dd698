#include "dataplane/core/replay_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace gmgate::dataplane {
namespace {

// One interface over both windows, and a model of what a window of `bits` must say.
class Window {
  public:
    explicit Window(std::uint32_t bits) : bits_(bits), words_(WideReplayWindow::words_for(bits)) {}
    [[nodiscard]] ReplayVerdict check(std::uint32_t sequence) {
        if (!wide()) return ReplayWindow64::check(sequence, highest_, window_);
        return WideReplayWindow(words_.data(), words_.size()).check(sequence, highest_);
    }
    void advance(std::uint32_t sequence) {
        if (!wide()) {
            ReplayWindow64::advance(sequence, highest_, window_);
        } else {
            WideReplayWindow(words_.data(), words_.size()).advance(sequence, highest_);
        }
    }
    // check, then advance if fresh: what the fast path does with an authentic packet.
    ReplayVerdict receive(std::uint32_t sequence) {
        const ReplayVerdict verdict = check(sequence);
        if (verdict == ReplayVerdict::fresh) advance(sequence);
        return verdict;
    }
    [[nodiscard]] std::uint32_t highest() const { return highest_; }

  private:
    [[nodiscard]] bool wide() const { return bits_ != 64; }
    std::uint32_t bits_;
    std::uint32_t highest_ = 0;
    std::uint64_t window_ = 0;
    std::vector<std::uint64_t> words_;
};

class ReplayWindow : public testing::TestWithParam<std::uint32_t> {};

TEST_P(ReplayWindow, RefusesADuplicateAtEveryPosition) {
    const std::uint32_t bits = GetParam();
    // From every alignment of the highest number within a word.
    for (std::uint32_t start = 1; start <= 64; ++start) {
        Window w(bits);
        const std::uint32_t highest = start + 2 * bits;
        for (std::uint32_t s = start; s <= highest; ++s)
            ASSERT_EQ(w.receive(s), ReplayVerdict::fresh) << s;
        for (std::uint32_t behind = 0; behind < bits; ++behind) {
            ASSERT_EQ(w.check(highest - behind), ReplayVerdict::seen)
                << "start " << start << ", behind " << behind;
        }
        ASSERT_EQ(w.check(highest - bits), ReplayVerdict::too_old);
        ASSERT_EQ(w.check(start), ReplayVerdict::too_old);
    }
}

TEST_P(ReplayWindow, AcceptsALatePacketOnceAtEveryPosition) {
    const std::uint32_t bits = GetParam();
    for (std::uint32_t behind = 1; behind < bits; ++behind) {
        Window w(bits);
        const std::uint32_t highest = 3 * bits + 17;
        ASSERT_EQ(w.receive(highest), ReplayVerdict::fresh);
        ASSERT_EQ(w.receive(highest - behind), ReplayVerdict::fresh) << behind;
        ASSERT_EQ(w.receive(highest - behind), ReplayVerdict::seen) << behind;
        ASSERT_EQ(w.receive(highest), ReplayVerdict::seen);
        ASSERT_EQ(w.highest(), highest);
    }
}

TEST_P(ReplayWindow, ZeroIsNeverFresh) {
    Window w(GetParam());
    EXPECT_EQ(w.check(0), ReplayVerdict::too_old);
    EXPECT_EQ(w.receive(1), ReplayVerdict::fresh);
    EXPECT_EQ(w.check(0), ReplayVerdict::too_old);
    EXPECT_EQ(w.receive(1), ReplayVerdict::seen);
}

TEST_P(ReplayWindow, CheckingMovesNothing) {
    Window w(GetParam());
    ASSERT_EQ(w.receive(5), ReplayVerdict::fresh);
    // A forged packet with a number far ahead is only checked.
    EXPECT_EQ(w.check(0xFFFFFFF0U), ReplayVerdict::fresh);
    EXPECT_EQ(w.receive(6), ReplayVerdict::fresh);
}

TEST_P(ReplayWindow, JumpsForgetWhatLiesBehind) {
    const std::uint32_t bits = GetParam();
    for (const std::uint32_t jump :
         {1U, 63U, 64U, 65U, bits - 1, bits, bits + 1, 3 * bits, 0x10000U}) {
        Window w(bits);
        for (std::uint32_t s = 1; s <= bits; ++s) ASSERT_EQ(w.receive(s), ReplayVerdict::fresh);
        const std::uint32_t top = bits + jump;
        ASSERT_EQ(w.receive(top), ReplayVerdict::fresh);
        for (std::uint32_t behind = 1; behind < bits; ++behind) {
            const std::uint32_t s = top - behind;
            ASSERT_EQ(w.check(s), s <= bits ? ReplayVerdict::seen : ReplayVerdict::fresh)
                << jump << " " << s;
        }
    }
}

TEST_P(ReplayWindow, ReachesTheLastNumberAndDoesNotWrap) {
    Window w(GetParam());
    ASSERT_EQ(w.receive(0xFFFFFFFEU), ReplayVerdict::fresh);
    ASSERT_EQ(w.receive(0xFFFFFFFFU), ReplayVerdict::fresh);
    EXPECT_EQ(w.receive(0xFFFFFFFFU), ReplayVerdict::seen);
    EXPECT_EQ(w.receive(1), ReplayVerdict::too_old);
}

TEST_P(ReplayWindow, AgreesWithAModelOnRandomTraffic) {
    const std::uint32_t bits = GetParam();
    std::mt19937 random(bits);
    Window w(bits);
    std::set<std::uint32_t> seen;
    std::uint32_t highest = 0;
    for (int n = 0; n < 50000; ++n) {
        const std::uint32_t base = highest + 8 > 2 * bits ? highest + 8 - 2 * bits : 1;
        std::uint32_t s = base + static_cast<std::uint32_t>(random()) % (2 * bits);
        if (random() % 500 == 0) s += 5 * bits;
        ReplayVerdict expected = ReplayVerdict::fresh;
        if (s <= highest && highest - s >= bits) {
            expected = ReplayVerdict::too_old;
        } else if (seen.contains(s)) {
            expected = ReplayVerdict::seen;
        }
        ASSERT_EQ(w.receive(s), expected) << s << " with highest " << highest;
        seen.insert(s);
        highest = std::max(highest, s);
    }
}

INSTANTIATE_TEST_SUITE_P(Widths, ReplayWindow, testing::Values(64U, 128U, 192U, 256U, 1024U));

TEST(WideReplayWindowFill, CountsEverythingAsSeen) {
    std::vector<std::uint64_t> words(WideReplayWindow::words_for(128));
    WideReplayWindow w(words.data(), words.size());
    std::uint32_t highest = 1000;
    w.fill(highest);
    for (std::uint32_t s = 1000 - 127; s <= 1000; ++s)
        EXPECT_EQ(w.check(s, highest), ReplayVerdict::seen);
    EXPECT_EQ(w.check(1001, highest), ReplayVerdict::fresh);
    // What comes after it and out of order is not seen before it came.
    w.advance(1020, highest);
    EXPECT_EQ(w.check(1020, highest), ReplayVerdict::seen);
    for (std::uint32_t s = 1001; s < 1020; ++s) {
        EXPECT_EQ(w.check(s, highest), ReplayVerdict::fresh) << s;
        w.advance(s, highest);
        EXPECT_EQ(w.check(s, highest), ReplayVerdict::seen) << s;
    }
}

}  // namespace
}  // namespace gmgate::dataplane
