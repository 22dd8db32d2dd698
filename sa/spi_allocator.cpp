#include "sa/spi_allocator.h"

namespace gmgate::sa {

SpiAllocator::SpiAllocator(const Clock& clock, Config config)
    : clock_(clock), config_(config), slots_(config.slots) {}

Result<std::pair<Spi, Spi>> SpiAllocator::allocate_pair(std::uint32_t owner, Spi spi_uc,
                                                        Spi spi_us) {
    const auto pc = allocate(owner, spi_uc, spi_us);
    if (!pc) return std::unexpected(pc.error());
    const auto ps = allocate(owner, spi_uc, spi_us);
    if (!ps) {
        // It was never used on the wire: back to where it came from, without a rest.
        const std::uint32_t slot = index(*pc);
        slots_[slot].held = false;
        --held_;
        enqueue(slot, TimePoint::min());
        return std::unexpected(ps.error());
    }
    return std::pair{*pc, *ps};
}

Result<Spi> SpiAllocator::allocate(std::uint32_t owner, Spi avoid_a, Spi avoid_b) {
    if (owner >= SpiLayout::max_owners) return fail(ErrorKind::invalid, "no such SPI owner");
    std::uint32_t slot = none;
    if (head_ != none && slots_[head_].rested_at <= clock_.now()) {
        slot = head_;
        dequeue(slot);
    } else if (unused_ < slots_.size()) {
        slot = unused_++;
    } else {
        return fail(ErrorKind::exhausted, "no free SPI: all are held or in quarantine");
    }

    Slot& s = slots_[slot];
    s.owner = static_cast<std::uint8_t>(owner);
    s.held = true;
    ++held_;
    // A new generation at each use. Two values at most are to be avoided, so three steps always
    // find one.
    for (;;) {
        s.generation = static_cast<std::uint8_t>(s.generation % SpiLayout::max_generation + 1);
        const Spi spi = SpiLayout::make(s.generation, owner, config_.first_slot + slot);
        if (spi != avoid_a && spi != avoid_b) return spi;
    }
}

Result<void> SpiAllocator::claim(Spi spi) {
    if (!in_range(spi) || SpiLayout::generation(spi) == 0) {
        return fail(ErrorKind::invalid, "the SPI is not one of ours");
    }
    const std::uint32_t slot = index(spi);
    while (unused_ <= slot) enqueue(unused_++, TimePoint::min());
    Slot& s = slots_[slot];
    if (s.held) return fail(ErrorKind::conflict, "the SPI's slot is held");
    dequeue(slot);
    s.generation = static_cast<std::uint8_t>(SpiLayout::generation(spi));
    s.owner = static_cast<std::uint8_t>(SpiLayout::owner(spi));
    s.held = true;
    ++held_;
    return {};
}

bool SpiAllocator::release(Spi spi) {
    if (!holds(spi)) return false;
    const std::uint32_t slot = index(spi);
    slots_[slot].held = false;
    --held_;
    enqueue(slot, clock_.now() + config_.quarantine);
    return true;
}

bool SpiAllocator::holds(Spi spi) const {
    if (!in_range(spi)) return false;
    const Slot& s = slots_[index(spi)];
    return s.held && s.generation == SpiLayout::generation(spi) && s.owner == SpiLayout::owner(spi);
}

bool SpiAllocator::in_range(Spi spi) const {
    const std::uint32_t slot = SpiLayout::slot(spi);
    return slot >= config_.first_slot && slot - config_.first_slot < slots_.size();
}

// The queue is ordered by rested_at because the quarantine is constant: only slots that need no
// rest go to the front.
void SpiAllocator::enqueue(std::uint32_t slot, TimePoint rested_at) {
    Slot& s = slots_[slot];
    s.rested_at = rested_at;
    if (head_ == none) {
        s.prev = s.next = none;
        head_ = tail_ = slot;
    } else if (rested_at == TimePoint::min()) {
        s.prev = none;
        s.next = head_;
        slots_[head_].prev = slot;
        head_ = slot;
    } else {
        s.prev = tail_;
        s.next = none;
        slots_[tail_].next = slot;
        tail_ = slot;
    }
}

void SpiAllocator::dequeue(std::uint32_t slot) {
    Slot& s = slots_[slot];
    (s.prev == none ? head_ : slots_[s.prev].next) = s.next;
    (s.next == none ? tail_ : slots_[s.next].prev) = s.prev;
    s.prev = s.next = none;
}

}  // namespace gmgate::sa
