#pragma once
// gmctl's end of the operator's API: one request at a time over a Unix socket, blocking.

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace gmgate::cli {

class Client {
  public:
    // io, denied, not_found: one line that says what to do.
    [[nodiscard]] static Result<Client> connect(const std::string& socket);

    // The one result of an operation that is no list. conflict: the gateway's own error; io: it
    // went away.
    [[nodiscard]] Result<nlohmann::json> call(const std::string& operation,
                                              nlohmann::json args = nlohmann::json::object());
    // A list, page by page as it comes. Gives the cursor to go on with, 0: complete.
    [[nodiscard]] Result<std::uint64_t> list(
        const std::string& operation, nlohmann::json args,
        const std::function<void(const nlohmann::json& rows)>& page);

  private:
    Client(UniqueFd fd, std::string socket) : fd_(std::move(fd)), socket_(std::move(socket)) {}
    Result<void> send(const std::string& operation, nlohmann::json args);
    Result<nlohmann::json> receive();

    UniqueFd fd_;
    std::string socket_;
    std::string in_;
    std::size_t taken_ = 0;
    std::uint64_t id_ = 0;
};

}  // namespace gmgate::cli
