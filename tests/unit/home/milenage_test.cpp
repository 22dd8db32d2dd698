#include "home/milenage.h"

#include <gtest/gtest.h>

#include "tests/unit/home/aka_support.h"

namespace gmgate::home {
namespace {

using test::key;
using test::octets;

template <class Range>
std::string hex(const Range& r) {
    return to_hex(std::span<const std::uint8_t>(r.data(), r.size()));
}

std::string lower(const nlohmann::json& set, const char* name) {
    return to_lower(set.at(name).get<std::string>());
}

// Every number a set holds is checked; returns how many.
std::size_t check_set(const nlohmann::json& set) {
    std::size_t checked = 0;
    Milenage m;
    const auto k = key(lower(set, "k"));
    const auto op = key(lower(set, "op"));
    const auto opc = m.derive_opc(k, op);
    EXPECT_EQ(hex(opc.reveal()), lower(set, "opc"));
    m.set_key(k, opc);
    const auto rand = octets<16>(lower(set, "rand"));
    const auto expect = [&](const char* name, const std::string& got) {
        if (!set.contains(name)) return;
        EXPECT_EQ(got, lower(set, name)) << name << " of K " << lower(set, "k");
        ++checked;
    };
    if (set.contains("sqn")) {
        const auto f1 = m.f1(rand, octets<6>(lower(set, "sqn")), octets<2>(lower(set, "amf")));
        expect("mac_a", hex(f1.mac_a));
        expect("mac_s", hex(f1.mac_s));
    }
    const auto keys = m.f2345(rand);
    expect("res", hex(keys.res.reveal()));
    expect("ck", hex(keys.ck.reveal()));
    expect("ik", hex(keys.ik.reveal()));
    expect("ak", hex(keys.ak));
    expect("ak_star", hex(m.f5_star(rand)));
    return checked;
}

TEST(Milenage, PublishedSets) {
    const auto sets = test::data("milenage.json").at("sets");
    ASSERT_EQ(sets.size(), 37U);
    std::size_t checked = 0;
    for (const auto& set : sets) checked += check_set(set);
    EXPECT_EQ(checked, 6U * 2 + 6 * 3 + 6 * 2 + 19 * 7);
}

TEST(Milenage, OneContextServesManyKeysInTurn) {
    const auto sets = test::data("milenage.json").at("sets");
    Milenage m;
    for (int round = 0; round < 2; ++round) {
        for (const auto& set : sets) {
            if (!set.contains("res")) continue;
            m.set_key(key(lower(set, "k")), key(lower(set, "opc")));
            EXPECT_EQ(hex(m.f2345(octets<16>(lower(set, "rand"))).res.reveal()), lower(set, "res"));
        }
    }
}

}  // namespace
}  // namespace gmgate::home
