#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <charconv>
#include <stdexcept>

#include "base/bytes.h"
#include "home/subscribers.h"

namespace gmgate::home {

namespace {
// 16 octets of state each: 160 MB. A typing error should not take the machine.
constexpr std::uint64_t max_generated = 10'000'000;
constexpr std::uint64_t default_first_imsi = 1010000000001;  // 001 01 0000000001
constexpr unsigned default_digits = 15;
constexpr std::size_t min_seed = 8;

bool parse_decimal(std::string_view text, std::uint64_t& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size() && !text.empty();
}
}  // namespace

// HMAC-SHA-256 with the seed as its key; each use starts anew from the keyed state.
struct SubscriberRule::Mac {
    EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    EVP_MAC_CTX* ctx = mac == nullptr ? nullptr : EVP_MAC_CTX_new(mac);

    explicit Mac(std::span<const std::uint8_t> seed) {
        char digest[] = "SHA256";
        const OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
            OSSL_PARAM_construct_end()};
        if (ctx == nullptr || EVP_MAC_init(ctx, seed.data(), seed.size(), params) != 1) {
            release();
            throw std::runtime_error(
                "OpenSSL offers no HMAC-SHA-256: subscribers cannot be generated");
        }
    }
    ~Mac() { release(); }
    Mac(const Mac&) = delete;
    Mac& operator=(const Mac&) = delete;

    void release() {
        EVP_MAC_CTX_free(ctx);
        EVP_MAC_free(mac);
    }
};

SubscriberRule::SubscriberRule(std::unique_ptr<Mac> mac, std::string realm, std::uint64_t first,
                               unsigned digits, std::uint64_t count)
    : mac_(std::move(mac)),
      realm_(std::move(realm)),
      first_(first),
      digits_(digits),
      count_(count) {}
SubscriberRule::~SubscriberRule() = default;
SubscriberRule::SubscriberRule(SubscriberRule&&) noexcept = default;
SubscriberRule& SubscriberRule::operator=(SubscriberRule&&) noexcept = default;

Result<SubscriberRule> SubscriberRule::make(std::span<const std::uint8_t> seed, std::string realm,
                                            std::uint64_t first_imsi, unsigned imsi_digits,
                                            std::uint64_t count) {
    if (seed.size() < min_seed) {
        return fail(ErrorKind::invalid,
                    fmt::format("the seed has {} octets: give at least {} (hex digits: {})",
                                seed.size(), min_seed, 2 * min_seed));
    }
    if (realm.empty()) return fail(ErrorKind::invalid, "generated subscribers need a realm");
    if (imsi_digits == 0 || imsi_digits > 15) {
        return fail(ErrorKind::invalid,
                    fmt::format("an IMSI has 1 to 15 digits, not {}", imsi_digits));
    }
    if (count == 0 || count > max_generated) {
        return fail(ErrorKind::invalid,
                    fmt::format("{} generated subscribers: give a count from 1 to {}", count,
                                max_generated));
    }
    std::uint64_t limit = 1;
    for (unsigned i = 0; i < imsi_digits; ++i) limit *= 10;
    if (first_imsi >= limit || count > limit - first_imsi) {
        return fail(ErrorKind::invalid,
                    fmt::format("{} subscribers from {} do not fit into {} digits: start lower",
                                count, first_imsi, imsi_digits));
    }
    return SubscriberRule(std::make_unique<Mac>(seed), to_lower(realm), first_imsi, imsi_digits,
                          count);
}

Result<SubscriberRule> SubscriberRule::parse(std::string_view text,
                                             std::span<const std::uint8_t> seed,
                                             std::string realm) {
    const auto colon = text.find(':');
    const auto count_text = text.substr(0, colon);
    std::uint64_t count = 0;
    if (!parse_decimal(count_text, count)) {
        return fail(
            ErrorKind::invalid,
            fmt::format("'{}' is not a number of subscribers: write COUNT or COUNT:FIRST-IMSI, "
                        "e.g. 1000:001010000000001",
                        count_text));
    }
    std::uint64_t first = default_first_imsi;
    unsigned digits = default_digits;
    if (colon != std::string_view::npos) {
        const auto imsi_text = text.substr(colon + 1);
        if (imsi_text.size() > 15 || !parse_decimal(imsi_text, first)) {
            return fail(
                ErrorKind::invalid,
                fmt::format("'{}' is not an IMSI: write up to 15 digits, e.g. 001010000000001",
                            imsi_text));
        }
        digits = static_cast<unsigned>(imsi_text.size());
    }
    return make(seed, std::move(realm), first, digits, count);
}

std::uint64_t SubscriberRule::find_imsi(std::string_view digits) const {
    std::uint64_t value = 0;
    if (digits.size() != digits_ || !parse_decimal(digits, value)) return none;
    return value >= first_ && value - first_ < count_ ? value - first_ : none;
}

std::uint64_t SubscriberRule::find_impi(std::string_view impi) const {
    const auto at = impi.find('@');
    if (at == std::string_view::npos || !iequals(impi.substr(at + 1), realm_)) return none;
    return find_imsi(impi.substr(0, at));
}

std::uint64_t SubscriberRule::find_impu(std::string_view canonical_impu) const {
    if (canonical_impu.starts_with("sip:")) return find_impi(canonical_impu.substr(4));
    if (canonical_impu.starts_with("tel:+")) return find_imsi(canonical_impu.substr(5));
    return none;
}

std::string SubscriberRule::imsi(std::uint64_t index) const {
    return fmt::format("{:0{}}", first_ + index, digits_);
}

std::string SubscriberRule::impi(std::uint64_t index) const {
    return imsi(index) + '@' + realm_;
}

std::vector<std::string> SubscriberRule::impus(std::uint64_t index) const {
    const auto digits = imsi(index);
    return {"sip:" + digits + '@' + realm_, "tel:+" + digits};
}

Secret<16> SubscriberRule::derive(std::string_view label, std::uint64_t index) const {
    const auto digits = imsi(index);
    std::array<std::uint8_t, 32> out{};
    std::size_t size = 0;
    const auto text = [](std::string_view s) {
        return reinterpret_cast<const unsigned char*>(s.data());
    };
    if (EVP_MAC_init(mac_->ctx, nullptr, 0, nullptr) != 1 ||
        EVP_MAC_update(mac_->ctx, text(label), label.size()) != 1 ||
        EVP_MAC_update(mac_->ctx, text(digits), digits.size()) != 1 ||
        EVP_MAC_final(mac_->ctx, out.data(), &size, out.size()) != 1 || size != out.size()) {
        throw std::runtime_error("OpenSSL refuses HMAC-SHA-256");
    }
    Secret<16> key{std::span<const std::uint8_t>(out).first<16>()};
    wipe(out);
    return key;
}

Secret<16> SubscriberRule::k(std::uint64_t index) const {
    return derive("gmgate-K", index);
}
Secret<16> SubscriberRule::opc(std::uint64_t index) const {
    return derive("gmgate-OPc", index);
}

}  // namespace gmgate::home
