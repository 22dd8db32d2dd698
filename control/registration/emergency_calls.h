#pragma once
// Emergency calls of phones that are not registered (A6; TS 24.229 5.2.10.2): which of them run,
// where each came from, and how many there may be (S3). Beside everything that registered users
// have: nothing here takes of their shares. One thread.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "control/registration/limiter.h"
#include "control/registration/policy.h"
#include "control/registration/reasons.h"
#include "control/sip/message.h"
#include "control/sip/transport.h"
#include "sa/sa_set.h"

namespace gmgate::registration {

class EmergencyCalls;

struct EmergencyCall {
    sa::UserId user = 0;  // stands where a user's number would; is_stranger()
    IpAddress source;     // as limits count it
    sip::Flow from;       // its requests come from there, and from nowhere else
    sip::Flow way;        // what is said to the phone goes there: an address it has sent from
    sip::Flow core;       // the E-CSCF that has it
    std::uint64_t trace_user = 0;
    std::size_t exchanges = 0;  // requests under way in it
    bool proven = false;        // its sender hears what is sent to its address
    bool acked = false;
    bool counted = true;  // false: it has given way, and ends
    std::string name;
    EmergencyCalls* book = nullptr;
    Timer idle;

    // TCP: false while its connection is gone. We open none to who has not registered.
    [[nodiscard]] bool reachable() const {
        return way.transport == sip::Transport::udp || way.connection != 0;
    }
    [[nodiscard]] bool comes_from(const sip::Flow& flow) const;
    // An answer on this flow is from whom we asked.
    [[nodiscard]] bool hears(const sip::Flow& flow) const;
};

class EmergencyCalls {
  public:
    // `forgotten`: nobody said a word in this call for policy.emergency_idle; or its connection is
    // gone, and no other one came within lost_time.
    EmergencyCalls(const Policy& policy, TimerWheel& timers, Random& random,
                   std::function<void(sa::UserId)> forgotten);
    EmergencyCalls(const EmergencyCalls&) = delete;
    EmergencyCalls& operator=(const EmergencyCalls&) = delete;

    // An INVITE that begins one.
    [[nodiscard]] static bool begins(const sip::Message& request);
    // The call in which this request came in clear, on the flow of the call. Over TCP another
    // connection of the same address will do once the first one is gone. nullptr: in none.
    [[nodiscard]] EmergencyCall* find(const sip::Flow& flow, const sip::Message& request) const;
    [[nodiscard]] EmergencyCall* find(sa::UserId user) const;
    // Somebody at this address has a call.
    [[nodiscard]] bool has_any(const IpAddress& address) const {
        return !calls_.empty() && at_source_.contains(source_of(address));
    }
    // One runs on this connection.
    [[nodiscard]] bool runs_on(const sip::Flow& flow) const;
    [[nodiscard]] IpAddress source_of(const IpAddress& address) const {
        return address.is_v6() ? address.network(ipv6_prefix_) : address;
    }
    // May one more begin here? ok, or why not; and which other one ends for it, if not 0. `nat`:
    // each port there is a source of its own, up to Limits::sources_per_nat of them (N1).
    struct Place {
        Reason why = Reason::ok;
        sa::UserId gives_way = 0;
    };
    [[nodiscard]] Place may_begin(const sip::Flow& flow, bool nat, TimePoint now);
    // It is about to end, and takes nobody's place until then; nobody speaks in it any more.
    void uncount(EmergencyCall& call);
    // nullptr: this very call runs already.
    EmergencyCall* add(const sip::Flow& flow, const sip::Flow& way, const sip::Message& request);
    void remove(sa::UserId user);

    // A request in the call has come from its flow, which may be a new connection.
    void heard(EmergencyCall& call, const sip::Flow& flow);
    // Something was said in it, by either side.
    void touch(EmergencyCall& call) {
        timers_.start(call.idle, call.reachable() ? idle_ : std::min(idle_, lost_time));
    }
    void connection_closed(const sip::Flow& flow);
    // Those that take a place.
    [[nodiscard]] std::size_t size() const { return at_source_.size(); }

  private:
    // A phone that lost its connection makes another one, if it still needs one.
    static constexpr Duration lost_time = std::chrono::minutes(2);
    static constexpr std::size_t sources_remembered = 1024;
    // The caller says Call-ID and From tag in all its requests.
    [[nodiscard]] static std::string name_of(const IpAddress& address, const sip::Message& request);

    TimerWheel& timers_;
    Duration idle_;
    std::function<void(sa::UserId)> forgotten_;
    std::size_t most_;
    std::size_t most_per_source_;
    unsigned ipv6_prefix_;
    std::size_t sources_per_nat_;
    // Each may call somebody to a telephone: as many as there is room for at once, then slowly. Who
    // may have invented its address leaves half of that; and no source takes all of it: UDP and
    // TCP apart, so that who writes somebody's address takes nothing of what he has by TCP.
    TokenBucket rate_;
    std::array<RateTable, 2> per_source_;
    std::unordered_map<sa::UserId, std::unique_ptr<EmergencyCall>> calls_;  // of our own making
    std::unordered_map<std::string, sa::UserId, SeededStringHash, std::equal_to<>> by_name_;
    std::unordered_multimap<IpAddress, EmergencyCall*, CountBySource::Hash> at_source_;
    std::set<sa::UserId> unproven_;  // the oldest first
    std::set<sa::UserId> lost_;      // without a connection
    sa::UserId next_ = 0;
};

}  // namespace gmgate::registration
