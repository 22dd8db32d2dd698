// S2, component by component: whatever comes, there is an answer or a counted drop, no crash and no
// growth. tests/smoke/{hostile,hostile_core,torture}_test do it over the wire, tests/fuzz for long.

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "base/bytes.h"
#include "config/config.h"
#include "control/dns/parse.h"
#include "control/ops/protocol.h"
#include "control/sip/reginfo.h"
#include "dataplane/core/classifier.h"
#include "tests/conformance/share.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"
#include "tests/unit/dns/wire.h"

namespace gmgate {
namespace {

using conformance::share;
using dataplane::test::FastPathTest;
using dataplane::test::Octets;

class S2_packets : public FastPathTest {
  protected:
    // What leads to no host, and is counted.
    void expect_dropped(const Octets& frame, const std::string& what) {
        const auto before = total();
        EXPECT_TRUE(inbound({frame}).to_host.empty()) << what;
        EXPECT_EQ(total(), before + 1) << what;
    }
    [[nodiscard]] std::uint64_t total() const {
        std::uint64_t n = 0;
        for (std::size_t i = 0; i < dataplane::drop_reason_count; ++i)
            n += path_->counters().drops[i].get();
        return n;
    }
};

TEST_F(S2_packets, DamagedEspAndNoiseReachNobody) {
    share("packet layer");
    SeededRandom dice(11);
    std::uint32_t sequence = 0;
    std::uint32_t n = 0;
    for (const sa::Suite suite : sa::all_suites) {
        for (const bool v6 : {false, true}) {
            const dataplane::test::Phone phone(n++, suite, v6, random_);
            install(phone);
            const std::size_t esp_at = v6 ? 54 : 34;
            const Octets good = phone.esp_up(++sequence, 60);
            // Each octet of ESP damaged; each length.
            for (std::size_t at = esp_at; at < good.size(); ++at) {
                Octets damaged = good;
                damaged[at] ^= static_cast<std::uint8_t>(1U << dice.below(8));
                expect_dropped(damaged, sa::to_string(suite) + " octet " + std::to_string(at));
            }
            for (std::size_t length = 15; length < good.size(); length += 1 + dice.below(3)) {
                const Octets cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length));
                EXPECT_TRUE(inbound({cut}).to_host.empty()) << length;
            }
            // None of that used its number up.
            EXPECT_EQ(inbound({good}).to_host.size(), 1U) << sa::to_string(suite);
        }
    }
    // Noise, and noise behind good headers: options, extension headers, fragments among it.
    const dataplane::test::Phone phone(n, sa::all_suites[0], false, random_);
    const dataplane::test::Phone phone6(n + 1, sa::all_suites[0], true, random_);
    install(phone);
    install(phone6);
    for (int i = 0; i < 20'000; ++i) {
        const bool v6 = i % 2 == 0;
        Octets frame = (v6 ? phone6 : phone).esp_up(5000, dice.below(300));
        const std::size_t from = i % 5 == 0 ? 0 : 14;
        for (std::size_t k = 0; k <= dice.below(12); ++k)
            frame[from + dice.below(i % 3 == 0 ? frame.size() - from : 40)] =
                static_cast<std::uint8_t>(dice.below(256));
        if (i % 7 == 0) frame.resize(dice.below(frame.size()) + 1);
        for (const Octets& through : inbound({frame}).to_host) {
            // Nothing for a protected port comes through but what was sealed.
            const auto view = dataplane::classify(through);
            if (view.kind != dataplane::PacketKind::udp || through.size() < view.l4 + 4U) continue;
            const unsigned port = load_be16(&through[view.l4 + 2U]);
            const bool sealed = through.size() + 8 < frame.size();
            EXPECT_TRUE(sealed || port != dataplane::test::port_ps) << i;
        }
    }
    EXPECT_EQ(inbound({phone.esp_up(6000, 60)}).to_host.size(), 1U);
    EXPECT_EQ(inbound({phone6.esp_up(6000, 60)}).to_host.size(), 1U);
}

// Lines an operator's tool would never send.
TEST(S2, AnyLineOnTheOperatorsSocketIsAnswered) {
    share("operator");
    const std::string good = R"({"v":1,"id":7,"cmd":"sa.list","impi":"a@b","limit":10})";
    SeededRandom dice(12);
    std::vector<std::string> lines{"",
                                   "{",
                                   std::string(16384, '['),
                                   std::string(16384, '{'),
                                   "{\"v\":1,\"id\":" + std::string(5000, '9') + "}",
                                   "{\"v\":1e999}",
                                   std::string(1000, '\0'),
                                   R"({"v":1,"v":2,"id":1,"cmd":"health"})",
                                   R"({"v":1,"id":-1,"cmd":"sa.list","limit":-1})",
                                   "{\"v\":1,\"id\":1,\"cmd\":\"" + std::string(9000, 'x') + "\"}",
                                   "\"\\ud800\"",
                                   "\xff\xfe{}"};
    for (std::size_t at = 0; at < good.size(); ++at) {
        lines.push_back(good.substr(0, at));
        for (int i = 0; i < 30; ++i) {
            lines.push_back(good);
            lines.back()[at] = static_cast<char>(dice.below(256));
        }
    }
    std::size_t refused = 0;
    for (const std::string& line : lines) {
        const auto request = ops::parse_request(line);
        if (request) continue;
        ++refused;
        EXPECT_FALSE(request.error().code.empty());
        EXPECT_FALSE(request.error().text.empty());
        const std::string answer =
            ops::error_line(request.error().id, request.error().code, request.error().text);
        EXPECT_EQ(answer.find('\n'), answer.size() - 1) << "one line";
        EXPECT_LT(answer.size(), 20'000U);
        EXPECT_FALSE(nlohmann::json::parse(answer, nullptr, false).is_discarded());
    }
    EXPECT_GT(refused, lines.size() / 2);
}

// A configuration that something fell upon: an error with its place, or a sound one.
TEST(S2, ADamagedConfigurationIsRefusedWithItsPlace) {
    share("configuration");
    const std::ifstream file(std::string(GMGATE_SOURCE_DIR) + "/config/gmgated.yaml");
    std::stringstream all;
    all << file.rdbuf();
    const std::string good = all.str();
    ASSERT_GT(good.size(), 1000U);
    SeededRandom dice(13);
    std::size_t refused = 0;
    const auto load = [&](const std::string& text) {
        const auto c = config::load_string(text, "damaged.yaml");
        if (c) return;
        ++refused;
        EXPECT_TRUE(c.error().text.starts_with("damaged.yaml:")) << c.error().text;
    };
    for (int i = 0; i < 400; ++i) {
        std::string text = good;
        for (std::size_t k = 0; k <= dice.below(4); ++k)
            text[dice.below(text.size())] = static_cast<char>(dice.below(256));
        load(text);
        load(good.substr(0, dice.below(good.size())));
    }
    load(std::string(10'000, '['));
    load(std::string(10'000, '-'));
    load("a: &a [" + std::string(2000, 'x') + "]\nb: [*a,*a]\n");
    load("gateway: {name: \"\\0\"}");
    EXPECT_GT(refused, 100U);
}

// Answers of a DNS server that lies, or of somebody who pretends to be one.
TEST(S2, NoAnswerOfTheDnsIsBelievedFurtherThanItCanBeRead) {
    share("DNS");
    using dns::Answer;
    using dns::Type;
    using dns::Wire;
    Wire good;
    good.header(1, 0x8180, 3).question("a.example", 1);
    good.record("a.example", 5, 60, Wire().name("b.example"));
    good.record("b.example", 1, 60, dns::a_record(192, 0, 2, 1));
    good.record("b.example", 1, 60, dns::a_record(192, 0, 2, 2));
    ASSERT_EQ(dns::parse(good.bytes, "a.example", Type::a).addresses.size(), 2U);
    SeededRandom dice(14);
    const auto read = [&](const std::vector<std::uint8_t>& bytes) {
        for (const Type type : {Type::a, Type::aaaa, Type::srv, Type::naptr}) {
            const Answer a = dns::parse(bytes, "a.example", type);
            EXPECT_LE(a.addresses.size() + a.srv.size() + a.naptr.size(), 32U);
            for (const auto& s : a.srv) EXPECT_TRUE(s.target.empty() || dns::is_name(s.target));
        }
    };
    for (std::size_t n = 0; n < good.bytes.size(); ++n) {
        read({good.bytes.begin(), good.bytes.begin() + static_cast<std::ptrdiff_t>(n)});
        for (int i = 0; i < 60; ++i) {
            auto damaged = good.bytes;
            damaged[n] = static_cast<std::uint8_t>(dice.below(256));
            if (i % 2 == 0) damaged[dice.below(damaged.size())] = 0xC0;  // a pointer somewhere
            read(damaged);
        }
    }
    Wire loop;  // a CNAME that comes back, and a name that points at itself
    loop.header(1, 0x8180, 2).question("a.example", 1);
    loop.record("a.example", 5, 60, Wire().name("b.example"));
    loop.record("b.example", 5, 60, Wire().name("a.example"));
    EXPECT_NE(dns::parse(loop.bytes, "a.example", Type::a).outcome, Answer::Outcome::found);
    Wire itself;
    itself.header(1, 0x8180, 1).question("a.example", 1);
    itself.u8(0xC0).u8(static_cast<unsigned>(itself.bytes.size() - 1)).u16(1).u16(1).u32(1).u16(4);
    itself.u32(1);
    EXPECT_NE(dns::parse(itself.bytes, "a.example", Type::a).outcome, Answer::Outcome::found);
    Wire crowd;  // sixty thousand octets of records, and a count that promises more
    crowd.header(1, 0x8180, 65535).question("a.example", 1);
    for (unsigned i = 0; i < 2200; ++i)
        crowd.record("a.example", 1, 60, dns::a_record(10, 0, i >> 8U, i & 0xFFU));
    read(crowd.bytes);
}

// Documents of registration state with XML's own weapons.
TEST(S2, ADocumentThatBombsIsRefused) {
    share("registration event");
    const auto document = [](const std::string& inside) {
        return R"(<?xml version="1.0"?><reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="1" state="full">)" +
               inside + "</reginfo>";
    };
    const std::string aor =
        R"(<registration aor="sip:a@b" id="1" state="active"><contact id="c" state="active" event="registered"><uri>sip:a@c</uri></contact></registration>)";
    ASSERT_TRUE(sip::parse_reginfo(sip::RegProfile::rfc3680, document(aor)).has_value());
    std::string laughs = "<!DOCTYPE r [<!ENTITY a \"aaaaaaaaaa\">";
    for (char c = 'b'; c < 'j'; ++c) {
        laughs += std::string("<!ENTITY ") + c + " \"";
        for (int i = 0; i < 10; ++i) laughs += std::string("&") + static_cast<char>(c - 1) + ";";
        laughs += "\">";
    }
    std::string deep;
    for (int i = 0; i < 20'000; ++i) deep += "<a>";
    std::string many;
    for (int i = 0; i < 500; ++i)
        many += "<registration aor=\"sip:" + std::to_string(i) + "@b\" id=\"1\" state=\"active\"/>";
    for (const std::string& bomb :
         {laughs + "]>" + document("&i;"),
          "<!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>" + document("&x;"), deep,
          document(deep.substr(0, 40'000)), document(many), std::string(100'000, '<'),
          document("<registration aor=\"" + std::string(30'000, 'a') +
                   "\" id=\"1\" state=\"active\"/>"),
          std::string("\0\0\0", 3), document("<registration/>")}) {
        for (const auto profile : {sip::RegProfile::rfc3680, sip::RegProfile::seed}) {
            const auto read = sip::parse_reginfo(profile, bomb);
            EXPECT_FALSE(read.has_value()) << bomb.substr(0, 60);
            if (!read) {
                EXPECT_LT(read.error().text.size(), 200U);
            }
        }
    }
    SeededRandom dice(15);
    const std::string good = document(aor);
    for (int i = 0; i < 20'000; ++i) {
        std::string damaged = good;
        for (std::size_t k = 0; k <= dice.below(3); ++k)
            damaged[dice.below(damaged.size())] = static_cast<char>(dice.below(256));
        const auto read = sip::parse_reginfo(sip::RegProfile::rfc3680, damaged);
        if (read) {
            EXPECT_LE(read->entries.size(), 1U);
        }
    }
}

}  // namespace
}  // namespace gmgate
