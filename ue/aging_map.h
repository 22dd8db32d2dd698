#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/clock.h"

namespace gmgate::ue {

// String → Value; what nobody asked for during one to two `lifetime`s is forgotten. At most
// 2·`capacity` entries.
template <class Value>
class AgingMap {
  public:
    AgingMap(std::size_t capacity, Duration lifetime) : capacity_(capacity), lifetime_(lifetime) {}

    // nullptr: not there. Valid until the next call.
    Value* find(const std::string& key, TimePoint now) {
        turn(now);
        if (const auto it = young_.find(key); it != young_.end()) return &it->second;
        const auto it = old_.find(key);
        if (it == old_.end()) return nullptr;
        auto node = old_.extract(it);
        return &young_.insert(std::move(node)).position->second;
    }
    // Replaces. False: full.
    bool put(const std::string& key, Value value, TimePoint now) {
        turn(now);
        old_.erase(key);
        if (young_.size() >= capacity_ && !young_.contains(key)) return false;
        young_.insert_or_assign(key, std::move(value));
        return true;
    }
    [[nodiscard]] std::size_t size() const { return young_.size() + old_.size(); }

  private:
    void turn(TimePoint now) {
        if (now - turned_ < lifetime_) return;
        if (now - turned_ >= 2 * lifetime_) young_.clear();
        old_ = std::exchange(young_, {});
        turned_ = now;
    }
    std::size_t capacity_;
    Duration lifetime_;
    TimePoint turned_{};
    std::unordered_map<std::string, Value> young_, old_;
};

}  // namespace gmgate::ue
