#include "ue/sdp.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/sip/values.h"

namespace gmgate::ue {

namespace {

constexpr std::uint16_t audio_port = 49152;
constexpr std::size_t most_lines = 500;

bool sends(Direction d) {
    return d == Direction::sendrecv || d == Direction::sendonly;
}
bool receives(Direction d) {
    return d == Direction::sendrecv || d == Direction::recvonly;
}
Direction make(bool send, bool receive) {
    if (send) return receive ? Direction::sendrecv : Direction::sendonly;
    return receive ? Direction::recvonly : Direction::inactive;
}

}  // namespace

std::string_view name(Direction d) {
    switch (d) {
        case Direction::sendrecv:
            return "sendrecv";
        case Direction::sendonly:
            return "sendonly";
        case Direction::recvonly:
            return "recvonly";
        case Direction::inactive:
            return "inactive";
    }
    return "";
}

Direction seen_from_there(Direction d) {
    return make(receives(d), sends(d));
}

Direction both(Direction a, Direction b) {
    return make(sends(a) && sends(b), receives(a) && receives(b));
}

std::optional<MediaView> read_sdp(std::string_view body) {
    MediaView out;
    if (!body.starts_with("v=0")) return std::nullopt;
    bool in_audio = false;
    bool media_seen = false;
    std::size_t lines = 0;
    while (!body.empty()) {
        const auto end = std::min(body.find('\n'), body.size());
        const std::string_view line = sip::trim_lws(body.substr(0, end));
        body.remove_prefix(std::min(body.size(), end + 1));
        if (line.empty()) continue;
        if (++lines > most_lines || line.size() < 2 || line[1] != '=') return std::nullopt;
        if (line.starts_with("m=")) {
            media_seen = true;
            in_audio = line.starts_with("m=audio ") && !out.audio;
            if (in_audio) out.audio = !line.starts_with("m=audio 0 ");
            continue;
        }
        if (media_seen && !in_audio) continue;
        for (const Direction d :
             {Direction::sendrecv, Direction::sendonly, Direction::recvonly, Direction::inactive}) {
            if (line.starts_with("a=") && line.substr(2) == name(d)) out.direction = d;
        }
        if (line.starts_with("a=des:qos mandatory")) out.preconditions = true;
        if (line.starts_with("a=curr:qos local"))
            out.peer_ready = line.ends_with("sendrecv") || line.ends_with(" send");
    }
    if (!media_seen) return std::nullopt;
    return out;
}

std::string write_sdp(const MediaWrite& w) {
    const char* family = w.address.is_v6() ? "IP6" : "IP4";
    const std::string address = w.address.to_string();
    std::string out = fmt::format(
        "v=0\r\no=- {0} {1} IN {2} {3}\r\ns=-\r\nc=IN {2} {3}\r\nb=AS:49\r\nt=0 0\r\n"
        "m=audio {4} RTP/AVP 104 96\r\na=rtpmap:104 AMR-WB/16000/1\r\n"
        "a=fmtp:104 mode-change-capability=2;max-red=220\r\na=rtpmap:96 telephone-event/16000\r\n"
        "a=ptime:20\r\na=maxptime:240\r\n",
        w.session, w.version, family, address, audio_port);
    if (w.preconditions) {
        fmt::format_to(std::back_inserter(out),
                       "a=curr:qos local {}\r\na=curr:qos remote {}\r\n"
                       "a=des:qos mandatory local sendrecv\r\na=des:qos {} remote sendrecv\r\n",
                       w.ready ? "sendrecv" : "none", w.peer_ready ? "sendrecv" : "none",
                       w.ready ? "mandatory" : "none");
        if (w.ready && !w.peer_ready) out += "a=conf:qos remote sendrecv\r\n";
    }
    fmt::format_to(std::back_inserter(out), "a={}\r\n", name(w.direction));
    return out;
}

}  // namespace gmgate::ue
