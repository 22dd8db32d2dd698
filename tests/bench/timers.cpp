// A million temporary SAs end at once. All phones have sent SM1 and none sends SM7: at
// reg-await-auth 250,000 SA sets (four SAs each) and their procedures go (C5), out of the real
// gateway, SA database and DPDK backend, while a worker verifies ESP of other phones.
//
// Printed: how long the event loop was away from its descriptors (the pauses between two rounds),
// and what a packet cost the fast path before, while and after. Pauses are given in CPU time of the
// thread, which is what the program can answer for, and by the clock, where whatever else runs on
// this machine is included.
//
//   bench_timers             1,000,000 SAs (about 4 GB)
//   bench_timers --quick     40,000
//   bench_timers --sets N

#include <rte_mbuf.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/core.h>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/random.h"
#include "control/registration/gateway.h"
#include "dataplane/core/checksum.h"
#include "dataplane/core/esp.h"
#include "dataplane/dpdk/crypto_engine.h"
#include "dataplane/dpdk/dpdk_backend.h"
#include "dataplane/dpdk/fast_path.h"
#include "dataplane/dpdk/port.h"
#include "dataplane/dpdk/sa_table.h"
#include "sa/database.h"
#include "tests/bench/gateway.h"
#include "tests/bench/register_messages.h"
#include "tests/support/eal.h"

namespace gmgate {
namespace {

constexpr sa::Suite suite{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
constexpr std::uint32_t talking_phones = 4096;
constexpr std::size_t datagram = 700;
constexpr std::uint16_t port_ps = 6100;
constexpr std::uint16_t port_pc = 6200;

// Real time that can be made to leap: 240 s pass at once.
class LeapingClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override {
        return steady_.now() + Duration(ahead_.load(std::memory_order_relaxed));
    }
    [[nodiscard]] std::chrono::system_clock::time_point wall() const override {
        return steady_.wall();
    }
    void leap(Duration by) { ahead_.fetch_add(by.count(), std::memory_order_relaxed); }

  private:
    SystemClock steady_;
    std::atomic<Duration::rep> ahead_{0};
};

double seconds_of(clockid_t clock) {
    timespec t{};
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

IpAddress talking_address(std::uint32_t n) {
    std::array<std::uint8_t, 4> a{};
    store_be32(a.data(), 0x0A400000U + n);
    return IpAddress::v4(a);
}

// Phones that are registered and talk. Their SAs stand in the first slots, which the database is
// told to leave alone.
std::vector<sa::SetParams> talking_sets(const std::vector<std::array<sa::AkaKey, 2>>& keys) {
    std::vector<sa::SetParams> sets(talking_phones);
    for (std::uint32_t n = 0; n < talking_phones; ++n) {
        sa::SetParams& p = sets[n];
        p.id = (std::uint64_t{1} << 40U) + n;
        p.ue = talking_address(n);
        p.ours = *IpAddress::parse("10.1.0.1");
        const sa::Spi spi_ps = sa::SpiLayout::make(1, 0, 2 * n);
        p.numbers = {.spi_uc = 0x10000000U + n,
                     .spi_us = 0x20000000U + n,
                     .spi_pc = sa::SpiLayout::make(1, 0, 2 * n + 1),
                     .spi_ps = spi_ps,
                     .port_uc = 31000,
                     .port_us = 32000,
                     .port_pc = port_pc,
                     .port_ps = port_ps};
        p.suite = suite;
        p.ck = &keys[n][0];
        p.ik = &keys[n][1];
    }
    return sets;
}

// The wire: makes fresh ESP of the talking phones as fast as it is asked, outside the measured
// time, which is from handing out a burst to being asked again. One worker.
class TalkingWire final : public dataplane::Port {
  public:
    TalkingWire(const std::vector<sa::SetParams>& sets, rte_mempool* pool)
        : sets_(sets),
          pool_(pool),
          geometry_(dataplane::esp_geometries()[sa::suite_index(suite)]),
          engine_(dataplane::make_engine(dataplane::best_engine())),
          table_({.capacity = talking_phones}, dataplane::make_engine(dataplane::best_engine()),
                 random_),
          sequence_(sets.size(), 0) {
        for (const sa::SetParams& p : sets_) {
            if (!table_.publish(p)) std::abort();
        }
    }

    std::uint16_t receive(unsigned /*queue*/, rte_mbuf** out, std::uint16_t max) override {
        const double asked = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        if (given_ != 0) {
            packets_.fetch_add(given_, std::memory_order_relaxed);
            // Nanoseconds: two 64-bit additions that another thread may read between; the error is
            // one burst.
            spent_.fetch_add(static_cast<std::uint64_t>((asked - since_) * 1e9),
                             std::memory_order_relaxed);
        }
        given_ = 0;
        if (rte_pktmbuf_alloc_bulk(pool_, out, max) != 0) return 0;
        std::vector<dataplane::CryptoJob>& jobs = jobs_;
        jobs.clear();
        for (std::uint16_t i = 0; i < max; ++i) jobs.push_back(build(out[i]));
        engine_->seal(suite, jobs);
        given_ = max;
        since_ = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        return max;
    }
    std::uint16_t send(unsigned /*queue*/, rte_mbuf** frames, std::uint16_t count) override {
        rte_pktmbuf_free_bulk(frames, count);
        return count;
    }
    [[nodiscard]] int wait_fd(unsigned /*queue*/) const override { return -1; }
    bool revive(unsigned /*queue*/) override { return false; }

    struct Cost {
        std::uint64_t packets = 0;
        std::uint64_t nanoseconds = 0;
    };
    // Any thread.
    [[nodiscard]] Cost cost() const {
        return {packets_.load(std::memory_order_relaxed), spent_.load(std::memory_order_relaxed)};
    }

  private:
    dataplane::CryptoJob build(rte_mbuf* m) {
        // A step that is no neighbour: no help from the hardware's prefetcher.
        turn_ = (turn_ + 1879) % talking_phones;
        const sa::SetParams& p = sets_[turn_];
        const std::uint32_t padding = geometry_.padding(datagram);
        const std::uint32_t head = geometry_.head();
        const std::size_t esp_size =
            head + datagram + padding + dataplane::esp_trailer_size + geometry_.icv;
        const auto size = static_cast<std::uint16_t>(34 + esp_size);
        auto* f = reinterpret_cast<std::uint8_t*>(rte_pktmbuf_append(m, size));
        std::memset(f, 0, 34);
        store_be16(f + 12, 0x0800);
        f[14] = 0x45;
        store_be16(f + 16, static_cast<std::uint16_t>(20 + esp_size));
        f[22] = 64;
        f[23] = 50;
        const auto from = p.ue.octets();
        const auto to = p.ours.octets();
        std::copy(from.begin(), from.end(), f + 26);
        std::copy(to.begin(), to.end(), f + 30);
        store_be16(f + 24, dataplane::ipv4_header_checksum({f + 14, 20}));
        std::uint8_t* esp = f + 34;
        store_be32(esp, p.numbers.spi_ps);
        store_be32(esp + 4, ++sequence_[turn_]);
        std::uint8_t* udp = esp + head;
        store_be16(udp, p.numbers.port_uc);
        store_be16(udp + 2, p.numbers.port_ps);
        store_be16(udp + 4, datagram);
        store_be16(udp + 6, 0);
        std::memset(udp + 8, 'x', datagram - 8);
        dataplane::write_trailer(udp + datagram, padding, 17);
        const dataplane::InboundSa& sa = table_.slot_of(p.numbers.spi_ps);
        dataplane::CryptoJob job;
        job.esp = esp;
        job.length = static_cast<std::uint32_t>(esp_size - geometry_.icv);
        job.small_key = sa.small_key.data();
        job.schedule = table_.schedule(sa.suite, sa.schedule);
        return job;
    }

    const std::vector<sa::SetParams>& sets_;
    rte_mempool* pool_;
    dataplane::EspGeometry geometry_;
    std::unique_ptr<dataplane::CryptoEngine> engine_;
    SeededRandom random_{3};
    dataplane::SaTable table_;
    std::vector<std::uint32_t> sequence_;
    std::vector<dataplane::CryptoJob> jobs_;
    std::size_t turn_ = 0;
    std::uint16_t given_ = 0;
    double since_ = 0;
    std::atomic<std::uint64_t> packets_{0};
    std::atomic<std::uint64_t> spent_{0};
};

// The host's side: takes what was verified.
class Sink final : public dataplane::Port {
  public:
    std::uint16_t receive(unsigned /*queue*/, rte_mbuf** /*out*/, std::uint16_t /*max*/) override {
        return 0;
    }
    std::uint16_t send(unsigned /*queue*/, rte_mbuf** frames, std::uint16_t count) override {
        rte_pktmbuf_free_bulk(frames, count);
        taken.fetch_add(count, std::memory_order_relaxed);
        return count;
    }
    [[nodiscard]] int wait_fd(unsigned /*queue*/) const override { return -1; }
    bool revive(unsigned /*queue*/) override { return false; }
    std::atomic<std::uint64_t> taken{0};
};

class Capture final : public sip::TransportLayer {
  public:
    bool send(const sip::Flow& /*flow*/, std::span<const char> bytes) override {
        last.assign(bytes.data(), bytes.size());
        return true;
    }
    void close(sip::ConnectionId /*connection*/) override {}
    std::string last;
};

// How long the loop was away, round by round, while something is being timed. Allocates nothing on
// the way.
class Pauses {
  public:
    void round() {
        const double wall = seconds_of(CLOCK_MONOTONIC);
        const double cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        rusage usage{};
        getrusage(RUSAGE_THREAD, &usage);
        if (wall_ > 0) {
            if (cpu - cpu_ > cpus_.largest) {
                longest_faults_ = usage.ru_minflt - faults_;
                longest_switches_ = usage.ru_nivcsw - switches_;
            }
            walls_.add(wall - wall_);
            cpus_.add(cpu - cpu_);
        }
        faults_ = usage.ru_minflt;
        switches_ = usage.ru_nivcsw;
        wall_ = wall;
        cpu_ = cpu;
    }
    struct Figures {
        std::uint64_t rounds = 0;
        double cpu_p50 = 0, cpu_p999 = 0, cpu_max = 0, wall_p999 = 0, wall_max = 0;
        std::uint64_t over_a_millisecond = 0;  // of CPU time
        // In the longest round: pages the kernel had to find for it, and how often another program
        // took the core (its caches are cold then, and the time the host took is counted as ours).
        long longest_faults = 0, longest_switches = 0;
    };
    [[nodiscard]] Figures figures() const {
        return {cpus_.count,       cpus_.at(0.5),    cpus_.at(0.999),
                cpus_.largest,     walls_.at(0.999), walls_.largest,
                cpus_.above(1000), longest_faults_,  longest_switches_};
    }

  private:
    struct Histogram {  // by microsecond; the last one takes all longer ones
        std::array<std::uint32_t, 20'001> by_microsecond{};
        std::uint64_t count = 0;
        double largest = 0;
        void add(double seconds) {
            ++by_microsecond[std::min<std::size_t>(by_microsecond.size() - 1,
                                                   static_cast<std::size_t>(seconds * 1e6))];
            ++count;
            largest = std::max(largest, seconds);
        }
        [[nodiscard]] double at(double quantile) const {
            auto left = static_cast<std::uint64_t>(quantile * static_cast<double>(count));
            for (std::size_t us = 0; us < by_microsecond.size(); ++us) {
                if (by_microsecond[us] > left) return static_cast<double>(us) * 1e-6;
                left -= by_microsecond[us];
            }
            return largest;
        }
        [[nodiscard]] std::uint64_t above(std::size_t microseconds) const {
            std::uint64_t n = 0;
            for (std::size_t us = microseconds; us < by_microsecond.size(); ++us)
                n += by_microsecond[us];
            return n;
        }
    };
    double wall_ = 0, cpu_ = 0;
    long faults_ = 0, switches_ = 0, longest_faults_ = 0, longest_switches_ = 0;
    Histogram walls_, cpus_;
};

template <class T>
T or_stop(Result<T> r, const char* what) {
    if (!r) {
        std::fprintf(stderr, "%s: %s\n", what, r.error().text.c_str());
        std::exit(1);
    }
    return std::move(*r);
}

class Run {
  public:
    explicit Run(std::uint32_t sets) : sets_(sets) {
        SeededRandom random(7);
        keys_ = std::vector<std::array<sa::AkaKey, 2>>(talking_phones);
        for (auto& [ck, ik] : keys_) {
            random.fill(ck.writable());
            random.fill(ik.writable());
        }
        talking_ = talking_sets(keys_);
        pools_ = or_stop(dataplane::BufferPools::create("timers", 1, 64), "buffers");
        wire_ = std::make_unique<TalkingWire>(talking_, pools_->small());
        dataplane::DpdkOptions options;
        options.gm_interface = "bench0";
        options.addresses = {{*IpAddress::parse("10.1.0.1"), 8}};
        options.port_ps = {6100, 6103};
        options.port_pc = {6200, 6231};
        options.max_sets = sets + talking_phones;
        options.idle = dataplane::IdlePolicy::poll;
        backend_ = or_stop(
            dataplane::DpdkBackend::create_on(options, clock_, *wire_, host_, *pools_), "backend");
        for (const sa::SetParams& p : talking_) {
            if (const auto r = backend_->install(p); !r) {
                std::fprintf(stderr, "install: %s\n", r.error().text.c_str());
                std::exit(1);
            }
        }
        sa::DatabaseConfig config = bench::database_config();
        config.first_spi_slot = 2 * talking_phones;
        config.limits.max_registration_sets = sets;
        // What came before their SAs were there.
        while (host_.taken.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
        early_ = backend_drops("unknown_spi");
        database_ = or_stop(sa::SaDatabase::create(config, *backend_, loop_.timers(), random_),
                            "SA database");
        registration::Policy policy = bench::gateway_policy();
        policy.limits.transactions = 4 * std::size_t{sets};
        policy.limits.pending = sets;
        gateway_ = std::make_unique<registration::Gateway>(policy, *database_, loop_.timers(),
                                                           random_, registry_);
        gateway_->attach(gm_, core_);
        loop_.watch(backend_->event_fd(), EventLoop::readable,
                    [this](unsigned) { backend_->drain_events([](const sa::BackendEvent&) {}); });
        loop_.on_idle([this] { on_round(); });
    }
    ~Run() {
        loop_.unwatch(backend_->event_fd());
        gateway_.reset();
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    // SM1 and SM5 of every phone; no SM7 will come.
    void challenge_all() {
        for (std::uint32_t n = 0; n < sets_; ++n) {
            const sip::Flow clear{sip::Transport::udp, *Endpoint::parse("10.1.0.1:5060"),
                                  Endpoint{bench::phone_address(n), 5060}, 0};
            const std::string nonce = to_base64(as_bytes("nonce" + std::to_string(n)));
            std::string sm1 = bench::register_text(n, false, "", "");
            gateway_->gm().on_message(clear, sm1);
            std::string sm5 = bench::challenge_answer(core_.last, nonce);
            const sip::Flow from_core{sip::Transport::udp, *Endpoint::parse("192.0.2.1:5060"),
                                      *Endpoint::parse("192.0.2.9:5060"), 0};
            gateway_->core().on_message(from_core, sm5);
            if (!gm_.last.starts_with("SIP/2.0 401 ")) {
                std::fprintf(stderr, "SM6 expected, not\n%s\n", gm_.last.c_str());
                std::exit(1);
            }
            loop_.timers().advance(64);
        }
    }

    struct Phase {
        double seconds = 0;
        double cpu_seconds = 0;  // of the control thread
        double packet_nanoseconds = 0;
        std::uint64_t packets = 0;
        Pauses::Figures pauses;
    };
    // Runs the loop until `done`, without sleeping, and says what it was like.
    template <class Done>
    Phase run(Done done) {
        pauses_ = {};
        done_ = done;
        const TalkingWire::Cost before = wire_->cost();
        const double wall = seconds_of(CLOCK_MONOTONIC);
        const double cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        loop_.run();
        const TalkingWire::Cost after = wire_->cost();
        Phase p;
        p.seconds = seconds_of(CLOCK_MONOTONIC) - wall;
        p.cpu_seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
        p.packets = after.packets - before.packets;
        p.packet_nanoseconds = static_cast<double>(after.nanoseconds - before.nanoseconds) /
                               static_cast<double>(std::max<std::uint64_t>(1, p.packets));
        p.pauses = pauses_.figures();
        return p;
    }
    Phase quiet() {
        const double end = seconds_of(CLOCK_MONOTONIC) + 1.5;
        return run([end] { return seconds_of(CLOCK_MONOTONIC) > end; });
    }
    // The leftovers of SM1's and SM2's transactions (RFC 3261 timers), so that what is timed later
    // is the SAs.
    Phase end_transactions() {
        clock_.leap(std::chrono::seconds(60));
        return run([this] { return gateway_->transactions() == 0; });
    }
    Phase expire() {
        clock_.leap(std::chrono::seconds(240));
        return run(
            [this] { return gateway_->pending() == 0 && backend_->installed() == talking_phones; });
    }
    [[nodiscard]] std::size_t temporary() const { return backend_->installed() - talking_phones; }
    // Good packets that were dropped: none should be.
    [[nodiscard]] std::uint64_t lost() const {
        std::uint64_t all = 0;
        for (const dataplane::DropCount& d : backend_->drops()) all += d.total;
        return all - early_;
    }

  private:
    [[nodiscard]] std::uint64_t backend_drops(std::string_view name) const {
        for (const dataplane::DropCount& d : backend_->drops()) {
            if (d.name == name) return d.total;
        }
        return 0;
    }
    void on_round() {
        pauses_.round();
        if (done_()) {
            loop_.stop();
        } else {
            loop_.post([] {});  // do not sleep: every round is seen
        }
    }

    std::uint32_t sets_;
    LeapingClock clock_;
    SeededRandom random_{1};
    metrics::Registry registry_;
    EventLoop loop_{clock_};
    std::vector<std::array<sa::AkaKey, 2>> keys_;
    std::vector<sa::SetParams> talking_;
    std::unique_ptr<dataplane::BufferPools> pools_;
    std::unique_ptr<TalkingWire> wire_;
    Sink host_;
    std::uint64_t early_ = 0;
    std::unique_ptr<dataplane::DpdkBackend> backend_;
    std::unique_ptr<sa::SaDatabase> database_;
    std::unique_ptr<registration::Gateway> gateway_;
    Capture gm_;
    Capture core_;
    Pauses pauses_;
    std::function<bool()> done_ = [] { return true; };
};

void print(const char* name, const Run::Phase& p) {
    const auto us = [](double s) { return s * 1e6; };
    fmt::print(
        "{:<22} {:>7.2f} {:>9} {:>8.0f} {:>8.0f} {:>8.0f} {:>6} {:>9.0f} {:>9.0f} {:>8.0f}\n", name,
        p.seconds, p.pauses.rounds, us(p.pauses.cpu_p50), us(p.pauses.cpu_p999),
        us(p.pauses.cpu_max), p.pauses.over_a_millisecond, us(p.pauses.wall_p999),
        us(p.pauses.wall_max), p.packet_nanoseconds);
}

}  // namespace
}  // namespace gmgate

int main(int argc, char** argv) {
    using namespace gmgate;
    std::uint32_t sets = 250'000;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word(argv[i]);
        if (word == "--quick") {
            sets = 10'000;
        } else if (word == "--sets" && i + 1 < argc) {
            sets = static_cast<std::uint32_t>(std::strtoul(argv[++i], nullptr, 10));
        } else if (!word.starts_with("--benchmark_")) {
            std::fprintf(stderr, "usage: bench_timers [--quick | --sets N]\n");
            return 2;
        }
    }
    if (sets == 0 || sets > 1'000'000) {
        std::fprintf(stderr, "bench_timers: --sets takes 1 to 1000000\n");
        return 2;
    }
    test::start_eal("timers", 96);
    Run run(sets);
    run.challenge_all();
    if (run.temporary() != sets) {
        std::fprintf(stderr, "%zu temporary sets instead of %u\n", run.temporary(), sets);
        return 1;
    }
    fmt::print("{} temporary SAs end at once; {} other phones send {}-octet datagrams meanwhile\n",
               std::size_t{4} * sets, talking_phones, datagram);
    fmt::print("{:<22} {:>7} {:>9} {:>26} {:>6} {:>19} {:>8}\n", "", "", "", "pause, CPU time, us",
               "", "pause, clock, us", "ns of");
    fmt::print("{:<22} {:>7} {:>9} {:>8} {:>8} {:>8} {:>6} {:>9} {:>9} {:>8}\n", "phase", "seconds",
               "rounds", "p50", "p99.9", "max", ">1 ms", "p99.9", "max", "a packet");
    const Run::Phase transactions = run.end_transactions();
    print("transactions end", transactions);
    const Run::Phase before = run.quiet();
    print("quiet", before);
    const Run::Phase during = run.expire();
    print("temporary SAs end", during);
    const Run::Phase after = run.quiet();
    print("quiet again", after);
    const double quiet = (before.packet_nanoseconds + after.packet_nanoseconds) / 2;
    fmt::print(
        "longest pause {:.2f} ms of CPU time (aim 1; in it {} page faults, {} times another "
        "program "
        "took the core); {:.2f} us of CPU a set of four; a packet "
        "costs "
        "the fast path {:.3f} times what it costs in quiet (aim 1.05)\n",
        during.pauses.cpu_max * 1e3, during.pauses.longest_faults, during.pauses.longest_switches,
        during.cpu_seconds * 1e6 / sets, during.packet_nanoseconds / quiet);
    if (run.temporary() != 0) {
        std::fprintf(stderr, "%zu temporary sets are left\n", run.temporary());
        return 1;
    }
    if (run.lost() != 0) {
        std::fprintf(stderr, "%llu good packets were dropped\n",
                     static_cast<unsigned long long>(run.lost()));
        return 1;
    }
    return 0;
}
