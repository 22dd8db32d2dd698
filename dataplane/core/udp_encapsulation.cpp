#include "dataplane/core/udp_encapsulation.h"

#include <cstring>

#include "base/bytes.h"
#include "dataplane/core/checksum.h"

namespace gmgate::dataplane {
namespace {

constexpr std::uint8_t keepalive_octet = 0xFF;
constexpr std::uint8_t version_and_length = 0x45;
constexpr std::uint32_t source_at = 12;
constexpr std::uint32_t destination_at = 16;
constexpr std::uint8_t ecn_mask = 3;
constexpr std::uint8_t congestion = 3;
constexpr std::uint8_t outer_ttl = 64;

// Changes of 16-bit words, for all checksums that cover them.
class Words {
  public:
    void change(std::uint16_t old_word, std::uint16_t new_word) {
        old_[count_] = old_word;
        new_[count_++] = new_word;
    }
    [[nodiscard]] std::uint16_t apply(std::uint16_t checksum) const {
        for (std::size_t i = 0; i < count_; ++i)
            checksum = checksum_update(checksum, old_[i], new_[i]);
        return checksum;
    }

  private:
    std::array<std::uint16_t, 3> old_{};
    std::array<std::uint16_t, 3> new_{};
    std::size_t count_ = 0;
};

void translate(std::uint8_t* ip, std::uint32_t address_at, std::uint32_t port_at,
               const Ipv4Endpoint& to) {
    Words words;
    for (std::uint32_t i = 0; i < 4; i += 2)
        words.change(load_be16(ip + address_at + i), load_be16(to.address.data() + i));
    std::memcpy(ip + address_at, to.address.data(), 4);
    store_be16(ip + 10, words.apply(load_be16(ip + 10)));

    std::uint8_t* segment = ip + inner_header_size;
    words.change(load_be16(segment + port_at), to.port);
    store_be16(segment + port_at, to.port);
    const bool udp = ip[9] == protocol_udp;
    std::uint8_t* field = segment + (udp ? 6 : 16);
    const std::uint16_t old = load_be16(field);
    if (udp && old == 0) return;
    const std::uint16_t sum = words.apply(old);
    store_be16(field, udp && sum == 0 ? std::uint16_t{0xFFFF} : sum);
}

}  // namespace

Encapsulated look_into(std::span<const std::uint8_t> frame, PacketView& view) {
    const std::uint32_t length = load_be16(frame.data() + view.l4 + 4);
    if (length < udp_header_size || length > view.end - view.l4) return Encapsulated::malformed;
    const std::uint8_t* payload = frame.data() + view.l4 + udp_header_size;
    const std::uint32_t size = length - udp_header_size;
    if (size == 1 && payload[0] == keepalive_octet) return Encapsulated::keepalive;
    if (view.v6 || size < 8 || load_be32(payload) == 0) return Encapsulated::other;
    view.end = view.l4 + length;
    view.l4 = static_cast<std::uint16_t>(view.l4 + udp_header_size);
    return Encapsulated::esp;
}

bool is_fragment(std::span<const std::uint8_t> payload) {
    return payload.size() >= inner_header_size && (load_be16(payload.data() + 6) & 0x3FFFU) != 0;
}

std::expected<std::uint32_t, DropReason> inner_fragment_length(
    std::span<const std::uint8_t> payload, const Ipv4Endpoint& ue, const Ipv4Endpoint& ours) {
    const std::uint8_t* ip = payload.data();
    if (payload.size() < inner_header_size || ip[0] != version_and_length)
        return std::unexpected(DropReason::inner_header);
    const std::uint32_t total = load_be16(ip + 2);
    if (total <= inner_header_size || total > payload.size() ||
        std::memcmp(ip + source_at, ue.address.data(), 4) != 0 ||
        std::memcmp(ip + destination_at, ours.address.data(), 4) != 0 ||
        ones_sum({ip, inner_header_size}) != 0xFFFF) {
        return std::unexpected(DropReason::inner_header);
    }
    if (ip[9] != protocol_udp && ip[9] != protocol_tcp)
        return std::unexpected(DropReason::next_header);
    return total;
}

std::expected<std::uint32_t, DropReason> inner_length(std::span<const std::uint8_t> payload,
                                                      const Ipv4Endpoint& ue,
                                                      const Ipv4Endpoint& ours) {
    if (is_fragment(payload)) return std::unexpected(DropReason::inner_header);
    const auto total = inner_fragment_length(payload, ue, ours);
    if (!total) return total;
    const std::uint8_t* ip = payload.data();
    const std::uint8_t protocol = ip[9];
    const std::uint8_t* segment = ip + inner_header_size;
    if (*total - inner_header_size < (protocol == protocol_udp ? 8U : 20U) ||
        load_be16(segment) != ue.port || load_be16(segment + 2) != ours.port) {
        return std::unexpected(DropReason::selector);
    }
    return total;
}

void translate_source(std::uint8_t* ip, const Ipv4Endpoint& to) {
    translate(ip, source_at, 0, to);
}
void translate_destination(std::uint8_t* ip, const Ipv4Endpoint& to) {
    translate(ip, destination_at, 2, to);
}

void take_over_congestion(std::uint8_t outer_tos, std::uint8_t* inner_ip) {
    const std::uint8_t inner = inner_ip[1] & ecn_mask;
    if ((outer_tos & ecn_mask) != congestion || inner == 0 || inner == congestion) return;
    const std::uint16_t old = load_be16(inner_ip);
    inner_ip[1] = static_cast<std::uint8_t>(inner_ip[1] | congestion);
    store_be16(inner_ip + 10, checksum_update(load_be16(inner_ip + 10), old, load_be16(inner_ip)));
}

void write_outer_headers(std::uint8_t* at, std::uint32_t length, std::uint8_t tos,
                         std::uint16_t identification, const std::array<std::uint8_t, 4>& ours,
                         const Ipv4Endpoint& to) {
    at[0] = version_and_length;
    at[1] = tos;
    store_be16(at + 2, static_cast<std::uint16_t>(length));
    store_be16(at + 4, identification);
    store_be16(at + 6, 0);
    at[8] = outer_ttl;
    at[9] = protocol_udp;
    std::memcpy(at + source_at, ours.data(), 4);
    std::memcpy(at + destination_at, to.address.data(), 4);
    store_be16(at + 10, ipv4_header_checksum({at, inner_header_size}));
    std::uint8_t* udp = at + inner_header_size;
    store_be16(udp, encapsulation_port);
    store_be16(udp + 2, to.port);
    store_be16(udp + 4, static_cast<std::uint16_t>(length - inner_header_size));
    store_be16(udp + 6, 0);
}

bool is_unicast(std::uint32_t ipv4) {
    const std::uint32_t first = ipv4 >> 24U;
    return first != 0 && first != 127 && first < 224;
}

}  // namespace gmgate::dataplane
