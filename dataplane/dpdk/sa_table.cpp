#include "dataplane/dpdk/sa_table.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include <fmt/core.h>

#include "dataplane/core/replay_window.h"
#include "dataplane/dpdk/table_memory.h"

namespace gmgate::dataplane {
namespace {

constexpr std::uint32_t no_index = ~std::uint32_t{0};
constexpr unsigned max_replay_bits = 4096;
constexpr std::size_t max_capacity = std::size_t{1} << 21U;

std::size_t checked_capacity(const SaTableConfig& config) {
    if (config.capacity == 0 || config.capacity > max_capacity)
        throw std::invalid_argument("SA table: capacity");
    if (config.workers == 0 || config.workers > sa::SpiLayout::max_owners)
        throw std::invalid_argument("SA table: workers");
    if (config.replay_bits < 64 || config.replay_bits > max_replay_bits ||
        config.replay_bits % 64 != 0) {
        throw std::invalid_argument("SA table: replay window");
    }
    if (config.slots > sa::SpiLayout::max_slots) throw std::invalid_argument("SA table: slots");
    return config.capacity;
}

std::size_t slot_count(const SaTableConfig& config) {
    const std::size_t wanted = config.slots != 0 ? config.slots : 2 * config.capacity;
    return std::min<std::size_t>(wanted, sa::SpiLayout::max_slots);
}

}  // namespace

struct SaTable::Set {
    sa::SetId id;  // 0: free
    sa::Spi spi_ps;
    sa::Spi spi_pc;
    std::uint32_t out_uc;  // records of the outbound table
    std::uint32_t out_us;
    std::uint32_t schedule;  // in the slab of its suite; free set: the next free one
    std::uint8_t suite;
    bool published;
    bool nat;
};

class SaTable::Slab {
  public:
    Slab(std::size_t record_size, std::size_t capacity, bool huge_pages)
        : stride_((record_size + 63) / 64 * 64),
          capacity_(capacity),
          pages_(table_pages(stride_ * capacity, huge_pages)) {}

    [[nodiscard]] std::size_t stride() const { return stride_; }
    [[nodiscard]] std::uint8_t* base() const { return pages_.bytes().data(); }
    [[nodiscard]] std::span<std::uint8_t> record(std::uint32_t index) const {
        return {base() + std::size_t{index} * stride_, stride_};
    }
    [[nodiscard]] std::uint32_t allocate() {
        if (free_head_ == no_index) return fresh_ == capacity_ ? no_index : fresh_++;
        const std::uint32_t index = free_head_;
        std::memcpy(&free_head_, record(index).data(), sizeof(free_head_));
        return index;
    }
    void release(std::uint32_t index) {
        wipe(record(index));
        std::memcpy(record(index).data(), &free_head_, sizeof(free_head_));
        free_head_ = index;
    }

  private:
    std::size_t stride_;
    std::size_t capacity_;
    SecretPages pages_;
    std::uint32_t fresh_ = 0;
    std::uint32_t free_head_ = no_index;
};

SaTable::SaTable(const SaTableConfig& config, std::unique_ptr<CryptoEngine> expander,
                 Random& random)
    : capacity_(checked_capacity(config)),
      inbound_only_(config.inbound_only),
      workers_(config.workers),
      replay_words_(config.replay_bits == 64 ? 0 : WideReplayWindow::words_for(config.replay_bits)),
      expander_(std::move(expander)),
      random_(random),
      slot_pages_(table_pages(slot_count(config) * sizeof(InboundSa), config.huge_pages)),
      slots_(as_table<InboundSa>(slot_pages_, slot_count(config))),
      window_pages_(table_pages(slot_count(config) * replay_words_ * sizeof(std::uint64_t),
                                config.huge_pages)),
      windows_(as_table<std::uint64_t>(window_pages_, slot_count(config) * replay_words_)),
      outbound_(inbound_only_ ? 1 : 2 * capacity_, {random.u64(), random.u64()}, config.huge_pages),
      nat_pages_(table_pages(capacity_ * sizeof(NatPath), false)),
      nat_(as_table<NatPath>(nat_pages_, capacity_)),
      set_pages_(table_pages(capacity_ * sizeof(Set), false)),
      sets_(as_table<Set>(set_pages_, capacity_)),
      free_head_(no_index) {
    for (const sa::Suite suite : sa::all_suites) {
        const std::size_t size = expander_->schedule_size(suite);
        if (size == 0) continue;
        const std::size_t stride = (size + 63) / 64 * 64;
        auto it = std::find_if(slabs_.begin(), slabs_.end(),
                               [&](const auto& s) { return s->stride() == stride; });
        if (it == slabs_.end()) {
            slabs_.push_back(std::make_unique<Slab>(size, capacity_, config.huge_pages));
            it = slabs_.end() - 1;
        }
        slab_owner_[sa::suite_index(suite)] = it->get();
        slab_of_suite_[sa::suite_index(suite)] = {(*it)->base(), stride};
    }
}

SaTable::~SaTable() = default;

std::uint32_t SaTable::allocate_set() {
    if (free_head_ == no_index) return fresh_ == capacity_ ? no_index : fresh_++;
    const std::uint32_t index = free_head_;
    free_head_ = sets_[index].schedule;
    return index;
}

void SaTable::release_set(std::uint32_t index) {
    sets_[index] = Set{};
    sets_[index].schedule = free_head_;
    free_head_ = index;
}

Result<void> SaTable::check(const sa::SetParams& params) const {
    if (!sa::is_valid(params.suite))
        return fail(ErrorKind::unsupported, "SA table: not a suite of ESP");
    if (params.id == 0 || params.ck == nullptr || params.ik == nullptr) {
        return fail(ErrorKind::invalid, "SA table: a set needs an id and both keys");
    }
    if (params.ue.is_v6() != params.ours.is_v6() || params.ue == params.ours) {
        return fail(ErrorKind::invalid,
                    "SA table: the addresses of a set must be two of one family");
    }
    if (params.nat && (inbound_only_ || params.ue.is_v6() || params.nat->inner.is_v6())) {
        return fail(ErrorKind::unsupported,
                    "SA table: UDP encapsulation is for IPv4, and not for the screen");
    }
    const sa::SaNumbers& n = params.numbers;
    if (sa::SpiLayout::owner(n.spi_ps) != sa::SpiLayout::owner(n.spi_pc)) {
        return fail(ErrorKind::invalid,
                    "SA table: both inbound SPIs of a set must name one worker");
    }
    for (const sa::Spi spi : {n.spi_ps, n.spi_pc}) {
        if (spi <= 255 || sa::SpiLayout::slot(spi) >= slots_.size() ||
            sa::SpiLayout::owner(spi) >= workers_) {
            return fail(ErrorKind::invalid,
                        fmt::format("SA table: inbound SPI 0x{:08x} is out of range", spi));
        }
        // The same keys serve both directions: an outbound packet sent back must not find an
        // inbound SA (A4).
        if (spi == n.spi_uc || spi == n.spi_us) {
            return fail(ErrorKind::invalid,
                        fmt::format("SA table: SPI 0x{:08x} is used in both directions", spi));
        }
        if (slots_[sa::SpiLayout::slot(spi)].set != 0) {
            return fail(ErrorKind::conflict,
                        fmt::format("SA table: the slot of SPI 0x{:08x} is taken", spi));
        }
    }
    if (sa::SpiLayout::slot(n.spi_ps) == sa::SpiLayout::slot(n.spi_pc)) {
        return fail(ErrorKind::conflict, "SA table: both inbound SPIs of a set lie in one slot");
    }
    FlowKey key;
    key.ours = params.ours.raw();
    key.ue = params.ue.raw();
    key.v6 = params.ue.is_v6() ? 1 : 0;
    for (const auto& [ours, ue] :
         {std::pair{n.port_ps, n.port_uc}, std::pair{n.port_pc, n.port_us}}) {
        if (ours == 0 || ue == 0)
            return fail(ErrorKind::invalid, "SA table: a port of a set is zero");
        key.our_port = ours;
        key.ue_port = ue;
        if (outbound_.lookup(key) != OutboundTable::none) {
            return fail(ErrorKind::conflict,
                        fmt::format("SA table: an SA from our port {} to port {} of {} exists",
                                    ours, ue, params.ue.to_string()));
        }
    }
    if (n.port_ps == n.port_pc && n.port_uc == n.port_us) {
        return fail(ErrorKind::conflict, "SA table: both directions of a set have the same ports");
    }
    return {};
}

Result<SetHandle> SaTable::publish(const sa::SetParams& params, const SequenceState& state) {
    if (auto checked = check(params); !checked) return std::unexpected(checked.error());
    const auto suite = static_cast<std::uint8_t>(sa::suite_index(params.suite));
    Slab* slab = slab_owner_[suite];
    const std::uint32_t index = allocate_set();
    if (index == no_index)
        return fail(ErrorKind::exhausted,
                    fmt::format("SA table: all {} sets are in use", capacity_));

    // There are as many records and schedules as sets, and twice as many outbound SAs: from here on
    // only the buckets of the outbound table can be full.
    Set& set = sets_[index];
    const sa::SaNumbers& n = params.numbers;
    set = Set{params.id,
              n.spi_ps,
              n.spi_pc,
              inbound_only_ ? OutboundTable::none : outbound_.allocate(),
              inbound_only_ ? OutboundTable::none : outbound_.allocate(),
              slab != nullptr ? slab->allocate() : 0,
              suite,
              true,
              params.nat.has_value()};
    std::array<std::uint8_t, small_key_size> key{};
    const sa::EspKeys keys = sa::expand_keys(params.suite, *params.ck, *params.ik);
    expander_->expand(params.suite, keys, key,
                      slab != nullptr ? slab->record(set.schedule) : std::span<std::uint8_t>());

    if (params.nat) {
        NatPath& path = nat_[index];
        std::ranges::copy(params.nat->inner.octets(), path.inner.begin());
        path.port_uc = params.nat->port_uc;
        path.port_us = params.nat->port_us;
        path.endpoint.set(0);
        path.link.set(0);
        path.moved_at = 0;
        path.moved_by_us = false;
    }
    if (!inbound_only_ && !prepare_outbound(set, index, params, state, key)) {
        wipe(key);
        outbound_.release(set.out_us);
        outbound_.release(set.out_uc);
        if (slab != nullptr) slab->release(set.schedule);
        release_set(index);
        return fail(ErrorKind::exhausted, "SA table: the outbound table has no place for this set");
    }
    fill_inbound(n.spi_ps, n.port_uc, n.port_ps, state.in_ps, set, index, params, key);
    fill_inbound(n.spi_pc, n.port_us, n.port_pc, state.in_pc, set, index, params, key);
    wipe(key);
    ++installed_;
    return SetHandle{index};
}

// Fills both outbound SAs in and makes them visible, or neither.
bool SaTable::prepare_outbound(const Set& set, std::uint32_t index, const sa::SetParams& params,
                               const SequenceState& state,
                               std::span<const std::uint8_t, small_key_size> key) {
    const sa::SaNumbers& n = params.numbers;
    const std::uint64_t iv = random_.u64();
    constexpr std::uint64_t one_bit = std::uint64_t{1} << 63U;
    fill_outbound(set.out_uc, n.spi_uc, n.port_uc, n.port_ps, state.out_uc, iv, set, index, params,
                  key);
    fill_outbound(set.out_us, n.spi_us, n.port_us, n.port_pc, state.out_us, iv ^ one_bit, set,
                  index, params, key);
    // Both must fit before either becomes visible: what a worker has seen cannot be taken back
    // without a grace period.
    if (outbound_.room(set.out_uc) < 2 || outbound_.room(set.out_us) < 2) return false;
    outbound_.link(set.out_uc);
    outbound_.link(set.out_us);
    return true;
}

void SaTable::fill_inbound(sa::Spi spi, std::uint16_t ue_port, std::uint16_t our_port,
                           std::uint32_t highest, const Set& set, std::uint32_t index,
                           const sa::SetParams& params,
                           std::span<const std::uint8_t, small_key_size> key) {
    InboundSa& sa = slots_[sa::SpiLayout::slot(spi)];
    sa.set = index + 1;
    sa.ue = params.ue.raw();
    sa.ours = params.ours.raw();
    sa.ue_port = ue_port;
    sa.our_port = our_port;
    sa.suite = set.suite;
    sa.form = params.ue.is_v6() ? InboundSa::ipv6 : 0;
    if (params.nat) {
        sa.form |= InboundSa::encapsulated;
        if (spi == params.numbers.spi_pc) sa.form |= InboundSa::from_port_us;
    }
    sa.flags = 0;
    sa.failure_second = 0;
    sa.highest.set(highest);
    sa.last_use.set(0);
    sa.window = highest == 0 ? 0 : ~std::uint64_t{0};
    if (replay_words_ != 0) {
        std::fill_n(wide_window(sa), replay_words_, std::uint64_t{0});
        if (highest != 0) WideReplayWindow(wide_window(sa), replay_words_).fill(highest);
    }
    std::copy(key.begin(), key.end(), sa.small_key.begin());
    sa.bytes.set(0);
    sa.packets.set(0);
    sa.failures.set(0);
    sa.replays.set(0);
    sa.schedule = set.schedule;
    sa.spi.store(spi, std::memory_order_release);
}

void SaTable::fill_outbound(std::uint32_t record, sa::Spi spi, std::uint16_t ue_port,
                            std::uint16_t our_port, std::uint32_t sequence, std::uint64_t iv_base,
                            const Set& set, std::uint32_t index, const sa::SetParams& params,
                            std::span<const std::uint8_t, small_key_size> key) {
    OutboundSa& sa = outbound_.record(record);
    sa.spi = spi;
    sa.set = index;
    sa.ue = params.ue.raw();
    sa.ours = params.ours.raw();
    sa.ue_port = ue_port;
    sa.our_port = our_port;
    sa.suite = set.suite;
    sa.v6 = params.ue.is_v6() ? 1 : 0;
    sa.flags = 0;
    if (params.nat) {
        sa.flags = OutboundSa::encapsulated;
        if (spi == params.numbers.spi_us) sa.flags |= OutboundSa::to_port_us;
    }
    sa.owner = static_cast<std::uint8_t>(sa::SpiLayout::owner(set.spi_ps));
    sa.sequence.set(sequence);
    sa.first_sequence = sequence;
    sa.schedule = set.schedule;
    sa.bytes.set(0);
    std::copy(key.begin(), key.end(), sa.small_key.begin());
    sa.iv_base = iv_base;
}

void SaTable::unpublish(SetHandle handle) {
    Set& set = sets_[handle.index];
    if (!set.published) return;
    set.published = false;
    for (const sa::Spi spi : {set.spi_ps, set.spi_pc}) {
        slots_[sa::SpiLayout::slot(spi)].spi.store(0, std::memory_order_release);
    }
    if (!inbound_only_) {
        outbound_.unlink(set.out_uc);
        outbound_.unlink(set.out_us);
    }
    --installed_;
}

void SaTable::reclaim(SetHandle handle) {
    Set& set = sets_[handle.index];
    if (set.id == 0 || set.published) return;
    for (const sa::Spi spi : {set.spi_ps, set.spi_pc}) {
        InboundSa& sa = slots_[sa::SpiLayout::slot(spi)];
        wipe(sa.small_key);
        sa.set = 0;
    }
    if (!inbound_only_) {
        outbound_.release(set.out_uc);
        outbound_.release(set.out_us);
    }
    if (Slab* slab = slab_owner_[set.suite]; slab != nullptr) slab->release(set.schedule);
    release_set(handle.index);
}

SetCounters SaTable::counters(SetHandle handle) const {
    const Set& set = sets_[handle.index];
    SetCounters c;
    if (set.id == 0) return c;
    for (const sa::Spi spi : {set.spi_ps, set.spi_pc}) {
        const InboundSa& sa = slots_[sa::SpiLayout::slot(spi)];
        c.in_packets += sa.packets.get();
        c.in_bytes += sa.bytes.get();
        c.integrity_failures += sa.failures.get();
        c.replays += sa.replays.get();
        c.last_use = std::max(c.last_use, sa.last_use.get());
    }
    if (set.nat) c.nat_endpoint = nat_[handle.index].endpoint.get();
    if (inbound_only_) return c;
    for (const std::uint32_t record : {set.out_uc, set.out_us}) {
        const OutboundSa& sa = outbound_.record(record);
        c.out_packets += sa.sequence.get() - sa.first_sequence;
        c.out_bytes += sa.bytes.get();
        c.highest_out_sequence = std::max(c.highest_out_sequence, sa.sequence.get());
    }
    return c;
}

SequenceState SaTable::sequence_state(SetHandle handle) const {
    const Set& set = sets_[handle.index];
    if (set.id == 0) return {};
    SequenceState state;
    state.in_ps = slots_[sa::SpiLayout::slot(set.spi_ps)].highest.get();
    state.in_pc = slots_[sa::SpiLayout::slot(set.spi_pc)].highest.get();
    if (inbound_only_) return state;
    state.out_uc = outbound_.record(set.out_uc).sequence.get();
    state.out_us = outbound_.record(set.out_us).sequence.get();
    return state;
}

std::optional<sa::SetId> SaTable::resolve(const FastPathEvent& event) const {
    if (event.set >= capacity_) return std::nullopt;
    const Set& set = sets_[event.set];
    if (set.id == 0 || !set.published) return std::nullopt;
    if (event.outbound) {
        if (inbound_only_) return std::nullopt;
        if (outbound_.record(set.out_uc).spi != event.spi &&
            outbound_.record(set.out_us).spi != event.spi)
            return std::nullopt;
    } else if (set.spi_ps != event.spi && set.spi_pc != event.spi) {
        return std::nullopt;
    }
    return set.id;
}

}  // namespace gmgate::dataplane
