#pragma once
// RFC 3329 as the phone sees it: Security-Client as real handsets write it, the list of
// Security-Server, the choice (A8), and Security-Verify. A parser of its own, so that the gateway's
// is checked by another reading of the same rules (A7).

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "sa/algorithms/suite.h"
#include "ue/sa_numbers.h"

namespace gmgate::ue {

// Whose handwriting the headers are in. All carry the same meaning.
enum class Style : std::uint8_t {
    plain,     // ipsec-3gpp; alg=…; ealg=…; spi-c=… one header, RFC order
    samsung,   // prot and mod first, alg and ealg last, one header
    qualcomm,  // "; " as separator, no prot/mod in Client, compact header names; Verify rebuilt:
               // alg;prot;mod;ealg;spi;port
    mediatek,  // spi and port before ealg before alg, q last in Verify
    google,    // one header a mechanism, SPIs padded to ten digits, q first in Verify
};
inline constexpr std::array<Style, 5> all_styles{Style::plain, Style::samsung, Style::qualcomm,
                                                 Style::mediatek, Style::google};
[[nodiscard]] std::string_view name(Style style);
[[nodiscard]] std::optional<Style> parse_style(std::string_view text);

// Header lines with CRLF: "Security-Client: …".
// `nat`: each suite also with mod=UDP-enc-tun (TS 33.203 Annex M); the P-CSCF takes that or the
// other by whether it finds a NAT.
[[nodiscard]] std::string security_client(Style style, std::span<const sa::Suite> suites, Spi spi_c,
                                          Spi spi_s, Port port_c, Port port_s, bool nat = false);

// One mechanism of Security-Server, as it came.
struct Mechanism {
    std::string name;
    std::vector<std::pair<std::string, std::string>> parameters;  // names lower-case, order kept
    std::optional<sa::Suite> suite;  // ipsec-3gpp, ESP, a mode and algorithms we know; else nullopt
    bool encapsulated = false;       // mod=UDP-enc-tun
    std::uint16_t q = 1000;          // thousandths; absent counts as 1
    Spi spi_c = 0, spi_s = 0;
    Port port_c = 0, port_s = 0;
};

// The values of all Security-Server lines, each value one mechanism with its parameters. Bounded:
// more than 64 mechanisms or 32 parameters are an error, as is a number that is none.
[[nodiscard]] Result<std::vector<Mechanism>> parse_security_server(
    std::span<const std::string_view> values);

// A8: by preference (q, then order), the first whose suite is among `supported`. nullptr: none
// (C7). `nat`: UDP-enc-tun is supported too.
[[nodiscard]] const Mechanism* choose(std::span<const Mechanism> offered,
                                      std::span<const sa::Suite> supported, bool nat = false);

// What the P-CSCF said, written back in the phone's own hand. The order of mechanisms is kept.
[[nodiscard]] std::string security_verify(Style style, std::span<const Mechanism> offered);

// The same with the four numbers of `chosen` taken out, so that thousands of phones share one text;
// expand_verify() puts numbers in: spi_pc, spi_ps, port_pc and port_ps of `numbers`.
[[nodiscard]] std::string verify_template(Style style, std::span<const Mechanism> offered,
                                          const Mechanism& chosen);
[[nodiscard]] std::string expand_verify(Style style, std::string_view text,
                                        const SaNumbers& numbers);

}  // namespace gmgate::ue
