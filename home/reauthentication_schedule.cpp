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
      sets_(16, SeededStringHash{SeededHash(random)}) {}

void ReauthenticationSchedule::on_registration(const RegistrationChange& change) {
    if (config_.every == 0s) return;
    const bool over = change.over();
    if (change.removed != nullptr) {
        for (const auto& impu : *change.removed) sets_.erase(key(change.impi, impu));
    }
    if (!over && !change.authenticated) return;
    // Of any identity: the default one may have been another.
    for (const auto& impu : change.impus) {
        if (over || impu != change.impus.front()) sets_.erase(key(change.impi, impu));
    }
    if (over) return;
    const auto& impu = change.impus.front();
    Set& set = sets_.try_emplace(key(change.impi, impu), *this, impu).first->second;
    set.has_turn = false;
    const auto all = std::chrono::milliseconds(config_.every);
    const auto spread = random_.below(static_cast<std::uint64_t>(all.count()) / 10 + 1);
    timers_.start(set.timer, all - std::chrono::milliseconds(spread));
}

std::string ReauthenticationSchedule::key(std::string_view impi, std::string_view impu) {
    std::string out(impi);
    out += ' ';  // in neither
    return out += impu;
}

void ReauthenticationSchedule::due(Set& set) {
    const TimePoint now = timers_.now();
    if (!set.has_turn) {
        const TimePoint turn = std::max(now, next_turn_);
        next_turn_ = turn + Duration(1s) / std::max(config_.per_second, 1U);
        if (turn > now) {
            set.has_turn = true;
            return timers_.start_at(set.timer, turn);
        }
    }
    set.has_turn = false;
    ++asked_;
    // It stays in the table: an authentication starts its time anew, the end of its registration
    // takes it out. What is asked may do either.
    const std::string impu = set.impu;
    ask_(impu);
}

}  // namespace gmgate::home
