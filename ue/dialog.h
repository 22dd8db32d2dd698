#pragma once
// A dialog as one of its ends keeps it (RFC 3261 12). Plain values.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "control/sip/message.h"

namespace gmgate::ue {

// What is kept of a peer's header; longer: no dialog (S2).
inline constexpr std::size_t max_route_set = 4096;
inline constexpr std::size_t max_dialog_text = 1024;

struct Dialog {
    std::string call_id;
    std::string local_tag, remote_tag;
    std::string local_uri, remote_uri;  // of From and To, without parameters of the header
    std::string target;                 // the peer's Contact URI
    std::string routes;                 // value of Route, top first; may be empty
    std::uint32_t local_cseq = 0;
    std::optional<std::uint32_t> remote_cseq;
    std::optional<std::uint32_t> rseq;  // of the last reliable provisional answer that came

    // Our end, as the sender of the INVITE or SUBSCRIBE `m` answers: target, route set, remote tag.
    // False: it makes no dialog (no tag, no Contact, or something is too long).
    bool take_answer(const sip::Message& m);
    // The other end's: everything but the local tag. False: as above.
    bool take_request(const sip::Message& m);
    // A target refresh (RFC 3261 12.2): a new Contact if there is one.
    void refresh_target(const sip::Message& m);
    // A request of the peer with this CSeq is in order; remembers it.
    bool in_order(std::uint32_t cseq);
    // Do Call-ID and tags name it? `ours`, `theirs`: the tags as they stand in the message.
    [[nodiscard]] bool is(std::string_view id, std::string_view ours,
                          std::string_view theirs) const {
        return call_id == id && local_tag == ours && remote_tag == theirs;
    }

    struct Next {
        std::string uri;    // Request-URI
        std::string route;  // value of Route; empty: none
    };
    // Where the next request goes: loose routers, or a strict one at the top (RFC 3261 12.2.1.1).
    [[nodiscard]] Next next() const;
};

// A header's text on one line: folds and controls become blanks.
[[nodiscard]] std::string one_line(std::string_view text);

}  // namespace gmgate::ue
