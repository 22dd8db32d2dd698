#include "control/registration/limiter.h"

#include <algorithm>
#include <chrono>

namespace gmgate::registration {
namespace {

// A phone sends its first REGISTER, and again after 0.5, 1.5, 3.5, 7.5, 11.5… s if nothing comes
// back (RFC 3261 17.1.2.2): that is modest.
constexpr double modest_rate = 0.25;
constexpr double modest_burst = 4;
constexpr Duration turn = std::chrono::seconds(5);

}  // namespace

std::size_t transactions_for(const Limits& limits, Duration t1) {
    const double each = std::chrono::duration<double>(t1 * 64).count();
    const double strangers = limits.register_rate_total * each + limits.register_burst_total;
    return static_cast<std::size_t>(std::clamp(2 * strangers, 200e3, 4e6));
}

bool TokenBucket::take(TimePoint now, double kept) {
    if (last_ != TimePoint{}) {
        const double passed = std::chrono::duration<double>(now - last_).count();
        tokens_ = std::min(burst_, tokens_ + passed * rate_);
    }
    last_ = now;
    if (tokens_ < 1 + kept) return false;
    tokens_ -= 1;
    return true;
}

RateTable::RateTable(std::size_t entries, double rate, double burst, Random& random)
    : sets_(std::max<std::size_t>(1, (entries + ways - 1) / ways)),
      rate_(static_cast<float>(rate)),
      burst_(static_cast<float>(burst)),
      hash_(random) {}

float RateTable::tokens_now(const Bucket& b, std::uint32_t now_ms) const {
    const std::uint32_t passed = now_ms - b.last_ms;
    return std::min(burst_, b.tokens + static_cast<float>(passed) * rate_ / 1000.0F);
}

bool RateTable::take(std::string_view text, TimePoint now) {
    if (epoch_ == TimePoint{}) epoch_ = now;
    const auto now_ms = static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now - epoch_).count());
    const std::uint64_t hash = hash_(text);
    const std::uint64_t key = hash == 0 ? 1 : hash;
    Set& set = sets_[key % sets_.size()];

    Bucket* chosen = nullptr;
    float chosen_tokens = -1;
    for (Bucket& b : set) {
        if (b.key == key) {
            chosen = &b;
            chosen_tokens = tokens_now(b, now_ms);
            break;
        }
        if (b.key == 0) {
            if (chosen == nullptr || chosen->key != 0) chosen = &b;
            continue;
        }
        const float tokens = tokens_now(b, now_ms);
        if (chosen == nullptr || (chosen->key != 0 && tokens > chosen_tokens)) {
            chosen = &b;
            chosen_tokens = tokens;
        }
    }
    if (chosen->key != key) {
        *chosen = Bucket{key, burst_, now_ms};
    } else {
        chosen->tokens = chosen_tokens;
        chosen->last_ms = now_ms;
    }
    if (chosen->tokens < 1) return false;
    chosen->tokens -= 1;
    return true;
}

TurnedAway::TurnedAway(Random& random) : bits_{Bits(words), Bits(words)}, hash_(random) {}

bool TurnedAway::has(const Bits& bits, std::uint64_t hash) {
    const auto bit = [&](std::uint64_t h) {
        return ((bits[(h >> 6U) % words] >> (h & 63U)) & 1U) != 0;
    };
    return bit(hash) && bit(hash >> 32U);
}

bool TurnedAway::again(const Endpoint& who, TimePoint now) {
    if (now - since_ >= turn) {
        const bool both = now - since_ >= 2 * turn;
        current_ = 1 - current_;
        std::ranges::fill(bits_[current_], 0U);
        if (both) std::ranges::fill(bits_[1 - current_], 0U);
        since_ = now;
    }
    const auto text = text_of(who);
    const std::uint64_t hash = hash_({text.data(), text.size()});
    const bool known = has(bits_[0], hash) || has(bits_[1], hash);
    for (const std::uint64_t h : {hash, hash >> 32U})
        bits_[current_][(h >> 6U) % words] |= std::uint64_t{1} << (h & 63U);
    return known;
}

Admission::Admission(const Limits& limits, Random& random)
    : ipv6_prefix_(limits.ipv6_source_prefix),
      burst_(limits.register_burst_total),
      total_(limits.register_rate_total, limits.register_burst_total),
      known_(limits.register_rate_total / 2, limits.register_burst_total / 2),
      per_source_(limits.sources, limits.register_rate_per_source, limits.register_burst_per_source,
                  random),
      modest_(limits.sources, modest_rate, modest_burst, random),
      per_nat_(limits.sources,
               limits.register_rate_per_source * static_cast<double>(limits.sources_per_nat),
               limits.register_burst_per_source * static_cast<double>(limits.sources_per_nat),
               random),
      turned_away_(random) {}

Reason Admission::admit(const Endpoint& from, bool tcp, Standing standing, TimePoint now) {
    const IpAddress source = source_of(from.address);
    const bool nat = standing == Standing::nat;
    // The source first: one that floods must not use up what the others share.
    if (!(nat ? per_source_.take(from, now) : per_source_.take(source, now)))
        return Reason::rate_source;
    if (nat && !per_nat_.take(source, now)) return Reason::rate_source;
    // Its account is kept also while there is plenty, or a flood would begin with a clean one.
    // Ports of a NAT's address are invented as easily as addresses: before strangers comes what one
    // source may send, counted by the address. Beyond that it is the port's own connection or
    // nothing that tells a phone from a flood.
    const bool share = !nat || per_source_.take(source, now);
    const bool modest = nat ? modest_.take(from, now) && (share || tcp) : modest_.take(source, now);
    if (standing != Standing::stranger && share && known_.take(now) && total_.take(now))
        return Reason::ok;
    if (!modest) return total_.take(now, burst_ * 3 / 4) ? Reason::ok : Reason::rate_total;
    if (total_.take(now, burst_ / 2)) return Reason::ok;
    // Remembered only when it has to be turned away, so it costs nothing in peace.
    if (tcp) return total_.take(now, burst_ / 8) ? Reason::ok : Reason::rate_total;
    return turned_away_.again(from, now) && total_.take(now, burst_ / 4) ? Reason::ok
                                                                         : Reason::rate_total;
}

std::size_t CountBySource::of(const IpAddress& source) const {
    const auto it = counts_.find(source);
    return it == counts_.end() ? 0 : it->second;
}

void CountBySource::add(const IpAddress& source) {
    ++counts_[source];
}

void CountBySource::remove(const IpAddress& source) {
    const auto it = counts_.find(source);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
}

}  // namespace gmgate::registration
