#pragma once
// ESP in transport mode, written for the tests on OpenSSL alone and one packet at a time: the other
// opinion.

#include <cstdint>
#include <optional>
#include <vector>

#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"

namespace gmgate::dataplane::test {

using Octets = std::vector<std::uint8_t>;

class ReferenceEsp {
  public:
    ReferenceEsp(sa::Suite suite, const sa::AkaKey& ck, const sa::AkaKey& ik);

    // SPI ‖ sequence ‖ IV ‖ payload ‖ ICV. `cleartext` includes padding, pad length, next header.
    // The IV is 00 01 02 … plus the sequence number.
    [[nodiscard]] Octets seal(std::uint32_t spi, std::uint32_t sequence,
                              const Octets& cleartext) const;
    [[nodiscard]] Octets seal_payload(std::uint32_t spi, std::uint32_t sequence,
                                      const Octets& payload, std::uint8_t next_header) const;
    // Cleartext with its trailer; nullopt: the ICV does not verify.
    [[nodiscard]] std::optional<Octets> open(const Octets& esp) const;

    // An IP frame (Ethernet, IPv4 without options or IPv6) into ESP, and back; lengths and
    // checksums as they must be.
    [[nodiscard]] Octets protect(const Octets& frame, std::uint32_t spi,
                                 std::uint32_t sequence) const;
    [[nodiscard]] std::optional<Octets> unprotect(const Octets& frame) const;

    [[nodiscard]] Octets pad(Octets payload, std::uint8_t next_header) const;

  private:
    [[nodiscard]] Octets tag(const Octets& authenticated) const;
    [[nodiscard]] Octets cbc(const Octets& iv, const Octets& in, bool encrypt) const;
    [[nodiscard]] std::optional<Octets> aead(const Octets& head, const Octets& body,
                                             const Octets& icv, bool encrypt) const;
    [[nodiscard]] bool is_aead() const {
        return suite_.encryption == sa::Encryption::aes_gcm ||
               suite_.integrity == sa::Integrity::aes_gmac;
    }

    sa::Suite suite_;
    sa::EspKeys keys_;
};

// Addresses and ports of a flow for the frames below.
struct Flow {
    bool v6 = false;
    bool tcp = false;
    Octets source;  // 4 or 16
    Octets destination;
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
};
// Ethernet + IP + UDP/TCP with correct checksums; `data` octets behind the transport header.
[[nodiscard]] Octets plain_frame(const Flow& flow, std::size_t data);
// Makes the checksum of an Ethernet frame's IPv4 header of `header` octets right.
void set_ipv4_checksum(Octets& frame, std::size_t header = 20);
// IP header checksum and UDP/TCP checksum are right and all lengths fit exactly.
[[nodiscard]] bool is_sound(const Octets& frame);

}  // namespace gmgate::dataplane::test
