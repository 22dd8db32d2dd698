#pragma once
// One thread's loop: descriptors, timers, and work posted by other threads. Built on libuv.
//
// Procedures do not see it: they get a TimerWheel and a transport. Only transports, the operator's
// API and main do.

#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/timer_wheel.h"

namespace gmgate {

class EventLoop {
  public:
    enum Interest : unsigned { readable = 1, writable = 2 };
    // `ready`: the Interest bits that are true now. May unwatch any descriptor, its own too.
    using FdCallback = std::function<void(unsigned ready)>;

    explicit EventLoop(const Clock& clock);
    ~EventLoop();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // The loop's own thread. The descriptor stays the caller's and must be unwatched before it is
    // closed.
    void watch(int fd, unsigned interest, FdCallback callback);
    void change(int fd, unsigned interest);
    void unwatch(int fd);

    // Any thread: run `work` on the loop's thread. Returns at once.
    void post(std::function<void()> work);

    // SIGINT, SIGTERM and the like, delivered on the loop's thread.
    void on_signal(int signal, std::function<void()> callback);

    // After each round of I/O and timers: the place to flush batches (sendmmsg). Called in the
    // order added.
    void on_idle(std::function<void()> callback);

    [[nodiscard]] TimerWheel& timers();
    void run();   // until stop()
    void stop();  // any thread

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate
