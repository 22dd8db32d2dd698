#pragma once
// Looks for octets on this process's heap, which a core dump contains. Freed memory is looked
// through as well; a sanitizer keeps its heap elsewhere.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>

namespace gmgate::test {

// How often the octets stand there.
inline std::size_t on_the_heap(std::span<const std::uint8_t> octets) {
    std::ifstream maps("/proc/self/maps");
    std::size_t found = 0;
    for (std::string line; std::getline(maps, line);) {
        if (!line.ends_with("[heap]")) continue;
        const std::size_t dash = line.find('-');
        const auto* at =
            reinterpret_cast<const std::uint8_t*>(std::stoul(line.substr(0, dash), nullptr, 16));
        const auto* end =
            reinterpret_cast<const std::uint8_t*>(std::stoul(line.substr(dash + 1), nullptr, 16));
        while ((at = std::search(at, end, octets.begin(), octets.end())) != end) {
            ++found;
            ++at;
        }
    }
    return found;
}

}  // namespace gmgate::test
