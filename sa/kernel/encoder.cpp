#include "sa/kernel/encoder.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/secret.h"

namespace gmgate::kernel {

namespace {

constexpr std::size_t aligned(std::size_t n) {
    return (n + 3U) & ~std::size_t{3};
}

xfrm_address_t to_wire(const IpAddress& a) {
    xfrm_address_t out{};
    const auto octets = a.octets();
    std::memcpy(&out, octets.data(), octets.size());
    return out;
}

std::uint16_t family(bool v6) {
    return v6 ? AF_INET6 : AF_INET;
}

// The kernel compares selectors as octets, the gaps between members included: so nothing is
// returned by value, which may lose them, and all begins as zeros.
template <class T>
struct Zeroed {
    Zeroed() { std::memset(&wire, 0, sizeof wire); }
    T wire;
};

void to_wire(const Selector& s, xfrm_selector& out) {
    out.daddr = to_wire(s.destination);
    out.saddr = to_wire(s.source);
    out.dport = htons(s.destination_port);
    out.dport_mask = htons(s.destination_mask);
    out.sport = htons(s.source_port);
    out.sport_mask = htons(s.source_mask);
    out.family = family(s.v6);
    out.prefixlen_d = s.destination_prefix;
    out.prefixlen_s = s.source_prefix;
    out.proto = s.protocol;
    out.ifindex = s.interface;
}

// 0 would mean "expired at once" for octets and packets, and "never" for times.
xfrm_lifetime_cfg limits(std::uint64_t soft_packets, std::uint64_t hard_packets) {
    xfrm_lifetime_cfg out{};
    out.soft_byte_limit = XFRM_INF;
    out.hard_byte_limit = XFRM_INF;
    out.soft_packet_limit = soft_packets;
    out.hard_packet_limit = hard_packets;
    return out;
}

}  // namespace

bool Encoder::begin(std::uint16_t type, std::uint16_t flags) {
    message_ = 0;
    fits_ = true;
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
    header.nlmsg_seq = first_ + static_cast<std::uint32_t>(count_);
    put(&header, sizeof header);
    return fits_;
}

void Encoder::put(const void* data, std::size_t size) {
    const std::size_t room = buffer_.size() - used_ - message_;
    if (!fits_ || aligned(size) > room) {
        fits_ = false;
        return;
    }
    auto* to = buffer_.data() + used_ + message_;
    std::memcpy(to, data, size);
    std::memset(to + size, 0, aligned(size) - size);
    message_ += aligned(size);
}

void Encoder::finish() {
    if (!fits_) {
        ok_ = false;
        wipe(buffer_.subspan(used_));
        return;
    }
    const auto length = static_cast<std::uint32_t>(message_);
    std::memcpy(buffer_.data() + used_, &length, sizeof length);  // nlmsg_len comes first
    used_ += message_;
    ++count_;
}

void Encoder::put_attribute_octets(std::uint16_t type, const void* data, std::size_t size) {
    nlattr header{};
    header.nla_len = static_cast<std::uint16_t>(sizeof header + size);
    header.nla_type = type;
    put(&header, sizeof header);
    put(data, size);
}

void Encoder::put_algorithm(std::uint16_t type, const Algorithm& algorithm) {
    // Name, key length, and for all but plain encryption the ICV's; then the key.
    xfrm_algo_auth head{};
    static_assert(sizeof(xfrm_algo_auth) == sizeof(xfrm_algo_aead));
    const std::size_t head_size = type == XFRMA_ALG_CRYPT ? sizeof(xfrm_algo) : sizeof head;
    std::memcpy(head.alg_name, algorithm.name.data(),
                std::min(algorithm.name.size(), sizeof head.alg_name - 1));
    head.alg_key_len = static_cast<unsigned>(algorithm.key.size() * 8);
    head.alg_trunc_len = algorithm.icv_bits;
    nlattr header{};
    header.nla_len = static_cast<std::uint16_t>(sizeof header + head_size + algorithm.key.size());
    header.nla_type = type;
    put(&header, sizeof header);
    put(&head, head_size);
    if (!algorithm.key.empty()) put(algorithm.key.data(), algorithm.key.size());
}

void Encoder::put_offload(const OffloadDevice& device) {
    Zeroed<xfrm_user_offload> zeroed;
    zeroed.wire.ifindex = device.interface;
    zeroed.wire.flags = device.flags;
    put_attribute(XFRMA_OFFLOAD_DEV, zeroed.wire);
}

void Encoder::add_state(const State& s) {
    put_state(XFRM_MSG_NEWSA, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, s);
}

void Encoder::update_state(const State& s) {
    put_state(XFRM_MSG_UPDSA, NLM_F_ACK | NLM_F_REPLACE, s);
}

void Encoder::put_state(std::uint16_t type, std::uint16_t flags, const State& s) {
    begin(type, flags);
    Zeroed<xfrm_usersa_info> zeroed;
    xfrm_usersa_info& info = zeroed.wire;
    to_wire(s.selector, info.sel);
    info.id.daddr = to_wire(s.id.destination);
    info.id.spi = htonl(s.id.spi);
    info.id.proto = s.protocol;
    info.saddr = to_wire(s.source);
    info.lft = limits(s.soft_packets, s.hard_packets);
    info.reqid = s.reqid;
    info.family = family(s.id.destination.is_v6());
    info.mode = s.mode;
    // info.replay_window stays 0: its octet and bitmap hold 32 packets, the attribute below more.
    put(&info, sizeof info);
    if (s.aead) put_algorithm(XFRMA_ALG_AEAD, *s.aead);
    if (s.auth) put_algorithm(XFRMA_ALG_AUTH_TRUNC, *s.auth);
    if (s.crypt) put_algorithm(XFRMA_ALG_CRYPT, *s.crypt);
    // Without XFRM_STATE_ESN this is the 32-bit sequence number with a window of any size. The
    // bitmap may be left out: it begins as zeros.
    xfrm_replay_state_esn replay{};
    replay.replay_window = s.replay_window;
    replay.bmp_len = (s.replay_window + 31) / 32;
    replay.oseq = s.out_sequence;
    put_attribute(XFRMA_REPLAY_ESN_VAL, replay);
    if (s.encapsulation) {
        Zeroed<xfrm_encap_tmpl> encap_zeroed;
        xfrm_encap_tmpl& encap = encap_zeroed.wire;
        encap.encap_type = s.encapsulation->type;
        encap.encap_sport = htons(s.encapsulation->source_port);
        encap.encap_dport = htons(s.encapsulation->destination_port);
        put_attribute(XFRMA_ENCAP, encap);
    }
    if (s.offload) put_offload(*s.offload);
    if (s.set_mark) {
        put_attribute(XFRMA_SET_MARK, *s.set_mark);
        put_attribute(XFRMA_SET_MARK_MASK, ~std::uint32_t{0});
    }
    finish();
}

void Encoder::state_name(std::uint16_t type, std::uint16_t flags, const StateId& id) {
    begin(type, flags);
    Zeroed<xfrm_usersa_id> zeroed;
    xfrm_usersa_id& name = zeroed.wire;
    name.daddr = to_wire(id.destination);
    name.spi = htonl(id.spi);
    name.family = family(id.destination.is_v6());
    name.proto = protocol_esp;
    put(&name, sizeof name);
    finish();
}

void Encoder::delete_state(const StateId& id) {
    state_name(XFRM_MSG_DELSA, NLM_F_ACK, id);
}

void Encoder::get_state(const StateId& id) {
    state_name(XFRM_MSG_GETSA, 0, id);
}

void Encoder::dump_states() {
    begin(XFRM_MSG_GETSA, NLM_F_DUMP);
    const xfrm_usersa_id any{};
    put(&any, sizeof any);
    put_attribute(XFRMA_PROTO, protocol_esp);
    finish();
}

void Encoder::put_template(const Policy& p) {
    Zeroed<xfrm_user_tmpl> zeroed;  // addresses and SPI: any
    xfrm_user_tmpl& t = zeroed.wire;
    t.id.proto = protocol_esp;
    t.family = family(p.tunnel ? p.tunnel->destination.is_v6() : p.selector.v6);
    t.reqid = p.reqid;
    t.mode = p.tunnel ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
    if (p.tunnel) {
        t.saddr = to_wire(p.tunnel->source);
        t.id.daddr = to_wire(p.tunnel->destination);
    }
    t.aalgos = t.ealgos = t.calgos = ~std::uint32_t{0};
    put_attribute(XFRMA_TMPL, t);
}

void Encoder::put_policy(const Policy& p) {
    begin(XFRM_MSG_UPDPOLICY, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    Zeroed<xfrm_userpolicy_info> zeroed;
    xfrm_userpolicy_info& info = zeroed.wire;
    to_wire(p.selector, info.sel);
    info.lft = limits(no_limit, no_limit);
    info.priority = p.priority;
    info.dir = static_cast<std::uint8_t>(p.direction);
    info.action = p.block ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
    put(&info, sizeof info);
    put_template(p);
    if (p.offload) put_offload(*p.offload);
    finish();
}

void Encoder::delete_policy(const Policy& p) {
    begin(XFRM_MSG_DELPOLICY, NLM_F_ACK);
    Zeroed<xfrm_userpolicy_id> zeroed;
    xfrm_userpolicy_id& id = zeroed.wire;
    to_wire(p.selector, id.sel);
    id.dir = static_cast<std::uint8_t>(p.direction);
    put(&id, sizeof id);
    finish();
}

void Encoder::dump_policies() {
    begin(XFRM_MSG_GETPOLICY, NLM_F_DUMP);
    const xfrm_userpolicy_id any{};
    put(&any, sizeof any);
    finish();
}

}  // namespace gmgate::kernel
