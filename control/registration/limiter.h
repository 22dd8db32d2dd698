#pragma once
// What a stranger may use up (S3): unprotected messages a second by source and in total, challenges
// a second of one name, procedures under way by source; and what a registered phone may: messages a
// second. Everything here is of fixed size, but for the books on procedures, of which there are no
// more than procedures.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/seeded_hash.h"
#include "control/registration/policy.h"
#include "control/registration/reasons.h"

namespace gmgate::registration {

// Address and port as octets.
[[nodiscard]] inline std::array<char, 18> text_of(const Endpoint& endpoint) {
    std::array<char, 18> text{};
    std::memcpy(text.data(), endpoint.address.raw().data(), 16);
    std::memcpy(text.data() + 16, &endpoint.port, sizeof(endpoint.port));
    return text;
}

// One token bucket: `rate` tokens a second, at most `burst`.
class TokenBucket {
  public:
    TokenBucket(double rate, double burst) : rate_(rate), burst_(burst), tokens_(burst) {}
    // One token, if `kept` are left after it.
    [[nodiscard]] bool take(TimePoint now, double kept = 0);

  private:
    double rate_;
    double burst_;
    double tokens_;
    TimePoint last_{};
};

// A bucket for each of many keys in a table of fixed size. When it is full the bucket that has
// recovered most gives way: forgetting a full bucket forgets nothing. Keys are hashed with a
// secret, so nobody can aim at another's place.
class RateTable {
  public:
    // `entries` is rounded up to a multiple of 8; 16 octets each.
    RateTable(std::size_t entries, double rate, double burst, Random& random);
    [[nodiscard]] bool take(const IpAddress& key, TimePoint now) {
        return take(
            std::string_view(reinterpret_cast<const char*>(key.raw().data()), key.octets().size()),
            now);
    }
    [[nodiscard]] bool take(const Endpoint& key, TimePoint now) {
        const auto text = text_of(key);
        return take(std::string_view(text.data(), text.size()), now);
    }
    [[nodiscard]] bool take(std::uint64_t key, TimePoint now) {
        return take(std::string_view(reinterpret_cast<const char*>(&key), sizeof(key)), now);
    }
    [[nodiscard]] bool take(std::string_view key, TimePoint now);
    [[nodiscard]] std::size_t capacity() const { return sets_.size() * ways; }

  private:
    static constexpr std::size_t ways = 8;
    struct Bucket {
        std::uint64_t key = 0;  // 0: unused
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

// Who was turned away a moment ago: two Bloom filters of 1 MiB that take turns every five seconds.
// Forgets nobody sooner than that; now and then takes a stranger for somebody it knows (one in
// seventy when 100,000 are turned away a second).
class TurnedAway {
  public:
    explicit TurnedAway(Random& random);
    // Was it turned away in the last 5 to 10 seconds? Remembers it either way.
    [[nodiscard]] bool again(const Endpoint& who, TimePoint now);

  private:
    using Bits = std::vector<std::uint64_t>;
    static constexpr std::size_t words = 1U << 17U;
    static bool has(const Bits& bits, std::uint64_t hash);

    std::array<Bits, 2> bits_;
    std::size_t current_ = 0;
    TimePoint since_{};
    SeededHash hash_;
};

// Who gets in when more knock than may. One bucket for all holds the total down; how full it has to
// be to let somebody in depends on who it is, so each class is served before the next:
//   known   a phone is registered at this address; at most half of the total, and of a NAT's
//           address no more than of any other
//   proven  it has a TCP connection, so its address is its own; and it is modest
//   patient it was turned away a moment ago and tries again, as a phone does and a flood of
//           invented sources cannot; and it is modest
//   modest  has sent less than four messages lately (one every four seconds in the long run); at
//           a NAT's address, its port has, and over UDP all of them no more than one source may
//   busy    everybody else
class Admission {
  public:
    Admission(const Limits& limits, Random& random);
    // What is known of a source address by the phones registered there.
    enum class Standing : std::uint8_t { stranger, known, nat };
    // ok, rate_source or rate_total. `nat`: each port there is a source of its own, up to
    // Limits::sources_per_nat of them together (N1). Asked before a message is even looked at:
    // costs five table lookups, keeps nothing beyond the tables.
    [[nodiscard]] Reason admit(const Endpoint& source, bool tcp, Standing standing, TimePoint now);
    // What a source is counted by: its address, or its IPv6 network.
    [[nodiscard]] IpAddress source_of(const IpAddress& address) const {
        return address.is_v6() ? address.network(ipv6_prefix_) : address;
    }

  private:
    unsigned ipv6_prefix_;
    double burst_;
    TokenBucket total_;
    TokenBucket known_;
    RateTable per_source_;
    RateTable modest_;
    RateTable per_nat_;
    TurnedAway turned_away_;
};

// How many of something each source has (procedures under way, registrations); holds no more
// entries than there are of these.
class CountBySource {
  public:
    explicit CountBySource(Random& random) : hash_(random) {}
    [[nodiscard]] std::size_t of(const IpAddress& source) const;
    void add(const IpAddress& source);
    void remove(const IpAddress& source);
    [[nodiscard]] std::size_t sources() const { return counts_.size(); }

    struct Hash {
        SeededHash hash;
        std::size_t operator()(const IpAddress& a) const {
            return hash({reinterpret_cast<const char*>(a.raw().data()), a.octets().size()});
        }
    };

  private:
    SeededHash hash_;
    std::unordered_map<IpAddress, std::uint32_t, Hash> counts_{16, Hash{hash_}};
};

}  // namespace gmgate::registration
