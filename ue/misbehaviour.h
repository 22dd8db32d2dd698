#pragma once
// What a phone can be told to do wrong, and what a right gateway then does (SPEC C, A6, B7, RFC
// 4303 3.4).

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gmgate::ue {

enum class Misbehaviour : std::uint8_t {
    none,
    wrong_ik,            // C1: SM7 under other keys; no answer
    wrong_res,           // C2: right keys, wrong answer; 403
    mac_failure,         // C3: refuses the network: empty response, no auts; 403 as SM1 came
    sync_failure,        // C4: auts; challenged again, and registered
    silent_after_sm6,    // C5: never sends SM7; no answer
    altered_verify,      // C8: Security-Verify is not the list it was sent; refused or no answer
    altered_client,      // C8: Security-Client of SM7 is not that of SM1; refused or no answer
    no_security_client,  // C6: 421
    bad_proposal,        // C6: nothing acceptable offered; 494
    replay,              // RFC 4303: packets sent again; no second answer, good ones pass
    forged_esp,          // bad ICVs under a live SPI; no answer, good ones pass
    unknown_spi,         // ESP nobody has an SA for; no answer, good ones pass
    clear_on_protected,  // A6: clear SIP to port_ps; no answer, good ones pass
    malformed_client,    // C6: a Security-Client nobody can read; 400
    refuse_proposal,     // C7: abandons the registration at SM6; no answer
    stale_answer,        // C10: answers an earlier challenge on the SAs of the latest; refused
    claim_integrity,     // A11: writes integrity-protected="yes" itself; challenged as ever
    same_port_uc,        // A5, B6: renews with the client port it has; refused on the SA in use
    wrong_via,           // B6: names another address in Via under its SA; refused
    near_sequence_end,   // D7: its ESP starts near 2^32; registered, the set is then retired
};
inline constexpr std::size_t misbehaviour_count = 21;

struct MisbehaviourInfo {
    Misbehaviour kind;
    std::string_view name;      // as on the command line
    std::string_view rule;      // the rule's id
    std::string_view expected;  // what a right gateway does, for people
};
[[nodiscard]] const std::array<MisbehaviourInfo, misbehaviour_count>& misbehaviours();
[[nodiscard]] const MisbehaviourInfo& info(Misbehaviour kind);
// Done by a phone that is registered.
[[nodiscard]] bool is_attack(Misbehaviour kind);
// After this SM7 a right gateway is silent, or need not answer.
[[nodiscard]] bool expects_silence(Misbehaviour kind);
[[nodiscard]] std::optional<Misbehaviour> parse_misbehaviour(std::string_view text);
// The catalogue, a line each: name, rule, what a right gateway does.
[[nodiscard]] std::string misbehaviour_list();

}  // namespace gmgate::ue
