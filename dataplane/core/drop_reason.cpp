#include "dataplane/core/drop_reason.h"

#include <array>

namespace gmgate::dataplane {
namespace {

struct Text {
    std::string_view name;
    std::string_view help;
};
constexpr std::array<Text, drop_reason_count> texts{{
#define GMGATE_X(name, help) {#name, help},
    GMGATE_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
}};

}  // namespace

std::string_view name(DropReason reason) {
    return texts[static_cast<std::size_t>(reason)].name;
}
std::string_view help(DropReason reason) {
    return texts[static_cast<std::size_t>(reason)].help;
}

}  // namespace gmgate::dataplane
