#pragma once
// The commands of the control socket; see control_socket.h for their list.

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "home/control_socket.h"
#include "home/cx_log.h"
#include "home/registrar.h"
#include "home/server.h"

namespace gmgate::home {

// Holds references: all must outlive it and its late replies.
class Commands {
  public:
    // Reads the subscribers anew; what came of it, for people. Empty: there is no file.
    using Reload = std::function<Result<std::string>()>;
    Commands(Server& server, Registrar& registrar, const CxLog& cx, Reload reload = {})
        : server_(server), registrar_(registrar), cx_(cx), reload_(std::move(reload)) {}
    void execute(std::string_view line, CommandReply reply);

  private:
    [[nodiscard]] std::string cx_lines(std::string_view impi) const;
    void originate(std::string_view method, std::string_view to, std::string_view text,
                   CommandReply reply);

    [[nodiscard]] std::string reload() const;
    [[nodiscard]] std::string reauthenticate(std::string_view words);
    [[nodiscard]] std::string deregister(std::string_view impi, std::string_view options);
    // By public or private identity; nullptr: not registered.
    [[nodiscard]] const Binding* user(std::string_view identity);

    Server& server_;
    Registrar& registrar_;
    const CxLog& cx_;
    Reload reload_;
};

}  // namespace gmgate::home
