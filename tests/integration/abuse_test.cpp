// Floods, measured (S3): of first REGISTERs of strangers, of a name, of a registered phone. Virtual
// time, exact counts; docs/security.md quotes the figures printed here.

#include <cstdio>
#include <set>
#include <string>

#include "tests/support/calls.h"
#include "tests/support/emergency_call.h"

namespace gmgate::test {
namespace {

struct Held {
    std::size_t pending, transactions, sets, spis, timers;
};

Held held(World& w) {
    return {w.gateway->pending(), w.gateway->transactions(), w.sets->set_count(),
            w.sets->spis().held(), w.timers.size()};
}

// A first REGISTER of a source of its own, and what it offers.
void stranger(World& w, const std::string& name, std::string_view address) {
    Phone p(w, name, ip(address));
    p.send_sm1();
}

World::Options small() {
    World::Options o;
    o.capacity = 4096;
    o.policy.limits.pending = 200;
    o.policy.limits.register_rate_total = 100;
    o.policy.limits.register_burst_total = 200;
    o.database.limits.max_registration_sets = 200;
    return o;
}

TEST(Abuse, AFloodOfInventedSourcesIsBoundedAndRegisteredPhonesRenew) {
    World w(small());
    w.home.integrity_yes_is_enough = false;
    std::vector<Phone*> phones;
    for (int i = 0; i < 20; ++i) {
        const std::string n = std::to_string(i + 1);
        phones.push_back(&w.phone("p" + n, i % 2 == 0 ? "10.2.0." + n : "fd00::" + n + ":0:0:0:1"));
        w.advance(100ms);
        ASSERT_TRUE(phones.back()->register_once());
    }
    SeededRandom dice(9);
    std::size_t sent = 0;
    std::size_t renewed = 0;
    Held most{};
    for (int second = 0; second < 60; ++second) {
        for (int k = 0; k < 20; ++k) {
            for (int i = 0; i < 25; ++i, ++sent) {
                // Names the home knows: each that gets in holds SPIs, a set, and a vector.
                const std::string a =
                    i % 2 == 0
                        ? "11." + std::to_string(dice.below(256)) + "." +
                              std::to_string(dice.below(256)) + "." +
                              std::to_string(dice.below(256))
                        : "2001:db8:" + to_hex({reinterpret_cast<const std::uint8_t*>(&sent), 2}) +
                              ":" + std::to_string(dice.below(9999)) + "::1";
                stranger(w, "x" + std::to_string(dice.u64()), a);
            }
            if (k == 10) renewed += phones[static_cast<std::size_t>(second) % 20]->reregister();
            w.advance(50ms);
            w.log.clear();
            w.home.inbox.clear();
            w.home.replies.clear();
            const Held h = held(w);
            most.pending = std::max(most.pending, h.pending);
            most.sets = std::max(most.sets, h.sets);
            most.spis = std::max(most.spis, h.spis);
            most.transactions = std::max(most.transactions, h.transactions);
            most.timers = std::max(most.timers, h.timers);
        }
    }
    const auto vectors = w.home.counter;
    std::printf(
        "        %zu first REGISTERs of invented sources in 60 s: %llu refused by the rate, %llu "
        "by "
        "the places; %u vectors; at most %zu pending, %zu sets, %zu SPIs, %zu transactions; %zu of "
        "60 renewals done\n",
        sent, static_cast<unsigned long long>(w.drops(Reason::rate_total)),
        static_cast<unsigned long long>(w.drops(Reason::pending_limit)), vectors, most.pending,
        most.sets, most.spis, most.transactions, renewed);
    EXPECT_EQ(renewed, 60U);
    EXPECT_LE(most.pending, 200U + 1);
    EXPECT_LE(most.sets, 200U + 2 * 20);
    EXPECT_LE(most.spis, 2 * (200U + 2 * 20));
    EXPECT_LE(vectors, 200U + 60 * 100 + 100) << "burst, rate, and the phones' own";
    EXPECT_GT(w.drops(Reason::rate_total), 20'000U);
    for (Phone* p : phones)
        p->send_on(p->current(), p->request("MESSAGE", "sip:bob@home.example"));  // D2: old sets go
    w.expect_no_leak(20);
}

// Refusals cost a transaction each for 64·T1: strangers fill their half and no more, so the phones'
// own requests and renewals always find one.
TEST(Abuse, AFloodOfRefusedRegistersLeavesTheTransactionsOfPhonesAlone) {
    World::Options o;
    o.policy.limits.transactions = 200;
    o.policy.limits.register_rate_total = o.policy.limits.register_burst_total = 100'000;
    World w(o);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.settled();
    RegisterOptions nobody;
    nobody.authorization = "";
    for (int i = 0; i < 1000; ++i) {
        Phone x(w, "x" + std::to_string(i),
                ip("11.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1)));
        x.send_sm1(nobody);
    }
    w.run();
    EXPECT_EQ(w.drops(Reason::no_authorization), 100U);
    EXPECT_EQ(w.drops(Reason::transaction_limit), 900U);
    EXPECT_EQ(w.gateway->transactions(), 100U);
    for (int i = 0; i < 90; ++i) {
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        ASSERT_EQ(p.last_status(), 200) << i;
    }
    EXPECT_TRUE(p.reregister() || p.last_status() == 200);
    w.expect_no_leak(1);
}

// What the rate turns away over TCP is not sent again: the phone must not wait for an answer.
TEST(Abuse, ARefusedConnectionIsClosed) {
    World::Options o;
    o.policy.limits.register_burst_per_source = 1;
    World w(o);
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    p.send_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 401);
    EXPECT_TRUE(w.gm_net.closed.empty());
    p.send_sm1();
    w.run();
    EXPECT_EQ(w.drops(Reason::rate_source), 1U);
    EXPECT_EQ(w.gm_net.closed, std::set<sip::ConnectionId>{p.clear_connection});
    // Over UDP there is nothing to close.
    Phone& q = w.phone("bob", "10.2.0.2");
    q.send_sm1();
    q.send_sm1();
    w.run();
    EXPECT_EQ(w.drops(Reason::rate_source), 2U);
    EXPECT_EQ(w.gm_net.closed.size(), 1U);
    // The same where the table of transactions is full.
    World::Options few;
    few.policy.limits.transactions = 0;
    World full(few);
    Phone& r = full.phone("carol", "10.2.0.3", sip::Transport::tcp);
    r.send_sm1();
    full.run();
    EXPECT_EQ(full.drops(Reason::transaction_limit), 1U);
    EXPECT_EQ(full.gm_net.closed, std::set<sip::ConnectionId>{r.clear_connection});
}

// What a phone asked before it was turned away is still answered on its connection.
TEST(Abuse, ARefusedConnectionIsClosedBehindTheAnswersItAwaits) {
    World::Options o;
    o.policy.limits.register_burst_per_source = 1;
    o.policy.limits.register_rate_per_source = 0.001;
    World w(o);
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    w.home.silent = true;
    p.send_sm1();
    w.run();
    const Wire asked = w.home.inbox.back();
    for (int i = 0; i < 3; ++i) p.send_sm1();
    w.run();
    EXPECT_GE(w.drops(Reason::rate_source), 1U);
    EXPECT_TRUE(w.gm_net.closed.empty()) << "an answer is on its way";
    EXPECT_TRUE(p.inbox.empty());
    w.home.silent = false;
    w.home.inbox.clear();
    w.home.reply(asked, 403);
    w.run();
    ASSERT_EQ(p.inbox.size(), 1U);
    EXPECT_EQ(p.last_status(), 403);
    w.advance(1ms);
    EXPECT_EQ(w.gm_net.closed, std::set<sip::ConnectionId>{p.clear_connection});
    w.expect_no_leak(0);
}

// A registered phone that sends too fast over TCP: told so a few times, then hung up on; nothing
// waits in vain.
TEST(Abuse, APhoneThatSendsTooFastOverTcpIsTold) {
    World::Options o;
    o.policy.limits.message_burst_per_user = 4;
    o.policy.limits.message_rate_per_user = 0.5;
    World w(o);
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ASSERT_TRUE(p.register_once());
    const auto send = [&] {
        p.inbox.clear();
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        return p.last_status();
    };
    for (int i = 0; i < 3; ++i) EXPECT_EQ(send(), 200) << i;  // SM7 was the first
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(send(), 503) << i;
        EXPECT_TRUE(p.last().message.has("Retry-After"));
        EXPECT_TRUE(p.last().esp);
    }
    EXPECT_TRUE(w.gm_net.closed.empty());
    EXPECT_EQ(send(), -1);
    EXPECT_EQ(w.gm_net.closed.size(), 1U);
    EXPECT_EQ(w.drops(Reason::rate_user), 6U);
    // On a new connection, later.
    p.connections.clear();
    w.advance(10s);
    EXPECT_EQ(send(), 200);
    // Over UDP it sends again by itself.
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(q.register_once());
    const auto heard = q.inbox.size();
    for (int i = 0; i < 5; ++i)
        q.send_on(q.current(), q.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(q.inbox.size(), heard + 3);
}

TEST(Abuse, A64IsOneSource) {
    World w;
    w.home.silent = true;
    for (int i = 0; i < 100; ++i)
        stranger(w, "x" + std::to_string(i), "fd00:66::" + std::to_string(i + 1));
    w.run();
    EXPECT_EQ(w.drops(Reason::rate_source), 80U);
    EXPECT_EQ(w.gateway->pending(), w.options.policy.limits.pending_per_source);
    Phone& neighbour = w.phone("bob", "fd00:66:0:1::1");
    w.home.silent = false;
    EXPECT_TRUE(neighbour.register_once());
    w.advance(300s);
    EXPECT_EQ(w.gateway->pending(), 0U);
    stranger(w, "late", "fd00:66::ffff");
    w.run();
    EXPECT_EQ(w.gateway->pending(), 1U) << "what was counted is given back";
    w.expect_no_leak(1);
}

// Strangers that hold every place for as long as a challenge lives keep nobody out for long.
TEST(Abuse, WhoDoesNotAnswerGivesWay) {
    World::Options o = small();
    o.policy.limits.pending = 20;
    World w(o);
    w.home.integrity_yes_is_enough = false;
    for (int i = 0; i < 20; ++i)
        stranger(w, "x" + std::to_string(i), "11.0.0." + std::to_string(i + 1));
    w.run();
    ASSERT_EQ(w.gateway->pending(), 20U);
    Phone& alice = w.phone();
    alice.send_sm1();
    w.run();
    EXPECT_EQ(alice.last_status(), 503);
    EXPECT_EQ(w.drops(Reason::pending_limit), 1U);
    w.advance(5s);
    // Nineteen who came in between wait not long enough to give way.
    EXPECT_TRUE(alice.register_once());
    EXPECT_EQ(w.gateway->pending(), 19U);
    EXPECT_EQ(w.sets->spis().held(), 2 * 20U);
    const auto failures = w.gateway->failures().latest(1);
    ASSERT_EQ(failures.size(), 1U);
    EXPECT_EQ(failures[0].reason, Reason::gave_way);
    w.expect_no_leak(1);
}

// Eight packets with a phone's address hold the places of that source: not for as long as
// challenges live, or two packets a minute would keep the phone out.
TEST(Abuse, AForgedSourceKeepsThePhoneThereOutForSecondsOnly) {
    World w;
    Phone& alice = w.phone();
    ASSERT_TRUE(alice.register_once());
    const auto places = w.options.policy.limits.pending_per_source;
    for (std::size_t i = 0; i < places; ++i) {
        Phone forger(w, "x" + std::to_string(i), alice.address);
        forger.port_uc = static_cast<sa::Port>(30'000 + i);
        forger.send_sm1();
    }
    w.run();
    ASSERT_EQ(w.gateway->pending(), places);
    alice.next_ports();  // it has lost its SAs
    alice.send_sm1();
    w.run();
    EXPECT_EQ(alice.last_status(), 503);
    EXPECT_EQ(w.drops(Reason::pending_source_limit), 1U);
    w.advance(5s);
    EXPECT_TRUE(alice.register_once());
    EXPECT_EQ(w.gateway->pending(), places - 1);
    const auto failures = w.gateway->failures().latest(1);
    ASSERT_EQ(failures.size(), 1U);
    EXPECT_EQ(failures[0].reason, Reason::gave_way);
    w.expect_no_leak(1);
}

TEST(Abuse, ANameCostsTheHomeFewVectors) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    ASSERT_TRUE(alice.register_once());
    const auto before = w.home.counter;
    for (int second = 0; second < 100; ++second) {
        // 20 sources a second, 2000 in all.
        for (int i = 0; i < 20; ++i) {
            stranger(w, "alice", "11.1." + std::to_string(second) + "." + std::to_string(i + 1));
            w.run();
        }
        w.advance(1s);
    }
    const auto vectors = w.home.counter - before;
    std::printf("        2000 first REGISTERs of 2000 sources with one name in 100 s: %u vectors\n",
                vectors);
    EXPECT_LE(vectors, 60U + 1);
    EXPECT_GE(vectors, 50U);
    EXPECT_GT(w.drops(Reason::rate_name), 1900U);
    // She herself: on her SAs, and in clear from her own address, without waiting for a turn.
    stranger(w, "alice", "11.2.0.1");
    EXPECT_TRUE(alice.reregister());
    for (int i = 0; i < 30; ++i) stranger(w, "alice", "11.3.0." + std::to_string(i + 1));
    w.advance(33s);
    alice.next_ports();
    alice.sets.clear();
    EXPECT_TRUE(alice.register_once());
    w.expect_no_leak(1);
}

TEST(Abuse, OnePhonesFloodOfMessagesIsDroppedAndOthersAreServed) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    std::size_t reached = 0;
    std::size_t served = 0;
    w.home.inbox.clear();
    for (int k = 0; k < 100; ++k) {  // 10 s, 2000 a second
        for (int i = 0; i < 200; ++i)
            mallory.send_on(mallory.current(), mallory.request("OPTIONS", "sip:bob@home.example"));
        w.run();
        if (k % 10 == 0) {
            alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
            w.run();
            served += alice.last_status() == 200;
        }
        reached += w.home.inbox.size();
        w.home.inbox.clear();
        w.home.replies.clear();
        w.log.clear();
        mallory.inbox.clear();
        w.advance(100ms);
    }
    std::printf(
        "        20,000 requests of one phone in 10 s: %zu reached the home, %llu dropped; "
        "%zu of 10 of another were answered\n",
        reached - served, static_cast<unsigned long long>(w.drops(Reason::rate_user)), served);
    EXPECT_EQ(served, 10U);
    EXPECT_LE(reached, 200U + 10 * 50 + 10);
    EXPECT_GE(w.drops(Reason::rate_user), 19'000U);
    const auto failures = w.gateway->failures().latest(10'000);
    EXPECT_LE(std::ranges::count_if(failures,
                                    [](const auto& f) { return f.reason == Reason::rate_user; }),
              11)
        << "a flood does not fill the list of failures";
    // Also what is no SIP at all.
    for (int i = 0; i < 1000; ++i) mallory.send_on(mallory.current(), "rubbish\r\n\r\n");
    w.run();
    EXPECT_GE(w.drops(Reason::rate_user), 19'900U);
    w.advance(10s);
    EXPECT_TRUE(mallory.reregister()) << "and it is not shut out";
    mallory.send_on(mallory.current(), mallory.request("MESSAGE", "sip:bob@home.example"));
    w.expect_no_leak(2);
}

// C1: forged packets on live SPIs end no set, no procedure, and leave no more than a line a second.
TEST(Abuse, ForgedPacketsOnLiveSpisCostThePhoneNothing) {
    World w;
    w.home.integrity_yes_is_enough = false;
    Phone& alice = w.phone();
    ASSERT_TRUE(alice.register_once());
    const auto forge = [&](const Phone::Security& s) {
        Wire wire;
        wire.to = Wire::To::gateway_gm;
        wire.flow = {sip::Transport::udp, Endpoint{ip("10.1.0.1"), s.numbers.port_ps},
                     Endpoint{alice.address, s.numbers.port_uc}, 0};
        wire.message.text = "forged";
        w.queue.push_back(wire);
    };
    const Held before = held(w);
    for (int i = 0; i < 1000; ++i) forge(alice.current());
    w.run();
    EXPECT_EQ(w.forged_dropped, 1000U);
    ASSERT_TRUE(alice.challenged(true));
    for (int i = 0; i < 1000; ++i) forge(*alice.pending);
    for (int i = 0; i < 1000; ++i) forge(alice.current());
    w.run();
    ASSERT_TRUE(alice.answered());
    alice.send_on(alice.current(), alice.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(alice.last_status(), 200);
    w.advance(300s);
    const Held after = held(w);
    EXPECT_EQ(after.sets, before.sets);
    EXPECT_EQ(after.spis, before.spis);
    EXPECT_EQ(w.gateway->registered(), 1U);
    w.expect_no_leak(1);
}

// Answers that are not owed do not count; and a connection that is to be closed behind an answer
// that does not come is closed nevertheless.
TEST(Abuse, AConnectionIsNotKeptForAnAnswerThatNeverComes) {
    World::Options o;
    o.policy.limits.message_burst_per_user = 4;
    o.policy.limits.message_rate_per_user = 0.5;
    World w(o);
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ASSERT_TRUE(p.register_once());
    w.advance(10s);
    w.home.silent = true;
    p.send_on(p.current(),
              p.request("INVITE", "sip:bob@home.example", "Contact: <" + p.contact() + ">\r\n"));
    w.run();
    ASSERT_EQ(w.home.inbox.back().message.method(), "INVITE");
    w.home.reply(w.home.inbox.back(), 180);  // and rings for ever
    w.run();
    ASSERT_EQ(p.last_status(), 180);
    w.home.silent = false;
    const auto send = [&] {
        p.inbox.clear();
        p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
        w.run();
        return p.last_status();
    };
    for (int i = 0; i < 3; ++i) ASSERT_EQ(send(), 200) << i;
    for (int i = 0; i < 5; ++i) ASSERT_EQ(send(), 503) << i;
    EXPECT_EQ(send(), -1);
    w.advance(1ms);
    EXPECT_TRUE(w.gm_net.closed.empty()) << "an answer may be on its way";
    w.advance(33s);
    EXPECT_EQ(w.gm_net.closed.size(), 1U);
    p.connections.clear();
    EXPECT_EQ(send(), 200);
}

// A2, A6: what an SA carried goes with it.
TEST(Abuse, ConnectionsAreCutWithTheirSa) {
    World w;
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ASSERT_TRUE(p.register_once());
    const sa::SaNumbers n = p.current().numbers;
    EXPECT_TRUE(w.gm_net.cuts.empty());
    ASSERT_TRUE(p.deregister());
    w.advance(60s);
    const IpAddress ours = World::gm_address(p.address);
    EXPECT_TRUE(w.gm_net.cuts.contains({{ours, n.port_ps}, {p.address, n.port_uc}}));
    EXPECT_TRUE(w.gm_net.cuts.contains({{ours, n.port_pc}, {p.address, n.port_us}}));
    w.expect_no_leak(0);
}

// RFC 3261 18.2.2: the answer finds another way to the phone when its connection is gone.
TEST(Abuse, AnAnswerWhoseConnectionIsGoneGetsANewOne) {
    World w;
    Phone& p = w.phone("alice", "10.2.0.1", sip::Transport::tcp);
    ASSERT_TRUE(p.register_once());
    w.home.silent = true;
    p.send_on(p.current(), p.request("MESSAGE", "sip:bob@home.example"));
    w.run();
    const Wire asked = w.home.inbox.back();
    p.inbox.clear();
    w.gm_net.closed.insert(p.connections[p.current().numbers.port_uc]);
    w.home.reply(asked, 200);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
    EXPECT_EQ(p.last().flow.local.port, p.current().numbers.port_pc);
    EXPECT_EQ(p.last().flow.remote.port, p.current().numbers.port_us);
}

// Emergency calls of strangers from invented addresses (A6, S3): bounded by source and in total,
// and nothing of it is at the expense of who is registered.
TEST(Abuse, AFloodOfEmergencyCallsInClear) {
    World::Options o = emergencies_in_clear();
    o.policy.limits.dialogs = 1;
    o.policy.limits.proxied = 4;
    o.policy.limits.emergency_calls = 20;
    World w(o);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto begun = [&w] {
        std::set<std::string> calls;
        for (const Wire& wire : w.home.inbox) {
            if (wire.message.method() == "INVITE") calls.insert(wire.message.header("Call-ID"));
        }
        return calls.size();
    };
    const auto call_from = [&w](int host) {
        Phone stranger(
            w, "nobody",
            ip("10.3." + std::to_string(host / 250) + "." + std::to_string(1 + host % 250)));
        const ClearCall call(w, stranger);
    };
    for (int i = 0; i < 10; ++i) call_from(0);
    EXPECT_EQ(begun(), 2U) << "of one source";
    for (int i = 1; i < 1000; ++i) call_from(i);
    EXPECT_EQ(begun(), 10U) << "half of them, of those who have not shown that they hear us";
    EXPECT_EQ(w.drops(Reason::emergency_limit), 999U);
    EXPECT_LE(w.gateway->proxied(), 10U);
    std::printf("emergency calls in clear: 1009 from 1000 addresses, 10 reach the E-CSCF\n");

    // Who is there by TCP still gets through, and the registered phone has all that is its own.
    Phone& real = w.phone("carol", "10.2.0.7", sip::Transport::tcp);
    ClearCall real_call(w, real);
    EXPECT_TRUE(real_call.reached());
    real_call.establish();
    w.home.silent = false;
    w.expect_served(p);
    OutgoingCall call(w, p);
    call.establish();
    EXPECT_EQ(call.p.inbox.back().message.status(), 200);
    call.say("BYE");
    w.home.silent = true;
    real_call.hang_up();
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    // Nobody answers the others: they end by themselves, and as many may begin again.
    w.advance(60s);
    EXPECT_EQ(w.gateway->proxied(), 0U);
    const auto before = begun();
    call_from(2000);
    EXPECT_EQ(begun(), before + 1);
    w.expect_no_leak(1);
}

// Short ones, one after the other: each may call somebody to a telephone.
TEST(Abuse, EmergencyCallsThatEndAtOnceAreHeldBack) {
    World::Options o = emergencies_in_clear();
    o.policy.limits.emergency_calls = 20;
    World w(o);
    std::size_t reached = 0;
    for (int i = 0; i < 200; ++i) {
        Phone stranger(w, "nobody", ip("10.3.0." + std::to_string(1 + i)));
        const ClearCall call(w, stranger);
        if (!call.reached()) continue;
        ++reached;
        w.home.reply(call.invite, 486);
        w.run();
    }
    EXPECT_EQ(reached, 10U) << "half is for those who show that their address is their own";
    EXPECT_EQ(w.drops(Reason::emergency_limit), 190U);
    Phone& real = w.phone("carol", "10.2.0.7", sip::Transport::tcp);
    ClearCall real_call(w, real);
    EXPECT_TRUE(real_call.reached());
    w.home.reply(real_call.invite, 486);
    w.run();
    w.advance(1s);
    for (int i = 0; i < 20; ++i) {
        Phone stranger(w, "nobody", ip("10.4.0." + std::to_string(1 + i)));
        const ClearCall call(w, stranger);
        if (!call.reached()) continue;
        ++reached;
        w.home.reply(call.invite, 486);
        w.run();
    }
    EXPECT_EQ(reached, 11U) << "two a second, one of which the call by TCP has had";
    w.expect_no_leak(0);
}

// And the same towards the core, to whom it asked from; not to an address that is not trusted.
TEST(Abuse, AnAnswerToTheCoreWhoseConnectionIsGoneGetsANewOne) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto ask = [&](std::string_view sent_by) {
        const std::string text = w.home.request("INVITE", w.home.paths[p.impi], p.contact(),
                                                "Contact: <" + std::string(far_target) + ">\r\n");
        Wire wire = w.queue.back();
        w.queue.pop_back();
        wire.flow = {sip::Transport::tcp, ep("192.0.2.1:5060"), ep("192.0.2.9:40000"), 77};
        wire.message.text =
            replace_once(text, "SIP/2.0/UDP 192.0.2.9:5060", "SIP/2.0/TCP " + std::string(sent_by));
        w.queue.push_back(wire);
        w.run();
        return p.last();
    };
    for (const std::string_view sent_by : {"192.0.2.9:5070", "scscf.home.example:5070"}) {
        w.core_net.closed.clear();
        const Wire asked = ask(sent_by);
        ASSERT_EQ(asked.message.method(), "INVITE");
        w.core_net.closed.insert(77);
        for (int i = 0; i < 2; ++i) {  // the 200, and the 200 again
            w.home.inbox.clear();
            p.answer(asked, 200, "Contact: <" + p.contact() + ">\r\n");
            w.run();
            ASSERT_EQ(w.home.inbox.size(), 1U) << i;
            EXPECT_EQ(w.home.inbox.back().message.status(), 200);
            EXPECT_EQ(w.home.inbox.back().flow.transport, sip::Transport::tcp);
            EXPECT_EQ(w.home.inbox.back().flow.connection, 0U);
            EXPECT_EQ(w.home.inbox.back().flow.remote, ep("192.0.2.9:5070"));
        }
    }
}

}  // namespace
}  // namespace gmgate::test
