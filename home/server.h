#pragma once
// The home network as one SIP server: I-CSCF and S-CSCF on one address. REGISTER goes to the
// Registrar, SUBSCRIBE to the notifier of the registration event package; MESSAGE and OPTIONS are
// answered for the domain and its services, or routed to the registered phone through its Path.
//
// Not a full proxy: other methods get 405, and there is no originating or terminating service
// logic. One thread. Works on any TransportLayer, so tests need no sockets.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "base/result.h"
#include "base/timer_wheel.h"
#include "control/sip/build.h"
#include "control/sip/transaction.h"
#include "control/sip/transport.h"
#include "home/reauthentication.h"
#include "home/reg_event.h"
#include "home/registrar.h"

namespace gmgate::home {

struct ServerConfig {
    // Where we listen, on UDP and TCP; concrete addresses, at least one. Requests we send come from
    // the first of the right family.
    std::vector<Endpoint> listen;
    // User parts in our realm that answer MESSAGE and OPTIONS with 200 themselves.
    std::vector<std::string> services{"echo"};
    RegEventConfig reg_event;
    ReauthenticationConfig reauthentication;
    std::size_t max_transactions = 1'000'000;  // each way; a REGISTER over UDP stays 32 s (timer J)
};

struct ServerCounters {
    std::uint64_t requests = 0;         // fresh ones, of any method
    std::uint64_t garbage = 0;          // not SIP, or not answerable
    std::uint64_t refused = 0;          // transaction table full
    std::uint64_t answered_here = 0;    // MESSAGE, OPTIONS to the domain or a service
    std::uint64_t routed = 0;           // to a registered phone
    std::uint64_t routed_answers = 0;   // final answers that went back
    std::uint64_t routed_failures = 0;  // no answer, or no connection
    std::uint64_t not_registered = 0;   // 480, 404
    std::uint64_t forbidden = 0;        // 403: originated by nobody registered
    std::uint64_t rejected = 0;         // 400, 405, 416, 483
    std::uint64_t originated = 0;       // by command
    std::uint64_t stray_responses = 0;
};

class Server final : public sip::MessageSink, private sip::TransactionUser {
  public:
    Server(ServerConfig config, Registrar& registrar, TimerWheel& timers, Random& random);
    ~Server() override;
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Once, before the first message. `transport` must outlive this or its last message.
    void attach(sip::TransportLayer& transport);

    // ---- from the transport ----
    void on_message(const sip::Flow& flow, std::span<char> bytes) override;
    void on_framing_error(const sip::Flow& flow, std::string_view what) override;
    void on_connection_closed(const sip::Flow& flow, bool was_established) override;

    // ---- by command ----
    // A request of our own to a registered phone: method MESSAGE (text/plain `text`) or OPTIONS.
    // `done` gets the final status; 408 no answer, 503 no connection; not called if this fails.
    // not_found: nobody registered as `to`.
    using Done = std::move_only_function<void(int status, std::string_view reason)>;
    Result<void> originate(std::string_view method, std::string_view from, std::string_view to,
                           std::string_view text, Done done);
    // F1: see Reauthentication::begin().
    Result<void> reauthenticate(const std::vector<std::string>& identities) {
        return reauthentication_.begin(identities);
    }

    [[nodiscard]] const ServerCounters& counters() const { return counters_; }
    [[nodiscard]] const RegEvent& reg_event() const { return reg_event_; }
    [[nodiscard]] const Reauthentication& reauthentication() const { return reauthentication_; }
    [[nodiscard]] std::size_t transactions() const;

  private:
    // What a client transaction of ours belongs to: a request we route, or a command.
    struct Pending {
        sip::ServerTransactionId server = 0;  // 0: a command
        Endpoint source;
        std::string request;  // as it came: an error response is built out of it
        Done done;
    };

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;

    void handle(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request);
    void route(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request);
    void forward(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
                 const Binding& binding, bool strip_route);
    // `allow`: with an Allow header.
    void answer(sip::ServerTransactionId id, const Endpoint& source, const sip::Message& request,
                int status, std::string_view reason = {}, bool allow = false);
    [[nodiscard]] bool is_ours(std::string_view host, std::uint16_t port) const;
    Result<void> send_to_phone(std::string_view method, std::string_view from, std::string_view to,
                               std::string_view text, std::span<const sip::HeaderField> more,
                               Done done);
    // F3, the second way: REFER that asks for a REGISTER. False: cannot be sent.
    bool refer(std::string_view impu, Reauthentication::Done done);
    // Takes it out of pending_; nullopt: abandoned.
    std::optional<Pending> take(std::uint64_t context);

    ServerConfig config_;
    Registrar& registrar_;
    TimerWheel& timers_;
    Random& random_;
    RegEvent reg_event_;
    Reauthentication reauthentication_;
    sip::TransportLayer* transport_ = nullptr;
    std::unique_ptr<sip::TransactionLayer> transactions_;
    std::unordered_map<std::uint64_t, Pending>
        pending_;  // by context; as many as client transactions at most
    std::uint64_t next_context_ = 0;
    std::string scscf_host_;  // of the registrar's server name
    std::string buffer_;
    ServerCounters counters_;
};

}  // namespace gmgate::home
