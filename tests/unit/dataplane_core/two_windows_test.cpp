// Backend `screen`: a packet passes two replay windows, the screen's and the kernel's. They may
// differ in size, and either may lose its memory; what must never happen is that one of them keeps
// refusing a phone (docs/decisions, "Two replay windows").
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <vector>

#include "base/random.h"
#include "dataplane/core/replay_window.h"

namespace gmgate::dataplane {
namespace {

// The screen's: the code of the fast path.
class ScreenWindow {
  public:
    explicit ScreenWindow(std::uint32_t bits) : bits_(bits) { forget(); }
    void forget() {
        highest_ = 0;
        window_ = 0;
        words_.assign(WideReplayWindow::words_for(bits_), 0);
    }
    // As SaTable fills a restored SA in.
    void restore(std::uint32_t highest) {
        forget();
        highest_ = highest;
        if (highest == 0) return;
        window_ = ~std::uint64_t{0};
        WideReplayWindow(words_.data(), words_.size()).fill(highest);
    }
    bool take(std::uint32_t s) {
        if (bits_ == 64) {
            if (ReplayWindow64::check(s, highest_, window_) != ReplayVerdict::fresh) return false;
            ReplayWindow64::advance(s, highest_, window_);
            return true;
        }
        WideReplayWindow wide(words_.data(), words_.size());
        if (wide.check(s, highest_) != ReplayVerdict::fresh) return false;
        wide.advance(s, highest_);
        return true;
    }

  private:
    std::uint32_t bits_;
    std::uint32_t highest_ = 0;
    std::uint64_t window_ = 0;
    std::vector<std::uint64_t> words_;
};

// The kernel's, by RFC 4303 3.4.3 and nothing else: a set of numbers and the highest of them.
class KernelWindow {
  public:
    explicit KernelWindow(std::uint32_t bits) : bits_(bits) {}
    void forget() {
        highest_ = 0;
        seen_.clear();
    }
    bool take(std::uint32_t s) {
        if (s == 0) return false;
        if (s <= highest_ && (highest_ - s >= bits_ || seen_.contains(s))) return false;
        highest_ = std::max(highest_, s);
        seen_.insert(s);
        while (*seen_.begin() + bits_ <= highest_) seen_.erase(seen_.begin());
        return true;
    }

  private:
    std::uint32_t bits_;
    std::uint32_t highest_ = 0;
    std::set<std::uint32_t> seen_;
};

// What arrives from one phone: numbers in rising order (with gaps that were lost), shuffled by at
// most `reach` places, some of them twice, some as replays of what came long ago.
std::vector<std::uint32_t> traffic(Random& random, std::size_t packets, std::uint32_t reach,
                                   bool gaps) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> all;
    std::uint32_t s = 0;
    for (std::size_t i = 0; i < packets; ++i) {
        s += 1 +
             (gaps && random.below(16) == 0 ? static_cast<std::uint32_t>(random.below(300)) : 0U);
        if (random.below(20) == 0) continue;  // lost on the way
        const std::size_t copies = 1 + (random.below(10) == 0 ? 1 : 0);
        for (std::size_t c = 0; c < copies; ++c) all.emplace_back(i + random.below(reach + 1), s);
        if (random.below(10) == 0)
            all.emplace_back(i, 1 + static_cast<std::uint32_t>(random.below(s)));
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::uint32_t> numbers;
    for (const auto& a : all) numbers.push_back(a.second);
    return numbers;
}

struct Sizes {
    std::uint32_t screen;
    std::uint32_t kernel;
};

class TwoWindows : public testing::TestWithParam<Sizes> {};

// The kernel sees what the screen let through, in that order, less what it lost: with a window at
// least as wide it refuses nothing of it, whatever the network did.
TEST_P(TwoWindows, InOrderTheKernelRefusesNothingTheScreenPassed) {
    SeededRandom random(21);
    std::size_t passed = 0;
    for (int run = 0; run < 40; ++run) {
        ScreenWindow screen(GetParam().screen);
        KernelWindow kernel(GetParam().kernel);
        const auto reach = static_cast<std::uint32_t>(random.below(3 * GetParam().screen));
        for (const std::uint32_t s : traffic(random, 2000, reach, true)) {
            if (random.below(3000) == 0)
                kernel.forget();  // its SA made anew: it knows less, not more
            if (!screen.take(s)) continue;
            ++passed;
            if (random.below(12) == 0) continue;  // the queue was full, or no memory
            ASSERT_TRUE(kernel.take(s)) << "run " << run << ", number " << s;
        }
    }
    EXPECT_GT(passed, 40U * 200);
}

// Nothing in front of it: the same traffic, for what the test above is worth.
TEST(TwoWindowsModel, TheTrafficHasWhatAWindowRefuses) {
    SeededRandom random(21);
    KernelWindow kernel(128);
    std::size_t refused = 0;
    for (const std::uint32_t s : traffic(random, 2000, 200, true))
        refused += kernel.take(s) ? 0 : 1;
    EXPECT_GT(refused, 200U);
}

TEST(TwoWindowsModel, ANarrowerKernelWindowDoesRefuse) {
    SeededRandom random(22);
    ScreenWindow screen(256);
    KernelWindow kernel(64);
    std::size_t refused = 0;
    for (const std::uint32_t s : traffic(random, 4000, 200, false)) {
        if (screen.take(s)) refused += kernel.take(s) ? 0 : 1;
    }
    EXPECT_GT(refused, 0U) << "why the configuration does not allow it";
}

// Something between the two changes the order after all (packet steering, crypto that finishes
// late): a window wider by what can overtake still refuses nothing.
TEST_P(TwoWindows, ReorderingInBetweenNeedsThatMuchMoreWindow) {
    SeededRandom random(23);
    constexpr std::uint32_t reach = 40;  // of the network
    constexpr std::size_t overtakers = 16;
    for (int run = 0; run < 40; ++run) {
        ScreenWindow screen(GetParam().screen);
        KernelWindow kernel(GetParam().screen + 2 * reach + overtakers);
        std::vector<std::pair<std::size_t, std::uint32_t>> between;
        std::size_t passed = 0;
        for (const std::uint32_t s : traffic(random, 2000, reach, false)) {
            if (screen.take(s)) between.emplace_back(passed++ + random.below(overtakers + 1), s);
        }
        std::stable_sort(between.begin(), between.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        for (const auto& [when, s] : between)
            ASSERT_TRUE(kernel.take(s)) << "run " << run << ", number " << s;
    }
}

// Either layer forgets, or is restored from what an earlier run had seen, at any time and any
// number of times: the phone's next packet (a number above all it has sent) passes both. Neither
// window can stand above what the phone itself has sent, so no disagreement lasts.
TEST_P(TwoWindows, WhateverIsForgottenTheNextPacketPassesBoth) {
    SeededRandom random(24);
    for (int run = 0; run < 200; ++run) {
        ScreenWindow screen(GetParam().screen);
        KernelWindow kernel(GetParam().kernel);
        std::vector<std::uint32_t> sent;
        std::uint32_t s = 0;
        for (int step = 0; step < 400; ++step) {
            switch (random.below(12)) {
                case 0:
                    screen.forget();
                    break;
                case 1:
                    kernel.forget();
                    break;
                case 2:  // from a snapshot as old as may be
                    screen.restore(s == 0 ? 0 : static_cast<std::uint32_t>(random.below(s + 1)));
                    break;
                case 3:
                case 4:
                case 5:  // replays by a stranger
                    if (!sent.empty()) {
                        const std::uint32_t old = sent[random.below(sent.size())];
                        if (screen.take(old)) (void)kernel.take(old);
                    }
                    break;
                default:
                    s += 1 + static_cast<std::uint32_t>(random.below(200));
                    sent.push_back(s);
                    ASSERT_TRUE(screen.take(s)) << "run " << run << " step " << step;
                    ASSERT_TRUE(kernel.take(s)) << "run " << run << " step " << step;
            }
        }
    }
}

// The screen restarts, the kernel keeps its states: what a stranger replays passes the screen once
// and ends in the kernel, and no packet is delivered twice.
TEST_P(TwoWindows, AnEmptiedScreenLetsNothingThroughTwice) {
    SeededRandom random(25);
    for (int run = 0; run < 40; ++run) {
        ScreenWindow screen(GetParam().screen);
        KernelWindow kernel(GetParam().kernel);
        std::set<std::uint32_t> delivered;
        for (const std::uint32_t s : traffic(random, 3000, 20, true)) {
            if (random.below(200) == 0) screen.forget();
            if (!screen.take(s) || !kernel.take(s)) continue;
            ASSERT_TRUE(delivered.insert(s).second) << s << " twice";
        }
        EXPECT_GT(delivered.size(), 1000U);
    }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TwoWindows,
                         testing::Values(Sizes{64, 64}, Sizes{64, 128}, Sizes{128, 128},
                                         Sizes{128, 256}, Sizes{1024, 1024}, Sizes{256, 4096}),
                         [](const auto& i) {
                             return std::to_string(i.param.screen) + "_" +
                                    std::to_string(i.param.kernel);
                         });

}  // namespace
}  // namespace gmgate::dataplane
