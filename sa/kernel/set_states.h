#pragma once
// The four states of a set (A2, A3).

#include <array>
#include <cstdint>

#include "base/ip.h"
#include "sa/backend.h"
#include "sa/kernel/message.h"
#include "sa/types.h"

namespace gmgate::kernel {

// The order of the four, everywhere.
enum Position : unsigned char { in_ps, in_pc, out_uc, out_us };
inline constexpr std::size_t states_per_set = 4;
inline constexpr bool is_inbound(std::size_t position) {
    return position < out_uc;
}

// D7: from here on the set is to be retired; no sequence number passes the end.
inline constexpr std::uint64_t sequence_near_end = (std::uint64_t{1} << 32U) - (1U << 20U);
inline constexpr std::uint64_t sequence_end = (std::uint64_t{1} << 32U) - 1;

// RFC 3948: ours of ESP in UDP, and what is tried first of a phone whose own is not known yet.
inline constexpr sa::Port nat_port = 4500;

// `outer`: the UE is behind a NAT (N1) and its packets come from there; nullptr: `ue` itself.
[[nodiscard]] std::array<StateId, states_per_set> state_ids(const IpAddress& ue,
                                                            const IpAddress& ours,
                                                            const sa::SaNumbers& numbers,
                                                            const IpAddress* outer = nullptr);

// Without algorithms, reqid, window and mark. out_sequence as in sa::SetParams. `outer`: in tunnel
// mode, in UDP to and from there.
[[nodiscard]] std::array<State, states_per_set> set_states(const IpAddress& ue,
                                                           const IpAddress& ours,
                                                           const sa::SaNumbers& numbers,
                                                           std::uint32_t out_sequence,
                                                           const Endpoint* outer = nullptr);

// SHA-256 over what makes a state this one: addresses, SPI, selector, mode, algorithms, keys. Two
// runs of the gateway agree on it; it does not give the keys away.
using Fingerprint = std::array<std::uint8_t, 32>;
[[nodiscard]] Fingerprint fingerprint(const State& state);

}  // namespace gmgate::kernel
