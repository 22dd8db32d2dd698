#pragma once
// The transaction-stateful proxy of the S-CSCF (RFC 3261 16, TS 24.229 5.4.3): requests of users to
// users, forked to every phone that is registered for the identity, and requests within dialogs
// along their routes. One Exchange for each request that is under way. One thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/transaction.h"
#include "control/sip/transport.h"
#include "home/domain.h"
#include "home/responder.h"
#include "home/routing.h"
#include "home/server_counters.h"
#include "home/sessions.h"

namespace gmgate::home {

class Proxy final : private sip::TransactionUser {
  public:
    struct Parts {  // all outlive the proxy
        const Domain& domain;
        const DialogTokens& tokens;
        Responder& responder;
        Sessions& sessions;
        TimerWheel& timers;
        Random& random;
        ServerCounters& counters;
        std::size_t max_exchanges;  // beyond: 503
        std::chrono::seconds ring;  // of a group of phones, while others wait behind it
    };
    // Is this user registered still? A call that was answered too late is ended at once.
    using IsRegistered = std::function<bool(std::string_view impu)>;

    ~Proxy() override;
    Proxy(const Proxy&) = delete;
    Proxy& operator=(const Proxy&) = delete;

    void attach(sip::TransportLayer& transport, sip::TransactionLayer& transactions) {
        transport_ = &transport;
        transactions_ = &transactions;
    }

    // Who calls; empty if it is not one of our users.
    struct Caller {
        std::string impi, impu;
    };
    // A phone that is registered for the identity that is called.
    struct Target {
        std::string impi, impu;
        std::string contact;
        std::string path;
        std::uint16_t q = 1000;  // in thousandths
    };
    // Contact and path as they are by now, of a phone that has waited behind others; false: it is
    // not registered any more.
    using Refresh = std::function<bool(Target& target)>;
    struct Arrival {
        sip::ServerTransactionId id = 0;
        sip::Flow flow;
    };

    Proxy(const Parts& parts, IsRegistered is_registered, Refresh refresh);

    // To the phones of an identity, at least one. An INVITE: those of the highest q at once, the
    // next group when none of them has taken it and nobody has refused for all (RFC 3261 16.6,
    // 16.7); all at once if the caller wants it so (Request-Disposition: parallel, RFC 3841).
    // Anything else: all at once, its sender does not wait so long.
    void fork(const Arrival& arrival, const sip::Message& request, const Caller& caller,
              std::span<const Target> targets);
    // Within a dialog, along what is left of its routes. id 0: an ACK, which has no answer.
    void pass(const Arrival& arrival, const sip::Message& request, const Routing& routing);
    // A CANCEL, answered here.
    void cancel(const Arrival& arrival, const sip::Message& request);
    // This set of the user is gone: what rings at its phones or was called by them is cancelled.
    void release(std::string_view impi, std::span<const std::string> impus);

    [[nodiscard]] std::size_t size() const { return exchanges_.size(); }
    // What finds INVITEs by branch and by user.
    [[nodiscard]] std::size_t index_entries() const { return invites_.size() + by_user_.size(); }

  private:
    struct Exchange;
    // One copy of the request on its way to one target.
    struct Branch {
        Branch(Proxy& p, SlotId e) : proxy(p), exchange(e) { timer.bind<&Branch::on_timer>(this); }
        void on_timer() { proxy.on_branch_timer(*this); }
        Proxy& proxy;
        SlotId exchange;
        sip::ClientTransactionId client = 0;
        Target target;
        sip::Flow flow;
        std::string sent;          // an INVITE: its CANCEL is made of it
        SlotId session = 0;        // the latest dialog it made
        bool provisional = false;  // one has come: a CANCEL may be sent (RFC 3261 9.1)
        bool to_cancel = false;
        bool timed_out = false;  // timer C
        bool done = false;
        std::string reason;  // of the CANCEL
        Duration interval{};
        Duration waited{};
        Timer timer;  // timer C, then the CANCEL's retransmission
    };
    struct Exchange {
        Exchange(SlotId i, Proxy& p) : id(i), proxy(p) { timer.bind<&Exchange::on_timer>(this); }
        void on_timer() { proxy.on_exchange_timer(*this); }
        SlotId id;
        Proxy& proxy;
        sip::ServerTransactionId server = 0;
        sip::Flow arrival;
        std::string request;  // as it came
        bool invite = false;
        bool in_dialog = false;
        bool answered = false;
        bool cancelled = false;  // by the caller
        Caller caller;
        std::string key;  // of an INVITE, for its CANCEL
        std::vector<std::unique_ptr<Branch>> branches;
        std::vector<Target> waiting;  // highest q first
        int best = 0;                 // the best final answer so far; 0: none
        std::string best_message;     // empty: `best` is our own
        struct Challenge {
            const Branch* from;
            sip::HeaderId header;
            std::string value;
        };
        std::vector<Challenge> challenges;  // of every 401 and 407 (16.7 step 7)
        const Branch* best_of = nullptr;
        Timer timer;  // of the group that rings; then the wait for further 2xx
    };

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;

    Exchange* open(const Arrival& arrival, const sip::Message& request);
    void close(SlotId id);
    // What differs between the copies of a request.
    struct Copy {
        std::string request_uri;
        std::string route;   // empty: none
        std::string called;  // P-Called-Party-ID; empty: as it is
        bool record = false;
    };
    // Writes the copy into buffer_.
    bool write(const Arrival& arrival, const sip::Message& request, const Copy& copy,
               const sip::Flow& hop, std::string_view branch);
    // False: not sent; counted as a failure of that branch.
    bool launch(Exchange& e, Branch& b, const Arrival& arrival, const sip::Message& request,
                const Copy& copy, std::uint64_t mark);
    static Branch* branch_of(Exchange& e, sip::ClientTransactionId client);

    void provisional(Exchange& e, Branch& b, const sip::Message& response);
    void success(Exchange& e, Branch& b, const sip::Message& response);
    void failed(Exchange& e, Branch& b, int status, const sip::Message* response);
    // The best answer goes when every branch has one.
    void finish_if_done(Exchange& e);
    // What waits is what is registered still, and where it is now.
    void refresh_waiting(Exchange& e);
    // The group of the highest q that waits. May end the exchange.
    void next_group(Exchange& e, const sip::Message& request);
    void on_exchange_timer(Exchange& e);
    static void keep_challenges(Exchange& e, const Branch& b, const sip::Message& response);
    // Adds those of the other phones to the best answer.
    void merge_challenges(Exchange& e);
    bool forward(Exchange& e, const sip::Message& response);
    void cancel_others(Exchange& e, const Branch* but, std::string_view reason);
    void cancel_branch(Branch& b, std::string_view reason);
    void send_cancel(Branch& b);
    void on_branch_timer(Branch& b);
    void end_late(const Exchange& e, const Branch& b);

    [[nodiscard]] std::uint64_t loop_mark(const sip::Message& request) const;
    [[nodiscard]] static bool has_looped(const sip::Message& request, std::uint64_t mark);
    [[nodiscard]] static std::string cancel_key(const sip::Message& request);

    Parts parts_;
    IsRegistered is_registered_;
    Refresh refresh_;
    sip::TransportLayer* transport_ = nullptr;
    sip::TransactionLayer* transactions_ = nullptr;
    SeededHash loop_hash_;
    SlotMap<Exchange> exchanges_;
    std::unordered_map<std::string, SlotId, SeededStringHash, std::equal_to<>> invites_;
    std::unordered_multimap<std::string, SlotId, SeededStringHash, std::equal_to<>> by_user_;
    std::string buffer_;
};

}  // namespace gmgate::home
