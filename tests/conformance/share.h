#pragma once
// A test that shows only one component's share of a rule says so: a rule with nothing but shares is
// "part", not "pass".

#include <gtest/gtest.h>

#include <string>

namespace gmgate::conformance {

// First line of such a test: share("sa"), share("dataplane"), …
inline void share(const std::string& component) {
    testing::Test::RecordProperty("share", component);
}

}  // namespace gmgate::conformance
