// A call from the end that makes it, and what both ends do. The other end is call_incoming.cpp.
#include "ue/call.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "control/sip/values.h"
#include "ue/agent.h"

namespace gmgate::ue {

namespace {

bool has_sdp(const sip::Message& m) {
    const auto type = m.value(sip::HeaderId::content_type).value_or("");
    return !m.body().empty() && iequals(trim(type.substr(0, type.find(';'))), "application/sdp");
}

std::string status_line(const sip::Message& m) {
    return fmt::format("{} {}", m.status_code(), one_line(m.reason()));
}

}  // namespace

Call::Call(Agent& agent, bool outgoing)
    : agent_(agent), state_(outgoing ? State::calling : State::incoming) {
    facts_.outgoing = outgoing;
    began_ = agent.context().timers.now();
    session_ = agent.context().random.u64() >> 2U;
    repeat_.bind<&Call::on_repeat>(this);
    limit_.bind<&Call::on_limit>(this);
    timer_.bind<&Call::on_timer>(this);
    retry_.bind<&Call::on_retry>(this);
}

Call::~Call() {
    agent_.forget(this);
}

bool Call::has(std::string_view call_id, std::string_view ours, std::string_view theirs) const {
    if (dialog_.call_id != call_id || dialog_.local_tag != ours) return false;
    if (dialog_.remote_tag == theirs || dialog_.remote_tag.empty()) return true;
    // Another branch of the fork, in answers only: its own requests are of no call.
    return facts_.outgoing && !theirs.empty();
}

std::string Call::sdp(Direction d, bool ready, bool peer_ready) {
    const auto flow = agent_.host().flow();
    MediaWrite w;
    if (flow) w.address = flow->contact.address;
    w.session = session_;
    w.version = ++sdp_version_;
    w.direction = d;
    w.preconditions = precondition_;
    w.ready = ready;
    w.peer_ready = peer_ready;
    return write_sdp(w);
}

void Call::event(CallEvent e) {
    agent_.host().call_event(*this, e);
}

void Call::end(std::string_view reason) {
    if (over()) return;
    state_ = State::over;
    facts_.reason = reason;
    if (answered_ != TimePoint{}) facts_.talked = agent_.context().timers.now() - answered_;
    for (Timer* t : {&repeat_, &limit_, &timer_, &retry_}) t->stop();
    agent_.forget(this);
    invite_ = nullptr;
    event(CallEvent::ended);
}

void Call::drop(std::string_view why) {
    ++agent_.context().statistics.dropped;
    end(why);
}

// ---- placing one ----

bool Call::start(std::string_view to, Duration talk) {
    const auto flow = agent_.host().flow();
    if (!flow) return false;
    const auto& options = agent_.context().calls;
    talk_ = talk;
    precondition_ = options.precondition && options.reliable;
    facts_.peer = to;
    dialog_.call_id = agent_.new_call_id();
    dialog_.local_tag = agent_.new_tag();
    dialog_.local_uri = flow->identity.impu();
    dialog_.remote_uri = dialog_.target = to;
    dialog_.local_cseq = invite_cseq_ =
        1 + static_cast<std::uint32_t>(agent_.context().random.below(1000));
    Outgoing o;
    o.method = "INVITE";
    o.uri = o.to_uri = to;
    o.from_uri = dialog_.local_uri;
    o.from_tag = dialog_.local_tag;
    o.call_id = dialog_.call_id;
    o.cseq = invite_cseq_;
    o.contact = true;
    o.extra =
        "Accept: application/sdp\r\n"
        "P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.mmtel\r\n";
    if (options.reliable)
        o.extra += precondition_ ? "Supported: 100rel, precondition\r\n" : "Supported: 100rel\r\n";
    o.content_type = "application/sdp";
    const std::string offer = sdp(Direction::sendrecv, !precondition_, !precondition_);
    o.body = offer;
    invite_ = agent_.send(o, [this](const sip::Message* m) { on_invite_answer(m); }, this);
    if (invite_ == nullptr) return false;
    ++agent_.context().statistics.placed;
    agent_.context().timers.start(limit_, options.ring_limit);
    return true;
}

void Call::on_invite_answer(const sip::Message* m) {
    auto& stats = agent_.context().statistics;
    if (m != nullptr && m->status_code() < 200) return on_provisional(*m);
    limit_.stop();
    invite_ = nullptr;
    if (m == nullptr) {
        stats.failures.add("no answer to INVITE");
        return end("no answer to INVITE");
    }
    facts_.status = m->status_code();
    if (m->status_code() < 300) return on_accepted(*m);
    if (cancelled_ && m->status_code() == 487) {
        ++stats.cancelled;
        return end("cancelled");
    }
    stats.failures.add(status_line(*m));
    end(status_line(*m));
}

Dialog* Call::early_dialog(std::string_view remote_tag) {
    for (const auto& d : early_) {
        if (d->remote_tag == remote_tag) return d.get();
    }
    return nullptr;
}

Dialog* Call::early_dialog(const sip::Message& m) {
    const auto to = sip::to(m);
    if (!to || to->tag().empty()) return nullptr;
    if (Dialog* known = early_dialog(to->tag())) return known;
    if (early_.size() >= max_forks) {
        agent_.bad_input("an INVITE that was forked too often");
        return nullptr;
    }
    auto d = std::make_unique<Dialog>(dialog_);
    if (!d->take_answer(m)) {
        // A 1xx may lack a Contact: only the tag is known then, and no request can be sent.
        return nullptr;
    }
    early_.push_back(std::move(d));
    return early_.back().get();
}

void Call::on_provisional(const sip::Message& m) {
    const int code = m.status_code();
    if (wants_end_) {
        if (!cancelled_) cancel();
        return;
    }
    if (code == 100) return;
    Dialog* d = early_dialog(m);
    if (m.has_token(sip::HeaderId::require, "100rel")) {
        const auto rseq = m.value(sip::HeaderId::rseq);
        const auto number = rseq ? sip::parse_number(trim(*rseq)) : std::nullopt;
        if (d == nullptr || !number || *number == 0) {
            agent_.bad_input("a reliable provisional answer that cannot be acknowledged");
            return;
        }
        // RFC 3262 4: in order, and each once.
        if (d->rseq && *number != *d->rseq + 1) return;
        d->rseq = number;
        acknowledge_provisional(*d, m, *number);
    }
    if (has_sdp(m)) media_answered_ = true;
    if (code == 180 && !rang_) {
        rang_ = true;
        state_ = State::ringing;
        facts_.ring = agent_.context().timers.now() - began_;
        auto& stats = agent_.context().statistics;
        ++stats.rang;
        stats.ring.add(facts_.ring);
        event(CallEvent::ringing);
    }
}

void Call::acknowledge_provisional(Dialog& early, const sip::Message& m, std::uint32_t rseq) {
    const bool answers = has_sdp(m);
    agent_.send_in(
        early, "PRACK", fmt::format("RAck: {} {} INVITE\r\n", rseq, invite_cseq_), {},
        [this, answers, tag = early.remote_tag](const sip::Message* answer) {
            if (answer != nullptr && answer->status_code() < 200) return;
            if (answer == nullptr || answer->status_code() >= 300) {
                agent_.context().statistics.failures.add(
                    answer == nullptr ? "no answer to PRACK" : status_line(*answer) + " to PRACK");
                // The other end gives the INVITE up by itself (RFC 3262 3).
                return;
            }
            if (!answers || !precondition_ || reserved_) return;
            if (Dialog* d = early_dialog(tag)) reserve(*d);
        },
        this);
}

// RFC 3312: our resources are there now.
void Call::reserve(Dialog& early) {
    reserved_ = true;
    agent_.send_in(
        early, "UPDATE", {}, sdp(Direction::sendrecv, true, true),
        [this](const sip::Message* answer) {
            if (answer != nullptr && answer->status_code() < 300) return;
            agent_.context().statistics.failures.add(
                answer == nullptr ? "no answer to UPDATE" : status_line(*answer) + " to UPDATE");
            hang_up();
        },
        this);
}

void Call::on_accepted(const sip::Message& m) {
    auto& stats = agent_.context().statistics;
    // RFC 3261 13.2.2.4: the route set is that of the 2xx; CSeq and RSeq go on.
    if (const Dialog* d = early_dialog(m)) dialog_ = *d;
    if (!dialog_.take_answer(m)) {
        agent_.bad_input("a 2xx to INVITE that makes no dialog");
        stats.failures.add("a 2xx that makes no dialog");
        return end("a 2xx that makes no dialog");
    }
    early_.clear();
    ack_cseq_ = invite_cseq_;
    ack_ = agent_.acknowledge(dialog_, ack_cseq_);
    answered_ = agent_.context().timers.now();
    state_ = State::established;
    facts_.setup = answered_ - began_;
    if (wants_end_) {  // CANCEL and 200 crossed
        return bye();
    }
    const auto media = has_sdp(m) ? read_sdp(m.body()) : std::nullopt;
    if (!media && !media_answered_) {
        agent_.bad_input("a 2xx to INVITE without an answer to the offer");
        stats.failures.add("a 2xx without an answer to the offer");
        return bye();
    }
    ++stats.answered;
    counted_ = true;
    stats.setup.add(facts_.setup);
    if (talk_ > Duration{0}) agent_.context().timers.start(timer_, talk_);
    event(CallEvent::answered);
    if (media && !over()) peer_direction(media->direction);
}

void Call::cancel() {
    sip::Message invite;
    if (invite_ == nullptr || invite.parse(invite_->request().bytes) != sip::ParseStatus::ok)
        return;
    cancelled_ = true;
    // A transaction of its own, for its retransmissions; the end of the call is the INVITE's
    // answer.
    ClientTransaction::Request r = invite_->request();
    r.method = "CANCEL";
    r.bytes = build_cancel(invite);
    agent_.send_as_is(
        std::move(r),
        [this](const sip::Message* answer) {
            // RFC 3261 9.1: whoever does not answer CANCEL may not answer the INVITE either.
            if (answer != nullptr && answer->status_code() < 200) return;
            agent_.context().timers.start(limit_, agent_.context().times.transaction);
        },
        this);
    limit_.stop();
}

// ---- in both directions ----

void Call::hang_up() {
    timer_.stop();
    retry_.stop();
    switch (state_) {
        case State::calling:
        case State::ringing:
            wants_end_ = true;
            // RFC 3261 9.1: not before a provisional answer.
            if (invite_ != nullptr && invite_->proceeding() && !cancelled_) cancel();
            return;
        case State::incoming:
            return refuse(603, "declined");
        case State::established:
            wants_end_ = true;
            // RFC 3261 15: whoever answered waits for the ACK.
            if (acked_) bye();
            return;
        case State::ending:
        case State::over:
            return;
    }
}

void Call::bye() {
    state_ = State::ending;
    repeat_.stop();
    limit_.stop();
    timer_.stop();
    bye_sent_ = agent_.context().timers.now();
    const auto* t = agent_.send_in(
        dialog_, "BYE", {}, {},
        [this](const sip::Message* answer) {
            auto& stats = agent_.context().statistics;
            if (answer != nullptr && answer->status_code() < 200) return;
            if (answer == nullptr) {
                ++stats.dropped;
                stats.failures.add("no answer to BYE");
                return end("no answer to BYE");
            }
            if (answer->status_code() >= 300) {
                stats.failures.add(status_line(*answer) + " to BYE");
                return end(status_line(*answer) + " to BYE");
            }
            stats.bye.add(agent_.context().timers.now() - bye_sent_);
            if (counted_) {
                facts_.completed = true;
                if (facts_.outgoing) ++stats.completed;
            }
            end("hung up here");
        },
        this);
    if (t == nullptr) drop("the phone is not registered");
}

bool Call::hold() {
    return change(Direction::sendonly);
}

bool Call::resume() {
    return change(Direction::sendrecv);
}

bool Call::change(Direction wanted) {
    if (state_ != State::established || !acked_ || changing_ || reinvite_ || retry_.active())
        return false;
    asked_ = wanted;
    send_change();
    return true;
}

void Call::send_change() {
    changing_ = true;
    change_cseq_ = dialog_.local_cseq + 1;
    const auto* t = agent_.send_in(
        dialog_, "INVITE", "Supported: 100rel\r\n", sdp(asked_),
        [this](const sip::Message* m) { on_change_answer(m); }, this);
    if (t == nullptr) {
        changing_ = false;
        event(CallEvent::not_changed);
    }
}

void Call::on_change_answer(const sip::Message* m) {
    if (m != nullptr && m->status_code() < 200) return;
    changing_ = false;
    if (state_ != State::established) return;
    auto& stats = agent_.context().statistics;
    if (m == nullptr) {
        stats.failures.add("no answer to re-INVITE");
        return bye();  // RFC 3261 14.1
    }
    const int code = m->status_code();
    if (code < 300) {
        dialog_.refresh_target(*m);
        // Until now a repeated 2xx was the one before.
        ack_cseq_ = change_cseq_;
        ack_ = agent_.acknowledge(dialog_, ack_cseq_);
        wanted_ = asked_;
        facts_.on_hold = wanted_ == Direction::sendonly;
        ++stats.holds;
        if (const auto media = has_sdp(*m) ? read_sdp(m->body()) : std::nullopt)
            peer_media_ = *media;
        return event(facts_.on_hold ? CallEvent::held : CallEvent::resumed);
    }
    if (code == 491) {
        // RFC 3261 14.1: whose Call-ID it is waits longer.
        const auto ms = facts_.outgoing ? 2100 + 10 * agent_.context().random.below(190)
                                        : 10 * agent_.context().random.below(200);
        agent_.context().timers.start(retry_, std::chrono::milliseconds(ms));
        return;
    }
    stats.failures.add(status_line(*m) + " to re-INVITE");
    facts_.reason = status_line(*m);
    if (code == 481 || code == 408) return bye();
    event(CallEvent::not_changed);
}

void Call::peer_direction(Direction offered) {
    const bool holds = offered == Direction::sendonly || offered == Direction::inactive;
    if (holds == facts_.peer_holds) return;
    // On hold ourselves, the peer cannot but answer recvonly; that is not a hold of its own.
    facts_.peer_holds = holds;
    event(holds ? CallEvent::peer_held : CallEvent::peer_resumed);
}

void Call::on_late_answer(const sip::Message& m) {
    const auto to = sip::to(m);
    const auto cseq = sip::cseq(m);
    if (!to || !cseq || over()) return;
    if (to->tag() == dialog_.remote_tag) {
        if (cseq->number == ack_cseq_ && !ack_.bytes.empty()) agent_.resend(ack_);
        return;
    }
    // RFC 3261 13.2.2.4: another branch of the fork was answered as well; one call is enough.
    if (!facts_.outgoing || cseq->number != invite_cseq_) return;
    Dialog other = dialog_;
    other.local_cseq = invite_cseq_;
    if (!other.take_answer(m)) return;
    const bool again = early_dialog(other.remote_tag) != nullptr;
    agent_.acknowledge(other, invite_cseq_);
    if (again || early_.size() >= max_forks) return;
    ++agent_.context().statistics.forked;
    early_.push_back(std::make_unique<Dialog>(other));
    agent_.send_in(*early_.back(), "BYE", {}, {}, nullptr, this);
}

// ---- timers ----

void Call::on_limit() {
    if (state_ == State::calling || state_ == State::ringing) {
        if (cancelled_) {  // nobody answered the INVITE even then
            ++agent_.context().statistics.cancelled;
            return end("cancelled, and not answered");
        }
        return hang_up();
    }
    repeat_.stop();
    if (state_ == State::incoming) return refuse(504, "no PRACK");
    if (state_ == State::established && !acked_) {  // RFC 3261 13.3.1.4
        agent_.context().statistics.failures.add("no ACK");
        acked_ = true;
        bye();
    }
}

// The glare is over; whoever asked for the change still waits for its end.
void Call::on_retry() {
    if (state_ != State::established) return event(CallEvent::not_changed);
    // The other end's change is under way: until its ACK, which on_limit() waits for.
    if (reinvite_) return agent_.context().timers.start(retry_, agent_.context().times.t1);
    send_change();
}

void Call::on_timer() {
    if (state_ == State::incoming) {
        answer_due_ = true;
        return advance();
    }
    hang_up();
}

}  // namespace gmgate::ue
