#include "dataplane/dpdk/inbound.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "dataplane/core/checksum.h"
#include "dataplane/core/replay_window.h"
#include "dataplane/core/udp_encapsulation.h"

namespace gmgate::dataplane {
namespace {

// Buffers whose first octets are asked for ahead of the one at hand.
constexpr std::uint16_t ahead = 16;
constexpr std::uint16_t header_ahead = 32;
// The octets the crypto will read are asked for before it runs: its lanes take 64 from each of 16
// packets in turn, too many streams for the CPU to foresee. Into the second level: a burst of whole
// packets is larger than the first.
constexpr std::uint32_t payload_prefetch = 512;

// What is wrong with an authentic payload, trailer included; at least one block of it.
std::optional<DropReason> wrong_inside(const InboundSa& sa,
                                       std::span<const std::uint8_t> cleartext) {
    const std::uint8_t next_header = cleartext[cleartext.size() - 1];
    const std::size_t trailer = cleartext[cleartext.size() - 2] + std::size_t{esp_trailer_size};
    if (trailer > cleartext.size()) return DropReason::bad_padding;
    if (next_header != protocol_udp && next_header != protocol_tcp)
        return next_header == protocol_none ? DropReason::dummy : DropReason::next_header;
    const std::size_t size = cleartext.size() - trailer;
    if (size < (next_header == protocol_udp ? 8U : 20U) ||
        load_be16(cleartext.data()) != sa.ue_port || load_be16(cleartext.data() + 2) != sa.our_port)
        return DropReason::selector;
    return std::nullopt;
}

void prefetch_sa(const InboundSa& sa) {
    __builtin_prefetch(&sa, 1);
    __builtin_prefetch(reinterpret_cast<const std::uint8_t*>(&sa) + 64, 1);
}

}  // namespace

InboundPath::InboundPath(WorkerContext& context)
    : context_(context), drops_(context.counters), replay_words_(context.table.replay_words()) {}

void InboundPath::run(rte_mbuf* const* packets, std::uint16_t count, std::uint32_t now,
                      InboundResult& result) {
    result.to_host.count = 0;
    result.to_worker.packets.count = 0;
    result.fragments.count = 0;
    result.inner_fragments.packets.count = 0;
    drops_.clear();
    item_count_ = 0;
    context_.counters.in_received.add(count);

    // The buffers' own headers may be as cold as what they hold: they are asked for earlier still.
    // Spread over the loop, because the CPU can have only so many lines under way.
    for (std::uint16_t i = 0; i < std::min(count, header_ahead); ++i)
        rte_mbuf_prefetch_part1(packets[i]);
    for (std::uint16_t i = 0; i < std::min(count, ahead); ++i) rte_prefetch0(frame_of(packets[i]));
    for (std::uint16_t i = 0; i < count; ++i) {
        if (i + header_ahead < count) rte_mbuf_prefetch_part1(packets[i + header_ahead]);
        if (i + ahead < count) rte_prefetch0(frame_of(packets[i + ahead]));
        classify_one(packets[i], result);
    }
    for (std::uint32_t i = 0; i < item_count_; ++i) admit(items_[i], result);
    for (std::size_t suite = 0; suite < jobs_.size(); ++suite) {
        const std::uint16_t jobs = job_counts_[suite];
        if (jobs == 0) continue;
        job_counts_[suite] = 0;
        if (context_.config.verify_only) {
            context_.engine->verify(sa::all_suites[suite], {jobs_[suite].data(), jobs});
        } else {
            context_.engine->open(sa::all_suites[suite], {jobs_[suite].data(), jobs});
        }
        for (std::uint16_t i = 0; i < jobs; ++i)
            finish(jobs_[suite][i], context_.geometry[suite], now, result);
    }
    drops_.free_all();
}

void InboundPath::classify_one(rte_mbuf* m, InboundResult& result) {
    if (m->nb_segs != 1 && !make_linear(m)) {
        drops_.add(m, DropReason::not_linear);
        return;
    }
    std::uint8_t* frame = frame_of(m);
    const PacketView view = classify({frame, m->data_len});
    switch (view.kind) {
        case PacketKind::esp:
            take_esp(m, frame, view, false);
            return;
        case PacketKind::udp:
        case PacketKind::tcp:
            if (context_.config.protected_ports.contains(view.destination_port) &&
                context_.ours.contains(frame + view.destination_at(), view.v6)) {
                drops_.add(m, DropReason::cleartext_protected_port);
                return;
            }
            if (view.destination_port == encapsulation_port && context_.config.nat &&
                view.kind == PacketKind::udp &&
                context_.ours.contains(frame + view.destination_at(), view.v6)) {
                unwrap(m, frame, view);
                return;
            }
            break;
        case PacketKind::fragment:
            // The ports of a fragment are not in it: whole packets only may pass to our addresses.
            if (context_.ours.contains(frame + view.destination_at(), view.v6)) {
                context_.counters.in_fragments.add();
                result.fragments.push(m);
                return;
            }
            break;
        case PacketKind::malformed_ip:
            drops_.add(m, DropReason::malformed_ip);
            return;
        case PacketKind::extension_headers:
            drops_.add(m, DropReason::extension_headers);
            return;
        case PacketKind::malformed_transport:
            drops_.add(m, view.protocol == protocol_esp ? DropReason::esp_runt
                                                        : DropReason::malformed_transport);
            return;
        case PacketKind::icmp: {
            // What leaves a protected port is in ESP: no router can quote it, but the host would
            // believe who does, and end a connection or shrink a path's MTU.
            const auto quoted = quoted_flow({frame, m->data_len}, view);
            if (quoted && context_.config.protected_ports.contains(quoted->source_port) &&
                context_.ours.contains(frame + quoted->source_at, quoted->v6)) {
                drops_.add(m, DropReason::cleartext_protected_port);
                return;
            }
            break;
        }
        case PacketKind::other:
            break;
    }
    if (view.ip && context_.elsewhere.contains(frame + view.destination_at(), view.v6)) {
        drops_.add(m, DropReason::not_for_gm);
        return;
    }
    context_.counters.in_other.add();
    result.to_host.push(m);
}

void InboundPath::take_esp(rte_mbuf* m, std::uint8_t* frame, const PacketView& view,
                           bool encapsulated) {
    Item& item = items_[item_count_++];
    item.m = m;
    item.frame = frame;
    item.view = view;
    item.spi = load_be32(frame + view.l4);
    item.sequence = load_be32(frame + view.l4 + 4);
    item.encapsulated = encapsulated;
    item.sa = &context_.table.slot_of(item.spi);
    prefetch_sa(*item.sa);
}

// UDP to port 4500 of ours.
void InboundPath::unwrap(rte_mbuf* m, std::uint8_t* frame, PacketView view) {
    switch (look_into({frame, m->data_len}, view)) {
        case Encapsulated::esp:
            take_esp(m, frame, view, true);
            return;
        case Encapsulated::keepalive:
            context_.counters.in_keepalives.add();
            drops_.add_uncounted(m);
            return;
        case Encapsulated::other:
            drops_.add(m, DropReason::not_esp_in_udp);
            return;
        case Encapsulated::malformed:
            drops_.add(m, DropReason::malformed_transport);
            return;
    }
}

ReplayVerdict InboundPath::replay_check(InboundSa& sa, std::uint32_t sequence) {
    if (replay_words_ == 0) return ReplayWindow64::check(sequence, sa.highest.get(), sa.window);
    return WideReplayWindow(context_.table.wide_window(sa), replay_words_)
        .check(sequence, sa.highest.get());
}

void InboundPath::replay_advance(InboundSa& sa, std::uint32_t sequence) {
    std::uint32_t highest = sa.highest.get();
    if (replay_words_ == 0) {
        ReplayWindow64::advance(sequence, highest, sa.window);
    } else {
        WideReplayWindow(context_.table.wide_window(sa), replay_words_).advance(sequence, highest);
    }
    sa.highest.set(highest);
}

void InboundPath::drop_replay(const Item& item, ReplayVerdict verdict) {
    item.sa->replays.add_saturating();
    drops_.add(item.m,
               verdict == ReplayVerdict::seen ? DropReason::replay : DropReason::replay_too_old);
}

// Everything that can be known without the key, cheapest first.
void InboundPath::admit(Item& item, InboundResult& result) {
    InboundSa& sa = *item.sa;
    const PacketView& view = item.view;
    // The generation is part of the SPI; only after this match may other fields be read. 0 is the
    // mark of a free slot.
    if (sa.spi.load(std::memory_order_acquire) != item.spi || item.spi == 0) {
        // Not to us: another host's ESP that passes by (the host decides), not a wrong SPI of ours.
        if (!context_.ours.contains(item.frame + view.destination_at(), view.v6)) {
            context_.counters.in_other.add();
            result.to_host.push(item.m);
        } else {
            drops_.add(item.m, DropReason::unknown_spi);
        }
        return;
    }
    const bool encapsulated = (sa.form & InboundSa::encapsulated) != 0;
    if (encapsulated != item.encapsulated) [[unlikely]] {
        drops_.add(item.m, DropReason::encapsulation);
        return;
    }
    // Behind a NAT the source may change: what is authentic says where the UE is now.
    if (view.v6 != ((sa.form & InboundSa::ipv6) != 0) ||
        (!encapsulated && !address_equals(item.frame + view.source_at(), sa.ue, view.v6)) ||
        !address_equals(item.frame + view.destination_at(), sa.ours, view.v6)) {
        drops_.add(item.m, DropReason::wrong_address);
        return;
    }
    // After lookup and addresses, so that forged ones cannot load another worker.
    if (const std::uint32_t owner = sa::SpiLayout::owner(item.spi);
        owner != context_.config.worker) {
        context_.counters.in_handed_over.add();
        result.to_worker.workers[result.to_worker.packets.count] = static_cast<std::uint8_t>(owner);
        result.to_worker.packets.push(item.m);
        return;
    }
    const EspGeometry& geometry = context_.geometry[sa.suite];
    const std::uint32_t size = view.end - view.l4;
    if (size < geometry.minimum()) {
        drops_.add(item.m, DropReason::esp_runt);
        return;
    }
    if (!geometry.aligned(size)) {
        drops_.add(item.m, DropReason::esp_alignment);
        return;
    }
    if (const ReplayVerdict verdict = replay_check(sa, item.sequence);
        verdict != ReplayVerdict::fresh) {
        drop_replay(item, verdict);
        return;
    }
    if (!host_would_take(item)) {
        drops_.add(item.m, DropReason::outer_header);
        return;
    }
    if (!make_linear(item.m)) {
        drops_.add(item.m, DropReason::not_linear);
        return;
    }
    CryptoJob& job = jobs_[sa.suite][job_counts_[sa.suite]++];
    job.esp = item.frame + view.l4;
    for (std::uint32_t at = 64; at < size && at <= payload_prefetch; at += 64)
        __builtin_prefetch(job.esp + at, 0, 2);
    job.length = size - geometry.icv;
    job.tag = static_cast<std::uint32_t>(&item - items_.data());
    job.small_key = sa.small_key.data();
    job.schedule = context_.table.schedule(sa.suite, sa.schedule);
}

// What ESP does not authenticate must not decide whether the host takes the packet: who copies one
// off the wire and sends it again first, its IP header damaged, would have it entered in our
// window, refused by the host, and the phone's own dropped here as a replay.
bool InboundPath::host_would_take(const Item& item) const {
    const PacketView& view = item.view;
    const std::uint8_t* frame = item.frame;
    static constexpr std::array<std::uint8_t, 6> any{};
    const auto& mac = context_.config.host_mac;
    if (mac != any && std::memcmp(frame, mac.data(), mac.size()) != 0) return false;
    if (context_.config.verify_only) {  // the host sees the outer header as it is
        constexpr std::uint16_t ethernet = 14;
        constexpr std::uint16_t vlan = 4;
        // One tag without a VLAN's number is a priority only, which the host takes off.
        const bool priority_tag =
            view.l3 == ethernet + vlan && (load_be16(frame + ethernet) & 0x0FFFU) == 0;
        if (view.l3 != ethernet && !priority_tag) return false;
        if (view.l4 != view.l3 + (view.v6 ? 40 : 20)) return false;
    }
    if (view.v6) return true;
    // The sum over a sound header, its checksum included, is all ones.
    const std::size_t header = std::size_t{frame[view.l3] & 0x0FU} * 4;
    return ones_sum({frame + view.l3, header}) == 0xFFFF;
}

void InboundPath::fail_integrity(const Item& item, std::uint32_t now) {
    InboundSa& sa = *item.sa;
    sa.failures.add_saturating();
    // One event a second a set, whatever the flood. (The low octet of the second, one off so that 0
    // is "never": a pause of exactly 255 seconds may swallow one event of many.)
    const auto second = static_cast<std::uint8_t>(now % 255 + 1);
    if (sa.failure_second != second &&
        context_.report({sa::BackendEventKind::integrity_failure, false, sa.set - 1, item.spi})) {
        sa.failure_second = second;
    }
    drops_.add(item.m, DropReason::integrity);
}

void InboundPath::finish(const CryptoJob& job, const EspGeometry& geometry, std::uint32_t now,
                         InboundResult& result) {
    const Item& item = items_[job.tag];
    InboundSa& sa = *item.sa;
    if (!job.ok) {
        fail_integrity(item, now);
        return;
    }
    // Again: a duplicate may have come in the same burst.
    if (const ReplayVerdict verdict = replay_check(sa, item.sequence);
        verdict != ReplayVerdict::fresh) {
        drop_replay(item, verdict);
        return;
    }
    const bool forward = item.sequence > sa.highest.get();
    replay_advance(sa, item.sequence);

    // Authentic from here on.
    sa.packets.add();
    sa.bytes.add(job.length + geometry.icv);
    sa.last_use.set(now);
    if ((sa.flags & InboundSa::first_reported) == 0 &&
        context_.report(
            {sa::BackendEventKind::first_authentic_packet, false, sa.set - 1, item.spi})) {
        sa.flags |= InboundSa::first_reported;
    }
    if (item.sequence >= sequence_near_end && (sa.flags & InboundSa::sequence_reported) == 0 &&
        context_.report({sa::BackendEventKind::sequence_near_end, false, sa.set - 1, item.spi})) {
        sa.flags |= InboundSa::sequence_reported;
    }

    if (context_.config.verify_only) {
        finish_screened(job, geometry, result);
        return;
    }
    if (item.encapsulated) {
        if (forward) learn(item, now);
        finish_encapsulated(job, geometry, result);
        return;
    }
    const PacketView& view = item.view;
    const std::uint8_t* payload = job.esp + geometry.head();
    const std::uint32_t cleartext = job.length - geometry.head();
    const std::uint8_t next_header = payload[cleartext - 1];
    const std::uint32_t trailer = payload[cleartext - 2] + esp_trailer_size;
    if (const auto reason = wrong_inside(sa, {payload, cleartext})) {
        drops_.add(item.m, *reason);
        return;
    }
    const std::uint32_t size = cleartext - trailer;

    // Decapsulation in place: the headers move up to the payload, the trailer is cut off.
    std::uint8_t* ip = item.frame + view.l3;
    item.frame[view.next_header_at] = next_header;
    const auto old_length = load_be16(ip + (view.v6 ? 4 : 2));
    const auto new_length = static_cast<std::uint16_t>(old_length - (view.end - view.l4) + size);
    if (view.v6) {
        store_be16(ip + 4, new_length);
    } else {
        store_be16(ip + 2, new_length);
        // Incremental, so that a header that was damaged on the way stays damaged for the host.
        std::uint16_t checksum = checksum_update(load_be16(ip + 10), old_length, new_length);
        const auto ttl = static_cast<std::uint16_t>(ip[8] << 8U);
        checksum = checksum_update(checksum, static_cast<std::uint16_t>(ttl | protocol_esp),
                                   static_cast<std::uint16_t>(ttl | next_header));
        store_be16(ip + 10, checksum);
    }
    const std::uint32_t head = geometry.head();
    std::memmove(item.frame + head, item.frame, view.l4);
    rte_mbuf* m = item.m;
    m->data_off = static_cast<std::uint16_t>(m->data_off + head);
    m->data_len = static_cast<std::uint16_t>(view.l4 + size);
    m->pkt_len = m->data_len;
    context_.counters.in_authentic.add();
    context_.counters.in_authentic_bytes.add(job.length + geometry.icv);
    result.to_host.push(m);
}

// Only what is authentic and newer than all before it on its SA comes here: a forged packet cannot
// move the endpoint, nor one that was recorded, nor one that was overtaken.
void InboundPath::learn(const Item& item, std::uint32_t now) {
    NatPath& path = context_.table.nat_path(item.sa->set - 1);
    const bool by_us = (item.sa->form & InboundSa::from_port_us) != 0;
    const std::uint8_t* source = item.frame + item.view.source_at();
    const std::uint32_t address = load_be32(source);
    const std::uint16_t port = item.view.source_port;
    // Nobody can be written to there.
    if (port == 0 || !is_unicast(address) || context_.ours.contains(source, false)) return;
    const std::uint8_t* mac = item.frame + 6;
    const std::uint64_t link = (std::uint64_t{load_be16(mac)} << 32U) | load_be32(mac + 2);
    const std::uint64_t endpoint = NatPath::pack(address, port);
    const std::uint64_t before = path.endpoint.get();
    if (endpoint != before) {
        // Sequence numbers do not tell which of two SAs' packets is newer: soon after a move that
        // the other SA has shown, this one's may have been sent before it.
        if (before != 0 && by_us != path.moved_by_us && now - path.moved_at < NatPath::settling)
            return;
        if (before != 0) context_.counters.nat_moved.add();
        path.moved_at = now;
        path.moved_by_us = by_us;
        path.endpoint.set(endpoint);
    }
    if (link != path.link.get()) path.link.set(link);
}

// Tunnel mode in UDP: what goes to the host is the packet inside, under the address and port by
// which the host knows the UE.
void InboundPath::finish_encapsulated(const CryptoJob& job, const EspGeometry& geometry,
                                      InboundResult& result) {
    const Item& item = items_[job.tag];
    const InboundSa& sa = *item.sa;
    const NatPath& path = context_.table.nat_path(sa.set - 1);

    std::uint8_t* ip = job.esp + geometry.head();
    const std::uint32_t cleartext = job.length - geometry.head();
    const std::uint8_t next_header = ip[cleartext - 1];
    const std::uint32_t trailer = ip[cleartext - 2] + esp_trailer_size;
    if (trailer > cleartext) {
        drops_.add(item.m, DropReason::bad_padding);
        return;
    }
    if (next_header != protocol_ipv4) {
        drops_.add(item.m,
                   next_header == protocol_none ? DropReason::dummy : DropReason::next_header);
        return;
    }
    const bool server = (sa.form & InboundSa::from_port_us) != 0;
    const Ipv4Endpoint own{path.inner, server ? path.port_us : path.port_uc};
    const Ipv4Endpoint ours{first_four(sa.ours), sa.our_port};
    const std::span<const std::uint8_t> inside{ip, cleartext - trailer};
    const bool fragment = is_fragment(inside);
    const auto total =
        fragment ? inner_fragment_length(inside, own, ours) : inner_length(inside, own, ours);
    if (!total) {
        drops_.add(item.m, total.error());
        return;
    }
    take_over_congestion(item.frame[item.view.l3 + 1], ip);
    if (!fragment) translate_source(ip, {first_four(sa.ue), sa.ue_port});

    // The link header moves up to the packet; what was around it is cut off.
    const std::uint32_t link = item.view.l3;
    const auto cut = static_cast<std::uint32_t>(ip - item.frame) - link;
    std::memmove(item.frame + cut, item.frame, link);
    rte_mbuf* m = item.m;
    m->data_off = static_cast<std::uint16_t>(m->data_off + cut);
    m->data_len = static_cast<std::uint16_t>(link + *total);
    m->pkt_len = m->data_len;
    context_.counters.in_authentic.add();
    context_.counters.in_authentic_bytes.add(job.length + geometry.icv);
    if (fragment) [[unlikely]] {
        result.inner_fragments.spis[result.inner_fragments.packets.count] = item.spi;
        result.inner_fragments.packets.push(m);
        return;
    }
    result.to_host.push(m);
}

// The host must not do this: among fragments that came in clear it would not tell these apart.
void InboundPath::inner_whole(rte_mbuf* m, sa::Spi spi, InboundResult& result) {
    drops_.clear();
    std::uint8_t* frame = frame_of(m);
    const PacketView view = classify({frame, m->data_len});
    const InboundSa& sa = context_.table.slot_of(spi);
    if (sa.spi.load(std::memory_order_acquire) != spi) {  // it went meanwhile
        drops_.add(m, DropReason::unknown_spi);
    } else {
        const NatPath& path = context_.table.nat_path(sa.set - 1);
        const bool server = (sa.form & InboundSa::from_port_us) != 0;
        const Ipv4Endpoint own{path.inner, server ? path.port_us : path.port_uc};
        const auto total = inner_length({frame + view.l3, std::size_t{m->data_len} - view.l3}, own,
                                        {first_four(sa.ours), sa.our_port});
        if (total) {
            translate_source(frame + view.l3, {first_four(sa.ue), sa.ue_port});
            result.to_host.push(m);
        } else {
            drops_.add(m, total.error());
        }
    }
    drops_.free_all();
}

// Authentic and new: on to the host as it came. What its SA allows inside is looked at where it can
// be seen; under a cipher the host's XFRM does it, after decryption (A3).
void InboundPath::finish_screened(const CryptoJob& job, const EspGeometry& geometry,
                                  InboundResult& result) {
    const Item& item = items_[job.tag];
    if (sa::all_suites[item.sa->suite].encryption == sa::Encryption::null) {
        const std::span<const std::uint8_t> inside{job.esp + geometry.head(),
                                                   job.length - geometry.head()};
        if (const auto reason = wrong_inside(*item.sa, inside)) {
            drops_.add(item.m, *reason);
            return;
        }
    }
    context_.counters.in_authentic.add();
    context_.counters.in_authentic_bytes.add(job.length + geometry.icv);
    result.to_host.push(item.m);
}

}  // namespace gmgate::dataplane
