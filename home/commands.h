#pragma once
// The commands of the control socket; see control_socket.h for their list.

#include <string>
#include <string_view>

#include "home/control_socket.h"
#include "home/cx_log.h"
#include "home/registrar.h"
#include "home/server.h"

namespace gmgate::home {

// Holds references: all must outlive it and its late replies.
class Commands {
  public:
    Commands(Server& server, Registrar& registrar, const CxLog& cx)
        : server_(server), registrar_(registrar), cx_(cx) {}
    void execute(std::string_view line, CommandReply reply);

  private:
    [[nodiscard]] std::string cx_lines(std::string_view impi) const;
    void originate(std::string_view method, std::string_view to, std::string_view text,
                   CommandReply reply);

    Server& server_;
    Registrar& registrar_;
    const CxLog& cx_;
};

}  // namespace gmgate::home
