// S1, component by component: keys lie outside core dumps while they are in use, are nowhere when
// they are not, and in nothing a person can read. tests/smoke/memory_test looks into the running
// programs.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/log.h"
#include "base/secret_text.h"
#include "control/ops/protocol.h"
#include "control/ops/registration_view.h"
#include "control/ops/sa_view.h"
#include "home/local_hss.h"
#include "home/subscribers.h"
#include "sa/database.h"
#include "tests/conformance/share.h"
#include "tests/support/conformance_world.h"
#include "tests/support/key_search.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"
#include "ue/key_log.h"
#include "ue/subscriber_file.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NOT_UNDER_A_SANITIZER() \
    GTEST_SKIP() << "a sanitizer keeps memory of its own: keys cannot be told apart in it"
#else
#define NOT_UNDER_A_SANITIZER() static_cast<void>(0)
#endif

namespace gmgate {
namespace {

using conformance::share;
using dataplane::test::FastPathTest;
using dataplane::test::Octets;
using test::KeySearch;

struct AkaKeys {
    sa::AkaKey ck;
    sa::AkaKey ik;
};
SecretPtr<AkaKeys> draw(Random& random) {
    auto keys = make_secret<AkaKeys>();
    random.fill(keys->ck.writable());
    random.fill(keys->ik.writable());
    return keys;
}

class S1_packets : public FastPathTest {};

// CK and IK, what they are expanded to, and the schedules that the engine makes of that.
TEST_F(S1_packets, KeysOfARemovedSetAreNowhere) {
    share("packet layer");
    NOT_UNDER_A_SANITIZER();
    const auto engine = dataplane::make_engine(engine_);
    SeededRandom own(51);
    KeySearch search;
    std::vector<dataplane::SetHandle> sets;
    std::vector<SecretPtr<AkaKeys>> keys;
    std::vector<sa::SetParams> params;
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        keys.push_back(draw(own));  // no other test has had these
        const AkaKeys& k = *keys.back();
        const SecretPages schedule(engine->schedule_size(suite) + 64);
        {
            const sa::EspKeys expanded = sa::expand_keys(suite, k.ck, k.ik);
            std::array<std::uint8_t, dataplane::small_key_size> small{};
            engine->expand(suite, expanded, small,
                           schedule.bytes().first(engine->schedule_size(suite)));
            for (const auto& part :
                 {std::span<const std::uint8_t>(k.ck.reveal()),
                  std::span<const std::uint8_t>(k.ik.reveal()), expanded.encryption(),
                  expanded.integrity(), std::span<const std::uint8_t>(small),
                  std::span<const std::uint8_t>(schedule.bytes())})
                search.add(part);
            wipe(small);
        }
        sa::SetParams p;
        p.id = n + 1;
        p.ue = *IpAddress::parse("10.1.0." + std::to_string(n + 1));
        p.ours = dataplane::test::our_address(false);
        p.suite = suite;
        p.numbers = {};
        p.numbers.spi_ps = sa::SpiLayout::make(1, 0, 2 * n);
        p.numbers.spi_pc = sa::SpiLayout::make(1, 0, 2 * n + 1);
        p.numbers.spi_uc = 0x11110000 + n;
        p.numbers.spi_us = 0x22220000 + n;
        p.numbers.port_ps = dataplane::test::port_ps;
        p.numbers.port_pc = static_cast<sa::Port>(dataplane::test::first_port_pc + n);
        p.numbers.port_uc = static_cast<sa::Port>(30000 + n);
        p.numbers.port_us = static_cast<sa::Port>(40000 + n);
        p.ck = &k.ck;
        p.ik = &k.ik;
        params.push_back(p);
        ++n;
    }
    const std::size_t all = search.size();
    wipe_stack();
    for (const sa::SetParams& p : params) {
        const auto handle = table_.publish(p);
        ASSERT_TRUE(handle.has_value()) << handle.error().text;
        sets.push_back(*handle);
    }
    // Each key is used: packets out, and forged ones in.
    for (const sa::SetParams& p : params) {
        const auto octets = [](const IpAddress& a) {
            return Octets(a.octets().begin(), a.octets().end());
        };
        const dataplane::test::Flow down{
            false, false, octets(p.ours), octets(p.ue), p.numbers.port_ps, p.numbers.port_uc};
        const auto out = outbound({dataplane::test::plain_frame(down, 200)});
        ASSERT_EQ(out.to_wire.size(), 1U) << sa::to_string(p.suite);
        Octets forged = out.to_wire[0];
        for (std::size_t i = 0; i < 4; ++i) std::swap(forged[26 + i], forged[30 + i]);
        store_be32(&forged[34], p.numbers.spi_ps);
        EXPECT_TRUE(inbound({forged}).to_host.empty());
    }
    keys.clear();
    wipe_stack();
    const auto in_use = search.run();
    EXPECT_GE(in_use.secret, all / 4) << "the search sees nothing";
    EXPECT_EQ(in_use.in_dumps, 0U) << in_use.where;
    for (const dataplane::SetHandle set : sets) {
        table_.unpublish(set);
        table_.reclaim(set);
    }
    const auto gone = search.run();
    EXPECT_EQ(gone.secret, 0U);
    EXPECT_EQ(gone.in_dumps, 0U) << gone.where;
}

// Keeps nothing: what is found is the database's.
class Forgetful final : public sa::Backend {
  public:
    Result<void> install(const sa::SetParams&) override { return {}; }
    void remove(sa::SetId) override {}
    void remove(std::span<const sa::SetId>) override {}
    void stats(std::span<const sa::SetId>, std::span<sa::SetStats> s) const override {
        std::ranges::fill(s, sa::SetStats{});
    }
    [[nodiscard]] int event_fd() const override { return -1; }
    void drain_events(const std::function<void(const sa::BackendEvent&)>&) override {}
    [[nodiscard]] std::uint32_t owner_of(const IpAddress&, const IpAddress&) const override {
        return 0;
    }
    [[nodiscard]] std::size_t capacity() const override { return 64; }
    [[nodiscard]] std::size_t installed() const override { return 0; }
};

TEST(S1, KeysLeaveTheDatabaseWithTheirSet) {
    share("sa");
    NOT_UNDER_A_SANITIZER();
    ManualClock clock;
    SeededRandom random(8);
    TimerWheel wheel(clock);
    Forgetful backend;
    auto made = sa::SaDatabase::create({}, backend, wheel, random);
    ASSERT_TRUE(made.has_value());
    sa::SaDatabase& db = **made;
    KeySearch search;
    std::vector<sa::SetId> sets;
    for (unsigned i = 0; i < 20; ++i) {
        const auto keys = draw(random);
        search.add(keys->ck.reveal());
        search.add(keys->ik.reveal());
        const std::string impi = "u" + std::to_string(i) + "@home.example";
        sa::ReserveRequest r;
        r.impi = impi;
        r.ue = *IpAddress::parse("10.0.0." + std::to_string(i + 1));
        r.ours = *IpAddress::parse("10.9.9.9");
        r.spi_uc = 1000 + 2 * i;
        r.spi_us = 1001 + 2 * i;
        r.port_uc = static_cast<sa::Port>(20000 + i);
        r.port_us = 6100;
        r.ck = &keys->ck;
        r.ik = &keys->ik;
        const auto id = db.reserve(r);
        ASSERT_TRUE(id.has_value()) << id.error().text;
        ASSERT_TRUE(db.install(*id).has_value());
        ASSERT_TRUE(db.apply(*id, sa::Event::sm6_sent));
        sets.push_back(*id);
    }
    wipe_stack();
    const auto held = search.run();
    EXPECT_GE(held.secret, search.size());
    EXPECT_EQ(held.in_dumps, 0U) << held.where;
    // Each way of a failed procedure, and the time-out for the rest.
    const std::array ends{sa::Event::auth_rejected, sa::Event::network_auth_failure,
                          sa::Event::sync_failure, sa::Event::consistency_failure,
                          sa::Event::aborted};
    for (std::size_t i = 0; i < ends.size(); ++i) EXPECT_TRUE(db.apply(sets[i], ends[i]));
    clock.advance(std::chrono::seconds(241));
    wheel.advance();
    clock.advance(std::chrono::seconds(1));
    wheel.advance();
    EXPECT_EQ(db.set_count(), 0U);
    const auto gone = search.run();
    EXPECT_EQ(gone.secret, 0U);
    EXPECT_EQ(gone.in_dumps, 0U) << gone.where;
}

// All the operator's API can say of phones with keys, and of those that failed: gmctl prints
// nothing else. It has no verb for a key.
TEST(S1, NothingTheOperatorCanAskForHoldsAKey) {
    share("operator");
    test::Procedure c(true);
    test::Phone& p = c.p;
    p.send_wrong_sm7();
    c.w.run();
    ASSERT_TRUE(p.reregister());
    test::Phone& waiting = c.w.phone("waiting", "10.2.0.7");
    ASSERT_TRUE(waiting.challenged());
    ASSERT_GE(c.w.keys.size(), 6U);

    const ops::SaDatabaseView sas(*c.w.sets, c.w.backend);
    const ops::GatewayView view(*c.w.gateway, *c.w.sets, c.w.clock);
    std::string text;
    std::size_t rows = 0;
    const auto say = [&](const nlohmann::json& row) {
        text += row.dump() + "\n";
        ++rows;
    };
    ops::Cursor cursor = 0;
    do {
        cursor = sas.scan({}, cursor, 100, true,
                          [&](const ops::SaRow& row) { say(ops::to_json(row, true)); });
    } while (cursor != 0);
    do {
        cursor = view.scan({}, cursor, 100,
                           [&](const ops::RegistrationRow& row) { say(ops::to_json(row)); });
    } while (cursor != 0);
    for (const auto& step : view.steps({p.impi, waiting.impi})) say(ops::to_json(step));
    for (const auto& f : view.failure_totals()) say(ops::to_json(f));
    for (const auto& f : view.latest_failures(100, std::nullopt, std::nullopt))
        say(ops::to_json(f));
    EXPECT_GE(rows, 20U);
    EXPECT_NE(text.find(p.impi), std::string::npos);
    for (const std::string& key : c.w.keys) {
        EXPECT_EQ(text.find(key), std::string::npos);
        std::string capitals = key;
        for (char& ch : capitals)
            ch = static_cast<char>(std::toupper(static_cast<unsigned char>(ch)));
        EXPECT_EQ(text.find(capitals), std::string::npos);
    }
    for (const std::string_view verb : {"keys", "sa.keys", "sa.export", "reg.keys", "dump"}) {
        EXPECT_FALSE(ops::parse_request(R"({"v":1,"id":1,"cmd":")" + std::string(verb) + "\"}"));
    }
}

// K and OPc of a subscriber are in secret memory while it exists; neither they nor what the HSS
// makes of them stands in a log.
TEST(S1, TheHomeNetworkKeepsItsSubscribersKeysApart) {
    share("home");
    std::string log;
    log::configure(log::Level::debug, false);
    testing::internal::CaptureStderr();
    std::vector<std::string> keys;
    {
        test::Procedure c(true);
        c.p.send_wrong_sm7();
        c.w.run();
        ASSERT_TRUE(c.p.reregister());
        keys = c.w.keys;
    }
    log = testing::internal::GetCapturedStderr();
    log::configure(log::Level::info, true);
    EXPECT_FALSE(log.empty());
    ASSERT_GE(keys.size(), 4U);
    for (const std::string& key : keys) EXPECT_EQ(log.find(key), std::string::npos);

    NOT_UNDER_A_SANITIZER();
    KeySearch search;
    SeededRandom random(9);
    const std::string path = testing::TempDir() + "s1_subscribers.csv";
    {
        std::ofstream file(path);
        file << "imsi,k,opc\n" << std::unitbuf;
        for (int i = 0; i < 8; ++i) {
            const auto card = draw(random);
            search.add(card->ck.reveal());
            search.add(card->ik.reveal());
            std::string hex[2];
            int n = 0;
            for (const auto key : {card->ck.reveal(), card->ik.reveal()}) {
                hex[n] = to_hex(key);
                search.add(as_bytes(hex[n]));
                ++n;
            }
            file << "00101000000010" << i << ',' << hex[0] << ',' << hex[1] << '\n';
            for (std::string& h : hex) wipe({reinterpret_cast<std::uint8_t*>(h.data()), h.size()});
        }
    }
    {
        // What the test itself wrote went through a buffer of the library's.
        std::ofstream scratch(path + ".scratch");
        scratch << std::string(16384, '.');
    }
    std::filesystem::remove(path + ".scratch");
    search.forget_what_is_there();
    ASSERT_GE(search.size(), 40U);
    home::LocalHss hss(random);
    {
        auto list = home::load_subscribers(path, "home.example");
        ASSERT_TRUE(list.has_value()) << list.error().text;
        for (auto& s : *list) ASSERT_TRUE(hss.add(std::move(s)).has_value());
    }
    std::filesystem::remove(path);
    wipe_stack();
    const auto held = search.run();
    EXPECT_GE(held.secret, 16U);
    EXPECT_EQ(held.in_dumps, 0U) << held.where;
}

// Cards likewise; and a table of keys for Wireshark only where one was asked for by name, for
// nobody else to read.
TEST(S1, APhoneWritesKeysOnlyWhereItWasTold) {
    share("ue");
    const std::string path = testing::TempDir() + "s1_key_log";
    std::filesystem::remove(path);
    {
        const auto log = ue::FileKeyLog::open(path);
        ASSERT_TRUE(log.has_value()) << log.error().text;
        struct stat about{};
        ASSERT_EQ(::stat(path.c_str(), &about), 0);
        EXPECT_EQ(about.st_mode & 0777U, 0600U);
    }
    std::filesystem::permissions(path, std::filesystem::perms::others_read,
                                 std::filesystem::perm_options::add);
    EXPECT_FALSE(ue::FileKeyLog::open(path).has_value());
    std::filesystem::remove(path);

    NOT_UNDER_A_SANITIZER();
    KeySearch search;
    SeededRandom random(10);
    // The test's own text leaves nothing behind either.
    WipedText text("imsi,k,opc\n");
    text.reserve(4096);
    for (int i = 0; i < 8; ++i) {
        const auto card = draw(random);
        text += "00101000000010";
        text += static_cast<char>('0' + i);
        for (const auto key : {card->ck.reveal(), card->ik.reveal()}) {
            search.add(key);
            text += ',';
            const std::size_t from = text.size();
            for (const std::uint8_t octet : key) {
                text += "0123456789abcdef"[octet >> 4U];
                text += "0123456789abcdef"[octet & 0xFU];
            }
            search.add(as_bytes(std::string_view(text).substr(from)));
        }
        text += '\n';
    }
    const auto file = ue::SubscriberFile::parse(text, "cards.csv");
    ASSERT_TRUE(file.has_value()) << file.error().text;
    wipe({reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
    wipe_stack();
    const auto held = search.run();
    EXPECT_GE(held.secret, 32U) << "K and OPc of eight cards";
    EXPECT_EQ(held.in_dumps, 0U) << held.where;
}

}  // namespace
}  // namespace gmgate
