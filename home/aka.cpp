#include "home/aka.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <stdexcept>

#include "base/bytes.h"

namespace gmgate::home {

Sqn::Sqn(const Sqn48& octets) {
    for (const auto b : octets) value_ = (value_ << 8U) | b;
}

Sqn48 Sqn::octets() const {
    Sqn48 out{};
    for (unsigned i = 0; i < 6; ++i) out[i] = static_cast<std::uint8_t>(value_ >> (8 * (5 - i)));
    return out;
}

std::optional<Sqn> Sqn::next() const {
    constexpr std::uint64_t seq_max = max >> ind_bits;
    if (seq() >= seq_max) return std::nullopt;
    constexpr std::uint64_t ind_mask = (1ULL << ind_bits) - 1;
    return Sqn(((seq() + 1) << ind_bits) | ((ind() + 1) & ind_mask));
}

AuthVector make_vector(Milenage& milenage, const Rand& rand, Sqn sqn, const Amf& amf) {
    AuthVector v;
    v.rand = rand;
    auto keys = milenage.f2345(rand);
    const auto sqn_octets = sqn.octets();
    const auto mac = milenage.f1(rand, sqn_octets, amf).mac_a;
    for (std::size_t i = 0; i < 6; ++i) {
        v.autn[i] = static_cast<std::uint8_t>(sqn_octets[i] ^ keys.ak[i]);
    }
    std::ranges::copy(amf, v.autn.begin() + 6);
    std::ranges::copy(mac, v.autn.begin() + 8);
    v.xres = std::move(keys.res);
    v.ck = std::move(keys.ck);
    v.ik = std::move(keys.ik);
    return v;
}

std::optional<Sqn> verify_auts(Milenage& milenage, const Rand& rand, const Auts& auts) {
    const auto ak = milenage.f5_star(rand);
    Sqn48 sqn_ms{};
    for (std::size_t i = 0; i < 6; ++i) sqn_ms[i] = static_cast<std::uint8_t>(auts[i] ^ ak[i]);
    // TS 33.102 6.3.3: the AMF of a resynchronisation is the dummy value of all zeros.
    const auto expected = milenage.f1(rand, sqn_ms, Amf{}).mac_s;
    if (!equal_constant_time(expected, std::span(auts).subspan(6))) return std::nullopt;
    return Sqn(sqn_ms);
}

std::string make_nonce(const AuthVector& vector) {
    std::array<std::uint8_t, 32> joined{};
    std::ranges::copy(vector.rand, joined.begin());
    std::ranges::copy(vector.autn, joined.begin() + 16);
    return to_base64(joined);
}

struct DigestCalculator::Context {
    EVP_MD* md5 = EVP_MD_fetch(nullptr, "MD5", nullptr);
    EVP_MD_CTX* ctx = EVP_MD_CTX_new();

    Context() {
        if (md5 == nullptr || ctx == nullptr) {
            release();
            throw std::runtime_error(
                "OpenSSL offers no MD5 (FIPS mode?): Digest AKAv1-MD5 cannot work");
        }
    }
    ~Context() { release(); }
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    void release() {
        EVP_MD_CTX_free(ctx);
        EVP_MD_free(md5);
    }

    std::array<std::uint8_t, 16> hash(std::initializer_list<std::string_view> parts) {
        std::array<std::uint8_t, 16> out{};
        bool ok = EVP_DigestInit_ex2(ctx, md5, nullptr) == 1;
        for (const auto part : parts)
            ok = ok && EVP_DigestUpdate(ctx, part.data(), part.size()) == 1;
        ok = ok && EVP_DigestFinal_ex(ctx, out.data(), nullptr) == 1;
        if (!ok) throw std::runtime_error("OpenSSL refuses MD5");
        return out;
    }
};

DigestCalculator::DigestCalculator() : context_(std::make_unique<Context>()) {}
DigestCalculator::~DigestCalculator() = default;

namespace {
std::array<char, 32> hex_digits(std::span<const std::uint8_t, 16> bytes) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::array<char, 32> out{};
    for (std::size_t i = 0; i < 16; ++i) {
        out[2 * i] = digits[bytes[i] >> 4U];
        out[2 * i + 1] = digits[bytes[i] & 15U];
    }
    return out;
}

std::string_view text(const std::array<char, 32>& a) {
    return {a.data(), a.size()};
}
}  // namespace

Secret<16> DigestCalculator::ha1(std::string_view username, std::string_view realm,
                                 const Secret<8>& res) {
    auto hash = context_->hash({username, ":", realm, ":", as_text(res.reveal())});
    Secret<16> result{std::span<const std::uint8_t, 16>(hash)};
    wipe(hash);
    return result;
}

std::optional<std::array<char, 32>> DigestCalculator::response(const Secret<16>& ha1,
                                                               const DigestAnswer& answer,
                                                               std::string_view method,
                                                               std::string_view body) {
    std::array<char, 32> ha2{};
    if (answer.qop.empty() || iequals(answer.qop, "auth")) {
        ha2 = hex_digits(context_->hash({method, ":", answer.uri}));
    } else if (iequals(answer.qop, "auth-int")) {
        const auto body_hash = hex_digits(context_->hash({body}));
        ha2 = hex_digits(context_->hash({method, ":", answer.uri, ":", text(body_hash)}));
    } else {
        return std::nullopt;
    }
    auto a1 = hex_digits(ha1.reveal());
    const auto digest = answer.qop.empty()
                            ? context_->hash({text(a1), ":", answer.nonce, ":", text(ha2)})
                            : context_->hash({text(a1), ":", answer.nonce, ":", answer.nc, ":",
                                              answer.cnonce, ":", answer.qop, ":", text(ha2)});
    wipe(a1);
    return hex_digits(digest);
}

bool DigestCalculator::verify(const Secret<16>& ha1, const DigestAnswer& answer,
                              std::string_view method, std::string_view body) {
    std::array<std::uint8_t, 16> given{};
    if (answer.response.size() != 32 || !from_hex(answer.response, given)) return false;
    if (!answer.qop.empty() && (answer.nc.empty() || answer.cnonce.empty())) return false;
    const auto expected = response(ha1, answer, method, body);
    if (!expected) return false;
    std::array<std::uint8_t, 16> wanted{};
    return from_hex(text(*expected), wanted) && equal_constant_time(given, wanted);
}

}  // namespace gmgate::home
