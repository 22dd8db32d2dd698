// The API over a real socket: answers, pages, slow and rude readers, one gateway a socket.
#include <gmock/gmock.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>
#include <set>

#include "tests/unit/ops/server_fixture.h"

namespace gmgate::ops {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST_F(ServerTest, Version) {
    start();
    PlainClient c(options.socket);
    ASSERT_TRUE(c.connected());
    const json a = c.ask(R"({"v":1,"id":7,"op":"version"})");
    EXPECT_EQ(a["id"], 7);
    EXPECT_EQ(a["done"], true);
    EXPECT_EQ(a["result"]["version"], "9.9.9");
    EXPECT_EQ(a["result"]["api"], 1);
    EXPECT_EQ(a["result"]["pid"], ::getpid());
    EXPECT_EQ(counter("gmgate_ops_requests_total", "version"), 1);
}

TEST_F(ServerTest, HealthDropsAndTrace) {
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask(R"({"v":1,"op":"health"})")["result"]["ok"], true);
    healthy = false;
    const json sick = c.ask(R"({"v":1,"op":"health"})")["result"];
    EXPECT_EQ(sick["ok"], false);
    EXPECT_EQ(sick["components"][1]["text"], "no answer; is 10.30.0.2 up?");
    const json drops = c.ask(R"({"v":1,"op":"drops"})")["result"]["drops"];
    ASSERT_EQ(drops.size(), 3U);
    EXPECT_EQ(drops[0]["reason"], "bad_icv");
    EXPECT_EQ(drops[0]["count"], 12);
    const json trace_answer =
        c.ask(json{{"v", 1}, {"op", "trace"}, {"args", {{"impi", fake_sa(1).impi}}}}.dump());
    ASSERT_EQ(trace_answer["result"]["steps"].size(), 10U);
    EXPECT_EQ(trace_answer["result"]["steps"][5]["spi"], 0x04000003);
    EXPECT_FALSE(trace_answer["result"]["steps"][0].contains("spi"));
    EXPECT_EQ(c.ask(R"({"v":1,"op":"trace","args":{"impi":"who"}})")["error"]["code"], "not_found");
}

TEST_F(ServerTest, Stats) {
    registry.counter("gmgate_test_total", "A test.", {{"kind", "a"}}).add(41);
    registry.histogram("gmgate_test_seconds", "Another.", {0.1, 1}).observe(0.5);
    start();
    PlainClient c(options.socket);
    const json samples = c.ask(R"({"v":1,"op":"stats"})")["result"]["metrics"];
    const auto find = [&](const std::string& name) {
        for (const json& s : samples) {
            if (s["name"] == name) return s;
        }
        return json();
    };
    EXPECT_EQ(find("gmgate_test_total")["value"], 41);
    EXPECT_EQ(find("gmgate_test_total")["labels"]["kind"], "a");
    EXPECT_EQ(find("gmgate_test_seconds")["counts"], json({0, 1, 0}));
    EXPECT_EQ(find("gmgate_test_seconds")["count"], 1);
}

TEST_F(ServerTest, CountsByState) {
    start();
    PlainClient c(options.socket);
    const json sa_count = c.ask(R"({"v":1,"op":"sa.count"})")["result"];
    EXPECT_EQ(sa_count["total"], 5000);
    EXPECT_EQ(sa_count["states"][0]["count"], 500);
    EXPECT_EQ(c.ask(R"({"v":1,"op":"reg.count"})")["result"]["registered"], 2);
}

TEST_F(ServerTest, FiveThousandSasArriveOnceEachInBoundedTurns) {
    start();
    PlainClient c(options.socket);
    const auto [rows, last] = c.ask_list(R"({"v":1,"id":1,"op":"sa.list"})");
    EXPECT_EQ(rows.size(), 5000U);
    std::set<std::uint64_t> ids;
    for (const json& r : rows) ids.insert(r["id"].get<std::uint64_t>());
    EXPECT_EQ(ids.size(), 5000U);
    EXPECT_FALSE(last.contains("cursor"));
    EXPECT_LE(sas.largest_budget, 256U);
    EXPECT_EQ(sas.looked_at, 5000U);
}

TEST_F(ServerTest, LimitGivesACursorToGoOnWith) {
    start();
    PlainClient c(options.socket);
    std::set<std::uint64_t> ids;
    std::uint64_t cursor = 0;
    std::size_t requests = 0;
    do {
        json args{{"limit", 300}};
        if (cursor != 0) args["cursor"] = cursor;
        const auto [rows, last] =
            c.ask_list(json{{"v", 1}, {"op", "sa.list"}, {"args", args}}.dump());
        EXPECT_LE(rows.size(), 300U);
        for (const json& r : rows) ids.insert(r["id"].get<std::uint64_t>());
        cursor = last.value("cursor", std::uint64_t{0});
        ++requests;
    } while (cursor != 0 && requests < 100);
    EXPECT_EQ(ids.size(), 5000U);
    EXPECT_EQ(requests, 17U);
}

TEST_F(ServerTest, FiltersNarrow) {
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask_list(R"({"v":1,"op":"sa.list","args":{"state":"registration"}})").first.size(),
              500U);
    const auto one =
        c.ask_list(
             json{{"v", 1}, {"op", "sa.show"}, {"args", {{"spi", fake_sa(4711).numbers.spi_us}}}}
                 .dump())
            .first;
    ASSERT_EQ(one.size(), 1U);
    EXPECT_EQ(one[0]["id"], 4711);
    EXPECT_EQ(one[0]["in_packets"], 4711 * 3);
    EXPECT_EQ(c.ask_list(R"({"v":1,"op":"sa.show","args":{"id":5000}})").first.at(0)["id"], 5000);
    EXPECT_EQ(
        c.ask_list(json{{"v", 1}, {"op", "reg.show"}, {"args", {{"impi", fake_sa(2).impi}}}}.dump())
            .first.at(0)["transport"],
        "tcp");
}

TEST_F(ServerTest, NothingFoundIsAnErrorOfShowAndAnEmptyList) {
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask_list(R"({"v":1,"op":"sa.show","args":{"impi":"who"}})").second["error"]["code"],
              "not_found");
    EXPECT_EQ(
        c.ask_list(R"({"v":1,"op":"reg.show","args":{"impi":"who"}})").second["error"]["code"],
        "not_found");
    const auto [rows, last] = c.ask_list(R"({"v":1,"op":"sa.list","args":{"impi":"who"}})");
    EXPECT_TRUE(rows.empty());
    EXPECT_FALSE(last.contains("error"));
}

TEST_F(ServerTest, UnknownStateIsToldTheStates) {
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask(R"({"v":1,"op":"sa.list","args":{"state":"alive"}})")["error"]["text"],
              "there is no state 'alive'; states are registration, established");
    EXPECT_EQ(c.ask(R"({"v":1,"op":"reg.list","args":{"state":"alive"}})")["error"]["code"],
              "bad_argument");
}

TEST_F(ServerTest, RequestsSentAheadAreAnsweredInOrder) {
    start();
    PlainClient c(options.socket);
    c.send(
        "{\"v\":1,\"id\":1,\"op\":\"sa.list\"}\n\r\n{\"v\":1,\"id\":2,\"op\":\"version\"}\n{\"v\":"
        "1,\"id\":3,\"op\":\"health\"}\n");
    c.end_input();
    EXPECT_EQ(c.read_list().first.size(), 5000U);
    EXPECT_EQ(c.answer()["id"], 2);
    EXPECT_EQ(c.answer()["id"], 3);
    EXPECT_EQ(c.line(), "");  // and the server closes
}

TEST_F(ServerTest, GarbageIsAnsweredCountedAndSurvived) {
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask("hello")["error"]["code"], "bad_request");
    EXPECT_EQ(c.ask("{\"v\":1,\"op\":")["error"]["code"], "bad_request");
    EXPECT_EQ(c.ask(std::string("\0\xff\xc0\x80", 4))["error"]["code"], "bad_request");
    EXPECT_EQ(c.ask(std::string(10000, '['))["error"]["code"], "bad_request");
    EXPECT_EQ(c.ask(R"({"v":1,"op":"version"})")["result"]["version"], "9.9.9");
    EXPECT_EQ(counter("gmgate_ops_errors_total", "bad_request"), 4);
}

TEST_F(ServerTest, OversizedRequestIsToldAndCutOff) {
    start();
    PlainClient c(options.socket);
    c.send(std::string(200000, 'x'));
    const json a = c.answer();
    EXPECT_EQ(a["error"]["code"], "too_large");
    EXPECT_EQ(c.line(), "");
    PlainClient with_newline(options.socket);
    with_newline.send(std::string(options.request_octets + 1, ' ') + "\n");
    EXPECT_EQ(with_newline.answer()["error"]["code"], "too_large");
    EXPECT_EQ(counter("gmgate_ops_errors_total", "too_large"), 2);
}

class ManySets : public ServerTest {
  protected:
    ManySets() : ServerTest(60000) {}
};

// One reader that takes nothing stops its own list, and nobody else's.
TEST_F(ManySets, SlowReaderStopsOnlyItself) {
    start();
    PlainClient slow(options.socket, 4096);
    slow.send("{\"v\":1,\"id\":1,\"op\":\"sa.list\"}\n");
    PlainClient quick(options.socket);
    // Each answer is a turn of the loop: by then the slow one's list has met its bound.
    for (int i = 0; i < 2000; ++i) ASSERT_EQ(quick.ask(R"({"v":1,"op":"version"})")["done"], true);
    const std::size_t looked_at = sas.looked_at;
    EXPECT_GE(looked_at, 256U);
    EXPECT_LT(looked_at, 6000U);
    for (int i = 0; i < 100; ++i) ASSERT_EQ(quick.ask(R"({"v":1,"op":"version"})")["done"], true);
    EXPECT_EQ(sas.looked_at, looked_at);
    EXPECT_EQ(slow.read_list().first.size(), 60000U);
}

// Every answer is beyond the bound, and the reader quick enough to empty it at once: nothing may
// wait for an event that is over.
TEST_F(ServerTest, BoundSmallerThanOneAnswer) {
    options.output_octets = 1;
    start();
    PlainClient c(options.socket);
    c.send(
        "{\"v\":1,\"id\":1,\"op\":\"version\"}\n{\"v\":1,\"id\":2,\"op\":\"sa.list\"}\n{\"v\":1,"
        "\"id\":3,\"op\":\"health\"}\n");
    EXPECT_EQ(c.answer()["id"], 1);
    EXPECT_EQ(c.read_list().first.size(), 5000U);
    EXPECT_EQ(c.answer()["id"], 3);
}

TEST_F(ManySets, ReaderThatLeavesInTheMiddleIsForgotten) {
    start();
    for (int i = 0; i < 20; ++i) {
        PlainClient c(options.socket);
        c.send("{\"v\":1,\"id\":1,\"op\":\"sa.list\"}\n");
        EXPECT_NE(c.line(), "");
    }
    PlainClient last(options.socket);
    // The others' ends are events before this answer, or the lists run on until they meet them.
    for (int i = 0; i < 1000 && on_loop([&] { return server->connections(); }) > 1; ++i)
        (void)last.ask(R"({"v":1,"op":"version"})");
    EXPECT_EQ(on_loop([&] { return server->connections(); }), 1U);
}

TEST_F(ManySets, DestructionInTheMiddleOfAList) {
    start();
    PlainClient c(options.socket, 4096);
    c.send("{\"v\":1,\"id\":1,\"op\":\"sa.list\"}\n");
    EXPECT_NE(c.line(), "");
    stop();
    EXPECT_FALSE(std::filesystem::exists(options.socket));
}

TEST_F(ServerTest, OneConnectionTooManyIsToldSo) {
    options.connections = 2;
    start();
    PlainClient a(options.socket);
    PlainClient b(options.socket);
    EXPECT_EQ(a.ask(R"({"v":1,"op":"version"})")["done"], true);
    EXPECT_EQ(b.ask(R"({"v":1,"op":"version"})")["done"], true);
    PlainClient third(options.socket);
    EXPECT_EQ(third.answer()["error"]["code"], "too_many_connections");
    EXPECT_EQ(third.line(), "");
    EXPECT_EQ(a.ask(R"({"v":1,"op":"version"})")["done"], true);
}

TEST_F(ServerTest, SocketIsForOwnerAndGroup) {
    start();
    struct stat info{};
    ASSERT_EQ(::stat(options.socket.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 0660U);
}

TEST_F(ServerTest, UnknownGroup) {
    options.group = "no-such-group";
    const auto made = OpsServer::listen(loop, registry, views, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().kind, ErrorKind::denied);
    EXPECT_THAT(made.error().text, HasSubstr("no group 'no-such-group'"));
}

TEST_F(ServerTest, GroupByNumber) {
    options.group = std::to_string(::getegid());
    start();
    struct stat info{};
    ASSERT_EQ(::stat(options.socket.c_str(), &info), 0);
    EXPECT_EQ(info.st_gid, ::getegid());
}

TEST_F(ServerTest, SecondGatewayIsRefusedAndNamesTheFirst) {
    start();
    EventLoop other_loop(clock);
    metrics::Registry other_registry;
    const auto second = OpsServer::listen(other_loop, other_registry, {}, options);
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().kind, ErrorKind::conflict);
    EXPECT_THAT(second.error().text, HasSubstr("(process " + std::to_string(::getpid()) + ")"));
    EXPECT_EQ(second.error().text.find('\n'), std::string::npos);
    // The first one is unharmed.
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask(R"({"v":1,"op":"version"})")["done"], true);
}

// kill -9 leaves the socket and the lock file behind, but no lock.
TEST_F(ServerTest, LeftOverSocketIsReplaced) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        EventLoop child_loop(clock);
        metrics::Registry child_registry;
        const auto made = OpsServer::listen(child_loop, child_registry, {}, options);
        ::_exit(made.has_value() ? 0 : 1);  // no destructor runs
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    ASSERT_TRUE(std::filesystem::exists(options.socket));
    start();
    PlainClient c(options.socket);
    EXPECT_EQ(c.ask(R"({"v":1,"op":"version"})")["done"], true);
}

TEST_F(ServerTest, WhatIsNoSocketIsNotRemoved) {
    std::ofstream(options.socket) << "precious";
    const auto made = OpsServer::listen(loop, registry, views, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_THAT(made.error().text, HasSubstr("exists and is no socket"));
    EXPECT_EQ(std::filesystem::file_size(options.socket), 8U);
}

TEST_F(ServerTest, PathTooLong) {
    options.socket = directory.path() + "/" + std::string(200, 'x');
    const auto made = OpsServer::listen(loop, registry, views, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().kind, ErrorKind::invalid);
}

// Most likely a slip of the pen: made silently, no one would find the socket.
TEST_F(ServerTest, MissingDirectoryIsRefused) {
    options.socket = directory.path() + "/run/gmgated.sock";
    const auto made = OpsServer::listen(loop, registry, views, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().text, "ops.socket: " + directory.path() +
                                     "/run is no folder; make it (mkdir -p " + directory.path() +
                                     "/run), or look for a slip of the pen in the path");
    EXPECT_FALSE(std::filesystem::exists(directory.path() + "/run"));
}

TEST_F(ServerTest, Failures) {
    start();
    PlainClient c(options.socket);
    const auto all = c.ask(R"({"v":1,"op":"reg.failures"})")["result"]["failures"];
    ASSERT_EQ(all.size(), 3U);
    EXPECT_FALSE(all[0].contains("impi"));  // not known: left out
    EXPECT_EQ(all[0]["status"], 421);
    EXPECT_FALSE(all[1].contains("status"));  // no answer
    const auto of = [&](const std::string& args) {
        return c.ask(R"({"v":1,"op":"reg.failures","args":)" + args + "}");
    };
    EXPECT_EQ(of(R"({"limit":2})")["result"]["failures"].size(), 2U);
    EXPECT_EQ(of(R"({"reason":"sec_agree_missing"})")["result"]["failures"].size(), 2U);
    EXPECT_EQ(
        of(R"({"reason":"sec_agree_missing","impi":"b@ims.example"})")["result"]["failures"].size(),
        1U);
    EXPECT_EQ(of(R"({"reason":"nonsense"})")["error"]["code"], "bad_argument");
    for (const char* wrong : {R"({"limit":0})", R"({"limit":1001})", R"({"reason":""})",
                              R"({"reason":7})", R"({"impi":[]})", R"({"ip":"10.0.0.1"})"})
        EXPECT_TRUE(of(wrong).contains("error")) << wrong;
    const auto totals = c.ask(R"({"v":1,"op":"reg.reasons"})")["result"]["reasons"];
    ASSERT_EQ(totals.size(), 2U);
    EXPECT_EQ(totals[0]["reason"], "sec_agree_missing");
    EXPECT_EQ(totals[0]["count"], 2);
}

// The one operation that changes something.
TEST_F(ServerTest, Deregister) {
    start();
    PlainClient c(options.socket);
    const auto of = [&](const std::string& args) {
        return c.ask(R"({"v":1,"id":3,"op":"reg.deregister","args":)" + args + "}");
    };
    const std::string known = fake_sa(1).impi;
    const auto done = of(R"({"impi":")" + known + R"(","reason":"stolen"})");
    EXPECT_EQ(done["result"], (nlohmann::json{{"impi", known}, {"state", "leaving"}})) << done;
    EXPECT_EQ(done["id"], 3);
    const auto unknown = of(R"({"impi":"nobody@x"})");
    EXPECT_EQ(unknown["error"]["code"], "not_found");
    EXPECT_EQ(unknown["error"]["text"],
              "nobody@x is not registered here; 'gmctl reg list' shows who is");
    EXPECT_EQ(deregistered, (std::vector<std::string>{known, "nobody@x"}));
    // Never by a filter: one phone, by its whole name.
    for (const char* wrong : {"{}", R"({"impi":""})", R"({"impi":7})", R"({"ip":"10.20.0.1"})",
                              R"({"spi":1})", R"({"impi":"a","reason":""})",
                              R"({"impi":"a","reason":1})", R"({"impi":"a","state":"registered"})"})
        EXPECT_EQ(of(wrong)["error"]["code"], "bad_argument") << wrong;
    EXPECT_EQ(deregistered.size(), 2U);
}

TEST_F(ServerTest, WhatIsNotWiredIsUnavailable) {
    auto made = OpsServer::listen(loop, registry, {}, options);
    ASSERT_TRUE(made.has_value());
    server = std::move(*made);
    thread = std::thread([this] { loop.run(); });
    PlainClient c(options.socket);
    for (const char* op : {"drops", "sa.count", "reg.count", "sa.list", "reg.list"}) {
        EXPECT_EQ(c.ask(json{{"v", 1}, {"op", op}}.dump())["error"]["code"], "unavailable") << op;
    }
    EXPECT_EQ(c.ask(R"({"v":1,"op":"trace","args":{"impi":"a"}})")["error"]["code"], "unavailable");
}

}  // namespace
}  // namespace gmgate::ops
