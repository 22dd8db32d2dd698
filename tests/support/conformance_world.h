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

// One phone, either new (SM1 in clear) or registered (SM1 on its set), up to SM6. Nearly every
// rule of C asks for both (D6).
struct Procedure {
    // `registered`: the phone has been registered before and SM1 travels on that set.
    explicit Procedure(bool registered, World::Options options = with_gmhome())
        : w(std::move(options)), p(w.phone()), is_protected(registered) {
        if (registered) {
            EXPECT_TRUE(p.register_once());
            old = w.set_of(p.current());
        }
        before = w.settled();
        if (w.network) w.network->cx.clear();
        EXPECT_TRUE(p.challenged(is_protected));
        if (p.pending) fresh = w.set_of(*p.pending);
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
    sa::SetId old = 0;    // of the registration there was
    sa::SetId fresh = 0;  // of the challenge
    Books before;         // what was held before SM1
};

}  // namespace gmgate::test
