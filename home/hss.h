#pragma once
// The HSS as the S-CSCF sees it: the Cx operations of TS 33.203 clause 6.1 and TS 23.228, with the
// Diameter commands of TS 29.228 that a Diameter HSS would map them to.
//
// Every operation answers once, from inside the call or later on the same thread. Views in the
// arguments are valid during the call only. The asker may be gone when a late answer comes: its
// callbacks hold ids, not pointers.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "home/aka.h"

namespace gmgate::home {

// Names of TS 29.229 clause 6.2, without their prefixes.
enum class CxResult : std::uint8_t {
    success,
    user_unknown,             // no such IMPI, or no such IMPU
    identities_dont_match,    // both exist, and the IMPU is not this IMPI's
    authorization_rejected,   // barred, or may not register
    identity_not_registered,  // the operation needs a registered IMPU
    synchronisation_failed,   // AUTS does not verify
    unable_to_comply,         // SQN used up, table full, internal error
    unreachable,              // no answer, or no connection
};
[[nodiscard]] std::string_view name(CxResult result);

// Cx-Put's reason: Server-Assignment-Type of TS 29.229 6.3.15.
enum class ServerAssignment : std::uint8_t {
    registration,
    re_registration,
    timeout_deregistration,
    user_deregistration,
    administrative_deregistration,
    authentication_failure,  // C9: clears the S-CSCF name, registration flag to unregistered
    authentication_timeout,  // C9
};
[[nodiscard]] std::string_view name(ServerAssignment assignment);

// What the UE sent back when it found SQN out of range.
struct Resynchronisation {
    Rand rand{};
    Auts auts{};
};

struct AvRequest {
    std::string_view impi;
    std::string_view impu;
    std::string_view server_name;  // becomes the S-CSCF of the user while authentication is pending
    unsigned count = 1;  // vectors wanted, 1…5; the HSS may give fewer, never none with `success`
    const Resynchronisation* resynchronisation = nullptr;
};

struct PutRequest {
    std::string_view impi;
    std::string_view impu;
    std::string_view server_name;
    ServerAssignment assignment = ServerAssignment::registration;
};

struct Profile {
    std::vector<std::string>
        implicit_set;  // the one the identity belongs to: canonical URIs, the default IMPU first
    std::vector<std::string> service_route;  // of this user; empty: the S-CSCF's own
};

struct UserStatus {
    std::string server_name;  // S-CSCF assigned; empty: none, the I-CSCF chooses
    bool registered = false;
};

// What the HSS tells the S-CSCF unasked. Views valid during the call. From the loop's thread, never
// from inside an operation.
class HssListener {
  public:
    virtual ~HssListener() = default;
    // RTR (TS 29.228 6.1.3): the subscription is withdrawn, the user may not be served any more.
    // `why`: one or a few words for people.
    virtual void terminate(std::string_view impi, std::string_view why) = 0;
    // PPR (TS 29.228 6.6.1): another profile for a user that may be registered.
    // One for each of its implicit registration sets.
    virtual void profile_changed(std::string_view impi, const std::vector<Profile>& profiles) = 0;
    // What the HSS authenticates the user with has changed: to be re-authenticated (F1).
    virtual void reauthenticate(std::string_view impi) = 0;
};

class Hss {
  public:
    template <class... Args>
    using Callback = std::move_only_function<void(Args...)>;
    using QueryAnswer = Callback<CxResult, const UserStatus&>;
    using AvAnswer = Callback<CxResult, std::vector<AuthVector>>;
    using PutAnswer = Callback<CxResult>;
    using PullAnswer = Callback<CxResult, const Profile&>;

    virtual ~Hss() = default;
    // Cx-Query (UAR/UAA): may this identity register, and where is it served?
    virtual void query(std::string_view impi, std::string_view impu, QueryAnswer answer) = 0;
    // Cx-AV-Req (MAR/MAA).
    virtual void av_request(const AvRequest& request, AvAnswer answer) = 0;
    // Cx-Put (SAR/SAA).
    virtual void put(const PutRequest& request, PutAnswer answer) = 0;
    // Cx-Pull (the profile part of SAA; LIR/LIA for a called user).
    virtual void pull(std::string_view impi, std::string_view impu, PullAnswer answer) = 0;
};

}  // namespace gmgate::home
