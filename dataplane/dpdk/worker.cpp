#include "dataplane/dpdk/worker.h"

#include <poll.h>
#include <pthread.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <future>

namespace gmgate::dataplane {
namespace {

// Rounds without a packet before the worker sleeps: a few microseconds, in which an answer that is
// on its way arrives.
constexpr unsigned spin_rounds = 24;
constexpr auto expiry_interval = std::chrono::milliseconds(250);
// With descriptors for everything the sleep ends by itself; the time-out is for what is too old.
constexpr auto longest_sleep = std::chrono::milliseconds(200);
// Without: a little longer each time.
constexpr auto first_nap = std::chrono::microseconds(20);
constexpr auto longest_nap = std::chrono::microseconds(1000);

std::uint64_t address_mix(std::span<const std::uint8_t> octets) {
    std::uint64_t h = 0;
    for (std::size_t i = 0; i < octets.size(); i += 4) {
        std::uint32_t word = 0;
        std::memcpy(&word, octets.data() + i, sizeof(word));
        h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
        h ^= h >> 32U;
    }
    return h;
}

// Symmetrical, so that both directions of a pair agree.
unsigned owner_of_octets(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b,
                         unsigned workers) {
    if (workers <= 1) return 0;
    const std::uint64_t h = (address_mix(a) + address_mix(b)) * 0xBF58476D1CE4E5B9ULL;
    return static_cast<unsigned>((h >> 32U) % workers);
}

}  // namespace

unsigned owner_of_pair(const IpAddress& a, const IpAddress& b, unsigned workers) {
    return owner_of_octets(a.octets(), b.octets(), workers);
}

unsigned owner_of_frame(const rte_mbuf* frame, unsigned workers) {
    const std::span<const std::uint8_t> octets{rte_pktmbuf_mtod(frame, const std::uint8_t*),
                                               rte_pktmbuf_data_len(frame)};
    bool v6 = false;
    const std::size_t link = link_header_size(octets, v6);
    if (link == 0) return 0;
    const auto ip = octets.subspan(link);
    if (v6)
        return ip.size() < 40 ? 0 : owner_of_octets(ip.subspan(8, 16), ip.subspan(24, 16), workers);
    return ip.size() < 20 ? 0 : owner_of_octets(ip.subspan(12, 4), ip.subspan(16, 4), workers);
}

std::uint32_t Worker::second_of(TimePoint t) {
    return static_cast<std::uint32_t>(
               std::chrono::duration_cast<std::chrono::seconds>(t.time_since_epoch()).count()) +
           1;
}

TimePoint Worker::time_of(std::uint32_t second) {
    return TimePoint(std::chrono::seconds(second - 1));
}

Worker::Worker(const Config& config, const Shared& shared, std::unique_ptr<FastPath> fast_path)
    : config_(config),
      shared_(shared),
      fast_path_(std::move(fast_path)),
      inbound_fragments_({.datagrams = config.incomplete_datagrams}, shared.pools.large(),
                         config.seed, counters_),
      outbound_fragments_({.datagrams = config.incomplete_datagrams}, shared.pools.large(),
                          ~config.seed, counters_),
      inner_fragments_({.datagrams = config.incomplete_datagrams}, shared.pools.large(),
                       std::rotl(config.seed, 32), counters_),
      fragment_id_(static_cast<std::uint32_t>(config.seed >> 16U)) {}

Worker::~Worker() {
    stop();
}

void Worker::start() {
    descriptors_ = {shared_.wire.wait_fd(config_.number), shared_.host.wait_fd(config_.number)};
    std::promise<void> running;
    thread_ = std::thread([this, &running] {
        char name[16];
        std::snprintf(name, sizeof(name), "gmgate-w%u", config_.number);
        ::pthread_setname_np(::pthread_self(), name);
        if (config_.cpu) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(*config_.cpu, &one);
            ::sched_setaffinity(0, sizeof(one), &one);
        }
        ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);  // naps of microseconds
        rte_thread_register();  // packet buffers come from a cache of its own
        rte_rcu_qsbr_thread_register(shared_.rcu, config_.number);
        rte_rcu_qsbr_thread_online(shared_.rcu, config_.number);
        running.set_value();
        run();
        rte_rcu_qsbr_thread_offline(shared_.rcu, config_.number);
        rte_rcu_qsbr_thread_unregister(shared_.rcu, config_.number);
        rte_thread_unregister();
    });
    running.get_future().wait();
}

void Worker::stop() {
    if (!thread_.joinable()) return;
    stop_.store(true, std::memory_order_seq_cst);
    shared_.handover.doorbell(config_.number).ring();
    thread_.join();
}

void Worker::run() {
    unsigned idle = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
        const std::uint64_t before = rte_rdtsc();
        const bool busy = round();
        rte_rcu_qsbr_quiescent(shared_.rcu, config_.number);
        tell_quiescence(false);
        if (busy) {
            counters_.busy_cycles.add(rte_rdtsc() - before);
            idle = 0;
            idle_sleeps_ = 0;
        } else if (config_.sleep && ++idle >= spin_rounds) {
            sleep();
        }
    }
}

bool Worker::round() {
    std::array<rte_mbuf*, max_burst> frames;
    now_ = shared_.clock.now();
    counters_.rounds.add();
    bool busy = false;
    if (const auto n = shared_.wire.receive(config_.number, frames.data(), max_burst); n != 0) {
        counters_.wire_received.add(n);
        from_wire(frames.data(), n);
        busy = true;
    }
    if (const auto n = shared_.host.receive(config_.number, frames.data(), max_burst); n != 0) {
        counters_.host_received.add(n);
        from_host(frames.data(), n);
        busy = true;
    }
    if (shared_.handover.workers() > 1) {
        busy = from_workers() || busy;
        ring_doorbells();
    }
    if (now_ >= next_expiry_) {
        inbound_fragments_.expire(now_);
        outbound_fragments_.expire(now_);
        inner_fragments_.expire(now_);
        next_expiry_ = now_ + expiry_interval;
        // A link that was down leaves an error on the socket, which would cost the first burst sent
        // after its return.
        if (descriptors_[0] >= 0) (void)shared_.wire.revive(config_.number);
    }
    if (busy && shared_.event_fd >= 0 && !fast_path_->events().empty() &&
        !shared_.events_pending->exchange(true, std::memory_order_acq_rel)) {
        const std::uint64_t one = 1;
        (void)!::write(shared_.event_fd, &one, sizeof(one));
    }
    return busy;
}

void Worker::from_wire(rte_mbuf** frames, std::uint16_t count, bool reassembled) {
    fast_path_->inbound(frames, count, second_of(now_), inbound_);
    // They came to the SA's own worker, where the others of their datagram come too.
    const auto& inner = inbound_.inner_fragments;
    for (std::uint16_t i = 0; i < inner.packets.count; ++i) {
        rte_mbuf* whole = inner_fragments_.add(inner.packets.packets[i], now_, inner.spis[i]);
        if (whole != nullptr) fast_path_->inner_whole(whole, inner.spis[i], inbound_);
    }
    if (inbound_.to_host.count != 0) {
        const auto sent =
            shared_.host.send(config_.number, inbound_.to_host.data(), inbound_.to_host.count);
        counters_.host_sent.add(sent);
        if (sent != inbound_.to_host.count) {
            counters_.drop(PortDropReason::host_refused,
                           inbound_.to_host.count - std::uint64_t{sent});
        }
    }
    for (std::uint16_t i = 0; i < inbound_.to_worker.packets.count; ++i) {
        hand_over(inbound_.to_worker.packets.packets[i], inbound_.to_worker.workers[i],
                  HandOverKind::inbound);
    }
    if (inbound_.fragments.count == 0) return;
    if (reassembled) {  // fragments within a datagram made whole: nobody sends that
        for (rte_mbuf* m : inbound_.fragments.all()) rte_pktmbuf_free(m);
        counters_.drop(PortDropReason::fragment_invalid, inbound_.fragments.count);
        return;
    }
    fragments(inbound_.fragments.all(), inbound_fragments_, HandOverKind::inbound_fragment);
    if (whole_inbound_.count != 0) {
        PacketList whole = whole_inbound_;
        whole_inbound_.count = 0;
        from_wire(whole.data(), whole.count, true);
    }
}

void Worker::from_host(rte_mbuf** frames, std::uint16_t count, bool reassembled) {
    fast_path_->outbound(frames, count, second_of(now_), outbound_);
    if (outbound_.to_wire.count != 0) to_wire(outbound_.to_wire);
    for (std::uint16_t i = 0; i < outbound_.to_worker.packets.count; ++i) {
        hand_over(outbound_.to_worker.packets.packets[i], outbound_.to_worker.workers[i],
                  HandOverKind::outbound);
    }
    if (outbound_.fragments.count == 0) return;
    if (reassembled) {
        for (rte_mbuf* m : outbound_.fragments.all()) rte_pktmbuf_free(m);
        counters_.drop(PortDropReason::fragment_invalid, outbound_.fragments.count);
        return;
    }
    fragments(outbound_.fragments.all(), outbound_fragments_, HandOverKind::outbound_fragment);
    if (whole_outbound_.count != 0) {
        PacketList whole = whole_outbound_;
        whole_outbound_.count = 0;
        from_host(whole.data(), whole.count, true);
    }
}

// All fragments of an address pair meet at one worker.
void Worker::fragments(std::span<rte_mbuf* const> frames, Reassembler& reassembler,
                       HandOverKind kind) {
    const unsigned workers = shared_.handover.workers();
    for (rte_mbuf* m : frames) {
        const unsigned owner = owner_of_frame(m, workers);
        if (owner != config_.number) {
            hand_over(m, owner, kind);
        } else {
            made_whole(m, reassembler, kind);
        }
    }
}

// At most one whole datagram a fragment, so the lists cannot overflow within a burst.
void Worker::made_whole(rte_mbuf* frame, Reassembler& reassembler, HandOverKind kind) {
    rte_mbuf* whole = reassembler.add(frame, now_);
    if (whole == nullptr) return;
    (kind == HandOverKind::inbound_fragment ? whole_inbound_ : whole_outbound_).push(whole);
}

void Worker::hand_over(rte_mbuf* frame, unsigned to, HandOverKind kind) {
    if (to == config_.number || to >= shared_.handover.workers() ||
        !shared_.handover.ring(config_.number, to).push({frame, kind})) {
        counters_.drop(PortDropReason::hand_over_full);
        rte_pktmbuf_free(frame);
        return;
    }
    rang_[to] = true;
}

void Worker::ring_doorbells() {
    for (unsigned w = 0; w < shared_.handover.workers(); ++w) {
        if (!rang_[w]) continue;
        rang_[w] = false;
        if (shared_.handover.doorbell(w).ring()) counters_.woken.add();
    }
}

bool Worker::from_workers() {
    bool any = false;
    for (unsigned from = 0; from < shared_.handover.workers(); ++from) {
        if (from == config_.number) continue;
        HandOverRing& ring = shared_.handover.ring(from, config_.number);
        // At most what a full ring holds: a grace period is one round (SaTable's removal relies on
        // drained rings).
        for (std::size_t left = HandOverRing::size; left != 0;) {
            std::array<HandedOver, max_burst> items;
            const std::size_t n = ring.pop(items.data(), std::min<std::size_t>(left, max_burst));
            if (n == 0) break;
            left -= n;
            any = true;
            PacketList in;
            PacketList out;
            for (std::size_t i = 0; i < n; ++i) {
                switch (items[i].kind) {
                    case HandOverKind::inbound:
                        in.push(items[i].packet);
                        break;
                    case HandOverKind::outbound:
                        out.push(items[i].packet);
                        break;
                    case HandOverKind::inbound_fragment:
                        made_whole(items[i].packet, inbound_fragments_, items[i].kind);
                        break;
                    case HandOverKind::outbound_fragment:
                        made_whole(items[i].packet, outbound_fragments_, items[i].kind);
                        break;
                }
            }
            if (whole_inbound_.count != 0) {
                PacketList whole = whole_inbound_;
                whole_inbound_.count = 0;
                from_wire(whole.data(), whole.count, true);
            }
            if (whole_outbound_.count != 0) {
                PacketList whole = whole_outbound_;
                whole_outbound_.count = 0;
                from_host(whole.data(), whole.count, true);
            }
            if (in.count != 0) from_wire(in.data(), in.count);
            if (out.count != 0) from_host(out.data(), out.count);
        }
    }
    return any;
}

void Worker::flush_wire() {
    if (wire_.count == 0) return;
    const auto sent = shared_.wire.send(config_.number, wire_.data(), wire_.count);
    counters_.wire_sent.add(sent);
    if (sent != wire_.count)
        counters_.drop(PortDropReason::wire_refused, wire_.count - std::uint64_t{sent});
    wire_.count = 0;
}

void Worker::to_wire(PacketList& list) {
    for (rte_mbuf* m : list.all()) {
        // 14 octets of Ethernet; 4 more if a VLAN tag lies in between.
        bool v6 = false;
        if (m->pkt_len > config_.wire_mtu + std::size_t{14}) [[unlikely]] {
            const std::size_t link =
                link_header_size({rte_pktmbuf_mtod(m, const std::uint8_t*), m->data_len}, v6);
            if (link != 0 && m->pkt_len > config_.wire_mtu + link) {
                std::array<rte_mbuf*, max_burst> pieces;
                const auto n = fragment_frame(m, config_.wire_mtu,
                                              shared_.pools.for_size(config_.wire_mtu + link),
                                              fragment_id_++, pieces);
                rte_pktmbuf_free(m);
                if (n == 0) counters_.drop(PortDropReason::wire_too_big);
                counters_.fragmented.add(n);
                for (std::uint16_t i = 0; i < n; ++i) {
                    if (wire_.count == max_burst) flush_wire();
                    wire_.push(pieces[i]);
                }
                continue;
            }
        }
        if (wire_.count == max_burst) flush_wire();
        wire_.push(m);
    }
    flush_wire();
}

// Once for each token: while another worker holds it up, those that run are not to call the control
// thread each round. `offline`: no round is under way that would have to be passed.
void Worker::tell_quiescence(bool offline) {
    if (shared_.quiescence_wanted == nullptr) return;
    const std::uint64_t wanted = shared_.quiescence_wanted->load(std::memory_order_seq_cst);
    if (wanted == told_) return;
    told_ = wanted;
    // The token may be younger than what this round has reported.
    if (!offline) rte_rcu_qsbr_quiescent(shared_.rcu, config_.number);
    const std::uint64_t one = 1;
    (void)!::write(shared_.event_fd, &one, sizeof(one));
}

void Worker::sleep() {
    Doorbell& bell = shared_.handover.doorbell(config_.number);
    bell.announce();
    // Who handed over before the announcement did not ring.
    if (!shared_.handover.empty_for(config_.number) || stop_.load(std::memory_order_seq_cst)) {
        bell.answer(false);
        return;
    }
    asleep_.store(true, std::memory_order_relaxed);
    rte_rcu_qsbr_thread_offline(shared_.rcu, config_.number);
    // The control thread asks and then looks, we are offline and then look: one of us sees the
    // other.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    tell_quiescence(true);
    std::array<pollfd, 3> fds{
        {{bell.fd(), POLLIN, 0}, {descriptors_[0], POLLIN, 0}, {descriptors_[1], POLLIN, 0}}};
    const bool blind = descriptors_[0] < 0 || descriptors_[1] < 0;
    Duration length = longest_sleep;
    if (blind)
        length = std::min<Duration>(longest_nap, first_nap * (1U << std::min(idle_sleeps_, 6U)));
    if (inbound_fragments_.incomplete() + outbound_fragments_.incomplete() +
            inner_fragments_.incomplete() !=
        0)
        length = std::min<Duration>(length, expiry_interval);
    ++idle_sleeps_;
    const timespec limit{0, static_cast<long>(std::chrono::nanoseconds(length).count())};
    const int ready =
        ::ppoll(fds.data(), fds.size(), &limit, nullptr);  // a negative descriptor is skipped
    rte_rcu_qsbr_thread_online(shared_.rcu, config_.number);
    asleep_.store(false, std::memory_order_relaxed);
    bell.answer(ready > 0 && (fds[0].revents & POLLIN) != 0);
    counters_.sleeps.add();
    if (ready <= 0) return;
    for (std::size_t i = 0; i < descriptors_.size(); ++i) {
        if ((fds[i + 1].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0) continue;
        Port& port = i == 0 ? shared_.wire : shared_.host;
        if (!port.revive(config_.number)) descriptors_[i] = -1;
    }
}

}  // namespace gmgate::dataplane
