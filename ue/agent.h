#pragma once
// What a registered phone does besides registering: it makes and takes calls, sends and takes
// messages. One phone's; it holds the transactions and finds the dialogs. Signalling only: gmue
// sends no RTP. One thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "base/timer_wheel.h"
#include "control/sip/build.h"
#include "ue/agent_host.h"
#include "ue/call.h"
#include "ue/dialog.h"
#include "ue/statistics.h"
#include "ue/subscription.h"
#include "ue/times.h"
#include "ue/transactions.h"

namespace gmgate::ue {

// What all agents have in common. References must outlive them.
struct AgentContext {
    TimerWheel& timers;
    Random& random;
    const PhoneTimes& times;
    const CallOptions& calls;
    const sip::RegProfile& reg_profile;  // of the registration state it subscribes to
    CallStatistics& statistics;
    std::uint64_t& retransmissions;
};

// A request to be built.
struct Outgoing {
    std::string_view method;
    std::string uri;
    std::string from_uri, from_tag;
    std::string to_uri, to_tag;
    std::string call_id;
    std::uint32_t cseq = 1;
    bool in_dialog = false;
    std::string route;  // in a dialog only: otherwise the Service-Route
    bool contact = false;
    std::string extra;  // more header lines
    std::string_view content_type{};
    std::string_view body{};
};

class Agent {
  public:
    // Of one phone, at one time (S3); what would go beyond is refused or passed over, and counted.
    static constexpr std::size_t max_transactions = 64;  // each way
    static constexpr std::size_t max_calls = 8;
    static constexpr std::size_t max_message = 32'000;  // octets of a message's text

    using MessageDone = std::function<void(int status, std::string_view reason)>;

    Agent(const AgentContext& context, AgentHost& host);
    ~Agent();
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;

    // False: nobody waits for it, or (requests) it is the phone's to answer.
    bool on_response(const sip::Message& m);
    bool on_request(const sip::Message& m, const ReplyPath& path);

    // conflict: not registered, or there is a call already. `talk`: hangs up so long after the
    // answer; zero: does not. The call lives until some time after its end.
    Result<Call*> call(std::string_view to, Duration talk);
    // MESSAGE; `done` gets the final status, 0: no answer. `to` and `text` are the caller's.
    Result<void> message(std::string_view to, std::string_view text, MessageDone done);
    // To its own registration state; `done` as above. conflict: there is one already, or none.
    Result<void> subscribe(std::uint32_t expires, MessageDone done);
    Result<void> unsubscribe(MessageDone done);
    // Ends every call in order (BYE, CANCEL).
    void hang_up();
    // The registration went: calls and transactions end here, without a word to the network. Who
    // waits for a MESSAGE or a subscription is told: 0.
    void registration_over(std::string_view why);
    // The call that is not over, if there is one.
    [[nodiscard]] Call* live_call();

    // ---- for calls and subscriptions ----
    [[nodiscard]] const AgentContext& context() const { return context_; }
    [[nodiscard]] AgentHost& host() { return host_; }
    // nullptr: not registered, or too many are under way. `owner`: see forget().
    ClientTransaction* send(const Outgoing& what, ClientTransaction::Handler handler,
                            const void* owner);
    // In a dialog, with the next CSeq.
    ClientTransaction* send_in(Dialog& dialog, std::string_view method, std::string extra,
                               std::string_view sdp, ClientTransaction::Handler handler,
                               const void* owner);
    // A request that is written already.
    ClientTransaction* send_as_is(ClientTransaction::Request request,
                                  ClientTransaction::Handler handler, const void* owner);
    // ACK of a 2xx.
    SentRequest acknowledge(const Dialog& dialog, std::uint32_t cseq);
    void resend(const SentRequest& what) { host_.send_request(what.set, what.tcp, what.bytes); }
    // Answers a server transaction that has not been.
    void respond(ServerTransaction& t, int code, std::span<const sip::HeaderField> headers,
                 std::string_view to_tag, std::string_view sdp);
    // Whoever owned these transactions is going.
    void forget(const void* owner);
    void bad_input(std::string_view what);
    [[nodiscard]] std::string new_tag() const { return context_.random.token(6); }
    [[nodiscard]] std::string new_call_id() const;

  private:
    struct Client {
        std::unique_ptr<ClientTransaction> transaction;
        const void* owner;
    };
    // Frees what is over; only where nothing of it can be on the stack.
    void sweep();
    [[nodiscard]] Call* call_of(const sip::Message& m, bool request);
    std::shared_ptr<ServerTransaction> open(const sip::Message& m, const ReplyPath& path);
    void on_ack(const sip::Message& m, const sip::Via& via);
    void on_cancel(const sip::Message& m, const sip::Via& via, const ReplyPath& path);
    void on_invite(const sip::Message& m, const ReplyPath& path);
    void answer(const sip::Message& m, const ReplyPath& path, int code,
                std::span<const sip::HeaderField> headers = {});
    [[nodiscard]] std::string build(const Outgoing& what, const Flow& flow, bool tcp,
                                    std::string_view branch) const;

    AgentContext context_;
    AgentHost& host_;
    unsigned depth_ = 0;
    bool leaving_ = false;  // the registration is going: nothing new is sent
    std::vector<Client> clients_;
    std::vector<std::shared_ptr<ServerTransaction>> servers_;
    std::vector<std::unique_ptr<Call>> calls_;
    std::unique_ptr<Subscription> subscription_;
};

// Option tags a phone of gmue understands in Require.
[[nodiscard]] bool understands(std::string_view option_tag);
inline constexpr std::string_view agent_allow =
    "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, MESSAGE, NOTIFY, INFO, REFER";

}  // namespace gmgate::ue
