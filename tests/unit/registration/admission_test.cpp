// Who gets in when more knock than may (S3). Deterministic: seeds and a clock of its own; the
// figures printed stand in docs/security.md.

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include "control/registration/limiter.h"

namespace gmgate::registration {
namespace {

using namespace std::chrono_literals;

// Everything a test of Admission counts, a second at a time.
struct Gate {
    explicit Gate(Limits l = limits()) : admission(l, random) {}
    static Limits limits() {
        Limits l;
        l.register_rate_total = 100;
        l.register_burst_total = 200;
        return l;
    }
    // True: in.
    bool knock(std::string_view address, std::uint16_t port = 5060, bool tcp = false,
               bool known = false) {
        return knock_as(known ? Admission::Standing::known : Admission::Standing::stranger, address,
                        port, tcp);
    }
    bool knock_as(Admission::Standing standing, std::string_view address, std::uint16_t port,
                  bool tcp = false) {
        return admission.admit({*IpAddress::parse(address), port}, tcp, standing, now) ==
               Reason::ok;
    }
    // `n` packets of sources nobody has seen, spread over a second, and what happens between them.
    void flood(int n, const std::function<void(int)>& between = [](int) {}) {
        for (int i = 0; i < n; ++i) {
            now += std::chrono::nanoseconds(1'000'000'000 / n);
            std::array<std::uint8_t, 4> octets{};
            random.fill(octets);
            octets[0] = 11;
            const auto port = static_cast<std::uint16_t>(1024 + random.below(60'000));
            in += admission.admit({IpAddress::v4(octets), port}, false,
                                  Admission::Standing::stranger, now) == Reason::ok;
            between(i);
        }
    }
    SeededRandom random{5};
    Admission admission;
    TimePoint now{1h};
    std::size_t in = 0;
};

TEST(Admission, ASubscriberOwnsA64) {
    Gate g;
    std::size_t in = 0;
    for (int i = 0; i < 100; ++i) in += g.knock("2001:db8:0:1::" + std::to_string(i + 1));
    EXPECT_EQ(in, 20U) << "the burst of one source";
    EXPECT_TRUE(g.knock("2001:db8:0:2::1")) << "the next network is another's";
    Limits l = Gate::limits();
    l.ipv6_source_prefix = 128;
    Gate each(l);
    in = 0;
    for (int i = 0; i < 100; ++i) in += each.knock("2001:db8:0:1::" + std::to_string(i + 1));
    EXPECT_EQ(in, 100U);
}

// N1: phones behind one NAT are sources of their own, and together so many sources and no more:
// ports are invented as easily as addresses.
TEST(Admission, BehindANatAPortIsASource) {
    Limits l = Gate::limits();
    l.register_rate_total = 10'000;
    l.register_burst_total = 20'000;
    using Standing = Admission::Standing;
    const auto in = [&](Gate& g, Standing standing, int ports, int each) {
        int n = 0;
        for (int i = 0; i < ports * each; ++i)
            n +=
                g.knock_as(standing, "203.0.113.7", static_cast<std::uint16_t>(40'000 + i % ports));
        return n;
    };
    for (const Standing other : {Standing::stranger, Standing::known}) {
        Gate g(l);
        EXPECT_EQ(in(g, other, 100, 3), 20) << "an address is a source";
    }
    Gate many(l);
    EXPECT_EQ(in(many, Standing::nat, 100, 3), 300)
        << "three REGISTERs of each of a hundred phones";
    Gate one(l);
    EXPECT_EQ(in(one, Standing::nat, 1, 300), 20) << "a port is a source";
    EXPECT_EQ(in(one, Standing::nat, 2, 20), 20) << "which takes nothing from the next one";
    Gate flood(l);
    EXPECT_EQ(in(flood, Standing::nat, 20'000, 1), 320) << "16 sources' worth";
    EXPECT_FALSE(flood.knock_as(Standing::nat, "203.0.113.7", 39'999));
    EXPECT_TRUE(flood.knock_as(Standing::nat, "203.0.113.8", 39'999)) << "another NAT";
    l.sources_per_nat = 1;
    Gate off(l);
    EXPECT_EQ(in(off, Standing::nat, 100, 3), 20);
}

// Its address is known to everybody behind it, and forged with any port.
TEST(Admission, AKnownNatComesFirstNoMoreThanOneSourceDoes) {
    Gate g;
    for (int s = 0; s < 3; ++s) g.flood(10'000);
    std::size_t forged = 0;
    std::size_t connected = 0;
    std::uint16_t port = 1024;
    for (int s = 0; s < 10; ++s) {
        g.flood(10'000, [&](int i) {
            if (i % 10 == 0) forged += g.knock_as(Admission::Standing::nat, "203.0.113.7", ++port);
            if (i == 5000)
                connected += g.knock_as(Admission::Standing::nat, "203.0.113.9",
                                        static_cast<std::uint16_t>(50'000 + s), true);
        });
    }
    EXPECT_GE(forged, 20U);
    EXPECT_LE(forged, 20U + 10 * 5 + 1) << "the burst and the rate of one source";
    EXPECT_EQ(connected, 10U) << "who has a connection";
}

TEST(Admission, TheTotalHolds) {
    Gate g;
    for (int s = 0; s < 20; ++s) g.flood(5000);
    EXPECT_LE(g.in, 200U + 20 * 100) << "burst and rate";
    EXPECT_GE(g.in, 20U * 100) << "and all of it is used";
}

TEST(Admission, WhoTriesAgainGetsInBesideAFloodOfInventedSources) {
    Gate g;
    g.flood(10'000);
    std::size_t first = 0;
    std::size_t second = 0;
    for (int s = 0; s < 20; ++s) {
        // A phone a fifth of a second; it repeats its REGISTER half a second later (T1).
        std::array<bool, 5> in{};
        g.flood(10'000, [&](int i) {
            const std::string phone = "10.5." + std::to_string(s) + ".";
            if (i % 1000 == 0 && i < 5000) {
                in[static_cast<std::size_t>(i) / 1000] = g.knock(phone + std::to_string(i / 1000));
                first += in[static_cast<std::size_t>(i) / 1000];
            } else if (i % 1000 == 0 && !in[static_cast<std::size_t>(i) / 1000 - 5]) {
                second += g.knock(phone + std::to_string(i / 1000 - 5));
            }
        });
    }
    std::printf(
        "        100 phones beside 10,000 invented sources a second, 100 a second let in: "
        "%zu at the first try, %zu at the second\n",
        first, second);
    EXPECT_LT(first, 20U) << "no flood, nothing tested";
    EXPECT_EQ(first + second, 100U);
}

TEST(Admission, BusySourcesComeLast) {
    // A botnet that stays below the limit of each source and yet could fill the total ten times.
    Gate g;
    const auto botnet = [&](const std::function<void(int)>& between) {
        for (int i = 0; i < 1000; ++i) {
            g.now += 1ms;
            g.in += g.knock("10.7.0." + std::to_string(1 + i % 250));
            between(i);
        }
    };
    for (int s = 0; s < 60; ++s)
        botnet([](int) {});  // until its sources are known for what they are
    std::size_t first = 0;
    std::size_t second = 0;
    for (int s = 0; s < 10; ++s) {
        std::array<bool, 10> in{};
        const auto phone = [&](std::size_t k) {
            return "10.5." + std::to_string(s) + "." + std::to_string(1 + k);
        };
        for (int half = 0; half < 2; ++half) {
            botnet([&](int i) {
                if (i % 100 != 0) return;
                const auto k = static_cast<std::size_t>(i) / 100;
                if (half == 0) first += in[k] = g.knock(phone(k));
                if (half == 1 && !in[k]) second += g.knock(phone(k));
            });
        }
    }
    std::printf(
        "        100 phones beside 250 sources of 4 a second, 100 a second let in: %zu at "
        "the first try, %zu at the second\n",
        first, second);
    EXPECT_GT(first, 50U);
    EXPECT_EQ(first + second, 100U);
}

TEST(Admission, WhereAPhoneIsRegisteredAndWhoHasAConnectionComeFirst) {
    Gate g;
    g.flood(10'000);
    std::size_t known = 0;
    std::size_t connected = 0;
    std::size_t forged = 0;
    g.flood(10'000, [&](int i) {
        if (i % 400 == 0) known += g.knock("10.5.0." + std::to_string(i / 400), 5060, false, true);
        if (i % 400 == 1) connected += g.knock("10.6.0." + std::to_string(i / 400), 5060, true);
    });
    EXPECT_EQ(known, 25U);
    EXPECT_EQ(connected, 25U);
    // Addresses of registered phones, forged, get half of the total and no more.
    g.now += 10s;
    for (int i = 0; i < 10'000; ++i) {
        g.now += 1ms;
        forged += g.knock("10.8." + std::to_string(i / 250) + "." + std::to_string(i % 250), 5060,
                          false, true);
        if (i % 100 == 0) known += g.knock("10.9.0." + std::to_string(i / 100), 5060, true);
    }
    EXPECT_EQ(known, 125U) << "there is room beside them";
    EXPECT_LE(forged, 200U + 10 * 100);
}

TEST(Limiter, TurnedAwayForgetsAfterTenSeconds) {
    SeededRandom random(6);
    TurnedAway turned(random);
    TimePoint t{1h};
    const Endpoint a{*IpAddress::parse("10.0.0.1"), 5060};
    const Endpoint b{*IpAddress::parse("10.0.0.1"), 5061};
    EXPECT_FALSE(turned.again(a, t));
    EXPECT_TRUE(turned.again(a, t));
    EXPECT_FALSE(turned.again(b, t));
    t += 5s;
    EXPECT_TRUE(turned.again(a, t));
    t += 10s;
    EXPECT_FALSE(turned.again(a, t));
    // 100,000 a second for ten seconds: how many strangers it takes for somebody it knows.
    std::size_t mistaken = 0;
    for (std::uint32_t i = 0; i < 1'000'000; ++i) {
        if (i % 100'000 == 0) t += 1s;
        std::array<std::uint8_t, 4> octets{};
        std::memcpy(octets.data(), &i, 4);
        mistaken += turned.again({IpAddress::v4(octets), 1}, t);
    }
    std::printf("        %.2f %% of 1,000,000 strangers mistaken\n",
                static_cast<double>(mistaken) / 10'000);
    EXPECT_LT(mistaken, 25'000U);
}

}  // namespace
}  // namespace gmgate::registration
