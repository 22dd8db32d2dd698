#pragma once
// What a run that may be killed changed on the Gm interface, kept in a small file for the next
// start to put back. The file is trusted as little as possible: it is opened without following
// links, must be the process's own, and can name nothing beyond what TakenInterface changes.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/dpdk/interface.h"

namespace gmgate::dataplane {

struct TakenRecord {
    struct Sysctl {
        std::string family;  // "ipv4" or "ipv6"
        std::string key;
        std::string value;  // as it was
        bool operator==(const Sysctl&) const = default;
    };
    struct Feature {
        std::uint32_t set;  // ETHTOOL_S…
        std::uint32_t value;
        bool operator==(const Feature&) const = default;
    };
    int index = 0;  // of the interface, with its MAC: guards against mistaking another
    MacAddress mac{};
    unsigned flags = 0;  // IFF_… that were not set
    std::vector<Sysctl> sysctls;
    std::vector<Feature> features;
    bool operator==(const TakenRecord&) const = default;

    // Mode 0600. denied: something else lies there (a link, another's file).
    [[nodiscard]] Result<void> write(const std::string& path) const;
    // nullopt: no file, or not one this program can have written.
    [[nodiscard]] static std::optional<TakenRecord> read(const std::string& path);
    // Whether TakenInterface ever changes it.
    [[nodiscard]] static bool may_change(std::string_view family, std::string_view key);
};

}  // namespace gmgate::dataplane
