#pragma once
// All SAs of the packet layer. The inbound SPI is the index (sa::SpiLayout): one array access, no
// hash. The control thread publishes and removes whole sets; the workers read without locks.
//
// Removal is three steps, so that one grace period serves many sets: unpublish (new packets miss
// it), the caller waits until every worker has been quiescent once and the hand-over rings have
// been drained once, reclaim (keys wiped, slot free).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "base/secret.h"
#include "dataplane/core/event_ring.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "dataplane/dpdk/inbound_sa.h"
#include "dataplane/dpdk/nat_path.h"
#include "dataplane/dpdk/outbound_table.h"
#include "sa/backend.h"

namespace gmgate::dataplane {

struct SaTableConfig {
    std::size_t capacity = 100'000;  // sets; 1 to 2^21
    // Inbound slots: SPIs with a larger slot number are refused. 0: twice the capacity. Keep the
    // allocator dense: a slot is 128 octets, and only touched pages cost memory.
    std::uint32_t slots = 0;
    unsigned replay_bits = 64;  // 64 to 4096, a multiple of 64 (A1)
    unsigned workers = 1;       // 1 to SpiLayout::max_owners
    bool huge_pages = true;     // ask for transparent huge pages
    // Nothing of the outbound SAs is kept, their keys neither: somebody else seals (screen).
    bool inbound_only = false;
};

// Names a published set until it is reclaimed. Cheap to copy.
struct SetHandle {
    std::uint32_t index = 0;
};

struct SetCounters {
    std::uint64_t in_packets = 0;
    std::uint64_t in_bytes = 0;  // ESP octets
    std::uint64_t out_packets = 0;
    std::uint64_t out_bytes = 0;
    std::uint64_t integrity_failures = 0;
    std::uint64_t replays = 0;
    std::uint32_t highest_out_sequence = 0;  // the larger of the two
    std::uint32_t last_use =
        0;  // the workers' second of the last authentic inbound packet; 0: none
    std::uint64_t nat_endpoint = 0;  // as in NatPath
};

// What a restart carries over (D7, no reuse of sequence numbers; no replay of old packets).
struct SequenceState {
    std::uint32_t in_ps = 0;  // highest authentic on spi_ps: everything up to it will count as seen
    std::uint32_t in_pc = 0;
    std::uint32_t out_uc = 0;  // last one sent under spi_uc
    std::uint32_t out_us = 0;
};

class SaTable {
  public:
    // `expander` fixes the key format: the workers' engines must be of the same kind. Start-up:
    // throws std::bad_alloc, or std::invalid_argument for a configuration out of range.
    SaTable(const SaTableConfig& config, std::unique_ptr<CryptoEngine> expander, Random& random);
    ~SaTable();
    SaTable(const SaTable&) = delete;
    SaTable& operator=(const SaTable&) = delete;

    // -- control thread
    // All four SAs or none; live in both directions when it returns (B2).
    // exhausted: full; conflict: a slot or a flow is taken; invalid: SPI slot or owner out of
    // range, addresses of two families; unsupported: the suite. `state`: where an earlier run of
    // the same set stopped; everything received up to there counts as seen.
    [[nodiscard]] Result<SetHandle> publish(const sa::SetParams& params,
                                            const SequenceState& state = {});
    void unpublish(SetHandle set);
    // Only after unpublish() and the grace period.
    void reclaim(SetHandle set);
    [[nodiscard]] SetCounters counters(SetHandle set) const;
    [[nodiscard]] SequenceState sequence_state(SetHandle set) const;
    // The set an event is about; nullopt: it is gone since.
    [[nodiscard]] std::optional<sa::SetId> resolve(const FastPathEvent& event) const;
    [[nodiscard]] std::size_t installed() const { return installed_; }
    [[nodiscard]] std::size_t capacity() const { return capacity_; }

    // -- workers
    [[nodiscard]] unsigned workers() const { return workers_; }
    [[nodiscard]] std::uint32_t slots() const { return static_cast<std::uint32_t>(slots_.size()); }
    // Slot numbers out of range lead to a slot that is never used.
    [[nodiscard]] InboundSa& slot_of(sa::Spi spi) {
        const std::uint32_t slot = sa::SpiLayout::slot(spi);
        return slots_[slot < slots_.size() ? slot : 0];
    }
    // Words of the ring of a wide window; 0 with 64 bits (then InboundSa::window is all).
    [[nodiscard]] std::size_t replay_words() const { return replay_words_; }
    [[nodiscard]] std::uint64_t* wide_window(const InboundSa& sa) {
        return windows_.data() + static_cast<std::size_t>(&sa - slots_.data()) * replay_words_;
    }
    [[nodiscard]] OutboundTable& outbound() { return outbound_; }
    // Of the set with that index, behind a NAT.
    [[nodiscard]] NatPath& nat_path(std::uint32_t set) { return nat_[set]; }
    [[nodiscard]] const std::uint8_t* schedule(std::uint8_t suite, std::uint32_t index) const {
        const SlabRef& slab = slab_of_suite_[suite];
        return slab.stride == 0 ? nullptr : slab.base + std::size_t{index} * slab.stride;
    }

  private:
    struct SlabRef {
        std::uint8_t* base = nullptr;
        std::size_t stride = 0;
    };
    // Key schedules of one size; records are 64-octet aligned and free ones chained.
    class Slab;
    struct Set;

    [[nodiscard]] Result<void> check(const sa::SetParams& params) const;
    [[nodiscard]] std::uint32_t allocate_set();
    void release_set(std::uint32_t index);
    [[nodiscard]] bool prepare_outbound(const Set& set, std::uint32_t index,
                                        const sa::SetParams& params, const SequenceState& state,
                                        std::span<const std::uint8_t, small_key_size> key);
    void fill_inbound(sa::Spi spi, std::uint16_t ue_port, std::uint16_t our_port,
                      std::uint32_t highest, const Set& set, std::uint32_t index,
                      const sa::SetParams& params,
                      std::span<const std::uint8_t, small_key_size> key);
    void fill_outbound(std::uint32_t record, sa::Spi spi, std::uint16_t ue_port,
                       std::uint16_t our_port, std::uint32_t sequence, std::uint64_t iv_base,
                       const Set& set, std::uint32_t index, const sa::SetParams& params,
                       std::span<const std::uint8_t, small_key_size> key);

    std::size_t capacity_;
    bool inbound_only_;
    unsigned workers_;
    std::size_t replay_words_;
    std::unique_ptr<CryptoEngine> expander_;
    Random& random_;
    SecretPages slot_pages_;
    std::span<InboundSa> slots_;
    SecretPages window_pages_;
    std::span<std::uint64_t> windows_;
    OutboundTable outbound_;
    std::vector<std::unique_ptr<Slab>> slabs_;  // one a distinct schedule size
    std::array<SlabRef, sa::all_suites.size()> slab_of_suite_{};
    std::array<Slab*, sa::all_suites.size()> slab_owner_{};
    SecretPages nat_pages_;
    std::span<NatPath> nat_;
    SecretPages set_pages_;
    std::span<Set> sets_;
    std::uint32_t fresh_ = 0;
    std::uint32_t free_head_;
    std::size_t installed_ = 0;
};

}  // namespace gmgate::dataplane
