#pragma once
// Re-authentication by time (F1: "internal processing within the S-CSCF"): every registered set of
// every user, so long after its last authentication. Spread, so that those who registered together
// are not asked together, and paced. One thread.

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
    // 0: never. Each set is asked for after 90 to 100 percent of it, drawn anew each time.
    std::chrono::seconds every{0};
    unsigned per_second = 50;  // at most, of all sets; more than that wait their turn
};

class ReauthenticationSchedule {
  public:
    // `impu`: the default one of the set.
    using Ask = std::function<void(std::string_view impu)>;

    ReauthenticationSchedule(ReauthenticationScheduleConfig config, Ask ask, TimerWheel& timers,
                             Random& random);

    // See RegistrationObserver.
    void on_registration(const RegistrationChange& change);

    // Sets it waits for; about 250 octets each.
    [[nodiscard]] std::size_t size() const { return sets_.size(); }
    [[nodiscard]] std::uint64_t asked() const { return asked_; }

  private:
    struct Set {
        Set(ReauthenticationSchedule& o, std::string_view i) : owner(o), impu(i) {
            timer.bind<&Set::on_timer>(this);
        }
        void on_timer() { owner.due(*this); }
        ReauthenticationSchedule& owner;
        std::string impu;
        bool has_turn = false;
        Timer timer;
    };
    void due(Set& set);
    static std::string key(std::string_view impi, std::string_view impu);

    ReauthenticationScheduleConfig config_;
    Ask ask_;
    TimerWheel& timers_;
    Random& random_;
    // By IMPI and default identity.
    std::unordered_map<std::string, Set, SeededStringHash, std::equal_to<>> sets_;
    TimePoint next_turn_{};
    std::uint64_t asked_ = 0;
};

}  // namespace gmgate::home
