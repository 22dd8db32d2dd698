// What ends with an identity, with a phone's SAs, and with both ends of a call at once (D4).

#include "tests/support/calls.h"
#include "tests/support/home_calls.h"

namespace gmgate::test {
namespace {

constexpr std::string_view work = "sip:work@home.example";

// A second identity, registered (or left) by a REGISTER of its own.
bool registers_work(World& w, Phone& p, unsigned expires = 3600) {
    const std::string before = std::exchange(w.home.associated, "<" + std::string(work) + ">");
    RegisterOptions o;
    o.impu = work;
    o.expires = expires;
    w.home.silent = false;
    p.send_protected_sm1(o);
    w.run();
    w.home.associated = before;
    return p.last_status() == 200;
}

enum class Way : std::uint8_t { by_ue, by_expiry };
class OneIdentity : public testing::TestWithParam<Way> {};

TEST_P(OneIdentity, EndsItsOwnSessionsAlone) {
    const bool expiry = GetParam() == Way::by_expiry;
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    if (expiry) w.home.grant = 100;
    ASSERT_TRUE(registers_work(w, p));
    w.home.grant = 3600;
    ASSERT_EQ(w.gateway->find(p.impi)->impus.size(), 3U);

    const std::string for_own = "P-Preferred-Identity: <" + p.impu + ">\r\n";
    OutgoingCall own(w, p, for_own);
    own.establish();
    OutgoingCall works(w, p, "P-Preferred-Identity: <" + std::string(work) + ">\r\n");
    works.establish();
    OutgoingCall own_rings(w, p, for_own);
    own_rings.answer(180);
    OutgoingCall works_rings(w, p, "P-Preferred-Identity: <" + std::string(work) + ">\r\n");
    works_rings.answer(180);
    // Called: P-Called-Party-ID says for which, whatever was dialled.
    const std::string called =
        w.home.request("INVITE", w.home.paths[p.impi], p.contact(),
                       "Contact: <" + std::string(far_target) + ">\r\nP-Called-Party-ID: <" +
                           std::string(work) + ">\r\n");
    w.run();
    ASSERT_EQ(p.last().message.method(), "INVITE");
    const Wire works_called = p.last();
    p.answer(works_called, 180, "Contact: <" + p.contact() + ">\r\n");
    w.run();
    ASSERT_EQ(w.gateway->dialogs(), 5U);

    if (expiry) {
        w.advance(120s);
        w.home.silent = false;
        p.send_protected_sm1();  // renewed: what has run out meanwhile goes
        w.run();
        ASSERT_EQ(p.last_status(), 200);
    } else {
        ASSERT_TRUE(registers_work(w, p, 0));
    }
    EXPECT_EQ(w.gateway->find(p.impi)->impus.size(), 2U);
    EXPECT_EQ(w.gateway->find(p.impi)->state, "registered");
    w.home.silent = true;
    w.advance(50ms);

    ASSERT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Call-ID"), works.call_id);
    ASSERT_EQ(count_of(p.inbox, "BYE"), 1U);
    const Wire bye = *latest(p.inbox, "BYE");
    EXPECT_EQ(bye.message.header("Call-ID"), works.call_id);
    EXPECT_TRUE(bye.esp);
    ASSERT_EQ(count_of(w.home.inbox, "CANCEL"), 1U);
    EXPECT_EQ(latest(w.home.inbox, "CANCEL")->message.header("Call-ID"), works_rings.call_id);
    ASSERT_EQ(count_of(p.inbox, "CANCEL"), 1U);
    EXPECT_EQ(latest(p.inbox, "CANCEL")->message.header("Call-ID"),
              works_called.message.header("Call-ID"));
    p.answer(bye, 200);
    p.answer(works_called, 487);
    w.home.reply(works_rings.invite, 487);
    w.run();
    EXPECT_EQ(w.gateway->dialogs(), 2U) << "those of the other identity";
    own_rings.answer(486);
    EXPECT_EQ(p.last_status(), 486);
    w.home.silent = false;
    own.say("INFO");
    EXPECT_EQ(p.last_status(), 200);
    own.say("BYE");
    EXPECT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(1);
}

INSTANTIATE_TEST_SUITE_P(Ways, OneIdentity, testing::Values(Way::by_ue, Way::by_expiry));

// RFC 4320: no 408, and nobody waits for timer F.
TEST(Release, ARequestToAPhoneWhoseSasWentEndsAtOnce) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    ASSERT_EQ(p.last().message.method(), "MESSAGE");
    EXPECT_EQ(w.gateway->proxied(), 1U);
    w.sets->remove_user(w.sets->find_by_impi(p.impi)->id, sa::Event::backend_lost);
    w.advance(20ms);
    EXPECT_EQ(w.home.inbox.back().message.status(), 480);
    EXPECT_EQ(w.gateway->proxied(), 0U);
    w.expect_no_leak(0);
}

// While its SAs live it can still be told, and answer.
TEST(Release, ARequestToAPhoneThatLeavesIsAnswered) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    w.home.request("MESSAGE", w.home.paths[p.impi], p.contact());
    w.run();
    const Wire asked = p.last();
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(1s);
    EXPECT_EQ(w.gateway->proxied(), 1U);
    p.answer(asked, 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    w.expect_no_leak(0);
}

// Each leg ends the other one's, too: through the core they meet.
TEST(Release, BothEndsOfACallLeaveAtOnce) {
    Calls c;
    c.connect();
    c.w.advance(40s);
    ASSERT_EQ(c.w.gateway->dialogs(), 2U);
    ASSERT_TRUE(c.w.gateway->deregister(c.alice.impi));
    ASSERT_TRUE(c.w.gateway->deregister(c.bob.impi));
    const auto before = c.w.log.size();
    c.w.advance(15ms);
    for (Phone* p : {&c.alice, &c.bob}) {
        ASSERT_EQ(requests(*p, "BYE").size(), 1U);
        p->answer(requests(*p, "BYE").front(), 200);
    }
    c.w.advance(33s);
    EXPECT_EQ(requests(c.alice, "BYE").size(), 1U);
    EXPECT_EQ(requests(c.bob, "BYE").size(), 1U);
    EXPECT_LT(c.w.log.size() - before, 40U) << "nothing goes round";
    EXPECT_EQ(c.w.gateway->dialogs(), 0U);
    EXPECT_EQ(c.server().sessions().size(), 0U);
    EXPECT_EQ(c.w.gateway->proxied(), 0U);
    EXPECT_EQ(c.w.sets->set_count(), 0U);
}

// One end's BYE is under way when the other leaves: it is not said once more.
TEST(Release, AnEndThatHungUpIsNotToldAgain) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    IncomingCall call(w, p);
    call.establish();
    call.far_says("BYE", 2);
    ASSERT_EQ(count_of(p.inbox, "BYE"), 1U);
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(50ms);
    EXPECT_EQ(count_of(p.inbox, "BYE"), 1U);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U);
    p.answer(*latest(p.inbox, "BYE"), 200);
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

// The network names fewer identities of one set than it did.
TEST(Release, AnIdentityTheNetworkNamesNoMoreEndsItsSessions) {
    World w;
    w.home.integrity_yes_is_enough = true;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall tel(w, p, "P-Preferred-Identity: <tel:+15550100>\r\n");
    tel.establish();
    OutgoingCall own(w, p, "P-Preferred-Identity: <" + p.impu + ">\r\n");
    own.establish();
    w.home.silent = false;
    p.send_protected_sm1();  // the same again
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    w.advance(50ms);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U);
    w.home.associated = "<sip:%U@home.example>";
    p.send_protected_sm1();
    w.run();
    ASSERT_EQ(p.last_status(), 200);
    w.advance(50ms);
    ASSERT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Call-ID"), tel.call_id);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
}

// Nothing comes back for it: whoever said it is done, and nothing of the session is left.
TEST(Release, AByeThatCannotBeSentEndsItsDialog) {
    for (const bool from_phone : {true, false}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.establish();
        ASSERT_EQ(w.gateway->dialogs(), 1U);
        auto& net = from_phone ? w.core_net : w.gm_net;
        net.refuse = true;
        if (from_phone) {
            call.say("BYE");
            EXPECT_EQ(p.last_status(), 504);
        } else {
            from_core(w, call.from_far("BYE", 1));
            w.run();
            EXPECT_EQ(w.home.inbox.back().message.status(), 480);
        }
        net.refuse = false;
        EXPECT_EQ(w.gateway->dialogs(), 0U) << from_phone;
        w.expect_no_leak(1);
    }
}

}  // namespace
}  // namespace gmgate::test
