#pragma once
// The home network as one SIP server: I-CSCF and S-CSCF on one address. REGISTER goes to the
// Registrar, SUBSCRIBE for registration state to its notifier; what users send to users goes to the
// proxy; the domain and its services answer OPTIONS and MESSAGE themselves.
//
// No service logic beyond that, and no way to other networks. One thread. Works on any
// TransportLayer, so tests need no sockets.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "base/result.h"
#include "base/timer_wheel.h"
#include "control/sip/transaction.h"
#include "control/sip/transport.h"
#include "home/dialog_token.h"
#include "home/domain.h"
#include "home/from_hss.h"
#include "home/own_requests.h"
#include "home/proxy.h"
#include "home/reauthentication.h"
#include "home/reauthentication_schedule.h"
#include "home/reg_event.h"
#include "home/registrar.h"
#include "home/responder.h"
#include "home/server_counters.h"
#include "home/sessions.h"

namespace gmgate::home {

struct ServerConfig {
    // Where we listen, on UDP and TCP; concrete addresses, at least one. Requests we send come from
    // the first of the right family.
    std::vector<Endpoint> listen;
    // User parts in our realm that answer MESSAGE and OPTIONS with 200 themselves.
    std::vector<std::string> services{"echo"};
    RegEventConfig reg_event;
    ReauthenticationConfig reauthentication;
    ReauthenticationScheduleConfig schedule;
    SessionLimits sessions;
    std::size_t max_transactions = 1'000'000;  // each way; a REGISTER over UDP stays 32 s (timer J)
    // Phones of the same q ring together, the next ones when all of those have refused or so much
    // time has gone by.
    std::chrono::seconds ring{20};
    std::size_t max_exchanges = 200'000;  // requests of users under way, 2 to 8 KB each
};

class Server final : public sip::MessageSink, private RegistrationObserver {
  public:
    Server(ServerConfig config, Registrar& registrar, TimerWheel& timers, Random& random);
    ~Server() override;
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Once, before the first message. `transport` must outlive this or its last message.
    void attach(sip::TransportLayer& transport);

    // ---- from the transport ----
    void on_message(const sip::Flow& flow, std::span<char> bytes) override;
    void on_framing_error(const sip::Flow& flow, sip::ParseStatus why,
                          std::span<char> held) override;
    void on_connection_closed(const sip::Flow& flow, bool was_established) override;

    // ---- by command ----
    // A request of our own to a registered phone: method MESSAGE (text/plain `text`) or OPTIONS.
    // See OwnRequests::send().
    using Done = OwnRequests::Done;
    Result<void> originate(std::string_view method, std::string_view from, std::string_view to,
                           std::string_view text, Done done) {
        return own_requests_.send(method, from, to, text, {}, std::move(done));
    }
    // F1: see Reauthentication::begin().
    Result<void> reauthenticate(const std::vector<std::string>& identities) {
        return reauthentication_.begin(identities);
    }

    // Who hears what the HSS says unasked.
    [[nodiscard]] HssListener& from_hss() { return from_hss_; }

    [[nodiscard]] const ServerCounters& counters() const { return counters_; }
    [[nodiscard]] const RegEvent& reg_event() const { return reg_event_; }
    [[nodiscard]] const Reauthentication& reauthentication() const { return reauthentication_; }
    [[nodiscard]] const FromHssCounters& from_hss_counters() const { return from_hss_.counters(); }
    [[nodiscard]] const ReauthenticationSchedule& schedule() const { return schedule_; }
    [[nodiscard]] const Sessions& sessions() const { return sessions_; }
    [[nodiscard]] const Proxy& proxy() const { return proxy_; }
    [[nodiscard]] std::size_t transactions() const;

  private:
    void on_registration(const RegistrationChange& change) override;

    void on_ack(const sip::Flow& flow, const sip::Message& request);
    void handle(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request);
    void within_dialog(sip::ServerTransactionId id, const sip::Flow& flow,
                       const sip::Message& request, const Routing& routing);
    void begin(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
               const Routing& routing);
    // Nobody is registered for it: 480, or 404 where the HSS does not know it either.
    void not_there(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
                   std::string_view identity);
    // The domain or one of its services.
    void serve(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request);
    void reject(sip::ServerTransactionId id, const sip::Flow& flow, const sip::Message& request,
                int status, std::string_view reason = {});
    // 420 if that header (Require where we are the end, Proxy-Require elsewhere) asks for anything.
    bool refuse_extensions(sip::ServerTransactionId id, const sip::Flow& flow,
                           const sip::Message& request, sip::HeaderId header);
    // The request ends here, not at a phone.
    [[nodiscard]] bool is_for_us(const sip::Uri& uri) const;

    ServerConfig config_;
    Registrar& registrar_;
    TimerWheel& timers_;
    Random& random_;
    ServerCounters counters_;
    Domain domain_;
    DialogTokens tokens_;
    Responder responder_;
    RegEvent reg_event_;
    OwnRequests own_requests_;
    Reauthentication reauthentication_;
    FromHss from_hss_;
    ReauthenticationSchedule schedule_;
    Sessions sessions_;
    Proxy proxy_;
    std::unique_ptr<sip::TransactionLayer> transactions_;
    // Gone with us: a late answer of the HSS finds nobody.
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace gmgate::home
