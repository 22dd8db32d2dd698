// Runs the conformance tests and prints the table rule → tests → result.
//
//   conformance [--table FILE] [gtest options]
//
// --table FILE writes the same table as Markdown.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/conformance/catalogue.h"

namespace {

using gmgate::conformance::catalogue;

enum class Outcome { passed, failed, skipped };

struct Case {
    std::string name;
    Outcome outcome;
    std::string share;  // of which component; empty: the whole rule
};

std::string share_of(const testing::TestResult& result) {
    for (int i = 0; i < result.test_property_count(); ++i) {
        if (result.GetTestProperty(i).key() == std::string_view("share"))
            return result.GetTestProperty(i).value();
    }
    return {};
}

bool is_rule(std::string_view id) {
    for (const auto& rule : catalogue) {
        if (rule.id == id) return true;
    }
    return false;
}

// "A4" of TEST(A4, …), of TEST_F(A4_Something, …), and of INSTANTIATE_TEST_SUITE_P(AllSuites, A9,
// …) = "AllSuites/A9".
std::string rule_of(std::string_view suite) {
    if (const auto slash = suite.find('/'); slash != std::string_view::npos) {
        const auto first = suite.substr(0, suite.find('_'));
        suite = is_rule(first) ? first : suite.substr(slash + 1);
    }
    suite = suite.substr(0, suite.find_first_of("_/"));
    return std::string(suite);
}

class Table : public testing::EmptyTestEventListener {
  public:
    void OnTestEnd(const testing::TestInfo& info) override {
        const std::string id = rule_of(info.test_suite_name());
        if (!is_rule(id)) {
            unknown_.push_back(std::string(info.test_suite_name()) + "." + info.name());
            return;
        }
        const Outcome outcome = info.result()->Skipped()  ? Outcome::skipped
                                : info.result()->Passed() ? Outcome::passed
                                                          : Outcome::failed;
        cases_[id].push_back({info.name(), outcome, share_of(*info.result())});
    }

    // Every component that the rule names has shown its share.
    static bool all_shares(std::string_view id, const std::vector<Case>& cases) {
        for (const auto& rule : catalogue) {
            if (rule.id != id) continue;
            return !rule.shares.empty() &&
                   std::ranges::all_of(rule.shares, [&](std::string_view share) {
                       return std::ranges::any_of(cases, [&](const Case& c) {
                           return c.outcome == Outcome::passed && c.share == share;
                       });
                   });
        }
        return false;
    }

    [[nodiscard]] std::string_view verdict(std::string_view id) const {
        const auto it = cases_.find(std::string(id));
        if (it == cases_.end()) return "open";
        bool passed = false;
        bool whole = false;
        bool skipped = false;
        for (const Case& c : it->second) {
            if (c.outcome == Outcome::failed) return "FAIL";
            passed = passed || c.outcome == Outcome::passed;
            whole = whole || (c.outcome == Outcome::passed && c.share.empty());
            skipped = skipped || c.outcome == Outcome::skipped;
        }
        if (!passed) return "skipped";
        whole = whole || all_shares(id, it->second);
        return whole && !skipped ? "pass" : "part";
    }

    void print(std::ostream& out) const {
        out << "\nrule  tests  result   what it asks\n";
        std::map<std::string, int> totals;
        for (const auto& rule : catalogue) {
            const auto it = cases_.find(std::string(rule.id));
            const std::size_t n = it == cases_.end() ? 0 : it->second.size();
            const std::string v(verdict(rule.id));
            ++totals[v];
            char line[64];
            std::snprintf(line, sizeof line, "%-5.*s %5zu  %-8s ", static_cast<int>(rule.id.size()),
                          rule.id.data(), n, v.c_str());
            out << line << rule.text << '\n';
            if (it == cases_.end()) continue;
            for (const Case& c : it->second) {
                if (c.outcome == Outcome::failed) out << "             failed:  " << c.name << '\n';
                if (c.outcome == Outcome::skipped)
                    out << "             skipped: " << c.name << '\n';
            }
        }
        out << '\n';
        for (const auto& [v, n] : totals) out << v << ": " << n << "  ";
        out << '\n';
    }

    void write_markdown(std::ostream& out) const {
        out << "# Conformance\n\n"
               "Written by `conformance --table FILE`; do not edit. `pass`: every test of the rule "
               "passes. `part`: the\n"
               "tests pass, but show only the share of the component named in brackets, or some "
               "were skipped. `open`: no\n"
               "test claims the rule yet. S1 and S2 ask something of every component: they pass "
               "when each has shown its share.\n\n"
               "| rule | what it asks | result | tests |\n|---|---|---|---|\n";
        for (const auto& rule : catalogue) {
            out << "| " << rule.id << " | " << rule.text << " | " << verdict(rule.id) << " | ";
            const auto it = cases_.find(std::string(rule.id));
            if (it != cases_.end()) {
                for (std::size_t i = 0; i < it->second.size(); ++i) {
                    const Case& c = it->second[i];
                    out << (i == 0 ? "" : ", ") << c.name;
                    if (!c.share.empty()) out << " (" << c.share << ")";
                    if (c.outcome == Outcome::failed) out << " (**failed**)";
                    if (c.outcome == Outcome::skipped) out << " (skipped)";
                }
            }
            out << " |\n";
        }
    }

    [[nodiscard]] const std::vector<std::string>& unknown() const { return unknown_; }

  private:
    std::map<std::string, std::vector<Case>> cases_;
    std::vector<std::string> unknown_;
};

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    std::string file;
    for (int i = 1; i < argc; ++i) {
        if (std::string_view(argv[i]) == "--table" && i + 1 < argc) {
            file = argv[++i];
        } else {
            std::cerr << "conformance: unknown argument " << argv[i]
                      << "; usage: conformance [--table FILE]\n";
            return 2;
        }
    }
    auto* table = new Table;  // NOLINT(cppcoreguidelines-owning-memory): gtest owns listeners
    testing::UnitTest::GetInstance()->listeners().Append(table);
    int rc = RUN_ALL_TESTS();
    if (GTEST_FLAG_GET(list_tests)) return rc;
    table->print(std::cout);
    for (const std::string& test : table->unknown()) {
        std::cerr << "conformance: " << test << " is named after no rule of catalogue.h\n";
        rc = 1;
    }
    if (!file.empty()) {
        std::ofstream out(file);
        table->write_markdown(out);
        if (!out.flush()) {
            std::cerr << "conformance: cannot write " << file << '\n';
            rc = 1;
        }
    }
    return rc;
}
