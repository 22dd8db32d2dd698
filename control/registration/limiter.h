#pragma once
// What a stranger may use up (S3): REGISTERs a second by source and in total, and procedures under
// way by source.

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/seeded_hash.h"

namespace gmgate::registration {

// One token bucket: `rate` tokens a second, at most `burst`.
class TokenBucket {
  public:
    TokenBucket(double rate, double burst) : rate_(rate), burst_(burst), tokens_(burst) {}
    [[nodiscard]] bool take(TimePoint now);

  private:
    double rate_;
    double burst_;
    double tokens_;
    TimePoint last_{};
};

// A bucket per source address in a table of fixed size. When it is full the bucket that has
// recovered most gives way: forgetting a full bucket forgets nothing.
class SourceBuckets {
  public:
    // `sources` is rounded up to a multiple of 8.
    SourceBuckets(std::size_t sources, double rate, double burst, Random& random);
    [[nodiscard]] bool take(const IpAddress& source, TimePoint now);
    [[nodiscard]] std::size_t capacity() const { return sets_.size() * ways; }

  private:
    static constexpr std::size_t ways = 8;
    struct Bucket {
        IpAddress source;
        bool used = false;
        float tokens = 0;
        std::uint32_t last_ms = 0;  // since the first call; wraps after 49 days, which only refills
    };
    using Set = std::array<Bucket, ways>;

    [[nodiscard]] float tokens_now(const Bucket& b, std::uint32_t now_ms) const;

    std::vector<Set> sets_;
    float rate_;
    float burst_;
    SeededHash hash_;
    TimePoint epoch_{};
};

// How many procedures each source has under way; holds no more entries than there are procedures.
class PendingBySource {
  public:
    explicit PendingBySource(Random& random) : hash_(random) {}
    [[nodiscard]] std::size_t of(const IpAddress& source) const;
    void add(const IpAddress& source);
    void remove(const IpAddress& source);
    [[nodiscard]] std::size_t sources() const { return counts_.size(); }

  private:
    struct Hash {
        SeededHash hash;
        std::size_t operator()(const IpAddress& a) const {
            return hash({reinterpret_cast<const char*>(a.raw().data()), a.octets().size()});
        }
    };

    SeededHash hash_;
    std::unordered_map<IpAddress, std::uint32_t, Hash> counts_{16, Hash{hash_}};
};

}  // namespace gmgate::registration
