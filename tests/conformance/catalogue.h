#pragma once
// The rules gmgate is held to, by id. The texts are short reminders; what is right in detail stands
// in the 3GPP and IETF documents named at the head of each group. Tests are named by these ids:
// TEST(A4, SpisAreUnique).

#include <array>
#include <string_view>
#include <vector>

namespace gmgate::conformance {

struct Rule {
    std::string_view id;
    std::string_view text;
    // Of a rule for every component: those that have to show their share, for there is no test of
    // the whole. With each of them shown the rule is.
    std::vector<std::string_view> shares{};
};

inline const std::array catalogue{
    // Parameters and negotiation: TS 33.203 clauses 7.1, 7.2, Annexes H and I; RFC 3329.
    Rule{"A1", "ESP in transport mode with anti-replay, no dummy packets; only SIP ends an SA"},
    Rule{"A2",
         "Four SAs a set, one key pair for all, shared by UDP and TCP, ports and SPIs as the table "
         "says"},
    Rule{"A3", "Selectors: the address pair of the first REGISTER, the two ports, UDP or TCP"},
    Rule{"A4",
         "Our SPIs are unique, above 255, different from the UE's, and rest before they are used "
         "again"},
    Rule{"A5", "port_ps stays, port_pc changes, neither is 5060 or 5061"},
    Rule{"A6", "Nothing in clear on protected ports; on unprotected ports only what may be there"},
    Rule{"A7",
         "Security-Client, -Server and -Verify are read in every legal form and compared by "
         "meaning"},
    Rule{"A8",
         "The first pair of our list that the UE offers is chosen; Security-Server shows our whole "
         "list"},
    Rule{"A9", "Every algorithm pair of the profile, and no other pair"},
    Rule{"A10", "ESP keys and salts are expanded from CK and IK as Annex I says"},
    Rule{"A11", "The integrity indicator to the S-CSCF is ours and true"},
    // Set-up: TS 33.203 clauses 6.1.1, 7.2; TS 24.229 clause 5.2.
    Rule{"B1", "SM1: the security line is kept with source address, IMPI and IMPU"},
    Rule{"B2",
         "SM6: keys are taken out of the challenge, four SAs are live before it leaves, all or "
         "none"},
    Rule{"B3", "A challenge replaces the SAs of an unfinished procedure"},
    Rule{"B4", "SM7 comes on the new SA, matches SM1 and SM6, and loses its security headers"},
    Rule{"B5",
         "SM12: lifetime is the later of old and granted plus 30 s; routes and identities are "
         "stored"},
    Rule{"B6",
         "Addresses are checked, (UE address, port_uc) is free, at most six SAs per direction"},
    Rule{"B7",
         "The SA of a message is found by its addresses and ports; another user's message is "
         "discarded"},
    // Error cases: TS 33.203 clauses 6.1.2, 6.1.3, 7.3.
    Rule{"C1", "Wrong IK: dropped in the packet layer; forged packets never end a procedure"},
    Rule{"C2", "Wrong RES: 403 to the UE, the new SAs go"},
    Rule{"C3", "Network authentication failure: the new SAs go on receipt"},
    Rule{"C4", "Synchronisation failure: the new SAs go, the second round can succeed"},
    Rule{"C5", "No SM7: everything of the procedure goes at reg-await-auth"},
    Rule{"C6", "A proposal we cannot accept is refused with the right answer, and nothing is kept"},
    Rule{"C7", "A proposal the UE cannot accept: as no SM7"},
    Rule{"C8", "A failed consistency check aborts the procedure and touches nothing else"},
    Rule{"C9", "A failed authentication never deregisters"},
    Rule{"C10", "A new challenge voids the earlier one at the S-CSCF"},
    Rule{"C11", "An unreachable or failing core: the UE is told, nothing leaks"},
    Rule{"C12", "An install that fails half way is undone, SM6 is not sent"},
    // Re-registration and lifetimes: TS 33.203 clauses 7.4, 7.5.
    Rule{"D1", "SM1 in clear: all old sets go after SM12"},
    Rule{"D2", "SM1 on an old set: that set is kept until traffic has moved"},
    Rule{"D3", "200 without a challenge extends the set in use"},
    Rule{"D4", "All identities deregistered: all SAs go, after the last message"},
    Rule{"D5", "A new address: sets of the old one go at SM12"},
    Rule{"D6", "Failures of a protected re-registration travel on the old set, which stays"},
    Rule{"D7", "A set is retired before its sequence numbers wrap"},
    // P-CSCF procedures: TS 24.229 clause 5.2; RFC 3261, 3327, 3608, 3680.
    Rule{"E1", "REGISTER: Path, visited network, charging vector, integrity indicator"},
    Rule{"E2", "Requests from a UE: Service-Route, asserted identity, security headers stripped"},
    Rule{"E3", "Requests to a UE: only on its live set"},
    Rule{"E4", "Transactions, Max-Forwards, loops and error answers as RFC 3261 has them"},
    Rule{"E5", "The registration event package is subscribed to and obeyed"},
    Rule{"E6", "IPv4 and IPv6, UDP and TCP, fragments and large messages"},
    // Network-initiated re-authentication: TS 24.229; TS 33.203 clause 6.1.4.
    Rule{"F1", "Every subscribed dialog hears which identities to re-authenticate"},
    Rule{"F2", "Both forms of the NOTIFY's body"},
    Rule{"F3", "Waiting, other ways, and deregistration in the end"},
    Rule{"F4", "The NOTIFY reaches the UE on its SA, the SAs outlive it"},
    // NAT: TS 33.203 Annex M.
    Rule{"N1", "UDP-encapsulated ESP behind a NAT, refused without"},
    // Security.
    Rule{"S1",
         "Keys are wiped, and never seen",
         {"packet layer", "sa", "control", "operator", "home", "ue"}},
    Rule{"S2",
         "All input from the network is hostile",
         {"packet layer", "control", "operator", "configuration", "DNS", "registration event"}},
    Rule{"S3", "Strangers cannot hold state without limit, nor push users out"},
};

}  // namespace gmgate::conformance
