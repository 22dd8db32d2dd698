#pragma once
// A SA database on a manual clock and a fake packet layer, and short ways to say what a test wants.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "sa/database.h"
#include "tests/support/fake_backend.h"

namespace gmgate::test {

struct Removed {
    sa::SetId set = 0;
    std::string impi;
    sa::Event reason{};
};

// Records what observers and listeners are told.
class Recorder : public sa::SetObserver, public sa::ChangeListener {
  public:
    void on_set_state(const sa::SaSet& set, sa::State from) override {
        states.emplace_back(set.id, from, set.state);
    }
    void on_set_removed(const sa::SaSet& set, const sa::User& user, sa::Event reason) override {
        EXPECT_EQ(set.keys, nullptr) << "keys must be wiped by now";
        EXPECT_EQ(set.state, sa::State::removed);
        removed.push_back({set.id, std::string(user.impi()), reason});
    }
    void on_backend_event(const sa::SaSet& set, const sa::BackendEvent& event) override {
        events.emplace_back(set.id, event.kind);
    }
    void on_change(const sa::Change& change) override { changes.push_back(change); }

    std::vector<std::tuple<sa::SetId, sa::State, sa::State>> states;
    std::vector<Removed> removed;
    std::vector<std::pair<sa::SetId, sa::BackendEventKind>> events;
    std::vector<sa::Change> changes;
};

class SaFixture {
  public:
    explicit SaFixture(sa::DatabaseConfig config = {}, std::size_t capacity = 64)
        : backend(capacity), random(42), wheel(clock) {
        auto made = sa::SaDatabase::create(std::move(config), backend, wheel, random);
        if (!made) throw std::runtime_error(made.error().text);
        db = std::move(*made);
        db->add_observer(recorder);
        db->add_listener(recorder);
    }

    static IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }

    sa::ReserveRequest request(std::string_view impi, std::string_view ue = "10.0.0.1") {
        sa::ReserveRequest r;
        r.impi = *owned_impis.emplace(impi).first;  // lives as long as the fixture
        r.ue = ip(ue);
        r.ours = ip("10.9.9.9");
        r.spi_uc = next_spi++;
        r.spi_us = next_spi++;
        r.port_uc = next_port_uc++;
        r.port_us = 6100;
        r.ck = &ck;
        r.ik = &ik;
        return r;
    }
    // SM5, SM6.
    sa::SetId challenge(const sa::ReserveRequest& r) {
        const auto id = db->reserve(r);
        if (!id) {
            ADD_FAILURE() << "reserve: " << id.error().text;
            return 0;
        }
        if (auto ok = db->install(*id); !ok) {
            ADD_FAILURE() << "install: " << ok.error().text;
            return 0;
        }
        EXPECT_TRUE(db->apply(*id, sa::Event::sm6_sent));
        return *id;
    }
    Result<void> establish(sa::SetId id, Duration granted = std::chrono::hours(1),
                           std::vector<std::string_view> impus = {"sip:alice@home.example"}) {
        sa::EstablishRequest e;
        e.granted = granted;
        e.impus = impus;
        e.service_route = "<sip:orig@scscf.home.example;lr>";
        e.p_associated_uri = "<sip:alice@home.example>";
        e.contact = "<sip:alice@10.0.0.1:6100>";
        return db->establish(id, e);
    }
    // SM1 to SM12.
    sa::SetId register_ue(const sa::ReserveRequest& r, Duration granted = std::chrono::hours(1)) {
        const sa::SetId id = challenge(r);
        if (id == 0) return 0;
        EXPECT_TRUE(db->apply(id, sa::Event::sm7_ok));
        const auto ok = establish(id, granted);
        EXPECT_TRUE(ok) << (ok ? "" : ok.error().text);
        return id;
    }
    void advance(Duration by) {
        clock.advance(by);
        wheel.advance();
        // Removals of timed-out sets share the next tick; poll_backend gives the rest to the packet
        // layer.
        clock.advance(std::chrono::milliseconds(1));
        wheel.advance();
        db->poll_backend();
    }
    [[nodiscard]] sa::State state(sa::SetId id) const {
        const sa::SaSet* s = db->find(id);
        return s == nullptr ? sa::State::removed : s->state;
    }
    // Nothing is held any more, anywhere.
    void expect_empty() const {
        EXPECT_EQ(db->set_count(), 0U);
        EXPECT_EQ(db->user_count(), 0U);
        EXPECT_EQ(db->spis().held(), 0U);
        EXPECT_EQ(backend.installed(), 0U);
        EXPECT_EQ(wheel.size(), 0U);
        for (std::size_t s = 0; s < sa::state_count; ++s)
            EXPECT_EQ(db->stats().sets[s].value(), 0) << s;
        EXPECT_EQ(db->stats().users.value(), 0);
    }

    ManualClock clock;
    FakeBackend backend;
    SeededRandom random;
    TimerWheel wheel;
    Recorder recorder;
    sa::AkaKey ck{std::span<const std::uint8_t, 16>(key_octets(0x10))};
    sa::AkaKey ik{std::span<const std::uint8_t, 16>(key_octets(0x20))};
    std::set<std::string> owned_impis;
    sa::Spi next_spi = 1000;
    sa::Port next_port_uc = 20000;
    std::unique_ptr<sa::SaDatabase> db;  // last: it goes first

  private:
    static std::array<std::uint8_t, 16> key_octets(std::uint8_t first) {
        std::array<std::uint8_t, 16> k{};
        for (std::size_t i = 0; i < k.size(); ++i) k[i] = static_cast<std::uint8_t>(first + i);
        return k;
    }
};

}  // namespace gmgate::test
