#pragma once
// What is kept of a registered user beside the SA database: bindings by public identity, transport,
// and which challenge made which set.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/slot_map.h"
#include "control/registration/reasons.h"
#include "control/registration/subscriptions.h"
#include "control/sip/transport.h"
#include "sa/packed_strings.h"
#include "sa/sa_set.h"

namespace gmgate::registration {

// One REGISTER's public identity (the To) with those the network registered along with it.
struct Binding {
    std::string aor;          // normalised
    sa::PackedStrings impus;  // normalised, default first
    TimePoint expires{};
    TimePoint
        granted{};  // as the 200 said; `expires` is earlier once the network shortened it (F1)
    [[nodiscard]] bool is_shortened() const { return expires < granted; }
};

struct Registration {
    Registration(SlotId i, sa::UserId u) : id(i), user(u) {}

    SlotId id;
    sa::UserId user;
    std::uint64_t trace_user = 0;
    TimePoint since{};
    sip::Transport transport = sip::Transport::udp;
    IpAddress source;               // as limits count it; unspecified: none yet
    bool nat = false;               // `source` is a NAT's (N1)
    Endpoint at;                    // address and port_us of its newest set
    std::vector<Binding> bindings;  // none: leaving, its last messages are on their way (D4)
    Reason ended_by = Reason::ok;   // why it leaves; ok: it does not

    // A11: an authentication response belongs to the set its challenge made.
    struct Challenge {
        sa::SetId set = 0;
        std::uint64_t nonce_hash = 0;
    };
    std::array<Challenge, sa::max_sets_per_user> challenges{};
    Subscriptions dialogs;    // of the user's own subscriptions
    SlotId subscription = 0;  // to its registration state (E5); 0: none
    bool unheard = false;     // a document came that a REGISTER under way made too early to obey
    sa::SetId latest = 0;     // set of the latest successful authentication

    [[nodiscard]] std::uint64_t nonce_hash(sa::SetId set) const {
        for (const Challenge& c : challenges) {
            if (c.set == set) return c.nonce_hash;
        }
        return 0;
    }
    void remember(sa::SetId set, std::uint64_t hash) {
        for (std::size_t i = challenges.size() - 1; i > 0; --i) challenges[i] = challenges[i - 1];
        challenges[0] = Challenge{set, hash};
        latest = set;
    }
};

class Registrations {
  public:
    [[nodiscard]] Registration* find(sa::UserId user) const {
        const auto it = by_user_.find(user);
        return it == by_user_.end() ? nullptr : slots_.find(it->second);
    }
    Registration& get(sa::UserId user) {
        if (auto* r = find(user)) return *r;
        Registration& r = slots_.emplace(user);
        by_user_.emplace(user, r.id);
        return r;
    }
    // Its phone takes requests at this address and port_us. `named`: an address that the phone
    // behind a NAT merely named (sa::NatLabels::own); it goes behind everybody who is there.
    void place(Registration& r, const Endpoint& at, bool named = false) {
        if (r.at == at) return;
        displace(r);
        r.at = at;
        auto& users = by_place_[at];
        users.insert(named ? users.begin() : users.end(), r.user);
    }
    // Who is registered there; of several the latest.
    [[nodiscard]] std::optional<sa::UserId> user_at(std::string_view host,
                                                    std::uint16_t port) const {
        const auto address = IpAddress::parse(host);
        if (!address) return std::nullopt;
        const auto it = by_place_.find({*address, port == 0 ? std::uint16_t{5060} : port});
        return it == by_place_.end() ? std::nullopt : std::optional(it->second.back());
    }
    void erase(sa::UserId user) {
        const auto it = by_user_.find(user);
        if (it == by_user_.end()) return;
        if (Registration* r = slots_.find(it->second)) displace(*r);
        slots_.erase(it->second);
        by_user_.erase(it);
    }
    [[nodiscard]] std::size_t size() const { return slots_.size(); }
    [[nodiscard]] const SlotMap<Registration>& slots() const { return slots_; }

  private:
    void displace(const Registration& r) {
        const auto it = by_place_.find(r.at);
        if (it == by_place_.end()) return;
        std::erase(it->second, r.user);
        if (it->second.empty()) by_place_.erase(it);
    }

    SlotMap<Registration> slots_;
    // Of registered phones alone; none is empty.
    std::unordered_map<Endpoint, std::vector<sa::UserId>> by_place_;
    std::unordered_map<sa::UserId, SlotId> by_user_;  // numbers of our own making
};

}  // namespace gmgate::registration
