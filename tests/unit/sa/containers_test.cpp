// The building blocks of the database: index, pool, packed texts.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "sa/hash_index.h"
#include "sa/impu_index.h"
#include "sa/packed_strings.h"
#include "sa/pool.h"

namespace gmgate::sa {
namespace {

TEST(HashIndex, Model) {
    SeededRandom random(3);
    HashIndex index;
    std::multimap<std::uint64_t, std::uint32_t> model;
    std::uint32_t next = 0;
    for (int step = 0; step < 60000; ++step) {
        // Few distinct hashes, so that runs are long and wrap round the end.
        const std::uint64_t hash =
            random.below(3) == 0 ? random.below(64) * 0x100000001ULL : random.u64();
        switch (random.below(5)) {
            case 0:
            case 1:
                index.insert(hash, next);
                model.emplace(hash, next++);
                break;
            case 2:
            case 3: {
                if (model.empty()) break;
                auto it = model.lower_bound(hash);
                if (it == model.end()) it = model.begin();
                ASSERT_TRUE(index.erase(it->first, it->second));
                ASSERT_FALSE(index.erase(it->first, it->second));
                model.erase(it);
                break;
            }
            default: {
                auto it = model.lower_bound(hash);
                if (it == model.end()) break;
                const auto [first, last] = model.equal_range(it->first);
                std::set<std::uint32_t> expected;
                for (auto m = first; m != last; ++m) expected.insert(m->second);
                std::set<std::uint32_t> found;
                EXPECT_FALSE(index.find(it->first, [&](std::uint32_t p) {
                    found.insert(p);
                    return false;
                }));
                for (const std::uint32_t p : expected) ASSERT_TRUE(found.contains(p));
            }
        }
        ASSERT_EQ(index.size(), model.size());
    }
    for (const auto& [hash, position] : model) {
        ASSERT_TRUE(index.find(hash, [p = position](std::uint32_t q) { return p == q; }));
        ASSERT_TRUE(index.erase(hash, position));
    }
    EXPECT_EQ(index.size(), 0U);
    EXPECT_FALSE(index.find(5, [](std::uint32_t) { return true; }));
}

TEST(ImpuIndex, Model) {
    // Each "user" has a set of identities, named by their hashes.
    SeededRandom random(4);
    ImpuIndex index;
    std::vector<std::set<std::uint64_t>> users(300);
    for (int step = 0; step < 30000; ++step) {
        const auto user = static_cast<std::uint32_t>(random.below(users.size()));
        const std::uint64_t impu =
            random.below(3) == 0 ? 1 : random.below(200);  // one is shared by nearly all
        const auto has = [&](std::uint32_t u) { return users[u].contains(impu); };
        if (!users[user].contains(impu)) {
            index.insert(impu, user, has);
            users[user].insert(impu);
        } else {
            index.erase(impu, user, has);
            users[user].erase(impu);
        }
        std::set<std::uint32_t> found;
        index.each(impu, has, [&](std::uint32_t u) {
            EXPECT_TRUE(found.insert(u).second);
            return false;
        });
        std::set<std::uint32_t> expected;
        for (std::uint32_t u = 0; u < users.size(); ++u) {
            if (users[u].contains(impu)) expected.insert(u);
        }
        ASSERT_EQ(found, expected);
    }
    for (std::uint32_t u = 0; u < users.size(); ++u) {
        const auto impus = users[u];
        for (const std::uint64_t impu : impus) {
            index.erase(impu, u, [&](std::uint32_t v) { return users[v].contains(impu); });
            users[u].erase(impu);
        }
    }
    EXPECT_EQ(index.size(), 0U);
}

struct Counted {
    static inline int alive = 0;
    Counted() { ++alive; }
    ~Counted() { --alive; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    std::uint64_t value = 0;
};

TEST(Pool, NamesAreNeverUsedTwiceAndObjectsDoNotMove) {
    {
        Pool<Counted> pool;
        std::set<std::uint64_t> names;
        std::map<std::uint64_t, Counted*> alive;
        SeededRandom random(9);
        for (int step = 0; step < 20000; ++step) {
            if (random.below(2) == 0 || alive.empty()) {
                std::uint64_t id = 0;
                Counted* p = pool.create(id);
                ASSERT_NE(p, nullptr);
                ASSERT_NE(id, 0U);
                ASSERT_TRUE(names.insert(id).second);
                p->value = id;
                alive[id] = p;
            } else {
                auto it = alive.lower_bound(random.u64() % (*names.rbegin() + 1));
                if (it == alive.end()) it = alive.begin();
                ASSERT_EQ(pool.find(it->first), it->second);
                ASSERT_EQ(it->second->value, it->first);
                pool.destroy(it->first);
                ASSERT_EQ(pool.find(it->first), nullptr);
                pool.destroy(it->first);  // nothing happens
                alive.erase(it);
            }
            ASSERT_EQ(pool.size(), alive.size());
            ASSERT_EQ(Counted::alive, static_cast<int>(alive.size()));
        }
        EXPECT_EQ(pool.find(0), nullptr);
        EXPECT_EQ(pool.find(~0ULL), nullptr);
        EXPECT_LT(pool.end(), 2000U);  // places are used again
    }
    EXPECT_EQ(Counted::alive, 0);
}

TEST(Pool, CreateAsRestoresANameAndGoesOnAfterIt) {
    Pool<Counted> pool;
    const std::uint64_t wanted = (7ULL << 24U) | 5U;
    Counted* p = pool.create_as(wanted, 1000);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(pool.find(wanted), p);
    EXPECT_EQ(pool.at(5), p);
    EXPECT_EQ(pool.at(4), nullptr);
    EXPECT_EQ(pool.size(), 1U);
    EXPECT_EQ(pool.create_as(wanted, 1000), nullptr);
    EXPECT_EQ(pool.create_as((8ULL << 24U) | 5U, 1000), nullptr);
    EXPECT_EQ(pool.create_as((8ULL << 24U) | 1001U, 1000), nullptr);
    EXPECT_EQ(pool.create_as(3, 1000), nullptr);  // no count in it
    std::uint64_t id = 0;
    ASSERT_NE(pool.create(id), nullptr);
    EXPECT_GT(id >> 24U, 7U);
    EXPECT_NE(pool.create_as((2ULL << 24U) | 3U, 1000), nullptr);
}

TEST(PackedStrings, KeepsTextsInOneBlock) {
    PackedStrings empty;
    EXPECT_EQ(empty.size(), 0U);
    EXPECT_EQ(empty[0], "");
    EXPECT_EQ(empty.octets(), 0U);
    const std::vector<std::string_view> texts{"alice@home.example", "", "<sip:scscf;lr>", "sip:a",
                                              std::string_view("a\0b", 3)};
    auto p = PackedStrings::pack(texts);
    ASSERT_TRUE(p);
    ASSERT_EQ(p->size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_EQ((*p)[i], texts[i]);
    EXPECT_EQ((*p)[5], "");
    EXPECT_EQ(p->octets(), 2 + 5 * 4 + 18U + 0 + 14 + 5 + 3);
    PackedStrings moved = std::move(*p);
    EXPECT_EQ(moved[3], "sip:a");
    EXPECT_EQ(PackedStrings::pack({})->size(), 0U);
}

TEST(PackedStrings, HasLimits) {
    const std::string longest(PackedStrings::max_octets, 'x');
    const std::string longer(PackedStrings::max_octets + 1, 'x');
    EXPECT_TRUE(PackedStrings::pack(std::vector<std::string_view>{longest, longest}));
    EXPECT_EQ((*PackedStrings::pack(std::vector<std::string_view>{longest, longest}))[1], longest);
    EXPECT_FALSE(PackedStrings::pack(std::vector<std::string_view>{longer}));
    EXPECT_FALSE(PackedStrings::pack(std::vector<std::string_view>(PackedStrings::max_texts + 1)));
}

}  // namespace
}  // namespace gmgate::sa
