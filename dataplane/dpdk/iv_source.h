#pragma once
// Unpredictable IVs for the CBC suites: AES-128-CTR under a random key of the worker's own, a few
// KiB at a time. No system call.

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/random.h"

namespace gmgate::dataplane {

class IvSource {
  public:
    explicit IvSource(Random& random);  // throws std::runtime_error
    ~IvSource();
    IvSource(const IvSource&) = delete;
    IvSource& operator=(const IvSource&) = delete;

    // size <= 16.
    void fill(std::uint8_t* out, std::size_t size);

  private:
    struct Free {
        void operator()(EVP_CIPHER_CTX* p) const { EVP_CIPHER_CTX_free(p); }
    };
    std::unique_ptr<EVP_CIPHER_CTX, Free> context_;
    std::array<std::uint8_t, 4096> pool_{};
    std::size_t used_ = sizeof(pool_);
};

}  // namespace gmgate::dataplane
