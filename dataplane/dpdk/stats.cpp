#include "dataplane/dpdk/stats.h"

namespace gmgate::dataplane {
namespace {

struct Entry {
    std::string_view name;
    std::string_view help;
};
constexpr std::array<Entry, port_drop_reason_count> entries{{
#define GMGATE_X(name, help) {#name, help},
    GMGATE_PORT_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
}};

}  // namespace

std::string_view name(PortDropReason reason) {
    return entries[static_cast<std::size_t>(reason)].name;
}
std::string_view help(PortDropReason reason) {
    return entries[static_cast<std::size_t>(reason)].help;
}

}  // namespace gmgate::dataplane
