#pragma once
// The operator's command line: what main() calls, and the tests.

#include <iosfwd>
#include <string>
#include <vector>

#include "control/cli/text.h"

namespace gmgate::cli {

enum ExitCode : int {
    exit_ok = 0,
    exit_gateway = 1,  // the gateway says no, or is not in health
    exit_usage = 2,
    exit_connection = 3,
};

struct Terminal {
    std::ostream& out;
    std::ostream& err;
    Style style;
};

// `arguments` without the program's name. `default_socket` is used without --socket.
[[nodiscard]] int gmctl(const std::vector<std::string>& arguments,
                        const std::string& default_socket, const std::string& version,
                        Terminal terminal);

}  // namespace gmgate::cli
