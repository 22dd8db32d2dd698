// The dashboard and the alerts ask for series that exist: a renamed metric would leave them
// silently empty.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

namespace gmgate::ops {
namespace {

const std::string root = GMGATE_SOURCE_DIR;

std::string read(const std::filesystem::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string sources() {
    std::string out;
    for (const char* folder : {"base", "sa", "dataplane", "control"}) {
        for (const auto& entry :
             std::filesystem::recursive_directory_iterator(root + "/" + folder)) {
            const auto extension = entry.path().extension();
            if (extension == ".cpp" || extension == ".h") out += read(entry.path());
        }
    }
    return out;
}

bool of_name(char c) {
    return (c >= 'a' && c <= 'z') || c == '_';
}

// By hand: GCC 12 warns about std::regex under the sanitizers.
std::set<std::string> metrics_in(const std::string& text) {
    std::set<std::string> out;
    for (std::size_t i = 0; i < text.size();) {
        std::size_t end = i;
        while (end < text.size() && of_name(text[end])) ++end;
        std::string metric = text.substr(i, end - i);
        i = end + 1;
        if (!metric.starts_with("gmgate_") && !metric.starts_with("process_")) continue;
        for (const char* suffix : {"_bucket", "_sum", "_count"}) {
            if (metric.ends_with(suffix))
                metric.resize(metric.size() - std::string_view(suffix).size());
        }
        out.insert(metric);
    }
    return out;
}

void expect_all_exist(const std::set<std::string>& names) {
    static const std::string text = sources();
    ASSERT_GE(names.size(), 8U);
    for (const std::string& metric : names)
        EXPECT_NE(text.find('"' + metric + '"'), std::string::npos) << metric;
}

TEST(Deploy, DashboardAsksForSeriesThatExist) {
    const auto dashboard =
        nlohmann::json::parse(read(root + "/deploy/grafana/gmgate.json"), nullptr, false);
    ASSERT_TRUE(dashboard.is_object());
    std::string expressions;
    for (const auto& panel : dashboard["panels"]) {
        if (panel["type"] == "row") continue;
        ASSERT_FALSE(panel["targets"].empty()) << panel["title"];
        for (const auto& target : panel["targets"])
            expressions += target["expr"].get<std::string>() + '\n';
    }
    expect_all_exist(metrics_in(expressions));
}

TEST(Deploy, AlertsAskForSeriesThatExist) {
    const std::string text = read(root + "/deploy/prometheus/gmgate.rules.yml");
    std::string expressions;  // without the annotations' prose
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        if (line.find("description:") == std::string::npos &&
            line.find("summary:") == std::string::npos)
            expressions += line + '\n';
    }
    expect_all_exist(metrics_in(expressions));
}

// A reason an alert names is one the program has.
TEST(Deploy, AlertsNameReasonsThatExist) {
    const std::string text = read(root + "/deploy/prometheus/gmgate.rules.yml");
    static const std::string program = sources();
    const std::string opening = "reason=~\"";
    std::size_t checked = 0;
    for (std::size_t at = text.find(opening); at != std::string::npos;
         at = text.find(opening, at + 1)) {
        const std::size_t begin = at + opening.size();
        std::istringstream reasons(text.substr(begin, text.find('"', begin) - begin));
        for (std::string reason; std::getline(reasons, reason, '|'); ++checked) {
            const bool there = program.find('"' + reason + '"') != std::string::npos ||
                               program.find("X(" + reason + ',') != std::string::npos;
            EXPECT_TRUE(there) << reason;
        }
    }
    EXPECT_GE(checked, 8U);
}

TEST(Deploy, PromtoolAgreesWithTheAlerts) {
    const char* tools = std::getenv("GMGATE_TOOLS");
    std::string tool =
        std::string(tools != nullptr ? tools : "/usr/local/lib/gmgate") + "/promtool";
    if (::access(tool.c_str(), X_OK) != 0) tool = "/usr/bin/promtool";
    if (::access(tool.c_str(), X_OK) != 0)
        GTEST_SKIP() << "no promtool here; deploy/install-deps test fetches it";
    for (const char* arguments : {"check config prometheus.yml", "check rules gmgate.rules.yml",
                                  "test rules gmgate.rules_test.yml"}) {
        const std::string command =
            "cd '" + root + "/deploy/prometheus' && " + tool + " " + arguments + " >/dev/null";
        EXPECT_EQ(std::system(command.c_str()), 0) << arguments;
    }
}

}  // namespace
}  // namespace gmgate::ops
