#pragma once
// Security-Client, Security-Server and Security-Verify (RFC 3329, TS 33.203 Annex H; A7, A8, C8),
// by meaning.
//
// The parser takes any order, any case, blanks, folds, unknown parameters and zero-padded numbers;
// a list has a fixed capacity and never allocates. Keys are no part of this. Pure values, any
// thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "control/sip/message.h"
#include "sa/types.h"

namespace gmgate::secagree {

enum class Verdict : std::uint8_t {
    accept,  // ipsec-3gpp, understood, all numbers there and in range
    skip,  // well-formed, but not for us: digest, tls, another alg, prot=ah, mod=tun … never chosen
    malformed,  // ipsec-3gpp with something missing, twice, or out of range: the request is
                // answered 400 (C6)
};

enum class Mode : std::uint8_t { transport, udp_enc_tun, other };  // "trans", "UDP-enc-tun" (N1)

// Why a mechanism is skip or malformed.
enum class Fault : std::uint8_t {
    none,
    unknown_mechanism,  // skip
    unknown_algorithm,  // skip: alg or ealg (or their combination) is none of A9
    unknown_protocol,   // skip: prot is not esp
    unknown_mode,       // skip: mod is neither trans nor UDP-enc-tun
    syntax,             // malformed: not token *(;param), a parameter twice, an unreadable q
    no_alg,             // malformed
    no_spi,             // malformed: spi-c or spi-s missing
    bad_spi,            // malformed: not a number in 1 … 2^32-1, or both the same
    no_port,            // malformed: port-c or port-s missing
    bad_port,           // malformed: not a number in 1 … 65535, 5060 or 5061, or both the same
};
[[nodiscard]] std::string_view text(Fault fault);

struct Mechanism {
    Verdict verdict = Verdict::skip;
    Fault fault = Fault::unknown_mechanism;
    sa::Suite suite;        // valid with accept; ealg absent: null encryption
    bool has_ealg = false;  // ealg was written
    Mode mode = Mode::transport;
    sa::Spi spi_c =
        0;  // 1 … 2^32-1 with accept. A UE may use any but 0: 1–255 are reserved by the IANA, yet
    sa::Spi spi_s = 0;    // they index the UE's own table, so they do not harm us.
    sa::Port port_c = 0;  // 1 … 65535, not 5060/5061
    sa::Port port_s = 0;
    std::uint16_t q = 1000;  // thousandths; 1000 when absent
    // Of the mechanism's name and everything else it says that has no field here, in any order: two
    // mechanisms mean the same if all fields and this agree.
    std::uint64_t rest = 0;

    // Same meaning; q is not compared (it only orders).
    [[nodiscard]] bool same_meaning(const Mechanism& other) const;
};

class MechanismList {
  public:
    // Real phones send up to 6, we send up to 8; with both modes 16. More than this is refused
    // whole.
    static constexpr std::size_t capacity = 32;

    // Reads every line of that header; a second call starts anew. Absent header: empty().
    void parse(const sip::Message& message, sip::HeaderId id);
    // One header value (all mechanisms of a line); adds to what is there.
    void add(std::string_view value);
    void clear();

    [[nodiscard]] bool empty() const { return count_ == 0 && !too_many_ && !unbalanced_; }
    [[nodiscard]] std::span<const Mechanism> mechanisms() const { return {items_.data(), count_}; }
    [[nodiscard]] bool too_many() const { return too_many_; }
    // The first malformed mechanism, nullptr if none; C6 answers such a header with 400 even if
    // others in it are fine, because a header cut short in transit (seen from real phones) must not
    // pick what happens to be left.
    [[nodiscard]] const Mechanism* malformed() const;
    [[nodiscard]] bool is_malformed() const {
        return too_many_ || unbalanced_ || malformed() != nullptr;
    }

  private:
    std::array<Mechanism, capacity> items_{};
    std::size_t count_ = 0;
    bool too_many_ = false;
    bool unbalanced_ = false;
};

// One mechanism, as between two commas.
[[nodiscard]] Mechanism parse_mechanism(std::string_view text);

// ---- the choice (A8) ----
struct ChoicePolicy {
    std::span<const sa::Suite> order{};  // our list, most preferred first
    bool ealg_absent_is_null = true;     // false: a mechanism without ealg is not taken
    bool udp_enc_tun =
        false;  // behind a NAT: only UDP-enc-tun is taken; otherwise only transport (N1)
};
struct Choice {
    sa::Suite suite;
    Mechanism mechanism;  // the UE's, with its SPIs and ports
};
enum class OfferError : std::uint8_t {
    absent,        // 421, Require: sec-agree
    malformed,     // 400
    too_many,      // 400
    unacceptable,  // 494, with our Security-Server
};
[[nodiscard]] std::string_view text(OfferError error);
[[nodiscard]] int response_code(OfferError error);
// The first pair of our list that the UE offers; among several offers of that pair the first.
[[nodiscard]] std::expected<Choice, OfferError> choose(const MechanismList& offer,
                                                       const ChoicePolicy& policy);

// ---- what we send, and whether it came back (C8) ----
// What a Security-Server said: our list in order, with one set of SPIs and ports for all.
struct ServerList {
    std::span<const sa::Suite> order;  // as sent, most preferred first
    sa::Spi spi_c = 0, spi_s = 0;      // ours: spi_pc, spi_ps
    sa::Port port_c = 0, port_s = 0;   // ours: port_pc, port_ps
    Mode mode = Mode::transport;
    // From the four SAs' numbers (A2).
    static ServerList of(std::span<const sa::Suite> order, const sa::SaNumbers& n,
                         Mode mode = Mode::transport) {
        return {order, n.spi_pc, n.spi_ps, n.port_pc, n.port_ps, mode};
    }
};
// Value of the header (no name, no CRLF): every pair, q descending, prot and mod written out.
[[nodiscard]] std::string security_server(const ServerList& list);
// The same form for a UE's Security-Client (gmue) with or without q.
[[nodiscard]] std::string security_client(const ServerList& list, bool with_q = false);

enum class VerifyResult : std::uint8_t {
    equal,
    absent,
    malformed,
    different_list,
    different_order,
    different_numbers
};
[[nodiscard]] std::string_view text(VerifyResult result);
// Security-Verify against what we sent: same mechanisms by meaning, same order of preference (by q,
// then by place), our SPIs and ports. Nothing in `verify` is ever taken over (C8).
[[nodiscard]] VerifyResult check_verify(const MechanismList& verify, const ServerList& sent);
// SM7's Security-Client against SM1's: the same mechanisms by meaning, in any order.
[[nodiscard]] bool same_offer(const MechanismList& a, const MechanismList& b);

}  // namespace gmgate::secagree
