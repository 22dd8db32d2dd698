#pragma once
// The phone's card: Milenage (TS 35.206), the network's authentication (TS 33.102 6.3.3), and its
// answer.
//
// Written apart from the home network's Milenage on purpose: two copies of one mistake would agree
// with each other.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret.h"

namespace gmgate::ue {

using Rand = std::array<std::uint8_t, 16>;
using Autn = std::array<std::uint8_t, 16>;
using Sqn = std::uint64_t;  // 48 bits

// The two secrets of a card.
struct CardKeys {
    Secret<16> k;
    Secret<16> opc;

    [[nodiscard]] CardKeys copy() const { return {k.copy(), opc.copy()}; }
};

// The rule for generated subscribers: K = first 16 octets of HMAC-SHA-256(seed, "gmgate-K" | IMSI),
// OPc the same with "gmgate-OPc". `seed` is any octets; `imsi` its decimal digits.
[[nodiscard]] CardKeys keys_by_rule(std::span<const std::uint8_t> seed, std::string_view imsi);
// OPc = E_K(OP) xor OP, for cards given as OP.
[[nodiscard]] Secret<16> opc_of(const Secret<16>& k, const Secret<16>& op);

namespace milenage {

struct F1 {
    std::array<std::uint8_t, 8> mac_a{};
    std::array<std::uint8_t, 8> mac_s{};
};
struct F2345 {
    Secret<8> res;
    Secret<16> ck;
    Secret<16> ik;
    std::array<std::uint8_t, 6> ak{};
};
using Amf = std::array<std::uint8_t, 2>;

[[nodiscard]] F1 f1(const CardKeys& keys, const Rand& rand, Sqn sqn, const Amf& amf);
[[nodiscard]] F2345 f2345(const CardKeys& keys, const Rand& rand);
[[nodiscard]] std::array<std::uint8_t, 6> f5_star(const CardKeys& keys, const Rand& rand);

}  // namespace milenage

// What the card says to RAND and AUTN.
struct AkaSuccess {
    Secret<8> res;
    Secret<16> ck;
    Secret<16> ik;
};
struct AkaMacFailure {};  // the network is not who it says (C3)
struct AkaSyncFailure {   // its sequence number is not fresh (C4)
    std::array<std::uint8_t, 14> auts{};
};
using AkaOutcome = std::variant<AkaSuccess, AkaMacFailure, AkaSyncFailure>;

// Keeps the highest sequence number it accepted; one that is not above it, or more than 2^28 steps
// (of 32) above it, is refused with AUTS. A card that has accepted none takes any, as a card must
// that meets its network for the first time.
class Usim {
  public:
    explicit Usim(CardKeys keys, Sqn highest = 0) : keys_(std::move(keys)), highest_(highest) {}

    [[nodiscard]] AkaOutcome authenticate(const Rand& rand, const Autn& autn);

    // For the misbehaviour "sync-failure": claims a sequence number `ahead` above that of AUTN,
    // which the network then has to catch up with. An AUTN whose MAC is wrong is refused as ever.
    [[nodiscard]] AkaOutcome refuse_as_stale(const Rand& rand, const Autn& autn, Sqn ahead);

    [[nodiscard]] Sqn highest() const { return highest_; }

  private:
    [[nodiscard]] AkaSyncFailure make_auts(const Rand& rand) const;

    CardKeys keys_;
    Sqn highest_;
};

// RAND and AUTN out of the nonce of an AKAv1-MD5 challenge (RFC 3310 3.2): base64 of at least 32
// octets.
struct AkaChallenge {
    Rand rand{};
    Autn autn{};
};
[[nodiscard]] Result<AkaChallenge> parse_aka_nonce(std::string_view nonce);

}  // namespace gmgate::ue
