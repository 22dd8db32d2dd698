#pragma once
// The P-CSCF: registrations from SM1 to SM12 (SPEC B–D), and the requests of registered users on
// their SAs (E2, E3).
//
// Built from plain values, an SA database, and two transport layers: Gm (the phones) and core (the
// home network). One thread: every call, every callback. Time comes from the timer wheel alone, so
// tests run in virtual time.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/metrics.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/registration/core_watch.h"
#include "control/registration/failures.h"
#include "control/registration/next_hops.h"
#include "control/registration/policy.h"
#include "control/registration/reasons.h"
#include "control/registration/trace.h"
#include "control/sip/transport.h"
#include "sa/backend.h"
#include "sa/types.h"

namespace gmgate::sa {
class SaDatabase;
}

namespace gmgate::dns {
class Resolver;
}

namespace gmgate::registration {

// One user for the operator's eyes: no key, no nonce, no flow token (S1).
struct RegistrationView {
    std::string impi;
    std::vector<std::string> impus;  // the first is the default one
    std::string state;  // "registered", "authenticating", "reauthenticating", "leaving"
    Endpoint ue;        // address and port_us; the source of SM1 while authenticating
    sip::Transport transport = sip::Transport::udp;
    std::string contact;
    std::vector<std::string> service_route;
    std::vector<sa::SetId> sets;  // newest last
    Duration age{};               // since the first 200, or since SM1
    std::optional<Duration> expires_in;
    // E5: "subscribed", "subscribing", "refused", "none"; empty: we do not subscribe.
    std::string reg_event;
};

// One session (INVITE dialog) of a user; a call between two users here is two. No body, no media.
struct SessionView {
    std::string impi;
    std::string peer;        // URI of the far end, as From or To had it
    std::uint64_t call = 0;  // as in TraceRecord
    bool early = false;      // not answered yet
    Duration idle{};         // since the latest request or answer in it
};

class Gateway {
  public:
    // References outlive the gateway. `policy` must be sane (addresses given, the next hops'
    // families among `core`): throws std::invalid_argument with one clear line otherwise (start-up
    // only).
    Gateway(Policy policy, sa::SaDatabase& sets, TimerWheel& timers, Random& random,
            metrics::Registry& registry);
    // Tells nobody; SA sets stay in the database.
    ~Gateway();
    Gateway(const Gateway&) = delete;
    Gateway& operator=(const Gateway&) = delete;

    // Where the two transport layers deliver: give these to their constructors, then the layers to
    // attach() before the first message.
    [[nodiscard]] sip::MessageSink& gm();
    [[nodiscard]] sip::MessageSink& core();
    void attach(sip::TransportLayer& gm, sip::TransportLayer& core);
    // Finds policy.domain, and the host names in routes of the core. Outlives the gateway; after
    // attach(). Without one, names are not resolved.
    void resolve_with(dns::Resolver& resolver);

    // The network, or the operator in its place, ends a registration: all identities of the IMPI
    // are deregistered at once, its SAs go after the drain time, so that what tells the phone still
    // leaves under them (D4). False: not registered.
    bool deregister(std::string_view impi);

    // The gateway stops: what is under way ends, and a REGISTER that waits for its answer gets 503.
    // Registrations and their SA sets stay. Once, as the last call but for the views.
    void shut_down();

    // May this address speak to us on the core's side (S2)? Asked again for every message; asked
    // first, a stranger's connection need not be taken.
    [[nodiscard]] bool trusts(const IpAddress& peer) const;
    // An emergency call in clear runs on this connection: it must not be closed for its silence.
    [[nodiscard]] bool carries_call(const sip::Flow& flow) const;

    // Read-only views for the operator's API. Looks at no more than `budget` users from `cursor` on
    // (0: begin) and visits each; returns where to go on, 0: the end.
    std::uint64_t scan(std::uint64_t cursor, std::size_t budget,
                       const std::function<void(const RegistrationView&)>& visit) const;
    [[nodiscard]] std::optional<RegistrationView> find(std::string_view impi) const;
    // The same of sessions.
    std::uint64_t scan_sessions(std::uint64_t cursor, std::size_t budget,
                                const std::function<void(const SessionView&)>& visit) const;
    [[nodiscard]] std::size_t registered() const;     // users with a live registration
    [[nodiscard]] std::size_t pending() const;        // registration procedures under way
    [[nodiscard]] std::size_t proxied() const;        // proxied requests under way
    [[nodiscard]] std::size_t dialogs() const;        // sessions, early ones too
    [[nodiscard]] std::size_t dialog_octets() const;  // that their table takes
    [[nodiscard]] std::size_t transactions() const;   // of both sides and both kinds
    // Entries of the tables that find or count these by user, source or INVITE: one a source that
    // somebody is registered at, and none beside with nothing pending and nothing proxied (S3).
    [[nodiscard]] std::size_t index_entries() const;
    [[nodiscard]] const TraceStore& trace() const;
    [[nodiscard]] const FailureLog& failures() const;
    [[nodiscard]] const CoreHealth& core_health() const;
    // Where requests to the core go, in order of preference.
    [[nodiscard]] std::vector<NextHopView> next_hops() const;
    // Discarded or refused messages since start, by reason; the same numbers as
    // gmgate_registration_drops_total.
    [[nodiscard]] std::uint64_t drops(Reason reason) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::registration
