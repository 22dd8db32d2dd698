#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>

#include "dataplane/core/drop_reason.h"
#include "dataplane/core/esp.h"
#include "dataplane/core/event_ring.h"
#include "dataplane/core/protected_ports.h"
#include "dataplane/core/relaxed.h"

namespace gmgate::dataplane {
namespace {

TEST(DropReasons, NamesAreLabelsAndUnique) {
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < drop_reason_count; ++i) {
        const auto reason = static_cast<DropReason>(i);
        EXPECT_TRUE(names.insert(name(reason)).second);
        EXPECT_EQ(name(reason).find_first_not_of("abcdefghijklmnopqrstuvwxyz_"),
                  std::string_view::npos);
        EXPECT_GT(help(reason).size(), 10U);
    }
    EXPECT_EQ(name(DropReason::unknown_spi), "unknown_spi");
}

TEST(ProtectedPorts, EveryPortAlone) {
    ProtectedPorts ports;
    for (std::uint32_t p = 0; p <= 65535; ++p)
        ASSERT_FALSE(ports.contains(static_cast<std::uint16_t>(p)));
    ports.add(0);
    ports.add(5063);
    ports.add_range(65000, 65535);
    for (std::uint32_t p = 0; p <= 65535; ++p) {
        ASSERT_EQ(ports.contains(static_cast<std::uint16_t>(p)), p == 0 || p == 5063 || p >= 65000)
            << p;
    }
}

TEST(EspGeometry, OfTheSuites) {
    const EspGeometries g = esp_geometries();
    const auto of = [&](sa::Integrity i, sa::Encryption e) { return g[sa::suite_index({i, e})]; };
    const EspGeometry sha1 = of(sa::Integrity::hmac_sha_1_96, sa::Encryption::null);
    EXPECT_EQ(sha1.head(), 8U);
    EXPECT_EQ(sha1.minimum(), 8U + 4 + 12);
    EXPECT_EQ(of(sa::Integrity::hmac_md5_96, sa::Encryption::aes_cbc).minimum(), 8U + 16 + 16 + 12);
    EXPECT_EQ(of(sa::Integrity::hmac_md5_96, sa::Encryption::des_ede3_cbc).minimum(),
              8U + 8 + 8 + 12);
    EXPECT_EQ(of(sa::Integrity::null, sa::Encryption::aes_gcm).minimum(), 8U + 8 + 4 + 16);
    EXPECT_EQ(of(sa::Integrity::aes_gmac, sa::Encryption::null).minimum(), 8U + 8 + 4 + 16);
    for (const EspGeometry& one : g) {
        for (std::uint32_t payload = 0; payload < 200; ++payload) {
            ASSERT_LT(one.padding(payload), one.block);
            ASSERT_EQ((payload + one.padding(payload) + esp_trailer_size) % one.block, 0U);
            ASSERT_TRUE(one.aligned(payload + one.overhead(payload)));
            ASSERT_FALSE(one.aligned(payload + one.overhead(payload) + 1));
        }
    }
}

TEST(EspTrailer, MonotonicPadding) {
    std::array<std::uint8_t, 7> at{};
    write_trailer(at.data(), 3, 17);
    EXPECT_EQ(at, (std::array<std::uint8_t, 7>{1, 2, 3, 3, 17, 0, 0}));
}

TEST(Relaxed, SaturatesAtTheEnd) {
    Relaxed<std::uint32_t> n(0xFFFFFFFEU);
    n.add_saturating();
    n.add_saturating();
    EXPECT_EQ(n.get(), 0xFFFFFFFFU);
}

TEST(EventRing, KeepsOrderAndRefusesWhenFull) {
    EventRing ring;
    EXPECT_TRUE(ring.empty());
    EXPECT_FALSE(ring.pop().has_value());
    for (std::uint32_t i = 0; i < EventRing::size; ++i) {
        ASSERT_TRUE(ring.push({sa::BackendEventKind::integrity_failure, false, i, i + 1}));
    }
    EXPECT_FALSE(ring.push({}));
    for (std::uint32_t i = 0; i < EventRing::size; ++i) {
        const auto e = ring.pop();
        ASSERT_TRUE(e.has_value());
        ASSERT_EQ(e->set, i);
        ASSERT_EQ(e->spi, i + 1);
    }
    EXPECT_TRUE(ring.empty());
}

TEST(EventRing, TwoThreads) {
    EventRing ring;
    constexpr std::uint32_t total = 20000;
    std::thread producer([&] {
        for (std::uint32_t i = 0; i < total;) {
            if (ring.push({sa::BackendEventKind::integrity_failure, false, i, ~i})) {
                ++i;
            } else {
                std::this_thread::yield();
            }
        }
    });
    for (std::uint32_t i = 0; i < total;) {
        const auto e = ring.pop();
        if (!e) {
            std::this_thread::yield();
            continue;
        }
        EXPECT_EQ(e->set, i);
        EXPECT_EQ(e->spi, ~i);
        ++i;
    }
    producer.join();
}

}  // namespace
}  // namespace gmgate::dataplane
