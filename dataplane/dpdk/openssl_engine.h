#pragma once
// OpenSSL behind the same interface, for CPUs without what libIPSec_MB needs. One packet at a time.

#include <openssl/evp.h>

#include <memory>

#include "dataplane/dpdk/crypto_engine.h"

namespace gmgate::dataplane {

// Small key, raw keys: AEAD key (16) and salt (4); or integrity key (20, zero-filled) and cipher
// key (16: of the 3DES key the third part equals the first). No schedules: they are expanded at
// each packet, which is why this is the second choice. Nothing is allocated after construction.
class OpensslEngine final : public CryptoEngine {
  public:
    OpensslEngine();  // throws std::runtime_error
    ~OpensslEngine() override;
    OpensslEngine(const OpensslEngine&) = delete;
    OpensslEngine& operator=(const OpensslEngine&) = delete;

    [[nodiscard]] std::string_view name() const override { return "openssl"; }
    [[nodiscard]] std::size_t schedule_size(sa::Suite) const override { return 0; }
    void expand(sa::Suite suite, const sa::EspKeys& keys,
                std::span<std::uint8_t, small_key_size> small_key,
                std::span<std::uint8_t> schedule) override;
    void open(sa::Suite suite, std::span<CryptoJob> jobs) override;
    void verify(sa::Suite suite, std::span<CryptoJob> jobs) override;
    void seal(sa::Suite suite, std::span<CryptoJob> jobs) override;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::dataplane
