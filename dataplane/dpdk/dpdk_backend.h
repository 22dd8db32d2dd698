#pragma once
// The DPDK packet backend, whole: EAL, the Gm port, the port to the host stack, workers, SA tables.
//
//     phones ── NIC (Gm port) ── workers: ESP, replay, selectors ── TAP (host port) ── sockets of
//     the control plane
//
// Everything that is not ESP of ours, and not for a protected port, passes between NIC and TAP
// unchanged both ways (ARP, ND, ICMP, TCP, unprotected SIP). Cleartext for a protected port ends
// here (A6), and so does ESP without an SA.

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
#include "sa/backend.h"

namespace gmgate::dataplane {

enum class IdlePolicy : std::uint8_t {
    adaptive,  // a worker without packets sleeps until its ports or another worker wake it
    poll,      // never sleeps: one core per worker, for bare metal
};
enum class CryptoChoice : std::uint8_t {
    automatic,  // ipsec_mb where this CPU can, OpenSSL otherwise
    ipsec_mb,
    openssl,
};

struct DpdkOptions {
    struct Address {
        IpAddress address;
        unsigned prefix = 32;  // length in bits; 0–32 or 0–128
    };
    // A network of phones behind a router on the Gm side.
    struct Route {
        IpAddress to;
        unsigned prefix = 0;
        IpAddress via;
    };
    struct PortRange {
        sa::Port first = 0;  // inclusive both ends
        sa::Port last = 0;
    };

    // The kernel's network interface that faces the phones. It is taken from the host while we run
    // (its addresses are no longer answered for) and given back on exit. Ignored if `gm_device` is
    // set.
    std::string gm_interface;
    // A DPDK device in place of it: "0000:3b:00.0", or a vdev such as "net_virtio_user0,path=…".
    // Empty: af_packet.
    std::string gm_device;
    // Interface of the host stack that we make; at most 15 octets; carries the NIC's MAC address.
    std::string tap_name = "gm0";
    std::vector<Address> addresses;  // set on the TAP; at least one
    std::vector<Route> routes;       // through the TAP
    // This host's addresses on other sides (the core's): what comes for them from the phones' side
    // is dropped. Those that are in `addresses` too count as Gm's.
    std::vector<IpAddress> other_addresses;
    PortRange port_ps;  // protected ports (A5)
    PortRange port_pc;
    std::uint16_t mtu = 1500;  // of the wire, octets, 1280–9000 (8000 on gm_interface); the TAP's
                               // is lower by what ESP adds

    // ESP in UDP on port 4500 for UEs behind a NAT (N1); the host then sees nothing of that port.
    // Not with verify_only.
    bool nat = false;

    unsigned workers = 1;               // 1–15
    std::vector<unsigned> worker_cpus;  // pin worker i to worker_cpus[i]; empty: not pinned
    std::uint32_t max_sets = 131072;    // SA sets the tables can hold
    std::uint32_t replay_window = 128;  // packets; a multiple of 64, 64–1024
    unsigned memory_mb = 512;           // what DPDK may take, MiB
    bool hugepages = false;             // false: ordinary memory
    IdlePolicy idle = IdlePolicy::adaptive;
    CryptoChoice crypto = CryptoChoice::automatic;
    // The screen: ESP is verified and passed on as it came, to a host that decapsulates it and
    // seals what goes out (XFRM). install() then opens the way in only; out_* of the statistics
    // stay 0.
    bool verify_only = false;
};

struct DropCount : sa::DropCount {
    std::vector<std::uint64_t> by_worker;
};

// ok: everything below is well.
struct DataplaneHealth : sa::LayerHealth {
    bool gm_link_up = false;  // carrier of the Gm port
    bool gm_present = false;  // false: the interface was deleted under us; only a restart helps
    bool tap_up = false;
    std::vector<bool>
        worker_alive;  // its loop went round in the last two seconds, or it sleeps as it should
};

class BufferPools;
class Port;

// One per process (DPDK can be started once). All members: the control thread, except where said.
class DpdkBackend final : public sa::Backend {
  public:
    // Starts DPDK, takes the interface, makes the TAP (up, with its addresses), starts the workers.
    // On error everything is undone and `text` is one line with the remedy: denied (which
    // capability), not_found (which interfaces there are), conflict (TAP exists; a second copy
    // holds the interface), invalid (an option), io (what DPDK said). `clock` outlives the backend.
    [[nodiscard]] static Result<std::unique_ptr<DpdkBackend>> create(const DpdkOptions& options,
                                                                     const Clock& clock);
    // The same on ports that somebody else made, with DPDK running already (tests, benchmarks): no
    // interface, no TAP. The ports and pools outlive the backend.
    [[nodiscard]] static Result<std::unique_ptr<DpdkBackend>> create_on(const DpdkOptions& options,
                                                                        const Clock& clock,
                                                                        Port& wire, Port& host,
                                                                        BufferPools& pools);
    // Stops the workers, wipes all keys, removes the TAP, gives the interface back as it was,
    // removes DPDK's runtime files.
    ~DpdkBackend() override;

    // sa::Backend
    [[nodiscard]] Result<void> install(const sa::SetParams& params) override;
    using sa::Backend::remove;
    void remove(sa::SetId id) override;
    void remove(std::span<const sa::SetId> ids) override;
    void stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const override;
    [[nodiscard]] int event_fd() const override;
    void drain_events(const std::function<void(const sa::BackendEvent&)>& handle) override;
    [[nodiscard]] std::uint32_t owner_of(const IpAddress& ue, const IpAddress& ours) const override;
    [[nodiscard]] sa::NatLabels nat_labels() const override;
    [[nodiscard]] std::size_t capacity() const override;
    // Removed sets whose keys are not wiped yet: a worker is still in the round in which it may
    // have seen them.
    [[nodiscard]] std::size_t leaving() const;
    [[nodiscard]] std::size_t installed() const override;

    [[nodiscard]] unsigned workers() const;
    // The TAP: bind sockets of the Gm side to it with SO_BINDTODEVICE, so that nothing from
    // elsewhere reaches them.
    [[nodiscard]] const std::string& host_device_name() const;
    // "ipsec-mb" or "openssl".
    [[nodiscard]] std::string_view crypto_engine() const;

    // gmgate_dataplane_*: packets, bytes, drops by reason, busy seconds, buffers, table use. The
    // registry's functions read our counters from the scraper's thread: nothing may scrape after
    // the backend is gone.
    void register_metrics(metrics::Registry& registry) const;
    // Every reason, also those that never happened. Any thread.
    [[nodiscard]] std::vector<DropCount> drops() const;
    // Any thread; asks the kernel for the links' state.
    [[nodiscard]] DataplaneHealth health() const;

    struct Impl;
    explicit DpdkBackend(std::unique_ptr<Impl> impl);  // create() is the way in

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace gmgate::dataplane
