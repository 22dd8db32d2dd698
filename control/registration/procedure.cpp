#include "control/registration/procedure.h"

#include <array>

#include "base/bytes.h"
#include "base/log.h"
#include "control/registration/edits.h"
#include "control/registration/identity.h"
#include "control/registration/interconnect.h"
#include "control/registration/proxy_rules.h"
#include "control/registration/registrar.h"

namespace gmgate::registration {

using sip::HeaderId;

namespace {

constexpr std::string_view method_register = "REGISTER";

Reason reason_of_status(int status) {
    if (status == 408 || status == 480 || status == 504) return Reason::core_timeout;
    if (status >= 500) return Reason::core_error;
    return Reason::core_rejected;
}

// C11: the core could not tell; the phone may try again on the same SAs.
bool is_core_trouble(int status) {
    return status == 408 || status == 480 || (status >= 500 && status < 600);
}

}  // namespace

RegistrationProcedure::RegistrationProcedure(SlotId id, Context& context, Registrar& owner)
    : id_(id), ctx_(context), owner_(owner) {
    linger_timer_.bind<&RegistrationProcedure::on_linger_over>(this);
}

RegistrationProcedure::~RegistrationProcedure() {
    if (client_ != 0) ctx_.core.transactions->abandon(client_);
    if (server_ != 0) ctx_.gm.transactions->forget(server_);
}

bool RegistrationProcedure::keep_texts(const RegisterFacts& facts, std::string_view offer,
                                       const sip::Message& request) {
    const std::string head = head_of(request);
    const std::array<std::string_view, 5> texts{facts.impi, facts.impu, facts.contact, offer, head};
    auto packed = sa::PackedStrings::pack(texts);
    if (!packed) return false;
    texts_ = std::move(*packed);
    return true;
}

// ---- SM1 → SM2 ----

void RegistrationProcedure::start(const Arrival& sm1, const sip::Message& request,
                                  const RegisterFacts& facts,
                                  const std::optional<secagree::Choice>& choice,
                                  const std::optional<IpAddress>& nat_inner,
                                  std::uint64_t reported) {
    started_ = ctx_.now();
    trace_user_ = ctx_.trace.user_of(facts.impi);
    ue_ = sm1.flow.remote;
    ours_ = sm1.flow.local.address;
    sm1_ = sm1.carrier;
    user_ = sm1.carrier.user;
    sm1_reply_ = sm1.reply;
    reply_ = sm1.reply;
    source_ = sm1.flow.remote;
    server_ = sm1.transaction;
    choice_ = choice;
    nat_inner_ = nat_inner;
    expires_ = facts.expires;
    failure_report_ = reported != 0;
    if (failure_report_) {
        attempt_ = reported;
        recorded_ = true;  // the procedure it ended has told why (C3)
    } else {
        attempt_ = id_;
        note(0, {Entity::ue, Entity::pcscf, Step::sm1, sm1_.set,
                 inbound_spi(sm1.flow, sm1_.numbers), Reason::ok});
    }
    if (!keep_texts(facts, joined_values(request, HeaderId::security_client), request)) {
        ctx_.answer(ctx_.gm, sm1, request, 400, Reason::malformed, facts.impi);
        server_ = 0;
        ctx_.registration_failed({Reason::malformed, 400, source_, facts.impi, sm1_.set});
        return owner_.finish(id_);
    }
    forward(sm1, request, owner_.integrity_of(sm1.carrier, facts.credentials), Step::sm2);
}

void RegistrationProcedure::note(int status, Context::Noted noted) {
    noted.attempt = attempt_;
    ctx_.note(trace_user_, method_register, status, noted);
}

void RegistrationProcedure::forward(const Arrival& arrival, const sip::Message& request,
                                    bool integrity, Step step) {
    auto& core = ctx_.core;
    const auto branch = core.transactions->new_branch(arrival.carrier.party());
    if (branch.id == 0)
        return forwarding_failed(arrival, request, step, 503, Reason::transaction_limit);
    const FlowTokens::Text token = ctx_.tokens.make(user_);
    const std::uint64_t icid = ctx_.random.u64();
    const auto icid_text = to_hex({reinterpret_cast<const std::uint8_t*>(&icid), sizeof(icid)});

    // SM1 to SM12 stay with one element of the core while it lives: it holds the challenge.
    sip::Flow flow = ctx_.core_flow(core_at_);
    core_at_ = flow.remote;
    sent_.clear();
    const auto edited = [&] {
        sip::Edit edit(request);
        put_our_via(edit, ctx_, arrival.flow.remote, flow, branch.view());
        edit.set_max_forwards(hops_left(request));
        strip_from_ue(edit);
        edit.remove_all(HeaderId::route);
        edit.remove_all(HeaderId::record_route);
        put_path(edit, ctx_, {token.data(), token.size()});
        edit.append_header("P-Visited-Network-ID", {"\"", ctx_.policy.visited_network, "\""});
        edit.append_header("P-Charging-Vector",
                           {"icid-value=\"", icid_text, "\";icid-generated-at=", ctx_.generator});
        edit.set_auth_param(HeaderId::authorization, "integrity-protected",
                            integrity ? "yes" : "no");
        if (flow.transport == sip::Transport::tcp) edit.ensure_content_length();
        return static_cast<bool>(edit.apply(ctx_.scratch));
    };
    bool possible = edited();
    // RFC 3261 18.1.1: what counts is what leaves.
    if (possible && flow.transport == sip::Transport::udp && ctx_.scratch.size() > udp_limit) {
        if (const auto larger = ctx_.next_hops.stream_to(flow.remote)) {
            flow = *larger;
            possible = edited();
            sent_ = ctx_.scratch;
        }
    }
    if (!possible) {
        core.transactions->abandon(branch.id);
        return forwarding_failed(arrival, request, step, 400, Reason::malformed);
    }
    if (core.transactions->send_request(branch, flow, method_register, ctx_.scratch, owner_, id_)) {
        client_ = branch.id;
    } else if (!send_again_over_udp()) {
        return forwarding_failed(arrival, request, step, 504, Reason::core_unreachable);
    }
    note(0, {Entity::pcscf, Entity::core, this->step(step)});
}

bool RegistrationProcedure::send_again_over_udp() {
    const std::string before = std::exchange(sent_, {});
    sip::Message sent;
    if (before.empty() || sent.parse(before) != sip::ParseStatus::ok || !core_at_) return false;
    const auto flow = ctx_.next_hops.flow_to(sip::Transport::udp, *core_at_);
    if (!flow) return false;
    auto& transactions = *ctx_.core.transactions;
    // SM7 has come on SAs.
    const auto branch = transactions.new_branch(
        state_ == State::awaiting_answer ? sip::TransactionLayer::Party::known : sm1_.party());
    if (branch.id == 0) return false;
    const std::string again = over_udp(sent, branch.view());
    if (again.empty()) {
        transactions.abandon(branch.id);
        return false;
    }
    if (!transactions.send_request(branch, *flow, method_register, again, owner_, id_))
        return false;
    client_ = branch.id;
    return true;
}

void RegistrationProcedure::forwarding_failed(const Arrival& arrival, const sip::Message& request,
                                              Step step, int status, Reason reason) {
    server_ = 0;
    if (reason == Reason::core_unreachable) ctx_.core_failed(reason);
    if (step == Step::sm2) {
        ctx_.answer(ctx_.gm, arrival, request, status, reason, impi());
        answered_ = status;
        return end(reason);
    }
    refuse_second(arrival, request, status, reason);
    record_end(reason);
    state_ = State::awaiting_authentication;  // C11: the SAs stay until C5
}

// ---- SM5, SM11 ----

void RegistrationProcedure::on_response(const sip::Message& response, std::span<char> bytes) {
    const int status = response.status_code();
    sent_ = {};
    ctx_.core_answered();
    if (status < 200) return wipe_keys(response, bytes);
    ctx_.core_watch.register_answered(status);
    client_ = 0;
    const bool second = state_ == State::awaiting_answer;
    if (!second && state_ != State::awaiting_challenge) return wipe_keys(response, bytes);
    const bool is_challenge = status == 401;
    Step step = Step::none;
    if (second || status < 300) {
        step = Step::sm11;  // also a 401 that answers SM8 (C10)
    } else if (is_challenge) {
        step = Step::sm5;
    }
    note(status, {Entity::core, Entity::pcscf, this->step(step)});

    if (is_challenge && !second) return challenge(response, bytes);
    wipe_keys(response, bytes);
    if (!second) {
        if (status < 300) return unchallenged(response);
        return refused_by_core(response, failure_report_ && status == 403
                                             ? Reason::network_authentication_failed
                                             : reason_of_status(status));
    }
    if (status < 300) return complete(response);
    if (is_challenge) {
        // The set's numbers are in use, so a second challenge cannot be carried out on them: the
        // phone begins again.
        const bool on_old = fail_later(504, Reason::challenged_again);
        record_end(Reason::challenged_again);
        return conclude(sa::Event::aborted, on_old);
    }
    if (is_core_trouble(status)) {
        const Reason reason = reason_of_status(status);
        ctx_.refuse(reason, status, source_, impi());
        if (edit_response(response, {})) send_failure(status, reason);
        answered_ = status;
        record_end(reason);
        (void)ctx_.sets.apply(set_, sa::Event::core_failure);
        state_ = State::awaiting_authentication;
        return;
    }
    refused_by_core(response,
                    status == 403 ? Reason::authentication_failed : reason_of_status(status));
}

void RegistrationProcedure::on_core_failure(sip::ClientFailure failure) {
    client_ = 0;
    const Context::AtHand about(ctx_, texts_[text_head]);
    if (failure == sip::ClientFailure::transport && send_again_over_udp()) return;
    const Reason reason =
        failure == sip::ClientFailure::timeout ? Reason::core_timeout : Reason::core_unreachable;
    ctx_.core_failed(reason);
    if (state_ == State::awaiting_challenge) {
        fail_later(504, reason);
        return end(reason);
    }
    if (state_ != State::awaiting_answer) return;
    fail_later(504, reason);
    record_end(reason);
    (void)ctx_.sets.apply(set_, sa::Event::core_failure);
    state_ = State::awaiting_authentication;  // C11, C5: the SAs live until reg-await-auth
}

void RegistrationProcedure::challenge(const sip::Message& response, std::span<char> bytes) {
    // B2: the keys leave the message before anything else is done with it.
    sa::AkaKey ck;
    sa::AkaKey ik;
    bool have_keys = false;
    for (const auto* h = response.first(HeaderId::www_authenticate); h != nullptr && !have_keys;
         h = response.next(*h)) {
        const auto c = sip::parse_digest_challenge(response.value(*h));
        if (!c || !c->ck || !c->ik || !c->nonce || c->nonce->empty()) continue;
        have_keys = from_hex(*c->ck, ck.writable()) && from_hex(*c->ik, ik.writable());
        nonce_hash_ = owner_.hash_nonce(*c->nonce);
    }
    wipe_keys(response, bytes);
    if (!have_keys || !choice_) {
        const Reason why = have_keys ? Reason::sec_agree_missing : Reason::challenge_without_keys;
        fail_later(have_keys ? 421 : 500, why);
        return end(why);
    }
    if (!sm1_path_alive()) return end(Reason::no_sa);
    // Asked again: the user may have shown its keys since SM1 came.
    if (!sm1_.is_protected() && owner_.strangers_must_wait(impi())) {
        fail_later(503, Reason::pending_user_limit);
        return end(Reason::pending_user_limit);
    }

    sa::ReserveRequest request;
    request.impi = impi();
    request.ue = ue_.address;
    request.ours = ours_;
    request.spi_uc = choice_->mechanism.spi_c;
    request.spi_us = choice_->mechanism.spi_s;
    request.port_uc = choice_->mechanism.port_c;
    request.port_us = choice_->mechanism.port_s;
    request.suite = choice_->suite;
    request.nat_inner = nat_inner_;
    request.ck = &ck;
    request.ik = &ik;
    request.sm1_set = sm1_.set;
    request.tag = id_;
    const auto reserved = ctx_.sets.reserve(request);
    if (!reserved) {
        // Two completed sets stay at most (D1, D2) and an incomplete one gives way (B3), so the
        // seventh SA of a direction (B6) is never what is refused here.
        const bool taken = reserved.error().kind == ErrorKind::conflict;
        const Reason why = taken ? Reason::port_in_use : Reason::no_spi_or_port;
        fail_later(taken ? 403 : 500, why);
        return end(why, reserved.error().text);
    }
    traced_set_ = *reserved;
    {
        const sa::SaSet* set = ctx_.sets.find(traced_set_);
        numbers_ = set->numbers;
        user_ = set->user;
    }
    // set_ stays 0 until it is live: if the install fails the database takes back what there was
    // (C12) and tells its observers, which must not end this procedure under our feet.
    if (const auto installed = ctx_.sets.install(traced_set_); !installed) {
        fail_later(500, Reason::install_failed);
        return end(Reason::install_failed, installed.error().text);
    }
    set_ = traced_set_;
    ctx_.note_event(trace_user_, Step::set_installed, set_, numbers_.spi_ps, Reason::ok, attempt_);

    const std::string server = secagree::security_server(server_list());
    if (!edit_response(response, server)) {
        drop_set(sa::Event::aborted);
        fail_later(500, Reason::malformed);
        return end(Reason::malformed);
    }
    // A lost connection under SM1 means that SM6 is lost: C5 cleans up.
    state_ = State::awaiting_authentication;
    failure_report_ = recorded_ = false;  // a registration of its own, if it was a report
    send_answer(401, Step::sm6, Reason::ok);
    (void)ctx_.sets.apply(set_, sa::Event::sm6_sent);
    ctx_.metrics.challenged(ctx_.now() - started_);
}

secagree::ServerList RegistrationProcedure::server_list() const {
    return secagree::ServerList::of(
        ctx_.policy.suites, numbers_,
        nat_inner_ ? secagree::Mode::udp_enc_tun : secagree::Mode::transport);
}

// 200 to SM1: D3, D4. Only on an SA: what came in clear was not authenticated by anybody.
void RegistrationProcedure::unchallenged(const sip::Message& response) {
    if (!sm1_.is_protected()) {
        fail_later(500, Reason::challenge_without_keys);
        return end(Reason::challenge_without_keys);
    }
    if (!sm1_path_alive()) return end(Reason::no_sa);
    if (owner_.is_leaving(sm1_.user) && expires_ != 0) {
        // It was deregistered while the core said yes: its SAs are about to go, and a new
        // registration needs new ones (D4).
        const Reason why = owner_.left_by(sm1_.user);
        fail_later(500, why);
        return end(why);
    }
    if (const auto stored = owner_.store(*this, sm1_.set, false, response); !stored) {
        fail_later(500, Reason::registration_limit);
        return end(Reason::registration_limit, stored.error().text);
    }
    if (edit_response(response, {})) send_answer(response.status_code(), Step::sm12, Reason::ok);
    end(Reason::ok);
}

// 200 to SM8: B5.
void RegistrationProcedure::complete(const sip::Message& response) {
    if (const auto stored = owner_.store(*this, set_, true, response); !stored) {
        const bool on_old = fail_later(500, Reason::registration_limit);
        record_end(Reason::registration_limit, stored.error().text);
        return conclude(sa::Event::aborted, on_old);
    }
    set_ = 0;  // the database's from now on
    ctx_.note_event(trace_user_, Step::set_established, traced_set_, numbers_.spi_ps, Reason::ok,
                    attempt_);
    if (edit_response(response, {})) send_answer(response.status_code(), Step::sm12, Reason::ok);
    ctx_.metrics.answered(ctx_.now() - answered_from_);
    end(Reason::ok);
}

// A final refusal. Before the challenge there is nothing to take back; after it: C2, D6.
void RegistrationProcedure::refused_by_core(const sip::Message& response, Reason reason) {
    const int status = response.status_code();
    ctx_.refuse(reason, status, source_, impi());
    answered_ = status;
    const bool answerable = edit_response(response, {});
    if (state_ == State::awaiting_challenge) {
        if (answerable && sm1_path_alive()) send_answer(status, Step::sm6, reason);
        return end(reason);
    }
    record_end(reason);
    conclude(sa::Event::auth_rejected, answerable && send_failure(status, reason));
}

// ---- SM7 ----

Reason RegistrationProcedure::check_second(const Arrival& sm7, const sip::Message& request,
                                           const RegisterFacts& facts) const {
    const auto via = sip::top_via(request);
    if (!via) return Reason::malformed;
    // A symbolic name is compared by its resolution, which is the source unless a resolver says
    // otherwise (B6).
    if (check_via(*via, sm7.flow.remote.address, nat_inner_) == ViaCheck::different)
        return Reason::via_mismatch;
    if (facts.impu != impu()) return Reason::identity_mismatch;

    // Most phones repeat the same octets, which mean the same: only others are taken apart and
    // compared by meaning (A7).
    secagree::MechanismList now;
    if (joined_values(request, HeaderId::security_client) != texts_[text_offer]) {
        now.parse(request, HeaderId::security_client);
        if (now.empty()) return Reason::client_missing;
        secagree::MechanismList before;
        before.add(texts_[text_offer]);
        if (now.is_malformed() || !secagree::same_offer(before, now))
            return Reason::client_mismatch;
    }
    const secagree::ServerList sent = server_list();
    const auto* verify = request.first(HeaderId::security_verify);
    if (verify == nullptr) return Reason::verify_missing;
    if (request.next(*verify) == nullptr &&
        request.value(*verify) == secagree::security_server(sent))
        return Reason::ok;
    now.parse(request, HeaderId::security_verify);
    switch (secagree::check_verify(now, sent)) {
        case secagree::VerifyResult::equal:
            return Reason::ok;
        case secagree::VerifyResult::absent:
            return Reason::verify_missing;
        default:
            return Reason::verify_mismatch;
    }
}

void RegistrationProcedure::on_second_register(const Arrival& sm7, const sip::Message& request,
                                               const RegisterFacts& facts) {
    const sa::Spi spi = inbound_spi(sm7.flow, numbers_);
    if (facts.impi != impi()) {
        (void)ctx_.sets.apply(set_, sa::Event::wrong_user);
        note(0, {Entity::ue, Entity::pcscf, Step::sm7, set_, spi, Reason::wrong_sa});
        return ctx_.discard(ctx_.gm, sm7, Reason::wrong_sa, facts.impi);
    }
    if (state_ == State::lingering) return ctx_.discard(ctx_.gm, sm7, Reason::no_sa, impi());
    if (state_ == State::awaiting_answer) {
        // One answer is on its way to the core; a second would void it.
        refuse_second(sm7, request, 500, Reason::superseded, {{"Retry-After", "5"}});
        return;
    }
    answered_from_ = ctx_.now();
    reply_ = sm7.reply;
    source_ = sm7.flow.remote;
    server_ = sm7.transaction;

    const Reason fault = check_second(sm7, request, facts);
    note(0, {Entity::ue, Entity::pcscf, Step::sm7, set_, spi, fault});
    if (fault != Reason::ok) {
        const sa::Event event = fault == Reason::via_mismatch ? sa::Event::first_packet_refused
                                                              : sa::Event::consistency_failure;
        server_ = 0;
        const int status = fault == Reason::malformed ? 400 : 403;
        if (event == sa::Event::consistency_failure &&
            ctx_.policy.consistency_failure == ConsistencyFailure::silent) {
            ctx_.discard(ctx_.gm, sm7, fault, impi());
            record_end(fault);
            drop_set(event);
            return owner_.finish(id_);
        }
        const bool on_old = refuse_second(
            sm7, request, status, fault,
            {{"Warning", "399 gmgate \"security agreement or address does not match\""}});
        record_end(fault);
        return conclude(event, on_old);
    }
    const auto answer_malformed = [&] {
        server_ = 0;
        refuse_second(sm7, request, 400, Reason::malformed);
        record_end(Reason::malformed);
    };
    const auto& credentials = facts.credentials;
    if (!credentials.response || credentials.response->empty()) {
        // Who holds the keys accepted the challenge, so there must be an answer to it; the set
        // waits on (C5).
        return answer_malformed();
    }
    const std::string offer(texts_[text_offer]);
    if (!keep_texts(facts, offer, request)) {
        return answer_malformed();
    }
    recorded_ = false;  // another attempt on the same set (C11)
    expires_ = facts.expires;
    (void)ctx_.sets.apply(set_, sa::Event::sm7_ok);
    state_ = State::awaiting_answer;
    // A11: "yes" only for the answer to the challenge that made this very set.
    const bool integrity =
        credentials.nonce && owner_.hash_nonce(*credentials.nonce) == nonce_hash_;
    forward(sm7, request, integrity, Step::sm8);
}

// ---- the ways out ----

void RegistrationProcedure::abandoned_by_ue(sa::Event event, Reason reason) {
    drop_set(event);
    end(reason);
}

void RegistrationProcedure::on_set_removed(Reason why) {
    set_ = 0;
    // SM7 is at the core. The set it came on cannot carry an answer any more, that of SM1 may (D6).
    if (server_ != 0 && failure_path() != nullptr) fail_later(500, why);
    end(why);
}

void RegistrationProcedure::shut_down() {
    // Who waits for an answer gets one while there is somebody to give it. The set stays: the
    // answer may still be on its way to it.
    if (server_ != 0) fail_later(503, Reason::shutdown);
    end(Reason::shutdown);
}

bool RegistrationProcedure::sm1_path_alive() const {
    return !sm1_.is_protected() || ctx_.sets.find(sm1_.set) != nullptr;
}

bool RegistrationProcedure::edit_response(const sip::Message& response,
                                          std::string_view security_server) {
    sip::Edit edit(response);
    take_our_via(edit, ctx_, texts_[text_head], source_);
    strip_to_ue(edit);
    edit.remove_all(HeaderId::path);
    if (!security_server.empty()) edit.append_header("Security-Server", {security_server});
    if (reply_.transport == sip::Transport::tcp) edit.ensure_content_length();
    if (edit.apply(ctx_.scratch)) return true;
    log::warn("registration", "{}: the core's {} cannot be passed on", impi(),
              response.status_code());
    return false;
}

bool RegistrationProcedure::send_answer(int status, Step step, Reason reason,
                                        const sip::Flow* path) {
    auto& transactions = *ctx_.gm.transactions;
    const auto server = server_;
    if (server == 0) return false;
    const bool sent = path == nullptr
                          ? transactions.respond(server, status, ctx_.scratch)
                          : transactions.respond_via(server, *path, status, ctx_.scratch);
    if (!sent && path != nullptr) return false;
    server_ = 0;
    const sip::Flow& way = path == nullptr ? reply_ : *path;
    const bool on_new = state_ == State::awaiting_answer && path == nullptr;
    note(status, {Entity::pcscf, Entity::ue, this->step(step), on_new ? traced_set_ : sm1_.set,
                  outbound_spi(way, on_new ? numbers_ : sm1_.numbers),
                  sent ? reason : Reason::ue_unreachable, 0, way.transport});
    return sent;
}

const sip::Flow* RegistrationProcedure::failure_path() const {
    return sm1_.is_protected() && sm1_path_alive() ? &sm1_reply_ : nullptr;
}

bool RegistrationProcedure::send_failure(int status, Reason reason) {
    const sip::Flow* old = failure_path();
    if (old != nullptr && send_answer(status, Step::sm12, reason, old)) return true;
    send_answer(status, Step::sm12, reason);
    return false;
}

bool RegistrationProcedure::refuse_second(const Arrival& sm7, const sip::Message& request,
                                          int status, Reason reason,
                                          std::initializer_list<sip::HeaderField> headers) {
    return fail_request(sm7.transaction, head_of(request), sm7.flow.remote, true, status, reason,
                        headers);
}

bool RegistrationProcedure::fail_later(int status, Reason reason) {
    const auto server = server_;
    server_ = 0;
    const bool second = state_ == State::awaiting_answer;
    if (status == 421) {
        return fail_request(server, texts_[text_head], source_, second, status, reason,
                            {{"Require", "sec-agree"}});
    }
    if (status == 503) {
        return fail_request(server, texts_[text_head], source_, second, status, reason,
                            {{"Retry-After", "32"}});
    }
    return fail_request(server, texts_[text_head], source_, second, status, reason);
}

bool RegistrationProcedure::fail_request(sip::ServerTransactionId server, std::string_view head,
                                         const Endpoint& source, bool second, int status,
                                         Reason reason,
                                         std::initializer_list<sip::HeaderField> headers) {
    ctx_.refuse(reason, status, source, impi());
    answered_ = status;
    if (server == 0) return false;
    if (!second && !sm1_path_alive()) {
        ctx_.gm.transactions->forget(server);
        return false;
    }
    const sip::Flow* old = second ? failure_path() : nullptr;
    const bool on_old =
        old != nullptr && ctx_.answer_later(ctx_.gm, server, head, source, status, headers, old);
    if (!on_old && !ctx_.answer_later(ctx_.gm, server, head, source, status, headers)) {
        ctx_.gm.transactions->forget(server);
        return false;
    }
    const bool on_new = second && !on_old;
    note(status, {Entity::pcscf, Entity::ue, step(second ? Step::sm12 : Step::sm6),
                  on_new ? traced_set_ : sm1_.set,
                  outbound_spi(on_old ? *old : reply_, on_new ? numbers_ : sm1_.numbers), reason, 0,
                  (on_old ? *old : reply_).transport});
    return on_old;
}

void RegistrationProcedure::drop_set(sa::Event event) {
    const sa::SetId set = set_;
    set_ = 0;  // the observer need not tell us
    if (set != 0) (void)ctx_.sets.apply(set, event);
}

void RegistrationProcedure::conclude(sa::Event event, bool on_old) {
    if (!on_old) return linger(event);
    drop_set(event);
    owner_.finish(id_);
}

void RegistrationProcedure::linger(sa::Event event) {
    state_ = State::lingering;
    linger_event_ = event;
    ctx_.timers.start(linger_timer_, ctx_.sets.config().timers.drain);
}

void RegistrationProcedure::on_linger_over() {
    drop_set(linger_event_);
    owner_.finish(id_);
}

void RegistrationProcedure::record_end(Reason reason, std::string_view remark) {
    if (recorded_) return;
    recorded_ = true;
    if (reason == Reason::ok) return ctx_.metrics.procedure_ended(reason);
    if (remark.empty() && integrity_failed_) remark = "its ESP packets failed the integrity check";
    ctx_.registration_failed({reason, answered_, ue_, impi(), traced_set_, remark, attempt_});
}

void RegistrationProcedure::end(Reason reason, std::string_view remark) {
    record_end(reason, remark);
    owner_.finish(id_);
}

}  // namespace gmgate::registration
