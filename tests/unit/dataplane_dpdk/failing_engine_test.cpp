// What happens when the crypto library itself refuses: packets are dropped and counted, nothing
// leaves in clear.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

class RefusingEngine final : public CryptoEngine {
  public:
    [[nodiscard]] std::string_view name() const override { return "refusing"; }
    [[nodiscard]] std::size_t schedule_size(sa::Suite) const override { return 0; }
    void expand(sa::Suite, const sa::EspKeys&, std::span<std::uint8_t, small_key_size> small_key,
                std::span<std::uint8_t>) override {
        std::fill(small_key.begin(), small_key.end(), std::uint8_t{0});
    }
    void open(sa::Suite, std::span<CryptoJob> jobs) override {
        for (CryptoJob& j : jobs) j.ok = false;
    }
    void verify(sa::Suite suite, std::span<CryptoJob> jobs) override { open(suite, jobs); }
    void seal(sa::Suite, std::span<CryptoJob> jobs) override {
        for (CryptoJob& j : jobs) j.ok = j.tag % 2 == 1;
    }
};

class Refusing : public test::FastPathTest {};

TEST_F(Refusing, PacketsAreDroppedAndCounted) {
    const test::Phone phone(0, {sa::Integrity::hmac_sha_1_96, sa::Encryption::null}, false,
                            random_);
    install(phone);
    FastPathConfig config;
    config.our_addresses = {test::our_address(false)};
    config.protected_ports.add(test::port_ps);
    path_ = std::make_unique<FastPath>(config, table_, std::make_unique<RefusingEngine>(), random_);
    EXPECT_TRUE(inbound({phone.esp_up(1, 10)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::integrity), 1U);
    const auto plain = test::plain_frame(phone.down(false), 10);
    EXPECT_EQ(outbound({plain, plain, plain}).to_wire.size(), 1U);
    EXPECT_EQ(dropped(DropReason::crypto), 2U);
}

}  // namespace
}  // namespace gmgate::dataplane
