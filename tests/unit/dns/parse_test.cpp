#include "control/dns/parse.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/unit/dns/wire.h"

namespace gmgate::dns {
namespace {

using Outcome = Answer::Outcome;
constexpr unsigned response = 0x8180;

TEST(DnsParse, RecordsOfEachKind) {
    Wire a;
    a.header(7, response, 2).question("a.example", 1);
    a.record("A.Example", 1, 300, a_record(192, 0, 2, 1));
    a.record("a.example", 1, 60, a_record(192, 0, 2, 2));
    const Answer found = parse(a.bytes, "a.EXAMPLE", Type::a);
    EXPECT_EQ(found.outcome, Outcome::found);
    ASSERT_EQ(found.addresses.size(), 2U);
    EXPECT_EQ(found.addresses[1].to_string(), "192.0.2.2");
    EXPECT_EQ(found.ttl, std::chrono::seconds(60));

    Wire s;
    s.header(7, response, 2).question("_sip._udp.example", 33);
    s.record("_sip._udp.example", 33, 10, srv_record(1, 2, 5070, "H.example"));
    s.record("_sip._udp.example", 33, 10, srv_record(1, 2, 5070, ""));
    const Answer srv = parse(s.bytes, "_sip._udp.example", Type::srv);
    ASSERT_EQ(srv.srv.size(), 1U) << "\".\" says: not here";
    EXPECT_EQ(srv.srv[0].target, "h.example");
    EXPECT_EQ(srv.srv[0].port, 5070);

    Wire n;
    n.header(7, response, 1).question("example", 35);
    n.record("example", 35, 10, naptr_record(50, 20, "SIP+D2T", "_sip._tcp.example"));
    const Answer naptr = parse(n.bytes, "example", Type::naptr);
    ASSERT_EQ(naptr.naptr.size(), 1U);
    EXPECT_EQ(naptr.naptr[0].service, "SIP+D2T");
    EXPECT_EQ(naptr.naptr[0].replacement, "_sip._tcp.example");
}

TEST(DnsParse, AliasesAreFollowedAndOtherOwnersAreNot) {
    Wire w;
    w.header(7, response, 3).question("a.example", 1);
    w.record("a.example", 5, 30, Wire().name("b.example"));
    w.record("b.example", 1, 300, a_record(192, 0, 2, 1));
    w.record("stranger.example", 1, 300, a_record(203, 0, 113, 66));
    const Answer found = parse(w.bytes, "a.example", Type::a);
    ASSERT_EQ(found.addresses.size(), 1U);
    EXPECT_EQ(found.addresses[0].to_string(), "192.0.2.1");
    EXPECT_EQ(found.ttl, std::chrono::seconds(30));
    Wire circle;
    circle.header(7, response, 1).question("a.example", 1);
    circle.record("a.example", 5, 30, Wire().name("a.example"));
    EXPECT_EQ(parse(circle.bytes, "a.example", Type::a).outcome, Outcome::none);
}

TEST(DnsParse, NothingAndTroubleAreToldApart) {
    Wire empty;
    empty.header(7, response, 0).question("a.example", 1);
    EXPECT_EQ(parse(empty.bytes, "a.example", Type::a).outcome, Outcome::none);
    Wire unknown;
    unknown.header(7, response | 3U, 0).question("a.example", 1);
    EXPECT_EQ(parse(unknown.bytes, "a.example", Type::a).outcome, Outcome::none);
    Wire broken;
    broken.header(7, response | 2U, 0).question("a.example", 1);
    EXPECT_EQ(parse(broken.bytes, "a.example", Type::a).outcome, Outcome::failed);
    Wire query;
    query.header(7, 0x0100, 0).question("a.example", 1);
    EXPECT_EQ(parse(query.bytes, "a.example", Type::a).outcome, Outcome::failed);
}

// Compression that runs in a circle or forward, lengths beyond the end, a time from the far future,
// more records than anybody has: no crash, no hang, no growth (S2).
TEST(DnsParse, HostileMessages) {
    Wire loop;
    loop.header(7, response, 1).u8(0xC0).u8(12).u16(1).u16(1);
    EXPECT_EQ(parse(loop.bytes, "a", Type::a).outcome, Outcome::failed);
    Wire beyond;
    beyond.header(7, response, 1).question("a", 1).name("a").u16(1).u16(1).u32(1).u16(400).u8(1);
    EXPECT_EQ(parse(beyond.bytes, "a", Type::a).outcome, Outcome::failed);
    Wire many;
    many.header(7, response, 60000).question("a", 1);
    for (int i = 0; i < 2000; ++i) many.record("a", 1, 0xFFFFFFFFU, a_record(192, 0, 2, 1));
    const Answer bounded = parse(many.bytes, "a", Type::a);
    EXPECT_LE(bounded.addresses.size(), 32U);
    EXPECT_EQ(bounded.ttl.count(), 0) << "RFC 2181 8";
    Wire odd;
    odd.header(7, response, 1).question("s", 33);
    odd.record("s", 33, 1, Wire().u16(1).u16(1).u16(5060).u8(3).u8('a').u8(' ').u8('b').u8(0));
    EXPECT_EQ(parse(odd.bytes, "s", Type::srv).outcome, Outcome::none) << "no host's name";

    SeededRandom random(3);
    Wire good;
    good.header(7, response, 2).question("s.example", 33);
    good.record("s.example", 33, 9, srv_record(1, 2, 5060, "h.example"));
    good.record("s.example", 5, 9, Wire().u8(0xC0).u8(12));
    for (int i = 0; i < 20000; ++i) {
        auto bytes = good.bytes;
        for (std::uint64_t n = random.below(4) + 1; n > 0; --n)
            bytes[random.below(bytes.size())] = static_cast<std::uint8_t>(random.u32());
        bytes.resize(random.below(bytes.size() + 1));
        const Answer a = parse(bytes, "s.example", Type::srv);
        EXPECT_LE(a.srv.size(), 32U);
    }
}

}  // namespace
}  // namespace gmgate::dns
