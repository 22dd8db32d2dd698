#include "sa/kernel/suites.h"

#include <cstring>

namespace gmgate::kernel {

namespace {

bool is_aead(sa::Suite suite) {
    return suite.encryption == sa::Encryption::aes_gcm ||
           suite.integrity == sa::Integrity::aes_gmac;
}

}  // namespace

SuiteKeys::SuiteKeys(sa::Suite suite, const sa::AkaKey& ck, const sa::AkaKey& ik)
    : suite_(suite), keys_(sa::expand_keys(suite, ck, ik)) {
    if (!is_aead(suite)) return;
    const auto key =
        suite.encryption == sa::Encryption::aes_gcm ? keys_.encryption() : keys_.integrity();
    const auto salt = keys_.salt.reveal();
    auto* to = aead_.writable().data();
    std::memcpy(to, key.data(), 16);
    std::memcpy(to + 16, salt.data(), salt.size());
}

void SuiteKeys::fill(State& state) const {
    if (is_aead(suite_)) {
        const bool gcm = suite_.encryption == sa::Encryption::aes_gcm;
        state.aead =
            Algorithm{gcm ? "rfc4106(gcm(aes))" : "rfc4543(gcm(aes))", aead_.reveal(), 128};
        return;
    }
    const bool sha1 = suite_.integrity == sa::Integrity::hmac_sha_1_96;
    state.auth = Algorithm{sha1 ? "hmac(sha1)" : "hmac(md5)", keys_.integrity(), 96};
    switch (suite_.encryption) {
        case sa::Encryption::aes_cbc:
            state.crypt = Algorithm{"cbc(aes)", keys_.encryption(), 0};
            break;
        case sa::Encryption::des_ede3_cbc:
            state.crypt = Algorithm{"cbc(des3_ede)", keys_.encryption(), 0};
            break;
        case sa::Encryption::null:
        case sa::Encryption::aes_gcm:
            state.crypt = Algorithm{"ecb(cipher_null)", {}, 0};
            break;
    }
}

std::string modules(sa::Suite suite, bool v6) {
    std::string out = v6 ? "esp6" : "esp4";
    if (is_aead(suite)) return out + " gcm ghash_generic ctr seqiv aes_generic";
    out += " authenc hmac";
    out += suite.integrity == sa::Integrity::hmac_sha_1_96 ? " sha1_generic" : " md5";
    switch (suite.encryption) {
        case sa::Encryption::aes_cbc:
            return out + " cbc echainiv aes_generic";
        case sa::Encryption::des_ede3_cbc:
            return out + " cbc echainiv des_generic";
        case sa::Encryption::null:
        case sa::Encryption::aes_gcm:
            break;
    }
    return out + " crypto_null";
}

}  // namespace gmgate::kernel
