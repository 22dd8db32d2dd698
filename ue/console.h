#pragma once
// gmue --console: one phone, driven by lines of text; what happens comes out as JSON, an object a
// line. For people at a terminal, for scripts, for the smoke tests.
//
// Lines are carried out one after the other: the next begins when the one before has ended. One
// thread, that of the loop.

#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/timer_wheel.h"
#include "ue/load.h"
#include "ue/phone.h"
#include "ue/script.h"
#include "ue/socket_network.h"

namespace gmgate::ue {

// What can be typed, for people.
[[nodiscard]] std::string_view console_help();

class Console final : public NetworkReceiver, private ScriptObserver {
  public:
    // `out` and `context` must outlive it. `on_over` is called once, after quit or the end of the
    // input. invalid: more than one phone, or no address for it.
    static Result<std::unique_ptr<Console>> make(PhoneContext& context, const LoadOptions& options,
                                                 std::FILE* out, std::function<void()> on_over);
    ~Console() override;

    // Text as it comes, whole lines or not.
    void input(std::string_view text);
    // No more input: over when what there is has been carried out.
    void end_of_input();
    // Frees what the phone put aside; after each round of events.
    void collect() { context_.collect(); }
    // 0; exit_call, exit_message or exit_subscribe, whichever failed first; 1: a line was not
    // understood or could not be carried out.
    [[nodiscard]] int exit_code() const { return failed_ != 0 ? failed_ : errors_ == 0 ? 0 : 1; }
    static constexpr int exit_call = 3, exit_message = 4, exit_subscribe = 5;

    void on_udp(const Endpoint& from, const IpAddress& to, std::string_view payload) override;
    void on_esp(const IpAddress& from, const IpAddress& to,
                std::span<const std::uint8_t> esp) override;
    void on_in_udp(const IpAddress& from, const IpAddress& to,
                   std::span<const std::uint8_t> payload) override;

  private:
    Console(PhoneContext& context, const LoadOptions& options, std::FILE* out,
            std::function<void()> on_over);
    void next();
    void execute(std::string_view line);
    void done();
    void error(std::string_view text);
    void print(std::string_view json);
    void on_wait_over() { done(); }

    bool do_register(std::string_view words);
    bool do_request(std::string_view words);
    bool do_probe(std::string_view words);
    bool do_move(std::string_view words);
    void do_raw(std::string_view path);
    bool do_wait(std::string_view words);
    void do_status();

    // What a line about a call waits for.
    enum class Await : std::uint8_t { nothing, answer, change, end };
    bool execute_call(std::string_view word, std::string_view words, bool& taken);
    bool do_call(std::string_view words);
    bool do_change(bool hold);
    bool do_bye();
    bool do_message(std::string_view words);
    bool do_subscribe(bool on);
    void news(const RegistrationNews& news);
    void do_answering(std::string_view words);
    void call_event(Call& call, CallEvent event);
    void text_came(std::string_view from, std::string_view text);
    void failed(int code) { failed_ = failed_ != 0 ? failed_ : code; }
    [[nodiscard]] std::string impu_of(std::string_view word) const;

    // ScriptObserver
    void step_done(const StepResult& result) override;
    void parked_answer(int status, std::uint32_t set) override;
    void request_came(std::string_view method, std::uint32_t set, bool held) override;
    void stray_answer(int status, std::uint32_t set, std::string_view call_id) override;
    void stream_ended(std::uint32_t set, bool reset) override;

    PhoneContext& context_;
    std::FILE* out_;
    std::function<void()> on_over_;
    std::vector<sa::Suite> suites_;
    std::unique_ptr<Phone> phone_;
    std::deque<std::string> lines_;
    std::string partial_;
    std::string command_;  // under way
    bool busy_ = false;
    bool running_ = false;
    bool ended_ = false;
    bool over_ = false;
    std::uint64_t errors_ = 0;
    int failed_ = 0;
    Await await_ = Await::nothing;
    bool ended_by_bye_ = false;
    Timer timer_;
};

}  // namespace gmgate::ue
