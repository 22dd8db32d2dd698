#pragma once
// The opaque user part of our Path and Record-Route URIs (E1): names a user of the SA database, and
// nobody but us can make one.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/random.h"
#include "base/seeded_hash.h"

namespace gmgate::registration {

// 16 hex digits of the user's number and 32 of a keyed tag over it (SipHash under two keys): a
// stranger would have to guess 128 bits. The key is drawn at start, or given, so that the tokens of
// a restored snapshot stay good.
class FlowTokens {
  public:
    static constexpr std::size_t size = 48;
    using Key = std::array<std::uint64_t, 4>;
    using Text = std::array<char, size>;

    explicit FlowTokens(const Key& key) : a_(key[0], key[1]), b_(key[2], key[3]) {}
    static Key draw(Random& random) {
        return {random.u64(), random.u64(), random.u64(), random.u64()};
    }

    [[nodiscard]] Text make(std::uint64_t user) const;
    // The user's number, if the token is ours. Constant time in the tag.
    [[nodiscard]] std::optional<std::uint64_t> open(std::string_view token) const;

  private:
    SeededHash a_;
    SeededHash b_;
};

}  // namespace gmgate::registration
