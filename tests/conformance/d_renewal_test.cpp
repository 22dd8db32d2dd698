// D: re-registration and the life of SA sets, over the whole gateway, with gmhome's S-CSCF and HSS.
// TS 33.203 clauses 7.4, 7.5.

#include "tests/support/conformance_world.h"

namespace gmgate::test {
namespace {

home::RegistrarConfig unchallenged() {
    auto c = HomeNetwork::default_config();
    c.rechallenge = 0;
    return c;
}

// A request of the home network to the phone; where it arrived.
Wire called(World& w, Phone& p) {
    EXPECT_TRUE(w.network->server->originate("MESSAGE", "sip:x@home.example", p.impu, "hi",
                                             [](int, std::string_view) {}));
    w.run();
    EXPECT_EQ(p.last().message.method(), "MESSAGE");
    return p.last();
}

// Registered, and renewed on that set: X and the new set both there, X still in use (D2).
struct Renewed {
    explicit Renewed(World::Options options = with_gmhome()) : w(std::move(options)), p(w.phone()) {
        EXPECT_TRUE(p.register_once());
        x = w.set_of(p.sets[0]);
        EXPECT_TRUE(p.reregister());
        fresh = w.set_of(p.sets[1]);
        EXPECT_NE(x, 0U);
        EXPECT_NE(fresh, 0U);
    }
    // A request of the phone on that set, answered on it. On the new one it is the switch.
    void use(std::size_t set) {
        p.send_on(p.sets[set], p.request("MESSAGE", "sip:echo@home.example"));
        w.run();
        EXPECT_EQ(p.last_status(), 200);
        EXPECT_EQ(p.last().set, set == 0 ? x : fresh);
    }
    World w;
    Phone& p;
    sa::SetId x = 0;
    sa::SetId fresh = 0;
};

// ---- D1 ----

TEST(D1, AfterSm12AllOldSetsAreRemoved) {
    for (const bool switched : {false, true}) {
        Renewed c;
        if (switched) c.use(1);  // X is draining
        c.p.next_ports();
        ASSERT_TRUE(c.p.challenged(false));
        EXPECT_TRUE(c.w.backend.has(c.x)) << "not before SM12";
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        c.p.send_sm7();
        c.w.run();
        ASSERT_EQ(c.p.last_status(), 200);
        c.p.accept();
        EXPECT_FALSE(c.w.backend.has(c.x));
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.backend.installed(), 1U);
        c.w.expect_served(c.p);
        EXPECT_EQ(called(c.w, c.p).set, c.w.set_of(c.p.current()));
        c.w.expect_no_leak(1);
    }
}

TEST(D1, AFailureRemovesNone) {
    Renewed c;
    c.p.next_ports();
    ASSERT_TRUE(c.p.challenged(false));
    c.p.send_wrong_sm7();
    c.w.advance(33s);
    EXPECT_TRUE(c.w.backend.has(c.x));
    EXPECT_TRUE(c.w.backend.has(c.fresh));
    EXPECT_EQ(c.w.backend.installed(), 2U);
}

// ---- D2 ----

TEST(D2, AtSm12XIsKeptAndAllOtherOldSetsGo) {
    Renewed c;
    c.use(1);  // X drains
    ASSERT_TRUE(c.p.challenged(true)) << "SM1 on the newer set: that one is X now";
    EXPECT_TRUE(c.w.backend.has(c.x));
    c.p.send_sm7();
    c.w.run();
    ASSERT_EQ(c.p.last_status(), 200);
    c.p.accept();
    EXPECT_FALSE(c.w.backend.has(c.x)) << "at SM12, not when its drain time is over";
    EXPECT_TRUE(c.w.backend.has(c.fresh));
    EXPECT_EQ(c.w.backend.installed(), 2U);
    c.w.expect_served(c.p);
    c.w.expect_no_leak(1);
}

TEST(D2, OutboundStaysOnXUntilTheNewSetIsUsed) {
    Renewed c;
    EXPECT_EQ(called(c.w, c.p).set, c.x);
    c.p.answer(c.p.last(), 200);  // on the new set: a message other than SM7
    c.w.run();
    EXPECT_EQ(called(c.w, c.p).set, c.fresh);
}

TEST(D2, NeitherSm7NorTrafficOnXMovesIt) {
    Renewed c;
    c.p.send_on(c.p.sets[1], c.p.last_sm7);  // SM12 was lost, SM7 comes again
    c.w.run();
    EXPECT_EQ(c.p.last_status(), 200);
    EXPECT_EQ(called(c.w, c.p).set, c.x);
    c.use(0);
    c.w.advance(100s);
    EXPECT_TRUE(c.w.backend.has(c.x)) << "there is no hurry";
    EXPECT_EQ(called(c.w, c.p).set, c.x);
}

TEST(D2, EveryOtherMessageMovesIt) {
    const std::vector<std::pair<std::string_view, std::function<void(Renewed&)>>> ways{
        {"MESSAGE", [](Renewed& c) { c.use(1); }},
        {"REGISTER",
         [](Renewed& c) {
             c.p.next_ports();
             c.p.send_on(c.p.sets[1], c.p.register_text({}, &c.p.sets[1]));
         }},
        {"OPTIONS that is refused",
         [](Renewed& c) {
             c.p.send_on(c.p.sets[1], c.p.request("OPTIONS", "sip:nobody@home.example"));
         }},
        {"ACK",
         [](Renewed& c) {
             c.p.send_on(c.p.sets[1], c.p.request("ACK", "sip:192.0.2.9:5060",
                                                  "To: <sip:x@home.example>;tag=1\r\n"));
         }},
    };
    for (const auto& [name, way] : ways) {
        SCOPED_TRACE(name);
        Renewed c;
        way(c);
        c.w.run();
        EXPECT_EQ(called(c.w, c.p).set, c.fresh);
        c.w.advance(32100ms);
        EXPECT_FALSE(c.w.backend.has(c.x)) << "64·T1 after the switch";
    }
}

TEST(D2, WhenXIsCloseToItsEndOutboundMoves) {
    auto config = HomeNetwork::default_config();
    config.min_expires = 1s;
    // X ends 3630 s after SM12 of its own, the new set as late as that; make the new one longer.
    RegisterOptions longer;
    longer.expires = 7200;
    World w(with_gmhome(config));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto x = w.set_of(p.sets[0]);
    ASSERT_TRUE(p.challenged(true, longer));
    p.send_sm7(longer);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    const auto fresh = w.set_of(p.sets[1]);
    w.advance(3630s - 15s);
    EXPECT_EQ(called(w, p).set, x);
    w.advance(10s);
    EXPECT_TRUE(w.backend.has(x));
    EXPECT_EQ(called(w, p).set, fresh);
    w.advance(6s);
    EXPECT_FALSE(w.backend.has(x)) << "its life was over";
    EXPECT_EQ(called(w, p).set, fresh);
}

TEST(D2, PendingTransactionsFinishOnX) {
    // Of the phone: asked on X, answered after the switch.
    Renewed c;
    c.w.network->silent = true;
    c.p.send_on(c.p.sets[0], c.p.request("MESSAGE", "sip:echo@home.example"));
    c.w.run();
    const Wire asked = c.w.home.inbox.back();
    c.w.network->silent = false;
    c.use(1);
    EXPECT_EQ(c.w.sets->find(c.x)->state, sa::State::draining);
    c.w.advance(10s);
    c.w.home.reply(asked, 200);
    c.w.run();
    EXPECT_EQ(c.p.last_status(), 200);
    EXPECT_EQ(c.p.last().set, c.x);
    // To the phone: asked on X, answered on X after the switch.
    Renewed d;
    const Wire request = called(d.w, d.p);
    EXPECT_EQ(request.set, d.x);
    d.use(1);
    d.w.advance(10s);
    const auto at_home = d.w.home.inbox.size();
    const auto newest = d.p.sets[1];
    d.p.sets.pop_back();
    d.p.answer(request, 200);
    d.w.run();
    ASSERT_GT(d.w.home.inbox.size(), at_home);
    EXPECT_EQ(d.w.home.inbox.back().message.status(), 200);
    d.p.sets.push_back(newest);
    EXPECT_EQ(called(d.w, d.p).set, d.fresh) << "that does not move anything back";
}

TEST(D2, XGoesAtTheEndOfTheDrainTimeAtTheLatest) {
    for (const Duration drain : {Duration(32s), Duration(5s)}) {
        auto options = with_gmhome();
        options.database.timers.drain = drain;
        Renewed c(options);
        c.use(1);
        c.w.advance(drain - 50ms);
        EXPECT_TRUE(c.w.backend.has(c.x));
        c.w.advance(100ms);
        EXPECT_FALSE(c.w.backend.has(c.x));
        c.w.expect_served(c.p);
        EXPECT_EQ(c.p.last().set, c.fresh);
        c.w.expect_no_leak(1);
    }
}

// The phone that never gets SM12 goes on with X; the new set does no harm.
TEST(D2, Sm12WasLost) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto x = w.set_of(p.current());
    ASSERT_TRUE(p.challenged(true));
    w.lose = [](const Wire& wire) { return wire.to == Wire::To::ue; };
    p.send_sm7();
    w.run();
    w.lose = nullptr;
    w.advance(40s);
    w.expect_served(p);
    EXPECT_EQ(p.last().set, x);
    EXPECT_EQ(called(w, p).set, x);
    EXPECT_TRUE(p.reregister()) << "on X again";
    w.expect_served(p);
    w.expect_no_leak(1);
}

// ---- D3 ----

TEST(D3, TwoHundredWithoutAChallengeExtendsTheSetInUse) {
    World w(with_gmhome(unchallenged()));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto set = w.set_of(p.current());
    w.advance(3000s);
    const auto installs = w.backend.install_calls();
    p.send_protected_sm1();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(p.last().set, set);
    EXPECT_FALSE(p.last().message.has("Security-Server"));
    EXPECT_EQ(w.backend.install_calls(), installs) << "no new SAs";
    EXPECT_EQ(w.sets->find(set)->lifetime_end - w.clock.now(), 3630s);
    // Never shorter.
    RegisterOptions shorter;
    shorter.expires = 600;
    p.send_protected_sm1(shorter);
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.sets->find(set)->lifetime_end - w.clock.now(), 3630s);
    w.advance(3629s);
    EXPECT_TRUE(w.backend.has(set));
    w.advance(2s);
    w.nothing_left();
}

// gmhome would challenge it, because that set is not the latest (A11); another S-CSCF need not.
TEST(D3, OnXItExtendsTheNewerSet) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.reregister());
    w.expect_served(p);  // X drains
    const auto x = w.set_of(p.sets[0]);
    const auto fresh = w.set_of(p.sets[1]);
    const TimePoint x_end = w.sets->find(x)->lifetime_end;
    w.advance(10s);
    w.home.accept_without_challenge = true;
    const auto installs = w.backend.install_calls();
    p.next_ports();
    p.send_on(p.sets[0], p.register_text({}, &p.sets[0]));
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.backend.install_calls(), installs);
    EXPECT_EQ(w.sets->find(fresh)->lifetime_end - w.clock.now(), 3630s);
    EXPECT_EQ(w.sets->find(x)->lifetime_end, x_end);
}

// ---- D4 ----

// The registration is over; the 200 (or NOTIFY) has left under the SAs, and only then they went.
void expect_gone_after_the_last_message(World& w, Phone& p, sa::SetId set) {
    EXPECT_EQ(p.last().set, set) << "under the SAs";
    EXPECT_TRUE(w.backend.has(set)) << "a lost one can be repeated";
    w.advance(31s);
    EXPECT_TRUE(w.backend.has(set));
    w.advance(1100ms);
    EXPECT_EQ(w.backend.installed(), 0U);
    w.nothing_left();
    EXPECT_FALSE(w.gateway->find(p.impi));
}

TEST(D4, ByTheUe) {
    for (const bool challenge : {false, true}) {
        for (const bool star : {false, true}) {
            SCOPED_TRACE(std::string(challenge ? "challenged" : "at once") +
                         (star ? ", Contact: *" : ""));
            World w(with_gmhome(challenge ? HomeNetwork::default_config() : unchallenged()));
            Phone& p = w.phone();
            ASSERT_TRUE(p.register_once());
            RegisterOptions o;
            o.expires = 0;
            if (star) o.contact = "*";
            p.send_protected_sm1(o);
            w.run();
            if (p.last_status() == 401) {
                p.take_challenge(p.last().message);
                p.send_sm7(o);
                w.run();
                p.accept();
            }
            ASSERT_EQ(p.last_status(), 200);
            EXPECT_EQ(w.network->flag(p.impi), home::LocalHss::Flag::not_registered);
            EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
            EXPECT_TRUE(w.gateway->find(p.impi)->impus.empty() ||
                        w.sets->find_by_impu(p.impu) == nullptr);
            const auto set = w.set_of(p.current());
            expect_gone_after_the_last_message(w, p, set);
        }
    }
}

TEST(D4, ALost200IsRepeatedOnTheSas) {
    World w(with_gmhome(unchallenged()));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    RegisterOptions o;
    o.expires = 0;
    w.lose = [](const Wire& wire) { return wire.to == Wire::To::ue; };
    p.send_protected_sm1(o);
    w.run();
    w.lose = nullptr;
    const auto heard = p.inbox.size();
    w.advance(16s);
    p.send_on(p.current(), p.last_sm1);
    w.run();
    ASSERT_EQ(p.inbox.size(), heard + 1);
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
}

TEST(D4, WhoHasLeftIsServedNoMore) {
    World w(with_gmhome(unchallenged()));
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(p.deregister());
    const auto at_home = w.home.inbox.size();
    p.send_on(p.current(), p.request("MESSAGE", "sip:echo@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 403);
    EXPECT_EQ(w.home.inbox.size(), at_home);
    // It may come back at once, on the SAs it still has.
    EXPECT_TRUE(p.reregister());
    w.expect_served(p);
    w.expect_no_leak(1);
}

TEST(D4, AllSetsGoNotOnlyTheLast) {
    Renewed c;
    ASSERT_TRUE(c.p.challenged(true));  // and a registration set on top
    EXPECT_EQ(c.w.backend.installed(), 3U);
    ASSERT_TRUE(c.w.gateway->deregister(c.p.impi));
    EXPECT_EQ(c.w.backend.installed(), 2U) << "a registration set has nothing to let out";
    EXPECT_EQ(c.w.gateway->pending(), 0U);
    c.w.advance(33s);
    c.w.nothing_left();
}

TEST(D4, OneIdentityOfSeveralIsNotAll) {
    World w;  // a scripted S-CSCF, which registers each identity for itself
    w.home.associated = "<sip:%U@home.example>";
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.associated = "<sip:work@home.example>";
    RegisterOptions work;
    work.impu = "sip:work@home.example";
    p.send_protected_sm1(work);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->impus.size(), 2U);
    const Books before = w.settled();
    work.expires = 0;
    p.send_protected_sm1(work);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->impus, std::vector<std::string>{p.impu});
    EXPECT_EQ(w.sets->find_by_impu("sip:work@home.example"), nullptr);
    EXPECT_EQ(w.settled(), before) << "the SAs are those of the other";
    w.expect_served(p);
    // And the last one takes them along.
    RegisterOptions last;
    last.expires = 0;
    w.home.associated = "<sip:%U@home.example>";
    p.send_protected_sm1(last);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    expect_gone_after_the_last_message(w, p, w.set_of(p.current()));
}

TEST(D4, ByExpiry) {
    auto config = unchallenged();
    World w(with_gmhome(config));
    Phone& p = w.phone();
    RegisterOptions o;
    o.expires = 600;
    ASSERT_TRUE(p.challenged(false, o));
    p.send_sm7(o);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    w.advance(599s);
    EXPECT_EQ(w.network->flag(p.impi), home::LocalHss::Flag::registered);
    w.advance(2s);
    EXPECT_EQ(w.network->flag(p.impi), home::LocalHss::Flag::not_registered);
    EXPECT_EQ(w.backend.installed(), 1U) << "30 s later than the registration (B5)";
    w.advance(28s);
    EXPECT_EQ(w.backend.installed(), 1U);
    w.advance(2s);
    EXPECT_EQ(w.books(), Books{});
}

// The network ends it: its NOTIFY and the phone's answer still pass under the SAs.
TEST(D4, ByTheNetwork) {
    for (const auto transport : {sip::Transport::udp, sip::Transport::tcp}) {
        World w;
        Phone& p = w.phone("alice", "10.2.0.1", transport);
        ASSERT_TRUE(p.register_once());
        const auto set = w.set_of(p.current());
        w.home.request("NOTIFY", w.home.paths[p.impi], p.contact(),
                       "Event: reg\r\nSubscription-State: terminated;reason=deactivated\r\n");
        ASSERT_TRUE(w.gateway->deregister(p.impi));
        EXPECT_FALSE(w.gateway->deregister(p.impi)) << "once";
        // Over UDP the first one is lost: it comes again, on the same SA.
        int lost = 0;
        w.lose = [&](const Wire& wire) {
            return transport == sip::Transport::udp && wire.to == Wire::To::ue &&
                   wire.message.method() == "NOTIFY" && lost++ == 0;
        };
        w.run();
        if (transport == sip::Transport::udp) {
            ASSERT_EQ(lost, 1);
            ASSERT_NE(p.last().message.method(), "NOTIFY");
            w.advance(1s);
        }
        ASSERT_EQ(p.last().message.method(), "NOTIFY");
        const Wire notify = p.last();
        EXPECT_EQ(notify.set, set);
        EXPECT_TRUE(notify.esp);
        p.answer(notify, 200);
        w.run();
        EXPECT_EQ(w.home.inbox.back().message.status(), 200);
        expect_gone_after_the_last_message(w, p, set);
    }
}

// ---- D5 ----

TEST(D5, TheSetsOfTheOldAddressGoAtSm12) {
    for (const std::string_view to : {"10.2.0.77", "2001:db8:2::77"}) {
        Renewed c;
        c.p.address = ip(to);
        c.p.next_ports();
        if (c.p.address.is_v6()) c.p.port_us = 7778;
        ASSERT_TRUE(c.p.challenged(false));
        EXPECT_FALSE(c.p.last().esp) << "in clear";
        EXPECT_TRUE(c.w.backend.has(c.x)) << "not before SM12";
        EXPECT_TRUE(c.w.backend.has(c.fresh));
        c.p.send_sm7();
        c.w.run();
        ASSERT_EQ(c.p.last_status(), 200);
        EXPECT_FALSE(c.w.backend.has(c.x));
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        EXPECT_EQ(c.w.backend.installed(), 1U);
        c.p.accept();
        c.w.expect_served(c.p);
        EXPECT_EQ(called(c.w, c.p).flow.remote.address, ip(to));
        c.w.expect_no_leak(1);
    }
}

TEST(D5, AFailureAtTheNewAddressLeavesTheOld) {
    Renewed c;
    const IpAddress home = c.p.address;
    c.p.address = ip("10.2.0.77");
    c.p.next_ports();
    ASSERT_TRUE(c.p.challenged(false));
    c.p.send_wrong_sm7();
    c.w.advance(33s);
    c.p.address = home;
    EXPECT_EQ(c.w.backend.installed(), 2U);
    c.use(1);
}

// ---- D6 ----

// Every failure there is, of a re-registration on the set X: told on X, the new set goes, X stays.
TEST(D6, EveryFailureTravelsOnTheOldSetWhichStays) {
    struct Case {
        std::string_view name;
        std::function<void(Procedure&)> fail;
        int status;
        bool at_once;  // the new set goes with the answer, not by reg-await-auth
    };
    const auto sm7 = [](auto change) {
        return [change](Procedure& c) {
            RegisterOptions o;
            change(c, o);
            c.p.send_sm7(o);
        };
    };
    // Something of the core is out of order as long as anybody waits for it.
    const auto sm7_while = [](auto trouble) {
        return [trouble](Procedure& c) {
            trouble(c.w) = true;
            c.p.send_sm7();
            c.w.advance(33s);
            trouble(c.w) = false;
        };
    };
    using O = RegisterOptions;
    const std::vector<Case> cases{
        {"C2", sm7([](Procedure& c, O& o) { o.authorization = c.p.wrong_answer(); }), 403, true},
        {"C3", [](Procedure& c) { c.p.refuse_challenge(true); }, 403, true},
        {"C4 that fails",
         [](Procedure& c) {
             c.p.refuse_challenge(true, to_base64(std::array<std::uint8_t, 14>{}));
         },
         403, true},
        {"C6",
         [](Procedure& c) {
             O o;
             o.client = "digest";
             c.p.send_protected_sm1(o);
         },
         494, false},
        {"C8 verify", sm7([](Procedure&, O& o) { o.verify = ""; }), 403, true},
        {"C8 client", sm7([](Procedure&, O& o) { o.security_client = false; }), 403, true},
        {"B6 Via", sm7([](Procedure&, O& o) { o.via_host = "10.2.0.99"; }), 403, true},
        {"SM7 without a response",
         sm7([](Procedure& c, O& o) { o.authorization = c.p.answer_to(c.p.pending->nonce, ""); }),
         400, false},
        {"C11 silent", sm7_while([](World& w) -> bool& { return w.network->silent; }), 504, false},
        {"C11 unreachable", sm7_while([](World& w) -> bool& { return w.core_net.refuse; }), 504,
         false},
        {"C11 HSS", sm7_while([](World& w) -> bool& { return w.network->on_cx.silent; }), 504,
         false},
    };
    for (const Case& k : cases) {
        SCOPED_TRACE(k.name);
        Procedure c(true);
        k.fail(c);
        c.w.run();
        EXPECT_EQ(c.p.last_status(), k.status);
        EXPECT_EQ(c.p.last().set, c.old);
        EXPECT_EQ(c.w.backend.has(c.fresh), !k.at_once);
        EXPECT_TRUE(c.w.backend.has(c.old));
        c.w.advance(241s);
        EXPECT_FALSE(c.w.backend.has(c.fresh));
        c.expect_as_before();
        EXPECT_TRUE(c.p.reregister()) << "and it can be tried again";
    }
}

// ---- D7 ----

TEST(D7, TheSetIsRetiredAndThePhoneIsServedWhileItReregisters) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto worn = w.set_of(p.current());
    w.backend.emit({sa::BackendEventKind::sequence_near_end, worn, p.current().numbers.spi_ps});
    w.sets->poll_backend();
    EXPECT_EQ(w.sets->find(worn)->state, sa::State::draining) << "retired";
    EXPECT_EQ(w.drops(Reason::sequence_near_end), 0U);
    w.expect_served(p);
    EXPECT_EQ(called(w, p).set, worn) << "it is the only one";
    ASSERT_TRUE(p.challenged(true));
    EXPECT_EQ(p.last().set, worn);
    w.advance(20s);
    p.send_sm7();
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    const auto fresh = w.set_of(p.current());
    EXPECT_EQ(called(w, p).set, fresh) << "nothing more is sent on the worn one";
    w.advance(13s);
    EXPECT_FALSE(w.backend.has(worn));
    w.expect_served(p);
    w.expect_no_leak(1);
}

// The worn set goes in the middle of the renewal: SM7 on the new set completes it.
TEST(D7, TheWornSetGoesBetweenSm6AndSm7) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto worn = w.set_of(p.current());
    ASSERT_TRUE(p.challenged(true));
    w.backend.emit({sa::BackendEventKind::sequence_near_end, worn, p.current().numbers.spi_ps});
    w.sets->poll_backend();
    w.advance(33s);
    EXPECT_FALSE(w.backend.has(worn));
    p.send_sm7();
    w.run();
    EXPECT_EQ(p.last_status(), 200);
    p.accept();
    w.expect_served(p);
    w.expect_no_leak(1);
}

TEST(D7, AnOldSetAndARegistrationSet) {
    Renewed c;
    // X wears out while the new set waits for traffic.
    c.w.backend.emit({sa::BackendEventKind::sequence_near_end, c.x, 0});
    c.w.sets->poll_backend();
    EXPECT_EQ(called(c.w, c.p).set, c.fresh);
    c.w.advance(33s);
    EXPECT_FALSE(c.w.backend.has(c.x));
    c.w.expect_served(c.p);
    // A set that is not even established ends with its procedure.
    ASSERT_TRUE(c.p.challenged(true));
    const auto pending = c.w.set_of(*c.p.pending);
    c.w.backend.emit({sa::BackendEventKind::sequence_near_end, pending, 0});
    c.w.sets->poll_backend();
    EXPECT_FALSE(c.w.backend.has(pending));
    EXPECT_EQ(c.w.gateway->pending(), 0U);
    c.w.expect_served(c.p);
    c.w.expect_no_leak(1);
}

TEST(D7, APhoneThatDoesNotReregisterIsOutBeforeTheNumbersAreUsedUp) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.backend.emit({sa::BackendEventKind::sequence_near_end, w.set_of(p.current()), 0});
    w.sets->poll_backend();
    w.advance(33s);
    w.nothing_left();
    p.next_ports();
    EXPECT_TRUE(p.register_once());
}

// ---- time ----

// Everything runs on the monotonic clock: the wall clock may jump by years, forwards and back, at
// every step, and nothing changes.
TEST(B5, TheWallClockDoesNotMatter) {
    World w(with_gmhome());
    Phone& p = w.phone();
    auto jump = [&, forwards = true]() mutable {
        w.clock.jump_wall(forwards ? std::chrono::hours(24 * 365 * 30)
                                   : -std::chrono::hours(24 * 365 * 60));
        forwards = !forwards;
        w.run();
        w.timers.advance();
    };
    ASSERT_TRUE(p.challenged());
    jump();
    w.advance(239s);
    jump();
    EXPECT_EQ(w.backend.installed(), 1U);
    p.send_sm7();
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    jump();
    const auto set = w.set_of(p.current());
    EXPECT_EQ(w.sets->find(set)->lifetime_end - w.clock.now(), 3630s);
    EXPECT_EQ(*w.gateway->find(p.impi)->expires_in, 3600s);
    w.advance(1800s);
    jump();
    w.expect_served(p);
    EXPECT_EQ(*w.gateway->find(p.impi)->expires_in, 1800s);
    ASSERT_TRUE(p.reregister());
    jump();
    w.expect_served(p);
    jump();
    w.advance(31s);
    EXPECT_TRUE(w.backend.has(set));
    w.advance(2s);
    EXPECT_FALSE(w.backend.has(set));
    jump();
    w.advance(3595s);
    EXPECT_EQ(w.backend.installed(), 1U);
    jump();
    w.advance(5s);
    w.nothing_left();
}

}  // namespace
}  // namespace gmgate::test
