#include "home/stats.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace gmgate::home {

namespace {

template <class Enum, class Array>
nlohmann::json by_name(const Array& counters) {
    auto out = nlohmann::json::object();
    for (std::size_t i = 0; i < counters.size(); ++i) {
        if (counters[i] != 0) out[std::string(name(static_cast<Enum>(i)))] = counters[i];
    }
    return out;
}

void print(std::string& out, const std::string& path, const nlohmann::json& node) {
    if (node.is_object()) {
        for (const auto& [key, value] : node.items())
            print(out, path.empty() ? key : path + " " + key, value);
    } else if (node != 0) {
        out += fmt::format("{:<52} {}\n", path, node.dump());
    }
}

}  // namespace

nlohmann::json stats_json(const Registrar& registrar, const CxCounters& cx, const Server& server) {
    const auto& r = registrar.counters();
    const auto& s = server.counters();
    const auto& e = server.reg_event().counters();
    return {{"registrar",
             {{"registered", registrar.registered()},
              {"challenges_outstanding", registrar.challenges_outstanding()},
              {"requests", r.requests},
              {"challenges", r.challenges},
              {"registrations", r.registrations},
              {"reregistrations", r.reregistrations},
              {"unchallenged", r.unchallenged},
              {"deregistrations", r.deregistrations},
              {"expired", r.expired},
              {"shortened", r.shortened},
              {"deactivated", r.deactivated},
              {"user_failures", r.user_failures},
              {"network_failures", r.network_failures},
              {"synchronisation_failures", r.synchronisation_failures},
              {"resynchronisations", r.resynchronisations},
              {"authentication_timeouts", r.authentication_timeouts},
              {"challenges_voided", r.challenges_voided},
              {"forbidden", r.forbidden},
              {"interval_too_brief", r.interval_too_brief},
              {"malformed", r.malformed},
              {"overload", r.overload},
              {"hss_failures", r.hss_failures},
              {"dropped", r.dropped}}},
            {"cx",
             {{"query", by_name<CxResult>(cx.query)},
              {"av_request", by_name<CxResult>(cx.av_request)},
              {"put", by_name<CxResult>(cx.put)},
              {"put_by_assignment", by_name<ServerAssignment>(cx.put_by_assignment)},
              {"pull", by_name<CxResult>(cx.pull)},
              {"resynchronisations", cx.resynchronisations}}},
            {"reg_event",
             {{"subscriptions", server.reg_event().subscriptions()},
              {"subscribes", e.subscribes},
              {"refused", e.refused},
              {"notifies", e.notifies},
              {"failed", e.failed},
              {"ended", e.ended}}},
            {"reauthentication",
             {{"under_way", server.reauthentication().under_way()},
              {"begun", server.reauthentication().counters().begun},
              {"done", server.reauthentication().counters().done},
              {"refers", server.reauthentication().counters().refers},
              {"deregistered", server.reauthentication().counters().deregistered},
              {"scheduled", server.schedule().size()},
              {"asked_by_time", server.schedule().asked()}}},
            {"from_hss",
             {{"terminated", server.from_hss_counters().terminated},
              {"profiles", server.from_hss_counters().profiles},
              {"reauthenticated", server.from_hss_counters().reauthenticated}}},
            {"sessions",
             {{"known", server.sessions().size()},
              {"begun", server.sessions().counters().begun},
              {"ended", server.sessions().counters().ended},
              {"released", server.sessions().counters().released},
              {"byes", server.sessions().counters().byes},
              {"unknown", server.sessions().counters().unknown},
              {"forgotten", server.sessions().counters().forgotten}}},
            {"server",
             {{"transactions", server.transactions()},
              {"exchanges", server.proxy().size()},
              {"requests", s.requests},
              {"garbage", s.garbage},
              {"refused", s.refused},
              {"answered_here", s.answered_here},
              {"routed", s.routed},
              {"routed_answers", s.routed_answers},
              {"routed_failures", s.routed_failures},
              {"forked", s.forked},
              {"cancelled", s.cancelled},
              {"acks", s.acks},
              {"not_registered", s.not_registered},
              {"forbidden", s.forbidden},
              {"rejected", s.rejected},
              {"originated", s.originated},
              {"stray_responses", s.stray_responses}}}};
}

std::string stats_text(const nlohmann::json& stats) {
    std::string out;
    print(out, "", stats);
    return out;
}

}  // namespace gmgate::home
