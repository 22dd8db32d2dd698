// /metrics: the text, its judgement by promtool, and the socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/unique_fd.h"
#include "control/ops/exporter.h"

namespace gmgate::ops {
namespace {

using testing::HasSubstr;

void fill(metrics::Registry& registry) {
    registry
        .counter("gmgate_test_drops_total", "Dropped packets by reason.", {{"reason", "bad_icv"}})
        .add(12);
    registry.gauge("gmgate_test_sets", "SA sets.").set(-3);
    // Between the two of one family: they still come out as one.
    registry
        .counter("gmgate_test_drops_total", "Dropped packets by reason.", {{"reason", "replay"}})
        .add(5);
    auto& histogram = registry.histogram("gmgate_test_seconds", "Time from A to B.", {0.001, 0.1});
    histogram.observe(0.0005);
    histogram.observe(0.05);
    histogram.observe(5);
    registry.function("gmgate_test_packets_total", "Packets.", metrics::Kind::counter,
                      {{"worker", "0"}}, [] { return 1e6; });
}

TEST(MetricsText, FamiliesOnceWithAllTheirSeries) {
    metrics::Registry registry;
    fill(registry);
    const std::string text = metrics_text(registry, "1.2.3");
    EXPECT_THAT(text, HasSubstr("# HELP gmgate_test_drops_total Dropped packets by reason.\n"
                                "# TYPE gmgate_test_drops_total counter\n"
                                "gmgate_test_drops_total{reason=\"bad_icv\"} 12\n"
                                "gmgate_test_drops_total{reason=\"replay\"} 5\n"));
    EXPECT_THAT(text, HasSubstr("# TYPE gmgate_test_sets gauge\ngmgate_test_sets -3\n"));
    EXPECT_THAT(text, HasSubstr("gmgate_test_seconds_count 3\n"));
    EXPECT_THAT(text, HasSubstr("gmgate_test_seconds_bucket{le=\"0.001\"} 1\n"
                                "gmgate_test_seconds_bucket{le=\"0.1\"} 2\n"
                                "gmgate_test_seconds_bucket{le=\"+Inf\"} 3\n"));
    EXPECT_THAT(text, HasSubstr("gmgate_test_packets_total{worker=\"0\"} 1000000\n"));
    EXPECT_THAT(text, HasSubstr("gmgate_build_info{version=\"1.2.3\"} 1\n"));
    for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes",
                             "process_start_time_seconds", "process_open_fds", "process_max_fds",
                             "process_virtual_memory_bytes"}) {
        EXPECT_THAT(text, HasSubstr(std::string("\n") + name + " ")) << name;
    }
}

double value_of(const std::string& text, const std::string& name) {
    const std::size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + name.size() + 2, nullptr);
}

TEST(MetricsText, ProcessMetricsArePlausible) {
    const std::string text = metrics_text(metrics::Registry(), "1");
    EXPECT_GT(value_of(text, "process_resident_memory_bytes"), 100000);
    EXPECT_GE(value_of(text, "process_open_fds"), 3);
    // Started before now and after this code was written.
    EXPECT_GT(value_of(text, "process_start_time_seconds"), 1.6e9);
    EXPECT_LE(value_of(text, "process_start_time_seconds"),
              static_cast<double>(::time(nullptr)) + 1);
}

std::string promtool() {
    const char* tools = std::getenv("GMGATE_TOOLS");
    const std::string own =
        std::string(tools != nullptr ? tools : "/usr/local/lib/gmgate") + "/promtool";
    for (const std::string& path :
         {own, std::string("/usr/bin/promtool"), std::string("/usr/local/bin/promtool")}) {
        if (::access(path.c_str(), X_OK) == 0) return path;
    }
    return {};
}

TEST(MetricsText, PromtoolAgrees) {
    const std::string tool = promtool();
    if (tool.empty()) GTEST_SKIP() << "no promtool here; deploy/install-deps test fetches it";
    metrics::Registry registry;
    fill(registry);
    std::string path = testing::TempDir() + "gmgate-metrics-XXXXXX";
    const UniqueFd fd(::mkstemp(path.data()));
    ASSERT_TRUE(fd.valid());
    const std::string text = metrics_text(registry, "1.2.3");
    ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    std::string output;
    FILE* pipe = ::popen((tool + " check metrics < " + path + " 2>&1").c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    char buffer[4096];
    for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;)
        output.append(buffer, n);
    EXPECT_EQ(::pclose(pipe), 0) << output;
    EXPECT_EQ(output, "");
    std::filesystem::remove(path);
}

// A port that is free now, and taken while the socket lives.
struct TakenPort {
    UniqueFd fd{::socket(AF_INET, SOCK_STREAM, 0)};
    std::uint16_t port = 0;
    TakenPort() {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof(address);
        if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
            ::listen(fd.get(), 1) == 0 &&
            ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0) {
            port = ntohs(address.sin_port);
        }
    }
    [[nodiscard]] Endpoint endpoint() const { return {*IpAddress::parse("127.0.0.1"), port}; }
};

std::string scrape(const Endpoint& at) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_storage storage{};
    const socklen_t length = at.to_sockaddr(storage);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) return {};
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size()))
        return {};
    std::string out;
    char buffer[65536];
    for (ssize_t n = 0; (n = ::recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;)
        out.append(buffer, static_cast<std::size_t>(n));
    return out;
}

TEST(MetricsExporter, ServesTheRegistry) {
    TakenPort port;
    const Endpoint at = port.endpoint();
    port.fd.reset();
    metrics::Registry registry;
    fill(registry);
    const auto exporter = MetricsExporter::serve(at, registry, "1.2.3");
    ASSERT_TRUE(exporter.has_value()) << exporter.error().text;
    const std::string first = scrape(at);
    EXPECT_THAT(first, testing::StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(first, HasSubstr("gmgate_test_drops_total{reason=\"bad_icv\"} 12\n"));
    registry.counter("gmgate_test_drops_total", "", {{"reason", "bad_icv"}}).add(1);
    EXPECT_THAT(scrape(at), HasSubstr("gmgate_test_drops_total{reason=\"bad_icv\"} 13\n"));
}

TEST(MetricsExporter, PortInUseIsOneClearLine) {
    const TakenPort port;
    metrics::Registry registry;
    const auto exporter = MetricsExporter::serve(port.endpoint(), registry, "1");
    ASSERT_FALSE(exporter.has_value());
    EXPECT_EQ(exporter.error().kind, ErrorKind::io);
    EXPECT_EQ(exporter.error().text, "ops.metrics: cannot listen on " +
                                         port.endpoint().to_string() +
                                         ": is the port in use, or the address not of this "
                                         "machine? choose another, or write off");
}

TEST(MetricsExporter, AddressOfAnotherMachine) {
    metrics::Registry registry;
    EXPECT_FALSE(
        MetricsExporter::serve({*IpAddress::parse("192.0.2.77"), 9464}, registry, "1").has_value());
}

}  // namespace
}  // namespace gmgate::ops
