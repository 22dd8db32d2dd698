#pragma once
// The P-CSCF's side of the registration event package (E5; RFC 3680 over RFC 6665, TS 24.229
// 5.2.3): one subscription for each registered user, refreshed, its NOTIFYs taken in order.
//
// What a NOTIFY means for the registration is the Host's to say. A subscription that is lost is
// made again: by 481, by a NOTIFY that is missing in a row of partial ones, by time-outs (with
// growing pauses), and when the core, which tells of re-registrations, does not tell of one.
// About 0.3 KB a user: the dialog's names are computed from the slot's number, no document is kept.
// One thread.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/reginfo.h"
#include "control/sip/transaction.h"

namespace gmgate::regevent {

using UserId = std::uint64_t;

// What the subscriber asks of the gateway around it.
class Host {
  public:
    virtual ~Host() = default;
    // The default public identity; empty: the user is not registered any more. Valid during the
    // call.
    virtual std::string_view identity(UserId user) const = 0;
    // The way to a route or target the core gave; to the next hop if it is empty or not to be
    // trusted.
    virtual sip::Flow flow_to(std::string_view uri) const = 0;
    // The user's registrations changed; `ended`: and the core says no more of them. How long the
    // first of those lasts that the network shortened (F1), if there are any. May call stop().
    virtual std::optional<Duration> on_reginfo(UserId user, const sip::RegInfo& info,
                                               bool ended) = 0;
    // A shortened registration is over and was not renewed. Returns the same for those that are
    // left. May call stop().
    virtual std::optional<Duration> on_overdue(UserId user) = 0;
    // For traces. `status` 0: a request.
    virtual void note(UserId user, std::string_view method, int status, bool to_core) = 0;
};

struct Options {
    sip::RegProfile profile = sip::RegProfile::rfc3680;
    std::uint32_t expires = 600'000;  // seconds asked for
    Duration t1 = std::chrono::milliseconds(500);
    // What a shortened registration is given beyond its time, as SA sets are (B5).
    Duration margin = std::chrono::seconds(30);
    std::string address;  // our host:port on the core's side, for Contact and Call-ID
    std::string name;     // host[:port] of our Path URI: the name the S-CSCF knows us by
};

class Subscriber final : private sip::TransactionUser {
  public:
    // What is passed by reference outlives this.
    Subscriber(Options options, Host& host, TimerWheel& timers, Random& random,
               metrics::Registry& registry);
    ~Subscriber() override;
    Subscriber(const Subscriber&) = delete;
    Subscriber& operator=(const Subscriber&) = delete;
    void attach(sip::TransactionLayer& transactions) { transactions_ = &transactions; }

    // The user has been registered: SUBSCRIBE leaves at the next tick, behind SM12.
    [[nodiscard]] SlotId start(UserId user);
    // It has been registered again. `left`: as on_reginfo() returns it.
    void renewed(SlotId id, std::optional<Duration> left);
    // What the core said could not be obeyed: the whole state is asked for, at the next tick.
    void ask(SlotId id);
    // It is registered no more. `core_knows`: by the core's own doing, whose last NOTIFY may still
    // come; otherwise the subscription is ended, one user after the other if many end at once.
    void stop(SlotId id, bool core_knows);

    struct Verdict {
        int status = 200;
        std::string_view reason{};
    };
    // A NOTIFY of the core, checked. nullopt: of no dialog of ours by its Call-ID.
    [[nodiscard]] std::optional<Verdict> on_notify(const sip::Message& request);

    // For the operator: "none", "subscribing", "subscribed", "refused", "ending".
    [[nodiscard]] std::string_view state(SlotId id) const;
    // Subscriptions the core has accepted.
    [[nodiscard]] std::size_t established() const { return established_; }
    [[nodiscard]] std::size_t size() const { return subscriptions_.size(); }
    static constexpr std::size_t octets();  // of one, without the texts of its dialog

  private:
    enum class State : std::uint8_t { waiting, subscribing, established, refused, ending };
    struct Subscription {
        Subscription(SlotId i, Subscriber& o, UserId u) : owner(o), id(i), user(u) {
            timer.bind<&Subscription::on_timer>(this);
        }
        void on_timer() { owner.on_timer(*this); }

        Subscriber& owner;
        SlotId id;
        UserId user;
        Timer timer;          // the earlier of `next` and `overdue`
        TimePoint next{};     // SUBSCRIBE again; or, ending, forget it
        TimePoint overdue{};  // a shortened registration ends
        TimePoint lasts{};    // the core keeps the subscription until then
        TimePoint since{};    // the dialog stands
        std::string dialog;   // remote tag, target and route, a line each
        sip::ClientTransactionId transaction = 0;
        std::uint32_t number = 0;  // of dialogs, so that each has names of its own
        std::uint32_t cseq = 0;
        std::optional<std::uint32_t> remote_cseq;
        std::uint32_t version = 0;  // of the latest document
        std::uint32_t expires = 0;  // asked for
        State state = State::waiting;
        bool has_version = false;
        bool refreshing = false;       // an accepted one whose refresh is under way
        bool asked = false;            // the next NOTIFY answers a SUBSCRIBE
        bool untold = false;           // ending, and the core has not been told yet
        bool gap = false;              // a document is missing; the whole state has not come yet
        bool tells_refreshes = false;  // the core has told of a re-registration by itself
        std::uint8_t failures = 0;     // until a document is obeyed in a dialog that has stood
    };

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;
    void on_timer(Subscription& s);
    void arm(Subscription& s);
    [[nodiscard]] TimePoint soonest();
    [[nodiscard]] Duration below(Duration bound);
    void ends_in(Subscription& s, std::optional<Duration> left);
    void set_state(Subscription& s, State state);
    void subscribe(Subscription& s, std::uint32_t expires);
    void accepted(Subscription& s, const sip::Message& response);
    void lasting(Subscription& s, std::uint32_t seconds);
    void failed(Subscription& s, std::optional<std::uint32_t> retry_after);
    void lose_dialog(Subscription& s);
    void tell_end(Subscription& s);
    void forget(SlotId id);
    // The three lines of `dialog`.
    static std::string_view line(const Subscription& s, unsigned which);
    [[nodiscard]] std::string call_id(const Subscription& s) const;
    [[nodiscard]] std::string our_tag(const Subscription& s) const;
    [[nodiscard]] Subscription* find_dialog(std::string_view call_id) const;

    Options options_;
    Host& host_;
    TimerWheel& timers_;
    Random& random_;
    SeededHash names_;
    sip::TransactionLayer* transactions_ = nullptr;
    SlotMap<Subscription> subscriptions_;
    std::size_t established_ = 0;
    bool unsupported_ = false;       // the core does not know the package: not asked for each user
    TimePoint unsupported_until_{};  // and for none before
    TimePoint tell_next_{};          // when the next end may be told
    SlotId probe_ = 0;               // the one that asks then
    metrics::Gauge& gauge_;
    metrics::Counter& subscribed_;
    metrics::Counter& refused_;
    metrics::Counter& unanswered_;
    metrics::Counter& obeyed_;
    metrics::Counter& repeated_;
    metrics::Counter& gaps_;
    metrics::Counter& malformed_;
    metrics::Counter& stray_;
};

constexpr std::size_t Subscriber::octets() {
    return sizeof(Subscription);
}

}  // namespace gmgate::regevent
