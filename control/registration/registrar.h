#pragma once
// Takes REGISTER requests apart, finds or starts the procedure they belong to, and keeps the
// registrations.

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "control/registration/context.h"
#include "control/registration/dialogs.h"
#include "control/registration/limiter.h"
#include "control/registration/procedure.h"
#include "control/registration/registrations.h"

namespace gmgate::regevent {
class Subscriber;
}

namespace gmgate::registration {

class Registrar final : public sip::TransactionUser, public sa::SetObserver {
  public:
    explicit Registrar(Context& context);
    ~Registrar() override;

    // May this source send an unprotected message now (S3)? Asked before it is looked at.
    [[nodiscard]] Reason admit(const Endpoint& source, sip::Transport transport);
    // May this user send one on its SAs?
    [[nodiscard]] bool admit_user(sa::UserId user);
    // It may not: is it worth an answer that says so? Now and then only.
    [[nodiscard]] bool tell_user(sa::UserId user);
    void on_register(const Arrival& arrival, const sip::Message& request);
    // Answers a REGISTER that begins no procedure: a registration that failed at once.
    void refuse(const Arrival& arrival, const sip::Message& request, int code, Reason reason,
                std::initializer_list<sip::HeaderField> headers = {});

    // --- for procedures ---
    [[nodiscard]] std::uint64_t hash_nonce(std::string_view nonce) const;
    // A11 for a REGISTER that is not SM7.
    [[nodiscard]] bool integrity_of(const Carrier& carrier,
                                    const sip::DigestCredentials& credentials) const;
    // What the 200 grants is stored with the set (B5, D3, D4).
    Result<void> store(const RegistrationProcedure& procedure, sa::SetId set, bool fresh_set,
                       const sip::Message& response);
    void finish(SlotId id);
    // A challenge for an SM1 in clear would void one under way (B3, C10). A stranger must not do
    // that to a user who has shown its keys (S3): by starting on an SA, for one transaction's time
    // (a phone that lost its SAs in the middle of it waits as long), or by an SM7 the core has not
    // answered yet.
    [[nodiscard]] bool strangers_must_wait(std::string_view impi) const;

    // E5: told of registrations that begin, are renewed and end. Outlives the registrar's use of
    // it; nullptr: nobody.
    void watch_with(regevent::Subscriber* subscriber) { subscriber_ = subscriber; }
    // Told when a registration is over, or its SAs are. Outlives the registrar's use of it;
    // nullptr: nobody.
    void release_with(SessionRelease* sessions) { sessions_ = sessions; }
    // What the network says of the user's registrations, done (E5, D4, F1): identities that are
    // gone go, with the last of them the registration; a shortened one ends earlier, its SAs do not
    // (B5, F4). `ended`: the subscription is over with it. While the core owes the answer to a
    // REGISTER of the user nothing is ended, and the state is asked for after it: the NOTIFY may
    // have overtaken the 200. Returns how long the first of the shortened ones lasts, if there are
    // any.
    std::optional<Duration> obey(sa::UserId user, const sip::RegInfo& info, bool ended);
    // Shortened registrations are over, and nobody renewed them. Returns as obey() does.
    std::optional<Duration> overdue(sa::UserId user);
    // All its identities are deregistered, and its SAs live on for the last messages alone (D4).
    [[nodiscard]] bool is_leaving(sa::UserId user) const { return left_by(user) != Reason::ok; }
    // And by whose doing; ok: it is not leaving.
    [[nodiscard]] Reason left_by(sa::UserId user) const;
    // Ends every procedure under way, and tells the subscriber nothing any more: the gateway stops.
    void shut_down();

    // The network ended the registration of all identities of this IMPI (D4, F4): nothing of the
    // user is taken any more, and its SAs live on for the drain time, so that the NOTIFY that says
    // so still leaves under them. False: not registered.
    bool deregister(std::string_view impi);

    // A phone behind a NAT is registered at this source, as Admission::source_of() counts it (N1).
    [[nodiscard]] bool is_nat(const IpAddress& source) const { return nats_.of(source) > 0; }
    [[nodiscard]] Registrations& registrations() { return registrations_; }
    [[nodiscard]] const Registrations& registrations() const { return registrations_; }
    [[nodiscard]] const SlotMap<RegistrationProcedure>& procedures() const { return procedures_; }
    // What counts procedures by source and user, and registrations by source.
    [[nodiscard]] std::size_t index_entries() const {
        return pending_by_source_.size() + pending_by_user_.size() + registered_at_.sources();
    }

    // sip::TransactionUser, core side: `context` is the procedure's id.
    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;
    [[nodiscard]] bool may_move(std::uint64_t context) const override;
    void on_moved(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                  std::string_view request) override;

    // sa::SetObserver
    void on_set_state(const sa::SaSet& set, sa::State from) override;
    void on_set_removed(const sa::SaSet& set, const sa::User& user, sa::Event reason) override;
    void on_backend_event(const sa::SaSet& set, const sa::BackendEvent& event) override;

  private:
    // SM1 or a REGISTER of a registered user.
    void on_first(const Arrival& arrival, const sip::Message& request, const RegisterFacts& facts);
    [[nodiscard]] bool takes_nat(const Arrival& arrival, const sip::Message& request,
                                 const IpAddress& inner) const;
    [[nodiscard]] bool from_is_the_users(const Carrier& carrier, const sip::Message& request,
                                         const RegisterFacts& facts) const;
    void note_arrival(const Arrival& arrival, Step step, Reason reason, std::string_view impi,
                      std::uint64_t attempt = 0);
    // The UE says it refused the challenge of a procedure under way (C3, C4). Not 0: this REGISTER
    // is nothing but that report, about that attempt.
    std::uint64_t take_failure_report(const Arrival& arrival, const RegisterFacts& facts);

    // S3: a place among the pending, if need be that of one that has waited too long. False: none.
    [[nodiscard]] bool make_room();
    // The same among those of one source: its address may be forged, and who is really there must
    // not be kept out for as long as challenges live.
    [[nodiscard]] bool make_room_at(const Endpoint& from);
    // The phone registers in clear from where it is registered.
    [[nodiscard]] bool is_at_home(const sa::User& user, const IpAddress& source) const;
    void moved(Registration& registration, const IpAddress& to, bool nat = false);
    // What the set's user is known by from now on (B5, D3, D4).
    struct Known {
        std::vector<std::string_view> impus;
        std::string_view service_route;
        std::string_view associated;
        std::string_view contact;
        Duration granted{};
    };
    Result<void> tell_sets(sa::SetId set, bool fresh_set, const Known& known);
    // Each identity once, and the time of the binding that lasts longest.
    [[nodiscard]] Known known_by(std::span<const Binding> bindings) const;
    // D4 for all identities of the user. `core_knows`: by the core's doing.
    void end(const sa::User& user, Registration& registration, Reason why, bool core_knows);
    // Only these bindings stay; with none, end().
    // Those of the identities that `bindings` do not have.
    [[nodiscard]] static std::vector<std::string> without(std::vector<std::string> identities,
                                                          std::span<const Binding> bindings);
    [[nodiscard]] static std::vector<std::string> identities_of(std::span<const Binding> bindings);
    void keep_only(const sa::User& user, Registration& registration, std::vector<Binding> kept,
                   Reason why, bool core_knows);
    // A REGISTER that the core has not answered yet and that a stranger cannot have sent (S3).
    [[nodiscard]] bool awaits_core(const sa::User& user) const;
    // Until the first of the shortened bindings ends.
    [[nodiscard]] std::optional<Duration> shortened_to(const Registration& registration) const;

    Context& ctx_;
    SeededHash nonce_hash_;
    Admission admission_;
    RateTable per_name_;
    RateTable per_user_;
    RateTable told_;
    // Procedures begun in clear, of each source, oldest first.
    std::unordered_map<IpAddress, std::vector<SlotId>, CountBySource::Hash> pending_by_source_;
    CountBySource registered_at_;
    CountBySource nats_;  // of those, behind a NAT (N1)
    // Procedures begun in clear, oldest first, with some that are over; never more than twice as
    // many as there are.
    std::deque<SlotId> begun_in_clear_;
    // The same for procedures begun on SAs: no more entries than there are procedures.
    struct UnderWay {
        std::vector<SlotId> procedures;
        TimePoint since{};  // of the latest
    };
    std::unordered_map<sa::UserId, UnderWay> pending_by_user_;
    Registrations registrations_;
    SlotMap<RegistrationProcedure> procedures_;
    regevent::Subscriber* subscriber_ = nullptr;
    SessionRelease* sessions_ = nullptr;
};

}  // namespace gmgate::registration
