#pragma once
// The notifier of the registration event package (RFC 3680 over RFC 6665; TS 24.229 5.4.2): who
// subscribed to a user's registration state hears the whole of it at once and at each change.
//
// The phone itself may subscribe, and the P-CSCF in its Path; both forms of the body, by the Event
// header of the SUBSCRIBE (F2). One NOTIFY at a time on a dialog, so that none overtakes another;
// what changes meanwhile goes with the next. One thread.

#include <chrono>
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
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "control/sip/build.h"
#include "control/sip/reginfo.h"
#include "control/sip/transaction.h"
#include "home/registrar.h"

namespace gmgate::home {

struct RegEventConfig {
    std::chrono::seconds default_expires{3761};  // RFC 3680 4.4
    std::chrono::seconds max_expires{1'000'000};
    std::chrono::seconds min_expires{60};       // below, and not 0: 423
    std::size_t max_subscriptions = 2'000'000;  // about 1 KB each; beyond: 503
    std::size_t max_per_user = 8;               // beyond: 503
};

struct RegEventCounters {
    std::uint64_t subscribes = 0;  // accepted, first ones and refreshes
    std::uint64_t refused = 0;     // 4xx, 5xx to SUBSCRIBE
    std::uint64_t notifies = 0;    // sent
    std::uint64_t failed = 0;      // not answered, or refused: the subscription is over (RFC 6665)
    std::uint64_t ended = 0;       // subscriptions that ended in any way
};

class RegEvent final : private sip::TransactionUser {
  public:
    // `listen`: our endpoints; outlives this, as do the others.
    RegEvent(RegEventConfig config, Registrar& registrar, std::span<const Endpoint> listen,
             TimerWheel& timers, Random& random);
    ~RegEvent() override;
    RegEvent(const RegEvent&) = delete;
    RegEvent& operator=(const RegEvent&) = delete;

    void attach(sip::TransactionLayer& transactions) { transactions_ = &transactions; }

    // A SUBSCRIBE, checked by sip::check_request. Answers it.
    void on_subscribe(sip::ServerTransactionId id, const Endpoint& source,
                      const sip::Message& request);

    // See RegistrationObserver.
    void on_registration(const RegistrationChange& change);

    // F1: the named identities (canonical, of one user, at least one) are to be re-authenticated;
    // the others of their implicit sets are covered by the first named one of the same set. Goes
    // out with the change the registrar tells next; forgotten when the user has registered anew or
    // is gone; those announced before stay. `round`: the caller's number of it, not 0, ascending.
    void announce(std::string_view impi, std::uint64_t round, std::vector<std::string> identities);
    // How the UE of `impi` answered a NOTIFY of that round on a dialog of its own. If it refused,
    // or that NOTIFY could not go out any more, the dialog is gone by now.
    using UeAnswer = std::function<void(std::string_view impi, std::uint64_t round, bool positive)>;
    void on_ue_answer(UeAnswer told) { ue_answer_ = std::move(told); }
    // Has the UE itself subscribed?
    [[nodiscard]] bool ue_subscribed(std::string_view impi) const;

    [[nodiscard]] std::size_t subscriptions() const { return by_id_.size(); }
    [[nodiscard]] const RegEventCounters& counters() const { return counters_; }

  private:
    struct Subscription {
        Subscription(RegEvent& o, std::uint64_t i) : owner(o), id(i) {
            expiry.bind<&Subscription::on_expiry>(this);
        }
        void on_expiry() { owner.expired(*this); }
        // The last NOTIFY of a registration that ended is on its way, or waits to be.
        [[nodiscard]] bool is_over() const;

        RegEvent& owner;
        std::uint64_t id;  // its digits are our tag
        std::string impi;
        sip::RegProfile profile = sip::RegProfile::rfc3680;
        bool is_ue = false;        // false: the P-CSCF
        bool outstanding = false;  // a NOTIFY is not answered yet
        bool ending = false;       // the last NOTIFY is on its way
        std::uint64_t round = 0;   // announced by the NOTIFY that is outstanding; 0: none
        std::string event;         // Event as it came: an id parameter belongs to it
        std::string call_id;
        std::string local;   // From of our requests, without tag
        std::string remote;  // To of our requests, with tag
        std::string target;  // Contact of the subscriber
        std::string route;   // Route of our requests: its Record-Route
        std::uint32_t cseq = 0;
        std::uint32_t remote_cseq = 0;
        std::uint32_t version = 0;  // of the next NOTIFY
        std::optional<sip::RegInfo> queued;
        std::string queued_state;  // Subscription-State to go with it; empty: active
        Timer expiry;
    };

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;

    void refuse(sip::ServerTransactionId id, const Endpoint& source, const sip::Message& request,
                int status, std::initializer_list<sip::HeaderField> headers = {});
    Subscription* find_dialog(const sip::Message& request, std::string_view tag);
    // Who asks about that user: the UE itself, its P-CSCF, or (nullopt) somebody who may not.
    [[nodiscard]] std::optional<bool> is_ue(const sip::Message& request, std::string_view impi);
    // The same subscriber's earlier dialog, if it lost it.
    void drop_forgotten(std::string_view impi, const Subscription& fresh);
    // The change, and the user's other sets as the registrar has them now.
    [[nodiscard]] sip::RegInfo document(std::string_view impi,
                                        const RegistrationChange* change) const;
    void add_set(sip::RegInfo& info, std::string_view impi, const std::vector<std::string>& impus,
                 const sip::RegContact& contact) const;
    // The user as the registrar has it now.
    [[nodiscard]] std::optional<sip::RegInfo> current(std::string_view impi);
    // The round this document announces; 0: none.
    [[nodiscard]] std::uint64_t round_of(std::string_view impi, const sip::RegInfo& info) const;
    // `state`: of Subscription-State; empty: active.
    void notify(Subscription& s, const sip::RegInfo& info, std::string_view state = {});
    void answered(std::uint64_t context, bool positive);
    void expired(Subscription& s);
    void remove(std::uint64_t id);
    [[nodiscard]] std::string contact() const;
    std::string_view tag_of(std::uint64_t id);

    RegEventConfig config_;
    Registrar& registrar_;
    std::span<const Endpoint> listen_;
    TimerWheel& timers_;
    Random& random_;
    sip::TransactionLayer* transactions_ = nullptr;
    SeededHash id_hash_;                                     // of the identities in documents
    std::unordered_map<std::uint64_t, Subscription> by_id_;  // ids of our own making
    std::unordered_map<std::string, std::vector<std::uint64_t>, SeededStringHash, std::equal_to<>>
        by_user_;
    struct Announced {
        std::uint64_t round = 0;
        std::vector<std::string> identities;
    };
    std::unordered_map<std::string, Announced, SeededStringHash, std::equal_to<>> announced_;
    UeAnswer ue_answer_;
    std::string tag_;
    std::string buffer_;
    RegEventCounters counters_;
};

}  // namespace gmgate::home
