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
        on_answer(impi, round, Way::notify, positive);
    });
}

Reauthentication::~Reauthentication() {
    reg_event_.on_ue_answer({});
}

Result<void> Reauthentication::begin(const std::vector<std::string>& identities) {
    std::string impi;
    std::vector<std::string> named, sets;
    for (const auto& text : identities) {
        const auto impu = canonical_impu(text);
        const auto* binding = impu ? registrar_.find(*impu) : nullptr;
        if (binding == nullptr)
            return fail(ErrorKind::not_found, fmt::format("'{}' is not registered", text));
        if (impi.empty()) impi = binding->impi;
        if (impi != binding->impi)
            return fail(ErrorKind::invalid,
                        fmt::format("'{}' belongs to another user: name those of one", text));
        named.push_back(*impu);
        const std::string set(binding->default_impu);
        if (std::ranges::find(sets, set) == sets.end()) sets.push_back(set);
    }
    if (named.empty()) return fail(ErrorKind::invalid, "no identity is named");
    if (const auto old = users_.find(impi); old != users_.end()) {
        if (bool under_way = false; !awaited(old->second, under_way).empty())
            return fail(ErrorKind::conflict,
                        fmt::format("{} is being re-authenticated already", impi));
        forget(old->second);
    }
    ++counters_.begun;
    User& user = users_.try_emplace(impi, *this, impi, sets).first->second;
    const std::uint64_t round = ++rounds_;
    user.round = round;
    reg_event_.announce(impi, round, std::move(named));
    const bool subscribed = reg_event_.ue_subscribed(impi);
    // The answer to the NOTIFY sets it anew; it is there in any case, or the NOTIFY's own time-out.
    timers_.start(user.timer, config_.wait);
    registrar_.shorten(sets, config_.wait * 4);
    log::debug(area, "{}: {}", impi, subscribed ? "NOTIFY" : "has not subscribed");
    if (!subscribed) on_answer(impi, round, Way::notify, false);
    return {};
}

void Reauthentication::on_answer(std::string_view impi, std::uint64_t round, Way way,
                                 bool positive) {
    const auto found = users_.find(impi);
    if (found == users_.end() || found->second.round != round || found->second.way != way) return;
    User& user = found->second;
    if (!positive) {
        // A dialog the phone has lost says nothing while it has another one.
        if (way == Way::notify && (user.accepted || reg_event_.ue_subscribed(impi))) return;
        return way_failed(user);
    }
    user.accepted = true;
    timers_.start(user.timer, config_.wait);
}

std::vector<std::string> Reauthentication::awaited(const User& user, bool& registering) {
    std::vector<std::string> out;
    registrar_.find_sets(user.impi, [&](const Binding& b) {
        if (!b.shortened) return;
        const auto is = std::ranges::find_if(user.impus, [&](const std::string& impu) {
            return std::ranges::find(*b.impus, impu) != b.impus->end();
        });
        if (is == user.impus.end()) return;
        out.push_back(*is);
        registering = registering || b.registering;
    });
    return out;
}

void Reauthentication::way_failed(User& user) {
    bool registering = false;
    const auto left = awaited(user, registering);
    if (left.empty()) {
        ++counters_.done;
        return forget(user);
    }
    // It obeys already. No longer than the challenge lives, nor than the shortened registration.
    if (registering) return timers_.start(user.timer, registrar_.config().reg_await_auth);
    if (user.way == Way::notify && config_.refer) {
        user.way = Way::refer;
        ++counters_.refers;
        timers_.start(user.timer, config_.wait);
        // Not by an identity: another user who shares it may have registered since.
        if (refer_(user.impi, [this, impi = user.impi, round = user.round](bool positive) {
                on_answer(impi, round, Way::refer, positive);
            }))
            return;
    }
    ++counters_.deregistered;
    log::info(area, "{}: not re-authenticated, deregistered", user.impi);
    forget(user);
    for (const auto& impu : left) registrar_.deregister(impu, sip::ContactEvent::deactivated);
}

void Reauthentication::forget(const User& user) {
    users_.erase(users_.find(user.impi));
}

}  // namespace gmgate::home
