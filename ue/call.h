#pragma once
// One call (RFC 3261 13, 14, 15; PRACK of RFC 3262, UPDATE of RFC 3311), at either end of it.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "ue/agent_host.h"
#include "ue/dialog.h"
#include "ue/sdp.h"
#include "ue/transactions.h"

namespace gmgate::ue {

class Agent;

// How phones make and take calls.
struct CallOptions {
    Duration answer_after{0};   // 180 to 200
    int refuse = 0;             // status for calls that come; 0: they are taken
    bool reliable = true;       // 100rel offered and used (RFC 3262)
    bool precondition = false;  // resources are reserved first: 183, PRACK, UPDATE (RFC 3312)
    std::size_t at_once = 1;    // with that many calls it is busy: 486
    Duration ring_limit = std::chrono::seconds(180);  // then the caller gives up
};

class Call {
  public:
    enum class State : std::uint8_t { calling, ringing, incoming, established, ending, over };
    // For people and reports. Durations count from the INVITE; zero: it did not come to that.
    struct Facts {
        bool outgoing = true;
        std::string peer;        // URI
        int status = 0;          // final answer to the INVITE; 0: none came
        std::string reason;      // how it ended, or why it did not begin
        bool completed = false;  // answered, and ended by a BYE that was answered
        bool on_hold = false, peer_holds = false;
        Duration ring{0}, setup{0}, talked{0};
    };

    static constexpr std::size_t max_forks = 8;  // early dialogs of one INVITE

    Call(Agent& agent, bool outgoing);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // False: not registered.
    bool start(std::string_view to, Duration talk);
    void take(std::shared_ptr<ServerTransaction> invite, const sip::Message& m);
    // In whatever state: BYE, CANCEL, 603.
    void hang_up();
    // False: not established, or a change is under way.
    bool hold();
    bool resume();
    // Over, without a word to anybody.
    void drop(std::string_view why);

    [[nodiscard]] bool has(std::string_view call_id, std::string_view ours,
                           std::string_view theirs) const;
    [[nodiscard]] bool is_answer_to(const ServerTransaction& invite) const {
        return incoming_.get() == &invite;
    }
    // Requests in its dialog; a 2xx that no transaction waits for.
    void on_request(const sip::Message& m, const std::shared_ptr<ServerTransaction>& t);
    void on_ack(const sip::Message& m);
    void on_late_answer(const sip::Message& m);
    void on_cancel();

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] bool over() const { return state_ == State::over; }
    [[nodiscard]] const Facts& facts() const { return facts_; }

  private:
    // the end that calls
    void on_invite_answer(const sip::Message* m);
    void on_provisional(const sip::Message& m);
    void acknowledge_provisional(Dialog& early, const sip::Message& m, std::uint32_t rseq);
    void reserve(Dialog& early);
    void on_accepted(const sip::Message& m);
    void cancel();
    Dialog* early_dialog(const sip::Message& m);
    Dialog* early_dialog(std::string_view remote_tag);
    // the end that is called
    void advance();
    void provisional(int code, std::string_view sdp);
    void refuse(int code, std::string_view why);
    void accept();
    void confirmed();
    void on_prack(const sip::Message& m, ServerTransaction& t);
    void on_update(const sip::Message& m, ServerTransaction& t);
    void on_reinvite(const sip::Message& m, const std::shared_ptr<ServerTransaction>& t);
    // both
    bool change(Direction wanted);
    void send_change();
    void on_change_answer(const sip::Message* m);
    void bye();
    void peer_direction(Direction offered);
    void end(std::string_view reason);
    void event(CallEvent e);
    [[nodiscard]] std::string sdp(Direction d, bool ready = true, bool peer_ready = true);
    [[nodiscard]] Direction answer_to(Direction offered) const;
    void respond(ServerTransaction& t, int code, std::string_view body = {});
    void start_repeating();
    void on_repeat();
    void on_limit();
    void on_timer();
    void on_retry();

    Agent& agent_;
    State state_;
    Facts facts_;
    Dialog dialog_;  // of a call that calls: without remote tag until it is answered
    std::vector<std::unique_ptr<Dialog>> early_;
    TimePoint began_{};
    TimePoint answered_{};
    TimePoint bye_sent_{};
    Duration talk_{0};
    std::uint64_t session_ = 0;
    std::uint32_t sdp_version_ = 0;

    ClientTransaction* invite_ = nullptr;  // while it is under way
    std::shared_ptr<ServerTransaction> incoming_;
    std::shared_ptr<ServerTransaction> reinvite_;  // of the peer: until its ACK
    std::uint32_t invite_cseq_ = 0;
    std::uint32_t reinvite_cseq_ = 0;  // of the peer's
    SentRequest ack_;
    std::uint32_t ack_cseq_ = 0;     // of ack_
    std::uint32_t change_cseq_ = 0;  // of our latest re-INVITE

    bool wants_end_ = false;
    bool cancelled_ = false;
    bool rang_ = false;
    bool reliable_ = false;        // the peer takes reliable provisional answers
    bool precondition_ = false;    // this call reserves resources first
    bool reserved_ = false;        // UPDATE was sent
    bool waits_for_peer_ = false;  // its resources
    bool answer_due_ = false;
    bool media_answered_ = false;  // our answer to the offer was sent, or theirs came
    bool offered_in_answer_ = false;
    bool acked_ = true;
    bool counted_ = false;  // as answered
    std::uint32_t rseq_ = 0;
    std::uint32_t unacked_rseq_ = 0;  // 0: none
    Direction wanted_ = Direction::sendrecv;
    Direction asked_ = Direction::sendrecv;
    bool changing_ = false;
    MediaView peer_media_;
    Duration interval_{0};
    Timer repeat_;  // of a reliable provisional answer, or of our 2xx
    Timer limit_;   // of waiting for PRACK or ACK, of ringing
    Timer timer_;   // until the answer; until the end of the talk
    Timer retry_;   // after a glare
};

}  // namespace gmgate::ue
