// Two layers fed by one install: all or nothing, whichever refuses, in every order.
#include "dataplane/core/screen_backend.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/support/fake_backend.h"

namespace gmgate::dataplane {
namespace {

using gmgate::test::FakeBackend;
using Journal = std::vector<std::string>;

// Writes down what it is asked, and by which name.
class Layer final : public FakeBackend {
  public:
    Layer(std::string name, Journal& journal, std::size_t capacity = 64)
        : FakeBackend(capacity), name_(std::move(name)), journal_(journal) {}
    ~Layer() override {
        if (fd_ >= 0) ::close(fd_);
    }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

    [[nodiscard]] Result<void> install(const sa::SetParams& p) override {
        journal_.push_back(name_ + " install");
        return FakeBackend::install(p);
    }
    using FakeBackend::remove;
    void remove(std::span<const sa::SetId> ids) override {
        journal_.push_back(name_ + " remove " + std::to_string(ids.size()));
        FakeBackend::remove(ids);
    }
    [[nodiscard]] int event_fd() const override { return fd_; }
    void with_fd() { fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    void ring() const {
        const std::uint64_t one = 1;
        ASSERT_EQ(::write(fd_, &one, sizeof(one)), 8);
    }
    void quiet() const {
        std::uint64_t count = 0;
        (void)!::read(fd_, &count, sizeof(count));
    }
    [[nodiscard]] std::set<sa::SetId> ids() const {
        std::set<sa::SetId> all;
        for (const auto& [id, s] : sets()) all.insert(id);
        return all;
    }

  private:
    std::string name_;
    Journal& journal_;
    int fd_ = -1;
};

struct Set {
    explicit Set(sa::SetId id) {
        const auto n = static_cast<std::uint32_t>(id);
        params.id = id;
        params.ue = *IpAddress::parse("10.1.0." + std::to_string(n));
        params.ours = *IpAddress::parse("10.0.0.1");
        params.numbers = {.spi_uc = 0x10000 + n,
                          .spi_us = 0x20000 + n,
                          .spi_pc = sa::SpiLayout::make(1, 0, 2 * n),
                          .spi_ps = sa::SpiLayout::make(1, 0, 2 * n + 1),
                          .port_uc = 31000,
                          .port_us = 32000,
                          .port_pc = 6200,
                          .port_ps = 6100};
        params.suite = {sa::Integrity::null, sa::Encryption::aes_gcm};
        params.ck = &ck;
        params.ik = &ik;
    }
    sa::AkaKey ck;
    sa::AkaKey ik;
    sa::SetParams params;
};

class Screen : public testing::Test {
  protected:
    void SetUp() override {
        auto made = ScreenBackend::create(front_, behind_);
        ASSERT_TRUE(made) << made.error().text;
        screen_ = std::move(*made);
    }
    Journal journal_;
    Layer front_{"front", journal_, 60};
    Layer behind_{"behind", journal_, 40};
    std::unique_ptr<ScreenBackend> screen_;
};

TEST_F(Screen, OpensFromBehindAndClosesFromTheFront) {
    const Set a(1), b(2);
    ASSERT_TRUE(screen_->install(a.params));
    EXPECT_EQ(journal_, (Journal{"behind install", "front install"}));
    ASSERT_TRUE(screen_->install(b.params));
    EXPECT_TRUE(front_.has(1) && behind_.has(1) && front_.has(2) && behind_.has(2));
    EXPECT_EQ(screen_->installed(), 2U);
    EXPECT_EQ(front_.set(1)->numbers, behind_.set(1)->numbers);
    journal_.clear();
    const std::vector<sa::SetId> ids{1, 2, 77};
    screen_->remove(ids);
    EXPECT_EQ(journal_, (Journal{"front remove 3", "behind remove 3"}));
    EXPECT_EQ(front_.sets().size() + behind_.sets().size(), 0U);
    journal_.clear();
    screen_->remove(5);
    EXPECT_EQ(journal_, (Journal{"front remove 1", "behind remove 1"}));
}

TEST_F(Screen, RefusedBehindTheFrontIsNeverAsked) {
    const Set a(1);
    for (const ErrorKind kind : {ErrorKind::exhausted, ErrorKind::conflict, ErrorKind::unsupported,
                                 ErrorKind::denied, ErrorKind::io}) {
        journal_.clear();
        behind_.fail_install(kind);
        const auto done = screen_->install(a.params);
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().kind, kind);
        EXPECT_EQ(journal_, Journal{"behind install"});
        EXPECT_EQ(front_.sets().size() + behind_.sets().size(), 0U);
    }
    EXPECT_EQ(screen_->undone(), 0U);
    EXPECT_TRUE(screen_->install(a.params));
}

TEST_F(Screen, RefusedInFrontWhatIsBehindIsTakenBack) {
    const Set a(1);
    for (const ErrorKind kind : {ErrorKind::exhausted, ErrorKind::conflict, ErrorKind::io}) {
        journal_.clear();
        front_.fail_install(kind);
        const auto done = screen_->install(a.params);
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().kind, kind);
        EXPECT_EQ(journal_, (Journal{"behind install", "front install", "behind remove 1"}));
        EXPECT_EQ(front_.sets().size() + behind_.sets().size(), 0U);
    }
    EXPECT_EQ(screen_->undone(), 3U);
    EXPECT_TRUE(screen_->install(a.params));
}

TEST_F(Screen, ASecondInstallOfASetHarmsNotTheFirst) {
    const Set a(1);
    ASSERT_TRUE(screen_->install(a.params));
    const auto again = screen_->install(a.params);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().kind, ErrorKind::conflict);
    EXPECT_TRUE(front_.has(1) && behind_.has(1));
    // Another set on the first one's numbers.
    Set b(2);
    b.params.numbers = a.params.numbers;
    EXPECT_FALSE(screen_->install(b.params));
    EXPECT_EQ(front_.ids(), std::set<sa::SetId>{1});
    EXPECT_EQ(behind_.ids(), std::set<sa::SetId>{1});
}

// Installs and removals in any order, either layer refusing at any time: the layers hold the same.
TEST_F(Screen, TheLayersAlwaysHoldTheSame) {
    SeededRandom random(3);
    std::set<sa::SetId> expected;
    std::size_t refused = 0;
    for (int step = 0; step < 20000; ++step) {
        const auto id = static_cast<sa::SetId>(1 + random.below(30));
        const auto behind_fails = random.below(8) == 0;
        const auto front_fails = random.below(8) == 0;
        if (behind_fails) behind_.fail_install(ErrorKind::io);
        if (front_fails) front_.fail_install(ErrorKind::exhausted);
        if (random.below(2) == 0) {
            const Set s(id);
            const bool taken = expected.contains(id);
            const bool done = screen_->install(s.params).has_value();
            EXPECT_EQ(done, !taken && !behind_fails && !front_fails);
            if (done) expected.insert(id);
            refused += done ? 0 : 1;
        } else {
            screen_->remove(id);
            expected.erase(id);
        }
        behind_.fail_install(ErrorKind::io, 0);
        front_.fail_install(ErrorKind::io, 0);
        ASSERT_EQ(front_.ids(), expected) << step;
        ASSERT_EQ(behind_.ids(), expected) << step;
        ASSERT_EQ(screen_->installed(), expected.size());
    }
    EXPECT_GT(refused, 1000U);
    EXPECT_GT(screen_->undone(), 100U);
}

TEST_F(Screen, StatisticsOfBothLayersMakeOne) {
    const TimePoint used{std::chrono::seconds(5)};
    const TimePoint other{std::chrono::seconds(9)};
    front_.set_stats(1, {.in_packets = 10,
                         .in_bytes = 1000,
                         .out_packets = 0,
                         .out_bytes = 0,
                         .integrity_failures = 7,
                         .replays = 3,
                         .highest_out_sequence = 0,
                         .last_use = used});
    behind_.set_stats(1, {.in_packets = 9,
                          .in_bytes = 900,
                          .out_packets = 4,
                          .out_bytes = 400,
                          .integrity_failures = 1,
                          .replays = 2,
                          .highest_out_sequence = 44,
                          .last_use = other});
    const std::vector<sa::SetId> ids{9, 1};
    std::vector<sa::SetStats> all(2);
    screen_->stats(ids, all);
    EXPECT_EQ(all[0].in_packets + all[0].out_packets, 0U);
    EXPECT_EQ(all[1].in_packets, 10U);
    EXPECT_EQ(all[1].in_bytes, 1000U);
    EXPECT_EQ(all[1].last_use, used);
    EXPECT_EQ(all[1].integrity_failures, 8U);
    EXPECT_EQ(all[1].replays, 5U);
    EXPECT_EQ(all[1].out_packets, 4U);
    EXPECT_EQ(all[1].out_bytes, 400U);
    EXPECT_EQ(all[1].highest_out_sequence, 44U);
}

TEST_F(Screen, EventsComeOnce) {
    using Kind = sa::BackendEventKind;
    front_.emit({Kind::first_authentic_packet, 1, 300});
    front_.emit({Kind::sequence_near_end, 1, 300});
    front_.emit({Kind::integrity_failure, 2, 302});
    behind_.emit({Kind::first_authentic_packet, 1, 300});
    behind_.emit({Kind::sequence_near_end, 1, 300});
    behind_.emit({Kind::sequence_near_end, 1, 0});
    behind_.emit({Kind::integrity_failure, 3, 304});
    std::vector<std::pair<Kind, sa::Spi>> got;
    screen_->drain_events([&](const sa::BackendEvent& e) { got.emplace_back(e.kind, e.spi); });
    EXPECT_EQ(got, (std::vector<std::pair<Kind, sa::Spi>>{{Kind::first_authentic_packet, 300},
                                                          {Kind::sequence_near_end, 300},
                                                          {Kind::integrity_failure, 302},
                                                          {Kind::sequence_near_end, 0},
                                                          {Kind::integrity_failure, 304}}));
    EXPECT_EQ(screen_->disagreements(), 1U);
}

TEST_F(Screen, CapacityIsTheSmallerAndTheOwnerTheFronts) {
    EXPECT_EQ(screen_->capacity(), 40U);
    front_.set_owner(3);
    behind_.set_owner(0);
    EXPECT_EQ(screen_->owner_of(*IpAddress::parse("10.1.0.1"), *IpAddress::parse("10.0.0.1")), 3U);
    EXPECT_EQ(screen_->event_fd(), -1) << "neither layer has one";
}

TEST(ScreenEvents, OneDescriptorForBoth) {
    for (const bool front_has : {true, false}) {
        for (const bool behind_has : {true, false}) {
            Journal journal;
            Layer front("front", journal);
            Layer behind("behind", journal);
            if (front_has) front.with_fd();
            if (behind_has) behind.with_fd();
            const auto screen = ScreenBackend::create(front, behind);
            ASSERT_TRUE(screen);
            pollfd p{(*screen)->event_fd(), POLLIN, 0};
            EXPECT_EQ(p.fd >= 0, front_has || behind_has);
            for (const auto& [has, layer] : {std::pair{front_has, &front}, {behind_has, &behind}}) {
                if (!has) continue;
                EXPECT_EQ(::poll(&p, 1, 0), 0);
                layer->ring();
                EXPECT_EQ(::poll(&p, 1, 0), 1);
                layer->quiet();
                EXPECT_EQ(::poll(&p, 1, 0), 0);
            }
        }
    }
}

}  // namespace
}  // namespace gmgate::dataplane
