#pragma once
// Hash index over objects that live in a Pool: open addressing, 8 octets an entry, duplicates
// allowed.
//
// It stores the object's position and 32 bits of its hash; the caller compares the keys themselves.
// Growing reads only the stored hashes, never the objects.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gmgate::sa {

class HashIndex {
  public:
    HashIndex() = default;

    void insert(std::uint64_t hash, std::uint32_t position);
    // False: no such entry.
    bool erase(std::uint64_t hash, std::uint32_t position);
    // Calls match(position) for each entry with this hash until it returns true. True if one did.
    // `match` must not change the index.
    template <class Match>
    bool find(std::uint64_t hash, Match&& match) const {
        if (entries_.empty()) return false;
        const auto h = fold(hash);
        for (std::size_t i = h & mask(); entries_[i].used(); i = (i + 1) & mask()) {
            if (entries_[i].hash == h && match(entries_[i].position - 1)) return true;
        }
        return false;
    }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t octets() const { return entries_.capacity() * sizeof(Entry); }

  private:
    struct Entry {
        std::uint32_t hash = 0;
        std::uint32_t position = 0;  // plus one; 0: free
        [[nodiscard]] bool used() const { return position != 0; }
    };
    static std::uint32_t fold(std::uint64_t hash) {
        return static_cast<std::uint32_t>(hash ^ (hash >> 32U));
    }
    [[nodiscard]] std::size_t mask() const { return entries_.size() - 1; }
    void place(Entry entry);
    void grow();

    std::vector<Entry> entries_;  // a power of two, at most 3/4 full
    std::size_t size_ = 0;
};

}  // namespace gmgate::sa
