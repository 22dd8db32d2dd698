#pragma once
// A sa::Backend that keeps records: which sets are installed, what was asked, and fails or raises
// events when told.

#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "sa/backend.h"

namespace gmgate::test {

class FakeBackend : public sa::Backend {
  public:
    explicit FakeBackend(std::size_t capacity = 64) : capacity_(capacity) {}

    struct Installed {
        IpAddress ue;
        IpAddress ours;
        sa::SaNumbers numbers;
        sa::Suite suite;
        std::optional<sa::NatTraversal> nat;
        sa::AkaKey ck;
        sa::AkaKey ik;
        std::uint32_t out_sequence = 0;
    };

    // --- told by the test ---
    // The next `times` installs fail so.
    void fail_install(ErrorKind kind, int times = 1) {
        fail_kind_ = kind;
        fail_times_ = times;
    }
    void emit(const sa::BackendEvent& event) { events_.push_back(event); }
    void set_stats(sa::SetId id, const sa::SetStats& stats) { stats_[id] = stats; }
    void set_owner(std::uint32_t owner) { owner_ = owner; }
    void set_nat(bool supported) { nat_ = supported ? sa::NatLabels::drawn : sa::NatLabels::none; }
    void set_nat_labels(sa::NatLabels labels) { nat_ = labels; }

    // --- asked by the test ---
    [[nodiscard]] const std::map<sa::SetId, Installed>& sets() const { return sets_; }
    [[nodiscard]] bool has(sa::SetId id) const { return sets_.contains(id); }
    [[nodiscard]] const Installed* set(sa::SetId id) const {
        const auto it = sets_.find(id);
        return it == sets_.end() ? nullptr : &it->second;
    }
    [[nodiscard]] std::size_t install_calls() const { return install_calls_; }
    // Grace periods waited for: one a call of remove, however many sets.
    [[nodiscard]] std::size_t remove_calls() const { return remove_calls_; }
    [[nodiscard]] std::size_t removed_sets() const { return removed_sets_; }
    // Sets in the largest call of remove.
    [[nodiscard]] std::size_t largest_removal() const { return largest_removal_; }

    // --- sa::Backend ---
    [[nodiscard]] Result<void> install(const sa::SetParams& p) override {
        ++install_calls_;
        if (fail_times_ > 0) {
            --fail_times_;
            return fail(fail_kind_, "install refused by the test");
        }
        if (p.nat && nat_ == sa::NatLabels::none)
            return fail(ErrorKind::unsupported, "no UDP encapsulation");
        if (sets_.size() >= capacity_) return fail(ErrorKind::exhausted, "the table is full");
        if (sets_.contains(p.id)) return fail(ErrorKind::conflict, "the set is installed already");
        for (const sa::Spi spi : {p.numbers.spi_pc, p.numbers.spi_ps}) {
            if (sa::SpiLayout::slot(spi) >= 2 * capacity_ + first_slot_) {
                return fail(ErrorKind::invalid, "the SPI's slot is outside the table");
            }
            if (slots_.contains(sa::SpiLayout::slot(spi)))
                return fail(ErrorKind::conflict, "the SPI's slot is taken");
        }
        for (const auto& t : outbound(p.ue, p.ours, p.numbers)) {
            if (outbound_.contains(t))
                return fail(ErrorKind::conflict, "the outbound selector is taken");
        }
        for (const sa::Spi spi : {p.numbers.spi_pc, p.numbers.spi_ps})
            slots_.insert(sa::SpiLayout::slot(spi));
        for (const auto& t : outbound(p.ue, p.ours, p.numbers)) outbound_.insert(t);
        sets_.emplace(p.id, Installed{p.ue, p.ours, p.numbers, p.suite, p.nat, p.ck->copy(),
                                      p.ik->copy(), p.out_sequence});
        return {};
    }
    void remove(sa::SetId id) override { remove(std::span<const sa::SetId>(&id, 1)); }
    void remove(std::span<const sa::SetId> ids) override {
        ++remove_calls_;
        largest_removal_ = std::max(largest_removal_, ids.size());
        for (const sa::SetId id : ids) {
            const auto it = sets_.find(id);
            if (it == sets_.end()) continue;
            const auto& s = it->second;
            slots_.erase(sa::SpiLayout::slot(s.numbers.spi_pc));
            slots_.erase(sa::SpiLayout::slot(s.numbers.spi_ps));
            for (const auto& t : outbound(s.ue, s.ours, s.numbers)) outbound_.erase(t);
            sets_.erase(it);
            stats_.erase(id);
            ++removed_sets_;
        }
    }
    void stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> out) const override {
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const auto it = stats_.find(ids[i]);
            out[i] = it == stats_.end() ? sa::SetStats{} : it->second;
        }
    }
    [[nodiscard]] int event_fd() const override { return -1; }
    void drain_events(const std::function<void(const sa::BackendEvent&)>& handle) override {
        while (!events_.empty()) {
            const sa::BackendEvent e = events_.front();
            events_.pop_front();
            handle(e);
        }
    }
    [[nodiscard]] std::uint32_t owner_of(const IpAddress& /*ue*/,
                                         const IpAddress& /*ours*/) const override {
        return owner_;
    }
    [[nodiscard]] std::size_t capacity() const override { return capacity_; }
    [[nodiscard]] std::size_t installed() const override { return sets_.size(); }
    [[nodiscard]] sa::NatLabels nat_labels() const override { return nat_; }
    void set_first_slot(std::uint32_t slot) { first_slot_ = slot; }

  private:
    using Selector = std::tuple<IpAddress, IpAddress, sa::Port, sa::Port>;
    static std::array<Selector, 2> outbound(const IpAddress& ue, const IpAddress& ours,
                                            const sa::SaNumbers& n) {
        return {Selector{ue, ours, n.port_uc, n.port_ps}, Selector{ue, ours, n.port_us, n.port_pc}};
    }

    std::size_t capacity_;
    std::uint32_t first_slot_ = 0;
    std::uint32_t owner_ = 0;
    sa::NatLabels nat_ = sa::NatLabels::drawn;
    ErrorKind fail_kind_ = ErrorKind::io;
    int fail_times_ = 0;
    std::size_t install_calls_ = 0;
    std::size_t remove_calls_ = 0;
    std::size_t removed_sets_ = 0;
    std::size_t largest_removal_ = 0;
    std::map<sa::SetId, Installed> sets_;
    std::set<std::uint32_t> slots_;
    std::set<Selector> outbound_;
    std::map<sa::SetId, sa::SetStats> stats_;
    std::deque<sa::BackendEvent> events_;
};

}  // namespace gmgate::test
