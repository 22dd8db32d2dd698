#pragma once
// Keys live in memory that is wiped when they go and that never reaches a core dump (S1).

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

namespace gmgate {

// Overwrites with zeros in a way the compiler may not drop.
void wipe(std::span<std::uint8_t> bytes);
template <class T, std::size_t N>
void wipe(std::array<T, N>& a) {
    wipe(std::span<std::uint8_t>(reinterpret_cast<std::uint8_t*>(a.data()), N * sizeof(T)));
}

// Constant-time: for ICVs, RES and digests.
[[nodiscard]] bool equal_constant_time(std::span<const std::uint8_t> a,
                                       std::span<const std::uint8_t> b);

// A key of fixed length. Cannot be printed; copies are deliberate (`copy`); wiped on destruction
// and when moved from.
template <std::size_t N>
class Secret {
  public:
    Secret() = default;
    explicit Secret(std::span<const std::uint8_t, N> bytes) {
        std::memcpy(bytes_.data(), bytes.data(), N);
    }
    ~Secret() { wipe(bytes_); }
    Secret(const Secret&) = delete;
    Secret& operator=(const Secret&) = delete;
    Secret(Secret&& other) noexcept : bytes_(other.bytes_) { wipe(other.bytes_); }
    Secret& operator=(Secret&& other) noexcept {
        if (this != &other) {
            bytes_ = other.bytes_;
            wipe(other.bytes_);
        }
        return *this;
    }

    [[nodiscard]] Secret copy() const { return Secret(std::span<const std::uint8_t, N>(bytes_)); }
    // The one way to the octets; whoever calls it must not let them reach text.
    [[nodiscard]] std::span<const std::uint8_t, N> reveal() const { return bytes_; }
    [[nodiscard]] std::span<std::uint8_t, N> writable() { return bytes_; }
    [[nodiscard]] bool operator==(const Secret& o) const {
        return equal_constant_time(bytes_, o.bytes_);
    }

  private:
    std::array<std::uint8_t, N> bytes_{};
};

// Whole pages outside core dumps (MADV_DONTDUMP), locked where the limit allows, wiped before they
// are unmapped. For what holds many keys: SA tables, receive buffers, the pools of per-registration
// state. Not thread-safe to move.
class SecretPages {
  public:
    SecretPages() = default;
    explicit SecretPages(std::size_t bytes);  // throws std::bad_alloc (start-up only)
    ~SecretPages();
    SecretPages(const SecretPages&) = delete;
    SecretPages& operator=(const SecretPages&) = delete;
    SecretPages(SecretPages&& o) noexcept;
    SecretPages& operator=(SecretPages&& o) noexcept;

    [[nodiscard]] std::span<std::uint8_t> bytes() const { return {data_, size_}; }

  private:
    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

// Allocator for containers whose elements hold keys: blocks come from SecretPages-like slabs
// outside core dumps and are wiped when given back. One process-wide slab set behind a lock;
// allocation is O(1) for node-sized blocks (up to 1 KiB).
void* secret_allocate(std::size_t bytes);  // throws std::bad_alloc
void secret_deallocate(void* p, std::size_t bytes) noexcept;

template <class T>
struct SecretAllocator {
    using value_type = T;
    SecretAllocator() = default;
    template <class U>
    SecretAllocator(const SecretAllocator<U>&) {
    }  // NOLINT(google-explicit-constructor): an allocator converts
    T* allocate(std::size_t n) { return static_cast<T*>(secret_allocate(n * sizeof(T))); }
    void deallocate(T* p, std::size_t n) noexcept { secret_deallocate(p, n * sizeof(T)); }
    template <class U>
    bool operator==(const SecretAllocator<U>&) const {
        return true;
    }
};

// Allocator for ordinary memory that is wiped when it is given back, so also each time a container
// grows. For buffers that may hold a key for a moment. Element-wise erasing leaves a tail that is
// the owner's to wipe.
template <class T>
struct WipingAllocator {
    using value_type = T;
    WipingAllocator() = default;
    template <class U>
    WipingAllocator(const WipingAllocator<U>&) {
    }  // NOLINT(google-explicit-constructor): an allocator converts
    T* allocate(std::size_t n) { return std::allocator<T>().allocate(n); }
    void deallocate(T* p, std::size_t n) noexcept {
        wipe(std::span(reinterpret_cast<std::uint8_t*>(p), n * sizeof(T)));
        std::allocator<T>().deallocate(p, n);
    }
    template <class U>
    bool operator==(const WipingAllocator<U>&) const {
        return true;
    }
};

// unique_ptr whose object lies in secret memory: `auto ck = make_secret<Keys>();`
template <class T>
struct SecretDelete {
    void operator()(T* p) const noexcept {
        p->~T();
        secret_deallocate(p, sizeof(T));
    }
};
template <class T>
using SecretPtr = std::unique_ptr<T, SecretDelete<T>>;
template <class T, class... Args>
SecretPtr<T> make_secret(Args&&... args) {
    void* p = secret_allocate(sizeof(T));
    return SecretPtr<T>(new (p) T(std::forward<Args>(args)...));
}

}  // namespace gmgate
