#include "home/reg_event.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "control/sip/values.h"
#include "home/identity.h"
#include "home/next_hop.h"
#include "home/register_request.h"
#include "home/routing.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

constexpr std::string_view area = "reg-event";
constexpr std::string_view registration_over = "terminated;reason=noresource";

bool same_host(const sip::Uri& a, const sip::Uri& b) {
    const auto port = [](const sip::Uri& u) { return u.port != 0 ? u.port : std::uint16_t{5060}; };
    return iequals(a.host, b.host) && port(a) == port(b);
}

}  // namespace

RegEvent::RegEvent(RegEventConfig config, Registrar& registrar, std::span<const Endpoint> listen,
                   TimerWheel& timers, Random& random)
    : config_(config),
      registrar_(registrar),
      listen_(listen),
      timers_(timers),
      random_(random),
      id_hash_(random),
      by_user_(16, SeededStringHash{SeededHash(random)}),
      announced_(16, SeededStringHash{SeededHash(random)}) {}

RegEvent::~RegEvent() {}

std::string_view RegEvent::tag_of(std::uint64_t id) {
    tag_ = fmt::format("{:016x}", id);
    return tag_;
}

std::string RegEvent::contact() const {
    return fmt::format("<sip:{}>", listen_.front().to_string());
}

void RegEvent::refuse(sip::ServerTransactionId id, const Endpoint& source,
                      const sip::Message& request, int status,
                      std::initializer_list<sip::HeaderField> headers) {
    ++counters_.refused;
    const auto tag = random_.token(6);
    sip::ResponseOptions options;
    options.to_tag = tag;
    options.source = source;
    options.headers = {headers.begin(), headers.size()};
    log::debug(area, "SUBSCRIBE {}: {}", request.request_uri(), status);
    if (!sip::build_response(request, status, options, buffer_)) return transactions_->forget(id);
    transactions_->respond(id, status, buffer_);
}

RegEvent::Subscription* RegEvent::find_dialog(const sip::Message& request, std::string_view tag) {
    std::uint64_t id = 0;
    const auto [end, error] = std::from_chars(tag.data(), tag.data() + tag.size(), id, 16);
    if (error != std::errc{} || end != tag.data() + tag.size()) return nullptr;
    const auto found = by_id_.find(id);
    if (found == by_id_.end() || found->second.is_over()) return nullptr;
    return found->second.call_id == sip::call_id(request) ? &found->second : nullptr;
}

std::optional<bool> RegEvent::is_ue(const sip::Message& request, std::string_view impi) {
    const auto value = request.first_value(HeaderId::p_asserted_identity);
    const auto who = value ? sip::parse_name_addr(*value) : std::nullopt;
    if (!who) return std::nullopt;
    // Each set may have come by another P-CSCF.
    bool is_pcscf = false, came_by = false;
    const auto recorded = request.first_value(HeaderId::record_route);
    const auto last_hop = recorded ? sip::parse_name_addr(*recorded) : std::nullopt;
    registrar_.find_sets(impi, [&](const Binding& b) {
        sip::ValueSplitter paths(b.path);
        while (const auto path = paths.next()) {
            const auto hop = sip::parse_name_addr(*path);
            if (!hop) continue;
            // TS 24.229 5.4.2.1.1: the URI the P-CSCF put into Path is its name.
            is_pcscf = is_pcscf || (who->uri.user.empty() && same_host(hop->uri, who->uri));
            came_by = came_by || (last_hop && hop->uri.user == last_hop->uri.user &&
                                  same_host(hop->uri, last_hop->uri));
        }
    });
    if (is_pcscf) return false;
    bool own = false, shared = false;
    registrar_.find_all(who->uri.text,
                        [&](const Binding& b) { (b.impi == impi ? own : shared) = true; });
    // Any of those that share an identity may have asserted it: the P-CSCF's entry tells them
    // apart, what the phone writes does not.
    return own && (!shared || came_by) ? std::optional(true) : std::nullopt;
}

void RegEvent::drop_forgotten(std::string_view impi, const Subscription& fresh) {
    const auto found = by_user_.find(impi);
    if (found == by_user_.end()) return;
    std::vector<std::uint64_t> gone;
    for (const std::uint64_t id : found->second) {
        const Subscription& s = by_id_.at(id);
        if (s.target == fresh.target && s.event == fresh.event && s.is_ue == fresh.is_ue)
            gone.push_back(id);
    }
    for (const std::uint64_t id : gone) remove(id);
}

void RegEvent::on_subscribe(sip::ServerTransactionId id, const Endpoint& source,
                            const sip::Message& request) {
    const auto event = request.value(HeaderId::event);
    const auto profile = event ? sip::reg_profile(*event) : std::nullopt;
    if (!profile)
        return refuse(id, source, request, 489, {{"Allow-Events", "reg, registration-state"}});
    const auto to = sip::to(request);
    const auto from = sip::from(request);
    const auto sequence = sip::cseq(request);
    const auto contact_value = request.first_value(HeaderId::contact);
    std::string target;
    if (contact_value) {
        const auto parsed = sip::parse_contact(*contact_value);
        if (parsed && !parsed->star) target = parsed->address.uri.text;
    }
    if (!to || !from || from->tag().empty() || !sequence || target.empty())
        return refuse(id, source, request, 400);
    std::uint32_t expires = request.has(HeaderId::expires)
                                ? sip::expires(request).value_or(
                                      static_cast<std::uint32_t>(config_.default_expires.count()))
                                : static_cast<std::uint32_t>(config_.default_expires.count());
    if (expires != 0 && expires < config_.min_expires.count()) {
        return refuse(id, source, request, 423,
                      {{"Min-Expires", std::to_string(config_.min_expires.count())}});
    }
    expires = std::min(expires, static_cast<std::uint32_t>(config_.max_expires.count()));

    Subscription* s = nullptr;
    if (!to->tag().empty()) {
        s = find_dialog(request, to->tag());
        if (s == nullptr) return refuse(id, source, request, 481);
        // Who knows the names of the dialog may be somebody it was told to.
        if (is_ue(request, s->impi) != std::optional(s->is_ue))
            return refuse(id, source, request, 403);
        if (sequence->number <= s->remote_cseq) return refuse(id, source, request, 500);
    } else {
        const auto who = registrar_.find_sender(request.request_uri(), target);
        if (!who) return refuse(id, source, request, 404);
        const std::string& impi = who->impi;
        const auto ue = is_ue(request, impi);
        if (!ue) return refuse(id, source, request, 403);
        Subscription fresh(*this, 0);
        fresh.target = target;
        fresh.event = unfold(*event);
        fresh.is_ue = *ue;
        drop_forgotten(impi, fresh);
        const auto held = by_user_.find(impi);
        if (by_id_.size() >= config_.max_subscriptions ||
            (held != by_user_.end() && held->second.size() >= config_.max_per_user))
            return refuse(id, source, request, 503, {{"Retry-After", "600"}});
        std::uint64_t number = random_.u64();
        while (number == 0 || by_id_.contains(number)) number = random_.u64();
        s = &by_id_.try_emplace(number, *this, number).first->second;
        by_user_[impi].push_back(number);
        s->impi = impi;
        s->profile = *profile;
        s->is_ue = *ue;
        s->event = fresh.event;
        s->call_id = sip::call_id(request);
        s->local = fmt::format("<{}>", to->uri.text);
        s->remote = unfold(*request.value(HeaderId::from));
        s->route = joined(request, HeaderId::record_route);
    }
    s->remote_cseq = sequence->number;
    s->target = std::move(target);
    ++counters_.subscribes;

    sip::ResponseOptions options;
    options.to_tag = tag_of(s->id);
    options.source = source;
    options.copy_record_route = true;
    const std::string seconds = std::to_string(expires);
    const std::string ours = contact();
    const std::array headers = {sip::HeaderField{"Expires", seconds},
                                sip::HeaderField{"Contact", ours}};
    options.headers = headers;
    if (sip::build_response(request, 200, options, buffer_)) {
        transactions_->respond(id, 200, buffer_);
    } else {
        transactions_->forget(id);
    }
    timers_.start(s->expiry, std::chrono::seconds(expires));
    // RFC 6665 4.2.1.2: at once, the whole state; also as the last one.
    auto info = current(s->impi);
    if (!info) info.emplace();
    notify(*s, *info, expires == 0 ? "terminated;reason=timeout" : std::string_view{});
}

// ---- what is told ----

// `contact`: as all of the set have it, without an id.
void RegEvent::add_set(sip::RegInfo& info, std::string_view impi,
                       const std::vector<std::string>& impus,
                       const sip::RegContact& contact) const {
    const auto named = announced_.find(impi);
    const auto is_named = [&](const std::string& impu) {
        return named != announced_.end() &&
               std::ranges::find(named->second.identities, impu) != named->second.identities.end();
    };
    std::string covering;
    if (named != announced_.end()) {
        for (const auto& impu : named->second.identities) {
            if (covering.empty() && std::ranges::find(impus, impu) != impus.end()) covering = impu;
        }
    }
    for (const auto& impu : impus) {
        sip::RegEntry e;
        e.aor = impu;
        // The same in each document (RFC 3680 5.2), whatever else stands there.
        e.id = fmt::format("r{:x}", id_hash_(impu));
        e.state = contact.active ? sip::RegState::active : sip::RegState::terminated;
        e.contacts.push_back(contact);
        e.contacts.back().id = fmt::format("c{:x}", id_hash_(impu));
        if (contact.event == sip::ContactEvent::shortened) {
            e.reauthenticate = true;
            if (!is_named(impu)) e.covered_by = covering;
        }
        info.entries.push_back(std::move(e));
    }
}

sip::RegInfo RegEvent::document(std::string_view impi, const RegistrationChange* change) const {
    sip::RegInfo info;
    if (change != nullptr) {
        sip::RegContact c;
        c.uri = change->contact;
        c.active = !change->over();
        c.event = change->event;
        if (c.active) c.expires = change->expires;
        add_set(info, impi, change->impus, c);
        if (change->removed != nullptr) {
            c.active = false;
            c.event = sip::ContactEvent::deactivated;
            c.expires.reset();
            add_set(info, impi, *change->removed, c);
        }
    }
    registrar_.find_sets(impi, [&](const Binding& b) {
        const bool told = std::ranges::any_of(
            info.entries, [&](const sip::RegEntry& e) { return e.aor == b.default_impu; });
        if (told) return;
        const auto left = std::chrono::ceil<std::chrono::seconds>(b.expires - timers_.now());
        sip::RegContact c;
        c.uri = b.contact;
        c.event = b.shortened ? sip::ContactEvent::shortened : sip::ContactEvent::registered;
        c.expires = static_cast<std::uint32_t>(std::max<std::int64_t>(left.count(), 0));
        add_set(info, impi, *b.impus, c);
    });
    return info;
}

std::optional<sip::RegInfo> RegEvent::current(std::string_view impi) {
    if (registrar_.find_user(impi) == nullptr) return std::nullopt;
    return document(impi, nullptr);
}

void RegEvent::announce(std::string_view impi, std::uint64_t round,
                        std::vector<std::string> identities) {
    Announced& announced = announced_[std::string(impi)];
    announced.round = round;
    for (auto& impu : identities) {
        if (std::ranges::find(announced.identities, impu) == announced.identities.end())
            announced.identities.push_back(std::move(impu));
    }
}

bool RegEvent::ue_subscribed(std::string_view impi) const {
    const auto found = by_user_.find(impi);
    return found != by_user_.end() && std::ranges::any_of(found->second, [&](std::uint64_t id) {
               const Subscription& s = by_id_.at(id);
               return s.is_ue && !s.is_over();
           });
}

void RegEvent::on_registration(const RegistrationChange& change) {
    if (change.authenticated || change.over()) {
        if (const auto named = announced_.find(change.impi); named != announced_.end()) {
            std::erase_if(named->second.identities, [&](const std::string& impu) {
                return std::ranges::find(change.impus, impu) != change.impus.end();
            });
            if (change.user_gone || named->second.identities.empty()) announced_.erase(named);
        }
    }
    const auto found = by_user_.find(change.impi);
    if (found == by_user_.end()) return;
    const sip::RegInfo info = document(change.impi, &change);
    // A NOTIFY that cannot be sent ends its subscription: no iterators across it.
    const std::vector<std::uint64_t> all = found->second;
    // The phone first: what the P-CSCF hears may cost the phone its SAs (F4).
    for (const bool ue : {true, false}) {
        for (const std::uint64_t id : all) {
            const auto s = by_id_.find(id);
            if (s == by_id_.end() || s->second.is_over() || s->second.is_ue != ue) continue;
            notify(s->second, info, change.user_gone ? registration_over : std::string_view{});
        }
    }
}

bool RegEvent::Subscription::is_over() const {
    return ending || (queued && queued_state == registration_over);
}

std::uint64_t RegEvent::round_of(std::string_view impi, const sip::RegInfo& info) const {
    const auto announced = announced_.find(impi);
    const bool asks = announced != announced_.end() &&
                      std::ranges::any_of(info.entries, &sip::RegEntry::reauthenticate);
    return asks ? announced->second.round : 0;
}

void RegEvent::notify(Subscription& s, const sip::RegInfo& info, std::string_view state) {
    if (s.outstanding) {
        // Told with its own document: a registration that came after it is another one.
        if (s.is_over()) return;
        sip::RegInfo next = info;
        // What has ended since and is in no document after that one: left out means unchanged.
        if (s.queued) {
            for (sip::RegEntry& old : s.queued->entries) {
                if (old.state == sip::RegState::terminated &&
                    std::ranges::find(next.entries, old.aor, &sip::RegEntry::aor) ==
                        next.entries.end())
                    next.entries.push_back(std::move(old));
            }
        }
        s.queued = std::move(next);
        // The end stays the end, whatever changes until it can be told.
        if (!state.empty()) s.queued_state = state;
        return;
    }
    s.round = round_of(s.impi, info);
    const bool last = !state.empty();
    const auto hop = next_hop(s.route, s.target, listen_);
    const auto branch = hop ? transactions_->new_branch() : sip::TransactionLayer::Branch{};
    if (!hop || branch.id == 0) {
        log::warn(area, "NOTIFY to {}: {}", s.target,
                  hop ? "too many transactions" : hop.error().text);
        ++counters_.failed;
        s.outstanding = true;  // answered() takes it back
        return answered(s.id, false);
    }
    const std::string left =
        std::to_string(std::chrono::ceil<std::chrono::seconds>(
                           s.expiry.active() ? s.expiry.deadline() - timers_.now() : Duration{})
                           .count());
    sip::RegInfo numbered = info;
    numbered.version = s.version++;
    const Routing way = along(s.route, s.target);
    const std::string uri = way.next_request_uri(), routes = way.next_routes();
    sip::RequestBuilder request("NOTIFY", uri);
    request.header("Via", via_for(*hop, branch.view())).header("Max-Forwards", "70");
    if (!routes.empty()) request.header("Route", routes);
    request.header("From", {s.local, ";tag=", tag_of(s.id)})
        .header("To", s.remote)
        .header("Call-ID", s.call_id)
        .header("CSeq", {std::to_string(++s.cseq), " NOTIFY"})
        .header("Contact", contact())
        .header("Event", s.event);
    if (last) {
        request.header("Subscription-State", state);
    } else {
        request.header("Subscription-State", {"active;expires=", left});
    }
    request.body(sip::content_type(s.profile), sip::write_reginfo(s.profile, numbered));
    const auto bytes = request.finish();
    s.outstanding = true;
    s.ending = last;
    if (last) s.expiry.stop();
    ++counters_.notifies;
    if (!bytes ||
        !transactions_->send_request(branch, sent_on(*hop), "NOTIFY", *bytes, *this, s.id)) {
        if (!bytes) transactions_->abandon(branch.id);
        ++counters_.failed;
        answered(s.id, false);
    }
}

void RegEvent::on_response(sip::ClientTransactionId, std::uint64_t context, const sip::Flow&,
                           const sip::Message& response, std::span<char>) {
    if (response.status_code() < 200) return;
    const bool positive = response.status_code() < 300;
    if (!positive) ++counters_.failed;
    answered(context, positive);
}

void RegEvent::on_failure(sip::ClientTransactionId, std::uint64_t context, sip::ClientFailure) {
    ++counters_.failed;
    answered(context, false);
}

// RFC 6665 4.2.2: a NOTIFY that is refused or not answered ends the subscription.
void RegEvent::answered(std::uint64_t context, bool positive) {
    const auto found = by_id_.find(context);
    if (found == by_id_.end()) return;
    Subscription& s = found->second;
    s.outstanding = false;
    std::uint64_t round = s.is_ue ? std::exchange(s.round, 0) : 0;
    const std::string impi = s.impi;
    // The dialog goes, and with it what waited to go out on it.
    if (!positive && s.is_ue && s.queued) round = std::max(round, round_of(impi, *s.queued));
    if (s.ending || !positive) {
        remove(context);
    } else if (s.queued) {
        const sip::RegInfo info = std::move(*s.queued);
        const std::string state = std::exchange(s.queued_state, {});
        s.queued.reset();
        notify(s, info, state);
    }
    if (round != 0 && ue_answer_) ue_answer_(impi, round, positive);
}

void RegEvent::expired(Subscription& s) {
    auto info = current(s.impi);
    if (!info) info.emplace();
    notify(s, *info, "terminated;reason=timeout");
}

void RegEvent::remove(std::uint64_t id) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    ++counters_.ended;
    if (const auto user = by_user_.find(found->second.impi); user != by_user_.end()) {
        std::erase(user->second, id);
        if (user->second.empty()) by_user_.erase(user);
    }
    by_id_.erase(found);
}

}  // namespace gmgate::home
