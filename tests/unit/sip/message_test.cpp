#include "control/sip/message.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "control/sip/values.h"
#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

const std::string five =
    "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: "
    "<sip:a@b>\r\nCall-ID: c\r\n"
    "CSeq: 1 OPTIONS\r\n";
const std::string options = "OPTIONS sip:b SIP/2.0\r\n" + five;

ParseStatus status_of(std::string_view bytes, Framing framing = Framing::datagram) {
    Message m;
    return m.parse(bytes, framing);
}

std::vector<std::string> list(const Message& m, HeaderId id) {
    std::vector<std::string> out;
    for (const auto& v : m.values(id)) out.emplace_back(v.text);
    return out;
}

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> out;
    ValueSplitter s(text);
    while (const auto v = s.next()) out.emplace_back(*v);
    return out;
}

TEST(MessageTest, IndexesStartLineHeadersAndBody) {
    const std::string bytes =
        options +
        "v : SIP/2.0/TCP h2 ,SIP/2.0/UDP h3\r\nX-Odd: a\r\n\tb\r\nContent-Length: 3\r\n\r\nabcdef";
    Message m;
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    EXPECT_TRUE(m.is_request());
    EXPECT_TRUE(m.is_method("OPTIONS"));
    EXPECT_EQ(m.request_uri(), "sip:b");
    EXPECT_EQ(m.headers().size(), 8U);
    EXPECT_EQ(m.count(HeaderId::via), 2U);
    EXPECT_EQ(list(m, HeaderId::via),
              (std::vector<std::string>{"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "SIP/2.0/TCP h2",
                                        "SIP/2.0/UDP h3"}));
    EXPECT_EQ(m.body(), "abc");
    EXPECT_EQ(m.bytes().size(), bytes.size() - 3);
    EXPECT_EQ(m.content_length(), 3U);
    const auto* odd = m.find("x-odd");
    ASSERT_NE(odd, nullptr);
    EXPECT_TRUE(odd->folded);
    EXPECT_EQ(m.value(*odd), "a\r\n\tb");
    EXPECT_EQ(m.line(*odd), "X-Odd: a\r\n\tb\r\n");
    EXPECT_EQ(m.name(*odd), "X-Odd");
    EXPECT_EQ(m.find("no-such"), nullptr);
    EXPECT_EQ(m.find("via"), m.first(HeaderId::via));
    EXPECT_TRUE(m.answerable());
    EXPECT_EQ(m.head().substr(m.head().size() - 4), "\r\n\r\n");
}

TEST(MessageTest, AnObjectIsReusedWithoutTraces) {
    Message m;
    ASSERT_EQ(m.parse(options + "Route: <sip:r>\r\nContent-Length: 0\r\n\r\n"), ParseStatus::ok);
    const std::string response = "SIP/2.0 200 OK\r\n" + five + "\r\n";
    ASSERT_EQ(m.parse(response), ParseStatus::ok);
    EXPECT_FALSE(m.is_request());
    EXPECT_EQ(m.status_code(), 200);
    EXPECT_EQ(m.reason(), "OK");
    EXPECT_EQ(m.method(), "");
    EXPECT_FALSE(m.has(HeaderId::route));
    EXPECT_FALSE(m.content_length());
    EXPECT_FALSE(m.answerable());
}

TEST(MessageTest, StartLines) {
    const auto start = [](const std::string& line) {
        return status_of(line + "\r\n" + five + "\r\n");
    };
    EXPECT_EQ(start("OPTIONS sip:b SIP/2.0"), ParseStatus::ok);
    EXPECT_EQ(start("OPTIONS sip:b sip/2.0"), ParseStatus::ok);
    EXPECT_EQ(start("OPTIONS sip:b SIP/3.0"), ParseStatus::bad_version);
    EXPECT_EQ(start("OPTIONS sip:b SIP/2.00"), ParseStatus::bad_version);
    EXPECT_EQ(start("OPTIONS sip:b HTTP/1.1"), ParseStatus::bad_start_line);
    EXPECT_EQ(start("OPTIONS sip:b"), ParseStatus::bad_start_line);
    EXPECT_EQ(start("OPTIONS"), ParseStatus::bad_start_line);
    EXPECT_EQ(start(" OPTIONS sip:b SIP/2.0"), ParseStatus::bad_start_line);
    EXPECT_EQ(start("OPT(ONS sip:b SIP/2.0"), ParseStatus::bad_method);
    EXPECT_EQ(start("OPTIONS sip:b\tc SIP/2.0"), ParseStatus::bad_request_uri);
    EXPECT_EQ(start("OPTIONS  SIP/2.0"), ParseStatus::bad_request_uri);
    EXPECT_EQ(start("OPTIONS " + std::string(9000, 'u') + " SIP/2.0"), ParseStatus::uri_too_long);
    // RFC 4475 3.1.2.10. Where the message ends is known all the same.
    EXPECT_EQ(start("OPTIONS sip:b SIP/2.0 \t "), ParseStatus::blanks_after_version);
    EXPECT_EQ(start("OPTIONS sip:b HTTP/1.1 "), ParseStatus::bad_start_line);
    EXPECT_EQ(start("OPTIONS "), ParseStatus::bad_start_line);
    EXPECT_EQ(start("SIP/2.0 200"), ParseStatus::ok);
    EXPECT_EQ(start("SIP/2.0 200 "), ParseStatus::ok);
    EXPECT_EQ(start("SIP/2.0 2000 OK"), ParseStatus::bad_status_code);
    EXPECT_EQ(start("SIP/2.0 20 OK"), ParseStatus::bad_status_code);
    EXPECT_EQ(start("SIP/2.0 099 OK"), ParseStatus::bad_status_code);
    EXPECT_EQ(start("SIP/2.0 700 OK"), ParseStatus::bad_status_code);
    EXPECT_EQ(start("SIP/2.0"), ParseStatus::bad_start_line);
    EXPECT_EQ(start("SIP/2.1 200 OK"), ParseStatus::bad_version);
    EXPECT_EQ(start("\r\n\r\nOPTIONS sip:b SIP/2.0"), ParseStatus::ok);
}

TEST(MessageTest, KeepalivesAreNoMessages) {
    EXPECT_EQ(status_of(""), ParseStatus::empty);
    EXPECT_EQ(status_of("\r\n"), ParseStatus::empty);
    EXPECT_EQ(status_of("\r\n\r\n"), ParseStatus::empty);
    EXPECT_EQ(status_of(std::string_view("\0", 1)), ParseStatus::bad_character);
    EXPECT_EQ(status_of(std::string_view("\0\0\0\0", 4)), ParseStatus::bad_character);
}

TEST(MessageTest, LineEndsAreCrlfAndNothingElse) {
    EXPECT_EQ(status_of("OPTIONS sip:b SIP/2.0\nTo: a\n\n"), ParseStatus::bad_line_end);
    EXPECT_EQ(status_of(options + "X: a\nSecurity-Verify: x\r\n\r\n"), ParseStatus::bad_line_end);
    EXPECT_EQ(status_of(options + "X: a\rSecurity-Verify: x\r\n\r\n"), ParseStatus::bad_line_end);
    EXPECT_EQ(status_of(options + "X: a\r\n\n"), ParseStatus::bad_header_name);
    EXPECT_EQ(status_of(options + "\r\r\n"), ParseStatus::bad_line_end);
    EXPECT_EQ(status_of("no line end at all"), ParseStatus::bad_start_line);
    EXPECT_EQ(status_of(options), ParseStatus::head_not_ended);
    EXPECT_EQ(status_of(options + "\r"), ParseStatus::head_not_ended);
    EXPECT_EQ(status_of(options + "X: y"), ParseStatus::head_not_ended);
    EXPECT_EQ(status_of(options + "X: y\r"), ParseStatus::head_not_ended);
    // An LF in the body is the body's.
    EXPECT_EQ(status_of(options + "\r\na\nb\rc"), ParseStatus::ok);
}

TEST(MessageTest, NulOnlyInAQuotedPair) {
    EXPECT_EQ(status_of(options + std::string("X: \"\\\0\"\r\n\r\n", 11)), ParseStatus::ok);
    EXPECT_EQ(status_of(options + std::string("X: a\0b\r\n\r\n", 10)), ParseStatus::bad_character);
    EXPECT_EQ(status_of(options + std::string("X\0: a\r\n\r\n", 9)), ParseStatus::bad_header_name);
}

TEST(MessageTest, HeaderNames) {
    for (const std::string line :
         {"no colon", ": nothing", "two words: x", "b(d: x", " folded first: x"}) {
        EXPECT_EQ(status_of("OPTIONS sip:b SIP/2.0\r\n" + line + "\r\n" + five + "\r\n"),
                  ParseStatus::bad_header_name)
            << line;
    }
    // The rest is indexed all the same, so that a 400 can be built.
    Message m;
    const std::string bytes = "OPTIONS sip:b SIP/2.0\r\ngarbage\r\n" + five + "\r\n";
    EXPECT_EQ(m.parse(bytes), ParseStatus::bad_header_name);
    EXPECT_TRUE(m.answerable());
    EXPECT_EQ(response_code(m.status()), 400);
    const std::string longest(300, 'n');
    const std::string named = options + longest + ": v\r\n\r\n";
    ASSERT_EQ(m.parse(named), ParseStatus::ok);
    EXPECT_EQ(m.name(m.headers().back()), longest);
    EXPECT_EQ(m.value(m.headers().back()), "v");
}

TEST(MessageTest, Bombs) {
    std::string many = options;
    while (many.size() < 60000) many += "A:b\r\n";
    EXPECT_EQ(status_of(many + "\r\n"), ParseStatus::too_many_headers);
    std::string just = options;
    for (std::size_t i = 5; i < max_headers; ++i) just += "v:x\r\n";
    EXPECT_EQ(status_of(just + "\r\n"), ParseStatus::ok);
    EXPECT_EQ(status_of(just + "v:x\r\n\r\n"), ParseStatus::too_many_headers);
    EXPECT_EQ(status_of(options + "X: " + std::string(20000, 'y') + "\r\n\r\n"),
              ParseStatus::header_too_long);
    std::string folds = options + "X: y";
    for (int i = 0; i < 8000; ++i) folds += "\r\n z";
    EXPECT_EQ(status_of(folds + "\r\n\r\n"), ParseStatus::header_too_long);
    EXPECT_EQ(status_of(options + "\r\n" + std::string(70000, 'b')),
              ParseStatus::message_too_large);
    EXPECT_EQ(status_of(std::string(70000, 'b')), ParseStatus::message_too_large);
    EXPECT_EQ(status_of(std::string(65535, 'b')), ParseStatus::uri_too_long);
    Message m;
    const std::string exact = options + "\r\n" + std::string(max_message - options.size() - 2, 'b');
    ASSERT_EQ(m.parse(exact), ParseStatus::ok);
    EXPECT_EQ(m.bytes().size(), max_message);
}

TEST(MessageTest, ContentLength) {
    const auto body = [](const std::string& headers, const std::string& text,
                         Framing framing = Framing::datagram) {
        return status_of(options + headers + "\r\n" + text, framing);
    };
    EXPECT_EQ(body("l: 3\r\n", "abc"), ParseStatus::ok);
    EXPECT_EQ(body("l: 4\r\n", "abc"), ParseStatus::body_too_short);
    EXPECT_EQ(body("l: 2\r\n", "abc"), ParseStatus::ok);
    EXPECT_EQ(body("l: 00000000000000000003\r\n", "abc"), ParseStatus::ok);
    EXPECT_EQ(body("l: x\r\n", "abc"), ParseStatus::bad_content_length);
    EXPECT_EQ(body("l: -1\r\n", "abc"), ParseStatus::bad_content_length);
    EXPECT_EQ(body("l: +1\r\n", "abc"), ParseStatus::bad_content_length);
    EXPECT_EQ(body("l:\r\n", "abc"), ParseStatus::bad_content_length);
    EXPECT_EQ(body("l: 3\r\nContent-Length: 2\r\n", "abc"), ParseStatus::content_length_twice);
    EXPECT_EQ(body("l: 99999\r\n", "abc"), ParseStatus::body_too_large);
    EXPECT_EQ(body("l: 18446744073709551619\r\n", "abc"), ParseStatus::body_too_large);
    EXPECT_EQ(body("", "abc", Framing::stream), ParseStatus::content_length_missing);
    EXPECT_EQ(body("l: 3\r\n", "abc", Framing::stream), ParseStatus::ok);
    EXPECT_EQ(body("l: 3\r\n", "ab", Framing::stream), ParseStatus::body_too_short);
    EXPECT_EQ(body("l: 3\r\n", "", Framing::stream_head), ParseStatus::ok);
    EXPECT_EQ(body("l: 65535\r\n", "", Framing::stream_head), ParseStatus::body_too_large);
    // What decides about the framing outranks a fault of the start line.
    EXPECT_EQ(status_of("OPTIONS sip:b SIP/3.0\r\n" + five + "\r\n", Framing::stream),
              ParseStatus::content_length_missing);
}

TEST(ValueSplitterTest, CommasInQuotesAndBracketsDoNotCount) {
    EXPECT_EQ(split("a"), (std::vector<std::string>{"a"}));
    EXPECT_EQ(split(""), (std::vector<std::string>{""}));
    EXPECT_EQ(split(" a , b "), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(split("a,,b,"), (std::vector<std::string>{"a", "", "b", ""}));
    EXPECT_EQ(split("\"x,\\\"y\" <sip:a,b>;p=\",\",c"),
              (std::vector<std::string>{"\"x,\\\"y\" <sip:a,b>;p=\",\"", "c"}));
    EXPECT_EQ(split("a\r\n ,\r\n\tb"), (std::vector<std::string>{"a", "b"}));
    for (const auto* open : {"\"a,b", "<a,b", "a,\"b,c\\", "x,<,"}) {
        ValueSplitter s(open);
        while (s.next()) {
        }
        EXPECT_FALSE(s.balanced()) << open;
    }
}

TEST(MessageTest, Tokens) {
    Message m;
    const std::string bytes =
        options + "Require: Path ,SEC-AGREE\r\nRequire:\r\nSupported:\r\n\r\n";
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    EXPECT_TRUE(m.has_token(HeaderId::require, "sec-agree"));
    EXPECT_TRUE(m.has_token(HeaderId::require, "path"));
    EXPECT_FALSE(m.has_token(HeaderId::require, "sec"));
    EXPECT_FALSE(m.has_token(HeaderId::supported, "path"));
    EXPECT_FALSE(m.has_token(HeaderId::proxy_require, "path"));
}

TEST(MessageTest, EveryPrefixAndEveryBrokenOctetIsSurvived) {
    for (const auto& folder : {"/torture", "/handsets"}) {
        for (const auto& f :
             test::own_corpus(folder, std::string(folder) == "/torture" ? ".dat" : ".sip")) {
            Message m;
            for (std::size_t n = 0; n < f.bytes.size(); ++n) {
                // A copy of that size, so that the sanitizer sees a read beyond it.
                const std::vector<char> part(f.bytes.begin(),
                                             f.bytes.begin() + static_cast<std::ptrdiff_t>(n));
                m.parse(std::string_view(part.data(), part.size()));
                if (m.is_request()) (void)check_request(m);
            }
            SeededRandom random(f.bytes.size());
            for (int i = 0; i < 300; ++i) {
                auto broken = f.bytes;
                for (int j = 0; j < 3; ++j)
                    broken[random.below(broken.size())] = static_cast<char>(random.below(256));
                m.parse(broken);
                EXPECT_LE(m.headers().size(), max_headers);
                for (const auto& h : m.headers()) {
                    ASSERT_LE(h.line_begin, h.value_begin);
                    ASSERT_LE(h.value_begin, h.value_end);
                    ASSERT_LE(h.value_end, h.line_end);
                    ASSERT_LE(h.line_end, m.head().size());
                }
            }
        }
    }
}

TEST(MessageTest, EveryStatusHasItsTextAndCode) {
    for (int i = 0; i <= static_cast<int>(ParseStatus::body_too_large); ++i) {
        EXPECT_NE(text(static_cast<ParseStatus>(i)), "unknown") << i;
    }
    EXPECT_EQ(response_code(ParseStatus::ok), 0);
    EXPECT_EQ(response_code(ParseStatus::message_too_large), 513);
    EXPECT_EQ(response_code(ParseStatus::uri_too_long), 414);
    EXPECT_EQ(response_code(ParseStatus::bad_version), 505);
    EXPECT_EQ(response_code(ParseStatus::body_too_large), 413);
    EXPECT_EQ(response_code(ParseStatus::bad_status_code), 0);
    EXPECT_EQ(response_code(ParseStatus::head_not_ended), 400);
}

}  // namespace
}  // namespace gmgate::sip
