#include "control/registration/trace.h"

#include <algorithm>
#include <cstring>

#include "base/seeded_hash.h"

namespace gmgate::registration {

std::string_view name(Entity entity) {
    switch (entity) {
        case Entity::ue:
            return "UE";
        case Entity::pcscf:
            return "P-CSCF";
        case Entity::core:
            return "core";
    }
    return "";
}

std::string_view name(Step step) {
    switch (step) {
        case Step::none:
            return "";
        case Step::sm1:
            return "SM1";
        case Step::sm2:
            return "SM2";
        case Step::sm5:
            return "SM5";
        case Step::sm6:
            return "SM6";
        case Step::sm7:
            return "SM7";
        case Step::sm8:
            return "SM8";
        case Step::sm11:
            return "SM11";
        case Step::sm12:
            return "SM12";
        case Step::set_installed:
            return "SA set installed";
        case Step::set_established:
            return "SA set established";
        case Step::set_removed:
            return "SA set removed";
        case Step::packet_dropped:
            return "ESP packet dropped";
        case Step::procedure_ended:
            return "registration failed";
        case Step::registration_ended:
            return "registration ended";
    }
    return "";
}

std::string_view TraceRecord::method_name() const {
    return {method.data(), ::strnlen(method.data(), method.size())};
}

std::string TraceRecord::summary() const {
    std::string text;
    const auto word = [&](std::string_view w) {
        if (w.empty()) return;
        if (!text.empty()) text += ' ';
        text += w;
    };
    if (status != 0) text = std::to_string(status);
    // "401 SM6": the step says that it answers a REGISTER.
    if (status == 0 || step == Step::none) word(method_name());
    word(name(step));
    return text;
}

TraceStore::TraceStore(std::size_t capacity, std::uint64_t seed)
    : ring_(std::max<std::size_t>(capacity, 1)), seed_(seed) {}

std::uint64_t TraceStore::user_of(std::string_view impi) const {
    return SeededHash(seed_, ~seed_)(impi);
}

std::uint64_t TraceStore::call_of(std::string_view call_id) const {
    // Another key than that of users: a Call-ID may be somebody's IMPI.
    const std::uint64_t h = SeededHash(~seed_, seed_)(call_id);
    return h == 0 ? 1 : h;
}

void TraceStore::add(const TraceRecord& record) {
    ring_[next_ % ring_.size()] = record;
    ++next_;
}

std::size_t TraceStore::size() const {
    return static_cast<std::size_t>(std::min<std::uint64_t>(next_, ring_.size()));
}

std::vector<NumberedRecord> TraceStore::of_user(std::string_view impi, std::size_t limit) const {
    const std::uint64_t user = user_of(impi);
    std::vector<NumberedRecord> found;
    for (std::uint64_t i = next_; i > next_ - size() && found.size() < limit; --i) {
        const TraceRecord& r = ring_[(i - 1) % ring_.size()];
        if (r.user == user) found.push_back({r, i - 1});
    }
    std::ranges::reverse(found);
    return found;
}

std::vector<TraceRecord> TraceStore::latest(std::size_t limit) const {
    std::vector<TraceRecord> found;
    const std::uint64_t n = std::min<std::uint64_t>(size(), limit);
    found.reserve(n);
    for (std::uint64_t i = next_ - n; i < next_; ++i) found.push_back(ring_[i % ring_.size()]);
    return found;
}

}  // namespace gmgate::registration
