#pragma once
// Requests of the home network's own to registered phones: by command, and the REFER of F3. One
// thread.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/random.h"
#include "base/result.h"
#include "control/sip/build.h"
#include "control/sip/transaction.h"
#include "home/domain.h"
#include "home/registrar.h"
#include "home/server_counters.h"

namespace gmgate::home {

class OwnRequests final : private sip::TransactionUser {
  public:
    // References outlive this.
    OwnRequests(const Domain& domain, Registrar& registrar, Random& random,
                ServerCounters& counters)
        : domain_(domain), registrar_(registrar), random_(random), counters_(counters) {}

    void attach(sip::TransactionLayer& transactions) { transactions_ = &transactions; }

    // The final status; 408 no answer, 503 no connection.
    using Done = std::move_only_function<void(int status, std::string_view reason)>;
    // A request outside of a dialog; `text`: a text/plain body, or empty. `done` is not called if
    // this fails. `to`: a private identity, or a public one. not_found: nobody registered as that.
    Result<void> send(std::string_view method, std::string_view from, std::string_view to,
                      std::string_view text, std::span<const sip::HeaderField> more, Done done);
    // F3, the second way: REFER that asks for a REGISTER, to where the user's set that has `impu`
    // is registered. False: cannot be sent.
    bool refer(std::string_view impi, std::string_view impu,
               std::move_only_function<void(bool positive)> done);

  private:
    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;
    Result<void> send_to(const Binding& binding, std::string_view method, std::string_view sender,
                         std::string_view text, std::span<const sip::HeaderField> more, Done done);
    // `done` of that context, taken out.
    Done take(std::uint64_t context);

    const Domain& domain_;
    Registrar& registrar_;
    Random& random_;
    ServerCounters& counters_;
    sip::TransactionLayer* transactions_ = nullptr;
    // By context; as many as client transactions at most.
    std::unordered_map<std::uint64_t, Done> pending_;
    std::uint64_t next_context_ = 0;
};

}  // namespace gmgate::home
