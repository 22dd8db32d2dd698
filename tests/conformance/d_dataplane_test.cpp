// C12, D7: the packet layer's share.

#include <gtest/gtest.h>

#include <deque>

#include "tests/conformance/share.h"
#include "tests/unit/dataplane_dpdk/fast_path_fixture.h"

namespace gmgate::dataplane {
namespace {

using conformance::share;
using test::Octets;
using test::Phone;
using test::plain_frame;

class C12_packets : public test::FastPathTest {};
class D7_packets : public test::FastPathTest {};

// A table that is full takes none of the four, and what is in it works on.
TEST_F(C12_packets, AFullTableTakesNoneOfTheFour) {
    share("packet layer");
    constexpr sa::Suite sha1{sa::Integrity::hmac_sha_1_96, sa::Encryption::null};
    std::deque<Phone> phones;
    for (std::uint32_t n = 0; n < 64; ++n) phones.emplace_back(n, sha1, false, random_);
    for (const Phone& phone : phones) install(phone);
    const Phone one_more(64, sha1, false, random_);
    EXPECT_FALSE(table_.publish(one_more.params(), {}));
    for (const bool to_ps : {false, true})
        EXPECT_TRUE(inbound({one_more.esp_up(1, 50, false, to_ps)}).to_host.empty());
    EXPECT_EQ(dropped(DropReason::unknown_spi), 2U);
    for (const bool to_uc : {false, true})
        EXPECT_TRUE(outbound({plain_frame(one_more.down(false, to_uc), 50)}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_no_sa), 2U);
    for (const Phone& phone : phones) EXPECT_EQ(inbound({phone.esp_up(1, 50)}).to_host.size(), 1U);
    (void)events();
}

// The last number is used, none is used twice: after 2^32 - 1 nothing leaves.
TEST_F(D7_packets, OutboundNumbersNeverWrap) {
    share("packet layer");
    const Phone phone(0, {sa::Integrity::null, sa::Encryption::aes_gcm}, false, random_);
    install(phone, {.in_ps = 0, .in_pc = 0, .out_uc = 0xFFFFFFFDU, .out_us = 0xFFFFFFFDU});
    const Octets plain = plain_frame(phone.down(false), 10);
    EXPECT_EQ(outbound({plain, plain, plain, plain}).to_wire.size(), 2U);
    EXPECT_EQ(dropped(DropReason::outbound_sequence_exhausted), 2U);
    EXPECT_TRUE(outbound({plain}).to_wire.empty());
    EXPECT_EQ(dropped(DropReason::outbound_sequence_exhausted), 1U);
    const auto all = events();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].kind, sa::BackendEventKind::sequence_near_end);
}

}  // namespace
}  // namespace gmgate::dataplane
