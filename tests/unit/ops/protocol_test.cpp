// What a request may be, and what each mistake is answered with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "control/ops/protocol.h"
#include "tests/unit/ops/fake_views.h"

namespace gmgate::ops {
namespace {

using nlohmann::json;

TEST(OpsProtocol, TakesEveryFilter) {
    const auto r = parse_request(
        R"({"v":1,"id":"x7","op":"sa.list","args":{"impi":"a@b","ip":"fd00::1","spi":"0x04000001",)"
        R"("state":"established","cursor":9,"limit":10,"detail":true}})");
    ASSERT_TRUE(r.has_value()) << r.error().text;
    EXPECT_EQ(r->id, json("x7"));
    EXPECT_EQ(r->operation, Operation::sa_list);
    EXPECT_EQ(r->query.impi, "a@b");
    EXPECT_EQ(r->query.ip, IpAddress::parse("fd00::1"));
    EXPECT_EQ(r->query.spi, 0x04000001U);
    EXPECT_EQ(r->query.state, "established");
    EXPECT_EQ(r->cursor, 9U);
    EXPECT_EQ(r->limit, 10U);
    EXPECT_TRUE(r->detail);
}

TEST(OpsProtocol, ArgumentsAndIdMayBeLeftOut) {
    const auto r = parse_request(R"({"v":1,"op":"version"})");
    ASSERT_TRUE(r.has_value());
    EXPECT_TRUE(r->id.is_null());
    EXPECT_TRUE(parse_request(R"({"v":1,"op":"sa.list","args":{}})").has_value());
}

TEST(OpsProtocol, SpiIsANumberOrText) {
    for (const char* spi : {"4660", "\"4660\"", "\"0x1234\"", "\"0X1234\""}) {
        const auto r =
            parse_request(std::string(R"({"v":1,"op":"sa.show","args":{"spi":)") + spi + "}}");
        ASSERT_TRUE(r.has_value()) << spi;
        EXPECT_EQ(r->query.spi, 4660U) << spi;
    }
}

struct Wrong {
    const char* request;
    const char* code;
    const char* text;
};

class OpsWrongRequest : public testing::TestWithParam<Wrong> {};

TEST_P(OpsWrongRequest, IsRefused) {
    const auto r = parse_request(GetParam().request);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().code, GetParam().code);
    EXPECT_THAT(r.error().text, testing::HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(
    All, OpsWrongRequest,
    testing::Values(
        Wrong{"", "bad_request", "one JSON object a line"},
        Wrong{"GET / HTTP/1.1", "bad_request", "one JSON object a line"},
        Wrong{"[1]", "bad_request", "one JSON object a line"},
        Wrong{"\xff\xfe", "bad_request", "one JSON object a line"},
        Wrong{R"({"v":1})", "bad_request", "op, the operation, is missing"},
        Wrong{R"({"op":"version"})", "bad_request", "v, the version"},
        Wrong{R"({"v":2,"op":"version"})", "unsupported_version", "version 1"},
        Wrong{R"({"v":1,"op":"sa.delete"})", "unknown_operation",
              "there is no operation 'sa.delete'"},
        Wrong{R"({"v":1,"op":"version","extra":1})", "bad_request",
              "'extra' is not part of a request"},
        Wrong{R"({"v":1,"op":"version","id":{}})", "bad_request", "id must be"},
        Wrong{R"({"v":1,"op":"version","args":[]})", "bad_request", "args must be an object"},
        Wrong{R"({"v":1,"op":"version","args":{"ip":"::1"}})", "bad_argument",
              "'ip' is not an argument of version"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"ip":"10.0.0"}})", "bad_argument",
              "ip must be an IPv4 or IPv6 address"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"spi":4294967296}})", "bad_argument",
              "spi must be a number of 32 bits"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"spi":"0x"}})", "bad_argument", "spi must be"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"spi":-1}})", "bad_argument", "spi must be"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"limit":0}})", "bad_argument", "limit must be"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"cursor":"1"}})", "bad_argument", "cursor must be"},
        Wrong{R"({"v":1,"op":"sa.list","args":{"keys":true}})", "bad_argument",
              "'keys' is not an argument"},
        Wrong{R"({"v":1,"op":"sa.show"})", "bad_argument", "sa.show needs"},
        Wrong{R"({"v":1,"op":"reg.show"})", "bad_argument", "reg.show needs"},
        Wrong{R"({"v":1,"op":"trace","args":{"impis":["a","a"]}})", "bad_argument",
              "impis must be a list of 1 to 4 different texts"},
        Wrong{R"({"v":1,"op":"trace","args":{"impis":["a","b","c","d","e"]}})", "bad_argument",
              "impis must be a list of 1 to 4 different texts"},
        Wrong{R"({"v":1,"op":"trace","args":{"impis":"a"}})", "bad_argument",
              "impis must be a list of 1 to 4 different texts"},
        Wrong{R"({"v":1,"op":"trace","args":{"impi":"a","impis":["b"]}})", "bad_argument",
              "trace needs impi, or impis"},
        Wrong{R"({"v":1,"op":"trace"})", "bad_argument", "trace needs impi, or impis"},
        Wrong{R"({"v":1,"op":"trace","args":{"impi":""}})", "bad_argument",
              "impi must be a text"}));

// A name of the network that is no UTF-8 must not stop a list.
TEST(OpsProtocol, TextOfAnyOctets) {
    SaRow row = fake_sa(1);
    row.impi = "a\xff\x01\"b@c\n";
    const std::string line = rows_line(7, json::array({to_json(row, true)}));
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
    const json back = json::parse(line);
    EXPECT_EQ(back["rows"][0]["impi"], "a\xEF\xBF\xBD\x01\"b@c\n");
}

// S1: no field of a row is a key.
TEST(OpsProtocol, RowsHaveTheseFieldsOnly) {
    std::vector<std::string> names;
    const json row = to_json(fake_sa(1), true);
    for (const auto& [key, value] : row.items()) names.push_back(key);
    EXPECT_THAT(names, testing::UnorderedElementsAre(
                           "id", "state", "impi", "impus", "ue", "ours", "integrity", "encryption",
                           "spi_uc", "spi_us", "spi_pc", "spi_ps", "port_uc", "port_us", "port_pc",
                           "port_ps", "age_seconds", "expires_in_seconds", "in_packets", "in_bytes",
                           "out_packets", "out_bytes", "integrity_failures", "replays",
                           "highest_out_sequence"));
}

TEST(OpsProtocol, FilterMatchesAnyOfTheFourSpis) {
    const SaRow row = fake_sa(5);
    for (const sa::Spi spi :
         {row.numbers.spi_uc, row.numbers.spi_us, row.numbers.spi_pc, row.numbers.spi_ps}) {
        Query q;
        q.spi = spi;
        EXPECT_TRUE(matches(q, row));
    }
    Query q;
    q.spi = 1;
    EXPECT_FALSE(matches(q, row));
    q = {};
    q.state = "draining";
    EXPECT_FALSE(matches(q, row));
    q = {};
    q.impi = "x";
    EXPECT_FALSE(matches(q, row));
    q = {};
    q.ip = fake_sa(6).ue;
    EXPECT_FALSE(matches(q, row));
}

}  // namespace
}  // namespace gmgate::ops
