#pragma once
// What the operator's API reads of the gateway: rows as plain values, through abstract read-only
// views; and the one thing it can have done. The server asks for a bounded number of rows at a
// time, so a list of a hundred thousand SAs never holds up a phone. No row has room for a key (S1).
//
// All calls on the control thread.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "sa/backend.h"
#include "sa/types.h"

namespace gmgate::ops {

// What a list is narrowed to; an empty member does not filter.
struct Query {
    std::optional<std::string> impi;  // exact
    std::optional<IpAddress> ip;      // the phone's
    std::optional<sa::Spi> spi;       // any of the four; for registrations: of any of its sets
    std::optional<std::string> state;
    std::optional<std::string> reason;  // failures
    std::vector<std::string> impis;     // a trace of several phones
};

// One SA set.
struct SaRow {
    sa::SetId id = 0;
    std::string state;  // as sa/ names it: "registration", "established", …
    std::string impi;
    std::vector<std::string> impus;
    IpAddress ue;
    IpAddress ours;
    sa::SaNumbers numbers;
    std::optional<sa::NatTraversal> nat;
    sa::Suite suite;
    Duration age{};                      // since it was installed
    std::optional<Duration> expires_in;  // nullopt: no life time is running
    sa::SetStats stats;                  // filled only when asked for (`detail`)
};

// One registration of a phone.
struct RegistrationRow {
    std::string impi;
    std::vector<std::string> impus;
    std::string state;  // "registered", "authenticating", …
    IpAddress ue;
    std::string transport;  // "udp", "tcp"
    std::string contact;
    std::vector<std::string> service_route;
    std::vector<sa::SetId> sets;
    Duration age{};
    std::optional<Duration> expires_in;
    std::string reg_event;  // "subscribed", …; empty: not asked for
};

// One session of a phone; a call between two phones here is two of them.
struct CallRow {
    std::string impi;
    std::string peer;   // URI of the far end
    std::string call;   // as in TraceStep
    std::string state;  // "early": not answered yet; "confirmed"
    Duration idle{};    // since the latest request or answer in it
};

// Continues a scan; 0: begin. Opaque; a row that comes or goes meanwhile may be missed, none is
// shown twice.
using Cursor = std::uint64_t;

class SaView {
  public:
    virtual ~SaView() = default;
    // Visits no more than `budget` sets from `cursor` on; what does not match may be left out.
    // Returns where to go on; 0: the end.
    virtual Cursor scan(const Query& query, Cursor cursor, std::size_t budget, bool detail,
                        const std::function<void(const SaRow&)>& visit) const = 0;
    // How many sets are in each state, all states in the order of the life cycle.
    [[nodiscard]] virtual std::vector<std::pair<std::string, std::size_t>> count() const = 0;
};

class RegistrationView {
  public:
    virtual ~RegistrationView() = default;
    virtual Cursor scan(const Query& query, Cursor cursor, std::size_t budget,
                        const std::function<void(const RegistrationRow&)>& visit) const = 0;
    // Every word RegistrationRow::state can be.
    [[nodiscard]] virtual std::vector<std::string> states() const = 0;
    // Users with a live registration, and procedures under way; a user who re-authenticates counts
    // in both.
    [[nodiscard]] virtual std::size_t registered() const = 0;
    [[nodiscard]] virtual std::size_t pending() const = 0;
};

class CallView {
  public:
    virtual ~CallView() = default;
    virtual Cursor scan(Cursor cursor, std::size_t budget,
                        const std::function<void(const CallRow&)>& visit) const = 0;
};

enum class Party : unsigned char { ue, gateway, core };

// One step in the life of a registration, as `gmctl trace` draws it. from == to: something that
// happened inside (SAs installed, a check that failed).
struct TraceStep {
    std::chrono::system_clock::time_point time{};
    Party from = Party::gateway;
    Party to = Party::gateway;
    std::string name;            // "SM1"; empty: not one of the standard's messages
    std::string text;            // "REGISTER", "401 Unauthorized", "SAs installed"
    std::optional<sa::Spi> spi;  // the SA that carried it; nullopt: in clear
    bool failed = false;         // the procedure broke here; `reason` says why
    std::string reason;          // word, meaning, what to do
    std::string word = {};       // the word alone
    std::string set = {};        // whose SA: "new" of this registration, "old"; "": not known
    std::string transport = {};  // "udp", "tcp" between UE and gateway; "": not known
    // The same for all messages of one Call-ID, which it does not give away; "": not known.
    std::string call = {};
    std::optional<std::size_t> phone = {};  // in a trace of several: which of them
};

class TraceView {
  public:
    virtual ~TraceView() = default;
    // One registration after the other, the oldest first, each in the order of time; empty: nothing
    // is remembered about this IMPI.
    [[nodiscard]] virtual std::vector<TraceStep> steps(std::string_view impi) const = 0;
    // Several phones together, everything in the order in which it happened.
    [[nodiscard]] virtual std::vector<TraceStep> steps(
        const std::vector<std::string>& impis) const = 0;
};

// One registration that failed.
struct FailureRow {
    std::chrono::system_clock::time_point time{};
    Duration age{};
    std::string reason;   // the catalogue's word
    std::string rule;     // "C8"
    std::string meaning;  // one sentence
    std::string remedy;   // what to do
    unsigned status = 0;  // what the phone was told; 0: nothing
    std::string source;   // address, with the port if it is known
    std::string impi;     // the first 80 octets; empty: not known
};
struct FailureTotal {
    std::uint64_t count = 0;  // since the start
    FailureRow last;
};

class FailureView {
  public:
    virtual ~FailureView() = default;
    // One entry for each reason that has occurred, the latest first.
    [[nodiscard]] virtual std::vector<FailureTotal> failure_totals() const = 0;
    // Newest first, at most `limit`; a bounded number is remembered of each reason.
    [[nodiscard]] virtual std::vector<FailureRow> latest_failures(
        std::size_t limit, const std::optional<std::string>& reason,
        const std::optional<std::string>& impi) const = 0;
    // Is there such a word?
    [[nodiscard]] virtual bool is_reason(std::string_view word) const = 0;
};

// One reason for which packets or messages are dropped. `layer`: "dataplane", "sip", …
struct DropCount {
    std::string layer;
    std::string reason;
    std::string help;
    std::uint64_t count = 0;
};

// One component's health; `text` says what is wrong and what to do, or how well it is.
struct HealthItem {
    std::string component;
    bool ok = true;
    std::string text;
};

// Everything the server reads, and what it may do. Absent members answer "not available here". The
// pointed-to objects outlive the server.
struct Views {
    const SaView* sas = nullptr;
    const RegistrationView* registrations = nullptr;
    const CallView* calls = nullptr;
    const TraceView* trace = nullptr;
    const FailureView* failures = nullptr;
    std::function<std::vector<DropCount>()> drops;
    std::function<std::vector<HealthItem>()> health;
    // Ends the registration of an IMPI in the network's place (D4). False: it is not registered.
    std::function<bool(std::string_view impi)> deregister;
    std::string version;
    std::string backend;  // "dpdk"
};

}  // namespace gmgate::ops
