#pragma once
// Why the packet layer throws a packet away: one counter each, per worker. The catalogue is the
// X-macro, so that the metrics, the CLI and the tests cannot forget one.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gmgate::dataplane {

// name, help: what happened, as an operator should read it.
#define GMGATE_DROP_REASONS(X)                                                                 \
    X(malformed_ip,                                                                            \
      "IP header truncated, of a wrong version, or with lengths that do not fit the frame")    \
    X(extension_headers, "more IPv6 extension headers than the limit, or a truncated one")     \
    X(malformed_transport,                                                                     \
      "UDP or TCP header truncated or with lengths that do not fit the packet")                \
    X(not_linear, "packet in several buffers that cannot be joined, or in a shared buffer")    \
    X(cleartext_protected_port,                                                                \
      "unprotected packet for a protected port, or an ICMP error about one (A6)")              \
    X(not_for_gm,                                                                              \
      "unprotected packet from the phones' side for an address of this host on another side")  \
    X(esp_runt, "ESP too short for header, IV, trailer and ICV of its SA")                     \
    X(esp_alignment, "ESP payload not a multiple of the cipher's block")                       \
    X(unknown_spi, "ESP with an SPI no SA of ours has, a removed one included")                \
    X(wrong_address, "ESP from or to another address than its SA's")                           \
    X(replay, "ESP sequence number seen before (A1)")                                          \
    X(replay_too_old, "ESP sequence number below the replay window, or zero")                  \
    X(integrity, "ESP whose ICV does not verify: forged, damaged, or a wrong key (C1)")        \
    X(bad_padding, "authentic ESP whose pad length is larger than its payload")                \
    X(dummy, "authentic dummy packet, next header 59 (A1)")                                    \
    X(next_header, "authentic ESP that carries neither UDP nor TCP (A3)")                      \
    X(selector,                                                                                \
      "authentic ESP whose inner ports or transport header are not those of its SA (A3)")      \
    X(encapsulation,                                                                           \
      "ESP in UDP for an SA without a NAT, or not in UDP for one behind a NAT (N1)")           \
    X(inner_header,                                                                            \
      "authentic ESP of a phone behind a NAT whose inner IP header is damaged or not the "     \
      "phone's (A3, N1)")                                                                      \
    X(not_esp_in_udp, "neither ESP nor keep-alive on UDP port 4500: IKE, IPv6 or too short")   \
    X(outer_header,                                                                            \
      "ESP under an IP or link header the host would refuse (bad checksum, another station's " \
      "address; screen: also options, extension headers, VLAN): it never reaches the replay "  \
      "window")                                                                                \
    X(outbound_no_sa, "packet of the host from a protected port without an SA (A6)")           \
    X(outbound_sequence_exhausted, "outbound SA at the end of its sequence numbers (D7)")      \
    X(outbound_no_room,                                                                        \
      "no room in the buffer for the ESP header or trailer, or the packet grew beyond 64 KiB") \
    X(outbound_no_endpoint,                                                                    \
      "packet for a phone behind a NAT of which nothing authentic has come yet (N1)")          \
    X(outbound_icmp_quote,                                                                     \
      "ICMP error of the host that would quote a protected packet in clear (A6)")              \
    X(crypto,                                                                                  \
      "the crypto library refused a job: a fault of the program or the machine, never of the " \
      "packet")

enum class DropReason : std::uint8_t {
#define GMGATE_X(name, help) name,
    GMGATE_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
};

inline constexpr std::size_t drop_reason_count = 0
#define GMGATE_X(name, help) +1
    GMGATE_DROP_REASONS(GMGATE_X)
#undef GMGATE_X
    ;

// "unknown_spi": the label of the metric and the word of the CLI.
[[nodiscard]] std::string_view name(DropReason reason);
[[nodiscard]] std::string_view help(DropReason reason);

}  // namespace gmgate::dataplane
