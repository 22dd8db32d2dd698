#pragma once
// The Milenage algorithm set of 3GPP TS 35.206: f1, f1*, f2, f3, f4, f5, f5* on AES-128 (OpenSSL),
// with its standard constants c1…c5 and r1…r5.

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "base/secret.h"

namespace gmgate::home {

using Rand = std::array<std::uint8_t, 16>;
using Autn = std::array<std::uint8_t, 16>;
using Auts = std::array<std::uint8_t, 14>;
using Amf = std::array<std::uint8_t, 2>;
using Mac = std::array<std::uint8_t, 8>;
using Sqn48 = std::array<std::uint8_t, 6>;  // sequence number or anonymity key, big-endian

// One AES context that takes the key of one subscriber after the other, so that a vector costs no
// allocation. One thread. Outputs are valid only after set_key().
class Milenage {
  public:
    Milenage();  // throws std::runtime_error if OpenSSL offers no AES-128-ECB (start-up only)
    ~Milenage();
    Milenage(const Milenage&) = delete;
    Milenage& operator=(const Milenage&) = delete;

    // OPc = OP ⊕ E_K(OP). Leaves K set, OPc not.
    [[nodiscard]] Secret<16> derive_opc(const Secret<16>& k, const Secret<16>& op);
    void set_key(const Secret<16>& k, const Secret<16>& opc);

    struct F1 {
        Mac mac_a{};  // f1: network authentication
        Mac mac_s{};  // f1*: resynchronisation
    };
    [[nodiscard]] F1 f1(const Rand& rand, const Sqn48& sqn, const Amf& amf);

    struct F2345 {
        Secret<8> res;  // f2
        Secret<16> ck;  // f3
        Secret<16> ik;  // f4
        Sqn48 ak{};     // f5: hides SQN only; it goes with this object
        ~F2345() { wipe(ak); }
        F2345() = default;
        F2345(F2345&&) = default;
        F2345& operator=(F2345&&) = default;
    };
    [[nodiscard]] F2345 f2345(const Rand& rand);
    // f5*: the anonymity key of a resynchronisation.
    [[nodiscard]] Sqn48 f5_star(const Rand& rand);

  private:
    using Block = std::array<std::uint8_t, 16>;
    void encrypt(const Block& in, Block& out);
    // E_K(RAND ⊕ OPc), the first step of every function.
    void temp(const Rand& rand, Block& out);
    // E_K(rot(temp ⊕ OPc, r) ⊕ c) ⊕ OPc; r in octets, c in the last octet.
    void out(const Block& temp, unsigned r, std::uint8_t c, Block& result);

    struct Context;
    std::unique_ptr<Context> context_;
    SecretPtr<Secret<16>> opc_ = make_secret<Secret<16>>();
};

}  // namespace gmgate::home
