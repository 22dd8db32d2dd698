#pragma once
// Network-initiated re-authentication, the S-CSCF's side (F1, F3): the user's registration is
// shortened, a NOTIFY says so on every dialog subscribed to it; a phone that refuses it, does not
// answer, or has not subscribed is asked by REFER; one that does not register anew in time is
// deregistered. Each implicit set by itself. One thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
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
    std::uint64_t refers = 0;        // the second way was tried, for a set
    std::uint64_t deregistered = 0;  // all ways failed, for a set
};

class Reauthentication {
  public:
    // Asks the user's phone for a REGISTER of the set that has `impu` by other means; false: cannot
    // even be sent.
    using Done = std::move_only_function<void(bool positive)>;
    using Refer = std::function<bool(std::string_view impi, std::string_view impu, Done done)>;

    // References outlive this.
    Reauthentication(ReauthenticationConfig config, Registrar& registrar, RegEvent& reg_event,
                     Refer refer, TimerWheel& timers, Random& random);
    ~Reauthentication();
    Reauthentication(const Reauthentication&) = delete;
    Reauthentication& operator=(const Reauthentication&) = delete;

    // These identities of one user are to be re-authenticated (at least one). not_found: not
    // registered; invalid: of several users; conflict: of all of them it is under way already.
    Result<void> begin(const std::vector<std::string>& identities);

    [[nodiscard]] std::size_t under_way() const { return users_.size(); }
    [[nodiscard]] const ReauthenticationCounters& counters() const { return counters_; }

  private:
    enum class Way : std::uint8_t { notify, refer };
    // One set.
    struct Awaited {
        Awaited(Reauthentication& o, std::string i, std::string u, std::uint64_t r)
            : owner(o), impi(std::move(i)), impu(std::move(u)), round(r) {
            timer.bind<&Awaited::on_timer>(this);
        }
        void on_timer() { owner.way_failed(*this); }
        Reauthentication& owner;
        std::string impi;
        std::string impu;     // the default one
        std::uint64_t round;  // which re-authentication this is: late answers of an earlier one do
                              // not count
        Way way = Way::notify;
        bool accepted = false;    // the NOTIFY, on one dialog at least
        bool has_waited = false;  // for another set that was registering
        Timer timer;
    };
    // A NOTIFY tells of all sets that were awaited when it went out.
    void on_notify_answer(const std::string& impi, std::uint64_t round, bool positive);
    void on_refer_answer(const std::string& impi, const std::string& impu, std::uint64_t round,
                         bool positive);
    // May end it.
    void way_failed(Awaited& set);
    struct State {
        bool awaited = false;      // false: it is done, or the phone is gone
        bool registering = false;  // it is under way
        bool another = false;      // ... of another set of the user
    };
    [[nodiscard]] State state_of(const Awaited& set) const;
    Awaited* find(const std::string& impi, const std::string& impu);
    // True: it was the last one of its user.
    bool forget(const Awaited& set);

    ReauthenticationConfig config_;
    Registrar& registrar_;
    RegEvent& reg_event_;
    Refer refer_;
    TimerWheel& timers_;
    // By IMPI; no more than are registered. Never empty.
    std::unordered_map<std::string, std::vector<std::unique_ptr<Awaited>>, SeededStringHash,
                       std::equal_to<>>
        users_;
    std::uint64_t rounds_ = 0;
    ReauthenticationCounters counters_;
};

}  // namespace gmgate::home
