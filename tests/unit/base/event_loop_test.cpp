#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace gmgate {
namespace {

using namespace std::chrono_literals;

std::array<UniqueFd, 2> pair() {
    std::array<int, 2> fds{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

TEST(EventLoop, RunsPostedWorkInOrderOnItsThread) {
    const SystemClock clock;
    EventLoop loop(clock);
    std::vector<int> order;
    const auto self = std::this_thread::get_id();
    std::jthread poster([&] {
        for (int i = 0; i < 100; ++i) {
            loop.post([&order, i, self] {
                EXPECT_EQ(std::this_thread::get_id(), self);
                order.push_back(i);
            });
        }
        loop.stop();
    });
    loop.run();
    ASSERT_EQ(order.size(), 100U);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(EventLoop, WorkPostedByWorkRunsToo) {
    const SystemClock clock;
    EventLoop loop(clock);
    int depth = 0;
    std::function<void()> again = [&] {
        if (++depth < 10) {
            loop.post(again);
        } else {
            loop.stop();
        }
    };
    loop.post(again);
    loop.run();
    EXPECT_EQ(depth, 10);
}

TEST(EventLoop, TellsReadableAndWritable) {
    const SystemClock clock;
    EventLoop loop(clock);
    auto fds = pair();
    int writable = 0;
    std::string got;
    loop.watch(fds[0].get(), EventLoop::writable, [&](unsigned ready) {
        EXPECT_NE(ready & EventLoop::writable, 0U);
        if (++writable == 1) {
            EXPECT_EQ(::write(fds[0].get(), "hello", 5), 5);
            loop.change(fds[0].get(), 0);
        }
    });
    loop.watch(fds[1].get(), EventLoop::readable, [&](unsigned ready) {
        EXPECT_NE(ready & EventLoop::readable, 0U);
        std::array<char, 16> buffer{};
        const auto n = ::read(fds[1].get(), buffer.data(), buffer.size());
        if (n > 0) got.append(buffer.data(), static_cast<std::size_t>(n));
        loop.stop();
    });
    loop.run();
    EXPECT_EQ(got, "hello");
    EXPECT_EQ(writable, 1);
    loop.unwatch(fds[0].get());
    loop.unwatch(fds[1].get());
}

TEST(EventLoop, ACallbackMayUnwatchItselfAndOthers) {
    const SystemClock clock;
    EventLoop loop(clock);
    auto a = pair();
    auto b = pair();
    ASSERT_EQ(::write(a[1].get(), "x", 1), 1);
    ASSERT_EQ(::write(b[1].get(), "x", 1), 1);
    int calls = 0;
    const auto once = [&](unsigned) {
        ++calls;
        loop.unwatch(a[0].get());
        loop.unwatch(b[0].get());
        loop.post([&] { loop.stop(); });
    };
    loop.watch(a[0].get(), EventLoop::readable, once);
    loop.watch(b[0].get(), EventLoop::readable, once);
    loop.run();
    EXPECT_EQ(calls, 1);
    // The descriptor can be watched again.
    loop.watch(a[0].get(), EventLoop::readable, [&](unsigned) {
        ++calls;
        loop.unwatch(a[0].get());
        loop.stop();
    });
    loop.run();
    EXPECT_EQ(calls, 2);
}

TEST(EventLoop, TimersFireAndIdleFollowsThem) {
    const SystemClock clock;
    EventLoop loop(clock);
    std::vector<char> order;
    struct Context {
        EventLoop* loop;
        std::vector<char>* order;
    } context{&loop, &order};
    Timer timer(
        [](void* p) {
            auto* c = static_cast<Context*>(p);
            c->order->push_back('t');
            c->loop->stop();
        },
        &context);
    loop.on_idle([&] {
        if (!order.empty() && order.back() == 't') order.push_back('i');
    });
    loop.timers().start(timer, 2ms);
    loop.run();
    EXPECT_EQ(order, (std::vector<char>{'t', 'i'}));
}

TEST(EventLoop, SignalsArriveOnTheLoop) {
    const SystemClock clock;
    EventLoop loop(clock);
    int got = 0;
    loop.on_signal(SIGUSR1, [&] {
        ++got;
        loop.stop();
    });
    loop.post([] { ::raise(SIGUSR1); });
    loop.run();
    EXPECT_EQ(got, 1);
}

TEST(EventLoop, GoesWithEverythingStillInIt) {
    const SystemClock clock;
    auto fds = pair();
    Timer timer([](void*) {}, nullptr);
    {
        EventLoop loop(clock);
        loop.watch(fds[0].get(), EventLoop::readable, [](unsigned) {});
        loop.timers().start(timer, 1h);
        loop.post([] {});
        loop.on_signal(SIGUSR2, [] {});
    }
    EXPECT_FALSE(timer.active());
}

// Time passes only as timers say: each takes 30 µs.
class WorkClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override { return now_; }
    [[nodiscard]] std::chrono::system_clock::time_point wall() const override { return {}; }
    void work(Duration d) { now_ += d; }

  private:
    TimePoint now_{std::chrono::hours(1)};
};

TEST(EventLoop, ManyTimersAtOnceDoNotKeepDescriptorsWaiting) {
    struct Work {
        WorkClock clock;
        int done = 0;
        int since_round = 0;
        int longest = 0;
    } work;
    EventLoop loop(work.clock);
    constexpr int count = 5000;
    std::vector<Timer> timers(count);
    for (Timer& t : timers) {
        t.bind(
            [](void* p) {
                auto& w = *static_cast<Work*>(p);
                w.clock.work(30us);
                ++w.done;
                w.longest = std::max(w.longest, ++w.since_round);
            },
            &work);
        loop.timers().start(t, 1ms);
    }
    work.clock.work(1s);
    loop.on_idle([&] {
        work.since_round = 0;
        if (work.done == count) loop.stop();
    });
    loop.run();
    EXPECT_EQ(work.done, count);
    // 200 µs are 7 of them; the clock is asked after every 16.
    EXPECT_LE(work.longest, 16);
}

}  // namespace
}  // namespace gmgate
