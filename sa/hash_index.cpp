#include "sa/hash_index.h"

#include <utility>

namespace gmgate::sa {

void HashIndex::insert(std::uint64_t hash, std::uint32_t position) {
    if ((size_ + 1) * 4 > entries_.size() * 3) grow();
    place(Entry{fold(hash), position + 1});
    ++size_;
}

void HashIndex::place(Entry entry) {
    std::size_t i = entry.hash & mask();
    while (entries_[i].used()) i = (i + 1) & mask();
    entries_[i] = entry;
}

bool HashIndex::erase(std::uint64_t hash, std::uint32_t position) {
    if (entries_.empty()) return false;
    const std::uint32_t h = fold(hash);
    std::size_t hole = h & mask();
    while (entries_[hole].used() &&
           !(entries_[hole].hash == h && entries_[hole].position == position + 1)) {
        hole = (hole + 1) & mask();
    }
    if (!entries_[hole].used()) return false;
    // Close the gap, so that no tombstones pile up: what follows moves back unless it would pass
    // its home.
    for (std::size_t i = (hole + 1) & mask(); entries_[i].used(); i = (i + 1) & mask()) {
        const std::size_t home = entries_[i].hash & mask();
        if (((i - home) & mask()) >= ((i - hole) & mask())) {
            entries_[hole] = entries_[i];
            hole = i;
        }
    }
    entries_[hole] = Entry{};
    --size_;
    return true;
}

void HashIndex::grow() {
    std::vector<Entry> old(entries_.empty() ? 16 : entries_.size() * 2);
    std::swap(old, entries_);
    for (const Entry& e : old) {
        if (e.used()) place(e);
    }
}

}  // namespace gmgate::sa
