#include "home/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/bytes.h"
#include "home/stats.h"

namespace gmgate::home {

namespace {
std::string_view take_word(std::string_view& rest) {
    rest = trim(rest);
    const auto end = std::min(rest.find_first_of(" \t"), rest.size());
    const auto word = rest.substr(0, end);
    rest = trim(rest.substr(end));
    return word;
}

// What the subscribers of the registration event package hear (RFC 3680 5.1).
struct Named {
    std::string_view name;
    sip::ContactEvent event;
};
constexpr std::array deregistration_reasons = {
    Named{"rejected", sip::ContactEvent::rejected},        // stay away
    Named{"deactivated", sip::ContactEvent::deactivated},  // register anew, at once
    Named{"probation", sip::ContactEvent::probation},      // register anew, later
};
}  // namespace

void Commands::originate(std::string_view method, std::string_view to, std::string_view text,
                         CommandReply reply) {
    const auto from = "sip:" + registrar_.config().realm;
    const auto sent =
        server_.originate(method, from, to, text, [reply](int status, std::string_view reason) {
            reply(fmt::format("{} {}", status, reason));
        });
    if (!sent) reply("error: " + sent.error().text);
}

std::string Commands::cx_lines(std::string_view impi) const {
    if (!cx_.remembers()) return "error: Cx is not traced; start gmhome with --trace-cx";
    std::string out = "ok";
    for (const auto& line : cx_.lines()) {
        if (impi.empty() || line.impi == impi) out += "\n" + line.text;
    }
    return out;
}

const Binding* Commands::user(std::string_view identity) {
    const auto* binding = registrar_.find(identity);
    return binding != nullptr ? binding : registrar_.find_user(identity);
}

std::string Commands::reload() const {
    if (!reload_) return "error: there is no file to read: start gmhome with --subscribers";
    const auto done = reload_();
    return done ? "ok\n" + *done : "error: " + done.error().text;
}

std::string Commands::reauthenticate(std::string_view words) {
    std::vector<std::string> identities;
    for (auto word = take_word(words); !word.empty(); word = take_word(words)) {
        // A private identity stands for all that belong to it.
        const auto all = registrar_.default_identities(word);
        identities.insert(identities.end(), all.begin(), all.end());
        if (all.empty()) identities.emplace_back(word);
    }
    const auto begun = server_.reauthenticate(identities);
    return begun ? std::string("ok") : "error: " + begun.error().text;
}

std::string Commands::deregister(std::string_view impi, std::string_view options) {
    auto event = sip::ContactEvent::rejected;
    if (!options.empty()) {
        const auto option = take_word(options);
        const auto value = take_word(options);
        const auto found = std::ranges::find(deregistration_reasons, value, &Named::name);
        if (option != "--reason" || found == deregistration_reasons.end() || !options.empty())
            return "error: 'deregister' takes --reason rejected, deactivated or probation";
        event = found->event;
    }
    registrar_.deregister_user(impi, event);
    return "ok";
}

void Commands::execute(std::string_view line, CommandReply reply) {
    constexpr std::string_view known =
        "message TO TEXT, options TO, deregister TO [--reason rejected|deactivated|probation], "
        "reauth TO..., rechallenge TO always|never, show TO, reload, cx [IMPI], stats";
    const auto command = take_word(line);
    if (command == "stats") return reply(stats_json(registrar_, cx_.counters(), server_).dump(2));
    if (command == "cx") return reply(cx_lines(take_word(line)));
    if (command == "reload") return reply(reload());
    if (command == "reauth") return reply(reauthenticate(line));
    const auto to = take_word(line);
    if (command != "message" && command != "options" && command != "deregister" &&
        command != "rechallenge" && command != "show") {
        return reply(fmt::format("error: unknown command '{}'; known are {}", command, known));
    }
    if (to.empty())
        return reply(fmt::format("error: '{}' needs an identity; known are {}", command, known));
    if (command == "message") {
        if (line.empty()) return reply("error: 'message' needs a text");
        return originate("MESSAGE", to, line, std::move(reply));
    }
    if (command == "options") return originate("OPTIONS", to, {}, std::move(reply));
    const auto* binding = user(to);
    if (binding == nullptr) return reply(fmt::format("error: '{}' is not registered", to));
    if (command == "rechallenge") {
        if (line != "always" && line != "never")
            return reply("error: 'rechallenge' needs always or never");
        registrar_.rechallenge(binding->default_impu, line == "always");
        return reply("ok");
    }
    if (command == "deregister") return reply(deregister(std::string(binding->impi), line));
    reply(fmt::format("ok\nimpi     {}\nimpus    {}\ncontact  {}\npath     {}\nsessions {}",
                      binding->impi, fmt::join(*binding->impus, " "), binding->contact,
                      binding->path, server_.sessions().of(binding->impi)));
}

}  // namespace gmgate::home
