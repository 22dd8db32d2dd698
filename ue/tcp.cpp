#include "ue/tcp.h"

#include <algorithm>

namespace gmgate::ue {

namespace {

// a before b in sequence space.
bool before(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::int32_t>(a - b) < 0;
}

constexpr std::uint32_t window_segments = 10;

std::span<const std::uint8_t> octets(std::string_view s) {
    return as_bytes(s);
}

}  // namespace

TcpConnection::TcpConnection(TimerWheel& timers, TcpOwner& owner, const Options& options)
    : owner_(owner),
      timers_(timers),
      options_(options),
      una_(options.initial_sequence),
      next_(options.initial_sequence),
      highest_(options.initial_sequence) {
    timer_.bind<&TcpConnection::on_timer>(this);
}

void TcpConnection::connect() {
    state_ = State::syn_sent;
    next_ = highest_ = una_ + 1;
    output(tcp_flag::syn, una_, {});
    arm();
}

void TcpConnection::accept(const TcpSegment& syn) {
    state_ = State::syn_received;
    peer_initial_ = syn.sequence;
    expected_ = syn.sequence + 1;
    if (syn.mss != 0) peer_mss_ = syn.mss;
    peer_window_ = syn.window;
    next_ = highest_ = una_ + 1;
    output(tcp_flag::syn | tcp_flag::ack, una_, {});
    arm();
}

void TcpConnection::output(std::uint8_t flags, std::uint32_t sequence,
                           std::span<const std::uint8_t> payload) {
    TcpSegment s;
    s.from_port = options_.local_port;
    s.to_port = options_.remote_port;
    s.sequence = sequence;
    s.acknowledgment = (flags & tcp_flag::ack) != 0 ? expected_ : 0;
    s.flags = flags;
    s.window = max_reorder;  // data in order is taken at once; what waits out of order lies inside
                             // the window
    s.mss = (flags & tcp_flag::syn) != 0 ? options_.mss : std::uint16_t{0};
    s.payload = payload;
    owner_.tcp_output(*this, s);
}

void TcpConnection::acknowledge() {
    output(tcp_flag::ack, next_, {});
}

void TcpConnection::send(std::string_view data) {
    if (!open() || fin_queued_) return;
    unsent_.append(data);
    if (state_ == State::established || state_ == State::close_wait) pump();
}

void TcpConnection::close() {
    if (fin_queued_ || state_ == State::closed) return;
    if (state_ == State::syn_sent) {
        finish(false);
        return;
    }
    fin_queued_ = true;
    if (state_ != State::syn_received) pump();
}

void TcpConnection::abort() {
    if (state_ == State::closed) return;
    if (state_ != State::syn_sent && state_ != State::time_wait)
        output(tcp_flag::rst | tcp_flag::ack, next_, {});
    state_ = State::closed;
    timer_.stop();
}

void TcpConnection::forget() {
    state_ = State::closed;
    timer_.stop();
}

void TcpConnection::pump() {
    const std::uint32_t mss = std::min(options_.mss, peer_mss_);
    const std::uint32_t limit = std::min(peer_window_, window_segments * mss);
    for (std::uint32_t at = next_ - una_; at < unsent_.size() && at < limit; at = next_ - una_) {
        const std::size_t n = std::min<std::size_t>({mss, unsent_.size() - at, limit - at});
        const bool last = at + n == unsent_.size();
        const std::uint32_t sequence = next_;
        next_ += static_cast<std::uint32_t>(n);
        if (before(highest_, next_)) highest_ = next_;
        output(static_cast<std::uint8_t>(tcp_flag::ack | (last ? tcp_flag::psh : 0)), sequence,
               octets(std::string_view(unsent_).substr(at, n)));
    }
    if (fin_queued_ && !fin_acknowledged_ && next_ - una_ == unsent_.size()) {
        const std::uint32_t sequence = next_++;
        if (before(highest_, next_)) highest_ = next_;
        if (state_ == State::established) state_ = State::fin_wait_1;
        if (state_ == State::close_wait) state_ = State::last_ack;
        output(tcp_flag::fin | tcp_flag::ack, sequence, {});
    }
    arm();
}

void TcpConnection::resend_first() {
    const std::uint32_t mss = std::min(options_.mss, peer_mss_);
    if (unsent_.empty()) return;
    // At least one octet goes even into a closed window: the probe of RFC 9293 3.8.6.1.
    const auto n = std::min(static_cast<std::uint32_t>(unsent_.size()),
                            std::max(1U, std::min(mss, peer_window_)));
    if (before(next_, una_ + n)) next_ = una_ + n;
    if (before(highest_, next_)) highest_ = next_;
    ++retransmissions_;
    output(tcp_flag::ack | tcp_flag::psh, una_, octets(std::string_view(unsent_).substr(0, n)));
}

void TcpConnection::arm() {
    const bool waiting = next_ != una_ || (!unsent_.empty() && state_ != State::syn_sent);
    if (!waiting || state_ == State::closed || state_ == State::time_wait) {
        timer_.stop();
        return;
    }
    if (!timer_.active())
        timers_.start(timer_, initial_rto * (1U << std::min<unsigned>(attempts_, 6)));
}

void TcpConnection::on_timer() {
    if (++attempts_ > max_retransmissions) {
        finish(true);
        return;
    }
    if (state_ == State::syn_sent || state_ == State::syn_received) {
        ++retransmissions_;
        output(static_cast<std::uint8_t>(tcp_flag::syn |
                                         (state_ == State::syn_received ? tcp_flag::ack : 0)),
               una_, {});
        arm();
        return;
    }
    if (peer_window_ == 0 && !unsent_.empty()) {
        resend_first();
    } else {
        // Everything after the lost segment may be lost as well: back to the oldest.
        ++retransmissions_;
        next_ = una_;
        pump();
    }
    arm();
}

void TcpConnection::receive(const TcpSegment& s) {
    if (state_ == State::closed) return;
    const bool syn = (s.flags & tcp_flag::syn) != 0;
    const bool ack = (s.flags & tcp_flag::ack) != 0;

    if (state_ == State::syn_sent) {
        if (ack && s.acknowledgment != next_) return;  // not ours: of an earlier life of the ports
        if ((s.flags & tcp_flag::rst) != 0) {
            if (ack) finish(true);
            return;
        }
        if (!syn || !ack)
            return;  // simultaneous open does not happen between client and server ports
        peer_initial_ = s.sequence;
        expected_ = s.sequence + 1;
        if (s.mss != 0) peer_mss_ = s.mss;
        peer_window_ = s.window;
        una_ = s.acknowledgment;
        attempts_ = 0;
        timer_.stop();
        state_ = State::established;
        if (unsent_.empty()) acknowledge();
        owner_.tcp_established(*this);
        if (state_ == State::established) pump();
        return;
    }

    if ((s.flags & tcp_flag::rst) != 0) {
        // RFC 5961 3.2: only the exact next octet ends the connection; all of this came through the
        // ICV anyway.
        if (s.sequence == expected_) finish(true);
        return;
    }
    if (syn) {
        if (state_ == State::syn_received && s.sequence == peer_initial_) {
            output(tcp_flag::syn | tcp_flag::ack, una_, {});  // ours was lost
        } else {
            acknowledge();
        }
        return;
    }
    if (!ack) return;
    if (state_ == State::time_wait) {
        if ((s.flags & tcp_flag::fin) != 0) acknowledge();
        return;
    }
    if (state_ == State::syn_received) {
        if (s.acknowledgment != next_) return;
        una_ = next_;
        attempts_ = 0;
        timer_.stop();
        state_ = State::established;
        peer_window_ = s.window;
        owner_.tcp_established(*this);
    }
    take_acknowledgment(s);
    if (state_ == State::closed) return;
    take_data(s);
}

void TcpConnection::take_acknowledgment(const TcpSegment& s) {
    if (before(highest_, s.acknowledgment)) return;
    if (before(una_, s.acknowledgment)) {
        const std::uint32_t advanced = s.acknowledgment - una_;
        unsent_.erase(0, std::min<std::size_t>(advanced, unsent_.size()));
        una_ = s.acknowledgment;
        if (before(next_, una_)) next_ = una_;
        if (unsent_.empty()) unsent_.shrink_to_fit();
        attempts_ = 0;
        duplicates_ = 0;
        timer_.stop();
    } else if (s.acknowledgment == una_ && s.payload.empty() && (s.flags & tcp_flag::fin) == 0 &&
               next_ != una_ && s.window == peer_window_) {
        if (++duplicates_ == 3) resend_first();
    }
    peer_window_ = s.window;
    const bool fin_went_out =
        state_ == State::fin_wait_1 || state_ == State::closing || state_ == State::last_ack;
    if (fin_went_out && una_ == highest_) {
        fin_acknowledged_ = true;
        if (state_ == State::fin_wait_1) state_ = State::fin_wait_2;
        if (state_ == State::closing) state_ = State::time_wait;
        if (state_ == State::last_ack) {
            finish(false);
            return;
        }
    }
    pump();
}

void TcpConnection::take_data(const TcpSegment& s) {
    const bool fin = (s.flags & tcp_flag::fin) != 0;
    if (s.payload.empty() && !fin) return;
    const std::uint32_t end = s.sequence + static_cast<std::uint32_t>(s.payload.size());
    std::string_view data = as_text(s.payload);
    if (fin && !fin_seen_) {
        fin_seen_ = true;
        fin_at_ = end;
    }
    if (before(s.sequence, expected_)) {
        const std::uint32_t known = expected_ - s.sequence;
        data = known < data.size() ? data.substr(known) : std::string_view{};
    } else if (s.sequence != expected_) {
        // Out of order: kept if it fits the window we offered.
        if (s.sequence - expected_ < max_reorder && reorder_size_ + data.size() <= max_reorder &&
            !data.empty()) {
            auto [it, added] = reorder_.try_emplace(s.sequence - peer_initial_, data);
            if (added) {
                reorder_size_ += data.size();
            } else if (it->second.size() < data.size()) {
                reorder_size_ += data.size() - it->second.size();
                it->second = data;
            }
        }
        data = {};
    }
    if (!data.empty()) {
        expected_ += static_cast<std::uint32_t>(data.size());
        owner_.tcp_data(*this, data);
    }
    while (state_ != State::closed && !reorder_.empty()) {
        const auto it = reorder_.begin();
        const std::uint32_t sequence = it->first + peer_initial_;
        if (before(expected_, sequence)) break;
        const std::string piece = std::move(it->second);
        reorder_size_ -= piece.size();
        reorder_.erase(it);
        const std::uint32_t known = expected_ - sequence;
        if (known < piece.size()) {
            expected_ += static_cast<std::uint32_t>(piece.size()) - known;
            owner_.tcp_data(*this, std::string_view(piece).substr(known));
        }
    }
    if (state_ == State::closed) return;
    if (fin_seen_ && expected_ == fin_at_) {
        peer_finished();
        return;
    }
    acknowledge();
}

void TcpConnection::peer_finished() {
    ++expected_;
    fin_at_ = expected_ - 1;
    acknowledge();
    switch (state_) {
        case State::established:
            state_ = State::close_wait;
            break;
        case State::fin_wait_1:
            state_ = State::closing;
            break;
        case State::fin_wait_2:
            state_ = State::time_wait;
            timer_.stop();
            break;
        default:
            return;  // a repeated FIN
    }
    owner_.tcp_closed(*this, false);
}

void TcpConnection::finish(bool reset) {
    const bool told = state_ == State::last_ack || state_ == State::time_wait;
    state_ = State::closed;
    timer_.stop();
    if (!told) owner_.tcp_closed(*this, reset);
}

}  // namespace gmgate::ue
