// Rings, doorbells, and workers that pass packets to their owners; driven round by round, no
// threads.
#include <gtest/gtest.h>
#include <poll.h>
#include <rte_malloc.h>

#include "base/bytes.h"
#include "dataplane/core/replay_window.h"
#include "dataplane/dpdk/worker.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"
#include "tests/unit/dataplane_dpdk/memory_port.h"

namespace gmgate::dataplane::test {
namespace {

TEST(HandOverRing, KeepsOrderAndSaysWhenFull) {
    HandOverRing ring;
    EXPECT_TRUE(ring.empty());
    std::array<HandedOver, 64> out;
    EXPECT_EQ(ring.pop(out.data(), out.size()), 0U);
    std::uintptr_t next_in = 1;
    std::uintptr_t next_out = 1;
    for (int lap = 0; lap < 3; ++lap) {
        while (ring.push({reinterpret_cast<rte_mbuf*>(next_in), HandOverKind::outbound})) ++next_in;
        EXPECT_EQ(next_in - next_out, HandOverRing::size);
        for (std::size_t n = 0; (n = ring.pop(out.data(), out.size())) != 0;) {
            for (std::size_t i = 0; i < n; ++i) {
                EXPECT_EQ(reinterpret_cast<std::uintptr_t>(out[i].packet), next_out++);
                EXPECT_EQ(out[i].kind, HandOverKind::outbound);
            }
        }
        EXPECT_TRUE(ring.empty());
    }
}

TEST(Doorbell, WakesOnlyWhoAnnouncedToSleep) {
    Doorbell bell;
    pollfd p{bell.fd(), POLLIN, 0};
    EXPECT_FALSE(bell.ring());
    EXPECT_EQ(::poll(&p, 1, 0), 0);
    bell.announce();
    EXPECT_TRUE(bell.ring());
    EXPECT_FALSE(bell.ring()) << "once is enough";
    EXPECT_EQ(::poll(&p, 1, 0), 1);
    bell.answer(true);
    EXPECT_EQ(::poll(&p, 1, 0), 0);
    EXPECT_FALSE(bell.ring());
}

TEST(Owner, IsTheSameInBothDirectionsAndForFramesAndAddresses) {
    std::array<unsigned, 3> share{};
    for (unsigned i = 0; i < 3000; ++i) {
        const bool v6 = i % 2 != 0;
        Flow f;
        f.v6 = v6;
        f.source =
            v6 ? Octets{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} : Octets{10, 9, 0, 0};
        f.source[f.source.size() - 2] = static_cast<std::uint8_t>(i >> 8U);
        f.source.back() = static_cast<std::uint8_t>(i);
        f.destination = v6 ? Octets{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 1}
                           : Octets{10, 9, 255, 1};
        const auto address = [&](const Octets& o) {
            return v6 ? IpAddress::v6(std::span<const std::uint8_t, 16>(o.data(), 16))
                      : IpAddress::v4(std::span<const std::uint8_t, 4>(o.data(), 4));
        };
        const unsigned owner = owner_of_pair(address(f.source), address(f.destination), 3);
        EXPECT_EQ(owner, owner_of_pair(address(f.destination), address(f.source), 3));
        EXPECT_EQ(owner_of_pair(address(f.source), address(f.destination), 1), 0U);
        rte_mbuf* m = make_mbuf(plain_frame(f, 20));
        EXPECT_EQ(owner_of_frame(m, 3), owner);
        rte_pktmbuf_free(m);
        ASSERT_LT(owner, 3U);
        ++share[owner];
    }
    for (const unsigned s : share) EXPECT_GT(s, 800U);
}

class WorkerPair : public testing::Test {
  protected:
    void SetUp() override {
        start_eal();
        auto made = BufferPools::create("workers", 1, 24);
        ASSERT_TRUE(made) << made.error().text;
        pools_ = std::move(*made);
        wire_ = std::make_unique<MemoryPort>(2, pools_->small());
        host_ = std::make_unique<MemoryPort>(2, pools_->small());
        table_ = std::make_unique<SaTable>(
            SaTableConfig{
                .capacity = 64, .workers = 2, .huge_pages = false, .inbound_only = verify_only_},
            make_engine(EngineKind::openssl), random_);
        handover_ = std::make_unique<HandOver>(2);
        rcu_ = static_cast<rte_rcu_qsbr*>(rte_zmalloc(nullptr, rte_rcu_qsbr_get_memsize(2), 64));
        ASSERT_NE(rcu_, nullptr);
        rte_rcu_qsbr_init(rcu_, 2);
        for (unsigned i = 0; i < 2; ++i) {
            FastPathConfig fast;
            fast.worker = i;
            fast.our_addresses = {our_address(false), our_address(true)};
            fast.protected_ports.add(port_ps);
            fast.protected_ports.add_range(first_port_pc, first_port_pc + 100);
            fast.verify_only = verify_only_;
            Worker::Config config;
            config.number = i;
            config.incomplete_datagrams = 8;
            const Worker::Shared shared{*wire_, *host_, *pools_, *handover_, rcu_, clock_};
            workers_.push_back(std::make_unique<Worker>(
                config, shared,
                std::make_unique<FastPath>(fast, *table_, make_engine(EngineKind::openssl),
                                           random_)));
        }
    }
    void TearDown() override {
        workers_.clear();
        handover_.reset();
        EXPECT_EQ(rte_mempool_in_use_count(pools_->small()), 0U);
        EXPECT_EQ(rte_mempool_in_use_count(pools_->large()), 0U);
        rte_free(rcu_);
    }
    // A phone whose address pair belongs to `owner`.
    Phone phone(unsigned owner, bool v6) {
        for (;;) {
            const std::uint32_t n = next_phone_++;
            Phone probe(n, {sa::Integrity::hmac_sha_1_96, sa::Encryption::null}, v6, random_);
            if (owner_of_pair(probe.ue, probe.ours, 2) != owner) continue;
            Phone p(n, {sa::Integrity::hmac_sha_1_96, sa::Encryption::null}, v6, random_, owner);
            EXPECT_TRUE(table_->publish(p.params()));
            return p;
        }
    }
    void rounds() {
        for (int i = 0; i < 3; ++i) {
            for (auto& w : workers_) w->round();
        }
    }
    std::vector<Octets> cut(const Octets& frame, std::size_t mtu) {
        rte_mbuf* whole = rte_pktmbuf_alloc(pools_->large());
        std::copy(frame.begin(), frame.end(),
                  rte_pktmbuf_append(whole, static_cast<std::uint16_t>(frame.size())));
        std::array<rte_mbuf*, 64> pieces{};
        const auto n = fragment_frame(whole, mtu, pools_->small(), 4711, pieces);
        rte_pktmbuf_free(whole);
        std::vector<Octets> all;
        for (std::uint16_t i = 0; i < n; ++i) {
            all.push_back(contents(pieces[i]));
            rte_pktmbuf_free(pieces[i]);
        }
        return all;
    }

    bool verify_only_ = false;
    SeededRandom random_{5};
    ManualClock clock_;
    std::unique_ptr<BufferPools> pools_;
    std::unique_ptr<MemoryPort> wire_;
    std::unique_ptr<MemoryPort> host_;
    std::unique_ptr<SaTable> table_;
    std::unique_ptr<HandOver> handover_;
    rte_rcu_qsbr* rcu_ = nullptr;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::uint32_t next_phone_ = 1;
};

TEST_F(WorkerPair, EspReachesItsOwnerWhereverItArrives) {
    for (const bool v6 : {false, true}) {
        for (const unsigned owner : {0U, 1U}) {
            const Phone p = phone(owner, v6);
            for (const unsigned arrival : {0U, 1U}) {
                wire_->put(arrival, p.esp_up(arrival + 1, 100));
                rounds();
                EXPECT_EQ(host_->take(1 - owner).size(), 0U);
                const auto out = host_->take(owner);
                ASSERT_EQ(out.size(), 1U);
                EXPECT_EQ(out[0], plain_frame(p.up(false), 100));
            }
        }
    }
    EXPECT_EQ(workers_[0]->fast_path().counters().in_handed_over.get(), 2U);
    EXPECT_EQ(workers_[1]->fast_path().counters().in_handed_over.get(), 2U);
}

TEST_F(WorkerPair, OutboundGoesThroughTheOwnerSoSequenceNumbersHaveOneWriter) {
    const Phone p = phone(1, false);
    for (unsigned i = 0; i < 10; ++i) host_->put(i % 2, plain_frame(p.down(false), 50));
    rounds();
    EXPECT_EQ(wire_->take(0).size(), 0U);
    const auto out = wire_->take(1);
    ASSERT_EQ(out.size(), 10U);
    std::uint32_t sequence = 0;
    for (const Octets& frame : out) {
        EXPECT_EQ(load_be32(frame.data() + 34), p.numbers.spi_uc);
        EXPECT_EQ(load_be32(frame.data() + 38), ++sequence);
        EXPECT_TRUE(p.esp.unprotect(frame));
    }
}

TEST_F(WorkerPair, FragmentsThatArriveAtDifferentWorkersMeet) {
    for (const bool v6 : {false, true}) {
        for (const unsigned owner : {0U, 1U}) {
            const Phone p = phone(owner, v6);
            const auto pieces = cut(p.esp_up(1, 4000), 1500);
            ASSERT_EQ(pieces.size(), 3U);
            wire_->put(0, pieces[2]);
            wire_->put(1, pieces[0]);
            wire_->put(0, pieces[1]);
            rounds();
            const auto out = host_->take(owner);
            ASSERT_EQ(out.size(), 1U) << v6 << owner;
            EXPECT_TRUE(is_sound(out[0]));
            EXPECT_EQ(out[0].size(), plain_frame(p.up(false), 4000).size());
        }
    }
    EXPECT_EQ(workers_[0]->counters().reassembled.get() + workers_[1]->counters().reassembled.get(),
              4U);
}

TEST_F(WorkerPair, FragmentsOfTheHostBecomeOneEspPacketCutToTheWire) {
    for (const bool v6 : {false, true}) {
        const Phone p = phone(1, v6);
        for (const Octets& piece : cut(plain_frame(p.down(false), 4000), 1444))
            host_->put(0, piece);
        rounds();
        const auto out = wire_->take(1);
        ASSERT_EQ(out.size(), 3U);
        std::size_t data = 0;
        for (const Octets& frame : out) {
            EXPECT_LE(frame.size(), 1514U);
            data += frame.size() - 14 - (v6 ? 48 : 20);
        }
        EXPECT_EQ(out[0][v6 ? 54 : 23], 50) << "ESP in fragments, not fragments in ESP";
        // SPI, sequence, UDP with its data, padding to 4, trailer, ICV
        EXPECT_EQ(data, 8U + 4008U + 2U + 2U + 12U);
        EXPECT_EQ(workers_[1]->counters().dropped(PortDropReason::wire_too_big), 0U);
    }
}

TEST_F(WorkerPair, FragmentedCleartextForAProtectedPortIsDropped) {
    const Phone p = phone(0, true);
    for (const Octets& piece : cut(plain_frame(p.up(false), 4000), 1500)) wire_->put(1, piece);
    rounds();
    EXPECT_TRUE(host_->take(0).empty());
    EXPECT_TRUE(host_->take(1).empty());
    EXPECT_EQ(workers_[0]->fast_path().counters().dropped(DropReason::cleartext_protected_port),
              1U);
}

TEST_F(WorkerPair, APortThatRefusesIsCounted) {
    const Phone p = phone(0, false);
    host_->refuse_all(true);
    wire_->put(0, p.esp_up(1, 10));
    rounds();
    EXPECT_EQ(workers_[0]->counters().dropped(PortDropReason::host_refused), 1U);
    wire_->refuse_all(true);
    host_->put(0, plain_frame(p.down(false), 10));
    rounds();
    EXPECT_EQ(workers_[0]->counters().dropped(PortDropReason::wire_refused), 1U);
    EXPECT_EQ(workers_[0]->counters().wire_sent.get(), 0U);
}

TEST_F(WorkerPair, AFullRingDropsAndCounts) {
    const Phone p = phone(1, false);
    for (std::uint32_t i = 1; i <= HandOverRing::size + 64; ++i) {
        wire_->put(0, p.esp_up(i, 10));
        if (i % 64 == 0) workers_[0]->round();  // and the owner does not come round
    }
    EXPECT_EQ(workers_[0]->counters().dropped(PortDropReason::hand_over_full), 64U);
    rounds();
    EXPECT_EQ(host_->take(1).size(), HandOverRing::size);
}

TEST_F(WorkerPair, IncompleteDatagramsGoWithTime) {
    const Phone p = phone(0, false);
    wire_->put(0, cut(p.esp_up(1, 4000), 1500)[0]);
    rounds();
    clock_.advance(std::chrono::seconds(3));
    rounds();
    EXPECT_EQ(workers_[0]->counters().dropped(PortDropReason::fragment_timeout), 1U);
}

class ScreenPair : public WorkerPair {
  protected:
    ScreenPair() { verify_only_ = true; }
};

// What was verified is what the host gets: one whole packet, its ESP bit for bit.
TEST_F(ScreenPair, FragmentsReachTheHostAsTheOnePacketThatWasVerified) {
    for (const bool v6 : {false, true}) {
        for (const unsigned owner : {0U, 1U}) {
            const Phone p = phone(owner, v6);
            const Octets whole = p.esp_up(1, 4000);
            const auto pieces = cut(whole, 1500);
            ASSERT_EQ(pieces.size(), 3U);
            wire_->put(0, pieces[2]);
            wire_->put(1, pieces[0]);
            wire_->put(0, pieces[1]);
            rounds();
            EXPECT_TRUE(host_->take(1 - owner).empty());
            const auto out = host_->take(owner);
            ASSERT_EQ(out.size(), 1U) << v6 << owner;
            const std::ptrdiff_t l4 = v6 ? 54 : 34;
            ASSERT_EQ(out[0].size(), whole.size());
            EXPECT_TRUE(std::equal(out[0].begin() + l4, out[0].end(), whole.begin() + l4));
        }
    }
}

TEST_F(ScreenPair, OverlappingFragmentsAreNoPacket) {
    const Phone p = phone(0, false);
    const auto pieces = cut(p.esp_up(1, 4000), 1500);
    Octets evil = pieces[1];
    evil[100] ^= 1U;
    for (const Octets& f : {pieces[0], evil, pieces[1], pieces[2]}) wire_->put(0, f);
    rounds();
    EXPECT_TRUE(host_->take(0).empty());
    wire_->put(0, p.esp_up(1, 10));
    rounds();
    EXPECT_EQ(host_->take(0).size(), 1U) << "its number was not used up";
}

TEST_F(ScreenPair, FragmentedEspOfTheHostIsCutToTheWireAndFragmentedCleartextIsDropped) {
    for (const bool v6 : {false, true}) {
        const Phone p = phone(v6 ? 0 : 1, v6);
        const Octets sealed = p.esp.protect(plain_frame(p.down(false), 4000), p.numbers.spi_uc, 1);
        for (const Octets& piece : cut(sealed, 1444)) host_->put(0, piece);
        rounds();
        std::size_t data = 0;
        for (const unsigned queue : {0U, 1U}) {
            for (const Octets& frame : wire_->take(queue)) {
                EXPECT_LE(frame.size(), 1514U);
                data += frame.size() - 14 - (v6 ? 48 : 20);
            }
        }
        EXPECT_EQ(data, sealed.size() - (v6 ? 54U : 34U));
        for (const Octets& piece : cut(plain_frame(p.down(false), 4000), 1444))
            host_->put(1, piece);
        rounds();
        EXPECT_TRUE(wire_->take(0).empty());
        EXPECT_TRUE(wire_->take(1).empty());
    }
    EXPECT_EQ(workers_[0]->fast_path().counters().dropped(DropReason::outbound_no_sa) +
                  workers_[1]->fast_path().counters().dropped(DropReason::outbound_no_sa),
              2U);
}

// Whichever worker the packets of one SA come to, the host gets them on one queue, in the order in
// which they were entered in the window (docs/decisions: the two windows).
TEST_F(ScreenPair, OneSaKeepsOneQueueAndItsOrder) {
    const Phone p = phone(1, false);
    for (std::uint32_t s = 1; s <= 200; ++s) wire_->put(s % 3 == 0 ? 1 : 0, p.esp_up(s, 10));
    for (int i = 0; i < 10; ++i) rounds();
    EXPECT_TRUE(host_->take(0).empty());
    const auto out = host_->take(1);
    std::uint32_t highest = 0;
    std::uint64_t window = 0;
    for (const Octets& f : out) {
        const std::uint32_t s = load_be32(&f[38]);
        ASSERT_EQ(ReplayWindow64::check(s, highest, window), ReplayVerdict::fresh) << s;
        ReplayWindow64::advance(s, highest, window);
    }
    EXPECT_EQ(out.size() + workers_[1]->fast_path().counters().dropped(DropReason::replay_too_old),
              200U);
}

}  // namespace
}  // namespace gmgate::dataplane::test
