#include "dataplane/dpdk/mb_engine.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

constexpr std::size_t digest_sha1 = 20;
constexpr std::size_t digest_md5 = 16;
constexpr std::size_t hmac_icv = 12;
constexpr std::size_t aead_icv = 16;
constexpr std::size_t opad_at = 20;
constexpr std::size_t cbc_schedule = 16UL * 11;  // AES-128: eleven round keys
constexpr std::size_t cbc_iv = 16;
constexpr std::size_t des_iv = 8;
constexpr std::size_t gcm_iv = 8;
constexpr std::size_t gcm_salt = 4;

// Constant time: what differs does not show in the time.
template <std::size_t Size>
bool same_icv(const std::uint8_t* a, const std::uint8_t* b) {
    static_assert(Size == hmac_icv || Size == aead_icv);
    std::uint64_t a0 = 0;
    std::uint64_t b0 = 0;
    std::memcpy(&a0, a, 8);
    std::memcpy(&b0, b, 8);
    std::uint64_t a1 = 0;
    std::uint64_t b1 = 0;
    std::memcpy(&a1, a + 8, Size - 8);
    std::memcpy(&b1, b + 8, Size - 8);
    return ((a0 ^ b0) | (a1 ^ b1)) == 0;
}

using Nonce = std::array<std::uint8_t, gcm_salt + gcm_iv>;
Nonce nonce_of(const CryptoJob& job) {
    Nonce nonce;
    std::memcpy(nonce.data(), job.small_key, gcm_salt);
    std::memcpy(nonce.data() + gcm_salt, job.esp + 8, gcm_iv);
    return nonce;
}

const gcm_key_data* gcm_key(const CryptoJob& job) {
    return reinterpret_cast<const gcm_key_data*>(job.schedule);
}

// The whole schedule of a later packet: with many SAs each is a run of cache misses that would
// stall one after another.
void prefetch_gcm(const CryptoJob& job) {
    for (std::size_t at = 0; at < sizeof(gcm_key_data); at += 64)
        __builtin_prefetch(job.schedule + at);
}
constexpr std::size_t gcm_ahead = 2;

IMB_JOB blank_job() {
    IMB_JOB job;
    std::memset(&job, 0, sizeof(job));
    return job;
}

}  // namespace

bool MbEngine::supported() {
    return __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("aes") != 0 &&
           __builtin_cpu_supports("pclmul") != 0;
}

MbEngine::MbEngine() : pages_(imb_get_mb_mgr_size() + 64) {
    const auto at =
        (reinterpret_cast<std::uintptr_t>(pages_.bytes().data()) + 63U) & ~std::uintptr_t{63};
    mb_ = imb_set_pointers_mb_mgr(reinterpret_cast<void*>(at), 0,
                                  1);  // NOLINT(performance-no-int-to-ptr): alignment
    if (mb_ == nullptr) throw std::runtime_error("libIPSec_MB: no manager");
    init_mb_mgr_auto(mb_, nullptr);
    if (const int error = imb_get_errno(mb_); error != 0) {
        throw std::runtime_error(std::string("libIPSec_MB: ") + imb_get_strerror(error));
    }
    for (std::size_t i = 0; i < max_jobs; ++i) {
        IMB_JOB& hash = hash_jobs_[i] = blank_job();
        hash.hash_alg = IMB_AUTH_HMAC_SHA_1;
        hash.cipher_mode = IMB_CIPHER_NULL;
        hash.cipher_direction = IMB_DIR_ENCRYPT;
        hash.chain_order = IMB_ORDER_HASH_CIPHER;
        hash.auth_tag_output = tags_[i].data();
        hash.auth_tag_output_len_in_bytes = hmac_icv;
        IMB_JOB& aes = cipher_jobs_[i] = blank_job();
        aes.cipher_mode = IMB_CIPHER_CBC;
        aes.hash_alg = IMB_AUTH_NULL;
        aes.key_len_in_bytes = IMB_KEY_128_BYTES;
        aes.iv_len_in_bytes = cbc_iv;
    }
}

MbEngine::~MbEngine() {
    wipe(std::span<std::uint8_t>(tags_[0].data(), sizeof(tags_)));
}

std::size_t MbEngine::schedule_size(sa::Suite suite) const {
    if (suite.integrity == sa::Integrity::aes_gmac) return sizeof(gcm_key_data);
    switch (suite.encryption) {
        case sa::Encryption::null:
            return 0;
        case sa::Encryption::aes_cbc:
            return 2 * cbc_schedule;
        case sa::Encryption::des_ede3_cbc:
            return 2UL * IMB_DES_KEY_SCHED_SIZE;
        case sa::Encryption::aes_gcm:
            return sizeof(gcm_key_data);
    }
    return 0;
}

void MbEngine::expand(sa::Suite suite, const sa::EspKeys& keys,
                      std::span<std::uint8_t, small_key_size> small_key,
                      std::span<std::uint8_t> schedule) {
    std::fill(small_key.begin(), small_key.end(), std::uint8_t{0});
    if (suite.integrity == sa::Integrity::hmac_sha_1_96 ||
        suite.integrity == sa::Integrity::hmac_md5_96) {
        // The state of the hash after its first block, for both pads: it saves two blocks a packet.
        const bool sha1 = suite.integrity == sa::Integrity::hmac_sha_1_96;
        alignas(16) std::array<std::uint8_t, IMB_SHA1_BLOCK_SIZE> pad{};
        alignas(16) std::array<std::uint8_t, digest_sha1> state{};
        for (const bool outer : {false, true}) {
            pad.fill(outer ? 0x5C : 0x36);
            std::size_t i = 0;
            for (const std::uint8_t octet : keys.integrity()) pad[i++] ^= octet;
            if (sha1) {
                IMB_SHA1_ONE_BLOCK(mb_, pad.data(), state.data());
            } else {
                IMB_MD5_ONE_BLOCK(mb_, pad.data(), state.data());
            }
            std::memcpy(small_key.data() + (outer ? opad_at : 0), state.data(),
                        sha1 ? digest_sha1 : digest_md5);
        }
        wipe(pad);
        wipe(state);
    }
    if (suite.encryption == sa::Encryption::aes_cbc) {
        IMB_AES_KEYEXP_128(mb_, keys.encryption().data(), schedule.data(),
                           schedule.data() + cbc_schedule);
    } else if (suite.encryption == sa::Encryption::des_ede3_cbc) {
        IMB_DES_KEYSCHED(mb_, reinterpret_cast<std::uint64_t*>(schedule.data()),
                         keys.encryption().data());
        IMB_DES_KEYSCHED(mb_,
                         reinterpret_cast<std::uint64_t*>(schedule.data() + IMB_DES_KEY_SCHED_SIZE),
                         keys.encryption().data() + IMB_DES_BLOCK_SIZE);
    } else if (suite.encryption == sa::Encryption::aes_gcm ||
               suite.integrity == sa::Integrity::aes_gmac) {
        const auto key =
            suite.encryption == sa::Encryption::aes_gcm ? keys.encryption() : keys.integrity();
        IMB_AES128_GCM_PRE(mb_, key.data(), reinterpret_cast<gcm_key_data*>(schedule.data()));
        std::memcpy(small_key.data(), keys.salt.reveal().data(), gcm_salt);
    }
}

void MbEngine::open(sa::Suite suite, std::span<CryptoJob> jobs) {
    if (suite.encryption == sa::Encryption::aes_gcm) {
        gcm(jobs, false);
        return;
    }
    if (suite.integrity == sa::Integrity::aes_gmac) {
        gmac(jobs, false);
        return;
    }
    hmac(suite.integrity, jobs);
    compare_hmac(jobs);
    cipher(suite.encryption, jobs, false);
}

void MbEngine::verify(sa::Suite suite, std::span<CryptoJob> jobs) {
    if (suite.encryption == sa::Encryption::aes_gcm) {
        gcm_verify(jobs);
    } else if (suite.integrity == sa::Integrity::aes_gmac) {
        gmac(jobs, false);
    } else {
        // Encrypt-then-MAC: the cipher need not run.
        hmac(suite.integrity, jobs);
        compare_hmac(jobs);
    }
}

void MbEngine::compare_hmac(std::span<CryptoJob> jobs) {
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        CryptoJob& job = jobs[i];
        // `ok` says so far that the hash was computed.
        job.ok = same_icv<hmac_icv>(tags_[i].data(), job.esp + job.length) && job.ok;
    }
}

void MbEngine::seal(sa::Suite suite, std::span<CryptoJob> jobs) {
    if (suite.encryption == sa::Encryption::aes_gcm) {
        gcm(jobs, true);
        return;
    }
    if (suite.integrity == sa::Integrity::aes_gmac) {
        gmac(jobs, true);
        return;
    }
    for (CryptoJob& job : jobs) job.ok = true;
    cipher(suite.encryption, jobs, true);
    // A packet whose cipher failed is dropped by the caller, whatever its hash.
    std::array<bool, max_jobs> ciphered;
    for (std::size_t i = 0; i < jobs.size(); ++i) ciphered[i] = jobs[i].ok;
    hmac(suite.integrity, jobs);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        std::memcpy(jobs[i].esp + jobs[i].length, tags_[i].data(), hmac_icv);
        jobs[i].ok = jobs[i].ok && ciphered[i];
    }
}

void MbEngine::hmac(sa::Integrity integrity, std::span<CryptoJob> jobs) {
    if (integrity == sa::Integrity::hmac_sha_1_96) {
        hmac_sha1(jobs);
    } else {
        hmac_md5(jobs);
    }
}

void MbEngine::hmac_sha1(std::span<CryptoJob> jobs) {
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        IMB_JOB& hash = hash_jobs_[i];
        hash.src = jobs[i].esp;
        hash.hash_start_src_offset_in_bytes = 0;
        hash.msg_len_to_hash_in_bytes = jobs[i].length;
        hash.u.HMAC._hashed_auth_key_xor_ipad = jobs[i].small_key;
        hash.u.HMAC._hashed_auth_key_xor_opad = jobs[i].small_key + opad_at;
    }
    const auto count = static_cast<std::uint32_t>(jobs.size());
    IMB_SUBMIT_HASH_BURST_NOCHECK(mb_, hash_jobs_.data(), count, IMB_AUTH_HMAC_SHA_1);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        jobs[i].ok = (hash_jobs_[i].status & IMB_STATUS_COMPLETED_AUTH) != 0;
    }
}

// All jobs of burst_[0, count) are done when it returns; each marks its CryptoJob (user_data) as
// ok.
void MbEngine::run_burst(std::uint32_t count) {
    std::uint32_t done = IMB_SUBMIT_BURST(mb_, count, burst_.data());
    std::uint32_t total = 0;
    const auto mark = [&](std::span<IMB_JOB*> jobs) {
        for (IMB_JOB* job : jobs) {
            static_cast<CryptoJob*>(job->user_data)->ok = job->status == IMB_STATUS_COMPLETED;
        }
        total += static_cast<std::uint32_t>(jobs.size());
    };
    if (done == 0 && imb_get_errno(mb_) != 0) return;
    mark({burst_.data(), done});
    while (total < count) {
        done = IMB_FLUSH_BURST(mb_, count - total, done_.data());
        if (done == 0) return;
        mark({done_.data(), done});
    }
}

void MbEngine::hmac_md5(std::span<CryptoJob> jobs) {
    const auto count = static_cast<std::uint32_t>(jobs.size());
    for (CryptoJob& job : jobs) job.ok = false;
    // The queue is empty between calls, so it always has room for max_jobs.
    if (IMB_GET_NEXT_BURST(mb_, count, burst_.data()) != count) return;
    for (std::size_t i = 0; i < count; ++i) {
        IMB_JOB& hash = *burst_[i];
        hash.cipher_mode = IMB_CIPHER_NULL;
        hash.cipher_direction = IMB_DIR_ENCRYPT;
        hash.hash_alg = IMB_AUTH_MD5;
        hash.chain_order = IMB_ORDER_HASH_CIPHER;
        hash.src = jobs[i].esp;
        hash.hash_start_src_offset_in_bytes = 0;
        hash.msg_len_to_hash_in_bytes = jobs[i].length;
        hash.msg_len_to_cipher_in_bytes = 0;
        hash.u.HMAC._hashed_auth_key_xor_ipad = jobs[i].small_key;
        hash.u.HMAC._hashed_auth_key_xor_opad = jobs[i].small_key + opad_at;
        hash.auth_tag_output = tags_[i].data();
        hash.auth_tag_output_len_in_bytes = hmac_icv;
        hash.user_data = &jobs[i];
    }
    run_burst(count);
}

void MbEngine::cipher(sa::Encryption encryption, std::span<CryptoJob> jobs, bool encrypt) {
    if (encryption == sa::Encryption::aes_cbc) {
        cbc(jobs, encrypt);
    } else if (encryption == sa::Encryption::des_ede3_cbc) {
        des3(jobs, encrypt);
    }
}

void MbEngine::cbc(std::span<CryptoJob> jobs, bool encrypt) {
    std::uint32_t count = 0;
    for (CryptoJob& job : jobs) {
        if (!job.ok) continue;
        to_cipher_[count] = &job;
        IMB_JOB& aes = cipher_jobs_[count++];
        aes.cipher_direction = encrypt ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
        aes.chain_order = encrypt ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
        aes.enc_keys = job.schedule;
        aes.dec_keys = job.schedule + cbc_schedule;
        aes.iv = job.esp + 8;
        aes.src = job.esp;
        aes.cipher_start_src_offset_in_bytes = 8 + cbc_iv;
        aes.dst = job.esp + 8 + cbc_iv;
        aes.msg_len_to_cipher_in_bytes = job.length - 8 - cbc_iv;
    }
    if (count == 0) return;
    IMB_SUBMIT_CIPHER_BURST_NOCHECK(mb_, cipher_jobs_.data(), count, IMB_CIPHER_CBC,
                                    encrypt ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT, IMB_KEY_128_BYTES);
    for (std::uint32_t i = 0; i < count; ++i) {
        to_cipher_[i]->ok = (cipher_jobs_[i].status & IMB_STATUS_COMPLETED_CIPHER) != 0;
    }
}

void MbEngine::des3(std::span<CryptoJob> jobs, bool encrypt) {
    std::uint32_t count = 0;
    for (CryptoJob& job : jobs) {
        if (job.ok) to_cipher_[count++] = &job;
    }
    if (count == 0) return;
    for (std::uint32_t i = 0; i < count; ++i) to_cipher_[i]->ok = false;
    if (IMB_GET_NEXT_BURST(mb_, count, burst_.data()) != count) return;
    for (std::uint32_t i = 0; i < count; ++i) {
        const CryptoJob& job = *to_cipher_[i];
        const std::uint8_t* first = job.schedule;
        des_keys_[i] = {first, first + IMB_DES_KEY_SCHED_SIZE, first};
        IMB_JOB& des = *burst_[i];
        des.cipher_mode = IMB_CIPHER_DES3;
        des.hash_alg = IMB_AUTH_NULL;
        des.cipher_direction = encrypt ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
        des.chain_order = encrypt ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
        des.enc_keys = des_keys_[i].data();
        des.dec_keys = des_keys_[i].data();
        des.key_len_in_bytes = 24;
        des.iv = job.esp + 8;
        des.iv_len_in_bytes = des_iv;
        des.src = job.esp;
        des.cipher_start_src_offset_in_bytes = 8 + des_iv;
        des.dst = job.esp + 8 + des_iv;
        des.msg_len_to_cipher_in_bytes = job.length - 8 - des_iv;
        des.user_data = to_cipher_[i];
    }
    run_burst(count);
}

void MbEngine::gcm(std::span<CryptoJob> jobs, bool encrypt) {
    gcm_context_data context;
    for (std::size_t i = 0; i < std::min(gcm_ahead, jobs.size()); ++i) prefetch_gcm(jobs[i]);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        if (i + gcm_ahead < jobs.size()) prefetch_gcm(jobs[i + gcm_ahead]);
        CryptoJob& job = jobs[i];
        const Nonce nonce = nonce_of(job);
        std::uint8_t* payload = job.esp + 8 + gcm_iv;
        const std::uint64_t size = job.length - 8 - gcm_iv;
        // RFC 4106: the additional data are SPI and sequence number.
        if (encrypt) {
            IMB_AES128_GCM_ENC(mb_, gcm_key(job), &context, payload, payload, size, nonce.data(),
                               job.esp, 8, job.esp + job.length, aead_icv);
            job.ok = true;
        } else {
            IMB_AES128_GCM_DEC(mb_, gcm_key(job), &context, payload, payload, size, nonce.data(),
                               job.esp, 8, tags_[i].data(), aead_icv);
            job.ok = same_icv<aead_icv>(tags_[i].data(), job.esp + job.length);
        }
    }
    wipe(std::span<std::uint8_t>(reinterpret_cast<std::uint8_t*>(&context), sizeof(context)));
}

// GCM's tag is GMAC's but for the last block of GHASH, the lengths: with H the hash key, the tag
// over (additional data, padded ‖ ciphertext) taken as additional data alone differs from GCM's by
// (the two length blocks XORed)·H. So the tag comes from GHASH of the ciphertext as it stands, and
// the packet is neither decrypted nor written (NIST SP 800-38D 7.1, 6.4).
void MbEngine::gcm_verify(std::span<CryptoJob> jobs) {
    constexpr std::size_t block = 16;
    constexpr std::uint32_t aad = 8;
    gcm_context_data context;
    for (std::size_t i = 0; i < std::min(gcm_ahead, jobs.size()); ++i) prefetch_gcm(jobs[i]);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        if (i + gcm_ahead < jobs.size()) prefetch_gcm(jobs[i + gcm_ahead]);
        CryptoJob& job = jobs[i];
        const Nonce nonce = nonce_of(job);
        const auto size = static_cast<std::uint32_t>(job.length - aad - gcm_iv);
        std::array<std::uint8_t, block> first{};
        std::memcpy(first.data(), job.esp, aad);
        std::uint8_t* tag = tags_[i].data();
        IMB_AES128_GMAC_INIT(mb_, gcm_key(job), &context, nonce.data(), nonce.size());
        IMB_AES128_GMAC_UPDATE(mb_, gcm_key(job), &context, first.data(), first.size());
        IMB_AES128_GMAC_UPDATE(mb_, gcm_key(job), &context, job.esp + aad + gcm_iv, size);
        IMB_AES128_GMAC_FINALIZE(mb_, gcm_key(job), &context, tag, aead_icv);
        // Two counts of bits, 64 each; a packet has less than 2^32 of them.
        std::array<std::uint8_t, block> lengths{};
        store_be32(lengths.data() + 4, static_cast<std::uint32_t>(8 * (block + size)) ^ (8 * aad));
        store_be32(lengths.data() + 12, 8 * size);
        std::array<std::uint8_t, block> difference{};
        IMB_GHASH(mb_, gcm_key(job), lengths.data(), block, difference.data(), block);
        for (std::size_t n = 0; n < aead_icv; ++n) tag[n] ^= difference[n];
        job.ok = same_icv<aead_icv>(tag, job.esp + job.length);
    }
    wipe(std::span<std::uint8_t>(reinterpret_cast<std::uint8_t*>(&context), sizeof(context)));
}

void MbEngine::gmac(std::span<CryptoJob> jobs, bool write) {
    gcm_context_data context;
    for (std::size_t i = 0; i < std::min(gcm_ahead, jobs.size()); ++i) prefetch_gcm(jobs[i]);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        if (i + gcm_ahead < jobs.size()) prefetch_gcm(jobs[i + gcm_ahead]);
        CryptoJob& job = jobs[i];
        const Nonce nonce = nonce_of(job);
        // RFC 4543: all from SPI to trailer is additional data, the IV included.
        IMB_AES128_GMAC_INIT(mb_, gcm_key(job), &context, nonce.data(), nonce.size());
        IMB_AES128_GMAC_UPDATE(mb_, gcm_key(job), &context, job.esp, job.length);
        std::uint8_t* tag = write ? job.esp + job.length : tags_[i].data();
        IMB_AES128_GMAC_FINALIZE(mb_, gcm_key(job), &context, tag, aead_icv);
        job.ok = write || same_icv<aead_icv>(tag, job.esp + job.length);
    }
    wipe(std::span<std::uint8_t>(reinterpret_cast<std::uint8_t*>(&context), sizeof(context)));
}

}  // namespace gmgate::dataplane
