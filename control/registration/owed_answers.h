#pragma once
// Which TCP connections of phones wait for answers, so that hanging up on a sender does not lose
// the answer to what it had sent before. No more entries than there are connections.
//
// Not every request ends in an answer (RFC 4320 4.2; what is discarded): a connection to be closed
// is closed after `patience` at the latest.

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/clock.h"
#include "base/timer_wheel.h"
#include "control/sip/transport.h"

namespace gmgate::registration {

class OwedAnswers {
  public:
    // `close` is called from the timer wheel, and may forget() the connection.
    OwedAnswers(TimerWheel& timers, Duration patience, std::function<void(const sip::Flow&)> close)
        : timers_(timers), patience_(patience), close_(std::move(close)) {}
    OwedAnswers(const OwedAnswers&) = delete;
    OwedAnswers& operator=(const OwedAnswers&) = delete;

    // A request came on this connection, and will be answered there.
    void asked(const sip::Flow& flow) {
        if (flow.connection != 0) ++owed_[flow.connection].answers;
    }
    // The final response to one of them leaves on it. The connection's flow if that was the last
    // one awaited of a connection to be closed.
    [[nodiscard]] std::optional<sip::Flow> answered(sip::ConnectionId connection) {
        const auto it = owed_.find(connection);
        if (it == owed_.end() || it->second.answers == 0) return std::nullopt;
        --it->second.answers;
        if (it->second.answers > 0) return std::nullopt;
        const auto closing = std::exchange(it->second.closing, std::nullopt);
        owed_.erase(it);
        return closing;
    }
    // It is to be closed. True: at once; false: when its answers have left.
    [[nodiscard]] bool hang_up(const sip::Flow& flow) {
        const auto it = owed_.find(flow.connection);
        if (it == owed_.end()) return true;
        Owed& owed = it->second;
        if (owed.closing) return false;
        owed.owner = this;
        owed.closing = flow;
        owed.deadline.bind(&OwedAnswers::on_deadline, &owed);
        timers_.start(owed.deadline, patience_);
        return false;
    }
    // Nothing is taken from it any more.
    [[nodiscard]] bool is_hung_up(sip::ConnectionId connection) const {
        const auto it = owed_.find(connection);
        return it != owed_.end() && it->second.closing;
    }
    void forget(sip::ConnectionId connection) { owed_.erase(connection); }
    [[nodiscard]] std::size_t size() const { return owed_.size(); }

  private:
    struct Owed {
        std::uint32_t answers = 0;
        std::optional<sip::Flow> closing;
        OwedAnswers* owner = nullptr;  // while closing
        Timer deadline;
    };
    static void on_deadline(void* p) {
        auto* owed = static_cast<Owed*>(p);
        OwedAnswers& self = *owed->owner;
        const sip::Flow flow = *owed->closing;
        self.forget(flow.connection);
        self.close_(flow);
    }

    TimerWheel& timers_;
    Duration patience_;
    std::function<void(const sip::Flow&)> close_;
    std::unordered_map<sip::ConnectionId, Owed> owed_;  // numbers of our own making
};

}  // namespace gmgate::registration
