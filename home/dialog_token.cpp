#include "home/dialog_token.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "control/sip/values.h"

namespace gmgate::home {

std::string DialogTokens::token(std::string_view call_id, std::string_view tag) const {
    // Neither can hold a line end, so no two pairs read alike.
    const std::string text = fmt::format("{}\n{}", call_id, tag);
    return fmt::format("dialog-{:016x}{:016x}", a_(text), b_(text));
}

std::string DialogTokens::make(const sip::Message& request) const {
    const auto from = sip::from(request);
    return token(sip::call_id(request), from ? from->tag() : std::string_view{});
}

bool DialogTokens::fits(std::string_view user, const sip::Message& request) const {
    const auto is = [&](const std::optional<sip::NameAddr>& caller) {
        if (!caller || caller->tag().empty()) return false;
        const std::string good = token(sip::call_id(request), caller->tag());
        return user.size() == good.size() && equal_constant_time(as_bytes(user), as_bytes(good));
    };
    return is(sip::from(request)) || is(sip::to(request));
}

}  // namespace gmgate::home
