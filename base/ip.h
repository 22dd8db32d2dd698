#pragma once
// IPv4 and IPv6 addresses and transport endpoints, as plain values.

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace gmgate {

// One address. IPv4 is held in the first 4 octets, the other 12 are zero, so equality is one
// 16-octet comparison.
class IpAddress {
  public:
    constexpr IpAddress() = default;
    static IpAddress v4(std::span<const std::uint8_t, 4> octets);
    static IpAddress v6(std::span<const std::uint8_t, 16> octets);
    // Textual form, IPv6 with or without brackets; no zone. nullopt: not an address.
    static std::optional<IpAddress> parse(std::string_view text);

    [[nodiscard]] bool is_v6() const { return v6_; }
    [[nodiscard]] bool is_unspecified() const;
    // 4 or 16 octets in network order.
    [[nodiscard]] std::span<const std::uint8_t> octets() const {
        return {octets_.data(), v6_ ? 16U : 4U};
    }
    [[nodiscard]] const std::array<std::uint8_t, 16>& raw() const { return octets_; }
    // The textual form without a heap cell.
    class Text {
      public:
        [[nodiscard]] std::string_view view() const { return {octets_.data(), size_}; }

      private:
        friend class IpAddress;
        std::array<char, INET6_ADDRSTRLEN> octets_{};
        std::size_t size_ = 0;
    };
    [[nodiscard]] Text text() const;
    [[nodiscard]] std::string to_string() const;    // 2001:db8::1
    [[nodiscard]] std::string to_uri_host() const;  // [2001:db8::1]

    // With all but its first `bits` bits zero; `bits` beyond the address's length: itself.
    [[nodiscard]] IpAddress network(unsigned bits) const;

    auto operator<=>(const IpAddress&) const = default;

  private:
    std::array<std::uint8_t, 16> octets_{};
    bool v6_ = false;
};

// The addresses whose first `length` bits are those of `address`.
struct Network {
    IpAddress address;
    unsigned length = 0;  // 0–32 or 0–128

    [[nodiscard]] bool contains(const IpAddress& a) const {
        return a.is_v6() == address.is_v6() && a.network(length) == address.network(length);
    }
    bool operator==(const Network&) const = default;
};

// Address and port (host order).
struct Endpoint {
    IpAddress address;
    std::uint16_t port = 0;

    auto operator<=>(const Endpoint&) const = default;
    [[nodiscard]] std::string to_string() const;  // 10.0.0.1:5060, [2001:db8::1]:5060
    // "10.0.0.1:5060", "[::1]:5060", or an address alone (then `default_port`).
    static std::optional<Endpoint> parse(std::string_view text, std::uint16_t default_port = 0);

    // Fills `storage`, returns the length to hand to the socket call.
    socklen_t to_sockaddr(sockaddr_storage& storage) const;
    static Endpoint from_sockaddr(const sockaddr_storage& storage);
};

// 64-bit mix of the octets; not keyed: tables a stranger can fill use a seeded hash of their own.
std::uint64_t hash_value(const IpAddress& address, std::uint64_t seed = 0x9E3779B97F4A7C15ULL);

}  // namespace gmgate

template <>
struct std::hash<gmgate::IpAddress> {
    std::size_t operator()(const gmgate::IpAddress& a) const noexcept {
        return gmgate::hash_value(a);
    }
};
template <>
struct std::hash<gmgate::Endpoint> {
    std::size_t operator()(const gmgate::Endpoint& e) const noexcept {
        return gmgate::hash_value(e.address, 0x9E3779B97F4A7C15ULL + e.port);
    }
};
