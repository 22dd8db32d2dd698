#pragma once
// What a run saw: counters, latencies, and things the gateway should not have done.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "sa/algorithms/suite.h"
#include "ue/misbehaviour.h"

namespace gmgate::ue {

// Log-linear histogram of durations: 1 µs to about an hour, 3 % wide buckets, fixed memory whatever
// the number of phones.
class Latencies {
  public:
    Latencies() : buckets_(octaves * steps) {}
    void add(Duration d);
    [[nodiscard]] std::uint64_t count() const { return count_; }
    // `p` in [0, 1]: the upper edge of the bucket in which it lies; zero without samples.
    [[nodiscard]] Duration percentile(double p) const;
    [[nodiscard]] Duration max() const { return max_; }

  private:
    static constexpr std::size_t octaves = 32;
    static constexpr std::size_t steps = 32;
    static std::size_t bucket(std::uint64_t us);
    static std::uint64_t upper_edge(std::size_t bucket);

    std::vector<std::uint32_t> buckets_;
    std::uint64_t count_ = 0;
    Duration max_{0};
};

// Text → how often; at most 64 different texts, the rest together as "other".
class Tally {
  public:
    void add(std::string_view text) {
        auto it = counts_.find(text);
        if (it == counts_.end())
            it = counts_.emplace(counts_.size() < 64 ? text : "other", 0U).first;
        ++it->second;
    }
    [[nodiscard]] const std::map<std::string, std::uint64_t, std::less<>>& counts() const {
        return counts_;
    }
    [[nodiscard]] std::uint64_t total() const {
        std::uint64_t n = 0;
        for (const auto& [text, count] : counts_) n += count;
        return n;
    }

  private:
    std::map<std::string, std::uint64_t, std::less<>> counts_;
};

struct MisbehaviourResult {
    std::uint64_t phones = 0;
    std::uint64_t as_expected = 0;
    Tally seen;
};

// Calls and what else agents (ue/agent.h) do. A call between two phones of the fleet counts at
// both.
struct CallStatistics {
    std::uint64_t placed = 0;     // INVITEs of ours outside dialogs
    std::uint64_t rang = 0;       // ... that got a 180
    std::uint64_t answered = 0;   // ... that got a 2xx
    std::uint64_t completed = 0;  // ... and ended by a BYE that was answered
    std::uint64_t cancelled = 0;  // ... that we gave up before the answer
    std::uint64_t taken = 0;      // calls that came and were answered
    std::uint64_t declined = 0;   // calls that came and were not: busy, refused, cancelled
    std::uint64_t holds = 0;      // holds and resumptions that were accepted
    std::uint64_t dropped = 0;    // ended here alone: the registration went, nobody answered BYE
    std::uint64_t messages_sent = 0, messages_answered = 0, messages_received = 0;
    std::uint64_t subscriptions = 0, notifies = 0;
    std::uint64_t forked = 0;  // second answers to one INVITE, ended at once
    Tally failures;            // of calls, by status
    Tally message_failures;
    Tally bad_input;  // what peers sent that cannot be
    Latencies ring;   // INVITE → 180
    Latencies setup;  // INVITE → 2xx
    Latencies bye;    // BYE → its answer
    Latencies message;
};

// What bridges carried (ue/bridge.h).
struct BridgeStatistics {
    std::uint64_t requests_out = 0, responses_in = 0;  // of the application
    std::uint64_t requests_in = 0, responses_out = 0;  // of the network
    Tally dropped;
};

struct Statistics {
    std::uint64_t started = 0;
    std::uint64_t registered = 0;  // phones that completed SM12 at least once
    std::uint64_t failed = 0;      // phones that should have, and did not
    std::uint64_t deregistered = 0;
    std::uint64_t ended_by_network = 0;  // registrations, told by NOTIFY
    std::uint64_t reregistrations = 0;
    std::uint64_t reregistrations_failed = 0;
    std::uint64_t challenges = 0;         // SM6 received
    std::uint64_t unchallenged = 0;       // 200 to a REGISTER without a challenge (D3)
    std::uint64_t messages_sent = 0;      // OPTIONS and MESSAGE
    std::uint64_t messages_answered = 0;  // with 2xx
    std::uint64_t network_requests = 0;   // requests to phones, answered
    std::uint64_t retransmissions = 0;    // UDP, ours
    std::uint64_t restarts = 0;           // registrations begun again: SM7 was not answered
    std::uint64_t udp = 0, tcp = 0, ipv4 = 0, ipv6 = 0;  // registered phones
    std::array<std::uint64_t, sa::all_suites.size()> suites{};

    std::uint64_t esp_sent = 0, esp_received = 0;
    std::uint64_t esp_unknown_spi = 0, esp_bad = 0, esp_replayed = 0, esp_selector = 0;
    std::uint64_t stray = 0;  // messages that belong to no transaction: late answers

    Tally failures;    // why phones failed
    Tally violations;  // what the rules forbid, whether or not the phone got through
    Latencies sm1_sm6, sm7_sm12, whole, message;
    std::array<MisbehaviourResult, misbehaviour_count> misbehaved;
    CallStatistics calls;
    BridgeStatistics bridge;
};

}  // namespace gmgate::ue
