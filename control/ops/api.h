#pragma once
// The operator's API: a versioned protocol on a Unix socket, served on the control thread's loop
// without ever blocking it.
//
// Protocol (docs/operating/api.md has the long form): one JSON object per line. Request:
// {"v":1,"id":7,"op":"sa.list","args":{…}}. Answer: one or more lines with the same "id"; the last
// one has "done":true. Lists come as {"rows":[…]} lines, everything else as one {"result":{…}},
// mistakes as {"error":{"code":"…","text":"…"}} (which is always the last line). A connection
// serves one request at a time, in order; requests may be sent ahead, within the input buffer.
//
// Operations: version; health; stats; drops; sa.list, sa.show, sa.count; reg.list, reg.show,
// reg.count, reg.failures, reg.reasons, reg.deregister; trace; call.list. No operation returns a
// key (S1); only reg.deregister changes the gateway, and the log says who asked for it.

#include <cstddef>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/metrics.h"
#include "base/result.h"
#include "control/ops/lock_file.h"
#include "control/ops/views.h"

namespace gmgate::ops {

inline constexpr int api_version = 1;

struct ServerOptions {
    std::string socket;  // path; at most 107 octets
    std::string group;   // name or number; empty: the process's own. The socket's mode is 0660
    std::size_t connections = 64;              // one more is told so and closed
    std::size_t request_octets = 16 * 1024;    // longest request line
    std::size_t output_octets = 256 * 1024;    // unread answer after which a list pauses
    std::size_t rows_per_turn = 256;           // rows looked at before other work gets its turn
    Duration idle = std::chrono::minutes(10);  // without a request: closed
    Duration stalled =
        std::chrono::minutes(5);  // a reader that takes nothing for so long is closed
};

class OpsServer {
  public:
    // One gmgated per socket: take this before anything is touched, so that a second copy is
    // refused before it disturbs the first. Makes /run/gmgate if that is the socket's directory;
    // any other must exist (invalid). conflict: another gmgated holds it (the text names its pid).
    [[nodiscard]] static Result<LockFile> lock(const std::string& socket);

    // With the lock taken before; otherwise as below.
    [[nodiscard]] static Result<std::unique_ptr<OpsServer>> listen(EventLoop& loop,
                                                                   metrics::Registry& registry,
                                                                   Views views,
                                                                   ServerOptions options,
                                                                   LockFile lock);
    // Takes the lock (`socket` + ".lock", flock), replaces a socket a dead gmgated left behind,
    // listens. conflict: another gmgated holds the lock (the text names its pid); denied:
    // permission or unknown group; invalid: the path; io: anything else. `loop`, `registry` and
    // what `views` points to outlive the server. The loop's thread only.
    [[nodiscard]] static Result<std::unique_ptr<OpsServer>> listen(EventLoop& loop,
                                                                   metrics::Registry& registry,
                                                                   Views views,
                                                                   ServerOptions options);
    // Closes all connections, removes the socket, gives the lock back.
    ~OpsServer();
    OpsServer(const OpsServer&) = delete;
    OpsServer& operator=(const OpsServer&) = delete;

    [[nodiscard]] std::size_t connections() const;

  private:
    struct Impl;
    explicit OpsServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::ops
