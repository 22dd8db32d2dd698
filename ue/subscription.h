#pragma once
// A phone's subscription to its own registration state (RFC 3680, TS 24.229 5.1.1.3).

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/timer_wheel.h"
#include "control/sip/message.h"
#include "control/sip/reginfo.h"
#include "ue/dialog.h"
#include "ue/transactions.h"

namespace gmgate::ue {

class Agent;

class Subscription {
  public:
    enum class State : std::uint8_t { none, asking, active, ending };
    // How the SUBSCRIBE that was asked for ended; 0: no answer.
    using Done = std::function<void(int status, std::string_view reason)>;

    explicit Subscription(Agent& agent);
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // `expires` in seconds. False: not registered, or it is there already.
    bool begin(std::uint32_t expires, Done done);
    // False: there is none.
    bool end(Done done);
    // The registration went: without a word to the network; who waits is told.
    void drop();
    // Is the NOTIFY of this dialog? RFC 6665 4.1.2.4: it may come before the answer to SUBSCRIBE.
    [[nodiscard]] bool has(const sip::Message& notify) const;
    void on_notify(const sip::Message& m, ServerTransaction& t);

    [[nodiscard]] State state() const { return state_; }

  private:
    [[nodiscard]] std::string wanted(std::uint32_t expires) const;  // headers of a SUBSCRIBE
    void ask();
    void refresh();
    void on_answer(const sip::Message* m);
    void schedule(std::uint32_t seconds);
    void anew(Duration after);
    void read(const sip::RegInfo& info);
    void on_timer();
    void finished(int status, std::string_view reason);

    Agent& agent_;
    State state_ = State::none;
    Dialog dialog_;
    std::uint32_t expires_ = 0;
    std::optional<std::uint32_t> version_;
    Done done_;
    bool asks_anew_ = false;  // what the timer is for
    Timer timer_;
};

}  // namespace gmgate::ue
