// The classifier on anything a wire can bring: it must stay inside the frame, and what it says must
// be true of it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "dataplane/core/classifier.h"
#include "dataplane/core/udp_encapsulation.h"

namespace {

void check(bool truth) {
    if (!truth) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gmgate::dataplane;
    if (size > 20000) return 0;
    // In a block of exactly this size, so that one octet too far is seen.
    const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[size]);
    for (std::size_t i = 0; i < size; ++i) exact[i] = data[i];
    const std::span<const std::uint8_t> frame(exact.get(), size);
    const PacketView v = classify(frame);
    if (v.ip) {
        check(v.end <= size);
        check(v.l3 < v.end);
        const std::size_t address = v.v6 ? 16 : 4;
        check(v.source_at() + address <= v.end && v.destination_at() + address <= v.end);
        check(v.kind == PacketKind::extension_headers ||
              (v.l4 > v.l3 && v.l4 <= v.end && v.next_header_at < v.end));
    } else {
        check(v.kind == PacketKind::other || v.kind == PacketKind::malformed_ip);
    }
    switch (v.kind) {
        case PacketKind::esp:
            check(v.protocol == protocol_esp && v.end - v.l4 >= 8 &&
                  frame[v.next_header_at] == protocol_esp);
            break;
        case PacketKind::udp: {
            check(v.protocol == protocol_udp && v.end - v.l4 >= 8);
            PacketView inside = v;
            if (look_into(frame, inside) != Encapsulated::esp) break;
            check(inside.l4 == v.l4 + 8 && inside.end <= v.end && inside.end - inside.l4 >= 8);
            // As if it had been decrypted: the packet inside, under the addresses it names itself.
            const auto payload = std::span(exact.get(), size).subspan(inside.l4 + 8U);
            if (payload.size() < 24) break;
            Ipv4Endpoint ue, ours;
            std::copy_n(payload.begin() + 12, 4, ue.address.begin());
            std::copy_n(payload.begin() + 16, 4, ours.address.begin());
            ue.port = static_cast<std::uint16_t>((payload[20] << 8U) | payload[21]);
            ours.port = static_cast<std::uint16_t>((payload[22] << 8U) | payload[23]);
            const auto length = inner_length(payload, ue, ours);
            if (!length) break;
            check(*length <= payload.size());
            take_over_congestion(3, payload.data());
            const Ipv4Endpoint label{{203, 0, 113, 7}, 4711};
            translate_source(payload.data(), label);
            translate_destination(payload.data(), ue);
            check(inner_length(payload, label, ue) == *length);
            break;
        }
        case PacketKind::tcp:
            check(v.protocol == protocol_tcp && v.end - v.l4 >= 20);
            break;
        case PacketKind::icmp: {
            const auto q = quoted_flow(frame, v);
            check(!q || q->destination_at + (q->v6 ? 16U : 4U) <= v.end);
            break;
        }
        default:
            break;
    }
    return 0;
}
