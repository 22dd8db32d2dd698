#include "control/dns/locator.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "control/dns/parse.h"

namespace gmgate::dns {
namespace {

constexpr std::size_t most_services = 4;
constexpr std::uint16_t default_port = 5060;

// RFC 2782: by priority; within one, drawn by weight.
std::vector<Srv> in_order(std::vector<Srv> records, Random& random) {
    std::ranges::stable_sort(records, {}, &Srv::priority);
    std::vector<Srv> out;
    for (std::size_t begin = 0; begin < records.size();) {
        std::size_t end = begin;
        while (end < records.size() && records[end].priority == records[begin].priority) ++end;
        std::vector<Srv> group(records.begin() + static_cast<std::ptrdiff_t>(begin),
                               records.begin() + static_cast<std::ptrdiff_t>(end));
        std::ranges::stable_sort(group, {}, &Srv::weight);  // zeros first
        while (!group.empty()) {
            std::uint64_t sum = 0;
            for (const Srv& s : group) sum += s.weight;
            std::uint64_t drawn = random.below(sum + 1);
            std::size_t i = 0;
            while (i + 1 < group.size() && group[i].weight < drawn) {
                drawn -= group[i].weight;
                ++i;
            }
            out.push_back(group[i]);
            group.erase(group.begin() + static_cast<std::ptrdiff_t>(i));
        }
        begin = end;
    }
    return out;
}

}  // namespace

struct Locator::Run {
    struct Service {
        std::string name;
        sip::Transport transport;
        std::vector<Srv> found;
    };
    struct Host {
        std::string name;
        std::uint16_t port;
        sip::Transport transport;
        std::vector<IpAddress> addresses;
    };
    std::vector<Service> services;
    std::vector<Host> hosts;
    std::size_t open = 0;  // questions not yet answered
    std::chrono::seconds ttl = std::chrono::hours(24);
    bool failed = false;  // one of them

    void heard(const Answer& answer) {
        if (answer.outcome == Answer::Outcome::failed)
            failed = true;
        else
            ttl = std::min(ttl, answer.ttl);
    }
};

Locator::Locator(Options options, Resolver& resolver, TimerWheel& timers, Random& random,
                 Changed changed)
    : options_(std::move(options)),
      resolver_(resolver),
      timers_(timers),
      random_(random),
      changed_(std::move(changed)) {
    again_.bind<&Locator::ask>(this);
}

Locator::~Locator() = default;

void Locator::ask() {
    // Answers hold it weakly: who is destroyed or asks anew is not found by what comes late.
    const auto run = std::make_shared<Run>();
    run_ = run;
    timers_.start(again_, std::chrono::minutes(1));  // should no answer come at all
    if (options_.port != 0) {
        run->hosts.push_back({options_.name, options_.port, options_.transport, {}});
        return ask_addresses(run);
    }
    resolver_.ask(options_.name, Type::naptr,
                  [this, weak = std::weak_ptr(run)](const Answer& answer) {
                      if (const auto r = weak.lock()) on_naptr(r, answer);
                  });
}

void Locator::on_naptr(const std::shared_ptr<Run>& run, const Answer& answer) {
    run->heard(answer);
    std::vector<Naptr> usable;
    for (const Naptr& n : answer.naptr) {
        if (iequals(n.flags, "s") &&
            (iequals(n.service, "SIP+D2U") || iequals(n.service, "SIP+D2T")))
            usable.push_back(n);
    }
    std::ranges::stable_sort(usable, [](const Naptr& a, const Naptr& b) {
        return std::pair(a.order, a.preference) < std::pair(b.order, b.preference);
    });
    for (const Naptr& n : usable) {
        if (run->services.size() == most_services) break;
        const bool tcp = iequals(n.service, "SIP+D2T");
        run->services.push_back(
            {n.replacement, tcp ? sip::Transport::tcp : sip::Transport::udp, {}});
    }
    if (run->services.empty()) {
        const auto add = [&](sip::Transport t) {
            run->services.push_back(
                {(t == sip::Transport::tcp ? "_sip._tcp." : "_sip._udp.") + options_.name, t, {}});
        };
        const bool tcp_first = options_.transport == sip::Transport::tcp;
        add(options_.transport);
        add(tcp_first ? sip::Transport::udp : sip::Transport::tcp);
    }
    ask_services(run);
}

void Locator::ask_services(const std::shared_ptr<Run>& run) {
    run->open = run->services.size();
    for (std::size_t i = 0; i < run->services.size(); ++i) {
        resolver_.ask(run->services[i].name, Type::srv,
                      [this, i, weak = std::weak_ptr(run)](const Answer& answer) {
                          const auto r = weak.lock();
                          if (!r) return;
                          r->heard(answer);
                          r->services[i].found = answer.srv;
                          if (--r->open == 0) on_services(r);
                      });
    }
}

void Locator::on_services(const std::shared_ptr<Run>& run) {
    for (const Run::Service& service : run->services) {
        for (const Srv& s : in_order(service.found, random_)) {
            if (run->hosts.size() < most_targets)
                run->hosts.push_back({s.target, s.port, service.transport, {}});
        }
    }
    // No SRV at all: the name itself. Where a question failed, that is not known to be so.
    if (run->hosts.empty() && !run->failed)
        run->hosts.push_back({options_.name, default_port, options_.transport, {}});
    ask_addresses(run);
}

void Locator::ask_addresses(const std::shared_ptr<Run>& run) {
    run->open = run->hosts.size() * ((options_.v4 ? 1U : 0U) + (options_.v6 ? 1U : 0U));
    if (run->open == 0) return finish(run);
    for (std::size_t i = 0; i < run->hosts.size(); ++i) {
        for (const Type type : {Type::a, Type::aaaa}) {
            if (!(type == Type::a ? options_.v4 : options_.v6)) continue;
            resolver_.ask(run->hosts[i].name, type,
                          [this, i, weak = std::weak_ptr(run)](const Answer& answer) {
                              const auto r = weak.lock();
                              if (!r) return;
                              r->heard(answer);
                              auto& known = r->hosts[i].addresses;
                              known.insert(known.end(), answer.addresses.begin(),
                                           answer.addresses.end());
                              if (--r->open == 0) finish(r);
                          });
        }
    }
}

void Locator::finish(const std::shared_ptr<Run>& run) {
    run_.reset();  // the caller holds the run, and is not run_
    std::vector<Target> found;
    for (const Run::Host& host : run->hosts) {
        auto addresses = host.addresses;
        std::ranges::stable_sort(addresses, {}, [](const IpAddress& a) { return a.is_v6(); });
        for (const IpAddress& a : addresses) {
            const Target target{host.transport, {a, host.port}};
            const bool usable =
                !a.is_unspecified() && (a.is_v6() ? a.octets()[0] != 0xFF : a.octets()[0] < 224U);
            if (usable && found.size() < most_targets &&
                std::ranges::find(found, target) == found.end())
                found.push_back(target);
        }
    }
    const bool was_stale = stale_;
    stale_ = found.empty();
    if (found.empty()) {
        if (!was_stale) {
            log::warn(
                "dns",
                "{}: {}. {}; asked again every {} s. Look at core.dns_servers and at "
                "the records of the domain",
                options_.name,
                run->failed ? "no DNS server answers" : "the DNS knows no address for it",
                targets_.empty() ? "Nothing can be sent there" : "The last good answer is used on",
                std::chrono::duration_cast<std::chrono::seconds>(options_.after_failure).count());
        }
        timers_.start(again_, options_.after_failure);
        return;
    }
    if (was_stale) log::info("dns", "{}: found again", options_.name);
    Duration next = std::clamp<Duration>(run->ttl, options_.shortest, options_.longest);
    if (run->failed) next = std::min<Duration>(next, std::chrono::seconds(30));
    timers_.start(again_, next);
    targets_ = std::move(found);
    changed_(targets_);
}

}  // namespace gmgate::dns
