// Any octets as a configuration: an answer, never a crash; and every mistake is one line with the
// file's name.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gmgate;
    const Result<config::Config> c =
        config::load_string({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
    if (c.has_value()) {
        // What the loader lets through keeps its promises.
        const bool sane = !c->gateway.name.empty() && !c->gm.addresses.empty() &&
                          !c->core.listen.empty() && !c->security.suites.empty() &&
                          !c->gm.port_ps.contains(5060) && !c->gm.port_ps.contains(5061) &&
                          !c->gm.port_pc.contains(5060) && !c->gm.port_pc.contains(5061) &&
                          c->limits.registrations <= c->dpdk.max_sets;
        if (!sane) std::abort();
        return 0;
    }
    std::string_view text = c.error().text;
    if (text.empty()) std::abort();
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (!line.starts_with("fuzz.yaml:")) std::abort();
        for (const char ch : line) {
            if (static_cast<unsigned char>(ch) < 0x20) std::abort();
        }
        text.remove_prefix(line.size() == text.size() ? text.size() : line.size() + 1);
    }
    return 0;
}
