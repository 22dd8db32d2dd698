#pragma once
// Objects named by numbers that go stale: a callback for something that is gone finds nothing.
// O(1), no search, no hash.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace gmgate {

// Generation (upper 32 bits) and slot (lower 32 bits); 0: none.
using SlotId = std::uint64_t;

template <class T>
class SlotMap {
  public:
    // Constructs T(id, args…).
    template <class... Args>
    T& emplace(Args&&... args) {
        if (free_.empty()) {
            slots_.push_back(Slot{1, nullptr});
            free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
        }
        const std::uint32_t index = free_.back();
        Slot& slot = slots_[index];
        slot.object = std::make_unique<T>((SlotId{slot.generation} << 32U) | index,
                                          std::forward<Args>(args)...);
        free_.pop_back();
        ++size_;
        return *slot.object;
    }

    [[nodiscard]] T* find(SlotId id) const {
        const auto index = static_cast<std::uint32_t>(id);
        if (index >= slots_.size() || slots_[index].generation != id >> 32U) return nullptr;
        return slots_[index].object.get();
    }

    void erase(SlotId id) {
        if (find(id) == nullptr) return;
        const auto index = static_cast<std::uint32_t>(id);
        Slot& slot = slots_[index];
        const auto gone = std::move(slot.object);
        if (++slot.generation == 0) slot.generation = 1;
        free_.push_back(index);
        --size_;
    }

    [[nodiscard]] std::size_t size() const { return size_; }
    // For scans: positions 0 … slots() - 1; nullptr: empty.
    [[nodiscard]] std::size_t slots() const { return slots_.size(); }
    [[nodiscard]] T* at(std::size_t position) const { return slots_[position].object.get(); }

  private:
    struct Slot {
        std::uint32_t generation = 1;
        std::unique_ptr<T> object;
    };
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::size_t size_ = 0;
};

}  // namespace gmgate
