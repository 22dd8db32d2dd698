#pragma once
// libIPSec_MB called directly: many packets in the lanes of one manager, each under its own key.

#include <array>
#include <cstdint>

#include <intel-ipsec-mb.h>

#include "base/secret.h"
#include "dataplane/dpdk/crypto_engine.h"

namespace gmgate::dataplane {

// Small key: HMAC inner and outer state (20 octets each, MD5 uses 16), or the salt in its first 4
// octets. Schedule: AES-CBC encryption and decryption schedule; 3DES two DES schedules (key 3 = key
// 1); AES-GCM/GMAC gcm_key_data.
class MbEngine final : public CryptoEngine {
  public:
    MbEngine();  // throws std::runtime_error
    ~MbEngine() override;
    MbEngine(const MbEngine&) = delete;
    MbEngine& operator=(const MbEngine&) = delete;

    [[nodiscard]] static bool supported();

    [[nodiscard]] std::string_view name() const override { return "ipsec-mb"; }
    [[nodiscard]] std::size_t schedule_size(sa::Suite suite) const override;
    void expand(sa::Suite suite, const sa::EspKeys& keys,
                std::span<std::uint8_t, small_key_size> small_key,
                std::span<std::uint8_t> schedule) override;
    void open(sa::Suite suite, std::span<CryptoJob> jobs) override;
    void verify(sa::Suite suite, std::span<CryptoJob> jobs) override;
    void seal(sa::Suite suite, std::span<CryptoJob> jobs) override;

  private:
    static constexpr std::size_t tag_room = 20;

    // tags_[i] = HMAC-96 of jobs[i]; false where the library refused.
    void hmac(sa::Integrity integrity, std::span<CryptoJob> jobs);
    void hmac_sha1(std::span<CryptoJob> jobs);
    void hmac_md5(std::span<CryptoJob> jobs);
    void cipher(sa::Encryption encryption, std::span<CryptoJob> jobs, bool encrypt);
    void cbc(std::span<CryptoJob> jobs, bool encrypt);
    void des3(std::span<CryptoJob> jobs, bool encrypt);
    void gcm(std::span<CryptoJob> jobs, bool encrypt);
    void gcm_verify(std::span<CryptoJob> jobs);
    void gmac(std::span<CryptoJob> jobs, bool write);
    void compare_hmac(std::span<CryptoJob> jobs);
    void run_burst(std::uint32_t count);

    SecretPages pages_;  // the manager holds digests under way and pointers: nothing of it may
                         // reach a core dump
    IMB_MGR* mb_ = nullptr;
    std::array<IMB_JOB, max_jobs> hash_jobs_;
    std::array<IMB_JOB, max_jobs> cipher_jobs_;
    std::array<IMB_JOB*, max_jobs> burst_{};
    std::array<IMB_JOB*, max_jobs> done_{};
    std::array<std::array<const void*, 3>, max_jobs> des_keys_{};
    std::array<CryptoJob*, max_jobs> to_cipher_{};
    alignas(16) std::array<std::array<std::uint8_t, tag_room>, max_jobs> tags_{};
};

}  // namespace gmgate::dataplane
