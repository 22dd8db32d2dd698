#pragma once
// Hierarchical timing wheel: start, restart and stop are O(1), whatever the number of timers;
// expiry is O(1) amortised. Ticks are 1 ms. One thread. Driven by an injected clock, so a test
// advances 240 s in no time.

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/clock.h"

namespace gmgate {

class TimerWheel;

// Intrusive: lives inside the object it times; no allocation. Stops itself when destroyed. Does not
// move.
class Timer {
  public:
    using Callback = void (*)(void* context);

    Timer() = default;
    Timer(Callback callback, void* context) : callback_(callback), context_(context) {}
    ~Timer() { stop(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void bind(Callback callback, void* context) {
        callback_ = callback;
        context_ = context;
    }
    // Convenience: `timer.bind<&Procedure::on_timeout>(this)`.
    template <auto Method, class T>
    void bind(T* object) {
        bind([](void* p) { (static_cast<T*>(p)->*Method)(); }, object);
    }
    [[nodiscard]] bool active() const { return wheel_ != nullptr; }
    // Meaningful while active.
    [[nodiscard]] TimePoint deadline() const;
    void stop();

  private:
    friend class TimerWheel;
    Timer* prev_ = nullptr;
    Timer* next_ = nullptr;
    TimerWheel* wheel_ = nullptr;
    std::uint64_t tick_ = 0;
    Callback callback_ = nullptr;
    void* context_ = nullptr;
};

class TimerWheel {
  public:
    explicit TimerWheel(const Clock& clock);
    ~TimerWheel();
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;

    // (Re)starts `timer` to fire `after` from now, rounded up to a tick; never fires early.
    void start(Timer& timer, Duration after);
    void start_at(Timer& timer, TimePoint when);

    // Fires what is due, at most `budget` steps of work (a callback or a timer moved between
    // levels), so that a million timers due at once cannot stall the loop. Returns true if work is
    // left: call again soon.
    bool advance(std::size_t budget = std::numeric_limits<std::size_t>::max());

    // How long until advance() has something to do; Duration::max() if there is no timer. May be
    // early, never late.
    [[nodiscard]] Duration until_next() const;
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] TimePoint now() const { return clock_.now(); }
    [[nodiscard]] const Clock& clock() const { return clock_; }

  private:
    friend class Timer;
    static constexpr unsigned levels = 5;
    static constexpr unsigned bits = 8;
    static constexpr std::size_t slots = 1U << bits;

    // A circular list with a sentinel.
    struct List {
        Timer head;
        List() { head.prev_ = head.next_ = &head; }
        [[nodiscard]] bool empty() const { return head.next_ == &head; }
        void push(Timer& t);
        void splice_from(List& other);
    };

    void insert(Timer& timer);
    void unlink(Timer& timer);
    [[nodiscard]] std::uint64_t tick_of(TimePoint t) const;

    const Clock& clock_;
    TimePoint epoch_;
    std::uint64_t current_ = 0;  // all ticks below are done
    std::size_t size_ = 0;
    std::array<std::array<List, slots>, levels> wheel_;
    List cascade_;  // taken from a higher level, not yet put back lower
    List due_;      // expired, not yet called
};

}  // namespace gmgate
