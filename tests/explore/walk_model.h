#pragma once
// What should exist, thought out once more and as simply as can be: of each user, the sets it has,
// in which state, ending when. Knows the rules (ids beside them) and nothing of the code; fed with
// what reaches the gateway (world.h), compared with the database after each step.

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/explore/world.h"

namespace gmgate::explore {

class Model final : public Listener {
  public:
    explicit Model(const World& world) : world_(world) {}

    // "" or how the database differs from what should be.
    [[nodiscard]] std::string compare() {
        expire();
        std::vector<World::Seen> should;
        for (const Set& s : sets_) should.push_back({s.user, s.nonce, s.state, s.ends});
        std::ranges::sort(should);
        const auto is = world_.sets();
        if (is == should) return {};
        return "should be " + text(should) + "\n  is        " + text(is);
    }

    void on_packet(const Packet& packet, std::uint32_t on) override {
        expire();
        packet_ = packet;
        on_ = on;
        forwarded_ = false;
        if (on == 0) {
            if (has_report(packet)) report(packet, 0);
            return;
        }
        Set* set = find(on);
        if (set == nullptr) return;
        if (packet.kind == Packet::Kind::answer) {
            // The answer to a call that still waits for one.
            const auto branch = field(packet.text, ";branch=", '\r');
            const auto call = std::ranges::find(calls_, branch, &Call::branch);
            if (call == calls_.end()) return;
            const bool late = world_.now() - call->sent >= transaction_time;
            calls_.erase(call);
            // B7: another's answer ends the call, and is no use of anything.
            if (!late && packet.user == set->user) use(*set);
            return;
        }
        // B7: on the wrong SA, nothing happens. A MESSAGE may name whom nobody is registered as.
        const auto who = named(packet);
        if (who != set->user &&
            (packet.text.starts_with("REGISTER ") || (who < users && registered(who))))
            return;
        // D2: any message but SM7 on a completed set shows that it is in use. The REGISTER of a
        // report is such a message too.
        if (set->state == sa::State::established || set->state == sa::State::draining) {
            use(*set);
            if (has_report(packet)) report(packet, on);
        }
    }
    void on_request(const Request& request) override {
        forwarded_ = true;
        if (request.kind == Request::Kind::message) return;
        if (request.kind == Request::Kind::sm2) {
            Procedure p;
            p.user = request.user;
            p.branch = request.branch;
            p.source = request.source;
            p.on = request.on;
            p.asked = world_.now();
            p.leaving = request.leaving;
            p.port = field(packet_.text, ";port-c=", ';');
            if (p.on != 0) since_[p.user] = world_.now();
            procedures_.push_back(p);
            return;
        }
        for (Procedure& p : procedures_) {
            if (p.nonce != request.on || p.step != Step::challenged) continue;
            p.step = Step::answered;
            p.branch = request.branch;
            p.asked = world_.now();
        }
    }
    void after_packet() override {
        // C8: an SM7 on a set that waits for one, and not passed on: its answer leaves on the set,
        // which then goes. (SM7s in the world are never malformed.)
        if (forwarded_ || on_ == 0) return;
        for (Procedure& p : procedures_) {
            if (p.nonce == on_ && p.step == Step::challenged && named(packet_) == p.user &&
                packet_.kind == Packet::Kind::sm7) {
                refused(p);
            }
        }
        sweep();
        on_ = 0;
    }
    void on_answer(const Request& request, int status, std::uint32_t nonce) override {
        expire();
        on_ = 0;
        const auto p = std::ranges::find_if(procedures_, [&](const Procedure& x) {
            return x.branch == request.branch &&
                   (x.step == Step::asked || x.step == Step::answered);
        });
        if (p == procedures_.end()) return;
        if (p->step == Step::asked) {
            first_answer(*p, status, nonce);
        } else {
            second_answer(*p, status);
        }
        std::erase_if(procedures_, [](const Procedure& x) { return x.step == Step::over; });
    }
    void on_install_fails() override { refuse_install_ = true; }
    void on_call(std::string_view branch) override {
        calls_.push_back({std::string(branch), world_.now()});
        if (calls_.size() > 32) calls_.erase(calls_.begin());
    }

  private:
    struct Set {
        std::uint8_t user = 0;
        std::uint32_t nonce = 0;
        sa::State state = sa::State::registration;
        TimePoint ends{};
        TimePoint life{};
        std::uint32_t sm1_on = 0;  // the set SM1 came on
        IpAddress ue;
        std::string port;  // port_uc
        bool used = false;
    };
    struct Call {
        std::string branch;
        TimePoint sent{};
    };
    enum class Step : std::uint8_t { asked, challenged, answered, lingering, over };
    struct Procedure {
        std::uint8_t user = 0;
        Step step = Step::asked;
        std::string branch;
        IpAddress source;
        std::string port;
        std::uint32_t on = 0;
        std::uint32_t nonce = 0;
        TimePoint asked{};
        TimePoint lingers{};
        bool leaving = false;
    };

    static std::string_view field(std::string_view text, std::string_view key, char end) {
        const auto at = text.find(key);
        if (at == std::string_view::npos) return {};
        return text.substr(at + key.size(), text.find(end, at + key.size()) - at - key.size());
    }
    // Whom a REGISTER names by its Authorization, another request by its preferred identity.
    static std::uint8_t named(const Packet& packet) {
        std::string_view who = field(packet.text, "username=\"", '"');
        if (who.empty()) who = field(packet.text, "P-Preferred-Identity: <sip:", '>');
        if (who.empty()) return packet.user;  // a response names nobody
        for (std::uint8_t u = 0; u < users; ++u) {
            if (who == impis[u]) return u;
        }
        return users;
    }
    static std::uint32_t answered_nonce(const Packet& packet) {
        const auto n = field(packet.text, "nonce=\"n", '"');
        return n.empty() ? 0 : static_cast<std::uint32_t>(std::stoul(std::string(n)));
    }
    static bool has_report(const Packet& packet) {
        return packet.text.starts_with("REGISTER ") && answered_nonce(packet) != 0 &&
               field(packet.text, "response=\"", '"').empty();
    }

    Set* find(std::uint32_t nonce) {
        const auto it = std::ranges::find(sets_, nonce, &Set::nonce);
        return it == sets_.end() ? nullptr : &*it;
    }
    // The set and whatever waits for it.
    void remove(std::uint32_t nonce) {
        std::erase_if(sets_, [&](const Set& s) { return s.nonce == nonce; });
        for (Procedure& p : procedures_) {
            if (p.nonce == nonce && nonce != 0) p.step = Step::over;
        }
    }
    void sweep() {
        std::erase_if(procedures_, [](const Procedure& x) { return x.step == Step::over; });
    }
    // C2, C8, D6: the set goes at once if the refusal left on the old one, else when it has left on
    // this.
    void refused(Procedure& p) {
        if (p.on != 0 && find(p.on) != nullptr) return remove(p.nonce);
        p.step = Step::lingering;
        p.lingers = world_.now() + transaction_time;
    }

    void expire() {
        const TimePoint now = world_.now();
        for (Procedure& p : procedures_) {
            // C11: timer F.
            if (p.step == Step::asked && now - p.asked >= transaction_time) p.step = Step::over;
            if (p.step == Step::answered && now - p.asked >= transaction_time)
                p.step = Step::challenged;
            if (p.step == Step::lingering && now >= p.lingers) {
                const auto nonce = p.nonce;
                p.step = Step::over;
                std::erase_if(sets_, [&](const Set& s) { return s.nonce == nonce; });
            }
        }
        std::vector<std::uint32_t> over;
        for (const Set& s : sets_) {
            if (now >= s.ends) over.push_back(s.nonce);
        }
        for (const auto nonce : over) remove(nonce);
        sweep();
    }

    void use(Set& set) {
        if (set.state != sa::State::established || set.used) return;
        set.used = true;
        for (Set& other : sets_) {  // the oldest come first
            if (&other == &set) break;
            if (other.user == set.user && other.state == sa::State::established) drain(other);
        }
    }
    void drain(Set& set) {
        set.state = sa::State::draining;
        set.ends = std::min(set.life, world_.now() + transaction_time);
    }
    // C3, C4: the new SAs go on receipt. In clear only what began in clear, and only for the one
    // who knows the challenge, from its address.
    void report(const Packet& packet, std::uint32_t on) {
        const auto nonce = answered_nonce(packet);
        for (Procedure& p : procedures_) {
            if (p.user != named(packet) || p.nonce != nonce || p.step != Step::challenged) continue;
            if (p.on != 0 && on == 0) continue;
            if (p.source != packet.flow.remote.address) continue;
            remove(nonce);
        }
        sweep();
    }
    // Who has shown its keys is not displaced by an SM1 in clear (S3).
    [[nodiscard]] bool shielded(std::uint8_t user) const {
        // An SM1 on an SA counts for one transaction's time after the latest such.
        const bool recent = world_.now() - since_[user] < transaction_time;
        return std::ranges::any_of(procedures_, [&](const Procedure& p) {
            return p.user == user && p.step != Step::over &&
                   (p.step == Step::answered || (p.on != 0 && recent));
        });
    }

    void first_answer(Procedure& p, int status, std::uint32_t nonce) {
        const std::uint8_t user = p.user;
        if (p.on != 0 && find(p.on) == nullptr) {  // the way back is gone
            p.step = Step::over;
            return;
        }
        if (status == 200 && p.on != 0) {
            // D3, of nothing granted; then D4: everything drains, what is incomplete goes.
            Set* in_use = find(p.on);
            if (in_use->state == sa::State::draining) {
                for (Set& s : sets_) {
                    if (s.user == user && s.state == sa::State::established) in_use = &s;
                }
            }
            in_use->life = std::max(in_use->life, world_.now() + grace_time);
            registered_[user] = false;
            std::vector<std::uint32_t> incomplete;
            for (Set& s : sets_) {
                if (s.user != user) continue;
                if (s.state == sa::State::registration) incomplete.push_back(s.nonce);
                if (s.state == sa::State::established) drain(s);
            }
            p.step = Step::over;
            for (const auto n : incomplete) remove(n);
            return;
        }
        if (status != 401) {
            p.step = Step::over;
            return;
        }
        if (p.on == 0) {
            Procedure self = p;
            p.step = Step::over;
            if (shielded(user)) return;
            p = self;
        }
        // B3: it replaces what is not complete.
        std::vector<std::uint32_t> incomplete;
        for (const Set& s : sets_) {
            if (s.user == user && s.state == sa::State::registration) incomplete.push_back(s.nonce);
        }
        for (const auto n : incomplete) {
            std::erase_if(sets_, [&](const Set& s) { return s.nonce == n; });
            for (Procedure& q : procedures_) {
                if (q.nonce == n) q.step = Step::over;
            }
        }
        const auto count = std::ranges::count(sets_, user, &Set::user);
        if (count >= static_cast<std::ptrdiff_t>(sa::max_sets_per_user) || port_taken(p) ||
            std::exchange(refuse_install_, false)) {
            p.step = Step::over;
            return;
        }
        p.nonce = nonce;
        p.step = Step::challenged;
        Set s;
        s.user = user;
        s.nonce = nonce;
        s.ends = world_.now() + await_time;
        s.sm1_on = p.on;
        s.ue = p.source;
        s.port = p.port;
        sets_.push_back(s);
    }
    // B6: (UE address, port_uc) is in the table.
    [[nodiscard]] bool port_taken(const Procedure& p) const {
        return std::ranges::any_of(
            sets_, [&](const Set& s) { return s.ue == p.source && s.port == p.port; });
    }
    [[nodiscard]] bool registered(std::uint8_t user) const {
        return registered_[user] && std::ranges::any_of(sets_, [&](const Set& s) {
                   return s.user == user && s.state != sa::State::registration;
               });
    }

    void second_answer(Procedure& p, int status) {
        Set* set = find(p.nonce);
        if (set == nullptr) {
            p.step = Step::over;
            return;
        }
        if (status == 503) {  // C11: it may try again
            p.step = Step::challenged;
            return;
        }
        if (status != 200) {
            return refused(p);
        }
        const TimePoint now = world_.now();
        set->life = now + granted_time + grace_time;
        for (const Set& s : sets_) {
            if (s.user == set->user && s.nonce != set->nonce)
                set->life = std::max(set->life, s.life);
        }
        registered_[set->user] = true;
        set->state = sa::State::established;
        set->ends = set->life;
        p.step = Step::over;
        const Set done = *set;
        // D5, D1, D2.
        std::erase_if(sets_, [&](const Set& s) {
            if (s.user != done.user || s.nonce == done.nonce) return false;
            return s.ue != done.ue || done.sm1_on == 0 || s.nonce != done.sm1_on;
        });
    }

    static std::string text(const std::vector<World::Seen>& list) {
        std::string out;
        for (const auto& s : list) {
            out += std::string(impis[s.user]) + " #" + std::to_string(s.nonce) + " " +
                   std::string(sa::name(s.state)) + " until " +
                   std::to_string(s.deadline.time_since_epoch() / 1us) + "; ";
        }
        return out;
    }

    const World& world_;
    std::vector<Set> sets_;
    std::vector<Procedure> procedures_;
    std::vector<Call> calls_;
    std::array<TimePoint, users> since_{};
    std::array<bool, users> registered_{};
    Packet packet_;
    std::uint32_t on_ = 0;
    bool forwarded_ = false;
    bool refuse_install_ = false;
};

}  // namespace gmgate::explore
