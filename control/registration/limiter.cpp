#include "control/registration/limiter.h"

#include <algorithm>
#include <chrono>

namespace gmgate::registration {

bool TokenBucket::take(TimePoint now) {
    if (last_ != TimePoint{}) {
        const double passed = std::chrono::duration<double>(now - last_).count();
        tokens_ = std::min(burst_, tokens_ + passed * rate_);
    }
    last_ = now;
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
}

SourceBuckets::SourceBuckets(std::size_t sources, double rate, double burst, Random& random)
    : sets_(std::max<std::size_t>(1, (sources + ways - 1) / ways)),
      rate_(static_cast<float>(rate)),
      burst_(static_cast<float>(burst)),
      hash_(random) {}

float SourceBuckets::tokens_now(const Bucket& b, std::uint32_t now_ms) const {
    const std::uint32_t passed = now_ms - b.last_ms;
    return std::min(burst_, b.tokens + static_cast<float>(passed) * rate_ / 1000.0F);
}

bool SourceBuckets::take(const IpAddress& source, TimePoint now) {
    if (epoch_ == TimePoint{}) epoch_ = now;
    const auto now_ms = static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now - epoch_).count());
    Set& set =
        sets_[hash_({reinterpret_cast<const char*>(source.raw().data()), source.octets().size()}) %
              sets_.size()];

    Bucket* chosen = nullptr;
    float chosen_tokens = -1;
    for (Bucket& b : set) {
        if (!b.used) {
            if (chosen == nullptr || chosen->used) {
                chosen = &b;
                chosen_tokens = burst_;
            }
            continue;
        }
        const float tokens = tokens_now(b, now_ms);
        if (b.source == source) {
            chosen = &b;
            chosen_tokens = tokens;
            break;
        }
        if (tokens > chosen_tokens && (chosen == nullptr || chosen->used)) {
            chosen = &b;
            chosen_tokens = tokens;
        }
    }
    if (!chosen->used || chosen->source != source) {
        *chosen = Bucket{source, true, burst_, now_ms};
    } else {
        chosen->tokens = chosen_tokens;
        chosen->last_ms = now_ms;
    }
    if (chosen->tokens < 1) return false;
    chosen->tokens -= 1;
    return true;
}

std::size_t PendingBySource::of(const IpAddress& source) const {
    const auto it = counts_.find(source);
    return it == counts_.end() ? 0 : it->second;
}

void PendingBySource::add(const IpAddress& source) {
    ++counts_[source];
}

void PendingBySource::remove(const IpAddress& source) {
    const auto it = counts_.find(source);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
}

}  // namespace gmgate::registration
