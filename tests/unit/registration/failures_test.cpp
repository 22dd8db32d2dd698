// The list of failed registrations and the lines the log gets.

#include "control/registration/failures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/log.h"

namespace gmgate::registration {
namespace {

using namespace std::chrono_literals;

const Endpoint source = *Endpoint::parse("10.2.0.1:5060");

TEST(Failures, NewestFirstAndCut) {
    FailureLog log(2);
    EXPECT_TRUE(log.latest(5).empty());
    EXPECT_FALSE(log.total(Reason::core_timeout));
    const std::string long_name(200, 'a');
    for (int i = 0; i < 3; ++i)
        log.add(TimePoint{} + std::chrono::seconds(i), Reason::core_timeout, 504, source,
                long_name);
    const auto latest = log.latest(5);
    ASSERT_EQ(latest.size(), 2U);
    EXPECT_EQ(latest[0].time, TimePoint{} + 2s);
    EXPECT_EQ(latest[0].impi_text().size(), 80U);
    EXPECT_EQ(latest[0].status, 504);
    EXPECT_TRUE(latest[0].is_of(long_name)) << "found by its whole name, too";
    EXPECT_FALSE(latest[0].is_of("a"));
    EXPECT_FALSE(latest[0].is_of(""));
    EXPECT_EQ(log.total(Reason::core_timeout)->count, 3U) << "all of them, not only those kept";
    EXPECT_EQ(log.count(), 3U);
}

TEST(Failures, AFloodOfOneReasonDoesNotPushOutTheOthers) {
    FailureLog log(4);
    log.add(TimePoint{}, Reason::verify_mismatch, 403, source, "alice@home");
    for (int i = 0; i < 1000; ++i) log.add(TimePoint{} + 1s, Reason::rate_source, 0, source, {});
    log.add(TimePoint{} + 2s, Reason::core_error, 500, source, "bob@home");
    const auto all = log.latest(100);
    ASSERT_EQ(all.size(), 6U);
    EXPECT_EQ(all.front().reason, Reason::core_error);
    EXPECT_EQ(all.back().reason, Reason::verify_mismatch);
    EXPECT_EQ(log.latest(100, Reason::rate_source).size(), 4U);
    EXPECT_EQ(log.latest(2, Reason::rate_source).size(), 2U);
    ASSERT_EQ(log.latest(100, std::nullopt, "alice@home").size(), 1U);
    EXPECT_EQ(log.total(Reason::verify_mismatch)->last.impi_text(), "alice@home");
    EXPECT_EQ(log.latest(3).size(), 3U);
    EXPECT_EQ(log.latest(3).front().number, 1002U);
}

TEST(Failures, PrintableCannotLeaveItsQuotes) {
    EXPECT_EQ(printable("alice@home"), "alice@home");
    EXPECT_EQ(printable("a\"b\\c\nd\x7f\xff"), "a\\x22b\\x5cc\\x0ad\\x7f\\xff");
    EXPECT_EQ(printable(std::string(100, 'x'), 5), "xxxxx...");
    EXPECT_EQ(printable(""), "");
}

struct ReporterTest : testing::Test {
    void SetUp() override { log::configure(log::Level::info, false); }
    void TearDown() override { log::configure(log::Level::off, false); }
    void fail(Reason reason, std::string_view impi, std::string_view remark = {}) {
        FailureRecord r;
        r.reason = reason;
        r.status = 403;
        r.source = source.address;
        r.source_port = source.port;
        reporter.report(r, impi, remark);
    }
    static std::ptrdiff_t lines(const std::string& text) {
        return std::count(text.begin(), text.end(), '\n');
    }
    ManualClock clock;
    TimerWheel timers{clock};
    FailureReporter reporter{timers};
};

TEST_F(ReporterTest, OneLineSaysWhatWhoAndWhatToDo) {
    testing::internal::CaptureStderr();
    fail(Reason::verify_mismatch, "alice@home", "list cut");
    fail(Reason::no_authorization, "");
    const std::string out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(out,
              "warning registration: failed: verify_mismatch [C8]: \"alice@home\" from "
              "10.2.0.1:5060, answered 403: SM7's Security-Verify is not the list we sent. (list "
              "cut) Somebody altered the negotiation (bidding down), or the phone is broken.\n"
              "info    registration: failed: no_authorization [B1]: a phone without an identity "
              "from 10.2.0.1:5060, answered 403: A REGISTER names no private identity in "
              "Authorization. The phone must use IMS AKA; early-IMS and digest-only phones are "
              "not served.\n");
}

TEST_F(ReporterTest, AHostileNameIsEscapedAndBounded) {
    testing::internal::CaptureStderr();
    fail(Reason::malformed,
         "x\" from 1.2.3.4, answered 200\r\nwarning forged\x1b[2J" + std::string(60'000, 'A'));
    const std::string out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(lines(out), 1);
    EXPECT_EQ(out.find('\x1b'), std::string::npos);
    EXPECT_EQ(out.find("x\" from"), std::string::npos);
    EXPECT_LT(out.size(), 600U);
}

TEST_F(ReporterTest, AFloodIsCountedNotWritten) {
    testing::internal::CaptureStderr();
    for (int i = 0; i < 10'000; ++i) fail(Reason::rate_source, {});
    fail(Reason::core_error, "alice@home");
    std::string out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(lines(out), 11) << "the flood has its ten lines, the other its own";
    EXPECT_NE(out.find("failed: core_error"), std::string::npos);
    EXPECT_EQ(reporter.suppressed(), 9990U);

    testing::internal::CaptureStderr();
    clock.advance(10s);
    timers.advance();
    out = testing::internal::GetCapturedStderr();
    EXPECT_EQ(out,
              "warning registration: not logged in the last 10 s, there were too many: 9990 "
              "rate_source; 'gmctl reg failures' lists the latest\n");
    EXPECT_EQ(timers.size(), 0U) << "told once";

    // Ten seconds earned five lines.
    testing::internal::CaptureStderr();
    for (int i = 0; i < 10; ++i) fail(Reason::rate_source, {});
    EXPECT_EQ(lines(testing::internal::GetCapturedStderr()), 5);
}

TEST_F(ReporterTest, WhatIsNotToldYetIsToldAtTheStop) {
    testing::internal::CaptureStderr();
    reporter.tell();
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "there is nothing to tell";
    testing::internal::CaptureStderr();
    for (int i = 0; i < 25; ++i) fail(Reason::shutdown, "alice@home");
    EXPECT_EQ(lines(testing::internal::GetCapturedStderr()), 10);
    testing::internal::CaptureStderr();
    reporter.tell();
    EXPECT_NE(testing::internal::GetCapturedStderr().find("too many: 15 shutdown;"),
              std::string::npos);
    testing::internal::CaptureStderr();
    clock.advance(10s);
    timers.advance();
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "once";
}

TEST_F(ReporterTest, AllReasonsTogetherAreBounded) {
    testing::internal::CaptureStderr();
    for (int round = 0; round < 20; ++round) {
        for (std::size_t i = 1; i < reason_count; ++i) fail(static_cast<Reason>(i), "a");
    }
    EXPECT_EQ(lines(testing::internal::GetCapturedStderr()), 100);
    EXPECT_EQ(reporter.suppressed(), 20 * (reason_count - 1) - 100);
}

TEST_F(ReporterTest, WhatIsNotLoggedAtThisLevelIsNotCountedAsSuppressed) {
    log::configure(log::Level::warn, false);
    testing::internal::CaptureStderr();
    for (int i = 0; i < 100; ++i) fail(Reason::malformed, "a");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    EXPECT_EQ(reporter.suppressed(), 0U);
    EXPECT_EQ(timers.size(), 0U);
}

}  // namespace
}  // namespace gmgate::registration
