// Any text as Security-Client and Security-Verify: verdicts must hold what they promise, comparison
// must be an equivalence, and nothing but our own list may pass for it.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "control/secagree/mechanism.h"

using namespace gmgate;
using namespace gmgate::secagree;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    MechanismList l;
    l.add(text);
    require(!l.empty() && l.mechanisms().size() <= MechanismList::capacity);
    for (const auto& m : l.mechanisms()) {
        require(m.same_meaning(m));
        require((m.verdict == Verdict::accept) == (m.fault == Fault::none));
        require(m.q <= 1000);
        if (m.verdict != Verdict::accept) continue;
        require(sa::is_valid(m.suite) && m.mode != Mode::other);
        require(m.spi_c != 0 && m.spi_s != 0 && m.spi_c != m.spi_s);
        require(m.port_c != 0 && m.port_s != 0 && m.port_c != m.port_s);
        for (const auto port : {m.port_c, m.port_s}) require(port != 5060 && port != 5061);
    }
    require(same_offer(l, l) == !l.is_malformed());
    const auto choice = choose(l, {.order = sa::all_suites});
    if (choice) require(!l.is_malformed() && choice->mechanism.verdict == Verdict::accept);

    // What a UE offers, sent back by us as our own list, verifies; with another number it does not.
    if (choice) {
        const sa::Suite one[] = {choice->suite};
        const ServerList ours{one,
                              choice->mechanism.spi_c,
                              choice->mechanism.spi_s,
                              choice->mechanism.port_c,
                              choice->mechanism.port_s,
                              choice->mechanism.mode};
        MechanismList back;
        back.add(security_server(ours));
        require(check_verify(back, ours) == VerifyResult::equal);
        auto other = ours;
        other.spi_c ^= 0x80000000U;
        require(check_verify(back, other) != VerifyResult::equal);
        // If the UE's own text passes as ours, each of its mechanisms says so.
        if (check_verify(l, ours) == VerifyResult::equal) {
            for (const auto& m : l.mechanisms())
                require(m.suite == choice->suite && m.spi_c == ours.spi_c &&
                        m.port_s == ours.port_s);
        }
    }
    return 0;
}
