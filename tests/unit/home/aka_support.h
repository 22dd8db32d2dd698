#pragma once
// The UE's side of AKA for the tests: AUTN checked, AUTS made, Digest answered. Uses the Milenage
// under test, whose numbers milenage_test.cpp checks against the published ones.

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "home/aka.h"
#include "home/milenage.h"

namespace gmgate::home::test {

template <std::size_t N>
std::array<std::uint8_t, N> octets(std::string_view hex) {
    std::array<std::uint8_t, N> out{};
    EXPECT_TRUE(from_hex(hex, out)) << hex;
    return out;
}

inline Secret<16> key(std::string_view hex) {
    const auto bytes = octets<16>(hex);
    return Secret<16>{std::span<const std::uint8_t, 16>(bytes)};
}

inline nlohmann::json data(const std::string& name) {
    std::ifstream file(std::string(GMGATE_TEST_DATA) + "/home/" + name);
    EXPECT_TRUE(file.good()) << name;
    return nlohmann::json::parse(file);
}

inline Auts make_auts(Milenage& milenage, const Rand& rand, Sqn sqn_ms) {
    const auto ak = milenage.f5_star(rand);
    const auto sqn = sqn_ms.octets();
    const auto mac_s = milenage.f1(rand, sqn, Amf{}).mac_s;
    Auts auts{};
    for (std::size_t i = 0; i < 6; ++i) auts[i] = static_cast<std::uint8_t>(sqn[i] ^ ak[i]);
    std::copy(mac_s.begin(), mac_s.end(), auts.begin() + 6);
    return auts;
}

// SQN out of AUTN, as a USIM that holds the key reads it.
inline Sqn sqn_of(Milenage& milenage, const Rand& rand, const Autn& autn) {
    const auto keys = milenage.f2345(rand);
    Sqn48 sqn{};
    for (std::size_t i = 0; i < 6; ++i) sqn[i] = static_cast<std::uint8_t>(autn[i] ^ keys.ak[i]);
    return Sqn(sqn);
}

}  // namespace gmgate::home::test
