#include "home/subscribers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "home/identity.h"
#include "home/local_hss.h"

namespace gmgate::home {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr auto realm = "ims.example";
constexpr auto k_hex = "465b5ce8b199b49faa5f0a2ee238a6bc";
constexpr auto op_hex = "cdc202d5123e20f62b6d676ac72cb318";
constexpr auto opc_hex = "cd63cb71954a9f4e48a5994e37a02baf";
const Bytes seed = *from_hex("00112233445566778899aabbccddeeff");

struct File : testing::Test {
    ~File() override {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    Result<std::vector<Subscriber>> load(const std::string& name, const std::string& text) {
        std::filesystem::create_directories(folder);
        path = folder / name;
        std::ofstream(path) << text;
        return load_subscribers(path, realm);
    }
    // The one line, and that no key is repeated in it.
    std::string error(const std::string& name, const std::string& text) {
        const auto result = load(name, text);
        EXPECT_FALSE(result.has_value());
        if (result) return {};
        EXPECT_THAT(result.error().text, Not(HasSubstr("\n")));
        EXPECT_THAT(result.error().text, Not(HasSubstr("465b5ce8")));
        EXPECT_THAT(result.error().text, StartsWith(path.string() + ":"));
        return result.error().text.substr(path.string().size());
    }
    std::filesystem::path folder = std::filesystem::path(testing::TempDir()) /
                                   ("gmgate_subscribers_" + std::to_string(::getpid()) + "_" +
                                    testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::path path;
};

TEST_F(File, Yaml) {
    const auto s = load("s.yaml", std::string("subscribers:\n"
                                              "  - impi: alice@ims.example\n"
                                              "    impus: [sip:Alice@IMS.example, tel:+49-30-123]\n"
                                              "    k: ") +
                                      k_hex + "\n    opc: " + opc_hex +
                                      "\n    amf: '8000'\n    sqn: 0000000000ff\n"
                                      "    service_route: ['sip:orig@scscf2.example;lr']\n"
                                      "  - imsi: '001010000000001'\n"
                                      "    k: " +
                                      k_hex + "\n    op: " + op_hex + "\n    barred: true\n");
    ASSERT_TRUE(s) << s.error().text;
    ASSERT_EQ(s->size(), 2U);
    const auto& a = (*s)[0];
    EXPECT_EQ(a.impi, "alice@ims.example");
    EXPECT_EQ(a.impus, (std::vector<std::string>{"sip:Alice@ims.example", "tel:+4930123"}));
    EXPECT_EQ(to_hex(a.k.reveal()), k_hex);
    EXPECT_EQ(to_hex(a.opc.reveal()), opc_hex);
    EXPECT_EQ(a.amf, (Amf{0x80, 0}));
    EXPECT_EQ(a.sqn.value(), 255U);
    EXPECT_EQ(a.service_route, std::vector<std::string>{"sip:orig@scscf2.example;lr"});
    EXPECT_FALSE(a.barred);
    const auto& b = (*s)[1];
    EXPECT_EQ(b.impi, "001010000000001@ims.example");
    EXPECT_EQ(b.impus, (std::vector<std::string>{"sip:001010000000001@ims.example",
                                                 "tel:+001010000000001"}));
    EXPECT_EQ(to_hex(b.opc.reveal()), opc_hex);  // from OP
    EXPECT_EQ(b.amf, Amf{});
    EXPECT_TRUE(b.barred);
}

TEST_F(File, SharedIdentities) {
    const auto csv = [](const std::string& shared) {
        return "impi,impus,shared,k,opc\na@x.example,sip:a@x.example sip:both@x.example," + shared +
               "," + k_hex + "," + opc_hex + "\nb@x.example,sip:b@x.example sip:both@x.example," +
               "sip:both@x.example," + k_hex + "," + opc_hex + "\n";
    };
    const auto s = load("s.csv", csv("sip:both@X.example"));
    ASSERT_TRUE(s) << s.error().text;
    for (const auto& each : *s)
        EXPECT_EQ(each.shared, std::vector<std::string>{"sip:both@x.example"});
    EXPECT_THAT(error("s.csv", csv("sip:c@x.example")),
                AllOf(StartsWith(":2:"), HasSubstr("none of its own")));
    EXPECT_THAT(error("s.csv", csv("sip:a@x.example")), HasSubstr("stands for the registration"));
    // Who does not say so has it alone: the HSS, which knows both, refuses.
    auto one = load("s.csv", csv(""));
    ASSERT_TRUE(one) << one.error().text;
    SeededRandom random(1);
    LocalHss hss(random);
    ASSERT_TRUE(hss.add(std::move((*one)[0])));
    const auto refused = hss.add(std::move((*one)[1]));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, HasSubstr("sip:both@x.example of b@x.example"));
}

TEST_F(File, SeveralImplicitSets) {
    const std::string keys = std::string("\n    k: ") + k_hex + "\n    opc: " + opc_hex + "\n";
    const auto yaml = [&](const std::string& lines) {
        return "subscribers:\n  - impi: a@x.example\n" + lines + keys;
    };
    const std::vector<std::string> all{"sip:a@x.example", "tel:+1", "sip:b@x.example"};
    const auto written = load(
        "s.yaml", yaml("    sets:\n      - [sip:a@x.example, tel:+1]\n      - [sip:b@x.example]"));
    ASSERT_TRUE(written) << written.error().text;
    const auto table = load("s.csv", std::string("impi,sets,k,opc\na@x.example,sip:a@x.example "
                                                 "tel:+1 | sip:b@x.example,") +
                                         k_hex + "," + opc_hex + "\n");
    ASSERT_TRUE(table) << table.error().text;
    for (const auto* s : {&written->front(), &table->front()}) {
        EXPECT_EQ(s->impus, all);
        ASSERT_EQ(s->set_count(), 2U);
        EXPECT_EQ(s->set(0).size(), 2U);
        EXPECT_EQ(s->set(1).front(), "sip:b@x.example");
        EXPECT_EQ(s->set_of("tel:+1"), 0U);
        EXPECT_EQ(s->set_of("sip:b@x.example"), 1U);
    }
    EXPECT_THAT(error("s.yaml", yaml("    sets: [sip:a@x.example]")),
                HasSubstr("key 'sets': write a list of lists"));
    EXPECT_THAT(error("s.yaml", yaml("    sets: [[sip:a@x.example], []]")),
                HasSubstr("a set needs an identity"));
    EXPECT_THAT(error("s.yaml", yaml("    sets: [[sip:a@x.example], [sip:a@x.example]]")),
                HasSubstr("stands there twice"));
    EXPECT_THAT(error("s.yaml", yaml("    impus: [sip:a@x.example]\n    sets: [[tel:+1]]")),
                HasSubstr("not both"));
    EXPECT_THAT(error("s.yaml", yaml("    sets: [[sip:a@x.example], [sip:b@x.example]]\n"
                                     "    shared: [sip:b@x.example]")),
                HasSubstr("begin the set with an identity of its own"));
}

TEST_F(File, Csv) {
    const auto s = load(
        "s.csv", std::string("# a comment\r\nimsi, K ,opc,impus,sqn\r\n001010000000001,") + k_hex +
                     "," + opc_hex + ",sip:x@ims.example tel:+1,\r\n\r\n001010000000002," + k_hex +
                     "," + opc_hex + ",,000000000040");
    ASSERT_TRUE(s) << s.error().text;
    ASSERT_EQ(s->size(), 2U);
    EXPECT_EQ((*s)[0].impus, (std::vector<std::string>{"sip:x@ims.example", "tel:+1"}));
    EXPECT_EQ((*s)[0].sqn.value(), 0U);
    EXPECT_EQ((*s)[1].impus.front(), "sip:001010000000002@ims.example");
    EXPECT_EQ((*s)[1].sqn.value(), 64U);
}

TEST_F(File, CsvMistakesNameLineAndColumn) {
    const std::string head = "imsi,k,opc\n";
    const std::string good = std::string("001,") + k_hex + "," + opc_hex + "\n";
    EXPECT_THAT(error("a.csv", ""), HasSubstr("no columns"));
    EXPECT_THAT(error("a.csv", head), HasSubstr("no subscribers"));
    EXPECT_THAT(error("a.csv", "imsi,key,opc\n"),
                StartsWith(":1: column 'key': unknown; known are impi"));
    EXPECT_THAT(error("a.csv", "imsi,k,k\n"), StartsWith(":1: column 'k'"));
    EXPECT_THAT(error("a.csv", head + good + "002," + k_hex + "\n"),
                StartsWith(":3: 2 columns where the first line names 3"));
    EXPECT_THAT(error("a.csv", head + "002,465b5ce8," + opc_hex + "\n"),
                StartsWith(":2: column 'k': not a key"));
    EXPECT_THAT(error("a.csv", head + "002,,465b5ce8\n"), StartsWith(":2: column 'k': missing"));
    EXPECT_THAT(error("a.csv", head + "002," + k_hex + ",465b5ce8x\n"),
                StartsWith(":2: column 'opc': not a key"));
    EXPECT_THAT(error("a.csv", head + "002," + k_hex + ",\n"),
                StartsWith(":2: column 'opc': missing"));
    EXPECT_THAT(error("a.csv", head + "00x," + k_hex + "," + opc_hex + "\n"),
                StartsWith(":2: column 'imsi': '00x' is not an IMSI"));
    EXPECT_THAT(error("a.csv", "k,opc\n" + std::string(k_hex) + "," + opc_hex + "\n"),
                StartsWith(":2: column 'impi': missing"));
    EXPECT_THAT(error("a.csv", head + good + good),
                HasSubstr("belongs to the subscriber of line 2"));
    EXPECT_THAT(
        error("a.csv", "imsi,k,opc,sqn\n001," + std::string(k_hex) + "," + opc_hex + ",12\n"),
        StartsWith(":2: column 'sqn'"));
    EXPECT_THAT(
        error("a.csv", "imsi,k,opc,amf\n001," + std::string(k_hex) + "," + opc_hex + ",80\n"),
        StartsWith(":2: column 'amf'"));
    EXPECT_THAT(error("a.csv", "imsi,k,opc,impus\n001," + std::string(k_hex) + "," + opc_hex +
                                   ",mailto:x@y\n"),
                StartsWith(":2: column 'impus': 'mailto:x@y'"));
    EXPECT_THAT(
        error("a.csv", "imsi,k,opc,barred\n001," + std::string(k_hex) + "," + opc_hex + ",maybe\n"),
        StartsWith(":2: column 'barred'"));
}

TEST_F(File, YamlMistakesNameLineAndKey) {
    const std::string k = std::string("    k: ") + k_hex + "\n";
    const std::string opc = std::string("    opc: ") + opc_hex + "\n";
    EXPECT_THAT(error("a.yaml", "subscribers: [\n"), HasSubstr("not YAML"));
    EXPECT_THAT(error("a.yaml", "phones:\n  - x\n"), StartsWith(":1: key 'subscribers': missing"));
    EXPECT_THAT(error("a.yaml", "subscribers: []\n"), HasSubstr("no subscribers"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: a@b\n    kee: x\n" + opc),
                StartsWith(":3: key 'kee': unknown"));
    EXPECT_THAT(error("a.yaml", "extra: 1\nsubscribers:\n  - impi: a@b\n"),
                StartsWith(":1: key 'extra': unknown"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - alice\n"), StartsWith(":2: not a subscriber"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: sip:a@b c\n" + k + opc),
                StartsWith(":2: key 'impi'"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: a@b\n    imsi: '001'\n" + k + opc),
                HasSubstr("not both"));
    EXPECT_THAT(
        error("a.yaml", "subscribers:\n  - impi: a@b\n" + k + opc + "    op: " + op_hex + "\n"),
        HasSubstr("not both"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: a@b\n    k: [1, 2]\n" + opc),
                StartsWith(":3: key 'k': write one value"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: a@b\n    impus: []\n" + k + opc),
                HasSubstr("key 'impus'"));
    EXPECT_THAT(
        error("a.yaml", "subscribers:\n  - impi: a@b\n    impus: [sip:x@y, SIP:x@Y]\n" + k + opc),
        HasSubstr("twice"));
    EXPECT_THAT(error("a.yaml", "subscribers:\n  - impi: a@b\n    impus: [sip:x@y]\n" + k + opc +
                                    "  - impi: c@d\n    impus: [sip:x@y]\n" + k + opc),
                HasSubstr("belongs to the subscriber of line 2"));
    EXPECT_THAT(
        error("a.yaml", "subscribers:\n  - impi: a@b\n    service_route: [nonsense]\n" + k + opc),
        HasSubstr("key 'service_route': 'nonsense'"));
}

TEST_F(File, MissingFileAndFolder) {
    const auto missing = load_subscribers("/nonexistent/s.yaml", realm);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().kind, ErrorKind::io);
    EXPECT_EQ(missing.error().text,
              "/nonexistent/s.yaml: cannot read the subscribers: No such file or directory");
    EXPECT_FALSE(load_subscribers(testing::TempDir(), realm));
}

TEST(Rule, KeysAreHmacOfSeedAndImsi) {
    // Calculated with Python's hmac.
    const auto rule = SubscriberRule::parse("100000", seed, realm);
    ASSERT_TRUE(rule) << rule.error().text;
    EXPECT_EQ(rule->imsi(0), "001010000000001");
    EXPECT_EQ(to_hex(rule->k(0).reveal()), "55b460e1c3c23c5207db6dd9f4c958a1");
    EXPECT_EQ(to_hex(rule->opc(0).reveal()), "2a1341e0a16b3795f9de872d798d5df2");
    EXPECT_EQ(to_hex(rule->k(99'998).reveal()), "5408581a710f319174a35c3d11743902");
    EXPECT_EQ(to_hex(rule->opc(99'998).reveal()), "f08364e27d212eaee7f085477061cbff");
    EXPECT_EQ(rule->impi(0), "001010000000001@ims.example");
    EXPECT_EQ(rule->impus(0), (std::vector<std::string>{"sip:001010000000001@ims.example",
                                                        "tel:+001010000000001"}));
}

TEST(Rule, FindsItsOwnOnly) {
    const auto rule = SubscriberRule::parse("10:26201", seed, "IMS.example");
    ASSERT_TRUE(rule);
    EXPECT_EQ(rule->find_impi("26201@ims.example"), 0U);
    EXPECT_EQ(rule->find_impi("26210@IMS.EXAMPLE"), 9U);
    EXPECT_EQ(rule->find_impu("sip:26205@ims.example"), 4U);
    EXPECT_EQ(rule->find_impu("tel:+26205"), 4U);
    for (const auto* none :
         {"26200@ims.example", "26211@ims.example", "026205@ims.example", "2620x@ims.example",
          "26205@other", "26205", "@ims.example", "", "+26205@ims.example", "-6205@ims.example"}) {
        EXPECT_EQ(rule->find_impi(none), SubscriberRule::none) << none;
    }
    EXPECT_EQ(rule->find_impu("26205@ims.example"), SubscriberRule::none);
    EXPECT_EQ(rule->find_impu("tel:26205"), SubscriberRule::none);
}

TEST(Rule, Mistakes) {
    for (const auto* bad : {"", "x", "0", "-1", "10:", "10:26x", "10:1234567890123456",
                            "10:999999999999995", "99999999999", "5:99998"}) {
        const auto rule = SubscriberRule::parse(bad, seed, realm);
        EXPECT_FALSE(rule) << bad;
    }
    EXPECT_TRUE(SubscriberRule::parse("2:99998", seed, realm));
    const auto short_seed = SubscriberRule::parse("10", Bytes{1, 2, 3}, realm);
    ASSERT_FALSE(short_seed);
    EXPECT_THAT(short_seed.error().text, HasSubstr("3 octets"));
    EXPECT_FALSE(SubscriberRule::parse("10", seed, ""));
}

TEST(Identity, OneSpelling) {
    EXPECT_EQ(canonical_impu("SIP:Alice@Home.EXAMPLE:5060;transport=tcp?x=y"),
              "sip:Alice@home.example");
    EXPECT_EQ(canonical_impu("sips:a@b"), "sips:a@b");
    EXPECT_EQ(canonical_impu("sip:home.example"), "sip:home.example");
    EXPECT_EQ(canonical_impu("sip:a@[2001:DB8::1]:5060"), "sip:a@[2001:db8::1]");
    EXPECT_EQ(canonical_impu("tel:+49-(30).123;phone-context=x"), "tel:+4930123");
    for (const auto* bad : {"", "alice", "mailto:a@b", "sip:", "sip:@b", "sip:a@", "tel:", "tel:+",
                            "tel:1+2", "tel:abc", "<sip:a@b>", "sip:a b@c"}) {
        EXPECT_FALSE(canonical_impu(bad)) << bad;
    }
    EXPECT_EQ(derived_impi("sip:a@b"), "a@b");
    EXPECT_EQ(derived_impi("sip:b"), "");
    EXPECT_EQ(derived_impi("tel:+1"), "");
}

}  // namespace
}  // namespace gmgate::home
