#include "ue/packet.h"

#include <algorithm>
#include <cstring>

namespace gmgate::ue {

namespace {

std::uint64_t sum16(std::span<const std::uint8_t> data, std::uint64_t sum = 0) {
    std::size_t i = 0;
    for (; i + 1 < data.size(); i += 2) sum += load_be16(data.data() + i);
    if (i < data.size()) sum += static_cast<std::uint64_t>(data[i]) << 8U;
    return sum;
}

std::uint16_t finish(std::uint64_t sum) {
    while (sum >> 16U) sum = (sum & 0xFFFFU) + (sum >> 16U);
    return static_cast<std::uint16_t>(~sum);
}

void append(Bytes& out, std::span<const std::uint8_t> data) {
    out.insert(out.end(), data.begin(), data.end());
}

Bytes ipv4_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
                  std::uint16_t identification, std::uint16_t fragment_field,
                  std::span<const std::uint8_t> payload) {
    Bytes p;
    p.reserve(20 + payload.size());
    p.resize(20);
    p[0] = 0x45;
    store_be16(&p[2], static_cast<std::uint16_t>(20 + payload.size()));
    store_be16(&p[4], identification);
    store_be16(&p[6], fragment_field);
    p[8] = 64;
    p[9] = protocol;
    std::ranges::copy(from.octets(), p.begin() + 12);
    std::ranges::copy(to.octets(), p.begin() + 16);
    store_be16(&p[10], finish(sum16(p)));
    append(p, payload);
    return p;
}

Bytes ipv6_packet(const IpAddress& from, const IpAddress& to, std::uint8_t next,
                  std::size_t length) {
    Bytes p;
    p.reserve(40 + length);
    p.resize(40);
    p[0] = 0x60;
    store_be16(&p[4], static_cast<std::uint16_t>(length));
    p[6] = next;
    p[7] = 64;
    std::ranges::copy(from.octets(), p.begin() + 8);
    std::ranges::copy(to.octets(), p.begin() + 24);
    return p;
}

}  // namespace

std::uint16_t transport_checksum(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
                                 std::span<const std::uint8_t> segment) {
    std::uint64_t sum = sum16(from.octets());
    sum = sum16(to.octets(), sum);
    sum += protocol;
    sum += segment.size();  // below 2^16: one word, whatever the family's field width
    return finish(sum16(segment, sum));
}

void build_udp(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> payload,
               Bytes& out) {
    out.resize(udp_header_size);
    store_be16(&out[0], from.port);
    store_be16(&out[2], to.port);
    store_be16(&out[4], static_cast<std::uint16_t>(udp_header_size + payload.size()));
    store_be16(&out[6], 0);
    append(out, payload);
    const std::uint16_t c = transport_checksum(from.address, to.address, 17, out);
    store_be16(&out[6], c == 0 ? 0xFFFF : c);
}

std::optional<UdpView> read_udp(const IpAddress& from, const IpAddress& to,
                                std::span<const std::uint8_t> segment) {
    if (segment.size() < udp_header_size) return std::nullopt;
    if (load_be16(&segment[4]) != segment.size()) return std::nullopt;
    if (load_be16(&segment[6]) == 0 ? from.is_v6()
                                    : transport_checksum(from, to, 17, segment) != 0) {
        return std::nullopt;
    }
    return UdpView{load_be16(&segment[0]), load_be16(&segment[2]),
                   segment.subspan(udp_header_size)};
}

void build_tcp(const IpAddress& from, const IpAddress& to, const TcpSegment& s, Bytes& out) {
    const bool option = (s.flags & tcp_flag::syn) != 0 && s.mss != 0;
    const std::size_t header = tcp_header_size + (option ? 4U : 0U);
    out.assign(header, 0);
    store_be16(&out[0], s.from_port);
    store_be16(&out[2], s.to_port);
    store_be32(&out[4], s.sequence);
    store_be32(&out[8], s.acknowledgment);
    out[12] = static_cast<std::uint8_t>(header / 4 << 4U);
    out[13] = s.flags;
    store_be16(&out[14], s.window);
    if (option) {
        out[20] = 2;
        out[21] = 4;
        store_be16(&out[22], s.mss);
    }
    append(out, s.payload);
    store_be16(&out[16], transport_checksum(from, to, 6, out));
}

std::optional<TcpSegment> read_tcp(const IpAddress& from, const IpAddress& to,
                                   std::span<const std::uint8_t> segment) {
    if (segment.size() < tcp_header_size || transport_checksum(from, to, 6, segment) != 0)
        return std::nullopt;
    const std::size_t header = static_cast<std::size_t>(segment[12] >> 4U) * 4;
    if (header < tcp_header_size || header > segment.size()) return std::nullopt;
    TcpSegment s;
    s.from_port = load_be16(&segment[0]);
    s.to_port = load_be16(&segment[2]);
    s.sequence = load_be32(&segment[4]);
    s.acknowledgment = load_be32(&segment[8]);
    s.flags = segment[13];
    s.window = load_be16(&segment[14]);
    s.payload = segment.subspan(header);
    for (std::size_t i = tcp_header_size; i < header;) {
        const std::uint8_t kind = segment[i];
        if (kind == 0) break;
        if (kind == 1) {
            ++i;
            continue;
        }
        if (i + 1 >= header || segment[i + 1] < 2 || i + segment[i + 1] > header) break;
        if (kind == 2 && segment[i + 1] == 4) s.mss = load_be16(&segment[i + 2]);
        i += segment[i + 1];
    }
    return s;
}

void build_ip(const IpAddress& from, const IpAddress& to, std::uint8_t protocol,
              std::span<const std::uint8_t> payload, std::size_t mtu, std::uint32_t identification,
              std::vector<Bytes>& out) {
    const std::size_t header = from.is_v6() ? 40 : 20;
    if (header + payload.size() <= mtu) {
        if (from.is_v6()) {
            out.push_back(ipv6_packet(from, to, protocol, payload.size()));
            append(out.back(), payload);
        } else {
            out.push_back(ipv4_packet(from, to, protocol,
                                      static_cast<std::uint16_t>(identification), 0, payload));
        }
        return;
    }
    const std::size_t room = (mtu - header - (from.is_v6() ? 8U : 0U)) & ~std::size_t{7};
    for (std::size_t at = 0; at < payload.size(); at += room) {
        const auto piece = payload.subspan(at, std::min(room, payload.size() - at));
        const bool more = at + piece.size() < payload.size();
        if (from.is_v6()) {
            Bytes p = ipv6_packet(from, to, 44, 8 + piece.size());
            std::array<std::uint8_t, 8> f{};
            f[0] = protocol;
            store_be16(&f[2], static_cast<std::uint16_t>(
                                  at | (more ? 1U : 0U)));  // offset in octets, low 3 bits free
            store_be32(&f[4], identification);
            append(p, f);
            append(p, piece);
            out.push_back(std::move(p));
        } else {
            out.push_back(
                ipv4_packet(from, to, protocol, static_cast<std::uint16_t>(identification),
                            static_cast<std::uint16_t>(at / 8 | (more ? 0x2000U : 0U)), piece));
        }
    }
}

std::optional<IpView> read_ipv4(std::span<const std::uint8_t> p) {
    if (p.size() < 20 || p[0] >> 4U != 4) return std::nullopt;
    const std::size_t header = static_cast<std::size_t>(p[0] & 15U) * 4;
    // Linux gives raw sockets the length in network order and the whole packet; a shorter field
    // means link padding.
    const std::size_t total = std::min<std::size_t>(load_be16(&p[2]), p.size());
    if (header < 20 || total < header || (load_be16(&p[6]) & 0x3FFFU) != 0) return std::nullopt;
    IpView v;
    v.from = IpAddress::v4(p.subspan<12, 4>());
    v.to = IpAddress::v4(p.subspan<16, 4>());
    v.protocol = p[9];
    v.payload = p.subspan(header, total - header);
    return v;
}

}  // namespace gmgate::ue
