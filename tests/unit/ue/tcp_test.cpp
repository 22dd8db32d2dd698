#include "ue/tcp.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"

namespace gmgate::ue {
namespace {

// Two ends and a line between them that loses, repeats and reorders, in virtual time.
struct Line {
    struct End final : TcpOwner {
        Line* line = nullptr;
        End* peer = nullptr;
        std::unique_ptr<TcpConnection> tcp;
        std::string received;
        bool established = false, closed = false, reset = false;

        void tcp_output(TcpConnection&, const TcpSegment& s) override { line->carry(*this, s); }
        void tcp_established(TcpConnection&) override { established = true; }
        void tcp_data(TcpConnection&, std::string_view d) override { received += d; }
        void tcp_closed(TcpConnection& c, bool r) override {
            closed = true;
            reset = r;
            if (!r) c.close();
        }
    };
    struct Flight {
        TimePoint at;
        End* to;
        TcpSegment segment;
        Bytes payload;
    };

    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{1};
    End client, server;
    std::vector<Flight> air;
    unsigned loss = 0, repeat = 0, reorder = 0;  // percent
    std::uint64_t carried = 0;
    std::function<bool(const TcpSegment&)> eat;

    explicit Line(std::uint64_t seed = 1) : random(seed) {
        client.line = server.line = this;
        client.peer = &server;
        server.peer = &client;
        client.tcp = make(client, 40001, 6100);
    }
    std::unique_ptr<TcpConnection> make(End& e, std::uint16_t local, std::uint16_t remote) {
        TcpConnection::Options o;
        o.local_port = local;
        o.remote_port = remote;
        o.initial_sequence = random.u32() | 0xFFFFF000U;  // close to the wrap
        o.mss = 1000;
        return std::make_unique<TcpConnection>(wheel, e, o);
    }
    void carry(End& from, const TcpSegment& s) {
        ++carried;
        if (eat && eat(s)) return;
        if (random.below(100) < loss) return;
        const unsigned copies = random.below(100) < repeat ? 2 : 1;
        for (unsigned i = 0; i < copies; ++i) {
            Duration delay = std::chrono::milliseconds(1);
            if (random.below(100) < reorder) delay += std::chrono::milliseconds(random.below(20));
            air.push_back(
                {clock.now() + delay, from.peer, s, Bytes(s.payload.begin(), s.payload.end())});
        }
    }
    void run(Duration total) {
        const TimePoint end = clock.now() + total;
        while (clock.now() < end) {
            clock.advance(std::chrono::milliseconds(1));
            wheel.advance();
            std::vector<Flight> due;
            std::erase_if(air, [&](Flight& f) {
                if (f.at > clock.now()) return false;
                due.push_back(std::move(f));
                return true;
            });
            for (Flight& f : due) {
                f.segment.payload = f.payload;
                deliver(*f.to, f.segment);
            }
        }
    }
    void deliver(End& to, const TcpSegment& s) {
        if (&to == &server && !server.tcp) {
            if (s.flags != tcp_flag::syn) return;
            server.tcp = make(server, 6100, 40001);
            server.tcp->accept(s);
            return;
        }
        if (to.tcp) to.tcp->receive(s);
    }
};

std::string text(std::size_t n, std::uint64_t seed) {
    std::string out(n, ' ');
    SeededRandom r(seed);
    for (char& c : out) c = static_cast<char>('a' + r.below(26));
    return out;
}

TEST(Tcp, HandshakeDataAndClose) {
    Line l;
    l.client.tcp->connect();
    l.client.tcp->send("REGISTER");  // queued before the handshake
    l.run(std::chrono::milliseconds(20));
    EXPECT_TRUE(l.client.established);
    EXPECT_TRUE(l.server.established);
    EXPECT_EQ(l.server.received, "REGISTER");
    l.server.tcp->send("401");
    l.run(std::chrono::milliseconds(20));
    EXPECT_EQ(l.client.received, "401");
    l.client.tcp->close();
    l.run(std::chrono::milliseconds(50));
    EXPECT_TRUE(l.server.closed);
    EXPECT_FALSE(l.server.reset);
    EXPECT_TRUE(l.client.tcp->done());
    EXPECT_TRUE(l.server.tcp->done());
    EXPECT_EQ(l.client.tcp->retransmissions(), 0U);
    EXPECT_EQ(l.wheel.size(), 0U) << "no timer is left behind";
}

class TcpWeather : public ::testing::TestWithParam<int> {};

TEST_P(TcpWeather, EverythingArrivesOnceAndInOrder) {
    Line l(static_cast<std::uint64_t>(GetParam()));
    l.loss = 15;
    l.repeat = 10;
    l.reorder = 30;
    const std::string up = text(60'000, 1), down = text(45'000, 2);
    l.client.tcp->connect();
    l.client.tcp->send(up);
    for (int i = 0; i < 600 && !l.server.tcp; ++i) l.run(std::chrono::milliseconds(100));
    ASSERT_TRUE(l.server.tcp);
    l.server.tcp->send(down);
    for (int i = 0; i < 2000 && (l.server.received.size() < up.size() ||
                                 l.client.received.size() < down.size());
         ++i) {
        l.run(std::chrono::milliseconds(100));
    }
    EXPECT_EQ(l.server.received, up);
    EXPECT_EQ(l.client.received, down);
    l.client.tcp->close();
    for (int i = 0; i < 600 && !(l.client.tcp->done() && l.server.tcp->done()); ++i)
        l.run(std::chrono::milliseconds(100));
    EXPECT_TRUE(l.client.tcp->done());
    EXPECT_TRUE(l.server.tcp->done());
    EXPECT_EQ(l.wheel.size(), 0U);
}
INSTANTIATE_TEST_SUITE_P(Seeds, TcpWeather, ::testing::Range(1, 21));

TEST(Tcp, NobodyThere) {
    Line l;
    l.loss = 100;
    l.client.tcp->connect();
    l.run(std::chrono::seconds(120));
    EXPECT_TRUE(l.client.closed);
    EXPECT_TRUE(l.client.reset);
    EXPECT_EQ(l.client.tcp->state(), TcpConnection::State::closed);
    EXPECT_EQ(l.carried, 1U + TcpConnection::max_retransmissions);
    EXPECT_EQ(l.wheel.size(), 0U);
}

TEST(Tcp, ResetEndsIt) {
    Line l;
    l.client.tcp->connect();
    l.run(std::chrono::milliseconds(10));
    l.server.tcp->abort();
    l.run(std::chrono::milliseconds(10));
    EXPECT_TRUE(l.client.closed);
    EXPECT_TRUE(l.client.reset);
    EXPECT_FALSE(l.server.closed) << "abort does not call back";
}

TEST(Tcp, ResetOutsideTheExactSequenceIsIgnored) {
    Line l;
    l.client.tcp->connect();
    l.run(std::chrono::milliseconds(10));
    TcpSegment s;
    s.flags = tcp_flag::rst;
    s.sequence = l.client.tcp->peer_initial() + 500;
    l.client.tcp->receive(s);
    EXPECT_FALSE(l.client.closed);
}

TEST(Tcp, SynOfAnotherLifeIsNotTakenForAnAnswer) {
    Line l;
    l.loss = 100;
    l.client.tcp->connect();
    TcpSegment s;
    s.flags = tcp_flag::syn | tcp_flag::ack;
    s.sequence = 5;
    s.acknowledgment = 12345;
    l.client.tcp->receive(s);
    EXPECT_EQ(l.client.tcp->state(), TcpConnection::State::syn_sent);
}

TEST(Tcp, LostSegmentComesByDuplicateAcknowledgments) {
    Line l;
    l.client.tcp->connect();
    l.run(std::chrono::milliseconds(10));
    bool eaten = false;
    l.eat = [&](const TcpSegment& s) {
        if (eaten || s.payload.empty()) return false;
        eaten = true;
        return true;
    };
    const std::string data = text(8000, 3);
    l.client.tcp->send(data);
    l.run(std::chrono::milliseconds(50));  // far below the 500 ms of the timer
    EXPECT_TRUE(l.server.received == data) << l.server.received.size();
    EXPECT_EQ(l.client.tcp->retransmissions(), 1U);
}

TEST(Tcp, ClosedWindowIsProbed) {
    Line l;
    l.client.tcp->connect();
    l.run(std::chrono::milliseconds(10));
    TcpSegment s;
    s.flags = tcp_flag::ack;
    s.sequence = l.client.tcp->peer_initial() + 1;
    // What the server acknowledges does not matter here: its window does.
    std::uint32_t una = 0;
    l.eat = [&](const TcpSegment& out) {
        if (out.to_port == 6100) una = out.sequence;
        return true;
    };
    l.client.tcp->send("x");
    s.acknowledgment = una;
    s.window = 0;
    l.client.tcp->receive(s);
    const auto before = l.carried;
    l.client.tcp->send("waiting");
    l.run(std::chrono::seconds(4));
    EXPECT_GT(l.carried, before) << "probes go out";
    l.eat = nullptr;
    l.run(std::chrono::seconds(30));
    EXPECT_EQ(l.server.received, "xwaiting");
}

TEST(Tcp, ReorderQueueIsBounded) {
    Line l;
    l.client.tcp->connect();
    l.run(std::chrono::milliseconds(10));
    const Bytes chunk(1000, 'z');
    TcpSegment s;
    s.flags = tcp_flag::ack;
    s.payload = chunk;
    s.acknowledgment = 0;
    // Pieces with a hole before them, more than the window allows.
    for (std::uint32_t i = 1; i < 500; ++i) {
        s.sequence = l.client.tcp->peer_initial() + 1 + i * 1000;
        l.client.tcp->receive(s);
    }
    EXPECT_TRUE(l.client.received.empty());
    s.sequence = l.client.tcp->peer_initial() + 1;
    l.client.tcp->receive(s);
    EXPECT_LE(l.client.received.size(), TcpConnection::max_reorder + 1000);
    EXPECT_GE(l.client.received.size(), 60'000U);
}

TEST(Tcp, GarbageDoesNothingBad) {
    for (std::uint64_t seed = 1; seed < 30; ++seed) {
        Line l(seed);
        l.client.tcp->connect();
        l.run(std::chrono::milliseconds(10));
        SeededRandom r(seed);
        std::size_t offered = 0;
        for (int i = 0; i < 500; ++i) {
            Bytes payload(r.below(50));
            offered += payload.size();
            TcpSegment s;
            s.flags = static_cast<std::uint8_t>(r.u32()) & 0x1BU;  // no RST
            s.sequence = r.below(2) == 0 ? r.u32()
                                         : l.client.tcp->peer_initial() +
                                               static_cast<std::uint32_t>(r.below(3000));
            s.acknowledgment = r.u32();
            s.window = static_cast<std::uint16_t>(r.u32());
            s.payload = payload;
            l.client.tcp->receive(s);
            l.client.tcp->send("q");
        }
        l.run(std::chrono::seconds(1));
        // What comes out of it at most once is what came in, and whoever is alive still ends.
        EXPECT_LE(l.client.received.size(), offered) << seed;
        l.client.tcp->abort();
        EXPECT_TRUE(l.client.tcp->done()) << seed;
    }
}

}  // namespace
}  // namespace gmgate::ue
