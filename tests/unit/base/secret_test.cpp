#include "base/secret.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace gmgate {
namespace {

std::array<std::uint8_t, 16> pattern(std::uint8_t first) {
    std::array<std::uint8_t, 16> a{};
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::uint8_t>(first + i);
    return a;
}

bool all_zero(std::span<const std::uint8_t> b) {
    return std::ranges::all_of(b, [](std::uint8_t o) { return o == 0; });
}

TEST(Secret, WipeClearsEveryOctet) {
    auto a = pattern(1);
    wipe(a);
    EXPECT_TRUE(all_zero(a));
    wipe(std::span<std::uint8_t>());
}

TEST(Secret, IsWipedWhenItGoes) {
    alignas(Secret<16>) std::array<std::byte, sizeof(Secret<16>)> storage{};
    auto* s = new (storage.data()) Secret<16>(pattern(1));
    EXPECT_EQ(s->reveal()[15], 16);
    s->~Secret();
    // The storage outlives the object: read it as octets.
    EXPECT_TRUE(std::ranges::all_of(storage, [](std::byte b) { return b == std::byte{0}; }));
}

TEST(Secret, MovingLeavesNothingBehind) {
    Secret<16> a(pattern(1));
    Secret<16> b(std::move(a));
    EXPECT_TRUE(all_zero(a.reveal()));  // NOLINT(bugprone-use-after-move): that is what is tested
    EXPECT_EQ(b.reveal()[0], 1);
    Secret<16> c;
    c = std::move(b);
    EXPECT_TRUE(all_zero(b.reveal()));  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(c.reveal()[0], 1);
    Secret<16>& same = c;
    c = std::move(same);
    EXPECT_EQ(c.reveal()[0], 1);
}

TEST(Secret, CopiesAreDeliberateAndEqual) {
    static_assert(!std::is_copy_constructible_v<Secret<16>>);
    const Secret<16> a(pattern(1));
    const Secret<16> b = a.copy();
    EXPECT_TRUE(a == b);
    const Secret<16> c(pattern(2));
    EXPECT_FALSE(a == c);
}

TEST(Secret, ConstantTimeComparisonComparesAll) {
    auto a = pattern(1);
    auto b = a;
    EXPECT_TRUE(equal_constant_time(a, b));
    for (std::size_t i = 0; i < a.size(); ++i) {
        b = a;
        b[i] ^= 0x80;
        EXPECT_FALSE(equal_constant_time(a, b)) << i;
    }
    EXPECT_FALSE(equal_constant_time(a, std::span<const std::uint8_t>(a).first(15)));
    EXPECT_TRUE(equal_constant_time({}, {}));
}

TEST(SecretPages, AreWholePagesOutsideCoreDumps) {
    const SecretPages pages(5000);
    EXPECT_GE(pages.bytes().size(), 5000U);
    EXPECT_EQ(pages.bytes().size() % 4096, 0U);
    pages.bytes()[4999] = 7;

    // "dd" in the mapping's VmFlags: MADV_DONTDUMP.
    std::ifstream smaps("/proc/self/smaps");
    if (!smaps)
        GTEST_SKIP() << "this kernel shows no /proc/self/smaps: whether these pages are in a core "
                        "dump cannot be seen";
    char want[32];
    std::snprintf(want, sizeof want, "%lx-", reinterpret_cast<unsigned long>(pages.bytes().data()));
    std::string line;
    std::string last_range;
    bool dumped = true;
    bool found = false;
    unsigned long address = reinterpret_cast<unsigned long>(pages.bytes().data());
    while (std::getline(smaps, line)) {
        unsigned long begin = 0;
        unsigned long end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
            last_range = begin <= address && address < end ? "ours" : "";
        } else if (last_range == "ours" && line.rfind("VmFlags:", 0) == 0) {
            found = true;
            dumped = line.find(" dd") == std::string::npos;
        }
    }
    EXPECT_TRUE(found);
    EXPECT_FALSE(dumped);
}

TEST(SecretPages, Move) {
    SecretPages a(4096);
    a.bytes()[0] = 9;
    SecretPages b(std::move(a));
    EXPECT_EQ(b.bytes()[0], 9);
    EXPECT_TRUE(a.bytes().empty());  // NOLINT(bugprone-use-after-move)
    SecretPages c;
    c = std::move(b);
    EXPECT_EQ(c.bytes()[0], 9);
}

TEST(SecretAllocate, BlocksAreDistinctAlignedAndWipedWhenGivenBack) {
    std::set<void*> blocks;
    std::vector<std::pair<void*, std::size_t>> held;
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{16}, std::size_t{17}, std::size_t{48},
          std::size_t{1024}, std::size_t{1025}, std::size_t{70000}}) {
        for (int i = 0; i < 20; ++i) {
            void* p = secret_allocate(size);
            EXPECT_TRUE(blocks.insert(p).second);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 16, 0U);
            std::memset(p, 0xA5, size);
            held.emplace_back(p, size);
        }
    }
    for (const auto& [p, size] : held) secret_deallocate(p, size);
    // A small block that comes back holds nothing of its former life.
    void* p = secret_allocate(48);
    EXPECT_TRUE(all_zero({static_cast<std::uint8_t*>(p), 48}));
    secret_deallocate(p, 48);
    secret_deallocate(nullptr, 5);
}

TEST(SecretAllocate, VectorAndPointer) {
    std::vector<std::uint8_t, SecretAllocator<std::uint8_t>> v;
    for (int i = 0; i < 5000; ++i) v.push_back(static_cast<std::uint8_t>(i));
    EXPECT_EQ(v[4999], static_cast<std::uint8_t>(4999));
    auto key = make_secret<Secret<16>>(std::span<const std::uint8_t, 16>(pattern(3)));
    EXPECT_EQ(key->reveal()[0], 3);
}

}  // namespace
}  // namespace gmgate
