#include "dataplane/dpdk/crypto_engine.h"

#include "dataplane/dpdk/mb_engine.h"
#include "dataplane/dpdk/openssl_engine.h"

namespace gmgate::dataplane {

EngineKind best_engine() {
    return MbEngine::supported() ? EngineKind::ipsec_mb : EngineKind::openssl;
}

std::unique_ptr<CryptoEngine> make_engine(EngineKind kind) {
    if (kind == EngineKind::ipsec_mb) return std::make_unique<MbEngine>();
    return std::make_unique<OpensslEngine>();
}

}  // namespace gmgate::dataplane
