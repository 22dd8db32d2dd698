#include "base/ip.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <unordered_set>

namespace gmgate {
namespace {

TEST(IpAddress, ParsesAndPrints) {
    const auto a = IpAddress::parse("192.0.2.1");
    ASSERT_TRUE(a);
    EXPECT_FALSE(a->is_v6());
    EXPECT_EQ(a->octets().size(), 4U);
    EXPECT_EQ(a->to_string(), "192.0.2.1");
    EXPECT_EQ(a->to_uri_host(), "192.0.2.1");

    const auto b = IpAddress::parse("2001:DB8:0:0::1");
    ASSERT_TRUE(b);
    EXPECT_TRUE(b->is_v6());
    EXPECT_EQ(b->octets().size(), 16U);
    EXPECT_EQ(b->to_string(), "2001:db8::1");
    EXPECT_EQ(b->to_uri_host(), "[2001:db8::1]");
    EXPECT_EQ(IpAddress::parse("[2001:db8::1]"), b);
}

TEST(IpAddress, RefusesWhatIsNone) {
    using std::string_view_literals::operator""sv;
    for (const auto bad :
         {""sv, "1.2.3"sv, "1.2.3.4.5"sv, "256.1.1.1"sv, "1.2.3.4 "sv, "[1.2.3.4]"sv, "::g"sv,
          "[::1"sv, "fe80::1%eth0"sv, "1.2.3.4\0"sv, "1.2.3.4\0x"sv, "::1\0x"sv,
          "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb"sv}) {
        EXPECT_FALSE(IpAddress::parse(bad)) << bad;
    }
}

// What inet_pton says of IPv4, whose part parse() does by itself.
TEST(IpAddress, ReadsIpv4AsInetPton) {
    const std::array octets{"0", "1", "01", "00", "9", "99", "199", "255", "256", "0255", "", "a"};
    for (const std::string a : octets) {
        for (const std::string b : octets) {
            for (const std::string& text : {a + "." + b + ".3.4", "1.2." + a + "." + b,
                                            a + "." + b + ".3", "1.2.3." + a + b}) {
                in_addr wanted{};
                const bool good = inet_pton(AF_INET, text.c_str(), &wanted) == 1;
                const auto got = IpAddress::parse(text);
                ASSERT_EQ(got.has_value(), good) << text;
                if (!good) continue;
                EXPECT_EQ(std::memcmp(got->octets().data(), &wanted, 4), 0) << text;
                std::array<char, INET_ADDRSTRLEN> printed{};
                inet_ntop(AF_INET, &wanted, printed.data(), printed.size());
                EXPECT_EQ(got->to_string(), printed.data());
                EXPECT_EQ(got->text().view(), printed.data());
            }
        }
    }
}

TEST(IpAddress, FamiliesNeverCompareEqual) {
    const auto v4 = *IpAddress::parse("0.0.0.0");
    const auto v6 = *IpAddress::parse("::");
    EXPECT_NE(v4, v6);
    EXPECT_TRUE(v4.is_unspecified());
    EXPECT_TRUE(v6.is_unspecified());
    EXPECT_NE(hash_value(v4), hash_value(v6));
    EXPECT_FALSE(IpAddress::parse("::1")->is_unspecified());
    EXPECT_LT(*IpAddress::parse("10.0.0.1"), *IpAddress::parse("10.0.0.2"));
}

TEST(IpAddress, HashSpreadsNeighbours) {
    std::unordered_set<std::uint64_t> seen;
    for (unsigned i = 0; i < 65536; ++i) {
        const std::array<std::uint8_t, 4> o{10, 1, static_cast<std::uint8_t>(i >> 8U),
                                            static_cast<std::uint8_t>(i)};
        seen.insert(hash_value(IpAddress::v4(o)) & 0xFFFFU);
    }
    EXPECT_GT(seen.size(), 65536U / 2);  // a random function fills 63 %
}

TEST(Endpoint, ParsesAndPrints) {
    EXPECT_EQ(Endpoint::parse("10.0.0.1:5060"), (Endpoint{*IpAddress::parse("10.0.0.1"), 5060}));
    EXPECT_EQ(Endpoint::parse("10.0.0.1", 5062), (Endpoint{*IpAddress::parse("10.0.0.1"), 5062}));
    EXPECT_EQ(Endpoint::parse("[::1]:7"), (Endpoint{*IpAddress::parse("::1"), 7}));
    EXPECT_EQ(Endpoint::parse("::1", 9), (Endpoint{*IpAddress::parse("::1"), 9}));
    EXPECT_EQ(Endpoint::parse("[::1]:65535")->to_string(), "[::1]:65535");
    for (const char* bad : {"", ":5060", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:-1",
                            "10.0.0.1:5x", "[::1]:", "host:5060", "2001:db8::1:5060:99999"}) {
        EXPECT_FALSE(Endpoint::parse(bad)) << bad;
    }
}

TEST(Endpoint, SockaddrBothWays) {
    for (const char* text : {"192.0.2.7:5060", "[2001:db8::9]:5061"}) {
        const auto e = *Endpoint::parse(text);
        sockaddr_storage storage{};
        const socklen_t length = e.to_sockaddr(storage);
        EXPECT_EQ(length, e.address.is_v6() ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
        EXPECT_EQ(Endpoint::from_sockaddr(storage), e);
    }
}

TEST(Endpoint, AMappedAddressIsTheIpv4Address) {
    const auto mapped = *Endpoint::parse("[::ffff:192.0.2.7]:5060");
    sockaddr_storage storage{};
    mapped.to_sockaddr(storage);
    EXPECT_EQ(Endpoint::from_sockaddr(storage), *Endpoint::parse("192.0.2.7:5060"));
}

TEST(IpAddress, Networks) {
    const auto ip = [](std::string_view t) { return *IpAddress::parse(t); };
    EXPECT_EQ(ip("10.1.2.3").network(24), ip("10.1.2.0"));
    EXPECT_EQ(ip("10.1.2.255").network(30), ip("10.1.2.252"));
    EXPECT_EQ(ip("10.1.2.3").network(0), ip("0.0.0.0"));
    EXPECT_EQ(ip("10.1.2.3").network(32), ip("10.1.2.3"));
    EXPECT_EQ(ip("10.1.2.3").network(64), ip("10.1.2.3"));
    EXPECT_EQ(ip("2001:db8:1:2:3:4:5:6").network(64), ip("2001:db8:1:2::"));
    EXPECT_EQ(ip("2001:db8:1:2:ffff::").network(66), ip("2001:db8:1:2:c000::"));
    EXPECT_TRUE((Network{ip("10.1.0.0"), 16}.contains(ip("10.1.255.1"))));
    EXPECT_FALSE((Network{ip("10.1.0.0"), 16}.contains(ip("10.2.0.1"))));
    EXPECT_FALSE((Network{ip("0.0.0.0"), 0}.contains(ip("::1"))));
    EXPECT_TRUE((Network{ip("::"), 0}.contains(ip("::1"))));
}

}  // namespace
}  // namespace gmgate
