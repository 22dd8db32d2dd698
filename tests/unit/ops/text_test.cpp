// Numbers, ages, tables and ladders as text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "control/cli/ladder.h"
#include "control/cli/text.h"
#include "control/ops/protocol.h"
#include "tests/unit/ops/fake_views.h"

namespace gmgate::cli {
namespace {

TEST(Text, Numbers) {
    EXPECT_EQ(count_text(0), "0");
    EXPECT_EQ(count_text(999), "999");
    EXPECT_EQ(count_text(1000), "1,000");
    EXPECT_EQ(count_text(18446744073709551615ULL), "18,446,744,073,709,551,615");
    EXPECT_EQ(bytes_text(999), "999 B");
    EXPECT_EQ(bytes_text(1000), "1.0 kB");
    EXPECT_EQ(bytes_text(1549), "1.5 kB");
    EXPECT_EQ(bytes_text(999600), "1.0 MB");
    EXPECT_EQ(bytes_text(18446744073709551615ULL), "18 EB");
    EXPECT_EQ(rate_text(0), "0/s");
    EXPECT_EQ(rate_text(12.34), "12.3/s");
    EXPECT_EQ(rate_text(3200.4), "3,200/s");
    EXPECT_EQ(spi_text(0x1234), "0x00001234");
}

TEST(Text, Ages) {
    EXPECT_EQ(age_text(-5), "0s");
    EXPECT_EQ(age_text(59.9), "59s");
    EXPECT_EQ(age_text(60), "1m00s");
    EXPECT_EQ(age_text(133), "2m13s");
    EXPECT_EQ(age_text(3600 * 3 + 300), "3h05m");
    EXPECT_EQ(age_text(86400 * 4 + 7200), "4d02h");
    EXPECT_EQ(short_time_text(0.000085), "85us");
    EXPECT_EQ(short_time_text(0.0012), "1.2ms");
    EXPECT_EQ(short_time_text(3.44), "3.4s");
    EXPECT_EQ(short_time_text(133), "2m13s");
}

TEST(Text, FitCutsByColumnsAndCleans) {
    const Style plain{};
    const Style drawn{0, false, true};
    EXPECT_EQ(fit("abcdef", 6, plain), "abcdef");
    EXPECT_EQ(fit("abcdef", 4, plain), "abc~");
    EXPECT_EQ(fit("äöüßäö", 4, drawn), "äöü…");
    EXPECT_EQ(fit("a\x1b[31m\nb", 20, plain), "a?[31m?b");
    EXPECT_EQ(fit("abc", 0, plain), "");
    EXPECT_EQ(fit("abc", 1, plain), "~");
}

TEST(Text, Wrap) {
    EXPECT_THAT(wrap("one two  three four", 9), testing::ElementsAre("one two", "three", "four"));
    EXPECT_THAT(wrap("averyverylongword b", 5), testing::ElementsAre("averyverylongword", "b"));
    EXPECT_THAT(wrap("", 5), testing::IsEmpty());
}

TEST(Table, DropsColumnsByPriorityWhenNarrow) {
    const auto render = [](std::size_t width) {
        Table t({{"A", false, 0, 0}, {"BIG", false, 4, 0}, {"EXTRA", false, 0, 1}},
                {width, false, false});
        t.add({"x", "abcdefgh", "12345"});
        return t.render();
    };
    EXPECT_EQ(render(0), "A  BIG       EXTRA\nx  abcdefgh  12345\n");
    EXPECT_EQ(render(18), "A  BIG       EXTRA\nx  abcdefgh  12345\n");
    EXPECT_EQ(render(16), "A  BIG     EXTRA\nx  abcde~  12345\n");
    EXPECT_EQ(render(11), "A  BIG\nx  abcdefgh\n");
    EXPECT_EQ(render(8), "A  BIG\nx  abcd~\n");
}

TEST(Table, LaterPagesKeepTheWidths) {
    Table t({{"A", false, 0, 0}, {"N", true, 0, 0}}, {80, false, false});
    EXPECT_EQ(t.render(), "");
    t.add({"ab", "1"});
    EXPECT_EQ(t.render(), "A   N\nab  1\n");
    t.add({"abc", "2"});
    EXPECT_EQ(t.render(), "a~  2\n");
}

// Through JSON, as gmctl gets it.
std::vector<LadderStep> steps_of(const std::vector<ops::TraceStep>& recorded) {
    std::vector<LadderStep> out;
    for (const ops::TraceStep& s : recorded) out.push_back(ladder_step(ops::to_json(s)));
    return out;
}

TEST(Ladder, GoodRegistration) {
    EXPECT_EQ(render_ladder("001011000000001@ims.example", steps_of(ops::good_registration()),
                            {80, false, false}),
              R"(001011000000001@ims.example
2026-11-21 22:15:03.120 UTC
         UE                        P-CSCF                      core
      0us |- SM1 REGISTER ---------->|                          |  clear
     85us |                          |- SM2 REGISTER ---------->|
    1.2ms |                          |<------ SM5 401 REGISTER -|
    1.2ms |                          * SA set installed         |
    1.3ms |<------ SM6 401 REGISTER -|                          |  clear
    9.4ms |- SM7 REGISTER ---------->|                          |  SA 0x04000003
    9.5ms |                          |- SM8 REGISTER ---------->|
   10.7ms |                          |<----- SM11 200 REGISTER -|
   10.8ms |                          * SA set established       |
   10.8ms |<----- SM12 200 REGISTER -|                          |  SA 0x00001003
)");
}

TEST(Ladder, ShowsWhereItBrokeAndWhy) {
    auto recorded = ops::good_registration();
    recorded.resize(5);
    ops::TraceStep dropped = recorded.back();
    dropped.time += std::chrono::seconds(2);
    dropped.from = dropped.to = ops::Party::gateway;
    dropped.name = "";
    dropped.text = "ESP packet dropped";
    dropped.failed = true;
    dropped.reason =
        "integrity_failure: an ESP packet failed its integrity check and was dropped before SIP "
        "saw it";
    recorded.push_back(dropped);
    dropped.time += std::chrono::seconds(1);  // the phone sends again: the reason is not told twice
    recorded.push_back(dropped);
    ops::TraceStep ended = dropped;
    ended.time += std::chrono::seconds(237);
    ended.text = "procedure ended";
    ended.reason = "authentication_timeout: no answer to the challenge";
    recorded.push_back(ended);
    EXPECT_EQ(render_ladder("a@b", steps_of(recorded), {80, false, false}), R"(a@b
2026-11-21 22:15:03.120 UTC
         UE                        P-CSCF                      core
      0us |- SM1 REGISTER ---------->|                          |  clear
     85us |                          |- SM2 REGISTER ---------->|
    1.2ms |                          |<------ SM5 401 REGISTER -|
    1.2ms |                          * SA set installed         |
    1.3ms |<------ SM6 401 REGISTER -|                          |  clear
     2.0s |                          x ESP packet dropped       |
          |   integrity_failure: an ESP packet failed its integrity check and
          |   was dropped before SIP saw it
     3.0s |                          x ESP packet dropped       |
    4m00s |                          x procedure ended          |
          |   authentication_timeout: no answer to the challenge

Broke after SM6 401 REGISTER: integrity_failure: an ESP packet failed its
integrity check and was dropped before SIP saw it
)");
}

TEST(Ladder, EachRegistrationCountsItsOwnTime) {
    auto recorded = ops::good_registration();
    auto again = ops::good_registration();
    for (auto& s : again) s.time += std::chrono::hours(1);
    recorded.insert(recorded.end(), again.begin(), again.end());
    const std::string text = render_ladder("a@b", steps_of(recorded), {80, false, false});
    EXPECT_THAT(text, testing::HasSubstr("2026-11-21 22:15:03.120 UTC"));
    EXPECT_THAT(text, testing::HasSubstr("\n\n2026-11-21 23:15:03.120 UTC\n"));
}

TEST(Ladder, NeverWiderThanAsked) {
    auto recorded = ops::good_registration();
    recorded[0].text = std::string(300, 'R');
    recorded[3].text = std::string(300, 'e');
    recorded[4].failed = true;
    recorded[4].reason =
        "because of this and that, and of many other things that are told at length here";
    for (const std::size_t asked : {0U, 40U, 72U, 80U, 91U, 100U, 200U}) {
        for (const bool unicode : {false, true}) {
            const std::size_t width = asked == 0 ? 80 : std::clamp<std::size_t>(asked, 72, 100);
            std::istringstream in(
                render_ladder(std::string(300, 'i'), steps_of(recorded), {asked, false, unicode}));
            for (std::string line; std::getline(in, line);)
                EXPECT_LE(columns_of(line), width) << asked << ": " << line;
        }
    }
}

TEST(Ladder, ColourOnlyWhenAsked) {
    const auto steps = steps_of(ops::good_registration());
    EXPECT_EQ(render_ladder("a", steps, {80, false, true}).find('\x1b'), std::string::npos);
    EXPECT_NE(render_ladder("a", steps, {80, true, true}).find('\x1b'), std::string::npos);
}

// A gateway of another version may send what we do not know.
TEST(Ladder, StrangeStepsDoNotHarm) {
    using nlohmann::json;
    std::vector<LadderStep> steps;
    for (const json& j :
         {json(), json(7), json::object(),
          json{{"time_us", "x"}, {"from", 3}, {"spi", -1}, {"failed", "yes"}},
          json{{"time_us", -5}, {"from", "ue"}, {"to", "core"}, {"text", "a\nb"}}}) {
        steps.push_back(ladder_step(j));
    }
    const std::string text = render_ladder("a", steps, {80, false, false});
    EXPECT_THAT(text, testing::HasSubstr("a?b"));
    EXPECT_EQ(render_ladder("a", {}, {80, false, false}), "a\n");
}

}  // namespace
}  // namespace gmgate::cli
