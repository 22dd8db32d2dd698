#pragma once
// The configuration of gmgated as plain values, and the loader that fills it from YAML.
//
// Only control/app includes this header; it hands each part the plain values that part asks for.
// The annotated example, config/gmgated.yaml, documents every key with unit, range and default; a
// test keeps the two equal.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/log.h"
#include "base/result.h"
#include "sa/algorithms/suite.h"

namespace gmgate::config {

// Inclusive on both ends; first <= last.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    [[nodiscard]] bool contains(std::uint16_t port) const { return port >= first && port <= last; }
    [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(last) - first + 1U; }
    bool operator==(const PortRange&) const = default;
};

// An address of ours and the length of its network: 10.20.255.1/16.
struct Prefix {
    IpAddress address;
    unsigned length = 0;  // 0–32 or 0–128
    bool operator==(const Prefix&) const = default;
    [[nodiscard]] std::string to_string() const;
};

// A network behind a router on Gm: "10.20.0.0/16 via 10.21.0.2".
struct Route {
    Prefix to;
    IpAddress via;
    bool operator==(const Route&) const = default;
    [[nodiscard]] std::string to_string() const;
};

// Who we are in SIP.
struct Gateway {
    std::string name;  // host of Path and Record-Route (E1, E2): a DNS name or an address
    std::string visited_network;  // P-Visited-Network-ID (E1); default: `name`
};

// The side of the phones.
struct Gm {
    std::string interface;  // the NIC the fast path takes over
    std::string tap =
        "gm0";  // our interface in the host stack, made by the fast path; at most 15 octets
    std::vector<Prefix>
        addresses;  // set on `tap`; at least one, at most one per family; phones register to them
    std::vector<Route>
        routes;  // set on `tap` too: where the phones are, if not on its own networks
    std::uint16_t unprotected_port = 5060;
    PortRange port_ps{6100, 6103};  // A5: never 5060/5061; the three do not overlap
    PortRange port_pc{6200, 6231};
    std::uint16_t mtu = 1500;  // of the wire, octets, 1280–9000
};

enum class Transport : unsigned char { udp, tcp };
enum class Interconnect : unsigned char { path, via };       // E1
enum class RegEvent : unsigned char { off, rfc3680, seed };  // E5, F2

// The side of the home network.
struct Core {
    std::vector<Endpoint> listen;  // ours; at least one; at most one per address family
    // I-CSCFs or S-CSCFs, most preferred first; their families are of `listen`. Or a domain.
    std::vector<Endpoint> next_hops;
    std::string domain;                 // found by DNS (RFC 3263); empty: next_hops
    std::uint16_t domain_port = 0;      // 0: the DNS tells
    std::vector<Endpoint> dns_servers;  // empty: the system's
    Transport transport = Transport::udp;
    Interconnect interconnect = Interconnect::path;  // what the core takes as the way to a phone
    // Who beside the next hops may speak to us there (S2): hosts that Service-Routes name, and
    // networks.
    bool trust_service_routes = true;
    std::vector<Prefix> trusted;
    std::optional<Endpoint> e_cscf;  // where emergency calls go; its family is one of `listen`
    RegEvent reg_event = RegEvent::rfc3680;  // the form subscribed to (F2); off: no subscription
};

enum class Backend : unsigned char { dpdk, kernel, screen };
enum class Idle : unsigned char { adaptive, poll };
enum class Crypto : unsigned char { automatic, ipsec_mb, openssl };

struct Dpdk {
    unsigned workers = 1;        // fast-path threads, 1–15
    unsigned memory_mb = 512;    // what DPDK may take, MiB, 64–1048576
    bool hugepages = false;      // false: ordinary memory
    Idle idle = Idle::adaptive;  // adaptive: sleeps when nothing comes
    Crypto crypto = Crypto::automatic;
    std::uint32_t max_sets = 131072;    // SA sets the tables can hold, 16–2097152
    std::uint32_t replay_window = 128;  // packets, multiple of 64, 64–1024 (A1)
    std::string device;  // DPDK device in place of af_packet on gm.interface; empty: af_packet
};

enum class Offload : unsigned char { none, crypto, packet };

// backend: kernel, and what stands behind the screen.
struct Kernel {
    std::uint32_t reqid = 18253;        // what our states and policies are known by, 1–4294967295
    std::uint32_t mark = 0;             // set on packets that passed one of our SAs; 0: none
    std::uint32_t max_sets = 131072;    // SA sets, 16–2097152
    std::uint32_t replay_window = 128;  // packets, multiple of 32, 64–4096 (A1)
    Offload offload = Offload::none;
    std::string device;            // the NIC that does it; empty: gm.interface
    bool offload_fallback = true;  // the NIC refuses: go on without; false: do not start
};

enum class MissingEalg : unsigned char { null, refuse };              // A8
enum class ConsistencyFailure : unsigned char { reject, silent };     // C8
enum class UnprotectedOther : unsigned char { reject, drop };         // A6
enum class ServiceRouteMismatch : unsigned char { replace, reject };  // E2

enum class Emergency : unsigned char { refuse, alternative, forward };
enum class EmergencyUnregistered : unsigned char { refuse, forward };  // A6
// N1: may phones behind a NAT come with ESP in UDP? automatic: where the backend can.
enum class Nat : unsigned char { automatic, on, off };

struct Security {
    // Our list, most preferred first (A8); not empty, no pair twice. Default: all of A9 but 3DES.
    std::vector<sa::Suite> suites{
        {sa::Integrity::null, sa::Encryption::aes_gcm},
        {sa::Integrity::aes_gmac, sa::Encryption::null},
        {sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc},
        {sa::Integrity::hmac_sha_1_96, sa::Encryption::null},
        {sa::Integrity::hmac_md5_96, sa::Encryption::aes_cbc},
        {sa::Integrity::hmac_md5_96, sa::Encryption::null},
    };
    MissingEalg missing_ealg = MissingEalg::null;
    ConsistencyFailure consistency_failure = ConsistencyFailure::reject;
    UnprotectedOther unprotected_other = UnprotectedOther::reject;
    Emergency emergency = Emergency::alternative;              // calls of registered phones
    std::vector<std::string> emergency_numbers{"112", "911"};  // digits, * and #
    // Calls in clear of phones that are not registered.
    EmergencyUnregistered emergency_unregistered = EmergencyUnregistered::refuse;
    ServiceRouteMismatch service_route_mismatch = ServiceRouteMismatch::replace;
    Nat nat = Nat::automatic;
};

struct Timers {
    Duration reg_await_auth = std::chrono::seconds(240);  // life of registration SAs (B2, C5)
    Duration t1 = std::chrono::milliseconds(500);         // RFC 3261 T1
    // RFC 3261 timer C: how long an INVITE may ring without a word.
    Duration timer_c = std::chrono::seconds(185);
    Duration dialog_idle = std::chrono::hours(12);  // a session unused for so long is forgotten
    Duration lifetime_margin = std::chrono::seconds(30);  // added to the granted expiry (B5)
    Duration drain =
        std::chrono::seconds(32);  // an old set's longest life after the switch, 64*T1 (D2)
    Duration near_end =
        std::chrono::seconds(10);  // an old set this close to its end is not sent on any more (D2)
    Duration spi_quarantine = std::chrono::seconds(60);  // a released SPI rests this long (A4)
};

// S3: nothing a stranger can do grows memory past these.
struct Limits {
    std::size_t registrations = 100000;  // registered phones
    std::size_t pending = 20000;         // registrations not yet authenticated, all sources
    std::size_t pending_per_source = 8;  // of one source
    Duration pending_grace = std::chrono::seconds(4);  // unanswered so long, one gives way
    std::size_t pending_per_user = 4;                  // begun on the SAs of one phone
    std::size_t requests_per_user = 128;               // of one phone, under way
    std::size_t dialogs = 200000;                      // sessions, those that only ring too
    std::size_t dialogs_per_user = 32;                 // of one phone
    // Emergency calls of phones that are not registered, and of one source.
    std::size_t emergency_calls = 100;
    std::size_t emergency_calls_per_source = 2;
    // What counts as one source: an IPv4 address, or an IPv6 network of this length; 1–128.
    unsigned ipv6_source_prefix = 64;
    // Where a phone behind a NAT is registered, so many ports of its address are sources.
    std::size_t sources_per_nat = 16;
    double register_rate_per_source = 5;  // unprotected messages a second, one source, sustained
    std::size_t register_burst_per_source = 20;  // and at once
    double register_rate_total = 5000;           // unprotected messages a second, all sources
    double register_rate_per_user = 0.5;         // unprotected REGISTERs a second for one name
    std::size_t register_burst_per_user = 10;    // and at once
    double message_rate_per_user = 50;           // SIP messages a second on one phone's SAs
    std::size_t message_burst_per_user = 200;    // and at once
    std::size_t tcp_connections = 20000;
    std::size_t tcp_connections_per_source = 8;
    std::size_t trace_records = 65536;  // messages remembered for `gmctl trace`
};

struct Ops {
    std::string socket = "/run/gmgate/gmgated.sock";  // at most 107 octets
    std::string group;  // group that may use it; empty: the process's own
    // Where Prometheus scrapes; nullopt: `metrics: off`.
    std::optional<Endpoint> metrics = Endpoint{*IpAddress::parse("127.0.0.1"), 9464};
};

struct Log {
    log::Level level = log::Level::info;
    bool time = true;  // false under journald, which has its own
};

// Where the values came from: error lines of later checks name the file and line too.
struct Source {
    std::string name;                  // as given to load()
    std::map<std::string, int> lines;  // "gm.interface" → line, for the keys that were written
    // "gmgated.yaml:12: gm.interface: "; without the line if the key was not written.
    [[nodiscard]] std::string at(const std::string& key) const;
};

struct Config {
    Gateway gateway;
    Gm gm;
    Core core;
    Backend backend = Backend::dpdk;
    Dpdk dpdk;
    Kernel kernel;
    Security security;
    Timers timers;
    Limits limits;
    Ops ops;
    Log log;
    Source source;

    // Phones behind a NAT are taken (N1).
    [[nodiscard]] bool nat() const {
        if (backend == Backend::screen) return false;
        return security.nat == Nat::on ||
               (security.nat == Nat::automatic && has_ipv4() && !holds_nat_port());
    }
    // A protected port is 4500, that of ESP in UDP. With `auto` there is then no NAT.
    [[nodiscard]] bool holds_nat_port() const {
        return gm.port_ps.contains(4500) || gm.port_pc.contains(4500);
    }
    [[nodiscard]] bool has_ipv4() const {
        return std::ranges::any_of(gm.addresses,
                                   [](const Prefix& p) { return !p.address.is_v6(); });
    }
    // SA sets the chosen backend can hold.
    [[nodiscard]] std::uint32_t max_sets() const {
        switch (backend) {
            case Backend::dpdk:
                break;
            case Backend::kernel:
                return kernel.max_sets;
            case Backend::screen:
                return std::min(dpdk.max_sets, kernel.max_sets);
        }
        return dpdk.max_sets;
    }
    // The key that says so.
    [[nodiscard]] std::string_view max_sets_key() const {
        const bool kernels = backend == Backend::kernel ||
                             (backend == Backend::screen && kernel.max_sets < dpdk.max_sets);
        return kernels ? "kernel.max_sets" : "dpdk.max_sets";
    }
    // DPDK takes the Gm interface.
    [[nodiscard]] bool uses_dpdk() const { return backend != Backend::kernel; }
    // The kernel does ESP.
    [[nodiscard]] bool uses_kernel() const { return backend != Backend::dpdk; }
};

// Reads and checks the file. All mistakes are found in one run: Error.text holds one line per
// mistake, separated by '\n', none at the end, sorted by line: "gmgated.yaml:12: gm.port_ps: what
// is wrong; what to do". ErrorKind: io (cannot be read), invalid (everything else).
[[nodiscard]] Result<Config> load(const std::string& path);
// The same for text in memory; `name` stands for the file in error lines. At most 1 MiB.
[[nodiscard]] Result<Config> load_string(std::string_view text, const std::string& name);

// What this machine must give: the interface as the backend wants it, addresses, memory, the group,
// the rights. One line per problem, as above; empty: all there. Reads /sys, /etc/group and the
// process's capabilities; changes nothing.
[[nodiscard]] std::vector<std::string> check_environment(const Config& config);

// The part of the system check_environment looks at; tests give their own.
struct Environment {
    std::string interfaces = "/sys/class/net";  // a directory with one entry per interface,
                                                // which holds the files `type` and `mtu`
    bool net_admin = false;                     // CAP_NET_ADMIN
    bool net_raw = false;                       // CAP_NET_RAW
    bool bpf = false;                           // CAP_BPF, or CAP_SYS_ADMIN which holds it
    unsigned long free_huge_pages = 0;
    unsigned long free_huge_mb = 0;  // of all page sizes; 0: not known
    unsigned long memory_mb = 0;     // all of this machine's; 0: not known
    // May a socket be bound to this address here? Empty: not known, and not asked.
    std::function<bool(const IpAddress&)> can_bind = {};
    // The addresses on an interface, IPv6 link-local ones left out. Empty: not known, not asked.
    std::function<std::vector<IpAddress>(const std::string& interface)> addresses_on = {};
    static Environment of_this_process();
};
[[nodiscard]] std::vector<std::string> check_environment(const Config& config,
                                                         const Environment& environment);

}  // namespace gmgate::config
