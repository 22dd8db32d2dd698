#include "ue/misbehaviour.h"

#include "base/bytes.h"

namespace gmgate::ue {

const std::array<MisbehaviourInfo, misbehaviour_count>& misbehaviours() {
    using enum Misbehaviour;
    static constexpr std::array<MisbehaviourInfo, misbehaviour_count> table{{
        {none, "none", "registers"},
        {wrong_ik, "wrong-ik", "no answer to SM7 (dropped before SIP, C1)"},
        {wrong_res, "wrong-res", "403 under the SAs (C2)"},
        {mac_failure, "mac-failure", "403, sent as SM1 was (C3)"},
        {sync_failure, "sync-failure", "a second challenge, then registered (C4)"},
        {silent_after_sm6, "silent-after-sm6", "nothing more from the network (C5)"},
        {altered_verify, "altered-verify", "a 4xx under the SAs, or no answer (C8)"},
        {altered_client, "altered-client", "a 4xx under the SAs, or no answer (C8)"},
        {no_security_client, "no-security-client", "421 or another 4xx to SM1 (C6)"},
        {bad_proposal, "bad-proposal", "494 or another 4xx to SM1 (C6)"},
        {replay, "replay", "no second answer, and good packets still pass"},
        {forged_esp, "forged-esp", "no answer, and good packets still pass"},
        {unknown_spi, "unknown-spi", "no answer, and good packets still pass"},
        {clear_on_protected, "clear-on-protected", "no answer, and good packets still pass (A6)"},
    }};
    return table;
}

const MisbehaviourInfo& info(Misbehaviour kind) {
    return misbehaviours()[static_cast<std::size_t>(kind)];
}

std::optional<Misbehaviour> parse_misbehaviour(std::string_view text) {
    for (const auto& m : misbehaviours()) {
        if (iequals(m.name, text)) return m.kind;
    }
    return std::nullopt;
}

}  // namespace gmgate::ue
