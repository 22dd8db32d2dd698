#include "control/sip/edit.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "base/random.h"
#include "control/sip/values.h"
#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

const std::string head =
    "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/UDP "
    "192.0.2.1:5070;branch=z9hG4bK1;rport\r\nFrom: <sip:a@b>;tag=1\r\n";

// The message after the edit; the text of the error if it failed.
std::string edited(const std::string& bytes,
                   const std::function<void(Edit&, const Message&)>& change) {
    Message m;
    EXPECT_EQ(m.parse(bytes), ParseStatus::ok) << bytes;
    Edit edit(m);
    change(edit, m);
    std::string out;
    const auto done = edit.apply(out);
    return done ? out : "error: " + done.error().text;
}

std::string with(const std::string& headers) {
    return head + headers + "\r\n";
}

TEST(EditTest, NoChangeIsTheSameOctets) {
    for (const auto& f : test::own_corpus("/handsets", ".sip")) {
        EXPECT_EQ(edited(f.bytes, [](Edit&, const Message&) {}), f.bytes) << f.name;
    }
}

TEST(EditTest, PushesOnTop) {
    EXPECT_EQ(
        edited(with(""),
               [](Edit& e, const Message&) { e.push_via({"SIP/2.0/TCP us;branch=", "z9hG4bK2"}); }),
        "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/TCP us;branch=z9hG4bK2\r\n" +
            head.substr(head.find("Via")) + "\r\n");
    EXPECT_EQ(edited(with("v: x\r\nX: y\r\nPath: <sip:q>\r\n"),
                     [](Edit& e, const Message&) {
                         e.push_header(HeaderId::path, {"<sip:p>"});
                         e.push_header(HeaderId::record_route, {"<sip:r1>"});
                         e.push_header(HeaderId::record_route, {"<sip:r2>"});
                     }),
              with("v: x\r\nRecord-Route: <sip:r1>\r\nRecord-Route: <sip:r2>\r\nX: y\r\nPath: "
                   "<sip:p>\r\nPath: <sip:q>\r\n"));
    const std::string bare = "OPTIONS sip:b SIP/2.0\r\n\r\n";
    EXPECT_EQ(edited(bare,
                     [](Edit& e, const Message&) {
                         e.push_via({"V"});
                         e.append_header("X", {"1"});
                     }),
              "OPTIONS sip:b SIP/2.0\r\nVia: V\r\nX: 1\r\n\r\n");
}

TEST(EditTest, AddsRemovesReplacesLines) {
    EXPECT_EQ(
        edited(with("Route: <sip:1>\r\nX: y\r\nP-Odd : 1\r\n 2\r\np-odd:3\r\n"),
               [](Edit& e, const Message& m) {
                   e.add_header(HeaderId::route, {"<sip:2>"});
                   e.remove_all("P-ODD");
                   e.replace(*m.find("x"), {"z", "z"});
                   e.insert_before(*m.find("X"), "Before", {"b"});
                   e.insert_after(*m.find("X"), "After", {"a"});
                   e.append_header("Last", {""});
               }),
        with("Route: <sip:1>\r\nRoute: <sip:2>\r\nBefore: b\r\nX: zz\r\nAfter: a\r\nLast: \r\n"));
    EXPECT_EQ(edited(with("Expires: 1\r\nExpires: 2\r\n"),
                     [](Edit& e, const Message&) { e.set_header(HeaderId::expires, {"3"}); }),
              with("Expires: 3\r\n"));
    EXPECT_EQ(edited(with("Subject:\r\n"),
                     [](Edit& e, const Message&) { e.set_header(HeaderId::subject, {"s"}); }),
              with("Subject: s\r\n"));
    EXPECT_EQ(
        edited(with(""), [](Edit& e, const Message&) { e.set_header(HeaderId::expires, {"3"}); }),
        with("Expires: 3\r\n"));
}

TEST(EditTest, RemovesValuesOfLists) {
    const auto without = [](const std::string& line, const std::string& doomed) {
        return edited(with(line), [&](Edit& e, const Message&) {
            e.remove_values(HeaderId::route, [&](const Value& v) {
                return doomed.find(v.text) != std::string::npos;
            });
        });
    };
    EXPECT_EQ(without("Route: a, b , c\r\n", "a"), with("Route: b , c\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "b"), with("Route: a, c\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "c"), with("Route: a, b\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "ab"), with("Route: c\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "bc"), with("Route: a\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "ac"), with("Route: b\r\n"));
    EXPECT_EQ(without("Route: a, b , c\r\n", "abc"), with(""));
    EXPECT_EQ(without("Route: a,\r\n b\r\nX: y\r\nRoute: c\r\n", "c"),
              with("Route: a,\r\n b\r\nX: y\r\n"));
    EXPECT_EQ(without("Route: a,\r\n b\r\nX: y\r\nRoute: c\r\n", "b"),
              with("Route: a\r\nX: y\r\nRoute: c\r\n"));
    EXPECT_EQ(without("Route: \"a,\r\nX: y\r\n", "a"),
              "error: unbalanced quotes or brackets in a header to be edited");
    EXPECT_EQ(edited(with("Route: <sip:1,>;x=\",\",<sip:2>\r\n"),
                     [](Edit& e, const Message&) { e.remove_first_value(HeaderId::route); }),
              with("Route: <sip:2>\r\n"));
    EXPECT_EQ(
        edited(with(""), [](Edit& e, const Message&) { e.remove_first_value(HeaderId::via); }),
        "REGISTER sip:home.example SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\n\r\n");
}

TEST(EditTest, OptionTags) {
    EXPECT_EQ(edited(with("Require: sec-agree\r\nProxy-Require: Sec-Agree ,x\r\nk: "
                          "path,sec-agree\r\nSupported:sec-agree, 100rel\r\n"),
                     [](Edit& e, const Message&) { e.remove_option_tag("sec-agree"); }),
              with("Proxy-Require: x\r\nk: path\r\nSupported:100rel\r\n"));
}

TEST(EditTest, SmallFields) {
    EXPECT_EQ(edited(with("Max-Forwards: 0070\r\n"),
                     [](Edit& e, const Message&) { e.set_max_forwards(69); }),
              with("Max-Forwards: 69\r\n"));
    EXPECT_EQ(edited(head + "\r\n", [](Edit& e, const Message&) { e.set_max_forwards(70); }),
              head.substr(0, head.find("From")) + "Max-Forwards: 70\r\n" +
                  head.substr(head.find("From")) + "\r\n");
    EXPECT_EQ(edited(with("") + "body", [](Edit& e, const Message&) { e.ensure_content_length(); }),
              with("Content-Length: 4\r\n") + "body");
    EXPECT_EQ(edited(with("l: 4\r\n") + "body",
                     [](Edit& e, const Message&) { e.ensure_content_length(); }),
              with("l: 4\r\n") + "body");
    EXPECT_EQ(edited(with("l: 4\r\n") + "body",
                     [](Edit& e, const Message&) { e.set_content_length(12); }),
              with("l: 12\r\n") + "body");
    EXPECT_EQ(edited(with(""),
                     [](Edit& e, const Message&) { e.replace_request_uri({"sip:other", ";lr"}); })
                  .substr(0, 32),
              "REGISTER sip:other;lr SIP/2.0\r\nV");
}

TEST(EditTest, StampsTheTopVia) {
    const auto stamped = [](const std::string& via, const char* source) {
        const auto all =
            edited("OPTIONS sip:b SIP/2.0\r\nVia: " + via + "\r\nX: y\r\n\r\n",
                   [&](Edit& e, const Message&) { e.stamp_top_via(*Endpoint::parse(source)); });
        if (all.starts_with("error")) return all;
        Message m;
        EXPECT_EQ(m.parse(all), ParseStatus::ok);
        return std::string(*m.value(HeaderId::via));
    };
    EXPECT_EQ(stamped("SIP/2.0/UDP 192.0.2.1", "192.0.2.1:5060"), "SIP/2.0/UDP 192.0.2.1");
    EXPECT_EQ(stamped("SIP/2.0/UDP 192.0.2.1", "192.0.2.2:5060"),
              "SIP/2.0/UDP 192.0.2.1;received=192.0.2.2");
    EXPECT_EQ(stamped("SIP/2.0/UDP host.example ;a=b , SIP/2.0/UDP x", "192.0.2.2:5060"),
              "SIP/2.0/UDP host.example ;a=b;received=192.0.2.2 , SIP/2.0/UDP x");
    EXPECT_EQ(stamped("SIP/2.0/UDP 192.0.2.1;rport;branch=b", "192.0.2.1:999"),
              "SIP/2.0/UDP 192.0.2.1;rport=999;branch=b;received=192.0.2.1");
    EXPECT_EQ(
        stamped("SIP/2.0/UDP 192.0.2.1;rport=1;received=6.6.6.6;branch=b;rport=2;received=7.7.7.7",
                "192.0.2.9:999"),
        "SIP/2.0/UDP 192.0.2.1;rport=999;received=192.0.2.9;branch=b");
    EXPECT_EQ(stamped("SIP/2.0/UDP 192.0.2.1;received=6.6.6.6;branch=b", "192.0.2.1:999"),
              "SIP/2.0/UDP 192.0.2.1;branch=b");
    EXPECT_EQ(stamped("SIP/2.0/UDP [2001:db8::1]:5", "[2001:db8:0:0::1]:5"),
              "SIP/2.0/UDP [2001:db8::1]:5");
    EXPECT_EQ(stamped("SIP/2.0/UDP [2001:db8::1]:5", "[2001:db8::2]:5"),
              "SIP/2.0/UDP [2001:db8::1]:5;received=2001:db8::2");
    EXPECT_EQ(stamped("SIP/2.0/UDP ;;", "192.0.2.1:1"), "error: no top Via that can be read");
}

TEST(EditTest, AuthenticationParameters) {
    const auto remove = [](const std::string& value) {
        return edited(with("WWW-Authenticate: " + value + "\r\n"), [](Edit& e, const Message&) {
            e.remove_auth_params(HeaderId::www_authenticate, {"ck", "ik"});
        });
    };
    const auto line = [](const std::string& value) {
        return with("WWW-Authenticate: " + value + "\r\n");
    };
    EXPECT_EQ(remove("Digest a=\"1\", ck=\"x\", ik=\"y\""), line("Digest a=\"1\""));
    EXPECT_EQ(remove("Digest ck=\"x\", ik=\"y\",a=\"1\""), line("Digest a=\"1\""));
    EXPECT_EQ(remove("Digest CK=x,a=\"ck=1,\" ,\r\n ik =\r\n \"y\" , b=2"),
              line("Digest a=\"ck=1,\" ,\r\n b=2"));
    EXPECT_EQ(remove("Digest ck=x, ik=y"), line("Digest "));
    EXPECT_EQ(remove("Digest a=1, ck=x, b=2, ck=z,ik=y"), line("Digest a=1, b=2"));
    EXPECT_EQ(remove("Digest a=1"), line("Digest a=1"));
    // A header that hides a key from us must not leave.
    EXPECT_TRUE(remove("Digest a=\"1, ck=\"x\"").starts_with("error"));
    EXPECT_TRUE(remove("Digest a=1 ck=\"x\"").starts_with("error"));
    EXPECT_TRUE(remove("Basic realm=\"r\", Digest a=1, ck=\"x\"").starts_with("error"));
    EXPECT_TRUE(remove(",Digest a=1,IK\r\n =\"x\"").starts_with("error"));
    EXPECT_EQ(remove("Basic realm=\"r\", tick=1"), line("Basic realm=\"r\", tick=1"));

    const auto set = [](const std::string& value) {
        return edited(with("Authorization: " + value + "\r\n"), [](Edit& e, const Message&) {
            e.set_auth_param(HeaderId::authorization, "integrity-protected", "no");
        });
    };
    const auto auth = [](const std::string& value) {
        return with("Authorization: " + value + "\r\n");
    };
    EXPECT_EQ(set("Digest a=1"), auth("Digest a=1, integrity-protected=\"no\""));
    EXPECT_EQ(set("Digest Integrity-Protected=\"yes\",a=1"),
              auth("Digest integrity-protected=\"no\",a=1"));
    EXPECT_EQ(set("Digest a=1,integrity-protected=yes , "
                  "integrity-protected=\"yes\",integrity-protected=yes,b=2"),
              auth("Digest a=1,integrity-protected=\"no\",b=2"));
    EXPECT_EQ(set("Digest"), auth("Digest integrity-protected=\"no\""));
    EXPECT_EQ(set("Other x"), auth("Other x"));
    EXPECT_TRUE(set("Other x, Digest integrity-protected=\"yes\"").starts_with("error"));
}

TEST(EditTest, FaultsStickAndNothingIsWritten) {
    Message m;
    const auto bytes = with("X: y\r\n");
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    std::string out = "untouched";
    {
        Edit e(m);
        e.append_header("Bad", {"a\r", "\nInjected: x"});
        EXPECT_FALSE(e.ok());
        EXPECT_FALSE(e.apply(out));
        EXPECT_EQ(out, "untouched");
    }
    for (const auto& text : {std::string("a\nb"), std::string("a\rb"), std::string("a\r\nb"),
                             std::string("a\0b", 3), std::string("a\r\n")}) {
        Edit e(m);
        e.append_header("Bad", {text});
        EXPECT_FALSE(e.apply(out)) << text;
    }
    {
        Edit e(m);
        e.append_header("Folded", {"a\r\n b"});
        EXPECT_TRUE(e.apply(out));
    }
    {
        Edit e(m);
        e.replace(*m.find("X"), {"1"});
        e.replace(*m.find("X"), {"2"});
        EXPECT_EQ(e.apply(out).error().text, "two changes overlap");
    }
    {
        Edit e(m);
        e.remove(*m.find("X"));
        e.replace(*m.find("X"), {"2"});
        EXPECT_FALSE(e.apply(out));
    }
    {
        Edit e(m);  // cut out twice is cut out once
        e.remove(*m.find("X"));
        e.remove_all("X");
        EXPECT_TRUE(e.apply(out));
        EXPECT_EQ(out, with(""));
    }
    {
        Edit e(m);
        e.append_header("Long", {std::string(Edit::max_text, 'x')});
        EXPECT_FALSE(e.apply(out));
    }
    {
        Edit e(m);
        for (std::size_t i = 0; i <= Edit::max_splices; ++i) e.append_header("N", {""});
        EXPECT_FALSE(e.apply(out));
    }
    {
        Edit e(m);
        e.replace_request_uri({"sip:a b"});
        EXPECT_FALSE(e.apply(out));
    }
    {
        const auto full = with("") + std::string(max_message - with("").size(), 'b');
        Message big;
        ASSERT_EQ(big.parse(full), ParseStatus::ok);
        Edit e(big);
        e.append_header("X", {"y"});
        EXPECT_EQ(e.apply(out).error().kind, ErrorKind::exhausted);
    }
}

TEST(EditTest, IntoACallersBuffer) {
    Message m;
    const auto bytes = with("X: y\r\n");
    ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
    std::array<char, 512> buffer{};
    {
        Edit e(m);
        e.append_header("Z", {"1"});
        const auto n = e.apply(buffer);
        ASSERT_TRUE(n);
        EXPECT_EQ(std::string_view(buffer.data(), *n), with("X: y\r\nZ: 1\r\n"));
        EXPECT_LE(*n, e.size_hint());
    }
    Edit e(m);
    e.append_header("Z", {"1"});
    EXPECT_EQ(e.apply(std::span(buffer).first(20)).error().kind, ErrorKind::exhausted);
}

TEST(EditTest, RandomChangesAgreeWithANaiveModel) {
    // Whole lines only, so that the model is a list of lines.
    SeededRandom random(7);
    for (int round = 0; round < 500; ++round) {
        std::vector<std::string> lines;
        std::string bytes = "OPTIONS sip:b SIP/2.0\r\n";
        const auto n = 1 + random.below(12);
        for (std::uint64_t i = 0; i < n; ++i) {
            lines.push_back("H" + std::to_string(i) + ": " +
                            std::string(1 + random.below(20), 'v') +
                            (random.below(4) == 0 ? "\r\n x\r\n" : "\r\n"));
            bytes += lines.back();
        }
        bytes += "\r\nbody";
        Message m;
        ASSERT_EQ(m.parse(bytes), ParseStatus::ok);
        Edit e(m);
        std::vector<std::string> model(lines.size());
        for (std::size_t i = 0; i < lines.size(); ++i) {
            const auto& h = m.headers()[i];
            switch (random.below(4)) {
                case 0:
                    e.remove(h);
                    break;
                case 1:
                    e.insert_before(h, "B", {"1"});
                    model[i] = "B: 1\r\n" + lines[i];
                    break;
                case 2:
                    e.replace(h, {"new"});
                    model[i] = "H" + std::to_string(i) + ": new\r\n";
                    break;
                default:
                    model[i] = lines[i];
                    break;
            }
        }
        std::string expected = "OPTIONS sip:b SIP/2.0\r\n";
        for (const auto& line : model) expected += line;
        expected += "\r\nbody";
        std::string out;
        ASSERT_TRUE(e.apply(out));
        ASSERT_EQ(out, expected);
    }
}

}  // namespace
}  // namespace gmgate::sip
