#include "control/registration/registrar.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "control/regevent/subscriber.h"
#include "control/registration/edits.h"
#include "control/registration/identity.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

constexpr std::uint32_t default_expires = 600'000;  // what 24.229 has a UE ask for

// Longest time a database is asked to hold: about 34 years.
constexpr std::uint32_t longest_expires = 1U << 30U;

std::optional<RegisterFacts> read_facts(const sip::Message& request) {
    const auto authorization = request.value(HeaderId::authorization);
    if (!authorization) return std::nullopt;
    // A second one could name another user, and the S-CSCF might read that one under our "yes".
    const auto* first = request.first(HeaderId::authorization);
    if (request.next(*first) != nullptr) return std::nullopt;
    const auto credentials = sip::parse_digest_credentials(*authorization);
    if (!credentials || !credentials->username || credentials->username->empty())
        return std::nullopt;
    RegisterFacts facts;
    facts.credentials = *credentials;
    facts.impi = *credentials->username;
    facts.expires = sip::expires(request).value_or(default_expires);
    if (const auto value = request.first_value(HeaderId::contact)) {
        if (const auto contact = sip::parse_contact(*value)) {
            if (contact->star) {
                facts.expires = 0;
            } else {
                facts.contact = contact->address.uri.text;
                facts.expires = sip::contact_expires(request, *contact, default_expires);
            }
        }
    }
    return facts;
}

// What the registrar granted to this contact.
std::uint32_t granted_expires(const sip::Message& response, std::string_view contact,
                              std::uint32_t asked) {
    const auto ours = sip::parse_uri(contact);
    std::optional<std::uint32_t> only;
    std::size_t contacts = 0;
    for (const sip::Value& value : response.values(HeaderId::contact)) {
        const auto c = sip::parse_contact(value.text);
        if (!c || c->star) continue;
        const std::uint32_t granted = sip::contact_expires(response, *c, asked);
        if (ours && sip::same_identity(*ours, c->address.uri)) return granted;
        only = granted;
        ++contacts;
    }
    // The registrar may spell our only contact in another way.
    if (contacts == 1) return *only;
    return sip::expires(response).value_or(asked);
}

}  // namespace

Registrar::Registrar(Context& context)
    : ctx_(context),
      nonce_hash_(context.random),
      admission_(context.policy.limits, context.random),
      per_name_(context.policy.limits.sources, context.policy.limits.register_rate_per_user,
                context.policy.limits.register_burst_per_user, context.random),
      per_user_(context.policy.limits.sources, context.policy.limits.message_rate_per_user,
                context.policy.limits.message_burst_per_user, context.random),
      told_(context.policy.limits.sources, 1, 5, context.random),
      pending_by_source_(16, CountBySource::Hash{SeededHash(context.random)}),
      registered_at_(context.random),
      nats_(context.random) {
    ctx_.sets.add_observer(*this);
}

Registrar::~Registrar() = default;

Reason Registrar::admit(const Endpoint& source, sip::Transport transport) {
    const IpAddress from = admission_.source_of(source.address);
    const auto standing = is_nat(from)                  ? Admission::Standing::nat
                          : registered_at_.of(from) > 0 ? Admission::Standing::known
                                                        : Admission::Standing::stranger;
    return admission_.admit(source, transport == sip::Transport::tcp, standing, ctx_.now());
}

bool Registrar::admit_user(sa::UserId user) {
    return per_user_.take(user, ctx_.now());
}

bool Registrar::tell_user(sa::UserId user) {
    return told_.take(user, ctx_.now());
}

bool Registrar::is_at_home(const sa::User& user, const IpAddress& source) const {
    return std::ranges::any_of(user.sets, [&](sa::SetId id) {
        const sa::SaSet* set = id == 0 ? nullptr : ctx_.sets.find(id);
        return set != nullptr && !set->nat && set->ue == source &&
               (set->state == sa::State::established || set->state == sa::State::draining);
    });
}

void Registrar::moved(Registration& registration, const IpAddress& to, bool nat) {
    const IpAddress source = to.is_unspecified() ? to : admission_.source_of(to);
    if (registration.source == source && registration.nat == nat) return;
    if (!registration.source.is_unspecified()) {
        registered_at_.remove(registration.source);
        if (registration.nat) nats_.remove(registration.source);
    }
    if (!source.is_unspecified()) {
        registered_at_.add(source);
        if (nat) nats_.add(source);
    }
    registration.source = source;
    registration.nat = nat;
}

bool Registrar::make_room() {
    if (procedures_.size() < ctx_.policy.limits.pending) return true;
    // The oldest stand first. Those that wait for the core end soon by themselves and are passed
    // over, up to a bound.
    std::size_t looked_at = 0;
    for (auto at = begun_in_clear_.begin(); at != begun_in_clear_.end() && looked_at < 64;
         ++looked_at) {
        auto* procedure = procedures_.find(*at);
        if (procedure == nullptr) {
            at = begun_in_clear_.erase(at);
            continue;
        }
        if (ctx_.now() - procedure->started() < ctx_.policy.limits.pending_grace) return false;
        if (procedure->state() == RegistrationProcedure::State::awaiting_authentication) {
            begun_in_clear_.erase(at);
            procedure->abandoned_by_ue(sa::Event::reg_await_timeout, Reason::gave_way);
            return true;
        }
        ++at;
    }
    return false;
}

bool Registrar::make_room_at(const Endpoint& from) {
    const IpAddress source = admission_.source_of(from.address);
    const auto here = pending_by_source_.find(source);
    const std::size_t limit = ctx_.policy.limits.pending_per_source;
    if (here == pending_by_source_.end() || here->second.size() < limit) return true;
    // At a NAT's address each port counts for itself, and none of the others gives way to it before
    // all of them are too many.
    bool all = true;
    if (is_nat(source)) {
        all = here->second.size() >= limit * ctx_.policy.limits.sources_per_nat;
        const auto same = std::ranges::count_if(here->second, [&](SlotId id) {
            const auto* p = procedures_.find(id);
            return p != nullptr && p->ue_.port == from.port;
        });
        if (!all && static_cast<std::size_t>(same) < limit) return true;
    }
    std::size_t looked_at = 0;
    for (const SlotId id : here->second) {
        auto* procedure = procedures_.find(id);
        if (procedure != nullptr && !all && procedure->ue_.port != from.port) continue;
        if (++looked_at > 64 || procedure == nullptr ||
            ctx_.now() - procedure->started() < ctx_.policy.limits.pending_grace)
            return false;
        if (procedure->state() == RegistrationProcedure::State::awaiting_authentication) {
            procedure->abandoned_by_ue(sa::Event::reg_await_timeout, Reason::gave_way);
            return true;
        }
    }
    return false;
}

std::uint64_t Registrar::hash_nonce(std::string_view nonce) const {
    const std::uint64_t h = nonce_hash_(nonce);
    return h == 0 ? 1 : h;  // 0 means none
}

bool Registrar::integrity_of(const Carrier& carrier,
                             const sip::DigestCredentials& credentials) const {
    if (!carrier.is_protected()) return false;
    const Registration* registration = registrations_.find(carrier.user);
    // Who leaves comes back by a challenge, for its SAs go (D4), whatever it repeats.
    if (registration == nullptr || registration->bindings.empty()) return false;
    if (!credentials.response || credentials.response->empty())
        return registration->latest == carrier.set;
    return credentials.nonce &&
           registration->nonce_hash(carrier.set) == hash_nonce(*credentials.nonce);
}

void Registrar::note_arrival(const Arrival& arrival, Step step, Reason reason,
                             std::string_view impi, std::uint64_t attempt) {
    ctx_.note(ctx_.trace_user(impi, arrival.flow.remote), "REGISTER", 0,
              {Entity::ue, Entity::pcscf, step, arrival.carrier.set,
               inbound_spi(arrival.flow, arrival.carrier.numbers), reason, attempt});
}

void Registrar::refuse(const Arrival& arrival, const sip::Message& request, int code, Reason reason,
                       std::initializer_list<sip::HeaderField> headers) {
    const auto facts = read_facts(request);
    const std::string_view impi = facts ? facts->impi : std::string_view{};
    note_arrival(arrival, Step::sm1, Reason::ok, impi);
    ctx_.answer(ctx_.gm, arrival, request, code, reason, impi, headers);
    ctx_.registration_failed({reason, code, arrival.flow.remote, impi, arrival.carrier.set});
}

void Registrar::on_register(const Arrival& arrival, const sip::Message& request) {
    auto facts = read_facts(request);
    if (!facts) {
        // Of another scheme: as if there were none (RFC 4475 3.3.7). AKA is Digest.
        const auto authorization = request.value(HeaderId::authorization);
        const bool malformed = authorization && iequals(sip::auth_scheme(*authorization), "Digest");
        return refuse(arrival, request, malformed ? 400 : 403,
                      malformed ? Reason::malformed : Reason::no_authorization);
    }
    if (auto impu = identity_of(request, HeaderId::to)) {
        facts->impu = std::move(*impu);
    } else {
        return refuse(arrival, request, 400, Reason::malformed);
    }
    if (arrival.carrier.is_protected() && !from_is_the_users(arrival.carrier, request, *facts)) {
        (void)ctx_.sets.apply(arrival.carrier.set, sa::Event::wrong_user);
        note_arrival(arrival, Step::none, Reason::wrong_sa, facts->impi);
        return ctx_.discard(ctx_.gm, arrival, Reason::wrong_sa, facts->impi);
    }
    if (arrival.carrier.state == sa::State::registration) {
        if (auto* procedure = procedures_.find(arrival.carrier.tag);
            procedure != nullptr && procedure->set() == arrival.carrier.set) {
            return procedure->on_second_register(arrival, request, *facts);
        }
        return ctx_.discard(ctx_.gm, arrival, Reason::no_sa, facts->impi);
    }
    on_first(arrival, request, *facts);
}

bool Registrar::strangers_must_wait(std::string_view impi) const {
    const sa::User* user = ctx_.sets.find_by_impi(impi);
    if (user == nullptr) return false;
    const auto under_way = pending_by_user_.find(user->id);
    if (under_way != pending_by_user_.end() &&
        ctx_.now() - under_way->second.since < ctx_.policy.t1 * 64) {
        return true;
    }
    const sa::SaSet* set = ctx_.sets.registration_set(*user);
    const auto* procedure = set == nullptr ? nullptr : procedures_.find(set->tag);
    return procedure != nullptr && procedure->set() == set->id &&
           procedure->state() == RegistrationProcedure::State::awaiting_answer;
}

// B7: who registers on an SA is its user: the From is the identity being registered, or one this
// user has. (The To may be a new one; whether it is this IMPI's is for the HSS to say.)
bool Registrar::from_is_the_users(const Carrier& carrier, const sip::Message& request,
                                  const RegisterFacts& facts) const {
    const auto from = identity_of(request, HeaderId::from);
    if (!from) return false;
    if (*from == facts.impu) return true;
    const sa::User* user = ctx_.sets.find_user(carrier.user);
    return user != nullptr && user->has_impu(*from);
}

std::uint64_t Registrar::take_failure_report(const Arrival& arrival, const RegisterFacts& facts) {
    const auto& c = facts.credentials;
    const bool out_of_sync = c.auts && !c.auts->empty();
    const bool refused = c.response && c.response->empty() && !out_of_sync;
    if ((!out_of_sync && !refused) || !c.nonce || c.nonce->empty()) return 0;
    const sa::User* user = ctx_.sets.find_by_impi(facts.impi);
    const sa::SaSet* set = user == nullptr ? nullptr : ctx_.sets.registration_set(*user);
    auto* procedure = set == nullptr ? nullptr : procedures_.find(set->tag);
    if (procedure == nullptr ||
        procedure->state() != RegistrationProcedure::State::awaiting_authentication)
        return 0;
    // Only who knows the challenge may void it: a stranger cannot, not even from the phone's
    // address. What began on an SA is reported on one (C3): integrity alone does not hide the
    // challenge from those who listen.
    if (procedure->sm1_protected() && !arrival.carrier.is_protected()) return 0;
    if (procedure->ue().address != arrival.flow.remote.address ||
        procedure->nonce_hash() != hash_nonce(*c.nonce)) {
        return 0;
    }
    // The ladder goes on with it; one with auts ends it, and is SM1 of the next as well (C4).
    const std::uint64_t attempt = procedure->attempt();
    note_arrival(arrival, Step::none, Reason::ok, facts.impi, attempt);
    procedure->abandoned_by_ue(
        out_of_sync ? sa::Event::sync_failure : sa::Event::network_auth_failure,
        out_of_sync ? Reason::synchronisation_failure : Reason::network_authentication_failed);
    return refused ? attempt : 0;
}

// N1: what it offers can be had, and its addresses are such as the packet layer can translate.
bool Registrar::takes_nat(const Arrival& arrival, const sip::Message& request,
                          const IpAddress& inner) const {
    if (!ctx_.policy.nat || !ctx_.sets.supports_nat()) return false;
    if (inner.is_v6() || arrival.flow.remote.address.is_v6() || inner.is_unspecified())
        return false;
    secagree::MechanismList offer;
    offer.parse(request, HeaderId::security_client);
    // What is absent or malformed is refused for that, and not for the NAT.
    return offer.empty() || offer.is_malformed() ||
           std::ranges::any_of(offer.mechanisms(), [](const secagree::Mechanism& m) {
               return m.mode == secagree::Mode::udp_enc_tun;
           });
}

void Registrar::on_first(const Arrival& arrival, const sip::Message& request,
                         const RegisterFacts& facts) {
    const Carrier& carrier = arrival.carrier;
    const auto refuse = [&](int code, Reason reason,
                            std::initializer_list<sip::HeaderField> headers = {}) {
        this->refuse(arrival, request, code, reason, headers);
    };
    if (carrier.is_protected()) {
        const sa::User* user = ctx_.sets.find_user(carrier.user);
        if (user == nullptr || user->impi() != facts.impi) {
            (void)ctx_.sets.apply(carrier.set, sa::Event::wrong_user);
            note_arrival(arrival, Step::none, Reason::wrong_sa,
                         user == nullptr ? facts.impi : user->impi());
            return ctx_.discard(ctx_.gm, arrival, Reason::wrong_sa, facts.impi);
        }
        ctx_.sets.note_use(carrier.set);
    }
    const auto via = sip::top_via(request);
    if (!via) return refuse(400, Reason::malformed);
    std::optional<IpAddress> nat_inner;  // N1
    if (carrier.nat) nat_inner = carrier.nat->inner;
    if (check_via(*via, arrival.flow.remote.address, nat_inner) == ViaCheck::different) {
        if (carrier.is_protected()) return refuse(403, Reason::via_mismatch);
        nat_inner = IpAddress::parse(via->host);
    }
    if (nat_inner && !takes_nat(arrival, request, *nat_inner)) {
        // Something between us rewrites addresses, and ESP would not pass it without UDP
        // encapsulation.
        return refuse(403, Reason::nat_unsupported,
                      {{"Warning", "399 gmgate \"address translation on the way\""}});
    }

    const std::uint64_t reported = take_failure_report(arrival, facts);

    std::optional<secagree::Choice> choice;
    secagree::MechanismList offer;
    offer.parse(request, HeaderId::security_client);
    const bool required = request.has_token(HeaderId::require, "sec-agree") ||
                          request.has_token(HeaderId::proxy_require, "sec-agree");
    if (offer.empty() || !required) {
        if (reported == 0)
            return refuse(421, Reason::sec_agree_missing, {{"Require", "sec-agree"}});
    } else {
        const secagree::ChoicePolicy policy{ctx_.policy.suites,
                                            ctx_.policy.missing_ealg == MissingEalg::null,
                                            nat_inner.has_value()};
        const auto chosen = secagree::choose(offer, policy);
        if (!chosen) {
            const int code = secagree::response_code(chosen.error());
            if (chosen.error() == secagree::OfferError::unacceptable) {
                std::string ours;
                for (const sa::Suite suite : ctx_.policy.suites) {
                    if (!ours.empty()) ours += ", ";
                    ours += "ipsec-3gpp;alg=" + std::string(sa::name(suite.integrity)) +
                            ";ealg=" + std::string(sa::name(suite.encryption)) +
                            (nat_inner ? ";prot=esp;mod=UDP-enc-tun" : ";prot=esp;mod=trans");
                }
                return refuse(code, Reason::no_common_algorithm,
                              {{"Security-Server", ours}, {"Require", "sec-agree"}});
            }
            return refuse(code, Reason::security_client_malformed,
                          {{"Warning", "399 gmgate \"Security-Client cannot be read\""}});
        }
        choice = *chosen;
        const auto& m = chosen->mechanism;
        if (const auto possible =
                ctx_.sets.check_ue(facts.impi, arrival.flow.remote.address, m.spi_c, m.spi_s,
                                   m.port_c, m.port_s, nat_inner);
            !possible) {
            if (possible.error().kind == ErrorKind::conflict) {
                return refuse(403, Reason::port_in_use,
                              {{"Warning", "399 gmgate \"port-c is in use\""}});
            }
            return refuse(400, Reason::security_client_malformed,
                          {{"Warning", "399 gmgate \"Security-Client has impossible numbers\""}});
        }
    }

    if (!carrier.is_protected()) {
        // S3. Registered users on their SAs are bounded each for itself, so strangers cannot keep
        // them from renewing.
        const auto& limits = ctx_.policy.limits;
        const IpAddress& source = arrival.flow.remote.address;
        // Each may cost the home an authentication vector, and voids the challenge before it (C10):
        // a name is not to be had for that without end. Who is registered at this very address
        // does not depend on what others do with its name.
        const sa::User* named = ctx_.sets.find_by_impi(facts.impi);
        if ((named == nullptr || !is_at_home(*named, source)) &&
            !per_name_.take(facts.impi, ctx_.now())) {
            return refuse(503, Reason::rate_name, {{"Retry-After", "10"}});
        }
        if (registrations_.size() >= limits.registrations) {
            const sa::User* user = ctx_.sets.find_by_impi(facts.impi);
            if (user == nullptr || registrations_.find(user->id) == nullptr) {
                return refuse(503, Reason::registration_limit, {{"Retry-After", "120"}});
            }
        }
    }
    if (carrier.is_protected()) {
        // A phone waits for the answer before it asks again; one that floods must not use up the
        // transactions of the others.
        const auto under_way = pending_by_user_.find(carrier.user);
        if (under_way != pending_by_user_.end() &&
            under_way->second.procedures.size() >= ctx_.policy.limits.pending_per_user) {
            return refuse(500, Reason::pending_user_limit, {{"Retry-After", "5"}});
        }
    } else if (strangers_must_wait(facts.impi)) {
        return refuse(503, Reason::pending_user_limit, {{"Retry-After", "32"}});
    }
    if (!carrier.is_protected()) {
        if (!make_room_at(arrival.flow.remote))
            return refuse(503, Reason::pending_source_limit, {{"Retry-After", "30"}});
        if (!make_room()) return refuse(503, Reason::pending_limit, {{"Retry-After", "30"}});
    }
    RegistrationProcedure& procedure = procedures_.emplace(ctx_, *this);
    if (carrier.is_protected()) {
        UnderWay& under_way = pending_by_user_[carrier.user];
        under_way.procedures.push_back(procedure.id());
        under_way.since = ctx_.now();
        procedure.counted_user_ = carrier.user;
    } else {
        procedure.counted_source_ = true;
        procedure.ue_ = arrival.flow.remote;
        pending_by_source_[admission_.source_of(arrival.flow.remote.address)].push_back(
            procedure.id());
        if (begun_in_clear_.size() > 2 * procedures_.size() + 64) {
            std::erase_if(begun_in_clear_,
                          [this](SlotId id) { return procedures_.find(id) == nullptr; });
        }
        begun_in_clear_.push_back(procedure.id());
    }
    ctx_.metrics.set_pending(procedures_.size());
    procedure.start(arrival, request, facts, choice, nat_inner, reported);
}

Result<void> Registrar::store(const RegistrationProcedure& procedure, sa::SetId set, bool fresh_set,
                              const sip::Message& response) {
    const sa::SaSet* sa_set = ctx_.sets.find(set);
    if (sa_set == nullptr) return fail(ErrorKind::not_found, "the SA set is gone");
    const sa::UserId user = sa_set->user;
    const TimePoint now = ctx_.now();
    const bool leaving = procedure.requested_expires() == 0;
    const std::uint32_t seconds = leaving ? 0
                                          : std::min(granted_expires(response, procedure.contact(),
                                                                     procedure.requested_expires()),
                                                     longest_expires);

    // The identities this REGISTER brought along; the network's list, whose first is the default,
    // else the To alone.
    std::vector<std::string> own =
        associated_uris(response, ctx_.sets.config().limits.max_impus_per_user);
    if (own.empty()) own.emplace_back(procedure.impu());

    std::vector<Binding> bindings;
    if (const auto* registration = registrations_.find(user)) {
        for (const Binding& b : registration->bindings) {
            if (b.aor == procedure.impu() || b.expires <= now) continue;
            std::vector<std::string_view> texts;
            for (std::size_t i = 0; i < b.impus.size(); ++i) texts.push_back(b.impus[i]);
            // With this identity all those go that the network registered with it.
            const bool same_set = std::ranges::any_of(own, [&](const std::string& o) {
                return std::ranges::find(texts, std::string_view(o)) != texts.end();
            });
            if (leaving && same_set) continue;
            auto packed = sa::PackedStrings::pack(texts);
            if (!packed) return std::unexpected(packed.error());
            bindings.push_back(Binding{b.aor, std::move(*packed), b.expires, b.granted});
        }
    }
    if (seconds > 0) {
        const std::vector<std::string_view> texts(own.begin(), own.end());
        auto packed = sa::PackedStrings::pack(texts);
        if (!packed) return std::unexpected(packed.error());
        const TimePoint until = now + std::chrono::seconds(seconds);
        bindings.insert(bindings.begin(),
                        Binding{std::string(procedure.impu()), std::move(*packed), until, until});
    }

    Known now_known = known_by(bindings);
    // Who leaves keeps a name until its SAs are gone.
    if (now_known.impus.empty()) now_known.impus.emplace_back(own.front());

    const std::string service_route = joined_values(response, HeaderId::service_route);
    for (const sip::Value& value : response.values(HeaderId::service_route)) {
        const auto hop = sip::parse_name_addr(value.text);
        if (!hop) continue;
        if (const auto address = IpAddress::parse(hop->uri.host)) {
            ctx_.trust(*address);
        } else if (!ctx_.is_our_core_host(hop->uri)) {
            ctx_.learn(hop->uri);
        }
    }
    const std::string associated = joined_values(response, HeaderId::p_associated_uri);
    std::string contact(procedure.contact());
    const sa::User* known = ctx_.sets.find_user(user);
    if (contact.empty() && known != nullptr) contact = known->contact();
    now_known.service_route = service_route;
    now_known.associated = associated;
    now_known.contact = contact;
    const auto done = tell_sets(set, fresh_set, now_known);
    if (!done) return done;

    const bool gone = bindings.empty();
    Registration& registration = registrations_.get(user);
    const bool expires_now = std::ranges::any_of(
        registration.bindings, [now](const Binding& b) { return b.expires <= now; });
    // Most often the same as before. The network may also name fewer of one set than it did.
    const bool as_before =
        std::ranges::equal(bindings, registration.bindings, [](const Binding& a, const Binding& b) {
            if (a.impus.size() != b.impus.size()) return false;
            for (std::size_t i = 0; i < a.impus.size(); ++i) {
                if (a.impus[i] != b.impus[i]) return false;
            }
            return true;
        });
    std::vector<std::string> lost;
    if (!gone && !as_before) lost = without(identities_of(registration.bindings), bindings);
    registration.bindings = std::move(bindings);
    if (sessions_ != nullptr && !lost.empty()) {
        const Reason why = leaving       ? Reason::deregistered_by_ue
                           : expires_now ? Reason::expired
                                         : Reason::deregistered_by_network;
        sessions_->release_identities(user, lost, why);
    }
    registration.trace_user = procedure.trace_user_;
    registration.transport = procedure.transport();
    if (registration.since == TimePoint{}) registration.since = now;
    if (fresh_set) registration.remember(set, procedure.nonce_hash());
    const sa::SaSet* const kept = ctx_.sets.find(set);
    const bool nat = kept != nullptr && kept->nat;
    // What comes in clear from a phone behind a NAT comes from the NAT, whatever the set's label.
    const bool by_own_label = nat && !kept->nat->outer.address.is_unspecified();
    moved(registration, by_own_label ? kept->nat->outer.address : procedure.ue().address, nat);
    if (kept != nullptr)
        registrations_.place(registration, {kept->ue, kept->numbers.port_us}, by_own_label);
    const bool left_before = registration.ended_by != Reason::ok;
    if (!gone) registration.ended_by = Reason::ok;
    if (gone && !left_before) {
        registration.ended_by = Reason::deregistered_by_ue;
        // D4: the 200 still has to leave under them.
        if (subscriber_ != nullptr)
            subscriber_->stop(std::exchange(registration.subscription, 0), true);
        ctx_.note_event(registration.trace_user, Step::registration_ended, set, 0,
                        registration.ended_by);
        (void)ctx_.sets.deregister(user, true);
        if (sessions_ != nullptr) sessions_->release(user, registration.ended_by);
    } else if (!gone && subscriber_ != nullptr) {
        if (registration.subscription == 0) {
            registration.subscription = subscriber_->start(user);
        } else {
            subscriber_->renewed(registration.subscription, shortened_to(registration));
        }
    }
    ctx_.metrics.set_registered(registrations_.size());
    return {};
}

Registrar::Known Registrar::known_by(std::span<const Binding> bindings) const {
    Known known;
    for (const Binding& b : bindings) {
        known.granted = std::max(known.granted, b.expires - ctx_.now());
        for (std::size_t i = 0; i < b.impus.size(); ++i) {
            if (known.impus.size() < ctx_.sets.config().limits.max_impus_per_user &&
                std::ranges::find(known.impus, b.impus[i]) == known.impus.end()) {
                known.impus.push_back(b.impus[i]);
            }
        }
    }
    return known;
}

Result<void> Registrar::tell_sets(sa::SetId set, bool fresh_set, const Known& known) {
    sa::EstablishRequest request;
    request.granted = known.granted;
    request.impus = known.impus;
    request.service_route = known.service_route;
    request.p_associated_uri = known.associated;
    request.contact = known.contact;
    return fresh_set ? ctx_.sets.establish(set, request) : ctx_.sets.refresh(set, request);
}

bool Registrar::deregister(std::string_view impi) {
    const sa::User* user = ctx_.sets.find_by_impi(impi);
    Registration* registration = user == nullptr ? nullptr : registrations_.find(user->id);
    if (registration == nullptr || registration->bindings.empty()) return false;
    end(*user, *registration, Reason::deregistered_by_network, false);
    return true;
}

void Registrar::end(const sa::User& user, Registration& registration, Reason why, bool core_knows) {
    registration.bindings.clear();
    registration.ended_by = why;
    if (subscriber_ != nullptr)
        subscriber_->stop(std::exchange(registration.subscription, 0), core_knows);
    const sa::SaSet* set = ctx_.sets.outbound(user);
    ctx_.note_event(registration.trace_user, Step::registration_ended, set == nullptr ? 0 : set->id,
                    0, why);
    const sa::UserId id = user.id;
    (void)ctx_.sets.deregister(id, true);
    if (sessions_ != nullptr) sessions_->release(id, why);
    ctx_.metrics.set_registered(registrations_.size());
}

bool Registrar::awaits_core(const sa::User& user) const {
    using State = RegistrationProcedure::State;
    if (const auto begun = pending_by_user_.find(user.id); begun != pending_by_user_.end()) {
        for (const SlotId id : begun->second.procedures) {
            const auto* procedure = procedures_.find(id);
            if (procedure != nullptr && (procedure->state() == State::awaiting_challenge ||
                                         procedure->state() == State::awaiting_answer))
                return true;
        }
    }
    // One begun in clear has shown its keys with SM7.
    const sa::SaSet* set = ctx_.sets.registration_set(user);
    const auto* procedure = set == nullptr ? nullptr : procedures_.find(set->tag);
    return procedure != nullptr && procedure->set() == set->id &&
           procedure->state() == State::awaiting_answer;
}

std::optional<Duration> Registrar::shortened_to(const Registration& registration) const {
    std::optional<Duration> first;
    for (const Binding& b : registration.bindings) {
        if (!b.is_shortened()) continue;
        const Duration left = b.expires - ctx_.now();
        first = first ? std::min(*first, left) : left;
    }
    return first;
}

std::optional<Duration> Registrar::obey(sa::UserId id, const sip::RegInfo& info, bool ended) {
    const sa::User* user = ctx_.sets.find_user(id);
    Registration* registration = user == nullptr ? nullptr : registrations_.find(id);
    if (registration == nullptr || registration->bindings.empty()) return std::nullopt;
    const std::string contact(user->contact());
    const auto ours = sip::parse_uri(contact);
    // What the document says of an identity of this user.
    struct Said {
        std::string identity;
        bool gone = false;
        std::optional<sip::ContactEvent> why{};  // our contact is no more
        bool lives = false;                      // though perhaps by other contacts
        bool active = false;                     // our contact is
        std::optional<Duration> shortened;       // to this
    };
    std::vector<Said> said;
    for (const sip::RegEntry& entry : info.entries) {
        const auto aor = sip::parse_uri(entry.aor);
        auto identity = aor ? normalised_identity(*aor) : std::nullopt;
        if (!identity || !user->has_impu(*identity)) continue;
        Said& s = said.emplace_back();
        s.identity = std::move(*identity);
        // Other phones may have registered the same identity; only our contact matters.
        bool over = false;
        for (const sip::RegContact& c : entry.contacts) {
            const auto uri = sip::parse_uri(c.uri);
            if (!ours || !uri || !sip::same_identity(*ours, *uri)) continue;
            (c.active ? s.active : over) = true;
            if (!c.active) s.why = c.event;
            if (c.active && c.event == sip::ContactEvent::shortened && c.expires)
                s.shortened = std::chrono::seconds(*c.expires);
        }
        s.gone = entry.state == sip::RegState::terminated || (over && !s.active);
        s.lives = !s.gone && entry.state == sip::RegState::active;
    }
    const bool some_gone = std::ranges::any_of(said, &Said::gone);
    // Not all that ends is the network's doing: its clock may run a little ahead of ours, and its
    // NOTIFY may overtake what the phone is told.
    const auto all_by = [&](sip::ContactEvent event) {
        return std::ranges::all_of(said, [&](const Said& x) { return !x.gone || x.why == event; });
    };
    const Reason why = all_by(sip::ContactEvent::expired)        ? Reason::expired
                       : all_by(sip::ContactEvent::unregistered) ? Reason::deregistered_by_ue
                                                                 : Reason::deregistered_by_network;
    if (some_gone && awaits_core(*user)) {
        registration->unheard = true;
        return shortened_to(*registration);
    }
    if (some_gone && ended && std::ranges::all_of(said, &Said::gone)) {
        end(*user, *registration, why, true);
        return std::nullopt;
    }

    std::vector<Binding> kept;
    for (const Binding& b : registration->bindings) {
        std::vector<std::string_view> texts;
        bool lost = false;
        bool lives = false;
        bool full_time = false;
        std::optional<Duration> shortened;
        for (std::size_t i = 0; i < b.impus.size(); ++i) {
            const auto s = std::ranges::find(said, b.impus[i], &Said::identity);
            if (s != said.end() && s->gone) {
                lost = true;
                continue;
            }
            texts.push_back(b.impus[i]);
            if (s == said.end()) continue;
            lives = lives || s->lives;
            full_time = full_time || (s->active && !s->shortened);
            if (s->shortened)
                shortened = shortened ? std::min(*shortened, *s->shortened) : s->shortened;
        }
        // What the network registered together goes together, but for what it says is left.
        if (lost && !lives) continue;
        auto packed = sa::PackedStrings::pack(texts);
        if (!packed) continue;
        Binding& k = kept.emplace_back(Binding{b.aor, std::move(*packed), b.expires, b.granted});
        if (shortened) {
            k.expires = std::min(b.expires, ctx_.now() + *shortened);
        } else if (full_time) {
            k.expires = b.granted;
        }
    }
    if (some_gone) {
        keep_only(*user, *registration, std::move(kept), why, true);
    } else {
        registration->bindings = std::move(kept);
    }
    return shortened_to(*registration);
}

std::vector<std::string> Registrar::identities_of(std::span<const Binding> bindings) {
    std::vector<std::string> all;
    for (const Binding& b : bindings) {
        for (std::size_t i = 0; i < b.impus.size(); ++i) all.emplace_back(b.impus[i]);
    }
    return all;
}

std::vector<std::string> Registrar::without(std::vector<std::string> identities,
                                            std::span<const Binding> bindings) {
    const auto kept = identities_of(bindings);
    std::erase_if(identities,
                  [&](const std::string& i) { return std::ranges::find(kept, i) != kept.end(); });
    return identities;
}

void Registrar::keep_only(const sa::User& user, Registration& registration,
                          std::vector<Binding> kept, Reason why, bool core_knows) {
    if (kept.empty()) return end(user, registration, why, core_knows);
    const auto gone = without(identities_of(registration.bindings), kept);
    registration.bindings = std::move(kept);
    if (sessions_ != nullptr && !gone.empty()) sessions_->release_identities(user.id, gone, why);
    const sa::SaSet* set = ctx_.sets.outbound(user);
    if (set == nullptr) return;
    // Copies: the database writes where these lie.
    const std::string service_route(user.service_route());
    const std::string associated(user.p_associated_uri());
    const std::string contact(user.contact());
    Known known = known_by(registration.bindings);
    known.service_route = service_route;
    known.associated = associated;
    known.contact = contact;
    (void)tell_sets(set->id, false, known);
}

std::optional<Duration> Registrar::overdue(sa::UserId id) {
    const sa::User* user = ctx_.sets.find_user(id);
    Registration* registration = user == nullptr ? nullptr : registrations_.find(id);
    if (registration == nullptr || registration->bindings.empty()) return std::nullopt;
    const TimePoint latest = ctx_.now() - ctx_.sets.config().timers.lifetime_grace;
    std::vector<Binding> kept;
    for (Binding& b : registration->bindings) {
        if (b.expires > latest) kept.push_back(std::move(b));
    }
    if (kept.size() == registration->bindings.size()) {
        registration->bindings = std::move(kept);
    } else {
        keep_only(*user, *registration, std::move(kept), Reason::expired, false);
    }
    return shortened_to(*registration);
}

Reason Registrar::left_by(sa::UserId user) const {
    const Registration* registration = registrations_.find(user);
    return registration == nullptr ? Reason::ok : registration->ended_by;
}

void Registrar::shut_down() {
    subscriber_ = nullptr;
    for (std::size_t i = 0; i < procedures_.slots(); ++i) {
        if (auto* procedure = procedures_.at(i)) procedure->shut_down();
    }
}

void Registrar::finish(SlotId id) {
    const auto* procedure = procedures_.find(id);
    if (procedure == nullptr) return;
    if (procedure->counted_source_) {
        if (const auto counted =
                pending_by_source_.find(admission_.source_of(procedure->ue_.address));
            counted != pending_by_source_.end()) {
            std::erase(counted->second, id);
            if (counted->second.empty()) pending_by_source_.erase(counted);
        }
    }
    if (const auto counted = pending_by_user_.find(procedure->counted_user_);
        counted != pending_by_user_.end()) {
        std::erase(counted->second.procedures, id);
        if (counted->second.procedures.empty()) pending_by_user_.erase(counted);
    }
    const sa::UserId of = procedure->user_ != 0 ? procedure->user_ : procedure->counted_user_;
    procedures_.erase(id);
    ctx_.metrics.set_pending(procedures_.size());
    Registration* registration = registrations_.find(of);
    if (registration == nullptr || !std::exchange(registration->unheard, false)) return;
    if (subscriber_ != nullptr) subscriber_->ask(registration->subscription);
}

void Registrar::on_response(sip::ClientTransactionId /*id*/, std::uint64_t context,
                            const sip::Flow& /*flow*/, const sip::Message& response,
                            std::span<char> bytes) {
    if (auto* procedure = procedures_.find(context)) return procedure->on_response(response, bytes);
    wipe_keys(response, bytes);
}

bool Registrar::may_move(std::uint64_t context) const {
    const auto* procedure = procedures_.find(context);
    return procedure == nullptr || procedure->may_move();
}

void Registrar::on_moved(sip::ClientTransactionId /*id*/, std::uint64_t context,
                         const sip::Flow& flow, std::string_view /*request*/) {
    if (auto* procedure = procedures_.find(context)) procedure->moved(flow.remote);
}

void Registrar::on_failure(sip::ClientTransactionId /*id*/, std::uint64_t context,
                           sip::ClientFailure failure) {
    if (auto* procedure = procedures_.find(context)) procedure->on_core_failure(failure);
}

void Registrar::on_set_state(const sa::SaSet& /*set*/, sa::State /*from*/) {}

void Registrar::on_set_removed(const sa::SaSet& set, const sa::User& user, sa::Event reason) {
    // Connections are bound to the SAs that carry them (A2).
    const sa::SaNumbers& n = set.numbers;
    ctx_.gm.transport->cut({set.ours, n.port_ps}, {set.ue, n.port_uc});
    ctx_.gm.transport->cut({set.ours, n.port_pc}, {set.ue, n.port_us});
    const std::uint64_t trace_user = ctx_.trace.user_of(user.impi());
    auto* procedure = procedures_.find(set.tag);
    ctx_.note_event(trace_user, Step::set_removed, set.id, set.numbers.spi_ps,
                    reason == sa::Event::address_changed ? Reason::address_changed : Reason::ok,
                    procedure == nullptr ? 0 : procedure->attempt());
    Registration* registration = registrations_.find(user.id);
    if (procedure != nullptr && procedure->set() == set.id) {
        // The user left while it re-authenticated: by whose doing, the set does not know.
        const bool left = registration != nullptr && registration->ended_by != Reason::ok;
        procedure->on_set_removed(left ? registration->ended_by : reason_of(reason));
        registration = registrations_.find(user.id);
    }
    if (registration == nullptr) return;
    const bool lives = std::ranges::any_of(user.sets, [&](sa::SetId id) {
        const sa::SaSet* other = id == set.id ? nullptr : ctx_.sets.find(id);
        return other != nullptr &&
               (other->state == sa::State::established || other->state == sa::State::draining);
    });
    if (lives) return;
    if (!registration->bindings.empty()) {
        ctx_.note_event(trace_user, Step::registration_ended, set.id, 0, reason_of(reason));
    }
    moved(*registration, {});
    if (sessions_ != nullptr) sessions_->release(user.id, reason_of(reason));
    // A life time is that of the core's grant and some more: it has forgotten the user already.
    if (subscriber_ != nullptr) {
        subscriber_->stop(registration->subscription, reason == sa::Event::lifetime_expired);
    }
    registrations_.erase(user.id);
    ctx_.metrics.set_registered(registrations_.size());
}

void Registrar::on_backend_event(const sa::SaSet& set, const sa::BackendEvent& event) {
    if (event.kind == sa::BackendEventKind::first_authentic_packet) return;
    const sa::User* user = ctx_.sets.find_user(set.user);
    if (user == nullptr) return;
    const bool integrity = event.kind == sa::BackendEventKind::integrity_failure;
    const Reason reason = integrity ? Reason::integrity_failure : Reason::sequence_near_end;
    // The packet layer counts them; here they are told, so that a ladder shows why it stopped (C1).
    auto* procedure = procedures_.find(set.tag);
    ctx_.note_event(ctx_.trace.user_of(user->impi()), Step::packet_dropped, set.id, event.spi,
                    reason, procedure == nullptr ? 0 : procedure->attempt());
    if (integrity && procedure != nullptr && procedure->set() == set.id)
        procedure->integrity_failed();
}

}  // namespace gmgate::registration
