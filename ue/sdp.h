#pragma once
// The little SDP (RFC 4566, 3264, 3312) calls need. gmue sends and takes no media (RTP): calls are
// signalling only.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"

namespace gmgate::ue {

enum class Direction : std::uint8_t { sendrecv, sendonly, recvonly, inactive };
[[nodiscard]] std::string_view name(Direction d);
// The same stream as the other end sees it.
[[nodiscard]] Direction seen_from_there(Direction d);
// What is left of an offer when this end wants no more than `wanted`.
[[nodiscard]] Direction both(Direction a, Direction b);

struct MediaView {
    Direction direction = Direction::sendrecv;
    bool audio = false;          // a stream with a port
    bool preconditions = false;  // some are asked for (RFC 3312)
    bool peer_ready = true;      // its resources are there, or it does not say
};
// nullopt: not SDP.
[[nodiscard]] std::optional<MediaView> read_sdp(std::string_view body);

struct MediaWrite {
    IpAddress address;
    std::uint64_t session = 0;
    std::uint32_t version = 1;
    Direction direction = Direction::sendrecv;
    bool preconditions = false;
    bool ready = true;       // our resources are there
    bool peer_ready = true;  // the peer said its are
};
[[nodiscard]] std::string write_sdp(const MediaWrite& what);

}  // namespace gmgate::ue
