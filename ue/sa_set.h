#pragma once
// The UE's half of a set of four SAs, and the TCP connections that ride it.

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/ip.h"
#include "base/secret.h"
#include "control/sip/framer.h"
#include "ue/esp.h"
#include "ue/host_esp.h"
#include "ue/sa_numbers.h"
#include "ue/tcp.h"

namespace gmgate::ue {

// What lies in secret memory: keys and the sequence state that goes with them.
struct SaKeys {
    sa::EspKeys keys;
    ReplayWindow in_uc;         // inbound at port_uc (spi_uc)
    ReplayWindow in_us;         // inbound at port_us (spi_us)
    std::uint32_t sent_ps = 0;  // last sequence number under spi_ps
    std::uint32_t sent_pc = 0;  // … under spi_pc
};

class Phone;
struct SaSet;

// A TCP connection under a set, with the framing of SIP on it.
class TcpLink {
  public:
    TcpLink(Phone& phone, SaSet& set, bool server)
        : framer(server ? sip::StreamFramer::Side::server : sip::StreamFramer::Side::client),
          phone_(phone),
          set_(set) {}
    virtual ~TcpLink() = default;
    TcpLink(const TcpLink&) = delete;
    TcpLink& operator=(const TcpLink&) = delete;

    virtual void send(std::string_view data) = 0;  // queued until connected
    [[nodiscard]] virtual bool open() const = 0;   // can be sent on
    virtual void close() = 0;                      // FIN after what is queued
    virtual void abort() = 0;                      // RST
    virtual void forget() = 0;                     // without even an RST
    [[nodiscard]] virtual std::uint16_t local_port() const = 0;
    [[nodiscard]] virtual std::uint16_t remote_port() const = 0;

    sip::StreamFramer framer;

  protected:
    Phone& phone_;
    SaSet& set_;
};

// With gmue's own ESP goes gmue's own TCP.
class OwnTcpLink final : public TcpLink, private TcpOwner {
  public:
    OwnTcpLink(Phone& phone, SaSet& set, TimerWheel& timers, const TcpConnection::Options& options,
               bool server)
        : TcpLink(phone, set, server), connection(timers, *this, options) {}

    void send(std::string_view data) override { connection.send(data); }
    [[nodiscard]] bool open() const override { return connection.open(); }
    void close() override { connection.close(); }
    void abort() override { connection.abort(); }
    void forget() override { connection.forget(); }
    [[nodiscard]] std::uint16_t local_port() const override { return connection.local_port(); }
    [[nodiscard]] std::uint16_t remote_port() const override { return connection.remote_port(); }

    TcpConnection connection;

  private:
    void tcp_output(TcpConnection& connection, const TcpSegment& segment) override;
    void tcp_established(TcpConnection& connection) override;
    void tcp_data(TcpConnection& connection, std::string_view data) override;
    void tcp_closed(TcpConnection& connection, bool reset) override;
};

// With the kernel's ESP goes the kernel's.
class HostTcpLink final : public TcpLink, private ClearStreamHandler {
  public:
    // Ours, port_uc → port_ps.
    HostTcpLink(Phone& phone, SaSet& set, HostSet& host)
        : TcpLink(phone, set, false), stream_(host.connect(*this)) {}
    // The P-CSCF's, port_pc → port_us.
    HostTcpLink(Phone& phone, SaSet& set, std::unique_ptr<HostStream> accepted)
        : TcpLink(phone, set, true), stream_(std::move(accepted)) {
        stream_->start(*this);
    }

    void send(std::string_view data) override { stream_->send(data); }
    [[nodiscard]] bool open() const override { return stream_->open(); }
    void close() override { stream_->finish(); }
    void abort() override { stream_->abort(); }
    void forget() override {}  // its end is silent anyway
    [[nodiscard]] std::uint16_t local_port() const override { return stream_->local_port(); }
    [[nodiscard]] std::uint16_t remote_port() const override { return stream_->remote_port(); }

  private:
    void stream_data(std::string_view data) override;
    void stream_closed(std::string_view why) override;

    std::unique_ptr<HostStream> stream_;
};

// What the kernel hands up under a set.
class HostLink final : public HostSetHandler {
  public:
    HostLink(Phone& phone, SaSet& set) : phone_(phone), set_(set) {}
    void host_datagram(bool at_client_port, const Endpoint& from,
                       std::string_view payload) override;
    void host_accepted(std::unique_ptr<HostStream> stream) override;

  private:
    Phone& phone_;
    SaSet& set_;
};

struct SaSet {
    std::uint32_t serial = 0;  // 1 for the phone's first set, and so on
    IpAddress local;           // the phone's address under this set: it may have moved since (D5)
    SaNumbers numbers;
    sa::Suite suite;
    bool encapsulated = false;  // tunnel mode in UDP: we are behind a NAT (TS 33.203 Annex M)
    SecretPtr<SaKeys> secret = make_secret<SaKeys>();
    // With the kernel's ESP; nullptr: gmue's own. Above the streams that ride it: they go first.
    std::unique_ptr<HostLink> host_link;
    std::unique_ptr<HostSet> host;
    std::unique_ptr<TcpLink> client;  // port_uc → port_ps, ours
    std::unique_ptr<TcpLink> server;  // port_pc → port_us, the P-CSCF's
};

}  // namespace gmgate::ue
