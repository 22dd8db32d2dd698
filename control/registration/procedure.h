#pragma once
// The registration of one UE from SM1 to SM12 as one object: named steps, one time-out, one result.
//
//   SM1  start()                   checked by the registrar; SM2 goes to the core
//   awaiting_challenge SM5  on_response() 401         keys out, four SAs live, SM6 to the UE
//   awaiting_authentication SM7  on_second_register()      checked against SM1 and SM6; SM8 goes to
//   the core         awaiting_answer SM11 on_response() 200         set established, SM12 to the UE
//   gone
//
// The time-out is reg-await-auth of the SA set (C5), and before the set exists that of the
// transaction to the core (C11). A failure whose answer still has to leave on the new SAs lingers
// until it has (C2, C8).

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/slot_map.h"
#include "base/timer_wheel.h"
#include "control/registration/context.h"
#include "control/secagree/mechanism.h"
#include "control/sip/values.h"
#include "sa/packed_strings.h"

namespace gmgate::registration {

class Registrar;

// What a checked REGISTER said. Views into the message.
struct RegisterFacts {
    std::string_view impi;
    std::string impu;           // normalised To
    std::string_view contact;   // URI of the first Contact; may be empty
    std::uint32_t expires = 0;  // asked for; 0: deregister
    sip::DigestCredentials credentials;
};

class RegistrationProcedure {
  public:
    enum class State : std::uint8_t {
        awaiting_challenge,
        awaiting_authentication,
        awaiting_answer,
        lingering,
    };

    RegistrationProcedure(SlotId id, Context& context, Registrar& owner);
    ~RegistrationProcedure();
    RegistrationProcedure(const RegistrationProcedure&) = delete;
    RegistrationProcedure& operator=(const RegistrationProcedure&) = delete;

    // Each of these may end the procedure: the object is gone when the call returns.
    //
    // nat_inner: the UE is behind a NAT and this is its own address (N1). reported: attempt() of
    // the procedure whose challenge this REGISTER refuses (C3); 0: none.
    void start(const Arrival& sm1, const sip::Message& request, const RegisterFacts& facts,
               const std::optional<secagree::Choice>& choice,
               const std::optional<IpAddress>& nat_inner, std::uint64_t reported);
    void on_second_register(const Arrival& sm7, const sip::Message& request,
                            const RegisterFacts& facts);
    void on_response(const sip::Message& response, std::span<char> bytes);
    void on_core_failure(sip::ClientFailure failure);
    // What waits for an answer went to another element of the core, for its own failed.
    void moved(const Endpoint& to) { core_at_ = to; }
    // What may yet go to the same element over UDP goes there first.
    [[nodiscard]] bool may_move() const { return sent_.empty(); }
    // The UE reports that it did not take the challenge (C3, C4): the new SAs go at once.
    void abandoned_by_ue(sa::Event event, Reason reason);
    // The database removed the set: time-out, newer challenge, or from outside.
    void on_set_removed(Reason why);
    // The gateway stops: a REGISTER that waits for its answer gets 503.
    void shut_down();

    // A packet on the new set failed its integrity check (C1).
    void integrity_failed() { integrity_failed_ = true; }

    [[nodiscard]] SlotId id() const { return id_; }
    // Under what its steps are traced: its own id, or that of the attempt it reports about.
    [[nodiscard]] std::uint64_t attempt() const { return attempt_; }
    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] sa::SetId set() const { return set_; }
    [[nodiscard]] std::uint64_t nonce_hash() const { return nonce_hash_; }
    [[nodiscard]] const Endpoint& ue() const { return ue_; }
    [[nodiscard]] std::string_view impi() const { return texts_[text_impi]; }
    [[nodiscard]] std::string_view impu() const { return texts_[text_impu]; }
    [[nodiscard]] std::string_view contact() const { return texts_[text_contact]; }
    [[nodiscard]] std::uint32_t requested_expires() const { return expires_; }
    [[nodiscard]] sip::Transport transport() const { return reply_.transport; }
    [[nodiscard]] bool sm1_protected() const { return sm1_.is_protected(); }
    [[nodiscard]] TimePoint started() const { return started_; }

  private:
    enum Text : std::uint8_t { text_impi, text_impu, text_contact, text_offer, text_head };

    bool keep_texts(const RegisterFacts& facts, std::string_view offer,
                    const sip::Message& request);
    void note(int status, Context::Noted noted);
    // SM2, SM8: with our Via, Path, and the integrity indicator; without what the UE may not say.
    // May end the procedure.
    void forward(const Arrival& arrival, const sip::Message& request, bool integrity, Step step);
    // It went over TCP for its size alone, and TCP fails: once more over UDP. False: it cannot.
    bool send_again_over_udp();
    void forwarding_failed(const Arrival& arrival, const sip::Message& request, Step step,
                           int status, Reason reason);
    void challenge(const sip::Message& response, std::span<char> bytes);
    void unchallenged(const sip::Message& response);
    void complete(const sip::Message& response);
    void refused_by_core(const sip::Message& response, Reason reason);
    // Why SM7 does not fit SM1 and SM6 (B4, C8); ok: it does.
    [[nodiscard]] Reason check_second(const Arrival& sm7, const sip::Message& request,
                                      const RegisterFacts& facts) const;
    // What Security-Server said, or says (C8).
    [[nodiscard]] secagree::ServerList server_list() const;
    // The core's answer, as it goes to the UE. False: it cannot be made.
    bool edit_response(const sip::Message& response, std::string_view security_server);
    // Sends what is in the context's scratch; `path`: another way than asked for (D6).
    bool send_answer(int status, Step step, Reason reason, const sip::Flow* path = nullptr);
    // Where a failure of SM7 goes when SM1 was protected: SM1's old set (D6). nullptr: the new one.
    [[nodiscard]] const sip::Flow* failure_path() const;
    // The three ways to tell a failure. True: it went on SM1's old set, so the new one need not
    // live on for it.
    bool send_failure(int status, Reason reason);  // the core's, in the context's scratch
    bool fail_later(int status, Reason reason);    // our own, for the request we hold
    bool refuse_second(const Arrival& sm7, const sip::Message& request, int status, Reason reason,
                       std::initializer_list<sip::HeaderField> headers = {});
    bool fail_request(sip::ServerTransactionId server, std::string_view head,
                      const Endpoint& source, bool second, int status, Reason reason,
                      std::initializer_list<sip::HeaderField> headers = {});
    // The set SM1 came on is still there, or SM1 came in clear.
    [[nodiscard]] bool sm1_path_alive() const;
    void drop_set(sa::Event event);
    // Ends now (on_old: the answer left on SM1's old set), or when the answer has left on the new
    // SAs.
    void conclude(sa::Event event, bool on_old);
    void linger(sa::Event event);
    void on_linger_over();
    // Once for each attempt: what it ended with goes where operators look. An attempt that failed
    // may leave the set waiting for another SM7 (C11).
    void record_end(Reason reason, std::string_view remark = {});
    // The ladder's step; a report of the UE (C3) is none of SM1 to SM12.
    [[nodiscard]] Step step(Step ordinary) const { return failure_report_ ? Step::none : ordinary; }
    void end(Reason reason, std::string_view remark = {});

    SlotId id_;
    Context& ctx_;
    Registrar& owner_;
    State state_ = State::awaiting_challenge;
    bool failure_report_ =
        false;  // the REGISTER itself says that an earlier challenge was refused (C3)
    bool recorded_ = false;
    bool integrity_failed_ = false;
    int answered_ = 0;  // what the UE was told about a failure; 0: nothing yet
    bool counted_source_ = false;
    sa::UserId counted_user_ = 0;  // SM1 came on an SA of this one
    std::uint64_t trace_user_ = 0;
    std::uint64_t attempt_ = 0;

    Endpoint ue_;  // source of SM1
    IpAddress ours_;
    std::optional<IpAddress> nat_inner_;
    Carrier sm1_;  // the set SM1 came on
    sip::Flow sm1_reply_;
    sip::Flow reply_;  // of the request being answered
    Endpoint source_;
    sip::ServerTransactionId server_ = 0;
    sip::ClientTransactionId client_ = 0;

    std::optional<Endpoint> core_at_;  // the element of the core that was asked
    std::string sent_;                 // a REGISTER that may have to go again over UDP
    std::optional<secagree::Choice> choice_;
    sa::SetId set_ = 0;         // ours to remove; 0 once it is gone or established
    sa::SetId traced_set_ = 0;  // the same for the trace, for good
    sa::SaNumbers numbers_;
    sa::UserId user_ = 0;
    std::uint64_t nonce_hash_ = 0;
    std::uint32_t expires_ = 0;
    TimePoint started_{};
    TimePoint answered_from_{};  // SM7's arrival
    sa::Event linger_event_ = sa::Event::aborted;
    Timer linger_timer_;
    sa::PackedStrings texts_;

    friend class Registrar;  // keeps the books: source, trace number
};

}  // namespace gmgate::registration
