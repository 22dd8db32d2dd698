#include "ue/transactions.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "ue/dialog.h"

namespace gmgate::ue {

namespace {

std::string hop_request(const sip::Message& invite, std::string_view method, std::string_view to) {
    std::string out = fmt::format("{} {} SIP/2.0\r\n", method, invite.request_uri());
    const auto add = [&](std::string_view name, std::string_view value) {
        fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
    };
    add("Via", invite.first_value(sip::HeaderId::via).value_or(""));
    add("Max-Forwards", "70");
    for (const auto& r : invite.values(sip::HeaderId::route)) add("Route", r.text);
    add("From", invite.value(sip::HeaderId::from).value_or(""));
    add("To", to);
    add("Call-ID", invite.value(sip::HeaderId::call_id).value_or(""));
    const auto cseq = sip::cseq(invite);
    add("CSeq", fmt::format("{} {}", cseq ? cseq->number : 0, method));
    add("Content-Length", "0");
    return out + "\r\n";
}

}  // namespace

std::string build_cancel(const sip::Message& invite) {
    return hop_request(invite, "CANCEL", invite.value(sip::HeaderId::to).value_or(""));
}

std::string build_ack(const sip::Message& invite, const sip::Message& answer) {
    return hop_request(invite, "ACK", one_line(answer.value(sip::HeaderId::to).value_or("")));
}

// ---- client ----

ClientTransaction::ClientTransaction(TimerWheel& timers, const PhoneTimes& times, AgentHost& host,
                                     std::uint64_t& retransmissions, Request request,
                                     Handler handler)
    : timers_(timers),
      times_(times),
      host_(host),
      retransmissions_(retransmissions),
      request_(std::move(request)),
      handler_(std::move(handler)),
      invite_(request_.method == "INVITE"),
      interval_(times.t1) {
    repeat_.bind<&ClientTransaction::on_repeat>(this);
    end_.bind<&ClientTransaction::on_end>(this);
}

void ClientTransaction::start() {
    host_.send_request(request_.set, request_.tcp, request_.bytes);
    if (!request_.tcp) timers_.start(repeat_, interval_);
    timers_.start(end_, times_.transaction);
}

void ClientTransaction::forget() {
    handler_ = nullptr;
    // Nothing else would ever end it.
    if (invite_ && state_ == State::proceeding) abandon();
}

void ClientTransaction::abandon() {
    handler_ = nullptr;
    state_ = State::over;
    repeat_.stop();
    end_.stop();
}

void ClientTransaction::give_up() {
    const bool waits = state_ < State::completed;
    state_ = State::over;
    repeat_.stop();
    end_.stop();
    if (waits) call(nullptr);
    handler_ = nullptr;
}

void ClientTransaction::call(const sip::Message* answer) {
    if (!handler_) return;
    ++depth_;
    // It may be told to forget in there.
    const Handler handler = handler_;
    handler(answer);
    --depth_;
}

void ClientTransaction::on_response(const sip::Message& m) {
    const int code = m.status_code();
    if (state_ == State::over) return;
    if (state_ == State::completed) {
        if (invite_ && code >= 300) host_.send_request(request_.set, request_.tcp, ack_);
        return;
    }
    if (code < 200) {
        state_ = State::proceeding;
        if (invite_) {
            // How long it may ring is up to who calls.
            repeat_.stop();
            end_.stop();
        } else {
            interval_ = times_.t2;
        }
        call(&m);
        return;
    }
    repeat_.stop();
    end_.stop();
    state_ = State::over;
    if (invite_ && code >= 300) {
        sip::Message invite;
        if (invite.parse(request_.bytes) == sip::ParseStatus::ok) {
            ack_ = build_ack(invite, m);
            host_.send_request(request_.set, request_.tcp, ack_);
        }
        if (!request_.tcp) {  // timer D
            state_ = State::completed;
            timers_.start(end_, times_.transaction);
        }
    }
    request_.bytes = {};
    call(&m);
    handler_ = nullptr;
}

void ClientTransaction::on_repeat() {
    ++retransmissions_;
    interval_ = invite_ ? interval_ * 2 : std::min(interval_ * 2, times_.t2);
    timers_.start(repeat_, interval_);
    host_.send_request(request_.set, request_.tcp, request_.bytes);
}

void ClientTransaction::on_end() {
    repeat_.stop();
    const bool silent = state_ != State::completed;
    state_ = State::over;
    request_.bytes = {};
    if (silent) call(nullptr);
    handler_ = nullptr;
}

// ---- server ----

ServerTransaction::ServerTransaction(TimerWheel& timers, const PhoneTimes& times, AgentHost& host,
                                     const sip::Message& request, const sip::Via& via,
                                     const ReplyPath& path)
    : timers_(timers),
      times_(times),
      host_(host),
      request_(request.bytes()),
      branch_(via.branch),
      sent_by_(fmt::format("{}:{}", via.host, via.port)),
      method_(request.method()),
      path_(path),
      invite_(method_ == "INVITE"),
      interval_(times.t1) {
    repeat_.bind<&ServerTransaction::on_repeat>(this);
    end_.bind<&ServerTransaction::on_end>(this);
}

bool ServerTransaction::matches(const sip::Via& via, std::string_view method) const {
    if (over_ || via.branch != branch_) return false;
    if (method != method_ && !(invite_ && method == "ACK")) return false;
    return sent_by_ == fmt::format("{}:{}", via.host, via.port);
}

void ServerTransaction::respond(int code, std::string bytes) {
    if (final()) return;
    code_ = code;
    last_ = std::move(bytes);
    host_.send_response(path_, last_);
    if (code < 200) return;
    request_ = {};
    // H or L of an INVITE, J of the others: over TCP nothing comes twice.
    if (invite_ && code >= 300) {
        if (!path_.tcp) timers_.start(repeat_, interval_);
        timers_.start(end_, times_.transaction);
    } else if (invite_ || !path_.tcp) {
        timers_.start(end_, times_.transaction);
    } else {
        over_ = true;
    }
}

void ServerTransaction::again() {
    // A 2xx is repeated by the call until its ACK.
    if (code_ == 0 || (invite_ && code_ >= 200 && code_ < 300)) return;
    host_.send_response(path_, last_);
}

void ServerTransaction::repeat() {
    host_.send_response(path_, last_);
}

void ServerTransaction::acked() {
    if (!invite_ || code_ < 300) return;
    repeat_.stop();
    end_.stop();
    over_ = true;
}

void ServerTransaction::on_repeat() {
    interval_ = std::min(interval_ * 2, times_.t2);
    timers_.start(repeat_, interval_);
    host_.send_response(path_, last_);
}

void ServerTransaction::on_end() {
    repeat_.stop();
    over_ = true;
}

}  // namespace gmgate::ue
