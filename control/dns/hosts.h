#pragma once
// Host names in routes of the core: where they are, as far as it is known now. A name is looked up
// when it is learnt and kept known from then on; at most 256, the longest unused gives way. Only
// what the core says is learnt: a phone must not make us ask, nor trust. One thread.

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "control/dns/locator.h"

namespace gmgate::dns {

class Hosts {
  public:
    static constexpr std::size_t most = 256;
    // References outlive this. v4, v6: families worth asking for.
    Hosts(Resolver& resolver, TimerWheel& timers, Random& random, bool v4, bool v6)
        : resolver_(resolver), timers_(timers), random_(random), v4_(v4), v6_(v6) {}

    // sip:host[:port][;transport=…], from the core.
    void learn(std::string_view host, std::uint16_t port, std::optional<sip::Transport> transport);
    // The best target of one that was learnt; nullopt: not known (yet).
    std::optional<Target> find(std::string_view host, std::uint16_t port,
                               std::optional<sip::Transport> transport);
    // Is it an address of one of them?
    [[nodiscard]] bool contains(const IpAddress& address) const;
    [[nodiscard]] std::size_t size() const { return names_.size(); }

  private:
    struct Name {
        std::unique_ptr<Locator> locator;
        TimePoint used{};
    };
    Resolver& resolver_;
    TimerWheel& timers_;
    Random& random_;
    bool v4_;
    bool v6_;
    std::unordered_map<std::string, Name> names_;  // "host:port/transport", of the core's choosing
};

}  // namespace gmgate::dns
