// gmctl against a server of fakes: what people see, what scripts get, exit codes.
#include <gmock/gmock.h>

#include <algorithm>
#include <sstream>

#include "control/cli/gmctl.h"
#include "tests/unit/ops/server_fixture.h"

namespace gmgate::ops {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class CliTest : public ServerTest {
  protected:
    CliTest() : ServerTest(1000) {}
    int run(std::vector<std::string> arguments) {
        out.str("");
        err.str("");
        return cli::gmctl(arguments, options.socket, "1.0", {out, err, style});
    }
    std::size_t lines() const {
        const std::string text = out.str();
        return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
    }
    std::ostringstream out;
    std::ostringstream err;
    cli::Style style{100, false, false};
};

TEST_F(CliTest, SaListIsATable) {
    start();
    EXPECT_EQ(run({"sa", "list", "--limit", "3"}), 0);
    EXPECT_EQ(out.str(),
              "IMPI                         UE         STATE        SUITE                  SPI-PS  "
              "    AGE   LEFT\n"
              "001011000000001@ims.example  10.20.0.1  established  hmac-sha-1-96/aes-cbc  "
              "0x04000003   1s  6d22h\n"
              "001011000000002@ims.example  10.20.0.2  established  hmac-sha-1-96/aes-cbc  "
              "0x04000005   2s  6d22h\n"
              "001011000000003@ims.example  10.20.0.3  established  hmac-sha-1-96/aes-cbc  "
              "0x04000007   3s  6d22h\n");
    EXPECT_EQ(err.str(), "There is more: go on with --cursor 4\n");
}

// As on a full disk: half a table is not a success.
TEST_F(CliTest, OutputThatCannotBeWrittenIsNoSuccess) {
    start();
    out.setstate(std::ios::badbit);
    EXPECT_EQ(run({"sa", "list", "--limit", "3"}), 1);
    EXPECT_THAT(err.str(), HasSubstr("could not be written"));
}

TEST_F(CliTest, NoLineIsWiderThanTheTerminal) {
    start();
    for (const std::size_t width : {64U, 72U, 80U, 100U, 132U, 200U}) {
        style.width = width;
        ASSERT_EQ(run({"sa", "list", "--limit", "50"}), 0);
        std::istringstream in(out.str());
        for (std::string line; std::getline(in, line);)
            EXPECT_LE(cli::columns_of(line), width) << line;
    }
}

TEST_F(CliTest, WithoutATerminalNothingIsCut) {
    start();
    style.width = 0;
    EXPECT_EQ(run({"sa", "list"}), 0);
    EXPECT_EQ(lines(), 1001U);
    // Widths fit the first page: a wider cell on a later one shifts its line, and is whole.
    EXPECT_NE(out.str().find("001011000000001@ims.example  10.20.0.1    established   "
                             "hmac-sha-1-96/aes-cbc  0x04000003  0x04000002  "
                             "0x00001002  0x00001003     1s  6d22h\n"),
              std::string::npos);
}

TEST_F(CliTest, JsonIsOneObjectALine) {
    start();
    EXPECT_EQ(run({"-j", "sa", "list"}), 0);
    EXPECT_EQ(lines(), 1000U);
    std::istringstream in(out.str());
    for (std::string line; std::getline(in, line);)
        EXPECT_TRUE(json::parse(line, nullptr, false).is_object());
    // The flag may also stand at the end.
    EXPECT_EQ(run({"sa", "list", "--limit", "1", "--counters", "-j"}), 0);
    EXPECT_EQ(json::parse(out.str())["in_packets"], 3);
}

TEST_F(CliTest, Filters) {
    start();
    EXPECT_EQ(run({"-j", "sa", "list", "--state", "registration"}), 0);
    EXPECT_EQ(lines(), 100U);
    EXPECT_EQ(run({"-j", "sa", "list", "--ip", "10.20.0.9"}), 0);
    EXPECT_EQ(lines(), 1U);
    EXPECT_EQ(run({"sa", "list", "--impi", "nobody"}), 0);
    EXPECT_EQ(out.str(), "No SA set is like that.\n");
}

TEST_F(CliTest, SaShow) {
    start();
    EXPECT_EQ(run({"sa", "show", "--spi", "0x04000003"}), 0);
    EXPECT_EQ(out.str(),
              "SA set 1: established\n"
              "  IMPI            001011000000001@ims.example\n"
              "  IMPUs           sip:001011000000001@ims.example, tel:+491\n"
              "  suite           hmac-sha-1-96/aes-cbc\n"
              "  UE / ours       10.20.0.1 / 10.20.255.1\n"
              "  in, requests    UE 5062 -> ours 6100 SPI 0x04000003 (ps)\n"
              "  in, answers     UE 5063 -> ours 6200 SPI 0x04000002 (pc)\n"
              "  out, requests   ours 6200 -> UE 5063 SPI 0x00001003 (us)\n"
              "  out, answers    ours 6100 -> UE 5062 SPI 0x00001002 (uc)\n"
              "  age / left      1s / 6d22h\n"
              "  received        3 packets, 0 B\n"
              "  sent            0 packets, 0 B; highest sequence number 0\n"
              "  refused         0 integrity failures, 0 replays\n");
    EXPECT_EQ(run({"sa", "show", "--impi", "nobody"}), 1);
    EXPECT_EQ(err.str(), "gmctl: the gateway says: no SA set is like that\n");
}

TEST_F(CliTest, SaCount) {
    start();
    EXPECT_EQ(run({"sa", "count"}), 0);
    EXPECT_EQ(
        out.str(),
        "STATE         COUNT\nregistration    100\nestablished     900\ntotal         1,000\n");
}

TEST_F(CliTest, Registrations) {
    start();
    style.width = 120;
    EXPECT_EQ(run({"reg", "list"}), 0);
    EXPECT_EQ(
        out.str(),
        "IMPI                         STATE           UE         VIA  SETS    AGE   LEFT  IMPU\n"
        "001011000000001@ims.example  registered      10.20.0.1  udp     1  2m13s  6d22h  "
        "sip:001011000000001@ims.example (+1)\n"
        "001011000000002@ims.example  registered      10.20.0.2  tcp     1  2m13s  6d22h  "
        "sip:001011000000002@ims.example (+1)\n"
        "001011000000003@ims.example  authenticating  10.20.0.3  udp     1  2m13s      -  "
        "sip:001011000000003@ims.example (+1)\n");
    EXPECT_EQ(run({"reg", "show", "001011000000002@ims.example"}), 0);
    EXPECT_EQ(out.str(),
              "001011000000002@ims.example: registered\n"
              "  IMPU            sip:001011000000002@ims.example\n"
              "  IMPU            tel:+492\n"
              "  UE              10.20.0.2 over tcp\n"
              "  contact         sip:10.20.0.2:5063\n"
              "  service route   <sip:orig@scscf.ims.example;lr>\n"
              "  SA sets         2\n"
              "  age / left      2m13s / 6d22h\n");
    EXPECT_EQ(run({"reg", "count"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("authenticating now      1\n"));
}

TEST_F(CliTest, FailuresByReason) {
    start();
    EXPECT_EQ(run({"reg", "failures"}), 0);
    EXPECT_EQ(out.str(),
              "COUNT  REASON                       LAST  ANSWER  LATEST IMPI    FROM\n"
              "    2  sec_agree_missing          5s ago     421  -              10.20.0.1:5060\n"
              "    1  authentication_timeout  1m10s ago       -  a@ims.example  10.20.0.1:5060\n"
              "gmctl explain REASON: what to do; gmctl trace IMPI (or address): its ladder\n");
    EXPECT_EQ(run({"reg", "failures", "--reason", "sec_agree_missing"}), 0);
    EXPECT_EQ(lines(), 3U);
    EXPECT_THAT(out.str(), Not(HasSubstr("authentication_timeout")));
    EXPECT_EQ(run({"reg", "failures", "--impi", "a@ims.example"}), 0);
    EXPECT_EQ(lines(), 2U);
    EXPECT_EQ(run({"reg", "failures", "--impi", "nobody"}), 0);
    EXPECT_EQ(out.str(), "No failed registration is like that.\n");
    EXPECT_EQ(run({"-j", "reg", "failures", "--list"}), 0);
    EXPECT_EQ(lines(), 3U);
    EXPECT_EQ(run({"-j", "reg", "failures"}), 0);
    EXPECT_EQ(lines(), 2U);
    EXPECT_EQ(json::parse(out.str().substr(0, out.str().find('\n')))["count"], 2);
    EXPECT_EQ(run({"reg", "failures", "--reason", "nonsense"}), 1);
    EXPECT_THAT(err.str(), HasSubstr("there is no reason 'nonsense'; 'gmctl explain' lists them"));
}

TEST_F(CliTest, Deregister) {
    start();
    const std::string known = fake_sa(1).impi;
    EXPECT_EQ(run({"reg", "deregister", known, "--reason", "stolen"}), 0);
    EXPECT_EQ(out.str(), known +
                             " is deregistered; its SAs go when its last messages have left "
                             "on them\n");
    EXPECT_EQ(run({"-j", "reg", "deregister", known}), 0);
    EXPECT_EQ(json::parse(out.str()), (json{{"impi", known}, {"state", "leaving"}}));
    EXPECT_EQ(run({"reg", "deregister", "nobody@x"}), 1);
    EXPECT_EQ(
        err.str(),
        "gmctl: the gateway says: nobody@x is not registered here; 'gmctl reg list' shows who "
        "is\n");
    EXPECT_EQ(run({"reg", "deregister"}), 2);
    EXPECT_EQ(deregistered.size(), 3U) << "without an IMPI nothing was asked";
    EXPECT_EQ(run({"reg", "deregister", "--help"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("--reason"));
    EXPECT_THAT(out.str(), HasSubstr("Neither the phone nor the home"));
}

TEST_F(CliTest, NothingFailed) {
    failures.recorded.clear();
    start();
    EXPECT_EQ(run({"reg", "failures"}), 0);
    EXPECT_EQ(out.str(), "No registration has failed.\n");
}

// Whatever a gateway says, the terminal obeys none of it.
TEST_F(CliTest, HostileNamesOfFailuresDoNotReachTheTerminal) {
    failures.recorded = {fake_failure("sec_agree_missing", 1, 421, "e\x1b[31m\nvil\xff@x")};
    start();
    for (const auto& arguments : {std::vector<std::string>{"reg", "failures"},
                                  std::vector<std::string>{"reg", "failures", "--list"},
                                  std::vector<std::string>{"-j", "reg", "failures", "--list"}}) {
        EXPECT_EQ(run(arguments), 0);
        EXPECT_THAT(out.str(), HasSubstr("vil"));
        EXPECT_THAT(out.str(), Not(HasSubstr("\x1b")));
        EXPECT_THAT(out.str(), Not(HasSubstr("\nvil")));
    }
}

TEST_F(CliTest, ShowTellsTheLastFailure) {
    failures.recorded = {fake_failure("authentication_timeout", 70, 0, fake_sa(2).impi),
                         fake_failure("sec_agree_missing", 90, 421, "who")};
    start();
    EXPECT_EQ(run({"reg", "show", fake_sa(2).impi}), 0);
    EXPECT_THAT(out.str(), HasSubstr("1m10s ago from 10.20.0.1:5060: authentication_timeout: It "
                                     "went wrong. Look at it."));
    EXPECT_EQ(run({"reg", "show", fake_sa(1).impi}), 0);
    EXPECT_THAT(out.str(), Not(HasSubstr("last failure")));
    EXPECT_EQ(run({"reg", "show", "who"}), 1);
    EXPECT_THAT(err.str(), HasSubstr("no registration is like that; the latest attempt failed 90 s "
                                     "ago: sec_agree_missing: It went wrong. Look at it."));
}

TEST_F(CliTest, Explain) {
    // Without a gateway.
    EXPECT_EQ(run({"explain", "sec_agree_missing"}), 0);
    EXPECT_THAT(out.str(), StartsWith("sec_agree_missing\n"));
    EXPECT_THAT(out.str(), HasSubstr("C6"));
    EXPECT_EQ(run({"explain"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("authentication_timeout"));
    EXPECT_EQ(run({"explain", "bad_icv"}), 2);
    EXPECT_EQ(run({"explain", "ok"}), 2);
    // With one: words of the packet layer, too.
    start();
    EXPECT_EQ(run({"explain", "bad_icv"}), 0);
    EXPECT_EQ(out.str(), "bad_icv (dataplane): The integrity check failed.\n");
    EXPECT_EQ(run({"explain", "non\x1bsense"}), 2);
    EXPECT_THAT(err.str(), Not(HasSubstr("\x1b")));
}

TEST_F(CliTest, DropsLargestFirst) {
    start();
    EXPECT_EQ(run({"drops"}), 0);
    EXPECT_EQ(out.str(),
              "    COUNT  LAYER      REASON       MEANING\n"
              "1,234,567  sip        rate_source  Too many REGISTERs of one address. [S3]\n"
              "       12  dataplane  bad_icv      The integrity check failed.\n"
              "1 other reasons have never occurred.\n");
}

TEST_F(CliTest, HealthSetsTheExitCode) {
    start();
    EXPECT_EQ(run({"health"}), 0);
    EXPECT_EQ(out.str(),
              "ok        dataplane  1 worker, 0.1% busy\nok        core       answers\ngmgated is "
              "in good health\n");
    healthy = false;
    EXPECT_EQ(run({"health"}), 1);
    EXPECT_THAT(out.str(), HasSubstr("degraded  core       no answer; is 10.30.0.2 up?\n"));
    EXPECT_EQ(run({"-j", "health"}), 1);
    EXPECT_EQ(json::parse(out.str())["ok"], false);
}

TEST_F(CliTest, Stats) {
    registry.counter("gmgate_test_packets_total", "Packets.", {{"worker", "0"}}).add(1234567);
    registry.counter("gmgate_test_never_total", "Never.");
    auto& h = registry.histogram("gmgate_test_seconds", "Time.", {0.001, 0.01});
    for (int i = 0; i < 99; ++i) h.observe(0.0005);
    h.observe(0.5);
    start();
    style.width = 0;
    EXPECT_EQ(run({"stats"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("gmgate_test_packets_total{worker=\"0\"}"));
    EXPECT_THAT(out.str(), HasSubstr("1,234,567"));
    EXPECT_THAT(out.str(), HasSubstr("LATENCY              COUNT   MEAN     P50     P99  MEANING\n"
                                     "gmgate_test_seconds    100  5.5ms  <1.0ms  <1.0ms  Time.\n"));
    EXPECT_THAT(out.str(), Not(HasSubstr("gmgate_test_never_total")));
    EXPECT_EQ(run({"stats", "--all"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("gmgate_test_never_total"));
    EXPECT_EQ(run({"stats", "--rate", "0.1"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("RATE"));
    EXPECT_THAT(out.str(), HasSubstr("0/s"));
}

TEST_F(CliTest, Trace) {
    start();
    EXPECT_EQ(run({"trace", fake_sa(1).impi}), 0);
    EXPECT_THAT(out.str(), HasSubstr("SM12 200 REGISTER"));
    EXPECT_EQ(run({"-j", "trace", fake_sa(1).impi}), 0);
    EXPECT_EQ(json::parse(out.str())["steps"].size(), 10U);
    EXPECT_EQ(run({"trace", "who"}), 1);
    EXPECT_THAT(err.str(), StartsWith("gmctl: the gateway says: nothing is remembered about who"));
}

TEST_F(CliTest, Calls) {
    start();
    const std::string a = fake_sa(1).impi;
    const std::string b = fake_sa(2).impi;
    EXPECT_EQ(run({"calls"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("tel:+4930"));
    EXPECT_THAT(out.str(), HasSubstr("1m35s  0badcafe"));
    EXPECT_EQ(run({"-j", "calls", "--impi", a}), 0);
    const json one = json::parse(out.str());
    EXPECT_EQ(one["peer"], "sip:" + b);
    EXPECT_EQ(one["state"], "confirmed");
    EXPECT_EQ(run({"calls", "--by-user"}), 0);
    EXPECT_EQ(out.str(), "CALLS  EARLY  IMPI\n    2      1  " + b + "\n    1      0  " + a + "\n");
    EXPECT_EQ(run({"calls", "--impi", "nobody"}), 0);
    EXPECT_EQ(out.str(), "There are no calls like that.\n");
}

TEST_F(CliTest, TraceOfSeveral) {
    for (const std::size_t phone : {0U, 1U}) {
        for (const bool towards_core : {phone == 0, phone != 0}) {
            TraceStep s;
            s.from = towards_core ? Party::ue : Party::core;
            s.to = Party::gateway;
            s.text = "MESSAGE";
            s.phone = phone;
            s.call = towards_core == (phone == 0) ? "0000abcd" : "0000ef01";
            trace.together.push_back(s);
        }
    }
    start();
    const std::string a = fake_sa(1).impi;
    const std::string b = fake_sa(2).impi;
    EXPECT_EQ(run({"trace", a, b}), 0);
    EXPECT_THAT(out.str(), HasSubstr("core"));
    EXPECT_EQ(run({"-j", "trace", a, b}), 0);
    const json all = json::parse(out.str());
    EXPECT_EQ(all["impis"], (json{a, b}));
    EXPECT_EQ(all["steps"].size(), 4U);
    EXPECT_EQ(all["steps"][3]["phone"], 1);
    EXPECT_EQ(run({"trace", "--shared", a, b}), 0);
    EXPECT_EQ(run({"trace", "--shared", a}), 2);
    EXPECT_THAT(err.str(), HasSubstr("--shared needs more than one IMPI"));
    EXPECT_EQ(run({"trace", a, "who"}), 1);
    EXPECT_THAT(err.str(), HasSubstr("nothing is remembered about who"));
    EXPECT_EQ(run({"trace", "a", "b", "c", "d", "e"}), 2);
}

TEST_F(CliTest, Version) {
    start();
    EXPECT_EQ(run({"version"}), 0);
    EXPECT_THAT(out.str(),
                StartsWith("gmctl    1.0\ngmgated  9.9.9, API 1, backend dpdk, process "));
}

TEST_F(CliTest, NotRunning) {
    EXPECT_EQ(run({"sa", "list"}), 3);
    EXPECT_EQ(out.str(), "");
    EXPECT_EQ(
        err.str(),
        "gmctl: " + options.socket +
            " does not exist; is gmgated running? if its ops.socket is elsewhere, give --socket\n");
    EXPECT_EQ(run({"--socket", std::string(300, 'x'), "health"}), 3);
}

TEST_F(CliTest, StoppedGatewayLeavesNobodyListening) {
    {
        const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, options.socket.c_str(), options.socket.size() + 1);
        ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    }
    EXPECT_EQ(run({"health"}), 3);
    EXPECT_THAT(err.str(), HasSubstr("nobody listens on"));
}

TEST_F(CliTest, Usage) {
    EXPECT_EQ(run({}), 2);
    EXPECT_EQ(err.str(),
              "gmctl: gmctl needs a command: sa, reg, explain, stats, drops, health, calls, trace, "
              "version\n"
              "gmctl: try 'gmctl --help', or --help behind a command\n");
    EXPECT_EQ(run({"sa", "lst"}), 2);
    EXPECT_THAT(err.str(),
                StartsWith("gmctl: 'lst' is no command of sa; there are list, show, count\n"));
    EXPECT_EQ(run({"sa", "list", "--limit", "0"}), 2);
    EXPECT_EQ(run({"sa", "list", "--ip", "10.0.0"}), 2);
    EXPECT_EQ(err.str(), "gmctl: --ip: '10.0.0' is not an address\n");
    EXPECT_EQ(run({"trace"}), 2);
    EXPECT_EQ(run({"sa", "show"}), 2);
    EXPECT_EQ(run({"--help"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("Examples:"));
    EXPECT_EQ(run({"sa", "list", "--help"}), 0);
    EXPECT_THAT(out.str(), HasSubstr("gmctl sa list --state established --limit 20"));
}

// Something else listens there.
TEST_F(CliTest, WrongServer) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, options.socket.c_str(), options.socket.size() + 1);
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::listen(fd.get(), 1), 0);
    std::thread rude([&] {
        const UniqueFd peer(::accept(fd.get(), nullptr, nullptr));
        const std::string text = "220 mail.example ESMTP\n";
        (void)::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
        char buffer[4096];
        while (::recv(peer.get(), buffer, sizeof(buffer), 0) > 0) {
        }
    });
    EXPECT_EQ(run({"health"}), 3);
    EXPECT_THAT(err.str(), HasSubstr("does not speak the protocol of gmgated"));
    rude.join();
}

}  // namespace
}  // namespace gmgate::ops
