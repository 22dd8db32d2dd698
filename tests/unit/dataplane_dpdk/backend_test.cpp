// The whole backend on ports that are memory: threads, events, statistics, removal under traffic.
// No root.
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <thread>

#include "base/bytes.h"
#include "dataplane/dpdk/dpdk_backend.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/interface.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"
#include "tests/unit/dataplane_dpdk/memory_port.h"

namespace gmgate::dataplane::test {
namespace {

DpdkOptions good_options(unsigned workers) {
    DpdkOptions o;
    o.gm_interface = "test0";
    o.addresses = {{our_address(false), 16}, {our_address(true), 64}};
    o.port_ps = {port_ps, port_ps};
    o.port_pc = {first_port_pc, first_port_pc + 1000};
    o.workers = workers;
    o.max_sets = 256;
    o.crypto = CryptoChoice::openssl;
    return o;
}

class Backend : public testing::TestWithParam<unsigned> {
  protected:
    void SetUp() override {
        start_eal();
        auto made = BufferPools::create("backend", 1, 24);
        ASSERT_TRUE(made) << made.error().text;
        pools_ = std::move(*made);
        wire_ = std::make_unique<MemoryPort>(GetParam(), pools_->large());
        host_ = std::make_unique<MemoryPort>(GetParam(), pools_->large());
        DpdkOptions options = good_options(GetParam());
        options.verify_only = verify_only_;
        auto backend = DpdkBackend::create_on(options, clock_, *wire_, *host_, *pools_);
        ASSERT_TRUE(backend) << backend.error().text;
        backend_ = std::move(*backend);
    }
    void TearDown() override {
        backend_.reset();
        if (pools_) {
            EXPECT_EQ(rte_mempool_in_use_count(pools_->large()), 0U);
        }
    }
    Phone phone(std::uint32_t n, bool v6 = false) {
        const Phone probe(n, {sa::Integrity::hmac_sha_1_96, sa::Encryption::null}, v6, random_);
        const std::uint32_t owner = backend_->owner_of(probe.ue, probe.ours);
        return Phone(n, {sa::Integrity::hmac_sha_1_96, sa::Encryption::null}, v6, random_, owner);
    }
    // Waits for something that must happen; what it waits for is checked by the caller.
    static void wait_for(const std::function<bool()>& condition) {
        for (int i = 0; i < 20000 && !condition(); ++i)
            std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    // Where the place may be one that is being left: a worker that has lost its core for longer
    // than an install() waits is no failure of a test.
    Result<void> install_again(const sa::SetParams& params) {
        Result<void> done;
        wait_for([&] { return (done = backend_->install(params)).has_value(); });
        return done;
    }
    std::vector<Octets> taken_from(MemoryPort& port, std::size_t count) {
        std::vector<Octets> all;
        wait_for([&] {
            for (unsigned q = 0; q < GetParam(); ++q) {
                for (Octets& f : port.take(q)) all.push_back(std::move(f));
            }
            return all.size() >= count;
        });
        return all;
    }
    std::uint64_t drops(std::string_view reason) {
        for (const DropCount& d : backend_->drops()) {
            if (d.name == reason) return d.total;
        }
        ADD_FAILURE() << "no drop reason " << reason;
        return 0;
    }
    sa::SetStats stats(sa::SetId id) {
        sa::SetStats s;
        backend_->stats(std::span(&id, 1), std::span(&s, 1));
        return s;
    }

    void install_and_remove_under_traffic();

    bool verify_only_ = false;
    SeededRandom random_{11};
    SystemClock clock_;
    std::unique_ptr<BufferPools> pools_;
    std::unique_ptr<MemoryPort> wire_;
    std::unique_ptr<MemoryPort> host_;
    std::unique_ptr<DpdkBackend> backend_;
};

TEST_P(Backend, CarriesBothDirectionsAndCounts) {
    for (const bool v6 : {false, true}) {
        const Phone p = phone(v6 ? 2 : 1, v6);
        ASSERT_TRUE(backend_->install(p.params()));
        wire_->put(0, p.esp_up(1, 200));
        const auto in = taken_from(*host_, 1);
        ASSERT_EQ(in.size(), 1U);
        EXPECT_EQ(in[0], plain_frame(p.up(false), 200));
        host_->put(0, plain_frame(p.down(false), 300));
        const auto out = taken_from(*wire_, 1);
        ASSERT_EQ(out.size(), 1U);
        EXPECT_EQ(p.esp.unprotect(out[0]), plain_frame(p.down(false), 300));
        const sa::SetStats s = stats(p.id);
        EXPECT_EQ(s.in_packets, 1U);
        EXPECT_EQ(s.out_packets, 1U);
        EXPECT_EQ(s.highest_out_sequence, 1U);
        EXPECT_LE(s.last_use, clock_.now());
        EXPECT_GT(s.last_use, clock_.now() - std::chrono::minutes(1));
    }
    EXPECT_EQ(backend_->installed(), 2U);
    EXPECT_EQ(stats(999).in_packets, 0U);
}

TEST_P(Backend, ASetOnceRemovedIsUnknown) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    const auto twice = backend_->install(p.params());
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().kind, ErrorKind::conflict);
    EXPECT_EQ(backend_->installed(), 1U);
    backend_->remove(p.id);
    backend_->remove(p.id);
    backend_->remove(12345);
    EXPECT_EQ(backend_->installed(), 0U);
    wire_->put(0, p.esp_up(1, 10));
    wait_for([&] { return drops("unknown_spi") == 1; });
    EXPECT_EQ(drops("unknown_spi"), 1U);
    ASSERT_TRUE(install_again(p.params()));
    wire_->put(0, p.esp_up(1, 10));
    EXPECT_EQ(taken_from(*host_, 1).size(), 1U);
}

// A worker that has lost its core must not keep the control thread, which has phones to serve.
TEST_P(Backend, RemovalDoesNotWaitForAWorkerThatStands) {
    const Phone gone = phone(1);
    const Phone other = phone(2);
    ASSERT_TRUE(backend_->install(gone.params()));
    wire_->stand_still(true);
    wire_->wait_until_standing();
    backend_->remove(gone.id);
    EXPECT_EQ(backend_->installed(), 0U);
    ASSERT_TRUE(backend_->install(other.params()));  // a place of its own needs no waiting either
    EXPECT_EQ(backend_->installed(), 1U);
    wire_->stand_still(false);
    // The same places again: whoever asks for them gets them, once the workers have moved on.
    ASSERT_TRUE(install_again(gone.params()));
    wire_->put(0, gone.esp_up(1, 10));
    EXPECT_EQ(taken_from(*host_, 1).size(), 1U);
}

// Nor for one that never comes back: who wants the places it holds is refused.
TEST_P(Backend, InstallDoesNotWaitForEverForAWorkerThatStopped) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    wire_->stand_still(true);
    wire_->wait_until_standing();
    // A gateway that waits is let go after a while, so that the test ends.
    std::atomic<bool> done{false};
    std::atomic<bool> waited{false};
    std::thread rescue([&] {
        wait_for([&] { return done.load(); });
        waited = !done;
        wire_->stand_still(false);
    });
    backend_->remove(p.id);
    for (int again = 0; again < 3; ++again) {
        const auto refused = backend_->install(p.params());
        EXPECT_FALSE(refused);
        if (!refused) {
            EXPECT_EQ(refused.error().kind, ErrorKind::conflict);
        }
    }
    EXPECT_EQ(backend_->installed(), 0U);
    EXPECT_EQ(backend_->leaving(), 1U);
    done = true;
    rescue.join();
    EXPECT_FALSE(waited);
    EXPECT_TRUE(install_again(p.params()));
    EXPECT_EQ(backend_->leaving(), 0U);
}

// What no waiting can help is refused at once.
TEST_P(Backend, MistakesWaitForNoWorker) {
    const Phone gone = phone(1);
    const Phone wrong = phone(2);
    ASSERT_TRUE(backend_->install(gone.params()));
    wire_->stand_still(true);
    wire_->wait_until_standing();
    std::atomic<bool> done{false};
    std::atomic<bool> waited{false};
    std::thread rescue([&] {
        wait_for([&] { return done.load(); });
        waited = !done;
        wire_->stand_still(false);
    });
    backend_->remove(gone.id);
    sa::SetParams params = wrong.params();
    params.ck = nullptr;
    const auto refused = backend_->install(params);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::invalid);
    EXPECT_EQ(backend_->leaving(), 1U);
    done = true;
    rescue.join();
    EXPECT_FALSE(waited);
}

// Without anybody asking for its place: a worker says when it has moved on.
TEST_P(Backend, AWorkerTellsWhenKeysCanBeWiped) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    wire_->stand_still(true);
    wire_->wait_until_standing();
    backend_->remove(p.id);
    EXPECT_EQ(backend_->leaving(), 1U);
    wire_->stand_still(false);
    for (int i = 0; i < 100 && backend_->leaving() != 0; ++i) {
        pollfd fd{backend_->event_fd(), POLLIN, 0};
        ASSERT_GE(::poll(&fd, 1, 10'000), 0);
        backend_->drain_events([](const sa::BackendEvent&) {});
    }
    EXPECT_EQ(backend_->leaving(), 0U);
}

// While one worker stands, those that run must not call the control thread each round.
TEST_P(Backend, WorkersTellOnceWhatAnotherHoldsUp) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    wire_->stand_still(true, 0);
    wire_->wait_until_standing();
    backend_->remove(p.id);
    unsigned called = 0;
    for (unsigned i = 0; i < 100; ++i) {
        // The others are busy.
        for (unsigned q = 1; q < GetParam(); ++q) wire_->put(q, plain_frame(p.up(false), 10));
        pollfd fd{backend_->event_fd(), POLLIN, 0};
        if (::poll(&fd, 1, 2) == 1) ++called;
        backend_->drain_events([](const sa::BackendEvent&) {});
    }
    EXPECT_LE(called, GetParam());
    EXPECT_EQ(backend_->leaving(), 1U);
    wire_->stand_still(false);
    for (int i = 0; i < 100 && backend_->leaving() != 0; ++i) {
        pollfd fd{backend_->event_fd(), POLLIN, 0};
        ASSERT_EQ(::poll(&fd, 1, 10'000), 1);
        backend_->drain_events([](const sa::BackendEvent&) {});
    }
    EXPECT_EQ(backend_->leaving(), 0U);
}

// A set from a snapshot goes on where it stopped: the UE would take what comes again for replays.
TEST_P(Backend, OutboundGoesOnAfterTheSequenceOfASnapshot) {
    const Phone p = phone(1);
    sa::SetParams params = p.params();
    params.out_sequence = 4242;
    ASSERT_TRUE(backend_->install(params));
    for (const bool to_uc : {true, false}) {
        host_->put(0, plain_frame(p.down(false, to_uc), 30));
        const auto out = taken_from(*wire_, 1);
        ASSERT_EQ(out.size(), 1U);
        EXPECT_EQ(load_be32(&out[0][38]), 4243U);
    }
    EXPECT_EQ(stats(p.id).out_packets, 2U);
    EXPECT_EQ(stats(p.id).highest_out_sequence, 4243U);
}

TEST_P(Backend, ReportsEventsThroughItsDescriptor) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    pollfd fd{backend_->event_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&fd, 1, 0), 0);
    wire_->put(0, p.esp_up(1, 10));
    ASSERT_EQ(::poll(&fd, 1, 10000), 1);
    std::vector<sa::BackendEvent> events;
    const auto drain = [&] {
        backend_->drain_events([&](const sa::BackendEvent& e) { events.push_back(e); });
    };
    drain();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].kind, sa::BackendEventKind::first_authentic_packet);
    EXPECT_EQ(events[0].set, p.id);
    EXPECT_EQ(events[0].spi, p.numbers.spi_ps);
    EXPECT_EQ(::poll(&fd, 1, 0), 0);

    for (std::uint32_t i = 0; i < 100; ++i) {
        Octets forged = p.esp_up(10 + i, 40, false, i % 2 == 0);
        forged.back() ^= 1;
        wire_->put(0, std::move(forged));
    }
    wait_for([&] { return drops("integrity") == 100; });
    EXPECT_EQ(drops("integrity"), 100U);
    events.clear();
    ASSERT_EQ(::poll(&fd, 1, 10000), 1);
    drain();
    // Two SAs: the set still makes one event a second; the second may have changed in between.
    EXPECT_GE(events.size(), 1U);
    EXPECT_LE(events.size(), 2U);
    EXPECT_EQ(events[0].kind, sa::BackendEventKind::integrity_failure);
    EXPECT_EQ(stats(p.id).integrity_failures, 100U);
}

void Backend::install_and_remove_under_traffic() {
    std::vector<Phone> phones;
    for (std::uint32_t n = 1; n <= 16; ++n) phones.push_back(phone(n, n % 2 == 0));
    std::atomic<bool> stop{false};
    std::thread traffic([&] {
        for (std::uint32_t sequence = 1; !stop; ++sequence) {
            for (const Phone& p : phones) {
                wire_->put(sequence % GetParam(), p.esp_up(sequence, 30));
                host_->put(sequence % GetParam(), plain_frame(p.down(false), 30));
            }
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            for (unsigned q = 0; q < GetParam(); ++q) {
                (void)host_->take(q);
                (void)wire_->take(q);
            }
        }
    });
    std::vector<sa::SetId> ids;
    for (const Phone& p : phones) ids.push_back(p.id);
    for (int round = 0; round < 100; ++round) {
        for (const Phone& p : phones) {
            const auto done = install_again(p.params());
            ASSERT_TRUE(done) << done.error().text;
        }
        backend_->drain_events([](const sa::BackendEvent&) {});
        backend_->remove(ids);
        ASSERT_EQ(backend_->installed(), 0U);
    }
    stop = true;
    traffic.join();
}

TEST_P(Backend, InstallsAndRemovesUnderTraffic) {
    install_and_remove_under_traffic();
}

TEST_P(Backend, MetricsHaveOneNameEachAndHealthIsGood) {
    metrics::Registry registry;
    backend_->register_metrics(registry);
    std::set<std::string> series;
    for (const auto& s : registry.collect()) {
        std::string key = s.name;
        for (const auto& [name, value] : s.labels)
            key.append(",").append(name).append("=").append(value);
        EXPECT_TRUE(series.insert(key).second) << key;
        EXPECT_TRUE(s.name.starts_with("gmgate_dataplane_")) << s.name;
        EXPECT_EQ(s.kind == metrics::Kind::counter, s.name.ends_with("_total")) << s.name;
        EXPECT_FALSE(s.help.empty()) << s.name;
    }
    std::set<std::string_view> reasons;
    for (const DropCount& d : backend_->drops()) {
        EXPECT_TRUE(reasons.insert(d.name).second) << d.name;
        EXPECT_TRUE(series.contains("gmgate_dataplane_drops_total,reason=" + std::string(d.name)));
        EXPECT_EQ(d.by_worker.size(), GetParam());
    }
    const DataplaneHealth h = backend_->health();
    EXPECT_TRUE(h.ok) << h.text;
    EXPECT_EQ(h.worker_alive.size(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Workers, Backend, testing::Values(1U, 2U, 3U),
                         [](const auto& i) { return std::to_string(i.param); });

// The screen: the same threads, installation, removal and events; nothing is sealed.
class Screening : public Backend {
  protected:
    Screening() { verify_only_ = true; }
};

TEST_P(Screening, VerifiesPassesOnAndCounts) {
    const Phone p = phone(1);
    ASSERT_TRUE(backend_->install(p.params()));
    Octets forged = p.esp_up(7, 60);
    forged.back() ^= 1U;
    wire_->put(0, forged);
    const Octets good = p.esp_up(1, 200);
    wire_->put(0, good);
    const auto in = taken_from(*host_, 1);
    ASSERT_EQ(in.size(), 1U);
    EXPECT_EQ(in[0], good);
    EXPECT_EQ(drops("integrity"), 1U);
    host_->put(0, plain_frame(p.down(false), 30));
    const Octets sealed = p.esp.protect(plain_frame(p.down(false), 30), p.numbers.spi_uc, 1);
    host_->put(0, sealed);
    const auto out = taken_from(*wire_, 1);
    ASSERT_EQ(out.size(), 1U);
    EXPECT_EQ(out[0], sealed);
    EXPECT_EQ(drops("outbound_no_sa"), 1U);
    const sa::SetStats s = stats(p.id);
    EXPECT_EQ(s.in_packets, 1U);
    EXPECT_EQ(s.integrity_failures, 1U);
    EXPECT_EQ(s.out_packets, 0U);
    std::vector<sa::BackendEventKind> kinds;
    backend_->drain_events([&](const sa::BackendEvent& e) { kinds.push_back(e.kind); });
    EXPECT_EQ(kinds.size(), 2U);
}

TEST_P(Screening, InstallsAndRemovesUnderTraffic) {
    install_and_remove_under_traffic();
}

INSTANTIATE_TEST_SUITE_P(Workers, Screening, testing::Values(1U, 3U),
                         [](const auto& i) { return std::to_string(i.param); });

TEST_P(Backend, ASetOfAnotherAddressIsRefused) {
    sa::SetParams params = phone(1).params();
    params.ours = core_address(false);
    const auto refused = backend_->install(params);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::invalid);
    EXPECT_NE(refused.error().text.find("gm.addresses"), std::string::npos);
}

TEST_P(Backend, ASetOnUnprotectedPortsIsRefused) {
    for (const bool ps : {true, false}) {
        Phone p = phone(1);
        (ps ? p.numbers.port_ps : p.numbers.port_pc) = 5060;
        const auto done = backend_->install(p.params());
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().kind, ErrorKind::invalid);
        EXPECT_NE(done.error().text.find("5060"), std::string::npos);
        EXPECT_EQ(backend_->installed(), 0U);
    }
}

TEST(BackendOptions, MistakesAreNamed) {
    start_eal();
    const SystemClock clock;
    const auto said = [&](const std::function<void(DpdkOptions&)>& change) {
        DpdkOptions o = good_options(1);
        change(o);
        const auto made = DpdkBackend::create(o, clock);
        return made ? std::string("accepted") : made.error().text;
    };
    EXPECT_NE(said([](DpdkOptions& o) { o.workers = 0; }).find("workers"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.workers = 16; }).find("workers"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.addresses.clear(); }).find("address"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.addresses[0].prefix = 33; }).find("prefix"),
              std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.port_pc = {2, 1}; }).find("ports"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.mtu = 1200; }).find("mtu"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.mtu = 9000; }).find("mtu"), std::string::npos)
        << "more than a frame of the packet socket's ring holds";
    EXPECT_NE(said([](DpdkOptions& o) { o.replay_window = 100; }).find("replay_window"),
              std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.max_sets = 0; }).find("max_sets"), std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.worker_cpus = {0, 1}; }).find("worker_cpus"),
              std::string::npos);
    EXPECT_NE(said([](DpdkOptions& o) { o.tap_name = o.gm_interface; }).find("both"),
              std::string::npos);
    const std::string absent = said([](DpdkOptions& o) { o.gm_interface = "gmnosuch0"; });
    EXPECT_NE(absent.find("gmnosuch0"), std::string::npos);
    EXPECT_NE(absent.find("lo"), std::string::npos) << "those there are: " << absent;
}

TEST(Interface, NamesThatCannotBeAreNotFound) {
    for (const char* name : {"", "a-name-that-is-too-long", "gmnosuch0"}) {
        const auto info = interface_info(name);
        ASSERT_FALSE(info) << name;
        EXPECT_EQ(info.error().kind, ErrorKind::not_found);
    }
    const auto lo = interface_info("lo");
    ASSERT_TRUE(lo) << lo.error().text;
    EXPECT_FALSE(lo->ethernet);
}

TEST(RuntimeDirs, OnlyThoseOfTheDeadGo) {
    namespace fs = std::filesystem;
    const fs::path root =
        fs::path(testing::TempDir()) / ("gmgate-runtime-" + std::to_string(::getpid()));
    // No process has this id: it is beyond the kernel's largest.
    const std::vector<std::string> dead{"gmgate-1999999999"};
    const std::vector<std::string> kept{"gmgate-1",         "gmgate-x",           "gmgate-",
                                        "other-1999999999", "gmgate-1999999999x", "rte"};
    for (const auto* list : {&dead, &kept}) {
        for (const std::string& name : *list) {
            fs::create_directories(root / name);
            std::ofstream(root / name / "config") << "x";
        }
    }
    EXPECT_EQ(remove_stale_runtime_dirs(root.string(), "gmgate"), 1U);
    for (const std::string& name : dead) EXPECT_FALSE(fs::exists(root / name)) << name;
    for (const std::string& name : kept) EXPECT_TRUE(fs::exists(root / name)) << name;
    EXPECT_EQ(remove_stale_runtime_dirs((root / "absent").string(), "gmgate"), 0U);
    fs::remove_all(root);
}

}  // namespace
}  // namespace gmgate::dataplane::test
