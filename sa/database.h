#pragma once
// The SA database: owns users (IMPIs) and their SA sets, executes the lifecycle table, and drives
// the packet layer, the SPI and port allocators and the timers. Belongs to one control thread;
// statistics may be read by any.
//
// A registration, seen from here:
//   SM1   check_ue() and find_by_tuple() …                    nothing is kept yet
//   SM5   reserve()  → numbers for Security-Server            reserved      (removes an earlier
//   incomplete set, B3)
//         install()                                           registration  (live; reg-await-auth
//         runs)
//   SM6   apply(id, Event::sm6_sent)
//   SM7   find_by_tuple() or find_by_spi()  → the set; apply(id, Event::sm7_ok), or the failure it
//   is SM12  establish() with what the 200 said                  established   (old sets removed by
//   D1, D2, D5) later note_use() at each message other than SM7; refresh() at a 200 without
//   challenge; deregister()
// Whatever goes wrong: apply(id, the event); what it does stands in sa/lifecycle.h. Time-outs come
// by themselves and are told to the SetObserver.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/result.h"
#include "base/secret.h"
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "sa/backend.h"
#include "sa/hash_index.h"
#include "sa/impu_index.h"
#include "sa/label_rest.h"
#include "sa/lifecycle.h"
#include "sa/pool.h"
#include "sa/port_allocator.h"
#include "sa/sa_set.h"
#include "sa/spi_allocator.h"

namespace gmgate::sa {

struct Timers {
    Duration reg_await_auth = std::chrono::seconds(240);   // B2: life of registration SAs
    Duration drain = 64 * std::chrono::milliseconds(500);  // D2: 64·T1
    Duration lifetime_grace = std::chrono::seconds(30);    // B5: on top of the granted expiry
    Duration near_end =
        std::chrono::seconds(10);  // D2: an old set this close to its end is not sent on
    Duration spi_quarantine = std::chrono::seconds(60);  // A4
    // How long a freed label (N1) rests: at least 64·T1, for what is still on its way to it.
    Duration label_quarantine = std::chrono::seconds(60);
};

struct Limits {
    std::size_t max_sets = 0;               // 0: what the backend can hold
    std::size_t max_registration_sets = 0;  // not yet established ones (S3); 0: half of max_sets
    std::size_t max_impus_per_user = 64;
    std::size_t max_text_octets = 8192;  // all texts of one user together
};

struct DatabaseConfig {
    Timers timers;
    Limits limits;
    PortConfig ports;
    // SPI slots used: [first, first + count). count 0: all from `first` up to 2·backend.capacity().
    // Shards of one backend take disjoint ranges.
    std::uint32_t first_spi_slot = 0;
    std::uint32_t spi_slots = 0;
};

// Told on the control thread, in the middle of the change: may call the database, also about other
// sets.
class SetObserver {
  public:
    virtual ~SetObserver() = default;
    virtual void on_set_state(const SaSet& set, State from) { (void)set, (void)from; }
    // The set is no longer found, its keys are wiped, its SAs gone or about to go in this round.
    // `reason`: the event that did it. The user may go with its last set, right after this call.
    virtual void on_set_removed(const SaSet& set, const User& user, Event reason) {
        (void)set, (void)user, (void)reason;
    }
    // Integrity failures, first authentic packet (traces, the CLI).
    virtual void on_backend_event(const SaSet& set, const BackendEvent& event) {
        (void)set, (void)event;
    }
};

// What a replica needs to hear (DESIGN: state can leave the process). Sets that are merely reserved
// are not told.
enum class ChangeKind : std::uint8_t { set_changed, set_removed, user_changed, user_removed };
struct Change {
    std::uint64_t version = 0;  // counts up by one with each change
    ChangeKind kind{};
    SetId set = 0;
    UserId user = 0;
};
class ChangeListener {
  public:
    virtual ~ChangeListener() = default;
    // During the call find() and find_user() give what changed; removed ones are already gone.
    virtual void on_change(const Change& change) = 0;
};

// SM5: what is known of the new set.
struct ReserveRequest {
    std::string_view impi;
    IpAddress ue;    // exact source of SM1 (A3)
    IpAddress ours;  // where SM1 was sent to
    Spi spi_uc = 0;
    Spi spi_us = 0;
    Port port_uc = 0;
    Port port_us = 0;
    Suite suite;
    // Behind a NAT (N1): the UE's own address; `ue` is then the NAT's, or the label of sm1_set.
    // With NatLabels::drawn port_uc and port_us in the set's numbers are drawn at random; with
    // NatLabels::own the set's `ue` is this one, and they rest when a set is gone that was
    // established; drawn ones always do.
    std::optional<IpAddress> nat_inner{};
    const AkaKey* ck = nullptr;  // borrowed
    const AkaKey* ik = nullptr;
    SetId sm1_set = 0;  // the established or draining set SM1 came on; 0: in clear
    std::uint64_t tag = 0;
};

// SM10–SM12: what the 200 said.
struct EstablishRequest {
    Duration granted{};  // the expiry the S-CSCF granted
    std::span<const std::string_view>
        impus;  // at least one, default first; compared octet by octet: give them normalised
    std::string_view service_route;
    std::string_view p_associated_uri;
    std::string_view contact;
};

struct SetFilter {
    std::optional<std::string> impi{};
    std::optional<std::string> impu{};
    std::optional<IpAddress> ue{};
    std::optional<Spi> spi{};  // any of the four
    std::optional<State> state{};
};

struct PageResult {
    std::uint32_t next = 0;  // hand it in as the next cursor
    bool done = false;       // nothing after it
    std::size_t visited = 0;
};

struct RestoreReport {
    std::size_t users = 0;
    std::size_t sets = 0;
    std::size_t expired = 0;  // their time was over
    // The packet layer or an allocator would not take them, or they are behind a NAT (N1).
    std::size_t refused = 0;
};

using SecretBytes = std::vector<std::uint8_t, SecretAllocator<std::uint8_t>>;

// Any thread may read.
struct DatabaseStats {
    std::array<metrics::Gauge, state_count> sets;  // by State
    metrics::Gauge users;
    std::array<metrics::Counter, event_count> removed;  // by reason
    metrics::Counter reserved;
    metrics::Counter established;
    metrics::Counter reserve_refused;
    metrics::Counter install_failed;
    metrics::Counter illegal_events;
};

class SaDatabase {
  public:
    // Refuses an impossible configuration: bad ports (A5), limits beyond the backend, slots beyond
    // SpiLayout. Everything passed by reference outlives the database.
    [[nodiscard]] static Result<std::unique_ptr<SaDatabase>> create(DatabaseConfig config,
                                                                    Backend& backend,
                                                                    TimerWheel& timers,
                                                                    Random& random);
    // Removes all sets from the backend (as Event::shutdown), without telling observers.
    ~SaDatabase();
    SaDatabase(const SaDatabase&) = delete;
    SaDatabase& operator=(const SaDatabase&) = delete;

    void add_observer(SetObserver& observer);
    void add_listener(ChangeListener& listener);

    // --- the procedure
    // -------------------------------------------------------------------------------------------
    // Are these numbers of a UE possible, and is (ue, port_uc) free (A4, A5, B6)? To be asked at
    // SM1, before anything is forwarded. invalid: SPI below 256, both SPIs equal, forbidden port.
    // conflict: (ue, port_uc) is in the table; a set of an incomplete procedure of the same IMPI
    // does not count, because the challenge would replace it (B3). `nat_inner`: the UE's own
    // address behind a NAT; with NatLabels::drawn others behind it may use the same port then, the
    // user itself may not. With NatLabels::own another's port_us is a conflict, too: anybody may
    // name any address.
    [[nodiscard]] Result<void> check_ue(std::string_view impi, const IpAddress& ue, Spi spi_uc,
                                        Spi spi_us, Port port_uc, Port port_us,
                                        const std::optional<IpAddress>& nat_inner = {}) const;
    // Removes registration SAs left of an earlier procedure of this IMPI (B3), then takes SPIs and
    // ports. The numbers are in find(id)->numbers. Errors as check_ue, and exhausted: a limit, no
    // SPI, no port; not_found: sm1_set is none of the user's.
    [[nodiscard]] Result<SetId> reserve(const ReserveRequest& request);
    // All four SAs live, or the set is gone (C12) and the backend's error returned.
    [[nodiscard]] Result<void> install(SetId id);
    // not_found: no such set; conflict: illegal in its state (counted).
    Result<void> apply(SetId id, Event event);
    // The authentication succeeded (B5). Lifetime: later of the latest old lifetime and granted +
    // grace. Stores the texts; removes the other sets of the user: all (D1), all but the one SM1
    // came on (D2), all at other addresses (D5).
    [[nodiscard]] Result<void> establish(SetId id, const EstablishRequest& request);
    // 200 without a challenge on this set (D3): the lifetime grows to granted + grace, never
    // shrinks. `request` as in establish.
    [[nodiscard]] Result<void> refresh(SetId id, const EstablishRequest& request);
    // A message other than SM7 came on the set (D2): the user's older sets drain. O(1) and nothing
    // the second time.
    void note_use(SetId id);
    // All IMPUs of the user are gone (D4). let_last_message_out: the sets drain (Timers::drain) so
    // that the 200 or NOTIFY and its retransmissions still leave; otherwise they go now.
    Result<void> deregister(UserId user, bool let_last_message_out);
    // Every set of the user goes now, for the given reason (operator_removed, …).
    void remove_user(UserId user, Event reason);
    void remove_all(Event reason);

    // --- lookup, all O(1)
    // ----------------------------------------------------------------------------------------
    // nullptr: none. Pointers are good until the next call that changes something.
    [[nodiscard]] const SaSet* find(SetId id) const;
    // Of an inbound packet: (UE address, UE port, our port); registration, established and draining
    // sets, and reserved ones.
    [[nodiscard]] const SaSet* find_by_tuple(const IpAddress& ue, Port ue_port,
                                             Port our_port) const;
    [[nodiscard]] const SaSet* find_by_spi(Spi ours) const;  // spi_pc or spi_ps
    [[nodiscard]] const User* find_user(UserId id) const;
    [[nodiscard]] const User* find_by_impi(std::string_view impi) const;
    // An IMPU may be shared by several users; nullptr: none registered it. With `visit`: all of
    // them.
    [[nodiscard]] const User* find_by_impu(std::string_view impu) const;
    void find_by_impu(std::string_view impu, const std::function<void(const User&)>& visit) const;
    // The set to send on to this user now (D2): the newest established one once it was used, before
    // that the old one SM1 came on unless that is close to its end; a draining one only if there is
    // nothing else. nullptr: none.
    [[nodiscard]] const SaSet* outbound(const User& user) const;
    // The set of an incomplete authentication; nullptr: none.
    [[nodiscard]] const SaSet* registration_set(const User& user) const;

    // --- for the operator
    // ----------------------------------------------------------------------------------------
    // Visits up to `limit` sets from `cursor` (0 at first); bounded work a call, whatever the
    // filter. Sets that come or go between two calls may be seen or not; no set that stays is
    // missed or seen twice. `visit` may change the database.
    PageResult page(std::uint32_t cursor, std::size_t limit, const SetFilter& filter,
                    const std::function<void(const SaSet&, const User&)>& visit) const;
    PageResult page_users(std::uint32_t cursor, std::size_t limit,
                          const std::function<void(const User&)>& visit) const;
    [[nodiscard]] const DatabaseStats& stats() const { return stats_; }
    // Gauges and counters under gmgate_sa_…; the database outlives the registry's use of them.
    void register_metrics(metrics::Registry& registry) const;
    [[nodiscard]] std::size_t set_count() const { return sets_.size(); }
    [[nodiscard]] std::size_t user_count() const { return users_.size(); }
    // Octets of the tables and pools; not the texts and keys of each user.
    [[nodiscard]] std::size_t table_octets() const;
    [[nodiscard]] const SpiAllocator& spis() const { return spis_; }
    // The packet layer takes UEs behind a NAT (N1).
    [[nodiscard]] bool supports_nat() const { return backend_.nat_labels() != NatLabels::none; }
    // Where the packets of a set behind a NAT come from now; port 0: not learnt yet, or no NAT.
    [[nodiscard]] Endpoint nat_endpoint(SetId id) const;
    [[nodiscard]] const PortAllocator& ports() const { return ports_; }
    [[nodiscard]] const DatabaseConfig& config() const { return config_; }
    [[nodiscard]] const Clock& clock() const { return timers_.clock(); }

    // --- the packet layer's events
    // ------------------------------------------------------------------------------- When
    // Backend::event_fd() is readable, or regularly.
    void poll_backend();

    // --- state leaves the process
    // --------------------------------------------------------------------------------
    [[nodiscard]] std::uint64_t version() const { return version_; }
    // Users and their live sets with keys and outbound sequence numbers, times as remainders.
    // Versioned format.
    [[nodiscard]] SecretBytes serialize() const;
    // Into an empty database: re-installs through the backend, ids and SPIs as they were.
    // `elapsed`: how long the snapshot lay. invalid: not a snapshot, damaged, or of an unknown
    // version; then nothing is restored. conflict: not empty.
    [[nodiscard]] Result<RestoreReport> restore(std::span<const std::uint8_t> snapshot,
                                                Duration elapsed);

  private:
    SaDatabase(DatabaseConfig config, Backend& backend, TimerWheel& timers, Random& random,
               PortAllocator ports);

    struct RestoredSet;
    struct RestoredUser;
    class Batch;

    [[nodiscard]] SaSet* live(SetId id) const;  // nullptr also for one that is just being removed
    [[nodiscard]] std::uint64_t tuple_hash(const IpAddress& ue, Port ue_port, Port our_port) const;
    [[nodiscard]] std::uint64_t client_hash(const IpAddress& ue, Port port_uc) const;
    [[nodiscard]] const SaSet* find_by_client(const IpAddress& ue, Port port_uc) const;
    [[nodiscard]] std::uint64_t hash_of_ue(const IpAddress& ue) const;
    [[nodiscard]] bool ports_in_use(std::string_view impi, const IpAddress& ue, Port port_uc,
                                    Port port_us, const std::optional<IpAddress>& nat_inner) const;
    // Of a user other than this one, and it does not give way.
    [[nodiscard]] bool server_port_in_use(std::string_view impi, const IpAddress& ue,
                                          Port port_us) const;
    // With NatLabels::own: `holder` has an address that its phone merely named, in clear, and was
    // never authenticated. It gives way to who comes from that very address, or has it by an
    // authenticated set.
    [[nodiscard]] bool gives_way(const SaSet& holder, std::string_view impi, bool behind_nat) const;
    // Was a label a while ago, of another user.
    [[nodiscard]] bool rests(const IpAddress& ue, Port port, std::string_view impi) {
        return labels_.holds(client_hash(ue, port), hash_(impi));
    }
    // Behind a NAT, with NatLabels::own: the label and where the phone is.
    [[nodiscard]] bool own_labels() const { return backend_.nat_labels() == NatLabels::own; }
    [[nodiscard]] Endpoint nat_outer(const ReserveRequest& request) const;
    void make_way(const ReserveRequest& request, bool behind_nat);
    // A port for the label of a set at `ue`, drawn at random: no other set's client port there, not
    // resting, not `other`, which is the label's other one. 0: none was found.
    [[nodiscard]] Port draw_label_port(const IpAddress& ue, Port other = 0);

    User* user_for(std::string_view impi);
    void drop_user_if_idle(UserId id);
    void index_impus(const User& user);
    void unindex_impus(const User& user);
    Result<void> store_texts(User& user, const EstablishRequest& request);
    void index_set(SaSet& set);
    void unindex_set(const SaSet& set);
    void set_lifetime(SaSet& set, Duration granted);

    // The set may be gone when these return.
    Result<void> apply_to(SaSet& set, Event event);
    Result<void> run_install(SaSet& set, Event on_success);
    void run_removal(SaSet& set, const Transition& t, Event reason);
    void apply_to_all(UserId user, Event event);
    static void on_timer(void* set);
    void on_timeout(SaSet& set);
    [[nodiscard]] const SaSet* newest(const User& user, State state) const;
    void on_flush_timer() { flush_removals(); }
    void queue_removal(SetId id);
    void flush_removals();
    void publish(ChangeKind kind, SetId set, UserId user);
    [[nodiscard]] std::size_t incomplete() const;
    [[nodiscard]] bool restore_user(const RestoredUser& from, UserId& id);
    [[nodiscard]] bool restore_set(RestoredSet& from, UserId user);

    DatabaseConfig config_;
    Backend& backend_;
    TimerWheel& timers_;
    Random& random_;
    SpiAllocator spis_;
    PortAllocator ports_;
    SeededHash hash_;
    LabelRest labels_;
    Pool<SaSet> sets_;
    Pool<User> users_;
    HashIndex by_tuple_;   // two entries a set
    HashIndex by_client_;  // (UE address, port_uc): B6
    HashIndex by_server_;  // (UE address, port_us): N1, with NatLabels::own only
    HashIndex by_impi_;
    ImpuIndex by_impu_;
    std::vector<std::uint32_t> by_slot_;  // SPI slot → position of the set plus one
    std::vector<SetId> removals_;
    Timer flush_timer_;
    unsigned batch_depth_ = 0;
    std::uint64_t version_ = 0;
    std::vector<SetObserver*> observers_;
    std::vector<ChangeListener*> listeners_;
    DatabaseStats stats_;
};

}  // namespace gmgate::sa
