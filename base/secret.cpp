#include "base/secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <new>
#include <utility>

namespace gmgate {

void wipe(std::span<std::uint8_t> bytes) {
    if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
}

bool equal_constant_time(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
    return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

namespace {

std::uint8_t* map_secret(std::size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    (void)madvise(p, bytes, MADV_DONTDUMP);
    // Best effort: RLIMIT_MEMLOCK may be small, and a laboratory without swap loses nothing.
    (void)mlock2(p, bytes, MLOCK_ONFAULT);
    return static_cast<std::uint8_t*>(p);
}

std::size_t round_to_pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

constexpr std::size_t grain = 16;
constexpr std::size_t largest_block = 1024;
constexpr std::size_t slab_bytes = 256UL * 1024;

// Free lists by size class of 16 octets. Slabs are never given back: the process' peak is bounded
// by the SA limits.
class SlabSet {
  public:
    void* allocate(std::size_t bytes) {
        const std::size_t klass = (bytes + grain - 1) / grain;
        const std::scoped_lock lock(mutex_);
        Free*& head = free_[klass];
        if (head == nullptr) refill(klass);
        Free* block = head;
        head = block->next;
        block->next = nullptr;
        return block;
    }
    void deallocate(void* p, std::size_t bytes) noexcept {
        const std::size_t klass = (bytes + grain - 1) / grain;
        explicit_bzero(p, klass * grain);
        const std::scoped_lock lock(mutex_);
        auto* block = static_cast<Free*>(p);
        block->next = free_[klass];
        free_[klass] = block;
    }

  private:
    struct Free {
        Free* next;
    };
    void refill(std::size_t klass) {
        const std::size_t size = klass * grain;
        if (static_cast<std::size_t>(end_ - at_) < size) {
            at_ = map_secret(slab_bytes);
            end_ = at_ + slab_bytes;
        }
        auto* block = reinterpret_cast<Free*>(at_);
        at_ += size;
        block->next = nullptr;
        free_[klass] = block;
    }
    std::mutex mutex_;
    std::array<Free*, largest_block / grain + 1> free_{};
    std::uint8_t* at_ = nullptr;
    std::uint8_t* end_ = nullptr;
};

// Memory, like malloc's arena: shared by the process, holds no behaviour. Never destroyed, so that
// statics may use it.
SlabSet& slabs() {
    static SlabSet* const set = new SlabSet;  // NOLINT(cppcoreguidelines-owning-memory)
    return *set;
}

}  // namespace

void* secret_allocate(std::size_t bytes) {
    if (bytes == 0) bytes = 1;
    if (bytes <= largest_block) return slabs().allocate(bytes);
    return map_secret(round_to_pages(bytes));
}

void secret_deallocate(void* p, std::size_t bytes) noexcept {
    if (p == nullptr) return;
    if (bytes == 0) bytes = 1;
    if (bytes <= largest_block) {
        slabs().deallocate(p, bytes);
        return;
    }
    explicit_bzero(p, bytes);
    munmap(p, round_to_pages(bytes));
}

SecretPages::SecretPages(std::size_t bytes)
    : data_(map_secret(round_to_pages(bytes))), size_(round_to_pages(bytes)) {}

SecretPages::~SecretPages() {
    if (data_ != nullptr) {
        wipe(bytes());
        munmap(data_, size_);
    }
}

SecretPages::SecretPages(SecretPages&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}

SecretPages& SecretPages::operator=(SecretPages&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
}

}  // namespace gmgate
