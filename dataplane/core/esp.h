#pragma once
// ESP's layout (RFC 4303 2) for the suites of A9: lengths, trailer, padding. Octets throughout.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "sa/algorithms/suite.h"

namespace gmgate::dataplane {

inline constexpr std::uint32_t esp_header_size = 8;   // SPI, sequence number
inline constexpr std::uint32_t esp_trailer_size = 2;  // pad length, next header

struct EspGeometry {
    std::uint8_t iv = 0;
    std::uint8_t icv = 0;
    std::uint8_t block = 4;  // payload + padding + trailer is a multiple of it

    // ESP header and IV: where the payload begins.
    [[nodiscard]] std::uint32_t head() const { return esp_header_size + iv; }
    // Smallest ESP packet: one block.
    [[nodiscard]] std::uint32_t minimum() const { return head() + block + icv; }
    // `size`: from SPI to the end of the ICV; at least minimum().
    [[nodiscard]] bool aligned(std::uint32_t size) const {
        return ((size - head() - icv) & (block - 1U)) == 0;
    }
    // Padding octets for `payload` octets.
    [[nodiscard]] std::uint32_t padding(std::uint32_t payload) const {
        return (0U - (payload + esp_trailer_size)) & (block - 1U);
    }
    // Octets that ESP adds to `payload`.
    [[nodiscard]] std::uint32_t overhead(std::uint32_t payload) const {
        return head() + padding(payload) + esp_trailer_size + icv;
    }
};

// By index in sa::all_suites.
using EspGeometries = std::array<EspGeometry, sa::all_suites.size()>;
[[nodiscard]] EspGeometries esp_geometries();

// Writes padding 1, 2, 3 … , pad length and next header behind the payload (RFC 4303 2.4).
inline void write_trailer(std::uint8_t* at, std::uint32_t padding, std::uint8_t next_header) {
    for (std::uint32_t i = 0; i < padding; ++i) at[i] = static_cast<std::uint8_t>(i + 1);
    at[padding] = static_cast<std::uint8_t>(padding);
    at[padding + 1] = next_header;
}

}  // namespace gmgate::dataplane
