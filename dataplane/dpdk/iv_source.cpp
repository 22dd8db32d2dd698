#include "dataplane/dpdk/iv_source.h"

#include <cstring>
#include <stdexcept>

#include "base/secret.h"

namespace gmgate::dataplane {

IvSource::IvSource(Random& random) : context_(EVP_CIPHER_CTX_new()) {
    std::array<std::uint8_t, 32> seed{};
    random.fill(seed);
    const bool ready = context_ && EVP_EncryptInit_ex(context_.get(), EVP_aes_128_ctr(), nullptr,
                                                      seed.data(), seed.data() + 16) == 1;
    wipe(seed);
    if (!ready) throw std::runtime_error("OpenSSL: AES-128-CTR is not available");
}

IvSource::~IvSource() {
    wipe(pool_);
}

void IvSource::fill(std::uint8_t* out, std::size_t size) {
    if (sizeof(pool_) - used_ < size) {
        int written = 0;
        // The old key stream as input: encrypting with a stream cipher is XOR, so the new pool
        // depends on both.
        (void)EVP_EncryptUpdate(context_.get(), pool_.data(), &written, pool_.data(),
                                static_cast<int>(sizeof(pool_)));
        used_ = 0;
    }
    std::memcpy(out, pool_.data() + used_, size);
    used_ += size;
}

}  // namespace gmgate::dataplane
