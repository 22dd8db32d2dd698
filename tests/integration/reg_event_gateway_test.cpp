// The gateway as subscriber to its users' registration state (E5): gmhome as notifier, and a
// scripted one that loses, repeats and invents.

#include "tests/support/calls.h"
#include "tests/support/reg_event.h"

namespace gmgate::test {
namespace {

World::Options watching(World::Options o = with_gmhome()) {
    o.policy.reg_event = sip::RegProfile::rfc3680;
    return o;
}

std::vector<Wire> subscribes(const World& w) {
    std::vector<Wire> found;
    for (const Wire& wire : w.sent_to(Wire::To::home)) {
        if (wire.message.method() == "SUBSCRIBE") found.push_back(wire);
    }
    return found;
}

std::string reg_event_of(const World& w, const Phone& p) {
    const auto v = w.gateway->find(p.impi);
    return v ? v->reg_event : "nobody";
}

// A scripted NOTIFY in the dialog of that SUBSCRIBE; the status it gets.
int notify(World& w, const Sip& subscribe, unsigned cseq, std::string_view body,
           std::string_view state = "active;expires=3600", std::string_view tag = "home") {
    const std::string to = subscribe.header("From");
    const std::string from = subscribe.header("To").substr(0, subscribe.header("To").find('>') + 1);
    std::string t =
        "NOTIFY sip:192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK" +
        w.random.token(8) + "\r\nMax-Forwards: 70\r\nFrom: " + from + ";tag=" + std::string(tag) +
        "\r\nTo: " + to + "\r\nCall-ID: " + subscribe.header("Call-ID") +
        "\r\nCSeq: " + std::to_string(cseq) +
        " NOTIFY\r\nContact: <sip:192.0.2.9:5060>\r\nEvent: reg\r\nSubscription-State: " +
        std::string(state) + "\r\n";
    if (!body.empty()) t += "Content-Type: application/reginfo+xml\r\n";
    t += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
    Wire wire;
    wire.to = Wire::To::gateway_core;
    wire.flow = {sip::Transport::udp, ep("192.0.2.1:5060"), ep("192.0.2.9:5060"), 0};
    wire.message.text = t;
    w.queue.push_back(std::move(wire));
    const auto before = w.home.inbox.size();
    w.run();
    for (std::size_t i = before; i < w.home.inbox.size(); ++i) {
        if (w.home.inbox[i].message.status() != 0) return w.home.inbox[i].message.status();
    }
    return 0;
}

std::string document(unsigned version, bool full, std::string_view aor, std::string_view state,
                     std::string_view contact, std::string_view event = "registered",
                     std::string_view expires = "3600") {
    return "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"" +
           std::to_string(version) + "\" state=\"" + (full ? "full" : "partial") +
           "\"><registration aor=\"" + std::string(aor) + "\" id=\"r\" state=\"" +
           std::string(state) + "\"><contact id=\"c\" state=\"" + std::string(state) +
           "\" event=\"" + std::string(event) + "\" expires=\"" + std::string(expires) +
           "\"><uri>" + std::string(contact) + "</uri></contact></registration></reginfo>";
}

// The parts of a document of several identities.
std::string bound(std::string_view contact, std::string_view state = "active",
                  std::string_view event = "registered", std::string_view expires = "3600") {
    return "<contact id=\"c" + std::string(state) + "\" state=\"" + std::string(state) +
           "\" event=\"" + std::string(event) + "\" expires=\"" + std::string(expires) +
           "\"><uri>" + std::string(contact) + "</uri></contact>";
}
std::string registration(std::string_view aor, std::string_view state, std::string_view contacts) {
    return "<registration aor=\"" + std::string(aor) + "\" id=\"r" + std::string(aor.substr(4)) +
           "\" state=\"" + std::string(state) + "\">" + std::string(contacts) + "</registration>";
}
std::string reginfo(unsigned version, std::string_view registrations, bool full = true) {
    return "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"" +
           std::to_string(version) + "\" state=\"" + (full ? "full" : "partial") + "\">" +
           std::string(registrations) + "</reginfo>";
}

constexpr std::string_view work = "sip:work@home.example";

// Registered at the scripted home, with its subscription accepted.
struct Scripted {
    Scripted() : w(options()), p(w.phone()) {
        EXPECT_TRUE(p.register_once());
        w.advance(10ms);
        EXPECT_EQ(subscribes(w).size(), 1U);
        subscription = subscribes(w).at(0).message;
    }
    // A second identity, registered by a REGISTER of its own.
    bool registers_work(unsigned expires = 3600) {
        const std::string before = std::exchange(w.home.associated, "<" + std::string(work) + ">");
        const bool done = renews(work, expires);
        w.home.associated = before;
        return done;
    }
    // Without a challenge (D3).
    bool renews(std::string_view impu, unsigned expires = 3600) {
        RegisterOptions o;
        o.impu = impu;
        o.expires = expires;
        p.send_protected_sm1(o);
        w.run();
        return p.last_status() == 200;
    }
    // SM7, which the core has and does not answer yet.
    Wire answered_by_nobody(RegisterOptions o = {}) {
        w.home.silent = true;
        p.send_sm7(std::move(o));
        w.run();
        w.home.silent = false;
        return w.home.inbox.back();
    }
    [[nodiscard]] registration::RegistrationView view() const {
        return w.gateway->find(p.impi).value();
    }
    static World::Options options() { return watching(World::Options{}); }
    World w;
    Phone& p;
    Sip subscription;
};

TEST(RegEvent, EachRegisteredUserIsSubscribedToAfterSm12) {
    World w(watching());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    ASSERT_EQ(subscribes(w).size(), 0U) << "SM12 goes first";
    w.advance(10ms);
    ASSERT_EQ(subscribes(w).size(), 1U);
    const Sip s = subscribes(w)[0].message;
    EXPECT_EQ(s.uri(), p.impu);
    EXPECT_EQ(s.header("To"), "<" + p.impu + ">");
    EXPECT_EQ(s.header("Event"), "reg");
    EXPECT_EQ(s.header("Expires"), "600000");
    EXPECT_EQ(s.header("P-Asserted-Identity"), "<sip:192.0.2.1:5060>") << "as in Path";
    EXPECT_EQ(reg_event_of(w, p), "subscribed");
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 1U);
    EXPECT_EQ(w.network->server->reg_event().counters().failed, 0U);
    // Re-registrations are told on the same dialog, and ask for nothing.
    ASSERT_TRUE(p.reregister());
    w.advance(600s);
    EXPECT_EQ(subscribes(w).size(), 1U);
    EXPECT_EQ(w.network->server->reg_event().counters().notifies, 2U);
}

TEST(RegEvent, ByDefaultOfThePolicyNobodyIsAsked) {
    World w(with_gmhome());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(60s);
    EXPECT_TRUE(subscribes(w).empty());
    EXPECT_EQ(reg_event_of(w, p), "");
}

// D4, F4: the phone hears of it on its SAs, and then they go.
TEST(RegEvent, TheNetworkDeregisters) {
    World w(watching());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(10ms);
    subscribe(p);
    p.answer(p.last(), 200);
    w.run();
    ASSERT_TRUE(w.network->registrar->deregister(p.impu));
    w.run();
    ASSERT_EQ(notifies(p).size(), 2U);
    EXPECT_EQ(p.last().message.header("Subscription-State"), "terminated;reason=noresource");
    EXPECT_TRUE(p.last().esp);
    ASSERT_TRUE(w.gateway->find(p.impi));
    EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.network->server->reg_event().counters().failed, 0U) << "its answer came through";
    w.nothing_left();
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
}

TEST(RegEvent, ThePhoneLeavesAndTheSubscriptionWithIt) {
    World w(watching());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(10ms);
    ASSERT_TRUE(p.deregister());
    w.nothing_left();
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
    EXPECT_EQ(w.network->server->reg_event().counters().failed, 0U)
        << "the core's last NOTIFY is taken";
}

TEST(RegEvent, TheOperatorDeregistersAndTheCoreIsToldThatNobodyListens) {
    World w(watching());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(10ms);
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.run();
    ASSERT_EQ(subscribes(w).size(), 2U);
    EXPECT_EQ(subscribes(w)[1].message.header("Expires"), "0");
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 0U);
    w.nothing_left();
}

// 600 s before its end, or at half of what is not above 1200 s (TS 24.229 5.2.3).
TEST(RegEvent, RefreshedInTime) {
    for (const auto& [granted, at] : {std::pair(1300, 700s), std::pair(1000, 500s)}) {
        World w(watching(World::Options{}));
        Phone& p = w.phone();
        w.lose = [&](const Wire& wire) {
            if (wire.to != Wire::To::home || wire.message.method() != "SUBSCRIBE") return false;
            w.home.reply(wire, 200,
                         "Expires: " + std::to_string(granted) +
                             "\r\nContact: <sip:192.0.2.9:5060;scscf>\r\nRecord-Route: "
                             "<sip:192.0.2.9:5060;lr;a>, <sip:192.0.2.9:5060;lr;b>\r\n");
            return true;
        };
        ASSERT_TRUE(p.register_once());
        w.advance(at - 1s);
        ASSERT_EQ(subscribes(w).size(), 1U);
        w.advance(2s);
        ASSERT_EQ(subscribes(w).size(), 2U);
        const Sip first = subscribes(w)[0].message;
        const Sip second = subscribes(w)[1].message;
        EXPECT_EQ(second.header("Call-ID"), first.header("Call-ID"));
        EXPECT_EQ(second.header("CSeq"), "2 SUBSCRIBE");
        EXPECT_NE(second.header("To").find(";tag=home"), std::string::npos);
        EXPECT_EQ(second.uri(), "sip:192.0.2.9:5060;scscf") << "the notifier's Contact";
        EXPECT_EQ(second.header("Route"), "<sip:192.0.2.9:5060;lr;b>, <sip:192.0.2.9:5060;lr;a>");
    }
}

TEST(RegEvent, ACoreThatTellsOfReregistrationsAndThenDoesNotIsAsked) {
    World w(watching());
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.advance(10ms);
    ASSERT_TRUE(p.reregister());
    w.advance(40s);
    ASSERT_EQ(subscribes(w).size(), 1U);
    const std::string first = subscribes(w)[0].message.header("Call-ID");
    w.network->server = nullptr;  // the S-CSCF's dialogs are lost
    home::ServerConfig config;
    config.listen = {ep("192.0.2.9:5060"), ep("[2001:db8::9]:5060")};
    w.network->server =
        std::make_unique<home::Server>(config, *w.network->registrar, w.network->timers, w.random);
    w.network->server->attach(*w.network);
    ASSERT_TRUE(p.reregister());
    w.advance(40s);
    ASSERT_EQ(subscribes(w).size(), 3U) << "481 in the old dialog, then a new one";
    EXPECT_EQ(subscribes(w)[1].message.header("Call-ID"), first);
    EXPECT_NE(subscribes(w)[2].message.header("Call-ID"), first);
    EXPECT_EQ(w.network->server->reg_event().subscriptions(), 1U);
    EXPECT_EQ(reg_event_of(w, p), "subscribed");
}

TEST(RegEvent, TimeOutsAreRepeatedWithPauses) {
    World w(watching());
    Phone& p = w.phone();
    w.lose = [](const Wire& wire) {
        return wire.to == Wire::To::home && wire.message.method() == "SUBSCRIBE";
    };
    ASSERT_TRUE(p.register_once());
    w.advance(600s);
    EXPECT_EQ(reg_event_of(w, p), "subscribing");
    std::set<std::string> tried;
    for (const Wire& wire : subscribes(w)) tried.insert(wire.message.header("Via"));
    EXPECT_GE(tried.size(), 4U);
    EXPECT_LE(tried.size(), 10U) << "the pauses grow";
    w.lose = nullptr;
    w.advance(1200s);
    EXPECT_EQ(reg_event_of(w, p), "subscribed");
}

TEST(RegEvent, ACoreWithoutThePackageIsLeftInPeace) {
    World w(watching(World::Options{}));
    w.home.fixed_status = 0;
    Phone& p = w.phone();
    w.lose = [&](const Wire& wire) {
        if (wire.to != Wire::To::home || wire.message.method() != "SUBSCRIBE") return false;
        w.home.reply(wire, 489);
        return true;
    };
    testing::internal::CaptureStderr();
    ASSERT_TRUE(p.register_once());
    w.advance(10ms);
    EXPECT_EQ(reg_event_of(w, p), "refused");
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(q.register_once());
    p.send_protected_sm1();
    w.advance(60s);
    EXPECT_EQ(subscribes(w).size(), 1U) << "not again for each user";
    testing::internal::GetCapturedStderr();
    w.lose = nullptr;
    w.advance(800s);
    EXPECT_EQ(reg_event_of(w, q), "subscribed");
}

TEST(RegEvent, InOrderOldOnesIgnoredAndAGapAskedAbout) {
    Scripted s;
    auto& [w, p, sub] = s;
    const std::string mine = p.contact();
    EXPECT_EQ(notify(w, sub, 1, document(0, true, p.impu, "active", mine)), 200);
    // CSeq repeated or older: out of order. Version repeated: taken, and not obeyed.
    EXPECT_EQ(notify(w, sub, 1, document(1, true, p.impu, "terminated", mine)), 500);
    EXPECT_EQ(notify(w, sub, 2, document(0, true, p.impu, "terminated", mine)), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    // A partial one in its turn.
    EXPECT_EQ(notify(w, sub, 3, document(1, false, p.impu, "active", mine)), 200);
    w.advance(1s);
    EXPECT_EQ(subscribes(w).size(), 1U);
    // One is missing: not obeyed, the whole state is asked for.
    EXPECT_EQ(notify(w, sub, 5, document(3, false, "tel:+15550100", "terminated", mine)), 200);
    w.advance(9s);
    ASSERT_EQ(subscribes(w).size(), 2U);
    EXPECT_NE(subscribes(w)[1].message.header("To").find(";tag=home"), std::string::npos);
    EXPECT_EQ(w.gateway->find(p.impi)->impus.size(), 2U);
    EXPECT_EQ(notify(w, sub, 6,
                     reginfo(4, registration("tel:+15550100", "terminated",
                                             bound(mine, "terminated", "deactivated")) +
                                    registration(p.impu, "active", bound(mine)))),
              200);
    EXPECT_EQ(w.gateway->find(p.impi)->impus, std::vector<std::string>{p.impu})
        << "one identity is gone, the other is registered";
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    EXPECT_EQ(notify(w, sub, 7, document(5, true, p.impu, "terminated", mine, "rejected")), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
    w.nothing_left();
}

TEST(RegEvent, AnIdentityThatIsGoneTakesItsOwnCallsAlone) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.registers_work());
    OutgoingCall own(w, p, "P-Preferred-Identity: <" + p.impu + ">\r\n");
    own.establish();
    OutgoingCall works(w, p, "P-Preferred-Identity: <" + std::string(work) + ">\r\n");
    works.establish();
    ASSERT_EQ(w.gateway->dialogs(), 2U);
    const std::string mine = p.contact();
    EXPECT_EQ(notify(w, sub, 1,
                     reginfo(0, registration(work, "terminated",
                                             bound(mine, "terminated", "deactivated")) +
                                    registration(p.impu, "active", bound(mine)))),
              200);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    w.advance(50ms);
    ASSERT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Call-ID"), works.call_id);
    ASSERT_EQ(count_of(p.inbox, "BYE"), 1U);
    p.answer(*latest(p.inbox, "BYE"), 200);
    w.run();
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    own.say("BYE");
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
}

TEST(RegEvent, OnlyOurContactAndOnlyItsOwnIdentities) {
    Scripted s;
    auto& [w, p, sub] = s;
    EXPECT_EQ(notify(w, sub, 1,
                     "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"0\" "
                     "state=\"full\"><registration aor=\"" +
                         p.impu +
                         "\" id=\"r\" state=\"active\"><contact id=\"c\" state=\"terminated\" "
                         "event=\"deactivated\"><uri>sip:alice@198.51.100.7:5060</uri></contact>"
                         "</registration><registration aor=\"sip:bob@home.example\" id=\"q\" "
                         "state=\"terminated\"/></reginfo>"),
              200)
        << "another phone of the same user";
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    w.expect_served(p);
}

TEST(RegEvent, WhatIsNoNotifyOfOursChangesNothing) {
    Scripted s;
    auto& [w, p, sub] = s;
    const std::string end = document(0, true, p.impu, "terminated", p.contact());
    EXPECT_EQ(notify(w, sub, 1, end, "active", "stranger"), 481) << "another dialog's tag";
    Sip other = sub;
    const std::string id = sub.header("Call-ID");
    std::string changed = id;
    changed[20] = changed[20] == '0' ? '1' : '0';
    other.text.replace(other.text.find(id), id.size(), changed);
    EXPECT_EQ(notify(w, other, 1, end), 481);
    EXPECT_EQ(notify(w, sub, 1, "<reginfo"), 400);
    EXPECT_EQ(notify(w, sub, 1, end + end), 400);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    EXPECT_EQ(notify(w, sub, 1, document(0, true, p.impu, "active", p.contact())), 200)
        << "what was refused counts for nothing";
    EXPECT_EQ(notify(w, sub, 2, {}, "terminated;reason=deactivated"), 200);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered") << "the subscription ended, only that";
    w.advance(9s);
    EXPECT_EQ(subscribes(w).size(), 2U) << "and is made again";
}

// F1, F4, B5: what is shortened is the registration; its SAs live on.
TEST(RegEvent, AShortenedRegistrationEndsUnlessItIsRenewed) {
    for (const bool renewal : {false, true}) {
        Scripted s;
        auto& [w, p, sub] = s;
        const auto set = w.set_of(p.current());
        EXPECT_EQ(
            notify(w, sub, 1, document(0, true, p.impu, "active", p.contact(), "shortened", "60")),
            200);
        EXPECT_EQ(w.gateway->find(p.impi)->expires_in, 60s);
        EXPECT_TRUE(w.backend.has(set));
        w.advance(55s);
        w.expect_served(p);
        if (renewal) {
            p.send_protected_sm1();
            w.run();
            ASSERT_EQ(p.last_status(), 200);
            EXPECT_GT(*w.gateway->find(p.impi)->expires_in, 3000s);
            w.advance(600s);
            EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
            w.expect_served(p);
        } else {
            w.advance(34s);
            EXPECT_EQ(w.gateway->find(p.impi)->state, "registered") << "the margin";
            w.advance(2s);
            EXPECT_EQ(w.gateway->find(p.impi)->state, "leaving");
            w.nothing_left();
        }
    }
}

// 24.229 5.4.2.1.2: the S-CSCF's NOTIFY comes straight to us, the 200 by way of the I-CSCF.
TEST(RegEvent, ANotifyThatOvertakesThe200EndsNothing) {
    Scripted s;
    auto& [w, p, sub] = s;
    const std::string old = p.contact();
    p.address = ip("10.2.0.77");
    p.next_ports();
    ASSERT_TRUE(p.challenged());
    const Wire sm8 = s.answered_by_nobody();
    const std::string replaced =
        bound(old, "terminated", "deactivated", "0") + bound(p.contact(), "active", "created");
    EXPECT_EQ(notify(w, sub, 1,
                     reginfo(0, registration(p.impu, "active", replaced) +
                                    registration("tel:+15550100", "active", replaced))),
              200);
    EXPECT_EQ(subscribes(w).size(), 1U) << "not while it is under way";
    w.home.receive(sm8);
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    p.accept();
    w.advance(10ms);
    EXPECT_EQ(s.view().state, "registered");
    ASSERT_EQ(subscribes(w).size(), 2U) << "the whole state is asked for";
    EXPECT_EQ(subscribes(w)[1].message.header("Call-ID"), sub.header("Call-ID"));
    EXPECT_EQ(notify(w, sub, 2, reginfo(1, registration(p.impu, "active", bound(p.contact())))),
              200);
    w.expect_served(p);
    EXPECT_EQ(notify(w, sub, 3, reginfo(2, registration(p.impu, "terminated", "")),
                     "terminated;reason=deactivated"),
              200);
    EXPECT_EQ(s.view().state, "leaving") << "nothing is under way any more";
    w.nothing_left();
}

TEST(RegEvent, AfterARefusalTheOvertakingNotifyIsMadeGood) {
    for (const char* state : {"active;expires=3600", "terminated;reason=rejected"}) {
        SCOPED_TRACE(state);
        Scripted s;
        auto& [w, p, sub] = s;
        w.home.integrity_yes_is_enough = false;
        ASSERT_TRUE(p.challenged(true));
        const Wire sm8 = s.answered_by_nobody();
        const std::string gone = bound(p.contact(), "terminated", "deactivated", "0");
        const std::string all = registration(p.impu, "terminated", gone) +
                                registration("tel:+15550100", "terminated", gone);
        EXPECT_EQ(notify(w, sub, 1, reginfo(0, all), state), 200);
        EXPECT_EQ(s.view().state, "reauthenticating");
        w.home.reply(sm8, 403);
        w.run();
        w.advance(10s);
        ASSERT_EQ(subscribes(w).size(), 2U);
        EXPECT_EQ(notify(w, subscribes(w)[1].message, 2, reginfo(1, all)), 200);
        EXPECT_EQ(s.view().state, "leaving");
        w.nothing_left();
    }
}

// D4: the 200 to who leaves goes out under its SAs.
TEST(RegEvent, AChallengedDeregistrationHasIts200ThoughTheNotifyCameFirst) {
    Scripted s;
    auto& [w, p, sub] = s;
    w.home.integrity_yes_is_enough = false;
    RegisterOptions leave;
    leave.expires = 0;
    ASSERT_TRUE(p.challenged(true, leave));
    const Wire sm8 = s.answered_by_nobody(leave);
    const std::string gone = bound(p.contact(), "terminated", "unregistered", "0");
    EXPECT_EQ(notify(w, sub, 1,
                     reginfo(0, registration(p.impu, "terminated", gone) +
                                    registration("tel:+15550100", "terminated", gone)),
                     "terminated;reason=noresource"),
              200);
    const auto heard = p.inbox.size();
    w.home.receive(sm8);
    w.run();
    ASSERT_EQ(p.inbox.size(), heard + 1);
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_TRUE(p.last().esp);
    w.nothing_left();
}

// Its renewal was there first: what the network says next holds.
TEST(RegEvent, ALateShortenedNotifyIsUndoneByTheNext) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.renews(p.impu));
    EXPECT_EQ(
        notify(w, sub, 1, document(0, true, p.impu, "active", p.contact(), "shortened", "60")),
        200);
    EXPECT_EQ(s.view().expires_in, 60s);
    EXPECT_EQ(
        notify(w, sub, 2, document(1, false, p.impu, "active", p.contact(), "refreshed", "3600")),
        200);
    EXPECT_EQ(s.view().expires_in, 3600s);
    w.advance(600s);
    EXPECT_EQ(s.view().state, "registered");
    w.expect_served(p);
}

// Two registrations of one user, one of them shortened: whichever is renewed, the other keeps its
// own time.
TEST(RegEvent, OnlyTheShortenedIdentityEnds) {
    using Names = std::vector<std::string>;
    for (const std::string_view renewed : {std::string_view{}, work, std::string_view("alice")}) {
        SCOPED_TRACE(renewed);
        Scripted s;
        auto& [w, p, sub] = s;
        ASSERT_TRUE(s.registers_work());
        ASSERT_EQ(s.view().impus.size(), 3U);
        EXPECT_EQ(notify(w, sub, 1,
                         reginfo(0, registration(p.impu, "active",
                                                 bound(p.contact(), "active", "shortened", "60")) +
                                        registration(work, "active", bound(p.contact())))),
                  200);
        if (renewed == work) {
            ASSERT_TRUE(s.registers_work());
        } else if (!renewed.empty()) {
            ASSERT_TRUE(s.renews(p.impu));
        }
        w.advance(89s);
        EXPECT_EQ(s.view().impus.size(), 3U) << "the margin";
        w.advance(2s);
        ASSERT_EQ(s.view().state, "registered");
        if (renewed == "alice") {
            EXPECT_EQ(s.view().impus.size(), 3U);
        } else {
            EXPECT_EQ(s.view().impus, Names{std::string(work)});
        }
        EXPECT_GT(*s.view().expires_in, 3000s);
        w.expect_served(p);
    }
}

// Each at its own time, and with the last the user.
TEST(RegEvent, TwoShortenedRegistrationsEndOneAfterTheOther) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.registers_work());
    EXPECT_EQ(notify(w, sub, 1,
                     reginfo(0, registration(p.impu, "active",
                                             bound(p.contact(), "active", "shortened", "60")) +
                                    registration(work, "active",
                                                 bound(p.contact(), "active", "shortened", "80")))),
              200);
    w.advance(91s);
    EXPECT_EQ(s.view().impus, std::vector<std::string>{std::string(work)});
    w.advance(18s);
    EXPECT_EQ(s.view().state, "registered");
    w.advance(2s);
    EXPECT_EQ(s.view().state, "leaving");
    w.nothing_left();
}

// The gateway stops: as many packets as there are users would leave in one go.
TEST(RegEvent, NothingIsSaidAtTheStop) {
    Scripted s;
    auto& [w, p, sub] = s;
    w.gateway->shut_down();
    w.sets->remove_all(sa::Event::shutdown);
    w.run();
    EXPECT_EQ(w.gateway->registered(), 0U);
    EXPECT_EQ(subscribes(w).size(), 1U);
}

// D4: a network need not name every identity of the user.
// What the operator is told is why it ended, not who said so first.
TEST(RegEvent, TheReasonIsThatOfTheDocument) {
    for (const auto& [event, reason] :
         {std::pair{"expired", registration::Reason::expired},
          std::pair{"unregistered", registration::Reason::deregistered_by_ue},
          std::pair{"rejected", registration::Reason::deregistered_by_network},
          std::pair{"deactivated", registration::Reason::deregistered_by_network}}) {
        Scripted s;
        ASSERT_EQ(notify(s.w, s.subscription, 1,
                         reginfo(0, registration(s.p.impu, "terminated",
                                                 bound(s.p.contact(), "terminated", event, "0"))),
                         "terminated;reason=noresource"),
                  200);
        std::vector<registration::Reason> told;
        for (const registration::TraceRecord& r : s.w.gateway->trace().of_user(s.p.impi)) {
            if (r.step == registration::Step::registration_ended) told.push_back(r.reason);
        }
        EXPECT_EQ(told, std::vector{reason}) << event;
    }
}

TEST(RegEvent, TheEndOfTheSubscriptionWithAllItNamesIsTheEndOfTheUser) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.registers_work());
    EXPECT_EQ(notify(w, sub, 1, document(0, true, p.impu, "terminated", p.contact(), "rejected"),
                     "terminated;reason=rejected"),
              200);
    EXPECT_EQ(s.view().state, "leaving");
    w.nothing_left();
}

TEST(RegEvent, WhatWasRegisteredTogetherIsTerminatedTogether) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.registers_work());
    EXPECT_EQ(notify(w, sub, 1, document(0, true, p.impu, "terminated", p.contact(), "rejected")),
              200);
    EXPECT_EQ(s.view().impus, std::vector<std::string>{std::string(work)});
    EXPECT_EQ(s.view().state, "registered");
    w.expect_served(p);
}

// Its time is over, though nobody said so.
TEST(RegEvent, AnExpiredIdentityIsNotRenewedWithTheOthers) {
    Scripted s;
    auto& [w, p, sub] = s;
    ASSERT_TRUE(s.registers_work(100));
    w.advance(200s);
    ASSERT_TRUE(s.renews(p.impu));
    EXPECT_EQ(s.view().impus, (std::vector<std::string>{p.impu, "tel:+15550100"}));
}

}  // namespace
}  // namespace gmgate::test
