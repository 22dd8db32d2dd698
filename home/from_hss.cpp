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

void FromHss::profile_changed(std::string_view impi, const std::vector<Profile>& profiles) {
    ++counters_.profiles;
    registrar_.update(impi, profiles);
}

void FromHss::reauthenticate(std::string_view impi) {
    const auto identities = registrar_.default_identities(impi);
    if (identities.empty()) return;
    ++counters_.reauthenticated;
    if (const auto begun = reauthentication_.begin(identities); !begun)
        log::info(area, "{}: {}", impi, begun.error().text);
}

}  // namespace gmgate::home
