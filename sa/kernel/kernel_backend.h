#pragma once
// The kernel as the packet layer: Linux XFRM does ESP in both directions, driven over netlink.
//
// A set is four states, each with the exact selector of its SA (A3); all carry one reqid. The
// policies are constant in the number of phones: wildcards for our protected ports that demand a
// state of that reqid (A6; docs/decisions). What carries our reqid is ours, whichever run made it;
// everything else in the kernel is left alone, but for a policy that another program puts in the
// very place (selector and direction) of ours while we run: ours replaces it, and the log says
// whose it was. At start such a policy is refused.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/metrics.h"
#include "base/result.h"
#include "sa/algorithms/suite.h"
#include "sa/backend.h"

namespace gmgate::kernel {

// "GM": what our states and templates are known by, unless the configuration says otherwise.
inline constexpr std::uint32_t default_reqid = 0x474D;

enum class Offload : std::uint8_t {
    none,    // the CPU does ESP
    crypto,  // the NIC encrypts and authenticates; the kernel does the rest
    packet,  // the NIC does all of ESP and the policies (kernel 6.2 or later)
};

struct KernelOptions {
    struct PortRange {
        sa::Port first = 0;  // inclusive both ends
        sa::Port last = 0;
        [[nodiscard]] bool contains(sa::Port port) const { return port >= first && port <= last; }
    };

    // The interface the phones are behind, where this host has it; `addresses` must be on it.
    // Empty: the host is not looked at.
    std::string interface;
    // The screen: the interface is made later, by who comes in front, and given the addresses.
    bool interface_comes_later = false;
    std::vector<IpAddress> addresses;  // ours on Gm; at least one
    PortRange port_ps;                 // protected ports (A5); all 256 or above
    PortRange port_pc;
    std::vector<sa::Suite> suites;        // each is tried at start; one the kernel lacks: an error
    std::uint32_t reqid = default_reqid;  // 1 or above; ours alone on this host
    std::uint32_t mark = 0;  // set on packets that passed one of our SAs (XFRMA_SET_MARK); 0: none
    std::uint32_t max_sets = 131072;
    std::uint32_t replay_window = 128;  // packets; a multiple of 32, 64–4096 (A1)
    Offload offload = Offload::none;
    std::string device;  // the NIC that does it; empty: `interface`
    // The NIC refuses: true: go on without, one warning and a metric; false: do not start. `packet`
    // is for all suites or none; a set the NIC refuses later is refused (its policies are there).
    bool offload_fallback = true;
    // Phones behind a NAT (N1): ESP in UDP at port 4500 of each IPv4 address. Not with `packet`.
    enum class Nat : std::uint8_t { off, if_possible, required };
    Nat nat = Nat::off;
    std::string proc_sys = "/proc/sys";  // the host's switches; tests have theirs
};

class Channel;

// One per process and reqid. All members: the control thread, except where said. A call is one or
// two system calls a batch of up to 128 states; the kernel answers before the call returns, so none
// waits.
class KernelBackend final : public sa::Backend {
  public:
    // Opens netlink, tries every suite with a throw-away state, refuses policies of others that
    // would come before ours, puts ours in place, and takes stock of states an earlier run left.
    // On error nothing of ours is left that was not there before, and `text` is one line with the
    // remedy: denied (CAP_NET_ADMIN), unsupported (ESP, an algorithm, offload), conflict (somebody
    // else's policy or reqid), not_found (interface, address, device), invalid (an option), io.
    // `clock` outlives the backend.
    [[nodiscard]] static Result<std::unique_ptr<KernelBackend>> create(const KernelOptions& options,
                                                                       const Clock& clock);
    // The same over channels somebody else made (tests). `events`: nullptr: no multicast events.
    [[nodiscard]] static Result<std::unique_ptr<KernelBackend>> create_on(
        const KernelOptions& options, const Clock& clock, std::unique_ptr<Channel> requests,
        std::unique_ptr<Channel> events);
    // Removes its states and policies.
    ~KernelBackend() override;

    // States an earlier run left are held until here: an install() that asks for exactly one of
    // them (numbers, addresses, suite and keys: a restored snapshot) takes it over as it runs, with
    // its counters and replay window. This removes those nobody asked for. Call once, after the
    // database is restored or created empty. Returns how many states were removed.
    std::size_t finish_reconciliation();

    // sa::Backend. install: conflict: the kernel holds such an SPI, or a selector is taken;
    // exhausted: max_sets, or the kernel's memory; unsupported: an algorithm; invalid: a port or
    // address that no policy of ours covers; denied; io. What the kernel does not remove when told
    // is tried again each second (drain_events).
    [[nodiscard]] Result<void> install(const sa::SetParams& params) override;
    using sa::Backend::remove;
    void remove(sa::SetId id) override;
    void remove(std::span<const sa::SetId> ids) override;
    void stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const override;
    [[nodiscard]] int event_fd() const override;
    // Puts our policies back where somebody removed or replaced them, and looks each ten seconds,
    // or when policies changed, whether something now comes before them: health() and a metric say
    // so. first_authentic_packet and integrity_failure are found by asking: sets without a packet
    // yet each second, the others in turn, 256 sets a second. sequence_near_end comes by itself
    // too.
    void drain_events(const std::function<void(const sa::BackendEvent&)>& handle) override;
    [[nodiscard]] std::uint32_t owner_of(const IpAddress& ue, const IpAddress& ours) const override;
    [[nodiscard]] std::size_t capacity() const override;
    [[nodiscard]] std::size_t installed() const override;
    // `own`, if the options say so and port 4500 could be had. Such a set has four policies of its
    // own. Where its packets come from is learnt from XFRM_MSG_MAPPING (drain_events), which the
    // kernel sends after a packet's ICV and place in the replay window were found good.
    [[nodiscard]] sa::NatLabels nat_labels() const override;

    // What is in use after the probe: `none` where the NIC refused and fallback was allowed.
    [[nodiscard]] Offload offload() const;
    // States of an earlier run not yet taken over or removed.
    [[nodiscard]] std::size_t leftovers() const;

    // The kernel's own counters of this network namespace (/proc/net/xfrm_stat) that tell of
    // packets it refused; empty where the kernel has none. Any thread.
    [[nodiscard]] static std::vector<sa::DropCount> drops();
    [[nodiscard]] sa::LayerHealth health() const;
    // gmgate_kernel_*: netlink requests, errors, overruns, resyncs, acquires, offload fallbacks,
    // whether something comes before our policies.
    void register_metrics(metrics::Registry& registry) const;

    struct Impl;
    explicit KernelBackend(std::unique_ptr<Impl> impl);  // create() is the way in

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::kernel
