// A stream in pieces: the cut must not change what comes out, and what comes out as a message must
// be one for the reader too. Input: first octet the size of the pieces (0: all at once) and, in its
// top bit, the side; the rest is the stream.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "control/sip/framer.h"

using namespace gmgate::sip;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

struct Seen {
    FrameKind kind;
    std::string bytes;
    ParseStatus status;
    bool operator==(const Seen&) const = default;
};

std::vector<Seen> run(std::string_view stream, std::size_t step, StreamFramer::Side side) {
    StreamFramer framer(side);
    std::vector<Seen> seen;
    for (std::size_t at = 0; at < stream.size(); at += step) {
        framer.feed(stream.substr(at, step));
        while (true) {
            const auto f = framer.next();
            if (f.kind == FrameKind::none) break;
            // What of the broken rest had come by then depends on the pieces.
            seen.push_back({f.kind,
                            f.kind == FrameKind::error ? std::string() : std::string(f.bytes),
                            f.status});
            if (f.kind == FrameKind::error) return seen;
        }
        require(framer.pending() <= max_message);
    }
    return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto side =
        (data[0] & 0x80U) != 0 ? StreamFramer::Side::client : StreamFramer::Side::server;
    const std::size_t step = (data[0] & 0x7FU) == 0 ? stream.size() : data[0] & 0x7FU;
    const auto whole = run(stream, stream.size(), side);
    require(run(stream, step, side) == whole);
    for (const auto& s : whole) {
        if (s.kind != FrameKind::message) continue;
        Message m;
        m.parse(s.bytes, Framing::stream);
        require(m.bytes().size() == s.bytes.size());
        require(m.content_length() == m.body().size());
    }
    return 0;
}
