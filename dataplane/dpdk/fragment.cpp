#include "dataplane/dpdk/fragment.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/bytes.h"

namespace gmgate::dataplane {
namespace {

constexpr std::size_t ipv6_header = 40;
constexpr std::size_t fragment_header = 8;
constexpr std::uint8_t next_hop_by_hop = 0;
constexpr std::uint8_t next_routing = 43;
constexpr std::uint8_t next_fragment = 44;
constexpr std::uint8_t next_destination = 60;
constexpr std::uint16_t ipv4_more = 0x2000;
constexpr std::uint16_t ipv4_offset_mask = 0x1fff;
// Behind the data of a reassembled datagram: padding, trailer and ICV of ESP.
constexpr std::size_t tail_reserve = 64;

std::span<const std::uint8_t> frame_of(const rte_mbuf* m) {
    return {rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m)};
}

void set_ipv4_checksum(std::uint8_t* ip, std::size_t size) {
    store_be16(ip + 10, 0);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i + 1 < size; i += 2) sum += load_be16(ip + i);
    while (sum > 0xffffU) sum = (sum & 0xffffU) + (sum >> 16U);
    store_be16(ip + 10, static_cast<std::uint16_t>(~sum));
}

std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
    return h ^ (h >> 29U);
}
std::uint64_t word(const std::uint8_t* p) {
    std::uint64_t v = 0;
    std::memcpy(&v, p, sizeof(v));
    return v;
}

}  // namespace

std::size_t link_header_size(std::span<const std::uint8_t> frame, bool& v6) {
    if (frame.size() < 18) return 0;
    std::size_t size = 14;
    std::uint16_t type = load_be16(frame.data() + 12);
    if (type == 0x8100 || type == 0x88a8) {
        size = 18;
        type = load_be16(frame.data() + 16);
    }
    v6 = type == 0x86dd;
    return v6 || type == 0x0800 ? size : 0;
}

Reassembler::Reassembler(const Config& config, rte_mempool* buffers, std::uint64_t seed,
                         PortCounters& counters)
    : timeout_(config.timeout),
      buffers_(buffers),
      room_(std::min<std::size_t>(max_data,
                                  static_cast<std::size_t>(rte_pktmbuf_data_room_size(buffers)) -
                                      RTE_PKTMBUF_HEADROOM - max_header - tail_reserve)),
      seed_(seed),
      counters_(counters),
      table_(std::bit_ceil(std::max(config.datagrams, ways))) {}

Reassembler::~Reassembler() {
    for (Datagram& d : table_) rte_pktmbuf_free(d.buffer);
}

bool Reassembler::dissect(const rte_mbuf* m, Piece& piece) {
    if (m->nb_segs != 1) return false;
    const auto frame = frame_of(m);
    const std::size_t link = link_header_size(frame, piece.v6);
    if (link == 0) return false;
    const auto ip = frame.subspan(link);
    piece.ip_at = link;
    if (!piece.v6) {
        if (ip.size() < 20) return false;
        const std::size_t header = static_cast<std::size_t>(ip[0] & 0xfU) * 4;
        const std::size_t total = load_be16(ip.data() + 2);
        if ((ip[0] >> 4U) != 4 || header < 20 || total <= header || total > ip.size()) return false;
        const std::uint16_t field = load_be16(ip.data() + 6);
        piece.offset = static_cast<std::uint32_t>(field & ipv4_offset_mask) * 8;
        piece.last = (field & ipv4_more) == 0;
        std::memcpy(piece.key.source.data(), ip.data() + 12, 4);
        std::memcpy(piece.key.destination.data(), ip.data() + 16, 4);
        piece.key.id = load_be16(ip.data() + 4);
        piece.key.protocol = ip[9];
        piece.header = frame.first(link + header);
        piece.data = ip.subspan(header, total - header);
    } else {
        if (ip.size() < ipv6_header) return false;
        const std::size_t end = ipv6_header + load_be16(ip.data() + 4);
        if ((ip[0] >> 4U) != 6 || end > ip.size()) return false;
        std::size_t at = ipv6_header;
        std::size_t named_at = 6;
        while (ip[named_at] != next_fragment) {
            const std::uint8_t next = ip[named_at];
            if (next != next_hop_by_hop && next != next_routing && next != next_destination)
                return false;
            if (at + 8 > end) return false;
            named_at = at;
            at += 8 + std::size_t{ip[at + 1]} * 8;
            if (at > end || link + at > max_header) return false;
        }
        if (at + fragment_header >= end) return false;
        const std::uint16_t field = load_be16(ip.data() + at + 2);
        piece.offset = field & 0xfff8U;
        piece.last = (field & 1U) == 0;
        std::memcpy(piece.key.source.data(), ip.data() + 8, 16);
        std::memcpy(piece.key.destination.data(), ip.data() + 24, 16);
        piece.key.id = load_be32(ip.data() + at + 4);
        piece.key.protocol = 255;
        piece.next_header = ip[at];
        piece.next_header_at = link + named_at;
        piece.header = frame.first(link + at);
        piece.data = ip.subspan(at + fragment_header, end - at - fragment_header);
    }
    return piece.header.size() <= max_header && !piece.data.empty() &&
           (piece.last || piece.data.size() % 8 == 0);
}

std::size_t Reassembler::bucket_of(const Key& key) const {
    std::uint64_t h = seed_;
    // All of one SA's in one bucket: so many it may have, and no more.
    if (key.origin != 0) return (mix(h, key.origin) >> 32U) % (table_.size() / ways) * ways;
    for (const auto* address : {&key.source, &key.destination}) {
        h = mix(h, word(address->data()));
        h = mix(h, word(address->data() + 8));
    }
    h = mix(h, (std::uint64_t{key.protocol} << 32U) | key.id);
    return (h >> 32U) % (table_.size() / ways) * ways;
}

void Reassembler::give_up(Datagram& d, PortDropReason reason, std::uint32_t more) {
    counters_.drop(reason, d.fragments + more);
    rte_pktmbuf_free(d.buffer);
    d.buffer = nullptr;
    --used_;
}

// The oldest: of the newcomer's origin if it has any here, else of the origin that has the most.
Reassembler::Datagram& Reassembler::who_gives_way(std::span<Datagram> bucket,
                                                  std::uint32_t newcomer) {
    const auto rank = [&](const Datagram& d) {
        if (d.key.origin == newcomer) return ways + 1;
        return static_cast<std::size_t>(std::ranges::count_if(
            bucket, [&](const Datagram& other) { return other.key.origin == d.key.origin; }));
    };
    Datagram* chosen = &bucket.front();
    std::size_t highest = rank(*chosen);
    for (Datagram& d : bucket.subspan(1)) {
        const std::size_t r = rank(d);
        if (r > highest || (r == highest && d.born < chosen->born)) {
            chosen = &d;
            highest = r;
        }
    }
    return *chosen;
}

Reassembler::Datagram* Reassembler::find_or_make(const Piece& piece, TimePoint now) {
    const std::size_t bucket = bucket_of(piece.key);
    Datagram* free = nullptr;
    for (std::size_t i = bucket; i < bucket + ways; ++i) {
        Datagram& d = table_[i];
        if (d.buffer != nullptr && now - d.born >= timeout_)
            give_up(d, PortDropReason::fragment_timeout);
        if (d.buffer == nullptr) {
            free = &d;
        } else if (d.key == piece.key) {
            return &d;
        }
    }
    if (free == nullptr) {
        free = &who_gives_way(std::span(table_).subspan(bucket, ways), piece.key.origin);
        give_up(*free, PortDropReason::fragment_evicted);
    }
    free->buffer = rte_pktmbuf_alloc(buffers_);
    if (free->buffer == nullptr) return nullptr;
    ++used_;
    free->key = piece.key;
    free->born = now;
    free->total = free->received = free->fragments = 0;
    free->header_size = 0;
    free->v6 = piece.v6;
    free->blocks.reset();
    return free;
}

std::uint8_t* Reassembler::data_of(const Datagram& d) const {
    return static_cast<std::uint8_t*>(d.buffer->buf_addr) + RTE_PKTMBUF_HEADROOM + max_header;
}

rte_mbuf* Reassembler::add(rte_mbuf* fragment, TimePoint now, std::uint32_t origin) {
    Piece piece;
    piece.key.origin = origin;
    if (!dissect(fragment, piece) || piece.offset + piece.data.size() > room_) {
        counters_.drop(PortDropReason::fragment_invalid);
        rte_pktmbuf_free(fragment);
        return nullptr;
    }
    Datagram* d = find_or_make(piece, now);
    if (d == nullptr) {
        counters_.drop(PortDropReason::no_buffer);
        rte_pktmbuf_free(fragment);
        return nullptr;
    }
    const auto end = piece.offset + static_cast<std::uint32_t>(piece.data.size());
    const std::size_t first_block = piece.offset / 8;
    const std::size_t end_block = (end + 7) / 8;
    bool clash = (d->total != 0 && (end > d->total || piece.last));
    for (std::size_t b = first_block; b < end_block && !clash; ++b) clash = d->blocks.test(b);
    if (piece.last && d->received != 0 && !clash) {
        // Something beyond the end came earlier.
        for (std::size_t b = end_block; b < d->blocks.size() && !clash; ++b)
            clash = d->blocks.test(b);
    }
    if (clash) {
        give_up(*d, PortDropReason::fragment_overlap, 1);
        rte_pktmbuf_free(fragment);
        return nullptr;
    }
    for (std::size_t b = first_block; b < end_block; ++b) d->blocks.set(b);
    std::memcpy(data_of(*d) + piece.offset, piece.data.data(), piece.data.size());
    d->received += static_cast<std::uint32_t>(piece.data.size());
    ++d->fragments;
    if (piece.last) d->total = end;
    if (piece.offset == 0) {
        std::memcpy(d->header.data(), piece.header.data(), piece.header.size());
        d->header_size = static_cast<std::uint16_t>(piece.header.size());
        d->ip_at = static_cast<std::uint16_t>(piece.ip_at);
        if (piece.v6) d->header[piece.next_header_at] = piece.next_header;
        d->buffer->port = fragment->port;
    }
    rte_pktmbuf_free(fragment);
    if (d->total == 0 || d->received != d->total || d->header_size == 0) return nullptr;
    return finish(*d);
}

rte_mbuf* Reassembler::finish(Datagram& d) {
    rte_mbuf* m = d.buffer;
    std::uint8_t* ip = d.header.data() + d.ip_at;
    const std::size_t ip_header = static_cast<std::size_t>(d.header_size) - d.ip_at;
    if (d.v6) {
        store_be16(ip + 4, static_cast<std::uint16_t>(ip_header - ipv6_header + d.total));
    } else {
        store_be16(ip + 2, static_cast<std::uint16_t>(ip_header + d.total));
        store_be16(ip + 6, 0);
        set_ipv4_checksum(ip, ip_header);
    }
    std::uint8_t* start = data_of(d) - d.header_size;
    std::memcpy(start, d.header.data(), d.header_size);
    m->data_off = static_cast<std::uint16_t>(start - static_cast<std::uint8_t*>(m->buf_addr));
    m->data_len = static_cast<std::uint16_t>(d.header_size + d.total);
    m->pkt_len = m->data_len;
    d.buffer = nullptr;
    --used_;
    counters_.reassembled.add();
    return m;
}

void Reassembler::expire(TimePoint now) {
    if (used_ == 0) return;
    for (Datagram& d : table_) {
        if (d.buffer != nullptr && now - d.born >= timeout_)
            give_up(d, PortDropReason::fragment_timeout);
    }
}

std::uint16_t fragment_frame(const rte_mbuf* whole, std::size_t mtu, rte_mempool* pool,
                             std::uint32_t id, std::span<rte_mbuf*> out) {
    if (whole->nb_segs != 1) return 0;
    const auto frame = frame_of(whole);
    bool v6 = false;
    const std::size_t link = link_header_size(frame, v6);
    if (link == 0) return 0;
    const auto ip = frame.subspan(link);
    std::size_t header = 0;    // repeated in each fragment
    std::size_t end = 0;       // of the packet in `ip`
    std::size_t named_at = 6;  // IPv6: octet that names what follows `header`
    std::uint16_t flags = 0;   // IPv4: of the last piece (a fragment of a fragment keeps "more")
    std::uint32_t base = 0;    // IPv4: offset of the packet, were it itself a fragment
    if (v6) {
        if (ip.size() < ipv6_header) return 0;
        end = ipv6_header + load_be16(ip.data() + 4);
        header = ipv6_header;
        while (ip[named_at] == next_hop_by_hop || ip[named_at] == next_routing) {
            if (header + 8 > std::min(end, ip.size())) return 0;
            named_at = header;
            header += 8 + std::size_t{ip[header + 1]} * 8;
        }
        if (ip[named_at] == next_fragment) return 0;
    } else {
        if (ip.size() < 20) return 0;
        header = static_cast<std::size_t>(ip[0] & 0xfU) * 4;
        end = load_be16(ip.data() + 2);
        const std::uint16_t field = load_be16(ip.data() + 6);
        flags = field & ipv4_more;
        base = field & ipv4_offset_mask;
        if (header < 20) return 0;
    }
    const std::size_t extra = v6 ? fragment_header : 0;
    if (end > ip.size() || header >= end || header + extra + 8 > mtu) return 0;
    const std::size_t piece = (mtu - header - extra) / 8 * 8;
    const std::size_t data = end - header;
    const std::size_t count = (data + piece - 1) / piece;
    if (count > out.size()) return 0;
    if (link + header + extra + piece >
        rte_pktmbuf_data_room_size(pool) - std::size_t{RTE_PKTMBUF_HEADROOM})
        return 0;
    if (rte_pktmbuf_alloc_bulk(pool, out.data(), static_cast<unsigned>(count)) != 0) return 0;

    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t offset = i * piece;
        const std::size_t size = std::min(piece, data - offset);
        const bool last = i + 1 == count;
        rte_mbuf* m = out[i];
        auto* p = rte_pktmbuf_mtod(m, std::uint8_t*);
        std::memcpy(p, frame.data(), link + header);
        std::uint8_t* h = p + link;
        if (v6) {
            std::uint8_t* f = h + header;
            f[0] = ip[named_at];
            f[1] = 0;
            store_be16(f + 2, static_cast<std::uint16_t>(offset | (last ? 0U : 1U)));
            store_be32(f + 4, id);
            h[named_at] = next_fragment;
            store_be16(h + 4, static_cast<std::uint16_t>(header - ipv6_header + extra + size));
        } else {
            if (load_be16(h + 4) == 0) store_be16(h + 4, static_cast<std::uint16_t>(id));
            store_be16(h + 2, static_cast<std::uint16_t>(header + size));
            store_be16(h + 6, static_cast<std::uint16_t>((base + offset / 8) |
                                                         (last ? flags : ipv4_more)));
            set_ipv4_checksum(h, header);
        }
        std::memcpy(h + header + extra, ip.data() + header + offset, size);
        m->data_len = static_cast<std::uint16_t>(link + header + extra + size);
        m->pkt_len = m->data_len;
    }
    return static_cast<std::uint16_t>(count);
}

}  // namespace gmgate::dataplane
