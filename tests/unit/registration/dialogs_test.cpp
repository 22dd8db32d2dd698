// The table of dialogs alone: found by name, listed by user, in line by last use.

#include "control/registration/dialogs.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace gmgate::registration {
namespace {

using namespace std::chrono_literals;

struct Names {
    std::string call_id, ue, core, ue_tag, core_tag;
    explicit Names(unsigned n)
        : call_id("call-" + std::to_string(n) + "@10.2.0.1"),
          ue("<sip:alice@home.example>;tag=u" + std::to_string(n)),
          core("\"Bob, B.\" <sip:bob@home.example>;tag=c" + std::to_string(n)),
          ue_tag("u" + std::to_string(n)),
          core_tag("c" + std::to_string(n)) {}
    [[nodiscard]] DialogTexts texts() const {
        return {call_id,
                ue,
                core,
                "sip:alice@10.2.0.1:7777",
                "sip:bob@192.0.2.77:5062",
                "<sip:scscf@192.0.2.9:6060;lr>"};
    }
    [[nodiscard]] DialogName name(sa::UserId user) const {
        return {user, call_id, ue_tag, core_tag};
    }
};

TEST(Dialogs, FoundByAllOfItsName) {
    SeededRandom random(1);
    Dialogs table(random, 10, 10);
    const Names n(1);
    Dialog* d = table.add(7, 0, n.texts(), TimePoint{});
    ASSERT_NE(d, nullptr);
    EXPECT_EQ(table.find(n.name(7)), d);
    EXPECT_EQ(table.find(n.name(8)), nullptr) << "of another user";
    EXPECT_EQ(table.find({7, n.call_id, n.core_tag, n.ue_tag}), nullptr)
        << "seen from the other end it is another";
    EXPECT_EQ(table.find({7, n.call_id, n.ue_tag, "other"}), nullptr);
    EXPECT_EQ(table.find({7, "other", n.ue_tag, n.core_tag}), nullptr);
    table.retarget(*d, "", "sip:moved.example");
    EXPECT_EQ(d->core_target(), "sip:moved.example");
    EXPECT_EQ(d->ue_target(), "sip:alice@10.2.0.1:7777");
    EXPECT_EQ(table.find(n.name(7)), d);
    table.remove(d->id);
    EXPECT_EQ(table.find(n.name(7)), nullptr);
    EXPECT_EQ(table.size(), 0U);
}

TEST(Dialogs, WhatIsTooLongIsNotKept) {
    SeededRandom random(1);
    Dialogs table(random, 10, 10);
    const Names n(1);
    const std::string long_text(Dialogs::max_octets, 'x');
    DialogTexts texts = n.texts();
    texts.core_route = long_text;
    EXPECT_EQ(table.add(7, 0, texts, TimePoint{}), nullptr);
    Dialog* d = table.add(7, 0, n.texts(), TimePoint{});
    ASSERT_NE(d, nullptr);
    table.retarget(*d, long_text, "");
    EXPECT_EQ(d->ue_target(), "sip:alice@10.2.0.1:7777") << "the old one stays";
}

TEST(Dialogs, EarlyOnesGoWithTheirInvite) {
    SeededRandom random(1);
    Dialogs table(random, 10, 3);
    for (unsigned i = 0; i < 2; ++i) ASSERT_NE(table.add(7, 99, Names(i).texts(), {}), nullptr);
    ASSERT_NE(table.add(7, 98, Names(2).texts(), {}), nullptr);
    EXPECT_FALSE(table.has_room(7, 1, 1));
    EXPECT_TRUE(table.has_room(8, 1, 1));
    EXPECT_FALSE(table.has_room(8, 1, 8));
    table.find(Names(0).name(7))->invite = 0;
    table.remove_early(7, 99);
    EXPECT_EQ(table.of_user(7), 2U);
    EXPECT_NE(table.find(Names(0).name(7)), nullptr);
    table.end(7, Reason::expired);
    ASSERT_NE(table.next_ended(), nullptr);
    EXPECT_EQ(table.next_ended()->call_id(), Names(0).call_id) << "confirmed ones alone";
    table.remove(table.next_ended()->id);
    EXPECT_EQ(table.next_ended(), nullptr);
    EXPECT_TRUE(table.remove_one_early(7, 98));
    EXPECT_FALSE(table.remove_one_early(7, 98));
    EXPECT_EQ(table.of_user(7), 0U);
}

// Ten thousand random steps against an ordinary map and list.
TEST(Dialogs, AgainstAModel) {
    SeededRandom random(5);
    SeededRandom dice(6);
    Dialogs table(random, 1000, 1000);
    struct Kept {
        sa::UserId user;
        TimePoint used;
        bool ended = false;
    };
    std::map<unsigned, Kept> model;
    TimePoint now{};
    unsigned next = 0;
    for (int step = 0; step < 10'000; ++step) {
        now += 1s;
        const auto what = dice.below(10);
        auto at = model.begin();
        if (!model.empty()) std::advance(at, static_cast<std::ptrdiff_t>(dice.below(model.size())));
        if (what < 4 || model.empty()) {
            const sa::UserId user = 1 + dice.below(5);
            ASSERT_NE(table.add(user, 0, Names(next).texts(), now), nullptr);
            model.emplace(next++, Kept{user, now, false});
        } else if (what < 7) {
            Dialog* d = table.find(Names(at->first).name(at->second.user));
            ASSERT_NE(d, nullptr);
            table.touch(*d, now);
            if (!at->second.ended) at->second.used = now;
        } else if (what < 9) {
            Dialog* d = table.find(Names(at->first).name(at->second.user));
            ASSERT_NE(d, nullptr);
            table.remove(d->id);
            model.erase(at);
        } else if (step % 50 == 0) {
            const sa::UserId user = at->second.user;
            table.end(user, Reason::expired);
            for (auto& [n, kept] : model) kept.ended = kept.ended || kept.user == user;
        }
        ASSERT_EQ(table.size(), model.size());
        const Kept* oldest = nullptr;
        std::map<sa::UserId, std::size_t> counts;
        std::size_t ended = 0;
        for (const auto& [n, kept] : model) {
            ++counts[kept.user];
            ended += kept.ended ? 1U : 0U;
            if (!kept.ended && (oldest == nullptr || kept.used < oldest->used)) oldest = &kept;
        }
        for (sa::UserId user = 1; user <= 5; ++user) ASSERT_EQ(table.of_user(user), counts[user]);
        ASSERT_EQ(table.oldest() == nullptr, oldest == nullptr);
        if (oldest != nullptr) {
            ASSERT_EQ(Dialogs::last_use(*table.oldest()), oldest->used);
        }
        ASSERT_EQ(table.next_ended() == nullptr, ended == 0);
    }
    while (Dialog* d = table.next_ended()) table.remove(d->id);
    while (Dialog* d = table.oldest()) table.remove(d->id);
    EXPECT_EQ(table.size(), 0U);
}

TEST(Dialogs, AreSmall) {
    SeededRandom random(1);
    constexpr unsigned many = 10'000;
    Dialogs table(random, many, many);
    for (unsigned i = 0; i < many; ++i) ASSERT_NE(table.add(i, 0, Names(i).texts(), {}), nullptr);
    std::printf("%u dialogs: %zu octets each\n", many, table.octets() / many);
    EXPECT_LT(table.octets() / many, 512U);
}

}  // namespace
}  // namespace gmgate::registration
