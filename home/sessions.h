#pragma once
// The sessions of registered users, as the S-CSCF knows them from the requests that pass: enough to
// end them when the network ends a registration (TS 24.229 5.4.5.1, F3). One thread.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "control/sip/message.h"
#include "control/sip/transaction.h"
#include "home/domain.h"

namespace gmgate::home {

struct SessionLimits {
    std::size_t total = 500'000;  // about 1.5 KB each; beyond: calls go on, and are not known here
    // A phone that crashes in its calls leaves them behind: the oldest of a user is forgotten.
    std::size_t per_user = 64;
};

struct SessionCounters {
    std::uint64_t begun = 0;      // answered 2xx
    std::uint64_t ended = 0;      // by BYE
    std::uint64_t released = 0;   // by us
    std::uint64_t byes = 0;       // sent by us
    std::uint64_t unknown = 0;    // not kept: the table is full
    std::uint64_t forgotten = 0;  // the oldest of a user with too many
};

class Sessions final : private sip::TransactionUser {
  public:
    // References outlive this.
    Sessions(SessionLimits limits, const Domain& domain, Random& random);
    ~Sessions() override;
    Sessions(const Sessions&) = delete;
    Sessions& operator=(const Sessions&) = delete;

    void attach(sip::TransactionLayer& transactions) { transactions_ = &transactions; }

    // One end of a call. `impi`: empty if it is not one of our users.
    struct Party {
        std::string impi;
        std::string impu;     // default identity of the set it registered with
        std::string contact;  // the target, if its message names none
        std::string path;     // the way to it, if the Record-Route does not tell
    };
    // An answer of 101 to 299 to an INVITE outside of a dialog, as it came; `invite`: as it came to
    // us. Makes or confirms the dialog it names. 0: it names none, or the table is full.
    SlotId answered(const sip::Message& invite, const sip::Message& response, const Party& caller,
                    const Party& callee);
    // The INVITE is over, and this dialog was not confirmed.
    void drop(SlotId early);
    // A request within a dialog, and its final answer, go by. Strangers' are not looked at.
    void passes(const sip::Message& request);
    void answered(const sip::Message& request, const sip::Message& response);
    // It was sent and not answered: a BYE ends the session all the same (RFC 3261 15.1.1).
    void unanswered(const sip::Message& request);

    // Ends the confirmed sessions of one implicit set of a user: BYE both ways, whoever answers
    // what.
    void release(std::string_view impi, std::span<const std::string> impus,
                 std::string_view reason);

    [[nodiscard]] std::size_t size() const { return sessions_.size(); }
    [[nodiscard]] std::size_t of(std::string_view impi) const;
    [[nodiscard]] const SessionCounters& counters() const { return counters_; }

  private:
    struct Side {
        std::string impi, impu;
        std::string name;    // From or To with its tag
        std::string target;  // Request-URI of what is sent to it
        std::string route;
        std::uint32_t cseq = 0;  // the highest of its requests
    };
    struct Session {
        explicit Session(SlotId i) : id(i) {}
        SlotId id;
        std::string key;
        std::string call_id;
        Side caller, callee;
        bool confirmed = false;
        bool released = false;
        unsigned byes = 0;  // of ours, not answered yet
    };
    using Index = std::unordered_map<std::string, SlotId, SeededStringHash, std::equal_to<>>;

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;

    // The dialog a request belongs to, and whether the caller sent it.
    Session* find(const sip::Message& request, bool& from_caller);
    void belongs_to(const std::string& impi, SlotId id);
    void erase(Session& session);
    void forget_oldest(std::string_view impi);
    void bye(Session& session, Side& from, const Side& to, std::string_view reason);
    void bye_is_over(SlotId id);

    SessionLimits limits_;
    const Domain& domain_;
    sip::TransactionLayer* transactions_ = nullptr;
    SlotMap<Session> sessions_;
    Index by_dialog_;
    std::unordered_map<std::string, std::vector<SlotId>, SeededStringHash, std::equal_to<>>
        by_user_;  // oldest first
    SessionCounters counters_;
};

}  // namespace gmgate::home
