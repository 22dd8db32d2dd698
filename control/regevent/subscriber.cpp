#include "control/regevent/subscriber.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "control/sip/build.h"
#include "control/sip/values.h"

namespace gmgate::regevent {

using sip::HeaderId;
using namespace std::chrono_literals;

namespace {

constexpr std::string_view area = "reg-event";
constexpr std::size_t max_dialog = 2048;  // octets of tag, target and route
constexpr Duration first_pause = 4s;
constexpr Duration longest_pause = 600s;
constexpr Duration longest_asked = 24h;      // of a Retry-After
constexpr std::uint32_t shortest_wait = 60;  // s between SUBSCRIBEs, whatever is granted
constexpr Duration settled = 60s;            // a dialog that stood for so long was no accident
constexpr Duration spread = 120s;            // in which all users ask a core that has come back
// Ends are told one after the other, so that a mass of them (a lost packet layer) is no flood; what
// would be told later than this the core finds out by itself, or by 481.
constexpr Duration between_ends = 5ms;
constexpr Duration latest_end = 600s;
constexpr std::size_t id_digits = 16;

std::string hex(std::uint64_t v) {
    std::string out(id_digits, '0');
    for (std::size_t i = id_digits; i-- > 0; v >>= 4U) out[i] = "0123456789abcdef"[v & 15U];
    return out;
}

// The core will not have it, however often it is asked.
bool is_final(int status) {
    switch (status) {
        case 403:
        case 404:
        case 405:
        case 406:
        case 420:
        case 489:
        case 501:
            return true;
        default:
            return false;
    }
}

bool is_unsupported(int status) {
    return status == 405 || status == 489 || status == 501;
}

// RFC 6665 4.1.3: reasons of a core that does not want to be asked again.
bool is_final(std::string_view reason) {
    return iequals(reason, "rejected") || iequals(reason, "noresource") ||
           iequals(reason, "invariant");
}

metrics::Counter& subscribes(metrics::Registry& registry, std::string result) {
    return registry.counter("gmgate_reg_event_subscribes_total",
                            "SUBSCRIBEs to the registration event package, by result.",
                            {{"result", std::move(result)}});
}
metrics::Counter& notifies(metrics::Registry& registry, std::string result) {
    return registry.counter("gmgate_reg_event_notifies_total",
                            "NOTIFYs of the registration event package, by what became of them.",
                            {{"result", std::move(result)}});
}

}  // namespace

Subscriber::Subscriber(Options options, Host& host, TimerWheel& timers, Random& random,
                       metrics::Registry& registry)
    : options_(std::move(options)),
      host_(host),
      timers_(timers),
      random_(random),
      names_(random),
      gauge_(registry.gauge("gmgate_reg_event_subscriptions",
                            "Users whose registration event subscription the core has accepted.")),
      subscribed_(subscribes(registry, "accepted")),
      refused_(subscribes(registry, "refused")),
      unanswered_(subscribes(registry, "unanswered")),
      obeyed_(notifies(registry, "obeyed")),
      repeated_(notifies(registry, "old")),
      gaps_(notifies(registry, "gap")),
      malformed_(notifies(registry, "malformed")),
      stray_(notifies(registry, "unknown")) {}

Subscriber::~Subscriber() = default;

// ---- names of a dialog: nobody but us can make them, and nothing of them is stored ----

std::string Subscriber::call_id(const Subscription& s) const {
    const std::string plain = hex(s.id) + hex(s.number);
    return hex(s.id) + hex(names_("c" + plain)) + "@" + options_.address;
}
std::string Subscriber::our_tag(const Subscription& s) const {
    return hex(names_("t" + hex(s.id) + hex(s.number)));
}
Subscriber::Subscription* Subscriber::find_dialog(std::string_view id) const {
    if (id.size() < 2 * id_digits) return nullptr;
    SlotId slot = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id_digits, slot, 16);
    if (error != std::errc{} || end != id.data() + id_digits) return nullptr;
    Subscription* s = subscriptions_.find(slot);
    return s != nullptr && call_id(*s) == id ? s : nullptr;
}

std::string_view Subscriber::line(const Subscription& s, unsigned which) {
    std::string_view rest = s.dialog;
    for (; which > 0; --which) {
        const auto end = rest.find('\n');
        if (end == std::string_view::npos) return {};
        rest = rest.substr(end + 1);
    }
    return rest.substr(0, rest.find('\n'));
}

// ---- the life of a subscription ----

void Subscriber::set_state(Subscription& s, State state) {
    if (s.state == State::established) --established_;
    if (state == State::established) ++established_;
    s.state = state;
    gauge_.set(static_cast<std::int64_t>(established_));
}

void Subscriber::arm(Subscription& s) {
    TimePoint at = s.next;
    if (s.overdue != TimePoint{} && (at == TimePoint{} || s.overdue < at)) at = s.overdue;
    if (at == TimePoint{}) return s.timer.stop();
    timers_.start_at(s.timer, at);
}

SlotId Subscriber::start(UserId user) {
    Subscription& s = subscriptions_.emplace(*this, user);
    s.expires = options_.expires;
    s.next = soonest();
    arm(s);
    return s.id;
}

// Now; behind the pause of a core without the package at another moment for each user.
TimePoint Subscriber::soonest() {
    if (unsupported_until_ <= timers_.now()) return timers_.now();
    return unsupported_until_ + below(spread);
}
Duration Subscriber::below(Duration bound) {
    return Duration(
        static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(bound.count()))));
}

void Subscriber::ends_in(Subscription& s, std::optional<Duration> left) {
    s.overdue = left ? timers_.now() + *left + options_.margin : TimePoint{};
    arm(s);
}

void Subscriber::ask(SlotId id) {
    Subscription* s = subscriptions_.find(id);
    if (s == nullptr) return;
    if (s->state == State::refused) {
        set_state(*s, State::waiting);
        s->next = soonest();
    } else if (s->state == State::established) {
        s->next = timers_.now();
    }
    arm(*s);
}

void Subscriber::renewed(SlotId id, std::optional<Duration> left) {
    Subscription* s = subscriptions_.find(id);
    if (s == nullptr || s->state == State::ending) return;
    ends_in(*s, left);
    if (s->state == State::refused) {
        set_state(*s, State::waiting);
        s->next = soonest();
    } else if (s->state == State::established && !s->refreshing && s->tells_refreshes) {
        // It tells of this one too, if it still knows us; a NOTIFY puts `next` back.
        s->next = std::min(s->next, timers_.now() + options_.t1 * 64);
    }
    arm(*s);
}

void Subscriber::stop(SlotId id, bool core_knows) {
    Subscription* s = subscriptions_.find(id);
    if (s == nullptr || s->state == State::ending) return;
    const bool in_dialog = s->state == State::established;
    if (s->transaction != 0) transactions_->abandon(std::exchange(s->transaction, 0));
    if (s->dialog.empty()) return forget(id);
    set_state(*s, State::ending);
    s->overdue = {};
    const TimePoint now = timers_.now();
    const TimePoint turn = std::max(now, tell_next_);
    s->untold = in_dialog && !core_knows && turn < std::min(s->lasts, now + latest_end);
    if (!s->untold) {
        s->next = now + options_.t1 * 64;
        return arm(*s);
    }
    tell_next_ = turn + between_ends;
    s->next = turn;
    if (turn > now) return arm(*s);
    tell_end(*s);
}

void Subscriber::tell_end(Subscription& s) {
    s.untold = false;
    subscribe(s, 0);
    s.next = timers_.now() + options_.t1 * 64;
    arm(s);
}

void Subscriber::forget(SlotId id) {
    Subscription* s = subscriptions_.find(id);
    if (s == nullptr) return;
    if (s->transaction != 0) transactions_->abandon(s->transaction);
    set_state(*s, State::ending);
    subscriptions_.erase(id);
}

void Subscriber::on_timer(Subscription& s) {
    const TimePoint now = timers_.now();
    if (s.state == State::ending) return s.untold ? tell_end(s) : forget(s.id);
    if (s.overdue != TimePoint{} && now >= s.overdue) {
        s.overdue = {};
        const SlotId id = s.id;
        const auto left = host_.on_overdue(s.user);
        Subscription* still = subscriptions_.find(id);
        if (still != nullptr && still->state != State::ending) ends_in(*still, left);
        return;
    }
    s.next = {};
    if (s.state != State::established && unsupported_) {
        // One asks first, for all.
        const Subscription* first = subscriptions_.find(probe_);
        const bool asking = first != nullptr && first != &s && first->transaction != 0;
        if (now < unsupported_until_ || asking) {
            s.next = std::max(soonest(), now + 1s + below(spread));
            return arm(s);
        }
        probe_ = s.id;
    }
    if (s.state == State::established && now >= s.lasts) lose_dialog(s);
    subscribe(s, s.expires);
    arm(s);
}

// The core does not know the dialog, or its time is over: the next SUBSCRIBE makes another.
void Subscriber::lose_dialog(Subscription& s) {
    // What is under way is the old dialog's: its answer says nothing of the next.
    if (s.transaction != 0) transactions_->abandon(std::exchange(s.transaction, 0));
    ++s.number;
    s.dialog.clear();
    s.cseq = 0;
    s.remote_cseq.reset();
    s.has_version = false;
    s.refreshing = false;
    s.asked = false;
    s.gap = false;
    s.tells_refreshes = false;
    if (s.state != State::ending) set_state(s, State::waiting);
}

void Subscriber::subscribe(Subscription& s, std::uint32_t expires) {
    const std::string_view identity = host_.identity(s.user);
    const bool in_dialog = !s.dialog.empty();
    if (s.transaction != 0 || (identity.empty() && !in_dialog)) return;
    const auto branch = transactions_->new_branch();
    if (branch.id == 0) return failed(s, std::nullopt);
    const std::string_view target = in_dialog ? line(s, 1) : identity;
    const std::string_view route = line(s, 2);
    const sip::Flow flow = host_.flow_to(!in_dialog      ? std::string_view{}
                                         : route.empty() ? target
                                                         : route);
    const std::string aor(identity.empty() ? target : identity);
    const std::string seconds = std::to_string(expires);
    sip::RequestBuilder request("SUBSCRIBE", target);
    request
        .header("Via", {"SIP/2.0/", sip::name(flow.transport), " ", options_.address,
                        ";branch=", branch.view()})
        .header("Max-Forwards", "70");
    if (!route.empty()) request.header("Route", route);
    request.header("From", {"<sip:", options_.name, ">;tag=", our_tag(s)});
    if (in_dialog) {
        request.header("To", {"<", aor, ">;tag=", line(s, 0)});
    } else {
        request.header("To", {"<", aor, ">"});
    }
    request.header("Call-ID", call_id(s))
        .header("CSeq", {std::to_string(++s.cseq), " SUBSCRIBE"})
        .header("Contact", {"<sip:", options_.address, ">"})
        .header("Event", sip::event_package(options_.profile))
        .header("Accept", sip::content_type(options_.profile))
        .header("Expires", seconds)
        .header("P-Asserted-Identity", {"<sip:", options_.name, ">"});
    const auto bytes = request.finish();
    if (!bytes || !transactions_->send_request(branch, flow, "SUBSCRIBE", *bytes, *this, s.id)) {
        if (!bytes) transactions_->abandon(branch.id);
        return failed(s, std::nullopt);
    }
    s.transaction = branch.id;
    s.asked = true;
    host_.note(s.user, "SUBSCRIBE", 0, true);
    if (s.state == State::established) {
        s.refreshing = true;
    } else if (s.state != State::ending) {
        set_state(s, State::subscribing);
    }
}

void Subscriber::on_response(sip::ClientTransactionId, std::uint64_t context, const sip::Flow&,
                             const sip::Message& response, std::span<char>) {
    Subscription* s = subscriptions_.find(context);
    const int status = response.status_code();
    if (s == nullptr || status < 200) return;
    s->transaction = 0;
    s->refreshing = false;
    host_.note(s->user, "SUBSCRIBE", status, false);
    if (s->state == State::ending) return;
    if (status < 300) {
        accepted(*s, response);
        return arm(*s);
    }
    refused_.add();
    if (status == 423) {
        const auto least = sip::parse_number(response.value(HeaderId::min_expires).value_or(""));
        if (least && *least > s->expires) {
            s->expires = *least;
            // At once, but not by one that asks for more and more.
            if (s->failures == 0) {
                ++s->failures;
                if (line(*s, 1).empty()) lose_dialog(*s);
                s->next = timers_.now();
                return arm(*s);
            }
        }
    }
    if (status == 481 && !line(*s, 1).empty()) {
        lose_dialog(*s);
        s->next = timers_.now();
        return arm(*s);
    }
    if (is_final(status)) {
        if (is_unsupported(status) && unsupported_until_ <= timers_.now()) {
            log::warn(area,
                      "the core answers {} to SUBSCRIBE: it does not know the registration event "
                      "package; asked again in 10 minutes. core.reg_event: off ends this",
                      status);
            unsupported_ = true;
            unsupported_until_ = timers_.now() + longest_pause;
        }
        lose_dialog(*s);
        set_state(*s, State::refused);
        s->next = {};
        return arm(*s);
    }
    failed(*s, sip::parse_number(response.value(HeaderId::retry_after).value_or("")));
}

void Subscriber::on_failure(sip::ClientTransactionId, std::uint64_t context, sip::ClientFailure) {
    Subscription* s = subscriptions_.find(context);
    if (s == nullptr) return;
    s->transaction = 0;
    s->refreshing = false;
    unanswered_.add();
    if (s->state != State::ending) failed(*s, std::nullopt);
}

// Tried again after a pause that grows, at another moment than the other users.
void Subscriber::failed(Subscription& s, std::optional<std::uint32_t> retry_after) {
    if (s.state == State::ending) return;
    if (s.state == State::subscribing) set_state(s, State::waiting);
    // A NOTIFY came before the answer, which was no 2xx: half a dialog, whose target nobody gave.
    if (s.state != State::established && !s.dialog.empty() && line(s, 1).empty()) lose_dialog(s);
    Duration pause = first_pause * (1U << std::min<unsigned>(s.failures, 8));
    if (s.failures < 255) ++s.failures;
    pause = std::min(pause, longest_pause);
    const Duration jitter = below(pause);
    if (retry_after) {
        const Duration asked = std::chrono::seconds(*retry_after);
        pause = std::max(pause, std::min(asked, longest_asked));
    }
    s.next = timers_.now() + pause + jitter;
    arm(s);
}

void Subscriber::accepted(Subscription& s, const sip::Message& response) {
    if (timers_.now() >= unsupported_until_) unsupported_ = false;
    const std::uint32_t granted = std::min(sip::expires(response).value_or(s.expires), s.expires);
    if (granted == 0) {  // a subscription that is over is none
        refused_.add();
        lose_dialog(s);
        return failed(s, std::nullopt);
    }
    subscribed_.add();
    const auto to = sip::to(response);
    const auto contact = response.first_value(HeaderId::contact);
    const auto target = contact ? sip::parse_name_addr(*contact) : std::nullopt;
    if (s.dialog.empty() || line(s, 1).empty()) {
        // RFC 3261 12.1.2: the routes in reverse.
        std::vector<std::string_view> routes;
        for (const sip::Value& v : response.values(HeaderId::record_route))
            routes.push_back(v.text);
        std::string dialog(to ? to->tag() : std::string_view{});
        dialog += '\n';
        dialog += target ? target->uri.text : host_.identity(s.user);
        dialog += '\n';
        for (auto r = routes.rbegin(); r != routes.rend(); ++r) {
            if (r != routes.rbegin()) dialog += ", ";
            dialog += *r;
        }
        if (dialog.size() <= max_dialog && dialog.find('\r') == std::string::npos)
            s.dialog = std::move(dialog);
    }
    if (s.state != State::established) s.since = timers_.now();
    set_state(s, State::established);
    lasting(s, granted);
    // Still without the whole state: it comes behind this, or is asked for again.
    if (s.gap) failed(s, std::nullopt);
}

// TS 24.229 5.2.3: 600 s before the end, or at half of what is not above 1200 s.
void Subscriber::lasting(Subscription& s, std::uint32_t seconds) {
    const std::uint32_t wait = seconds > 1200 ? seconds - 600 : seconds / 2;
    s.lasts = timers_.now() + std::chrono::seconds(seconds);
    s.next = timers_.now() + std::chrono::seconds(std::max(wait, shortest_wait));
}

// ---- NOTIFY ----

std::optional<Subscriber::Verdict> Subscriber::on_notify(const sip::Message& request) {
    Subscription* s = find_dialog(sip::call_id(request));
    if (s == nullptr) {
        // Of a dialog that is gone: by the form of its name.
        const std::string_view id = sip::call_id(request);
        if (!id.ends_with("@" + options_.address)) return std::nullopt;
        stray_.add();
        return Verdict{481};
    }
    const auto to = sip::to(request);
    const auto from = sip::from(request);
    const auto sequence = sip::cseq(request);
    const auto event = request.value(HeaderId::event);
    if (!to || !from || !sequence || to->tag() != our_tag(*s) || from->tag().empty() ||
        (!line(*s, 0).empty() && line(*s, 0) != from->tag())) {
        stray_.add();
        return Verdict{481};
    }
    if (!event || sip::reg_profile(*event) != options_.profile) {
        malformed_.add();
        return Verdict{489};
    }
    if (s->remote_cseq && sequence->number <= *s->remote_cseq) {
        repeated_.add();
        return Verdict{500, "Out Of Order"};
    }
    host_.note(s->user, "NOTIFY", 0, false);
    const std::string_view state = request.value(HeaderId::subscription_state).value_or("active");
    const std::size_t params = std::min(state.find(';'), state.size());
    const bool ended = iequals(trim(state.substr(0, params)), "terminated");
    std::optional<sip::RegInfo> info;
    if (!request.body().empty()) {
        const auto type = request.value(HeaderId::content_type).value_or("");
        if (!iequals(trim(type.substr(0, type.find(';'))), sip::content_type(options_.profile))) {
            malformed_.add();
            return Verdict{415};
        }
        auto parsed = sip::parse_reginfo(options_.profile, request.body());
        if (!parsed) {
            malformed_.add();
            log::debug(area, "{}: {}", host_.identity(s->user), parsed.error().text);
            return Verdict{400, "Bad Body"};
        }
        info = std::move(*parsed);
    }
    s->remote_cseq = sequence->number;
    // The first behind a SUBSCRIBE is its answer (RFC 6665 4.1.2.4): it tells what was before.
    const bool unasked = !std::exchange(s->asked, false);
    if (s->state == State::ending) {
        if (ended) forget(s->id);
        return Verdict{};
    }
    // It may come before the 200 (RFC 6665 4.1.2.4): only its tag is new then.
    if (s->dialog.empty()) s->dialog = std::string(from->tag());
    const SlotId id = s->id;
    bool obey = info.has_value();
    if (info && info->version) {
        if (s->has_version && *info->version <= s->version) {
            repeated_.add();
            obey = false;
        } else if (!info->full && (!s->has_version || *info->version != s->version + 1)) {
            // One was lost: the whole state is asked for, and nothing guessed (RFC 3680 5).
            gaps_.add();
            obey = false;
            // Once for a gap: the others behind it neither hasten nor delay that.
            if (!std::exchange(s->gap, true) && s->transaction == 0) failed(*s, std::nullopt);
        } else {
            s->gap = false;
            s->version = *info->version;
            s->has_version = true;
        }
    }
    if (s->state == State::established && !ended && !s->gap) {
        const TimePoint now = timers_.now();
        if (obey && now - s->since >= settled) s->failures = 0;
        const auto left = std::chrono::duration_cast<std::chrono::seconds>(s->lasts - now).count();
        if (s->next > now && (obey || s->failures == 0) && left > 2 * shortest_wait) {
            // The core knows us: no need to ask before time.
            const TimePoint lasts = s->lasts;
            lasting(*s, static_cast<std::uint32_t>(left));
            s->lasts = lasts;
            arm(*s);
        }
    }
    if (ended) {  // and made again, unless this is the end of the registration
        lose_dialog(*s);
        const auto reason = sip::find_param(state.substr(params), "reason");
        const auto after = sip::find_param(state.substr(params), "retry-after");
        if (reason && is_final(reason->value)) {
            set_state(*s, State::refused);
            s->next = {};
            arm(*s);
        } else {
            failed(*s, after ? sip::parse_number(after->value) : std::nullopt);
        }
    }
    if (!obey) return Verdict{};
    obeyed_.add();
    if (unasked && !ended) {
        for (const sip::RegEntry& e : info->entries) {
            for (const sip::RegContact& c : e.contacts)
                s->tells_refreshes |= c.event == sip::ContactEvent::refreshed;
        }
    }
    const auto left = host_.on_reginfo(s->user, *info, ended);
    s = subscriptions_.find(id);
    if (s != nullptr && s->state != State::ending) ends_in(*s, left);
    return Verdict{};
}

std::string_view Subscriber::state(SlotId id) const {
    const Subscription* s = subscriptions_.find(id);
    if (s == nullptr) return "none";
    switch (s->state) {
        case State::waiting:
        case State::subscribing:
            return "subscribing";
        case State::established:
            return "subscribed";
        case State::refused:
            return "refused";
        case State::ending:
            return "ending";
    }
    return "none";
}

}  // namespace gmgate::regevent
