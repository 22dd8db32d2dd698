#pragma once
// A sa::Backend that does what a packet layer does with keys and numbers, without the octets: which
// SA takes an ESP packet (SPI, address, ICV, replay window, selectors), which SA carries what we
// send.

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "control/sip/transport.h"
#include "sa/backend.h"

namespace gmgate::explore {

using AkaOctets = std::array<std::uint8_t, 16>;

// CK or IK of the n-th challenge, `which` 0 or 1.
inline AkaOctets key_of(std::uint32_t nonce, std::uint8_t which) {
    AkaOctets k{};
    for (std::size_t i = 0; i < k.size(); ++i) {
        k[i] = static_cast<std::uint8_t>((nonce >> (8 * (i % 4))) ^ (i * 29U) ^ (which * 0x5AU));
    }
    return k;
}

class PacketLayer final : public sa::Backend {
  public:
    explicit PacketLayer(std::size_t capacity) : capacity_(capacity) {}

    struct Installed {
        IpAddress ue;
        IpAddress ours;
        sa::SaNumbers numbers;
        AkaOctets ck{};
        AkaOctets ik{};
        std::set<std::uint32_t> seen;  // both inbound SAs of a set are fed by one counter here
    };

    enum class Verdict : std::uint8_t { accepted, no_sa, forged, replayed, wrong_selector };
    // An ESP packet made with the keys of challenge `nonce`.
    Verdict receive(sa::Spi spi, std::uint32_t nonce, std::uint32_t sequence, const sip::Flow& flow,
                    sa::SetId& id) {
        for (auto& [set_id, s] : sets_) {
            const bool ps = s.numbers.spi_ps == spi;
            if (!ps && s.numbers.spi_pc != spi) continue;
            id = set_id;
            if (s.ue != flow.remote.address || s.ours != flow.local.address) return Verdict::no_sa;
            if (s.ik != key_of(nonce, 1) || s.ck != key_of(nonce, 0)) return Verdict::forged;
            if (s.seen.contains(sequence)) return Verdict::replayed;
            s.seen.insert(sequence);
            const auto& n = s.numbers;
            const bool ports = ps ? flow.local.port == n.port_ps && flow.remote.port == n.port_uc
                                  : flow.local.port == n.port_pc && flow.remote.port == n.port_us;
            return ports ? Verdict::accepted : Verdict::wrong_selector;
        }
        return Verdict::no_sa;
    }
    // The set that carries what we send between these ports.
    [[nodiscard]] const Installed* outbound(const sip::Flow& flow, sa::SetId& id) const {
        for (const auto& [set_id, s] : sets_) {
            const auto& n = s.numbers;
            if (s.ue != flow.remote.address || s.ours != flow.local.address) continue;
            if ((flow.local.port == n.port_ps && flow.remote.port == n.port_uc) ||
                (flow.local.port == n.port_pc && flow.remote.port == n.port_us)) {
                id = set_id;
                return &s;
            }
        }
        return nullptr;
    }
    void emit(const sa::BackendEvent& event) { events_.push_back(event); }
    void fail_next_install(bool yes) { fail_ = yes; }
    [[nodiscard]] const std::map<sa::SetId, Installed>& sets() const { return sets_; }

    [[nodiscard]] Result<void> install(const sa::SetParams& p) override {
        if (std::exchange(fail_, false)) return fail(ErrorKind::io, "refused by the test");
        if (sets_.size() >= capacity_) return fail(ErrorKind::exhausted, "the table is full");
        for (const auto& [id, s] : sets_) {
            for (const sa::Spi ours : {p.numbers.spi_pc, p.numbers.spi_ps}) {
                for (const sa::Spi held : {s.numbers.spi_pc, s.numbers.spi_ps}) {
                    if (sa::SpiLayout::slot(ours) == sa::SpiLayout::slot(held))
                        return fail(ErrorKind::conflict, "the SPI's slot is taken");
                }
            }
        }
        Installed s{p.ue, p.ours, p.numbers, {}, {}, {}};
        std::ranges::copy(p.ck->reveal(), s.ck.begin());
        std::ranges::copy(p.ik->reveal(), s.ik.begin());
        if (!sets_.emplace(p.id, std::move(s)).second)
            return fail(ErrorKind::conflict, "the set is installed already");
        return {};
    }
    void remove(sa::SetId id) override { sets_.erase(id); }
    void remove(std::span<const sa::SetId> ids) override {
        for (const sa::SetId id : ids) sets_.erase(id);
    }
    void stats(std::span<const sa::SetId> /*ids*/, std::span<sa::SetStats> out) const override {
        std::ranges::fill(out, sa::SetStats{});
    }
    [[nodiscard]] int event_fd() const override { return -1; }
    void drain_events(const std::function<void(const sa::BackendEvent&)>& handle) override {
        while (!events_.empty()) {
            const auto e = events_.front();
            events_.pop_front();
            handle(e);
        }
    }
    [[nodiscard]] std::uint32_t owner_of(const IpAddress& /*ue*/,
                                         const IpAddress& /*ours*/) const override {
        return 0;
    }
    [[nodiscard]] std::size_t capacity() const override { return capacity_; }
    [[nodiscard]] std::size_t installed() const override { return sets_.size(); }

  private:
    std::size_t capacity_;
    bool fail_ = false;
    std::map<sa::SetId, Installed> sets_;
    std::deque<sa::BackendEvent> events_;
};

}  // namespace gmgate::explore
