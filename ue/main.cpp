// gmue: phones for a P-CSCF to register. Options, set-up, the loop, the summary.

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/core_dumps.h"
#include "base/event_loop.h"
#include "base/secret_text.h"
#include "ue/bridge.h"
#include "ue/bridge_socket.h"
#include "ue/console.h"
#include "ue/kernel_esp.h"
#include "ue/key_log.h"
#include "ue/load.h"
#include "ue/report.h"
#include "ue/subscriber_file.h"

extern char** environ;

namespace {

using namespace gmgate;
using namespace gmgate::ue;

constexpr int exit_failed = 1;   // some phone did not see what it should
constexpr int exit_usage = 2;    // options, permissions, addresses
constexpr int exit_call = 3;     // all registered, but a call failed
constexpr int exit_message = 4;  // ... but a message between phones failed

struct Options {
    std::string reg_profile = "rfc3680";
    std::string pcscf, pcscf6, realm, seed, subscribers, imsi, net4, net6;
    std::string suites = "all", offer = "auto", style = "auto", esp = "own", json, keylog;
    std::string bridge, bridge_app;
    double call = -1, call_time = 10, traffic_time = 10, answer_after = 0;
    int refuse_calls = 0;
    bool precondition = false, no_100rel = false, subscribe = false;
    bool nat = false;
    std::vector<std::string> misbehave;
    LoadOptions load;
    double reregister = 0, hold = 0, silence = 4, timeout = 32, message_interval = 0.1;
    unsigned messages = 2;
    std::uint32_t expires = 600000;
    std::uint16_t clear_port = 5060;
    std::size_t mtu = 0;
    bool only_register = false, show_messages = false, verbose = false, quiet = false,
         setup_net = false, strict = false, console = false;
};

int usage_error(const std::string& text) {
    fmt::print(stderr, "gmue: {}\n", text);
    return exit_usage;
}

constexpr const char* footer = R"(
Examples
  one phone, every step shown (addresses of 10.20.0.0/16 local to this host: ip route add local 10.20.0.0/16 dev lo):
    gmue --pcscf 10.21.0.1 --ue-net 10.20.0.0/16 --realm ims.example --seed 00112233445566778899aabbccddeeff
  two thousand phones, IPv4 and IPv6, UDP and TCP, every ESP suite, 300 a second:
    gmue --pcscf 10.21.0.1 --pcscf6 fd00:21::1 --ue-net 10.20.0.0/16 --ue-net6 fd00:20::/64 --ipv6-share 0.5
         --tcp-share 0.5 --phones 2000 --rate 300 --realm ims.example --seed 00112233445566778899aabbccddeeff --json -
  a phone with a wrong key; succeeds if nobody answers its SM7:
    gmue … --misbehave wrong-ik

Ctrl-C: phones that hold de-register (unless --stay). While they register, or a second time: ends at once, and the
  gateway keeps their SAs until they expire.

  two phones, one call with hold and resumption:
    gmue … --phones 2 --only-register --call 3 --call-hold
  fifty calls a second of two seconds each and 200 messages a second between 500 pairs, for half a minute:
    gmue … --phones 1000 --only-register --calls-per-second 50 --call-time 2 --messages-per-second 200 --traffic-time 30
  sipp as the application in a phone:
    gmue … --bridge 127.0.0.1:5080 &  sipp 127.0.0.1:5080 -i 127.0.0.1 -p 5070 -s 001010000000002 -sn uac -m 1

Exit code: 0 all phones saw what they should; 1 some did not; 2 wrong options, permissions or addresses; 3 a call failed;
  4 a message between phones failed. With --console: 1 a line was not understood or could not be carried out, 3 and 4 as above, 5 a
  subscription failed.)";

void describe(CLI::App& app, Options& o) {
    app.description(
        "gmue: IMS phones for a P-CSCF. Registers one phone and shows each step, or many as a load "
        "generator.\n"
        "IMS AKA, security agreement and ESP are its own, independent of the gateway's.");
    app.footer([] {
        return "\nMisbehaviours (--misbehave KIND:3 = three phones, KIND:1% = a share): name, "
               "rule, what a right "
               "gateway does\n" +
               misbehaviour_list() + "\nConsole (--console), a line each\n" +
               std::string(console_help()) + footer;
    });
    app.set_version_flag("--version", GMGATE_VERSION);
    app.add_option("--pcscf", o.pcscf, "the P-CSCF's IPv4 address, with :port if not 5060")
        ->group("Network");
    app.add_option("--pcscf6", o.pcscf6, "its IPv6 address, with [address]:port if not 5060")
        ->group("Network");
    app.add_option("--ue-net", o.net4,
                   "IPv4 network (or the one address) of the phones; phone n is host n")
        ->group("Network");
    app.add_option("--ue-net6", o.net6, "IPv6 network (or the one address) of the phones")
        ->group("Network");
    app.add_flag("--setup-net", o.setup_net,
                 "make these networks local to this host (ip route), undo it at the end")
        ->group("Network");
    app.add_option("--clear-port", o.clear_port, "UDP port of the phones for SM1 and SM6")
        ->group("Network")
        ->capture_default_str();
    app.add_option("--mtu", o.mtu, "largest IP packet to send; default: that of the route")
        ->group("Network")
        ->check(CLI::Range(1280, 65535));

    app.add_option("--esp", o.esp,
                   "own: gmue's ESP (and TCP in it); kernel: Linux's, by XFRM states and policies, "
                   "with ordinary sockets; needs CAP_NET_ADMIN")
        ->group("Network")
        ->capture_default_str()
        ->check(CLI::IsMember({"own", "kernel"}));
    app.add_flag("--nat", o.nat,
                 "the phones may be behind a NAT (IPv4): they offer mod=UDP-enc-tun as well, and "
                 "keep the NAT's mapping alive")
        ->group("Network");
    app.add_flag_callback(
           "--remove-leavings",
           [] {
               const auto removed = KernelEsp::remove_leavings();
               if (!removed) throw CLI::ValidationError(removed.error().text);
               fmt::print("{} states and policies removed\n", *removed);
               throw CLI::Success();
           },
           "remove from the kernel what a killed 'gmue --esp kernel' left there, and nothing else; "
           "the next one does the same")
        ->group("Network");

    app.add_option("--realm", o.realm,
                   "home network domain: IMPI is <imsi>@<realm>, IMPU sip:<imsi>@<realm>")
        ->group("Subscribers")
        ->required();
    app.add_option("--seed", o.seed,
                   "hex; K and OPc are generated from it and the IMSI, as gmhome --generate does")
        ->group("Subscribers");
    app.add_option("--subscribers", o.subscribers,
                   "CSV file with columns imsi, k, opc or op (instead of --seed)")
        ->group("Subscribers");
    app.add_option("--imsi", o.imsi,
                   "IMSI of phone 1; the others count up from it (default 001010000000001)")
        ->group("Subscribers");

    app.add_option("--phones", o.load.phones, "how many")
        ->group("Load")
        ->capture_default_str()
        ->check(CLI::Range(1, 2000000));
    app.add_option("--first-phone", o.load.first_phone,
                   "number of the first one: shifts IMSI and address")
        ->group("Load")
        ->capture_default_str()
        ->check(CLI::Range(1, 100000000));
    app.add_option("--rate", o.load.rate,
                   "registrations started per second; 0: as fast as --in-flight allows")
        ->group("Load")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--in-flight", o.load.max_in_flight, "phones between SM1 and SM12 at most")
        ->group("Load")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000000));
    app.add_option("--ipv6-share", o.load.ipv6_share, "share of phones over IPv6, 0 to 1")
        ->group("Load")
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--tcp-share", o.load.tcp_share, "share of phones over TCP, 0 to 1")
        ->group("Load")
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--suites", o.suites, "all, or a list: hmac-sha-1-96/aes-cbc,null/aes-gcm,…")
        ->group("Load")
        ->capture_default_str();
    app.add_option("--offer", o.offer,
                   "all: each phone offers all these suites; one: each offers one of them in turn; "
                   "auto: one if --phones > 1")
        ->group("Load")
        ->check(CLI::IsMember({"auto", "all", "one"}));
    app.add_option("--style", o.style,
                   "handwriting of the phones' headers: plain samsung qualcomm mediatek google, "
                   "mix; auto: mix if --phones > 1")
        ->group("Load");

    app.add_flag("--only-register", o.only_register,
                 "no messages and no re-registration: --messages 0 and no --reregister")
        ->group("After registration");
    app.add_option("--messages", o.messages,
                   "requests each phone then sends, MESSAGE and OPTIONS in turn")
        ->group("After registration")
        ->capture_default_str()
        ->check(CLI::Range(0, 255));
    app.add_option("--message-share", o.load.message_share, "share of phones that send them")
        ->group("After registration")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--message-interval", o.message_interval, "seconds between a phone's requests")
        ->group("After registration")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--reregister", o.reregister,
                   "seconds between re-registrations of each phone, while it holds")
        ->group("After registration")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--hold", o.hold, "seconds to stay registered; -1: until Ctrl-C")
        ->group("After registration")
        ->capture_default_str();
    app.add_flag("--stay", o.load.stay, "end without de-registering")->group("After registration");
    app.add_option("--expires", o.expires, "seconds asked for in REGISTER")
        ->group("After registration")
        ->capture_default_str();

    app.add_option("--misbehave", o.misbehave,
                   "KIND[:phones|:share%], may be given several times; kinds below")
        ->group("Misbehaviour");
    app.add_option("--silence", o.silence,
                   "seconds a misbehaving phone waits before it calls it \"no answer\"")
        ->group("Misbehaviour")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--timeout", o.timeout, "seconds a phone waits for a final answer")
        ->group("Misbehaviour")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);

    app.add_flag_callback(
           "--list-misbehaviours",
           [] {
               fmt::print("{}", misbehaviour_list());
               throw CLI::Success();
           },
           "name, rule, and what a right gateway does; nothing else")
        ->group("Misbehaviour");
    app.add_flag("--console", o.console,
                 "one phone, driven by lines on standard input; answers are JSON, a line each")
        ->group("Misbehaviour");
    app.add_option("--call", o.call,
                   "one call: phone 1 calls phone 2 when both are registered, talks so many "
                   "seconds and hangs up; the summary says how long it rang and took to set up. "
                   "Makes it --phones 2. Signalling only: gmue sends no RTP")
        ->group("Calls and messages")
        ->check(CLI::Range(0.0, 86400.0));
    app.add_option("--calls-per-second", o.load.traffic.calls_per_second,
                   "phone 1 calls phone 2, phone 3 phone 4, … while all hold their registration; "
                   "a pair has one call at a time")
        ->group("Calls and messages")
        ->check(CLI::Range(0.0, 100000.0));
    app.add_option("--call-time", o.call_time, "seconds from answer to BYE")
        ->group("Calls and messages")
        ->capture_default_str()
        ->check(CLI::Range(0.001, 86400.0));
    app.add_flag("--call-hold", o.load.traffic.hold, "each call is held and resumed once")
        ->group("Calls and messages");
    app.add_option("--messages-per-second", o.load.traffic.messages_per_second,
                   "MESSAGEs between the same pairs, both ways")
        ->group("Calls and messages")
        ->check(CLI::Range(0.0, 100000.0));
    app.add_option("--traffic-time", o.traffic_time,
                   "seconds during which calls and messages are begun; --reregister goes on "
                   "meanwhile")
        ->group("Calls and messages")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--answer-after", o.answer_after, "seconds a called phone rings (180, then 200)")
        ->group("Calls and messages")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 3600.0));
    app.add_option("--refuse-calls", o.refuse_calls,
                   "status for calls that come (486, 480, 603, …) instead of an answer")
        ->group("Calls and messages")
        ->check(CLI::Range(400, 699));
    app.add_flag("--precondition", o.precondition,
                 "calls reserve resources first (RFC 3312): 183, PRACK, UPDATE, then 180")
        ->group("Calls and messages");
    app.add_flag("--no-100rel", o.no_100rel, "no reliable provisional answers: no PRACK")
        ->group("Calls and messages");
    app.add_flag("--subscribe", o.subscribe,
                 "each phone subscribes to its own registration state (RFC 3680) and obeys: "
                 "registers anew when asked to, stops when the network ends its registration; "
                 "off by default")
        ->group("After registration");
    app.add_option("--reg-profile", o.reg_profile,
                   "form of the registration state a phone subscribes to: rfc3680 (Event: reg), or "
                   "seed (Event: registration-state, as the proposal for network-initiated "
                   "re-authentication has it)")
        ->group("After registration")
        ->check(CLI::IsMember({"rfc3680", "seed"}))
        ->capture_default_str();
    app.add_option("--bridge", o.bridge,
                   "ADDR:PORT of this host: a program (sipp, a softphone) that sends plain SIP "
                   "over UDP there is the application in phone 1, and what it says goes through "
                   "the phone's SAs; phone 2 has the next port, and so on. Holds until Ctrl-C "
                   "unless --hold says otherwise; 'bridge ready' is printed when a phone is "
                   "registered")
        ->group("Bridge");
    app.add_option("--bridge-app", o.bridge_app,
                   "ADDR:PORT where the program takes requests (that of phone 2 is at the next "
                   "port); default: where it last sent from")
        ->group("Bridge");
    app.add_flag("--verbose", o.verbose, "show each step also of several phones")->group("Output");
    app.add_flag("--quiet", o.quiet, "no steps, no progress, no summary")->group("Output");
    app.add_flag("--show-messages", o.show_messages, "show the SIP as well")->group("Output");
    app.add_option("--json", o.json, "write the summary as JSON to this file; - : standard output")
        ->group("Output");
    app.add_option(
           "--keylog", o.keylog,
           "append the keys of all SAs to this file, as Wireshark's esp_sa table (mode 0600)")
        ->group("Output");
    app.add_flag("--strict", o.strict,
                 "also fail if the gateway broke a rule that did not stop a phone")
        ->group("Output");
}

Result<std::vector<sa::Suite>> parse_suites(const std::string& text) {
    if (text == "all") return std::vector<sa::Suite>(sa::all_suites.begin(), sa::all_suites.end());
    std::vector<sa::Suite> out;
    std::string_view rest = text;
    for (;;) {
        const auto comma = rest.find(',');
        const auto s = sa::parse_suite(trim(rest.substr(0, comma)));
        if (!s) {
            std::string all;
            for (const auto a : sa::all_suites) all += (all.empty() ? "" : ", ") + sa::to_string(a);
            return fail(ErrorKind::invalid, fmt::format("--suites: '{}' is none of {}",
                                                        trim(rest.substr(0, comma)), all));
        }
        out.push_back(*s);
        if (comma == std::string_view::npos) return out;
        rest.remove_prefix(comma + 1);
    }
}

Result<std::vector<Style>> parse_styles(const std::string& text, bool several) {
    if (text == "mix" || (text == "auto" && several))
        return std::vector<Style>(all_styles.begin(), all_styles.end());
    if (text == "auto") return std::vector<Style>{Style::plain};
    const auto s = parse_style(text);
    if (!s)
        return fail(
            ErrorKind::invalid,
            fmt::format("--style: '{}' is none of plain, samsung, qualcomm, mediatek, google, mix",
                        text));
    return std::vector<Style>{*s};
}

Duration seconds(double s) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

int run_command(const std::vector<std::string>& command) {
    std::vector<char*> argv;
    for (const auto& a : command) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_t pid = 0;
    int status = -1;
    if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Makes networks local for the life of this object.
class LocalRoutes {
  public:
    ~LocalRoutes() {
        for (const auto& n : added_) run_command({"ip", "route", "del", "local", n, "dev", "lo"});
    }
    Result<void> add(const AddressPlan& net) {
        if (is_local(net.host(1))) return {};
        if (run_command({"ip", "route", "add", "local", net.to_string(), "dev", "lo"}) != 0) {
            return fail(
                ErrorKind::denied,
                fmt::format(
                    "--setup-net: 'ip route add local {} dev lo' failed; it needs CAP_NET_ADMIN",
                    net.to_string()));
        }
        added_.push_back(net.to_string());
        return {};
    }

  private:
    std::vector<std::string> added_;
};

// Redraws one line on a terminal; elsewhere a line every few seconds.
class Progress {
  public:
    Progress(TimerWheel& timers, const Load& load, std::FILE* out)
        : timers_(timers), load_(load), out_(out), tty_(isatty(fileno(out)) != 0) {
        timer_.bind<&Progress::on_timer>(this);
        timers_.start(timer_, period());
    }
    ~Progress() {
        timer_.stop();
        if (tty_) fmt::print(out_, "\r\x1b[K");
        std::fflush(out_);
    }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

  private:
    [[nodiscard]] Duration period() const {
        return tty_ ? Duration(std::chrono::milliseconds(100)) : Duration(std::chrono::seconds(5));
    }
    void on_timer() {
        winsize w{};
        const std::size_t width = tty_ && ioctl(fileno(out_), TIOCGWINSZ, &w) == 0 && w.ws_col > 20
                                      ? w.ws_col - 1U
                                      : 100U;
        const std::string line = progress_line(load_, width);
        if (tty_) {
            fmt::print(out_, "\r\x1b[K{}", line);
        } else {
            fmt::print(out_, "{}\n", line);
        }
        std::fflush(out_);
        timers_.start(timer_, period());
    }

    TimerWheel& timers_;
    const Load& load_;
    std::FILE* out_;
    bool tty_;
    Timer timer_;
};

// Standard input to the console, until either ends.
int run_console(EventLoop& loop, SocketNetwork& network, Console& console) {
    struct stat input{};
    const bool pollable =
        fstat(STDIN_FILENO, &input) == 0 &&
        (S_ISFIFO(input.st_mode) || S_ISSOCK(input.st_mode) || isatty(STDIN_FILENO));
    const auto read_some = [&] {
        std::array<char, 4096> text{};
        const ssize_t n = ::read(STDIN_FILENO, text.data(), text.size());
        if (n > 0) {
            console.input({text.data(), static_cast<std::size_t>(n)});
            return true;
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
        if (pollable) loop.unwatch(STDIN_FILENO);
        console.end_of_input();
        return false;
    };
    for (const int s : {SIGINT, SIGTERM}) loop.on_signal(s, [&] { loop.stop(); });
    loop.on_idle([&] {
        console.collect();
        network.flush();
    });
    if (pollable) {
        loop.watch(STDIN_FILENO, EventLoop::readable, [&](unsigned) { read_some(); });
    } else {
        loop.post([&] {
            while (read_some()) {
            }
        });
    }
    loop.run();
    network.flush();
    return console.exit_code();
}

// A bridge for each phone, on ports that follow one another.
Result<void> make_bridges(EventLoop& loop, Load& load, const Endpoint& first,
                          const std::optional<Endpoint>& first_app, const std::string& realm,
                          std::FILE* people, Statistics& statistics,
                          std::vector<std::unique_ptr<BridgeSocket>>& sockets,
                          std::vector<std::unique_ptr<Bridge>>& bridges) {
    const std::size_t count = load.size();
    for (std::size_t i = 0; i < count; ++i) {
        Phone& phone = load.phone(i);
        Bridge::Options options;
        options.self = first;
        options.self.port = static_cast<std::uint16_t>(first.port + i);
        options.app = first_app;
        if (options.app) options.app->port = static_cast<std::uint16_t>(first_app->port + i);
        options.realm = realm;
        auto socket = BridgeSocket::open(
            loop, options.self, [&bridges, i](const Endpoint& from, std::string_view datagram) {
                bridges[i]->from_application(from, datagram);
            });
        if (!socket) return std::unexpected(socket.error());
        sockets.push_back(std::move(*socket));
        const std::string ready = fmt::format("bridge ready: {} is {}", options.self.to_string(),
                                              phone.identity().impu());
        bridges.push_back(std::make_unique<Bridge>(
            loop.timers(), phone.host(), statistics.bridge, std::move(options),
            [to = sockets.back().get()](const Endpoint& where, std::string_view datagram) {
                to->send(where, datagram);
            },
            [people, ready] {
                fmt::print(people, "{}\n", ready);
                std::fflush(people);
            }));
        phone.set_application(bridges.back().get());
    }
    return {};
}

int run(Options& o) {
    // Options to plan.
    LoadOptions& l = o.load;
    l.traffic.call_time = seconds(o.call_time);
    l.traffic.duration = seconds(o.traffic_time);
    if (o.call >= 0) {
        if (l.traffic.any())
            return usage_error("--call is one call: not with --calls-per-second and its like");
        l.phones = std::max(l.phones, 2U);
        l.traffic.calls = 1;
        l.traffic.calls_per_second = 1;
        l.traffic.call_time = seconds(std::max(o.call, 0.001));
        l.traffic.duration = seconds(3600);
    }
    if (l.traffic.any() && l.phones < 2)
        return usage_error("calls and messages between phones need --phones 2 or more");
    const bool several = l.phones > 1;
    std::optional<Endpoint> pcscf4, pcscf6;
    if (!o.pcscf.empty()) {
        pcscf4 = Endpoint::parse(o.pcscf, 5060);
        if (!pcscf4)
            return usage_error(fmt::format(
                "--pcscf: '{}' is not an address (host names are not resolved)", o.pcscf));
        if (pcscf4->address.is_v6()) std::swap(pcscf4, pcscf6);
    }
    if (!o.pcscf6.empty()) {
        pcscf6 = Endpoint::parse(o.pcscf6, 5060);
        if (!pcscf6 || !pcscf6->address.is_v6())
            return usage_error(fmt::format("--pcscf6: '{}' is not an IPv6 address", o.pcscf6));
    }
    if (!pcscf4 && !pcscf6)
        return usage_error("where is the P-CSCF? give --pcscf ADDRESS, or --pcscf6");
    for (auto [text, option] : {std::pair{&o.net4, "--ue-net"}, std::pair{&o.net6, "--ue-net6"}}) {
        if (text->empty()) continue;
        auto n = AddressPlan::parse(*text);
        if (!n) return usage_error(fmt::format("{}: {}", option, n.error().text));
        (n->is_v6() ? l.net6 : l.net4) = *n;
    }
    if (!l.net4 && !l.net6)
        return usage_error("which addresses are the phones'? give --ue-net NETWORK, or --ue-net6");
    if (!l.net4) l.ipv6_share = 1;
    if (l.ipv6_share > 0 && !pcscf6) return usage_error("phones over IPv6 need --pcscf6");
    if (l.ipv6_share < 1 && !pcscf4)
        return usage_error("phones over IPv4 need --pcscf (or give --ipv6-share 1)");

    auto suites = parse_suites(o.suites);
    if (!suites) return usage_error(suites.error().text);
    l.suites = *suites;
    l.one_suite_each = o.offer == "one" || (o.offer == "auto" && several);
    auto styles = parse_styles(o.style, several);
    if (!styles) return usage_error(styles.error().text);
    l.styles = *styles;
    for (const auto& text : o.misbehave) {
        auto m = parse_misbehaviour_share(text);
        if (!m) return usage_error(m.error().text);
        l.misbehave.push_back(*m);
    }
    const bool kernel_esp = o.esp == "kernel";
    if (kernel_esp && o.nat) return usage_error("--nat takes gmue's own ESP: leave --esp away");
    if (kernel_esp) {
        for (const auto& m : l.misbehave) {
            if (m.kind == Misbehaviour::replay || m.kind == Misbehaviour::forged_esp ||
                m.kind == Misbehaviour::unknown_spi || m.kind == Misbehaviour::near_sequence_end)
                return usage_error(fmt::format(
                    "--misbehave {}: the kernel sends no such packets; only with --esp own",
                    info(m.kind).name));
        }
    }
    std::optional<Endpoint> bridge, bridge_app;
    for (auto [text, option, to] : {std::tuple{&o.bridge, "--bridge", &bridge},
                                    std::tuple{&o.bridge_app, "--bridge-app", &bridge_app}}) {
        if (text->empty()) continue;
        *to = Endpoint::parse(*text, 0);
        if (!*to || (*to)->port == 0 || (*to)->port + l.phones > 65536)
            return usage_error(fmt::format("{}: '{}' is not ADDRESS:PORT", option, *text));
    }
    if (bridge_app && !bridge) return usage_error("--bridge-app is of use with --bridge only");
    if (bridge) {
        if (o.console) return usage_error("--console and --bridge do not go together");
        o.only_register = true;
        if (o.hold == 0) o.hold = -1;
    }
    l.hold = o.hold < 0 ? Duration(-1) : seconds(o.hold);
    l.reregister_once = !o.only_register;
    if (o.only_register) o.messages = 0;

    // Cards.
    std::optional<SubscriberFile> file;
    std::optional<Bytes> seed;
    if (o.seed.empty() == o.subscribers.empty()) {
        return usage_error("give the cards: --seed HEX (as gmhome has it), or --subscribers FILE");
    }
    if (!o.seed.empty()) {
        seed = from_hex(o.seed);
        if (!seed || seed->size() < 8)
            return usage_error("--seed: an even number of hex digits, at least 16");
        wipe(std::span(reinterpret_cast<std::uint8_t*>(o.seed.data()), o.seed.size()));
    } else {
        auto loaded = SubscriberFile::load(o.subscribers);
        if (!loaded) return usage_error(loaded.error().text);
        file = std::move(*loaded);
        if (o.imsi.empty()) o.imsi = file->first_imsi();
    }
    if (!o.imsi.empty()) {
        if (o.imsi.size() > 15 ||
            !std::ranges::all_of(o.imsi, [](char c) { return c >= '0' && c <= '9'; })) {
            return usage_error(fmt::format("--imsi: '{}' is not 1 to 15 digits", o.imsi));
        }
        l.first_imsi = std::stoull(o.imsi);
        l.imsi_digits = static_cast<std::uint8_t>(o.imsi.size());
    }
    if (file) {
        for (std::uint32_t i = 0; i < l.phones; ++i) {
            const std::string imsi =
                fmt::format("{:0{}}", l.first_imsi + l.first_phone - 1 + i, l.imsi_digits);
            if (file->find(imsi) == nullptr)
                return usage_error(fmt::format("{} has no IMSI {}", o.subscribers, imsi));
        }
    }

    // The host.
    LocalRoutes routes;
    for (const auto* net : {&l.net4, &l.net6}) {
        if (!*net || ((*net)->is_v6() ? l.ipv6_share <= 0 : l.ipv6_share >= 1)) continue;
        if (o.setup_net) {
            if (auto r = routes.add(**net); !r) return usage_error(r.error().text);
        }
        const IpAddress first = (*net)->host((*net)->single() ? 0 : l.first_phone);
        if (!is_local(first)) {
            return usage_error(
                fmt::format("{} is not an address of this host: add --setup-net, or 'ip route add "
                            "local {} dev lo'",
                            first.to_string(), (*net)->to_string()));
        }
    }
    std::size_t mtu = o.mtu;
    for (const auto* p : {&pcscf4, &pcscf6}) {
        if (!*p || ((*p)->address.is_v6() ? l.ipv6_share <= 0 : l.ipv6_share >= 1)) continue;
        const std::size_t m = route_mtu((*p)->address);
        if (m == 0)
            return usage_error(
                fmt::format("no route to the P-CSCF at {}", (*p)->address.to_string()));
        if (o.mtu == 0) mtu = mtu == 0 ? m : std::min(mtu, m);
    }
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }

    std::unique_ptr<FileKeyLog> keys;
    if (!o.keylog.empty()) {
        auto k = FileKeyLog::open(o.keylog);
        if (!k) return usage_error(k.error().text);
        keys = std::move(*k);
    }

    SystemClock clock;
    EventLoop loop(clock);
    SystemRandom random;
    EspCrypto crypto;
    Statistics statistics;

    // Sockets are opened before the phones exist; what arrives until then has nobody to go to.
    class Relay final : public NetworkReceiver {
      public:
        NetworkReceiver* to = nullptr;
        void on_udp(const Endpoint& from, const IpAddress& at, std::string_view payload) override {
            if (to != nullptr) to->on_udp(from, at, payload);
        }
        void on_esp(const IpAddress& from, const IpAddress& at,
                    std::span<const std::uint8_t> esp) override {
            if (to != nullptr) to->on_esp(from, at, esp);
        }
        void on_in_udp(const IpAddress& from, const IpAddress& at,
                       std::span<const std::uint8_t> payload) override {
            if (to != nullptr) to->on_in_udp(from, at, payload);
        }
    } relay;
    SocketNetwork::Options n;
    n.v4 = l.ipv6_share < 1;
    n.v6 = l.ipv6_share > 0;
    n.clear_port = o.clear_port;
    n.mtu = mtu;
    n.own_esp = !kernel_esp;
    n.nat = o.nat;
    auto network = SocketNetwork::open(loop, relay, n);
    if (!network) return usage_error(network.error().text);

    std::unique_ptr<KernelEsp> kernel;
    if (kernel_esp) {
        auto k = KernelEsp::open(loop);
        if (!k) return usage_error("--esp kernel: " + k.error().text);
        kernel = std::move(*k);
        for (const auto& [net, p] : {std::pair{&l.net4, &pcscf4}, std::pair{&l.net6, &pcscf6}}) {
            if (!*net || !*p || ((*net)->is_v6() ? l.ipv6_share <= 0 : l.ipv6_share >= 1)) continue;
            const IpAddress first = (*net)->host((*net)->single() ? 0 : l.first_phone);
            if (auto r = kernel->probe(first, (*p)->address, l.suites); !r)
                return usage_error("--esp kernel: " + r.error().text);
        }
    }

    const bool to_stdout = o.json == "-" || o.console;
    std::FILE* people = to_stdout ? stderr : stdout;
    std::optional<Narrator> narrator;
    if (!o.quiet && (!several || o.verbose || o.show_messages)) {
        narrator.emplace(people, isatty(fileno(people)) != 0, o.show_messages, several);
    }

    PhoneContext context{.timers = loop.timers(),
                         .random = random,
                         .network = **network,
                         .crypto = crypto,
                         .statistics = statistics};
    context.observer = narrator ? &*narrator : nullptr;
    context.key_log = keys.get();
    context.host_esp = kernel.get();
    context.nat = o.nat;
    context.card = [&](std::string_view imsi) {
        if (seed) return keys_by_rule(*seed, imsi);
        return file->find(imsi)->copy();
    };
    context.realm = o.realm;
    if (pcscf4) context.pcscf4 = *pcscf4;
    if (pcscf6) context.pcscf6 = *pcscf6;
    context.clear_port = o.clear_port;
    context.expires = o.expires;
    context.mtu = mtu;
    context.reregister = seconds(o.reregister);
    context.messages = o.messages;
    context.message_interval = seconds(o.message_interval);
    context.subscribe = o.subscribe;
    if (o.reg_profile == "seed") context.reg_profile = sip::RegProfile::seed;
    context.calls.answer_after = seconds(o.answer_after);
    context.calls.refuse = o.refuse_calls;
    context.calls.precondition = o.precondition;
    context.calls.reliable = !o.no_100rel;
    context.times.silence = seconds(o.silence);
    context.times.transaction = seconds(o.timeout);

    if (o.console) {
        auto console = Console::make(context, l, stdout, [&] { loop.stop(); });
        if (!console) return usage_error(console.error().text);
        relay.to = console->get();
        return run_console(loop, **network, **console);
    }
    // Outlive the phones.
    std::vector<std::unique_ptr<BridgeSocket>> bridge_sockets;
    std::vector<std::unique_ptr<Bridge>> bridges;
    auto load = Load::make(context, l);
    if (!load) return usage_error(load.error().text);
    if (bridge) {
        auto made = make_bridges(loop, **load, *bridge, bridge_app, o.realm, people, statistics,
                                 bridge_sockets, bridges);
        if (!made) return usage_error(made.error().text);
    }
    relay.to = load->get();
    loop.on_idle([&] {
        (*load)->collect();
        (*network)->flush();
    });
    for (const int s : {SIGINT, SIGTERM}) loop.on_signal(s, [&] { (*load)->interrupt(); });

    const TimePoint begin = clock.now();
    {
        std::optional<Progress> progress;
        if (!o.quiet && !narrator) progress.emplace(loop.timers(), **load, people);
        // The last packets (an answer, a FIN) leave with the flush before the loop looks whether to
        // stop.
        (*load)->start([&] { loop.stop(); });
        loop.run();
    }
    (*network)->flush();
    const double took = std::chrono::duration<double>(clock.now() - begin).count();
    relay.to = nullptr;

    if (!o.quiet) {
        fmt::print(people, "{}", text_summary(**load, took, (*network)->send_errors()));
        if ((*network)->send_errors() > 0)
            fmt::print(people, "  first: {}\n", (*network)->first_send_error());
        std::fflush(people);
    }
    if (!o.json.empty()) {
        const std::string j = json_summary(**load, took, (*network)->send_errors());
        if (to_stdout) {
            fmt::print("{}", j);
        } else {
            std::ofstream out(o.json, std::ios::binary | std::ios::trunc);
            out << j;
            if (!out.flush())
                return usage_error(fmt::format("--json {}: cannot be written", o.json));
        }
    }
    const bool good = (*load)->good() && (!o.strict || statistics.violations.total() == 0);
    if (!good) return exit_failed;
    if (l.traffic.any() && statistics.calls.failures.total() > 0) return exit_call;
    if (o.call >= 0 && !(*load)->traffic().last_call().completed) return exit_call;
    if (l.traffic.any() && statistics.calls.message_failures.total() > 0) return exit_message;
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app;
    Options o;
    describe(app, o);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& e) {
        return app.exit(e);
    } catch (const CLI::CallForVersion& e) {
        return app.exit(e);
    } catch (const CLI::Success&) {
        return 0;
    } catch (const CLI::ParseError& e) {
        fmt::print(stderr, "gmue: {} (try --help)\n", e.what());
        return exit_usage;
    }
    // It holds keys of cards and of SAs (S1).
    if (!limit_core_dumps() || !forbid_dumps() || !keep_openssl_in_secret_memory()) {
        fmt::print(stderr,
                   "gmue: core dumps cannot be switched off, and keys are not to get into one\n");
        return exit_usage;
    }
    try {
        return run(o);
    } catch (const std::exception& e) {
        fmt::print(stderr, "gmue: {}\n", e.what());
        return exit_usage;
    }
}
