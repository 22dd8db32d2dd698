#include "home/reauthentication.h"

#include <fmt/format.h>

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
    std::vector<std::string> named;
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
    }
    if (named.empty()) return fail(ErrorKind::invalid, "no identity is named");
    if (const auto old = users_.find(impi); old != users_.end()) {
        if (awaited(old->second) != nullptr)
            return fail(ErrorKind::conflict,
                        fmt::format("{} is being re-authenticated already", impi));
        forget(old->second);
    }
    ++counters_.begun;
    const std::string impu = named.front();
    User& user = users_.try_emplace(impi, *this, impi, impu).first->second;
    const std::uint64_t round = ++rounds_;
    user.round = round;
    reg_event_.announce(impi, round, std::move(named));
    const bool subscribed = reg_event_.ue_subscribed(impi);
    // The answer to the NOTIFY sets it anew; it is there in any case, or the NOTIFY's own time-out.
    timers_.start(user.timer, config_.wait);
    registrar_.shorten(impu, config_.wait * 3);
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

const Binding* Reauthentication::awaited(const User& user) {
    const auto* binding = registrar_.find(user.impu);
    const bool is = binding != nullptr && binding->impi == user.impi && binding->shortened;
    return is ? binding : nullptr;
}

void Reauthentication::way_failed(User& user) {
    const auto* binding = awaited(user);
    if (binding == nullptr) {
        ++counters_.done;
        return forget(user);
    }
    // It obeys already. No longer than the challenge lives, nor than the shortened registration.
    if (binding->registering) return timers_.start(user.timer, registrar_.config().reg_await_auth);
    if (user.way == Way::notify && config_.refer) {
        user.way = Way::refer;
        ++counters_.refers;
        timers_.start(user.timer, config_.wait);
        if (refer_(user.impu, [this, impi = user.impi, round = user.round](bool positive) {
                on_answer(impi, round, Way::refer, positive);
            }))
            return;
    }
    ++counters_.deregistered;
    log::info(area, "{}: not re-authenticated, deregistered", user.impi);
    const std::string impu = user.impu;
    forget(user);
    registrar_.deregister(impu, sip::ContactEvent::deactivated);
}

void Reauthentication::forget(const User& user) {
    users_.erase(users_.find(user.impi));
}

}  // namespace gmgate::home
