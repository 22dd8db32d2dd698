#include "home/proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "control/sip/build.h"
#include "control/sip/edit.h"
#include "control/sip/values.h"
#include "home/next_hop.h"
#include "home/register_request.h"

namespace gmgate::home {

using sip::HeaderId;
using namespace std::chrono_literals;

namespace {

constexpr std::string_view area = "home";
constexpr unsigned default_max_forwards = 70;
constexpr Duration t1 = 500ms;
constexpr Duration t2 = 4s;
// RFC 3261 16.6 step 11: more than three minutes, and before the transaction layer's own.
constexpr Duration timer_c = 181s;
constexpr std::size_t max_challenges = 32;  // of all phones of a call

// RFC 3261 16.7 step 6: the lower the better.
int rank(int status) {
    if (status >= 600) return 0;
    if (status >= 400 && status < 500) {
        // Those that tell the caller what to do about it.
        const bool helps =
            status == 401 || status == 407 || status == 415 || status == 420 || status == 484;
        return 400 + (helps ? 0 : 1);
    }
    return status / 100 * 100;
}

// RFC 3841 7.1.
bool wants_parallel(const sip::Message& request) {
    const auto* wish = request.find("Request-Disposition");
    if (wish == nullptr) return false;
    sip::ValueSplitter directives(request.value(*wish));
    while (const auto directive = directives.next()) {
        if (iequals(trim(*directive), "parallel")) return true;
    }
    return false;
}

}  // namespace

Proxy::Proxy(const Parts& parts, IsRegistered is_registered, Refresh refresh)
    : parts_(parts),
      is_registered_(std::move(is_registered)),
      refresh_(std::move(refresh)),
      loop_hash_(parts.random),
      invites_(16, SeededStringHash{SeededHash(parts.random)}),
      by_user_(16, SeededStringHash{SeededHash(parts.random)}) {}

Proxy::~Proxy() = default;

// ---- loops (RFC 3261 16.3 step 4) ----

std::uint64_t Proxy::loop_mark(const sip::Message& request) const {
    std::string text(request.request_uri());
    const auto add = [&text](std::string_view part) {
        text += '\n';
        text += part;
    };
    for (const sip::Value& value : request.values(HeaderId::route)) add(value.text);
    add("");
    if (const auto from = sip::from(request)) add(from->tag());
    if (const auto to = sip::to(request)) add(to->tag());
    add(sip::call_id(request));
    if (const auto number = sip::cseq(request)) add(std::to_string(number->number));
    return loop_hash_(text);
}

bool Proxy::has_looped(const sip::Message& request, std::uint64_t mark) {
    for (const sip::Value& value : request.values(HeaderId::via)) {
        const auto via = sip::parse_via(value.text);
        if (via && sip::TransactionLayer::loop_mark_of(via->branch) == mark) return true;
    }
    return false;
}

// ---- exchanges ----

Proxy::Exchange* Proxy::open(const Arrival& arrival, const sip::Message& request) {
    if (exchanges_.size() >= parts_.max_exchanges) return nullptr;
    Exchange& e = exchanges_.emplace(*this);
    e.server = arrival.id;
    e.arrival = arrival.flow;
    e.request = request.bytes();
    e.invite = request.is_method("INVITE");
    e.in_dialog = in_dialog(request);
    return &e;
}

void Proxy::close(SlotId id) {
    Exchange* e = exchanges_.find(id);
    if (e == nullptr) return;
    if (!e->key.empty()) invites_.erase(e->key);
    const auto unlist = [&](const std::string& impi) {
        const auto [first, last] = by_user_.equal_range(impi);
        const auto entry = std::find_if(first, last, [&](const auto& x) { return x.second == id; });
        if (entry != last) by_user_.erase(entry);
    };
    if (!e->key.empty()) {
        unlist(e->caller.impi);
        for (const auto& b : e->branches) unlist(b->target.impi);
    }
    for (const auto& b : e->branches) {
        if (b->client != 0) transactions_->abandon(b->client);
        parts_.sessions.drop(b->session);
    }
    exchanges_.erase(id);
}

Proxy::Branch* Proxy::branch_of(Exchange& e, sip::ClientTransactionId client) {
    const auto found =
        std::ranges::find(e.branches, client, [](const auto& b) { return b->client; });
    return found == e.branches.end() ? nullptr : found->get();
}

// ---- out ----

bool Proxy::write(const Arrival& arrival, const sip::Message& request, const Copy& copy,
                  const sip::Flow& hop, std::string_view branch) {
    sip::Edit edit(request);
    edit.stamp_top_via(arrival.flow.remote);
    edit.push_via({via_for(hop, branch)});
    edit.set_max_forwards(sip::max_forwards(request).value_or(default_max_forwards + 1) - 1U);
    if (copy.route.empty()) {
        edit.remove_all(HeaderId::route);
    } else {
        edit.set_header(HeaderId::route, {copy.route});
    }
    // TS 24.229 5.4.3.3: the phone is told which identity was called.
    if (!copy.called.empty()) edit.set_header(HeaderId::p_called_party_id, {"<", copy.called, ">"});
    if (copy.record)
        edit.push_header(HeaderId::record_route, {record_route(parts_.tokens.make(request),
                                                               arrival.flow, hop, parts_.domain)});
    edit.replace_request_uri({copy.request_uri});
    edit.ensure_content_length();
    const auto done = edit.apply(buffer_);
    return done.has_value();
}

bool Proxy::launch(Exchange& e, Branch& b, const Arrival& arrival, const sip::Message& request,
                   const Copy& copy, std::uint64_t mark) {
    const auto hop = next_hop(copy.route, copy.request_uri, parts_.domain.listen());
    if (!hop) {
        log::warn(area, "{} to {}: {}", request.method(), copy.request_uri, hop.error().text);
        return failed(e, b, 480, nullptr), false;
    }
    const auto branch = transactions_->new_branch(sip::TransactionLayer::Party::known, mark);
    if (branch.id == 0) {
        ++parts_.counters.refused;
        return failed(e, b, 503, nullptr), false;
    }
    if (!write(arrival, request, copy, *hop, branch.view())) {
        transactions_->abandon(branch.id);
        ++parts_.counters.rejected;
        return failed(e, b, 400, nullptr), false;
    }
    ++parts_.counters.routed;
    b.flow = sent_on(*hop);
    if (!transactions_->send_request(branch, b.flow, request.method(), buffer_, *this, e.id))
        return failed(e, b, 480, nullptr), false;
    b.client = branch.id;
    if (e.invite) b.sent = buffer_;
    return true;
}

void Proxy::fork(const Arrival& arrival, const sip::Message& request, const Caller& caller,
                 std::span<const Target> targets) {
    const std::uint64_t mark = loop_mark(request);
    if (has_looped(request, mark)) {
        ++parts_.counters.rejected;
        return parts_.responder.answer(arrival.id, arrival.flow.remote, request, 482);
    }
    Exchange* e = open(arrival, request);
    if (e == nullptr) {
        ++parts_.counters.refused;
        return parts_.responder.answer(arrival.id, arrival.flow.remote, request, 503, {},
                                       {{"Retry-After", "5"}});
    }
    e->caller = caller;
    if (e->invite) {
        // RFC 3261 16.2: stops the sender's retransmissions at once.
        parts_.responder.answer(arrival.id, arrival.flow.remote, request, 100);
        e->key = cancel_key(request);
        invites_[e->key] = e->id;
        if (!caller.impi.empty()) by_user_.emplace(caller.impi, e->id);
    }
    if (targets.size() > 1) ++parts_.counters.forked;
    e->waiting.assign(targets.begin(), targets.end());
    if (e->invite && !wants_parallel(request)) {
        std::ranges::stable_sort(e->waiting, std::greater{}, &Target::q);
    } else {
        for (Target& t : e->waiting) t.q = 0;
    }
    next_group(*e, request);
}

void Proxy::refresh_waiting(Exchange& e) {
    std::vector<Target> there;
    for (Target& t : e.waiting) {
        if (refresh_(t)) there.push_back(std::move(t));
    }
    e.waiting = std::move(there);
}

void Proxy::next_group(Exchange& e, const sip::Message& request) {
    const std::uint64_t mark = loop_mark(request);
    const std::size_t first = e.branches.size();
    const auto end = std::ranges::find_if(
        e.waiting, [q = e.waiting.front().q](const Target& t) { return t.q != q; });
    // All branches stand before the first is sent: a failure must not look like the last answer.
    for (auto t = e.waiting.begin(); t != end; ++t) {
        e.branches.push_back(std::make_unique<Branch>(*this, e.id));
        if (e.invite) by_user_.emplace(t->impi, e.id);
        e.branches.back()->target = std::move(*t);
    }
    e.waiting.erase(e.waiting.begin(), end);
    if (!e.waiting.empty()) parts_.timers.start(e.timer, parts_.ring);
    for (std::size_t i = first; i < e.branches.size(); ++i) {
        Branch& b = *e.branches[i];
        const Copy copy{b.target.contact, b.target.path, std::string(request.request_uri()),
                        makes_dialog(request.method())};
        (void)launch(e, b, {e.server, e.arrival}, request, copy, mark);
    }
    finish_if_done(e);
}

void Proxy::on_exchange_timer(Exchange& e) {
    if (e.answered) return close(e.id);
    refresh_waiting(e);
    if (e.waiting.empty()) return;  // who rings may ring on
    // Nobody of this group answers. What has rung so long may not take the call any more.
    for (const auto& b : e.branches) {
        if (!b->done) b->timed_out = true;
        cancel_branch(*b, "SIP;cause=408;text=\"No Answer Here\"");
    }
    sip::Message request;
    if (request.parse(e.request) == sip::ParseStatus::ok) next_group(e, request);
}

void Proxy::pass(const Arrival& arrival, const sip::Message& request, const Routing& routing) {
    const std::uint64_t mark = loop_mark(request);
    const bool ack = arrival.id == 0;
    if (has_looped(request, mark)) {
        ++parts_.counters.rejected;
        if (!ack) parts_.responder.answer(arrival.id, arrival.flow.remote, request, 482);
        return;
    }
    parts_.sessions.passes(request);
    const Copy copy{routing.next_request_uri(), routing.next_routes(), {}, false};
    if (ack) {
        const auto hop = next_hop(copy.route, copy.request_uri, parts_.domain.listen());
        const auto branch =
            hop ? transactions_->new_branch(sip::TransactionLayer::Party::known, mark)
                : sip::TransactionLayer::Branch{};
        if (branch.id == 0) {
            ++parts_.counters.routed_failures;
            return;
        }
        if (write(arrival, request, copy, *hop, branch.view()) &&
            transport_->send(sent_on(*hop), buffer_)) {
            ++parts_.counters.acks;
        } else {
            ++parts_.counters.routed_failures;
        }
        return transactions_->abandon(branch.id);
    }
    Exchange* e = open(arrival, request);
    if (e == nullptr) {
        ++parts_.counters.refused;
        return parts_.responder.answer(arrival.id, arrival.flow.remote, request, 503, {},
                                       {{"Retry-After", "5"}});
    }
    if (e->invite) {
        parts_.responder.answer(arrival.id, arrival.flow.remote, request, 100);
        e->key = cancel_key(request);
        invites_[e->key] = e->id;
    }
    e->branches.push_back(std::make_unique<Branch>(*this, e->id));
    (void)launch(*e, *e->branches.back(), arrival, request, copy, mark);
    finish_if_done(*e);
}

// ---- answers ----

bool Proxy::forward(Exchange& e, const sip::Message& response) {
    sip::Edit edit(response);
    edit.remove_first_value(HeaderId::via);
    edit.ensure_content_length();
    if (!edit.apply(buffer_)) {
        ++parts_.counters.garbage;
        return false;
    }
    transactions_->respond(e.server, response.status_code(), buffer_);
    return true;
}

void Proxy::on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow&,
                        const sip::Message& response, std::span<char>) {
    Exchange* e = exchanges_.find(context);
    Branch* b = e == nullptr ? nullptr : branch_of(*e, id);
    if (b == nullptr) return;
    const int status = response.status_code();
    if (status < 200) return provisional(*e, *b, response);
    ++parts_.counters.routed_answers;
    if (e->in_dialog) {
        sip::Message request;
        if (request.parse(e->request) == sip::ParseStatus::ok)
            parts_.sessions.answered(request, response);
    }
    if (status < 300) return success(*e, *b, response);
    if (b->client != 0) b->client = 0;
    // The caller who gave up hears so, whoever did not answer before.
    const bool too_late = b->timed_out && status == 487 && !e->cancelled;
    failed(*e, *b, too_late ? 408 : status, too_late ? nullptr : &response);
    finish_if_done(*e);
}

void Proxy::provisional(Exchange& e, Branch& b, const sip::Message& response) {
    const bool first = !std::exchange(b.provisional, true);
    if (e.invite) {
        if (b.to_cancel) {
            if (first) send_cancel(b);
        } else if (first || response.status_code() > 100) {
            parts_.timers.start(b.timer, timer_c);
        }
    }
    if (response.status_code() == 100 || e.answered) return;  // 100 is hop by hop
    if (e.invite && !e.in_dialog) {
        sip::Message request;
        if (request.parse(e.request) == sip::ParseStatus::ok) {
            const SlotId session = parts_.sessions.answered(
                request, response, {e.caller.impi, e.caller.impu, {}, {}},
                {b.target.impi, b.target.impu, b.target.contact, b.target.path});
            if (session != b.session) parts_.sessions.drop(std::exchange(b.session, session));
        }
    }
    forward(e, response);
}

void Proxy::success(Exchange& e, Branch& b, const sip::Message& response) {
    b.done = true;
    b.timer.stop();
    if (!e.invite) {
        b.client = 0;
        if (!e.answered && !forward(e, response)) transactions_->forget(e.server);
        return close(e.id);
    }
    // Each 2xx goes to the caller, of every branch and as often as it comes (RFC 3261 16.7 step 5).
    if (!e.in_dialog) {
        sip::Message request;
        if (request.parse(e.request) == sip::ParseStatus::ok) {
            b.session = parts_.sessions.answered(
                request, response, {e.caller.impi, e.caller.impu, {}, {}},
                {b.target.impi, b.target.impu, b.target.contact, b.target.path});
        }
    }
    forward(e, response);
    if (!e.answered) {
        e.answered = true;
        e.waiting.clear();
        parts_.timers.start(e.timer, t1 * 64);
        cancel_others(e, &b, "SIP;cause=200;text=\"Call completed elsewhere\"");
    }
    end_late(e, b);
}

// Who has gone while the phone rang has no session that could go on.
void Proxy::end_late(const Exchange& e, const Branch& b) {
    if (e.in_dialog) return;
    for (const auto& [impi, impu] :
         {std::pair(e.caller.impi, e.caller.impu), std::pair(b.target.impi, b.target.impu)}) {
        if (!impi.empty() && !is_registered_(impu))
            parts_.sessions.release(impi, std::span(&impu, 1), "Not Registered Any More");
    }
}

void Proxy::failed(Exchange& e, Branch& b, int status, const sip::Message* response) {
    b.done = true;
    b.timer.stop();
    parts_.sessions.drop(std::exchange(b.session, 0));
    if (response == nullptr) ++parts_.counters.routed_failures;
    if (e.answered) return;
    if (response != nullptr && (status == 401 || status == 407)) keep_challenges(e, b, *response);
    const bool given_up = e.cancelled && status == 487 && e.best != 487 && rank(e.best) > 0;
    if (e.best == 0 || rank(status) < rank(e.best) || given_up) {
        e.best = status;
        e.best_of = &b;
        e.best_message.clear();
        if (response != nullptr) {
            sip::Edit edit(*response);
            edit.remove_first_value(HeaderId::via);
            edit.ensure_content_length();
            if (!edit.apply(e.best_message)) {
                ++parts_.counters.garbage;
                e.best_message.clear();
            }
        }
    }
    if (status >= 600) e.waiting.clear();
    if (status >= 600) cancel_others(e, &b, "SIP;cause=600;text=\"Busy everywhere\"");
}

void Proxy::keep_challenges(Exchange& e, const Branch& b, const sip::Message& response) {
    for (const HeaderId id : {HeaderId::www_authenticate, HeaderId::proxy_authenticate}) {
        for (const auto* h = response.first(id);
             h != nullptr && e.challenges.size() < max_challenges; h = response.next(*h))
            e.challenges.push_back({&b, id, unfold(response.value(*h))});
    }
}

// RFC 3261 16.7 step 7: the caller can answer them all with its next INVITE.
void Proxy::merge_challenges(Exchange& e) {
    if ((e.best != 401 && e.best != 407) || e.best_message.empty()) return;
    sip::Message best;
    if (best.parse(e.best_message) != sip::ParseStatus::ok) return;
    sip::Edit edit(best);
    for (const auto& c : e.challenges) {
        if (c.from != e.best_of) edit.add_header(c.header, {c.value});
    }
    // Too long with them: the best one alone is an answer still.
    if (edit.apply(buffer_)) e.best_message = buffer_;
}

void Proxy::finish_if_done(Exchange& e) {
    if (e.answered || !std::ranges::all_of(e.branches, [](const auto& b) { return b->done; }))
        return;
    refresh_waiting(e);
    if (!e.waiting.empty()) {
        sip::Message next;
        if (next.parse(e.request) == sip::ParseStatus::ok) return next_group(e, next);
    }
    merge_challenges(e);
    const bool ours = e.best_message.empty();
    if (ours || e.best == 503) {
        sip::Message request;
        request.parse(e.request);
        // Only a timeout: what was never sent ended nothing.
        if (e.in_dialog && ours && e.best == 408) parts_.sessions.unanswered(request);
        if (!e.invite && e.best == 408) {
            // RFC 4320: it would come when the sender has given up already.
            transactions_->forget(e.server);
        } else {
            // RFC 3261 16.7 step 6: what one of many cannot do is not what we cannot do.
            const int status = !ours && e.best == 503 ? 500 : e.best;
            parts_.responder.answer(e.server, e.arrival.remote, request, status);
        }
    } else {
        transactions_->respond(e.server, e.best, e.best_message);
    }
    close(e.id);
}

void Proxy::on_failure(sip::ClientTransactionId id, std::uint64_t context,
                       sip::ClientFailure failure) {
    Exchange* e = exchanges_.find(context);
    Branch* b = e == nullptr ? nullptr : branch_of(*e, id);
    if (b == nullptr) return;
    b->client = 0;
    failed(*e, *b, failure == sip::ClientFailure::timeout ? 408 : 480, nullptr);
    finish_if_done(*e);
}

// ---- CANCEL (RFC 3261 9, 16.10) ----

std::string Proxy::cancel_key(const sip::Message& request) {
    const auto via = sip::top_via(request);
    return via ? fmt::format("{}|{}:{}", via->branch, to_lower(via->host), via->port)
               : std::string{};
}

void Proxy::cancel(const Arrival& arrival, const sip::Message& request) {
    const auto found = invites_.find(cancel_key(request));
    Exchange* e = found == invites_.end() ? nullptr : exchanges_.find(found->second);
    if (e == nullptr) {
        ++parts_.counters.rejected;
        return parts_.responder.answer(arrival.id, arrival.flow.remote, request, 481);
    }
    parts_.responder.answer(arrival.id, arrival.flow.remote, request, 200);
    if (e->answered) return;
    ++parts_.counters.cancelled;
    e->waiting.clear();
    e->cancelled = true;
    const auto* reason = request.find("Reason");
    cancel_others(*e, nullptr, reason != nullptr ? unfold(request.value(*reason)) : std::string{});
}

void Proxy::release(std::string_view impi, std::span<const std::string> impus) {
    std::vector<SlotId> all;
    const auto [first, last] = by_user_.equal_range(impi);
    for (auto it = first; it != last; ++it) all.push_back(it->second);
    constexpr std::string_view reason = "SIP;cause=480;text=\"Not Registered Any More\"";
    for (const SlotId id : all) {
        Exchange* e = exchanges_.find(id);
        if (e == nullptr || e->answered) continue;
        const auto goes = [&](const auto& party) {
            return party.impi == impi && std::ranges::find(impus, party.impu) != impus.end();
        };
        const bool caller = goes(e->caller);
        std::erase_if(e->waiting, [&](const Target& t) { return caller || goes(t); });
        for (const auto& b : e->branches) {
            if (caller || goes(b->target)) cancel_branch(*b, reason);
        }
    }
}

void Proxy::cancel_others(Exchange& e, const Branch* but, std::string_view reason) {
    for (const auto& b : e.branches) {
        if (b.get() != but) cancel_branch(*b, reason);
    }
}

void Proxy::cancel_branch(Branch& b, std::string_view reason) {
    if (b.done || b.to_cancel || b.client == 0 || b.sent.empty()) return;
    b.to_cancel = true;
    b.reason = reason;
    b.timer.stop();
    if (b.provisional) send_cancel(b);
}

void Proxy::send_cancel(Branch& b) {
    sip::Message sent;
    if (sent.parse(b.sent) != sip::ParseStatus::ok) return;
    const auto number = sip::cseq(sent);
    const auto via = sent.first_value(HeaderId::via);
    if (!number || !via) return;
    std::string cancel = fmt::format("CANCEL {} SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\n",
                                     sent.request_uri(), *via);
    for (const HeaderId id : {HeaderId::route, HeaderId::from, HeaderId::to, HeaderId::call_id}) {
        for (const auto* h = sent.first(id); h != nullptr; h = sent.next(*h))
            cancel += sent.line(*h);
    }
    if (!b.reason.empty()) cancel += "Reason: " + b.reason + "\r\n";
    cancel += fmt::format("CSeq: {} CANCEL\r\nContent-Length: 0\r\n\r\n", number->number);
    transport_->send(b.flow, cancel);
    // Its own retransmission, until the INVITE is answered: no transaction has this branch twice.
    b.interval = b.interval == Duration{} ? t1 : std::min<Duration>(b.interval * 2, t2);
    b.interval = std::min<Duration>(b.interval, t1 * 64 - b.waited);
    b.waited += b.interval;
    parts_.timers.start(b.timer, b.interval);
}

void Proxy::on_branch_timer(Branch& b) {
    Exchange* e = exchanges_.find(b.exchange);
    if (e == nullptr || b.done) return;
    if (!b.to_cancel) {  // timer C (RFC 3261 16.8)
        b.timed_out = true;
        return cancel_branch(b, "SIP;cause=408;text=\"Timer C\"");
    }
    if (b.waited < t1 * 64) {
        if (b.flow.transport == sip::Transport::udp) return send_cancel(b);
        return parts_.timers.start(b.timer, t1 * 64 - std::exchange(b.waited, t1 * 64));
    }
    // Nobody answers the CANCEL: the INVITE counts as unanswered (RFC 3261 9.1).
    if (b.client != 0) transactions_->abandon(std::exchange(b.client, 0));
    failed(*e, b, b.timed_out && !e->cancelled ? 408 : 487, nullptr);
    finish_if_done(*e);
}

}  // namespace gmgate::home
