#include "home/from_hss.h"

#include <string>

#include "base/log.h"

namespace gmgate::home {

namespace {
constexpr std::string_view area = "home";
}

void FromHss::terminate(std::string_view impi, std::string_view why) {
    ++counters_.terminated;
    log::info(area, "{}: the HSS withdraws it: {}", impi, why);
    registrar_.withdraw(impi);
}

void FromHss::profile_changed(std::string_view impi, const Profile& profile) {
    ++counters_.profiles;
    registrar_.update(impi, profile);
}

void FromHss::reauthenticate(std::string_view impi) {
    const auto* binding = registrar_.find_user(impi);
    if (binding == nullptr) return;
    ++counters_.reauthenticated;
    if (const auto begun = reauthentication_.begin({std::string(binding->default_impu)}); !begun)
        log::info(area, "{}: {}", impi, begun.error().text);
}

}  // namespace gmgate::home
