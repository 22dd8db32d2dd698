#include "ue/load.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/unit/ue/scripted_pcscf.h"
#include "ue/report.h"
#include "ue/subscriber_file.h"

namespace gmgate::ue {
namespace {

TEST(AddressPlan, HostsAndNumbers) {
    const auto n = AddressPlan::parse("10.20.0.0/16");
    ASSERT_TRUE(n);
    EXPECT_EQ(n->host(1).to_string(), "10.20.0.1");
    EXPECT_EQ(n->host(256).to_string(), "10.20.1.0");
    EXPECT_EQ(n->last(), 65534U);
    EXPECT_EQ(n->number(*IpAddress::parse("10.20.1.0")), 256U);
    EXPECT_FALSE(n->number(*IpAddress::parse("10.21.0.1")));
    EXPECT_FALSE(n->number(*IpAddress::parse("10.19.255.255")));
    EXPECT_FALSE(n->number(*IpAddress::parse("fd00::1")));
    const auto v6 = AddressPlan::parse("fd00:20::/64");
    ASSERT_TRUE(v6);
    EXPECT_EQ(v6->host(100000).to_string(), "fd00:20::1:86a0");
    EXPECT_EQ(v6->number(*IpAddress::parse("fd00:20::1:86a0")), 100000U);
    EXPECT_FALSE(v6->number(*IpAddress::parse("fd00:21::1"))) << "the high half counts";
    const auto one = AddressPlan::parse("10.20.0.9");
    ASSERT_TRUE(one);
    EXPECT_TRUE(one->single());
    EXPECT_EQ(one->number(*IpAddress::parse("10.20.0.9")), 0U);
    EXPECT_FALSE(one->number(*IpAddress::parse("10.20.0.10")));
}

TEST(AddressPlan, Errors) {
    for (const char* text : {"", "x", "10.20.0.0/33", "10.20.0.0/", "10.20.0.0/a", "10.20.0.1/16",
                             "0.0.0.0/0", "fd00::/32", "fd00::1/64", "fd00::/129"}) {
        EXPECT_FALSE(AddressPlan::parse(text)) << text;
    }
}

TEST(SubscriberFile, ReadsOpAndOpc) {
    // TS 35.208 set 1: OP and the OPc made of it.
    const auto f = SubscriberFile::parse(
        "# cards\nname,imsi,k,opc,op\n"
        "a,001010000000001,465b5ce8b199b49faa5f0a2ee238a6bc,cd63cb71954a9f4e48a5994e37a02baf,\r\n"
        "b,001010000000002,465B5CE8B199B49FAA5F0A2EE238A6BC,,cdc202d5123e20f62b6d676ac72cb318\n",
        "f");
    ASSERT_TRUE(f) << f.error().text;
    ASSERT_EQ(f->size(), 2U);
    ASSERT_NE(f->find("001010000000002"), nullptr);
    EXPECT_TRUE(f->find("001010000000001")->opc == f->find("001010000000002")->opc);
    EXPECT_EQ(f->find("1"), nullptr);
}

TEST(SubscriberFile, ErrorsNameTheLineAndNeverTheKey) {
    const auto error = [](std::string_view text) {
        const auto f = SubscriberFile::parse(text, "f.csv");
        return f ? std::string("none") : f.error().text;
    };
    EXPECT_NE(error("imsi,k\n").find("f.csv:1"), std::string::npos);
    EXPECT_NE(error("imsi,k,opc\n").find("no subscribers"), std::string::npos);
    EXPECT_NE(error("imsi,k,opc\n12x,00,00\n").find("f.csv:2: column imsi"), std::string::npos);
    const std::string bad = error("imsi,k,opc\n1,465b5ce8b199b49faa5f0a2ee238a6,00\n");
    EXPECT_NE(bad.find("f.csv:2: column k"), std::string::npos);
    EXPECT_EQ(bad.find("465b"), std::string::npos);
    const std::string row = "1,465b5ce8b199b49faa5f0a2ee238a6bc,cd63cb71954a9f4e48a5994e37a02baf\n";
    EXPECT_NE(error("imsi,k,opc\n" + row + row).find("twice"), std::string::npos);
}

TEST(MisbehaviourShare, Forms) {
    EXPECT_EQ(parse_misbehaviour_share("wrong-ik")->phones, 1U);
    EXPECT_EQ(parse_misbehaviour_share("Replay:3")->phones, 3U);
    EXPECT_DOUBLE_EQ(parse_misbehaviour_share("replay:2.5%")->share, 0.025);
    for (const char* text : {"", "none", "x", "replay:", "replay:0", "replay:-1", "replay:1.5",
                             "replay:101%", "replay:%", "replay:1x"}) {
        EXPECT_FALSE(parse_misbehaviour_share(text)) << text;
    }
}

TEST(Latencies, PercentilesAreWithinThreePercent) {
    Latencies l;
    EXPECT_EQ(l.percentile(0.5), Duration{0});
    for (int i = 1; i <= 10000; ++i) l.add(std::chrono::microseconds(i * 10));
    const auto near = [&](double p, double expected_us) {
        const double us = std::chrono::duration<double, std::micro>(l.percentile(p)).count();
        EXPECT_GE(us, expected_us * 0.999);
        EXPECT_LE(us, expected_us * 1.035);
    };
    near(0.5, 50'000);
    near(0.95, 95'000);
    near(0.99, 99'000);
    EXPECT_EQ(l.max(), std::chrono::milliseconds(100));
    EXPECT_EQ(l.percentile(1), std::chrono::milliseconds(100));
    l.add(std::chrono::hours(100));  // beyond the scale: kept, in the last bucket
    l.add(Duration(-5));
    EXPECT_EQ(l.count(), 10002U);
}

TEST(Load, SharesAreSpreadAndEachPhoneHasItsAddress) {
    test::Lab lab;
    LoadOptions o;
    o.phones = 64;
    o.first_phone = 7;
    o.ipv6_share = 0.25;
    o.tcp_share = 0.5;
    o.one_suite_each = true;
    o.misbehave = {{Misbehaviour::wrong_ik, 3, 0}, {Misbehaviour::replay, 1, 0.125}};
    lab.start(o);
    std::size_t v6 = 0, tcp = 0, wrong = 0, replay = 0;
    std::set<IpAddress> addresses;
    std::set<std::uint64_t> imsis;
    for (std::size_t i = 0; i < 64; ++i) {
        const auto& p = lab.load().phone(i).plan();
        v6 += p.address.is_v6() ? 1U : 0U;
        tcp += p.tcp ? 1U : 0U;
        wrong += p.misbehaviour == Misbehaviour::wrong_ik ? 1U : 0U;
        replay += p.misbehaviour == Misbehaviour::replay ? 1U : 0U;
        addresses.insert(p.address);
        imsis.insert(p.imsi);
    }
    EXPECT_EQ(v6, 16U);
    EXPECT_EQ(tcp, 32U);
    EXPECT_EQ(wrong, 3U);
    EXPECT_EQ(replay, 8U);
    EXPECT_EQ(addresses.size(), 64U);
    EXPECT_EQ(*imsis.begin(), 1010000000007U);
    EXPECT_EQ(lab.load().phone(0).identity().impi(), "001010000000007@ims.example");
    ASSERT_TRUE(lab.finish());
    EXPECT_TRUE(lab.load().good());
    EXPECT_EQ(lab.statistics.registered, 61U);
}

TEST(Load, TooFewAddressesOrPhones) {
    test::Lab lab;
    LoadOptions o;
    o.suites = {sa::all_suites[0]};
    o.phones = 300;
    o.net4 = AddressPlan::parse("10.20.0.0/24").value();
    EXPECT_FALSE(Load::make(lab.context, o));
    o.phones = 2;
    o.misbehave = {{Misbehaviour::wrong_ik, 3, 0}};
    EXPECT_FALSE(Load::make(lab.context, o));
    o.misbehave.clear();
    o.ipv6_share = 1;
    EXPECT_FALSE(Load::make(lab.context, o)) << "no IPv6 network";
}

TEST(Load, RateAndWindowAreKept) {
    test::Lab lab;
    LoadOptions o;
    o.phones = 100;
    o.rate = 10;
    o.hold = Duration(-1);
    lab.start(o);
    lab.run(std::chrono::milliseconds(4950));
    EXPECT_GE(lab.statistics.started, 49U);
    EXPECT_LE(lab.statistics.started, 51U);
    lab.run(std::chrono::seconds(6));
    EXPECT_EQ(lab.statistics.registered, 100U);

    test::Lab silent;
    silent.pcscf.script.silent = true;
    o.rate = 0;
    o.max_in_flight = 7;
    silent.start(o);
    silent.run(std::chrono::seconds(5));
    EXPECT_EQ(silent.statistics.started, 7U);
}

TEST(Load, InterruptEndsInOrderAndASecondOneAtOnce) {
    for (const bool stay : {false, true}) {
        test::Lab lab;
        LoadOptions o;
        o.phones = 5;
        o.hold = Duration(-1);
        o.stay = stay;
        lab.start(o);
        lab.run(std::chrono::seconds(1));
        EXPECT_FALSE(lab.over);
        lab.load().interrupt();
        lab.run(std::chrono::seconds(1));
        EXPECT_TRUE(lab.over);
        EXPECT_EQ(lab.statistics.deregistered, stay ? 0U : 5U);
    }
    test::Lab lab;
    lab.pcscf.script.silent = true;
    LoadOptions o;
    o.phones = 5;
    lab.start(o);
    lab.run(std::chrono::milliseconds(100));
    lab.load().interrupt();
    EXPECT_TRUE(lab.over);
    EXPECT_FALSE(lab.load().good());
}

TEST(Load, InterruptLetsARequestUnderWayHaveItsAnswer) {
    for (const bool answered : {true, false}) {
        test::Lab lab;
        lab.context.messages = 20;
        lab.context.message_interval = std::chrono::milliseconds(100);
        LoadOptions o;
        o.hold = Duration(-1);
        lab.start(o);
        lab.run(std::chrono::seconds(1));
        ASSERT_GT(lab.statistics.messages_answered, 2U);
        lab.pcscf.script.silent = true;
        lab.run(std::chrono::milliseconds(200));
        ASSERT_EQ(lab.statistics.messages_sent, lab.statistics.messages_answered + 1);
        lab.load().interrupt();
        lab.run(std::chrono::milliseconds(100));
        EXPECT_FALSE(lab.over);
        const auto lost = answered ? 0U : 1U;
        if (!answered) lab.run(lab.context.times.transaction);
        lab.pcscf.script.silent = false;
        ASSERT_TRUE(lab.finish());
        EXPECT_EQ(lab.statistics.messages_sent, lab.statistics.messages_answered + lost);
        EXPECT_EQ(lab.statistics.deregistered, 1U);
    }
}

TEST(Report, JsonIsWholeAndHoldsNoKey) {
    test::Lab lab;
    LoadOptions o;
    o.phones = 4;
    o.misbehave = {{Misbehaviour::wrong_res, 1, 0}};
    lab.start(o);
    ASSERT_TRUE(lab.finish());
    const std::string text = json_summary(lab.load(), 1.5, 0);
    const auto j = nlohmann::json::parse(text);
    EXPECT_EQ(j["ok"], true);
    EXPECT_EQ(j["phones"], 4);
    EXPECT_EQ(j["registered"], 3);
    EXPECT_EQ(j["misbehaviour"]["wrong-res"]["as_expected"], 1);
    EXPECT_EQ(j["latency_ms"]["whole"]["count"], 3);
    EXPECT_FALSE(text_summary(lab.load(), 1.5, 0).empty());
    EXPECT_LE(progress_line(lab.load(), 40).size(), 40U);
}

// The budget that lets a hundred thousand phones fit: without TCP, a registered phone is its
// object, one set and its keys.
TEST(Load, APhoneIsSmall) {
    EXPECT_LE(sizeof(Phone) + sizeof(SaSet) + sizeof(SaKeys), 1024U);
}

}  // namespace
}  // namespace gmgate::ue
