#include "home/registrar.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/secret_text.h"
#include "base/seeded_hash.h"
#include "home/aka.h"
#include "home/identity.h"
#include "home/register_request.h"
#include "home/register_response.h"

namespace gmgate::home {

namespace {

constexpr std::string_view area = "registrar";
constexpr std::size_t tag_octets = 6;

Refusal refusal_of(CxResult result) {
    switch (result) {
        case CxResult::user_unknown:
            return {403, "Unknown User", {}, {}};
        case CxResult::identities_dont_match:
            return {403, "Identities Don't Match", {}, {}};
        case CxResult::authorization_rejected:
            return {403, "Registration Not Allowed", {}, {}};
        case CxResult::unreachable:
            return {504, "HSS Does Not Answer", {}, {}};
        case CxResult::synchronisation_failed:
            return {403, "Synchronisation Failed", {}, {}};
        case CxResult::identity_not_registered:
        case CxResult::unable_to_comply:
        case CxResult::success:
            break;
    }
    return {480, "HSS Unable To Comply", {}, {}};
}

}  // namespace

bool RegistrationChange::ends(sip::ContactEvent event) {
    switch (event) {
        case sip::ContactEvent::expired:
        case sip::ContactEvent::deactivated:
        case sip::ContactEvent::probation:
        case sip::ContactEvent::unregistered:
        case sip::ContactEvent::rejected:
            return true;
        default:
            return false;
    }
}

struct Registrar::Impl {
    // A user is in the table while it is registered or challenged, and not otherwise.

    // One outstanding challenge. H(A1) is as good as RES for it, so RES is not kept; CK and IK have
    // gone with the 401.
    struct Challenge {
        std::string nonce;
        std::string impu;
        Rand rand{};
        Secret<16> ha1;
        std::uint64_t order = 0;  // of the REGISTER that got it
        Timer timer;              // reg-await-auth
    };

    struct User;
    // One registered implicit set of a user. One contact a set: a REGISTER from another address
    // replaces it (D5).
    struct Set {
        User* user;
        std::vector<std::string> impus;
        std::vector<std::string> service_route;  // of the profile; empty: ours
        std::string contact;
        std::uint16_t q = 1000;
        std::string path;
        std::string call_id;
        std::uint32_t cseq = 0;
        Timer expiry;
        std::optional<bool> rechallenge;  // by the operator; nothing: by the configured share
        bool shortened = false;           // re-authentication is awaited (F1)
        std::uint64_t shortened_at = 0;   // the latest REGISTER before that, as Procedure::order
        std::uint64_t bound_at = 0;       // the REGISTER that made the binding, likewise

        explicit Set(User* u) : user(u) { expiry.bind<&Set::on_expiry>(this); }
        void on_expiry() { user->owner->expired(*this); }
        [[nodiscard]] bool has(std::string_view impu) const {
            return std::ranges::find(impus, impu) != impus.end();
        }
    };

    struct User {
        Impl* owner = nullptr;
        std::string impi;
        SecretPtr<Challenge> challenge;
        std::vector<std::unique_ptr<Set>> sets;  // the registered ones, in the order they came

        void on_await_auth() { owner->authentication_timeout(*this); }
        // Nodes of the table do not move, and the timers hold this address.
        explicit User(Impl* o) : owner(o) {}
        [[nodiscard]] bool registered() const { return !sets.empty(); }
        [[nodiscard]] Set* set_of(std::string_view impu) const {
            for (const auto& set : sets) {
                if (set->has(impu)) return set.get();
            }
            return nullptr;
        }
    };

    // One REGISTER from arrival to its answer. While a Cx answer is awaited it lives in `slots`.
    struct Procedure {
        Impl* owner = nullptr;
        std::uint32_t slot = 0;
        std::uint32_t generation = 0;
        std::uint64_t order = 0;
        bool live = false;
        // What the HSS must be told if this ends without a registration or a challenge (C9): it
        // holds a challenge of ours that is void by now, or a registration that did not come to be.
        std::optional<ServerAssignment> undo;
        // The same of other identities of the user that failed while this one was being written to
        // the HSS: it may be their set that is registered by it.
        std::vector<std::pair<std::string, ServerAssignment>> owed;
        std::string bytes;
        sip::Message message;
        RegisterRequest request;
        Answer answer;
        std::optional<Endpoint> source;
        ServerAssignment assignment = ServerAssignment::registration;
        Timer hss_timer;

        void on_hss_timeout() { owner->hss_timeout(*this); }
        explicit Procedure(Impl* o) : owner(o) { hss_timer.bind<&Procedure::on_hss_timeout>(this); }
        [[nodiscard]] std::uint64_t id() const { return (std::uint64_t{generation} << 32U) | slot; }
    };

    Impl(RegistrarConfig c, Hss& h, TimerWheel& t, Random& r)
        : config(std::move(c)),
          hss(h),
          timers(t),
          random(r),
          hash{SeededHash(r)},
          users(16, hash),
          responder(config.realm, config.qop, config.charging_function) {}

    RegistrarConfig config;
    Hss& hss;
    TimerWheel& timers;
    Random& random;
    RegistrarCounters counters;
    SeededStringHash hash;
    std::unordered_map<std::string, User, SeededStringHash, std::equal_to<>> users;
    // Keys lie in Set::impus.
    std::unordered_multimap<std::string_view, Set*> by_impu;
    std::size_t registered = 0;
    std::size_t challenges = 0;
    DigestCalculator digest;
    RegisterResponder responder;
    std::deque<std::unique_ptr<Procedure>> slots;
    std::vector<std::uint32_t> free_slots;
    std::size_t live_procedures = 0;
    std::uint64_t next_order = 0;
    Binding found;

    // ---- arrival ----
    void receive(const sip::Message& message, Answer answer, std::optional<Endpoint> source);
    void decide(Procedure& p);
    void begin_challenge(Procedure& p, const Resynchronisation* resynchronisation);
    void ask_vectors(Procedure& p, const Resynchronisation* resynchronisation);
    void send_challenge(Procedure& p, const AuthVector& vector);
    void check_response(Procedure& p, User& user);
    void resynchronise(Procedure& p, User& user);
    void network_failure(Procedure& p, User& user);
    void reregister(Procedure& p, Set& set);

    // ---- success ----
    void assign(Procedure& p);
    void fetch_profile(Procedure& p);
    void bind(Procedure& p, const Profile* profile);
    void deregister(Procedure& p);
    [[nodiscard]] std::uint32_t seconds_left(const Set& set) const {
        const auto left =
            std::chrono::ceil<std::chrono::seconds>(set.expiry.deadline() - timers.now());
        return static_cast<std::uint32_t>(std::max<std::int64_t>(left.count(), 0));
    }
    void answer_binding(Procedure& p, const Set& set, std::uint32_t expires);

    // ---- state ----
    User* find_user(std::string_view impi);
    void drop_challenge(User& user);
    // ... for a later REGISTER: the HSS hears of it at once if that is for another identity, else
    // only if nothing comes of that one either.
    void void_challenge(User& user, Procedure& by);
    void authentication_failed(User& user, std::string_view impu, ServerAssignment reason);
    void authentication_timeout(User& user);
    void expired(Set& set);
    // The end of a binding: what its observer is to hear.
    struct Ended {
        std::string impi;
        std::vector<std::string> impus;
        std::string contact;
        bool user_gone = false;
    };
    // `set` is gone after it.
    Ended unbind(Set& set);
    void deactivate(Set& set, sip::ContactEvent event);
    // Of a registered user, which may be gone after it.
    void update(User& user, const std::vector<Profile>& profiles);
    void tell(const Ended& ended, sip::ContactEvent event);
    void tell(const Set& set, sip::ContactEvent event, bool authenticated = false,
              const std::vector<std::string>* removed = nullptr);
    RegistrationObserver* observer = nullptr;
    void index(Set& set);
    void unindex(Set& set);
    Set* by_identity(std::string_view impu);
    [[nodiscard]] Binding binding_of(const Set& set) const;
    void forget_if_idle(User& user);
    void put_and_forget(std::string_view impi, std::string_view impu, ServerAssignment assignment);

    // ---- procedures ----
    Procedure* start();
    Procedure* procedure(std::uint64_t id);
    // Before and after each Cx operation: the time-out runs only while an answer is awaited.
    void awaiting(Procedure& p) { timers.start(p.hss_timer, config.hss_timeout); }
    Procedure* answered(std::uint64_t id);
    // A REGISTER of that set came since it was shortened.
    [[nodiscard]] bool registering(const Set& set) const;
    // Another procedure of this user than `but`, of this identity if it has one, has proved itself
    // and is being written to the HSS: what the HSS is told must not undo that. nullptr: none.
    [[nodiscard]] Procedure* being_assigned(std::string_view impi, std::string_view impu,
                                            const Procedure* but) const;
    // C9: what the HSS holds for that identity's set is over, unless it is registered, challenged
    // or being assigned (to be told again by that procedure, if it is of another set).
    void give_up(std::string_view impi, std::string_view impu, ServerAssignment reason,
                 const Procedure* but = nullptr);
    void hss_timeout(Procedure& p);
    void refuse(Procedure& p, const Refusal& refusal);
    void refuse(Procedure& p, CxResult result);
    void finish(Procedure& p, int status, std::string_view response);
    std::string_view tag() {
        tag_text = random.token(tag_octets);
        return tag_text;
    }
    std::string tag_text;
    RegisterResponder::To to(const Procedure& p) { return {p.message, tag(), p.source}; }
};

// ---- procedures
// ------------------------------------------------------------------------------------------------------

Registrar::Impl::Procedure* Registrar::Impl::start() {
    if (free_slots.empty()) {
        if (slots.size() >= config.max_procedures) return nullptr;
        slots.push_back(std::make_unique<Procedure>(this));
        slots.back()->slot = static_cast<std::uint32_t>(slots.size() - 1);
        free_slots.push_back(slots.back()->slot);
    }
    auto& p = *slots[free_slots.back()];
    free_slots.pop_back();
    ++p.generation;
    p.live = true;
    p.undo.reset();
    p.owed.clear();
    p.order = ++next_order;
    ++live_procedures;
    return &p;
}

Registrar::Impl::Procedure* Registrar::Impl::procedure(std::uint64_t id) {
    const auto slot = static_cast<std::uint32_t>(id);
    if (slot >= slots.size()) return nullptr;
    auto& p = *slots[slot];
    return p.live && p.generation == static_cast<std::uint32_t>(id >> 32U) ? &p : nullptr;
}

Registrar::Impl::Procedure* Registrar::Impl::answered(std::uint64_t id) {
    auto* p = procedure(id);
    if (p != nullptr) p->hss_timer.stop();
    return p;
}

bool Registrar::Impl::registering(const Set& set) const {
    if (!set.shortened) return false;
    const auto& challenge = set.user->challenge;
    if (challenge && challenge->order > set.shortened_at && set.has(challenge->impu)) return true;
    return live_procedures > 0 && std::ranges::any_of(slots, [&](const auto& p) {
               return p->live && p->order > set.shortened_at && p->request.impi == set.user->impi &&
                      set.has(p->request.impu);
           });
}

Registrar::Impl::Procedure* Registrar::Impl::being_assigned(std::string_view impi,
                                                            std::string_view impu,
                                                            const Procedure* but) const {
    Procedure* other = nullptr;
    if (live_procedures == 0) return other;
    for (const auto& p : slots) {
        if (p->live && p.get() != but && p->request.impi == impi &&
            p->undo == ServerAssignment::administrative_deregistration &&
            (other == nullptr || p->request.impu == impu))
            other = p.get();
    }
    return other;
}

void Registrar::Impl::give_up(std::string_view impi, std::string_view impu, ServerAssignment reason,
                              const Procedure* but) {
    const User* user = find_user(impi);
    if (user != nullptr &&
        (user->set_of(impu) != nullptr || (user->challenge && user->challenge->impu == impu)))
        return;
    if (Procedure* other = being_assigned(impi, impu, but); other != nullptr) {
        const auto known =
            std::ranges::find(other->owed, impu, [](const auto& o) { return o.first; });
        if (other->request.impu != impu && known == other->owed.end())
            other->owed.emplace_back(impu, reason);
        return;
    }
    put_and_forget(impi, impu, reason);
}

void Registrar::Impl::finish(Procedure& p, int status, std::string_view response) {
    p.hss_timer.stop();
    for (const auto& [impu, reason] : std::exchange(p.owed, {}))
        give_up(p.request.impi, impu, reason, &p);
    auto answer = std::exchange(p.answer, {});
    p.live = false;
    --live_procedures;
    // Freed after the call: what `answer` does may start the next REGISTER, which must not reuse
    // this one's bytes.
    if (response.empty()) {
        ++counters.dropped;
    } else {
        answer(status, response);
    }
    free_slots.push_back(p.slot);
}

void Registrar::Impl::refuse(Procedure& p, const Refusal& refusal) {
    log::debug(area, "{} {}: {} {}", p.request.impi, p.request.impu, refusal.code, refusal.reason);
    if (p.undo) give_up(p.request.impi, p.request.impu, *p.undo, &p);
    finish(p, refusal.code, responder.refuse(to(p), refusal));
}

void Registrar::Impl::refuse(Procedure& p, CxResult result) {
    const auto refusal = refusal_of(result);
    ++(refusal.code == 403 ? counters.forbidden : counters.hss_failures);
    refuse(p, refusal);
}

void Registrar::Impl::hss_timeout(Procedure& p) {
    refuse(p, CxResult::unreachable);
}

// ---- arrival
// ---------------------------------------------------------------------------------------------------------

void Registrar::Impl::receive(const sip::Message& message, Answer answer,
                              std::optional<Endpoint> source) {
    ++counters.requests;
    Procedure* p = start();
    if (p == nullptr) {
        ++counters.overload;
        const auto text = responder.refuse({message, tag(), source}, {503, "", "Retry-After", "5"});
        if (text.empty()) {
            ++counters.dropped;
        } else {
            answer(503, text);
        }
        return;
    }
    p->answer = std::move(answer);
    p->source = source;
    // The procedure outlives the datagram when the HSS is slow.
    p->bytes.assign(message.bytes());
    p->message.parse(std::string_view(p->bytes));
    p->request = {};
    auto request =
        read_register(p->message, static_cast<std::uint32_t>(config.default_expires.count()));
    if (!request) {
        ++counters.malformed;
        return refuse(*p, request.error());
    }
    p->request = std::move(*request);
    decide(*p);
}

void Registrar::Impl::decide(Procedure& p) {
    auto& r = p.request;
    if (r.impi.empty()) {
        ++counters.forbidden;
        return refuse(p, Refusal{403, "No Private User Identity", {}, {}});
    }
    if (r.has_contact && r.expires != 0) {
        if (r.expires < config.min_expires.count()) {
            ++counters.interval_too_brief;
            return refuse(
                p, Refusal{423, "", "Min-Expires", std::to_string(config.min_expires.count())});
        }
        r.expires = std::min(r.expires, static_cast<std::uint32_t>(config.max_expires.count()));
    }

    User* user = find_user(r.impi);
    const bool protected_request = r.integrity == Integrity::yes;
    Set* set = user != nullptr && protected_request ? user->set_of(r.impu) : nullptr;
    const bool known_path = set != nullptr;
    if (!r.has_contact && !known_path) {
        ++counters.malformed;
        return refuse(p, Refusal{400, "Contact Missing", {}, {}});
    }
    if (user != nullptr && user->challenge && r.nonce() == user->challenge->nonce &&
        r.impu == user->challenge->impu) {
        if (r.has_auts()) return resynchronise(p, *user);
        if (r.network_failure()) return network_failure(p, *user);
        if (r.has_response() && r.has_contact && (protected_request || config.allow_unprotected))
            return check_response(p, *user);
    }
    if (known_path) return reregister(p, *set);
    begin_challenge(p, nullptr);
}

void Registrar::Impl::begin_challenge(Procedure& p, const Resynchronisation* resynchronisation) {
    if (User* user = find_user(p.request.impi); user != nullptr && user->challenge) {
        // C10: the earlier challenge is void from now on, whatever becomes of this one.
        ++counters.challenges_voided;
        void_challenge(*user, p);
        forget_if_idle(*user);
    }
    if (resynchronisation != nullptr) return ask_vectors(p, resynchronisation);
    awaiting(p);
    hss.query(p.request.impi, p.request.impu,
              [this, id = p.id()](CxResult result, const UserStatus&) {
                  auto* q = answered(id);
                  if (q == nullptr) return;
                  // A user assigned to another S-CSCF is taken over: we are the only one.
                  if (result != CxResult::success) return refuse(*q, result);
                  ask_vectors(*q, nullptr);
              });
}

void Registrar::Impl::ask_vectors(Procedure& p, const Resynchronisation* resynchronisation) {
    awaiting(p);
    const AvRequest request{p.request.impi, p.request.impu, config.server_name, 1,
                            resynchronisation};
    // Asked for vectors the HSS waits for the authentication, also if its answer does not reach us;
    // an error changed nothing there.
    const auto undo = std::exchange(p.undo, ServerAssignment::authentication_failure);
    hss.av_request(request, [this, id = p.id(), resync = resynchronisation != nullptr, undo](
                                CxResult result, std::vector<AuthVector> vectors) {
        auto* q = answered(id);
        if (q == nullptr) return;
        if (result == CxResult::success && vectors.empty()) result = CxResult::unable_to_comply;
        if (result != CxResult::success) {
            q->undo = undo;
            return refuse(*q, result);
        }
        if (resync) ++counters.resynchronisations;
        send_challenge(*q, vectors.front());
    });
}

void Registrar::Impl::send_challenge(Procedure& p, const AuthVector& vector) {
    auto it = users.find(p.request.impi);
    if (it == users.end()) {
        if (users.size() >= config.max_users) {
            ++counters.overload;
            return refuse(p, Refusal{503, "", "Retry-After", "60"});
        }
        it = users.try_emplace(p.request.impi, this).first;
        it->second.impi = it->first;
    }
    User& user = it->second;
    if (user.challenge) {
        if (user.challenge->order > p.order) {
            // The HSS answered a later REGISTER first; the later one's challenge is the valid one
            // (C10).
            return refuse(p, Refusal{480, "Overtaken By A Later REGISTER", {}, {}});
        }
        ++counters.challenges_voided;
        void_challenge(user, p);
    }
    user.challenge = make_secret<Challenge>();
    ++challenges;
    auto& c = *user.challenge;
    c.nonce = make_nonce(vector);
    c.impu = p.request.impu;
    c.rand = vector.rand;
    c.ha1 = digest.ha1(user.impi, config.realm, vector.xres);
    c.order = p.order;
    c.timer.bind<&User::on_await_auth>(&user);
    timers.start(c.timer, config.reg_await_auth);
    ++counters.challenges;
    log::debug(area, "{} {}: challenged", user.impi, p.request.impu);
    finish(p, 401, responder.challenge(to(p), c.nonce, vector));
    responder.wipe_buffers();
    wipe_stack();
}

void Registrar::Impl::check_response(Procedure& p, User& user) {
    const auto& c = p.request.credentials;
    const auto text = [](const std::optional<std::string_view>& v) {
        return v.value_or(std::string_view{});
    };
    const DigestAnswer given{.username = p.request.impi,
                             .realm = text(c.realm),
                             .nonce = text(c.nonce),
                             .uri = text(c.uri),
                             .response = text(c.response),
                             .qop = text(c.qop),
                             .nc = text(c.nc),
                             .cnonce = text(c.cnonce)};
    const bool right = digest.verify(user.challenge->ha1, given, "REGISTER", p.message.body());
    drop_challenge(user);
    if (right) {
        forget_if_idle(
            user);  // bind() makes it anew: nothing stays behind if the HSS does not answer
        return assign(p);
    }
    ++counters.user_failures;
    log::debug(area, "{} {}: user authentication failure", p.request.impi, p.request.impu);
    authentication_failed(user, p.request.impu, ServerAssignment::authentication_failure);
    refuse(p, Refusal{403, "Authentication Failed", {}, {}});
}

void Registrar::Impl::resynchronise(Procedure& p, User& user) {
    ++counters.synchronisation_failures;
    Resynchronisation r;
    r.rand = user.challenge->rand;
    const auto auts = from_base64(*p.request.credentials.auts);
    if (!auts || auts->size() != r.auts.size()) {
        ++counters.malformed;
        return refuse(p, Refusal{400, "Bad auts", {}, {}});
    }
    std::ranges::copy(*auts, r.auts.begin());
    drop_challenge(user);
    forget_if_idle(user);
    p.undo = ServerAssignment::authentication_failure;
    begin_challenge(p, &r);
}

void Registrar::Impl::network_failure(Procedure& p, User& user) {
    ++counters.network_failures;
    log::debug(area, "{} {}: network authentication failure", p.request.impi, p.request.impu);
    drop_challenge(user);
    authentication_failed(user, p.request.impu, ServerAssignment::authentication_failure);
    refuse(p, Refusal{403, "Authentication Failed", {}, {}});
}

void Registrar::Impl::reregister(Procedure& p, Set& set) {
    auto& r = p.request;
    const bool leaving = r.has_contact && r.expires == 0;
    if (r.has_contact && !leaving && set.shortened) {
        return begin_challenge(p, nullptr);
    } else if (r.has_contact && !leaving && set.rechallenge) {
        if (*set.rechallenge) return begin_challenge(p, nullptr);
    } else if (r.has_contact && !leaving && config.rechallenge > 0) {
        constexpr std::uint64_t parts = 1'000'000;
        if (static_cast<double>(random.below(parts)) <
            config.rechallenge * static_cast<double>(parts)) {
            return begin_challenge(p, nullptr);
        }
    }
    // RFC 3261 10.3 step 7. A challenge proves freshness by itself; without one the order of
    // requests must.
    if (r.call_id == set.call_id && r.cseq <= set.cseq) {
        ++counters.malformed;
        return refuse(p, Refusal{500, "CSeq Out Of Order", {}, {}});
    }
    if (leaving) return deregister(p);
    if (!r.has_contact) {
        return answer_binding(p, set, seconds_left(set));
    }
    ++counters.unchallenged;
    p.assignment = ServerAssignment::re_registration;
    bind(p, nullptr);
}

// ---- success
// ---------------------------------------------------------------------------------------------------------

// The response was right: CM3/CM4 of 6.1.1, Cx-Put and Cx-Pull.
void Registrar::Impl::assign(Procedure& p) {
    if (p.request.has_contact && p.request.expires == 0) return deregister(p);
    const User* user = find_user(p.request.impi);
    p.assignment = user != nullptr && user->set_of(p.request.impu) != nullptr
                       ? ServerAssignment::re_registration
                       : ServerAssignment::registration;
    p.undo = ServerAssignment::administrative_deregistration;
    awaiting(p);
    const PutRequest request{p.request.impi, p.request.impu, config.server_name, p.assignment};
    hss.put(request, [this, id = p.id()](CxResult result) {
        auto* q = answered(id);
        if (q == nullptr) return;
        if (result != CxResult::success) return refuse(*q, result);
        fetch_profile(*q);
    });
}

void Registrar::Impl::fetch_profile(Procedure& p) {
    awaiting(p);
    hss.pull(p.request.impi, p.request.impu,
             [this, id = p.id()](CxResult result, const Profile& profile) {
                 auto* q = answered(id);
                 if (q == nullptr) return;
                 if (result == CxResult::success && profile.implicit_set.empty())
                     result = CxResult::unable_to_comply;
                 if (result != CxResult::success) return refuse(*q, result);
                 bind(*q, &profile);
             });
}

// `profile`: null keeps the one we have.
void Registrar::Impl::bind(Procedure& p, const Profile* profile) {
    auto it = users.find(p.request.impi);
    if (it == users.end()) {
        // The registration ended while the HSS was asked, or the challenge was the only thing we
        // had.
        if (profile == nullptr || users.size() >= config.max_users) {
            ++counters.overload;
            return refuse(p, Refusal{503, "", "Retry-After", "60"});
        }
        it = users.try_emplace(p.request.impi, this).first;
        it->second.impi = it->first;
    }
    User& user = it->second;
    auto& r = p.request;
    Set* set = user.set_of(r.impu);
    const bool fresh = set == nullptr;
    if (fresh) {
        if (!user.registered()) ++registered;
        set = user.sets.emplace_back(std::make_unique<Set>(&user)).get();
    }
    const auto event = fresh ? sip::ContactEvent::registered : sip::ContactEvent::refreshed;
    if (profile != nullptr) {
        set->shortened = false;
        ++(fresh ? counters.registrations : counters.reregistrations);
        if (set->impus != profile->implicit_set) {
            unindex(*set);
            set->impus = profile->implicit_set;
            index(*set);
        }
        set->service_route = profile->service_route;
    }
    set->contact = r.contact_uri;
    set->q = r.q;
    set->path = std::move(r.path);
    set->call_id = r.call_id;
    set->cseq = r.cseq;
    set->bound_at = p.order;
    timers.start(set->expiry, std::chrono::seconds(r.expires));
    log::debug(area, "{} {}: registered for {} s, contact {}", user.impi, r.impu, r.expires,
               set->contact);
    const std::string impi = user.impi;
    const std::string impu = r.impu;
    answer_binding(p, *set, r.expires);
    // Whoever got the answer may have gone on with another REGISTER.
    const User* after = find_user(impi);
    if (const Set* bound = after != nullptr ? after->set_of(impu) : nullptr; bound != nullptr)
        tell(*bound, event, profile != nullptr);
}

void Registrar::Impl::answer_binding(Procedure& p, const Set& set, std::uint32_t expires) {
    const RegisterResponder::Accepted accepted{
        .contact = set.contact,
        .contact_params =
            p.request.contact_uri == set.contact ? p.request.contact_params : std::string_view{},
        .expires = expires,
        .path = set.path,
        .service_route = set.service_route.empty() ? config.service_route : set.service_route,
        .impus = set.impus};
    finish(p, 200, responder.accept(to(p), accepted));
}

void Registrar::Impl::deregister(Procedure& p) {
    const auto& r = p.request;
    User* user = find_user(r.impi);
    Set* set = user != nullptr ? user->set_of(r.impu) : nullptr;
    if (set != nullptr && !r.all_contacts && r.contact_uri != set->contact) {
        // RFC 3261 10.3: a binding that does not exist needs no removal; the answer names the one
        // that does.
        return answer_binding(p, *set, seconds_left(*set));
    }
    std::optional<Ended> ended;
    if (set != nullptr) {
        ++counters.deregistrations;
        log::debug(area, "{} {}: deregistered by the user", r.impi, r.impu);
        ended = unbind(*set);
    }
    if (user != nullptr) forget_if_idle(*user);
    put_and_forget(r.impi, r.impu, ServerAssignment::user_deregistration);
    RegisterResponder::Accepted none;
    none.path = r.path;
    finish(p, 200, responder.accept(to(p), none));
    if (ended) tell(*ended, sip::ContactEvent::unregistered);
}

// ---- state
// -----------------------------------------------------------------------------------------------------------

Registrar::Impl::User* Registrar::Impl::find_user(std::string_view impi) {
    const auto it = users.find(impi);
    return it == users.end() ? nullptr : &it->second;
}

void Registrar::Impl::drop_challenge(User& user) {
    if (!user.challenge) return;
    user.challenge.reset();
    --challenges;
}

void Registrar::Impl::void_challenge(User& user, Procedure& by) {
    const std::string impu = user.challenge->impu;
    drop_challenge(user);
    if (impu == by.request.impu) {
        by.undo = ServerAssignment::authentication_failure;
    } else {
        give_up(user.impi, impu, ServerAssignment::authentication_failure, &by);
    }
}

// C9: a failed authentication never deregisters. Only where nothing is registered does the HSS hear
// of it. `user` may be gone after it.
void Registrar::Impl::authentication_failed(User& user, std::string_view impu,
                                            ServerAssignment reason) {
    if (user.set_of(impu) != nullptr) return;
    const std::string impi = user.impi;
    forget_if_idle(user);
    give_up(impi, impu, reason);
}

void Registrar::Impl::authentication_timeout(User& user) {
    ++counters.authentication_timeouts;
    const std::string impu = user.challenge->impu;
    log::debug(area, "{} {}: authentication timed out", user.impi, impu);
    drop_challenge(user);
    authentication_failed(user, impu, ServerAssignment::authentication_timeout);
}

void Registrar::Impl::expired(Set& set) {
    ++counters.expired;
    User& user = *set.user;
    const std::string impu = set.impus.front();
    log::debug(area, "{} {}: registration expired", user.impi, impu);
    const Ended ended = unbind(set);
    forget_if_idle(user);
    put_and_forget(ended.impi, impu, ServerAssignment::timeout_deregistration);
    tell(ended, sip::ContactEvent::expired);
}

void Registrar::Impl::index(Set& set) {
    for (const auto& impu : set.impus) by_impu.emplace(impu, &set);
}

void Registrar::Impl::unindex(Set& set) {
    for (const auto& impu : set.impus) {
        const auto [first, last] = by_impu.equal_range(impu);
        const auto own = std::find_if(first, last, [&](const auto& e) { return e.second == &set; });
        if (own != last) by_impu.erase(own);
    }
}

Registrar::Impl::Set* Registrar::Impl::by_identity(std::string_view impu) {
    const auto canonical = canonical_impu(impu);
    if (!canonical) return nullptr;
    const auto [first, last] = by_impu.equal_range(*canonical);
    // Of those that share it the one that registered last.
    Set* latest = nullptr;
    for (auto it = first; it != last; ++it) {
        if (latest == nullptr || it->second->bound_at > latest->bound_at) latest = it->second;
    }
    return latest;
}

Binding Registrar::Impl::binding_of(const Set& set) const {
    return {.impi = set.user->impi,
            .default_impu = set.impus.front(),
            .contact = set.contact,
            .path = set.path,
            .impus = &set.impus,
            .q = set.q,
            .expires = set.expiry.deadline(),
            .shortened = set.shortened,
            .registering = registering(set)};
}

Registrar::Impl::Ended Registrar::Impl::unbind(Set& set) {
    unindex(set);
    User& user = *set.user;
    Ended ended{user.impi, std::move(set.impus), std::move(set.contact), user.sets.size() == 1};
    std::erase_if(user.sets, [&](const auto& s) { return s.get() == &set; });
    if (ended.user_gone) --registered;
    return ended;
}

void Registrar::Impl::tell(const Ended& ended, sip::ContactEvent event) {
    if (observer != nullptr)
        observer->on_registration({.impi = ended.impi,
                                   .event = event,
                                   .impus = ended.impus,
                                   .contact = ended.contact,
                                   .user_gone = ended.user_gone});
}

void Registrar::Impl::tell(const Set& set, sip::ContactEvent event, bool authenticated,
                           const std::vector<std::string>* removed) {
    if (observer == nullptr) return;
    observer->on_registration({.impi = set.user->impi,
                               .event = event,
                               .impus = set.impus,
                               .contact = set.contact,
                               .expires = seconds_left(set),
                               .authenticated = authenticated,
                               .removed = removed});
}

void Registrar::Impl::forget_if_idle(User& user) {
    if (user.registered() || user.challenge) return;
    users.erase(users.find(user.impi));
}

void Registrar::Impl::put_and_forget(std::string_view impi, std::string_view impu,
                                     ServerAssignment assignment) {
    // Whatever the HSS says, nothing of ours hangs on it; CxLog counts the failures.
    hss.put(PutRequest{impi, impu, config.server_name, assignment}, [](CxResult) {});
}

// ---- the public face
// -------------------------------------------------------------------------------------------------

Registrar::Registrar(RegistrarConfig config, Hss& hss, TimerWheel& timers, Random& random)
    : impl_(std::make_unique<Impl>(std::move(config), hss, timers, random)) {}
Registrar::~Registrar() = default;

bool Registrar::receive(std::string_view request, Answer answer, std::optional<Endpoint> source) {
    sip::Message message;
    message.parse(request);
    if (!message.is_request() || message.method() != "REGISTER") {
        ++impl_->counters.dropped;
        return false;
    }
    impl_->receive(message, std::move(answer), source);
    return true;
}

void Registrar::receive(const sip::Message& request, Answer answer,
                        std::optional<Endpoint> source) {
    impl_->receive(request, std::move(answer), source);
}

const Binding* Registrar::find(std::string_view impu) {
    const auto* set = impl_->by_identity(impu);
    if (set == nullptr) return nullptr;
    impl_->found = impl_->binding_of(*set);
    return &impl_->found;
}

const Binding* Registrar::find_user(std::string_view impi) {
    const auto* user = impl_->find_user(impi);
    if (user == nullptr || !user->registered()) return nullptr;
    impl_->found = impl_->binding_of(*user->sets.front());
    return &impl_->found;
}

void Registrar::find_sets(std::string_view impi,
                          const std::function<void(const Binding&)>& each) const {
    const auto* user = impl_->find_user(impi);
    if (user == nullptr) return;
    for (const auto& set : user->sets) each(impl_->binding_of(*set));
}

std::vector<std::string> Registrar::default_identities(std::string_view impi) const {
    std::vector<std::string> out;
    find_sets(impi, [&](const Binding& b) { out.emplace_back(b.default_impu); });
    return out;
}

void Registrar::find_all(std::string_view impu, const std::function<void(const Binding&)>& each) {
    const auto canonical = canonical_impu(impu);
    if (!canonical) return;
    const auto [first, last] = impl_->by_impu.equal_range(*canonical);
    for (auto it = first; it != last; ++it) each(impl_->binding_of(*it->second));
}

std::optional<Registrar::Sender> Registrar::find_sender(std::string_view impu,
                                                        std::string_view contact) {
    const auto* first = find(impu);
    if (first == nullptr) return std::nullopt;
    Sender out{std::string(first->impi), std::string(first->default_impu)};
    const auto from = sip::parse_uri(contact);
    if (!from) return out;
    const auto port = [](const sip::Uri& u) { return u.port != 0 ? u.port : std::uint16_t{5060}; };
    find_all(impu, [&](const Binding& b) {
        const auto uri = sip::parse_uri(b.contact);
        if (uri && uri->user == from->user && iequals(uri->host, from->host) &&
            port(*uri) == port(*from))
            out = {std::string(b.impi), std::string(b.default_impu)};
    });
    return out;
}

void Registrar::locate(std::string_view impu, std::move_only_function<void(CxResult)> answer) {
    impl_->hss.pull(
        {}, impu,
        [answer = std::move(answer)](CxResult result, const Profile&) mutable { answer(result); });
}

bool Registrar::update(std::string_view impi, const std::vector<Profile>& profiles) {
    auto* user = impl_->find_user(impi);
    if (user == nullptr || !user->registered()) return false;
    impl_->update(*user, profiles);
    return true;
}

void Registrar::Impl::update(User& user, const std::vector<Profile>& profiles) {
    const std::string impi = user.impi;
    struct Changed {
        std::string impu;  // the default one
        std::vector<std::string> removed;
    };
    std::vector<Ended> ended;
    std::vector<Changed> changed;
    std::vector<std::pair<Set*, const Profile*>> sets;  // with what each goes on as
    for (const auto& set : user.sets) {
        const auto profile = std::ranges::find_if(profiles, [&](const Profile& p) {
            return !p.implicit_set.empty() &&
                   std::ranges::find(p.implicit_set, set->impus.front()) != p.implicit_set.end();
        });
        sets.emplace_back(set.get(), profile == profiles.end() ? nullptr : &*profile);
    }
    for (const auto& [set, profile] : sets) {
        if (profile != nullptr) continue;
        ++counters.deactivated;
        ended.push_back(unbind(*set));
    }
    for (const Profile& profile : profiles) {
        // Sets that are one now go on as one: the one that has the default identity, or the first.
        Set* heir = nullptr;
        for (const auto& [set, its] : sets) {
            if (its == &profile &&
                (heir == nullptr || set->impus.front() == profile.implicit_set.front()))
                heir = set;
        }
        if (heir == nullptr) continue;
        heir->service_route = profile.service_route;
        bool same = heir->impus == profile.implicit_set;
        std::vector<std::string> before = heir->impus;
        for (const auto& [set, its] : sets) {
            if (its != &profile || set == heir) continue;
            const Ended other = unbind(*set);
            same = false;
            before.insert(before.end(), other.impus.begin(), other.impus.end());
        }
        if (same) continue;
        unindex(*heir);
        heir->impus = profile.implicit_set;
        index(*heir);
        changed.push_back({heir->impus.front(), std::move(before)});
    }
    // An identity that moved to another set is there, not gone.
    const auto held = [&user](const std::string& impu) { return user.set_of(impu) != nullptr; };
    for (Ended& e : ended) std::erase_if(e.impus, held);
    for (Changed& c : changed) std::erase_if(c.removed, held);
    forget_if_idle(user);
    for (const Ended& e : ended)
        put_and_forget(impi, e.impus.front(), ServerAssignment::administrative_deregistration);
    // Told when all is in place. What is told of one set may end another.
    for (const Ended& e : ended) tell(e, sip::ContactEvent::deactivated);
    for (const Changed& c : changed) {
        const User* now = find_user(impi);
        const Set* set = now != nullptr ? now->set_of(c.impu) : nullptr;
        if (set != nullptr) tell(*set, sip::ContactEvent::registered, false, &c.removed);
    }
}

void Registrar::Impl::deactivate(Set& set, sip::ContactEvent event) {
    ++counters.deactivated;
    User& user = *set.user;
    const auto ended = unbind(set);
    forget_if_idle(user);
    put_and_forget(ended.impi, ended.impus.front(),
                   ServerAssignment::administrative_deregistration);
    tell(ended, event);
}

bool Registrar::deregister(std::string_view impu, sip::ContactEvent event) {
    auto* set = impl_->by_identity(impu);
    if (set == nullptr) return false;
    impl_->deactivate(*set, event);
    return true;
}

bool Registrar::deregister_user(std::string_view impi, sip::ContactEvent event) {
    const std::string name(impi);
    bool any = false;
    for (const auto& impu : default_identities(name)) {
        auto* user = impl_->find_user(name);
        auto* set = user != nullptr ? user->set_of(impu) : nullptr;
        if (set == nullptr) continue;
        impl_->deactivate(*set, event);
        any = true;
    }
    return any;
}

void Registrar::withdraw(std::string_view impi) {
    auto* user = impl_->find_user(impi);
    if (user == nullptr) return;
    const std::string name(impi);
    std::optional<std::string> pending;
    if (user->challenge && user->set_of(user->challenge->impu) == nullptr)
        pending = user->challenge->impu;
    impl_->drop_challenge(*user);
    if (!deregister_user(name)) impl_->forget_if_idle(*user);
    if (pending) impl_->give_up(name, *pending, ServerAssignment::authentication_failure);
}

bool Registrar::shorten(const std::vector<std::string>& impus, std::chrono::seconds left) {
    Impl::Set* first = nullptr;
    for (const auto& impu : impus) {
        auto* set = impl_->by_identity(impu);
        if (set == nullptr) continue;
        if (first == nullptr) first = set;
        ++impl_->counters.shortened;
        set->shortened = true;
        set->shortened_at = impl_->next_order;
        if (set->expiry.deadline() > impl_->timers.now() + left)
            impl_->timers.start(set->expiry, left);
    }
    if (first == nullptr) return false;
    impl_->tell(*first, sip::ContactEvent::shortened);
    return true;
}

void Registrar::observe(RegistrationObserver* observer) {
    impl_->observer = observer;
}

bool Registrar::rechallenge(std::string_view impu, bool always) {
    auto* set = impl_->by_identity(impu);
    if (set == nullptr) return false;
    set->rechallenge = always;
    return true;
}

std::size_t Registrar::registered() const {
    return impl_->registered;
}
std::size_t Registrar::challenges_outstanding() const {
    return impl_->challenges;
}
std::size_t Registrar::procedures() const {
    return impl_->live_procedures;
}
const RegistrarCounters& Registrar::counters() const {
    return impl_->counters;
}
const RegistrarConfig& Registrar::config() const {
    return impl_->config;
}

}  // namespace gmgate::home
