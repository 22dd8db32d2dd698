#pragma once
// The dialogs that SUBSCRIBE and REFER make (RFC 6665, RFC 3515), as far as we must know them to
// tell a request in one from a request with an invented To tag (E2): a keyed hash of each, no more.
// Those of one user, kept with its registration. Of more than a few the one longest unused is
// forgotten, and what comes in it is taken as a request outside a dialog. One thread.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gmgate::registration {

class Subscriptions {
  public:
    static constexpr std::size_t most = 32;

    // `dialog`: a keyed hash of its Call-ID and the subscriber's tag. It is in use: the latest.
    void note(std::uint64_t dialog) {
        const auto known = std::ranges::find(dialogs_, dialog);
        if (known != dialogs_.end()) {
            dialogs_.erase(known);
        } else if (dialogs_.size() == most) {
            dialogs_.erase(dialogs_.begin());
        }
        dialogs_.push_back(dialog);
    }
    [[nodiscard]] bool has(std::uint64_t dialog) const {
        return std::ranges::find(dialogs_, dialog) != dialogs_.end();
    }

  private:
    std::vector<std::uint64_t> dialogs_;  // the latest used at the end
};

}  // namespace gmgate::registration
