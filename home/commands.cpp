#include "home/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "home/identity.h"
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

void Commands::execute(std::string_view line, CommandReply reply) {
    const auto command = take_word(line);
    if (command == "stats") return reply(stats_json(registrar_, cx_.counters(), server_).dump(2));
    if (command == "cx") return reply(cx_lines(take_word(line)));
    if (command == "reauth") {
        std::vector<std::string> identities;
        for (auto word = take_word(line); !word.empty(); word = take_word(line))
            identities.emplace_back(word);
        const auto begun = server_.reauthenticate(identities);
        return reply(begun ? std::string("ok") : "error: " + begun.error().text);
    }
    const auto to = take_word(line);
    constexpr std::string_view known =
        "message TO TEXT, options TO, deregister TO, reauth TO..., rechallenge TO always|never, "
        "show TO, "
        "cx [IMPI], stats";
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
    const auto* binding = registrar_.find(to);
    if (binding == nullptr) return reply(fmt::format("error: '{}' is not registered", to));
    if (command == "rechallenge") {
        if (line != "always" && line != "never")
            return reply("error: 'rechallenge' needs always or never");
        registrar_.rechallenge(to, line == "always");
        return reply("ok");
    }
    if (command == "deregister") {
        registrar_.deregister(to);
        return reply("ok");
    }
    reply(fmt::format("ok\nimpi     {}\nimpus    {}\ncontact  {}\npath     {}", binding->impi,
                      fmt::join(*binding->impus, " "), binding->contact, binding->path));
}

}  // namespace gmgate::home
