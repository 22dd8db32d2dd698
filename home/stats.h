#pragma once
// What the home network did, for people and scripts. No identity and no key in it.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "home/cx_log.h"
#include "home/registrar.h"
#include "home/server.h"

namespace gmgate::home {

// {"registrar": {…}, "cx": {"av_request": {"ok": 3}, …}, "server": {…}}; the names are those of the
// counters' structs.
[[nodiscard]] nlohmann::json stats_json(const Registrar& registrar, const CxCounters& cx,
                                        const Server& server);
// A few lines for the terminal; counters that are zero are left out.
[[nodiscard]] std::string stats_text(const nlohmann::json& stats);

}  // namespace gmgate::home
