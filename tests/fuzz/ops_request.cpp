// Any line as a request of the operator's API: taken or refused with a text; the answer is one line
// of JSON.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "control/ops/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gmgate::ops;
    // The server hands over no longer line.
    if (size > std::size_t{16} * 1024) return 0;
    const std::string_view line(reinterpret_cast<const char*>(data), size);
    const auto request = parse_request(line);
    std::string answer;
    if (request.has_value()) {
        SaRow row;
        row.impi = request->query.impi.value_or("");
        row.state = request->query.state.value_or("");
        row.ue = request->query.ip.value_or(gmgate::IpAddress());
        row.numbers.spi_ps = request->query.spi.value_or(0);
        if (!matches(request->query, row)) std::abort();
        answer = rows_line(request->id, nlohmann::json::array({to_json(row, request->detail)})) +
                 end_line(request->id, request->cursor);
        if (std::count(answer.begin(), answer.end(), '\n') != 2) std::abort();
    } else {
        if (request.error().code.empty() || request.error().text.empty()) std::abort();
        answer = error_line(request.error().id, request.error().code, request.error().text);
        if (std::count(answer.begin(), answer.end(), '\n') != 1) std::abort();
    }
    const nlohmann::json back =
        nlohmann::json::parse(answer.substr(0, answer.find('\n')), nullptr, false);
    if (!back.is_object() || back["v"] != 1) std::abort();
    return 0;
}
