#pragma once
// What an operator decides about registrations and proxied requests, as plain values (control/app
// fills it).

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "control/sip/reginfo.h"
#include "control/sip/transport.h"
#include "sa/algorithms/suite.h"

namespace gmgate::registration {

enum class MissingEalg : std::uint8_t { null, refuse };           // A8: the UE names no encryption
enum class ConsistencyFailure : std::uint8_t { reject, silent };  // C8
enum class UnprotectedOther : std::uint8_t { reject, drop };      // A6: 403, or nothing
enum class ServiceRouteMismatch : std::uint8_t { replace, reject };  // E2
// What the core takes as the flow to a phone: our Path alone (RFC 3327), or also the bottom Via,
// which is then ours (docs/operating/interconnection.md).
enum class Interconnect : std::uint8_t { path, via };

// An emergency call of a registered phone: 403; 380, the phone makes it another way; or to the
// E-CSCF.
enum class Emergency : std::uint8_t { refuse, alternative, forward };
// One in clear, of a phone that is not registered (A6).
enum class EmergencyUnregistered : std::uint8_t { refuse, forward };

// An element of the core that requests are sent to.
struct NextHop {
    sip::Transport transport = sip::Transport::udp;
    Endpoint at;
    bool operator==(const NextHop&) const = default;
    [[nodiscard]] std::string to_string() const {
        return at.to_string() + "/" + std::string(sip::name(transport));
    }
};

// A name to find such elements by.
struct Domain {
    std::string name;
    std::uint16_t port = 0;  // not 0: its addresses are asked for and nothing else
    sip::Transport transport = sip::Transport::udp;  // where the DNS says nothing about it
    bool operator==(const Domain&) const = default;
};

// S3: nothing a stranger does grows memory past these.
struct Limits {
    std::size_t registrations = 100'000;  // registered users
    std::size_t pending = 20'000;         // procedures not yet authenticated, all sources
    std::size_t pending_per_source = 8;   // of one source
    std::size_t pending_per_user = 4;     // begun on the SAs of one user
    // When `pending` are under way, or `pending_per_source` of one source, one of these begun in
    // clear that has waited longer than this for the phone's answer gives way to a new one.
    Duration pending_grace = std::chrono::seconds(4);
    // One source is an IPv4 address, or an IPv6 network of this length: a subscriber owns a /64.
    unsigned ipv6_source_prefix = 64;
    // An address where a phone behind a NAT is registered is no source: one with a port is, and all
    // of them together may do what so many sources may.
    std::size_t sources_per_nat = 16;
    double register_rate_per_source = 5;  // unprotected messages a second of one source, sustained
    double register_burst_per_source = 20;  // and at once
    double register_rate_total = 5000;      // unprotected messages a second, all sources
    double register_burst_total = 10'000;   // and at once
    // Unprotected REGISTERs a second that name one private identity, whoever sends them: each may
    // cost the home network an authentication vector.
    double register_rate_per_user = 0.5;
    double register_burst_per_user = 10;
    double message_rate_per_user = 50;    // SIP messages a second on the SAs of one user
    double message_burst_per_user = 200;  // and at once
    std::size_t sources = 65'536;  // sources, names and users whose rates are remembered, of each
    // Of each kind on each side; strangers get half of them. transactions_for() has what the rates
    // need.
    std::size_t transactions = 200'000;
    std::size_t proxied = 100'000;       // proxied requests under way
    std::size_t proxied_per_user = 128;  // of those, from one user
    // Sessions (INVITE dialogs, early ones too, and INVITEs that may make one), and of one user.
    std::size_t dialogs = 200'000;
    std::size_t dialogs_per_user = 32;
    // Emergency calls of phones that are not registered, and of one source; beside all others.
    std::size_t emergency_calls = 100;
    std::size_t emergency_calls_per_source = 2;
    std::size_t trace_records = 65'536;
    std::size_t failure_records = 128;  // of each reason
};

// Transactions enough for every unprotected message the rates let in (each is remembered for 64·T1
// after its answer) twice, as strangers get half; 200,000 to 4,000,000.
[[nodiscard]] std::size_t transactions_for(const Limits& limits, Duration t1);

struct Policy {
    // E1, E2: the host of our URI in Path and Record-Route; a DNS name or an address. Empty: our
    // core address itself.
    std::string name;
    std::string visited_network;  // P-Visited-Network-ID; empty: `name`

    // Our addresses on Gm with the one unprotected port; at most one per family.
    std::vector<IpAddress> gm_addresses;
    std::uint16_t gm_port = 5060;
    // Our endpoints on the core side, at most one per family, and where requests go.
    std::vector<Endpoint> core;
    // In order of preference; or a domain, found by DNS (RFC 3263): exactly one of the two.
    std::vector<NextHop> next_hops;
    std::optional<Domain> domain;
    Interconnect interconnect = Interconnect::path;
    // Who beside the next hops may speak to us there (S2): hosts that the core's Service-Routes
    // name, and networks.
    bool trust_service_routes = true;
    std::vector<Network> trusted;

    // Our list, most preferred first (A8); valid suites, not empty, no pair twice.
    std::vector<sa::Suite> suites{{sa::Integrity::null, sa::Encryption::aes_gcm},
                                  {sa::Integrity::aes_gmac, sa::Encryption::null},
                                  {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc},
                                  {sa::Integrity::hmac_sha_1_96, sa::Encryption::null},
                                  {sa::Integrity::hmac_md5_96, sa::Encryption::aes_cbc},
                                  {sa::Integrity::hmac_md5_96, sa::Encryption::null}};
    MissingEalg missing_ealg = MissingEalg::null;
    ConsistencyFailure consistency_failure = ConsistencyFailure::reject;
    UnprotectedOther unprotected_other = UnprotectedOther::reject;
    ServiceRouteMismatch service_route_mismatch = ServiceRouteMismatch::replace;
    // N1: phones behind a NAT may register with UDP encapsulation, if the packet layer can do it.
    bool nat = true;

    Emergency emergency = Emergency::alternative;
    EmergencyUnregistered emergency_unregistered = EmergencyUnregistered::refuse;
    std::vector<std::string> emergency_numbers{"112", "911"};  // dialled so: digits, *, #
    // There if one of the two is forward; its family one of `core`.
    std::optional<Endpoint> e_cscf;

    // E5: the form in which we subscribe to the registration state of each registered user;
    // nullopt: we do not.
    std::optional<sip::RegProfile> reg_event;

    // RFC 3261 T1. The times of SA sets (reg-await-auth, margin, drain) stand in
    // sa::DatabaseConfig.
    Duration t1 = std::chrono::milliseconds(500);
    // RFC 3261 timer C: an INVITE that rings so long without a word is cancelled. More than three
    // minutes.
    Duration timer_c = std::chrono::seconds(185);
    // A session in which nothing was said for so long is forgotten.
    Duration dialog_idle = std::chrono::hours(12);
    // The same of an emergency call in clear.
    Duration emergency_idle = std::chrono::hours(4);
    // Keys the flow tokens in Path (E1): give a kept one to restore registrations after a restart;
    // none: drawn at start.
    std::optional<std::array<std::uint64_t, 4>> flow_token_key;

    Limits limits;
};

}  // namespace gmgate::registration
