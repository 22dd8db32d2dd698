// gmue --console: calls and messages.
#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/bytes.h"
#include "ue/agent.h"
#include "ue/console.h"
#include "ue/console_words.h"

namespace gmgate::ue {

namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& j) {
    return j.dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace);
}

double ms(Duration d) {
    return std::chrono::duration<double, std::milli>(d).count();
}

Json about(const Call& call) {
    const auto& f = call.facts();
    return {{"direction", f.outgoing ? "out" : "in"},
            {"peer", f.peer},
            {"status", f.status},
            {"completed", f.completed},
            {"on_hold", f.on_hold},
            {"peer_holds", f.peer_holds},
            {"ring_ms", ms(f.ring)},
            {"setup_ms", ms(f.setup)},
            {"talked_ms", ms(f.talked)},
            {"reason", f.reason}};
}

std::optional<double> number_of_seconds(std::string_view text) {
    double v = 0;
    const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (text.empty() || e != std::errc{} || end != text.data() + text.size() ||
        !(v >= 0 && v < 1e6))
        return std::nullopt;
    return v;
}

Duration duration_of(double s) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

}  // namespace

std::string Console::impu_of(std::string_view word) const {
    if (!word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos)
        return fmt::format("sip:{}@{}", word, context_.realm);
    return std::string(word);
}

// False, with `taken`: the line is carried out already.
bool Console::execute_call(std::string_view word, std::string_view rest, bool& taken) {
    taken = true;
    if (word == "call") return do_call(rest);
    if (word == "hold" || word == "resume") return do_change(word == "hold");
    if (word == "bye") return do_bye();
    if (word == "message") return do_message(rest);
    if (word == "subscribe" || word == "unsubscribe") return do_subscribe(word == "subscribe");
    if (word == "answering") {
        do_answering(rest);
        return false;
    }
    taken = false;
    return false;
}

bool Console::do_call(std::string_view rest) {
    const std::string to = impu_of(take_word(rest));
    Duration talk{0};
    bool park = false;
    await_ = Await::answer;
    while (!rest.empty()) {
        const auto word = take_word(rest);
        if (const auto s = number_of_seconds(word); s && *s > 0) {
            talk = duration_of(*s);
            await_ = Await::end;
        } else if (word == "park") {
            park = true;
        } else {
            await_ = Await::nothing;
            error("call IMPU [SECONDS] [park]");
            return false;
        }
    }
    if (park) await_ = Await::nothing;
    const auto call = phone_->agent().call(to, talk);
    if (!call) {
        await_ = Await::nothing;
        failed(exit_call);
        error(call.error().text);
        return false;
    }
    if (!park) return true;
    print(dump(Json{{"did", command_}}));
    return false;
}

bool Console::do_change(bool hold) {
    Call* call = phone_->agent().live_call();
    await_ = Await::change;
    if (call != nullptr && (hold ? call->hold() : call->resume())) return true;
    await_ = Await::nothing;
    failed(exit_call);
    error(call == nullptr ? "there is no call" : "the call is not established, or being changed");
    return false;
}

bool Console::do_bye() {
    Call* call = phone_->agent().live_call();
    if (call == nullptr) {
        error("there is no call");
        return false;
    }
    await_ = Await::end;
    ended_by_bye_ = true;
    call->hang_up();
    return true;
}

bool Console::do_message(std::string_view rest) {
    const std::string to = impu_of(take_word(rest));
    const TimePoint sent = context_.timers.now();
    const auto done = [this, sent](int status, std::string_view reason) {
        const bool good = status >= 200 && status < 300;
        if (!good) failed(exit_message);
        print(dump(Json{{"did", command_},
                        {"outcome", good ? "answered" : "failed"},
                        {"status", status},
                        {"text", reason},
                        {"ms", ms(context_.timers.now() - sent)}}));
        context_.timers.start(timer_, Duration{0});
    };
    if (rest.empty()) {
        error("message IMPU TEXT");
        return false;
    }
    if (const auto r = phone_->agent().message(to, rest, done); !r) {
        failed(exit_message);
        error(r.error().text);
        return false;
    }
    return true;
}

bool Console::do_subscribe(bool on) {
    const auto done = [this](int status, std::string_view reason) {
        const bool good = status >= 200 && status < 300;
        if (!good) failed(exit_subscribe);
        print(dump(Json{{"did", command_},
                        {"outcome", good ? "answered" : "failed"},
                        {"status", status},
                        {"text", reason}}));
        context_.timers.start(timer_, Duration{0});
    };
    const auto r =
        on ? phone_->agent().subscribe(context_.expires, done) : phone_->agent().unsubscribe(done);
    if (r) return true;
    failed(exit_subscribe);
    error(r.error().text);
    return false;
}

void Console::news(const RegistrationNews& n) {
    print(dump(Json{{"event", "notify"},
                    {"version", n.version},
                    {"full", n.full},
                    {"reauthenticate", n.reauthenticate},
                    {"gone", n.gone},
                    {"may_return", n.may_return}}));
}

void Console::do_answering(std::string_view rest) {
    CallOptions options = context_.calls;
    options.refuse = 0;
    while (!rest.empty()) {
        const auto word = take_word(rest);
        const auto after = value_of(word, "after");
        const auto seconds = after ? number_of_seconds(*after) : std::nullopt;
        const auto refuse = value_of(word, "refuse");
        const auto code = refuse ? number(*refuse) : std::nullopt;
        if (seconds) {
            options.answer_after = duration_of(*seconds);
        } else if (code && *code >= 400 && *code <= 699) {
            options.refuse = static_cast<int>(*code);
        } else if (word == "precondition") {
            options.precondition = true;
        } else if (word == "plain") {
            options.precondition = false;
            options.reliable = false;
        } else {
            error("answering [after=SECONDS] [refuse=STATUS] [precondition|plain]");
            return;
        }
    }
    context_.calls = options;
    print(dump(Json{{"did", command_}}));
}

void Console::call_event(Call& call, CallEvent event) {
    Json j{{"event", "call"}, {"what", name(event)}};
    j.update(about(call));
    print(dump(j));
    const bool ended = event == CallEvent::ended;
    const bool change =
        event == CallEvent::held || event == CallEvent::resumed || event == CallEvent::not_changed;
    const bool awaited = ended || (await_ == Await::answer && event == CallEvent::answered) ||
                         (await_ == Await::change && change);
    if (await_ == Await::nothing || !awaited) {
        // One that was parked, and nobody hung up.
        if (ended && call.facts().outgoing && !call.facts().completed) failed(exit_call);
        return;
    }
    const auto& f = call.facts();
    std::string outcome(name(event));
    bool good = true;
    if (await_ == Await::change) good = change && event != CallEvent::not_changed;
    if (await_ == Await::answer) good = event == CallEvent::answered;
    if (await_ == Await::end) {
        good = f.completed || ended_by_bye_;
        if (f.completed) outcome = "completed";
    }
    if (!good) {
        failed(exit_call);
        outcome = "failed";
    }
    await_ = Await::nothing;
    ended_by_bye_ = false;
    Json done{{"did", command_}, {"outcome", outcome}};
    done.update(about(call));
    print(dump(done));
    context_.timers.start(timer_, Duration{0});
}

void Console::text_came(std::string_view from, std::string_view text) {
    print(dump(Json{{"event", "message"}, {"from", from}, {"text", text}}));
}

}  // namespace gmgate::ue
