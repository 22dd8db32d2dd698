#pragma once
// Re-authentication by time (F1: "internal processing within the S-CSCF"): every registered user,
// so long after its last authentication. Spread, so that users who registered together are not
// asked together, and paced. One thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/random.h"
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "home/registrar.h"

namespace gmgate::home {

struct ReauthenticationScheduleConfig {
    // 0: never. Each user is asked after 90 to 100 percent of it, drawn anew each time.
    std::chrono::seconds every{0};
    unsigned per_second = 50;  // at most, of all users; more than that wait their turn
};

class ReauthenticationSchedule {
  public:
    using Ask = std::function<void(std::string_view impi)>;

    ReauthenticationSchedule(ReauthenticationScheduleConfig config, Ask ask, TimerWheel& timers,
                             Random& random);

    // See RegistrationObserver.
    void on_registration(const RegistrationChange& change);

    // Users it waits for; about 200 octets each.
    [[nodiscard]] std::size_t size() const { return users_.size(); }
    [[nodiscard]] std::uint64_t asked() const { return asked_; }

  private:
    struct User {
        User(ReauthenticationSchedule& o, std::string_view i) : owner(o), impi(i) {
            timer.bind<&User::on_timer>(this);
        }
        void on_timer() { owner.due(*this); }
        ReauthenticationSchedule& owner;
        std::string impi;
        bool has_turn = false;
        Timer timer;
    };
    void due(User& user);

    ReauthenticationScheduleConfig config_;
    Ask ask_;
    TimerWheel& timers_;
    Random& random_;
    std::unordered_map<std::string, User, SeededStringHash, std::equal_to<>> users_;
    TimePoint next_turn_{};
    std::uint64_t asked_ = 0;
};

}  // namespace gmgate::home
