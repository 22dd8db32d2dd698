#pragma once
// IMS AKA: authentication vectors and sequence numbers (TS 33.102 clause 6.3, Annex C) and their
// transport in HTTP Digest (RFC 3310, AKAv1-MD5).

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/random.h"
#include "base/secret.h"
#include "home/milenage.h"

namespace gmgate::home {

// One authentication vector (quintet). RAND and AUTN are public; the rest are keys.
struct AuthVector {
    Rand rand{};
    Autn autn{};  // SQN ⊕ AK ‖ AMF ‖ MAC
    Secret<8> xres;
    Secret<16> ck;
    Secret<16> ik;
};

// A sequence number as TS 33.102 C.1.1.1 builds it: SEQ (43 bits) ‖ IND (5 bits). We use its
// profile that is not time-based (C.3.2): every vector gets SEQ + 1 and IND + 1 modulo 32, so that
// a USIM that keeps an array of 32 accepts vectors out of order, and one that keeps only the
// highest number accepts them in order.
class Sqn {
  public:
    static constexpr unsigned ind_bits = 5;
    static constexpr std::uint64_t max = (1ULL << 48U) - 1;

    constexpr Sqn() = default;
    // Only the low 48 bits count.
    constexpr explicit Sqn(std::uint64_t value) : value_(value & max) {}
    explicit Sqn(const Sqn48& octets);

    [[nodiscard]] constexpr std::uint64_t value() const { return value_; }
    [[nodiscard]] constexpr std::uint64_t seq() const { return value_ >> ind_bits; }
    [[nodiscard]] constexpr std::uint64_t ind() const { return value_ & ((1ULL << ind_bits) - 1); }
    [[nodiscard]] Sqn48 octets() const;
    // nullopt: SEQ is used up; the subscriber needs a new key.
    [[nodiscard]] std::optional<Sqn> next() const;
    auto operator<=>(const Sqn&) const = default;

  private:
    std::uint64_t value_ = 0;
};

// `milenage` must hold the subscriber's key.
[[nodiscard]] AuthVector make_vector(Milenage& milenage, const Rand& rand, Sqn sqn, const Amf& amf);

// AUTS = SQN_MS ⊕ f5*(RAND) ‖ f1*(SQN_MS, RAND, AMF 0000) (TS 33.102 6.3.3). Returns SQN_MS;
// nullopt: MAC-S is wrong.
[[nodiscard]] std::optional<Sqn> verify_auts(Milenage& milenage, const Rand& rand,
                                             const Auts& auts);

// base64(RAND ‖ AUTN), RFC 3310 clause 3.2.
[[nodiscard]] std::string make_nonce(const AuthVector& vector);

// What a Digest response was calculated from (RFC 2617 3.2.2, RFC 3310 3.4). Views of the request.
struct DigestAnswer {
    std::string_view username;
    std::string_view realm;
    std::string_view nonce;
    std::string_view uri;
    std::string_view response;  // 32 hex digits, either case
    std::string_view qop;       // empty, auth or auth-int
    std::string_view nc;        // 8 hex digits, with qop
    std::string_view cnonce;    // with qop
};

// MD5 for Digest. Keeps its context: no allocation a message. One thread.
class DigestCalculator {
  public:
    DigestCalculator();  // throws std::runtime_error if OpenSSL offers no MD5 (start-up only)
    ~DigestCalculator();
    DigestCalculator(const DigestCalculator&) = delete;
    DigestCalculator& operator=(const DigestCalculator&) = delete;

    // H(A1) = MD5(username ":" realm ":" RES), RES as octets. As good as RES for this nonce, hence
    // a Secret.
    [[nodiscard]] Secret<16> ha1(std::string_view username, std::string_view realm,
                                 const Secret<8>& res);
    // 32 lower-case hex digits. `body` counts for auth-int only. nullopt: a qop that is not known.
    [[nodiscard]] std::optional<std::array<char, 32>> response(const Secret<16>& ha1,
                                                               const DigestAnswer& answer,
                                                               std::string_view method,
                                                               std::string_view body);
    // In constant time. False too for a response that is not 32 hex digits, or qop without nc or
    // cnonce.
    [[nodiscard]] bool verify(const Secret<16>& ha1, const DigestAnswer& answer,
                              std::string_view method, std::string_view body);

  private:
    struct Context;
    std::unique_ptr<Context> context_;
};

}  // namespace gmgate::home
