// RFC 4475 through the gateway (S2): each message as it stands, by a registered phone inside its
// SAs and by anybody in clear, over UDP and TCP. The verdicts are tests/data/torture/verdicts.txt,
// which tests/smoke/torture_test holds the programs to as well. After each: connection, phone and
// gateway are alive, it was counted, and nothing is kept.

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/bytes.h"
#include "control/sip/framer.h"
#include "tests/support/gateway_world.h"

namespace gmgate::test {
namespace {

constexpr std::array<std::string_view, 4> ways{"SA, UDP", "SA, TCP", "clear, UDP", "clear, TCP"};

struct Row {
    std::string file, section;
    std::array<std::string, ways.size()> verdicts;
    std::string why;
};

std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {(std::istreambuf_iterator<char>(in)), {}};
}

const std::filesystem::path folder = std::filesystem::path(GMGATE_TEST_DATA) / "torture";

const std::vector<Row>& table() {
    static const std::vector<Row> rows = [] {
        std::vector<Row> out;
        std::ifstream in(folder / "verdicts.txt");
        for (std::string line; std::getline(in, line);) {
            if (line.empty() || line.starts_with('#')) continue;
            std::vector<std::string> cells;
            std::istringstream cut(line);
            for (std::string cell; std::getline(cut, cell, '|');) cells.emplace_back(trim(cell));
            EXPECT_EQ(cells.size(), 7U) << line;
            if (cells.size() != 7) continue;
            out.push_back(
                {cells[0] + ".dat", cells[1], {cells[2], cells[3], cells[4], cells[5]}, cells[6]});
        }
        return out;
    }();
    return rows;
}

// A phone over UDP and one over TCP, both registered.
struct Lab {
    World w;
    Phone& udp;
    Phone& tcp;
    Lab() : udp(w.phone("udp", "10.2.0.1")), tcp(w.phone("tcp", "10.2.0.2", sip::Transport::tcp)) {
        // Long enough for all that follows.
        w.home.grant = 10'000'000;
        RegisterOptions o;
        o.expires = w.home.grant;
        for (Phone* p : {&udp, &tcp}) EXPECT_TRUE(p->challenged(false, o) && p->answered(o));
        w.settled();
    }

    // What became of these octets, in the table's words.
    std::string send(std::size_t way, const std::string& octets) {
        const bool stream = way % 2 == 1;
        const bool on_sa = way < 2;
        Phone& p = stream ? tcp : udp;
        const auto& n = p.current().numbers;
        const sip::ConnectionId connection = stream ? ++w.next_connection : 0;
        const sip::Flow flow{
            p.transport,
            Endpoint{World::gm_address(p.address), on_sa ? n.port_ps : std::uint16_t{5060}},
            Endpoint{p.address, on_sa ? n.port_uc : std::uint16_t{5060}}, connection};
        p.inbox.clear();
        w.home.inbox.clear();
        std::string said;
        const auto say = [&](std::string_view word) {
            said += (said.empty() ? "" : " ") + std::string(word);
        };
        // What the gateway answers itself, and what the far end does (200), in order.
        const auto listen = [&] {
            w.run();
            std::size_t passed = 0;
            for (const Wire& x : w.home.inbox) {
                if (x.message.is_request() && x.message.method() != "ACK") ++passed;
            }
            for (const Wire& x : p.inbox) {
                const int status = x.message.status();
                if (status < 200) continue;
                EXPECT_EQ(status == 200, passed > 0);
                say(status == 200 ? "pass" : std::to_string(status));
                EXPECT_EQ(x.esp, on_sa) << "the answer travels as the request did";
                if (stream) {
                    EXPECT_EQ(x.flow.connection, connection);
                }
            }
            p.inbox.clear();
            w.home.inbox.clear();
        };
        if (!stream) {
            std::string copy = octets;
            w.gateway->gm().on_message(flow, copy);
            listen();
            return said.empty() ? "-" : said;
        }
        // What control/sip's connections do with a stream.
        sip::StreamFramer framer;
        framer.feed(std::string_view(octets));
        for (;;) {
            const auto frame = framer.next();
            std::string copy(frame.bytes);
            if (frame.kind == sip::FrameKind::none) break;
            if (frame.kind == sip::FrameKind::message) {
                w.gateway->gm().on_message(flow, copy);
                listen();
            } else if (frame.kind == sip::FrameKind::error) {
                w.gateway->gm().on_framing_error(flow, frame.status, copy);
                listen();
                say("close");
                break;
            }
        }
        if (framer.pending() > 0 && said.empty()) return "wait";
        return said.empty() ? "-" : said;
    }
};

TEST(Torture, TheTableHasEachMessageOnce) {
    std::set<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == ".dat") files.insert(entry.path().filename().string());
    }
    std::set<std::string> rows;
    for (const Row& row : table()) EXPECT_TRUE(rows.insert(row.file).second) << row.file;
    EXPECT_EQ(rows, files);
    EXPECT_EQ(rows.size(), 49U);
}

class TortureWay : public testing::TestWithParam<std::size_t> {};

TEST_P(TortureWay, EachMessageGetsTheVerdictOfTheRfc) {
    Lab lab;
    World& w = lab.w;
    const Books before = w.settled();
    for (const Row& row : table()) {
        const std::string what = row.file + " (" + row.section + ", " + row.why + ")";
        EXPECT_EQ(lab.send(GetParam(), read_file(folder / row.file)), row.verdicts.at(GetParam()))
            << what;
        // The phones are served, on the SAs they had.
        for (Phone* p : {&lab.udp, &lab.tcp}) {
            p->send_on(p->current(), p->request("MESSAGE", "sip:bob@home.example"));
            w.run();
            EXPECT_EQ(p->last_status(), 200) << what;
        }
        // INVITEs that were answered wait for their ACK as long as RFC 6026 says.
        w.advance(400s);
        Books now = w.books();
        // An INVITE the far end took is a session, and all sessions have one timer.
        EXPECT_LE(now.timers, before.timers + 1) << what;
        now.timers = before.timers;
        EXPECT_EQ(now, before) << what;
    }
    EXPECT_TRUE(lab.udp.reregister() || lab.udp.last_status() == 200);
    for (const Phone* p : {&lab.udp, &lab.tcp}) EXPECT_TRUE(w.gateway->deregister(p->impi));
    w.expect_no_leak(0);
}

INSTANTIATE_TEST_SUITE_P(Ways, TortureWay, testing::Range<std::size_t>(0, ways.size()));

// What was refused is counted under a reason, in the drop counters an operator sees.
TEST(Torture, WhatIsNotPassedOnIsCounted) {
    Lab lab;
    const auto refused = [&] {
        std::uint64_t n = 0;
        for (std::size_t r = 1; r < registration::reason_count; ++r)
            n += lab.w.drops(static_cast<Reason>(r));
        return n;
    };
    for (std::size_t way = 0; way < ways.size(); ++way) {
        for (const Row& row : table()) {
            const std::string& verdict = row.verdicts.at(way);
            if (verdict == "pass" || verdict == "wait") continue;
            const std::uint64_t before = refused();
            (void)lab.send(way, read_file(folder / row.file));
            EXPECT_GT(refused(), before) << row.file << ", " << ways.at(way);
            lab.w.advance(40s);
        }
    }
}

// As SM1 of a phone: the REGISTERs of RFC 4475 with what TS 24.229 adds to them are forwarded, what
// is strange in their Contacts with them.
TEST(Torture, SoundRegistersOfAPhoneArePassedOnWhole) {
    const std::map<std::string, std::string> kept{
        {"cparam01.dat", "Contact: sip:+19725552222@gw1.example.net;unknownparam"},
        {"cparam02.dat", "Contact: <sip:+19725552222@gw1.example.net;unknownparam>"},
        {"regescrt.dat", "M: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>"},
        {"escnull.dat", "Contact: <sip:%00%00@host5.example.com>"}};
    for (const auto& [file, line] : kept) {
        World w;
        Phone& p = w.phone();
        std::string text = read_file(folder / file);
        const auto via = text.find("Via:");
        ASSERT_NE(via, std::string::npos) << file;
        text.replace(via, text.find('\r', via) - via,
                     "Via: SIP/2.0/UDP 10.2.0.1:5060;branch=z9hG4bKtorture");
        text.insert(text.find("\r\n\r\n") + 2,
                    "Authorization: Digest username=\"alice@home.example\",realm=\"home.example\","
                    "nonce=\"\",uri=\"sip:home.example\",response=\"\"\r\n"
                    "Require: sec-agree\r\nSecurity-Client: " +
                        p.security_client() + "\r\n");
        p.send_clear(text);
        w.run();
        ASSERT_EQ(w.home.inbox.size(), 1U) << file << ": " << p.last_status();
        EXPECT_TRUE(w.home.inbox[0].message.contains(line)) << w.home.inbox[0].message.text;
        EXPECT_EQ(p.last_status(), 401) << file;
        w.advance(300s);
        w.nothing_left();
    }
}

}  // namespace
}  // namespace gmgate::test
