#pragma once
// CK and IK of the AKA run → the keys of ESP (TS 33.203 Annex I; A10).

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/secret.h"
#include "sa/algorithms/suite.h"

namespace gmgate::sa {

using AkaKey = Secret<16>;  // CK or IK

// Keys as the ESP transforms take them. Unused parts have size 0. Wiped with the object.
struct EspKeys {
    Secret<20> integrity_storage;
    Secret<24> encryption_storage;
    std::size_t integrity_size = 0;   // 16 (md5, gmac) or 20 (sha1)
    std::size_t encryption_size = 0;  // 16 (aes) or 24 (3des)
    Secret<4> salt;                   // aes-gmac and aes-gcm

    [[nodiscard]] std::span<const std::uint8_t> integrity() const {
        return integrity_storage.reveal().first(integrity_size);
    }
    [[nodiscard]] std::span<const std::uint8_t> encryption() const {
        return encryption_storage.reveal().first(encryption_size);
    }
};

// The same keys serve all four SAs of a set (A2). `suite` must be valid.
[[nodiscard]] EspKeys expand_keys(Suite suite, const AkaKey& ck, const AkaKey& ik);

}  // namespace gmgate::sa
