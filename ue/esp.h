#pragma once
// The UE's ESP (RFC 4303, 32-bit sequence numbers), all suites of A9, on OpenSSL. Transport mode;
// behind a NAT what it carries is a whole IPv4 packet (tunnel mode, ue/phone_wire.cpp).
//
// Shares no code with the gateway's: what this accepts and what it sends is a judgement of its own.
// Keys lie with the SA; the OpenSSL contexts are shared by all SAs of the thread, so that an SA
// costs its keys and two dozen octets.

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/random.h"
#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"

namespace gmgate::ue {

inline constexpr std::uint8_t protocol_tcp = 6;
inline constexpr std::uint8_t protocol_udp = 17;
inline constexpr std::uint8_t protocol_esp = 50;
inline constexpr std::uint8_t protocol_none = 59;  // dummy packets: we send none (A1)

enum class EspError : std::uint8_t {
    too_short,  // no room for header, IV, trailer and ICV
    alignment,  // ciphertext is no multiple of the block
    icv,        // forged, damaged, or another key
    padding,    // authentic, but the trailer makes no sense
};

// The last 64 sequence numbers seen on one inbound SA (RFC 4303 3.4.3). `fresh` before the ICV,
// `mark` after.
class ReplayWindow {
  public:
    static constexpr std::uint32_t width = 64;
    [[nodiscard]] bool fresh(std::uint32_t sequence) const;
    void mark(std::uint32_t sequence);
    [[nodiscard]] std::uint32_t highest() const { return highest_; }

  private:
    std::uint64_t seen_ = 0;  // bit i: highest_ - i was seen
    std::uint32_t highest_ = 0;
};

// One thread's OpenSSL contexts. Functions throw only if OpenSSL lacks an algorithm altogether
// (start-up).
class EspCrypto {
  public:
    EspCrypto();
    ~EspCrypto();
    EspCrypto(const EspCrypto&) = delete;
    EspCrypto& operator=(const EspCrypto&) = delete;

    struct Packet {
        std::uint32_t spi = 0;
        std::uint32_t sequence = 0;
        std::uint8_t next_header = protocol_udp;
        std::span<const std::uint8_t> payload;
    };
    // Replaces `out` with the ESP packet (from the SPI on). The IV: random for CBC; SPI | sequence
    // number for GCM and GMAC, since one key serves the four SAs of a set and both ends, and their
    // SPIs differ (A2, A4): no nonce comes twice.
    void seal(sa::Suite suite, const sa::EspKeys& keys, const Packet& packet, Random& random,
              Bytes& out);
    // The same with the IV given: known answers.
    void seal_with_iv(sa::Suite suite, const sa::EspKeys& keys, const Packet& packet,
                      std::span<const std::uint8_t> iv, Bytes& out);

    struct Opened {
        std::uint8_t next_header = 0;
        std::span<const std::uint8_t>
            payload;  // into `packet`, or into this object until the next call
    };
    // ICV first, then decryption, then the trailer. `packet` from the SPI on.
    [[nodiscard]] std::expected<Opened, EspError> open(sa::Suite suite, const sa::EspKeys& keys,
                                                       std::span<const std::uint8_t> packet);

  private:
    struct Contexts;
    std::unique_ptr<Contexts> contexts_;
    Bytes scratch_;
};

}  // namespace gmgate::ue
