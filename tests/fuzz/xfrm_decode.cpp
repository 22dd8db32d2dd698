// Whatever a netlink socket brings: no read past the end, and what decodes as one of our states or
// policies encodes and decodes to the same.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "sa/kernel/decoder.h"
#include "sa/kernel/encoder.h"

using namespace gmgate::kernel;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

// Names are cut at their first zero and at 63 octets, and a state has more room than we use.
bool encodable(const State& s) {
    for (const auto* a : {&s.auth, &s.crypt, &s.aead}) {
        if (*a && ((*a)->key.size() > 64 || (*a)->name.size() > 63)) return false;
    }
    return s.protocol == protocol_esp && s.selector.v6 == s.id.destination.is_v6();
}

void look_at(const MessageView& m) {
    std::array<std::uint8_t, 4096> buffer{};
    (void)parse_acknowledgement(m);
    (void)parse_expiry(m.payload);
    (void)parse_acquire(m.payload);
    if (const auto s = parse_state(m.payload); s && encodable(*s)) {
        Encoder e(buffer, 1);
        e.add_state(*s);
        require(e.ok());
        auto octets = e.octets();
        const auto again = next_message(octets);
        require(again.has_value());
        const auto t = parse_state(again->payload);
        require(t && t->id == s->id && t->selector == s->selector && t->reqid == s->reqid &&
                t->encapsulation == s->encapsulation && t->offload == s->offload &&
                t->set_mark == s->set_mark && t->auth.has_value() == s->auth.has_value());
    }
    if (const auto p = parse_policy(m.payload); p && !p->on_socket) {
        Encoder e(buffer, 1);
        e.put_policy(*p);
        require(e.ok());
        auto octets = e.octets();
        const auto t = parse_policy(next_message(octets)->payload);
        require(t && t->selector == p->selector && t->direction == p->direction &&
                t->block == p->block && t->reqid == p->reqid);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> octets(data, size);
    look_at(MessageView{0, 0, 0, octets});
    while (const auto m = next_message(octets)) look_at(*m);
    return 0;
}
