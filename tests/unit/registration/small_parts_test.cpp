// Reasons, traces, limiter, flow tokens, paths, identities, slot map.

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "base/slot_map.h"
#include "control/registration/context.h"
#include "control/registration/emergency_calls.h"
#include "control/registration/flow_token.h"
#include "control/registration/identity.h"
#include "control/registration/limiter.h"
#include "control/registration/metrics.h"
#include "control/registration/paths.h"
#include "control/registration/reasons.h"
#include "control/registration/registrations.h"
#include "control/registration/subscriptions.h"
#include "control/registration/trace.h"

namespace gmgate::registration {
namespace {

using namespace std::chrono_literals;

TEST(Reasons, EachHasAWordOfItsOwnAndAMeaning) {
    std::set<std::string_view> words;
    for (std::size_t i = 0; i < reason_count; ++i) {
        const ReasonInfo& r = info(static_cast<Reason>(i));
        EXPECT_FALSE(r.name.empty()) << i;
        EXPECT_FALSE(r.meaning.empty()) << r.name;
        EXPECT_TRUE(words.insert(r.name).second) << r.name << " twice";
        for (const char c : r.name) EXPECT_TRUE((c >= 'a' && c <= 'z') || c == '_') << r.name;
    }
    // Anchors that the table is in the enumeration's order.
    EXPECT_EQ(name(Reason::ok), "ok");
    EXPECT_EQ(name(Reason::port_in_use), "port_in_use");
    EXPECT_EQ(name(Reason::install_failed), "install_failed");
    EXPECT_EQ(name(Reason::verify_mismatch), "verify_mismatch");
    EXPECT_EQ(name(Reason::wrong_sa), "wrong_sa");
    EXPECT_EQ(name(Reason::ue_timeout), "ue_timeout");
    EXPECT_EQ(name(Reason::shutdown), "shutdown");
}

TraceRecord record(std::uint64_t user, Step step, int status = 0) {
    TraceRecord r;
    r.user = user;
    r.step = step;
    r.status = static_cast<std::uint16_t>(status);
    std::copy_n("REGISTER", 8, r.method.begin());
    return r;
}

// What ended a set is not called the network's doing unless it was.
TEST(Reasons, OfARemovedSet) {
    EXPECT_EQ(reason_of(sa::Event::superseded), Reason::superseded);
    EXPECT_EQ(reason_of(sa::Event::reg_await_timeout), Reason::authentication_timeout);
    EXPECT_EQ(reason_of(sa::Event::lifetime_expired), Reason::expired);
    EXPECT_EQ(reason_of(sa::Event::address_changed), Reason::address_changed);
    EXPECT_EQ(reason_of(sa::Event::sequence_near_end), Reason::sequence_near_end);
    EXPECT_EQ(reason_of(sa::Event::shutdown), Reason::shutdown);
    EXPECT_EQ(reason_of(sa::Event::backend_lost), Reason::install_failed);
    EXPECT_EQ(reason_of(sa::Event::deregistering), Reason::deregistered_by_network);
    EXPECT_EQ(reason_of(sa::Event::operator_removed), Reason::deregistered_by_network);
}

// S3: strangers get half, and half is enough for all that the rates let in.
TEST(Limiter, TransactionsFollowTheRates) {
    using std::chrono_literals::operator""ms;
    Limits limits;
    limits.register_rate_total = 1;
    EXPECT_EQ(transactions_for(limits, 500ms), 200'000U) << "never less: the phones' own";
    limits.register_rate_total = 10'000;
    limits.register_burst_total = 20'000;
    EXPECT_EQ(transactions_for(limits, 500ms), 2U * (10'000 * 32 + 20'000));
    EXPECT_EQ(transactions_for(limits, 250ms), 2U * (10'000 * 16 + 20'000)) << "64*T1 each";
    limits.register_rate_total = 10'000'000;
    EXPECT_EQ(transactions_for(limits, 500ms), 4'000'000U) << "and memory has an end";
}

TEST(Trace, OneUserOldestFirstAndBounded) {
    TraceStore store(8, 99);
    const auto alice = store.user_of("alice");
    const auto bob = store.user_of("bob");
    EXPECT_NE(alice, bob);
    EXPECT_TRUE(store.of_user("alice").empty());
    for (int i = 0; i < 20; ++i) store.add(record(i % 2 == 0 ? alice : bob, Step::sm1, i));
    EXPECT_EQ(store.size(), 8U);
    const auto found = store.of_user("alice");
    ASSERT_EQ(found.size(), 4U);
    EXPECT_EQ(found.front().status, 12);
    EXPECT_EQ(found.back().status, 18);
    EXPECT_EQ(store.of_user("alice", 2).front().status, 16);
    EXPECT_EQ(store.latest(3).back().status, 19);
    EXPECT_EQ(store.recorded(), 20U);
}

TEST(Trace, Summaries) {
    EXPECT_EQ(record(1, Step::sm1).summary(), "REGISTER SM1");
    EXPECT_EQ(record(1, Step::sm6, 401).summary(), "401 SM6");
    EXPECT_EQ(record(1, Step::none, 200).summary(), "200 REGISTER");
    TraceRecord event;
    event.step = Step::set_installed;
    EXPECT_EQ(event.summary(), "SA set installed");
}

TEST(Limiter, TokenBucket) {
    TokenBucket bucket(10, 5);
    TimePoint t{1h};
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(bucket.take(t));
    EXPECT_FALSE(bucket.take(t));
    t += 100ms;
    EXPECT_TRUE(bucket.take(t));
    EXPECT_FALSE(bucket.take(t));
    t += 1h;
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(bucket.take(t));
    EXPECT_FALSE(bucket.take(t)) << "never more than the burst";
}

TEST(Limiter, SourcesAreApart) {
    SeededRandom random(1);
    RateTable buckets(64, 1, 2, random);
    const TimePoint t{1h};
    const auto a = *IpAddress::parse("10.0.0.1");
    const auto b = *IpAddress::parse("2001:db8::1");
    EXPECT_TRUE(buckets.take(a, t));
    EXPECT_TRUE(buckets.take(a, t));
    EXPECT_FALSE(buckets.take(a, t));
    EXPECT_TRUE(buckets.take(b, t));
    EXPECT_FALSE(buckets.take(a, t + 900ms));
    EXPECT_TRUE(buckets.take(a, t + 1001ms));
}

TEST(Limiter, AFullTableForgetsTheMostRecovered) {
    SeededRandom random(2);
    RateTable buckets(8, 1, 10, random);  // one set of eight
    EXPECT_EQ(buckets.capacity(), 8U);
    const TimePoint t{1h};
    const auto address = [](int i) { return *IpAddress::parse("10.0.0." + std::to_string(i)); };
    // Address 1 has used up everything; the others one token each.
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(buckets.take(address(1), t));
    for (int i = 2; i <= 8; ++i) EXPECT_TRUE(buckets.take(address(i), t));
    for (int i = 9; i < 200; ++i) EXPECT_TRUE(buckets.take(address(i), t));
    EXPECT_FALSE(buckets.take(address(1), t)) << "who floods is not forgotten";
}

TEST(Limiter, CountBySource) {
    SeededRandom random(3);
    CountBySource pending(random);
    const auto a = *IpAddress::parse("10.0.0.1");
    EXPECT_EQ(pending.of(a), 0U);
    pending.add(a);
    pending.add(a);
    EXPECT_EQ(pending.of(a), 2U);
    pending.remove(a);
    pending.remove(a);
    pending.remove(a);
    EXPECT_EQ(pending.of(a), 0U);
    EXPECT_EQ(pending.sources(), 0U);
}

TEST(FlowToken, OnlyOurs) {
    SeededRandom random(4);
    const FlowTokens tokens(FlowTokens::draw(random));
    const FlowTokens others(FlowTokens::draw(random));
    for (const std::uint64_t user :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{0xFEDCBA9876543210}}) {
        const auto text = tokens.make(user);
        const std::string_view token(text.data(), text.size());
        EXPECT_EQ(tokens.open(token), user);
        EXPECT_FALSE(others.open(token));
        for (std::size_t i = 0; i < token.size(); ++i) {
            std::string bad(token);
            bad[i] = bad[i] == 'a' ? 'b' : 'a';
            EXPECT_FALSE(tokens.open(bad)) << i;
        }
    }
    EXPECT_FALSE(tokens.open(""));
    EXPECT_FALSE(tokens.open(std::string(48, 'g')));
    EXPECT_FALSE(tokens.open(std::string(4800, '0')));
}

sip::Via via(std::string_view text) {
    return *sip::parse_via(text);
}

TEST(Paths, ReplyInClear) {
    const sip::Flow udp{sip::Transport::udp, *Endpoint::parse("10.1.0.1:5060"),
                        *Endpoint::parse("10.2.0.1:40000"), 0};
    EXPECT_EQ(reply_path(udp, via("SIP/2.0/UDP 10.2.0.1:5070;branch=z9hG4bK1")).remote.port, 5070);
    EXPECT_EQ(reply_path(udp, via("SIP/2.0/UDP 10.2.0.1;branch=z9hG4bK1")).remote.port, 5060);
    EXPECT_EQ(reply_path(udp, via("SIP/2.0/UDP 10.2.0.1;rport;branch=z9hG4bK1")).remote.port,
              40000);
    // Never to another address, whatever Via says.
    EXPECT_EQ(reply_path(udp, via("SIP/2.0/UDP 192.0.2.1:5070;maddr=192.0.2.2;branch=z9hG4bK1"))
                  .remote.address,
              udp.remote.address);
    sip::Flow tcp = udp;
    tcp.transport = sip::Transport::tcp;
    tcp.connection = 9;
    EXPECT_EQ(reply_path(tcp, via("SIP/2.0/TCP 10.2.0.1:5070;branch=z9hG4bK1")).connection, 9U);
}

TEST(Paths, OnSas) {
    const sa::SaNumbers n{1001, 1002, 2001, 2002, 7000, 7777, 6200, 6100};
    const sip::Flow in{sip::Transport::udp, *Endpoint::parse("10.1.0.1:6100"),
                       *Endpoint::parse("10.2.0.1:7000"), 0};
    const sip::Flow back = reply_path(in, via("SIP/2.0/UDP 10.2.0.1:7777;branch=z9hG4bK1"), n);
    EXPECT_EQ(back.local.port, 6200);
    EXPECT_EQ(back.remote.port, 7777);
    EXPECT_EQ(inbound_spi(in, n), 2002U);
    EXPECT_EQ(outbound_spi(back, n), 1002U);
    // Whatever port Via names: only the set's own.
    EXPECT_EQ(reply_path(in, via("SIP/2.0/UDP 10.2.0.1:5060;branch=z9hG4bK1"), n).remote.port,
              7777);
    const sip::Flow rport =
        reply_path(in, via("SIP/2.0/UDP 10.2.0.1:7777;rport;branch=z9hG4bK1"), n);
    EXPECT_EQ(rport.local.port, 6100);
    EXPECT_EQ(rport.remote.port, 7000);
    EXPECT_EQ(outbound_spi(rport, n), 1001U);
    const sip::Flow other{sip::Transport::udp, *Endpoint::parse("10.1.0.1:6200"),
                          *Endpoint::parse("10.2.0.1:7000"), 0};
    EXPECT_EQ(inbound_spi(other, n), 0U);
    const sip::Flow out = request_path(sip::Transport::tcp, in.local.address, in.remote.address, n);
    EXPECT_EQ(outbound_spi(out, n), 1002U);
}

TEST(Paths, ViaCheck) {
    const auto source = *IpAddress::parse("2001:db8::1");
    EXPECT_EQ(check_via(via("SIP/2.0/UDP [2001:DB8:0::1]:5060;branch=z9hG4bK1"), source),
              ViaCheck::same);
    EXPECT_EQ(check_via(via("SIP/2.0/UDP [2001:db8::2];branch=z9hG4bK1"), source),
              ViaCheck::different);
    EXPECT_EQ(check_via(via("SIP/2.0/UDP phone.example;branch=z9hG4bK1"), source),
              ViaCheck::unresolved);
}

TEST(Identity, OneSpelling) {
    EXPECT_EQ(normalised_identity(*sip::parse_uri("sip:Alice@HOME.Example;user=phone")),
              "sip:Alice@home.example");
    EXPECT_EQ(normalised_identity(*sip::parse_uri("tel:+1-555-0100")), "tel:+15550100");
    EXPECT_FALSE(normalised_identity(*sip::parse_uri("urn:service:sos")));
}

TEST(Identity, SameUri) {
    const auto u = [](std::string_view t) { return *sip::parse_uri(t); };
    EXPECT_TRUE(same_uri(u("sip:orig@s.example:6060;lr"), u("sip:orig@S.EXAMPLE:6060;lr=on")));
    EXPECT_FALSE(same_uri(u("sip:orig@s.example:6060;lr"), u("sip:orig@s.example:6061;lr")));
    EXPECT_FALSE(same_uri(u("sip:orig@s.example;lr"), u("sip:orig@s.example;lr;transport=tcp")));
    EXPECT_FALSE(same_uri(u("sip:orig@s.example;lr"), u("sip:term@s.example;lr")));
}

struct Thing {
    Thing(SlotId i, int* c) : id(i), count(c) { ++*count; }
    ~Thing() { --*count; }
    SlotId id;
    int* count;
};

TEST(SlotMap, StaleIdsFindNothing) {
    int alive = 0;
    SlotMap<Thing> map;
    EXPECT_EQ(map.find(0), nullptr);
    const SlotId a = map.emplace(&alive).id;
    const SlotId b = map.emplace(&alive).id;
    EXPECT_NE(a, 0U);
    map.erase(a);
    map.erase(a);
    EXPECT_EQ(map.find(a), nullptr);
    EXPECT_NE(map.find(b), nullptr);
    const SlotId c = map.emplace(&alive).id;
    EXPECT_NE(c, a) << "the slot comes back under another name";
    EXPECT_EQ(map.slots(), 2U);
    EXPECT_EQ(alive, 2);
    EXPECT_EQ(map.find(~SlotId{0}), nullptr);
}

// S2: the longest unused gives way.
TEST(Subscriptions, AUserHasAFew) {
    Subscriptions all;
    all.note(1, Subscriptions::Of::phone);
    for (std::uint64_t i = 0; i < Subscriptions::most; ++i) {
        all.note(100 + i, Subscriptions::Of::core);
        all.note(100, Subscriptions::Of::core);  // in use
    }
    EXPECT_TRUE(all.has(100));
    EXPECT_TRUE(all.has(101));
    all.note(500, Subscriptions::Of::core);
    EXPECT_TRUE(all.has(500));
    EXPECT_TRUE(all.has(1)) << "the phone's own, however many others make";
    EXPECT_FALSE(all.has(101));
    EXPECT_TRUE(all.has(100));
    EXPECT_TRUE(all.has(102));
    EXPECT_FALSE(all.has(7));
}

// Who is called at an address and port: the latest that is there, and never one behind a NAT that
// merely named them; when he goes, who was there before.
TEST(Registrations, APlaceIsNotTakenByNamingIt) {
    Registrations all;
    const Endpoint place{*IpAddress::parse("10.0.0.5"), 5063};
    all.place(all.get(1), place);
    all.place(all.get(2), place, true);
    EXPECT_EQ(all.user_at("10.0.0.5", 5063), 1U);
    all.place(all.get(3), place);
    EXPECT_EQ(all.user_at("10.0.0.5", 5063), 3U);
    all.erase(3);
    EXPECT_EQ(all.user_at("10.0.0.5", 5063), 1U);
    all.place(all.get(1), {place.address, 5065});
    EXPECT_EQ(all.user_at("10.0.0.5", 5065), 1U);
    EXPECT_EQ(all.user_at("10.0.0.5", 5063), 2U);
    all.erase(2);
    EXPECT_FALSE(all.user_at("10.0.0.5", 5063));
}

// N1: behind one address are many phones, each at a port of its own.
TEST(EmergencyCalls, AtANatEachPortIsASource) {
    for (const bool nat : {false, true}) {
        Policy policy;
        policy.limits.emergency_calls_per_source = 2;
        policy.limits.sources_per_nat = 3;
        const ManualClock clock;
        TimerWheel timers(clock);
        SeededRandom random(1);
        EmergencyCalls calls(policy, timers, random, [](sa::UserId) {});
        const auto begin = [&](std::uint16_t port) {
            const sip::Flow flow{sip::Transport::udp,
                                 *Endpoint::parse("10.1.0.1:5060"),
                                 {*IpAddress::parse("10.2.0.1"), port},
                                 0};
            if (calls.may_begin(flow, nat, TimePoint{} + 1s).why != Reason::ok) return false;
            const std::string text =
                "INVITE urn:service:sos SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\n"
                "Call-ID: " +
                std::to_string(calls.size()) + "\r\nContent-Length: 0\r\n\r\n";
            sip::Message message;
            return message.parse(std::string_view(text)) == sip::ParseStatus::ok &&
                   calls.add(flow, flow, message) != nullptr;
        };
        EXPECT_TRUE(begin(1001));
        EXPECT_TRUE(begin(1001));
        EXPECT_FALSE(begin(1001));
        EXPECT_EQ(begin(1002), nat);
        EXPECT_EQ(begin(1003), nat);
        EXPECT_EQ(begin(1004), nat);
        EXPECT_EQ(begin(1005), nat);
        EXPECT_FALSE(begin(1006)) << "as many as three sources may have";
    }
}

TEST(Metrics, NamesFollowTheConventions) {
    metrics::Registry registry;
    GatewayMetrics m(registry);
    m.request(GatewayMetrics::Side::gm_clear, "REGISTER");
    m.request(GatewayMetrics::Side::gm_clear, "BREW");
    m.response(GatewayMetrics::Side::core, 401);
    m.response(GatewayMetrics::Side::core, 9999);
    m.procedure_ended(Reason::ok);
    m.procedure_ended(Reason::core_timeout);
    m.drop(Reason::wrong_sa);
    m.challenged(3ms);
    EXPECT_EQ(m.drops(Reason::wrong_sa), 1U);
    EXPECT_EQ(m.drops(Reason::no_sa), 0U);
    bool other = false;
    for (const auto& s : registry.collect()) {
        EXPECT_TRUE(s.name.starts_with("gmgate_")) << s.name;
        if (s.kind == metrics::Kind::counter) {
            EXPECT_TRUE(s.name.ends_with("_total")) << s.name;
        }
        for (const auto& [k, v] : s.labels) other |= v == "other" && s.value == 1;
    }
    EXPECT_TRUE(other);
}

}  // namespace
}  // namespace gmgate::registration
