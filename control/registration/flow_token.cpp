#include "control/registration/flow_token.h"

#include "base/bytes.h"
#include "base/secret.h"

namespace gmgate::registration {
namespace {

void put_hex(char* out, std::uint64_t value) {
    for (int i = 15; i >= 0; --i, value >>= 4U) out[i] = "0123456789abcdef"[value & 0xFU];
}

}  // namespace

FlowTokens::Text FlowTokens::make(std::uint64_t user) const {
    Text text{};
    put_hex(text.data(), user);
    const std::string_view number(text.data(), 16);
    put_hex(text.data() + 16, a_(number));
    put_hex(text.data() + 32, b_(number));
    return text;
}

std::optional<std::uint64_t> FlowTokens::open(std::string_view token) const {
    if (token.size() != size) return std::nullopt;
    std::uint64_t user = 0;
    for (const char c : token.substr(0, 16)) {
        unsigned digit = 0;
        if (c >= '0' && c <= '9') {
            digit = static_cast<unsigned>(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = static_cast<unsigned>(c - 'a') + 10;
        } else {
            return std::nullopt;
        }
        user = (user << 4U) | digit;
    }
    const Text good = make(user);
    if (!equal_constant_time(as_bytes(token), as_bytes({good.data(), good.size()})))
        return std::nullopt;
    return user;
}

}  // namespace gmgate::registration
