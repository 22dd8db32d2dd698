// gmhome: a home network to stand behind the gateway.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/core_dumps.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/secret_text.h"
#include "control/sip/socket_transport.h"
#include "home/commands.h"
#include "home/control_socket.h"
#include "home/cx_log.h"
#include "home/identity.h"
#include "home/local_hss.h"
#include "home/registrar.h"
#include "home/server.h"
#include "home/stats.h"
#include "home/subscribers.h"

namespace {

using namespace gmgate;
using namespace gmgate::home;

constexpr auto description =
    "gmhome - a home network for labs, demos and tests: I-CSCF and S-CSCF roles on one address, "
    "and an HSS with Milenage.\n"
    "It registers phones by IMS AKA as TS 33.203 6.1 has it and routes calls, messages and all "
    "else "
    "between them through the gateway.";

constexpr auto examples =
    "Examples\n"
    "  100 000 phones by rule, for load; gmue derives the same keys from the same seed:\n"
    "    gmhome --listen 10.30.0.2:5060 --generate 100000 --seed 00112233445566778899aabbccddeeff\n"
    "  the subscribers of a file, IPv4 and IPv6, Cx operations shown:\n"
    "    gmhome --listen 10.30.0.2 --listen [2001:db8:30::2] --subscribers subscribers.yaml "
    "--trace-cx\n"
    "  send a message to a registered phone, from another terminal:\n"
    "    gmhome --listen … --control /run/gmhome.sock\n"
    "    gmhome ctl --control /run/gmhome.sock message "
    "sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org hello\n"
    "\n"
    "Generated subscribers\n"
    "  K   = first 16 octets of HMAC-SHA-256(seed, \"gmgate-K\" + IMSI digits)\n"
    "  OPc = first 16 octets of HMAC-SHA-256(seed, \"gmgate-OPc\" + IMSI digits)\n"
    "  IMPI <imsi>@<realm>; IMPUs sip:<imsi>@<realm> and tel:+<imsi>\n"
    "\n"
    "Subscriber files\n"
    "  YAML:  subscribers:\n"
    "           - impi: alice@ims.example        # or imsi: '001010000000001'\n"
    "             k: 465b5ce8b199b49faa5f0a2ee238a6bc\n"
    "             opc: cd63cb71954a9f4e48a5994e37a02baf   # or op:\n"
    "             impus: [sip:alice@ims.example, tel:+4930123]   # optional, as are amf, sqn, "
    "service_route, barred, shared\n"
    "             # several implicit registration sets, each registers by itself, instead of "
    "impus:\n"
    "             sets: [[sip:alice@ims.example, tel:+4930123], [sip:desk@ims.example]]\n"
    "  CSV (name ends in .csv): the same names as columns in the first line, lists separated by "
    "blanks,\n"
    "  sets by ' | '.\n"
    "\n"
    "SIGHUP reads --subscribers again; SIGUSR1 prints the counters (and writes --stats-file); "
    "SIGINT and SIGTERM end the program.\n";

struct Options {
    std::vector<std::string> listen;
    std::string realm = RegistrarConfig{}.realm;
    std::string server_name;
    std::vector<std::string> service_route;
    std::string subscribers;
    std::string generate;
    std::string seed;
    std::string qop = "auth";
    std::string charging_function;
    std::vector<std::string> services{"echo"};
    unsigned max_expires = 600'000;
    unsigned min_expires = 60;
    unsigned reg_await_auth = 240;
    unsigned reauth_wait = 60;
    unsigned reauth_every = 0;
    double rechallenge_percent = 0;
    bool allow_unprotected = false;
    bool trace_cx = false;
    std::string log_level = "info";
    std::string stats_file;
    std::string control;
    std::string ctl_socket;
    std::vector<std::string> ctl_words;
    std::string ctl_reason;
};

int complain(const std::string& text) {
    fmt::print(stderr, "gmhome: {}\n", text);
    return 1;
}

Result<std::vector<Endpoint>> listen_endpoints(const std::vector<std::string>& texts) {
    std::vector<Endpoint> out;
    for (const auto& text : texts) {
        const auto endpoint = Endpoint::parse(text, 5060);
        if (!endpoint || endpoint->port == 0) {
            return fail(
                ErrorKind::invalid,
                fmt::format(
                    "--listen '{}': not an address: write 10.30.0.2:5060 or [2001:db8::2]:5060",
                    text));
        }
        if (endpoint->address.is_unspecified()) {
            return fail(
                ErrorKind::invalid,
                fmt::format("--listen '{}': give the address of an interface: it goes into Via and "
                            "Service-Route",
                            text));
        }
        out.push_back(*endpoint);
    }
    return out;
}

Result<void> fill_hss(LocalHss& hss, const Options& o) {
    if (o.subscribers.empty() && o.generate.empty()) {
        return fail(ErrorKind::invalid,
                    "no subscribers: give --subscribers FILE, or --generate COUNT with --seed HEX");
    }
    if (!o.subscribers.empty()) {
        auto list = load_subscribers(o.subscribers, o.realm);
        if (!list) return std::unexpected(list.error());
        for (auto& s : *list) {
            if (auto done = hss.add(std::move(s)); !done) return done;
        }
    }
    if (o.generate.empty()) return {};
    auto seed = from_hex(o.seed);
    if (!seed || seed->empty()) {
        return fail(ErrorKind::invalid,
                    "--generate needs --seed: an even number of hex digits, e.g. 32 of them");
    }
    auto rule = SubscriberRule::parse(o.generate, *seed, o.realm);
    wipe(*seed);
    if (!rule) return fail(rule.error().kind, "--generate: " + rule.error().text);
    return hss.add(std::move(*rule));
}

// The file again: who is gone from it is deregistered, whose key is another one re-authenticated.
Result<std::string> reload_hss(LocalHss& hss, const Options& o, HssListener& listener) {
    auto list = load_subscribers(o.subscribers, o.realm);
    if (!list) return std::unexpected(list.error());
    const auto done = hss.reload(std::move(*list), listener);
    if (!done) return std::unexpected(done.error());
    return fmt::format(
        "{} subscribers added, {} removed, {} barred, {} with another profile, {} "
        "with another key",
        done->added, done->removed, done->barred, done->reprofiled, done->rekeyed);
}

Result<RegistrarConfig> registrar_config(const Options& o, const std::vector<Endpoint>& listen) {
    RegistrarConfig c;
    c.realm = o.realm;
    if (!canonical_impu("sip:" + o.realm)) {
        return fail(ErrorKind::invalid, fmt::format("--realm '{}': not a domain name", o.realm));
    }
    c.server_name = o.server_name.empty() ? "sip:scscf." + o.realm : o.server_name;
    c.service_route = o.service_route;
    if (c.service_route.empty())
        c.service_route = {fmt::format("sip:orig@{};lr", listen.front().to_string())};
    for (const auto& uri : c.service_route) {
        if (!canonical_impu(uri)) {
            return fail(
                ErrorKind::invalid,
                fmt::format("--service-route '{}': not a SIP URI: write sip:orig@10.30.0.2:5060;lr",
                            uri));
        }
    }
    if (!canonical_impu(c.server_name)) {
        return fail(ErrorKind::invalid,
                    fmt::format("--server-name '{}': not a SIP URI: write sip:scscf.domain",
                                c.server_name));
    }
    if (o.min_expires > o.max_expires) {
        return fail(ErrorKind::invalid, fmt::format("--min-expires {} is above --max-expires {}",
                                                    o.min_expires, o.max_expires));
    }
    c.charging_function = o.charging_function;
    c.qop = o.qop == "none"   ? std::string{}
            : o.qop == "both" ? std::string("auth,auth-int")
                              : o.qop;
    c.max_expires = std::chrono::seconds(o.max_expires);
    c.default_expires = c.max_expires;
    c.min_expires = std::chrono::seconds(o.min_expires);
    c.reg_await_auth = std::chrono::seconds(o.reg_await_auth);
    c.rechallenge = o.rechallenge_percent / 100;
    c.allow_unprotected = o.allow_unprotected;
    return c;
}

// Whole or not at all: a script never reads half a file.
void write_stats(const std::string& path, const nlohmann::json& stats) {
    const auto temporary = path + ".new";
    std::ofstream file(temporary);
    file << stats.dump(2) << '\n';
    file.close();
    if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
        log::error("home", "cannot write {}: {}", path, std::strerror(errno));
    }
}

int serve(const Options& o) {
    // The HSS keeps keys in wiped memory, but what yaml-cpp read of a file is not ours: no core
    // dumps at all (S1).
    if (!limit_core_dumps() || !forbid_dumps() || !keep_openssl_in_secret_memory())
        return complain(
            "core dumps cannot be switched off, and the subscribers' keys are not to "
            "get into one");

    log::Level level{};
    if (!log::parse_level(o.log_level, level)) {
        return complain(
            fmt::format("--log-level '{}': write debug, info, warn, error or off", o.log_level));
    }
    log::configure(level, true);

    const auto listen = listen_endpoints(o.listen);
    if (!listen) return complain(listen.error().text);
    auto config = registrar_config(o, *listen);
    if (!config) return complain(config.error().text);

    SystemClock clock;
    SystemRandom random;
    EventLoop loop(clock);
    LocalHss hss(random);
    if (auto done = fill_hss(hss, o); !done) return complain(done.error().text);
    wipe_stack();
    CxLog cx(hss, o.trace_cx ? log::Level::info : log::Level::debug);
    if (o.trace_cx) {
        cx.remember();
        cx.look_with([&hss](std::string_view impi) {
            const auto held = hss.view(impi);
            if (!held) return std::string("unknown");
            return std::string(LocalHss::name(held->flag)) +
                   (held->server_name.empty() ? ", no S-CSCF name"
                                              : ", S-CSCF " + held->server_name);
        });
    }
    Registrar registrar(std::move(*config), cx, loop.timers(), random);
    ServerConfig server_config;
    server_config.listen = *listen;
    server_config.services = o.services;
    server_config.reauthentication.wait = std::chrono::seconds(o.reauth_wait);
    server_config.schedule.every = std::chrono::seconds(o.reauth_every);
    Server server(std::move(server_config), registrar, loop.timers(), random);

    metrics::Registry registry;
    sip::SocketTransportOptions options;
    options.max_connections_per_source = options.max_connections;  // one gateway is one source
    sip::SocketTransport transport(loop, server, options, registry, "home");
    server.attach(transport);
    for (const auto& endpoint : *listen) {
        if (auto done = transport.add_udp(endpoint); !done) return complain(done.error().text);
        if (auto done = transport.add_tcp_listener(endpoint); !done)
            return complain(done.error().text);
    }

    Commands::Reload reload;
    if (!o.subscribers.empty())
        reload = [&] {
            auto done = reload_hss(hss, o, server.from_hss());
            wipe_stack();
            return done;
        };
    Commands commands(server, registrar, cx, reload);
    std::unique_ptr<ControlSocket> control;
    if (!o.control.empty()) {
        auto opened =
            ControlSocket::open(loop, o.control, [&](std::string_view line, CommandReply reply) {
                commands.execute(line, std::move(reply));
            });
        if (!opened) return complain(opened.error().text);
        control = std::move(*opened);
    }

    const auto report = [&] {
        const auto stats = stats_json(registrar, cx.counters(), server);
        fmt::print("{}", stats_text(stats));
        std::fflush(stdout);
        if (!o.stats_file.empty()) write_stats(o.stats_file, stats);
    };
    ::signal(SIGPIPE, SIG_IGN);
    for (const int signal : {SIGINT, SIGTERM}) loop.on_signal(signal, [&] { loop.stop(); });
    loop.on_signal(SIGUSR1, report);
    loop.on_signal(SIGHUP, [&] {
        if (!reload) return log::warn("home", "SIGHUP: there is no subscriber file to read");
        if (const auto done = reload(); done) {
            log::info("home", "{}: {}", o.subscribers, *done);
        } else {
            log::error("home", "the subscribers stay as they are: {}", done.error().text);
        }
    });
    for (const auto& endpoint : *listen) {
        log::info("home", "listening on {} UDP and TCP, realm {}, {} subscribers",
                  endpoint.to_string(), o.realm, hss.subscribers());
    }
    loop.run();
    report();
    return 0;
}

int control_client(const Options& o) {
    std::string line;
    for (const auto& word : o.ctl_words) line += (line.empty() ? "" : " ") + word;
    if (!o.ctl_reason.empty()) line += " --reason " + o.ctl_reason;
    const auto answer = control_command(o.ctl_socket, line);
    if (!answer) return complain(answer.error().text);
    fmt::print("{}", *answer);
    return answer->starts_with("ok") || answer->starts_with("2") || answer->starts_with("{") ? 0
                                                                                             : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Options o;
    CLI::App app{description, "gmhome"};
    app.footer(examples);
    app.set_version_flag("--version", std::string("gmhome ") + GMGATE_VERSION);
    app.get_formatter()->column_width(34);

    app.add_option("--listen", o.listen,
                   "address and port, UDP and TCP; may be given again, e.g. for IPv6")
        ->type_name("ADDRESS[:PORT]");
    app.add_option("--realm", o.realm, "home domain and Digest realm")
        ->type_name("DOMAIN")
        ->capture_default_str();
    const auto who = "Subscribers";
    app.add_option("--subscribers", o.subscribers, "YAML or CSV file")
        ->type_name("FILE")
        ->group(who);
    app.add_option("--generate", o.generate,
                   "subscribers by rule; first IMSI 001010000000001 if not given")
        ->type_name("COUNT[:IMSI]")
        ->group(who);
    app.add_option("--seed", o.seed, "what generated keys are derived from (or GMHOME_SEED)")
        ->type_name("HEX")
        ->envname("GMHOME_SEED")
        ->group(who);
    const auto how = "Registration";
    app.add_option("--service-route", o.service_route, "of the 200; default sip:orig@<listen>;lr")
        ->type_name("URI")
        ->group(how);
    app.add_option("--server-name", o.server_name,
                   "S-CSCF name in the HSS; default sip:scscf.<realm>")
        ->type_name("URI")
        ->group(how);
    app.add_option("--max-expires", o.max_expires,
                   "longest registration granted, seconds; also the default")
        ->check(CLI::Range(1U, 31'536'000U))
        ->capture_default_str()
        ->group(how);
    app.add_option("--min-expires", o.min_expires, "shorter ones get 423, seconds")
        ->check(CLI::Range(1U, 31'536'000U))
        ->capture_default_str()
        ->group(how);
    app.add_option("--reg-await-auth", o.reg_await_auth, "a challenge lives that long, seconds")
        ->check(CLI::Range(1U, 3600U))
        ->capture_default_str()
        ->group(how);
    app.add_option("--reauth-wait", o.reauth_wait,
                   "how long a phone told to re-authenticate is waited for after the NOTIFY, and "
                   "again after the REFER; then it is deregistered, seconds")
        ->check(CLI::Range(1U, 86'400U))
        ->capture_default_str()
        ->group(how);
    app.add_option("--reauth-every", o.reauth_every,
                   "re-authenticate each user that long after its last authentication, seconds; "
                   "0: never")
        ->check(CLI::Range(0U, 31'536'000U))
        ->capture_default_str()
        ->group(how);
    app.add_option("--rechallenge", o.rechallenge_percent,
                   "share of protected re-REGISTERs that are challenged, percent")
        ->check(CLI::Range(0.0, 100.0))
        ->capture_default_str()
        ->group(how);
    app.add_option("--qop", o.qop, "offered in the 401: auth, auth-int, both, or none")
        ->check(CLI::IsMember({"auth", "auth-int", "both", "auth,auth-int", "none"}))
        ->capture_default_str()
        ->group(how);
    app.add_option("--charging-function", o.charging_function,
                   "ccf of P-Charging-Function-Addresses")
        ->type_name("HOST")
        ->group(how);
    app.add_flag("--allow-unprotected", o.allow_unprotected,
                 "take answers without integrity-protected=\"yes\": a lab without a gateway")
        ->group(how);
    app.add_option("--service", o.services,
                   "user part that answers MESSAGE and OPTIONS itself; may be given again")
        ->type_name("NAME")
        ->capture_default_str();
    const auto seen = "What is seen";
    app.add_flag("--trace-cx", o.trace_cx,
                 "a line for each Cx operation (CM1 to CM4), also for 'ctl cx'")
        ->group(seen);
    app.add_option("--log-level", o.log_level, "debug, info, warn, error or off")
        ->capture_default_str()
        ->group(seen);
    app.add_option("--stats-file", o.stats_file, "counters as JSON, at the end and at SIGUSR1")
        ->type_name("FILE")
        ->group(seen);
    app.add_option("--control", o.control, "Unix socket for gmhome ctl")
        ->type_name("PATH")
        ->group(seen);

    auto* ctl =
        app.add_subcommand("ctl",
                           "talk to a running gmhome: message TO TEXT, options TO, "
                           "deregister TO, reauth TO..., rechallenge TO always|never, show TO, "
                           "reload, cx [IMPI], stats");
    ctl->add_option("--control", o.ctl_socket, "its control socket")->type_name("PATH")->required();
    ctl->add_option("--reason", o.ctl_reason,
                    "of deregister, what the phone hears: rejected (stay away), deactivated "
                    "(register anew), probation (register anew later)")
        ->type_name("WORD");
    ctl->add_option("command", o.ctl_words, "the command and its words")->required();

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
        return complain(std::string(e.what()) + " (see --help)");
    }
    try {
        if (ctl->parsed()) return control_client(o);
        if (o.listen.empty())
            return complain(
                "--listen is missing: give an address, e.g. --listen 10.30.0.2:5060 (see --help)");
        return serve(o);
    } catch (const std::exception& e) {
        return complain(e.what());
    }
}
