#include "sa/kernel/decoder.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <cstring>

namespace gmgate::kernel {

namespace {

using Octets = std::span<const std::uint8_t>;

constexpr std::size_t aligned(std::size_t n) {
    return (n + 3U) & ~std::size_t{3};
}

// The octets need not be aligned for T.
template <class T>
std::optional<T> take(Octets& octets) {
    if (octets.size() < sizeof(T)) return std::nullopt;
    T value{};
    std::memcpy(&value, octets.data(), sizeof value);
    octets = octets.subspan(std::min(aligned(sizeof value), octets.size()));
    return value;
}

template <class T>
bool read(Octets octets, T& value) {
    if (octets.size() < sizeof value) return false;
    std::memcpy(&value, octets.data(), sizeof value);
    return true;
}

// Calls with (type, value) for each attribute; false: one does not fit in.
template <class Visit>
bool each_attribute(Octets octets, const Visit& visit) {
    while (octets.size() >= sizeof(nlattr)) {
        nlattr header{};
        std::memcpy(&header, octets.data(), sizeof header);
        if (header.nla_len < sizeof header || header.nla_len > octets.size()) return false;
        if (!visit(static_cast<std::uint16_t>(header.nla_type & NLA_TYPE_MASK),
                   octets.subspan(sizeof header, header.nla_len - sizeof header))) {
            return false;
        }
        octets = octets.subspan(std::min(aligned(header.nla_len), octets.size()));
    }
    return true;
}

bool known(std::uint16_t family) {
    return family == AF_INET || family == AF_INET6;
}

IpAddress address(const xfrm_address_t& a, bool v6) {
    std::array<std::uint8_t, 16> octets{};
    std::memcpy(octets.data(), &a, sizeof a);
    if (v6) return IpAddress::v6(octets);
    return IpAddress::v4(std::span<const std::uint8_t, 4>(octets.data(), 4));
}

// `family` of a selector may be 0: then it takes the state's.
std::optional<Selector> selector(const xfrm_selector& s, bool v6) {
    if (s.family != AF_UNSPEC) {
        if (!known(s.family)) return std::nullopt;
        v6 = s.family == AF_INET6;
    }
    Selector out;
    out.v6 = v6;
    out.source = address(s.saddr, v6);
    out.destination = address(s.daddr, v6);
    out.source_prefix = s.prefixlen_s;
    out.destination_prefix = s.prefixlen_d;
    out.source_port = ntohs(s.sport);
    out.source_mask = ntohs(s.sport_mask);
    out.destination_port = ntohs(s.dport);
    out.destination_mask = ntohs(s.dport_mask);
    out.protocol = s.proto;
    out.interface = s.ifindex;
    return out;
}

std::string_view text_of(Octets octets) {
    const auto* begin = reinterpret_cast<const char*>(octets.data());
    return {begin, ::strnlen(begin, octets.size())};
}

// Name and key length come first in all three kinds.
template <class Wire>
std::optional<Algorithm> algorithm(Octets octets, std::uint32_t icv_bits) {
    xfrm_algo head{};
    if (octets.size() < sizeof(Wire) || !read(octets, head)) return std::nullopt;
    const std::size_t key = (std::size_t{head.alg_key_len} + 7) / 8;
    if (key > octets.size() - sizeof(Wire)) return std::nullopt;
    Algorithm out;
    out.name = text_of(octets.first(sizeof head.alg_name));
    out.key = octets.subspan(sizeof(Wire), key);
    out.icv_bits = icv_bits;
    return out;
}

std::optional<State> from_wire(const xfrm_usersa_info& info) {
    if (!known(info.family)) return std::nullopt;
    const bool v6 = info.family == AF_INET6;
    const auto sel = selector(info.sel, v6);
    if (!sel) return std::nullopt;
    State s;
    s.id = {address(info.id.daddr, v6), ntohl(info.id.spi)};
    s.source = address(info.saddr, v6);
    s.selector = *sel;
    s.protocol = info.id.proto;
    s.mode = info.mode;
    s.reqid = info.reqid;
    s.replay_window = info.replay_window;
    s.soft_packets = info.lft.soft_packet_limit;
    s.hard_packets = info.lft.hard_packet_limit;
    s.packets = info.curlft.packets;
    s.bytes = info.curlft.bytes;
    s.replays = info.stats.replay + info.stats.replay_window;
    s.integrity_failures = info.stats.integrity_failed;
    return s;
}

bool read_offload(Octets value, std::optional<OffloadDevice>& out) {
    xfrm_user_offload wire{};
    if (!read(value, wire)) return false;
    out = OffloadDevice{wire.ifindex, wire.flags};
    return true;
}

bool read_state_attribute(State& s, std::uint16_t type, Octets value) {
    switch (type) {
        case XFRMA_ALG_AEAD:
        case XFRMA_ALG_AUTH_TRUNC: {
            xfrm_algo_auth head{};
            if (!read(value, head)) return false;
            auto& place = type == XFRMA_ALG_AEAD ? s.aead : s.auth;
            place = algorithm<xfrm_algo_auth>(value, head.alg_trunc_len);
            return place.has_value();
        }
        case XFRMA_ALG_CRYPT:
            s.crypt = algorithm<xfrm_algo>(value, 0);
            return s.crypt.has_value();
        case XFRMA_REPLAY_VAL: {
            xfrm_replay_state wire{};
            if (!read(value, wire)) return false;
            s.out_sequence = wire.oseq;
            s.in_sequence = wire.seq;
            return true;
        }
        case XFRMA_REPLAY_ESN_VAL: {
            xfrm_replay_state_esn wire{};
            if (!read(value, wire)) return false;
            s.out_sequence = wire.oseq;
            s.in_sequence = wire.seq;
            s.replay_window = wire.replay_window;
            return true;
        }
        case XFRMA_ENCAP: {
            xfrm_encap_tmpl wire{};
            if (!read(value, wire)) return false;
            s.encapsulation =
                Encapsulation{wire.encap_type, ntohs(wire.encap_sport), ntohs(wire.encap_dport)};
            return true;
        }
        case XFRMA_OFFLOAD_DEV:
            return read_offload(value, s.offload);
        case XFRMA_SET_MARK: {
            std::uint32_t mark = 0;
            if (!read(value, mark)) return false;
            s.set_mark = mark;
            return true;
        }
        case XFRMA_LASTUSED:
            return read(value, s.last_used);
        default:
            return true;  // newer kernels have more to say
    }
}

bool read_policy_attribute(Policy& p, std::uint16_t type, Octets value) {
    switch (type) {
        case XFRMA_TMPL:
            p.templates = static_cast<unsigned>(value.size() / sizeof(xfrm_user_tmpl));
            if (xfrm_user_tmpl t{}; p.templates != 0 && read(value, t)) p.reqid = t.reqid;
            return true;
        case XFRMA_POLICY_TYPE: {
            xfrm_userpolicy_type wire{};
            if (!read(value, wire)) return false;
            p.main_type = wire.type == XFRM_POLICY_TYPE_MAIN;
            return true;
        }
        case XFRMA_MARK: {
            xfrm_mark wire{};
            if (!read(value, wire)) return false;
            p.conditional = p.conditional || wire.m != 0;
            // A mark of zero is what other packets have.
            p.elsewhere = p.elsewhere || (wire.v & wire.m) != 0;
            return true;
        }
        case XFRMA_IF_ID: {
            std::uint32_t id = 0;
            if (!read(value, id)) return false;
            p.conditional = p.conditional || id != 0;
            p.elsewhere = p.elsewhere || id != 0;
            return true;
        }
        case XFRMA_OFFLOAD_DEV:
            return read_offload(value, p.offload);
        default:
            return true;
    }
}

}  // namespace

std::optional<MessageView> next_message(std::span<const std::uint8_t>& octets) {
    nlmsghdr header{};
    if (!read(octets, header) || header.nlmsg_len < sizeof header ||
        header.nlmsg_len > octets.size()) {
        return std::nullopt;
    }
    MessageView m;
    m.type = header.nlmsg_type;
    m.flags = header.nlmsg_flags;
    m.sequence = header.nlmsg_seq;
    m.payload = octets.subspan(sizeof header, header.nlmsg_len - sizeof header);
    octets = octets.subspan(std::min(aligned(header.nlmsg_len), octets.size()));
    return m;
}

std::optional<Acknowledgement> parse_acknowledgement(const MessageView& message) {
    Acknowledgement out;
    Octets left = message.payload;
    const auto error = take<std::int32_t>(left);
    if (message.type == NLMSG_DONE) {
        // Its number is there since kernel 2.6, yet a dump without one is done all the same.
        if (error) out.error = *error < 0 && *error != INT32_MIN ? -*error : 0;
    } else if (message.type == NLMSG_ERROR) {
        const auto original = take<nlmsghdr>(left);
        if (!error || !original) return std::nullopt;
        out.error = *error < 0 && *error != INT32_MIN ? -*error : 0;
        // Not capped: the request's payload comes back before the attributes.
        if ((message.flags & NLM_F_CAPPED) == 0 && out.error != 0) {
            if (original->nlmsg_len < sizeof *original) return out;
            left = left.subspan(
                std::min(aligned(original->nlmsg_len - sizeof *original), left.size()));
        }
    } else {
        return std::nullopt;
    }
    if ((message.flags & NLM_F_ACK_TLVS) != 0) {
        (void)each_attribute(left, [&](std::uint16_t type, Octets value) {
            if (type == NLMSGERR_ATTR_MSG) out.text = text_of(value);
            return true;
        });
    }
    return out;
}

std::optional<State> parse_state(std::span<const std::uint8_t> payload) {
    const auto info = take<xfrm_usersa_info>(payload);
    if (!info) return std::nullopt;
    auto s = from_wire(*info);
    if (!s || !each_attribute(payload, [&](std::uint16_t type, Octets value) {
            return read_state_attribute(*s, type, value);
        })) {
        return std::nullopt;
    }
    return s;
}

std::optional<Policy> parse_policy(std::span<const std::uint8_t> payload) {
    const auto info = take<xfrm_userpolicy_info>(payload);
    if (!info) return std::nullopt;
    const auto sel = selector(info->sel, false);
    if (!sel) return std::nullopt;
    Policy p;
    p.selector = *sel;
    p.on_socket = info->dir > XFRM_POLICY_FWD;
    if (!p.on_socket) p.direction = static_cast<Direction>(info->dir);
    p.block = info->action == XFRM_POLICY_BLOCK;
    p.priority = info->priority;
    p.index = info->index;
    if (!each_attribute(payload, [&](std::uint16_t type, Octets value) {
            return read_policy_attribute(p, type, value);
        })) {
        return std::nullopt;
    }
    return p;
}

std::optional<Expiry> parse_expiry(std::span<const std::uint8_t> payload) {
    xfrm_user_expire wire{};
    if (!read(payload, wire)) return std::nullopt;
    auto s = from_wire(wire.state);
    if (!s) return std::nullopt;
    return Expiry{*s, wire.hard != 0};
}

std::optional<Mapping> parse_mapping(std::span<const std::uint8_t> payload) {
    xfrm_user_mapping wire{};
    if (!read(payload, wire) || !known(wire.id.family)) return std::nullopt;
    const bool v6 = wire.id.family == AF_INET6;
    return Mapping{{address(wire.id.daddr, v6), ntohl(wire.id.spi)},
                   wire.reqid,
                   {address(wire.new_saddr, v6), ntohs(wire.new_sport)}};
}

std::optional<Acquire> parse_acquire(std::span<const std::uint8_t> payload) {
    const auto wire = take<xfrm_user_acquire>(payload);
    if (!wire) return std::nullopt;
    const auto sel = selector(wire->sel, false);
    if (!sel) return std::nullopt;
    Acquire out;
    out.packet = *sel;
    if (!each_attribute(payload, [&](std::uint16_t type, Octets value) {
            if (xfrm_user_tmpl t{}; type == XFRMA_TMPL && read(value, t)) out.reqid = t.reqid;
            return true;
        })) {
        return std::nullopt;
    }
    return out;
}

}  // namespace gmgate::kernel
