#include "dataplane/dpdk/outbound_table.h"

#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>

#include "dataplane/dpdk/table_memory.h"

namespace gmgate::dataplane {
namespace {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = Wide{a} * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}
std::uint64_t word(const std::array<std::uint8_t, 16>& a, std::size_t at) {
    std::uint64_t v = 0;
    std::memcpy(&v, a.data() + at, 8);
    return v;
}
constexpr std::uint64_t odd_a = 0xA0761D6478BD642FULL;
constexpr std::uint64_t odd_b = 0xE7037ED1A0B428DBULL;

}  // namespace

OutboundTable::OutboundTable(std::size_t capacity, const std::array<std::uint64_t, 2>& seeds,
                             bool huge_pages)
    : seeds_(seeds), capacity_(capacity) {
    if (capacity == 0 || capacity > (std::size_t{1} << 23U))
        throw std::invalid_argument("outbound table: capacity");
    // A quarter to half full: with two choices of eight a bucket pair fills up in practice never.
    const std::size_t buckets =
        std::bit_ceil(capacity * 2) / 8 < 2 ? 2 : std::bit_ceil(capacity * 2) / 8;
    mask_ = buckets - 1;
    record_pages_ = table_pages(capacity * sizeof(OutboundSa), huge_pages);
    records_ = as_table<OutboundSa>(record_pages_, capacity);
    bucket_pages_ = table_pages(buckets * sizeof(Bucket), huge_pages);
    buckets_ = as_table<Bucket>(bucket_pages_, buckets);
}

std::uint32_t OutboundTable::allocate() {
    if (free_head_ != none) {
        const std::uint32_t index = free_head_;
        free_head_ = records_[index].set;
        records_[index].set = 0;
        return index;
    }
    if (fresh_ == capacity_) return none;
    return fresh_++;
}

void OutboundTable::release(std::uint32_t index) {
    OutboundSa& sa = records_[index];
    wipe(sa.small_key);
    new (&sa) OutboundSa();
    sa.set = free_head_;
    free_head_ = index;
}

FlowKey OutboundTable::key_of(const OutboundSa& sa) {
    FlowKey key;
    key.ours = sa.ours;
    key.ue = sa.ue;
    key.our_port = sa.our_port;
    key.ue_port = sa.ue_port;
    key.v6 = sa.v6;
    return key;
}

std::uint64_t OutboundTable::hash(const FlowKey& key) const {
    const std::uint64_t ports =
        (std::uint64_t{key.v6} << 32U) | (std::uint64_t{key.our_port} << 16U) | key.ue_port;
    const std::uint64_t a = mix(word(key.ue, 0) ^ seeds_[0], word(key.ue, 8) ^ odd_a);
    const std::uint64_t b = mix(word(key.ours, 0) ^ seeds_[1], word(key.ours, 8) ^ odd_b);
    return mix(a ^ ports ^ seeds_[1], b ^ odd_a ^ std::rotl(ports, 29));
}

unsigned OutboundTable::room(std::uint32_t index) const {
    const std::uint64_t h = hash(key_of(records_[index]));
    unsigned free = 0;
    const auto count = [&](const Bucket& bucket) {
        for (const auto& e : bucket.entries)
            free += e.load(std::memory_order_relaxed) == 0 ? 1U : 0U;
    };
    count(buckets_[first_bucket(h)]);
    if (first_bucket(h) != second_bucket(h)) count(buckets_[second_bucket(h)]);
    return free;
}

void OutboundTable::link(std::uint32_t index) {
    const std::uint64_t h = hash(key_of(records_[index]));
    // Into the emptier of the two buckets.
    std::atomic<std::uint64_t>* place = nullptr;
    unsigned most = 0;
    for (Bucket* bucket : {&buckets_[first_bucket(h)], &buckets_[second_bucket(h)]}) {
        unsigned free = 0;
        std::atomic<std::uint64_t>* candidate = nullptr;
        for (auto& e : bucket->entries) {
            if (e.load(std::memory_order_relaxed) != 0) continue;
            ++free;
            candidate = &e;
        }
        if (free > most) {
            most = free;
            place = candidate;
        }
    }
    if (place != nullptr)
        place->store((std::uint64_t{tag(h)} << 32U) | (index + 1), std::memory_order_release);
}

void OutboundTable::unlink(std::uint32_t index) {
    const std::uint64_t h = hash(key_of(records_[index]));
    for (Bucket* bucket : {&buckets_[first_bucket(h)], &buckets_[second_bucket(h)]}) {
        for (auto& e : bucket->entries) {
            if (static_cast<std::uint32_t>(e.load(std::memory_order_relaxed)) == index + 1) {
                e.store(0, std::memory_order_release);
                return;
            }
        }
    }
}

std::uint32_t OutboundTable::prefetch_candidate(std::uint64_t h) const {
    for (const Bucket* bucket : {&buckets_[first_bucket(h)], &buckets_[second_bucket(h)]}) {
        for (const auto& e : bucket->entries) {
            const std::uint64_t entry = e.load(std::memory_order_acquire);
            if (entry == 0 || (entry >> 32U) != tag(h)) continue;
            const std::uint32_t index = static_cast<std::uint32_t>(entry) - 1;
            __builtin_prefetch(&records_[index]);
            __builtin_prefetch(reinterpret_cast<const std::uint8_t*>(&records_[index]) + 64);
            return index;
        }
    }
    return none;
}

bool OutboundTable::matches(const OutboundSa& sa, const FlowKey& key) {
    return sa.our_port == key.our_port && sa.ue_port == key.ue_port && sa.v6 == key.v6 &&
           sa.ue == key.ue && sa.ours == key.ours;
}

std::uint32_t OutboundTable::find(std::uint64_t h, const FlowKey& key) const {
    for (const Bucket* bucket : {&buckets_[first_bucket(h)], &buckets_[second_bucket(h)]}) {
        for (const auto& e : bucket->entries) {
            const std::uint64_t entry = e.load(std::memory_order_acquire);
            if (entry == 0 || (entry >> 32U) != tag(h)) continue;
            const std::uint32_t index = static_cast<std::uint32_t>(entry) - 1;
            if (matches(records_[index], key)) return index;
        }
    }
    return none;
}

std::uint32_t OutboundTable::lookup(const FlowKey& key) const {
    return find(hash(key), key);
}

}  // namespace gmgate::dataplane
