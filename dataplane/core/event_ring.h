#pragma once
// What a worker tells the control thread, without waiting and without a system call.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "sa/backend.h"

namespace gmgate::dataplane {

struct FastPathEvent {
    sa::BackendEventKind kind{};
    bool outbound = false;
    std::uint32_t set = 0;  // index of the set in the SaTable; SaTable::resolve makes a SetId of it
    sa::Spi spi = 0;        // inbound: ours; outbound: the UE's
};

// One producer (the worker), one consumer (the control thread). Bounded: push says false when full.
class EventRing {
  public:
    static constexpr std::size_t size = 1024;

    bool push(const FastPathEvent& event) {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        if (head - tail_.load(std::memory_order_acquire) == size) return false;
        slots_[head % size] = event;
        head_.store(head + 1, std::memory_order_release);
        return true;
    }
    std::optional<FastPathEvent> pop() {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail == head_.load(std::memory_order_acquire)) return std::nullopt;
        const FastPathEvent event = slots_[tail % size];
        tail_.store(tail + 1, std::memory_order_release);
        return event;
    }
    // Any thread; a hint.
    [[nodiscard]] bool empty() const {
        return tail_.load(std::memory_order_relaxed) == head_.load(std::memory_order_acquire);
    }

  private:
    alignas(64) std::atomic<std::size_t> head_{0};
    alignas(64) std::atomic<std::size_t> tail_{0};
    alignas(64) std::array<FastPathEvent, size> slots_{};
};

}  // namespace gmgate::dataplane
