#include "home/sessions.h"

#include <fmt/format.h>

#include <algorithm>
#include <ranges>
#include <utility>

#include "base/log.h"
#include "control/sip/build.h"
#include "control/sip/values.h"
#include "home/next_hop.h"
#include "home/register_request.h"
#include "home/routing.h"

namespace gmgate::home {

using sip::HeaderId;

namespace {

constexpr std::string_view area = "sessions";

std::string key_of(std::string_view call_id, std::string_view caller, std::string_view callee) {
    return fmt::format("{}\n{}\n{}", call_id, caller, callee);
}

std::string contact_of(const sip::Message& message) {
    const auto value = message.first_value(HeaderId::contact);
    const auto contact = value ? sip::parse_contact(*value) : std::nullopt;
    return contact && !contact->star ? std::string(contact->address.uri.text) : std::string{};
}

std::string line_of(const sip::Message& message, HeaderId id) {
    return unfold(message.value(id).value_or(std::string_view{}));
}

// The way to the callee: what stands above our own entries in the Record-Route of the answer, the
// nearest first (RFC 3261 12.1.1, as the element in the middle sees it). nullopt: we are not in it.
std::optional<std::string> callee_route(const sip::Message& response, const Domain& domain) {
    std::string out;
    for (const sip::Value& v : response.values(HeaderId::record_route)) {
        const auto hop = sip::parse_name_addr(v.text);
        if (hop && domain.is_ours(hop->uri)) return out;
        std::string value = unfold(v.text);
        out = out.empty() ? std::move(value) : value + ", " + out;
    }
    return std::nullopt;
}

}  // namespace

Sessions::Sessions(SessionLimits limits, const Domain& domain, Random& random)
    : limits_(limits),
      domain_(domain),
      by_dialog_(16, SeededStringHash{SeededHash(random)}),
      by_user_(16, SeededStringHash{SeededHash(random)}) {}

Sessions::~Sessions() = default;

std::size_t Sessions::of(std::string_view impi) const {
    const auto found = by_user_.find(impi);
    return found == by_user_.end() ? 0 : found->second.size();
}

// ---- what goes by ----

Sessions::Session* Sessions::find(const sip::Message& request, bool& from_caller) {
    const auto from = sip::from(request);
    const auto to = sip::to(request);
    if (!from || !to || to->tag().empty() || from->tag().empty()) return nullptr;
    const std::string_view call_id = sip::call_id(request);
    from_caller = true;
    auto found = by_dialog_.find(key_of(call_id, from->tag(), to->tag()));
    if (found == by_dialog_.end()) {
        from_caller = false;
        found = by_dialog_.find(key_of(call_id, to->tag(), from->tag()));
    }
    return found == by_dialog_.end() ? nullptr : sessions_.find(found->second);
}

void Sessions::belongs_to(const std::string& impi, SlotId id) {
    if (impi.empty()) return;
    if (of(impi) >= limits_.per_user) forget_oldest(impi);
    by_user_[impi].push_back(id);
}

void Sessions::forget_oldest(std::string_view impi) {
    const auto found = by_user_.find(impi);
    if (found == by_user_.end()) return;
    Session* oldest = sessions_.find(found->second.front());
    if (oldest == nullptr) return;
    ++counters_.forgotten;
    erase(*oldest);
}

SlotId Sessions::answered(const sip::Message& invite, const sip::Message& response,
                          const Party& caller, const Party& callee) {
    const auto from = sip::from(invite);
    const auto to = sip::to(response);
    const auto number = sip::cseq(invite);
    if (!from || !to || !number || from->tag().empty() || to->tag().empty()) return 0;
    const std::string_view call_id = sip::call_id(invite);
    const bool confirmed = response.status_code() >= 200;
    std::string key = key_of(call_id, from->tag(), to->tag());
    const auto known = by_dialog_.find(key);
    Session* s = known == by_dialog_.end() ? nullptr : sessions_.find(known->second);
    if (s == nullptr) {
        if (sessions_.size() >= limits_.total) {
            ++counters_.unknown;
            return 0;
        }
        s = &sessions_.emplace();
        s->key = std::move(key);
        s->call_id = call_id;
        s->caller.impi = caller.impi;
        s->caller.impu = caller.impu;
        s->caller.name = line_of(invite, HeaderId::from);
        s->caller.route = joined(invite, HeaderId::record_route);
        s->caller.target = contact_of(invite);
        if (s->caller.target.empty()) s->caller.target = caller.contact;
        if (s->caller.route.empty()) s->caller.route = caller.path;
        s->caller.cseq = number->number;
        s->callee.impi = callee.impi;
        s->callee.impu = callee.impu;
        s->callee.target = callee.contact;
        s->callee.route = callee.path;
        by_dialog_[s->key] = s->id;
        const SlotId id = s->id;
        belongs_to(s->caller.impi, id);
        if (caller.impi != callee.impi) belongs_to(callee.impi, id);
    }
    if (s->confirmed) return s->id;  // its repetition
    s->callee.name = line_of(response, HeaderId::to);
    if (auto target = contact_of(response); !target.empty()) s->callee.target = std::move(target);
    if (auto route = callee_route(response, domain_)) s->callee.route = std::move(*route);
    if (confirmed) {
        s->confirmed = true;
        ++counters_.begun;
    }
    return s->id;
}

void Sessions::drop(SlotId early) {
    Session* s = sessions_.find(early);
    if (s != nullptr && !s->confirmed) erase(*s);
}

void Sessions::passes(const sip::Message& request) {
    bool from_caller = false;
    Session* s = find(request, from_caller);
    const auto number = sip::cseq(request);
    if (s == nullptr || !number) return;
    Side& sender = from_caller ? s->caller : s->callee;
    sender.cseq = std::max(sender.cseq, number->number);
}

void Sessions::answered(const sip::Message& request, const sip::Message& response) {
    if (response.status_code() < 200) return;
    if (request.is_method("BYE")) {
        // Refused in another way it changed nothing: the same BYE may come again, with credentials.
        const int status = response.status_code();
        if (status < 300 || status == 481 || status == 408) unanswered(request);
        return;
    }
    if (response.status_code() >= 300) return;
    // Target refresh requests (RFC 3261 12.2, RFC 3311).
    if (!request.is_method("INVITE") && !request.is_method("UPDATE")) return;
    bool from_caller = false;
    Session* s = find(request, from_caller);
    if (s == nullptr) return;
    Side& asking = from_caller ? s->caller : s->callee;
    Side& asked = from_caller ? s->callee : s->caller;
    if (auto target = contact_of(request); !target.empty()) asking.target = std::move(target);
    if (auto target = contact_of(response); !target.empty()) asked.target = std::move(target);
}

void Sessions::unanswered(const sip::Message& request) {
    bool from_caller = false;
    Session* s = request.is_method("BYE") ? find(request, from_caller) : nullptr;
    if (s == nullptr || s->released) return;
    ++counters_.ended;
    erase(*s);
}

// ---- the end ----

void Sessions::erase(Session& session) {
    by_dialog_.erase(session.key);
    for (const std::string* impi : {&session.caller.impi, &session.callee.impi}) {
        const auto user = by_user_.find(*impi);
        if (user == by_user_.end()) continue;
        std::erase(user->second, session.id);
        if (user->second.empty()) by_user_.erase(user);
    }
    sessions_.erase(session.id);
}

void Sessions::release(std::string_view impi, std::span<const std::string> impus,
                       std::string_view reason) {
    const auto found = by_user_.find(impi);
    if (found == by_user_.end()) return;
    const std::vector<SlotId> all = found->second;
    for (const SlotId id : all) {
        Session* s = sessions_.find(id);
        if (s == nullptr || !s->confirmed || s->released) continue;
        const auto goes_too = [&](const Side& side) {
            return side.impi == impi && std::ranges::find(impus, side.impu) != impus.end();
        };
        if (!goes_too(s->caller) && !goes_too(s->callee)) continue;
        ++counters_.released;
        s->released = true;
        s->byes = 2;
        log::debug(area, "{}: session {} is released: {}", impi, s->call_id, reason);
        // The user who goes hears it first: its way may be closed soon.
        const bool caller = goes_too(s->caller);
        Side& goes = caller ? s->caller : s->callee;
        Side& stays = caller ? s->callee : s->caller;
        bye(*s, stays, goes, reason);
        bye(*s, goes, stays, reason);
        if (s->byes == 0) erase(*s);
    }
}

void Sessions::bye(Session& session, Side& from, const Side& to, std::string_view reason) {
    const auto hop = next_hop(to.route, to.target, domain_.listen());
    const auto branch = hop ? transactions_->new_branch() : sip::TransactionLayer::Branch{};
    if (!hop || branch.id == 0) {
        log::warn(area, "BYE to {}: {}", to.target,
                  hop ? "too many transactions" : hop.error().text);
        --session.byes;
        return;
    }
    const Routing way = along(to.route, to.target);
    const std::string uri = way.next_request_uri(), routes = way.next_routes();
    sip::RequestBuilder request("BYE", uri);
    request.header("Via", via_for(*hop, branch.view())).header("Max-Forwards", "70");
    if (!routes.empty()) request.header("Route", routes);
    request.header("From", from.name)
        .header("To", to.name)
        .header("Call-ID", session.call_id)
        .header("CSeq", {std::to_string(++from.cseq), " BYE"})
        .header("Reason", {"SIP;cause=480;text=\"", reason, "\""});
    const auto bytes = request.finish();
    if (!bytes) transactions_->abandon(branch.id);
    if (!bytes ||
        !transactions_->send_request(branch, sent_on(*hop), "BYE", *bytes, *this, session.id)) {
        log::warn(area, "BYE to {}: cannot be sent", to.target);
        --session.byes;
        return;
    }
    ++counters_.byes;
}

// 200, 481 of a phone whose other side was told already, or nothing: it is over.
void Sessions::bye_is_over(SlotId id) {
    Session* s = sessions_.find(id);
    if (s == nullptr || s->byes == 0) return;
    --s->byes;
    if (s->byes == 0) erase(*s);
}

void Sessions::on_response(sip::ClientTransactionId, std::uint64_t context, const sip::Flow&,
                           const sip::Message& response, std::span<char>) {
    if (response.status_code() >= 200) bye_is_over(context);
}

void Sessions::on_failure(sip::ClientTransactionId, std::uint64_t context, sip::ClientFailure) {
    bye_is_over(context);
}

}  // namespace gmgate::home
