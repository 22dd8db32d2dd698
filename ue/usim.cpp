#include "ue/usim.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

namespace gmgate::ue {

namespace {

using Block = std::array<std::uint8_t, 16>;
constexpr Sqn sqn_mask = (Sqn{1} << 48U) - 1;
constexpr Sqn sqn_delta = (Sqn{1} << 28U) << 5U;  // Δ of TS 33.102 C.2.1, in steps of IND

// AES-128 of one block under one key, several times over.
class Aes {
  public:
    explicit Aes(std::span<const std::uint8_t, 16> key)
        : context_(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free) {
        if (!context_ || EVP_EncryptInit_ex(context_.get(), EVP_aes_128_ecb(), nullptr, key.data(),
                                            nullptr) != 1) {
            throw std::runtime_error("OpenSSL: AES-128-ECB is not available");
        }
        EVP_CIPHER_CTX_set_padding(context_.get(), 0);
    }
    [[nodiscard]] Block operator()(const Block& in) const {
        Block out{};
        int n = 0;
        EVP_EncryptUpdate(context_.get(), out.data(), &n, in.data(), 16);
        return out;
    }

  private:
    std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context_;
};

Block operator^(const Block& a, std::span<const std::uint8_t, 16> b) {
    Block r{};
    for (std::size_t i = 0; i < 16; ++i) r[i] = a[i] ^ b[i];
    return r;
}

// Rotates left by whole octets: all r1…r5 of Milenage are multiples of 8.
Block rotate(const Block& a, std::size_t octets) {
    Block r = a;
    std::rotate(r.begin(), r.begin() + static_cast<std::ptrdiff_t>(octets), r.end());
    return r;
}

// OUTn of TS 35.206 4.1 for n = 2…5: E(rot(TEMP xor OPc, r) xor c) xor OPc.
Block out_n(const Aes& aes, const Block& temp, std::span<const std::uint8_t, 16> opc,
            std::size_t r_octets, std::uint8_t c) {
    Block b = rotate(temp ^ opc, r_octets);
    b[15] ^= c;
    return aes(b) ^ opc;
}

std::array<std::uint8_t, 6> sqn_octets(Sqn sqn) {
    std::array<std::uint8_t, 6> o{};
    for (std::size_t i = 0; i < 6; ++i) o[i] = static_cast<std::uint8_t>(sqn >> (8 * (5 - i)));
    return o;
}

}  // namespace

CardKeys keys_by_rule(std::span<const std::uint8_t> seed, std::string_view imsi) {
    const auto derive = [&](std::string_view label) {
        std::string text(label);
        text += imsi;
        std::array<std::uint8_t, 32> mac{};
        unsigned n = 0;
        HMAC(EVP_sha256(), seed.data(), static_cast<int>(seed.size()),
             reinterpret_cast<const std::uint8_t*>(text.data()), text.size(), mac.data(), &n);
        Secret<16> key{std::span<const std::uint8_t, 16>(mac.data(), 16)};
        wipe(mac);
        return key;
    };
    return {derive("gmgate-K"), derive("gmgate-OPc")};
}

Secret<16> opc_of(const Secret<16>& k, const Secret<16>& op) {
    Block b{};
    std::copy_n(op.reveal().begin(), 16, b.begin());
    Block out = Aes(k.reveal())(b) ^ op.reveal();
    Secret<16> opc{std::span<const std::uint8_t, 16>(out)};
    wipe(b);
    wipe(out);
    return opc;
}

namespace milenage {

F1 f1(const CardKeys& keys, const Rand& rand, Sqn sqn, const Amf& amf) {
    const Aes aes(keys.k.reveal());
    const auto opc = keys.opc.reveal();
    const Block temp = aes(rand ^ opc);
    Block in1{};
    const auto s = sqn_octets(sqn);
    for (std::size_t half = 0; half < 2; ++half) {
        std::copy(s.begin(), s.end(), in1.begin() + static_cast<std::ptrdiff_t>(8 * half));
        in1[8 * half + 6] = amf[0];
        in1[8 * half + 7] = amf[1];
    }
    const Block out1 = aes(temp ^ rotate(in1 ^ opc, 8)) ^ opc;  // r1 = 64, c1 = 0
    F1 r;
    std::copy_n(out1.begin(), 8, r.mac_a.begin());
    std::copy_n(out1.begin() + 8, 8, r.mac_s.begin());
    return r;
}

F2345 f2345(const CardKeys& keys, const Rand& rand) {
    const Aes aes(keys.k.reveal());
    const auto opc = keys.opc.reveal();
    Block temp = aes(rand ^ opc);
    Block out2 = out_n(aes, temp, opc, 0, 1);  // f2 and f5: r2 = 0, c2 = 1
    Block out3 = out_n(aes, temp, opc, 4, 2);  // f3: r3 = 32, c3 = 2
    Block out4 = out_n(aes, temp, opc, 8, 4);  // f4: r4 = 64, c4 = 4
    F2345 r;
    std::copy_n(out2.begin() + 8, 8, r.res.writable().begin());
    std::copy_n(out2.begin(), 6, r.ak.begin());
    r.ck = Secret<16>{std::span<const std::uint8_t, 16>(out3)};
    r.ik = Secret<16>{std::span<const std::uint8_t, 16>(out4)};
    for (Block* b : {&temp, &out2, &out3, &out4}) wipe(*b);
    return r;
}

std::array<std::uint8_t, 6> f5_star(const CardKeys& keys, const Rand& rand) {
    const Aes aes(keys.k.reveal());
    const auto opc = keys.opc.reveal();
    const Block out5 = out_n(aes, aes(rand ^ opc), opc, 12, 8);  // r5 = 96, c5 = 8
    std::array<std::uint8_t, 6> ak{};
    std::copy_n(out5.begin(), 6, ak.begin());
    return ak;
}

}  // namespace milenage

namespace {

struct Opened {
    milenage::F2345 f;
    Sqn sqn = 0;
    bool mac_ok = false;
};

Opened open_autn(const CardKeys& keys, const Rand& rand, const Autn& autn) {
    Opened o;
    o.f = milenage::f2345(keys, rand);
    for (std::size_t i = 0; i < 6; ++i)
        o.sqn = (o.sqn << 8U) | static_cast<std::uint8_t>(autn[i] ^ o.f.ak[i]);
    const auto mac = milenage::f1(keys, rand, o.sqn, {autn[6], autn[7]}).mac_a;
    o.mac_ok = equal_constant_time(mac, std::span(autn).last<8>());
    return o;
}

}  // namespace

AkaOutcome Usim::authenticate(const Rand& rand, const Autn& autn) {
    Opened o = open_autn(keys_, rand, autn);
    if (!o.mac_ok) return AkaMacFailure{};
    if (highest_ != 0 && (o.sqn <= highest_ || o.sqn - highest_ > sqn_delta))
        return make_auts(rand);
    highest_ = o.sqn;
    return AkaSuccess{std::move(o.f.res), std::move(o.f.ck), std::move(o.f.ik)};
}

AkaOutcome Usim::refuse_as_stale(const Rand& rand, const Autn& autn, Sqn ahead) {
    const Opened o = open_autn(keys_, rand, autn);
    if (!o.mac_ok) return AkaMacFailure{};
    highest_ = (o.sqn + ahead) & sqn_mask;
    return make_auts(rand);
}

AkaSyncFailure Usim::make_auts(const Rand& rand) const {
    AkaSyncFailure r;
    const auto ak = milenage::f5_star(keys_, rand);
    const auto s = sqn_octets(highest_);
    for (std::size_t i = 0; i < 6; ++i) r.auts[i] = s[i] ^ ak[i];
    const auto mac_s =
        milenage::f1(keys_, rand, highest_, {0, 0}).mac_s;  // AMF* = 0 (TS 33.102 6.3.3)
    std::copy(mac_s.begin(), mac_s.end(), r.auts.begin() + 6);
    return r;
}

Result<AkaChallenge> parse_aka_nonce(std::string_view nonce) {
    const auto octets = from_base64(nonce);
    if (!octets) return fail(ErrorKind::invalid, "the nonce is not base64");
    if (octets->size() < 32) {
        return fail(ErrorKind::invalid, "the nonce is shorter than RAND and AUTN (32 octets)");
    }
    AkaChallenge c;
    std::copy_n(octets->begin(), 16, c.rand.begin());
    std::copy_n(octets->begin() + 16, 16, c.autn.begin());
    return c;
}

}  // namespace gmgate::ue
