#include "dataplane/dpdk/dpdk_backend.h"

#include <net/if.h>
#include <rte_cycles.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_rcu_qsbr.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <unordered_map>

#include "base/bytes.h"
#include "base/log.h"
#include "base/random.h"
#include "base/unique_fd.h"
#include "dataplane/core/udp_encapsulation.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/host_port.h"
#include "dataplane/dpdk/interface.h"
#include "dataplane/dpdk/port.h"
#include "dataplane/dpdk/worker.h"

namespace gmgate::dataplane {
namespace {

// The most ESP adds to a packet of transport mode: SPI and sequence 8, IV 16, padding 15, trailer
// 2, ICV 12 (A9), rounded up.
constexpr unsigned esp_overhead = 56;
// ... and the tunnel in UDP: the outer headers. What is inner then is payload of ESP besides.
constexpr unsigned nat_overhead = encapsulation_overhead;
constexpr unsigned smallest_ipv6_mtu = 1280;
// What an install() waits at most for the place of a removed set; workers pass a round within
// microseconds, or have lost their core.
constexpr Duration longest_wait = std::chrono::milliseconds(5);

Result<void> check(const DpdkOptions& o) {
    const auto bad = [](std::string text) { return fail(ErrorKind::invalid, std::move(text)); };
    if (o.workers < 1 || o.workers >= sa::SpiLayout::max_owners)
        return bad("workers must be 1 to 15");
    if (!o.worker_cpus.empty() && o.worker_cpus.size() != o.workers)
        return bad("worker_cpus must name one CPU per worker");
    if (o.addresses.empty()) return bad("at least one Gm address is needed");
    for (const DpdkOptions::Address& a : o.addresses) {
        if (a.prefix > (a.address.is_v6() ? 128U : 32U))
            return bad("prefix length of " + a.address.to_string() + " too long");
    }
    for (const DpdkOptions::Route& r : o.routes) {
        if (r.to.is_v6() != r.via.is_v6())
            return bad("route to " + r.to.to_string() + " via another address family");
        if (r.prefix > (r.to.is_v6() ? 128U : 32U))
            return bad("prefix length of " + r.to.to_string() + " too long");
    }
    for (const DpdkOptions::PortRange& r : {o.port_ps, o.port_pc}) {
        if (r.first == 0 || r.first > r.last) return bad("a range of protected ports is empty");
    }
    if (o.mtu < 1280 || o.mtu > 9000) return bad("mtu must be 1280 to 9000");
    // A packet socket's ring has frames of 8 KiB, header included: longer packets would be cut off.
    if (o.gm_device.empty() && o.mtu > 8000)
        return bad("mtu must be 1280 to 8000 on gm_interface; more needs a DPDK device");
    if (o.replay_window < 64 || o.replay_window > 1024 || o.replay_window % 64 != 0) {
        return bad("replay_window must be a multiple of 64, 64 to 1024");
    }
    if (o.max_sets < 1 || o.max_sets > (1U << 21U)) return bad("max_sets must be 1 to 2097152");
    return {};
}

EngineKind engine_kind(CryptoChoice choice) {
    switch (choice) {
        case CryptoChoice::ipsec_mb:
            return EngineKind::ipsec_mb;
        case CryptoChoice::openssl:
            return EngineKind::openssl;
        case CryptoChoice::automatic:
            break;
    }
    return best_engine();
}

struct FreeRcu {
    void operator()(rte_rcu_qsbr* p) const { rte_free(p); }
};

}  // namespace

struct DpdkBackend::Impl {
    struct Installed {
        SetHandle handle;
        std::uint32_t failure_second = 0;  // of the last integrity event passed on
    };

    Impl(const DpdkOptions& o, const Clock& c) : options(o), clock(c) {}
    // The workers stop before anything they use goes; the rest goes in reverse order of
    // declaration, the guard on the interface last.
    ~Impl() {
        for (auto& w : workers) w->stop();
    }

    Result<void> assemble(Port& wire_port, Port& host_port, BufferPools& buffer_pools);
    bool wait_for_workers();
    void reclaim_later(std::vector<SetHandle> gone);
    void reclaim_ready(std::size_t batches);
    bool reclaim_all();
    template <class F>
    [[nodiscard]] std::uint64_t sum(F read) const {
        std::uint64_t total = 0;
        for (const auto& w : workers) total += read(*w);
        return total;
    }

    const DpdkOptions options;
    const Clock& clock;

    // Not there if create_on() made us.
    std::unique_ptr<TakenInterface> taken;
    std::unique_ptr<Eal> eal;
    std::unique_ptr<BufferPools> own_pools;
    std::unique_ptr<EthPort> own_wire;
    std::unique_ptr<HostPort> own_host;

    BufferPools* pools = nullptr;
    ProtectedPorts ports;
    SystemRandom random;  // the control thread's
    std::vector<std::unique_ptr<SystemRandom>> worker_random;
    std::unique_ptr<SaTable> table;
    std::unique_ptr<rte_rcu_qsbr, FreeRcu> rcu;
    std::unique_ptr<HandOver> handover;
    UniqueFd event_fd;
    std::atomic<bool> events_pending{false};
    std::vector<std::unique_ptr<Worker>> workers;
    std::string engine_name;

    std::unordered_map<sa::SetId, Installed> sets;
    std::atomic<std::size_t> installed{0};

    // Unpublished, but a worker may still be in the round in which it saw them.
    struct Leaving {
        std::vector<SetHandle> sets;
        std::uint64_t token = 0;
        bool second_period = false;
    };
    std::deque<Leaving> leaving;
    // The token of a wait that took too long; 0: none. Until it is passed nobody waits again.
    std::uint64_t given_up = 0;
    // The token the oldest of them waits for: a worker that passed a round since says so, once.
    std::atomic<std::uint64_t> quiescence_wanted{0};

    struct Heartbeat {
        std::uint64_t rounds = 0;
        TimePoint changed{};
    };
    mutable std::mutex health_mutex;
    mutable std::vector<Heartbeat> heartbeats;
};

Result<void> DpdkBackend::Impl::assemble(Port& wire_port, Port& host_port,
                                         BufferPools& buffer_pools) {
    pools = &buffer_pools;
    try {
        const EngineKind kind = engine_kind(options.crypto);
        SaTableConfig table_config;
        table_config.capacity = options.max_sets;
        table_config.replay_bits = options.replay_window;
        table_config.workers = options.workers;
        table_config.inbound_only = options.verify_only;
        auto expander = make_engine(kind);
        engine_name = expander->name();
        table = std::make_unique<SaTable>(table_config, std::move(expander), random);
        handover = std::make_unique<HandOver>(options.workers);
        event_fd.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        if (!event_fd.valid())
            return fail(ErrorKind::io, std::string("eventfd: ") + std::strerror(errno));
        const std::size_t rcu_size = rte_rcu_qsbr_get_memsize(options.workers);
        rcu.reset(
            static_cast<rte_rcu_qsbr*>(rte_zmalloc("gmgate_rcu", rcu_size, RTE_CACHE_LINE_SIZE)));
        if (!rcu || rte_rcu_qsbr_init(rcu.get(), options.workers) != 0) {
            return fail(ErrorKind::exhausted,
                        "no memory for the workers' grace periods; raise dpdk.memory_mb");
        }
        ports.add_range(options.port_ps.first, options.port_ps.last);
        ports.add_range(options.port_pc.first, options.port_pc.last);
        std::vector<IpAddress> addresses;
        for (const DpdkOptions::Address& a : options.addresses) addresses.push_back(a.address);
        std::vector<IpAddress> others;
        for (const IpAddress& a : options.other_addresses) {
            if (std::find(addresses.begin(), addresses.end(), a) == addresses.end())
                others.push_back(a);
        }
        const Worker::Shared shared{wire_port,      host_port,       *pools,
                                    *handover,      rcu.get(),       clock,
                                    event_fd.get(), &events_pending, &quiescence_wanted};
        for (unsigned i = 0; i < options.workers; ++i) {
            FastPathConfig fast;
            fast.worker = i;
            fast.our_addresses = addresses;
            fast.other_addresses = others;
            fast.protected_ports = ports;
            fast.verify_only = options.verify_only;
            fast.nat = options.nat && !options.verify_only;
            if (own_wire) fast.host_mac = own_wire->mac();
            worker_random.push_back(std::make_unique<SystemRandom>());
            auto path =
                std::make_unique<FastPath>(fast, *table, make_engine(kind), *worker_random.back());
            Worker::Config config;
            config.number = i;
            config.sleep = options.idle == IdlePolicy::adaptive;
            if (!options.worker_cpus.empty()) config.cpu = options.worker_cpus[i];
            config.wire_mtu = options.mtu;
            config.seed = random.u64();
            workers.push_back(std::make_unique<Worker>(config, shared, std::move(path)));
        }
    } catch (const std::bad_alloc&) {
        return fail(ErrorKind::exhausted,
                    "no memory for " + std::to_string(options.max_sets) +
                        " SA sets; lower dpdk.max_sets or give the machine more memory");
    } catch (const std::exception& e) {
        return fail(ErrorKind::io, std::string("the fast path did not start: ") + e.what());
    }
    heartbeats.assign(workers.size(), {0, clock.now()});
    for (auto& w : workers) w->start();
    return {};
}

Result<std::unique_ptr<DpdkBackend>> DpdkBackend::create_on(const DpdkOptions& options,
                                                            const Clock& clock, Port& wire,
                                                            Port& host, BufferPools& pools) {
    if (auto checked = check(options); !checked) return std::unexpected(checked.error());
    auto impl = std::make_unique<Impl>(options, clock);
    if (auto done = impl->assemble(wire, host, pools); !done) return std::unexpected(done.error());
    return std::make_unique<DpdkBackend>(std::move(impl));
}

Result<std::unique_ptr<DpdkBackend>> DpdkBackend::create(const DpdkOptions& options,
                                                         const Clock& clock) {
    if (auto checked = check(options); !checked) return std::unexpected(checked.error());
    auto impl = std::make_unique<Impl>(options, clock);
    const bool on_interface = options.gm_device.empty();
    const bool pci = !on_interface && !options.gm_device.starts_with("net_");
    if (on_interface) {
        if (options.gm_interface == options.tap_name) {
            return fail(ErrorKind::invalid,
                        "the Gm interface and the TAP cannot both be called " + options.tap_name);
        }
        auto taken = TakenInterface::take(options.gm_interface);
        if (!taken) return std::unexpected(taken.error());
        impl->taken = std::move(*taken);
        if (impl->taken->info().mtu < options.mtu) {
            return fail(ErrorKind::invalid, "interface " + options.gm_interface +
                                                " has an MTU of " +
                                                std::to_string(impl->taken->info().mtu) +
                                                ", gm.mtu says " + std::to_string(options.mtu) +
                                                "; lower gm.mtu or raise the interface's");
        }
    }
    EalOptions eal;
    eal.memory_mb = options.memory_mb;
    eal.hugepages = options.hugepages;
    eal.pci = pci;
    if (pci) eal.devices.push_back(options.gm_device.substr(0, options.gm_device.find(',')));
    auto started = Eal::start(eal);
    if (!started) return std::unexpected(started.error());
    impl->eal = std::move(*started);
    auto pools = BufferPools::create("gmgate", options.workers, options.memory_mb);
    if (!pools) return std::unexpected(pools.error());
    impl->own_pools = std::move(*pools);

    // af_packet delivers whole datagrams, see port.cpp; other devices deliver frames.
    auto wire = on_interface
                    ? EthPort::open_af_packet(options.gm_interface, impl->taken->info().index,
                                              options.workers, impl->own_pools->large())
                    : EthPort::open_device(options.gm_device, options.workers,
                                           impl->own_pools->for_size(options.mtu + 18U));
    if (!wire) return std::unexpected(wire.error());
    impl->own_wire = std::move(*wire);

    HostPort::Options host;
    host.name = options.tap_name;
    host.mac = impl->own_wire->mac();
    bool v6 = false;
    for (const DpdkOptions::Address& a : options.addresses) {
        host.addresses.push_back({a.address, a.prefix});
        v6 = v6 || a.address.is_v6();
    }
    for (const DpdkOptions::Route& r : options.routes)
        host.routes.push_back({r.to, r.prefix, r.via});
    // A host that seals itself counts ESP's octets itself.
    host.mtu = options.verify_only
                   ? options.mtu
                   : std::max(options.mtu - esp_overhead - (options.nat ? nat_overhead : 0U),
                              v6 ? smallest_ipv6_mtu : 0U);
    host.queues = options.workers;
    auto tap = HostPort::open(host, impl->own_pools->for_size(host.mtu + 128U));
    if (!tap) return std::unexpected(tap.error());
    impl->own_host = std::move(*tap);

    if (auto done = impl->assemble(*impl->own_wire, *impl->own_host, *impl->own_pools); !done) {
        return std::unexpected(done.error());
    }
    log::info(
        "dataplane", "{} taken (guard: {}), host port {} with MTU {}, {} worker(s), crypto {}{}",
        on_interface ? options.gm_interface : options.gm_device,
        impl->taken ? impl->taken->guard() : "not needed", host.name, host.mtu, options.workers,
        impl->engine_name, options.verify_only ? ", screen: ESP is verified and passed on" : "");
    return std::make_unique<DpdkBackend>(std::move(impl));
}

DpdkBackend::DpdkBackend(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DpdkBackend::~DpdkBackend() = default;

Result<void> DpdkBackend::install(const sa::SetParams& params) {
    if (impl_->sets.contains(params.id))
        return fail(ErrorKind::conflict, "SA set is installed already");
    // To another address or port cleartext would pass beside the SA (A6).
    if (std::ranges::find(impl_->options.addresses, params.ours, &DpdkOptions::Address::address) ==
        impl_->options.addresses.end())
        return fail(ErrorKind::invalid,
                    params.ours.to_string() + " of the SA set is not one of gm.addresses");
    for (const sa::Port port : {params.numbers.port_ps, params.numbers.port_pc}) {
        if (!impl_->ports.contains(port))
            return fail(ErrorKind::invalid,
                        "port " + std::to_string(port) +
                            " of the SA set is not a protected one (gm.port_ps, gm.port_pc)");
    }
    if (params.nat && nat_labels() == sa::NatLabels::none)
        return fail(ErrorKind::unsupported, "UDP encapsulation is switched off (security.nat)");
    impl_->reclaim_ready(2);
    const SequenceState state{.out_uc = params.out_sequence, .out_us = params.out_sequence};
    auto handle = impl_->table->publish(params, state);
    // The place it wants may be one that is being left.
    if (!handle && !impl_->leaving.empty() &&
        (handle.error().kind == ErrorKind::exhausted ||
         handle.error().kind == ErrorKind::conflict) &&
        impl_->reclaim_all()) {
        handle = impl_->table->publish(params, state);
    }
    if (!handle) return std::unexpected(handle.error());
    impl_->sets.emplace(params.id, Impl::Installed{*handle});
    impl_->installed.store(impl_->sets.size(), std::memory_order_relaxed);
    return {};
}

// Two periods: in the first every worker finishes the round in which it may have seen the set, in
// the second it drains what others handed over to it during the first. False: a worker stands. Then
// the control thread has waited once, not for each phone that comes.
bool DpdkBackend::Impl::wait_for_workers() {
    if (given_up != 0 && rte_rcu_qsbr_check(rcu.get(), given_up, false) == 0) return false;
    given_up = 0;
    const TimePoint until = clock.now() + longest_wait;
    for (int period = 0; period < 2; ++period) {
        const std::uint64_t token = rte_rcu_qsbr_start(rcu.get());
        for (unsigned tries = 0; rte_rcu_qsbr_check(rcu.get(), token, false) == 0; ++tries) {
            if (clock.now() >= until) {
                given_up = token;
                return false;
            }
            if (tries < 64) {
                ::sched_yield();
            } else {
                const timespec nap{0, 20'000};
                ::nanosleep(&nap, nullptr);
            }
        }
    }
    return true;
}

void DpdkBackend::Impl::reclaim_later(std::vector<SetHandle> gone) {
    leaving.push_back({std::move(gone), rte_rcu_qsbr_start(rcu.get()), false});
    reclaim_ready(2);  // more than what came: a backlog shrinks
}

// Never waits: a worker may have lost its core for milliseconds, and the control thread has phones
// to serve. What is not ready is looked at again when a worker has passed a round; what is more
// than `batches`, in the next round of the control thread.
void DpdkBackend::Impl::reclaim_ready(std::size_t batches) {
    while (!leaving.empty()) {
        if (batches == 0) {
            const std::uint64_t one = 1;
            (void)!::write(event_fd.get(), &one, sizeof(one));
            return;
        }
        Leaving& oldest = leaving.front();
        if (rte_rcu_qsbr_check(rcu.get(), oldest.token, false) == 0) {
            quiescence_wanted.store(oldest.token, std::memory_order_seq_cst);
            // Passed meanwhile, and asleep perhaps, with nobody left to say so?
            if (rte_rcu_qsbr_check(rcu.get(), oldest.token, false) == 0) return;
        }
        if (!oldest.second_period) {
            oldest.second_period = true;
            oldest.token = rte_rcu_qsbr_start(rcu.get());
            continue;
        }
        for (const SetHandle h : oldest.sets) table->reclaim(h);
        leaving.pop_front();
        --batches;
    }
}

bool DpdkBackend::Impl::reclaim_all() {
    if (!wait_for_workers()) return false;
    for (const Leaving& l : leaving) {
        for (const SetHandle h : l.sets) table->reclaim(h);
    }
    leaving.clear();
    return true;
}

void DpdkBackend::remove(sa::SetId id) {
    remove(std::span<const sa::SetId>(&id, 1));
}

void DpdkBackend::remove(std::span<const sa::SetId> ids) {
    std::vector<SetHandle> gone;
    gone.reserve(ids.size());
    for (const sa::SetId id : ids) {
        const auto found = impl_->sets.find(id);
        if (found == impl_->sets.end()) continue;
        impl_->table->unpublish(found->second.handle);
        gone.push_back(found->second.handle);
        impl_->sets.erase(found);
    }
    if (gone.empty()) return;
    impl_->installed.store(impl_->sets.size(), std::memory_order_relaxed);
    impl_->reclaim_later(std::move(gone));
}

void DpdkBackend::stats(std::span<const sa::SetId> ids, std::span<sa::SetStats> stats) const {
    for (std::size_t i = 0; i < std::min(ids.size(), stats.size()); ++i) {
        stats[i] = {};
        const auto found = impl_->sets.find(ids[i]);
        if (found == impl_->sets.end()) continue;
        const SetCounters c = impl_->table->counters(found->second.handle);
        stats[i].in_packets = c.in_packets;
        stats[i].in_bytes = c.in_bytes;
        stats[i].out_packets = c.out_packets;
        stats[i].out_bytes = c.out_bytes;
        stats[i].integrity_failures = c.integrity_failures;
        stats[i].replays = c.replays;
        stats[i].highest_out_sequence = c.highest_out_sequence;
        if (c.last_use != 0) stats[i].last_use = Worker::time_of(c.last_use);
        if (c.nat_endpoint != 0) {
            std::array<std::uint8_t, 4> address{};
            store_be32(address.data(), static_cast<std::uint32_t>(c.nat_endpoint >> 16U));
            stats[i].nat_endpoint = {IpAddress::v4(address),
                                     static_cast<std::uint16_t>(c.nat_endpoint)};
        }
    }
}

int DpdkBackend::event_fd() const {
    return impl_->event_fd.get();
}

void DpdkBackend::drain_events(const std::function<void(const sa::BackendEvent&)>& handle) {
    std::uint64_t count = 0;
    (void)!::read(impl_->event_fd.get(), &count, sizeof(count));
    // Before the rings are read: an event pushed from now on makes the descriptor readable again.
    impl_->events_pending.exchange(false, std::memory_order_acq_rel);
    impl_->reclaim_ready(2);
    const std::uint32_t second = Worker::second_of(impl_->clock.now());
    // Collected first: the handler may install and remove sets.
    std::vector<sa::BackendEvent> events;
    for (auto& w : impl_->workers) {
        // No more than a full ring: a flood must not keep the control thread here.
        for (std::size_t left = EventRing::size; left != 0; --left) {
            const auto event = w->fast_path().events().pop();
            if (!event) break;
            const auto id = impl_->table->resolve(*event);
            if (!id || !impl_->sets.contains(*id)) continue;
            if (event->kind == sa::BackendEventKind::integrity_failure) {
                // The workers limit it per SA, a set has two inbound ones.
                const auto found = impl_->sets.find(*id);
                if (found == impl_->sets.end() || found->second.failure_second == second) continue;
                found->second.failure_second = second;
            }
            events.push_back({event->kind, *id, event->outbound ? 0U : event->spi});
        }
    }
    for (const sa::BackendEvent& e : events) handle(e);
}

std::uint32_t DpdkBackend::owner_of(const IpAddress& ue, const IpAddress& ours) const {
    return owner_of_pair(ue, ours, impl_->options.workers);
}

sa::NatLabels DpdkBackend::nat_labels() const {
    return impl_->options.nat && !impl_->options.verify_only ? sa::NatLabels::drawn
                                                             : sa::NatLabels::none;
}

std::size_t DpdkBackend::capacity() const {
    return impl_->table->capacity();
}
std::size_t DpdkBackend::installed() const {
    return impl_->installed.load(std::memory_order_relaxed);
}
std::size_t DpdkBackend::leaving() const {
    std::size_t all = 0;
    for (const Impl::Leaving& l : impl_->leaving) all += l.sets.size();
    return all;
}
unsigned DpdkBackend::workers() const {
    return impl_->options.workers;
}
const std::string& DpdkBackend::host_device_name() const {
    return impl_->options.tap_name;
}
std::string_view DpdkBackend::crypto_engine() const {
    return impl_->engine_name;
}

std::vector<DropCount> DpdkBackend::drops() const {
    std::vector<DropCount> all;
    all.reserve(drop_reason_count + port_drop_reason_count);
    const auto add = [&](std::string_view reason, std::string_view text, auto read) {
        DropCount d{{reason, text, 0}, {}};
        for (const auto& w : impl_->workers) {
            d.by_worker.push_back(read(*w));
            d.total += d.by_worker.back();
        }
        all.push_back(std::move(d));
    };
    for (std::size_t i = 0; i < drop_reason_count; ++i) {
        const auto reason = static_cast<DropReason>(i);
        add(name(reason), help(reason),
            [&](const Worker& w) { return w.fast_path().counters().dropped(reason); });
    }
    for (std::size_t i = 0; i < port_drop_reason_count; ++i) {
        const auto reason = static_cast<PortDropReason>(i);
        add(name(reason), help(reason),
            [&](const Worker& w) { return w.counters().dropped(reason); });
    }
    return all;
}

void DpdkBackend::register_metrics(metrics::Registry& registry) const {
    const Impl* impl = impl_.get();
    const auto counter = [&](const char* metric, const char* help_text, metrics::Labels labels,
                             auto read) {
        registry.function(metric, help_text, metrics::Kind::counter, std::move(labels),
                          [impl, read] { return static_cast<double>(impl->sum(read)); });
    };
    const auto fast = [&](const char* metric, const char* help_text, metrics::Labels labels,
                          Relaxed<std::uint64_t> WorkerCounters::* field) {
        counter(metric, help_text, std::move(labels),
                [field](const Worker& w) { return (w.fast_path().counters().*field).get(); });
    };
    const auto port = [&](const char* metric, const char* help_text, metrics::Labels labels,
                          Relaxed<std::uint64_t> PortCounters::* field) {
        counter(metric, help_text, std::move(labels),
                [field](const Worker& w) { return (w.counters().*field).get(); });
    };

    static constexpr const char* packets = "gmgate_dataplane_packets_total";
    static constexpr const char* packets_help =
        "Packets passed on, by direction and kind: esp = verified and decapsulated, or "
        "encapsulated; other = passed untouched";
    fast(packets, packets_help, {{"direction", "inbound"}, {"kind", "esp"}},
         &WorkerCounters::in_authentic);
    fast(packets, packets_help, {{"direction", "inbound"}, {"kind", "other"}},
         &WorkerCounters::in_other);
    fast(packets, packets_help, {{"direction", "outbound"}, {"kind", "esp"}},
         &WorkerCounters::out_protected);
    fast(packets, packets_help, {{"direction", "outbound"}, {"kind", "other"}},
         &WorkerCounters::out_other);
    static constexpr const char* bytes = "gmgate_dataplane_esp_bytes_total";
    static constexpr const char* bytes_help = "ESP octets of packets passed on";
    fast(bytes, bytes_help, {{"direction", "inbound"}}, &WorkerCounters::in_authentic_bytes);
    fast(bytes, bytes_help, {{"direction", "outbound"}}, &WorkerCounters::out_protected_bytes);
    fast("gmgate_dataplane_nat_keepalives_total",
         "Keep-alive octets of phones behind a NAT, taken and thrown away", {},
         &WorkerCounters::in_keepalives);
    fast("gmgate_dataplane_nat_endpoint_changes_total",
         "Times an authentic packet showed that a phone's NAT gave it another address or port", {},
         &WorkerCounters::nat_moved);
    static constexpr const char* handed = "gmgate_dataplane_handed_over_total";
    static constexpr const char* handed_help = "Packets given to the worker that owns their SA";
    fast(handed, handed_help, {{"direction", "inbound"}}, &WorkerCounters::in_handed_over);
    fast(handed, handed_help, {{"direction", "outbound"}}, &WorkerCounters::out_handed_over);
    fast("gmgate_dataplane_events_lost_total",
         "Events that found the event ring full; they come again with the next packet", {},
         &WorkerCounters::events_lost);

    static constexpr const char* at_port = "gmgate_dataplane_port_packets_total";
    static constexpr const char* at_port_help =
        "Packets at the two ports: gm = the wire of the phones, host = the TAP";
    port(at_port, at_port_help, {{"port", "gm"}, {"direction", "received"}},
         &PortCounters::wire_received);
    port(at_port, at_port_help, {{"port", "gm"}, {"direction", "sent"}}, &PortCounters::wire_sent);
    port(at_port, at_port_help, {{"port", "host"}, {"direction", "received"}},
         &PortCounters::host_received);
    port(at_port, at_port_help, {{"port", "host"}, {"direction", "sent"}},
         &PortCounters::host_sent);
    port("gmgate_dataplane_datagrams_reassembled_total", "IP datagrams made whole from fragments",
         {}, &PortCounters::reassembled);
    port("gmgate_dataplane_fragments_sent_total",
         "IP fragments made because a packet exceeded the MTU of the wire", {},
         &PortCounters::fragmented);

    for (std::size_t i = 0; i < drop_reason_count; ++i) {
        const auto reason = static_cast<DropReason>(i);
        counter("gmgate_dataplane_drops_total", "Packets dropped by the fast path, by reason",
                {{"reason", std::string(name(reason))}},
                [reason](const Worker& w) { return w.fast_path().counters().dropped(reason); });
    }
    for (std::size_t i = 0; i < port_drop_reason_count; ++i) {
        const auto reason = static_cast<PortDropReason>(i);
        counter("gmgate_dataplane_drops_total", "Packets dropped by the fast path, by reason",
                {{"reason", std::string(name(reason))}},
                [reason](const Worker& w) { return w.counters().dropped(reason); });
    }
    for (std::size_t i = 0; i < impl->workers.size(); ++i) {
        const Worker* w = impl->workers[i].get();
        const metrics::Labels labels{{"worker", std::to_string(i)}};
        registry.function("gmgate_dataplane_busy_seconds_total",
                          "Time a worker spent on rounds that had packets", metrics::Kind::counter,
                          labels, [w] {
                              return static_cast<double>(w->counters().busy_cycles.get()) /
                                     static_cast<double>(rte_get_tsc_hz());
                          });
        registry.function("gmgate_dataplane_sleeps_total",
                          "Times a worker slept because there was nothing to do",
                          metrics::Kind::counter, labels,
                          [w] { return static_cast<double>(w->counters().sleeps.get()); });
    }
    for (const auto& [pool_name, pool] :
         {std::pair{"small", impl->pools->small()}, std::pair{"large", impl->pools->large()}}) {
        const metrics::Labels labels{{"pool", pool_name}};
        registry.function("gmgate_dataplane_buffers_used", "Packet buffers in use",
                          metrics::Kind::gauge, labels,
                          [pool] { return static_cast<double>(rte_mempool_in_use_count(pool)); });
        registry.function("gmgate_dataplane_buffers", "Packet buffers there are",
                          metrics::Kind::gauge, labels,
                          [pool] { return static_cast<double>(pool->size); });
    }
    registry.function(
        "gmgate_dataplane_sa_sets", "SA sets installed in the fast path", metrics::Kind::gauge, {},
        [impl] { return static_cast<double>(impl->installed.load(std::memory_order_relaxed)); });
    registry.function("gmgate_dataplane_sa_sets_limit", "SA sets the fast path can hold",
                      metrics::Kind::gauge, {},
                      [impl] { return static_cast<double>(impl->table->capacity()); });
    if (impl->own_wire) {
        static constexpr const char* errors = "gmgate_dataplane_port_errors_total";
        static constexpr const char* errors_help =
            "Errors and losses the driver of the Gm port counts";
        registry.function(errors, errors_help, metrics::Kind::counter,
                          {{"port", "gm"}, {"direction", "received"}},
                          [impl] { return static_cast<double>(impl->own_wire->errors().receive); });
        registry.function(errors, errors_help, metrics::Kind::counter,
                          {{"port", "gm"}, {"direction", "sent"}},
                          [impl] { return static_cast<double>(impl->own_wire->errors().send); });
        registry.function("gmgate_dataplane_link_up", "1: the port has carrier",
                          metrics::Kind::gauge, {{"port", "gm"}},
                          [this] { return health().gm_link_up ? 1.0 : 0.0; });
        registry.function("gmgate_dataplane_link_up", "1: the port has carrier",
                          metrics::Kind::gauge, {{"port", "host"}},
                          [this] { return health().tap_up ? 1.0 : 0.0; });
    }
}

DataplaneHealth DpdkBackend::health() const {
    DataplaneHealth h;
    const std::string& gm =
        impl_->options.gm_device.empty() ? impl_->options.gm_interface : impl_->options.gm_device;
    if (!impl_->own_wire) {
        h.gm_present = h.gm_link_up = h.tap_up = true;
    } else {
        if (impl_->taken) {
            const auto info = interface_info(gm);
            h.gm_present = info.has_value() && info->index == impl_->taken->info().index;
            h.gm_link_up = h.gm_present && info->carrier;
        } else {
            h.gm_present = true;
            h.gm_link_up = impl_->own_wire->link_up();
        }
        const auto tap = interface_info(impl_->options.tap_name);
        h.tap_up = tap.has_value() && (tap->flags & IFF_UP) != 0;
    }
    bool alive = true;
    {
        const std::lock_guard lock(impl_->health_mutex);
        const TimePoint now = impl_->clock.now();
        for (std::size_t i = 0; i < impl_->workers.size(); ++i) {
            Impl::Heartbeat& beat = impl_->heartbeats[i];
            const std::uint64_t rounds = impl_->workers[i]->counters().rounds.get();
            if (rounds != beat.rounds) beat = {rounds, now};
            h.worker_alive.push_back(now - beat.changed < std::chrono::seconds(2));
            alive = alive && h.worker_alive.back();
        }
    }
    h.ok = h.gm_link_up && h.tap_up && alive;
    if (!h.gm_present) {
        h.text = "interface " + gm + " was deleted; make it again and restart gmgated";
    } else if (!h.gm_link_up) {
        h.text = "no link on " + gm + ": check the cable, or 'ip link set " + gm + " up'";
    } else if (!h.tap_up) {
        h.text = "host port " + impl_->options.tap_name + " is down or gone: 'ip link set " +
                 impl_->options.tap_name + " up', or restart gmgated";
    } else if (!alive) {
        h.text = "a fast-path worker does not run; restart gmgated and report it";
    } else {
        h.text = "ok";
    }
    return h;
}

}  // namespace gmgate::dataplane
