// Phones behind a NAT (N1): ESP in UDP, and states that follow a phone to where it comes from.

#include <arpa/inet.h>
#include <fmt/core.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "sa/kernel/backend_impl.h"
#include "sa/kernel/errors.h"
#include "sa/kernel/suites.h"

namespace gmgate::kernel {

namespace {

constexpr const char* area = "kernel";
// What may have left on the old outbound state between the look at its number and the switch. The
// phone's window takes a gap; a number twice it would not take, and with AES-GCM must never be.
constexpr std::uint32_t sequence_gap = 1024;
constexpr std::size_t datagrams_a_tick = 256;
// A move is a dozen requests to the kernel, and the phone's packets say when: each may cost that
// once in a second, and all of them together so many.
constexpr Duration between_moves = std::chrono::seconds(1);
constexpr std::size_t moves_a_tick = 256;

Result<UniqueFd> encapsulation_socket(const IpAddress& address) {
    const auto broken = [&](const char* what) {
        const int error = errno;
        return fail(error == EADDRINUSE ? ErrorKind::conflict : ErrorKind::io,
                    fmt::format("security.nat: {} {} port {}: {}{}", what, address.to_string(),
                                nat_port, std::strerror(error),
                                error == EADDRINUSE
                                    ? "; a key daemon has it: stop that, or write security.nat: off"
                                    : ""));
    };
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return broken("socket for");
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(nat_port);
    std::memcpy(&at.sin_addr, address.octets().data(), sizeof at.sin_addr);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0)
        return broken("bind");
    const int type = UDP_ENCAP_ESPINUDP;
    if (::setsockopt(fd.get(), IPPROTO_UDP, UDP_ENCAP, &type, sizeof type) != 0)
        return broken("ESP in UDP at");
    return fd;
}

}  // namespace

// From here on the kernel takes ESP out of UDP at these sockets by itself, and drops keep-alives.
Result<void> KernelBackend::Impl::open_nat() {
    if (options.nat == KernelOptions::Nat::off) return {};
    std::vector<UniqueFd> sockets;
    std::optional<Error> wrong;
    if (offload == Offload::packet) {
        wrong = Error{ErrorKind::unsupported,
                      "security.nat: the NIC cannot do ESP in UDP; write kernel.offload: crypto or "
                      "none, or security.nat: off"};
    }
    for (const IpAddress& address : options.addresses) {
        if (address.is_v6() || wrong) continue;
        auto fd = encapsulation_socket(address);
        if (fd)
            sockets.push_back(std::move(*fd));
        else
            wrong = std::move(fd.error());
    }
    if (!wrong) {
        nat_sockets = std::move(sockets);
        return {};
    }
    if (options.nat == KernelOptions::Nat::required) return std::unexpected(std::move(*wrong));
    log::warn(area, "{}: phones behind a NAT are refused", wrong->text);
    return {};
}

// Only what is not ESP gets so far: IKE, which nobody here speaks.
void KernelBackend::Impl::read_nat_sockets() {
    for (const UniqueFd& fd : nat_sockets) {
        std::uint8_t octet = 0;
        for (std::size_t n = 0; n < datagrams_a_tick; ++n) {
            if (::recv(fd.get(), &octet, sizeof octet, MSG_DONTWAIT | MSG_TRUNC) < 0) break;
            counters.nat_other.add();
        }
    }
}

void KernelBackend::Impl::on_mapping(const Mapping& m) {
    if (m.reqid != options.reqid || m.now.port == 0 || m.now.address.is_unspecified()) return;
    const auto owner = states.find(m.id);
    if (owner == states.end()) return;
    const sa::SetId id = owner->second;
    Entry& e = sets.find(id)->second;
    if (!e.nat) return;
    // After a move to another address the inbound states still name the old one, so each packet
    // tells again.
    NatPath& nat = *e.nat;
    if (nat.outer == m.now) {
        nat.learnt = true;
        nat.wanted.reset();
        return;
    }
    if (nat.moved == TimePoint{} || clock.now() - nat.moved >= between_moves)
        return follow(id, e, m.now);
    // One that waits already is in the queue: no more than a place a set and second.
    if (!nat.waiting) moving.push_back(id);
    nat.waiting = true;
    nat.wanted = m.now;
}

void KernelBackend::Impl::follow(sa::SetId id, Entry& e, const Endpoint& to) {
    NatPath& nat = *e.nat;
    nat.wanted.reset();
    nat.moved = clock.now();
    if (const auto moved = move(id, e, to); !moved) {
        counters.nat_failures.add();
        if (!nat.told)
            log::warn(area, "{} behind a NAT came from {} and cannot be followed there: {}",
                      e.ue.to_string(), to.to_string(), moved.error().text);
        nat.told = true;
        return;
    }
    if (nat.learnt) counters.nat_changes.add();
    nat.learnt = true;
}

void KernelBackend::Impl::follow_waiting() {
    const std::size_t most = moving.size();
    std::size_t moves = 0;
    for (std::size_t n = 0; n < most && moves < moves_a_tick; ++n) {
        const sa::SetId id = moving.front();
        moving.pop_front();
        const auto it = sets.find(id);
        if (it == sets.end()) continue;
        NatPath& nat = *it->second.nat;
        if (nat.wanted && clock.now() - nat.moved < between_moves) {
            moving.push_back(id);
            continue;
        }
        nat.waiting = false;
        if (!nat.wanted) continue;
        const Endpoint to = *nat.wanted;  // follow() clears it
        follow(id, it->second, to);
        ++moves;
    }
}

Result<void> KernelBackend::Impl::update_states(std::span<const State> which,
                                                std::string_view what) const {
    Encoder& batch = requests.begin();
    for (const State& s : which) batch.update_state(s);
    const auto outcomes = requests.run();
    const auto wrong =
        std::ranges::find_if(outcomes, [](const Outcome& o) { return o.error != 0; });
    if (wrong == outcomes.end()) return {};
    return std::unexpected(to_error(what, *wrong));
}

// The port changes in place. The address names an outbound state: there are new ones then, numbered
// on with a gap, and the policy's switch to them is what the packets follow. The inbound states
// keep theirs, window and all: inbound, the kernel does not look at it.
Result<void> KernelBackend::Impl::move(sa::SetId id, Entry& e, const Endpoint& to) {
    NatPath& nat = *e.nat;
    const SuiteKeys keys(nat.suite, nat.keys->ck, nat.keys->ik);
    const bool elsewhere = to.address != nat.outer.address;
    const auto before = e.ids();
    auto wanted = set_states(e.ue, e.ours, e.numbers, 0, &to);
    sa::SetStats sent;
    if (elsewhere) {
        for (const std::size_t p : {out_uc, out_us}) {
            const auto other = states.find(wanted[p].id);
            if (other != states.end() && other->second != id)
                return fail(ErrorKind::conflict,
                            fmt::format("SPI {:#x} to {} is in use by another set",
                                        wanted[p].id.spi, wanted[p].id.destination.to_string()));
        }
        std::uint32_t used = 0;
        std::size_t found = 0;
        query(
            std::span(before).subspan(out_uc, 2),
            [&](std::size_t, const State& s) {
                used = std::max(used, s.out_sequence);
                sent.out_packets += s.packets;
                sent.out_bytes += s.bytes;
                ++found;
            },
            [](std::size_t) {});
        if (found != 2) return fail(ErrorKind::io, "its states are gone from the kernel");
        constexpr auto end = static_cast<std::uint32_t>(sequence_end);
        wanted = set_states(e.ue, e.ours, e.numbers,
                            used < end - sequence_gap ? used + sequence_gap : end, &to);
    }
    for (std::size_t p = 0; p < wanted.size(); ++p) {
        dress(wanted[p], p, false);
        keys.fill(wanted[p]);
    }
    if (elsewhere) {
        const auto outbound = std::span(wanted).subspan(out_uc, 2);
        if (auto refused = try_add(outbound))
            return std::unexpected(to_error("a state to there", *refused, nat.suite, false));
        const auto policies_there = nat_policies(options, e.ue, e.ours, e.numbers, to.address);
        if (auto r = put_policies(std::span(policies_there).subspan(out_uc, 2)); !r) {
            const auto policies_here = e.own_policies(options);
            (void)put_policies(std::span(policies_here).subspan(out_uc, 2));
            const std::array<StateId, 2> made{outbound[0].id, outbound[1].id};
            delete_states(made, "of a phone that moved half way");
            return r;
        }
        delete_states(std::span(before).subspan(out_uc, 2), "of a phone that moved");
        for (const std::size_t p : {out_uc, out_us}) states.erase(before[p]);
        for (const std::size_t p : {out_uc, out_us}) states.emplace(wanted[p].id, id);
        nat.earlier_packets += sent.out_packets;
        nat.earlier_bytes += sent.out_bytes;
    }
    const auto in_place = std::span(wanted).first(elsewhere ? std::size_t{out_uc} : wanted.size());
    if (elsewhere) nat.outer = to;
    if (auto r = update_states(in_place, "its states' port"); !r) return r;
    nat.outer = to;
    return {};
}

void KernelBackend::Impl::put_nat_policies() const {
    std::vector<Policy> all;
    for (const auto& [id, e] : sets)
        std::ranges::move(e.own_policies(options), std::back_inserter(all));
    if (auto r = put_policies(all); !r) log::error(area, "{}", r.error().text);
}

}  // namespace gmgate::kernel
