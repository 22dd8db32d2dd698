#pragma once
// The inside of KernelBackend, shared by its source files.

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/secret.h"
#include "base/seeded_hash.h"
#include "base/unique_fd.h"
#include "sa/kernel/channel.h"
#include "sa/kernel/decoder.h"
#include "sa/kernel/kernel_backend.h"
#include "sa/kernel/message.h"
#include "sa/kernel/policies.h"
#include "sa/kernel/requests.h"
#include "sa/kernel/set_states.h"
#include "sa/sa_set.h"

namespace gmgate::kernel {

// Phones choose their address and their SPIs.
struct HashStateId {
    SeededHash hash;
    std::size_t operator()(const StateId& id) const {
        return hash(id.destination, static_cast<std::uint16_t>(id.spi >> 16U),
                    static_cast<std::uint16_t>(id.spi));
    }
};

// An outbound flow: two sets must not claim one.
struct Flow {
    IpAddress ours;
    IpAddress ue;
    sa::Port our_port = 0;
    sa::Port ue_port = 0;
    bool operator==(const Flow&) const = default;
};
struct HashFlow {
    SeededHash hash;
    std::size_t operator()(const Flow& f) const { return hash(f.ue, f.our_port, f.ue_port); }
};

struct Counters {
    metrics::Counter installed;
    metrics::Counter install_failed;
    metrics::Counter removed;
    metrics::Counter adopted;       // states of an earlier run taken over, in sets
    metrics::Counter reconciled;    // states of an earlier run removed
    metrics::Counter acquires;      // packets of ours without a state
    metrics::Counter expired;       // states near the end of their sequence numbers
    metrics::Counter overruns;      // events lost
    metrics::Counter missing;       // states that somebody else removed
    metrics::Counter policies_put;  // policies that somebody else removed, put back
    metrics::Counter offload_fallbacks;
    metrics::Counter nat_changes;   // phones behind a NAT that came from elsewhere
    metrics::Counter nat_failures;  // that could not be followed there
    metrics::Counter nat_other;     // at port 4500, and not ESP
    metrics::Gauge bypassed;        // 1: something comes before our policies
};

// Where a phone behind a NAT is, and what its states are made of when it is elsewhere.
struct NatPath {
    Endpoint outer;
    bool learnt = false;             // an authentic packet came from there
    TimePoint moved{};               // the last try to follow it
    std::optional<Endpoint> wanted;  // it came from there since, too soon to follow it
    bool waiting = false;            // in Impl::moving
    sa::Suite suite;
    SecretPtr<sa::SetKeys> keys;
    bool told = false;  // that it could not be followed
    // Sent on outbound states it no longer has.
    std::uint64_t earlier_packets = 0;
    std::uint64_t earlier_bytes = 0;
};

struct KernelBackend::Impl {
    Impl(const KernelOptions& o, const Clock& c, std::unique_ptr<Channel> request_channel,
         std::unique_ptr<Channel> event_channel);
    ~Impl();
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    struct Entry {
        IpAddress ue;
        IpAddress ours;
        sa::SaNumbers numbers;
        std::uint32_t place = 0;  // in order
        bool seen = false;        // its first authentic packet was told
        bool near_end = false;    // that was told
        bool missing = false;     // a state of it was removed behind our back
        std::uint64_t in_packets = 0;
        std::uint64_t failures = 0;
        TimePoint last_use{};
        TimePoint last_failure{};
        std::unique_ptr<NatPath> nat;  // behind a NAT (N1)

        [[nodiscard]] std::array<StateId, states_per_set> ids() const {
            return state_ids(ue, ours, numbers, nat ? &nat->outer.address : nullptr);
        }
        [[nodiscard]] std::vector<Policy> own_policies(const KernelOptions& o) const {
            if (!nat) return {};
            return nat_policies(o, ue, ours, numbers, nat->outer.address);
        }
    };

    // --- start (startup.cpp)
    Result<void> start();
    Result<void> check_options() const;
    Result<std::vector<Policy>> read_policies() const;
    Result<void> read_leftovers();
    Result<void> probe_suites();
    Result<void> probe_offload();
    Result<void> put_policies(std::span<const Policy> which) const;
    void delete_policies(std::span<const Policy> which) const;
    Result<void> open_poll();

    // --- states (kernel_backend.cpp)
    void dress(State& state, std::size_t position, bool offloaded) const;
    Result<void> add(std::span<State> states, sa::Suite suite, std::string_view what);
    // Outcomes of adding; what was added is taken out again if one failed.
    std::optional<Outcome> try_add(std::span<const State> states);
    // What the kernel does not let go of is tried again each second, and told of the first time.
    void delete_states(std::span<const StateId> ids, const char* why);
    void retry_deletions();
    bool adopt(std::span<const State> states);
    void keep(const sa::SetParams& params);
    void forget(sa::SetId id);

    // --- phones behind a NAT (nat.cpp)
    Result<void> open_nat();
    void read_nat_sockets();
    void on_mapping(const Mapping& mapping);
    void follow(sa::SetId id, Entry& entry, const Endpoint& to);
    void follow_waiting();
    // The states and policies of an entry, to where its phone is now. On error it is still sent to
    // where it was.
    [[nodiscard]] Result<void> move(sa::SetId id, Entry& entry, const Endpoint& to);
    Result<void> update_states(std::span<const State> states, std::string_view what) const;
    void put_nat_policies() const;

    // --- reading (polling.cpp)
    // Calls with each state found; `absent` with those the kernel does not have.
    void query(std::span<const StateId> ids,
               const std::function<void(std::size_t, const State&)>& found,
               const std::function<void(std::size_t)>& absent) const;
    void read_all(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const;
    void read_some(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const;
    void note_use(Entry& entry, const State& inbound, std::uint64_t in_packets) const;
    void read_events(std::vector<sa::BackendEvent>& out);
    void on_message(const MessageView& message, std::vector<sa::BackendEvent>& out);
    void poll_sets(std::vector<sa::BackendEvent>& out);
    void poll(std::span<const sa::SetId> ids, std::vector<sa::BackendEvent>& out);
    void resync(std::vector<sa::BackendEvent>& out);
    // What others did to our policies and before them.
    struct Findings {
        std::vector<Policy> gone;
        std::vector<Policy> instead;        // others' in the place of those
        std::optional<std::string> bypass;  // what comes first, with the remedy
    };
    [[nodiscard]] Result<Findings> inspect() const;
    void guard();
    void lost(Entry& entry) const;

    KernelOptions options;
    const Clock& clock;
    mutable Requests requests;
    std::unique_ptr<Channel> events;
    SecretPages event_buffer;
    UniqueFd epoll;
    UniqueFd timer;

    std::vector<UniqueFd> nat_sockets;  // empty: no phones behind a NAT
    std::deque<sa::SetId> moving;       // NatPath::waiting; may name sets that are gone
    Offload offload = Offload::none;
    std::int32_t device = 0;
    std::array<bool, sa::all_suites.size()> offloaded{};  // by suite_index
    bool offload_warned = false;

    std::vector<Policy> policies;  // in the kernel, ours
    mutable std::unordered_map<sa::SetId, Entry> sets;
    SystemRandom random;
    std::unordered_map<StateId, sa::SetId, HashStateId> states{16, {SeededHash(random)}};
    std::unordered_set<Flow, HashFlow> flows{16, {SeededHash(random)}};
    std::unordered_map<StateId, Fingerprint, HashStateId> leftovers{16, {SeededHash(random)}};

    // No set's any more, and still in the kernel; the longest waiting first.
    std::deque<StateId> staying;

    std::vector<sa::SetId> order;  // all sets, to be asked in turn
    std::size_t next = 0;
    std::deque<sa::SetId> fresh;  // no packet seen yet; may name sets that are gone
    TimePoint next_poll{};
    bool resync_wanted = false;     // events were lost since
    TimePoint resynced{};           // then, the last time
    TimePoint guarded{};            // when guard() last looked
    bool policies_changed = false;  // since then, by whomever
    bool bypass_told = false;
    TimePoint acquire_told{};
    std::uint64_t acquires_untold = 0;
    mutable std::size_t missing_sets = 0;  // those of `sets` that are
    mutable TimePoint missing_told{};
    mutable Counters counters;
};

}  // namespace gmgate::kernel
