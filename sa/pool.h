#pragma once
// Objects that never move, named by id: 40 bits that count up and never repeat, 24 bits of
// position. Lookup is one array access. Memory grows in chunks and is kept for reuse.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace gmgate::sa {

template <class T>
class Pool {
  public:
    static constexpr std::uint32_t max_objects = (1U << 24U) - 1;

    Pool() = default;
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool() {
        for (std::uint32_t i = 0; i < end_; ++i) {
            if (cell(i).id != 0) object(i)->~T();
        }
    }

    // nullptr: max_objects are alive. `id` gets the object's name.
    T* create(std::uint64_t& id) {
        std::uint32_t position = 0;
        if (!free_.empty()) {
            position = free_.back();
            free_.pop_back();
        } else {
            if (end_ == max_objects) return nullptr;
            if (end_ % chunk_objects == 0) add_chunk();
            position = end_++;
        }
        id = (++counter_ << 24U) | position;
        return construct(position, id);
    }
    // Restoring a snapshot: the object gets the name it had. nullptr: its position is taken, or too
    // far out to be ours.
    T* create_as(std::uint64_t id, std::uint32_t max_position) {
        const auto position = static_cast<std::uint32_t>(id & 0xFFFFFFU);
        if ((id >> 24U) == 0 || position >= max_objects || position > max_position) return nullptr;
        while (end_ <= position) {
            if (end_ % chunk_objects == 0) add_chunk();
            free_.push_back(end_++);
        }
        for (std::size_t i = free_.size(); i-- > 0;) {
            if (free_[i] != position) continue;
            free_[i] = free_.back();
            free_.pop_back();
            if ((id >> 24U) > counter_) counter_ = id >> 24U;
            return construct(position, id);
        }
        return nullptr;
    }
    void destroy(std::uint64_t id) {
        T* p = find(id);
        if (p == nullptr) return;
        const auto position = static_cast<std::uint32_t>(id & 0xFFFFFFU);
        p->~T();
        cell(position).id = 0;
        free_.push_back(position);
    }

    [[nodiscard]] T* find(std::uint64_t id) const {
        const auto position = static_cast<std::uint32_t>(id & 0xFFFFFFU);
        if (position >= end_ || id == 0 || cell(position).id != id) return nullptr;
        return object(position);
    }
    // nullptr: the position is free.
    [[nodiscard]] T* at(std::uint32_t position) const {
        return position < end_ && cell(position).id != 0 ? object(position) : nullptr;
    }
    [[nodiscard]] static std::uint32_t position(std::uint64_t id) {
        return static_cast<std::uint32_t>(id & 0xFFFFFFU);
    }
    // All positions ever used are below.
    [[nodiscard]] std::uint32_t end() const { return end_; }
    [[nodiscard]] std::size_t size() const { return end_ - free_.size(); }
    [[nodiscard]] std::size_t octets() const {
        return chunks_.size() * sizeof(Chunk) + free_.capacity() * sizeof(std::uint32_t);
    }

  private:
    static constexpr std::uint32_t chunk_objects = 64;
    struct Cell {
        std::uint64_t id = 0;
        alignas(T) std::byte storage[sizeof(T)];
    };
    struct Chunk {
        Cell cells[chunk_objects];
    };
    [[nodiscard]] Cell& cell(std::uint32_t i) const {
        return chunks_[i / chunk_objects]->cells[i % chunk_objects];
    }
    [[nodiscard]] T* object(std::uint32_t i) const {
        return std::launder(reinterpret_cast<T*>(static_cast<void*>(cell(i).storage)));
    }
    void add_chunk() { chunks_.push_back(std::make_unique<Chunk>()); }
    T* construct(std::uint32_t position, std::uint64_t id) {
        Cell& c = cell(position);
        T* p = new (static_cast<void*>(c.storage)) T();
        c.id = id;
        return p;
    }

    std::vector<std::unique_ptr<Chunk>> chunks_;
    std::vector<std::uint32_t> free_;
    std::uint32_t end_ = 0;
    std::uint64_t counter_ = 0;
};

}  // namespace gmgate::sa
