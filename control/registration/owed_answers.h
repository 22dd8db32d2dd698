#pragma once
// Which TCP connections of phones wait for answers, so that hanging up on a sender does not lose
// the answer to what it had sent before. No more entries than there are connections.

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

#include "control/sip/transport.h"

namespace gmgate::registration {

class OwedAnswers {
  public:
    // A request came on this connection, and will be answered there.
    void asked(const sip::Flow& flow) {
        if (flow.connection != 0) ++owed_[flow.connection].answers;
    }
    // A final response leaves on it. The connection's flow if that was the last one awaited of a
    // connection to be closed.
    [[nodiscard]] std::optional<sip::Flow> answered(sip::ConnectionId connection) {
        const auto it = owed_.find(connection);
        if (it == owed_.end() || it->second.answers == 0 || --it->second.answers > 0)
            return std::nullopt;
        const auto closing = std::exchange(it->second.closing, std::nullopt);
        owed_.erase(it);
        return closing;
    }
    // It is to be closed. True: at once; false: when its answers have left.
    [[nodiscard]] bool hang_up(const sip::Flow& flow) {
        const auto it = owed_.find(flow.connection);
        if (it == owed_.end()) return true;
        it->second.closing = flow;
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
    };
    std::unordered_map<sip::ConnectionId, Owed> owed_;  // numbers of our own making
};

}  // namespace gmgate::registration
