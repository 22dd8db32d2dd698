// Each message of a registration lost once, repeated once; and every one of them for good. Over UDP
// everything recovers by retransmission; nothing is left behind whatever happens.

#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

// A phone that retransmits as RFC 3261 17.1.2 has it, until something final comes.
bool persist(World& w, Phone& p, const std::function<void()>& send_again) {
    const auto heard = p.inbox.size();
    Duration wait = 500ms;
    for (Duration waited{}; waited < 32s; waited += wait, wait = std::min<Duration>(wait * 2, 4s)) {
        w.run();
        if (p.inbox.size() > heard) return true;
        w.advance(wait);
        if (p.inbox.size() > heard) return true;
        send_again();
    }
    w.run();
    return p.inbox.size() > heard;
}

bool register_patiently(World& w, Phone& p) {
    p.send_sm1();
    if (!persist(w, p, [&] { p.send_clear(p.last_sm1); }) || p.last_status() != 401) return false;
    p.take_challenge(p.last().message);
    p.send_sm7();
    if (!persist(w, p, [&] { p.send_on(*p.pending, p.last_sm7); }) || p.last_status() != 200)
        return false;
    p.accept();
    return true;
}

// SM1, SM2, SM5, SM6, SM7, SM8, SM11, SM12 by their place on the wire.
struct Lost {
    std::string_view name;
    Wire::To to;
    std::size_t ordinal;  // of the first copies to that side
};

class Loss : public testing::TestWithParam<Lost> {};

std::string branch_and_kind(const Wire& w) {
    return (w.message.is_request() ? "q" : "r") + w.message.header("CSeq") +
           w.message.header("Call-ID");
}

TEST_P(Loss, OnceIsRepaired) {
    World w;
    Phone& p = w.phone();
    std::vector<std::string> kinds;
    bool done = false;
    w.lose = [&](const Wire& wire) {
        if (wire.to != GetParam().to || done) return false;
        const std::string kind = branch_and_kind(wire);
        if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
        if (kinds.size() != GetParam().ordinal + 1) return false;
        done = true;
        return true;
    };
    EXPECT_TRUE(register_patiently(w, p));
    EXPECT_TRUE(done) << "the message was there to be lost";
    EXPECT_EQ(w.gateway->registered(), 1U);
    w.expect_no_leak(1);
}

TEST_P(Loss, ForGoodLeavesNothing) {
    World w;
    Phone& p = w.phone();
    std::vector<std::string> kinds;
    w.lose = [&](const Wire& wire) {
        if (wire.to != GetParam().to) return false;
        const std::string kind = branch_and_kind(wire);
        if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
        return kinds.size() > GetParam().ordinal && kind == kinds[GetParam().ordinal];
    };
    (void)register_patiently(w, p);
    w.lose = nullptr;
    w.home.silent = true;
    w.advance(3700s);
    w.expect_no_leak(0);
}

TEST_P(Loss, RepeatedOnceChangesNothing) {
    World w;
    Phone& p = w.phone();
    std::vector<std::string> kinds;
    bool done = false;
    w.lose = [&](const Wire& wire) {
        if (wire.to != GetParam().to || done) return false;
        const std::string kind = branch_and_kind(wire);
        if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
        if (kinds.size() != GetParam().ordinal + 1) return false;
        done = true;
        w.queue.push_back(wire);  // a second copy follows
        return false;
    };
    EXPECT_TRUE(p.register_once());
    EXPECT_TRUE(done);
    EXPECT_EQ(w.gateway->registered(), 1U);
    EXPECT_EQ(w.backend.installed(), 1U);
    EXPECT_EQ(w.home.inbox.size() + (GetParam().to == Wire::To::home ? 0U : 1U), 3U)
        << "a repeated message of the phone is absorbed";
    w.expect_no_leak(1);
}

INSTANTIATE_TEST_SUITE_P(
    Messages, Loss,
    testing::Values(Lost{"SM1", Wire::To::gateway_gm, 0}, Lost{"SM2", Wire::To::home, 0},
                    Lost{"SM5", Wire::To::gateway_core, 0}, Lost{"SM6", Wire::To::ue, 0},
                    Lost{"SM7", Wire::To::gateway_gm, 1}, Lost{"SM8", Wire::To::home, 1},
                    Lost{"SM11", Wire::To::gateway_core, 1}, Lost{"SM12", Wire::To::ue, 1}),
    [](const auto& p) { return std::string(p.param.name); });

// The whole registration over a network that loses a third of everything, many times over.
TEST(LossyNetwork, NothingIsLeftWhateverHappens) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        SCOPED_TRACE(seed);
        World w;
        SeededRandom dice(seed);
        w.lose = [&](const Wire&) { return dice.below(3) == 0; };
        std::size_t good = 0;
        for (int i = 0; i < 5; ++i) {
            Phone& p = w.phone("user" + std::to_string(i), "10.2.0." + std::to_string(i + 1));
            good += register_patiently(w, p) ? 1U : 0U;
        }
        EXPECT_GT(good, 0U);
        w.advance(3700s);
        w.expect_no_leak(0);
    }
}

}  // namespace
}  // namespace gmgate::test
