#pragma once
// The user part of our Record-Route: who comes by it belongs to a dialog that was made through us.
// Without it anybody who can reach us could have requests relayed to any address (RFC 3261 26.1.5,
// RFC 5393 in spirit); with it only the two ends of the dialog can, who are users or their
// correspondents.

#include <string>
#include <string_view>

#include "base/random.h"
#include "base/seeded_hash.h"
#include "control/sip/message.h"

namespace gmgate::home {

// "dialog-" and 32 hex digits: SipHash under two keys over Call-ID and the caller's tag. The keys
// are drawn at start: the dialogs of an earlier life end with its registrations. One thread.
class DialogTokens {
  public:
    explicit DialogTokens(Random& random) : a_(random), b_(random) {}

    // Of a request that makes a dialog: its From tag is the caller's.
    [[nodiscard]] std::string make(const sip::Message& request) const;
    // Did we write it for the dialog this request names, whichever end sent it? Constant time in
    // the token.
    [[nodiscard]] bool fits(std::string_view user, const sip::Message& request) const;

  private:
    [[nodiscard]] std::string token(std::string_view call_id, std::string_view tag) const;

    SeededHash a_;
    SeededHash b_;
};

}  // namespace gmgate::home
