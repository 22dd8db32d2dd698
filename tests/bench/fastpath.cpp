// The inbound fast path, ending ESP or screening it, ring to ring, against raw libIPSec_MB and
// OpenSSL on the same packets and keys in the same run.
//
// One iteration takes a chunk of packets fresh from their templates (as a NIC would have put them
// into the cache's last level), times the fast path on it: rte_ring → inbound() with every check,
// decapsulation and counter → rte_ring, then times raw libIPSec_MB on another chunk: nothing but
// the hash or cipher calls, over the same kind of buffers and the very same key memory, no lookup,
// no comparison. Rates are medians over the chunks, in CPU time of the thread; the two alternate,
// so that a busy machine slows both.
//
//   bench_fastpath            everything (minutes, about 4 GB)
//   bench_fastpath --quick    a cut through it (seconds)
// and all options of Google Benchmark. DPDK uses huge pages if some are free, ordinary memory
// otherwise.

#include <benchmark/benchmark.h>
#include <intel-ipsec-mb.h>
#include <openssl/evp.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include "base/bytes.h"
#include "base/random.h"
#include "dataplane/core/checksum.h"
#include "dataplane/core/esp.h"
#include "dataplane/dpdk/fast_path.h"
#include "tests/support/eal.h"

namespace {

using namespace gmgate;
using namespace gmgate::dataplane;

constexpr std::size_t chunk = 4096;
constexpr std::uint16_t port_ps = 5064;

// esp: verify and decapsulate (backend dpdk); screen: verify and pass on (backend screen).
enum class Way : std::uint8_t { esp, screen };

std::string_view name(Way w) {
    return w == Way::esp ? "esp" : "screen";
}

enum class Traffic : std::uint8_t { good, forged, replayed, unknown_spi };

std::string_view name(Traffic t) {
    switch (t) {
        case Traffic::good:
            return "good";
        case Traffic::forged:
            return "forged";
        case Traffic::replayed:
            return "replayed";
        case Traffic::unknown_spi:
            return "unknown-spi";
    }
    return "";
}

rte_mempool* buffers() {
    static rte_mempool* const pool = [] {
        rte_mempool* p = rte_pktmbuf_pool_create("bench", 4 * chunk - 1, 256, 0,
                                                 RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
        if (p == nullptr) {
            std::fprintf(stderr, "no memory for buffers: %s\n", rte_strerror(rte_errno));
            std::exit(1);
        }
        return p;
    }();
    return pool;
}

struct Ring {
    explicit Ring(const char* ring_name)
        : ring(
              rte_ring_create(ring_name, 2 * chunk, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ)) {
        if (ring == nullptr) std::exit(1);
    }
    ~Ring() { rte_ring_free(ring); }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;
    rte_ring* ring;
};

// CPU time of this thread: what other programs take of the core does not count.
double cpu_seconds() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double median(std::vector<double> v) {
    if (v.empty()) return 0;
    const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
    std::nth_element(v.begin(), middle, v.end());
    return *middle;
}

// Phones with installed sets, and one sealed packet or more for each, in random order of the
// phones.
class World {
  public:
    // `octets`: of the UDP datagram inside; 0: mixed, 100 to 1400.
    World(Way way, sa::Suite suite, std::size_t phones, std::size_t octets)
        : suite_(suite),
          geometry_(esp_geometries()[sa::suite_index(suite)]),
          table_({.capacity = phones, .inbound_only = way == Way::screen},
                 make_engine(best_engine()), random_) {
        FastPathConfig config;
        config.our_addresses = {*IpAddress::parse("10.255.0.1")};
        config.protected_ports.add(port_ps);
        config.protected_ports.add_range(20000, 29999);
        config.verify_only = way == Way::screen;
        path_ = std::make_unique<FastPath>(config, table_, make_engine(best_engine()), random_);
        phones_ = phones;
        publish(phones);
        seal(phones, octets);
    }

    [[nodiscard]] std::size_t chunks() const { return templates_ / chunk; }
    [[nodiscard]] FastPath& path() { return *path_; }
    [[nodiscard]] const InboundSa* const* sas(std::size_t which) const {
        return &sas_[which * chunk];
    }
    [[nodiscard]] const EspGeometry& geometry() const { return geometry_; }
    [[nodiscard]] const std::uint8_t* schedule(const InboundSa& sa) const {
        return table_.schedule(sa.suite, sa.schedule);
    }
    [[nodiscard]] SeededRandom& random() { return random_; }

    // Fresh buffers with chunk number `which`.
    void fill(std::size_t which, Traffic traffic, rte_mbuf** out) const {
        if (rte_pktmbuf_alloc_bulk(buffers(), out, chunk) != 0) std::exit(1);
        for (std::size_t i = 0; i < chunk; ++i) {
            const std::size_t n = which * chunk + i;
            const std::uint16_t size = sizes_[n];
            auto* at = reinterpret_cast<std::uint8_t*>(rte_pktmbuf_append(out[i], size));
            std::memcpy(at, &bytes_[n * stride_], size);
            if (traffic == Traffic::forged) at[size - 1] ^= 1U;
            // A generation that was never handed out: what is left of it after an SA is gone, or a
            // guess.
            if (traffic == Traffic::unknown_spi) at[34] ^= 0x80U;
        }
    }
    // After a whole pass: nothing has been seen yet.
    void forget() {
        for (const InboundSa* sa : sas_) {
            auto* writable = const_cast<InboundSa*>(
                sa);  // NOLINT(cppcoreguidelines-pro-type-const-cast): the bench owns it
            writable->highest.set(0);
            writable->window = 0;
        }
    }
    // As if everything had been seen.
    void remember() {
        const auto last =
            static_cast<std::uint32_t>(std::max<std::size_t>(64, templates_ / phones_));
        for (const InboundSa* sa : sas_) {
            auto* writable =
                const_cast<InboundSa*>(sa);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
            writable->highest.set(last);
            writable->window = ~std::uint64_t{0};
        }
    }

  private:
    static IpAddress ue(std::size_t n) {
        const std::array<std::uint8_t, 4> octets{10, static_cast<std::uint8_t>(n >> 16U),
                                                 static_cast<std::uint8_t>(n >> 8U),
                                                 static_cast<std::uint8_t>(n)};
        return IpAddress::v4(octets);
    }
    static sa::Spi spi_ps(std::size_t n) {
        return sa::SpiLayout::make(1, 0, static_cast<std::uint32_t>(2 * n));
    }

    void publish(std::size_t phones) {
        sa::AkaKey ck, ik;
        for (std::size_t n = 0; n < phones; ++n) {
            random_.fill(ck.writable());
            random_.fill(ik.writable());
            sa::SetParams p;
            p.id = n + 1;
            p.ue = ue(n);
            p.ours = *IpAddress::parse("10.255.0.1");
            p.numbers = {.spi_uc = 0x10000000U + static_cast<std::uint32_t>(n),
                         .spi_us = 0x20000000U + static_cast<std::uint32_t>(n),
                         .spi_pc = spi_ps(n) + 1,
                         .spi_ps = spi_ps(n),
                         .port_uc = 31000,
                         .port_us = 32000,
                         .port_pc = 20000,
                         .port_ps = port_ps};
            p.suite = suite_;
            p.ck = &ck;
            p.ik = &ik;
            if (const auto r = table_.publish(p); !r) {
                std::fprintf(stderr, "publish: %s\n", r.error().text.c_str());
                std::exit(1);
            }
        }
    }

    void seal(std::size_t phones, std::size_t octets) {
        templates_ = (std::max(phones, chunk) + chunk - 1) / chunk * chunk;
        const std::size_t largest = octets == 0 ? 1400 : octets;
        stride_ =
            (34 + largest + geometry_.overhead(static_cast<std::uint32_t>(largest)) + 16 + 63) /
            64 * 64;
        bytes_.resize(templates_ * stride_);
        sizes_.resize(templates_);
        sas_.resize(templates_);
        std::vector<std::uint32_t> order(phones);
        for (std::uint32_t i = 0; i < phones; ++i) order[i] = i;
        for (std::size_t i = phones; i > 1; --i) std::swap(order[i - 1], order[random_.below(i)]);
        const auto engine = make_engine(best_engine());
        std::vector<CryptoJob> jobs;
        for (std::size_t i = 0; i < templates_; ++i) {
            const std::size_t phone = order[i % phones];
            const std::size_t payload = octets != 0 ? octets : 100 + random_.below(1301);
            InboundSa& sa = table_.slot_of(spi_ps(phone));
            sas_[i] = &sa;
            jobs.push_back(build(&bytes_[i * stride_], phone,
                                 static_cast<std::uint32_t>(1 + i / phones), payload, sa,
                                 sizes_[i]));
            if (jobs.size() == CryptoEngine::max_jobs || i + 1 == templates_) {
                engine->seal(suite_, jobs);
                jobs.clear();
            }
        }
    }

    CryptoJob build(std::uint8_t* f, std::size_t phone, std::uint32_t sequence, std::size_t payload,
                    const InboundSa& sa, std::uint16_t& size) {
        const std::uint32_t padding = geometry_.padding(static_cast<std::uint32_t>(payload));
        const std::uint32_t head = geometry_.head();
        const std::size_t esp_size = head + payload + padding + esp_trailer_size + geometry_.icv;
        size = static_cast<std::uint16_t>(34 + esp_size);
        store_be16(f + 12, 0x0800);
        f[14] = 0x45;
        store_be16(f + 16, static_cast<std::uint16_t>(20 + esp_size));
        f[22] = 64;
        f[23] = 50;
        const auto source = ue(phone).octets();
        std::copy(source.begin(), source.end(), f + 26);
        const std::array<std::uint8_t, 4> ours{10, 255, 0, 1};
        std::copy(ours.begin(), ours.end(), f + 30);
        store_be16(f + 24, ipv4_header_checksum({f + 14, 20}));
        std::uint8_t* esp = f + 34;
        store_be32(esp, sa.spi.load());
        store_be32(esp + 4, sequence);
        random_.fill({esp + 8, geometry_.iv});
        std::uint8_t* udp = esp + head;
        store_be16(udp, 31000);
        store_be16(udp + 2, port_ps);
        store_be16(udp + 4, static_cast<std::uint16_t>(payload));
        std::memset(udp + 8, 'x', payload - 8);
        write_trailer(udp + payload, padding, 17);
        CryptoJob job;
        job.esp = esp;
        job.length = static_cast<std::uint32_t>(esp_size - geometry_.icv);
        job.small_key = sa.small_key.data();
        job.schedule = schedule(sa);
        return job;
    }

    SeededRandom random_{1};
    sa::Suite suite_;
    EspGeometry geometry_;
    SaTable table_;
    std::unique_ptr<FastPath> path_;
    std::size_t phones_ = 0;
    std::size_t templates_ = 0;
    std::size_t stride_ = 0;
    std::vector<std::uint8_t> bytes_;
    std::vector<std::uint16_t> sizes_;
    std::vector<const InboundSa*> sas_;
};

// libIPSec_MB and nothing else: fill jobs, submit. `prefetch`: ask for the keys of the burst first;
// the faster of both is the yardstick.
class Raw {
  public:
    // For the screen only what verifies: no cipher; for AES-GCM GMAC over as many octets, the least
    // the library does for such a tag.
    Raw(Way way, sa::Suite suite) : way_(way), suite_(suite), mb_(alloc_mb_mgr(0)) {
        if (mb_ == nullptr) std::exit(1);
        init_mb_mgr_auto(mb_, nullptr);
        std::memset(jobs_.data(), 0, sizeof(jobs_));
        for (std::size_t i = 0; i < jobs_.size(); ++i) jobs_[i].auth_tag_output = tags_[i].data();
    }
    ~Raw() { free_mb_mgr(mb_); }
    Raw(const Raw&) = delete;
    Raw& operator=(const Raw&) = delete;

    double run(const World& world, std::size_t which, rte_mbuf* const* packets, bool prefetch) {
        const InboundSa* const* sas = world.sas(which);
        const double begin = cpu_seconds();
        for (std::size_t i = 0; i < chunk; i += max_burst)
            burst(world, sas + i, packets + i, prefetch);
        return cpu_seconds() - begin;
    }

  private:
    void burst(const World& world, const InboundSa* const* sas, rte_mbuf* const* packets,
               bool prefetch) {
        if (prefetch) {
            for (std::size_t i = 0; i < max_burst; ++i)
                __builtin_prefetch(sas[i]->small_key.data());
        }
        if (suite_.encryption == sa::Encryption::aes_gcm ||
            suite_.integrity == sa::Integrity::aes_gmac) {
            aead(world, sas, packets, prefetch);
        } else if (suite_.integrity == sa::Integrity::hmac_md5_96) {
            md5(world, sas, packets);
        } else {
            sha1(world, sas, packets);
        }
    }

    static std::uint8_t* esp_of(rte_mbuf* m) {
        return rte_pktmbuf_mtod_offset(m, std::uint8_t*, 34);
    }
    static std::uint32_t authenticated(const World& world, const rte_mbuf* m) {
        return m->data_len - 34U - world.geometry().icv;
    }

    static void hmac(IMB_JOB& job, const World& world, const InboundSa& sa, rte_mbuf* m) {
        job.src = esp_of(m);
        job.hash_start_src_offset_in_bytes = 0;
        job.msg_len_to_hash_in_bytes = authenticated(world, m);
        job.u.HMAC._hashed_auth_key_xor_ipad = sa.small_key.data();
        job.u.HMAC._hashed_auth_key_xor_opad = sa.small_key.data() + 20;
        job.auth_tag_output_len_in_bytes = 12;
    }

    void sha1(const World& world, const InboundSa* const* sas, rte_mbuf* const* packets) {
        for (std::size_t i = 0; i < max_burst; ++i) {
            hmac(jobs_[i], world, *sas[i], packets[i]);
            jobs_[i].hash_alg = IMB_AUTH_HMAC_SHA_1;
        }
        IMB_SUBMIT_HASH_BURST_NOCHECK(mb_, jobs_.data(), max_burst, IMB_AUTH_HMAC_SHA_1);
        if (suite_.encryption != sa::Encryption::aes_cbc || way_ == Way::screen) return;
        for (std::size_t i = 0; i < max_burst; ++i) {
            IMB_JOB& job = jobs_[i];
            const std::uint8_t* schedule = world.schedule(*sas[i]);
            std::uint8_t* esp = esp_of(packets[i]);
            job.enc_keys = schedule;
            job.dec_keys = schedule + 176;
            job.key_len_in_bytes = 16;
            job.iv = esp + 8;
            job.iv_len_in_bytes = 16;
            job.cipher_start_src_offset_in_bytes = 24;
            job.dst = esp + 24;
            job.msg_len_to_cipher_in_bytes = authenticated(world, packets[i]) - 24;
        }
        IMB_SUBMIT_CIPHER_BURST_NOCHECK(mb_, jobs_.data(), max_burst, IMB_CIPHER_CBC,
                                        IMB_DIR_DECRYPT, IMB_KEY_128_BYTES);
    }

    void md5(const World& world, const InboundSa* const* sas, rte_mbuf* const* packets) {
        std::array<IMB_JOB*, max_burst> jobs{};
        if (IMB_GET_NEXT_BURST(mb_, max_burst, jobs.data()) != max_burst) std::exit(1);
        for (std::size_t i = 0; i < max_burst; ++i) {
            IMB_JOB& job = *jobs[i];
            hmac(job, world, *sas[i], packets[i]);
            job.auth_tag_output = tags_[i].data();
            job.hash_alg = IMB_AUTH_MD5;
            job.cipher_mode = IMB_CIPHER_NULL;
            job.cipher_direction = IMB_DIR_ENCRYPT;
            job.chain_order = IMB_ORDER_HASH_CIPHER;
        }
        std::uint32_t done = IMB_SUBMIT_BURST_NOCHECK(mb_, max_burst, jobs.data());
        while (done < max_burst) done += IMB_FLUSH_BURST(mb_, max_burst - done, jobs.data());
    }

    void aead(const World& world, const InboundSa* const* sas, rte_mbuf* const* packets,
              bool prefetch) {
        gcm_context_data context;
        for (std::size_t i = 0; i < max_burst; ++i) {
            if (prefetch && i + 2 < max_burst) {
                const std::uint8_t* next = world.schedule(*sas[i + 2]);
                for (std::size_t at = 0; at < sizeof(gcm_key_data); at += 64)
                    __builtin_prefetch(next + at);
            }
            const auto* key = reinterpret_cast<const gcm_key_data*>(world.schedule(*sas[i]));
            std::uint8_t* esp = esp_of(packets[i]);
            const std::uint32_t length = authenticated(world, packets[i]);
            std::array<std::uint8_t, 12> nonce;
            std::memcpy(nonce.data(), sas[i]->small_key.data(), 4);
            std::memcpy(nonce.data() + 4, esp + 8, 8);
            if (suite_.encryption == sa::Encryption::aes_gcm && way_ == Way::esp) {
                IMB_AES128_GCM_DEC(mb_, key, &context, esp + 16, esp + 16, length - 16,
                                   nonce.data(), esp, 8, tags_[i].data(), 16);
            } else {
                IMB_AES128_GMAC_INIT(mb_, key, &context, nonce.data(), 12);
                IMB_AES128_GMAC_UPDATE(mb_, key, &context, esp, length);
                IMB_AES128_GMAC_FINALIZE(mb_, key, &context, tags_[i].data(), 16);
            }
        }
    }

    Way way_;
    sa::Suite suite_;
    IMB_MGR* mb_;
    std::array<IMB_JOB, max_burst> jobs_;
    std::array<std::array<std::uint8_t, 20>, max_burst> tags_{};
};

// OpenSSL's HMAC as a program without multi-buffer crypto would use it: one context an SA, keyed
// beforehand.
class Evp {
  public:
    Evp(const World& world, sa::Suite suite) {
        EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
        EVP_MAC_CTX* first = EVP_MAC_CTX_new(mac);
        std::string digest = suite.integrity == sa::Integrity::hmac_md5_96 ? "MD5" : "SHA1";
        const std::array<OSSL_PARAM, 2> params{
            OSSL_PARAM_construct_utf8_string("digest", digest.data(), 0),
            OSSL_PARAM_construct_end()};
        std::array<std::uint8_t, 20> key{};
        std::uint32_t n = 0;
        // Made in the order of the SAs, as phones register, and used in the packets' random order.
        for (std::size_t c = 0; c < world.chunks(); ++c) {
            for (std::size_t i = 0; i < chunk; ++i) contexts_[world.sas(c)[i]] = nullptr;
        }
        for (auto& [sa, context] : contexts_) {
            store_be32(key.data(), ++n);
            EVP_MAC_init(first, key.data(), suite.integrity == sa::Integrity::hmac_md5_96 ? 16 : 20,
                         params.data());
            context = EVP_MAC_CTX_dup(first);
        }
        for (std::size_t c = 0; c < world.chunks(); ++c) {
            for (std::size_t i = 0; i < chunk; ++i) order_.push_back(contexts_[world.sas(c)[i]]);
        }
        EVP_MAC_CTX_free(first);
        EVP_MAC_free(mac);
    }
    ~Evp() {
        for (const auto& [sa, context] : contexts_) EVP_MAC_CTX_free(context);
    }
    Evp(const Evp&) = delete;
    Evp& operator=(const Evp&) = delete;

    double run(const World& world, std::size_t which, rte_mbuf* const* packets) {
        std::array<std::uint8_t, 32> tag{};
        std::size_t size = 0;
        const double begin = cpu_seconds();
        for (std::size_t i = 0; i < chunk; ++i) {
            EVP_MAC_CTX* context = order_[which * chunk + i];
            EVP_MAC_init(context, nullptr, 0, nullptr);
            EVP_MAC_update(context, rte_pktmbuf_mtod_offset(packets[i], std::uint8_t*, 34),
                           packets[i]->data_len - 34U - world.geometry().icv);
            EVP_MAC_final(context, tag.data(), &size, tag.size());
        }
        return cpu_seconds() - begin;
    }

  private:
    std::map<const InboundSa*, EVP_MAC_CTX*> contexts_;
    std::vector<EVP_MAC_CTX*> order_;
};

struct Row {
    Way way;
    std::string suite;
    std::size_t phones;
    std::string size;
    Traffic traffic;
    double fast = 0;  // Mpps
    double raw = 0;
    double evp = 0;
};
std::vector<Row> rows;

double run_fast(World& world, Ring& in, Ring& out, rte_mbuf** packets, std::uint64_t& to_host) {
    if (rte_ring_enqueue_bulk(in.ring, reinterpret_cast<void**>(packets), chunk, nullptr) != chunk)
        std::exit(1);
    std::array<rte_mbuf*, max_burst> burst;
    InboundResult result;
    FastPath& path = world.path();
    const double begin = cpu_seconds();
    for (;;) {
        const unsigned n = rte_ring_dequeue_burst(in.ring, reinterpret_cast<void**>(burst.data()),
                                                  max_burst, nullptr);
        if (n == 0) break;
        path.inbound(burst.data(), static_cast<std::uint16_t>(n), 1, result);
        if (result.to_host.count != 0) {
            rte_ring_enqueue_burst(out.ring, reinterpret_cast<void**>(result.to_host.data()),
                                   result.to_host.count, nullptr);
        }
    }
    const double seconds = cpu_seconds() - begin;
    for (;;) {
        const unsigned n = rte_ring_dequeue_burst(out.ring, reinterpret_cast<void**>(burst.data()),
                                                  max_burst, nullptr);
        if (n == 0) break;
        to_host += n;
        rte_pktmbuf_free_bulk(burst.data(), n);
    }
    while (path.events().pop()) {
    }
    return seconds;
}

void inbound(benchmark::State& state, Way way, sa::Suite suite, std::size_t phones,
             std::size_t octets, Traffic traffic, bool with_evp) {
    World world(way, suite, phones, octets);
    Raw raw(way, suite);
    std::unique_ptr<Evp> evp;
    if (with_evp) evp = std::make_unique<Evp>(world, suite);
    Ring in("bench-in");
    Ring out("bench-out");
    std::vector<rte_mbuf*> packets(chunk);
    std::vector<double> fast_times, raw_times, raw_prefetch_times, evp_times;
    std::uint64_t to_host = 0;
    std::uint64_t offered = 0;
    std::size_t turn = 0;
    for (auto _ : state) {
        const std::size_t which = turn % world.chunks();
        if (which == 0) {
            if (traffic == Traffic::replayed) {
                world.remember();
            } else {
                world.forget();
            }
        }
        // For the others a chunk whose keys the fast path has not just brought into the cache.
        const std::size_t other = (which + world.chunks() / 2) % world.chunks();
        world.fill(which, traffic, packets.data());
        const double seconds = run_fast(world, in, out, packets.data(), to_host);
        offered += chunk;
        // The first pass warms page tables and the frequency.
        if (turn != 0) fast_times.push_back(seconds);
        state.SetIterationTime(seconds);

        world.fill(other, Traffic::good, packets.data());
        const bool prefetch = turn % 2 == 1;
        const double raw_seconds = raw.run(world, other, packets.data(), prefetch);
        if (turn != 0) (prefetch ? raw_prefetch_times : raw_times).push_back(raw_seconds);
        rte_pktmbuf_free_bulk(packets.data(), chunk);
        if (evp && turn % 4 == 0) {
            world.fill(other, Traffic::good, packets.data());
            evp_times.push_back(evp->run(world, other, packets.data()));
            rte_pktmbuf_free_bulk(packets.data(), chunk);
        }
        ++turn;
    }
    if (to_host != (traffic == Traffic::good ? offered : 0)) {
        state.SkipWithError(
            fmt::format("{} of {} packets reached the host", to_host, offered).c_str());
        return;
    }
    const auto mpps = [](double seconds) {
        return seconds > 0 ? static_cast<double>(chunk) / seconds / 1e6 : 0;
    };
    Row row{way,
            sa::to_string(suite),
            phones,
            octets == 0 ? "mixed" : std::to_string(octets),
            traffic,
            mpps(median(fast_times)),
            std::max(mpps(median(raw_times)), mpps(median(raw_prefetch_times))),
            mpps(median(evp_times))};
    state.counters["Mpps"] = row.fast;
    state.counters["raw_Mpps"] = row.raw;
    state.counters["of_raw"] = row.fast / row.raw;
    if (evp) {
        state.counters["EVP_Mpps"] = row.evp;
        state.counters["x_EVP"] = row.fast / row.evp;
    }
    rows.push_back(row);
}

void add(Way way, sa::Suite suite, std::size_t phones, std::size_t octets, Traffic traffic,
         bool with_evp, bool quick) {
    const std::string title =
        fmt::format("inbound/{}/{}/{}_SAs/{}/{}", name(way), sa::to_string(suite), phones,
                    octets == 0 ? "mixed" : std::to_string(octets), name(traffic));
    // Through all SAs at least once.
    const std::size_t passes =
        std::max<std::size_t>((phones + chunk - 1) / chunk + 1, quick ? 24 : 120);
    benchmark::RegisterBenchmark(
        title.c_str(),
        [=](benchmark::State& s) { inbound(s, way, suite, phones, octets, traffic, with_evp); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->Iterations(static_cast<benchmark::IterationCount>(passes));
}

void print_table() {
    std::printf(
        "\nInbound, ring to ring, one core. Mpps; raw = libIPSec_MB crypto calls only; EVP = "
        "OpenSSL EVP_MAC only.\n");
    std::printf("%-6s %-26s %9s %6s %-12s %7s %7s %7s %7s %7s\n", "path", "suite", "SAs", "octets",
                "traffic", "fast", "raw", "of raw", "EVP", "x EVP");
    std::map<std::string, double> good;
    for (const Row& r : rows) {
        if (r.traffic == Traffic::good)
            good[fmt::format("{}/{}/{}/{}", name(r.way), r.suite, r.phones, r.size)] = r.fast;
        fmt::print("{:<6} {:<26} {:>9} {:>6} {:<12} {:>7.2f} {:>7.2f} {:>7.2f}", name(r.way),
                   r.suite, r.phones, r.size, name(r.traffic), r.fast, r.raw, r.fast / r.raw);
        if (r.evp > 0) fmt::print(" {:>7.2f} {:>7.1f}", r.evp, r.fast / r.evp);
        fmt::print("\n");
    }
    for (const Row& r : rows) {
        const auto it =
            good.find(fmt::format("{}/{}/{}/{}", name(r.way), r.suite, r.phones, r.size));
        if (r.traffic == Traffic::good || it == good.end()) continue;
        fmt::print(
            "{}: {} packets are dropped at {:.2f} times the rate at which good ones pass ({}, {} "
            "SAs, {})\n",
            name(r.way), name(r.traffic), r.fast / it->second, r.suite, r.phones, r.size);
    }
}

bool huge_pages_free() {
    std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    unsigned pages = 0;
    return file >> pages && pages >= 64;
}

}  // namespace

int main(int argc, char** argv) {
    bool quick = false;
    std::vector<char*> rest;
    for (int i = 0; i < argc; ++i) {
        if (std::string_view(argv[i]) == "--quick") {
            quick = true;
        } else {
            rest.push_back(argv[i]);
        }
    }
    using I = sa::Integrity;
    using E = sa::Encryption;
    constexpr sa::Suite sha1{I::hmac_sha_1_96, E::null};
    const std::vector<sa::Suite> suites{sha1,
                                        {I::hmac_md5_96, E::null},
                                        {I::aes_gmac, E::null},
                                        {I::null, E::aes_gcm},
                                        {I::hmac_sha_1_96, E::aes_cbc}};
    const std::vector<std::size_t> phones =
        quick ? std::vector<std::size_t>{32, 10'000}
              : std::vector<std::size_t>{32, 1000, 100'000, 1'000'000};
    const std::vector<std::size_t> sizes =
        quick ? std::vector<std::size_t>{700} : std::vector<std::size_t>{700, 1200, 0};
    for (const Way way : {Way::esp, Way::screen}) {
        for (const sa::Suite suite : suites) {
            for (const std::size_t count : phones) {
                for (const std::size_t octets : sizes) {
                    add(way, suite, count, octets, Traffic::good,
                        way == Way::esp && suite == sha1 && octets == 700, quick);
                }
            }
        }
        for (const std::size_t count : phones) {
            for (const Traffic t : {Traffic::forged, Traffic::replayed, Traffic::unknown_spi})
                add(way, sha1, count, 700, t, false, quick);
        }
    }
    int count = static_cast<int>(rest.size());
    benchmark::Initialize(&count, rest.data());
    if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 1;
    const bool huge = huge_pages_free();
    test::start_eal("bench", 96, huge ? test::EalPages::huge : test::EalPages::ordinary);
    std::printf("buffers in %s, engine %s\n", huge ? "huge pages" : "ordinary pages",
                best_engine() == EngineKind::ipsec_mb ? "ipsec-mb" : "openssl");
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    print_table();
    rte_eal_cleanup();
    return 0;
}
