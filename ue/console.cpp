#include "ue/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/bytes.h"
#include "ue/console_words.h"

namespace gmgate::ue {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t longest_line = 4096;

}  // namespace

std::string_view console_help() {
    return R"(  register [KIND] [clear] [on=N] [hold] [expires=S]
                                               registers, or registers anew. KIND: a misbehaviour. clear: SM1 in clear;
                                               on: on these SAs. hold: stops after the challenge
  answer [lost]                                after a hold: SM7. lost: its answer gets lost on the way
  deregister
  request [METHOD] [set=N] [to=URI] [park]     OPTIONS or MESSAGE. park: goes on at once, the answer is an event
  call IMPU [SECONDS] [park]                   until it is answered, or until it is over SECONDS after the answer.
                                               IMPU: a URI, or the number alone. park: goes on at once
  hold, resume, bye                            of the call there is; bye gives up one that rings, refuses one that comes
  message IMPU TEXT                            MESSAGE
  subscribe, unsubscribe                       its own registration state; each NOTIFY is an event
  answering [after=S] [refuse=STATUS] [precondition|plain]
                                               calls that come: how long they ring, or what they get; calls of
                                               its own: resources first, or no PRACK
  probe set=N [count=N] [forged]               ESP packets on any SAs it ever had; no answer is waited for
  raw FILE                                     a file's octets as they are, on its SAs; answers are events
  hold-answers on|off, answer-held             requests of the network wait for their answer
  move ADDRESS                                 another address of its own
  status                                       its SAs, and what it saw
  wait SECONDS, help, quit
)";
}

Console::Console(PhoneContext& context, const LoadOptions& o, std::FILE* out,
                 std::function<void()> on_over)
    : context_(context), out_(out), on_over_(std::move(on_over)), suites_(o.suites) {
    timer_.bind<&Console::on_wait_over>(this);
}

Console::~Console() {
    phone_->stop();
    context_.on_call = nullptr;
    context_.on_text = nullptr;
    context_.on_news = nullptr;
}

Result<std::unique_ptr<Console>> Console::make(PhoneContext& context, const LoadOptions& o,
                                               std::FILE* out, std::function<void()> on_over) {
    if (o.phones != 1) return fail(ErrorKind::invalid, "--console drives one phone");
    const bool v6 = o.ipv6_share >= 1;
    const auto& net = v6 ? o.net6 : o.net4;
    if (!net) return fail(ErrorKind::invalid, "no network for the phone's address");
    const std::uint64_t host = net->single() ? 0 : o.first_phone;
    if (host > net->last()) {
        return fail(ErrorKind::invalid,
                    fmt::format("{} has no address for phone {}", net->to_string(), o.first_phone));
    }
    std::unique_ptr<Console> c(new Console(context, o, out, std::move(on_over)));
    PhonePlan p;
    p.number = o.first_phone;
    p.imsi = o.first_imsi + o.first_phone - 1;
    p.imsi_digits = o.imsi_digits;
    p.address = net->host(host);
    p.tcp = o.tcp_share >= 1;
    p.style = o.styles.front();
    p.suites = &c->suites_;
    c->phone_ = std::make_unique<Phone>(context, p);
    c->phone_->follow_script(*c);
    context.on_call = [self = c.get()](Phone&, Call& call, CallEvent e) {
        self->call_event(call, e);
    };
    context.on_news = [self = c.get()](Phone&, const RegistrationNews& n) { self->news(n); };
    context.on_text = [self = c.get()](Phone&, std::string_view from, std::string_view text) {
        self->text_came(from, text);
    };
    return c;
}

void Console::print(std::string_view json) {
    fmt::print(out_, "{}\n", json);
    std::fflush(out_);
}

void Console::error(std::string_view text) {
    ++errors_;
    print(Json{{"error", text}, {"line", command_}}.dump(
        -1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

void Console::input(std::string_view text) {
    partial_ += text;
    for (auto end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n')) {
        lines_.emplace_back(trim(std::string_view(partial_).substr(0, end)));
        partial_.erase(0, end + 1);
    }
    if (partial_.size() > longest_line) {
        command_.clear();
        error("the line is too long");
        partial_.clear();
    }
    next();
}

void Console::end_of_input() {
    ended_ = true;
    if (!partial_.empty()) lines_.push_back(std::exchange(partial_, {}));
    next();
}

// A step may end while it is being started, and that calls this again: the loop is enough.
void Console::next() {
    if (running_) return;
    running_ = true;
    while (!busy_ && !over_ && !lines_.empty()) {
        const std::string line = std::move(lines_.front());
        lines_.pop_front();
        if (line.empty() || line.starts_with('#')) continue;
        command_ = line;
        execute(line);
    }
    running_ = false;
    if (ended_ && !busy_ && lines_.empty()) over_ = true;
    if (over_ && on_over_) {
        phone_->stop();
        std::exchange(on_over_, {})();
    }
}

void Console::done() {
    busy_ = false;
    next();
}

void Console::execute(std::string_view line) {
    std::string_view rest = line;
    const auto word = take_word(rest);
    busy_ = true;
    if (word == "register") {
        if (do_register(rest)) return;
    } else if (word == "answer") {
        if (!rest.empty() && rest != "lost") {
            error("answer, or answer lost");
        } else {
            phone_->set_deaf(rest == "lost");
            if (phone_->answer_challenge()) return;
            phone_->set_deaf(false);
            error("no challenge is held");
        }
    } else if (word == "deregister") {
        if (phone_->registered()) {
            phone_->scripted_deregister();
            return;
        }
        error("the phone is not registered");
    } else if (word == "request") {
        if (do_request(rest)) return;
    } else if (word == "probe") {
        do_probe(rest);
    } else if (word == "raw") {
        do_raw(rest);
    } else if (word == "move") {
        do_move(rest);
    } else if (word == "wait") {
        if (do_wait(rest)) return;
    } else if (word == "hold-answers" && (rest == "on" || rest == "off")) {
        phone_->hold_answers(rest == "on");
        print(R"({"did":"hold-answers"})");
    } else if (word == "answer-held") {
        if (phone_->answer_held()) {
            print(R"({"did":"answer-held"})");
        } else {
            error("no request is held");
        }
    } else if (bool taken = false; execute_call(word, rest, taken)) {
        return;
    } else if (taken) {
    } else if (word == "status") {
        do_status();
    } else if (word == "help") {
        fmt::print(out_, "{}", console_help());
        std::fflush(out_);
    } else if (word == "quit") {
        over_ = true;
    } else {
        error("unknown; try help");
    }
    busy_ = false;
}

bool Console::do_register(std::string_view rest) {
    ScriptedRegister what;
    while (!rest.empty()) {
        const auto word = take_word(rest);
        if (word == "clear") {
            what.in_clear = true;
        } else if (word == "hold") {
            what.hold = true;
        } else if (const auto text = value_of(word, "expires")) {
            const auto v = number(*text);
            if (!v || *v == 0) {
                error("expires: a number of seconds, 1 or more");
                return false;
            }
            what.expires = *v;
        } else if (const auto on = value_of(word, "on"); on && number(*on)) {
            what.on = *number(*on);
        } else if (const auto kind = parse_misbehaviour(word)) {
            what.misbehaviour = *kind;
        } else {
            error(fmt::format("'{}' is no misbehaviour and no option of register", word));
            return false;
        }
    }
    phone_->scripted_register(what);
    return true;
}

bool Console::do_request(std::string_view rest) {
    std::string method = "OPTIONS", to;
    std::uint32_t set = 0;
    bool park = false;
    while (!rest.empty()) {
        const auto word = take_word(rest);
        if (word == "OPTIONS" || word == "MESSAGE") {
            method = word;
        } else if (word == "park") {
            park = true;
        } else if (const auto uri = value_of(word, "to")) {
            to = *uri;
        } else if (const auto text = value_of(word, "set"); text && number(*text)) {
            set = *number(*text);
        } else {
            error(fmt::format("'{}' is no option of request", word));
            return false;
        }
    }
    if (!phone_->scripted_request(set, method, to, park)) {
        error("the phone is not registered, or has no such SAs");
        return false;
    }
    if (!park) return true;
    print(Json{{"did", command_}}.dump());
    return false;
}

bool Console::do_probe(std::string_view rest) {
    std::uint32_t set = 0, count = 1;
    bool forged = false;
    while (!rest.empty()) {
        const auto word = take_word(rest);
        const auto s = value_of(word, "set");
        const auto c = value_of(word, "count");
        if (word == "forged") {
            forged = true;
        } else if (s && number(*s)) {
            set = *number(*s);
        } else if (c && number(*c)) {
            count = std::min(*number(*c), 1000U);
        } else {
            error(fmt::format("'{}' is no option of probe", word));
            return false;
        }
    }
    if (!phone_->probe(set, count, forged)) {
        error("the phone never had such SAs");
        return false;
    }
    print(Json{{"did", command_}, {"packets", count}}.dump());
    return true;
}

void Console::do_raw(std::string_view path) {
    constexpr std::size_t most = 65507;  // what a datagram can hold
    std::ifstream in(std::string(path), std::ios::binary);
    std::string octets(most + 1, '\0');
    in.read(octets.data(), static_cast<std::streamsize>(octets.size()));
    octets.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
    if (octets.empty() || octets.size() > most)
        return error(fmt::format("raw: '{}' is no file of 1 to {} octets", path, most));
    if (!phone_->send_raw(octets)) return error("the phone is not registered");
    print(Json{{"did", command_}, {"octets", octets.size()}}.dump(
        -1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

bool Console::do_move(std::string_view rest) {
    const auto address = IpAddress::parse(rest);
    if (!address || address->is_v6() != phone_->plan().address.is_v6() || !is_local(*address)) {
        error("move: an address of this host, of the family it has");
        return false;
    }
    phone_->move(*address);
    print(Json{{"did", command_}}.dump());
    return true;
}

bool Console::do_wait(std::string_view rest) {
    double seconds = 0;
    const auto [end, e] = std::from_chars(rest.data(), rest.data() + rest.size(), seconds);
    if (e != std::errc{} || end != rest.data() + rest.size() || !(seconds >= 0 && seconds < 1e6)) {
        error("wait: a number of seconds");
        return false;
    }
    context_.timers.start(
        timer_, std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
    return true;
}

void Console::do_status() {
    auto sets = Json::array();
    phone_->each_set([&](const SaSet& s, std::string_view state) {
        const auto& n = s.numbers;
        sets.push_back({{"set", s.serial},
                        {"state", state},
                        {"ue", s.local.to_string()},
                        {"suite", sa::to_string(s.suite)},
                        {"spi_uc", n.spi_uc},
                        {"spi_us", n.spi_us},
                        {"spi_pc", n.spi_pc},
                        {"spi_ps", n.spi_ps},
                        {"port_uc", n.port_uc},
                        {"port_us", n.port_us},
                        {"port_pc", n.port_pc},
                        {"port_ps", n.port_ps}});
    });
    auto violations = Json::array();
    for (const auto& [text, n] : context_.statistics.violations.counts())
        violations.push_back(text);
    const Statistics& s = context_.statistics;
    print(Json{{"did", "status"},
               {"registered", phone_->registered()},
               {"impi", phone_->identity().impi()},
               {"impu", phone_->identity().impu()},
               {"address", phone_->plan().address.to_string()},
               {"sets", sets},
               {"stray", s.stray},
               {"restarts", s.restarts},
               {"esp_unknown_spi", s.esp_unknown_spi},
               {"esp_bad", s.esp_bad},
               {"violations", violations}}
              .dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

void Console::step_done(const StepResult& r) {
    phone_->set_deaf(false);
    print(Json{{"did", command_},
               {"outcome", r.outcome},
               {"text", r.text},
               {"status", r.status},
               {"step", r.step},
               {"set", r.set},
               {"challenges", r.challenges},
               {"restarts", r.restarts}}
              .dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace));
    // The phone is still in the middle of it: go on from the loop.
    context_.timers.start(timer_, Duration{0});
}

void Console::parked_answer(int status, std::uint32_t set) {
    print(Json{{"event", "parked-answer"}, {"status", status}, {"set", set}}.dump());
}

void Console::request_came(std::string_view method, std::uint32_t set, bool held) {
    print(Json{{"event", "request"}, {"method", method}, {"set", set}, {"held", held}}.dump(
        -1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

void Console::stray_answer(int status, std::uint32_t set, std::string_view call_id) {
    print(Json{{"event", "stray-answer"}, {"status", status}, {"set", set}, {"call-id", call_id}}
              .dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

void Console::stream_ended(std::uint32_t set, bool reset) {
    print(Json{{"event", "stream-ended"}, {"set", set}, {"reset", reset}}.dump());
}

void Console::on_udp(const Endpoint& from, const IpAddress& to, std::string_view payload) {
    if (to == phone_->plan().address) phone_->receive_udp(from, payload);
}

void Console::on_esp(const IpAddress& from, const IpAddress& to,
                     std::span<const std::uint8_t> esp) {
    // Other phones of this host see the same raw packets.
    bool ours = to == phone_->plan().address;
    if (!ours)
        phone_->each_set([&](const SaSet& s, std::string_view) { ours = ours || s.local == to; });
    if (ours) phone_->receive_esp(from, esp);
}

void Console::on_in_udp(const IpAddress& from, const IpAddress& to,
                        std::span<const std::uint8_t> payload) {
    if (to == phone_->plan().address) phone_->receive_in_udp(from, payload);
}

}  // namespace gmgate::ue
