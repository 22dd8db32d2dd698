#pragma once
// A port that is memory: what a test puts in is received, what is sent can be looked at.

#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "dataplane/dpdk/port.h"
#include "tests/unit/dataplane_dpdk/eal_environment.h"
#include "tests/unit/dataplane_dpdk/reference_esp.h"

namespace gmgate::dataplane::test {

class MemoryPort final : public Port {
  public:
    MemoryPort(unsigned queues, rte_mempool* pool) : in_(queues), out_(queues), pool_(pool) {}

    // Any thread.
    void put(unsigned queue, Octets frame) {
        const std::lock_guard lock(mutex_);
        in_[queue].push_back(std::move(frame));
    }
    std::vector<Octets> take(unsigned queue) {
        const std::lock_guard lock(mutex_);
        return std::exchange(out_[queue], {});
    }
    void refuse_all(bool refuse) {
        const std::lock_guard lock(mutex_);
        refuse_ = refuse;
    }

    // Whoever receives, from this queue if one is named, stays there until told otherwise, as if
    // its core had been taken away.
    void stand_still(bool still, std::optional<unsigned> queue = std::nullopt) {
        still_queue_.store(queue ? static_cast<int>(*queue) : -1);
        still_.store(still);
    }
    void wait_until_standing() const {
        while (standing_.load() == 0) std::this_thread::yield();
    }

    std::uint16_t receive(unsigned queue, rte_mbuf** out, std::uint16_t max) override {
        if (const int only = still_queue_.load();
            still_.load() && (only < 0 || only == static_cast<int>(queue))) {
            standing_.fetch_add(1);
            while (still_.load()) std::this_thread::sleep_for(std::chrono::microseconds(50));
            standing_.fetch_sub(1);
        }
        const std::lock_guard lock(mutex_);
        std::uint16_t n = 0;
        while (n < max && !in_[queue].empty()) {
            rte_mbuf* m = rte_pktmbuf_alloc(pool_);
            if (m == nullptr) break;
            const Octets& frame = in_[queue].front();
            std::copy(frame.begin(), frame.end(),
                      rte_pktmbuf_append(m, static_cast<std::uint16_t>(frame.size())));
            in_[queue].pop_front();
            out[n++] = m;
        }
        return n;
    }
    std::uint16_t send(unsigned queue, rte_mbuf** frames, std::uint16_t count) override {
        const std::lock_guard lock(mutex_);
        for (std::uint16_t i = 0; i < count; ++i) {
            if (!refuse_) out_[queue].push_back(contents(frames[i]));
            rte_pktmbuf_free(frames[i]);
        }
        return refuse_ ? std::uint16_t{0} : count;
    }
    [[nodiscard]] int wait_fd(unsigned /*queue*/) const override { return -1; }
    bool revive(unsigned /*queue*/) override { return false; }

  private:
    std::mutex mutex_;
    std::vector<std::deque<Octets>> in_;
    std::vector<std::vector<Octets>> out_;
    rte_mempool* pool_;
    bool refuse_ = false;
    std::atomic<bool> still_{false};
    std::atomic<int> still_queue_{-1};  // negative: all
    std::atomic<int> standing_{0};
};

}  // namespace gmgate::dataplane::test
