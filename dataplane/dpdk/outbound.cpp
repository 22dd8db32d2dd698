#include "dataplane/dpdk/outbound.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "dataplane/core/checksum.h"
#include "dataplane/core/udp_encapsulation.h"

namespace gmgate::dataplane {
namespace {

constexpr std::uint16_t ahead = 8;
constexpr std::uint32_t largest_packet = 65535;

// Requests to a NIC that the headers we rewrite no longer match.
constexpr std::uint64_t offload_flags = RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM |
                                        RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 |
                                        RTE_MBUF_F_TX_IPV6;

// For `added` octets before the frame and `tail` behind `end`.
bool has_room(rte_mbuf* m, std::uint32_t end, std::uint32_t added, std::uint32_t tail) {
    const std::uint32_t link_padding = m->data_len - end;
    return rte_pktmbuf_headroom(m) >= added && rte_pktmbuf_tailroom(m) + link_padding >= tail &&
           end + added + tail <= largest_packet;
}

}  // namespace

OutboundPath::OutboundPath(WorkerContext& context, Random& random)
    : context_(context),
      drops_(context.counters),
      ivs_(random),
      outer_identification_(static_cast<std::uint16_t>(random.u32())) {}

void OutboundPath::run(rte_mbuf* const* packets, std::uint16_t count, OutboundResult& result) {
    result.to_wire.count = 0;
    result.to_worker.packets.count = 0;
    result.fragments.count = 0;
    drops_.clear();
    item_count_ = 0;
    context_.counters.out_received.add(count);

    for (std::uint16_t i = 0; i < std::min(count, ahead); ++i) rte_prefetch0(frame_of(packets[i]));
    for (std::uint16_t i = 0; i < count; ++i) {
        if (i + ahead < count) rte_prefetch0(frame_of(packets[i + ahead]));
        classify_one(packets[i], result);
    }
    OutboundTable& table = context_.table.outbound();
    for (std::uint32_t i = 0; i < item_count_; ++i) (void)table.prefetch_candidate(items_[i].hash);
    for (std::uint32_t i = 0; i < item_count_; ++i) encapsulate(items_[i], result);
    for (std::size_t suite = 0; suite < jobs_.size(); ++suite) {
        const std::uint16_t jobs = job_counts_[suite];
        if (jobs == 0) continue;
        job_counts_[suite] = 0;
        context_.engine->seal(sa::all_suites[suite], {jobs_[suite].data(), jobs});
        for (std::uint16_t i = 0; i < jobs; ++i) {
            rte_mbuf* m = items_[jobs_[suite][i].tag].m;
            if (!jobs_[suite][i].ok) {
                drops_.add(m, DropReason::crypto);
                continue;
            }
            context_.counters.out_protected.add();
            context_.counters.out_protected_bytes.add(jobs_[suite][i].length +
                                                      context_.geometry[suite].icv);
            result.to_wire.push(m);
        }
    }
    drops_.free_all();
}

void OutboundPath::pass(rte_mbuf* m, OutboundResult& result) {
    context_.counters.out_other.add();
    result.to_wire.push(m);
}

void OutboundPath::classify_one(rte_mbuf* m, OutboundResult& result) {
    if (!make_linear(m)) {
        drops_.add(m, DropReason::not_linear);
        return;
    }
    const std::uint8_t* frame = frame_of(m);
    const PacketView view = classify({frame, m->data_len});
    switch (view.kind) {
        case PacketKind::udp:
        case PacketKind::tcp: {
            if (!context_.ours.contains(frame + view.source_at(), view.v6)) break;
            if (context_.config.verify_only) {
                if (!context_.config.protected_ports.contains(view.source_port)) break;
                drops_.add(m, DropReason::outbound_no_sa);
                return;
            }
            Item& item = items_[item_count_++];
            item.m = m;
            item.view = view;
            item.key.ours = load_address(frame + view.source_at(), view.v6);
            item.key.ue = load_address(frame + view.destination_at(), view.v6);
            item.key.our_port = view.source_port;
            item.key.ue_port = view.destination_port;
            item.key.v6 = view.v6 ? 1 : 0;
            item.hash = context_.table.outbound().hash(item.key);
            context_.table.outbound().prefetch_buckets(item.hash);
            return;
        }
        case PacketKind::fragment:
            if (!context_.ours.contains(frame + view.source_at(), view.v6)) break;
            context_.counters.out_fragments.add();
            result.fragments.push(m);
            return;
        case PacketKind::icmp: {
            // "Port unreachable" about a decapsulated packet carries its first octets: they came
            // under protection.
            const auto quoted = quoted_flow({frame, m->data_len}, view);
            if (quoted && context_.config.protected_ports.contains(quoted->destination_port) &&
                context_.ours.contains(frame + quoted->destination_at, quoted->v6)) {
                drops_.add(m, DropReason::outbound_icmp_quote);
                return;
            }
            break;
        }
        case PacketKind::malformed_ip:
            drops_.add(m, DropReason::malformed_ip);
            return;
        case PacketKind::extension_headers:
            drops_.add(m, DropReason::extension_headers);
            return;
        case PacketKind::malformed_transport:
            drops_.add(m, DropReason::malformed_transport);
            return;
        case PacketKind::esp:
        case PacketKind::other:
            break;
    }
    pass(m, result);
}

void OutboundPath::fix_transport_checksum(const Item& item) const {
    const PacketView& view = item.view;
    const std::uint64_t asked = item.m->ol_flags & RTE_MBUF_F_TX_L4_MASK;
    const bool by_flag = asked == RTE_MBUF_F_TX_UDP_CKSUM || asked == RTE_MBUF_F_TX_TCP_CKSUM;
    if (!by_flag && !context_.config.fill_checksums) return;
    std::uint8_t* frame = frame_of(item.m);
    std::uint8_t* segment = frame + view.l4;
    std::uint8_t* field = segment + (view.kind == PacketKind::udp ? 6 : 16);
    const std::size_t address = view.v6 ? 16 : 4;
    store_be16(field, 0);
    store_be16(field, transport_checksum({frame + view.source_at(), address},
                                         {frame + view.destination_at(), address}, view.protocol,
                                         {segment, view.end - view.l4}));
}

void OutboundPath::encapsulate(Item& item, OutboundResult& result) {
    OutboundTable& table = context_.table.outbound();
    const std::uint32_t index = table.find(item.hash, item.key);
    if (index == OutboundTable::none) {
        if (context_.config.protected_ports.contains(item.key.our_port)) {
            drops_.add(item.m, DropReason::outbound_no_sa);
        } else {
            pass(item.m, result);
        }
        return;
    }
    OutboundSa& sa = table.record(index);
    if (sa.owner != context_.config.worker) {
        context_.counters.out_handed_over.add();
        result.to_worker.workers[result.to_worker.packets.count] = sa.owner;
        result.to_worker.packets.push(item.m);
        return;
    }
    if (sa.sequence.get() == ~std::uint32_t{0}) {
        drops_.add(item.m, DropReason::outbound_sequence_exhausted);
        return;
    }
    if ((sa.flags & OutboundSa::encapsulated) != 0) {
        encapsulate_in_udp(item, sa);
        return;
    }
    const PacketView& view = item.view;
    const EspGeometry& geometry = context_.geometry[sa.suite];
    const std::uint32_t payload = view.end - view.l4;
    const std::uint32_t head = geometry.head();
    const std::uint32_t tail = geometry.padding(payload) + esp_trailer_size + geometry.icv;
    rte_mbuf* m = item.m;
    // IPv6 counts without its header of 40, IPv4 with its own.
    const std::uint32_t ip_length = view.end - view.l3 - (view.v6 ? 40U : 0U) + head + tail;
    if (ip_length > largest_packet || !has_room(m, view.end, head, tail)) {
        drops_.add(m, DropReason::outbound_no_room);
        return;
    }
    fix_transport_checksum(item);

    std::uint8_t* frame = grow(m, view.end, head, tail, view.l4);
    std::uint8_t* ip = frame + view.l3;
    frame[view.next_header_at] = protocol_esp;
    if (view.v6) {
        store_be16(ip + 4, static_cast<std::uint16_t>(ip_length));
    } else {
        store_be16(ip + 2, static_cast<std::uint16_t>(ip_length));
        store_be16(ip + 10, ipv4_header_checksum({ip, (ip[0] & 0x0FU) * std::size_t{4}}));
    }
    seal(item, sa, frame + view.l4, payload, view.protocol);
}

// To a UE behind a NAT (N1): the host's packet, addressed as the UE calls itself, in ESP, in UDP to
// where the UE was heard last.
void OutboundPath::encapsulate_in_udp(Item& item, OutboundSa& sa) {
    const NatPath& path = context_.table.nat_path(sa.set);
    const std::uint64_t endpoint = path.endpoint.get();
    if (endpoint == 0) {
        drops_.add(item.m, DropReason::outbound_no_endpoint);
        return;
    }
    const PacketView& view = item.view;
    const EspGeometry& geometry = context_.geometry[sa.suite];
    const std::uint32_t payload = view.end - view.l3;
    const std::uint32_t tail = geometry.padding(payload) + esp_trailer_size + geometry.icv;
    const std::uint32_t added = outer_headers_size + geometry.head();
    const std::uint32_t length = added + payload + tail;
    rte_mbuf* m = item.m;
    const bool options = view.l4 - view.l3 != inner_header_size;
    if (length > largest_packet || options || !has_room(m, view.end, added, tail)) {
        drops_.add(m, DropReason::outbound_no_room);
        return;
    }
    fix_transport_checksum(item);
    const bool server = (sa.flags & OutboundSa::to_port_us) != 0;
    translate_destination(frame_of(m) + view.l3,
                          {path.inner, server ? path.port_us : path.port_uc});
    const std::uint8_t tos = frame_of(m)[view.l3 + 1];

    std::uint8_t* frame = grow(m, view.end, added, tail, view.l3);
    Ipv4Endpoint to;
    store_be32(to.address.data(), static_cast<std::uint32_t>(endpoint >> 16U));
    to.port = static_cast<std::uint16_t>(endpoint);
    // The host has found the way to the address it knows; to another one the way is back.
    if (to.address != first_four(sa.ue)) {
        const std::uint64_t link = path.link.get();
        store_be16(frame, static_cast<std::uint16_t>(link >> 32U));
        store_be32(frame + 2, static_cast<std::uint32_t>(link));
    }
    write_outer_headers(frame + view.l3, length, tos, outer_identification_++, first_four(sa.ours),
                        to);
    seal(item, sa, frame + view.l3 + outer_headers_size, payload, protocol_ipv4);
}

std::uint8_t* OutboundPath::grow(rte_mbuf* m, std::uint32_t end, std::uint32_t added,
                                 std::uint32_t tail, std::uint32_t kept) {
    std::uint8_t* frame = frame_of(m) - added;
    std::memmove(frame, frame + added, kept);
    m->data_off = static_cast<std::uint16_t>(m->data_off - added);
    m->data_len = static_cast<std::uint16_t>(end + added + tail);
    m->pkt_len = m->data_len;
    m->ol_flags &= ~offload_flags;
    return frame;
}

void OutboundPath::seal(Item& item, OutboundSa& sa, std::uint8_t* esp, std::uint32_t payload,
                        std::uint8_t next_header) {
    const EspGeometry& geometry = context_.geometry[sa.suite];
    const std::uint32_t head = geometry.head();
    const std::uint32_t padding = geometry.padding(payload);
    const std::uint32_t sequence = sa.sequence.get() + 1;
    sa.sequence.set(sequence);
    store_be32(esp, sa.spi);
    store_be32(esp + 4, sequence);
    if (geometry.iv != 0) {
        const sa::Suite suite = sa::all_suites[sa.suite];
        if (suite.encryption == sa::Encryption::aes_cbc ||
            suite.encryption == sa::Encryption::des_ede3_cbc) {
            ivs_.fill(esp + esp_header_size, geometry.iv);
        } else {
            const std::uint64_t iv = sa.iv_base ^ sequence;
            std::memcpy(esp + esp_header_size, &iv, sizeof(iv));
        }
    }
    write_trailer(esp + head + payload, padding, next_header);

    CryptoJob& job = jobs_[sa.suite][job_counts_[sa.suite]++];
    job.esp = esp;
    job.length = head + payload + padding + esp_trailer_size;
    job.tag = static_cast<std::uint32_t>(&item - items_.data());
    job.small_key = sa.small_key.data();
    job.schedule = context_.table.schedule(sa.suite, sa.schedule);
    sa.bytes.add(job.length + geometry.icv);
    if (sequence >= sequence_near_end && (sa.flags & OutboundSa::sequence_reported) == 0 &&
        context_.report({sa::BackendEventKind::sequence_near_end, true, sa.set, sa.spi})) {
        sa.flags |= OutboundSa::sequence_reported;
    }
}

}  // namespace gmgate::dataplane
