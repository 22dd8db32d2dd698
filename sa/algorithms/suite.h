#pragma once
// The algorithm pairs of the Gm interface (A9) and their names in Security-Client/-Server/-Verify.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gmgate::sa {

enum class Integrity : std::uint8_t { null, hmac_md5_96, hmac_sha_1_96, aes_gmac };
enum class Encryption : std::uint8_t { null, aes_cbc, des_ede3_cbc, aes_gcm };

// One (alg, ealg) pair.
struct Suite {
    Integrity integrity = Integrity::hmac_sha_1_96;
    Encryption encryption = Encryption::null;
    bool operator==(const Suite&) const = default;
};

// Every suite gmgate speaks, strongest first: the built-in default order of our list (A8).
// null integrity goes only with aes-gcm, aes-gmac only with null encryption.
inline constexpr std::array<Suite, 8> all_suites{{
    {Integrity::null, Encryption::aes_gcm},
    {Integrity::aes_gmac, Encryption::null},
    {Integrity::hmac_sha_1_96, Encryption::aes_cbc},
    {Integrity::hmac_sha_1_96, Encryption::null},
    {Integrity::hmac_md5_96, Encryption::aes_cbc},
    {Integrity::hmac_md5_96, Encryption::null},
    {Integrity::hmac_sha_1_96, Encryption::des_ede3_cbc},
    {Integrity::hmac_md5_96, Encryption::des_ede3_cbc},
}};

[[nodiscard]] bool is_valid(Suite suite);
// Position in all_suites; the suite must be valid.
[[nodiscard]] std::size_t suite_index(Suite suite);

[[nodiscard]] std::string_view name(Integrity integrity);    // "hmac-sha-1-96", "aes-gmac", "null"
[[nodiscard]] std::string_view name(Encryption encryption);  // "aes-cbc", "null", …
[[nodiscard]] std::string to_string(Suite suite);            // "hmac-sha-1-96/null"
// Case-insensitive; nullopt: not one of ours.
[[nodiscard]] std::optional<Integrity> parse_integrity(std::string_view text);
[[nodiscard]] std::optional<Encryption> parse_encryption(std::string_view text);
// "alg/ealg" as in the configuration.
[[nodiscard]] std::optional<Suite> parse_suite(std::string_view text);

// ESP geometry (octets on the wire).
[[nodiscard]] std::size_t icv_size(Suite suite);  // 12, 16 with aes-gmac and aes-gcm
[[nodiscard]] std::size_t iv_size(Suite suite);   // 0, 8, 16
[[nodiscard]] std::size_t block_size(
    Suite suite);  // payload + padding + 2 is a multiple of it: 4, 8, 16

}  // namespace gmgate::sa
