#include "control/sip/transaction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "control/sip/transaction_key.h"
#include "control/sip/values.h"

namespace gmgate::sip {
namespace {

using namespace std::chrono_literals;

struct FakeTransport final : TransportLayer {
    struct Sent {
        Flow flow;
        std::string bytes;
    };
    bool send(const Flow& flow, std::span<const char> bytes) override {
        if (refuse) return false;
        sent.push_back({flow, std::string(bytes.data(), bytes.size())});
        return true;
    }
    void close(ConnectionId) override {}
    std::vector<Sent> sent;
    bool refuse = false;
};

struct Recorder final : TransactionUser {
    void on_response(ClientTransactionId id, std::uint64_t context, const Flow&,
                     const Message& response, std::span<char>) override {
        codes.push_back(response.status_code());
        last_id = id;
        last_context = context;
    }
    void on_failure(ClientTransactionId, std::uint64_t context, ClientFailure failure) override {
        failures.push_back(failure);
        last_context = context;
    }
    std::vector<int> codes;
    std::vector<ClientFailure> failures;
    ClientTransactionId last_id = 0;
    std::uint64_t last_context = 0;
};

class TransactionTest : public testing::Test {
  protected:
    void pass(Duration by) {
        clock.advance(by);
        while (wheel.advance()) {
        }
    }
    static std::string request(std::string_view method, std::string_view branch,
                               std::string_view cseq_method = {}) {
        if (cseq_method.empty()) cseq_method = method;
        std::string m;
        m.append(method)
            .append(" sip:home.example SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=")
            .append(branch);
        m.append(
            "\r\nMax-Forwards: 70\r\nFrom: <sip:a@home.example>;tag=1\r\nTo: "
            "<sip:a@home.example>\r\nCall-ID: x@y\r\nCSeq: 7 ");
        m.append(cseq_method).append("\r\nRoute: <sip:r.example;lr>\r\nContent-Length: 0\r\n\r\n");
        return m;
    }
    static std::string response(int code, std::string_view branch, std::string_view method) {
        std::string m =
            "SIP/2.0 " + std::to_string(code) + " X\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=";
        m.append(branch).append(
            "\r\nFrom: <sip:a@home.example>;tag=1\r\nTo: <sip:a@home.example>;tag=2\r\nCall-ID: "
            "x@y\r\nCSeq: 7 ");
        m.append(method).append("\r\nContent-Length: 0\r\n\r\n");
        return m;
    }
    TransactionLayer::Received receive(std::string text) {
        Message m;
        EXPECT_EQ(m.parse(std::string_view(text)), ParseStatus::ok);
        return layer.receive_request(ue, ue, m);
    }
    TransactionLayer::Match answer(std::string text) {
        Message m;
        EXPECT_EQ(m.parse(std::string_view(text)), ParseStatus::ok);
        return layer.receive_response(core, m, text);
    }

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{1};
    FakeTransport transport;
    Recorder user;
    TransactionLayer layer{transport, wheel, random, {}, {.server = 4, .client = 4}};
    Flow ue{Transport::udp, *Endpoint::parse("10.0.0.254:5060"), *Endpoint::parse("10.0.0.1:5060"),
            0};
    Flow core{Transport::udp, *Endpoint::parse("10.30.0.1:5060"),
              *Endpoint::parse("10.30.0.2:5060"), 0};
};

TEST_F(TransactionTest, ARetransmissionGetsTheLastResponseAgain) {
    const auto first = receive(request("REGISTER", "z9hG4bKone"));
    ASSERT_EQ(first.arrival, TransactionLayer::Arrival::fresh);
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival,
              TransactionLayer::Arrival::retransmission);
    EXPECT_TRUE(transport.sent.empty());
    ASSERT_TRUE(layer.respond(first.id, 401, std::string_view("answer")));
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival,
              TransactionLayer::Arrival::retransmission);
    ASSERT_EQ(transport.sent.size(), 2U);
    EXPECT_EQ(transport.sent[1].bytes, "answer");
    pass(33s);  // timer J
    EXPECT_EQ(layer.server_count(), 0U);
    EXPECT_FALSE(layer.respond(first.id, 200, std::string_view("late")));
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival, TransactionLayer::Arrival::fresh);
}

TEST_F(TransactionTest, AnotherSourceOrPortIsAnotherTransaction) {
    ASSERT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival, TransactionLayer::Arrival::fresh);
    const Flow before = ue;
    ue.remote = *Endpoint::parse("10.0.0.2:5060");
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival, TransactionLayer::Arrival::fresh);
    ue = before;
    ue.local.port = 6100;
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bKone")).arrival, TransactionLayer::Arrival::fresh);
}

// S3: what strangers may not use up is there for the others, and comes back to them when it is
// free.
TEST_F(TransactionTest, StrangersGetHalfOfTheTable) {
    constexpr auto stranger = TransactionLayer::Party::stranger;
    const auto from_stranger = [&](std::string_view branch) {
        const std::string text = request("REGISTER", branch);
        Message m;
        EXPECT_EQ(m.parse(std::string_view(text)), ParseStatus::ok);
        return layer.receive_request(ue, ue, m, stranger).arrival;
    };
    EXPECT_EQ(from_stranger("z9hG4bK1"), TransactionLayer::Arrival::fresh);
    EXPECT_EQ(from_stranger("z9hG4bK2"), TransactionLayer::Arrival::fresh);
    EXPECT_EQ(from_stranger("z9hG4bK3"), TransactionLayer::Arrival::refused);
    EXPECT_EQ(from_stranger("z9hG4bK1"), TransactionLayer::Arrival::retransmission);
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bK4")).arrival, TransactionLayer::Arrival::fresh);
    const auto kept = receive(request("REGISTER", "z9hG4bK5"));
    EXPECT_EQ(kept.arrival, TransactionLayer::Arrival::fresh);
    EXPECT_EQ(receive(request("REGISTER", "z9hG4bK6")).arrival, TransactionLayer::Arrival::refused);
    layer.forget(kept.id);
    EXPECT_EQ(from_stranger("z9hG4bK7"), TransactionLayer::Arrival::refused) << "not theirs";
    for (int i = 0; i < 2; ++i) EXPECT_NE(layer.new_branch(stranger).id, 0U);
    EXPECT_EQ(layer.new_branch(stranger).id, 0U);
    const auto mine = layer.new_branch();
    EXPECT_NE(mine.id, 0U);
    layer.abandon(mine.id);
    EXPECT_EQ(layer.new_branch(stranger).id, 0U);
    pass(200s);
    EXPECT_EQ(from_stranger("z9hG4bK8"), TransactionLayer::Arrival::fresh);
    EXPECT_NE(layer.new_branch(stranger).id, 0U);
}

TEST_F(TransactionTest, ABranchCarriesItsLoopMark) {
    const auto plain = layer.new_branch();
    EXPECT_FALSE(TransactionLayer::loop_mark_of(plain.view()));
    const auto b = layer.new_branch(TransactionLayer::Party::known, 0x0123456789abcdefU);
    EXPECT_EQ(TransactionLayer::loop_mark_of(b.view()), 0x0123456789abcdefU);
    std::string other(b.view());
    other[0] = 'x';
    EXPECT_FALSE(TransactionLayer::loop_mark_of(other));
    other = b.view();
    other.back() = '-';
    EXPECT_FALSE(TransactionLayer::loop_mark_of(other));
    // And finds its transaction like any other.
    ASSERT_TRUE(layer.send_request(b, core, "MESSAGE", std::string_view("x"), user, 7));
    EXPECT_EQ(answer(response(200, b.view(), "MESSAGE")), TransactionLayer::Match::delivered);
}

TEST_F(TransactionTest, AFullTableRefusesAndNeverEvicts) {
    for (const char* b : {"z9hG4bK1", "z9hG4bK2", "z9hG4bK3", "z9hG4bK4"}) {
        ASSERT_EQ(receive(request("OPTIONS", b)).arrival, TransactionLayer::Arrival::fresh);
    }
    EXPECT_EQ(receive(request("OPTIONS", "z9hG4bK5")).arrival, TransactionLayer::Arrival::refused);
    EXPECT_EQ(receive(request("OPTIONS", "z9hG4bK1")).arrival,
              TransactionLayer::Arrival::retransmission);
    for (int i = 0; i < 4; ++i) ASSERT_NE(layer.new_branch().id, 0U);
    EXPECT_EQ(layer.new_branch().id, 0U);
    pass(200s);
    EXPECT_EQ(layer.server_count(), 0U);
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(TransactionTest, PeersWithoutTheCookieAreToldApartByTheirHeaders) {
    ASSERT_EQ(receive(request("REGISTER", "old")).arrival, TransactionLayer::Arrival::fresh);
    EXPECT_EQ(receive(request("REGISTER", "old")).arrival,
              TransactionLayer::Arrival::retransmission);
    EXPECT_EQ(receive(request("OPTIONS", "old")).arrival, TransactionLayer::Arrival::fresh);
}

TEST_F(TransactionTest, ARequestIsSentAgainWithTimerEAndFailsWithTimerF) {
    const auto b = layer.new_branch();
    ASSERT_EQ(b.view().size(), 34U);
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), user, 42));
    EXPECT_EQ(transport.sent.size(), 1U);
    pass(500ms);
    EXPECT_EQ(transport.sent.size(), 2U);
    pass(1s);
    EXPECT_EQ(transport.sent.size(), 3U);
    pass(2s);
    pass(4s);
    pass(4s);
    EXPECT_EQ(transport.sent.size(), 6U);
    EXPECT_TRUE(user.failures.empty());
    pass(32s);
    ASSERT_EQ(user.failures.size(), 1U);
    EXPECT_EQ(user.failures[0], ClientFailure::timeout);
    EXPECT_EQ(user.last_context, 42U);
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(TransactionTest, OneFinalResponseIsDeliveredAndItsRepetitionsAbsorbed) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), user, 1));
    EXPECT_EQ(answer(response(100, b.view(), "REGISTER")), TransactionLayer::Match::delivered);
    EXPECT_EQ(answer(response(200, b.view(), "REGISTER")), TransactionLayer::Match::delivered);
    EXPECT_EQ(answer(response(200, b.view(), "REGISTER")), TransactionLayer::Match::absorbed);
    EXPECT_EQ(user.codes, (std::vector<int>{100, 200}));
    const auto count = transport.sent.size();
    pass(6s);
    EXPECT_EQ(transport.sent.size(), count);
    EXPECT_EQ(layer.client_count(), 0U);
    EXPECT_EQ(answer(response(200, b.view(), "REGISTER")), TransactionLayer::Match::unknown);
}

TEST_F(TransactionTest, AForgedBranchOrAnotherMethodMatchesNothing) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), user, 1));
    std::string forged(b.view());
    forged.back() = forged.back() == '0' ? '1' : '0';
    EXPECT_EQ(answer(response(200, forged, "REGISTER")), TransactionLayer::Match::unknown);
    EXPECT_EQ(answer(response(200, b.view(), "OPTIONS")), TransactionLayer::Match::unknown);
    EXPECT_EQ(answer(response(200, "z9hG4bKgffffffff000000000000000000", "REGISTER")),
              TransactionLayer::Match::unknown);
    EXPECT_TRUE(user.codes.empty());
    // A branch that was reserved and not used is not a transaction.
    const auto unused = layer.new_branch();
    EXPECT_EQ(answer(response(200, unused.view(), "REGISTER")), TransactionLayer::Match::unknown);
}

TEST_F(TransactionTest, AnAbandonedTransactionReportsNothing) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), user, 1));
    layer.abandon(b.id);
    EXPECT_EQ(answer(response(200, b.view(), "REGISTER")), TransactionLayer::Match::absorbed);
    const auto never = layer.new_branch();
    layer.abandon(never.id);
    pass(40s);
    EXPECT_TRUE(user.codes.empty());
    EXPECT_TRUE(user.failures.empty());
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(TransactionTest, ATransportThatRefusesReleasesTheBranch) {
    const auto b = layer.new_branch();
    transport.refuse = true;
    EXPECT_FALSE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), user, 1));
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(TransactionTest, ALostConnectionFailsTheRequestsThatWaitOnIt) {
    Flow tcp = core;
    tcp.transport = Transport::tcp;
    tcp.local.port = 0;
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, tcp, "REGISTER", request("REGISTER", b.view()), user, 1));
    Flow closed = tcp;
    closed.local.port = 40000;
    closed.connection = 9;
    layer.connection_closed(closed);
    ASSERT_EQ(user.failures.size(), 1U);
    EXPECT_EQ(user.failures[0], ClientFailure::transport);
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(TransactionTest, AnInviteRefusedIsAcknowledgedHopByHop) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "INVITE", request("INVITE", b.view()), user, 1));
    EXPECT_EQ(answer(response(486, b.view(), "INVITE")), TransactionLayer::Match::delivered);
    ASSERT_EQ(transport.sent.size(), 2U);
    Message ack;
    ASSERT_EQ(ack.parse(std::string_view(transport.sent[1].bytes)), ParseStatus::ok);
    EXPECT_EQ(ack.method(), "ACK");
    EXPECT_EQ(ack.value(HeaderId::cseq).value_or(""), "7 ACK");
    EXPECT_EQ(ack.value(HeaderId::to).value_or(""), "<sip:a@home.example>;tag=2");
    EXPECT_EQ(ack.value(HeaderId::route).value_or(""), "<sip:r.example;lr>");
    EXPECT_EQ(answer(response(486, b.view(), "INVITE")), TransactionLayer::Match::absorbed);
    EXPECT_EQ(transport.sent.size(), 3U);
}

TEST_F(TransactionTest, AnInviteServerRepeatsItsRefusalUntilTheAck) {
    const auto r = receive(request("INVITE", "z9hG4bKinv"));
    ASSERT_TRUE(layer.respond(r.id, 486, std::string_view("busy")));
    pass(500ms);
    pass(1s);
    EXPECT_EQ(transport.sent.size(), 3U);
    EXPECT_EQ(receive(request("ACK", "z9hG4bKinv")).arrival, TransactionLayer::Arrival::ack);
    pass(10s);
    EXPECT_EQ(transport.sent.size(), 3U);
    EXPECT_EQ(layer.server_count(), 0U);
}

// A call that says now and then that it rings can be answered after any time; a silent one goes.
TEST_F(TransactionTest, AnInviteThatRingsIsNotForgotten) {
    const auto r = receive(request("INVITE", "z9hG4bKinv"));
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "INVITE", request("INVITE", b.view()), user, 1));
    for (int i = 0; i < 10; ++i) {
        pass(200s);
        if (i == 0) {
            EXPECT_EQ(layer.client_count(), 0U) << "timer B: nobody answered at all";
        }
        ASSERT_TRUE(layer.respond(r.id, 180, std::string_view("ringing"))) << i;
    }
    const auto again = layer.new_branch();
    ASSERT_TRUE(
        layer.send_request(again, core, "INVITE", request("INVITE", again.view()), user, 1));
    for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(answer(response(180, again.view(), "INVITE")),
                  TransactionLayer::Match::delivered);
        pass(200s);
    }
    EXPECT_EQ(layer.client_count(), 1U);
    pass(400s);
    EXPECT_EQ(layer.client_count(), 0U);
    EXPECT_EQ(layer.server_count(), 0U);
}

TEST_F(TransactionTest, TheAckOfA2xxIsForwardedStatelessly) {
    const auto r = receive(request("INVITE", "z9hG4bKinv"));
    ASSERT_TRUE(layer.respond(r.id, 200, std::string_view("ok")));
    EXPECT_EQ(receive(request("INVITE", "z9hG4bKinv")).arrival,
              TransactionLayer::Arrival::retransmission);
    EXPECT_EQ(transport.sent.size(), 1U);  // RFC 6026: the 2xx is repeated by the far end
    EXPECT_EQ(receive(request("ACK", "z9hG4bKother", "ACK")).arrival,
              TransactionLayer::Arrival::stateless);
}

// A connection may be stale for hours and tells so only when it is used: once more, on a new one.
TEST_F(TransactionTest, AStaleConnectionIsReplacedOnce) {
    Flow tcp = ue;
    tcp.transport = Transport::tcp;
    Flow closed = tcp;
    closed.connection = 9;
    for (const bool established : {true, false}) {
        transport.sent.clear();
        user.failures.clear();
        const auto b = layer.new_branch();
        ASSERT_TRUE(layer.send_request(b, tcp, "MESSAGE", request("MESSAGE", b.view()), user, 1));
        layer.connection_closed(closed, established);
        if (established) {
            EXPECT_TRUE(user.failures.empty());
            ASSERT_EQ(transport.sent.size(), 2U);
            EXPECT_EQ(transport.sent[1].bytes, transport.sent[0].bytes);
            EXPECT_EQ(transport.sent[1].flow.connection, 0U);
            layer.connection_closed(closed, true);
        }
        EXPECT_EQ(user.failures.size(), 1U) << "once, and none that could not be made";
        EXPECT_EQ(transport.sent.size(), established ? 2U : 1U);
    }
    // What was heard of is not sent twice.
    user.failures.clear();
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, tcp, "MESSAGE", request("MESSAGE", b.view()), user, 1));
    (void)answer(response(100, b.view(), "MESSAGE"));
    layer.connection_closed(closed, true);
    EXPECT_EQ(user.failures.size(), 1U);
}

// ---- other destinations (RFC 3263 4.3) ----

struct Elsewhere final : Destinations {
    void heard(const Flow& flow, int status, std::optional<std::uint32_t> after) override {
        said.push_back(std::to_string(status) + "@" + flow.remote.to_string() +
                       (after ? ";" + std::to_string(*after) : ""));
    }
    void lost(const Flow& flow, ClientFailure why) override {
        said.push_back(std::string(why == ClientFailure::timeout ? "timeout@" : "transport@") +
                       flow.remote.to_string());
    }
    std::optional<Other> another(std::span<const Endpoint> tried) override {
        for (const Other& o : others) {
            if (std::ranges::find(tried, o.flow.remote) == tried.end()) return o;
        }
        return std::nullopt;
    }
    std::vector<Other> others;
    std::vector<std::string> said;
};
struct Mover final : TransactionUser {
    void on_response(ClientTransactionId, std::uint64_t, const Flow&, const Message& response,
                     std::span<char>) override {
        codes.push_back(response.status_code());
    }
    void on_failure(ClientTransactionId, std::uint64_t, ClientFailure f) override {
        failures.push_back(f);
    }
    bool may_move(std::uint64_t context) const override { return context == 1; }
    void on_moved(ClientTransactionId, std::uint64_t, const Flow& flow, std::string_view) override {
        moved.push_back(flow.remote.to_string());
    }
    std::vector<int> codes;
    std::vector<ClientFailure> failures;
    std::vector<std::string> moved;
};
class MovingTest : public TransactionTest {
  protected:
    void SetUp() override {
        layer.use(elsewhere);
        Flow second = core;
        second.remote = *Endpoint::parse("10.30.0.3:5060");
        Flow third = core;
        third.transport = Transport::tcp;
        third.remote = *Endpoint::parse("[fd00::3]:5062");
        elsewhere.others = {{second, "10.30.0.1:5060"}, {third, "[fd00::1]:5060"}};
    }
    std::string sent_branch(std::size_t n) {
        sent.parse(std::string_view(transport.sent.at(n).bytes));
        return std::string(top_via(sent)->branch);
    }
    Elsewhere elsewhere;
    Mover mover;
    Message sent;
};

TEST_F(MovingTest, WhoDoesNotAnswerIsPassedOver) {
    const auto b = layer.new_branch(TransactionLayer::Party::known, 0x1234);
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), mover, 1));
    pass(32s);
    ASSERT_EQ(mover.moved, std::vector<std::string>{"10.30.0.3:5060"});
    EXPECT_EQ(elsewhere.said, std::vector<std::string>{"timeout@10.30.0.2:5060"});
    const auto again = sent_branch(transport.sent.size() - 1);
    EXPECT_NE(again, b.view());
    EXPECT_EQ(TransactionLayer::loop_mark_of(again), 0x1234U);
    // What the first still says is not taken for the second's.
    EXPECT_EQ(answer(response(200, b.view(), "REGISTER")), TransactionLayer::Match::unknown);
    EXPECT_EQ(answer(response(200, again, "REGISTER")), TransactionLayer::Match::delivered);
    EXPECT_EQ(mover.codes, std::vector<int>{200});
    EXPECT_TRUE(mover.failures.empty());
}

TEST_F(MovingTest, ATransportThatRefusesAndOneThatClosesAndTheEnd) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), mover, 1));
    pass(32s);
    const std::size_t before = transport.sent.size();
    pass(20s);
    ASSERT_EQ(mover.moved.size(), 2U);
    // The Via tells the other transport and our address there; a stream needs a Content-Length.
    ASSERT_GT(transport.sent.size(), before);
    const std::string& over_tcp = transport.sent.back().bytes;
    EXPECT_NE(over_tcp.find("Via: SIP/2.0/TCP [fd00::1]:5060;branch="), std::string::npos);
    Flow closed = elsewhere.others[1].flow;
    closed.connection = 4;
    layer.connection_closed(closed);
    EXPECT_EQ(mover.failures.size(), 1U);
    EXPECT_EQ(layer.client_count(), 0U);

    // None takes it: told at once, as without others.
    transport.refuse = true;
    const auto c = layer.new_branch();
    EXPECT_FALSE(layer.send_request(c, core, "REGISTER", request("REGISTER", c.view()), mover, 1));
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(MovingTest, A503IsAcknowledgedAndTheNextAsked) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "INVITE", request("INVITE", b.view()), mover, 1));
    std::string busy = response(503, b.view(), "INVITE");
    busy.insert(busy.find("Content-Length"), "Retry-After: 17 (maintenance)\r\n");
    EXPECT_EQ(answer(busy), TransactionLayer::Match::absorbed);
    EXPECT_TRUE(mover.codes.empty());
    EXPECT_EQ(elsewhere.said, std::vector<std::string>{"503@10.30.0.2:5060;17"});
    ASSERT_EQ(transport.sent.size(), 3U);
    EXPECT_EQ(transport.sent[1].flow.remote.to_string(), "10.30.0.3:5060");
    EXPECT_TRUE(transport.sent[2].bytes.starts_with("ACK "));
    EXPECT_EQ(transport.sent[2].flow.remote, core.remote);
    EXPECT_NE(transport.sent[2].bytes.find(b.view()), std::string::npos);
    // The last of them says 503, too: that is the answer.
    elsewhere.others.clear();
    EXPECT_EQ(answer(response(503, sent_branch(1), "INVITE")), TransactionLayer::Match::delivered);
    EXPECT_EQ(mover.codes, std::vector<int>{503});
}

// Who asked must hear how it ended, and its server transaction lives for 128·T1.
TEST_F(MovingTest, AllOfThemTogetherAreGivenUpInTime) {
    for (unsigned i = 4; i < 16; ++i) {
        Flow more = core;
        more.remote = *Endpoint::parse("10.30.0." + std::to_string(i) + ":5060");
        elsewhere.others.push_back({more, "10.30.0.1:5060"});
    }
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "REGISTER", request("REGISTER", b.view()), mover, 1));
    for (int i = 0; i < 60; ++i) pass(1s);
    EXPECT_EQ(mover.failures.size(), 1U);
    EXPECT_GE(mover.moved.size(), 1U);
    EXPECT_EQ(layer.client_count(), 0U);
}

TEST_F(MovingTest, OnlyWhatMayMoveMoves) {
    const auto b = layer.new_branch();
    ASSERT_TRUE(layer.send_request(b, core, "BYE", request("BYE", b.view()), mover, 2));
    pass(32s);
    EXPECT_TRUE(mover.moved.empty());
    EXPECT_EQ(mover.failures.size(), 1U);
}

}  // namespace
}  // namespace gmgate::sip
