#pragma once
// The real network: raw sockets for ESP, one UDP socket a family for what is in clear, kernel TCP
// for SM1 over TCP; behind a NAT one UDP socket on port 4500 for the ESP of all phones (IPv4).
//
// A raw socket for protocol 50 takes every ESP packet that reaches this host, and keeps the kernel
// from answering them with ICMP unreachable. What travels inside ESP never meets the kernel's UDP
// or TCP, so nothing is reset behind our back. The phones' addresses must be local to this host:
// `ip route add local 10.20.0.0/16 dev lo` (gmue --setup-net does it). Sends are queued and go out
// in batches from flush(). One thread, that of the loop.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "ue/network.h"

namespace gmgate::ue {

// What comes in; `to` is the phone's address.
class NetworkReceiver {
  public:
    virtual ~NetworkReceiver() = default;
    virtual void on_udp(const Endpoint& from, const IpAddress& to, std::string_view payload) = 0;
    virtual void on_esp(const IpAddress& from, const IpAddress& to,
                        std::span<const std::uint8_t> esp) = 0;
    // From port 4500 of `from` to ours: ESP in UDP, or what else comes there.
    virtual void on_in_udp(const IpAddress& from, const IpAddress& to,
                           std::span<const std::uint8_t> payload) = 0;
};

class SocketNetwork final : public Network {
  public:
    struct Options {
        bool v4 = true;
        bool v6 = true;
        std::uint16_t clear_port = 5060;
        std::size_t mtu = 1500;
        bool own_esp = true;  // false: the kernel's, no raw socket
        bool nat = false;     // IPv4's port 4500 too, for ESP in UDP
    };
    // The error names the remedy: no CAP_NET_RAW, port taken, …
    static Result<std::unique_ptr<SocketNetwork>> open(EventLoop& loop, NetworkReceiver& receiver,
                                                       const Options& options);
    ~SocketNetwork() override;

    void send_udp(const Endpoint& from, const Endpoint& to, std::string_view payload) override;
    void send_esp(const IpAddress& from, const IpAddress& to,
                  std::span<const std::uint8_t> esp) override;
    void send_in_udp(const IpAddress& from, const IpAddress& to,
                     std::span<const std::uint8_t> payload) override;
    std::unique_ptr<ClearStream> connect_tcp(const IpAddress& from, const Endpoint& to,
                                             ClearStreamHandler& handler) override;

    void flush();
    [[nodiscard]] std::uint64_t send_errors() const { return send_errors_; }
    [[nodiscard]] const std::string& first_send_error() const { return first_send_error_; }

  private:
    struct Family;  // the sockets and queues of IPv4 or IPv6
    SocketNetwork(EventLoop& loop, NetworkReceiver& receiver, const Options& options);
    Result<void> open_family(Family& family);
    void receive_udp(Family& family);
    void receive_esp(Family& family);
    Result<void> open_encapsulation();
    void receive_in_udp();
    void flush_esp(Family& family);
    void flush_udp(Family& family);
    void note_error(int error, const char* what);
    [[nodiscard]] Family* family(bool v6) { return v6 ? v6_.get() : v4_.get(); }

    EventLoop& loop_;
    NetworkReceiver& receiver_;
    Options options_;
    std::unique_ptr<Family> v4_;
    std::unique_ptr<Family> v6_;
    UniqueFd in_udp_;
    std::uint32_t identification_ = 1;
    std::uint64_t send_errors_ = 0;
    std::string first_send_error_;
    std::vector<Bytes> pieces_;
};

// The MTU of the route to `to`; 0: unknown (no route).
[[nodiscard]] std::size_t route_mtu(const IpAddress& to);
// Does a packet to `address` stay on this host? Phones' addresses must.
[[nodiscard]] bool is_local(const IpAddress& address);

}  // namespace gmgate::ue
