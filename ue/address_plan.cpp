#include "ue/address_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace gmgate::ue {

namespace {

// The low 64 bits of an address; host numbers never need more.
std::uint64_t low(const IpAddress& a) {
    const auto o = a.octets();
    std::uint64_t v = 0;
    for (const std::uint8_t b : o.last(a.is_v6() ? 8 : 4)) v = (v << 8U) | b;
    return v;
}

IpAddress with_low(const IpAddress& a, std::uint64_t v) {
    std::array<std::uint8_t, 16> o = a.raw();
    const std::size_t size = a.is_v6() ? 16 : 4;
    const std::size_t low_size = a.is_v6() ? 8 : 4;
    for (std::size_t i = 0; i < low_size; ++i)
        o[size - 1 - i] = static_cast<std::uint8_t>(v >> (8 * i));
    return a.is_v6() ? IpAddress::v6(o)
                     : IpAddress::v4(std::span<const std::uint8_t, 4>(o.data(), 4));
}

}  // namespace

Result<AddressPlan> AddressPlan::parse(std::string_view text) {
    AddressPlan plan;
    const auto slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    if (!address)
        return fail(ErrorKind::invalid, fmt::format("'{}' is not an address or network", text));
    plan.base_ = *address;
    const unsigned bits = address->is_v6() ? 128 : 32;
    plan.prefix_ = bits;
    if (slash != std::string_view::npos) {
        const auto length = text.substr(slash + 1);
        const auto [end, ec] =
            std::from_chars(length.data(), length.data() + length.size(), plan.prefix_);
        if (ec != std::errc{} || end != length.data() + length.size() || plan.prefix_ > bits) {
            return fail(ErrorKind::invalid,
                        fmt::format("'{}': the prefix length is 0 to {}", text, bits));
        }
        if (plan.prefix_ < (address->is_v6() ? 64U : 8U)) {
            return fail(ErrorKind::invalid, fmt::format("'{}': give a network of /{} or smaller",
                                                        text, address->is_v6() ? 64 : 8));
        }
    }
    if (!plan.single() && (low(plan.base_) & (plan.last() | 1U)) != 0) {
        return fail(
            ErrorKind::invalid,
            fmt::format("'{}': host bits are set; the network's address is {}", text,
                        with_low(plan.base_, low(plan.base_) & ~(plan.last() | 1U)).to_string()));
    }
    return plan;
}

std::uint64_t AddressPlan::last() const {
    if (single()) return 0;
    const unsigned host_bits = std::min(64U, (base_.is_v6() ? 128U : 32U) - prefix_);
    const std::uint64_t all =
        host_bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << host_bits) - 1;
    return all - (base_.is_v6() ? 0 : 1);
}

IpAddress AddressPlan::host(std::uint64_t number) const {
    return with_low(base_, low(base_) + number);
}

std::optional<std::uint64_t> AddressPlan::number(const IpAddress& address) const {
    if (address.is_v6() != base_.is_v6()) return std::nullopt;
    const std::uint64_t n = low(address) - low(base_);
    if (n > last() || host(n) != address) return std::nullopt;
    return n;
}

std::string AddressPlan::to_string() const {
    return single() ? base_.to_string() : fmt::format("{}/{}", base_.to_string(), prefix_);
}

}  // namespace gmgate::ue
