// gmgated: the gateway.

#include <sys/resource.h>

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "base/core_dumps.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "config/config.h"
#include "control/app/packet_layer.h"
#include "control/app/wiring.h"
#include "control/dns/cares_resolver.h"
#include "control/ops/api.h"
#include "control/ops/exporter.h"
#include "control/ops/registration_view.h"
#include "control/ops/sa_view.h"
#include "control/registration/gateway.h"
#include "control/sip/socket_transport.h"
#include "sa/database.h"

namespace gmgate::app {
namespace {

constexpr int exit_ok = 0;
constexpr int exit_failed = 1;
constexpr int exit_configuration = 2;

// Without it a gateway with many TCP phones stops at 1024 of them.
void raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

std::vector<ops::DropCount> all_drops(const PacketLayer& packets, const ops::GatewayView& view) {
    auto out = packets.drops();
    for (auto& d : view.drops()) out.push_back(std::move(d));
    return out;
}

std::vector<ops::HealthItem> health(PacketLayer& packets, const registration::Gateway& gateway,
                                    const sa::SaDatabase& database, TimePoint now) {
    auto out = packets.health();
    const std::size_t used = packets.backend().installed();
    const std::size_t capacity = packets.backend().capacity();
    const bool roomy = used * 10 < capacity * 9;
    out.push_back({"sa", roomy,
                   fmt::format("{} of {} SA sets in use{}", used, capacity,
                               roomy ? "" : "; raise " + packets.capacity_key())});
    out.push_back(ops::core_health(gateway.core_health(), now));
    for (const auto& hop : gateway.next_hops()) {
        out.push_back({"next_hop " + hop.hop.to_string(), hop.usable,
                       fmt::format("{}; {} requests failed", hop.state, hop.failures)});
    }
    out.push_back({"registrations", true,
                   fmt::format("{} registered, {} authenticating, {} users with SAs",
                               gateway.registered(), gateway.pending(), database.user_count())});
    return out;
}

int run(const config::Config& c, bool dumps) {
    if (!dumps && !limit_core_dumps()) {
        log::error("gmgated", "core dumps cannot be switched off; see --allow-core-dumps");
        return exit_failed;
    }
    raise_descriptor_limit();
    const SystemClock clock;
    SystemRandom random;
    metrics::Registry registry;
    EventLoop loop(clock);

    const auto stopped = [](const Error& error) {
        log::error("gmgated", "{}", error.text);
        return exit_failed;
    };

    // First of all: a signal during start-up waits until the loop runs, so that everything is put
    // back in order.
    const auto stop = [&] { loop.stop(); };
    loop.on_signal(SIGINT, stop);
    loop.on_signal(SIGTERM, stop);

    // Before anything is touched: a second copy must not disturb the first.
    auto lock = ops::OpsServer::lock(c.ops.socket);
    if (!lock) return stopped(lock.error());
    auto started = start_packet_layer(c, clock);
    if (!started) return stopped(started.error());
    PacketLayer& packets = **started;
    sa::Backend& backend = packets.backend();
    auto database = sa::SaDatabase::create(database_config(c), backend, loop.timers(), random);
    if (!database) return stopped(database.error());
    packets.ready();
    auto resolver = dns::CaresResolver::create(loop, c.core.dns_servers);
    if (!resolver) return stopped(resolver.error());
    registration::Gateway gateway(policy(c), **database, loop.timers(), random, registry);

    sip::SocketTransportOptions gm_options = gm_transport(c, packets.device());
    gm_options.in_use = [&gateway](const sip::Flow& flow) { return gateway.carries_call(flow); };
    sip::SocketTransport gm(loop, gateway.gm(), std::move(gm_options), registry, "gm");
    auto core_options = core_transport(c);
    core_options.accept = [&gateway](const IpAddress& a) { return gateway.trusts(a); };
    sip::SocketTransport core(loop, gateway.core(), core_options, registry, "core");
    if (auto r = open_gm(gm, c); !r) return stopped(r.error());
    if (auto r = open_core(core, c); !r) return stopped(r.error());
    gateway.attach(gm, core);
    gateway.resolve_with(**resolver);

    packets.register_metrics(registry);
    (*database)->register_metrics(registry);
    const ops::SaDatabaseView sa_view(**database, backend);
    const ops::GatewayView gateway_view(gateway, **database, clock);
    const ops::GatewayCalls calls_view(gateway);
    ops::Views views;
    views.sas = &sa_view;
    views.registrations = &gateway_view;
    views.calls = &calls_view;
    views.trace = &gateway_view;
    views.failures = &gateway_view;
    views.drops = [&] { return all_drops(packets, gateway_view); };
    views.health = [&] { return health(packets, gateway, **database, clock.now()); };
    views.deregister = [&](std::string_view impi) { return gateway.deregister(impi); };
    views.version = GMGATE_VERSION;
    views.backend = packets.name();
    ops::ServerOptions server_options;
    server_options.socket = c.ops.socket;
    server_options.group = c.ops.group;
    auto server = ops::OpsServer::listen(loop, registry, views, server_options, std::move(*lock));
    if (!server) return stopped(server.error());
    std::unique_ptr<ops::MetricsExporter> exporter;
    if (c.ops.metrics) {
        auto served = ops::MetricsExporter::serve(*c.ops.metrics, registry, GMGATE_VERSION);
        if (!served) return stopped(served.error());
        exporter = std::move(*served);
    }

    // What the workers saw: integrity failures, first authentic packets (C1, D7).
    if (const int fd = backend.event_fd(); fd >= 0) {
        loop.watch(fd, EventLoop::readable, [&](unsigned) { (*database)->poll_backend(); });
    }
    log::info("gmgated", "{} ready: {} on {}, {}, API {}", GMGATE_VERSION, c.gateway.name,
              c.gm.interface, packets.description(), c.ops.socket);
    // S1: from now on the process may hold keys.
    if (!dumps && !forbid_dumps()) {
        return stopped({ErrorKind::io, "core dumps cannot be forbidden; see --allow-core-dumps"});
    }
    loop.run();
    log::info("gmgated", "stopping: {} registered phones lose their SAs", gateway.registered());
    if (const int fd = backend.event_fd(); fd >= 0) loop.unwatch(fd);
    const bool owed = gateway.pending() > 0;
    gateway.shut_down();  // those under way are told to have failed,
    gm.flush();           // under SAs that go next
    if (owed) packets.let_out();
    (*database)->remove_all(sa::Event::shutdown);
    exporter.reset();  // reads the backend's counters
    return exit_ok;
}

int main_with(int argc, char** argv) {
    CLI::App cli{
        "gmgated: P-CSCF security gateway (3GPP TS 33.203). Stands between phones and an IMS core, "
        "sets up and enforces the\n"
        "IPsec security associations of Gm, and proxies the SIP inside them."};
    cli.footer(
        "Examples:\n"
        "  gmgated --config /etc/gmgate/gmgated.yaml --check-config   say what is wrong with it, "
        "start nothing\n"
        "  gmgated --config /etc/gmgate/gmgated.yaml                  run until SIGINT or SIGTERM\n"
        "  gmctl health                                               ask the running gateway\n\n"
        "Exit status: 0 ended as asked, 1 could not start or run, 2 the configuration is wrong.");
    std::string path = "/etc/gmgate/gmgated.yaml";
    bool check_only = false;
    std::string level;
    cli.add_option("-c,--config", path, "configuration file")->capture_default_str();
    cli.add_flag("--check-config", check_only,
                 "check the configuration and what this machine must give, then exit");
    cli.add_option("--log-level", level,
                   "debug, info, warn, error or off; overrides the file's log.level")
        ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
    bool dumps = false;
    cli.add_flag(
        "--allow-core-dumps", dumps,
        "for debugging: let the process be dumped and traced; a dump holds keys of phones");
    cli.set_version_flag("--version", GMGATE_VERSION);
    try {
        cli.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return cli.exit(e) == 0 ? exit_ok : exit_configuration;
    }

    const auto loaded = config::load(path);
    if (!loaded) {
        std::cerr << loaded.error().text << '\n';
        return exit_configuration;
    }
    const config::Config& c = *loaded;
    log::Level chosen = c.log.level;
    if (!level.empty()) log::parse_level(level, chosen);
    log::configure(chosen, c.log.time);

    const auto problems = config::check_environment(c);
    for (const auto& problem : problems) std::cerr << problem << '\n';
    if (!problems.empty()) return exit_failed;  // what is late may come: the service is tried again
    if (check_only) {
        std::cout << path << ": ok\n";
        return exit_ok;
    }
    return run(c, dumps);
}

}  // namespace
}  // namespace gmgate::app

int main(int argc, char** argv) {
    try {
        return gmgate::app::main_with(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gmgated: %s\n", e.what());
        return 1;
    }
}
