// From YAML to Config: which key goes where, its range, and what must fit together.

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "config/config.h"
#include "config/problems.h"
#include "config/section.h"
#include "config/yaml_tree.h"

namespace gmgate::config {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

bool is_host_name(std::string_view text) {
    if (text.empty() || text.size() > 253) return false;
    while (!text.empty()) {
        const std::size_t dot = std::min(text.find('.'), text.size());
        const std::string_view label = text.substr(0, dot);
        if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-')
            return false;
        for (const char c : label) {
            const char l = ascii_lower(c);
            if (!((l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
        }
        if (dot == text.size()) return true;
        text.remove_prefix(dot + 1);
    }
    return false;  // ends with a dot
}

// As the kernel has it (IFNAMSIZ): what `ip link` accepts.
bool is_interface_name(std::string_view text) {
    if (text.empty() || text.size() > 15 || text == "." || text == "..") return false;
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return c > 0x20 && c < 0x7F && c != '/' && c != ':'; });
}

bool is_multicast(const IpAddress& a) {
    return a.is_v6() ? a.octets()[0] == 0xFF : (a.octets()[0] & 0xF0U) == 0xE0U;
}

std::optional<Prefix> parse_prefix(std::string_view text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const std::optional<IpAddress> address = IpAddress::parse(text.substr(0, slash));
    const std::string_view length = text.substr(slash + 1);
    if (!address || length.empty() || length.size() > 3 ||
        length.find_first_not_of("0123456789") != std::string_view::npos) {
        return std::nullopt;
    }
    unsigned n = 0;
    for (const char c : length) n = n * 10 + static_cast<unsigned>(c - '0');
    if (n > (address->is_v6() ? 128U : 32U)) return std::nullopt;
    return Prefix{*address, n};
}

// "NETWORK/LENGTH via ROUTER" or "default via ROUTER".
std::optional<Route> parse_route(std::string_view text) {
    const std::size_t via = text.find(" via ");
    if (via == std::string_view::npos) return std::nullopt;
    const std::optional<IpAddress> router = IpAddress::parse(trim(text.substr(via + 5)));
    const std::string_view to = trim(text.substr(0, via));
    if (!router || router->is_unspecified() || is_multicast(*router)) return std::nullopt;
    if (to == "default")
        return Route{*parse_prefix(router->is_v6() ? "::/0" : "0.0.0.0/0"), *router};
    const std::optional<Prefix> prefix = parse_prefix(to);
    if (!prefix || prefix->address.is_v6() != router->is_v6()) return std::nullopt;
    return Route{*prefix, *router};
}

std::string range_text(const PortRange& r) {
    return r.first == r.last ? fmt::format("{}", r.first) : fmt::format("{}-{}", r.first, r.last);
}
bool overlap(const PortRange& a, const PortRange& b) {
    return a.first <= b.last && b.first <= a.last;
}

void read_gateway(Section s, Gateway& c) {
    if (s.text("name", c.name)) {
        const std::optional<IpAddress> address = IpAddress::parse(c.name);
        if (!address && !is_host_name(c.name)) {
            s.wrong("name", fmt::format("'{}' is neither a host name nor an address; write one "
                                        "such as pcscf.visited.example",
                                        printable(c.name)));
        } else if (address) {
            c.name = address->to_uri_host();
        }
    } else {
        s.missing("name", "write the host of our SIP URIs, such as pcscf.visited.example");
    }
    if (s.text("visited_network", c.visited_network)) {
        if (!is_host_name(c.visited_network)) {
            s.wrong("visited_network",
                    fmt::format("'{}' is not a domain name; write one such as visited.example",
                                printable(c.visited_network)));
        }
    } else {
        c.visited_network = c.name;
    }
    s.finish();
}

void check_protected(Section& s, std::string_view key, const PortRange& ports) {
    for (const std::uint16_t sip : {std::uint16_t{5060}, std::uint16_t{5061}}) {
        if (!ports.contains(sip)) continue;
        s.wrong(key, ports.first == ports.last
                         ? fmt::format("{} is not allowed as a protected port (A5); choose "
                                       "1024-65535 without 5060 and 5061",
                                       sip)
                         : fmt::format("{} holds {}, which is not allowed as a protected port "
                                       "(A5); choose 1024-65535 without "
                                       "5060 and 5061",
                                       range_text(ports), sip));
        return;
    }
}

// Whether `router` is a neighbour on one of our networks; link-local ones are on every link.
bool on_link(const IpAddress& router, const std::vector<Prefix>& networks) {
    const auto a = router.octets();
    if (router.is_v6() && a[0] == 0xFE && (a[1] & 0xC0U) == 0x80) return true;
    return std::any_of(networks.begin(), networks.end(), [&](const Prefix& network) {
        if (network.address.is_v6() != router.is_v6()) return false;
        const auto b = network.address.octets();
        for (unsigned bit = 0; bit < network.length; ++bit) {
            if (((a[bit / 8] ^ b[bit / 8]) & (0x80U >> (bit % 8))) != 0) return false;
        }
        return true;
    });
}

void read_gm(Section s, Gm& c, bool has_device) {
    const auto interface = [&s](std::string_view key, std::string& out) {
        std::string text;
        if (!s.text(key, text)) return;
        if (is_interface_name(text))
            out = std::move(text);
        else
            s.wrong(
                key,
                fmt::format(
                    "'{}' cannot be an interface's name; at most 15 characters, no blank, no '/'",
                    printable(text)));
    };
    interface("interface", c.interface);
    interface("tap", c.tap);
    if (c.interface.empty() && !has_device)
        s.missing("interface",
                  "name the network interface the phones are behind, as 'ip link' shows it");
    if (!c.interface.empty() && c.interface == c.tap) {
        s.wrong(
            "tap",
            fmt::format(
                "'{}' is gm.interface already; gmgated makes this one itself, choose another name",
                c.tap));
    }
    s.list("addresses", [&](int, const std::string& text) {
        const std::optional<Prefix> p = parse_prefix(text);
        if (!p) {
            s.wrong("addresses", fmt::format("'{}' is not an address with its prefix length; write "
                                             "10.20.255.1/16 or fd00:20::1/64",
                                             printable(text)));
        } else if (p->address.is_unspecified() || is_multicast(p->address)) {
            s.wrong("addresses",
                    fmt::format("{} cannot be the address of an interface; write a unicast address",
                                text));
        } else if (std::any_of(c.addresses.begin(), c.addresses.end(), [&](const Prefix& o) {
                       return o.address.is_v6() == p->address.is_v6();
                   })) {
            s.wrong("addresses", fmt::format("{} is the second {} address; give one of a kind",
                                             p->to_string(), p->address.is_v6() ? "IPv6" : "IPv4"));
        } else {
            c.addresses.push_back(*p);
        }
    });
    if (c.addresses.empty())
        s.missing("addresses", "give the addresses phones register to, such as [10.20.255.1/16]");
    s.list("routes", [&](int, const std::string& text) {
        const std::optional<Route> r = parse_route(text);
        if (!r) {
            s.wrong("routes", fmt::format("'{}' is not a route; write \"10.20.0.0/16 via "
                                          "10.21.0.2\" or \"default via 10.21.0.2\"",
                                          printable(text)));
        } else if (std::find(c.routes.begin(), c.routes.end(), *r) != c.routes.end()) {
            s.wrong("routes", fmt::format("{} is there twice; write it once", r->to_string()));
        } else if (!c.addresses.empty() && !on_link(r->via, c.addresses)) {
            s.wrong("routes", fmt::format("the router {} is in no network of gm.addresses; name "
                                          "one that is, or widen a prefix there",
                                          r->via.to_string()));
        } else {
            c.routes.push_back(*r);
        }
    });
    s.number("unprotected_port", c.unprotected_port, 1, 65535);
    s.ports("port_ps", c.port_ps);
    s.ports("port_pc", c.port_pc);
    check_protected(s, "port_ps", c.port_ps);
    check_protected(s, "port_pc", c.port_pc);
    // Named on the key that was written, so that the line is one the operator can change.
    const std::string_view blamed = s.has("port_pc") ? "port_pc" : "port_ps";
    if (overlap(c.port_ps, c.port_pc)) {
        s.wrong(blamed, fmt::format("port_ps {} and port_pc {} overlap; a port has one of the two "
                                    "uses, keep them apart",
                                    range_text(c.port_ps), range_text(c.port_pc)));
    }
    for (const auto& [key, ports] :
         {std::pair{"port_ps", c.port_ps}, std::pair{"port_pc", c.port_pc}}) {
        if (!ports.contains(c.unprotected_port)) continue;
        s.wrong(
            s.has(key) ? key : "unprotected_port",
            fmt::format(
                "{} {} overlaps unprotected_port {}; cleartext must have a port of its own (A6)",
                key, range_text(ports), c.unprotected_port));
    }
    if (c.port_pc.size() < 2) {
        s.wrong("port_pc",
                "one port is not enough: port_pc changes at each re-registration (A5); give a "
                "range such as 6200-6231");
    }
    s.number("mtu", c.mtu, 1280, 9000, "octets");
    s.finish();
}

// One element of core.next_hop: an address, or a domain with or without a port.
void read_next_hop(Section& s, Core& c, const std::string& text) {
    const std::optional<Endpoint> e = Endpoint::parse(text, 5060);
    if (!e) {
        const std::size_t colon = text.find(':');
        const std::string name = text.substr(0, colon);
        std::uint16_t port = 0;
        bool good = is_host_name(name) && name.find_first_not_of("0123456789.") != name.npos;
        if (colon != std::string::npos) {
            const std::optional<Endpoint> with = Endpoint::parse("192.0.2.1" + text.substr(colon));
            good = good && with && with->port != 0;
            if (good) port = with->port;
        }
        if (!good) {
            s.wrong("next_hop",
                    fmt::format("'{}' is neither an address nor a domain; write 10.30.0.2:5060, "
                                "[fd00:30::2]:5060 or ims.home.example",
                                printable(text)));
        } else if (!c.domain.empty()) {
            s.wrong("next_hop", fmt::format("{} is the second domain; give one", name));
        } else {
            c.domain = name;
            c.domain_port = port;
        }
    } else if (e->port == 0 || e->address.is_unspecified() || is_multicast(e->address)) {
        s.wrong("next_hop",
                fmt::format("{} is no host one can send to; write the address of the I-CSCF or "
                            "S-CSCF",
                            e->to_string()));
    } else if (std::find(c.listen.begin(), c.listen.end(), *e) != c.listen.end()) {
        s.wrong("next_hop", fmt::format("{} is our own address (core.listen); requests would run "
                                        "in a circle, write the home network's",
                                        e->to_string()));
    } else if (!c.listen.empty() &&
               std::none_of(c.listen.begin(), c.listen.end(), [&](const Endpoint& o) {
                   return o.address.is_v6() == e->address.is_v6();
               })) {
        s.wrong("next_hop",
                fmt::format("{} is {}, but core.listen has no address of that kind; add one there",
                            e->to_string(), e->address.is_v6() ? "IPv6" : "IPv4"));
    } else if (std::find(c.next_hops.begin(), c.next_hops.end(), *e) != c.next_hops.end()) {
        s.wrong("next_hop", fmt::format("{} stands there twice", e->to_string()));
    } else if (c.next_hops.size() == 16) {
        s.wrong("next_hop", "more than 16; give a domain and let the DNS tell them");
    } else {
        c.next_hops.push_back(*e);
    }
}

void read_core(Section s, Core& c) {
    s.list("listen", [&](int, const std::string& text) {
        const std::optional<Endpoint> e = Endpoint::parse(text, 5060);
        if (!e || e->port == 0 || e->address.is_unspecified() || is_multicast(e->address)) {
            s.wrong("listen", fmt::format("'{}' is not an address of this machine; write "
                                          "10.30.0.1:5060 or [fd00:30::1]:5060",
                                          printable(text)));
        } else if (std::any_of(c.listen.begin(), c.listen.end(), [&](const Endpoint& o) {
                       return o.address.is_v6() == e->address.is_v6();
                   })) {
            s.wrong("listen", fmt::format("{} is the second {} address; give one of a kind",
                                          e->to_string(), e->address.is_v6() ? "IPv6" : "IPv4"));
        } else {
            c.listen.push_back(*e);
        }
    });
    if (c.listen.empty())
        s.missing("listen", "give our address towards the home network, such as 10.30.0.1:5060");
    if (!s.list("next_hop", [&](int, const std::string& text) { read_next_hop(s, c, text); })) {
        if (!s.has("next_hop"))
            s.missing("next_hop",
                      "give the address of the I-CSCF or S-CSCF, such as 10.30.0.2:5060");
    } else if (!c.domain.empty() && !c.next_hops.empty()) {
        s.wrong("next_hop", fmt::format("the domain {} stands beside addresses; give either one "
                                        "domain or a list of addresses",
                                        c.domain));
    }
    s.list("dns_servers", [&](int, const std::string& text) {
        if (text == "system") return;
        const std::optional<Endpoint> e = Endpoint::parse(text, 53);
        if (!e || e->port == 0 || e->address.is_unspecified() || is_multicast(e->address)) {
            s.wrong("dns_servers", fmt::format("'{}' is not the address of a DNS server; write "
                                               "10.30.0.53, 10.30.0.53:5353, or system",
                                               printable(text)));
        } else if (c.dns_servers.size() == 8) {
            s.wrong("dns_servers", "more than 8 servers; give the nearest ones");
        } else {
            c.dns_servers.push_back(*e);
        }
    });
    s.choice("transport", c.transport,
             Choices<Transport>{{"udp", Transport::udp}, {"tcp", Transport::tcp}});
    s.choice("interconnect", c.interconnect,
             Choices<Interconnect>{{"path", Interconnect::path}, {"via", Interconnect::via}});
    s.choice("reg_event", c.reg_event,
             Choices<RegEvent>{
                 {"rfc3680", RegEvent::rfc3680}, {"seed", RegEvent::seed}, {"off", RegEvent::off}});
    if (std::string word; s.text("e_cscf", word) && word != "none") {
        Endpoint e_cscf;
        if (s.endpoint("e_cscf", e_cscf, 5060)) {
            const bool reachable = std::any_of(
                c.listen.begin(), c.listen.end(),
                [&](const Endpoint& e) { return e.address.is_v6() == e_cscf.address.is_v6(); });
            if (!reachable || e_cscf.address.is_unspecified() || is_multicast(e_cscf.address)) {
                s.wrong("e_cscf", fmt::format("{} is no host that core.listen can reach; give an "
                                              "address of its family",
                                              e_cscf.to_string()));
            }
            c.e_cscf = e_cscf;
        }
    }
    c.trust_service_routes = !s.has("trusted");
    s.list("trusted", [&](int, const std::string& text) {
        if (text == "service_routes") {
            c.trust_service_routes = true;
            return;
        }
        std::optional<Prefix> p = parse_prefix(text);
        if (const auto host = IpAddress::parse(text)) p = Prefix{*host, host->is_v6() ? 128U : 32U};
        if (!p) {
            s.wrong("trusted", fmt::format("'{}' is neither an address nor a network with its "
                                           "length; write 10.30.0.0/24, or service_routes",
                                           printable(text)));
        } else {
            c.trusted.push_back(*p);
        }
    });
    s.finish();
}

void read_dpdk(Section s, Dpdk& c) {
    s.number("workers", c.workers, 1, 15);
    s.number("memory_mb", c.memory_mb, 64, 1048576, "MiB");
    s.boolean("hugepages", c.hugepages);
    s.choice("idle", c.idle, Choices<Idle>{{"adaptive", Idle::adaptive}, {"poll", Idle::poll}});
    s.choice("crypto", c.crypto,
             Choices<Crypto>{{"auto", Crypto::automatic},
                             {"ipsec_mb", Crypto::ipsec_mb},
                             {"openssl", Crypto::openssl}});
    s.number("max_sets", c.max_sets, 16, 2097152, "sets");
    if (s.number("replay_window", c.replay_window, 64, 1024, "packets") &&
        c.replay_window % 64 != 0) {
        s.wrong("replay_window",
                fmt::format("{} is not a multiple of 64; write {}", c.replay_window,
                            std::min(1024U, (c.replay_window / 64 + 1) * 64)));
    }
    if (s.text("device", c.device) && c.device.find_first_of(" \t") != std::string::npos) {
        s.wrong("device", "a DPDK device has no blanks; write it as DPDK does: 0000:3b:00.0");
    } else if (c.device.starts_with("net_af_packet")) {
        // So the host's own stack would answer beside the fast path (A6).
        s.wrong("device",
                "an interface of the host is taken by gm.interface, which also keeps the host off "
                "it; here stands a NIC of DPDK's own, 0000:3b:00.0");
    }
    s.finish();
}

void read_kernel(Section s, Kernel& c) {
    s.number("reqid", c.reqid, 1, 4294967295U);
    s.number("mark", c.mark, 0, 4294967295U);
    s.number("max_sets", c.max_sets, 16, 2097152, "sets");
    if (s.number("replay_window", c.replay_window, 64, 4096, "packets") &&
        c.replay_window % 32 != 0) {
        s.wrong("replay_window", fmt::format("{} is not a multiple of 32; write {}",
                                             c.replay_window, (c.replay_window / 32 + 1) * 32));
    }
    s.choice(
        "offload", c.offload,
        Choices<Offload>{
            {"none", Offload::none}, {"crypto", Offload::crypto}, {"packet", Offload::packet}});
    if (s.text("device", c.device) && !c.device.empty() && !is_interface_name(c.device)) {
        s.wrong("device",
                fmt::format("'{}' cannot be an interface's name; write one as 'ip link' shows it",
                            printable(c.device)));
    }
    s.boolean("offload_fallback", c.offload_fallback);
    s.finish();
}

void read_security(Section s, Security& c) {
    std::vector<sa::Suite> suites;
    const bool given = s.list("suites", [&](int, const std::string& text) {
        const std::optional<sa::Suite> suite = sa::parse_suite(text);
        std::vector<std::string> names;
        for (const sa::Suite& known : sa::all_suites) names.push_back(sa::to_string(known));
        if (!suite || !sa::is_valid(*suite)) {
            const std::vector<std::string_view> views(names.begin(), names.end());
            const std::optional<std::string> near = nearest(text, views);
            s.wrong("suites",
                    fmt::format("unknown algorithm pair '{}'; {}one of {}", printable(text),
                                near ? fmt::format("did you mean {}? ", *near) : "",
                                fmt::join(names, ", ")));
        } else if (std::find(suites.begin(), suites.end(), *suite) != suites.end()) {
            s.wrong("suites",
                    fmt::format("{} stands there twice; the order is the preference, keep one",
                                sa::to_string(*suite)));
        } else {
            suites.push_back(*suite);
        }
    });
    if (given && !suites.empty()) c.suites = std::move(suites);
    s.choice(
        "missing_ealg", c.missing_ealg,
        Choices<MissingEalg>{{"assume_null", MissingEalg::null}, {"refuse", MissingEalg::refuse}});
    s.choice("consistency_failure", c.consistency_failure,
             Choices<ConsistencyFailure>{{"reject", ConsistencyFailure::reject},
                                         {"silent", ConsistencyFailure::silent}});
    s.choice("unprotected_other", c.unprotected_other,
             Choices<UnprotectedOther>{{"reject", UnprotectedOther::reject},
                                       {"drop", UnprotectedOther::drop}});
    s.choice("emergency", c.emergency,
             Choices<Emergency>{{"refuse", Emergency::refuse},
                                {"alternative", Emergency::alternative},
                                {"forward", Emergency::forward}});
    std::vector<std::string> numbers;
    if (s.list("emergency_numbers", [&](int, const std::string& text) {
            if (text.empty() || text.find_first_not_of("0123456789*#") != std::string::npos) {
                s.wrong(
                    "emergency_numbers",
                    fmt::format("'{}' is not a number as it is dialled; write digits, such as 112",
                                printable(text)));
            } else {
                numbers.push_back(text);
            }
        }))
        c.emergency_numbers = std::move(numbers);
    s.choice("emergency_unregistered", c.emergency_unregistered,
             Choices<EmergencyUnregistered>{{"refuse", EmergencyUnregistered::refuse},
                                            {"forward", EmergencyUnregistered::forward}});
    s.choice("service_route_mismatch", c.service_route_mismatch,
             Choices<ServiceRouteMismatch>{{"replace", ServiceRouteMismatch::replace},
                                           {"reject", ServiceRouteMismatch::reject}});
    s.choice("nat", c.nat,
             Choices<Nat>{{"auto", Nat::automatic}, {"on", Nat::on}, {"off", Nat::off}});
    s.finish();
}

void read_timers(Section s, Timers& c) {
    s.duration("reg_await_auth", c.reg_await_auth, seconds(1), hours(1));
    s.duration("t1", c.t1, milliseconds(50), seconds(10));
    s.duration("timer_c", c.timer_c, seconds(181), hours(1));
    s.duration("dialog_idle", c.dialog_idle, minutes(10), hours(240));
    s.duration("lifetime_margin", c.lifetime_margin, seconds(0), hours(1));
    c.drain = c.t1 * 64;
    s.duration("drain", c.drain, seconds(1), hours(1), c.t1);
    s.duration("near_end", c.near_end, seconds(0), hours(1));
    s.duration("spi_quarantine", c.spi_quarantine, seconds(0), hours(24));
    s.finish();
}

void read_limits(Section s, Limits& c) {
    s.number("registrations", c.registrations, 1, 2000000);
    s.number("pending", c.pending, 1, 2000000);
    s.number("pending_per_source", c.pending_per_source, 1, 100000);
    s.duration("pending_grace", c.pending_grace, seconds(1), hours(1));
    s.number("pending_per_user", c.pending_per_user, 1, 1000);
    s.number("requests_per_user", c.requests_per_user, 1, 100000);
    s.number("dialogs", c.dialogs, 1, 4000000);
    s.number("dialogs_per_user", c.dialogs_per_user, 1, 10000);
    s.number("emergency_calls", c.emergency_calls, 1, 10000);
    s.number("emergency_calls_per_source", c.emergency_calls_per_source, 1, 10000);
    s.number("ipv6_source_prefix", c.ipv6_source_prefix, 1, 128);
    s.number("sources_per_nat", c.sources_per_nat, 1, 10000);
    s.rate("register_rate_per_source", c.register_rate_per_source, 0.01, 1000000);
    s.number("register_burst_per_source", c.register_burst_per_source, 1, 1000000);
    s.rate("register_rate_total", c.register_rate_total, 0.1, 10000000);
    s.rate("register_rate_per_user", c.register_rate_per_user, 0.001, 1000000);
    s.number("register_burst_per_user", c.register_burst_per_user, 1, 1000000);
    s.rate("message_rate_per_user", c.message_rate_per_user, 0.1, 1000000);
    s.number("message_burst_per_user", c.message_burst_per_user, 1, 1000000);
    s.number("tcp_connections", c.tcp_connections, 1, 1000000);
    s.number("tcp_connections_per_source", c.tcp_connections_per_source, 1, 1000000);
    s.number("trace_records", c.trace_records, 0, 100000000);
    if (c.pending_per_source > c.pending) {
        s.wrong("pending_per_source",
                fmt::format("{} is more than limits.pending {} lets in altogether; lower it",
                            c.pending_per_source, c.pending));
    }
    s.finish();
}

void read_ops(Section s, Ops& c) {
    if (s.text("socket", c.socket)) {
        if (!c.socket.starts_with('/') || c.socket.ends_with('/')) {
            s.wrong(
                "socket",
                fmt::format("'{}' is not a whole path; write one such as /run/gmgate/gmgated.sock",
                            printable(c.socket)));
        } else if (c.socket.size() > 107) {
            s.wrong(
                "socket",
                fmt::format("{} octets are too long for a Unix socket (107); choose a shorter path",
                            c.socket.size()));
        }
    }
    s.text("group", c.group);
    std::string metrics;
    if (s.text("metrics", metrics)) {
        const std::optional<Endpoint> e = Endpoint::parse(metrics, 9464);
        if (metrics == "off" || metrics == "false" || metrics == "no")
            c.metrics.reset();
        else if (e && e->port != 0)
            c.metrics = *e;
        else
            s.wrong("metrics",
                    fmt::format("'{}' is not an address with a port; write 127.0.0.1:9464, or off",
                                printable(metrics)));
    }
    s.finish();
}

void read_log(Section s, Log& c) {
    s.choice("level", c.level,
             Choices<log::Level>{{"debug", log::Level::debug},
                                 {"info", log::Level::info},
                                 {"warn", log::Level::warn},
                                 {"error", log::Level::error},
                                 {"off", log::Level::off}});
    s.boolean("time", c.time);
    s.finish();
}

// backend: screen is both of the others at once; what they say must agree.
void check_screen(Section& top, const Config& c) {
    if (c.kernel.replay_window < c.dpdk.replay_window) {
        const std::string_view key = c.source.lines.contains("kernel.replay_window")
                                         ? "kernel.replay_window"
                                         : "dpdk.replay_window";
        top.wrong(key,
                  fmt::format("the kernel's window of {} packets is narrower than the "
                              "screen's of {} (dpdk.replay_window), so the kernel would drop "
                              "what the screen lets through; {} {} or more",
                              c.kernel.replay_window, c.dpdk.replay_window,
                              key.starts_with("kernel") ? "make it" : "give kernel.replay_window",
                              c.dpdk.replay_window));
    }
    if (c.kernel.offload != Offload::none) {
        top.wrong("kernel.offload",
                  "with backend: screen the NIC is DPDK's, so the kernel cannot have it do ESP; "
                  "write none");
    }
}

void check_nat(Section& top, const Config& c) {
    if (c.security.nat == Nat::on && c.backend == Backend::screen) {
        top.wrong(
            "security.nat",
            "UDP encapsulation takes backend: dpdk or kernel; write one, or security.nat: off, "
            "and phones behind a NAT are refused");
    }
    if (c.security.nat != Nat::on) return;  // auto yields
    for (const auto& [key, range] :
         {std::pair{"gm.port_ps", c.gm.port_ps}, std::pair{"gm.port_pc", c.gm.port_pc}}) {
        if (range.contains(4500)) {
            top.wrong(key,
                      "port 4500 is taken by UDP encapsulation; choose others, or write "
                      "security.nat: off");
        }
    }
}

// What no section can see alone.
void check_together(Section& top, const Config& c) {
    check_nat(top, c);
    for (const Endpoint& e : c.core.listen) {
        const bool same = std::any_of(c.gm.addresses.begin(), c.gm.addresses.end(),
                                      [&](const Prefix& p) { return p.address == e.address; });
        if (same && (e.port == c.gm.unprotected_port || c.gm.port_ps.contains(e.port) ||
                     c.gm.port_pc.contains(e.port))) {
            top.wrong("core.listen", fmt::format("{} is a port of the Gm side already "
                                                 "(gm.addresses with its ports); choose another",
                                                 e.to_string()));
        }
    }
    const auto is_ours = [&](const IpAddress& a) {
        return std::any_of(c.gm.addresses.begin(), c.gm.addresses.end(),
                           [&](const Prefix& p) { return p.address == a; });
    };
    for (const Endpoint& hop : c.core.next_hops) {
        if (!is_ours(hop.address)) continue;
        top.wrong(
            "core.next_hop",
            fmt::format("{} is an address of the Gm side (gm.addresses); write the home network's",
                        hop.to_string()));
    }
    if (c.security.emergency == Emergency::forward && !c.core.e_cscf) {
        top.wrong("security.emergency",
                  "forward needs core.e_cscf, the address of the E-CSCF; write it, or choose "
                  "alternative or refuse");
    }
    if (c.security.emergency_unregistered == EmergencyUnregistered::forward && !c.core.e_cscf) {
        top.wrong("security.emergency_unregistered",
                  "forward needs core.e_cscf, the address of the E-CSCF; write it, or choose "
                  "refuse");
    }
    if (c.limits.registrations > c.max_sets()) {
        const std::string_view table = c.max_sets_key();
        const std::string_view key =
            c.source.lines.contains("limits.registrations") ? "limits.registrations" : table;
        top.wrong(key, fmt::format("{} phones do not fit into {} {}; each needs one "
                                   "set, and a second one while it "
                                   "re-registers",
                                   c.limits.registrations, table, c.max_sets()));
    }
    if (c.backend == Backend::screen) check_screen(top, c);
}

}  // namespace

std::string Prefix::to_string() const {
    return fmt::format("{}/{}", address.to_string(), length);
}

std::string Route::to_string() const {
    return fmt::format("{} via {}", to.to_string(), via.to_string());
}

std::string Source::at(const std::string& key) const {
    const auto it = lines.find(key);
    if (it == lines.end()) return fmt::format("{}: {}: ", name, key);
    return fmt::format("{}:{}: {}: ", name, it->second, key);
}

Result<Config> load_string(std::string_view text, const std::string& name) {
    Problems problems(name);
    Config c;
    c.source.name = name;
    const std::optional<YamlNode> tree = parse_yaml(text, problems);
    if (!tree) return fail(ErrorKind::invalid, problems.text());

    Section top(&*tree, "", problems, c.source);
    if (problems.empty() || tree->kind == YamlNode::Kind::map) {
        read_gateway(top.section("gateway"), c.gateway);
        Section dpdk = top.section("dpdk");
        top.choice(
            "backend", c.backend,
            Choices<Backend>{
                {"dpdk", Backend::dpdk}, {"kernel", Backend::kernel}, {"screen", Backend::screen}});
        const bool has_device = dpdk.has("device") && c.uses_dpdk();
        read_gm(top.section("gm"), c.gm, has_device);
        read_core(top.section("core"), c.core);
        read_dpdk(std::move(dpdk), c.dpdk);
        read_kernel(top.section("kernel"), c.kernel);
        read_security(top.section("security"), c.security);
        read_timers(top.section("timers"), c.timers);
        read_limits(top.section("limits"), c.limits);
        read_ops(top.section("ops"), c.ops);
        read_log(top.section("log"), c.log);
        top.finish();
        check_together(top, c);
    }
    if (!problems.empty()) return fail(ErrorKind::invalid, problems.text());
    return c;
}

Result<Config> load(const std::string& path) {
    const std::string shown = printable(path, 4096);
    const auto cannot = [&](int error) {
        const std::string_view remedy =
            error == ENOENT   ? "give the path of the file; config/gmgated.yaml is an example"
            : error == EACCES ? "run as a user who may read it"
                              : "is it a file?";
        return fail(ErrorKind::io,
                    fmt::format("{}: cannot be read: {}; {}", shown, std::strerror(error), remedy));
    };
    errno = 0;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"),
                                                               &std::fclose);
    if (!file) return cannot(errno);
    std::string text;
    std::array<char, 65536> buffer{};
    // One octet more than allowed is enough to know.
    while (text.size() <= longest_document) {
        const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), file.get());
        text.append(buffer.data(), n);
        if (n < buffer.size()) break;
    }
    if (std::ferror(file.get()) != 0) return cannot(errno != 0 ? errno : EIO);
    return load_string(text, path);
}

}  // namespace gmgate::config
