// The subscriber alone, against a core whose answers are written here.

#include "control/regevent/subscriber.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "control/sip/build.h"
#include "control/sip/values.h"

namespace gmgate::regevent {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view user_name = "sip:alice@home.example";

struct Wires final : sip::TransportLayer {
    bool send(const sip::Flow&, std::span<const char> bytes) override {
        sent.emplace_back(bytes.data(), bytes.size());
        return true;
    }
    void close(sip::ConnectionId) override {}
    std::vector<std::string> sent;
};

struct Users final : Host {
    std::string_view identity(UserId) const override { return user_name; }
    sip::Flow flow_to(std::string_view) const override { return flow; }
    std::optional<Duration> on_reginfo(UserId, const sip::RegInfo&, bool) override {
        ++documents;
        return std::nullopt;
    }
    std::optional<Duration> on_overdue(UserId) override { return std::nullopt; }
    void note(UserId, std::string_view, int, bool) override {}
    sip::Flow flow{sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                   *Endpoint::parse("192.0.2.9:5060"), 0};
    unsigned documents = 0;
};

std::string field(const std::string& message, std::string_view name) {
    const auto at = message.find("\r\n" + std::string(name) + ": ");
    if (at == std::string::npos) return {};
    const auto from = at + name.size() + 4;
    return message.substr(from, message.find('\r', from) - from);
}

std::string reginfo(unsigned version, bool full, std::string_view event = "registered") {
    return "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"" +
           std::to_string(version) + "\" state=\"" + (full ? "full" : "partial") +
           "\"><registration aor=\"" + std::string(user_name) +
           "\" id=\"r\" state=\"active\"><contact id=\"c\" state=\"active\" event=\"" +
           std::string(event) +
           "\"><uri>sip:alice@10.0.0.1</uri></contact></registration></reginfo>";
}

class SubscriberTest : public testing::Test {
  protected:
    SubscriberTest() { subscriber.attach(transactions); }

    // Hands each new SUBSCRIBE to `core`, which answers as it likes.
    void pass(Duration by, Duration step = 100ms) {
        for (Duration left = by; left > Duration{}; left -= step) {
            clock.advance(std::min(left, step));
            while (wheel.advance()) {
            }
            for (; read < wires.sent.size(); ++read) {
                const std::string request = wires.sent[read];
                if (!branches.insert(field(request, "Via")).second) continue;
                subscribes.push_back(request);
                times.push_back(clock.now());
                if (core) core(request);
            }
        }
    }
    void answer(const std::string& request, int status, std::string_view more = {}) {
        sip::Message m;
        ASSERT_EQ(m.parse(std::string_view(request)), sip::ParseStatus::ok);
        std::string text;
        sip::ResponseOptions o;
        o.to_tag = "home";
        ASSERT_TRUE(sip::build_response(m, status, o, text));
        text.insert(text.find("Content-Length"), more);
        sip::Message response;
        ASSERT_EQ(response.parse(std::string_view(text)), sip::ParseStatus::ok);
        transactions.receive_response(users.flow, response, text);
    }
    void accept(const std::string& request, unsigned expires = 3600) {
        answer(
            request, 200,
            "Contact: <sip:192.0.2.9:5060;scscf>\r\nExpires: " + std::to_string(expires) + "\r\n");
    }
    // A NOTIFY in the dialog of that SUBSCRIBE; its status.
    int notify(const std::string& request, unsigned cseq, const std::string& body = {},
               std::string_view state = "active;expires=3600") {
        const std::string to = field(request, "To");
        std::string t =
            "NOTIFY sip:192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP "
            "192.0.2.9:5060;branch=z9hG4bKn\r\nMax-Forwards: 70\r\nFrom: " +
            to.substr(0, to.find('>') + 1) + ";tag=home\r\nTo: " + field(request, "From") +
            "\r\nCall-ID: " + field(request, "Call-ID") + "\r\nCSeq: " + std::to_string(cseq) +
            " NOTIFY\r\nContact: <sip:192.0.2.9:5060>\r\nEvent: reg\r\nSubscription-State: " +
            std::string(state) + "\r\n";
        if (!body.empty()) t += "Content-Type: application/reginfo+xml\r\n";
        t += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
        sip::Message m;
        EXPECT_EQ(m.parse(std::string_view(t)), sip::ParseStatus::ok);
        const auto verdict = subscriber.on_notify(m);
        return verdict ? verdict->status : 0;
    }
    static Options options() {
        Options o;
        o.address = "192.0.2.1:5060";
        o.name = "192.0.2.1:5060";
        return o;
    }

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{1};
    metrics::Registry registry;
    Wires wires;
    Users users;
    sip::TransactionLayer transactions{wires, wheel, random, {}, {}};
    Subscriber subscriber{options(), users, wheel, random, registry};
    std::function<void(const std::string&)> core;
    std::size_t read = 0;
    std::set<std::string> branches;
    std::vector<std::string> subscribes;  // retransmissions left out
    std::vector<TimePoint> times;
};

// RFC 6665 4.1.3: these two say that it is not to be asked again.
TEST_F(SubscriberTest, RejectedAndNoResourceAreNotAskedAgain) {
    for (const std::string reason : {"rejected", "noresource"}) {
        SCOPED_TRACE(reason);
        subscribes.clear();
        const SlotId id = subscriber.start(1);
        core = [&](const std::string& s) {
            accept(s);
            EXPECT_EQ(notify(s, 1, {}, "terminated;reason=" + reason), 200);
        };
        pass(3600s);
        EXPECT_EQ(subscribes.size(), 1U);
        EXPECT_EQ(subscriber.state(id), "refused");
        core = [&](const std::string& s) { accept(s); };
        subscriber.renewed(id, std::nullopt);
        pass(1s);
        EXPECT_EQ(subscriber.state(id), "subscribed") << "a registration is a reason to ask";
        subscriber.stop(id, true);
    }
}

TEST_F(SubscriberTest, ATerminatingCoreIsAskedEverLessOften) {
    for (const std::string reason : {"giveup", "probation", "deactivated"}) {
        SCOPED_TRACE(reason);
        subscribes.clear();
        times.clear();
        const SlotId id = subscriber.start(1);
        core = [&](const std::string& s) {
            accept(s);
            EXPECT_EQ(notify(s, 1, reginfo(0, true)), 200);
            EXPECT_EQ(notify(s, 2, {}, "terminated;reason=" + reason), 200);
        };
        pass(3600s);
        EXPECT_GE(subscribes.size(), 6U);
        EXPECT_LE(subscribes.size(), 14U);
        EXPECT_GT(times.back() - times.at(times.size() - 2), 300s);
        subscriber.stop(id, true);
    }
}

TEST_F(SubscriberTest, RetryAfterOfANotifyIsWaitedFor) {
    std::ignore = subscriber.start(1);
    core = [&](const std::string& s) {
        accept(s);
        EXPECT_EQ(notify(s, 1, {}, "terminated;reason=probation;retry-after=1800"), 200);
    };
    pass(1800s);
    EXPECT_EQ(subscribes.size(), 1U);
    pass(700s);
    EXPECT_EQ(subscribes.size(), 2U);
}

TEST_F(SubscriberTest, AGrantOfNothingIsAFailure) {
    const SlotId id = subscriber.start(1);
    core = [&](const std::string& s) { accept(s, 0); };
    pass(3600s);
    EXPECT_GE(subscribes.size(), 6U);
    EXPECT_LE(subscribes.size(), 14U) << "with pauses that grow";
    EXPECT_EQ(subscriber.state(id), "subscribing");
    EXPECT_EQ(subscriber.established(), 0U);
}

TEST_F(SubscriberTest, ATinyGrantCostsASubscribeAMinute) {
    std::ignore = subscriber.start(1);
    core = [&](const std::string& s) { accept(s, 2); };
    pass(600s);
    EXPECT_GE(subscribes.size(), 9U);
    EXPECT_LE(subscribes.size(), 11U);
}

TEST_F(SubscriberTest, ACoreThatNeverFollowsItselfIsAskedEverLessOften) {
    for (const bool before : {false, true}) {
        SCOPED_TRACE(before);
        subscribes.clear();
        times.clear();
        unsigned cseq = 0;
        const SlotId id = subscriber.start(1);
        core = [&](const std::string& s) {
            ++cseq;
            if (before) {
                EXPECT_EQ(notify(s, cseq, reginfo(10 * cseq, false)), 200);
            }
            accept(s);
            if (!before) {
                EXPECT_EQ(notify(s, cseq, reginfo(10 * cseq, false)), 200);
            }
        };
        pass(3600s);
        EXPECT_GE(subscribes.size(), 6U);
        EXPECT_LE(subscribes.size(), 14U);
        // The whole state ends it.
        core = [&](const std::string& s) {
            ++cseq;
            accept(s);
            EXPECT_EQ(notify(s, cseq, reginfo(10 * cseq, true)), 200);
        };
        pass(1300s);
        const auto asked = subscribes.size();
        const auto documents = users.documents;
        EXPECT_EQ(notify(subscribes.back(), cseq + 1, reginfo(10 * cseq + 1, false)), 200);
        EXPECT_EQ(users.documents, documents + 1);
        pass(1000s);
        EXPECT_LE(subscribes.size(), asked + 1) << "the ordinary refresh at most";
        subscriber.stop(id, true);
        pass(40s);
    }
}

TEST_F(SubscriberTest, SeveralDocumentsBehindAGapAskOnce) {
    std::ignore = subscriber.start(1);
    core = [&](const std::string& s) { accept(s); };
    pass(1s);
    ASSERT_EQ(subscribes.size(), 1U);
    EXPECT_EQ(notify(subscribes[0], 1, reginfo(0, true)), 200);
    for (unsigned v = 2; v < 8; ++v) {
        EXPECT_EQ(notify(subscribes[0], v, reginfo(v, false)), 200);
        pass(1s);
    }
    pass(2s);
    ASSERT_EQ(subscribes.size(), 2U) << "neither for each nor put off by each";
    EXPECT_EQ(notify(subscribes[0], 8, reginfo(8, true)), 200);
    pass(600s);
    EXPECT_EQ(subscribes.size(), 2U);
}

// A refresh under way when the core ends the dialog: its answer is the old dialog's.
TEST_F(SubscriberTest, TheAnswerToASubscribeOfADialogThatEndedIsNotObeyed) {
    const SlotId id = subscriber.start(1);
    core = [&](const std::string& s) { accept(s, 1000); };
    pass(1s);
    EXPECT_EQ(notify(subscribes.at(0), 1, reginfo(0, true)), 200);
    core = nullptr;
    pass(500s);
    ASSERT_EQ(subscribes.size(), 2U);
    const std::string refresh = subscribes[1];
    EXPECT_EQ(notify(refresh, 2, {}, "terminated;reason=deactivated"), 200);
    accept(refresh, 1000);
    EXPECT_EQ(subscriber.established(), 0U);
    EXPECT_EQ(subscriber.state(id), "subscribing");
    core = [&](const std::string& s) { accept(s, 1000); };
    pass(10s);
    ASSERT_EQ(subscribes.size(), 3U);
    EXPECT_NE(field(subscribes[2], "Call-ID"), field(refresh, "Call-ID"));
    EXPECT_EQ(field(subscribes[2], "To").find("tag="), std::string::npos) << "a new dialog";
    EXPECT_EQ(subscriber.state(id), "subscribed");
    pass(10s);
    EXPECT_EQ(transactions.client_count(), 0U) << "after Timer K";
}

// The NOTIFY overtakes an answer that is no 2xx, or never comes.
TEST_F(SubscriberTest, AnEarlyNotifyDoesNotMakeADialog) {
    for (const int status : {0, 500, 423, 481}) {
        SCOPED_TRACE(status);
        subscribes.clear();
        const SlotId id = subscriber.start(1);
        core = [&](const std::string& s) {
            EXPECT_EQ(notify(s, 1, reginfo(0, true)), 200);
            if (status != 0) answer(s, status, "Min-Expires: 700000\r\n");
        };
        pass(10ms, 10ms);
        ASSERT_EQ(subscribes.size(), 1U);
        if (status == 481) {
            pass(3s);
            ASSERT_EQ(subscribes.size(), 1U) << "a pause";
        }
        core = [&](const std::string& s) {
            accept(s);
            EXPECT_EQ(notify(s, 1, reginfo(0, true)), 200);
        };
        pass(60s);
        ASSERT_EQ(subscribes.size(), 2U);
        EXPECT_TRUE(subscribes[1].starts_with("SUBSCRIBE sip:alice@home.example SIP/2.0"));
        EXPECT_EQ(field(subscribes[1], "To").find("tag="), std::string::npos);
        EXPECT_EQ(subscriber.state(id), "subscribed");
        subscriber.stop(id, true);
        pass(40s);
    }
}

TEST_F(SubscriberTest, ThePackageIsTriedByOneAndThenByTheOthersInTurn) {
    constexpr unsigned users_count = 200;
    testing::internal::CaptureStderr();
    core = [&](const std::string& s) { answer(s, 489); };
    std::ignore = subscriber.start(1);
    pass(1s);
    for (unsigned i = 0; i < users_count; ++i) std::ignore = subscriber.start(2 + i);
    core = nullptr;  // the one that tries is not answered
    pass(598s);
    EXPECT_EQ(subscribes.size(), 1U);
    std::size_t first = subscribes.size();
    while (subscribes.size() == first) pass(1s);
    pass(20s);
    EXPECT_EQ(subscribes.size(), 2U) << "one tries";
    answer(subscribes[1], 489);
    core = [&](const std::string& s) { accept(s); };
    pass(590s);
    EXPECT_EQ(subscribes.size(), 2U) << "in vain: all wait again";
    testing::internal::GetCapturedStderr();
    times.clear();
    pass(300s);
    EXPECT_EQ(subscriber.established(), users_count - 1);
    std::size_t most = 0;
    for (std::size_t i = 0, j = 0; j < times.size(); ++j) {
        while (times[j] - times[i] > 1s) ++i;
        most = std::max(most, j - i + 1);
    }
    EXPECT_LE(most, users_count / 10) << "of all within one second";
}

TEST_F(SubscriberTest, WhatOneUsersCoreTellsIsNotExpectedOfAnothers) {
    core = [&](const std::string& s) {
        accept(s);
        // The whole state names the last event, whenever that was.
        EXPECT_EQ(notify(s, 1, reginfo(0, true, "refreshed")), 200);
    };
    const SlotId a = subscriber.start(1);
    const SlotId b = subscriber.start(2);
    pass(1s);
    ASSERT_EQ(subscribes.size(), 2U);
    subscriber.renewed(a, std::nullopt);
    subscriber.renewed(b, std::nullopt);
    pass(60s);
    EXPECT_EQ(subscribes.size(), 2U) << "nothing was told without being asked";
    EXPECT_EQ(notify(subscribes[0], 2, reginfo(1, false, "refreshed")), 200);
    subscriber.renewed(a, std::nullopt);
    subscriber.renewed(b, std::nullopt);
    core = [&](const std::string& s) { accept(s); };
    pass(60s);
    ASSERT_EQ(subscribes.size(), 3U) << "the one that was told before and is not now";
    EXPECT_EQ(field(subscribes[2], "Call-ID"), field(subscribes[0], "Call-ID"));
}

// A lost packet layer, or the end of many registrations at once: the core is told of a few hundred
// a second.
TEST_F(SubscriberTest, ManyEndsAreToldOneAfterTheOther) {
    core = [this](const std::string& request) {
        if (field(request, "Expires") == "0") return answer(request, 200);
        accept(request);
    };
    std::vector<SlotId> ids;
    for (UserId u = 1; u <= 1000; ++u) ids.push_back(subscriber.start(u));
    pass(1s);
    ASSERT_EQ(subscriber.established(), 1000U);
    subscribes.clear();
    for (const SlotId id : ids) subscriber.stop(id, false);
    pass(1ms, 1ms);
    EXPECT_EQ(subscribes.size(), 1U) << "the first at once";
    pass(999ms);
    EXPECT_NEAR(static_cast<double>(subscribes.size()), 200, 2);
    pass(4s);
    EXPECT_EQ(subscribes.size(), 1000U);
    for (const auto& s : subscribes) EXPECT_EQ(field(s, "Expires"), "0");
    pass(33s);
    EXPECT_EQ(subscriber.size(), 0U);
    EXPECT_EQ(transactions.client_count(), 0U);
    EXPECT_EQ(wheel.size(), 0U);
}

// What the core ends by itself before its turn comes is not told.
TEST_F(SubscriberTest, AnEndThatTheCoreFindsOutItselfIsNotTold) {
    core = [this](const std::string& request) { accept(request, 120); };
    std::vector<SlotId> ids;
    for (UserId u = 1; u <= 40'000; ++u) ids.push_back(subscriber.start(u));
    pass(100ms);
    ASSERT_EQ(subscriber.established(), 40'000U);
    const std::size_t before = subscribes.size();
    for (const SlotId id : ids) subscriber.stop(id, false);
    pass(300s);
    EXPECT_GT(subscribes.size() - before, 23'900U);
    EXPECT_LE(subscribes.size() - before, 24'000U) << "200 a second until the grants are over";
    EXPECT_EQ(subscriber.size(), 0U);
}

TEST_F(SubscriberTest, MinExpiresCountsAfterOtherFailures) {
    unsigned asked = 0;
    core = [&](const std::string& request) {
        if (++asked == 1) return answer(request, 503);
        if (field(request, "Expires") != "700000")
            return answer(request, 423, "Min-Expires: 700000\r\n");
        accept(request, 700'000);
    };
    (void)subscriber.start(1);
    pass(60s);
    ASSERT_EQ(subscribes.size(), 3U);
    EXPECT_EQ(field(subscribes[2], "Expires"), "700000");
    EXPECT_EQ(subscriber.established(), 1U);
}

// Each 423 asks for one second more.
TEST_F(SubscriberTest, AnEverGrowingMinExpiresIsFollowedWithPauses) {
    core = [&](const std::string& request) {
        answer(
            request, 423,
            "Min-Expires: " + std::to_string(std::stoul(field(request, "Expires")) + 1) + "\r\n");
    };
    (void)subscriber.start(1);
    pass(300s);
    EXPECT_GE(subscribes.size(), 4U);
    EXPECT_LE(subscribes.size(), 10U);
}

TEST_F(SubscriberTest, TheFirstCSeqMayBeZero) {
    core = [&](const std::string& s) { accept(s); };
    std::ignore = subscriber.start(1);
    pass(1s);
    EXPECT_EQ(notify(subscribes.at(0), 0, reginfo(0, true)), 200);
    EXPECT_EQ(notify(subscribes.at(0), 0, reginfo(1, true)), 500);
    EXPECT_EQ(notify(subscribes.at(0), 1, reginfo(1, true)), 200);
    EXPECT_EQ(users.documents, 2U);
}

}  // namespace
}  // namespace gmgate::regevent
