#pragma once
// Network-initiated re-authentication, the S-CSCF's side (F1, F3): the user's registration is
// shortened, a NOTIFY says so on every dialog subscribed to it; a phone that refuses it, does not
// answer, or has not subscribed is asked by REFER; one that does not register anew in time is
// deregistered. One thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/seeded_hash.h"
#include "base/timer_wheel.h"
#include "home/reg_event.h"
#include "home/registrar.h"

namespace gmgate::home {

struct ReauthenticationConfig {
    // How long each way may take to be answered (at most 64*T1, the life of a transaction), and how
    // long the phone's REGISTER is waited for from then on. The registration is shortened to four
    // times this: time for both ways.
    std::chrono::seconds wait{60};
    bool refer = true;  // the second way
};

struct ReauthenticationCounters {
    std::uint64_t begun = 0;
    std::uint64_t done = 0;          // the phone registered anew, or left
    std::uint64_t refers = 0;        // the second way was tried
    std::uint64_t deregistered = 0;  // all ways failed
};

class Reauthentication {
  public:
    // Asks the user's phone for a REGISTER by other means; false: cannot even be sent.
    using Done = std::move_only_function<void(bool positive)>;
    using Refer = std::function<bool(std::string_view impi, Done done)>;

    // References outlive this.
    Reauthentication(ReauthenticationConfig config, Registrar& registrar, RegEvent& reg_event,
                     Refer refer, TimerWheel& timers, Random& random);
    ~Reauthentication();
    Reauthentication(const Reauthentication&) = delete;
    Reauthentication& operator=(const Reauthentication&) = delete;

    // These identities of one user are to be re-authenticated (at least one). not_found: not
    // registered; invalid: of several users; conflict: under way already.
    Result<void> begin(const std::vector<std::string>& identities);

    [[nodiscard]] std::size_t under_way() const { return users_.size(); }
    [[nodiscard]] const ReauthenticationCounters& counters() const { return counters_; }

  private:
    enum class Way : std::uint8_t { notify, refer };
    struct User {
        User(Reauthentication& o, std::string i, std::vector<std::string> u)
            : owner(o), impi(std::move(i)), impus(std::move(u)) {
            timer.bind<&User::on_timer>(this);
        }
        void on_timer() { owner.way_failed(*this); }
        Reauthentication& owner;
        std::string impi;
        std::vector<std::string> impus;  // the default ones of the sets it is about
        std::uint64_t round = 0;  // which re-authentication this is: late answers of another do
                                  // not count
        Way way = Way::notify;
        bool accepted = false;  // the NOTIFY, on one dialog at least
        Timer timer;
    };
    void on_answer(std::string_view impi, std::uint64_t round, Way way, bool positive);
    // May end the user.
    void way_failed(User& user);
    // The default identities of the sets whose re-authentication is awaited; none: it is done, or
    // the phone is gone. `registering`: set if one of them is under way.
    [[nodiscard]] std::vector<std::string> awaited(const User& user, bool& registering);
    void forget(const User& user);

    ReauthenticationConfig config_;
    Registrar& registrar_;
    RegEvent& reg_event_;
    Refer refer_;
    TimerWheel& timers_;
    // By IMPI; no more than are registered.
    std::unordered_map<std::string, User, SeededStringHash, std::equal_to<>> users_;
    std::uint64_t rounds_ = 0;
    ReauthenticationCounters counters_;
};

}  // namespace gmgate::home
