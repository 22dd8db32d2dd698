#include "control/cli/client.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace gmgate::cli {

using nlohmann::json;

namespace {
constexpr int patience_seconds = 15;
constexpr std::size_t longest_line =
    64U << 20U;  // a trace or all metrics; a gateway that sends more is none of ours
}  // namespace

Result<Client> Client::connect(const std::string& socket) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket.empty() || socket.size() >= sizeof(address.sun_path)) {
        return fail(
            ErrorKind::invalid,
            fmt::format(
                "'{}' is no path of a socket; give ops.socket of the gateway's configuration",
                socket));
    }
    std::memcpy(address.sun_path, socket.c_str(), socket.size() + 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail(ErrorKind::io, fmt::format("socket: {}", std::strerror(errno)));
    const timeval patience{patience_seconds, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        switch (errno) {
            case ENOENT:
                return fail(ErrorKind::not_found,
                            fmt::format("{} does not exist; is gmgated running? if its ops.socket "
                                        "is elsewhere, give --socket",
                                        socket));
            case ECONNREFUSED:
                return fail(
                    ErrorKind::io,
                    fmt::format(
                        "nobody listens on {}; gmgated has stopped: start it, and look at its log",
                        socket));
            case EACCES:
                return fail(ErrorKind::denied,
                            fmt::format("no permission for {}; run as root, or join its group (ls "
                                        "-l {}) and log in again",
                                        socket, socket));
            default:
                return fail(ErrorKind::io, fmt::format("{}: {}; is gmgated running?", socket,
                                                       std::strerror(errno)));
        }
    }
    return Client(std::move(fd), socket);
}

Result<void> Client::send(const std::string& operation, json args) {
    const std::string line =
        json{{"v", 1}, {"id", ++id_}, {"op", operation}, {"args", std::move(args)}}.dump(
            -1, ' ', false, json::error_handler_t::replace) +
        '\n';
    for (std::size_t done = 0; done < line.size();) {
        const ssize_t n = ::send(fd_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        // A refusal may lie in our buffer already: receive() shows it.
        if (n < 0 && errno == EPIPE) return {};
        if (n <= 0)
            return fail(ErrorKind::io, fmt::format("{}: {}", socket_, std::strerror(errno)));
        done += static_cast<std::size_t>(n);
    }
    return {};
}

Result<json> Client::receive() {
    for (;;) {
        const std::size_t end = in_.find('\n', taken_);
        if (end != std::string::npos) {
            json line = json::parse(in_.begin() + static_cast<std::ptrdiff_t>(taken_),
                                    in_.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
            taken_ = end + 1;
            if (taken_ > (1U << 20U)) {
                in_.erase(0, taken_);
                taken_ = 0;
            }
            if (!line.is_object()) {
                return fail(
                    ErrorKind::io,
                    fmt::format("{} does not speak the protocol of gmgated; is --socket right?",
                                socket_));
            }
            if (const auto error = line.find("error"); error != line.end() && error->is_object()) {
                return fail(ErrorKind::conflict,
                            error->value("text", std::string("an error without a text")));
            }
            return line;
        }
        if (in_.size() - taken_ > longest_line) {
            return fail(ErrorKind::io,
                        fmt::format("{} sends a line without end; is --socket right?", socket_));
        }
        std::array<char, 65536> buffer{};
        const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (n > 0) {
            in_.append(buffer.data(), static_cast<std::size_t>(n));
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return fail(
                ErrorKind::io,
                fmt::format("gmgated does not answer within {} s; look at its log and its load",
                            patience_seconds));
        }
        return fail(ErrorKind::io,
                    fmt::format("gmgated closed the connection{}{}; has it stopped?",
                                n < 0 ? ": " : "", n < 0 ? std::strerror(errno) : ""));
    }
}

Result<json> Client::call(const std::string& operation, json args) {
    if (Result<void> sent = send(operation, std::move(args)); !sent)
        return std::unexpected(sent.error());
    Result<json> line = receive();
    if (!line) return line;
    const auto result = line->find("result");
    if (result == line->end())
        return fail(ErrorKind::io, fmt::format("{} gives an answer without a result", socket_));
    return *result;
}

Result<std::uint64_t> Client::list(const std::string& operation, json args,
                                   const std::function<void(const json&)>& page) {
    if (Result<void> sent = send(operation, std::move(args)); !sent)
        return std::unexpected(sent.error());
    for (;;) {
        const Result<json> line = receive();
        if (!line) return std::unexpected(line.error());
        if (const auto rows = line->find("rows"); rows != line->end() && rows->is_array())
            page(*rows);
        if (const auto done = line->find("done"); done != line->end() && *done == true) {
            const auto cursor = line->find("cursor");
            return cursor != line->end() && cursor->is_number_unsigned()
                       ? cursor->get<std::uint64_t>()
                       : 0;
        }
    }
}

}  // namespace gmgate::cli
