#include "home/control_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "base/unique_fd.h"

namespace gmgate::home {

namespace {

constexpr std::size_t max_connections = 16;
constexpr std::size_t max_line = 4096;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
        return fail(ErrorKind::invalid,
                    fmt::format("control socket '{}': give a path of 1 to {} characters", path,
                                sizeof(address.sun_path) - 1));
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

bool somebody_listens(const sockaddr_un& address) {
    const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return probe.valid() && ::connect(probe.get(), generic(address), sizeof(address)) == 0;
}

}  // namespace

struct ControlSocket::Impl : std::enable_shared_from_this<ControlSocket::Impl> {
    struct Connection {
        UniqueFd fd;
        std::string line;
        std::string answer;
        bool answered = false;
        bool busy = false;  // the handler has the line
        bool too_long =
            false;  // discarding the rest of it: closing before it is read would lose our answer
    };

    Impl(EventLoop& l, std::string p, CommandHandler h)
        : loop(l), path(std::move(p)), handler(std::move(h)) {}
    ~Impl() {
        for (auto& [id, c] : connections) loop.unwatch(c.fd.get());
        if (listener.valid()) {
            loop.unwatch(listener.get());
            ::unlink(path.c_str());
        }
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    EventLoop& loop;
    std::string path;
    CommandHandler handler;
    UniqueFd listener;
    std::map<std::uint64_t, Connection> connections;
    std::uint64_t next_id = 0;

    void accept() {
        UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd.valid()) return;
        const auto id = ++next_id;
        const int raw = fd.get();
        if (connections.size() >= max_connections) {
            constexpr std::string_view full = "error: too many control connections\n";
            (void)!::send(raw, full.data(), full.size(), MSG_NOSIGNAL);
            return;
        }
        connections[id].fd = std::move(fd);
        loop.watch(raw, EventLoop::readable, [this, id](unsigned ready) { on_ready(id, ready); });
    }

    void on_ready(std::uint64_t id, unsigned) {
        const auto it = connections.find(id);
        if (it == connections.end()) return;
        if (it->second.answered) return write(it->first);
        read(id, it->second);
    }

    void read(std::uint64_t id, Connection& c) {
        std::array<char, 1024> chunk{};
        const auto n = ::recv(c.fd.get(), chunk.data(), chunk.size(), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) return close(id);
        if (c.busy) return;  // one line a connection: what follows is not read
        c.line.append(chunk.data(), static_cast<std::size_t>(n));
        const auto end = c.line.find('\n');
        if (end == std::string::npos) {
            if (c.line.size() > max_line) {
                c.too_long = true;
                c.line.clear();
            }
            return;
        }
        if (c.too_long || end > max_line) return answer(id, "error: the line is too long");
        c.line.resize(end);
        c.busy = true;
        const std::string line = std::move(c.line);
        // The answer may come after the connection, or this object, has gone.
        handler(line, [weak = weak_from_this(), id](std::string text) {
            if (const auto self = weak.lock()) self->answer(id, std::move(text));
        });
    }

    void answer(std::uint64_t id, std::string text) {
        const auto it = connections.find(id);
        if (it == connections.end() || it->second.answered) return;
        it->second.answer = std::move(text) + "\n";
        it->second.answered = true;
        write(id);
    }

    void write(std::uint64_t id) {
        auto& c = connections.at(id);
        while (!c.answer.empty()) {
            const auto n = ::send(c.fd.get(), c.answer.data(), c.answer.size(), MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN) return loop.change(c.fd.get(), EventLoop::writable);
            if (n <= 0) break;
            c.answer.erase(0, static_cast<std::size_t>(n));
        }
        close(id);
    }

    void close(std::uint64_t id) {
        const auto it = connections.find(id);
        loop.unwatch(it->second.fd.get());
        connections.erase(it);
    }
};

ControlSocket::ControlSocket(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlSocket::~ControlSocket() = default;

Result<std::unique_ptr<ControlSocket>> ControlSocket::open(EventLoop& loop, const std::string& path,
                                                           CommandHandler handler) {
    const auto address = address_of(path);
    if (!address) return std::unexpected(address.error());
    const auto io = [&](const char* what) {
        return fail(ErrorKind::io,
                    fmt::format("control socket {}: {}: {}", path, what, std::strerror(errno)));
    };
    auto impl = std::make_shared<Impl>(loop, path, std::move(handler));
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return io("cannot make it");
    const auto previous = ::umask(0177);
    int rc = ::bind(fd.get(), generic(*address), sizeof(*address));
    if (rc != 0 && errno == EADDRINUSE) {
        struct stat info{};
        const bool is_socket = ::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode);
        if (!is_socket || somebody_listens(*address)) {
            ::umask(previous);
            return fail(ErrorKind::conflict,
                        fmt::format("control socket {}: {}", path,
                                    is_socket ? "another gmhome uses it: give another path"
                                              : "the path is no socket: give another"));
        }
        ::unlink(path.c_str());  // left behind by a killed run
        rc = ::bind(fd.get(), generic(*address), sizeof(*address));
    }
    ::umask(previous);
    if (rc != 0) return io("cannot bind");
    if (::listen(fd.get(), 8) != 0) return io("cannot listen");
    impl->listener = std::move(fd);
    loop.watch(impl->listener.get(), EventLoop::readable,
               [raw = impl.get()](unsigned) { raw->accept(); });
    return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(impl)));
}

Result<std::string> control_command(const std::string& path, std::string_view line) {
    const auto address = address_of(path);
    if (!address) return std::unexpected(address.error());
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid() || ::connect(fd.get(), generic(*address), sizeof(*address)) != 0) {
        return fail(ErrorKind::io,
                    fmt::format("control socket {}: {}: is gmhome running with --control {}?", path,
                                std::strerror(errno), path));
    }
    std::string out(line);
    out += '\n';
    for (std::string_view rest = out; !rest.empty();) {
        const auto n = ::send(fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return fail(ErrorKind::io,
                        fmt::format("control socket {}: {}", path, std::strerror(errno)));
        rest.remove_prefix(static_cast<std::size_t>(n));
    }
    std::string answer;
    std::array<char, 4096> chunk{};
    for (;;) {
        const auto n = ::recv(fd.get(), chunk.data(), chunk.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return fail(ErrorKind::io,
                        fmt::format("control socket {}: {}", path, std::strerror(errno)));
        if (n == 0) break;
        answer.append(chunk.data(), static_cast<std::size_t>(n));
    }
    if (answer.empty())
        return fail(ErrorKind::io,
                    fmt::format("control socket {}: closed without an answer", path));
    return answer;
}

}  // namespace gmgate::home
