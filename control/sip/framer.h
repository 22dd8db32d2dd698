#pragma once
// Messages out of a byte stream (RFC 3261 18.3), with the keepalives of RFC 5626 between them.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/secret.h"
#include "control/sip/message.h"

namespace gmgate::sip {

enum class FrameKind : std::uint8_t {
    none,     // feed more
    message,  // Frame::bytes is one whole message, start line to end of body
    ping,     // double CRLF: answer it with one CRLF (server side only)
    pong,     // a CRLF between messages
    error,    // the stream cannot be read on: answer with response_code(status) if it is a request,
              // then close
};

struct Frame {
    FrameKind kind = FrameKind::none;
    std::string_view bytes;  // valid until the next feed(), next() or clear()
    ParseStatus status =
        ParseStatus::ok;  // with error: why; `bytes` then is the head as far as it came
};

// One per connection and direction. Holds one unfinished message (at most max_message octets) and
// the piece fed last, and nothing between messages (an idle connection costs no buffer). After
// `error` every further next() gives the same error.
class StreamFramer {
  public:
    // The client (who opened the connection) sees each CRLF as a pong; the server waits for the
    // second one of a ping.
    enum class Side : std::uint8_t { server, client };
    explicit StreamFramer(Side side = Side::server) : side_(side) {}

    // Takes what came, in pieces of any size. Call next() until it says none (or error) before the
    // next feed(), or the buffer grows with what you feed.
    void feed(std::string_view bytes);
    template <std::same_as<std::span<const char>> Span>
    void feed(Span bytes) {
        feed(std::string_view(bytes.data(), bytes.size()));
    }
    [[nodiscard]] Frame next();
    // Octets held.
    [[nodiscard]] std::size_t pending() const { return buffer_.size() - read_; }
    void clear();

  private:
    Frame close(ParseStatus status);

    // A 401 of the core holds ck and ik: nothing of it stays behind when the buffer grows or goes.
    std::basic_string<char, std::char_traits<char>, WipingAllocator<char>> buffer_;
    std::size_t read_ = 0;     // consumed
    std::size_t scanned_ = 0;  // searched for the end of the head, from read_
    std::size_t total_ = 0;    // size of the message whose head is known; 0: not yet
    ParseStatus error_ = ParseStatus::ok;
    Side side_;
};

}  // namespace gmgate::sip
