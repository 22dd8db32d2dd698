#pragma once
// The operator's small door: one command a line over a Unix socket, `gmhome ctl` on the other end.
//
//   message TO TEXT…      a MESSAGE to a registered phone        200 OK
//   options TO            an OPTIONS                             200 OK
//   deregister TO [--reason rejected|deactivated|probation]      ok
//                         administrative deregistration
//   reauth TO…            re-authentication of these identities of one user begins   ok
//   rechallenge TO always|never   its protected re-REGISTERs are challenged, or not   ok
//   show TO               the binding of a registered phone
//   reload                the file of subscribers again         ok
//   cx [IMPI]             the latest Cx operations, CM1 to CM4, with the registration flag before
//                         and after (needs --trace-cx)
//   stats                 counters as JSON
//
// An answer is one or more lines and ends with the connection; its first word is a SIP status, "ok"
// or "error:".

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"

namespace gmgate::home {

// Executes one command line; `reply` is called once, from inside the call or later, with the whole
// answer.
using CommandReply = std::function<void(std::string answer)>;
using CommandHandler = std::function<void(std::string_view line, CommandReply reply)>;

// Loop's thread only. At most 16 connections; a line is at most 4 KiB; both are refused with an
// "error:" line.
class ControlSocket {
  public:
    // Makes the socket with mode 0600 and removes it when destroyed. A socket file nobody listens
    // on is replaced; one that is in use is an error.
    static Result<std::unique_ptr<ControlSocket>> open(EventLoop& loop, const std::string& path,
                                                       CommandHandler handler);
    ~ControlSocket();
    ControlSocket(const ControlSocket&) = delete;
    ControlSocket& operator=(const ControlSocket&) = delete;

  private:
    struct Impl;
    explicit ControlSocket(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;  // late answers hold it weakly
};

// The client: sends the line, returns the whole answer. Blocking.
Result<std::string> control_command(const std::string& path, std::string_view line);

}  // namespace gmgate::home
