// Several next hops towards the core, by address and by DNS (E1; RFC 3263): who is asked, who takes
// over, and when the first comes back.

#include "control/dns/resolver.h"
#include "tests/support/calls.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

const Endpoint first = ep("192.0.2.9:5060");
const Endpoint second = ep("192.0.2.10:5060");

World::Options two_hops() {
    World::Options o;
    o.policy.next_hops = {{sip::Transport::udp, first}, {sip::Transport::udp, second}};
    return o;
}

// Ours alone: the home gave no Service-Route.
std::string route_of(Phone& p) {
    return "Route: <sip:10.1.0.1:" + std::to_string(p.current().numbers.port_ps) + ";lr>\r\n";
}

// Where the REGISTERs of the log went, in order, without repetitions of one message.
std::vector<Endpoint> asked(const World& w, std::string_view method = "REGISTER") {
    std::vector<Endpoint> out;
    std::string before;
    for (const Wire& wire : w.sent_to(Wire::To::home)) {
        if (wire.message.method() != method || wire.message.text == before) continue;
        before = wire.message.text;
        out.push_back(wire.flow.remote);
    }
    return out;
}

TEST(NextHop, TheSecondTakesOverAndTheFirstComesBack) {
    World w(two_hops());
    bool dead = true;
    w.lose = [&](const Wire& wire) {
        return dead && wire.to == Wire::To::home && wire.flow.remote == first;
    };
    w.advance(40s);  // long enough that nothing was heard of either
    Phone& p = w.phone();
    p.send_sm1();
    w.advance(33s);
    ASSERT_EQ(p.last_status(), 401) << "the REGISTER that waited went to the second (RFC 3263 4.3)";
    EXPECT_EQ(asked(w), (std::vector<Endpoint>{first, second}));
    EXPECT_FALSE(w.gateway->next_hops().at(0).usable);
    EXPECT_TRUE(w.gateway->next_hops().at(1).usable);

    // Back while the phone thinks: SM8 stays with the one that holds the challenge.
    dead = false;
    p.take_challenge(p.last().message);
    w.advance(20s);
    EXPECT_TRUE(w.gateway->next_hops().at(0).usable) << "brought back by the answer to a probe";
    ASSERT_TRUE(p.answered());
    EXPECT_EQ(asked(w), (std::vector<Endpoint>{first, second, second}));

    // And the next phone goes to the first again.
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(q.register_once());
    EXPECT_EQ(asked(w), (std::vector<Endpoint>{first, second, second, first, first}));
}

TEST(NextHop, OneKnownToBeDownIsNotAsked) {
    World w(two_hops());
    w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::home && wire.flow.remote == first;
    };
    w.advance(120s);  // idle: probed
    EXPECT_FALSE(w.gateway->next_hops().at(0).usable);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(asked(w), (std::vector<Endpoint>{second, second}));
    EXPECT_GT(asked(w, "OPTIONS").size(), 0U);
}

// 503 with Retry-After: the request goes on at once, and nothing new comes until the time is over.
TEST(NextHop, WhoSays503IsLeftAlone) {
    World w(two_hops());
    std::size_t refused = 0;
    w.lose = [&](const Wire& wire) {
        if (wire.to != Wire::To::home || wire.flow.remote != first ||
            wire.message.method() != "REGISTER" || refused == 1)
            return false;
        ++refused;
        w.home.reply(wire, 503, "Retry-After: 60\r\n");
        return true;
    };
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(q.register_once());
    EXPECT_EQ(asked(w), (std::vector<Endpoint>{first, second, second, second, second}));
    w.advance(61s);
    Phone& r = w.phone("carol", "10.2.0.3");
    ASSERT_TRUE(r.register_once());
    EXPECT_EQ(asked(w).back(), first);
}

// A request the core leaves unanswered while it answers others says nothing of the core.
TEST(NextHop, OneUnansweredRequestTakesNobodyDown) {
    World w(two_hops());
    w.home.service_route.clear();
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::home && wire.message.contains("sip:blackhole@");
    };
    p.send_on(p.current(), p.request("MESSAGE", "sip:blackhole@home.example", route_of(p)));
    w.advance(10s);
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(q.register_once());
    w.advance(25s);
    EXPECT_TRUE(w.gateway->next_hops().at(0).usable);
}

// A request tied to one element by its Service-Route is not sent to another.
TEST(NextHop, AServiceRouteIsNotLeft) {
    World w(two_hops());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::home && wire.message.method() == "MESSAGE";
    };
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.advance(40s);
    EXPECT_EQ(asked(w, "MESSAGE"), (std::vector<Endpoint>{ep("192.0.2.9:6060")}));
    EXPECT_EQ(p.last_status(), 504);
}

// And when it was idle before: it is asked itself before it is given up.
TEST(NextHop, OneUnansweredRequestTakesNoIdleOneDown) {
    World w(two_hops());
    w.home.service_route.clear();
    w.advance(1s);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(500ms);
    w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::home && wire.message.contains("sip:blackhole@");
    };
    p.send_on(p.current(), p.request("MESSAGE", "sip:blackhole@home.example", route_of(p)));
    w.run();
    ASSERT_EQ(asked(w, "MESSAGE"), std::vector<Endpoint>{first});
    for (int i = 0; i < 40; ++i) {
        w.advance(1s);
        ASSERT_TRUE(w.gateway->next_hops().at(0).usable) << i;
    }
}

// A dialog stays with the one whose answer made it, though another is preferred.
TEST(NextHop, ADialogStaysWhereItsRequestMovedTo) {
    World w(two_hops());
    w.home.service_route.clear();
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    p.send_on(p.current(), p.request("REFER", "sip:bob@home.example", route_of(p)));
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    const std::string call_id = w.home.inbox.back().message.header("Call-ID");
    const auto say = [&](const std::string& hop) {
        p.send_on(p.current(), with_header(p.request("REFER", "sip:bob@192.0.2.77",
                                                     "To: <sip:bob@home.example>;tag=home\r\n"
                                                     "Route: <sip:" +
                                                         hop + ";lr>\r\n"),
                                           "Call-ID", call_id));
        w.run();
    };
    say("192.0.2.10:5060");
    EXPECT_EQ(asked(w, "REFER").back(), second);
    // What is no next hop is not gone to for that (S2).
    say("192.0.2.11:5060");
    EXPECT_EQ(asked(w, "REFER").back(), first);
}

TEST(NextHop, NoneLivesNothingLeaks) {
    World w(two_hops());
    w.home.silent = true;
    Phone& p = w.phone();
    p.send_sm1();
    w.advance(80s);
    EXPECT_EQ(p.last_status(), 504);
    EXPECT_EQ(w.gateway->pending(), 0U);
}

// More have left than are remembered: the latest of them are.
TEST(NextHop, TheLatestToLeaveAreTrusted) {
    ManualClock clock;
    TimerWheel timers(clock);
    SeededRandom random(5);
    metrics::Registry registry;
    registration::NextHops::Options options;
    options.local = {ep("192.0.2.1:5060")};
    registration::NextHops hops(options, timers, random, registry);
    const auto at = [](int i) { return ep("192.0.2." + std::to_string(i) + ":5060"); };
    for (int i = 100; i < 200; ++i) hops.set({{sip::Transport::udp, at(i)}});
    EXPECT_TRUE(hops.knows(at(198)));
    EXPECT_TRUE(hops.trusts(at(150).address));
    EXPECT_FALSE(hops.trusts(at(100).address)) << "bounded";
    clock.advance(200s);
    hops.used(at(150).address);
    clock.advance(200s);
    EXPECT_TRUE(hops.trusts(at(150).address)) << "in use";
    EXPECT_FALSE(hops.trusts(at(198).address));
}

// ---- by DNS ----

// Answers at the next tick, as told.
class Script final : public dns::Resolver {
  public:
    explicit Script(TimerWheel& timers) : timers_(timers) {}
    void ask(const std::string& name, dns::Type type, Done done) override {
        ++questions;
        auto job = std::make_unique<Job>();
        job->done = std::move(done);
        if (!down) {
            const auto it = answers.find({name, type});
            job->answer = it == answers.end() ? none() : it->second;
        }
        job->timer.bind(
            [](void* p) {
                auto* j = static_cast<Job*>(p);
                j->done(j->answer);
            },
            job.get());
        timers_.start(job->timer, 1ms);
        jobs_.push_back(std::move(job));
    }
    static dns::Answer none() {
        dns::Answer a;
        a.outcome = dns::Answer::Outcome::none;
        a.ttl = 3600s;
        return a;
    }
    void has(const std::string& name, std::vector<IpAddress> addresses, std::chrono::seconds ttl) {
        dns::Answer a;
        a.outcome = dns::Answer::Outcome::found;
        a.ttl = ttl;
        a.addresses = std::move(addresses);
        answers[{name, dns::Type::a}] = a;
    }
    void serves(const std::string& name, std::vector<dns::Srv> srv, std::chrono::seconds ttl) {
        dns::Answer a;
        a.outcome = dns::Answer::Outcome::found;
        a.ttl = ttl;
        a.srv = std::move(srv);
        answers[{name, dns::Type::srv}] = a;
    }
    bool down = false;
    std::size_t questions = 0;
    std::map<std::pair<std::string, dns::Type>, dns::Answer> answers;

  private:
    struct Job {
        Done done;
        dns::Answer answer;
        Timer timer;
    };
    TimerWheel& timers_;
    std::vector<std::unique_ptr<Job>> jobs_;
};

struct DnsWorld {
    DnsWorld() : w(options()), script(w.timers) {
        script.serves("_sip._udp.ims.example",
                      {{10, 0, 5060, "a.ims.example"}, {20, 0, 5060, "b.ims.example"}}, 300s);
        script.has("a.ims.example", {first.address}, 300s);
        script.has("b.ims.example", {second.address}, 300s);
    }
    // What the world holds of the resolver must go first.
    ~DnsWorld() { w.gateway.reset(); }
    static World::Options options() {
        World::Options o;
        o.policy.next_hops.clear();
        o.policy.domain = {"ims.example", 0, sip::Transport::udp};
        return o;
    }
    World w;
    Script script;
};

TEST(NextHop, ADomainGivesThemInOrder) {
    DnsWorld d;
    Phone& early = d.w.phone("early", "10.2.0.9");
    early.send_sm1();
    d.w.run();
    EXPECT_EQ(early.last_status(), 504) << "nothing is known, nothing is sent, nobody waits";
    d.w.gateway->resolve_with(d.script);
    d.w.advance(1s);
    ASSERT_EQ(d.w.gateway->next_hops().size(), 2U);
    Phone& p = d.w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_EQ(asked(d.w), (std::vector<Endpoint>{first, first}));
}

TEST(NextHop, TheTtlIsObeyedAndALastGoodAnswerKept) {
    DnsWorld d;
    d.w.gateway->resolve_with(d.script);
    d.w.advance(1s);
    const auto questions = d.script.questions;
    d.w.advance(200s);
    EXPECT_EQ(d.script.questions, questions) << "before the time of the records is over";
    d.script.has("a.ims.example", {ip("192.0.2.30")}, 300s);
    d.w.advance(150s);
    EXPECT_GT(d.script.questions, questions);
    EXPECT_EQ(d.w.gateway->next_hops().at(0).hop.at, ep("192.0.2.30:5060"));
    EXPECT_TRUE(d.w.gateway->trusts(ip("192.0.2.30")));
    EXPECT_TRUE(d.w.gateway->trusts(first.address) || d.w.gateway->trusts(second.address));

    d.script.down = true;
    d.w.advance(3600s);
    ASSERT_EQ(d.w.gateway->next_hops().size(), 2U) << "the DNS is down: the last good answer";
    EXPECT_FALSE(d.w.gateway->trusts(first.address)) << "it left the domain long ago";
    d.script.down = false;
    d.script.answers.clear();
    d.w.advance(3600s);
    EXPECT_EQ(d.w.gateway->next_hops().size(), 2U) << "a domain that empties at once, too";
}

// Who left the domain still answers what it was asked, however long it rings.
TEST(NextHop, WhoLeftTheDomainMayStillAnswer) {
    DnsWorld d;
    d.w.gateway->resolve_with(d.script);
    d.w.advance(1s);
    d.w.home.service_route.clear();
    Phone& p = d.w.phone();
    ASSERT_TRUE(p.register_once());
    d.w.advance(280s);
    d.script.has("a.ims.example", {ip("192.0.2.30")}, 3600s);
    OutgoingCall call(d.w, p, route_of(p));
    ASSERT_EQ(call.invite.flow.remote, first);
    call.answer(180);
    d.w.advance(100s);
    ASSERT_EQ(d.w.gateway->next_hops().at(0).hop.at, ep("192.0.2.30:5060"));
    call.answer(200);
    EXPECT_EQ(p.last_status(), 200);
    d.w.advance(400s);
    EXPECT_FALSE(d.w.gateway->trusts(first.address));
}

// A Service-Route by name: looked up, used and trusted; until then the next hop routes on.
TEST(NextHop, AServiceRouteByNameIsLookedUp) {
    DnsWorld d;
    d.w.gateway->resolve_with(d.script);
    d.w.advance(1s);
    d.w.home.service_route = "<sip:orig@scscf.ims.example:6060;lr>";
    d.script.has("scscf.ims.example", {ip("192.0.2.77")}, 60s);
    Phone& p = d.w.phone();
    ASSERT_TRUE(p.register_once());
    EXPECT_FALSE(d.w.gateway->trusts(ip("192.0.2.77")));
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    d.w.run();
    EXPECT_EQ(asked(d.w, "MESSAGE").back(), first) << "not known yet: the next hop routes on";
    d.w.advance(1s);
    EXPECT_TRUE(d.w.gateway->trusts(ip("192.0.2.77")));
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    d.w.run();
    EXPECT_EQ(asked(d.w, "MESSAGE").back(), ep("192.0.2.77:6060"));
    EXPECT_EQ(p.last_status(), 200);

    // A phone's own Route makes us ask nobody, and trust nobody (S2).
    const auto questions = d.script.questions;
    d.script.has("evil.example", {ip("203.0.113.66")}, 60s);
    p.send_on(p.current(), p.request("BYE", "sip:bob@home.example",
                                     "To: <sip:bob@home.example>;tag=x\r\n"
                                     "Route: <sip:evil.example;lr>\r\n"));
    d.w.advance(1s);
    EXPECT_EQ(d.script.questions, questions);
    EXPECT_FALSE(d.w.gateway->trusts(ip("203.0.113.66")));
}

}  // namespace
}  // namespace gmgate::test
