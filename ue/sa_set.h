#pragma once
// The UE's half of a set of four SAs, and the TCP connections that ride it.

#include <cstdint>
#include <memory>

#include "base/ip.h"
#include "base/secret.h"
#include "control/sip/framer.h"
#include "ue/esp.h"
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
class TcpLink final : public TcpOwner {
  public:
    TcpLink(Phone& phone, SaSet& set, TimerWheel& timers, const TcpConnection::Options& options,
            bool server)
        : connection(timers, *this, options),
          framer(server ? sip::StreamFramer::Side::server : sip::StreamFramer::Side::client),
          phone_(phone),
          set_(set) {}

    void tcp_output(TcpConnection& connection, const TcpSegment& segment) override;
    void tcp_established(TcpConnection& connection) override;
    void tcp_data(TcpConnection& connection, std::string_view data) override;
    void tcp_closed(TcpConnection& connection, bool reset) override;

    TcpConnection connection;
    sip::StreamFramer framer;

  private:
    Phone& phone_;
    SaSet& set_;
};

struct SaSet {
    std::uint32_t serial = 0;  // 1 for the phone's first set, and so on
    IpAddress local;           // the phone's address under this set: it may have moved since (D5)
    SaNumbers numbers;
    sa::Suite suite;
    SecretPtr<SaKeys> secret = make_secret<SaKeys>();
    std::unique_ptr<TcpLink> client;  // port_uc → port_ps, ours
    std::unique_ptr<TcpLink> server;  // port_pc → port_us, the P-CSCF's
};

}  // namespace gmgate::ue
