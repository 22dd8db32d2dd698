#pragma once
// A list of short texts in one allocation: what is kept for a user must be small.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"

namespace gmgate::sa {

class PackedStrings {
  public:
    static constexpr std::size_t max_octets = 65535;  // of one text
    static constexpr std::size_t max_texts = 1024;

    PackedStrings() = default;
    // invalid: a text or the list is too long.
    [[nodiscard]] static Result<PackedStrings> pack(std::span<const std::string_view> texts);

    [[nodiscard]] std::size_t size() const;
    // Empty if there is no such text. Valid while the object lives unchanged.
    [[nodiscard]] std::string_view operator[](std::size_t i) const;
    // Octets allocated.
    [[nodiscard]] std::size_t octets() const;

  private:
    // count (2 octets), then the end of each text (4 octets each), then the octets of the texts.
    std::unique_ptr<std::uint8_t[]> block_;
};

}  // namespace gmgate::sa
