#pragma once
// Memory of the tables: outside core dumps, in huge pages where the kernel gives them.

#include <sys/mman.h>

#include <cstddef>
#include <span>

#include "base/secret.h"

namespace gmgate::dataplane {

// A huge page touched is a huge page used, so small tables stay with ordinary pages.
inline constexpr std::size_t huge_page_threshold = 16UL << 20U;

[[nodiscard]] inline SecretPages table_pages(std::size_t bytes, bool huge_pages) {
    SecretPages pages(bytes == 0 ? 1 : bytes);
    // Advice: with thousands of SAs in random order every access would else be a TLB miss besides a
    // cache miss.
    if (huge_pages && bytes >= huge_page_threshold)
        (void)madvise(pages.bytes().data(), pages.bytes().size(), MADV_HUGEPAGE);
    return pages;
}

// Pages are zero and aligned to at least 4 KiB; T must be fine with all octets zero.
template <class T>
[[nodiscard]] std::span<T> as_table(const SecretPages& pages, std::size_t count) {
    return {reinterpret_cast<T*>(pages.bytes().data()), count};
}

}  // namespace gmgate::dataplane
