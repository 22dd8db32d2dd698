// Any text as the body of a NOTIFY of the registration event package, in both forms: what is read
// keeps the limits, and what is written of it reads as the same.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "control/sip/reginfo.h"

using namespace gmgate;
using namespace gmgate::sip;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

bool same(const RegEntry& a, const RegEntry& b) {
    if (a.state != b.state || a.reauthenticate != b.reauthenticate ||
        a.contacts.size() != b.contacts.size())
        return false;
    for (std::size_t i = 0; i < a.contacts.size(); ++i) {
        if (a.contacts[i].event != b.contacts[i].event ||
            a.contacts[i].active != b.contacts[i].active ||
            a.contacts[i].expires != b.contacts[i].expires)
            return false;
    }
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const RegProfile profile : {RegProfile::rfc3680, RegProfile::seed}) {
        const auto info = parse_reginfo(profile, text);
        if (!info) {
            require(!info.error().text.empty() && info.error().text.size() < 100);
            continue;
        }
        require(size <= max_reginfo && info->entries.size() <= max_reg_entries);
        require(info->version.has_value() == (profile == RegProfile::rfc3680));
        bool plain = true;  // nothing in it that the writer has to leave out
        for (const RegEntry& e : info->entries) {
            require(!e.aor.empty() && e.aor.size() <= max_reg_text);
            require(e.contacts.size() <= max_reg_contacts && e.covered_by.size() <= max_reg_text);
            for (const char c : e.aor) plain = plain && static_cast<unsigned char>(c) >= 0x20;
            for (const RegContact& c : e.contacts) {
                for (const char d : c.uri) plain = plain && static_cast<unsigned char>(d) >= 0x20;
            }
        }
        const auto written = write_reginfo(profile, *info);
        if (!plain || written.size() > max_reginfo) continue;
        const auto again = parse_reginfo(profile, written);
        require(again.has_value() && again->version == info->version && again->full == info->full &&
                again->entries.size() == info->entries.size());
        for (std::size_t i = 0; i < info->entries.size(); ++i)
            require(same(info->entries[i], again->entries[i]));
    }
    return 0;
}
