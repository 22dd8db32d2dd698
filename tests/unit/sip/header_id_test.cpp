#include "control/sip/header_id.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/bytes.h"

namespace gmgate::sip {
namespace {

TEST(HeaderIdTest, EveryNameFindsItselfInAnyCase) {
    std::set<std::string> names;
    for (std::size_t i = 1; i < header_id_count; ++i) {
        const auto id = static_cast<HeaderId>(i);
        const std::string name(header_name(id));
        EXPECT_TRUE(names.insert(to_lower(name)).second) << name;
        EXPECT_EQ(header_id(name), id) << name;
        EXPECT_EQ(header_id(to_lower(name)), id) << name;
        std::string upper = name;
        for (auto& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
        EXPECT_EQ(header_id(upper), id) << upper;
    }
}

TEST(HeaderIdTest, NearMissesAreUnknown) {
    for (std::size_t i = 1; i < header_id_count; ++i) {
        const std::string name(header_name(static_cast<HeaderId>(i)));
        EXPECT_EQ(header_id(name + "x"), HeaderId::unknown);
        for (std::size_t at = 0; at < name.size(); ++at) {
            for (const char c : {'\0', '\r', '\x0D', '@', '[', '`', '{', '_', '0', '\xE1'}) {
                auto wrong = name;
                wrong[at] = c;
                EXPECT_EQ(header_id(wrong), HeaderId::unknown) << wrong;
            }
            auto shorter = name;
            shorter.erase(at, 1);
            // "To" and "Via" without a letter may be a compact name.
            if (shorter.size() > 1 && to_lower(shorter) != "to") {
                EXPECT_EQ(header_id(shorter), HeaderId::unknown) << shorter;
            }
        }
    }
    EXPECT_EQ(header_id(""), HeaderId::unknown);
    EXPECT_EQ(header_id(std::string(70000, 'a')), HeaderId::unknown);
}

TEST(HeaderIdTest, CompactNames) {
    const std::pair<char, HeaderId> compact[] = {{'a', HeaderId::accept_contact},
                                                 {'b', HeaderId::referred_by},
                                                 {'c', HeaderId::content_type},
                                                 {'d', HeaderId::request_disposition},
                                                 {'e', HeaderId::content_encoding},
                                                 {'f', HeaderId::from},
                                                 {'i', HeaderId::call_id},
                                                 {'j', HeaderId::reject_contact},
                                                 {'k', HeaderId::supported},
                                                 {'l', HeaderId::content_length},
                                                 {'m', HeaderId::contact},
                                                 {'o', HeaderId::event},
                                                 {'r', HeaderId::refer_to},
                                                 {'s', HeaderId::subject},
                                                 {'t', HeaderId::to},
                                                 {'u', HeaderId::allow_events},
                                                 {'v', HeaderId::via},
                                                 {'x', HeaderId::session_expires},
                                                 {'y', HeaderId::identity}};
    std::set<int> letters;
    for (const auto& [letter, id] : compact) {
        EXPECT_EQ(header_id(std::string(1, letter)), id);
        EXPECT_EQ(header_id(std::string(1, static_cast<char>(letter - 32))), id);
        letters.insert(letter);
        letters.insert(letter - 32);
    }
    for (int c = 0; c < 256; ++c) {
        if (letters.contains(c)) continue;
        EXPECT_EQ(header_id(std::string(1, static_cast<char>(c))), HeaderId::unknown) << c;
    }
}

}  // namespace
}  // namespace gmgate::sip
