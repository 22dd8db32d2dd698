#pragma once
// What names a transaction in a message (RFC 3261 17.1.3, 17.2.3).

#include <optional>
#include <string>
#include <string_view>

#include "control/sip/message.h"
#include "control/sip/transport.h"

namespace gmgate::sip {

struct TransactionParts {
    std::string_view branch;   // of the top Via; empty: none
    std::string_view sent_by;  // host[:port] as written
    std::string_view method;   // of CSeq
    std::string_view call_id;
    std::string_view cseq;  // number and method, as written
    std::string_view from;  // the whole header value: for peers without the magic cookie
};

// nullopt: no Via, CSeq or Call-ID that could be used.
std::optional<TransactionParts> transaction_parts(const Message& message);

// Key of the server transaction of a request that came on `flow`, written to `key`. ACK has its
// INVITE's. The source address and our port are part of it: a stranger who guesses a branch meets
// none of another phone's transactions (S2).
void server_key(const TransactionParts& parts, const Flow& flow, std::string& key);

// The ACK of a non-2xx response, from the INVITE as it was sent (RFC 3261 17.1.1.3). Empty: the
// request cannot be read.
std::string build_ack(std::string_view invite, const Message& response);

}  // namespace gmgate::sip
