// SHA1_Update and MD5_Update have no successor that works on a state of the caller's: OpenSSL 3's
// EVP allocates one for each message.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "dataplane/dpdk/openssl_engine.h"

#include <openssl/md5.h>
#include <openssl/provider.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/secret.h"

namespace gmgate::dataplane {
namespace {

constexpr std::size_t integrity_size = 20;
constexpr std::size_t cipher_at = 20;
constexpr std::size_t aead_key_size = 16;
constexpr std::size_t hmac_icv = 12;
constexpr std::size_t aead_icv = 16;
constexpr std::size_t digest_room = 20;

struct FreeCipher {
    void operator()(EVP_CIPHER* p) const { EVP_CIPHER_free(p); }
    void operator()(EVP_CIPHER_CTX* p) const { EVP_CIPHER_CTX_free(p); }
};
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

struct Sha1 {
    using State = SHA_CTX;
    static constexpr std::size_t size = SHA_DIGEST_LENGTH;
    static constexpr std::size_t key = integrity_size;
    static bool begin(State& s) { return SHA1_Init(&s) == 1; }
    static bool add(State& s, const std::uint8_t* p, std::size_t n) {
        return SHA1_Update(&s, p, n) == 1;
    }
    static bool end(State& s, std::uint8_t* out) { return SHA1_Final(out, &s) == 1; }
};
struct Md5 {
    using State = MD5_CTX;
    static constexpr std::size_t size = MD5_DIGEST_LENGTH;
    static constexpr std::size_t key = 16;
    static bool begin(State& s) { return MD5_Init(&s) == 1; }
    static bool add(State& s, const std::uint8_t* p, std::size_t n) {
        return MD5_Update(&s, p, n) == 1;
    }
    static bool end(State& s, std::uint8_t* out) { return MD5_Final(out, &s) == 1; }
};

// RFC 2104 on the stack; everything of the key is wiped.
template <class Hash>
bool hmac(const CryptoJob& job, std::array<std::uint8_t, digest_room>& out) {
    std::array<std::uint8_t, 64> pad;
    std::array<typename Hash::State, 1> state;
    const auto fill = [&](std::uint8_t with) {
        pad.fill(with);
        for (std::size_t i = 0; i < Hash::key; ++i) pad[i] ^= job.small_key[i];
    };
    fill(0x36);
    bool done = Hash::begin(state[0]) && Hash::add(state[0], pad.data(), pad.size()) &&
                Hash::add(state[0], job.esp, job.length) && Hash::end(state[0], out.data());
    fill(0x5C);
    done = done && Hash::begin(state[0]) && Hash::add(state[0], pad.data(), pad.size()) &&
           Hash::add(state[0], out.data(), Hash::size) && Hash::end(state[0], out.data());
    wipe(pad);
    wipe(state);
    return done;
}

// With its cipher set for good: who names one at each packet has OpenSSL allocate its state anew.
CipherContext context_of(const char* name) {
    CipherContext made = need(CipherContext(EVP_CIPHER_CTX_new()));
    const Cipher cipher = fetch(name);
    if (EVP_CipherInit_ex2(made.get(), cipher.get(), nullptr, nullptr, 1, nullptr) != 1)
        throw std::runtime_error(std::string("OpenSSL: ") + name + " cannot be used");
    return made;
}

bool has_aead(sa::Suite suite) {
    return suite.encryption == sa::Encryption::aes_gcm ||
           suite.integrity == sa::Integrity::aes_gmac;
}

}  // namespace

struct OpensslEngine::Impl {
    CipherContext aes_gcm = context_of("AES-128-GCM");
    CipherContext aes_cbc = context_of("AES-128-CBC");
    CipherContext des_cbc = context_of("DES-EDE3-CBC");

    static bool tag(sa::Integrity integrity, const CryptoJob& job,
                    std::array<std::uint8_t, digest_room>& out) {
        return integrity == sa::Integrity::hmac_sha_1_96 ? hmac<Sha1>(job, out)
                                                         : hmac<Md5>(job, out);
    }

    static bool crypt(EVP_CIPHER_CTX* context, const std::uint8_t* key, std::size_t iv_size,
                      const CryptoJob& job, bool encrypt) {
        const std::size_t head = 8 + iv_size;
        std::uint8_t* payload = job.esp + head;
        int size = 0;
        // The IV is copied first: in CBC decryption in place it is read before the payload is
        // written.
        return EVP_CipherInit_ex2(context, nullptr, key, job.esp + 8, encrypt ? 1 : 0, nullptr) ==
                   1 &&
               EVP_CIPHER_CTX_set_padding(context, 0) == 1 &&
               EVP_CipherUpdate(context, payload, &size, payload,
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
        EVP_CIPHER_CTX* c = aes_gcm.get();
        int size = 0;
        std::array<std::uint8_t, 512> scratch{};
        if (EVP_CipherInit_ex2(c, nullptr, job.small_key, nonce.data(), 0, nullptr) != 1 ||
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
        EVP_CIPHER_CTX* c = aes_gcm.get();
        int size = 0;
        const std::uint32_t aad = confidential ? 8 : job.length;
        std::uint8_t* payload = job.esp + 16;
        if (EVP_CipherInit_ex2(c, nullptr, job.small_key, nonce.data(), encrypt ? 1 : 0, nullptr) !=
            1)
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

    // OpenSSL's cipher contexts lie on the heap and hold the last key: a key of zeros takes its
    // place. Once a burst, so that no key outlives its set in them, nor reaches a core dump (S1).
    void forget(sa::Suite suite) const {
        static constexpr std::array<std::uint8_t, 24> zeros{};
        EVP_CIPHER_CTX* used = nullptr;
        if (has_aead(suite)) {
            used = aes_gcm.get();
        } else if (suite.encryption == sa::Encryption::aes_cbc) {
            used = aes_cbc.get();
        } else if (suite.encryption == sa::Encryption::des_ede3_cbc) {
            used = des_cbc.get();
        }
        if (used != nullptr)
            (void)EVP_CipherInit_ex2(used, nullptr, zeros.data(), zeros.data(), 1, nullptr);
    }
};

OpensslEngine::OpensslEngine() : impl_(std::make_unique<Impl>()) {}
OpensslEngine::~OpensslEngine() = default;

void OpensslEngine::expand(sa::Suite suite, const sa::EspKeys& keys,
                           std::span<std::uint8_t, small_key_size> small_key,
                           std::span<std::uint8_t> /*schedule*/) {
    std::fill(small_key.begin(), small_key.end(), std::uint8_t{0});
    if (has_aead(suite)) {
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
        if (has_aead(suite)) {
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
        if (has_aead(suite)) {
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
