#pragma once
// Requests of registered users other than REGISTER, both ways on their SAs (E2, E3): one Exchange
// for each that is under way.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/seeded_hash.h"
#include "base/slot_map.h"
#include "base/timer_wheel.h"
#include "control/registration/context.h"
#include "control/registration/dialogs.h"
#include "control/registration/emergency_calls.h"
#include "control/registration/registrations.h"

namespace gmgate::registration {

class Proxy final : public sip::TransactionUser, public SessionRelease {
  public:
    Proxy(Context& context, const Registrations& registrations);
    ~Proxy() override;

    // A request on a protected port, its SA set in `arrival.carrier`. Not REGISTER. transaction 0:
    // an ACK to pass on.
    void on_ue_request(const Arrival& arrival, const sip::Message& request);
    // One on the unprotected port that takes_in_clear() said yes to.
    void on_clear_request(const Arrival& arrival, const sip::Message& request);
    // A6: of what comes in clear on the unprotected port, emergency calls alone, if policy allows,
    // and what is said in them from where they came.
    [[nodiscard]] bool takes_in_clear(const sip::Flow& flow, const sip::Message& request) const;
    [[nodiscard]] bool takes_answers_in_clear(const sip::Flow& flow) const;
    // Who tells at which sources there is a NAT; before the first call.
    void nats_by(std::function<bool(const IpAddress&)> is_nat) { is_nat_ = std::move(is_nat); }
    // An emergency call in clear runs on this connection.
    [[nodiscard]] bool carries_call(const sip::Flow& flow) const { return calls_.runs_on(flow); }
    // Of a phone's.
    void on_connection_closed(const sip::Flow& flow);
    // A request from the core.
    void on_core_request(const Arrival& arrival, const sip::Message& request);

    [[nodiscard]] std::size_t size() const { return exchanges_.size(); }
    [[nodiscard]] const Dialogs& dialogs() const { return dialogs_; }
    // What counts exchanges by user, and finds INVITEs for their CANCEL and its answer.
    [[nodiscard]] std::size_t index_entries() const {
        return users_.size() + invites_.size() + cancels_.size() + calls_.size();
    }

    // Ends the user's sessions: BYE both ways in each dialog, on the phone's side while its SAs
    // live (D4), and for each INVITE without an answer CANCEL on, and a final answer back. Paced:
    // thousands may go at once. Nobody is waited for.
    void release(sa::UserId user, Reason why) override;
    void release_identities(sa::UserId user, std::span<const std::string> gone,
                            Reason why) override;
    // The gateway stops: every request under way gets 503, an INVITE is cancelled where it went,
    // sessions that are to be released are. Once; the rest of the sessions go on without us.
    void shut_down();

    // Both sides; `context` is the exchange's id.
    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;
    [[nodiscard]] bool may_move(std::uint64_t context) const override;
    void on_moved(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                  std::string_view request) override;
    // A response to a CANCEL: what we sent need not be sent again. `from_phone`: on which SA, or in
    // clear; nullptr: it came from the core.
    void on_cancel_answer(const sip::Message& response, const sip::Flow& flow,
                          const Carrier* from_phone);

  private:
    struct Exchange {
        Exchange(SlotId i, Proxy& p) : id(i), proxy(p) {
            timer.bind([](void* e) { static_cast<Exchange*>(e)->on_timer(); }, this);
        }
        void on_timer();

        SlotId id;
        Proxy& proxy;
        bool from_ue = false;
        bool invite = false;
        bool provisional = false;  // one has come: a CANCEL may be sent (RFC 3261 9.1)
        bool answered = false;     // finally
        bool cancelled = false;
        bool chose_tcp_for_size = false;  // RFC 3261 18.1.1
        bool reserves = false;            // room for the dialog it may make
        bool released = false;  // ended in the user's place: what it still brings is ended too
        bool may_move = false;  // no Route and no dialog ties it to one element of the core
        sa::UserId user = 0;
        std::uint64_t trace_user = 0;
        std::array<char, 14> method{};
        sip::ServerTransactionId server = 0;
        sip::ClientTransactionId client = 0;
        sip::Flow reply;  // where its responses go
        sip::Flow sent_to;
        Endpoint source;
        Carrier carrier;   // of the side that is Gm
        std::string head;  // to answer it ourselves
        std::string key;   // of an INVITE, for its CANCEL
        std::string
            sent;  // an INVITE as it was forwarded, or a request that may have to go again over UDP
        SlotId dialog = 0;           // it runs in
        std::uint32_t identity = 0;  // of an INVITE: identity_mark()
        std::uint64_t call = 0;      // of an INVITE, or a core's SUBSCRIBE or REFER: call_of()
        std::size_t forks = 0;       // dialogs it has made
        std::vector<std::uint64_t> confirmed;  // tags of those that were, hashed: never made again
        std::string target;            // its Contact, of one that may move the dialog's target
        std::size_t invite_place = 0;  // among the user's
        bool listed = false;           // it stands there
        Reason ended = Reason::ok;     // released: why
        std::string cancel_reason;     // Reason of the CANCEL that came (RFC 3326)
        Duration cancel_interval{};    // until it is sent again
        TimePoint cancel_end{};        // then it is given up
        std::string cancel_branch;     // it is known by
        Timer timer;                   // CANCEL's retransmission, or the wait for further 2xx

        [[nodiscard]] std::string_view method_name() const;
    };

    Side& inner(const Exchange& e) {
        return e.from_ue ? ctx_.gm : ctx_.core;
    }  // where the request came from
    Side& outer(const Exchange& e) { return e.from_ue ? ctx_.core : ctx_.gm; }  // where it went
    struct OfUser {
        std::size_t requests = 0;  // from it
        std::size_t reserved = 0;  // dialogs that INVITEs may yet make
        // INVITEs both ways, and what is under way to the phone; refused ones are gone.
        std::vector<SlotId> invites;
        [[nodiscard]] bool empty() const {
            return requests == 0 && reserved == 0 && invites.empty();
        }
    };
    Exchange* open(const Arrival& arrival, const sip::Message& request, bool from_ue,
                   sa::UserId user);
    void close(SlotId id);
    // Puts the message in the context's scratch on its way; answers for failures.
    void launch(const Arrival& arrival, const sip::Message& request, Exchange& e,
                const sip::TransactionLayer::Branch& branch, const sip::Flow& flow);
    // Who a request stands under in the trace and in refusals, and on which of its SAs.
    struct Traced {
        std::uint64_t user = 0;
        std::string_view impi = {};
        Carrier carrier = {};
    };
    // What is changed in a request beside what is changed in each: called once, or twice if it goes
    // over another transport than it was first meant to. Lives for the call only.
    class Changes {
      public:
        template <class F>
            requires(!std::is_same_v<std::remove_const_t<F>, Changes>)
        Changes(F& make)  // NOLINT(google-explicit-constructor): a lambda is handed over
            : context_(&make),
              call_([](const void* c, sip::Edit& edit) { (*static_cast<const F*>(c))(edit); }) {}
        void operator()(sip::Edit& edit) const { call_(context_, edit); }

      private:
        const void* context_;
        void (*call_)(const void*, sip::Edit&);
    };
    // Edits a request and sends it. `e`: nullptr for the ACK of a 2xx.
    void forward_to_core(const Arrival& arrival, const sip::Message& request, Exchange* e,
                         const sip::TransactionLayer::Branch& branch, sip::Flow flow,
                         const Traced& traced, const Changes& changes);
    struct WayToUe {
        sip::Flow flow;
        std::string sent_by;         // of our Via: host:port
        bool takes_streams = false;  // a large request may go over TCP
    };
    void forward_to_ue(const Arrival& arrival, const sip::Message& request, Exchange* e,
                       const sip::TransactionLayer::Branch& branch, WayToUe way,
                       const Traced& traced, const Changes& changes);
    // It went over TCP for its size alone, and TCP fails: once more over UDP. False: it cannot.
    bool send_again_over_udp(Exchange& e);
    // It is none of the user's INVITEs any more.
    void unlist(Exchange& e);
    void unreserve(Exchange& e);

    // --- dialogs (proxy_dialogs.cpp) ---
    // May this user begin or take one more call? Its own dialogs do not stand in the way, only what
    // it has under way: the one unused for the longest time gives way.
    [[nodiscard]] bool has_room_for_call(sa::UserId user) const;
    // For one more branch of a call nobody's dialog gives way.
    [[nodiscard]] bool has_room_for_branch(const Exchange& e) const;
    // What an INVITE has in common with all requests of the dialogs it makes.
    [[nodiscard]] std::uint64_t call_of(std::string_view call_id, std::string_view caller) const;
    // A request of the user's is in a dialog: in one we know, or one that an INVITE may have made
    // though it is not in the table. An INVITE is remembered for 64·T1 after its 2xx: an ACK may
    // come when the dialog has ended.
    [[nodiscard]] bool runs_in_dialog(const sip::Message& request, sa::UserId user) const;
    // An emergency call, whatever its To says; not what goes to the target of its dialog.
    [[nodiscard]] bool asks_for_help(const sip::Message& request, std::string_view target,
                                     sa::UserId user) const;
    [[nodiscard]] static DialogName name_of(const sip::Message& request, bool from_ue,
                                            sa::UserId user);
    // The dialog a request runs in, if we know it, is brought up to date and noted in its
    // exchange. nullptr: it has none.
    void follow(const sip::Message& request, bool from_ue, sa::UserId user, Exchange* e);
    // A response to an INVITE that makes or confirms a dialog. nullptr: it does not, or there is no
    // room.
    Dialog* track(Exchange& e, const sip::Message& response);
    // What names the dialog of a subscription.
    [[nodiscard]] std::uint64_t subscription_of(std::string_view call_id,
                                                std::string_view subscriber,
                                                std::string_view notifier) const;
    // SUBSCRIBE, REFER or NOTIFY succeeded: the subscription it belongs to is there.
    void note_subscription(const Exchange& e, const sip::Message& response);
    // The final answer to a request in a dialog.
    void followed(Exchange& e, const sip::Message& response);
    void drop_dialog(SlotId id);
    // Their number, for the operator; and while there is one, the oldest is watched.
    void dialogs_changed();
    void on_idle_timer();

    // For which of its identities a user calls or is called, as a keyed hash of it. It needs no
    // room in the dialog, and two that are alike end one session too many in four billion.
    [[nodiscard]] std::uint32_t identity_mark(std::string_view identity) const {
        return static_cast<std::uint32_t>(loop_hash_(identity));
    }
    [[nodiscard]] std::uint32_t called_identity(const sip::Message& request,
                                                const sa::User& user) const;

    // --- release (session_release.cpp) ---
    // The way of a request in it to the far end: 12.2.1.1, a first hop without lr is a strict
    // router. nullopt: its target is not known.
    struct WayToCore {
        std::string target;
        std::string route;  // empty: none
        sip::Flow flow;
    };
    [[nodiscard]] std::optional<WayToCore> way_to_core(const Dialog& dialog) const;
    void on_release_timer();
    void release_invite(Exchange& e);
    // A request to a phone whose SAs went: nothing can come back for it any more.
    void release_request(Exchange& e);
    void on_released_response(Exchange& e, const sip::Message& response);
    // Where a request of ours goes, and as whose.
    struct Words {
        Side& side;
        sip::TransactionUser& answers;
        sip::Flow flow;
        std::string_view sent_by;
        std::string_view target;
        std::string_view route;
        std::string_view from;
        std::string_view to;
        Carrier carrier = {};
    };
    bool say(const Words& words, const Dialog& dialog, std::string_view method,
             std::uint32_t number);
    // A request of ours in it. `number`: of its CSeq. False: it cannot be sent.
    bool say_to_core(const Dialog& dialog, std::string_view method, std::uint32_t number);
    bool say_to_ue(const Dialog& dialog, std::string_view method, std::uint32_t number);
    void start_release_timer();

    void on_timer_c(Exchange& e);
    void on_cancel(Side& side, const Arrival& arrival, const sip::Message& request);
    void send_cancel(Exchange& e);
    [[nodiscard]] std::string cancel_key(const sip::Message& request, const Side& side,
                                         sa::UserId user) const;
    // A keyed hash of all that decides where a request goes, and of no Via, so the same again means
    // that it came back unchanged (RFC 3261 16.6 step 8, RFC 5393 4.2). It travels in our branch.
    [[nodiscard]] std::uint64_t loop_mark(const sip::Message& request, bool from_ue,
                                          sa::UserId user) const;
    // RFC 3261 16.3 step 4: it went through here before, as it is.
    [[nodiscard]] static bool has_looped(const sip::Message& request, std::uint64_t mark);
    // The message claims another user than its SA's (B7). `new_request`: it is in no dialog.
    [[nodiscard]] bool claims_other_user(const sip::Message& request, const sa::User& user,
                                         bool new_request) const;
    [[nodiscard]] std::string asserted_identity(const sip::Message& message,
                                                const sa::User& user) const;
    // TS 24.229 5.2.10: not through us, or to the E-CSCF.
    void refuse_emergency(const Arrival& arrival, const sip::Message& request,
                          const sa::User& user);
    [[nodiscard]] std::string emergency_route() const;

    // --- emergency calls of phones that are not registered (proxy_emergency.cpp) ---
    void begin_call(const Arrival& arrival, const sip::Message& request);
    void go_on_in_call(const Arrival& arrival, const sip::Message& request, EmergencyCall* call);
    void on_request_in_call(const Arrival& arrival, const sip::Message& request, sa::UserId user);
    // A number under which it is opened, or the request is answered; nullptr then.
    Exchange* open_in_call(const Arrival& arrival, const sip::Message& request, bool from_ue,
                           EmergencyCall& call, sip::TransactionLayer::Branch& branch);
    // Nothing is left of it, and it is forgotten.
    void settle_call(sa::UserId user);
    [[nodiscard]] std::string sent_by_in_clear(const EmergencyCall& call) const;
    // Nobody spoke in it for too long, or its phone cannot be reached and does not come back.
    void forget_call(sa::UserId user);
    // It ends for another one's sake.
    void give_way(sa::UserId user);
    [[nodiscard]] bool is_ue_side_route(const sip::Uri& uri) const;
    [[nodiscard]] std::string ue_side_uri(const IpAddress& ours, sa::Port port_ps) const;
    void note(const Exchange& e, int status, bool to_ue, const sip::Flow* gm_flow, Reason reason);

    Context& ctx_;
    const Registrations& registrations_;
    SeededHash loop_hash_;
    SlotMap<Exchange> exchanges_;
    // Of each user with an exchange that is counted or listed; no more entries than there are
    // exchanges.
    std::unordered_map<sa::UserId, OfUser> users_;
    std::size_t reserved_ = 0;   // of all users
    std::size_t strangers_ = 0;  // exchanges that are none of a user's
    EmergencyCalls calls_;
    std::function<bool(const IpAddress&)> is_nat_;
    TimePoint call_told_{};
    std::uint64_t calls_untold_ = 0;
    Dialogs dialogs_;
    Timer idle_timer_;                   // of the dialog unused for the longest time
    std::vector<SlotId> ended_invites_;  // to be released, oldest first from ended_at_ on
    std::size_t ended_at_ = 0;
    Timer release_timer_;
    // Nobody waits for what answers a BYE of ours; it is traced.
    class ByeUser final : public sip::TransactionUser {
      public:
        ByeUser(Context& context, Entity far) : ctx_(context), far_(far) {}
        void on_response(sip::ClientTransactionId id, std::uint64_t trace_user,
                         const sip::Flow& flow, const sip::Message& response,
                         std::span<char> bytes) override;
        void on_failure(sip::ClientTransactionId id, std::uint64_t trace_user,
                        sip::ClientFailure failure) override;

      private:
        Context& ctx_;
        Entity far_;
    };
    ByeUser bye_to_core_;
    ByeUser bye_to_ue_;
    std::unordered_map<std::string, SlotId, SeededStringHash, std::equal_to<>> invites_;
    // Those that have sent a CANCEL, by its branch.
    std::unordered_map<std::string, SlotId, SeededStringHash, std::equal_to<>> cancels_;
};

}  // namespace gmgate::registration
