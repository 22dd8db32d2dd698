#pragma once
// The ladder diagram of a registration: UE, P-CSCF and core as lanes, a line for each message, with
// the SA that carried it.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/cli/text.h"

namespace gmgate::cli {

enum class Lane : unsigned char { ue, gateway, core };

struct LadderStep {
    std::int64_t time_us = 0;  // since 1970
    Lane from = Lane::gateway;
    Lane to = Lane::gateway;           // the same lane: something that happened there
    std::string name;                  // "SM1" or empty
    std::string text;                  // "REGISTER", "401 REGISTER", "SA set installed"
    std::optional<std::uint32_t> spi;  // nullopt: in clear
    std::string set;                   // "new", "old": whose SA; empty: not known
    bool failed = false;
    std::string reason;
    std::string transport = {};  // "udp", "tcp"; empty: not known
    std::string call = {};       // the same for messages of one Call-ID; empty: not known
    std::size_t phone = 0;       // in a picture of several
};

// From one step of the API's trace. A step that is not understood is shown as an event with its
// text.
[[nodiscard]] LadderStep ladder_step(const nlohmann::json& step);

// Pure. Fits style.width (at least 72; 0: 80 columns), never wider than 100. Times are UTC, counted
// from SM1 within a registration.
[[nodiscard]] std::string render_ladder(const std::string& impi,
                                        const std::vector<LadderStep>& steps, const Style& style);

// Several phones in one picture, in the order of time: UE A | P-CSCF | core | P-CSCF | UE B for
// two, otherwise all phones, the P-CSCF, the core. A message that passes through hop by hop with
// nothing between is one line. Fits style.width (at least 80, as far as four phones allow; 0: 100
// columns), never wider than 100. Pure.
[[nodiscard]] std::string render_ladders(const std::vector<std::string>& impis,
                                         const std::vector<LadderStep>& steps, const Style& style);

// Only the messages of Call-IDs that more than one phone took part in.
[[nodiscard]] std::vector<LadderStep> shared_steps(std::vector<LadderStep> steps);

}  // namespace gmgate::cli
