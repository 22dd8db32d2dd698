#pragma once
// What the control plane asks of the packet layer. Implementations: the DPDK fast path, the kernel,
// the screen (both), and the test double. The control plane cannot tell them apart.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "sa/types.h"

namespace gmgate::sa {

// One set of four as the packet layer needs it. Borrowed for the call: the backend expands and
// copies the keys it keeps.
struct SetParams {
    SetId id = 0;
    IpAddress ue;    // the exact source of the first REGISTER (A3)
    IpAddress ours;  // the address it was sent to
    SaNumbers numbers;
    Suite suite;
    std::optional<NatTraversal> nat{};
    const AkaKey* ck = nullptr;
    const AkaKey* ik = nullptr;
    // The highest sequence number already used on either outbound SA: sending goes on after it. 0
    // for a new set; other values only when a snapshot is restored (the UE would take what comes
    // again for replays).
    std::uint32_t out_sequence = 0;
};

// Counters of one set, both directions. `last_use` is when the last authentic inbound packet came
// (coarse: 1 s).
struct SetStats {
    std::uint64_t in_packets = 0;
    std::uint64_t in_bytes = 0;
    std::uint64_t out_packets = 0;
    std::uint64_t out_bytes = 0;
    std::uint64_t integrity_failures = 0;
    std::uint64_t replays = 0;
    std::uint32_t highest_out_sequence = 0;  // the larger of the two outbound SAs
    TimePoint last_use{};
    Endpoint
        nat_endpoint{};  // behind a NAT: where its packets come from now; port 0: not learnt yet
};

// By what a backend knows a UE behind a NAT (N1, docs/decisions/0021).
enum class NatLabels : std::uint8_t {
    none,   // it takes no such sets
    drawn,  // the source of SM1 and ports we draw: it translates what is inside the tunnel
    own,    // the UE's own address and ports: two UEs with the same cannot both be served
};

enum class BackendEventKind : std::uint8_t {
    first_authentic_packet,  // the set carried its first authentic inbound packet
    integrity_failure,       // at least one since the last event of this kind; at most one event a
                             // second a set
    sequence_near_end,  // an outbound or inbound sequence number passed 2^32 - 2^20: retire the set
                        // (D7)
};

struct BackendEvent {
    BackendEventKind kind{};
    SetId set = 0;
    Spi spi = 0;  // the inbound SPI it was seen on; 0 for outbound
};

// What a layer tells the operator: packets it refused for one reason, and how it is.
struct DropCount {
    std::string_view name;  // "replay": a Prometheus label value; static storage
    std::string_view help;  // one line
    std::uint64_t total = 0;
};
struct LayerHealth {
    bool ok = false;
    std::string text;  // one line: "ok", or what is wrong and what to do
};

// Called from the control thread only. No call blocks longer than a few grace periods of the
// workers (microseconds).
class Backend {
  public:
    virtual ~Backend() = default;

    // Installs all four SAs or none (C12). When it returns they are live in both directions (B2).
    // exhausted: a table is full; conflict: an SPI slot or a selector is taken; unsupported: the
    // suite, or a UE behind a NAT; invalid: a port or address that is not protected (A6); io: the
    // layer refused.
    [[nodiscard]] virtual Result<void> install(const SetParams& params) = 0;
    // Unpublished when it returns: packets that come from now on find no SA. The keys are wiped as
    // soon as no worker can still be using them, without waiting here. Unknown id: nothing happens.
    virtual void remove(SetId id) = 0;
    // Removes many at the cost of one grace period.
    virtual void remove(std::span<const SetId> ids) = 0;

    // stats[i] for ids[i]; zeros for an unknown id. Sizes must be equal.
    virtual void stats(std::span<const SetId> ids, std::span<SetStats> stats) const = 0;

    // Readable when drain_events has something to give; -1: none, poll.
    [[nodiscard]] virtual int event_fd() const = 0;
    virtual void drain_events(const std::function<void(const BackendEvent&)>& handle) = 0;

    // Which worker owns the packets of this address pair (RSS): goes into the SPI. Always 0 with
    // one worker.
    [[nodiscard]] virtual std::uint32_t owner_of(const IpAddress& ue,
                                                 const IpAddress& ours) const = 0;
    // How many sets it can hold. Inbound SPIs given to it have slots below 2 * capacity() (one slot
    // an inbound SA); no two sets installed at a time share a slot, whatever their owner.
    [[nodiscard]] virtual std::size_t capacity() const = 0;
    [[nodiscard]] virtual std::size_t installed() const = 0;

    // Whether and how it takes sets with SetParams::nat (N1). none: install() of one fails with
    // `unsupported`. Constant.
    [[nodiscard]] virtual NatLabels nat_labels() const { return NatLabels::none; }
};

// Outbound needs no "move to the new set": port_uc and port_pc change at each authentication (A5),
// so the ports a message is sent between name its SA (docs/decisions/0006).

}  // namespace gmgate::sa
