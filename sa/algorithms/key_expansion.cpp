#include "sa/algorithms/key_expansion.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <bit>
#include <cstring>
#include <string_view>

namespace gmgate::sa {

namespace {

constexpr std::size_t aka_octets = 16;

// The generic KDF of TS 33.220 with key CK‖IK and one parameter, P0 = `label`, L0 its length: S =
// FC ‖ P0 ‖ L0. The salt is the last four octets of the result.
void derive_salt(std::uint8_t fc, std::string_view label, const AkaKey& ck, const AkaKey& ik,
                 Secret<4>& salt) {
    Secret<2 * aka_octets> key;
    std::memcpy(key.writable().data(), ck.reveal().data(), aka_octets);
    std::memcpy(key.writable().data() + aka_octets, ik.reveal().data(), aka_octets);

    std::array<std::uint8_t, 1 + 16 + 2> s{};
    s[0] = fc;
    std::memcpy(&s[1], label.data(), label.size());
    s[1 + label.size()] = 0;
    s[2 + label.size()] = static_cast<std::uint8_t>(label.size());

    Secret<32> digest;
    unsigned size = 0;
    HMAC(EVP_sha256(), key.reveal().data(), static_cast<int>(2 * aka_octets), s.data(),
         3 + label.size(), digest.writable().data(), &size);
    std::memcpy(salt.writable().data(), digest.reveal().data() + 28, 4);
}

// DES ignores the lowest bit of each octet; some implementations want it to make the parity odd.
void set_odd_parity(std::span<std::uint8_t> key) {
    for (std::uint8_t& octet : key) {
        const bool even = std::popcount(static_cast<unsigned>(octet & 0xFEU)) % 2 == 0;
        octet = static_cast<std::uint8_t>((octet & 0xFEU) | (even ? 1U : 0U));
    }
}

}  // namespace

EspKeys expand_keys(Suite suite, const AkaKey& ck, const AkaKey& ik) {
    EspKeys keys;

    switch (suite.integrity) {
        case Integrity::null:
            break;
        case Integrity::hmac_sha_1_96:
            keys.integrity_size = 20;  // IK ‖ 32 zero bits: the storage is zero
            break;
        case Integrity::hmac_md5_96:
        case Integrity::aes_gmac:
            keys.integrity_size = aka_octets;
            break;
    }
    if (keys.integrity_size != 0) {
        std::memcpy(keys.integrity_storage.writable().data(), ik.reveal().data(), aka_octets);
    }
    if (suite.integrity == Integrity::aes_gmac)
        derive_salt(0x58, "AES_GMAC_SALT", ck, ik, keys.salt);

    const auto encryption = keys.encryption_storage.writable();
    switch (suite.encryption) {
        case Encryption::null:
            break;
        case Encryption::aes_cbc:
        case Encryption::aes_gcm:
            keys.encryption_size = aka_octets;
            std::memcpy(encryption.data(), ck.reveal().data(), aka_octets);
            break;
        case Encryption::des_ede3_cbc:
            keys.encryption_size = 24;
            std::memcpy(encryption.data(), ck.reveal().data(), aka_octets);
            std::memcpy(encryption.data() + aka_octets, ck.reveal().data(), 8);  // CK1 ‖ CK2 ‖ CK1
            set_odd_parity(encryption);
            break;
    }
    if (suite.encryption == Encryption::aes_gcm)
        derive_salt(0x59, "AES_GCM_SALT", ck, ik, keys.salt);
    return keys;
}

}  // namespace gmgate::sa
