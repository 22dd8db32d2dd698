// A call from the end that is called, and the peer's requests in it.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "base/bytes.h"
#include "control/sip/values.h"
#include "ue/agent.h"
#include "ue/call.h"

namespace gmgate::ue {

void Call::take(std::shared_ptr<ServerTransaction> invite, const sip::Message& m) {
    incoming_ = std::move(invite);
    const auto& options = agent_.context().calls;
    dialog_.local_tag = agent_.new_tag();
    if (!dialog_.take_request(m)) {
        agent_.bad_input("an INVITE that makes no dialog");
        return refuse(400, "an INVITE that makes no dialog");
    }
    const auto asserted = m.first_value(sip::HeaderId::p_asserted_identity);
    const auto who = asserted ? sip::parse_name_addr(*asserted) : std::nullopt;
    facts_.peer = who ? one_line(who->uri.text) : dialog_.remote_uri;
    if (const auto media = read_sdp(m.body())) {
        peer_media_ = *media;
    } else {
        offered_in_answer_ = true;
    }
    reliable_ = options.reliable && (m.has_token(sip::HeaderId::supported, "100rel") ||
                                     m.has_token(sip::HeaderId::require, "100rel"));
    precondition_ = peer_media_.preconditions && reliable_;
    waits_for_peer_ = precondition_ && !peer_media_.peer_ready;
    event(CallEvent::incoming);
    if (over()) return;
    if (options.refuse != 0) return refuse(options.refuse, "refused");
    if (waits_for_peer_) {
        media_answered_ = true;
        provisional(183, sdp(answer_to(peer_media_.direction), true, false));
    }
    advance();
}

// What comes next, when what it waits for has come: 180, then 200.
void Call::advance() {
    if (state_ != State::incoming || unacked_rseq_ != 0 || waits_for_peer_) return;
    if (!rang_) {
        rang_ = true;
        facts_.ring = agent_.context().timers.now() - began_;
        agent_.context().timers.start(timer_, agent_.context().calls.answer_after);
        provisional(180, {});
        return;
    }
    if (answer_due_) accept();
}

void Call::start_repeating() {
    interval_ = agent_.context().times.t1;
    agent_.context().timers.start(repeat_, interval_);
    agent_.context().timers.start(limit_, agent_.context().times.transaction);
}

void Call::provisional(int code, std::string_view body) {
    if (!reliable_) return respond(*incoming_, code, body);
    if (rseq_ == 0) rseq_ = static_cast<std::uint32_t>(agent_.context().random.below(100'000));
    unacked_rseq_ = ++rseq_;
    const std::string number = std::to_string(rseq_);
    const std::array<sip::HeaderField, 2> headers{{{"Require", "100rel"}, {"RSeq", number}}};
    agent_.respond(*incoming_, code, headers, dialog_.local_tag, body);
    start_repeating();
}

void Call::respond(ServerTransaction& t, int code, std::string_view body) {
    agent_.respond(t, code, {}, dialog_.local_tag, body);
}

void Call::refuse(int code, std::string_view why) {
    respond(*incoming_, code);
    facts_.status = code;
    ++agent_.context().statistics.declined;
    end(why);
}

Direction Call::answer_to(Direction offered) const {
    return both(seen_from_there(offered), wanted_);
}

void Call::accept() {
    std::string body;
    if (!media_answered_)
        body = sdp(offered_in_answer_ ? Direction::sendrecv : answer_to(peer_media_.direction));
    media_answered_ = true;
    facts_.status = 200;
    state_ = State::established;
    acked_ = false;
    answered_ = agent_.context().timers.now();
    facts_.setup = answered_ - began_;
    respond(*incoming_, 200, body);
    start_repeating();
}

// A 2xx or a reliable provisional answer until somebody says it came.
void Call::on_repeat() {
    interval_ = state_ == State::established ? std::min(interval_ * 2, agent_.context().times.t2)
                                             : interval_ * 2;
    agent_.context().timers.start(repeat_, interval_);
    ++agent_.context().retransmissions;
    if (reinvite_) {
        reinvite_->repeat();
    } else if (incoming_) {
        incoming_->repeat();
    }
}

void Call::on_ack(const sip::Message& m) {
    const auto cseq = sip::cseq(m);
    if (!cseq || over()) return;
    if (reinvite_) {
        if (cseq->number != reinvite_cseq_) return;
        repeat_.stop();
        limit_.stop();
        reinvite_.reset();
        acked_ = true;
        if (wants_end_ && state_ == State::established) bye();
        return;
    }
    if (!acked_ && state_ == State::established) confirmed();
}

// Our 2xx has arrived.
void Call::confirmed() {
    acked_ = true;
    repeat_.stop();
    limit_.stop();
    ++agent_.context().statistics.taken;
    counted_ = true;
    if (wants_end_) return bye();
    event(CallEvent::answered);
    if (!over()) peer_direction(peer_media_.direction);
}

void Call::on_cancel() {
    if (state_ == State::incoming) refuse(487, "cancelled by the other end");
}

void Call::on_request(const sip::Message& m, const std::shared_ptr<ServerTransaction>& t) {
    const auto cseq = sip::cseq(m);
    const auto from = sip::from(m);
    if (!cseq || !from || over()) return respond(*t, 481);
    // A request in an early dialog of ours (UPDATE, BYE of a peer that rings).
    Dialog* d = &dialog_;
    if (dialog_.remote_tag != from->tag()) d = early_dialog(from->tag());
    if (d == nullptr) return respond(*t, 481);
    if (!d->in_order(cseq->number)) return respond(*t, 500);  // RFC 3261 12.2.2
    if (m.is_method("PRACK")) return on_prack(m, *t);
    if (m.is_method("UPDATE")) return on_update(m, *t);
    if (m.is_method("INVITE")) return on_reinvite(m, t);
    if (m.is_method("BYE")) {
        respond(*t, 200);
        if (state_ == State::incoming) return refuse(487, "hung up by the other end");
        if (state_ == State::calling || state_ == State::ringing) return;  // RFC 3261 15.1.2
        auto& stats = agent_.context().statistics;
        // Whoever ends it had our 2xx, though each ACK was lost.
        if (state_ == State::established && !facts_.outgoing && !counted_) {
            ++stats.taken;
            counted_ = true;
        }
        facts_.completed = counted_;
        if (facts_.outgoing && facts_.completed) ++stats.completed;
        if (reinvite_ && !reinvite_->final()) respond(*reinvite_, 487);
        return end("hung up by the other end");
    }
    for (const std::string_view method : {"INFO", "MESSAGE", "OPTIONS", "NOTIFY"}) {
        if (m.is_method(method)) return respond(*t, 200);
    }
    respond(*t, 405);
}

void Call::on_prack(const sip::Message& m, ServerTransaction& t) {
    const auto value = m.value(sip::HeaderId::rack);
    std::string_view rest = trim(value.value_or(""));
    const auto first = rest.substr(0, rest.find(' '));
    const auto number = sip::parse_number(first);
    rest = first.size() < rest.size() ? trim(rest.substr(first.size())) : std::string_view{};
    const auto cseq = sip::parse_cseq(rest);
    sip::Message invite;
    const bool ringing = state_ == State::incoming && incoming_ && !incoming_->final() &&
                         invite.parse(incoming_->request()) == sip::ParseStatus::ok;
    const auto wanted = ringing ? sip::cseq(invite) : std::nullopt;
    if (!number || !cseq || !wanted || unacked_rseq_ == 0 || *number != unacked_rseq_ ||
        cseq->number != wanted->number || cseq->method != "INVITE") {
        return respond(t, 481);  // RFC 3262 3
    }
    unacked_rseq_ = 0;
    repeat_.stop();
    limit_.stop();
    std::string body;
    if (const auto media = read_sdp(m.body())) {
        body = sdp(answer_to(media->direction));
        if (waits_for_peer_ && media->peer_ready) waits_for_peer_ = false;
    }
    respond(t, 200, body);
    advance();
}

void Call::on_update(const sip::Message& m, ServerTransaction& t) {
    dialog_.refresh_target(m);
    if (m.body().empty()) return respond(t, 200);
    const auto media = read_sdp(m.body());
    if (!media) {
        agent_.bad_input("an offer that is not SDP");
        return respond(t, 400);
    }
    if (changing_ || reinvite_) return respond(t, 491);
    peer_media_ = *media;
    respond(t, 200, sdp(answer_to(media->direction)));
    if (state_ == State::incoming) {
        if (waits_for_peer_ && media->peer_ready) waits_for_peer_ = false;
        return advance();
    }
    if (state_ == State::established) peer_direction(media->direction);
}

void Call::on_reinvite(const sip::Message& m, const std::shared_ptr<ServerTransaction>& t) {
    if (state_ == State::ending) return respond(*t, 481);
    if (changing_) return respond(*t, 491);
    // Large requests go over TCP and may overtake a small ACK: who changes the call has our 2xx.
    if (state_ == State::established && !acked_ && !reinvite_) confirmed();
    if (reinvite_ && reinvite_->final()) {
        reinvite_.reset();
        repeat_.stop();
        limit_.stop();
        acked_ = true;
    }
    if (state_ != State::established || !acked_ || reinvite_) {
        const std::string after = std::to_string(agent_.context().random.below(11));
        const std::array<sip::HeaderField, 1> headers{{{"Retry-After", after}}};
        return agent_.respond(*t, 500, headers, dialog_.local_tag, {});  // RFC 3261 14.2
    }
    const auto media = m.body().empty() ? std::optional(MediaView{}) : read_sdp(m.body());
    if (!media) {
        agent_.bad_input("an offer that is not SDP");
        return respond(*t, 400);
    }
    dialog_.refresh_target(m);
    reinvite_ = t;
    acked_ = false;
    if (const auto cseq = sip::cseq(m)) reinvite_cseq_ = cseq->number;
    const bool offer = !m.body().empty();
    if (offer) peer_media_ = *media;
    precondition_ = false;
    respond(*t, 200, sdp(offer ? answer_to(media->direction) : wanted_));
    start_repeating();
    if (offer) peer_direction(media->direction);
}

}  // namespace gmgate::ue
