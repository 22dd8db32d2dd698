#include "home/local_hss.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "home/identity.h"

namespace gmgate::home {

namespace {
// TS 33.102 C.2.1: a USIM refuses sequence numbers that jump further than this ahead.
constexpr std::uint64_t max_jump = 1ULL << 28U;
constexpr unsigned max_vectors = 5;
constexpr std::size_t max_servers = 1000;
}  // namespace

std::string_view name(CxResult result) {
    switch (result) {
        case CxResult::success:
            return "ok";
        case CxResult::user_unknown:
            return "user unknown";
        case CxResult::identities_dont_match:
            return "identities don't match";
        case CxResult::authorization_rejected:
            return "authorization rejected";
        case CxResult::identity_not_registered:
            return "identity not registered";
        case CxResult::synchronisation_failed:
            return "synchronisation failed";
        case CxResult::unable_to_comply:
            return "unable to comply";
        case CxResult::unreachable:
            return "unreachable";
    }
    return "?";
}

std::string_view name(ServerAssignment assignment) {
    switch (assignment) {
        case ServerAssignment::registration:
            return "REGISTRATION";
        case ServerAssignment::re_registration:
            return "RE_REGISTRATION";
        case ServerAssignment::timeout_deregistration:
            return "TIMEOUT_DEREGISTRATION";
        case ServerAssignment::user_deregistration:
            return "USER_DEREGISTRATION";
        case ServerAssignment::administrative_deregistration:
            return "ADMINISTRATIVE_DEREGISTRATION";
        case ServerAssignment::authentication_failure:
            return "AUTHENTICATION_FAILURE";
        case ServerAssignment::authentication_timeout:
            return "AUTHENTICATION_TIMEOUT";
    }
    return "?";
}

LocalHss::LocalHss(Random& random) : random_(random) {}
LocalHss::~LocalHss() = default;

Result<void> LocalHss::check_free(const Subscriber& subscriber) const {
    if (by_impi(subscriber.impi).found()) {
        return fail(ErrorKind::conflict,
                    fmt::format("IMPI {} is given twice: remove one of the two", subscriber.impi));
    }
    const auto shares = [](const Subscriber& s, const std::string& impu) {
        return std::ranges::find(s.shared, impu) != s.shared.end();
    };
    for (auto it = subscriber.impus.begin(); it != subscriber.impus.end(); ++it) {
        const auto other = by_impu(*it);
        const bool taken =
            other.found() &&
            !(other.listed != nullptr && shares(*other.listed, *it) && shares(subscriber, *it));
        if (taken || std::find(subscriber.impus.begin(), it, *it) != it) {
            return fail(ErrorKind::conflict,
                        fmt::format("IMPU {} of {} is given twice: an IMPU belongs to one "
                                    "subscriber, unless all name it under 'shared'",
                                    *it, subscriber.impi));
        }
    }
    return {};
}

Result<void> LocalHss::add(Subscriber subscriber) {
    if (auto free = check_free(subscriber); !free) return free;
    const std::size_t index = listed_.size();
    by_impi_.emplace(subscriber.impi, index);
    for (const auto& impu : subscriber.impus) by_impu_.emplace(impu, index);
    listed_state_.push_back(State{.sqn = subscriber.sqn.value()});
    listed_.push_back(std::move(subscriber));
    return {};
}

Result<LocalHss::Reloaded> LocalHss::reload(std::vector<Subscriber> list, HssListener& listener) {
    // The old tables are kept until the new list has proved good.
    auto old = std::exchange(listed_, {});
    auto old_state = std::exchange(listed_state_, {});
    auto old_by_impi = std::exchange(by_impi_, {});
    auto old_by_impu = std::exchange(by_impu_, {});
    for (auto& subscriber : list) {
        if (auto done = add(std::move(subscriber)); !done) {
            listed_ = std::move(old);
            listed_state_ = std::move(old_state);
            by_impi_ = std::move(old_by_impi);
            by_impu_ = std::move(old_by_impu);
            return std::unexpected(done.error());
        }
    }
    Reloaded told;
    // Told when all is in place: who hears it may ask us at once.
    std::vector<std::move_only_function<void()>> news;
    for (std::size_t i = 0; i < old.size(); ++i) {
        const Subscriber& was = old[i];
        const auto flags = further_flags_.find(was.impi);
        std::vector<Flag> held(was.set_count(), Flag::not_registered);
        held[0] = old_state[i].flag;
        if (flags != further_flags_.end()) {
            std::ranges::copy(
                std::span(flags->second).first(std::min(flags->second.size(), held.size() - 1)),
                held.begin() + 1);
            further_flags_.erase(flags);
        }
        const bool known =
            std::ranges::any_of(held, [](Flag f) { return f != Flag::not_registered; });
        const auto found = by_impi_.find(was.impi);
        if (found == by_impi_.end()) {
            ++told.removed;
            if (known)
                news.emplace_back([&] { listener.terminate(was.impi, "subscription removed"); });
            continue;
        }
        const Subscriber& is = listed_[found->second];
        State& state = listed_state_[found->second];
        const bool same_key = was.k == is.k && was.opc == is.opc;
        const std::uint64_t given = state.sqn;
        state = old_state[i];
        // Another card has a sequence of its own.
        if (!same_key) state.sqn = given;
        state.flag = Flag::not_registered;
        // A set lives on where its default identity is: so does the S-CSCF's registration of it.
        for (std::size_t set = 0; set < held.size(); ++set) {
            const std::string& impu = was.set(set).front();
            if (held[set] == Flag::not_registered ||
                std::ranges::find(is.impus, impu) == is.impus.end())
                continue;
            Flag& now = flag({.listed = &is}, impu);
            now = std::max(now, held[set]);
        }
        if (highest_flag({.listed = &is}) == Flag::not_registered) state.server = 0;
        if (is.barred && !was.barred) {
            ++told.barred;
            if (known) news.emplace_back([&] { listener.terminate(is.impi, "barred"); });
            continue;
        }
        if (is.impus != was.impus || is.further_sets != was.further_sets ||
            is.service_route != was.service_route) {
            ++told.reprofiled;
            if (known) {
                news.emplace_back([&] { listener.profile_changed(is.impi, profiles(is)); });
            }
        }
        if (!same_key) {
            ++told.rekeyed;
            if (known) news.emplace_back([&] { listener.reauthenticate(is.impi); });
        }
    }
    told.added = listed_.size() + told.removed - old.size();
    for (auto& tell : news) tell();
    return told;
}

Result<void> LocalHss::add(SubscriberRule rule) {
    if (rule_)
        return fail(ErrorKind::conflict,
                    "subscribers are generated by one rule only: give one range");
    for (const auto& s : listed_) {
        if (rule.find_impi(s.impi) != SubscriberRule::none) {
            return fail(
                ErrorKind::conflict,
                fmt::format("IMPI {} is listed and lies in the generated range: move the range",
                            s.impi));
        }
        for (const auto& impu : s.impus) {
            if (rule.find_impu(impu) != SubscriberRule::none) {
                return fail(
                    ErrorKind::conflict,
                    fmt::format("IMPU {} is listed and lies in the generated range: move the range",
                                impu));
            }
        }
    }
    rule_state_.resize(rule.count());
    rule_.emplace(std::move(rule));
    return {};
}

std::uint64_t LocalHss::subscribers() const {
    return listed_.size() + rule_state_.size();
}

LocalHss::Ref LocalHss::by_impi(std::string_view impi) const {
    if (const auto it = by_impi_.find(impi); it != by_impi_.end())
        return {.listed = &listed_[it->second]};
    return rule_ ? Ref{.generated = rule_->find_impi(impi)} : Ref{};
}

LocalHss::Ref LocalHss::by_impu(std::string_view impu) const {
    if (const auto it = by_impu_.find(impu); it != by_impu_.end())
        return {.listed = &listed_[it->second]};
    return rule_ ? Ref{.generated = rule_->find_impu(impu)} : Ref{};
}

bool LocalHss::owns(const Ref& ref, std::string_view canonical_impu) const {
    if (ref.listed != nullptr)
        return std::ranges::find(ref.listed->impus, canonical_impu) != ref.listed->impus.end();
    return rule_ && rule_->find_impu(canonical_impu) == ref.generated;
}

CxResult LocalHss::resolve(std::string_view impi, std::string_view impu, Ref& ref) const {
    ref = impi.empty() ? Ref{} : by_impi(impi);
    if (!impi.empty() && !ref.found()) return CxResult::user_unknown;
    if (!impu.empty()) {
        const auto canonical = canonical_impu(impu);
        const auto other = canonical ? by_impu(*canonical) : Ref{};
        if (!other.found()) return CxResult::user_unknown;
        if (!impi.empty() && !owns(ref, *canonical)) return CxResult::identities_dont_match;
        if (impi.empty()) ref = other;
    }
    return ref.found() ? CxResult::success : CxResult::user_unknown;
}

LocalHss::State& LocalHss::state(const Ref& ref) {
    if (ref.listed != nullptr)
        return listed_state_[static_cast<std::size_t>(ref.listed - listed_.data())];
    return rule_state_[ref.generated];
}

LocalHss::Flag& LocalHss::flag(const Ref& ref, std::string_view impu) {
    State& s = state(ref);
    if (ref.listed == nullptr || ref.listed->further_sets.empty()) return s.flag;
    const auto canonical = canonical_impu(impu);
    const std::size_t set = canonical ? ref.listed->set_of(*canonical) : 0;
    if (set == 0) return s.flag;
    auto& flags = further_flags_[ref.listed->impi];
    flags.resize(ref.listed->further_sets.size());
    return flags[set - 1];
}

LocalHss::Flag LocalHss::highest_flag(const Ref& ref) const {
    if (ref.listed == nullptr) return rule_state_[ref.generated].flag;
    Flag highest = listed_state_[static_cast<std::size_t>(ref.listed - listed_.data())].flag;
    const auto further = further_flags_.find(ref.listed->impi);
    if (further != further_flags_.end()) {
        for (const Flag f : further->second) highest = std::max(highest, f);
    }
    return highest;
}

std::vector<Profile> LocalHss::profiles(const Subscriber& subscriber) {
    std::vector<Profile> out;
    for (std::size_t i = 0; i < subscriber.set_count(); ++i) {
        const auto set = subscriber.set(i);
        out.push_back({{set.begin(), set.end()}, subscriber.service_route});
    }
    return out;
}

std::uint16_t LocalHss::intern(std::string_view server) {
    if (server.empty()) return 0;
    const auto it = std::ranges::find(servers_, server);
    if (it != servers_.end()) return static_cast<std::uint16_t>(it - servers_.begin());
    if (servers_.size() >= max_servers) return 0;
    servers_.emplace_back(server);
    return static_cast<std::uint16_t>(servers_.size() - 1);
}

void LocalHss::load_key(const Ref& ref) {
    if (ref.listed != nullptr) {
        milenage_.set_key(ref.listed->k, ref.listed->opc);
    } else {
        milenage_.set_key(rule_->k(ref.generated), rule_->opc(ref.generated));
    }
}

std::string_view LocalHss::name(Flag flag) {
    switch (flag) {
        case Flag::not_registered:
            return "not_registered";
        case Flag::authentication_pending:
            return "authentication_pending";
        case Flag::registered:
            return "registered";
    }
    return "";
}

void LocalHss::query(std::string_view impi, std::string_view impu, QueryAnswer answer) {
    Ref ref;
    const auto result = resolve(impi, impu, ref);
    if (result != CxResult::success) return answer(result, {});
    if (ref.listed != nullptr && ref.listed->barred)
        return answer(CxResult::authorization_rejected, {});
    const Flag held = flag(ref, impu);
    answer(CxResult::success, UserStatus{servers_[state(ref).server], held == Flag::registered});
}

void LocalHss::av_request(const AvRequest& request, AvAnswer answer) {
    Ref ref;
    const auto result = resolve(request.impi, request.impu, ref);
    if (result != CxResult::success) return answer(result, {});
    if (ref.listed != nullptr && ref.listed->barred)
        return answer(CxResult::authorization_rejected, {});
    auto& s = state(ref);
    load_key(ref);
    if (const auto* r = request.resynchronisation; r != nullptr) {
        // Verified before anything else: TS 33.102 6.3.5 would skip that when SQN_HE is in range,
        // but then a made-up AUTS gets an answer.
        const auto sqn_ms = verify_auts(milenage_, r->rand, r->auts);
        if (!sqn_ms) return answer(CxResult::synchronisation_failed, {});
        const Sqn sqn_he(s.sqn);
        const bool in_range =
            sqn_he.seq() >= sqn_ms->seq() && sqn_he.seq() - sqn_ms->seq() < max_jump;
        if (!in_range) s.sqn = sqn_ms->value();
    }
    const Amf amf = ref.listed != nullptr ? ref.listed->amf : Amf{};
    std::vector<AuthVector> vectors;
    for (unsigned i = 0; i < std::clamp(request.count, 1U, max_vectors); ++i) {
        const auto sqn = Sqn(s.sqn).next();
        if (!sqn) break;
        s.sqn = sqn->value();
        Rand rand{};
        random_.fill(rand);
        vectors.push_back(make_vector(milenage_, rand, *sqn, amf));
    }
    if (vectors.empty()) return answer(CxResult::unable_to_comply, {});
    if (Flag& held = flag(ref, request.impu); held != Flag::registered) {
        held = Flag::authentication_pending;
        s.server = intern(request.server_name);
    }
    answer(CxResult::success, std::move(vectors));
}

void LocalHss::put(const PutRequest& request, PutAnswer answer) {
    Ref ref;
    const auto result = resolve(request.impi, request.impu, ref);
    if (result != CxResult::success) return answer(result);
    auto& s = state(ref);
    Flag& held = flag(ref, request.impu);
    switch (request.assignment) {
        case ServerAssignment::re_registration:
            if (held != Flag::registered) return answer(CxResult::identity_not_registered);
            [[fallthrough]];
        case ServerAssignment::registration:
            if (ref.listed != nullptr && ref.listed->barred)
                return answer(CxResult::authorization_rejected);
            held = Flag::registered;
            s.server = intern(request.server_name);
            break;
        case ServerAssignment::timeout_deregistration:
        case ServerAssignment::user_deregistration:
        case ServerAssignment::administrative_deregistration:
        case ServerAssignment::authentication_failure:
        case ServerAssignment::authentication_timeout:
            held = Flag::not_registered;
            // The S-CSCF serves the user while another set is registered, or about to be.
            if (highest_flag(ref) == Flag::not_registered) s.server = 0;
            break;
    }
    answer(CxResult::success);
}

void LocalHss::pull(std::string_view impi, std::string_view impu, PullAnswer answer) {
    Ref ref;
    const auto result = resolve(impi, impu, ref);
    if (result != CxResult::success) return answer(result, {});
    Profile profile;
    if (ref.listed != nullptr) {
        // By the private identity alone: the first.
        const auto canonical = canonical_impu(impu);
        const auto set = ref.listed->set(canonical ? ref.listed->set_of(*canonical) : 0);
        profile.implicit_set.assign(set.begin(), set.end());
        profile.service_route = ref.listed->service_route;
    } else {
        profile.implicit_set = rule_->impus(ref.generated);
    }
    answer(CxResult::success, profile);
}

std::optional<LocalHss::View> LocalHss::view(std::string_view impi, std::string_view impu) const {
    const auto ref = by_impi(impi);
    if (!ref.found()) return std::nullopt;
    const auto& s = ref.listed != nullptr
                        ? listed_state_[static_cast<std::size_t>(ref.listed - listed_.data())]
                        : rule_state_[ref.generated];
    Flag held = highest_flag(ref);
    if (!impu.empty() && ref.listed != nullptr && owns(ref, impu)) {
        const std::size_t set = ref.listed->set_of(impu);
        const auto further = further_flags_.find(ref.listed->impi);
        held = s.flag;
        if (set != 0)
            held = further != further_flags_.end() && set <= further->second.size()
                       ? further->second[set - 1]
                       : Flag::not_registered;
    }
    return View{held, servers_[s.server], Sqn(s.sqn)};
}

}  // namespace gmgate::home
