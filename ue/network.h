#pragma once
// What a phone needs of the network. The real one is ue/socket_network.h; tests have theirs.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/ip.h"

namespace gmgate::ue {

// Calls come from the loop, never from inside connect_tcp() or send().
class ClearStreamHandler {
  public:
    virtual ~ClearStreamHandler() = default;
    virtual void stream_data(std::string_view data) = 0;
    virtual void stream_closed(
        std::string_view why) = 0;  // the stream is dead; destroy it when convenient
};

// One ordinary TCP connection, for SM1 and SM6 of a phone that uses TCP. Destroying it closes it.
class ClearStream {
  public:
    virtual ~ClearStream() = default;
    virtual void send(std::string_view data) = 0;  // queued until connected
    [[nodiscard]] virtual std::uint16_t local_port() const = 0;
};

// What stream_closed() says of an orderly end.
inline constexpr std::string_view peer_closed = "closed by the P-CSCF";

// A connection under a set of SAs the host's kernel holds (ue/host_esp.h).
class HostStream : public ClearStream {
  public:
    // Who hears of it from now on; an accepted connection reads nothing before.
    virtual void start(ClearStreamHandler& handler) = 0;
    [[nodiscard]] virtual std::uint16_t remote_port() const = 0;
    [[nodiscard]] virtual bool open() const = 0;  // can be sent on
    virtual void finish() = 0;                    // FIN after what is queued
    virtual void abort() = 0;                     // RST
};

class Network {
  public:
    virtual ~Network() = default;
    // Clear UDP from the phone's address and the clear port.
    virtual void send_udp(const Endpoint& from, const Endpoint& to, std::string_view payload) = 0;
    // An ESP packet (from the SPI on); the IP header, and fragments where needed, are the
    // network's.
    virtual void send_esp(const IpAddress& from, const IpAddress& to,
                          std::span<const std::uint8_t> esp) = 0;
    // The same in UDP, from and to port 4500 (RFC 3948); also one octet 0xFF, the keep-alive.
    virtual void send_in_udp(const IpAddress& from, const IpAddress& to,
                             std::span<const std::uint8_t> payload) = 0;
    virtual std::unique_ptr<ClearStream> connect_tcp(const IpAddress& from, const Endpoint& to,
                                                     ClearStreamHandler& handler) = 0;
};

}  // namespace gmgate::ue
