#pragma once
// Labels of phones behind a NAT (N1) that were in use a short while ago. What is still on its way
// to the old owner (retransmissions, late answers) is addressed by the label only: nobody else may
// get it until that is over.

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <utility>

#include "base/clock.h"

namespace gmgate::sa {

class LabelRest {
  public:
    // `most`: beyond that the oldest rest less long, so that the memory is bounded.
    LabelRest(const Clock& clock, Duration rest, std::size_t most)
        : clock_(clock), rest_(rest), most_(most) {}

    // `key`: hash of address and port. A collision costs another draw, or ends a rest early.
    // `owner`: a hash of who had it and may have it again at once; 0: nobody may.
    void add(std::uint64_t key, std::uint64_t owner = 0) {
        sweep();
        if (rest_ <= Duration::zero() || most_ == 0) return;
        if (order_.size() == most_) drop_oldest();
        keys_.insert_or_assign(key, owner);
        order_.emplace_back(clock_.now() + rest_, key);
    }
    // Rests, and not for `owner`.
    [[nodiscard]] bool holds(std::uint64_t key, std::uint64_t owner = 0) {
        sweep();
        const auto it = keys_.find(key);
        return it != keys_.end() && (owner == 0 || it->second != owner);
    }
    [[nodiscard]] std::size_t size() const { return order_.size(); }

  private:
    void sweep() {
        while (!order_.empty() && order_.front().first <= clock_.now()) drop_oldest();
    }
    void drop_oldest() {
        keys_.erase(order_.front().second);
        order_.pop_front();
    }

    const Clock& clock_;
    Duration rest_;
    std::size_t most_;
    std::unordered_map<std::uint64_t, std::uint64_t> keys_;  // to their owners
    std::deque<std::pair<TimePoint, std::uint64_t>> order_;  // by their end: the rest is constant
};

}  // namespace gmgate::sa
