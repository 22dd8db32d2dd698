#pragma once
// Answers of the home network's own.

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/random.h"
#include "control/sip/build.h"
#include "control/sip/message.h"
#include "control/sip/transaction.h"

namespace gmgate::home {

class Responder {
  public:
    explicit Responder(Random& random) : random_(random) {}
    void attach(sip::TransactionLayer& transactions) { transactions_ = &transactions; }

    // `source`: where the request came from (RFC 3581). Empty reason: the usual one. A request too
    // broken to answer is forgotten.
    void answer(sip::ServerTransactionId id, const Endpoint& source, const sip::Message& request,
                int status, std::string_view reason = {},
                std::initializer_list<sip::HeaderField> headers = {});

  private:
    Random& random_;
    sip::TransactionLayer* transactions_ = nullptr;
    std::string buffer_;
};

}  // namespace gmgate::home
