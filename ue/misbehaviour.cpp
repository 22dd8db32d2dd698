#include "ue/misbehaviour.h"

#include <fmt/format.h>

#include <iterator>

#include "base/bytes.h"

namespace gmgate::ue {

const std::array<MisbehaviourInfo, misbehaviour_count>& misbehaviours() {
    using enum Misbehaviour;
    static constexpr std::array<MisbehaviourInfo, misbehaviour_count> table{{
        {none, "none", "", "registers"},
        {wrong_ik, "wrong-ik", "C1", "no answer to SM7: dropped before SIP"},
        {wrong_res, "wrong-res", "C2", "403 under the SAs"},
        {mac_failure, "mac-failure", "C3", "403, sent as SM1 was"},
        {sync_failure, "sync-failure", "C4", "a second challenge, then registered"},
        {silent_after_sm6, "silent-after-sm6", "C5", "nothing more from the network"},
        {altered_verify, "altered-verify", "C8", "a 4xx under the SAs, or no answer"},
        {altered_client, "altered-client", "C8", "a 4xx under the SAs, or no answer"},
        {no_security_client, "no-security-client", "C6", "421 or another 4xx to SM1"},
        {bad_proposal, "bad-proposal", "C6", "494 or another 4xx to SM1"},
        {replay, "replay", "A1", "no second answer, and good packets still pass"},
        {forged_esp, "forged-esp", "C1", "no answer, and good packets still pass"},
        {unknown_spi, "unknown-spi", "A1", "no answer, and good packets still pass"},
        {clear_on_protected, "clear-on-protected", "A6", "no answer, and good packets still pass"},
        {malformed_client, "malformed-client", "C6", "400 or another 4xx to SM1"},
        {refuse_proposal, "refuse-proposal", "C7", "nothing more from the network"},
        {stale_answer, "stale-answer", "C10", "the answer to the voided challenge is refused"},
        {claim_integrity, "claim-integrity", "A11", "challenged and registered as if it had not"},
        {same_port_uc, "same-port-uc", "B6", "its renewal is refused; the old SAs carry on"},
        {wrong_via, "wrong-via", "B6", "403 to SM7"},
        {near_sequence_end, "near-sequence-end", "D7", "registered; the set is then retired"},
    }};
    return table;
}

const MisbehaviourInfo& info(Misbehaviour kind) {
    return misbehaviours()[static_cast<std::size_t>(kind)];
}

bool is_attack(Misbehaviour m) {
    return m == Misbehaviour::replay || m == Misbehaviour::forged_esp ||
           m == Misbehaviour::unknown_spi || m == Misbehaviour::clear_on_protected ||
           m == Misbehaviour::same_port_uc;
}

bool expects_silence(Misbehaviour m) {
    return m == Misbehaviour::wrong_ik || m == Misbehaviour::altered_verify ||
           m == Misbehaviour::altered_client;
}

std::optional<Misbehaviour> parse_misbehaviour(std::string_view text) {
    for (const auto& m : misbehaviours()) {
        if (iequals(m.name, text)) return m.kind;
    }
    return std::nullopt;
}

std::string misbehaviour_list() {
    std::string out;
    for (const auto& m : misbehaviours()) {
        if (m.kind == Misbehaviour::none) continue;
        fmt::format_to(std::back_inserter(out), "  {:<19} {:<4} {}\n", m.name, m.rule, m.expected);
    }
    return out;
}

}  // namespace gmgate::ue
