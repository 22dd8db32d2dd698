#pragma once
// Transactions of an agent: any number at once, both ways (RFC 3261 17, 6026), over the SAs of its
// phone. The gateway's are control/sip/transaction.h; these share nothing with them, so that two
// readings of the RFC meet. One thread.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/values.h"
#include "ue/agent_host.h"
#include "ue/times.h"

namespace gmgate::ue {

class ClientTransaction {
  public:
    // Each provisional answer, then the final one; nullptr: nobody answered.
    using Handler = std::function<void(const sip::Message* answer)>;
    struct Request {
        std::string bytes;
        std::string branch;
        std::string method;
        std::uint32_t cseq = 0;
        std::uint32_t set = 0;
        bool tcp = false;
    };

    // Nothing is sent yet. References must outlive it. `retransmissions` counts ours over UDP.
    ClientTransaction(TimerWheel& timers, const PhoneTimes& times, AgentHost& host,
                      std::uint64_t& retransmissions, Request request, Handler handler);

    void start();
    [[nodiscard]] bool matches(const sip::Via& via, const sip::CSeq& cseq) const {
        return via.branch == request_.branch && cseq.number == request_.cseq &&
               cseq.method == request_.method;
    }
    void on_response(const sip::Message& m);
    void forget();   // who waits does so no more
    void abandon();  // nor is anything sent any more
    void give_up();  // the same, and who waits hears that nobody answered
    // Nothing more happens, and none of its functions is on the stack.
    [[nodiscard]] bool removable() const { return state_ == State::over && depth_ == 0; }
    [[nodiscard]] bool answered() const { return state_ >= State::completed; }
    [[nodiscard]] bool proceeding() const { return state_ == State::proceeding; }
    [[nodiscard]] const Request& request() const { return request_; }

  private:
    enum class State : std::uint8_t { trying, proceeding, completed, over };
    void call(const sip::Message* answer);
    void on_repeat();
    void on_end();

    TimerWheel& timers_;
    const PhoneTimes& times_;
    AgentHost& host_;
    std::uint64_t& retransmissions_;
    Request request_;
    Handler handler_;
    State state_ = State::trying;
    unsigned depth_ = 0;
    bool invite_;
    std::string ack_;  // of a non-2xx answer
    Duration interval_;
    Timer repeat_;
    Timer end_;
};

// CANCEL for an INVITE, or the ACK for its non-2xx `answer`: hop by hop, with its branch.
[[nodiscard]] std::string build_cancel(const sip::Message& invite);
[[nodiscard]] std::string build_ack(const sip::Message& invite, const sip::Message& answer);

class ServerTransaction {
  public:
    ServerTransaction(TimerWheel& timers, const PhoneTimes& times, AgentHost& host,
                      const sip::Message& request, const sip::Via& via, const ReplyPath& path);

    // The request again, or (INVITE) its ACK or CANCEL.
    [[nodiscard]] bool matches(const sip::Via& via, std::string_view method) const;
    [[nodiscard]] bool is_invite() const { return invite_; }
    // Answers it; `bytes` is the whole response.
    void respond(int code, std::string bytes);
    void again();  // it came once more: the last answer does too
    void acked();  // INVITE: its non-2xx answer arrived
    // A response of its own that is sent once more, by who made it (RFC 3262, 2xx).
    void repeat();
    [[nodiscard]] bool final() const { return code_ >= 200; }
    [[nodiscard]] int code() const { return code_; }
    [[nodiscard]] bool over() const { return over_; }
    [[nodiscard]] std::string_view request() const { return request_; }  // until the final answer
    [[nodiscard]] const ReplyPath& path() const { return path_; }

  private:
    void on_repeat();
    void on_end();

    TimerWheel& timers_;
    const PhoneTimes& times_;
    AgentHost& host_;
    std::string request_;
    std::string branch_, sent_by_, method_;
    std::string last_;
    ReplyPath path_;
    int code_ = 0;
    bool invite_;
    bool over_ = false;
    Duration interval_;
    Timer repeat_;
    Timer end_;
};

}  // namespace gmgate::ue
