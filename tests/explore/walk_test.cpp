// A million random steps of the whole control plane, compared after each with a simple model of
// what should exist (walk_model.h). Many walks, each in a world of its own; the good path is likely
// enough that old sets are common. A walk that fails is shown with the fewest of its steps that
// still fail.
//
//   GMGATE_WALK_STEPS   how many (default: 1,000,000; under a sanitizer 50,000)
//   GMGATE_WALK_SEED    of the first walk (default: 20261122; "random": a new one)

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "tests/explore/walk_model.h"

namespace gmgate::explore {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t default_steps = 50'000;
#else
constexpr std::size_t default_steps = 1'000'000;
#endif
constexpr std::size_t steps_a_walk = 1000;
constexpr std::size_t capacity = 1024;

Action choose(Random& random) {
    const auto dice = random.below(1000);
    const auto phone = static_cast<std::uint8_t>(random.below(2));
    const auto place = static_cast<std::uint8_t>(random.below(4));
    if (dice < 480) return {Op::deliver, 0, 0};
    if (dice < 560) return {Op::renew, phone, 0};
    if (dice < 600) return {Op::sm1, phone, 0};
    if (dice < 660) return {Op::message, phone, 0};
    if (dice < 700) return {Op::call, phone, 0};
    if (dice < 710) return {Op::leave, phone, 0};
    if (dice < 740) return {Op::deliver, place, static_cast<std::uint8_t>(random.below(7))};
    if (dice < 760) return {Op::deliver, 0, static_cast<std::uint8_t>(random.below(7))};
    if (dice < 780) return {Op::lose, place, 0};
    if (dice < 800) return {Op::duplicate, place, 0};
    if (dice < 820) return {Op::release, phone, 0};
    if (dice < 825) return {Op::lose_answer, phone, 0};
    if (dice < 865) return {Op::wait_transaction, 0, 0};
    if (dice < 875) return {Op::wait_await, 0, 0};
    if (dice < 877) return {Op::wait_life, 0, 0};
    if (dice < 880) return {Op::refuse_install, 0, 0};
    const auto first = static_cast<std::uint64_t>(Op::attack_sm1);
    const auto last = static_cast<std::uint64_t>(Op::attack_verify);
    return {static_cast<Op>(first + random.below(last - first + 1)), phone, 0};
}

// Both families, UDP and TCP in turn.
Access access_of(std::uint64_t seed) {
    return {.v6 = seed % 2 == 1, .tcp = seed % 4 >= 2};
}

// "" or what was wrong first, after how many of the steps.
std::string run(Access access, const std::vector<Action>& actions, std::size_t& taken) {
    World world(capacity, access);
    Model model(world);
    world.listener = &model;
    for (taken = 0; taken < actions.size();) {
        ++taken;
        if (!world.act(actions[taken - 1])) continue;
        if (!world.fault.empty()) return world.fault;
        if (std::string difference = model.compare(); !difference.empty()) return difference;
    }
    world.listener = nullptr;
    world.finish();
    return world.fault;
}

// Leaves out what is not needed to fail: halves, quarters, … single steps.
std::vector<Action> minimised(Access access, std::vector<Action> actions) {
    std::size_t taken = 0;
    (void)run(access, actions, taken);
    actions.resize(taken);
    for (std::size_t piece = actions.size() / 2; piece > 0; piece /= 2) {
        for (std::size_t at = 0; at + piece <= actions.size();) {
            auto fewer = actions;
            fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(at),
                        fewer.begin() + static_cast<std::ptrdiff_t>(at + piece));
            if (run(access, fewer, taken).empty()) {
                at += piece;
            } else {
                actions = std::move(fewer);
            }
        }
    }
    return actions;
}

TEST(Walk, AMillionRandomStepsAgainstTheModel) {
    const char* asked_steps = std::getenv("GMGATE_WALK_STEPS");
    const char* asked_seed = std::getenv("GMGATE_WALK_SEED");
    const std::size_t steps =
        asked_steps != nullptr ? std::strtoull(asked_steps, nullptr, 10) : default_steps;
    std::uint64_t seed = 20261122;
    if (asked_seed != nullptr) {
        seed = std::string_view(asked_seed) == "random" ? std::random_device()()
                                                        : std::strtoull(asked_seed, nullptr, 10);
    }
    std::printf("[ walked   ] first seed %llu\n", static_cast<unsigned long long>(seed));
    std::size_t done = 0;
    std::size_t walks = 0;
    std::size_t most = 0;
    std::unordered_set<std::uint64_t> states;
    for (; done < steps; ++seed, ++walks) {
        SeededRandom random(seed);
        const Access access = access_of(seed);
        World world(capacity, access);
        Model model(world);
        world.listener = &model;
        std::vector<Action> actions;
        std::string fault;
        while (fault.empty() && actions.size() < steps_a_walk && done < steps) {
            const Action action = choose(random);
            if (!world.act(action)) continue;
            actions.push_back(action);
            ++done;
            fault = world.fault.empty() ? model.compare() : world.fault;
            most = std::max(most, world.database().set_count());
            if (done % 4 == 0) states.insert(world.signature()[0]);
        }
        if (fault.empty()) {
            world.listener = nullptr;
            world.finish();
            fault = world.fault;
        }
        if (!fault.empty()) {
            const auto fewest = minimised(access, actions);
            std::size_t taken = 0;
            const std::string again = run(access, fewest, taken);
            FAIL() << "seed " << seed << " (GMGATE_WALK_SEED), step " << actions.size()
                   << (access.v6 ? ", IPv6" : ", IPv4")
                   << (access.tcp ? " over TCP: " : " over UDP: ") << fault
                   << "\nfewest steps: " << to_string(fewest) << "\n"
                   << again;
        }
    }
    std::printf(
        "[ walked   ] %zu steps in %zu walks, %zu states seen (every fourth step looked at), up to "
        "%zu sets at a time\n",
        done, walks, states.size(), most);
    EXPECT_GE(most, 5U);
}

}  // namespace
}  // namespace gmgate::explore
