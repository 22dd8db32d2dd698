#include "base/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace gmgate::log {
namespace {

struct LogTest : testing::Test {
    void TearDown() override { configure(Level::off, false); }
};

TEST_F(LogTest, LevelsAreParsed) {
    Level level = Level::off;
    EXPECT_TRUE(parse_level("debug", level));
    EXPECT_EQ(level, Level::debug);
    EXPECT_TRUE(parse_level("error", level));
    EXPECT_EQ(level, Level::error);
    EXPECT_FALSE(parse_level("loud", level));
    EXPECT_FALSE(parse_level("", level));
}

TEST_F(LogTest, BelowTheLevelNothingIsWritten) {
    configure(Level::warn, false);
    EXPECT_FALSE(enabled(Level::info));
    EXPECT_TRUE(enabled(Level::error));
    testing::internal::CaptureStderr();
    info("area", "quiet {}", 1);
    warn("area", "heard {}", 2);
    const std::string out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(out.find("quiet"), std::string::npos);
    EXPECT_NE(out.find("heard 2"), std::string::npos);
}

TEST_F(LogTest, AStrangersTextCannotForgeLinesOrFillTheDisk) {
    configure(Level::debug, false);
    testing::internal::CaptureStderr();
    warn("sip", "from {}", std::string("a\r\nerror: forged\x1b[2J"));
    warn("sip", "{}", std::string(100000, 'x'));
    const std::string out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2);
    EXPECT_EQ(out.find('\x1b'), std::string::npos);
    EXPECT_EQ(out.find('\r'), std::string::npos);
    EXPECT_LT(out.size(), 6000U);
}

}  // namespace
}  // namespace gmgate::log
