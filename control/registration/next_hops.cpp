#include "control/registration/next_hops.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"

namespace gmgate::registration {
namespace {

using std::chrono::seconds;

constexpr Duration tick_interval = seconds(5);
constexpr std::uint32_t longest_rest = 300;  // seconds a Retry-After can ask for
constexpr std::size_t most_figures = 64;
constexpr std::size_t most_former = NextHops::most * 4;
constexpr Duration tell_again = seconds(60);

std::string_view name(sip::ClientFailure why) {
    return why == sip::ClientFailure::timeout ? "no answer" : "cannot be reached";
}

long long in_seconds(Duration d) {
    return std::chrono::duration_cast<seconds>(d).count();
}

}  // namespace

NextHops::NextHops(Options options, TimerWheel& timers, Random& random, metrics::Registry& registry)
    : options_(std::move(options)), timers_(timers), random_(random), registry_(registry) {
    tick_.bind<&NextHops::on_tick>(this);
}

NextHops::~NextHops() = default;

void NextHops::attach(sip::TransactionLayer& transactions) {
    transactions_ = &transactions;
    transactions.use(*this);
}

NextHops::Figures& NextHops::figures_of(const NextHop& hop) {
    std::string text = hop.to_string();
    if (figures_.size() >= most_figures && !figures_.contains(text)) text = "other";
    auto& figures = figures_[text];
    if (!figures) {
        const auto failures = [&](const char* reason) -> metrics::Counter& {
            return registry_.counter("gmgate_next_hop_failures_total",
                                     "Requests to a next hop that failed, by reason.",
                                     {{"next_hop", text}, {"reason", reason}});
        };
        figures = std::make_unique<Figures>(Figures{
            registry_.gauge("gmgate_next_hop_up",
                            "1: requests may go to this next hop; 0: it is down; -1: it is no next "
                            "hop any more.",
                            {{"next_hop", text}}),
            failures("timeout"), failures("unreachable"), failures("busy"),
            registry_.counter("gmgate_next_hop_moved_requests_total",
                              "Requests that went to this next hop after another failed.",
                              {{"next_hop", text}})});
    }
    return *figures;
}

std::optional<sip::Flow> NextHops::flow_to(sip::Transport transport, const Endpoint& to) const {
    const auto local = std::ranges::find_if(
        options_.local, [&](const Endpoint& e) { return e.address.is_v6() == to.address.is_v6(); });
    if (local == options_.local.end() || to.address.is_unspecified()) return std::nullopt;
    sip::Flow flow{transport, *local, to, 0};
    if (transport == sip::Transport::tcp) flow.local.port = 0;  // any: one connection for all
    return flow;
}

std::optional<sip::Flow> NextHops::stream_to(const Endpoint& to) const {
    const auto failed = no_stream_.find(to);
    if (failed != no_stream_.end() && timers_.now() < failed->second) return std::nullopt;
    return flow_to(sip::Transport::tcp, to);
}

void NextHops::no_stream(const Endpoint& to) {
    const TimePoint now = timers_.now();
    std::erase_if(no_stream_, [now](const auto& entry) { return entry.second <= now; });
    if (no_stream_.size() < most_former) no_stream_[to] = now + seconds(60);
}

void NextHops::set(const std::vector<NextHop>& hops) {
    const TimePoint now = timers_.now();
    std::erase_if(former_, [&](const Former& f) {
        return f.until <= now || std::ranges::find(hops, f.hop) != hops.end();
    });
    std::vector<Hop> kept;
    for (const NextHop& hop : hops) {
        if (kept.size() == most || !flow_to(hop.transport, hop.at)) continue;
        if (std::ranges::any_of(kept, [&](const Hop& h) { return h.hop == hop; })) continue;
        const auto known = std::ranges::find_if(hops_, [&](const Hop& h) { return h.hop == hop; });
        if (known != hops_.end()) {
            kept.push_back(*known);
            continue;
        }
        Hop fresh;
        fresh.hop = hop;
        fresh.figures = &figures_of(hop);
        fresh.figures->up.set(1);
        fresh.heard = now;  // thought to live until it is known better
        kept.push_back(fresh);
    }
    for (const Hop& h : hops_) {
        if (std::ranges::any_of(kept, [&](const Hop& k) { return k.hop == h.hop; })) continue;
        h.figures->up.set(-1);
        if (former_.size() == most_former) former_.erase(former_.begin());
        former_.push_back({h.hop, now + options_.former});
    }
    hops_ = std::move(kept);
    if (hops_.size() > 1) {
        if (!tick_.active()) timers_.start(tick_, tick_interval);
    } else {
        tick_.stop();
    }
}

bool NextHops::usable(const Hop& hop) const {
    return !hop.down && hop.busy_until <= timers_.now();
}

NextHops::Hop* NextHops::find(const sip::Flow& flow) {
    const auto it = std::ranges::find_if(hops_, [&](const Hop& h) {
        return h.hop.at == flow.remote && h.hop.transport == flow.transport;
    });
    return it == hops_.end() ? nullptr : &*it;
}

NextHops::Hop* NextHops::best(std::span<const Endpoint> without) {
    const auto it = std::ranges::find_if(hops_, [&](const Hop& h) {
        return usable(h) && std::ranges::find(without, h.hop.at) == without.end();
    });
    return it == hops_.end() ? nullptr : &*it;
}

std::optional<sip::Flow> NextHops::pick(const std::optional<Endpoint>& stay) const {
    if (hops_.empty()) return std::nullopt;
    const Hop* chosen = nullptr;
    for (const Hop& h : hops_) {
        if (!usable(h)) continue;
        if (stay && h.hop.at == *stay) return flow_to(h.hop.transport, h.hop.at);
        if (chosen == nullptr) chosen = &h;
    }
    // None lives, as far as is known: then the first that is only busy, or else the first.
    for (const Hop& h : hops_) {
        if (chosen == nullptr && !h.down) chosen = &h;
    }
    if (chosen == nullptr) chosen = &hops_.front();
    return flow_to(chosen->hop.transport, chosen->hop.at);
}

bool NextHops::trusts(const IpAddress& peer) const {
    return std::ranges::any_of(hops_, [&](const Hop& h) { return h.hop.at.address == peer; }) ||
           std::ranges::any_of(former_, [&](const Former& f) {
               return f.hop.at.address == peer && timers_.now() < f.until;
           });
}

bool NextHops::knows(const Endpoint& at) const {
    return std::ranges::any_of(hops_, [&](const Hop& h) { return h.hop.at == at; }) ||
           std::ranges::any_of(
               former_, [&](const Former& f) { return f.hop.at == at && timers_.now() < f.until; });
}

void NextHops::used(const IpAddress& peer) {
    if (former_.empty()) return;
    const TimePoint now = timers_.now();
    const auto spoke = std::ranges::stable_partition(
        former_, [&](const Former& f) { return f.hop.at.address != peer || f.until <= now; });
    for (Former& f : spoke) f.until = now + options_.former;
}

std::string NextHops::names() const {
    std::string text;
    for (const Hop& h : hops_) {
        if (!text.empty()) text += ", ";
        text += h.hop.at.to_string();
    }
    return text.empty() ? "the next hop (not resolved)" : text;
}

std::vector<NextHopView> NextHops::view() const {
    std::vector<NextHopView> out;
    const TimePoint now = timers_.now();
    for (const Hop& h : hops_) {
        NextHopView v{h.hop, usable(h), "answers", h.failures};
        if (h.down) {
            v.state = std::string(name(h.why)) + " since " +
                      std::to_string(in_seconds(now - h.since)) + " s; " +
                      (hops_.size() > 1 ? "probed with OPTIONS" : "the next request asks again");
        } else if (h.busy_until > now) {
            v.state =
                "said 503, rests for " + std::to_string(in_seconds(h.busy_until - now)) + " s more";
        }
        out.push_back(std::move(v));
    }
    return out;
}

void NextHops::heard(const sip::Flow& flow, int status, std::optional<std::uint32_t> retry_after) {
    used(flow.remote.address);
    Hop* hop = find(flow);
    if (hop == nullptr) return;
    const TimePoint now = timers_.now();
    hop->heard = now;
    if (hop->down) brought_up(*hop);
    if (status != 503) return;
    ++hop->failures;
    hop->figures->busy.add();
    if (!retry_after || *retry_after == 0) return;
    hop->busy_until = now + seconds(std::min(*retry_after, longest_rest));
    if (hops_.size() < 2 || (hop->told_at != TimePoint{} && now - hop->told_at < tell_again))
        return;
    hop->told_at = now;
    log::warn("core", "{} answers 503: nothing new goes there for {} s. Look at its load",
              hop->hop.to_string(), in_seconds(hop->busy_until - now));
}

void NextHops::lost(const sip::Flow& flow, sip::ClientFailure why) {
    Hop* hop = find(flow);
    if (hop == nullptr) return;
    ++hop->failures;
    (why == sip::ClientFailure::timeout ? hop->figures->timeouts : hop->figures->unreachable).add();
    // One request that a living core leaves unanswered says nothing of the core: a phone might ask
    // for just that (S2).
    const Duration lately = std::max<Duration>(options_.t1 * 64, options_.idle + tick_interval * 2);
    const bool was_heard = timers_.now() - hop->heard < lately;
    if (why == sip::ClientFailure::timeout && was_heard) return;
    took_down(*hop, why);
}

void NextHops::took_down(Hop& hop, sip::ClientFailure why) {
    if (hop.down) return;
    const TimePoint now = timers_.now();
    hop.down = true;
    hop.why = why;
    hop.since = now;
    hop.figures->up.set(0);
    if (hops_.size() < 2 || (hop.told_at != TimePoint{} && now - hop.told_at < tell_again)) return;
    hop.told = true;
    hop.told_at = now;
    const Hop* next = best({});
    log::warn("core", "{}: {}. {}. Look at it and at the network to it; gmctl health",
              hop.hop.to_string(), name(why),
              next == nullptr ? std::string("No other next hop answers either")
                              : "Requests go to " + next->hop.to_string());
}

void NextHops::brought_up(Hop& hop) {
    hop.down = false;
    hop.figures->up.set(1);
    if (!hop.told) return;
    hop.told = false;
    log::info("core", "{} answers again after {} s", hop.hop.to_string(),
              in_seconds(timers_.now() - hop.since));
}

std::optional<sip::Destinations::Other> NextHops::another(std::span<const Endpoint> tried) {
    if (tried.empty() || tried.size() > most) return std::nullopt;
    // Only what went to a next hop has others.
    if (!std::ranges::any_of(hops_, [&](const Hop& h) { return h.hop.at == tried.front(); }))
        return std::nullopt;
    Hop* hop = best(tried);
    if (hop == nullptr) return std::nullopt;
    const auto flow = flow_to(hop->hop.transport, hop->hop.at);
    if (!flow) return std::nullopt;
    const auto local = std::ranges::find_if(options_.local, [&](const Endpoint& e) {
        return e.address.is_v6() == flow->local.address.is_v6();
    });
    hop->figures->moved.add();
    return Other{*flow, local->address.to_uri_host() + ":" + std::to_string(local->port)};
}

// ---- probes ----

void NextHops::on_tick() {
    timers_.start(tick_, tick_interval);
    const TimePoint now = timers_.now();
    for (Hop& h : hops_) {
        if (h.probe != 0) continue;
        const TimePoint last = std::max(h.heard, h.asked);
        if (now - last >= (h.down ? options_.down : options_.idle)) probe(h);
    }
}

void NextHops::probe(Hop& hop) {
    if (transactions_ == nullptr) return;
    const auto flow = flow_to(hop.hop.transport, hop.hop.at);
    if (!flow) return;
    const auto branch = transactions_->new_branch();
    if (branch.id == 0) return;
    hop.asked = timers_.now();
    const auto local = std::ranges::find_if(options_.local, [&](const Endpoint& e) {
        return e.address.is_v6() == hop.hop.at.address.is_v6();
    });
    const std::string to = "sip:" + hop.hop.at.address.to_uri_host() + ":" +
                           std::to_string(hop.hop.at.port) +
                           (hop.hop.transport == sip::Transport::tcp ? ";transport=tcp" : "");
    const std::string request =
        "OPTIONS " + to + " SIP/2.0\r\nVia: SIP/2.0/" + std::string(sip::name(flow->transport)) +
        " " + local->address.to_uri_host() + ":" + std::to_string(local->port) +
        ";branch=" + branch.text + "\r\nMax-Forwards: 1\r\nFrom: <sip:" + options_.name +
        ">;tag=" + random_.token(6) + "\r\nTo: <" + to + ">\r\nCall-ID: " + random_.token(12) +
        "@" + options_.name + "\r\nCSeq: " + std::to_string(++cseq_) +
        " OPTIONS\r\nContent-Length: 0\r\n\r\n";
    hop.probe = branch.id;
    const NextHop of = hop.hop;
    if (transactions_->send_request(branch, *flow, "OPTIONS", request, *this, 0)) return;
    // The layer has told lost(); the list is as it was.
    for (Hop& h : hops_) {
        if (h.hop == of) h.probe = 0;
    }
}

void NextHops::on_response(sip::ClientTransactionId id, std::uint64_t /*context*/,
                           const sip::Flow& /*flow*/, const sip::Message& response,
                           std::span<char> /*bytes*/) {
    if (response.status_code() < 200) return;  // heard() has been told
    for (Hop& h : hops_) {
        if (h.probe == id) h.probe = 0;
    }
}

void NextHops::on_failure(sip::ClientTransactionId id, std::uint64_t /*context*/,
                          sip::ClientFailure /*failure*/) {
    for (Hop& h : hops_) {
        if (h.probe == id) h.probe = 0;
    }
}

}  // namespace gmgate::registration
