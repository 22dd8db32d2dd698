#pragma once
// A phone that does what it is told, one step at a time: what gmue --console and tests drive.

#include <cstdint>
#include <string>
#include <string_view>

#include "ue/misbehaviour.h"

namespace gmgate::ue {

// One registration procedure.
struct ScriptedRegister {
    Misbehaviour misbehaviour = Misbehaviour::none;  // in this procedure only
    bool in_clear = false;                           // SM1 in clear although there are SAs (D1)
    std::uint32_t on = 0;       // serial of the set for SM1; 0: the current one
    bool hold = false;          // stops after SM6; Phone::answer_challenge() goes on
    std::uint32_t expires = 0;  // 0: the context's
};

// How a step ended.
struct StepResult {
    std::string outcome;  // registered, deregistered, challenged, refused, abandoned, no answer,
                          // answered, failed
    std::string text;     // for people
    int status = 0;       // of the final answer; 0: none
    std::string step;     // SM1, SM7, REG (a refused challenge), REQ: what was answered, or was not
    std::uint32_t set = 0;  // serial of the set the answer came on; 0: in clear
    unsigned challenges = 0;
    unsigned restarts = 0;  // 7.3.1.4: began again because nobody answered SM7
};

// Told what happens. Calls come from inside the phone: no step may be started from them.
class ScriptObserver {
  public:
    virtual ~ScriptObserver() = default;
    virtual void step_done(const StepResult& result) = 0;
    // The answer to a request that was parked.
    virtual void parked_answer(int status, std::uint32_t set) = 0;
    // A request of the network; held: its answer waits for Phone::answer_held().
    virtual void request_came(std::string_view method, std::uint32_t set, bool held) = 0;
    // A response to no request of the phone's: to what was sent raw, or out of the blue.
    virtual void stray_answer(int /*status*/, std::uint32_t /*set*/, std::string_view /*call_id*/) {
    }
    // The TCP connection to the network on that set ended; reset: without a word.
    virtual void stream_ended(std::uint32_t /*set*/, bool /*reset*/) {}
};

}  // namespace gmgate::ue
