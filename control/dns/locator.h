#pragma once
// From a domain to the elements that serve it, as RFC 3263 says: NAPTR, SRV with priority and
// weight, A and AAAA. Asked again when the records' time is over. Where the DNS is down or suddenly
// says nothing, the last good answer stays. One thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/timer_wheel.h"
#include "control/dns/resolver.h"
#include "control/sip/transport.h"

namespace gmgate::dns {

struct Target {
    sip::Transport transport = sip::Transport::udp;
    Endpoint at;
    bool operator==(const Target&) const = default;
};

class Locator {
  public:
    static constexpr std::size_t most_targets = 16;
    struct Options {
        std::string name;
        std::uint16_t port = 0;                          // not 0: A and AAAA alone
        sip::Transport transport = sip::Transport::udp;  // where the DNS does not tell
        bool v4 = true;                                  // families worth asking for
        bool v6 = true;
        Duration shortest = std::chrono::seconds(5);  // between questions, whatever the TTL
        Duration longest = std::chrono::hours(1);
        Duration after_failure = std::chrono::seconds(10);
    };
    // `changed`: called with each answer that has targets, most preferred first, also an equal one.
    using Changed = std::function<void(const std::vector<Target>&)>;
    // References outlive this.
    Locator(Options options, Resolver& resolver, TimerWheel& timers, Random& random,
            Changed changed);
    ~Locator();
    Locator(const Locator&) = delete;
    Locator& operator=(const Locator&) = delete;

    void ask();  // the first question; later ones follow by themselves
    [[nodiscard]] const std::vector<Target>& targets() const { return targets_; }
    [[nodiscard]] const Options& options() const { return options_; }
    // The latest attempt found nothing: what is there is an older answer.
    [[nodiscard]] bool stale() const { return stale_; }

  private:
    struct Run;
    void on_naptr(const std::shared_ptr<Run>& run, const Answer& answer);
    void ask_services(const std::shared_ptr<Run>& run);
    void on_services(const std::shared_ptr<Run>& run);
    void ask_addresses(const std::shared_ptr<Run>& run);
    void finish(const std::shared_ptr<Run>& run);

    Options options_;
    Resolver& resolver_;
    TimerWheel& timers_;
    Random& random_;
    Changed changed_;
    std::shared_ptr<Run> run_;  // under way; answers to an older one find nobody
    std::vector<Target> targets_;
    bool stale_ = false;
    Timer again_;
};

}  // namespace gmgate::dns
