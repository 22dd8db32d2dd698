#pragma once
// Octets of the kernel into XFRM messages: every length is checked, whatever the octets say. No
// socket, no allocation. What is decoded points into the octets.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "sa/kernel/message.h"

namespace gmgate::kernel {

// One netlink message.
struct MessageView {
    std::uint16_t type = 0;
    std::uint16_t flags = 0;
    std::uint32_t sequence = 0;
    std::span<const std::uint8_t> payload;
};

// Takes the first message off `octets`; nullopt: nothing (whole) is left.
[[nodiscard]] std::optional<MessageView> next_message(std::span<const std::uint8_t>& octets);

// NLMSG_ERROR (acknowledgement: error 0) and NLMSG_DONE.
struct Acknowledgement {
    int error = 0;          // errno, positive
    std::string_view text;  // what the kernel says about it; empty: nothing
};
// nullopt: neither of the two, or damaged.
[[nodiscard]] std::optional<Acknowledgement> parse_acknowledgement(const MessageView& message);

// Payload of XFRM_MSG_NEWSA. nullopt: damaged, or of a family other than IPv4 and IPv6.
[[nodiscard]] std::optional<State> parse_state(std::span<const std::uint8_t> payload);
// Payload of XFRM_MSG_NEWPOLICY.
[[nodiscard]] std::optional<Policy> parse_policy(std::span<const std::uint8_t> payload);

struct Expiry {
    State state;  // without algorithms
    bool hard = false;
};
// Payload of XFRM_MSG_EXPIRE.
[[nodiscard]] std::optional<Expiry> parse_expiry(std::span<const std::uint8_t> payload);

// An authentic packet of an encapsulated inbound state came from elsewhere than the state says.
struct Mapping {
    StateId id;
    std::uint32_t reqid = 0;
    Endpoint now;
};
// Payload of XFRM_MSG_MAPPING.
[[nodiscard]] std::optional<Mapping> parse_mapping(std::span<const std::uint8_t> payload);

// The kernel has a packet to send and no state for it.
struct Acquire {
    Selector packet;
    std::uint32_t reqid = 0;  // of the policy's first template
};
// Payload of XFRM_MSG_ACQUIRE.
[[nodiscard]] std::optional<Acquire> parse_acquire(std::span<const std::uint8_t> payload);

}  // namespace gmgate::kernel
