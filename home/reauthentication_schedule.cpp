#include "home/reauthentication_schedule.h"

#include <algorithm>
#include <utility>

namespace gmgate::home {

using namespace std::chrono_literals;

ReauthenticationSchedule::ReauthenticationSchedule(ReauthenticationScheduleConfig config, Ask ask,
                                                   TimerWheel& timers, Random& random)
    : config_(config),
      ask_(std::move(ask)),
      timers_(timers),
      random_(random),
      users_(16, SeededStringHash{SeededHash(random)}) {}

void ReauthenticationSchedule::on_registration(const RegistrationChange& change) {
    if (config_.every == 0s) return;
    const auto found = users_.find(change.impi);
    if (change.over() && !change.user_gone) return;
    if (change.over()) {
        if (found != users_.end()) users_.erase(found);
        return;
    }
    if (!change.authenticated) return;
    User& user =
        found != users_.end()
            ? found->second
            : users_.try_emplace(std::string(change.impi), *this, change.impi).first->second;
    user.has_turn = false;
    const auto all = std::chrono::milliseconds(config_.every);
    const auto spread = random_.below(static_cast<std::uint64_t>(all.count()) / 10 + 1);
    timers_.start(user.timer, all - std::chrono::milliseconds(spread));
}

void ReauthenticationSchedule::due(User& user) {
    const TimePoint now = timers_.now();
    if (!user.has_turn) {
        const TimePoint turn = std::max(now, next_turn_);
        next_turn_ = turn + Duration(1s) / std::max(config_.per_second, 1U);
        if (turn > now) {
            user.has_turn = true;
            return timers_.start_at(user.timer, turn);
        }
    }
    user.has_turn = false;
    ++asked_;
    // It stays in the table: an authentication starts its time anew, the end of its registration
    // takes it out. What is asked may do either.
    const std::string impi = user.impi;
    ask_(impi);
}

}  // namespace gmgate::home
