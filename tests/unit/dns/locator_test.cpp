// RFC 3263 with answers of our own, and once with a real server through the real c-ares.
#include "control/dns/locator.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <map>
#include <thread>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "control/dns/cares_resolver.h"
#include "tests/unit/dns/wire.h"

namespace gmgate::dns {
namespace {

using namespace std::chrono_literals;

// Holds the questions until the test answers them.
struct Held final : Resolver {
    void ask(const std::string& name, Type type, Done done) override {
        asked.push_back(name);
        open.emplace_back(std::pair(name, type), std::move(done));
    }
    void answer_all() {
        for (int round = 0; round < 5 && !open.empty(); ++round) {
            auto now = std::move(open);
            open.clear();
            for (auto& [question, done] : now) {
                const auto it = answers.find(question);
                Answer a;
                if (it != answers.end()) {
                    a = it->second;
                } else if (!down) {
                    a.outcome = Answer::Outcome::none;
                    a.ttl = 60s;
                }
                done(a);
            }
        }
    }
    Answer& found(const std::string& name, Type type, std::chrono::seconds ttl = 300s) {
        Answer& a = answers[{name, type}];
        a.outcome = Answer::Outcome::found;
        a.ttl = ttl;
        return a;
    }
    bool down = false;
    std::map<std::pair<std::string, Type>, Answer> answers;
    std::vector<std::string> asked;
    std::vector<std::pair<std::pair<std::string, Type>, Done>> open;
};

IpAddress ip(std::string_view t) {
    return *IpAddress::parse(t);
}
std::string text(const std::vector<Target>& targets) {
    std::string out;
    for (const Target& t : targets)
        out += t.at.to_string() + "/" + std::string(sip::name(t.transport)) + " ";
    return out;
}

class LocatorTest : public testing::Test {
  protected:
    void start(std::uint16_t port = 0, sip::Transport transport = sip::Transport::udp) {
        Locator::Options o;
        o.name = "ims.example";
        o.port = port;
        o.transport = transport;
        locator.emplace(o, dns, wheel, random, [this](const auto& t) {
            ++changes;
            latest = text(t);
        });
        locator->ask();
        dns.answer_all();
    }
    void pass(Duration by) {
        clock.advance(by);
        while (wheel.advance()) {
        }
        dns.answer_all();
    }
    ManualClock clock;
    TimerWheel wheel{clock};
    SeededRandom random{5};
    Held dns;
    std::optional<Locator> locator;
    std::size_t changes = 0;
    std::string latest;
};

TEST_F(LocatorTest, NaptrChoosesTheTransportAndSrvTheOrder) {
    dns.found("ims.example", Type::naptr).naptr = {
        {50, 50, "s", "SIPS+D2T", "_sips._tcp.ims.example"},
        {90, 50, "s", "SIP+D2U", "_sip._udp.ims.example"},
        {60, 50, "S", "sip+d2t", "_sip._tcp.ims.example"},
        {10, 10, "u", "E2U+sip", "elsewhere.example"}};
    dns.found("_sip._udp.ims.example", Type::srv).srv = {{1, 1, 5060, "u.ims.example"}};
    dns.found("_sip._tcp.ims.example", Type::srv).srv = {{20, 1, 5062, "b.ims.example"},
                                                         {10, 1, 5061, "a.ims.example"}};
    dns.found("a.ims.example", Type::a).addresses = {ip("192.0.2.1")};
    dns.found("a.ims.example", Type::aaaa).addresses = {ip("2001:db8::1")};
    dns.found("b.ims.example", Type::a).addresses = {ip("192.0.2.2")};
    dns.found("u.ims.example", Type::a).addresses = {ip("192.0.2.3"), ip("0.0.0.0"),
                                                     ip("224.0.0.1")};
    start();
    EXPECT_EQ(latest,
              "192.0.2.1:5061/TCP [2001:db8::1]:5061/TCP 192.0.2.2:5062/TCP 192.0.2.3:5060/UDP ");
}

TEST_F(LocatorTest, WithoutNaptrSrvAndWithoutSrvTheName) {
    dns.found("_sip._tcp.ims.example", Type::srv).srv = {{1, 1, 5066, "t.ims.example"}};
    dns.found("t.ims.example", Type::a).addresses = {ip("192.0.2.4")};
    start();
    EXPECT_EQ(latest, "192.0.2.4:5066/TCP ");
    dns.answers.clear();
    dns.found("ims.example", Type::a).addresses = {ip("192.0.2.5")};
    start(0, sip::Transport::tcp);
    EXPECT_EQ(latest, "192.0.2.5:5060/TCP ");
    dns.asked.clear();
    start(5099);
    EXPECT_EQ(latest, "192.0.2.5:5099/UDP ");
    EXPECT_EQ(dns.asked, (std::vector<std::string>{"ims.example", "ims.example"})) << "A and AAAA";
}

// Of two with weights 90 and 10 the first is first nine times in ten, give or take.
TEST_F(LocatorTest, WeightsAreObeyed) {
    dns.found("_sip._udp.ims.example", Type::srv).srv = {{1, 10, 5060, "b.ims.example"},
                                                         {1, 90, 5060, "a.ims.example"}};
    dns.found("a.ims.example", Type::a).addresses = {ip("192.0.2.1")};
    dns.found("b.ims.example", Type::a).addresses = {ip("192.0.2.2")};
    unsigned a_first = 0;
    for (int i = 0; i < 1000; ++i) {
        start();
        a_first += latest.starts_with("192.0.2.1") ? 1U : 0U;
    }
    EXPECT_GT(a_first, 850U);
    EXPECT_LT(a_first, 950U);
}

TEST_F(LocatorTest, TtlIsObeyedWithinBoundsAndTheLastGoodAnswerStays) {
    dns.found("ims.example", Type::a, 120s).addresses = {ip("192.0.2.5")};
    start(5060);
    ASSERT_EQ(changes, 1U);
    pass(50s);
    EXPECT_EQ(changes, 1U) << "no AAAA is remembered for 60 s";
    pass(11s);
    EXPECT_EQ(changes, 2U);
    dns.answers.clear();
    dns.down = true;
    pass(61s);
    EXPECT_TRUE(locator->stale());
    EXPECT_EQ(text(locator->targets()), "192.0.2.5:5060/UDP ");
    const auto asked = dns.asked.size();
    pass(11s);
    EXPECT_GT(dns.asked.size(), asked) << "asked again soon";
    dns.down = false;
    dns.found("ims.example", Type::a, 0s).addresses = {ip("192.0.2.6")};
    pass(11s);
    EXPECT_EQ(latest, "192.0.2.6:5060/UDP ");
    const auto before = changes;
    pass(4s);
    EXPECT_EQ(changes, before) << "a TTL of 0 makes no storm of questions";
    pass(2s);
    EXPECT_EQ(changes, before + 1);
}

TEST_F(LocatorTest, HostileNumbersOfRecordsAreBounded) {
    auto& srv = dns.found("_sip._udp.ims.example", Type::srv).srv;
    for (unsigned i = 0; i < 32; ++i)
        srv.push_back({1, 1, 5060, "h" + std::to_string(i) + ".example"});
    for (unsigned i = 0; i < 32; ++i) {
        auto& a = dns.found("h" + std::to_string(i) + ".example", Type::a).addresses;
        for (unsigned k = 0; k < 32; ++k)
            a.push_back(ip("192.0." + std::to_string(i) + "." + std::to_string(k + 1)));
    }
    start();
    EXPECT_EQ(locator->targets().size(), Locator::most_targets);
    EXPECT_LE(dns.asked.size(), 3U + 2 * Locator::most_targets);
}

TEST_F(LocatorTest, LateAnswersFindNobody) {
    Locator::Options o;
    o.name = "ims.example";
    o.port = 5060;
    locator.emplace(o, dns, wheel, random, [this](const auto&) { ++changes; });
    locator->ask();
    auto old = std::move(dns.open);
    dns.open.clear();
    locator.reset();
    Answer a;
    a.outcome = Answer::Outcome::found;
    a.addresses = {ip("192.0.2.1")};
    for (auto& [question, done] : old) done(a);
    EXPECT_EQ(changes, 0U);
}

// ---- the real thing ----

// Answers from a table on a thread of its own.
class Server {
  public:
    Server() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_storage sa{};
        socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(sa);
        EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&sa), length), 0);
        length = sizeof sa;
        getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&sa), &length);
        at = Endpoint::from_sockaddr(sa);
        thread_ = std::thread([this] { serve(); });
    }
    ~Server() {
        shutdown(fd_.get(), SHUT_RDWR);
        thread_.join();
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    Endpoint at;
    std::atomic<unsigned> questions = 0;

  private:
    void serve() {
        std::array<std::uint8_t, 512> buffer{};
        for (;;) {
            sockaddr_storage from{};
            socklen_t length = sizeof from;
            const ssize_t n = recvfrom(fd_.get(), buffer.data(), buffer.size(), 0,
                                       reinterpret_cast<sockaddr*>(&from), &length);
            if (n < 12) return;
            ++questions;
            std::string name;
            std::size_t at_octet = 12;
            while (buffer[at_octet] != 0) {
                if (!name.empty()) name += '.';
                name.append(reinterpret_cast<const char*>(buffer.data()) + at_octet + 1,
                            buffer[at_octet]);
                at_octet += buffer[at_octet] + 1U;
            }
            const unsigned type =
                static_cast<unsigned>(buffer[at_octet + 1] << 8U) | buffer[at_octet + 2];
            const unsigned id = static_cast<unsigned>(buffer[0] << 8U) | buffer[1];
            const auto reply = [&](unsigned answers, unsigned code) {
                return Wire().header(id, 0x8180U | code, answers).question(name, type);
            };
            Wire out = reply(0, 3);
            if (name == "ims.example" && type == 35) {
                out = reply(1, 0);
                out.record(name, 35, 30, naptr_record(1, 1, "SIP+D2T", "_sip._tcp.ims.example"));
            } else if (name == "_sip._tcp.ims.example" && type == 33) {
                out = reply(2, 0);
                out.record(name, 33, 30, srv_record(2, 1, 5070, "b.ims.example"));
                out.record(name, 33, 30, srv_record(1, 1, 5070, "a.ims.example"));
            } else if (name == "a.ims.example" && type == 1) {
                out = reply(1, 0);
                out.record(name, 1, 30, a_record(192, 0, 2, 71));
            } else if (name == "b.ims.example" && type == 1) {
                out = reply(2, 0);
                out.record(name, 5, 30, Wire().name("real.ims.example"));
                out.record("real.ims.example", 1, 30, a_record(192, 0, 2, 72));
            }
            (void)sendto(fd_.get(), out.bytes.data(), out.bytes.size(), 0,
                         reinterpret_cast<sockaddr*>(&from), length);
        }
    }
    UniqueFd fd_;
    std::thread thread_;
};

TEST(Cares, ARealServerIsAskedWithoutBlocking) {
    const SystemClock clock;
    EventLoop loop(clock);
    Server server;
    auto resolver = CaresResolver::create(loop, {server.at});
    ASSERT_TRUE(resolver.has_value()) << resolver.error().text;
    SeededRandom random(1);
    Locator::Options o;
    o.name = "ims.example";
    std::string latest;
    Locator locator(o, **resolver, loop.timers(), random, [&](const auto& t) {
        latest = text(t);
        loop.stop();
    });
    locator.ask();
    EXPECT_TRUE(latest.empty()) << "never from inside";
    Timer guard([](void* l) { static_cast<EventLoop*>(l)->stop(); }, &loop);
    loop.timers().start(guard, 120s);  // what never comes; no measure of speed
    loop.run();
    EXPECT_EQ(latest, "192.0.2.71:5070/TCP 192.0.2.72:5070/TCP ");
    EXPECT_EQ(server.questions, 6U);
}

TEST(Cares, NobodyThereIsAFailureAndWhatIsOpenMayBeDropped) {
    const SystemClock clock;
    EventLoop loop(clock);
    // A port that answers with ICMP, or not at all.
    const std::vector<Endpoint> nobody{*Endpoint::parse("127.0.0.1:1")};
    auto resolver = CaresResolver::create(loop, nobody, 100ms);
    ASSERT_TRUE(resolver.has_value());
    std::vector<Answer::Outcome> heard;
    (*resolver)->ask("a.example", Type::a, [&](const Answer& a) {
        heard.push_back(a.outcome);
        loop.stop();
    });
    (*resolver)->ask("not a name", Type::a, [&](const Answer& a) { heard.push_back(a.outcome); });
    EXPECT_TRUE(heard.empty());
    Timer guard([](void* l) { static_cast<EventLoop*>(l)->stop(); }, &loop);
    loop.timers().start(guard, 120s);  // what never comes; no measure of speed
    loop.run();
    EXPECT_EQ(heard, (std::vector<Answer::Outcome>(2, Answer::Outcome::failed)));
    bool late = false;
    (*resolver)->ask("b.example", Type::a, [&](const Answer&) { late = true; });
    resolver->reset();
    loop.timers().start(guard, 50ms);
    loop.run();
    EXPECT_FALSE(late);
}

}  // namespace
}  // namespace gmgate::dns
