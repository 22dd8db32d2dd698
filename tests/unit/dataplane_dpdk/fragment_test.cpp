// E6: datagrams are made whole and cut; what is hostile is bounded and counted.
#include "dataplane/dpdk/fragment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/bytes.h"
#include "dataplane/dpdk/port.h"
#include "tests/unit/dataplane_dpdk/eal_environment.h"
#include "tests/unit/dataplane_dpdk/reference_esp.h"

namespace gmgate::dataplane::test {
namespace {

BufferPools& pools() {
    start_eal();
    static const auto made = BufferPools::create("fragments", 1, 24);
    if (!made) throw std::runtime_error(made.error().text);
    return **made;
}

Flow flow(bool v6) {
    Flow f;
    f.v6 = v6;
    f.source = v6 ? Octets{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2} : Octets{10, 0, 0, 2};
    f.destination =
        v6 ? Octets{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1} : Octets{10, 0, 0, 1};
    f.source_port = 40000;
    f.destination_port = 5064;
    return f;
}

rte_mbuf* large_mbuf(const Octets& frame) {
    rte_mbuf* m = rte_pktmbuf_alloc(pools().large());
    char* at = rte_pktmbuf_append(m, static_cast<std::uint16_t>(frame.size()));
    std::copy(frame.begin(), frame.end(), at);
    return m;
}

struct Cut {
    std::vector<Octets> pieces;
};
Cut cut(const Octets& frame, std::size_t mtu, std::uint32_t id = 77) {
    rte_mbuf* whole = large_mbuf(frame);
    std::array<rte_mbuf*, 64> out{};
    const auto n = fragment_frame(whole, mtu, pools().for_size(mtu + 18), id, out);
    rte_pktmbuf_free(whole);
    Cut c;
    for (std::uint16_t i = 0; i < n; ++i) {
        c.pieces.push_back(contents(out[i]));
        rte_pktmbuf_free(out[i]);
    }
    return c;
}

class Fragments : public testing::Test {
  protected:
    void SetUp() override {
        small_before_ = rte_mempool_in_use_count(pools().small());
        large_before_ = rte_mempool_in_use_count(pools().large());
        make();
    }
    void TearDown() override {
        reassembler_.reset();
        EXPECT_EQ(rte_mempool_in_use_count(pools().small()), small_before_);
        EXPECT_EQ(rte_mempool_in_use_count(pools().large()), large_before_);
    }
    void make(std::size_t datagrams = 16) {
        reassembler_ = std::make_unique<Reassembler>(
            Reassembler::Config{.datagrams = datagrams, .timeout = std::chrono::seconds(2)},
            pools().large(), 99, counters_);
    }
    std::optional<Octets> add(const Octets& frame, std::uint32_t origin = 0) {
        rte_mbuf* m = reassembler_->add(large_mbuf(frame), now_, origin);
        if (m == nullptr) return std::nullopt;
        Octets whole = contents(m);
        rte_pktmbuf_free(m);
        return whole;
    }
    std::uint64_t dropped(PortDropReason reason) const { return counters_.dropped(reason); }
    std::uint64_t all_dropped() const {
        std::uint64_t n = 0;
        for (const auto& c : counters_.drops) n += c.get();
        return n;
    }

    PortCounters counters_;
    std::unique_ptr<Reassembler> reassembler_;
    TimePoint now_{std::chrono::hours(1)};
    unsigned small_before_ = 0;
    unsigned large_before_ = 0;
};

TEST_F(Fragments, CutAndMadeWholeInAnyOrder) {
    std::mt19937 order(1);
    for (const bool v6 : {false, true}) {
        for (const std::size_t size : {1490U, 1501U, 2000U, 4096U, 8000U, 12000U}) {
            for (const std::size_t mtu : {1280U, 1444U, 1500U}) {
                const Octets frame = plain_frame(flow(v6), size);
                ASSERT_TRUE(is_sound(frame));
                Cut c = cut(frame, mtu);
                ASSERT_GT(c.pieces.size(), 1U);
                for (const Octets& p : c.pieces) EXPECT_LE(p.size(), mtu + 14);
                for (int shuffle = 0; shuffle < 4; ++shuffle) {
                    if (shuffle > 0) std::shuffle(c.pieces.begin(), c.pieces.end(), order);
                    std::optional<Octets> whole;
                    for (std::size_t i = 0; i < c.pieces.size(); ++i) {
                        whole = add(c.pieces[i]);
                        EXPECT_EQ(whole.has_value(), i + 1 == c.pieces.size());
                    }
                    ASSERT_TRUE(whole);
                    EXPECT_TRUE(is_sound(*whole));
                    // The identification is not restored to what it was, all else is.
                    Octets expected = frame;
                    if (!v6) {
                        std::copy_n(whole->begin() + 18, 8, expected.begin() + 18);
                    }
                    EXPECT_EQ(*whole, expected) << v6 << ' ' << size << ' ' << mtu;
                }
            }
        }
    }
    EXPECT_EQ(all_dropped(), 0U);
    EXPECT_EQ(reassembler_->incomplete(), 0U);
}

TEST_F(Fragments, WhatFitsIsOnePiece) {
    const Octets frame = plain_frame(flow(false), 100);
    EXPECT_EQ(cut(frame, 1500).pieces.size(), 1U);
}

TEST_F(Fragments, TwoDatagramsAreNotMixed) {
    const Cut a = cut(plain_frame(flow(true), 3000), 1500, 1);
    const Cut b = cut(plain_frame(flow(true), 3001), 1500, 2);
    ASSERT_EQ(a.pieces.size(), b.pieces.size());
    for (std::size_t i = 0; i + 1 < a.pieces.size(); ++i) {
        EXPECT_FALSE(add(a.pieces[i]));
        EXPECT_FALSE(add(b.pieces[i]));
    }
    EXPECT_EQ(reassembler_->incomplete(), 2U);
    const auto whole_a = add(a.pieces.back());
    const auto whole_b = add(b.pieces.back());
    ASSERT_TRUE(whole_a && whole_b);
    EXPECT_EQ(whole_a->size() + 1, whole_b->size());
    EXPECT_TRUE(is_sound(*whole_a) && is_sound(*whole_b));
}

TEST_F(Fragments, OverlapDiscardsTheWholeDatagram) {
    for (const bool v6 : {false, true}) {
        const Cut c = cut(plain_frame(flow(v6), 4000), 1500);
        ASSERT_EQ(c.pieces.size(), 3U);
        const auto was = dropped(PortDropReason::fragment_overlap);
        EXPECT_FALSE(add(c.pieces[0]));
        EXPECT_FALSE(add(c.pieces[1]));
        EXPECT_FALSE(
            add(c.pieces[1]));  // again: an attacker's other version of it would look the same
        EXPECT_EQ(dropped(PortDropReason::fragment_overlap), was + 3);
        EXPECT_EQ(reassembler_->incomplete(), 0U);
    }
}

TEST_F(Fragments, SecondLastOrDataBeyondTheEndIsDiscarded) {
    const Cut longer = cut(plain_frame(flow(true), 4000), 1500, 5);
    const Cut shorter = cut(plain_frame(flow(true), 2500), 1500, 5);
    EXPECT_FALSE(add(longer.pieces[2]));
    EXPECT_FALSE(add(shorter.pieces[1]));  // a second end
    EXPECT_EQ(dropped(PortDropReason::fragment_overlap), 2U);
    EXPECT_FALSE(add(longer.pieces[1]));
    EXPECT_FALSE(add(shorter.pieces[1]));  // an end before what is there
    EXPECT_EQ(dropped(PortDropReason::fragment_overlap), 4U);
    EXPECT_EQ(reassembler_->incomplete(), 0U);
}

TEST_F(Fragments, IncompleteOnesDieInTime) {
    const Cut c = cut(plain_frame(flow(false), 4000), 1500);
    EXPECT_FALSE(add(c.pieces[0]));
    EXPECT_FALSE(add(c.pieces[1]));
    now_ += std::chrono::milliseconds(1999);
    reassembler_->expire(now_);
    EXPECT_EQ(reassembler_->incomplete(), 1U);
    now_ += std::chrono::milliseconds(1);
    reassembler_->expire(now_);
    EXPECT_EQ(reassembler_->incomplete(), 0U);
    EXPECT_EQ(dropped(PortDropReason::fragment_timeout), 2U);
    EXPECT_FALSE(add(c.pieces[2]));  // too late
    EXPECT_EQ(reassembler_->incomplete(), 1U);
}

TEST_F(Fragments, AFloodIsBoundedAndDoesNotKeepOthersOut) {
    make(16);
    const unsigned before = rte_mempool_in_use_count(pools().large());
    const Cut good = cut(plain_frame(flow(true), 3000), 1500, 0xffffffff);
    const Octets first = cut(plain_frame(flow(true), 3000), 1500, 0).pieces[0];
    for (std::uint32_t i = 0; i < 5000; ++i) {
        Octets piece = first;
        store_be32(piece.data() + 14 + 40 + 4, i);
        EXPECT_FALSE(add(piece));
        ASSERT_LE(reassembler_->incomplete(), 16U);
        ASSERT_LE(rte_mempool_in_use_count(pools().large()) - before, 16U);
        if (i % 1000 == 0) {
            std::optional<Octets> whole;
            for (const Octets& p : good.pieces) whole = add(p);
            EXPECT_TRUE(whole);
        }
    }
    EXPECT_EQ(dropped(PortDropReason::fragment_evicted) + reassembler_->incomplete(), 5000U);
}

// What came under an SA: its flood takes its own places, and nobody's else.
TEST_F(Fragments, AFloodUnderAnSaDoesNotReachTheOthers) {
    make(64);
    const Octets first = cut(plain_frame(flow(true), 3000), 1500, 0).pieces[0];
    std::uint32_t id = 0;
    for (const std::uint32_t flooder : {7U, 1000U}) {
        for (int i = 0; i < 500; ++i) {
            Octets piece = first;
            store_be32(piece.data() + 14 + 40 + 4, ++id);
            EXPECT_FALSE(add(piece, flooder));
        }
    }
    EXPECT_LE(reassembler_->incomplete(), 2 * 8U);
    // Others' datagrams, a piece before and the rest after it floods again: whole, all of them.
    std::vector<Cut> good;
    for (std::uint32_t origin = 1; origin <= 5; ++origin) {
        good.push_back(cut(plain_frame(flow(true), 3000), 1500, 0xffff0000U + origin));
        now_ += std::chrono::milliseconds(1);
        EXPECT_FALSE(add(good.back().pieces[0], 50 + origin));
    }
    for (int i = 0; i < 2000; ++i) {
        Octets piece = first;
        store_be32(piece.data() + 14 + 40 + 4, ++id);
        EXPECT_FALSE(add(piece, 7));
    }
    for (std::uint32_t origin = 1; origin <= 5; ++origin) {
        std::optional<Octets> whole;
        const auto& pieces = good[origin - 1].pieces;
        for (std::size_t i = 1; i < pieces.size(); ++i) whole = add(pieces[i], 50 + origin);
        EXPECT_TRUE(whole) << origin;
    }
}

TEST_F(Fragments, TooBigIsRefused) {
    Octets piece = cut(plain_frame(flow(true), 3000), 1500).pieces[0];
    store_be16(piece.data() + 14 + 40 + 2, static_cast<std::uint16_t>(16384U | 1U));
    EXPECT_FALSE(add(piece));
    EXPECT_EQ(dropped(PortDropReason::fragment_invalid), 1U);
    Octets v4 = cut(plain_frame(flow(false), 3000), 1500).pieces[0];
    store_be16(v4.data() + 14 + 6, 0x3fff);  // offset 65528
    EXPECT_FALSE(add(v4));
    EXPECT_EQ(dropped(PortDropReason::fragment_invalid), 2U);
}

TEST_F(Fragments, ImpossibleLengthsAreRefused) {
    const Octets v4 = cut(plain_frame(flow(false), 3000), 1500).pieces[0];
    const Octets v6 = cut(plain_frame(flow(true), 3000), 1500).pieces[0];
    std::uint64_t refused = 0;
    const auto refuse = [&](Octets frame, const char* what) {
        EXPECT_FALSE(add(frame)) << what;
        EXPECT_EQ(dropped(PortDropReason::fragment_invalid), ++refused) << what;
    };
    for (const std::size_t size : {0U, 13U, 14U, 17U, 33U, 34U})
        refuse(Octets(v4.begin(), v4.begin() + static_cast<long>(size)), "short");
    for (const std::size_t size : {53U, 54U, 61U, 62U})
        refuse(Octets(v6.begin(), v6.begin() + static_cast<long>(size)), "short");
    Octets f = v4;
    f[14] = 0x44;
    refuse(f, "header length 16");
    f = v4;
    store_be16(f.data() + 16, 20);
    refuse(f, "no data");
    f = v4;
    store_be16(f.data() + 16, static_cast<std::uint16_t>(f.size() - 14 + 1));
    refuse(f, "longer than the frame");
    f = v4;
    store_be16(f.data() + 16, 20 + 9);
    refuse(f, "not a multiple of 8, and not the last");
    f = v6;
    store_be16(f.data() + 18, 8);
    refuse(f, "IPv6 without data");
    f = v6;
    f[20] = 17;
    refuse(f, "IPv6 without a fragment header");
}

TEST_F(Fragments, ExtensionHeadersBeforeTheFragmentHeaderStay) {
    const Octets frame = plain_frame(flow(true), 3000);
    // Hop-by-hop options (PadN) behind the IPv6 header.
    Octets with = frame;
    with[20] = 0;
    const Octets options{17, 0, 1, 4, 0, 0, 0, 0};
    with.insert(with.begin() + 54, options.begin(), options.end());
    store_be16(with.data() + 18, static_cast<std::uint16_t>(load_be16(with.data() + 18) + 8));
    const Cut c = cut(with, 1500);
    ASSERT_EQ(c.pieces.size(), 3U);
    EXPECT_EQ(c.pieces[0][20], 0);
    EXPECT_EQ(c.pieces[0][54], 44);
    std::optional<Octets> whole;
    for (const Octets& p : c.pieces) whole = add(p);
    ASSERT_TRUE(whole);
    EXPECT_EQ(*whole, with);
}

TEST_F(Fragments, AtomicFragmentIsWholeAtOnce) {
    const Octets frame = plain_frame(flow(true), 64);
    Octets atomic = frame;
    const Octets header{17, 0, 0, 0, 0, 0, 0, 9};
    atomic.insert(atomic.begin() + 54, header.begin(), header.end());
    atomic[20] = 44;
    store_be16(atomic.data() + 18, static_cast<std::uint16_t>(load_be16(atomic.data() + 18) + 8));
    EXPECT_EQ(add(atomic), frame);
}

TEST_F(Fragments, DamagedFragmentsNeverCostABuffer) {
    std::mt19937 random(7);
    std::vector<Octets> seeds;
    for (const bool v6 : {false, true}) {
        for (Octets& p : cut(plain_frame(flow(v6), 4000), 1500).pieces)
            seeds.push_back(std::move(p));
    }
    for (int i = 0; i < 20000; ++i) {
        Octets f = seeds[random() % seeds.size()];
        for (unsigned n = random() % 4; n != 0; --n)
            f[random() % 70] = static_cast<std::uint8_t>(random());
        if (random() % 8 == 0) f.resize(random() % f.size());
        if (const auto whole = add(f)) {
            EXPECT_LE(whole->size(), BufferPools::large_room);
        }
        now_ += std::chrono::milliseconds(1);
    }
    now_ += std::chrono::seconds(3);
    reassembler_->expire(now_);
    EXPECT_EQ(reassembler_->incomplete(), 0U);
}

TEST_F(Fragments, CuttingRefusesWhatItCannotCut) {
    std::array<rte_mbuf*, 64> out{};
    const auto refused = [&](const Octets& frame, std::size_t mtu, std::size_t room) {
        rte_mbuf* m = large_mbuf(frame);
        const auto n = fragment_frame(m, mtu, pools().small(), 1, std::span(out).first(room));
        rte_pktmbuf_free(m);
        return n == 0;
    };
    const Octets frame = plain_frame(flow(false), 4000);
    EXPECT_TRUE(refused(frame, 1500, 2));
    EXPECT_TRUE(refused(frame, 27, 64));
    EXPECT_TRUE(refused(Octets(frame.begin(), frame.begin() + 30), 1500, 64));
    EXPECT_TRUE(refused(frame, 4000, 64)) << "pieces larger than the pool's buffers";
    Octets arp = frame;
    arp[13] = 6;
    EXPECT_TRUE(refused(arp, 1500, 64));
}

}  // namespace
}  // namespace gmgate::dataplane::test
