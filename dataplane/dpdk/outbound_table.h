#pragma once
// (our address, our port, UE address, UE port) → outbound SA. One writer (the control thread),
// lock-free readers (the workers).

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/secret.h"
#include "dataplane/dpdk/outbound_sa.h"

namespace gmgate::dataplane {

// The addresses as in OutboundSa; ports in host order.
struct FlowKey {
    std::array<std::uint8_t, 16> ours{};
    std::array<std::uint8_t, 16> ue{};
    std::uint16_t our_port = 0;
    std::uint16_t ue_port = 0;
    std::uint8_t v6 = 0;
    bool operator==(const FlowKey&) const = default;
};

// A seeded hash names two buckets of eight entries, one cache line each; an entry is a tag and the
// number of a record. A key is in one of its two buckets or not in the table: no probing, no
// tombstones, removal is one store.
class OutboundTable {
  public:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    // `capacity` SAs, at most 2^23. Start-up: throws std::bad_alloc. `seeds` random: strangers
    // choose the UE's side of the key.
    OutboundTable(std::size_t capacity, const std::array<std::uint64_t, 2>& seeds, bool huge_pages);

    // -- control thread
    // The SA to fill in before link(); none when full.
    [[nodiscard]] std::uint32_t allocate();
    [[nodiscard]] OutboundSa& record(std::uint32_t index) { return records_[index]; }
    [[nodiscard]] const OutboundSa& record(std::uint32_t index) const { return records_[index]; }
    // Entries still free in the buckets of record `index`: with two or more, this one and any other
    // one can be linked.
    [[nodiscard]] unsigned room(std::uint32_t index) const;
    // Makes record `index` visible under its own fields; room() must not be 0.
    void link(std::uint32_t index);
    // No worker that looks from now on finds it.
    void unlink(std::uint32_t index);
    // After the grace period: wipes the record and makes it free.
    void release(std::uint32_t index);
    [[nodiscard]] std::uint32_t lookup(const FlowKey& key) const;

    // -- workers, in stages so that a burst overlaps its cache misses
    [[nodiscard]] std::uint64_t hash(const FlowKey& key) const;
    void prefetch_buckets(std::uint64_t hash) const {
        __builtin_prefetch(&buckets_[first_bucket(hash)]);
        __builtin_prefetch(&buckets_[second_bucket(hash)]);
    }
    // A record whose tag fits, now being prefetched, or none. Confirm with find(), which is cheap
    // then.
    [[nodiscard]] std::uint32_t prefetch_candidate(std::uint64_t hash) const;
    // The exact answer; none: there is no such SA.
    [[nodiscard]] std::uint32_t find(std::uint64_t hash, const FlowKey& key) const;

  private:
    struct alignas(64) Bucket {
        std::array<std::atomic<std::uint64_t>, 8> entries;  // tag << 32 | index + 1; 0: empty
    };
    [[nodiscard]] std::size_t first_bucket(std::uint64_t hash) const { return hash & mask_; }
    [[nodiscard]] std::size_t second_bucket(std::uint64_t hash) const {
        return ((hash >> 24U) ^ (hash >> 56U) ^ 1U) & mask_;
    }
    [[nodiscard]] static bool matches(const OutboundSa& sa, const FlowKey& key);
    [[nodiscard]] static FlowKey key_of(const OutboundSa& sa);
    static std::uint32_t tag(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32U); }

    std::array<std::uint64_t, 2> seeds_;
    std::size_t mask_ = 0;
    std::size_t capacity_;
    SecretPages record_pages_;
    std::span<OutboundSa> records_;
    SecretPages bucket_pages_;
    std::span<Bucket> buckets_;
    std::uint32_t fresh_ = 0;  // records never used yet begin here: untouched pages cost nothing
    std::uint32_t free_head_ = none;  // freed ones, chained through `set`
};

}  // namespace gmgate::dataplane
