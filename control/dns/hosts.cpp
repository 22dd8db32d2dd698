#include "control/dns/hosts.h"

#include <algorithm>

#include "base/bytes.h"
#include "control/dns/parse.h"

namespace gmgate::dns {

namespace {

std::string key_of(std::string_view name, std::uint16_t port,
                   std::optional<sip::Transport> transport) {
    return to_lower(name) + ":" + std::to_string(port) +
           (transport ? "/" + std::string(sip::name(*transport)) : "");
}

}  // namespace

void Hosts::learn(std::string_view host, std::uint16_t port,
                  std::optional<sip::Transport> transport) {
    if (!is_name(host)) return;
    const std::string key = key_of(host, port, transport);
    if (const auto it = names_.find(key); it != names_.end()) {
        it->second.used = timers_.now();
        return;
    }
    if (names_.size() >= most) {
        names_.erase(std::ranges::min_element(names_, {},
                                              [](const auto& entry) { return entry.second.used; }));
    }
    Locator::Options options;
    options.name = to_lower(host);
    options.port = port;
    options.transport = transport.value_or(sip::Transport::udp);
    options.v4 = v4_;
    options.v6 = v6_;
    Name& name = names_[key];
    name.used = timers_.now();
    name.locator = std::make_unique<Locator>(std::move(options), resolver_, timers_, random_,
                                             [](const std::vector<Target>&) {});
    name.locator->ask();
}

std::optional<Target> Hosts::find(std::string_view host, std::uint16_t port,
                                  std::optional<sip::Transport> transport) {
    const auto it = names_.find(key_of(host, port, transport));
    if (it == names_.end()) return std::nullopt;
    it->second.used = timers_.now();
    for (const Target& t : it->second.locator->targets()) {
        if (!transport || t.transport == *transport) return t;
    }
    return std::nullopt;
}

bool Hosts::contains(const IpAddress& address) const {
    return std::ranges::any_of(names_, [&](const auto& entry) {
        return std::ranges::any_of(entry.second.locator->targets(),
                                   [&](const Target& t) { return t.at.address == address; });
    });
}

}  // namespace gmgate::dns
