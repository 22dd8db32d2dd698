#include "tests/unit/dataplane_dpdk/reference_esp.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdlib>
#include <memory>

#include "base/bytes.h"

namespace gmgate::dataplane::test {
namespace {

struct Free {
    void operator()(EVP_CIPHER_CTX* p) const { EVP_CIPHER_CTX_free(p); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, Free>;

void must(int result) {
    if (result != 1) std::abort();
}

std::uint32_t sum_words(const Octets& bytes, std::size_t from, std::size_t to, std::uint32_t sum) {
    for (std::size_t i = from; i < to; i += 2) {
        sum += static_cast<std::uint32_t>(bytes[i] << 8U);
        if (i + 1 < to) sum += bytes[i + 1];
    }
    while (sum > 0xFFFF) sum = (sum & 0xFFFFU) + (sum >> 16U);
    return sum;
}

std::uint32_t transport_sum(const Octets& f, bool v6) {
    const std::size_t l4 = v6 ? 54 : 34;
    std::uint32_t sum = sum_words(f, v6 ? 22 : 26, l4, f[v6 ? 20 : 23]);
    sum += static_cast<std::uint32_t>(f.size() - l4);
    return sum_words(f, l4, f.size(), sum);
}

}  // namespace

ReferenceEsp::ReferenceEsp(sa::Suite suite, const sa::AkaKey& ck, const sa::AkaKey& ik)
    : suite_(suite), keys_(sa::expand_keys(suite, ck, ik)) {}

Octets ReferenceEsp::tag(const Octets& authenticated) const {
    unsigned size = 0;
    Octets out(EVP_MAX_MD_SIZE);
    const EVP_MD* md = suite_.integrity == sa::Integrity::hmac_md5_96 ? EVP_md5() : EVP_sha1();
    if (HMAC(md, keys_.integrity().data(), static_cast<int>(keys_.integrity().size()),
             authenticated.data(), authenticated.size(), out.data(), &size) == nullptr) {
        std::abort();
    }
    out.resize(12);
    return out;
}

Octets ReferenceEsp::cbc(const Octets& iv, const Octets& in, bool encrypt) const {
    const Context c(EVP_CIPHER_CTX_new());
    const EVP_CIPHER* cipher =
        suite_.encryption == sa::Encryption::aes_cbc ? EVP_aes_128_cbc() : EVP_des_ede3_cbc();
    must(EVP_CipherInit_ex(c.get(), cipher, nullptr, keys_.encryption().data(), iv.data(),
                           encrypt ? 1 : 0));
    must(EVP_CIPHER_CTX_set_padding(c.get(), 0));
    Octets out(in.size() + 32);
    int size = 0;
    must(EVP_CipherUpdate(c.get(), out.data(), &size, in.data(), static_cast<int>(in.size())));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

std::optional<Octets> ReferenceEsp::aead(const Octets& head, const Octets& body, const Octets& icv,
                                         bool encrypt) const {
    const bool gcm = suite_.encryption == sa::Encryption::aes_gcm;
    const auto key = gcm ? keys_.encryption() : keys_.integrity();
    Octets nonce(keys_.salt.reveal().begin(), keys_.salt.reveal().end());
    nonce.insert(nonce.end(), head.begin() + 8, head.end());
    const Context c(EVP_CIPHER_CTX_new());
    must(EVP_CipherInit_ex(c.get(), EVP_aes_128_gcm(), nullptr, key.data(), nonce.data(),
                           encrypt ? 1 : 0));
    int size = 0;
    Octets out = body;
    if (gcm) {
        must(EVP_CipherUpdate(c.get(), nullptr, &size, head.data(), 8));
        must(EVP_CipherUpdate(c.get(), out.data(), &size, body.data(),
                              static_cast<int>(body.size())));
    } else {
        must(EVP_CipherUpdate(c.get(), nullptr, &size, head.data(), static_cast<int>(head.size())));
        must(EVP_CipherUpdate(c.get(), nullptr, &size, body.data(), static_cast<int>(body.size())));
    }
    Octets rest(16);
    if (!encrypt) {
        Octets expected = icv;
        must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_AEAD_SET_TAG, 16, expected.data()));
        if (EVP_CipherFinal_ex(c.get(), rest.data(), &size) != 1) return std::nullopt;
        return out;
    }
    must(EVP_CipherFinal_ex(c.get(), rest.data(), &size));
    must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_AEAD_GET_TAG, 16, rest.data()));
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
}

Octets ReferenceEsp::pad(Octets payload, std::uint8_t next_header) const {
    const std::size_t block = sa::block_size(suite_);
    std::uint8_t n = 0;
    while ((payload.size() + 2) % block != 0) payload.push_back(++n);
    payload.push_back(n);
    payload.push_back(next_header);
    return payload;
}

Octets ReferenceEsp::seal(std::uint32_t spi, std::uint32_t sequence,
                          const Octets& cleartext) const {
    Octets head(8);
    store_be32(&head[0], spi);
    store_be32(&head[4], sequence);
    Octets iv;
    for (std::size_t i = 0; i < sa::iv_size(suite_); ++i)
        iv.push_back(static_cast<std::uint8_t>(i + sequence - 1));
    head.insert(head.end(), iv.begin(), iv.end());
    if (is_aead()) {
        const Octets body = *aead(head, cleartext, {}, true);
        head.insert(head.end(), body.begin(), body.end());
        return head;
    }
    const Octets body =
        suite_.encryption == sa::Encryption::null ? cleartext : cbc(iv, cleartext, true);
    head.insert(head.end(), body.begin(), body.end());
    const Octets icv = tag(head);
    head.insert(head.end(), icv.begin(), icv.end());
    return head;
}

Octets ReferenceEsp::seal_payload(std::uint32_t spi, std::uint32_t sequence, const Octets& payload,
                                  std::uint8_t next_header) const {
    return seal(spi, sequence, pad(payload, next_header));
}

std::optional<Octets> ReferenceEsp::open(const Octets& esp) const {
    const auto icv_size = static_cast<std::ptrdiff_t>(sa::icv_size(suite_));
    const auto head_size = static_cast<std::ptrdiff_t>(8 + sa::iv_size(suite_));
    const Octets head(esp.begin(), esp.begin() + head_size);
    const Octets body(esp.begin() + head_size, esp.end() - icv_size);
    const Octets icv(esp.end() - icv_size, esp.end());
    if (is_aead()) return aead(head, body, icv, false);
    if (tag(Octets(esp.begin(), esp.end() - icv_size)) != icv) return std::nullopt;
    if (suite_.encryption == sa::Encryption::null) return body;
    return cbc(Octets(head.begin() + 8, head.end()), body, false);
}

Octets ReferenceEsp::protect(const Octets& frame, std::uint32_t spi, std::uint32_t sequence) const {
    const bool v6 = frame[12] == 0x86;
    const std::ptrdiff_t l4 = v6 ? 54 : 34;
    Octets out(frame.begin(), frame.begin() + l4);
    const std::uint8_t next_header = out[v6 ? 20 : 23];
    const Octets esp =
        seal_payload(spi, sequence, Octets(frame.begin() + l4, frame.end()), next_header);
    out[v6 ? 20 : 23] = 50;
    out.insert(out.end(), esp.begin(), esp.end());
    if (v6) {
        store_be16(&out[18], static_cast<std::uint16_t>(out.size() - 54));
    } else {
        store_be16(&out[16], static_cast<std::uint16_t>(out.size() - 14));
        store_be16(&out[24], 0);
        store_be16(&out[24], static_cast<std::uint16_t>(~sum_words(out, 14, 34, 0)));
    }
    return out;
}

std::optional<Octets> ReferenceEsp::unprotect(const Octets& frame) const {
    const bool v6 = frame[12] == 0x86;
    const std::ptrdiff_t l4 = v6 ? 54 : 34;
    if (frame[v6 ? 20 : 23] != 50) return std::nullopt;
    auto clear = open(Octets(frame.begin() + l4, frame.end()));
    if (!clear) return std::nullopt;
    const std::uint8_t next_header = clear->back();
    const std::size_t padding = (*clear)[clear->size() - 2];
    for (std::size_t i = 0; i < padding; ++i) {
        if ((*clear)[clear->size() - 2 - padding + i] != i + 1) return std::nullopt;
    }
    clear->resize(clear->size() - 2 - padding);
    Octets out(frame.begin(), frame.begin() + l4);
    out[v6 ? 20 : 23] = next_header;
    out.insert(out.end(), clear->begin(), clear->end());
    if (v6) {
        store_be16(&out[18], static_cast<std::uint16_t>(out.size() - 54));
    } else {
        store_be16(&out[16], static_cast<std::uint16_t>(out.size() - 14));
        store_be16(&out[24], 0);
        store_be16(&out[24], static_cast<std::uint16_t>(~sum_words(out, 14, 34, 0)));
    }
    return out;
}

Octets plain_frame(const Flow& flow, std::size_t data) {
    const std::size_t l4 = flow.v6 ? 54 : 34;
    const std::size_t transport = flow.tcp ? 20 : 8;
    Octets f(l4 + transport + data);
    for (std::size_t i = 0; i < 12; ++i) f[i] = static_cast<std::uint8_t>(0x10 + i);
    const auto length = static_cast<std::uint16_t>(f.size() - l4);
    if (flow.v6) {
        store_be16(&f[12], 0x86DD);
        f[14] = 0x60;
        store_be16(&f[18], length);
        f[20] = flow.tcp ? 6 : 17;
        f[21] = 64;
        std::copy(flow.source.begin(), flow.source.end(), f.begin() + 22);
        std::copy(flow.destination.begin(), flow.destination.end(), f.begin() + 38);
    } else {
        store_be16(&f[12], 0x0800);
        f[14] = 0x45;
        store_be16(&f[16], static_cast<std::uint16_t>(f.size() - 14));
        f[22] = 61;
        f[23] = flow.tcp ? 6 : 17;
        std::copy(flow.source.begin(), flow.source.end(), f.begin() + 26);
        std::copy(flow.destination.begin(), flow.destination.end(), f.begin() + 30);
        set_ipv4_checksum(f);
    }
    store_be16(&f[l4], flow.source_port);
    store_be16(&f[l4 + 2], flow.destination_port);
    if (flow.tcp) {
        f[l4 + 12] = 0x50;
    } else {
        store_be16(&f[l4 + 4], length);
    }
    for (std::size_t i = l4 + transport; i < f.size(); ++i) f[i] = static_cast<std::uint8_t>(i * 7);
    std::uint8_t* field = &f[l4 + (flow.tcp ? 16 : 6)];
    auto checksum = static_cast<std::uint16_t>(~transport_sum(f, flow.v6));
    if (checksum == 0) checksum = 0xFFFF;
    store_be16(field, checksum);
    return f;
}

void set_ipv4_checksum(Octets& frame, std::size_t header) {
    store_be16(&frame[24], 0);
    store_be16(&frame[24], static_cast<std::uint16_t>(~sum_words(frame, 14, 14 + header, 0)));
}

bool is_sound(const Octets& f) {
    if (f.size() < 42) return false;
    const bool v6 = f[12] == 0x86;
    if (v6) {
        if (load_be16(&f[18]) != f.size() - 54) return false;
    } else if (load_be16(&f[16]) != f.size() - 14 || sum_words(f, 14, 34, 0) != 0xFFFF) {
        return false;
    }
    return transport_sum(f, v6) == 0xFFFF;
}

}  // namespace gmgate::dataplane::test
