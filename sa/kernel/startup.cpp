// How the backend starts: what is there, what the kernel can, what is put in place.

#include <fmt/core.h>
#include <linux/xfrm.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "sa/kernel/backend_impl.h"
#include "sa/kernel/errors.h"
#include "sa/kernel/host.h"
#include "sa/kernel/policies.h"
#include "sa/kernel/suites.h"

namespace gmgate::kernel {

namespace {

constexpr const char* area = "kernel";
constexpr time_t poll_seconds = 1;

// Throw-away states go between addresses nobody has (RFC 5737, RFC 3849).
IpAddress probe_address(bool v6, bool ours) {
    return *IpAddress::parse(v6 ? (ours ? "2001:db8::1" : "2001:db8::2")
                                : (ours ? "192.0.2.1" : "192.0.2.2"));
}
constexpr sa::SaNumbers probe_numbers{0x474D0001, 0x474D0002, 0x474D0003, 0x474D0004,
                                      5000,       5001,       6200,       6100};

bool is_probe(const StateId& id) {
    return id.destination == probe_address(id.destination.is_v6(), true) ||
           id.destination == probe_address(id.destination.is_v6(), false);
}

bool exact(const State& s) {
    const Selector& sel = s.selector;
    const unsigned bits = sel.v6 ? 128 : 32;
    return (s.mode == XFRM_MODE_TRANSPORT || s.encapsulation) && sel.source_prefix == bits &&
           sel.destination_prefix == bits && sel.source_mask == 0xFFFF &&
           sel.destination_mask == 0xFFFF;
}

std::string_view name(Offload o) {
    return o == Offload::packet ? "packet" : o == Offload::crypto ? "crypto" : "none";
}

}  // namespace

Result<void> KernelBackend::Impl::check_options() const {
    const auto wrong = [](std::string text) { return fail(ErrorKind::invalid, std::move(text)); };
    if (options.addresses.empty()) return wrong("gm.addresses: at least one address is needed");
    for (const auto& r : {options.port_ps, options.port_pc}) {
        if (r.first < 256 || r.last < r.first)
            return wrong(fmt::format("protected ports {}-{} are no range of ports above 255",
                                     r.first, r.last));
    }
    if (options.reqid == 0) return wrong("kernel.reqid: 0 means any; write 1 or more");
    if (options.replay_window < 64 || options.replay_window > 4096 ||
        options.replay_window % 32 != 0)
        return wrong(fmt::format("kernel.replay_window: {} is no multiple of 32 within 64-4096",
                                 options.replay_window));
    if (options.max_sets == 0) return wrong("kernel.max_sets: 0 holds no phone");
    for (const sa::Suite s : options.suites) {
        if (!sa::is_valid(s)) return wrong("security.suites: no such algorithm pair");
    }
    return {};
}

Result<void> KernelBackend::Impl::start() {
    if (auto r = check_options(); !r) return r;
    if (options.offload != Offload::none) {
        if (options.device.empty()) options.device = options.interface;
        auto index = interface_index(options.device);
        if (!index) return fail(index.error().kind, "kernel.device: " + index.error().text);
        device = *index;
    }
    auto found = read_policies();
    if (!found) return std::unexpected(found.error());
    const auto without_offload = wanted_policies(options, std::nullopt);
    if (auto c = conflict(without_offload, *found, options.reqid))
        return fail(ErrorKind::conflict, std::move(*c));
    if (auto r = read_leftovers(); !r) return r;
    if (auto r = probe_suites(); !r) return r;
    if (auto r = probe_offload(); !r) return r;

    std::optional<OffloadDevice> policy_device;
    if (offload == Offload::packet) policy_device = OffloadDevice{device, XFRM_OFFLOAD_PACKET};
    policies = wanted_policies(options, policy_device);
    auto put = put_policies(policies);
    if (!put && policy_device && options.offload_fallback) {
        log::warn(area, "{} does not take policies: {}; without offload", options.device,
                  put.error().text);
        counters.offload_fallbacks.add();
        offload = Offload::none;
        policies = without_offload;
        put = put_policies(policies);
    }
    if (!put) return put;
    delete_policies(stale_policies(policies, *found, options.reqid));
    if (auto r = open_nat(); !r) return r;
    return open_poll();
}

Result<std::vector<Policy>> KernelBackend::Impl::read_policies() const {
    std::vector<Policy> out;
    requests.begin().dump_policies();
    const Outcome o = requests.dump([&] { out.clear(); },
                                    [&](const MessageView& m) {
                                        if (m.type != XFRM_MSG_NEWPOLICY) return;
                                        if (auto p = parse_policy(m.payload)) out.push_back(*p);
                                    });
    if (o.error != 0) return std::unexpected(to_error("cannot read the kernel's policies", o));
    return out;
}

Result<void> KernelBackend::Impl::read_leftovers() {
    std::optional<StateId> strange;
    std::vector<StateId> probes;
    requests.begin().dump_states();
    const Outcome o = requests.dump(
        [&] {
            leftovers.clear();
            probes.clear();
            strange.reset();
        },
        [&](const MessageView& m) {
            if (m.type != XFRM_MSG_NEWSA) return;
            const auto s = parse_state(m.payload);
            // SPI 0: the kernel's own note that it asked for a state; it goes by itself.
            if (!s || s->reqid != options.reqid || s->protocol != protocol_esp || s->id.spi == 0)
                return;
            if (is_probe(s->id))
                probes.push_back(s->id);
            else if (exact(*s))
                leftovers.emplace(s->id, fingerprint(*s));
            else
                strange = s->id;
        });
    if (o.error != 0) return std::unexpected(to_error("cannot read the kernel's states", o));
    if (strange) {
        return fail(ErrorKind::conflict,
                    fmt::format("kernel.reqid: {} is in use by another program (state to {}, spi "
                                "{:#x}); choose another number",
                                options.reqid, strange->destination.to_string(), strange->spi));
    }
    delete_states(probes, "of an earlier probe");
    if (!leftovers.empty()) log::info(area, "found {} states of an earlier run", leftovers.size());
    return {};
}

Result<void> KernelBackend::Impl::probe_suites() {
    const sa::AkaKey zero;  // of no use to anybody: no packet has these addresses
    std::vector<bool> families;
    for (const IpAddress& a : options.addresses) {
        if (std::ranges::find(families, a.is_v6()) == families.end()) families.push_back(a.is_v6());
    }
    std::string lacking;
    ErrorKind kind = ErrorKind::unsupported;
    for (const sa::Suite suite : options.suites) {
        const SuiteKeys keys(suite, zero, zero);
        for (const bool v6 : families) {
            auto states_wanted =
                set_states(probe_address(v6, false), probe_address(v6, true), probe_numbers, 0);
            State& s = states_wanted[in_ps];
            dress(s, in_ps, false);
            keys.fill(s);
            const auto refused = try_add({&s, 1});
            if (!refused) {
                delete_states({&s.id, 1}, "of a probe");
                continue;
            }
            const Error e = to_error(fmt::format("the kernel cannot do {} over {}",
                                                 sa::to_string(suite), v6 ? "IPv6" : "IPv4"),
                                     *refused, suite, v6);
            if (lacking.empty()) {
                lacking = e.text;
                kind = e.kind;
            } else {
                lacking += "; nor " + sa::to_string(suite) + (v6 ? " over IPv6" : " over IPv4");
            }
        }
    }
    if (lacking.empty()) return {};
    if (kind == ErrorKind::unsupported) lacking += ", or take them out of security.suites";
    return fail(kind, std::move(lacking));
}

// Where a driver offers no offload at all, the kernel takes a `crypto` state and does it itself
// without a word: so it is read back.
Result<void> KernelBackend::Impl::probe_offload() {
    offload = options.offload;
    if (offload == Offload::none) return {};
    const sa::AkaKey zero;
    std::string refused;
    bool any = false;
    for (const sa::Suite suite : options.suites) {
        const SuiteKeys keys(suite, zero, zero);
        bool taken = true;
        Outcome why;
        for (const IpAddress& address : options.addresses) {
            auto probe = set_states(probe_address(address.is_v6(), false),
                                    probe_address(address.is_v6(), true), probe_numbers, 0);
            for (const std::size_t position : {in_ps, out_uc}) {
                State& s = probe[position];
                dress(s, position, true);
                keys.fill(s);
                if (const auto refused_state = try_add({&s, 1})) {
                    why = *refused_state;
                    taken = false;
                    continue;
                }
                bool carried = false;
                query(
                    {&s.id, 1},
                    [&](std::size_t, const State& there) { carried = there.offload.has_value(); },
                    [](std::size_t) {});
                delete_states({&s.id, 1}, "of a probe");
                taken = taken && carried;
            }
        }
        offloaded[sa::suite_index(suite)] = taken;
        any = any || taken;
        if (taken) continue;
        if (refused.empty()) {
            refused =
                fmt::format("{} does not do offload {} ({})", options.device, name(options.offload),
                            why.error != 0 ? to_error("it says", why).text : "its driver has none");
        }
        refused += (any || refused.find(" for ") != std::string::npos ? ", " : " for ") +
                   sa::to_string(suite);
    }
    if (refused.empty()) return {};
    if (!options.offload_fallback) {
        return fail(ErrorKind::unsupported,
                    "kernel.offload: " + refused +
                        "; choose offload: none, another NIC, or offload_fallback: true");
    }
    counters.offload_fallbacks.add();
    // A policy in the NIC takes states in the NIC only: beside it the CPU's would never be found.
    if (offload == Offload::packet) any = false;
    log::warn(area, "{}; the CPU does {}", refused,
              any                                  ? "it"
              : options.offload == Offload::packet ? "all, since packet is for all suites or none"
                                                   : "all");
    offload_warned = true;
    if (!any) offload = Offload::none;
    return {};
}

Result<void> KernelBackend::Impl::put_policies(std::span<const Policy> which) const {
    while (!which.empty()) {
        const auto part = which.first(std::min(which.size(), Requests::largest_batch));
        which = which.subspan(part.size());
        Encoder& batch = requests.begin();
        for (const Policy& p : part) batch.put_policy(p);
        const auto outcomes = requests.run();
        for (std::size_t n = 0; n < outcomes.size(); ++n) {
            if (outcomes[n].error == 0) continue;
            return std::unexpected(
                to_error("the kernel refused the policy " + to_string(part[n]), outcomes[n]));
        }
    }
    return {};
}

void KernelBackend::Impl::delete_policies(std::span<const Policy> which) const {
    while (!which.empty()) {
        const auto part = which.first(std::min(which.size(), Requests::largest_batch));
        which = which.subspan(part.size());
        Encoder& batch = requests.begin();
        for (const Policy& p : part) batch.delete_policy(p);
        const auto outcomes = requests.run();
        for (std::size_t n = 0; n < outcomes.size(); ++n) {
            // ENOENT: it is gone already.
            if (outcomes[n].error == 0 || outcomes[n].error == ENOENT) continue;
            log::warn(area, "policy {} stays in the kernel: {}", to_string(part[n]),
                      to_error("removal", outcomes[n]).text);
        }
    }
}

// One descriptor for the events and for the second's tick.
Result<void> KernelBackend::Impl::open_poll() {
    const auto broken = [](const char* what) {
        return fail(ErrorKind::io, fmt::format("{}: {}", what, std::strerror(errno)));
    };
    epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return broken("epoll_create1");
    timer = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!timer.valid()) return broken("timerfd_create");
    itimerspec tick{};
    tick.it_interval.tv_sec = tick.it_value.tv_sec = poll_seconds;
    if (::timerfd_settime(timer.get(), 0, &tick, nullptr) != 0) return broken("timerfd_settime");
    for (const int fd : {timer.get(), events ? events->fd() : -1}) {
        if (fd < 0) continue;
        epoll_event e{};
        e.events = EPOLLIN;
        e.data.fd = fd;
        if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &e) != 0) return broken("epoll_ctl");
    }
    next_poll = clock.now() + std::chrono::seconds(poll_seconds);
    guarded = clock.now() - std::chrono::seconds(poll_seconds);
    return {};
}

}  // namespace gmgate::kernel
