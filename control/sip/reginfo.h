#pragma once
// Documents of the registration event package: what a NOTIFY says of a user's registrations.
//
// Two forms of the same content (SPEC F2): reginfo of RFC 3680, and the tuples of the proposal for
// network-initiated re-authentication that TS 24.229 grew out of. Plain values; nothing of the XML
// library outlives a call. Any thread.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gmgate::sip {

enum class RegProfile : std::uint8_t {
    rfc3680,  // Event: reg, application/reginfo+xml
    seed,     // Event: registration-state, <tuple name><status><value>, <detail>
};
[[nodiscard]] std::string_view name(RegProfile profile);           // "rfc3680", "seed"
[[nodiscard]] std::string_view event_package(RegProfile profile);  // value of Event
[[nodiscard]] std::string_view content_type(RegProfile profile);
// Of an Event header's value (its parameters are not looked at); nullopt: another package.
[[nodiscard]] std::optional<RegProfile> reg_profile(std::string_view event);

enum class RegState : std::uint8_t { init, active, terminated };
// Why a contact is as it is (RFC 3680 3.6, 4.7).
enum class ContactEvent : std::uint8_t {
    registered,
    created,
    refreshed,
    shortened,  // the network wants a re-registration before this time is over
    expired,
    deactivated,   // by the network: the UE is to register anew
    probation,     // likewise, after retry-after
    unregistered,  // by the UE
    rejected,      // by the network: the UE is not to register
};
[[nodiscard]] std::string_view name(RegState state);
[[nodiscard]] std::string_view name(ContactEvent event);

struct RegContact {
    std::string id;
    std::string uri;
    bool active = true;
    ContactEvent event = ContactEvent::registered;
    std::optional<std::uint32_t> expires;  // seconds left
};

// One public identity.
struct RegEntry {
    std::string aor;
    std::string id;
    RegState state = RegState::active;
    std::vector<RegContact> contacts;  // profile seed has none
    bool reauthenticate = false;       // rfc3680: one of its contacts is shortened
    // The identity whose re-authentication covers this one ("automatically by"); empty: none.
    std::string covered_by;
};

struct RegInfo {
    std::optional<std::uint32_t> version;  // profile seed has none
    bool full = true;                      // every identity stands here; false: what changed
    std::vector<RegEntry> entries;
};

// Limits of what is read (S2); a longer document is refused, never cut.
inline constexpr std::size_t max_reginfo = 49'152;   // octets
inline constexpr std::size_t max_reg_entries = 256;  // identities in a document
inline constexpr std::size_t max_reg_contacts = 64;  // contacts of one identity
inline constexpr std::size_t max_reg_text = 1024;    // octets of one identity or URI

// invalid: not XML, a document type declaration, another root or namespace, an attribute that must
// be there is not, an unknown state. exhausted: a limit. Elements and attributes that are not
// known are passed over, as RFC 3680 wants. The error never repeats what stood there.
[[nodiscard]] Result<RegInfo> parse_reginfo(RegProfile profile, std::string_view body);

// The document; characters XML cannot carry are left out.
[[nodiscard]] std::string write_reginfo(RegProfile profile, const RegInfo& info);

}  // namespace gmgate::sip
