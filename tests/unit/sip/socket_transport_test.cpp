#include "control/sip/socket_transport.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "control/sip/udp_sockets.h"

namespace gmgate::sip {
namespace {

using namespace std::chrono_literals;

const std::string options_message =
    "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\nCall-ID: 1\r\nCSeq: "
    "1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

struct Sink final : MessageSink {
    void on_message(const Flow& flow, std::span<char> bytes) override {
        messages.emplace_back(flow, std::string(bytes.data(), bytes.size()));
        if (handler) handler();
    }
    void on_framing_error(const Flow& flow, ParseStatus why, std::span<char> held) override {
        last_broken = flow;
        errors.emplace_back(text(why));
        held_at_error.emplace_back(held.data(), held.size());
        if (on_broken) on_broken();
        if (handler) handler();
    }
    void on_connection_closed(const Flow& flow, bool established) override {
        closed.emplace_back(flow, established);
        if (handler) handler();
    }
    std::vector<std::pair<Flow, std::string>> messages;
    std::vector<std::string> errors;
    std::vector<std::string> held_at_error;
    Flow last_broken;
    std::function<void()> on_broken;
    std::vector<std::pair<Flow, bool>> closed;
    std::function<void()> handler;
};

// A port the kernel says is free now.
Endpoint free_endpoint(int type, const char* address) {
    UniqueFd fd(
        socket(std::string_view(address).find(':') == std::string_view::npos ? AF_INET : AF_INET6,
               type, 0));
    sockaddr_storage sa{};
    socklen_t length = Endpoint::parse(address)->to_sockaddr(sa);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
    length = sizeof sa;
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&sa), &length);
    return Endpoint::from_sockaddr(sa);
}

class SocketTransportTest : public testing::Test {
  protected:
    // Runs the loop until `done`, at most ten seconds: the bound only ends a broken test.
    bool run_until(const std::function<bool()>& done) {
        Timer guard;
        bool expired = false;
        struct Context {
            bool* expired;
            EventLoop* loop;
        } context{&expired, &loop};
        guard.bind(
            [](void* p) {
                auto* c = static_cast<Context*>(p);
                *c->expired = true;
                c->loop->stop();
            },
            &context);
        if (done()) return true;
        sink.handler = [&] {
            if (done()) loop.stop();
        };
        loop.timers().start(guard, 120s);  // what never comes; no measure of speed
        loop.run();
        sink.handler = {};
        return !expired || done();
    }
    SystemClock clock;
    EventLoop loop{clock};
    Sink sink;
    metrics::Registry registry;
};

TEST_F(SocketTransportTest, UdpGoesBothWaysInBothFamilies) {
    for (const char* address : {"127.0.0.1", "::1"}) {
        sink.messages.clear();
        SocketTransport transport(loop, sink, {}, registry, "test");
        const Endpoint a = free_endpoint(SOCK_DGRAM, address);
        ASSERT_TRUE(transport.add_udp(a)) << address;
        const Endpoint b = free_endpoint(SOCK_DGRAM, address);
        ASSERT_TRUE(transport.add_udp(b));
        for (int i = 0; i < 100; ++i) {
            ASSERT_TRUE(transport.send({Transport::udp, a, b, 0},
                                       std::string_view("m" + std::to_string(i))));
        }
        ASSERT_TRUE(run_until([&] { return sink.messages.size() == 100; }));
        EXPECT_EQ(sink.messages[99].second, "m99");
        EXPECT_EQ(sink.messages[99].first.local, b);
        EXPECT_EQ(sink.messages[99].first.remote, a);
        EXPECT_FALSE(transport.send({Transport::udp, *Endpoint::parse("127.0.0.1:1"), b, 0},
                                    std::string_view("x")));
    }
}

// Who sends without a loop that runs on: at the stop, before the SAs go.
TEST_F(SocketTransportTest, FlushSendsAtOnce) {
    SocketTransport transport(loop, sink, {}, registry, "test");
    const Endpoint from = free_endpoint(SOCK_DGRAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_udp(from));
    const Endpoint to = free_endpoint(SOCK_DGRAM, "127.0.0.1");
    const auto peer = bound_socket(SOCK_DGRAM, to, "");
    ASSERT_TRUE(peer);
    std::array<char, 16> heard{};
    const auto receive = [&] {
        return recv(peer->get(), heard.data(), heard.size(), MSG_DONTWAIT);
    };
    ASSERT_TRUE(transport.send({Transport::udp, from, to, 0}, std::string_view("goodbye")));
    EXPECT_EQ(receive(), -1) << "many go out in one call, at the end of the round";
    transport.flush();
    ASSERT_EQ(receive(), 7);
    EXPECT_EQ(std::string_view(heard.data(), 7), "goodbye");
    transport.flush();
    EXPECT_EQ(receive(), -1) << "once";
}

TEST_F(SocketTransportTest, AnAddressInUseIsNamedWithItsRemedy) {
    SocketTransport transport(loop, sink, {}, registry, "test");
    const Endpoint a = free_endpoint(SOCK_DGRAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_udp(a));
    const auto second = transport.add_udp(a);
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().text.find(a.to_string()), std::string::npos);
    EXPECT_NE(second.error().text.find("in use"), std::string::npos);
    const auto foreign = transport.add_udp(*Endpoint::parse("192.0.2.1:5060"));
    ASSERT_FALSE(foreign);
    EXPECT_NE(foreign.error().text.find("not one of this host's"), std::string::npos);
}

TEST_F(SocketTransportTest, TcpConnectsReusesAndAnswersOnTheSameConnection) {
    SocketTransport transport(loop, sink, {}, registry, "test");
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const Endpoint client = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Flow out{Transport::tcp, client, server, 0};
    ASSERT_TRUE(transport.send(out, options_message));
    ASSERT_TRUE(transport.send(out, options_message));
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 2; }));
    const Flow seen = sink.messages[0].first;
    EXPECT_EQ(seen.local, server);
    EXPECT_EQ(seen.remote, client);
    EXPECT_EQ(transport.connections(), 2U);  // both ends of the one connection live here
    ASSERT_TRUE(transport.send(seen, options_message));
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 3; }));
    EXPECT_EQ(sink.messages[2].first.local, client);
    transport.close(seen.connection);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_TRUE(sink.closed[0].second);
    EXPECT_FALSE(transport.send(seen, options_message));
    EXPECT_EQ(transport.connections(), 0U);
}

// What the kernel would send later for a connection that ended in good order, it would send when
// the policies are gone: in clear (A6).
TEST_F(SocketTransportTest, AtTheEndConnectionsOfProtectedPortsAreCutOff) {
    for (const bool is_protected : {true, false}) {
        SocketTransportOptions options;
        const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
        options.unprotected_port = is_protected ? 1 : server.port;
        auto transport = std::make_unique<SocketTransport>(loop, sink, options, registry, "test");
        ASSERT_TRUE(transport->add_tcp_listener(server));
        const UniqueFd peer(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_storage sa{};
        const socklen_t length = server.to_sockaddr(sa);
        ASSERT_EQ(connect(peer.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
        ASSERT_EQ(::send(peer.get(), options_message.data(), options_message.size(), 0),
                  static_cast<ssize_t>(options_message.size()));
        sink.messages.clear();
        ASSERT_TRUE(run_until([&] { return sink.messages.size() == 1; }));
        transport.reset();
        char octet = 0;
        const ssize_t n = ::recv(peer.get(), &octet, 1, 0);
        const int error = n < 0 ? errno : 0;
        EXPECT_EQ(error, is_protected ? ECONNRESET : 0);
    }
}

TEST_F(SocketTransportTest, AConnectionThatCannotBeMadeIsReported) {
    SocketTransport transport(loop, sink, {}, registry, "test");
    const Endpoint nobody = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.send({Transport::tcp, *Endpoint::parse("127.0.0.1:0"), nobody, 0},
                               options_message));
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_FALSE(sink.closed[0].second);
}

TEST_F(SocketTransportTest, GarbageOnAStreamClosesItAndPerSourceLimitHolds) {
    SocketTransportOptions options;
    options.max_connections_per_source = 1;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const auto dial = [&] {
        UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
        sockaddr_storage sa{};
        const socklen_t length = server.to_sockaddr(sa);
        EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
        return fd;
    };
    const UniqueFd first = dial();
    ASSERT_EQ(send(first.get(), options_message.data(), options_message.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(options_message.size()));
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 1; }));
    const UniqueFd second = dial();
    char byte = 0;
    // Its end of file arrives once the loop has refused it.
    std::function<void()> look = [&] { loop.stop(); };
    loop.post([&] { loop.post(look); });
    loop.run();
    EXPECT_EQ(recv(second.get(), &byte, 1, 0), 0);
    const std::string garbage = "\x01\x02 garbage\r\n\r\n";
    ASSERT_GT(send(first.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_EQ(sink.errors.size(), 1U);
    EXPECT_EQ(transport.connections(), 0U);

    // What came of a request is shown, and its answer goes out before the connection ends.
    const UniqueFd third = dial();
    sink.closed.clear();
    sink.on_broken = [&] {
        EXPECT_TRUE(transport.send(sink.last_broken, std::string_view("SIP/2.0 400 No\r\n")));
    };
    const std::string broken = "OPTIONS sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n";
    ASSERT_GT(send(third.get(), broken.data(), broken.size(), MSG_NOSIGNAL), 0);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    ASSERT_EQ(sink.errors.size(), 2U);
    EXPECT_EQ(sink.held_at_error.at(1), broken);
    std::string told(100, '\0');
    EXPECT_EQ(recv(third.get(), told.data(), told.size(), 0), 16);
    EXPECT_TRUE(told.starts_with("SIP/2.0 400 No"));
    EXPECT_EQ(recv(third.get(), told.data(), told.size(), 0), 0);
}

// Two phones may share an address: what a stranger there opens in clear costs the other none of its
// connections on SAs.
TEST_F(SocketTransportTest, StrangersTakeNoneOfASourcesProtectedConnections) {
    const Endpoint clear = free_endpoint(SOCK_STREAM, "127.0.0.1");
    SocketTransportOptions options;
    options.max_connections_per_source = 1;
    options.unprotected_port = clear.port;
    SocketTransport transport(loop, sink, options, registry, "test");
    ASSERT_TRUE(transport.add_tcp_listener(clear));
    const Endpoint protected_one = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(protected_one));
    const auto dial = [](const Endpoint& to) {
        UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
        sockaddr_storage sa{};
        const socklen_t length = to.to_sockaddr(sa);
        EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
        (void)send(fd.get(), options_message.data(), options_message.size(), MSG_NOSIGNAL);
        return fd;
    };
    const UniqueFd stranger = dial(clear);
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 1; }));
    const UniqueFd phone = dial(protected_one);
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 2; }));
    EXPECT_EQ(sink.messages[1].first.local, protected_one);
}

TEST_F(SocketTransportTest, WhoPingsAndReadsNoPongIsClosed) {
    SocketTransportOptions options;
    options.max_queued_bytes = 1024;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
    const int small = 1;
    ASSERT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    sockaddr_storage sa{};
    const socklen_t length = server.to_sockaddr(sa);
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
    std::string pings;
    for (int i = 0; i < 16'384; ++i) pings += "\r\n\r\n";
    // Sends on and on, and reads nothing; the transport must be the one to end it.
    std::size_t sent = 0;
    std::function<void()> flood = [&] {
        if (!sink.closed.empty() || sent > 512UL * 1024 * 1024) return loop.stop();
        const ssize_t n = send(fd.get(), pings.data(), pings.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) sent += static_cast<std::size_t>(n);
        loop.post(flood);
    };
    loop.post(flood);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_EQ(transport.connections(), 0U);
    EXPECT_EQ(registry
                  .counter("gmgate_sip_connection_overflows_total",
                           "Connections closed because the peer does not read.",
                           {{"side", "test"}, {"transport", "tcp"}})
                  .value(),
              1U);
}

TEST_F(SocketTransportTest, OctetByOctetGainsNoTime) {
    SocketTransportOptions options;
    options.first_message_timeout = 200ms;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_storage sa{};
    const socklen_t length = server.to_sockaddr(sa);
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
    // An octet every 20 ms, never a whole message: ends at the time-out of the message, and not
    // only when the octets end.
    Timer drip;
    struct Context {
        int fd;
        EventLoop* loop;
        Timer* timer;
    } context{fd.get(), &loop, &drip};
    drip.bind(
        [](void* p) {
            auto* c = static_cast<Context*>(p);
            (void)send(c->fd, "O", 1, MSG_NOSIGNAL);
            c->loop->timers().start(*c->timer, 20ms);
        },
        &context);
    loop.timers().start(drip, 20ms);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_EQ(transport.connections(), 0U);
}

// An emergency call in which nobody says a word lasts, and so does its connection.
TEST_F(SocketTransportTest, AStrangersConnectionIsKeptWhileItIsInUse) {
    const Endpoint clear = free_endpoint(SOCK_STREAM, "127.0.0.1");
    SocketTransportOptions options;
    options.unprotected_port = clear.port;
    options.unprotected_idle_timeout = 10ms;
    int asked = 0;
    bool open_when_asked = true;
    options.in_use = [&](const Flow& flow) {
        open_when_asked = open_when_asked && sink.closed.empty() && flow.connection != 0;
        return ++asked < 4;
    };
    SocketTransport transport(loop, sink, options, registry, "test");
    ASSERT_TRUE(transport.add_tcp_listener(clear));
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_storage sa{};
    const socklen_t length = clear.to_sockaddr(sa);
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
    (void)send(fd.get(), options_message.data(), options_message.size(), MSG_NOSIGNAL);
    ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
    EXPECT_EQ(asked, 4);
    EXPECT_TRUE(open_when_asked);
}

TEST_F(SocketTransportTest, AConnectionFromAnyPortIsUsedAgain) {
    SocketTransport transport(loop, sink, {}, registry, "test");
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const Flow out{Transport::tcp, *Endpoint::parse("127.0.0.1:0"), server, 0};
    ASSERT_TRUE(transport.send(out, options_message));
    ASSERT_TRUE(transport.send(out, options_message));
    ASSERT_TRUE(run_until([&] { return sink.messages.size() == 2; }));
    EXPECT_EQ(sink.messages[0].first.connection, sink.messages[1].first.connection);
    EXPECT_EQ(transport.connections(), 2U);  // both ends of the one
}

// A phone listens, as a blocking peer of the loop's thread.
struct Listening {
    explicit Listening(const Endpoint& at) : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const int on = 1;
        (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        sockaddr_storage sa{};
        const socklen_t length = at.to_sockaddr(sa);
        EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
        EXPECT_EQ(listen(fd.get(), 4), 0);
    }
    [[nodiscard]] UniqueFd take() const { return UniqueFd(accept(fd.get(), nullptr, nullptr)); }
    UniqueFd fd;
};

// The phone lost its TCP state while it slept: what we send meets a reset. Between the same ports
// (no others have an SA) it is reached at once again.
TEST_F(SocketTransportTest, AConnectionThePhoneForgotIsReplacedBetweenTheSamePorts) {
    SocketTransportOptions options;
    options.unprotected_port = 1;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint port_us = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Endpoint port_pc = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Listening phone(port_us);
    const Flow flow{Transport::tcp, port_pc, port_us, 0};
    std::array<char, 1024> heard{};
    for (int i = 0; i < 3; ++i) {
        sink.closed.clear();
        ASSERT_TRUE(transport.send(flow, options_message)) << i;
        UniqueFd connection = phone.take();
        // The loop has to see the connection stand before the phone forgets it.
        Timer soon;
        soon.bind([](void* l) { static_cast<EventLoop*>(l)->stop(); }, &loop);
        loop.timers().start(soon, 20ms);
        loop.run();
        ASSERT_EQ(::recv(connection.get(), heard.data(), heard.size(), 0),
                  static_cast<ssize_t>(options_message.size()));
        const linger cut{.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &cut, sizeof cut);
        connection.reset();
        ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
        EXPECT_TRUE(sink.closed[0].second) << "it stood, so a transaction tries again";
        EXPECT_EQ(transport.connections(), 0U);
    }
}

// The SA set goes: its connections go with it, with nothing left in the kernel, and no pair of
// ports rests in TIME_WAIT.
TEST_F(SocketTransportTest, ConnectionsAreCutWithTheirSas) {
    SocketTransportOptions options;
    options.unprotected_port = 1;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint port_us = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Endpoint port_pc = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Listening phone(port_us);
    for (int i = 0; i < 2; ++i) {
        sink.closed.clear();
        ASSERT_TRUE(transport.send({Transport::tcp, port_pc, port_us, 0}, options_message));
        const UniqueFd connection = phone.take();
        ASSERT_TRUE(connection.valid());
        transport.cut(port_us, port_pc);  // no such pair
        transport.cut(port_pc, port_us);
        EXPECT_EQ(transport.connections(), 1U) << "not from inside the caller";
        ASSERT_TRUE(run_until([&] { return !sink.closed.empty(); }));
        EXPECT_EQ(transport.connections(), 0U);
    }
}

// A phone that does not read costs its own connection, after a bounded queue, and nobody else.
TEST_F(SocketTransportTest, WhoDoesNotReadBlocksNobody) {
    SocketTransportOptions options;
    options.unprotected_port = 1;
    SocketTransport transport(loop, sink, options, registry, "test");
    const Endpoint deaf = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Listening sleeper(deaf);
    const Endpoint server = free_endpoint(SOCK_STREAM, "127.0.0.1");
    ASSERT_TRUE(transport.add_tcp_listener(server));
    const Endpoint mine = free_endpoint(SOCK_STREAM, "127.0.0.1");
    const Flow to_deaf{Transport::tcp, mine, deaf, 0};
    const Flow to_other{Transport::tcp, *Endpoint::parse("127.0.0.1:0"), server, 0};
    const std::string large =
        "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 60000\r\n\r\n" + std::string(60000, 'x');
    std::size_t taken = 0;
    std::size_t answered = 0;
    for (int i = 0; i < 400 && sink.closed.empty(); ++i) {
        taken += transport.send(to_deaf, large) ? 1U : 0U;
        ASSERT_TRUE(transport.send(to_other, options_message));
        ASSERT_TRUE(run_until([&] { return sink.messages.size() > answered; })) << i;
        answered = sink.messages.size();
    }
    EXPECT_FALSE(sink.closed.empty()) << "the queue has no bound";
    EXPECT_GT(answered, 0U);
    EXPECT_GT(taken, 0U);
    EXPECT_EQ(sink.closed[0].first.remote, deaf);
}

}  // namespace
}  // namespace gmgate::sip
