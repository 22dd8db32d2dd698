#pragma once
// A small TCP (RFC 9293) for SIP inside ESP: the kernel's cannot be used, since the UE's packets
// never pass the kernel's ESP.
//
// Handshake from both sides, in-order delivery with a bounded reorder queue, retransmission with
// back-off and after three duplicate acknowledgments, the peer's window, FIN and RST. Left out
// because SIP over Gm does not need them: congestion control beyond a fixed window of 10 segments,
// selective acknowledgment, urgent data, window scaling, timestamps. One connection is one object;
// one thread; time comes from the wheel.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/timer_wheel.h"
#include "ue/packet.h"

namespace gmgate::ue {

class TcpConnection;

// Who carries the segments and takes the data. Calls come from inside TcpConnection's functions and
// its timer: the connection must not be destroyed within them (note it and do it later).
class TcpOwner {
  public:
    virtual ~TcpOwner() = default;
    // Ports, numbers and payload are set; addresses and checksum are the owner's.
    virtual void tcp_output(TcpConnection& connection, const TcpSegment& segment) = 0;
    virtual void tcp_established(TcpConnection& connection) = 0;
    virtual void tcp_data(TcpConnection& connection, std::string_view data) = 0;
    // The peer will send no more (FIN), or the connection is gone (`reset`: RST or retransmissions
    // in vain).
    virtual void tcp_closed(TcpConnection& connection, bool reset) = 0;
};

class TcpConnection {
  public:
    enum class State : std::uint8_t {
        closed,
        syn_sent,
        syn_received,
        established,
        fin_wait_1,
        fin_wait_2,
        close_wait,
        closing,
        last_ack,
        time_wait,
    };
    struct Options {
        std::uint16_t local_port = 0;
        std::uint16_t remote_port = 0;
        std::uint16_t mss = 1360;  // ours; the peer's is taken where it is smaller
        std::uint32_t initial_sequence = 0;
    };
    static constexpr Duration initial_rto = std::chrono::milliseconds(500);
    static constexpr unsigned max_retransmissions =
        7;  // 0.5 + 1 + … + 32 s: about the life of a SIP transaction
    static constexpr std::uint16_t max_reorder =
        65535;  // octets kept out of order; also our window

    TcpConnection(TimerWheel& timers, TcpOwner& owner, const Options& options);
    TcpConnection(const TcpConnection&) = delete;
    TcpConnection& operator=(const TcpConnection&) = delete;

    void connect();                      // active open
    void accept(const TcpSegment& syn);  // passive open, with the peer's SYN
    void receive(const TcpSegment& segment);
    void send(std::string_view data);  // before the handshake is done, too; ignored once closing
    void close();                      // FIN after what is queued
    void abort();                      // RST, and gone without a call to the owner
    void forget();                     // gone without even an RST

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] bool open() const {
        return state_ == State::syn_sent || state_ == State::syn_received ||
               state_ == State::established || state_ == State::close_wait;
    }
    [[nodiscard]] bool done() const {
        return state_ == State::closed || state_ == State::time_wait;
    }
    [[nodiscard]] std::uint16_t local_port() const { return options_.local_port; }
    [[nodiscard]] std::uint16_t remote_port() const { return options_.remote_port; }
    // The peer's first sequence number: tells a repeated SYN from that of a new connection on the
    // same ports.
    [[nodiscard]] std::uint32_t peer_initial() const { return peer_initial_; }
    [[nodiscard]] std::uint32_t retransmissions() const { return retransmissions_; }

  private:
    void on_timer();
    void output(std::uint8_t flags, std::uint32_t sequence, std::span<const std::uint8_t> payload);
    void acknowledge();
    void pump();          // sends what the window allows
    void resend_first();  // the oldest unacknowledged data
    void arm();
    void take_acknowledgment(const TcpSegment& segment);
    void take_data(const TcpSegment& segment);
    void peer_finished();
    void finish(bool reset);

    TcpOwner& owner_;
    TimerWheel& timers_;
    Timer timer_;
    Options options_;
    State state_ = State::closed;
    std::uint16_t peer_mss_ = 536;
    std::uint8_t attempts_ = 0;
    std::uint8_t duplicates_ = 0;
    bool fin_queued_ = false;
    bool fin_acknowledged_ = false;
    std::uint32_t una_;      // oldest unacknowledged
    std::uint32_t next_;     // next to send
    std::uint32_t highest_;  // highest ever sent + 1
    std::uint32_t peer_window_ = 0;
    std::uint32_t peer_initial_ = 0;
    std::uint32_t expected_ = 0;  // next in-order octet of the peer
    std::uint32_t retransmissions_ = 0;
    std::string unsent_;  // from una_ on: sent but not acknowledged, then not yet sent
    std::map<std::uint32_t, std::string>
        reorder_;  // key: distance from peer_initial_, so that order survives a wrap
    std::size_t reorder_size_ = 0;
    bool fin_seen_ = false;
    std::uint32_t fin_at_ = 0;
};

}  // namespace gmgate::ue
