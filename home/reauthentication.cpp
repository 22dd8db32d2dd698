#include "home/reauthentication.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "home/identity.h"

namespace gmgate::home {

namespace {
constexpr std::string_view area = "reauth";
}

Reauthentication::Reauthentication(ReauthenticationConfig config, Registrar& registrar,
                                   RegEvent& reg_event, Refer refer, TimerWheel& timers,
                                   Random& random)
    : config_(config),
      registrar_(registrar),
      reg_event_(reg_event),
      refer_(std::move(refer)),
      timers_(timers),
      users_(16, SeededStringHash{SeededHash(random)}) {
    reg_event_.on_ue_answer([this](std::string_view impi, std::uint64_t round, bool positive) {
        on_notify_answer(std::string(impi), round, positive);
    });
}

Reauthentication::~Reauthentication() {
    reg_event_.on_ue_answer({});
}

Result<void> Reauthentication::begin(const std::vector<std::string>& identities) {
    std::string impi;
    std::vector<std::pair<std::string, std::string>> named;  // with the default one of the set
    for (const auto& text : identities) {
        const auto impu = canonical_impu(text);
        const auto* binding = impu ? registrar_.find(*impu) : nullptr;
        if (binding == nullptr)
            return fail(ErrorKind::not_found, fmt::format("'{}' is not registered", text));
        if (impi.empty()) impi = binding->impi;
        if (impi != binding->impi)
            return fail(ErrorKind::invalid,
                        fmt::format("'{}' belongs to another user: name those of one", text));
        named.emplace_back(*impu, binding->default_impu);
    }
    if (named.empty()) return fail(ErrorKind::invalid, "no identity is named");
    std::vector<std::string> fresh, sets;
    for (auto& [impu, set] : named) {
        const Awaited* old = find(impi, set);
        if (old != nullptr && state_of(*old).awaited) continue;
        if (old != nullptr) forget(*old);
        fresh.push_back(std::move(impu));
        if (std::ranges::find(sets, set) == sets.end()) sets.push_back(set);
    }
    if (sets.empty())
        return fail(ErrorKind::conflict, fmt::format("{} is being re-authenticated already", impi));
    ++counters_.begun;
    const std::uint64_t round = ++rounds_;
    for (const auto& set : sets) {
        auto& user = users_[impi];
        user.push_back(std::make_unique<Awaited>(*this, impi, set, round));
        // The answer to the NOTIFY sets it anew; it is there in any case, or the NOTIFY's own
        // time-out.
        timers_.start(user.back()->timer, config_.wait);
    }
    reg_event_.announce(impi, round, std::move(fresh));
    const bool subscribed = reg_event_.ue_subscribed(impi);
    registrar_.shorten(sets, config_.wait * 4);
    log::debug(area, "{}: {}", impi, subscribed ? "NOTIFY" : "has not subscribed");
    if (!subscribed) on_notify_answer(impi, round, false);
    return {};
}

void Reauthentication::on_notify_answer(const std::string& impi, std::uint64_t round,
                                        bool positive) {
    // A dialog the phone has lost says nothing while it has another one.
    if (!positive && reg_event_.ue_subscribed(impi)) return;
    const auto user = users_.find(impi);
    if (user == users_.end()) return;
    std::vector<std::string> told;
    for (const auto& set : user->second) {
        if (set->way == Way::notify && set->round <= round && (positive || !set->accepted))
            told.push_back(set->impu);
    }
    // What fails for one may end another.
    for (const auto& impu : told) {
        Awaited* set = find(impi, impu);
        if (set == nullptr || set->way != Way::notify || set->round > round) continue;
        if (!positive) {
            way_failed(*set);
            continue;
        }
        set->accepted = true;
        timers_.start(set->timer, config_.wait);
    }
}

void Reauthentication::on_refer_answer(const std::string& impi, const std::string& impu,
                                       std::uint64_t round, bool positive) {
    Awaited* set = find(impi, impu);
    if (set == nullptr || set->way != Way::refer || set->round != round) return;
    if (!positive) return way_failed(*set);
    timers_.start(set->timer, config_.wait);
}

Reauthentication::State Reauthentication::state_of(const Awaited& set) const {
    State out;
    registrar_.find_sets(set.impi, [&](const Binding& b) {
        if (!b.shortened) return;
        if (std::ranges::find(*b.impus, set.impu) == b.impus->end()) {
            out.another = out.another || b.registering;
            return;
        }
        out.awaited = true;
        out.registering = b.registering;
    });
    return out;
}

void Reauthentication::way_failed(Awaited& set) {
    const State now = state_of(set);
    if (!now.awaited) {
        if (forget(set)) ++counters_.done;
        return;
    }
    // It obeys already. No longer than the challenge lives, nor than the shortened registration.
    if (now.registering) return timers_.start(set.timer, registrar_.config().reg_await_auth);
    // Or is about to: a phone registers its sets one after the other.
    if (now.another && !std::exchange(set.has_waited, true))
        return timers_.start(set.timer, config_.wait);
    if (set.way == Way::notify && config_.refer) {
        set.way = Way::refer;
        ++counters_.refers;
        timers_.start(set.timer, config_.wait);
        // Not by an identity alone: another user who shares it may have registered since.
        if (refer_(set.impi, set.impu,
                   [this, impi = set.impi, impu = set.impu, round = set.round](bool positive) {
                       on_refer_answer(impi, impu, round, positive);
                   }))
            return;
    }
    ++counters_.deregistered;
    const std::string impu = set.impu;
    log::info(area, "{} {}: not re-authenticated, deregistered", set.impi, impu);
    forget(set);
    registrar_.deregister(impu, sip::ContactEvent::deactivated);
}

Reauthentication::Awaited* Reauthentication::find(const std::string& impi,
                                                  const std::string& impu) {
    const auto user = users_.find(impi);
    if (user == users_.end()) return nullptr;
    const auto found =
        std::ranges::find(user->second, impu, [](const auto& s) -> const auto& { return s->impu; });
    return found == user->second.end() ? nullptr : found->get();
}

bool Reauthentication::forget(const Awaited& set) {
    const auto user = users_.find(set.impi);
    std::erase_if(user->second, [&](const auto& s) { return s.get() == &set; });
    if (!user->second.empty()) return false;
    users_.erase(user);
    return true;
}

}  // namespace gmgate::home
