#pragma once
// Packets that came to the wrong worker go to their owner: one ring per ordered pair of workers,
// never waiting.

#include <rte_mbuf.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace gmgate::dataplane {

// What the receiver does with it.
enum class HandOverKind : std::uint8_t { inbound, outbound, inbound_fragment, outbound_fragment };

struct HandedOver {
    rte_mbuf* packet = nullptr;
    HandOverKind kind{};
};

// One producer, one consumer. Plain atomics rather than rte_ring: the element carries its kind, and
// the thread sanitizer follows it.
class HandOverRing {
  public:
    static constexpr std::size_t size = 1024;

    // False when full.
    bool push(HandedOver item) {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        if (head - cached_tail_ == size) {
            cached_tail_ = tail_.load(std::memory_order_acquire);
            if (head - cached_tail_ == size) return false;
        }
        slots_[head % size] = item;
        head_.store(head + 1, std::memory_order_release);
        return true;
    }
    // Up to `max`; what was there when it was called.
    std::size_t pop(HandedOver* out, std::size_t max) {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        const std::size_t there = head_.load(std::memory_order_acquire) - tail;
        const std::size_t n = there < max ? there : max;
        for (std::size_t i = 0; i < n; ++i) out[i] = slots_[(tail + i) % size];
        if (n != 0) tail_.store(tail + n, std::memory_order_release);
        return n;
    }
    [[nodiscard]] bool empty() const {
        return tail_.load(std::memory_order_acquire) == head_.load(std::memory_order_acquire);
    }

  private:
    alignas(64) std::atomic<std::size_t> head_{0};
    std::size_t cached_tail_ = 0;  // the producer's
    alignas(64) std::atomic<std::size_t> tail_{0};
    alignas(64) std::array<HandedOver, size> slots_{};
};

// Who sleeps, and how to wake him.
class Doorbell {
  public:
    Doorbell();  // start-up: throws std::system_error
    ~Doorbell();
    Doorbell(const Doorbell&) = delete;
    Doorbell& operator=(const Doorbell&) = delete;

    [[nodiscard]] int fd() const { return fd_; }
    // Any thread. True if the sleeper had to be woken.
    bool ring();
    // The sleeper: announce(), look at every source once more, poll(2) on fd() among others,
    // answer(whether fd() was readable).
    void announce() {
        asleep_.store(true, std::memory_order_seq_cst);
        // The sources are read with less than seq_cst: without the fence before the announcement is
        // seen.
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    void answer(bool readable);

  private:
    int fd_ = -1;
    std::atomic<bool> asleep_{false};
};

class HandOver {
  public:
    explicit HandOver(unsigned workers);
    ~HandOver();  // frees what is left in the rings; the workers have stopped
    HandOver(const HandOver&) = delete;
    HandOver& operator=(const HandOver&) = delete;

    [[nodiscard]] unsigned workers() const { return workers_; }
    [[nodiscard]] HandOverRing& ring(unsigned from, unsigned to) {
        return *rings_[from * workers_ + to];
    }
    [[nodiscard]] Doorbell& doorbell(unsigned worker) { return *doorbells_[worker]; }
    // Nothing for `worker` in any ring.
    [[nodiscard]] bool empty_for(unsigned worker) const;

  private:
    unsigned workers_;
    std::vector<std::unique_ptr<HandOverRing>> rings_;
    std::vector<std::unique_ptr<Doorbell>> doorbells_;
};

}  // namespace gmgate::dataplane
