#pragma once
// Where requests to the core go: a list of next hops in order of preference, of which the first
// that lives is used (RFC 3263 4.3).
//
// A hop is down when a request got no answer while nothing at all was heard of it, or when it
// cannot be reached; a 503 with Retry-After rests it for so long. With more than one, those that
// are idle or down are asked with OPTIONS, and the first answer brings them back. With a single one
// nothing is probed: there is nothing to choose. One thread (the control thread).

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/registration/policy.h"
#include "control/sip/transaction.h"
#include "control/sip/transport.h"

namespace gmgate::registration {

// One for the operator.
struct NextHopView {
    NextHop hop;
    bool usable = true;
    std::string state;  // "answers", "unanswered: …", "busy for 12 s"
    std::uint64_t failures = 0;
};

class NextHops final : public sip::Destinations, private sip::TransactionUser {
  public:
    static constexpr std::size_t most = 16;
    struct Options {
        std::vector<Endpoint> local;  // ours on the core's side, at most one per family
        std::string name;             // who we are in a probe's From; a host
        Duration t1 = std::chrono::milliseconds(500);
        Duration idle = std::chrono::seconds(20);  // heard nothing of it for so long: probed
        Duration down = std::chrono::seconds(10);  // between probes of one that is down
        // A request to it may be answered for so long; longer: its dialogs are still heard of.
        Duration former = std::chrono::seconds(185 + 64);
    };
    NextHops(Options options, TimerWheel& timers, Random& random, metrics::Registry& registry);
    ~NextHops() override;
    NextHops(const NextHops&) = delete;
    NextHops& operator=(const NextHops&) = delete;
    // Outlives this. Its failures are told to us from now on.
    void attach(sip::TransactionLayer& transactions);

    // In order of preference, at most `most`; those of a family we have no address of are left out.
    // What is known of one that stays is kept. Who leaves may still answer: see trusts().
    void set(const std::vector<NextHop>& hops);

    // The way to the best one; `stay`: to this one while it lives. nullopt: none is known (yet).
    [[nodiscard]] std::optional<sip::Flow> pick(const std::optional<Endpoint>& stay = {}) const;
    // From our address of that family; nullopt: we have none.
    [[nodiscard]] std::optional<sip::Flow> flow_to(sip::Transport transport,
                                                   const Endpoint& to) const;
    // The same over TCP, for what is too large for UDP; nullopt also for a minute after a
    // connection there failed: it takes none, so UDP must do.
    [[nodiscard]] std::optional<sip::Flow> stream_to(const Endpoint& to) const;
    void no_stream(const Endpoint& to);
    // One of them, or of those that were, until nothing was asked or answered there for
    // Options::former. At most four times `most` of those: then the longest silent one goes.
    [[nodiscard]] bool trusts(const IpAddress& peer) const;
    // The same of one endpoint: a dialog may go on there.
    [[nodiscard]] bool knows(const Endpoint& at) const;
    // A request goes there, or was answered there: one that was stays trusted. What it sends by
    // itself does not count: its address may have another owner by now.
    void used(const IpAddress& peer);
    [[nodiscard]] std::string names() const;  // for log lines
    [[nodiscard]] std::vector<NextHopView> view() const;

    // sip::Destinations
    void heard(const sip::Flow& flow, int status,
               std::optional<std::uint32_t> retry_after) override;
    void lost(const sip::Flow& flow, sip::ClientFailure why) override;
    [[nodiscard]] std::optional<Other> another(std::span<const Endpoint> tried) override;

  private:
    struct Figures {
        metrics::Gauge& up;
        metrics::Counter& timeouts;
        metrics::Counter& unreachable;
        metrics::Counter& busy;
        metrics::Counter& moved;  // requests that came here because another failed
    };
    struct Hop {
        NextHop hop;
        Figures* figures = nullptr;
        bool down = false;
        bool told = false;  // that it is down
        sip::ClientFailure why = sip::ClientFailure::timeout;
        TimePoint since{};
        TimePoint busy_until{};
        TimePoint heard{};
        TimePoint asked{};  // probed last
        TimePoint told_at{};
        sip::ClientTransactionId probe = 0;
        std::uint64_t failures = 0;
    };
    struct Former {
        NextHop hop;
        TimePoint until;
    };

    void on_response(sip::ClientTransactionId id, std::uint64_t context, const sip::Flow& flow,
                     const sip::Message& response, std::span<char> bytes) override;
    void on_failure(sip::ClientTransactionId id, std::uint64_t context,
                    sip::ClientFailure failure) override;
    [[nodiscard]] bool usable(const Hop& hop) const;
    [[nodiscard]] Hop* find(const sip::Flow& flow);
    [[nodiscard]] Hop* best(std::span<const Endpoint> without);
    void took_down(Hop& hop, sip::ClientFailure why);
    void brought_up(Hop& hop);
    void on_tick();
    void probe(Hop& hop);
    Figures& figures_of(const NextHop& hop);

    Options options_;
    TimerWheel& timers_;
    Random& random_;
    metrics::Registry& registry_;
    sip::TransactionLayer* transactions_ = nullptr;
    std::vector<Hop> hops_;
    std::vector<Former> former_;                               // the longest silent one first
    std::map<std::string, std::unique_ptr<Figures>> figures_;  // at most 64, then "other"
    std::map<Endpoint, TimePoint> no_stream_;                  // until when; at most 64
    std::uint32_t cseq_ = 0;
    Timer tick_;
};

}  // namespace gmgate::registration
