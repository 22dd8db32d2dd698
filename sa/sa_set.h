#pragma once
// One SA set and its user, as the database keeps them: small, because there are a hundred thousand.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/ip.h"
#include "base/secret.h"
#include "base/timer_wheel.h"
#include "sa/backend.h"
#include "sa/lifecycle.h"
#include "sa/packed_strings.h"
#include "sa/types.h"

namespace gmgate::sa {

class SaDatabase;

// Names one user (IMPI) while it has SAs; never used twice; 0: none. Fit for a flow token.
using UserId = std::uint64_t;

// Six SAs per direction for one IMPI (B6).
inline constexpr std::size_t max_sets_per_user = 3;

struct SetKeys {
    AkaKey ck;
    AkaKey ik;
};

// Owned by the database; everyone else sees it const, and must not keep the pointer across a call
// into the database.
struct SaSet {
    SetId id = 0;
    UserId user = 0;
    SetId sm1_set = 0;      // the old set SM1 came on; 0: SM1 came in clear (D1, D2, D6)
    std::uint64_t tag = 0;  // the procedure's own mark, given at reserve
    IpAddress ue;
    IpAddress ours;
    SaNumbers numbers;
    std::optional<NatTraversal> nat{};
    Suite suite;
    State state = State::reserved;
    bool used = false;  // a message other than SM7 came on it (D2)
    TimePoint created{};
    TimePoint established_at{};                // TimePoint{} before SM12
    TimePoint lifetime_end{TimePoint::max()};  // B5; max() before SM12
    SecretPtr<SetKeys> keys;                   // empty once wiped
    std::uint32_t out_sequence = 0;            // from a snapshot: where the packet layer goes on
    Timer timer;                               // reg-await-auth, lifetime or drain, by state
    SaDatabase* database = nullptr;

    // SM1 came on an old set (D2, D6).
    [[nodiscard]] bool sm1_protected() const { return sm1_set != 0; }
    [[nodiscard]] SetParams params() const;
};

// One IMPI that has at least one set. Owned by the database, same rules.
struct User {
    // Positions in `texts`.
    enum Text : std::uint8_t {
        text_impi,
        text_service_route,
        text_p_associated_uri,
        text_contact,
        text_first_impu
    };

    UserId id = 0;
    PackedStrings texts;
    TimePoint expires{};  // of the registration; TimePoint{}: not registered
    std::array<SetId, max_sets_per_user> sets{};  // 0: free place
    Port port_ps = 0;                             // stays until all IMPUs are deregistered (A5)
    Port last_port_pc = 0;   // of the last successful authentication; the next takes another (A5)
    bool announced = false;  // listeners were told of it

    [[nodiscard]] bool registered() const { return expires != TimePoint{}; }
    [[nodiscard]] std::string_view impi() const { return texts[text_impi]; }
    // As the S-CSCF sent it; header value(s), comma-separated.
    [[nodiscard]] std::string_view service_route() const { return texts[text_service_route]; }
    [[nodiscard]] std::string_view p_associated_uri() const { return texts[text_p_associated_uri]; }
    [[nodiscard]] std::string_view contact() const { return texts[text_contact]; }
    [[nodiscard]] std::size_t impu_count() const {
        return texts.size() > text_first_impu ? texts.size() - text_first_impu : 0;
    }
    // The first is the default public identity.
    [[nodiscard]] std::string_view impu(std::size_t i) const { return texts[text_first_impu + i]; }
    [[nodiscard]] bool has_impu(std::string_view impu) const;
    [[nodiscard]] std::size_t set_count() const;
};

}  // namespace gmgate::sa
