#pragma once
// Hands out our inbound SPIs (A4), in the layout of sa/types.h.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "sa/types.h"

namespace gmgate::sa {

// One slot carries one SPI at a time, whoever owns it, so a slot alone indexes a table and all SPIs
// held are unique. A released slot rests for the quarantine time and comes back with the next
// generation; slots that have rested are preferred to slots never used, which keeps the fast path's
// table compact. Everything is O(1); memory is fixed at construction (24 octets a slot). One
// thread.
class SpiAllocator {
  public:
    struct Config {
        std::uint32_t first_slot = 0;  // shards take disjoint ranges of slots
        std::uint32_t slots = 0;       // first_slot + slots <= SpiLayout::max_slots
        Duration quarantine = std::chrono::seconds(60);  // longer than any packet may linger
    };
    // `config` is checked by the caller (SaDatabase::create).
    SpiAllocator(const Clock& clock, Config config);

    // spi_pc and spi_ps of one set: different from each other and from both SPIs the UE sent, never
    // 0–255. exhausted: no slot that has rested. Takes both or none.
    [[nodiscard]] Result<std::pair<Spi, Spi>> allocate_pair(std::uint32_t owner, Spi spi_uc,
                                                            Spi spi_us);
    // One SPI; never equal to `avoid_a` or `avoid_b`. owner < SpiLayout::max_owners.
    [[nodiscard]] Result<Spi> allocate(std::uint32_t owner, Spi avoid_a, Spi avoid_b);
    // Takes exactly this SPI (restoring a snapshot). conflict: its slot is held; invalid: not in
    // our range.
    [[nodiscard]] Result<void> claim(Spi spi);
    // Into quarantine. False: we do not hold it (a stale generation, another owner): nothing
    // happens.
    bool release(Spi spi);

    [[nodiscard]] bool holds(Spi spi) const;
    [[nodiscard]] std::size_t held() const { return held_; }
    [[nodiscard]] std::size_t capacity() const { return slots_.size(); }
    [[nodiscard]] std::size_t octets() const { return slots_.capacity() * sizeof(Slot); }
    // Position of the SPI's slot in [0, capacity()); meaningless for an SPI outside our range.
    [[nodiscard]] std::uint32_t index(Spi spi) const {
        return SpiLayout::slot(spi) - config_.first_slot;
    }

  private:
    struct Slot {
        TimePoint rested_at{TimePoint::min()};  // while resting: when it may be used again
        std::uint32_t prev = 0;                 // in the queue of resting slots
        std::uint32_t next = 0;
        std::uint8_t generation = 0;
        std::uint8_t owner = 0;
        bool held = false;
    };
    static constexpr std::uint32_t none = 0xFFFFFFFFU;

    void enqueue(std::uint32_t slot, TimePoint rested_at);
    void dequeue(std::uint32_t slot);
    [[nodiscard]] bool in_range(Spi spi) const;

    const Clock& clock_;
    Config config_;
    std::vector<Slot> slots_;
    std::uint32_t head_ = none;  // resting, oldest first
    std::uint32_t tail_ = none;
    std::uint32_t unused_ = 0;  // slots from here on were never taken
    std::size_t held_ = 0;
};

}  // namespace gmgate::sa
