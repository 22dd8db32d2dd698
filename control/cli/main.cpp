// gmctl: terminal, environment, and nothing else. SIGINT and SIGPIPE keep their default: Ctrl-C and
// `| head` end it quietly.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "control/cli/gmctl.h"

namespace {

std::string_view environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string_view() : std::string_view(value);
}

gmgate::cli::Style style_of_terminal() {
    gmgate::cli::Style style;
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
        const std::string_view value = environment(name);
        if (value.empty()) continue;
        style.unicode = value.find("UTF-8") != std::string_view::npos ||
                        value.find("utf8") != std::string_view::npos;
        break;
    }
    const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    style.colour = terminal && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
    const std::string columns(environment("COLUMNS"));
    winsize size{};
    if (!columns.empty())
        style.width = std::strtoul(columns.c_str(), nullptr, 10);
    else if (terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        style.width = size.ws_col;
    return style;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view socket = environment("GMGATE_SOCKET");
    return gmgate::cli::gmctl(std::vector<std::string>(argv + 1, argv + argc),
                              socket.empty() ? "/run/gmgate/gmgated.sock" : std::string(socket),
                              GMGATE_VERSION, {std::cout, std::cerr, style_of_terminal()});
}
