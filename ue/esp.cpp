#include "ue/esp.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/secret.h"

namespace gmgate::ue {

namespace {

constexpr std::size_t header_size = 8;  // SPI, sequence number

template <class T, void (*Free)(T*)>
struct Release {
    void operator()(T* p) const { Free(p); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Release<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>>;
using MacContext = std::unique_ptr<EVP_MAC_CTX, Release<EVP_MAC_CTX, EVP_MAC_CTX_free>>;
using Cipher = std::unique_ptr<EVP_CIPHER, Release<EVP_CIPHER, EVP_CIPHER_free>>;

Cipher fetch(const char* name) {
    Cipher c(EVP_CIPHER_fetch(nullptr, name, nullptr));
    if (!c) throw std::runtime_error(std::string("OpenSSL has no ") + name);
    return c;
}

MacContext hmac(const char* digest) {
    EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    MacContext c(mac != nullptr ? EVP_MAC_CTX_new(mac) : nullptr);
    EVP_MAC_free(mac);
    std::string name(digest);
    const std::array<OSSL_PARAM, 2> params{
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name.data(), 0),
        OSSL_PARAM_construct_end()};
    if (!c || EVP_MAC_CTX_set_params(c.get(), params.data()) != 1) {
        throw std::runtime_error(std::string("OpenSSL has no HMAC with ") + digest);
    }
    return c;
}

int as_int(std::size_t n) {
    return static_cast<int>(n);
}

[[noreturn]] void broken() {
    throw std::runtime_error("OpenSSL refused a cipher operation");
}

bool is_aead(sa::Suite s) {
    return s.encryption == sa::Encryption::aes_gcm || s.integrity == sa::Integrity::aes_gmac;
}

}  // namespace

bool ReplayWindow::fresh(std::uint32_t sequence) const {
    if (sequence == 0) return false;
    if (sequence > highest_) return true;
    const std::uint32_t behind = highest_ - sequence;
    return behind < width && (seen_ >> behind & 1U) == 0;
}

void ReplayWindow::mark(std::uint32_t sequence) {
    if (sequence > highest_) {
        const std::uint32_t by = sequence - highest_;
        seen_ = by < width ? (seen_ << by) | 1U : 1U;
        highest_ = sequence;
    } else if (highest_ - sequence < width) {
        seen_ |= std::uint64_t{1} << (highest_ - sequence);
    }
}

struct EspCrypto::Contexts {
    Cipher gcm = fetch("AES-128-GCM");
    Cipher cbc = fetch("AES-128-CBC");
    Cipher des3 = fetch("DES-EDE3-CBC");
    MacContext sha1 = hmac("SHA1");
    MacContext md5 = hmac("MD5");
    CipherContext cipher{EVP_CIPHER_CTX_new()};

    std::array<std::uint8_t, 12> icv96(sa::Integrity integrity, const sa::EspKeys& keys,
                                       std::span<const std::uint8_t> data) const {
        EVP_MAC_CTX* c = integrity == sa::Integrity::hmac_md5_96 ? md5.get() : sha1.get();
        std::array<std::uint8_t, EVP_MAX_MD_SIZE> full{};
        std::size_t n = 0;
        const auto key = keys.integrity();
        if (EVP_MAC_init(c, key.data(), key.size(), nullptr) != 1 ||
            EVP_MAC_update(c, data.data(), data.size()) != 1 ||
            EVP_MAC_final(c, full.data(), &n, full.size()) != 1 || n < 12) {
            broken();
        }
        std::array<std::uint8_t, 12> icv{};
        std::copy_n(full.begin(), 12, icv.begin());
        return icv;
    }

    // GCM over `aad` and `text` (in place; empty with GMAC). Encrypting fills `tag`; decrypting
    // checks it.
    bool gcm_run(bool encrypt, std::span<const std::uint8_t> key, const Secret<4>& salt,
                 std::span<const std::uint8_t> iv, std::span<const std::uint8_t> aad,
                 std::span<std::uint8_t> text, std::span<std::uint8_t, 16> tag) const {
        EVP_CIPHER_CTX* c = cipher.get();
        std::array<std::uint8_t, 12> nonce{};
        std::copy_n(salt.reveal().begin(), 4, nonce.begin());
        std::copy_n(iv.begin(), 8, nonce.begin() + 4);
        int n = 0;
        if (EVP_CipherInit_ex2(c, gcm.get(), key.data(), nonce.data(), encrypt ? 1 : 0, nullptr) !=
            1)
            broken();
        if (EVP_CipherUpdate(c, nullptr, &n, aad.data(), as_int(aad.size())) != 1) broken();
        if (!text.empty() &&
            EVP_CipherUpdate(c, text.data(), &n, text.data(), as_int(text.size())) != 1)
            broken();
        std::array<std::uint8_t, 16> last{};
        if (encrypt) {
            if (EVP_CipherFinal_ex(c, last.data(), &n) != 1) broken();
            return EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag.data()) == 1;
        }
        if (EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, 16, tag.data()) != 1) broken();
        return EVP_CipherFinal_ex(c, last.data(), &n) == 1;
    }

    void cbc_run(bool encrypt, sa::Encryption algorithm, std::span<const std::uint8_t> key,
                 std::span<const std::uint8_t> iv, std::span<std::uint8_t> text) const {
        EVP_CIPHER_CTX* c = cipher.get();
        const EVP_CIPHER* which = algorithm == sa::Encryption::aes_cbc ? cbc.get() : des3.get();
        int n = 0;
        if (EVP_CipherInit_ex2(c, which, key.data(), iv.data(), encrypt ? 1 : 0, nullptr) != 1)
            broken();
        EVP_CIPHER_CTX_set_padding(c, 0);
        if (EVP_CipherUpdate(c, text.data(), &n, text.data(), as_int(text.size())) != 1) broken();
    }
};

EspCrypto::EspCrypto() : contexts_(std::make_unique<Contexts>()) {}
EspCrypto::~EspCrypto() {
    wipe(scratch_);
}

void EspCrypto::seal(sa::Suite suite, const sa::EspKeys& keys, const Packet& packet, Random& random,
                     Bytes& out) {
    std::array<std::uint8_t, 16> iv{};
    const std::size_t n = sa::iv_size(suite);
    if (is_aead(suite)) {
        store_be32(iv.data(), packet.spi);
        store_be32(iv.data() + 4, packet.sequence);
    } else if (n != 0) {
        random.fill(std::span(iv).first(n));
    }
    seal_with_iv(suite, keys, packet, std::span(iv).first(n), out);
}

void EspCrypto::seal_with_iv(sa::Suite suite, const sa::EspKeys& keys, const Packet& packet,
                             std::span<const std::uint8_t> iv, Bytes& out) {
    const std::size_t block = sa::block_size(suite);
    const std::size_t icv = sa::icv_size(suite);
    const std::size_t body = packet.payload.size() + 2;
    const std::size_t pad = (block - body % block) % block;
    const std::size_t start = header_size + iv.size();
    out.resize(start + body + pad + icv);
    store_be32(out.data(), packet.spi);
    store_be32(out.data() + 4, packet.sequence);
    std::copy(iv.begin(), iv.end(), out.begin() + header_size);
    std::uint8_t* p = out.data() + start;
    if (!packet.payload.empty()) std::memcpy(p, packet.payload.data(), packet.payload.size());
    p += packet.payload.size();
    for (std::size_t i = 1; i <= pad; ++i)
        *p++ = static_cast<std::uint8_t>(i);  // RFC 4303 2.4: 1, 2, 3, …
    *p++ = static_cast<std::uint8_t>(pad);
    *p++ = packet.next_header;

    const std::span<std::uint8_t> all(out);
    const auto text = all.subspan(start, body + pad);
    const auto tail = all.last(icv);
    if (suite.encryption == sa::Encryption::aes_gcm) {
        contexts_->gcm_run(true, keys.encryption(), keys.salt, iv, all.first(header_size), text,
                           tail.first<16>());
    } else if (suite.integrity == sa::Integrity::aes_gmac) {
        // RFC 4543 3.3: the IV and the whole payload are additional data, nothing is plaintext.
        contexts_->gcm_run(true, keys.integrity(), keys.salt, iv, all.first(all.size() - icv), {},
                           tail.first<16>());
    } else {
        if (suite.encryption != sa::Encryption::null) {
            contexts_->cbc_run(true, suite.encryption, keys.encryption(), iv, text);
        }
        const auto mac = contexts_->icv96(suite.integrity, keys, all.first(all.size() - icv));
        std::copy(mac.begin(), mac.end(), tail.begin());
    }
}

std::expected<EspCrypto::Opened, EspError> EspCrypto::open(sa::Suite suite, const sa::EspKeys& keys,
                                                           std::span<const std::uint8_t> packet) {
    const std::size_t iv_size = sa::iv_size(suite);
    const std::size_t icv = sa::icv_size(suite);
    const std::size_t start = header_size + iv_size;
    if (packet.size() < start + 2 + icv) return std::unexpected(EspError::too_short);
    const auto iv = packet.subspan(header_size, iv_size);
    const auto covered = packet.first(packet.size() - icv);
    const auto cipher = covered.subspan(start);
    if (cipher.size() % sa::block_size(suite) != 0) return std::unexpected(EspError::alignment);
    const auto tail = packet.last(icv);

    std::span<const std::uint8_t> plain = cipher;
    if (is_aead(suite)) {
        std::array<std::uint8_t, 16> tag{};
        std::copy(tail.begin(), tail.end(), tag.begin());
        if (suite.encryption == sa::Encryption::aes_gcm) {
            scratch_.assign(cipher.begin(), cipher.end());
            if (!contexts_->gcm_run(false, keys.encryption(), keys.salt, iv,
                                    packet.first(header_size), scratch_, tag)) {
                return std::unexpected(EspError::icv);
            }
            plain = scratch_;
        } else if (!contexts_->gcm_run(false, keys.integrity(), keys.salt, iv, covered, {}, tag)) {
            return std::unexpected(EspError::icv);
        }
    } else {
        if (!equal_constant_time(contexts_->icv96(suite.integrity, keys, covered), tail)) {
            return std::unexpected(EspError::icv);
        }
        if (suite.encryption != sa::Encryption::null) {
            scratch_.assign(cipher.begin(), cipher.end());
            contexts_->cbc_run(false, suite.encryption, keys.encryption(), iv, scratch_);
            plain = scratch_;
        }
    }
    const std::size_t pad = plain[plain.size() - 2];
    const std::uint8_t next = plain[plain.size() - 1];
    if (pad + 2 > plain.size()) return std::unexpected(EspError::padding);
    const std::size_t payload = plain.size() - 2 - pad;
    for (std::size_t i = 0; i < pad; ++i) {
        if (plain[payload + i] != i + 1) return std::unexpected(EspError::padding);
    }
    return Opened{next, plain.first(payload)};
}

}  // namespace gmgate::ue
