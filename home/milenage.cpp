#include "home/milenage.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>

namespace gmgate::home {

struct Milenage::Context {
    // Fetched once: an implicit fetch at each new key costs more than the encryption.
    EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, "AES-128-ECB", nullptr);
    EVP_CIPHER_CTX* aes = EVP_CIPHER_CTX_new();

    Context() {
        if (cipher == nullptr || aes == nullptr) {
            release();
            throw std::runtime_error("OpenSSL offers no AES-128-ECB: Milenage cannot work");
        }
    }
    ~Context() { release(); }
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    void release() {
        EVP_CIPHER_CTX_free(aes);  // wipes the key schedule
        EVP_CIPHER_free(cipher);
    }
};

Milenage::Milenage() : context_(std::make_unique<Context>()) {}
Milenage::~Milenage() = default;

namespace {
void xor_into(std::array<std::uint8_t, 16>& a, std::span<const std::uint8_t, 16> b) {
    for (std::size_t i = 0; i < 16; ++i) a[i] = static_cast<std::uint8_t>(a[i] ^ b[i]);
}

void set_aes_key(EVP_CIPHER_CTX* aes, const EVP_CIPHER* cipher, const Secret<16>& k) {
    // Neither call can fail with a fetched cipher and a key of its length: both would be a broken
    // OpenSSL.
    if (EVP_EncryptInit_ex2(aes, cipher, k.reveal().data(), nullptr, nullptr) != 1 ||
        EVP_CIPHER_CTX_set_padding(aes, 0) != 1) {
        throw std::runtime_error("OpenSSL refuses an AES-128 key");
    }
}
}  // namespace

void Milenage::encrypt(const Block& in, Block& out) {
    int n = 0;
    if (EVP_EncryptUpdate(context_->aes, out.data(), &n, in.data(), 16) != 1 || n != 16) {
        throw std::runtime_error("OpenSSL refuses to encrypt a block");
    }
}

Secret<16> Milenage::derive_opc(const Secret<16>& k, const Secret<16>& op) {
    set_aes_key(context_->aes, context_->cipher, k);
    Block block{};
    Block result{};
    std::ranges::copy(op.reveal(), block.begin());
    encrypt(block, result);
    xor_into(result, op.reveal());
    Secret<16> opc{std::span<const std::uint8_t, 16>(result)};
    wipe(block);
    wipe(result);
    return opc;
}

void Milenage::set_key(const Secret<16>& k, const Secret<16>& opc) {
    set_aes_key(context_->aes, context_->cipher, k);
    *opc_ = opc.copy();
}

void Milenage::temp(const Rand& rand, Block& out) {
    Block in = rand;
    xor_into(in, opc_->reveal());
    encrypt(in, out);
}

void Milenage::out(const Block& temp, unsigned r, std::uint8_t c, Block& result) {
    Block in{};
    for (unsigned i = 0; i < 16; ++i) {
        const unsigned from = (i + r) % 16;
        in[i] = static_cast<std::uint8_t>(temp[from] ^ opc_->reveal()[from]);
    }
    in[15] = static_cast<std::uint8_t>(in[15] ^ c);
    encrypt(in, result);
    xor_into(result, opc_->reveal());
    wipe(in);
}

Milenage::F1 Milenage::f1(const Rand& rand, const Sqn48& sqn, const Amf& amf) {
    // IN1 = SQN ‖ AMF ‖ SQN ‖ AMF; OUT1 = E(TEMP ⊕ rot(IN1 ⊕ OPc, r1) ⊕ c1) ⊕ OPc with r1 = 64
    // bits, c1 = 0.
    Block in1{};
    for (std::size_t half : {std::size_t{0}, std::size_t{8}}) {
        std::ranges::copy(sqn, in1.begin() + static_cast<std::ptrdiff_t>(half));
        std::ranges::copy(amf, in1.begin() + static_cast<std::ptrdiff_t>(half + 6));
    }
    Block t{};
    temp(rand, t);
    Block in{};
    for (unsigned i = 0; i < 16; ++i) {
        const unsigned from = (i + 8) % 16;
        in[i] = static_cast<std::uint8_t>(t[i] ^ in1[from] ^ opc_->reveal()[from]);
    }
    Block out1{};
    encrypt(in, out1);
    xor_into(out1, opc_->reveal());
    F1 result;
    std::copy_n(out1.begin(), 8, result.mac_a.begin());
    std::copy_n(out1.begin() + 8, 8, result.mac_s.begin());
    wipe(t);
    wipe(in);
    wipe(out1);
    return result;
}

Milenage::F2345 Milenage::f2345(const Rand& rand) {
    Block t{};
    temp(rand, t);
    Block block{};
    F2345 result;
    out(t, 0, 1, block);  // r2 = 0, c2 = …01: f5 in the first 6 octets, f2 in the last 8
    std::copy_n(block.begin(), 6, result.ak.begin());
    std::copy_n(block.begin() + 8, 8, result.res.writable().begin());
    out(t, 4, 2, block);  // r3 = 32 bits, c3 = …02
    std::ranges::copy(block, result.ck.writable().begin());
    out(t, 8, 4, block);  // r4 = 64 bits, c4 = …04
    std::ranges::copy(block, result.ik.writable().begin());
    wipe(t);
    wipe(block);
    return result;
}

Sqn48 Milenage::f5_star(const Rand& rand) {
    Block t{};
    temp(rand, t);
    Block block{};
    out(t, 12, 8, block);  // r5 = 96 bits, c5 = …08
    Sqn48 ak{};
    std::copy_n(block.begin(), 6, ak.begin());
    wipe(t);
    wipe(block);
    return ak;
}

}  // namespace gmgate::home
