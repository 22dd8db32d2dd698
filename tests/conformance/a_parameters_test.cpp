// A: parameters and negotiation, as far as the SA library alone shows them.
// Use TEST, not TEST_F, so that several files can add to one rule.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "sa/algorithms/key_expansion.h"
#include "tests/conformance/share.h"
#include "tests/support/sa_fixture.h"

namespace gmgate {
namespace {

using conformance::share;
using namespace std::chrono_literals;
using namespace gmgate::sa;
using test::SaFixture;

TEST(A2, FourSasOfASetCarryTheAgreedNumbersAndOneKeyPair) {
    share("sa");
    SaFixture f;
    const auto r = f.request("alice@home");
    const SetId id = f.challenge(r);
    const auto* installed = f.backend.set(id);
    ASSERT_NE(installed, nullptr);
    const SaNumbers& n = installed->numbers;
    EXPECT_EQ(n.spi_uc, r.spi_uc);
    EXPECT_EQ(n.spi_us, r.spi_us);
    EXPECT_EQ(n.port_uc, r.port_uc);
    EXPECT_EQ(n.port_us, r.port_us);
    EXPECT_NE(n.spi_pc, n.spi_ps);
    EXPECT_NE(n.port_pc, n.port_ps);
    EXPECT_TRUE(installed->ck == f.ck);
    EXPECT_TRUE(installed->ik == f.ik);
    // Inbound: UE port_uc → port_ps and UE port_us → port_pc, and no other pairing.
    EXPECT_EQ(f.db->find_by_tuple(r.ue, n.port_uc, n.port_ps)->id, id);
    EXPECT_EQ(f.db->find_by_tuple(r.ue, n.port_us, n.port_pc)->id, id);
    EXPECT_EQ(f.db->find_by_tuple(r.ue, n.port_uc, n.port_pc), nullptr);
    EXPECT_EQ(f.db->find_by_tuple(r.ue, n.port_us, n.port_ps), nullptr);
    f.establish(id).value();
    EXPECT_EQ(f.backend.install_calls(), 1U);  // the same SAs go on after SM12
}

TEST(A3, SelectorsAreTheAddressPairOfTheFirstRegister) {
    share("sa");
    SaFixture f;
    auto r = f.request("alice@home", "2001:db8::1");
    r.ours = SaFixture::ip("2001:db8::99");
    const SetId id = f.challenge(r);
    EXPECT_EQ(f.backend.set(id)->ue, r.ue);
    EXPECT_EQ(f.backend.set(id)->ours, r.ours);
    const SaNumbers& n = f.db->find(id)->numbers;
    EXPECT_EQ(f.db->find_by_tuple(SaFixture::ip("2001:db8::2"), n.port_uc, n.port_ps), nullptr);
}

TEST(A4, SpisAreUniqueAndNeverBelow256) {
    SaFixture f({}, 500);
    std::set<Spi> held;
    for (int i = 0; i < 240; ++i) {
        const SetId id =
            f.challenge(f.request("u" + std::to_string(i), "10.0.0." + std::to_string(1 + i)));
        const SaNumbers& n = f.db->find(id)->numbers;
        for (const Spi spi : {n.spi_pc, n.spi_ps}) {
            EXPECT_GT(spi, 255U);
            EXPECT_TRUE(held.insert(spi).second);
        }
    }
}

TEST(A4, SpisDifferFromBothTheUeSent) {
    // Whatever the UE proposes, also exactly what we would have taken.
    for (std::uint32_t generation = 1; generation <= 4; ++generation) {
        for (std::uint32_t slot = 0; slot < 4; ++slot) {
            SaFixture f;
            auto r = f.request("alice@home");
            r.spi_uc = SpiLayout::make(generation, 0, slot);
            r.spi_us = SpiLayout::make(generation + 1, 0, slot);
            const SaNumbers n = f.db->find(f.challenge(r))->numbers;
            const std::set<Spi> all{n.spi_uc, n.spi_us, n.spi_pc, n.spi_ps};
            EXPECT_EQ(all.size(), 4U);
        }
    }
}

TEST(A4, AReleasedSpiRests) {
    DatabaseConfig config;
    config.timers.spi_quarantine = 60s;
    SaFixture f(config, 500);
    const SetId first = f.challenge(f.request("alice@home"));
    const SaNumbers old = f.db->find(first)->numbers;
    ASSERT_TRUE(f.db->apply(first, Event::auth_rejected));
    std::set<std::uint32_t> slots;
    for (int i = 0; i < 100; ++i) {
        const SetId id =
            f.challenge(f.request("u" + std::to_string(i), "10.0.0." + std::to_string(1 + i)));
        for (const Spi spi : {f.db->find(id)->numbers.spi_pc, f.db->find(id)->numbers.spi_ps}) {
            slots.insert(SpiLayout::slot(spi));
        }
    }
    EXPECT_FALSE(slots.contains(SpiLayout::slot(old.spi_pc)));
    EXPECT_FALSE(slots.contains(SpiLayout::slot(old.spi_ps)));
    f.clock.advance(60s);
    const SaNumbers again = f.db->find(f.challenge(f.request("bob@home", "10.1.0.1")))->numbers;
    EXPECT_EQ(SpiLayout::slot(again.spi_pc), SpiLayout::slot(old.spi_pc));
    EXPECT_NE(again.spi_pc, old.spi_pc);  // and then as another SPI
}

TEST(A5, ServerPortStaysAndClientPortChanges) {
    DatabaseConfig config;
    config.ports.port_ps = {5062, 5063, 5064, 5065};
    SaFixture f(config);
    SetId x = f.register_ue(f.request("alice@home"));
    const Port ps = f.db->find(x)->numbers.port_ps;
    for (int i = 0; i < 20; ++i) {
        auto r = f.request("alice@home");
        r.sm1_set = x;
        const SetId y = f.register_ue(r);
        EXPECT_EQ(f.db->find(y)->numbers.port_ps, ps);
        EXPECT_NE(f.db->find(y)->numbers.port_pc, f.db->find(x)->numbers.port_pc);
        f.db->note_use(y);
        f.advance(61s);
        x = y;
    }
}

TEST(A5, UnprotectedPortsAreNeverProtected) {
    for (const PortConfig& ports : {PortConfig{{5060}, 5100, 5115}, PortConfig{{5061}, 5100, 5115},
                                    PortConfig{{6000}, 5055, 5065}}) {
        EXPECT_FALSE(PortAllocator::create(ports));
    }
    SaFixture f;
    for (const Port port : {Port{5060}, Port{5061}}) {  // nor at the UE
        auto r = f.request("alice@home");
        r.port_uc = port;
        EXPECT_FALSE(f.db->reserve(r));
        r = f.request("alice@home");
        r.port_us = port;
        EXPECT_FALSE(f.db->reserve(r));
    }
}

TEST(A9, ExactlyThePairsOfTheProfile) {
    share("sa");
    std::set<std::string> valid;
    for (int i = 0; i < 4; ++i) {
        for (int e = 0; e < 4; ++e) {
            const Suite s{static_cast<Integrity>(i), static_cast<Encryption>(e)};
            if (is_valid(s)) valid.insert(to_string(s));
        }
    }
    EXPECT_EQ(valid, (std::set<std::string>{
                         "null/aes-gcm", "aes-gmac/null", "hmac-sha-1-96/aes-cbc",
                         "hmac-sha-1-96/null", "hmac-md5-96/aes-cbc", "hmac-md5-96/null",
                         "hmac-sha-1-96/des-ede3-cbc", "hmac-md5-96/des-ede3-cbc"}));
}

TEST(A9, EverySuiteCanBeSetUp) {
    share("sa");
    SaFixture f;
    int n = 0;
    for (const Suite suite : all_suites) {
        auto r = f.request("u" + std::to_string(n++));
        r.suite = suite;
        const SetId id = f.register_ue(r);
        EXPECT_EQ(f.backend.set(id)->suite, suite);
    }
    auto r = f.request("alice@home");
    r.suite = Suite{Integrity::null, Encryption::null};
    EXPECT_FALSE(f.db->reserve(r));
}

TEST(A10, KnownAnswersOfTheKeyExpansion) {
    std::ifstream in(GMGATE_TEST_DATA "/sa/annex_i.json");
    const auto sets = nlohmann::json::parse(in).at("sets");
    ASSERT_FALSE(sets.empty());
    for (const auto& set : sets) {
        SCOPED_TRACE(set.at("name").get<std::string>());
        AkaKey ck;
        AkaKey ik;
        ASSERT_TRUE(from_hex(set.at("ck").get<std::string>(), ck.writable()));
        ASSERT_TRUE(from_hex(set.at("ik").get<std::string>(), ik.writable()));
        const auto check = [&](const char* suite, const char* integrity, const char* encryption,
                               const char* salt) {
            SCOPED_TRACE(suite);
            const EspKeys k = expand_keys(*parse_suite(suite), ck, ik);
            EXPECT_EQ(to_hex(k.integrity()),
                      integrity == nullptr ? "" : set.at(integrity).get<std::string>());
            EXPECT_EQ(to_hex(k.encryption()),
                      encryption == nullptr ? "" : set.at(encryption).get<std::string>());
            if (salt != nullptr) {
                EXPECT_EQ(to_hex(k.salt.reveal()), set.at(salt).get<std::string>());
            }
        };
        check("hmac-sha-1-96/null", "hmac_sha_1_96", nullptr, nullptr);
        check("hmac-md5-96/null", "hmac_md5_96", nullptr, nullptr);
        check("hmac-sha-1-96/aes-cbc", "hmac_sha_1_96", "aes_cbc", nullptr);
        check("hmac-md5-96/aes-cbc", "hmac_md5_96", "aes_cbc", nullptr);
        check("hmac-sha-1-96/des-ede3-cbc", "hmac_sha_1_96", "des_ede3_cbc_parity", nullptr);
        check("hmac-md5-96/des-ede3-cbc", "hmac_md5_96", "des_ede3_cbc_parity", nullptr);
        check("aes-gmac/null", "aes_gmac_key", nullptr, "aes_gmac_salt");
        check("null/aes-gcm", nullptr, "aes_gcm_key", "aes_gcm_salt");
    }
}

}  // namespace
}  // namespace gmgate
