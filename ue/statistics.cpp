#include "ue/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace gmgate::ue {

std::size_t Latencies::bucket(std::uint64_t us) {
    if (us < steps) return us;
    const auto shift = static_cast<std::size_t>(std::bit_width(us)) - 6;  // leaves 6 bits: 32 … 63
    return std::min((shift + 1) * steps + ((us >> shift) - steps), octaves * steps - 1);
}

std::uint64_t Latencies::upper_edge(std::size_t bucket) {
    if (bucket < steps) return bucket;
    const std::size_t shift = bucket / steps - 1;
    return ((bucket % steps + steps + 1) << shift) - 1;
}

void Latencies::add(Duration d) {
    const auto us =
        std::chrono::duration_cast<std::chrono::microseconds>(std::max(d, Duration{0})).count();
    ++buckets_[bucket(static_cast<std::uint64_t>(us))];
    ++count_;
    max_ = std::max(max_, d);
}

Duration Latencies::percentile(double p) const {
    if (count_ == 0) return Duration{0};
    const auto rank = std::max<std::uint64_t>(
        1, static_cast<std::uint64_t>(std::ceil(p * static_cast<double>(count_))));
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
        below += buckets_[i];
        if (below >= rank)
            return std::min<Duration>(std::chrono::microseconds(upper_edge(i)), max_);
    }
    return max_;
}

}  // namespace gmgate::ue
