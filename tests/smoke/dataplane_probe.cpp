// The packet backend alone, driven by lines on stdin, for tests/smoke/dataplane.sh: no SIP, fixed
// SA sets.
//
//   install ID UE OURS ALG/EALG CK IK SPI_UC SPI_US SPI_PC SPI_PS PORT_UC PORT_US PORT_PC PORT_PS
//   remove ID…   owner UE OURS   stats ID   drops   metrics   events   health   quit
// Each answers with one line of JSON.
#include <poll.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/bytes.h"
#include "base/log.h"
#include "dataplane/dpdk/dpdk_backend.h"

namespace {

using namespace gmgate;
using nlohmann::json;

json error(std::string_view text) {
    return {{"error", text}};
}

json install(dataplane::DpdkBackend& backend, std::istringstream& in) {
    sa::SetParams p;
    std::string ue, ours, suite, ck, ik;
    in >> p.id >> ue >> ours >> suite >> ck >> ik >> p.numbers.spi_uc >> p.numbers.spi_us >>
        p.numbers.spi_pc >> p.numbers.spi_ps >> p.numbers.port_uc >> p.numbers.port_us >>
        p.numbers.port_pc >> p.numbers.port_ps;
    const auto ue_address = IpAddress::parse(ue);
    const auto our_address = IpAddress::parse(ours);
    const auto parsed = sa::parse_suite(suite);
    sa::AkaKey ck_key;
    sa::AkaKey ik_key;
    if (!in || !ue_address || !our_address || !parsed || !from_hex(ck, ck_key.writable()) ||
        !from_hex(ik, ik_key.writable())) {
        return error("bad install line");
    }
    p.ue = *ue_address;
    p.ours = *our_address;
    p.suite = *parsed;
    p.ck = &ck_key;
    p.ik = &ik_key;
    if (const auto done = backend.install(p); !done) return error(done.error().text);
    return {{"ok", true}, {"installed", backend.installed()}};
}

json stats(const dataplane::DpdkBackend& backend, sa::SetId id) {
    sa::SetStats s;
    backend.stats(std::span(&id, 1), std::span(&s, 1));
    return {{"in_packets", s.in_packets},
            {"in_bytes", s.in_bytes},
            {"out_packets", s.out_packets},
            {"out_bytes", s.out_bytes},
            {"integrity_failures", s.integrity_failures},
            {"replays", s.replays},
            {"highest_out_sequence", s.highest_out_sequence}};
}

json answer(dataplane::DpdkBackend& backend, const metrics::Registry& registry,
            const std::string& line, bool& quit) {
    std::istringstream in(line);
    std::string command;
    in >> command;
    if (command == "install") return install(backend, in);
    if (command == "remove") {
        std::vector<sa::SetId> ids;
        for (sa::SetId id = 0; in >> id;) ids.push_back(id);
        backend.remove(ids);
        return {{"ok", true}, {"installed", backend.installed()}};
    }
    if (command == "owner") {
        std::string ue, ours;
        in >> ue >> ours;
        const auto a = IpAddress::parse(ue);
        const auto b = IpAddress::parse(ours);
        if (!a || !b) return error("bad address");
        return {{"owner", backend.owner_of(*a, *b)}};
    }
    if (command == "stats") {
        sa::SetId id = 0;
        in >> id;
        return stats(backend, id);
    }
    if (command == "drops") {
        json all = json::object();
        for (const auto& d : backend.drops()) all[std::string(d.name)] = d.total;
        return all;
    }
    if (command == "metrics") {
        json all = json::object();
        for (const auto& s : registry.collect()) {
            std::string name = s.name;
            for (const auto& [key, value] : s.labels) name += "," + key + "=" + value;
            all[name] = s.value;
        }
        return all;
    }
    if (command == "events") {
        json all = json::array();
        pollfd p{backend.event_fd(), POLLIN, 0};
        const bool readable = ::poll(&p, 1, 0) == 1;
        backend.drain_events([&](const sa::BackendEvent& e) {
            static constexpr const char* names[] = {"first_authentic_packet", "integrity_failure",
                                                    "sequence_near_end"};
            all.push_back(
                {{"kind", names[static_cast<unsigned>(e.kind)]}, {"set", e.set}, {"spi", e.spi}});
        });
        return {{"readable", readable}, {"events", all}};
    }
    if (command == "health") {
        const auto h = backend.health();
        return {{"ok", h.ok},
                {"gm_link_up", h.gm_link_up},
                {"gm_present", h.gm_present},
                {"tap_up", h.tap_up},
                {"text", h.text}};
    }
    if (command == "quit") {
        quit = true;
        return {{"ok", true}};
    }
    return error("unknown command");
}

std::optional<dataplane::DpdkOptions::Address> parse_address(const std::string& text) {
    const std::size_t slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    if (!address || slash == std::string::npos) return std::nullopt;
    return dataplane::DpdkOptions::Address{
        *address, static_cast<unsigned>(std::stoul(text.substr(slash + 1)))};
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("the packet backend alone");
    dataplane::DpdkOptions options;
    std::vector<std::string> addresses;
    options.port_ps = {6100, 6103};
    options.port_pc = {6200, 6231};
    options.max_sets = 4096;
    options.memory_mb = 256;
    bool poll_idle = false;
    std::string crypto = "auto";
    app.add_option("--gm", options.gm_interface)->required();
    app.add_option("--tap", options.tap_name)->required();
    app.add_option("--address", addresses)->required();
    app.add_option("--workers", options.workers);
    app.add_option("--mtu", options.mtu);
    app.add_option("--crypto", crypto);
    app.add_flag("--poll", poll_idle);
    CLI11_PARSE(app, argc, argv);
    log::configure(log::Level::info, false);
    for (const std::string& a : addresses) {
        const auto parsed = parse_address(a);
        if (!parsed) return std::cerr << "bad address " << a << '\n', 2;
        options.addresses.push_back(*parsed);
    }
    if (poll_idle) options.idle = dataplane::IdlePolicy::poll;
    if (crypto == "openssl") options.crypto = dataplane::CryptoChoice::openssl;
    if (crypto == "ipsec_mb") options.crypto = dataplane::CryptoChoice::ipsec_mb;

    SystemClock clock;
    auto backend = dataplane::DpdkBackend::create(options, clock);
    if (!backend) {
        std::cout << error(backend.error().text).dump() << std::endl;
        return 1;
    }
    metrics::Registry registry;
    (*backend)->register_metrics(registry);
    std::cout << json{{"ready", true}, {"crypto", (*backend)->crypto_engine()}}.dump() << std::endl;
    bool quit = false;
    for (std::string line; !quit && std::getline(std::cin, line);) {
        std::cout << answer(**backend, registry, line, quit).dump() << std::endl;
    }
}
