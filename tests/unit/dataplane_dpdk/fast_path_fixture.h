#pragma once
// A table, a fast path of one worker, sets to talk over, and the check that no buffer is lost.

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/random.h"
#include "dataplane/dpdk/fast_path.h"
#include "tests/unit/dataplane_dpdk/eal_environment.h"
#include "tests/unit/dataplane_dpdk/reference_esp.h"

namespace gmgate::dataplane::test {

inline constexpr std::uint16_t port_ps = 5064;
inline constexpr std::uint16_t first_port_pc = 20000;

// One UE with one set; numbers derived from `n`.
struct Phone {
    Phone(std::uint32_t n, sa::Suite suite, bool v6, Random& random, std::uint32_t owner = 0,
          std::uint32_t generation = 1);

    [[nodiscard]] sa::SetParams params() const;
    // From the UE to us: port_uc → port_ps, or port_us → port_pc.
    [[nodiscard]] Flow up(bool tcp, bool to_ps = true) const;
    // From us to the UE: port_ps → port_uc, or port_pc → port_us.
    [[nodiscard]] Flow down(bool tcp, bool to_uc = true) const;
    // `data` octets under spi_ps (or spi_pc) with this sequence number.
    [[nodiscard]] Octets esp_up(std::uint32_t sequence, std::size_t data, bool tcp = false,
                                bool to_ps = true) const;

    sa::SetId id;
    IpAddress ue;
    IpAddress ours;
    sa::SaNumbers numbers;
    sa::Suite suite;
    sa::AkaKey ck;
    sa::AkaKey ik;
    ReferenceEsp esp;
};

IpAddress our_address(bool v6);
// Of the same host, on the core's side.
IpAddress core_address(bool v6);

class FastPathTest : public testing::Test {
  protected:
    explicit FastPathTest(const SaTableConfig& config = {.capacity = 64, .huge_pages = false},
                          EngineKind engine = best_engine());
    void SetUp() override;
    // Every buffer given to the fast path is back.
    void TearDown() override;

    SetHandle install(const Phone& phone, const SequenceState& state = {});
    // Through the fast path as one burst; the result's buffers are turned into octets and freed.
    struct In {
        std::vector<Octets> to_host;
        std::vector<std::pair<unsigned, Octets>> to_worker;
        std::vector<Octets> fragments;
    };
    struct Out {
        std::vector<Octets> to_wire;
        std::vector<std::pair<unsigned, Octets>> to_worker;
        std::vector<Octets> fragments;
    };
    In inbound(const std::vector<Octets>& frames, std::uint32_t now = 1000);
    Out outbound(const std::vector<Octets>& frames, std::uint64_t flags = 0);
    In inbound_mbuf(rte_mbuf* m);
    Out outbound_mbuf(rte_mbuf* m);
    // Drops with this reason since the last call, and no drop of another one.
    [[nodiscard]] std::uint64_t dropped(DropReason reason);
    [[nodiscard]] std::vector<FastPathEvent> events();

    void make_path(unsigned worker = 0, bool fill_checksums = false, bool verify_only = false);

    bool nat_ = false;                       // for the next make_path()
    std::vector<IpAddress> more_addresses_;  // of ours
    SeededRandom random_{42};
    EngineKind engine_;
    SaTable table_;
    std::unique_ptr<FastPath> path_;
    unsigned before_ = 0;
    std::array<std::uint64_t, drop_reason_count> last_drops_{};
};

}  // namespace gmgate::dataplane::test
