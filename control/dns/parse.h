#pragma once
// A DNS message taken apart (RFC 1035, 2782, 3403): hostile like everything from the network (S2).

#include <cstdint>
#include <span>
#include <string_view>

#include "control/dns/resolver.h"

namespace gmgate::dns {

// The records of that type that answer `name`, CNAMEs followed; at most 32. failed: it cannot be
// read. Names are lower case, without the dot at the end; names that no host can have are left out.
// Pure, any thread.
[[nodiscard]] Answer parse(std::span<const std::uint8_t> message, std::string_view name, Type type);

[[nodiscard]] std::uint16_t number_of(Type type);  // in the DNS

// A name that may be asked for and sent to: letters, digits, '-', '_' and dots, at most 253 octets.
[[nodiscard]] bool is_name(std::string_view text);

}  // namespace gmgate::dns
