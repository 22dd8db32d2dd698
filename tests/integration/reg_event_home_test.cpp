// gmhome as notifier of the registration event package, its subscriber a phone behind the gateway.

#include "tests/support/reg_event.h"

namespace gmgate::test {
namespace {

TEST(RegEventHome, TheWholeStateAtOnceAndAtEachChange) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    subscribe(p);
    ASSERT_EQ(notifies(p).size(), 1U);
    const Sip accepted = p.inbox[p.inbox.size() - 2].message;
    EXPECT_EQ(accepted.status(), 200) << "the 200 comes before the NOTIFY";
    EXPECT_EQ(accepted.header("Expires"), "3600");
    const Wire first = p.last();
    EXPECT_EQ(first.set, w.set_of(p.current())) << "on its live SA (F4)";
    EXPECT_EQ(first.message.header("Subscription-State"), "active;expires=3600");
    EXPECT_EQ(first.message.header("Event"), "reg");
    const auto info = reginfo_of(first.message);
    EXPECT_EQ(info.version, 0U);
    EXPECT_TRUE(info.full);
    ASSERT_EQ(info.entries.size(), 2U) << "the implicit set: sip and tel";
    EXPECT_EQ(info.entries[0].aor, p.impu);
    EXPECT_EQ(info.entries[0].state, sip::RegState::active);
    ASSERT_EQ(info.entries[0].contacts.size(), 1U);
    EXPECT_EQ(info.entries[0].contacts[0].uri, p.contact());
    EXPECT_EQ(info.entries[0].contacts[0].event, sip::ContactEvent::registered);
    p.answer(first, 200);
    w.run();

    ASSERT_TRUE(renew(p));
    ASSERT_EQ(notifies(p).size(), 2U);
    const auto second = reginfo_of(notifies(p)[1].message);
    EXPECT_EQ(second.version, 1U);
    EXPECT_EQ(second.entries[0].contacts[0].event, sip::ContactEvent::refreshed);
    p.answer(notifies(p)[1], 200);
    w.run();

    ASSERT_TRUE(w.network->registrar->deregister(p.impu));
    w.run();
    ASSERT_EQ(notifies(p).size(), 3U);
    const Sip last = notifies(p)[2].message;
    EXPECT_EQ(last.header("Subscription-State"), "terminated;reason=noresource");
    const auto gone = reginfo_of(last);
    EXPECT_EQ(gone.version, 2U);
    for (const auto& e : gone.entries) {
        EXPECT_EQ(e.state, sip::RegState::terminated);
        EXPECT_FALSE(e.contacts.at(0).active);
        EXPECT_EQ(e.contacts.at(0).event, sip::ContactEvent::rejected);
    }
    p.answer(notifies(p)[2], 200);
    w.run();
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
}

TEST(RegEventHome, OneNotifyAtATimeAndTheLatestStateNext) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    subscribe(p);
    ASSERT_TRUE(p.reregister());
    ASSERT_TRUE(p.reregister());
    w.run();
    ASSERT_EQ(notifies(p).size(), 1U) << "the first is not answered yet";
    p.answer(notifies(p)[0], 200);
    w.run();
    ASSERT_EQ(notifies(p).size(), 2U) << "one for both changes";
    EXPECT_EQ(reginfo_of(notifies(p)[1].message).version, 1U);
}

TEST(RegEventHome, WhoMaySubscribeAndToWhat) {
    World w(with_gmhome());
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    subscribe(mallory, "reg", 3600, {}, alice.impu);
    EXPECT_EQ(mallory.last_status(), 403);
    subscribe(mallory, "reg", 3600, {}, "sip:nobody@home.example");
    EXPECT_EQ(mallory.last_status(), 404);
    subscribe(mallory, "presence");
    EXPECT_EQ(mallory.last_status(), 489);
    EXPECT_EQ(mallory.last().message.header("Allow-Events"), "reg, registration-state");
    subscribe(mallory, "reg", 5);
    EXPECT_EQ(mallory.last_status(), 423);
    EXPECT_EQ(mallory.last().message.header("Min-Expires"), "60");
    subscribe(mallory, "reg", 3600, "To: <" + mallory.impu + ">;tag=1234\r\n");
    EXPECT_EQ(mallory.last_status(), 481);
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
    EXPECT_EQ(w.network->server->reg_event().counters().refused, 5U);
    // Its tel identity is its own, and the other package is known too.
    subscribe(mallory, "registration-state", 3600, {}, "tel:+15551001");
    ASSERT_EQ(notifies(mallory).size(), 1U);
    EXPECT_EQ(mallory.last().message.header("Event"), "registration-state");
    EXPECT_EQ(reginfo_of(mallory.last().message).entries.size(), 2U);
}

TEST(RegEventHome, ItEndsByTimeByTheSubscriberAndBySilence) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    const auto& reg_event = w.network->server->reg_event();
    subscribe(p, "reg", 60);
    p.answer(p.last(), 200);
    w.advance(60s + 100ms);
    ASSERT_EQ(notifies(p).size(), 2U);
    EXPECT_EQ(p.last().message.header("Subscription-State"), "terminated;reason=timeout");
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(reg_event.subscriptions(), 0U);

    subscribe(p, "reg", 0);  // what a poll looks like (RFC 6665 4.4.3)
    EXPECT_EQ(p.last().message.header("Subscription-State"), "terminated;reason=timeout");
    EXPECT_EQ(reginfo_of(p.last().message).entries.size(), 2U);
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(reg_event.subscriptions(), 0U);

    subscribe(p);
    EXPECT_EQ(reg_event.subscriptions(), 1U);
    w.advance(40s);  // the phone never answers the NOTIFY
    EXPECT_EQ(reg_event.subscriptions(), 0U);
    subscribe(p);
    p.answer(p.last(), 481);
    w.run();
    EXPECT_EQ(reg_event.subscriptions(), 0U);
    EXPECT_EQ(reg_event.counters().failed, 2U);
}

TEST(RegEventHome, ARefreshContinuesTheDialogAndALostOneIsReplaced) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    subscribe(p);
    const Wire first = p.last();
    p.answer(first, 200);
    w.run();
    // In the dialog: To carries the tag of the NOTIFY's From, the Call-ID stays, CSeq grows.
    std::string again = p.request("SUBSCRIBE", p.impu,
                                  "Event: reg\r\nExpires: 600\r\nContact: <" + p.contact() +
                                      ">\r\nTo: " + first.message.header("From") + "\r\nFrom: <" +
                                      p.impu + ">;tag=2\r\n");
    const auto at = again.find("Call-ID: ");
    again.replace(at, again.find("\r\n", at) - at, "Call-ID: " + first.message.header("Call-ID"));
    p.send_on(p.current(), again);
    w.run();
    ASSERT_EQ(notifies(p).size(), 2U);
    EXPECT_EQ(reginfo_of(p.last().message).version, 1U);
    EXPECT_EQ(p.last().message.header("Subscription-State"), "active;expires=600");
    p.answer(p.last(), 200);
    w.run();
    // The phone has forgotten all that: not one more, but another in its place.
    for (int i = 0; i < 20; ++i) {
        subscribe(p);
        p.answer(p.last(), 200);
        w.run();
    }
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 1U);
}

}  // namespace
}  // namespace gmgate::test
