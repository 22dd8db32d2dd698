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

// A request in the dialog of that NOTIFY, of whoever sends it.
std::string in_the_dialog_of(Phone& sender, const Phone& owner, const Wire& notify,
                             unsigned expires) {
    std::string text =
        sender.request("SUBSCRIBE", owner.impu,
                       "Event: reg\r\nExpires: " + std::to_string(expires) + "\r\nContact: <" +
                           sender.contact() + ">\r\nTo: " + notify.message.header("From") +
                           "\r\nFrom: " + notify.message.header("To") + "\r\n");
    const auto at = text.find("Call-ID: ");
    text.replace(at, text.find("\r\n", at) - at, "Call-ID: " + notify.message.header("Call-ID"));
    const auto number = text.find("CSeq: ");
    text.replace(number, text.find(' ', number + 6) - number, "CSeq: 900000");
    return text;
}

TEST(RegEventHome, UnsubscribingEndsItAndOnlyItsOwnerMay) {
    World w(with_gmhome());
    Phone& alice = w.phone("alice", "10.2.0.1");
    Phone& mallory = w.phone("mallory", "10.2.0.2");
    ASSERT_TRUE(alice.register_once());
    ASSERT_TRUE(mallory.register_once());
    subscribe(alice);
    const Wire first = alice.last();
    alice.answer(first, 200);
    w.run();
    // Mallory knows the dialog's names; From is the tag alone, or the gateway would not let it by.
    std::string forged = in_the_dialog_of(mallory, alice, first, 0);
    const auto at = forged.find("From: ");
    forged.replace(at, forged.find("\r\n", at) - at, "From: <" + mallory.impu + ">;tag=2");
    mallory.send_on(mallory.current(), forged);
    w.run();
    EXPECT_EQ(mallory.last_status(), 403);
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 1U);
    EXPECT_EQ(notifies(alice).size(), 1U);
    alice.send_on(alice.current(), in_the_dialog_of(alice, alice, first, 0));
    w.run();
    ASSERT_EQ(notifies(alice).size(), 2U);
    EXPECT_EQ(alice.last().message.header("Subscription-State"), "terminated;reason=timeout");
    alice.answer(alice.last(), 200);
    w.run();
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
}

TEST(RegEventHome, EachOfManyWatchersHearsEachChange) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    for (int i = 0; i < 8; ++i) {
        subscribe(p, "reg;id=" + std::to_string(i));
        p.answer(p.last(), 200);
        w.run();
    }
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 8U);
    subscribe(p, "reg;id=9");
    EXPECT_EQ(p.last_status(), 500) << "the core's 503, which is not the gateway's (16.7, 6)";
    ASSERT_TRUE(w.network->registrar->deregister(p.impu));
    w.run();
    std::set<std::string> ended;
    for (const Wire& n : notifies(p)) {
        if (!n.message.header("Subscription-State").starts_with("terminated")) continue;
        ended.insert(n.message.header("Event"));
        p.answer(n, 200);
    }
    EXPECT_EQ(ended.size(), 8U);
    w.run();
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
}

// The HSS takes one identity away and gives another (PPR): the whole state, the lost one with it.
TEST(RegEventHome, AnotherProfileIsTold) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    subscribe(p);
    p.answer(p.last(), 200);
    w.run();
    w.network->server->from_hss().profile_changed(
        p.impi, {home::Profile{{p.impu, "sip:new@home.example"}, {}}});
    w.run();
    ASSERT_EQ(notifies(p).size(), 2U);
    const auto info = reginfo_of(notifies(p)[1].message);
    ASSERT_EQ(info.entries.size(), 3U);
    EXPECT_EQ(info.entries[1].aor, "sip:new@home.example");
    EXPECT_EQ(info.entries[1].state, sip::RegState::active);
    EXPECT_EQ(info.entries[2].aor, "tel:+15551000");
    EXPECT_EQ(info.entries[2].state, sip::RegState::terminated);
    EXPECT_FALSE(info.entries[2].contacts.at(0).active);
    p.answer(notifies(p)[1], 200);
    w.run();
    EXPECT_EQ(w.network->registrar->find("tel:+15551000"), nullptr);
    // The identity the registration stands for goes: so does the registration.
    w.network->server->from_hss().profile_changed(p.impi,
                                                  {home::Profile{{"sip:new@home.example"}, {}}});
    w.run();
    EXPECT_EQ(w.network->registrar->registered(), 0U);
    EXPECT_TRUE(notifies(p).back().message.header("Subscription-State").starts_with("terminated"));
}

// ---- re-authentication (F3) ----

std::vector<Wire> refers(const Phone& p) {
    std::vector<Wire> found;
    for (const Wire& w : p.inbox) {
        if (w.message.is_request() && w.message.method() == "REFER") found.push_back(w);
    }
    return found;
}

// A registered phone with that many dialogs on its registration state.
struct Asked {
    explicit Asked(unsigned dialogs = 1,
                   home::RegistrarConfig config = HomeNetwork::default_config())
        : w(with_gmhome(std::move(config))), p(w.phone()) {
        EXPECT_TRUE(p.register_once());
        for (unsigned i = 0; i < dialogs; ++i) {
            subscribe(p, "reg;id=" + std::to_string(i));
            p.answer(p.last(), 200);
            w.run();
        }
        EXPECT_EQ(w.network->server->reg_event().subscriptions(), dialogs);
    }
    void ask() {
        const auto begun = w.network->server->reauthenticate({p.impu});
        ASSERT_TRUE(begun) << begun.error().text;
        w.run();
    }
    // NOTIFY and REFER are taken, and nothing comes of it until one second before the last wait
    // ends.
    void wait_to_the_last() {
        ask();
        p.answer(p.last(), 200);
        w.run();
        w.advance(61s);
        ASSERT_GE(refers(p).size(), 1U);
        p.answer(p.last(), 202);
        w.run();
        w.advance(59s);
    }
    void expect_sm7_registers() {
        p.send_sm7();
        const auto heard = p.inbox.size();
        w.run();
        ASSERT_GT(p.inbox.size(), heard);
        EXPECT_EQ(p.inbox[heard].message.status(), 200);
        p.accept();
        w.advance(300s);
        EXPECT_EQ(counters().done, 1U);
        EXPECT_EQ(counters().deregistered, 0U);
        EXPECT_EQ(w.network->registrar->counters().expired, 0U);
        EXPECT_EQ(w.network->registrar->registered(), 1U);
    }
    [[nodiscard]] const home::ReauthenticationCounters& counters() const {
        return w.network->server->reauthentication().counters();
    }
    World w;
    Phone& p;
};

TEST(Reauthentication, APhoneThatIsBeingChallengedIsNotDeregistered) {
    Asked c;
    c.wait_to_the_last();
    ASSERT_TRUE(c.p.challenged(true));
    c.w.advance(5s);
    EXPECT_EQ(c.counters().deregistered, 0U);
    c.expect_sm7_registers();
}

TEST(Reauthentication, NorOneWhoseRegisterIsWithASlowHss) {
    for (const bool sm7 : {false, true}) {
        Asked c;
        c.wait_to_the_last();
        if (sm7) {
            ASSERT_TRUE(c.p.challenged(true));
        }
        c.w.network->on_cx.hold = true;
        if (sm7) {
            c.p.send_sm7();
        } else {
            c.p.send_protected_sm1();
        }
        c.w.run();
        c.w.advance(3s);
        EXPECT_EQ(c.counters().deregistered, 0U);
        c.w.network->on_cx.hold = false;
        const auto heard = c.p.inbox.size();
        while (c.w.network->on_cx.step()) {
        }
        c.w.run();
        ASSERT_GT(c.p.inbox.size(), heard);
        EXPECT_EQ(c.p.inbox[heard].message.status(), sm7 ? 200 : 401);
        EXPECT_EQ(c.w.network->registrar->registered(), 1U);
    }
}

TEST(Reauthentication, AChallengeThatIsNotAnsweredHelpsOnlyUntilItEnds) {
    auto config = HomeNetwork::default_config();
    config.reg_await_auth = 20s;
    Asked c(1, config);
    c.wait_to_the_last();
    ASSERT_TRUE(c.p.challenged(true));
    c.w.advance(20s);
    EXPECT_EQ(c.counters().deregistered, 0U);
    c.w.advance(2s);
    EXPECT_EQ(c.counters().deregistered, 1U);
    EXPECT_EQ(c.w.network->registrar->registered(), 0U);
}

TEST(Reauthentication, OneDialogThatTakesItIsEnough) {
    for (const std::size_t live : {0U, 1U}) {
        for (const bool stale_first : {false, true}) {
            Asked c(2);
            c.ask();
            const auto all = notifies(c.p);
            ASSERT_EQ(all.size(), 4U);
            const Wire& good = all[2 + live];
            const Wire& stale = all[3 - live];
            c.p.answer(stale_first ? stale : good, stale_first ? 481 : 200);
            c.w.run();
            c.p.answer(stale_first ? good : stale, stale_first ? 200 : 481);
            c.w.run();
            EXPECT_EQ(refers(c.p).size(), 0U);
            c.w.advance(50s);
            EXPECT_EQ(refers(c.p).size(), 0U);
            c.w.advance(15s);
            EXPECT_GE(refers(c.p).size(), 1U) << "it did not come in time";
        }
    }
    Asked none(2);
    none.ask();
    const auto all = notifies(none.p);
    ASSERT_EQ(all.size(), 4U);
    none.p.answer(all[2], 481);
    none.w.run();
    EXPECT_EQ(refers(none.p).size(), 0U) << "the other one is not answered yet";
    none.p.answer(all[3], 481);
    none.w.run();
    EXPECT_EQ(refers(none.p).size(), 1U);
}

TEST(Reauthentication, WhatAnswersAnEarlierNotifyIsNoAnswerToThis) {
    Asked c(0);
    subscribe(c.p);
    const Wire before = c.p.last();
    c.ask();
    ASSERT_EQ(notifies(c.p).size(), 1U);
    c.p.answer(before, 200);
    c.w.run();
    ASSERT_EQ(notifies(c.p).size(), 2U);
    c.p.answer(c.p.last(), 481);
    c.w.run();
    EXPECT_EQ(refers(c.p).size(), 1U);
}

// Each way may take the whole life of a transaction, and the wait for the REGISTER begins behind
// it.
TEST(Reauthentication, BothWaysAnsweredLateStillEndByTheNetworkAndNotByTime) {
    Asked c;
    c.ask();
    const Wire notify = c.p.last();
    ASSERT_EQ(notify.message.method(), "NOTIFY");
    c.w.advance(31s);
    c.p.answer(notify, 200);
    c.w.advance(61s);
    const auto asked = refers(c.p);
    ASSERT_GE(asked.size(), 1U);
    c.w.advance(30s);
    c.p.answer(asked[0], 202);
    c.w.advance(59s);
    EXPECT_EQ(c.w.network->registrar->registered(), 1U) << "it is waited for";
    c.w.advance(2s);
    EXPECT_EQ(c.counters().deregistered, 1U);
    EXPECT_EQ(c.counters().done, 0U);
    EXPECT_EQ(c.w.network->registrar->counters().expired, 0U);
    EXPECT_EQ(c.w.network->registrar->registered(), 0U);
    const Sip last = notifies(c.p).back().message;
    EXPECT_EQ(reginfo_of(last).entries.at(0).contacts.at(0).event, sip::ContactEvent::deactivated);
    const auto puts = c.w.network->puts();
    ASSERT_FALSE(puts.empty());
    EXPECT_EQ(puts.back().assignment, home::ServerAssignment::administrative_deregistration);
}

// The NOTIFY that asks waits behind one that the phone refuses, or never answers: the dialog is
// gone, and nobody will ever answer.
TEST(Reauthentication, ANotifyThatCannotGoOutAnyMoreIsARefusal) {
    for (const bool refused : {true, false}) {
        Asked c(0);
        subscribe(c.p);
        const Wire before = c.p.last();
        c.ask();
        ASSERT_EQ(notifies(c.p).size(), 1U) << "it waits";
        if (refused) {
            c.p.answer(before, 481);
            c.w.run();
        } else {
            c.w.advance(33s);
        }
        EXPECT_GE(refers(c.p).size(), 1U);
        EXPECT_EQ(c.counters().refers, 1U);
    }
}

TEST(Reauthentication, ALateAnswerOfAnEarlierRoundIsNoneOfTheNext) {
    Asked c;
    c.ask();
    c.p.answer(c.p.last(), 481);
    c.w.run();
    ASSERT_EQ(refers(c.p).size(), 1U);  // never answered
    ASSERT_TRUE(c.p.reregister());
    c.w.advance(20s);
    c.ask();  // by REFER at once: no subscription is left
    ASSERT_EQ(c.p.last().message.method(), "REFER");
    c.p.answer(c.p.last(), 202);
    c.w.run();
    EXPECT_EQ(c.counters().refers, 2U);
    c.w.advance(15s);  // the first REFER has timed out
    EXPECT_EQ(c.counters().deregistered, 0U);
    EXPECT_EQ(c.w.network->registrar->registered(), 1U);
}

}  // namespace
}  // namespace gmgate::test
