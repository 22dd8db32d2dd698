#pragma once
// What the parts of the gateway share: policy, database, both sides with their transactions, and
// how to answer and to record.

#include <array>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/clock.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/dns/hosts.h"
#include "control/dns/locator.h"
#include "control/registration/core_watch.h"
#include "control/registration/failures.h"
#include "control/registration/flow_token.h"
#include "control/registration/limiter.h"
#include "control/registration/metrics.h"
#include "control/registration/next_hops.h"
#include "control/registration/paths.h"
#include "control/registration/policy.h"
#include "control/registration/reasons.h"
#include "control/registration/trace.h"
#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/message.h"
#include "control/sip/transaction.h"
#include "control/sip/transport.h"
#include "sa/database.h"

namespace gmgate::registration {

// One of the two networks.
struct Side {
    sip::TransportLayer* transport = nullptr;
    std::optional<sip::TransactionLayer> transactions;
};

// The SA set a message came on, copied: pointers into the database do not outlive a change.
struct Carrier {
    sa::SetId set = 0;  // 0: in clear
    sa::UserId user = 0;
    sa::State state = sa::State::removed;
    std::uint64_t tag = 0;
    sa::SaNumbers numbers;
    std::optional<sa::NatTraversal> nat;  // N1

    [[nodiscard]] bool is_protected() const { return set != 0; }
    // Whose transactions a message on it uses up (S3).
    [[nodiscard]] sip::TransactionLayer::Party party() const {
        return is_protected() ? sip::TransactionLayer::Party::known
                              : sip::TransactionLayer::Party::stranger;
    }
    static Carrier of(const sa::SaSet& s) {
        return Carrier{s.id, s.user, s.state, s.tag, s.numbers, s.nat};
    }
};

// A fresh request from Gm or the core, with its server transaction (0 for ACK).
struct Arrival {
    const sip::Flow& flow;
    sip::Flow reply;
    Carrier carrier;
    sip::ServerTransactionId transaction = 0;
};

// Enough of a request to answer it when it is long gone: its Vias, From, To, Call-ID and CSeq.
[[nodiscard]] std::string head_of(const sip::Message& request);

class Context {
  public:
    Context(Policy policy, sa::SaDatabase& sets, TimerWheel& timers, Random& random,
            metrics::Registry& registry);

    Policy policy;
    sa::SaDatabase& sets;
    TimerWheel& timers;
    Random& random;
    GatewayMetrics metrics;
    TraceStore trace;
    FailureLog failures;
    FailureReporter reporter;
    CoreWatch core_watch;
    FlowTokens tokens;
    Side gm;
    Side core;
    std::string scratch;  // the message being built; good until the next one

    NextHops next_hops;
    // Both only with a resolver.
    std::unique_ptr<dns::Locator> domain;
    std::unique_ptr<dns::Hosts> hosts;
    void resolve_with(dns::Resolver& resolver);

    // Our core endpoint towards the first of the next hops.
    Endpoint core_local;
    std::string core_host;  // host[:port] in Path and Record-Route
    std::string generator;  // icid-generated-at
    // The way to the core: to the best next hop, or to `stay` while that one lives. Its remote
    // address is unspecified while no next hop is known: nothing can be sent there.
    [[nodiscard]] sip::Flow core_flow(const std::optional<Endpoint>& stay = {}) const;
    // The way a Route, a Record-Route or a target of the core's names: an address, or a host name
    // whose addresses are known. nullopt: it cannot be sent to directly, the next hop routes on.
    [[nodiscard]] std::optional<sip::Flow> flow_to(std::string_view route_value) const;
    // Our Via on a request to the core, up to the branch: "SIP/2.0/UDP 192.0.2.1:5060;branch=".
    [[nodiscard]] std::string via_on(const sip::Flow& flow) const;
    [[nodiscard]] TimePoint now() const { return timers.now(); }
    // May this address speak to us on the core's side (S2)?
    [[nodiscard]] bool trusts(const IpAddress& peer) const;
    // A host of a Service-Route, if policy trusts these. The first 256 are remembered.
    void trust(const IpAddress& hop);
    // A hop of a Service-Route by its host name: looked up, and its addresses are trusted as those
    // the core writes out. Without a resolver nothing can be compared with it: told once.
    void learn(const sip::Uri& hop);
    [[nodiscard]] bool is_our_core_host(const sip::Uri& uri) const;

    // Answers the request at hand. `reason` is counted unless it is ok.
    void answer(Side& side, const Arrival& arrival, const sip::Message& request, int code,
                Reason reason, std::string_view impi = {},
                std::initializer_list<sip::HeaderField> headers = {});
    // Answers a request kept as head_of(). `path`: on another way than it asked for (D6).
    // `source`: where that request came from. False: nothing was sent.
    bool answer_later(Side& side, sip::ServerTransactionId id, std::string_view head,
                      const Endpoint& source, int code,
                      std::initializer_list<sip::HeaderField> headers = {},
                      const sip::Flow* path = nullptr);
    // Discards it: counted, never answered (B7).
    void discard(Side& side, const Arrival& arrival, Reason reason, std::string_view impi = {});
    // Turned away before it was looked at: counted; of each reason one a second is listed and
    // logged, so that a flood costs no more than that.
    void shed(Reason reason, const Endpoint& source);
    // Counts a message refused or discarded, without touching a transaction.
    void refuse(Reason reason, int status, const Endpoint& source, std::string_view impi);

    // A registration failed: to be called once for each. The same word goes into the metric, the
    // list of failures, the log and the ladder; a ladder without an IMPI stands under the source's
    // address.
    struct Failed {
        Reason reason = Reason::ok;
        int status = 0;  // what was answered; 0: nothing
        Endpoint source;
        std::string_view impi = {};
        sa::SetId set = 0;
        std::string_view remark = {};  // what more is known, for the log
        std::uint64_t attempt = 0;     // as in TraceRecord
    };
    void registration_failed(const Failed& failed);
    // A REGISTER was discarded before anything was kept of it (S3), and the phone will send it
    // again: listed and logged, but no registration has ended.
    void registration_discarded(Reason reason, const Endpoint& source);

    // What the core's behaviour says about its health.
    void core_answered();
    void core_failed(Reason why);

    // The message at hand, while there is one: what is traced meanwhile belongs to its Call-ID.
    class AtHand {
      public:
        AtHand(Context& context, const sip::Message& message,
               std::optional<sip::Transport> over = std::nullopt);
        // One that is gone, by its head_of().
        AtHand(Context& context, std::string_view head);
        ~AtHand() {
            context_.call_ = before_call_;
            context_.over_ = before_over_;
        }
        AtHand(const AtHand&) = delete;
        AtHand& operator=(const AtHand&) = delete;

      private:
        Context& context_;
        std::uint64_t before_call_;
        std::optional<sip::Transport> before_over_;
    };

    // One message of a user on the trace. `user`: trace.user_of(impi).
    struct Noted {
        Entity from;
        Entity to;
        Step step = Step::none;
        sa::SetId set = 0;
        sa::Spi spi = 0;
        Reason reason = Reason::ok;
        std::uint64_t attempt = 0;  // as in TraceRecord
        // Between UE and P-CSCF; nullopt: as the message at hand came.
        std::optional<sip::Transport> over = std::nullopt;
    };
    void note(std::uint64_t user, std::string_view method, int status, const Noted& noted);
    // Under whose number a REGISTER is traced: its IMPI's, or its source's if it names none.
    [[nodiscard]] std::uint64_t trace_user(std::string_view impi, const Endpoint& source) const;
    void note_event(std::uint64_t user, Step step, sa::SetId set, sa::Spi spi, Reason reason,
                    std::uint64_t attempt = 0);

  private:
    void cannot_trust(std::string_view host);

    std::uint64_t call_ = 0;                // of the message at hand
    std::optional<sip::Transport> over_{};  // and how it came
    std::unordered_set<IpAddress> hops_;    // the core named them
    bool untrusted_told_ = false;           // once, see cannot_trust()
    bool silence_told_ = false;             // of the core; its return not yet
    TimePoint silence_told_at_{};
    std::array<TimePoint, reason_count> listed_{};  // when shed() listed the reason last
};

// Why a set went, in the catalogue's words, told of the registration or procedure that ended with
// it.
[[nodiscard]] Reason reason_of(sa::Event removed_by);

// The method as traces print it: one of the known ones, "OTHER" for the rest.
[[nodiscard]] std::string_view known_method(std::string_view method);

}  // namespace gmgate::registration
