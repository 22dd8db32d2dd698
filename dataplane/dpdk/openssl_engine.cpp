#include "dataplane/dpdk/openssl_engine.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "base/secret.h"

namespace gmgate::dataplane {
namespace {

constexpr std::size_t integrity_size = 20;
constexpr std::size_t cipher_at = 20;
constexpr std::size_t aead_key_size = 16;
constexpr std::size_t hmac_icv = 12;
constexpr std::size_t aead_icv = 16;
constexpr std::size_t digest_room = 20;

struct FreeMac {
    void operator()(EVP_MAC* p) const { EVP_MAC_free(p); }
    void operator()(EVP_MAC_CTX* p) const { EVP_MAC_CTX_free(p); }
};
struct FreeCipher {
    void operator()(EVP_CIPHER* p) const { EVP_CIPHER_free(p); }
    void operator()(EVP_CIPHER_CTX* p) const { EVP_CIPHER_CTX_free(p); }
};
using Mac = std::unique_ptr<EVP_MAC, FreeMac>;
using MacContext = std::unique_ptr<EVP_MAC_CTX, FreeMac>;
using Cipher = std::unique_ptr<EVP_CIPHER, FreeCipher>;
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

template <class T>
T need(T p) {
    if (!p) throw std::runtime_error("OpenSSL: an algorithm of ESP is not available");
    return p;
}

Cipher fetch(const char* name) {
    return need(Cipher(EVP_CIPHER_fetch(nullptr, name, nullptr)));
}

}  // namespace

struct OpensslEngine::Impl {
    Mac hmac = need(Mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr)));
    MacContext sha1 = digest_context("SHA1");
    MacContext md5 = digest_context("MD5");
    Cipher aes_gcm = fetch("AES-128-GCM");
    Cipher aes_cbc = fetch("AES-128-CBC");
    Cipher des_cbc = fetch("DES-EDE3-CBC");
    CipherContext context = need(CipherContext(EVP_CIPHER_CTX_new()));

    MacContext digest_context(const char* digest) const {
        MacContext made = need(MacContext(EVP_MAC_CTX_new(hmac.get())));
        std::array<char, 8> text{};
        std::copy_n(digest, std::strlen(digest), text.begin());
        const std::array<OSSL_PARAM, 2> params{
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, text.data(), 0),
            OSSL_PARAM_construct_end()};
        if (EVP_MAC_CTX_set_params(made.get(), params.data()) != 1) {
            throw std::runtime_error("OpenSSL: HMAC over this digest is not available");
        }
        return made;
    }

    bool tag(sa::Integrity integrity, const CryptoJob& job,
             std::array<std::uint8_t, digest_room>& out) const {
        const bool is_sha1 = integrity == sa::Integrity::hmac_sha_1_96;
        EVP_MAC_CTX* mac = is_sha1 ? sha1.get() : md5.get();
        std::size_t size = 0;
        return EVP_MAC_init(mac, job.small_key, is_sha1 ? integrity_size : std::size_t{16},
                            nullptr) == 1 &&
               EVP_MAC_update(mac, job.esp, job.length) == 1 &&
               EVP_MAC_final(mac, out.data(), &size, out.size()) == 1;
    }

    bool crypt(const EVP_CIPHER* cipher, const std::uint8_t* key, std::size_t iv_size,
               const CryptoJob& job, bool encrypt) const {
        const std::size_t head = 8 + iv_size;
        std::uint8_t* payload = job.esp + head;
        int size = 0;
        // The IV is copied first: in CBC decryption in place it is read before the payload is
        // written.
        return EVP_CipherInit_ex2(context.get(), cipher, key, job.esp + 8, encrypt ? 1 : 0,
                                  nullptr) == 1 &&
               EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1 &&
               EVP_CipherUpdate(context.get(), payload, &size, payload,
                                static_cast<int>(job.length - head)) == 1 &&
               static_cast<std::size_t>(size) == job.length - head;
    }
    bool crypt(sa::Encryption encryption, const CryptoJob& job, bool encrypt) const {
        if (encryption == sa::Encryption::aes_cbc)
            return crypt(aes_cbc.get(), job.small_key + cipher_at, 16, job, encrypt);
        if (encryption != sa::Encryption::des_ede3_cbc) return true;
        std::array<std::uint8_t, 24> key{};
        std::memcpy(key.data(), job.small_key + cipher_at, 16);
        std::memcpy(key.data() + 16, job.small_key + cipher_at, 8);
        const bool done = crypt(des_cbc.get(), key.data(), 8, job, encrypt);
        wipe(key);
        return done;
    }

    // The ICV of AES-GCM, the packet left as it is: OpenSSL has no GHASH of its own to call, so the
    // cleartext is made piece by piece and thrown away.
    bool gcm_verify(const CryptoJob& job) const {
        std::array<std::uint8_t, 12> nonce{};
        std::memcpy(nonce.data(), job.small_key + aead_key_size, 4);
        std::memcpy(nonce.data() + 4, job.esp + 8, 8);
        EVP_CIPHER_CTX* c = context.get();
        int size = 0;
        std::array<std::uint8_t, 512> scratch{};
        if (EVP_CipherInit_ex2(c, aes_gcm.get(), job.small_key, nonce.data(), 0, nullptr) != 1 ||
            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, aead_icv, job.esp + job.length) != 1 ||
            EVP_CipherUpdate(c, nullptr, &size, job.esp, 8) != 1)
            return false;
        for (std::uint32_t at = 16; at < job.length;) {
            const auto n = std::min<std::uint32_t>(job.length - at, scratch.size());
            if (EVP_CipherUpdate(c, scratch.data(), &size, job.esp + at, static_cast<int>(n)) != 1)
                return false;
            at += n;
        }
        const bool good = EVP_CipherFinal_ex(c, scratch.data(), &size) == 1;
        wipe(scratch);
        return good;
    }

    // AES-GCM (`confidential`) or AES-GMAC. Decryption checks the ICV inside OpenSSL, in constant
    // time.
    bool aead(const CryptoJob& job, bool confidential, bool encrypt) const {
        std::array<std::uint8_t, 12> nonce{};
        std::memcpy(nonce.data(), job.small_key + aead_key_size, 4);
        std::memcpy(nonce.data() + 4, job.esp + 8, 8);
        EVP_CIPHER_CTX* c = context.get();
        int size = 0;
        const std::uint32_t aad = confidential ? 8 : job.length;
        std::uint8_t* payload = job.esp + 16;
        if (EVP_CipherInit_ex2(c, aes_gcm.get(), job.small_key, nonce.data(), encrypt ? 1 : 0,
                               nullptr) != 1)
            return false;
        if (!encrypt &&
            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, aead_icv, job.esp + job.length) != 1)
            return false;
        if (EVP_CipherUpdate(c, nullptr, &size, job.esp, static_cast<int>(aad)) != 1) return false;
        if (confidential &&
            EVP_CipherUpdate(c, payload, &size, payload, static_cast<int>(job.length - 16)) != 1)
            return false;
        std::array<std::uint8_t, 16> rest{};
        if (EVP_CipherFinal_ex(c, rest.data(), &size) != 1) return false;
        return !encrypt ||
               EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, aead_icv, job.esp + job.length) == 1;
    }

    // OpenSSL's contexts lie on the heap and hold the last key: a key of zeros takes its place.
    // Once a burst, so that no key outlives its set in them, nor reaches a core dump (S1).
    void forget(sa::Suite suite) const {
        static constexpr std::array<std::uint8_t, 24> zeros{};
        if (suite.integrity == sa::Integrity::hmac_sha_1_96)
            (void)EVP_MAC_init(sha1.get(), zeros.data(), integrity_size, nullptr);
        if (suite.integrity == sa::Integrity::hmac_md5_96)
            (void)EVP_MAC_init(md5.get(), zeros.data(), std::size_t{16}, nullptr);
        const EVP_CIPHER* cipher = nullptr;
        if (suite.encryption == sa::Encryption::aes_gcm ||
            suite.integrity == sa::Integrity::aes_gmac) {
            cipher = aes_gcm.get();
        } else if (suite.encryption == sa::Encryption::aes_cbc) {
            cipher = aes_cbc.get();
        } else if (suite.encryption == sa::Encryption::des_ede3_cbc) {
            cipher = des_cbc.get();
        }
        if (cipher != nullptr)
            (void)EVP_CipherInit_ex2(context.get(), cipher, zeros.data(), zeros.data(), 1, nullptr);
    }
};

OpensslEngine::OpensslEngine() : impl_(std::make_unique<Impl>()) {}
OpensslEngine::~OpensslEngine() = default;

void OpensslEngine::expand(sa::Suite suite, const sa::EspKeys& keys,
                           std::span<std::uint8_t, small_key_size> small_key,
                           std::span<std::uint8_t> /*schedule*/) {
    std::fill(small_key.begin(), small_key.end(), std::uint8_t{0});
    if (suite.encryption == sa::Encryption::aes_gcm || suite.integrity == sa::Integrity::aes_gmac) {
        const auto key =
            suite.encryption == sa::Encryption::aes_gcm ? keys.encryption() : keys.integrity();
        std::copy(key.begin(), key.end(), small_key.begin());
        std::memcpy(small_key.data() + aead_key_size, keys.salt.reveal().data(), 4);
        return;
    }
    const auto integrity = keys.integrity();
    std::copy(integrity.begin(), integrity.end(), small_key.begin());
    const auto encryption = keys.encryption();
    std::copy_n(encryption.begin(), std::min<std::size_t>(encryption.size(), 16),
                small_key.begin() + cipher_at);
}

void OpensslEngine::open(sa::Suite suite, std::span<CryptoJob> jobs) {
    for (CryptoJob& job : jobs) {
        if (suite.encryption == sa::Encryption::aes_gcm ||
            suite.integrity == sa::Integrity::aes_gmac) {
            job.ok = impl_->aead(job, suite.encryption == sa::Encryption::aes_gcm, false);
            continue;
        }
        std::array<std::uint8_t, digest_room> tag{};
        job.ok = impl_->tag(suite.integrity, job, tag) &&
                 equal_constant_time({tag.data(), hmac_icv}, {job.esp + job.length, hmac_icv}) &&
                 impl_->crypt(suite.encryption, job, false);
    }
    impl_->forget(suite);
}

void OpensslEngine::verify(sa::Suite suite, std::span<CryptoJob> jobs) {
    for (CryptoJob& job : jobs) {
        if (suite.encryption == sa::Encryption::aes_gcm) {
            job.ok = impl_->gcm_verify(job);
        } else if (suite.integrity == sa::Integrity::aes_gmac) {
            job.ok = impl_->aead(job, false, false);
        } else {
            std::array<std::uint8_t, digest_room> tag{};
            job.ok = impl_->tag(suite.integrity, job, tag) &&
                     equal_constant_time({tag.data(), hmac_icv}, {job.esp + job.length, hmac_icv});
        }
    }
    impl_->forget(suite);
}

void OpensslEngine::seal(sa::Suite suite, std::span<CryptoJob> jobs) {
    for (CryptoJob& job : jobs) {
        if (suite.encryption == sa::Encryption::aes_gcm ||
            suite.integrity == sa::Integrity::aes_gmac) {
            job.ok = impl_->aead(job, suite.encryption == sa::Encryption::aes_gcm, true);
            continue;
        }
        std::array<std::uint8_t, digest_room> tag{};
        job.ok = impl_->crypt(suite.encryption, job, true) && impl_->tag(suite.integrity, job, tag);
        std::memcpy(job.esp + job.length, tag.data(), hmac_icv);
    }
    impl_->forget(suite);
}

}  // namespace gmgate::dataplane
