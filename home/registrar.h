#pragma once
// The S-CSCF's registrar with the I-CSCF's question before it: REGISTER of TS 33.203 clause 6.1 and
// TS 24.229 clause 5.4.1.
//
// No sockets, no transactions: whole REGISTERs in, whole responses out by callback. Retransmissions
// are the transaction layer's business (home/server.h); without one, give it each request once. One
// thread. Time comes from the TimerWheel.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/reginfo.h"
#include "home/hss.h"

namespace gmgate::home {

struct RegistrarConfig {
    std::string realm = "ims.mnc001.mcc001.3gppnetwork.org";  // Digest realm and home domain
    std::string server_name =
        "sip:scscf.ims.mnc001.mcc001.3gppnetwork.org";  // what the HSS stores as S-CSCF name
    std::vector<std::string> service_route;  // URIs, e.g. sip:orig@10.30.0.2:5060;lr; at least one
    std::string charging_function =
        {};                    // ccf of P-Charging-Function-Addresses; empty: header not sent
    std::string qop = "auth";  // offered in the 401; empty: none offered
    std::chrono::seconds default_expires{600'000};  // TS 24.229 5.4.1: the UE asked for nothing
    std::chrono::seconds max_expires{600'000};
    std::chrono::seconds min_expires{60};      // below: 423
    std::chrono::seconds reg_await_auth{240};  // C5, C9
    std::chrono::seconds hss_timeout{5};       // no Cx answer: 504
    // Share of protected re-REGISTERs without a response that are challenged; the others get 200 at
    // once (D3). 0…1.
    double rechallenge = 0;
    // Takes a Digest answer that comes without integrity-protected="yes" (labs without a P-CSCF).
    // Off: challenged anew, as TS 24.229 5.4.1.2.1 has it.
    bool allow_unprotected = false;
    std::size_t max_users = 2'000'000;    // IMPIs registered or being challenged
    std::size_t max_procedures = 20'000;  // REGISTERs waiting for the HSS, about 8 KB each
};

struct RegistrarCounters {
    std::uint64_t requests = 0;
    std::uint64_t challenges = 0;        // 401 sent
    std::uint64_t registrations = 0;     // 200 after a right response, not registered before
    std::uint64_t reregistrations = 0;   // 200, registered before, challenged
    std::uint64_t unchallenged = 0;      // 200 without a challenge (D3)
    std::uint64_t deregistrations = 0;   // by the user
    std::uint64_t expired = 0;           // by time
    std::uint64_t shortened = 0;         // to be re-authenticated (F1)
    std::uint64_t deactivated = 0;       // by the network
    std::uint64_t user_failures = 0;     // wrong response (C2)
    std::uint64_t network_failures = 0;  // empty response without auts (C3)
    std::uint64_t synchronisation_failures = 0;  // auts (C4)
    std::uint64_t resynchronisations = 0;        // of these, accepted
    std::uint64_t authentication_timeouts = 0;   // C5
    std::uint64_t challenges_voided = 0;         // C10
    std::uint64_t forbidden = 0;                 // 403 for an identity
    std::uint64_t interval_too_brief = 0;        // 423
    std::uint64_t malformed = 0;                 // 400, 420
    std::uint64_t overload = 0;                  // 503: a table is full
    std::uint64_t hss_failures = 0;              // 480, 504: HSS slow or unreachable (C11)
    std::uint64_t dropped = 0;                   // so broken that no answer is possible
};

// Where a registered user is, with one of its implicit sets. Views valid until the next call into
// the registrar.
struct Binding {
    std::string_view impi;
    std::string_view default_impu;
    std::string_view contact;  // the URI, without angle brackets
    std::string_view path;     // the Path header values as received, joined by ", "; may be empty
    const std::vector<std::string>* impus = nullptr;  // the implicit registration set
    std::uint16_t q = 1000;  // of the contact, in thousandths (RFC 3261 10.2.1.2)
    TimePoint expires;
    bool shortened = false;  // its re-authentication is awaited (F1)
    // ... and under way: a REGISTER that came since is with the HSS, or its challenge is out.
    bool registering = false;
};

// One change of a user's registration, as the registration event package tells it (RFC 3680). Views
// valid during the call.
struct RegistrationChange {
    std::string_view impi;
    sip::ContactEvent event = sip::ContactEvent::registered;
    const std::vector<std::string>& impus;  // the implicit registration set it is about
    std::string_view contact;
    std::uint32_t expires = 0;   // seconds left; 0 when it is over
    bool authenticated = false;  // by a right answer just now
    // Identities that left the set with this change (PPR); null: none.
    const std::vector<std::string>* removed = nullptr;
    // Over, and no other set of the user is registered.
    bool user_gone = false;
    // This set is not registered any more.
    [[nodiscard]] bool over() const { return ends(event); }
    [[nodiscard]] static bool ends(sip::ContactEvent event);
};
class RegistrationObserver {
  public:
    virtual ~RegistrationObserver() = default;
    // After the answer to the REGISTER that caused it, if one did. May not enter the registrar but
    // to look.
    virtual void on_registration(const RegistrationChange& change) = 0;
};

class Registrar {
  public:
    // Whole response; valid until the call ends or enters the registrar again (a 401 holds keys: it
    // is wiped). Called once per request, from inside receive() or later, and never if the request
    // was too broken to answer.
    using Answer = std::move_only_function<void(int status, std::string_view response)>;

    Registrar(RegistrarConfig config, Hss& hss, TimerWheel& timers, Random& random);
    ~Registrar();
    Registrar(const Registrar&) = delete;
    Registrar& operator=(const Registrar&) = delete;

    // One whole REGISTER as bytes. Anything else: false, no answer (counted as dropped). With
    // `source`, where it came from, the response's top Via gets received and rport (RFC
    // 3261 18.2.1, RFC 3581).
    bool receive(std::string_view request, Answer answer, std::optional<Endpoint> source = {});
    // The same, parsed already.
    void receive(const sip::Message& request, Answer answer, std::optional<Endpoint> source = {});

    // By any IMPU of an implicit registration set (any spelling of the URI). nullptr: not
    // registered. Valid until the next call into the registrar or the next tick of the timers.
    [[nodiscard]] const Binding* find(std::string_view impu);
    // By the private identity, as it was registered: the first of its sets.
    [[nodiscard]] const Binding* find_user(std::string_view impi);
    // Each registered set of a user. Views valid during the call.
    void find_sets(std::string_view impi, const std::function<void(const Binding&)>& each) const;
    // The default identity of each.
    [[nodiscard]] std::vector<std::string> default_identities(std::string_view impi) const;
    // All that are registered for an IMPU, where subscribers share it; the views of one are those
    // of find().
    void find_all(std::string_view impu, const std::function<void(const Binding&)>& each);
    // Whose request it is that asserts this IMPU: of those that share it the one that registered
    // `contact` (the URI; user, host and port count), else the one find() gives. nullopt: nobody is
    // registered for it.
    struct Sender {
        std::string impi;
        std::string default_impu;
    };
    [[nodiscard]] std::optional<Sender> find_sender(std::string_view impu,
                                                    std::string_view contact);
    // Does the HSS know this identity (LIR)? Answers once, from inside the call or later; a silent
    // HSS: never.
    void locate(std::string_view impu, std::move_only_function<void(CxResult)> answer);
    // PPR: the profile of a registered user is another one now, one of each of its sets. A
    // registered set whose default identity is in none of them ends; those whose default identities
    // are in one set now go on as one. False: not registered.
    bool update(std::string_view impi, const std::vector<Profile>& profiles);
    // Administrative deregistration of the set: the binding goes, Cx-Put tells the HSS. `event`:
    // what the subscribers hear: rejected (the phone is to stay away) or deactivated (it may
    // register anew). False: not registered.
    bool deregister(std::string_view impu, sip::ContactEvent event = sip::ContactEvent::rejected);
    // ... of all sets of the user.
    bool deregister_user(std::string_view impi,
                         sip::ContactEvent event = sip::ContactEvent::rejected);
    // RTR: the user may not be served any more. An authentication under way ends too.
    void withdraw(std::string_view impi);
    // Network-initiated re-authentication (F1) of the sets of these identities, of one user: each
    // ends after `left` unless the phone registers it before, and that REGISTER is challenged.
    // Never lengthens. The observer hears it once. False: none is registered.
    bool shorten(const std::vector<std::string>& impus, std::chrono::seconds left);
    // nullptr: nobody. The observer outlives the registrar, or is taken back.
    void observe(RegistrationObserver* observer);
    // From now on each protected re-REGISTER of this user is challenged, or none, whatever the
    // configured share; forgotten with the registration. False: not registered.
    bool rechallenge(std::string_view impu, bool always);

    [[nodiscard]] std::size_t registered() const;  // IMPIs with a binding
    [[nodiscard]] std::size_t challenges_outstanding() const;
    [[nodiscard]] std::size_t procedures() const;  // waiting for the HSS
    [[nodiscard]] const RegistrarCounters& counters() const;
    [[nodiscard]] const RegistrarConfig& config() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::home
