#include "base/timer_wheel.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/random.h"

namespace gmgate {
namespace {

using namespace std::chrono_literals;

struct TimerWheelTest : testing::Test {
    ManualClock clock;
    TimerWheel wheel{clock};

    // Steps of at most `step`, as a loop would.
    void run(Duration by, Duration step = 1ms) {
        while (by > Duration::zero()) {
            const Duration d = std::min(by, step);
            clock.advance(d);
            wheel.advance();
            by -= d;
        }
    }
};

// Counts, and notes when.
struct Probe {
    explicit Probe(const Clock& c) : clock(c) { timer.bind<&Probe::fired>(this); }
    void fired() {
        ++count;
        at = clock.now();
        if (then) then();
    }
    const Clock& clock;
    Timer timer;
    int count = 0;
    TimePoint at{};
    std::function<void()> then;
};

TEST_F(TimerWheelTest, FiresOnceAndNeverEarly) {
    Probe p(clock);
    wheel.start(p.timer, 10ms);
    EXPECT_TRUE(p.timer.active());
    EXPECT_EQ(wheel.size(), 1U);
    run(9ms);
    EXPECT_EQ(p.count, 0);
    run(1ms);
    EXPECT_EQ(p.count, 1);
    EXPECT_FALSE(p.timer.active());
    EXPECT_EQ(wheel.size(), 0U);
    run(1h, 1s);
    EXPECT_EQ(p.count, 1);
}

TEST_F(TimerWheelTest, FractionsOfATickAreRoundedUp) {
    Probe p(clock);
    clock.advance(300us);
    const TimePoint due = clock.now() + 1500us;
    wheel.start(p.timer, 1500us);
    for (int i = 0; i < 40 && p.count == 0; ++i) {
        clock.advance(100us);
        wheel.advance();
    }
    EXPECT_EQ(p.count, 1);
    EXPECT_GE(p.at, due);
    EXPECT_LT(p.at, due + 1100us);
}

TEST_F(TimerWheelTest, StopAndRestart) {
    Probe p(clock);
    wheel.start(p.timer, 10ms);
    p.timer.stop();
    EXPECT_EQ(wheel.size(), 0U);
    run(20ms);
    EXPECT_EQ(p.count, 0);
    wheel.start(p.timer, 10ms);
    run(5ms);
    wheel.start(p.timer, 10ms);  // starts over
    EXPECT_EQ(wheel.size(), 1U);
    run(9ms);
    EXPECT_EQ(p.count, 0);
    run(1ms);
    EXPECT_EQ(p.count, 1);
}

TEST_F(TimerWheelTest, DeadlineIsKnownWhileActive) {
    Probe p(clock);
    const TimePoint due = clock.now() + 240s;
    wheel.start(p.timer, 240s);
    EXPECT_EQ(p.timer.deadline(), due);
    p.timer.stop();
    EXPECT_EQ(p.timer.deadline(), TimePoint::max());
}

TEST_F(TimerWheelTest, OneJumpFiresEverythingDueInOrder) {
    std::vector<int> order;
    std::vector<std::unique_ptr<Probe>> probes;
    const std::vector<Duration> delays{240s,    1ms,     256ms,   255ms, 257ms,
                                       65536ms, 65535ms, 65537ms, 1h,    0ms};
    for (std::size_t i = 0; i < delays.size(); ++i) {
        probes.push_back(std::make_unique<Probe>(clock));
        probes.back()->then = [&order, i] { order.push_back(static_cast<int>(i)); };
        wheel.start(probes.back()->timer, delays[i]);
    }
    clock.advance(2h);
    EXPECT_FALSE(wheel.advance());
    EXPECT_EQ(order, (std::vector<int>{9, 1, 3, 2, 4, 6, 5, 7, 0, 8}));
}

TEST_F(TimerWheelTest, RestartsItselfInItsCallback) {
    Probe p(clock);
    p.then = [&] {
        if (p.count < 5) wheel.start(p.timer, 3ms);
    };
    wheel.start(p.timer, 3ms);
    run(14ms);
    EXPECT_EQ(p.count, 4);
    run(10ms);
    EXPECT_EQ(p.count, 5);
}

TEST_F(TimerWheelTest, ZeroDelayInACallbackDoesNotStarveTheCaller) {
    Probe p(clock);
    p.then = [&] { wheel.start(p.timer, 0ms); };
    wheel.start(p.timer, 0ms);
    clock.advance(10ms);
    // Each firing lands on this tick or the next: a budget ends it in any case.
    wheel.advance(100);
    EXPECT_GE(p.count, 1);
    EXPECT_LE(p.count, 100);
    p.timer.stop();
}

TEST_F(TimerWheelTest, CallbackDestroysItsOwnTimerAndOthers) {
    struct Victims {
        std::unique_ptr<Probe> self;
        std::unique_ptr<Probe> same_tick;
        std::unique_ptr<Probe> later;
    } v;
    v.self = std::make_unique<Probe>(clock);
    v.same_tick = std::make_unique<Probe>(clock);
    v.later = std::make_unique<Probe>(clock);
    Timer killer(
        [](void* context) {
            auto* victims = static_cast<Victims*>(context);
            victims->self.reset();
            victims->same_tick.reset();
            victims->later.reset();
        },
        &v);
    wheel.start(v.self->timer, 20ms);
    wheel.start(killer, 5ms);
    wheel.start(v.same_tick->timer, 5ms);
    wheel.start(v.later->timer, 300ms);
    run(1s);
    EXPECT_EQ(v.self, nullptr);
    EXPECT_EQ(wheel.size(), 0U);

    // A timer that destroys the object it lives in.
    struct Self {
        std::unique_ptr<Self>* owner = nullptr;
        Timer timer;
        void fired() { owner->reset(); }
    };
    auto owner = std::make_unique<std::unique_ptr<Self>>(std::make_unique<Self>());
    (*owner)->owner = owner.get();
    (*owner)->timer.bind<&Self::fired>(owner->get());
    wheel.start((*owner)->timer, 7ms);
    run(10ms);
    EXPECT_EQ(*owner, nullptr);
}

TEST_F(TimerWheelTest, CallbackStopsATimerDueInTheSameTick) {
    Probe a(clock);
    Probe b(clock);
    a.then = [&] { b.timer.stop(); };
    wheel.start(a.timer, 5ms);
    wheel.start(b.timer, 5ms);
    clock.advance(5ms);
    wheel.advance();
    EXPECT_EQ(a.count, 1);
    EXPECT_EQ(b.count, 0);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(TimerWheelTest, BudgetIsKeptAndNothingIsLost) {
    std::vector<std::unique_ptr<Probe>> probes;
    int fired = 0;
    for (int i = 0; i < 5000; ++i) {
        probes.push_back(std::make_unique<Probe>(clock));
        probes.back()->then = [&fired] { ++fired; };
        wheel.start(probes.back()->timer,
                    100s);  // high up: moving them between levels costs budget too
    }
    clock.advance(200s);
    int calls = 0;
    int before = 0;
    while (wheel.advance(64)) {
        ++calls;
        EXPECT_LE(fired - before, 64);
        before = fired;
        EXPECT_EQ(wheel.until_next(), Duration::zero());
    }
    EXPECT_EQ(fired, 5000);
    EXPECT_GE(calls, 5000 / 64);
    EXPECT_EQ(wheel.size(), 0U);
}

TEST_F(TimerWheelTest, FarTimersSurviveAndFire) {
    Probe century(clock);
    Probe forever(clock);
    Probe year(clock);
    wheel.start(century.timer, std::chrono::hours(24 * 365 * 100));  // beyond the wheel's reach
    wheel.start(forever.timer, Duration::max());
    wheel.start(year.timer, std::chrono::hours(24));
    EXPECT_EQ(wheel.size(), 3U);
    clock.advance(std::chrono::hours(24) - 1ms);
    wheel.advance();
    EXPECT_EQ(year.count, 0);
    clock.advance(1ms);
    wheel.advance();
    EXPECT_EQ(year.count, 1);
    EXPECT_EQ(century.count, 0);
    EXPECT_EQ(forever.count, 0);
    EXPECT_EQ(wheel.size(), 2U);
}

TEST_F(TimerWheelTest, UntilNextIsNeverLate) {
    EXPECT_EQ(wheel.until_next(), Duration::max());
    SeededRandom random(7);
    for (int round = 0; round < 300; ++round) {
        Probe p(clock);
        const auto delay = std::chrono::milliseconds(random.below(round % 3 == 0 ? 300 : 100000));
        const TimePoint due = clock.now() + delay;
        wheel.start(p.timer, delay);
        // Sleep exactly as long as it says, as the event loop does.
        int wakes = 0;
        while (p.count == 0) {
            const Duration wait = wheel.until_next();
            ASSERT_NE(wait, Duration::max());
            ASSERT_LE(clock.now() + wait, due + 1ms);
            clock.advance(std::max<Duration>(wait, Duration::zero()));
            wheel.advance();
            ASSERT_LT(++wakes, 2000);
            if (wait == Duration::zero() && p.count == 0) clock.advance(1ms);
        }
        ASSERT_GE(p.at, due);
    }
}

TEST_F(TimerWheelTest, TheWheelMayGoBeforeItsTimers) {
    Probe p(clock);
    {
        TimerWheel short_lived(clock);
        short_lived.start(p.timer, 5ms);
    }
    EXPECT_FALSE(p.timer.active());
    p.timer.stop();
    wheel.start(p.timer, 5ms);
    run(5ms);
    EXPECT_EQ(p.count, 1);
}

TEST_F(TimerWheelTest, ALongIdleWheelStartsWhereTheClockIs) {
    clock.advance(std::chrono::hours(24 * 300));
    Probe p(clock);
    wheel.start(p.timer, 50ms);
    clock.advance(49ms);
    wheel.advance();
    EXPECT_EQ(p.count, 0);
    clock.advance(1ms);
    wheel.advance();
    EXPECT_EQ(p.count, 1);
}

// Against the obvious implementation: thousands of random starts, restarts, stops and advances must
// fire the same timers at the same ticks.
TEST(TimerWheelModel, BehavesAsASortedMap) {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        SeededRandom random(seed);
        ManualClock clock;
        TimerWheel wheel(clock);
        const TimePoint start = clock.now();

        struct Item {
            Timer timer;
            std::size_t index = 0;
            std::vector<std::size_t>* fired = nullptr;
            void on_timer() { fired->push_back(index); }
        };
        std::vector<std::size_t> fired;
        std::vector<std::unique_ptr<Item>> items;
        for (std::size_t i = 0; i < 200; ++i) {
            items.push_back(std::make_unique<Item>());
            items.back()->index = i;
            items.back()->fired = &fired;
            items.back()->timer.bind<&Item::on_timer>(items.back().get());
        }
        std::multimap<std::int64_t, std::size_t> model;  // due tick → item
        std::map<std::size_t, std::multimap<std::int64_t, std::size_t>::iterator> where;
        std::int64_t first_open = 0;
        const auto forget = [&](std::size_t i) {
            if (const auto it = where.find(i); it != where.end()) {
                model.erase(it->second);
                where.erase(it);
            }
        };

        for (int step = 0; step < 4000; ++step) {
            const std::size_t i = random.below(items.size());
            switch (random.below(4)) {
                case 0:
                case 1: {
                    // Delays around the borders of the levels, and anything between.
                    static constexpr std::array<std::uint64_t, 6> spans{2,     256,   257,
                                                                        65536, 70000, 5000000};
                    const auto ms = random.below(spans[random.below(spans.size())] + 1);
                    wheel.start(items[i]->timer, std::chrono::milliseconds(ms));
                    forget(i);
                    const std::int64_t now_ms = (clock.now() - start) / 1ms;
                    // A tick that was advanced past is over: what is due at once fires at the next.
                    where[i] = model.emplace(
                        std::max(now_ms + static_cast<std::int64_t>(ms), first_open), i);
                    break;
                }
                case 2:
                    items[i]->timer.stop();
                    forget(i);
                    break;
                default: {
                    static constexpr std::array<std::uint64_t, 5> jumps{0, 1, 300, 20000, 400000};
                    clock.advance(std::chrono::milliseconds(
                        random.below(jumps[random.below(jumps.size())] + 1)));
                    fired.clear();
                    const std::size_t budget = 1 + random.below(50);
                    while (wheel.advance(budget)) {
                    }
                    const std::int64_t now_ms = (clock.now() - start) / 1ms;
                    first_open = now_ms + 1;
                    std::vector<std::int64_t> expected_ticks;
                    std::vector<std::size_t> expected;
                    while (!model.empty() && model.begin()->first <= now_ms) {
                        expected.push_back(model.begin()->second);
                        expected_ticks.push_back(model.begin()->first);
                        where.erase(model.begin()->second);
                        model.erase(model.begin());
                    }
                    // Same tick: any order. So compare as sets, tick by tick.
                    ASSERT_EQ(fired.size(), expected.size()) << "seed " << seed << " step " << step;
                    std::map<std::size_t, std::int64_t> tick_of;
                    for (std::size_t k = 0; k < expected.size(); ++k)
                        tick_of[expected[k]] = expected_ticks[k];
                    for (std::size_t k = 0; k < fired.size(); ++k) {
                        ASSERT_TRUE(tick_of.contains(fired[k]))
                            << "seed " << seed << " step " << step;
                        ASSERT_EQ(tick_of[fired[k]], expected_ticks[k])
                            << "order, seed " << seed << " step " << step;
                    }
                }
            }
            ASSERT_EQ(wheel.size(), model.size()) << "seed " << seed << " step " << step;
        }
    }
}

}  // namespace
}  // namespace gmgate
