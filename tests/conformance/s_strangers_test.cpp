// S3: what strangers may hold, for how long, and whom they cannot push out, over the whole gateway.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

std::string address(int i) {
    return "10.3." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1);
}

// Everything a stranger can send without a key, from many places: what it made is gone at its
// time-out, to the last timer.
TEST(S3, NothingOutlivesItsTimeOut) {
    World w;
    for (int i = 0; i < 120; ++i) {
        Phone& p = w.phone("s" + std::to_string(i), address(i),
                           i % 7 == 0 ? sip::Transport::tcp : sip::Transport::udp);
        RegisterOptions o;
        switch (i % 6) {
            case 0:
                break;
            case 1:
                o.client = "ipsec-3gpp;alg=rot13";
                break;
            case 2:
                o.security_client = false;
                break;
            case 3:
                o.authorization = "Digest username=\"\xff\",nonce=\"";
                break;
            case 4:
                o.impi = std::string(2000, 'i') + std::to_string(i) + "@home.example";
                break;
            default:
                o.expires = 0;
                break;
        }
        p.send_sm1(o);
        if (i % 3 == 0) p.send_clear("MESSAGE sip:x SIP/2.0\r\n\r\n");
        w.run();
    }
    EXPECT_GT(w.gateway->pending(), 0U);
    EXPECT_LE(w.gateway->pending(), 120U);
    w.advance(241s);
    w.nothing_left();
}

TEST(S3, UnprotectedRegistersAreRateLimitedInTotal) {
    World::Options options;
    options.policy.limits.register_rate_total = 10;
    options.policy.limits.register_burst_total = 20;
    World w(options);
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    ASSERT_TRUE(alice.register_once());
    auto flood = [&, next = 0](int count) mutable {
        for (int i = 0; i < count; ++i, ++next)
            w.phone("s" + std::to_string(next), address(next)).send_sm1();
        w.run();
    };
    const auto at_home = w.home.inbox.size();
    flood(300);
    const auto first = w.home.inbox.size() - at_home;
    EXPECT_LE(first, 20U) << "each source for itself is within its rate; together they are not";
    EXPECT_EQ(w.drops(Reason::rate_total), 300 - first);
    EXPECT_EQ(w.drops(Reason::rate_source), 0U);
    // Who has SAs does not stand in that queue.
    w.expect_served(alice);
    EXPECT_TRUE(alice.reregister());
    // Ten a second, and no more.
    const auto so_far = w.home.inbox.size();
    w.advance(1s);
    flood(300);
    EXPECT_LE(w.home.inbox.size() - so_far, 11U);
}

// With her name, with her address, with both: in clear nobody ends or changes what she has.
TEST(S3, NobodyIsPushedOut) {
    const std::vector<std::pair<std::string_view, std::function<void(RegisterOptions&)>>> cases{
        {"REGISTER", [](RegisterOptions&) {}},
        {"deregistration", [](RegisterOptions& o) { o.expires = 0; }},
        {"deregistration of all",
         [](RegisterOptions& o) {
             o.expires = 0;
             o.contact = "*";
         }},
        {"her nonce, and no answer",
         [](RegisterOptions& o) {
             o.authorization =
                 "Digest username=\"alice@home.example\",realm=\"home.example\",nonce=\"AAAA\","
                 "uri=\"sip:home.example\",response=\"\"";
         }},
    };
    for (const bool from_her_address : {false, true}) {
        for (const auto& [name, alter] : cases) {
            SCOPED_TRACE(std::string(name) + (from_her_address ? ", from her address" : ""));
            World w(with_gmhome());
            Phone& alice = w.phone("alice", "10.2.0.1");
            ASSERT_TRUE(alice.register_once());
            const auto hers = w.set_of(alice.current());
            const TimePoint end = w.sets->find(hers)->lifetime_end;
            const Books before = w.settled();
            w.network->cx.clear();
            Phone& mallory = w.phone("mallory", from_her_address ? "10.2.0.1" : "10.2.0.66");
            for (int i = 0; i < 5; ++i) {
                RegisterOptions o;
                alter(o);
                o.impi = alice.impi;
                o.impu = alice.impu;
                mallory.port_uc = static_cast<sa::Port>(9000 + i);
                mallory.send_sm1(o);
                w.run();
                EXPECT_NE(mallory.last_status(), 200);
                w.advance(50s);
            }
            w.advance(241s);
            EXPECT_TRUE(w.backend.has(hers));
            EXPECT_EQ(w.sets->find(hers)->lifetime_end, end);
            EXPECT_EQ(w.settled(), before);
            EXPECT_TRUE(w.network->puts().empty());
            EXPECT_NE(w.network->registrar->find(alice.impu), nullptr);
            alice.inbox.clear();
            w.expect_served(alice);
            EXPECT_EQ(alice.last().set, hers);
        }
    }
}

// Strangers fill what is kept for challenges; the registered renew all the same.
TEST(S3, AFullTableOfChallengesIsNotTheRegisteredUsers) {
    auto options = with_gmhome();
    options.database.limits.max_registration_sets = 10;
    World w(options);
    Phone& alice = w.phone("alice", "10.2.0.1");
    ASSERT_TRUE(alice.register_once());
    for (int i = 0; i < 30; ++i) w.phone("s" + std::to_string(i), address(i)).send_sm1();
    w.run();
    EXPECT_EQ(w.backend.installed(), 11U);
    EXPECT_TRUE(alice.reregister());
    w.expect_served(alice);
    w.advance(241s);
    EXPECT_EQ(w.gateway->registered(), 1U);
    w.expect_no_leak(1);
}

}  // namespace
}  // namespace gmgate::test
