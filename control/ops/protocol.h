#pragma once
// One request line → what is asked; pure, for the server and the fuzzer. And the lines of the
// answer.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/metrics.h"
#include "control/ops/views.h"

namespace gmgate::ops {

enum class Operation : unsigned char {
    version,
    health,
    stats,
    drops,
    sa_list,
    sa_show,
    sa_count,
    reg_list,
    reg_show,
    reg_count,
    reg_failures,
    reg_reasons,
    reg_deregister,
    trace,
    call_list
};
inline constexpr std::size_t operation_count = 15;
[[nodiscard]] std::string_view name(Operation operation);

struct Request {
    nlohmann::json id;  // number, short string or null: given back as it came
    Operation operation = Operation::version;
    Query query;
    std::optional<sa::SetId> set;        // sa.show
    Cursor cursor = 0;                   // lists
    std::optional<std::uint64_t> limit;  // lists: most rows of this answer
    bool detail = false;                 // lists: with counters
    std::string why;                     // reg.deregister: for the log; may be empty
};

// `code` is for programs, `text` for people.
struct RequestError {
    nlohmann::json id;  // as far as it could be read
    std::string code;   // "bad_request", "unsupported_version", "unknown_operation", "bad_argument"
    std::string text;
};

[[nodiscard]] std::expected<Request, RequestError> parse_request(std::string_view line);

// Lines of an answer, each with its '\n'. Text that is not UTF-8 is replaced, never an exception.
[[nodiscard]] std::string result_line(const nlohmann::json& id, nlohmann::json result);
[[nodiscard]] std::string rows_line(const nlohmann::json& id, nlohmann::json rows);
// The last line of a list; `cursor`: where the next request goes on, 0: the list is complete.
[[nodiscard]] std::string end_line(const nlohmann::json& id, Cursor cursor);
[[nodiscard]] std::string error_line(const nlohmann::json& id, std::string_view code,
                                     std::string_view text);

[[nodiscard]] nlohmann::json to_json(const SaRow& row, bool detail);
[[nodiscard]] nlohmann::json to_json(const RegistrationRow& row);
[[nodiscard]] nlohmann::json to_json(const CallRow& row);
[[nodiscard]] nlohmann::json to_json(const TraceStep& step);
[[nodiscard]] nlohmann::json to_json(const FailureRow& row);
[[nodiscard]] nlohmann::json to_json(const FailureTotal& total);
[[nodiscard]] nlohmann::json to_json(const metrics::Sample& sample);

// Does a row pass the filter? Views may hand out more than was asked for.
[[nodiscard]] bool matches(const Query& query, const SaRow& row);
[[nodiscard]] bool matches(const Query& query, const RegistrationRow& row);
[[nodiscard]] bool matches(const Query& query, const CallRow& row);

}  // namespace gmgate::ops
