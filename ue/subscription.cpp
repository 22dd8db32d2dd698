#include "ue/subscription.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "control/sip/values.h"
#include "ue/agent.h"

namespace gmgate::ue {

namespace {

constexpr Duration retry_after_failure = std::chrono::seconds(30);

}  // namespace

Subscription::Subscription(Agent& agent) : agent_(agent) {
    timer_.bind<&Subscription::on_timer>(this);
}

Subscription::~Subscription() {
    agent_.forget(this);
}

bool Subscription::begin(std::uint32_t expires, Done done) {
    if (state_ != State::none) return false;
    expires_ = expires;
    done_ = std::move(done);
    ask();
    return state_ == State::asking;
}

std::string Subscription::wanted(std::uint32_t expires) const {
    const sip::RegProfile profile = agent_.context().reg_profile;
    return fmt::format("Event: {}\r\nAccept: {}\r\nExpires: {}\r\n", sip::event_package(profile),
                       sip::content_type(profile), expires);
}

// A new dialog.
void Subscription::ask() {
    const auto flow = agent_.host().flow();
    if (!flow) return;
    dialog_ = {};
    version_.reset();
    dialog_.call_id = agent_.new_call_id();
    dialog_.local_tag = agent_.new_tag();
    dialog_.local_uri = dialog_.remote_uri = dialog_.target = flow->identity.impu();
    dialog_.local_cseq = 1;
    Outgoing o;
    o.method = "SUBSCRIBE";
    o.uri = o.to_uri = o.from_uri = dialog_.local_uri;
    o.from_tag = dialog_.local_tag;
    o.call_id = dialog_.call_id;
    o.cseq = 1;
    o.contact = true;
    o.extra = wanted(expires_);
    const auto* t = agent_.send(o, [this](const sip::Message* m) { on_answer(m); }, this);
    if (t != nullptr) state_ = State::asking;
}

void Subscription::refresh() {
    const auto* t = agent_.send_in(
        dialog_, "SUBSCRIBE", wanted(state_ == State::ending ? 0 : expires_), {},
        [this](const sip::Message* m) { on_answer(m); }, this);
    if (t == nullptr) anew(retry_after_failure);
}

bool Subscription::end(Done done) {
    if (state_ != State::active) return false;
    timer_.stop();
    state_ = State::ending;
    done_ = std::move(done);
    refresh();
    return true;
}

void Subscription::drop() {
    timer_.stop();
    agent_.forget(this);
    state_ = State::none;
    finished(0, "registration over");
}

void Subscription::finished(int status, std::string_view reason) {
    if (const Done done = std::exchange(done_, nullptr)) done(status, reason);
}

void Subscription::on_answer(const sip::Message* m) {
    if (m != nullptr && m->status_code() < 200) return;
    const int code = m == nullptr ? 0 : m->status_code();
    const std::string reason = m == nullptr ? "no answer" : one_line(m->reason());
    const bool ending = state_ == State::ending;
    if (code >= 200 && code < 300) {
        if (ending) {
            state_ = State::none;
        } else if (state_ == State::asking && !dialog_.take_answer(*m)) {
            agent_.bad_input("a 2xx to SUBSCRIBE that makes no dialog");
            anew(retry_after_failure);
        } else {
            if (state_ == State::asking) ++agent_.context().statistics.subscriptions;
            state_ = State::active;
            dialog_.refresh_target(*m);
            schedule(sip::expires(*m).value_or(expires_));
        }
        return finished(code, reason);
    }
    if (ending) {
        state_ = State::none;
    } else if (code == 423) {
        const auto* least = m->first(sip::HeaderId::min_expires);
        const auto seconds = least == nullptr ? std::nullopt : sip::parse_number(m->value(*least));
        if (seconds && *seconds > expires_) {
            expires_ = *seconds;
            return ask();
        }
        state_ = State::none;
    } else if (state_ == State::active) {
        // 481: the other end has forgotten it; other failures: it may have, and one more does not
        // hurt (TS 24.229 5.1.1.3).
        anew(code == 481 ? Duration{0} : retry_after_failure);
    } else {
        state_ = State::none;
    }
    finished(code, reason);
}

// TS 24.229 5.1.1.3: half of the time, or 600 s before the end.
void Subscription::schedule(std::uint32_t seconds) {
    asks_anew_ = false;
    const std::uint32_t in = seconds > 1200 ? seconds - 600 : std::max(seconds / 2, 1U);
    agent_.context().timers.start(timer_, std::chrono::seconds(in));
}

void Subscription::anew(Duration after) {
    asks_anew_ = true;
    agent_.forget(this);
    agent_.context().timers.start(timer_, after);
}

void Subscription::on_timer() {
    if (!std::exchange(asks_anew_, false)) return refresh();
    state_ = State::none;
    ask();
}

bool Subscription::has(const sip::Message& m) const {
    const auto to = sip::to(m);
    const auto from = sip::from(m);
    if (state_ == State::none || !to || !from) return false;
    if (sip::call_id(m) != dialog_.call_id || to->tag() != dialog_.local_tag) return false;
    return dialog_.remote_tag.empty() || dialog_.remote_tag == from->tag();
}

void Subscription::on_notify(const sip::Message& m, ServerTransaction& t) {
    const auto cseq = sip::cseq(m);
    if (!cseq || !dialog_.in_order(cseq->number)) return agent_.respond(t, 500, {}, {}, {});
    const auto profile =
        sip::reg_profile(m.value(sip::HeaderId::event).value_or(std::string_view{}));
    if (!profile) return agent_.respond(t, 489, {}, {}, {});
    const auto info = m.body().empty() ? Result<sip::RegInfo>(sip::RegInfo{})
                                       : sip::parse_reginfo(*profile, m.body());
    if (!info) {
        agent_.bad_input("a NOTIFY whose document cannot be read: " + info.error().text);
        return agent_.respond(t, 400, {}, {}, {});
    }
    ++agent_.context().statistics.notifies;
    agent_.respond(t, 200, {}, {}, {});
    const std::string_view all = m.value(sip::HeaderId::subscription_state).value_or("active");
    const std::string_view state = trim(all.substr(0, all.find(';')));
    if (iequals(state, "terminated")) {
        timer_.stop();
        const auto why = sip::find_param(all.substr(std::min(all.find(';'), all.size())), "reason");
        const std::string_view reason = why ? why->value : std::string_view{};
        // RFC 6665 4.1.3.
        if (reason == "rejected" || reason == "noresource") {
            // No answer to a SUBSCRIBE that is under way tells more: who waits for one is told now.
            const bool wanted = state_ == State::ending;
            state_ = State::none;
            agent_.forget(this);
            finished(wanted ? 200 : 0, "terminated");
        } else if (state_ != State::ending) {  // ending: the answer to SUBSCRIBE is the end
            anew(reason == "deactivated" || reason == "timeout" ? Duration{0}
                                                                : retry_after_failure);
        }
    }
    if (!m.body().empty()) read(*info);
}

// RFC 3680 5: a version that is not above the last one is old news; a partial document that is not
// the next one leaves a gap, which a refresh closes.
void Subscription::read(const sip::RegInfo& info) {
    if (info.version) {
        if (version_ && *info.version <= *version_) {
            agent_.context().statistics.bad_input.add("a NOTIFY with an old version");
            return;
        }
        const bool gap = !info.full && (!version_ || *info.version != *version_ + 1);
        if (gap) {
            agent_.context().statistics.bad_input.add("a NOTIFY is missing: asked for all of it");
            if (state_ == State::active) refresh();
            return;
        }
        version_ = info.version;
    }
    const auto flow = agent_.host().flow();
    if (!flow) return;
    const std::string impu = flow->identity.impu();
    const auto own = sip::parse_uri(impu);
    RegistrationNews news;
    news.version = info.version.value_or(0);
    news.full = info.full;
    for (const auto& entry : info.entries) {
        news.reauthenticate = news.reauthenticate || entry.reauthenticate;
        const auto aor = sip::parse_uri(entry.aor);
        if (!aor || !own || !sip::same_identity(*aor, *own)) continue;
        bool ours_active = false, ours = false;
        for (const auto& c : entry.contacts) {
            const auto uri = sip::parse_uri(c.uri);
            if (!uri || uri->host != flow->contact.address.to_uri_host()) continue;
            ours = true;
            ours_active = ours_active || c.active;
            if (!c.active && (c.event == sip::ContactEvent::deactivated ||
                              c.event == sip::ContactEvent::probation))
                news.may_return = true;
        }
        if (entry.state == sip::RegState::terminated || (ours && !ours_active)) news.gone = true;
    }
    agent_.host().registration_news(news);
}

}  // namespace gmgate::ue
