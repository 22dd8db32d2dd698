#pragma once
// The dialogs that SUBSCRIBE and REFER make (RFC 6665, RFC 3515), as far as we must know them to
// tell a request in one from a request with an invented To tag (E2): a keyed hash of each, no more.
// Those of one user, kept with its registration: its own, and those the core made to it. Of more
// than a few of a kind the one longest unused is forgotten, and what comes in it is taken as a
// request outside a dialog: who asks something of a phone pushes out none of its own. One thread.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gmgate::registration {

class Subscriptions {
  public:
    static constexpr std::size_t most = 32;        // of each kind
    enum class Of : std::uint8_t { phone, core };  // who is the subscriber

    // `dialog`: a keyed hash of its Call-ID and both tags. It is in use: the latest.
    void note(std::uint64_t dialog, Of subscriber) {
        auto& dialogs = subscriber == Of::phone ? phones_ : cores_;
        const auto known = std::ranges::find(dialogs, dialog);
        if (known != dialogs.end()) {
            dialogs.erase(known);
        } else if (dialogs.size() == most) {
            dialogs.erase(dialogs.begin());
        }
        dialogs.push_back(dialog);
    }
    [[nodiscard]] bool has(std::uint64_t dialog) const {
        return std::ranges::find(phones_, dialog) != phones_.end() ||
               std::ranges::find(cores_, dialog) != cores_.end();
    }

  private:
    std::vector<std::uint64_t> phones_;  // the latest used at the end
    std::vector<std::uint64_t> cores_;
};

}  // namespace gmgate::registration
