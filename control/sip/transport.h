#pragma once
// Where SIP messages come from and go to. Procedures see only this interface: real sockets
// (socket_transport.h) and a test's virtual network implement it.

#include <cstdint>
#include <span>
#include <string_view>

#include "base/ip.h"
#include "control/sip/message.h"

namespace gmgate::sip {

enum class Transport : std::uint8_t { udp, tcp };

[[nodiscard]] constexpr std::string_view name(Transport t) {
    return t == Transport::udp ? "UDP" : "TCP";
}

// Names a TCP connection for the life of the process, never used twice; 0: none.
using ConnectionId = std::uint64_t;

// The path of one message. On receipt `local` is the socket it came to, so its port tells protected
// from unprotected.
//
// To send over TCP: with `connection`, on that one or not at all; without, on a connection between
// exactly these endpoints if there is one, else on a new one opened from `local` (port 0: any) to
// `remote`.
struct Flow {
    Transport transport = Transport::udp;
    Endpoint local;
    Endpoint remote;
    ConnectionId connection = 0;
};

// Receives what arrives. Called on the loop's thread; may call the TransportLayer.
class MessageSink {
  public:
    virtual ~MessageSink() = default;
    // One whole message: a datagram, or one framed message of a stream. Valid during the call only;
    // writable, so that the receiver can wipe keys in place (B2). Not parsed: may be garbage. Empty
    // never.
    virtual void on_message(const Flow& flow, std::span<char> bytes) = 0;
    // A stream broke SIP framing (no Content-Length, oversized, garbage); it is closed after this
    // call, and after what the receiver answers in it. `held`: what came of the message, writable
    // and valid as above; may be empty.
    virtual void on_framing_error(const Flow& flow, ParseStatus why, std::span<char> held) = 0;
    // A connection went away, or could not be made (then nothing queued on it was delivered).
    virtual void on_connection_closed(const Flow& flow, bool was_established) = 0;
};

class TransportLayer {
  public:
    virtual ~TransportLayer() = default;
    // Copies the bytes. false: it certainly will not go out (no such socket or connection, queue
    // full, too large); true promises nothing: UDP may lose it, a connection may still fail.
    virtual bool send(const Flow& flow, std::span<const char> bytes) = 0;
    // Closes a connection after what is queued has gone out. Unknown: nothing happens.
    virtual void close(ConnectionId connection) = 0;
    // Cuts the connection between these two at once, if there is one: what carried it is gone.
    virtual void cut(const Endpoint& /*local*/, const Endpoint& /*remote*/) {}
};

}  // namespace gmgate::sip
