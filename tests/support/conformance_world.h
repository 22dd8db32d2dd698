#pragma once
// What the conformance tests of the whole gateway begin with: a world with gmhome's home network,
// and one phone that is about to be, or has been, registered.

#include "tests/support/gateway_world.h"

namespace gmgate::test {

// Phones with cards, gmhome's S-CSCF and HSS, everything challenged.
inline World::Options with_gmhome(home::RegistrarConfig config = HomeNetwork::default_config()) {
    World::Options o;
    o.policy.name.clear();  // the Path names an address
    o.gmhome = std::move(config);
    return o;
}

// One phone before SM1, either new (SM1 in clear) or registered before (SM1 on that set). Nearly
// every rule of C asks for both (D6).
struct Beginning {
    explicit Beginning(bool registered, World::Options options = with_gmhome())
        : w(std::move(options)), p(w.phone()), is_protected(registered) {
        if (registered) {
            EXPECT_TRUE(p.register_once());
            old = w.set_of(p.current());
        }
        before = w.settled();
    }
    void send_sm1(RegisterOptions o = {}) {
        is_protected ? p.send_protected_sm1(std::move(o)) : p.send_sm1(std::move(o));
    }
    // The whole procedure, as it begins here; true: 200.
    bool registers() { return is_protected ? p.reregister() : p.register_once(); }
    // The pending challenge is answered as it should be: registered, served, nothing left over.
    void expect_completes() {
        p.send_sm7();
        w.run();
        EXPECT_EQ(p.last_status(), 200);
        p.accept();
        w.expect_served(p);
        w.expect_no_leak(1);
    }
    // The phone's current set is there, works, and carries traffic; and nothing else is held.
    void expect_as_before() {
        EXPECT_EQ(w.settled(), before);
        if (!is_protected) return;
        EXPECT_TRUE(w.backend.has(old));
        w.expect_served(p);
        EXPECT_EQ(p.last().set, old);
    }

    World w;
    Phone& p;
    bool is_protected;
    sa::SetId old = 0;  // of the registration there was
    Books before;       // what was held before SM1
};

// The same from SM6 on.
struct Procedure : Beginning {
    explicit Procedure(bool registered, World::Options options = with_gmhome())
        : Beginning(registered, std::move(options)) {
        if (w.network) w.network->cx.clear();
        EXPECT_TRUE(p.challenged(is_protected));
        if (p.pending) fresh = w.set_of(*p.pending);
    }
    sa::SetId fresh = 0;  // of the challenge
};

}  // namespace gmgate::test
