#pragma once
// ESP's cryptography in batches. One engine a worker (not thread-safe); the engines of one kind
// share the format of their keys.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "sa/algorithms/key_expansion.h"
#include "sa/algorithms/suite.h"

namespace gmgate::dataplane {

// Kept inside the SA's own cache lines: HMAC states, or the salt, or raw keys. The format is the
// engine's.
inline constexpr std::size_t small_key_size = 40;

// One packet. Borrowed for the call.
struct CryptoJob {
    std::uint8_t* esp = nullptr;  // at the SPI
    std::uint32_t length = 0;  // from the SPI to the octet before the ICV; geometry already checked
    std::uint32_t tag = 0;     // the caller's
    const std::uint8_t* small_key = nullptr;  // small_key_size octets
    const std::uint8_t* schedule =
        nullptr;      // schedule_size octets, 64-octet aligned; null if the size is 0
    bool ok = false;  // out
};

class CryptoEngine {
  public:
    static constexpr std::size_t max_jobs = 64;

    virtual ~CryptoEngine() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;

    // Octets of key schedule a set of this suite needs beside the small key (0: none).
    [[nodiscard]] virtual std::size_t schedule_size(sa::Suite suite) const = 0;
    // Fills both. `schedule` has schedule_size octets.
    virtual void expand(sa::Suite suite, const sa::EspKeys& keys,
                        std::span<std::uint8_t, small_key_size> small_key,
                        std::span<std::uint8_t> schedule) = 0;

    // At most max_jobs, all of one suite, each with a key of its own.
    // open: ok = the ICV after `length` octets verifies (compared in constant time); then, and only
    // then, the payload is decrypted in place. With AES-GCM the payload of a packet that is not ok
    // is undefined.
    virtual void open(sa::Suite suite, std::span<CryptoJob> jobs) = 0;
    // verify: ok as open() has it; nothing in the packet is written.
    virtual void verify(sa::Suite suite, std::span<CryptoJob> jobs) = 0;
    // seal: SPI, sequence and IV stand in the packet; encrypts the rest in place and writes the ICV
    // after `length` octets.
    virtual void seal(sa::Suite suite, std::span<CryptoJob> jobs) = 0;
};

enum class EngineKind : std::uint8_t { ipsec_mb, openssl };

// ipsec_mb where the CPU has what it needs (AES-NI, PCLMULQDQ), openssl otherwise.
[[nodiscard]] EngineKind best_engine();
// Start-up only: throws std::runtime_error if the library refuses (self-test, CPU).
[[nodiscard]] std::unique_ptr<CryptoEngine> make_engine(EngineKind kind);

}  // namespace gmgate::dataplane
