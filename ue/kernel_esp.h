#pragma once
// Phones whose ESP is Linux's: states and policies by netlink (ue/xfrm.h), sockets bound to the
// protected ports. An implementation of ESP that is neither the gateway's nor gmue's.
//
// Per set: four states, four policies, one UDP socket a port, connected to the P-CSCF's port, so
// that sets which share port_us (A5) do not hear each other. The TCP listener on port_us belongs to
// the phone's address and lives as long as a set with that port. All of it is removed with the set,
// also when gmue fails. What one that was killed (-9) left is removed by the next.
//
// The reqids of a gmue are a slice of ours: a running one holds it by an abstract Unix socket,
// which is the network namespace's as the kernel's SAs are, and ends with it however it ends. What
// carries the reqids of a slice nobody holds is left over. One thread, that of the loop.

#include <map>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "ue/host_esp.h"
#include "ue/xfrm.h"

namespace gmgate::ue {

class KernelEsp final : public HostEsp {
  public:
    // Takes a slice, and removes what killed ones left. exhausted: too many gmues run.
    static Result<std::unique_ptr<KernelEsp>> open(EventLoop& loop);
    // Only removes; how many states and policies that were.
    static Result<std::size_t> remove_leavings();
    // Installs one SA of each suite between these addresses and removes it again: what the kernel
    // lacks is said before the first phone starts.
    Result<void> probe(const IpAddress& ue, const IpAddress& pcscf,
                       std::span<const sa::Suite> suites);

    Result<std::unique_ptr<HostSet>> install(const IpAddress& ue, const IpAddress& pcscf,
                                             const SaNumbers& numbers, sa::Suite suite,
                                             const sa::EspKeys& keys,
                                             HostSetHandler& handler) override;

  private:
    class Set;
    struct Listener {
        UniqueFd fd;
        // By the P-CSCF's endpoint at port_pc.
        std::map<Endpoint, Set*> sets;
    };
    struct Slice {
        std::uint32_t first_reqid = 0;
        UniqueFd held;
    };
    KernelEsp(EventLoop& loop, Xfrm xfrm, Slice slice);
    // A free slice, nullopt: there is none; each that is free is swept. `removed` is added to.
    static Result<std::optional<Slice>> sweep(Xfrm& xfrm, std::size_t& removed);
    Result<void> listen(const Endpoint& at, const Endpoint& peer, Set& set);
    void unlisten(const Endpoint& at, const Endpoint& peer, const Set& set);
    void accept(const Endpoint& at);
    [[nodiscard]] std::uint32_t next_reqid();

    EventLoop& loop_;
    Xfrm xfrm_;
    std::map<Endpoint, Listener> listeners_;
    Slice slice_;
    std::uint32_t reqids_used_ = 0;
};

}  // namespace gmgate::ue
