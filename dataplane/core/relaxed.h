#pragma once
// A number with one writer thread and any number of readers: costs the writer what a plain number
// costs, and is no data race.

#include <atomic>
#include <limits>

namespace gmgate::dataplane {

template <class T>
class Relaxed {
  public:
    Relaxed() = default;
    explicit Relaxed(T v) : value_(v) {}
    [[nodiscard]] T get() const { return value_.load(std::memory_order_relaxed); }
    void set(T v) { value_.store(v, std::memory_order_relaxed); }
    // The writer's thread only: no read-modify-write instruction on the bus.
    void add(T n = 1) { set(static_cast<T>(get() + n)); }
    void add_saturating(T n = 1) {
        const T v = get();
        set(v > static_cast<T>(std::numeric_limits<T>::max() - n) ? std::numeric_limits<T>::max()
                                                                  : static_cast<T>(v + n));
    }

  private:
    std::atomic<T> value_{};
    static_assert(std::atomic<T>::is_always_lock_free);
};

}  // namespace gmgate::dataplane
