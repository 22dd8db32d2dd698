#include "control/sip/framer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/support/heap_search.h"
#include "tests/unit/sip/corpus.h"

namespace gmgate::sip {
namespace {

std::string message(const std::string& body = "", const std::string& extra = "") {
    return "MESSAGE sip:b SIP/2.0\r\nTo: x\r\n" + extra +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

// Everything there is, as kind letter plus octets: "m…", "p" ping, "o" pong, "e" error.
std::vector<std::string> drain(StreamFramer& framer) {
    std::vector<std::string> out;
    while (true) {
        const auto f = framer.next();
        switch (f.kind) {
            case FrameKind::none:
                return out;
            case FrameKind::message:
                out.push_back("m" + std::string(f.bytes));
                break;
            case FrameKind::ping:
                out.emplace_back("p");
                break;
            case FrameKind::pong:
                out.emplace_back("o");
                break;
            case FrameKind::error:
                out.emplace_back("e" + std::string(text(f.status)));
                return out;
        }
    }
}

std::vector<std::string> framed(const std::string& stream,
                                StreamFramer::Side side = StreamFramer::Side::server) {
    StreamFramer f(side);
    f.feed(stream);
    return drain(f);
}

std::string error_of(ParseStatus s) {
    return "e" + std::string(text(s));
}

TEST(FramerTest, AnyCutGivesTheSame) {
    const auto stream = message("body1") + "\r\n\r\n" + message() + message("\r\n\r\nx") +
                        "\r\n\r\n\r\n\r\n" + message("last");
    const std::vector<std::string> expected{"m" + message("body1"),     "p", "m" + message(),
                                            "m" + message("\r\n\r\nx"), "p", "p",
                                            "m" + message("last")};
    EXPECT_EQ(framed(stream), expected);
    for (std::size_t step = 1; step < 40; ++step) {
        StreamFramer f;
        std::vector<std::string> got;
        for (std::size_t at = 0; at < stream.size(); at += step) {
            f.feed(std::string_view(stream).substr(at, step));
            for (auto& x : drain(f)) got.push_back(std::move(x));
        }
        EXPECT_EQ(got, expected) << step;
        EXPECT_EQ(f.pending(), 0U);
    }
}

TEST(FramerTest, Keepalives) {
    EXPECT_EQ(framed("\r\n"), std::vector<std::string>{});
    EXPECT_EQ(framed("\r\n\r"), std::vector<std::string>{});
    EXPECT_EQ(framed("\r\n\r\n"), std::vector<std::string>{"p"});
    EXPECT_EQ(framed("\r\n" + message()), (std::vector<std::string>{"o", "m" + message()}));
    EXPECT_EQ(framed("\r\n", StreamFramer::Side::client), std::vector<std::string>{"o"});
    EXPECT_EQ(framed("\r\n\r\n", StreamFramer::Side::client), (std::vector<std::string>{"o", "o"}));
}

TEST(FramerTest, WhatClosesTheConnection) {
    EXPECT_EQ(framed("\x16\x03\x01 a TLS hello"),
              std::vector<std::string>{error_of(ParseStatus::bad_start_line)});
    EXPECT_EQ(framed("\rX"), std::vector<std::string>{error_of(ParseStatus::bad_line_end)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nTo: x\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::content_length_missing)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::content_length_twice)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nl: x\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::bad_content_length)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nl: 65536\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::body_too_large)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nl: 65535\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::body_too_large)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\ngarbage\r\nl: 0\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::bad_header_name)});
    EXPECT_EQ(framed("MESSAGE sip:b SIP/2.0\r\nX: a\nl: 5\r\nl: 0\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::bad_line_end)});
    EXPECT_EQ(framed("one line\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::bad_start_line)});
    EXPECT_EQ(framed("oneword\r\n\r\n"),
              std::vector<std::string>{error_of(ParseStatus::bad_start_line)});
    EXPECT_EQ(framed(std::string(10000, 'a')),
              std::vector<std::string>{error_of(ParseStatus::uri_too_long)});
    EXPECT_EQ(framed("A sip:b SIP/2.0\r\n" + std::string(66000, 'a')),
              std::vector<std::string>{error_of(ParseStatus::message_too_large)});
    // It stays closed.
    StreamFramer f;
    f.feed("\x16");
    EXPECT_EQ(f.next().kind, FrameKind::error);
    f.feed(message());
    EXPECT_EQ(f.next().kind, FrameKind::error);
    f.clear();
    f.feed(message());
    EXPECT_EQ(f.next().kind, FrameKind::message);
}

TEST(FramerTest, StartLineFaultsAreTheReaders) {
    const std::string odd = "MESSAGE sip:b SIP/3.0\r\nl: 2\r\n\r\nab";
    EXPECT_EQ(framed(odd + message()), (std::vector<std::string>{"m" + odd, "m" + message()}));
}

TEST(FramerTest, ErrorsShowTheHeadForAnAnswer) {
    StreamFramer f;
    const std::string head =
        "MESSAGE sip:b SIP/2.0\r\nVia: v\r\nFrom: f\r\nTo: t\r\nCall-ID: i\r\nCSeq: 1 "
        "MESSAGE\r\n\r\n";
    f.feed(head);
    const auto frame = f.next();
    ASSERT_EQ(frame.kind, FrameKind::error);
    Message m;
    m.parse(frame.bytes, Framing::stream_head);
    EXPECT_TRUE(m.answerable());
}

// S1: a 401 holds keys. Its reader wipes the message it was given; what growing, moving and going
// leaves behind is the framer's.
TEST(FramerTest, NothingOfAMessageStaysOnTheHeap) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer keeps its heap elsewhere: there is none to look through for keys";
#endif
    // On the stack and disguised, so that the only copies on the heap are the framer's.
    std::array<char, 16> disguised{};
    for (std::size_t i = 0; i < disguised.size(); ++i)
        disguised[i] = static_cast<char>(0x5A ^ (0xC1 + 7 * static_cast<int>(i)));
    std::array<char, 160> second{};
    const std::string_view head = "MESSAGE sip:b SIP/2.0\r\nTo: x\r\nContent-Length: 96\r\n\r\n";
    std::size_t size = 0;
    for (const char c : head) second[size++] = c;
    for (int i = 0; i < 6; ++i) {
        for (const char c : disguised) second[size++] = static_cast<char>(c ^ 0x5A);
    }
    const std::string_view whole(second.data(), size);
    const std::span<const std::uint8_t> key(
        reinterpret_cast<const std::uint8_t*>(second.data() + head.size()), 16);
    ASSERT_EQ(gmgate::test::on_the_heap(key), 0U);
    {
        // One message and half of the next at once; the half moves to the front.
        StreamFramer framer;
        std::array<char, 320> both{};
        std::ranges::copy(whole, both.begin());
        std::ranges::copy(whole, both.begin() + static_cast<std::ptrdiff_t>(whole.size()));
        framer.feed(std::string_view(both.data(), whole.size() + 100));
        const auto wiped = [](const Frame& f) {
            std::ranges::fill(const_cast<char*>(f.bytes.data()),
                              const_cast<char*>(f.bytes.data()) + f.bytes.size(), '0');
        };
        Frame f = framer.next();
        ASSERT_EQ(f.kind, FrameKind::message);
        wiped(f);
        ASSERT_EQ(framer.next().kind, FrameKind::none);
        EXPECT_GT(gmgate::test::on_the_heap(key), 0U) << "the search finds what is there";
        framer.feed(whole.substr(100));
        f = framer.next();
        ASSERT_EQ(f.kind, FrameKind::message);
        wiped(f);
        EXPECT_EQ(gmgate::test::on_the_heap(key), 0U) << "moved to the front";
        ASSERT_EQ(framer.next().kind, FrameKind::none);
        // Octet by octet, so that it grows often; then the connection goes in the middle.
        for (const char c : whole.substr(0, size - 1)) framer.feed(std::string_view(&c, 1));
        ASSERT_EQ(framer.next().kind, FrameKind::none);
    }
    EXPECT_EQ(gmgate::test::on_the_heap(key), 0U);
}

TEST(FramerTest, LargestMessageAndNoMore) {
    const auto base = message("").size() + 4;  // four more digits in Content-Length
    const auto largest = message(std::string(max_message - base, 'b'));
    ASSERT_EQ(largest.size(), max_message);
    EXPECT_EQ(framed(largest), std::vector<std::string>{"m" + largest});
    EXPECT_EQ(framed(message(std::string(max_message - base + 1, 'b'))),
              std::vector<std::string>{error_of(ParseStatus::body_too_large)});
}

TEST(FramerTest, RandomStreamsNeverGrow) {
    SeededRandom random(3);
    const std::string alphabet = "A: \r\nl0159SIP/2.0sip:b\"<";
    for (int round = 0; round < 3000; ++round) {
        StreamFramer f(round % 2 == 0 ? StreamFramer::Side::server : StreamFramer::Side::client);
        for (int piece = 0; piece < 20; ++piece) {
            std::string bytes;
            if (random.below(3) == 0) bytes = message(std::string(random.below(5), 'b'));
            for (auto n = random.below(30); n > 0; --n)
                bytes += alphabet[random.below(alphabet.size())];
            f.feed(bytes);
            drain(f);
            ASSERT_LE(f.pending(), max_message);
        }
    }
}

}  // namespace
}  // namespace gmgate::sip
