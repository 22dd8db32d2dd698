#include "sa/algorithms/suite.h"

#include <algorithm>

#include "base/bytes.h"

namespace gmgate::sa {

namespace {

constexpr std::array<std::string_view, 4> integrity_names{"null", "hmac-md5-96", "hmac-sha-1-96",
                                                          "aes-gmac"};
constexpr std::array<std::string_view, 4> encryption_names{"null", "aes-cbc", "des-ede3-cbc",
                                                           "aes-gcm"};

template <class Enum>
std::optional<Enum> parse(std::string_view text, const std::array<std::string_view, 4>& names) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (iequals(text, names[i])) return static_cast<Enum>(i);
    }
    return std::nullopt;
}

}  // namespace

bool is_valid(Suite suite) {
    return std::ranges::find(all_suites, suite) != all_suites.end();
}

std::size_t suite_index(Suite suite) {
    return static_cast<std::size_t>(std::ranges::find(all_suites, suite) - all_suites.begin());
}

std::string_view name(Integrity integrity) {
    return integrity_names[static_cast<std::size_t>(integrity)];
}

std::string_view name(Encryption encryption) {
    return encryption_names[static_cast<std::size_t>(encryption)];
}

std::string to_string(Suite suite) {
    std::string out(name(suite.integrity));
    out += '/';
    out += name(suite.encryption);
    return out;
}

std::optional<Integrity> parse_integrity(std::string_view text) {
    return parse<Integrity>(text, integrity_names);
}

std::optional<Encryption> parse_encryption(std::string_view text) {
    return parse<Encryption>(text, encryption_names);
}

std::optional<Suite> parse_suite(std::string_view text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const auto integrity = parse_integrity(trim(text.substr(0, slash)));
    const auto encryption = parse_encryption(trim(text.substr(slash + 1)));
    if (!integrity || !encryption) return std::nullopt;
    const Suite suite{*integrity, *encryption};
    if (!is_valid(suite)) return std::nullopt;
    return suite;
}

std::size_t icv_size(Suite suite) {
    // RFC 4106, RFC 4543: 16 octets; RFC 2403, RFC 2404: 12.
    return suite.encryption == Encryption::aes_gcm || suite.integrity == Integrity::aes_gmac ? 16
                                                                                             : 12;
}

std::size_t iv_size(Suite suite) {
    switch (suite.encryption) {
        case Encryption::aes_cbc:
            return 16;
        case Encryption::des_ede3_cbc:
            return 8;
        case Encryption::aes_gcm:
            return 8;
        case Encryption::null:
            break;
    }
    return suite.integrity == Integrity::aes_gmac ? 8 : 0;
}

std::size_t block_size(Suite suite) {
    switch (suite.encryption) {
        case Encryption::aes_cbc:
            return 16;
        case Encryption::des_ede3_cbc:
            return 8;
        case Encryption::aes_gcm:
        case Encryption::null:
            break;
    }
    return 4;  // ESP's own alignment (RFC 4303 2.4)
}

}  // namespace gmgate::sa
