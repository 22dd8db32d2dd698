#pragma once
// Which address is which phone's: one address a phone, counted up inside a network.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace gmgate::ue {

class AddressPlan {
  public:
    // "10.20.0.0/16", "fd00:20::/64"; an address without a length stands for itself alone.
    static Result<AddressPlan> parse(std::string_view text);

    // The host with that number; number 0 is the network's own address (or the address alone).
    [[nodiscard]] IpAddress host(std::uint64_t number) const;
    // nullopt: outside the network.
    [[nodiscard]] std::optional<std::uint64_t> number(const IpAddress& address) const;
    // Highest usable host number: without the broadcast address of IPv4.
    [[nodiscard]] std::uint64_t last() const;
    [[nodiscard]] bool single() const { return prefix_ == (base_.is_v6() ? 128U : 32U); }
    [[nodiscard]] bool is_v6() const { return base_.is_v6(); }
    [[nodiscard]] std::string to_string() const;

  private:
    IpAddress base_;
    unsigned prefix_ = 32;
};

}  // namespace gmgate::ue
