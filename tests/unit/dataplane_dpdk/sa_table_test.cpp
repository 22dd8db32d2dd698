#include "dataplane/dpdk/sa_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>

#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using test::Phone;

constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};

class Table : public testing::Test {
  protected:
    static constexpr std::size_t capacity = 32;
    SeededRandom random_{1};
    SaTable table_{
        {.capacity = capacity, .huge_pages = false}, make_engine(best_engine()), random_};

    // What refuses leaves everything free: the same set, put right, fits.
    ErrorKind refusal(const sa::SetParams& params) {
        const std::size_t before = table_.installed();
        const auto r = table_.publish(params);
        EXPECT_FALSE(r.has_value());
        EXPECT_EQ(table_.installed(), before);
        return r ? ErrorKind::io : r.error().kind;
    }
};

TEST_F(Table, RefusesWhatCannotBe) {
    const Phone phone(0, sha1, false, random_);
    sa::SetParams p = phone.params();
    p.suite = {sa::Integrity::null, sa::Encryption::null};
    EXPECT_EQ(refusal(p), ErrorKind::unsupported);
    p = phone.params();
    p.id = 0;
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    p = phone.params();
    p.ours = test::our_address(true);
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    p = phone.params();
    p.numbers.spi_ps = 17;
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    p = phone.params();
    p.numbers.spi_ps = sa::SpiLayout::make(1, 0, 2 * capacity);
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    p = phone.params();
    p.numbers.spi_ps = sa::SpiLayout::make(1, 1, 0);
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    p = phone.params();
    p.numbers.spi_us = p.numbers.spi_pc;
    EXPECT_EQ(refusal(p), ErrorKind::invalid) << "one SPI in both directions (A4)";
    p = phone.params();
    p.numbers.spi_pc = sa::SpiLayout::make(2, 0, sa::SpiLayout::slot(p.numbers.spi_ps));
    EXPECT_EQ(refusal(p), ErrorKind::conflict);
    p = phone.params();
    p.numbers.port_uc = 0;
    EXPECT_EQ(refusal(p), ErrorKind::invalid);
    ASSERT_TRUE(table_.publish(phone.params()).has_value());

    // Taken: a slot, a flow.
    p = Phone(1, sha1, false, random_).params();
    p.numbers.spi_pc = sa::SpiLayout::make(3, 0, sa::SpiLayout::slot(phone.numbers.spi_ps));
    const Phone second(1, sha1, false, random_);
    p.ck = &second.ck;
    p.ik = &second.ik;
    EXPECT_EQ(refusal(p), ErrorKind::conflict);
    p = second.params();
    p.ue = phone.ue;
    p.numbers.port_pc = phone.numbers.port_pc;
    p.numbers.port_us = phone.numbers.port_us;
    EXPECT_EQ(refusal(p), ErrorKind::conflict);
    EXPECT_TRUE(table_.publish(second.params()).has_value());
    EXPECT_EQ(table_.installed(), 2U);
}

TEST_F(Table, FillsToItsCapacityManyTimes) {
    for (std::uint32_t round = 1; round <= 3; ++round) {
        std::vector<SetHandle> handles;
        for (std::uint32_t n = 0; n < capacity; ++n) {
            const Phone phone(n, sa::all_suites[(n + round) % sa::all_suites.size()], n % 2 == 0,
                              random_, 0, round);
            const auto r = table_.publish(phone.params());
            ASSERT_TRUE(r.has_value()) << r.error().text;
            handles.push_back(*r);
        }
        sa::SetParams more = Phone(40, sha1, false, random_).params();
        const Phone extra(40, sha1, false, random_);
        more.ck = &extra.ck;
        more.ik = &extra.ik;
        more.numbers.spi_ps = sa::SpiLayout::make(round + 5, 0, 0);
        EXPECT_EQ(refusal(more), ErrorKind::conflict);
        EXPECT_EQ(table_.installed(), capacity);
        for (const SetHandle h : handles) table_.unpublish(h);
        EXPECT_EQ(table_.installed(), 0U);
        for (const SetHandle h : handles) table_.reclaim(h);
    }
}

TEST(TableExhaustion, MoreSlotsThanSets) {
    SeededRandom random(3);
    SaTable table({.capacity = 2, .slots = 64, .huge_pages = false}, make_engine(best_engine()),
                  random);
    const Phone a(0, sha1, false, random), b(1, sha1, false, random), c(2, sha1, false, random);
    const auto first = table.publish(a.params());
    ASSERT_TRUE(first.has_value());
    ASSERT_TRUE(table.publish(b.params()).has_value());
    const auto third = table.publish(c.params());
    ASSERT_FALSE(third.has_value());
    EXPECT_EQ(third.error().kind, ErrorKind::exhausted);
    table.unpublish(*first);
    EXPECT_FALSE(table.publish(c.params()).has_value()) << "not before the grace period is over";
    table.reclaim(*first);
    EXPECT_TRUE(table.publish(c.params()).has_value());
}

TEST_F(Table, ReclaimWipesTheKeys) {
    for (const sa::Suite suite : sa::all_suites) {
        const Phone phone(0, suite, false, random_);
        const auto handle = table_.publish(phone.params());
        ASSERT_TRUE(handle.has_value());
        const InboundSa& sa = table_.slot_of(phone.numbers.spi_ps);
        const std::uint8_t* schedule = table_.schedule(sa.suite, sa.schedule);
        const std::size_t size = make_engine(best_engine())->schedule_size(suite);
        const auto zeros = [](const std::uint8_t* p, std::size_t n) {
            return std::all_of(p, p + n, [](std::uint8_t o) { return o == 0; });
        };
        EXPECT_TRUE(!zeros(sa.small_key.data(), small_key_size) ||
                    (size != 0 && !zeros(schedule, size)));
        table_.unpublish(*handle);
        table_.reclaim(*handle);
        EXPECT_TRUE(zeros(sa.small_key.data(), small_key_size));
        EXPECT_TRUE(zeros(table_.slot_of(phone.numbers.spi_pc).small_key.data(), small_key_size));
        // The first octets of a free schedule chain it to the next free one.
        if (size != 0) {
            EXPECT_TRUE(zeros(schedule + 4, size - 4)) << sa::to_string(suite);
        }
    }
}

TEST_F(Table, ReclaimBeforeUnpublishDoesNothing) {
    const Phone phone(0, sha1, false, random_);
    const auto handle = table_.publish(phone.params());
    ASSERT_TRUE(handle.has_value());
    table_.reclaim(*handle);
    EXPECT_EQ(table_.installed(), 1U);
    EXPECT_EQ(table_.slot_of(phone.numbers.spi_ps).spi.load(), phone.numbers.spi_ps);
    table_.unpublish(*handle);
    table_.unpublish(*handle);
    EXPECT_EQ(table_.installed(), 0U);
}

TEST(TableConfig, OutOfRange) {
    SeededRandom random(2);
    const auto make = [&](const SaTableConfig& c) {
        SaTable(c, make_engine(best_engine()), random);
    };
    EXPECT_THROW(make({.capacity = 0}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = (1U << 21U) + 1}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = 1, .workers = 0}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = 1, .workers = 17}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = 1, .replay_bits = 32}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = 1, .replay_bits = 96}), std::invalid_argument);
    EXPECT_THROW(make({.capacity = 1, .replay_bits = 8192}), std::invalid_argument);
    EXPECT_NO_THROW(make({.capacity = 1, .replay_bits = 4096}));
}

TEST(OutboundTable, FindsExactlyWhatIsInIt) {
    constexpr std::uint32_t count = 50000;
    OutboundTable table(count, {0x1234567890ABCDEFULL, 0xFEDCBA0987654321ULL}, false);
    const auto key = [](std::uint32_t n) {
        FlowKey k;
        k.ours = {10, 0, 0, 1};
        // Few addresses, many ports, as behind one operator's NAT: the hash must spread them.
        k.ue = {10, 1, 0, static_cast<std::uint8_t>(n % 7)};
        k.our_port = static_cast<std::uint16_t>(5064 + n % 3);
        k.ue_port = static_cast<std::uint16_t>(n / 21 + 1000);
        k.v6 = 0;
        return k;
    };
    std::vector<std::uint32_t> records;
    for (std::uint32_t n = 0; n < count; ++n) {
        const std::uint32_t r = table.allocate();
        ASSERT_NE(r, OutboundTable::none);
        OutboundSa& sa = table.record(r);
        const FlowKey k = key(n);
        sa.ours = k.ours;
        sa.ue = k.ue;
        sa.our_port = k.our_port;
        sa.ue_port = k.ue_port;
        ASSERT_EQ(table.lookup(k), OutboundTable::none);
        ASSERT_GE(table.room(r), 2U) << n;
        table.link(r);
        records.push_back(r);
    }
    EXPECT_EQ(table.allocate(), OutboundTable::none);
    for (std::uint32_t n = 0; n < count; ++n) ASSERT_EQ(table.lookup(key(n)), records[n]);
    for (std::uint32_t n = 0; n < count; n += 2) table.unlink(records[n]);
    for (std::uint32_t n = 0; n < count; ++n)
        ASSERT_EQ(table.lookup(key(n)), n % 2 == 0 ? OutboundTable::none : records[n]);
    for (std::uint32_t n = 0; n < count; n += 2) table.release(records[n]);
    EXPECT_NE(table.allocate(), OutboundTable::none);
}

// One control thread publishes and removes while a worker receives and sends on the same numbers.
// The grace period is a counter the worker advances between bursts, as the workers' RCU does. Run
// under ThreadSanitizer this is the proof of the protocol.
TEST(TableUnderTraffic, PublishAndRemoveWhileAWorkerWorks) {
    test::start_eal();
    SeededRandom random(9);
    SaTable table({.capacity = 8, .huge_pages = false}, make_engine(best_engine()), random);
    FastPathConfig config;
    config.our_addresses = {test::our_address(false)};
    config.protected_ports.add(test::port_ps);
    FastPath path(config, table, make_engine(best_engine()), random);

    constexpr std::uint32_t rounds = 200;
    std::vector<std::unique_ptr<Phone>> phones;
    for (std::uint32_t n = 0; n < 2; ++n) {
        for (const sa::Suite suite : {sa::all_suites[0], sa::all_suites[3]}) {
            phones.push_back(std::make_unique<Phone>(
                n, suite, false, random, 0, static_cast<std::uint32_t>(phones.size() + 1)));
        }
    }
    std::vector<test::Octets> wire, plain;
    for (const auto& p : phones) {
        wire.push_back(p->esp_up(1, 100));
        plain.push_back(test::plain_frame(p->down(false), 100));
    }
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> quiescent{0};
    std::uint64_t authentic = 0;
    std::uint64_t sent = 0;
    std::thread worker([&] {
        InboundResult in;
        OutboundResult out;
        while (!stop.load(std::memory_order_relaxed)) {
            for (std::size_t i = 0; i < wire.size(); ++i) {
                rte_mbuf* m = test::make_mbuf(wire[i]);
                path.inbound(&m, 1, 1, in);
                authentic += in.to_host.count;
                for (rte_mbuf* p : in.to_host.all()) rte_pktmbuf_free(p);
                m = test::make_mbuf(plain[i]);
                path.outbound(&m, 1, 1, out);
                sent += out.to_wire.count;
                for (rte_mbuf* p : out.to_wire.all()) rte_pktmbuf_free(p);
            }
            quiescent.fetch_add(1, std::memory_order_acq_rel);
            std::this_thread::yield();
        }
    });
    const auto grace = [&] {
        const std::uint64_t from = quiescent.load(std::memory_order_acquire);
        while (quiescent.load(std::memory_order_acquire) < from + 2) std::this_thread::yield();
    };
    std::uint64_t received = 0;
    for (std::uint32_t round = 0; round < rounds; ++round) {
        // Phones 0 and 1 share their slots, so do 2 and 3: only the generation tells them apart.
        std::vector<SetHandle> handles;
        for (const std::size_t i : {round % 2, 2 + round % 2}) {
            const auto r = table.publish(phones[i]->params());
            ASSERT_TRUE(r.has_value()) << r.error().text;
            handles.push_back(*r);
        }
        grace();
        for (const SetHandle h : handles) {
            const SetCounters c = table.counters(h);
            EXPECT_EQ(c.in_packets, 1U) << "once, whatever the replays";
            EXPECT_GE(c.out_packets, 1U);
            received += c.in_packets;
            table.unpublish(h);
        }
        grace();
        for (const SetHandle h : handles) table.reclaim(h);
        while (path.events().pop()) {
        }
    }
    stop.store(true);
    worker.join();
    EXPECT_EQ(received, 2U * rounds);
    EXPECT_EQ(authentic, received);
    EXPECT_GE(sent, 2U * rounds);
    EXPECT_EQ(path.counters().dropped(DropReason::integrity), 0U);
    EXPECT_EQ(path.counters().dropped(DropReason::crypto), 0U);
}

}  // namespace
}  // namespace gmgate::dataplane
