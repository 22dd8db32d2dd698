// What reaches a phone from the network: ESP as it comes, and, sealed with the right keys,
// everything behind it: inner UDP and TCP, the phone's TCP, the parser of Security-Server.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/random.h"
#include "ue/esp.h"
#include "ue/packet.h"
#include "ue/security_agreement.h"
#include "ue/tcp.h"
#include "ue/usim.h"

namespace {

using namespace gmgate;
using namespace gmgate::ue;

struct Sink final : TcpOwner {
    std::size_t received = 0;
    void tcp_output(TcpConnection&, const TcpSegment& s) override { received += s.payload.size(); }
    void tcp_established(TcpConnection&) override {}
    void tcp_data(TcpConnection&, std::string_view d) override { received += d.size(); }
    void tcp_closed(TcpConnection& c, bool reset) override {
        if (!reset) c.close();
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    static EspCrypto crypto;
    const auto suite = sa::all_suites[data[0] % sa::all_suites.size()];
    const std::uint8_t mode = data[1];
    const std::span<const std::uint8_t> input(data + 2, size - 2);
    Secret<16> ck, ik;
    ck.writable()[0] = 1;
    ik.writable()[0] = 2;
    const sa::EspKeys keys = sa::expand_keys(suite, ck, ik);
    const auto ue = *IpAddress::parse((mode & 1U) != 0 ? "fd00:20::1" : "10.20.0.1");
    const auto pcscf = *IpAddress::parse((mode & 1U) != 0 ? "fd00:21::1" : "10.21.0.1");

    (void)crypto.open(suite, keys, input);
    (void)read_ipv4(input);
    const std::string_view value = as_text(input);
    if (const auto list = parse_security_server(std::span(&value, 1))) {
        for (const Style style : all_styles) (void)security_verify(style, *list);
        (void)choose(*list, sa::all_suites);
    }
    (void)parse_aka_nonce(value);

    SeededRandom random(1);
    EspCrypto::Packet p;
    p.spi = 0x1000;
    p.sequence = 1;
    p.payload = input;
    Bytes sealed;
    crypto.seal(suite, keys, p, random, sealed);
    const auto opened = crypto.open(suite, keys, sealed);
    if (!opened ||
        !std::equal(opened->payload.begin(), opened->payload.end(), input.begin(), input.end()))
        std::abort();
    (void)read_udp(pcscf, ue, opened->payload);

    // The input as a series of segments: 14 octets of header fields, then up to 255 of payload.
    ManualClock clock;
    TimerWheel wheel(clock);
    Sink sink;
    TcpConnection tcp(wheel, sink, {40001, 6100, 1000, 100});
    tcp.connect();
    if ((mode & 2U) != 0) {
        TcpSegment s;
        s.flags = tcp_flag::syn | tcp_flag::ack;
        s.acknowledgment = 101;
        s.sequence = 1000;
        s.window = 3000;
        tcp.receive(s);
        tcp.send("hello");
    }
    std::span<const std::uint8_t> rest = input;
    while (rest.size() >= 12) {
        TcpSegment s;
        s.flags = rest[0];
        s.sequence = 1001 + load_be16(&rest[1]) - load_be16(&rest[3]);
        s.acknowledgment = 101 + load_be16(&rest[5]);
        s.window = load_be16(&rest[7]);
        s.mss = load_be16(&rest[9]);
        const std::size_t n = std::min<std::size_t>(rest[11], rest.size() - 12);
        s.payload = rest.subspan(12, n);
        Bytes bytes;
        build_tcp(pcscf, ue, s, bytes);
        const auto back = read_tcp(pcscf, ue, bytes);
        if (!back) std::abort();
        tcp.receive(*back);
        clock.advance(std::chrono::milliseconds(100));
        wheel.advance();
        rest = rest.subspan(12 + n);
    }
    return 0;
}
