// Encoder and decoder against octets and against <linux/xfrm.h>.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "sa/kernel/decoder.h"
#include "sa/kernel/encoder.h"
#include "sa/kernel/policies.h"
#include "sa/kernel/set_states.h"
#include "sa/kernel/suites.h"

namespace gmgate::kernel {
namespace {

using Octets = std::vector<std::uint8_t>;

Octets from_hex(std::string_view hex) {
    Octets out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        out.push_back(
            static_cast<std::uint8_t>(std::stoul(std::string(hex.substr(i, 2)), nullptr, 16)));
    return out;
}

std::map<std::uint16_t, Octets> attributes(std::span<const std::uint8_t> octets) {
    std::map<std::uint16_t, Octets> out;
    while (octets.size() >= sizeof(nlattr)) {
        nlattr a{};
        std::memcpy(&a, octets.data(), sizeof a);
        out[a.nla_type] = Octets(octets.begin() + 4, octets.begin() + a.nla_len);
        octets = octets.subspan(std::min<std::size_t>((a.nla_len + 3U) & ~3U, octets.size()));
    }
    return out;
}

State plain_state() {
    const sa::SaNumbers n{0x11, 0x12, 0x04000001, 0x04000002, 20000, 20001, 6200, 6100};
    State s = set_states(*IpAddress::parse("10.20.0.1"), *IpAddress::parse("10.21.0.1"), n, 0)[0];
    s.reqid = 77;
    s.replay_window = 128;
    return s;
}

// The whole message, octet by octet where it matters.
TEST(XfrmEncoder, NewState) {
    static const Octets secret(20, 0xAB);
    State s = plain_state();
    s.auth = Algorithm{"hmac(sha1)", secret, 96};
    s.crypt = Algorithm{"ecb(cipher_null)", {}, 0};
    s.out_sequence = 5;
    s.set_mark = 0x1234;
    s.encapsulation = Encapsulation{2, 4500, 4501};
    s.offload = OffloadDevice{3, XFRM_OFFLOAD_INBOUND};
    Octets buffer(2048);
    Encoder e(buffer, 42);
    e.add_state(s);
    ASSERT_TRUE(e.ok());
    nlmsghdr h{};
    std::memcpy(&h, e.octets().data(), sizeof h);
    EXPECT_EQ(h.nlmsg_len, e.octets().size());
    EXPECT_LE(h.nlmsg_len, Encoder::largest_message);
    EXPECT_EQ(h.nlmsg_type, XFRM_MSG_NEWSA);
    EXPECT_EQ(h.nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    EXPECT_EQ(h.nlmsg_seq, 42U);
    xfrm_usersa_info i{};
    std::memcpy(&i, e.octets().data() + sizeof h, sizeof i);
    EXPECT_EQ(ntohl(i.id.daddr.a4), 0x0A150001U);
    EXPECT_EQ(ntohl(i.saddr.a4), 0x0A140001U);
    EXPECT_EQ(ntohl(i.id.spi), 0x04000002U);
    EXPECT_EQ(i.id.proto, IPPROTO_ESP);
    EXPECT_EQ(i.replay_window, 0);
    EXPECT_EQ(i.flags, 0);
    const auto a = attributes(e.octets().subspan(sizeof h + sizeof i));
    const Octets& auth = a.at(XFRMA_ALG_AUTH_TRUNC);
    ASSERT_EQ(auth.size(), 72U + 20U);
    EXPECT_STREQ(reinterpret_cast<const char*>(auth.data()), "hmac(sha1)");
    EXPECT_EQ(Octets(auth.begin() + 64, auth.begin() + 72), from_hex("a000000060000000"));
    EXPECT_EQ(Octets(auth.begin() + 72, auth.end()), secret);
    EXPECT_EQ(a.at(XFRMA_ALG_CRYPT).size(), 68U);
    EXPECT_EQ(a.at(XFRMA_REPLAY_ESN_VAL),
              from_hex("040000000500000000000000000000000000000080000000"));
    EXPECT_EQ(a.at(XFRMA_SET_MARK), from_hex("34120000"));
    EXPECT_EQ(a.at(XFRMA_SET_MARK_MASK), from_hex("ffffffff"));
    EXPECT_EQ(a.at(XFRMA_ENCAP), from_hex("020011941195000000000000000000000000000000000000"));
    EXPECT_EQ(a.at(XFRMA_OFFLOAD_DEV), from_hex("0300000002000000"));
}

// A10 in the kernel's form: key, and with AEAD the salt behind it.
TEST(XfrmEncoder, AnnexIKeys) {
    std::ifstream in(GMGATE_TEST_DATA "/sa/annex_i.json");
    const auto sets = nlohmann::json::parse(in).at("sets");
    ASSERT_FALSE(sets.empty());
    for (const auto& set : sets) {
        const auto text = [&](const char* name) { return set.at(name).get<std::string>(); };
        const Octets ck_octets = from_hex(text("ck"));
        const Octets ik_octets = from_hex(text("ik"));
        const sa::AkaKey ck(std::span<const std::uint8_t, 16>(ck_octets.data(), 16));
        const sa::AkaKey ik(std::span<const std::uint8_t, 16>(ik_octets.data(), 16));
        const auto check = [&](sa::Suite suite, const std::string& auth_name,
                               const std::string& auth, const std::string& crypt_name,
                               const std::string& crypt, const std::string& aead_name,
                               const std::string& aead) {
            const SuiteKeys keys(suite, ck, ik);
            State s = plain_state();
            keys.fill(s);
            Octets buffer(1024);
            Encoder e(buffer, 1);
            e.add_state(s);
            auto left = e.octets();
            const auto message = next_message(left);
            ASSERT_TRUE(message);
            const auto decoded = parse_state(message->payload);
            ASSERT_TRUE(decoded);
            EXPECT_EQ(fingerprint(*decoded), fingerprint(s));
            const auto expect = [](const std::optional<Algorithm>& a, const std::string& name,
                                   const std::string& key, std::uint32_t icv) {
                ASSERT_EQ(a.has_value(), !name.empty());
                if (!a) return;
                EXPECT_EQ(a->name, name);
                EXPECT_EQ(Octets(a->key.begin(), a->key.end()), from_hex(key));
                EXPECT_EQ(a->icv_bits, icv);
            };
            expect(decoded->auth, auth_name, auth, 96);
            expect(decoded->crypt, crypt_name, crypt, 0);
            expect(decoded->aead, aead_name, aead, 128);
        };
        using enum sa::Integrity;
        using E = sa::Encryption;
        const std::string sha1 = text("hmac_sha_1_96");
        const std::string md5 = text("hmac_md5_96");
        const std::string aes = text("aes_cbc");
        const std::string des = text("des_ede3_cbc_parity");
        check({hmac_sha_1_96, E::null}, "hmac(sha1)", sha1, "ecb(cipher_null)", "", "", "");
        check({hmac_sha_1_96, E::aes_cbc}, "hmac(sha1)", sha1, "cbc(aes)", aes, "", "");
        check({hmac_sha_1_96, E::des_ede3_cbc}, "hmac(sha1)", sha1, "cbc(des3_ede)", des, "", "");
        check({hmac_md5_96, E::null}, "hmac(md5)", md5, "ecb(cipher_null)", "", "", "");
        check({hmac_md5_96, E::aes_cbc}, "hmac(md5)", md5, "cbc(aes)", aes, "", "");
        check({hmac_md5_96, E::des_ede3_cbc}, "hmac(md5)", md5, "cbc(des3_ede)", des, "", "");
        check({null, E::aes_gcm}, "", "", "", "", "rfc4106(gcm(aes))",
              text("aes_gcm_key") + text("aes_gcm_salt"));
        check({aes_gmac, E::null}, "", "", "", "", "rfc4543(gcm(aes))",
              text("aes_gmac_key") + text("aes_gmac_salt"));
    }
}

TEST(XfrmEncoder, WhatDoesNotFitIsLeftOutWhole) {
    static const Octets secret(20, 0xCD);
    State s = plain_state();
    s.aead = Algorithm{"rfc4106(gcm(aes))", secret, 128};
    Octets whole(2048);
    Encoder all(whole, 1);
    all.add_state(s);
    const std::size_t size = all.octets().size();
    for (std::size_t room = 0; room < size; ++room) {
        Octets buffer(room);
        Encoder e(buffer, 1);
        e.add_state(s);
        EXPECT_FALSE(e.ok());
        EXPECT_EQ(e.count(), 0U);
        EXPECT_TRUE(e.octets().empty());
        EXPECT_EQ(std::count(buffer.begin(), buffer.end(), 0xCD), 0) << "a part of the key is left";
    }
}

TEST(XfrmCodec, EverythingComesBack) {
    State s = plain_state();
    s.encapsulation = Encapsulation{2, 4500, 40000};
    s.offload = OffloadDevice{7, XFRM_OFFLOAD_PACKET};
    s.set_mark = 9;
    s.out_sequence = 123456;
    s.selector.protocol = 17;
    s.selector.interface = 4;
    Octets buffer(2048);
    Encoder e(buffer, 7);
    e.add_state(s);
    Policy p;
    p.selector = s.selector;
    p.selector.source_prefix = 16;
    p.selector.source_mask = 0xFFFC;
    p.direction = Direction::forward;
    p.block = true;
    p.priority = 100;
    p.reqid = 5;
    p.offload = s.offload;
    e.put_policy(p);
    ASSERT_TRUE(e.ok());
    auto left = e.octets();
    const auto first = next_message(left);
    const auto second = next_message(left);
    ASSERT_TRUE(first && second);
    EXPECT_FALSE(next_message(left));
    EXPECT_EQ(second->sequence, 8U);
    const auto state = parse_state(first->payload);
    ASSERT_TRUE(state);
    EXPECT_EQ(state->id, s.id);
    EXPECT_EQ(state->source, s.source);
    EXPECT_EQ(state->selector, s.selector);
    EXPECT_EQ(state->encapsulation, s.encapsulation);
    EXPECT_EQ(state->offload, s.offload);
    EXPECT_EQ(state->set_mark, s.set_mark);
    EXPECT_EQ(state->out_sequence, s.out_sequence);
    EXPECT_EQ(state->replay_window, 128U);
    EXPECT_EQ(state->hard_packets, s.hard_packets);
    auto policy = parse_policy(second->payload);
    ASSERT_TRUE(policy);
    EXPECT_EQ(policy->templates, 1U);
    policy->templates = 0;
    EXPECT_EQ(*policy, p);
}

// Cut anywhere, or with any length changed: refused or read, never past the end (ASan watches).
TEST(XfrmDecoder, DamagedMessages) {
    static const Octets secret(16, 1);
    State s = plain_state();
    s.auth = Algorithm{"hmac(md5)", secret, 96};
    s.crypt = Algorithm{"cbc(aes)", secret, 0};
    Octets buffer(2048);
    Encoder e(buffer, 7);
    e.add_state(s);
    auto left = e.octets();
    const auto m = next_message(left);
    const Octets good(m->payload.begin(), m->payload.end());
    for (std::size_t n = 0; n < good.size(); ++n) {
        const Octets cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
        const auto state = parse_state(cut);
        if (n < sizeof(xfrm_usersa_info)) {
            EXPECT_FALSE(state) << n;
        }
        for (const std::uint8_t value : std::to_array<std::uint8_t>({0x00, 0x01, 0x7F, 0xFF})) {
            Octets changed = good;
            changed[n] = value;
            if (const auto r = parse_state(changed); r && r->auth) {
                EXPECT_LE(r->auth->key.size(), changed.size());
            }
        }
    }
    // A key longer than its attribute.
    Octets lying = good;
    const std::size_t key_length = sizeof(xfrm_usersa_info) + 4 + 64;
    lying[key_length + 1] = 0xFF;
    EXPECT_FALSE(parse_state(lying));
}

TEST(XfrmDecoder, Acknowledgements) {
    const auto ack = [](std::uint16_t flags, const Octets& payload,
                        std::uint16_t type = NLMSG_ERROR) {
        MessageView m;
        m.type = type;
        m.flags = flags;
        m.payload = payload;
        return parse_acknowledgement(m);
    };
    const Octets header = from_hex(
        "14000000"
        "10000500"
        "01000000"
        "00000000");
    Octets ok = from_hex("00000000");
    ok.insert(ok.end(), header.begin(), header.end());
    EXPECT_EQ(ack(0, ok)->error, 0);
    Octets no = from_hex("ffffffff");
    no.insert(no.end(), header.begin(), header.end());
    EXPECT_EQ(ack(NLM_F_CAPPED, no)->error, EPERM);
    // The kernel's words: behind the header when capped, behind the request's payload when not.
    Octets text = from_hex(
        "0800"
        "0100"
        "6e6f2100");
    Octets capped = no;
    capped.insert(capped.end(), text.begin(), text.end());
    EXPECT_EQ(ack(NLM_F_CAPPED | NLM_F_ACK_TLVS, capped)->text, "no!");
    Octets whole = no;
    whole.insert(whole.end(), {1, 2, 3, 4});  // nlmsg_len 0x14: four octets of payload
    whole.insert(whole.end(), text.begin(), text.end());
    EXPECT_EQ(ack(NLM_F_ACK_TLVS, whole)->text, "no!");
    EXPECT_FALSE(ack(0, from_hex("ffffffff")));
    EXPECT_EQ(ack(0, from_hex("00000080") /* INT32_MIN */, NLMSG_DONE)->error, 0);
    EXPECT_EQ(ack(0, {}, NLMSG_DONE)->error, 0);
    EXPECT_FALSE(ack(0, ok, XFRM_MSG_NEWSA));
}

// N1: what the kernel says of a phone behind a NAT that came from elsewhere, cut anywhere.
TEST(XfrmDecoder, Mapping) {
    xfrm_user_mapping wire;
    std::memset(&wire, 0, sizeof wire);
    wire.id.family = AF_INET;
    wire.id.spi = htonl(0x04000001);
    wire.id.daddr.a4 = htonl(0x0A150001);
    wire.reqid = 77;
    wire.old_saddr.a4 = htonl(0xCB007107);
    wire.new_saddr.a4 = htonl(0xCB007108);
    wire.old_sport = htons(4500);
    wire.new_sport = htons(40123);
    Octets octets(sizeof wire);
    std::memcpy(octets.data(), &wire, sizeof wire);
    const auto m = parse_mapping(octets);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->id, (StateId{*IpAddress::parse("10.21.0.1"), 0x04000001}));
    EXPECT_EQ(m->reqid, 77U);
    EXPECT_EQ(m->now, *Endpoint::parse("203.0.113.8:40123"));
    for (std::size_t n = 0; n < octets.size(); ++n)
        EXPECT_FALSE(parse_mapping(std::span(octets).first(n))) << n;
    wire.id.family = 99;
    std::memcpy(octets.data(), &wire, sizeof wire);
    EXPECT_FALSE(parse_mapping(octets));
}

// N1: four tunnels in UDP, selectors of what is inside, and a policy before the wildcards for each.
TEST(XfrmPolicies, OfASetBehindANat) {
    const auto ip = [](const char* text) { return *IpAddress::parse(text); };
    const sa::SaNumbers n{0x11, 0x12, 0x04000001, 0x04000002, 20000, 20001, 6200, 6100};
    const Endpoint outer = *Endpoint::parse("203.0.113.7:40123");
    const auto states = set_states(ip("192.168.1.2"), ip("10.21.0.1"), n, 0, &outer);
    KernelOptions options;
    options.reqid = 77;
    const auto policies =
        nat_policies(options, ip("192.168.1.2"), ip("10.21.0.1"), n, outer.address);
    ASSERT_EQ(policies.size(), states.size());
    for (std::size_t i = 0; i < states.size(); ++i) {
        const State& s = states[i];
        const bool in = is_inbound(i);
        EXPECT_EQ(s.mode, XFRM_MODE_TUNNEL);
        EXPECT_EQ(s.id.destination, in ? ip("10.21.0.1") : outer.address);
        EXPECT_EQ(s.source, in ? outer.address : ip("10.21.0.1"));
        EXPECT_EQ(in ? s.selector.source : s.selector.destination, ip("192.168.1.2"));
        EXPECT_EQ(s.encapsulation,
                  (in ? Encapsulation{2, 40123, 4500} : Encapsulation{2, 4500, 40123}));
        const Policy& p = policies[i];
        EXPECT_EQ(p.selector, s.selector);
        EXPECT_LT(p.priority, policy_priority);
        Octets buffer(2048);
        Encoder encoder(buffer, 1);
        encoder.put_policy(p);
        encoder.update_state(s);
        ASSERT_TRUE(encoder.ok());
        auto octets = encoder.octets();
        const auto policy = next_message(octets);
        const auto found = attributes(policy->payload.subspan(sizeof(xfrm_userpolicy_info)));
        xfrm_user_tmpl t{};
        ASSERT_EQ(found.at(XFRMA_TMPL).size(), sizeof t);
        std::memcpy(&t, found.at(XFRMA_TMPL).data(), sizeof t);
        EXPECT_EQ(t.mode, XFRM_MODE_TUNNEL);
        EXPECT_EQ(t.reqid, 77U);
        EXPECT_EQ(ntohl(t.id.daddr.a4), in ? 0x0A150001U : 0xCB007107U);
        EXPECT_EQ(ntohl(t.saddr.a4), in ? 0U : 0x0A150001U) << "inbound from anywhere";
        const auto update = next_message(octets);
        EXPECT_EQ(update->type, XFRM_MSG_UPDSA);
        EXPECT_EQ(update->flags & NLM_F_CREATE, 0);
        EXPECT_EQ(parse_state(update->payload)->encapsulation, s.encapsulation);
    }
}

TEST(XfrmPolicies, BlocksCoverExactlyTheRange) {
    for (const auto& [first, last] : std::vector<std::pair<unsigned, unsigned>>{
             {6100, 6103}, {6200, 6231}, {1024, 65535}, {1025, 65534}, {5062, 5062}, {256, 511}}) {
        std::vector<unsigned> covered(65536);
        const auto blocks = port_blocks(static_cast<sa::Port>(first), static_cast<sa::Port>(last));
        EXPECT_LE(blocks.size(), 30U);
        for (unsigned p = 0; p < 65536; ++p) {
            for (const PortBlock& b : blocks) covered[p] += (p & b.mask) == b.first ? 1U : 0U;
            EXPECT_EQ(covered[p], p >= first && p <= last ? 1U : 0U) << p;
        }
    }
    EXPECT_EQ(port_blocks(6100, 6103).size(), 1U);
}

TEST(XfrmPolicies, Overlap) {
    Selector a;
    a.source = *IpAddress::parse("10.0.0.0");
    a.source_prefix = 8;
    Selector b = a;
    EXPECT_TRUE(overlap(a, b));
    b.source = *IpAddress::parse("11.0.0.0");
    EXPECT_FALSE(overlap(a, b));
    b.source_prefix = 7;
    EXPECT_TRUE(overlap(a, b));
    b.destination_port = 6101;
    b.destination_mask = 0xFFFF;
    a.destination_port = 6100;
    a.destination_mask = 0xFFFC;
    EXPECT_TRUE(overlap(a, b));
    b.destination_port = 6104;
    EXPECT_FALSE(overlap(a, b));
    b = a;
    a.protocol = 17;
    EXPECT_TRUE(overlap(a, b));
    b.protocol = 6;
    EXPECT_FALSE(overlap(a, b));
    b = a;
    b.v6 = true;
    EXPECT_FALSE(overlap(a, b));
}

}  // namespace
}  // namespace gmgate::kernel
