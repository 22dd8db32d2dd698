#include "dataplane/dpdk/crypto_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "dataplane/core/esp.h"
#include "tests/support/heap_search.h"
#include "tests/unit/dataplane_dpdk/reference_esp.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {
thread_local std::uint64_t allocations = 0;
}  // namespace

// Every allocation of the process comes by here, C's too.
extern "C" {
void* __libc_malloc(std::size_t size);                     // NOLINT(bugprone-reserved-identifier)
void* __libc_realloc(void* old, std::size_t size);         // NOLINT(bugprone-reserved-identifier)
void* __libc_calloc(std::size_t count, std::size_t size);  // NOLINT(bugprone-reserved-identifier)
void* malloc(std::size_t size) {
    ++allocations;
    return __libc_malloc(size);
}
void* realloc(void* old, std::size_t size) {
    ++allocations;
    return __libc_realloc(old, size);
}
void* calloc(std::size_t count, std::size_t size) {
    ++allocations;
    return __libc_calloc(count, size);
}
}
#endif

namespace gmgate::dataplane {
namespace {

using test::Octets;
using test::ReferenceEsp;

Octets hex(const nlohmann::json& text) {
    return *from_hex(text.get<std::string>());
}

nlohmann::json read(const std::string& name) {
    std::ifstream file(std::string(GMGATE_TEST_DATA) + "/dataplane/" + name);
    EXPECT_TRUE(file) << name;
    return nlohmann::json::parse(file);
}

sa::AkaKey aka_key(const Octets& bytes) {
    return sa::AkaKey(std::span<const std::uint8_t, 16>(bytes.data(), 16));
}

// The expanded key of one set in an engine's format.
class Keys {
  public:
    Keys(CryptoEngine& engine, sa::Suite suite, const sa::EspKeys& keys)
        : size_(engine.schedule_size(suite)) {
        if (size_ != 0)
            schedule_.reset(
                static_cast<std::uint8_t*>(std::aligned_alloc(64, (size_ + 63) / 64 * 64)));
        engine.expand(suite, keys, small_, {schedule_.get(), size_});
    }
    Keys(CryptoEngine& engine, sa::Suite suite, const sa::AkaKey& ck, const sa::AkaKey& ik)
        : Keys(engine, suite, sa::expand_keys(suite, ck, ik)) {}
    [[nodiscard]] CryptoJob job(Octets& esp, std::size_t icv) const {
        CryptoJob j;
        j.esp = esp.data();
        j.length = static_cast<std::uint32_t>(esp.size() - icv);
        j.small_key = small_.data();
        j.schedule = schedule_.get();
        return j;
    }

  private:
    struct FreeC {
        void operator()(std::uint8_t* p) const { std::free(p); }
    };
    std::size_t size_;
    std::array<std::uint8_t, small_key_size> small_{};
    std::unique_ptr<std::uint8_t, FreeC> schedule_;
};

class Engine : public testing::TestWithParam<EngineKind> {
  protected:
    void SetUp() override {
        if (GetParam() == EngineKind::ipsec_mb && best_engine() != EngineKind::ipsec_mb) {
            GTEST_SKIP() << "this CPU lacks the instructions libIPSec_MB needs; the OpenSSL engine "
                            "is tested";
        }
        engine_ = make_engine(GetParam());
    }
    std::unique_ptr<CryptoEngine> engine_;
};

TEST_P(Engine, KnownAnswersOfAnnexI) {
    const auto data = read("annex_i_esp.json");
    const Octets udp = hex(data["udp"]);
    std::size_t packets = 0;
    for (const auto& set : data["sets"]) {
        const auto ck = aka_key(hex(set["ck"]));
        const auto ik = aka_key(hex(set["ik"]));
        for (const auto& p : set["esp_packets"]) {
            const auto suite =
                sa::parse_suite(p["alg"].get<std::string>() + "/" + p["ealg"].get<std::string>());
            ASSERT_TRUE(suite.has_value());
            const std::string what = sa::to_string(*suite);
            const Octets expected = hex(p["esp"]);
            const EspGeometry g = esp_geometries()[sa::suite_index(*suite)];
            const Keys keys(*engine_, *suite, ck, ik);

            Octets packet = expected;
            CryptoJob job = keys.job(packet, g.icv);
            engine_->verify(*suite, {&job, 1});
            ASSERT_TRUE(job.ok) << what;
            ASSERT_EQ(packet, expected) << what;
            engine_->open(*suite, {&job, 1});
            ASSERT_TRUE(job.ok) << what;
            const std::uint32_t padding = g.padding(static_cast<std::uint32_t>(udp.size()));
            Octets clear(packet.begin() + g.head(),
                         packet.begin() + g.head() + static_cast<std::ptrdiff_t>(udp.size()));
            EXPECT_EQ(clear, udp) << what;
            EXPECT_EQ(packet[job.length - 1], 17) << what;
            EXPECT_EQ(packet[job.length - 2], padding) << what;

            std::fill(packet.end() - g.icv, packet.end(), std::uint8_t{0xEE});
            job = keys.job(packet, g.icv);
            engine_->seal(*suite, {&job, 1});
            ASSERT_TRUE(job.ok) << what;
            EXPECT_EQ(to_hex(packet), to_hex(expected)) << what;
            ++packets;
        }
    }
    EXPECT_EQ(packets, 80U);
}

TEST_P(Engine, KnownAnswersOfAesGcmEsp) {
    constexpr sa::Suite suite{sa::Integrity::null, sa::Encryption::aes_gcm};
    for (const auto& c : read("aes_gcm_esp.json")) {
        sa::EspKeys raw;
        const Octets key = hex(c["key"]);
        const Octets salt = hex(c["salt"]);
        std::copy(key.begin(), key.end(), raw.encryption_storage.writable().begin());
        raw.encryption_size = 16;
        std::copy(salt.begin(), salt.end(), raw.salt.writable().begin());
        const Keys keys(*engine_, suite, raw);
        const Octets expected = hex(c["esp"]);
        Octets packet = expected;
        CryptoJob job = keys.job(packet, 16);
        engine_->open(suite, {&job, 1});
        ASSERT_TRUE(job.ok) << c["case"];
        EXPECT_EQ(Octets(packet.begin() + 16, packet.end() - 16), hex(c["plaintext_with_trailer"]));
        engine_->seal(suite, {&job, 1});
        EXPECT_EQ(packet, expected);
    }
}

TEST_P(Engine, KnownAnswersOfRfc3602) {
    constexpr sa::Suite suite{sa::Integrity::hmac_sha_1_96, sa::Encryption::aes_cbc};
    for (const auto& c : read("rfc3602_esp.json")) {
        sa::EspKeys raw;
        raw.integrity_size = 20;
        const Octets key = hex(c["key"]);
        std::copy(key.begin(), key.end(), raw.encryption_storage.writable().begin());
        raw.encryption_size = 16;
        const Keys keys(*engine_, suite, raw);
        const Octets expected = hex(c["esp"]);
        const Octets payload = hex(c["payload"]);
        Octets packet(expected.begin(), expected.begin() + 24);
        packet.insert(packet.end(), payload.begin(), payload.end());
        const auto padding = c["pad_len"].get<std::uint32_t>();
        packet.resize(packet.size() + padding + 2);
        write_trailer(packet.data() + 24 + payload.size(), padding,
                      static_cast<std::uint8_t>(c["next_header"].get<int>()));
        packet.resize(packet.size() + 12);
        CryptoJob job = keys.job(packet, 12);
        engine_->seal(suite, {&job, 1});
        ASSERT_TRUE(job.ok);
        EXPECT_EQ(to_hex(Octets(packet.begin(), packet.end() - 12)), to_hex(expected))
            << "case " << c["case"];
    }
}

// Bursts of 1 to 64 packets of different lengths, each under another key, good and damaged ones
// mixed.
TEST_P(Engine, BurstsOfManyKeysAgreeWithTheReference) {
    SeededRandom random(7);
    for (const sa::Suite suite : sa::all_suites) {
        const EspGeometry g = esp_geometries()[sa::suite_index(suite)];
        for (const std::size_t count : {1U, 2U, 3U, 7U, 8U, 15U, 16U, 17U, 33U, 63U, 64U}) {
            std::vector<std::unique_ptr<Keys>> keys;
            std::vector<Octets> sealed(count), expected(count), opened(count);
            std::vector<bool> good(count);
            std::vector<CryptoJob> seal(count), open(count);
            for (std::size_t i = 0; i < count; ++i) {
                sa::AkaKey ck, ik;
                random.fill(ck.writable());
                random.fill(ik.writable());
                const ReferenceEsp reference(suite, ck, ik);
                Octets payload(random.below(1500));
                random.fill(payload);
                const Octets clear = reference.pad(payload, 17);
                expected[i] = reference.seal(0x1000 + static_cast<std::uint32_t>(i),
                                             static_cast<std::uint32_t>(i + 1), clear);
                keys.push_back(std::make_unique<Keys>(*engine_, suite, ck, ik));

                sealed[i] = expected[i];
                std::copy(clear.begin(), clear.end(), sealed[i].begin() + g.head());
                std::fill(sealed[i].end() - g.icv, sealed[i].end(), std::uint8_t{0});
                seal[i] = keys[i]->job(sealed[i], g.icv);
                seal[i].tag = static_cast<std::uint32_t>(i);

                opened[i] = expected[i];
                good[i] = random.below(3) != 0;
                if (!good[i])
                    opened[i][random.below(opened[i].size())] ^=
                        static_cast<std::uint8_t>(1U << random.below(8));
                open[i] = keys[i]->job(opened[i], g.icv);
            }
            engine_->seal(suite, seal);
            // verify() says what open() says, and leaves every octet as it was.
            const std::vector<Octets> arrived = opened;
            engine_->verify(suite, open);
            ASSERT_EQ(opened, arrived) << sa::to_string(suite);
            for (std::size_t i = 0; i < count; ++i) {
                ASSERT_EQ(open[i].ok, good[i])
                    << sa::to_string(suite) << " verify " << i << " of " << count;
                open[i].ok = false;
            }
            engine_->open(suite, open);
            for (std::size_t i = 0; i < count; ++i) {
                ASSERT_TRUE(seal[i].ok);
                ASSERT_EQ(seal[i].tag, i);
                ASSERT_EQ(sealed[i], expected[i])
                    << sa::to_string(suite) << " " << i << " of " << count;
                ASSERT_EQ(open[i].ok, good[i])
                    << sa::to_string(suite) << " " << i << " of " << count;
                if (!good[i]) continue;
                // Decrypted in place: sealing it again gives the packet back.
                engine_->seal(suite, {&open[i], 1});
                ASSERT_EQ(opened[i], expected[i]);
            }
        }
    }
}

// Each bit of the ICV counts, and so does each octet it covers.
TEST_P(Engine, EveryBitOfTheIcvAndEveryOctetCounts) {
    SeededRandom random(8);
    for (const sa::Suite suite : sa::all_suites) {
        const EspGeometry g = esp_geometries()[sa::suite_index(suite)];
        sa::AkaKey ck, ik;
        random.fill(ck.writable());
        random.fill(ik.writable());
        const Octets good =
            ReferenceEsp(suite, ck, ik).seal_payload(0x1234, 5, Octets(40, 0x5A), 17);
        const Keys keys(*engine_, suite, ck, ik);
        const auto verifies = [&](Octets packet) {
            CryptoJob job = keys.job(packet, g.icv);
            engine_->verify(suite, {&job, 1});
            const bool verified = job.ok;
            engine_->open(suite, {&job, 1});
            EXPECT_EQ(verified, job.ok) << "verify() and open() disagree";
            return job.ok;
        };
        ASSERT_TRUE(verifies(good));
        for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
            Octets bad = good;
            bad[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
            ASSERT_FALSE(verifies(bad)) << sa::to_string(suite) << " bit " << bit;
        }
    }
}

// S1: when a burst is done no key of it stays in the engine: the set may go, its keys wiped, before
// another packet comes.
TEST_P(Engine, KeepsNoKeyAfterABurst) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer keeps its heap elsewhere: there is none to look through for keys";
#endif
    SeededRandom random(9);
    for (const sa::Suite suite : sa::all_suites) {
        const EspGeometry g = esp_geometries()[sa::suite_index(suite)];
        sa::AkaKey ck, ik;
        random.fill(ck.writable());
        random.fill(ik.writable());
        const sa::EspKeys keys = sa::expand_keys(suite, ck, ik);
        // All copies of the test's own are on the stack.
        std::array<std::uint8_t, small_key_size> small{};
        alignas(64) std::array<std::uint8_t, 8192> schedule{};
        ASSERT_LE(engine_->schedule_size(suite), schedule.size());
        engine_->expand(suite, keys, small, {schedule.data(), engine_->schedule_size(suite)});
        std::array<std::uint8_t, 128> packet{};
        CryptoJob job;
        job.esp = packet.data();
        job.length = g.head() + 2U * 16;
        job.small_key = small.data();
        job.schedule = schedule.data();
        engine_->seal(suite, {&job, 1});
        ASSERT_TRUE(job.ok);
        for (const auto key : {keys.encryption(), keys.integrity()}) {
            if (key.empty()) continue;
            EXPECT_EQ(gmgate::test::on_the_heap(key), 0U) << sa::to_string(suite) << " after seal";
        }
        job.ok = false;
        engine_->verify(suite, {&job, 1});
        ASSERT_TRUE(job.ok);
        for (const auto key : {keys.encryption(), keys.integrity()}) {
            if (key.empty()) continue;
            EXPECT_EQ(gmgate::test::on_the_heap(key), 0U)
                << sa::to_string(suite) << " after verify";
        }
        engine_->open(suite, {&job, 1});
        ASSERT_TRUE(job.ok);
        for (const auto key : {keys.encryption(), keys.integrity()}) {
            if (key.empty()) continue;
            EXPECT_EQ(gmgate::test::on_the_heap(key), 0U) << sa::to_string(suite) << " after open";
        }
    }
    // The search finds what is there.
    const std::vector<std::uint8_t> there{0x5E, 0xA2, 0xC4, 0x11, 0x9F, 0x03, 0x77, 0xD8, 0x21};
    EXPECT_EQ(gmgate::test::on_the_heap(there), 1U);
}

// The fast path allocates nothing, OpenSSL underneath included.
TEST_P(Engine, AllocatesNothingForAPacket) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer has an allocator of its own: calls of malloc cannot be counted";
#else
    SeededRandom random(10);
    for (const sa::Suite suite : sa::all_suites) {
        const EspGeometry g = esp_geometries()[sa::suite_index(suite)];
        sa::AkaKey ck, ik;
        random.fill(ck.writable());
        random.fill(ik.writable());
        const Keys keys(*engine_, suite, ck, ik);
        Octets packet(g.head() + 64UL * 16 + g.icv);
        CryptoJob job = keys.job(packet, g.icv);
        std::vector<bool> good;
        good.reserve(8);
        const std::uint64_t before = allocations;
        for (int i = 0; i < 2; ++i) {
            engine_->seal(suite, {&job, 1});
            good.push_back(job.ok);
            engine_->verify(suite, {&job, 1});
            good.push_back(job.ok);
            engine_->open(suite, {&job, 1});
            good.push_back(job.ok);
        }
        EXPECT_EQ(allocations - before, 0U) << sa::to_string(suite);
        EXPECT_EQ(std::count(good.begin(), good.end(), true), 6) << sa::to_string(suite);
    }
    // The count counts.
    const std::uint64_t before = allocations;
    const auto some = std::make_unique<Octets>(10);
    EXPECT_GE(allocations - before, 2U) << some->size();
#endif
}

INSTANTIATE_TEST_SUITE_P(Kinds, Engine, testing::Values(EngineKind::ipsec_mb, EngineKind::openssl),
                         [](const auto& kind) {
                             return kind.param == EngineKind::ipsec_mb ? "ipsec_mb" : "openssl";
                         });

}  // namespace
}  // namespace gmgate::dataplane
