// E5 and F1 to F4: subscriptions to registration state, and re-authentication that the network
// begins, with the gateway and gmhome whole.

#include "tests/support/calls.h"
#include "tests/support/home_calls.h"
#include "tests/support/reg_event.h"

namespace gmgate::test {
namespace {

World::Options watching(sip::RegProfile form = sip::RegProfile::rfc3680) {
    auto o = with_gmhome();
    o.policy.reg_event = form;
    return o;
}

// A registered phone, subscribed to itself in that form, its first NOTIFY answered.
struct Watched {
    explicit Watched(bool subscribed = true, sip::RegProfile form = sip::RegProfile::rfc3680)
        : w(watching()), p(w.phone()) {
        EXPECT_TRUE(p.register_once());
        w.advance(10ms);
        if (!subscribed) return;
        subscribe(p, sip::event_package(form));
        p.answer(p.last(), 200);
        w.run();
    }
    void reauthenticate() {
        const auto begun = w.network->server->reauthenticate({p.impu});
        ASSERT_TRUE(begun) << begun.error().text;
        w.run();
    }
    [[nodiscard]] std::size_t refers() const {
        return static_cast<std::size_t>(std::ranges::count_if(p.inbox, [](const Wire& wire) {
            return wire.message.is_request() && wire.message.method() == "REFER";
        }));
    }
    [[nodiscard]] const home::ReauthenticationCounters& counters() const {
        return w.network->server->reauthentication().counters();
    }
    World w;
    Phone& p;
};

// ---- E5 ----

TEST(E5, EachRegisteredUserIsWatchedAndTheNetworkObeyed) {
    World w(watching());
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& bob = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(bob.register_once());
    w.advance(10ms);
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 2U);
    ASSERT_TRUE(w.network->registrar->deregister(alice.impu));
    w.run();
    EXPECT_EQ(w.gateway->find(alice.impi)->state, "leaving");
    w.advance(33s);
    EXPECT_FALSE(w.gateway->find(alice.impi)) << "D4";
    EXPECT_EQ(w.backend.installed(), 1U);
    w.expect_served(bob);
    ASSERT_TRUE(alice.register_once());
    w.advance(10ms);
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 2U);
}

TEST(E5, OfBothForms) {
    for (const auto form : {sip::RegProfile::rfc3680, sip::RegProfile::seed}) {
        World w(watching(form));
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        w.advance(10ms);
        EXPECT_EQ(w.gateway->find(p.impi)->reg_event, "subscribed");
        ASSERT_TRUE(w.network->registrar->deregister(p.impu));
        w.nothing_left();
    }
}

// ---- F1, F2 ----

TEST(F1, EveryDialogHearsWhomToReauthenticate) {
    Watched c;
    const auto before = c.w.network->server->reg_event().counters().notifies;
    c.reauthenticate();
    EXPECT_EQ(c.w.network->server->reg_event().counters().notifies, before + 2)
        << "the phone's dialog and the gateway's";
    const Sip m = c.p.last().message;
    ASSERT_EQ(m.method(), "NOTIFY");
    EXPECT_EQ(m.uri(), c.p.contact()) << "Request-URI of the stored subscription";
    const auto info = reginfo_of(m);
    ASSERT_EQ(info.entries.size(), 2U);
    EXPECT_EQ(info.entries[0].aor, c.p.impu);
    EXPECT_TRUE(info.entries[0].reauthenticate);
    EXPECT_EQ(info.entries[0].covered_by, "");
    EXPECT_EQ(info.entries[0].contacts.at(0).event, sip::ContactEvent::shortened);
    EXPECT_EQ(info.entries[0].contacts.at(0).expires, 240U);
    EXPECT_TRUE(info.entries[1].reauthenticate);
    EXPECT_EQ(info.entries[1].covered_by, c.p.impu) << "automatically by";
    EXPECT_EQ(c.w.gateway->find(c.p.impi)->expires_in, 240s) << "the gateway heard it too";
}

TEST(F2, TheOlderFormAsTheProposalHasIt) {
    Watched c(true, sip::RegProfile::seed);
    c.reauthenticate();
    const Sip m = c.p.last().message;
    EXPECT_EQ(m.header("Event"), "registration-state");
    const std::string asked = "    <status><value>re-authenticate</value></status>\n";
    EXPECT_EQ(body_of(m),
              "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<registration-state>\n"
              "  <tuple name=\"" +
                  c.p.impu + "\">\n" + asked +
                  "  </tuple>\n"
                  "  <tuple name=\"tel:+15551000\">\n" +
                  asked + "    <detail>automatically by " + c.p.impu +
                  "</detail>\n  </tuple>\n</registration-state>\n");
}

TEST(F2, TheFormOfRfc3680IsTheDefault) {
    Watched c;
    c.reauthenticate();
    EXPECT_EQ(c.p.last().message.header("Event"), "reg");
    EXPECT_EQ(c.p.last().message.header("Content-Type"), "application/reginfo+xml");
    EXPECT_NE(body_of(c.p.last().message).find("event=\"shortened\" expires=\"240\""),
              std::string::npos);
}

// ---- F3, F4 ----

TEST(F3, ThePhoneObeysAndIsChallenged) {
    Watched c;
    c.w.network->registrar->rechallenge(c.p.impu, false);  // nobody else would be challenged
    c.reauthenticate();
    c.p.answer(c.p.last(), 200);
    c.w.run();
    c.w.advance(30s);
    ASSERT_TRUE(renew(c.p));
    EXPECT_GT(*c.w.gateway->find(c.p.impi)->expires_in, 3000s);
    c.p.answer(c.p.last(), 200);
    c.w.advance(300s);
    EXPECT_EQ(c.counters().done, 1U);
    EXPECT_EQ(c.refers(), 0U);
    EXPECT_EQ(c.w.gateway->find(c.p.impi)->state, "registered");
    c.w.expect_served(c.p);
}

TEST(F3, RefusedUnansweredOrNotSubscribedMeansRefer) {
    for (const int way : {0, 1, 2}) {
        Watched c(way != 2);
        c.reauthenticate();
        if (way == 0) c.p.answer(c.p.last(), 481);
        c.w.run();
        if (way == 1) c.w.advance(33s);  // no answer
        ASSERT_GE(c.refers(), 1U) << way;
        const Wire refer = c.p.last();
        ASSERT_EQ(refer.message.method(), "REFER");
        EXPECT_EQ(refer.message.header("Refer-To"), "<sip:home.example;method=REGISTER>");
        EXPECT_TRUE(refer.esp);
        c.p.answer(refer, 202);
        c.w.run();
        ASSERT_TRUE(c.p.reregister());
        c.w.advance(120s);
        EXPECT_EQ(c.counters().done, 1U);
        EXPECT_EQ(c.counters().deregistered, 0U);
        EXPECT_EQ(c.w.gateway->find(c.p.impi)->state, "registered");
    }
}

TEST(F3, AllWaysFailedMeansDeregistered) {
    for (const bool answers : {false, true}) {
        Watched c;
        c.reauthenticate();
        if (answers) c.p.answer(c.p.last(), 200);
        c.w.run();
        c.w.advance(answers ? 61s : 33s);
        ASSERT_GE(c.refers(), 1U);
        if (answers) c.p.answer(c.p.last(), 202);
        c.w.run();
        c.w.advance(answers ? 61s : 33s);
        EXPECT_EQ(c.counters().deregistered, 1U);
        EXPECT_EQ(c.w.network->registrar->registered(), 0U);
        const auto puts = c.w.network->puts();
        ASSERT_FALSE(puts.empty());
        EXPECT_EQ(puts.back().assignment, home::ServerAssignment::administrative_deregistration);
        c.w.advance(40s);  // its last NOTIFY is not answered either
        c.w.nothing_left();
    }
}

TEST(F3, AllWaysFailedMeansTheEndOfItsSessionsToo) {
    for (const auto form : {sip::RegProfile::rfc3680, sip::RegProfile::seed}) {
        Calls c(watching(form));
        subscribe(c.bob, sip::event_package(form));
        c.bob.answer(c.bob.last(), 200);
        c.w.run();
        c.connect();
        ASSERT_TRUE(c.w.network->server->reauthenticate({c.bob.impu}));
        c.w.run();
        c.bob.answer(requests(c.bob, "NOTIFY").back(), 200);
        c.w.advance(59s);
        EXPECT_EQ(requests(c.bob, "REFER").size(), 0U) << "it is waited for";
        EXPECT_EQ(c.server().sessions().size(), 1U);
        c.w.advance(2s);
        ASSERT_GE(requests(c.bob, "REFER").size(), 1U);
        c.bob.answer(requests(c.bob, "REFER").back(), 603);
        c.w.run();
        EXPECT_EQ(c.server().reauthentication().counters().deregistered, 1U);
        for (Phone* p : {&c.alice, &c.bob}) {
            const auto byes = requests(*p, "BYE");
            ASSERT_GE(byes.size(), 1U) << p->impu;
            EXPECT_TRUE(byes[0].esp);
            EXPECT_EQ(byes[0].message.header("Call-ID"), c.caller.call_id);
            EXPECT_EQ(byes[0].message.header("To"), (p == &c.alice ? c.caller : c.callee).local);
        }
        // The BYE before the NOTIFY that ends all.
        std::vector<std::string> order;
        for (const Wire& wire : c.bob.inbox) {
            if (wire.message.is_request()) order.push_back(wire.message.method());
        }
        const auto bye = std::ranges::find(order, "BYE");
        ASSERT_NE(bye, order.end());
        EXPECT_NE(std::find(bye, order.end(), "NOTIFY"), order.end());
        EXPECT_TRUE(requests(c.bob, "NOTIFY")
                        .back()
                        .message.header("Subscription-State")
                        .starts_with("terminated"));
        for (Phone* p : {&c.alice, &c.bob}) {
            for (const Wire& wire : requests(*p, "BYE")) p->answer(wire, p == &c.bob ? 481 : 200);
        }
        c.bob.answer(requests(c.bob, "NOTIFY").back(), 200);
        c.w.run();
        EXPECT_EQ(c.server().sessions().size(), 0U);
        c.w.advance(70s);
        EXPECT_EQ(c.w.gateway->registered(), 1U);
        EXPECT_FALSE(c.w.gateway->find(c.bob.impi)) << "D4";
        c.w.expect_served(c.alice);
    }
}

TEST(F4, TheNotifyTravelsOnTheLiveSetWhichOutlivesIt) {
    Watched c;
    const auto set = c.w.set_of(c.p.current());
    c.reauthenticate();
    EXPECT_EQ(c.p.last().set, set);
    c.p.answer(c.p.last(), 200);
    c.w.run();
    c.w.advance(50s);
    EXPECT_TRUE(c.w.backend.has(set));
    ASSERT_TRUE(renew(c.p));
    c.p.answer(c.p.last(), 200);
    c.w.run();
    EXPECT_TRUE(c.w.backend.has(c.w.set_of(c.p.current())));
    c.w.expect_served(c.p);
}

TEST(F4, TheLastNotifyIsOutBeforeTheSetsGo) {
    Watched c;
    const auto set = c.w.set_of(c.p.current());
    // The first one is lost: it comes again, on the same SA.
    int lost = 0;
    c.w.lose = [&](const Wire& wire) {
        return wire.to == Wire::To::ue && wire.message.method() == "NOTIFY" && lost++ == 0;
    };
    const auto heard = count_of(c.p.inbox, "NOTIFY");
    ASSERT_TRUE(c.w.network->registrar->deregister(c.p.impu));
    c.w.run();
    ASSERT_EQ(lost, 1);
    ASSERT_EQ(count_of(c.p.inbox, "NOTIFY"), heard);
    c.w.advance(1s);
    ASSERT_EQ(count_of(c.p.inbox, "NOTIFY"), heard + 1);
    ASSERT_EQ(c.p.last().message.method(), "NOTIFY");
    EXPECT_EQ(c.p.last().message.header("Subscription-State"), "terminated;reason=noresource");
    EXPECT_EQ(c.p.last().set, set);
    EXPECT_TRUE(c.p.last().esp);
    EXPECT_TRUE(c.w.backend.has(set));
    c.p.answer(c.p.last(), 200);
    c.w.run();
    EXPECT_EQ(c.w.network->server->reg_event().counters().failed, 0U);
    c.w.advance(33s);
    EXPECT_FALSE(c.w.backend.has(set));
    c.w.nothing_left();
}

}  // namespace
}  // namespace gmgate::test
