#include "control/cli/gmctl.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <thread>

#include "base/ip.h"
#include "control/cli/client.h"
#include "control/cli/ladder.h"
#include "control/cli/views.h"

namespace gmgate::cli {

using nlohmann::json;

namespace {

// A local error of ours: what was typed.
struct UsageError {
    std::string text;
};

struct Filters {
    std::string impi;
    std::string ip;
    std::string spi;
    std::string state;
    std::uint64_t limit = 0;
    std::uint64_t cursor = 0;

    void offer(CLI::App& app, bool list) {
        app.add_option("--impi", impi, "private identity, exact: 001010000000001@ims.example");
        app.add_option("--ip", ip, "address of the phone, IPv4 or IPv6");
        app.add_option("--spi", spi, "any of the set's four SPIs, 0x04000001 or decimal");
        if (!list) return;
        app.add_option("--state", state, "state; an unknown one is answered with the list of them");
        app.add_option("--limit", limit, "at most so many rows")->check(CLI::PositiveNumber);
        app.add_option("--cursor", cursor, "go on where an earlier --limit stopped");
    }
    [[nodiscard]] json args() const {
        json a = json::object();
        if (!impi.empty()) a["impi"] = impi;
        if (!ip.empty()) {
            if (!IpAddress::parse(ip))
                throw UsageError{fmt::format("--ip: '{}' is not an address", ip)};
            a["ip"] = ip;
        }
        if (!spi.empty()) a["spi"] = spi;
        if (!state.empty()) a["state"] = state;
        if (limit != 0) a["limit"] = limit;
        if (cursor != 0) a["cursor"] = cursor;
        return a;
    }
};

class Gmctl {
  public:
    Gmctl(std::string socket, std::string version, Terminal terminal)
        : socket_(std::move(socket)), version_(std::move(version)), t_(terminal) {}

    int run(std::vector<std::string> arguments) {
        CLI::App app{"gmctl: look into a running gmgated, and end a registration", "gmctl"};
        app.footer(
            "Examples:\n"
            "  gmctl health                              is all well?\n"
            "  gmctl reg list --state authenticating     who is being challenged now\n"
            "  gmctl sa list --ip 10.20.0.7              the security associations of one phone\n"
            "  gmctl sa show --spi 0x04000001            the set an SPI from a packet trace "
            "belongs to\n"
            "  gmctl reg failures                        which registrations fail, and why\n"
            "  gmctl explain authentication_timeout      what that means and what to do\n"
            "  gmctl trace 001010000000001@ims.example   its registration as a ladder, SM1 to "
            "SM12\n"
            "  gmctl trace --shared IMPI IMPI            the calls between two phones, as one "
            "ladder\n"
            "  gmctl -j sa list | jq .ue                 one JSON object a line, for scripts\n"
            "Exit: 0 ok; 1 the gateway says no, or is degraded; 2 wrong usage; 3 no connection.");
        app.add_option("--socket", socket_, "socket of the gateway (its ops.socket)")
            ->capture_default_str();
        app.add_flag("-j,--json", json_, "JSON, one object a line");
        app.require_subcommand(1);
        app.fallthrough();

        CLI::App* sa = app.add_subcommand("sa", "security associations, by sets of four");
        sa->require_subcommand(1);
        CLI::App* sa_list = sa->add_subcommand("list", "one line a set");
        sa_list->footer(
            "Examples:\n  gmctl sa list --state established --limit 20\n  gmctl -j sa list "
            "--counters | jq .in_packets");
        filters_.offer(*sa_list, true);
        bool counters = false;
        sa_list->add_flag("--counters", counters, "with packets and bytes (JSON only)");
        sa_list->callback([&] { sa_list_command(counters); });
        CLI::App* sa_show =
            sa->add_subcommand("show", "everything about one set, or all sets of a phone");
        sa_show->footer(
            "Examples:\n  gmctl sa show --impi 001010000000001@ims.example\n  gmctl sa show --id "
            "42");
        filters_.offer(*sa_show, false);
        std::uint64_t id = 0;
        sa_show->add_option("--id", id, "number of the set");
        sa_show->callback([&] { sa_show_command(id); });
        sa->add_subcommand("count", "how many sets are in each state")->callback([&] {
            print_result("sa.count", counts_view);
        });

        CLI::App* reg = app.add_subcommand("reg", "registrations");
        reg->require_subcommand(1);
        CLI::App* reg_list = reg->add_subcommand("list", "one line a phone");
        reg_list->footer(
            "Examples:\n  gmctl reg list --state registered --limit 20\n  gmctl reg list --ip "
            "10.20.0.7");
        filters_.offer(*reg_list, true);
        reg_list->callback([&] { reg_list_command(); });
        CLI::App* reg_show = reg->add_subcommand("show", "everything about one registration");
        reg_show->footer("Example:\n  gmctl reg show --impi 001010000000001@ims.example");
        filters_.offer(*reg_show, false);
        std::string impi;
        reg_show->add_option("IMPI", impi, "private identity, in place of --impi");
        reg_show->callback([&] {
            if (!impi.empty()) filters_.impi = impi;
            reg_show_command();
        });
        reg->add_subcommand("count", "how many are registered, and how many authenticate now")
            ->callback([&] { print_result("reg.count", counts_view); });

        CLI::App* failures = reg->add_subcommand(
            "failures", "which registrations failed, and why: grouped by reason, or one by one");
        failures->footer(
            "Without an option: each reason with its count since the start and the latest phone it "
            "met.\n"
            "One by one (--list, --reason, --impi): newest first; the gateway remembers the latest "
            "128 of\n"
            "each reason.\n"
            "Examples:\n"
            "  gmctl reg failures                                what goes wrong here\n"
            "  gmctl explain authentication_timeout              what that means, what to do\n"
            "  gmctl reg failures --reason verify_mismatch       which phones\n"
            "  gmctl reg failures --impi 001010000000001@ims.example\n"
            "  gmctl trace 001010000000001@ims.example           where it broke, as a ladder\n"
            "  gmctl -j reg failures --list | jq -r .impi        one JSON object a line");
        bool one_by_one = false;
        std::string reason;
        std::uint64_t most = 0;
        failures->add_flag("--list", one_by_one, "one line a failed registration");
        failures->add_option("--reason", reason, "only those of this reason (implies --list)");
        failures->add_option("--impi", filters_.impi,
                             "only those of this private identity (implies --list)");
        failures->add_option("--limit", most, "at most so many lines; without it 100")
            ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1000}));
        failures->callback([&] { failures_command(one_by_one, reason, most); });

        CLI::App* deregister = reg->add_subcommand(
            "deregister", "end the registration of a phone, in the network's place");
        deregister->footer(
            "At once nothing of the phone is taken any more but a new REGISTER; its SAs go after\n"
            "timers.drain, when its last messages have left on them. Neither the phone nor the "
            "home\n"
            "network is told: end the registration there too, or the phone is called in vain.\n"
            "Example:\n"
            "  gmctl reg deregister 001010000000001@ims.example --reason 'stolen, ticket 4711'");
        std::string leaver;
        std::string why;
        deregister->add_option("IMPI", leaver, "private identity of the phone")->required();
        deregister->add_option("--reason", why, "for the log, which also names who asked");
        deregister->callback([&] { deregister_command(leaver, why); });

        CLI::App* explain = app.add_subcommand(
            "explain", "what a reason means and what to do; without one: all of them");
        explain->footer(
            "Works without a gateway; words of the packet layer (gmctl drops, layer dataplane) are "
            "asked of it.\nExample:\n  gmctl explain verify_mismatch");
        std::string word;
        explain->add_option("REASON", word,
                            "a word from reg failures, drops, trace, log or metrics");
        explain->callback([&] { explain_command(word); });

        CLI::App* stats = app.add_subcommand("stats", "all counters, gauges and latencies");
        stats->footer(
            "Examples:\n  gmctl stats\n  gmctl stats --rate 2 | grep packets     changes a second, "
            "over two seconds");
        bool all = false;
        double rate = 0;
        stats->add_flag("--all", all, "also what is zero");
        stats
            ->add_option("--rate", rate,
                         "read twice, so many seconds apart, and show changes a second")
            ->check(CLI::Range(0.1, 3600.0));
        stats->callback([&] { stats_command(all, rate); });

        app.add_subcommand("drops", "what was dropped, and why")->callback([&] {
            print_result("drops", drops_view);
        });
        app.add_subcommand("health",
                           "each component: ok, or degraded and what to do; exit 1 if degraded")
            ->callback([&] { health_command(); });
        CLI::App* calls = app.add_subcommand("calls", "live calls: one line a phone and call");
        calls->footer(
            "A call between two phones of this gateway is two lines with the same CALL, which is "
            "also what\n'gmctl -j trace' gives for its messages. IDLE: since the latest request or "
            "answer in it.\n"
            "Examples:\n"
            "  gmctl calls --impi 001010000000001@ims.example\n"
            "  gmctl calls --by-user                     how many each phone has, most first");
        bool by_user = false;
        calls->add_option("--impi", filters_.impi, "only those of this private identity");
        calls->add_option("--limit", filters_.limit, "look at so many at most")
            ->check(CLI::PositiveNumber);
        calls->add_option("--cursor", filters_.cursor, "go on where an earlier --limit stopped");
        calls->add_flag("--by-user", by_user, "how many each phone has");
        calls->callback([&] { calls_command(by_user); });

        CLI::App* trace =
            app.add_subcommand("trace",
                               "ladder diagram of a phone's registrations and calls, or of "
                               "several phones together");
        trace->footer(
            "One phone: each registration with its own time, SM1 to SM12, and what followed.\n"
            "Several: one picture in the order of time. A message that passes from phone to phone "
            "is one\nline; behind its name the transport and the SPI of the SA that carried it, "
            "or 'clear'.\n"
            "Examples:\n"
            "  gmctl trace 001010000000001@ims.example\n"
            "  gmctl trace --shared 001010000000001@ims.example 001010000000002@ims.example\n"
            "                                            the calls and messages between two\n"
            "  gmctl -j trace 001010000000001@ims.example | jq '.steps[] | select(.spi != null)'");
        std::vector<std::string> traced;
        bool shared = false;
        trace
            ->add_option("IMPI", traced,
                         "private identity of the phone; up to four for one picture")
            ->required()
            ->expected(1, 4);
        trace->add_flag("--shared", shared,
                        "of several phones: only messages that more than one of them had part in");
        trace->callback([&] { trace_command(traced, shared); });
        app.add_subcommand("version", "of this tool and of the gateway")->callback([&] {
            version_command();
        });

        try {
            std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
            app.parse(std::move(arguments));
        } catch (const CLI::ParseError& e) {
            // Help is no mistake, and belongs on the output.
            if (e.get_exit_code() == 0) {
                app.exit(e, t_.out, t_.err);
                return exit_ok;
            }
            t_.err << "gmctl: " << usage_mistake(app, e)
                   << "\ngmctl: try 'gmctl --help', or --help behind a command\n";
            return exit_usage;
        } catch (const UsageError& e) {
            t_.err << "gmctl: " << e.text << '\n';
            return exit_usage;
        }
        return exit_;
    }

  private:
    // What CLI11 says, but for a missing or mistyped command: there, which ones there are.
    static std::string usage_mistake(const CLI::App& app, const CLI::ParseError& e) {
        const CLI::App* at = &app;
        for (;;) {
            const auto given = at->get_subcommands();
            if (given.empty()) break;
            at = given.front();
        }
        if (at->get_require_subcommand_min() == 0) return e.what();
        std::string names;
        for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; })) {
            names += (names.empty() ? "" : ", ") + command->get_name();
        }
        std::string typed;
        for (const std::string& word : app.remaining(true)) {
            if (typed.empty() && !word.starts_with('-')) typed = word;
        }
        return typed.empty() ? fmt::format("{} needs a command: {}", at->get_name(), names)
                             : fmt::format("'{}' is no command of {}; there are {}", clean(typed),
                                           at->get_name(), names);
    }

    // An error ends the command: told once, the exit code set.
    bool failed(const Error& error) {
        const bool gateway = error.kind == ErrorKind::conflict;
        t_.out.flush();
        t_.err << "gmctl: " << (gateway ? "the gateway says: " : "") << clean(error.text) << '\n';
        exit_ = gateway ? exit_gateway : exit_connection;
        return true;
    }
    std::optional<Client> connect() {
        Result<Client> client = Client::connect(socket_);
        if (!client) {
            failed(client.error());
            return std::nullopt;
        }
        return std::move(*client);
    }
    std::optional<json> call(const std::string& operation, const json& args = json::object()) {
        std::optional<Client> client = connect();
        if (!client) return std::nullopt;
        Result<json> result = client->call(operation, args);
        if (!result) {
            failed(result.error());
            return std::nullopt;
        }
        return std::move(*result);
    }
    void print_json(const json& value) {
        t_.out << value.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
    }

    void print_result(const std::string& operation,
                      std::string (*view)(const json&, const Style&)) {
        const std::optional<json> result = call(operation);
        if (!result) return;
        if (json_)
            print_json(*result);
        else
            t_.out << view(*result, t_.style);
    }

    // Rows are shown as they come: a hundred thousand begin at once, and need no memory here.
    void list_command(const std::string& operation, const json& args, Table table,
                      void (*add)(Table&, const json&), const std::string& none) {
        std::optional<Client> client = connect();
        if (!client) return;
        std::size_t shown = 0;
        const Result<std::uint64_t> cursor = client->list(operation, args, [&](const json& rows) {
            for (const json& row : rows) {
                ++shown;
                if (json_)
                    print_json(row);
                else
                    add(table, row);
            }
            if (!json_) t_.out << table.render();
            t_.out.flush();
        });
        if (!cursor) {
            failed(cursor.error());
            return;
        }
        if (shown == 0 && !json_) t_.out << none << '\n';
        // On the other stream, so that a script does not take it for a row.
        if (*cursor != 0) t_.err << fmt::format("There is more: go on with --cursor {}\n", *cursor);
    }
    void show_command(const std::string& operation, const json& args,
                      std::string (*card)(const json&, const Style&)) {
        std::optional<Client> client = connect();
        if (!client) return;
        const Result<std::uint64_t> done = client->list(operation, args, [&](const json& rows) {
            for (const json& row : rows) {
                if (json_)
                    print_json(row);
                else
                    t_.out << card(row, t_.style);
            }
        });
        if (!done) failed(done.error());
    }

    void sa_list_command(bool counters) {
        json args = filters_.args();
        if (counters) args["detail"] = true;
        list_command("sa.list", args, sa_table(t_.style), add_sa, "No SA set is like that.");
    }
    void sa_show_command(std::uint64_t id) {
        json args = filters_.args();
        if (id != 0) args["id"] = id;
        if (args.empty()) throw UsageError{"sa show needs --id, --impi, --ip or --spi"};
        show_command("sa.show", args, sa_card);
    }
    void reg_list_command() {
        list_command("reg.list", filters_.args(), registration_table(t_.style), add_registration,
                     "No registration is like that.");
    }
    void reg_show_command() {
        const json args = filters_.args();
        if (args.empty()) throw UsageError{"reg show needs an IMPI, or --ip or --spi"};
        show_command("reg.show", args, registration_card);
    }
    void calls_command(bool by_user) {
        if (!by_user) {
            return list_command("call.list", filters_.args(), call_table(t_.style), add_call,
                                "There are no calls like that.");
        }
        std::optional<Client> client = connect();
        if (!client) return;
        struct Count {
            std::uint64_t confirmed = 0;
            std::uint64_t early = 0;
            [[nodiscard]] std::uint64_t all() const { return confirmed + early; }
        };
        std::map<std::string, Count> counts;
        const Result<std::uint64_t> cursor =
            client->list("call.list", filters_.args(), [&](const json& rows) {
                for (const json& row : rows) {
                    Count& c = counts[row.value("impi", "")];
                    ++(row.value("state", "") == "early" ? c.early : c.confirmed);
                }
            });
        if (!cursor) {
            failed(cursor.error());
            return;
        }
        std::vector<std::pair<std::string, Count>> rows(counts.begin(), counts.end());
        std::ranges::stable_sort(rows, std::greater{},
                                 [](const auto& row) { return row.second.all(); });
        Table table({{"CALLS", true, 0, 0}, {"EARLY", true, 0, 1}, {"IMPI", false, 14, 0}},
                    t_.style);
        for (const auto& [impi, count] : rows) {
            if (json_) {
                print_json({{"impi", impi}, {"calls", count.all()}, {"early", count.early}});
            } else {
                table.add({count_text(count.all()), count_text(count.early), impi});
            }
        }
        if (!json_) t_.out << (rows.empty() ? "There are no calls.\n" : table.render());
        if (*cursor != 0) t_.err << fmt::format("There is more: go on with --cursor {}\n", *cursor);
    }
    void failures_command(bool one_by_one, const std::string& reason, std::uint64_t most) {
        json args = json::object();
        if (!reason.empty()) args["reason"] = reason;
        if (!filters_.impi.empty()) args["impi"] = filters_.impi;
        if (most != 0) args["limit"] = most;
        one_by_one = one_by_one || !args.empty();
        const std::optional<json> result = call(one_by_one ? "reg.failures" : "reg.reasons", args);
        if (!result) return;
        if (json_) {
            for (const json& row :
                 result->value(one_by_one ? "failures" : "reasons", json::array()))
                print_json(row);
            return;
        }
        t_.out << (one_by_one ? failures_view(*result, t_.style) : reasons_view(*result, t_.style));
    }
    void deregister_command(const std::string& impi, const std::string& why) {
        json args{{"impi", impi}};
        if (!why.empty()) args["reason"] = why;
        const std::optional<json> result = call("reg.deregister", args);
        if (!result) return;
        if (json_)
            print_json(*result);
        else
            t_.out << fmt::format(
                "{} is deregistered; its SAs go when its last messages have left "
                "on them\n",
                clean(impi));
    }
    void explain_command(const std::string& word) {
        if (word.empty()) {
            t_.out << catalogue_view(t_.style);
            return;
        }
        const std::string text = explanation(word, t_.style);
        if (!text.empty()) {
            t_.out << text;
            return;
        }
        // Perhaps a word of the packet layer, which the gateway knows.
        if (Result<Client> client = Client::connect(socket_); client) {
            if (const Result<json> drops = client->call("drops"); drops) {
                for (const json& d : drops->value("drops", json::array())) {
                    if (d.value("reason", "") != word) continue;
                    t_.out << fmt::format("{} ({}): {}\n", word, clean(d.value("layer", "")),
                                          clean(d.value("help", "")));
                    return;
                }
            }
        }
        throw UsageError{
            fmt::format("'{}' is no reason; 'gmctl explain' lists them, 'gmctl drops' those of the "
                        "packet layer",
                        clean(word))};
    }
    void stats_command(bool all, double rate) {
        std::optional<json> earlier;
        if (rate > 0) {
            earlier = call("stats");
            if (!earlier) return;
            std::this_thread::sleep_for(std::chrono::duration<double>(rate));
        }
        const std::optional<json> now = call("stats");
        if (!now) return;
        if (json_) {
            if (earlier) print_json(*earlier);
            print_json(*now);
        } else {
            t_.out << stats_view(*now, earlier ? &*earlier : nullptr, all, t_.style);
        }
    }
    void health_command() {
        const std::optional<json> result = call("health");
        if (!result) return;
        if (json_)
            print_json(*result);
        else
            t_.out << health_view(*result, t_.style);
        if (!result->value("ok", false)) exit_ = exit_gateway;
    }
    void trace_command(const std::vector<std::string>& impis, bool shared) {
        const bool one = impis.size() == 1;
        if (one && shared) throw UsageError{"--shared needs more than one IMPI"};
        const std::optional<json> result =
            one ? call("trace", {{"impi", impis.front()}}) : call("trace", {{"impis", impis}});
        if (!result) return;
        if (json_) {
            print_json(*result);
            return;
        }
        std::vector<LadderStep> steps;
        for (const json& step : result->value("steps", json::array()))
            steps.push_back(ladder_step(step));
        if (shared) steps = shared_steps(std::move(steps));
        if (steps.empty()) {
            t_.out << "These phones have exchanged nothing that is remembered.\n";
            return;
        }
        t_.out << (one ? render_ladder(impis.front(), steps, t_.style)
                       : render_ladders(impis, steps, t_.style));
    }
    void version_command() {
        const std::optional<json> result = call("version");
        if (!result) {
            t_.out << "gmctl    " << version_ << '\n';
            return;
        }
        if (json_)
            print_json({{"gmctl", version_}, {"gmgated", *result}});
        else
            t_.out << version_view(*result, version_);
    }

    std::string socket_;
    std::string version_;
    Terminal t_;
    Filters filters_;
    bool json_ = false;
    int exit_ = exit_ok;
};

}  // namespace

int gmctl(const std::vector<std::string>& arguments, const std::string& default_socket,
          const std::string& version, Terminal terminal) {
    const int status = Gmctl(default_socket, version, terminal).run(arguments);
    // A script must not take half a table, cut off by a full disk, for the whole one.
    if (!terminal.out.flush()) {
        terminal.err << "gmctl: the output could not be written; is the disk full?\n";
        return status == exit_ok ? exit_gateway : status;
    }
    return status;
}

}  // namespace gmgate::cli
