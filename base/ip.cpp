#include "base/ip.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace gmgate {

IpAddress IpAddress::v4(std::span<const std::uint8_t, 4> octets) {
    IpAddress a;
    std::copy(octets.begin(), octets.end(), a.octets_.begin());
    return a;
}

IpAddress IpAddress::v6(std::span<const std::uint8_t, 16> octets) {
    IpAddress a;
    std::copy(octets.begin(), octets.end(), a.octets_.begin());
    a.v6_ = true;
    return a;
}

namespace {

// Four decimal numbers without leading zeros, as inet_pton wants them; it would need a copy of the
// text, and most hosts of a SIP message are names.
std::optional<IpAddress> parse_v4(std::string_view text) {
    std::array<std::uint8_t, 4> octets{};
    const char* p = text.data();
    const char* const end = p + text.size();
    for (std::size_t i = 0; i < octets.size(); ++i) {
        if (i != 0) {
            if (p == end || *p != '.') return std::nullopt;
            ++p;
        }
        unsigned number = 0;
        const char* const begin = p;
        for (; p != end && *p >= '0' && *p <= '9'; ++p) {
            if (p - begin == 3) return std::nullopt;
            number = number * 10 + static_cast<unsigned>(*p - '0');
        }
        if (p == begin || number > 255 || (*begin == '0' && p - begin > 1)) return std::nullopt;
        octets[i] = static_cast<std::uint8_t>(number);
    }
    if (p != end) return std::nullopt;
    return IpAddress::v4(octets);
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
    if (text.size() >= 2 && text.front() == '[' && text.back() == ']') {
        text = text.substr(1, text.size() - 2);
        if (text.find(':') == std::string_view::npos) return std::nullopt;
    }
    if (text.find(':') == std::string_view::npos) return parse_v4(text);
    std::array<char, INET6_ADDRSTRLEN> buffer{};
    if (text.size() >= buffer.size()) return std::nullopt;
    if (text.find('\0') != std::string_view::npos)
        return std::nullopt;  // inet_pton would stop there
    std::copy(text.begin(), text.end(), buffer.begin());
    std::array<std::uint8_t, 16> octets{};
    if (inet_pton(AF_INET6, buffer.data(), octets.data()) == 1) return v6(octets);
    return std::nullopt;
}

bool IpAddress::is_unspecified() const {
    return std::all_of(octets_.begin(), octets_.end(), [](std::uint8_t o) { return o == 0; });
}

IpAddress IpAddress::network(unsigned bits) const {
    IpAddress a = *this;
    const std::size_t size = octets().size();
    for (std::size_t i = 0; i < size; ++i) {
        const auto first = static_cast<unsigned>(i) * 8;
        if (first + 8 <= bits) continue;
        const unsigned kept = bits > first ? bits - first : 0;
        a.octets_[i] = static_cast<std::uint8_t>(a.octets_[i] & (0xFF00U >> kept));
    }
    return a;
}

IpAddress::Text IpAddress::text() const {
    Text text;
    if (v6_) {
        inet_ntop(AF_INET6, octets_.data(), text.octets_.data(), INET6_ADDRSTRLEN);
        text.size_ = std::strlen(text.octets_.data());
        return text;
    }
    char* const begin = text.octets_.data();
    char* p = begin;  // inet_ntop prints IPv4 through sprintf: ten times slower
    for (std::size_t i = 0; i < 4; ++i) {
        if (i != 0) *p++ = '.';
        p = std::to_chars(p, begin + text.octets_.size(), octets_[i]).ptr;
    }
    text.size_ = static_cast<std::size_t>(p - begin);
    return text;
}

std::string IpAddress::to_string() const {
    return std::string(text().view());
}

std::string IpAddress::to_uri_host() const {
    return v6_ ? "[" + to_string() + "]" : to_string();
}

std::string Endpoint::to_string() const {
    return address.to_uri_host() + ":" + std::to_string(port);
}

std::optional<Endpoint> Endpoint::parse(std::string_view text, std::uint16_t default_port) {
    if (const auto alone = IpAddress::parse(text)) return Endpoint{*alone, default_port};
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto host = text.substr(0, colon);
    if (host.find(':') != std::string_view::npos && host.front() != '[') return std::nullopt;
    const auto address = IpAddress::parse(host);
    const auto digits = text.substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (!address || error != std::errc{} || end != digits.data() + digits.size())
        return std::nullopt;
    return Endpoint{*address, port};
}

socklen_t Endpoint::to_sockaddr(sockaddr_storage& storage) const {
    storage = {};
    if (address.is_v6()) {
        sockaddr_in6 sa{};
        sa.sin6_family = AF_INET6;
        sa.sin6_port = htons(port);
        std::memcpy(&sa.sin6_addr, address.raw().data(), 16);
        std::memcpy(&storage, &sa, sizeof sa);
        return sizeof sa;
    }
    sockaddr_in sa{};
    sa.sin_family = AF_INET;
    sa.sin_port = htons(port);
    std::memcpy(&sa.sin_addr, address.raw().data(), 4);
    std::memcpy(&storage, &sa, sizeof sa);
    return sizeof sa;
}

Endpoint Endpoint::from_sockaddr(const sockaddr_storage& storage) {
    if (storage.ss_family == AF_INET6) {
        sockaddr_in6 sa{};
        std::memcpy(&sa, &storage, sizeof sa);
        std::array<std::uint8_t, 16> octets{};
        std::memcpy(octets.data(), &sa.sin6_addr, 16);
        if (IN6_IS_ADDR_V4MAPPED(&sa.sin6_addr)) {
            return {IpAddress::v4(std::span<const std::uint8_t, 4>(octets.data() + 12, 4)),
                    ntohs(sa.sin6_port)};
        }
        return {IpAddress::v6(octets), ntohs(sa.sin6_port)};
    }
    sockaddr_in sa{};
    std::memcpy(&sa, &storage, sizeof sa);
    std::array<std::uint8_t, 4> octets{};
    std::memcpy(octets.data(), &sa.sin_addr, 4);
    return {IpAddress::v4(octets), ntohs(sa.sin_port)};
}

std::uint64_t hash_value(const IpAddress& address, std::uint64_t seed) {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::memcpy(&a, address.raw().data(), 8);
    std::memcpy(&b, address.raw().data() + 8, 8);
    std::uint64_t h = (a ^ seed) * 0xBF58476D1CE4E5B9ULL;
    h ^= h >> 31U;
    h = (h ^ b ^ (address.is_v6() ? 1U : 0U)) * 0x94D049BB133111EBULL;
    return h ^ (h >> 29U);
}

}  // namespace gmgate
