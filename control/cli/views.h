#pragma once
// How each answer of the gateway is shown to a person: JSON in, text out; pure.

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/cli/text.h"

namespace gmgate::cli {

[[nodiscard]] Table sa_table(const Style& style);
void add_sa(Table& table, const nlohmann::json& row);
// One SA set with everything known about it.
[[nodiscard]] std::string sa_card(const nlohmann::json& row, const Style& style);

[[nodiscard]] Table registration_table(const Style& style);
void add_registration(Table& table, const nlohmann::json& row);
[[nodiscard]] std::string registration_card(const nlohmann::json& row, const Style& style);

[[nodiscard]] Table call_table(const Style& style);
void add_call(Table& table, const nlohmann::json& row);

// How often each reason made a registration fail, and the latest of each.
[[nodiscard]] std::string reasons_view(const nlohmann::json& result, const Style& style);
// Failed registrations one by one, newest first.
[[nodiscard]] std::string failures_view(const nlohmann::json& result, const Style& style);
// What a word of the catalogue of reasons means and what to do; "" if there is no such word.
[[nodiscard]] std::string explanation(const std::string& word, const Style& style);
// All words with their rules and meanings.
[[nodiscard]] std::string catalogue_view(const Style& style);

[[nodiscard]] std::string counts_view(const nlohmann::json& result, const Style& style);
[[nodiscard]] std::string health_view(const nlohmann::json& result, const Style& style);
[[nodiscard]] std::string drops_view(const nlohmann::json& result, const Style& style);
// `earlier`: an older reading of the same; then rates are shown. Series that are zero are left out
// unless `all`.
[[nodiscard]] std::string stats_view(const nlohmann::json& result, const nlohmann::json* earlier,
                                     bool all, const Style& style);
[[nodiscard]] std::string version_view(const nlohmann::json& result,
                                       const std::string& own_version);

}  // namespace gmgate::cli
