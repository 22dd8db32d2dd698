// Bounded exploration of the whole engine: two UEs behind one address, every event at every moment,
// time-outs, a packet layer that refuses. Every sequence up to a depth is tried (states that were
// seen are not tried again), then long random walks.
//
// After each step the invariants hold; from each state, ending everything leaves nothing behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "tests/support/sa_fixture.h"

namespace gmgate::sa {
namespace {

using namespace std::chrono_literals;
using test::SaFixture;

constexpr std::array<std::string_view, 2> impis{"alice@home", "bob@home"};

// One step of the world. For a set: the user's sets by age, 0 the oldest.
struct Step {
    enum Kind : std::uint8_t {
        challenge_clear,      // SM5 after an SM1 in clear
        challenge_on_old,     // … after an SM1 on the newest completed set
        challenge_refused,    // … and the packet layer refuses
        challenge_same_port,  // a port_uc that is in use: must be refused
        apply_event,
        establish,
        use,
        refresh,
        dereg,
        dereg_now,
        move_address,  // the next SM1 comes from another address
        lost_in_backend_events,
        time_short,  // 31 ms: drains end soon
        time_long,   // 241 ms: reg-await-auth ends
    } kind;
    std::uint8_t user = 0;
    std::uint8_t set = 0;
    Event event{};
};

struct World : SaFixture {
    World() : SaFixture(make_config(), 16) { db->add_observer(watch); }

    static DatabaseConfig make_config() {
        DatabaseConfig c;
        c.ports.pc_first = 5100;
        c.ports.pc_last = 5107;
        // Everything a thousand times faster than the defaults: the wheel has fewer ticks to walk.
        c.timers.reg_await_auth = 240ms;
        c.timers.drain = 32ms;
        c.timers.lifetime_grace = 30ms;
        c.timers.near_end = 10ms;
        c.timers.spi_quarantine =
            0s;  // slots come back at once: the hardest case for stale references
        return c;
    }

    // "A failure never removes an old set."
    struct Watch : SetObserver {
        void on_set_state(const SaSet& s, State) override {
            if (s.state == State::established) completed.insert(s.id);
        }
        void on_set_removed(const SaSet& s, const User&, Event reason) override {
            static const std::set<Event> failures{
                Event::install_failed, Event::auth_rejected,       Event::network_auth_failure,
                Event::sync_failure,   Event::consistency_failure, Event::first_packet_refused,
                Event::core_failure,   Event::reg_await_timeout,   Event::superseded,
                Event::aborted,        Event::integrity_failure,   Event::wrong_user};
            if (completed.contains(s.id) && failures.contains(reason)) {
                ADD_FAILURE() << "an old set was removed by " << name(reason);
            }
        }
        std::set<SetId> completed;
    } watch;

    [[nodiscard]] std::vector<SetId> sets_of(std::size_t user) const {
        std::vector<SetId> ids;
        if (const User* u = db->find_by_impi(impis[user])) {
            for (const SetId id : u->sets) {
                if (id != 0) ids.push_back(id);
            }
        }
        std::ranges::sort(ids, {}, [](SetId id) { return id >> 24U; });
        return ids;
    }
    [[nodiscard]] SetId newest_completed(std::size_t user) const {
        SetId best = 0;
        for (const SetId id : sets_of(user)) {
            if (state(id) == State::established || state(id) == State::draining) best = id;
        }
        return best;
    }

    void take(const Step& step) {
        const auto ids = sets_of(step.user);
        const SetId id = step.set < ids.size() ? ids[step.set] : 0;
        const std::string_view address = moved[step.user] ? "10.0.0.2" : "10.0.0.1";
        switch (step.kind) {
            case Step::challenge_clear:
            case Step::challenge_on_old:
            case Step::challenge_refused: {
                auto r = request(impis[step.user], address);
                if (step.kind == Step::challenge_on_old) {
                    r.sm1_set = newest_completed(step.user);
                    if (r.sm1_set == 0) break;
                    r.ue = db->find(r.sm1_set)->ue;
                }
                if (step.kind == Step::challenge_refused)
                    backend.fail_install(ErrorKind::exhausted);
                const auto reserved = db->reserve(r);
                if (reserved) (void)db->install(*reserved);
                backend.fail_install(ErrorKind::io, 0);
                break;
            }
            case Step::challenge_same_port: {
                const auto others = sets_of(1U - step.user);
                if (others.empty()) break;
                const SaSet& other = *db->find(others[0]);
                auto r = request(impis[step.user]);
                r.ue = other.ue;
                r.port_uc = other.numbers.port_uc;
                EXPECT_FALSE(db->reserve(r));
                break;
            }
            case Step::apply_event:
                (void)db->apply(id, step.event);
                break;
            case Step::establish:
                (void)SaFixture::establish(id, 600ms);
                break;
            case Step::use:
                db->note_use(id);
                break;
            case Step::refresh: {
                EstablishRequest e;
                const std::array<std::string_view, 1> impus{"sip:alice@home.example"};
                e.impus = impus;
                e.granted = 900ms;
                (void)db->refresh(id, e);
                break;
            }
            case Step::dereg:
            case Step::dereg_now:
                if (const User* u = db->find_by_impi(impis[step.user])) {
                    (void)db->deregister(u->id, step.kind == Step::dereg);
                }
                break;
            case Step::move_address:
                moved[step.user] = !moved[step.user];
                break;
            case Step::lost_in_backend_events:
                backend.emit({BackendEventKind::integrity_failure, id, 0});
                backend.emit({BackendEventKind::sequence_near_end, id, 0});
                backend.emit({BackendEventKind::first_authentic_packet, id, 0});
                db->poll_backend();
                break;
            case Step::time_short:
                advance(31ms);
                break;
            case Step::time_long:
                advance(241ms);
                break;
        }
    }

    // What must hold after every step.
    void check() const {
        std::size_t sets = 0;
        std::size_t live = 0;
        std::set<Spi> spis;
        std::set<std::tuple<IpAddress, Port, Port>> tuples;
        std::set<std::pair<IpAddress, Port>> clients;
        db->page(0, 1000, {}, [&](const SaSet& s, const User& u) {
            ++sets;
            const SaNumbers& n = s.numbers;
            ASSERT_TRUE(spis.insert(n.spi_pc).second);
            ASSERT_TRUE(spis.insert(n.spi_ps).second);
            ASSERT_TRUE(tuples.insert({s.ue, n.port_uc, n.port_ps}).second);
            ASSERT_TRUE(tuples.insert({s.ue, n.port_us, n.port_pc}).second);
            ASSERT_TRUE(clients.insert({s.ue, n.port_uc}).second);
            ASSERT_EQ(db->find_by_spi(n.spi_pc), &s);
            ASSERT_EQ(db->find_by_spi(n.spi_ps), &s);
            ASSERT_EQ(db->find_by_tuple(s.ue, n.port_uc, n.port_ps), &s);
            ASSERT_EQ(db->find_by_tuple(s.ue, n.port_us, n.port_pc), &s);
            ASSERT_EQ(db->find_user(s.user), &u);
            ASSERT_TRUE(s.timer.active()) << name(s.state);
            ASSERT_NE(s.keys, nullptr);
            ASSERT_EQ(backend.has(s.id), in_backend(s.state)) << name(s.state);
            live += in_backend(s.state) ? 1U : 0U;
        });
        ASSERT_EQ(db->set_count(), sets);
        ASSERT_EQ(db->spis().held(), 2 * sets);
        ASSERT_EQ(backend.installed(), live);
        ASSERT_EQ(wheel.size(), sets);
        for (std::size_t user = 0; user < impis.size(); ++user) {
            const User* u = db->find_by_impi(impis[user]);
            if (u == nullptr) continue;
            std::size_t incomplete = 0;
            for (const SetId id : sets_of(user))
                incomplete += in_backend(state(id)) && state(id) != State::registration ? 0U : 1U;
            ASSERT_LE(incomplete, 1U);
            ASSERT_GE(u->set_count(), 1U);  // a user without sets is gone
            ASSERT_LE(u->set_count(), max_sets_per_user);
            if (const SaSet* out = db->outbound(*u)) {
                ASSERT_EQ(out->user, u->id);
                ASSERT_TRUE(out->state == State::established || out->state == State::draining);
            }
        }
    }

    // Two worlds with the same signature behave alike from here on (times to whole milliseconds).
    [[nodiscard]] std::string signature() const {
        std::string out;
        for (std::size_t user = 0; user < impis.size(); ++user) {
            const User* u = db->find_by_impi(impis[user]);
            out += u == nullptr ? "-" : u->registered() ? "R" : "r";
            out += moved[user] ? "m" : "s";
            const auto ids = sets_of(user);
            for (const SetId id : ids) {
                const SaSet& s = *db->find(id);
                out += std::to_string(static_cast<int>(s.state)) + (s.used ? "u" : "n");
                out += std::to_string((s.timer.deadline() - clock.now()) / 1ms) + ",";
                out += s.ue == ip("10.0.0.1") ? "a" : "b";
                const auto x = std::ranges::find(ids, s.sm1_set);
                out += s.sm1_set == 0   ? "c"
                       : x == ids.end() ? "g"
                                        : std::to_string(x - ids.begin());
            }
            out += ";";
        }
        return out;
    }

    std::array<bool, 2> moved{};
};

std::vector<Step> all_steps(bool both_users) {
    std::vector<Step> steps;
    for (std::uint8_t user = 0; user < (both_users ? 2 : 1); ++user) {
        for (const auto kind :
             {Step::challenge_clear, Step::challenge_on_old, Step::challenge_refused,
              Step::challenge_same_port, Step::dereg, Step::dereg_now, Step::move_address}) {
            steps.push_back({kind, user, 0, {}});
        }
        for (std::uint8_t set = 0; set < max_sets_per_user; ++set) {
            for (const auto kind :
                 {Step::establish, Step::use, Step::refresh, Step::lost_in_backend_events}) {
                steps.push_back({kind, user, set, {}});
            }
            for (std::size_t e = 0; e < event_count; ++e) {
                const auto event = static_cast<Event>(e);
                // These belong to the database's own steps: auth_ok without establish() has no
                // lifetime.
                if (event == Event::auth_ok || event == Event::refreshed) continue;
                steps.push_back({Step::apply_event, user, set, event});
            }
        }
    }
    steps.push_back({Step::time_short, 0, 0, {}});
    steps.push_back({Step::time_long, 0, 0, {}});
    return steps;
}

std::unique_ptr<World> replay(const std::vector<Step>& steps,
                              const std::vector<std::size_t>& path) {
    auto world = std::make_unique<World>();
    for (const std::size_t i : path) world->take(steps[i]);
    return world;
}

TEST(Exploration, EverySequenceToADepthKeepsTheInvariants) {
    const auto steps = all_steps(true);
    constexpr int depth = 7;
    std::unordered_set<std::string> seen;
    std::vector<std::vector<std::size_t>> frontier{{}};
    seen.insert(World().signature());
    std::size_t transitions = 0;
    std::size_t largest = 0;
    constexpr std::size_t budget = 600000;  // transitions: a few seconds
    int reached = 0;
    for (int level = 0; level < depth && transitions < budget; ++level) {
        std::vector<std::vector<std::size_t>> next;
        for (const auto& path : frontier) {
            if (transitions >= budget) break;
            const auto before = replay(steps, path);
            const std::string from = before->signature();
            for (std::size_t i = 0; i < steps.size(); ++i) {
                const Step& step = steps[i];
                // Steps on sets that are not there do nothing: skip them but once.
                if (step.kind >= Step::apply_event && step.kind <= Step::refresh &&
                    step.set >= before->sets_of(step.user).size()) {
                    continue;
                }
                ++transitions;
                auto world = replay(steps, path);
                world->take(step);
                world->check();
                if (testing::Test::HasFailure()) {
                    std::string trail;
                    for (const std::size_t p : path) {
                        trail += std::to_string(steps[p].kind) + ":" +
                                 std::string(name(steps[p].event)) + " ";
                    }
                    FAIL() << "after " << trail << "then " << static_cast<int>(step.kind) << ":"
                           << name(step.event);
                }
                largest = std::max(largest, world->db->set_count());
                if (seen.insert(world->signature()).second) {
                    auto longer = path;
                    longer.push_back(i);
                    next.push_back(std::move(longer));
                    // From every new state: the end leaves nothing, by time alone and by shutdown.
                    if (seen.size() % 4 == 0) {
                        world->advance(1s);
                        world->advance(1s);
                    } else {
                        world->db->remove_all(Event::shutdown);
                    }
                    world->expect_empty();
                }
            }
        }
        frontier = std::move(next);
        reached = level + 1;
    }
    std::printf("[ explored ] %zu states, %zu transitions, depth %d, at most %zu sets at a time\n",
                seen.size(), transitions, reached, largest);
    EXPECT_GT(seen.size(), 1000U);
    EXPECT_GE(largest, 4U);
}

TEST(Exploration, LongRandomWalksLeakNothing) {
    const auto steps = all_steps(true);
    std::unordered_set<std::string> seen;
    std::size_t taken = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        SeededRandom random(seed);
        World world;
        for (int i = 0; i < 1500; ++i) {
            // The good path is likely enough that old sets are common.
            const auto dice = random.below(10);
            Step step = steps[random.below(steps.size())];
            if (dice < 3) {
                step = {dice == 0 ? Step::challenge_clear : Step::challenge_on_old,
                        static_cast<std::uint8_t>(random.below(2)),
                        0,
                        {}};
            } else if (dice < 5) {
                step = {Step::establish,
                        static_cast<std::uint8_t>(random.below(2)),
                        static_cast<std::uint8_t>(random.below(3)),
                        {}};
            } else if (dice < 6) {
                step = {Step::use,
                        static_cast<std::uint8_t>(random.below(2)),
                        static_cast<std::uint8_t>(random.below(3)),
                        {}};
            }
            world.take(step);
            world.check();
            ++taken;
            ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << " step " << i;
            seen.insert(world.signature());
        }
        world.advance(1s);
        world.advance(1s);
        world.expect_empty();
    }
    std::printf("[ explored ] %zu steps of random walks, %zu states\n", taken, seen.size());
    EXPECT_GT(seen.size(), 1000U);
}

}  // namespace
}  // namespace gmgate::sa
