// Bounded exhaustive exploration of the whole control plane: every sequence of actions (world.h) up
// to a depth, from several beginnings, breadth first. A state that was seen is not tried again;
// states are the same if their signatures are, with the two phones interchangeable. After each
// action the invariants hold (world.h), and the sets are those of the model (walk_model.h).
//
// A world cannot be copied, so each is made again by its actions from the start; nothing in it is
// left to chance. An action that changes no signature costs no new world.
//
//   GMGATE_EXPLORE_SECONDS   processor time (default: 30 s in all; under a sanitizer a third of
//   that)

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <unordered_set>
#include <vector>

#include "tests/explore/walk_model.h"

namespace gmgate::explore {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

struct Hash {
    std::size_t operator()(const std::array<std::uint64_t, 2>& s) const { return s[0]; }
};

constexpr Action deliver_first{Op::deliver, 0, 0};

// SM1 to SM12 without a fault.
std::vector<Action> registered(std::uint8_t phone) {
    return {{Op::sm1, phone, 0}, deliver_first, deliver_first, deliver_first, deliver_first};
}
std::vector<Action> operator+(std::vector<Action> a, const std::vector<Action>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct Beginning {
    const char* name;
    std::vector<Action> actions;
    Access access;
};

std::vector<Beginning> beginnings() {
    const std::vector<Action> challenged{{Op::sm1, 0, 0}, deliver_first, deliver_first};
    const std::vector<Action> renewing{{Op::renew, 0, 0}, deliver_first, deliver_first};
    const std::vector<Action> both = registered(0) + registered(1) + renewing;
    const std::vector<Action> old_set =
        registered(0) + std::vector<Action>{{Op::attack_register, 0, 0}} + renewing +
        std::vector<Action>{deliver_first, deliver_first};
    return {{"nobody is registered", {}, {}},
            {"one phone is challenged", challenged, {}},
            {"one phone is registered", registered(0), {}},
            {"one phone renews, the other is registered", both, {}},
            {"one phone has an old set and the attacker has his own", old_set, {}},
            {"one phone renews, the other is registered; IPv6", both, {.v6 = true, .tcp = false}},
            {"one phone renews, the other is registered; TCP", both, {.v6 = false, .tcp = true}}};
}

// A world and what should exist in it.
struct Watched {
    explicit Watched(Access access) : world(24, access) { world.listener = &model; }
    bool act(const Action& action) { return world.act(action); }
    [[nodiscard]] std::string fault() {
        return world.fault.empty() ? model.compare() : world.fault;
    }
    std::string finish() {
        world.listener = nullptr;
        world.finish();
        return world.fault;
    }
    World world;
    Model model{world};
};

std::unique_ptr<Watched> replay(Access access, const std::vector<Action>& actions) {
    auto watched = std::make_unique<Watched>(access);
    for (const Action& a : actions) watched->act(a);
    return watched;
}

struct Totals {
    std::size_t states = 0;
    std::size_t transitions = 0;
    std::size_t finished = 0;
    std::size_t worlds = 0;
    int complete = 0;  // depth all of whose sequences were tried
    int reached = 0;
};

// What was wrong, with the actions that lead there; empty: nothing.
std::string explore(const Beginning& from, std::clock_t budget, Totals& totals) {
    const std::clock_t until = std::clock() + budget;
    std::unordered_set<std::array<std::uint64_t, 2>, Hash> seen;
    std::vector<std::vector<Action>> frontier{from.actions};
    seen.insert(replay(from.access, from.actions)->world.signature());
    for (int depth = 1; !frontier.empty(); ++depth) {
        std::vector<std::vector<Action>> next;
        for (const auto& path : frontier) {
            if (std::clock() > until) {
                totals.states = seen.size();
                return {};
            }
            totals.reached = depth;
            auto world = replay(from.access, path);
            ++totals.worlds;
            const auto here = world->world.signature();
            for (const Action& action : all_actions()) {
                if (!world->act(action)) continue;
                ++totals.transitions;
                const auto there = world->world.signature();
                std::string fault = world->fault();
                const bool fresh = seen.insert(there).second;
                if (fresh) {
                    next.push_back(path);
                    next.back().push_back(action);
                    // From every eighth new state: what time leaves, and that all goes on.
                    if (fault.empty() && seen.size() % 8 == 0) {
                        fault = world->finish();
                        ++totals.finished;
                    }
                }
                if (!fault.empty()) {
                    auto trail = path;
                    trail.push_back(action);
                    return fault + "\n  after " + to_string(trail);
                }
                if (there != here || fresh) {
                    world = replay(from.access, path);
                    ++totals.worlds;
                }
            }
        }
        totals.complete = depth;
        frontier = std::move(next);
    }
    totals.states = seen.size();
    return {};
}

TEST(Explore, EverySequenceToADepth) {
    const char* given = std::getenv("GMGATE_EXPLORE_SECONDS");
    const double seconds = given != nullptr ? std::atof(given) : sanitized ? 15 : 30;
    const auto all = beginnings();
    const auto share =
        static_cast<std::clock_t>(seconds * CLOCKS_PER_SEC / static_cast<double>(all.size()));
    Totals sum;
    for (const Beginning& b : all) {
        {
            const auto world = replay(b.access, b.actions);
            ASSERT_EQ(world->fault(), "") << b.name;
        }
        Totals t;
        const std::string fault = explore(b, share, t);
        std::printf(
            "[ explored ] %-55s %7zu states, %8zu transitions, all to depth %d, some to %d\n",
            b.name, t.states, t.transitions, t.complete, t.reached);
        if (!fault.empty()) FAIL() << fault << "\n  beginning: " << b.name;
        EXPECT_GE(t.complete, sanitized ? 1 : 2) << b.name;
        sum.states += t.states;
        sum.transitions += t.transitions;
        sum.finished += t.finished;
        sum.worlds += t.worlds;
    }
    std::printf(
        "[ explored ] together %zu states, %zu transitions; %zu worlds run, %zu to their end\n",
        sum.states, sum.transitions, sum.worlds, sum.finished);
    EXPECT_GT(sum.states, 1000U);
}

}  // namespace
}  // namespace gmgate::explore
