// A phone's subscription to its own registration, against a notifier written by hand.
#include "ue/subscription.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "control/sip/values.h"
#include "tests/unit/ue/agent_pair.h"

namespace gmgate::ue {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Pair;

class Notifier {
  public:
    Notifier() { pair.deliver = false; }

    std::string field(const std::string& message, sip::HeaderId id) {
        sip::Message m;
        EXPECT_EQ(m.parse(message), sip::ParseStatus::ok);
        return std::string(m.value(id).value_or(""));
    }
    // To the last SUBSCRIBE.
    void answer(int code, std::string_view more = "Expires: 3600\r\n") {
        const std::string s = pair.a.last_sent("SUBSCRIBE");
        const std::string to = field(s, sip::HeaderId::to);
        EXPECT_TRUE(pair.give(
            pair.a,
            fmt::format("SIP/2.0 {} X\r\nVia: {}\r\nFrom: {}\r\nTo: {}{}\r\nCall-ID: {}\r\nCSeq: "
                        "{}\r\nContact: <sip:scscf@10.30.0.2>\r\n{}Content-Length: 0\r\n\r\n",
                        code, field(s, sip::HeaderId::via), field(s, sip::HeaderId::from), to,
                        to.find("tag=") == std::string::npos ? ";tag=n" : "",
                        field(s, sip::HeaderId::call_id), field(s, sip::HeaderId::cseq), more)));
    }
    bool notify(std::string_view body, std::string_view state = "active;expires=9") {
        const std::string s = pair.a.last_sent("SUBSCRIBE");
        const std::string from = field(s, sip::HeaderId::from);
        ++cseq;
        return pair.give(
            pair.a,
            fmt::format("NOTIFY sip:a@10.20.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.21.0.1;branch="
                        "z9hG4bKn{6}\r\nMax-Forwards: 60\r\nFrom: <sip:a@x>;tag=n\r\nTo: {1}\r\n"
                        "Call-ID: {2}\r\nCSeq: {0} NOTIFY\r\nEvent: reg\r\nSubscription-State: {3}"
                        "\r\nContent-Type: application/reginfo+xml\r\nContent-Length: {4}\r\n\r\n"
                        "{5}",
                        cseq, from, field(s, sip::HeaderId::call_id), state, body.size(), body,
                        ++sent));
    }
    static std::string document(unsigned version, bool full, std::string_view state = "active",
                                std::string_view event = "registered") {
        return fmt::format(
            "<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" "
            "version=\"{}\" state=\"{}\"><registration "
            "aor=\"sip:001010000000001@ims.example\" id=\"r\" state=\"{}\"><contact id=\"c\" "
            "state=\"{}\" event=\"{}\"><uri>sip:001010000000001@10.20.0.1:40001</uri></contact>"
            "</registration></reginfo>",
            version, full ? "full" : "partial", state, state, event);
    }
    void begin() {
        ASSERT_TRUE(
            pair.a.agent.subscribe(600000, [this](int code, std::string_view) { status = code; }));
        answer(200);
        EXPECT_EQ(status, 200);
    }
    [[nodiscard]] std::size_t asked() const { return pair.a.sent_count("SUBSCRIBE"); }
    std::string last_answer() { return pair.a.last_sent("SIP/2.0").substr(8, 3); }

    Pair pair;
    unsigned cseq = 0, sent = 0;
    int status = -1;
};

TEST(Subscription, IsMadeRefreshedAndEnded) {
    Notifier n;
    n.begin();
    const std::string s = n.pair.a.last_sent("SUBSCRIBE");
    EXPECT_TRUE(s.starts_with("SUBSCRIBE sip:001010000000001@ims.example SIP/2.0\r\n")) << s;
    EXPECT_EQ(n.field(s, sip::HeaderId::event), "reg");
    EXPECT_EQ(n.field(s, sip::HeaderId::expires), "600000");
    EXPECT_FALSE(n.pair.a.agent.subscribe(1, {})) << "there is one";
    n.pair.run(seconds(2999));
    EXPECT_EQ(n.asked(), 1U);
    n.pair.run(milliseconds(1100));
    ASSERT_EQ(n.asked(), 2U);
    EXPECT_NE(n.field(n.pair.a.last_sent("SUBSCRIBE"), sip::HeaderId::to).find("tag=n"),
              std::string::npos);
    n.answer(200, "Expires: 100\r\n");
    n.pair.run(milliseconds(50'100));
    EXPECT_EQ(n.asked(), 3U) << "half of a short time";
    n.answer(200, "Expires: 100\r\n");
    ASSERT_TRUE(n.pair.a.agent.unsubscribe({}));
    EXPECT_EQ(n.field(n.pair.a.last_sent("SUBSCRIBE"), sip::HeaderId::expires), "0");
    EXPECT_TRUE(n.notify({}, "terminated;reason=timeout"));
    EXPECT_EQ(n.last_answer(), "200");
    n.answer(200, "Expires: 0\r\n");
    n.pair.run(seconds(1000));
    EXPECT_EQ(n.asked(), 4U);
    EXPECT_FALSE(n.pair.a.agent.unsubscribe({}));
}

TEST(Subscription, ForgottenByTheOtherEndItIsMadeAnew) {
    Notifier n;
    n.begin();
    const auto first = n.field(n.pair.a.last_sent("SUBSCRIBE"), sip::HeaderId::call_id);
    n.pair.run(milliseconds(3'000'100));
    n.answer(481);
    n.pair.run(milliseconds(100));
    EXPECT_EQ(n.asked(), 3U);
    EXPECT_NE(n.field(n.pair.a.last_sent("SUBSCRIBE"), sip::HeaderId::call_id), first);
    n.answer(200);
    // And so when a NOTIFY says that it is over, unless it says why not.
    EXPECT_TRUE(n.notify({}, "terminated;reason=deactivated"));
    n.pair.run(milliseconds(100));
    EXPECT_EQ(n.asked(), 4U);
    n.cseq = 0;
    n.answer(200);
    EXPECT_TRUE(n.notify({}, "terminated;reason=rejected"));
    n.pair.run(seconds(5000));
    EXPECT_EQ(n.asked(), 4U);
}

TEST(Subscription, WhoWaitsHearsOfAnEndByNotify) {
    for (const auto* reason : {"rejected", "noresource"}) {
        Notifier n;
        n.begin();
        int ended = -1;
        ASSERT_TRUE(n.pair.a.agent.unsubscribe([&](int code, std::string_view) { ended = code; }));
        EXPECT_TRUE(n.notify({}, std::string("terminated;reason=") + reason));
        EXPECT_EQ(ended, 200) << reason;
        n.answer(481);
        EXPECT_EQ(ended, 200) << "told once";
        EXPECT_FALSE(n.pair.a.agent.unsubscribe({}));
    }
}

TEST(Subscription, ReadsNewsInOrder) {
    Notifier n;
    n.begin();
    auto& a = n.pair.a;
    n.notify(Notifier::document(3, true));
    ASSERT_EQ(a.news.size(), 1U);
    EXPECT_FALSE(a.news[0].gone || a.news[0].reauthenticate);
    n.notify(Notifier::document(2, true, "terminated", "rejected"));
    EXPECT_EQ(a.news.size(), 1U) << "old news";
    n.notify(Notifier::document(4, false, "active", "shortened"));
    ASSERT_EQ(a.news.size(), 2U);
    EXPECT_TRUE(a.news[1].reauthenticate);
    // One is missing: all of it is asked for.
    n.notify(Notifier::document(6, false));
    EXPECT_EQ(a.news.size(), 2U);
    EXPECT_EQ(n.asked(), 2U);
    n.answer(200);
    n.notify(Notifier::document(7, true, "terminated", "deactivated"));
    ASSERT_EQ(a.news.size(), 3U);
    EXPECT_TRUE(a.news[2].gone && a.news[2].may_return);
    n.notify(Notifier::document(8, true, "terminated", "rejected"));
    ASSERT_EQ(a.news.size(), 4U);
    EXPECT_TRUE(a.news[3].gone && !a.news[3].may_return);
    EXPECT_EQ(a.stats.notifies, 6U);
}

TEST(Subscription, BadNotifiesAreAnsweredAndCounted) {
    Notifier n;
    n.begin();
    n.notify("<reginfo");
    EXPECT_EQ(n.last_answer(), "400");
    EXPECT_EQ(n.pair.a.stats.bad_input.total(), 1U);
    n.cseq = 0;
    n.notify(Notifier::document(1, true));
    EXPECT_EQ(n.pair.a.news.size(), 0U) << "its CSeq is over";
    // Of another dialog: the phone's to answer.
    n.pair.a.agent.registration_over("x");
    EXPECT_FALSE(n.notify(Notifier::document(1, true)));
}

TEST(Subscription, RefusedOrNotAnswered) {
    Notifier n;
    ASSERT_TRUE(
        n.pair.a.agent.subscribe(600000, [&](int code, std::string_view) { n.status = code; }));
    n.answer(403);
    EXPECT_EQ(n.status, 403);
    ASSERT_TRUE(n.pair.a.agent.subscribe(60, [&](int code, std::string_view) { n.status = code; }));
    n.answer(423, "Min-Expires: 3600\r\n");
    EXPECT_EQ(n.field(n.pair.a.last_sent("SUBSCRIBE"), sip::HeaderId::expires), "3600");
    n.pair.run(seconds(40));
    EXPECT_EQ(n.status, 0);
}

// F2: the form of the proposal, for which the network's NOTIFYs are of that package.
TEST(Subscription, AsksForTheFormItIsToldTo) {
    Notifier n;
    n.pair.a.reg_profile = sip::RegProfile::seed;
    n.begin();
    std::string s = n.pair.a.last_sent("SUBSCRIBE");
    EXPECT_EQ(n.field(s, sip::HeaderId::event), "registration-state");
    EXPECT_EQ(n.field(s, sip::HeaderId::accept), "application/registration-state+xml");
    EXPECT_TRUE(n.pair.a.agent.unsubscribe({}));
    s = n.pair.a.last_sent("SUBSCRIBE");
    EXPECT_EQ(n.field(s, sip::HeaderId::event), "registration-state");
    EXPECT_EQ(n.field(s, sip::HeaderId::expires), "0");
}

}  // namespace
}  // namespace gmgate::ue
