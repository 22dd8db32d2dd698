#include "control/sip/build.h"

#include <gtest/gtest.h>

#include "control/sip/values.h"

namespace gmgate::sip {
namespace {

const std::string request =
    "INVITE sip:b SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1:5070;rport;branch=z9hG4bK1,SIP/2.0/TCP "
    "h2\r\nTimestamp: 54\r\nRecord-Route: <sip:p;lr>\r\n"
    "Via: SIP/2.0/UDP h3\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>\r\ni: id\r\nCSeq: 7 "
    "INVITE\r\nMax-Forwards: 70\r\n\r\n";

std::string response(int code, const ResponseOptions& options) {
    Message m;
    EXPECT_EQ(m.parse(request), ParseStatus::ok);
    std::string out;
    const auto built = build_response(m, code, options, out);
    return built ? out : "error: " + built.error().text;
}

TEST(BuildResponseTest, CopiesWhatTheRfcSays) {
    EXPECT_EQ(response(486, {.to_tag = "tt"}),
              "SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP "
              "192.0.2.1:5070;rport;branch=z9hG4bK1,SIP/2.0/TCP h2\r\nVia: SIP/2.0/UDP h3\r\n"
              "From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=tt\r\nCall-ID: id\r\nCSeq: 7 "
              "INVITE\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(response(100, {.to_tag = "tt"}),
              "SIP/2.0 100 Trying\r\nVia: SIP/2.0/UDP "
              "192.0.2.1:5070;rport;branch=z9hG4bK1,SIP/2.0/TCP h2\r\nVia: SIP/2.0/UDP h3\r\n"
              "From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: id\r\nCSeq: 7 "
              "INVITE\r\nTimestamp: 54\r\nContent-Length: 0\r\n\r\n");
}

TEST(BuildResponseTest, SourceHeadersBody) {
    const HeaderField extra[] = {{"Security-Server", "ipsec-3gpp"}, {"Warning", "399 us \"x\""}};
    EXPECT_EQ(response(200, {.reason = "Fine",
                             .source = Endpoint::parse("198.51.100.7:4000"),
                             .copy_record_route = true,
                             .headers = extra,
                             .content_type = "text/plain",
                             .body = "hello"}),
              "SIP/2.0 200 Fine\r\nVia: SIP/2.0/UDP "
              "192.0.2.1:5070;branch=z9hG4bK1;received=198.51.100.7;rport=4000,SIP/2.0/TCP h2\r\n"
              "Via: SIP/2.0/UDP h3\r\nRecord-Route: <sip:p;lr>\r\nFrom: <sip:a@b>;tag=1\r\nTo: "
              "<sip:c@d>\r\nCall-ID: id\r\n"
              "CSeq: 7 INVITE\r\nSecurity-Server: ipsec-3gpp\r\nWarning: 399 us "
              "\"x\"\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
}

TEST(BuildResponseTest, Refusals) {
    const HeaderField injected[] = {{"X", "a\r\nEvil: b"}};
    EXPECT_TRUE(response(200, {.headers = injected}).starts_with("error"));
    EXPECT_TRUE(response(200, {.reason = "a\r\nb"}).starts_with("error"));
    EXPECT_TRUE(response(99, {}).starts_with("error"));
    EXPECT_TRUE(response(700, {}).starts_with("error"));
    const std::string poor = "OPTIONS sip:b SIP/2.0\r\nCall-ID: x\r\n\r\n";
    Message m;
    ASSERT_EQ(m.parse(poor), ParseStatus::ok);
    std::string out;
    EXPECT_FALSE(build_response(m, 400, {}, out));
}

TEST(BuildResponseTest, AnExistingTagStays) {
    auto tagged = request;
    tagged.replace(tagged.find("t: <sip:c@d>"), 12, "t: <sip:c@d>;tag=old");
    Message m;
    ASSERT_EQ(m.parse(tagged), ParseStatus::ok);
    std::string out;
    ASSERT_TRUE(build_response(m, 404, {.to_tag = "new"}, out));
    EXPECT_NE(out.find("To: <sip:c@d>;tag=old\r\n"), std::string::npos);
}

TEST(RequestBuilderTest, BuildsWhatItsParserReads) {
    RequestBuilder b("MESSAGE", "sip:c@d");
    b.header("Via", {"SIP/2.0/UDP h;branch=", "z9hG4bK1"})
        .header("From", "<sip:a@b>;tag=1")
        .header("To", "<sip:c@d>");
    b.header("Call-ID", "id")
        .header("CSeq", "1 MESSAGE")
        .header("Max-Forwards", "70")
        .body("text/plain", "hi");
    const auto built = b.finish();
    ASSERT_TRUE(built);
    Message m;
    ASSERT_EQ(m.parse(*built, Framing::stream), ParseStatus::ok);
    EXPECT_FALSE(check_request(m));
    EXPECT_EQ(m.body(), "hi");
    EXPECT_EQ(m.value(HeaderId::content_type), "text/plain");
    EXPECT_EQ(top_via(m)->branch, "z9hG4bK1");
}

TEST(RequestBuilderTest, RefusesInjection) {
    EXPECT_FALSE(RequestBuilder("A B", "sip:x").finish());
    EXPECT_FALSE(RequestBuilder("A", "sip:x\r\n").finish());
    EXPECT_FALSE(RequestBuilder("A", "sip:x").header("X", "a\r\nY: b").finish());
    EXPECT_FALSE(RequestBuilder("A", "sip:x").header("X\r\nY", "a").finish());
    EXPECT_TRUE(RequestBuilder("A", "sip:x").header("X", "a\r\n b").finish());
    EXPECT_FALSE(RequestBuilder("A", "sip:x").body("t", std::string(70000, 'x')).finish());
}

}  // namespace
}  // namespace gmgate::sip
