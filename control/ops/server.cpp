#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/timer_wheel.h"
#include "base/unique_fd.h"
#include "control/ops/api.h"
#include "control/ops/lock_file.h"
#include "control/ops/protocol.h"

namespace gmgate::ops {

using nlohmann::json;

namespace {

constexpr int accepts_per_turn = 16;
constexpr Duration accept_pause = std::chrono::milliseconds(200);

std::string system_error(int error) {
    return std::strerror(error);
}

Result<gid_t> group_id(const std::string& group_name) {
    gid_t number = 0;
    const auto [end, error] =
        std::from_chars(group_name.data(), group_name.data() + group_name.size(), number);
    if (error == std::errc{} && end == group_name.data() + group_name.size()) return number;
    std::vector<char> buffer(16384);
    group entry{};
    group* found = nullptr;
    int rc = 0;
    while ((rc = ::getgrnam_r(group_name.c_str(), &entry, buffer.data(), buffer.size(), &found)) ==
               ERANGE &&
           buffer.size() < (1U << 20U)) {
        buffer.resize(buffer.size() * 2);
    }
    if (found == nullptr) {
        return fail(
            ErrorKind::denied,
            fmt::format(
                "ops.group: this machine has no group '{0}'; create it (groupadd --system {0})",
                group_name));
    }
    return found->gr_gid;
}

// The listening socket, reachable only for those who may.
Result<UniqueFd> open_socket(const std::string& path, const std::string& group_name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
        return fail(ErrorKind::invalid, fmt::format("ops.socket: a path has 1 to {} octets",
                                                    sizeof(address.sun_path) - 1));
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);

    struct stat info{};
    if (::lstat(path.c_str(), &info) == 0) {
        if (!S_ISSOCK(info.st_mode)) {
            return fail(
                ErrorKind::conflict,
                fmt::format(
                    "ops.socket: {} exists and is no socket; remove it or choose another path",
                    path));
        }
        // The lock is ours, so whoever listened there is dead.
        ::unlink(path.c_str());
    }
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid())
        return fail(ErrorKind::io, fmt::format("ops.socket: socket: {}", system_error(errno)));
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        return fail(errno == EACCES || errno == EPERM ? ErrorKind::denied : ErrorKind::io,
                    fmt::format("ops.socket: {}: {}", path, system_error(errno)));
    }
    // Nobody can connect before listen(), so the order leaves no gap.
    if (!group_name.empty()) {
        const Result<gid_t> gid = group_id(group_name);
        if (!gid) return std::unexpected(gid.error());
        if (::chown(path.c_str(), static_cast<uid_t>(-1), *gid) != 0) {
            return fail(ErrorKind::denied,
                        fmt::format("ops.group: {} cannot be given to group {}: {}", path,
                                    group_name, system_error(errno)));
        }
    }
    if (::chmod(path.c_str(), 0660) != 0 || ::listen(fd.get(), 64) != 0) {
        return fail(ErrorKind::io, fmt::format("ops.socket: {}: {}", path, system_error(errno)));
    }
    return fd;
}

}  // namespace

struct OpsServer::Impl {
    struct Connection {
        UniqueFd fd;
        std::string in;
        std::string out;
        std::size_t out_done = 0;     // octets of `out` already written
        std::optional<Request> list;  // the list under way
        std::uint64_t rows_given = 0;
        bool turn_posted = false;
        bool reading = true;
        bool input_ended = false;
        bool closing = false;  // after `out` is written
        unsigned interest = 0;
        Timer deadline;
        Impl* server = nullptr;

        [[nodiscard]] std::size_t unread() const { return out.size() - out_done; }
        void on_deadline() {
            server->count_error("timeout");
            server->close(fd.get());
        }
    };
    using ConnectionPtr = std::shared_ptr<Connection>;

    Impl(EventLoop& l, metrics::Registry& r, Views v, ServerOptions o, LockFile lk)
        : loop(l),
          registry(r),
          views(std::move(v)),
          options(std::move(o)),
          lock(std::move(lk)),
          started(l.timers().now()) {
        for (std::size_t i = 0; i < operation_count; ++i) {
            requests[i] = &registry.counter(
                "gmgate_ops_requests_total", "Requests of operators' tools by operation.",
                {{"operation", std::string(name(static_cast<Operation>(i)))}});
        }
        refused = &registry.counter(
            "gmgate_ops_connections_refused_total",
            "Connections of operators' tools refused because there were too many.");
        open_connections =
            &registry.gauge("gmgate_ops_connections", "Open connections of operators' tools.");
        accept_again.bind<&Impl::resume_accepting>(this);
        // The common ones from the start, so that dashboards see a zero.
        for (const char* code : {"bad_request", "too_large", "timeout"}) (void)error_counter(code);
    }
    ~Impl() {
        while (!connections.empty()) close(connections.begin()->first);
        if (listener.valid()) {
            loop.unwatch(listener.get());
            ::unlink(options.socket.c_str());
        }
    }

    void start(UniqueFd fd) {
        listener = std::move(fd);
        loop.watch(listener.get(), EventLoop::readable, [this](unsigned) { accept_some(); });
    }

    // ---- connections

    void resume_accepting() { loop.change(listener.get(), EventLoop::readable); }

    void accept_some() {
        for (int i = 0; i < accepts_per_turn; ++i) {
            UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!fd.valid()) {
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                    // The caller stays in the queue: without a pause the loop would spin on it.
                    log::warn("ops", "cannot accept gmctl: {}", system_error(errno));
                    loop.change(listener.get(), 0);
                    loop.timers().start(accept_again, accept_pause);
                    return;
                }
                if (errno == EINTR || errno == ECONNABORTED) continue;
                return;
            }
            if (connections.size() >= options.connections) {
                refused->add();
                const std::string text = error_line(
                    nullptr, "too_many_connections",
                    fmt::format("{} operators' tools are connected already; try again later",
                                connections.size()));
                // A fresh socket's buffer has room; if not, the tool sees the end alone.
                (void)::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
                continue;
            }
            auto c = std::make_shared<Connection>();
            c->server = this;
            c->fd = std::move(fd);
            c->deadline.bind<&Connection::on_deadline>(c.get());
            const int key = c->fd.get();
            connections.emplace(key, c);
            open_connections->set(static_cast<std::int64_t>(connections.size()));
            c->interest = EventLoop::readable;
            loop.watch(key, c->interest,
                       [this, weak = std::weak_ptr<Connection>(c)](unsigned ready) {
                           if (const ConnectionPtr strong = weak.lock()) on_ready(strong, ready);
                       });
            loop.timers().start(c->deadline, options.idle);
        }
    }

    void close(int key) {
        const auto it = connections.find(key);
        if (it == connections.end()) return;
        const ConnectionPtr c = it->second;
        connections.erase(it);
        c->deadline.stop();
        loop.unwatch(key);
        c->fd.reset();
        open_connections->set(static_cast<std::int64_t>(connections.size()));
    }

    void on_ready(const ConnectionPtr& c, unsigned ready) {
        if ((ready & EventLoop::writable) != 0 && !flush(c)) return;
        if ((ready & EventLoop::readable) != 0 && !receive(c)) return;
        advance(c);
    }

    // False: the connection is gone.
    bool receive(const ConnectionPtr& c) {
        std::array<char, 16384> buffer{};
        // Once a turn: a tool that writes without end gets its share, no more.
        if (c->input_ended || c->in.size() > options.request_octets) return true;
        const ssize_t n = ::recv(c->fd.get(), buffer.data(), buffer.size(), 0);
        if (n > 0) {
            c->in.append(buffer.data(), static_cast<std::size_t>(n));
            return true;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (n == 0) {
            c->input_ended = true;  // it may still be reading: finish the answer
            return true;
        }
        close(c->fd.get());
        return false;
    }

    // False: the connection is gone.
    bool flush(const ConnectionPtr& c) {
        while (c->unread() > 0) {
            const ssize_t n =
                ::send(c->fd.get(), c->out.data() + c->out_done, c->unread(), MSG_NOSIGNAL);
            if (n > 0) {
                c->out_done += static_cast<std::size_t>(n);
                loop.timers().start(c->deadline, c->unread() > 0 ? options.stalled : options.idle);
                continue;
            }
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN) break;
            close(c->fd.get());
            return false;
        }
        if (c->unread() == 0) {
            c->out.clear();
            c->out_done = 0;
            if (c->out.capacity() > options.output_octets * 2) c->out.shrink_to_fit();
        } else if (c->out_done > options.output_octets / 2) {
            c->out.erase(0, c->out_done);
            c->out_done = 0;
        }
        return true;
    }

    // Serves what can be served now, writes, and sets what to wait for.
    void advance(const ConnectionPtr& c) {
        // Written before each look at the bound: what is still unread then waits for the socket,
        // which will tell.
        do {
            if (!flush(c)) return;
        } while (serve_waiting(c));
        if (c->list && !c->turn_posted && c->unread() < options.output_octets) post_turn(c);
        if (c->unread() == 0 && !c->list &&
            (c->closing || (c->input_ended && c->in.find('\n') == std::string::npos))) {
            if (c->closing && !c->input_ended) {
                // What the tool sent and we did not read would turn our close into a reset, and eat
                // the last line.
                ::shutdown(c->fd.get(), SHUT_WR);
                drain_input(c);
            }
            close(c->fd.get());
            return;
        }
        unsigned interest = 0;
        if (!c->input_ended && !c->closing && c->in.size() <= options.request_octets)
            interest |= EventLoop::readable;
        if (c->unread() > 0) interest |= EventLoop::writable;
        if (interest != c->interest) {
            c->interest = interest;
            loop.change(c->fd.get(), interest);
        }
    }

    // True: something was answered.
    bool serve_waiting(const ConnectionPtr& c) {
        bool answered = false;
        while (!c->list && !c->closing && c->unread() < options.output_octets) {
            const std::size_t end = c->in.find('\n');
            if (std::min(end, c->in.size()) > options.request_octets) {
                answer_error(
                    c, nullptr, "too_large",
                    fmt::format("a request has at most {} octets", options.request_octets));
                c->closing = true;
                return true;
            }
            if (end == std::string::npos) break;
            std::string text = c->in.substr(0, end);
            c->in.erase(0, end + 1);
            if (!text.empty() && text.back() == '\r') text.pop_back();
            if (text.empty()) continue;
            serve(c, text);
            answered = true;
        }
        return answered;
    }

    void drain_input(const ConnectionPtr& c) {
        std::array<char, 65536> buffer{};
        for (int i = 0;
             i < 16 && ::recv(c->fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0; ++i) {
        }
    }

    // ---- requests

    metrics::Counter& error_counter(const std::string& code) {
        return registry.counter("gmgate_ops_errors_total",
                                "Requests of operators' tools that failed, by code.",
                                {{"code", code}});
    }
    void count_error(const std::string& code) { error_counter(code).add(); }

    void answer(const ConnectionPtr& c, std::string text) {
        const bool idle = c->unread() == 0;
        c->out += text;
        if (idle) loop.timers().start(c->deadline, options.stalled);
    }
    void answer_error(const ConnectionPtr& c, const json& id, const std::string& code,
                      std::string_view text) {
        count_error(code);
        answer(c, error_line(id, code, text));
    }

    void serve(const ConnectionPtr& c, const std::string& text) {
        const std::expected<Request, RequestError> request = parse_request(text);
        if (!request) {
            answer_error(c, request.error().id, request.error().code, request.error().text);
            return;
        }
        requests[static_cast<std::size_t>(request->operation)]->add();
        const auto unavailable = [&] {
            answer_error(
                c, request->id, "unavailable",
                fmt::format("{} is not available in this gateway", name(request->operation)));
        };
        switch (request->operation) {
            case Operation::version:
                answer(c, result_line(request->id, {{"version", views.version},
                                                    {"api", api_version},
                                                    {"backend", views.backend},
                                                    {"pid", ::getpid()},
                                                    {"uptime_seconds", uptime()}}));
                return;
            case Operation::health:
                answer(c, result_line(request->id, health()));
                return;
            case Operation::stats:
                answer(c, result_line(request->id, stats()));
                return;
            case Operation::drops:
                if (!views.drops) return unavailable();
                answer(c, result_line(request->id, drops()));
                return;
            case Operation::sa_count:
                if (views.sas == nullptr) return unavailable();
                answer(c, result_line(request->id, counts(views.sas->count())));
                return;
            case Operation::reg_count:
                if (views.registrations == nullptr) return unavailable();
                answer(c,
                       result_line(request->id, {{"registered", views.registrations->registered()},
                                                 {"pending", views.registrations->pending()}}));
                return;
            case Operation::reg_failures:
                if (views.failures == nullptr) return unavailable();
                failures(c, *request);
                return;
            case Operation::reg_reasons: {
                if (views.failures == nullptr) return unavailable();
                json rows = json::array();
                for (const FailureTotal& t : views.failures->failure_totals())
                    rows.push_back(to_json(t));
                answer(c, result_line(request->id, {{"reasons", std::move(rows)}}));
                return;
            }
            case Operation::reg_deregister:
                if (!views.deregister) return unavailable();
                deregister(c, *request);
                return;
            case Operation::trace:
                if (views.trace == nullptr) return unavailable();
                trace(c, *request);
                return;
            case Operation::sa_list:
            case Operation::sa_show:
                if (views.sas == nullptr) return unavailable();
                break;
            case Operation::reg_list:
            case Operation::reg_show:
                if (views.registrations == nullptr) return unavailable();
                break;
            case Operation::call_list:
                if (views.calls == nullptr) return unavailable();
                break;
        }
        if (const std::string mistake = check_state(*request); !mistake.empty()) {
            answer_error(c, request->id, "bad_argument", mistake);
            return;
        }
        c->list = *request;
        c->rows_given = 0;
    }

    // A state that does not exist would give an empty list, and the operator the wrong idea.
    [[nodiscard]] std::string check_state(const Request& r) const {
        if (!r.query.state) return "";
        std::vector<std::string> states;
        if (r.operation == Operation::sa_list || r.operation == Operation::sa_show) {
            for (const auto& [state, n] : views.sas->count()) states.push_back(state);
        } else {
            states = views.registrations->states();
        }
        if (std::find(states.begin(), states.end(), *r.query.state) != states.end()) return "";
        return fmt::format("there is no state '{}'; states are {}", r.query.state->substr(0, 64),
                           fmt::join(states, ", "));
    }

    double uptime() const {
        return std::chrono::duration<double>(loop.timers().now() - started).count();
    }

    json health() const {
        json items = json::array();
        bool ok = true;
        if (views.health) {
            for (const HealthItem& h : views.health()) {
                items.push_back({{"component", h.component}, {"ok", h.ok}, {"text", h.text}});
                ok = ok && h.ok;
            }
        }
        return {{"ok", ok}, {"components", std::move(items)}};
    }

    json stats() const {
        json samples = json::array();
        for (const metrics::Sample& s : registry.collect()) samples.push_back(to_json(s));
        return {{"uptime_seconds", uptime()}, {"metrics", std::move(samples)}};
    }

    json drops() const {
        json rows = json::array();
        for (const DropCount& d : views.drops()) {
            rows.push_back(
                {{"layer", d.layer}, {"reason", d.reason}, {"help", d.help}, {"count", d.count}});
        }
        return {{"drops", std::move(rows)}};
    }

    static json counts(const std::vector<std::pair<std::string, std::size_t>>& by_state) {
        json states = json::array();
        std::size_t total = 0;
        for (const auto& [state, n] : by_state) {
            states.push_back({{"state", state}, {"count", n}});
            total += n;
        }
        return {{"states", std::move(states)}, {"total", total}};
    }

    void trace(const ConnectionPtr& c, const Request& request) {
        json steps = json::array();
        const std::vector<std::string>& several = request.query.impis;
        if (!several.empty()) {
            for (const std::string& impi : several) {
                if (views.trace->steps(impi).empty()) return nothing_traced(c, request, impi);
            }
            for (const TraceStep& s : views.trace->steps(several)) steps.push_back(to_json(s));
            return answer(
                c, result_line(request.id, {{"impis", several}, {"steps", std::move(steps)}}));
        }
        for (const TraceStep& s : views.trace->steps(*request.query.impi))
            steps.push_back(to_json(s));
        if (steps.empty()) return nothing_traced(c, request, *request.query.impi);
        answer(c, result_line(request.id,
                              {{"impi", *request.query.impi}, {"steps", std::move(steps)}}));
    }
    void nothing_traced(const ConnectionPtr& c, const Request& request, const std::string& impi) {
        answer_error(c, request.id, "not_found",
                     fmt::format("nothing is remembered about {}; is the IMPI right? old messages "
                                 "are forgotten first",
                                 impi));
    }

    void failures(const ConnectionPtr& c, const Request& r) {
        if (r.query.reason && !views.failures->is_reason(*r.query.reason)) {
            // An empty list would give the operator the wrong idea.
            answer_error(c, r.id, "bad_argument",
                         fmt::format("there is no reason '{}'; 'gmctl explain' lists them",
                                     r.query.reason->substr(0, 64)));
            return;
        }
        json rows = json::array();
        for (const FailureRow& row : views.failures->latest_failures(
                 static_cast<std::size_t>(r.limit.value_or(100)), r.query.reason, r.query.impi)) {
            rows.push_back(to_json(row));
        }
        answer(c, result_line(r.id, {{"failures", std::move(rows)}}));
    }
    void deregister(const ConnectionPtr& c, const Request& r) {
        const std::string& impi = *r.query.impi;
        if (!views.deregister(impi)) {
            answer_error(
                c, r.id, "not_found",
                fmt::format("{} is not registered here; 'gmctl reg list' shows who is", impi));
            return;
        }
        // A phone out of service must be explicable later: who, and why.
        ucred who{};
        socklen_t length = sizeof(who);
        const bool known = ::getsockopt(c->fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) == 0;
        log::warn("ops", "{} deregistered by {}: {}", impi,
                  known ? fmt::format("uid {}", who.uid) : std::string("an operator"),
                  r.why.empty() ? std::string("no reason given") : r.why);
        answer(c, result_line(r.id, {{"impi", impi}, {"state", "leaving"}}));
    }
    // The latest failed registration of a phone; nullopt: none is remembered.
    [[nodiscard]] std::optional<FailureRow> last_failure(const std::string& impi) const {
        if (views.failures == nullptr) return std::nullopt;
        auto rows = views.failures->latest_failures(1, std::nullopt, impi);
        if (rows.empty()) return std::nullopt;
        return std::move(rows.front());
    }

    // ---- lists: one bounded scan a turn of the loop

    void post_turn(const ConnectionPtr& c) {
        c->turn_posted = true;
        loop.post([weak = std::weak_ptr<Connection>(c)] {
            const ConnectionPtr strong = weak.lock();
            if (!strong || !strong->fd.valid()) return;
            strong->turn_posted = false;
            if (strong->list) strong->server->turn(strong);
            strong->server->advance(strong);
        });
    }

    void turn(const ConnectionPtr& c) {
        Request& r = *c->list;
        std::size_t budget = options.rows_per_turn;
        if (r.limit)
            budget =
                static_cast<std::size_t>(std::min<std::uint64_t>(budget, *r.limit - c->rows_given));
        json rows = json::array();
        if (r.operation == Operation::sa_list || r.operation == Operation::sa_show) {
            r.cursor = views.sas->scan(r.query, r.cursor, budget, r.detail, [&](const SaRow& row) {
                if (matches(r.query, row) && (!r.set || *r.set == row.id))
                    rows.push_back(to_json(row, r.detail));
            });
        } else if (r.operation == Operation::call_list) {
            r.cursor = views.calls->scan(r.cursor, budget, [&](const CallRow& row) {
                if (matches(r.query, row)) rows.push_back(to_json(row));
            });
        } else {
            r.cursor = views.registrations->scan(
                r.query, r.cursor, budget, [&](const RegistrationRow& row) {
                    if (!matches(r.query, row)) return;
                    rows.push_back(to_json(row));
                    if (r.operation != Operation::reg_show) return;
                    if (const auto last = last_failure(row.impi))
                        rows.back()["last_failure"] = to_json(*last);
                });
        }
        c->rows_given += rows.size();
        if (!rows.empty()) answer(c, rows_line(r.id, std::move(rows)));
        if (r.cursor != 0 && !(r.limit && c->rows_given >= *r.limit)) return;
        const bool show = r.operation == Operation::sa_show || r.operation == Operation::reg_show;
        if (show && c->rows_given == 0) {
            std::string text = r.operation == Operation::sa_show ? "no SA set is like that"
                                                                 : "no registration is like that";
            if (const auto last = r.operation == Operation::reg_show && r.query.impi
                                      ? last_failure(*r.query.impi)
                                      : std::nullopt) {
                text += fmt::format(
                    "; the latest attempt failed {} s ago: {}: {} {} ('gmctl trace' draws it)",
                    std::chrono::duration_cast<std::chrono::seconds>(last->age).count(),
                    last->reason, last->meaning, last->remedy);
            }
            answer_error(c, r.id, "not_found", text);
        } else {
            answer(c, end_line(r.id, r.cursor));
        }
        c->list.reset();
    }

    EventLoop& loop;
    metrics::Registry& registry;
    Views views;
    ServerOptions options;
    LockFile lock;
    TimePoint started;
    UniqueFd listener;
    Timer accept_again;
    std::map<int, ConnectionPtr> connections;
    std::array<metrics::Counter*, operation_count> requests{};
    metrics::Counter* refused = nullptr;
    metrics::Gauge* open_connections = nullptr;
};

OpsServer::OpsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OpsServer::~OpsServer() = default;

std::size_t OpsServer::connections() const {
    return impl_->connections.size();
}

Result<LockFile> OpsServer::lock(const std::string& socket) {
    if (socket.empty() || socket.size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(ErrorKind::invalid, fmt::format("ops.socket: a path has 1 to {} octets",
                                                    sizeof(sockaddr_un::sun_path) - 1));
    }
    // /run/gmgate is there under systemd, and made by hand; any other folder is the operator's, and
    // a missing one most likely a slip of the pen.
    const std::size_t slash = socket.rfind('/');
    if (slash != std::string::npos && slash > 0) {
        const std::string folder = socket.substr(0, slash);
        if (folder == "/run/gmgate") (void)::mkdir(folder.c_str(), 0755);
        struct stat info{};
        if (::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
            return fail(
                ErrorKind::invalid,
                fmt::format("ops.socket: {} is no folder; make it (mkdir -p {}), or look for "
                            "a slip of the pen in the path",
                            folder, folder));
        }
    }
    return LockFile::take(socket + ".lock");
}

Result<std::unique_ptr<OpsServer>> OpsServer::listen(EventLoop& loop, metrics::Registry& registry,
                                                     Views views, ServerOptions options,
                                                     LockFile lock) {
    Result<UniqueFd> fd = open_socket(options.socket, options.group);
    if (!fd) return std::unexpected(fd.error());
    auto impl = std::make_unique<Impl>(loop, registry, std::move(views), std::move(options),
                                       std::move(lock));
    impl->start(std::move(*fd));
    return std::unique_ptr<OpsServer>(new OpsServer(std::move(impl)));
}

Result<std::unique_ptr<OpsServer>> OpsServer::listen(EventLoop& loop, metrics::Registry& registry,
                                                     Views views, ServerOptions options) {
    Result<LockFile> held = lock(options.socket);
    if (!held) return std::unexpected(held.error());
    return listen(loop, registry, std::move(views), std::move(options), std::move(*held));
}

}  // namespace gmgate::ops
