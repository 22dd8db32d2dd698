// Sessions that run through the gateway: the table of dialogs, and their release when a user's
// registration or SAs are gone (TS 24.229 5.2.8.1).

#include "tests/support/calls.h"

namespace gmgate::test {
namespace {

enum class Ending : std::uint8_t { by_network, by_phone, sas_gone, expired };

// What brings it about, and whether the phone can still be told.
bool end(World& w, Phone& p, Ending how) {
    switch (how) {
        case Ending::by_network:
            EXPECT_TRUE(w.gateway->deregister(p.impi));
            break;
        case Ending::by_phone:
            w.home.silent = false;
            EXPECT_TRUE(p.deregister());
            break;
        case Ending::sas_gone:
            w.sets->remove_user(w.sets->find_by_impi(p.impi)->id, sa::Event::backend_lost);
            break;
        case Ending::expired:
            w.advance(3700s);
            break;
    }
    return how == Ending::by_network || how == Ending::by_phone;
}

class Release : public testing::TestWithParam<Ending> {};

TEST_P(Release, OfACallOfThePhones) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    ASSERT_EQ(p.last_status(), 200);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    const bool told = end(w, p, GetParam());
    w.advance(1s);

    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->message.uri(), far_target);
    EXPECT_EQ(bye->message.header("Route"), core_hop);
    EXPECT_EQ(bye->flow.remote, ep("192.0.2.9:6060"));
    EXPECT_EQ(bye->message.header("From"), "<" + p.impu + ">;tag=2");
    EXPECT_EQ(bye->message.header("To"), "<sip:bob@home.example>;tag=home");
    EXPECT_EQ(bye->message.header("Call-ID"), call.call_id);
    EXPECT_EQ(bye->message.header("CSeq"), std::to_string(call.cseq + 1) + " BYE");
    EXPECT_TRUE(bye->message.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5060;branch="));
    EXPECT_TRUE(bye->message.header("Reason").starts_with(
        GetParam() == Ending::sas_gone ? "SIP;cause=503" : "SIP;cause=480"));

    const Wire* to_phone = latest(p.inbox, "BYE");
    EXPECT_EQ(to_phone != nullptr, told);
    if (to_phone != nullptr) {
        EXPECT_TRUE(to_phone->esp) << "inside its SA";
        EXPECT_EQ(to_phone->message.uri(), p.contact());
        EXPECT_EQ(to_phone->message.header("From"), "<sip:bob@home.example>;tag=home");
        EXPECT_EQ(to_phone->message.header("To"), "<" + p.impu + ">;tag=2");
        EXPECT_EQ(to_phone->message.header("Call-ID"), call.call_id);
        EXPECT_EQ(to_phone->message.header("CSeq"), "1 BYE");
        p.answer(*to_phone, 200);
    }
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

TEST_P(Release, OfACallToThePhone) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    IncomingCall call(w, p);
    call.establish();
    // The numbers of both ends count from their own latest requests.
    from_core(w, call.from_far("INFO", 7));
    w.run();
    p.answer(p.last(), 200);
    w.run();
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    const bool told = end(w, p, GetParam());
    w.advance(1s);

    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->message.uri(), far_target);
    EXPECT_EQ(bye->message.header("Route"), core_hop);
    EXPECT_EQ(bye->message.header("From"), call.invite.message.header("To") + ";tag=ue");
    EXPECT_EQ(bye->message.header("To"), "<sip:bob@home.example>;tag=b");
    EXPECT_EQ(bye->message.header("CSeq"), "1 BYE");
    const Wire* to_phone = latest(p.inbox, "BYE");
    EXPECT_EQ(to_phone != nullptr, told);
    if (to_phone != nullptr) {
        EXPECT_EQ(to_phone->message.header("CSeq"), "8 BYE");
        EXPECT_EQ(to_phone->message.header("To"), call.invite.message.header("To") + ";tag=ue");
        p.answer(*to_phone, 200);
    }
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(0);
}

// CANCEL to the core, a final answer to the phone while its SA lives; a 200 that crosses the CANCEL
// is acknowledged and ended.
TEST_P(Release, OfAnInviteOfThePhonesThatRings) {
    for (const bool crosses : {false, true}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        if (GetParam() == Ending::expired) w.advance(3600s);
        OutgoingCall call(w, p);
        call.answer(180);
        EXPECT_EQ(w.gateway->dialogs(), 1U) << "early";
        const auto at_home = w.home.inbox.size();
        const bool told =
            GetParam() == Ending::expired ? (w.advance(31s), false) : end(w, p, GetParam());
        w.home.silent = true;
        w.advance(20ms);
        const Wire* cancel = latest(w.home.inbox, "CANCEL");
        ASSERT_NE(cancel, nullptr);
        EXPECT_EQ(cancel->message.header("Via"),
                  call.invite.message.header("Via").substr(
                      0, call.invite.message.header("Via").find(',')));
        const int status = GetParam() == Ending::sas_gone ? 503 : 480;
        const Wire* final = latest(p.inbox, std::to_string(status));
        EXPECT_EQ(final != nullptr, told);
        if (final != nullptr) {
            EXPECT_TRUE(final->message.header("CSeq").ends_with("INVITE"));
            EXPECT_TRUE(final->message.has("Reason"));
        }
        w.home.reply(*cancel, 200);
        if (crosses) {
            call.answer(200);
            const Wire* ack = latest(w.home.inbox, "ACK");
            ASSERT_NE(ack, nullptr);
            EXPECT_EQ(ack->message.uri(), far_target);
            EXPECT_EQ(ack->message.header("Route"), core_hop);
            EXPECT_EQ(ack->message.header("CSeq"), std::to_string(call.cseq) + " ACK");
            w.advance(50ms);
            const Wire* bye = latest(w.home.inbox, "BYE");
            ASSERT_NE(bye, nullptr);
            EXPECT_EQ(bye->message.header("CSeq"), std::to_string(call.cseq + 1) + " BYE");
            EXPECT_EQ(bye->message.header("To"), "<sip:bob@home.example>;tag=home");
            w.home.reply(*bye, 200);
            w.run();
        } else {
            w.home.reply(call.invite, 487);
            w.advance(50ms);
            EXPECT_EQ(latest(w.home.inbox, "BYE"), nullptr);
            EXPECT_GT(w.home.inbox.size(), at_home);
        }
        EXPECT_EQ(p.inbox.empty() ? 0 : count_of(p.inbox, "487"), 0U) << "answered already";
        EXPECT_EQ(w.gateway->dialogs(), 0U);
        w.home.silent = false;
        w.expect_no_leak(0);
    }
}

TEST_P(Release, OfAnInviteToThePhoneThatRings) {
    for (const bool crosses : {false, true}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        if (GetParam() == Ending::expired) w.advance(3600s);
        IncomingCall call(w, p);
        call.answer(180);
        const bool told =
            GetParam() == Ending::expired ? (w.advance(31s), false) : end(w, p, GetParam());
        w.advance(20ms);
        const int status = GetParam() == Ending::sas_gone ? 503 : 480;
        const Wire* final = latest(w.home.inbox, std::to_string(status));
        ASSERT_NE(final, nullptr);
        EXPECT_TRUE(final->message.header("CSeq").ends_with("INVITE"));
        EXPECT_TRUE(
            final->message.header("Reason").starts_with("SIP;cause=" + std::to_string(status)));
        const Wire* cancel = latest(p.inbox, "CANCEL");
        ASSERT_EQ(cancel != nullptr, told);
        if (told) {
            EXPECT_TRUE(cancel->esp);
            p.answer(*cancel, 200);
            if (crosses) {
                call.answer(200);
                const Wire* ack = latest(p.inbox, "ACK");
                ASSERT_NE(ack, nullptr);
                EXPECT_EQ(ack->message.uri(), p.contact());
                EXPECT_EQ(ack->message.header("CSeq"), "1 ACK");
                w.advance(50ms);
                const Wire* bye = latest(p.inbox, "BYE");
                ASSERT_NE(bye, nullptr);
                EXPECT_EQ(bye->message.header("CSeq"), "2 BYE");
                p.answer(*bye, 200);
            } else {
                call.answer(487);
            }
        }
        EXPECT_EQ(count_of(w.home.inbox, "200"), 0U) << "it is answered already";
        w.expect_no_leak(0);
    }
}

std::string name_of(const testing::TestParamInfo<Ending>& tested) {
    constexpr std::array names{"ByTheNetwork", "ByThePhone", "SasGone", "Expired"};
    return names[static_cast<std::size_t>(tested.param)];
}

INSTANTIATE_TEST_SUITE_P(Endings, Release,
                         testing::Values(Ending::by_network, Ending::by_phone, Ending::sas_gone,
                                         Ending::expired),
                         name_of);

TEST(Sessions, APhoneThatLeavesHearsItsAnswerBeforeTheBye) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    const auto heard = p.inbox.size();
    ASSERT_TRUE(p.deregister());
    w.advance(1s);
    ASSERT_GE(p.inbox.size(), heard + 2);
    EXPECT_EQ(p.inbox[heard].message.status(), 200);
    EXPECT_EQ(p.inbox[heard + 1].message.method(), "BYE");
}

TEST(Sessions, AByeEndsTheDialogAndNothingIsReleasedLater) {
    for (const bool far : {false, true}) {
        World w;
        Phone& p = w.phone();
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.establish();
        if (far) {
            from_core(w, call.from_far("BYE", 1));
            w.run();
            EXPECT_EQ(w.gateway->dialogs(), 1U) << "not before the answer";
            p.answer(p.last(), 200);
            w.run();
        } else {
            call.say("BYE");
            EXPECT_EQ(p.last_status(), 200);
        }
        EXPECT_EQ(w.gateway->dialogs(), 0U);
        const auto byes = count_of(w.home.inbox, "BYE");
        ASSERT_TRUE(w.gateway->deregister(p.impi));
        w.advance(1s);
        EXPECT_EQ(count_of(w.home.inbox, "BYE"), byes);
        w.expect_no_leak(0);
    }
}

// RFC 3261 12.2: requests in the dialog move its numbers and targets, and the BYE follows them.
TEST(Sessions, TheByeGoesWhereTheDialogHasMoved) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(183);
    w.home.silent = false;
    call.say("PRACK");
    call.answer(200);
    call.say("ACK");
    // The far end moves by UPDATE, the phone by re-INVITE.
    from_core(w, call.from_far("UPDATE", 41, "home",
                               "Contact: <sip:bob@192.0.2.88:5066;transport=udp>\r\n"));
    w.run();
    ASSERT_EQ(p.last().message.method(), "UPDATE");
    p.answer(p.last(), 200, "Contact: <" + p.contact() + ">\r\n");
    w.run();
    w.home.silent = true;
    call.say("INVITE", "home", "Contact: <sip:alice@10.2.0.1:7777;line=2>\r\n");
    const Wire again = *latest(w.home.inbox, "INVITE");
    w.home.reply(again, 200, "Contact: <sip:bob@192.0.2.99:5066>\r\n");
    w.run();
    w.home.silent = false;
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(1s);
    const Wire* bye = latest(w.home.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->message.uri(), "sip:bob@192.0.2.99:5066");
    EXPECT_EQ(bye->message.header("CSeq"), std::to_string(call.last_cseq + 1) + " BYE");
    EXPECT_EQ(call.last_cseq, call.cseq + 2) << "PRACK and re-INVITE";
    const Wire* to_phone = latest(p.inbox, "BYE");
    ASSERT_NE(to_phone, nullptr);
    EXPECT_EQ(to_phone->message.uri(), "sip:alice@10.2.0.1:7777;line=2");
    EXPECT_EQ(to_phone->message.header("CSeq"), "42 BYE");
    p.answer(*to_phone, 200);
    w.expect_no_leak(0);
}

TEST(Sessions, EachBranchOfAForkedCallIsOne) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(180, "one");
    call.answer(180, "two");
    call.answer(183, "three");
    call.answer(180, "two");
    EXPECT_EQ(w.gateway->dialogs(), 3U);
    call.answer(200, "one", {}, "sip:bob@192.0.2.71:5062");
    call.answer(200, "two", {}, "sip:bob@192.0.2.72:5062");
    EXPECT_EQ(count_of(p.inbox, "200"), 3U) << "REGISTER's and two";
    w.home.silent = false;
    w.advance(40s);
    EXPECT_EQ(w.gateway->dialogs(), 2U) << "the third was never answered";
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(1s);
    std::set<std::string> byes;
    for (const Wire& wire : w.home.inbox) {
        if (wire.message.method() == "BYE")
            byes.insert(wire.message.uri() + " " + wire.message.header("To"));
    }
    EXPECT_EQ(byes,
              (std::set<std::string>{"sip:bob@192.0.2.71:5062 <sip:bob@home.example>;tag=one",
                                     "sip:bob@192.0.2.72:5062 <sip:bob@home.example>;tag=two"}));
    EXPECT_GE(count_of(p.inbox, "BYE"), 2U);
    w.expect_no_leak(0);
}

TEST(Sessions, ARefusedCallLeavesNothing) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.answer(180, "one");
    call.answer(180, "two");
    EXPECT_EQ(w.gateway->dialogs(), 2U);
    w.home.reply(call.invite, 486);
    w.run();
    EXPECT_EQ(p.last_status(), 486);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    IncomingCall other(w, p);
    other.answer(180);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    other.answer(603);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(1);
}

TEST(Sessions, AreBoundedForEachUserAndInAll) {
    World::Options options;
    options.policy.limits.dialogs_per_user = 2;
    options.policy.limits.dialogs = 4;
    World w(options);
    Phone& p = w.phone("alice", "10.2.0.1");
    Phone& q = w.phone("bob", "10.2.0.2");
    ASSERT_TRUE(p.register_once());
    ASSERT_TRUE(q.register_once());
    OutgoingCall first(w, p);
    first.establish();
    OutgoingCall ringing(w, p);  // an INVITE counts as the dialog it will make
    OutgoingCall other(w, p);
    const auto at_home = count_of(w.home.inbox, "INVITE");
    p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 503);
    EXPECT_TRUE(p.last().message.has("Retry-After"));
    w.home.request("INVITE", w.home.paths[p.impi], p.contact());
    w.run();
    EXPECT_EQ(w.home.inbox.back().message.status(), 503);
    EXPECT_EQ(w.drops(Reason::dialog_limit), 2U);
    EXPECT_EQ(count_of(w.home.inbox, "INVITE"), at_home);
    IncomingCall third(w, q);
    third.establish();
    q.send_on(q.current(), q.request("INVITE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(q.last_status(), 503) << "in all";
    w.home.reply(other.invite, 486);
    w.run();
    // A branch more than there is room for goes on, unknown to us.
    ringing.answer(180, "one");
    ringing.answer(180, "two");
    EXPECT_EQ(w.gateway->dialogs(), 3U);
    EXPECT_EQ(count_of(p.inbox, "180"), 3U);
    // Confirmed, it takes the place of the one that only rings.
    ringing.answer(200, "two");
    EXPECT_EQ(w.gateway->dialogs(), 3U);
    w.home.silent = false;
    // What ends makes room.
    first.say("BYE");
    EXPECT_EQ(w.gateway->dialogs(), 2U);
    OutgoingCall again(w, p);
    EXPECT_EQ(p.last_status(), 100);
    again.establish();
    EXPECT_EQ(w.gateway->dialogs(), 3U);
    for (Phone* each : {&p, &q}) ASSERT_TRUE(w.gateway->deregister(each->impi));
    w.expect_no_leak(0);
}

// An answer that is repeated, or crosses the BYE, brings nothing back.
TEST(Sessions, ARepeatedAnswerAfterTheByeMakesNone) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    call.say("BYE");
    ASSERT_EQ(w.gateway->dialogs(), 0U);
    const auto heard = count_of(p.inbox, "200");
    call.answer(200);
    EXPECT_EQ(count_of(p.inbox, "200"), heard + 1) << "it goes on as it is";
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    IncomingCall other(w, p);
    other.establish();
    other.far_says("BYE", 2);
    p.answer(p.last(), 200);
    w.run();
    ASSERT_EQ(w.gateway->dialogs(), 0U);
    other.answer(200);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.expect_no_leak(1);
}

TEST(Sessions, ACallMakesFewHoweverOftenItIsAnswered) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    for (int i = 0; i < 40; ++i) call.answer(i < 20 ? 180 : 200, "t" + std::to_string(i));
    EXPECT_EQ(count_of(p.inbox, "200"), 21U) << "all pass";
    EXPECT_EQ(w.gateway->dialogs(), 8U);
    w.home.silent = false;
    for (int i = 20; i < 40; ++i) {
        call.say("BYE", "t" + std::to_string(i));
        EXPECT_EQ(p.last_status(), 200);
        EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Route"), core_hop) << i;
    }
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    OutgoingCall next(w, p);
    EXPECT_EQ(p.last_status(), 100);
    next.establish();
    next.say("BYE");
    w.expect_no_leak(1);
}

TEST(Sessions, OfAUsersTheLongestUnusedGivesWay) {
    World::Options options;
    options.policy.limits.dialogs_per_user = 2;
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall first(w, p);
    first.establish();
    w.advance(50s);
    OutgoingCall second(w, p);
    second.establish();
    w.advance(50s);
    first.say("INFO");
    w.advance(50s);
    IncomingCall third(w, p);
    third.establish();
    EXPECT_EQ(w.gateway->dialogs(), 2U);
    first.say("INFO");
    EXPECT_EQ(p.last_status(), 200);
    second.say("INFO");
    EXPECT_EQ(p.last_status(), 481);
    second.say("BYE");
    EXPECT_EQ(p.last_status(), 200) << "ended all the same, the way its home goes";
    EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Route"), w.home.service_route);
    first.say("BYE");
    third.far_says("BYE", 2);
    p.answer(p.last(), 200);
    w.expect_no_leak(1);
}

TEST(Sessions, AnEmergencyCallNeedsNoRoom) {
    World::Options options;
    options.policy.limits.dialogs = 1;
    options.policy.emergency = registration::Emergency::forward;
    options.policy.e_cscf = ep("192.0.2.30:5070");
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    p.send_on(p.current(), p.request("INVITE", "sip:bob@home.example"));
    w.run();
    EXPECT_EQ(p.last_status(), 503);
    w.home.silent = true;
    p.send_on(p.current(),
              p.request("INVITE", "urn:service:sos", "Contact: <" + p.contact() + ">\r\n"));
    w.run();
    EXPECT_EQ(p.last_status(), 100);
    ASSERT_EQ(w.home.inbox.back().flow.remote, ep("192.0.2.30:5070"));
    w.home.reply(w.home.inbox.back(), 486);
    w.run();
    EXPECT_EQ(p.last_status(), 486);
    w.home.silent = false;
    call.say("BYE");
    w.expect_no_leak(1);
}

// RFC 3261 8.1.1.5: a number that cannot be is none to count on from.
TEST(Sessions, ANumberBeyondTheLastIsNotFollowed) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    for (const unsigned number : {7U, 0xFFFF'FFFFU, 0x8000'0000U}) {
        from_core(w, call.from_far("INFO", number));
        w.run();
        if (p.last().message.method() == "INFO") p.answer(p.last(), 200);
        w.run();
    }
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(50ms);
    const Wire* bye = latest(p.inbox, "BYE");
    ASSERT_NE(bye, nullptr);
    EXPECT_EQ(bye->message.header("CSeq"), "8 BYE");
    p.answer(*bye, 200);
    w.expect_no_leak(0);
}

TEST(Sessions, OneNobodyUsesIsForgotten) {
    World::Options options;
    options.policy.dialog_idle = 600s;
    World w(options);
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall used(w, p);
    used.establish();
    OutgoingCall idle(w, p);
    idle.establish();
    w.advance(400s);
    used.say("OPTIONS");
    w.advance(300s);
    EXPECT_EQ(w.gateway->dialogs(), 1U);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 0U);
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(1s);
    ASSERT_NE(latest(w.home.inbox, "BYE"), nullptr);
    EXPECT_EQ(latest(w.home.inbox, "BYE")->message.header("Call-ID"), used.call_id);
    w.expect_no_leak(0);
}

// Everybody's registration ends at once: the BYEs go a few at a time, and all within the drain
// time.
TEST(Sessions, ManyAreReleasedAFewAtATime) {
    World::Options options;
    options.policy.limits.register_rate_total = 1e6;
    World w(options);
    constexpr std::size_t many = 100;
    for (std::size_t i = 0; i < many; ++i) {
        Phone& p = w.phone("u" + std::to_string(i), "10.2.1." + std::to_string(i + 1));
        ASSERT_TRUE(p.register_once());
        OutgoingCall call(w, p);
        call.establish();
    }
    EXPECT_EQ(w.gateway->dialogs(), many);
    std::printf("%zu dialogs: %zu octets each\n", many, w.gateway->dialog_octets() / many);
    for (const auto& p : w.phones) ASSERT_TRUE(w.gateway->deregister(p->impi));
    std::size_t before = 0;
    std::size_t most = 0;
    for (int i = 0; i < 100 && w.gateway->dialogs() > 0; ++i) {
        w.advance(1ms);
        const auto now = count_of(w.home.inbox, "BYE");
        most = std::max(most, now - before);
        before = now;
    }
    EXPECT_EQ(before, many);
    EXPECT_LE(most, 32U);
    for (const auto& p : w.phones) EXPECT_GE(count_of(p->inbox, "BYE"), 1U);
    w.expect_no_leak(0);
}

// Who is gone does not hold up the others, nor its own far end.
TEST(Sessions, APhoneThatIsSilentIsNotWaitedFor) {
    World w;
    Phone& p = w.phone();
    ASSERT_TRUE(p.register_once());
    OutgoingCall call(w, p);
    call.establish();
    ASSERT_TRUE(w.gateway->deregister(p.impi));
    w.advance(50ms);
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    EXPECT_EQ(w.gateway->dialogs(), 0U);
    w.advance(5s);
    EXPECT_GT(count_of(p.inbox, "BYE"), 2U) << "repeated while its SA lives";
    EXPECT_EQ(count_of(w.home.inbox, "BYE"), 1U);
    w.expect_no_leak(0);
}

}  // namespace
}  // namespace gmgate::test
